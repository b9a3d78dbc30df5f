/*
 * Appending: records are encoded into the collecting batch, at the places in
 * the segments that they will have.
 *
 * An append first plans what it needs (bytes, new segments) and gets hold of all of
 * it; then nothing can fail any more, so it is all or none.
 */
#include "internal.h"

struct plan {
    uint64_t bytes;
    size_t begins; /* Segments to begin. */
};

static uint64_t payload_size(const struct bop_aof_record *record)
{
    return (uint64_t)record->head.size + record->body.size;
}

static bool fits(uint64_t end, uint64_t record_size, uint64_t segment_size)
{
    return end + record_size <= segment_size;
}

/* The size of a segment whose first record has this size. */
static uint64_t segment_size_for(const struct bop_aof *aof, uint64_t record_size)
{
    return bop_max_u64(aof->options.segment_bytes, BOP__AOF_SEGMENT_HEADER + record_size);
}

static int make_plan(const struct bop_aof *aof, const struct bop_aof_record *records, size_t count,
                     struct plan *out_plan)
{
    const struct bop__segment *active = aof->segments[aof->segment_count - 1];
    uint64_t end = active->end;
    uint64_t segment_size = active->size;
    struct plan plan = {0};

    for (size_t i = 0; i < count; i++) {
        uint64_t size;

        if (records[i].head.size > BOP_AOF_RECORD_MAX ||
            records[i].body.size > BOP_AOF_RECORD_MAX ||
            payload_size(&records[i]) > BOP_AOF_RECORD_MAX) {
            return BOP_ETOOBIG;
        }
        size = bop__aof_record_size(payload_size(&records[i]));
        if (!fits(end, size, segment_size)) {
            plan.begins++;
            end = BOP__AOF_SEGMENT_HEADER;
            segment_size = segment_size_for(aof, size);
        }
        end += size;
        plan.bytes += size;
    }
    *out_plan = plan;
    return 0;
}

/* Put segments without identity on a list. */
static int make_blanks(struct bop_aof *aof, size_t count, struct bop_list *out_blanks)
{
    bop_list_init(out_blanks);
    for (size_t i = 0; i < count; i++) {
        struct bop__segment *segment = bop__segment_new(aof->allocator);

        if (!segment) {
            goto fail;
        }
        bop_list_push_back(out_blanks, &segment->link);
    }
    return 0;

fail:
    BOP_LIST_FOR_EACH_SAFE(link, out_blanks) {
        bop__segment_free(aof->allocator, BOP_CONTAINER_OF(link, struct bop__segment, link));
    }
    bop_list_init(out_blanks);
    return BOP_ENOMEM;
}

/* Get hold of what a plan needs; on success the batch's lock is held. */
static int prepare(struct bop_aof *aof, const struct plan *plan, struct bop_list *out_blanks,
                   struct bop__batch **out_batch)
{
    /* Each new segment is an op and has a write; the first may replace one that is
     * empty but too small; and there is the write to the segment we are in. */
    size_t ops = plan->begins * 2 + 2;
    int rc = make_blanks(aof, plan->begins, out_blanks);

    if (rc == 0) {
        rc = bop__aof_segments_reserve(aof, plan->begins);
    }
    if (rc == 0) {
        rc = bop__batch_enter(aof, (size_t)plan->bytes, ops, out_batch);
    }
    if (rc != 0) {
        BOP_LIST_FOR_EACH_SAFE(link, out_blanks) {
            bop__segment_free(aof->allocator, BOP_CONTAINER_OF(link, struct bop__segment, link));
        }
    }
    return rc;
}

/* A segment leaves the log; its file goes after the ops so far are durable. */
static void leave(struct bop_aof *aof, struct bop__batch *batch, struct bop__segment *segment)
{
    bop__cursors_forget(aof, segment);
    bop__batch_add(batch, BOP__OP_REMOVE, segment);
}

struct bop__aof_segment_header bop__aof_next_header(struct bop_aof *aof, uint64_t base,
                                                    uint64_t front, uint64_t size)
{
    struct bop__aof_segment_header header = {
        .version = BOP__AOF_VERSION,
        .base = base,
        .generation = ++aof->generation,
        .size = size,
        .front = front,
        .seed = aof->tail_link,
        .epoch = aof->epoch,
    };

    memcpy(header.log_id, aof->id, sizeof(header.log_id));
    return header;
}

void bop__aof_begin_segment(struct bop_aof *aof, struct bop__batch *batch,
                            struct bop__segment *blank, uint64_t size, size_t drop)
{
    struct bop__aof_segment_header header;
    uint64_t base = aof->last + 1;
    size_t end = aof->segment_count;
    size_t kept;

