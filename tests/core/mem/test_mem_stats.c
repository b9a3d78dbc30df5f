/*
 * Statistics as text, limits and callbacks, untagged counting, forks, and what
 * happens when the tags run out, which comes last.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bop/mem.h>

#include "tap.h"

static struct bop_tag_stats stats_of(const char *name)
{
    static struct bop_mem_stats stats;

    bop_mem_stats(&stats);
    for (size_t i = 0; i < stats.tag_count; i++) {
        if (strcmp(stats.tags[i].name, name) == 0) {
            return stats.tags[i];
        }
    }
    return (struct bop_tag_stats){.name = "none"};
}

/* -- Limits ------------------------------------------------------------------------------------ */

TEST(tag_limit, refuses_the_byte_too_many)
{
    struct bop_allocator *tag = bop_tag("limit.exact");
    struct bop_allocator *pages = bop_tag_pages("limit.exact");
    void *before = bop_alloc(tag, 400); /* It counts as well. */
    void *a, *b, *none;

    REQUIRE(before);
    bop_tag_limit(tag, 1000);
    a = bop_alloc(tag, 600);
    REQUIRE(a);
    none = bop_alloc(tag, 1);
    CHECK_PTR_EQ(none, NULL);
    none = bop_alloc(pages, 1);
    CHECK_PTR_EQ(none, NULL);
    none = bop_realloc(tag, a, 600, 601);
    CHECK_PTR_EQ(none, NULL);
    CHECK_EQ(stats_of("limit.exact").live_bytes, 1000);
    CHECK_EQ(stats_of("limit.exact").peak_bytes, 1000);
    CHECK_EQ(stats_of("limit.exact").limit_bytes, 1000);
    bop_free(tag, before, 400);
    a = bop_realloc(tag, a, 600, 999);
    REQUIRE(a);
    b = bop_alloc(pages, 1);
    REQUIRE(b);
    none = bop_alloc(tag, 1);
    CHECK_PTR_EQ(none, NULL);
    bop_tag_limit(pages, 0);
    none = bop_alloc(tag, 1);
    CHECK(none);
    bop_free(tag, none, 1);
    bop_free(tag, a, 999);
    bop_free(pages, b, 1);
    CHECK_EQ(stats_of("limit.exact").live_bytes, 0);
}

#define CROWD 4

static atomic_uint crowd_got;

static void *take_all(void *argument)
{
    struct bop_allocator *tag = argument;
    void *blocks[1000];
    int count = 0;

    while (count < 1000 && (blocks[count] = bop_alloc(tag, 100)) != NULL) {
        count++;
    }
    atomic_fetch_add(&crowd_got, (unsigned)count);
    /* What others took is for the main thread to see; so it is all leaked to it by count. */
    for (int i = 0; i < count; i++) {
        bop_free(tag, blocks[i], 100);
    }
    atomic_fetch_sub(&crowd_got, (unsigned)count);
    return NULL;
}

/* Never above, whoever asks at the same time. */
TEST(tag_limit, holds_for_many_threads)
{
    struct bop_allocator *tag = bop_tag("limit.crowd");
    pthread_t threads[CROWD];

    bop_tag_limit(tag, 12345);
    for (int i = 0; i < CROWD; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, take_all, tag), 0);
    }
    for (int i = 0; i < CROWD; i++) {
        REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK_EQ(stats_of("limit.crowd").peak_bytes, 12300);
    CHECK_EQ(stats_of("limit.crowd").live_bytes, 0);
    CHECK_EQ(atomic_load(&crowd_got), 0);
}

/* -- Low memory -------------------------------------------------------------------------------- */

struct low {
    struct bop_allocator *tag;
    unsigned calls;
    size_t live_bytes;
    void *cache; /* Of 500 bytes, to be given up. */
};

static void on_low(void *user, size_t live_bytes)
{
    struct low *low = user;
    void *block;

    low->calls++;
    low->live_bytes = live_bytes;
    bop_free(low->tag, low->cache, 500);
    low->cache = NULL;
    /* Rises above again, which is not told from inside. */
    block = bop_alloc(low->tag, 450);
    bop_free(low->tag, block, 450);
}

TEST(tag_low_memory, is_told_once_a_rise)
{
    struct low low = {.tag = bop_tag("low.rise")};
    void *a, *b;

    bop_tag_on_low_memory(low.tag, 1000, on_low, &low);
    a = bop_alloc(low.tag, 1000);
    REQUIRE(a);
    CHECK_EQ(low.calls, 0);
    b = bop_alloc(low.tag, 1);
    REQUIRE(b);
    CHECK_EQ(low.calls, 1);
    CHECK_EQ(low.live_bytes, 1001);
    bop_free(low.tag, bop_alloc(low.tag, 50), 50);
    CHECK_EQ(low.calls, 1);
    bop_free(low.tag, b, 1);
    b = bop_alloc(low.tag, 2);
    REQUIRE(b);
    CHECK_EQ(low.calls, 2);
    bop_tag_on_low_memory(low.tag, 0, NULL, NULL);
    bop_free(low.tag, b, 2);
    bop_free(low.tag, bop_alloc(low.tag, 5000), 5000);
    CHECK_EQ(low.calls, 2);
    bop_free(low.tag, a, 1000);
    CHECK_EQ(stats_of("low.rise").live_bytes, 0);
}

