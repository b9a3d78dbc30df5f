/*
 * What tasks do to files: begin a segment, write, sync, and keep room prepared.
 *
 *      4096         used              zeroed                      size
 *      +--------------+-----------------+---------------------------+
 *      | records      | zeros, written  | not there yet             |
 *      +--------------+-----------------+---------------------------+
 *
 * A commit into written zeros changes neither the file's size nor its extents,
 * which makes its sync about twice as fast. So upkeep keeps zeros ahead of `used`: as
 * much as the log has written since it was opened, within bounds, so that a
 * small log stays small. Past the middle of a segment it also prepares next.tmp.
 *
 * Invariants:
 *
 *   (1) 4096 <= used <= zeroed, and zeros are only ever written at or above zeroed.
 *   (2) A name *.seg is made only of a synced file with a valid header, after
 *       everything in the segment before was synced, and is durable before anything
 *       is written behind that header.
 *   (3) After a failure nothing is written, synced, renamed or removed any more.
 */
#include "internal.h"

#include <inttypes.h>

#define MARGIN_MIN UINT64_C(0x40000)  /* 256 KiB. */
#define MARGIN_MAX UINT64_C(0x400000) /* 4 MiB. */
/* What upkeep writes at once: a commit behind it waits a few tenths of a millisecond. */
#define STEP_BYTES UINT64_C(0x40000)
/* The zeros in a first segment, which is made while somebody waits. */
#define FIRST_BYTES UINT64_C(0x10000)

static const uint8_t zeros[256 * 1024];

bool bop__aof_path(const char *dir, const char *name, char out_path[BOP__AOF_PATH_MAX])
{
    int size = snprintf(out_path, BOP__AOF_PATH_MAX, "%s/%s", dir, name);

    return size > 0 && size < BOP__AOF_PATH_MAX;
}

bool bop__segment_path(const char *dir, uint64_t base, uint64_t generation,
                       char out_path[BOP__AOF_PATH_MAX])
{
    char name[BOP__AOF_NAME_SIZE];

    bop__aof_segment_name(base, generation, name);
    return bop__aof_path(dir, name, out_path);
}

int bop__aof_write_zeros(struct bop_fs *fs, int fd, uint64_t from, uint64_t to)
{
    while (from < to) {
        size_t size = (size_t)bop_min_u64(sizeof(zeros), to - from);
        int rc = bop_fs_write_all(fs, fd, zeros, size, from);

        if (rc < 0) {
            return rc;
        }
        from += size;
    }
    return 0;
}

void bop__writer_init(struct bop__writer *writer, struct bop_fs *fs, struct bop_log *log,
                      const char *dir, uint64_t segment_bytes)
{
    *writer = (struct bop__writer){
        .fs = fs,
        .log = log,
        .dir = dir,
        .segment_bytes = segment_bytes,
        .fd = -1,
        .next_fd = -1,
    };
    bop_list_init(&writer->removals);
    bop_list_init(&writer->removed);
}

/* What was written is synced or given up: a late error of close tells nothing. */
static void close_file(struct bop_fs *fs, int *fd)
{
    if (*fd >= 0) {
        BOP_IGNORE(fs->close(fs, *fd));
        *fd = -1;
    }
}

void bop__writer_deinit(struct bop__writer *writer)
{
    close_file(writer->fs, &writer->fd);
    close_file(writer->fs, &writer->next_fd);
}

void bop__writer_continue(struct bop__writer *writer, int fd, uint64_t size, uint64_t used,
                          uint64_t zeroed)
{
    BOP_ASSERT(writer->fd < 0 && used >= BOP__AOF_SEGMENT_HEADER);
    writer->fd = fd;
    writer->size = size;
    writer->used = used;
    writer->zeroed = bop_max_u64(used, zeroed);
    writer->dirty = false;
}

static bool is_no_room(int code)
{
    return code == -ENOSPC || code == -EDQUOT;
}

/* ---- The next file ---- */

/* The zeros that a file gets before it becomes a segment. */
static uint64_t next_bytes(const struct bop__writer *writer)
{
    uint64_t wanted = bop_min_u64(STEP_BYTES, writer->written);

    return bop_min_u64(writer->segment_bytes, bop_max_u64(wanted, FIRST_BYTES));
}

