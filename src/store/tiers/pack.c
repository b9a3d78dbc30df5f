/*
 * Tier 0 to tier 1: pack a sealed segment, read the file back whole, and only then
 * record that it is there.
 */
#include <string.h>

#include <bop/error.h>

#include "internal.h"

int bop__packed_check(struct bop__job *job, const char *path, struct bop__warm_facts *out_facts)
{
    struct bop_tiers *tiers = job->tiers;
    struct bop__packed *packed;
    int rc;

    rc = bop__packed_file_open(tiers->allocator, tiers->options.fs, path, &packed, &job->err);
    if (rc < 0) {
        return rc;
    }
    rc = bop__warm_verify(tiers->allocator, packed, job->segment->facts.root, out_facts, &job->err);
    packed->close(packed);
    return rc;
}

/* Verify the file that was just written, from what the disk gives back. */
static int verify(struct bop__job *job, const char *path)
{
    struct bop__warm_facts facts;
    int rc = bop__packed_check(job, path, &facts);

    if (rc == 0 && (facts.packed_size != job->facts.packed_size ||
                    memcmp(facts.sha256, job->facts.sha256, sizeof(facts.sha256)) != 0)) {
        rc = bop_error_set(&job->err, BOP_ECORRUPT, "%s is not what was written", path);
    }
    return rc;
}

static int pack(struct bop__job *job, const char *path)
{
    const struct bop_tiers_options *options = &job->tiers->options;
    struct bop__warm_pack_options pack_options = {.allocator = job->tiers->allocator,
                                                  .fs = options->fs,
                                                  .level = job->level,
                                                  .frame_bytes = options->frame_bytes,
                                                  .dictionary_bytes = options->dictionary_bytes,
                                                  .cancel = &job->cancel};
    struct bop__segment_source *source;
    int rc;

    rc = bop__file_source_open(job->tiers->allocator, options->fs, job->segment->path, true, true,
                               &source, &job->err);
    if (rc < 0) {
        return rc;
    }
    rc = bop__warm_pack(&pack_options, source, path, &job->facts, &job->err);
    source->close(source);
    job->bad_tier0 = bop__is_bad(rc);
    if (rc == 0 && memcmp(job->facts.segment.root, job->segment->facts.root,
                          sizeof(job->facts.segment.root)) != 0) {
        job->bad_tier0 = true;
        rc = bop_error_set(&job->err, BOP_ECORRUPT, "%s is not the segment that was sealed",
                           job->segment->path);
    }
    return rc == 0 ? verify(job, path) : rc;
}

static int record(struct bop__job *job, struct bop__manifest_record record)
{
    record.generation = job->segment->facts.generation;
    return bop__archive_append(job->archive, &record, 1, &job->version, &job->err);
}

/* Best effort, and once for each row of failures: a full disk is told by the status. */
static void record_failure(struct bop__job *job)
{
    struct bop_error err = job->err;

    if (job->segment->retries[BOP__RETRY_LOCAL].attempts == 0 && job->code != BOP_ECANCELED) {
        BOP_IGNORE(record(job, (struct bop__manifest_record){
                                   .kind = BOP__MANIFEST_COMPRESSION_FAILED,
                                   .reason = job->bad_tier0 ? BOP__MANIFEST_CORRUPT_SEGMENT
                                                            : BOP__MANIFEST_TRANSIENT}));
    }
    job->err = err;
}

void bop__pack_run(struct bop__job *job)
{
    struct bop__manifest_record packed = {.kind = BOP__MANIFEST_COMPRESSION_DONE};
    char path[BOP__PATH_MAX];

    if (!bop__archive_warm_path(job->archive, &job->segment->facts, "", path)) {
        job->code = bop_error_set(&job->err, -ENAMETOOLONG, "pack into %s", job->archive->warm);
        return;
    }
    job->code = record(job,
                       (struct bop__manifest_record){.kind = BOP__MANIFEST_COMPRESSION_STARTED});
    if (job->code < 0) {
        return;
    }
    job->code = pack(job, path);
    if (job->code < 0) {
        record_failure(job);
        return;
    }
    packed.packed_bytes = job->facts.packed_size;
    memcpy(packed.sha256, job->facts.sha256, sizeof(packed.sha256));
    job->code = record(job, packed);
}

void bop__pack_done(struct bop__job *job)
{
    struct bop__tiered *segment = job->segment;
    struct bop_tiers *tiers = job->tiers;

    segment->bad_tier0 = job->bad_tier0;
    if (job->code < 0) {
        bop__count(tiers, BOP__COUNT_PACK_FAILURES, 1);
        bop__retry_failed(tiers, &segment->retries[BOP__RETRY_LOCAL], &job->err);
        bop__tiers_event(segment, BOP_LOG_WARN, 1, "tier1_compression_failed", "%s",
                         job->err.message);
        return;
    }
    bop__retry_over(tiers, &segment->retries[BOP__RETRY_LOCAL]);
    bop__count(tiers, BOP__COUNT_PACKS, 1);
    memcpy(segment->sha256, job->facts.sha256, sizeof(segment->sha256));
    segment->packed_ms = segment->came1_ms = bop__tiers_wall_ms(tiers);
    pthread_mutex_lock(&tiers->lock);
    segment->number = ++tiers->numbers; /* These may be other bytes than those of before. */
    pthread_mutex_unlock(&tiers->lock);
    bop__tiered_set_tier1(segment, true, job->facts.packed_size);
    bop__tiers_event(segment, BOP_LOG_INFO, 1, "tier1_compression_success",
                     "bytes=%" PRIu64 " packed=%" PRIu64 " level=%d", segment->facts.size,
                     job->facts.packed_size, job->level);
}
