/*
 * After a failed write or sync: what is not durable is in memory still, and goes to new segments.
 *
 * A file whose write or sync failed is not written again: the kernel may have dropped the pages and
 * call them clean. So each segment with records that are not durable gets a replacement, which
 * begins right behind the last durable one and is of a new generation. Its records have the
 * same numbers and payloads, but another salt and chain. Its header names the generation it
 * replaces, so that receipts given for that one are still understood.
 *
 * Nothing is on its way when this runs. All is got hold of first; then nothing can fail.
 */
#include "internal.h"

struct move {
    struct bop_list batches;  /* New ones, in order. */
    struct bop_list segments; /* New ones, in order; not yet of the log. */
    struct bop_list removals; /* Old segments whose files may go then. */
    struct bop__segment *segment;
    struct bop__batch *batch; /* The one being filled. */
    uint32_t link;            /* Of the last record moved. */
    uint64_t last;
};

static void set_origins(struct bop__aof_segment_header *header, const struct bop__segment *old)
{
    header->origins[0] = old->generation;
    /* What it had taken over itself is moved on, if nothing of it got durable here. */
    for (size_t i = 0; i + 1 < BOP__AOF_ORIGINS; i++) {
        header->origins[i + 1] = old->header.origins[i];
    }
}

static int begin_move(struct bop_aof *aof, struct move *m, const struct bop__segment *old,
                      uint64_t base)
{
    struct bop__aof_segment_header header = old->header;
    struct bop__segment *segment = bop__segment_new(aof);
    /* Other commits have other fillers. */
    uint64_t size = old->size + (old->aligned ? 2 * BOP__AOF_BLOCK : 0);

    if (!segment) {
        return BOP_ENOMEM;
    }
    header.base = base;
    header.generation = ++aof->generation;
    header.seed = m->link;
    header.front = bop_min_u64(aof->front, base);
    header.size = size;
    header.flags |= BOP__AOF_FLAG_EARLY;
    set_origins(&header, old);
    bop__segment_init(aof, segment, &header);
    bop_list_push_back(&m->segments, &segment->link);
    m->segment = segment;
    m->batch = NULL;
    return 0;
}

static void fill_up(struct move *m, uint64_t durable)
{
    struct bop__segment *segment = m->segment;
    struct bop__batch *batch = m->batch;
    size_t size;

    if (!batch || !segment->aligned) {
        return;
    }
    size = (size_t)bop__aof_filler_size(segment->end);
    if (size > 0) {
        segment->chain = bop__aof_filler_encode(batch->bytes + batch->size, size, segment->salt,
                                                segment->end_seq, durable, segment->chain);
        segment->end += size;
        batch->size += size;
    }
}

/* A batch with room for size more bytes. */
static int need_batch(struct bop_aof *aof, struct move *m, size_t size)
{
    struct bop__batch *batch = m->batch;

    if (batch && (batch->size == 0 || batch->size + size <= BOP__AOF_BATCH_BYTES)) {
        return bop__batch_reserve(aof, batch, size);
    }
    fill_up(m, aof->durable.seq);
    batch = bop__batch_new(aof, size);
    if (!batch) {
        return BOP_ENOMEM;
    }
    batch->state = BOP__BATCH_READY;
    batch->sync = true;
    batch->begins = m->batch == NULL;
    batch->segment = m->segment;
    batch->offset = m->segment->end;
    batch->prev_link = m->link;
    bop_list_push_back(&m->batches, &batch->link);
    m->batch = batch;
    return 0;
}

/* Put a record, as it was, behind what was moved before. */
static int move_record(struct bop_aof *aof, struct move *m, const uint8_t *bytes,
                       struct bop__aof_record_header header)
{
    struct bop__segment *segment = m->segment;
    size_t size = (size_t)bop__aof_record_size(bop__aof_record_length(&header));
    int rc = need_batch(aof, m, size);
    struct bop__batch *batch = m->batch;

