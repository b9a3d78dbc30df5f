/*
 * The log's life: open, close, and what it says of itself.
 */
#include "internal.h"

#include <bop/mem.h>
#include <bop/random.h>

#define SEGMENT_BYTES_DEFAULT (UINT64_C(64) * 1024 * 1024)
#define SEGMENT_BYTES_MAX     (UINT64_C(1) << 40)
#define PENDING_BYTES_DEFAULT (UINT64_C(64) * 1024 * 1024)

/* ---- Segments ---- */

struct bop__segment *bop__aof_segment_of(const struct bop_aof *aof, uint64_t seq)
{
    size_t low = 0;
    size_t high = aof->segment_count; /* Segments from here on begin above seq. */

    BOP_ASSERT(seq >= aof->segments[0]->base && seq <= aof->last);
    while (low + 1 < high) {
        size_t middle = low + (high - low) / 2;

        if (aof->segments[middle]->base <= seq) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return aof->segments[low];
}

int bop__aof_segments_reserve(struct bop_aof *aof, size_t more)
{
    size_t wanted = aof->segment_count + more;
    size_t capacity = bop_max_u64(wanted, aof->segment_capacity * 2);
    struct bop__segment **segments;

    if (wanted <= aof->segment_capacity) {
        return 0;
    }
    segments = bop_realloc(aof->allocator, aof->segments, aof->segment_capacity * sizeof(*segments),
                           capacity * sizeof(*segments));
    if (!segments) {
        return BOP_ENOMEM;
    }
    aof->segments = segments;
    aof->segment_capacity = capacity;
    return 0;
}

void bop__aof_check(const struct bop_aof *aof)
{
    size_t count = aof->segment_count;

    BOP_ASSERT(count > 0 && aof->durable <= aof->last && aof->submitted <= BOP__AOF_BATCHES);
    BOP_ASSERT(aof->segments[count - 1]->end_seq == aof->last + 1);
    BOP_ASSERT(aof->segments[count - 1]->generation == aof->generation);
    for (size_t i = 0; i < count; i++) {
        BOP_DEBUG_ASSERT(aof->segments[i]->end <= aof->segments[i]->size);
        BOP_DEBUG_ASSERT(i == 0 || aof->segments[i]->base == aof->segments[i - 1]->end_seq);
        BOP_DEBUG_ASSERT(i == 0 || aof->segments[i]->generation > aof->segments[i - 1]->generation);
    }
}

/* ---- Metrics ---- */

void bop__aof_update_metrics(struct bop_aof *aof)
{
    bop_metric_set(aof->metrics.durable_seq, (int64_t)aof->durable);
    bop_metric_set(aof->metrics.first_seq, (int64_t)bop_aof_first(aof));
    bop_metric_set(aof->metrics.last_seq, (int64_t)aof->last);
    bop_metric_set(aof->metrics.segments, (int64_t)aof->segment_count);
}

/* A metric that cannot be registered stays NULL and is not counted: no reason not to open. */
static void register_metrics(struct bop_metrics *all, struct bop__aof_metrics *out)
{
    if (!all) {
        return;
    }
    *out = (struct bop__aof_metrics){
        .appended_records = bop_metrics_counter(all, "bop_aof_appended_records_total", NULL,
                                                "Records appended to the log."),
        .appended_bytes = bop_metrics_counter(all, "bop_aof_appended_bytes_total", NULL,
                                              "Bytes appended to the log, with headers."),
        .commits = bop_metrics_counter(all, "bop_aof_commits_total", NULL,
                                       "Batches written and synced."),
        .commit_us = bop_metrics_histogram(all, "bop_aof_commit_us", NULL,
                                           "Microseconds to write and sync a batch."),
        .batch_records = bop_metrics_histogram(all, "bop_aof_batch_records", NULL,
                                               "Records in a batch."),
        .durable_seq = bop_metrics_gauge(all, "bop_aof_durable_seq", NULL,
                                         "The last record that is on disk."),
        .first_seq = bop_metrics_gauge(all, "bop_aof_first_seq", NULL, "The first record kept."),
        .last_seq = bop_metrics_gauge(all, "bop_aof_last_seq", NULL, "The last record appended."),
        .segments = bop_metrics_gauge(all, "bop_aof_segments", NULL, "Segments of the log."),
        .failed = bop_metrics_gauge(all, "bop_aof_failed", NULL,
                                    "1 after a failed write or sync, which is final."),
    };
}

/* ---- Open and close ---- */

static int check_options(const struct bop_aof_options *options, struct bop_error *err)
{
    uint64_t bytes = options->segment_bytes;

    if (!options->path || !options->path[0] || !options->executor) {
        return bop_error_set(err, BOP_EINVAL, "open log: path and executor are required");
    }
    if (bytes != 0 && (bytes < BOP__AOF_SEGMENT_HEADER || bytes > SEGMENT_BYTES_MAX)) {
        return bop_error_set(err, BOP_EINVAL, "open log %s: segment_bytes %llu", options->path,
                             (unsigned long long)bytes);
    }
    if (options->first_seq > BOP__AOF_SEQ_MAX) {
        return bop_error_set(err, BOP_EINVAL, "open log %s: first_seq", options->path);
    }
    return 0;
}

static void fill_defaults(struct bop_aof_options *options)
{
    if (options->segment_bytes == 0) {
        options->segment_bytes = SEGMENT_BYTES_DEFAULT;
    }
    if (options->pending_bytes_max == 0) {
        options->pending_bytes_max = PENDING_BYTES_DEFAULT;
    }
    if (options->first_seq == 0) {
        options->first_seq = 1;
    }
}

/* A log without files, in a state that close understands. */
static struct bop_aof *make(const struct bop_aof_options *options)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "store.aof");
    struct bop_aof *aof = bop_alloc_zeroed(allocator, sizeof(*aof));
    size_t path_size = strlen(options->path) + 1;

    if (!aof) {
        return NULL;
    }
    aof->allocator = allocator;
    aof->path = bop_alloc(allocator, path_size);
    if (!aof->path) {
        bop_free(allocator, aof, sizeof(*aof));
        return NULL;
    }
    memcpy(aof->path, options->path, path_size);
    aof->options = *options;
    aof->options.path = aof->path;
    fill_defaults(&aof->options);
    aof->fs = options->fs ? options->fs : bop_fs_real();
    aof->lock_fd = -1;
    bop__batches_init(aof);
    bop__cursors_init(aof);
    bop__writer_init(&aof->writer, aof->fs, options->log, aof->path, aof->options.segment_bytes);
    register_metrics(options->metrics, &aof->metrics);
    return aof;
}

