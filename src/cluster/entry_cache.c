/*
 * The newest entries in memory. Lookups remember nothing: a binary search over
 * some hundred blocks is cheaper than keeping a hint right through truncations.
 */
#include "entry_cache.h"

#include <string.h>

struct entry_block {
    uint64_t first;
    size_t size; /* Of this allocation. */
    unsigned count;
    struct bop_raft_entry entries[]; /* Then their data. */
};

void bop__entry_cache_init(struct entry_cache *cache, struct bop_allocator *allocator,
                           size_t bytes_max)
{
    *cache = (struct entry_cache){.allocator = allocator, .bytes_max = bytes_max};
}

void bop__entry_cache_deinit(struct entry_cache *cache)
{
    bop__entry_cache_clear(cache);
    if (cache->blocks) {
        bop_free(cache->allocator, cache->blocks, cache->capacity * sizeof(struct entry_block *));
        cache->blocks = NULL;
        cache->capacity = 0;
    }
}

static struct entry_block **slot(const struct entry_cache *cache, size_t n)
{
    return &cache->blocks[(cache->head + n) & (cache->capacity - 1)];
}

static void drop(struct entry_cache *cache, struct entry_block *block)
{
    cache->bytes -= block->size;
    bop_free(cache->allocator, block, block->size);
}

static void drop_oldest(struct entry_cache *cache)
{
    drop(cache, *slot(cache, 0));
    cache->head = (cache->head + 1) & (cache->capacity - 1);
    cache->count--;
}

void bop__entry_cache_clear(struct entry_cache *cache)
{
    while (cache->count > 0) {
        drop_oldest(cache);
    }
}

static int grow(struct entry_cache *cache)
{
    size_t capacity = cache->capacity ? cache->capacity * 2 : 64;
    struct entry_block **blocks = bop_alloc_array(cache->allocator, capacity,
                                                  sizeof(struct entry_block *));

    if (!blocks) {
        return BOP_ENOMEM;
    }
    for (size_t n = 0; n < cache->count; n++) {
        blocks[n] = *slot(cache, n);
    }
    if (cache->blocks) {
        bop_free(cache->allocator, cache->blocks, cache->capacity * sizeof(struct entry_block *));
    }
    cache->blocks = blocks;
    cache->capacity = capacity;
    cache->head = 0;
    return 0;
}

static uint64_t block_last(const struct entry_block *block)
{
    return block->first + block->count - 1;
}

int bop__entry_cache_append(struct entry_cache *cache, uint64_t first_index,
                            const struct bop_raft_entry *entries, unsigned count)
{
    size_t size = sizeof(struct entry_block) + (size_t)count * sizeof(struct bop_raft_entry);
    struct entry_block *block;
    uint8_t *data;

    BOP_ASSERT(count > 0);
    BOP_ASSERT(cache->count == 0 || block_last(*slot(cache, cache->count - 1)) + 1 == first_index);
    if (cache->count == cache->capacity && grow(cache) < 0) {
        return BOP_ENOMEM;
    }
    for (unsigned n = 0; n < count; n++) {
        size += entries[n].data.size;
    }
    block = bop_alloc(cache->allocator, size);
    if (!block) {
        return BOP_ENOMEM;
    }
    block->first = first_index;
    block->size = size;
    block->count = count;
    data = (uint8_t *)&block->entries[count];
    for (unsigned n = 0; n < count; n++) {
        block->entries[n] = entries[n];
        block->entries[n].data.data = data;
        if (entries[n].data.size > 0) {
            memcpy(data, entries[n].data.data, entries[n].data.size);
        }
        data += entries[n].data.size;
    }
    *slot(cache, cache->count) = block;
    cache->count++;
    cache->bytes += size;
    return 0;
}

void bop__entry_cache_truncate(struct entry_cache *cache, uint64_t last)
{
    while (cache->count > 0) {
        struct entry_block *block = *slot(cache, cache->count - 1);

        if (block_last(block) <= last) {
            return;
        }
        if (block->first <= last) {
            /* The data of the dropped entries goes with the block. */
            block->count = (unsigned)(last - block->first + 1);
            return;
        }
        drop(cache, block);
        cache->count--;
    }
}

void bop__entry_cache_trim(struct entry_cache *cache, uint64_t droppable)
{
    while (cache->bytes > cache->bytes_max && cache->count > 1 &&
           block_last(*slot(cache, 0)) <= droppable) {
        drop_oldest(cache);
    }
}

const struct bop_raft_entry *bop__entry_cache_get(const struct entry_cache *cache, uint64_t index)
{
    size_t low = 0, high = cache->count;

    /* The last block whose first entry is at or below index. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if ((*slot(cache, middle))->first <= index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low > 0) {
        const struct entry_block *block = *slot(cache, low - 1);

        if (index - block->first < block->count) {
            return &block->entries[index - block->first];
        }
    }
    return NULL;
}
