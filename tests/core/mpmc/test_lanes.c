/*
 * Lanes: claims and who may take them over, blocks and their memory, the forms
 * that do not allocate, and threads that come, go, and stop in the middle.
 */
#include "lanes.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bop/mpmc.h>

#include "tap.h"

#define CLAIM       16u /* The default. */
#define THREADS_MAX 4
#define MANY        30000
#define BURST       64
#define ITEMS       200000 /* In f->items. */

struct worker {
    struct fixture *f;
    pthread_t thread;
    struct bop_mpmc_consumer *consumer;
    unsigned number;
    uint64_t popped;
    int rc;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_mpmc *queue;
    struct bop_mpmc_producer *producer;
    struct bop_mpmc_consumer *a, *b;
    uint64_t *items; /* 0, 1, 2 ... */
    struct worker workers[THREADS_MAX];
    _Atomic uint8_t *seen;
    atomic_bool done;
};

/* As the library's, and counted. */
static _Thread_local unsigned yields;

__attribute__((visibility("default"))) int sched_yield(void)
{
    yields++;
    return (int)syscall(SYS_sched_yield);
}

static void open_queue(struct fixture *f, size_t memory_bytes_max)
{
    struct bop_mpmc_options options = {.allocator = &f->heap.allocator,
                                       .memory_bytes_max = memory_bytes_max};

    REQUIRE_EQ(bop_mpmc_create(&options, &f->queue, NULL), 0);
    REQUIRE_EQ(bop_mpmc_producer_open(f->queue, &f->producer), 0);
    REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 0, &f->a), 0);
    REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 0, &f->b), 0);
}

static void close_queue(struct fixture *f)
{
    if (f->queue) {
        bop_mpmc_producer_close(f->producer);
        bop_mpmc_consumer_close(f->a);
        bop_mpmc_consumer_close(f->b);
    }
    bop_mpmc_destroy(f->queue);
    f->queue = NULL;
    f->producer = NULL;
    f->a = f->b = NULL;
    CHECK_EQ(f->heap.live, 0);
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->items = malloc(ITEMS * sizeof(*f->items));
    f->seen = calloc(THREADS_MAX * MANY, 1);
    REQUIRE(f->items != NULL && f->seen != NULL);
    for (uint64_t i = 0; i < ITEMS; i++) {
        f->items[i] = i;
    }
    open_queue(f, 0);
}

static void teardown(struct fixture *f)
{
    close_queue(f);
    free(f->items);
    free((void *)f->seen);
    bop__asymmetric_fence_force_full(false);
}

FIXTURE(setup, teardown)

static void push(struct fixture *f, uint64_t first, size_t count)
{
    REQUIRE_EQ(bop_mpmc_push_bulk(f->queue, f->producer, &f->items[first], count), 0);
}

/* Pop items one by one, which must be first, first + 1 and so on. */
static void pop_run(struct fixture *f, struct bop_mpmc_consumer *consumer, uint64_t first,
                    size_t count)
{
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t item = UINT64_MAX;

        REQUIRE_EQ(bop_mpmc_pop(f->queue, consumer, &item), 1);
        REQUIRE_EQ(item, i);
    }
}

/* a has claimed 0 to 15 and popped 0; 16 to 31 are gone without a token. */
static void leave_a_claim(struct fixture *f)
{
    uint64_t out[CLAIM];

    push(f, 0, 2 * CLAIM); /* Two consumers are open, so half of it is a's share. */
    pop_run(f, f->a, 0, 1);
    REQUIRE_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, CLAIM), CLAIM);
    REQUIRE_EQ(out[0], CLAIM);
    REQUIRE_EQ(bop_mpmc_size(f->queue), CLAIM - 1);
}

/* a has claimed 0 to 15 and popped 0; b has popped 16 to 31. */
static void leave_a_claim_behind_b(struct fixture *f)
{
    push(f, 0, 2 * CLAIM);
    pop_run(f, f->a, 0, 1);
    pop_run(f, f->b, CLAIM, CLAIM);
    REQUIRE_EQ(bop_mpmc_size(f->queue), CLAIM - 1);
}

/* -- Taking over ------------------------------------------------------------------------------- */

