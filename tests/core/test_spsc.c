/*
 * The queue from one producer to one consumer: its order, its edges, close under
 * fire, waiting and what a timeout is counted in.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include <bop/clock.h>
#include <bop/fs.h>
#include <bop/random.h>
#include <bop/spsc.h>

#include "tap.h"

#define CAPACITY 8
#define MANY     200000 /* Items through a queue between two threads. */
#define WAITS    20000  /* The same, where they may sleep at each. */

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_spsc *queue;
    struct bop_error err;

    uint64_t discarded[CAPACITY];
    size_t discarded_count;

    /* Of the threads. */
    pthread_t thread;
    uint64_t accepted;
    uint64_t timeout_us;
    int rc;
    _Atomic bool go;
};

static void discard(void *user, uint64_t item)
{
    struct fixture *f = user;

    REQUIRE(f->discarded_count < CAPACITY);
    f->discarded[f->discarded_count++] = item;
}

static void create(struct fixture *f, size_t capacity)
{
    struct bop_spsc_options options = {
        .allocator = &f->heap.allocator, .capacity = capacity, .discard = discard, .user = f};

    REQUIRE_EQ(bop_spsc_create(&options, &f->queue, &f->err), 0);
}

static void destroy(struct fixture *f)
{
    bop_spsc_destroy(f->queue);
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

static uint64_t now_us(void)
{
    return bop_clock_monotonic_us(bop_clock_system());
}

static void start(struct fixture *f, void *(*run)(void *fixture))
{
    REQUIRE_EQ(pthread_create(&f->thread, NULL, run, f), 0);
}

static void join(struct fixture *f)
{
    REQUIRE_EQ(pthread_join(f->thread, NULL), 0);
}

/* -- One thread -------------------------------------------------------------------------------- */

TEST(spsc, is_first_in_first_out)
{
    uint64_t item = 99;

    create(f, CAPACITY);
    CHECK_EQ(bop_spsc_capacity(f->queue), CAPACITY);
    CHECK_EQ(bop_spsc_pop(f->queue, &item), 0);
    CHECK_EQ(item, 99); /* Written on success only. */
    CHECK_EQ(bop_spsc_push(f->queue, 0), 0);
    CHECK_EQ(bop_spsc_push(f->queue, UINT64_MAX), 0);
    CHECK_EQ(bop_spsc_size(f->queue), 2);
    CHECK_EQ(bop_spsc_pop(f->queue, &item), 1);
    CHECK_EQ(item, 0);
    CHECK_EQ(bop_spsc_pop(f->queue, &item), 1);
    CHECK_EQ(item, UINT64_MAX);
    CHECK_EQ(bop_spsc_pop(f->queue, &item), 0);
    CHECK_EQ(bop_spsc_size(f->queue), 0);
}

TEST(spsc, is_full_at_its_capacity)
{
    uint64_t item;

    create(f, CAPACITY);
    for (uint64_t i = 0; i < CAPACITY; i++) {
        CHECK_EQ(bop_spsc_push(f->queue, i), 0);
    }
    CHECK_EQ(bop_spsc_size(f->queue), CAPACITY);
    CHECK_EQ(bop_spsc_push(f->queue, 8), BOP_EFULL);
    CHECK_EQ(bop_spsc_push_wait(f->queue, 8, 0), BOP_ETIMEOUT);
    CHECK_EQ(bop_spsc_pop(f->queue, &item), 1);
    CHECK_EQ(item, 0);
    CHECK_EQ(bop_spsc_push(f->queue, 8), 0);
    CHECK_EQ(bop_spsc_push(f->queue, 9), BOP_EFULL);
    for (uint64_t i = 1; i <= 8; i++) {
        CHECK_EQ(bop_spsc_pop(f->queue, &item), 1);
        CHECK_EQ(item, i);
    }
}

TEST(spsc, pushes_and_pops_in_bulk)
{
    uint64_t in[10], out[10] = {0};

    create(f, CAPACITY);
    for (uint64_t i = 0; i < 10; i++) {
        in[i] = 100 + i;
    }
    CHECK_EQ(bop_spsc_push_bulk(f->queue, in, 0), 0);
    CHECK_EQ(bop_spsc_push_bulk(f->queue, in, 3), 3);
    CHECK_EQ(bop_spsc_push_bulk(f->queue, in + 3, 7), 5); /* 8 places less 3. */
    CHECK_EQ(bop_spsc_push_bulk(f->queue, in + 8, 2), BOP_EFULL);
    CHECK_EQ(bop_spsc_pop_bulk(f->queue, out, 0), 0);
    CHECK_EQ(bop_spsc_pop_bulk(f->queue, out, 2), 2);
    CHECK_EQ(bop_spsc_push_bulk(f->queue, in + 8, 2), 2);
    CHECK_EQ(bop_spsc_pop_bulk(f->queue, out + 2, 10), 8);
    CHECK_MEM_EQ(out, in, sizeof(in));
    CHECK_EQ(bop_spsc_pop_bulk(f->queue, out, 10), 0);
}

/* The ring wraps at every offset, and the smallest one is no special case. */
TEST(spsc, wraps_around)
{
    static const size_t capacities[] = {2, 4, 64};
    uint64_t in[64], out[64];

    for (size_t c = 0; c < BOP_COUNT_OF(capacities); c++) {
        size_t capacity = capacities[c];
        uint64_t next = 0, expected = 0;

        create(f, capacity);
        for (size_t round = 0; round < 1000; round++) {
            size_t count = 1 + round % capacity;

            for (size_t i = 0; i < count; i++) {
                in[i] = next++;
            }
            REQUIRE_EQ(bop_spsc_push_bulk(f->queue, in, count), count);
            REQUIRE_EQ(bop_spsc_size(f->queue), count);
            REQUIRE_EQ(bop_spsc_pop_bulk(f->queue, out, capacity), count);
            for (size_t i = 0; i < count; i++) {
                REQUIRE_EQ(out[i], expected++);
            }
        }
        destroy(f);
    }
}

TEST(spsc, refuses_pushes_once_closed)
{
    uint64_t items[2] = {7, 8}, item = 0;

    create(f, CAPACITY);
    CHECK_EQ(bop_spsc_push(f->queue, 5), 0);
    CHECK_EQ(bop_spsc_push(f->queue, 6), 0);
    bop_spsc_close(f->queue);
    bop_spsc_close(f->queue);
    CHECK_EQ(bop_spsc_push(f->queue, 7), BOP_ECLOSED);
    CHECK_EQ(bop_spsc_push_bulk(f->queue, items, 2), BOP_ECLOSED);
    CHECK_EQ(bop_spsc_push_wait(f->queue, 7, BOP_SPSC_FOREVER), BOP_ECLOSED);
    CHECK_EQ(bop_spsc_size(f->queue), 2);
    CHECK_EQ(bop_spsc_pop(f->queue, &item), 1);
    CHECK_EQ(item, 5);
    CHECK_EQ(bop_spsc_pop_wait(f->queue, &item, BOP_SPSC_FOREVER), 1);
    CHECK_EQ(item, 6);
    CHECK_EQ(bop_spsc_pop(f->queue, &item), BOP_ECLOSED);
    CHECK_EQ(bop_spsc_pop_bulk(f->queue, items, 2), BOP_ECLOSED);
    CHECK_EQ(bop_spsc_pop_wait(f->queue, &item, BOP_SPSC_FOREVER), BOP_ECLOSED);
    CHECK_EQ(item, 6);
}

TEST(spsc, discards_what_is_left_in_order)
{
    uint64_t item;

    create(f, CAPACITY);
    for (uint64_t i = 0; i < 5; i++) {
        CHECK_EQ(bop_spsc_push(f->queue, i), 0);
    }
    CHECK_EQ(bop_spsc_pop(f->queue, &item), 1);
    destroy(f);
    CHECK_EQ(f->discarded_count, 4);
    for (uint64_t i = 0; i < 4; i++) {
        CHECK_EQ(f->discarded[i], i + 1);
    }
}

TEST(spsc, discards_from_a_closed_queue_too)
{
    create(f, CAPACITY);
    CHECK_EQ(bop_spsc_push(f->queue, 3), 0);
    bop_spsc_close(f->queue);
    destroy(f);
    CHECK_EQ(f->discarded_count, 1);
    CHECK_EQ(f->discarded[0], 3);
}

TEST(spsc, drops_what_is_left_without_a_discard)
{
    struct bop_spsc_options options = {.capacity = 2}; /* And the default allocator. */

    REQUIRE_EQ(bop_spsc_create(&options, &f->queue, NULL), 0);
    CHECK_EQ(bop_spsc_push(f->queue, 1), 0);
    destroy(f);
    bop_spsc_destroy(NULL);
    CHECK_EQ(f->discarded_count, 0);
}

TEST(spsc, names_a_bad_capacity)
{
    static const struct {
        size_t capacity;
        const char *named;
    } bad[] = {{0, "capacity is 0,"},
               {1, "capacity is 1,"},
               {3, "capacity is 3,"},
               {1000, "capacity is 1000,"},
               {UINT64_C(1) << 32, "capacity is 4294967296,"},
               {SIZE_MAX, "capacity is 18446744073709551615,"}};

    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        struct bop_spsc_options options = {.allocator = &f->heap.allocator,
                                           .capacity = bad[i].capacity};

        CHECK_EQ(bop_spsc_create(&options, &f->queue, &f->err), BOP_EINVAL);
        CHECK_EQ(f->err.code, BOP_EINVAL);
        CHECK_STR_HAS(f->err.message, bad[i].named);
        CHECK_EQ(bop_spsc_create(&options, &f->queue, NULL), BOP_EINVAL);
        CHECK_PTR_EQ(f->queue, NULL);
    }
}

