/*
 * Operations and results: random ones survive a round trip, limits hold, and
 * malformed ones are refused.
 */
#include "tap.h"

#include <bop/random.h>
#include <bop/wire.h>

struct fixture {
    struct bop_buf buf;
    struct bop_writer writer;
    struct bop_random random;
    uint8_t *pool; /* Random bytes to cut names, keys and values from. */
};

#define POOL_SIZE  (BOP_VALUE_MAX + 1)
#define SMALL_SIZE 300

static void setup(struct fixture *f)
{
    bop_buf_init(&f->buf, NULL, 0);
    f->writer = bop_writer(&f->buf);
    bop_random_seed(&f->random, 7);
    f->pool = bop_alloc(bop_allocator_default(), POOL_SIZE);
    REQUIRE(f->pool != NULL);
    for (size_t i = 0; i < POOL_SIZE; i++) {
        f->pool[i] = (uint8_t)('a' + i % 26);
    }
}

static void teardown(struct fixture *f)
{
    CHECK_EQ(f->writer.code, 0);
    bop_free(bop_allocator_default(), f->pool, POOL_SIZE);
    bop_buf_deinit(&f->buf);
}

FIXTURE(setup, teardown)

static const enum bop_op ops[] = {
    BOP_OP_MAP_PUT,
    BOP_OP_MAP_DELETE,
    BOP_OP_MAP_CREATE,
    BOP_OP_COUNTER_ADD,
    BOP_OP_COUNTER_CREATE,
    BOP_OP_MAP_GET,
    BOP_OP_MAP_SIZE,
    BOP_OP_MAP_SCAN,
    BOP_OP_COUNTER_GET,
    BOP_OP_SET_ADD,
    BOP_OP_SET_REMOVE,
    BOP_OP_SET_CREATE,
    BOP_OP_SET_CONTAINS,
    BOP_OP_MAP_CLEAR,
    BOP_OP_SET_CLEAR,
    BOP_OP_MULTIMAP_PUT,
    BOP_OP_MULTIMAP_REMOVE,
    BOP_OP_MULTIMAP_REMOVE_VALUE,
    BOP_OP_MULTIMAP_CREATE,
    BOP_OP_MULTIMAP_CLEAR,
    BOP_OP_MULTIMAP_GET,
    BOP_OP_MULTIMAP_SIZE,
    BOP_OP_MULTIMAP_KEY_SIZE,
    BOP_OP_MULTIMAP_CONTAINS_KEY,
    BOP_OP_MULTIMAP_CONTAINS_VALUE,
    BOP_OP_MULTIMAP_CONTAINS_ENTRY,
    BOP_OP_MULTIMAP_KEYS,
    BOP_OP_MULTIMAP_VALUES,
    BOP_OP_MULTIMAP_ENTRIES,
    BOP_OP_MAP_RANGE,
    BOP_OP_COUNTER_CAS,
    BOP_OP_COUNTER_SET,
    BOP_OP_COUNTER_DELETE,
    BOP_OP_SET_SIZE,
    BOP_OP_SET_SCAN,
};

static struct bop_slice some_bytes(struct fixture *f, size_t size_min)
{
    size_t size = size_min + bop_random_below(&f->random, SMALL_SIZE);

    return bop_slice(f->pool + bop_random_below(&f->random, 1000), size);
}

static void some_condition(struct fixture *f, struct bop_operation *operation)
{
    operation->condition = (enum bop_condition)bop_random_below(&f->random, 5);
    if (operation->condition == BOP_IF_VERSION) {
        operation->version = bop_random_next(&f->random);
    } else if (operation->condition == BOP_IF_VALUE) {
        operation->expected = some_bytes(f, 0);
    }
}

/* Only the fields that the operation has; the others stay zero, as decoding leaves them. */
static struct bop_operation some_operation(struct fixture *f)
{
    struct bop_operation operation = {
        .op = ops[bop_random_below(&f->random, BOP_COUNT_OF(ops))],
        .name = bop_slice(f->pool, 1 + bop_random_below(&f->random, BOP_NAME_MAX)),
    };

