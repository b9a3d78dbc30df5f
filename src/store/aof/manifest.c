/*
 * The manifest's files: chunks that each begin with a snapshot of the catalogue.
 */
#include "manifest_replay.h"

#include <inttypes.h>
#include <stdio.h>

#define CHUNK_BYTES UINT64_C(262144)
#define CHUNKS_KEPT 2u
#define NEXT_NAME   "next.tmp"
/* Records of one append: their place in it is a u16. */
#define APPEND_MAX 65535u

struct bop__manifest {
    struct bop__manifest_options options; /* path is a copy. */
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    struct bop__catalogue catalogue;
    struct bop__manifest_chunk *chunks; /* Ascending; the last is the newest. */
    size_t chunk_count;
    size_t chunk_capacity;
    struct bop__manifest_place place; /* Of the next record. */
    int fd;                           /* Of the newest chunk, -1: the next append begins another. */
    uint64_t end;                     /* Where its next record goes. */
    uint64_t snapshot_end;
    struct bop_buf buf;
    struct bop_metric *appended;
    struct bop_metric *rotations;
};

/* ---- Chunks ---- */

static int chunk_path(const struct bop__manifest *manifest, const char *name, size_t size,
                      char *out_path)
{
    int length = snprintf(out_path, size, "%s/%s", manifest->options.path, name);

    return length < 0 || (size_t)length >= size ? BOP_ETOOBIG : 0;
}

static int add_chunk(struct bop__manifest *manifest, uint64_t index, uint64_t bytes)
{
    struct bop__manifest_chunk chunk = {.index = index, .bytes = bytes, .sealed = true};
    char name[BOP__MANIFEST_NAME_SIZE];
    size_t at = manifest->chunk_count;
    int rc;

    bop__manifest_name(index, name);
    rc = chunk_path(manifest, name, sizeof(chunk.path), chunk.path);
    if (rc < 0) {
        return rc;
    }
    if (at == manifest->chunk_capacity) {
        size_t capacity = at > 0 ? at * 2 : 8;
        struct bop__manifest_chunk *grown = bop_realloc(
            manifest->allocator, manifest->chunks, at * sizeof(*grown), capacity * sizeof(*grown));

        if (!grown) {
            return BOP_ENOMEM;
        }
        manifest->chunks = grown;
        manifest->chunk_capacity = capacity;
    }
    /* Listed in byte order, which for names of 20 digits is that of the numbers. */
    BOP_ASSERT(at == 0 || manifest->chunks[at - 1].index < index);
    manifest->chunks[manifest->chunk_count++] = chunk;
    return 0;
}

static int found_name(void *user, const char *name)
{
    uint64_t index;

    return bop__manifest_name_parse(name, &index) ? add_chunk(user, index, 0) : 0;
}

static struct bop__manifest_chunk *newest(const struct bop__manifest *manifest)
{
    return &manifest->chunks[manifest->chunk_count - 1];
}

/* ---- Open ---- */

static int set_options(struct bop__manifest *manifest, const struct bop__manifest_options *options)
{
    size_t size = strlen(options->path) + 1;
    char *path = bop_alloc(manifest->allocator, size);

    if (!path) {
        return BOP_ENOMEM;
    }
    memcpy(path, options->path, size);
    manifest->options = *options;
    manifest->options.path = path;
    manifest->fs = options->fs ? options->fs : bop_fs_real();
    if (!options->clock) {
        manifest->options.clock = bop_clock_system();
    }
    if (options->chunk_bytes == 0) {
        manifest->options.chunk_bytes = CHUNK_BYTES;
    }
    if (options->chunks_kept == 0) {
        manifest->options.chunks_kept = CHUNKS_KEPT;
    }
    if (options->metrics) {
        manifest->appended = bop_metrics_counter(options->metrics, "bop_aof_manifest_records_total",
                                                 NULL, "Records appended to manifests.");
        manifest->rotations = bop_metrics_counter(options->metrics, "bop_aof_manifest_chunks_total",
                                                  NULL, "Chunks of manifests begun.");
    }
    return 0;
}

/* Replay a chunk into the catalogue, which is empty. */
static int replay(struct bop__manifest *manifest, struct bop__manifest_chunk *chunk,
                  struct bop_error *err)
{
    struct bop__manifest_replay replay = {.allocator = manifest->allocator,
                                          .path = chunk->path,
                                          .index = chunk->index,
                                          .catalogue = &manifest->catalogue,
                                          .log_id = manifest->options.log_id};
    int rc;

