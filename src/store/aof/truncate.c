/*
 * Truncation: never by changing a file, always by a new segment, ordered among the
 * appends, whose header says what is void from then on: records of older segments
 * at or above its base, and segments below its front.
 */
#include "internal.h"

/* Make last_kept, which ends at `end`, the last record and begin a segment after it, without the
 * oldest `drop`. */
static void cut(struct bop_aof *aof, struct bop__batch *batch, struct bop__segment *blank,
                struct bop__watermark last_kept, uint32_t link, size_t drop)
{
    bop__batch_close(aof);
    bop__batches_clip(aof, last_kept.seq, last_kept.end);
    if (aof->os.seq > last_kept.seq) {
        aof->os = last_kept;
    }
    if (aof->durable.seq > last_kept.seq) {
        aof->durable = last_kept;
    }
    if (aof->last > last_kept.seq) {
        bop__aof_catalogue_truncate(&aof->catalogue, last_kept.seq, last_kept.end);
    }
    aof->told_os = bop_min_u64(aof->told_os, last_kept.seq);
    aof->told_durable = bop_min_u64(aof->told_durable, last_kept.seq);
    aof->told_tier2 = bop_min_u64(aof->told_tier2, last_kept.seq);
    aof->tier2 = bop_min_u64(aof->tier2, last_kept.seq);
    aof->published_os = aof->os;
    aof->published_durable = aof->durable.seq;
    aof->last = last_kept.seq;
    aof->tail_link = link;
    bop__aof_begin_segment(aof, batch, blank, bop__aof_segment_size(aof, 0), drop);
    bop__pump(aof);
    bop__aof_update_metrics(aof);
    bop__aof_check(aof);
}

/* The archive drops what is void before the log does: it must not outlive it. */
static int cut_archive(struct bop_aof *aof, uint64_t last_kept)
{
    return aof->archive ? bop__archive_truncate_back(aof->archive, last_kept, NULL) : 0;
}

int bop_aof_truncate_back(struct bop_aof *aof, uint64_t last_kept)
{
    struct bop__watermark kept = {.seq = last_kept};
    uint64_t first = bop_aof_first(aof);
    struct bop__segment *segment = NULL;
    struct bop__segment *blank;
    struct bop__batch *batch;
    uint32_t link = aof->segments[0]->seed;
    int rc = 0;

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
        rc = bop__aof_link_of(aof, last_kept, &link, &kept.end);
    }
    if (rc == 0) {
        rc = bop__aof_blank_segment(aof, &blank, &batch);
    }
    if (rc < 0) {
        return rc;
    }
    rc = cut_archive(aof, last_kept);
    if (rc < 0) {
        bop__segment_free(aof, blank);
        bop__batch_free(aof, batch);
        return rc;
    }
    bop__batch_close(aof);
    if (segment && last_kept + 1 < segment->end_seq) {
        bop__segment_cut(segment, last_kept + 1, kept.end, link);
        segment->cut_by = aof->generation + 1; /* The one that is begun below. */
        aof->archive_told = bop_min_u64(aof->archive_told, segment->base);
        bop__seal_again(aof, segment);
    }
    cut(aof, batch, blank, kept, link, 0);
    return 0;
}

int bop_aof_reset(struct bop_aof *aof, uint64_t first)
{
    struct bop__watermark kept = {.seq = first - 1};
    struct bop__segment *blank;
    struct bop__batch *batch;
    int rc;

    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    if (first == 0 || first > BOP__AOF_SEQ_MAX) {
        return BOP_EINVAL;
    }
    rc = bop__aof_blank_segment(aof, &blank, &batch);
    if (rc < 0) {
        return rc;
    }
    rc = cut_archive(aof, 0);
    if (rc < 0) {
        bop__segment_free(aof, blank);
        bop__batch_free(aof, batch);
        return rc;
    }
    bop__batch_close(aof);
    aof->durable = aof->os = kept;
    aof->front = first;
    aof->oldest = first;
    aof->archive_told = 0;
    for (size_t i = 0; i < aof->segment_count; i++) {
        bop__aof_catalogue_drop(&aof->catalogue, aof->segments[i]->file);
    }
    bop__aof_catalogue_truncate(&aof->catalogue, 0, 0);
    bop__aof_catalogue_publish(&aof->catalogue, kept, kept);
    bop__aof_catalogue_oldest(&aof->catalogue, first);
    cut(aof, batch, blank, kept, 0, aof->segment_count);
    aof->told_os = aof->told_durable = kept.seq;
    return 0;
}

/* The archive has what may go, or there is none. */
static bool may_leave(const struct bop_aof *aof, const struct bop__segment *segment)
{
    return !aof->options.tiers || segment->end_seq - 1 <= aof->tier2;
}

int bop_aof_truncate_front(struct bop_aof *aof, uint64_t first_kept)
{
    struct bop__watermark last = {.seq = aof->last, .end = bop__aof_newest(aof)->records_end};
    struct bop__segment *blank;
    struct bop__batch *batch;
    size_t drop = 0;
    int rc;

    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    while (drop + 1 < aof->segment_count && aof->segments[drop + 1]->base <= first_kept &&
           may_leave(aof, aof->segments[drop])) {
        drop++;
    }
    if (drop == 0) {
        return 0;
    }
    rc = bop__aof_blank_segment(aof, &blank, &batch);
    if (rc < 0) {
        return rc;
    }
    cut(aof, batch, blank, last, aof->tail_link, drop);
    return 0;
}