    switch (operation.op) {
    case BOP_OP_MAP_PUT:
        operation.value = some_bytes(f, 0);
        operation.key = some_bytes(f, 0);
        some_condition(f, &operation);
        break;
    case BOP_OP_MAP_DELETE:
        operation.key = some_bytes(f, 0);
        some_condition(f, &operation);
        break;
    case BOP_OP_MAP_GET:
    case BOP_OP_SET_ADD:
    case BOP_OP_SET_REMOVE:
    case BOP_OP_SET_CONTAINS:
    case BOP_OP_MULTIMAP_REMOVE:
    case BOP_OP_MULTIMAP_KEY_SIZE:
    case BOP_OP_MULTIMAP_CONTAINS_KEY:
        operation.key = some_bytes(f, 0);
        break;
    case BOP_OP_MULTIMAP_GET:
        operation.key = some_bytes(f, 0);
        operation.cursor = some_bytes(f, 0);
        operation.limit = (uint32_t)bop_random_next(&f->random);
        break;
    case BOP_OP_MULTIMAP_PUT:
    case BOP_OP_MULTIMAP_REMOVE_VALUE:
    case BOP_OP_MULTIMAP_CONTAINS_ENTRY:
        operation.key = some_bytes(f, 0);
        operation.value = some_bytes(f, 0);
        break;
    case BOP_OP_MULTIMAP_CONTAINS_VALUE:
        operation.value = some_bytes(f, 0);
        break;
    case BOP_OP_MAP_RANGE:
        operation.prefix = some_bytes(f, 0);
        operation.from = some_bytes(f, 0);
        operation.to = some_bytes(f, 0);
        operation.cursor = some_bytes(f, 0);
        operation.limit = (uint32_t)bop_random_next(&f->random);
        break;
    case BOP_OP_COUNTER_CAS:
        operation.expected_number = (int64_t)bop_random_next(&f->random);
        operation.number = (int64_t)bop_random_next(&f->random);
        break;
    case BOP_OP_COUNTER_SET:
        operation.number = (int64_t)bop_random_next(&f->random);
        break;
    case BOP_OP_COUNTER_ADD:
        operation.delta = (int64_t)bop_random_next(&f->random);
        break;
    case BOP_OP_MAP_SCAN:
    case BOP_OP_SET_SCAN:
    case BOP_OP_MULTIMAP_KEYS:
    case BOP_OP_MULTIMAP_VALUES:
    case BOP_OP_MULTIMAP_ENTRIES:
        operation.cursor = some_bytes(f, 0);
        operation.limit = (uint32_t)bop_random_next(&f->random);
        break;
    default:
        break;
    }
    return operation;
}

static int encode_decode(struct fixture *f, const struct bop_operation *in,
                         struct bop_operation *out)
{
    bop_buf_clear(&f->buf);
    bop_operation_encode(&f->writer, in);
    REQUIRE_EQ(f->writer.code, 0);
    return bop_operation_decode(bop_buf_slice(&f->buf), out);
}

TEST(operation, survives_a_round_trip)
{
    for (int i = 0; i < 5000; i++) {
        struct bop_operation in = some_operation(f);
        struct bop_operation out;

        REQUIRE_EQ(encode_decode(f, &in, &out), 0);
        CHECK_EQ(out.op, in.op);
        CHECK_SLICE_EQ(out.name, in.name);
        CHECK_SLICE_EQ(out.key, in.key);
        CHECK_SLICE_EQ(out.value, in.value);
        CHECK_EQ(out.condition, in.condition);
        CHECK_EQ(out.version, in.version);
        CHECK_SLICE_EQ(out.expected, in.expected);
        CHECK_EQ(out.delta, in.delta);
        CHECK_EQ(out.number, in.number);
        CHECK_EQ(out.expected_number, in.expected_number);
        CHECK_SLICE_EQ(out.prefix, in.prefix);
        CHECK_SLICE_EQ(out.from, in.from);
        CHECK_SLICE_EQ(out.to, in.to);
        CHECK_SLICE_EQ(out.cursor, in.cursor);
        CHECK_EQ(out.limit, in.limit);
    }
}

