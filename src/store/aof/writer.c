/*
 * Jobs: what is done to files beside the commits, as tasks of the executor. Each kind is under
 * way at most once; tasks run one after another, in the order submitted.
 *
 *      prepare   make next.tmp, with blocks and zeros, synced
 *      name      ... which got a header and maybe records, its name; close the file before it
 *      zero      write zeros, or reserve blocks, ahead of what is sent
 *      back      begin to bring to the disk what nobody asked to be there
 *      remove    unlink the file of a segment that left
 *      room      ask what the disk has left
 *      seal      write a segment's footer
 *      draft     take a commit into the footer to be (draft.c)
 *
 *      4096         sent_end              zeroed                      size
 *      +--------------+-----------------+---------------------------+
 *      | records      | zeros, written  | not there yet, or blocks  |
 *      +--------------+-----------------+---------------------------+
 *
 * A commit into written zeros changes neither the file's size nor its extents, which makes its
 * sync about twice as fast. So zeros are kept ahead of what is sent: as much as the log has written
 * since it was opened, within bounds, so that a small log stays small. Big commits, for which
 * blocks are as good as zeros, get blocks only, or zeros would cost as much as records do.
 *
 * Invariants:
 *
 *   (1) Zeros are only written where nothing was sent to; what is to be sent there waits.
 *   (2) A name *.seg is made only of a synced file with a valid header, after everything in the
 *       segment before was synced.
 *   (3) After a failure nothing is submitted that changes the segment it met.
 */
#include "internal.h"

#include <errno.h>
#include <inttypes.h>

#define MARGIN_MIN UINT64_C(0x40000)   /* 256 KiB. */
#define MARGIN_MAX UINT64_C(0x1000000) /* 16 MiB. */
/* What is zeroed at once, at least and at most: a commit there waits for it. */
#define STEP_MIN UINT64_C(0x40000)
#define STEP_MAX UINT64_C(0x200000)
/* The zeros in a first segment, which is made while somebody waits. */
#define FIRST_BYTES UINT64_C(0x10000)
/* Commits of this size on average need no zeros. */
#define BIG_COMMIT (192u * 1024)
/* What is read of a segment at once, while commits, names and drafts wait. */
#define SEAL_STEP UINT64_C(0x100000)
/* So many segments wait to be read for their sealing, at most, until no commit is under way. */
#define READS_LATER_MAX 8
/* What is not synced is written back in so many parts of a segment, unless they are small. */
#define WRITE_BACK_PARTS 8
#define WRITE_BACK_MIN   UINT64_C(0x100000)
/* Room is looked at each so many bytes, or a quarter of a segment. */
#define ROOM_BYTES UINT64_C(0x1000000)

static _Alignas(BOP_FS_ALIGN) const uint8_t zeros[256 * 1024];

static void handle_failure(struct bop_aof *aof, const struct bop__job *job);

