/*
 * What the files of the history checker share.
 */
#ifndef BOP_TESTS_HISTORY_INTERNAL_H
#define BOP_TESTS_HISTORY_INTERNAL_H

#include <stdarg.h>

#include <bop/base.h>

#include "history.h"

/* A value: its push and, if there was one, its pop. */
struct history__item {
    const struct history_op *push;
    const struct history_op *pop;
};

/* Sorted by value. */
struct history__pairs {
    struct history__item *items; /* The caller frees them, whatever the verdict. */
    size_t count;
};

/* Zeroed; aborts if there is no memory. */
void *history__allocate(size_t count, size_t size);

/* Pair the pushes with their pops; finds MISUSE, FRESH and REPEAT, and stops there. */
struct history_verdict history__pair(struct history__pairs *pairs, const struct history_op *ops,
                                     size_t count);
struct history__item *history__find(struct history__pairs *pairs, uint64_t value);

BOP_PRINTF(2, 3)
struct history_verdict history__verdict(enum history_violation violation, const char *format, ...);

#endif
