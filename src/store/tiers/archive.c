/*
 * One log's segments: what the manifest says of them, what is there of it, and
 * what the log says and asks.
 */
#include <string.h>

#include <bop/error.h>

#include "internal.h"

#define WARM_NAME_SIZE   64
#define OBJECT_NAME_SIZE 96

/* ---- Names ---- */

static void warm_name(const struct bop__segment_facts *facts, char out_name[WARM_NAME_SIZE])
{
    snprintf(out_name, WARM_NAME_SIZE, "segment-%020" PRIu64 "-%020" PRIu64 ".zst",
             facts->generation, facts->base);
}

/* What a segment holds is a part of its object's name: one that is cut and sealed again, under the
 * generation that it has, never takes the place of what others may still know by that name. */
static void object_name(const struct bop__segment_facts *facts, char out_name[OBJECT_NAME_SIZE])
{
    uint64_t root = 0;

    for (unsigned i = 0; i < sizeof(root); i++) {
        root = root << 8 | facts->root[i];
    }
    snprintf(out_name, OBJECT_NAME_SIZE, "segment-%020" PRIu64 "-%020" PRIu64 "-%016" PRIx64 ".zst",
             facts->generation, facts->base, root);
}

bool bop__archive_warm_path(const struct bop__archive *archive,
                            const struct bop__segment_facts *facts, const char *suffix,
                            char out_path[BOP__PATH_MAX])
{
    char name[WARM_NAME_SIZE];
    int size;

    warm_name(facts, name);
    size = snprintf(out_path, BOP__PATH_MAX, "%s/%s%s", archive->warm, name, suffix);
    return size > 0 && size < (int)BOP__PATH_MAX;
}

static char *text_copy(struct bop_allocator *allocator, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = bop_alloc(allocator, size);

    if (copy) {
        memcpy(copy, text, size);
    }
    return copy;
}

static char *text_join(struct bop_allocator *allocator, const char *a, const char *b)
{
    size_t size = strlen(a) + strlen(b) + 2;
    char *text = bop_alloc(allocator, size);

    if (text) {
        snprintf(text, size, "%s/%s", a, b);
    }
    return text;
}

static void text_free(struct bop_allocator *allocator, char *text)
{
    if (text) {
        bop_free(allocator, text, strlen(text) + 1);
    }
}

/* ---- A segment ---- */

void bop__tiered_set_tier0(struct bop__tiered *segment, bool there)
{
    struct bop_tiers *tiers = segment->archive->tiers;

    if (segment->in_tier0 == there) {
        return;
    }
    tiers->tier0_bytes += there ? segment->facts.size : -segment->facts.size;
    pthread_mutex_lock(&tiers->lock);
    segment->in_tier0 = there;
    pthread_mutex_unlock(&tiers->lock);
    if (there) {
        segment->came0_ms = bop__tiers_wall_ms(tiers);
    }
}

void bop__tiered_set_tier1(struct bop__tiered *segment, bool there, uint64_t packed_bytes)
{
    struct bop_tiers *tiers = segment->archive->tiers;

    if (segment->in_tier1) {
        tiers->tier1_bytes -= segment->packed_bytes;
    }
    if (there) {
        tiers->tier1_bytes += packed_bytes;
    }
    pthread_mutex_lock(&tiers->lock);
    segment->in_tier1 = there;
    segment->archive->stale = true;
    segment->packed_bytes = packed_bytes;
    segment->suspect1 = false;
    pthread_mutex_unlock(&tiers->lock);
}

void bop__tiered_set_tier2(struct bop__tiered *segment, bool there)
{
    struct bop_tiers *tiers = segment->archive->tiers;

    pthread_mutex_lock(&tiers->lock);
    segment->in_tier2 = there;
    segment->archive->stale = true;
    segment->bad_tier2 = false;
    segment->suspect2 = false;
    pthread_mutex_unlock(&tiers->lock);
    segment->bad_fetches = 0;
}

bool bop__tiered_is_lower(const struct bop__tiered *segment)
{
    return segment->in_tier1 || (segment->in_tier2 && !segment->bad_tier2);
}

