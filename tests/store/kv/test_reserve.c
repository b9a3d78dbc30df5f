/*
 * Room: growing, the bound, a full disk, and whether a transaction's account is
 * the upper bound it claims to be.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include <bop/random.h>

#include "../../../src/store/kv/kv.h"
#include "kv_test.h"
#include "state.h"

FIXTURE(setup, teardown)

static uint8_t filler[1 << 20];

/* Many small steps, one after the other. */
TEST(kv_growth, goes_on_through_many_steps)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_stats first, stats;
    struct bop_kv_txn *txn;
    uint64_t count;

    bop_kv_stats(kv, &first);
    for (uint32_t i = 0; i < 4000; i++) {
        txn = begin(kv, true);
        CHECK_EQ(bop_kv_put(txn, table, bop_slice(&i, 4), bop_slice(filler, 4000)), 0);
        CHECK_EQ(bop_kv_commit(txn), 0);
        bop_kv_stats(kv, &stats);
        REQUIRE(stats.used_bytes <= stats.reserved_bytes);
        /* Two steps and the commit's allowance ahead at most, to the end of a folio. */
        REQUIRE(stats.reserved_bytes <= stats.used_bytes + stats.used_bytes / 64 + (3 << 20));
        REQUIRE_EQ(stats.reserved_bytes % (2 << 20), 0);
    }
    CHECK(stats.used_bytes > 8000 * UINT64_C(4096) / 2);
    CHECK(stats.reserved_bytes > first.reserved_bytes + 20 * (256 << 10));
    bop_kv_close(kv);

    kv = open_store(f);
    txn = begin(kv, false);
    CHECK_EQ(bop_kv_table_open(txn, "t", false, &table), 0);
    CHECK_EQ(bop_kv_table_count(txn, table, &count), 0);
    CHECK_EQ(count, 4000);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* One transaction far above the step. */
TEST(kv_growth, serves_a_transaction_of_many_steps)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_kv_stats stats;

    for (uint32_t i = 0; i < 100000; i++) {
        REQUIRE_EQ(bop_kv_put(txn, table, bop_slice(&i, 4), bop_slice(filler, 100)), 0);
    }
    for (uint32_t i = 200000; i < 200020; i++) {
        REQUIRE_EQ(bop_kv_put(txn, table, bop_slice(&i, 4), bop_slice(filler, 1 << 20)), 0);
    }
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_stats(kv, &stats);
    CHECK(stats.used_bytes <= stats.reserved_bytes);
    /* The account was counted anew: not 4 pages for each of the small puts. */
    CHECK(stats.reserved_bytes < UINT64_C(100) << 20);
    bop_kv_close(kv);
}

/* At the bound of the map: refused, and what was committed is there. */
TEST(kv_bound, refuses_above_bytes_max)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv *kv = NULL;
    struct bop_kv_table table;
    struct bop_kv_txn *txn;
    struct bop_slice value;
    uint32_t i;
    int rc = 0;

    options.bytes_max = 4 << 20;
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    table = make_table(kv, "t");
    for (i = 0; i < 10000 && rc == 0; i++) {
        txn = begin(kv, true);
        rc = bop_kv_put(txn, table, bop_slice(&i, 4), bop_slice(filler, 3000));
        if (rc == 0) {
            rc = bop_kv_commit(txn);
        } else {
            CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bytes("v")), rc);
            CHECK_EQ(bop_kv_commit(txn), rc);
        }
    }
    CHECK_EQ(rc, BOP_ENOROOM);
    CHECK(i > 900 && i < 1100); /* A page each, of 1024. */
    txn = begin(kv, false);
    for (uint32_t k = 0; k < i - 1; k++) {
        CHECK_EQ(bop_kv_get(txn, table, bop_slice(&k, 4), &value), 0);
    }
    bop_kv_abort(txn);
    bop_kv_close(kv);

    /* The way out: a larger bound. */
    options.bytes_max = 8 << 20;
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    txn = begin(kv, true);
    CHECK_EQ(bop_kv_table_open(txn, "t", false, &table), 0);
    CHECK_EQ(bop_kv_put(txn, table, bop_slice(&i, 4), bop_slice(filler, 3000)), 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

/* A bound below what is in use is raised to it: nothing is cut off. */
TEST(kv_bound, is_never_below_what_is_used)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table = make_table(kv, "t");
    struct bop_kv_txn *txn = begin(kv, true);
    struct bop_slice value;

    for (uint32_t i = 0; i < 4; i++) {
        CHECK_EQ(bop_kv_put(txn, table, bop_slice(&i, 4), bop_slice(filler, 1 << 20)), 0);
    }
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
    options.bytes_max = 1 << 20;
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    txn = begin(kv, false);
    CHECK_EQ(bop_kv_table_open(txn, "t", false, &table), 0);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_EQ(bop_kv_get(txn, table, bop_slice(&i, 4), &value), 0);
        CHECK_SLICE_EQ(value, bop_slice(filler, 1 << 20));
    }
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* ---- The account ---- */

