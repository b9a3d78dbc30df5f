/* What goes beyond plain entries: kinds of tables, flags of puts, nested transactions, scans,
 * sequences, dropping, and the cause of errors. */
#include <lmdb.h>

#include "kv_test.h"

FIXTURE(setup, teardown)

static struct bop_kv *open_nested(struct fixture *f)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv *kv = NULL;

    options.nested = true;
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    return kv;
}

TEST(kv_cause, is_lmdbs_code_or_our_words)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_slice value;

    CHECK_EQ(bop_kv_get(txn, table, bytes("no"), &value), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_cause(), MDB_NOTFOUND);
    CHECK_STR_HAS(bop_kv_cause_text(), "MDB_NOTFOUND");
    CHECK_EQ(bop_kv_get(txn, table, bytes(""), &value), BOP_EINVAL);
    CHECK_EQ(bop_kv_cause(), 0);
    CHECK_STR_HAS(bop_kv_cause_text(), "1 to 511");
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

TEST(kv_begin, refuses_instead_of_waiting_for_itself)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_txn *txn = begin(kv, true), *other = NULL;

    CHECK_EQ(bop_kv_begin(kv, true, &other), -EDEADLK);
    CHECK_EQ(bop_kv_begin_with(kv, &(struct bop_kv_begin){.write = true, .try_only = true}, &other),
             BOP_EBUSY);
    CHECK_EQ(bop_kv_begin_with(kv, &(struct bop_kv_begin){.write = true, .parent = txn}, &other),
             BOP_EUNSUPPORTED);
    CHECK(!other);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

TEST(kv_reset, renews_with_the_newest_snapshot)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, false);
    struct bop_kv_cursor *cursor;
    struct bop_slice key, value;

    CHECK_EQ(bop_kv_cursor_open(txn, table, &cursor), 0);
    put_one(kv, table, "k", "v");
    CHECK_EQ(bop_kv_txn_lag(txn), 1);
    CHECK(!has(txn, table, "k", "v"));
    CHECK_EQ(bop_kv_renew(txn), BOP_EINVAL);
    CHECK_EQ(bop_kv_reset(txn), 0);
    CHECK_EQ(bop_kv_get(txn, table, bytes("k"), &value), BOP_EINVAL);
    CHECK_EQ(bop_kv_cause(), EINVAL);
    CHECK_EQ(bop_kv_renew(txn), 0);
    CHECK_EQ(bop_kv_txn_lag(txn), 0);
    CHECK_EQ(bop_kv_cursor_renew(cursor, txn), 0);
    CHECK_EQ(bop_kv_cursor_seek(cursor, BOP_KV_FIRST, bytes(""), &key, &value), 0);
    CHECK_SLICE_EQ(value, bytes("v"));
    bop_kv_cursor_close(cursor);
    CHECK_EQ(bop_kv_reset(txn), 0);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* An inner transaction is dropped or kept without the outer one, tables as well. */
TEST(kv_nested, commits_into_its_parent)
{
    struct bop_kv *kv = open_nested(f);
    struct bop_kv_table table = make_table(kv, "t"), made, lost;
    struct bop_kv_txn *outer = begin(kv, true), *inner = NULL;
    struct bop_kv_begin how = {.write = true, .parent = outer};

    CHECK_EQ(bop_kv_put(outer, table, bytes("a"), bytes("1")), 0);
    REQUIRE_EQ(bop_kv_begin_with(kv, &how, &inner), 0);
    CHECK_EQ(bop_kv_put(outer, table, bytes("x"), bytes("y")), BOP_EBUSY);
    CHECK_EQ(bop_kv_put(inner, table, bytes("a"), bytes("2")), 0);
    CHECK_EQ(bop_kv_table_open(inner, "lost", true, &lost), 0);
    bop_kv_abort(inner);
    CHECK(has(outer, table, "a", "1"));
    CHECK_EQ(bop_kv_table_open(outer, "lost", false, &lost), BOP_ENOTFOUND);
    REQUIRE_EQ(bop_kv_begin_with(kv, &how, &inner), 0);
    CHECK_EQ(bop_kv_table_open(inner, "made", true, &made), 0);
    CHECK_EQ(bop_kv_put(inner, made, bytes("b"), bytes("3")), 0);
    CHECK_EQ(bop_kv_commit(inner), 0);
    CHECK(has(outer, made, "b", "3"));
    CHECK_EQ(bop_kv_commit(outer), 0);
    bop_kv_close(kv);

    kv = open_store(f);
    outer = begin(kv, false);
    CHECK_EQ(bop_kv_table_open(outer, "made", false, &made), 0);
    CHECK(has(outer, made, "b", "3"));
    bop_kv_abort(outer);
    bop_kv_close(kv);
}

