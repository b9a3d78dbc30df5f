/*
 * Blocks for the workloads: malloc() and its kin, or with -DTAGGED the same of
 * one tag of bop/mem.h. Each is written when it is allocated and checked when it
 * is freed, so that an allocator that hands out memory twice fails.
 */
#ifndef BENCH_ALLOCATORS_BLOCKS_H
#define BENCH_ALLOCATORS_BLOCKS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_SIZE_MIN 8 /* Room for the stamp. */

#ifdef TAGGED

#include <bop/mem.h>

extern struct bop_allocator *tag;

static inline void *raw_alloc(size_t size)
{
    return bop_alloc(tag, size);
}

static inline void *raw_realloc(void *memory, size_t old_size, size_t new_size)
{
    return bop_realloc(tag, memory, old_size, new_size);
}

static inline void raw_free(void *memory, size_t size)
{
    bop_free(tag, memory, size);
}

#else

static inline void *raw_alloc(size_t size)
{
    return malloc(size);
}

static inline void *raw_realloc(void *memory, size_t old_size, size_t new_size)
{
    (void)old_size;
    return realloc(memory, new_size);
}

static inline void raw_free(void *memory, size_t size)
{
    (void)size;
    free(memory);
}

#endif

struct block {
    uint8_t *at;
    uint32_t size;
    uint32_t stamp;
};

static inline void die(const char *what)
{
    fprintf(stderr, "bench_alloc: %s\n", what);
    exit(1);
}

static inline void block_stamp(const struct block *block)
{
    *(volatile uint32_t *)(void *)block->at = block->stamp;
    *(volatile uint8_t *)(block->at + block->size - 1) = (uint8_t)block->stamp;
}

static inline void block_check(const struct block *block)
{
    uint32_t stamp = *(volatile uint32_t *)(void *)block->at;
    uint8_t last = *(volatile uint8_t *)(block->at + block->size - 1);

    if (stamp != block->stamp || last != (uint8_t)block->stamp)
        die("a block is not as it was written");
}

static inline struct block block_alloc(uint32_t size, uint32_t stamp)
{
    struct block block = {.at = raw_alloc(size), .size = size, .stamp = stamp};

    if (!block.at)
        die("no memory");
    block_stamp(&block);
    return block;
}

static inline void block_free(struct block *block)
{
    block_check(block);
    raw_free(block->at, block->size);
    block->at = NULL;
}

#endif
