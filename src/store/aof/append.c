/*
 * Appending: records are encoded into the open batch, at the places in the segments
 * that they will have.
 *
 * An append first plans what it needs (room in the open batch, more batches, new segments)
 * and gets hold of all of it; then nothing can fail any more, so it is all or none. Planning and
 * putting go by the same place_next(), so they agree.
 */
#include "internal.h"

/* ---- Places ---- */

/* Where the next record goes: into which segment, and behind how much of a commit. */
struct place {
    uint64_t end;
    uint64_t size; /* Of the segment. */
    bool aligned;  /* The segment is. */
    bool open;     /* There is an open batch. */
    size_t filled; /* Its size. */
};

enum step {
    STEP_ON,      /* Behind what is there. */
    STEP_BATCH,   /* In a new batch. */
    STEP_SEGMENT, /* In a new segment, and so in a new batch. */
};

static struct place place_now(const struct bop_aof *aof)
{
    const struct bop__segment *newest = bop__aof_newest(aof);

    return (struct place){
        .end = newest->end,
        .size = newest->size,
        .aligned = newest->aligned,
        .open = aof->open != NULL,
        .filled = aof->open ? aof->open->size : 0,
    };
}

static bool fits(const struct place *at, uint64_t record_size)
{
    uint64_t end = at->end + record_size;

    return end + (at->aligned ? bop__aof_filler_size(end) : 0) <= at->size;
}

uint64_t bop__aof_segment_size(const struct bop_aof *aof, uint64_t record_size)
{
    uint64_t end = BOP__AOF_SEGMENT_HEADER + record_size;

    if (aof->aligned) {
        end += bop__aof_filler_size(end);
    }
    return bop_max_u64(aof->options.segment_bytes, end);
}

static void close_place(struct place *at)
{
    if (at->open && at->filled > 0 && at->aligned) {
        at->end += bop__aof_filler_size(at->end);
    }
    at->open = false;
    at->filled = 0;
}

/* Go on by a record of this size. */
static enum step place_next(const struct bop_aof *aof, struct place *at, uint64_t size)
{
    enum step step = STEP_ON;

    if (at->filled > 0 && at->filled + size > BOP__AOF_BATCH_BYTES) {
        close_place(at);
    }
    if (!fits(at, size)) {
        close_place(at);
        at->end = BOP__AOF_SEGMENT_HEADER;
        at->size = bop__aof_segment_size(aof, size);
        at->aligned = aof->aligned;
        step = STEP_SEGMENT;
    } else if (!at->open) {
        step = STEP_BATCH;
    }
    at->open = true;
    at->end += size;
    at->filled += size;
    return step;
}

/* True if records of so many bytes all go behind what is there: what each of them by
 * itself would do then. */
static bool goes_on(const struct place *at, uint64_t bytes)
{
    return at->open && bytes <= BOP__AOF_BATCH_BYTES &&
           at->filled + bytes <= BOP__AOF_BATCH_BYTES && fits(at, bytes);
}

/* ---- Plans ---- */

void bop__plan_drop(struct bop_aof *aof, struct bop__plan *plan)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(&plan->batches)) != NULL) {
        bop__batch_free(aof, BOP_CONTAINER_OF(link, struct bop__batch, link));
    }
    bop__segments_free(aof, &plan->segments);
}

static struct bop__batch *next_batch(struct bop__plan *plan)
{
    struct bop_list *link = bop_list_pop_front(&plan->batches);

    BOP_ASSERT(link);
    return BOP_CONTAINER_OF(link, struct bop__batch, link);
}

static struct bop__segment *next_segment(struct bop__plan *plan)
{
    struct bop_list *link = bop_list_pop_front(&plan->segments);

    BOP_ASSERT(link);
    return BOP_CONTAINER_OF(link, struct bop__segment, link);
}

/* The batch that collects while planning has `filled` bytes: make room for them. */
static int plan_room(struct bop_aof *aof, struct bop__plan *plan, size_t filled)
{
    struct bop__batch *batch = aof->open;

    if (!bop_list_empty(&plan->batches)) {
        batch = BOP_CONTAINER_OF(plan->batches.prev, struct bop__batch, link);
    }
    return batch && filled > batch->size ? bop__batch_reserve(aof, batch, filled - batch->size) : 0;
}

static int plan_batch(struct bop_aof *aof, struct bop__plan *plan)
{
    struct bop__batch *batch = bop__batch_new(aof, 0);

    if (!batch) {
        return BOP_ENOMEM;
    }
    bop_list_push_back(&plan->batches, &batch->link);
    return 0;
}

static int plan_segment(struct bop_aof *aof, struct bop__plan *plan)
{
    struct bop__segment *segment = bop__segment_new(aof);

    if (!segment) {
        return BOP_ENOMEM;
    }
    bop_list_push_back(&plan->segments, &segment->link);
    return 0;
}

