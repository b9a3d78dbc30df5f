/*
 * Is there an order of the operations on one register or counter that explains
 * every answer? Wing and Gong's search: of the operations that no other one must
 * precede, do any that the object as it then is allows, and go on; take it back
 * where nothing is left to do. Lowe's memory: what was done and the state it led to are
 * remembered, since many orders lead to the same and none needs to be tried twice.
 *
 * The calls and returns lie in one list by their times. An operation that is done is taken out with
 * both, so what may come next are the calls before the first return that is left. Operations
 * of unknown outcome return at the end of all time. They are done there if nobody saw anything of
 * them, which never fails, for they claim no answer.
 *
 * The memory holds exact sets, not hashes of them: a collision would hide an order that works.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"

#define STEPS_BETWEEN_LOOKS 4096 /* At the clock. */

/* A call or a return, in a doubly linked list with a head. */
struct mark {
    struct mark *next;
    struct mark *previous;
    struct mark *answer; /* The return of a call; NULL of a return. */
    int64_t time;
    size_t op;
};

struct choice {
    struct mark *call;
    int64_t state_before;
};

struct search {
    const struct chaos_event **ops;
    size_t count;
    struct mark *marks;
    struct mark head;
    struct choice *choices;
    size_t depth;
    int64_t state;
    uint64_t *done; /* A bit for each operation. */
    size_t words;

    /* States seen: words of done, and the state; in a hash table of their numbers, from 1. */
    uint64_t *seen;
    size_t seen_count;
    size_t seen_capacity;
    uint32_t *places;
    size_t place_count;

    size_t deepest; /* The most that could be explained, and what came to nothing there. */
    const struct chaos_event *stuck;
};

/* ---- What a register and a counter do ---- */

static bool step_register(const struct chaos_event *e, int64_t *state)
{
    const int64_t *args = e->args;

    switch (e->op) {
    case CHAOS_REG_GET:
        return e->outcome != CHAOS_OK || *state == args[0];
    case CHAOS_REG_PUT:
        *state = args[0];
        return true;
    default:
        if (e->outcome == CHAOS_OK && (*state == args[0]) != (args[2] != 0)) {
            return false;
        }
        if (*state == args[0]) {
            *state = args[1];
        }
        return true;
    }
}

static bool step_counter(const struct chaos_event *e, int64_t *state)
{
    const int64_t *args = e->args;

    switch (e->op) {
    case CHAOS_COUNTER_GET:
        return e->outcome != CHAOS_OK || *state == args[0];
    case CHAOS_COUNTER_ADD:
        *state += args[0];
        return e->outcome != CHAOS_OK || *state == args[1];
    default:
        if (e->outcome == CHAOS_OK &&
            ((*state == args[0]) != (args[2] != 0) || (args[2] == 0 && *state != args[3]))) {
            return false;
        }
        if (*state == args[0]) {
            *state = args[1];
        }
        return true;
    }
}

static bool step(const struct chaos_event *e, int64_t *state)
{
    return chaos_op_kind(e->op) == CHAOS_REGISTER ? step_register(e, state)
                                                  : step_counter(e, state);
}

/* ---- The memory ---- */

static uint64_t hash_of(const uint64_t *entry, size_t words)
{
    uint64_t hash = 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < words; i++) {
        hash = (hash ^ entry[i]) * 0xbf58476d1ce4e5b9u;
        hash ^= hash >> 29;
    }
    return hash;
}

static uint32_t *place_of(struct search *s, const uint64_t *entry)
{
    size_t words = s->words + 1;
    size_t at = hash_of(entry, words) & (s->place_count - 1);

    while (s->places[at] != 0 &&
           memcmp(&s->seen[(s->places[at] - 1) * words], entry, words * sizeof(*entry)) != 0) {
        at = (at + 1) & (s->place_count - 1);
    }
    return &s->places[at];
}

static void make_room(struct search *s)
{
    size_t words = s->words + 1;

    if (s->seen_count == s->seen_capacity) {
        s->seen = chaos__grow(s->seen, &s->seen_capacity, words * sizeof(*s->seen));
    }
    if (2 * (s->seen_count + 1) > s->place_count) {
        free(s->places);
        s->place_count = s->place_count != 0 ? s->place_count * 2 : 1024;
        s->places = chaos__allocate(s->place_count, sizeof(*s->places));
        for (size_t i = 0; i < s->seen_count; i++) {
            *place_of(s, &s->seen[i * words]) = (uint32_t)(i + 1);
        }
    }
}

/* Whether it is new that `op` after what is done leads to `state`; remembers it. */
static bool is_new(struct search *s, size_t op, int64_t state)
{
    uint64_t *entry;
    uint32_t *place;

    make_room(s);
    entry = &s->seen[s->seen_count * (s->words + 1)];
    memcpy(entry, s->done, s->words * sizeof(*entry));
    entry[op / 64] |= (uint64_t)1 << op % 64;
    entry[s->words] = (uint64_t)state;
    place = place_of(s, entry);
    if (*place != 0) {
        return false;
    }
    *place = (uint32_t)++s->seen_count;
    return true;
}

/* ---- The list ---- */

static int compare_marks(const void *a, const void *b)
{
    const struct mark *left = a, *right = b;

    if (left->time != right->time) {
        return left->time < right->time ? -1 : 1;
    }
    /* Calls first: what touches overlaps. Those of one time go by number, to be the same each
     * time. */
    if (left->previous != right->previous) {
        return left->previous == NULL ? -1 : 1;
    }
    return left->op < right->op ? -1 : left->op > right->op;
}