TEST(tag_low_memory, can_make_room_under_a_limit)
{
    struct low low = {.tag = bop_tag("low.limit")};
    void *a;

    bop_tag_limit(low.tag, 1000);
    bop_tag_on_low_memory(low.tag, SIZE_MAX, on_low, &low);
    low.cache = bop_alloc(low.tag, 500);
    REQUIRE(low.cache);
    a = bop_alloc(low.tag, 900);
    CHECK(a);
    CHECK_EQ(low.calls, 1);
    CHECK_EQ(low.live_bytes, 500);
    CHECK_PTR_EQ(bop_alloc(low.tag, 900), NULL);
    CHECK_EQ(low.calls, 2);
    bop_free(low.tag, a, 900);
    CHECK_EQ(stats_of("low.limit").live_bytes, 0);
    CHECK_EQ(stats_of("low.limit").peak_bytes, 900);
}

/* -- Text -------------------------------------------------------------------------------------- */

static const struct bop_mem_stats example = {
    .resident_bytes = 1000,
    .committed_bytes = 2000,
    .total = {.name = "total",
              .allocations = 9,
              .deallocations = 5,
              .bytes_allocated = 90,
              .bytes_deallocated = 50,
              .live_allocations = 4,
              .live_bytes = 40,
              .peak_bytes = 60},
    .tag_count = 2,
    .tags = {{.name = "store.aof",
              .allocations = 7,
              .deallocations = 3,
              .bytes_allocated = 80,
              .bytes_deallocated = 40,
              .live_allocations = 4,
              .live_bytes = 40,
              .peak_bytes = 50,
              .limit_bytes = 100},
             {.name = "net-x",
              .allocations = 2,
              .deallocations = 2,
              .bytes_allocated = 10,
              .bytes_deallocated = 10,
              .peak_bytes = UINT64_MAX}},
};

TEST(mem_stats, as_a_line)
{
    char line[200];

    bop_mem_stats_line(&example.tags[0], line, sizeof(line));
    CHECK_STR_EQ(line, "store.aof: live 40 bytes in 4 blocks, peak 50 bytes, 7 allocations, "
                       "3 deallocations, leaks");
    bop_mem_stats_line(&example.tags[1], line, 30);
    CHECK_EQ(strlen(line), 29);
    bop_mem_stats_line(&example.tags[1], line, sizeof(line));
    CHECK_STR_HAS(line, ", no leaks");
}

static char *written(int (*write_fn)(const struct bop_mem_stats *stats, FILE *out))
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    REQUIRE(out);
    CHECK_EQ(write_fn(&example, out), 0);
    fclose(out);
    return text;
}

TEST(mem_stats, as_json)
{
    char *text = written(bop_mem_stats_json);

    CHECK_STR_EQ(text,
                 "{\"resident_bytes\":1000,\"committed_bytes\":2000,"
                 "\"total\":{\"allocations\":9,\"deallocations\":5,\"bytes_allocated\":90,"
                 "\"bytes_deallocated\":50,\"live_allocations\":4,\"live_bytes\":40,"
                 "\"peak_bytes\":60,\"limit_bytes\":0},\"tags\":{"
                 "\"store.aof\":{\"allocations\":7,\"deallocations\":3,\"bytes_allocated\":80,"
                 "\"bytes_deallocated\":40,\"live_allocations\":4,\"live_bytes\":40,"
                 "\"peak_bytes\":50,\"limit_bytes\":100},"
                 "\"net-x\":{\"allocations\":2,\"deallocations\":2,\"bytes_allocated\":10,"
                 "\"bytes_deallocated\":10,\"live_allocations\":0,\"live_bytes\":0,"
                 "\"peak_bytes\":18446744073709551615,\"limit_bytes\":0}}}");
    free(text);
}

TEST(mem_stats, for_prometheus)
{
    char *text = written(bop_mem_stats_prometheus);

    CHECK_STR_HAS(text, "# TYPE bop_memory_resident_bytes gauge\nbop_memory_resident_bytes 1000\n");
    CHECK_STR_HAS(text, "# HELP bop_memory_live_bytes Bytes allocated and not freed.\n"
                        "# TYPE bop_memory_live_bytes gauge\n"
                        "bop_memory_live_bytes{tag=\"store.aof\"} 40\n"
                        "bop_memory_live_bytes{tag=\"net-x\"} 0\n");
    CHECK_STR_HAS(text, "bop_memory_peak_bytes{tag=\"store.aof\"} 50\n");
    CHECK_STR_HAS(text, "bop_memory_limit_bytes{tag=\"store.aof\"} 100\n");
    CHECK_STR_HAS(text, "# TYPE bop_memory_allocations_total counter\n");
    CHECK_STR_HAS(text, "bop_memory_allocations_total{tag=\"net-x\"} 2\n");
    CHECK_STR_HAS(text, "bop_memory_deallocations_total{tag=\"store.aof\"} 3\n");
    CHECK_STR_HAS(text, "bop_memory_allocated_bytes_total{tag=\"store.aof\"} 80\n");
    free(text);
}

