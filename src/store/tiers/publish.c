/*
 * The manifest into the object store, so that all local files can be lost.
 */
#include <string.h>

#include <bop/error.h>

#include "internal.h"

/* Chunk objects that one task removes; more are seen the next time. */
#define REMOVES_MAX 64

#define ID_SIZE ((size_t)2 * BOP_AOF_ID_SIZE)

static int join_key(char out_key[BOP_OBJECT_KEY_MAX + 1], const char *keys, const char *name,
                    struct bop_error *err)
{
    if (snprintf(out_key, BOP_OBJECT_KEY_MAX + 1, "%s/%s", keys, name) > BOP_OBJECT_KEY_MAX) {
        return bop_error_set(err, -ENAMETOOLONG, "make a key under %s", keys);
    }
    return 0;
}

int bop__publish_claim(struct bop_tiers *tiers, const char *keys,
                       const uint8_t log_id[BOP_AOF_ID_SIZE], struct bop_error *err)
{
    struct bop_object_store *objects = tiers->options.objects;
    struct bop_object_put put = {.only_new = true};
    struct bop_object_info info;
    char key[BOP_OBJECT_KEY_MAX + 1];
    char id[ID_SIZE + 1];
    int rc;

    rc = join_key(key, keys, "log-id", err);
    if (rc < 0) {
        return rc;
    }
    bop__hex(log_id, BOP_AOF_ID_SIZE, id);
    put.key = key;
    put.source = (struct bop_object_source){.bytes = id, .size = ID_SIZE};
    rc = bop__sha256(id, ID_SIZE, put.sha256);
    if (rc < 0) {
        return bop_error_set(err, rc, "compute a digest");
    }
    rc = objects->put(objects, &put, &info, err);
    if (rc == BOP_ECONDITION) {
        return bop_error_say(err, BOP_EMISMATCH,
                             "the objects under %s belong to another log; this one, %s, needs "
                             "another name or prefix",
                             keys, id);
    }
    return rc;
}

/* ---- Chunks ---- */

struct chunk_walk {
    const char *keys;
    size_t prefix_size;
    uint64_t below;
    uint64_t newest;
    uint64_t indices[REMOVES_MAX];
    size_t count;
};

static int see_chunk(void *user, const char *key, const struct bop_object_info *info)
{
    struct chunk_walk *walk = user;
    uint64_t index;
    int used = 0;

    BOP_IGNORE(info);
    if (sscanf(key + walk->prefix_size, "%20" SCNu64 ".mlog%n", &index, &used) != 1 || used == 0) {
        return 0;
    }
    walk->newest = bop_max_u64(walk->newest, index);
    if (index < walk->below && walk->count < REMOVES_MAX) {
        walk->indices[walk->count++] = index;
    }
    return 0;
}

static int walk_chunks(struct bop__archive *archive, uint64_t below, struct chunk_walk *out_walk,
                       struct bop_error *err)
{
    struct bop_object_store *objects = archive->tiers->options.objects;
    char prefix[BOP_OBJECT_KEY_MAX + 1];
    int rc;

    rc = join_key(prefix, archive->keys, "manifest/", err);
    if (rc < 0) {
        return rc;
    }
    *out_walk = (struct chunk_walk){.below = below, .prefix_size = strlen(prefix)};
    return objects->list(objects, prefix, see_chunk, out_walk, err);
}

/* Another directory, newer than this one, was at work under this name: nothing of its may be lost.
 */
static int check_not_behind(struct bop__archive *archive, uint64_t newest, struct bop_error *err)
{
    struct chunk_walk walk;
    int rc = walk_chunks(archive, 0, &walk, err);

    if (rc < 0) {
        return rc;
    }
    if (walk.newest > newest) {
        return bop_error_say(err, BOP_EMISMATCH,
                             "the manifest under %s is newer (chunk %" PRIu64
                             ") than that of %s (chunk %" PRIu64
                             "): this directory is an old copy; restore from the bucket",
                             archive->keys, walk.newest, archive->path, newest);
    }
    return 0;
}

static int remove_old(struct bop__archive *archive, uint64_t lowest, uint64_t *out_lowest,
                      struct bop_error *err)
{
    struct bop_object_store *objects = archive->tiers->options.objects;
    struct chunk_walk walk;
    char name[40], key[BOP_OBJECT_KEY_MAX + 1];
    int rc;

    if (lowest <= *out_lowest) {
        return 0;
    }
    rc = walk_chunks(archive, lowest, &walk, err);
    for (size_t i = 0; rc == 0 && i < walk.count; i++) {
        snprintf(name, sizeof(name), "manifest/%020" PRIu64 ".mlog", walk.indices[i]);
        rc = join_key(key, archive->keys, name, err);
        if (rc == 0) {
            rc = objects->remove(objects, key, err);
        }
    }
    if (rc == 0 && walk.count < REMOVES_MAX) {
        *out_lowest = lowest;
    }
    return rc;
}

/* The next chunk to be put, from `from` on, opened. False: there is none. The manifest is locked.
 */
static bool next_chunk(struct bop__archive *archive, uint64_t from,
                       struct bop__manifest_chunk *out_chunk)
{
    size_t count = bop__manifest_chunks(archive->manifest);