TEST(spsc, survives_each_fault)
{
    struct bop_spsc_options options = {.allocator = &f->heap.allocator, .capacity = 2};

    FAULT_SWEEP(&f->faults) {
        int rc = bop_spsc_create(&options, &f->queue, &f->err);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(rc == 0, f->queue != NULL);
        destroy(f);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 1); /* The block of all. */
    CHECK_STR_HAS(f->err.message, "queue of 2 items");
}

/* -- Two threads ------------------------------------------------------------------------------- */

/* Every count of a bulk occurs, on both sides. */
static void *produce_in_bulks(void *fixture)
{
    struct fixture *f = fixture;
    uint64_t items[CAPACITY + 1];
    uint64_t next = 0;

    for (size_t round = 0; next < MANY; round++) {
        size_t count = (size_t)bop_min_u64(1 + round % BOP_COUNT_OF(items), MANY - next);
        ssize_t pushed;

        for (size_t i = 0; i < count; i++) {
            items[i] = next + i;
        }
        pushed = round % 5 == 0 ? bop_spsc_push(f->queue, next)
                                : bop_spsc_push_bulk(f->queue, items, count);
        if (pushed == BOP_EFULL) {
            sched_yield();
            continue;
        }
        REQUIRE(pushed >= 0);
        next += round % 5 == 0 ? 1 : (uint64_t)pushed;
    }
    return NULL;
}