static void make_list(struct search *s)
{
    struct mark **calls = chaos__allocate(s->count, sizeof(struct mark *));
    struct mark *last = &s->head;

    for (size_t i = 0; i < s->count; i++) {
        s->marks[2 * i] = (struct mark){.time = s->ops[i]->start, .op = i};
        /* Until it is sorted, previous says that it is a return. */
        s->marks[2 * i + 1] = (struct mark){.time = s->ops[i]->end, .op = i, .previous = &s->head};
    }
    qsort(s->marks, 2 * s->count, sizeof(*s->marks), compare_marks);
    for (size_t i = 0; i < 2 * s->count; i++) {
        struct mark *mark = &s->marks[i];

        if (mark->previous == NULL) {
            calls[mark->op] = mark;
        } else {
            calls[mark->op]->answer = mark;
        }
        mark->previous = last;
        last->next = mark;
        last = mark;
    }
    last->next = NULL;
    free(calls);
}

static void take_out(struct mark *mark)
{
    mark->previous->next = mark->next;
    if (mark->next != NULL) {
        mark->next->previous = mark->previous;
    }
}

static void put_back(struct mark *mark)
{
    mark->previous->next = mark;
    if (mark->next != NULL) {
        mark->next->previous = mark;
    }
}

/* ---- The search ---- */

static void choose(struct search *s, struct mark *call, int64_t state)
{
    s->choices[s->depth++] = (struct choice){call, s->state};
    s->state = state;
    s->done[call->op / 64] |= (uint64_t)1 << call->op % 64;
    take_out(call->answer);
    take_out(call);
}

/* Take the last choice back; returns where to go on. */
static struct mark *unchoose(struct search *s)
{
    struct choice *choice = &s->choices[--s->depth];
    struct mark *call = choice->call;

    s->state = choice->state_before;
    s->done[call->op / 64] &= ~((uint64_t)1 << call->op % 64);
    put_back(call);
    put_back(call->answer);
    return call->next;
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static enum chaos_judgement run(struct search *s, uint64_t cap_ms)
{
    uint64_t began = now_ms();
    struct mark *at = s->head.next;
    uint64_t steps = 0;

    while (s->head.next != NULL) {
        if (cap_ms != 0 && ++steps % STEPS_BETWEEN_LOOKS == 0 && now_ms() - began > cap_ms) {
            return CHAOS_UNDECIDED;
        }
        if (at->answer != NULL) {
            int64_t state = s->state;

            if (step(s->ops[at->op], &state) && is_new(s, at->op, state)) {
                choose(s, at, state);
                at = s->head.next;
            } else {
                at = at->next;
            }
            continue;
        }
        /* All that might come next was tried, and this one has returned. */
        if (s->depth > s->deepest || s->stuck == NULL) {
            s->deepest = s->depth;
            s->stuck = s->ops[at->op];
        }
        if (s->depth == 0) {
            return CHAOS_WRONG;
        }
        at = unchoose(s);
    }
    return CHAOS_FINE;
}

static struct chaos_verdict tell(const struct search *s, const struct chaos_part *part,
                                 enum chaos_judgement judgement)
{
    struct chaos_verdict verdict = {.judgement = judgement, .states = s->seen_count};

    if (judgement == CHAOS_UNDECIDED) {
        snprintf(verdict.text, sizeof(verdict.text),
                 "%s: no order found in time; %zu operations, %zu states seen", part->object,
                 s->count, s->seen_count);
    } else if (judgement == CHAOS_WRONG) {
        snprintf(verdict.text, sizeof(verdict.text),
                 "%s: not linearizable: after at most %zu of %zu operations there is no moment for "
                 "%s of process %" PRIu32 " in line %zu",
                 part->object, s->deepest, s->count, chaos_op_text(s->stuck->op), s->stuck->process,
                 s->stuck->line);
    }
    return verdict;
}

/* Failed operations did nothing, and reads that got no answer say nothing. */
static bool counts(const struct chaos_event *e)
{
    bool is_read = e->op == CHAOS_REG_GET || e->op == CHAOS_COUNTER_GET;

    return e->outcome == CHAOS_OK || (e->outcome == CHAOS_UNKNOWN && !is_read);
}

struct chaos_verdict chaos_check_linear(const struct chaos_part *part, uint64_t cap_ms)
{
    struct search s = {.ops = chaos__allocate(part->count, sizeof(*s.ops))};
    enum chaos_judgement judgement;
    struct chaos_verdict verdict;

    for (size_t i = 0; i < part->count; i++) {
        if (counts(&part->events[i])) {
            s.ops[s.count++] = &part->events[i];
        }
    }
    s.words = (s.count + 63) / 64;
    s.marks = chaos__allocate(2 * s.count, sizeof(*s.marks));
    s.choices = chaos__allocate(s.count, sizeof(*s.choices));
    s.done = chaos__allocate(s.words, sizeof(*s.done));
    make_list(&s);
    judgement = run(&s, cap_ms);
    verdict = tell(&s, part, judgement);

    free(s.seen);
    free(s.places);
    free(s.done);
    free(s.choices);
    free(s.marks);
    free(s.ops);
    return verdict;
}
