/*
 * The bounded queue: its order and its edges at rest, what it answers while a
 * push or a pop is stuck half-way, and many threads at once.
 *
 * The source is included, so that a test can start the indices anywhere and stop
 * an operation between its two steps.
 */
#include "bounded.c"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include <bop/fs.h>

#include "front.h"
#include "history.h"
#include "tap.h"

#define CAPACITY    8
#define THREADS_MAX 8
#define MANY        10000 /* Items of one producer. */

struct worker {
    struct fixture *f;
    pthread_t thread;
    unsigned number;
    size_t bulk; /* 1: single operations. */
    uint64_t accepted;
    uint64_t popped;
    uint64_t item;
    int rc;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_mpmc *queue;
    struct bop_error err;
    size_t discarded;
    uint64_t discarded_sum;

    struct worker workers[THREADS_MAX];
    unsigned producers;
    atomic_uint producing; /* Producers not done yet. */
    atomic_uint pushing;   /* Producers that have had a push accepted. */
    struct history history;
    _Atomic uint8_t *seen; /* How often each item was popped. */
};

static void discard(void *user, uint64_t item)
{
    struct fixture *f = user;

    f->discarded++;
    f->discarded_sum += item;
}

static void create(struct fixture *f, size_t capacity)
{
    struct bop_mpmc_options options = {
        .allocator = &f->heap.allocator,
        .kind = BOP_MPMC_BOUNDED,
        .capacity = capacity,
        .discard = discard,
        .user = f,
    };

    REQUIRE_EQ(bop_mpmc_create(&options, &f->queue, &f->err), 0);
}

static void destroy(struct fixture *f)
{
    bop_mpmc_destroy(f->queue);
    f->queue = NULL;
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
}

static void teardown(struct fixture *f)
{
    destroy(f);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static struct bounded *ring(struct fixture *f)
{
    return bounded_of(f->queue);
}

/* Put the empty ring where it would be after that many pushes and pops. */
static void start_at(struct fixture *f, uint64_t position)
{
    struct bounded *queue = ring(f);

    for (uint64_t i = 0; i <= queue->mask; i++) {
        uint8_t stamp = (uint8_t)(stamp_of(queue, position + i) - 1);

        atomic_init(&queue->filled[cell_of(queue, position + i)], stamp);
        atomic_init(&queue->emptied[cell_of(queue, position + i)], stamp);
    }
    atomic_init(&queue->tail, position);
    atomic_init(&queue->head, position);
}

static void push_range(struct fixture *f, uint64_t from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, NULL, from + i), 0);
    }
}

static void pop_range(struct fixture *f, uint64_t from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t item = 0;

        REQUIRE_EQ(bop_mpmc_pop(f->queue, NULL, &item), 1);
        REQUIRE_EQ(item, from + i);
    }
}

/* A push that has taken its place and not published, as if preempted there. Returns the place. */
static uint64_t reserve(struct fixture *f, size_t count)
{
    uint64_t tail = load_index(&ring(f)->tail);

    while (!advance(&ring(f)->tail, &tail, count)) {
    }
    return tail;
}

/* A pop that has claimed an item and not taken it. */
static uint64_t claim(struct fixture *f, size_t count)
{
    uint64_t head = load_index(&ring(f)->head);

    while (!advance(&ring(f)->head, &head, count)) {
    }
    return head;
}

/* -- At rest ----------------------------------------------------------------------------------- */

TEST(bounded, is_first_in_first_out)
{
    uint64_t item = 99;

    create(f, CAPACITY);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 0);
    CHECK_EQ(item, 99); /* Written on success only. */
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, UINT64_MAX), 0);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 0), 0);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, UINT64_C(1) << 63), 0);
    CHECK_EQ(bop_mpmc_size(f->queue), 3);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 1);
    CHECK_EQ(item, UINT64_MAX);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 1);
    CHECK_EQ(item, 0);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 1);
    CHECK_EQ(item, UINT64_C(1) << 63);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 0);
}

TEST(bounded, works_with_tokens)
{
    struct bop_mpmc_producer *producer;
    struct bop_mpmc_consumer *consumer;
    uint64_t items[3] = {1, 2, 3}, out[4] = {0};

    create(f, CAPACITY);
    REQUIRE_EQ(bop_mpmc_producer_open(f->queue, &producer), 0);
    REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 0, &consumer), 0);
    CHECK_EQ(bop_mpmc_push(f->queue, producer, 0), 0);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, producer, items, 3), 0);
    CHECK_EQ(bop_mpmc_pop(f->queue, consumer, &out[0]), 1);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, consumer, out + 1, 3), 3);
    for (uint64_t i = 0; i < 4; i++) {
        CHECK_EQ(out[i], i);
    }
    bop_mpmc_producer_close(producer);
    bop_mpmc_consumer_close(consumer);
}

