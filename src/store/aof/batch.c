/*
 * Batches: what the owner collects and the executor commits.
 *
 *      FREE ---> OPEN ---> QUEUED ---> TAKEN ---> FREE
 *           enter    submit       run       done
 *
 * At most two batches are with the executor: one is being written while the
 * next one, queued behind it, collects; so what comes during a sync is
 * committed together right after it. If the owner has not yet heard that the
 * first is done when the second is taken, a third collects and is submitted
 * when it hears.
 *
 * A batch is a list of ops over one buffer. Where each byte goes is decided when
 * it is appended, so the task only executes. Once taken, neither list nor buffer
 * changes until done: the owner reads records from it meanwhile.
 */
#include <bop/clock.h>

#include "internal.h"

#define SUBMITTED_MAX 2u

static void set_state_locked(struct bop__batch *batch, enum bop__batch_state state)
{
    static const unsigned moves[] = {
        [BOP__BATCH_FREE] = 1u << BOP__BATCH_OPEN,
        [BOP__BATCH_OPEN] = 1u << BOP__BATCH_QUEUED,
        [BOP__BATCH_QUEUED] = 1u << BOP__BATCH_TAKEN,
        [BOP__BATCH_TAKEN] = 1u << BOP__BATCH_FREE,
    };

    BOP_ASSERT((moves[batch->state] & 1u << state) != 0);
    batch->state = state;
}

/* ---- Collecting: the owner's side ---- */

static int reserve_ops(struct bop_aof *aof, struct bop__batch *batch, size_t more)
{
    size_t wanted = batch->op_count + more;
    size_t capacity = bop_max_u64(wanted, batch->op_capacity * 2);
    struct bop__op *ops;

    if (wanted <= batch->op_capacity) {
        return 0;
    }
    ops = bop_realloc(aof->allocator, batch->ops, batch->op_capacity * sizeof(*ops),
                      capacity * sizeof(*ops));
    if (!ops) {
        return BOP_ENOMEM;
    }
    batch->ops = ops;
    batch->op_capacity = capacity;
    return 0;
}

/* The batch that collects; one that was taken meanwhile is replaced. The lock is held. */
static struct bop__batch *collecting(struct bop_aof *aof)
{
    if (aof->open && aof->open->state != BOP__BATCH_TAKEN) {
        return aof->open;
    }
    for (size_t i = 0; i < BOP__AOF_BATCHES; i++) {
        if (aof->batches[i].state == BOP__BATCH_FREE) {
            aof->open = &aof->batches[i];
            set_state_locked(aof->open, BOP__BATCH_OPEN);
            return aof->open;
        }
    }
    return NULL;
}

int bop__batch_enter(struct bop_aof *aof, size_t bytes, size_t ops, struct bop__batch **out_batch)
{
    struct bop__batch *batch;
    int rc;

    pthread_mutex_lock(&aof->lock);
    batch = collecting(aof);
    BOP_ASSERT(batch); /* Only two are ever with the executor. */
    rc = bop_buf_reserve(&batch->data, bytes);
    if (rc == 0) {
        rc = reserve_ops(aof, batch, ops);
    }
    if (rc < 0) {
        pthread_mutex_unlock(&aof->lock);
        return BOP_ENOMEM;
    }
    *out_batch = batch;
    return 0;
}

/* Hand the collecting batch to the executor, if there is one and there is place. */
static void submit(struct bop_aof *aof)
{
    struct bop__batch *batch = aof->open;
    bool wanted;

    pthread_mutex_lock(&aof->lock);
    wanted = batch && batch->state == BOP__BATCH_OPEN && batch->op_count > 0 &&
             aof->submitted < SUBMITTED_MAX;
    if (wanted) {
        set_state_locked(batch, BOP__BATCH_QUEUED);
    }
    pthread_mutex_unlock(&aof->lock);
    if (wanted) {
        aof->submitted++;
        bop_executor_submit(aof->options.executor, &batch->task);
    }
}

void bop__batch_leave(struct bop_aof *aof, struct bop__batch *batch)
{
    bool queued = batch->state == BOP__BATCH_QUEUED;

    pthread_mutex_unlock(&aof->lock);
    if (!queued) {
        submit(aof);
    }
}

void bop__batch_add(struct bop__batch *batch, enum bop__op_kind kind, struct bop__segment *segment)
{
    BOP_ASSERT(batch->op_count < batch->op_capacity);
    batch->ops[batch->op_count++] = (struct bop__op){.kind = kind, .segment = segment};
}

