/*
 * Counters: short-lived ones, for the search, and one tally that all add to all the time.
 */
#include "load.h"

#define COUNTERS 3
#define USES_MAX 120
#define TALLY    "tally"

static struct load_generation counters[COUNTERS];

static void answered(void *user, int code, const struct bop_result *result)
{
    struct slot *slot = user;
    int64_t numbers[2] = {code == 0, result->number};

    if (slot->op == CHAOS_COUNTER_CAS) {
        load_end(slot, code == BOP_ECONDITION ? 0 : code, numbers, 2);
    } else {
        /* One that nobody has added to is none. */
        load_end(slot, code == BOP_ENOTFOUND ? 0 : code, &numbers[1], 1);
    }
    if (code == 0) {
        counters[slot->object_index].last = result->number;
    }
}

static bool get_it(struct slot *slot, enum chaos_op op, const char *name)
{
    load_begin(slot, op, name);
    return load_refused(slot, bop_client_counter_get(slot->client, bop_slice_cstr(name),
                                                     BOP_READ_LINEARIZABLE, answered, slot));
}

static bool add(struct slot *slot, enum chaos_op op, const char *name)
{
    int64_t delta = 1 + (int64_t)load_below(5);

    load_begin(slot, op, name);
    load_asks(slot, delta);
    return load_refused(
        slot, bop_client_counter_add(slot->client, bop_slice_cstr(name), delta, answered, slot));
}

static bool compare_and_set(struct slot *slot, const char *name, int64_t expected)
{
    int64_t value = expected + 100;

    load_begin(slot, CHAOS_COUNTER_CAS, name);
    load_asks(slot, expected);
    load_asks(slot, value);
    return load_refused(slot, bop_client_counter_cas(slot->client, bop_slice_cstr(name), expected,
                                                     value, answered, slot));
}

static bool next_counter(struct slot *slot)
{
    struct load_generation *generation;
    char name[LOAD_OBJECT_MAX];

    slot->object_index = load_below(COUNTERS);
    generation = &counters[slot->object_index];
    load_use(generation, 'c', slot->object_index, USES_MAX, name);
    switch (load_below(4)) {
    case 0:
        return compare_and_set(slot, name, generation->last);
    case 1:
        return get_it(slot, CHAOS_COUNTER_GET, name);
    default:
        return add(slot, CHAOS_COUNTER_ADD, name);
    }
}

static bool final_counter(struct slot *slot, size_t step)
{
    char name[LOAD_OBJECT_MAX];

    if (!load_nth(counters, COUNTERS, 'c', step, name)) {
        return false;
    }
    get_it(slot, CHAOS_COUNTER_GET, name);
    return true;
}

static bool next_tally(struct slot *slot)
{
    return load_below(4) == 0 ? get_it(slot, CHAOS_TALLY_GET, TALLY)
                              : add(slot, CHAOS_TALLY_ADD, TALLY);
}

static bool final_tally(struct slot *slot, size_t step)
{
    if (step != 0) {
        return false;
    }
    get_it(slot, CHAOS_TALLY_GET, TALLY);
    return true;
}

const struct workload load_counter = {
    .name = "counter", .weight = 2, .next = next_counter, .final = final_counter};
const struct workload load_tally = {
    .name = "tally", .weight = 1, .next = next_tally, .final = final_tally};