TEST(operation, is_refused_when_cut_or_with_a_byte_more)
{
    for (int i = 0; i < 200; i++) {
        struct bop_operation in = some_operation(f);
        struct bop_operation out;

        REQUIRE_EQ(encode_decode(f, &in, &out), 0);
        for (size_t size = 0; size < f->buf.size; size++) {
            REQUIRE_EQ(bop_operation_decode(bop_slice(f->buf.data, size), &out), BOP_EMALFORMED);
        }
        REQUIRE_EQ(bop_buf_append(&f->buf, "", 1), 0);
        CHECK_EQ(bop_operation_decode(bop_buf_slice(&f->buf), &out), BOP_EMALFORMED);
    }
}

TEST(operation, has_these_bytes)
{
    struct bop_operation put = {
        .op = BOP_OP_MAP_PUT,
        .name = bytes("m"),
        .key = bytes("k"),
        .value = bytes("vv"),
        .condition = BOP_IF_VERSION,
        .version = 258,
    };
    struct bop_operation add = {.op = BOP_OP_COUNTER_ADD, .name = bytes("c"), .delta = -2};
    struct bop_operation scan = {
        .op = BOP_OP_MAP_SCAN, .name = bytes("m"), .cursor = bytes("x"), .limit = 3};

    bop_operation_encode(&f->writer, &put);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf),
                   bop_slice("\1\1\0\0\0m\1\0\0\0k\2\0\0\0vv\3\2\1\0\0\0\0\0\0", 26));
    bop_buf_clear(&f->buf);
    bop_operation_encode(&f->writer, &add);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf),
                   bop_slice("\20\1\0\0\0c\376\377\377\377\377\377\377\377", 14));
    bop_buf_clear(&f->buf);
    bop_operation_encode(&f->writer, &scan);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bop_slice("\102\1\0\0\0m\1\0\0\0x\3\0\0\0", 15));
}

/* For each limit: at it, it passes; a byte above, it does not. */
TEST(operation, keeps_to_the_limits)
{
    struct bop_operation in = {.op = BOP_OP_MAP_PUT, .name = bytes("m"), .condition = BOP_IF_VALUE};
    struct bop_operation scan = {.op = BOP_OP_MAP_SCAN, .name = bytes("m")};
    struct bop_operation out;

    in.name = bop_slice(f->pool, BOP_NAME_MAX);
    in.key = bop_slice(f->pool, BOP_KEY_MAX);
    in.value = bop_slice(f->pool, BOP_VALUE_MAX);
    in.expected = bop_slice(f->pool, BOP_VALUE_MAX);
    CHECK_EQ(encode_decode(f, &in, &out), 0);
    in.name.size++;
    CHECK_EQ(encode_decode(f, &in, &out), BOP_ETOOBIG);
    in.name.size--;
    in.key.size++;
    CHECK_EQ(encode_decode(f, &in, &out), BOP_ETOOBIG);
    in.key.size--;
    in.value.size++;
    CHECK_EQ(encode_decode(f, &in, &out), BOP_ETOOBIG);
    in.value.size--;
    in.expected.size++;
    CHECK_EQ(encode_decode(f, &in, &out), BOP_ETOOBIG);

    scan.cursor = bop_slice(f->pool, BOP_CURSOR_MAX);
    CHECK_EQ(encode_decode(f, &scan, &out), 0);
    scan.cursor.size++;
    CHECK_EQ(encode_decode(f, &scan, &out), BOP_ETOOBIG);
}

TEST(operation, needs_a_name_in_utf8)
{
    struct bop_operation in = {.op = BOP_OP_MAP_SIZE, .name = bytes("")};
    struct bop_operation out;

    CHECK_EQ(encode_decode(f, &in, &out), BOP_EMALFORMED);
    in.name = bytes("\344");
    CHECK_EQ(encode_decode(f, &in, &out), BOP_EMALFORMED);
    in.name = bytes("ä");
    CHECK_EQ(encode_decode(f, &in, &out), 0);
}

