/*
 * Tier 2 to tier 1: a whole packed segment, for one that is to be kept near.
 */
#include <bop/error.h>

#include "internal.h"

static int fetch_file(struct bop__job *job, const char *path)
{
    struct bop_fs *fs = job->tiers->options.fs;
    struct bop__object_facts object = bop__tiered_object(job->segment);
    int fd, rc;

    fd = fs->open(fs, path, O_RDWR | O_CREAT | O_TRUNC);
    if (fd < 0) {
        return bop_error_set(&job->err, fd, "create %s", path);
    }
    rc = bop__object_copy(job->tiers, &object, fd, &job->cancel, &job->err);
    if (rc == 0) {
        rc = fs->sync(fs, fd);
        if (rc < 0) {
            bop_error_set(&job->err, rc, "sync %s", path);
        }
    }
    fs->close(fs, fd);
    return rc;
}

static int hydrate(struct bop__job *job, const char *temporary, const char *path)
{
    struct bop_fs *fs = job->tiers->options.fs;
    struct bop__warm_facts facts;
    int rc;

    rc = fetch_file(job, temporary);
    if (rc == 0) {
        rc = bop__packed_check(job, temporary, &facts);
    }
    if (rc < 0) {
        return rc;
    }
    rc = fs->rename(fs, temporary, path);
    if (rc == 0) {
        rc = fs->sync_dir(fs, job->archive->warm);
    }
    return rc < 0 ? bop_error_set(&job->err, rc, "rename %s", temporary) : 0;
}

static int record(struct bop__job *job, enum bop__manifest_kind kind)
{
    struct bop__manifest_record record = {.kind = kind,
                                          .generation = job->segment->facts.generation,
                                          .packed_bytes = job->segment->packed_bytes,
                                          .tier = 2,
                                          .reason = BOP__MANIFEST_NETWORK};

    return bop__archive_append(job->archive, &record, 1, &job->version, &job->err);
}

void bop__hydrate_run(struct bop__job *job)
{
    struct bop_fs *fs = job->tiers->options.fs;
    char temporary[BOP__PATH_MAX], path[BOP__PATH_MAX];
    struct bop_error err;

    if (!bop__archive_warm_path(job->archive, &job->segment->facts, ".tmp", temporary) ||
        !bop__archive_warm_path(job->archive, &job->segment->facts, "", path)) {
        job->code = bop_error_set(&job->err, -ENAMETOOLONG, "fetch to %s", job->archive->warm);
        return;
    }
    job->code = record(job, BOP__MANIFEST_HYDRATION_STARTED);
    if (job->code < 0) {
        return;
    }
    job->code = hydrate(job, temporary, path);
    if (job->code == 0) {
        job->code = record(job, BOP__MANIFEST_HYDRATION_DONE);
        return;
    }
    /* Best effort, all of it: the next open does it too. */
    BOP_IGNORE(fs->unlink(fs, temporary));
    err = job->err;
    if (job->segment->retries[BOP__RETRY_REMOTE].attempts == 0) {
        BOP_IGNORE(record(job, BOP__MANIFEST_HYDRATION_FAILED));
    }
    job->err = err;
}

void bop__hydrate_done(struct bop__job *job)
{
    struct bop__tiered *segment = job->segment;
    struct bop_tiers *tiers = job->tiers;
    struct bop__retry *retry = &segment->retries[BOP__RETRY_REMOTE];

    if (job->code < 0) {
        bop__count(tiers, BOP__COUNT_HYDRATION_FAILURES, 1);
        bop__retry_failed(tiers, retry, &job->err);
        bop__tiers_event(segment, BOP_LOG_WARN, 1, "tier1_hydration_failed", "%s",
                         job->err.message);
        if (bop__is_bad(job->code) && ++segment->bad_fetches >= BOP__BAD_FETCHES) {
            bop__tiered_suspect(segment, 2);
        }
        return;
    }
    bop__retry_over(tiers, retry);
    segment->bad_fetches = 0;
    segment->came1_ms = bop__tiers_wall_ms(tiers);
    bop__tiered_set_tier1(segment, true, segment->packed_bytes);
    bop__count(tiers, BOP__COUNT_HYDRATIONS, 1);
    /* Release pairs with the acquire of whoever tells the log. */
    atomic_store_explicit(&job->archive->hydrated, true, memory_order_release);
    bop__tiers_event(segment, BOP_LOG_INFO, 1, "tier1_hydration_success", "bytes=%" PRIu64,
                     segment->packed_bytes);
}