struct load {
    const char *name;
    unsigned keys;        /* Drawn from that many. */
    unsigned key_bytes;   /* 4 or more. */
    unsigned value_bytes; /* At most. */
    unsigned changes;     /* At most, in a transaction. */
    unsigned deletes;     /* Of 100 changes. */
    bool wide;            /* Values grow and shrink in place. */
};

static const struct load loads[] = {
    {"single puts", 20000, 16, 100, 1, 0, false},
    {"batches", 20000, 16, 100, 64, 20, false},
    {"large batches", 5000, 16, 100, 3000, 40, true},
    {"long keys", 3000, 511, 20, 500, 30, false},
    {"values around half a page", 2000, 30, 2500, 200, 30, true},
    {"big values", 60, 8, 60000, 20, 40, true},
    {"mostly deletes", 4000, 100, 300, 1000, 70, true},
};

static int change(struct bop_kv_txn *txn, struct bop_kv_table table, const struct load *load,
                  struct bop_random *random)
{
    uint8_t key[BOP_KV_KEY_MAX] = {0};
    uint64_t number = bop_random_below(random, load->keys);
    size_t size = load->value_bytes;
    int rc;

    /* Spread: neighbours in number are far apart in the tree. */
    bop_store_u32(key, (uint32_t)(number * 2654435761u));
    bop_store_u32(key + load->key_bytes - 4, (uint32_t)number);
    if (bop_random_chance(random, load->deletes, 100)) {
        rc = bop_kv_del(txn, table, bop_slice(key, load->key_bytes));
        return rc == BOP_ENOTFOUND ? 0 : rc;
    }
    if (load->wide) {
        size = (size_t)bop_random_below(random, size + 1);
    }
    return bop_kv_put(txn, table, bop_slice(key, load->key_bytes), bop_slice(filler, size));
}

/* After each commit, the pages taken are no more than what the account had charged and allowed. */
static void check_account(struct fixture *f, const struct load *load, uint64_t seed)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table tables[2] = {make_table(kv, "a"), make_table(kv, "b")};
    struct bop_kv_txn *reader = NULL;
    struct bop_random random;
    unsigned left = 20000;

    bop_random_seed(&random, seed);
    for (unsigned round = 0; left > 0 && round < 3000; round++) {
        unsigned changes = 1 + (unsigned)bop_random_below(&random, load->changes);
        struct bop_kv_txn *txn = begin(kv, true);
        uint64_t before = kv->account.used_bytes, pages, taken;

        for (unsigned i = 0; i < changes; i++) {
            REQUIRE_EQ(change(txn, tables[bop_random_below(&random, 2)], load, &random), 0);
        }
        if (bop_random_chance(&random, 1, 100)) {
            CHECK_EQ(bop_kv_table_clear(txn, tables[bop_random_below(&random, 2)]), 0);
        }
        CHECK_EQ(bop_kv_commit(txn), 0);
        pages = kv->account.charged_pages;
        CHECK(pages <= kv->account.granted_pages);
        pages += pages / 128 + kv->account.allowance_pages;
        taken = (bop__kv_used(kv) - before) / kv->page_bytes;
        if (taken > pages) {
            test_note("%s: %" PRIu64 " pages taken, %" PRIu64 " accounted", load->name, taken,
                      pages);
        }
        REQUIRE(taken <= pages);
        REQUIRE(bop__kv_used(kv) <= kv->reserved_bytes);
        /* A reader now and then keeps freed pages from being taken again. */
        if (bop_random_chance(&random, 1, 20)) {
            bop_kv_abort(reader);
            reader = bop_random_chance(&random, 1, 2) ? begin(kv, false) : NULL;
        }
        left -= changes < left ? changes : left;
    }
    bop_kv_abort(reader);
    bop_kv_close(kv);
    CHECK_EQ(bop_kv_remove(f->path, NULL), 0);
}

