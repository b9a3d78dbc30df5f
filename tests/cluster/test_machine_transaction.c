/*
 * Transactions: compares, both branches, what an operation sees of those before it, and that a
 * failed one leaves nothing behind, neither in the store nor in memory.
 */
#include <bop/random.h>

#include "machine_help.h"

struct fixture {
    struct world world;
    struct bop_buf events;
    struct bop_buf compares;
    struct bop_buf lists[2]; /* Then and else. */
    struct bop_operation txn;
};

static void clear(struct fixture *f)
{
    bop_buf_clear(&f->compares);
    bop_buf_clear(&f->lists[0]);
    bop_buf_clear(&f->lists[1]);
    f->txn = (struct bop_operation){.op = BOP_OP_TRANSACTION};
}

static void setup(struct fixture *f)
{
    bop_buf_init(&f->events, NULL, 0);
    bop_buf_init(&f->compares, NULL, 0);
    bop_buf_init(&f->lists[0], NULL, 0);
    bop_buf_init(&f->lists[1], NULL, 0);
    world_init(&f->world, NULL);
    world_newest_level(&f->world);
    bop__machine_events_to(f->world.machine, &f->events);
    clear(f);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    bop_buf_deinit(&f->events);
    bop_buf_deinit(&f->compares);
    bop_buf_deinit(&f->lists[0]);
    bop_buf_deinit(&f->lists[1]);
}

FIXTURE(setup, teardown)

static void compare(struct fixture *f, struct bop_compare compare)
{
    struct bop_writer writer = bop_writer(&f->compares);

    bop_compare_encode(&writer, &compare);
    f->txn.compare_count++;
}

static void add_to(struct fixture *f, unsigned list, const struct bop_operation *operation)
{
    struct bop_writer writer;
    struct bop_buf inner;

    bop_buf_init(&inner, NULL, 0);
    writer = bop_writer(&inner);
    bop_operation_encode(&writer, operation);
    writer = bop_writer(&f->lists[list]);
    bop_write_bytes(&writer, bop_buf_slice(&inner));
    bop_buf_deinit(&inner);
    if (list == 0) {
        f->txn.then_count++;
    } else {
        f->txn.else_count++;
    }
}

static void then_put(struct fixture *f, const char *map, const char *key, const char *value)
{
    struct bop_operation put = op_put(map, bytes(key), bytes(value));

    add_to(f, 0, &put);
}

static void then_add(struct fixture *f, const char *counter, int64_t delta)
{
    struct bop_operation add = op_add(counter, delta);

    add_to(f, 0, &add);
}

static uint8_t run(struct fixture *f)
{
    f->txn.compares = bop_buf_slice(&f->compares);
    f->txn.then_items = bop_buf_slice(&f->lists[0]);
    f->txn.else_items = bop_buf_slice(&f->lists[1]);
    bop_buf_clear(&f->events);
    return world_write(&f->world, 0, 0, 0, &f->txn);
}

/* Run one with a compare alone: does it hold? */
static bool holds(struct fixture *f, struct bop_compare one)
{
    clear(f);
    compare(f, one);
    CHECK_EQ(run(f), BOP_STATUS_OK);
    return world_decoded(&f->world, BOP_OP_TRANSACTION).existed;
}

/* The result of the nth operation of the last one. */
static struct bop_result nth(struct fixture *f, unsigned n, enum bop_op op)
{
    struct bop_result all = world_decoded(&f->world, BOP_OP_TRANSACTION);
    struct bop_result result = {0};
    struct bop_slice bytes;
    uint8_t status = 0;

    for (unsigned i = 0; i <= n; i++) {
        REQUIRE(bop_transaction_result_next(&all.entries, &status, &bytes));
    }
    REQUIRE_EQ(bop_result_decode(op, status, bytes, &result), 0);
    return result;
}

/* ---- Compares ---- */

TEST(transaction, compares_versions_and_values)
{
    struct bop_compare c = {
        .kind = BOP_COMPARE_VERSION, .relation = BOP_EQUAL, .name = bytes("m"), .key = bytes("k")};

    CHECK(holds(f, c));
    world_put(&f->world, "m", "k", "bcd");
    CHECK(!holds(f, c));
    c.number = (int64_t)world_get(&f->world, "m", bytes("k")).version;
    CHECK(holds(f, c));
    c.relation = BOP_NOT_EQUAL;
    CHECK(!holds(f, c));
    c.number++;
    c.relation = BOP_LESS;
    CHECK(holds(f, c));
    c.relation = BOP_GREATER;
    CHECK(!holds(f, c));
    c.kind = BOP_COMPARE_VALUE;
    c.value = bytes("bc");
    CHECK(holds(f, c));
    c.value = bytes("bd");
    CHECK(!holds(f, c));
    c.relation = BOP_EQUAL;
    c.value = bytes("bcd");
    CHECK(holds(f, c));
    c.key = bytes("none");
    CHECK(!holds(f, c));
    c.relation = BOP_NOT_EQUAL;
    CHECK(holds(f, c));
}

