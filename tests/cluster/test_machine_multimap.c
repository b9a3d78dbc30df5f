/*
 * Multimaps in the state machine: pairs, queries, pages, keys of any bytes and length.
 */
#include <stdio.h>
#include <stdlib.h>

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

static struct bop_result run(struct fixture *f, enum bop_op op, struct bop_slice key,
                             struct bop_slice value)
{
    struct bop_operation operation = {.op = op, .name = bytes("mm"), .key = key, .value = value};

    if (!bop_op_is_write(op)) {
        struct bop_result result = world_read(&f->world, &operation);

        CHECK_EQ(result.status, BOP_STATUS_OK);
        return result;
    }
    CHECK_EQ(world_write(&f->world, 0, 0, 0, &operation), BOP_STATUS_OK);
    return world_decoded(&f->world, op);
}

static bool yes(struct fixture *f, enum bop_op op, const char *key, const char *value)
{
    return run(f, op, bytes(key), bytes(value)).existed;
}

static bool put(struct fixture *f, const char *key, const char *value)
{
    return yes(f, BOP_OP_MULTIMAP_PUT, key, value);
}

static uint64_t number(struct fixture *f, enum bop_op op, const char *key)
{
    return run(f, op, bytes(key), bytes("")).size;
}

/* All pages of a scan, `limit` entries at a time, as "key=value;" one after another. */
static void pages(struct fixture *f, enum bop_op op, struct bop_slice key, uint32_t limit,
                  struct bop_buf *out)
{
    struct bop_operation operation = {.op = op, .name = bytes("mm"), .key = key, .limit = limit};
    struct bop_buf cursor;
    struct bop_result page;
    unsigned turns = 0;

    bop_buf_clear(out);
    bop_buf_init(&cursor, NULL, 0);
    do {
        struct bop_scan_entry entry;

        operation.cursor = bop_buf_slice(&cursor);
        page = world_read(&f->world, &operation);
        REQUIRE_EQ(page.status, BOP_STATUS_OK);
        REQUIRE(turns++ < 10000);
        CHECK_EQ(page.revision, bop__machine_position(f->world.machine).index);
        while (bop_scan_next(&page.entries, &entry)) {
            CHECK_EQ(entry.version == 0, op == BOP_OP_MULTIMAP_KEYS);
            REQUIRE_EQ(bop_buf_append(out, entry.key.data, entry.key.size), 0);
            REQUIRE_EQ(bop_buf_append(out, "=", 1), 0);
            REQUIRE_EQ(bop_buf_append(out, entry.value.data, entry.value.size), 0);
            REQUIRE_EQ(bop_buf_append(out, ";", 1), 0);
        }
        bop_buf_clear(&cursor);
        REQUIRE_EQ(bop_buf_append(&cursor, page.cursor.data, page.cursor.size), 0);
    } while (cursor.size > 0);
    bop_buf_deinit(&cursor);
}

static void check_pages(struct fixture *f, enum bop_op op, const char *key, const char *wanted)
{
    struct bop_buf got;

    bop_buf_init(&got, NULL, 0);
    for (uint32_t limit = 0; limit < 4; limit++) {
        pages(f, op, bytes(key), limit, &got);
        CHECK_SLICE_EQ(bop_buf_slice(&got), bytes(wanted));
    }
    bop_buf_deinit(&got);
}

TEST(multimap, holds_each_pair_once)
{
    CHECK(put(f, "k", "a"));
    CHECK(!put(f, "k", "a"));
    CHECK(put(f, "k", "b"));
    CHECK(put(f, "l", "a"));
    CHECK(put(f, "", ""));
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_SIZE, ""), 4);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_KEY_SIZE, "k"), 2);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_KEY_SIZE, "x"), 0);
    CHECK(yes(f, BOP_OP_MULTIMAP_REMOVE_VALUE, "k", "a"));
    CHECK(!yes(f, BOP_OP_MULTIMAP_REMOVE_VALUE, "k", "a"));
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_REMOVE, "k"), 1);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_REMOVE, "k"), 0);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_SIZE, ""), 2);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_REMOVE, ""), 1);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_REMOVE, "l"), 1);
    CHECK_EQ(world_records(&f->world, MACHINE_ENTRIES), 0);
    CHECK_EQ(world_records(&f->world, MACHINE_MULTIMAPS), 1);
}

