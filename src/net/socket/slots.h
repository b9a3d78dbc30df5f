/*
 * Memory for slots, of one loop: pools by size, each of chunks that grow.
 *
 * A chunk is carved into slots front to back and stays the loop's until its end,
 * so that a handle of the past can always be looked at. A chunk without a slot
 * in use may give its pages back: they read as zeros then, and 0 is a generation
 * that no handle has.
 *
 * Invariants:
 *
 *   (1) The generations a slot has while in use rise; none comes twice.
 *   (2) A free slot's generation was never handed out.
 *   (3) A slot whose generation is the last is in use or never used again.
 */
#ifndef BOP_NET_SLOTS_H
#define BOP_NET_SLOTS_H

#include <bop/alloc.h>
#include <bop/list.h>

#include "slot.h"

#define BOP__SLOT_ALIGN 64u

struct bop__chunk;

/** The slots of one size. */
struct bop__pool {
    struct bop__slots *slots;
    struct bop_list link; /* slots.pools */
    struct bop_list open; /* bop__chunk.link of those with a slot to give. */
    size_t slot_bytes;    /* A multiple of BOP__SLOT_ALIGN. */
    size_t chunk_bytes;   /* Of the next chunk. */
    size_t free;          /* Slots that can be taken without memory. */
};

struct bop__slots {
    struct bop_allocator *allocator;
    struct bop_list pools;
    struct bop__chunk **chunks; /* By address, to find the chunk of a slot. */
    size_t chunk_count;
    size_t chunk_capacity;
};

void bop__slots_init(struct bop__slots *slots, struct bop_allocator *allocator);
/** Handles of its slots must not be looked at any more. */
void bop__slots_deinit(struct bop__slots *slots);

/** The pool for slots of at least so many bytes, which lives as long as the slots. NULL: no memory.
 */
struct bop__pool *bop__slots_pool(struct bop__slots *slots, size_t bytes);

/** A slot, zeroed but for its generation. NULL: no memory. */
BOP_MUST_USE struct bop__slot *bop__pool_take(struct bop__pool *pool);
/** Back to its pool: its handles are of the past from here on. */
void bop__pool_give(struct bop__pool *pool, struct bop__slot *slot);

/** End the handles of a slot that stays in use. False: its generations are used up, and its handle
 * stays what it is. */
static inline bool bop__slot_renew(struct bop__slot *slot)
{
    if (slot->generation >= BOP__SLOT_GENERATIONS - 2) {
        return false;
    }
    slot->generation++;
    return true;
}

/** Call fn for every slot that was ever in use since its chunk was carved; fn can tell whether it
 * is: the bytes of a free one from the ninth on are not to be relied on, those before are as they
 * were given back. */
void bop__slots_each(struct bop__slots *slots, void (*fn)(struct bop__slot *slot, void *arg),
                     void *arg);

#endif