/* Make next.tmp, zeros written and synced. Returns a code; err says what was being done. */
static int prepare_next(struct bop__writer *writer, struct bop_error *err)
{
    struct bop_fs *fs = writer->fs;
    uint64_t bytes = next_bytes(writer);
    char path[BOP__AOF_PATH_MAX];
    int fd, rc;

    BOP_ASSERT(writer->next_fd < 0);
    if (!bop__aof_path(writer->dir, BOP__AOF_NEXT_NAME, path)) {
        return bop_error_set(err, -ENAMETOOLONG, "prepare a segment in %s", writer->dir);
    }
    fd = fs->open(fs, path, O_RDWR | O_CREAT | O_EXCL);
    if (fd < 0) {
        return bop_error_set(err, fd, "create %s", path);
    }
    rc = bop__aof_write_zeros(fs, fd, 0, bytes);
    if (rc < 0) {
        bop_error_set(err, rc, "write %s", path);
        goto fail;
    }
    rc = fs->sync(fs, fd);
    if (rc < 0) {
        bop_error_set(err, rc, "sync %s", path);
        goto fail;
    }
    writer->next_fd = fd;
    writer->next_end = bytes;
    return 0;

fail:
    close_file(fs, &fd);
    /* Best effort: opening the log removes it. */
    BOP_IGNORE(fs->unlink(fs, path));
    return rc;
}

/* Give the prepared file a header and its name. */
static int name_next(struct bop__writer *writer, const struct bop__segment *segment,
                     struct bop_error *err)
{
    struct bop_fs *fs = writer->fs;
    uint8_t block[BOP__AOF_SEGMENT_HEADER];
    char from[BOP__AOF_PATH_MAX], path[BOP__AOF_PATH_MAX];
    int rc;

    if (!bop__aof_path(writer->dir, BOP__AOF_NEXT_NAME, from) ||
        !bop__segment_path(writer->dir, segment->base, segment->generation, path)) {
        return bop_error_set(err, -ENAMETOOLONG, "begin a segment in %s", writer->dir);
    }
    bop__aof_segment_header_encode(&segment->header, block);
    rc = bop_fs_write_all(fs, writer->next_fd, block, sizeof(block), 0);
    if (rc < 0) {
        return bop_error_set(err, rc, "write the header of %s", path);
    }
    rc = fs->sync(fs, writer->next_fd);
    if (rc < 0) {
        return bop_error_set(err, rc, "sync the header of %s", path);
    }
    rc = fs->rename(fs, from, path);
    if (rc < 0) {
        return bop_error_set(err, rc, "rename %s to %s", from, path);
    }
    rc = fs->sync_dir(fs, writer->dir);
    if (rc < 0) {
        return bop_error_set(err, rc, "sync directory %s", writer->dir);
    }
    return 0;
}

/* ---- Commits ---- */

int bop__writer_begin(struct bop__writer *writer, const struct bop__segment *segment)
{
    int rc = bop__writer_sync(writer);

    if (rc == 0 && writer->next_fd < 0) {
        rc = prepare_next(writer, &writer->error);
    }
    if (rc == 0) {
        rc = name_next(writer, segment, &writer->error);
    }
    if (rc < 0) {
        return rc;
    }
    close_file(writer->fs, &writer->fd);
    bop__writer_continue(writer, writer->next_fd, segment->size, BOP__AOF_SEGMENT_HEADER,
                         writer->next_end);
    writer->next_fd = -1;
    bop_log(writer->log, BOP_LOG_DEBUG, "aof",
            "segment begun dir=%s base=%" PRIu64 " generation=%" PRIu64 " front=%" PRIu64,
            writer->dir, segment->base, segment->generation, segment->front);
    return 0;
}

int bop__writer_write(struct bop__writer *writer, const uint8_t *bytes, uint64_t size,
                      uint64_t offset)
{
    int rc = writer->error.code;

    if (rc < 0) {
        return rc;
    }
    BOP_ASSERT(offset == writer->used && size <= writer->size - offset);
    writer->dirty = true;
    rc = bop_fs_write_all(writer->fs, writer->fd, bytes, (size_t)size, offset);
    if (rc < 0) {
        return bop_error_set(&writer->error, rc, "write to the log in %s", writer->dir);
    }
    writer->used = offset + size;
    writer->zeroed = bop_max_u64(writer->zeroed, writer->used);
    writer->written += size;
    return 0;
}

