/*
 * What clients ask for. They look at the model to ask for what is interesting: versions
 * that are right, locks that are theirs; they need not, for whatever they ask is judged
 * by the log.
 */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define SIZE_BIG   (60 * 1024)
#define SIZE_MIN   8
#define ITEMS_MAX  5
#define PARTS_MAX  4
#define SCRATCH    (SIZE_BIG + 1024)
#define LOCKS_WANT 40 /* Requests of a lock, above which nobody asks for more. */

/* Where an operation's bytes lie while it is made. */
struct draft {
    struct sim_client *client;
    uint64_t number;
    struct bop_operation operation;
    struct bop_buf parts; /* Compares, items or operations. */
    struct bop_buf then_parts, else_parts;
};

/* A value's bytes, until it is encoded. */
static uint8_t scratch[SCRATCH];

static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
static const char *const map_names[STATE_MAPS] = {"m", "n"};
static const char *const counter_names[STATE_COUNTERS] = {"c0", "c1", "c2", "c3"};
static const char *const lock_names[STATE_LOCKS] = {"l0", "l1", "l2"};
static const uint32_t capacities[STATE_LOCKS] = {1, 1, 3};

static uint64_t below(const struct draft *draft, uint64_t bound)
{
    return sim_below(draft->client->sim, bound);
}

static const struct state *model_of(const struct draft *draft)
{
    return sim_model_state(draft->client->sim);
}

static struct bop_slice some_letter(const struct draft *draft, unsigned count)
{
    return bop_slice(&letters[below(draft, count)], 1);
}

static uint32_t choose_size(struct sim *sim)
{
    if (sim->big_values && sim_chance(sim, 1, 4)) {
        return SIZE_BIG;
    }
    return (uint32_t)(sim_chance(sim, 1, 20) ? sim_between(sim, SIZE_MIN, 8 * 1024)
                                             : sim_between(sim, SIZE_MIN, 200));
}

/* Its first bytes say which operation put it. */
static struct bop_slice make_value(struct draft *draft, uint32_t size, uint8_t salt)
{
    for (uint32_t n = 0; n < size; n++) {
        scratch[n] = (uint8_t)(draft->number * 131 + n + salt);
    }
    memcpy(scratch, &draft->number, sizeof(draft->number));
    return bop_slice(scratch, size);
}

/* ---- Maps ---- */

static const struct state_cell *cell_of(const struct draft *draft)
{
    unsigned map = draft->operation.name.data[0] == 'n';

    return &model_of(draft)->maps[map].keys[draft->operation.key.data[0] - 'a'];
}

static void choose_condition(struct draft *draft)
{
    static const enum bop_condition conditions[] = {BOP_IF_ABSENT, BOP_IF_PRESENT, BOP_IF_VERSION};
    struct bop_operation *operation = &draft->operation;

    if (below(draft, 3) == 0) {
        operation->condition = conditions[below(draft, BOP_COUNT_OF(conditions))];
        operation->version = operation->condition == BOP_IF_VERSION ? cell_of(draft)->version : 0;
    }
}

static uint64_t choose_ttl(const struct draft *draft)
{
    return below(draft, 5) == 0 ? 0 : 1 + below(draft, 3000);
}

static void choose_put_all(struct draft *draft)
{
    struct bop_writer writer = bop_writer(&draft->parts);
    uint64_t count = 1 + below(draft, ITEMS_MAX);

    draft->operation.op = BOP_OP_MAP_PUT_ALL;
    draft->operation.key = bop_slice(NULL, 0);
    draft->operation.ttl_ms = below(draft, 2) ? choose_ttl(draft) : 0;
    for (uint64_t n = 0; n < count; n++) {
        struct bop_item item = {
            .key = some_letter(draft, STATE_KEYS),
            .value = make_value(draft, SIZE_MIN + (uint32_t)below(draft, 50), (uint8_t)n)};

        bop_item_encode(&writer, BOP_OP_MAP_PUT_ALL, &item);
    }
    draft->operation.count = (uint32_t)count;
    draft->operation.items = bop_buf_slice(&draft->parts);
}

