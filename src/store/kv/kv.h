/*
 * What the files of the key-value store share: the store, its one write
 * transaction with the account of pages it may take, and LMDB's errors as ours.
 */
#ifndef BOP_STORE_KV_KV_H
#define BOP_STORE_KV_KV_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include <bop/kv.h>

#define KV_DATA_FILE          "data.mdb"
#define KV_LOCK_FILE          "lock.mdb"
#define KV_BYTES_MAX_DEFAULT  (UINT64_C(64) << 30)
#define KV_BYTES_MAX_LEAST    (UINT64_C(1) << 20)
#define KV_GROW_STEP_DEFAULT  (UINT64_C(16) << 20)
#define KV_GROW_STEP_LEAST    (UINT64_C(64) << 10)
#define KV_TABLES_MAX_DEFAULT 32
#define KV_TABLES_MAX_MOST    4096
#define KV_READERS_DEFAULT    126
#define KV_READERS_MOST       65536
#define KV_VALUE_BYTES_MAX    (UINT64_C(0x7fffffff))
/* LMDB numbers its own two tables 0 and 1; ours follow. */
#define KV_FREE_TABLE  0
#define KV_MAIN_TABLE  1
#define KV_FIRST_TABLE 2
#define KV_OWN_PREFIX  ".bop."
#define KV_OWN_TABLE   ".bop.state"
/* Ended read transactions kept for the next begin; each holds a reader's slot. */
#define KV_IDLE_READERS_MAX 16

/* A table that has a handle. */
struct kv_name {
    char *name; /* Owned; NUL-terminated. */
    unsigned handle;
    /* 0: committed. Else the nesting of the write transaction that made it (1: the outermost), and
     * that alone sees it. */
    unsigned level;
    unsigned drop_level; /* Likewise of the one that drops it; 0: none does. */
};

/* What is known of a table by its handle. */
struct kv_kind {
    unsigned flags; /* LMDB's. */
    /* Of integer keys and of fixed values; 0 until there is one. LMDB would read past others. */
    _Atomic uint16_t key_bytes;
    _Atomic uint16_t value_bytes;
};

/*
 * How many new pages a write transaction may have taken from above the last
 * page in use, as an upper bound; see reserve.c for why it is one.
 */
struct kv_account {
    uint64_t used_bytes;      /* Up to the last page in use at begin. */
    uint64_t allowance_pages; /* For what the commit itself writes. */
    uint64_t granted_pages;   /* What the reserve allows. */
    uint64_t charged_pages;   /* The bound; at most granted, or the transaction has failed. */
    uint64_t overflow_pages;  /* Part of charged: pages of values too big for a leaf. */
    uint64_t cleared_pages;   /* Tree pages of tables cleared: not used again before the commit. */
    uint64_t deletes;
    uint64_t put_bytes;
    bool counts_pages;  /* LMDB's own count is where we look for it. */
    bool any_dup;       /* A table with duplicates was changed: the second bound does not hold. */
    uint64_t dup_pages; /* What a change of a tree of duplicates takes at most. */
    bool *written;      /* By handle: the table has been charged for its branches. */
};

/*
 * Where the last get of a write transaction found its entry: a put of the same
 * key needs no search of its own. LMDB frees the cursor with the transaction.
 */
struct kv_found {
    MDB_cursor *cursor; /* NULL: none yet. */
    unsigned table;
    MDB_val key; /* Size 0: nowhere. In the map, good until the next change. */
};

struct bop_kv_txn {
    struct bop_kv *kv;
    MDB_txn *txn;
    bool write;
    int failed; /* 0, or what a commit will answer. */
    bool is_reset;
    unsigned level; /* Of a write transaction: 1, or more when nested. */
    unsigned cursors;
    struct bop_kv_txn *parent, *child;
    void *context;
    struct kv_found found; /* Of a write transaction. */
};

struct bop_kv_cursor {
    struct bop_kv_txn *txn;
    MDB_cursor *cursor;
    unsigned table;
    bool placed; /* At an entry, as far as we know. */
};

struct bop_kv {
    struct bop_allocator *allocator;
    MDB_env *env;
    int data_fd; /* Ours, with the lock on it; LMDB has a descriptor of its own. */
    uint64_t map_bytes;
    uint64_t step_bytes;
    uint64_t page_bytes;
    unsigned tables_max;   /* Handles: one more than the caller's, for our own table. */
    struct kv_kind *kinds; /* By handle. */
    void *context;
    bool nested;
    bool read_only;
    char *path; /* Owned. */
    unsigned readers_max;
    uint64_t sync_bytes, sync_period_ms;
    void (*long_reader)(void *context, uint64_t txn, uint64_t lag);
    uint64_t reader_lag_max;
    void *locked; /* Of warm-up: mapped and locked in memory; else NULL. */
    size_t locked_bytes;

    /* Written by the writer, read by anybody. */
    _Atomic uint64_t reserved_bytes;
    _Atomic unsigned readers;
    _Atomic unsigned durability;
    _Atomic uint64_t unsynced_commits, unsynced_bytes;
    _Atomic uint64_t unsynced_since_ms; /* As sync_due saw it; 0: it has not. */

