/*
 * A log's directory from the object store alone: the manifest as it was published,
 * corrected by what is not there any more, and an empty segment to go on with.
 */
#include <string.h>

#include <bop/error.h>

#include "../aof/format.h"
#include "internal.h"

/* The size of the segment that the log goes on with, if nobody says another. */
#define SEGMENT_BYTES (UINT64_C(64) << 20)
/* Chunks are small; one that is not was not made by us. */
#define CHUNK_MAX (UINT64_C(1) << 31)
/* Chunks beyond those listed that are looked for, as a listing may be late. */
#define CHUNKS_BEYOND 64
/* Objects newer than the manifest: what was uploaded since it was last published. */
#define STRAYS_MAX      256
#define STRAY_NAME_SIZE 96
/* Numbers of segments that are left out: those that the lost machine may have begun since. */
#define GENERATIONS_LOST 1000

struct restore {
    struct bop_tiers *tiers;
    const char *path;
    const char *name;
    char keys[BOP_OBJECT_KEY_MAX + 1];
    char manifest_path[BOP__PATH_MAX];
    uint8_t log_id[BOP_AOF_ID_SIZE];
    uint64_t newest; /* Chunk listed. */
    unsigned chunks;
    struct bop_error *err;
    struct bop__manifest *manifest;
    uint64_t generation; /* The highest one known. */

    /* What follows the archived records. */
    uint64_t first_seq, next_seq;
    uint32_t link;
    uint64_t epoch;
    unsigned segments;
};

/* ---- What the bucket has ---- */

