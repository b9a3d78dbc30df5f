/*
 * Who leaves: tier 0 and tier 1 by their budgets, the log's oldest by retention.
 *
 * All of this only decides. What leaves a tier is in a lower one, verified and
 * recorded, or its leaving for good is recorded before anything goes.
 */
#include "internal.h"

/* Segments that a log is asked to let go of in one poll; more are asked for in the next. */
#define RELEASES_MAX 64

static void sooner(uint64_t *next_us, uint64_t at_us)
{
    *next_us = bop_min_u64(*next_us, at_us);
}

void bop__tiers_wait_wall(const struct bop_tiers *tiers, uint64_t wall_ms, uint64_t *next_us)
{
    uint64_t now_ms = bop__tiers_wall_ms(tiers);
    uint64_t left_ms = wall_ms > now_ms ? wall_ms - now_ms : 0;

    if (left_ms < UINT64_MAX / 2000) {
        sooner(next_us, bop__tiers_now_us(tiers) + left_ms * 1000);
    }
}

/* True if it came to a tier long enough ago. */
static bool has_stayed(const struct bop_tiers *tiers, uint64_t came_ms, uint64_t *next_us)
{
    uint64_t until_ms = came_ms + tiers->options.residency_min_ms;

    if (tiers->options.residency_min_ms == 0 || bop__tiers_wall_ms(tiers) >= until_ms) {
        return true;
    }
    bop__tiers_wait_wall(tiers, until_ms, next_us);
    return false;
}

static bool is_colder(const struct bop__tiered *a, const struct bop__tiered *b)
{
    /* Relaxed: a reader that comes in between decides nothing that matters. */
    return !b || atomic_load_explicit(&a->touched, memory_order_relaxed) <
                     atomic_load_explicit(&b->touched, memory_order_relaxed);
}

/* ---- Tier 0 ---- */

static bool may_be_asked_for(const struct bop__tiered *segment, uint64_t now_us, uint64_t *next_us)
{
    if (!segment->in_tier0 || (segment->busy && segment->busy_with == BOP__JOB_PACK)) {
        return false;
    }
    if (segment->release_us > now_us) {
        sooner(next_us, segment->release_us);
        return false;
    }
    return true;
}

/* True if the log let go of it. */
static bool release(struct bop__tiered *segment)
{
    struct bop__archive *archive = segment->archive;
    struct bop_tiers *tiers = archive->tiers;

    bop__tiers_event(segment, BOP_LOG_DEBUG, 0, "tier0_eviction_scheduled", "bytes=%" PRIu64,
                     segment->facts.size);
    if (!archive->calls.release(archive->log, segment->facts.generation)) {
        segment->release_us = bop__tiers_now_us(tiers) + tiers->options.retry_ms * 1000;
        return false;
    }
    bop__tiered_set_tier0(segment, false);
    bop__count(tiers, BOP__COUNT_DROPS, 1);
    bop__tiers_event(segment, BOP_LOG_INFO, 0, "tier0_segment_dropped", "bytes=%" PRIu64,
                     segment->facts.size);
    bop__tiers_wake(tiers);
    return true;
}

/* Those past retention leave tier 0 when they are due, whatever the budget. */
static void release_retired(struct bop_tiers *tiers, uint64_t now_us, uint64_t *next_us)
{
    BOP_LIST_FOR_EACH(link, &tiers->archives) {
        struct bop__archive *archive = BOP_CONTAINER_OF(link, struct bop__archive, link);

        for (size_t i = 0; i < archive->count && !archive->closed; i++) {
            struct bop__tiered *segment = archive->segments[i];

            if (!segment->closed) {
                break; /* Retention takes the oldest. */
            }
            if (bop__tiers_wall_ms(tiers) < segment->due_ms) {
                bop__tiers_wait_wall(tiers, segment->due_ms, next_us);
            } else if (may_be_asked_for(segment, now_us, next_us) && !release(segment)) {
                sooner(next_us, segment->release_us);
            }
        }
    }
}

/* The oldest of a log in tier 0, if it may leave: the newer ones wait for it, because a log has its
 * newest records in its directory, without a gap. */
