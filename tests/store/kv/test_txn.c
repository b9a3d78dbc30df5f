/* Transactions: isolation, refusals, death in the middle, threads. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "kv_test.h"

FIXTURE(setup, teardown)

/* A reader sees the state at its begin, whatever is committed meanwhile. */
TEST(kv_begin, gives_a_snapshot)
{
    struct bop_kv_table table;
    struct bop_kv_txn *before, *writer, *after;
    struct bop_slice value;
    struct bop_kv *kv;

    kv = open_store(f);
    table = make_table(kv, "t");
    put_one(kv, table, "k", "old");

    before = begin(kv, false);
    writer = begin(kv, true);
    CHECK_EQ(bop_kv_put(writer, table, bytes("k"), bytes("new")), 0);
    CHECK_EQ(bop_kv_put(writer, table, bytes("l"), bytes("more")), 0);
    CHECK(has(before, table, "k", "old"));
    CHECK(has(writer, table, "k", "new"));
    CHECK_EQ(bop_kv_commit(writer), 0);
    after = begin(kv, false);
    CHECK(has(before, table, "k", "old"));
    CHECK_EQ(bop_kv_get(before, table, bytes("l"), &value), BOP_ENOTFOUND);
    CHECK(has(after, table, "k", "new"));
    CHECK(has(after, table, "l", "more"));
    bop_kv_abort(before);
    bop_kv_abort(after);

    /* The reader's slot is used again, and must not show its old snapshot. */
    after = begin(kv, false);
    CHECK(has(after, table, "k", "new"));
    bop_kv_abort(after);
    bop_kv_close(kv);
}

/* A snapshot stays whole while its pages are freed and others are taken, for many commits. */
TEST(kv_begin, keeps_a_snapshot_from_reuse)
{
    struct bop_kv_table table;
    struct bop_kv_txn *reader, *writer;
    struct bop_slice got;
    struct bop_kv *kv;

    kv = open_store(f);
    table = make_table(kv, "t");
    writer = begin(kv, true);
    for (uint32_t i = 0; i < 500; i++) {
        CHECK_EQ(bop_kv_put(writer, table, bop_slice(&i, 4), bytes("first")), 0);
    }
    CHECK_EQ(bop_kv_commit(writer), 0);
    reader = begin(kv, false);
    for (uint32_t round = 0; round < 50; round++) {
        writer = begin(kv, true);
        for (uint32_t i = 0; i < 500; i++) {
            CHECK_EQ(bop_kv_put(writer, table, bop_slice(&i, 4), bop_slice(&round, 4)), 0);
        }
        CHECK_EQ(bop_kv_commit(writer), 0);
    }
    for (uint32_t i = 0; i < 500; i++) {
        CHECK_EQ(bop_kv_get(reader, table, bop_slice(&i, 4), &got), 0);
        CHECK(bop_slice_equal(got, bytes("first")));
    }
    bop_kv_abort(reader);
    bop_kv_close(kv);
}

TEST(kv_abort, drops_the_changes)
{
    struct bop_kv_table table, other;
    struct bop_kv_txn *txn;
    struct bop_slice value;
    struct bop_kv *kv;

    kv = open_store(f);
    table = make_table(kv, "t");
    txn = begin(kv, true);
    CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bytes("v")), 0);
    CHECK_EQ(bop_kv_table_open(txn, "other", true, &other), 0);
    bop_kv_abort(txn);
    bop_kv_abort(NULL);

    txn = begin(kv, true);
    CHECK_EQ(bop_kv_get(txn, table, bytes("k"), &value), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_table_open(txn, "other", false, &other), BOP_ENOTFOUND);
    CHECK_EQ(bop_kv_table_open(txn, "other", true, &other), 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
    put_one(kv, other, "k", "v");
    bop_kv_close(kv);
}