static int get_object(struct restore *r, const char *name, uint64_t bytes_max, struct bop_buf *out)
{
    struct bop_object_store *objects = r->tiers->options.objects;
    char key[BOP_OBJECT_KEY_MAX + 1];

    if (snprintf(key, sizeof(key), "%s/%s", r->keys, name) >= (int)sizeof(key)) {
        return bop_error_set(r->err, -ENAMETOOLONG, "make a key under %s", r->keys);
    }
    bop_buf_init(out, r->tiers->allocator, bytes_max);
    return objects->get(objects, key, 0, UINT64_MAX, out, r->err);
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int get_id(struct restore *r)
{
    struct bop_buf text;
    int rc = get_object(r, "log-id", 4096, &text);

    if (rc == BOP_ENOTFOUND) {
        rc = bop_error_say(r->err, BOP_ENOTFOUND, "there is no log under %s/", r->keys);
    }
    if (rc == 0 && text.size != (size_t)2 * BOP_AOF_ID_SIZE) {
        rc = bop_error_set(r->err, BOP_ECORRUPT, "object %s/log-id", r->keys);
    }
    for (size_t i = 0; rc == 0 && i < BOP_AOF_ID_SIZE; i++) {
        int high = hex_digit(text.data[2 * i]), low = hex_digit(text.data[2 * i + 1]);

        if (high < 0 || low < 0) {
            rc = bop_error_set(r->err, BOP_ECORRUPT, "object %s/log-id", r->keys);
        } else {
            r->log_id[i] = (uint8_t)(high << 4 | low);
        }
    }
    bop_buf_deinit(&text);
    return rc;
}

static int write_chunk(struct restore *r, const char *name, struct bop_slice content)
{
    char path[BOP__PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", r->path, name) >= (int)sizeof(path)) {
        return bop_error_set(r->err, -ENAMETOOLONG, "write %s", name);
    }
    return bop_fs_write_file(r->tiers->options.fs, path, content, r->err);
}

static int get_chunk(struct restore *r, uint64_t index)
{
    struct bop_buf content;
    char name[40];
    int rc;

    snprintf(name, sizeof(name), "manifest/%020" PRIu64 ".mlog", index);
    rc = get_object(r, name, CHUNK_MAX, &content);
    if (rc == 0) {
        rc = write_chunk(r, name, bop_buf_slice(&content));
    }
    bop_buf_deinit(&content);
    r->chunks += rc == 0;
    return rc;
}

static int see_chunk(void *user, const char *key, const struct bop_object_info *info)
{
    struct restore *r = user;
    uint64_t index;

    BOP_IGNORE(info);
    if (sscanf(key + strlen(r->keys), "/manifest/%20" SCNu64 ".mlog", &index) == 1) {
        r->newest = bop_max_u64(r->newest, index);
    }
    return 0;
}

/* Each chunk says all: the newest one is enough. A listing may be behind it. */
static int get_manifest(struct restore *r)
{
    struct bop_object_store *objects = r->tiers->options.objects;
    char prefix[BOP_OBJECT_KEY_MAX + 1];
    uint64_t index;
    int rc;

    snprintf(prefix, sizeof(prefix), "%.*s/manifest/", (int)sizeof(prefix) - 11, r->keys);
    rc = objects->list(objects, prefix, see_chunk, r, r->err);
    if (rc < 0) {
        return rc;
    }
    index = r->newest > 0 ? r->newest : 1;
    for (unsigned misses = 0; misses <= CHUNKS_BEYOND && rc == 0; index++) {
        rc = get_chunk(r, index);
        /* What is listed and gone was replaced by newer ones, some numbers away. */
        if (rc == BOP_ENOTFOUND) {
            misses = r->chunks > 0 ? CHUNKS_BEYOND + 1 : misses + 1;
            rc = 0;
        }
    }
    if (rc < 0) {
        return rc;
    }
    return r->chunks > 0
               ? 0
               : bop_error_say(r->err, BOP_ENOTFOUND,
                               "there is no manifest under %s: nothing was archived", prefix);
}

/* ---- What is true of it ---- */

static int append(struct restore *r, struct bop__manifest_record record)
{
    record.time_ms = bop__tiers_wall_ms(r->tiers);
    return bop__manifest_append(r->manifest, &record, 1, r->err);
}

/* An upload that was begun and, as far as the bucket's manifest goes, not ended: it may have. */
static int settle_upload(struct restore *r, const struct bop__manifest_entry *entry)
{
    struct bop__object_facts object = {
        .key = entry->key, .size = entry->packed_bytes, .sha256 = entry->sha256};
    struct bop__manifest_record record = {.kind = BOP__MANIFEST_UPLOAD_DONE,
                                          .generation = entry->facts.generation};
    struct bop_object_info info;
    char key[BOP_OBJECT_KEY_MAX + 1];
    int rc;

    rc = bop__object_head(r->tiers, &object, &info, r->err);
    if (rc == 0) {
        rc = bop__object_copy(r->tiers, &object, -1, NULL, r->err);
    }
    if (bop__is_bad(rc)) {
        return 0; /* It has not: the segment is lost, or what came of it is no good. */
    }
    if (rc < 0) {
        return rc;
    }
    snprintf(key, sizeof(key), "%s", entry->key);
    record.key = key;
    record.text = info.etag;
    memcpy(record.sha256, entry->sha256, sizeof(record.sha256));
    return append(r, record);
}

static int settle_entry(struct restore *r, uint64_t generation)
{
    const struct bop__manifest_entry *entry = bop__manifest_find(r->manifest, generation);
    int rc = 0;

    if (entry->uploading && !entry->delete_queued && !entry->dropped) {
        rc = settle_upload(r, entry);
    }
    entry = bop__manifest_find(r->manifest, generation);
    for (unsigned tier = 0; rc == 0 && tier < 2 && entry->uploaded; tier++) {
        if (tier == 0 ? !entry->raw_evicted : entry->packed && !entry->packed_evicted) {
            rc = append(r, (struct bop__manifest_record){.kind = BOP__MANIFEST_LOCAL_EVICTED,
                                                         .generation = generation,
                                                         .tier = tier});
            entry = bop__manifest_find(r->manifest, generation);
        }
    }
    return rc;
}

static int settle(struct restore *r)
{
    size_t count = bop__manifest_count(r->manifest);
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < count; i++) {
        uint64_t generation = bop__manifest_at(r->manifest, i)->facts.generation;

        r->generation = bop_max_u64(r->generation, generation);
        rc = settle_entry(r, generation);
    }
    return rc;
}

