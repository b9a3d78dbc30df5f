/*
 * What the files of the front share: after a push, after a pop, the last look,
 * and how to wait.
 */
#ifndef BOP_MPMC_FRONT_H
#define BOP_MPMC_FRONT_H

#include "internal.h"

/* Tell the loop that armed the queue. */
void bop__mpmc_notify(struct bop_mpmc *queue);

/* Somebody waits for items, or has armed the queue, and count were pushed. */
void bop__mpmc_signal_not_empty_slow(struct bop_mpmc *queue, unsigned count);
/* Somebody waits for room, and count items were popped. */
void bop__mpmc_signal_not_full_slow(struct bop_mpmc *queue, unsigned count);

static inline void bop__mpmc_signal_not_empty(struct bop_mpmc *queue, unsigned count)
{
    if (BOP_UNLIKELY(bop__eventcount_is_watched(&queue->not_empty))) {
        bop__mpmc_signal_not_empty_slow(queue, count);
    }
}

static inline void bop__mpmc_signal_not_full(struct bop_mpmc *queue, unsigned count)
{
    if (BOP_UNLIKELY(bop__eventcount_is_watched(&queue->not_full))) {
        bop__mpmc_signal_not_full_slow(queue, count);
    }
}

static inline ssize_t bop__mpmc_last_look(struct bop_mpmc *queue,
                                          struct bop_mpmc_consumer *consumer, uint64_t *out_items,
                                          size_t count)
{
    return queue->ops->pop_last_look
               ? queue->ops->pop_last_look(queue, consumer, out_items, count)
               : (ssize_t)queue->ops->pop_bulk(queue, consumer, out_items, count);
}

/* -- Waiting ----------------------------------------------------------------------------------- */

/* One wait, from its first refusal on. */
struct bop__mpmc_wait {
    struct bop__eventcount *eventcount;
    uint64_t deadline_ns; /* Monotonic; UINT64_MAX: none. */
    unsigned spins_left;
    unsigned spins_allowed; /* Of this wait. */
    unsigned spins_learned; /* From those before. */
};

/* Start to wait. */
struct bop__mpmc_wait bop__mpmc_wait_begin(struct bop__eventcount *eventcount, uint64_t timeout_us);
/* Pause for a moment and return true: try again; or false, when it is time to sleep. */
bool bop__mpmc_wait_spin(struct bop__mpmc_wait *wait);
/* What was waited for came while spinning. */
void bop__mpmc_wait_spin_paid(struct bop__mpmc_wait *wait);
/* Sleep, after prepare and a last look, at most nap_ns. False: the deadline has passed. */
bool bop__mpmc_wait_sleep(struct bop__mpmc_wait *wait, uint32_t key, uint64_t nap_ns);

#endif
