/*
 * What the tests of the key-value store share: a directory and a heap for each
 * test, and calls that must succeed.
 */
#ifndef BOP_TESTS_STORE_KV_KV_TEST_H
#define BOP_TESTS_STORE_KV_KV_TEST_H

#include <stdio.h>
#include <unistd.h>

#include <bop/kv.h>

#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    const char *path; /* Of the store; not made yet. */
};

static inline void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->path = test_path(NULL, "kv");
}

static inline void teardown(struct fixture *f)
{
    CHECK_EQ(f->heap.live, 0);
}

/* A bound that a test can meet, and steps so small that it sees many of them. */
static inline struct bop_kv_options small_options(struct fixture *f)
{
    return (struct bop_kv_options){
        .allocator = &f->heap.allocator,
        .path = f->path,
        .bytes_max = UINT64_C(1) << 30,
        .grow_step_bytes = 256 << 10,
    };
}

static inline struct bop_kv *open_store(struct fixture *f)
{
    struct bop_kv_options options = small_options(f);
    struct bop_error err = {0};
    struct bop_kv *kv = NULL;

    REQUIRE_EQ(bop_kv_open(&options, &kv, &err), 0);
    return kv;
}

static inline struct bop_kv_txn *begin(struct bop_kv *kv, bool write)
{
    struct bop_kv_txn *txn = NULL;

    REQUIRE_EQ(bop_kv_begin(kv, write, &txn), 0);
    return txn;
}

/* Make a table, in a transaction of its own. */
static inline struct bop_kv_table make_table(struct bop_kv *kv, const char *name)
{
    struct bop_kv_table table = {0};
    struct bop_kv_txn *txn = begin(kv, true);

    REQUIRE_EQ(bop_kv_table_open(txn, name, true, &table), 0);
    REQUIRE_EQ(bop_kv_commit(txn), 0);
    return table;
}

/* One put in a transaction of its own. */
static inline void put_one(struct bop_kv *kv, struct bop_kv_table table, const char *key,
                           const char *value)
{
    struct bop_kv_txn *txn = begin(kv, true);

    CHECK_EQ(bop_kv_put(txn, table, bytes(key), bytes(value)), 0);
    CHECK_EQ(bop_kv_commit(txn), 0);
}

static inline bool has(struct bop_kv_txn *txn, struct bop_kv_table table, const char *key,
                       const char *value)
{
    struct bop_slice got;

    return bop_kv_get(txn, table, bytes(key), &got) == 0 && bop_slice_equal(got, bytes(value));
}

#endif
