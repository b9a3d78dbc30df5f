/*
 * Scans of ranges of a map's keys, compared with what a look at every key says; keys of all the
 * lengths at which the store keeps them differently.
 */
#include <bop/random.h>

#include "machine_help.h"

#define KEYS     120
#define KEY_SIZE 520

struct fixture {
    struct world world;
    struct bop_random random;
    size_t count;
    struct bop_slice keys[KEYS];
    uint8_t bytes[KEYS][KEY_SIZE];
};

/* A key of a few letters; or one of which two thirds of the space of long keys are alike. */
static struct bop_slice some_key(struct fixture *f, uint8_t *out_bytes)
{
    size_t size = (size_t)bop_random_below(&f->random, 4);

    if (bop_random_chance(&f->random, 1, 2)) {
        size = 474 + (size_t)bop_random_below(&f->random, 40);
    }
    memset(out_bytes, 'b', KEY_SIZE);
    for (size_t i = size < 4 ? 0 : size - 2; i < size; i++) {
        out_bytes[i] = (uint8_t)('a' + bop_random_below(&f->random, 3));
    }
    return bop_slice(out_bytes, size);
}

static void setup(struct fixture *f)
{
    bop_random_seed(&f->random, 11);
    world_init(&f->world, NULL);
    world_begin(&f->world);
    while (f->count < KEYS) {
        struct bop_slice key = some_key(f, f->bytes[f->count]);
        struct bop_operation put = op_put("m", key, bytes("v"));

        CHECK_EQ(world_write(&f->world, 0, 0, 0, &put), BOP_STATUS_OK);
        f->keys[f->count] = key;
        /* One that is there already is not counted twice. */
        f->count += !world_decoded(&f->world, BOP_OP_MAP_PUT).existed;
    }
    world_commit(&f->world);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
}

FIXTURE(setup, teardown)

static bool belongs(const struct bop_operation *range, struct bop_slice key)
{
    return key.size >= range->prefix.size &&
           bop_slice_equal(bop_slice(key.data, range->prefix.size), range->prefix) &&
           bop_slice_compare(key, range->from) >= 0 &&
           (range->to.size == 0 || bop_slice_compare(key, range->to) < 0);
}

/* Each key that belongs is given once, and no other, in pages of `limit`. */
static void check_range(struct fixture *f, struct bop_operation range)
{
    struct bop_buf cursor;
    bool seen[KEYS] = {false};
    unsigned turns = 0;

    bop_buf_init(&cursor, NULL, 0);
    do {
        struct bop_scan_entry entry;
        struct bop_result page;

        range.cursor = bop_buf_slice(&cursor);
        page = world_read(&f->world, &range);
        REQUIRE_EQ(page.status, BOP_STATUS_OK);
        REQUIRE(turns++ <= KEYS);
        while (bop_scan_next(&page.entries, &entry)) {
            size_t i = 0;

            while (i < f->count && !bop_slice_equal(f->keys[i], entry.key)) {
                i++;
            }
            REQUIRE(i < f->count);
            CHECK(!seen[i]);
            CHECK(belongs(&range, entry.key));
            seen[i] = true;
        }
        bop_buf_clear(&cursor);
        REQUIRE_EQ(bop_buf_append(&cursor, page.cursor.data, page.cursor.size), 0);
    } while (cursor.size > 0);
    for (size_t i = 0; i < f->count; i++) {
        CHECK_EQ(seen[i], belongs(&range, f->keys[i]));
    }
    bop_buf_deinit(&cursor);
}

TEST(range, gives_what_belongs_and_no_more)
{
    static uint8_t prefix[KEY_SIZE], from[KEY_SIZE], to[KEY_SIZE];

    for (unsigned i = 0; i < 600; i++) {
        struct bop_operation range = {.op = BOP_OP_MAP_RANGE,
                                      .name = bytes("m"),
                                      .limit = (uint32_t)bop_random_below(&f->random, 9)};

        if (i % 2 == 0) {
            range.prefix = some_key(f, prefix);
        }
        if (i % 3 != 0) {
            range.from = some_key(f, from);
        }
        if (i % 5 > 1) {
            range.to = some_key(f, to);
        }
        check_range(f, range);
    }
}