/* Records up to the first gap are there. Sets where the log goes on. */
static void find_end(struct restore *r)
{
    size_t count = bop__manifest_count(r->manifest);

    for (size_t i = 0; i < count; i++) {
        const struct bop__manifest_entry *entry = bop__manifest_at(r->manifest, i);

        if (entry->dropped) {
            continue;
        }
        if (r->next_seq > 0 && entry->facts.base != r->next_seq) {
            return;
        }
        if (entry->delete_queued && r->segments == 0) {
            r->next_seq = 0; /* On its way out: what follows it is the first. */
        } else if (!entry->uploaded) {
            return;
        } else if (r->segments++ == 0) {
            r->first_seq = entry->facts.base;
        }
        r->next_seq = entry->facts.end_seq;
        r->link = entry->facts.link;
        r->epoch = entry->facts.epoch;
    }
}

/* What lies behind a gap, and what was uploaded of it, is void: the log goes on in its place. */
static int drop_rest(struct restore *r)
{
    uint64_t now_ms = bop__tiers_wall_ms(r->tiers);
    size_t count = bop__manifest_count(r->manifest);
    char key[BOP_OBJECT_KEY_MAX + 1];
    int rc;

    rc = append(r, (struct bop__manifest_record){.kind = BOP__MANIFEST_TRUNCATED,
                                                 .last_seq = r->next_seq - 1});
    for (size_t i = 0; rc == 0 && i < count && i < bop__manifest_count(r->manifest); i++) {
        const struct bop__manifest_entry *entry = bop__manifest_at(r->manifest, i);

        if (!entry->dropped || entry->delete_queued || !entry->key) {
            continue;
        }
        snprintf(key, sizeof(key), "%s", entry->key);
        rc = append(
            r, (struct bop__manifest_record){.kind = BOP__MANIFEST_TIER2_DELETE_QUEUED,
                                             .generation = entry->facts.generation,
                                             .key = key,
                                             .due_ms = now_ms + r->tiers->options.delete_grace_ms});
    }
    return rc;
}

/* ---- Objects that the published manifest does not know yet ---- */

struct stray {
    uint64_t generation;
    uint64_t base;
    uint64_t size;
    char name[STRAY_NAME_SIZE]; /* Of the key, from behind the log's own part on. */
};

struct stray_walk {
    struct restore *r;
    struct stray strays[STRAYS_MAX];
    size_t count;
};

/* "/segment-<generation>-<base>-<root>.zst"; objects of before have no root. */
static bool is_segment(const char *name, struct stray *out_stray)
{
    uint64_t root;
    int used = 0;

    if (strlen(name) >= sizeof(out_stray->name) ||
        sscanf(name, "/segment-%20" SCNu64 "-%20" SCNu64 "%n", &out_stray->generation,
               &out_stray->base, &used) != 2) {
        return false;
    }
    strcpy(out_stray->name, name);
    name += used;
    used = 0;
    return strcmp(name, ".zst") == 0 || (sscanf(name, "-%16" SCNx64 ".zst%n", &root, &used) == 1 &&
                                         used > 0 && name[used] == '\0');
}

static int see_segment(void *user, const char *key, const struct bop_object_info *info)
{
    struct stray_walk *walk = user;
    struct stray stray = {.size = info->size};

    if (!is_segment(key + strlen(walk->r->keys), &stray) ||
        bop__manifest_find(walk->r->manifest, stray.generation)) {
        return 0;
    }
    if (walk->count < STRAYS_MAX) {
        walk->strays[walk->count++] = stray;
    }
    /* Nothing new gets its key. */
    walk->r->generation = bop_max_u64(walk->r->generation, stray.generation);
    return 0;
}

/* Read all of an object, to see what it is. */
static int verify_stray(struct restore *r, const struct bop__object_facts *object,
                        struct bop__warm_facts *out_facts)
{
    struct bop__archive archive = {.tiers = r->tiers};
    struct bop__tiered segment = {.archive = &archive};
    struct bop__segment_source *source;
    struct bop__packed *packed;
    uint8_t root[BOP_AOF_DIGEST_SIZE];
    int rc;

    rc = bop__object_open(&segment, object, BOP__OBJECT_WORKER, &packed);
    if (rc < 0) {
        return bop_error_set(r->err, rc, "open object %s", object->key);
    }
    rc = bop__warm_open(r->tiers->allocator, packed, NULL, &source, r->err);
    if (rc < 0) {
        return rc;
    }
    memcpy(root, bop__warm_segment(source)->root, sizeof(root));
    source->close(source);
    rc = bop__object_open(&segment, object, BOP__OBJECT_WORKER, &packed);
    if (rc < 0) {
        return bop_error_set(r->err, rc, "open object %s", object->key);
    }
    rc = bop__warm_verify(r->tiers->allocator, packed, root, out_facts, r->err);
    packed->close(packed);
    return rc;
}