enum bop_tiers_residency bop__tiered_residency(const struct bop__tiered *segment)
{
    if (segment->in_tier0 && !(segment->bad_tier0 && bop__tiered_is_lower(segment))) {
        return segment->bad_tier0 ? BOP_TIERS_NEEDS_RECOVERY : BOP_TIERS_TIER0;
    }
    if (segment->in_tier1) {
        return BOP_TIERS_TIER1;
    }
    return segment->in_tier2 && !segment->bad_tier2 ? BOP_TIERS_TIER2 : BOP_TIERS_NEEDS_RECOVERY;
}

void bop__tiered_free(struct bop__tiered *segment)
{
    struct bop_tiers *tiers = segment->archive->tiers;

    BOP_ASSERT(!segment->busy && !segment->fetching && segment->readers == 0);
    bop__tiered_set_tier0(segment, false);
    bop__tiered_set_tier1(segment, false, segment->packed_bytes);
    for (size_t i = 0; i < BOP__RETRIES; i++) {
        bop__retry_over(tiers, &segment->retries[i]);
    }
    bop__frame_cache_forget(tiers->cache, segment->number);
    text_free(tiers->allocator, segment->path);
    text_free(tiers->allocator, segment->key);
    bop_free(tiers->allocator, segment, sizeof(*segment));
}

static void free_unborn(struct bop__tiered *segment)
{
    struct bop_allocator *allocator = segment->archive->tiers->allocator;

    text_free(allocator, segment->path);
    text_free(allocator, segment->key);
    bop_free(allocator, segment, sizeof(*segment));
}

static uint64_t stamp(struct bop_tiers *tiers)
{
    /* Relaxed: an order to evict in. */
    return atomic_fetch_add_explicit(&tiers->stamps, 1, memory_order_relaxed) + 1;
}

/* key NULL: the one it gets here. */
static struct bop__tiered *tiered_new(struct bop__archive *archive,
                                      const struct bop__segment_facts *facts, const char *key)
{
    struct bop_tiers *tiers = archive->tiers;
    struct bop__tiered *segment = bop_alloc_zeroed(tiers->allocator, sizeof(*segment));
    char name[OBJECT_NAME_SIZE];

    if (!segment) {
        return NULL;
    }
    bop_list_init(&segment->link);
    segment->archive = archive;
    segment->facts = *facts;
    segment->number = ++tiers->numbers;
    atomic_init(&segment->touched, stamp(tiers));
    object_name(facts, name);
    segment->key = key ? text_copy(tiers->allocator, key)
                       : text_join(tiers->allocator, archive->keys, name);
    if (!segment->key) {
        free_unborn(segment);
        return NULL;
    }
    return segment;
}

/* ---- The segments of a log ---- */