TEST(operation, is_refused_when_unknown)
{
    struct bop_operation out;
    uint8_t data[] = {0, 1, 0, 0, 0, 'm'};

    for (unsigned op = 0; op < 256; op++) {
        bool bare = op == BOP_OP_MAP_CREATE || op == BOP_OP_COUNTER_CREATE ||
                    op == BOP_OP_MAP_SIZE || op == BOP_OP_COUNTER_GET || op == BOP_OP_SET_CREATE ||
                    op == BOP_OP_SET_SIZE || op == BOP_OP_COUNTER_DELETE ||
                    op == BOP_OP_MAP_CLEAR || op == BOP_OP_SET_CLEAR ||
                    op == BOP_OP_MULTIMAP_CREATE || op == BOP_OP_MULTIMAP_CLEAR ||
                    op == BOP_OP_MULTIMAP_SIZE || op == BOP_OP_LOCK_DELETE;

        data[0] = (uint8_t)op;
        CHECK_EQ(bop_operation_decode(bop_slice(data, sizeof(data)), &out),
                 bare ? 0 : BOP_EMALFORMED);
    }
}

TEST(operation, refuses_unknown_conditions)
{
    struct bop_operation in = {.op = BOP_OP_MAP_DELETE, .name = bytes("m"), .key = bytes("k")};
    struct bop_operation out;

    for (unsigned condition = 0; condition < 256; condition++) {
        bool bare = condition <= BOP_IF_PRESENT;

        REQUIRE_EQ(encode_decode(f, &in, &out), 0);
        f->buf.data[f->buf.size - 1] = (uint8_t)condition;
        CHECK_EQ(bop_operation_decode(bop_buf_slice(&f->buf), &out), bare ? 0 : BOP_EMALFORMED);
    }
}

TEST(operation, writes_come_before_reads)
{
    CHECK(bop_op_is_write(BOP_OP_MAP_PUT));
    CHECK(bop_op_is_write(BOP_OP_COUNTER_CREATE));
    CHECK(bop_op_is_write(BOP_OP_SET_CREATE));
    CHECK(bop_op_is_write(BOP_OP_MULTIMAP_CLEAR));
    CHECK(!bop_op_is_write(BOP_OP_MAP_GET));
    CHECK(!bop_op_is_write(BOP_OP_SET_CONTAINS));
    CHECK(!bop_op_is_write(BOP_OP_COUNTER_GET));
}

/* ---- Results ---- */

static int result_round_trip(struct fixture *f, enum bop_op op, const struct bop_result *in,
                             struct bop_result *out)
{
    bop_buf_clear(&f->buf);
    bop_result_encode(&f->writer, op, in);
    return bop_result_decode(op, in->status, bop_buf_slice(&f->buf), out);
}

TEST(result, survives_a_round_trip)
{
    struct bop_result out;

    REQUIRE_EQ(result_round_trip(f, BOP_OP_MAP_PUT,
                                 &(struct bop_result){.existed = true, .version = 9}, &out),
               0);
    CHECK_EQ(out.existed, true);
    CHECK_EQ(out.version, 9);
    REQUIRE_EQ(result_round_trip(f, BOP_OP_MAP_DELETE, &(struct bop_result){.existed = true}, &out),
               0);
    CHECK_EQ(out.existed, true);
    REQUIRE_EQ(result_round_trip(f, BOP_OP_SET_ADD, &(struct bop_result){.existed = true}, &out),
               0);
    CHECK_EQ(out.existed, true);
    REQUIRE_EQ(result_round_trip(f, BOP_OP_SET_SIZE, &(struct bop_result){.size = 7}, &out), 0);
    CHECK_EQ(out.size, 7);
    REQUIRE_EQ(result_round_trip(f, BOP_OP_COUNTER_ADD, &(struct bop_result){.number = -3}, &out),
               0);
    CHECK_EQ(out.number, -3);
    REQUIRE_EQ(result_round_trip(f, BOP_OP_MAP_SIZE, &(struct bop_result){.size = 12}, &out), 0);
    CHECK_EQ(out.size, 12);
    REQUIRE_EQ(result_round_trip(f, BOP_OP_MAP_GET,
                                 &(struct bop_result){.version = 5, .value = bytes("v")}, &out),
               0);
    CHECK_EQ(out.version, 5);
    CHECK_SLICE_EQ(out.value, bytes("v"));
    REQUIRE_EQ(result_round_trip(
                   f, BOP_OP_MAP_PUT,
                   &(struct bop_result){.status = BOP_STATUS_CONDITION, .version = 77}, &out),
               0);
    CHECK_EQ(out.status, BOP_STATUS_CONDITION);
    CHECK_EQ(out.version, 77);
}