void bop__batch_add_write(struct bop__batch *batch, struct bop__segment *segment, uint64_t offset,
                          size_t size)
{
    struct bop__op *last = batch->op_count > 0 ? &batch->ops[batch->op_count - 1] : NULL;

    if (last && last->kind == BOP__OP_WRITE && last->segment == segment &&
        last->offset + last->size == offset) {
        last->size += size;
        return;
    }
    BOP_ASSERT(batch->ops && batch->op_count < batch->op_capacity && size <= batch->data.size);
    batch->ops[batch->op_count++] = (struct bop__op){
        .kind = BOP__OP_WRITE,
        .segment = segment,
        .offset = offset,
        .from = batch->data.size - size,
        .size = size,
    };
}

void bop__batch_clip(struct bop_aof *aof, uint64_t seq)
{
    for (size_t i = 0; i < BOP__AOF_BATCHES; i++) {
        aof->batches[i].last_seq = bop_min_u64(aof->batches[i].last_seq, seq);
    }
}

const uint8_t *bop__batch_find(const struct bop_aof *aof, const struct bop__segment *segment,
                               uint64_t offset, size_t *out_size)
{
    for (size_t i = 0; i < BOP__AOF_BATCHES; i++) {
        const struct bop__batch *batch = &aof->batches[i];

        for (size_t k = 0; k < batch->op_count; k++) {
            const struct bop__op *op = &batch->ops[k];

            if (op->kind == BOP__OP_WRITE && op->segment == segment && offset >= op->offset &&
                offset - op->offset < op->size) {
                size_t skip = (size_t)(offset - op->offset);

                *out_size = op->size - skip;
                return batch->data.data + op->from + skip;
            }
        }
    }
    return NULL;
}

/* ---- Committing: the task's side ---- */

static int execute(struct bop__writer *writer, struct bop__batch *batch)
{
    int rc = writer->error.code;

    for (size_t i = 0; rc == 0 && i < batch->op_count; i++) {
        const struct bop__op *op = &batch->ops[i];

        switch (op->kind) {
        case BOP__OP_WRITE:
            rc = bop__writer_write(writer, batch->data.data + op->from, op->size, op->offset);
            break;
        case BOP__OP_BEGIN:
            rc = bop__writer_begin(writer, op->segment);
            break;
        case BOP__OP_REMOVE:
            bop_list_push_back(&writer->removals, &op->segment->link);
            break;
        }
    }
    return rc == 0 ? bop__writer_sync(writer) : rc;
}

static void batch_run(struct bop_task *task)
{
    struct bop__batch *batch = BOP_CONTAINER_OF(task, struct bop__batch, task);
    struct bop_aof *aof = batch->aof;
    /* The system's clock only feeds a histogram: nothing depends on it. */
    struct bop_clock *clock = bop_clock_system();
    uint64_t begun_us = bop_clock_monotonic_us(clock);

    pthread_mutex_lock(&aof->lock);
    set_state_locked(batch, BOP__BATCH_TAKEN);
    pthread_mutex_unlock(&aof->lock);
    batch->code = execute(&aof->writer, batch);
    batch->wants_upkeep = bop__writer_wants_upkeep(&aof->writer);
    if (aof->metrics.commit_us) {
        bop_histogram_record(aof->metrics.commit_us, bop_clock_monotonic_us(clock) - begun_us);
    }
}

/* ---- After the commit: the owner's side again ---- */

static void fail(struct bop_aof *aof, int code)
{
    if (aof->failed != 0) {
        return;
    }
    aof->failed = code;
    bop_metric_set(aof->metrics.failed, 1);
    if (aof->options.on_failed) {
        /* The message was set before any task reported the failure, and never changes. */
        aof->options.on_failed(aof->options.user, code, aof->writer.error.message);
    }
}

static void submit_upkeep(struct bop_aof *aof)
{
    if (!aof->upkeep_submitted && aof->failed == 0) {
        aof->upkeep_submitted = true;
        bop_executor_submit(aof->options.executor, &aof->upkeep);
    }
}