/* The index of the first one of this generation or a later one. */
static size_t lower_bound(const struct bop__archive *archive, uint64_t generation)
{
    size_t low = 0, high = archive->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (archive->segments[middle]->facts.generation < generation) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct bop__tiered *bop__archive_segment(const struct bop__archive *archive, uint64_t generation)
{
    size_t at = lower_bound(archive, generation);

    return at < archive->count && archive->segments[at]->facts.generation == generation
               ? archive->segments[at]
               : NULL;
}

bool bop__archive_is_dropped(const struct bop__archive *archive, uint64_t generation)
{
    BOP_LIST_FOR_EACH(link, &archive->dropped) {
        if (BOP_CONTAINER_OF(link, struct bop__tiered, link)->facts.generation == generation) {
            return true;
        }
    }
    return false;
}

static int reserve(struct bop__archive *archive)
{
    struct bop_tiers *tiers = archive->tiers;
    size_t capacity = archive->capacity > 0 ? archive->capacity * 2 : 16;
    struct bop__tiered **grown;

    if (archive->count < archive->capacity) {
        return 0;
    }
    pthread_mutex_lock(&tiers->lock);
    grown = bop_realloc(tiers->allocator, archive->segments,
                        archive->capacity * sizeof(struct bop__tiered *),
                        capacity * sizeof(struct bop__tiered *));
    if (grown) {
        archive->segments = grown;
        archive->capacity = capacity;
    }
    pthread_mutex_unlock(&tiers->lock);
    return grown ? 0 : BOP_ENOMEM;
}

/* There is room. */
static void insert(struct bop__archive *archive, struct bop__tiered *segment)
{
    size_t at = lower_bound(archive, segment->facts.generation);

    pthread_mutex_lock(&archive->tiers->lock);
    memmove(archive->segments + at + 1, archive->segments + at,
            (archive->count - at) * sizeof(struct bop__tiered *));
    archive->segments[at] = segment;
    archive->count++;
    archive->stale = true;
    pthread_mutex_unlock(&archive->tiers->lock);
}

void bop__tiered_drop(struct bop__archive *archive, size_t index)
{
    struct bop__tiered *segment = archive->segments[index];

    pthread_mutex_lock(&archive->tiers->lock);
    memmove(archive->segments + index, archive->segments + index + 1,
            (archive->count - index - 1) * sizeof(struct bop__tiered *));
    archive->count--;
    archive->stale = true;
    segment->closed = true;
    bop_list_push_back(&archive->dropped, &segment->link);
    pthread_mutex_unlock(&archive->tiers->lock);
}

/* ---- Open ---- */

static int load_entry(struct bop__archive *archive, const struct bop__manifest_entry *entry)
{
    struct bop_tiers *tiers = archive->tiers;
    struct bop__tiered *segment;
    bool objects = tiers->options.objects != NULL;
    int rc;

    rc = reserve(archive);
    if (rc < 0) {
        return rc;
    }
    segment = tiered_new(archive, &entry->facts, entry->key);
    if (!segment) {
        return BOP_ENOMEM;
    }
    segment->recorded = true;
    segment->uploading = entry->uploading;
    segment->delete_queued = entry->delete_queued;
    segment->dropped = entry->dropped;
    /* An append of several records may have been cut between these two. */
    segment->say_deleted = entry->dropped && !entry->delete_queued;
    segment->due_ms = entry->due_ms;
    segment->packed_ms = entry->packed_ms;
    segment->came1_ms = entry->packed_ms;
    segment->uploaded_version = segment->queued_version = archive->version;
    memcpy(segment->sha256, entry->sha256, sizeof(segment->sha256));
    segment->packed_bytes = entry->packed_bytes;
    segment->in_tier2 = objects && entry->uploaded;
    segment->closed = entry->delete_queued;
    /* Where its packed file is was not looked at yet; this one only says that it should be. */
    segment->suspect1 = entry->packed && !entry->packed_evicted;
    if (entry->delete_queued && !entry->dropped) {
        archive->oldest = bop_max_u64(archive->oldest, entry->facts.end_seq);
    }
    insert(archive, segment);
    return 0;
}

static int load(struct bop__archive *archive)
{
    size_t count = bop__manifest_count(archive->manifest);
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = load_entry(archive, bop__manifest_at(archive->manifest, i));
    }
    if (rc < 0) {
        return rc;
    }
    for (size_t i = archive->count; i-- > 0;) {
        if (archive->segments[i]->dropped) {
            bop__tiered_drop(archive, i);
        }
    }
    return 0;
}

struct warm_walk {
    struct bop__archive *archive;
    struct bop_buf strays; /* Names, each with its NUL. */
};

/* The segment whose packed file should have this name, or NULL. */
static struct bop__tiered *expected_in_warm(const struct bop__archive *archive, const char *name)
{
    struct bop__tiered *segment;
    char expected[WARM_NAME_SIZE];
    uint64_t generation;

    if (sscanf(name, "segment-%20" SCNu64 "-", &generation) != 1) {
        return NULL;
    }
    segment = bop__archive_segment(archive, generation);
    if (!segment || !segment->suspect1) {
        return NULL;
    }
    warm_name(&segment->facts, expected);
    return strcmp(name, expected) == 0 ? segment : NULL;
}

static int warm_seen(void *user, const char *name)
{
    struct warm_walk *walk = user;
    struct bop__tiered *segment = expected_in_warm(walk->archive, name);

    if (segment) {
        bop__tiered_set_tier1(segment, true, segment->packed_bytes);
        return 0;
    }
    return bop_buf_append(&walk->strays, name, strlen(name) + 1);
}

/* See which packed files are there, and remove those that nobody knows. */
static int look_at_warm(struct bop__archive *archive)
{
    struct bop_fs *fs = archive->tiers->options.fs;
    struct warm_walk walk = {.archive = archive};
    char path[BOP__PATH_MAX];
    int rc;

    bop_buf_init(&walk.strays, archive->tiers->allocator, 0);
    rc = fs->list(fs, archive->warm, warm_seen, &walk);
    for (size_t at = 0; rc == 0 && at < walk.strays.size;
         at += strlen((char *)walk.strays.data + at) + 1) {
        snprintf(path, sizeof(path), "%s/%s", archive->warm, (char *)walk.strays.data + at);
        /* What cannot be removed is only in the way of room; the next open tries again. */
        BOP_IGNORE(fs->unlink(fs, path));
    }
    bop_buf_deinit(&walk.strays);
    return rc;
}

