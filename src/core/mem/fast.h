/*
 * The fast path of the heap: a small block from the thread's own pages, and back.
 *
 * A call into libmimalloc, with the door's two stores and the test of the gate
 * around it, costs more than what is done there when a page has a free block. So
 * that much of mimalloc 2.0.9 is done here, on its own books; everything else is
 * a miss, which the caller takes through the door and mi_malloc() or mi_free().
 *
 *      heap       for each size in words the page to take it from, or one that
 *                 is always empty; and queues of pages by size
 *      page       a list of free blocks; another of blocks freed by the owner,
 *                 which mimalloc joins to the first when that is empty
 *      segment    32 MiB, aligned: whose it is, and pages by slices of 64 KiB
 *
 * The gate costs no test here: a door that is shut has a heap whose pages are all
 * empty, and the identity of a thread that owns no segment. What was assumed is
 * tried by bop__fast_init() on the library that is really there; if it is not as
 * expected, all doors stay shut and every call is a miss.
 *
 * There is one thing that mimalloc would not do. It keeps a page that has become
 * empty, if it is the only one of its size, for some more calls, and frees it
 * then; here it stays until the heap is collected, as counting these calls is
 * what made a block that comes and goes slow. At most a page a size is kept so,
 * and the purger collects it.
 */
#ifndef BOP_CORE_MEM_FAST_H
#define BOP_CORE_MEM_FAST_H

#include "thread.h"

#define BOP__FAST_SIZE_MIN 16   /* Smaller ones are raised to it. */
#define BOP__FAST_SIZE_MAX 1024 /* Of blocks that a heap finds the page of by their size. */
#define BOP__FAST_MEDIUM_MAX                                                                       \
    8192 /* Of those that are worth a look at the queue of pages of their size. */

#ifdef BOP_HAVE_MIMALLOC

#define BOP__FAST_SEGMENT_SIZE ((uintptr_t)32 << 20)
#define BOP__FAST_SLICE_SHIFT  16
#define BOP__FAST_QUEUES       75
#define BOP__FAST_WORDS        (BOP__FAST_SIZE_MAX / sizeof(void *) + 1)

/* As mimalloc 2.0.9 has it. */
struct bop__fast_page {
    uint32_t slice_count;
    uint32_t slice_offset; /* Of a slice within a page: bytes back to the page's first. */
    uint8_t commit_flags;
    uint16_t capacity;
    uint16_t reserved;
    uint8_t flags; /* Not 0: full, or with blocks that do not start where they seem to. */
    uint8_t retire_flags;
    void *free;
    uint32_t used;
    uint32_t block_size;
    void *local_free;
    uintptr_t foreign_free;
    uintptr_t heap;
    struct bop__fast_page *next; /* Of the same size. */
    struct bop__fast_page *previous;
    void *padding;
};

struct bop__fast_queue {
    struct bop__fast_page *first; /* NULL: none. */
    struct bop__fast_page *last;
    size_t block_size;
};

struct bop__fast_heap {
    void *thread_data;
    struct bop__fast_page *pages[BOP__FAST_WORDS];
    struct bop__fast_queue queues[BOP__FAST_QUEUES];
};

struct bop__fast_segment {
    uint8_t other[256];
    _Atomic uintptr_t thread_id; /* Of the owner. */
    struct bop__fast_page slices[];
};

_Static_assert(sizeof(void *) != 8 || (sizeof(struct bop__fast_page) == 80 &&
                                       offsetof(struct bop__fast_page, free) == 16 &&
                                       offsetof(struct bop__fast_page, heap) == 48),
               "a page's books are not as mimalloc has them");

/* The heap of a door that is shut. */
extern struct bop__fast_heap bop__fast_shut;

static inline struct bop__fast_segment *bop__fast_segment_of(uintptr_t block)
{
    return (struct bop__fast_segment *)((block - 1) & ~(BOP__FAST_SEGMENT_SIZE - 1));
}

static inline struct bop__fast_page *bop__fast_page_of(struct bop__fast_segment *segment,
                                                       uintptr_t block)
{
    struct bop__fast_page *slice =
        &segment->slices[(block - (uintptr_t)segment) >> BOP__FAST_SLICE_SHIFT];

    return (struct bop__fast_page *)((uintptr_t)slice - slice->slice_offset);
}

/* Where in a heap the page for blocks of `below` + 1 bytes is. All but the first two of its sizes
 * are whole pairs of words, so blocks are aligned to 16. */
static inline size_t bop__fast_word(size_t below)
{
    return (below / 16 + 1) * 2;
}