/* Integers of another size than the first would make LMDB read past them. */
TEST(kv_kinds, refuse_keys_and_values_of_another_size)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_kv_table table;
    struct bop_slice value;
    uint64_t wide = 7;
    uint32_t narrow = 7;
    unsigned flags = BOP_KV_INTEGER_KEY | BOP_KV_DUP_SORT | BOP_KV_DUP_FIXED;

    CHECK_EQ(bop_kv_table_open_with(txn, "t", BOP_KV_CREATE | BOP_KV_DUP_FIXED, &table),
             BOP_EINVAL);
    CHECK_EQ(bop_kv_table_open_with(txn, "t", BOP_KV_CREATE | flags, &table), 0);
    CHECK_EQ(bop_kv_put(txn, table, bytes("abc"), bytes("v")), BOP_EINVAL);
    CHECK_EQ(bop_kv_put(txn, table, bop_slice(&wide, 8), bytes("12345")), 0);
    CHECK_EQ(bop_kv_put(txn, table, bop_slice(&narrow, 4), bytes("12345")), BOP_EINVAL);
    CHECK_EQ(bop_kv_put(txn, table, bop_slice(&wide, 8), bytes("1234")), BOP_EINVAL);
    CHECK_EQ(bop_kv_get(txn, table, bop_slice(&narrow, 4), &value), BOP_EINVAL);
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
    kv = open_store(f); /* Known again after a reopen. */
    txn = begin(kv, true);
    CHECK_EQ(bop_kv_table_open_with(txn, "t", BOP_KV_DUP_SORT, &table), BOP_EWRONGKIND);
    CHECK_EQ(bop_kv_table_open_with(txn, "t", flags, &table), 0);
    CHECK_EQ(bop_kv_get(txn, table, bop_slice(&narrow, 4), &value), BOP_EINVAL);
    CHECK_EQ(bop_kv_get(txn, table, bop_slice(&wide, 8), &value), 0);
    CHECK_SLICE_EQ(value, bytes("12345"));
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

TEST(kv_put, knows_what_is_there)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_slice key, value;
    struct bop_buf old;
    void *place;
    bool found, exact;

    bop_buf_init(&old, &f->heap.allocator, 4);
    CHECK_EQ(bop_kv_put_with(txn, table, bytes("b"), bytes("1"), BOP_KV_NO_OVERWRITE, NULL), 0);
    CHECK_EQ(bop_kv_put_with(txn, table, bytes("b"), bytes("2"), BOP_KV_NO_OVERWRITE, &value),
             BOP_EEXISTS);
    CHECK_SLICE_EQ(value, bytes("1"));
    CHECK_EQ(bop_kv_replace(txn, table, bytes("b"), bytes("large"), &old, &found), 0);
    CHECK(found);
    CHECK_SLICE_EQ(bop_buf_slice(&old), bytes("1"));
    CHECK_EQ(bop_kv_replace(txn, table, bytes("b"), bytes("x"), &old, &found), BOP_EFULL);
    CHECK(has(txn, table, "b", "large"));
    CHECK_EQ(bop_kv_replace(txn, table, bytes("c"), bytes("x"), &old, &found), 0);
    CHECK(!found);
    CHECK_EQ(bop_kv_reserve(txn, table, bytes("d"), 3, &place), 0);
    memcpy(place, "abc", 3);
    CHECK(has(txn, table, "d", "abc"));
    CHECK_EQ(bop_kv_get_at_or_after(txn, table, bytes("bb"), &key, &value, &exact), 0);
    CHECK(!exact);
    CHECK_SLICE_EQ(key, bytes("c"));
    CHECK_EQ(bop_kv_get_at_or_after(txn, table, bytes("e"), &key, &value, &exact), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_del_pair(txn, table, bytes("b"), bytes("x")), BOP_EINVAL);
    bop_buf_deinit(&old);
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

static int stop_at(void *context, struct bop_slice key, struct bop_slice value)
{
    int *left = context;

    return --*left == 0 ? 4711 : 0;
}

/* Whatever the callback answers comes back, whether it stops at the first entry or late. */
TEST(kv_scan, returns_the_callbacks_own_result)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);

    for (uint8_t i = 1; i <= 100; i++) {
        CHECK_EQ(bop_kv_put(txn, table, bop_slice(&i, 1), bytes("v")), 0);
    }
    for (int stop = 1; stop <= 102; stop++) {
        int left = stop;
        int rc = bop_kv_scan(txn, table, BOP_KV_FIRST, bytes(""), BOP_KV_NEXT, stop_at, &left);

        CHECK_EQ(rc, stop <= 100 ? 4711 : 0);
        CHECK_EQ(left, stop <= 100 ? 0 : stop - 100);
    }
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

static int collect_sequence(void *context, const char *name, uint64_t number)
{
    char *text = context;

    snprintf(text + strlen(text), 64 - strlen(text), "%s=%" PRIu64 " ", name, number);
    return number == 99 ? 42 : 0;
}