/* The batch is on disk: its bytes are read from files from now on. */
static void release(struct bop_aof *aof, struct bop__batch *batch)
{
    for (size_t i = 0; i < batch->op_count; i++) {
        struct bop__op *op = &batch->ops[i];

        if (op->kind == BOP__OP_WRITE) {
            op->segment->file_end = op->offset + op->size;
        }
    }
    bop_metric_add(aof->metrics.commits, 1);
    if (aof->metrics.batch_records) {
        bop_histogram_record(aof->metrics.batch_records, batch->records);
    }
    aof->pending_bytes -= batch->data.size;
    bop_buf_clear(&batch->data);
    if (batch->data.capacity > BOP__AOF_BATCH_KEEP_BYTES) {
        bop_buf_deinit(&batch->data);
        bop_buf_init(&batch->data, aof->allocator, 0);
    }
    batch->op_count = 0;
    batch->records = 0;
    batch->last_seq = 0;
    if (aof->open == batch) {
        aof->open = NULL;
    }
    pthread_mutex_lock(&aof->lock);
    set_state_locked(batch, BOP__BATCH_FREE);
    pthread_mutex_unlock(&aof->lock);
}

static void batch_done(struct bop_task *task)
{
    struct bop__batch *batch = BOP_CONTAINER_OF(task, struct bop__batch, task);
    struct bop_aof *aof = batch->aof;
    uint64_t last_seq = batch->last_seq;

    aof->submitted--;
    if (batch->code < 0) {
        /* It stays TAKEN with all it holds, so that its records can be read. */
        fail(aof, batch->code);
        return;
    }
    release(aof, batch);
    submit(aof);
    if (batch->wants_upkeep) {
        submit_upkeep(aof);
    }
    if (last_seq > aof->durable) {
        aof->durable = last_seq;
        bop__aof_update_metrics(aof);
        bop__aof_check(aof);
        if (aof->options.on_durable) {
            aof->options.on_durable(aof->options.user, last_seq);
        }
    }
}

/* ---- Upkeep ---- */

static void upkeep_run(struct bop_task *task)
{
    struct bop_aof *aof = BOP_CONTAINER_OF(task, struct bop_aof, upkeep);
    struct bop_list *link;

    aof->upkeep_code = bop__writer_upkeep(&aof->writer, &aof->upkeep_more);
    while ((link = bop_list_pop_front(&aof->writer.removed)) != NULL) {
        bop_list_push_back(&aof->upkeep_removed, link);
    }
}

static void upkeep_done(struct bop_task *task)
{
    struct bop_aof *aof = BOP_CONTAINER_OF(task, struct bop_aof, upkeep);
    struct bop_list *link;

    while ((link = bop_list_pop_front(&aof->upkeep_removed)) != NULL) {
        bop__segment_free(aof->allocator, BOP_CONTAINER_OF(link, struct bop__segment, link));
    }
    aof->upkeep_submitted = false;
    if (aof->upkeep_code < 0) {
        fail(aof, aof->upkeep_code);
    } else if (aof->upkeep_more) {
        submit_upkeep(aof);
    }
}

/* ---- Lifetime ---- */

void bop__batches_init(struct bop_aof *aof)
{
    for (size_t i = 0; i < BOP__AOF_BATCHES; i++) {
        struct bop__batch *batch = &aof->batches[i];

        bop_list_init(&batch->task.link);
        batch->task.run = batch_run;
        batch->task.done = batch_done;
        batch->aof = aof;
        bop_buf_init(&batch->data, aof->allocator, 0);
    }
    bop_list_init(&aof->upkeep.link);
    aof->upkeep.run = upkeep_run;
    aof->upkeep.done = upkeep_done;
    bop_list_init(&aof->upkeep_removed);
}

/* Segments that left the log, and whose file did not go yet, are known to lists and ops only. */
static void free_removed(struct bop_aof *aof, struct bop_list *list)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(list)) != NULL) {
        bop__segment_free(aof->allocator, BOP_CONTAINER_OF(link, struct bop__segment, link));
    }
}

void bop__batches_deinit(struct bop_aof *aof)
{
    for (size_t i = 0; i < BOP__AOF_BATCHES; i++) {
        struct bop__batch *batch = &aof->batches[i];

        for (size_t k = 0; k < batch->op_count; k++) {
            struct bop__op *op = &batch->ops[k];

            /* One that was executed before its batch failed is on the writer's list. */
            if (op->kind == BOP__OP_REMOVE && bop_list_empty(&op->segment->link)) {
                bop__segment_free(aof->allocator, op->segment);
            }
        }
        bop_buf_deinit(&batch->data);
        bop_free(aof->allocator, batch->ops, batch->op_capacity * sizeof(*batch->ops));
    }
    free_removed(aof, &aof->writer.removals);
    free_removed(aof, &aof->writer.removed);
    free_removed(aof, &aof->upkeep_removed);
}