static void note_missing(struct bop__archive *archive)
{
    for (size_t i = 0; i < archive->count; i++) {
        struct bop__tiered *segment = archive->segments[i];

        if (segment->suspect1 && !segment->in_tier1) {
            segment->suspect1 = false;
            bop__count(archive->tiers, BOP__COUNT_TIER1_LOST, 1);
            bop__tiers_event(segment, BOP_LOG_WARN, 1, "tier1_file_missing", "%s", "");
        }
    }
}

static struct bop__archive *archive_new(struct bop_tiers *tiers,
                                        const struct bop__archive_options *options)
{
    struct bop__archive *archive = bop_alloc_zeroed(tiers->allocator, sizeof(*archive));

    if (!archive) {
        return NULL;
    }
    bop_list_init(&archive->link);
    bop_list_init(&archive->dropped);
    bop_list_init(&archive->pins);
    archive->tiers = tiers;
    archive->calls = *options->calls;
    archive->log = options->log;
    memcpy(archive->log_id, options->log_id, sizeof(archive->log_id));
    pthread_mutex_init(&archive->manifest_lock, NULL);
    archive->appended = archive->version = 1;
    archive->urgent = true;
    archive->path = text_copy(tiers->allocator, options->path);
    archive->warm = text_join(tiers->allocator, options->path, "warm");
    archive->name = text_copy(tiers->allocator, options->name);
    archive->keys = text_join(tiers->allocator, tiers->prefix, options->name);
    if (!archive->path || !archive->warm || !archive->name || !archive->keys) {
        bop__archive_free(archive);
        return NULL;
    }
    return archive;
}

static int open_manifest(struct bop__archive *archive, struct bop_error *err)
{
    struct bop_tiers *tiers = archive->tiers;
    char path[BOP__PATH_MAX];
    struct bop__manifest_options options = {.allocator = tiers->allocator,
                                            .fs = tiers->options.fs,
                                            .clock = tiers->options.clock,
                                            .log = tiers->options.log,
                                            .metrics = tiers->options.metrics,
                                            .path = path};

    if (snprintf(path, sizeof(path), "%s/manifest", archive->path) >= (int)sizeof(path)) {
        return bop_error_set(err, -ENAMETOOLONG, "open archive of %s", archive->path);
    }
    memcpy(options.log_id, archive->log_id, sizeof(options.log_id));
    return bop__manifest_open(&options, &archive->manifest, err);
}

static bool is_open(const struct bop_tiers *tiers, const char *path)
{
    BOP_LIST_FOR_EACH(link, &tiers->archives) {
        if (strcmp(BOP_CONTAINER_OF(link, struct bop__archive, link)->path, path) == 0) {
            return true;
        }
    }
    return false;
}

int bop__archive_open(struct bop_tiers *tiers, const struct bop__archive_options *options,
                      struct bop__archive **out_archive, struct bop_error *err)
{
    struct bop__archive *archive;
    int rc;

    if (!bop__tiers_is_plain(options->name)) {
        return bop_error_say(err, BOP_EINVAL,
                             "the name of a log in the tiers must be 1 to %u printable characters "
                             "without a space, and with no slash at its ends",
                             BOP__NAME_MAX);
    }
    if (is_open(tiers, options->path)) {
        return bop_error_set(err, BOP_EBUSY, "open archive of %s", options->path);
    }
    archive = archive_new(tiers, options);
    if (!archive) {
        return bop_error_set(err, BOP_ENOMEM, "open archive of %s", options->path);
    }
    bop_list_push_back(&tiers->archives, &archive->link);
    rc = bop_fs_mkdirs(tiers->options.fs, archive->warm);
    if (rc < 0) {
        bop_error_set(err, rc, "make %s", archive->warm);
        goto fail;
    }
    rc = open_manifest(archive, err);
    if (rc < 0) {
        goto fail;
    }
    rc = load(archive);
    if (rc == 0) {
        rc = look_at_warm(archive);
    }
    if (rc < 0) {
        bop_error_set(err, rc, "open archive of %s", archive->path);
        goto fail;
    }
    note_missing(archive);
    archive->oldest_told = archive->oldest;
    bop__tiers_wake(tiers);
    *out_archive = archive;
    return 0;

fail:
    bop__archive_free(archive);
    return rc;
}

