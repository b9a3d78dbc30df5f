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
 * values below 2 GiB (else BOP_ETOOBIG), duplicates 1 to 511 bytes.
 *
 * A call that fails leaves its cause with the thread: bop_kv_cause() gives LMDB's
 * own code, bop_kv_cause_text() the words, of LMDB or of the check that refused.
 *
 * Threads: a store may be shared; a write transaction and its cursors belong to
 * the thread that began it; a read transaction may move between threads but is
 * used by one at a time.
 *
 * What watches over a store is in <bop/kv_admin.h>.
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

/** What a commit has promised when it returns. */
enum bop_kv_durability {
    /* It survives the death of the process. After one of the operating system the store may be
     * damaged, not just old: it has to be made anew. */
    BOP_KV_SURVIVES_PROCESS,
    /* After a death of the operating system the store is whole; the last commit may be gone. */
    BOP_KV_SURVIVES_SYSTEM_BUT_LAST,
    /* It survives the death of the operating system. */
    BOP_KV_SURVIVES_SYSTEM,
};

struct bop_kv_options {
    struct bop_allocator *allocator; /* Borrowed until close. Default: the process's. */
    const char *path;                /* Directory; made if missing. Required. */
    uint64_t bytes_max;              /* The map's upper bound (address space). Default 64 GiB. */
    uint64_t grow_step_bytes;        /* Blocks reserved ahead. Default 16 MiB. */
    unsigned tables_max;             /* Default 32. */
    unsigned readers_max;            /* Default 126. */
    bool sync_commits;               /* The same as durability BOP_KV_SURVIVES_SYSTEM. */
    enum bop_kv_durability durability;
    bool nested; /* Transactions inside transactions; costs the writable map: slower writes. */
    bool check;  /* Check the file first, as bop_kv_check_path(), which reads all of it. */
    /* For reading: any number of processes, while none has it open for writing. Leaves no trace. */
    bool read_only;
    /* Where all of it stays in memory: let the kernel read around what is read, and map it in large
     * pages. Reads, and writes that are not synced, become up to a tenth faster. But a page that is
     * written goes to disk with its neighbours, up to 2 MiB: synced transactions of small changes
     * write several times as much. */
    bool read_ahead;
    uint64_t sync_bytes;     /* For bop_kv_sync_due(). 0: not by bytes. */
    uint64_t sync_period_ms; /* Likewise. 0: not by time. */
    /* Called by a thread that begins to write when the oldest reader's snapshot is more than
     * reader_lag_max commits old (0: never), at each further eighth of it. It must begin no write
     * transaction. */
    void (*long_reader)(void *context, uint64_t txn, uint64_t lag);
    uint64_t reader_lag_max;
    void *context; /* The caller's; see bop_kv_context(). Given to long_reader. */
};

/** LMDB's code for the last failure in this thread; 0 if it was none of LMDB's. */
BOP_API int bop_kv_cause(void);
/** The same in words; those of our own check if it was that. Never NULL; good until the next
 * failure in this thread. */
BOP_API const char *bop_kv_cause_text(void);

/** Open or make a store. BOP_ELOCKED if it is open already, here or in another process. */
BOP_API BOP_MUST_USE int bop_kv_open(const struct bop_kv_options *options, struct bop_kv **out_kv,
                                     struct bop_error *err);
/** All transactions must have ended. NULL is fine. */
BOP_API void bop_kv_close(struct bop_kv *kv);

/** Remove a store's files from its directory. 0 also if there are none. The store must not be open.
 */
BOP_API BOP_MUST_USE int bop_kv_remove(const char *path, struct bop_error *err);

BOP_API void *bop_kv_context(const struct bop_kv *kv);

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

/** How to begin. Zeroed: a read transaction. */
struct bop_kv_begin {
    bool write;
    bool try_only; /* BOP_EBUSY instead of waiting for another writer. */
    bool no_sync;  /* Do not sync this commit, whatever the store's durability. */
    /* The write transaction this one is nested in, of a store opened with options.nested; else
     * NULL. Until the inner one has ended, the outer one answers BOP_EBUSY to changes and must not
     * be read. A failed inner one is aborted without harm to the outer one. */
    struct bop_kv_txn *parent;
    void *context; /* The caller's; see bop_kv_txn_context(). */
};