TEST(lanes, hand_over_an_idle_claim)
{
    leave_a_claim(f);
    pop_run(f, f->b, 1, CLAIM - 1);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

TEST(lanes, hand_a_claim_to_and_fro)
{
    leave_a_claim(f);
    for (uint64_t i = 1; i < CLAIM; i++) {
        pop_run(f, i % 2 ? f->b : f->a, i, 1);
        CHECK_EQ(bop_mpmc_size(f->queue), CLAIM - 1 - i);
    }
}

TEST(lanes, leave_a_claim_alone_that_is_behind_the_taker)
{
    uint64_t item;

    leave_a_claim_behind_b(f);
    CHECK_EQ(bop_mpmc_pop(f->queue, f->b, &item), 0);
    CHECK_EQ(bop_mpmc_pop_wait(f->queue, f->b, &item, 1000), 0);
    pop_run(f, f->a, 1, CLAIM - 1);
}

TEST(lanes, hand_over_a_closed_tokens_claim_to_anybody)
{
    leave_a_claim_behind_b(f);
    bop_mpmc_consumer_close(f->a);
    f->a = NULL;
    CHECK_EQ(bop_mpmc_size(f->queue), CLAIM - 1);
    pop_run(f, f->b, 1, CLAIM - 1);
}

/* Late, but before what is pushed afterwards. */
TEST(lanes, deliver_a_closed_tokens_claim_first)
{
    leave_a_claim_behind_b(f);
    bop_mpmc_consumer_close(f->a);
    f->a = NULL;
    push(f, 100, 10);
    pop_run(f, f->b, 1, CLAIM - 1);
    pop_run(f, f->b, 100, 10);
}

/* A token that is opened anew has no claim and no order of its former owner. */
TEST(lanes, reuse_a_token_only_when_it_is_empty)
{
    uint64_t out[CLAIM];

    leave_a_claim(f);
    bop_mpmc_consumer_close(f->a);
    REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 0, &f->a), 0);
    CHECK_EQ(bop_mpmc_size(f->queue), CLAIM - 1);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->a, out, CLAIM), CLAIM - 1);
    CHECK_EQ(out[0], 1);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

/* What is taken over without a token and not returned stays for everybody. */
TEST(lanes, hand_over_to_who_has_no_token)
{
    leave_a_claim(f);
    pop_run(f, NULL, 1, 1);
    CHECK_EQ(bop_mpmc_size(f->queue), CLAIM - 2);
    pop_run(f, NULL, 2, 1);
    pop_run(f, f->a, 3, 1);
    CHECK_EQ(bop_mpmc_size(f->queue), CLAIM - 4);
    pop_run(f, f->b, 4, 2);
    pop_run(f, NULL, 6, CLAIM - 6);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

TEST(lanes, take_over_in_bulk)
{
    uint64_t out[CLAIM];

    leave_a_claim(f);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, NULL, out, 4), 4);
    CHECK_EQ(out[3], 4);
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->b, out, 5), 5);
    CHECK_EQ(out[4], 9);
    pop_run(f, f->b, 10, CLAIM - 10);
}

static void *pop_and_exit(void *argument)
{
    struct fixture *f = argument;

    pop_run(f, f->a, 0, 1);
    return NULL;
}

TEST(lanes, hand_over_the_claim_of_a_thread_that_exited)
{
    pthread_t thread;

    push(f, 0, 2 * CLAIM);
    REQUIRE_EQ(pthread_create(&thread, NULL, pop_and_exit, f), 0);
    pthread_join(thread, NULL);
    pop_run(f, f->b, CLAIM, CLAIM);
    CHECK_EQ(bop_mpmc_size(f->queue), CLAIM - 1);
    pop_run(f, f->b, 1, CLAIM - 1); /* Though it has received later ones. */
}

TEST(lanes, keep_their_order_with_claims_of_one)
{
    struct bop_mpmc_consumer *one;

    REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 1, &one), 0);
    push(f, 0, 100);
    for (uint64_t i = 0; i < 100; i++) {
        pop_run(f, i % 3 ? one : NULL, i, 1);
    }
    bop_mpmc_consumer_close(one);
}