    for (size_t i = 0; i < count; i++) {
        bop__manifest_chunk_at(archive->manifest, i, out_chunk);
        if (out_chunk->index >= from && out_chunk->uploaded < out_chunk->bytes) {
            return true;
        }
    }
    return false;
}

static int put_chunk(struct bop__archive *archive, const struct bop__manifest_chunk *chunk, int fd,
                     struct bop_error *err)
{
    struct bop_tiers *tiers = archive->tiers;
    struct bop_object_store *objects = tiers->options.objects;
    struct bop_object_put put = {
        .source = {.fs = tiers->options.fs, .fd = fd, .size = chunk->bytes}};
    struct bop_object_info info;
    char name[40], key[BOP_OBJECT_KEY_MAX + 1];
    int rc;

    snprintf(name, sizeof(name), "manifest/%020" PRIu64 ".mlog", chunk->index);
    rc = join_key(key, archive->keys, name, err);
    if (rc == 0) {
        rc = bop__sha256_file(tiers, fd, chunk->bytes, put.sha256, err);
    }
    if (rc < 0) {
        return rc;
    }
    put.key = key;
    rc = objects->put(objects, &put, &info, err);
    if (rc < 0) {
        return rc;
    }
    pthread_mutex_lock(&archive->manifest_lock);
    bop__manifest_uploaded(archive->manifest, chunk->index, chunk->bytes);
    pthread_mutex_unlock(&archive->manifest_lock);
    return 0;
}

/* Where the manifest stands, to be published as far as that. */
static void look(struct bop__archive *archive, uint64_t *out_oldest, uint64_t *out_newest,
                 uint64_t *out_version)
{
    struct bop__manifest_chunk chunk;
    size_t count;

    *out_oldest = *out_newest = 0;
    pthread_mutex_lock(&archive->manifest_lock);
    count = bop__manifest_chunks(archive->manifest);
    if (count > 0) {
        bop__manifest_chunk_at(archive->manifest, 0, &chunk);
        *out_oldest = chunk.index;
        bop__manifest_chunk_at(archive->manifest, count - 1, &chunk);
        *out_newest = chunk.index;
    }
    *out_version = archive->appended;
    pthread_mutex_unlock(&archive->manifest_lock);
}

/* Put the chunks up to `newest` that the bucket lacks, ascending, so that one that is there says
 * that those before it are. */
static int put_chunks(struct bop__archive *archive, uint64_t newest, struct bop_error *err)
{
    struct bop_fs *fs = archive->tiers->options.fs;
    struct bop__manifest_chunk chunk;
    uint64_t from = 0;
    int rc = 0;

    while (rc == 0 && from <= newest) {
        int fd = -1;
        bool found;

        /* Opened under the lock: a chunk that is removed later can still be read. */
        pthread_mutex_lock(&archive->manifest_lock);
        found = next_chunk(archive, from, &chunk) && chunk.index <= newest;
        if (found) {
            fd = fs->open(fs, chunk.path, O_RDONLY);
        }
        pthread_mutex_unlock(&archive->manifest_lock);
        if (!found) {
            break;
        }
        if (fd < 0) {
            return bop_error_set(err, fd, "open %s", chunk.path);
        }
        rc = put_chunk(archive, &chunk, fd, err);
        fs->close(fs, fd);
        from = chunk.index + 1;
    }
    return rc;
}

/* True if what was looked at was overtaken: a newer chunk holds all of it, and is not put yet. */
static bool is_gone(struct bop__archive *archive, uint64_t newest)
{
    uint64_t oldest, now, version;

    look(archive, &oldest, &now, &version);
    return oldest > newest;
}

void bop__publish_run(struct bop__job *job)
{
    struct bop__archive *archive = job->archive;
    uint64_t oldest, newest, version;

    look(archive, &oldest, &newest, &version);
    if (!job->claimed) {
        job->code = bop__publish_claim(job->tiers, archive->keys, archive->log_id, &job->err);
        if (job->code == 0) {
            job->code = check_not_behind(archive, newest, &job->err);
        }
        if (job->code < 0) {
            return;
        }
        job->claimed = true;
    }
    job->code = put_chunks(archive, newest, &job->err);
    if (job->code == 0 && is_gone(archive, newest)) {
        job->code = bop_error_set(&job->err, BOP_EBUSY, "publish the manifest of %s",
                                  archive->path);
    }
    if (job->code == 0) {
        job->bytes = version;
        job->code = remove_old(archive, oldest, &job->lowest, &job->err);
    }
}

void bop__publish_done(struct bop__job *job)
{
    struct bop__archive *archive = job->archive;

    archive->publishing = false;
    archive->claimed = job->claimed;
    archive->lowest = job->lowest;
    archive->published = bop_max_u64(archive->published, job->bytes);
    if (job->code < 0) {
        archive->urgent = true;
        bop__count(job->tiers, BOP__COUNT_PUBLISH_FAILURES, 1);
        bop__retry_failed(job->tiers, &archive->publish_retry, &job->err);
        bop_log(job->tiers->options.log, BOP_LOG_WARN, "aof.tier2",
                "tier2_publish_failed log=%s %s", archive->name, job->err.message);
        return;
    }
    bop__count(job->tiers, BOP__COUNT_PUBLISHES, 1);
    bop__retry_over(job->tiers, &archive->publish_retry);
}
