/*
 * Where memory goes: tags, a limit, what to do when it is near, statistics, and leaks.
 *
 *     memory [ITEMS [leak]]
 *
 * A cache takes ITEMS values (100000) of all sizes under a limit of 1 MiB, and drops its oldest
 * ones when it is told that memory is low. At the end it says what each tag held. With "leak" one
 * value is forgotten, and the report at exit names its tag.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/heap_profile.h>
#include <bop/mem.h>

#define CACHE_BYTES_MAX (1024 * 1024)
#define CACHE_BYTES_LOW (CACHE_BYTES_MAX / 8 * 7)
#define VALUE_BYTES_MAX 4096
#define SLOTS           4096

struct value {
    size_t size;
    char *bytes;
};

/* A ring of values: the oldest is at first, count of them are there. */
struct cache {
    struct bop_allocator *values;
    struct bop_allocator *index;
    struct value *slots;
    size_t first;
    size_t count;
    uint64_t dropped;
};

static void drop_oldest(struct cache *cache)
{
    struct value *value = &cache->slots[cache->first];

    bop_free(cache->values, value->bytes, value->size);
    cache->first = (cache->first + 1) % SLOTS;
    cache->count--;
    cache->dropped++;
}

/* On the thread that is about to allocate: what is freed here is there for it. */
static void on_low_memory(void *user, BOP_UNUSED size_t live_bytes)
{
    struct cache *cache = user;
    size_t half = cache->count / 2;

    for (size_t n = 0; n < half; n++) {
        drop_oldest(cache);
    }
}

static int cache_open(struct cache *cache)
{
    *cache = (struct cache){.values = bop_tag("cache.values"), .index = bop_tag("cache.index")};
    cache->slots = bop_alloc_array(cache->index, SLOTS, sizeof(*cache->slots));
    if (!cache->slots) {
        return -ENOMEM;
    }
    bop_tag_limit(cache->values, CACHE_BYTES_MAX);
    bop_tag_on_low_memory(cache->values, CACHE_BYTES_LOW, on_low_memory, cache);
    return 0;
}

static void cache_close(struct cache *cache)
{
    while (cache->count > 0) {
        drop_oldest(cache);
    }
    bop_tag_on_low_memory(cache->values, 0, NULL, NULL);
    bop_free(cache->index, cache->slots, SLOTS * sizeof(*cache->slots));
}

/* Returns 0, or -ENOMEM: the limit holds though everything that can go has gone. */
static int cache_put(struct cache *cache, size_t size)
{
    struct value value = {.size = size};

    if (cache->count == SLOTS) {
        drop_oldest(cache);
    }
    value.bytes = bop_alloc(cache->values, size);
    if (!value.bytes) {
        return -ENOMEM;
    }
    memset(value.bytes, 'v', size);
    cache->slots[(cache->first + cache->count++) % SLOTS] = value;
    return 0;
}

static void print_tags(void)
{
    static struct bop_mem_stats stats; /* Some 8 KiB: not for a small stack. */
    char line[256];

    bop_mem_stats(&stats);
    for (size_t n = 0; n < stats.tag_count; n++) {
        const struct bop_tag_stats *tag = &stats.tags[n];

        if (tag->allocations > 0) {
            bop_mem_stats_line(tag, line, sizeof(line));
            printf("%s\n  average %" PRIu64 " bytes\n", line,
                   tag->bytes_allocated / tag->allocations);
        }
    }
}

int main(int argc, char **argv)
{
    unsigned long items = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
    bool leak = argc > 2 && strcmp(argv[2], "leak") == 0;
    struct cache cache;
    uint64_t refused = 0;

    bop_leak_report_at_exit();
    if (cache_open(&cache) < 0) {
        fprintf(stderr, "memory: no memory for the cache's index\n");
        return 1;
    }
    for (unsigned long n = 0; n < items; n++) {
        /* Sizes of all kinds, the same in each run. */
        refused += cache_put(&cache, 1 + n * 2654435761u % VALUE_BYTES_MAX) < 0;
    }
    if (leak && cache.count > 0) {
        cache.count--; /* Forgotten, so never freed. */
    }
    printf("%lu put, %" PRIu64 " refused, %" PRIu64 " dropped, %zu kept\n", items, refused,
           cache.dropped, cache.count);
    print_tags();
    cache_close(&cache);
    return 0;
}
