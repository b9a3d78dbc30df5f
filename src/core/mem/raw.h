/*
 * The heap underneath: mimalloc or the C library's malloc, by one set of names.
 *
 * `foreign` picks malloc() in a build with mimalloc too; where it is a constant
 * nothing of it is left. Alignments are powers of two, and sizes are checked.
 */
#ifndef BOP_CORE_MEM_RAW_H
#define BOP_CORE_MEM_RAW_H

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <bop/base.h>

#ifdef BOP_HAVE_MIMALLOC
#include <mimalloc.h>
#endif

#define BOP__RAW_ALIGNMENT 16 /* Of all blocks, small ones too. */

/* The sanitizers, which have their own malloc, abort beyond 1 TiB rather than refuse. */
#ifdef BOP_HAVE_MIMALLOC
#define BOP__RAW_SIZE_MAX PTRDIFF_MAX
#else
#define BOP__RAW_SIZE_MAX (PTRDIFF_MAX < INT64_MAX ? PTRDIFF_MAX : PTRDIFF_MAX >> 24)
#endif

/* Blocks of up to 8 bytes are aligned to 8 by mimalloc. */
static inline size_t bop__raw_size(size_t size)
{
    return size < BOP__RAW_ALIGNMENT ? BOP__RAW_ALIGNMENT : size;
}

static inline void *bop__libc_alloc(size_t size, size_t alignment, bool zero)
{
    void *block = NULL;

    if (alignment <= BOP__RAW_ALIGNMENT) {
        return zero ? calloc(1, size) : malloc(size);
    }
    if (posix_memalign(&block, alignment, size) != 0) {
        return NULL;
    }
    return zero ? memset(block, 0, size) : block;
}

/* realloc() keeps no alignment, so the block moves unless it happens to fit. */
static inline void *bop__libc_realloc(void *block, size_t size, size_t alignment)
{
    size_t usable;
    void *moved;

    if (alignment <= BOP__RAW_ALIGNMENT) {
        return realloc(block, size);
    }
    usable = block ? malloc_usable_size(block) : 0;
    moved = bop__libc_alloc(size, alignment, false);
    if (moved && block) {
        memcpy(moved, block, usable < size ? usable : size);
        free(block);
    }
    return moved;
}

#ifdef BOP_HAVE_MIMALLOC

static inline void *bop__raw_alloc(bool foreign, size_t size, size_t alignment, bool zero)
{
    if (foreign) {
        return bop__libc_alloc(size, alignment, zero);
    }
    if (alignment <= BOP__RAW_ALIGNMENT) {
        return zero ? mi_zalloc(size) : mi_malloc(size);
    }
    /* Not mi_malloc_aligned(): that of 2.0.9 takes blocks of 256, 512 and 1024 bytes for aligned to
     * their size, but pages of them start at an offset of 384. */
    return zero ? mi_zalloc_aligned_at(size, alignment, 0)
                : mi_malloc_aligned_at(size, alignment, 0);
}

static inline void *bop__raw_realloc(bool foreign, void *block, size_t size, size_t alignment)
{
    if (foreign) {
        return bop__libc_realloc(block, size, alignment);
    }
    return alignment <= BOP__RAW_ALIGNMENT ? mi_realloc(block, size)
                                           : mi_realloc_aligned_at(block, size, alignment, 0);
}

static inline void bop__raw_free(bool foreign, void *block)
{
    if (foreign) {
        free(block);
    } else {
        mi_free(block);
    }
}

static inline size_t bop__raw_usable_size(bool foreign, const void *block)
{
    return foreign ? malloc_usable_size((void *)(uintptr_t)block) : mi_usable_size(block);
}

#else

static inline void *bop__raw_alloc(bool foreign, size_t size, size_t alignment, bool zero)
{
    return bop__libc_alloc(size, alignment, zero);
}

static inline void *bop__raw_realloc(bool foreign, void *block, size_t size, size_t alignment)
{
    return bop__libc_realloc(block, size, alignment);
}

static inline void bop__raw_free(bool foreign, void *block)
{
    free(block);
}

static inline size_t bop__raw_usable_size(bool foreign, const void *block)
{
    return malloc_usable_size((void *)(uintptr_t)block);
}

#endif

#endif