/* The offsets cross 32 bits, and come near to the bit that says closed. */
TEST(bounded, wraps_around_anywhere)
{
    static const uint64_t starts[] = {0, 5, (UINT64_C(1) << 32) - 3, (UINT64_C(1) << 63) - 5000};
    static const size_t capacities[] = {2, 8, 64};

    for (size_t c = 0; c < BOP_COUNT_OF(capacities); c++) {
        size_t capacity = capacities[c];

        create(f, capacity);
        for (size_t s = 0; s < BOP_COUNT_OF(starts); s++) {
            uint64_t next = 0;

            start_at(f, starts[s]);
            for (size_t round = 0; round < 100; round++) {
                size_t count = 1 + round % capacity;

                push_range(f, next, count);
                REQUIRE_EQ(bop_mpmc_size(f->queue), count);
                pop_range(f, next, count);
                REQUIRE_EQ(bop_mpmc_size(f->queue), 0);
                next += count;
            }
        }
        destroy(f);
    }
}

TEST(bounded, is_full_at_its_capacity)
{
    create(f, CAPACITY);
    push_range(f, 0, CAPACITY);
    CHECK_EQ(bop_mpmc_size(f->queue), CAPACITY);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 8), BOP_EFULL);
    CHECK_EQ(bop_mpmc_try_push(f->queue, NULL, 8), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_wait(f->queue, NULL, 8, 1000), BOP_ETIMEOUT);
    pop_range(f, 0, 1);
    CHECK_EQ(bop_mpmc_try_push(f->queue, NULL, 8), 0);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 9), BOP_EFULL);
    pop_range(f, 1, CAPACITY);
}

/* At every offset of the ring, every fill and every count. */
TEST(bounded, pushes_bulks_whole_or_not_at_all)
{
    uint64_t items[CAPACITY + 1], out[CAPACITY];

    create(f, CAPACITY);
    for (size_t i = 0; i <= CAPACITY; i++) {
        items[i] = 100 + i;
    }
    for (uint64_t offset = 0; offset < CAPACITY; offset++) {
        for (size_t fill = 0; fill <= CAPACITY; fill++) {
            for (size_t count = 0; count <= CAPACITY + 1; count++) {
                bool fits = fill + count <= CAPACITY || count == 0;
                size_t inside = fits ? fill + count : fill;

                start_at(f, offset);
                push_range(f, 0, fill);
                REQUIRE_EQ(bop_mpmc_push_bulk(f->queue, NULL, items, count), fits ? 0 : BOP_EFULL);
                REQUIRE_EQ(bop_mpmc_size(f->queue), inside);
                pop_range(f, 0, fill);
                REQUIRE_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, CAPACITY), inside - fill);
                REQUIRE(memcmp(out, items, (inside - fill) * sizeof(out[0])) == 0);
            }
        }
    }
}

TEST(bounded, pushes_as_many_as_fit)
{
    uint64_t items[CAPACITY + 4];

    create(f, CAPACITY);
    for (size_t i = 0; i < BOP_COUNT_OF(items); i++) {
        items[i] = 10 + i;
    }
    CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, items, 5), 5);
    CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, items + 5, 7), 3);
    CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, items, 1), BOP_EFULL);
    pop_range(f, 10, CAPACITY);
    CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, items, CAPACITY + 4), CAPACITY);
    pop_range(f, 10, CAPACITY);
}

TEST(bounded, pops_bulks_of_what_is_there)
{
    uint64_t out[4 + CAPACITY + 1] = {0};

    create(f, CAPACITY);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, CAPACITY), 0);
    push_range(f, 0, 6);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, 4), 4);
    push_range(f, 6, 6);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out + 4, CAPACITY + 1), CAPACITY);
    CHECK_EQ(out[3], 3);
    CHECK_EQ(out[4], 4);
    CHECK_EQ(out[8], 8);
}

