/*
 * Memory goes back: of threads that are alive and idle, of the main thread, and
 * without harm to threads that are not. The program's malloc() is the family.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <bop/mem.h>
#include <bop/random.h>

#include "tap.h"

#include "own_malloc.h"

#define MIB ((uint64_t)1 << 20)

static uint64_t resident(void)
{
    static struct bop_mem_stats stats;

    bop_mem_stats(&stats);
    return stats.resident_bytes;
}

static void pause_ms(long ms)
{
    const struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&span, NULL);
}

/* Wait until the process has at most so much, for up to 10 s. */
static bool falls_below(uint64_t bytes)
{
    for (int i = 0; i < 200 && resident() > bytes; i++) {
        pause_ms(50);
    }
    test_note("resident: %" PRIu64 " KiB", resident() / 1024);
    return resident() <= bytes;
}

/* -- Blocks of one holder ---------------------------------------------------------------------- */

#define BLOCKS 100000 /* Of 1 KiB at the mean: 100 MB. */

struct holder {
    void **blocks; /* Whole pages, not of the heap. */
    struct bop_random random;
    pthread_t thread;
    pthread_barrier_t *barrier;
};

static void holder_init(struct holder *holder, uint64_t seed)
{
    *holder = (struct holder){
        .blocks = bop_alloc(bop_tag_pages("test.blocks"), BLOCKS * sizeof(void *))};
    REQUIRE(holder->blocks);
    bop_random_seed(&holder->random, seed);
}

static void holder_deinit(struct holder *holder)
{
    bop_free(bop_tag_pages("test.blocks"), holder->blocks, BLOCKS * sizeof(void *));
}

static void fill(struct holder *holder)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = 1 + bop_random_below(&holder->random, 2048);

        holder->blocks[i] = bop_mem_alloc(size);
        REQUIRE(holder->blocks[i]);
        memset(holder->blocks[i], 1, size);
    }
}

/* All but one of `keep`; 0: all. */
static void empty(struct holder *holder, size_t keep)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        if (!keep || i % keep) {
            bop_mem_free(holder->blocks[i]);
            holder->blocks[i] = NULL;
        }
    }
}

static void *hold(void *argument)
{
    struct holder *holder = argument;

    fill(holder);
    pthread_barrier_wait(holder->barrier); /* Full. */
    pthread_barrier_wait(holder->barrier); /* The peak was taken. */
    empty(holder, 0);
    pthread_barrier_wait(holder->barrier); /* Empty; and idle until told to end. */
    pthread_barrier_wait(holder->barrier);
    return NULL;
}

/* -- Idle threads ------------------------------------------------------------------------------ */

TEST(purge, returns_what_idle_threads_hold)
{
    struct holder holders[2];
    pthread_barrier_t barrier;
    uint64_t peak;

    if (!bop__mem_owns_malloc) {
        TEST_SKIP("malloc() is the C library's");
    }
    REQUIRE_EQ(bop_mem_purge_start(), 0);
    REQUIRE_EQ(pthread_barrier_init(&barrier, NULL, 3), 0);
    for (int i = 0; i < 2; i++) {
        holder_init(&holders[i], (uint64_t)i);
        holders[i].barrier = &barrier;
        REQUIRE_EQ(pthread_create(&holders[i].thread, NULL, hold, &holders[i]), 0);
    }
    pthread_barrier_wait(&barrier);
    peak = resident();
    CHECK(peak > 200 * MIB);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    CHECK(falls_below(peak / 10));
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 2; i++) {
        REQUIRE_EQ(pthread_join(holders[i].thread, NULL), 0);
        holder_deinit(&holders[i]);
    }
    pthread_barrier_destroy(&barrier);
    bop_mem_purge_stop();
}

TEST(purge, returns_what_the_main_thread_holds)
{
    struct holder holder;
    uint64_t peak;

    if (!bop__mem_owns_malloc) {
        TEST_SKIP("malloc() is the C library's");
    }
    holder_init(&holder, 7);
    REQUIRE_EQ(bop_mem_purge_start(), 0);
    fill(&holder);
    peak = resident();
    CHECK(peak > 100 * MIB);
    empty(&holder, 0);
    CHECK(falls_below(peak / 5));
    holder_deinit(&holder);
    bop_mem_purge_stop();
}

/* One block in 30000 stays, so that most segments do. */
TEST(purge, returns_the_free_part_of_used_segments)
{
    struct holder holder;
    uint64_t peak;

    if (!bop__mem_owns_malloc) {
        TEST_SKIP("malloc() is the C library's");
    }
    holder_init(&holder, 8);
    fill(&holder);
    peak = resident();
    empty(&holder, 30000);
    bop_mem_purge();
    CHECK(falls_below(peak / 4));
    for (size_t i = 0; i < BLOCKS; i += 30000) {
        CHECK_EQ(*(char *)holder.blocks[i], 1);
        bop_mem_free(holder.blocks[i]);
    }
    holder_deinit(&holder);
}

/* Whoever owns malloc(): the caller's own goes back. */
TEST(purge, returns_what_the_caller_holds)
{
    struct holder holder;
    uint64_t peak;

#ifndef BOP_HAVE_MIMALLOC
    TEST_SKIP("the sanitizers keep what is freed");
#endif
    holder_init(&holder, 9);
    fill(&holder);
    peak = resident();
    empty(&holder, 0);
    bop_mem_purge();
    CHECK(falls_below(peak / 2));
    holder_deinit(&holder);
}

/* -- Threads that are not idle ----------------------------------------------------------------- */

