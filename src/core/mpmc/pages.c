/*
 * An allocator over mmap(2).
 */
#include "pages.h"

#include <sys/mman.h>

static void *pages_alloc(struct bop_allocator *self, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static void *pages_realloc(struct bop_allocator *self, void *memory, size_t old_size,
                           size_t new_size)
{
    void *moved;

    if (!memory) {
        return pages_alloc(self, new_size);
    }
    moved = mremap(memory, old_size, new_size, MREMAP_MAYMOVE);
    return moved == MAP_FAILED ? NULL : moved;
}

static void pages_free(struct bop_allocator *self, void *memory, size_t size)
{
    if (memory) {
        munmap(memory, size);
    }
}

struct bop_allocator *bop__mpmc_pages(void)
{
    static struct bop_allocator pages = {
        .alloc = pages_alloc, .realloc = pages_realloc, .free = pages_free};

    return &pages;
}