/* Of a kind that shows whose it is, or of any. */
static void choose_map_write(struct draft *draft, bool anonymous, bool small)
{
    struct bop_operation *operation = &draft->operation;
    uint64_t dice = below(draft, anonymous ? 75 : 100);

    operation->name = bop_slice_cstr(map_names[below(draft, 4) == 0]);
    operation->key = some_letter(draft, STATE_KEYS);
    if (dice < 70) {
        operation->op = dice < 40   ? BOP_OP_MAP_PUT
                        : dice < 58 ? BOP_OP_MAP_PUT_TTL
                                    : BOP_OP_MAP_EXCHANGE;
        operation->ttl_ms = operation->op == BOP_OP_MAP_PUT ? 0 : choose_ttl(draft);
        operation->value = make_value(
            draft, small ? 8 + (uint32_t)below(draft, 30) : choose_size(draft->client->sim), 0);
        choose_condition(draft);
    } else if (dice < 75 && !small) {
        choose_put_all(draft);
    } else if (dice < 96 || small) {
        operation->op = dice < 86 ? BOP_OP_MAP_DELETE : BOP_OP_MAP_TAKE;
        choose_condition(draft);
    } else {
        operation->op = dice < 98 ? BOP_OP_MAP_CREATE : BOP_OP_MAP_CLEAR;
        operation->key = bop_slice(NULL, 0);
    }
}

/* ---- Counters, sets, multimaps ---- */

static void choose_counter_write(struct draft *draft)
{
    struct bop_operation *operation = &draft->operation;
    unsigned which = (unsigned)below(draft, 2);
    uint64_t dice = below(draft, 10);

    operation->name = bop_slice_cstr(counter_names[which]);
    operation->op = dice < 5   ? BOP_OP_COUNTER_ADD
                    : dice < 7 ? BOP_OP_COUNTER_CAS
                    : dice < 8 ? BOP_OP_COUNTER_SET
                    : dice < 9 ? BOP_OP_COUNTER_CREATE
                               : BOP_OP_COUNTER_DELETE;
    if (operation->op == BOP_OP_COUNTER_ADD) {
        operation->delta = (int64_t)draft->number;
    } else if (operation->op == BOP_OP_COUNTER_CAS || operation->op == BOP_OP_COUNTER_SET) {
        operation->number = (int64_t)(draft->number * 1000);
    }
    if (operation->op == BOP_OP_COUNTER_CAS) {
        operation->expected_number = model_of(draft)->counters[which].value;
    }
}

static void choose_set_write(struct draft *draft)
{
    uint64_t dice = below(draft, 40);

    draft->operation.name = bop_slice_cstr("s");
    draft->operation.op = dice < 20   ? BOP_OP_SET_ADD
                          : dice < 38 ? BOP_OP_SET_REMOVE
                          : dice < 39 ? BOP_OP_SET_CLEAR
                                      : BOP_OP_SET_CREATE;
    if (dice < 38) {
        draft->operation.key = some_letter(draft, STATE_MEMBERS);
    }
}

static void choose_multimap_write(struct draft *draft)
{
    uint64_t dice = below(draft, 40);

    draft->operation.name = bop_slice_cstr("u");
    draft->operation.op = dice < 22   ? BOP_OP_MULTIMAP_PUT
                          : dice < 34 ? BOP_OP_MULTIMAP_REMOVE_VALUE
                          : dice < 38 ? BOP_OP_MULTIMAP_REMOVE
                          : dice < 39 ? BOP_OP_MULTIMAP_CLEAR
                                      : BOP_OP_MULTIMAP_CREATE;
    if (dice < 38) {
        draft->operation.key = some_letter(draft, STATE_PAIR_KEYS);
    }
    if (dice < 34) {
        draft->operation.value = some_letter(draft, STATE_VALUES);
    }
}

/* ---- What belongs to sessions ---- */

static const struct state_request *own_request(const struct draft *draft,
                                               const struct state_lock *lock)
{
    for (unsigned n = 0; n < lock->count; n++) {
        if (lock->requests[n].session == draft->client->session) {
            return &lock->requests[n];
        }
    }
    return NULL;
}

static void choose_acquire(struct draft *draft, unsigned which)
{
    struct bop_operation *operation = &draft->operation;

    operation->op = BOP_OP_LOCK_ACQUIRE;
    operation->capacity = below(draft, 40) == 0 ? 2 : capacities[which];
    operation->permits = 1 + (uint32_t)below(draft, operation->capacity);
    operation->ttl_ms = below(draft, 3) == 0 ? BOP_LOCK_TIMEOUT_NEVER : below(draft, 2000);
    operation->label = below(draft, 2) ? some_letter(draft, 4) : bop_slice(NULL, 0);
}