/* Of what waits a token claims an eighth at most (a quarter of its share, with two open) where
 * that is more than 16, and 64 at most. */
TEST(lanes, claim_more_of_a_backlog)
{
    push(f, 0, 400);
    pop_run(f, f->a, 0, 1);
    pop_run(f, NULL, 50, 1); /* 400 / 8. */
    pop_run(f, f->a, 1, 49);
    pop_run(f, f->a, 51, 349);
    push(f, 400, 4000);
    pop_run(f, f->a, 400, 1);
    pop_run(f, NULL, 464, 1);
    pop_run(f, f->a, 401, 63);
    pop_run(f, f->a, 465, 3935);
}

TEST(lanes, claim_no_more_than_was_asked_for)
{
    struct bop_mpmc_consumer *consumer;

    REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, 16, &consumer), 0);
    push(f, 0, 4000);
    pop_run(f, consumer, 0, 1);
    pop_run(f, NULL, 16, 1);
    bop_mpmc_consumer_close(consumer);
}

/* -- Far ahead --------------------------------------------------------------------------------- */

/* Push so many items one by one and return how often the CPU was offered to others. */
static unsigned yields_of(struct fixture *f, struct bop_mpmc_producer *producer, size_t count)
{
    yields = 0;
    for (uint64_t i = 0; i < count; i++) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, producer, i), 0);
    }
    return yields;
}

TEST(lanes, offer_the_cpu_for_each_big_block_of_a_backlog_that_grows)
{
    uint64_t item;

    CHECK_EQ(yields_of(f, f->producer, LANE_FAR_AHEAD), 0);
    CHECK_EQ(yields_of(f, f->producer, 4 * LANE_BIG), 4);
    while (bop_mpmc_pop(f->queue, f->a, &item) == 1) {
    }
    CHECK_EQ(yields_of(f, f->producer, LANE_FAR_AHEAD), 0);
}

/* Others wait for the lock of a shared lane. */
TEST(lanes, do_not_offer_the_cpu_without_a_token)
{
    CHECK_EQ(yields_of(f, NULL, LANE_FAR_AHEAD + 4 * LANE_BIG), 0);
}

/* -- Closing with claims ----------------------------------------------------------------------- */

TEST(lanes, are_not_drained_while_a_claim_is)
{
    uint64_t item;

    leave_a_claim_behind_b(f);
    bop_mpmc_close(f->queue);
    CHECK_EQ(bop_mpmc_pop(f->queue, f->b, &item), 0); /* a's, by order, while a is open. */
    pop_run(f, f->a, 1, CLAIM - 1);
    CHECK_EQ(bop_mpmc_pop(f->queue, f->b, &item), BOP_ECLOSED);
    CHECK_EQ(bop_mpmc_pop(f->queue, f->a, &item), BOP_ECLOSED);
}

static void *wait_with_b(void *argument)
{
    struct worker *worker = argument;
    uint64_t item;

    worker->rc = bop_mpmc_pop_wait(worker->f->queue, worker->f->b, &item, BOP_MPMC_FOREVER);
    worker->popped = worker->rc == 1 ? item : 0;
    return NULL;
}

TEST(lanes, tell_who_waits_when_the_last_claim_is_used_up)
{
    struct worker *worker = &f->workers[0];

    worker->f = f;
    leave_a_claim_behind_b(f);
    bop_mpmc_close(f->queue);
    REQUIRE_EQ(pthread_create(&worker->thread, NULL, wait_with_b, worker), 0);
    pop_run(f, f->a, 1, CLAIM - 1);
    pthread_join(worker->thread, NULL);
    CHECK_EQ(worker->rc, BOP_ECLOSED);
}

TEST(lanes, tell_who_waits_when_a_token_with_a_claim_is_closed)
{
    struct worker *worker = &f->workers[0];

    worker->f = f;
    leave_a_claim_behind_b(f);
    REQUIRE_EQ(pthread_create(&worker->thread, NULL, wait_with_b, worker), 0);
    bop_mpmc_consumer_close(f->a);
    f->a = NULL;
    pthread_join(worker->thread, NULL);
    CHECK_EQ(worker->rc, 1);
    CHECK_EQ(worker->popped, 1);
}

