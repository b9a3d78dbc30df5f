/*
 * A counter that is only added to, with too many additions for a search. What it shows at any
 * time lies between two sums: of all that was certainly added before, and of all that may have
 * been added until then. Nothing shows less than what an operation that had ended before it showed,
 * and no two additions have the same result.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "internal.h"

struct sums {
    struct chaos__table starts; /* Additions that may count, by their start. */
    struct chaos__table ends;   /* Operations that were answered, by their end. */
    struct chaos__table values; /* Results of additions. */
};

static int64_t shown(const struct chaos_event *e)
{
    return e->op == CHAOS_TALLY_ADD ? e->args[1] : e->args[0];
}

static bool is_add(const struct chaos_event *e)
{
    return e->op == CHAOS_TALLY_ADD;
}

static void gather(struct sums *sums, const struct chaos_part *part)
{
    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];

        if (is_add(e) && e->outcome != CHAOS_FAIL) {
            chaos__table_add(&sums->starts, e->start, e);
        }
        if (e->outcome == CHAOS_OK) {
            chaos__table_add(&sums->ends, e->end, e);
            if (is_add(e)) {
                chaos__table_add(&sums->values, e->args[1], e);
            }
        }
    }
    chaos__table_sort(&sums->starts);
    chaos__table_sort(&sums->ends);
    chaos__table_sort(&sums->values);
}

/* The events of a part are sorted by start, so what ended before each grows as we go. */
static struct chaos_verdict check_least(const struct sums *sums, const struct chaos_part *part)
{
    const struct chaos_event *most = NULL;
    int64_t sum = 0;
    size_t ended = 0;

    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];

        for (; ended < sums->ends.count && sums->ends.entries[ended].key < e->start; ended++) {
            const struct chaos_event *before = sums->ends.entries[ended].event;

            sum += is_add(before) ? before->args[0] : 0;
            most = most == NULL || shown(before) > shown(most) ? before : most;
        }
        if (e->outcome != CHAOS_OK) {
            continue;
        }
        if (shown(e) < sum + (is_add(e) ? e->args[0] : 0)) {
            return chaos__wrong("%s: line %zu shows %" PRId64 ", but %" PRId64
                                " was acknowledged before it began: additions were lost",
                                part->object, e->line, shown(e), sum);
        }
        if (most != NULL && shown(e) < shown(most) + (is_add(e) ? e->args[0] : 0)) {
            return chaos__wrong("%s: line %zu shows %" PRId64 ", but line %zu had shown %" PRId64
                                " before it began",
                                part->object, e->line, shown(e), most->line, shown(most));
        }
    }
    return chaos__fine();
}

static struct chaos_verdict check_most(const struct sums *sums, const struct chaos_part *part)
{
    int64_t sum = 0;
    size_t begun = 0;

    for (size_t i = 0; i < sums->ends.count; i++) {
        const struct chaos_event *e = sums->ends.entries[i].event;

        for (; begun < sums->starts.count && sums->starts.entries[begun].key <= e->end; begun++) {
            sum += sums->starts.entries[begun].event->args[0];
        }
        if (shown(e) > sum) {
            return chaos__wrong("%s: line %zu shows %" PRId64 ", but only %" PRId64
                                " was asked for until it ended: something was added twice",
                                part->object, e->line, shown(e), sum);
        }
    }
    for (size_t i = 1; i < sums->values.count; i++) {
        const struct chaos__entry *entry = &sums->values.entries[i];

        if (entry[-1].key == entry->key) {
            return chaos__wrong("%s: the additions of lines %zu and %zu both give %" PRId64,
                                part->object, entry[-1].event->line, entry->event->line,
                                entry->key);
        }
    }
    return chaos__fine();
}

struct chaos_verdict chaos_check_tally(const struct chaos_part *part)
{
    struct sums sums = {0};
    struct chaos_verdict verdict;

    gather(&sums, part);
    verdict = check_least(&sums, part);
    if (verdict.judgement == CHAOS_FINE) {
        verdict = check_most(&sums, part);
    }
    chaos__table_deinit(&sums.starts);
    chaos__table_deinit(&sums.ends);
    chaos__table_deinit(&sums.values);
    return verdict;
}
