/*
 * Tags: counts that are exact whichever thread frees, limits, callbacks.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bop/mem.h>
#include <bop/random.h>

#include "tap.h"

static struct bop_tag_stats stats_of(const char *name)
{
    struct bop_mem_stats stats;

    bop_mem_stats(&stats);
    for (size_t i = 0; i < stats.tag_count; i++) {
        if (strcmp(stats.tags[i].name, name) == 0) {
            return stats.tags[i];
        }
    }
    return (struct bop_tag_stats){.name = "none"};
}

/* -- Names ------------------------------------------------------------------------------------- */

TEST(tag, is_the_same_for_the_same_name)
{
    struct bop_allocator *a = bop_tag("names.a");

    CHECK_PTR_EQ(bop_tag("names.a"), a);
    CHECK(bop_tag("names.b") != a);
    CHECK(bop_tag_pages("names.a") != a);
    CHECK_PTR_EQ(bop_tag_pages("names.a"), bop_tag_pages("names.a"));
    CHECK_PTR_EQ(bop_allocator_or_tag(a, "names.c"), a);
    CHECK_PTR_EQ(bop_allocator_or_tag(NULL, "names.a"), a);
    CHECK_STR_EQ(stats_of("names.c").name, "none");
}

TEST(tag, with_a_bad_name_is_other)
{
    struct bop_allocator *other = bop_tag("other");

    CHECK_PTR_EQ(bop_tag(NULL), other);
    CHECK_PTR_EQ(bop_tag(""), other);
    CHECK_PTR_EQ(bop_tag("has space"), other);
    CHECK_PTR_EQ(bop_tag("quote\""), other);
    CHECK_PTR_EQ(bop_tag("12345678901234567890123456789012"), other); /* 32 characters. */
    CHECK(bop_tag("1234567890123456789012345678901") != other);       /* 31. */
    CHECK(bop_tag("Az09._-") != other);
}

/* -- Counts ------------------------------------------------------------------------------------ */

TEST(tag, counts_what_was_asked_for)
{
    struct bop_allocator *tag = bop_tag("count.basic");
    void *a = bop_alloc(tag, 100);
    void *b = bop_alloc(tag, 7);
    struct bop_tag_stats stats;

    REQUIRE(a && b);
    a = bop_realloc(tag, a, 100, 1000);
    REQUIRE(a);
    stats = stats_of("count.basic");
    CHECK_EQ(stats.allocations, 3); /* A realloc is one more of each. */
    CHECK_EQ(stats.deallocations, 1);
    CHECK_EQ(stats.bytes_allocated, 1107);
    CHECK_EQ(stats.bytes_deallocated, 100);
    CHECK_EQ(stats.live_allocations, 2);
    CHECK_EQ(stats.live_bytes, 1007);
    CHECK_EQ(stats.peak_bytes, 1007);
    bop_free(tag, b, 7);
    bop_free(tag, a, 1000);
    bop_free(tag, NULL, 5);
    stats = stats_of("count.basic");
    CHECK_EQ(stats.live_allocations, 0);
    CHECK_EQ(stats.live_bytes, 0);
    CHECK_EQ(stats.peak_bytes, 1007);
    CHECK_EQ(stats.limit_bytes, 0);
}

TEST(tag, counts_realloc_of_nothing_and_failure)
{
    struct bop_allocator *tag = bop_tag("count.realloc");
    void *a = bop_realloc(tag, NULL, 0, 50);
    void *none;

    REQUIRE(a);
    none = bop_realloc(tag, a, 50, SIZE_MAX);
    CHECK(!none);
    none = bop_alloc(tag, SIZE_MAX);
    CHECK(!none);
    none = bop_alloc(tag, PTRDIFF_MAX);
    CHECK(!none);
    none = bop_alloc_array(tag, SIZE_MAX / 2, 3);
    CHECK(!none);
    CHECK_EQ(stats_of("count.realloc").live_bytes, 50);
    CHECK_EQ(stats_of("count.realloc").allocations, 1);
    bop_free(tag, a, 50);
    CHECK_EQ(stats_of("count.realloc").live_bytes, 0);
}

/* One thread: exact, whatever the slack. */
TEST(tag, has_the_exact_peak_of_one_thread)
{
    struct bop_allocator *tag = bop_tag("count.peak");
    void *blocks[1000];

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++) {
            blocks[i] = bop_alloc(tag, 333);
            REQUIRE(blocks[i]);
        }
        for (int i = 0; i < 1000; i++) {
            bop_free(tag, blocks[i], 333);
        }
    }
    CHECK_EQ(stats_of("count.peak").peak_bytes, 333000);
    bop_mem_stats_reset();
    CHECK_EQ(stats_of("count.peak").peak_bytes, 0);
    CHECK_EQ(stats_of("count.peak").allocations, 0);
    blocks[0] = bop_alloc(tag, 10);
    REQUIRE(blocks[0]);
    bop_free(tag, blocks[0], 10);
    CHECK_EQ(stats_of("count.peak").peak_bytes, 10);
    CHECK_EQ(stats_of("count.peak").allocations, 1);
    CHECK_EQ(stats_of("count.peak").bytes_deallocated, 10);
}

