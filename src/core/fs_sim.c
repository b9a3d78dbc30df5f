/*
 * The simulated disk as a file system: descriptors, locks, faults on demand and
 * the accounting of room. fs_sim_file.c says what a power loss does to contents,
 * fs_sim_names.c what it does to names.
 *
 * Room is counted by the sizes of the files that a name or a descriptor leads
 * to, holes included: so what lies inside a file's size can always be written,
 * as on a disk where it was reserved.
 *
 * All choices come from one generator and are drawn in an order that depends on
 * the calls alone: the same seed and the same calls give the same disk.
 */
#include <pthread.h>
#include <string.h>

#include <bop/fs.h>
#include <bop/mem.h>
#include <bop/sim.h>

#include "fs_sim.h"

/* What a disk without a bound says of its room. */
#define ROOM_WITHOUT_BOUND (UINT64_C(1) << 50)

#define ACCESS_MODES (O_RDONLY | O_WRONLY | O_RDWR)
#define OPEN_FLAGS   (ACCESS_MODES | O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | O_DIRECT)

/* ---- Entering and leaving ---- */

static struct bop_fs_sim *sim_of(struct bop_fs *self)
{
    return BOP_CONTAINER_OF(self, struct bop_fs_sim, fs);
}

/* Begin an operation: lock, and count it. Returns 0, or -EIO if it is not to happen. */
static int begin(struct bop_fs_sim *sim)
{
    bop__sim_lock(sim);
    sim->operations++;
    return sim->stop_at != 0 && sim->operations >= sim->stop_at ? -EIO : 0;
}

static int end(struct bop_fs_sim *sim, int rc)
{
    bop__sim_unlock(sim);
    return rc;
}

/* True in so many of 65,536 calls. Without the fault nothing is drawn. */
static bool strikes(struct bop_fs_sim *sim, unsigned parts)
{
    return parts > 0 && bop_random_chance(&sim->random, parts, 65536);
}

/* Of size bytes so many, by chance fewer. */
static size_t shorten(struct bop_fs_sim *sim, size_t size, unsigned parts)
{
    return size > 1 && strikes(sim, parts) ? 1 + (size_t)bop_random_below(&sim->random, size - 1)
                                           : size;
}

/* ---- Room ---- */

/* Bytes in the files that exist for a user. */
static uint64_t used_bytes(const struct bop_fs_sim *sim)
{
    uint64_t used = 0;

    BOP_LIST_FOR_EACH(link, &sim->tree.nodes) {
        const struct sim_node *node = BOP_CONTAINER_OF(link, struct sim_node, link);

        used += node->users > 0 ? node->file.size : 0;
    }
    return used;
}

static uint64_t room(const struct bop_fs_sim *sim)
{
    uint64_t limit = sim->capacity ? sim->capacity : ROOM_WITHOUT_BOUND;

    return limit - bop_min_u64(limit, used_bytes(sim));
}

/* The size that a file may grow to, at most `wanted`. */
static uint64_t size_allowed(const struct bop_fs_sim *sim, const struct sim_file *file,
                             uint64_t wanted)
{
    if (wanted <= file->size || sim->capacity == 0) {
        return wanted;
    }
    return bop_min_u64(wanted, file->size + room(sim));
}

/* ---- Descriptors ---- */

static struct descriptor *find_descriptor(struct bop_fs_sim *sim, int fd)
{
    struct descriptor *d = &sim->descriptors[(unsigned)fd % FD_SLOTS];

    if (fd < 0 || !d->node || d->generation != (unsigned)fd >> FD_SLOT_BITS) {
        return NULL;
    }
    return d;
}

/* A file open for the access given. Returns 0 or what is wrong. */
static int find_file(struct bop_fs_sim *sim, int fd, int access, struct sim_file **out_file)
{
    struct descriptor *d = find_descriptor(sim, fd);

    if (!d || (d->access != O_RDWR && d->access != access)) {
        return -EBADF;
    }
    if (d->node->is_dir) {
        return -EISDIR;
    }
    *out_file = &d->node->file;
    return 0;
}

