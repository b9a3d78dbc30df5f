/*
 * Cutting backups and reading them. The files are backups/<id as %016x>.snap; what an
 * earlier run left there is removed at start, for nobody knows its ids any more.
 */
#include "replica_internal.h"

#include <fcntl.h>
#include <stdio.h>

/* ---- Places ---- */

static int backup_path(const struct replica *replica, const struct replica_backup *backup,
                       char *out_path)
{
    return bop__replica_path(replica, out_path, "backups/%016" PRIx64 ".snap", backup->id);
}

static struct replica_backup *find(struct replica *replica, uint64_t id)
{
    for (size_t n = 0; id != 0 && n < BACKUPS_MAX; n++) {
        if (replica->backups[n].id == id && !replica->backups[n].dropped) {
            return &replica->backups[n];
        }
    }
    return NULL;
}

/* Forget one and remove its file; of one that is being cut, as soon as it is. */
static void drop(struct replica_backup *backup)
{
    struct replica *replica = backup->replica;
    char path[PATH_MAX_BYTES];

    if (backup->cutting) {
        backup->dropped = true;
        return;
    }
    if (backup->fd >= 0) {
        /* It was open for reading only. */
        BOP_IGNORE(replica->fs->close(replica->fs, backup->fd));
    }
    if (backup_path(replica, backup, path) == 0) {
        /* Best effort: the next start removes what is left. */
        BOP_IGNORE(replica->fs->unlink(replica->fs, path));
    }
    bop_buf_deinit(&backup->conf);
    *backup = (struct replica_backup){.fd = -1};
}

/* A free place, or that of the one nobody has asked for the longest. NULL: all are in use. */
static struct replica_backup *find_place(struct replica *replica)
{
    struct replica_backup *oldest = NULL;

    for (size_t n = 0; n < BACKUPS_MAX; n++) {
        struct replica_backup *backup = &replica->backups[n];

        if (backup->id == 0) {
            return backup;
        }
        if (!backup->cutting && replica->now_ms - backup->used_ms >= BACKUP_IDLE_MS &&
            (!oldest || backup->used_ms < oldest->used_ms)) {
            oldest = backup;
        }
    }
    if (oldest) {
        drop(oldest);
    }
    return oldest;
}

/* ---- Cutting ---- */

static void cut_run(struct bop_task *task)
{
    struct replica_backup *backup = BOP_CONTAINER_OF(task, struct replica_backup, task);
    struct replica *replica = backup->replica;
    char path[PATH_MAX_BYTES], directory[PATH_MAX_BYTES];

    backup->rc = bop__replica_path(replica, directory, "backups");
    if (backup->rc == 0) {
        backup->rc = bop_fs_mkdirs(replica->fs, directory);
    }
    if (backup->rc == 0) {
        backup->rc = backup_path(replica, backup, path);
    }
    if (backup->rc < 0) {
        bop_error_set(&backup->error, backup->rc, "make %s/backups", replica->options.path);
        return;
    }
    backup->rc = bop__snapshot_write(replica->options.allocator, &replica->writing.fs, path,
                                     backup->view, bop_buf_slice(&backup->conf), &backup->info,
                                     &backup->error);
    if (backup->rc == 0) {
        backup->fd = replica->fs->open(replica->fs, path, O_RDONLY);
        if (backup->fd < 0) {
            backup->rc = bop_error_set(&backup->error, backup->fd, "open %s", path);
        }
    }
}

static void cut_done(struct bop_task *task)
{
    struct replica_backup *backup = BOP_CONTAINER_OF(task, struct replica_backup, task);
    struct replica *replica = backup->replica;

    bop__machine_view_close(backup->view);
    backup->view = NULL;
    backup->cutting = false;
    backup->used_ms = bop_clock_monotonic_ms(replica->options.clock);
    if (backup->rc < 0) {
        bop_log(replica->options.log, BOP_LOG_WARN, "backup", "not cut: %s", backup->error.message);
    } else {
        bop_log(replica->options.log, BOP_LOG_INFO, "backup",
                "cut index=%" PRIu64 " bytes=%" PRIu64 " entries=%" PRIu64, backup->info.raft.index,
                backup->info.bytes, backup->info.entries);
    }
    if (backup->dropped) {
        drop(backup);
    }
}

static uint64_t draw_id(void)
{
    uint64_t id;

    return bop_random_secret(&id, sizeof(id)) < 0 ? 0 : id;
}

static uint8_t cut(struct replica *replica, struct replica_backup **out_backup)
{
    struct replica_backup *backup;
    struct bop_slice conf;
    uint64_t id = draw_id();

    if (!replica->machine || replica->install.phase >= INSTALL_WAITING || id == 0) {
        return BOP_BACKUP_NOT_NOW;
    }
    backup = find_place(replica);
    if (!backup) {
        return BOP_BACKUP_BUSY;
    }
    *backup = (struct replica_backup){.replica = replica, .fd = -1, .used_ms = replica->now_ms};
    bop_buf_init(&backup->conf, replica->allocator, 0);
    if (bop__replica_view_open(replica, &backup->view) < 0) {
        return BOP_BACKUP_NOT_NOW;
    }
    conf = bop__machine_configuration(replica->machine);
    if (bop_buf_append(&backup->conf, conf.data, conf.size) < 0) {
        bop__machine_view_close(backup->view);
        return BOP_BACKUP_NOT_NOW;
    }
    backup->id = id;
    backup->cutting = true;
    backup->task = (struct bop_task){.run = cut_run, .done = cut_done};
    bop_executor_submit(replica->options.work_executor, &backup->task);
    *out_backup = backup;
    return BOP_BACKUP_CUTTING;
}