/**
 * Begin. One write transaction at a time: a second one waits for the first; of the
 * same thread it is refused with -EDEADLK. A transaction may be of any size: blocks
 * are reserved as it grows, and BOP_ENOROOM means a full disk or bytes_max; it must
 * then be aborted.
 */
BOP_API BOP_MUST_USE int bop_kv_begin_with(struct bop_kv *kv, const struct bop_kv_begin *how,
                                           struct bop_kv_txn **out_txn);
/** bop_kv_begin_with() with nothing but `write`. */
BOP_API BOP_MUST_USE int bop_kv_begin(struct bop_kv *kv, bool write, struct bop_kv_txn **out_txn);
/** Make the changes visible (of a nested one: to its parent). The transaction is gone whatever the
 * result. */
BOP_API BOP_MUST_USE int bop_kv_commit(struct bop_kv_txn *txn);
/** Drop the changes, or end a read. NULL is fine. */
BOP_API void bop_kv_abort(struct bop_kv_txn *txn);

/**
 * Let go of a read transaction's snapshot but keep its slot, to renew it later with
 * the newest one. Between the two it can only be renewed or aborted. Its cursors must be
 * renewed as well. BOP_EINVAL for a write transaction.
 */
BOP_API BOP_MUST_USE int bop_kv_reset(struct bop_kv_txn *txn);
BOP_API BOP_MUST_USE int bop_kv_renew(struct bop_kv_txn *txn);

/** The number of the snapshot read, or of the commit to be. */
BOP_API uint64_t bop_kv_txn_id(const struct bop_kv_txn *txn);
/** How many commits there were since the snapshot was taken; 0 for a write transaction. */
BOP_API uint64_t bop_kv_txn_lag(const struct bop_kv_txn *txn);
BOP_API bool bop_kv_txn_is_write(const struct bop_kv_txn *txn);
BOP_API void *bop_kv_txn_context(const struct bop_kv_txn *txn);

/* ---- Tables ---- */

/** A table's handle; valid until the store is closed. Opening makes it if `create`. */
struct bop_kv_table {
    unsigned handle;
};

/** Kinds of tables, fixed when a table is made. */
enum bop_kv_table_flags {
    BOP_KV_CREATE = 1 << 0,      /* Make it if there is none. */
    BOP_KV_REVERSE_KEY = 1 << 1, /* Keys are compared from their end. */
    BOP_KV_DUP_SORT = 1 << 2,    /* A key may have many values, in order. */
    /* Keys are native unsigned integers of 4 or of 8 bytes; the first one decides which. */
    BOP_KV_INTEGER_KEY = 1 << 3,
    BOP_KV_DUP_FIXED = 1 << 4,   /* With DUP_SORT: all values are of one size; the first decides. */
    BOP_KV_INTEGER_DUP = 1 << 5, /* With DUP_FIXED: values as the keys of INTEGER_KEY. */
    BOP_KV_REVERSE_DUP = 1 << 6, /* With DUP_SORT: values are compared from their end. */
};

/** Open inside a transaction (write, if it may be created); BOP_ENOTFOUND if there is none. Its
 * kind, if there is one, is taken as it is. Names that begin with ".bop." are the store's own. */
BOP_API BOP_MUST_USE int bop_kv_table_open(struct bop_kv_txn *txn, const char *name, bool create,
                                           struct bop_kv_table *out_table);
/** The same; BOP_EWRONGKIND if the table there is of another kind than `flags`. */
BOP_API BOP_MUST_USE int bop_kv_table_open_with(struct bop_kv_txn *txn, const char *name,
                                                unsigned flags, struct bop_kv_table *out_table);
/** Remove all entries. */
BOP_API BOP_MUST_USE int bop_kv_table_clear(struct bop_kv_txn *txn, struct bop_kv_table table);
/**
 * Remove all entries, and with the commit the table. The handle is then dead: no other
 * transaction may be using it at the commit. Until then the table is empty, and opening
 * its name (in this transaction, with BOP_KV_CREATE) keeps it.
 */
BOP_API BOP_MUST_USE int bop_kv_table_drop(struct bop_kv_txn *txn, struct bop_kv_table table);
BOP_API BOP_MUST_USE int bop_kv_table_count(struct bop_kv_txn *txn, struct bop_kv_table table,
                                            uint64_t *out_count);

