/*
 * See stoppable_fs.h. Every call goes to the file system below, by a table of calls that look
 * alike.
 */
#include "stoppable_fs.h"

static struct bop_fs *below_of(struct bop_fs *self)
{
    return BOP_CONTAINER_OF(self, struct stoppable_fs, fs)->below;
}

/* Relaxed: it is a wish, and orders nothing. */
static bool is_stopped(struct bop_fs *self)
{
    return atomic_load_explicit(&BOP_CONTAINER_OF(self, struct stoppable_fs, fs)->stopped,
                                memory_order_relaxed);
}

static int stoppable_open(struct bop_fs *self, const char *path, int flags)
{
    return is_stopped(self) ? BOP_ECANCELED : below_of(self)->open(below_of(self), path, flags);
}

static int stoppable_close(struct bop_fs *self, int fd)
{
    return below_of(self)->close(below_of(self), fd);
}

static ssize_t stoppable_pread(struct bop_fs *self, int fd, void *out_bytes, size_t size,
                               uint64_t offset)
{
    return below_of(self)->pread(below_of(self), fd, out_bytes, size, offset);
}

static ssize_t stoppable_pwrite(struct bop_fs *self, int fd, const void *bytes, size_t size,
                                uint64_t offset)
{
    return is_stopped(self) ? BOP_ECANCELED
                            : below_of(self)->pwrite(below_of(self), fd, bytes, size, offset);
}

static int stoppable_sync(struct bop_fs *self, int fd)
{
    return is_stopped(self) ? BOP_ECANCELED : below_of(self)->sync(below_of(self), fd);
}

static int stoppable_truncate(struct bop_fs *self, int fd, uint64_t size)
{
    return is_stopped(self) ? BOP_ECANCELED : below_of(self)->truncate(below_of(self), fd, size);
}

static int stoppable_allocate(struct bop_fs *self, int fd, uint64_t size)
{
    return is_stopped(self) ? BOP_ECANCELED : below_of(self)->allocate(below_of(self), fd, size);
}

static int stoppable_size(struct bop_fs *self, int fd, uint64_t *out_size)
{
    return below_of(self)->size(below_of(self), fd, out_size);
}

static int stoppable_unlink(struct bop_fs *self, const char *path)
{
    return below_of(self)->unlink(below_of(self), path);
}

static int stoppable_rename(struct bop_fs *self, const char *from, const char *to)
{
    return is_stopped(self) ? BOP_ECANCELED : below_of(self)->rename(below_of(self), from, to);
}

static int stoppable_mkdir(struct bop_fs *self, const char *path)
{
    return is_stopped(self) ? BOP_ECANCELED : below_of(self)->mkdir(below_of(self), path);
}

static int stoppable_sync_dir(struct bop_fs *self, const char *path)
{
    return below_of(self)->sync_dir(below_of(self), path);
}

static int stoppable_list(struct bop_fs *self, const char *path,
                          int (*fn)(void *user, const char *name), void *user)
{
    return below_of(self)->list(below_of(self), path, fn, user);
}

static int stoppable_lock(struct bop_fs *self, int fd)
{
    return below_of(self)->lock(below_of(self), fd);
}

static int stoppable_free_bytes(struct bop_fs *self, const char *path, uint64_t *out_bytes)
{
    return below_of(self)->free_bytes(below_of(self), path, out_bytes);
}

static int stoppable_map(struct bop_fs *self, int fd, size_t size, const void **out_bytes)
{
    return below_of(self)->map(below_of(self), fd, size, out_bytes);
}

static void stoppable_unmap(struct bop_fs *self, const void *bytes, size_t size)
{
    below_of(self)->unmap(below_of(self), bytes, size);
}

void bop__stoppable_fs_init(struct stoppable_fs *self, struct bop_fs *below)
{
    self->fs = (struct bop_fs){
        .open = stoppable_open,
        .close = stoppable_close,
        .pread = stoppable_pread,
        .pwrite = stoppable_pwrite,
        .sync = stoppable_sync,
        .truncate = stoppable_truncate,
        .allocate = stoppable_allocate,
        .size = stoppable_size,
        .unlink = stoppable_unlink,
        .rename = stoppable_rename,
        .mkdir = stoppable_mkdir,
        .sync_dir = stoppable_sync_dir,
        .list = stoppable_list,
        .lock = stoppable_lock,
        .free_bytes = stoppable_free_bytes,
        .map = below->map ? stoppable_map : NULL,
        .unmap = stoppable_unmap,
    };
    self->below = below;
    atomic_init(&self->stopped, false);
}

void bop__stoppable_fs_stop(struct stoppable_fs *self)
{
    atomic_store_explicit(&self->stopped, true, memory_order_relaxed);
}