/* Plan one more record. */
static int plan_record(struct bop_aof *aof, struct bop__plan *plan, struct place *at, uint64_t size,
                       size_t *begins)
{
    size_t filled = at->filled;
    enum step step = place_next(aof, at, size);
    int rc = 0;

    plan->bytes += size;
    if (step == STEP_ON) {
        return 0;
    }
    /* What collected so far is complete. */
    rc = plan_room(aof, plan, filled);
    if (rc == 0) {
        rc = plan_batch(aof, plan);
    }
    if (rc == 0 && step == STEP_SEGMENT) {
        (*begins)++;
        rc = plan_segment(aof, plan);
    }
    return rc;
}

static void plan_init(struct bop__plan *plan)
{
    plan->bytes = 0;
    plan->goes_on = false;
    bop_list_init(&plan->batches);
    bop_list_init(&plan->segments);
}

static uint64_t payload_size(const struct bop_aof_record *record)
{
    return (uint64_t)record->head.size + record->body.size;
}

static bool is_too_big(const struct bop_aof_record *record)
{
    return record->head.size > BOP_AOF_RECORD_MAX || record->body.size > BOP_AOF_RECORD_MAX ||
           payload_size(record) > BOP_AOF_RECORD_MAX;
}

/* The last of a plan: what the batch that collects then needs, and places for segments. */
static int plan_end(struct bop_aof *aof, struct bop__plan *plan, const struct place *at,
                    size_t begins)
{
    int rc = plan_room(aof, plan, at->filled);

    return rc == 0 && begins > 0 ? bop__aof_segments_reserve(aof, begins) : rc;
}

/* Get hold of what records need. */
static int make_plan(struct bop_aof *aof, const struct bop_aof_record *records, size_t count,
                     uint64_t bytes, struct bop__plan *out_plan)
{
    struct place at = place_now(aof);
    size_t begins = 0;
    int rc = 0;

    plan_init(out_plan);
    if (goes_on(&at, bytes)) {
        out_plan->goes_on = true;
        out_plan->bytes = bytes;
        return plan_room(aof, out_plan, at.filled + (size_t)bytes);
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = plan_record(aof, out_plan, &at, bop__aof_record_size(payload_size(&records[i])),
                         &begins);
    }
    if (rc == 0) {
        rc = plan_end(aof, out_plan, &at, begins);
    }
    if (rc < 0) {
        bop__plan_drop(aof, out_plan);
    }
    return rc;
}

/* ---- Segments ---- */

/* A segment leaves the log; its file goes when the new one is durable. */
static void leave(struct bop_aof *aof, struct bop__batch *batch, struct bop__segment *segment)
{
    bop__cursors_forget(aof, segment);
    bop_list_remove(&segment->seal_link);
    segment->left = true;
    bop_list_push_back(&batch->removals, &segment->link);
}

struct bop__aof_segment_header bop__aof_next_header(struct bop_aof *aof, uint64_t base,
                                                    uint64_t size)
{
    struct bop__aof_segment_header header = {
        .version = BOP__AOF_VERSION,
        .base = base,
        .generation = ++aof->generation,
        .size = size,
        .front = bop_min_u64(aof->front, base),
        .seed = aof->tail_link,
        .flags = aof->aligned ? BOP__AOF_FLAG_ALIGNED : 0,
        .epoch = aof->epoch,
    };

    memcpy(header.log_id, aof->id, sizeof(header.log_id));
    return header;
}

int bop__aof_blank_segment(struct bop_aof *aof, struct bop__segment **out_segment,
                           struct bop__batch **out_batch)
{
    struct bop__segment *segment = bop__segment_new(aof);
    struct bop__batch *batch = segment ? bop__batch_new(aof, 0) : NULL;
    int rc = batch ? bop__aof_segments_reserve(aof, 1) : BOP_ENOMEM;

    if (rc < 0) {
        bop__segment_free(aof, segment);
        if (batch) {
            bop__batch_free(aof, batch);
        }
        return rc;
    }
    *out_segment = segment;
    *out_batch = batch;
    return 0;
}

void bop__aof_begin_segment(struct bop_aof *aof, struct bop__batch *batch,
                            struct bop__segment *blank, uint64_t size, size_t drop)
{
    struct bop__aof_segment_header header;
    uint64_t base = aof->last + 1;
    size_t end = aof->segment_count;
    size_t kept;