bool bop__is_no_room(int code)
{
    return code == -ENOSPC || code == -EDQUOT;
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

/* ---- Handles ---- */

/* What was written is synced or given up: a late error of close tells nothing. */
static void close_files(struct bop_fs *fs, struct bop__handle *handle)
{
    for (unsigned i = 0; i < handle->count; i++) {
        BOP_IGNORE(fs->close(fs, handle->fds[i]));
    }
    handle->count = 0;
}

/* One that is not in use: there are enough for the segment being written, the one begun behind it
 * and the file made ready. */
static struct bop__handle *take_handle(struct bop_aof *aof)
{
    for (size_t i = 0; i < BOP_COUNT_OF(aof->handles); i++) {
        if (!aof->handles[i].used) {
            aof->handles[i] = (struct bop__handle){.used = true};
            return &aof->handles[i];
        }
    }
    BOP_ASSERT(!"a handle is free");
    return NULL;
}

void bop__handle_close(struct bop_aof *aof, struct bop__handle *handle)
{
    if (handle) {
        close_files(aof->fs, handle);
        handle->used = false;
    }
}

/* Open a file `count` times. The first call may make it. */
static int open_files(struct bop_fs *fs, const char *path, int flags, bool direct, unsigned count,
                      struct bop__handle *handle)
{
    handle->count = 0;
    handle->direct = direct;
    while (handle->count < count) {
        int fd = fs->open(fs, path, flags | (handle->direct ? O_DIRECT : 0));

        if (fd == -EINVAL && handle->direct && handle->count == 0) {
            /* The file system has no such thing. It may have made the file nevertheless. */
            handle->direct = false;
            flags &= ~O_EXCL;
            continue;
        }
        if (fd < 0) {
            close_files(fs, handle);
            return fd;
        }
        flags &= ~(O_CREAT | O_EXCL);
        handle->fds[handle->count++] = fd;
    }
    return 0;
}

/* The one that jobs use. */
static int job_fd(const struct bop__handle *handle)
{
    return handle->fds[handle->count - 1];
}

/* Commits that are run one after another, by tasks, can share one open file. */
static unsigned files_wanted(const struct bop_aof *aof)
{
    return aof->writes_max > 1 ? aof->writes_max + 1 : 1;
}

/* ---- Prepare ---- */

static int reserve_blocks(struct bop_fs *fs, struct bop__handle *handle, uint64_t to)
{
    int rc = fs->allocate(fs, job_fd(handle), to);

    if (rc == 0) {
        handle->allocated = to;
    }
    /* Not every file system can: then blocks come with what is written. */
    return rc == -EOPNOTSUPP || rc == -ENOSYS || rc == BOP_EUNSUPPORTED ? 0 : rc;
}

/* Make next.tmp. Returns a code; err says what was being done. stale: one may be there. */
static int prepare(struct bop_aof *aof, struct bop__handle *handle, uint64_t zeros_to,
                   uint64_t allocate_to, bool stale, struct bop_error *err)
{
    struct bop_fs *fs = aof->fs;
    char path[BOP__AOF_PATH_MAX];
    int rc;

    if (!bop__aof_path(aof->path, BOP__AOF_NEXT_NAME, path)) {
        return bop_error_set(err, -ENAMETOOLONG, "prepare a segment in %s", aof->path);
    }
    if (stale) {
        BOP_IGNORE(fs->unlink(fs, path)); /* If it stays, making it fails. */
    }
    rc = open_files(fs, path, O_RDWR | O_CREAT | O_EXCL, aof->direct, files_wanted(aof), handle);
    if (rc < 0) {
        return bop_error_set(err, rc, "create %s", path);
    }
    if (allocate_to > 0) {
        rc = reserve_blocks(fs, handle, allocate_to);
        if (rc < 0) {
            bop_error_set(err, rc, "reserve room for %s", path);
            goto fail;
        }
    }
    rc = bop__aof_write_zeros(fs, job_fd(handle), 0, zeros_to);
    if (rc < 0) {
        bop_error_set(err, rc, "write %s", path);
        goto fail;
    }
    rc = fs->sync(fs, job_fd(handle));
    if (rc < 0) {
        bop_error_set(err, rc, "sync %s", path);
        goto fail;
    }
    handle->zeroed = zeros_to;
    handle->allocated = bop_max_u64(handle->allocated, zeros_to);
    return 0;

fail:
    close_files(fs, handle);
    /* Best effort: opening the log removes it. */
    BOP_IGNORE(fs->unlink(fs, path));
    return rc;
}

static void prepare_run(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);
    struct bop_aof *aof = job->aof;

    job->code = prepare(aof, aof->jobs.prepare.handle, aof->jobs.prepare.zeros,
                        aof->jobs.prepare.allocate, aof->jobs.prepare.stale, &job->err);
}

static uint64_t margin(const struct bop_aof *aof)
{
    return bop_min_u64(MARGIN_MAX, bop_max_u64(MARGIN_MIN, aof->sent_bytes));
}

static bool wants_zeros(const struct bop_aof *aof)
{
    return aof->commit_bytes > 0 && aof->commit_bytes < BIG_COMMIT;
}

/* A log that has filled segments will fill the next one: it gets all its blocks at once. */
static bool is_busy(const struct bop_aof *aof)
{
    return aof->sent_bytes >= aof->options.segment_bytes / 2;
}

/* The zeros that a file gets before it becomes a segment. */
static uint64_t first_zeros(const struct bop_aof *aof)
{
    uint64_t wanted = wants_zeros(aof) ? bop_min_u64(STEP_MAX, aof->sent_bytes) : 0;
    uint64_t bytes = bop_min_u64(aof->options.segment_bytes, bop_max_u64(wanted, FIRST_BYTES));

    return bytes / BOP_FS_ALIGN * BOP_FS_ALIGN;
}