static int record_stray(struct restore *r, const char *key, const struct bop__warm_facts *facts)
{
    struct bop__manifest_record records[] = {
        {.kind = BOP__MANIFEST_SEAL_SEGMENT, .facts = facts->segment},
        {.kind = BOP__MANIFEST_COMPRESSION_STARTED},
        {.kind = BOP__MANIFEST_COMPRESSION_DONE, .packed_bytes = facts->packed_size},
        {.kind = BOP__MANIFEST_UPLOAD_STARTED, .key = key},
        {.kind = BOP__MANIFEST_UPLOAD_DONE, .key = key},
        {.kind = BOP__MANIFEST_LOCAL_EVICTED, .tier = 0},
        {.kind = BOP__MANIFEST_LOCAL_EVICTED, .tier = 1},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(records); i++) {
        records[i].generation = facts->segment.generation;
        records[i].time_ms = bop__tiers_wall_ms(r->tiers);
        memcpy(records[i].sha256, facts->sha256, sizeof(records[i].sha256));
    }
    return bop__manifest_append(r->manifest, records, BOP_COUNT_OF(records), r->err);
}

/* Take an object in if it is this log's, whole, and goes on where the others end. */
static int adopt(struct restore *r, const struct stray *stray)
{
    struct bop__object_facts object = {.size = stray->size};
    struct bop__warm_facts facts;
    char key[BOP_OBJECT_KEY_MAX + 64];
    int rc;

    snprintf(key, sizeof(key), "%.*s%s", BOP_OBJECT_KEY_MAX, r->keys, stray->name);
    object.key = key;
    rc = stray->base == r->next_seq ? verify_stray(r, &object, &facts) : BOP_ECORRUPT;
    if (rc == 0 && (memcmp(facts.segment.log_id, r->log_id, sizeof(r->log_id)) != 0 ||
                    facts.segment.generation != stray->generation ||
                    facts.segment.base != r->next_seq || facts.segment.seed != r->link)) {
        rc = BOP_ECORRUPT;
    }
    if (bop__is_bad(rc)) {
        bop_log(r->tiers->options.log, BOP_LOG_WARN, "aof.tier2",
                "restore_leaves_object key=%s: it does not go on from record %" PRIu64, key,
                r->next_seq - 1);
        return 0;
    }
    rc = rc < 0 ? rc : record_stray(r, key, &facts);
    if (rc == 0) {
        r->next_seq = facts.segment.end_seq;
        r->link = facts.segment.link;
        r->epoch = facts.segment.epoch;
        r->segments++;
    }
    return rc;
}

static int adopt_strays(struct restore *r)
{
    struct bop_object_store *objects = r->tiers->options.objects;
    struct stray_walk *walk = bop_alloc_zeroed(r->tiers->allocator, sizeof(*walk));
    char prefix[BOP_OBJECT_KEY_MAX + 1];
    int rc;

    if (!walk) {
        return bop_error_set(r->err, BOP_ENOMEM, "look for segments under %s", r->keys);
    }
    walk->r = r;
    snprintf(prefix, sizeof(prefix), "%.*s/segment-", (int)sizeof(prefix) - 10, r->keys);
    rc = objects->list(objects, prefix, see_segment, walk, r->err);
    for (size_t i = 0; rc == 0 && i < walk->count; i++) {
        rc = adopt(r, &walk->strays[i]);
    }
    bop_free(r->tiers->allocator, walk, sizeof(*walk));
    return rc;
}

/* ---- The directory ---- */

static int nothing_there(void *user, const char *name)
{
    BOP_IGNORE(user);
    BOP_IGNORE(name);
    return 1;
}

