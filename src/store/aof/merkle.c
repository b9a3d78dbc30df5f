/*
 * Hashing by OpenSSL, and the tree over it.
 *
 * Adding leaf n merges as many peaks as n ends in one bits, as a binary counter carries. The root
 * folds what peaks there are from the smallest, which is what "the largest power of two below n"
 * on each level comes to.
 */
#include "merkle.h"

#include <openssl/evp.h>

#define LEAF_PREFIX 0x00
#define NODE_PREFIX 0x01

_Static_assert(BOP_AOF_PROOF_MAX < 64, "counts of leaves can be shifted by a level");

/* ---- Hashing ---- */

static void hash_begin(struct bop__merkle *merkle)
{
    if (EVP_DigestInit_ex(merkle->context, merkle->method, NULL) != 1) {
        merkle->failed = true;
    }
}

static void hash_add(struct bop__merkle *merkle, const void *bytes, size_t size)
{
    if (EVP_DigestUpdate(merkle->context, bytes, size) != 1) {
        merkle->failed = true;
    }
}

static void hash_end(struct bop__merkle *merkle, uint8_t out_hash[BOP_AOF_DIGEST_SIZE])
{
    if (EVP_DigestFinal_ex(merkle->context, out_hash, NULL) != 1) {
        merkle->failed = true;
        memset(out_hash, 0, BOP_AOF_DIGEST_SIZE);
    }
}

/* out_hash may be one of the two. */
static void hash_node(struct bop__merkle *merkle, const uint8_t left[BOP_AOF_DIGEST_SIZE],
                      const uint8_t right[BOP_AOF_DIGEST_SIZE],
                      uint8_t out_hash[BOP_AOF_DIGEST_SIZE])
{
    uint8_t bytes[1 + 2 * BOP_AOF_DIGEST_SIZE];

    bytes[0] = NODE_PREFIX;
    memcpy(bytes + 1, left, BOP_AOF_DIGEST_SIZE);
    memcpy(bytes + 1 + BOP_AOF_DIGEST_SIZE, right, BOP_AOF_DIGEST_SIZE);
    hash_begin(merkle);
    hash_add(merkle, bytes, sizeof(bytes));
    hash_end(merkle, out_hash);
}

int bop__merkle_init(struct bop__merkle *merkle)
{
    *merkle = (struct bop__merkle){.method = EVP_MD_fetch(NULL, "SHA256", NULL),
                                   .context = EVP_MD_CTX_new()};
    if (!merkle->method || !merkle->context) {
        bop__merkle_deinit(merkle);
        return BOP_ENOMEM;
    }
    BOP_ASSERT(EVP_MD_get_size(merkle->method) == BOP_AOF_DIGEST_SIZE);
    return 0;
}

void bop__merkle_deinit(struct bop__merkle *merkle)
{
    EVP_MD_CTX_free(merkle->context);
    EVP_MD_free(merkle->method);
    merkle->context = NULL;
    merkle->method = NULL;
}

void bop__merkle_leaf_begin(struct bop__merkle *merkle)
{
    static const uint8_t prefix = LEAF_PREFIX;

    hash_begin(merkle);
    hash_add(merkle, &prefix, sizeof(prefix));
}

void bop__merkle_leaf_add(struct bop__merkle *merkle, const void *bytes, size_t size)
{
    hash_add(merkle, bytes, size);
}

void bop__merkle_leaf_end(struct bop__merkle *merkle, uint8_t out_hash[BOP_AOF_DIGEST_SIZE])
{
    hash_end(merkle, out_hash);
    bop__merkle_push(merkle, out_hash);
}

/* ---- The tree ---- */

void bop__merkle_clear(struct bop__merkle *merkle)
{
    merkle->leaves = 0;
    merkle->peak_count = 0;
}

void bop__merkle_push(struct bop__merkle *merkle, const uint8_t hash[BOP_AOF_DIGEST_SIZE])
{
    uint8_t node[BOP_AOF_DIGEST_SIZE];

    BOP_ASSERT(merkle->leaves >> BOP_AOF_PROOF_MAX == 0);
    memcpy(node, hash, sizeof(node));
    for (uint64_t carry = merkle->leaves; carry & 1; carry >>= 1) {
        merkle->peak_count--;
        hash_node(merkle, merkle->peaks[merkle->peak_count], node, node);
    }
    memcpy(merkle->peaks[merkle->peak_count], node, sizeof(node));
    merkle->peak_count++;
    merkle->leaves++;
}