/* A loop is told once of a claim that it may not be able to have, and not kept busy by it. */
TEST(lanes, tell_an_arming_loop_once_of_a_claim)
{
    leave_a_claim(f);
    CHECK(!bop_mpmc_arm(f->queue));
    CHECK(bop_mpmc_arm(f->queue));
    pop_run(f, f->a, 1, 1);
    CHECK(!bop_mpmc_arm(f->queue));
    bop_mpmc_consumer_close(f->a);
    f->a = NULL;
    CHECK(!bop_mpmc_arm(f->queue)); /* Anybody can have it now. */
    CHECK(!bop_mpmc_arm(f->queue));
    pop_run(f, NULL, 2, CLAIM - 2);
    CHECK(bop_mpmc_arm(f->queue));
}

/* -- Fairness ---------------------------------------------------------------------------------- */

TEST(lanes, do_not_starve_one_for_another)
{
    struct bop_mpmc_producer *other;
    uint64_t item, of_other = 0;

    REQUIRE_EQ(bop_mpmc_producer_open(f->queue, &other), 0);
    push(f, 0, 20000);
    for (uint64_t i = 0; i < 1000; i++) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, other, ITEMS + i), 0);
    }
    for (unsigned i = 0; i < 2500; i++) {
        REQUIRE_EQ(bop_mpmc_pop(f->queue, f->a, &item), 1);
        of_other += item >= ITEMS;
    }
    CHECK_EQ(of_other, 1000); /* In turns of 256: 4 of them within 8. */
    bop_mpmc_producer_close(other);
}

TEST(lanes, leave_the_others_their_share)
{
    uint64_t item;

    push(f, 0, 4);
    pop_run(f, f->a, 0, 1); /* Claims 2 of the 4. */
    CHECK_EQ(bop_mpmc_pop(f->queue, f->b, &item), 1);
    CHECK_EQ(item, 2);
}

/* -- Blocks and memory ------------------------------------------------------------------------- */

TEST(lanes, hold_a_backlog_in_order)
{
    push(f, 0, ITEMS / 2); /* In one go. */
    for (uint64_t i = ITEMS / 2; i < ITEMS; i++) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, f->producer, i), 0);
    }
    CHECK_EQ(bop_mpmc_size(f->queue), ITEMS);
    CHECK(bop_mpmc_memory_bytes(f->queue) < ITEMS * 9);
    pop_run(f, f->a, 0, ITEMS);
}

TEST(lanes, give_memory_back_when_drained)
{
    uint64_t out[1000];
    size_t peak;

    for (unsigned i = 0; i < 5; i++) {
        push(f, 0, ITEMS);
    }
    peak = bop_mpmc_memory_bytes(f->queue);
    CHECK(peak >= 5 * ITEMS * sizeof(uint64_t));
    for (size_t i = 0; i < 5 * ITEMS; i += 1000) {
        REQUIRE_EQ(bop_mpmc_pop_bulk(f->queue, f->a, out, 1000), 1000);
    }
    CHECK(bop_mpmc_memory_bytes(f->queue) <= peak / 10);
    CHECK(f->heap.live <= peak / 10);
}