struct bop_kv_table_stat {
    unsigned flags; /* Of enum bop_kv_table_flags. */
    unsigned depth;
    uint64_t page_bytes;
    uint64_t branch_pages; /* Pages of duplicates' own trees are in none of the counts. */
    uint64_t leaf_pages;
    uint64_t overflow_pages;
    uint64_t entries; /* Each duplicate is one. */
};
BOP_API BOP_MUST_USE int bop_kv_table_stat(struct bop_kv_txn *txn, struct bop_kv_table table,
                                           struct bop_kv_table_stat *out_stat);

/** Called with each table's name; what it returns other than 0 ends the listing and comes back. */
typedef int bop_kv_name_fn(void *context, const char *name, struct bop_kv_table table);
/** Every table of the transaction's snapshot. The callback may open tables, but make or drop none.
 */
BOP_API BOP_MUST_USE int bop_kv_tables(struct bop_kv_txn *txn, bop_kv_name_fn *fn, void *context);

/** Two keys, or two values of a table with duplicates, in its order: below, at or above 0. Integers
 * must be of the table's size. */
BOP_API int bop_kv_compare_keys(struct bop_kv_txn *txn, struct bop_kv_table table,
                                struct bop_slice a, struct bop_slice b);
BOP_API int bop_kv_compare_values(struct bop_kv_txn *txn, struct bop_kv_table table,
                                  struct bop_slice a, struct bop_slice b);

/* ---- Entries. Returned slices are borrowed until the next write or the end of the transaction
 * ---- */

/** Returns 0 or BOP_ENOTFOUND. Of duplicates the first. */
BOP_API BOP_MUST_USE int bop_kv_get(struct bop_kv_txn *txn, struct bop_kv_table table,
                                    struct bop_slice key, struct bop_slice *out_value);
/** The given key's entry, or the next above it; *out_exact says which. Returns 0 or BOP_ENOTFOUND.
 */
BOP_API BOP_MUST_USE int bop_kv_get_at_or_after(struct bop_kv_txn *txn, struct bop_kv_table table,
                                                struct bop_slice key, struct bop_slice *out_key,
                                                struct bop_slice *out_value, bool *out_exact);
/** Insert or replace; with duplicates: add, or do nothing if the pair is there. */
BOP_API BOP_MUST_USE int bop_kv_put(struct bop_kv_txn *txn, struct bop_kv_table table,
                                    struct bop_slice key, struct bop_slice value);

enum bop_kv_put_flags {
    BOP_KV_NO_OVERWRITE = 1 << 0,    /* BOP_EEXISTS if the key is there. */
    BOP_KV_NO_DUP_DATA = 1 << 1,     /* BOP_EEXISTS if the pair is there. */
    BOP_KV_APPEND = 1 << 2,          /* As bop_kv_append(). */
    BOP_KV_APPEND_DUP = 1 << 3,      /* The value must be above all values of its key. */
    BOP_KV_REPLACE_CURRENT = 1 << 4, /* Of a cursor: the entry it is at, of the same key. */
};
/** A put with flags of enum bop_kv_put_flags. With BOP_EEXISTS of NO_OVERWRITE, *out_existing (NULL
 * if not wanted) is what is there. */
BOP_API BOP_MUST_USE int bop_kv_put_with(struct bop_kv_txn *txn, struct bop_kv_table table,
                                         struct bop_slice key, struct bop_slice value,
                                         unsigned flags, struct bop_slice *out_existing);
/** Insert; the key must be above all keys of the table (fast bulk load), else BOP_EINVAL. */
BOP_API BOP_MUST_USE int bop_kv_append(struct bop_kv_txn *txn, struct bop_kv_table table,
                                       struct bop_slice key, struct bop_slice value);
/** A put of `size` bytes that the caller writes to *out_place before the next call. Not with
 * duplicates. */
BOP_API BOP_MUST_USE int bop_kv_reserve(struct bop_kv_txn *txn, struct bop_kv_table table,
                                        struct bop_slice key, size_t size, void **out_place);
/**
 * A put that appends the old value, if there was one (*out_found), to a buffer, whose
 * bound may answer BOP_EFULL: nothing is changed then. Not with duplicates.
 */
BOP_API BOP_MUST_USE int bop_kv_replace(struct bop_kv_txn *txn, struct bop_kv_table table,
                                        struct bop_slice key, struct bop_slice value,
                                        struct bop_buf *out_old, bool *out_found);