static void choose_lock_write(struct draft *draft)
{
    unsigned which = (unsigned)below(draft, STATE_LOCKS);
    const struct state_lock *lock = &model_of(draft)->locks[which];
    const struct state_request *own = own_request(draft, lock);
    struct bop_operation *operation = &draft->operation;
    uint64_t dice = below(draft, 100);

    operation->name = bop_slice_cstr(lock_names[which]);
    if (dice < 3) {
        operation->op = below(draft, 2) ? BOP_OP_LOCK_CREATE : BOP_OP_LOCK_DELETE;
        operation->capacity = operation->op == BOP_OP_LOCK_CREATE ? capacities[which] : 0;
    } else if (dice < 8) {
        operation->op = BOP_OP_LOCK_ADOPT;
        operation->label = some_letter(draft, 4);
    } else if ((own && dice < 70) || lock->count > LOCKS_WANT || dice < 12) {
        operation->op = BOP_OP_LOCK_RELEASE;
        operation->sequence = own               ? own->ticket
                              : lock->count > 0 ? lock->requests[0].ticket
                                                : below(draft, 1000);
    } else {
        choose_acquire(draft, which);
    }
}

static void choose_member_write(struct draft *draft)
{
    uint64_t dice = below(draft, 10);

    draft->operation.name = bop_slice_cstr("g");
    draft->operation.key = some_letter(draft, SIM_CLIENTS_MAX);
    draft->operation.op = dice < 5   ? BOP_OP_MEMBER_JOIN
                          : dice < 8 ? BOP_OP_MEMBER_SET
                                     : BOP_OP_MEMBER_LEAVE;
    if (dice < 8) {
        draft->operation.value = make_value(draft, 8, 0);
    }
}

static void choose_registration_write(struct draft *draft)
{
    struct bop_operation *operation = &draft->operation;
    struct bop_writer writer = bop_writer(&draft->parts);
    uint64_t dice = below(draft, 10);
    struct bop_item item;

    operation->name = bop_slice_cstr("r");
    operation->op = dice < 5   ? BOP_OP_REGISTRATION_ADD
                    : dice < 8 ? BOP_OP_REGISTRATION_REMOVE
                               : BOP_OP_REGISTRATION_ADD_ALL;
    if (dice < 8) {
        operation->sequence = 1 + below(draft, 12);
        operation->key = bop_slice(&letters[operation->sequence % STATE_ADDRESSES], 1);
        return;
    }
    operation->count = 1 + (uint32_t)below(draft, 4);
    for (uint32_t n = 0; n < operation->count; n++) {
        uint64_t sequence = 1 + below(draft, 12);

        /* Seldom one that is in use for another address: then none is added. */
        item = (struct bop_item){
            .key = bop_slice(&letters[(sequence + (below(draft, 12) == 0)) % STATE_ADDRESSES], 1),
            .sequence = sequence};
        bop_item_encode(&writer, BOP_OP_REGISTRATION_ADD_ALL, &item);
    }
    operation->items = bop_buf_slice(&draft->parts);
}

/* ---- Transactions ---- */

static void add_compare(struct draft *draft, struct bop_writer *writer)
{
    static const enum bop_compare_kind kinds[] = {BOP_COMPARE_VERSION, BOP_COMPARE_COUNTER,
                                                  BOP_COMPARE_SET,     BOP_COMPARE_MULTIMAP,
                                                  BOP_COMPARE_LOCK,    BOP_COMPARE_MEMBER};
    const struct state *model = model_of(draft);
    struct bop_compare compare = {.kind = kinds[below(draft, BOP_COUNT_OF(kinds))],
                                  .relation = (enum bop_relation)(1 + below(draft, 4))};
    unsigned which;

    switch (compare.kind) {
    case BOP_COMPARE_VERSION:
        which = (unsigned)below(draft, STATE_KEYS);
        compare.name = bop_slice_cstr("m");
        compare.key = bop_slice(&letters[which], 1);
        compare.number = (int64_t)model->maps[0].keys[which].version;
        break;
    case BOP_COMPARE_COUNTER:
        which = (unsigned)below(draft, STATE_COUNTERS);
        compare.name = bop_slice_cstr(counter_names[which]);
        compare.number = model->counters[which].value;
        break;
    case BOP_COMPARE_LOCK:
        which = (unsigned)below(draft, STATE_LOCKS);
        compare.name = bop_slice_cstr(lock_names[which]);
        compare.number = model->locks[which].count > 0
                             ? (int64_t)model->locks[which].requests[0].token
                             : 7;
        compare.relation = below(draft, 3) ? BOP_EQUAL : BOP_NOT_EQUAL;
        break;
    case BOP_COMPARE_MULTIMAP:
        compare.name = bop_slice_cstr("u");
        compare.key = some_letter(draft, STATE_PAIR_KEYS);
        compare.value = some_letter(draft, STATE_VALUES);
        compare.number = (int64_t)below(draft, 2);
        break;
    default:
        compare.name = bop_slice_cstr(compare.kind == BOP_COMPARE_SET ? "s" : "g");
        compare.key = some_letter(draft, STATE_MEMBERS);
        compare.number = (int64_t)below(draft, 2);
    }
    bop_compare_encode(writer, &compare);
}

