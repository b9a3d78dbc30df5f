/*
 * Which checker is for what, and what they share.
 */
#include "check.h"

#include <stdarg.h>
#include <stdlib.h>

#include "internal.h"

struct chaos_verdict chaos_check_part(const struct chaos_part *part, uint64_t cap_ms)
{
    switch (part->kind) {
    case CHAOS_REGISTER:
    case CHAOS_COUNTER:
        return chaos_check_linear(part, cap_ms);
    case CHAOS_TALLY:
        return chaos_check_tally(part);
    case CHAOS_SET:
        return chaos_check_set(part);
    case CHAOS_LIST:
        return chaos_check_list(part);
    case CHAOS_LOCK:
        return chaos_check_lock(part);
    case CHAOS_BANK:
        return chaos_check_bank(part);
    case CHAOS_SKEW:
        return chaos_check_skew(part);
    case CHAOS_WATCH:
        return chaos_check_watch(part);
    default:
        return chaos__wrong("no checker for %s", part->object);
    }
}

struct chaos_verdict chaos__wrong(const char *format, ...)
{
    struct chaos_verdict verdict = {.judgement = CHAOS_WRONG};
    va_list args;

    va_start(args, format);
    vsnprintf(verdict.text, sizeof(verdict.text), format, args);
    va_end(args);
    return verdict;
}

/* ---- Tables ---- */

void chaos__table_add(struct chaos__table *table, int64_t key, const struct chaos_event *event)
{
    if (table->count == table->capacity) {
        table->entries = chaos__grow(table->entries, &table->capacity, sizeof(*table->entries));
    }
    table->entries[table->count++] = (struct chaos__entry){key, event};
}

static int compare_entries(const void *a, const void *b)
{
    const struct chaos__entry *left = a, *right = b;

    if (left->key != right->key) {
        return left->key < right->key ? -1 : 1;
    }
    if (left->event->start != right->event->start) {
        return left->event->start < right->event->start ? -1 : 1;
    }
    return 0;
}

void chaos__table_sort(struct chaos__table *table)
{
    if (table->count != 0) {
        qsort(table->entries, table->count, sizeof(*table->entries), compare_entries);
    }
}

const struct chaos__entry *chaos__table_find(const struct chaos__table *table, int64_t key)
{
    size_t low = 0, high = table->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (table->entries[middle].key < key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < table->count && table->entries[low].key == key ? &table->entries[low] : NULL;
}

void chaos__table_deinit(struct chaos__table *table)
{
    free(table->entries);
    table->entries = NULL;
    table->count = table->capacity = 0;
}