/* It would never fit, so waiting for it does not end in a timeout. */
TEST(bounded, refuses_a_bulk_above_its_capacity_at_once)
{
    uint64_t items[CAPACITY + 1] = {0};

    create(f, CAPACITY);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, NULL, items, CAPACITY + 1), BOP_EFULL);
    CHECK_EQ(bop_mpmc_try_push_bulk(f->queue, NULL, items, CAPACITY + 1), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_bulk_wait(f->queue, NULL, items, CAPACITY + 1, BOP_MPMC_FOREVER),
             BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_bulk_wait(f->queue, NULL, items, CAPACITY, BOP_MPMC_FOREVER), 0);
    CHECK_EQ(bop_mpmc_size(f->queue), CAPACITY);
}

TEST(bounded, refuses_pushes_once_closed)
{
    uint64_t items[CAPACITY + 1] = {0}, item;

    create(f, CAPACITY);
    push_range(f, 3, 2);
    bop_mpmc_close(f->queue);
    bop_mpmc_close(f->queue);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 1), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, NULL, items, 2), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, NULL, items, CAPACITY + 1), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, items, 2), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_push_wait(f->queue, NULL, 1, BOP_MPMC_FOREVER), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_size(f->queue), 2);
    pop_range(f, 3, 2);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, items, 2), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_pop_wait(f->queue, NULL, &item, BOP_MPMC_FOREVER), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

TEST(bounded, closes_when_full)
{
    create(f, 2);
    push_range(f, 0, 2);
    bop_mpmc_close(f->queue);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 2), BOP_ECLOSED);
    pop_range(f, 0, 2);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 2), BOP_ECLOSED);
}

TEST(bounded, discards_what_is_left)
{
    create(f, CAPACITY);
    push_range(f, 1, 5);
    pop_range(f, 1, 2);
    destroy(f);
    CHECK_EQ(f->discarded, 3);
    CHECK_EQ(f->discarded_sum, 3 + 4 + 5);
}

TEST(bounded, tells_its_memory)
{
    create(f, 1024);
    CHECK(bop_mpmc_memory_bytes(f->queue) >= 1024 * 10);
    CHECK_EQ(bop_mpmc_memory_bytes(f->queue), f->heap.live);
}

TEST(bounded, names_a_bad_capacity)
{
    static const struct {
        size_t capacity;
        const char *named;
    } bad[] = {{0, "not 0"},
               {1, "not 1"},
               {3, "not 3"},
               {1000, "not 1000"},
               {UINT64_C(1) << 32, "not 4294967296"},
               {SIZE_MAX, "not 18446744073709551615"}};

    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        struct bop_mpmc_options options = {
            .allocator = &f->heap.allocator, .kind = BOP_MPMC_BOUNDED, .capacity = bad[i].capacity};

        CHECK_EQ(bop_mpmc_create(&options, &f->queue, &f->err), -EINVAL);
        CHECK_STR_HAS(f->err.message, "capacity");
        CHECK_STR_HAS(f->err.message, bad[i].named);
        CHECK_PTR_EQ(f->queue, NULL);
    }
}

/* A refused token leaves the queue as it was. */
static int create_and_open(struct fixture *f)
{
    struct bop_mpmc_options options = {
        .allocator = &f->heap.allocator, .kind = BOP_MPMC_BOUNDED, .capacity = 4};
    struct bop_mpmc_producer *producer = NULL;
    struct bop_mpmc_consumer *consumer = NULL;
    int rc = bop_mpmc_create(&options, &f->queue, NULL);

    if (rc == 0) {
        rc = bop_mpmc_producer_open(f->queue, &producer);
    }
    if (rc == 0) {
        rc = bop_mpmc_consumer_open(f->queue, 0, &consumer);
    }
    if (rc == 0) {
        rc = bop_mpmc_push(f->queue, producer, 1);
    }
    bop_mpmc_producer_close(producer);
    bop_mpmc_consumer_close(consumer);
    return rc;
}

TEST(bounded, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        int rc = create_and_open(f);

        CHECK_EQ(rc, f->faults.fired);
        destroy(f);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 3); /* The ring and two tokens; pushing allocates nothing. */
}

/* -- Stamps ------------------------------------------------------------------------------------ */

