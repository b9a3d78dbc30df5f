/*
 * Truncation: never by changing a file, always by a new segment, ordered among the
 * appends, whose header says what is void from then on: records of older segments
 * at or above its base, and segments below its front.
 */
#include "internal.h"

/* Get hold of a segment and of room for it and for `ops`; on success the lock is held. */
static int prepare(struct bop_aof *aof, size_t ops, struct bop__segment **out_blank,
                   struct bop__batch **out_batch)
{
    struct bop__segment *blank = bop__segment_new(aof->allocator);
    int rc = blank ? bop__aof_segments_reserve(aof, 1) : BOP_ENOMEM;

    if (rc == 0) {
        rc = bop__batch_enter(aof, 0, ops, out_batch);
    }
    if (rc != 0) {
        bop__segment_free(aof->allocator, blank);
        return rc;
    }
    *out_blank = blank;
    return 0;
}

/* Make last_kept the last record and begin a segment after it, without the oldest `drop`. */
static void cut(struct bop_aof *aof, struct bop__batch *batch, struct bop__segment *blank,
                uint64_t last_kept, uint32_t link, size_t drop)
{
    bop__batch_clip(aof, last_kept);
    aof->last = last_kept;
    aof->tail_link = link;
    bop__aof_begin_segment(aof, batch, blank, aof->options.segment_bytes, drop);
    bop__batch_leave(aof, batch);
    bop__aof_update_metrics(aof);
    bop__aof_check(aof);
}

int bop_aof_truncate_back(struct bop_aof *aof, uint64_t last_kept)
{
    uint64_t first = bop_aof_first(aof);
    struct bop__segment *segment = NULL;
    struct bop__segment *blank;
    struct bop__batch *batch;
    uint32_t link = 0;
    uint64_t end = 0;
    int rc;

    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    if (last_kept + 1 < first || last_kept > aof->last) {
        return BOP_EINVAL;
    }
    if (last_kept == aof->last) {
        return 0;
    }
    if (last_kept >= first) {
        segment = bop__aof_segment_of(aof, last_kept);
        rc = bop__aof_link_of(aof, last_kept, &link, &end);
        if (rc < 0) {
            return rc;
        }
    }
    rc = prepare(aof, aof->segment_count + 1, &blank, &batch);
    if (rc != 0) {
        return rc;
    }
    if (segment) {
        bop__segment_cut(segment, last_kept + 1, end, link);
    }
    aof->durable = bop_min_u64(aof->durable, last_kept);
    cut(aof, batch, blank, last_kept, link, 0);
    return 0;
}

int bop_aof_reset(struct bop_aof *aof, uint64_t first)
{
    struct bop__segment *blank;
    struct bop__batch *batch;
    int rc;

    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    if (first == 0 || first > BOP__AOF_SEQ_MAX) {
        return BOP_EINVAL;
    }
    rc = prepare(aof, aof->segment_count + 1, &blank, &batch);
    if (rc != 0) {
        return rc;
    }
    aof->durable = first - 1;
    cut(aof, batch, blank, first - 1, 0, aof->segment_count);
    return 0;
}

int bop_aof_truncate_front(struct bop_aof *aof, uint64_t first_kept)
{
    struct bop__segment *blank;
    struct bop__batch *batch;
    size_t drop = 0;
    int rc;

    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    while (drop + 1 < aof->segment_count && aof->segments[drop + 1]->base <= first_kept) {
        drop++;
    }
    if (drop == 0) {
        return 0;
    }
    /* One that is empty is replaced, and so leaves too. */
    rc = prepare(aof, drop + 2, &blank, &batch);
    if (rc != 0) {
        return rc;
    }
    cut(aof, batch, blank, aof->last, aof->tail_link, drop);
    return 0;
}