    bop_buf_clear(&manifest->buf);
    rc = bop_fs_read_file(manifest->fs, chunk->path, BOP__MANIFEST_CHUNK_MAX, &manifest->buf);
    if (rc < 0) {
        return bop_error_set(err, rc, "%s: cannot read it: %s", chunk->path, bop_strerror(rc));
    }
    rc = bop__manifest_replay(&replay, bop_buf_slice(&manifest->buf), err);
    if (rc < 0) {
        return rc;
    }
    chunk->bytes = replay.end;
    manifest->place = replay.place;
    manifest->end = replay.end;
    manifest->snapshot_end = replay.snapshot_end;
    if (replay.end < manifest->buf.size) {
        bop_log(manifest->options.log, BOP_LOG_WARN, "manifest",
                "a torn tail is left out path=%s from=%" PRIu64 " bytes=%" PRIu64, chunk->path,
                replay.end, manifest->buf.size - replay.end);
    }
    return 0;
}

static int list_chunks(struct bop__manifest *manifest, struct bop_error *err)
{
    int rc = manifest->options.read_only ? 0 : bop_fs_mkdirs(manifest->fs, manifest->options.path);

    if (rc < 0) {
        return bop_error_set(err, rc, "%s: cannot make the directory: %s", manifest->options.path,
                             bop_strerror(rc));
    }
    rc = manifest->fs->list(manifest->fs, manifest->options.path, found_name, manifest);
    return rc < 0 ? bop_error_set(err, rc, "%s: cannot list it: %s", manifest->options.path,
                                  bop_strerror(rc))
                  : 0;
}

/* Everything but replaying. */
static int create(const struct bop__manifest_options *options, struct bop__manifest **out_manifest,
                  struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_default(options->allocator);
    struct bop__manifest *manifest = bop_alloc_zeroed(allocator, sizeof(*manifest));
    int rc;

    *out_manifest = NULL;
    if (!manifest) {
        return bop_error_set(err, BOP_ENOMEM, "%s: no memory", options->path);
    }
    manifest->allocator = allocator;
    manifest->fd = -1;
    manifest->place.number = 1;
    bop_buf_init(&manifest->buf, allocator, 0);
    bop__catalogue_init(&manifest->catalogue, allocator);
    rc = set_options(manifest, options);
    if (rc < 0) {
        bop_error_set(err, rc, "%s: no memory", options->path);
    } else {
        rc = list_chunks(manifest, err);
    }
    if (rc < 0) {
        bop__manifest_close(manifest);
        return rc;
    }
    *out_manifest = manifest;
    return 0;
}

int bop__manifest_open(const struct bop__manifest_options *options,
                       struct bop__manifest **out_manifest, struct bop_error *err)
{
    struct bop__manifest *manifest;
    int rc = create(options, &manifest, err);

    *out_manifest = NULL;
    if (rc == 0 && manifest->chunk_count > 0) {
        rc = replay(manifest, newest(manifest), err);
        if (rc < 0) {
            bop__manifest_close(manifest);
        }
    }
    if (rc == 0) {
        *out_manifest = manifest;
    }
    return rc;
}

static void close_chunk(struct bop__manifest *manifest)
{
    if (manifest->fd >= 0) {
        manifest->fs->close(manifest->fs, manifest->fd);
        manifest->fd = -1;
    }
}

void bop__manifest_close(struct bop__manifest *manifest)
{
    if (!manifest) {
        return;
    }
    close_chunk(manifest);
    bop__catalogue_deinit(&manifest->catalogue);
    bop_buf_deinit(&manifest->buf);
    if (manifest->chunks) {
        bop_free(manifest->allocator, manifest->chunks,
                 manifest->chunk_capacity * sizeof(*manifest->chunks));
    }
    if (manifest->options.path) {
        bop_free(manifest->allocator, (char *)manifest->options.path,
                 strlen(manifest->options.path) + 1);
    }
    bop_free(manifest->allocator, manifest, sizeof(*manifest));
}

/* ---- A new chunk ---- */

/* Fill buf with header and snapshot. */
static int encode_snapshot(struct bop__manifest *manifest, uint64_t index,
                           struct bop__manifest_place *out_place)
{
    const struct bop__catalogue *catalogue = &manifest->catalogue;
    uint64_t now = bop_clock_wall_ms(manifest->options.clock);
    struct bop__manifest_record marker = {
        .kind = BOP__MANIFEST_SNAPSHOT_MARKER, .time_ms = now, .first_seq = catalogue->count};
    int rc;

    bop_buf_clear(&manifest->buf);
    rc = bop__manifest_header_encode(index, manifest->options.log_id, manifest->place.number,
                                     manifest->place.chain, &manifest->buf, out_place);
    for (size_t i = 0; rc == 0 && i < catalogue->count; i++) {
        struct bop__manifest_record record = {.kind = BOP__MANIFEST_CATALOGUE,
                                              .generation = catalogue->entries[i]->facts.generation,
                                              .time_ms = now};

        out_place->back = 0;
        rc = bop__manifest_record_encode(&record, catalogue->entries[i], out_place, &manifest->buf);
    }
    out_place->back = 0;
    return rc < 0 ? rc : bop__manifest_record_encode(&marker, NULL, out_place, &manifest->buf);
}