TEST(mem_stats, report_a_full_disk)
{
    FILE *out = fopen("/dev/full", "w");

    if (!out) {
        TEST_SKIP("no /dev/full");
    }
    CHECK(bop_mem_stats_json(&example, out) < 0);
    CHECK(bop_mem_stats_prometheus(&example, out) < 0);
    fclose(out);
}

TEST(mem_stats, add_up)
{
    static struct bop_mem_stats stats;
    uint64_t live = 0, allocations = 0;
    void *a = bop_alloc(bop_tag("sum.a"), 10);
    void *b = bop_alloc(bop_tag("sum.b"), 20);

    bop_mem_stats(&stats);
    for (size_t i = 0; i < stats.tag_count; i++) {
        live += stats.tags[i].live_bytes;
        allocations += stats.tags[i].allocations;
    }
    CHECK_STR_EQ(stats.total.name, "total");
    CHECK_EQ(stats.total.live_bytes, live);
    CHECK_EQ(stats.total.allocations, allocations);
    CHECK(stats.total.peak_bytes >= live);
    CHECK(stats.resident_bytes > 100000);
    bop_free(bop_tag("sum.a"), a, 10);
    bop_free(bop_tag("sum.b"), b, 20);
}

/* -- fork() ------------------------------------------------------------------------------------ */

struct parked {
    pthread_barrier_t barrier;
    void *block;
};

static void *park(void *argument)
{
    struct parked *parked = argument;

    parked->block = bop_alloc(bop_tag("fork.thread"), 123);
    pthread_barrier_wait(&parked->barrier);
    pthread_barrier_wait(&parked->barrier);
    return NULL;
}

/* What a thread allocated is there in the child, although the thread is not. */
static int check_in_child(void *block)
{
    int wrong = stats_of("fork.thread").live_bytes != 123;

    bop_free(bop_tag("fork.thread"), block, 123);
    wrong |= (stats_of("fork.thread").live_bytes != 0) << 1;
    wrong |= (stats_of("fork.thread").allocations != 1) << 2;
    return wrong;
}

TEST(mem_stats, survive_a_fork)
{
    struct parked parked;
    pthread_t thread;
    int status = -1;
    pid_t child;

    REQUIRE_EQ(pthread_barrier_init(&parked.barrier, NULL, 2), 0);
    REQUIRE_EQ(pthread_create(&thread, NULL, park, &parked), 0);
    pthread_barrier_wait(&parked.barrier);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        _exit(check_in_child(parked.block));
    }
    REQUIRE_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK_EQ(stats_of("fork.thread").live_bytes, 123);
    pthread_barrier_wait(&parked.barrier);
    REQUIRE_EQ(pthread_join(thread, NULL), 0);
    bop_free(bop_tag("fork.thread"), parked.block, 123);
    CHECK_EQ(stats_of("fork.thread").live_bytes, 0);
    pthread_barrier_destroy(&parked.barrier);
}

/* -- Untagged, and out of tags ----------------------------------------------------------------- */

TEST(mem_count_untagged, counts_by_usable_size)
{
    struct bop_tag_stats before, now;
    void *block, *aligned;
    size_t usable;

    bop_mem_count_untagged();
    bop_mem_count_untagged();
    before = stats_of("untagged");
    block = bop_mem_alloc(1000);
    aligned = bop_mem_alloc_aligned(100, 256);
    REQUIRE(block && aligned);
    usable = bop_mem_usable_size(block) + bop_mem_usable_size(aligned);
    now = stats_of("untagged");
    CHECK_EQ(now.allocations - before.allocations, 2);
    CHECK_EQ(now.live_bytes - before.live_bytes, usable);
    block = bop_mem_realloc(block, 5000);
    REQUIRE(block);
    usable = bop_mem_usable_size(block) + bop_mem_usable_size(aligned);
    CHECK_EQ(stats_of("untagged").live_bytes - before.live_bytes, usable);
    bop_mem_free(block);
    bop_mem_free_sized(aligned, 100);
    bop_mem_free(NULL);
    now = stats_of("untagged");
    CHECK_EQ(now.live_bytes, before.live_bytes);
    CHECK_EQ(now.deallocations - before.deallocations, 3);
}

TEST(tag, beyond_the_last_is_other)
{
    static struct bop_mem_stats stats;
    struct bop_allocator *other = bop_tag("other");
    char name[32];
    void *block;

    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "many.%d", i);
        REQUIRE(bop_tag(name));
    }
    bop_mem_stats(&stats);
    CHECK_EQ(stats.tag_count, BOP_TAG_MAX);
    CHECK_PTR_EQ(bop_tag("many.99"), other);
    CHECK_PTR_EQ(bop_tag_pages("many.99"), bop_tag_pages("other"));
    CHECK(bop_tag("many.0") != other);
    CHECK(bop_tag("untagged") != other);
    block = bop_alloc(bop_tag("many.99"), 10);
    CHECK_EQ(stats_of("other").live_bytes, 10);
    bop_free(bop_tag("many.98"), block, 10);
}
