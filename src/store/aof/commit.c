/*
 * Commits: batches on their way to the disk, several at once, acknowledged in order.
 *
 *      queue:  DONE  SENT  DONE  SENT  READY  OPEN
 *              ^ leaves when it is DONE and      ^ collects, until it is due
 *                its segment has its name
 *
 * Between two segments nothing waits: the next segment's file is written to before it has its
 * name, beside what is still on its way to the one before. Its name is what makes it a part of the
 * log; it gets it, by a rename, when its header and all of the segment before are on disk, and
 * what is in it is acknowledged after that.
 *
 * When a batch goes: at once if nothing is on its way; else when it is worth a write of its own
 * (LARGE_BYTES), or few are on their way. What comes meanwhile collects. No timer: what waits,
 * waits for something that is under way, or has asked for no more than memory.
 *
 * An owner that is about to wait for a commit, with nothing else on its way, takes the write
 * itself: handing it to another thread and being woken by it takes longer than many disks need to
 * write it.
 */
#include "internal.h"

#include <inttypes.h>

#include <bop/clock.h>

/* A batch of this size goes if there is a slot. */
#define LARGE_BYTES (256u * 1024)
/* Smaller ones go while fewer than this many are on their way: one that the disk works at, one
 * that waits behind it. More would split what is better written together. */
#define SMALL_WRITES 2u

/* ---- Sending ---- */

unsigned bop__slot_take(struct bop_aof *aof)
{
    unsigned slot = 0;

    while ((aof->slots & 1u << slot) != 0) {
        slot++;
    }
    BOP_ASSERT(slot < aof->writes_max);
    aof->slots |= 1u << slot;
    aof->writes++;
    return slot;
}

void bop__slot_give(struct bop_aof *aof, unsigned slot)
{
    BOP_ASSERT((aof->slots & 1u << slot) != 0 && aof->writes > 0);
    aof->slots &= ~(1u << slot);
    aof->writes--;
}

static uint64_t now_us(void)
{
    /* The system's clock only feeds a histogram: nothing depends on it. */
    return bop_clock_monotonic_us(bop_clock_system());
}

static void ended(struct bop__batch *batch, int code)
{
    struct bop_aof *aof = batch->aof;

    bop__slot_give(aof, batch->slot);
    if (!batch->sync) {
        aof->writes_unsynced--;
    }
    batch->code = code;
    batch->state = code < 0 ? BOP__BATCH_READY : BOP__BATCH_DONE;
    if (bop__is_no_room(code)) {
        /* Nothing is lost: the same bytes go to the same place once there is room. */
        aof->no_room = aof->stuck = aof->room_wanted = true;
    } else if (code < 0) {
        struct bop_error err = {0};

        bop_error_set(&err, code, "write and sync the log in %s", aof->path);
        bop__poison(aof, code, &err);
    } else if (aof->metrics.commit_us) {
        bop_histogram_record(aof->metrics.commit_us, now_us() - batch->sent_us);
    }
    bop__after(aof);
}

static void write_done(struct bop_write *write)
{
    ended(BOP_CONTAINER_OF(write, struct bop__batch, write), write->result);
}

static void sync_run(struct bop_task *task)
{
    struct bop__batch *batch = BOP_CONTAINER_OF(task, struct bop__batch, task);

    batch->code = batch->aof->fs->sync(batch->aof->fs, batch->sync_fd);
}

static void sync_done(struct bop_task *task)
{
    struct bop__batch *batch = BOP_CONTAINER_OF(task, struct bop__batch, task);

    ended(batch, batch->code);
}

