/*
 * Is a history one of a linearizable FIFO queue?
 *
 * The values of such a queue have an order, in which they are both pushed and
 * popped. So look for an order of the values in which u comes before v wherever
 *
 *     (1) the push of u precedes that of v, or the pop of u that of v,
 *     (2) the pop of u precedes the push of v,
 *     (3) u is ahead of v in a bulk that pushed, or popped, both;
 *
 * a value that was never popped counts as popped after all others. Such an
 * order is enough: pushes and pops, each taken in it, can be merged so that what
 * precedes stays before. (A circle would have the push of u precede the pop of
 * v and the pop of an earlier one precede the push of a later one; as
 * precedence of intervals goes, the push of the later one would then be after
 * that of u, against (1).)
 *
 * The order is found greedily: give out any value that nothing left must come
 * before. If none can be given out there is a circle, hence no order.
 *
 * A pop that found nothing needs a moment, within its time, at which every value
 * is either gone or yet to come. If an operation of a value precedes that
 * moment, both do, and so do those of the values ahead of it in bulks; the
 * moments between the end of its first operation (or of theirs) and the begin of
 * its last are therefore no such moments, and values whose spans overlap bar
 * them without a gap.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "history_internal.h"

#define NONE  SIZE_MAX
#define NEVER UINT64_MAX

struct value {
    const struct history__item *item;
    uint64_t push_from, push_to;
    uint64_t pop_from, pop_to; /* NEVER if it was not popped. */
    uint64_t bar_from;         /* The first of the ends, of it and all behind it in bulks. */
    uint64_t bar_to;           /* The last of the begins. */
    size_t next_pushed;        /* Behind it in the bulk that pushed it, or NONE. */
    size_t next_popped;
    unsigned ahead; /* In bulks, not yet given out. */
    bool begun;     /* As far as its push goes, it may be given out. */
    bool given;
};

struct ordering {
    struct value *values;
    size_t count;
    size_t *by_push_from, *by_push_to, *by_pop_to;
    size_t push_from_at, push_to_at, pop_to_at;
    size_t *ready; /* A heap by pop_from. */
    size_t ready_count;
    size_t *order; /* What was given out. */
    size_t given_count;
};

/* -- Setting up -------------------------------------------------------------------------------- */

static void link_bulks(struct ordering *o, struct history__pairs *pairs,
                       const struct history_op *ops, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        size_t from, to;

        if (!ops[i].after_previous || ops[i].kind == HISTORY_EMPTY) {
            continue;
        }
        from = (size_t)(history__find(pairs, ops[i - 1].value) - pairs->items);
        to = (size_t)(history__find(pairs, ops[i].value) - pairs->items);
        if (ops[i].kind == HISTORY_PUSH) {
            o->values[from].next_pushed = to;
        } else {
            o->values[from].next_popped = to;
        }
        o->values[to].ahead++;
    }
}

