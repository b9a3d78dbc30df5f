/*
 * Watches of a map whose values are unique. Each watcher hears of each acknowledged put once, in
 * the order of the versions, of nothing that nobody put, and nothing else than what was put; what
 * it was told that it missed, up to a version, may be missing. What it heard last of a key is
 * what the map holds in the end. A watcher begins before the first put; an object without a final
 * content was not read to its end, so that only what is there is judged.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum {
    WATCHER = 0, /* Of events, the fields' places. */
    PLACE = 1,
    KEY = 2,
    VALUE = 3,
    VERSION = 4,
    RESET_VERSION = 2,
};

struct watch {
    const struct chaos_part *part;
    const struct chaos_event *final;
    struct chaos__table puts;         /* By value. */
    const struct chaos_event **heard; /* Events and resets by watcher, then place. */
    size_t heard_count;
};

static int compare_heard(const void *a, const void *b)
{
    const struct chaos_event *left = *(const struct chaos_event *const *)a;
    const struct chaos_event *right = *(const struct chaos_event *const *)b;

    for (int i = WATCHER; i <= PLACE; i++) {
        if (left->args[i] != right->args[i]) {
            return left->args[i] < right->args[i] ? -1 : 1;
        }
    }
    return 0;
}

static void gather(struct watch *watch)
{
    const struct chaos_part *part = watch->part;

    watch->heard = chaos__allocate(part->count, sizeof(*watch->heard));
    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];

        if (e->op == CHAOS_WATCH_PUT) {
            chaos__table_add(&watch->puts, e->args[1], e);
        } else if (e->op == CHAOS_WATCH_FINAL && e->outcome == CHAOS_OK) {
            watch->final = e;
        } else if (e->op != CHAOS_WATCH_FINAL) {
            watch->heard[watch->heard_count++] = e;
        }
    }
    chaos__table_sort(&watch->puts);
    if (watch->heard_count != 0) {
        qsort(watch->heard, watch->heard_count, sizeof(struct chaos_event *), compare_heard);
    }
}

/* The event tells of a put that was made, as it was made. */
static struct chaos_verdict check_event(const struct watch *watch, const struct chaos_event *e)
{
    const struct chaos__entry *put = chaos__table_find(&watch->puts, e->args[VALUE]);
    const char *object = watch->part->object;

    if (put == NULL || put->event->args[0] != e->args[KEY] || put->event->outcome == CHAOS_FAIL ||
        put->event->start > e->end) {
        return chaos__wrong("%s: line %zu: nobody had put %" PRId64 " under %" PRId64, object,
                            e->line, e->args[VALUE], e->args[KEY]);
    }
    if (put->event->outcome == CHAOS_OK && put->event->args[2] != e->args[VERSION]) {
        return chaos__wrong("%s: line %zu says version %" PRId64 ", line %zu %" PRId64, object,
                            e->line, e->args[VERSION], put->event->line, put->event->args[2]);
    }
    return chaos__fine();
}

/* One watcher's stream: heard[from] to heard[to - 1]. */
static struct chaos_verdict check_stream(const struct watch *watch, size_t from, size_t to)
{
    const char *object = watch->part->object;
    int64_t version = INT64_MIN;

    for (size_t i = from; i < to; i++) {
        const struct chaos_event *e = watch->heard[i];
        struct chaos_verdict verdict;

        if (i > from && e->args[PLACE] == watch->heard[i - 1]->args[PLACE]) {
            return chaos__wrong("%s: lines %zu and %zu have the same place in a stream", object,
                                watch->heard[i - 1]->line, e->line);
        }
        if (e->op == CHAOS_WATCH_RESET) {
            version = chaos__max(version, e->args[RESET_VERSION]);
            continue;
        }
        if (e->args[VERSION] <= version) {
            return chaos__wrong("%s: line %zu tells of version %" PRId64 " after version %" PRId64,
                                object, e->line, e->args[VERSION], version);
        }
        version = e->args[VERSION];
        verdict = check_event(watch, e);
        if (verdict.judgement != CHAOS_FINE) {
            return verdict;
        }
    }
    return chaos__fine();
}

static int compare_numbers(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return left < right ? -1 : left > right;
}

/* All that was put, and is not under a reset, was heard of. */
static struct chaos_verdict check_gaps(const struct watch *watch, size_t from, size_t to)
{
    int64_t *values = chaos__allocate(to - from, sizeof(*values));
    struct chaos_verdict verdict = chaos__fine();
    int64_t excused = INT64_MIN;
    size_t count = 0;

    for (size_t i = from; i < to; i++) {
        const struct chaos_event *e = watch->heard[i];

        if (e->op == CHAOS_WATCH_RESET) {
            excused = chaos__max(excused, e->args[RESET_VERSION]);
        } else {
            values[count++] = e->args[VALUE];
        }
    }
    qsort(values, count, sizeof(*values), compare_numbers);
    for (size_t i = 0; i < watch->puts.count && verdict.judgement == CHAOS_FINE; i++) {
        const struct chaos_event *put = watch->puts.entries[i].event;

        if (put->outcome == CHAOS_OK && put->args[2] > excused &&
            bsearch(&put->args[1], values, count, sizeof(*values), compare_numbers) == NULL) {
            verdict = chaos__wrong("%s: watcher %" PRId64 " did not hear of the put in line %zu",
                                   watch->part->object, watch->heard[from]->args[WATCHER],
                                   put->line);
        }
    }
    free(values);
    return verdict;
}

/* The last that was heard of each key is what is there; of triples key, value, version. */
static struct chaos_verdict check_final(const struct watch *watch, size_t from, size_t to)
{
    const struct chaos_event *final = watch->final;

    for (size_t at = 0; at + 2 < final->count; at += 3) {
        const struct chaos_event *last = NULL;
        int64_t excused = INT64_MIN;

        for (size_t i = from; i < to; i++) {
            const struct chaos_event *e = watch->heard[i];

            if (e->op == CHAOS_WATCH_RESET) {
                excused = chaos__max(excused, e->args[RESET_VERSION]);
            } else if (e->args[KEY] == final->args[at]) {
                last = e;
            }
        }
        if (last == NULL
                ? final->args[at + 2] > excused
                : last->args[VALUE] != final->args[at + 1] && final->args[at + 2] > excused) {
            return chaos__wrong("%s: key %" PRId64 " holds %" PRId64 " of version %" PRId64
                                ", of which watcher %" PRId64 " did not hear last",
                                watch->part->object, final->args[at], final->args[at + 1],
                                final->args[at + 2], watch->heard[from]->args[WATCHER]);
        }
    }
    return chaos__fine();
}

struct chaos_verdict chaos_check_watch(const struct chaos_part *part)
{
    struct watch watch = {.part = part};
    struct chaos_verdict verdict = chaos__fine();
    size_t from = 0;

    gather(&watch);
    while (from < watch.heard_count && verdict.judgement == CHAOS_FINE) {
        size_t to = from;

        while (to < watch.heard_count &&
               watch.heard[to]->args[WATCHER] == watch.heard[from]->args[WATCHER]) {
            to++;
        }
        verdict = check_stream(&watch, from, to);
        if (verdict.judgement == CHAOS_FINE && watch.final != NULL) {
            verdict = check_gaps(&watch, from, to);
        }
        if (verdict.judgement == CHAOS_FINE && watch.final != NULL) {
            verdict = check_final(&watch, from, to);
        }
        from = to;
    }
    chaos__table_deinit(&watch.puts);
    free(watch.heard);
    return verdict;
}
