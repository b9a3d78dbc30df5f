/*
 * A file system whose n-th operation fails, over another one: see bop/fs.h.
 *
 * What tidies up (close, unlink, list, unmap) never fails by itself, so that a sweep
 * sees one fault a round and what the code under test does about it.
 */
#include <bop/fs.h>

int bop_faults_step(struct bop_faults *faults, int code)
{
    if (!faults) {
        return 0;
    }
    faults->at++;
    if (faults->fail_at == 0 || faults->at != faults->fail_at) {
        return 0;
    }
    faults->fired = code;
    return code;
}

static struct bop_fs_faulty *faulty_of(struct bop_fs *self)
{
    return BOP_CONTAINER_OF(self, struct bop_fs_faulty, fs);
}

/* Count an operation; 0 or what it fails with. */
static int step(struct bop_fs_faulty *faulty)
{
    int code = faulty->faults && faulty->faults->code != 0 ? faulty->faults->code : -EIO;

    return bop_faults_step(faulty->faults, code);
}

static int faulty_open(struct bop_fs *self, const char *path, int flags)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    if (rc == 0) {
        rc = faulty->under->open(faulty->under, path, flags);
        faulty->open_files += rc >= 0;
    }
    return rc;
}

static int faulty_close(struct bop_fs *self, int fd)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = faulty->under->close(faulty->under, fd);

    /* A close that reports a late error has closed all the same. */
    faulty->open_files -= rc != -EBADF;
    return rc;
}

static ssize_t faulty_pread(struct bop_fs *self, int fd, void *out_bytes, size_t size,
                            uint64_t offset)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->pread(faulty->under, fd, out_bytes, size, offset);
}

static ssize_t faulty_pwrite(struct bop_fs *self, int fd, const void *bytes, size_t size,
                             uint64_t offset)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    if (rc < 0) {
        /* Half a write is the worst failure; if that fails too, so much the better. With
         * O_DIRECT half of it is whole blocks. */
        if (faulty->under->pwrite(faulty->under, fd, bytes, size / 2, offset) == -EINVAL) {
            BOP_IGNORE(faulty->under->pwrite(faulty->under, fd, bytes,
                                             size / 2 - size / 2 % BOP_FS_ALIGN, offset));
        }
        return rc;
    }
    return faulty->under->pwrite(faulty->under, fd, bytes, size, offset);
}

static int faulty_sync(struct bop_fs *self, int fd)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->sync(faulty->under, fd);
}

static int faulty_truncate(struct bop_fs *self, int fd, uint64_t size)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->truncate(faulty->under, fd, size);
}

static int faulty_allocate(struct bop_fs *self, int fd, uint64_t size)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->allocate(faulty->under, fd, size);
}

static int faulty_size(struct bop_fs *self, int fd, uint64_t *out_size)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->size(faulty->under, fd, out_size);
}

static int faulty_unlink(struct bop_fs *self, const char *path)
{
    struct bop_fs_faulty *faulty = faulty_of(self);

    return faulty->under->unlink(faulty->under, path);
}

static int faulty_rename(struct bop_fs *self, const char *from, const char *to)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->rename(faulty->under, from, to);
}

static int faulty_mkdir(struct bop_fs *self, const char *path)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->mkdir(faulty->under, path);
}

static int faulty_sync_dir(struct bop_fs *self, const char *path)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->sync_dir(faulty->under, path);
}

static int faulty_list(struct bop_fs *self, const char *path,
                       int (*fn)(void *user, const char *name), void *user)
{
    struct bop_fs_faulty *faulty = faulty_of(self);

    return faulty->under->list(faulty->under, path, fn, user);
}

static int faulty_lock(struct bop_fs *self, int fd)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->lock(faulty->under, fd);
}

static int faulty_free_bytes(struct bop_fs *self, const char *path, uint64_t *out_bytes)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->free_bytes(faulty->under, path, out_bytes);
}

static int faulty_map(struct bop_fs *self, int fd, size_t size, const void **out_bytes)
{
    struct bop_fs_faulty *faulty = faulty_of(self);
    int rc = step(faulty);

    return rc < 0 ? rc : faulty->under->map(faulty->under, fd, size, out_bytes);
}

static void faulty_unmap(struct bop_fs *self, const void *bytes, size_t size)
{
    struct bop_fs_faulty *faulty = faulty_of(self);

    faulty->under->unmap(faulty->under, bytes, size);
}

void bop_fs_faulty_init(struct bop_fs_faulty *faulty, struct bop_fs *under,
                        struct bop_faults *faults)
{
    *faulty = (struct bop_fs_faulty){
        .fs =
            {
                .open = faulty_open,
                .close = faulty_close,
                .pread = faulty_pread,
                .pwrite = faulty_pwrite,
                .sync = faulty_sync,
                .truncate = faulty_truncate,
                .allocate = faulty_allocate,
                .size = faulty_size,
                .unlink = faulty_unlink,
                .rename = faulty_rename,
                .mkdir = faulty_mkdir,
                .sync_dir = faulty_sync_dir,
                .list = faulty_list,
                .lock = faulty_lock,
                .free_bytes = faulty_free_bytes,
                .map = under->map ? faulty_map : NULL,
                .unmap = under->unmap ? faulty_unmap : NULL,
            },
        .under = under,
        .faults = faults,
    };
}
