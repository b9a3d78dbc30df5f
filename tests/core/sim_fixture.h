/*
 * What the tests of the simulated disk share: a disk for each seed, and files
 * filled with a letter.
 */
#ifndef BOP_TESTS_SIM_FIXTURE_H
#define BOP_TESTS_SIM_FIXTURE_H

#include <bop/sim.h>

#include "tap.h"

/* Enough for each outcome to be seen that has a chance worth the name. */
#define SEEDS 300

struct disk {
    struct test_heap *heap;
    struct bop_fs_sim *sim;
    struct bop_fs *fs;
    uint64_t capacity_bytes;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct disk disk;
};

static inline void disk_begin(struct disk *disk, uint64_t seed)
{
    struct bop_fs_sim_options options = {.allocator = disk->heap ? &disk->heap->allocator : NULL,
                                         .seed = seed,
                                         .capacity_bytes = disk->capacity_bytes};

    REQUIRE_EQ(bop_fs_sim_create(&options, &disk->sim), 0);
    disk->fs = bop_fs_sim_fs(disk->sim);
}

static inline void disk_end(struct disk *disk)
{
    bop_fs_sim_destroy(disk->sim);
    disk->sim = NULL;
    disk->fs = NULL;
}

/* One disk after another, until all seeds had theirs:
 *
 *     for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) { ... }
 */
static inline bool disk_of_seed(struct disk *disk, uint64_t seed)
{
    disk_end(disk);
    if (seed == SEEDS) {
        return false;
    }
    disk_begin(disk, seed);
    return true;
}

static inline void fixture_setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    f->disk.heap = &f->heap;
}

static inline void fixture_teardown(struct fixture *f)
{
    disk_end(&f->disk);
    CHECK_EQ(f->heap.live, 0);
}

static inline int open_file(struct disk *disk, const char *path)
{
    int fd = disk->fs->open(disk->fs, path, O_RDWR | O_CREAT);

    REQUIRE(fd >= 0);
    return fd;
}

/* Write `size` times a letter. At most 64 KiB. */
static inline void fill(struct disk *disk, int fd, char letter, size_t size, uint64_t offset)
{
    static char buffer[65536];

    REQUIRE(size <= sizeof(buffer));
    memset(buffer, letter, size);
    REQUIRE_EQ(bop_fs_write_all(disk->fs, fd, buffer, size, offset), 0);
}

/* A file of a letter, on disk with its name. Left open. */
static inline int make_durable(struct disk *disk, const char *path, char letter, size_t size)
{
    int fd = open_file(disk, path);

    fill(disk, fd, letter, size, 0);
    REQUIRE_EQ(disk->fs->sync(disk->fs, fd), 0);
    REQUIRE_EQ(disk->fs->sync_dir(disk->fs, "/"), 0);
    return fd;
}

static inline void close_file(struct disk *disk, int fd)
{
    CHECK_EQ(disk->fs->close(disk->fs, fd), 0);
}

static inline bool exists(struct disk *disk, const char *path)
{
    return bop_fs_exists(disk->fs, path);
}

/* The size of a file, -1 if there is none. */
static inline int64_t size_of(struct disk *disk, const char *path)
{
    int fd = disk->fs->open(disk->fs, path, O_RDONLY);
    uint64_t size;

    if (fd < 0) {
        CHECK_EQ(fd, -ENOENT);
        return -1;
    }
    REQUIRE_EQ(disk->fs->size(disk->fs, fd, &size), 0);
    close_file(disk, fd);
    return (int64_t)size;
}

/* The letter that [begin, end) of a file consists of: 0 for zeros, '?' for a mixture. */
static inline char letter_at(struct disk *disk, const char *path, uint64_t begin, uint64_t end)
{
    static char buffer[65536];
    int fd = disk->fs->open(disk->fs, path, O_RDONLY);
    size_t size = (size_t)(end - begin);

    REQUIRE(fd >= 0);
    REQUIRE(size > 0 && size <= sizeof(buffer));
    REQUIRE_EQ(bop_fs_read_exact(disk->fs, fd, buffer, size, begin), 0);
    close_file(disk, fd);
    for (size_t i = 1; i < size; i++) {
        if (buffer[i] != buffer[0]) {
            return '?';
        }
    }
    return buffer[0];
}

#endif