TEST(result, scan_gives_its_entries_in_order)
{
    struct bop_scan_entry entries[] = {
        {.key = bytes("a"), .version = 1, .value = bytes("x")},
        {.key = bytes(""), .version = 2, .value = bytes("")},
    };
    struct bop_result in = {.revision = 10, .cursor = bytes("c"), .count = 2};
    struct bop_result out;
    struct bop_scan_entry entry;
    struct bop_buf page;
    struct bop_writer writer = bop_writer(&page);

    bop_buf_init(&page, NULL, 0);
    bop_scan_entry_encode(&writer, &entries[0]);
    bop_scan_entry_encode(&writer, &entries[1]);
    in.entries = bop_buf_slice(&page);
    REQUIRE_EQ(result_round_trip(f, BOP_OP_MAP_SCAN, &in, &out), 0);
    CHECK_EQ(out.revision, 10);
    CHECK_SLICE_EQ(out.cursor, bytes("c"));
    CHECK_EQ(out.count, 2);
    for (size_t i = 0; i < 2; i++) {
        REQUIRE(bop_scan_next(&out.entries, &entry));
        CHECK_SLICE_EQ(entry.key, entries[i].key);
        CHECK_EQ(entry.version, entries[i].version);
        CHECK_SLICE_EQ(entry.value, entries[i].value);
    }
    CHECK(!bop_scan_next(&out.entries, &entry));

    /* A count above or below what is there. */
    in.count = 3;
    CHECK_EQ(result_round_trip(f, BOP_OP_MAP_SCAN, &in, &out), BOP_EMALFORMED);
    in.count = 1;
    CHECK_EQ(result_round_trip(f, BOP_OP_MAP_SCAN, &in, &out), BOP_EMALFORMED);
    in.count = UINT32_MAX;
    CHECK_EQ(result_round_trip(f, BOP_OP_MAP_SCAN, &in, &out), BOP_EMALFORMED);
    bop_buf_deinit(&page);
}

TEST(result, is_refused_when_cut_or_with_a_byte_more)
{
    struct bop_result out;

    CHECK_EQ(bop_result_decode(BOP_OP_COUNTER_GET, 0, bytes("1234567"), &out), BOP_EMALFORMED);
    CHECK_EQ(bop_result_decode(BOP_OP_COUNTER_GET, 0, bytes("123456789"), &out), BOP_EMALFORMED);
    CHECK_EQ(bop_result_decode(BOP_OP_MAP_DELETE, 0, bytes("\2"), &out), BOP_EMALFORMED);
    CHECK_EQ(bop_result_decode(BOP_OP_MAP_PUT, BOP_STATUS_CONDITION, bytes(""), &out),
             BOP_EMALFORMED);
    CHECK_EQ(bop_result_decode((enum bop_op)63, 0, bytes(""), &out), BOP_EMALFORMED);
}

/* Bytes beside an error status are for later versions. */
TEST(result, of_a_failure_has_no_fields)
{
    struct bop_result out;

    CHECK_EQ(bop_result_decode(BOP_OP_MAP_GET, BOP_STATUS_NOT_FOUND, bytes(""), &out), 0);
    CHECK_EQ(out.status, BOP_STATUS_NOT_FOUND);
    CHECK_EQ(bop_result_decode(BOP_OP_MAP_GET, BOP_STATUS_BUSY, bytes("later"), &out), 0);
}

TEST(status, has_a_text_and_a_code)
{
    CHECK_STR_EQ(bop_status_text(BOP_STATUS_OK), "ok");
    CHECK_STR_EQ(bop_status_text(BOP_STATUS_REFUSED), "refused");
    CHECK_STR_EQ(bop_status_text(200), "unknown status");
    for (uint8_t status = 1; status <= BOP_STATUS_DENIED; status++) {
        CHECK(bop_status_text(status) != NULL);
        CHECK(bop_status_code(status) < 0);
    }
    CHECK_EQ(bop_status_code(BOP_STATUS_OK), 0);
    CHECK_EQ(bop_status_code(200), BOP_EPROTOCOL);
}