/* A claim that lies around keeps its block, and the map grows around it. */
TEST(lanes, go_round_an_item_that_is_not_popped)
{
    push(f, 0, 2 * CLAIM);
    pop_run(f, f->a, 0, 1);
    pop_run(f, f->b, CLAIM, CLAIM);
    for (uint64_t i = 2 * CLAIM; i < 50000; i += 10) {
        push(f, i, 10);
        pop_run(f, f->b, i, 10);
    }
    CHECK(bop_mpmc_memory_bytes(f->queue) < 100000);
    pop_run(f, f->a, 1, CLAIM - 1);
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

/* A lane that carries many items gets medium blocks, without a backlog too: but for the one in use
 * and what is spare of each size it keeps nothing. */
TEST(lanes, carry_on_in_medium_blocks)
{
    for (uint64_t i = 0; i < 4096; i += 16) {
        push(f, i, 16);
        pop_run(f, f->a, i, 16);
    }
    CHECK(bop_mpmc_memory_bytes(f->queue) <= 2 * 4160);
    for (uint64_t i = 4096; i < 49152; i += 16) {
        push(f, i, 16);
        pop_run(f, f->a, i, 16);
    }
    CHECK(bop_mpmc_memory_bytes(f->queue) > 16448);
    CHECK(bop_mpmc_memory_bytes(f->queue) <= 2 * 4160 + 2 * 16448);
}

/* A ceiling of one big block is 15 small ones of 4160 bytes: 7680 items. */
TEST(lanes, refuse_pushes_at_the_ceiling)
{
    uint64_t item, out[512];

    close_queue(f);
    open_queue(f, 1);
    for (uint64_t i = 0; i < 7680; i++) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, f->producer, i), 0);
    }
    CHECK_EQ(bop_mpmc_memory_bytes(f->queue), 15 * 4160);
    CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 0), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push(f->queue, NULL, 0), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, f->items, 2), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_some(f->queue, f->producer, f->items, 2), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_wait(f->queue, f->producer, 0, 1000), BOP_ETIMEOUT);
    CHECK_EQ(bop_mpmc_size(f->queue), 7680);

    CHECK_EQ(bop_mpmc_pop(f->queue, f->a, &item), 1);
    CHECK_EQ(bop_mpmc_push(f->queue, f->producer, 0), BOP_EFULL); /* No block is done yet. */
    CHECK_EQ(bop_mpmc_pop_bulk(f->queue, f->a, out, 511), 511);
    CHECK_EQ(bop_mpmc_push_bulk(f->queue, f->producer, f->items, 513), BOP_EFULL);
    CHECK_EQ(bop_mpmc_push_some(f->queue, f->producer, &f->items[7680], 513), 512);
    pop_run(f, f->a, 512, 7680);
}

static void *wait_for_room(void *argument)
{
    struct worker *worker = argument;

    worker->rc = bop_mpmc_push_wait(worker->f->queue, NULL, 1, BOP_MPMC_FOREVER);
    return NULL;
}

TEST(lanes, wake_who_waits_for_memory)
{
    struct worker *worker = &f->workers[0];

    close_queue(f);
    open_queue(f, 1);
    for (uint64_t i = 0; i < 7680; i++) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, f->producer, i), 0);
    }
    worker->f = f;
    REQUIRE_EQ(pthread_create(&worker->thread, NULL, wait_for_room, worker), 0);
    pop_run(f, f->a, 0, 512);
    pthread_join(worker->thread, NULL);
    CHECK_EQ(worker->rc, 0);
    CHECK_EQ(bop_mpmc_size(f->queue), 7680 - 512 + 1);
}

/* A bulk that could never fit is refused at once, not waited for. */
TEST(lanes, do_not_wait_for_what_cannot_be)
{
    close_queue(f);
    open_queue(f, 1);
    push(f, 0, 1); /* A small block, so that there is no room for a big one. */
    CHECK_EQ(bop_mpmc_push_bulk_wait(f->queue, f->producer, f->items, 8000, BOP_MPMC_FOREVER),
             BOP_EFULL);
    CHECK_EQ(bop_mpmc_size(f->queue), 1);
}

TEST(lanes, do_not_allocate_where_they_may_not)
{
    size_t live;

    CHECK_EQ(bop_mpmc_try_push(f->queue, f->producer, 1), BOP_EFULL);
    CHECK_EQ(bop_mpmc_try_push(f->queue, NULL, 1), BOP_EFULL);
    push(f, 0, 1);
    live = f->heap.live;
    CHECK_EQ(bop_mpmc_try_push_bulk(f->queue, f->producer, &f->items[1], 512), BOP_EFULL);
    CHECK_EQ(bop_mpmc_try_push_bulk(f->queue, f->producer, &f->items[1], 511), 0);
    CHECK_EQ(bop_mpmc_try_push(f->queue, f->producer, 512), BOP_EFULL);
    pop_run(f, f->a, 0, 512); /* The block is a spare now. */
    for (uint64_t i = 0; i < 512; i++) {
        REQUIRE_EQ(bop_mpmc_try_push(f->queue, f->producer, i), 0);
    }
    CHECK_EQ(bop_mpmc_try_push(f->queue, f->producer, 512), BOP_EFULL);
    CHECK_EQ(f->heap.live, live);
}

