/*
 * The eventcount and the fences beneath it, with and without the kernel's help.
 */
#include "eventcount.h"

#include <pthread.h>
#include <time.h>

#include "tap.h"

#define ROUNDS  20000
#define WAITERS 4

struct fixture {
    struct bop__eventcount eventcount;
    _Atomic uint64_t items; /* What is waited for. */
    _Atomic uint64_t taken;
    uint64_t total;
};

static void setup(struct fixture *f)
{
    bop__asymmetric_fence_init();
    bop__eventcount_init(&f->eventcount);
}

static void teardown(struct fixture *f)
{
    bop__asymmetric_fence_force_full(false);
    CHECK_EQ(f->eventcount.word, 0); /* Who came has left. */
}

FIXTURE(setup, teardown)

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool take(struct fixture *f)
{
    uint64_t items = f->items;

    while (items > 0) {
        if (atomic_compare_exchange_weak(&f->items, &items, items - 1)) {
            f->taken++;
            return true;
        }
    }
    return false;
}

/* Take until all were taken, sleeping whenever there is nothing. */
static void *waiter(void *argument)
{
    struct fixture *f = argument;

    while (f->taken < f->total) {
        uint32_t key;

        if (take(f)) {
            continue;
        }
        key = bop__eventcount_prepare(&f->eventcount);
        if (take(f) || f->taken >= f->total) {
            bop__eventcount_cancel(&f->eventcount);
            continue;
        }
        CHECK(bop__eventcount_wait(&f->eventcount, key, UINT64_MAX));
    }
    BOP_IGNORE(bop__eventcount_signal(&f->eventcount, UINT32_MAX)); /* The others are done too. */
    return NULL;
}

/* A lost wake-up hangs here. */
static void wake_all_in_time(struct fixture *f)
{
    pthread_t threads[WAITERS];

    f->items = 0;
    f->taken = 0;
    f->total = ROUNDS;
    for (unsigned i = 0; i < WAITERS; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, waiter, f), 0);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        f->items++;
        CHECK(!bop__eventcount_signal(&f->eventcount, 1));
    }
    for (unsigned i = 0; i < WAITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_EQ(f->taken, ROUNDS);
}

TEST(eventcount, loses_no_wake_up)
{
    wake_all_in_time(f);
}

TEST(eventcount, loses_no_wake_up_without_the_kernels_help)
{
    bop__asymmetric_fence_force_full(true);
    CHECK(bop__asymmetric_fence_hot_is_full);
    wake_all_in_time(f);
}

TEST(eventcount, times_out_not_before_the_deadline)
{
    uint64_t deadline = now_ns() + 3000000;
    uint32_t key = bop__eventcount_prepare(&f->eventcount);

    CHECK(!bop__eventcount_wait(&f->eventcount, key, deadline));
    CHECK(now_ns() >= deadline);
}

TEST(eventcount, does_not_sleep_when_signalled_after_prepare)
{
    uint32_t key = bop__eventcount_prepare(&f->eventcount);

    CHECK(!bop__eventcount_signal(&f->eventcount, 1));
    CHECK(bop__eventcount_wait(&f->eventcount, key, UINT64_MAX));
}

/* Who is on its way already is not called again: only then is one wake-up enough for both. */
TEST(eventcount, counts_each_waiter_as_woken_once)
{
    uint32_t first = bop__eventcount_prepare(&f->eventcount);
    uint32_t second = bop__eventcount_prepare(&f->eventcount);
    uint32_t epoch = f->eventcount.epoch;

    CHECK(!bop__eventcount_signal(&f->eventcount, 1));
    CHECK_EQ(f->eventcount.epoch, epoch + 1);
    CHECK(!bop__eventcount_signal(&f->eventcount, 5));
    CHECK_EQ(f->eventcount.epoch, epoch + 2);
    CHECK(!bop__eventcount_signal(&f->eventcount, 1)); /* Both are on their way. */
    CHECK_EQ(f->eventcount.epoch, epoch + 2);
    CHECK(bop__eventcount_wait(&f->eventcount, first, UINT64_MAX));
    CHECK(bop__eventcount_wait(&f->eventcount, second, UINT64_MAX));
}

TEST(eventcount, reports_an_arming_once)
{
    CHECK(!bop__eventcount_signal(&f->eventcount, 1));
    bop__eventcount_arm(&f->eventcount);
    CHECK(bop__eventcount_signal(&f->eventcount, 1));
    CHECK(!bop__eventcount_signal(&f->eventcount, 1));
    bop__eventcount_arm(&f->eventcount);
    bop__eventcount_disarm(&f->eventcount);
    CHECK(!bop__eventcount_signal(&f->eventcount, 1));
}

/* -- The fences -------------------------------------------------------------------------------- */

struct dekker {
    atomic_uint hot, rare;
    unsigned hot_saw, rare_saw;
    pthread_barrier_t start, end;
};

static void *dekker_hot(void *argument)
{
    struct dekker *d = argument;

    for (unsigned i = 1; i <= ROUNDS / 10; i++) {
        pthread_barrier_wait(&d->start);
        atomic_store_explicit(&d->hot, i, memory_order_relaxed);
        bop__fence_hot();
        d->hot_saw = atomic_load_explicit(&d->rare, memory_order_relaxed);
        pthread_barrier_wait(&d->end);
    }
    return NULL;
}

static void see_each_other(void)
{
    struct dekker d = {0};
    pthread_t thread;

    REQUIRE_EQ(pthread_barrier_init(&d.start, NULL, 2), 0);
    REQUIRE_EQ(pthread_barrier_init(&d.end, NULL, 2), 0);
    REQUIRE_EQ(pthread_create(&thread, NULL, dekker_hot, &d), 0);
    for (unsigned i = 1; i <= ROUNDS / 10; i++) {
        pthread_barrier_wait(&d.start);
        atomic_store_explicit(&d.rare, i, memory_order_relaxed);
        bop__fence_rare();
        d.rare_saw = atomic_load_explicit(&d.hot, memory_order_relaxed);
        pthread_barrier_wait(&d.end);
        CHECK(d.hot_saw == i || d.rare_saw == i);
    }
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&d.start);
    pthread_barrier_destroy(&d.end);
}

TEST(asymmetric_fence, lets_one_of_two_see_the_other)
{
    see_each_other();
}

TEST(asymmetric_fence, lets_one_of_two_see_the_other_without_the_kernels_help)
{
    bop__asymmetric_fence_force_full(true);
    see_each_other();
}
