/*
 * What all kinds of queue have in common: each test runs once for each kind. A
 * kind's own rules are in its own test.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <bop/mpmc.h>

#include "asymmetric_fence.h"
#include "tap.h"

#define CAPACITY    64
#define THREADS_MAX 4
#define MANY        20000 /* Items of one producer. */
#define BULK        7
#define LOOKS_MAX   10000 /* For a first item. */

struct worker {
    struct fixture *f;
    pthread_t thread;
    unsigned number;
    size_t bulk;
    bool token;
    unsigned reopen_every; /* 0: never. */
    uint64_t accepted;
    uint64_t popped;
    int rc;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_mpmc *queue;
    struct bop_mpmc_producer *producer;
    struct bop_mpmc_consumer *consumer;
    enum bop_mpmc_kind kind;
    uint64_t items[CAPACITY];
    size_t discarded;
    uint64_t discarded_sum;
    atomic_uint notifications;
    bool pop_in_notify;
    atomic_bool about_to_wait;

    struct worker producers[THREADS_MAX];
    struct worker consumers[THREADS_MAX];
    _Atomic uint8_t *seen; /* How often each item was popped. */
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->seen = calloc((size_t)THREADS_MAX * MANY, 1);
    REQUIRE(f->seen != NULL);
}

static void close_all(struct fixture *f)
{
    if (f->queue) {
        bop_mpmc_producer_close(f->producer);
        bop_mpmc_consumer_close(f->consumer);
    }
    bop_mpmc_destroy(f->queue);
    f->queue = NULL;
    f->producer = NULL;
    f->consumer = NULL;
    CHECK_EQ(f->heap.live, 0);
}

static void teardown(struct fixture *f)
{
    close_all(f);
    free((void *)f->seen);
    bop__asymmetric_fence_force_full(false);
}

FIXTURE(setup, teardown)

static void discard(void *user, uint64_t item)
{
    struct fixture *f = user;

    f->discarded++;
    f->discarded_sum += item;
}

static void notify(void *user)
{
    struct fixture *f = user;
    uint64_t item;

    f->notifications++;
    if (f->pop_in_notify) {
        CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 1);
    }
}

static int create(struct fixture *f, enum bop_mpmc_kind kind)
{
    struct bop_mpmc_options options = {
        .allocator = &f->heap.allocator,
        .kind = kind,
        .capacity = kind == BOP_MPMC_BOUNDED ? CAPACITY : 0,
        .discard = discard,
        .notify = notify,
        .user = f,
    };

    f->kind = kind;
    f->discarded = 0;
    f->discarded_sum = 0;
    f->notifications = 0;
    return bop_mpmc_create(&options, &f->queue, NULL);
}

/* Create a queue of the kind, with a token on each side if `tokens`. */
static void begin(struct fixture *f, enum bop_mpmc_kind kind, bool tokens)
{
    close_all(f);
    REQUIRE_EQ(create(f, kind), 0);
    if (tokens) {
        REQUIRE_EQ(bop_mpmc_producer_open(f->queue, &f->producer), 0);
        REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 0, &f->consumer), 0);
    }
}

/* The body runs for each kind, without and with tokens, on a new queue. */
#define FOR_EACH_KIND(f)                                                                           \
    for (unsigned round_ = 0; round_ < 6 && (begin(f, round_ / 2, round_ % 2 == 1), true); round_++)

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* -- One thread -------------------------------------------------------------------------------- */

TEST(mpmc, pops_in_the_order_of_pushes)
{
    FOR_EACH_KIND(f)
    {
        uint64_t item;

        CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 0);
        for (uint64_t i = 0; i < 50; i++) {
            CHECK_EQ(bop_mpmc_push(f->queue, f->producer, i), 0);
            CHECK_EQ(bop_mpmc_size(f->queue), i + 1);
        }
        for (uint64_t i = 0; i < 50; i++) {
            CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 1);
            CHECK_EQ(item, i);
            CHECK_EQ(bop_mpmc_size(f->queue), 49 - i);
        }
        CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 0);
    }
}

TEST(mpmc, takes_every_value)
{
    static const uint64_t values[] = {0, 1, UINT64_MAX, UINT64_MAX - 1, UINT64_C(1) << 63};

    FOR_EACH_KIND(f)
    {
        for (size_t i = 0; i < BOP_COUNT_OF(values); i++) {
            uint64_t item = 42;

            CHECK_EQ(bop_mpmc_push(f->queue, f->producer, values[i]), 0);
            CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 1);
            CHECK_EQ(item, values[i]);
        }
    }
}

