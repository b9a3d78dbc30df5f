/*
 * Opening and shutting the fast path, and whether there can be one.
 */
#include "fast.h"

#ifdef BOP_HAVE_MIMALLOC

#include <mimalloc.h>

#include "collect.h"

#define PROBE_MEDIUM                                                                               \
    1280 /* A size of blocks by itself, with several in what is first made of a page. */

/* Its own words are of no use to anybody: nothing is taken from it, and nothing put. */
static struct bop__fast_page no_page;

__extension__ struct bop__fast_heap bop__fast_shut = {
    .pages = {[0 ... BOP__FAST_WORDS - 1] = &no_page},
};

static bool is_known;

static struct bop__fast_page *page_for(const struct bop__fast_heap *heap, size_t size)
{
    return size <= BOP__FAST_SIZE_MAX ? heap->pages[bop__fast_word(size - 1)]
                                      : heap->queues[bop__fast_queue(size - 1)].first;
}

/* With one block of this size allocated: does the next come from where it is thought to, and go
 * back there? */
static bool probe_second(const struct bop__fast_heap *heap, const void *first, size_t size)
{
    struct bop__fast_page *page = page_for(heap, size);
    void **block, **expected, *next, *local;
    uint32_t used;
    bool same;

    if (bop__fast_page_of(bop__fast_segment_of((uintptr_t)first), (uintptr_t)first) != page ||
        !page->free) {
        return false;
    }
    expected = page->free;
    next = *expected;
    used = page->used;
    block = mi_malloc(size);
    local = page->local_free;
    same = block == expected && page->free == next && page->used == used + 1 &&
           page->block_size == size && page->heap == (uintptr_t)heap && page->flags == 0 &&
           !page->next && !page->previous;
    mi_free(block);
    return same && page->local_free == block && *block == local && page->used == used;
}

static bool probe(size_t size)
{
    const struct bop__fast_heap *heap = (const void *)mi_heap_get_backing();
    void *first = mi_malloc(size);
    bool same = first && probe_second(heap, first, size);

    mi_free(first);
    return same;
}

void bop__fast_init(void)
{
    is_known = !bop__mem_foreign && bop__collect_is_for_others() && probe(BOP__FAST_SIZE_MIN) &&
               probe(BOP__FAST_SIZE_MAX) && probe(PROBE_MEDIUM);
}

void bop__fast_thread_init(struct bop__mem_thread *thread)
{
    void *block = is_known ? mi_malloc(BOP__FAST_SIZE_MIN) : NULL;

    if (block) {
        thread->fast_heap = (struct bop__fast_heap *)mi_heap_get_backing();
        thread->fast_owner = atomic_load_explicit(
            &bop__fast_segment_of((uintptr_t)block)->thread_id, memory_order_relaxed);
        mi_free(block);
    }
}

static void update_face(struct bop__mem_thread *thread, enum bop__fast_face face, unsigned mask)
{
    struct bop__mem_door *door = thread->door;
    bool opens = thread->fast_heap &&
                 !(atomic_load_explicit(&door->gate, memory_order_relaxed) & mask);

    /* Release: what was done to the heap comes before the owner's next look. */
    atomic_store_explicit(&door->heaps[face], opens ? thread->fast_heap : &bop__fast_shut,
                          memory_order_release);
    atomic_store_explicit(&door->owners[face], opens ? thread->fast_owner : BOP__FAST_NOBODY,
                          memory_order_release);
}

void bop__fast_update(struct bop__mem_thread *thread)
{
    update_face(thread, BOP__FAST_FAMILY, BOP__GATE_FAMILY);
    update_face(thread, BOP__FAST_TAGS, BOP__GATE_ALL);
}

#else

void bop__fast_init(void)
{
}

void bop__fast_thread_init(struct bop__mem_thread *thread)
{
}

void bop__fast_update(struct bop__mem_thread *thread)
{
}

#endif
