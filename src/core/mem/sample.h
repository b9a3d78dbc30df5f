/*
 * The hooks of the sampler: which allocations the heap profile knows.
 *
 * Whatever hands out a block calls bop__sample_allocated() after it got it and
 * bop__sample_freed() before it gives it back; a realloc that succeeded is the
 * one for the old block and the other for the new. (The old address is unknown
 * to the heap by then, so its owner calls bop__sample_freed() before it asks for
 * the realloc, and bop__sample_allocated() for the old block again if that
 * fails.) Both are a load and a branch while nothing is sampled; the hottest paths
 * save these too, for BOP__GATE_SAMPLE (thread.h) is up whenever a hook might have
 * something to do.
 *
 * Functions that users call to allocate are BOP__ALLOCATES: the sampler cuts
 * them off the top of a stack, so that the first frame is the user's.
 */
#ifndef BOP_CORE_MEM_SAMPLE_H
#define BOP_CORE_MEM_SAMPLE_H

#include <stdatomic.h>

#include <bop/base.h>

/* The section is named like a C identifier for the linker to mark its start and its end. */
#define BOP__ALLOCATES __attribute__((section("bop_alloc_text")))

#define BOP__SAMPLE_FRAMES_MAX 48    /* A deeper stack loses its outermost frames. */
#define BOP__SAMPLE_STACKS_MAX 16384 /* Stacks, with their tags, in a profile. */
#define BOP__SAMPLE_BLOCKS_MAX 65536 /* Sampled blocks alive at once. */

#define BOP__SAMPLE_UNTAGGED UINT32_MAX /* The tag index of the malloc family. */

/* True while sampling. Changed by start and stop alone. */
extern _Atomic bool bop__sample_on;

/* Sampled blocks that are alive. A thread that owns a sampled block sees no 0 here: it got the
 * block after this was raised for it, and it is lowered for it only by the block's free. */
extern _Atomic uint32_t bop__sample_live;

void bop__sample_allocated_slow(const void *block, size_t size, unsigned tag_index);
void bop__sample_freed_slow(const void *block);

/** A block of `size` bytes was handed out, not yet to the user. block may be NULL. */
static inline void bop__sample_allocated(const void *block, size_t size, unsigned tag_index)
{
    /* Acquire pairs with the release of start(): whom this block is handed to sees its gate up. */
    if (BOP_UNLIKELY(atomic_load_explicit(&bop__sample_on, memory_order_acquire))) {
        bop__sample_allocated_slow(block, size, tag_index);
    }
}

/** The block is about to be freed. It may be NULL, or one that was never sampled. */
static inline void bop__sample_freed(const void *block)
{
    if (BOP_UNLIKELY(atomic_load_explicit(&bop__sample_live, memory_order_relaxed) != 0)) {
        bop__sample_freed_slow(block);
    }
}

/** The owner of a gate met BOP__GATE_SAMPLE: take it down everywhere if there is nothing to do. No
 * lock held. */
void bop__sample_gate(void);

/* -- For what writes profiles ------------------------------------------------------------------ */

/* What was sampled at one place for one tag. */
struct bop__sample_stack {
    uint64_t live_count;
    uint64_t live_bytes;
    uint64_t total_count; /* Since the start of the profile. */
    uint64_t total_bytes;
    uint64_t hash;
    uint32_t tag_index;
    uint32_t depth;
    uintptr_t frames[BOP__SAMPLE_FRAMES_MAX]; /* Return addresses, the innermost first. */
};

/* A copy of the profile, in pages of its own. */
struct bop__sample_snapshot {
    struct bop__sample_stack *stacks;
    size_t count;
    size_t mapped_bytes;
    size_t sample_bytes;    /* The mean gap; 0 if there was never a profile. */
    uint64_t dropped_count; /* Samples beyond the bounds above. */
    uint64_t dropped_bytes;
};

/** Returns 0 or -ENOMEM. */
BOP_MUST_USE int bop__sample_snapshot(struct bop__sample_snapshot *out_snapshot);
void bop__sample_snapshot_deinit(struct bop__sample_snapshot *snapshot);

#endif