/** Returns 0 or BOP_ENOTFOUND. All duplicates of the key go. */
BOP_API BOP_MUST_USE int bop_kv_del(struct bop_kv_txn *txn, struct bop_kv_table table,
                                    struct bop_slice key);
/** Remove one of the key's duplicates. Returns 0 or BOP_ENOTFOUND. */
BOP_API BOP_MUST_USE int bop_kv_del_pair(struct bop_kv_txn *txn, struct bop_kv_table table,
                                         struct bop_slice key, struct bop_slice value);
/**
 * Add many values of value_bytes each, side by side in `values`, to a key of a DUP_FIXED
 * table. *out_written counts those given and now there; on a failure, those done before it.
 * BOP_EINVAL if the length is no multiple.
 */
BOP_API BOP_MUST_USE int bop_kv_put_multiple(struct bop_kv_txn *txn, struct bop_kv_table table,
                                             struct bop_slice key, struct bop_slice values,
                                             size_t value_bytes, uint64_t *out_written);

/* ---- Cursors: close before the transaction ends ---- */

BOP_API BOP_MUST_USE int bop_kv_cursor_open(struct bop_kv_txn *txn, struct bop_kv_table table,
                                            struct bop_kv_cursor **out_cursor);
BOP_API void bop_kv_cursor_close(struct bop_kv_cursor *cursor);
/** Use a cursor of a read transaction with another one (or the same, renewed), as if newly opened.
 * On a failure it can only be closed. */
BOP_API BOP_MUST_USE int bop_kv_cursor_renew(struct bop_kv_cursor *cursor, struct bop_kv_txn *txn);

enum bop_kv_seek {
    BOP_KV_FIRST,
    BOP_KV_LAST,
    BOP_KV_NEXT,
    BOP_KV_PREV,
    BOP_KV_AT_OR_AFTER,  /* The given key or the next above it. */
    BOP_KV_CURRENT,      /* Where it is. */
    BOP_KV_AT,           /* The given key; its first value. */
    BOP_KV_AFTER,        /* The first key above the given. */
    BOP_KV_AT_OR_BEFORE, /* The given key or the next below it; its last value, as for BEFORE. */
    BOP_KV_BEFORE,
    BOP_KV_NEXT_KEY, /* Over the other values of this key. */
    BOP_KV_PREV_KEY, /* The last value of the key before. */
    /* Among the values of this key. */
    BOP_KV_FIRST_DUP,
    BOP_KV_LAST_DUP,
    BOP_KV_NEXT_DUP,
    BOP_KV_PREV_DUP,
};
/**
 * Move, and get key and value. key is read by the moves to a given one only, where an
 * empty one stands below all keys. Returns 0 or BOP_ENOTFOUND, after which only a
 * move that does not depend on where the cursor is makes sense; BOP_EINVAL for one among the
 * duplicates from nowhere or of a table without.
 */
BOP_API BOP_MUST_USE int bop_kv_cursor_seek(struct bop_kv_cursor *cursor, enum bop_kv_seek seek,
                                            struct bop_slice key, struct bop_slice *out_key,
                                            struct bop_slice *out_value);

/** To a pair in a table with duplicates. */
enum bop_kv_seek_pair {
    BOP_KV_PAIR,                 /* Exactly this one. */
    BOP_KV_PAIR_OR_AFTER_IN_KEY, /* The value or the next above it, of this key only. */
    BOP_KV_PAIR_OR_AFTER,        /* In the order of all pairs: by key, then by value. */
    BOP_KV_PAIR_AFTER,
    BOP_KV_PAIR_OR_BEFORE,
    BOP_KV_PAIR_BEFORE,
};
/** Returns 0 or BOP_ENOTFOUND. */
BOP_API BOP_MUST_USE int bop_kv_cursor_seek_pair(struct bop_kv_cursor *cursor,
                                                 enum bop_kv_seek_pair seek, struct bop_slice key,
                                                 struct bop_slice value, struct bop_slice *out_key,
                                                 struct bop_slice *out_value);

struct bop_kv_pair {
    struct bop_slice key;
    struct bop_slice value;
};
/**
 * Make the same move (NEXT, PREV, NEXT_KEY, PREV_KEY or a move among duplicates) up to pairs_max
 * times: the fast way to scan. *out_count is how many there were; fewer than asked for means the
 * end. Returns 0 also at the end.
 */
BOP_API BOP_MUST_USE int bop_kv_cursor_fetch(struct bop_kv_cursor *cursor, enum bop_kv_seek move,
                                             struct bop_kv_pair *out_pairs, size_t pairs_max,
                                             size_t *out_count);
