/*
 * Watching over a key-value store: readers, durability, copies, integrity checks.
 *
 * LMDB trusts its file: a damaged one may end the process. The check reads pages
 * by itself, with every offset and number bounded by the file, so that damage is an
 * error and nothing else; options.check of bop_kv_open() has it run before LMDB
 * sees the file. Pages have no checksum: a changed byte of a value is not noticed.
 */
#ifndef BOP_KV_ADMIN_H
#define BOP_KV_ADMIN_H

#include <bop/clock.h>
#include <bop/kv.h>

/* ---- What there is ---- */

struct bop_kv_info {
    const char *path; /* Good until close. */
    int fd;           /* Of the data file; for looking only. */
    uint64_t page_bytes;
    uint64_t map_bytes;
    uint64_t reserved_bytes;
    uint64_t used_bytes;
    uint64_t last_txn;
    uint64_t unsynced_commits; /* Since the last sync, unless each commit does. */
    uint64_t unsynced_bytes;   /* Keys and values put by them. */
    unsigned readers;
    unsigned readers_max;
    unsigned tables;
    unsigned tables_max;
    unsigned key_bytes_max;
    uint64_t value_bytes_max;
    enum bop_kv_durability durability;
    bool nested;
    bool read_only;
};
BOP_API void bop_kv_info(struct bop_kv *kv, struct bop_kv_info *out_info);

/* ---- Durability ---- */

/** Change what the commits from here on promise; a stronger promise covers all that there is.
 * Waits for the write transaction under way. */
BOP_API BOP_MUST_USE int bop_kv_set_durability(struct bop_kv *kv, enum bop_kv_durability durability,
                                               struct bop_error *err);
/**
 * Whether it is time for bop_kv_sync(): options.sync_bytes were put, or a call of this has seen
 * the first unsynced commit options.sync_period_ms ago. For a caller with a timer; the
 * store has no thread.
 */
BOP_API bool bop_kv_sync_due(struct bop_kv *kv, uint64_t now_ms);

/* ---- Readers ---- */

struct bop_kv_reader {
    int64_t pid;
    uint64_t thread;
    uint64_t txn; /* The snapshot it reads. */
    uint64_t lag; /* Commits since then. */
};
/** 0 to go on; anything else ends the list and comes back. */
typedef int bop_kv_reader_fn(void *context, const struct bop_kv_reader *reader);
/** The read transactions under way, of LMDB's tools in other processes as well. */
BOP_API BOP_MUST_USE int bop_kv_readers(struct bop_kv *kv, bop_kv_reader_fn *fn, void *context);
/** Free the slots of readers whose process has died. */
BOP_API BOP_MUST_USE int bop_kv_readers_check(struct bop_kv *kv, unsigned *out_dead);
/** Pages freed that are kept for the oldest reader. Walks the list of free pages. */
BOP_API BOP_MUST_USE int bop_kv_retained(struct bop_kv *kv, uint64_t *out_pages);

/* ---- Copies ---- */

/** Copy a snapshot to a new store in a directory (made if missing); compact leaves free pages out.
 * Readers and the writer go on, but this thread must have no write transaction. BOP_EEXISTS. */
BOP_API BOP_MUST_USE int bop_kv_copy(struct bop_kv *kv, const char *directory, bool compact,
                                     struct bop_error *err);
/** The data file's bytes to a descriptor. Neither synced nor closed. */
BOP_API BOP_MUST_USE int bop_kv_copy_fd(struct bop_kv *kv, int fd, bool compact,
                                        struct bop_error *err);
/** 0 to go on; anything else ends the copy and comes back. */
typedef int bop_kv_copy_fn(void *context, struct bop_slice bytes);
/** The data file's bytes, in pieces and in order. A thread of the call's own feeds it. */
BOP_API BOP_MUST_USE int bop_kv_copy_stream(struct bop_kv *kv, bool compact, bop_kv_copy_fn *fn,
                                            void *context, struct bop_error *err);

/* ---- Warm-up ---- */

enum bop_kv_warmup {
    BOP_KV_WARMUP_HINT,    /* Ask the system to read ahead; returns at once. */
    BOP_KV_WARMUP_READ,    /* Read it all. */
    BOP_KV_WARMUP_LOCK,    /* Read it and keep it in memory (ulimit -l). */
    BOP_KV_WARMUP_RELEASE, /* Undo LOCK. */
};
/** Returns 0, or BOP_ETIMEOUT if reading took longer than timeout_ms (0: no bound). One thread at a
 * time. */
BOP_API BOP_MUST_USE int bop_kv_warmup(struct bop_kv *kv, enum bop_kv_warmup how,
                                       struct bop_clock *clock, uint64_t timeout_ms,
                                       struct bop_error *err);

/* ---- Removing ---- */

enum bop_kv_remove {
    BOP_KV_REMOVE_UNUSED, /* BOP_ELOCKED if it is open: as bop_kv_remove(). */
    BOP_KV_REMOVE_WAIT,   /* Wait until it is closed. */
    BOP_KV_REMOVE_ANYHOW, /* Also if it is open: who has it goes on with files without a name. */
};
BOP_API BOP_MUST_USE int bop_kv_remove_with(const char *path, enum bop_kv_remove how,
                                            struct bop_error *err);

/* ---- Integrity ---- */

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