/* Whether a descriptor may read or write such bytes: with O_DIRECT, aligned ones only. */
static int check_aligned(struct bop_fs_sim *sim, int fd, const void *bytes, size_t size,
                         uint64_t offset)
{
    struct descriptor *d = find_descriptor(sim, fd);

    if (d && d->direct && ((uintptr_t)bytes | size | offset) % BOP_FS_ALIGN != 0) {
        return -EINVAL;
    }
    return 0;
}

static int open_descriptor(struct bop_fs_sim *sim, struct sim_node *node, int flags)
{
    for (unsigned slot = 0; slot < FD_SLOTS; slot++) {
        struct descriptor *d = &sim->descriptors[slot];

        if (!d->node) {
            d->node = node;
            d->access = flags & ACCESS_MODES;
            d->direct = flags & O_DIRECT;
            d->generation = d->generation % (FD_GENERATIONS_MAX - 1) + 1;
            bop__sim_node_open(node);
            return (int)(d->generation << FD_SLOT_BITS | slot);
        }
    }
    return -EMFILE;
}

void bop__sim_close(struct bop_fs_sim *sim, struct descriptor *d)
{
    struct sim_node *node = d->node;
    int fd = (int)(d->generation << FD_SLOT_BITS | (unsigned)(d - sim->descriptors));

    if (node->lock_fd == fd) {
        node->lock_fd = -1;
    }
    d->node = NULL;
    bop__sim_node_close(&sim->tree, node);
}

/* ---- Files ---- */

/* Find or make what is to be opened. */
static int find_to_open(struct bop_fs_sim *sim, const char *path, int flags,
                        struct sim_node **out_node)
{
    bool writes = (flags & ACCESS_MODES) != O_RDONLY;
    int rc = bop__sim_tree_find(&sim->tree, path, out_node);

    if (rc == -ENOENT && (flags & O_CREAT)) {
        return bop__sim_tree_create(&sim->tree, path, out_node);
    }
    if (rc < 0) {
        return rc;
    }
    if ((flags & O_CREAT) && (flags & O_EXCL)) {
        return -EEXIST;
    }
    if ((*out_node)->is_dir && (writes || (flags & O_CREAT))) {
        return -EISDIR;
    }
    return flags & O_TRUNC ? bop__sim_file_resize(&(*out_node)->file, 0) : 0;
}

static int sim_open(struct bop_fs *self, const char *path, int flags)
{
    struct bop_fs_sim *sim = sim_of(self);
    int access = flags & ACCESS_MODES;
    struct sim_node *node;
    int rc = begin(sim);

    if (rc == 0 && ((flags & ~OPEN_FLAGS) || access == ACCESS_MODES ||
                    ((flags & O_TRUNC) && access == O_RDONLY))) {
        rc = BOP_EINVAL; /* Not of this interface, or without a meaning. */
    }
    if (rc == 0) {
        rc = find_to_open(sim, path, flags, &node);
    }
    if (rc == 0) {
        rc = open_descriptor(sim, node, flags);
    }
    return end(sim, rc);
}

static int sim_close(struct bop_fs *self, int fd)
{
    struct bop_fs_sim *sim = bop__sim_lock(sim_of(self));
    struct descriptor *d = find_descriptor(sim, fd);

    if (!d) {
        return end(sim, -EBADF);
    }
    bop__sim_close(sim, d);
    return end(sim, 0);
}

static ssize_t sim_pread(struct bop_fs *self, int fd, void *out_bytes, size_t size, uint64_t offset)
{
    struct bop_fs_sim *sim = sim_of(self);
    struct sim_file *file;
    ssize_t count = begin(sim);

    if (count == 0) {
        count = check_aligned(sim, fd, out_bytes, size, offset);
    }
    if (count == 0) {
        count = find_file(sim, fd, O_RDONLY, &file);
    }
    if (count == 0) {
        size = shorten(sim, size, sim->faults.short_read);
        count = (ssize_t)bop__sim_file_read(file, out_bytes, size, offset);
    }
    bop__sim_unlock(sim);
    return count;
}