/**
 * The values of the cursor's key in a DUP_FIXED table side by side, a page at a time:
 * with `first` from the key's first value, else those after the last call's. Returns 0 or
 * BOP_ENOTFOUND.
 */
BOP_API BOP_MUST_USE int bop_kv_cursor_get_multiple(struct bop_kv_cursor *cursor, bool first,
                                                    struct bop_slice *out_values,
                                                    size_t *out_value_bytes);
/** Put by the cursor, which then is at the entry; faster near where it was. As bop_kv_put_with().
 */
BOP_API BOP_MUST_USE int bop_kv_cursor_put(struct bop_kv_cursor *cursor, struct bop_slice key,
                                           struct bop_slice value, unsigned flags);
/** Remove the entry the cursor is at, or all values of its key. NEXT is then what followed. */
BOP_API BOP_MUST_USE int bop_kv_cursor_del(struct bop_kv_cursor *cursor, bool all_dups);
/** How many values the cursor's key has. */
BOP_API BOP_MUST_USE int bop_kv_cursor_count(struct bop_kv_cursor *cursor, uint64_t *out_count);

/* ---- Scans and ranges ---- */

/** 0 to go on; anything else ends the scan. Must not change the store. */
typedef int bop_kv_scan_fn(void *context, struct bop_slice key, struct bop_slice value);

/** Call fn with an entry, and with those that moves lead to (bop_kv_cursor_fetch()'s). Returns what
 * fn returned if that was not 0, unchanged; 0 at the end; or an error. */
BOP_API BOP_MUST_USE int bop_kv_scan(struct bop_kv_txn *txn, struct bop_kv_table table,
                                     enum bop_kv_seek start, struct bop_slice key,
                                     enum bop_kv_seek move, bop_kv_scan_fn *fn, void *context);

/**
 * Keys from `from` on (after it, with from_open) and below `to` (up to it, with
 * to_closed). Empty means no bound. A call that stops before the end has put a copy of
 * the key to go on with into `place`, and `from` points to it: the same range, not moved in
 * memory, is given again.
 */
struct bop_kv_range {
    struct bop_slice from;
    struct bop_slice to;
    bool from_open;
    bool to_closed;
    uint8_t place[BOP_KV_KEY_MAX];
};
/** Add the entries of up to keys_max keys to *count. Returns 0, or BOP_EAGAIN if there are more. */
BOP_API BOP_MUST_USE int bop_kv_range_count(struct bop_kv_txn *txn, struct bop_kv_table table,
                                            struct bop_kv_range *range, uint64_t keys_max,
                                            uint64_t *count);
/** Remove up to keys_max keys, and add their entries to *count. Returns 0, or BOP_EAGAIN if there
 * are more. */
BOP_API BOP_MUST_USE int bop_kv_range_del(struct bop_kv_txn *txn, struct bop_kv_table table,
                                          struct bop_kv_range *range, uint64_t keys_max,
                                          uint64_t *count);

/* ---- Sequences and the canary; kept with the data, changed by the transaction ---- */

/** The number of a named sequence (0 if new), and add to it. With 0, in any transaction. Names are
 * 1 to 255 bytes. BOP_EOVERFLOW leaves it as it is. */
BOP_API BOP_MUST_USE int bop_kv_sequence(struct bop_kv_txn *txn, const char *name, uint64_t add,
                                         uint64_t *out_before);

/** Called with each sequence; what it returns other than 0 ends the listing and comes back. */
typedef int bop_kv_sequence_fn(void *context, const char *name, uint64_t number);
/** Every sequence that was ever added to, in the order of names. fn must not change the store. */
BOP_API BOP_MUST_USE int bop_kv_sequences(struct bop_kv_txn *txn, bop_kv_sequence_fn *fn,
                                          void *context);

/** Three numbers of the caller's, and the transaction that set them last (0: none). */
struct bop_kv_canary {
    uint64_t x, y, z;
    uint64_t version;
};
BOP_API BOP_MUST_USE int bop_kv_canary_get(struct bop_kv_txn *txn, struct bop_kv_canary *out);
/** version is not read. */
BOP_API BOP_MUST_USE int bop_kv_canary_set(struct bop_kv_txn *txn,
                                           const struct bop_kv_canary *canary);

#endif