/* ---- Requests ---- */

static void tell(const struct replica_backup *backup, struct bop_backup_response *out)
{
    out->backup = backup->id;
    if (backup->cutting) {
        out->code = BOP_BACKUP_CUTTING;
    } else if (backup->rc < 0) {
        out->code = BOP_BACKUP_FAILED;
        out->text = bop_slice_cstr(backup->error.message);
    } else {
        out->code = BOP_BACKUP_OK;
        out->bytes = backup->info.bytes;
        out->index = backup->info.raft.index;
        out->term = backup->info.raft.term;
    }
}

void bop__replica_backup(struct replica *replica, const struct bop_backup_request *in,
                         struct bop_backup_response *out)
{
    struct replica_backup *backup = find(replica, in->backup);

    *out = (struct bop_backup_response){
        .code = BOP_BACKUP_UNKNOWN, .node = replica->options.id, .backup = in->backup};
    if (in->action == BOP_BACKUP_CUT || in->action == BOP_BACKUP_CUT_STALE) {
        backup = NULL;
        out->code = cut(replica, &backup);
    }
    if (backup) {
        backup->used_ms = replica->now_ms;
        tell(backup, out);
        if (in->action == BOP_BACKUP_DROP) {
            out->code = BOP_BACKUP_OK;
            out->text = bop_slice(NULL, 0);
            drop(backup);
        }
    }
    if (out->text.size == 0) {
        out->text = bop_slice_cstr(bop_backup_code_text(out->code));
    }
}

static uint8_t read_piece(struct replica *replica, struct replica_backup *backup,
                          const struct bop_backup_read_request *in,
                          struct bop_backup_read_response *out)
{
    size_t size;

    if (backup->cutting) {
        return BOP_BACKUP_CUTTING;
    }
    if (backup->rc < 0) {
        return BOP_BACKUP_FAILED;
    }
    if (in->offset > backup->info.bytes) {
        return BOP_BACKUP_BAD_REQUEST;
    }
    size = (size_t)bop_min_u64(bop_min_u64(in->size, BOP_BACKUP_PIECE_MAX),
                               backup->info.bytes - in->offset);
    out->wait_ms = bop__replica_send_wait_ms(replica);
    if (out->wait_ms > 0) {
        return BOP_BACKUP_LATER;
    }
    bop_buf_clear(&replica->scratch);
    if (bop_buf_reserve(&replica->scratch, size) < 0 ||
        bop_fs_read_exact(replica->fs, backup->fd, replica->scratch.data, size, in->offset) < 0) {
        return BOP_BACKUP_FAILED;
    }
    bop__replica_send_count(replica, size);
    out->bytes = bop_slice(replica->scratch.data, size);
    return BOP_BACKUP_OK;
}

void bop__replica_backup_read(struct replica *replica, const struct bop_backup_read_request *in,
                              struct bop_backup_read_response *out)
{
    struct replica_backup *backup = find(replica, in->backup);

    *out = (struct bop_backup_read_response){.code = BOP_BACKUP_UNKNOWN, .offset = in->offset};
    if (backup) {
        replica->now_ms = bop_clock_monotonic_ms(replica->options.clock);
        backup->used_ms = replica->now_ms;
        out->code = read_piece(replica, backup, in, out);
    }
}

/* ---- With the replica ---- */

static int left_visit(void *user, const char *name)
{
    struct replica *replica = user;
    char path[PATH_MAX_BYTES];

    if (bop__replica_path(replica, path, "backups/%s", name) == 0) {
        /* Best effort: it is in nobody's way. */
        BOP_IGNORE(replica->fs->unlink(replica->fs, path));
    }
    return 0;
}

void bop__replica_backups_open(struct replica *replica)
{
    char directory[PATH_MAX_BYTES];

    for (size_t n = 0; n < BACKUPS_MAX; n++) {
        replica->backups[n] = (struct replica_backup){.fd = -1};
    }
    if (bop__replica_path(replica, directory, "backups") == 0) {
        /* Mostly there is no such directory. */
        BOP_IGNORE(replica->fs->list(replica->fs, directory, left_visit, replica));
    }
}

void bop__replica_backups_turn(struct replica *replica)
{
    for (size_t n = 0; n < BACKUPS_MAX; n++) {
        struct replica_backup *backup = &replica->backups[n];

        if (backup->id != 0 && !backup->cutting && replica->now_ms > backup->used_ms &&
            replica->now_ms - backup->used_ms >= BOP_BACKUP_KEEP_MS) {
            drop(backup);
        }
    }
}

bool bop__replica_backups_cutting(const struct replica *replica)
{
    for (size_t n = 0; n < BACKUPS_MAX; n++) {
        if (replica->backups[n].cutting) {
            return true;
        }
    }
    return false;
}

void bop__replica_backups_deinit(struct replica *replica)
{
    for (size_t n = 0; n < BACKUPS_MAX; n++) {
        if (replica->backups[n].id != 0) {
            drop(&replica->backups[n]);
        }
    }
}