void bop__job_start(struct bop_aof *aof, struct bop__job *job)
{
    job->busy = true;
    job->code = 0;
    aof->jobs.busy++;
    bop_executor_submit(aof->executor, &job->task);
}

struct bop__job *bop__job_finished(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);

    job->busy = false;
    job->aof->jobs.busy--;
    return job;
}

static void prepare_done(struct bop_task *task)
{
    struct bop__job *job = bop__job_finished(task);
    struct bop_aof *aof = job->aof;
    struct bop__handle *handle = aof->jobs.prepare.handle;

    aof->jobs.prepare.handle = NULL;
    if (job->code == 0) {
        aof->next = handle;
        aof->stale_next = false;
    } else {
        bop__handle_close(aof, handle);
        handle_failure(aof, job);
    }
    bop__after(aof);
}

/* The next file can be made ready. */
static bool may_prepare(const struct bop_aof *aof)
{
    return !aof->next && !aof->jobs.prepare.job.busy && !aof->beginning && !aof->no_room &&
           aof->poison == 0;
}

/* A segment waits for its file. */
static bool needs_next(const struct bop_aof *aof)
{
    return may_prepare(aof) && bop__aof_newest(aof)->state == BOP__SEGMENT_PLANNED;
}

/* ... or soon will. */
static bool wants_next(const struct bop_aof *aof)
{
    const struct bop__segment *writing = aof->writing;

    if (!may_prepare(aof)) {
        return false;
    }
    return is_busy(aof) && (writing->sent_end > writing->size / 2 ||
                            aof->sent_bytes > aof->options.segment_bytes * 2);
}

static void start_prepare(struct bop_aof *aof)
{
    aof->jobs.prepare.handle = take_handle(aof);
    aof->jobs.prepare.zeros = first_zeros(aof);
    aof->jobs.prepare.allocate = is_busy(aof) && aof->commit_bytes > 0 ? aof->options.segment_bytes
                                                                       : 0;
    aof->jobs.prepare.stale = aof->stale_next;
    bop__job_start(aof, &aof->jobs.prepare.job);
}

static void start_prepare_ahead(struct bop_aof *aof)
{
    if (wants_next(aof)) {
        start_prepare(aof);
    }
}

/* ---- Name ---- */

static int name(struct bop_aof *aof, const struct bop__segment *segment, int sync_fd,
                struct bop_error *err)
{
    struct bop_fs *fs = aof->fs;
    char from[BOP__AOF_PATH_MAX], path[BOP__AOF_PATH_MAX];
    int rc;

    if (!bop__aof_path(aof->path, BOP__AOF_NEXT_NAME, from) ||
        !bop__segment_path(aof->path, segment->base, segment->generation, path)) {
        return bop_error_set(err, -ENAMETOOLONG, "begin a segment in %s", aof->path);
    }
    if (sync_fd >= 0) {
        rc = fs->sync(fs, sync_fd);
        if (rc < 0) {
            return bop_error_set(err, rc, "sync the log in %s", aof->path);
        }
    }
    rc = fs->rename(fs, from, path);
    if (rc < 0) {
        return bop_error_set(err, rc, "rename %s to %s", from, path);
    }
    rc = fs->sync_dir(fs, aof->path);
    if (rc < 0) {
        return bop_error_set(err, rc, "sync directory %s", aof->path);
    }
    return 0;
}

static void name_run(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);
    struct bop_aof *aof = job->aof;

    job->code = name(aof, aof->jobs.name.segment, aof->jobs.name.sync_fd, &job->err);
    if (job->code == 0 && aof->jobs.name.retire) {
        close_files(aof->fs, aof->jobs.name.retire);
    }
}

void bop__job_name(struct bop_aof *aof)
{
    struct bop__segment *before = aof->writing;

    BOP_ASSERT(aof->beginning && aof->header_done);
    aof->jobs.name.segment = aof->beginning;
    aof->jobs.name.retire = before ? before->handle : NULL;
    /* Also if all in it is void by now: what makes it so may not be on disk. */
    aof->jobs.name.sync_fd = before && before->handle && before->unsynced ? job_fd(before->handle)
                                                                          : -1;
    bop__job_start(aof, &aof->jobs.name.job);
}

