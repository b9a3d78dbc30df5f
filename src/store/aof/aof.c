/*
 * The log's life: open, close, and what it says of itself.
 */
#include "internal.h"

#include <bop/mem.h>
#include <bop/random.h>

#define SEGMENT_BYTES_DEFAULT (UINT64_C(64) * 1024 * 1024)
#define SEGMENT_BYTES_MAX     (UINT64_C(1) << 40)
#define PENDING_BYTES_DEFAULT (UINT64_C(64) * 1024 * 1024)
#define WRITES_DEFAULT        8
#define SEALED_DEFAULT        64

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

/* Segments that will get a name, and so a place in the catalogue. */
static size_t unnamed(const struct bop_aof *aof)
{
    size_t count = 0;

    BOP_LIST_FOR_EACH(link, &aof->queue) {
        const struct bop__batch *batch = BOP_CONTAINER_OF(link, struct bop__batch, link);

        count += batch->begins && batch->segment->state != BOP__SEGMENT_NAMED ? 1 : 0;
    }
    return count;
}

static int reserve_segments(struct bop_aof *aof, size_t more)
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

int bop__aof_segments_reserve(struct bop_aof *aof, size_t more)
{
    int rc = reserve_segments(aof, more);
    size_t there = aof->catalogue.count + unnamed(aof);

    /* While the log is opened its segments are not in the catalogue yet. */
    there = bop_max_u64(there, aof->segment_count) - aof->catalogue.count;
    return rc == 0 ? bop__aof_catalogue_reserve(&aof->catalogue, there + more) : rc;
}

void bop__aof_check(const struct bop_aof *aof)
{
    size_t count = aof->segment_count;

    BOP_ASSERT(count > 0 && aof->durable.seq <= aof->os.seq && aof->os.seq <= aof->last &&
               aof->writes <= aof->writes_max);
    BOP_ASSERT(bop__aof_newest(aof)->end_seq == aof->last + 1);
    BOP_ASSERT(bop__aof_newest(aof)->generation == aof->generation);
    for (size_t i = 0; i < count; i++) {
        BOP_DEBUG_ASSERT(aof->segments[i]->end <= aof->segments[i]->size);
        BOP_DEBUG_ASSERT(i == 0 || aof->segments[i]->base == aof->segments[i - 1]->end_seq);
        BOP_DEBUG_ASSERT(i == 0 || aof->segments[i]->generation > aof->segments[i - 1]->generation);
    }
}

/* ---- Metrics ---- */

void bop__aof_update_metrics(struct bop_aof *aof)
{
    bop_metric_set(aof->metrics.durable_seq, (int64_t)aof->durable.seq);
    bop_metric_set(aof->metrics.first_seq, (int64_t)bop_aof_first(aof));
    bop_metric_set(aof->metrics.last_seq, (int64_t)aof->last);
    bop_metric_set(aof->metrics.segments, (int64_t)aof->segment_count);
    bop_metric_set(aof->metrics.pending_bytes, (int64_t)aof->pending_bytes);
    bop__aof_catalogue_note(&aof->catalogue, aof->last, aof->tier2);
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
        .pending_bytes = bop_metrics_gauge(all, "bop_aof_pending_bytes", NULL,
                                           "Bytes appended and still held in memory."),
        .refused = {bop_metrics_counter(all, "bop_aof_refused_total", "reason=\"admission\"",
                                        "Appends and reads refused for now."),
                    bop_metrics_counter(all, "bop_aof_refused_total", "reason=\"flush\"",
                                        "Appends and reads refused for now."),
                    bop_metrics_counter(all, "bop_aof_refused_total", "reason=\"rollover\"",
                                        "Appends and reads refused for now."),
                    bop_metrics_counter(all, "bop_aof_refused_total", "reason=\"hydration\"",
                                        "Appends and reads refused for now.")},
        .rehomed = bop_metrics_counter(all, "bop_aof_rehomed_total", NULL,
                                       "Tails moved to a new segment after a failed write."),
        .sealed = bop_metrics_counter(all, "bop_aof_sealed_total", NULL,
                                      "Segments that got their footer."),
        .failed = bop_metrics_gauge(all, "bop_aof_failed", NULL,
                                    "1 after a failed write or sync, which is final."),
    };
}