static ssize_t write_file(struct bop_fs_sim *sim, int fd, const void *bytes, size_t size,
                          uint64_t offset)
{
    struct sim_file *file;
    int rc = find_file(sim, fd, O_WRONLY, &file);
    uint64_t allowed;

    if (rc < 0 || size == 0) {
        return rc;
    }
    if (offset > SIM_FILE_BYTES_MAX || size > SIM_FILE_BYTES_MAX - offset) {
        return -EFBIG;
    }
    allowed = size_allowed(sim, file, offset + size);
    if (allowed <= offset) {
        return -ENOSPC;
    }
    return bop__sim_file_write(file, &sim->random, bytes, (size_t)(allowed - offset), offset);
}

/* The write that the machine stopped in: of its sectors some number, from the first on. */
static void write_part(struct bop_fs_sim *sim, int fd, const void *bytes, size_t size,
                       uint64_t offset)
{
    uint64_t tear = sim->tear_bytes;
    uint64_t first = offset / tear;
    uint64_t sectors = (offset % tear + size + tear - 1) / tear;
    uint64_t cut = (first + bop_random_below(&sim->random, sectors + 1)) * tear;

    if (cut > offset) {
        /* The caller is told of the stop, whatever became of this. */
        BOP_IGNORE(write_file(sim, fd, bytes, (size_t)bop_min_u64(size, cut - offset), offset));
    }
}

static ssize_t sim_pwrite(struct bop_fs *self, int fd, const void *bytes, size_t size,
                          uint64_t offset)
{
    struct bop_fs_sim *sim = sim_of(self);
    ssize_t count = begin(sim);

    if (count == 0) {
        count = check_aligned(sim, fd, bytes, size, offset);
        if (count == 0 && strikes(sim, sim->faults.write_error)) {
            count = -EIO;
        }
        if (count == 0) {
            size = shorten(sim, size, sim->faults.short_write);
            count = write_file(sim, fd, bytes, size, offset);
        }
    } else if (sim->operations == sim->stop_at && offset <= SIM_FILE_BYTES_MAX &&
               size <= SIM_FILE_BYTES_MAX) {
        write_part(sim, fd, bytes, size, offset);
    }
    bop__sim_unlock(sim);
    return count;
}

/* True for a sync that is to fail. */
static bool take_failing_sync(struct bop_fs_sim *sim)
{
    sim->syncs++;
    if (sim->syncs == sim->fail_sync_at || strikes(sim, sim->faults.sync_error)) {
        return true;
    }
    if (sim->failing_syncs == 0) {
        return false;
    }
    sim->failing_syncs--;
    return true;
}

/* Wait while syncs hang. Returns 0, or -EIO if there was a crash meanwhile. */
static int wait_for_release(struct bop_fs_sim *sim)
{
    uint64_t crashes = sim->crashes;

    sim->hanging++;
    while (sim->hang && sim->crashes == crashes) {
        BOP_IGNORE(pthread_cond_wait(&sim->released, &sim->lock)); /* The lock is ours. */
    }
    sim->hanging--;
    return sim->crashes == crashes ? 0 : -EIO;
}

static int sync_node(struct bop_fs_sim *sim, struct sim_node *node)
{
    bool fail = take_failing_sync(sim);

    if (node->is_dir) {
        bop__sim_tree_sync(&sim->tree, node, fail);
    } else if (fail) {
        bop__sim_file_fail_sync(&node->file);
    } else {
        bop__sim_file_sync(&node->file);
    }
    return fail ? -EIO : 0;
}

static int sim_sync(struct bop_fs *self, int fd)
{
    struct bop_fs_sim *sim = sim_of(self);
    int rc = begin(sim);

    if (rc == 0) {
        rc = wait_for_release(sim);
    }
    if (rc == 0) {
        struct descriptor *d = find_descriptor(sim, fd);

        rc = d ? sync_node(sim, d->node) : -EBADF;
    }
    return end(sim, rc);
}

