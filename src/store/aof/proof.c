/*
 * Proofs that a run of records belongs to a sealed segment: the leaf's bytes, and the siblings that
 * lead to the segment's root.
 */
#include <inttypes.h>

#include "internal.h"
#include "lookup.h"
#include "merkle.h"
#include "walk.h"

/* ---- Making ---- */

struct prover {
    struct bop__segment_source *source;
    struct bop__footer footer;
    struct bop__merkle merkle;
    const struct bop__footer_leaf *leaf;
    uint64_t end;      /* Where the leaf ends. */
    uint64_t last_seq; /* Its last record. */
};

/* Append the leaf's bytes, and see that they are those of its hash. */
static int copy_leaf(struct prover *p, struct bop_buf *out_bytes, struct bop_error *err)
{
    uint8_t hash[BOP_AOF_DIGEST_SIZE];
    uint64_t offset = p->leaf->offset;
    size_t begin = out_bytes->size;

    while (offset < p->end) {
        struct bop_slice bytes = {0};
        int rc = p->source->at(p->source, offset, (size_t)(p->end - offset), &bytes, err);

        if (rc < 0) {
            return rc;
        }
        if (bytes.size == 0) {
            return bop_error_set(err, BOP_ECORRUPT, "%s: ends in its records", p->source->name);
        }
        bytes.size = bop_min_u64(bytes.size, p->end - offset);
        rc = bop_buf_append(out_bytes, bytes.data, bytes.size);
        if (rc < 0) {
            return bop_error_set(err, rc, "prove record %" PRIu64, p->leaf->seq);
        }
        offset += bytes.size;
    }
    bop__merkle_clear(&p->merkle);
    bop__merkle_leaf_begin(&p->merkle);
    bop__merkle_leaf_add(&p->merkle, out_bytes->data + begin, out_bytes->size - begin);
    bop__merkle_leaf_end(&p->merkle, hash);
    if (memcmp(hash, p->leaf->hash, sizeof(hash)) != 0) {
        return bop_error_set(err, BOP_ECORRUPT,
                             "%s: records %" PRIu64 " to %" PRIu64
                             " are not those that were sealed",
                             p->source->name, p->leaf->seq, p->last_seq);
    }
    return 0;
}

static int make_proof(struct prover *p, struct bop_aof_proof *out_proof, struct bop_buf *out_bytes,
                      struct bop_error *err)
{
    const struct bop__footer *footer = &p->footer;
    struct bop__merkle_leaves leaves = {.first = footer->leaves[0].hash,
                                        .step = sizeof(footer->leaves[0]),
                                        .count = footer->leaf_count};
    struct bop_aof_proof proof = {.first_seq = p->leaf->seq,
                                  .last_seq = p->last_seq,
                                  .leaf = (uint64_t)(p->leaf - footer->leaves),
                                  .leaves = footer->leaf_count};
    int rc = copy_leaf(p, out_bytes, err);

    if (rc < 0) {
        return rc;
    }
    rc = bop__merkle_path(&p->merkle, &leaves, proof.leaf, proof.siblings);
    if (rc < 0) {
        return bop_error_set(err, rc, "prove record %" PRIu64, proof.first_seq);
    }
    proof.count = (uint32_t)rc;
    memcpy(proof.root, footer->facts.root, sizeof(proof.root));
    rc = bop_aof_proof_check(
        &proof,
        bop_slice(out_bytes->data + out_bytes->size - (p->end - p->leaf->offset),
                  (size_t)(p->end - p->leaf->offset)),
        proof.root);
    if (rc < 0) {
        return bop_error_set(err, rc, "%s: the footer's leaves do not lead to its root",
                             p->source->name);
    }
    *out_proof = proof;
    return 0;
}

static int prove_from(struct prover *p, struct bop_allocator *allocator,
                      const struct bop__place *place, uint64_t seq, struct bop_aof_proof *out_proof,
                      struct bop_buf *out_bytes, struct bop_error *err)
{
    int rc = bop__footer_read(allocator, p->source, false, &p->footer, err);
    bool last;

    if (rc < 0) {
        return rc;
    }
    if (p->footer.facts.generation != place->generation || p->footer.facts.base > seq ||
        p->footer.facts.end_seq <= seq) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: the footer is another segment's",
                             p->source->name);
    }
    p->leaf = bop__footer_find(&p->footer, seq);
    last = p->leaf + 1 == p->footer.leaves + p->footer.leaf_count;
    p->end = last ? p->footer.facts.end : p->leaf[1].offset;
    p->last_seq = (last ? p->footer.facts.end_seq : p->leaf[1].seq) - 1;
    return make_proof(p, out_proof, out_bytes, err);
}

