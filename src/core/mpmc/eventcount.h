/*
 * An eventcount: wait until something may have changed, at no cost to those who
 * change it while nobody waits.
 *
 *      waiter                                   changer
 *      key = prepare(e)                         change what is waited for
 *      look again; found: cancel(e)             signal(e, n)
 *      else wait(e, key, deadline)
 *
 * `word` is 0 while nobody waits and no loop has armed it. The changer's whole
 * cost is then one load behind a fence that is free on the hot side
 * (asymmetric_fence.h).
 */
#ifndef BOP_EVENTCOUNT_H
#define BOP_EVENTCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "asymmetric_fence.h"

struct bop__eventcount {
    _Atomic uint64_t word; /* Waiters << 32, of them woken << 1, armed in bit 0. */
    atomic_uint epoch;     /* The futex: changes with each wake-up. */
    atomic_uint spins;     /* The waiters' own: how often to look before sleeping; 0: unknown. */
};

static inline void bop__eventcount_init(struct bop__eventcount *eventcount)
{
    atomic_init(&eventcount->word, 0);
    atomic_init(&eventcount->epoch, 0);
    atomic_init(&eventcount->spins, 0);
}

/* Announce a waiter; it must look again before it waits. */
uint32_t bop__eventcount_prepare(struct bop__eventcount *eventcount);
void bop__eventcount_cancel(struct bop__eventcount *eventcount);
/* Sleep until signalled after prepare, or the monotonic deadline in ns (UINT64_MAX: none), and
 * take the announcement back. False: the deadline passed. */
bool bop__eventcount_wait(struct bop__eventcount *eventcount, uint32_t key, uint64_t deadline_ns);

/* Somebody waits or has armed it: wake up to count waiters. True: it was armed, and no longer is:
 * the caller notifies. */
bool bop__eventcount_signal_slow(struct bop__eventcount *eventcount, unsigned count);

/* Whether somebody waits or has armed it. After a change, behind a fence, as signal does. */
static inline bool bop__eventcount_is_watched(struct bop__eventcount *eventcount)
{
    bop__fence_hot();
    /* Relaxed: the fence orders it after the change; a waiter that is not seen here sees the
     * change in its last look. */
    return atomic_load_explicit(&eventcount->word, memory_order_relaxed) != 0;
}

/* After a change. True: it was armed. */
static inline bool bop__eventcount_signal(struct bop__eventcount *eventcount, unsigned count)
{
    if (BOP_LIKELY(!bop__eventcount_is_watched(eventcount))) {
        return false;
    }
    return bop__eventcount_signal_slow(eventcount, count);
}

/* Arm it; the caller looks again after it and disarms if it finds something. */
void bop__eventcount_arm(struct bop__eventcount *eventcount);
void bop__eventcount_disarm(struct bop__eventcount *eventcount);

#endif