TEST(mpmc, pushes_and_pops_in_bulk)
{
    FOR_EACH_KIND(f)
    {
        uint64_t items[5] = {1, 2, 3, 4, 5}, out[8] = {0};

        CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, NULL, 0), 0);
        CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->consumer, out, 0), 0);
        CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, items, 5), 0);
        CHECK_EQ(bop_mpmc_push_some(f->queue, f->producer, items, 2), 2);
        CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->consumer, out, 3), 3);
        CHECK_MEM_EQ(out, items, 3 * sizeof(items[0]));
        CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->consumer, out, 8), 4);
        CHECK_EQ(out[0], 4);
        CHECK_EQ(out[1], 5);
        CHECK_EQ(out[2], 1);
        CHECK_EQ(out[3], 2);
        CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->consumer, out, 8), 0);
    }
}

/* Single pops leave a claim behind where there are claims; bulk pops go on with it. */
TEST(mpmc, mixes_single_and_bulk_pops)
{
    FOR_EACH_KIND(f)
    {
        uint64_t expected = 0, out[10];

        for (uint64_t i = 0; i < CAPACITY; i++) {
            CHECK_EQ(bop_mpmc_push(f->queue, f->producer, i), 0);
        }
        for (size_t count = 1; expected < CAPACITY; count = count % 10 + 1) {
            ssize_t got = count == 1 ? bop_mpmc_pop(f->queue, f->consumer, out)
                                     : bop_mpmc_pop_bulk(f->queue, f->consumer, out, count);

            REQUIRE(got > 0);
            for (ssize_t i = 0; i < got; i++) {
                CHECK_EQ(out[i], expected++);
            }
            CHECK_EQ(bop_mpmc_size(f->queue), CAPACITY - expected);
        }
    }
}

TEST(mpmc, hands_what_is_left_to_discard)
{
    FOR_EACH_KIND(f)
    {
        uint64_t item;

        for (uint64_t i = 1; i <= 40; i++) {
            CHECK_EQ(bop_mpmc_push(f->queue, i % 2 ? f->producer : NULL, i), 0);
        }
        CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 1);
        close_all(f);
        CHECK_EQ(f->discarded, 39);
        CHECK_EQ(f->discarded_sum, 820 - item); /* 40 * 41 / 2. */
    }
}

TEST(mpmc, refuses_pushes_once_closed_and_drains)
{
    FOR_EACH_KIND(f)
    {
        uint64_t item, items[3] = {0};

        CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 1), 0);
        CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 2), 0);
        bop_mpmc_close(f->queue);
        bop_mpmc_close(f->queue);
        CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 3), BOP_ECLOSED);
        CHECK_EQ(bop_mpmc_try_push(f->queue, f->producer, 3), BOP_ECLOSED);
        CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, items, 3), BOP_ECLOSED);
        CHECK_EQ(bop_mpmc_push_some(f->queue, f->producer, items, 3), BOP_ECLOSED);
        CHECK_EQ(bop_mpmc_push_wait(f->queue, f->producer, 3, BOP_MPMC_FOREVER), BOP_ECLOSED);
        CHECK_EQ(bop_mpmc_size(f->queue), 2);
        CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 1);
        CHECK_EQ(item, 1);
        CHECK_EQ(bop_mpmc_pop_wait(f->queue, f->consumer, &item, BOP_MPMC_FOREVER), 1);
        CHECK_EQ(item, 2);
        CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), BOP_ECLOSED);
        CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->consumer, items, 3), BOP_ECLOSED);
        CHECK_EQ(bop_mpmc_pop_wait(f->queue, f->consumer, &item, BOP_MPMC_FOREVER), BOP_ECLOSED);
    }
}

TEST(mpmc, reuses_tokens)
{
    FOR_EACH_KIND(f)
    {
        uint64_t item;

        for (uint64_t i = 0; i < 30; i++) {
            struct bop_mpmc_producer *producer;
            struct bop_mpmc_consumer *consumer;

            REQUIRE_EQ(bop_mpmc_producer_open(f->queue, &producer), 0);
            REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 1, &consumer), 0);
            CHECK_EQ(bop_mpmc_push(f->queue, producer, i), 0);
            bop_mpmc_producer_close(producer);
            CHECK_EQ(bop_mpmc_pop(f->queue, consumer, &item), 1);
            CHECK_EQ(item, i);
            bop_mpmc_consumer_close(consumer);
        }
        bop_mpmc_producer_close(NULL);
        bop_mpmc_consumer_close(NULL);
    }
}