    if (rc < 0) {
        return rc;
    }
    header.chain = segment->chain;
    header.header_crc = bop__aof_header_crc(segment->salt, &header);
    memcpy(batch->bytes + batch->size, bytes, size);
    memcpy(batch->bytes + batch->size, &header, sizeof(header));
    bop__segment_index_add(aof->allocator, segment, header.seq, segment->end);
    batch->size += size;
    batch->records++;
    segment->end += size;
    segment->records_end = segment->end;
    segment->end_seq = header.seq + 1;
    segment->chain = m->link = bop__aof_link(&header);
    batch->last = (struct bop__watermark){.seq = header.seq, .end = segment->end};
    m->last = header.seq;
    return 0;
}

/* Move those records of a batch that are kept and not durable. */
static int move_batch(struct bop_aof *aof, struct move *m, const struct bop__batch *batch)
{
    const struct bop__segment *old = batch->segment;
    size_t at = 0;

    while (at < batch->size) {
        struct bop__aof_record_header header;
        int rc = 0;

        memcpy(&header, batch->bytes + at, sizeof(header));
        if (!bop__aof_is_filler(&header) && header.seq == m->last + 1 &&
            batch->offset + at < old->end) {
            rc = move_record(aof, m, batch->bytes + at, header);
        }
        if (rc < 0) {
            return rc;
        }
        at += (size_t)bop__aof_record_size(bop__aof_record_length(&header));
    }
    return 0;
}

static int move_list(struct bop_aof *aof, struct move *m, const struct bop__segment *old,
                     const struct bop_list *list)
{
    int rc = 0;

    for (const struct bop_list *link = list->next; rc == 0 && link != list; link = link->next) {
        const struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);

        if (batch->segment == old) {
            rc = move_batch(aof, m, batch);
        }
    }
    return rc;
}

/* Move what is not durable of one segment. */
static int move_segment(struct bop_aof *aof, struct move *m, struct bop__segment *old)
{
    int rc = begin_move(aof, m, old, bop_max_u64(old->base, aof->durable.seq + 1));

    if (rc == 0) {
        rc = move_list(aof, m, old, &aof->kept);
    }
    if (rc == 0) {
        rc = move_list(aof, m, old, &aof->queue);
    }
    if (rc == 0 && !m->batch) {
        /* Nothing in it yet: its file is as bad as if there were. */
        rc = need_batch(aof, m, 0);
        if (rc == 0) {
            m->batch->sync = false;
            m->batch->state = BOP__BATCH_DONE;
        }
    }
    if (rc == 0) {
        fill_up(m, aof->durable.seq);
    }
    return rc;
}

/* The link of the last durable record, which the first replacement follows. */
static uint32_t durable_link(const struct bop_aof *aof, const struct bop__segment *first)
{
    if (first->base > aof->durable.seq) {
        return first->seed;
    }
    BOP_LIST_FOR_EACH(link, &aof->kept) {
        const struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);

        if (batch->records > 0 && batch->segment == first) {
            return batch->prev_link;
        }
    }
    BOP_LIST_FOR_EACH(link, &aof->queue) {
        const struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);

        if (batch->records > 0 && batch->segment == first) {
            return batch->prev_link;
        }
    }
    return aof->tail_link;
}

/* The first segment with records that are not durable; else the newest. */
static size_t first_to_move(const struct bop_aof *aof)
{
    size_t i = aof->segment_count - 1;

    while (i > 0 && aof->segments[i]->base > aof->durable.seq + 1) {
        i--;
    }
    return i;
}

/* What was queued is replaced; what it was to remove goes with what replaces it. */
static void drop_old(struct bop_aof *aof, struct move *m, struct bop_list *list)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(list)) != NULL) {
        struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);
        struct bop_list *gone;

        while ((gone = bop_list_pop_front(&batch->removals)) != NULL) {
            bop_list_push_back(&m->removals, gone);
        }
        aof->pending_bytes -= batch->size;
        bop__batch_free(aof, batch);
    }
}