static int compare_u64(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int compare_push_from(const void *a, const void *b, void *values)
{
    const struct value *v = values;

    return compare_u64(v[*(const size_t *)a].push_from, v[*(const size_t *)b].push_from);
}

static int compare_push_to(const void *a, const void *b, void *values)
{
    const struct value *v = values;

    return compare_u64(v[*(const size_t *)a].push_to, v[*(const size_t *)b].push_to);
}

static int compare_pop_to(const void *a, const void *b, void *values)
{
    const struct value *v = values;

    return compare_u64(v[*(const size_t *)a].pop_to, v[*(const size_t *)b].pop_to);
}

static size_t *sorted(struct ordering *o, int (*compare)(const void *, const void *, void *))
{
    size_t *index = history__allocate(o->count, sizeof(*index));

    for (size_t i = 0; i < o->count; i++) {
        index[i] = i;
    }
    qsort_r(index, o->count, sizeof(*index), compare, o->values);
    return index;
}

static void ordering_init(struct ordering *o, struct history__pairs *pairs,
                          const struct history_op *ops, size_t count)
{
    *o = (struct ordering){.count = pairs->count};
    o->values = history__allocate(o->count, sizeof(*o->values));
    for (size_t i = 0; i < o->count; i++) {
        const struct history__item *item = &pairs->items[i];

        o->values[i] = (struct value){
            .item = item,
            .push_from = item->push->from,
            .push_to = item->push->to,
            .pop_from = item->pop != NULL ? item->pop->from : NEVER,
            .pop_to = item->pop != NULL ? item->pop->to : NEVER,
            .next_pushed = NONE,
            .next_popped = NONE,
        };
        o->values[i].bar_from = bop_min_u64(o->values[i].push_to, o->values[i].pop_to);
        o->values[i].bar_to = bop_max_u64(o->values[i].push_from, o->values[i].pop_from);
    }
    link_bulks(o, pairs, ops, count);
    o->by_push_from = sorted(o, compare_push_from);
    o->by_push_to = sorted(o, compare_push_to);
    o->by_pop_to = sorted(o, compare_pop_to);
    o->ready = history__allocate(o->count, sizeof(*o->ready));
    o->order = history__allocate(o->count, sizeof(*o->order));
}

static void ordering_deinit(struct ordering *o)
{
    free(o->values);
    free(o->by_push_from);
    free(o->by_push_to);
    free(o->by_pop_to);
    free(o->ready);
    free(o->order);
}

/* -- The order of the values ------------------------------------------------------------------- */

static void ready_add(struct ordering *o, size_t value)
{
    size_t at = o->ready_count++;

    while (at > 0 && o->values[o->ready[(at - 1) / 2]].pop_from > o->values[value].pop_from) {
        o->ready[at] = o->ready[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    o->ready[at] = value;
}

static size_t ready_take(struct ordering *o)
{
    size_t taken = o->ready[0], moved = o->ready[--o->ready_count], at = 0;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < o->ready_count &&
            o->values[o->ready[child + 1]].pop_from < o->values[o->ready[child]].pop_from) {
            child++;
        }
        if (child >= o->ready_count ||
            o->values[o->ready[child]].pop_from >= o->values[moved].pop_from) {
            break;
        }
        o->ready[at] = o->ready[child];
        at = child;
    }
    if (o->ready_count > 0) {
        o->ready[at] = moved;
    }
    return taken;
}

/* The first end of a push, and of a pop, among the values not yet given out. */
static void first_ends(struct ordering *o, uint64_t *out_push_to, uint64_t *out_pop_to)
{
    while (o->push_to_at < o->count && o->values[o->by_push_to[o->push_to_at]].given) {
        o->push_to_at++;
    }
    while (o->pop_to_at < o->count && o->values[o->by_pop_to[o->pop_to_at]].given) {
        o->pop_to_at++;
    }
    *out_push_to = o->values[o->by_push_to[o->push_to_at]].push_to;
    *out_pop_to = o->values[o->by_pop_to[o->pop_to_at]].pop_to;
}

static void one_ahead_given(struct ordering *o, size_t value)
{
    if (value != NONE && --o->values[value].ahead == 0 && o->values[value].begun) {
        ready_add(o, value);
    }
}

/* Give out one value, or return false: each that is left must come after another. */
static bool give_next(struct ordering *o)
{
    uint64_t push_to, pop_to;
    struct value *value;
    size_t next;

    first_ends(o, &push_to, &pop_to);
    while (o->push_from_at < o->count) {
        value = &o->values[o->by_push_from[o->push_from_at]];
        if (value->push_from > push_to || value->push_from > pop_to) {
            break;
        }
        value->begun = true;
        if (value->ahead == 0) {
            ready_add(o, o->by_push_from[o->push_from_at]);
        }
        o->push_from_at++;
    }
    if (o->ready_count == 0 || o->values[o->ready[0]].pop_from > pop_to) {
        return false;
    }
    next = ready_take(o);
    o->values[next].given = true;
    o->order[o->given_count++] = next;
    one_ahead_given(o, o->values[next].next_pushed);
    one_ahead_given(o, o->values[next].next_popped);
    return true;
}

/* -- Saying what is wrong ---------------------------------------------------------------------- */

static bool pushed_before(const struct value *u, const struct value *v)
{
    return u->push_to < v->push_from;
}

static bool popped_before(const struct value *u, const struct value *v)
{
    return u->pop_to < v->pop_from;
}

/* Most violations are two values, one pushed first and the other popped first. */
static struct history_verdict describe_order(const struct ordering *o)
{
    size_t looked_at = 0;

    for (size_t i = 0; i < o->count; i++) {
        const struct value *u = &o->values[i];

        for (size_t j = 0; !u->given && j < o->count && looked_at < 10000000; j++, looked_at++) {
            const struct value *v = &o->values[j];
            bool in_bulk = u->next_pushed == j;

            if (v->given || !popped_before(v, u) || !(pushed_before(u, v) || in_bulk)) {
                continue;
            }
            return history__verdict(
                HISTORY_ORDER,
                "%" PRIu64 " was pushed at [%" PRIu64 ", %" PRIu64 "] and popped at [%" PRIu64
                ", %" PRIu64 "]%s; %" PRIu64 " was pushed after it%s at [%" PRIu64 ", %" PRIu64
                "] and popped before it at [%" PRIu64 ", %" PRIu64 "]",
                u->item->push->value, u->push_from, u->push_to, u->pop_from, u->pop_to,
                u->pop_from == NEVER ? " (never)" : "", v->item->push->value,
                in_bulk ? " in one bulk" : "", v->push_from, v->push_to, v->pop_from, v->pop_to);
        }
    }
    return history__verdict(HISTORY_ORDER, "%zu of %zu values fit into no order",
                            o->count - o->given_count, o->count);
}

/* -- Pops that found nothing ------------------------------------------------------------------- */

struct span {
    uint64_t from, to;
};

static int compare_spans(const void *a, const void *b)
{
    return compare_u64(((const struct span *)a)->from, ((const struct span *)b)->from);
}

/* The moments, ends excluded, at which the queue cannot have been empty: disjoint, ascending. */
static size_t find_bars(struct ordering *o, struct span *bars)
{
    size_t spans = 0, count = 0;

    for (size_t i = o->given_count; i-- > 0;) {
        struct value *value = &o->values[o->order[i]];

        if (value->next_pushed != NONE) {
            value->bar_from = bop_min_u64(value->bar_from, o->values[value->next_pushed].bar_from);
        }
        if (value->next_popped != NONE) {
            value->bar_from = bop_min_u64(value->bar_from, o->values[value->next_popped].bar_from);
        }
        if (value->bar_from < value->bar_to) {
            bars[spans++] = (struct span){.from = value->bar_from, .to = value->bar_to};
        }
    }
    qsort(bars, spans, sizeof(*bars), compare_spans);
    for (size_t i = 0; i < spans; i++) {
        if (count > 0 && bars[i].from < bars[count - 1].to) {
            bars[count - 1].to = bop_max_u64(bars[count - 1].to, bars[i].to);
        } else {
            bars[count++] = bars[i];
        }
    }
    return count;
}

static struct history_verdict check_empty(const struct history_op *op, const struct span *bars,
                                          size_t bar_count)
{
    size_t low = 0, high = bar_count; /* The last bar that begins before the operation does. */

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (bars[middle].from < op->from) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0 || bars[low - 1].to <= op->to) {
        return (struct history_verdict){.violation = HISTORY_FINE};
    }
    return history__verdict(HISTORY_WITNESS,
                            "empty at [%" PRIu64 ", %" PRIu64 "], while it was not between %" PRIu64
                            " and %" PRIu64,
                            op->from, op->to, bars[low - 1].from, bars[low - 1].to);
}

struct history_verdict history_check_fifo(const struct history_op *ops, size_t count,
                                          unsigned options)
{
    struct history__pairs pairs;
    struct history_verdict verdict = history__pair(&pairs, ops, count);
    struct ordering o;

    if (verdict.violation == HISTORY_FINE) {
        ordering_init(&o, &pairs, ops, count);
        while (o.given_count < o.count && give_next(&o)) {
        }
        if (o.given_count < o.count) {
            verdict = describe_order(&o);
        } else if ((options & HISTORY_EMPTY_IS_SPURIOUS) == 0) {
            struct span *bars = history__allocate(o.count, sizeof(*bars));
            size_t bar_count = find_bars(&o, bars);

            for (size_t i = 0; i < count && verdict.violation == HISTORY_FINE; i++) {
                if (ops[i].kind == HISTORY_EMPTY) {
                    verdict = check_empty(&ops[i], bars, bar_count);
                }
            }
            free(bars);
        }
        ordering_deinit(&o);
    }
    free(pairs.items);
    return verdict;
}
