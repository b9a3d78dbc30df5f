#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <bop/kv.h>

#include "machine_help.h"

struct fixture {
    struct test_heap heap;
    struct world world;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    world_init(&f->world, &f->heap.allocator);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* ---- Maps ---- */

TEST(map, put_gives_the_index_as_version)
{
    struct world *w = &f->world;
    struct bop_result result;

    CHECK_EQ(world_put(w, "m", "k", "one"), BOP_STATUS_OK);
    result = world_decoded(w, BOP_OP_MAP_PUT);
    CHECK_EQ(result.existed, false);
    CHECK_EQ(result.version, 1);
    CHECK_EQ(world_put(w, "m", "k", "two"), BOP_STATUS_OK);
    result = world_decoded(w, BOP_OP_MAP_PUT);
    CHECK_EQ(result.existed, true);
    CHECK_EQ(result.version, 2);
    result = world_get(w, "m", bytes("k"));
    CHECK_EQ(result.status, BOP_STATUS_OK);
    CHECK_EQ(result.version, 2);
    CHECK_SLICE_EQ(result.value, bytes("two"));
    CHECK_EQ(world_size(w, "m"), 1);
}

TEST(map, get_of_what_is_not_there_is_not_found)
{
    struct world *w = &f->world;

    CHECK_EQ(world_get(w, "m", bytes("k")).status, BOP_STATUS_NOT_FOUND);
    CHECK_EQ(world_put(w, "m", "k", "one"), BOP_STATUS_OK);
    CHECK_EQ(world_get(w, "m", bytes("other")).status, BOP_STATUS_NOT_FOUND);
    CHECK_EQ(world_get(w, "n", bytes("k")).status, BOP_STATUS_NOT_FOUND);
    CHECK_EQ(world_size(w, "n"), 0);
}

TEST(map, keeps_empty_keys_and_values)
{
    struct world *w = &f->world;
    struct bop_result result;

    CHECK_EQ(world_put(w, "m", "", ""), BOP_STATUS_OK);
    result = world_get(w, "m", bytes(""));
    CHECK_EQ(result.status, BOP_STATUS_OK);
    CHECK_EQ(result.value.size, 0);
    CHECK_EQ(world_size(w, "m"), 1);
}

TEST(map, delete_says_whether_there_was_one)
{
    struct world *w = &f->world;

    CHECK_EQ(world_delete(w, "m", "k"), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_MAP_DELETE).existed, false);
    CHECK_EQ(world_put(w, "m", "k", "one"), BOP_STATUS_OK);
    CHECK_EQ(world_delete(w, "m", "k"), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_MAP_DELETE).existed, true);
    CHECK_EQ(world_get(w, "m", bytes("k")).status, BOP_STATUS_NOT_FOUND);
    CHECK_EQ(world_size(w, "m"), 0);
}

TEST(map, create_says_whether_it_did)
{
    struct world *w = &f->world;
    struct bop_operation create = {.op = BOP_OP_MAP_CREATE, .name = bytes("m")};

    CHECK_EQ(world_write(w, 0, 0, 0, &create), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_MAP_CREATE).existed, true);
    CHECK_EQ(world_write(w, 0, 0, 0, &create), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_MAP_CREATE).existed, false);
}

/* Try an operation on key k under a condition. Returns the status; *out_version as CONDITION says.
 */
static uint8_t conditional(struct world *w, enum bop_op op, enum bop_condition condition,
                           uint64_t version, const char *expected, uint64_t *out_version)
{
    struct bop_operation operation = {.op = op,
                                      .name = bytes("m"),
                                      .key = bytes("k"),
                                      .value = bytes("new"),
                                      .condition = condition,
                                      .version = version,
                                      .expected = bytes(expected)};
    uint8_t status;

    if (op == BOP_OP_MAP_DELETE) {
        operation.value = bop_slice(NULL, 0);
    }
    status = world_write(w, 0, 0, 0, &operation);
    *out_version = status == BOP_STATUS_CONDITION ? world_decoded(w, op).version : UINT64_MAX;
    return status;
}

/* Every condition against nothing, the same and another value; each try begins with that. */
TEST(map, changes_only_if_the_condition_is_met)
{
    static const struct {
        const char *expected;
        uint64_t version; /* 1: the right one, 2: another one. */
        enum bop_condition condition;
        bool met_by_nothing;
        bool met_by_old;
    } cases[] = {
        {"", 0, BOP_IF_ALWAYS, true, true},       {"", 0, BOP_IF_ABSENT, true, false},
        {"", 0, BOP_IF_PRESENT, false, true},     {"", 1, BOP_IF_VERSION, false, true},
        {"", 2, BOP_IF_VERSION, false, false},    {"", 0, BOP_IF_VERSION, false, false},
        {"old", 0, BOP_IF_VALUE, false, true},    {"olt", 0, BOP_IF_VALUE, false, false},
        {"older", 0, BOP_IF_VALUE, false, false}, {"", 0, BOP_IF_VALUE, false, false},
    };
    struct world *w = &f->world;

    for (size_t i = 0; i < BOP_COUNT_OF(cases) * 4; i++) {
        bool present = i % 2, put = i / 2 % 2;
        size_t c = i / 4;
        bool met = present ? cases[c].met_by_old : cases[c].met_by_nothing;
        uint64_t old = 0, version, found;
        struct bop_result after;

        CHECK_EQ(world_delete(w, "m", "k"), BOP_STATUS_OK);
        if (present) {
            CHECK_EQ(world_put(w, "m", "k", "old"), BOP_STATUS_OK);
            old = bop__machine_position(w->machine).index;
        }
        version = cases[c].version == 0 ? 0 : old + cases[c].version - 1;
        CHECK_EQ(conditional(w, put ? BOP_OP_MAP_PUT : BOP_OP_MAP_DELETE, cases[c].condition,
                             version, cases[c].expected, &found),
                 met ? BOP_STATUS_OK : BOP_STATUS_CONDITION);
        CHECK_EQ(found, met ? UINT64_MAX : old);
        after = world_get(w, "m", bytes("k"));
        CHECK_EQ(after.status, (met ? put : present) ? BOP_STATUS_OK : BOP_STATUS_NOT_FOUND);
        if (after.status == BOP_STATUS_OK) {
            CHECK_SLICE_EQ(after.value, bytes(met ? "new" : "old"));
        }
        CHECK_EQ(world_size(w, "m"), after.status == BOP_STATUS_OK);
    }
}

