/* Readers, durability, copies, warm-up, removing, and stores opened for reading. */
#include <bop/kv_admin.h>

#include "kv_test.h"

FIXTURE(setup, teardown)

struct seen {
    unsigned calls;
    uint64_t txn, lag;
};

static int see_reader(void *context, const struct bop_kv_reader *reader)
{
    struct seen *seen = context;

    seen->calls++;
    seen->txn = reader->txn;
    seen->lag = reader->lag;
    CHECK_EQ(reader->pid, getpid());
    return 0;
}

static void see_long_reader(void *context, uint64_t txn, uint64_t lag)
{
    struct seen *seen = context;

    seen->calls++;
    seen->txn = txn;
    seen->lag = lag;
}

TEST(kv_readers, are_listed_with_what_they_hold_back)
{
    struct bop_kv_options options = small_options(f);
    struct seen listed = {0}, told = {0};
    struct bop_kv *kv = NULL;
    struct bop_kv_table table;
    struct bop_kv_txn *reader;
    uint64_t pages = 0;
    unsigned dead = 7;

    options.long_reader = see_long_reader;
    options.reader_lag_max = 16;
    options.context = &told;
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    CHECK_PTR_EQ(bop_kv_context(kv), &told);
    table = make_table(kv, "t");
    CHECK_EQ(bop_kv_readers(kv, see_reader, &listed), 0);
    CHECK_EQ(listed.calls, 0);
    reader = begin(kv, false);
    for (int i = 0; i < 16; i++) {
        put_one(kv, table, "k", "v");
    }
    CHECK_EQ(told.calls, 0);
    for (int i = 0; i < 8; i++) {
        put_one(kv, table, "k", "v");
    }
    CHECK(told.calls >= 3 && told.calls <= 5); /* Every second one. */
    CHECK_EQ(told.txn, bop_kv_txn_id(reader));
    CHECK(told.lag > 16);
    CHECK_EQ(bop_kv_readers(kv, see_reader, &listed), 0);
    CHECK_EQ(listed.calls, 1);
    CHECK_EQ(listed.txn, bop_kv_txn_id(reader));
    CHECK_EQ(listed.lag, 24);
    CHECK_EQ(bop_kv_retained(kv, &pages), 0);
    CHECK(pages > 24);
    CHECK_EQ(bop_kv_readers_check(kv, &dead), 0);
    CHECK_EQ(dead, 0);
    bop_kv_abort(reader);
    bop_kv_close(kv);
}

TEST(kv_sync, is_due_by_bytes_and_by_time)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv_info info;
    struct bop_kv *kv = NULL;
    struct bop_kv_table table;

    options.sync_bytes = 1000;
    options.sync_period_ms = 50;
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    CHECK(!bop_kv_sync_due(kv, 5));
    table = make_table(kv, "t");
    CHECK(!bop_kv_sync_due(kv, 10));
    CHECK(!bop_kv_sync_due(kv, 59));
    CHECK(bop_kv_sync_due(kv, 60));
    CHECK_EQ(bop_kv_sync(kv, NULL), 0);
    CHECK(!bop_kv_sync_due(kv, 1000));
    for (int i = 0; i < 100; i++) { /* 10 bytes each, and LMDB's head. */
        put_one(kv, table, "12345", "12345");
    }
    CHECK(bop_kv_sync_due(kv, 1000));
    CHECK_EQ(bop_kv_set_durability(kv, BOP_KV_SURVIVES_SYSTEM, NULL), 0);
    CHECK(!bop_kv_sync_due(kv, 1000));
    put_one(kv, table, "12345", "12345");
    bop_kv_info(kv, &info);
    CHECK_EQ(info.unsynced_commits, 0);
    CHECK_EQ(info.durability, BOP_KV_SURVIVES_SYSTEM);
    CHECK_EQ(info.tables, 1);
    CHECK_STR_EQ(info.path, f->path);
    CHECK_EQ(bop_kv_set_durability(kv, BOP_KV_SURVIVES_SYSTEM_BUT_LAST, NULL), 0);
    put_one(kv, table, "k", "v");
    bop_kv_info(kv, &info);
    CHECK_EQ(info.unsynced_commits, 1);
    bop_kv_close(kv);
}

static struct bop_kv *open_read_only(struct fixture *f, const char *path)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv *kv = NULL;

    options.path = path;
    options.read_only = true;
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    return kv;
}

