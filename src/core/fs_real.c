/*
 * The file system of the operating system behind bop/fs.h: thin calls that turn
 * errno into a negative code and go on after a signal.
 *
 * Nothing else is retried. An interrupted fdatasync() is called again because
 * the kernel reports a write-back error once a descriptor and an interrupted
 * wait has not reported it yet.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <bop/fs.h>

#define FILE_MODE 0600
#define DIR_MODE  0700

/* off_t has 64 bits with a sign; what lies above cannot be reached. */
_Static_assert(sizeof(off_t) == 8, "offsets have 64 bits");

static int real_open(struct bop_fs *self, const char *path, int flags)
{
    int fd;

    do {
        fd = open(path, flags | O_CLOEXEC, FILE_MODE);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

static int real_close(struct bop_fs *self, int fd)
{
    /* Linux has closed the descriptor even when a signal came: a second call could
     * close somebody else's. */
    if (close(fd) < 0 && errno != EINTR) {
        return -errno;
    }
    return 0;
}

static ssize_t real_pread(struct bop_fs *self, int fd, void *out_bytes, size_t size,
                          uint64_t offset)
{
    ssize_t count;

    if (offset > INT64_MAX) {
        return -EINVAL;
    }
    do {
        count = pread(fd, out_bytes, bop_min_u64(size, SSIZE_MAX), (off_t)offset);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

static ssize_t real_pwrite(struct bop_fs *self, int fd, const void *bytes, size_t size,
                           uint64_t offset)
{
    ssize_t count;

    if (offset > INT64_MAX) {
        return -EFBIG;
    }
    do {
        count = pwrite(fd, bytes, bop_min_u64(size, SSIZE_MAX), (off_t)offset);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

static int real_sync(struct bop_fs *self, int fd)
{
    int rc;

    do {
        rc = fdatasync(fd);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

/* Nothing is waited for, or an error could be told here that the next sync must tell. */
static void real_write_back(struct bop_fs *self, int fd, uint64_t from, uint64_t to)
{
    if (from < to && to <= INT64_MAX) {
        BOP_IGNORE(sync_file_range(fd, (off_t)from, (off_t)(to - from), SYNC_FILE_RANGE_WRITE));
    }
}

static int real_truncate(struct bop_fs *self, int fd, uint64_t size)
{
    int rc;

    if (size > INT64_MAX) {
        return -EFBIG;
    }
    do {
        rc = ftruncate(fd, (off_t)size);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

static int real_allocate(struct bop_fs *self, int fd, uint64_t size)
{
    int code;

    if (size > INT64_MAX) {
        return -EFBIG;
    }
    if (size == 0) {
        return 0; /* posix_fallocate() refuses to reserve nothing. */
    }
    do {
        code = posix_fallocate(fd, 0, (off_t)size); /* Returns the errno, leaves errno alone. */
    } while (code == EINTR);
    return -code;
}

static int real_size(struct bop_fs *self, int fd, uint64_t *out_size)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    *out_size = (uint64_t)st.st_size;
    return 0;
}

static int real_unlink(struct bop_fs *self, const char *path)
{
    return unlink(path) < 0 ? -errno : 0;
}

static int real_rename(struct bop_fs *self, const char *from, const char *to)
{
    return rename(from, to) < 0 ? -errno : 0;
}

static int real_mkdir(struct bop_fs *self, const char *path)
{
    return mkdir(path, DIR_MODE) < 0 ? -errno : 0;
}

static int real_sync_dir(struct bop_fs *self, const char *path)
{
    int fd = real_open(self, path, O_RDONLY | O_DIRECTORY);
    int rc;

    if (fd < 0) {
        return fd;
    }
    do {
        rc = fsync(fd);
    } while (rc < 0 && errno == EINTR);
    rc = rc < 0 ? -errno : 0;
    /* Nothing was written through it, so closing has nothing to report. */
    BOP_IGNORE(real_close(self, fd));
    return rc;
}

/* ---- list ---- */

/* The names of a directory, gathered before the first call back: the walk then
 * sees one moment's names, and fn may make and remove files. */
struct names {
    struct bop_buf text;    /* The names, NUL after each. */
    struct bop_buf offsets; /* size_t each: where in text a name begins. */
};

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static int names_read(struct names *names, DIR *dir)
{
    for (;;) {
        struct dirent *entry;
        size_t offset = names->text.size;
        int rc;

        errno = 0;
        entry = readdir(dir);
        if (!entry) {
            return -errno; /* 0 at the end. */
        }
        if (is_dot(entry->d_name)) {
            continue;
        }
        rc = bop_buf_append(&names->text, entry->d_name, strlen(entry->d_name) + 1);
        if (rc < 0) {
            return rc;
        }
        rc = bop_buf_append(&names->offsets, &offset, sizeof(offset));
        if (rc < 0) {
            return rc;
        }
    }
}

static int compare_names(const void *a, const void *b, void *text)
{
    size_t offset_a, offset_b;

    memcpy(&offset_a, a, sizeof(offset_a));
    memcpy(&offset_b, b, sizeof(offset_b));
    return strcmp((const char *)text + offset_a, (const char *)text + offset_b);
}

static int names_walk(struct names *names, int (*fn)(void *user, const char *name), void *user)
{
    size_t count = names->offsets.size / sizeof(size_t);

    if (count == 0) {
        return 0; /* And no memory to sort. */
    }
    qsort_r(names->offsets.data, count, sizeof(size_t), compare_names, names->text.data);
    for (size_t i = 0; i < count; i++) {
        size_t offset;
        int rc;

        memcpy(&offset, names->offsets.data + i * sizeof(offset), sizeof(offset));
        rc = fn(user, (const char *)names->text.data + offset);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}

static int real_list(struct bop_fs *self, const char *path, int (*fn)(void *user, const char *name),
                     void *user)
{
    struct names names;
    DIR *dir = opendir(path);
    int rc;

    if (!dir) {
        return -errno;
    }
    bop_buf_init(&names.text, NULL, 0);
    bop_buf_init(&names.offsets, NULL, 0);
    rc = names_read(&names, dir);
    closedir(dir); /* Only read: nothing to report. */
    if (rc == 0) {
        rc = names_walk(&names, fn, user);
    }
    bop_buf_deinit(&names.offsets);
    bop_buf_deinit(&names.text);
    return rc;
}

/* ---- The rest ---- */

static int real_lock(struct bop_fs *self, int fd)
{
    int rc;

    do {
        rc = flock(fd, LOCK_EX | LOCK_NB);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        return errno == EWOULDBLOCK ? BOP_ELOCKED : -errno;
    }
    return 0;
}

static int real_free_bytes(struct bop_fs *self, const char *path, uint64_t *out_bytes)
{
    struct statvfs st;
    int rc;

    do {
        rc = statvfs(path, &st);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        return -errno;
    }
    *out_bytes = (uint64_t)st.f_bavail * st.f_frsize;
    return 0;
}

static int real_map(struct bop_fs *self, int fd, size_t size, const void **out_bytes)
{
    void *bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

    if (bytes == MAP_FAILED) {
        return errno == ENODEV ? BOP_EUNSUPPORTED : -errno; /* Not for this kind of file. */
    }
    *out_bytes = bytes;
    return 0;
}

static void real_unmap(struct bop_fs *self, const void *bytes, size_t size)
{
    int rc = munmap((void *)(uintptr_t)bytes, size);

    BOP_ASSERT(rc == 0); /* It fails for what was not mapped. */
}

struct bop_fs *bop_fs_real(void)
{
    static struct bop_fs real = {
        .open = real_open,
        .close = real_close,
        .pread = real_pread,
        .pwrite = real_pwrite,
        .sync = real_sync,
        .write_back = real_write_back,
        .truncate = real_truncate,
        .allocate = real_allocate,
        .size = real_size,
        .unlink = real_unlink,
        .rename = real_rename,
        .mkdir = real_mkdir,
        .sync_dir = real_sync_dir,
        .list = real_list,
        .lock = real_lock,
        .free_bytes = real_free_bytes,
        .map = real_map,
        .unmap = real_unmap,
    };

    return &real;
}
