/*
 * What every user of files needs, over any bop_fs: whole reads and writes, the
 * replacement of a file in one step, directories with those above them.
 *
 * Paths are built on the stack, so nothing here allocates but the buffer that a
 * file is read into.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <bop/fs.h>

/* What is read at once when the size says nothing, as in /proc. */
#define READ_STEP_BYTES 4096

int bop_fs_read_exact(struct bop_fs *fs, int fd, void *out_bytes, size_t size, uint64_t offset)
{
    uint8_t *at = out_bytes;

    while (size > 0) {
        ssize_t count = fs->pread(fs, fd, at, size, offset);

        if (count < 0) {
            return (int)count;
        }
        if (count == 0) {
            return BOP_ETRUNCATED;
        }
        at += count;
        size -= (size_t)count;
        offset += (uint64_t)count;
    }
    return 0;
}

int bop_fs_write_all(struct bop_fs *fs, int fd, const void *bytes, size_t size, uint64_t offset)
{
    const uint8_t *at = bytes;

    while (size > 0) {
        ssize_t count = fs->pwrite(fs, fd, at, size, offset);

        if (count < 0) {
            return (int)count;
        }
        if (count == 0) {
            return -EIO; /* No progress and no reason: going on could last for ever. */
        }
        at += count;
        size -= (size_t)count;
        offset += (uint64_t)count;
    }
    return 0;
}

/* ---- Whole files ---- */

/* Append a file to out, whose content began at `begin`. */
static int read_to_end(struct bop_fs *fs, int fd, size_t size_max, size_t begin,
                       struct bop_buf *out)
{
    for (;;) {
        size_t have = out->size - begin;
        size_t room = (size_t)bop_min_u64(out->capacity - out->size, size_max - have);
        uint8_t probe;
        /* Without room one byte tells whether the file goes on; it is read again then. */
        void *to = room > 0 ? (void *)(out->data + out->size) : &probe;
        ssize_t count = fs->pread(fs, fd, to, room > 0 ? room : 1, have);
        int rc;

        if (count <= 0) {
            return (int)count;
        }
        if (room > 0) {
            out->size += (size_t)count;
            continue;
        }
        if (have == size_max) {
            return BOP_ETOOBIG;
        }
        rc = bop_buf_reserve(out, (size_t)bop_min_u64(READ_STEP_BYTES, size_max - have));
        if (rc < 0) {
            return rc;
        }
    }
}

int bop_fs_read_file(struct bop_fs *fs, const char *path, size_t size_max, struct bop_buf *out)
{
    size_t begin = out->size;
    uint64_t size;
    int fd = fs->open(fs, path, O_RDONLY);
    int rc;

    if (fd < 0) {
        return fd;
    }
    rc = fs->size(fs, fd, &size);
    if (rc == 0 && size > size_max) {
        rc = BOP_ETOOBIG;
    }
    if (rc == 0) {
        rc = bop_buf_reserve(out, (size_t)size);
    }
    if (rc == 0) {
        rc = read_to_end(fs, fd, size_max, begin, out);
    }
    /* Only read: closing has nothing to report. */
    BOP_IGNORE(fs->close(fs, fd));
    if (rc < 0) {
        out->size = begin;
    }
    return rc;
}

/* Set parent to the directory that holds path: all before the last name, else "." or "/". */
static int parent_of(const char *path, char parent[PATH_MAX])
{
    size_t size = strlen(path);

    while (size > 1 && path[size - 1] == '/') {
        size--;
    }
    while (size > 0 && path[size - 1] != '/') {
        size--;
    }
    while (size > 1 && path[size - 1] == '/') {
        size--;
    }
    if (size >= PATH_MAX) {
        return -ENAMETOOLONG;
    }
    if (size == 0) {
        memcpy(parent, ".", sizeof("."));
        return 0;
    }
    memcpy(parent, path, size);
    parent[size] = '\0';
    return 0;
}

/* Make a file with this content, on disk but for its name. */
static int write_new(struct bop_fs *fs, const char *path, struct bop_slice content,
                     struct bop_error *err)
{
    int fd = fs->open(fs, path, O_RDWR | O_CREAT | O_TRUNC);
    int rc, rc_close;

    if (fd < 0) {
        return bop_error_set(err, fd, "create %s", path);
    }
    rc = bop_fs_write_all(fs, fd, content.data, content.size, 0);
    if (rc < 0) {
        bop_error_set(err, rc, "write %s", path);
    } else {
        rc = fs->sync(fs, fd);
        if (rc < 0) {
            bop_error_set(err, rc, "sync %s", path);
        }
    }
    rc_close = fs->close(fs, fd);
    if (rc == 0 && rc_close < 0) {
        rc = bop_error_set(err, rc_close, "close %s", path);
    }
    return rc;
}

int bop_fs_write_file(struct bop_fs *fs, const char *path, struct bop_slice content,
                      struct bop_error *err)
{
    char temporary[PATH_MAX];
    char parent[PATH_MAX];
    int size = snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    int rc;

    if (size < 0 || (size_t)size >= sizeof(temporary)) {
        return bop_error_set(err, -ENAMETOOLONG, "write %s", path);
    }
    rc = parent_of(path, parent);
    if (rc < 0) {
        return bop_error_set(err, rc, "write %s", path);
    }
    rc = write_new(fs, temporary, content, err);
    if (rc < 0) {
        goto fail_unlink;
    }
    rc = fs->rename(fs, temporary, path);
    if (rc < 0) {
        bop_error_set(err, rc, "rename %s to %s", temporary, path);
        goto fail_unlink;
    }
    rc = fs->sync_dir(fs, parent);
    if (rc < 0) {
        /* The new content has the name, but may lose it in a crash. */
        return bop_error_set(err, rc, "sync directory %s", parent);
    }
    return 0;

fail_unlink:
    /* Best effort: the next write truncates what is left. */
    BOP_IGNORE(fs->unlink(fs, temporary));
    return rc;
}

/* ---- Names ---- */

/* Make one directory and its name durable. 1 if it was there. */
static int make_dir(struct bop_fs *fs, const char *path)
{
    char parent[PATH_MAX];
    int rc = fs->mkdir(fs, path);

    if (rc == -EEXIST) {
        return 1;
    }
    if (rc == 0) {
        rc = parent_of(path, parent);
    }
    return rc < 0 ? rc : fs->sync_dir(fs, parent);
}

int bop_fs_mkdirs(struct bop_fs *fs, const char *path)
{
    char prefix[PATH_MAX];
    size_t size = strlen(path);
    int rc = 0;

    if (size == 0 || size >= sizeof(prefix)) {
        return size == 0 ? -ENOENT : -ENAMETOOLONG;
    }
    for (size_t end = 1; end <= size; end++) {
        /* A prefix ends before each slash that follows a name, and at the end. */
        if (path[end - 1] == '/' || (end < size && path[end] != '/')) {
            continue;
        }
        memcpy(prefix, path, end);
        prefix[end] = '\0';
        rc = make_dir(fs, prefix);
        if (rc < 0) {
            return rc;
        }
    }
    /* What was there may be a file; to sync it as a directory tells. */
    return rc == 1 ? fs->sync_dir(fs, path) : 0;
}

bool bop_fs_exists(struct bop_fs *fs, const char *path)
{
    int fd = fs->open(fs, path, O_RDONLY);

    if (fd < 0) {
        return false;
    }
    /* Only looked at: closing has nothing to report. */
    BOP_IGNORE(fs->close(fs, fd));
    return true;
}
