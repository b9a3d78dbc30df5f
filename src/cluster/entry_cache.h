/*
 * The newest entries of the log in memory: what is sent to peers and applied is
 * nearly always among them, so neither waits for the disk.
 *
 * Entries come in batches; a batch is one block of memory. The oldest blocks go
 * when the bound is passed and the owner says that they may.
 */
#ifndef BOP_CLUSTER_ENTRY_CACHE_H
#define BOP_CLUSTER_ENTRY_CACHE_H

#include <bop/alloc.h>
#include <bop/raft.h>

struct entry_block;

struct entry_cache {
    struct bop_allocator *allocator;
    struct entry_block **blocks; /* A ring, oldest first. */
    size_t capacity;             /* Of the ring; a power of two, or 0. */
    size_t head;                 /* Of the oldest. */
    size_t count;
    size_t bytes;
    size_t bytes_max;
};

void bop__entry_cache_init(struct entry_cache *cache, struct bop_allocator *allocator,
                           size_t bytes_max);
void bop__entry_cache_deinit(struct entry_cache *cache);

/** Add copies; first_index follows the last one, or the cache is empty. 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__entry_cache_append(struct entry_cache *cache, uint64_t first_index,
                                         const struct bop_raft_entry *entries, unsigned count);

/** Drop the entries above last. */
void bop__entry_cache_truncate(struct entry_cache *cache, uint64_t last);

/** Drop all. */
void bop__entry_cache_clear(struct entry_cache *cache);

/** While over the bound, drop oldest blocks whose entries are all at or below `droppable`. */
void bop__entry_cache_trim(struct entry_cache *cache, uint64_t droppable);

/** The entry, borrowed until it is dropped, or NULL. */
const struct bop_raft_entry *bop__entry_cache_get(const struct entry_cache *cache, uint64_t index);

#endif
