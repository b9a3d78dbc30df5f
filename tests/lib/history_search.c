/*
 * Is there an order of these operations in which a FIFO queue could have done
 * them? Tried by brute force, as a check on history_fifo.c: any operation that no
 * other must precede may come next, if the queue as it then is allows it. States
 * that led nowhere are remembered (Lowe), since many orders lead to the same.
 */
#include <stdlib.h>
#include <string.h>

#include "history_internal.h"

struct state {
    uint32_t done;  /* A bit for each operation. */
    uint64_t queue; /* What is inside: numbers of pushes, 4 bits each, the oldest lowest. */
    unsigned length;
};

struct search {
    const struct history_op *ops;
    size_t count;
    unsigned options;
    uint32_t must_precede[HISTORY_SEARCH_MAX]; /* The operations that come before each. */
    unsigned push_number[HISTORY_SEARCH_MAX];
    uint64_t push_value[HISTORY_SEARCH_PUSHES_MAX];

    struct state *failed; /* A hash table; done == 0 marks a free place. */
    size_t failed_size;
    size_t failed_count;
};

static size_t place(const struct search *s, struct state state)
{
    uint64_t hash = (state.queue ^ (uint64_t)state.done << 32) * 0x9e3779b97f4a7c15u;
    size_t at = (size_t)((hash ^ state.done) * 0xbf58476d1ce4e5b9u >> 20) & (s->failed_size - 1);

    while (s->failed[at].done != 0 &&
           (s->failed[at].done != state.done || s->failed[at].queue != state.queue)) {
        at = (at + 1) & (s->failed_size - 1);
    }
    return at;
}

static void remember(struct search *s, struct state state)
{
    if (2 * s->failed_count >= s->failed_size) {
        struct state *old = s->failed;
        size_t old_size = s->failed_size;

        s->failed_size *= 2;
        s->failed = history__allocate(s->failed_size, sizeof(*s->failed));
        for (size_t i = 0; i < old_size; i++) {
            if (old[i].done != 0) {
                s->failed[place(s, old[i])] = old[i];
            }
        }
        free(old);
    }
    s->failed[place(s, state)] = state;
    s->failed_count++;
}

/* Do the operation on the queue; false if that is not what the queue would have done. */
static bool take(const struct search *s, size_t op, struct state *state)
{
    state->done |= (uint32_t)1 << op;
    switch (s->ops[op].kind) {
    case HISTORY_PUSH:
        state->queue |= (uint64_t)s->push_number[op] << 4 * state->length++;
        return true;
    case HISTORY_POP:
        if (state->length == 0 || s->push_value[state->queue & 15] != s->ops[op].value) {
            return false;
        }
        state->queue >>= 4;
        state->length--;
        return true;
    default:
        return state->length == 0 || (s->options & HISTORY_EMPTY_IS_SPURIOUS) != 0;
    }
}

/* Recursion is as deep as there are operations. */
static bool search(struct search *s, struct state state)
{
    if (state.done == (uint32_t)((1ull << s->count) - 1)) {
        return true;
    }
    if (state.done != 0 && s->failed[place(s, state)].done != 0) {
        return false;
    }
    for (size_t i = 0; i < s->count; i++) {
        struct state next = state;

        if ((state.done & (uint32_t)1 << i) == 0 && (s->must_precede[i] & ~state.done) == 0 &&
            take(s, i, &next) && search(s, next)) {
            return true;
        }
    }
    if (state.done != 0) {
        remember(s, state);
    }
    return false;
}

bool history_search_fifo(const struct history_op *ops, size_t count, unsigned options)
{
    struct search s = {.ops = ops, .count = count, .options = options, .failed_size = 1024};
    unsigned pushes = 0;
    bool found;

    BOP_ASSERT(count <= HISTORY_SEARCH_MAX);
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            if (ops[j].to < ops[i].from) {
                s.must_precede[i] |= (uint32_t)1 << j;
            }
        }
        if (ops[i].after_previous) {
            s.must_precede[i] |= (uint32_t)1 << (i - 1);
        }
        if (ops[i].kind == HISTORY_PUSH) {
            BOP_ASSERT(pushes < HISTORY_SEARCH_PUSHES_MAX);
            s.push_number[i] = pushes;
            s.push_value[pushes++] = ops[i].value;
        }
    }
    s.failed = history__allocate(s.failed_size, sizeof(*s.failed));
    found = search(&s, (struct state){0});
    free(s.failed);
    return found;
}