/* Runs of every length begin at every cell, wrap, and go on until the stamps have come round. */
static void go_round(struct fixture *f, size_t capacity, uint64_t start)
{
    uint64_t items[64], out[64], pushed = 0, popped = 0;

    create(f, capacity);
    start_at(f, start);
    for (size_t round = 0; popped < 300 * capacity; round++) {
        size_t wanted = 1 + round % capacity, room = capacity - (size_t)(pushed - popped);
        size_t fits = wanted < room ? wanted : room, inside;

        for (size_t i = 0; i < wanted; i++) {
            items[i] = pushed + i;
        }
        REQUIRE_EQ(bop_mpmc_push_some(f->queue, NULL, items, wanted),
                   fits > 0 ? (ssize_t)fits : BOP_EFULL);
        pushed += fits;
        REQUIRE_EQ(bop_mpmc_size(f->queue), pushed - popped);
        wanted = 1 + round * 7 % capacity;
        inside = (size_t)(pushed - popped);
        REQUIRE_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, wanted),
                   (ssize_t)(wanted < inside ? wanted : inside));
        for (size_t i = 0; i < wanted && i < inside; i++) {
            REQUIRE_EQ(out[i], popped++);
        }
    }
    destroy(f);
}

TEST(bounded, tells_laps_apart_for_ever)
{
    for (size_t capacity = 2; capacity <= 64; capacity *= 2) {
        go_round(f, capacity, 0);
        go_round(f, capacity, 255 * capacity);
        go_round(f, capacity, (UINT64_C(1) << 62) + 3);
    }
}

/* A run ends where a cell is not given back, wherever that is among its eight. */
TEST(bounded, runs_end_at_any_stuck_cell)
{
    uint64_t items[64] = {0}, out[64];

    for (size_t at = 0; at < 64; at++) {
        uint64_t stuck;

        create(f, 64);
        stuck = reserve(f, 64);
        for (size_t i = 0; i < 64; i++) {
            if (i != at) {
                publish(ring(f), stuck + i, i);
            }
        }
        CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, 64), (ssize_t)at);
        publish(ring(f), stuck + at, at);
        CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, 64), (ssize_t)(64 - at));
        CHECK_EQ(out[0], at);

        push_range(f, 64, 64);
        stuck = claim(f, 64);
        for (size_t i = 0; i < 64; i++) {
            if (i != at) {
                CHECK_EQ(take(ring(f), stuck + i), 64 + i);
            }
        }
        CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, items, 64), at > 0 ? (ssize_t)at : BOP_EFULL);
        CHECK_EQ(take(ring(f), stuck + at), 64 + at);
        CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, items, 64), (ssize_t)(64 - at));
        destroy(f);
    }
}

/* -- Stuck half-way ---------------------------------------------------------------------------- */

TEST(bounded, pops_nothing_behind_a_stuck_push)
{
    uint64_t out[CAPACITY], stuck;

    create(f, CAPACITY);
    stuck = reserve(f, 1);
    push_range(f, 1, 2);
    CHECK_EQ(bop_mpmc_size(f->queue), 3);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, out), 0);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, 3), 0);
    CHECK_EQ(bop_mpmc_pop_wait(f->queue, NULL, out, 1000), 0);
    /* No cause to look until it publishes, so a loop sleeps meanwhile. */
    CHECK(bop_mpmc_arm(f->queue));
    publish(ring(f), stuck, 0);
    CHECK(!bop_mpmc_arm(f->queue));
    pop_range(f, 0, 3);
}

/* What is ready before it is popped, alone and in bulk. */
TEST(bounded, pops_what_is_before_a_stuck_push)
{
    uint64_t out[CAPACITY] = {0}, stuck;

    create(f, CAPACITY);
    push_range(f, 10, 2);
    stuck = reserve(f, 2);
    push_range(f, 14, 1);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, CAPACITY), 2);
    CHECK_EQ(out[1], 11);
    publish(ring(f), stuck + 1, 13);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, CAPACITY), 0);
    publish(ring(f), stuck, 12);
    pop_range(f, 12, 3);
}

TEST(bounded, refuses_pushes_behind_a_stuck_pop)
{
    uint64_t items[CAPACITY] = {0}, stuck;

    create(f, CAPACITY);
    push_range(f, 0, CAPACITY);
    stuck = claim(f, 1);
    pop_range(f, 1, 3);
    CHECK_EQ(bop_mpmc_size(f->queue), 4);
    /* The places behind are free, and this one is not given back. */
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 8), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, NULL, items, 2), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, items, 2), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_wait(f->queue, NULL, 8, 1000), BOP_ETIMEOUT);
    CHECK_EQ(take(ring(f), stuck), 0);
    push_range(f, 8, 4);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 12), BOP_EFULL);
    pop_range(f, 4, CAPACITY);
}