/* ---- Close ---- */

void bop__archive_free(struct bop__archive *archive)
{
    struct bop_tiers *tiers = archive->tiers;
    struct bop_list *link;

    BOP_ASSERT(archive->jobs == 0);
    for (size_t i = 0; i < archive->count; i++) {
        bop__tiered_free(archive->segments[i]);
    }
    while ((link = bop_list_pop_front(&archive->dropped)) != NULL) {
        bop__tiered_free(BOP_CONTAINER_OF(link, struct bop__tiered, link));
    }
    while ((link = bop_list_pop_front(&archive->pins)) != NULL) {
        bop_free(tiers->allocator, BOP_CONTAINER_OF(link, struct bop__pin, link),
                 sizeof(struct bop__pin));
    }
    if (archive->segments) {
        bop_free(tiers->allocator, archive->segments,
                 archive->capacity * sizeof(struct bop__tiered *));
    }
    bop__retry_over(tiers, &archive->missed_retry);
    bop__retry_over(tiers, &archive->record_retry);
    bop__retry_over(tiers, &archive->publish_retry);
    bop__manifest_close(archive->manifest);
    pthread_mutex_destroy(&archive->manifest_lock);
    bop_list_remove(&archive->link);
    text_free(tiers->allocator, archive->path);
    text_free(tiers->allocator, archive->warm);
    text_free(tiers->allocator, archive->name);
    text_free(tiers->allocator, archive->keys);
    bop_free(tiers->allocator, archive, sizeof(*archive));
}

void bop__archive_close(struct bop__archive *archive)
{
    struct bop_tiers *tiers;

    if (!archive) {
        return;
    }
    tiers = archive->tiers;
    archive->closed = true;
    archive->log = NULL;
    if (archive->jobs == 0) {
        bop__archive_free(archive);
        return;
    }
    bop__tiers_jobs_cancel(archive);
    for (unsigned i = 0; i < tiers->job_count; i++) {
        /* The last done of its tasks frees it. */
        if (tiers->lanes[i]) {
            bop_lane_drain(tiers->lanes[i]);
        }
    }
}

/* ---- What the log says ---- */

size_t bop__archive_segments(const struct bop__archive *archive,
                             struct bop__segment_facts *out_facts, size_t max)
{
    size_t count = 0;

    for (size_t i = 0; i < archive->count; i++) {
        if (!archive->segments[i]->closed) {
            if (count < max) {
                out_facts[count] = archive->segments[i]->facts;
            }
            count++;
        }
    }
    return count;
}

static bool is_same(const struct bop__segment_facts *a, const struct bop__segment_facts *b)
{
    return a->base == b->base && a->end_seq == b->end_seq && a->size == b->size &&
           memcmp(a->root, b->root, sizeof(a->root)) == 0;
}

static int set_path(struct bop__tiered *segment, const char *path)
{
    struct bop_allocator *allocator = segment->archive->tiers->allocator;
    char *copy = text_copy(allocator, path);
    char *before;

    if (!copy) {
        return BOP_ENOMEM;
    }
    pthread_mutex_lock(&segment->archive->tiers->lock);
    before = segment->path;
    segment->path = copy;
    pthread_mutex_unlock(&segment->archive->tiers->lock);
    text_free(allocator, before);
    return 0;
}

static int sealed_known(struct bop__tiered *segment, const struct bop__segment_facts *facts,
                        const char *path)
{
    if (!is_same(&segment->facts, facts)) {
        /* Not what was sealed under this number: nothing is to be trusted to it. */
        bop__tiers_event(segment, BOP_LOG_ERROR, 0, "tier0_segment_differs", "path=%s", path);
        return 0;
    }
    if (segment->in_tier0) {
        return 0;
    }
    if (set_path(segment, path) < 0) {
        return BOP_ENOMEM;
    }
    bop__tiered_set_tier0(segment, true);
    return 0;
}

static int sealed_new(struct bop__archive *archive, const struct bop__segment_facts *facts,
                      const char *path)
{
    struct bop__tiered *segment;

    if (reserve(archive) < 0) {
        return BOP_ENOMEM;
    }
    segment = tiered_new(archive, facts, NULL);
    if (!segment) {
        return BOP_ENOMEM;
    }
    segment->path = text_copy(archive->tiers->allocator, path);
    if (!segment->path) {
        free_unborn(segment);
        return BOP_ENOMEM;
    }
    insert(archive, segment);
    bop__tiered_set_tier0(segment, true);
    bop__tiers_event(segment, BOP_LOG_DEBUG, 0, "tiered_admit_segment", "bytes=%" PRIu64,
                     facts->size);
    return 0;
}

