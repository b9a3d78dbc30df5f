/*
 * The malloc family.
 *
 * Small blocks come and go by fast.h. What misses there goes through the door
 * while nothing is up in the gate, and there is one slow path by operation for
 * everything else: the thread's first call, counting under "untagged", the purger
 * at work.
 */
#include <bop/mem.h>

#include "check.h"
#include "family.h"
#include "fast.h"
#include "purge.h"
#include "raw.h"
#include "sample.h"
#include "tag.h"

static bool size_is_valid(size_t size, size_t alignment)
{
    return size <= BOP__RAW_SIZE_MAX && alignment && !(alignment & (alignment - 1)) &&
           alignment <= BOP__RAW_SIZE_MAX - size;
}

/* -- Slow paths -------------------------------------------------------------------------------- */

static struct bop__tag *counted_tag(const struct bop__mem_thread *self)
{
    if (!(atomic_load_explicit(&self->door->gate, memory_order_relaxed) & BOP__GATE_COUNT)) {
        return NULL;
    }
    return atomic_load_explicit(&bop__tag_untagged, memory_order_acquire);
}

BOP__ALLOCATES __attribute__((noinline)) static void *alloc_slow(size_t size, size_t alignment,
                                                                 bool zero)
{
    struct bop__mem_thread *self = bop__mem_enter_slow();
    void *block = bop__raw_alloc(bop__mem_foreign, bop__raw_size(size), alignment, zero);
    struct bop__tag *tag = counted_tag(self);
    size_t counted = block && tag ? bop__raw_usable_size(bop__mem_foreign, block) : 0;

    bop__mem_leave(self->door);
    bop__purge_count(&bop__mem_own_door);
    if (block && tag) {
        bop__tag_count_alloc(self, tag, counted);
    }
    bop__check_allocated(block, size, BOP__CHECK_FAMILY);
    bop__sample_allocated(block, size, BOP__SAMPLE_UNTAGGED);
    return block;
}

__attribute__((noinline)) static void free_slow(void *block)
{
    struct bop__mem_thread *self;

    bop__sample_freed(block);
    self = bop__mem_enter_slow();
    struct bop__tag *tag = counted_tag(self);
    size_t counted = tag ? bop__raw_usable_size(bop__mem_foreign, block) : 0;

    bop__raw_free(bop__mem_foreign, block);
    bop__mem_leave(self->door);
    if (tag) {
        bop__tag_count_free(self, tag, counted);
    }
}

/* With the checks done by the caller. */
BOP__ALLOCATES __attribute__((noinline)) static void *realloc_slow(void *block, size_t size,
                                                                   size_t alignment)
{
    size_t old_usable = bop_mem_usable_size(block);
    struct bop__mem_thread *self;
    struct bop__tag *tag;
    size_t old_counted, counted;
    void *moved;

    bop__sample_freed(block);
    self = bop__mem_enter_slow();
    tag = counted_tag(self);
    old_counted = tag && block ? old_usable : 0;
    moved = bop__raw_realloc(bop__mem_foreign, block, bop__raw_size(size), alignment);
    counted = tag && moved ? bop__raw_usable_size(bop__mem_foreign, moved) : 0;
    bop__mem_leave(self->door);
    bop__purge_count(&bop__mem_own_door);
    bop__sample_allocated(moved ? moved : block, moved ? size : old_usable, BOP__SAMPLE_UNTAGGED);
    if (tag && moved) {
        if (block) {
            bop__tag_count_free(self, tag, old_counted);
        }
        bop__tag_count_alloc(self, tag, counted);
    }
    return moved;
}

/* -- The family -------------------------------------------------------------------------------- */

/* Inlined with constants, but for the size. */
BOP__ALLOCATES __attribute__((always_inline)) static inline void *alloc(size_t size,
                                                                        size_t alignment, bool zero)
{
    void *block;

    if (!bop__mem_enter(&bop__mem_own_door, BOP__GATE_FAMILY)) {
        return alloc_slow(size, alignment, zero);
    }
    block = bop__raw_alloc(false, bop__raw_size(size), alignment, zero);
    bop__mem_leave(&bop__mem_own_door);
    bop__purge_count(&bop__mem_own_door);
    bop__check_allocated(block, size, BOP__CHECK_FAMILY);
    return block;
}