    pthread_mutex_t write_mutex; /* Held while a write transaction lasts. Of what follows: */
    struct bop_kv_txn writer;
    struct kv_account account;
    uint64_t lag_check_txn; /* The next one that looks for long readers. */

    pthread_mutex_t mutex; /* Of what follows. */
    struct kv_name *names; /* tables_max of them. */
    unsigned name_count;
    struct bop_kv_txn *idle[KV_IDLE_READERS_MAX]; /* Reset, ready to be renewed. */
    unsigned idle_count;
};

/* ---- cause.c ---- */

/** LMDB's result, or a positive errno, as one of our codes; a failure is kept as the cause. */
int bop__kv_code(int lmdb_code);
/** Keep a text that lives forever as the cause, and return rc. */
int bop__kv_refuse(int rc, const char *text);
/** Set err to "<what>: <text of rc> (<the cause>)" and return rc. */
int bop__kv_error(struct bop_error *err, int rc, const char *what);

/* ---- kv.c ---- */

/** The used bytes of the last commit. */
uint64_t bop__kv_used(struct bop_kv *kv);

/* ---- reserve.c ---- */

/** Reserve blocks of a file from `from` to `to`, where nobody writes meanwhile. */
int bop__kv_allocate(int fd, uint64_t from, uint64_t to);

/** Open the account of a write transaction: reserve a step ahead. */
int bop__kv_account_open(struct bop_kv *kv, MDB_txn *txn);

/** Reserve a first step, before any transaction. */
int bop__kv_reserve_first(struct bop_kv *kv);

/** Charge one change of a table that puts value_bytes (0 for none). 0 or BOP_ENOROOM. */
int bop__kv_charge(struct bop_kv_txn *txn, unsigned table, uint64_t node_bytes, bool is_delete);

/** Charge several puts that one call of LMDB's makes. 0 or BOP_ENOROOM. */
int bop__kv_charge_many(struct bop_kv_txn *txn, unsigned table, uint64_t node_bytes,
                        uint64_t count);

/** Charge the clearing of a table. 0 or BOP_ENOROOM. */
int bop__kv_charge_clear(struct bop_kv_txn *txn, unsigned table);

/* ---- table.c ---- */

/** 0, or why a transaction can write no more. */
int bop__kv_check_writable(const struct bop_kv_txn *txn);
/** What a change answered: a failed one may leave a transaction in the middle of something, which
 * can then only be aborted. */
int bop__kv_changed(struct bop_kv_txn *txn, int lmdb_code);
/** LMDB's own two tables are not for callers. */
bool bop__kv_table_valid(const struct bop_kv_txn *txn, struct bop_kv_table table);
/** Open a table, the store's own as well. */
int bop__kv_table_open(struct bop_kv_txn *txn, const char *name, bool create, bool any_kind,
                       unsigned flags, struct bop_kv_table *out_table);
/** Before a commit: drop what is to be dropped. LMDB's code. */
int bop__kv_tables_drop(struct bop_kv_txn *txn);

/** Open every table there is, so that their handles do not depend on any transaction. */
int bop__kv_tables_load(struct bop_kv *kv, struct bop_error *err);
/** Keep the names that a write transaction made, or forget them. */
void bop__kv_tables_settle(struct bop_kv *kv, unsigned level, bool committed);
void bop__kv_tables_deinit(struct bop_kv *kv);

/* ---- entry.c ---- */

static inline MDB_val bop__kv_val(struct bop_slice slice)
{
    return (MDB_val){.mv_data = (void *)(uintptr_t)slice.data, .mv_size = slice.size};
}

static inline struct bop_slice bop__kv_slice(MDB_val value)
{
    return bop_slice(value.mv_data, value.mv_size);
}

/** 0 or BOP_EINVAL: a key, or a value of a table with duplicates, that LMDB could not take. */
int bop__kv_check_key(const struct bop_kv_txn *txn, unsigned table, struct bop_slice key);
int bop__kv_check_dup(const struct bop_kv_txn *txn, unsigned table, struct bop_slice value);
/** Check a put and charge it. */
int bop__kv_prepare_put(struct bop_kv_txn *txn, struct bop_kv_table table, struct bop_slice key,
                        uint64_t value_size, const struct bop_slice *value);
/** Remember the size that the first key and value set. */
void bop__kv_learn(struct bop_kv_txn *txn, unsigned table, size_t key_bytes, size_t value_bytes);
/** Forget where the last get was: a delete may free the page. */
void bop__kv_forget_found(struct bop_kv_txn *txn);

/* ---- admin.c ---- */

/** Count a commit as not synced. */
void bop__kv_unsynced(struct bop_kv *kv);
/** LMDB's flags for a durability. */
unsigned bop__kv_sync_flags(unsigned durability);

/* ---- reader.c ---- */

/** Tell the caller of the oldest reader, if it is time. With the write mutex held. */
void bop__kv_watch_readers(struct bop_kv *kv, uint64_t txn);

/* ---- copy.c ---- */

void bop__kv_unlock_memory(struct bop_kv *kv);

/* ---- txn.c ---- */

void bop__kv_idle_deinit(struct bop_kv *kv);

#endif
