/*
 * A pair of fences for the store-then-load pattern (Dekker) where one side is
 * hot and the other is rare: what each side stored before its fence, or what the
 * other stored, is seen by at least one of the two loads after the fences.
 *
 * The hot side's fence keeps the compiler from reordering and costs nothing: the
 * rare side has the kernel run a full fence on every running thread of the
 * process (membarrier(2), PRIVATE_EXPEDITED). Where the kernel does not offer
 * that, the hot side runs a full fence itself.
 *
 * After "Asymmetric fences" in P1202 (C++), as folly and liburcu do.
 */
#ifndef BOP_ASYMMETRIC_FENCE_H
#define BOP_ASYMMETRIC_FENCE_H

#include <stdatomic.h>
#include <stdbool.h>

#include <bop/base.h>

/* Written once by bop__asymmetric_fence_init(), before any object that uses the fences is made. */
extern bool bop__asymmetric_fence_hot_is_full;

/* Register with the kernel; any thread, any number of times, cheap but for the first. */
void bop__asymmetric_fence_init(void);

/* For tests: do without the kernel's help from now on, or with it again where there is any. Nobody
 * may be using the fences meanwhile. */
void bop__asymmetric_fence_force_full(bool force);

/* A full fence, on this thread only. */
void bop__fence_full(void);

static inline void bop__fence_hot(void)
{
    /* For the compiler alone: the processor's part is done by bop__fence_rare(). */
    atomic_signal_fence(memory_order_seq_cst);
    if (BOP_UNLIKELY(bop__asymmetric_fence_hot_is_full)) {
        bop__fence_full();
    }
}

void bop__fence_rare(void);

#endif