TEST(tag, keeps_what_is_alive_over_a_reset)
{
    struct bop_allocator *tag = bop_tag("count.reset");
    void *a = bop_alloc(tag, 1000);

    REQUIRE(a);
    bop_mem_stats_reset();
    CHECK_EQ(stats_of("count.reset").live_bytes, 1000);
    CHECK_EQ(stats_of("count.reset").live_allocations, 1);
    CHECK_EQ(stats_of("count.reset").peak_bytes, 1000);
    CHECK_EQ(stats_of("count.reset").allocations, 0);
    bop_free(tag, a, 1000);
    CHECK_EQ(stats_of("count.reset").deallocations, 1);
    CHECK_EQ(stats_of("count.reset").live_bytes, 0);
}

TEST(tag_pages, counts_under_the_same_name)
{
    struct bop_allocator *heap = bop_tag("count.pages");
    struct bop_allocator *pages = bop_tag_pages("count.pages");
    char *big = bop_alloc(pages, 100000);
    void *small = bop_alloc(heap, 10);

    REQUIRE(big && small);
    CHECK_EQ((uintptr_t)big % 4096, 0);
    CHECK_EQ(big[0] | big[99999], 0);
    big[99999] = 5;
    CHECK_EQ(stats_of("count.pages").live_bytes, 100010);
    big = bop_realloc(pages, big, 100000, 300000);
    REQUIRE(big);
    CHECK_EQ(big[99999], 5);
    CHECK_EQ(stats_of("count.pages").live_bytes, 300010);
    bop_free(pages, big, 300000);
    bop_free(heap, small, 10);
    CHECK_EQ(stats_of("count.pages").live_bytes, 0);
    CHECK_EQ(stats_of("count.pages").allocations, 3);
    CHECK_EQ(stats_of("count.pages").peak_bytes, 300010);
}

/* -- Threads ----------------------------------------------------------------------------------- */

#define THREADS    4
#define MAILBOX    64
#define STEPS      20000
#define PARCEL_MAX 3000

struct parcel {
    uint64_t size;
    char rest[];
};

/* Blocks travel through mailboxes, so that most are freed by another thread than made them. */
struct exchange {
    struct bop_allocator *tag;
    struct parcel *_Atomic boxes[MAILBOX];
    atomic_uint_fast64_t allocations;
    atomic_uint_fast64_t allocated;
    atomic_uint_fast64_t freed;
};

struct worker {
    struct exchange *exchange;
    uint64_t seed;
    pthread_t thread;
};

static void exchange_one(struct exchange *exchange, struct bop_random *random)
{
    size_t size = sizeof(struct parcel) + bop_random_below(random, PARCEL_MAX);
    struct parcel *parcel = bop_alloc(exchange->tag, size);
    struct parcel *old;

    REQUIRE(parcel);
    parcel->size = size;
    atomic_fetch_add(&exchange->allocations, 1);
    atomic_fetch_add(&exchange->allocated, size);
    old = atomic_exchange(&exchange->boxes[bop_random_below(random, MAILBOX)], parcel);
    if (old && bop_random_below(random, 4) == 0) {
        struct parcel *grown = bop_realloc(exchange->tag, old, old->size, old->size + 100);

        REQUIRE(grown);
        atomic_fetch_add(&exchange->freed, grown->size);
        grown->size += 100;
        atomic_fetch_add(&exchange->allocations, 1);
        atomic_fetch_add(&exchange->allocated, grown->size);
        old = grown;
    }
    if (old) {
        atomic_fetch_add(&exchange->freed, old->size);
        bop_free(exchange->tag, old, old->size);
    }
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct bop_random random;

    bop_random_seed(&random, worker->seed);
    for (int i = 0; i < STEPS; i++) {
        exchange_one(worker->exchange, &random);
    }
    return NULL;
}

static void run_workers(struct exchange *exchange)
{
    struct worker workers[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.exchange = exchange, .seed = i + 1};
        REQUIRE_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_join(workers[i].thread, NULL), 0);
    }
}

static void check_exchange(struct exchange *exchange, const char *name)
{
    struct bop_tag_stats stats = stats_of(name);
    uint64_t held = 0;

    CHECK_EQ(stats.allocations, atomic_load(&exchange->allocations));
    CHECK_EQ(stats.bytes_allocated, atomic_load(&exchange->allocated));
    CHECK_EQ(stats.bytes_deallocated, atomic_load(&exchange->freed));
    for (int i = 0; i < MAILBOX; i++) {
        struct parcel *parcel = atomic_load(&exchange->boxes[i]);

        if (parcel) {
            held += parcel->size;
            bop_free(exchange->tag, parcel, parcel->size);
        }
    }
    CHECK_EQ(stats.live_bytes, held);
    CHECK(stats.peak_bytes >= stats.live_bytes);
    /* What the boxes and hands can hold, and 64 KiB a thread. */
    CHECK(stats.peak_bytes <= (MAILBOX + 3 * THREADS) * (PARCEL_MAX + 200) + 65536 * THREADS);
    CHECK_EQ(stats_of(name).live_bytes, 0);
    CHECK_EQ(stats_of(name).live_allocations, 0);
}

TEST(tag, counts_exactly_across_threads)
{
    struct exchange exchange = {.tag = bop_tag("threads.free")};

    run_workers(&exchange);
    check_exchange(&exchange, "threads.free");
}

TEST(tag, counts_exactly_across_threads_with_a_limit)
{
    struct exchange exchange = {.tag = bop_tag("threads.limit")};

    bop_tag_limit(exchange.tag, 10000000);
    run_workers(&exchange);
    CHECK_EQ(stats_of("threads.limit").limit_bytes, 10000000);
    check_exchange(&exchange, "threads.limit");
    bop_tag_limit(exchange.tag, 0);
}
