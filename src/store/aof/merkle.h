/*
 * Merkle trees over the leaves of a segment, as RFC 9162 (Certificate Transparency 2) hashes them
 * with SHA-256: a leaf is SHA-256(0x00, bytes), a node SHA-256(0x01, left, right), and of n leaves
 * the left side has the largest power of two below n.
 *
 * A tree is built from its leaves in order, in memory of fixed size: `peaks` are the roots of the
 * whole trees that the binary digits of the count stand for, biggest first.
 */
#ifndef BOP_STORE_AOF_MERKLE_H
#define BOP_STORE_AOF_MERKLE_H

#include <bop/aof.h>

/* OpenSSL's. */
struct evp_md_st;
struct evp_md_ctx_st;

struct bop__merkle {
    struct evp_md_st *method;
    struct evp_md_ctx_st *context;
    bool failed; /* A hash failed, for lack of memory: all later results are worth nothing. */
    uint64_t leaves;
    unsigned peak_count;
    uint8_t peaks[BOP_AOF_PROOF_MAX][BOP_AOF_DIGEST_SIZE];
};

/** An empty tree. 0 or BOP_ENOMEM; deinit accepts both, and a zeroed one. */
int bop__merkle_init(struct bop__merkle *merkle);
void bop__merkle_deinit(struct bop__merkle *merkle);

/* The next leaf, in pieces. Begin, add any number of times, and end, which gives its hash. */
void bop__merkle_leaf_begin(struct bop__merkle *merkle);
void bop__merkle_leaf_add(struct bop__merkle *merkle, const void *bytes, size_t size);
void bop__merkle_leaf_end(struct bop__merkle *merkle, uint8_t out_hash[BOP_AOF_DIGEST_SIZE]);

/** Forget the leaves. */
void bop__merkle_clear(struct bop__merkle *merkle);
/** Add a leaf by its hash. */
void bop__merkle_push(struct bop__merkle *merkle, const uint8_t hash[BOP_AOF_DIGEST_SIZE]);
/** The root of all leaves; SHA-256 of nothing if there are none. 0 or BOP_ENOMEM. */
int bop__merkle_root(struct bop__merkle *merkle, uint8_t out_root[BOP_AOF_DIGEST_SIZE]);

/** Leaf hashes where they are: `step` bytes from one to the next. */
struct bop__merkle_leaves {
    const uint8_t *first;
    size_t step;
    uint64_t count;
};

/**
 * The siblings that lead from one leaf, which there is, to the root, from the leaf up. The tree's
 * own leaves are forgotten. Returns how many, or BOP_ENOMEM.
 */
int bop__merkle_path(struct bop__merkle *merkle, const struct bop__merkle_leaves *leaves,
                     uint64_t index, uint8_t out_siblings[BOP_AOF_PROOF_MAX][BOP_AOF_DIGEST_SIZE]);

/**
 * The root that a leaf and its siblings lead to (RFC 9162, 2.1.3.2). 0, BOP_ENOMEM, or BOP_ECORRUPT
 * if there is no such leaf or it has another number of siblings.
 */
int bop__merkle_fold(struct bop__merkle *merkle, const uint8_t leaf[BOP_AOF_DIGEST_SIZE],
                     uint64_t index, uint64_t leaves,
                     const uint8_t (*siblings)[BOP_AOF_DIGEST_SIZE], uint32_t sibling_count,
                     uint8_t out_root[BOP_AOF_DIGEST_SIZE]);

#endif