/* ---- Open and close ---- */

static int check_options(const struct bop_aof_options *options, struct bop_error *err)
{
    uint64_t bytes = options->segment_bytes;

    if (!options->path || !options->path[0]) {
        return bop_error_set(err, BOP_EINVAL, "open log: path is required");
    }
    if (bytes != 0 && (bytes < BOP__AOF_SEGMENT_HEADER || bytes > SEGMENT_BYTES_MAX)) {
        return bop_error_set(err, BOP_EINVAL, "open log %s: segment_bytes %llu", options->path,
                             (unsigned long long)bytes);
    }
    if (options->level > BOP_AOF_TIER2 || options->layout > BOP_AOF_ALIGNED ||
        (options->level == BOP_AOF_TIER2 && !options->tiers)) {
        return bop_error_set(err, BOP_EINVAL, "open log %s: level or layout", options->path);
    }
    if (options->no_footers && options->tiers) {
        return bop_error_set(err, BOP_EINVAL, "open log %s: tiers need footers", options->path);
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
    if (options->level == BOP_AOF_DEFAULT) {
        options->level = BOP_AOF_DISK;
    }
    if (options->layout == BOP_AOF_ALIGNED) {
        options->segment_bytes = (options->segment_bytes + BOP__AOF_BLOCK - 1) / BOP__AOF_BLOCK *
                                 BOP__AOF_BLOCK;
    }
    if (options->writes_max == 0) {
        options->writes_max = WRITES_DEFAULT;
    }
    options->writes_max = (unsigned)bop_min_u64(options->writes_max, BOP__AOF_WRITES_MAX);
    if (options->sealed_max == 0) {
        options->sealed_max = SEALED_DEFAULT;
    }
    if (options->room_min == 0) {
        options->room_min = 2 * options->segment_bytes;
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
    aof->executor = options->executor;
    aof->aligned = aof->options.layout == BOP_AOF_ALIGNED;
    aof->direct = aof->aligned;
    aof->lock_fd = -1;
    aof->opening = true;
    bop_list_init(&aof->queue);
    bop_list_init(&aof->kept);
    bop_list_init(&aof->spare);
    bop_list_init(&aof->drafts);
    bop_list_init(&aof->removals);
    bop_list_init(&aof->to_seal);
    bop__jobs_init(aof);
    bop__cursors_init(aof);
    register_metrics(options->metrics, &aof->metrics);
    return aof;
}

/* What can fail without touching a file. */
static int make_parts(struct bop_aof *aof, struct bop_error *err)
{
    int rc = bop__aof_catalogue_init(&aof->catalogue, aof->allocator);

    if (rc < 0) {
        return bop_error_set(err, rc, "make a lock");
    }
    aof->header_memory = bop_alloc_zeroed(aof->allocator, BOP__AOF_SEGMENT_HEADER + BOP_FS_ALIGN);
    if (!aof->header_memory) {
        return bop_error_set(err, BOP_ENOMEM, "make a log's buffers");
    }
    aof->header_block = aof->header_memory +
                        (BOP_FS_ALIGN - (uintptr_t)aof->header_memory % BOP_FS_ALIGN) %
                            BOP_FS_ALIGN;
    if (!aof->executor) {
        rc = bop__own_lane_open(aof, err);
    }
    if (rc == 0) {
        aof->writes_max = (unsigned)bop_min_u64(aof->options.writes_max,
                                                bop_max_u64(aof->executor->writes, 1));
    }
    return rc;
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

    segment = rc == 0 ? bop__segment_new(aof) : NULL;
    if (!segment) {
        return bop_error_set(err, BOP_ENOMEM, "make a log in %s", aof->path);
    }
    if (aof->options.id) {
        memcpy(aof->id, aof->options.id, sizeof(aof->id));
    } else {
        rc = bop_random_secret(aof->id, sizeof(aof->id));
    }
    if (rc < 0) {
        bop__segment_free(aof, segment);
        return bop_error_set(err, rc, "make the identity of a log");
    }
    aof->epoch = aof->options.epoch;
    aof->front = aof->oldest = aof->options.first_seq;
    header = bop__aof_next_header(aof, aof->options.first_seq, aof->options.segment_bytes);
    bop__segment_init(aof, segment, &header);
    aof->segments[aof->segment_count++] = segment;
    aof->last = segment->base - 1;
    rc = bop__begin_now(aof, segment, NULL, NULL, err);
    if (rc == 0 && aof->options.tiers) {
        rc = bop__archived_open(aof, err);
    }
    return rc == 0 ? bop__archived_check(aof, aof->front, segment->base, err) : rc;
}

/* All is found, and good: show it to readers, and see what is to be done. */
static void start(struct bop_aof *aof)
{
    const struct bop__segment *newest = bop__aof_newest(aof);
    uint64_t end = newest->records_end;

    if (newest->end_seq == newest->base && aof->segment_count > 1) {
        end = aof->segments[aof->segment_count - 2]->records_end;
    }
    aof->os = aof->durable = (struct bop__watermark){.seq = aof->last, .end = end};
    aof->told_os = aof->told_durable = aof->last;
    aof->published_os = aof->os;
    aof->published_durable = aof->last;
    for (size_t i = 0; i < aof->segment_count; i++) {
        struct bop__segment *segment = aof->segments[i];

        bop__aof_catalogue_add(&aof->catalogue, segment->file);
        if (segment != newest) {
            bop__aof_catalogue_end(&aof->catalogue, segment->file, segment->end_seq,
                                   segment->records_end);
            bop__seal_later(aof, segment);
        }
    }
    bop__aof_catalogue_oldest(&aof->catalogue, aof->oldest);
    bop__aof_catalogue_publish(&aof->catalogue, aof->os, aof->durable);
    aof->room_wanted = true;
    bop__archived_tell(aof);
    bop__aof_check(aof);
    bop__aof_update_metrics(aof);
    aof->opening = false; /* What is to be sealed is, once something is appended. */
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
    rc = make_parts(aof, err);
    if (rc == 0) {
        rc = lock_directory(aof, err);
    }
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
    start(aof);
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
    if (aof->catalogue.made) {
        bop__aof_catalogue_close(&aof->catalogue);
    }
    bop__own_lane_close(aof);
    BOP_ASSERT(aof->writes == 0 && aof->jobs.busy == 0);
    if (aof->is_reserved) {
        bop_aof_abandon(aof);
    }
    bop__archived_close(aof);
    bop__cursors_deinit(aof);
    bop__drafts_free(aof);
    bop__batches_free(aof, &aof->queue);
    bop__batches_free(aof, &aof->kept);
    bop__batches_free(aof, &aof->spare);
    bop__segments_free(aof, &aof->removals);
    for (size_t i = 0; i < aof->segment_count; i++) {
        bop__segment_free(aof, aof->segments[i]);
    }
    bop__handle_close(aof, aof->next);
    bop_free(aof->allocator, aof->segments, aof->segment_capacity * sizeof(*aof->segments));
    if (aof->header_memory) {
        bop_free(aof->allocator, aof->header_memory, BOP__AOF_SEGMENT_HEADER + BOP_FS_ALIGN);
    }
    if (aof->lock_fd >= 0) {
        /* Nothing was written to it. */
        BOP_IGNORE(aof->fs->close(aof->fs, aof->lock_fd));
    }
    bop__aof_catalogue_deinit(&aof->catalogue);
    bop_free(aof->allocator, aof->path, strlen(aof->path) + 1);
    bop_free(aof->allocator, aof, sizeof(*aof));
}

/* ---- State ---- */

bool bop_aof_busy(const struct bop_aof *aof)
{
    /* What is not sent waits for one that is, or for more to come. */
    return aof->writes > 0 || aof->jobs.busy > 0;
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
    return aof->durable.seq;
}

int bop_aof_failed(const struct bop_aof *aof)
{
    return aof->failed;
}
