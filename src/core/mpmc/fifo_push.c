/*
 * Pushing to a fifo queue; fifo.c tells the algorithm.
 */
#include <string.h>

#include "fifo.h"

/* So many segments with something in them, and the next ones are big. */
#define BACKLOG_SEGMENTS 4

/* Segments with items that nobody knows yet, all but the last of them closed. */
struct chain {
    struct bop__fifo_segment *first;
    struct bop__fifo_segment *last;
    size_t segments;
    size_t items;
};

static void drop_chain(struct bop__fifo *queue, struct chain *chain)
{
    struct bop__fifo_segment *next;

    for (struct bop__fifo_segment *segment = chain->first; segment; segment = next) {
        /* Relaxed: nobody else knows it. */
        next = atomic_load_explicit(&segment->next, memory_order_relaxed);
        bop__fifo_store_give(&queue->store, segment);
    }
}

static void add_to_chain(struct chain *chain, struct bop__fifo_segment *segment)
{
    if (chain->last) {
        bop__fifo_segment_close(chain->last);
        /* Relaxed: published by the release that links the first one. */
        atomic_store_explicit(&chain->last->next, segment, memory_order_relaxed);
    } else {
        chain->first = segment;
    }
    chain->last = segment;
    chain->segments++;
}

/* Put the items, or with no BOP__MPMC_ALL at least one, into new segments. */
static int build_chain(struct bop__fifo *queue, const uint64_t *items, size_t count, unsigned flags,
                       struct chain *out_chain)
{
    /* Relaxed: a hint. */
    size_t backlog = atomic_load_explicit(&queue->segments, memory_order_relaxed);
    size_t small_cells = bop__fifo_class_cells(BOP__FIFO_SMALL);
    struct chain chain = {NULL, NULL, 0, 0};
    struct bop__fifo_segment *segment;
    int rc = 0;

    while (chain.items < count && rc == 0) {
        size_t left = count - chain.items;
        /* Few runs of that length fit in a small one, and the rest of it would be lost. */
        bool big = backlog >= BACKLOG_SEGMENTS || left > small_cells / 4;

        rc = bop__fifo_store_take(&queue->store, big ? BOP__FIFO_BIG : BOP__FIFO_SMALL, flags,
                                  &segment);
        if (rc == 0) {
            chain.items += bop__fifo_segment_fill(segment, items + chain.items, left);
            add_to_chain(&chain, segment);
        }
    }
    if (rc < 0 && ((flags & BOP__MPMC_ALL) || chain.items == 0)) {
        drop_chain(queue, &chain);
        return rc;
    }
    *out_chain = chain;
    return 0;
}

/* False: somebody else has linked a segment, or the queue was closed. */
static bool link_chain(struct bop__fifo *queue, struct bop__fifo_segment *tail,
                       const struct chain *chain)
{
    struct bop__fifo_segment *expected = NULL;

    /* From here on no producer gets a place before the chain. */
    bop__fifo_segment_close(tail);
    /* Relaxed: a hint; before the link, so that it never goes below 0. */
    atomic_fetch_add_explicit(&queue->segments, chain->segments, memory_order_relaxed);
    do {
        /* Release publishes the chain, and that the tail is closed. Failure is relaxed: only
         * compared. */
        if (atomic_compare_exchange_strong_explicit(&tail->next, &expected, chain->first,
                                                    memory_order_release, memory_order_relaxed)) {
            expected = tail;
            /* Sequentially consistent: what is unlinked here is protected by hazard pointers.
             * Failure: somebody has moved it on already. */
            atomic_compare_exchange_strong_explicit(&queue->tail, &expected, chain->first,
                                                    memory_order_seq_cst, memory_order_relaxed);
            return true;
        }
    } while (expected == &bop__fifo_next_full);
    atomic_fetch_sub_explicit(&queue->segments, chain->segments, memory_order_relaxed);
    return false;
}