/* A bulk goes as far as the stuck cell if it may be parted, and is refused whole if not. */
TEST(bounded, pushes_up_to_a_stuck_pop)
{
    uint64_t items[CAPACITY] = {8, 9, 10}, stuck;

    create(f, CAPACITY);
    push_range(f, 0, CAPACITY);
    pop_range(f, 0, 2);
    stuck = claim(f, 1);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, NULL, items, 3), BOP_EFULL);
    CHECK_EQ(bop_mpmc_size(f->queue), 5);
    CHECK_EQ(bop_mpmc_push_some(f->queue, NULL, items, 3), 2);
    CHECK_EQ(take(ring(f), stuck), 2);
    pop_range(f, 3, 7);
}

static void run(struct fixture *f, unsigned number, void *(*main)(void *worker))
{
    struct worker *worker = &f->workers[number];

    worker->f = f;
    worker->number = number;
    REQUIRE_EQ(pthread_create(&worker->thread, NULL, main, worker), 0);
}

static void join(struct fixture *f, unsigned number)
{
    REQUIRE_EQ(pthread_join(f->workers[number].thread, NULL), 0);
}

static void *close_main(void *argument)
{
    struct worker *worker = argument;

    bop_mpmc_close(worker->f->queue);
    return NULL;
}

/* Pops do not say closed and drained while an accepted item is on its way. */
TEST(bounded, closes_after_a_stuck_push)
{
    uint64_t item, stuck;

    create(f, CAPACITY);
    push_range(f, 0, 1);
    stuck = reserve(f, 2);
    publish(ring(f), stuck, 1);
    run(f, 0, close_main);
    while (!(load_index(&ring(f)->tail) & CLOSED)) {
        sched_yield();
    }
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 9), BOP_ECLOSED);
    pop_range(f, 0, 2);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), 0);
    publish(ring(f), stuck + 1, 2);
    join(f, 0);
    pop_range(f, 2, 1);
    CHECK_EQ(bop_mpmc_pop(f->queue, NULL, &item), BOP_ECLOSED);
}

static void *pop_wait_main(void *argument)
{
    struct worker *worker = argument;

    worker->rc = bop_mpmc_pop_wait(worker->f->queue, NULL, &worker->item, BOP_MPMC_FOREVER);
    return NULL;
}

static void *push_wait_main(void *argument)
{
    struct worker *worker = argument;
    uint64_t items[CAPACITY];

    for (size_t i = 0; i < worker->bulk; i++) {
        items[i] = 100 + worker->number;
    }
    worker->rc = worker->bulk == 1
                     ? bop_mpmc_push_wait(worker->f->queue, NULL, items[0], BOP_MPMC_FOREVER)
                     : bop_mpmc_push_bulk_wait(worker->f->queue, NULL, items, worker->bulk,
                                               BOP_MPMC_FOREVER);
    return NULL;
}

/* Until that many sleep, or are about to, and none is on its way. The moment after it lets them
 * fall asleep; one that does not in time sees what comes by its last look, and the test proves
 * less. */
static void until_asleep(struct bop__eventcount *eventcount, unsigned count)
{
    const struct timespec moment = {.tv_nsec = 2000000};

    while (atomic_load_explicit(&eventcount->word, memory_order_acquire) != (uint64_t)count << 32) {
        sched_yield();
    }
    nanosleep(&moment, NULL);
}

/* The push behind calls a consumer in vain. The one that was stuck has two items to announce. */
TEST(bounded, wakes_a_consumer_for_each_item_that_a_late_push_uncovers)
{
    uint64_t stuck;

    create(f, CAPACITY);
    run(f, 0, pop_wait_main);
    run(f, 1, pop_wait_main);
    until_asleep(&f->queue->not_empty, 2);
    stuck = reserve(f, 1);
    push_range(f, 1, 1);
    until_asleep(&f->queue->not_empty, 2);
    publish(ring(f), stuck, 0);
    bop__mpmc_signal_not_empty(f->queue, 1);
    join(f, 0);
    join(f, 1);
    CHECK_EQ(f->workers[0].item + f->workers[1].item, 1); /* 0 and 1. */
}