int bop__writer_sync(struct bop__writer *writer)
{
    int rc = writer->error.code;

    if (rc < 0 || !writer->dirty) {
        return rc;
    }
    rc = writer->fs->sync(writer->fs, writer->fd);
    if (rc < 0) {
        return bop_error_set(&writer->error, rc, "sync the log in %s", writer->dir);
    }
    writer->dirty = false;
    return 0;
}

/* ---- Upkeep ---- */

static uint64_t margin(const struct bop__writer *writer)
{
    return bop_min_u64(MARGIN_MAX, bop_max_u64(MARGIN_MIN, writer->written));
}

/* Up to where zeros are wanted. */
static uint64_t zeros_wanted(const struct bop__writer *writer)
{
    return bop_min_u64(writer->size, writer->used + margin(writer));
}

static bool wants_zeros(const struct bop__writer *writer)
{
    /* Only from half the margin down: rarely, and much at a time. */
    uint64_t enough = bop_min_u64(writer->size, writer->used + margin(writer) / 2);

    return writer->zeroed < enough;
}

static bool wants_next(const struct bop__writer *writer)
{
    return writer->next_fd < 0 && writer->used > writer->size / 2;
}

bool bop__writer_wants_upkeep(const struct bop__writer *writer)
{
    return writer->error.code == 0 &&
           (!bop_list_empty(&writer->removals) || wants_zeros(writer) || wants_next(writer));
}

/* Preparing met a full disk: the log goes on in the room it has. */
static int bear_no_room(struct bop__writer *writer, const struct bop_error *err)
{
    if (!writer->no_room) {
        bop_log(writer->log, BOP_LOG_WARN, "aof", "no room to prepare: %s", err->message);
    }
    writer->no_room = true;
    return 0;
}

static int add_zeros(struct bop__writer *writer)
{
    uint64_t from = writer->zeroed;
    uint64_t to = bop_min_u64(zeros_wanted(writer), from + STEP_BYTES);
    struct bop_error err = {0};
    int rc = bop__aof_write_zeros(writer->fs, writer->fd, from, to);

    if (rc < 0) {
        bop_error_set(&err, rc, "write zeros ahead of the log in %s", writer->dir);
        if (is_no_room(rc)) {
            return bear_no_room(writer, &err);
        }
        writer->error = err;
        return rc;
    }
    /* Whatever the reason, a failed sync of the log's own file is final. */
    rc = writer->fs->sync(writer->fs, writer->fd);
    if (rc < 0) {
        return bop_error_set(&writer->error, rc, "sync zeros ahead of the log in %s", writer->dir);
    }
    writer->zeroed = to;
    writer->no_room = false;
    return 0;
}

static int add_next(struct bop__writer *writer)
{
    struct bop_error err = {0};
    int rc = prepare_next(writer, &err);

    if (is_no_room(rc)) {
        return bear_no_room(writer, &err);
    }
    if (rc < 0) {
        writer->error = err;
        return rc;
    }
    writer->no_room = false;
    return 0;
}

/* What is removed is void: it may as well stay, or come back after a crash. */
static void remove_one(struct bop__writer *writer)
{
    struct bop_list *link = bop_list_pop_front(&writer->removals);
    const struct bop__segment *segment = BOP_CONTAINER_OF(link, struct bop__segment, link);
    char path[BOP__AOF_PATH_MAX];
    int rc = -ENAMETOOLONG;

    if (bop__segment_path(writer->dir, segment->base, segment->generation, path)) {
        rc = writer->fs->unlink(writer->fs, path);
    }
    if (rc < 0) {
        bop_log(writer->log, BOP_LOG_WARN, "aof",
                "a segment without use stays until the log is opened again file=%s code=%d", path,
                rc);
    }
    bop_list_push_back(&writer->removed, link);
}

int bop__writer_upkeep(struct bop__writer *writer, bool *out_more)
{
    int rc = writer->error.code;

    *out_more = false;
    if (rc < 0) {
        return rc;
    }
    if (!bop_list_empty(&writer->removals)) {
        remove_one(writer); /* First, as it may make room for the others. */
    } else if (wants_zeros(writer)) {
        rc = add_zeros(writer);
    } else if (wants_next(writer)) {
        rc = add_next(writer);
    }
    /* On a full disk the next commit tries again, not we in a circle. */
    *out_more = rc == 0 && bop__writer_wants_upkeep(writer) &&
                (!writer->no_room || !bop_list_empty(&writer->removals));
    return rc;
}