static void send(struct bop_aof *aof, struct bop__batch *batch)
{
    struct bop__handle *handle = batch->segment->handle;
    uint64_t end = batch->offset + batch->size;

    batch->slot = bop__slot_take(aof);
    batch->state = BOP__BATCH_SENT;
    batch->sent_us = aof->metrics.commit_us ? now_us() : 0;
    aof->writes_unsynced += batch->sync ? 0 : 1;
    if (batch->size == 0) {
        batch->sync_fd = handle->fds[batch->slot % handle->count];
        batch->task.run = sync_run;
        batch->task.done = sync_done;
        bop_executor_submit(aof->executor, &batch->task);
        return;
    }
    batch->segment->sent_end = end;
    handle->zeroed = bop_max_u64(handle->zeroed, end);
    aof->sent_bytes += batch->size;
    if (batch->sync) {
        aof->commit_bytes = (aof->commit_bytes * 7 + batch->size) / 8;
    }
    batch->write.fs = aof->fs;
    batch->write.fd = handle->fds[batch->slot % handle->count];
    batch->write.sync = batch->sync;
    batch->write.direct = handle->direct;
    batch->write.bytes = batch->bytes;
    batch->write.size = batch->size;
    batch->write.offset = batch->offset;
    batch->write.done = write_done;
    bop__draft_sent(aof, batch);
    if (aof->takes_write && !aof->taken && batch->sync) {
        aof->taken = batch;
        return;
    }
    bop_executor_write(aof->executor, &batch->write);
}

void bop__write_taken(struct bop_aof *aof)
{
    struct bop_write *write = &aof->taken->write;

    aof->taken = NULL;
    write->result = bop_fs_write_all(write->fs, write->fd, write->bytes, write->size,
                                     write->offset);
    if (write->result == 0) {
        write->result = write->fs->sync(write->fs, write->fd);
    }
    write_done(write);
}

/* ---- Beginning segments ---- */

static void header_done(struct bop_write *write)
{
    struct bop_aof *aof = BOP_CONTAINER_OF(write, struct bop_aof, header_write);

    bop__slot_give(aof, aof->header_slot);
    aof->header_done = write->result == 0;
    if (write->result < 0) {
        struct bop_error err = {0};

        bop_error_set(&err, write->result, "write a segment's header in %s", aof->path);
        bop__poison(aof, write->result, &err);
    }
    bop__after(aof);
}

/* Begin to write a segment into the file that is ready. False if that has to wait. */
static bool begin(struct bop_aof *aof, struct bop__segment *segment)
{
    struct bop_write *write = &aof->header_write;

    if (aof->beginning || !aof->next) {
        return false;
    }
    segment->handle = aof->next;
    segment->state = BOP__SEGMENT_BEGUN;
    aof->next = NULL;
    aof->beginning = segment;
    aof->header_done = false;
    aof->header_slot = bop__slot_take(aof);
    bop__aof_segment_header_encode(&segment->header, aof->header_block);
    *write = (struct bop_write){
        .fs = aof->fs,
        .fd = segment->handle->fds[aof->header_slot % segment->handle->count],
        .sync = true,
        .direct = segment->handle->direct,
        .bytes = aof->header_block,
        .size = BOP__AOF_SEGMENT_HEADER,
        .done = header_done,
    };
    bop_list_init(&write->link);
    bop_list_init(&write->task.link);
    bop_executor_write(aof->executor, write);
    return true;
}

/* ---- What is due ---- */

/* An open batch: shall it go as it is? */
static bool is_due(const struct bop_aof *aof, const struct bop__batch *batch)
{
    if (batch->size == 0) {
        return false;
    }
    if (batch->size >= LARGE_BYTES) {
        return true;
    }
    return (batch->sync || batch->push) && aof->writes < bop_min_u64(SMALL_WRITES, aof->writes_max);
}

static bool may_go(const struct bop_aof *aof, const struct bop__batch *batch)
{
    uint64_t end = batch->offset + batch->size;

    /* A sync is for all before: they must be written when it begins. */
    if (batch->sync && aof->writes_unsynced > 0) {
        return false;
    }
    /* Zeros on their way to the same place could come after it. */
    return !(aof->jobs.zero.job.busy && !aof->jobs.zero.allocate &&
             aof->jobs.zero.segment == batch->segment && end > aof->jobs.zero.from);
}