/* Make the directory and be the only one in it. */
static int lock_directory(struct bop_aof *aof, struct bop_error *err)
{
    char path[BOP__AOF_PATH_MAX];
    int rc;

    if (!bop__aof_path(aof->path, BOP__AOF_LOCK_NAME, path)) {
        return bop_error_set(err, -ENAMETOOLONG, "%s", aof->path);
    }
    rc = bop_fs_mkdirs(aof->fs, aof->path);
    if (rc < 0) {
        return bop_error_set(err, rc, "make directory %s", aof->path);
    }
    rc = aof->fs->open(aof->fs, path, O_RDWR | O_CREAT);
    if (rc < 0) {
        return bop_error_set(err, rc, "open %s", path);
    }
    aof->lock_fd = rc;
    rc = aof->fs->lock(aof->fs, aof->lock_fd);
    if (rc < 0) {
        return bop_error_set(err, rc, "lock %s", path);
    }
    return 0;
}

/* The first segment of a new log. */
static int begin_new(struct bop_aof *aof, struct bop_error *err)
{
    struct bop__aof_segment_header header;
    struct bop__segment *segment;
    int rc = bop__aof_segments_reserve(aof, 1);

    segment = rc == 0 ? bop__segment_new(aof->allocator) : NULL;
    if (!segment) {
        return bop_error_set(err, BOP_ENOMEM, "make a log in %s", aof->path);
    }
    if (aof->options.id) {
        memcpy(aof->id, aof->options.id, sizeof(aof->id));
    } else {
        rc = bop_random_secret(aof->id, sizeof(aof->id));
    }
    if (rc < 0) {
        bop__segment_free(aof->allocator, segment);
        return bop_error_set(err, rc, "make the identity of a log");
    }
    aof->epoch = aof->options.epoch;
    header = bop__aof_next_header(aof, aof->options.first_seq, aof->options.first_seq,
                                  aof->options.segment_bytes);
    bop__segment_init(segment, &header);
    aof->segments[aof->segment_count++] = segment;
    aof->last = aof->durable = segment->base - 1;
    rc = bop__writer_begin(&aof->writer, segment);
    if (rc < 0 && err) {
        *err = aof->writer.error;
    }
    return rc;
}