int bop__prove(const struct bop__lookup *lookup, uint64_t seq, struct bop_aof_proof *out_proof,
               struct bop_buf *out_bytes, struct bop_error *err)
{
    size_t size_before = out_bytes->size;
    struct bop__place place = {0};
    struct prover p = {0};
    int rc = BOP_ENOTFOUND;

    for (int i = 0; i < BOP__LOOKUP_TRIES && rc == BOP_ENOTFOUND; i++) {
        bop__place_deinit(&place);
        rc = bop__lookup_seq(lookup, seq, &place);
        if (rc < 0) {
            return bop_error_set(err, rc, "prove record %" PRIu64, seq);
        }
        if (!place.sealed || place.facts.end_seq != place.end_seq) {
            bop__place_deinit(&place);
            return bop_error_set(err, BOP_EEND, "the segment of record %" PRIu64 " is not sealed",
                                 seq);
        }
        rc = bop__place_open(lookup, &place, &p.source, err);
    }
    if (rc == 0) {
        rc = bop__merkle_init(&p.merkle);
        if (rc == 0) {
            rc = prove_from(&p, lookup->allocator, &place, seq, out_proof, out_bytes, err);
        }
        bop__merkle_deinit(&p.merkle);
        bop__footer_deinit(&p.footer);
        p.source->close(p.source);
    }
    bop__place_deinit(&place);
    if (rc < 0) {
        out_bytes->size = size_before;
    }
    return rc;
}

int bop_aof_prove(struct bop_aof *aof, uint64_t seq, struct bop_aof_proof *out_proof,
                  struct bop_buf *out_bytes, struct bop_error *err)
{
    struct bop__lookup lookup = bop__lookup_in(aof, BOP_AOF_DISK, false, true);

    return bop__prove(&lookup, seq, out_proof, out_bytes, err);
}

/* ---- Checking ---- */

/* Whether bytes are whole entries, the records among which are first_seq to last_seq. Their
 * checksums need not be looked at: the root stands for every byte. */
static bool holds_records(struct bop_slice bytes, uint64_t first_seq, uint64_t last_seq)
{
    uint64_t seq = first_seq;
    size_t at = 0;

    if (last_seq < first_seq || last_seq > BOP__AOF_SEQ_MAX) {
        return false;
    }
    while (at < bytes.size) {
        struct bop__aof_record_header header;
        uint64_t size;

        if (bytes.size - at < BOP__AOF_RECORD_HEADER) {
            return false;
        }
        memcpy(&header, bytes.data + at, sizeof(header));
        size = bop__aof_record_size(bop__aof_record_length(&header));
        if (size > bytes.size - at || header.seq != seq) {
            return false;
        }
        seq += bop__aof_is_filler(&header) ? 0 : 1;
        at += (size_t)size;
    }
    return seq == last_seq + 1;
}

/* One proof has one form: what is not used is zero. */
static bool well_formed(const struct bop_aof_proof *proof)
{
    static const uint8_t zeros[BOP_AOF_DIGEST_SIZE];

    if (proof->count > BOP_AOF_PROOF_MAX || proof->leaf >= proof->leaves) {
        return false;
    }
    for (uint32_t i = proof->count; i < BOP_AOF_PROOF_MAX; i++) {
        if (memcmp(proof->siblings[i], zeros, sizeof(zeros)) != 0) {
            return false;
        }
    }
    return true;
}

int bop_aof_proof_check(const struct bop_aof_proof *proof, struct bop_slice bytes,
                        const uint8_t root[BOP_AOF_DIGEST_SIZE])
{
    uint8_t leaf[BOP_AOF_DIGEST_SIZE], found[BOP_AOF_DIGEST_SIZE];
    struct bop__merkle merkle;
    int rc;

    if (!well_formed(proof) || memcmp(proof->root, root, sizeof(proof->root)) != 0 ||
        !holds_records(bytes, proof->first_seq, proof->last_seq)) {
        return BOP_ECORRUPT;
    }
    rc = bop__merkle_init(&merkle);
    if (rc < 0) {
        return rc;
    }
    bop__merkle_leaf_begin(&merkle);
    bop__merkle_leaf_add(&merkle, bytes.data, bytes.size);
    bop__merkle_leaf_end(&merkle, leaf);
    rc = bop__merkle_fold(&merkle, leaf, proof->leaf, proof->leaves,
                          (const uint8_t(*)[BOP_AOF_DIGEST_SIZE])proof->siblings, proof->count,
                          found);
    bop__merkle_deinit(&merkle);
    if (rc == 0 && memcmp(found, root, sizeof(found)) != 0) {
        rc = BOP_ECORRUPT;
    }
    return rc;
}
