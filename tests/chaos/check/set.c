/*
 * A set that is only added to, each member by one operation. What was added is found by all who
 * look after that, and what was found once is found ever after; what nobody asked to add, or was
 * refused, is never found; no member is there twice or was there before it was added.
 */
#include <inttypes.h>

#include "internal.h"

struct members {
    struct chaos__table adds;  /* By member. */
    struct chaos__table finds; /* Answers of "found", by member and start. */
};

static struct chaos_verdict gather(struct members *members, const struct chaos_part *part)
{
    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];

        if (e->op == CHAOS_SET_ADD) {
            chaos__table_add(&members->adds, e->args[0], e);
            if (e->outcome == CHAOS_OK && e->args[1] == 0) {
                return chaos__wrong("%s: line %zu: member %" PRId64
                                    " was there before it was added",
                                    part->object, e->line, e->args[0]);
            }
        } else if (e->op == CHAOS_SET_HAS && e->outcome == CHAOS_OK && e->args[1] != 0) {
            chaos__table_add(&members->finds, e->args[0], e);
        }
    }
    chaos__table_sort(&members->adds);
    chaos__table_sort(&members->finds);
    for (size_t i = 1; i < members->adds.count; i++) {
        const struct chaos__entry *entry = &members->adds.entries[i];

        if (entry[-1].key == entry->key) {
            return chaos__wrong(
                "%s: lines %zu and %zu both add %" PRId64 ": not a history for this checker",
                part->object, entry[-1].event->line, entry->event->line, entry->key);
        }
    }
    return chaos__fine();
}

/* Somebody saw the member in e. */
static struct chaos_verdict check_found(const struct members *members, const char *object,
                                        const struct chaos_event *e, int64_t member)
{
    const struct chaos__entry *add = chaos__table_find(&members->adds, member);

    if (add == NULL || add->event->start > e->end) {
        return chaos__wrong("%s: line %zu finds %" PRId64 ", which nobody had asked to add", object,
                            e->line, member);
    }
    if (add->event->outcome == CHAOS_FAIL) {
        return chaos__wrong("%s: line %zu finds %" PRId64 ", whose addition failed in line %zu",
                            object, e->line, member, add->event->line);
    }
    return chaos__fine();
}

/* Nobody was to see it in e. */
static struct chaos_verdict check_missing(const struct members *members, const char *object,
                                          const struct chaos_event *e, int64_t member)
{
    const struct chaos__entry *add = chaos__table_find(&members->adds, member);
    const struct chaos__entry *find = chaos__table_find(&members->finds, member);

    if (add != NULL && add->event->outcome == CHAOS_OK && add->event->end < e->start) {
        return chaos__wrong("%s: line %zu does not find %" PRId64
                            ", whose addition was acknowledged in line %zu",
                            object, e->line, member, add->event->line);
    }
    /* The table ends with its last entry. */
    for (size_t i = find != NULL ? (size_t)(find - members->finds.entries) : 0;
         find != NULL && i < members->finds.count && members->finds.entries[i].key == member; i++) {
        find = &members->finds.entries[i];
        if (find->event->end < e->start) {
            return chaos__wrong("%s: line %zu does not find %" PRId64 ", which line %zu had found",
                                object, e->line, member, find->event->line);
        }
    }
    return chaos__fine();
}

static struct chaos_verdict check_all(const struct members *members, const char *object,
                                      const struct chaos_event *e)
{
    struct chaos__table all = {0};
    struct chaos_verdict verdict = chaos__fine();

    for (size_t i = 0; i < e->count; i++) {
        chaos__table_add(&all, e->args[i], e);
    }
    chaos__table_sort(&all);
    for (size_t i = 0; i < all.count && verdict.judgement == CHAOS_FINE; i++) {
        if (i > 0 && all.entries[i].key == all.entries[i - 1].key) {
            verdict = chaos__wrong("%s: line %zu has %" PRId64 " twice", object, e->line,
                                   all.entries[i].key);
        } else {
            verdict = check_found(members, object, e, all.entries[i].key);
        }
    }
    for (size_t i = 0; i < members->adds.count && verdict.judgement == CHAOS_FINE; i++) {
        int64_t member = members->adds.entries[i].key;

        if (chaos__table_find(&all, member) == NULL) {
            verdict = check_missing(members, object, e, member);
        }
    }
    chaos__table_deinit(&all);
    return verdict;
}

struct chaos_verdict chaos_check_set(const struct chaos_part *part)
{
    struct members members = {0};
    struct chaos_verdict verdict = gather(&members, part);

    for (size_t i = 0; i < part->count && verdict.judgement == CHAOS_FINE; i++) {
        const struct chaos_event *e = &part->events[i];

        if (e->outcome != CHAOS_OK) {
            continue;
        }
        if (e->op == CHAOS_SET_ALL) {
            verdict = check_all(&members, part->object, e);
        } else if (e->op == CHAOS_SET_HAS && e->args[1] != 0) {
            verdict = check_found(&members, part->object, e, e->args[0]);
        } else if (e->op == CHAOS_SET_HAS) {
            verdict = check_missing(&members, part->object, e, e->args[0]);
        }
    }
    chaos__table_deinit(&members.adds);
    chaos__table_deinit(&members.finds);
    return verdict;
}