BOP__ALLOCATES void *bop__family_alloc_missed(size_t size)
{
    void *block = bop__fast_alloc_medium(BOP__FAST_FAMILY, size);

    if (block) {
        bop__check_allocated(block, size, BOP__CHECK_FAMILY);
        return block;
    }
    return BOP_UNLIKELY(size > BOP__RAW_SIZE_MAX) ? NULL : alloc(size, BOP__RAW_ALIGNMENT, false);
}

BOP__ALLOCATES void *bop_mem_alloc(size_t size)
{
    void *block = bop__family_alloc(size);

    return BOP_LIKELY(block) ? block : bop__family_alloc_missed(size);
}

BOP__ALLOCATES void *bop_mem_zalloc(size_t size)
{
    if (BOP_UNLIKELY(size > BOP__RAW_SIZE_MAX)) {
        return NULL;
    }
    return alloc(size, BOP__RAW_ALIGNMENT, true);
}

BOP__ALLOCATES void *bop_mem_calloc(size_t count, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(count, size, &total) || total > BOP__RAW_SIZE_MAX) {
        return NULL;
    }
    return alloc(total, BOP__RAW_ALIGNMENT, true);
}

BOP__ALLOCATES void *bop_mem_alloc_aligned(size_t size, size_t alignment)
{
    return size_is_valid(size, alignment) ? alloc(size, alignment, false) : NULL;
}

BOP__ALLOCATES void *bop_mem_zalloc_aligned(size_t size, size_t alignment)
{
    return size_is_valid(size, alignment) ? alloc(size, alignment, true) : NULL;
}

BOP__ALLOCATES __attribute__((always_inline)) static inline void *resize(void *block, size_t size,
                                                                         size_t alignment)
{
    size_t old_size;
    void *moved;

    old_size = bop__check_freed(block, BOP__CHECK_ANY_SIZE, BOP__CHECK_FAMILY);
    if (bop__mem_enter(&bop__mem_own_door, BOP__GATE_FAMILY)) {
        moved = bop__raw_realloc(false, block, bop__raw_size(size), alignment);
        bop__mem_leave(&bop__mem_own_door);
        bop__purge_count(&bop__mem_own_door);
    } else {
        moved = realloc_slow(block, size, alignment);
    }
    if (BOP_LIKELY(moved)) {
        bop__check_allocated(moved, size, BOP__CHECK_FAMILY);
    } else {
        bop__check_allocated(block, old_size, BOP__CHECK_FAMILY);
    }
    return moved;
}

BOP__ALLOCATES void *bop_mem_realloc(void *memory, size_t size)
{
    if (size == 0) {
        bop_mem_free(memory);
        return NULL;
    }
    if (BOP_UNLIKELY(size > BOP__RAW_SIZE_MAX)) {
        return NULL;
    }
    return resize(memory, size, BOP__RAW_ALIGNMENT);
}

BOP__ALLOCATES void *bop_mem_realloc_aligned(void *memory, size_t size, size_t alignment)
{
    if (size == 0) {
        bop_mem_free(memory);
        return NULL;
    }
    return size_is_valid(size, alignment) ? resize(memory, size, alignment) : NULL;
}

/* Not inlined, to leave the fast path without a frame. */
__attribute__((noinline)) void bop__family_free_missed(void *memory)
{
    if (bop__mem_enter(&bop__mem_own_door, BOP__GATE_FAMILY)) {
        bop__raw_free(false, memory);
        bop__mem_leave(&bop__mem_own_door);
    } else {
        free_slow(memory);
    }
}

void bop_mem_free(void *memory)
{
    bop__family_free(memory, BOP__CHECK_ANY_SIZE);
}

void bop_mem_free_sized(void *memory, size_t size)
{
    bop__family_free(memory, size);
}

size_t bop_mem_usable_size(const void *memory)
{
    /* Reads what does not change while the block lives: no lock. */
    return memory ? bop__raw_usable_size(bop__mem_foreign, memory) : 0;
}

/* -- The default allocator: the family, untagged ----------------------------------------------- */

BOP__ALLOCATES static void *default_alloc(struct bop_allocator *self, size_t size)
{
    return bop_mem_alloc(size);
}

BOP__ALLOCATES static void *default_realloc(struct bop_allocator *self, void *memory,
                                            size_t old_size, size_t new_size)
{
    /* A size of 0 would free the block. */
    BOP_ASSERT(new_size > 0);
    return bop_mem_realloc(memory, new_size);
}

static void default_free(struct bop_allocator *self, void *memory, size_t size)
{
    bop_mem_free_sized(memory, size);
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
