/*
 * Frames of tier 2 into the cache: those a reader waits for, and those that will be
 * asked for soon.
 */
#include <bop/error.h>

#include "internal.h"

static int open_warm(struct bop__job *job, struct bop__segment_source **out_source)
{
    struct bop_tiers *tiers = job->tiers;
    struct bop__packed *packed;
    int rc;

    rc = bop__object_open(job->segment, &job->object, BOP__OBJECT_WORKER, &packed);
    if (rc < 0) {
        return bop_error_set(&job->err, rc, "open object %s", job->object.key);
    }
    return bop__warm_open(tiers->allocator, packed, tiers->cache, out_source, &job->err);
}

/* How many frames the bytes asked for are, on the average, and the read-ahead. */
static unsigned frames_of(const struct bop__job *job, const struct bop__segment_source *source)
{
    uint64_t frames = bop__warm_frames(source);
    uint64_t mean = frames > 0 ? job->object.size / frames : 0;
    uint64_t count = 1 + job->tiers->options.read_ahead + (mean > 0 ? job->size / (mean + 1) : 0);

    return (unsigned)bop_min_u64(count, BOP__WARM_LOAD_MAX);
}

void bop__fetch_run(struct bop__job *job)
{
    struct bop__segment_source *source;

    job->code = open_warm(job, &source);
    if (job->code < 0) {
        return;
    }
    if (job->frame != BOP__WARM_TAIL) {
        job->code = bop__warm_load(source, job->frame, frames_of(job, source), &job->err);
    }
    source->close(source);
}

/* Take a request off, or all if none can be served now. */
static void answer(struct bop__job *job)
{
    struct bop__tiered *segment = job->segment;
    unsigned kept = 0;

    pthread_mutex_lock(&job->tiers->lock);
    for (unsigned i = 0; i < segment->wanted_count && job->code == 0; i++) {
        if (segment->wanted[i].frame != job->frame) {
            segment->wanted[kept++] = segment->wanted[i];
        }
    }
    segment->wanted_count = kept;
    /* What is not there is no end of the segment to its reader. */
    segment->fetch_code = job->code == BOP_ENOTFOUND ? BOP_ECORRUPT : job->code;
    segment->fetch_until_us = job->code < 0 ? segment->retries[BOP__RETRY_FETCH].at_us : 0;
    pthread_mutex_unlock(&job->tiers->lock);
    /* Release pairs with the acquire of whoever tells the log. */
    atomic_store_explicit(&job->archive->hydrated, true, memory_order_release);
}

static void fetched(struct bop__job *job)
{
    struct bop__tiered *segment = job->segment;
    struct bop_tiers *tiers = job->tiers;

    bop__count(tiers, BOP__COUNT_FETCHES, 1);
    if (job->code == 0) {
        bop__retry_over(tiers, &segment->retries[BOP__RETRY_FETCH]);
        segment->bad_fetches = 0;
        bop__tiers_event(segment, BOP_LOG_DEBUG, 2, "tier2_fetch_success", "frame=%" PRIu64,
                         job->frame);
        return;
    }
    bop__count(tiers, BOP__COUNT_FETCH_FAILURES, 1);
    bop__retry_failed(tiers, &segment->retries[BOP__RETRY_FETCH], &job->err);
    bop__tiers_event(segment, BOP_LOG_WARN, 2, "tier2_fetch_failed", "%s", job->err.message);
    if (bop__is_bad(job->code) && ++segment->bad_fetches >= BOP__BAD_FETCHES) {
        bop__tiered_suspect(segment, 2);
    }
}

void bop__fetch_done(struct bop__job *job)
{
    fetched(job);
    answer(job);
    if (job->code == 0) {
        bop_histogram_record(job->tiers->latency, bop__tiers_now_us(job->tiers) - job->begun_us);
    }
}

/* Read through from a record on; the cache keeps what comes by. */
static int read_through(struct bop__job *job, struct bop__segment_source *source)
{
    uint64_t seq = job->segment->facts.base, offset = 0;
    struct bop_slice bytes;
    uint64_t left = job->size;
    int rc;

    if (source->find && !source->find(source, job->frame, &seq, &offset)) {
        offset = 0;
    }
    while (left > 0 && offset < source->size) {
        rc = source->at(source, offset, 1, &bytes, &job->err);
        if (rc < 0) {
            return rc;
        }
        if (bytes.size == 0 || atomic_load_explicit(&job->cancel, memory_order_relaxed)) {
            return 0;
        }
        offset += bytes.size;
        left -= bop_min_u64(left, bytes.size);
    }
    return 0;
}

void bop__prefetch_run(struct bop__job *job)
{
    struct bop__segment_source *source;

    job->code = open_warm(job, &source);
    if (job->code == 0) {
        job->code = read_through(job, source);
        source->close(source);
    }
}

void bop__prefetch_done(struct bop__job *job)
{
    /* It was only meant to help: nobody waits, and a reader will ask for itself. */
    fetched(job);
}

int bop__archive_prefetch(struct bop__archive *archive, uint64_t seq, uint64_t bytes)
{
    struct bop_tiers *tiers = archive->tiers;
    /* More would push out what was fetched first. */
    uint64_t left = bop_min_u64(bytes, tiers->options.cache_bytes / 2);

    for (size_t i = 0; i < archive->count && left > 0; i++) {
        struct bop__tiered *segment = archive->segments[i];
        uint64_t part = bop_min_u64(left, segment->facts.size);

        if (segment->facts.end_seq <= seq || segment->closed) {
            continue;
        }
        left -= part;
        if (!segment->in_tier0 && !segment->in_tier1 && segment->in_tier2) {
            pthread_mutex_lock(&tiers->lock);
            segment->prefetch_seq = bop_max_u64(seq, segment->facts.base);
            segment->prefetch_bytes = part;
            pthread_mutex_unlock(&tiers->lock);
        }
    }
    bop__tiers_wake(tiers);
    return 0;
}
