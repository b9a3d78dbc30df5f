/*
 * A heap with a bound, FUZZ_HEAP_MAX, for what a fuzzer lets live: one input may not
 * take more, and must give all of it back.
 */
#ifndef BOP_FUZZ_HEAP_H
#define BOP_FUZZ_HEAP_H

#include <bop/alloc.h>

#include "fuzz_round_trip.h"

static size_t heap_live;

static void *heap_alloc(struct bop_allocator *self, size_t size)
{
    heap_live += size;
    require(heap_live <= FUZZ_HEAP_MAX);
    return malloc(size);
}

static void *heap_realloc(struct bop_allocator *self, void *memory, size_t old_size,
                          size_t new_size)
{
    heap_live = heap_live - old_size + new_size;
    require(heap_live <= FUZZ_HEAP_MAX);
    return realloc(memory, new_size);
}

static void heap_free(struct bop_allocator *self, void *memory, size_t size)
{
    if (memory) {
        heap_live -= size;
        free(memory);
    }
}

static struct bop_allocator heap = {
    .alloc = heap_alloc, .realloc = heap_realloc, .free = heap_free};

#endif