TEST(spsc, carries_every_item_between_threads)
{
    uint64_t items[CAPACITY + 1];
    uint64_t expected = 0;

    create(f, CAPACITY);
    start(f, produce_in_bulks);
    for (size_t round = 0; expected < MANY; round++) {
        ssize_t popped = bop_spsc_pop_bulk(f->queue, items, 1 + round % BOP_COUNT_OF(items));

        if (popped == 0) {
            sched_yield();
        }
        for (ssize_t i = 0; i < popped; i++) {
            REQUIRE_EQ(items[i], expected++);
        }
    }
    join(f);
    CHECK_EQ(bop_spsc_size(f->queue), 0);
}

static void *produce_waiting(void *fixture)
{
    struct fixture *f = fixture;

    for (uint64_t i = 0; i < WAITS; i++) {
        uint64_t *boxed = malloc(sizeof(*boxed));

        REQUIRE(boxed != NULL);
        *boxed = i;
        REQUIRE_EQ(bop_spsc_push_wait(f->queue, (uintptr_t)boxed, BOP_SPSC_FOREVER), 0);
    }
    bop_spsc_close(f->queue);
    return NULL;
}

/* Both sides sleep by turns, what was written before a push is seen after the pop, and the end
 * comes with the close. */
TEST(spsc, waits_on_both_sides)
{
    uint64_t item;
    uint64_t expected = 0;
    int rc;

    create(f, 2);
    start(f, produce_waiting);
    while ((rc = bop_spsc_pop_wait(f->queue, &item, BOP_SPSC_FOREVER)) == 1) {
        uint64_t *boxed = (uint64_t *)(uintptr_t)item;

        REQUIRE_EQ(*boxed, expected++);
        free(boxed);
    }
    CHECK_EQ(rc, BOP_ECLOSED);
    CHECK_EQ(expected, WAITS);
    join(f);
}

/* Microseconds taken for nanoseconds, or milliseconds given for them, make a wait a thousand times
 * too short, which shows in a lower bound; taken for milliseconds, 60 of ours would be a minute. */