TEST(bounded, wakes_a_producer_for_each_place_that_a_late_pop_uncovers)
{
    uint64_t stuck;

    create(f, 2);
    push_range(f, 0, 2);
    f->workers[0].bulk = f->workers[1].bulk = 1;
    run(f, 0, push_wait_main);
    run(f, 1, push_wait_main);
    until_asleep(&f->queue->not_full, 2);
    stuck = claim(f, 1);
    pop_range(f, 1, 1);
    until_asleep(&f->queue->not_full, 2);
    CHECK_EQ(take(ring(f), stuck), 0);
    bop__mpmc_signal_not_full(f->queue, 1);
    join(f, 0);
    join(f, 1);
    CHECK_EQ(bop_mpmc_size(f->queue), 2);
}

/* One place becomes free: the bulk that was first to wait cannot use it, the other can. */
TEST(bounded, wakes_a_push_that_fits_past_a_bulk_that_does_not)
{
    create(f, CAPACITY);
    push_range(f, 0, CAPACITY);
    f->workers[0].bulk = CAPACITY;
    run(f, 0, push_wait_main);
    until_asleep(&f->queue->not_full, 1);
    f->workers[1].bulk = 1;
    run(f, 1, push_wait_main);
    until_asleep(&f->queue->not_full, 2);
    pop_range(f, 0, 1);
    join(f, 1);
    CHECK_EQ(f->workers[1].rc, 0);
    pop_range(f, 1, CAPACITY - 1);
    pop_range(f, 101, 1);
    join(f, 0);
    CHECK_EQ(f->workers[0].rc, 0);
    CHECK_EQ(bop_mpmc_size(f->queue), CAPACITY);
}

/* -- Many threads ------------------------------------------------------------------------------ */

/* An item says whose it is and which one. */
#define ITEM(number, index) ((uint64_t)(number) << 32 | (index))

static size_t next_bulk(const struct worker *worker, uint64_t round)
{
    return worker->bulk == 1 ? 1 : 1 + (size_t)((round * 7 + worker->number) % worker->bulk);
}

/* The forms by turns: all or none, and as many as fit. Waits if it is full: polling would make the
 * pace that of the scheduler. */
static ssize_t push_next(struct worker *worker, uint64_t next, size_t count, uint64_t round)
{
    struct bop_mpmc *queue = worker->f->queue;
    uint64_t items[CAPACITY];
    ssize_t rc;

    for (size_t i = 0; i < count; i++) {
        items[i] = ITEM(worker->number, next + i);
    }
    if (count == 1) {
        rc = bop_mpmc_push(queue, NULL, items[0]);
    } else if (round % 2 == 0) {
        rc = bop_mpmc_push_some(queue, NULL, items, count);
    } else {
        rc = bop_mpmc_push_bulk(queue, NULL, items, count);
    }
    if (rc == BOP_EFULL) {
        rc = bop_mpmc_push_bulk_wait(queue, NULL, items, count, BOP_MPMC_FOREVER);
    }
    return rc == 0 ? (ssize_t)count : rc;
}

static ssize_t pop_next(struct worker *worker, uint64_t *out_items, size_t count)
{
    struct bop_mpmc *queue = worker->f->queue;
    ssize_t got = bop_mpmc_pop_bulk(queue, NULL, out_items, count);

    return got != 0 ? got : bop_mpmc_pop_bulk_wait(queue, NULL, out_items, count, BOP_MPMC_FOREVER);
}

static void *produce_main(void *argument)
{
    struct worker *worker = argument;
    uint64_t next = 0;

    for (uint64_t round = 0; next < MANY; round++) {
        size_t count = (size_t)bop_min_u64(next_bulk(worker, round), MANY - next);
        ssize_t pushed = push_next(worker, next, count, round);

        REQUIRE(pushed > 0);
        next += (uint64_t)pushed;
    }
    if (atomic_fetch_sub(&worker->f->producing, 1) == 1) {
        bop_mpmc_close(worker->f->queue);
    }
    return NULL;
}

/* Counts each item, and sees that those of one producer come in order. */
static void *consume_main(void *argument)
{
    struct worker *worker = argument;
    struct fixture *f = worker->f;
    uint64_t expected[THREADS_MAX] = {0};
    uint64_t items[CAPACITY];
    ssize_t got;

    for (uint64_t round = 0;; round++) {
        got = pop_next(worker, items, next_bulk(worker, round));
        if (got == BOP_ECLOSED) {
            return NULL;
        }
        REQUIRE(got > 0);
        for (ssize_t i = 0; i < got; i++) {
            unsigned producer = (unsigned)(items[i] >> 32);
            uint64_t index = items[i] & UINT32_MAX;

            REQUIRE(producer < f->producers);
            REQUIRE(index >= expected[producer]);
            expected[producer] = index + 1;
            atomic_fetch_add_explicit(&f->seen[producer * MANY + index], 1, memory_order_relaxed);
        }
    }
}