/* In round k the k-th allocation of a bulk fails: nothing of it is inside, and it goes where it
 * would have gone once there is memory. */
TEST(lanes, leave_everything_as_it_was_when_memory_fails)
{
    push(f, 0, 100);
    FAULT_SWEEP(&f->faults) {
        size_t held = bop_mpmc_memory_bytes(f->queue);
        int rc = bop_mpmc_push_bulk(f->queue, f->producer, &f->items[100], 2000);

        CHECK_EQ(rc, f->faults.fired);
        if (rc < 0) {
            CHECK_EQ(bop_mpmc_size(f->queue), 100);
            CHECK_EQ(bop_mpmc_memory_bytes(f->queue), held);
        }
    }
    CHECK_EQ(f->faults.at, 4); /* Blocks for the 1588 items that the first has no room for. */
    CHECK_EQ(bop_mpmc_size(f->queue), 2100);
    pop_run(f, f->a, 0, 2100);
}

/* Where there is no memory for a big block, small ones do; not so for the map. */
TEST(lanes, do_with_small_blocks_when_memory_for_big_ones_fails)
{
    FAULT_SWEEP(&f->faults) {
        size_t held = bop_mpmc_memory_bytes(f->queue);
        int rc = bop_mpmc_push_bulk(f->queue, f->producer, f->items, ITEMS);

        if (rc < 0) {
            CHECK_EQ(rc, f->faults.fired);
            CHECK_EQ(bop_mpmc_size(f->queue), 0);
            CHECK_EQ(bop_mpmc_memory_bytes(f->queue), held);
        } else {
            CHECK_EQ(bop_mpmc_size(f->queue), ITEMS);
            pop_run(f, f->a, 0, ITEMS);
        }
    }
    CHECK(f->faults.at > 0);
}

TEST(lanes, survive_a_failed_allocation_of_each_part)
{
    close_queue(f);
    FAULT_SWEEP(&f->faults) {
        struct bop_mpmc_options options = {.allocator = &f->heap.allocator};
        struct bop_mpmc_producer *producers[12] = {NULL};
        int rc = bop_mpmc_create(&options, &f->queue, NULL);

        if (rc == 0) {
            rc = bop_mpmc_consumer_open(f->queue, 0, &f->a);
        }
        for (unsigned i = 0; rc == 0 && i < 12; i++) { /* More than the first chunk of lanes. */
            rc = bop_mpmc_producer_open(f->queue, &producers[i]);
        }
        if (rc == 0) {
            rc = bop_mpmc_consumer_open(f->queue, 0, &f->b);
        }
        CHECK_EQ(rc, f->faults.fired);
        for (unsigned i = 0; i < 12; i++) {
            bop_mpmc_producer_close(producers[i]);
        }
        close_queue(f);
    }
    /* The queue; a; 12 lanes and maps, and a chunk for a twice; b and its 2 chunks. */
    CHECK_EQ(f->faults.at, 1 + 1 + 24 + 2 + 3);
}

/* -- Threads that come, go, and stop in the middle --------------------------------------------- */

static void note(struct worker *worker, uint64_t item)
{
    CHECK(item < MANY);
    worker->f->seen[item]++;
    worker->popped++;
}

/* Pop in bursts with a pause after each, so that claims lie idle all the time. */
static void *consume_in_bursts(void *argument)
{
    struct worker *worker = argument;
    uint64_t item, next = 0;

    for (;;) {
        int rc = bop_mpmc_pop(worker->f->queue, worker->consumer, &item);

        if (rc == BOP_ECLOSED) {
            return NULL;
        }
        if (rc == 1) {
            CHECK(item >= next); /* One producer, so all of it is in order. */
            next = item + 1;
            note(worker, item);
        }
        if (rc == 0 || worker->popped % 5 == 0) {
            sched_yield();
        }
    }
}

static void open_workers(struct fixture *f, unsigned claim_ahead)
{
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        f->workers[i].f = f;
        f->workers[i].number = i;
        f->workers[i].popped = 0;
        REQUIRE_EQ(bop_mpmc_consumer_open(f->queue, claim_ahead, &f->workers[i].consumer), 0);
    }
}