TEST(spsc, counts_timeouts_in_microseconds)
{
    uint64_t item, begin;

    create(f, 2);
    begin = now_us();
    CHECK_EQ(bop_spsc_pop_wait(f->queue, &item, 20000), 0);
    CHECK(now_us() - begin >= 20000);

    CHECK_EQ(bop_spsc_push(f->queue, 1), 0);
    CHECK_EQ(bop_spsc_push(f->queue, 2), 0);
    begin = now_us();
    CHECK_EQ(bop_spsc_push_wait(f->queue, 3, 20000), BOP_ETIMEOUT);
    CHECK(now_us() - begin >= 20000);
    CHECK_EQ(bop_spsc_size(f->queue), 2);

    begin = now_us();
    CHECK_EQ(bop_spsc_push_wait(f->queue, 3, 60000), BOP_ETIMEOUT);
    CHECK(now_us() - begin < 60000000);
}

/* Near the end of what can be said in ns a timeout is for ever, not over at once. */
TEST(spsc, bears_huge_timeouts)
{
    static const uint64_t timeouts[] = {UINT64_MAX - 1, UINT64_MAX / 1000, UINT64_MAX / 1000 + 1};
    uint64_t item;

    for (size_t i = 0; i < BOP_COUNT_OF(timeouts); i++) {
        struct bop_spsc_options options = {.allocator = &f->heap.allocator, .capacity = 2};

        REQUIRE_EQ(bop_spsc_create(&options, &f->queue, NULL), 0);
        start(f, produce_waiting);
        for (uint64_t expected = 0; expected < 100; expected++) {
            REQUIRE_EQ(bop_spsc_pop_wait(f->queue, &item, timeouts[i]), 1);
            REQUIRE_EQ(*(uint64_t *)(uintptr_t)item, expected);
            free((void *)(uintptr_t)item);
        }
        while (bop_spsc_pop_wait(f->queue, &item, timeouts[i]) == 1) {
            free((void *)(uintptr_t)item);
        }
        join(f);
        destroy(f);
    }
}

/* -- Closing ----------------------------------------------------------------------------------- */

static void *wait_to_pop(void *fixture)
{
    struct fixture *f = fixture;
    uint64_t item;

    f->rc = bop_spsc_pop_wait(f->queue, &item, f->timeout_us);
    return NULL;
}

static void *wait_to_push(void *fixture)
{
    struct fixture *f = fixture;

    f->rc = bop_spsc_push_wait(f->queue, 3, f->timeout_us);
    return NULL;
}

TEST(spsc, wakes_who_waits_when_it_closes)
{
    f->timeout_us = BOP_SPSC_FOREVER;
    create(f, 2);
    start(f, wait_to_pop);
    bop_spsc_close(f->queue);
    join(f);
    CHECK_EQ(f->rc, BOP_ECLOSED);
    destroy(f);

    create(f, 2);
    CHECK_EQ(bop_spsc_push(f->queue, 1), 0);
    CHECK_EQ(bop_spsc_push(f->queue, 2), 0);
    start(f, wait_to_push);
    bop_spsc_close(f->queue);
    join(f);
    CHECK_EQ(f->rc, BOP_ECLOSED);
    CHECK_EQ(bop_spsc_size(f->queue), 2);
}

static void *produce_until_closed(void *fixture)
{
    struct fixture *f = fixture;
    uint64_t items[3];
    ssize_t rc;

    for (;;) {
        for (uint64_t i = 0; i < BOP_COUNT_OF(items); i++) {
            items[i] = f->accepted + i;
        }
        rc = bop_spsc_push_bulk(f->queue, items, BOP_COUNT_OF(items));
        if (rc == BOP_ECLOSED) {
            return NULL;
        }
        f->accepted += rc > 0 ? (uint64_t)rc : 0;
        f->go = true;
    }
}

/* A third thread closes while the producer is at full speed: once close has returned the number of
 * items is final, and it is the number that the producer was told. */
TEST(spsc, closes_strictly_under_fire)
{
    for (unsigned round = 0; round < 200; round++) {
        uint64_t popped = 0, item, inside;

        create(f, 64);
        f->accepted = 0;
        f->go = false;
        start(f, produce_until_closed);
        while (!f->go) {
            sched_yield();
        }
        for (unsigned i = 0; i < round; i++) {
            popped += bop_spsc_pop(f->queue, &item) == 1;
        }
        bop_spsc_close(f->queue);
        inside = bop_spsc_size(f->queue);
        for (uint64_t i = 0; i < inside; i++) {
            REQUIRE_EQ(bop_spsc_pop(f->queue, &item), 1);
            REQUIRE_EQ(item, popped);
            popped++;
        }
        REQUIRE_EQ(bop_spsc_pop(f->queue, &item), BOP_ECLOSED);
        join(f);
        REQUIRE_EQ(popped, f->accepted);
        destroy(f);
    }
}