TEST(multimap, that_is_not_there_is_empty)
{
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_SIZE, ""), 0);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_KEY_SIZE, "k"), 0);
    CHECK(!yes(f, BOP_OP_MULTIMAP_CONTAINS_KEY, "k", ""));
    CHECK(!yes(f, BOP_OP_MULTIMAP_CONTAINS_ENTRY, "k", "v"));
    CHECK(!yes(f, BOP_OP_MULTIMAP_CONTAINS_VALUE, "", "v"));
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_REMOVE, "k"), 0);
    CHECK(!yes(f, BOP_OP_MULTIMAP_REMOVE_VALUE, "k", "v"));
    check_pages(f, BOP_OP_MULTIMAP_ENTRIES, "", "");
    CHECK_EQ(world_records(&f->world, MACHINE_MULTIMAPS), 0);
    CHECK(yes(f, BOP_OP_MULTIMAP_CREATE, "", ""));
    CHECK(!yes(f, BOP_OP_MULTIMAP_CREATE, "", ""));
    check_pages(f, BOP_OP_MULTIMAP_KEYS, "", "");
}

TEST(multimap, answers_each_query)
{
    put(f, "b", "2");
    put(f, "a", "3");
    put(f, "b", "1");
    put(f, "ab", "1");
    put(f, "b", "");
    CHECK(yes(f, BOP_OP_MULTIMAP_CONTAINS_KEY, "a", ""));
    CHECK(!yes(f, BOP_OP_MULTIMAP_CONTAINS_KEY, "", ""));
    CHECK(!yes(f, BOP_OP_MULTIMAP_CONTAINS_KEY, "abc", ""));
    CHECK(yes(f, BOP_OP_MULTIMAP_CONTAINS_VALUE, "", "2"));
    CHECK(!yes(f, BOP_OP_MULTIMAP_CONTAINS_VALUE, "", "4"));
    CHECK(yes(f, BOP_OP_MULTIMAP_CONTAINS_ENTRY, "b", ""));
    CHECK(!yes(f, BOP_OP_MULTIMAP_CONTAINS_ENTRY, "a", "1"));
    check_pages(f, BOP_OP_MULTIMAP_GET, "b", "=;=1;=2;");
    check_pages(f, BOP_OP_MULTIMAP_GET, "a", "=3;");
    check_pages(f, BOP_OP_MULTIMAP_GET, "c", "");
    check_pages(f, BOP_OP_MULTIMAP_KEYS, "", "a=;ab=;b=;");
    check_pages(f, BOP_OP_MULTIMAP_VALUES, "", "=3;=1;=;=1;=2;");
    check_pages(f, BOP_OP_MULTIMAP_ENTRIES, "", "a=3;ab=1;b=;b=1;b=2;");
}

/* All keys of up to four bytes from 00, 01, 02 and FF, with such values: none is mistaken for
 * another, and they come in the order of their bytes. */
TEST(multimap, keys_have_any_bytes)
{
    static const uint8_t alphabet[] = {0, 1, 2, 0xff};
    uint8_t key[4], last[4] = {0};
    size_t last_size = 0;
    struct bop_operation scan = {.op = BOP_OP_MULTIMAP_KEYS, .name = bytes("mm")};
    struct bop_scan_entry entry;
    struct bop_result page;
    uint64_t keys = 0;

    world_begin(&f->world);
    for (size_t size = 0; size <= 4; size++) {
        for (unsigned n = 0; n < 1u << 2 * size; n++) {
            for (size_t i = 0; i < size; i++) {
                key[i] = alphabet[n >> 2 * i & 3];
            }
            run(f, BOP_OP_MULTIMAP_PUT, bop_slice(key, size), bop_slice("\0\1", 2));
            run(f, BOP_OP_MULTIMAP_PUT, bop_slice(key, size), bop_slice("\xff", 1));
            run(f, BOP_OP_MULTIMAP_PUT, bop_slice(key, size), bop_slice("", 0));
            keys++;
        }
    }
    world_commit(&f->world);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_SIZE, ""), 3 * keys);
    for (size_t size = 0; size <= 4; size++) {
        for (unsigned n = 0; n < 1u << 2 * size; n++) {
            for (size_t i = 0; i < size; i++) {
                key[i] = alphabet[n >> 2 * i & 3];
            }
            CHECK_EQ(run(f, BOP_OP_MULTIMAP_KEY_SIZE, bop_slice(key, size), bytes("")).size, 3);
        }
    }
    page = world_read(&f->world, &scan);
    CHECK_EQ(page.count, keys);
    for (uint64_t i = 0; bop_scan_next(&page.entries, &entry); i++) {
        CHECK(i == 0 || bop_slice_compare(bop_slice(last, last_size), entry.key) < 0);
        REQUIRE(entry.key.size <= sizeof(last));
        if (entry.key.size > 0) {
            memcpy(last, entry.key.data, entry.key.size);
        }
        last_size = entry.key.size;
    }
    key[0] = 0;
    CHECK_EQ(run(f, BOP_OP_MULTIMAP_REMOVE, bop_slice(key, 1), bytes("")).size, 3);
    CHECK_EQ(run(f, BOP_OP_MULTIMAP_KEY_SIZE, bop_slice("\0\1", 2), bytes("")).size, 3);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_SIZE, ""), 3 * keys - 3);
}

