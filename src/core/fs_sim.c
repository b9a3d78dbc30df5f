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

#include "fs_sim.h"

/* A descriptor is a slot and, above it, how often the slot was used: a closed one stays
 * invalid when the slot is used again, and none equals a descriptor of the real system's
 * standard streams. */
#define FD_SLOT_BITS       10
#define FD_SLOTS           (1u << FD_SLOT_BITS)
#define FD_GENERATIONS_MAX (1u << 20)

/* What a disk without a bound says of its room. */
#define ROOM_WITHOUT_BOUND (UINT64_C(1) << 50)

#define ACCESS_MODES (O_RDONLY | O_WRONLY | O_RDWR)
#define OPEN_FLAGS   (ACCESS_MODES | O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | O_DIRECT)

struct descriptor {
    struct sim_node *node; /* NULL: free. */
    unsigned generation;   /* From 1. */
    int access;
    bool direct;
};

struct bop_fs_sim {
    struct bop_fs fs;
    struct bop_allocator *allocator;
    pthread_mutex_t lock; /* Over all that follows. */
    struct bop_random random;
    uint64_t capacity; /* 0: no limit. */
    uint64_t operations;
    uint64_t stop_at; /* The first operation that fails; 0: none. */
    unsigned failing_syncs;
    struct sim_tree tree;
    struct descriptor descriptors[FD_SLOTS];
};

/* ---- Entering and leaving ---- */

static struct bop_fs_sim *sim_of(struct bop_fs *self)
{
    return BOP_CONTAINER_OF(self, struct bop_fs_sim, fs);
}

/* Looking takes the lock too, which const does not mean. */
static struct bop_fs_sim *lock_sim(const struct bop_fs_sim *const_sim)
{
    struct bop_fs_sim *sim = (struct bop_fs_sim *)(uintptr_t)const_sim;

    BOP_IGNORE(pthread_mutex_lock(&sim->lock)); /* Cannot fail: taken once, by us. */
    return sim;
}

static void unlock_sim(struct bop_fs_sim *sim)
{
    BOP_IGNORE(pthread_mutex_unlock(&sim->lock));
}

/* Begin an operation: lock, and count it. Returns 0, or -EIO if it is not to happen. */
static int begin(struct bop_fs_sim *sim)
{
    lock_sim(sim);
    sim->operations++;
    return sim->stop_at != 0 && sim->operations >= sim->stop_at ? -EIO : 0;
}

static int end(struct bop_fs_sim *sim, int rc)
{
    unlock_sim(sim);
    return rc;
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

static void close_descriptor(struct bop_fs_sim *sim, struct descriptor *d)
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
    struct bop_fs_sim *sim = lock_sim(sim_of(self));
    struct descriptor *d = find_descriptor(sim, fd);

    if (!d) {
        return end(sim, -EBADF);
    }
    close_descriptor(sim, d);
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
        count = (ssize_t)bop__sim_file_read(file, out_bytes, size, offset);
    }
    unlock_sim(sim);
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
    uint64_t first = offset / SIM_SECTOR_BYTES;
    uint64_t sectors = (offset % SIM_SECTOR_BYTES + size + SIM_SECTOR_BYTES - 1) / SIM_SECTOR_BYTES;
    uint64_t cut = (first + bop_random_below(&sim->random, sectors + 1)) * SIM_SECTOR_BYTES;

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
        count = count < 0 ? count : write_file(sim, fd, bytes, size, offset);
    } else if (sim->operations == sim->stop_at && offset <= SIM_FILE_BYTES_MAX &&
               size <= SIM_FILE_BYTES_MAX) {
        write_part(sim, fd, bytes, size, offset);
    }
    unlock_sim(sim);
    return count;
}

/* True once for each sync that is to fail. */
static bool take_failing_sync(struct bop_fs_sim *sim)
{
    if (sim->failing_syncs == 0) {
        return false;
    }
    sim->failing_syncs--;
    return true;
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
    unlock_sim(sim); /* fn may use the file system. */
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
    set_functions(&sim->fs);
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
    pthread_mutex_destroy(&sim->lock);
    bop__sim_tree_deinit(&sim->tree);
    bop_free(sim->allocator, sim, sizeof(*sim));
}

struct bop_fs *bop_fs_sim_fs(struct bop_fs_sim *sim)
{
    return &sim->fs;
}

static void forget_process(struct bop_fs_sim *sim)
{
    for (unsigned slot = 0; slot < FD_SLOTS; slot++) {
        if (sim->descriptors[slot].node) {
            close_descriptor(sim, &sim->descriptors[slot]);
        }
    }
    sim->stop_at = 0;
}

void bop_fs_sim_kill_process(struct bop_fs_sim *sim)
{
    lock_sim(sim);
    forget_process(sim);
    unlock_sim(sim);
}

void bop_fs_sim_lose_power(struct bop_fs_sim *sim)
{
    enum sim_fate fate = SIM_FATE_CHANCE;

    lock_sim(sim);
    forget_process(sim);
    /* Now and then the whole disk is lucky or not: a mixture alone would hardly ever
     * show those ends when there are many files. */
    switch (bop_random_below(&sim->random, 8)) {
    case 0:
        fate = SIM_FATE_KEEP;
        break;
    case 1:
        fate = SIM_FATE_DROP;
        break;
    default:
        break;
    }
    bop__sim_tree_lose_power(&sim->tree, &sim->random, fate);
    BOP_LIST_FOR_EACH(link, &sim->tree.nodes) {
        struct sim_node *node = BOP_CONTAINER_OF(link, struct sim_node, link);

        bop__sim_file_lose_power(&node->file, &sim->random, fate);
    }
    unlock_sim(sim);
}

void bop_fs_sim_stop_after(struct bop_fs_sim *sim, uint64_t operations)
{
    lock_sim(sim);
    sim->stop_at = operations ? sim->operations + operations : 0;
    unlock_sim(sim);
}

uint64_t bop_fs_sim_operations(const struct bop_fs_sim *const_sim)
{
    struct bop_fs_sim *sim = lock_sim(const_sim);
    uint64_t operations = sim->operations;

    unlock_sim(sim);
    return operations;
}

void bop_fs_sim_fail_syncs(struct bop_fs_sim *sim, unsigned count)
{
    lock_sim(sim);
    sim->failing_syncs = count;
    unlock_sim(sim);
}

void bop_fs_sim_set_capacity(struct bop_fs_sim *sim, uint64_t capacity_bytes)
{
    lock_sim(sim);
    sim->capacity = capacity_bytes;
    unlock_sim(sim);
}

int bop_fs_sim_flip_bit(struct bop_fs_sim *sim, const char *path, uint64_t bit)
{
    struct sim_node *node;
    int rc;

    lock_sim(sim);
    rc = bop__sim_tree_find(&sim->tree, path, &node);
    if (rc == 0) {
        rc = bop__sim_file_flip_bit(&node->file, bit);
    }
    unlock_sim(sim);
    return rc;
}

uint64_t bop_fs_sim_digest(const struct bop_fs_sim *const_sim)
{
    struct bop_fs_sim *sim = lock_sim(const_sim);
    uint64_t digest = bop__sim_tree_digest(&sim->tree);

    unlock_sim(sim);
    return digest;
}
