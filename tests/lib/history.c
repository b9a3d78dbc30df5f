/*
 * Recording histories, and the checkers that count: nothing lost, nothing
 * doubled, each producer's order, capacity. history_fifo.c decides
 * linearizability, history_search.c does so by brute force.
 */
#include "history.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "history_internal.h"

void *history__allocate(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);

    if (memory == NULL) {
        fprintf(stderr, "history: no memory for %zu * %zu bytes\n", count, size);
        abort();
    }
    return memory;
}

void history_init(struct history *history, size_t log_count, size_t ops_per_log)
{
    memset(history, 0, sizeof(*history));
    history->logs = history__allocate(log_count, sizeof(*history->logs));
    history->log_count = log_count;
    for (size_t i = 0; i < log_count; i++) {
        history->logs[i] = (struct history_log){
            .history = history,
            .ops = history__allocate(ops_per_log, sizeof(struct history_op)),
            .capacity = ops_per_log,
            .actor = (uint32_t)i,
        };
    }
}

void history_deinit(struct history *history)
{
    for (size_t i = 0; i < history->log_count; i++) {
        free(history->logs[i].ops);
    }
    free(history->logs);
    free(history->merged);
}

void history_clear(struct history *history)
{
    for (size_t i = 0; i < history->log_count; i++) {
        history->logs[i].count = 0;
    }
    atomic_store_explicit(&history->clock, 0, memory_order_relaxed);
}

bool history_has_room(const struct history_log *log, size_t count)
{
    return log->capacity - log->count >= count;
}

void history_record(struct history_log *log, enum history_kind kind, uint64_t from,
                    const uint64_t *values, size_t count)
{
    uint64_t to = history_now(log->history);

    if (!history_has_room(log, count)) {
        fprintf(stderr, "history: log %u is full at %zu operations\n", log->actor, log->capacity);
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        log->ops[log->count++] = (struct history_op){
            .value = kind == HISTORY_EMPTY ? 0 : values[i],
            .from = from,
            .to = to,
            .kind = kind,
            .actor = log->actor,
            .after_previous = i > 0,
        };
    }
}

const struct history_op *history_merge(struct history *history, size_t *out_count)
{
    size_t count = 0, at = 0;

    for (size_t i = 0; i < history->log_count; i++) {
        count += history->logs[i].count;
    }
    free(history->merged);
    history->merged = history__allocate(count, sizeof(*history->merged));
    for (size_t i = 0; i < history->log_count; i++) {
        const struct history_log *log = &history->logs[i];

        memcpy(&history->merged[at], log->ops, log->count * sizeof(*log->ops));
        at += log->count;
    }
    *out_count = count;
    return history->merged;
}

/* -- Pushes and pops paired by value ----------------------------------------------------------- */

static int compare_by_value(const void *a, const void *b)
{
    const struct history__item *x = a, *y = b;

    return x->push->value < y->push->value ? -1 : x->push->value > y->push->value;
}

struct history__item *history__find(struct history__pairs *pairs, uint64_t value)
{
    size_t low = 0, high = pairs->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (pairs->items[middle].push->value < value) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < pairs->count && pairs->items[low].push->value == value ? &pairs->items[low] : NULL;
}

static struct history_verdict check_pushes(const struct history__pairs *pairs)
{
    for (size_t i = 1; i < pairs->count; i++) {
        if (pairs->items[i].push->value == pairs->items[i - 1].push->value) {
            return history__verdict(HISTORY_MISUSE, "%" PRIu64 " was pushed twice",
                                    pairs->items[i].push->value);
        }
    }
    return (struct history_verdict){.violation = HISTORY_FINE};
}

static struct history_verdict add_pop(struct history__pairs *pairs, const struct history_op *pop)
{
    struct history__item *item = history__find(pairs, pop->value);

    if (item == NULL) {
        return history__verdict(
            HISTORY_FRESH, "%" PRIu64 " was popped at [%" PRIu64 ", %" PRIu64 "] and never pushed",
            pop->value, pop->from, pop->to);
    }
    if (item->pop != NULL) {
        return history__verdict(HISTORY_REPEAT,
                                "%" PRIu64 " was popped twice, at [%" PRIu64 ", %" PRIu64
                                "] and [%" PRIu64 ", %" PRIu64 "]",
                                pop->value, item->pop->from, item->pop->to, pop->from, pop->to);
    }
    if (pop->to < item->push->from) {
        return history__verdict(HISTORY_FRESH,
                                "%" PRIu64 " was popped at [%" PRIu64 ", %" PRIu64
                                "], before its push at [%" PRIu64 ", %" PRIu64 "]",
                                pop->value, pop->from, pop->to, item->push->from, item->push->to);
    }
    item->pop = pop;
    return (struct history_verdict){.violation = HISTORY_FINE};
}