/* A segment is on disk, and so all before it: what it makes void may go. */
static void named(struct bop_aof *aof, struct bop__segment *segment)
{
    struct bop__segment *before = aof->writing;
    struct bop__batch *batch = BOP_CONTAINER_OF(aof->queue.next, struct bop__batch, link);
    struct bop_list *link;

    BOP_ASSERT(batch->begins && batch->segment == segment);
    segment->state = BOP__SEGMENT_NAMED;
    aof->beginning = NULL;
    aof->writing = segment;
    if (before) {
        bop__handle_close(aof, before->handle);
        before->handle = NULL;
        /* A footer takes the place of fillers. */
        before->end = before->records_end;
        before->file_end = bop_min_u64(before->file_end, before->end);
        bop__aof_catalogue_end(&aof->catalogue, before->file, before->end_seq, before->records_end);
    }
    bop__aof_catalogue_add(&aof->catalogue, segment->file);
    while ((link = bop_list_pop_front(&batch->removals)) != NULL) {
        struct bop__segment *gone = BOP_CONTAINER_OF(link, struct bop__segment, link);

        bop__aof_catalogue_drop(&aof->catalogue, gone->file);
        bop_list_push_back(&aof->removals, link);
    }
    if (before && !before->left) {
        bop__seal_later(aof, before);
    }
    bop_log(aof->options.log, BOP_LOG_DEBUG, "aof",
            "segment begun dir=%s base=%" PRIu64 " generation=%" PRIu64 " front=%" PRIu64,
            aof->path, segment->base, segment->generation, segment->front);
}

static void name_done(struct bop_task *task)
{
    struct bop__job *job = bop__job_finished(task);
    struct bop_aof *aof = job->aof;

    if (job->code < 0) {
        handle_failure(aof, job);
    } else {
        bop__made_durable(aof);
        named(aof, aof->jobs.name.segment);
    }
    bop__after(aof);
}

/* ---- Zeros and blocks ahead ---- */

static void zero_run(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);
    struct bop_aof *aof = job->aof;
    struct bop__handle *handle = aof->jobs.zero.segment->handle;
    struct bop_fs *fs = aof->fs;

    if (aof->jobs.zero.allocate) {
        job->code = reserve_blocks(fs, handle, aof->jobs.zero.to);
        if (job->code < 0) {
            bop_error_set(&job->err, job->code, "reserve room for the log in %s", aof->path);
        }
        return;
    }
    job->code = bop__aof_write_zeros(fs, job_fd(handle), aof->jobs.zero.from, aof->jobs.zero.to);
    if (job->code < 0) {
        bop_error_set(&job->err, job->code, "write zeros ahead of the log in %s", aof->path);
        return;
    }
    /* Whatever the reason, a failed sync of the log's own file is final for it. */
    job->code = fs->sync(fs, job_fd(handle));
    if (job->code < 0) {
        bop_error_set(&job->err, job->code, "sync zeros ahead of the log in %s", aof->path);
        job->code = bop__is_no_room(job->code) ? -EIO : job->code;
    }
}

static void zero_done(struct bop_task *task)
{
    struct bop__job *job = bop__job_finished(task);
    struct bop_aof *aof = job->aof;
    struct bop__handle *handle = aof->jobs.zero.segment->handle;

    if (job->code < 0) {
        handle_failure(aof, job);
    } else if (aof->jobs.zero.allocate) {
        /* Also where the file system cannot: it need not be asked again. */
        handle->allocated = aof->jobs.zero.to;
    } else {
        handle->zeroed = bop_max_u64(handle->zeroed, aof->jobs.zero.to);
        handle->allocated = bop_max_u64(handle->allocated, handle->zeroed);
    }
    bop__after(aof);
}

/* Zeros ahead of what is sent, unless they could not keep up with it. */
static bool plan_zeros(struct bop_aof *aof, struct bop__segment *segment)
{
    struct bop__handle *handle = segment->handle;
    uint64_t ahead = margin(aof);
    uint64_t step = bop_min_u64(STEP_MAX, bop_max_u64(STEP_MIN, ahead / 8));
    uint64_t wanted = bop_min_u64(segment->size, segment->sent_end + ahead);

    /* Only from half the margin down: rarely, and much at a time. */
    if (handle->zeroed >= bop_min_u64(segment->size, segment->sent_end + ahead / 2)) {
        return false;
    }
    if (handle->zeroed <= segment->sent_end && ahead > MARGIN_MIN) {
        /* Records have caught up: leave them a stretch, so that they do not wait here. */
        handle->zeroed = bop_min_u64(segment->size, segment->sent_end + ahead / 4);
        if (segment->aligned) {
            handle->zeroed = handle->zeroed / BOP_FS_ALIGN * BOP_FS_ALIGN;
        }
    }
    aof->jobs.zero.from = bop_max_u64(handle->zeroed, segment->sent_end);
    aof->jobs.zero.to = bop_min_u64(wanted, aof->jobs.zero.from + step) / BOP_FS_ALIGN *
                        BOP_FS_ALIGN;
    aof->jobs.zero.allocate = false;
    return aof->jobs.zero.from < aof->jobs.zero.to;
}

