/*
 * The heap profile and the leak report: what is alive is in it, about as much as
 * it is, and under the function that allocated it.
 *
 * Blocks are sampled by chance, but a program that runs alike draws alike: a
 * thread's generator is seeded by the order of the threads. The bounds on the
 * estimates are 6 standard deviations all the same.
 */
#include <bop/heap_profile.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bop/mem.h>

#include "tap.h"

#define BLOCK_SIZE  1024
#define BLOCK_COUNT 32768 /* 32 MiB. */
#define SAMPLE_SIZE 32768 /* About 1008 samples of them. */

/* The sampler's own bound on blocks that are alive. */
#define SAMPLED_MAX 65536

struct figures {
    uint64_t live_count, live_bytes, total_count, total_bytes;
};

struct fixture {
    char *text; /* The last profile or report. */
    size_t text_size;
    void **blocks;
};

static void setup(struct fixture *f)
{
    f->blocks = calloc(BLOCK_COUNT, sizeof(*f->blocks));
    REQUIRE(f->blocks);
}

static void teardown(struct fixture *f)
{
    bop_heap_profile_stop();
    for (size_t i = 0; f->blocks && i < BLOCK_COUNT; i++) {
        bop_mem_free(f->blocks[i]);
    }
    free(f->blocks);
    free(f->text);
}

FIXTURE(setup, teardown)

/* -- Helpers ----------------------------------------------------------------------------------- */

/* The place to be found in a profile. */
static __attribute__((noinline)) void *allocate_here(size_t size)
{
    void *block = bop_mem_alloc(size);

    atomic_signal_fence(memory_order_seq_cst); /* No tail call: this frame is to be in the stack. */
    return block;
}

static __attribute__((noinline)) void *allocate_by_tag(struct bop_allocator *tag, size_t size)
{
    void *block = bop_alloc(tag, size);

    atomic_signal_fence(memory_order_seq_cst);
    return block;
}

static void allocate_all(struct fixture *f)
{
    for (size_t i = 0; i < BLOCK_COUNT; i++) {
        f->blocks[i] = allocate_here(BLOCK_SIZE);
    }
}

static void free_all(struct fixture *f)
{
    for (size_t i = 0; i < BLOCK_COUNT; i++) {
        bop_mem_free(f->blocks[i]);
        f->blocks[i] = NULL;
    }
}

static void render(struct fixture *f, int (*write)(FILE *out))
{
    FILE *out;

    free(f->text);
    f->text = NULL;
    out = open_memstream(&f->text, &f->text_size);
    REQUIRE(out);
    CHECK_EQ(write(out), 0);
    fclose(out);
}

/* The sums of the stacks whose innermost frame is in the function, or of all for 0. */
static struct figures figures_of(struct fixture *f, uintptr_t function)
{
    struct figures sum = {0};
    char *line, *rest;

    render(f, bop_heap_profile_write);
    strtok_r(f->text, "\n", &rest);
    while ((line = strtok_r(NULL, "\n", &rest)) && strcmp(line, "MAPPED_LIBRARIES:") != 0) {
        struct figures one;
        uintptr_t leaf = 0;

        if (sscanf(line, "%" SCNu64 ": %" SCNu64 " [%" SCNu64 ": %" SCNu64 "] @ 0x%" SCNxPTR,
                   &one.live_count, &one.live_bytes, &one.total_count, &one.total_bytes,
                   &leaf) < 4) {
            continue;
        }
        if (!function || (leaf > function && leaf - function < 128)) {
            sum.live_count += one.live_count;
            sum.live_bytes += one.live_bytes;
            sum.total_count += one.total_count;
            sum.total_bytes += one.total_bytes;
        }
    }
    CHECK(line);
    return sum;
}

/* -- Tests ------------------------------------------------------------------------------------- */

TEST(heap_profile, starts_once_and_stops)
{
    CHECK(!bop_heap_profile_running());
    CHECK_EQ(bop_heap_profile_start(0), BOP_EINVAL);
    CHECK_EQ(bop_heap_profile_start(BOP_HEAP_PROFILE_SAMPLE_BYTES), 0);
    CHECK(bop_heap_profile_running());
    CHECK_EQ(bop_heap_profile_start(1), BOP_EBUSY);
    bop_heap_profile_stop();
    CHECK(!bop_heap_profile_running());
    bop_heap_profile_stop();
    CHECK_EQ(bop_heap_profile_start(1), 0);
}

TEST(heap_profile, opens_with_the_header_and_ends_with_the_mappings)
{
    REQUIRE_EQ(bop_heap_profile_start(4096), 0);
    f->blocks[0] = allocate_here(1 << 20); /* Not sampled with a chance of e^-256. */
    render(f, bop_heap_profile_write);
    CHECK_EQ(strncmp(f->text, "heap profile: ", 14), 0);
    CHECK_STR_HAS(f->text, "] @ heap_v2/4096\n");
    CHECK_STR_HAS(f->text, "\n1: 1048576 [1: 1048576] @ 0x");
    CHECK_STR_HAS(f->text, "\nMAPPED_LIBRARIES:\n");
    CHECK_STR_HAS(f->text, "[stack]");
}