/* One that was dropped and is told again is there all the same: a crash came between what the
 * manifest knows of its truncation and the log. It is a new one, once the old one is gone. */
int bop__archive_sealed(struct bop__archive *archive, const struct bop__segment_facts *facts,
                        const char *path)
{
    struct bop__tiered *segment = bop__archive_segment(archive, facts->generation);
    int rc;

    if (archive->missed != 0 && archive->missed != facts->generation) {
        return BOP_ENOMEM;
    }
    rc = segment ? sealed_known(segment, facts, path) : sealed_new(archive, facts, path);
    if (rc < 0) {
        const struct bop_error err = {.code = rc};

        archive->missed = facts->generation;
        bop__retry_failed(archive->tiers, &archive->missed_retry, &err);
    } else {
        archive->missed = 0;
        bop__retry_over(archive->tiers, &archive->missed_retry);
    }
    bop__tiers_wake(archive->tiers);
    return rc;
}

int bop__archive_find(struct bop__archive *archive, uint64_t seq,
                      struct bop__segment_facts *out_facts)
{
    struct bop_tiers *tiers = archive->tiers;
    size_t low = 0, high;
    int rc = BOP_ENOTFOUND;

    pthread_mutex_lock(&tiers->lock);
    high = archive->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (archive->segments[middle]->facts.end_seq <= seq) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    while (low < archive->count && archive->segments[low]->closed) {
        low++;
    }
    if (low < archive->count) {
        *out_facts = archive->segments[low]->facts;
        rc = 0;
    }
    pthread_mutex_unlock(&tiers->lock);
    return rc;
}

size_t bop__archive_waiting(struct bop__archive *archive)
{
    size_t count = 0;

    if (!archive->stale) {
        return archive->waiting;
    }
    for (size_t i = 0; i < archive->count; i++) {
        const struct bop__tiered *segment = archive->segments[i];

        count += !bop__tiered_is_lower(segment) && !segment->closed;
    }
    archive->waiting = count;
    archive->stale = false;
    return count;
}

void bop__archive_touch(struct bop__archive *archive, uint64_t generation)
{
    struct bop_tiers *tiers = archive->tiers;
    struct bop__tiered *segment;

    pthread_mutex_lock(&tiers->lock);
    segment = bop__archive_segment(archive, generation);
    if (segment) {
        /* Relaxed: an order to evict in. */
        atomic_store_explicit(&segment->touched, stamp(tiers), memory_order_relaxed);
    }
    pthread_mutex_unlock(&tiers->lock);
}

/* ---- Truncation ---- */

/* The records that drop what is from index on, its objects too. The manifest is locked. */
static size_t truncate_records(struct bop__archive *archive, size_t index, uint64_t last_kept,
                               struct bop__manifest_record *records)
{
    uint64_t now_ms = bop__tiers_wall_ms(archive->tiers);
    size_t count = 0;

    records[count++] = (struct bop__manifest_record){
        .kind = BOP__MANIFEST_TRUNCATED, .time_ms = now_ms, .last_seq = last_kept};
    for (size_t i = index; i < archive->count; i++) {
        const struct bop__manifest_entry *entry = bop__manifest_find(
            archive->manifest, archive->segments[i]->facts.generation);

        if (entry && (entry->uploading || entry->uploaded) && !entry->delete_queued) {
            records[count++] = (struct bop__manifest_record){
                .kind = BOP__MANIFEST_TIER2_DELETE_QUEUED,
                .generation = entry->facts.generation,
                .time_ms = now_ms,
                .key = entry->key,
                .due_ms = now_ms + archive->tiers->options.delete_grace_ms};
        }
    }
    return count;
}

/* What the manifest says of a segment that was just dropped from it. */
static void drop_as_recorded(struct bop__archive *archive, struct bop__tiered *segment)
{
    const struct bop__manifest_entry *entry = bop__manifest_find(archive->manifest,
                                                                 segment->facts.generation);

    segment->dropped = true;
    segment->delete_queued = entry && entry->delete_queued;
    segment->due_ms = entry ? entry->due_ms : 0;
    segment->queued_version = archive->appended;
}