static void append_operation(struct bop_buf *parts, const struct bop_operation *operation)
{
    struct bop_buf bytes;
    struct bop_writer inner = bop_writer(&bytes), outer = bop_writer(parts);

    bop_buf_init(&bytes, NULL, 0);
    bop_operation_encode(&inner, operation);
    bop_write_bytes(&outer, bop_buf_slice(&bytes));
    BOP_ASSERT(inner.code == 0 && outer.code == 0);
    bop_buf_deinit(&bytes);
}

/* From one counter to the other: their sum stays. */
static uint32_t add_move(struct draft *draft, struct bop_buf *parts)
{
    int64_t amount = 1 + (int64_t)below(draft, 50);
    unsigned from = 2 + (unsigned)below(draft, 2);
    struct bop_operation operation = {
        .op = BOP_OP_COUNTER_ADD, .name = bop_slice_cstr(counter_names[from]), .delta = -amount};

    append_operation(parts, &operation);
    operation.name = bop_slice_cstr(counter_names[5 - from]);
    operation.delta = amount;
    append_operation(parts, &operation);
    return 2;
}

static void choose_part(struct draft *draft)
{
    uint64_t dice = below(draft, 100);

    if (dice < 30) {
        choose_map_write(draft, false, true);
    } else if (dice < 45) {
        choose_counter_write(draft);
    } else if (dice < 55) {
        choose_set_write(draft);
    } else if (dice < 65) {
        choose_multimap_write(draft);
    } else if (dice < 80) {
        choose_lock_write(draft);
    } else if (dice < 88) {
        choose_member_write(draft);
    } else if (dice < 94) {
        choose_registration_write(draft);
    } else {
        draft->operation.op = dice < 97 ? BOP_OP_MAP_GET : BOP_OP_COUNTER_GET;
        draft->operation.name = bop_slice_cstr(dice < 97 ? "m" : "c2");
        draft->operation.key = dice < 97 ? some_letter(draft, STATE_KEYS) : bop_slice(NULL, 0);
    }
}

static uint32_t add_parts(struct draft *draft, struct bop_buf *parts, uint32_t count)
{
    uint32_t added = below(draft, 3) == 0 ? add_move(draft, parts) : 0;

    for (uint32_t n = 0; n < count; n++, added++) {
        struct draft *part = sim_memory(sizeof(*part));

        part->client = draft->client;
        part->number = draft->number;
        bop_buf_init(&part->parts, NULL, 0);
        choose_part(part);
        append_operation(parts, &part->operation);
        bop_buf_deinit(&part->parts);
        free(part);
    }
    return added;
}

static void choose_transaction(struct draft *draft)
{
    struct bop_operation *operation = &draft->operation;
    struct bop_writer writer = bop_writer(&draft->parts);

    operation->op = BOP_OP_TRANSACTION;
    operation->compare_count = (uint32_t)below(draft, 3);
    for (uint32_t n = 0; n < operation->compare_count; n++) {
        add_compare(draft, &writer);
    }
    operation->then_count = add_parts(draft, &draft->then_parts, 1 + (uint32_t)below(draft, 4));
    operation->else_count = add_parts(draft, &draft->else_parts, (uint32_t)below(draft, 3));
    operation->compares = bop_buf_slice(&draft->parts);
    operation->then_items = bop_buf_slice(&draft->then_parts);
    operation->else_items = bop_buf_slice(&draft->else_parts);
}

/* ---- Reads ---- */