/* Keys and values around every length at which the form changes: 238 (a head is cut above it), what
 * the store takes whole, and the limits. Two keys of each length, that differ at their ends. */
TEST(multimap, keys_and_values_may_be_long)
{
    static const size_t sizes[] = {
        199, 200, 201, 237, 238, 239, 240, 241, 474, 475, 476, 506, BOP_KEY_MAX - 1, BOP_KEY_MAX};
    uint8_t *key = malloc(BOP_KEY_MAX), *value = malloc(BOP_KEY_MAX);
    size_t pairs = 0;

    REQUIRE(key && value);
    for (int pass = 0; pass < 2; pass++) {
        memset(key, pass ? 0 : 'k', BOP_KEY_MAX); /* Zeros are longer when escaped. */
        memset(value, 'v', BOP_KEY_MAX);
        for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
            for (uint8_t end = 0; end < 2; end++) {
                struct bop_slice k = bop_slice(key, sizes[i]);
                uint8_t old = key[sizes[i] - 1];
                size_t j = i % 3 == 0 ? BOP_COUNT_OF(sizes) - 1 : i % 5;

                key[sizes[i] - 1] = end;
                CHECK_EQ(run(f, BOP_OP_MULTIMAP_KEY_SIZE, k, bytes("")).size, 0);
                CHECK(run(f, BOP_OP_MULTIMAP_PUT, k, bop_slice(value, sizes[j])).existed);
                CHECK(!run(f, BOP_OP_MULTIMAP_PUT, k, bop_slice(value, sizes[j])).existed);
                CHECK(run(f, BOP_OP_MULTIMAP_PUT, k, bytes("")).existed);
                CHECK_EQ(run(f, BOP_OP_MULTIMAP_KEY_SIZE, k, bytes("")).size, 2);
                CHECK(
                    run(f, BOP_OP_MULTIMAP_CONTAINS_ENTRY, k, bop_slice(value, sizes[j])).existed);
                CHECK(!run(f, BOP_OP_MULTIMAP_CONTAINS_ENTRY, k, bop_slice(value, sizes[j] - 1))
                           .existed);
                pairs += 2;
                key[sizes[i] - 1] = old;
            }
        }
    }
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_SIZE, ""), pairs);
    CHECK_EQ(world_records(&f->world, MACHINE_ENTRIES), pairs); /* Each passes its check, too. */
    CHECK_EQ(run(f, BOP_OP_MULTIMAP_KEYS, bytes(""), bytes("")).count, 0 + pairs / 2);
    free(key);
    free(value);
}

TEST(multimap, refuses_what_is_too_big)
{
    static uint8_t big[BOP_KEY_MAX + 1];
    struct bop_operation operation = {.op = BOP_OP_MULTIMAP_PUT, .name = bytes("mm")};

    operation.value = bop_slice(big, sizeof(big));
    CHECK_EQ(world_write(&f->world, 0, 0, 0, &operation), BOP_STATUS_TOO_BIG);
    operation.value = bytes("v");
    operation.key = bop_slice(big, sizeof(big));
    CHECK_EQ(world_write(&f->world, 0, 0, 0, &operation), BOP_STATUS_TOO_BIG);
    CHECK_EQ(world_records(&f->world, MACHINE_MULTIMAPS), 0);
}

TEST(multimap, refuses_a_cursor_that_is_none)
{
    struct bop_operation scan = {.op = BOP_OP_MULTIMAP_KEYS, .name = bytes("mm")};
    uint8_t cursor[600];

    put(f, "k", "v");
    memset(cursor, 0xff, sizeof(cursor));
    scan.cursor = bop_slice(cursor, 10);
    CHECK_EQ(world_read(&f->world, &scan).status, BOP_STATUS_BAD_REQUEST);
    cursor[0] = 1;
    scan.cursor = bop_slice(cursor, 1);
    CHECK_EQ(world_read(&f->world, &scan).count, 0); /* Behind all that begins with nothing. */
    scan.cursor = bop_slice(cursor, 508);
    CHECK_EQ(world_read(&f->world, &scan).count, 0);
    scan.cursor = bop_slice(cursor, 509);
    CHECK_EQ(world_read(&f->world, &scan).status, BOP_STATUS_BAD_REQUEST);
}

TEST(multimap, abort_takes_back_what_the_batch_did)
{
    uint64_t digest;

    put(f, "k", "a");
    put(f, "k", "b");
    digest = world_digest(&f->world);
    world_begin(&f->world);
    put(f, "k", "c");
    run(f, BOP_OP_MULTIMAP_REMOVE, bytes("k"), bytes(""));
    put(f, "l", "a");
    world_abort(&f->world);
    CHECK_EQ(world_digest(&f->world), digest);
    CHECK_EQ(number(f, BOP_OP_MULTIMAP_SIZE, ""), 2);
}
