/*
 * What the files of the checkers share.
 */
#ifndef BOP_CHAOS_INTERNAL_H
#define BOP_CHAOS_INTERNAL_H

#include <bop/base.h>

#include "check.h"

/* Zeroed. Both abort if there is no memory. */
void *chaos__allocate(size_t count, size_t size);
/* Twice as large, or 64 at first; size is that of one item. */
void *chaos__grow(void *memory, size_t *capacity, size_t size);

BOP_PRINTF(1, 2) struct chaos_verdict chaos__wrong(const char *format, ...);
static inline struct chaos_verdict chaos__fine(void)
{
    return (struct chaos_verdict){.judgement = CHAOS_FINE};
}

static inline int64_t chaos__max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* An ascending table of numbers, each with the event it comes from. */
struct chaos__entry {
    int64_t key;
    const struct chaos_event *event;
};
struct chaos__table {
    struct chaos__entry *entries;
    size_t count;
    size_t capacity;
};
void chaos__table_add(struct chaos__table *table, int64_t key, const struct chaos_event *event);
/* To be called before looking up: by key, then by the start of the event. */
void chaos__table_sort(struct chaos__table *table);
/* The first one with this key, or NULL. */
const struct chaos__entry *chaos__table_find(const struct chaos__table *table, int64_t key);
void chaos__table_deinit(struct chaos__table *table);

#endif