static struct bop__tiered *oldest_of_tier0(struct bop__archive *archive, uint64_t now_us,
                                           uint64_t *next_us)
{
    for (size_t i = 0; i < archive->count && !archive->closed; i++) {
        struct bop__tiered *segment = archive->segments[i];

        if (segment->in_tier0) {
            return !segment->closed && bop__tiered_is_lower(segment) &&
                           may_be_asked_for(segment, now_us, next_us) &&
                           has_stayed(archive->tiers, segment->came0_ms, next_us)
                       ? segment
                       : NULL;
        }
    }
    return NULL;
}

static struct bop__tiered *coldest_of_tier0(struct bop_tiers *tiers, uint64_t now_us,
                                            uint64_t *next_us)
{
    struct bop__tiered *coldest = NULL;

    BOP_LIST_FOR_EACH(link, &tiers->archives) {
        struct bop__tiered *oldest = oldest_of_tier0(
            BOP_CONTAINER_OF(link, struct bop__archive, link), now_us, next_us);

        if (oldest && is_colder(oldest, coldest)) {
            coldest = oldest;
        }
    }
    return coldest;
}

void bop__evict_tier0(struct bop_tiers *tiers, uint64_t *next_us)
{
    uint64_t now_us = bop__tiers_now_us(tiers);

    release_retired(tiers, now_us, next_us);
    for (unsigned i = 0; i < RELEASES_MAX && tiers->tier0_bytes > tiers->options.tier0_bytes; i++) {
        struct bop__tiered *coldest = coldest_of_tier0(tiers, now_us, next_us);

        if (!coldest) {
            return;
        }
        if (release(coldest)) {
            coldest->say_evicted = true;
        } else {
            sooner(next_us, coldest->release_us);
        }
    }
}

/* ---- Tier 1 ---- */

static bool may_leave_tier1(const struct bop__tiered *segment, uint64_t now_us, uint64_t *next_us)
{
    const struct bop__retry *retry = &segment->retries[BOP__RETRY_LOCAL];

    if (!segment->in_tier1 || !segment->in_tier2 || segment->bad_tier2 || segment->busy ||
        segment->closed || bop__tiered_pinned(segment)) {
        return false;
    }
    if (retry->at_us > now_us) {
        sooner(next_us, retry->at_us);
        return false;
    }
    return has_stayed(segment->archive->tiers, segment->came1_ms, next_us);
}

struct bop__tiered *bop__evict_tier1_pick(struct bop_tiers *tiers, uint64_t *next_us)
{
    uint64_t now_us = bop__tiers_now_us(tiers);
    struct bop__tiered *coldest = NULL;

    if (tiers->tier1_bytes - tiers->evicting_bytes <= tiers->options.tier1_bytes) {
        return NULL;
    }
    BOP_LIST_FOR_EACH(link, &tiers->archives) {
        struct bop__archive *archive = BOP_CONTAINER_OF(link, struct bop__archive, link);

        for (size_t i = 0; i < archive->count && !archive->closed; i++) {
            struct bop__tiered *segment = archive->segments[i];

            if (may_leave_tier1(segment, now_us, next_us) && is_colder(segment, coldest)) {
                coldest = segment;
            }
        }
    }
    return coldest;
}

void bop__evict_run(struct bop__job *job)
{
    struct bop_fs *fs = job->tiers->options.fs;
    struct bop__archive *archive = job->archive;
    struct bop__manifest_record record = {.kind = BOP__MANIFEST_LOCAL_EVICTED,
                                          .generation = job->segment->facts.generation,
                                          .packed_bytes = job->segment->packed_bytes,
                                          .tier = 1};
    char path[BOP__PATH_MAX];

    if (!bop__archive_warm_path(archive, &job->segment->facts, "", path)) {
        job->code = bop_error_set(&job->err, -ENAMETOOLONG, "remove a file of %s", archive->warm);
        return;
    }
    job->code = bop__archive_append(archive, &record, 1, &job->version, &job->err);
    if (job->code < 0) {
        return;
    }
    /* A file that stays is removed by the next open: nobody knows it any more. */
    BOP_IGNORE(fs->unlink(fs, path));
}

