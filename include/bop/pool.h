/*
 * A pool of cells of one size: the fastest way to allocate and free many equal
 * structs.
 *
 * Cells are cut from slabs; a freed cell is the next one handed out. A slab with
 * no cell in use is given back, but for one kept in reserve.
 *
 * Builds with debug_checks abort on a double free, on a pointer that is no cell
 * of the pool, and on destroying a pool with cells in use.
 *
 * Threads: one at a time.
 */
#ifndef BOP_POOL_H
#define BOP_POOL_H

#include <bop/alloc.h>
#include <bop/base.h>

struct bop_pool;

struct bop_pool_options {
    struct bop_allocator *allocator; /* Borrowed until destroy. Default: the tag "core.pool". */
    size_t cell_bytes;               /* Required. */
    size_t alignment;                /* Power of two up to 4096. Default: 16. */
    size_t cells_max;                /* Refuse more. Default: no bound. */
};

/** Returns 0, BOP_EINVAL or BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_pool_create(const struct bop_pool_options *options,
                                         struct bop_pool **out_pool);

/** Frees all cells, in use or not. NULL is fine. */
BOP_API void bop_pool_destroy(struct bop_pool *pool);

/** A cell, its bytes undefined; NULL if there is no memory or the bound is reached. */
BOP_API BOP_MUST_USE void *bop_pool_alloc(struct bop_pool *pool);

/** NULL is fine. */
BOP_API void bop_pool_free(struct bop_pool *pool, void *cell);

struct bop_pool_stats {
    size_t cells_used;
    size_t cells_held;
    size_t held_bytes;
};
BOP_API struct bop_pool_stats bop_pool_stats(const struct bop_pool *pool);

#endif