struct history_verdict history__pair(struct history__pairs *pairs, const struct history_op *ops,
                                     size_t count)
{
    struct history_verdict verdict;

    *pairs = (struct history__pairs){.items = history__allocate(count, sizeof(*pairs->items))};
    for (size_t i = 0; i < count; i++) {
        if (ops[i].to < ops[i].from) {
            return history__verdict(HISTORY_MISUSE, "an operation ends before it begins");
        }
        if (ops[i].kind == HISTORY_PUSH) {
            pairs->items[pairs->count++].push = &ops[i];
        }
    }
    qsort(pairs->items, pairs->count, sizeof(*pairs->items), compare_by_value);
    verdict = check_pushes(pairs);
    for (size_t i = 0; i < count && verdict.violation == HISTORY_FINE; i++) {
        if (ops[i].kind == HISTORY_POP) {
            verdict = add_pop(pairs, &ops[i]);
        }
    }
    return verdict;
}

struct history_verdict history__verdict(enum history_violation violation, const char *format, ...)
{
    struct history_verdict verdict = {.violation = violation};
    va_list args;

    va_start(args, format);
    vsnprintf(verdict.text, sizeof(verdict.text), format, args);
    va_end(args);
    return verdict;
}

/* -- Checkers that count ----------------------------------------------------------------------- */

struct history_verdict history_check_conserved(const struct history_op *ops, size_t count,
                                               bool drained)
{
    struct history__pairs pairs;
    struct history_verdict verdict = history__pair(&pairs, ops, count);

    for (size_t i = 0; drained && verdict.violation == HISTORY_FINE && i < pairs.count; i++) {
        if (pairs.items[i].pop == NULL) {
            verdict = history__verdict(HISTORY_LOST, "%" PRIu64 " was pushed and never popped",
                                       pairs.items[i].push->value);
        }
    }
    free(pairs.items);
    return verdict;
}

static int compare_by_pop(const void *a, const void *b)
{
    const struct history__item *x = a, *y = b;

    if (x->push->actor != y->push->actor) {
        return x->push->actor < y->push->actor ? -1 : 1;
    }
    if (x->pop->actor != y->pop->actor) {
        return x->pop->actor < y->pop->actor ? -1 : 1;
    }
    return x->pop < y->pop ? -1 : x->pop > y->pop;
}

struct history_verdict history_check_producer_order(const struct history_op *ops, size_t count,
                                                    size_t late_max)
{
    struct history__pairs pairs;
    struct history_verdict verdict = history__pair(&pairs, ops, count);
    const struct history__item *newest = NULL;
    size_t kept = 0, late = 0;

    for (size_t i = 0; i < pairs.count; i++) {
        if (pairs.items[i].pop != NULL) {
            pairs.items[kept++] = pairs.items[i];
        }
    }
    qsort(pairs.items, kept, sizeof(*pairs.items), compare_by_pop);
    for (size_t i = 0; i < kept && verdict.violation == HISTORY_FINE; i++) {
        const struct history__item *item = &pairs.items[i];

        if (newest == NULL || newest->push->actor != item->push->actor ||
            newest->pop->actor != item->pop->actor || newest->push < item->push) {
            newest = item;
        } else if (++late > late_max) {
            verdict = history__verdict(HISTORY_LATE,
                                       "actor %u popped %" PRIu64 " of actor %u after %" PRIu64
                                       " (%zu may come late)",
                                       item->pop->actor, item->push->value, item->push->actor,
                                       newest->push->value, late_max);
        }
    }
    free(pairs.items);
    return verdict;
}

struct edge {
    uint64_t at;
    int change; /* In: +1 just after its push ended. Out: -1 when its pop began. */
};

/* At equal stamps they overlap, so that the one that leaves may have done so first. */
static int compare_edges(const void *a, const void *b)
{
    const struct edge *x = a, *y = b;

    if (x->at != y->at) {
        return x->at < y->at ? -1 : 1;
    }
    return x->change - y->change;
}

struct history_verdict history_check_capacity(const struct history_op *ops, size_t count,
                                              size_t capacity)
{
    struct history__pairs pairs;
    struct history_verdict verdict = history__pair(&pairs, ops, count);
    struct edge *edges = history__allocate(2 * pairs.count, sizeof(*edges));
    size_t edge_count = 0, inside = 0;

    for (size_t i = 0; i < pairs.count; i++) {
        const struct history__item *item = &pairs.items[i];

        if (item->pop != NULL && item->pop->from <= item->push->to) {
            continue; /* Perhaps never in it at all. */
        }
        edges[edge_count++] = (struct edge){.at = item->push->to, .change = 1};
        if (item->pop != NULL) {
            edges[edge_count++] = (struct edge){.at = item->pop->from, .change = -1};
        }
    }
    qsort(edges, edge_count, sizeof(*edges), compare_edges);
    for (size_t i = 0; i < edge_count && verdict.violation == HISTORY_FINE; i++) {
        inside += (size_t)edges[i].change;
        if (edges[i].change > 0 && inside > capacity) {
            verdict = history__verdict(
                HISTORY_CROWDED, "%zu values were inside after %" PRIu64 ", in a queue for %zu",
                inside, edges[i].at, capacity);
        }
    }
    free(edges);
    free(pairs.items);
    return verdict;
}