/* What stands in the way after the tail: 0 if there is another tail by now, BOP_ECLOSED, or rc. */
static int look_behind(struct bop__fifo *queue, struct bop__fifo_segment *tail, int rc)
{
    /* Acquire pairs with link_chain(). */
    struct bop__fifo_segment *next = atomic_load_explicit(&tail->next, memory_order_acquire);
    struct bop__fifo_segment *expected = tail;

    if (bop__fifo_is_segment(next)) {
        /* As in link_chain(). */
        atomic_compare_exchange_strong_explicit(&queue->tail, &expected, next, memory_order_seq_cst,
                                                memory_order_relaxed);
        return 0;
    }
    return next == &bop__fifo_next_closed ? BOP_ECLOSED : rc;
}

/* The tail has no room: go on to the next, or link new ones that have the items. Returns how many
 * were pushed, 0 to try again, or a code. */
static ssize_t grow(struct bop__fifo *queue, struct bop__fifo_segment *tail, const uint64_t *items,
                    size_t count, unsigned flags)
{
    struct chain chain;
    int rc = look_behind(queue, tail, 1);

    if (rc <= 0) {
        return rc;
    }
    rc = build_chain(queue, items, count, flags, &chain);
    if (rc < 0) {
        return look_behind(queue, tail, rc);
    }
    if (!link_chain(queue, tail, &chain)) {
        drop_chain(queue, &chain);
        return 0;
    }
    return (ssize_t)chain.items;
}

/* Publish what is in a slot. False: a consumer has given the slot up. */
static bool publish(struct bop__fifo_segment *segment, uint32_t slot, uint64_t cell, uint32_t items)
{
    uint64_t expected = BOP__FIFO_EMPTY;

    /* Release pairs with the acquire of the consumer that reads the cell. Failure is relaxed: the
     * only other value is TAKEN. */
    if (BOP_LIKELY(atomic_compare_exchange_strong_explicit(
            &segment->cells[slot], &expected, cell, memory_order_release, memory_order_relaxed))) {
        return true;
    }
    BOP_DEBUG_ASSERT(expected == BOP__FIFO_TAKEN);
    /* Relaxed: a count that is read at rest. */
    atomic_fetch_add_explicit(&segment->dead, items, memory_order_relaxed);
    return false;
}

/* Reserve a slot and cells for all of the items, or without BOP__MPMC_ALL for some: how many; 0 if
 * there is no room. *out_before is the segment's word before. */
static uint32_t reserve_run(struct bop__fifo_segment *tail, size_t count, unsigned flags,
                            uint64_t *out_before)
{
    /* Relaxed: the exchange checks it, and a refusal leads to grow(). */
    uint64_t enqueue = atomic_load_explicit(&tail->enqueue, memory_order_relaxed);
    uint32_t room, run;

    do {
        room = bop__fifo_room(tail, enqueue);
        if (room < 2 || (count > room - 1 && (flags & BOP__MPMC_ALL))) {
            return 0;
        }
        run = count > room - 1 ? room - 1 : (uint32_t)count;
        /* Relaxed: reserving hands nothing over; publish() does. */
    } while (!atomic_compare_exchange_weak_explicit(
        &tail->enqueue, &enqueue, enqueue + BOP__FIFO_SLOT + BOP__FIFO_RUN + run * BOP__FIFO_ITEM,
        memory_order_relaxed, memory_order_relaxed));
    *out_before = enqueue;
    return run;
}

/* Push all of the items, or without BOP__MPMC_ALL some, as one run into this segment: how many; 0
 * if there is no room. */
static uint32_t push_into(struct bop__fifo_segment *tail, const uint64_t *items, size_t count,
                          unsigned flags)
{
    uint32_t run, position;
    uint64_t before = 0;

    do {
        run = reserve_run(tail, count, flags, &before);
        if (run == 0) {
            return 0;
        }
        position = tail->capacity - bop__fifo_run_items(before) - run;
        /* Nobody else looks at these cells before the run is published. */
        memcpy((void *)&tail->cells[position], items, run * sizeof(items[0]));
    } while (!publish(tail, bop__fifo_slots(before), bop__fifo_run_header(position, run), run));
    return run;
}

