/*
 * A packed segment that is a local file, read by pread: what is read is compressed and small, and
 * its decompressed frames are what is worth keeping in memory.
 */
#include "warm.h"

#include <inttypes.h>

struct packed_file {
    struct bop__packed packed;
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    int fd;
    size_t path_size; /* With its NUL. */
    char path[];
};

static struct packed_file *self_of(struct bop__packed *packed)
{
    return BOP_CONTAINER_OF(packed, struct packed_file, packed);
}

static int packed_file_read(struct bop__packed *packed, uint64_t offset, size_t size,
                            struct bop_buf *out, struct bop_error *err)
{
    struct packed_file *self = self_of(packed);
    int rc = bop_buf_reserve(out, size);

    if (rc == 0) {
        rc = bop_fs_read_exact(self->fs, self->fd, out->data + out->size, size, offset);
    }
    if (rc == BOP_ETRUNCATED) {
        /* It was this long when it was opened. */
        rc = BOP_ECORRUPT;
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "read %s, %zu bytes at %" PRIu64, self->path, size, offset);
    }
    out->size += size;
    return 0;
}

static void packed_file_close(struct bop__packed *packed)
{
    struct packed_file *self = self_of(packed);

    if (self->fd >= 0) {
        /* Only read from. */
        BOP_IGNORE(self->fs->close(self->fs, self->fd));
    }
    bop_free(self->allocator, self, sizeof(*self) + self->path_size);
}

int bop__packed_file_open(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                          struct bop__packed **out_packed, struct bop_error *err)
{
    size_t path_size = strlen(path) + 1;
    struct packed_file *self;
    int rc;

    allocator = bop_allocator_or_default(allocator);
    self = bop_alloc_zeroed(allocator, sizeof(*self) + path_size);
    if (!self) {
        return bop_error_set(err, BOP_ENOMEM, "open %s", path);
    }
    memcpy(self->path, path, path_size);
    self->path_size = path_size;
    self->allocator = allocator;
    self->fs = fs;
    self->packed = (struct bop__packed){
        .tier = BOP_AOF_WARM,
        .name = self->path,
        .read = packed_file_read,
        .close = packed_file_close,
    };
    self->fd = fs->open(fs, path, O_RDONLY);
    rc = self->fd < 0 ? self->fd : fs->size(fs, self->fd, &self->packed.size);
    if (rc < 0) {
        bop_error_set(err, rc, "open %s", path);
        packed_file_close(&self->packed);
        return rc;
    }
    *out_packed = &self->packed;
    return 0;
}
