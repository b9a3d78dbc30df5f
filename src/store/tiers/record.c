/*
 * Records that no move of its own writes: segments as they are sealed, what left
 * tier 0, what retention takes. Several in one append, so that a burst costs one sync.
 */
#include "internal.h"

/* Leave out what was truncated since: its record must not come after that of the truncation.
 * The manifest is locked. Returns how many are left; the others are behind them. */
static unsigned keep_valid(struct bop__job *job)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < job->count; i++) {
        struct bop__tiered *segment = job->batch[i];

        if (job->records[i].kind == BOP__MANIFEST_SEAL_SEGMENT && segment->dropped) {
            continue;
        }
        job->batch[i] = job->batch[kept];
        job->batch[kept] = segment;
        job->records[kept] = job->records[i];
        kept++;
    }
    return kept;
}

void bop__record_run(struct bop__job *job)
{
    struct bop__archive *archive = job->archive;
    uint64_t now_ms = bop__tiers_wall_ms(job->tiers);

    for (unsigned i = 0; i < job->count; i++) {
        job->records[i].time_ms = now_ms;
    }
    pthread_mutex_lock(&archive->manifest_lock);
    job->bytes = keep_valid(job);
    if (job->bytes > 0) {
        job->code = bop__manifest_append(archive->manifest, job->records, job->bytes, &job->err);
    }
    if (job->code == 0) {
        job->version = ++archive->appended;
    }
    pthread_mutex_unlock(&archive->manifest_lock);
}

static void queued(struct bop__job *job, struct bop__tiered *segment)
{
    struct bop__archive *archive = job->archive;

    pthread_mutex_lock(&job->tiers->lock);
    segment->closed = true;
    archive->stale = true;
    pthread_mutex_unlock(&job->tiers->lock);
    segment->delete_queued = true;
    segment->say_deleted = false;
    segment->queued_version = job->version;
    archive->urgent = true;
    if (!segment->dropped) {
        archive->oldest = bop_max_u64(archive->oldest, segment->facts.end_seq);
    }
    bop__tiers_event(segment, BOP_LOG_INFO, 2, "tier2_delete_queued", "due_ms=%" PRIu64,
                     segment->due_ms);
}

static void dropped(struct bop__archive *archive, struct bop__tiered *segment)
{
    pthread_mutex_lock(&archive->manifest_lock);
    segment->dropped = true;
    pthread_mutex_unlock(&archive->manifest_lock);
    segment->say_deleted = false;
    for (size_t i = 0; i < archive->count; i++) {
        if (archive->segments[i] == segment) {
            bop__tiered_drop(archive, i);
            return;
        }
    }
}

static void recorded(struct bop__job *job, unsigned i)
{
    struct bop__tiered *segment = job->batch[i];

    switch (job->records[i].kind) {
    case BOP__MANIFEST_SEAL_SEGMENT:
        segment->recorded = true;
        break;
    case BOP__MANIFEST_LOCAL_EVICTED:
        segment->say_evicted = false;
        break;
    case BOP__MANIFEST_TIER2_DELETE_QUEUED:
        queued(job, segment);
        break;
    case BOP__MANIFEST_TRUNCATED:
        dropped(job->archive, segment);
        break;
    default:
        BOP_ASSERT(false);
    }
}

/* A record that does not follow from what is recorded never will. Find out which, and leave it. */
static void refused(struct bop__job *job)
{
    struct bop__archive *archive = job->archive;
    struct bop__tiered *segment = job->batch[0];

    if (job->count > 1) {
        archive->one_by_one = true;
        return;
    }
    archive->one_by_one = false;
    if (job->records[0].kind == BOP__MANIFEST_LOCAL_EVICTED) {
        segment->say_evicted = false; /* It tells what is so already. */
        return;
    }
    segment->refused = true;
    bop__retry_failed(job->tiers, &segment->retries[BOP__RETRY_LOCAL], &job->err);
    bop__tiers_event(segment, BOP_LOG_ERROR, 1, "tier1_manifest_refuses", "%s", job->err.message);
}

void bop__record_done(struct bop__job *job)
{
    struct bop__archive *archive = job->archive;

    archive->recording = false;
    if (job->code == BOP_ECONDITION) {
        refused(job);
        return;
    }
    if (job->code < 0) {
        bop__retry_failed(job->tiers, &archive->record_retry, &job->err);
        return;
    }
    bop__retry_over(job->tiers, &archive->record_retry);
    for (unsigned i = 0; i < job->bytes; i++) {
        recorded(job, i);
    }
}