/* -- Options ----------------------------------------------------------------------------------- */

static void check_refused(struct bop_mpmc_options options, const char *text)
{
    struct bop_mpmc *queue = NULL;
    struct bop_error err = {0};

    CHECK_EQ(bop_mpmc_create(&options, &queue, &err), BOP_EINVAL);
    CHECK_STR_EQ(err.message, text);
    CHECK_EQ(bop_mpmc_create(&options, &queue, NULL), BOP_EINVAL);
    CHECK_PTR_EQ(queue, NULL);
}

TEST(mpmc, refuses_bad_options_and_names_the_field)
{
    check_refused((struct bop_mpmc_options){.kind = BOP_MPMC_BOUNDED, .capacity = 3},
                  "capacity must be a power of two from 2 to 2^31, not 3");
    check_refused((struct bop_mpmc_options){.kind = BOP_MPMC_BOUNDED, .capacity = 1},
                  "capacity must be a power of two from 2 to 2^31, not 1");
    check_refused((struct bop_mpmc_options){.kind = BOP_MPMC_BOUNDED},
                  "capacity must be a power of two from 2 to 2^31, not 0");
    check_refused((struct bop_mpmc_options){.kind = BOP_MPMC_BOUNDED, .capacity = (size_t)1 << 32},
                  "capacity must be a power of two from 2 to 2^31, not 4294967296");
    check_refused((struct bop_mpmc_options){.capacity = 8},
                  "capacity must be 0 for a queue that grows, not 8");
    check_refused((struct bop_mpmc_options){.kind = (enum bop_mpmc_kind)7},
                  "kind must be lanes, fifo or bounded, not 7");
    check_refused((struct bop_mpmc_options){.kind = BOP_MPMC_BOUNDED,
                                            .capacity = 8,
                                            .memory_bytes_max = 100000},
                  "memory_bytes_max must be 0 for a bounded queue, not 100000");
}

TEST(mpmc, refuses_to_claim_too_far_ahead)
{
    FOR_EACH_KIND(f)
    {
        struct bop_mpmc_consumer *consumer;

        CHECK_EQ(bop_mpmc_consumer_open(f->queue, BOP_MPMC_CLAIM_AHEAD_MAX + 1, &consumer),
                 BOP_EINVAL);
        REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, BOP_MPMC_CLAIM_AHEAD_MAX, &consumer), 0);
        bop_mpmc_consumer_close(consumer);
    }
}

/* -- Waiting ----------------------------------------------------------------------------------- */

TEST(mpmc, times_out_in_microseconds)
{
    FOR_EACH_KIND(f)
    {
        uint64_t item, start = now_us();

        CHECK_EQ(bop_mpmc_pop_wait(f->queue, f->consumer, &item, 0), 0);
        CHECK_EQ(bop_mpmc_pop_wait(f->queue, f->consumer, &item, 3000), 0);
        CHECK(now_us() - start >= 3000);
        CHECK_EQ(bop_mpmc_pop_bulk_wait(f->queue, f->consumer, f->items, 4, 3000), 0);
        CHECK(now_us() - start >= 6000);
        CHECK(now_us() - start < 3000000); /* Not in milliseconds. */
    }
}

static void *push_one_later(void *argument)
{
    struct worker *worker = argument;

    while (!worker->f->about_to_wait) {
        sched_yield();
    }
    worker->rc = bop_mpmc_push(worker->f->queue, NULL, 77);
    return NULL;
}

TEST(mpmc, wakes_who_waits)
{
    FOR_EACH_KIND(f)
    {
        struct worker *worker = &f->producers[0];

        for (unsigned i = 0; i < 50; i++) {
            uint64_t item = 0;

            worker->f = f;
            f->about_to_wait = false;
            REQUIRE_EQ(pthread_create(&worker->thread, NULL, push_one_later, worker), 0);
            f->about_to_wait = true;
            CHECK_EQ(bop_mpmc_pop_wait(f->queue, f->consumer, &item, BOP_MPMC_FOREVER), 1);
            CHECK_EQ(item, 77);
            pthread_join(worker->thread, NULL);
            CHECK_EQ(worker->rc, 0);
        }
    }
}

static void *close_queue(void *argument)
{
    bop_mpmc_close(((struct worker *)argument)->f->queue);
    return NULL;
}

