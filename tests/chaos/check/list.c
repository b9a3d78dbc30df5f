/*
 * A list that is only appended to, each element by one operation. Take the longest
 * answer as the list: every other answer is a prefix of it, none is shorter than one that had ended
 * before it began, none lacks what was acknowledged before, each element stands once and was
 * asked for, and appends that did not overlap stand in their order.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct list {
    const char *object;
    const struct chaos_event *longest;
    struct chaos__table places;  /* Of each element: here key is the element, event its append. */
    struct chaos__table appends; /* By element. */
    struct chaos__table ends;    /* Answered operations by their end. */
    int64_t *starts;             /* When the last of the first n + 1 elements was asked for. */
};

static void gather(struct list *list, const struct chaos_part *part)
{
    list->object = part->object;
    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];

        if (e->op == CHAOS_LIST_APPEND) {
            chaos__table_add(&list->appends, e->args[0], e);
        } else if (e->outcome == CHAOS_OK &&
                   (list->longest == NULL || e->count > list->longest->count)) {
            list->longest = e;
        }
        if (e->outcome == CHAOS_OK) {
            chaos__table_add(&list->ends, e->end, e);
        }
    }
    chaos__table_sort(&list->appends);
    chaos__table_sort(&list->ends);
}

static struct chaos_verdict check_longest(struct list *list)
{
    const struct chaos_event *longest = list->longest;
    int64_t latest = INT64_MIN;

    list->starts = chaos__allocate(longest->count, sizeof(*list->starts));
    for (size_t i = 0; i < longest->count; i++) {
        const struct chaos__entry *append = chaos__table_find(&list->appends, longest->args[i]);

        if (append == NULL || append->event->outcome == CHAOS_FAIL) {
            return chaos__wrong("%s: line %zu has %" PRId64 ", which %s", list->object,
                                longest->line, longest->args[i],
                                append == NULL ? "nobody appended" : "was refused");
        }
        chaos__table_add(&list->places, longest->args[i], append->event);
        latest = chaos__max(latest, append->event->start);
        list->starts[i] = latest;
    }
    chaos__table_sort(&list->places);
    for (size_t i = 1; i < list->places.count; i++) {
        if (list->places.entries[i].key == list->places.entries[i - 1].key) {
            return chaos__wrong("%s: line %zu has %" PRId64 " twice", list->object, longest->line,
                                list->places.entries[i].key);
        }
    }
    return chaos__fine();
}

/* Where elements stand in the longest answer, by element; INT64_MAX: nowhere. */
struct place {
    int64_t element;
    int64_t place;
};

static int compare_places(const void *a, const void *b)
{
    const struct place *left = a, *right = b;

    return left->element < right->element ? -1 : left->element > right->element;
}

static struct place *make_places(const struct chaos_event *longest)
{
    struct place *places = chaos__allocate(longest->count, sizeof(*places));

    for (size_t i = 0; i < longest->count; i++) {
        places[i] = (struct place){longest->args[i], (int64_t)i};
    }
    qsort(places, longest->count, sizeof(*places), compare_places);
    return places;
}

static int64_t place_of(const struct place *places, size_t count, int64_t element)
{
    struct place wanted = {.element = element};
    const struct place *found = bsearch(&wanted, places, count, sizeof(*places), compare_places);

    return found != NULL ? found->place : INT64_MAX;
}

static struct chaos_verdict check_read(const struct list *list, const struct chaos_event *e)
{
    size_t n = e->count;

    if (memcmp(e->args, list->longest->args, n * sizeof(*e->args)) != 0) {
        return chaos__wrong("%s: line %zu is not a prefix of line %zu", list->object, e->line,
                            list->longest->line);
    }
    if (n > 0 && list->starts[n - 1] > e->end) {
        return chaos__wrong("%s: line %zu has an element that was not asked for yet", list->object,
                            e->line);
    }
    return chaos__fine();
}

/* What has ended before an operation bounds what it may show, or where it stands. */
static struct chaos_verdict check_order(const struct list *list, const struct chaos_part *part,
                                        const struct place *places)
{
    const struct chaos_event *last = NULL; /* Which of those ended reaches farthest. */
    int64_t least = 0;                     /* How many elements there are, for certain. */
    size_t ended = 0;
    size_t total = list->longest->count;

    for (size_t i = 0; i < part->count; i++) {
        const struct chaos_event *e = &part->events[i];
        int64_t reach;

        for (; ended < list->ends.count && list->ends.entries[ended].key < e->start; ended++) {
            const struct chaos_event *before = list->ends.entries[ended].event;

            reach = (int64_t)before->count;
            if (before->op == CHAOS_LIST_APPEND) {
                reach = place_of(places, total, before->args[0]);
                reach += reach != INT64_MAX;
            }
            if (reach > least) {
                least = reach;
                last = before;
            }
        }
        if (e->op == CHAOS_LIST_GET) {
            reach = e->outcome == CHAOS_OK ? (int64_t)e->count : INT64_MAX;
        } else {
            reach = place_of(places, total, e->args[0]);
        }
        if (reach < least) {
            return chaos__wrong("%s: line %zu does not know of line %zu, which had ended before",
                                list->object, e->line, last->line);
        }
    }
    return chaos__fine();
}

struct chaos_verdict chaos_check_list(const struct chaos_part *part)
{
    struct list list = {0};
    struct chaos_verdict verdict = chaos__fine();

    gather(&list, part);
    if (list.longest != NULL) {
        struct place *places = make_places(list.longest);

        verdict = check_longest(&list);
        for (size_t i = 0; i < part->count && verdict.judgement == CHAOS_FINE; i++) {
            const struct chaos_event *e = &part->events[i];

            if (e->op == CHAOS_LIST_GET && e->outcome == CHAOS_OK) {
                verdict = check_read(&list, e);
            }
        }
        if (verdict.judgement == CHAOS_FINE) {
            verdict = check_order(&list, part, places);
        }
        free(places);
    }
    free(list.starts);
    chaos__table_deinit(&list.places);
    chaos__table_deinit(&list.appends);
    chaos__table_deinit(&list.ends);
    return verdict;
}
