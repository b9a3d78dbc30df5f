/*
 * Whose data directory it is. Three small files:
 *
 *      lock      held by flock while a process uses the directory
 *      identity  "bop-data <format>\nnode <id>\ncluster <name>\n"
 *      boot      the id of the boot in which the state was last in use, or "clean"
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "data_dir.h"

#define SMALL_FILE_MAX 1024
#define PATH_BYTES     4096

static int join_path(char *out_path, const char *directory, const char *name)
{
    int length = snprintf(out_path, PATH_BYTES, "%s/%s", directory, name);

    return length < 0 || length >= PATH_BYTES ? -ENAMETOOLONG : 0;
}

/* Read a small file as text. -ENOENT if there is none. */
static int read_text(struct bop_fs *fs, const char *directory, const char *name,
                     char out_text[SMALL_FILE_MAX + 1])
{
    char path[PATH_BYTES];
    struct bop_buf buf;
    int rc = join_path(path, directory, name);

    bop_buf_init(&buf, NULL, 0);
    if (rc == 0) {
        rc = bop_fs_read_file(fs, path, SMALL_FILE_MAX, &buf);
    }
    if (rc >= 0) {
        if (buf.size > 0) {
            memcpy(out_text, buf.data, buf.size);
        }
        out_text[buf.size] = '\0';
        rc = 0;
    }
    bop_buf_deinit(&buf);
    return rc;
}

static int write_text(struct bop_fs *fs, const char *directory, const char *name, const char *text,
                      struct bop_error *err)
{
    char path[PATH_BYTES];
    int rc = join_path(path, directory, name);

    return rc < 0 ? bop_error_set(err, rc, "%s/%s", directory, name)
                  : bop_fs_write_file(fs, path, bop_slice_cstr(text), err);
}

static int take_lock(struct data_dir *dir, struct bop_fs *fs, const char *path,
                     struct bop_error *err)
{
    char lock_path[PATH_BYTES];
    int rc = bop_fs_mkdirs(fs, path);

    if (rc < 0) {
        return bop_error_set(err, rc, "make data directory %s", path);
    }
    rc = join_path(lock_path, path, "lock");
    if (rc == 0) {
        rc = fs->open(fs, lock_path, O_RDWR | O_CREAT);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "open %s/lock", path);
    }
    dir->lock_fd = rc;
    rc = fs->lock(fs, dir->lock_fd);
    if (rc == BOP_ELOCKED) {
        return bop_error_say(err, rc,
                             "data directory %s is in use by another process: stop that one, or "
                             "choose another directory with --data",
                             path);
    }
    return rc < 0 ? bop_error_set(err, rc, "lock %s", lock_path) : 0;
}

static int check_owner(const char *text, const char *path, uint64_t node, const char *cluster,
                       struct bop_error *err)
{
    char name[256];
    unsigned format;
    uint64_t owner;

    if (sscanf(text, "bop-data %u\n", &format) != 1) {
        return bop_error_say(err, BOP_ECORRUPT,
                             "%s/identity is not that of a BOP data directory: choose another "
                             "directory with --data",
                             path);
    }
    if (format != DATA_DIR_FORMAT) {
        return bop_error_say(err, BOP_EVERSION,
                             "data directory %s has format %u, this bopd knows format %u: use the "
                             "bopd that wrote it",
                             path, format, DATA_DIR_FORMAT);
    }
    if (sscanf(text, "bop-data %*u\nnode %" SCNu64 "\ncluster %255[^\n]", &owner, name) != 2) {
        return bop_error_say(err, BOP_ECORRUPT, "%s/identity is damaged", path);
    }
    if (owner != node) {
        return bop_error_say(err, BOP_EMISMATCH,
                             "data directory %s belongs to node %" PRIu64 ", not %" PRIu64
                             ": start with --id %" PRIu64 " or choose another directory with "
                             "--data",
                             path, owner, node, owner);
    }
    if (strcmp(name, cluster) != 0) {
        return bop_error_say(err, BOP_EMISMATCH,
                             "data directory %s belongs to cluster \"%s\", not \"%s\": start with "
                             "--cluster %s or choose another directory with --data",
                             path, name, cluster, name);
    }
    return 0;
}

static int look_around(struct data_dir *dir, struct bop_fs *fs, const char *path, uint64_t node,
                       const char *cluster, const char *boot_id, struct bop_error *err)
{
    char text[SMALL_FILE_MAX + 1];
    int rc = read_text(fs, path, "identity", text);

    if (rc == -ENOENT) {
        dir->fresh = true;
        return 0;
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "read %s/identity", path);
    }
    rc = check_owner(text, path, node, cluster, err);
    if (rc < 0) {
        return rc;
    }
    rc = read_text(fs, path, "boot", text);
    if (rc < 0 && rc != -ENOENT) {
        return bop_error_set(err, rc, "read %s/boot", path);
    }
    dir->state_whole = rc == 0 && (strcmp(text, boot_id) == 0 || strcmp(text, DATA_DIR_CLEAN) == 0);
    return 0;
}

int bop__data_dir_open(struct data_dir *dir, struct bop_fs *fs, const char *path, uint64_t node,
                       const char *cluster, const char *boot_id, struct bop_error *err)
{
    int rc;

    *dir = (struct data_dir){.lock_fd = -1};
    rc = take_lock(dir, fs, path, err);
    if (rc == 0) {
        rc = look_around(dir, fs, path, node, cluster, boot_id, err);
    }
    if (rc < 0) {
        bop__data_dir_close(dir, fs);
    }
    return rc;
}

int bop__data_dir_claim(struct bop_fs *fs, const char *path, uint64_t node, const char *cluster,
                        struct bop_error *err)
{
    char text[SMALL_FILE_MAX];

    snprintf(text, sizeof(text), "bop-data %u\nnode %" PRIu64 "\ncluster %s\n", DATA_DIR_FORMAT,
             node, cluster);
    return write_text(fs, path, "identity", text, err);
}

int bop__data_dir_mark(struct bop_fs *fs, const char *path, const char *boot_id,
                       struct bop_error *err)
{
    return write_text(fs, path, "boot", boot_id, err);
}

void bop__data_dir_close(struct data_dir *dir, struct bop_fs *fs)
{
    if (dir->lock_fd >= 0) {
        /* The lock goes with it; nothing was written. */
        BOP_IGNORE(fs->close(fs, dir->lock_fd));
        dir->lock_fd = -1;
    }
}