int bop__merkle_root(struct bop__merkle *merkle, uint8_t out_root[BOP_AOF_DIGEST_SIZE])
{
    uint8_t node[BOP_AOF_DIGEST_SIZE];

    if (merkle->peak_count == 0) {
        hash_begin(merkle);
        hash_end(merkle, node);
    } else {
        memcpy(node, merkle->peaks[merkle->peak_count - 1], sizeof(node));
        for (unsigned peak = merkle->peak_count - 1; peak-- > 0;) {
            hash_node(merkle, merkle->peaks[peak], node, node);
        }
    }
    if (merkle->failed) {
        return BOP_ENOMEM;
    }
    memcpy(out_root, node, sizeof(node));
    return 0;
}

static int root_of(struct bop__merkle *merkle, const struct bop__merkle_leaves *leaves,
                   uint64_t from, uint64_t to, uint8_t out_root[BOP_AOF_DIGEST_SIZE])
{
    bop__merkle_clear(merkle);
    for (uint64_t i = from; i < to; i++) {
        bop__merkle_push(merkle, leaves->first + i * leaves->step);
    }
    return bop__merkle_root(merkle, out_root);
}

int bop__merkle_path(struct bop__merkle *merkle, const struct bop__merkle_leaves *leaves,
                     uint64_t index, uint8_t out_siblings[BOP_AOF_PROOF_MAX][BOP_AOF_DIGEST_SIZE])
{
    uint8_t siblings[BOP_AOF_PROOF_MAX][BOP_AOF_DIGEST_SIZE];
    uint64_t from = 0, to = leaves->count;
    int count = 0;
    int rc;

    BOP_ASSERT(index < leaves->count && leaves->count >> BOP_AOF_PROOF_MAX == 0);
    while (to - from > 1) {
        uint64_t half = UINT64_C(1) << (63 - __builtin_clzll(to - from - 1));
        uint64_t middle = from + half;

        if (index < middle) {
            rc = root_of(merkle, leaves, middle, to, siblings[count]);
            to = middle;
        } else {
            rc = root_of(merkle, leaves, from, middle, siblings[count]);
            from = middle;
        }
        if (rc < 0) {
            return rc;
        }
        count++;
    }
    for (int i = 0; i < count; i++) {
        memcpy(out_siblings[i], siblings[count - 1 - i], BOP_AOF_DIGEST_SIZE);
    }
    return count;
}

int bop__merkle_fold(struct bop__merkle *merkle, const uint8_t leaf[BOP_AOF_DIGEST_SIZE],
                     uint64_t index, uint64_t leaves,
                     const uint8_t (*siblings)[BOP_AOF_DIGEST_SIZE], uint32_t sibling_count,
                     uint8_t out_root[BOP_AOF_DIGEST_SIZE])
{
    uint8_t node[BOP_AOF_DIGEST_SIZE];
    uint64_t last = leaves - 1; /* The last node of the level, as `index` is ours. */

    if (index >= leaves || sibling_count > BOP_AOF_PROOF_MAX) {
        return BOP_ECORRUPT;
    }
    memcpy(node, leaf, sizeof(node));
    for (uint32_t i = 0; i < sibling_count; i++) {
        if (last == 0) {
            return BOP_ECORRUPT;
        }
        if (index & 1 || index == last) {
            hash_node(merkle, siblings[i], node, node);
            /* A last node without a right neighbour goes up as it is. */
            while (!(index & 1) && index > 0) {
                index >>= 1;
                last >>= 1;
            }
        } else {
            hash_node(merkle, node, siblings[i], node);
        }
        index >>= 1;
        last >>= 1;
    }
    if (merkle->failed) {
        return BOP_ENOMEM;
    }
    if (last != 0) {
        return BOP_ECORRUPT;
    }
    memcpy(out_root, node, sizeof(node));
    return 0;
}