/* Blocks for what big commits will write: more each time, as the whole file is looked at. */
static bool plan_blocks(struct bop_aof *aof, struct bop__segment *segment)
{
    struct bop__handle *handle = segment->handle;
    uint64_t ahead = bop_max_u64(margin(aof), segment->sent_end);

    if (aof->commit_bytes == 0 ||
        handle->allocated >= bop_min_u64(segment->size, segment->sent_end + margin(aof) / 2)) {
        return false; /* Nobody asks for the disk, or there is enough. */
    }
    aof->jobs.zero.to = bop_min_u64(segment->size, segment->sent_end + ahead);
    aof->jobs.zero.from = aof->jobs.zero.to;
    aof->jobs.zero.allocate = true;
    return true;
}

static void start_zero(struct bop_aof *aof)
{
    struct bop__segment *segment = aof->writing;

    if (aof->jobs.zero.job.busy || aof->beginning || aof->no_room || aof->poison != 0 ||
        !segment->handle || aof->sent_bytes == 0) {
        return;
    }
    aof->jobs.zero.segment = segment;
    if (wants_zeros(aof) ? plan_zeros(aof, segment) : plan_blocks(aof, segment)) {
        bop__job_start(aof, &aof->jobs.zero.job);
    }
}

/* ---- Writing back ---- */

static void write_back_run(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);
    struct bop_aof *aof = job->aof;

    aof->fs->write_back(aof->fs, aof->jobs.write_back.fd, aof->jobs.write_back.from,
                        aof->jobs.write_back.to);
}

static void write_back_done(struct bop_task *task)
{
    bop__after(bop__job_finished(task)->aof);
}

/* The next segment gets its name when all of this one is on disk, and a log that asks for less
 * stands still for that long: so most of it is on its way there before. */
static void start_write_back(struct bop_aof *aof)
{
    struct bop__segment *segment = aof->writing;
    struct bop__handle *handle = segment->handle;
    uint64_t step = bop_max_u64(WRITE_BACK_MIN, segment->size / WRITE_BACK_PARTS);
    uint64_t to = segment->file_end / BOP_FS_ALIGN * BOP_FS_ALIGN; /* The last one is not full. */

    if (!aof->fs->write_back || aof->jobs.write_back.job.busy || aof->beginning ||
        aof->poison != 0 || !handle || handle->direct || !segment->unsynced ||
        to < handle->written_back + step) {
        return;
    }
    aof->jobs.write_back.fd = job_fd(handle);
    aof->jobs.write_back.from = handle->written_back;
    aof->jobs.write_back.to = to;
    handle->written_back = to;
    bop__job_start(aof, &aof->jobs.write_back.job);
}

/* ---- Remove ---- */

static void remove_run(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);
    struct bop_aof *aof = job->aof;

    job->code = aof->fs->unlink(aof->fs, aof->jobs.remove.segment->file->path);
}

/* What is removed is void: it may as well stay, or come back after a crash. */
static void remove_done(struct bop_task *task)
{
    struct bop__job *job = bop__job_finished(task);
    struct bop_aof *aof = job->aof;
    struct bop__segment *segment = aof->jobs.remove.segment;

    if (job->code < 0 && job->code != -ENOENT) {
        bop_log(aof->options.log, BOP_LOG_WARN, "aof",
                "a segment without use stays until the log is opened again file=%s code=%d",
                segment->file->path, job->code);
    }
    bop__segment_free(aof, segment);
    aof->room_wanted |= aof->no_room;
    bop__after(aof);
}

static void start_remove(struct bop_aof *aof)
{
    struct bop_list *link;

    if (aof->jobs.remove.job.busy) {
        return;
    }
    link = bop_list_pop_front(&aof->removals);
    if (link) {
        aof->jobs.remove.segment = BOP_CONTAINER_OF(link, struct bop__segment, link);
        bop__job_start(aof, &aof->jobs.remove.job);
    }
}

