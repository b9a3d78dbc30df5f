/*
 * The default allocator: mimalloc where the build found it, else malloc.
 *
 * Builds with a sanitizer always use malloc, which the sanitizers understand.
 */
#include <bop/alloc.h>

#include <string.h>

#ifdef BOP_HAVE_MIMALLOC
#include <mimalloc.h>
#define system_malloc  mi_malloc
#define system_realloc mi_realloc
#define system_free    mi_free
#else
#include <stdlib.h>
#define system_malloc  malloc
#define system_realloc realloc
#define system_free    free
#endif

static void *default_alloc(struct bop_allocator *self, size_t size)
{
    return system_malloc(size);
}

static void *default_realloc(struct bop_allocator *self, void *memory, size_t old_size,
                             size_t new_size)
{
    /* C leaves open what a size of 0 does; some free the block. */
    BOP_ASSERT(new_size > 0);
    return system_realloc(memory, new_size);
}

static void default_free(struct bop_allocator *self, void *memory, size_t size)
{
    system_free(memory);
}

struct bop_allocator *bop_allocator_default(void)
{
    static struct bop_allocator allocator = {
        .alloc = default_alloc,
        .realloc = default_realloc,
        .free = default_free,
    };

    return &allocator;
}

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
