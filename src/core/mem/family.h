/*
 * The part of the malloc family that malloc() itself is made of: one frame, and a
 * call of the rest only for what misses the fast path.
 */
#ifndef BOP_CORE_MEM_FAMILY_H
#define BOP_CORE_MEM_FAMILY_H

#include "check.h"
#include "fast.h"

/* Any size and any block: what bop_mem_alloc() and bop_mem_free() do but for the fast path. */
void *bop__family_alloc_missed(size_t size);
void bop__family_free_missed(void *memory);

/** NULL: bop__family_alloc_missed() is to be called. */
__attribute__((always_inline)) static inline void *bop__family_alloc(size_t size)
{
    void *block = bop__fast_alloc(BOP__FAST_FAMILY, size);

    bop__check_allocated(block, size, BOP__CHECK_FAMILY);
    return block;
}

/** memory may be NULL. */
__attribute__((always_inline)) static inline void bop__family_free(void *memory, size_t size)
{
    if (BOP_LIKELY(memory)) {
        BOP_IGNORE(bop__check_freed(memory, size, BOP__CHECK_FAMILY));
        if (BOP_UNLIKELY(!bop__fast_free(BOP__FAST_FAMILY, memory))) {
            bop__family_free_missed(memory);
        }
    }
}

#endif