static void check_copy(struct fixture *f, const char *path)
{
    struct bop_kv_check_result result;
    struct bop_kv *kv = open_read_only(f, path);
    struct bop_kv_txn *txn = begin(kv, false);
    struct bop_kv_table table;

    CHECK_EQ(bop_kv_table_open(txn, "t", false, &table), 0);
    CHECK(has(txn, table, "k", "v"));
    bop_kv_abort(txn);
    bop_kv_close(kv);
    CHECK_EQ(bop_kv_check_path(path, NULL, &result, NULL), 0);
    CHECK_EQ(bop_kv_remove(path, NULL), 0);
}

TEST(kv_copy, is_a_store_with_the_same_content)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    const char *path = test_path(NULL, "copy");

    put_one(kv, table, "k", "v");
    for (int compact = 0; compact < 2; compact++) {
        CHECK_EQ(bop_kv_copy(kv, path, compact, NULL), 0);
        CHECK_EQ(bop_kv_copy(kv, path, compact, NULL), BOP_EEXISTS);
        check_copy(f, path);
    }
    bop_kv_close(kv);
}

struct sink {
    uint64_t bytes;
    uint64_t stop_after; /* 0: never. */
};

static int take(void *context, struct bop_slice bytes_)
{
    struct sink *sink = context;

    sink->bytes += bytes_.size;
    return sink->stop_after && sink->bytes > sink->stop_after ? 4711 : 0;
}

TEST(kv_copy, streams_until_the_callback_stops)
{
    static uint8_t filler[1 << 20];
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);

    CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bop_slice(filler, sizeof(filler))), 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
    for (int compact = 0; compact < 2; compact++) {
        struct sink whole = {0}, part = {.stop_after = 1};

        CHECK_EQ(bop_kv_copy_stream(kv, compact, take, &whole, NULL), 0);
        CHECK(whole.bytes > sizeof(filler));
        CHECK_EQ(bop_kv_copy_stream(kv, compact, take, &part, NULL), 4711);
        CHECK(part.bytes < whole.bytes);
    }
    bop_kv_close(kv);
}

TEST(kv_read_only, shares_with_readers_and_not_with_a_writer)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv *kv = open_store(f), *second = NULL;
    struct bop_kv_txn *txn;

    put_one(kv, make_table(kv, "t"), "k", "v");
    options.read_only = true;
    CHECK_EQ(bop_kv_open(&options, &second, NULL), BOP_ELOCKED);
    bop_kv_close(kv);
    kv = open_read_only(f, f->path);
    second = open_read_only(f, f->path);
    CHECK_EQ(bop_kv_begin(kv, true, &txn), BOP_EINVAL);
    CHECK_STR_HAS(bop_kv_cause_text(), "reading");
    CHECK(bop_kv_sync(kv, NULL) < 0);
    options.read_only = false;
    CHECK_EQ(bop_kv_open(&options, &(struct bop_kv *){NULL}, NULL), BOP_ELOCKED);
    bop_kv_close(second);
    bop_kv_close(kv);
}

TEST(kv_warmup, reads_and_locks)
{
    struct bop_kv *kv = open_store(f);
    struct bop_clock *clock = bop_clock_system();
    int rc;

    put_one(kv, make_table(kv, "t"), "k", "v");
    CHECK_EQ(bop_kv_warmup(kv, BOP_KV_WARMUP_HINT, NULL, 0, NULL), 0);
    CHECK_EQ(bop_kv_warmup(kv, BOP_KV_WARMUP_READ, clock, 60000, NULL), 0);
    rc = bop_kv_warmup(kv, BOP_KV_WARMUP_LOCK, NULL, 0, NULL);
    CHECK(rc == 0 || rc == BOP_ENOMEM || rc == -EPERM || rc == -EAGAIN); /* The limit may be 0. */
    CHECK_EQ(bop_kv_warmup(kv, BOP_KV_WARMUP_RELEASE, NULL, 0, NULL), 0);
    bop_kv_close(kv);
}

TEST(kv_remove, has_modes)
{
    struct bop_kv *kv = open_store(f);

    put_one(kv, make_table(kv, "t"), "k", "v");
    CHECK_EQ(bop_kv_remove_with(f->path, BOP_KV_REMOVE_UNUSED, NULL), BOP_ELOCKED);
    CHECK_EQ(bop_kv_remove_with(f->path, BOP_KV_REMOVE_ANYHOW, NULL), 0);
    bop_kv_close(kv);
    CHECK_EQ(bop_kv_remove_with(f->path, BOP_KV_REMOVE_WAIT, NULL), 0);
}