TEST(transaction, compares_counters_sets_and_multimaps)
{
    struct bop_compare c = {
        .kind = BOP_COMPARE_COUNTER, .relation = BOP_GREATER, .name = bytes("c"), .number = -1};
    struct bop_operation set = {.op = BOP_OP_SET_ADD, .name = bytes("s"), .key = bytes("x")};
    struct bop_operation pair = {
        .op = BOP_OP_MULTIMAP_PUT, .name = bytes("mm"), .key = bytes("k"), .value = bytes("v")};
    struct bop_operation add = op_add("c", -5);

    CHECK(holds(f, c));
    world_write(&f->world, 0, 0, 0, &add);
    CHECK(!holds(f, c));
    c = (struct bop_compare){
        .kind = BOP_COMPARE_SET, .relation = BOP_EQUAL, .name = bytes("s"), .key = bytes("x")};
    CHECK(holds(f, c));
    world_write(&f->world, 0, 0, 0, &set);
    CHECK(!holds(f, c));
    c.number = 1;
    CHECK(holds(f, c));
    c = (struct bop_compare){.kind = BOP_COMPARE_MULTIMAP,
                             .relation = BOP_EQUAL,
                             .name = bytes("mm"),
                             .key = bytes("k"),
                             .value = bytes("v"),
                             .number = 1};
    CHECK(!holds(f, c));
    world_write(&f->world, 0, 0, 0, &pair);
    CHECK(holds(f, c));
}

/* ---- Branches ---- */

TEST(transaction, runs_the_branch_that_the_compares_say)
{
    struct bop_compare absent = {
        .kind = BOP_COMPARE_VERSION, .relation = BOP_EQUAL, .name = bytes("m"), .key = bytes("k")};
    struct bop_operation get = {.op = BOP_OP_MAP_GET, .name = bytes("m"), .key = bytes("k")};

    for (unsigned round = 0; round < 2; round++) {
        clear(f);
        compare(f, absent);
        then_put(f, "m", "k", "mine");
        add_to(f, 1, &get);
        CHECK_EQ(run(f), BOP_STATUS_OK);
        CHECK_EQ(world_decoded(&f->world, BOP_OP_TRANSACTION).existed, round == 0);
        CHECK_EQ(world_decoded(&f->world, BOP_OP_TRANSACTION).count, 1);
    }
    CHECK_SLICE_EQ(nth(f, 0, BOP_OP_MAP_GET).value, bytes("mine"));
}

/* Reads too see what was done before them in the same entry; sizes above all, which lie in memory.
 */
TEST(transaction, sees_its_own_doing)
{
    struct bop_operation size = {.op = BOP_OP_MAP_SIZE, .name = bytes("m")};
    struct bop_operation get = {.op = BOP_OP_MAP_GET, .name = bytes("m"), .key = bytes("b")};
    struct bop_operation exchange = {
        .op = BOP_OP_MAP_EXCHANGE, .name = bytes("m"), .key = bytes("a"), .value = bytes("3")};

    add_to(f, 0, &size);
    then_put(f, "m", "a", "1");
    then_put(f, "m", "b", "2");
    add_to(f, 0, &size);
    add_to(f, 0, &get);
    add_to(f, 0, &exchange);
    CHECK_EQ(run(f), BOP_STATUS_OK);
    CHECK_EQ(nth(f, 0, BOP_OP_MAP_SIZE).size, 0);
    CHECK(!nth(f, 1, BOP_OP_MAP_PUT).existed);
    CHECK_EQ(nth(f, 3, BOP_OP_MAP_SIZE).size, 2);
    CHECK_SLICE_EQ(nth(f, 4, BOP_OP_MAP_GET).value, bytes("2"));
    CHECK_SLICE_EQ(nth(f, 5, BOP_OP_MAP_EXCHANGE).value, bytes("1"));
    CHECK_EQ(nth(f, 5, BOP_OP_MAP_EXCHANGE).version, nth(f, 1, BOP_OP_MAP_PUT).version);
}