TEST(map, is_not_made_by_a_condition_that_fails)
{
    struct world *w = &f->world;
    struct bop_operation create = {.op = BOP_OP_MAP_CREATE, .name = bytes("m")};
    uint64_t version;

    CHECK_EQ(conditional(w, BOP_OP_MAP_PUT, BOP_IF_PRESENT, 0, "", &version), BOP_STATUS_CONDITION);
    CHECK_EQ(version, 0);
    CHECK_EQ(world_write(w, 0, 0, 0, &create), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_MAP_CREATE).existed, true); /* Only now. */
}

/* 506 bytes are the most that fit beside a map's id into 510; 475 are kept of longer keys. */
TEST(map, tells_long_keys_apart)
{
    static const size_t sizes[] = {474, 475, 476, 505, 506, 507, 508, 511, 512, 4096, BOP_KEY_MAX};
    struct world *w = &f->world;
    uint8_t *key = malloc(BOP_KEY_MAX);

    REQUIRE(key);
    memset(key, 'a', BOP_KEY_MAX);
    for (unsigned last = 0; last < 3; last++) {
        for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
            char text[32];
            struct bop_operation put;

            key[sizes[i] - 1] = (uint8_t)('a' + last);
            snprintf(text, sizeof(text), "%zu %u", sizes[i], last);
            put = op_put("m", bop_slice(key, sizes[i]), bytes(text));
            CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_OK);
            CHECK_EQ(world_decoded(w, BOP_OP_MAP_PUT).existed, false);
            key[sizes[i] - 1] = 'a';
        }
    }
    CHECK_EQ(world_size(w, "m"), 3 * BOP_COUNT_OF(sizes));
    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        struct bop_operation remove;
        char text[32];

        snprintf(text, sizeof(text), "%zu 1", sizes[i]);
        key[sizes[i] - 1] = 'b';
        CHECK_SLICE_EQ(world_get(w, "m", bop_slice(key, sizes[i])).value, bytes(text));
        remove = op_delete("m", bop_slice(key, sizes[i]));
        CHECK_EQ(world_write(w, 0, 0, 0, &remove), BOP_STATUS_OK);
        CHECK_EQ(world_get(w, "m", bop_slice(key, sizes[i])).status, BOP_STATUS_NOT_FOUND);
        key[sizes[i] - 1] = 'a';
    }
    CHECK_EQ(world_size(w, "m"), 2 * BOP_COUNT_OF(sizes));
    free(key);
}

/* 1000 maps are more than are kept in memory, and all are written to in one batch. */
TEST(map, sizes_are_exact_for_more_maps_than_are_cached)
{
    struct world *w = &f->world;
    char name[16];

    for (unsigned round = 0; round < 3; round++) {
        world_begin(w);
        for (unsigned i = 0; i < 1000; i++) {
            char key[16];

            snprintf(name, sizeof(name), "map%u", i);
            snprintf(key, sizeof(key), "%u", round);
            CHECK_EQ(world_put(w, name, key, "v"), BOP_STATUS_OK);
            CHECK_EQ(world_put(w, name, "same", "v"), BOP_STATUS_OK);
        }
        world_commit(w);
    }
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "map%u", i);
        CHECK_EQ(world_size(w, name), 4);
    }
}

TEST(map, takes_the_largest_value)
{
    struct world *w = &f->world;
    uint8_t *value = malloc(BOP_VALUE_MAX);
    struct bop_operation put;

    REQUIRE(value);
    memset(value, 'v', BOP_VALUE_MAX);
    put = op_put("m", bytes("k"), bop_slice(value, BOP_VALUE_MAX));
    CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_OK);
    CHECK_EQ(world_get(w, "m", bytes("k")).value.size, BOP_VALUE_MAX);
    free(value);
}

/* ---- Scans ---- */

/* Read one page, appending its keys to `keys` with a space behind each. */
static void scan_page(struct world *w, const char *map, uint32_t limit, struct bop_buf *cursor,
                      struct bop_buf *keys, uint32_t *out_count)
{
    struct bop_operation scan = {
        .op = BOP_OP_MAP_SCAN, .name = bytes(map), .cursor = bop_buf_slice(cursor), .limit = limit};
    struct bop_result result = world_read(w, &scan);
    struct bop_scan_entry entry;