/* A handle got in a transaction that is aborted serves on. */
TEST(kv_abort, leaves_handles_of_known_tables)
{
    struct bop_kv_table table;
    struct bop_kv_txn *txn;
    struct bop_kv *kv;

    kv = open_store(f);
    make_table(kv, "t");
    bop_kv_close(kv);
    kv = open_store(f);
    for (int write = 0; write < 2; write++) {
        txn = begin(kv, write != 0);
        CHECK_EQ(bop_kv_table_open(txn, "t", false, &table), 0);
        bop_kv_abort(txn);
        put_one(kv, table, "k", "v");
        txn = begin(kv, false);
        CHECK(has(txn, table, "k", "v"));
        bop_kv_abort(txn);
    }
    bop_kv_close(kv);
}

/* A reader writes nothing, and goes on reading after it was told so. */
TEST(kv_begin, gives_readers_no_write)
{
    struct bop_kv_table table, other;
    struct bop_kv_txn *txn;
    struct bop_kv *kv;

    kv = open_store(f);
    table = make_table(kv, "t");
    put_one(kv, table, "k", "v");
    txn = begin(kv, false);
    CHECK_EQ(bop_kv_put(txn, table, bytes("k"), bytes("w")), BOP_EINVAL);
    CHECK_EQ(bop_kv_del(txn, table, bytes("k")), BOP_EINVAL);
    CHECK_EQ(bop_kv_table_clear(txn, table), BOP_EINVAL);
    CHECK_EQ(bop_kv_table_open(txn, "new", true, &other), BOP_EINVAL);
    CHECK(has(txn, table, "k", "v"));
    CHECK_EQ(bop_kv_commit(txn), 0);
    bop_kv_close(kv);
}

/* The bound on readers is a refusal, and ended ones make room. */
TEST(kv_begin, refuses_too_many_readers)
{
    struct bop_kv_options options = {.readers_max = 40, .grow_step_bytes = 256 << 10};
    struct bop_kv_txn *txns[41];
    struct bop_kv *kv = NULL;

    options.path = f->path;
    options.allocator = &f->heap.allocator;
    CHECK_EQ(bop_kv_open(&options, &kv, NULL), 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 40; i++) {
            txns[i] = begin(kv, false);
        }
        CHECK_EQ(bop_kv_begin(kv, false, &txns[40]), BOP_EBUSY);
        for (int i = 0; i < 40; i++) {
            bop_kv_abort(txns[i]);
        }
    }
    bop_kv_close(kv);
}

/* ---- Threads ---- */

struct counters {
    struct bop_kv *kv;
    struct bop_kv_table table;
    int failures;
};

enum { INCREMENTS = 200 };

static uint64_t read_counter(struct bop_kv_txn *txn, struct bop_kv_table table, const char *key)
{
    struct bop_slice value;

    return bop_kv_get(txn, table, bytes(key), &value) == 0 ? bop_load_u64(value.data) : 0;
}

static void *increment(void *user)
{
    struct counters *counters = user;

    for (int i = 0; i < INCREMENTS; i++) {
        struct bop_kv_txn *txn;
        uint64_t n;

        if (bop_kv_begin(counters->kv, true, &txn) != 0) {
            counters->failures++;
            break;
        }
        n = read_counter(txn, counters->table, "a") + 1;
        counters->failures += bop_kv_put(txn, counters->table, bytes("a"), bop_slice(&n, 8)) != 0;
        counters->failures += bop_kv_put(txn, counters->table, bytes("b"), bop_slice(&n, 8)) != 0;
        counters->failures += bop_kv_commit(txn) != 0;
    }
    return NULL;
}

/* Both counters are written in one transaction: no reader sees them differ, or go back. */
static void *compare(void *user)
{
    struct counters *counters = user;
    uint64_t last = 0;

    for (int i = 0; i < 20 * INCREMENTS; i++) {
        struct bop_kv_txn *txn;
        uint64_t a, b;

        if (bop_kv_begin(counters->kv, false, &txn) != 0) {
            counters->failures++;
            break;
        }
        a = read_counter(txn, counters->table, "a");
        b = read_counter(txn, counters->table, "b");
        counters->failures += a != b || a < last;
        last = a;
        bop_kv_abort(txn);
    }
    return NULL;
}