/* Returns how many were pushed, or a code. */
static ssize_t push_run(struct bop__fifo *queue, struct bop__fifo_hazard *hazard,
                        const uint64_t *items, size_t count, unsigned flags)
{
    ssize_t pushed;

    do {
        struct bop__fifo_segment *tail = bop__fifo_hazard_protect(&queue->hazards, hazard,
                                                                  &queue->tail);

        pushed = (ssize_t)push_into(tail, items, count, flags);
        if (pushed == 0) {
            pushed = grow(queue, tail, items, count, flags);
        }
    } while (pushed == 0);
    return pushed;
}

/* No slot is left in the tail, and no segment to be had: let nobody try until there is one, or
 * those who try without end would count its slots over the brim. */
static void mark_full(struct bop__fifo_segment *tail)
{
    struct bop__fifo_segment *expected = NULL;

    /* Relaxed: a hint to producers. */
    atomic_compare_exchange_strong_explicit(&tail->next, &expected, &bop__fifo_next_full,
                                            memory_order_relaxed, memory_order_relaxed);
}

/* Take a slot of the tail. False: there is none. */
static inline bool take_slot(struct bop__fifo_segment *tail, uint32_t *out_slot)
{
    uint64_t enqueue;

    /* Relaxed: a segment with a successor, or FULL, has no slots, and the count below says the
     * same. */
    if (BOP_UNLIKELY(atomic_load_explicit(&tail->next, memory_order_relaxed) != NULL)) {
        return false;
    }
    /* Relaxed: reserving hands nothing over; publish() does. */
    enqueue = atomic_fetch_add_explicit(&tail->enqueue, BOP__FIFO_SLOT, memory_order_relaxed);
    *out_slot = bop__fifo_slots(enqueue);
    return bop__fifo_room(tail, enqueue) > 0;
}

/* Returns 1 or a code. */
static inline ssize_t push_item(struct bop__fifo *queue, struct bop__fifo_hazard *hazard,
                                uint64_t item, unsigned flags)
{
    ssize_t rc = 0;

    if (BOP_UNLIKELY(bop__fifo_is_special(item))) {
        return push_run(queue, hazard, &item, 1, flags);
    }
    while (rc == 0) {
        struct bop__fifo_segment *tail = bop__fifo_hazard_protect(&queue->hazards, hazard,
                                                                  &queue->tail);
        uint32_t slot;

        if (BOP_LIKELY(take_slot(tail, &slot))) {
            rc = publish(tail, slot, item, 1) ? 1 : 0;
            continue;
        }
        rc = grow(queue, tail, &item, 1, flags);
        if (rc < 0) {
            mark_full(tail);
        }
    }
    return rc;
}

int bop__fifo_push(struct bop_mpmc *base, struct bop_mpmc_producer *producer, uint64_t item,
                   unsigned flags)
{
    struct bop__fifo *queue = bop__fifo_of(base);
    struct bop__fifo_hazard *hazard = bop__fifo_producer_hazard(queue, producer);
    ssize_t rc = push_item(queue, hazard, item, flags);

    if (BOP_UNLIKELY(!producer)) {
        bop__fifo_hazard_return(&queue->hazards, hazard);
    }
    return rc < 0 ? (int)rc : 0;
}

ssize_t bop__fifo_push_bulk(struct bop_mpmc *base, struct bop_mpmc_producer *producer,
                            const uint64_t *items, size_t count, unsigned flags)
{
    struct bop__fifo *queue = bop__fifo_of(base);
    struct bop__fifo_hazard *hazard = bop__fifo_producer_hazard(queue, producer);
    size_t done = 0;
    ssize_t rc = 0;

    do {
        rc = count - done == 1 ? push_item(queue, hazard, items[done], flags)
                               : push_run(queue, hazard, items + done, count - done, flags);
        if (rc < 0 && rc != BOP_ECLOSED && !(flags & BOP__MPMC_ALL) && count - done > 1) {
            /* A run needs two cells: there may be one. */
            rc = push_item(queue, hazard, items[done], flags);
        }
        done += rc > 0 ? (size_t)rc : 0;
    } while (rc > 0 && done < count);
    if (BOP_UNLIKELY(!producer)) {
        bop__fifo_hazard_return(&queue->hazards, hazard);
    }
    return done > 0 ? (ssize_t)done : rc;
}
