/*
 * Out of tiers 1 and 2 for good: recorded long ago, due, and read by nobody.
 */
#include <bop/error.h>

#include "internal.h"

static int remove_object(struct bop__job *job)
{
    struct bop_object_store *objects = job->tiers->options.objects;
    struct bop__manifest_record record = {.kind = BOP__MANIFEST_TIER2_DELETED,
                                          .generation = job->segment->facts.generation,
                                          .key = job->segment->key};
    int rc;

    rc = objects->remove(objects, job->segment->key, &job->err);
    if (rc < 0) {
        return rc;
    }
    return bop__archive_append(job->archive, &record, 1, &job->version, &job->err);
}

void bop__remove_run(struct bop__job *job)
{
    struct bop_fs *fs = job->tiers->options.fs;
    char path[BOP__PATH_MAX];

    if (bop__archive_warm_path(job->archive, &job->segment->facts, "", path)) {
        /* Most often it is not there; if it stays, the next open finds that nobody knows it. */
        BOP_IGNORE(fs->unlink(fs, path));
    }
    if (job->check_tier2) {
        job->code = remove_object(job);
    }
}

static void forget(struct bop__archive *archive, struct bop__tiered *segment)
{
    for (size_t i = 0; i < archive->count; i++) {
        if (archive->segments[i] == segment) {
            bop__tiered_drop(archive, i);
            break;
        }
    }
    pthread_mutex_lock(&archive->tiers->lock);
    bop_list_remove(&segment->link);
    pthread_mutex_unlock(&archive->tiers->lock);
    bop__tiered_free(segment);
}

void bop__remove_done(struct bop__job *job)
{
    struct bop__tiered *segment = job->segment;
    struct bop_tiers *tiers = job->tiers;
    struct bop__retry *retry = &segment->retries[BOP__RETRY_REMOTE];

    if (retry->attempts > 0) {
        bop__count(tiers, BOP__COUNT_DELETE_RETRIES, 1);
    }
    if (job->code < 0) {
        bop__count(tiers, BOP__COUNT_DELETE_FAILURES, 1);
        bop__retry_failed(tiers, retry, &job->err);
        bop__tiers_event(segment, BOP_LOG_WARN, 2, "tier2_delete_failed", "%s", job->err.message);
        return;
    }
    bop__retry_over(tiers, retry);
    if (job->check_tier2) {
        bop__count(tiers, BOP__COUNT_DELETES, 1);
        bop__tiers_event(segment, BOP_LOG_INFO, 2, "tier2_delete_success", "key=%s", segment->key);
    }
    job->segment = NULL;
    forget(job->archive, segment);
}