/* Is the page the only one of a size that a heap keeps pages for? */
static inline bool bop__fast_may_be_empty(const struct bop__fast_page *page)
{
    return !page->next && !page->previous && page->block_size <= BOP__FAST_SIZE_MAX;
}

/** NULL if the block is to be had the usual way. */
__attribute__((always_inline)) static inline void *bop__fast_alloc(enum bop__fast_face face,
                                                                   size_t size)
{
    struct bop__mem_door *door = &bop__mem_own_door;
    size_t below = size - 1; /* Of size 0 it is the most. */
    struct bop__fast_page *page;
    struct bop__fast_heap *heap;
    void **block;

    if (BOP_UNLIKELY(below >= BOP__FAST_SIZE_MAX)) {
        return NULL;
    }
    atomic_store_explicit(&door->busy, BOP__MEM_INSIDE, memory_order_relaxed);
    /* As in bop__mem_enter(), with the heap for a gate. */
    atomic_signal_fence(memory_order_seq_cst);
    heap = atomic_load_explicit(&door->heaps[face], memory_order_acquire);
    page = heap->pages[bop__fast_word(below)];
    block = page->free;
    if (BOP_LIKELY(block)) {
        page->free = *block;
        page->used++;
    }
    bop__mem_leave(door);
    return block;
}

/* The queue for blocks of `below` + 1 bytes, more than the small ones: four sizes between a power
 * of two and the next. */
static inline size_t bop__fast_queue(size_t below)
{
    size_t word = below / sizeof(void *);
    unsigned log = 63u - (unsigned)__builtin_clzll(word);

    return log * 4 + (word >> (log - 2) & 3) - 3;
}

/** The same for any size above BOP__FAST_SIZE_MAX, where mimalloc has no such path. */
__attribute__((always_inline)) static inline void *bop__fast_alloc_medium(enum bop__fast_face face,
                                                                          size_t size)
{
    struct bop__mem_door *door = &bop__mem_own_door;
    struct bop__fast_page *page;
    struct bop__fast_heap *heap;
    void **block = NULL;

    if (size - BOP__FAST_SIZE_MAX - 1 >= BOP__FAST_MEDIUM_MAX - BOP__FAST_SIZE_MAX) {
        return NULL;
    }
    atomic_store_explicit(&door->busy, BOP__MEM_INSIDE, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    heap = atomic_load_explicit(&door->heaps[face], memory_order_acquire);
    page = heap->queues[bop__fast_queue(size - 1)].first;
    if (page && page->free) {
        block = page->free;
        page->free = *block;
        page->used++;
    }
    bop__mem_leave(door);
    return block;
}

/** False if the block, which is not NULL, is to be freed the usual way. */
__attribute__((always_inline)) static inline bool bop__fast_free(enum bop__fast_face face,
                                                                 void *block)
{
    struct bop__mem_door *door = &bop__mem_own_door;
    /* Whose they are may change at any time, which they are may not while the block lives. */
    struct bop__fast_segment *segment = bop__fast_segment_of((uintptr_t)block);
    struct bop__fast_page *page = bop__fast_page_of(segment, (uintptr_t)block);
    uintptr_t owner = atomic_load_explicit(&segment->thread_id, memory_order_relaxed);
    bool done = false;

    atomic_store_explicit(&door->busy, BOP__MEM_INSIDE, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    if (BOP_LIKELY(owner == atomic_load_explicit(&door->owners[face], memory_order_acquire)) &&
        BOP_LIKELY(page->flags == 0)) {
        uint32_t used = page->used - 1;

        if (BOP_LIKELY(used != 0) || bop__fast_may_be_empty(page)) {
            *(void **)block = page->local_free;
            page->local_free = block;
            page->used = used;
            done = true;
        }
    }
    bop__mem_leave(door);
    return done;
}

#else

static inline void *bop__fast_alloc(enum bop__fast_face face, size_t size)
{
    return NULL;
}

static inline void *bop__fast_alloc_medium(enum bop__fast_face face, size_t size)
{
    return NULL;
}

static inline bool bop__fast_free(enum bop__fast_face face, void *block)
{
    return false;
}

#endif

/* -- Doors ------------------------------------------------------------------------------------- */

/* Is mimalloc as it is assumed to be? Once, before the first door is opened. May allocate. */
void bop__fast_init(void);

/* Note what the doors of the calling thread open to. The record is nobody else's yet. */
void bop__fast_thread_init(struct bop__mem_thread *thread);

/* Open or shut the thread's door as its gate says. Under bop__mem_lock. */
void bop__fast_update(struct bop__mem_thread *thread);

#endif