TEST(mpmc, close_wakes_who_waits)
{
    FOR_EACH_KIND(f)
    {
        struct worker *worker = &f->producers[0];
        uint64_t item;

        worker->f = f;
        REQUIRE_EQ(pthread_create(&worker->thread, NULL, close_queue, worker), 0);
        CHECK_EQ(bop_mpmc_pop_wait(f->queue, f->consumer, &item, BOP_MPMC_FOREVER), BOP_ECLOSED);
        pthread_join(worker->thread, NULL);
    }
}

/* -- In an event loop -------------------------------------------------------------------------- */

TEST(mpmc, notifies_once_for_each_arming)
{
    FOR_EACH_KIND(f)
    {
        uint64_t item;

        CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 1), 0);
        CHECK_EQ(f->notifications, 0);
        CHECK(!bop_mpmc_arm(f->queue)); /* Not empty: pop first. */
        CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 2), 0);
        CHECK_EQ(f->notifications, 0);
        CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 1);
        CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 1);
        CHECK(bop_mpmc_arm(f->queue));
        CHECK(bop_mpmc_arm(f->queue)); /* Again is fine. */
        CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 3), 0);
        CHECK_EQ(f->notifications, 1);
        CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 4), 0);
        CHECK_EQ(f->notifications, 1);
    }
}

TEST(mpmc, notifies_of_close)
{
    FOR_EACH_KIND(f)
    {
        CHECK(bop_mpmc_arm(f->queue));
        bop_mpmc_close(f->queue);
        CHECK_EQ(f->notifications, 1);
        CHECK(!bop_mpmc_arm(f->queue));
        bop_mpmc_close(f->queue);
        CHECK_EQ(f->notifications, 1);
    }
}

TEST(mpmc, may_be_popped_while_notifying)
{
    FOR_EACH_KIND(f)
    {
        f->pop_in_notify = true;
        CHECK(bop_mpmc_arm(f->queue));
        CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 5), 0);
        CHECK_EQ(f->notifications, 1);
        CHECK_EQ(bop_mpmc_size(f->queue), 0);
        f->pop_in_notify = false;
    }
}

static bool is_readable(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};

    return poll(&pollfd, 1, 0) == 1;
}

TEST(mpmc, writes_to_its_eventfd)
{
    FOR_EACH_KIND(f)
    {
        int fd = bop_mpmc_eventfd(f->queue);
        uint64_t item;

        REQUIRE(fd >= 0);
        CHECK_EQ(bop_mpmc_eventfd(f->queue), fd);
        CHECK(!is_readable(fd));
        CHECK(bop_mpmc_arm(f->queue));
        CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 1), 0);
        CHECK(is_readable(fd));
        CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 1);
        CHECK(bop_mpmc_arm(f->queue)); /* Clears it. */
        CHECK(!is_readable(fd));
        bop_mpmc_close(f->queue);
        CHECK(is_readable(fd));
    }
}

/* -- Memory ------------------------------------------------------------------------------------ */

static int open_push_pop(struct fixture *f, enum bop_mpmc_kind kind)
{
    uint64_t item;
    int rc = create(f, kind);

    if (rc == 0) {
        rc = bop_mpmc_producer_open(f->queue, &f->producer);
    }
    if (rc == 0) {
        rc = bop_mpmc_consumer_open(f->queue, 0, &f->consumer);
    }
    if (rc == 0) {
        rc = bop_mpmc_push(f->queue, f->producer, 1);
    }
    if (rc == 0) {
        rc = bop_mpmc_push_bulk(f->queue, NULL, f->items, 40);
    }
    for (unsigned i = 0; rc == 0 && i < 41; i++) {
        CHECK_EQ(bop_mpmc_pop(f->queue, f->consumer, &item), 1);
    }
    return rc;
}

/* Every allocation fails once in turn: the caller hears of it, and nothing leaks or is half done.
 */
TEST(mpmc, survives_each_failed_allocation)
{
    for (unsigned kind = 0; kind < 3; kind++) {
        FAULT_SWEEP(&f->faults) {
            int rc = open_push_pop(f, kind);

            CHECK_EQ(rc, f->faults.fired);
            close_all(f);
        }
        CHECK(f->faults.at >= 3); /* The queue, a producer, a consumer, and what else it takes. */
    }
}

/* -- Misuse ------------------------------------------------------------------------------------ */

#ifdef BOP_DEBUG

