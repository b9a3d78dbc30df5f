/*
 * Tier 1 to tier 2: put the packed file, ask the store what it has, read it back, and
 * only then record that it is there.
 */
#include <string.h>

#include <bop/error.h>

#include "internal.h"

#define META_COUNT 11
#define META_SIZE  72

static int append(struct bop__job *job, struct bop__manifest_record record)
{
    record.generation = job->segment->facts.generation;
    record.key = job->segment->key;
    return bop__archive_append(job->archive, &record, 1, &job->version, &job->err);
}

/* What an earlier attempt left: true if it was begun, with the upload's id, if any. */
static bool was_begun(struct bop__job *job, struct bop_object_put *put)
{
    struct bop__archive *archive = job->archive;
    const struct bop__manifest_entry *entry;
    bool begun = false;

    pthread_mutex_lock(&archive->manifest_lock);
    entry = bop__manifest_find(archive->manifest, job->segment->facts.generation);
    if (entry && (entry->uploading || entry->uploaded)) {
        begun = true;
        snprintf(put->upload_id, sizeof(put->upload_id), "%s",
                 entry->upload_id && entry->uploading ? entry->upload_id : "");
    }
    pthread_mutex_unlock(&archive->manifest_lock);
    return begun;
}

static void keep_upload_id(void *user, const char *upload_id)
{
    struct bop__job *job = user;
    struct bop_error err;

    if (job->again) {
        return; /* It is recorded as uploaded. */
    }
    err = job->err;
    /* Without this record the parts sent so far are sent again, no more. */
    BOP_IGNORE(append(job, (struct bop__manifest_record){.kind = BOP__MANIFEST_UPLOAD_STARTED,
                                                         .text = upload_id}));
    job->err = err;
}

/* ---- Put ---- */

struct metadata {
    struct bop_object_meta entries[META_COUNT];
    char values[META_COUNT][META_SIZE];
    size_t count;
};

BOP_PRINTF(3, 4)
static void add_meta(struct metadata *meta, const char *name, const char *format, ...)
{
    char *value = meta->values[meta->count];
    va_list args;

    va_start(args, format);
    vsnprintf(value, META_SIZE, format, args);
    va_end(args);
    meta->entries[meta->count++] = (struct bop_object_meta){name, value};
}

static void fill_meta(const struct bop__job *job, struct metadata *meta)
{
    const struct bop__segment_facts *facts = &job->segment->facts;
    char hex[2 * BOP_AOF_DIGEST_SIZE + 1];

    bop__hex(facts->log_id, sizeof(facts->log_id), hex);
    add_meta(meta, "log-id", "%s", hex);
    add_meta(meta, "generation", "%" PRIu64, facts->generation);
    add_meta(meta, "base", "%" PRIu64, facts->base);
    add_meta(meta, "end", "%" PRIu64, facts->end_seq);
    add_meta(meta, "count", "%" PRIu64, facts->end_seq - facts->base);
    add_meta(meta, "epoch", "%" PRIu64, facts->epoch);
    add_meta(meta, "sealed-bytes", "%" PRIu64, facts->size);
    add_meta(meta, "packed-bytes", "%" PRIu64, job->segment->packed_bytes);
    add_meta(meta, "first-time-us", "%" PRIu64, facts->first_time_us);
    add_meta(meta, "last-time-us", "%" PRIu64, facts->last_time_us);
    bop__hex(facts->root, sizeof(facts->root), hex);
    add_meta(meta, "root", "%s", hex);
}

static int put(struct bop__job *job, struct bop_object_put *put, int fd,
               struct bop_object_info *out_info)
{
    struct bop_object_store *objects = job->tiers->options.objects;
    struct metadata meta = {.count = 0};

    fill_meta(job, &meta);
    put->key = job->segment->key;
    put->source = (struct bop_object_source){
        .fs = job->tiers->options.fs, .fd = fd, .size = job->segment->packed_bytes};
    put->meta = meta.entries;
    put->meta_count = meta.count;
    memcpy(put->sha256, job->segment->sha256, sizeof(put->sha256));
    put->on_upload_id = keep_upload_id;
    put->user = job;
    return objects->put(objects, put, out_info, &job->err);
}

/* ---- Read back ---- */

static int compare(struct bop__job *job, int fd, uint64_t offset, size_t size,
                   struct bop_buf *there, struct bop_buf *here)
{
    const char *key = job->segment->key;
    int rc;

    bop_buf_clear(there);
    bop_buf_clear(here);
    rc = bop__object_get(job->tiers, key, offset, size, there, &job->err);
    if (rc < 0) {
        return rc;
    }
    rc = bop_buf_reserve(here, size);
    if (rc == 0) {
        rc = bop_fs_read_exact(job->tiers->options.fs, fd, here->data, size, offset);
    }
    if (rc < 0) {
        return bop_error_set(&job->err, rc, "compare object %s with its file", key);
    }
    return memcmp(there->data, here->data, size) == 0
               ? 0
               : bop_error_set(&job->err, BOP_ECORRUPT, "object %s holds other bytes than its file",
                               key);
}