static void choose_read(struct draft *draft)
{
    struct bop_operation *operation = &draft->operation;
    uint64_t dice = below(draft, 100);

    if (dice < 55) {
        operation->op = dice < 45 ? BOP_OP_MAP_GET : BOP_OP_MAP_GET_TTL;
        operation->name = bop_slice_cstr(map_names[below(draft, 4) == 0]);
        operation->key = some_letter(draft, STATE_KEYS);
    } else if (dice < 66) {
        operation->op = BOP_OP_COUNTER_GET;
        operation->name = bop_slice_cstr(counter_names[below(draft, STATE_COUNTERS)]);
    } else if (dice < 76) {
        operation->op = dice < 69   ? BOP_OP_MAP_SIZE
                        : dice < 73 ? BOP_OP_MAP_SCAN
                                    : BOP_OP_MAP_RANGE;
        operation->name = bop_slice_cstr(map_names[below(draft, 2)]);
    } else if (dice < 82) {
        operation->op = dice < 79 ? BOP_OP_SET_CONTAINS : BOP_OP_SET_SCAN;
        operation->name = bop_slice_cstr("s");
        operation->key = dice < 79 ? some_letter(draft, STATE_MEMBERS) : bop_slice(NULL, 0);
    } else if (dice < 88) {
        operation->op = dice < 85 ? BOP_OP_MULTIMAP_GET : BOP_OP_MULTIMAP_ENTRIES;
        operation->name = bop_slice_cstr("u");
        operation->key = dice < 85 ? some_letter(draft, STATE_PAIR_KEYS) : bop_slice(NULL, 0);
    } else if (dice < 91 && draft->client->session != 0) {
        operation->op = BOP_OP_LOCK_OWNED;
        operation->session = draft->client->session;
    } else if (dice < 95) {
        operation->op = BOP_OP_LOCK_GET;
        operation->name = bop_slice_cstr(lock_names[below(draft, STATE_LOCKS)]);
    } else {
        operation->op = dice < 98 ? BOP_OP_MEMBER_LIST : BOP_OP_REGISTRATION_LIST;
        operation->name = bop_slice_cstr(dice < 98 ? "g" : "r");
    }
}

void sim_workload_read(struct sim_client *client, struct bop_buf *out)
{
    struct draft *draft = sim_memory(sizeof(*draft));
    struct bop_writer writer = bop_writer(out);

    draft->client = client;
    choose_read(draft);
    bop_operation_encode(&writer, &draft->operation);
    BOP_ASSERT(writer.code == 0);
    free(draft);
}

/* ---- All of them ---- */

static void choose(struct draft *draft, bool session)
{
    uint64_t dice = below(draft, 100);

    if (dice < 40) {
        choose_read(draft);
    } else if (!session) {
        /* Nothing but what shows in the log whose it is. */
        if (dice < 80) {
            choose_map_write(draft, true, false);
        } else {
            draft->operation.op = BOP_OP_COUNTER_ADD;
            draft->operation.name = bop_slice_cstr(counter_names[below(draft, 2)]);
            draft->operation.delta = (int64_t)draft->number;
        }
    } else if (dice < 58) {
        choose_map_write(draft, false, false);
    } else if (dice < 64) {
        choose_counter_write(draft);
    } else if (dice < 68) {
        choose_set_write(draft);
    } else if (dice < 72) {
        choose_multimap_write(draft);
    } else if (dice < 84) {
        choose_lock_write(draft);
    } else if (dice < 87) {
        choose_member_write(draft);
    } else if (dice < 90) {
        choose_registration_write(draft);
    } else {
        choose_transaction(draft);
    }
}

void sim_workload(struct sim_client *client, uint64_t number)
{
    struct draft *draft = sim_memory(sizeof(*draft));
    struct sim_op *op = sim_op(client->sim, number);
    struct bop_buf bytes;
    struct bop_writer writer = bop_writer(&bytes);

    draft->client = client;
    draft->number = number;
    bop_buf_init(&draft->parts, NULL, 0);
    bop_buf_init(&draft->then_parts, NULL, 0);
    bop_buf_init(&draft->else_parts, NULL, 0);
    bop_buf_init(&bytes, NULL, 0);
    choose(draft, client->uses_session);
    bop_operation_encode(&writer, &draft->operation);
    BOP_ASSERT(writer.code == 0);
    op->op = draft->operation.op;
    op->bytes = sim_memory(bytes.size);
    op->size = bytes.size;
    memcpy(op->bytes, bytes.data, bytes.size);
    bop_buf_deinit(&draft->parts);
    bop_buf_deinit(&draft->then_parts);
    bop_buf_deinit(&draft->else_parts);
    bop_buf_deinit(&bytes);
    free(draft);
}
