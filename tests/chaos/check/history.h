/*
 * Histories of a cluster under faults: what each process of a workload asked for,
 * when, and what it heard.
 *
 * A history is text, one operation a line, in any order:
 *
 *      start end process outcome operation object numbers...
 *      120034000 120871200 7 ok reg.put r3.1 42
 *      120035000 - 9 unknown reg.cas r3.1 42 43
 *
 * start and end are nanoseconds on a clock that all lines share. outcome is ok; fail, which
 * says that nothing was changed; or unknown, whose end is "-": it may have been done at any
 * time after its start, or never. object is what the operation is about: a key, a counter, a
 * lock. Lines that begin with # are for people.
 *
 * The operations and their numbers are in history_ops.def. Those after the semicolon are what was
 * answered, and missing unless the outcome is ok.
 */
#ifndef BOP_CHAOS_HISTORY_H
#define BOP_CHAOS_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CHAOS_NEVER INT64_MAX /* When an unknown operation ended. */

enum chaos_op {
#define CHAOS_OP(symbol, text, kind, asked, answered) CHAOS_##symbol,
#include "history_ops.def"
#undef CHAOS_OP
    CHAOS_OPS
};

/* The kinds of objects; each has its checker. */
enum chaos_kind {
    CHAOS_REGISTER,
    CHAOS_COUNTER,
    CHAOS_TALLY,
    CHAOS_SET,
    CHAOS_LIST,
    CHAOS_LOCK,
    CHAOS_BANK,
    CHAOS_SKEW,
    CHAOS_WATCH,
    CHAOS_KINDS
};

enum chaos_outcome { CHAOS_OK, CHAOS_FAIL, CHAOS_UNKNOWN };

struct chaos_event {
    int64_t start;
    int64_t end;
    uint32_t process;
    enum chaos_outcome outcome;
    enum chaos_op op;
    const char *object; /* Of the history; equal names are the same pointer. */
    size_t line;
    size_t count;
    const int64_t *args;
};

/* The events of one object, sorted by their start. */
struct chaos_part {
    const char *object;
    enum chaos_kind kind;
    const struct chaos_event *events;
    size_t count;
};

struct chaos_history {
    struct chaos_event *events; /* Sorted by object, then by start. */
    size_t count;
    size_t capacity;
    struct chaos_part *parts;
    size_t part_count;
    struct chaos_block *blocks; /* What the events point to. */
};

void chaos_history_init(struct chaos_history *history);
void chaos_history_deinit(struct chaos_history *history);

/** Add a line. Returns false, and says why, if it is not one. Aborts if there is no memory. */
bool chaos_history_add(struct chaos_history *history, const char *line, size_t number, char *why,
                       size_t why_size);
/** Add all lines of a file; likewise. */
bool chaos_history_read(struct chaos_history *history, FILE *file, char *why, size_t why_size);
/** All is added: sort, and make the parts. False if an object is used as two kinds. */
bool chaos_history_finish(struct chaos_history *history, char *why, size_t why_size);

const char *chaos_op_text(enum chaos_op op);
enum chaos_kind chaos_op_kind(enum chaos_op op);
const char *chaos_kind_text(enum chaos_kind kind);

#endif