    REQUIRE_EQ(result.status, BOP_STATUS_OK);
    CHECK_EQ(result.revision, bop__machine_position(w->machine).index);
    *out_count = result.count;
    while (bop_scan_next(&result.entries, &entry)) {
        REQUIRE_EQ(bop_buf_append(keys, entry.key.data, entry.key.size), 0);
        REQUIRE_EQ(bop_buf_append(keys, " ", 1), 0);
    }
    bop_buf_clear(cursor);
    REQUIRE_EQ(bop_buf_append(cursor, result.cursor.data, result.cursor.size), 0);
}

TEST(scan, gives_every_entry_once_in_key_order)
{
    struct world *w = &f->world;
    struct bop_buf cursor, keys;
    uint32_t count, pages = 0;

    bop_buf_init(&cursor, NULL, 0);
    bop_buf_init(&keys, NULL, 0);
    CHECK_EQ(world_put(w, "before", "x", "1"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "m", "d", "1"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "after", "x", "1"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "m", "b", "1"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "m", "a", "1"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "m", "ab", "1"), BOP_STATUS_OK);
    do {
        scan_page(w, "m", 3, &cursor, &keys, &count);
        pages++;
    } while (cursor.size > 0);
    CHECK_EQ(pages, 2);
    CHECK_SLICE_EQ(bop_buf_slice(&keys), bytes("a ab b d "));

    bop_buf_clear(&keys);
    scan_page(w, "m", 4, &cursor, &keys, &count); /* All fit: there is nothing to go on with. */
    CHECK_EQ(count, 4);
    CHECK_EQ(cursor.size, 0);
    scan_page(w, "nothing", 4, &cursor, &keys, &count);
    CHECK_EQ(count, 0);
    CHECK_EQ(cursor.size, 0);
    bop_buf_deinit(&cursor);
    bop_buf_deinit(&keys);
}

TEST(scan, goes_on_where_the_cursors_entry_was)
{
    struct world *w = &f->world;
    struct bop_buf cursor, keys;
    uint32_t count;

    bop_buf_init(&cursor, NULL, 0);
    bop_buf_init(&keys, NULL, 0);
    CHECK_EQ(world_put(w, "m", "a", "1"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "m", "b", "1"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "m", "d", "1"), BOP_STATUS_OK);
    scan_page(w, "m", 2, &cursor, &keys, &count);
    CHECK_EQ(world_delete(w, "m", "b"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "m", "aa", "1"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "m", "c", "1"), BOP_STATUS_OK);
    scan_page(w, "m", 0, &cursor, &keys, &count); /* 0: as many as there may be. */
    CHECK_SLICE_EQ(bop_buf_slice(&keys), bytes("a b c d "));
    CHECK_EQ(cursor.size, 0);
    bop_buf_deinit(&cursor);
    bop_buf_deinit(&keys);
}

/* Entries of 300,000 bytes: three fit below a MiB. One of 2 MiB makes a page of its own. */
TEST(scan, page_ends_at_its_bytes_but_is_never_empty)
{
    struct world *w = &f->world;
    struct bop_buf cursor, keys;
    uint8_t *value = malloc(2 << 20);
    static const char names[][2] = {"a", "b", "c", "d", "e"};
    static const uint32_t expected[] = {3, 1, 1};
    uint32_t count;

    REQUIRE(value);
    memset(value, 'v', 2 << 20);
    bop_buf_init(&cursor, NULL, 0);
    bop_buf_init(&keys, NULL, 0);
    for (size_t i = 0; i < 5; i++) {
        struct bop_operation put = op_put("m", bytes(names[i]),
                                          bop_slice(value, i == 4 ? 2 << 20 : 300000));

        CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_OK);
    }
    for (size_t i = 0; i < 3; i++) {
        scan_page(w, "m", 0, &cursor, &keys, &count);
        CHECK_EQ(count, expected[i]);
        CHECK_EQ(cursor.size > 0, i < 2);
    }
    CHECK_SLICE_EQ(bop_buf_slice(&keys), bytes("a b c d e "));
    bop_buf_deinit(&cursor);
    bop_buf_deinit(&keys);
    free(value);
}

/* Long keys come in the order of their digests, each once, whatever the page. */
TEST(scan, walks_long_keys)
{
    struct world *w = &f->world;
    struct bop_buf cursor, keys;
    uint32_t count, all = 0;
    uint8_t key[600];
    uint64_t seen = 0;

    bop_buf_init(&cursor, NULL, 0);
    bop_buf_init(&keys, NULL, 0);
    memset(key, 'k', sizeof(key));
    for (unsigned i = 0; i < 50; i++) {
        struct bop_operation put;

        key[590] = (uint8_t)('0' + i);
        put = op_put("m", bop_slice(key, sizeof(key)), bytes("v"));
        CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_OK);
    }
    do {
        scan_page(w, "m", 7, &cursor, &keys, &count);
        all += count;
    } while (cursor.size > 0 && all < 1000);
    CHECK_EQ(all, 50);
    for (size_t at = 0; at < keys.size; at += sizeof(key) + 1) {
        seen |= UINT64_C(1) << (keys.data[at + 590] - '0');
    }
    CHECK_EQ(seen, (UINT64_C(1) << 50) - 1);
    bop_buf_deinit(&cursor);
    bop_buf_deinit(&keys);
}

