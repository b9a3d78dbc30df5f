/*
 * An eventcount: wait until something may have changed, at no cost to those who
 * change it while nobody waits.
 *
 *      waiter                                   changer
 *      key = prepare(e)                         change what is waited for
 *      look again; found: cancel(e)             signal(e, n)
 *      else wait(e, key, deadline)
 *
 * `word` holds the number of waiters in its upper bits and, in bit 0, whether a
 * loop has armed it. The changer's whole cost while it is 0 is one load behind a
 * fence that is free on the hot side (asymmetric_fence.h).
 */
#ifndef BOP_EVENTCOUNT_H
#define BOP_EVENTCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "asymmetric_fence.h"

struct bop__eventcount {
    atomic_uint word;  /* Waiters * 2, + 1 if armed. */
    atomic_uint epoch; /* The futex: changes with each wake-up. */
};

/* Announce a waiter; it must look again before it waits. */
uint32_t bop__eventcount_prepare(struct bop__eventcount *eventcount);
void bop__eventcount_cancel(struct bop__eventcount *eventcount);
/* Sleep until signalled after prepare, or the monotonic deadline in ns (UINT64_MAX: none), and
 * take the announcement back. False: the deadline passed. */
bool bop__eventcount_wait(struct bop__eventcount *eventcount, uint32_t key, uint64_t deadline_ns);

/* Somebody waits or has armed it: wake up to count waiters. True: it was armed, and no longer is:
 * the caller notifies. */
bool bop__eventcount_signal_slow(struct bop__eventcount *eventcount, unsigned count);

/* After a change. True: it was armed. */
static inline bool bop__eventcount_signal(struct bop__eventcount *eventcount, unsigned count)
{
    bop__fence_hot();
    if (BOP_LIKELY(atomic_load_explicit(&eventcount->word, memory_order_relaxed) == 0)) {
        return false;
    }
    return bop__eventcount_signal_slow(eventcount, count);
}

/* Arm it; the caller looks again after it and disarms if it finds something. */
void bop__eventcount_arm(struct bop__eventcount *eventcount);
void bop__eventcount_disarm(struct bop__eventcount *eventcount);

#endif