static void check_traffic(struct fixture *f, unsigned producers, unsigned consumers, size_t bulk)
{
    create(f, CAPACITY);
    f->producers = producers;
    atomic_init(&f->producing, producers);
    f->seen = calloc((size_t)producers * MANY, 1);
    REQUIRE(f->seen != NULL);
    for (unsigned i = 0; i < producers + consumers; i++) {
        f->workers[i].bulk = bulk;
        run(f, i, i < producers ? produce_main : consume_main);
    }
    for (unsigned i = 0; i < producers + consumers; i++) {
        join(f, i);
    }
    for (size_t i = 0; i < (size_t)producers * MANY; i++) {
        if (f->seen[i] != 1) {
            CHECK_EQ(f->seen[i], 1);
            break;
        }
    }
    free((void *)f->seen);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

TEST(bounded, loses_and_doubles_nothing_between_single_operations)
{
    check_traffic(f, 3, 3, 1);
}

TEST(bounded, loses_and_doubles_nothing_between_bulks)
{
    check_traffic(f, 3, 3, CAPACITY);
}

TEST(bounded, loses_and_doubles_nothing_with_many_producers)
{
    check_traffic(f, 6, 1, 5);
}

static void *wait_and_push_main(void *argument)
{
    struct worker *worker = argument;
    struct fixture *f = worker->f;

    for (uint64_t i = 0; i < MANY / 2; i++) {
        uint64_t *boxed = malloc(sizeof(*boxed));

        REQUIRE(boxed != NULL);
        *boxed = ITEM(worker->number, i);
        REQUIRE_EQ(bop_mpmc_push_wait(f->queue, NULL, (uintptr_t)boxed, BOP_MPMC_FOREVER), 0);
    }
    if (atomic_fetch_sub(&f->producing, 1) == 1) {
        bop_mpmc_close(f->queue);
    }
    return NULL;
}

static void *wait_and_pop_main(void *argument)
{
    struct worker *worker = argument;
    uint64_t item;

    while ((worker->rc = bop_mpmc_pop_wait(worker->f->queue, NULL, &item, BOP_MPMC_FOREVER)) == 1) {
        uint64_t *boxed = (uint64_t *)(uintptr_t)item;

        worker->popped += *boxed >> 32 < worker->f->producers;
        free(boxed);
    }
    return NULL;
}

/* All sleep by turns, and what was written before a push is seen after the pop. */
TEST(bounded, waits_on_both_sides)
{
    uint64_t popped = 0;

    create(f, 2);
    f->producers = 3;
    atomic_init(&f->producing, f->producers);
    for (unsigned i = 0; i < 6; i++) {
        run(f, i, i < 3 ? wait_and_push_main : wait_and_pop_main);
    }
    for (unsigned i = 0; i < 6; i++) {
        join(f, i);
        popped += f->workers[i].popped;
        CHECK_EQ(f->workers[i].rc, i < 3 ? 0 : BOP_ECLOSED);
    }
    CHECK_EQ(popped, 3 * (MANY / 2));
}

/* -- Closing under fire ------------------------------------------------------------------------ */

static void *produce_until_closed_main(void *argument)
{
    struct worker *worker = argument;

    for (uint64_t round = 0;; round++) {
        ssize_t pushed = push_next(worker, worker->accepted, next_bulk(worker, round), round);

        if (pushed == BOP_ECLOSED) {
            return NULL;
        }
        REQUIRE(pushed > 0);
        if (worker->accepted == 0) {
            atomic_fetch_add(&worker->f->pushing, 1);
        }
        worker->accepted += (uint64_t)pushed;
    }
}

static void *consume_until_closed_main(void *argument)
{
    struct worker *worker = argument;
    uint64_t items[CAPACITY];
    ssize_t got;

    while ((got = pop_next(worker, items, worker->bulk)) > 0) {
        worker->popped += (uint64_t)got;
    }
    worker->rc = (int)got;
    return NULL;
}

/* Whatever the moment, all that was accepted is popped, and a consumer that was told "closed and
 * drained" has left nothing behind. */
TEST(bounded, closes_strictly_under_fire)
{
    for (unsigned round = 0; round < 30; round++) {
        uint64_t accepted = 0, popped = 0;

        create(f, 64);
        atomic_init(&f->pushing, 0);
        memset(f->workers, 0, sizeof(f->workers));
        for (unsigned i = 0; i < 4; i++) {
            f->workers[i].bulk = i % 2 == 0 ? 1 : CAPACITY;
            run(f, i, i < 2 ? produce_until_closed_main : consume_until_closed_main);
        }
        while (f->pushing < 2) {
            sched_yield();
        }
        bop_mpmc_close(f->queue);
        REQUIRE_EQ(bop_mpmc_push(f->queue, NULL, 1), BOP_ECLOSED);
        for (unsigned i = 0; i < 4; i++) {
            join(f, i);
            accepted += f->workers[i].accepted;
            popped += f->workers[i].popped;
        }
        REQUIRE_EQ(popped, accepted);
        REQUIRE_EQ(bop_mpmc_size(f->queue), 0);
        destroy(f);
    }
}

/* Without a consumer, what is inside once close has returned is what was accepted. */
TEST(bounded, accepts_nothing_after_close_has_returned)
{
    for (unsigned round = 0; round < 100; round++) {
        uint64_t inside, popped = 0, out[CAPACITY];
        ssize_t got;

        create(f, 1024);
        atomic_init(&f->pushing, 0);
        memset(f->workers, 0, sizeof(f->workers));
        for (unsigned i = 0; i < 2; i++) {
            f->workers[i].bulk = i == 0 ? 1 : CAPACITY;
            run(f, i, produce_until_closed_main);
        }
        while (f->pushing < 1) {
            sched_yield();
        }
        bop_mpmc_close(f->queue);
        inside = bop_mpmc_size(f->queue);
        while ((got = bop_mpmc_pop_bulk(f->queue, NULL, out, CAPACITY)) > 0) {
            popped += (uint64_t)got;
        }
        REQUIRE_EQ(got, BOP_ECLOSED);
        join(f, 0);
        join(f, 1);
        REQUIRE_EQ(popped, inside);
        REQUIRE_EQ(f->workers[0].accepted + f->workers[1].accepted, inside);
        destroy(f);
    }
}

/* -- Linearizability --------------------------------------------------------------------------- */

#define OPS_A_LOG 4000

static void *record_main(void *argument)
{
    struct worker *worker = argument;
    struct fixture *f = worker->f;
    struct history_log *log = &f->history.logs[worker->number];
    uint64_t next = 1, items[CAPACITY];

    for (uint64_t round = 0; history_has_room(log, CAPACITY); round++) {
        size_t count = next_bulk(worker, round);
        uint64_t from;
        ssize_t done;

        if ((round + worker->number) % 2 == 0) {
            for (size_t i = 0; i < count; i++) {
                items[i] = ITEM(worker->number, next + i);
            }
            from = history_now(&f->history);
            done = bop_mpmc_push_some(f->queue, NULL, items, count);
            if (done > 0) {
                history_record(log, HISTORY_PUSH, from, items, (size_t)done);
                next += (uint64_t)done;
            }
        } else {
            from = history_now(&f->history);
            done = bop_mpmc_pop_bulk(f->queue, NULL, items, count);
            if (done > 0) {
                history_record(log, HISTORY_POP, from, items, (size_t)done);
            } else {
                history_record(log, HISTORY_EMPTY, from, NULL, 1);
            }
        }
    }
    return NULL;
}

/* All threads push and pop. "Empty" may be an answer for want of patience, the rest is exact. */
TEST(bounded, is_linearizable)
{
    for (size_t round = 0; round < 6; round++) {
        const struct history_op *ops;
        struct history_verdict verdict;
        size_t count;

        create(f, CAPACITY);
        history_init(&f->history, 4, OPS_A_LOG);
        for (unsigned i = 0; i < 4; i++) {
            f->workers[i].bulk = round % 2 == 0 ? 1 : 4;
            run(f, i, record_main);
        }
        for (unsigned i = 0; i < 4; i++) {
            join(f, i);
        }
        ops = history_merge(&f->history, &count);
        verdict = history_check_fifo(ops, count, HISTORY_EMPTY_IS_SPURIOUS);
        if (verdict.violation == HISTORY_FINE) {
            verdict = history_check_capacity(ops, count, CAPACITY);
        }
        CHECK_STR_EQ(verdict.text, "");
        CHECK_EQ(verdict.violation, HISTORY_FINE);
        history_deinit(&f->history);
        destroy(f);
    }
}