static int make_directory(struct restore *r)
{
    struct bop_fs *fs = r->tiers->options.fs;
    int rc;

    if (snprintf(r->manifest_path, sizeof(r->manifest_path), "%s/manifest", r->path) >=
        (int)sizeof(r->manifest_path)) {
        return bop_error_set(r->err, -ENAMETOOLONG, "restore into %s", r->path);
    }
    rc = bop_fs_exists(fs, r->path) ? fs->list(fs, r->path, nothing_there, NULL) : 0;
    if (rc > 0) {
        return bop_error_say(r->err, BOP_EEXISTS,
                             "%s is not empty: a restore needs a directory of its own", r->path);
    }
    if (rc == 0) {
        rc = bop_fs_mkdirs(fs, r->manifest_path);
    }
    return rc < 0 ? bop_error_set(r->err, rc, "make %s", r->manifest_path) : 0;
}

static int open_manifest(struct restore *r)
{
    struct bop__manifest_options options = {.allocator = r->tiers->allocator,
                                            .fs = r->tiers->options.fs,
                                            .clock = r->tiers->options.clock,
                                            .log = r->tiers->options.log,
                                            .path = r->manifest_path};

    memcpy(options.log_id, r->log_id, sizeof(options.log_id));
    return bop__manifest_open(&options, &r->manifest, r->err);
}

/* The last step: a directory without it is no log. */
static int make_segment(struct restore *r)
{
    struct bop__aof_segment_header header = {.base = r->next_seq,
                                             .generation = r->generation + GENERATIONS_LOST + 1,
                                             .size = SEGMENT_BYTES,
                                             .front = r->segments > 0 ? r->first_seq : r->next_seq,
                                             .seed = r->link,
                                             .epoch = r->epoch};
    uint8_t block[BOP__AOF_SEGMENT_HEADER];
    char name[BOP__AOF_NAME_SIZE], path[BOP__PATH_MAX];

    memcpy(header.log_id, r->log_id, sizeof(header.log_id));
    bop__aof_segment_header_encode(&header, block);
    bop__aof_segment_name(header.base, header.generation, name);
    if (snprintf(path, sizeof(path), "%s/%s", r->path, name) >= (int)sizeof(path)) {
        return bop_error_set(r->err, -ENAMETOOLONG, "write %s", name);
    }
    return bop_fs_write_file(r->tiers->options.fs, path, bop_slice(block, sizeof(block)), r->err);
}

/* ---- All of it ---- */

static int restore(struct restore *r)
{
    int rc;

    rc = get_id(r);
    if (rc == 0) {
        rc = make_directory(r);
    }
    if (rc == 0) {
        rc = get_manifest(r);
    }
    if (rc == 0) {
        rc = open_manifest(r);
    }
    if (rc == 0) {
        rc = settle(r);
    }
    if (rc < 0) {
        return rc;
    }
    find_end(r);
    if (r->next_seq == 0) {
        return bop_error_say(r->err, BOP_ENOTFOUND, "no segment under %s/ is whole", r->keys);
    }
    rc = drop_rest(r);
    if (rc == 0) {
        rc = adopt_strays(r);
    }
    return rc < 0 ? rc : make_segment(r);
}

int bop_tiers_restore(const struct bop_tiers_options *options, const char *path, const char *name,
                      struct bop_tiers_restored *out_restored, struct bop_error *err)
{
    struct bop_tiers_options own = *options;
    struct bop_inline_executor executor;
    struct bop_executor *executors[1] = {&executor.executor};
    struct bop_error unheard;
    struct restore r = {.path = path, .name = name, .err = err ? err : &unheard};
    int rc;

    if (!options->objects || !bop__tiers_is_plain(name)) {
        return bop_error_say(err, BOP_EINVAL, "a restore needs an object store and a log's name");
    }
    /* Nothing runs in the background here: an executor that is never polled will do. */
    bop_inline_init(&executor);
    own.executors = executors;
    own.executor_count = 1;
    own.notify = NULL;
    own.metrics = NULL;
    rc = bop_tiers_create(&own, &r.tiers, err);
    if (rc < 0) {
        return rc;
    }
    snprintf(r.keys, sizeof(r.keys), "%s/%s", r.tiers->prefix, name);
    rc = restore(&r);
    bop__manifest_close(r.manifest);
    bop_tiers_destroy(r.tiers);
    if (rc == 0) {
        *out_restored = (struct bop_tiers_restored){.segments = r.segments,
                                                    .first_seq = r.first_seq,
                                                    .last_seq = r.next_seq - 1,
                                                    .manifest_chunks = r.chunks};
    }
    return rc;
}