static int read_back_ends(struct bop__job *job, int fd)
{
    uint64_t size = job->segment->packed_bytes;
    size_t part = (size_t)bop_min_u64(BOP__ENDS_BYTES, size);
    struct bop_buf there, here;
    int rc;

    bop_buf_init(&there, job->tiers->allocator, 0);
    bop_buf_init(&here, job->tiers->allocator, 0);
    rc = compare(job, fd, 0, part, &there, &here);
    if (rc == 0) {
        rc = compare(job, fd, size - part, part, &there, &here);
    }
    bop_buf_deinit(&there);
    bop_buf_deinit(&here);
    return rc;
}

static int read_back(struct bop__job *job, int fd, struct bop_object_info *out_info)
{
    struct bop__object_facts object = bop__tiered_object(job->segment);
    int rc;

    rc = bop__object_head(job->tiers, &object, out_info, &job->err);
    if (rc < 0) {
        return rc;
    }
    return job->tiers->options.read_back == BOP_TIERS_READ_BACK_ENDS
               ? read_back_ends(job, fd)
               : bop__object_copy(job->tiers, &object, -1, &job->cancel, &job->err);
}

/* What is there, or was sent, is not what was packed: whose fault is it? An object that is wrong
 * goes, so that the next attempt does not take it for its own. */
static void blame(struct bop__job *job, int fd, bool was_put)
{
    struct bop_object_store *objects = job->tiers->options.objects;
    struct bop_error err = job->err, local = {0};
    uint8_t sha256[32];
    int rc;

    rc = bop__sha256_file(job->tiers, fd, job->segment->packed_bytes, sha256, &local);
    job->bad_tier1 = bop__is_bad(rc) ||
                     (rc == 0 && memcmp(sha256, job->segment->sha256, sizeof(sha256)) != 0);
    if (was_put) {
        BOP_IGNORE(objects->remove(objects, job->segment->key, &local));
        if (!job->again) {
            BOP_IGNORE(append(
                job, (struct bop__manifest_record){.kind = BOP__MANIFEST_UPLOAD_FAILED,
                                                   .reason = err.code == BOP_ENOTFOUND
                                                                 ? BOP__MANIFEST_OBJECT_MISSING
                                                                 : BOP__MANIFEST_CORRUPT_SEGMENT}));
        }
    }
    job->err = err;
}

/* ---- All of it ---- */

static int upload(struct bop__job *job, int fd)
{
    struct bop_object_store *objects = job->tiers->options.objects;
    struct bop__manifest_record uploaded = {.kind = BOP__MANIFEST_UPLOAD_DONE};
    struct bop_object_put request = {.key = NULL};
    struct bop_object_info info = {0};
    int rc = 0;

    if (!was_begun(job, &request)) {
        rc = append(job, (struct bop__manifest_record){.kind = BOP__MANIFEST_UPLOAD_STARTED});
    }
    if (rc == 0 && job->again) {
        rc = objects->remove(objects, job->segment->key, &job->err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = put(job, &request, fd, &info);
    if (bop__is_bad(rc)) {
        blame(job, fd, false);
    }
    if (rc < 0) {
        return rc;
    }
    rc = read_back(job, fd, &info);
    if (bop__is_bad(rc)) {
        blame(job, fd, true);
    }
    if (rc < 0 || job->again) {
        return rc;
    }
    uploaded.text = info.etag;
    memcpy(uploaded.sha256, job->segment->sha256, sizeof(uploaded.sha256));
    return append(job, uploaded);
}

void bop__upload_run(struct bop__job *job)
{
    struct bop_fs *fs = job->tiers->options.fs;
    char path[BOP__PATH_MAX];
    int fd;

    if (!bop__archive_warm_path(job->archive, &job->segment->facts, "", path)) {
        job->code = bop_error_set(&job->err, -ENAMETOOLONG, "upload from %s", job->archive->warm);
        return;
    }
    fd = fs->open(fs, path, O_RDONLY);
    if (fd < 0) {
        job->code = bop_error_set(&job->err, fd, "open %s", path);
        job->bad_tier1 = fd == -ENOENT;
        return;
    }
    job->code = upload(job, fd);
    fs->close(fs, fd);
}

void bop__upload_done(struct bop__job *job)
{
    struct bop__tiered *segment = job->segment;
    struct bop_tiers *tiers = job->tiers;
    struct bop__retry *retry = &segment->retries[BOP__RETRY_REMOTE];

    if (job->bad_tier1) {
        bop__tiered_suspect(segment, 1);
    }
    if (job->code < 0) {
        bop__count(tiers, BOP__COUNT_UPLOAD_FAILURES, 1);
        bop__retry_failed(tiers, retry, &job->err);
        bop__tiers_event(segment, BOP_LOG_WARN, 2, "tier2_upload_failed", "%s", job->err.message);
        return;
    }
    bop__retry_over(tiers, retry);
    segment->uploading = false;
    segment->uploaded_version = job->archive->version;
    job->archive->urgent = true;
    bop__tiered_set_tier2(segment, true);
    bop__count(tiers, BOP__COUNT_UPLOADS, 1);
    bop__tiers_event(segment, BOP_LOG_INFO, 2, "tier2_upload_success",
                     "key=%s bytes=%" PRIu64 " ms=%" PRIu64, segment->key, segment->packed_bytes,
                     (bop__tiers_now_us(tiers) - job->begun_us) / 1000);
}
