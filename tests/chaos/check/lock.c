/*
 * A lock with fencing tokens. Tokens rise: one that was asked for after another had been granted is
 * higher, and none is granted twice. Who gave a lock back and was told that it still had it, had it
 * all the time from when it heard of the grant: such times do not overlap, and later ones have
 * higher tokens. Of one who was told that it had lost the lock, or was told nothing, only the
 * token is known.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "internal.h"

struct hold {
    int64_t from;
    int64_t to;
    int64_t token;
    const struct chaos_event *take;
};

struct locks {
    const char *object;
    struct chaos__table takes; /* By token. */
    struct chaos__table ends;  /* Takes, by their end. */
    struct hold *holds;
    size_t hold_count;
    size_t hold_capacity;
};

static void gather(struct locks *locks, const struct chaos_part *part)
{
    locks->object = part->object;
    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];

        if (e->op == CHAOS_LOCK_TAKE && e->outcome == CHAOS_OK) {
            chaos__table_add(&locks->takes, e->args[0], e);
            chaos__table_add(&locks->ends, e->end, e);
        }
    }
    chaos__table_sort(&locks->takes);
    chaos__table_sort(&locks->ends);
}

static struct chaos_verdict check_tokens(const struct locks *locks, const struct chaos_part *part)
{
    const struct chaos_event *highest = NULL;
    size_t ended = 0;

    for (size_t i = 1; i < locks->takes.count; i++) {
        const struct chaos__entry *entry = &locks->takes.entries[i];

        if (entry[-1].key == entry->key) {
            return chaos__wrong("%s: lines %zu and %zu got the same token %" PRId64, locks->object,
                                entry[-1].event->line, entry->event->line, entry->key);
        }
    }
    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];

        for (; ended < locks->ends.count && locks->ends.entries[ended].key < e->start; ended++) {
            const struct chaos_event *before = locks->ends.entries[ended].event;

            highest = highest == NULL || before->args[0] > highest->args[0] ? before : highest;
        }
        if (e->op == CHAOS_LOCK_TAKE && e->outcome == CHAOS_OK && highest != NULL &&
            e->args[0] <= highest->args[0]) {
            return chaos__wrong(
                "%s: line %zu got token %" PRId64 " after line %zu had got %" PRId64, locks->object,
                e->line, e->args[0], highest->line, highest->args[0]);
        }
    }
    return chaos__fine();
}

static struct chaos_verdict gather_holds(struct locks *locks, const struct chaos_part *part)
{
    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];
        const struct chaos__entry *take;

        if (e->op != CHAOS_LOCK_DROP || e->outcome != CHAOS_OK || e->args[1] == 0) {
            continue;
        }
        take = chaos__table_find(&locks->takes, e->args[0]);
        if (take == NULL) {
            /* Its grant may have been lost on the way; then nobody knows the token. */
            return chaos__wrong("%s: line %zu gives back token %" PRId64 ", which nobody got",
                                locks->object, e->line, e->args[0]);
        }
        if (locks->hold_count == locks->hold_capacity) {
            locks->holds = chaos__grow(locks->holds, &locks->hold_capacity, sizeof(*locks->holds));
        }
        locks->holds[locks->hold_count++] = (struct hold){
            take->event->end, chaos__max(e->start, take->event->end), e->args[0], take->event};
    }
    return chaos__fine();
}

static int compare_holds(const void *a, const void *b)
{
    const struct hold *left = a, *right = b;

    if (left->from != right->from) {
        return left->from < right->from ? -1 : 1;
    }
    return left->token < right->token ? -1 : left->token > right->token;
}

static struct chaos_verdict check_holds(const struct locks *locks)
{
    if (locks->hold_count != 0) {
        qsort(locks->holds, locks->hold_count, sizeof(*locks->holds), compare_holds);
    }
    for (size_t i = 1; i < locks->hold_count; i++) {
        const struct hold *before = &locks->holds[i - 1], *hold = &locks->holds[i];

        if (before->token == hold->token) {
            return chaos__wrong("%s: token %" PRId64 " of line %zu was given back twice",
                                locks->object, hold->token, hold->take->line);
        }
        if (hold->from < before->to) {
            return chaos__wrong("%s: two had it at once: line %zu with token %" PRId64
                                " and line %zu with token %" PRId64,
                                locks->object, before->take->line, before->token, hold->take->line,
                                hold->token);
        }
        if (hold->from > before->from && hold->token < before->token) {
            return chaos__wrong("%s: line %zu had it after line %zu, with a lower token",
                                locks->object, hold->take->line, before->take->line);
        }
    }
    return chaos__fine();
}

struct chaos_verdict chaos_check_lock(const struct chaos_part *part)
{
    struct locks locks = {0};
    struct chaos_verdict verdict;

    gather(&locks, part);
    verdict = check_tokens(&locks, part);
    if (verdict.judgement == CHAOS_FINE) {
        verdict = gather_holds(&locks, part);
    }
    if (verdict.judgement == CHAOS_FINE) {
        verdict = check_holds(&locks);
    }
    chaos__table_deinit(&locks.takes);
    chaos__table_deinit(&locks.ends);
    free(locks.holds);
    return verdict;
}