/* ---- Room ---- */

static void room_run(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);
    struct bop_aof *aof = job->aof;

    job->code = aof->fs->free_bytes(aof->fs, aof->path, &aof->jobs.room.bytes);
}

static void room_done(struct bop_task *task)
{
    struct bop__job *job = bop__job_finished(task);
    struct bop_aof *aof = job->aof;
    /* One that cannot say how much it has is not held against the log. */
    bool room = job->code < 0 || aof->jobs.room.bytes >= aof->options.room_min;

    if (room != !aof->no_room) {
        bop_log(aof->options.log, room ? BOP_LOG_INFO : BOP_LOG_WARN, "aof",
                room ? "there is room on the disk again dir=%s free=%" PRIu64
                     : "appends are refused: the disk is nearly full dir=%s free=%" PRIu64,
                aof->path, aof->jobs.room.bytes);
    }
    aof->no_room = !room;
    aof->stuck = aof->stuck && !room;
    bop__after(aof);
}

static void start_room(struct bop_aof *aof)
{
    uint64_t each = bop_min_u64(ROOM_BYTES, aof->options.segment_bytes / 4);

    if (aof->jobs.room.job.busy ||
        (!aof->room_wanted && aof->sent_bytes - aof->room_checked < each)) {
        return;
    }
    aof->room_wanted = false;
    aof->room_checked = aof->sent_bytes;
    bop__job_start(aof, &aof->jobs.room.job);
}

/* ---- Seal ---- */

static void end_reading(struct bop_aof *aof)
{
    if (aof->jobs.seal.reading) {
        bop__footer_read_end(aof->jobs.seal.reading);
        aof->jobs.seal.reading = NULL;
    }
    if (aof->jobs.seal.source) {
        aof->jobs.seal.source->close(aof->jobs.seal.source);
        aof->jobs.seal.source = NULL;
    }
}

/* Make the footer from the file's bytes, a step of it. 1: another one is to follow. */
static int read_footer(struct bop_aof *aof, const char *path, struct bop__footer *out_footer,
                       struct bop_error *err)
{
    const struct bop__segment_facts *facts = &aof->jobs.seal.facts;
    int rc = 0;

    if (!aof->jobs.seal.reading) {
        rc = bop__file_source_open(aof->allocator, aof->fs, path, false, true,
                                   &aof->jobs.seal.source, err);
        if (rc == 0) {
            aof->jobs.seal.source->size = facts->end;
            rc = bop__footer_read_begin(aof->allocator, aof->jobs.seal.source, facts,
                                        &aof->jobs.seal.reading, err);
        }
    }
    if (rc == 0) {
        rc = bop__footer_read_step(aof->jobs.seal.reading, SEAL_STEP, err);
    }
    if (rc == 1) {
        return 1;
    }
    if (rc == 0) {
        rc = bop__footer_read_finish(aof->jobs.seal.reading, out_footer, err);
    }
    end_reading(aof);
    return rc;
}

static void seal_run(struct bop_task *task)
{
    struct bop__job *job = BOP_CONTAINER_OF(task, struct bop__job, task);
    struct bop_aof *aof = job->aof;
    const char *path = aof->jobs.seal.segment->file->path;
    struct bop__footer footer = {.facts = aof->jobs.seal.facts};

    job->code = BOP_EMISMATCH;
    if (aof->jobs.seal.draft && !aof->jobs.seal.reading) {
        job->code = bop__footer_draft_finish(aof->jobs.seal.draft, &footer);
    }
    if (job->code < 0) {
        job->code = read_footer(aof, path, &footer, &job->err);
    }
    if (job->code != 0) {
        return;
    }
    job->code = bop__footer_seal(aof->fs, path, &footer, &job->err);
    aof->jobs.seal.facts = footer.facts;
    bop__footer_deinit(&footer);
}

