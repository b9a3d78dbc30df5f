/*
 * What the files of a fifo queue share; fifo.c tells the algorithm.
 */
#ifndef BOP_MPMC_FIFO_H
#define BOP_MPMC_FIFO_H

#include "fifo_hazard.h"

struct bop__fifo {
    struct bop_mpmc base;
    void *block; /* What to free, of block_bytes: the queue lies aligned in it. */
    size_t block_bytes;
    struct bop__fifo_store store;
    struct bop__fifo_hazards hazards;
    atomic_size_t segments; /* Linked ones; tells a backlog. */

    /* Each read by every push or pop, written once a segment. */
    _Alignas(BOP__CACHE_LINE) _Atomic(struct bop__fifo_segment *) tail;
    _Alignas(BOP__CACHE_LINE) _Atomic(struct bop__fifo_segment *) head;
};

struct bop__fifo_producer {
    struct bop_mpmc_producer base;
    struct bop__fifo_hazard *hazard;
};

struct bop__fifo_consumer {
    struct bop_mpmc_consumer base;
    struct bop__fifo_hazard *hazard;
};

static inline struct bop__fifo *bop__fifo_of(struct bop_mpmc *base)
{
    return BOP_CONTAINER_OF(base, struct bop__fifo, base);
}

static inline struct bop__fifo_hazard *bop__fifo_producer_hazard(struct bop__fifo *queue,
                                                                 struct bop_mpmc_producer *producer)
{
    return BOP_LIKELY(producer != NULL)
               ? BOP_CONTAINER_OF(producer, struct bop__fifo_producer, base)->hazard
               : bop__fifo_hazard_borrow(&queue->hazards, BOP__FIFO_PRODUCER);
}

static inline struct bop__fifo_hazard *bop__fifo_consumer_hazard(struct bop__fifo *queue,
                                                                 struct bop_mpmc_consumer *consumer)
{
    return BOP_LIKELY(consumer != NULL)
               ? BOP_CONTAINER_OF(consumer, struct bop__fifo_consumer, base)->hazard
               : bop__fifo_hazard_borrow(&queue->hazards, BOP__FIFO_CONSUMER);
}

/* fifo_push.c */
int bop__fifo_push(struct bop_mpmc *base, struct bop_mpmc_producer *producer, uint64_t item,
                   unsigned flags);
ssize_t bop__fifo_push_bulk(struct bop_mpmc *base, struct bop_mpmc_producer *producer,
                            const uint64_t *items, size_t count, unsigned flags);

/* fifo_pop.c */
int bop__fifo_pop(struct bop_mpmc *base, struct bop_mpmc_consumer *consumer, uint64_t *out_item);
size_t bop__fifo_pop_bulk(struct bop_mpmc *base, struct bop_mpmc_consumer *consumer,
                          uint64_t *out_items, size_t count);

#endif