TEST(transaction, a_read_that_finds_nothing_is_no_failure)
{
    struct bop_operation get = {.op = BOP_OP_MAP_GET, .name = bytes("m"), .key = bytes("k")};

    add_to(f, 0, &get);
    then_put(f, "m", "a", "1");
    CHECK_EQ(run(f), BOP_STATUS_OK);
    CHECK_EQ(nth(f, 0, BOP_OP_MAP_GET).status, BOP_STATUS_NOT_FOUND);
    CHECK_EQ(world_size(&f->world, "m"), 1);
}

TEST(transaction, with_nothing_in_it_holds)
{
    CHECK_EQ(run(f), BOP_STATUS_OK);
    CHECK(world_decoded(&f->world, BOP_OP_TRANSACTION).existed);
}

/* ---- All or nothing ---- */

TEST(transaction, that_fails_changes_nothing)
{
    struct bop_operation fails = op_put("m", bytes("new"), bytes("x"));
    uint64_t before;

    fails.condition = BOP_IF_PRESENT;
    world_put(&f->world, "m", "old", "1");
    before = world_digest(&f->world);
    then_put(f, "m", "old", "2");
    then_put(f, "other", "k", "v");
    then_add(f, "c", 3);
    add_to(f, 0, &fails);
    then_put(f, "m", "last", "v");
    CHECK_EQ(run(f), BOP_STATUS_CONDITION);
    CHECK_EQ(world_decoded(&f->world, BOP_OP_TRANSACTION).version, 3);
    CHECK_EQ(f->events.size, 0);
    CHECK_SLICE_EQ(world_get(&f->world, "m", bytes("old")).value, bytes("1"));
    CHECK_EQ(world_size(&f->world, "m"), 1);
    CHECK_EQ(world_size(&f->world, "other"), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_MAPS), 1);
    CHECK_EQ(world_records(&f->world, MACHINE_COUNTERS), 0);
    CHECK_EQ(before != world_digest(&f->world), true); /* The position has moved on. */
}

TEST(transaction, that_overflows_a_counter_changes_nothing)
{
    then_add(f, "a", 1);
    then_add(f, "b", INT64_MAX);
    then_add(f, "b", 1);
    CHECK_EQ(run(f), BOP_STATUS_OVERFLOW);
    CHECK_EQ(world_records(&f->world, MACHINE_COUNTERS), 0);
}

/* Everything a transaction may do, at random, of which one in two fails at its end: the state is
 * that of a machine that was never given those that failed. */
TEST(transaction, leaves_no_trace_of_those_that_fail)
{
    struct world twin = {0};
    struct bop_random random;
    static const enum bop_op ops[] = {
        BOP_OP_MAP_PUT,        BOP_OP_MAP_DELETE,  BOP_OP_MAP_CLEAR,       BOP_OP_MAP_PUT_TTL,
        BOP_OP_MAP_TAKE,       BOP_OP_SET_ADD,     BOP_OP_SET_REMOVE,      BOP_OP_SET_CLEAR,
        BOP_OP_MULTIMAP_PUT,   BOP_OP_COUNTER_ADD, BOP_OP_MULTIMAP_REMOVE, BOP_OP_MULTIMAP_CLEAR,
        BOP_OP_COUNTER_DELETE, BOP_OP_COUNTER_SET, BOP_OP_MAP_CREATE,
    };

    bop_random_seed(&random, 5);
    twin.options.path = test_path(NULL, "twin");
    world_init(&twin, NULL);
    world_newest_level(&twin);
    for (unsigned round = 0; round < 300; round++) {
        struct bop_operation never = op_put("m", bytes("never"), bytes("x"));
        bool fail = bop_random_chance(&random, 1, 2);
        uint64_t count = bop_random_below(&random, 12);

        clear(f);
        for (uint64_t n = 0; n < count; n++) {
            char name[] = "n0", key[] = "k0";
            struct bop_operation operation = {
                .op = ops[bop_random_below(&random, BOP_COUNT_OF(ops))],
                .ttl_ms = 100000,
                .delta = 1,
                .number = 7};

            name[1] = (char)('0' + bop_random_below(&random, 3));
            key[1] = (char)('0' + bop_random_below(&random, 8));
            operation.name = bytes(name);
            operation.key = bytes(key);
            operation.value = bytes(key);
            add_to(f, 0, &operation);
        }
        if (fail) {
            never.condition = BOP_IF_PRESENT;
            add_to(f, 0, &never);
        }
        CHECK_EQ(run(f), fail ? BOP_STATUS_CONDITION : BOP_STATUS_OK);
        if (fail) {
            clear(f); /* The twin gets one that does nothing, so that indexes agree. */
        }
        f->txn.compares = bop_buf_slice(&f->compares);
        f->txn.then_items = bop_buf_slice(&f->lists[0]);
        f->txn.else_items = bop_buf_slice(&f->lists[1]);
        CHECK_EQ(world_write(&twin, 0, 0, 0, &f->txn), BOP_STATUS_OK);
        for (unsigned table = 0; table < MACHINE_TABLES; table++) {
            if (table != MACHINE_META) {
                REQUIRE_EQ(world_records(&f->world, (enum machine_table)table),
                           world_records(&twin, (enum machine_table)table));
            }
        }
    }
    /* But for the digest of entries, which is of what they were given. */
    f->world.machine->position.digest = twin.machine->position.digest = 0;
    world_put(&f->world, "m", "k", "v");
    world_put(&twin, "m", "k", "v");
    CHECK_EQ(world_digest(&f->world), world_digest(&twin));
    world_close(&twin);
}