/* Run it in a child process, which must abort and say why. */
static void check_aborts(struct fixture *f, void (*misuse)(struct fixture *f), const char *text)
{
    char said[512] = {0};
    int pipe_fds[2], status = 0;
    size_t length = 0;
    ssize_t got;
    pid_t child;

    REQUIRE_EQ(pipe(pipe_fds), 0);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        dup2(pipe_fds[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        misuse(f);
        _exit(0);
    }
    close(pipe_fds[1]);
    while (length < sizeof(said) - 1 &&
           (got = read(pipe_fds[0], said + length, sizeof(said) - 1 - length)) > 0) {
        length += (size_t)got;
    }
    close(pipe_fds[0]);
    REQUIRE_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK_STR_HAS(said, text);
}

static void push_after_destroy(struct fixture *f)
{
    bop_mpmc_destroy(f->queue);
    BOP_IGNORE(bop_mpmc_push(f->queue, f->producer, 1));
}

static void close_after_destroy(struct fixture *f)
{
    bop_mpmc_destroy(f->queue);
    bop_mpmc_consumer_close(f->consumer);
}

static void pop_after_close(struct fixture *f)
{
    uint64_t item;

    bop_mpmc_consumer_close(f->consumer);
    BOP_IGNORE(bop_mpmc_pop(f->queue, f->consumer, &item));
}

static void pop_from_another(struct fixture *f)
{
    struct bop_mpmc_options options = {.kind = f->kind,
                                       .capacity = f->kind == BOP_MPMC_BOUNDED ? CAPACITY : 0};
    struct bop_mpmc *other;
    uint64_t item;

    REQUIRE_EQ(bop_mpmc_create(&options, &other, NULL), 0);
    BOP_IGNORE(bop_mpmc_pop(other, f->consumer, &item));
}

TEST(mpmc, aborts_when_a_token_is_misused)
{
    FOR_EACH_KIND(f)
    {
        if (f->producer) {
            check_aborts(f, push_after_destroy, "a token was used after its queue was destroyed");
            check_aborts(f, close_after_destroy, "a token was used after its queue was destroyed");
            check_aborts(f, pop_after_close, "a token was used after it was closed");
            check_aborts(f, pop_from_another, "a token was used with another queue");
        }
    }
}

#endif

/* -- Many threads ------------------------------------------------------------------------------ */

static void *produce(void *argument)
{
    struct worker *worker = argument;
    struct fixture *f = worker->f;
    struct bop_mpmc_producer *producer = NULL;
    uint64_t base = (uint64_t)worker->number * MANY, items[BULK];

    if (worker->token) {
        CHECK_EQ(bop_mpmc_producer_open(f->queue, &producer), 0);
    }
    for (uint64_t i = 0; i < MANY;) {
        size_t count = (size_t)bop_min_u64(worker->bulk, MANY - i);

        for (size_t j = 0; j < count; j++) {
            items[j] = base + i + j;
        }
        worker->rc = count == 1 ? bop_mpmc_push_wait(f->queue, producer, items[0], BOP_MPMC_FOREVER)
                                : bop_mpmc_push_bulk_wait(f->queue, producer, items, count,
                                                          BOP_MPMC_FOREVER);
        if (worker->rc != 0) {
            break;
        }
        worker->accepted += count;
        i += count;
    }
    bop_mpmc_producer_close(producer);
    return NULL;
}

static void reopen(struct worker *worker, struct bop_mpmc_consumer **consumer)
{
    bop_mpmc_consumer_close(*consumer);
    *consumer = NULL;
    CHECK_EQ(bop_mpmc_consumer_open(worker->f->queue, (unsigned)worker->popped % 40, consumer), 0);
}

/* Pop until the queue is closed and drained; each producer's items must ascend. */
static void *consume(void *argument)
{
    struct worker *worker = argument;
    struct fixture *f = worker->f;
    struct bop_mpmc_consumer *consumer = NULL;
    uint64_t next[THREADS_MAX] = {0}, items[BULK];
    unsigned since_open = 0;

    if (worker->token) {
        CHECK_EQ(bop_mpmc_consumer_open(f->queue, 0, &consumer), 0);
    }
    for (;;) {
        ssize_t got = worker->bulk == 1
                          ? bop_mpmc_pop_wait(f->queue, consumer, items, BOP_MPMC_FOREVER)
                          : bop_mpmc_pop_bulk_wait(f->queue, consumer, items, worker->bulk,
                                                   BOP_MPMC_FOREVER);

        if (got <= 0) {
            worker->rc = (int)got;
            break;
        }
        for (ssize_t i = 0; i < got; i++) {
            unsigned producer = (unsigned)(items[i] / MANY);

            /* Without claims in the game, and with a token of one's own, order holds. */
            CHECK(worker->reopen_every > 0 || !worker->token || items[i] >= next[producer]);
            next[producer] = items[i] + 1;
            f->seen[items[i]]++;
        }
        worker->popped += (uint64_t)got;
        if (worker->reopen_every > 0 && ++since_open >= worker->reopen_every) {
            reopen(worker, &consumer);
            since_open = 0;
        }
    }
    bop_mpmc_consumer_close(consumer);
    return NULL;
}

static void start(struct fixture *f, struct worker *worker, unsigned number, bool token,
                  size_t bulk, void *(*run)(void *argument))
{
    worker->f = f;
    worker->number = number;
    worker->token = token;
    worker->bulk = bulk;
    worker->accepted = 0;
    worker->popped = 0;
    REQUIRE_EQ(pthread_create(&worker->thread, NULL, run, worker), 0);
}

/* How the threads of a round differ. */
struct load {
    bool tokens;
    size_t push_bulk, pop_bulk;
    unsigned reopen_every;
    bool close_under_fire;
};

static void check_each_once(struct fixture *f)
{
    uint64_t accepted = 0, popped = 0;

    for (unsigned i = 0; i < THREADS_MAX; i++) {
        accepted += f->producers[i].accepted;
        popped += f->consumers[i].popped;
        for (uint64_t item = 0; item < MANY; item++) {
            CHECK_EQ(f->seen[i * MANY + item], item < f->producers[i].accepted ? 1 : 0);
        }
        CHECK_EQ(f->consumers[i].rc, BOP_ECLOSED);
    }
    CHECK_EQ(popped, accepted);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

static void run_load(struct fixture *f, const struct load *load)
{
    memset((void *)f->seen, 0, (size_t)THREADS_MAX * MANY);
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        f->consumers[i].reopen_every = load->reopen_every;
        start(f, &f->consumers[i], i, load->tokens, load->pop_bulk, consume);
    }
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        start(f, &f->producers[i], i, load->tokens, load->push_bulk, produce);
    }
    if (load->close_under_fire) {
        /* On a busy machine all may be through before anything was seen inside. */
        for (unsigned looks = 0; bop_mpmc_size(f->queue) == 0 && looks < LOOKS_MAX; looks++) {
            sched_yield();
        }
        bop_mpmc_close(f->queue);
    }
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        pthread_join(f->producers[i].thread, NULL);
        CHECK(f->producers[i].rc == 0 ||
              (load->close_under_fire && f->producers[i].rc == BOP_ECLOSED));
    }
    bop_mpmc_close(f->queue);
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        pthread_join(f->consumers[i].thread, NULL);
    }
    check_each_once(f);
}