    while (end > drop && aof->segments[end - 1]->base >= base) {
        end--;
    }
    kept = end - drop;
    header = bop__aof_next_header(aof, base, kept > 0 ? aof->segments[drop]->base : base, size);
    bop__segment_init(blank, &header);
    bop__batch_add(batch, BOP__OP_BEGIN, blank);
    /* After the op that makes them void. */
    for (size_t i = 0; i < drop; i++) {
        leave(aof, batch, aof->segments[i]);
    }
    for (size_t i = end; i < aof->segment_count; i++) {
        leave(aof, batch, aof->segments[i]);
    }
    BOP_ASSERT(kept < aof->segment_capacity);
    memmove(aof->segments, aof->segments + drop, kept * sizeof(*aof->segments));
    aof->segments[kept] = blank;
    aof->segment_count = kept + 1;
}

/* Encode a record at the end of the batch and of the newest segment. */
static void put_record(struct bop_aof *aof, struct bop__batch *batch,
                       const struct bop_aof_record *record)
{
    struct bop__segment *segment = aof->segments[aof->segment_count - 1];
    size_t length = (size_t)payload_size(record);
    size_t size = (size_t)bop__aof_record_size(length);
    uint8_t *at = batch->data.data + batch->data.size;
    uint8_t *payload = at + BOP__AOF_RECORD_HEADER;
    struct bop__aof_record_header header = {
        .seq = aof->last + 1,
        .tag = record->tag,
        .time_us = record->time_us,
        .durable_seq = aof->durable,
        .chain = segment->chain,
        .length = BOP__AOF_HEADER_MARK | (uint32_t)length,
    };

    if (record->head.size > 0) {
        memcpy(payload, record->head.data, record->head.size);
    }
    if (record->body.size > 0) {
        memcpy(payload + record->head.size, record->body.data, record->body.size);
    }
    memset(payload + length, 0, size - BOP__AOF_RECORD_HEADER - length);
    at[size - 1] = BOP__AOF_END_MARK;
    header.payload_crc = bop_crc32c(0, payload, length);
    header.header_crc = bop__aof_header_crc(segment->salt, &header);
    memcpy(at, &header, sizeof(header));

    batch->data.size += size;
    bop__batch_add_write(batch, segment, segment->end, size);
    bop__segment_index_add(aof->allocator, segment, header.seq, segment->end);
    segment->end += size;
    segment->end_seq = header.seq + 1;
    segment->chain = aof->tail_link = bop__aof_link(&header);
    aof->last = header.seq;
}

static void put_records(struct bop_aof *aof, struct bop__batch *batch, struct bop_list *blanks,
                        const struct bop_aof_record *records, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct bop__segment *segment = aof->segments[aof->segment_count - 1];
        uint64_t size = bop__aof_record_size(payload_size(&records[i]));

        if (!fits(segment->end, size, segment->size)) {
            struct bop_list *link = bop_list_pop_front(blanks);

            bop__aof_begin_segment(aof, batch, BOP_CONTAINER_OF(link, struct bop__segment, link),
                                   segment_size_for(aof, size), 0);
        }
        put_record(aof, batch, &records[i]);
    }
    BOP_ASSERT(bop_list_empty(blanks));
}

int bop_aof_append(struct bop_aof *aof, const struct bop_aof_record *records, size_t count)
{
    struct bop__batch *batch;
    struct bop_list blanks;
    struct plan plan;
    int rc;

    if (aof->failed != 0) {
        return BOP_EFAILED;
    }
    if (count == 0) {
        return 0;
    }
    if (count > BOP__AOF_SEQ_MAX - aof->last) {
        return BOP_EOVERFLOW;
    }
    rc = make_plan(aof, records, count, &plan);
    if (rc < 0) {
        return rc;
    }
    /* What is more than the bound all by itself is let in alone: it could never come else. */
    if (aof->pending_bytes > 0 &&
        aof->pending_bytes + plan.bytes > aof->options.pending_bytes_max) {
        return BOP_EFULL;
    }
    rc = prepare(aof, &plan, &blanks, &batch);
    if (rc != 0) {
        return rc;
    }
    put_records(aof, batch, &blanks, records, count);
    batch->records += count;
    batch->last_seq = aof->last;
    aof->pending_bytes += plan.bytes;
    bop__batch_leave(aof, batch);
    bop_metric_add(aof->metrics.appended_records, (int64_t)count);
    bop_metric_add(aof->metrics.appended_bytes, (int64_t)plan.bytes);
    bop_metric_set(aof->metrics.last_seq, (int64_t)aof->last);
    return 0;
}