void bop__pump(struct bop_aof *aof)
{
    if (aof->failed != 0 || aof->poison != 0) {
        return;
    }
    BOP_LIST_FOR_EACH(link, &aof->queue) {
        struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);

        if (batch->state == BOP__BATCH_SENT ||
            (batch->state == BOP__BATCH_DONE && !batch->begins)) {
            continue;
        }
        if (aof->writes >= aof->writes_max) {
            break;
        }
        if (batch->begins && batch->segment->state == BOP__SEGMENT_PLANNED &&
            !begin(aof, batch->segment)) {
            break;
        }
        if (batch->state == BOP__BATCH_DONE) {
            continue;
        }
        if ((batch->state == BOP__BATCH_OPEN && !is_due(aof, batch)) ||
            aof->writes >= aof->writes_max || !may_go(aof, batch) || aof->stuck) {
            break;
        }
        if (batch->state == BOP__BATCH_OPEN) {
            bop__batch_close(aof);
        }
        send(aof, batch);
    }
    bop__jobs_start(aof);
}

/* ---- What is done ---- */

static void forget_kept(struct bop_aof *aof)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(&aof->kept)) != NULL) {
        struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);

        aof->pending_bytes -= batch->size;
        bop__batch_release(aof, batch);
    }
}

void bop__made_durable(struct bop_aof *aof)
{
    aof->durable = aof->os;
    aof->rehome_tries = 0;
    forget_kept(aof);
}

/* A batch that is written leaves the queue: its bytes are read from the file from now on. */
static void leave_queue(struct bop_aof *aof, struct bop__batch *batch)
{
    bop_list_remove(&batch->link);
    if (batch->size > 0) {
        /* What was cut meanwhile may get a footer in its place. */
        batch->segment->file_end = bop_min_u64(batch->offset + batch->size, batch->segment->end);
        batch->segment->unsynced = true;
        bop_metric_add(aof->metrics.commits, 1);
        if (aof->metrics.batch_records) {
            bop_histogram_record(aof->metrics.batch_records, batch->records);
        }
    }
    if (batch->last.seq > aof->os.seq) {
        aof->os = batch->last;
    }
    if (!batch->sync && batch->size > 0 && aof->options.rehome_max > 0) {
        bop_list_push_back(&aof->kept, &batch->link);
        return;
    }
    if (batch->sync) {
        batch->segment->unsynced = false;
        if (batch->segment->handle) {
            batch->segment->handle->written_back = batch->segment->file_end;
        }
        bop__made_durable(aof);
    }
    aof->pending_bytes -= batch->size;
    bop__batch_release(aof, batch);
}

static void settle(struct bop_aof *aof)
{
    while (!bop_list_empty(&aof->queue)) {
        struct bop__batch *batch = BOP_CONTAINER_OF(aof->queue.next, struct bop__batch, link);

        if (batch->segment->state != BOP__SEGMENT_NAMED) {
            if (batch->segment == aof->beginning && aof->header_done && !aof->jobs.name.job.busy &&
                aof->poison == 0) {
                bop__job_name(aof);
            }
            return;
        }
        if (batch->state != BOP__BATCH_DONE) {
            return;
        }
        leave_queue(aof, batch);
    }
}

/* ---- Failure ---- */

void bop__poison(struct bop_aof *aof, int code, const struct bop_error *err)
{
    if (aof->poison == 0) {
        aof->poison = code;
        aof->error = *err;
    }
}

static void fail(struct bop_aof *aof)
{
    aof->failed = aof->poison;
    bop_metric_set(aof->metrics.failed, 1);
    bop__aof_catalogue_close(&aof->catalogue);
    bop_log(aof->options.log, BOP_LOG_ERROR, "aof", "the log failed dir=%s durable=%" PRIu64 ": %s",
            aof->path, aof->durable.seq, aof->error.message);
}

