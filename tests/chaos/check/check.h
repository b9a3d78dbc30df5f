/*
 * Could a correct cluster have had this history?
 *
 * Registers and counters: is there an order of the operations, each at some
 * moment between its start and its end, in which one register or counter that
 * does one thing at a time gives these answers? The search is that of Wing and
 * Gong with Lowe's memory, one object at a time. Sets, lists, tallies, locks,
 * banks and watches have rules that take one pass or a sort; each file says which.
 *
 * Moments that touch overlap: an operation precedes another if it ended before the other began.
 */
#ifndef BOP_CHAOS_CHECK_H
#define BOP_CHAOS_CHECK_H

#include "history.h"

enum chaos_judgement {
    CHAOS_FINE,
    CHAOS_WRONG,
    CHAOS_UNDECIDED, /* The search took too long, which is not good enough. */
};

struct chaos_verdict {
    enum chaos_judgement judgement;
    size_t states;  /* That a search has seen; 0 where there was none. */
    char text[512]; /* What is wrong, with the lines of the history. */
};

/** Check one object. cap_ms bounds a search; 0 means no bound. */
struct chaos_verdict chaos_check_part(const struct chaos_part *part, uint64_t cap_ms);

/* The checkers by themselves. */
struct chaos_verdict chaos_check_linear(const struct chaos_part *part, uint64_t cap_ms);
struct chaos_verdict chaos_check_tally(const struct chaos_part *part);
struct chaos_verdict chaos_check_set(const struct chaos_part *part);
struct chaos_verdict chaos_check_list(const struct chaos_part *part);
struct chaos_verdict chaos_check_lock(const struct chaos_part *part);
struct chaos_verdict chaos_check_bank(const struct chaos_part *part);
struct chaos_verdict chaos_check_skew(const struct chaos_part *part);
struct chaos_verdict chaos_check_watch(const struct chaos_part *part);

#endif