TEST(scan, refuses_a_cursor_that_is_none)
{
    struct world *w = &f->world;
    uint8_t cursor[509] = {1};
    struct bop_operation scan = {.op = BOP_OP_MAP_SCAN, .name = bytes("m"), .limit = 10};

    CHECK_EQ(world_put(w, "m", "a", "1"), BOP_STATUS_OK);
    scan.cursor = bytes("\2a");
    CHECK_EQ(world_read(w, &scan).status, BOP_STATUS_BAD_REQUEST);
    scan.cursor = bop_slice(cursor, 509); /* With the map's id one more than a store key has. */
    CHECK_EQ(world_read(w, &scan).status, BOP_STATUS_BAD_REQUEST);
    scan.cursor = bop_slice(cursor, 508);
    CHECK_EQ(world_read(w, &scan).status, BOP_STATUS_OK);
    scan.cursor = bop_slice(cursor, 1); /* Behind the empty key. */
    CHECK_EQ(world_read(w, &scan).status, BOP_STATUS_OK);
}

/* ---- Counters ---- */

TEST(counter, begins_at_zero)
{
    struct world *w = &f->world;
    struct bop_operation get = {.op = BOP_OP_COUNTER_GET, .name = bytes("c")};
    struct bop_operation add = op_add("c", -5);

    CHECK_EQ(world_read(w, &get).status, BOP_STATUS_NOT_FOUND);
    CHECK_EQ(world_write(w, 0, 0, 0, &add), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_COUNTER_ADD).number, -5);
    CHECK_EQ(world_write(w, 0, 0, 0, &add), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_COUNTER_ADD).number, -10);
    CHECK_EQ(world_read(w, &get).number, -10);
}

TEST(counter, create_leaves_the_value)
{
    struct world *w = &f->world;
    struct bop_operation create = {.op = BOP_OP_COUNTER_CREATE, .name = bytes("c")};
    struct bop_operation get = {.op = BOP_OP_COUNTER_GET, .name = bytes("c")};
    struct bop_operation add = op_add("c", 5);

    CHECK_EQ(world_write(w, 0, 0, 0, &create), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_COUNTER_CREATE).existed, true);
    CHECK_EQ(world_read(w, &get).status, BOP_STATUS_OK);
    CHECK_EQ(world_write(w, 0, 0, 0, &add), BOP_STATUS_OK);
    CHECK_EQ(world_write(w, 0, 0, 0, &create), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_COUNTER_CREATE).existed, false);
    CHECK_EQ(world_read(w, &get).number, 5);
}

TEST(counter, does_not_wrap)
{
    struct world *w = &f->world;
    struct bop_operation get = {.op = BOP_OP_COUNTER_GET, .name = bytes("c")};
    struct bop_operation up = op_add("c", INT64_MAX), one = op_add("c", 1);
    struct bop_operation down = op_add("d", INT64_MIN), less = op_add("d", -1);

    CHECK_EQ(world_write(w, 0, 0, 0, &up), BOP_STATUS_OK);
    CHECK_EQ(world_write(w, 0, 0, 0, &one), BOP_STATUS_OVERFLOW);
    CHECK_EQ(world_result(w).size, 0);
    CHECK_EQ(world_read(w, &get).number, INT64_MAX);
    CHECK_EQ(world_write(w, 0, 0, 0, &down), BOP_STATUS_OK);
    CHECK_EQ(world_write(w, 0, 0, 0, &less), BOP_STATUS_OVERFLOW);
}

/* ---- Entries ---- */

TEST(machine, stands_at_nothing_when_new)
{
    struct machine_position position = bop__machine_position(f->world.machine);

    CHECK_EQ(position.index, 0);
    CHECK_EQ(position.term, 0);
    CHECK_EQ(position.digest, 0);
    CHECK_EQ(position.conf_index, 0);
    CHECK_EQ(bop__machine_configuration(f->world.machine).size, 0);
}

TEST(machine, says_whom_to_answer)
{
    struct world *w = &f->world;

    CHECK_EQ(world_put(w, "m", "k", "v"), BOP_STATUS_OK);
    CHECK_EQ(w->last.kind, COMMAND_WRITE);
    CHECK_EQ(w->last.origin_node, 7);
    CHECK_EQ(w->last.origin_request, 70);
    CHECK_EQ(world_entry(w, BOP_RAFT_BARRIER, bytes("")), 0);
    CHECK_EQ(w->last.kind, 0);
}

TEST(machine, remembers_the_configuration)
{
    struct world *w = &f->world;

    CHECK_EQ(world_entry(w, BOP_RAFT_CHANGE, bytes("first")), 0);
    CHECK_EQ(world_entry(w, BOP_RAFT_CHANGE, bytes("2nd")), 0);
    CHECK_EQ(world_entry(w, BOP_RAFT_BARRIER, bytes("")), 0);
    world_reopen(w);
    CHECK_EQ(bop__machine_position(w->machine).index, 3);
    CHECK_EQ(bop__machine_position(w->machine).conf_index, 2);
    CHECK_SLICE_EQ(bop__machine_configuration(w->machine), bytes("2nd"));
}

TEST(machine, keeps_the_highest_time)
{
    struct world *w = &f->world;

    w->time_ms = 500;
    CHECK_EQ(world_put(w, "m", "k", "v"), BOP_STATUS_OK);
    w->time_ms = 400; /* A new leader's clock may be behind. */
    CHECK_EQ(world_put(w, "m", "k", "v"), BOP_STATUS_OK);
    CHECK_EQ(bop__machine_position(w->machine).time_ms, 500);
}

