/*
 * A key-value store as lines of JSON, which `bop kv dump` writes and `bop kv load` reads.
 *
 *     {"bop-kv-dump":1}
 *     {"sequence":"ids","number":"17"}
 *     {"canary":["1","2","3"]}
 *     {"table":"users","flags":["dup-sort"]}
 *     {"key":"a","value":"b"}
 *
 * Entries belong to the table above them and stand in its order. Numbers are in strings, for JSON's
 * are exact to 2^53 only.
 */
#ifndef BOP_CLI_KV_TEXT_H
#define BOP_CLI_KV_TEXT_H

#include <bop/kv.h>
#include <bop/slice.h>

/* ---- Writing ---- */

struct kv_writer {
    struct bop_kv_txn *txn; /* To be set, as all down to user. */
    const char *table;      /* This one alone. NULL: all, with sequences and canary. */
    /* There is text: take all of it, unless it is to grow. 0 or a code, which ends it. */
    int (*flush)(void *user, bool last);
    void *user;
    struct bop_buf text;
    uint64_t entries;
    bool table_seen;
};

void kv_writer_init(struct kv_writer *writer);
void kv_writer_deinit(struct kv_writer *writer);
/** Write all. 0, or a code of the store's or of flush. */
BOP_MUST_USE int kv_write(struct kv_writer *writer);

/* ---- Reading ---- */

struct kv_reader {
    struct bop_kv_txn *txn; /* To be set. */
    struct bop_kv_table table;
    bool in_table;
    bool headed;
    unsigned put_flags;
    struct bop_buf key;
    struct bop_buf value;
    uint64_t entries;
    struct bop_error err; /* What is wrong with a line. */
};

void kv_reader_init(struct kv_reader *reader);
void kv_reader_deinit(struct kv_reader *reader);
/** Take a line. 0, or a code: err says what is wrong, or the store has no more. The transaction is
 * to be given up then. */
BOP_MUST_USE int kv_read_line(struct kv_reader *reader, struct bop_slice line);
/** There are no more. */
BOP_MUST_USE int kv_read_end(struct kv_reader *reader);

#endif
