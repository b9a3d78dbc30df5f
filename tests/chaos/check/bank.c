/*
 * Transactions. A bank moves money between its accounts: whoever reads all of them at once
 * sees the same sum, and nothing below zero. A pair has two sides, each set only
 * if the other is not (write skew): never are both, and what was set stays set.
 */
#include <inttypes.h>

#include "internal.h"

struct chaos_verdict chaos_check_bank(const struct chaos_part *part)
{
    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];
        int64_t sum = 0;

        if (e->op != CHAOS_BANK_READ || e->outcome != CHAOS_OK) {
            continue;
        }
        if ((int64_t)e->count - 2 != e->args[1]) {
            return chaos__wrong("%s: line %zu has %zu accounts, not %" PRId64, part->object,
                                e->line, e->count - 2, e->args[1]);
        }
        for (size_t n = 2; n < e->count; n++) {
            if (e->args[n] < 0) {
                return chaos__wrong("%s: line %zu: account %zu has %" PRId64, part->object, e->line,
                                    n - 2, e->args[n]);
            }
            sum += e->args[n];
        }
        if (sum != e->args[0]) {
            return chaos__wrong("%s: line %zu: the accounts hold %" PRId64 ", not %" PRId64,
                                part->object, e->line, sum, e->args[0]);
        }
    }
    return chaos__fine();
}

static bool is_done(const struct chaos_event *e)
{
    return e->op == CHAOS_SKEW_SET && e->outcome == CHAOS_OK && e->args[1] != 0;
}

static struct chaos_verdict check_skew_read(const struct chaos_part *part,
                                            const struct chaos_event *read,
                                            const struct chaos_event *set)
{
    if (read->args[0] != 0 && read->args[1] != 0) {
        return chaos__wrong("%s: line %zu finds both sides set", part->object, read->line);
    }
    if (set != NULL && read->args[set->args[0] == 0] != 0) {
        return chaos__wrong("%s: line %zu finds the side set that line %zu kept from being set",
                            part->object, read->line, set->line);
    }
    if (set != NULL && set->end < read->start && read->args[set->args[0]] == 0) {
        return chaos__wrong("%s: line %zu does not find what line %zu had set", part->object,
                            read->line, set->line);
    }
    return chaos__fine();
}

struct chaos_verdict chaos_check_skew(const struct chaos_part *part)
{
    const struct chaos_event *set = NULL;
    struct chaos_verdict verdict = chaos__fine();

    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];

        if (is_done(e) && set != NULL && set->args[0] != e->args[0]) {
            return chaos__wrong("%s: lines %zu and %zu set both sides", part->object, set->line,
                                e->line);
        }
        set = set == NULL && is_done(e) ? e : set;
    }
    for (size_t i = 0; i < part->count && verdict.judgement == CHAOS_FINE; i++) {
        const struct chaos_event *e = &part->events[i];

        if (e->op == CHAOS_SKEW_READ && e->outcome == CHAOS_OK) {
            verdict = check_skew_read(part, e, set);
        }
    }
    return verdict;
}
