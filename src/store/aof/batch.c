/*
 * Batches: commits, as the owner collects and orders them.
 *
 *      OPEN ---> READY ---> SENT ---> DONE
 *          close      send      done
 *
 * The queue holds them oldest first; only its last may be open. They are sent in this
 * order, several at once, come back in any, and leave at the front. Where each
 * byte goes was decided when it was appended. Once closed a batch changes no more, but
 * for what truncation takes from what it will report: the owner reads records from it
 * until they are read from the file.
 */
#include "internal.h"

/* What a batch's memory begins with, and above what it is given back after the commit. */
#define FIRST_BYTES (64u * 1024)
#define KEEP_BYTES  (4u * 1024 * 1024)
/* Room that is always kept for a filler. */
#define FILLER_ROOM (BOP__AOF_BLOCK + BOP__AOF_FILLER_MIN)

/* ---- Memory ---- */

static size_t memory_size(size_t capacity)
{
    return capacity + BOP_FS_ALIGN;
}

/* Move to memory of this capacity. */
static int grow(struct bop_aof *aof, struct bop__batch *batch, size_t capacity)
{
    uint8_t *memory = bop_alloc(aof->allocator, memory_size(capacity));
    uint8_t *bytes;

    if (!memory) {
        return BOP_ENOMEM;
    }
    bytes = memory + (BOP_FS_ALIGN - (uintptr_t)memory % BOP_FS_ALIGN) % BOP_FS_ALIGN;
    if (batch->size > 0) {
        memcpy(bytes, batch->bytes, batch->size);
    }
    if (batch->memory) {
        bop_free(aof->allocator, batch->memory, memory_size(batch->capacity));
    }
    batch->memory = memory;
    batch->bytes = bytes;
    batch->capacity = capacity;
    return 0;
}

int bop__batch_reserve(struct bop_aof *aof, struct bop__batch *batch, size_t more)
{
    size_t wanted = batch->size + more + FILLER_ROOM;
    size_t capacity = bop_max_u64(batch->capacity, FIRST_BYTES + FILLER_ROOM);

    if (wanted <= batch->capacity) {
        return 0;
    }
    while (capacity < wanted && capacity < BOP__AOF_BATCH_BYTES) {
        capacity *= 4;
    }
    return grow(aof, batch, bop_max_u64(capacity, wanted));
}

static void destroy(struct bop_aof *aof, struct bop__batch *batch)
{
    if (batch->memory) {
        bop_free(aof->allocator, batch->memory, memory_size(batch->capacity));
    }
    bop_free(aof->allocator, batch, sizeof(*batch));
}

struct bop__batch *bop__batch_new(struct bop_aof *aof, size_t size)
{
    struct bop_list *link = bop_list_pop_front(&aof->spare);
    struct bop__batch *batch;

    if (link) {
        batch = BOP_CONTAINER_OF(link, struct bop__batch, link);
        aof->spare_count--;
    } else {
        batch = bop_alloc_zeroed(aof->allocator, sizeof(*batch));
        if (!batch) {
            return NULL;
        }
        batch->aof = aof;
        bop_list_init(&batch->link);
        bop_list_init(&batch->removals);
        bop_list_init(&batch->task.link);
        bop_list_init(&batch->write.link);
        bop_list_init(&batch->write.task.link);
        bop_list_init(&batch->draft_link);
    }
    if (size > 0 && bop__batch_reserve(aof, batch, size) < 0) {
        destroy(aof, batch);
        return NULL;
    }
    return batch;
}

void bop__batch_free(struct bop_aof *aof, struct bop__batch *batch)
{
    struct bop__batch blank = {
        .aof = aof,
        .memory = batch->memory,
        .bytes = batch->bytes,
        .capacity = batch->capacity,
    };

    BOP_ASSERT(bop_list_empty(&batch->link) && bop_list_empty(&batch->removals));
    BOP_ASSERT(!batch->draft && bop_list_empty(&batch->draft_link));
    if (batch->capacity > KEEP_BYTES || aof->spare_count > aof->writes_max) {
        destroy(aof, batch);
        return;
    }
    *batch = blank;
    bop_list_init(&batch->removals);
    bop_list_init(&batch->task.link);
    bop_list_init(&batch->write.link);
    bop_list_init(&batch->write.task.link);
    bop_list_init(&batch->draft_link);
    bop_list_push_front(&aof->spare, &batch->link);
    aof->spare_count++;
}

void bop__batches_free(struct bop_aof *aof, struct bop_list *list)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(list)) != NULL) {
        struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);

        bop__segments_free(aof, &batch->removals);
        destroy(aof, batch);
    }
}

/* ---- The queue ---- */

void bop__batch_open(struct bop_aof *aof, struct bop__batch *batch, struct bop__segment *segment)
{
    BOP_ASSERT(!aof->open && batch->size == 0);
    batch->state = BOP__BATCH_OPEN;
    batch->segment = segment;
    batch->offset = segment->end;
    batch->prev_link = aof->tail_link;
    bop_list_push_back(&aof->queue, &batch->link);
    aof->open = batch;
}

/* Fill the last block up. */
static void put_filler(struct bop_aof *aof, struct bop__batch *batch)
{
    struct bop__segment *segment = batch->segment;
    size_t size = (size_t)bop__aof_filler_size(segment->end);

    if (size == 0) {
        return;
    }
    BOP_ASSERT(batch->size + size <= batch->capacity && segment->end + size <= segment->size);
    segment->chain = bop__aof_filler_encode(batch->bytes + batch->size, size, segment->salt,
                                            aof->last + 1, aof->durable.seq, segment->chain);
    segment->end += size;
    batch->size += size;
    aof->pending_bytes += size;
}

void bop__batch_close(struct bop_aof *aof)
{
    struct bop__batch *batch = aof->open;

    if (!batch) {
        return;
    }
    BOP_ASSERT(batch->state == BOP__BATCH_OPEN);
    if (batch->segment->aligned && batch->size > 0) {
        put_filler(aof, batch);
    }
    /* One without bytes is there for the segment that begins, or for a sync. */
    batch->state = batch->size > 0 || batch->sync ? BOP__BATCH_READY : BOP__BATCH_DONE;
    aof->open = NULL;
}

static void clip(struct bop_list *list, uint64_t seq, uint64_t end)
{
    BOP_LIST_FOR_EACH(link, list) {
        struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);

        if (batch->last.seq > seq) {
            batch->last = (struct bop__watermark){.seq = seq, .end = end};
        }
    }
}

void bop__batches_clip(struct bop_aof *aof, uint64_t seq, uint64_t end)
{
    clip(&aof->queue, seq, end);
    clip(&aof->kept, seq, end);
}

const uint8_t *bop__batch_find(const struct bop_aof *aof, const struct bop__segment *segment,
                               uint64_t offset, size_t *out_size)
{
    BOP_LIST_FOR_EACH(link, &aof->queue) {
        const struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);

        if (batch->segment == segment && offset >= batch->offset &&
            offset - batch->offset < batch->size) {
            size_t skip = (size_t)(offset - batch->offset);

            *out_size = batch->size - skip;
            return batch->bytes + skip;
        }
    }
    return NULL;
}
