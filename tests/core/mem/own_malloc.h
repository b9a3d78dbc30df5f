/*
 * Makes malloc() and its kin of the including program the malloc family, as
 * libbop-malloc does. For builds with mimalloc.
 */
#ifndef BOP_TESTS_OWN_MALLOC_H
#define BOP_TESTS_OWN_MALLOC_H

#include <errno.h>
#include <stdlib.h>

#include <bop/mem.h>

#include "../../../src/core/mem/thread.h"

#ifdef BOP_HAVE_MIMALLOC

void *malloc(size_t size)
{
    return bop_mem_alloc(size);
}

void *calloc(size_t count, size_t size)
{
    return bop_mem_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    return memory || size ? bop_mem_realloc(memory, size) : bop_mem_alloc(0);
}

void free(void *memory)
{
    bop_mem_free(memory);
}

int posix_memalign(void **out_memory, size_t alignment, size_t size)
{
    void *memory = bop_mem_alloc_aligned(size, alignment);

    if (!memory) {
        return ENOMEM;
    }
    *out_memory = memory;
    return 0;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return bop_mem_alloc_aligned(size, alignment);
}

__attribute__((constructor)) static void own_malloc(void)
{
    bop__heap_own_malloc();
}

#endif

#endif