static void seal_done(struct bop_task *task)
{
    struct bop__job *job = bop__job_finished(task);
    struct bop_aof *aof = job->aof;
    struct bop__segment *segment = aof->jobs.seal.segment;

    if (job->code == 1) {
        /* Behind what others have submitted meanwhile. */
        bop__job_start(aof, job);
        bop__after(aof);
        return;
    }
    aof->sealing--;
    aof->jobs.seal.segment = NULL;
    bop__footer_draft_unref(aof->jobs.seal.draft);
    aof->jobs.seal.draft = NULL;
    if (job->code < 0) {
        bop_log(aof->options.log, BOP_LOG_WARN, "aof",
                "a segment stays without a footer until the log is opened again file=%s: %s",
                segment->file->path, job->err.message);
    } else {
        bop__aof_catalogue_sealed(&aof->catalogue, segment->file, &aof->jobs.seal.facts, true);
        bop_metric_add(aof->metrics.sealed, 1);
        if (!segment->left && segment->end_seq == aof->jobs.seal.facts.end_seq) {
            segment->sealed = true;
            bop__archived_tell(aof);
        } else if (!segment->left) {
            bop__seal_later(aof, segment); /* It was cut meanwhile. */
        }
    }
    bop__after(aof);
}

void bop__seal_later(struct bop_aof *aof, struct bop__segment *segment)
{
    if (segment->end_seq > segment->base && !segment->sealed &&
        bop_list_empty(&segment->seal_link) && !aof->options.no_footers) {
        bop_list_push_back(&aof->to_seal, &segment->seal_link);
    }
}

void bop__seal_again(struct bop_aof *aof, struct bop__segment *segment)
{
    /* The newest is sealed when another one is named; what is being sealed, when that is done. */
    if (segment->state == BOP__SEGMENT_NAMED && segment != aof->writing &&
        segment != aof->jobs.seal.segment) {
        bop__seal_later(aof, segment);
    }
}

/* Its footer is drafted: sealing it reads nothing. */
static bool is_drafted(const struct bop__segment *segment)
{
    return segment->draft && !bop__footer_draft_is_shared(segment->draft);
}

/* What would be read as a whole stands back while commits are under way, unless there is much. */
static bool reads_now(const struct bop_aof *aof)
{
    size_t count = 0;

    BOP_LIST_FOR_EACH(link, &aof->to_seal) {
        count += !BOP_CONTAINER_OF(link, struct bop__segment, seal_link)->draft;
    }
    return aof->writes == 0 || count > READS_LATER_MAX;
}

/* The first one that may be sealed now: its file must not lose records that are not void yet. */
static struct bop__segment *next_to_seal(struct bop_aof *aof)
{
    bool reads = reads_now(aof);

    BOP_LIST_FOR_EACH(link, &aof->to_seal) {
        struct bop__segment *segment = BOP_CONTAINER_OF(link, struct bop__segment, seal_link);

        if (segment->cut_by <= aof->writing->generation &&
            (is_drafted(segment) || (reads && !segment->draft))) {
            bop_list_remove(link);
            return segment;
        }
    }
    return NULL;
}

static void start_seal(struct bop_aof *aof)
{
    struct bop__segment *segment;
    struct bop__segment_facts *facts = &aof->jobs.seal.facts;

    if (aof->jobs.seal.job.busy || aof->failed != 0) {
        return;
    }
    segment = next_to_seal(aof);
    if (!segment) {
        return;
    }
    *facts = (struct bop__segment_facts){
        .base = segment->base,
        .end_seq = segment->end_seq,
        .generation = segment->generation,
        .epoch = segment->header.epoch,
        .seed = segment->seed,
        .end = segment->records_end,
    };
    memcpy(facts->log_id, aof->id, sizeof(facts->log_id));
    aof->jobs.seal.segment = segment;
    aof->jobs.seal.draft = segment->draft;
    segment->draft = NULL;
    aof->sealing++;
    bop__job_start(aof, &aof->jobs.seal.job);
}

/* ---- All ---- */

/* Preparing met a full disk: the log goes on in the room it has. Anything else is final. */
static void handle_failure(struct bop_aof *aof, const struct bop__job *job)
{
    if (!bop__is_no_room(job->code)) {
        bop__poison(aof, job->code, &job->err);
        return;
    }
    if (!aof->no_room) {
        bop_log(aof->options.log, BOP_LOG_WARN, "aof", "appends are refused: %s", job->err.message);
    }
    aof->no_room = true;
}

/* Where commits are tasks too, they would have to wait for several jobs. */
static bool is_enough(const struct bop_aof *aof)
{
    return aof->writes_max == 1 && aof->jobs.busy > 0;
}

