/*
 * Pairs of a key and a value as keys of entries, each pair there once and any number of
 * values to a key: multimaps and registries are made of them.
 *
 * The bytes sort by key and then by value: a head made of the key, and behind it the value.
 *
 *      head of a key      the key with FF behind each 00, then 00 01
 *      if above 240       the first 200 bytes of that, 00 02, SHA-256 of the key; the
 *                         entry's value is the whole key
 *
 * No head is the beginning of another one, so the pairs of a key are those whose store
 * keys begin with its head: they lie side by side, and a walk over them meets no others.
 */
#ifndef BOP_CLUSTER_MACHINE_PAIR_H
#define BOP_CLUSTER_MACHINE_PAIR_H

#include "machine_internal.h"

struct machine_head {
    bool cut; /* Of a long key. */
    size_t size;
    uint8_t bytes[MACHINE_PAIR_HEAD_MAX];
};

/** The head of a key. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__machine_head_make(struct bop_slice key, struct machine_head *out_head);

static inline struct bop_slice machine_head_slice(const struct machine_head *head)
{
    return bop_slice(head->bytes, head->size);
}

/** A pair taken apart. */
struct machine_pair {
    struct bop_slice head; /* Borrowed, as the others; the key perhaps from `unescaped`. */
    struct bop_slice key;
    struct bop_slice value;
    uint8_t unescaped[MACHINE_PAIR_HEAD_MAX];
};

/** The pair as an entry without a version: its key is put into buf, key is borrowed. */
BOP_MUST_USE int bop__machine_pair_encode(const struct machine_head *head, struct bop_slice key,
                                          struct bop_slice value, struct bop_buf *buf,
                                          struct machine_entry *out_entry);
BOP_MUST_USE int bop__machine_pair_decode(const struct machine_entry *entry,
                                          struct machine_pair *out_pair);

/** Look for a pair. As bop__machine_entry_find(); BOP_EEXISTS for
 * a digest met twice, too. */
BOP_MUST_USE int bop__machine_pair_find(struct bop_kv_txn *txn, struct bop_kv_table table,
                                        const struct machine_key *store_key,
                                        const struct machine_entry *wanted);

/** A walk over pairs of a collection while they begin with head (empty: all). */
struct machine_pairs {
    struct machine_walk walk;
    struct bop_slice head;
    struct machine_pair pair; /* The one it is at. */
};

/** Begin; BOP_ENOTFOUND if there is no such collection. To be ended by bop__machine_walk_end(). */
BOP_MUST_USE int bop__machine_pairs_begin(struct machine_pairs *pairs, struct machine_view *view,
                                          enum collection_kind kind, struct bop_slice name,
                                          struct bop_slice head);
/** To the first pair; or, of a page that goes on, to the first behind the last one's end. page may
 * be NULL. 0 or BOP_ENOTFOUND, as the next two. */
BOP_MUST_USE int bop__machine_pairs_first(struct machine_pairs *pairs,
                                          const struct machine_page *page);
BOP_MUST_USE int bop__machine_pairs_next(struct machine_pairs *pairs);
/** To the first pair of the key behind the one with this head. */
BOP_MUST_USE int bop__machine_pairs_next_key(struct machine_pairs *pairs, struct bop_slice head);

#endif