/* Write buf as a file of its own and give it its name. Returns the descriptor. */
static int write_chunk(struct bop__manifest *manifest, const char *path)
{
    struct bop_fs *fs = manifest->fs;
    char next[512];
    int rc = chunk_path(manifest, NEXT_NAME, sizeof(next), next);
    int fd = rc < 0 ? rc : fs->open(fs, next, O_RDWR | O_CREAT | O_TRUNC);

    if (fd < 0) {
        return fd;
    }
    rc = bop_fs_write_all(fs, fd, manifest->buf.data, manifest->buf.size, 0);
    if (rc == 0) {
        rc = fs->sync(fs, fd);
    }
    if (rc == 0) {
        rc = fs->rename(fs, next, path);
    }
    if (rc == 0) {
        rc = fs->sync_dir(fs, manifest->options.path);
    }
    if (rc < 0) {
        fs->close(fs, fd);
        return rc;
    }
    return fd;
}

/* Old chunks go, the oldest first, as far as nobody needs them. */
static void remove_old(struct bop__manifest *manifest)
{
    size_t kept = (size_t)manifest->options.chunks_kept + 1;
    size_t gone = 0;

    while (manifest->chunk_count - gone > kept &&
           manifest->fs->unlink(manifest->fs, manifest->chunks[gone].path) == 0) {
        gone++;
    }
    manifest->chunk_count -= gone;
    memmove(manifest->chunks, manifest->chunks + gone,
            manifest->chunk_count * sizeof(*manifest->chunks));
}

int bop__manifest_rotate(struct bop__manifest *manifest, struct bop_error *err)
{
    uint64_t index = manifest->chunk_count > 0 ? newest(manifest)->index + 1 : 1;
    struct bop__manifest_place place;
    int fd, rc;

    if (manifest->options.read_only) {
        return bop_error_set(err, BOP_EINVAL, "%s: opened for reading", manifest->options.path);
    }
    /* Whatever becomes of the new one, the one before is not written any more. */
    close_chunk(manifest);
    rc = encode_snapshot(manifest, index, &place);
    if (rc == 0) {
        /* One that a failure left without a name it can trust is written again. */
        rc = add_chunk(manifest, index, manifest->buf.size);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "%s: cannot begin a chunk: %s", manifest->options.path,
                             bop_strerror(rc));
    }
    fd = write_chunk(manifest, newest(manifest)->path);
    if (fd < 0) {
        bop_error_set(err, fd, "%s: cannot write it: %s", newest(manifest)->path, bop_strerror(fd));
        manifest->chunk_count--;
        return fd;
    }
    manifest->fd = fd;
    manifest->place = place;
    manifest->end = manifest->snapshot_end = manifest->buf.size;
    newest(manifest)->sealed = false;
    if (manifest->chunk_count > 1) {
        manifest->chunks[manifest->chunk_count - 2].sealed = true;
    }
    bop_metric_add(manifest->rotations, 1);
    remove_old(manifest);
    return 0;
}

/* ---- Append ---- */

static bool wants_rotation(const struct bop__manifest *manifest)
{
    uint64_t behind = manifest->end - manifest->snapshot_end;

    return manifest->fd < 0 ||
           (behind > manifest->options.chunk_bytes && behind > manifest->snapshot_end);
}

/* Encode the records into buf and apply them. */
static int prepare(struct bop__manifest *manifest, const struct bop__manifest_record *records,
                   size_t count, struct bop__manifest_place *place, struct bop_error *err)
{
    bop_buf_clear(&manifest->buf);
    place->back = 0;
    for (size_t i = 0; i < count; i++) {
        struct bop__manifest_record record = records[i];
        int rc;

        if (record.time_ms == 0) {
            record.time_ms = bop_clock_wall_ms(manifest->options.clock);
        }
        rc = bop__catalogue_apply(&manifest->catalogue, &record, err);
        if (rc == BOP_ECONDITION) {
            return rc;
        }
        if (rc == 0) {
            rc = bop__manifest_record_encode(&record, NULL, place, &manifest->buf);
        }
        if (rc < 0) {
            return bop_error_set(err, rc, "%s: cannot append: %s", manifest->options.path,
                                 bop_strerror(rc));
        }
    }
    return 0;
}

