/*
 * Histories of a queue under test, and whether a queue could have had them.
 *
 * Each thread records what it did in a log of its own: which operation, on which
 * value, and when it began and ended on a clock that all logs share. Afterwards
 * the logs are put together and the checkers decide. An operation precedes
 * another if it ended before the other began; operations whose stamps touch or
 * are equal overlap, and may have taken effect either way round.
 *
 * The values pushed must be unique. A bulk operation is recorded as one
 * operation for each of its items, all over the time of the whole, ordered among
 * themselves (after_previous) but with room for those of others between them.
 *
 *     uint64_t from = history_now(&h);
 *     int rc = bop_mpmc_push(queue, NULL, value);
 *     if (rc == 0) {
 *         history_record(&h.logs[me], HISTORY_PUSH, from, &value, 1);
 *     }
 *
 * Threads: history_now() and a log of one's own at any time, all else when no
 * thread records.
 */
#ifndef BOP_TESTS_HISTORY_H
#define BOP_TESTS_HISTORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum history_kind {
    HISTORY_PUSH,
    HISTORY_POP,
    HISTORY_EMPTY, /* A pop that found nothing. */
};

struct history_op {
    uint64_t value; /* 0 for HISTORY_EMPTY. */
    uint64_t from;
    uint64_t to;
    enum history_kind kind;
    uint32_t actor;      /* The log: a thread, or a token. */
    bool after_previous; /* In one bulk with the element before it in the array, and after it. */
};

/* ---- Recording ---- */

struct history_log {
    struct history *history;
    struct history_op *ops;
    size_t count;
    size_t capacity;
    uint32_t actor;
    char padding[88]; /* Logs of two threads share no cache line. */
};

struct history {
    struct history_log *logs;
    size_t log_count;
    struct history_op *merged;
    _Alignas(128) atomic_uint_fast64_t clock;
    char padding[120];
};

/** Aborts if there is no memory, as all of this does. */
void history_init(struct history *history, size_t log_count, size_t ops_per_log);
void history_deinit(struct history *history);
/** Forget what was recorded. */
void history_clear(struct history *history);

/**
 * The next tick. The fetch-and-add takes a place in the one order of all ticks, and neither the
 * processor nor the compiler moves an operation of the queue across it; it is relaxed so as not to
 * hide a missing happens-before from the thread sanitizer.
 */
static inline uint64_t history_now(struct history *history)
{
    uint64_t now;

#if !defined(__x86_64__) && !defined(__i386__)
    atomic_thread_fence(memory_order_seq_cst);
#endif
    atomic_signal_fence(memory_order_seq_cst);
    now = atomic_fetch_add_explicit(&history->clock, 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
#if !defined(__x86_64__) && !defined(__i386__)
    atomic_thread_fence(memory_order_seq_cst);
#endif
    return now;
}

/**
 * An operation that began at `from` has just ended: on one value, or a bulk of several; values is
 * not looked at for HISTORY_EMPTY, whose count is 1. Aborts if the log is full.
 */
void history_record(struct history_log *log, enum history_kind kind, uint64_t from,
                    const uint64_t *values, size_t count);

/** Room for one more of that many operations. */
bool history_has_room(const struct history_log *log, size_t count);

/** All logs, one after the other. Valid until the next call on the history. */
const struct history_op *history_merge(struct history *history, size_t *out_count);

/* ---- Checking ---- */

enum history_violation {
    HISTORY_FINE = 0,
    HISTORY_MISUSE,  /* A value was pushed twice, or an operation ends before it begins. */
    HISTORY_FRESH,   /* Popped without a push, or before it. */
    HISTORY_REPEAT,  /* Popped twice. */
    HISTORY_ORDER,   /* Popped in an order in which it cannot have been pushed. */
    HISTORY_WITNESS, /* Found empty while there was always something in it. */
    HISTORY_LOST,    /* Pushed and never popped. */
    HISTORY_LATE,    /* Popped by a consumer after a later item of the same producer. */
    HISTORY_CROWDED, /* More inside than there is room for. */
};

struct history_verdict {
    enum history_violation violation;
    char text[400]; /* What is wrong, in values and stamps. */
};

enum history_options {
    /* HISTORY_EMPTY says nothing: the queue may refuse a pop for reasons of its own. */
    HISTORY_EMPTY_IS_SPURIOUS = 1 << 0,
};

/**
 * Is this a history of a linearizable FIFO queue? All operations have ended; values that were
 * pushed and not popped are still inside.
 *
 * O(n log n), after the characterisation of Henzinger, Sezgin and Vafeiadis (Aspect-oriented
 * linearizability proofs, CONCUR 2013), and complete for bulks as well.
 */
struct history_verdict history_check_fifo(const struct history_op *ops, size_t count,
                                          unsigned options);

/**
 * The same question, answered by trying every order (Wing and Gong, with Lowe's memory of states
 * seen). At most HISTORY_SEARCH_MAX operations, HISTORY_SEARCH_PUSHES_MAX of them pushes; values
 * may repeat.
 */
#define HISTORY_SEARCH_MAX        32
#define HISTORY_SEARCH_PUSHES_MAX 16
bool history_search_fifo(const struct history_op *ops, size_t count, unsigned options);

/** Nothing came from nowhere, nothing came twice; and if drained, all that went in came out. */
struct history_verdict history_check_conserved(const struct history_op *ops, size_t count,
                                               bool drained);

/**
 * Each actor popped the values of each other actor in the order of their pushes, but for at most
 * late_max pops that came late. The operations of an actor lie in the array in their order.
 */
struct history_verdict history_check_producer_order(const struct history_op *ops, size_t count,
                                                    size_t late_max);

/** At no time were more than capacity values inside for certain. */
struct history_verdict history_check_capacity(const struct history_op *ops, size_t count,
                                              size_t capacity);

#endif