/* All that was under way when a write failed has ended: go on in a new segment, or stop. */
static void settle_poison(struct bop_aof *aof)
{
    if (aof->failed != 0 || aof->writes > 0 || aof->jobs.name.job.busy || aof->jobs.zero.job.busy ||
        aof->jobs.prepare.job.busy || aof->jobs.seal.job.busy || aof->jobs.draft.job.busy ||
        aof->jobs.write_back.job.busy) {
        return;
    }
    bop__drafts_free(aof);
    if (aof->rehome_tries < aof->options.rehome_max) {
        struct bop_error first = aof->error;
        struct bop_error why = {0};

        aof->rehome_tries++;
        if (bop__rehome(aof, &why)) {
            bop_log(aof->options.log, BOP_LOG_WARN, "aof",
                    "what was not durable goes to a new segment dir=%s after=%" PRIu64 ": %s",
                    aof->path, aof->durable.seq, first.message);
            aof->poison = 0;
            aof->rehomed++;
            bop_metric_add(aof->metrics.rehomed, 1);
            return;
        }
        bop_error_set(&aof->error, first.code, "%s; it cannot go on in a new segment: %s",
                      first.message, why.message);
    }
    fail(aof);
}

/* ---- Telling ---- */

static void tell_room(struct bop_aof *aof)
{
    unsigned ready = 0;

    if (aof->pending_bytes < aof->options.pending_bytes_max) {
        ready |= 1u << BOP_AOF_REFUSED_FLUSH;
    }
    if (!aof->no_room) {
        ready |= 1u << BOP_AOF_REFUSED_ADMISSION;
    }
    if (!bop__is_rolled_full(aof)) {
        ready |= 1u << BOP_AOF_REFUSED_ROLLOVER;
    }
    ready &= aof->refused;
    aof->refused &= ~ready;
    for (unsigned i = 0; ready != 0; i++, ready >>= 1) {
        if ((ready & 1) != 0 && aof->options.on_room) {
            aof->options.on_room(aof->options.user, (enum bop_aof_refusal)i);
        }
    }
}

static void tell_levels(struct bop_aof *aof)
{
    void (*on_level)(void *, enum bop_aof_level, uint64_t) = aof->options.on_level;
    uint64_t os = bop_max_u64(aof->os.seq, aof->durable.seq);
    uint64_t durable = aof->durable.seq;
    uint64_t tier2 = aof->tier2;

    if (on_level && os > aof->told_os) {
        aof->told_os = os;
        on_level(aof->options.user, BOP_AOF_OS, os);
    }
    aof->told_os = bop_max_u64(aof->told_os, os);
    if (durable > aof->told_durable) {
        aof->told_durable = durable;
        if (aof->options.on_durable) {
            aof->options.on_durable(aof->options.user, durable);
        }
        if (on_level) {
            on_level(aof->options.user, BOP_AOF_DISK, durable);
        }
    }
    if (tier2 > aof->told_tier2) {
        aof->told_tier2 = tier2;
        if (on_level) {
            on_level(aof->options.user, BOP_AOF_TIER2, tier2);
        }
    }
}

static void publish(struct bop_aof *aof)
{
    if (aof->os.seq != aof->published_os.seq || aof->durable.seq != aof->published_durable) {
        aof->published_os = aof->os;
        aof->published_durable = aof->durable.seq;
        bop__aof_catalogue_publish(&aof->catalogue, aof->os, aof->durable);
        bop__aof_update_metrics(aof);
    }
}

void bop__after(struct bop_aof *aof)
{
    if (aof->opening) {
        return;
    }
    settle(aof);
    if (aof->poison != 0) {
        settle_poison(aof);
    }
    bop__pump(aof);
    publish(aof);
    bop__aof_check(aof);
    if (aof->failed != 0 && !aof->told_failed) {
        aof->told_failed = true;
        if (aof->options.on_failed) {
            aof->options.on_failed(aof->options.user, aof->failed, aof->error.message);
        }
    }
    tell_levels(aof);
    tell_room(aof);
}