/* Whatever an entry holds, every replica goes on alike. */
TEST(machine, applies_nonsense_as_nothing)
{
    struct world *w = &f->world;
    uint8_t command[57] = {1, 1};
    struct bop_operation get = {.op = BOP_OP_MAP_GET, .name = bytes("m"), .key = bytes("k")};
    struct bop_operation put = op_put("\xff", bytes("k"), bytes("v"));

    CHECK_EQ(world_entry(w, BOP_RAFT_COMMAND, bytes("")), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(world_entry(w, BOP_RAFT_COMMAND, bytes("\1nonsense")), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(world_entry(w, BOP_RAFT_COMMAND, bytes("\2")), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(w->last.kind, 0);
    /* A WRITE, whose operation is nothing, then one of an unknown kind, then a read. */
    CHECK_EQ(world_entry(w, BOP_RAFT_COMMAND, bop_slice(command, 56)), BOP_STATUS_BAD_REQUEST);
    command[56] = 0xee;
    CHECK_EQ(world_entry(w, BOP_RAFT_COMMAND, bop_slice(command, 57)), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(world_write(w, 0, 0, 0, &get), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(bop__machine_position(w->machine).index, 7);
}

TEST(machine, refuses_names_keys_and_values_that_are_too_big)
{
    struct world *w = &f->world;
    uint8_t *big = calloc(1, BOP_VALUE_MAX + 1);
    struct bop_operation put = op_put("m", bop_slice(big, BOP_KEY_MAX + 1), bytes("v"));

    REQUIRE(big);
    CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_TOO_BIG);
    put = op_put("m", bytes("k"), bop_slice(big, BOP_VALUE_MAX + 1));
    CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_TOO_BIG);
    put.value.size = 1;
    put.name = bop_slice(big, BOP_NAME_MAX + 1);
    CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_TOO_BIG);
    free(big);
}

TEST(machine, digest_covers_each_field_of_each_entry)
{
    struct world *w = &f->world;
    uint64_t digests[5];
    struct bop_raft_entry entries[5] = {{.term = 1, .type = BOP_RAFT_BARRIER, .data = bytes("a")},
                                        {.term = 2, .type = BOP_RAFT_BARRIER, .data = bytes("a")},
                                        {.term = 1, .type = BOP_RAFT_CHANGE, .data = bytes("a")},
                                        {.term = 1, .type = BOP_RAFT_BARRIER, .data = bytes("b")},
                                        {.term = 1, .type = BOP_RAFT_BARRIER, .data = bytes("a")}};
    struct machine_result result;

    for (size_t i = 0; i < 5; i++) {
        REQUIRE_EQ(bop__machine_begin(w->machine), 0);
        REQUIRE_EQ(bop__machine_apply(w->machine, 1, &entries[i], &w->results, &result), 0);
        digests[i] = bop__machine_position(w->machine).digest;
        REQUIRE_EQ(bop__machine_abort(w->machine), 0);
        CHECK_EQ(bop__machine_position(w->machine).digest, 0);
    }
    CHECK(digests[0] != digests[1]);
    CHECK(digests[0] != digests[2]);
    CHECK(digests[0] != digests[3]);
    CHECK_EQ(digests[0], digests[4]);
    CHECK_EQ(digests[0], UINT64_C(0x93937a22b1f64fcd)); /* Replicas of any build agree. */
}

/* ---- Batches and views ---- */

TEST(batch, is_seen_by_no_view_before_its_commit)
{
    struct world *w = &f->world;
    struct bop_operation get = {.op = BOP_OP_MAP_GET, .name = bytes("m"), .key = bytes("k")};
    struct machine_view *before, *during, *after;

    CHECK_EQ(world_put(w, "m", "k", "old"), BOP_STATUS_OK);
    REQUIRE_EQ(bop__machine_view_open(w->machine, &before), 0);
    world_begin(w);
    CHECK_EQ(world_put(w, "m", "k", "new"), BOP_STATUS_OK);
    REQUIRE_EQ(bop__machine_view_open(w->machine, &during), 0);
    world_commit(w);
    REQUIRE_EQ(bop__machine_view_open(w->machine, &after), 0);

    CHECK_EQ(bop__machine_view_position(before).index, 1);
    CHECK_EQ(bop__machine_view_position(during).index, 1);
    CHECK_EQ(bop__machine_view_position(after).index, 2);
    bop_buf_clear(&w->results);
    CHECK_EQ(bop__machine_read(before, &get, &w->results), BOP_STATUS_OK);
    CHECK_EQ(bop__machine_read(during, &get, &w->results), BOP_STATUS_OK);
    CHECK_EQ(bop__machine_read(after, &get, &w->results), BOP_STATUS_OK);
    CHECK_MEM_EQ(w->results.data + 12, "old", 3); /* 8 of version, 4 of length, 3 of value. */
    CHECK_MEM_EQ(w->results.data + 15 + 12, "old", 3);
    CHECK_MEM_EQ(w->results.data + 30 + 12, "new", 3);
    bop__machine_view_close(before);
    bop__machine_view_close(during);
    bop__machine_view_close(after);
}

struct reading {
    struct machine_view *view;
    uint64_t expected;
    unsigned differences;
    unsigned rounds;
    _Atomic bool stop;
};

static void *read_again_and_again(void *argument)
{
    struct reading *reading = argument;

    do {
        uint64_t digest = 0;

        if (bop__machine_content_digest(reading->view, &digest) != 0 ||
            digest != reading->expected) {
            reading->differences++;
        }
        reading->rounds++;
    } while (!atomic_load(&reading->stop));
    return NULL;
}

/* On another thread, as a snapshot is taken, while everything it sees is being changed. */
TEST(view, stays_as_it_is_on_another_thread)
{
    struct world *w = &f->world;
    struct reading reading = {0};
    pthread_t thread;
    char key[16];

    for (unsigned i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "%u", i);
        CHECK_EQ(world_put(w, "m", key, "old"), BOP_STATUS_OK);
    }
    reading.expected = world_digest(w);
    REQUIRE_EQ(bop__machine_view_open(w->machine, &reading.view), 0);
    REQUIRE_EQ(pthread_create(&thread, NULL, read_again_and_again, &reading), 0);
    for (unsigned i = 0; i < 2000; i++) {
        snprintf(key, sizeof(key), "%u", i % 300);
        CHECK_EQ(i % 3 ? world_put(w, "m", key, "new") : world_delete(w, "m", key), BOP_STATUS_OK);
    }
    atomic_store(&reading.stop, true);
    REQUIRE_EQ(pthread_join(thread, NULL), 0);
    bop__machine_view_close(reading.view);
    CHECK_EQ(reading.differences, 0);
    CHECK(reading.rounds > 0);
    CHECK(world_digest(w) != reading.expected);
}

TEST(batch, leaves_nothing_when_aborted)
{
    struct world *w = &f->world;
    struct bop_operation add = op_add("c", 1);
    uint64_t content, session;

    session = world_session(w, 5000, "0123456789abcde");
    CHECK_EQ(world_put(w, "m", "k", "old"), BOP_STATUS_OK);
    CHECK_EQ(world_write(w, session, 1, 0, &add), BOP_STATUS_OK);
    content = world_digest(w);

    world_begin(w);
    CHECK_EQ(world_put(w, "m", "k2", "new"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "n", "k2", "new"), BOP_STATUS_OK);
    CHECK_EQ(world_delete(w, "m", "k"), BOP_STATUS_OK);
    CHECK_EQ(world_write(w, session, 2, 1, &add), BOP_STATUS_OK);
    world_session(w, 5000, "0123456789abcde");
    CHECK_EQ(world_end_session(w, session, "0123456789abcde"), BOP_STATUS_OK);
    CHECK_EQ(world_entry(w, BOP_RAFT_CHANGE, bytes("conf")), 0);
    world_abort(w);

    CHECK_EQ(bop__machine_position(w->machine).index, 3);
    CHECK_EQ(bop__machine_session_count(w->machine), 1);
    CHECK_EQ(bop__machine_configuration(w->machine).size, 0);
    CHECK_EQ(world_digest(w), content);
    CHECK_EQ(world_write(w, session, 1, 0, &add), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_COUNTER_ADD).number, 1);
    CHECK_EQ(world_write(w, session, 2, 0, &add), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(w, BOP_OP_COUNTER_ADD).number, 2);
    CHECK_EQ(world_put(w, "n", "k", "v"), BOP_STATUS_OK);
    CHECK_EQ(world_size(w, "n"), 1);
    CHECK_EQ(world_size(w, "m"), 1);
}

