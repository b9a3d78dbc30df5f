/*
 * The memory of one libraft instance. See libraft_heap.h.
 *
 *      block   heap | next | previous | size | the bytes libraft sees
 */
#include "libraft_heap.h"

#include <bop/mem.h>

#include <pthread.h>
#include <raft.h>
#include <stdalign.h>
#include <string.h>

struct libraft_block {
    struct libraft_heap *heap; /* NULL: of a caller that never entered one. */
    struct libraft_block *next;
    struct libraft_block *previous;
    size_t size; /* Of the whole. */
    alignas(max_align_t) char bytes[];
};

static _Thread_local struct libraft_heap *current;

static struct bop_allocator *allocator_of(struct libraft_heap *heap)
{
    return heap ? heap->allocator : bop_tag("raft");
}

static struct libraft_block *block_of(void *memory)
{
    return BOP_CONTAINER_OF(memory, struct libraft_block, bytes);
}

static bool lent(const struct libraft_heap *heap, const void *memory)
{
    uintptr_t at = (uintptr_t)memory;

    for (unsigned i = 0; heap && i < LIBRAFT_LENT_MAX; i++) {
        if (at >= heap->lent[i].begin && at < heap->lent[i].end) {
            return true;
        }
    }
    return false;
}

static void link_block(struct libraft_block *block)
{
    struct libraft_heap *heap = block->heap;

    if (!heap) {
        return;
    }
    block->previous = NULL;
    block->next = heap->blocks;
    if (heap->blocks) {
        heap->blocks->previous = block;
    }
    heap->blocks = block;
}

static void unlink_block(struct libraft_block *block)
{
    if (!block->heap) {
        return;
    }
    if (block->previous) {
        block->previous->next = block->next;
    } else {
        block->heap->blocks = block->next;
    }
    if (block->next) {
        block->next->previous = block->previous;
    }
}

static void *heap_malloc(void *data, size_t size)
{
    struct libraft_heap *heap = current;
    struct libraft_block *block = NULL;

    if (size <= SIZE_MAX - sizeof(*block)) {
        block = bop_alloc(allocator_of(heap), sizeof(*block) + size);
    }
    if (!block) {
        if (heap) {
            heap->failed = true;
        }
        return NULL;
    }
    block->heap = heap;
    block->size = sizeof(*block) + size;
    link_block(block);
    return block->bytes;
}

static void heap_free(void *data, void *memory)
{
    struct libraft_block *block;

    if (!memory || lent(current, memory) || (current && current->failed)) {
        return;
    }
    block = block_of(memory);
    unlink_block(block);
    bop_free(allocator_of(block->heap), block, block->size);
}

static void *heap_calloc(void *data, size_t count, size_t size)
{
    void *memory;

    if (size != 0 && count > SIZE_MAX / size) {
        return NULL;
    }
    memory = heap_malloc(data, count * size);
    return memory ? memset(memory, 0, count * size) : NULL;
}

static void *heap_realloc(void *data, void *memory, size_t size)
{
    void *grown = heap_malloc(data, size);

    if (grown && memory) {
        size_t old = block_of(memory)->size - sizeof(struct libraft_block);

        memcpy(grown, memory, old < size ? old : size);
        heap_free(data, memory);
    }
    return grown;
}

/* Only libraft's disk code aligns, and that is not in use. */
static void *heap_aligned_alloc(void *data, size_t alignment, size_t size)
{
    return alignment <= alignof(max_align_t) ? heap_malloc(data, size) : NULL;
}

static void heap_aligned_free(void *data, size_t alignment, void *memory)
{
    heap_free(data, memory);
}

static void install(void)
{
    static struct raft_heap heap = {
        .malloc = heap_malloc,
        .free = heap_free,
        .calloc = heap_calloc,
        .realloc = heap_realloc,
        .aligned_alloc = heap_aligned_alloc,
        .aligned_free = heap_aligned_free,
    };

    raft_heap_set(&heap);
}

void bop__libraft_heap_install(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    /* Cannot fail: the control is initialized. */
    BOP_IGNORE(pthread_once(&once, install));
}

void bop__libraft_heap_init(struct libraft_heap *heap, struct bop_allocator *allocator)
{
    memset(heap, 0, sizeof(*heap));
    heap->allocator = allocator;
}

size_t bop__libraft_heap_deinit(struct libraft_heap *heap)
{
    struct libraft_block *block = heap->blocks;
    size_t count = 0;

    while (block) {
        struct libraft_block *next = block->next;

        bop_free(heap->allocator, block, block->size);
        block = next;
        count++;
    }
    heap->blocks = NULL;
    return count;
}

void bop__libraft_heap_lend(struct libraft_heap *heap, unsigned slot, const void *begin,
                            size_t size)
{
    BOP_ASSERT(slot < LIBRAFT_LENT_MAX);
    heap->lent[slot].begin = (uintptr_t)begin;
    heap->lent[slot].end = (uintptr_t)begin + size;
}

void bop__libraft_heap_enter(struct libraft_heap *heap)
{
    BOP_ASSERT(!current);
    current = heap;
}

void bop__libraft_heap_leave(struct libraft_heap *heap)
{
    BOP_ASSERT(current == heap);
    current = NULL;
}