TEST(kv_state, lists_sequences)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_kv_canary canary = {.x = 1};
    char text[64] = "";
    uint64_t before;

    CHECK_EQ(bop_kv_sequences(txn, collect_sequence, text), 0);
    CHECK_STR_EQ(text, "");
    CHECK_EQ(bop_kv_sequence(txn, "b", 7, &before), 0);
    CHECK_EQ(bop_kv_sequence(txn, "a", 3, &before), 0);
    CHECK_EQ(bop_kv_canary_set(txn, &canary), 0);
    CHECK_EQ(bop_kv_sequences(txn, collect_sequence, text), 0);
    CHECK_STR_EQ(text, "a=3 b=7 ");
    CHECK_EQ(bop_kv_sequence(txn, "aa", 99, &before), 0);
    text[0] = '\0';
    CHECK_EQ(bop_kv_sequences(txn, collect_sequence, text), 42);
    CHECK_STR_EQ(text, "a=3 aa=99 ");
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

TEST(kv_state, keeps_sequences_and_the_canary)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_kv_canary canary = {.x = 1, .y = 2, .z = 3}, got;
    struct bop_kv_table table;
    uint64_t before;

    CHECK_EQ(bop_kv_canary_get(txn, &got), 0);
    CHECK_EQ(got.version, 0);
    CHECK_EQ(bop_kv_sequence(txn, "s", 5, &before), 0);
    CHECK_EQ(before, 0);
    CHECK_EQ(bop_kv_sequence(txn, "s", UINT64_MAX - 4, &before), BOP_EOVERFLOW);
    CHECK_EQ(bop_kv_canary_set(txn, &canary), 0);
    CHECK_EQ(bop_kv_table_open(txn, ".bop.state", false, &table), BOP_EINVAL);
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);

    kv = open_store(f);
    txn = begin(kv, false);
    CHECK_EQ(bop_kv_sequence(txn, "s", 0, &before), 0);
    CHECK_EQ(before, 5);
    CHECK_EQ(bop_kv_sequence(txn, "s", 1, &before), BOP_EINVAL);
    CHECK_EQ(bop_kv_canary_get(txn, &got), 0);
    CHECK_EQ(got.z, 3);
    CHECK_EQ(got.version, bop_kv_txn_id(txn));
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

static int count_name(void *context, const char *name, struct bop_kv_table table)
{
    ++*(int *)context;
    return 0;
}

static int count_tables(struct bop_kv_txn *txn)
{
    int count = 0;

    CHECK_EQ(bop_kv_tables(txn, count_name, &count), 0);
    return count;
}

/* A drop is undone by an abort, and its name is free after the commit. */
TEST(kv_drop, removes_with_the_commit)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table a = make_table(kv, "a"), b = make_table(kv, "b");
    struct bop_kv_txn *txn;

    put_one(kv, a, "k", "v");
    txn = begin(kv, true);
    CHECK_EQ(bop_kv_table_drop(txn, a), 0);
    CHECK_EQ(count_tables(txn), 1);
    bop_kv_abort(txn);
    txn = begin(kv, true);
    CHECK(has(txn, a, "k", "v"));
    CHECK_EQ(bop_kv_table_drop(txn, a), 0);
    CHECK_EQ(bop_kv_table_open(txn, "a", false, &b), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_commit(txn), 0);
    txn = begin(kv, true);
    CHECK_EQ(count_tables(txn), 1);
    CHECK_EQ(bop_kv_table_open_with(txn, "a", BOP_KV_CREATE | BOP_KV_DUP_SORT, &a), 0);
    CHECK_EQ(bop_kv_put(txn, a, bytes("k"), bytes("1")), 0);
    CHECK_EQ(bop_kv_put(txn, a, bytes("k"), bytes("2")), 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

/* What a nested transaction does, as far as memory lasts. */
static int use_nested(struct bop_kv *kv, struct bop_kv_table table)
{
    struct bop_kv_txn *outer = begin(kv, true), *inner = NULL;
    struct bop_kv_begin how = {.write = true, .parent = outer};
    struct bop_kv_range range = {.to = bytes("b")};
    uint64_t count = 0;
    int rc = bop_kv_begin_with(kv, &how, &inner);

    if (inner) {
        CHECK_EQ(bop_kv_put(inner, table, bytes("a"), bytes("v")), 0);
        rc = bop_kv_range_del(inner, table, &range, 10, &count);
        CHECK_EQ(count, rc == 0);
        CHECK_EQ(bop_kv_commit(inner), 0);
    }
    CHECK_EQ(bop_kv_commit(outer), 0);
    return rc;
}

/* Each allocation fails once in turn: the caller gets the error, and the store goes on. */
TEST(kv_nested, survives_each_fault_of_memory)
{
    struct bop_kv *kv = open_nested(f);
    struct bop_kv_table table = make_table(kv, "t");

    FAULT_SWEEP(&f->faults) {
        int rc = use_nested(kv, table);

        CHECK_EQ(rc, f->faults.fired);
    }
    CHECK_EQ(f->faults.at, 2); /* A transaction and a cursor. */
    put_one(kv, table, "k", "v");
    bop_kv_close(kv);
}
