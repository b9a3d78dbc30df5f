/*
 * How far records got, who may append and when, and what brings records further: flush, seal
 * and fence.
 */
#include "internal.h"

enum bop_aof_level bop__level(const struct bop_aof *aof, enum bop_aof_level level)
{
    return level == BOP_AOF_DEFAULT ? aof->options.level : level;
}

uint64_t bop_aof_reached(const struct bop_aof *aof, enum bop_aof_level level)
{
    switch (bop__level(aof, level)) {
    case BOP_AOF_MEMORY:
        return aof->last;
    case BOP_AOF_OS:
        return bop_max_u64(aof->os.seq, aof->durable.seq);
    case BOP_AOF_TIER2:
        return bop_min_u64(aof->tier2, aof->last);
    default:
        return aof->durable.seq;
    }
}

/* ---- Refusals ---- */

int bop__refuse(struct bop_aof *aof, enum bop_aof_refusal refusal)
{
    static const int codes[] = {
        [BOP_AOF_REFUSED_ADMISSION] = BOP_ENOROOM,
        [BOP_AOF_REFUSED_FLUSH] = BOP_EFULL,
        [BOP_AOF_REFUSED_ROLLOVER] = BOP_EROLLOVER,
        [BOP_AOF_REFUSED_HYDRATION] = BOP_EHYDRATING,
    };

    aof->refused |= 1u << refusal;
    bop_metric_add(aof->metrics.refused[refusal], 1);
    return codes[refusal];
}

bool bop__is_rolled_full(const struct bop_aof *aof)
{
    return aof->archive && bop__archive_waiting(aof->archive) >= aof->options.sealed_max;
}

static int check_conditions(const struct bop_aof *aof, const struct bop_aof_append *append,
                            size_t count)
{
    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    if (append->epoch != 0 && append->epoch < aof->epoch) {
        return BOP_EFENCED;
    }
    if (append->expected_seq != 0 && append->expected_seq != aof->last + 1) {
        return BOP_ECONDITION;
    }
    return count > BOP__AOF_SEQ_MAX - aof->last ? BOP_EOVERFLOW : 0;
}

void bop_aof_look_for_room(struct bop_aof *aof)
{
    if (aof->no_room && aof->failed == 0) {
        aof->room_wanted = true;
        bop__jobs_start(aof);
    }
}

int bop__admit(struct bop_aof *aof, uint64_t bytes, const struct bop_aof_append *append,
               size_t count)
{
    int rc = check_conditions(aof, append, count);

    if (rc < 0 || count == 0) {
        return rc;
    }
    /* What is more than the bound all by itself is let in alone: it could never come else. */
    if (aof->pending_bytes > 0 && aof->pending_bytes + bytes > aof->options.pending_bytes_max) {
        return bop__refuse(aof, BOP_AOF_REFUSED_FLUSH);
    }
    if (aof->no_room) {
        /* Nobody else looks while nothing is written. */
        bop_aof_look_for_room(aof);
    }
    if (aof->no_room && !aof->options.keeps_without_room) {
        return bop__refuse(aof, BOP_AOF_REFUSED_ADMISSION);
    }
    return bop__is_rolled_full(aof) ? bop__refuse(aof, BOP_AOF_REFUSED_ROLLOVER) : 0;
}

/* ---- Flush ---- */

/* The last batch that takes or took records and was not sent. */
static struct bop__batch *last_unsent(const struct bop_aof *aof)
{
    struct bop__batch *batch;

    if (bop_list_empty(&aof->queue)) {
        return NULL;
    }
    batch = BOP_CONTAINER_OF(aof->queue.prev, struct bop__batch, link);
    return batch->state <= BOP__BATCH_READY && batch->size > 0 ? batch : NULL;
}

/* The last that was sent has a sync, and there is none behind it. */
static bool is_sync_under_way(const struct bop_aof *aof)
{
    const struct bop__batch *batch = NULL;

    if (!bop_list_empty(&aof->queue)) {
        batch = BOP_CONTAINER_OF(aof->queue.prev, struct bop__batch, link);
    }
    return batch && batch->sync;
}

int bop_aof_flush(struct bop_aof *aof, uint64_t seq)
{
    struct bop__batch *batch;

    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    if (bop_min_u64(seq, aof->last) <= aof->durable.seq) {
        return 0;
    }
    batch = last_unsent(aof);
    if (batch) {
        batch->sync = true;
    } else if (!is_sync_under_way(aof)) {
        batch = bop__batch_new(aof, 0);
        if (!batch) {
            return BOP_ENOMEM;
        }
        /* One that begins a segment and has no records has no bytes to be written. */
        bop__batch_close(aof);
        batch->sync = true;
        bop__batch_open(aof, batch, bop__aof_newest(aof));
        bop__batch_close(aof);
    }
    bop__pump(aof);
    return 0;
}

/* ---- Seal and fence ---- */

/* Begin a segment behind the last record. */
static int begin_behind(struct bop_aof *aof)
{
    struct bop__segment *blank;
    struct bop__batch *batch;
    int rc = bop__aof_blank_segment(aof, &blank, &batch);

    if (rc < 0) {
        return rc;
    }
    bop__batch_close(aof);
    bop__aof_begin_segment(aof, batch, blank, bop__aof_segment_size(aof, 0), 0);
    bop__pump(aof);
    return 0;
}

int bop_aof_seal(struct bop_aof *aof)
{
    const struct bop__segment *newest = bop__aof_newest(aof);

    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    return newest->end_seq > newest->base ? begin_behind(aof) : 0;
}

int bop_aof_fence(struct bop_aof *aof, uint64_t epoch)
{
    uint64_t before = aof->epoch;
    int rc;

    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    if (epoch <= before) {
        return epoch < before ? BOP_EFENCED : 0;
    }
    aof->epoch = epoch;
    rc = begin_behind(aof);
    if (rc < 0) {
        aof->epoch = before;
    }
    return rc;
}

uint64_t bop_aof_epoch(const struct bop_aof *aof)
{
    return aof->epoch;
}

/* ---- Status ---- */

void bop_aof_id(const struct bop_aof *aof, uint8_t out_id[BOP_AOF_ID_SIZE])
{
    memcpy(out_id, aof->id, BOP_AOF_ID_SIZE);
}

void bop_aof_status(const struct bop_aof *aof, struct bop_aof_status *out_status)
{
    const struct bop__segment *newest = bop__aof_newest(aof);
    const struct bop__handle *handle = aof->writing ? aof->writing->handle : NULL;

    *out_status = (struct bop_aof_status){
        .first = bop_aof_first(aof),
        .oldest = bop_min_u64(aof->oldest, bop_aof_first(aof)),
        .last = aof->last,
        .os = bop_aof_reached(aof, BOP_AOF_OS),
        .durable = aof->durable.seq,
        .tier2 = bop_aof_reached(aof, BOP_AOF_TIER2),
        .epoch = aof->epoch,
        .generation = newest->generation,
        .pending_bytes = aof->pending_bytes,
        .segments = (unsigned)aof->segment_count,
        .writes = aof->writes,
        .writes_max = aof->writes_max,
        .rehomed = aof->rehomed,
        .direct = handle && handle->direct,
        .method = aof->executor->method ? aof->executor->method : "task",
        .no_room = aof->no_room,
        .failed = aof->failed,
    };
    for (size_t i = 0; i < aof->segment_count; i++) {
        out_status->local_bytes += aof->segments[i]->end;
    }
    out_status->archived = bop__archived_count(aof);
}