TEST(kv_begin, serves_threads)
{
    struct counters counters[4];
    pthread_t threads[4];
    struct bop_kv_txn *txn;
    struct bop_kv *kv;

    kv = open_store(f);
    for (int i = 0; i < 4; i++) {
        counters[i] = (struct counters){.kv = kv};
    }
    counters[0].table = make_table(kv, "t");
    for (int i = 0; i < 4; i++) {
        counters[i].table = counters[0].table;
        CHECK_EQ(pthread_create(&threads[i], NULL, i < 2 ? increment : compare, &counters[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(counters[i].failures, 0);
    }
    txn = begin(kv, false);
    CHECK_EQ(read_counter(txn, counters[0].table, "a"), 2 * INCREMENTS);
    bop_kv_abort(txn);
    bop_kv_close(kv);
}

/* ---- Death ---- */

enum { BATCH = 40, KEYS = 200 };

/* Transaction n puts n under BATCH keys and under "last", for ever, and tells n after its commit.
 */
static void write_for_ever(struct fixture *f, uint64_t from, int tell)
{
    struct bop_kv_table table;
    struct bop_kv *kv = open_store(f);

    table = make_table(kv, "t");
    for (uint64_t n = from;; n++) {
        struct bop_kv_txn *txn = begin(kv, true);
        int rc = 0;

        for (uint32_t i = 0; i < BATCH && rc == 0; i++) {
            uint32_t key = (uint32_t)(n * BATCH + i) % KEYS;

            rc = bop_kv_put(txn, table, bop_slice(&key, 4), bop_slice(&n, 8));
        }
        rc = rc ? rc : bop_kv_put(txn, table, bytes("last"), bop_slice(&n, 8));
        rc = rc ? rc : bop_kv_commit(txn);
        if (rc || write(tell, &n, sizeof(n)) != sizeof(n)) {
            _exit(3);
        }
    }
}

/* Every key holds what the newest transaction that writes it put there. */
static uint64_t check_whole(struct fixture *f, uint64_t told)
{
    struct bop_kv *kv = open_store(f);
    struct bop_kv_table table;
    struct bop_kv_txn *txn = begin(kv, false);
    uint64_t last;

    CHECK_EQ(bop_kv_table_open(txn, "t", false, &table), 0);
    last = read_counter(txn, table, "last");
    CHECK(last >= told && last <= told + 1); /* The last one may have died before it told. */
    for (uint32_t key = 0; key < KEYS && last >= KEYS / BATCH; key++) {
        struct bop_slice value;
        uint64_t group = key / BATCH;
        uint64_t newest = last - (last % (KEYS / BATCH) + KEYS / BATCH - group) % (KEYS / BATCH);

        CHECK_EQ(bop_kv_get(txn, table, bop_slice(&key, 4), &value), 0);
        CHECK_EQ(bop_load_u64(value.data), newest);
    }
    bop_kv_abort(txn);
    bop_kv_close(kv);
    return last;
}

/* A process killed at any moment leaves whole transactions, all that it told of among them. */
TEST(kv_commit, survives_a_kill)
{
    uint64_t last = 0;

    for (int round = 0; round < 10; round++) {
        uint64_t told = last, n;
        int pipes[2], status;
        pid_t child;

        CHECK_EQ(pipe(pipes), 0);
        child = fork();
        if (child == 0) {
            close(pipes[0]);
            write_for_ever(f, last + 1, pipes[1]);
        }
        close(pipes[1]);
        for (int i = 0; i < 20 + 7 * round; i++) {
            CHECK_EQ(read(pipes[0], &n, sizeof(n)), sizeof(n));
            told = n;
        }
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        CHECK(WIFSIGNALED(status));
        while (read(pipes[0], &n, sizeof(n)) == sizeof(n)) {
            told = n;
        }
        close(pipes[0]);
        last = check_whole(f, told);
    }
}
