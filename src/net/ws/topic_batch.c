/*
 * Batches: the messages of a turn to one topic, one buffer that all subscribers
 * are sent.
 *
 * Batches wait in the order in which they were begun, and a message joins its
 * topic's only if that is the last: so the messages of different topics keep
 * their order, too, for those who are subscribed to several.
 */
#include "topic.h"

#include <bop/error.h>

#include "conn.h"

/* A batch takes no more messages above this. */
#define BATCH_BYTES_MAX (64u * 1024)

/* What a batch begins with, and the most that is kept for the next. */
#define FRAMES_BYTES_MIN  2048
#define FRAMES_BYTES_KEPT (128u * 1024)

static struct bop__batch *last_batch(struct bop__branch *branch)
{
    return bop_list_empty(&branch->batches)
               ? NULL
               : BOP_CONTAINER_OF(branch->batches.prev, struct bop__batch, link);
}

static struct bop__batch *make_batch(struct bop__branch *branch)
{
    struct bop__batch *batch = branch->spare;

    if (batch != NULL) {
        branch->spare = NULL;
        batch->frames->size = 0;
        return batch;
    }
    return (struct bop__batch *)bop_alloc_zeroed(branch->topics->allocator, sizeof(*batch));
}

/* Let the batch have frames of its own with room for `more`. Returns 0 or BOP_ENOMEM. */
static int make_room(struct bop__branch *branch, struct bop__batch *batch, size_t more)
{
    size_t size = batch->frames != NULL ? batch->frames->size : 0;
    size_t capacity = bop_max_u64(FRAMES_BYTES_MIN, 2 * batch->capacity);
    struct bop_shared *frames;

    if (more <= batch->capacity && size <= batch->capacity - more) {
        return 0;
    }
    capacity = bop_max_u64(capacity, size + more);
    frames = bop_shared_create(branch->topics->allocator, capacity);
    if (frames == NULL) {
        return BOP_ENOMEM;
    }
    if (size > 0) {
        memcpy(frames->data, batch->frames->data, size);
    }
    frames->size = size;
    bop_shared_unref(batch->frames);
    batch->frames = frames;
    batch->capacity = capacity;
    return 0;
}

static int add_except(struct bop__branch *branch, struct bop__batch *batch, size_t at,
                      const struct bop_ws *ws)
{
    if (batch->except_count == batch->except_capacity) {
        size_t capacity = batch->except_capacity != 0 ? 2 * batch->except_capacity : 4;
        struct bop__except *grown = (struct bop__except *)bop_realloc(
            branch->topics->allocator, batch->excepts,
            batch->except_capacity * sizeof(*batch->excepts), capacity * sizeof(*grown));

        if (grown == NULL) {
            return BOP_ENOMEM;
        }
        batch->excepts = grown;
        batch->except_capacity = capacity;
    }
    batch->excepts[batch->except_count++] = (struct bop__except){.at = at, .ws = ws};
    return 0;
}

static int append(struct bop__branch *branch, struct bop__batch *batch, struct bop_slice header,
                  struct bop_slice payload)
{
    struct bop_shared *frames;
    int rc = make_room(branch, batch, header.size + payload.size);

    if (rc != 0) {
        return rc;
    }
    frames = batch->frames;
    memcpy(frames->data + frames->size, header.data, header.size);
    if (payload.size > 0) {
        memcpy(frames->data + frames->size + header.size, payload.data, payload.size);
    }
    frames->size += header.size + payload.size;
    return 0;
}

int bop__batch_add(struct bop__branch *branch, struct bop__topic *topic, struct bop_slice header,
                   struct bop_slice payload, struct bop_shared *lent,
                   struct bop_ws_prepared *prepared, const struct bop_ws *except)
{
    struct bop__batch *batch = last_batch(branch);
    bool begins = batch == NULL || batch->topic != topic ||
                  batch->frames->size + payload.size > BATCH_BYTES_MAX;
    size_t at;
    int rc = 0;

    if (begins) {
        batch = make_batch(branch);
        if (batch == NULL) {
            return BOP_ENOMEM;
        }
    }
    at = begins ? 0 : batch->frames->size;
    if (except != NULL) {
        rc = add_except(branch, batch, at, except);
    }
    if (rc == 0 && begins && lent != NULL) {
        bop_shared_unref(batch->frames);
        batch->frames = bop_shared_ref(lent);
        batch->capacity = 0;
    } else if (rc == 0) {
        rc = append(branch, batch, header, payload);
    }
    if (rc != 0) {
        batch->except_count -= batch->except_count > 0 &&
                               batch->excepts[batch->except_count - 1].at == at;
        if (begins) {
            bop__topic_batch_free(branch, batch);
        }
        return rc;
    }
    batch->prepared = begins ? prepared : NULL;
    batch->messages++;
    batch->largest = bop_max_u64(batch->largest, payload.size);
    if (begins) {
        batch->topic = topic;
        topic->batches++;
        BOP_ASSERT(branch->batches.prev != NULL); /* A list always has links. */
        bop_list_push_back(&branch->batches, &batch->link);
    }
    return 0;
}

void bop__topic_batch_free(struct bop__branch *branch, struct bop__batch *batch)
{
    struct bop_allocator *allocator = branch->topics->allocator;

    if (batch->excepts != NULL) {
        bop_free(allocator, batch->excepts, batch->except_capacity * sizeof(*batch->excepts));
    }
    /* Acquire: with one reference it is ours again, and nobody reads it any more. */
    if (branch->spare == NULL && batch->frames != NULL && batch->capacity > 0 &&
        batch->capacity <= FRAMES_BYTES_KEPT &&
        atomic_load_explicit(&batch->frames->references, memory_order_acquire) == 1) {
        struct bop_shared *frames = batch->frames;
        size_t capacity = batch->capacity;

        *batch = (struct bop__batch){.frames = frames, .capacity = capacity};
        branch->spare = batch;
        return;
    }
    bop_shared_unref(batch->frames);
    bop_free(allocator, batch, sizeof(*batch));
}