/* Set the size of a file; growing takes room. */
static int set_size(struct bop_fs_sim *sim, struct sim_file *file, uint64_t size)
{
    if (size <= SIM_FILE_BYTES_MAX && size_allowed(sim, file, size) < size) {
        return -ENOSPC;
    }
    return bop__sim_file_resize(file, size);
}

static int sim_truncate(struct bop_fs *self, int fd, uint64_t size)
{
    struct bop_fs_sim *sim = sim_of(self);
    struct sim_file *file;
    int rc = begin(sim);

    if (rc == 0) {
        rc = find_file(sim, fd, O_WRONLY, &file);
    }
    if (rc == 0) {
        rc = set_size(sim, file, size);
    }
    return end(sim, rc);
}

static int sim_allocate(struct bop_fs *self, int fd, uint64_t size)
{
    struct bop_fs_sim *sim = sim_of(self);
    struct sim_file *file;
    int rc = begin(sim);

    if (rc == 0) {
        rc = find_file(sim, fd, O_WRONLY, &file);
    }
    if (rc == 0 && size > file->size) {
        rc = set_size(sim, file, size);
    }
    return end(sim, rc);
}

static int sim_size(struct bop_fs *self, int fd, uint64_t *out_size)
{
    struct bop_fs_sim *sim = sim_of(self);
    int rc = begin(sim);

    if (rc == 0) {
        struct descriptor *d = find_descriptor(sim, fd);

        if (d) {
            *out_size = d->node->file.size;
        }
        rc = d ? 0 : -EBADF;
    }
    return end(sim, rc);
}

static int sim_lock(struct bop_fs *self, int fd)
{
    struct bop_fs_sim *sim = sim_of(self);
    int rc = begin(sim);

    if (rc == 0) {
        struct descriptor *d = find_descriptor(sim, fd);

        if (!d) {
            rc = -EBADF;
        } else if (d->node->lock_fd >= 0 && d->node->lock_fd != fd) {
            rc = BOP_ELOCKED;
        } else {
            d->node->lock_fd = fd;
        }
    }
    return end(sim, rc);
}

/* ---- Names ---- */

static int sim_unlink(struct bop_fs *self, const char *path)
{
    struct bop_fs_sim *sim = sim_of(self);
    int rc = begin(sim);

    return end(sim, rc < 0 ? rc : bop__sim_tree_unlink(&sim->tree, path));
}

static int sim_rename(struct bop_fs *self, const char *from, const char *to)
{
    struct bop_fs_sim *sim = sim_of(self);
    int rc = begin(sim);

    return end(sim, rc < 0 ? rc : bop__sim_tree_rename(&sim->tree, from, to));
}

static int sim_mkdir(struct bop_fs *self, const char *path)
{
    struct bop_fs_sim *sim = sim_of(self);
    int rc = begin(sim);

    return end(sim, rc < 0 ? rc : bop__sim_tree_mkdir(&sim->tree, path));
}

static int find_dir(struct bop_fs_sim *sim, const char *path, struct sim_node **out_dir)
{
    int rc = bop__sim_tree_find(&sim->tree, path, out_dir);

    return rc == 0 && !(*out_dir)->is_dir ? -ENOTDIR : rc;
}

static int sim_sync_dir(struct bop_fs *self, const char *path)
{
    struct bop_fs_sim *sim = sim_of(self);
    struct sim_node *dir;
    int rc = begin(sim);

    if (rc == 0) {
        rc = find_dir(sim, path, &dir);
    }
    if (rc == 0) {
        rc = sync_node(sim, dir);
    }
    return end(sim, rc);
}

