/*
 * Transactions. The bank: accounts are counters, and a transfer takes from one, if there is enough,
 * and gives to another; whoever reads all of them in one transaction sees the same sum. The pairs:
 * each of two keys is put only if the other is not there.
 */
#include "load.h"

#define ACCOUNTS   6
#define EACH       100 /* In the beginning. */
#define PAIR_USES  12
#define OPENED     "bank/opened"
#define PAIRS      "chaos-pairs"
#define READ_EVERY 4

/* A transaction on its way to being encoded. */
struct transaction {
    struct bop_buf compares;
    struct bop_buf then;
    struct bop_operation operation;
};

static void transaction_init(struct transaction *t)
{
    bop_buf_init(&t->compares, NULL, 0);
    bop_buf_init(&t->then, NULL, 0);
    t->operation = (struct bop_operation){.op = BOP_OP_TRANSACTION};
}

static void compare(struct transaction *t, const struct bop_compare *one)
{
    struct bop_writer writer = bop_writer(&t->compares);

    bop_compare_encode(&writer, one);
    t->operation.compare_count++;
}

static void then_do(struct transaction *t, const struct bop_operation *one)
{
    struct bop_writer writer = bop_writer(&t->then);
    struct bop_writer inner;
    struct bop_buf bytes;

    bop_buf_init(&bytes, NULL, 0);
    inner = bop_writer(&bytes);
    bop_operation_encode(&inner, one);
    bop_write_bytes(&writer, bop_buf_slice(&bytes));
    bop_buf_deinit(&bytes);
    t->operation.then_count++;
}

/* Ask for it; it is freed. */
static bool execute(struct slot *slot, struct transaction *t, bop_client_fn fn)
{
    int rc;

    t->operation.compares = bop_buf_slice(&t->compares);
    t->operation.then_items = bop_buf_slice(&t->then);
    rc = bop_client_execute(slot->client, &t->operation, BOP_READ_LINEARIZABLE, fn, slot);
    bop_buf_deinit(&t->compares);
    bop_buf_deinit(&t->then);
    return load_refused(slot, rc);
}

/* ---- The bank ---- */

static bool opened;

static struct bop_slice account(size_t number)
{
    static const char *const names[ACCOUNTS] = {"bank/0", "bank/1", "bank/2",
                                                "bank/3", "bank/4", "bank/5"};

    return bop_slice_cstr(names[number]);
}

static void did(void *user, int code, const struct bop_result *result)
{
    load_end(user, code, &(int64_t){result->existed}, 1);
}

static void did_open(void *user, int code, const struct bop_result *result)
{
    struct slot *slot = user;

    opened = opened || code == 0;
    load_end(slot, code, NULL, 0);
    slot->silent = false;
}

/* Once, however often it is tried. */
static bool open_bank(struct slot *slot)
{
    struct transaction t;

    transaction_init(&t);
    compare(&t, &(struct bop_compare){.kind = BOP_COMPARE_COUNTER,
                                      .relation = BOP_EQUAL,
                                      .name = bop_slice_cstr(OPENED)});
    then_do(&t, &(struct bop_operation){
                    .op = BOP_OP_COUNTER_SET, .name = bop_slice_cstr(OPENED), .number = 1});
    for (size_t i = 0; i < ACCOUNTS; i++) {
        then_do(&t, &(struct bop_operation){
                        .op = BOP_OP_COUNTER_SET, .name = account(i), .number = EACH});
    }
    slot->silent = true;
    load_begin(slot, CHAOS_BANK_MOVE, "bank");
    return execute(slot, &t, did_open);
}

static bool move(struct slot *slot)
{
    size_t from = load_below(ACCOUNTS), to = (from + 1 + load_below(ACCOUNTS - 1)) % ACCOUNTS;
    int64_t amount = 1 + (int64_t)load_below(40);
    struct transaction t;

    transaction_init(&t);
    compare(&t, &(struct bop_compare){.kind = BOP_COMPARE_COUNTER,
                                      .relation = BOP_GREATER,
                                      .name = account(from),
                                      .number = amount - 1});
    then_do(&t, &(struct bop_operation){
                    .op = BOP_OP_COUNTER_ADD, .name = account(from), .delta = -amount});
    then_do(&t, &(struct bop_operation){
                    .op = BOP_OP_COUNTER_ADD, .name = account(to), .delta = amount});
    load_begin(slot, CHAOS_BANK_MOVE, "bank");
    load_asks(slot, (int64_t)from);
    load_asks(slot, (int64_t)to);
    load_asks(slot, amount);
    return execute(slot, &t, did);
}

