/* Tables, entries, cursors. */
#include "kv_test.h"

FIXTURE(setup, teardown)

/* Write "b", "d", "f" with upper-case values to a new table. */
static struct bop_kv_table three_entries(struct bop_kv *kv)
{
    struct bop_kv_table table = make_table(kv, "three");

    put_one(kv, table, "d", "D");
    put_one(kv, table, "b", "B");
    put_one(kv, table, "f", "F");
    return table;
}

TEST(kv_put, inserts_and_replaces)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_slice value;
    uint64_t count;

    CHECK_EQ(bop_kv_get(txn, table, bytes("k"), &value), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bytes("one")), 0);
    CHECK(has(txn, table, "k", "one"));
    CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bytes("another")), 0);
    CHECK(has(txn, table, "k", "another"));
    CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bop_slice(NULL, 0)), 0);
    CHECK(has(txn, table, "k", ""));
    CHECK_EQ(bop_kv_table_count(txn, table, &count), 0);
    CHECK_EQ(count, 1);
    CHECK_EQ(bop_kv_del(txn, table, bytes("k")), 0);
    CHECK_EQ(bop_kv_del(txn, table, bytes("k")), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_get(txn, table, bytes("k"), &value), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_commit(txn), 0); /* Things not found do no harm. */
    bop_kv_close(kv);
}

TEST(kv_put, takes_keys_of_1_to_511_bytes)
{
    uint8_t key[512];
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_slice value;

    memset(key, 0xff, sizeof(key));
    CHECK_EQ(bop_kv_put(txn, table, bop_slice(key, 0), bytes("v")), BOP_EINVAL);
    CHECK_EQ(bop_kv_put(txn, table, bop_slice(key, 512), bytes("v")), BOP_EINVAL);
    CHECK_EQ(bop_kv_put(txn, table, bop_slice(key, 1), bytes("1")), 0);
    CHECK_EQ(bop_kv_put(txn, table, bop_slice(key, 511), bytes("511")), 0);
    CHECK_EQ(bop_kv_get(txn, table, bop_slice(key, 0), &value), BOP_EINVAL);
    CHECK_EQ(bop_kv_get(txn, table, bop_slice(key, 512), &value), BOP_EINVAL);
    CHECK_EQ(bop_kv_del(txn, table, bop_slice(key, 512)), BOP_EINVAL);
    CHECK_EQ(bop_kv_commit(txn), 0); /* Refusals do no harm. */
    txn = begin(kv, false);
    CHECK_EQ(bop_kv_get(txn, table, bop_slice(key, 511), &value), 0);
    CHECK_SLICE_EQ(value, bytes("511"));
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* A value of 2 GiB is refused before a byte of it is read. */
TEST(kv_put, refuses_too_big_a_value)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);

    CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bop_slice("", UINT64_C(1) << 31)), BOP_ETOOBIG);
    CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bytes("v")), 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

