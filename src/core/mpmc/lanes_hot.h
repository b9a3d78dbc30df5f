/*
 * The paths of lanes that run for nearly every item with a token: small enough to
 * be compiled into the front.
 */
#ifndef BOP_MPMC_LANES_HOT_H
#define BOP_MPMC_LANES_HOT_H

#include "lanes.h"

/* -- Push -------------------------------------------------------------------------------------- */

/* False: the queue is closed. Else bop__lane_push_end() follows. */
static inline bool bop__lane_push_begin(struct lane *lane, struct bop_mpmc *base)
{
    /* Relaxed, both: the fence orders them, against close's. */
    atomic_store_explicit(&lane->pushing, 1, memory_order_relaxed);
    bop__fence_hot();
    if (BOP_UNLIKELY(atomic_load_explicit(&base->state, memory_order_relaxed) != BOP__MPMC_OPEN)) {
        atomic_store_explicit(&lane->pushing, 0, memory_order_relaxed); /* We did nothing. */
        return false;
    }
    return true;
}

static inline void bop__lane_push_end(struct lane *lane)
{
    /* Release pairs with the acquire in bop__lanes_close(): what was pushed is seen there. */
    atomic_store_explicit(&lane->pushing, 0, memory_order_release);
}

/* There is room. */
static inline void bop__lane_write(struct lane *lane, uint64_t item)
{
    /* Relaxed: our own. */
    uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_relaxed);

    lane->room[tail - lane->room_base] = item;
    /* Release pairs with the acquire of who claims it: it sees the item, its block in the map, and
     * what came before the push. */
    atomic_store_explicit(&lane->tail, tail + 1, memory_order_release);
}

/* The current block is full. Ends the push that was begun. */
int bop__lanes_push_slow(struct lane *lane, uint64_t item, unsigned flags);

static inline int bop__lane_push(struct lane *lane, struct bop_mpmc *base, uint64_t item,
                                 unsigned flags)
{
    if (BOP_UNLIKELY(!bop__lane_push_begin(lane, base))) {
        return BOP_ECLOSED;
    }
    /* Relaxed: our own. */
    if (BOP_UNLIKELY(atomic_load_explicit(&lane->tail, memory_order_relaxed) == lane->room_end)) {
        return bop__lanes_push_slow(lane, item, flags);
    }
    bop__lane_write(lane, item);
    bop__lane_push_end(lane);
    return 0;
}

/* -- Pop --------------------------------------------------------------------------------------- */

/* The next item of the consumer's own claim: 1, or 0 if there is none. */
static inline int bop__claim_pop(struct lanes_consumer *consumer, uint64_t *out_item)
{
    /* Relaxed: only the owner writes it. */
    uint64_t at = atomic_load_explicit(&consumer->at, memory_order_relaxed);

    if (at == consumer->claim_end) {
        return 0;
    }
    /* Relaxed, both: the fence orders them, against that of who takes over (lanes_claim.c). */
    atomic_store_explicit(&consumer->at, at + 1, memory_order_relaxed);
    bop__fence_hot();
    if (BOP_UNLIKELY(at + 1 > atomic_load_explicit(&consumer->end, memory_order_relaxed))) {
        if (bop__claim_contended(consumer, at, 1) == 0) {
            bop__claim_finish(consumer);
            return 0;
        }
    }
    /* Relaxed: our own. */
    *out_item = atomic_load_explicit(&consumer->items,
                                     memory_order_relaxed)[at & CLAIM_OFFSET_MASK];
    if (at + 1 == consumer->claim_end) {
        bop__claim_finish(consumer);
    }
    return 1;
}

#endif
