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

#define SMALL_FILE_MAX   1024
#define PATH_BYTES       4096
#define CLUSTER_NAME_MAX 255

static int join_path(char *out_path, const char *directory, const char *name)
{
    int length = snprintf(out_path, PATH_BYTES, "%s/%s", directory, name);

    return length < 0 || length >= PATH_BYTES ? -ENAMETOOLONG : 0;
}

/* Read a small file. -ENOENT if there is none. */
static int read_text(struct bop_fs *fs, const char *directory, const char *name, uint8_t *out_bytes,
                     struct bop_slice *out_text)
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
            memcpy(out_bytes, buf.data, buf.size);
        }
        *out_text = bop_slice(out_bytes, buf.size);
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

/* What the identity says. */
struct identity {
    uint64_t format;
    uint64_t node;
    struct bop_slice cluster;
};

/* Take "<word><decimal number>\n" off the front of the text. */
static bool take_number(struct bop_slice *text, const char *word, uint64_t *out_number)
{
    size_t at = strlen(word), digits = 0;
    uint64_t number = 0;

    if (text->size < at || memcmp(text->data, word, at) != 0) {
        return false;
    }
    for (; at < text->size && text->data[at] >= '0' && text->data[at] <= '9'; at++, digits++) {
        unsigned digit = text->data[at] - (unsigned)'0';

        if (number > (UINT64_MAX - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    if (digits == 0 || at == text->size || text->data[at] != '\n') {
        return false;
    }
    *out_number = number;
    *text = bop_slice(text->data + at + 1, text->size - at - 1);
    return true;
}

/* A name that its line can hold: no line feed, nothing that spoils a terminal. */
static bool is_name(struct bop_slice name)
{
    for (size_t n = 0; n < name.size; n++) {
        if (name.data[n] < ' ' || name.data[n] == 0x7f) {
            return false;
        }
    }
    return name.size > 0 && name.size <= CLUSTER_NAME_MAX && bop_slice_is_utf8(name);
}

/* Take "cluster <name>\n", which is all that is left. */
static bool take_cluster(struct bop_slice text, struct bop_slice *out_name)
{
    static const char word[] = "cluster ";
    size_t before = sizeof(word) - 1;

    if (text.size < before + 1 || memcmp(text.data, word, before) != 0 ||
        text.data[text.size - 1] != '\n') {
        return false;
    }
    *out_name = bop_slice(text.data + before, text.size - before - 1);
    return is_name(*out_name);
}

static int check_owner(struct bop_slice text, const char *path, uint64_t node, const char *cluster,
                       struct bop_error *err)
{
    struct identity is;

    if (!take_number(&text, "bop-data ", &is.format)) {
        return bop_error_say(err, BOP_ECORRUPT,
                             "%s/identity is not that of a BOP data directory: choose another "
                             "directory with --data",
                             path);
    }
    if (is.format != DATA_DIR_FORMAT) {
        return bop_error_say(err, BOP_EVERSION,
                             "data directory %s has format %" PRIu64
                             ", this bopd knows format %d: use the bopd that wrote it",
                             path, is.format, DATA_DIR_FORMAT);
    }
    if (!take_number(&text, "node ", &is.node) || !take_cluster(text, &is.cluster)) {
        return bop_error_say(
            err, BOP_ECORRUPT,
            "%s/identity is damaged: put it back as it was, or move the directory "
            "away and start with --join and a new --id to fetch the data from the others",
            path);
    }
    if (is.node != node) {
        return bop_error_say(err, BOP_EMISMATCH,
                             "data directory %s belongs to node %" PRIu64 ", not %" PRIu64
                             ": start with --id %" PRIu64 " or choose another directory with "
                             "--data",
                             path, is.node, node, is.node);
    }
    if (!bop_slice_equal(is.cluster, bop_slice_cstr(cluster))) {
        return bop_error_say(
            err, BOP_EMISMATCH,
            "data directory %s belongs to cluster \"%.*s\", not \"%s\": start with "
            "--cluster %.*s or choose another directory with --data",
            path, (int)is.cluster.size, (const char *)is.cluster.data, cluster,
            (int)is.cluster.size, (const char *)is.cluster.data);
    }
    return 0;
}

int bop__data_dir_identity(struct bop_fs *fs, const char *path, uint64_t *out_node,
                           char *out_cluster, size_t cluster_size, struct bop_error *err)
{
    uint8_t bytes[SMALL_FILE_MAX];
    struct bop_slice text;
    struct identity is;
    int rc = read_text(fs, path, "identity", bytes, &text);

    if (rc == -ENOENT) {
        return bop_error_say(err, BOP_ENOTFOUND, "%s is no data directory of a node", path);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "read %s/identity", path);
    }
    if (!take_number(&text, "bop-data ", &is.format) || is.format != DATA_DIR_FORMAT ||
        !take_number(&text, "node ", &is.node) || !take_cluster(text, &is.cluster) ||
        is.cluster.size >= cluster_size) {
        return bop_error_say(err, BOP_ECORRUPT, "%s/identity is damaged or of another version",
                             path);
    }
    *out_node = is.node;
    memcpy(out_cluster, is.cluster.data, is.cluster.size);
    out_cluster[is.cluster.size] = '\0';
    return 0;
}

/* Whether the state can be believed: the system has not gone down since, or all was synced. */
static bool is_whole(struct bop_slice boot, const char *boot_id)
{
    return bop_slice_equal(boot, bop_slice_cstr(DATA_DIR_CLEAN)) ||
           (boot_id[0] != '\0' && bop_slice_equal(boot, bop_slice_cstr(boot_id)));
}

static int look_around(struct data_dir *dir, struct bop_fs *fs, const char *path, uint64_t node,
                       const char *cluster, const char *boot_id, struct bop_error *err)
{
    uint8_t bytes[SMALL_FILE_MAX];
    struct bop_slice text;
    int rc = read_text(fs, path, "identity", bytes, &text);

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
    rc = read_text(fs, path, "boot", bytes, &text);
    if (rc < 0 && rc != -ENOENT) {
        return bop_error_set(err, rc, "read %s/boot", path);
    }
    dir->state_whole = rc == 0 && is_whole(text, boot_id);
    return 0;
}

int bop__data_dir_open(struct data_dir *dir, struct bop_fs *fs, const char *path, uint64_t node,
                       const char *cluster, const char *boot_id, struct bop_error *err)
{
    int rc;

    *dir = (struct data_dir){.lock_fd = -1};
    if (!is_name(bop_slice_cstr(cluster))) {
        return bop_error_say(err, BOP_EINVAL,
                             "a cluster's name has 1 to %d bytes and no control characters: choose "
                             "another one with --cluster",
                             CLUSTER_NAME_MAX);
    }
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

    BOP_ASSERT(is_name(bop_slice_cstr(cluster))); /* Open saw to it. */
    snprintf(text, sizeof(text), "bop-data %d\nnode %" PRIu64 "\ncluster %s\n", DATA_DIR_FORMAT,
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