/* Around the sizes where LMDB moves a value to pages of its own, and far above. */
TEST(kv_put, keeps_values_of_all_sizes)
{
    static const size_t sizes[] = {0,    1,    1300, 1365, 1366, 2000, 2010,  2020,
                                   2030, 2040, 4080, 4081, 8176, 8177, 70000, 1 << 20};
    static uint8_t data[1 << 20];
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_slice value;

    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * 7 + i / 251);
    }
    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        CHECK_EQ(bop_kv_put(txn, table, bop_slice(&i, 8), bop_slice(data, sizes[i])), 0);
    }
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
    kv = open_store(f);
    txn = begin(kv, false);
    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        CHECK_EQ(bop_kv_get(txn, table, bop_slice(&i, 8), &value), 0);
        CHECK_SLICE_EQ(value, bop_slice(data, sizes[i]));
    }
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* An append out of order is refused, and the transaction goes on. */
TEST(kv_append, wants_ascending_keys)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_slice value;

    CHECK_EQ(bop_kv_append(txn, table, bytes("b"), bytes("1")), 0);
    CHECK_EQ(bop_kv_append(txn, table, bytes("bb"), bytes("2")), 0);
    CHECK_EQ(bop_kv_append(txn, table, bytes("bb"), bytes("3")), BOP_EINVAL);
    CHECK_EQ(bop_kv_append(txn, table, bytes("a"), bytes("4")), BOP_EINVAL);
    CHECK_EQ(bop_kv_append(txn, table, bytes("c"), bytes("5")), 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
    txn = begin(kv, false);
    CHECK(has(txn, table, "bb", "2"));
    CHECK(has(txn, table, "c", "5"));
    CHECK_EQ(bop_kv_get(txn, table, bytes("a"), &value), BOP_ENOTFOUND);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* ---- Tables ---- */

TEST(kv_table, keeps_entries_apart)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table tables[32];
    struct bop_kv_txn *txn;
    char name[16];
    uint64_t count;

    for (int i = 0; i < 32; i++) {
        snprintf(name, sizeof(name), "table %d", i);
        tables[i] = make_table(kv, name);
        put_one(kv, tables[i], "k", name);
    }
    txn = begin(kv, true);
    CHECK_EQ(bop_kv_table_open(txn, "one more", true, &tables[0]), BOP_EFULL);
    CHECK_EQ(bop_kv_put(txn, tables[1], bytes("l"), bytes("v")), 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
    txn = begin(kv, false);
    for (int i = 0; i < 32; i++) {
        snprintf(name, sizeof(name), "table %d", i);
        CHECK(has(txn, tables[i], "k", name));
        CHECK_EQ(bop_kv_table_count(txn, tables[i], &count), 0);
        CHECK_EQ(count, i == 1 ? 2 : 1);
    }
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

TEST(kv_table, opens_by_name)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table, again;
    struct bop_kv_txn *old, *txn;
    char name[BOP_KV_KEY_MAX + 2];

    old = begin(kv, false);
    txn = begin(kv, true);
    CHECK_EQ(bop_kv_table_open(txn, "t", false, &table), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_table_open(txn, "t", true, &table), 0);
    CHECK_EQ(bop_kv_table_open(txn, "t", true, &again), 0);
    CHECK_EQ(again.handle, table.handle);
    CHECK_EQ(bop_kv_table_open(txn, "", true, &again), BOP_EINVAL);
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = 0;
    CHECK_EQ(bop_kv_table_open(txn, name, true, &again), BOP_EINVAL);
    name[sizeof(name) - 2] = 0;
    CHECK_EQ(bop_kv_table_open(txn, name, true, &again), 0);
    CHECK_EQ(bop_kv_table_open(old, "t", false, &again), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_commit(txn), 0);
    CHECK_EQ(bop_kv_table_open(old, "t", false, &again), BOP_ENOTFOUND); /* An older snapshot. */
    bop_kv_abort(old);
    txn = begin(kv, false);
    CHECK_EQ(bop_kv_table_open(txn, "t", true, &again), 0);
    CHECK_EQ(again.handle, table.handle);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* A snapshot from before a table was made knows no entry of it. */
TEST(kv_table, is_not_in_an_older_snapshot)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_txn *old = begin(kv, false);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_cursor *cursor = NULL;
    struct bop_slice value;
    uint64_t count;

    put_one(kv, table, "k", "v");
    CHECK(bop_kv_get(old, table, bytes("k"), &value) < 0);
    CHECK(bop_kv_table_count(old, table, &count) < 0);
    CHECK(bop_kv_cursor_open(old, table, &cursor) < 0);
    CHECK(!cursor);
    bop_kv_abort(old);
    bop_kv_close(kv);
}

/* A handle that is no table's, LMDB's own among them, is refused. */
TEST(kv_table, refuses_strange_handles)
{
    static const unsigned handles[] = {0, 1, 20, 1000};
    struct bop_kv *kv = open_store(f);
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_slice value;
    uint64_t count;

    for (size_t i = 0; i < BOP_COUNT_OF(handles); i++) {
        struct bop_kv_table table = {.handle = handles[i]};
        struct bop_kv_cursor *cursor;

        CHECK_EQ(bop_kv_get(txn, table, bytes("k"), &value), BOP_EINVAL);
        CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bytes("v")), BOP_EINVAL);
        CHECK_EQ(bop_kv_del(txn, table, bytes("k")), BOP_EINVAL);
        CHECK_EQ(bop_kv_table_clear(txn, table), BOP_EINVAL);
        CHECK_EQ(bop_kv_table_count(txn, table, &count), BOP_EINVAL);
        CHECK_EQ(bop_kv_cursor_open(txn, table, &cursor), BOP_EINVAL);
    }
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

