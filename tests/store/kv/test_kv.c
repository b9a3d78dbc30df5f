/* Opening, closing, removing; what comes back after a reopen; faults of memory. */
#include <fcntl.h>
#include <sys/stat.h>

#include "kv_test.h"

FIXTURE(setup, teardown)

/* What was committed is there after a close and an open, tables and entries. */
TEST(kv_open, keeps_committed_data)
{
    struct bop_kv_table a, b;
    struct bop_kv_txn *txn;
    struct bop_kv *kv;

    kv = open_store(f);
    a = make_table(kv, "a");
    b = make_table(kv, "b");
    put_one(kv, a, "k", "in a");
    put_one(kv, b, "k", "in b");
    CHECK_EQ(bop_kv_sync(kv, NULL), 0);
    bop_kv_close(kv);

    kv = open_store(f);
    txn = begin(kv, false);
    CHECK_EQ(bop_kv_table_open(txn, "a", false, &a), 0);
    CHECK_EQ(bop_kv_table_open(txn, "b", false, &b), 0);
    CHECK(has(txn, a, "k", "in a"));
    CHECK(has(txn, b, "k", "in b"));
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

/* With synced commits as well. */
TEST(kv_open, keeps_data_with_synced_commits)
{
    struct bop_kv_options options = {.sync_commits = true, .grow_step_bytes = 1 << 20};
    struct bop_kv_table a;
    struct bop_kv_txn *txn;
    struct bop_kv *kv = NULL;

    options.path = f->path;
    options.allocator = &f->heap.allocator;
    CHECK_EQ(bop_kv_open(&options, &kv, NULL), 0);
    a = make_table(kv, "a");
    put_one(kv, a, "k", "v");
    bop_kv_close(kv);
    kv = open_store(f);
    txn = begin(kv, false);
    CHECK(has(txn, a, "k", "v"));
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* The default bound of 64 GiB is address space: the files take a few steps of disk. */
TEST(kv_open, takes_little_disk)
{
    struct bop_kv_options options = {.grow_step_bytes = 256 << 10};
    struct bop_kv_stats stats;
    struct stat file;
    struct bop_kv *kv = NULL;
    char path[700];

    options.path = f->path;
    options.allocator = &f->heap.allocator;
    CHECK_EQ(bop_kv_open(&options, &kv, NULL), 0);
    bop_kv_stats(kv, &stats);
    CHECK_EQ(stats.map_bytes, UINT64_C(64) << 30);
    CHECK(stats.used_bytes <= stats.reserved_bytes);
    CHECK_EQ(stats.readers, 0);
    snprintf(path, sizeof(path), "%s/data.mdb", f->path);
    CHECK_EQ(stat(path, &file), 0);
    CHECK(file.st_blocks * 512 < 4 << 20);
    bop_kv_close(kv);
}

/* LMDB would survive neither a second open in this process nor two writers of the lock file. */
TEST(kv_open, refuses_a_second_open)
{
    struct bop_kv_options options = {0};
    struct bop_kv *kv, *second = NULL;
    struct bop_error err = {0};

    kv = open_store(f);
    options.path = f->path;
    options.allocator = &f->heap.allocator;
    CHECK_EQ(bop_kv_open(&options, &second, &err), BOP_ELOCKED);
    CHECK(!second);
    CHECK_STR_HAS(err.message, f->path);
    CHECK_EQ(bop_kv_remove(f->path, NULL), BOP_ELOCKED);
    bop_kv_close(kv);
}

TEST(kv_open, refuses_bad_options)
{
    struct bop_kv *kv = NULL;

    CHECK_EQ(bop_kv_open(&(struct bop_kv_options){0}, &kv, NULL), BOP_EINVAL);
    CHECK_EQ(bop_kv_open(&(struct bop_kv_options){.path = ""}, &kv, NULL), BOP_EINVAL);
    CHECK_EQ(
        bop_kv_open(&(struct bop_kv_options){.path = "/x", .bytes_max = UINT64_MAX}, &kv, NULL),
        BOP_EINVAL);
    CHECK_EQ(bop_kv_open(&(struct bop_kv_options){.path = "/x", .tables_max = 1u << 20}, &kv, NULL),
             BOP_EINVAL);
    CHECK(!kv);
}

/* A directory is made, but not its parents: a mistyped path is an error. */
TEST(kv_open, names_a_missing_parent)
{
    struct bop_kv *kv = NULL;
    struct bop_error err = {0};

    CHECK_EQ(bop_kv_open(&(struct bop_kv_options){.path = "/nonexistent/x/y"}, &kv, &err), -ENOENT);
    CHECK_STR_HAS(err.message, "/nonexistent/x/y");
}

static void overwrite(struct fixture *f, const void *bytes, size_t size, off_t offset)
{
    char path[700];
    int fd;

    snprintf(path, sizeof(path), "%s/data.mdb", f->path);
    fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    CHECK_EQ(pwrite(fd, bytes, size, offset), (ssize_t)size);
    close(fd);
}

/* A file that is not LMDB's, or of another version of it, is told apart. */
TEST(kv_open, tells_corrupt_from_strange_version)
{
    static const uint8_t zeros[8192];
    const uint32_t version = 99;
    struct bop_kv_options options = {0};
    struct bop_kv *kv = NULL;

    options.path = f->path;
    options.allocator = &f->heap.allocator;
    bop_kv_close(open_store(f));
    /* Page head 16 bytes, then magic, then version. */
    overwrite(f, &version, sizeof(version), 20);
    CHECK_EQ(bop_kv_open(&options, &kv, NULL), BOP_EVERSION);
    overwrite(f, zeros, sizeof(zeros), 0);
    CHECK_EQ(bop_kv_open(&options, &kv, NULL), BOP_ECORRUPT);
    CHECK(!kv);
}

/* More tables in the file than handles asked for. */
TEST(kv_open, refuses_too_few_handles)
{
    struct bop_kv_options options = {.tables_max = 1};
    struct bop_error err = {0};
    struct bop_kv *kv;

    kv = open_store(f);
    make_table(kv, "a");
    make_table(kv, "b");
    bop_kv_close(kv);
    options.path = f->path;
    options.allocator = &f->heap.allocator;
    CHECK_EQ(bop_kv_open(&options, &kv, &err), BOP_EFULL);
    CHECK_STR_HAS(err.message, "tables_max");
}

/* Removing what is not there is no failure, and what is removed is gone. */
TEST(kv_remove, removes_or_finds_nothing)
{
    struct bop_kv_table table;
    struct bop_kv_txn *txn;
    struct bop_kv *kv;

    CHECK_EQ(bop_kv_remove(f->path, NULL), 0);
    kv = open_store(f);
    make_table(kv, "a");
    bop_kv_close(kv);
    CHECK_EQ(bop_kv_remove(f->path, NULL), 0);
    CHECK_EQ(bop_kv_remove(f->path, NULL), 0);
    kv = open_store(f);
    txn = begin(kv, false);
    CHECK_EQ(bop_kv_table_open(txn, "a", false, &table), BOP_ENOTFOUND);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

TEST(kv_stats, counts_readers_and_transactions)
{
    struct bop_kv_stats before, after;
    struct bop_kv_txn *a, *b;
    struct bop_kv *kv;

    kv = open_store(f);
    bop_kv_stats(kv, &before);
    make_table(kv, "a");
    a = begin(kv, false);
    b = begin(kv, false);
    bop_kv_stats(kv, &after);
    CHECK_EQ(after.readers, 2);
    CHECK_EQ(after.last_txn, before.last_txn + 1);
    CHECK_EQ(bop_kv_commit(a), 0);
    bop_kv_abort(b);
    bop_kv_stats(kv, &after);
    CHECK_EQ(after.readers, 0);
    bop_kv_close(kv);
}

/* Each allocation of ours fails once in turn, in a life of a store: the caller gets that error,
 * nothing leaks, and what was committed before is there. */
TEST(kv, survives_each_fault_of_memory)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv_table table;
    struct bop_kv *kv = open_store(f);

    table = make_table(kv, "t");
    put_one(kv, table, "k", "v");
    bop_kv_close(kv);

    FAULT_SWEEP(&f->faults) {
        struct bop_kv_cursor *cursor = NULL;
        struct bop_kv_txn *txn = NULL;
        struct bop_slice key, value;
        int rc;

        kv = NULL;
        rc = bop_kv_open(&options, &kv, NULL);
        CHECK_EQ(rc == 0, kv != NULL);
        rc = rc ? rc : bop_kv_begin(kv, false, &txn);
        if (txn) {
            CHECK_EQ(bop_kv_table_open(txn, "t", false, &table), 0);
            rc = bop_kv_cursor_open(txn, table, &cursor);
            if (cursor) {
                CHECK_EQ(bop_kv_cursor_seek(cursor, BOP_KV_FIRST, bytes(""), &key, &value), 0);
                CHECK_SLICE_EQ(value, bytes("v"));
            }
            bop_kv_cursor_close(cursor);
            bop_kv_abort(txn);
        }
        txn = NULL;
        rc = rc ? rc : bop_kv_begin(kv, true, &txn);
        if (txn) {
            rc = bop_kv_table_open(txn, "fresh", true, &table);
            /* A table without its name would have no handle: the transaction is lost. */
            CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bytes("v")), rc);
            if (f->faults.fired) {
                CHECK_EQ(bop_kv_commit(txn), rc);
            } else {
                bop_kv_abort(txn);
            }
        }
        CHECK_EQ(rc, f->faults.fired);
        bop_kv_close(kv);
        CHECK_EQ(f->heap.live, 0);
    }
    /* The store, its names, accounts, kinds and path, the name it finds; a reader; a cursor; a new
     * name.
     */
    CHECK_EQ(f->faults.at, 9);
}