#define WORKERS 3
#define SLOTS   512
#define ROUNDS  10
#define STEPS   4000

struct slot {
    uint8_t *block;
    size_t size;
    uint8_t pattern;
};

/* Slots of all workers, taken by exchange: most blocks are freed by another thread. */
static struct slot *_Atomic exchange[SLOTS];

static void check_and_free(struct slot *slot)
{
    for (size_t i = 0; i < slot->size; i += 61) {
        if (slot->block[i] != slot->pattern) {
            CHECK_EQ(slot->block[i], slot->pattern);
            break;
        }
    }
    bop_mem_free(slot->block);
    bop_mem_free(slot);
}

static struct slot *make_slot(struct bop_random *random)
{
    struct slot *slot = bop_mem_alloc(sizeof(*slot));
    unsigned scale = (unsigned)bop_random_below(random, 12);
    size_t size = 1 + bop_random_below(random, (uint64_t)16 << scale);

    REQUIRE(slot);
    if (bop_random_below(random, 500) == 0) {
        size += 20 * MIB; /* A segment of its own. */
    }
    *slot = (struct slot){.size = size, .pattern = (uint8_t)bop_random_below(random, 256)};
    slot->block = bop_random_below(random, 2) ? bop_mem_alloc(size) : bop_mem_zalloc(size);
    REQUIRE(slot->block);
    for (size_t i = 0; i < size; i += 61) {
        slot->block[i] = slot->pattern;
    }
    return slot;
}

static void *work(void *argument)
{
    struct bop_random random;

    bop_random_seed(&random, (uintptr_t)argument);
    for (int i = 0; i < STEPS; i++) {
        struct slot *slot = bop_random_below(&random, 3) ? make_slot(&random) : NULL;

        slot = atomic_exchange(&exchange[bop_random_below(&random, SLOTS)], slot);
        if (slot) {
            check_and_free(slot);
        }
        if (bop_random_below(&random, 64) == 0) {
            /* New memory that is to be zero has to be, whatever was returned under it. */
            size_t size = 1 + bop_random_below(&random, 100000);
            uint8_t *zeros = bop_mem_zalloc(size);

            REQUIRE(zeros);
            for (size_t j = 0; j < size; j++) {
                if (zeros[j]) {
                    CHECK_EQ(zeros[j], 0);
                    break;
                }
            }
            memset(zeros, 0xff, size);
            bop_mem_free(zeros);
        }
    }
    return NULL;
}

static atomic_bool purging_ends;

static void *purge_always(void *argument)
{
    while (!atomic_load(&purging_ends)) {
        bop_mem_purge();
        sched_yield();
    }
    return NULL;
}

TEST(purge, leaves_busy_threads_alone)
{
    pthread_t workers[WORKERS], purger;

    atomic_store(&purging_ends, false);
    REQUIRE_EQ(bop_mem_purge_start(), 0);
    REQUIRE_EQ(pthread_create(&purger, NULL, purge_always, NULL), 0);
    for (uintptr_t round = 0; round < ROUNDS; round++) {
        for (uintptr_t i = 0; i < WORKERS; i++) {
            REQUIRE_EQ(pthread_create(&workers[i], NULL, work, (void *)(round * WORKERS + i)), 0);
        }
        for (uintptr_t i = 0; i < WORKERS; i++) {
            REQUIRE_EQ(pthread_join(workers[i], NULL), 0);
        }
    }
    atomic_store(&purging_ends, true);
    REQUIRE_EQ(pthread_join(purger, NULL), 0);
    bop_mem_purge_stop();
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = atomic_exchange(&exchange[i], NULL);

        if (slot) {
            check_and_free(slot);
        }
    }
}

/* -- Starting, stopping, forking --------------------------------------------------------------- */

TEST(purge_start, may_be_called_again)
{
    REQUIRE_EQ(bop_mem_purge_start(), 0);
    CHECK_EQ(bop_mem_purge_start(), 0);
    bop_mem_purge_stop();
    bop_mem_purge_stop();
    REQUIRE_EQ(bop_mem_purge_start(), 0);
    bop_mem_purge_stop();
}

static bool has_purger(void)
{
    char command[128], line[64] = "";
    FILE *file;

    for (int tid = getpid() + 1; tid < getpid() + 64; tid++) {
        snprintf(command, sizeof(command), "/proc/self/task/%d/comm", tid);
        file = fopen(command, "r");
        if (file) {
            BOP_IGNORE(fgets(line, sizeof(line), file));
            fclose(file);
            if (strcmp(line, "bop-purge\n") == 0) {
                return true;
            }
        }
    }
    return false;
}

/* In the child: it allocates for a while, and then has a purger of its own. */
static int child_main(void)
{
    for (int i = 0; i < 2000; i++) {
        void *block = bop_mem_alloc((size_t)i);

        if (!block) {
            return 1;
        }
        bop_mem_free(block);
    }
    bop_mem_purge();
    for (int i = 0; i < 200 && !has_purger(); i++) {
        pause_ms(50);
    }
    return has_purger() ? 0 : 2;
}

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define NO_THREADS_AFTER_FORK
#endif
#elif defined(__SANITIZE_THREAD__)
#define NO_THREADS_AFTER_FORK
#endif

TEST(purge_start, holds_for_a_forked_child)
{
    int status = -1;
    pid_t child;

#ifdef NO_THREADS_AFTER_FORK
    TEST_SKIP("the thread sanitizer ends a forked child that makes threads");
#endif
    REQUIRE_EQ(bop_mem_purge_start(), 0);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        _exit(child_main());
    }
    REQUIRE_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
    bop_mem_purge_stop();
}