void bop__jobs_start(struct bop_aof *aof)
{
    /* What commits need first, then what may make room for others. */
    static void (*const starts[])(struct bop_aof *) = {
        start_remove,     start_room,       start_prepare_ahead, start_zero,
        start_write_back, bop__draft_start, start_seal};

    if (needs_next(aof)) {
        start_prepare(aof);
    }
    for (size_t i = 0; i < BOP_COUNT_OF(starts) && !is_enough(aof); i++) {
        starts[i](aof);
    }
}

void bop__job_init(struct bop_aof *aof, struct bop__job *job, void (*run)(struct bop_task *),
                   void (*done)(struct bop_task *))
{
    bop_list_init(&job->task.link);
    job->task.run = run;
    job->task.done = done;
    job->aof = aof;
}

void bop__jobs_init(struct bop_aof *aof)
{
    bop__job_init(aof, &aof->jobs.prepare.job, prepare_run, prepare_done);
    bop__job_init(aof, &aof->jobs.name.job, name_run, name_done);
    bop__job_init(aof, &aof->jobs.zero.job, zero_run, zero_done);
    bop__job_init(aof, &aof->jobs.write_back.job, write_back_run, write_back_done);
    bop__job_init(aof, &aof->jobs.remove.job, remove_run, remove_done);
    bop__job_init(aof, &aof->jobs.room.job, room_run, room_done);
    bop__job_init(aof, &aof->jobs.seal.job, seal_run, seal_done);
    bop__draft_init(aof);
}

/* ---- At open ---- */

/* Write the header, and records, into next.tmp, through the page cache. */
static int fill_next(struct bop_aof *aof, const struct bop__segment *segment,
                     int (*fill)(void *user, int fd, struct bop_error *err), void *user,
                     struct bop_error *err)
{
    struct bop_fs *fs = aof->fs;
    char path[BOP__AOF_PATH_MAX];
    int fd, rc;

    BOP_ASSERT(bop__aof_path(aof->path, BOP__AOF_NEXT_NAME, path)); /* It was made. */
    fd = fs->open(fs, path, O_RDWR);
    if (fd < 0) {
        return bop_error_set(err, fd, "open %s", path);
    }
    bop__aof_segment_header_encode(&segment->header, aof->header_block);
    rc = bop_fs_write_all(fs, fd, aof->header_block, BOP__AOF_SEGMENT_HEADER, 0);
    if (rc < 0) {
        bop_error_set(err, rc, "write the header of %s", path);
    } else if (fill) {
        rc = fill(user, fd, err);
    }
    if (rc == 0) {
        rc = fs->sync(fs, fd);
        if (rc < 0) {
            bop_error_set(err, rc, "sync %s", path);
        }
    }
    BOP_IGNORE(fs->close(fs, fd)); /* Synced, or given up. */
    return rc;
}

int bop__begin_now(struct bop_aof *aof, struct bop__segment *segment,
                   int (*fill)(void *user, int fd, struct bop_error *err), void *user,
                   struct bop_error *err)
{
    struct bop__handle *handle = take_handle(aof);
    int rc = prepare(aof, handle, first_zeros(aof), 0, false, err);

    if (rc == 0) {
        rc = fill_next(aof, segment, fill, user, err);
    }
    if (rc == 0) {
        rc = name(aof, segment, -1, err);
    }
    if (rc < 0) {
        bop__handle_close(aof, handle);
        return rc;
    }
    if (aof->writing) {
        bop__handle_close(aof, aof->writing->handle);
        aof->writing->handle = NULL;
    }
    handle->zeroed = bop_max_u64(handle->zeroed, segment->end);
    segment->handle = handle;
    segment->state = BOP__SEGMENT_NAMED;
    segment->sent_end = segment->end;
    aof->writing = segment;
    return 0;
}

int bop__continue_now(struct bop_aof *aof, struct bop__segment *segment, uint64_t zeroed,
                      struct bop_error *err)
{
    struct bop__handle *handle = take_handle(aof);
    int rc = open_files(aof->fs, segment->file->path, O_RDWR, aof->direct, files_wanted(aof),
                        handle);
    if (rc < 0) {
        bop__handle_close(aof, handle);
        return bop_error_set(err, rc, "open %s", segment->file->path);
    }
    handle->zeroed = handle->allocated = bop_max_u64(segment->end, zeroed);
    handle->written_back = segment->end;
    segment->handle = handle;
    segment->state = BOP__SEGMENT_NAMED;
    segment->sent_end = segment->end;
    aof->writing = segment;
    return 0;
}