/* Append the names in a directory, NUL after each. */
static int gather_names(struct bop_fs_sim *sim, const char *path, struct bop_buf *names)
{
    struct sim_node *dir;
    const char *name;
    size_t i = 0;
    int rc = find_dir(sim, path, &dir);

    while (rc == 0 && (name = bop__sim_dir_next(dir, &i)) != NULL) {
        rc = bop_buf_append(names, name, strlen(name) + 1);
    }
    return rc;
}

static int sim_list(struct bop_fs *self, const char *path, int (*fn)(void *user, const char *name),
                    void *user)
{
    struct bop_fs_sim *sim = sim_of(self);
    struct bop_buf names;
    int rc = begin(sim);

    bop_buf_init(&names, sim->allocator, 0);
    if (rc == 0) {
        rc = gather_names(sim, path, &names);
    }
    bop__sim_unlock(sim); /* fn may use the file system. */
    for (size_t at = 0; rc == 0 && at < names.size;) {
        const char *name = (const char *)names.data + at;

        at += strlen(name) + 1;
        rc = fn(user, name);
    }
    bop_buf_deinit(&names);
    return rc;
}

static int sim_free_bytes(struct bop_fs *self, const char *path, uint64_t *out_bytes)
{
    struct bop_fs_sim *sim = sim_of(self);
    struct sim_node *node;
    int rc = begin(sim);

    if (rc == 0) {
        rc = bop__sim_tree_find(&sim->tree, path, &node);
    }
    if (rc == 0) {
        *out_bytes = room(sim);
    }
    return end(sim, rc);
}

/* ---- The disk ---- */

static void set_functions(struct bop_fs *fs)
{
    *fs = (struct bop_fs){
        .open = sim_open,
        .close = sim_close,
        .pread = sim_pread,
        .pwrite = sim_pwrite,
        .sync = sim_sync,
        .truncate = sim_truncate,
        .allocate = sim_allocate,
        .size = sim_size,
        .unlink = sim_unlink,
        .rename = sim_rename,
        .mkdir = sim_mkdir,
        .sync_dir = sim_sync_dir,
        .list = sim_list,
        .lock = sim_lock,
        .free_bytes = sim_free_bytes,
    };
}

int bop_fs_sim_create(const struct bop_fs_sim_options *options, struct bop_fs_sim **out_sim)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "core.fs_sim");
    struct bop_fs_sim *sim = bop_alloc_zeroed(allocator, sizeof(*sim));
    int rc;

    if (!sim) {
        return BOP_ENOMEM;
    }
    if (options->tear_bytes != 0 && options->tear_bytes != SIM_SECTOR_BYTES &&
        options->tear_bytes != SIM_PAGE_BYTES) {
        bop_free(allocator, sim, sizeof(*sim));
        return BOP_EINVAL;
    }
    set_functions(&sim->fs);
    sim->tear_bytes = options->tear_bytes ? options->tear_bytes : SIM_SECTOR_BYTES;
    sim->faults = options->faults;
    sim->allocator = allocator;
    sim->capacity = options->capacity_bytes;
    bop_random_seed(&sim->random, options->seed);
    rc = bop__sim_tree_init(&sim->tree, allocator);
    if (rc < 0) {
        goto fail;
    }
    rc = -pthread_mutex_init(&sim->lock, NULL);
    if (rc < 0) {
        goto fail;
    }
    rc = -pthread_cond_init(&sim->released, NULL);
    if (rc < 0) {
        pthread_mutex_destroy(&sim->lock);
        goto fail;
    }
    *out_sim = sim;
    return 0;

fail:
    bop__sim_tree_deinit(&sim->tree);
    bop_free(allocator, sim, sizeof(*sim));
    return rc;
}

void bop_fs_sim_destroy(struct bop_fs_sim *sim)
{
    if (!sim) {
        return;
    }
    pthread_cond_destroy(&sim->released);
    pthread_mutex_destroy(&sim->lock);
    bop__sim_tree_deinit(&sim->tree);
    bop_free(sim->allocator, sim, sizeof(*sim));
}

struct bop_fs *bop_fs_sim_fs(struct bop_fs_sim *sim)
{
    return &sim->fs;
}
