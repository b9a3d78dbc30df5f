/*
 * The embedded transactional key-value store: ordered tables of bytes, one
 * writer and any number of snapshot readers at a time (LMDB underneath).
 *
 * Commits are not synced unless asked: the owner's log is the truth, and the
 * owner decides at open whether the content can be trusted (see DESIGN: a
 * process death loses nothing; after an operating-system crash the store must be
 * made anew). The map grows by itself: disk blocks are reserved ahead of use,
 * so that a full disk is a refusal (BOP_ENOROOM) and never a signal.
 *
 * Keys are 1 to 511 bytes after any prefixing by the caller (else BOP_EINVAL),
 * values below 2 GiB (else BOP_ETOOBIG).
 *
 * Threads: a store may be shared; a write transaction and its cursors belong to
 * the thread that began it; a read transaction may move between threads but is
 * used by one at a time.
 */
#ifndef BOP_KV_H
#define BOP_KV_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>
#include <bop/slice.h>

#define BOP_KV_KEY_MAX 511

struct bop_kv;
struct bop_kv_txn;
struct bop_kv_cursor;

struct bop_kv_options {
    struct bop_allocator *allocator; /* Borrowed until close. Default: the process's. */
    const char *path;                /* Directory; made if missing. Required. */
    uint64_t bytes_max;              /* The map's upper bound (address space). Default 64 GiB. */
    uint64_t grow_step_bytes;        /* Blocks reserved ahead. Default 16 MiB. */
    unsigned tables_max;             /* Default 32. */
    unsigned readers_max;            /* Default 126. */
    bool sync_commits;               /* fdatasync before a commit returns. Default: no. */
};

/** Open or make a store. BOP_ELOCKED if it is open already, here or in another process. */
BOP_API BOP_MUST_USE int bop_kv_open(const struct bop_kv_options *options, struct bop_kv **out_kv,
                                     struct bop_error *err);
/** All transactions must have ended. NULL is fine. */
BOP_API void bop_kv_close(struct bop_kv *kv);

/** Remove a store's files from its directory. 0 also if there are none. The store must not be open.
 */
BOP_API BOP_MUST_USE int bop_kv_remove(const char *path, struct bop_error *err);

/** Force what was committed to disk. */
BOP_API BOP_MUST_USE int bop_kv_sync(struct bop_kv *kv, struct bop_error *err);

struct bop_kv_stats {
    uint64_t map_bytes;      /* Upper bound. */
    uint64_t reserved_bytes; /* Blocks reserved on disk. */
    uint64_t used_bytes;     /* Up to the last page in use. */
    unsigned readers;        /* Read transactions now. */
    uint64_t last_txn;
};
BOP_API void bop_kv_stats(struct bop_kv *kv, struct bop_kv_stats *out_stats);

/* ---- Transactions ---- */

/**
 * Begin. One write transaction at a time: a second one waits for the first. A
 * write transaction may change up to grow_step_bytes or so; when a put finds no
 * room, it answers BOP_ENOROOM, the transaction must be aborted, and the next
 * begin reserves more (or answers BOP_ENOROOM itself when disk or bound is full).
 */
BOP_API BOP_MUST_USE int bop_kv_begin(struct bop_kv *kv, bool write, struct bop_kv_txn **out_txn);
/** Make the changes visible. The transaction is gone whatever the result. */
BOP_API BOP_MUST_USE int bop_kv_commit(struct bop_kv_txn *txn);
/** Drop the changes, or end a read. NULL is fine. */
BOP_API void bop_kv_abort(struct bop_kv_txn *txn);

/* ---- Tables ---- */

/** A table's handle; valid until the store is closed. Opening makes it if `create`. */
struct bop_kv_table {
    unsigned handle;
};
/** Open inside a transaction (write, if it may be created); BOP_ENOTFOUND if there is none. */
BOP_API BOP_MUST_USE int bop_kv_table_open(struct bop_kv_txn *txn, const char *name, bool create,
                                           struct bop_kv_table *out_table);
/** Remove all entries. */
BOP_API BOP_MUST_USE int bop_kv_table_clear(struct bop_kv_txn *txn, struct bop_kv_table table);
BOP_API BOP_MUST_USE int bop_kv_table_count(struct bop_kv_txn *txn, struct bop_kv_table table,
                                            uint64_t *out_count);

/* ---- Entries. Returned slices are borrowed until the next write or the end of the transaction
 * ---- */

/** Returns 0 or BOP_ENOTFOUND. */
BOP_API BOP_MUST_USE int bop_kv_get(struct bop_kv_txn *txn, struct bop_kv_table table,
                                    struct bop_slice key, struct bop_slice *out_value);
/** Insert or replace. */
BOP_API BOP_MUST_USE int bop_kv_put(struct bop_kv_txn *txn, struct bop_kv_table table,
                                    struct bop_slice key, struct bop_slice value);
/** Insert; the key must be above all keys of the table (fast bulk load), else BOP_EINVAL. */
BOP_API BOP_MUST_USE int bop_kv_append(struct bop_kv_txn *txn, struct bop_kv_table table,
                                       struct bop_slice key, struct bop_slice value);
/** Returns 0 or BOP_ENOTFOUND. */
BOP_API BOP_MUST_USE int bop_kv_del(struct bop_kv_txn *txn, struct bop_kv_table table,
                                    struct bop_slice key);

/* ---- Cursors: close before the transaction ends ---- */

BOP_API BOP_MUST_USE int bop_kv_cursor_open(struct bop_kv_txn *txn, struct bop_kv_table table,
                                            struct bop_kv_cursor **out_cursor);
BOP_API void bop_kv_cursor_close(struct bop_kv_cursor *cursor);

enum bop_kv_seek {
    BOP_KV_FIRST,
    BOP_KV_LAST,
    BOP_KV_NEXT,
    BOP_KV_PREV,
    BOP_KV_AT_OR_AFTER, /* The given key or the next above it. */
};
/**
 * Move, and get key and value. key is read for AT_OR_AFTER only, where an empty one
 * means the first. Returns 0 or BOP_ENOTFOUND.
 */
BOP_API BOP_MUST_USE int bop_kv_cursor_seek(struct bop_kv_cursor *cursor, enum bop_kv_seek seek,
                                            struct bop_slice key, struct bop_slice *out_key,
                                            struct bop_slice *out_value);

#endif
