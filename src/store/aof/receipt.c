/*
 * What became of a record with a receipt.
 *
 * A receipt names the segment, the place in it and the record's link, which stands for the record
 * and all before it in the segment. The same link at the same place is the same record. In another
 * segment links differ: there the record is the one if that segment says that it took the first
 * one's tail over, and else it is another, appended after the first was truncated or lost.
 */
#include <inttypes.h>

#include "internal.h"
#include "stream.h"

/* How the record that has the number now relates to the receipt's. */
enum identity {
    SAME,
    SUCCESSOR, /* It was appended when that had been dropped. */
    STRANGER,
};

/* The header block of the segment that r stands in. */
static int read_header(struct bop_aof_reader *r, struct bop__aof_segment_header *out_header,
                       struct bop_error *err)
{
    struct bop__segment_source *source = r->segment->source;
    struct bop_slice bytes = {0};
    int rc;

    r->walk.held = 0;
    rc = source->at(source, 0, BOP__AOF_SEGMENT_HEADER, &bytes, err);
    if (rc < 0) {
        return rc;
    }
    if (bytes.size < BOP__AOF_SEGMENT_HEADER) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: ends in its header", source->name);
    }
    return bop__aof_segment_header_decode(bytes.data, source->name, out_header, err);
}

static int identify(struct bop_aof_reader *r, const struct bop_aof_receipt *receipt,
                    uint64_t offset, enum identity *out_identity, struct bop_error *err)
{
    struct bop__aof_segment_header header;
    int rc;

    *out_identity = STRANGER;
    if (r->generation == receipt->generation) {
        if (r->link == receipt->link && offset == receipt->offset) {
            *out_identity = SAME;
        }
        return 0;
    }
    if (r->generation < receipt->generation) {
        return 0; /* The receipt's segment is gone, and was not followed by another. */
    }
    rc = read_header(r, &header, err);
    if (rc < 0) {
        return rc;
    }
    *out_identity = SUCCESSOR;
    for (size_t i = 0; i < BOP__AOF_ORIGINS; i++) {
        if (header.origins[i] != 0 && header.origins[i] == receipt->generation) {
            *out_identity = SAME;
        }
    }
    return 0;
}

/* There is no record of the number that could be read. */
static enum bop_aof_verdict absent(const struct bop__lookup *lookup,
                                   const struct bop_aof_receipt *receipt)
{
    struct bop__catalogue_state state = bop__aof_catalogue_state(lookup->catalogue, BOP_AOF_OS);
    struct bop__file_view view;
    bool newer = false;

    if (receipt->seq < state.oldest) {
        return BOP_AOF_VERDICT_TRUNCATED;
    }
    if (receipt->seq <= atomic_load_explicit(&lookup->catalogue->last, memory_order_relaxed)) {
        return BOP_AOF_VERDICT_PENDING;
    }
    if (state.files > 0 &&
        bop__aof_catalogue_nth(lookup->catalogue, BOP_AOF_OS, state.files - 1, &view)) {
        newer = view.file->header.generation > receipt->generation;
        bop__segment_file_unref(view.file);
    }
    /* What was acknowledged from the disk is not lost: a segment was begun in its place. */
    return newer && receipt->level >= BOP_AOF_DISK ? BOP_AOF_VERDICT_TRUNCATED
                                                   : BOP_AOF_VERDICT_LOST;
}

/* Whether the record has got to where it was to get. */
static bool arrived(const struct bop__lookup *lookup, const struct bop_aof_receipt *receipt)
{
    if (receipt->level == BOP_AOF_TIER2) {
        return receipt->seq <=
               atomic_load_explicit(&lookup->catalogue->tier2, memory_order_relaxed);
    }
    return receipt->level == BOP_AOF_MEMORY || receipt->level == BOP_AOF_OS ||
           receipt->seq <= bop__aof_catalogue_state(lookup->catalogue, BOP_AOF_DISK).visible;
}

static int judge(struct bop_aof_reader *r, const struct bop_aof_receipt *receipt,
                 const struct bop_aof_view *view, struct bop_aof_verified *out_verified,
                 struct bop_error *err)
{
    uint64_t offset = r->walk.offset - bop__aof_record_size(view->payload.size);
    enum identity identity;
    int rc = identify(r, receipt, offset, &identity, err);

    if (rc < 0) {
        return rc;
    }
    *out_verified = (struct bop_aof_verified){.verdict = BOP_AOF_VERDICT_LOST, .tier = view->tier};
    if (identity == SAME) {
        out_verified->verdict = arrived(&r->lookup, receipt) ? BOP_AOF_VERDICT_KEPT
                                                             : BOP_AOF_VERDICT_PENDING;
        out_verified->generation = r->generation;
        out_verified->offset = offset;
    } else if (identity == SUCCESSOR && receipt->level >= BOP_AOF_DISK) {
        out_verified->verdict = BOP_AOF_VERDICT_TRUNCATED;
    }
    return 0;
}

int bop__verify(const struct bop__lookup *lookup, const struct bop_aof_receipt *receipt,
                struct bop_aof_verified *out_verified, struct bop_error *err)
{
    struct bop_aof_view view = {0};
    struct bop_aof_reader *r = NULL;
    int rc = bop__reader_open(lookup, lookup->allocator, &r);

    if (rc < 0) {
        return bop_error_set(err, rc, "verify record %" PRIu64, receipt->seq);
    }
    rc = bop_aof_reader_seek(r, receipt->seq, err);
    if (rc == 0) {
        rc = bop_aof_reader_next(r, &view, err);
    }
    if (rc == 0) {
        rc = judge(r, receipt, &view, out_verified, err);
    } else if (rc == BOP_ENOTFOUND || rc == BOP_EEND) {
        *out_verified = (struct bop_aof_verified){.verdict = absent(lookup, receipt)};
        rc = 0;
    }
    bop_aof_reader_close(r);
    return rc;
}

int bop_aof_verify(struct bop_aof *aof, const struct bop_aof_receipt *receipt,
                   struct bop_aof_verified *out_verified, struct bop_error *err)
{
    struct bop__lookup lookup = bop__lookup_in(aof, BOP_AOF_OS, false, true);

    if (memcmp(receipt->log_id, aof->id, sizeof(aof->id)) != 0) {
        return bop_error_say(err, BOP_EINVAL, "the receipt is of another log than %s", aof->path);
    }
    return bop__verify(&lookup, receipt, out_verified, err);
}
