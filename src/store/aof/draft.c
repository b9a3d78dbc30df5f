/*
 * Footers drafted while their segments are written.
 *
 *      send -----> the disk -----> leaves the queue --.
 *          `-----> drafted, by a job, in order -------+----> freed
 *
 * A footer has a hash of every byte. Of a log that is written at the disk's speed, sealing would
 * read all of it a second time, past the page cache if it was written past it: as much as the disk
 * can give, and all while the next segment waits for its name. So the bytes of big commits are
 * hashed from memory, where they are until they are on disk anyway, a commit at a time, between
 * other jobs.
 *
 * This is best effort. A segment of small commits, one that goes on after a restart, that was cut
 * or rehomed, or whose commits came faster than they could be hashed, has no draft, and is read.
 */
#include "internal.h"

/* A segment gets a draft if its first commit is as big as this, or as a sixteenth of it, */
#define DRAFT_COMMIT (192u * 1024)
/* ... and loses it if more than so many others are not: each costs a hand-over to another thread.
 */
#define SMALL_MAX 16u
/* Bytes that wait to be drafted, at most. */
#define DRAFT_BYTES_MAX (32u * 1024 * 1024)

/* ---- What goes into a draft ---- */

static struct bop__footer_draft *make_draft(struct bop_aof *aof, const struct bop__segment *segment)
{
    struct bop__segment_facts facts = {
        .base = segment->base,
        .generation = segment->generation,
        .epoch = segment->header.epoch,
        .seed = segment->seed,
    };

    memcpy(facts.log_id, aof->id, sizeof(facts.log_id));
    return bop__footer_draft_new(aof->allocator, &facts);
}

static bool is_big(const struct bop_aof *aof, const struct bop__batch *batch)
{
    return batch->size >= bop_min_u64(DRAFT_COMMIT, aof->options.segment_bytes / 16);
}

/* Where commits are tasks, or nobody waits for the disk, there is nothing to be gained. */
static bool is_wanted(const struct bop_aof *aof, const struct bop__batch *batch)
{
    return aof->writes_max > 1 && !aof->options.no_footers && batch->sync;
}

void bop__draft_drop(struct bop__segment *segment)
{
    bop__footer_draft_unref(segment->draft);
    segment->draft = NULL;
}

void bop__draft_sent(struct bop_aof *aof, struct bop__batch *batch)
{
    struct bop__segment *segment = batch->segment;

    if (batch->draft) {
        return; /* Sent again, where there was no room before. */
    }
    if (!is_wanted(aof, batch) || aof->draft_bytes + batch->size > DRAFT_BYTES_MAX) {
        bop__draft_drop(segment);
        return;
    }
    if (batch->offset == BOP__AOF_SEGMENT_HEADER && is_big(aof, batch) && !segment->draft) {
        segment->draft = make_draft(aof, segment); /* Without memory there is none. */
        segment->small = 0;
    }
    segment->small += is_big(aof, batch) ? 0 : 1;
    if (segment->small > SMALL_MAX) {
        bop__draft_drop(segment);
    }
    if (segment->draft) {
        batch->draft = bop__footer_draft_ref(segment->draft);
        aof->draft_bytes += batch->size;
        bop_list_push_back(&aof->drafts, &batch->draft_link);
    }
}

/* ---- The job ---- */

static void draft_run(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);
    struct bop__batch *batch = job->aof->jobs.draft.batch;

    bop__footer_draft_add(batch->draft, batch->offset, batch->bytes, batch->size);
}

/* It is in its draft, or need not be any more. */
static void leave_draft(struct bop_aof *aof, struct bop__batch *batch)
{
    bop__footer_draft_unref(batch->draft);
    batch->draft = NULL;
    aof->draft_bytes -= batch->size;
    if (batch->left) {
        batch->left = false;
        bop__batch_free(aof, batch);
    }
}

static void draft_done(struct bop_task *task)
{
    struct bop_aof *aof = bop__job_finished(task)->aof;
    struct bop__batch *batch = aof->jobs.draft.batch;

    aof->jobs.draft.batch = NULL;
    leave_draft(aof, batch);
    bop__after(aof);
}

void bop__draft_start(struct bop_aof *aof)
{
    struct bop_list *link;

    if (aof->jobs.draft.job.busy) {
        return;
    }
    link = bop_list_pop_front(&aof->drafts);
    if (link) {
        aof->jobs.draft.batch = BOP_CONTAINER_OF(link, struct bop__batch, draft_link);
        bop__job_start(aof, &aof->jobs.draft.job);
    }
}

void bop__draft_init(struct bop_aof *aof)
{
    bop__job_init(aof, &aof->jobs.draft.job, draft_run, draft_done);
}

/* ---- The end ---- */

void bop__batch_release(struct bop_aof *aof, struct bop__batch *batch)
{
    if (batch->draft) {
        batch->left = true;
    } else {
        bop__batch_free(aof, batch);
    }
}

void bop__drafts_free(struct bop_aof *aof)
{
    struct bop_list *link;

    BOP_ASSERT(!aof->jobs.draft.job.busy);
    while ((link = bop_list_pop_front(&aof->drafts)) != NULL) {
        leave_draft(aof, BOP_CONTAINER_OF(link, struct bop__batch, draft_link));
    }
}