/* Short keys come in their order. */
TEST(range, is_in_order)
{
    struct bop_operation range = {
        .op = BOP_OP_MAP_RANGE, .name = bytes("n"), .from = bytes("b"), .to = bytes("d")};
    struct bop_scan_entry entry;
    struct bop_result page;

    for (const char *key = "dcba"; *key; key++) {
        char name[2] = {*key, 0};

        CHECK_EQ(world_put(&f->world, "n", name, "v"), BOP_STATUS_OK);
    }
    CHECK_EQ(world_put(&f->world, "n", "bb", "v"), BOP_STATUS_OK);
    page = world_read(&f->world, &range);
    CHECK_EQ(page.count, 3);
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_SLICE_EQ(entry.key, bytes("b"));
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_SLICE_EQ(entry.key, bytes("bb"));
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_SLICE_EQ(entry.key, bytes("c"));
    range.to = bytes("a");
    CHECK_EQ(world_read(&f->world, &range).count, 0);
    range.name = bytes("none");
    CHECK_EQ(world_read(&f->world, &range).count, 0);
    range.cursor = bytes("?");
    CHECK_EQ(world_read(&f->world, &range).status, BOP_STATUS_BAD_REQUEST);
}

/* ---- Counters ---- */

static uint8_t write_counter(struct fixture *f, enum bop_op op, int64_t expected, int64_t number)
{
    struct bop_operation operation = {
        .op = op, .name = bytes("c"), .expected_number = expected, .number = number};

    return world_write(&f->world, 0, 0, 0, &operation);
}

static struct bop_result read_counter(struct fixture *f)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_GET, .name = bytes("c")};

    return world_read(&f->world, &operation);
}

TEST(counter, is_compared_and_set)
{
    CHECK_EQ(write_counter(f, BOP_OP_COUNTER_CAS, 1, 5), BOP_STATUS_CONDITION);
    CHECK_EQ(world_decoded(&f->world, BOP_OP_COUNTER_CAS).number, 0);
    CHECK_EQ(read_counter(f).status, BOP_STATUS_NOT_FOUND); /* It is not made by that. */
    CHECK_EQ(write_counter(f, BOP_OP_COUNTER_CAS, 0, INT64_MIN), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(&f->world, BOP_OP_COUNTER_CAS).number, INT64_MIN);
    CHECK_EQ(write_counter(f, BOP_OP_COUNTER_CAS, 0, 5), BOP_STATUS_CONDITION);
    CHECK_EQ(world_decoded(&f->world, BOP_OP_COUNTER_CAS).number, INT64_MIN);
    CHECK_EQ(read_counter(f).number, INT64_MIN);
}

TEST(counter, is_set_and_deleted)
{
    CHECK_EQ(write_counter(f, BOP_OP_COUNTER_SET, 0, 7), BOP_STATUS_OK);
    CHECK(!world_decoded(&f->world, BOP_OP_COUNTER_SET).existed);
    CHECK_EQ(write_counter(f, BOP_OP_COUNTER_SET, 0, -7), BOP_STATUS_OK);
    CHECK(world_decoded(&f->world, BOP_OP_COUNTER_SET).existed);
    CHECK_EQ(read_counter(f).number, -7);
    CHECK_EQ(write_counter(f, BOP_OP_COUNTER_DELETE, 0, 0), BOP_STATUS_OK);
    CHECK(world_decoded(&f->world, BOP_OP_COUNTER_DELETE).existed);
    CHECK_EQ(write_counter(f, BOP_OP_COUNTER_DELETE, 0, 0), BOP_STATUS_OK);
    CHECK(!world_decoded(&f->world, BOP_OP_COUNTER_DELETE).existed);
    CHECK_EQ(read_counter(f).status, BOP_STATUS_NOT_FOUND);
    CHECK_EQ(world_records(&f->world, MACHINE_COUNTERS), 0);
}
