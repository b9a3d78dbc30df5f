/*
 * Hazard pointers for the segments of a fifo queue (Michael, 2004).
 *
 * Each token owns a record that names the segment it works in. The pointer stays
 * there between operations, so that the usual operation finds its segment still
 * protected and publishes nothing. A token therefore pins one segment at most for
 * as long as it idles.
 *
 * Operations without a token borrow a record, by preference the one that their
 * thread had the last time. A record that nobody holds keeps its pointer too, but
 * protects nothing: whoever wants the segment freed takes it away.
 *
 * A segment is retired by who has unlinked it: onto a stack of which whoever
 * sweeps takes all, keeps what is protected and puts that back. Who drops a
 * pointer sweeps as well, so a segment goes when the last that names it moves on.
 */
#ifndef BOP_MPMC_FIFO_HAZARD_H
#define BOP_MPMC_FIFO_HAZARD_H

#include "fifo_segment.h"

/* Records that need no allocation, for operations without a token. */
#define BOP__FIFO_FIXED_HAZARDS 8

enum bop__fifo_role {
    BOP__FIFO_PRODUCER = 0,
    BOP__FIFO_CONSUMER = 1,
    BOP__FIFO_ROLES = 2,
};

struct bop__fifo_hazard {
    _Atomic(struct bop__fifo_segment *) segment; /* Written by the holder only. */
    atomic_uint held;                            /* By a token or an operation. */
    uint32_t limit; /* The holder's: slots below it in `segment` are reserved. */
    struct bop__fifo_hazard *next;
    char pad[BOP__CACHE_LINE - 2 * sizeof(void *) - 2 * sizeof(unsigned)];
};

struct bop__fifo_hazards {
    struct bop__fifo_store *store; /* Where free segments go. */
    struct bop_allocator *allocator;
    _Alignas(
        BOP__CACHE_LINE) struct bop__fifo_hazard fixed[BOP__FIFO_ROLES][BOP__FIFO_FIXED_HAZARDS];
    _Atomic(struct bop__fifo_hazard *) list; /* Only ever added to. */
    _Atomic(struct bop__fifo_segment *) retired;
    _Atomic uint64_t dropped; /* Pointers dropped so far. */
};

/* A record for a token, or NULL if there is no memory. */
struct bop__fifo_hazard *bop__fifo_hazard_open(struct bop__fifo_hazards *hazards);
void bop__fifo_hazard_close(struct bop__fifo_hazards *hazards, struct bop__fifo_hazard *hazard);

/* A record for one operation; never fails. */
struct bop__fifo_hazard *bop__fifo_hazard_borrow(struct bop__fifo_hazards *hazards,
                                                 enum bop__fifo_role role);
void bop__fifo_hazard_return(struct bop__fifo_hazards *hazards, struct bop__fifo_hazard *hazard);

struct bop__fifo_segment *bop__fifo_hazard_protect_slow(struct bop__fifo_hazards *hazards,
                                                        struct bop__fifo_hazard *hazard,
                                                        _Atomic(struct bop__fifo_segment *) *from);

/* The segment that `from` names, protected until the record protects another. */
static inline struct bop__fifo_segment *
bop__fifo_hazard_protect(struct bop__fifo_hazards *hazards, struct bop__fifo_hazard *hazard,
                         _Atomic(struct bop__fifo_segment *) *from)
{
    /* Acquire pairs with the release that put it there: its fields are set. */
    struct bop__fifo_segment *segment = atomic_load_explicit(from, memory_order_acquire);

    /* Relaxed: our own. It has been protected without a break, so it is the same segment and not
     * another at its address. */
    if (BOP_LIKELY(segment == atomic_load_explicit(&hazard->segment, memory_order_relaxed))) {
        return segment;
    }
    return bop__fifo_hazard_protect_slow(hazards, hazard, from);
}

/* Let go of the segment. */
void bop__fifo_hazard_drop(struct bop__fifo_hazards *hazards, struct bop__fifo_hazard *hazard);

/* Free the unlinked segment once nobody protects it. The caller does not. */
void bop__fifo_hazard_retire(struct bop__fifo_hazards *hazards, struct bop__fifo_segment *segment);

/* Free all records and what is retired; nobody holds a record. */
void bop__fifo_hazards_deinit(struct bop__fifo_hazards *hazards);

#endif