void bop__evict_done(struct bop__job *job)
{
    struct bop__tiered *segment = job->segment;
    struct bop_tiers *tiers = job->tiers;

    if (!job->check_tier1) {
        tiers->evicting_bytes -= segment->packed_bytes;
    }
    if (job->code < 0) {
        bop__retry_failed(tiers, &segment->retries[BOP__RETRY_LOCAL], &job->err);
        return;
    }
    bop__retry_over(tiers, &segment->retries[BOP__RETRY_LOCAL]);
    segment->bad_file = false;
    bop__tiered_set_tier1(segment, false, segment->packed_bytes);
    bop__count(tiers, BOP__COUNT_EVICTIONS, !job->check_tier1);
    bop__tiers_event(segment, BOP_LOG_INFO, 1, "tier1_evicted", "bytes=%" PRIu64,
                     segment->packed_bytes);
}

/* ---- Retention ---- */

static uint64_t kept_bytes(const struct bop__archive *archive)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < archive->count; i++) {
        if (!archive->segments[i]->closed) {
            bytes += archive->segments[i]->packed_bytes;
        }
    }
    return bytes;
}

/* Records without times are as old as their packing. */
static bool is_past(const struct bop__tiered *segment, uint64_t *next_us)
{
    const struct bop_tiers *tiers = segment->archive->tiers;
    uint64_t time_ms = segment->facts.last_time_us / 1000;
    uint64_t until_ms;

    if (tiers->options.retention_ms == 0) {
        return false;
    }
    until_ms = (time_ms > 0 ? time_ms : segment->packed_ms) + tiers->options.retention_ms;
    if (until_ms < tiers->options.retention_ms) {
        return false; /* Times that are none: further than can be counted. */
    }
    if (bop__tiers_wall_ms(tiers) >= until_ms) {
        return true;
    }
    bop__tiers_wait_wall(tiers, until_ms, next_us);
    return false;
}

static void retire(struct bop__tiered *segment)
{
    struct bop__archive *archive = segment->archive;
    struct bop_tiers *tiers = archive->tiers;

    segment->due_ms = bop__tiers_wall_ms(tiers) + tiers->options.delete_grace_ms;
    segment->say_deleted = true;
    if (tiers->options.objects) {
        return; /* Readable until the manifest says that it goes. */
    }
    pthread_mutex_lock(&tiers->lock);
    segment->closed = true;
    archive->stale = true;
    pthread_mutex_unlock(&tiers->lock);
    archive->oldest = segment->facts.end_seq;
    bop__tiers_wake(tiers);
}

void bop__retention(struct bop__archive *archive, uint64_t *next_us)
{
    const struct bop_tiers *tiers = archive->tiers;
    uint64_t most = tiers->options.retention_bytes;
    uint64_t bytes = most > 0 ? kept_bytes(archive) : 0;

    if (tiers->options.retention_ms == 0 && most == 0) {
        return;
    }
    /* The newest stays: it is what says, when the log is opened, that the others are not missing.
     */
    for (size_t i = 0; i + 1 < archive->count; i++) {
        struct bop__tiered *segment = archive->segments[i];
        bool last_tier = tiers->options.objects ? segment->in_tier2 : segment->in_tier1;

        if (segment->closed) {
            continue;
        }
        if (segment->say_deleted) {
            bytes -= segment->packed_bytes;
            continue;
        }
        if (!last_tier || segment->busy ||
            !((most > 0 && bytes > most) || is_past(segment, next_us))) {
            return;
        }
        bytes -= segment->packed_bytes;
        retire(segment);
    }
}

bool bop__tiered_removable(struct bop__tiered *segment, uint64_t *next_us)
{
    struct bop_tiers *tiers = segment->archive->tiers;
    unsigned readers;

    if (segment->busy || segment->fetching || segment->in_tier0) {
        return false;
    }
    if (bop__tiers_wall_ms(tiers) < segment->due_ms) {
        bop__tiers_wait_wall(tiers, segment->due_ms, next_us);
        return false;
    }
    pthread_mutex_lock(&tiers->lock);
    readers = segment->readers;
    pthread_mutex_unlock(&tiers->lock);
    return readers == 0;
}
