/*
 * Registers: keys of a map, read, put, and put if they hold what was seen there last.
 */
#include "load.h"

#define REGISTERS 5
#define USES_MAX  150 /* Operations on one of them before the next takes its place. */
#define MAP       bop_slice_cstr("chaos-registers")

static struct load_generation registers[REGISTERS];

static void saw(struct slot *slot, int64_t value)
{
    registers[slot->object_index].last = value;
}

static void got(void *user, int code, const struct bop_result *result)
{
    struct slot *slot = user;
    static const int64_t none = 0, strange = -1; /* The latter is what nobody has put. */
    const int64_t *value = &none;
    size_t count = 1;

    if (code == 0 && (!load_numbers_of(result->value, &value, &count) || count != 1)) {
        value = &strange;
    }
    code = code == BOP_ENOTFOUND ? 0 : code;
    if (code == 0) {
        saw(slot, *value);
    }
    load_end(slot, code, value, 1);
}

static void put(void *user, int code, const struct bop_result *result)
{
    struct slot *slot = user;
    int64_t done = code == 0;

    if (done) {
        saw(slot, slot->asked[slot->asked_count - 1]);
    }
    if (slot->op == CHAOS_REG_PUT) {
        load_end(slot, code, NULL, 0);
    } else {
        load_end(slot, code == BOP_ECONDITION ? 0 : code, &done, 1);
    }
}

static bool get_it(struct slot *slot, const char *name)
{
    load_begin(slot, CHAOS_REG_GET, name);
    return load_refused(slot, bop_client_map_get(slot->client, MAP, bop_slice_cstr(name),
                                                 BOP_READ_LINEARIZABLE, got, slot));
}

static bool put_it(struct slot *slot, const char *name)
{
    int64_t value = load_unique();

    load_begin(slot, CHAOS_REG_PUT, name);
    load_asks(slot, value);
    return load_refused(slot, bop_client_map_put(slot->client, MAP, bop_slice_cstr(name),
                                                 load_bytes_of(&value), NULL, put, slot));
}

static bool compare_and_set(struct slot *slot, const char *name, int64_t expected)
{
    int64_t value = load_unique();
    struct bop_client_if only_if = {.condition = expected == 0 ? BOP_IF_ABSENT : BOP_IF_VALUE,
                                    .expected = load_bytes_of(&expected)};

    load_begin(slot, CHAOS_REG_CAS, name);
    load_asks(slot, expected);
    load_asks(slot, value);
    return load_refused(slot, bop_client_map_put(slot->client, MAP, bop_slice_cstr(name),
                                                 load_bytes_of(&value), &only_if, put, slot));
}

static bool next(struct slot *slot)
{
    struct load_generation *generation;
    char name[LOAD_OBJECT_MAX];

    slot->object_index = load_below(REGISTERS);
    generation = &registers[slot->object_index];
    load_use(generation, 'r', slot->object_index, USES_MAX, name);
    switch (load_below(4)) {
    case 0:
        return put_it(slot, name);
    case 1:
        return compare_and_set(slot, name, generation->last);
    default:
        return get_it(slot, name);
    }
}

static bool final(struct slot *slot, size_t step)
{
    char name[LOAD_OBJECT_MAX];

    if (!load_nth(registers, REGISTERS, 'r', step, name)) {
        return false;
    }
    slot->object_index = 0;
    get_it(slot, name);
    return true;
}

const struct workload load_register = {
    .name = "register", .weight = 3, .next = next, .final = final};
