/*
 * Watching over a key-value store: integrity checks.
 *
 * LMDB trusts its file: a damaged one may end the process. The check reads pages
 * by itself, with every offset and number bounded by the file, so that damage is an
 * error and nothing else; options.check of bop_kv_open() has it run before LMDB
 * sees the file. Pages have no checksum: a changed byte of a value is not noticed.
 */
#ifndef BOP_KV_ADMIN_H
#define BOP_KV_ADMIN_H

#include <bop/kv.h>

/** Called for each problem. table is "" outside of one, and text says what is wrong. */
typedef void bop_kv_problem_fn(void *context, uint64_t page, const char *table, const char *text);

struct bop_kv_check_options {
    struct bop_allocator *allocator; /* Default: the process's. */
    bop_kv_problem_fn *problem;      /* NULL: count only. */
    void *context;
    uint64_t problems_max; /* Stop after so many. Default 1000. */
};

struct bop_kv_check_result {
    uint64_t txn; /* The snapshot checked. */
    uint64_t page_bytes;
    uint64_t pages;
    uint64_t pages_used;
    uint64_t pages_free;
    uint64_t pages_lost; /* Neither used nor free; a problem each run of them. */
    uint64_t tables;
    uint64_t entries;
    uint64_t problems;
};

/**
 * Check the files of a store that is not open: every page
 * used once or free, the order of tables, sizes and counts. BOP_ELOCKED if it is open for
 * writing, here or in another process.
 *
 * Returns 0, BOP_ECORRUPT if there were problems (*out_result is filled in then as well, and
 * err tells the first), BOP_EVERSION, or what reading answered.
 */
BOP_API BOP_MUST_USE int bop_kv_check_path(const char *path,
                                           const struct bop_kv_check_options *options,
                                           struct bop_kv_check_result *out_result,
                                           struct bop_error *err);
/** The same of an open store, in a snapshot: readers and the writer go on. */
BOP_API BOP_MUST_USE int bop_kv_check(struct bop_kv *kv, const struct bop_kv_check_options *options,
                                      struct bop_kv_check_result *out_result,
                                      struct bop_error *err);

#endif