TEST(kv_account, bounds_the_pages_taken)
{
    for (size_t i = 0; i < BOP_COUNT_OF(loads); i++) {
        check_account(f, &loads[i], 1000 + i);
    }
}

/* ---- A full disk ---- */

enum { SKIPPED = 77 };

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);

    if (fd >= 0) {
        BOP_IGNORE(write(fd, text, strlen(text))); /* Without it the mount fails, and is told. */
        close(fd);
    }
}

/* Mount a file system that only this process and its children see. */
static bool mount_small(const char *path, const char *type, const char *options)
{
    char map[64];
    unsigned user = (unsigned)getuid();

    if (unshare(CLONE_NEWNS) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
            return false;
        }
        write_text("/proc/self/setgroups", "deny");
        snprintf(map, sizeof(map), "0 %u 1", user);
        write_text("/proc/self/uid_map", map);
    }
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", path, type, 0, options) == 0;
}

static void make_file(const char *path, uint64_t size)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(size ? posix_fallocate(fd, 0, (off_t)size) : 0, 0);
    close(fd);
}

/* Fill up the disk but for some bytes. */
static void fill_disk(const char *path, uint64_t but)
{
    struct statvfs disk;
    uint64_t free_bytes;

    make_file(path, 0);
    REQUIRE_EQ(statvfs(path, &disk), 0);
    free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    make_file(path, free_bytes - bop_min_u64(free_bytes, but));
}

/* Put until refused; returns how many puts were committed. */
static uint32_t put_until_refused(struct bop_kv *kv, struct bop_kv_table table, uint32_t from)
{
    for (uint32_t i = from; i < 100000; i++) {
        struct bop_kv_txn *txn;
        int rc = bop_kv_begin(kv, true, &txn);

        if (rc == 0) {
            rc = bop_kv_put(txn, table, bop_slice(&i, 4), bop_slice(filler, 3000));
            if (rc == 0) {
                rc = bop_kv_commit(txn);
            } else {
                bop_kv_abort(txn);
            }
        }
        if (rc != 0) {
            CHECK_EQ(rc, BOP_ENOROOM);
            return i;
        }
    }
    CHECK(!"a full disk refuses");
    return from;
}

static void check_entries(struct bop_kv *kv, struct bop_kv_table table, uint32_t count)
{
    struct bop_kv_txn *txn = begin(kv, false);
    struct bop_slice value;

    for (uint32_t i = 0; i < count; i++) {
        REQUIRE_EQ(bop_kv_get(txn, table, bop_slice(&i, 4), &value), 0);
        CHECK_SLICE_EQ(value, bop_slice(filler, 3000));
    }
    bop_kv_abort(txn);
}

static void use_full_disk(struct fixture *f, const char *directory)
{
    struct bop_kv_options options = small_options(f);
    const char *ballast = test_path(directory, "ballast");
    const char *spare = test_path(directory, "spare");
    struct bop_kv *kv = NULL;
    struct bop_kv_table table;
    struct bop_kv_txn *txn;
    uint32_t count, more;

    options.path = test_path(directory, "kv");
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    table = make_table(kv, "t");
    make_file(spare, 4 << 20);
    fill_disk(ballast, 4 << 20);
    count = put_until_refused(kv, table, 0);
    CHECK(count > 100);
    check_entries(kv, table, count);
    CHECK_EQ(put_until_refused(kv, table, count), count); /* Refused again. */

    /* A full disk lets a store be opened and read. */
    bop_kv_close(kv);
    fill_disk(test_path(directory, "more ballast"), 0);
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    check_entries(kv, table, count);
    CHECK_EQ(put_until_refused(kv, table, count), count);

    /* Space is freed: it goes on. */
    CHECK_EQ(unlink(ballast), 0);
    more = put_until_refused(kv, table, count);
    CHECK(more > count + 100);
    check_entries(kv, table, more);

    /* A big transaction is refused in the middle, and leaves nothing. */
    CHECK_EQ(unlink(spare), 0);
    txn = begin(kv, true);
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t key = 1000000 + i;
        int rc = bop_kv_put(txn, table, bop_slice(&key, 4), bop_slice(filler, sizeof(filler)));

        if (rc != 0) {
            CHECK_EQ(rc, BOP_ENOROOM);
            break;
        }
        CHECK(i < 8);
    }
    CHECK_EQ(bop_kv_commit(txn), BOP_ENOROOM);
    check_entries(kv, table, more);
    put_one(kv, table, "k", "v");
    bop_kv_close(kv);

    /* A new store on a full disk is refused in whole. */
    fill_disk(ballast, 0);
    options.path = test_path(directory, "another");
    CHECK_EQ(bop_kv_open(&options, &kv, NULL), BOP_ENOROOM);
    CHECK_EQ(bop_kv_remove(options.path, NULL), 0);
}

