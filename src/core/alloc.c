/*
 * What every allocator gets on top: zeroed blocks and arrays. The default one is
 * in mem/heap.c.
 */
#include <bop/alloc.h>

#include <string.h>

void *bop_alloc_zeroed(struct bop_allocator *allocator, size_t size)
{
    void *memory = bop_alloc(allocator, size);

    if (memory) {
        memset(memory, 0, size);
    }
    return memory;
}

void *bop_alloc_array(struct bop_allocator *allocator, size_t count, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(count, size, &total)) {
        return NULL;
    }
    return bop_alloc_zeroed(allocator, total);
}