static int write_records(struct bop__manifest *manifest, struct bop_error *err)
{
    struct bop_fs *fs = manifest->fs;
    int rc = bop_fs_write_all(fs, manifest->fd, manifest->buf.data, manifest->buf.size,
                              manifest->end);

    if (rc == 0) {
        rc = fs->sync(fs, manifest->fd);
    }
    if (rc < 0) {
        /* What this chunk's tail holds is unknown from now on. */
        close_chunk(manifest);
        return bop_error_set(err, rc, "%s: cannot write it: %s", newest(manifest)->path,
                             bop_strerror(rc));
    }
    manifest->end += manifest->buf.size;
    newest(manifest)->bytes = manifest->end;
    return 0;
}

int bop__manifest_append(struct bop__manifest *manifest, const struct bop__manifest_record *records,
                         size_t count, struct bop_error *err)
{
    struct bop__manifest_place place;
    int rc;

    if (count == 0 || count > APPEND_MAX) {
        return bop_error_set(err, BOP_EINVAL, "%s: %zu records in one append",
                             manifest->options.path, count);
    }
    rc = wants_rotation(manifest) ? bop__manifest_rotate(manifest, err) : 0;
    if (rc < 0) {
        return rc;
    }
    place = manifest->place;
    bop__catalogue_begin(&manifest->catalogue);
    rc = prepare(manifest, records, count, &place, err);
    if (rc == 0) {
        rc = write_records(manifest, err);
    }
    if (rc < 0) {
        bop__catalogue_undo(&manifest->catalogue, 0);
        return rc;
    }
    bop__catalogue_keep(&manifest->catalogue);
    manifest->place = place;
    bop_metric_add(manifest->appended, (int64_t)count);
    return 0;
}

/* ---- What it knows ---- */

size_t bop__manifest_count(const struct bop__manifest *manifest)
{
    return manifest->catalogue.count;
}

const struct bop__manifest_entry *bop__manifest_at(const struct bop__manifest *manifest, size_t i)
{
    BOP_ASSERT(i < manifest->catalogue.count);
    return manifest->catalogue.entries[i];
}

const struct bop__manifest_entry *bop__manifest_find(const struct bop__manifest *manifest,
                                                     uint64_t generation)
{
    return bop__catalogue_find(&manifest->catalogue, generation);
}

size_t bop__manifest_chunks(const struct bop__manifest *manifest)
{
    return manifest->chunk_count;
}

void bop__manifest_chunk_at(const struct bop__manifest *manifest, size_t i,
                            struct bop__manifest_chunk *out_chunk)
{
    BOP_ASSERT(i < manifest->chunk_count);
    *out_chunk = manifest->chunks[i];
}

void bop__manifest_uploaded(struct bop__manifest *manifest, uint64_t index, uint64_t bytes)
{
    for (size_t i = 0; i < manifest->chunk_count; i++) {
        if (manifest->chunks[i].index == index) {
            manifest->chunks[i].uploaded = bytes;
        }
    }
}

/* ---- Repair ---- */

/* Put the newest chunk aside. */
static int set_aside(struct bop__manifest *manifest, struct bop_error *err)
{
    struct bop__manifest_chunk *chunk = newest(manifest);
    char broken[sizeof(chunk->path) + sizeof(".broken")];
    int rc;

    snprintf(broken, sizeof(broken), "%s.broken", chunk->path);
    rc = manifest->fs->rename(manifest->fs, chunk->path, broken);
    if (rc == 0) {
        rc = manifest->fs->sync_dir(manifest->fs, manifest->options.path);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "%s: cannot put it aside: %s", chunk->path, bop_strerror(rc));
    }
    manifest->chunk_count--;
    return 0;
}

int bop__manifest_repair(const struct bop__manifest_options *options, unsigned *out_lost,
                         struct bop_error *err)
{
    struct bop__manifest *manifest;
    struct bop_error found;
    int rc = create(options, &manifest, err);

    *out_lost = 0;
    if (rc < 0) {
        return rc;
    }
    while (manifest->chunk_count > 0) {
        bop__catalogue_deinit(&manifest->catalogue);
        rc = replay(manifest, newest(manifest), &found);
        if (rc != BOP_ECORRUPT) {
            break;
        }
        if (manifest->chunk_count == 1) {
            rc = bop_error_set(err, BOP_ECORRUPT,
                               "%s: no chunk can be read; rebuild it from the object store",
                               options->path);
            break;
        }
        rc = set_aside(manifest, err);
        if (rc < 0) {
            break;
        }
        ++*out_lost;
    }
    if (rc < 0 && rc != BOP_ECORRUPT && *out_lost == 0) {
        rc = bop_error_set(err, rc, "%s: %s", options->path, found.message);
    }
    if (rc == 0 && *out_lost > 0) {
        rc = bop__manifest_rotate(manifest, err);
    }
    bop__manifest_close(manifest);
    return rc;
}