int bop_aof_open(const struct bop_aof_options *options, struct bop_aof **out_aof,
                 struct bop_aof_recovery *out_recovery, struct bop_error *err)
{
    struct bop_aof_recovery recovery = {0};
    struct bop_aof *aof;
    int rc = check_options(options, err);

    if (rc < 0) {
        return rc;
    }
    aof = make(options);
    if (!aof) {
        return bop_error_set(err, BOP_ENOMEM, "open log %s", options->path);
    }
    rc = -pthread_mutex_init(&aof->lock, NULL);
    if (rc < 0) {
        bop_error_set(err, rc, "make a lock");
        goto fail;
    }
    aof->lock_made = true;
    rc = lock_directory(aof, err);
    if (rc == 0) {
        rc = bop__aof_recover(aof, &recovery, err);
    }
    if (rc == 0 && aof->segment_count == 0) {
        rc = begin_new(aof, err);
        recovery.segments = 1;
    }
    if (rc < 0) {
        goto fail;
    }
    bop__aof_check(aof);
    bop__aof_update_metrics(aof);
    *out_aof = aof;
    if (out_recovery) {
        *out_recovery = recovery;
    }
    return 0;

fail:
    bop_error_wrap(err, "open log %s", options->path);
    bop_aof_close(aof);
    return rc;
}

void bop_aof_close(struct bop_aof *aof)
{
    if (!aof) {
        return;
    }
    BOP_ASSERT(aof->submitted == 0 && !aof->upkeep_submitted);
    bop__cursors_deinit(aof);
    bop__batches_deinit(aof);
    bop__writer_deinit(&aof->writer);
    for (size_t i = 0; i < aof->segment_count; i++) {
        bop__segment_free(aof->allocator, aof->segments[i]);
    }
    bop_free(aof->allocator, aof->segments, aof->segment_capacity * sizeof(*aof->segments));
    if (aof->lock_fd >= 0) {
        /* Nothing was written to it. */
        BOP_IGNORE(aof->fs->close(aof->fs, aof->lock_fd));
    }
    if (aof->lock_made) {
        pthread_mutex_destroy(&aof->lock);
    }
    bop_free(aof->allocator, aof->path, strlen(aof->path) + 1);
    bop_free(aof->allocator, aof, sizeof(*aof));
}

/* ---- State ---- */

bool bop_aof_busy(const struct bop_aof *aof)
{
    /* A batch that collects and is not submitted waits for one that is. */
    return aof->submitted > 0 || aof->upkeep_submitted;
}

uint64_t bop_aof_first(const struct bop_aof *aof)
{
    return aof->segments[0]->base;
}

uint64_t bop_aof_last(const struct bop_aof *aof)
{
    return aof->last;
}

uint64_t bop_aof_durable(const struct bop_aof *aof)
{
    return aof->durable;
}

int bop_aof_failed(const struct bop_aof *aof)
{
    return aof->failed;
}