/* Data written through a file system that cannot reserve blocks, kept over a reopen. */
static void use_plain_disk(struct fixture *f, const char *directory)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv *kv = NULL;
    struct bop_kv_table table;

    options.path = test_path(directory, "kv");
    options.bytes_max = 8 << 20;
    for (int round = 0; round < 2; round++) {
        REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
        table = make_table(kv, "t");
        if (round == 0) {
            CHECK(put_until_refused(kv, table, 0) > 1500);
        }
        check_entries(kv, table, 1500);
        bop_kv_close(kv);
    }
}

/* In a child, whose mount nobody else sees. */
static void run_on(struct fixture *f, const char *type, const char *options,
                   void (*use)(struct fixture *f, const char *directory))
{
    const char *directory = test_tmpdir();
    int status;
    pid_t child;

    child = fork();
    if (child == 0) {
        if (!mount_small(directory, type, options)) {
            _exit(SKIPPED);
        }
        use(f, directory);
        CHECK_EQ(f->heap.live, 0);
        _exit(test__failures() ? 1 : 0);
    }
    REQUIRE(child > 0);
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
        TEST_SKIP("cannot mount a file system here");
    }
    CHECK_EQ(status, 0);
}

/* Never SIGBUS. */
TEST(kv_disk, refuses_when_full_and_goes_on)
{
    run_on(f, "tmpfs", "size=16m", use_full_disk);
}

/* ramfs knows no fallocate(). */
TEST(kv_disk, need_not_reserve_blocks)
{
    run_on(f, "ramfs", NULL, use_plain_disk);
}

/* Trees of duplicates, whose pages LMDB does not count: by the smallest steps, in one transaction
 * and in many, with duplicates given up again meanwhile. */
TEST(kv_account, holds_for_trees_of_duplicates)
{
    struct bop_kv_options options = small_options(f);
    struct bop_kv *kv = NULL;
    struct bop_kv_table table;
    struct bop_kv_stats stats;
    struct bop_kv_txn *txn;
    struct bop_random random;

    options.grow_step_bytes = 64 << 10;
    bop_random_seed(&random, 5);
    REQUIRE_EQ(bop_kv_open(&options, &kv, NULL), 0);
    txn = begin(kv, true);
    REQUIRE_EQ(bop_kv_table_open_with(txn, "d", BOP_KV_CREATE | BOP_KV_DUP_SORT, &table), 0);
    for (unsigned i = 0; i < 40000; i++) {
        uint64_t words[32] = {bop_random_next(&random)};
        uint64_t key = bop_random_below(&random, 20);
        struct bop_slice value = bop_slice(words, 8 + bop_random_below(&random, 249));

        REQUIRE_EQ(bop_kv_put(txn, table, bop_slice(&key, 8), value), 0);
        if (i % 5000 == 4999) {
            REQUIRE_EQ(bop_kv_del(txn, table, bop_slice(&key, 8)), 0);
        }
        if (i > 20000 && i % 100 == 0) {
            REQUIRE_EQ(bop_kv_commit(txn), 0);
            bop_kv_stats(kv, &stats);
            REQUIRE(stats.used_bytes <= stats.reserved_bytes);
            txn = begin(kv, true);
        }
    }
    CHECK(kv->account.counts_pages);
    REQUIRE_EQ(bop_kv_commit(txn), 0);
    bop_kv_stats(kv, &stats);
    /* Settled by LMDB's count, not by the bound of a change. */
    CHECK(stats.reserved_bytes < 2 * stats.used_bytes);
    bop_kv_close(kv);
}