static void did_read(void *user, int code, const struct bop_result *result)
{
    struct bop_slice entries = result->entries, bytes;
    int64_t balances[ACCOUNTS];
    struct bop_result one;
    size_t count = 0;
    uint8_t status;

    while (code == 0 && count < ACCOUNTS &&
           bop_transaction_result_next(&entries, &status, &bytes)) {
        if (bop_result_decode(BOP_OP_COUNTER_GET, status, bytes, &one) == 0) {
            balances[count++] = one.number;
        }
    }
    load_end(user, code, balances, count);
}

static bool read_bank(struct slot *slot)
{
    struct transaction t;

    transaction_init(&t);
    for (size_t i = 0; i < ACCOUNTS; i++) {
        then_do(&t, &(struct bop_operation){.op = BOP_OP_COUNTER_GET, .name = account(i)});
    }
    load_begin(slot, CHAOS_BANK_READ, "bank");
    load_asks(slot, ACCOUNTS * EACH);
    load_asks(slot, ACCOUNTS);
    return execute(slot, &t, did_read);
}

static bool next_bank(struct slot *slot)
{
    if (!opened) {
        return open_bank(slot);
    }
    return load_below(READ_EVERY) == 0 ? read_bank(slot) : move(slot);
}

static bool final_bank(struct slot *slot, size_t step)
{
    if (step != 0 || !opened) {
        return false;
    }
    read_bank(slot);
    return true;
}

const struct workload load_bank = {
    .name = "bank", .weight = 1, .next = next_bank, .final = final_bank};

/* ---- Pairs ---- */

static struct load_generation pairs[2];

/* "p0.7" and a side: "p0.7/0". */
static void side_name(const char *pair, unsigned side, char *out_name, size_t size)
{
    snprintf(out_name, size, "%s/%u", pair, side);
}

static bool set_side(struct slot *slot, const char *pair)
{
    char mine[LOAD_OBJECT_MAX + 2], other[LOAD_OBJECT_MAX + 2];
    unsigned side = load_below(2);
    struct transaction t;

    side_name(pair, side, mine, sizeof(mine));
    side_name(pair, !side, other, sizeof(other));
    transaction_init(&t);
    compare(&t, &(struct bop_compare){.kind = BOP_COMPARE_VERSION,
                                      .relation = BOP_EQUAL,
                                      .name = bop_slice_cstr(PAIRS),
                                      .key = bop_slice_cstr(other)});
    then_do(&t, &(struct bop_operation){.op = BOP_OP_MAP_PUT,
                                        .name = bop_slice_cstr(PAIRS),
                                        .key = bop_slice_cstr(mine),
                                        .value = bop_slice_cstr("set")});
    load_begin(slot, CHAOS_SKEW_SET, pair);
    load_asks(slot, side);
    return execute(slot, &t, did);
}

static void did_range(void *user, int code, const struct bop_result *result)
{
    struct bop_slice entries = result->entries;
    struct bop_scan_entry entry;
    int64_t sides[2] = {0, 0};

    while (code == 0 && bop_scan_next(&entries, &entry)) {
        sides[((const char *)entry.key.data)[entry.key.size - 1] == '1'] = 1;
    }
    load_end(user, code, sides, 2);
}

/* One page is of one moment. */
static bool read_pair(struct slot *slot, const char *pair)
{
    char prefix[LOAD_OBJECT_MAX + 2];
    struct bop_client_range range = {0};

    snprintf(prefix, sizeof(prefix), "%s/", pair);
    range.prefix = bop_slice_cstr(prefix);
    load_begin(slot, CHAOS_SKEW_READ, pair);
    return load_refused(slot, bop_client_map_range(slot->client, bop_slice_cstr(PAIRS), &range,
                                                   bop_slice(NULL, 0), 0, BOP_READ_LINEARIZABLE,
                                                   did_range, slot));
}

static bool next_pair(struct slot *slot)
{
    size_t index = load_below(2);
    char pair[LOAD_OBJECT_MAX];

    load_use(&pairs[index], 'p', index, PAIR_USES, pair);
    return load_below(3) == 0 ? read_pair(slot, pair) : set_side(slot, pair);
}

static bool final_pair(struct slot *slot, size_t step)
{
    char pair[LOAD_OBJECT_MAX];

    if (!load_nth(pairs, 2, 'p', step, pair)) {
        return false;
    }
    read_pair(slot, pair);
    return true;
}

const struct workload load_skew = {
    .name = "skew", .weight = 1, .next = next_pair, .final = final_pair};