/* The samples of n bytes in small blocks are n / SAMPLE_SIZE, with the deviation of its root. */
TEST(heap_profile, finds_the_bytes_under_the_function_that_allocated_them)
{
    struct figures here;

    REQUIRE_EQ(bop_heap_profile_start(SAMPLE_SIZE), 0);
    allocate_all(f);
    here = figures_of(f, (uintptr_t)allocate_here);
    /* 32768 * (1 - exp(-1/32)) = 1008.2; 6 * 31.8 = 190. */
    CHECK(here.live_count > 1008 - 190 && here.live_count < 1008 + 190);
    CHECK_EQ(here.live_bytes, here.live_count * BLOCK_SIZE);
    CHECK_EQ(here.total_count, here.live_count);

    free_all(f);
    here = figures_of(f, (uintptr_t)allocate_here);
    CHECK_EQ(here.live_count, 0);
    CHECK_EQ(here.live_bytes, 0);
    CHECK(here.total_count > 1008 - 190);
}

TEST(heap_profile, samples_big_blocks_always_and_sums_a_stack_up)
{
    struct figures here;

    REQUIRE_EQ(bop_heap_profile_start(64), 0);
    for (size_t i = 0; i < 100; i++) {
        f->blocks[i] = allocate_here(16384); /* Each missed with a chance of e^-256. */
    }
    here = figures_of(f, (uintptr_t)allocate_here);
    CHECK_EQ(here.live_count, 100);
    CHECK_EQ(here.live_bytes, 1638400);
    CHECK_STR_HAS(f->text, "heap profile: "); /* The rest was cut into lines. */
}

TEST(heap_profile, counts_a_realloc_as_a_free_and_an_allocation)
{
    struct figures all;

    f->blocks[0] = NULL;
    REQUIRE_EQ(bop_heap_profile_start(1), 0);
    f->blocks[0] = bop_mem_realloc(bop_mem_alloc(1000), 50000);
    bop_heap_profile_stop(); /* What writes allocates too. */
    all = figures_of(f, 0);
    CHECK_EQ(all.live_count, 1);
    CHECK_EQ(all.live_bytes, 50000);
    CHECK_EQ(all.total_count, 2);
    CHECK_EQ(all.total_bytes, 51000);

    /* Frees are seen when sampling has stopped, too. */
    bop_mem_free(f->blocks[0]);
    f->blocks[0] = NULL;
    CHECK_EQ(figures_of(f, 0).live_count, 0);
}

TEST(heap_profile, starts_from_an_empty_one)
{
    REQUIRE_EQ(bop_heap_profile_start(1), 0);
    f->blocks[0] = allocate_here(1000);
    bop_heap_profile_stop();
    CHECK_EQ(figures_of(f, 0).live_count, 1);

    REQUIRE_EQ(bop_heap_profile_start(1), 0);
    bop_heap_profile_stop();
    CHECK_EQ(figures_of(f, 0).total_count, 0);
    bop_mem_free(f->blocks[0]); /* Known to the first profile only. */
    f->blocks[0] = NULL;
    CHECK_EQ(figures_of(f, 0).total_count, 0);
}

/* At the bound samples are dropped and counted; what was recorded is taken out whole. */
TEST(heap_profile, drops_what_is_beyond_its_bounds)
{
    const size_t count = SAMPLED_MAX + 1000;
    void **many = calloc(count, sizeof(*many));
    struct figures all;

    REQUIRE(many);
    REQUIRE_EQ(bop_heap_profile_start(1), 0);
    for (size_t i = 0; i < count; i++) {
        many[i] = allocate_here(64); /* Each missed with a chance of e^-64. */
    }
    bop_heap_profile_stop();
    all = figures_of(f, 0);
    CHECK_EQ(all.live_count, SAMPLED_MAX);
    render(f, bop_leak_report_write);
    CHECK_STR_HAS(f->text, "1000 samples of 64000 bytes were dropped");
    for (size_t i = 0; i < count; i++) {
        bop_mem_free(many[i]);
    }
    CHECK_EQ(figures_of(f, 0).live_count, 0);
    free(many);
}

/* -- Threads and forks ------------------------------------------------------------------------- */

#define THREADS        4
#define SHARED_SLOTS   512
#define THREAD_ROUNDS  20000
#define FORKS          8
#define PROFILE_ROUNDS 8

struct shared {
    void *_Atomic slots[SHARED_SLOTS];
    _Atomic bool stop;
};

struct worker {
    pthread_t thread;
    struct shared *shared;
    uint64_t seed;
    unsigned rounds; /* 0: until told to stop. */
};

