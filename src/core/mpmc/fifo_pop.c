/*
 * Popping from a fifo queue; fifo.c tells the algorithm.
 */
#include <string.h>

#include "fifo.h"

/* How often a consumer looks again at an empty slot before it gives it up: about a microsecond. A
 * producer between its two steps needs far less, unless it was preempted. */
#define LOOKS_AT_EMPTY_SLOT 64

/* What a reserved slot holds; never EMPTY. */
static uint64_t wait_for_slot(struct bop__fifo_segment *segment, uint32_t slot)
{
    uint64_t cell = BOP__FIFO_EMPTY;

    for (int i = 0; i < LOOKS_AT_EMPTY_SLOT; i++) {
        bop__mpmc_pause();
        /* Acquire pairs with the release of the producer. */
        cell = atomic_load_explicit(&segment->cells[slot], memory_order_acquire);
        if (cell != BOP__FIFO_EMPTY) {
            return cell;
        }
    }
    /* Acquire: for the failure, as above; TAKEN hands nothing over. */
    if (atomic_compare_exchange_strong_explicit(&segment->cells[slot], &cell, BOP__FIFO_TAKEN,
                                                memory_order_acquire, memory_order_acquire)) {
        return BOP__FIFO_TAKEN;
    }
    return cell;
}

/* Move the place of consumption on. */
static inline bool advance(struct bop__fifo_segment *segment, uint64_t from, uint64_t to)
{
    /* Relaxed: what the cells hand over is ordered by their own acquire, and the cells stay as they
     * are until the segment is retired, which is behind sequentially consistent operations. */
    return atomic_compare_exchange_strong_explicit(&segment->dequeue, &from, to,
                                                   memory_order_relaxed, memory_order_relaxed);
}

static inline uint64_t place_of(uint32_t slot, uint32_t offset)
{
    return (uint64_t)slot << 32 | offset;
}

/* Take up to count items of the run that the place points into; 0 if others were faster. */
static size_t take_of_run(struct bop__fifo_segment *segment, uint64_t place, uint64_t header,
                          uint64_t *out_items, size_t count)
{
    uint32_t slot = (uint32_t)(place >> 32), offset = (uint32_t)place;
    uint32_t left = bop__fifo_run_count(header) - offset;
    uint32_t taken = count < left ? (uint32_t)count : left;

    if (!advance(segment, place,
                 taken == left ? place_of(slot + 1, 0) : place_of(slot, offset + taken))) {
        return 0;
    }
    /* They are ours, and stay where they are: the hazard pointer keeps the segment. */
    memcpy(out_items, (const void *)&segment->cells[bop__fifo_run_position(header) + offset],
           taken * sizeof(out_items[0]));
    return taken;
}

/* Take the item in the slot, and those in the next ones while they are there. */
static inline size_t take_items(struct bop__fifo_segment *segment, uint64_t place, uint32_t limit,
                                uint64_t first, uint64_t *out_items, size_t count)
{
    uint32_t slot = (uint32_t)(place >> 32);
    uint32_t taken = 1;

    if (count > 1) {
        out_items[0] = first;
        for (; taken < count && slot + taken < limit; taken++) {
            /* Acquire pairs with the release of the producer. */
            uint64_t cell = atomic_load_explicit(&segment->cells[slot + taken],
                                                 memory_order_acquire);

            if (bop__fifo_is_special(cell)) {
                break;
            }
            out_items[taken] = cell;
        }
    }
    if (!advance(segment, place, place_of(slot + taken, 0))) {
        return 0;
    }
    if (count == 1) {
        out_items[0] = first; /* Written on success only. */
    }
    return taken;
}

/* The slot is behind the last one reserved when we looked: go on to the next segment. False: there
 * was nothing in the queue then. */
static bool next_segment(struct bop__fifo *queue, struct bop__fifo_hazard *hazard,
                         struct bop__fifo_segment *head, uint32_t slot)
{
    /* Acquire pairs with the link: the segment was closed before it. */
    struct bop__fifo_segment *next = atomic_load_explicit(&head->next, memory_order_acquire);
    struct bop__fifo_segment *expected = head;

