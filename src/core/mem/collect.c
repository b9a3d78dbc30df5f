/*
 * mimalloc 2.0.9 has a thread return memory only when it allocates or frees, and
 * keeps a segment of 32 MiB resident as long as one page of it is in use. Both
 * are made up for here.
 *
 * mi_heap_collect() takes the heap as an argument, and everything it reaches
 * from there is the heap's: page queues, span queues, the delayed frees of other
 * threads. That it is called by the owner is asserted in debug builds and used in
 * one place alone: a forced collect on the main thread also adopts the segments
 * of exited threads, in the name of the calling thread. Hence another thread's
 * heap is never collected with force.
 *
 * After it, each page in use is visited, and what lies in the segments around
 * the pages is free. mimalloc keeps nothing in free memory, its books being in
 * the segment's header, and reads of memory it takes from there nothing that it
 * has not written, or zeros where it has never been used: that it is emptied
 * behind its back makes no difference to it.
 */
#include "collect.h"

#ifdef BOP_HAVE_MIMALLOC

#include <mimalloc.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "thread.h"

/* What is known of the layout holds for this version. */
#define KNOWN_VERSION 209

#define SEGMENT_SIZE      ((size_t)32 << 20)
#define SLICE_SIZE        ((size_t)64 << 10)
#define SEGMENT_SLICES    (SEGMENT_SIZE / SLICE_SIZE)
#define HEADER_SLICES     4 /* The header takes one; nothing is lost by keeping off. */
#define LARGE_OBJECT_MAX  (SEGMENT_SIZE / 2) /* Beyond, a block has a segment of its own. */
#define PAGE_START_OFFSET 384                /* Of the blocks in pages of small ones. */

#define TABLE_SLOTS 64 /* To begin with. */

_Static_assert(sizeof(void *) == 8, "the sizes are those of 64-bit machines");

/* The slices of a segment that are in use. */
struct segment {
    uintptr_t address; /* 0: an empty slot of the table. */
    uint64_t used[SEGMENT_SLICES / 64];
};

/* By address, open addressing, in pages of its own. */
struct table {
    struct segment *slots;
    size_t capacity;
    size_t count;
    bool failed; /* No memory, or an unknown layout: return nothing. */
};

bool bop__collect_is_for_others(void)
{
    return MI_MALLOC_VERSION == KNOWN_VERSION && mi_version() == KNOWN_VERSION;
}

void *bop__collect_heap(void)
{
    return mi_heap_get_default();
}

static bool table_alloc(struct table *table, size_t capacity)
{
    void *slots = mmap(NULL, capacity * sizeof(struct segment), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    *table = (struct table){.slots = slots == MAP_FAILED ? NULL : slots,
                            .capacity = capacity,
                            .failed = slots == MAP_FAILED};
    return !table->failed;
}

static void table_free(struct table *table)
{
    if (table->slots) {
        munmap(table->slots, table->capacity * sizeof(struct segment));
    }
}

static struct segment *table_slot(const struct table *table, uintptr_t address)
{
    size_t i = (address / SEGMENT_SIZE * UINT64_C(0x9E3779B97F4A7C15)) >> 32;

    for (;; i++) {
        struct segment *slot = &table->slots[i & (table->capacity - 1)];

        if (slot->address == address || slot->address == 0) {
            return slot;
        }
    }
}

static bool table_grow(struct table *table)
{
    struct table larger;

    if (!table_alloc(&larger, table->capacity * 2)) {
        return false;
    }
    for (size_t i = 0; i < table->capacity; i++) {
        if (table->slots[i].address) {
            *table_slot(&larger, table->slots[i].address) = table->slots[i];
            larger.count++;
        }
    }
    table_free(table);
    *table = larger;
    return true;
}

static bool visit_page(const mi_heap_t *heap, const mi_heap_area_t *area, void *block,
                       size_t block_size, void *user)
{
    struct table *table = user;
    uintptr_t start = (uintptr_t)area->blocks;
    size_t offset = start % SLICE_SIZE;
    uintptr_t address = start & ~(uintptr_t)(SEGMENT_SIZE - 1);
    size_t first = (start - address) / SLICE_SIZE;
    size_t last = (start - address + area->reserved - 1) / SLICE_SIZE;
    struct segment *segment;

    if (area->block_size > LARGE_OBJECT_MAX) {
        return true;
    }
    if ((offset != 0 && offset != PAGE_START_OFFSET) || !area->reserved || last >= SEGMENT_SLICES ||
        (table->count * 2 >= table->capacity && !table_grow(table))) {
        table->failed = true;
        return false;
    }
    segment = table_slot(table, address);
    table->count += segment->address == 0;
    segment->address = address;
    for (size_t i = first; i <= last; i++) {
        segment->used[i / 64] |= UINT64_C(1) << i % 64;
    }
    return true;
}

static bool slice_is_used(const struct segment *segment, size_t slice)
{
    return segment->used[slice / 64] >> slice % 64 & 1;
}

/* Failing is fine, say where the memory is locked: then it stays. */
static void return_free_slices(const struct segment *segment)
{
    size_t end;

    for (size_t start = HEADER_SLICES; start < SEGMENT_SLICES; start = end + 1) {
        for (end = start; end < SEGMENT_SLICES && !slice_is_used(segment, end); end++) {
        }
        if (end > start) {
            BOP_IGNORE(madvise((char *)segment->address + start * SLICE_SIZE,
                               (end - start) * SLICE_SIZE, MADV_DONTNEED));
        }
    }
}

void bop__collect_other(void *heap)
{
    struct table table;

    BOP_ASSERT(bop__collect_is_for_others());
    mi_heap_collect(heap, false);
    if (!table_alloc(&table, TABLE_SLOTS)) {
        return;
    }
    BOP_IGNORE(mi_heap_visit_blocks(heap, false, visit_page, &table));
    for (size_t i = 0; !table.failed && i < table.capacity; i++) {
        if (table.slots[i].address) {
            return_free_slices(&table.slots[i]);
        }
    }
    table_free(&table);
}

void bop__collect_own(bool force)
{
    mi_collect(force);
}

void bop__collect_tune(void)
{
#if MI_MALLOC_VERSION == KNOWN_VERSION
    if (bop__collect_is_for_others()) {
        mi_option_set_default(mi_option_eager_commit_delay, 0);
        mi_option_set_default(mi_option_decommit_delay, 1000);
        mi_option_set_default(mi_option_segment_decommit_delay, 300);
    }
#endif
}

#else

#include <malloc.h>

bool bop__collect_is_for_others(void)
{
    return false;
}

void *bop__collect_heap(void)
{
    return NULL;
}

void bop__collect_other(void *heap)
{
}

void bop__collect_own(bool force)
{
    if (force) {
        malloc_trim(0);
    }
}

void bop__collect_tune(void)
{
}

#endif