    BOP_ASSERT(!aof->open);
    while (end > drop && aof->segments[end - 1]->base >= base) {
        end--;
    }
    kept = end - drop;
    if (kept == 0 && !aof->archive) {
        aof->front = base;
    } else if (drop > 0) {
        aof->front = kept > 0 ? aof->segments[drop]->base : base;
    }
    header = bop__aof_next_header(aof, base, size);
    header.flags |= BOP__AOF_FLAG_EARLY;
    bop__segment_init(aof, blank, &header);
    batch->begins = true;
    bop__batch_open(aof, batch, blank);
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

/* ---- Records ---- */

/* Zeros and the end mark: what is left of the record's last eight bytes, or all of them. */
static void put_end(uint8_t *end, size_t padding)
{
    uint64_t word = padding < 8 ? bop_load_u64(end - 8) & UINT64_MAX >> 8 * padding : 0;

    bop_store_u64(end - 8, word | (uint64_t)BOP__AOF_END_MARK << 56);
}

/* Make the bytes at the end of the open batch a record: its payload is there. */
static void finish_record(struct bop_aof *aof, size_t length, uint64_t tag, uint64_t time_us)
{
    struct bop__batch *batch = aof->open;
    struct bop__segment *segment = batch->segment;
    size_t size = (size_t)bop__aof_record_size(length);
    uint8_t *at = batch->bytes + batch->size;
    struct bop__aof_record_header header = {
        .seq = aof->last + 1,
        .tag = tag,
        .time_us = time_us,
        .durable_seq = aof->durable.seq,
        .payload_crc = bop_crc32c(0, at + BOP__AOF_RECORD_HEADER, length),
        .chain = segment->chain,
        .length = BOP__AOF_HEADER_MARK | (uint32_t)length,
    };

    bop__aof_header_store(at, &header, 0);
    header.header_crc = bop_crc32c(segment->salt, at, BOP__AOF_RECORD_HEADER);
    bop__aof_header_store(at, &header, header.header_crc);
    put_end(at + size, size - BOP__AOF_RECORD_HEADER - length);
    if (segment->end - segment->indexed_end >= BOP__AOF_INDEX_BYTES) {
        bop__segment_index_add(aof->allocator, segment, header.seq, segment->end);
    }
    batch->size += size;
    batch->records++;
    segment->end += size;
    segment->records_end = segment->end;
    segment->end_seq = header.seq + 1;
    segment->chain = aof->tail_link = bop__aof_link(&header);
    aof->last = header.seq;
    batch->last = (struct bop__watermark){.seq = header.seq, .end = segment->end};
}

/* Have a batch, and a segment, for the next record. */
static void step_to(struct bop_aof *aof, struct bop__plan *plan, enum step step,
                    uint64_t record_size)
{
    if (step == STEP_ON) {
        return;
    }
    bop__batch_close(aof);
    if (step == STEP_SEGMENT) {
        struct bop__batch *batch = next_batch(plan);

        bop__aof_begin_segment(aof, batch, next_segment(plan),
                               bop__aof_segment_size(aof, record_size), 0);
    } else {
        bop__batch_open(aof, next_batch(plan), bop__aof_newest(aof));
    }
}

static void mark_level(struct bop_aof *aof, enum bop_aof_level level)
{
    aof->open->sync |= level >= BOP_AOF_DISK;
    aof->open->push |= level >= BOP_AOF_OS;
}

static void put_records(struct bop_aof *aof, struct bop__plan *plan,
                        const struct bop_aof_record *records, size_t count,
                        enum bop_aof_level level)
{
    struct place at = place_now(aof);

    for (size_t i = 0; i < count; i++) {
        const struct bop_aof_record *record = &records[i];
        size_t length = (size_t)payload_size(record);
        uint64_t size = bop__aof_record_size(length);
        enum step step = plan->goes_on ? STEP_ON : place_next(aof, &at, size);
        uint8_t *payload;

        if (step != STEP_ON || i == 0) {
            step_to(aof, plan, step, size);
            mark_level(aof, level);
        }
        payload = aof->open->bytes + aof->open->size + BOP__AOF_RECORD_HEADER;
        if (record->head.size > 0) {
            memcpy(payload, record->head.data, record->head.size);
        }
        if (record->body.size > 0) {
            memcpy(payload + record->head.size, record->body.data, record->body.size);
        }
        finish_record(aof, length, record->tag, record->time_us);
    }
    BOP_ASSERT(bop_list_empty(&plan->batches) && bop_list_empty(&plan->segments));
}

static void give_receipt(const struct bop_aof *aof, const struct bop__segment *segment,
                         uint64_t offset, enum bop_aof_level level,
                         struct bop_aof_receipt *out_receipt)
{
    *out_receipt = (struct bop_aof_receipt){
        .seq = aof->last,
        .generation = segment->generation,
        .offset = offset,
        .link = aof->tail_link,
        .level = level,
    };
    memcpy(out_receipt->log_id, aof->id, sizeof(out_receipt->log_id));
}

/* Records were put into batches: count them, and send what is due. */
static void appended(struct bop_aof *aof, uint64_t bytes, size_t count)
{
    aof->pending_bytes += bytes;
    bop_metric_add(aof->metrics.appended_records, (int64_t)count);
    bop_metric_add(aof->metrics.appended_bytes, (int64_t)bytes);
    bop_metric_set(aof->metrics.last_seq, (int64_t)aof->last);
    bop__aof_catalogue_note(&aof->catalogue, aof->last, aof->tier2);
    bop__pump(aof);
}

int bop_aof_append_with(struct bop_aof *aof, const struct bop_aof_append *append,
                        struct bop_aof_receipt *out_receipt)
{
    const struct bop_aof_record *records = append->records;
    enum bop_aof_level level = bop__level(aof, append->level);
    size_t count = append->count;
    struct bop__plan plan;
    uint64_t bytes = 0;
    int rc;