TEST(mpmc, delivers_each_item_once_and_in_order)
{
    FOR_EACH_KIND(f)
    {
        run_load(f, &(struct load){.tokens = f->producer, .push_bulk = 1, .pop_bulk = 1});
    }
}

TEST(mpmc, delivers_each_item_once_in_bulk)
{
    FOR_EACH_KIND(f)
    {
        run_load(f, &(struct load){.tokens = f->producer, .push_bulk = BULK, .pop_bulk = BULK});
    }
}

TEST(mpmc, delivers_each_item_once_while_consumers_come_and_go)
{
    for (unsigned kind = 0; kind < 3; kind++) {
        begin(f, kind, true);
        run_load(f, &(struct load){
                        .tokens = true, .push_bulk = BULK, .pop_bulk = 1, .reopen_every = 23});
    }
}

/* What was accepted is popped, and nothing else. */
TEST(mpmc, closes_under_fire)
{
    FOR_EACH_KIND(f)
    {
        run_load(f, &(struct load){.tokens = f->producer,
                                   .push_bulk = f->producer ? 1 : BULK,
                                   .pop_bulk = 1,
                                   .close_under_fire = true});
    }
}

TEST(mpmc, works_without_the_kernels_help)
{
    bop__asymmetric_fence_force_full(true);
    FOR_EACH_KIND(f)
    {
        run_load(f, &(struct load){
                        .tokens = f->producer, .push_bulk = 1, .pop_bulk = 1, .reopen_every = 0});
    }
}