    if (!bop__fifo_is_segment(next)) {
        return false;
    }
    hazard->limit = bop__fifo_segment_limit(head);
    if (slot < hazard->limit) {
        return true; /* More came before it was closed. */
    }
    /* The tail must never stay behind the head. Sequentially consistent, as all that unlinks;
     * failure: the tail has gone on, which it never takes back. */
    if (atomic_load_explicit(&queue->tail, memory_order_seq_cst) == head) {
        atomic_compare_exchange_strong_explicit(&queue->tail, &expected, next, memory_order_seq_cst,
                                                memory_order_seq_cst);
        expected = head;
    }
    if (atomic_compare_exchange_strong_explicit(&queue->head, &expected, next, memory_order_seq_cst,
                                                memory_order_relaxed)) {
        /* Relaxed: a hint. And our own pointer, which the sweep reads on this very thread. */
        atomic_fetch_sub_explicit(&queue->segments, 1, memory_order_relaxed);
        atomic_store_explicit(&hazard->segment, NULL, memory_order_relaxed);
        bop__fifo_hazard_retire(&queue->hazards, head);
    }
    return true;
}

static inline size_t pop_items(struct bop__fifo *queue, struct bop__fifo_hazard *hazard,
                               uint64_t *out_items, size_t count)
{
    size_t done = 0;

    while (done < count) {
        struct bop__fifo_segment *head = bop__fifo_hazard_protect(&queue->hazards, hazard,
                                                                  &queue->head);
        /* Acquire: the reserved slots are counted after it, see fifo.c on emptiness. */
        uint64_t place = atomic_load_explicit(&head->dequeue, memory_order_acquire);
        uint32_t slot = (uint32_t)(place >> 32);
        uint64_t cell;

        if (BOP_UNLIKELY(slot >= hazard->limit)) {
            hazard->limit = bop__fifo_segment_limit(head);
            if (slot >= hazard->limit) {
                if (!next_segment(queue, hazard, head, slot)) {
                    break;
                }
                continue;
            }
        }
        /* Acquire pairs with the release of the producer. */
        cell = atomic_load_explicit(&head->cells[slot], memory_order_acquire);
        if (BOP_UNLIKELY(cell == BOP__FIFO_EMPTY)) {
            if (done > 0) {
                break;
            }
            cell = wait_for_slot(head, slot);
        }
        if (BOP_LIKELY(cell >> 48 != BOP__FIFO_MARK)) {
            done += take_items(head, place, hazard->limit, cell, out_items + done, count - done);
        } else if (cell == BOP__FIFO_TAKEN) {
            BOP_IGNORE(advance(head, place, place_of(slot + 1, 0))); /* Or others did. */
        } else {
            done += take_of_run(head, place, cell, out_items + done, count - done);
        }
    }
    return done;
}

int bop__fifo_pop(struct bop_mpmc *base, struct bop_mpmc_consumer *consumer, uint64_t *out_item)
{
    struct bop__fifo *queue = bop__fifo_of(base);
    struct bop__fifo_hazard *hazard = bop__fifo_consumer_hazard(queue, consumer);
    size_t taken = pop_items(queue, hazard, out_item, 1);

    if (BOP_UNLIKELY(!consumer)) {
        bop__fifo_hazard_return(&queue->hazards, hazard);
    }
    return (int)taken;
}

size_t bop__fifo_pop_bulk(struct bop_mpmc *base, struct bop_mpmc_consumer *consumer,
                          uint64_t *out_items, size_t count)
{
    struct bop__fifo *queue = bop__fifo_of(base);
    struct bop__fifo_hazard *hazard = bop__fifo_consumer_hazard(queue, consumer);
    size_t taken = pop_items(queue, hazard, out_items, count);

    if (BOP_UNLIKELY(!consumer)) {
        bop__fifo_hazard_return(&queue->hazards, hazard);
    }
    return taken;
}