TEST(transaction, is_answered_again_as_it_was)
{
    uint64_t session = world_session(&f->world, 5000, "0123456789abcdef");

    then_add(f, "c", 1);
    then_put(f, "m", "k", "v");
    f->txn.then_items = bop_buf_slice(&f->lists[0]);
    for (unsigned n = 0; n < 3; n++) {
        CHECK_EQ(world_write(&f->world, session, 1, 0, &f->txn), BOP_STATUS_OK);
        CHECK_EQ(nth(f, 0, BOP_OP_COUNTER_ADD).number, 1);
        CHECK(!nth(f, 1, BOP_OP_MAP_PUT).existed);
    }
}

/* ---- Bad input ---- */

TEST(transaction, inside_a_transaction_is_refused)
{
    struct bop_operation inner = {.op = BOP_OP_TRANSACTION};

    add_to(f, 0, &inner);
    CHECK_EQ(run(f), BOP_STATUS_BAD_REQUEST);
}

TEST(transaction, too_large_is_refused)
{
    for (unsigned n = 0; n <= BOP_TRANSACTION_MAX; n++) {
        then_add(f, "c", 1);
    }
    CHECK_EQ(run(f), BOP_STATUS_TOO_BIG);
    CHECK_EQ(world_records(&f->world, MACHINE_COUNTERS), 0);
}

/* Results of more bytes than an answer may have take everything back. */
TEST(transaction, with_too_large_results_changes_nothing)
{
    static uint8_t large[3 * 1024 * 1024];
    struct bop_operation put = op_put("m", bytes("k"), bop_slice(large, sizeof(large)));
    struct bop_operation get = {.op = BOP_OP_MAP_GET, .name = bytes("m"), .key = bytes("k")};

    CHECK_EQ(world_write(&f->world, 0, 0, 0, &put), BOP_STATUS_OK);
    then_add(f, "c", 1);
    for (unsigned n = 0; n < 3; n++) {
        add_to(f, 0, &get);
    }
    CHECK_EQ(run(f), BOP_STATUS_TOO_BIG);
    CHECK_EQ(world_records(&f->world, MACHINE_COUNTERS), 0);
}

TEST(transaction, cut_anywhere_is_refused)
{
    struct bop_compare c = {.kind = BOP_COMPARE_COUNTER, .relation = BOP_EQUAL, .name = bytes("c")};
    struct bop_operation out;
    struct bop_buf whole;
    struct bop_writer writer;

    bop_buf_init(&whole, NULL, 0);
    writer = bop_writer(&whole);
    compare(f, c);
    then_add(f, "c", 1);
    then_put(f, "m", "k", "v");
    f->txn.compares = bop_buf_slice(&f->compares);
    f->txn.then_items = bop_buf_slice(&f->lists[0]);
    bop_operation_encode(&writer, &f->txn);
    REQUIRE_EQ(bop_operation_decode(bop_buf_slice(&whole), &out), 0);
    for (size_t size = 0; size < whole.size; size++) {
        CHECK_EQ(bop_operation_decode(bop_slice(whole.data, size), &out), BOP_EMALFORMED);
    }
    bop_buf_deinit(&whole);
}
