/*
 * Looking at what is kept, at a rate: bytes that rot are found while another copy is
 * there to replace them.
 */
#include <string.h>

#include <bop/error.h>

#include "internal.h"

/* What a look at an object that is not read is counted as. */
#define LOOK_BYTES 4096u

static int check_packed(struct bop__job *job, struct bop__packed *packed)
{
    struct bop__tiered *segment = job->segment;
    struct bop__warm_facts facts;
    int rc;

    rc = bop__warm_verify(job->tiers->allocator, packed, segment->facts.root, &facts, &job->err);
    job->bytes += segment->packed_bytes;
    if (rc == 0 && memcmp(facts.sha256, segment->sha256, sizeof(facts.sha256)) != 0) {
        rc = bop_error_set(&job->err, BOP_ECORRUPT, "%s has another digest", packed->name);
    }
    packed->close(packed);
    return rc;
}

static int check_tier1(struct bop__job *job)
{
    struct bop_tiers *tiers = job->tiers;
    struct bop__packed *packed;
    char path[BOP__PATH_MAX];
    int rc;

    if (!bop__archive_warm_path(job->archive, &job->segment->facts, "", path)) {
        return bop_error_set(&job->err, -ENAMETOOLONG, "look into %s", job->archive->warm);
    }
    rc = bop__packed_file_open(tiers->allocator, tiers->options.fs, path, &packed, &job->err);
    return rc < 0 ? rc : check_packed(job, packed);
}

static int check_tier2(struct bop__job *job)
{
    struct bop__object_facts object = bop__tiered_object(job->segment);
    struct bop_object_info info;
    struct bop__packed *packed;
    int rc;

    rc = bop__object_head(job->tiers, &object, &info, &job->err);
    job->bytes += LOOK_BYTES;
    if (rc < 0 || !job->tiers->options.scrub_objects) {
        return rc;
    }
    rc = bop__object_open(job->segment, &object, BOP__OBJECT_WORKER, &packed);
    return rc < 0 ? rc : check_packed(job, packed);
}

void bop__scrub_run(struct bop__job *job)
{
    int code1 = job->check_tier1 ? check_tier1(job) : 0;
    int code2;

    job->bad_tier1 = bop__is_bad(code1);
    if (job->bad_tier1) {
        bop_error_wrap(&job->err, "scrub tier 1");
    }
    code2 = job->check_tier2 ? check_tier2(job) : 0;
    job->bad_tier2 = bop__is_bad(code2);
    job->code = code1 < 0 && !job->bad_tier1 ? code1 : code2 < 0 && !job->bad_tier2 ? code2 : 0;
}

void bop__scrub_done(struct bop__job *job)
{
    struct bop__tiered *segment = job->segment;
    struct bop_tiers *tiers = job->tiers;
    uint64_t rate = tiers->options.scrub_bytes_per_s;

    segment->scrubbed = ++tiers->scrubs;
    bop__count(tiers, BOP__COUNT_SCRUBBED_BYTES, job->bytes);
    tiers->scrub_us = bop__tiers_now_us(tiers) + 1 + job->bytes * 1000000 / rate;
    if (job->bad_tier1 || job->bad_tier2) {
        bop__count(tiers, BOP__COUNT_SCRUB_ERRORS, 1);
        bop__tiers_event(segment, BOP_LOG_WARN, job->bad_tier1 ? 1 : 2, "scrub_found_damage", "%s",
                         job->err.message);
    }
    if (job->bad_tier1) {
        bop__tiered_suspect(segment, 1);
    }
    if (job->bad_tier2) {
        bop__tiered_suspect(segment, 2);
    } else if (job->check_tier2 && job->code == 0 && segment->bad_tier2) {
        bop__tiered_set_tier2(segment, true); /* Somebody put it back. */
    }
    if (job->code < 0) {
        bop__retry_failed(tiers, &segment->retries[BOP__RETRY_LOCAL], &job->err);
    } else {
        bop__retry_over(tiers, &segment->retries[BOP__RETRY_LOCAL]);
    }
}