/* The old segment ends at the last durable record, or goes. */
static void retire(struct bop_aof *aof, struct move *m, struct bop__segment *old, uint32_t link)
{
    bop__handle_close(aof, old->handle);
    old->handle = NULL;
    bop__cursors_forget(aof, old);
    bop_list_remove(&old->seal_link);
    if (old->base <= aof->durable.seq) {
        bop__segment_cut(old, aof->durable.seq + 1, aof->durable.end, link);
        old->cut_by = aof->generation; /* At the latest. */
        return;
    }
    old->left = true;
    bop_list_push_back(&m->removals, &old->link);
}

static void take_over(struct bop_aof *aof, struct move *m, size_t first, uint32_t link)
{
    struct bop_list *item;
    struct bop__batch *batch;
    size_t at = first;

    aof->open = NULL;
    drop_old(aof, m, &aof->kept);
    drop_old(aof, m, &aof->queue);
    for (size_t i = first; i < aof->segment_count; i++) {
        retire(aof, m, aof->segments[i], link);
    }
    if (aof->segments[first]->left == false) {
        at++;
    }
    if (aof->next) {
        bop__handle_close(aof, aof->next);
        aof->next = NULL;
    }
    if (aof->writing) {
        /* Also one that left meanwhile: its file is not synced any more. */
        bop__handle_close(aof, aof->writing->handle);
        aof->writing->handle = NULL;
    }
    aof->stale_next = true;
    aof->beginning = NULL;
    aof->segment_count = at;
    while ((item = bop_list_pop_front(&m->segments)) != NULL) {
        BOP_ASSERT(aof->segment_count < aof->segment_capacity);
        aof->segments[aof->segment_count++] = BOP_CONTAINER_OF(item, struct bop__segment, link);
    }
    batch = BOP_CONTAINER_OF(m->batches.next, struct bop__batch, link);
    if (batch->last.seq == 0 && batch->segment->base - 1 > aof->durable.seq) {
        /* All that was not durable is truncated: then what is left is durable. */
        batch->sync = true;
        batch->last = (struct bop__watermark){.seq = batch->segment->base - 1,
                                              .end = batch->offset};
    }
    while ((item = bop_list_pop_front(&m->removals)) != NULL) {
        bop_list_push_back(&batch->removals, item);
    }
    while ((item = bop_list_pop_front(&m->batches)) != NULL) {
        batch = BOP_CONTAINER_OF(item, struct bop__batch, link);
        aof->pending_bytes += batch->size;
        bop_list_push_back(&aof->queue, item);
    }
    aof->os = aof->durable;
    aof->tail_link = m->link;
    bop__aof_catalogue_truncate(&aof->catalogue, aof->durable.seq, aof->durable.end);
    BOP_ASSERT(m->last == aof->last);
}

bool bop__rehome(struct bop_aof *aof, struct bop_error *err)
{
    size_t first = first_to_move(aof);
    uint32_t link = durable_link(aof, aof->segments[first]);
    uint64_t generation = aof->generation;
    /* Records that were truncated from the front before they were durable are not missed. */
    struct move m = {.link = link,
                     .last = bop_max_u64(aof->durable.seq, aof->segments[first]->base - 1)};
    int rc;

    bop_list_init(&m.batches);
    bop_list_init(&m.segments);
    bop_list_init(&m.removals);
    rc = bop__aof_segments_reserve(aof, aof->segment_count - first + 1);
    for (size_t i = first; rc == 0 && i < aof->segment_count; i++) {
        rc = move_segment(aof, &m, aof->segments[i]);
    }
    if (rc < 0) {
        bop__batches_free(aof, &m.batches);
        bop__segments_free(aof, &m.segments);
        aof->generation = generation;
        bop_error_set(err, rc, "copy what is not durable");
        return false;
    }
    take_over(aof, &m, first, link);
    return true;
}