TEST(kv_table, is_empty_when_cleared)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = three_entries(kv);
    struct bop_kv_txn *reader = begin(kv, false);
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_slice value;
    uint64_t count;

    CHECK_EQ(bop_kv_table_clear(txn, table), 0);
    CHECK_EQ(bop_kv_table_clear(txn, table), 0);
    CHECK_EQ(bop_kv_get(txn, table, bytes("d"), &value), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_put(txn, table, bytes("x"), bytes("y")), 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
    CHECK(has(reader, table, "d", "D"));
    bop_kv_abort(reader);
    txn = begin(kv, false);
    CHECK_EQ(bop_kv_table_count(txn, table, &count), 0);
    CHECK_EQ(count, 1);
    CHECK(has(txn, table, "x", "y"));
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* ---- Cursors ---- */

/* The key a seek arrives at, as a string of one byte; "" if there is none. */
static const char *seek(struct bop_kv_cursor *cursor, enum bop_kv_seek how, const char *to)
{
    static char text[2];
    struct bop_slice key, value;
    int rc = bop_kv_cursor_seek(cursor, how, bytes(to), &key, &value);

    if (rc != 0) {
        CHECK_EQ(rc, BOP_ENOTFOUND);
        return "";
    }
    CHECK_EQ(key.size, 1);
    CHECK_EQ(value.size, 1);
    CHECK_EQ(value.data[0], key.data[0] - 'a' + 'A');
    text[0] = (char)key.data[0];
    return text;
}

TEST(kv_cursor, seeks)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = three_entries(kv);
    struct bop_kv_txn *txn = begin(kv, false);
    struct bop_kv_cursor *cursor = NULL;

    REQUIRE_EQ(bop_kv_cursor_open(txn, table, &cursor), 0);
    CHECK_STR_EQ(seek(cursor, BOP_KV_NEXT, ""), "b"); /* Of a fresh one: the first. */
    CHECK_STR_EQ(seek(cursor, BOP_KV_FIRST, ""), "b");
    CHECK_STR_EQ(seek(cursor, BOP_KV_PREV, ""), "");
    CHECK_STR_EQ(seek(cursor, BOP_KV_FIRST, ""), "b");
    CHECK_STR_EQ(seek(cursor, BOP_KV_NEXT, ""), "d");
    CHECK_STR_EQ(seek(cursor, BOP_KV_NEXT, ""), "f");
    CHECK_STR_EQ(seek(cursor, BOP_KV_NEXT, ""), "");
    CHECK_STR_EQ(seek(cursor, BOP_KV_NEXT, ""), "");
    CHECK_STR_EQ(seek(cursor, BOP_KV_LAST, ""), "f");
    CHECK_STR_EQ(seek(cursor, BOP_KV_PREV, ""), "d");
    CHECK_STR_EQ(seek(cursor, BOP_KV_AT_OR_AFTER, "d"), "d");
    CHECK_STR_EQ(seek(cursor, BOP_KV_AT_OR_AFTER, "c"), "d");
    CHECK_STR_EQ(seek(cursor, BOP_KV_AT_OR_AFTER, "dd"), "f");
    CHECK_STR_EQ(seek(cursor, BOP_KV_AT_OR_AFTER, ""), "b");
    CHECK_STR_EQ(seek(cursor, BOP_KV_AT_OR_AFTER, "g"), "");
    bop_kv_cursor_close(cursor);
    bop_kv_cursor_close(NULL);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

TEST(kv_cursor, refuses_bad_arguments)
{
    uint8_t key[BOP_KV_KEY_MAX + 1] = {0};
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = three_entries(kv);
    struct bop_kv_txn *txn = begin(kv, false);
    struct bop_kv_cursor *cursor = NULL;
    struct bop_slice k, v;

    REQUIRE_EQ(bop_kv_cursor_open(txn, table, &cursor), 0);
    CHECK_EQ(bop_kv_cursor_seek(cursor, BOP_KV_AT_OR_AFTER, bop_slice(key, sizeof(key)), &k, &v),
             BOP_EINVAL);
    CHECK_EQ(bop_kv_cursor_seek(cursor, (enum bop_kv_seek)77, bytes(""), &k, &v), BOP_EINVAL);
    bop_kv_cursor_close(cursor);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

TEST(kv_cursor, finds_nothing_in_an_empty_table)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, false);
    struct bop_kv_cursor *cursor = NULL;

    REQUIRE_EQ(bop_kv_cursor_open(txn, table, &cursor), 0);
    for (int how = BOP_KV_FIRST; how <= BOP_KV_AT_OR_AFTER; how++) {
        CHECK_STR_EQ(seek(cursor, (enum bop_kv_seek)how, "a"), "");
    }
    bop_kv_cursor_close(cursor);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* Bytes order keys as memcmp does, a shorter one before a longer one. */
TEST(kv_cursor, goes_in_byte_order)
{
    static const char *const keys[] = {"\x01", "a",    "a\x01", "aa",  "ab",
                                       "b",    "\x7f", "\x80",  "\xff"};
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_cursor *cursor = NULL;
    struct bop_slice key, value;
    struct bop_kv_txn *txn;

    for (size_t i = 0; i < BOP_COUNT_OF(keys); i++) {
        put_one(kv, table, keys[i * 4 % BOP_COUNT_OF(keys)], "v");
    }
    txn = begin(kv, false);
    REQUIRE_EQ(bop_kv_cursor_open(txn, table, &cursor), 0);
    for (size_t i = 0; i < BOP_COUNT_OF(keys); i++) {
        CHECK_EQ(bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bytes(""), &key, &value), 0);
        CHECK_SLICE_EQ(key, bytes(keys[i]));
    }
    CHECK_EQ(bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bytes(""), &key, &value), BOP_ENOTFOUND);
    bop_kv_cursor_close(cursor);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* Walk a table and delete each entry arrived at: none is skipped, over many pages. */