    BOP_ASSERT(!aof->is_reserved);
    for (size_t i = 0; i < count; i++) {
        if (is_too_big(&records[i])) {
            return BOP_ETOOBIG;
        }
        bytes += bop__aof_record_size(payload_size(&records[i]));
    }
    rc = bop__admit(aof, bytes, append, count);
    if (rc < 0 || count == 0) {
        return rc;
    }
    rc = make_plan(aof, records, count, bytes, &plan);
    if (rc < 0) {
        return rc;
    }
    put_records(aof, &plan, records, count, level);
    if (out_receipt) {
        const struct bop__segment *newest = bop__aof_newest(aof);

        give_receipt(aof, newest,
                     newest->end - bop__aof_record_size(payload_size(&records[count - 1])), level,
                     out_receipt);
    }
    appended(aof, bytes, count);
    return 0;
}

int bop_aof_append(struct bop_aof *aof, const struct bop_aof_record *records, size_t count)
{
    const struct bop_aof_append append = {.records = records, .count = count};

    return bop_aof_append_with(aof, &append, NULL);
}

/* ---- Without copying ---- */

int bop_aof_reserve(struct bop_aof *aof, const struct bop_aof_append *append, size_t size,
                    void **out_bytes)
{
    static const struct bop_aof_append plain;
    const struct bop_aof_append *asked = append ? append : &plain;
    enum bop_aof_level level = bop__level(aof, asked->level);
    uint64_t record_size = bop__aof_record_size(size);
    struct place at;
    size_t begins = 0;
    struct bop__batch *batch;
    int rc;

    BOP_ASSERT(!aof->is_reserved);
    if (size > BOP_AOF_RECORD_MAX) {
        return BOP_ETOOBIG;
    }
    rc = bop__admit(aof, record_size, asked, 1);
    if (rc < 0) {
        return rc;
    }
    at = place_now(aof);
    plan_init(&aof->reserved);
    rc = plan_record(aof, &aof->reserved, &at, record_size, &begins);
    if (rc == 0) {
        rc = plan_end(aof, &aof->reserved, &at, begins);
    }
    if (rc < 0) {
        bop__plan_drop(aof, &aof->reserved);
        return rc;
    }
    batch = aof->open;
    if (!bop_list_empty(&aof->reserved.batches)) {
        batch = BOP_CONTAINER_OF(aof->reserved.batches.next, struct bop__batch, link);
    }
    aof->is_reserved = true;
    aof->reserved_size = size;
    aof->reserved_level = level;
    *out_bytes = batch->bytes + batch->size + BOP__AOF_RECORD_HEADER;
    return 0;
}

void bop_aof_complete(struct bop_aof *aof, size_t size, uint64_t tag, uint64_t time_us,
                      struct bop_aof_receipt *out_receipt)
{
    struct bop__plan *plan = &aof->reserved;
    enum step step = STEP_ON;
    uint64_t record_size = bop__aof_record_size(size);

    BOP_ASSERT(aof->is_reserved && size <= aof->reserved_size);
    aof->is_reserved = false;
    if (!bop_list_empty(&plan->segments)) {
        step = STEP_SEGMENT;
    } else if (!bop_list_empty(&plan->batches)) {
        step = STEP_BATCH;
    }
    step_to(aof, plan, step, bop__aof_record_size(aof->reserved_size));
    mark_level(aof, aof->reserved_level);
    finish_record(aof, size, tag, time_us);
    if (out_receipt) {
        const struct bop__segment *newest = bop__aof_newest(aof);

        give_receipt(aof, newest, newest->end - record_size, aof->reserved_level, out_receipt);
    }
    appended(aof, record_size, 1);
}

void bop_aof_abandon(struct bop_aof *aof)
{
    BOP_ASSERT(aof->is_reserved);
    aof->is_reserved = false;
    bop__plan_drop(aof, &aof->reserved);
}