TEST(machine, keeps_all_when_reopened)
{
    struct world *w = &f->world;
    struct machine_position position;
    uint64_t content;

    CHECK_EQ(world_put(w, "m", "k", "v"), BOP_STATUS_OK);
    CHECK_EQ(world_put(w, "n", "k", "v"), BOP_STATUS_OK);
    position = bop__machine_position(w->machine);
    content = world_digest(w);
    world_reopen(w);
    CHECK_EQ(memcmp(&(struct machine_position){0}, &position, sizeof(position)) != 0, true);
    CHECK_EQ(bop__machine_position(w->machine).digest, position.digest);
    CHECK_EQ(bop__machine_position(w->machine).index, 2);
    CHECK_EQ(bop__machine_position(w->machine).term, WORLD_TERM);
    CHECK_EQ(world_digest(w), content);
    /* A third map gets an id of its own. */
    CHECK_EQ(world_put(w, "o", "k", "other"), BOP_STATUS_OK);
    CHECK_SLICE_EQ(world_get(w, "m", bytes("k")).value, bytes("v"));
    CHECK_EQ(world_size(w, "o"), 1);
}

/* ---- A store that is not what it should be ---- */

static void spoil(struct world *w, const char *table_name, const char *key, struct bop_slice value)
{
    struct bop_kv_options options = {.path = w->options.path};
    struct bop_kv_table table;
    struct bop_kv_txn *txn;
    struct bop_kv *kv;

    bop__machine_close(w->machine);
    w->machine = NULL;
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    REQUIRE_EQ(bop_kv_begin(kv, true, &txn), 0);
    REQUIRE_EQ(bop_kv_table_open(txn, table_name, true, &table), 0);
    if (value.data) {
        REQUIRE_EQ(bop_kv_put(txn, table, bytes(key), value), 0);
    } else {
        REQUIRE_EQ(bop_kv_del(txn, table, bytes(key)), 0);
    }
    REQUIRE_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

TEST(machine, refuses_a_state_of_a_newer_format)
{
    struct world *w = &f->world;
    struct bop_error err;

    spoil(w, "meta", "format", bop_slice("\4\0\0", 4));
    CHECK_EQ(bop__machine_open(&w->options, &w->machine, &err), BOP_EVERSION);
    CHECK_STR_HAS(err.message, w->options.path);
}

/* Make the store what the older format had: without the tables that came later. */
static void make_old(struct world *w)
{
    static const char *const newer[] = {"sets", "multimaps", "garbage"};
    struct bop_kv_options options = {.path = w->options.path};
    struct bop_kv_txn *txn;
    struct bop_kv *kv;

    spoil(w, "meta", "format", bop_slice("\1\0\0", 4));
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    REQUIRE_EQ(bop_kv_begin(kv, true, &txn), 0);
    for (size_t i = 0; i < BOP_COUNT_OF(newer); i++) {
        struct bop_kv_table table;

        REQUIRE_EQ(bop_kv_table_open(txn, newer[i], false, &table), 0);
        REQUIRE_EQ(bop_kv_table_drop(txn, table), 0);
    }
    REQUIRE_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

TEST(machine, opens_a_state_of_the_older_format)
{
    struct world *w = &f->world;
    struct bop_operation add = {.op = BOP_OP_SET_ADD, .name = bytes("s"), .key = bytes("member")};
    uint64_t digest;

    CHECK_EQ(world_put(w, "m", "k", "v"), BOP_STATUS_OK);
    digest = world_digest(w);
    make_old(w);
    world_open(w);
    CHECK_EQ(bop__machine_position(w->machine).index, 1);
    CHECK_SLICE_EQ(world_get(w, "m", bytes("k")).value, bytes("v"));
    CHECK_EQ(world_digest(w), digest); /* It is of the new format now, as the others. */
    CHECK_EQ(world_write(w, 0, 0, 0, &add), BOP_STATUS_OK);
    world_reopen(w);
    CHECK_EQ(world_records(w, MACHINE_SETS), 1);
}

TEST(machine, refuses_records_that_make_no_sense)
{
    struct world *w = &f->world;

    spoil(w, "meta", "position", bytes("short"));
    CHECK_EQ(bop__machine_open(&w->options, &w->machine, NULL), BOP_ECORRUPT);
    spoil(w, "meta", "position", bop_slice(NULL, 0));
    spoil(w, "sessions", "12345678", bytes("short"));
    CHECK_EQ(bop__machine_open(&w->options, &w->machine, NULL), BOP_ECORRUPT);
}

/* What a load left that did not come to its end. */
TEST(machine, makes_a_state_without_format_anew)
{
    struct world *w = &f->world;

    CHECK_EQ(world_put(w, "m", "k", "v"), BOP_STATUS_OK);
    spoil(w, "meta", "format", bop_slice(NULL, 0));
    world_open(w);
    CHECK_EQ(bop__machine_position(w->machine).index, 0);
    CHECK_EQ(world_size(w, "m"), 0);
    CHECK_EQ(world_put(w, "m", "k2", "v"), BOP_STATUS_OK);
    CHECK_EQ(world_size(w, "m"), 1);
}

/* ---- Bounds and faults ---- */

/* Fill a store of 1 MiB in batches of 8; the batch that finds no room is aborted. */
TEST(machine, full_store_loses_nothing_that_was_committed)
{
    struct world *w = &f->world;
    uint8_t value[4096];
    uint64_t stored = 0, content;
    int rc = 0;

    memset(value, 'v', sizeof(value));
    world_close(w);
    w->options.path = test_path(NULL, "small");
    w->options.bytes_max = 2 << 20;
    w->options.grow_step_bytes = 256 << 10;
    world_init(w, &f->heap.allocator);
    while (rc == 0 && stored < 1000) {
        struct bop_raft_entry entry = {.term = 1, .type = BOP_RAFT_COMMAND};
        struct machine_result result;

        rc = bop__machine_begin(w->machine);
        for (unsigned i = 0; rc == 0 && i < 8; i++) {
            struct bop_writer writer = bop_writer(&w->operation);
            struct command command = {.kind = COMMAND_WRITE};
            char key[16];
            struct bop_operation put;

            snprintf(key, sizeof(key), "%08u", (unsigned)stored + i);
            put = op_put("m", bytes(key), bop_slice(value, sizeof(value)));
            bop_buf_clear(&w->operation);
            bop_operation_encode(&writer, &put);
            command.operation = bop_buf_slice(&w->operation);
            writer = bop_writer(&w->bytes);
            bop_buf_clear(&w->bytes);
            bop__command_encode(&writer, &command);
            entry.data = bop_buf_slice(&w->bytes);
            rc = bop__machine_apply(w->machine, stored + i + 1, &entry, &w->results, &result);
            if (rc < 0) {
                CHECK_EQ(bop__machine_abort(w->machine), 0);
            }
        }
        rc = rc ? rc : bop__machine_commit(w->machine);
        stored += rc == 0 ? 8 : 0;
    }
    CHECK_EQ(rc, BOP_ENOROOM);
    CHECK(stored >= 64);
    CHECK_EQ(bop__machine_position(w->machine).index, stored);
    CHECK_EQ(world_size(w, "m"), stored);
    CHECK_SLICE_EQ(world_get(w, "m", bytes("00000063")).value, bop_slice(value, sizeof(value)));
    content = world_digest(w);
    world_reopen(w);
    CHECK_EQ(world_digest(w), content);
    CHECK_EQ(bop__machine_position(w->machine).index, stored);
}

/* Entries for the sweep: maps, a long key, sessions and replies, in batches of 4. */
static void sweep_entry(struct world *w, size_t i, struct bop_buf *out)
{
    static const uint8_t key[600];
    struct bop_operation put = op_put(i % 3 ? "m" : "n", bop_slice(key, i % 4 ? i % 200 : 600),
                                      bytes("value"));
    struct command command = {.kind = COMMAND_WRITE,
                              .session = i > 8 ? 4 : 0,
                              .sequence = i,
                              .acked = i > 100 ? i - 50 : i / 2};
    struct bop_writer writer = bop_writer(&w->operation);

    bop_buf_clear(&w->operation);
    bop_operation_encode(&writer, &put);
    command.operation = bop_buf_slice(&w->operation);
    if (i == 4) {
        command = (struct command){.kind = COMMAND_SESSION_OPEN};
    }
    bop_buf_clear(out);
    writer = bop_writer(out);
    bop__command_encode(&writer, &command);
    REQUIRE_EQ(writer.code, 0);
}

static int sweep_batch(struct world *w, size_t from)
{
    int rc = bop__machine_begin(w->machine);

    if (rc < 0) {
        return rc;
    }
    for (size_t i = from; i < from + 4; i++) {
        struct bop_raft_entry entry = {.term = 1, .type = BOP_RAFT_COMMAND};
        struct machine_result result;

        sweep_entry(w, i, &w->bytes);
        entry.data = bop_buf_slice(&w->bytes);
        bop_buf_clear(&w->results);
        rc = bop__machine_apply(w->machine, i, &entry, &w->results, &result);
        if (rc < 0) {
            CHECK_EQ(bop__machine_abort(w->machine), 0);
            return rc;
        }
        CHECK_EQ(result.status, BOP_STATUS_OK);
    }
    return bop__machine_commit(w->machine);
}

/* Whichever allocation fails, the batch is undone and done again, and the end is the same. */
TEST(machine, survives_each_fault)
{
    struct world *w = &f->world;
    struct bop_faults faults = {0};
    struct test_heap heap;
    uint64_t content = 0;

    test_heap_init(&heap, &faults);
    bop__machine_close(w->machine);
    w->options.allocator = &heap.allocator;
    FAULT_SWEEP(&faults) {
        int rc;

        w->options.path = test_path(NULL, "swept");
        rc = bop__machine_open(&w->options, &w->machine, NULL);
        CHECK_EQ(rc == 0 || rc == faults.fired, true);
        if (rc < 0) {
            CHECK_EQ(heap.live, 0);
            REQUIRE_EQ(bop__machine_open(&w->options, &w->machine, NULL), 0);
        }
        for (size_t i = 1; i < 200; i += 4) {
            rc = sweep_batch(w, i);
            if (rc < 0) {
                CHECK_EQ(rc, BOP_ENOMEM);
                CHECK_EQ(bop__machine_position(w->machine).index, i - 1);
                CHECK_EQ(sweep_batch(w, i), 0);
            }
        }
        faults.fail_at = 0; /* Reading has a test of its own. */
        if (content == 0) {
            content = world_digest(w);
        }
        CHECK_EQ(world_digest(w), content);
        bop__machine_close(w->machine);
        w->machine = NULL;
        CHECK_EQ(heap.live, 0);
    }
    world_reopen(w);
    bop__machine_close(w->machine);
    w->machine = NULL;
}

/* After the first batches nothing is allocated for an entry. */
TEST(machine, allocates_nothing_in_the_steady_state)
{
    struct world *w = &f->world;
    struct bop_faults count = {0};
    struct test_heap heap;
    uint64_t warm = 0;

    test_heap_init(&heap, &count);
    bop__machine_close(w->machine);
    w->options.allocator = &heap.allocator;
    w->options.path = test_path(NULL, "steady");
    REQUIRE_EQ(bop__machine_open(&w->options, &w->machine, NULL), 0);
    REQUIRE_EQ(bop_buf_reserve(&w->results, 1000), 0);
    for (size_t i = 1; i < 10000; i += 4) {
        CHECK_EQ(sweep_batch(w, i), 0);
        if (i == 4001) {
            warm = count.at;
        }
    }
    CHECK_EQ(count.at, warm);
    CHECK_EQ(bop__machine_sync(w->machine, NULL), 0);
    bop__machine_close(w->machine);
    w->machine = NULL;
    CHECK_EQ(heap.live, 0);
}

/* ---- Metrics ---- */

TEST(machine, counts_what_it_does)
{
    struct world *w = &f->world;
    struct bop_metrics *metrics;
    struct bop_operation add = op_add("c", 1);
    uint64_t session;

    REQUIRE_EQ(bop_metrics_create(NULL, &metrics), 0);
    w->options.metrics = metrics;
    world_reopen(w);
    session = world_session(w, 5000, "0123456789abcde");
    CHECK_EQ(world_put(w, "m", "k", "v"), BOP_STATUS_OK);
    CHECK_EQ(world_write(w, session, 1, 0, &add), BOP_STATUS_OK);
    CHECK_EQ(world_write(w, session, 1, 0, &add), BOP_STATUS_OK);
    CHECK_EQ(bop_metric_get(bop_metrics_counter(metrics, "bop_machine_applied_total", NULL, "")),
             4);
    CHECK_EQ(bop_metric_get(bop_metrics_counter(metrics, "bop_machine_replays_total", NULL, "")),
             1);
    CHECK_EQ(bop_metric_get(bop_metrics_gauge(metrics, "bop_machine_sessions", NULL, "")), 1);
    CHECK_EQ(bop_metric_get(bop_metrics_gauge(metrics, "bop_machine_map_entries", NULL, "")), 1);
    world_reopen(w);
    CHECK_EQ(bop_metric_get(bop_metrics_gauge(metrics, "bop_machine_map_entries", NULL, "")), 1);
    bop__machine_close(w->machine);
    w->machine = NULL;
    bop_metrics_destroy(metrics);
}