TEST(kv_cursor, walks_while_entries_are_deleted)
{
    enum { ENTRIES = 2000 };
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_kv_cursor *cursor = NULL;
    uint8_t filler[40] = {0};
    char key[16];
    uint64_t count;

    for (int i = 0; i < ENTRIES; i++) {
        snprintf(key, sizeof(key), "%08d", i);
        CHECK_EQ(bop_kv_append(txn, table, bytes(key), bop_slice(filler, sizeof(filler))), 0);
    }
    CHECK_EQ(bop_kv_commit(txn), 0);
    txn = begin(kv, true);
    REQUIRE_EQ(bop_kv_cursor_open(txn, table, &cursor), 0);
    for (int i = 0; i < ENTRIES; i++) {
        struct bop_slice k, v;

        snprintf(key, sizeof(key), "%08d", i);
        REQUIRE_EQ(bop_kv_cursor_seek(cursor, BOP_KV_NEXT, bytes(""), &k, &v), 0);
        CHECK_SLICE_EQ(k, bytes(key));
        CHECK_EQ(bop_kv_del(txn, table, bytes(key)), 0);
    }
    bop_kv_cursor_close(cursor);
    CHECK_EQ(bop_kv_table_count(txn, table, &count), 0);
    CHECK_EQ(count, 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}