static int truncate_locked(struct bop__archive *archive, size_t index, uint64_t last_kept,
                           struct bop_error *err)
{
    struct bop_allocator *allocator = archive->tiers->allocator;
    size_t room = archive->count - index + 1;
    struct bop__manifest_record *records = bop_alloc_array(allocator, room, sizeof(*records));
    size_t count;
    int rc;

    if (!records) {
        return bop_error_set(err, BOP_ENOMEM, "truncate the archive of %s", archive->path);
    }
    count = truncate_records(archive, index, last_kept, records);
    rc = bop__manifest_append(archive->manifest, records, count, err);
    bop_free(allocator, records, room * sizeof(*records));
    if (rc < 0) {
        return rc;
    }
    archive->appended++;
    archive->version = archive->appended;
    for (size_t i = index; i < archive->count; i++) {
        drop_as_recorded(archive, archive->segments[i]);
    }
    return 0;
}

int bop__archive_truncate_back(struct bop__archive *archive, uint64_t last_kept,
                               struct bop_error *err)
{
    size_t index = archive->count;
    int rc;

    while (index > 0 && archive->segments[index - 1]->facts.end_seq - 1 > last_kept) {
        index--;
    }
    if (index == archive->count) {
        return 0;
    }
    pthread_mutex_lock(&archive->manifest_lock);
    rc = truncate_locked(archive, index, last_kept, err);
    pthread_mutex_unlock(&archive->manifest_lock);
    if (rc < 0) {
        return rc;
    }
    while (archive->count > index) {
        bop__tiered_set_tier0(archive->segments[archive->count - 1], false);
        bop__tiered_drop(archive, archive->count - 1);
    }
    archive->tier2_told = bop_min_u64(archive->tier2_told, last_kept);
    archive->urgent = true;
    bop__tiers_wake(archive->tiers);
    return 0;
}

/* ---- What the log is told ---- */

/* The last record up to which all is in tier 2, as the bucket's own manifest has it. */
static uint64_t tier2_seq(const struct bop__archive *archive)
{
    uint64_t seq = 0;

    for (size_t i = 0; i < archive->count; i++) {
        const struct bop__tiered *segment = archive->segments[i];

        if (i > 0 && segment->facts.base != archive->segments[i - 1]->facts.end_seq) {
            break; /* What is between was not sealed yet, or not told. */
        }
        if (!segment->delete_queued && (!segment->in_tier2 || segment->bad_tier2 ||
                                        segment->uploaded_version > archive->published)) {
            break;
        }
        seq = segment->facts.end_seq - 1;
    }
    return seq;
}

void bop__archive_deliver(struct bop__archive *archive)
{
    const struct bop__archive_calls *calls = &archive->calls;
    size_t waiting;
    uint64_t seq;

    if (archive->closed) {
        return;
    }
    if (archive->missed != 0 && archive->missed_retry.at_us <= bop__tiers_now_us(archive->tiers)) {
        calls->again(archive->log);
    }
    waiting = bop__archive_waiting(archive);
    seq = tier2_seq(archive);
    if (seq > archive->tier2_told) {
        archive->tier2_told = seq;
        calls->tier2(archive->log, seq);
    }
    if (archive->oldest > archive->oldest_told) {
        archive->oldest_told = archive->oldest;
        calls->oldest(archive->log, archive->oldest);
    }
    /* Acquire pairs with the release of whoever fetched. */
    if (atomic_exchange_explicit(&archive->hydrated, false, memory_order_acquire)) {
        calls->hydrated(archive->log);
    }
    if (waiting < archive->waiting_told) {
        archive->waiting_told = waiting;
        calls->room(archive->log);
    }
    archive->waiting_told = waiting;
}

int bop__archive_append(struct bop__archive *archive, struct bop__manifest_record *records,
                        size_t count, uint64_t *out_version, struct bop_error *err)
{
    int rc;

    for (size_t i = 0; i < count; i++) {
        records[i].time_ms = bop__tiers_wall_ms(archive->tiers);
    }
    pthread_mutex_lock(&archive->manifest_lock);
    rc = bop__manifest_append(archive->manifest, records, count, err);
    if (rc == 0) {
        *out_version = ++archive->appended;
    }
    pthread_mutex_unlock(&archive->manifest_lock);
    return rc;
}