static void close_workers(struct fixture *f)
{
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        bop_mpmc_consumer_close(f->workers[i].consumer);
    }
}

static void start_workers(struct fixture *f, void *(*run)(void *argument))
{
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        REQUIRE_EQ(pthread_create(&f->workers[i].thread, NULL, run, &f->workers[i]), 0);
    }
}

static void join_workers(struct fixture *f)
{
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        pthread_join(f->workers[i].thread, NULL);
    }
}

static void check_each_seen_once(struct fixture *f)
{
    for (uint64_t i = 0; i < MANY; i++) {
        REQUIRE_EQ(f->seen[i], 1);
    }
    CHECK_EQ(bop_mpmc_size(f->queue), 0);
}

/* Bursts that are waited for: the lanes run empty again and again, and what is inside lies in
 * claims. */
static void push_bursts(struct fixture *f)
{
    for (uint64_t i = 0; i < MANY; i += BURST) {
        push(f, i, (size_t)bop_min_u64(BURST, MANY - i));
        while (bop_mpmc_size(f->queue) > 0) {
            sched_yield();
        }
    }
}

static void take_over_from_each_other(struct fixture *f)
{
    open_workers(f, BOP_MPMC_CLAIM_AHEAD_MAX);
    start_workers(f, consume_in_bursts);
    push_bursts(f);
    bop_mpmc_close(f->queue);
    join_workers(f);
    check_each_seen_once(f);
    close_workers(f);
}

TEST(lanes, lose_nothing_while_consumers_take_over)
{
    take_over_from_each_other(f);
}

TEST(lanes, lose_nothing_while_consumers_take_over_without_the_kernels_help)
{
    bop__asymmetric_fence_force_full(true);
    take_over_from_each_other(f);
}

/* Pop some, and exit without closing the token. */
static void *consume_some(void *argument)
{
    struct worker *worker = argument;
    uint64_t item;

    for (unsigned i = 0; i < 10; i++) {
        if (bop_mpmc_pop_wait(worker->f->queue, worker->consumer, &item, 100) == 1) {
            note(worker, item);
        }
    }
    return NULL;
}

TEST(lanes, lose_nothing_while_threads_exit_with_claims)
{
    uint64_t item;

    open_workers(f, 0);
    push(f, 0, MANY);
    bop_mpmc_close(f->queue);
    for (unsigned round = 0; round < 20; round++) {
        start_workers(f, consume_some);
        join_workers(f);
    }
    bop_mpmc_consumer_close(f->workers[0].consumer);
    f->workers[0].consumer = NULL;
    for (;;) {
        int rc = bop_mpmc_pop(f->queue, f->b, &item);

        if (rc != 1) {
            CHECK_EQ(rc, BOP_ECLOSED);
            break;
        }
        note(&f->workers[0], item);
    }
    check_each_seen_once(f);
    close_workers(f);
}

/* Without tokens on either side of a take-over. */
static void *consume_with_or_without(void *argument)
{
    struct worker *worker = argument;
    uint64_t items[3];

    for (unsigned i = 0;; i++) {
        struct bop_mpmc_consumer *consumer = (i / 4 + worker->number) % 2 ? worker->consumer : NULL;
        ssize_t got = bop_mpmc_pop_bulk_wait(worker->f->queue, consumer, items, 1 + i % 3,
                                             BOP_MPMC_FOREVER);

        if (got == BOP_ECLOSED) {
            return NULL;
        }
        for (ssize_t j = 0; j < got; j++) {
            note(worker, items[j]);
        }
        if (consumer && bop_mpmc_pop(worker->f->queue, consumer, items) == 1) {
            note(worker, items[0]); /* A claim to be left behind. */
        }
    }
}

TEST(lanes, lose_nothing_with_and_without_tokens)
{
    open_workers(f, 0);
    start_workers(f, consume_with_or_without);
    for (uint64_t i = 0; i < MANY; i++) {
        REQUIRE_EQ(bop_mpmc_push(f->queue, f->producer, i), 0);
        if (i % 50 == 0) {
            sched_yield();
        }
    }
    bop_mpmc_close(f->queue);
    join_workers(f);
    check_each_seen_once(f);
    close_workers(f);
}
