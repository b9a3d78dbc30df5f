/*
 * The allocator interface that is handed to everything that allocates.
 *
 * Sizes are given back on free, so that an implementation can count without
 * headers. Threads: as the implementation says; the default allocator may be
 * used from any thread.
 */
#ifndef BOP_ALLOC_H
#define BOP_ALLOC_H

#include <bop/base.h>

struct bop_allocator {
    /* Return size bytes aligned for any type, or NULL. size is not 0. */
    void *(*alloc)(struct bop_allocator *self, size_t size);
    /* Grow or shrink; memory may be NULL with old_size 0. NULL leaves the old block as it was. */
    void *(*realloc)(struct bop_allocator *self, void *memory, size_t old_size, size_t new_size);
    /* memory may be NULL. size is what it was asked for with. */
    void (*free)(struct bop_allocator *self, void *memory, size_t size);
};

/** The process's allocator: mimalloc where built with it, else malloc. Lives for ever. */
BOP_API struct bop_allocator *bop_allocator_default(void);

/** allocator, or the default one if it is NULL. */
static inline struct bop_allocator *bop_allocator_or_default(struct bop_allocator *allocator)
{
    return allocator ? allocator : bop_allocator_default();
}

BOP_MUST_USE static inline void *bop_alloc(struct bop_allocator *allocator, size_t size)
{
    return allocator->alloc(allocator, size);
}

/** As bop_alloc(), and zeroed. */
BOP_API BOP_MUST_USE void *bop_alloc_zeroed(struct bop_allocator *allocator, size_t size);

/** count * size bytes, zeroed; NULL also if the product overflows. */
BOP_API BOP_MUST_USE void *bop_alloc_array(struct bop_allocator *allocator, size_t count,
                                           size_t size);

BOP_MUST_USE static inline void *bop_realloc(struct bop_allocator *allocator, void *memory,
                                             size_t old_size, size_t new_size)
{
    return allocator->realloc(allocator, memory, old_size, new_size);
}

static inline void bop_free(struct bop_allocator *allocator, void *memory, size_t size)
{
    allocator->free(allocator, memory, size);
}

#endif