/* Put new blocks where others' are, and free those. */
static void *exchange(void *argument)
{
    struct worker *worker = argument;

    for (unsigned round = 0;
         worker->rounds ? round < worker->rounds : !atomic_load(&worker->shared->stop); round++) {
        size_t slot;

        worker->seed = worker->seed * 6364136223846793005u + 1442695040888963407u;
        slot = worker->seed >> 55;
        bop_mem_free(atomic_exchange(&worker->shared->slots[slot],
                                     allocate_here(16 + (worker->seed >> 40 & 1023))));
    }
    return NULL;
}

static void start_workers(struct worker *workers, struct shared *shared, unsigned rounds)
{
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.shared = shared, .seed = i + 1, .rounds = rounds};
        REQUIRE_EQ(pthread_create(&workers[i].thread, NULL, exchange, &workers[i]), 0);
    }
}

static void join_workers(struct worker *workers)
{
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
    }
}

static void empty_slots(struct shared *shared)
{
    for (size_t i = 0; i < SHARED_SLOTS; i++) {
        bop_mem_free(atomic_exchange(&shared->slots[i], NULL));
    }
}

TEST(heap_profile, follows_blocks_from_thread_to_thread)
{
    static struct shared shared;
    struct worker workers[THREADS];

    REQUIRE_EQ(bop_heap_profile_start(200), 0);
    start_workers(workers, &shared, THREAD_ROUNDS);
    for (unsigned i = 0; i < PROFILE_ROUNDS; i++) {
        CHECK(figures_of(f, (uintptr_t)allocate_here).live_count <= SAMPLED_MAX);
    }
    join_workers(workers);
    CHECK(figures_of(f, (uintptr_t)allocate_here).total_count > THREADS * THREAD_ROUNDS / 2);
    empty_slots(&shared);
    CHECK_EQ(figures_of(f, (uintptr_t)allocate_here).live_count, 0);
}

static int count_in_child(struct fixture *f)
{
    struct figures before = figures_of(f, (uintptr_t)allocate_here);
    void *block;

    if (!bop_heap_profile_running()) {
        return 2;
    }
    block = allocate_here(1 << 20); /* 5000 gaps: sampled. */
    if (figures_of(f, (uintptr_t)allocate_here).live_bytes != before.live_bytes + (1 << 20)) {
        return 3;
    }
    bop_mem_free(block);
    return figures_of(f, (uintptr_t)allocate_here).live_bytes == before.live_bytes ? 0 : 4;
}

TEST(heap_profile, goes_on_in_a_forks_child)
{
    static struct shared shared;
    struct worker workers[THREADS];

    REQUIRE_EQ(bop_heap_profile_start(200), 0);
    start_workers(workers, &shared, 0);
    for (unsigned i = 0; i < FORKS; i++) {
        int status = -1;
        pid_t child = fork();

        if (child == 0) {
            _exit(count_in_child(f));
        }
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK_EQ(status, 0);
    }
    atomic_store(&shared.stop, true);
    join_workers(workers);
    empty_slots(&shared);
}

/* -- Leaks ------------------------------------------------------------------------------------- */

TEST(leak_report, tells_what_is_alive_by_tag_and_by_stack)
{
    struct bop_allocator *tag = bop_tag("test.leaks");
    void *block;

    REQUIRE_EQ(bop_heap_profile_start(16), 0);
    block = allocate_by_tag(tag, 12345);
    bop_heap_profile_stop();
    REQUIRE(block);
    render(f, bop_leak_report_write);
    CHECK_STR_HAS(f->text, "         12345 bytes in          1 allocations  test.leaks\n");
    CHECK_STR_HAS(f->text, "by stack, estimated from one sample in about 16 bytes:\n"
                           "about 12345 bytes in 1 allocations, 1 of them sampled, test.leaks\n"
                           "    allocate_by_tag");
    CHECK_STR_HAS(f->text, "(test_heap_profile)\n");

    bop_free(tag, block, 12345);
    render(f, bop_leak_report_write);
    CHECK_PTR_EQ(strstr(f->text, "test.leaks"), NULL);
}

/* Of blocks of a tenth of the gap one in ten is sampled, and the figures are scaled up. */
TEST(leak_report, estimates_what_was_not_sampled)
{
    uint64_t bytes, count, sampled;
    const char *line;

    REQUIRE_EQ(bop_heap_profile_start((size_t)BLOCK_SIZE * 10), 0);
    allocate_all(f);
    bop_heap_profile_stop();
    render(f, bop_leak_report_write);
    line = strstr(f->text, "about ");
    REQUIRE(line);
    line = strstr(line + 1, "\nabout ");
    REQUIRE(line);
    REQUIRE_EQ(sscanf(line, "\nabout %" SCNu64 " bytes in %" SCNu64 " allocations, %" SCNu64,
                      &bytes, &count, &sampled),
               3);
    /* 32768 * (1 - exp(-0.1)) = 3118; its root is 56. */
    CHECK(sampled > 3118 - 336 && sampled < 3118 + 336);
    CHECK(bytes > 29 << 20 && bytes < 36 << 20);
    CHECK(count > 29000 && count < 36500);
    CHECK_STR_HAS(line, "    allocate_here");
}
