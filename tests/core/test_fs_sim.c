/*
 * The simulated disk as a file system: descriptors, locks, room, and faults on
 * demand. What a power loss does has tests of its own beside this file.
 */
#include <pthread.h>
#include <stdio.h>

#include <bop/sim.h>

#include "sim_fixture.h"

#define SECTOR 512

FIXTURE(fixture_setup, fixture_teardown)

/* ---- Descriptors ---- */

TEST(sim, refuses_stale_and_strange_descriptors)
{
    struct disk *disk = &f->disk;
    struct bop_fs *fs;
    uint64_t size;
    char byte = 'x';
    int fd, next;

    disk_begin(disk, 1);
    fs = disk->fs;
    fd = open_file(disk, "f");
    close_file(disk, fd);
    next = open_file(disk, "f"); /* In the same place of the table. */
    CHECK(next != fd);
    CHECK_EQ(fs->pread(fs, fd, &byte, 1, 0), -EBADF);
    CHECK_EQ(fs->pwrite(fs, fd, &byte, 1, 0), -EBADF);
    CHECK_EQ(fs->sync(fs, fd), -EBADF);
    CHECK_EQ(fs->truncate(fs, fd, 0), -EBADF);
    CHECK_EQ(fs->allocate(fs, fd, 1), -EBADF);
    CHECK_EQ(fs->size(fs, fd, &size), -EBADF);
    CHECK_EQ(fs->lock(fs, fd), -EBADF);
    CHECK_EQ(fs->close(fs, fd), -EBADF);
    CHECK_EQ(fs->close(fs, -1), -EBADF);
    CHECK_EQ(fs->close(fs, 0), -EBADF);
    CHECK_EQ(fs->close(fs, INT32_MAX), -EBADF);
    CHECK_EQ(fs->close(fs, next), 0);
}

TEST(sim, heeds_how_a_file_was_opened)
{
    struct disk *disk = &f->disk;
    struct bop_fs *fs;
    char byte = 'x';
    int fd;

    disk_begin(disk, 1);
    fs = disk->fs;
    CHECK_EQ(fs->open(fs, "f", O_RDWR), -ENOENT);
    close_file(disk, make_durable(disk, "f", 'a', 100));
    CHECK_EQ(fs->open(fs, "f", O_RDWR | O_CREAT | O_EXCL), -EEXIST);
    CHECK_EQ(fs->open(fs, "f", O_RDWR | O_APPEND), BOP_EINVAL);
    CHECK_EQ(fs->open(fs, "f", O_RDONLY | O_TRUNC), BOP_EINVAL);
    fd = fs->open(fs, "f", O_RDONLY);
    REQUIRE(fd >= 0);
    CHECK_EQ(fs->pwrite(fs, fd, &byte, 1, 0), -EBADF);
    CHECK_EQ(fs->truncate(fs, fd, 0), -EBADF);
    CHECK_EQ(fs->allocate(fs, fd, 200), -EBADF);
    CHECK_EQ(fs->pread(fs, fd, &byte, 1, 0), 1);
    fd = fs->open(fs, "f", O_RDWR | O_CREAT | O_TRUNC);
    REQUIRE(fd >= 0);
    CHECK_EQ(size_of(disk, "f"), 0);
    CHECK_EQ(fs->pwrite(fs, fd, &byte, 1, UINT64_MAX), -EFBIG);
    CHECK_EQ(fs->truncate(fs, fd, UINT64_MAX), -EFBIG);
    CHECK_EQ(fs->allocate(fs, fd, UINT64_MAX), -EFBIG);
    CHECK_EQ(fs->open(fs, "/", O_RDWR), -EISDIR);
    fd = fs->open(fs, "/", O_RDONLY);
    REQUIRE(fd >= 0);
    CHECK_EQ(fs->pread(fs, fd, &byte, 1, 0), -EISDIR);
}

TEST(sim, wants_aligned_bytes_with_o_direct)
{
    static _Alignas(BOP_FS_ALIGN) char block[2 * BOP_FS_ALIGN];
    struct disk *disk = &f->disk;
    struct bop_fs *fs;
    int fd, plain;

    disk_begin(disk, 1);
    fs = disk->fs;
    plain = open_file(disk, "f");
    fd = fs->open(fs, "f", O_RDWR | O_DIRECT);
    REQUIRE(fd >= 0);
    CHECK_EQ(fs->pwrite(fs, fd, block, BOP_FS_ALIGN, BOP_FS_ALIGN), BOP_FS_ALIGN);
    CHECK_EQ(fs->pwrite(fs, fd, block + 512, BOP_FS_ALIGN, 0), -EINVAL);
    CHECK_EQ(fs->pwrite(fs, fd, block, BOP_FS_ALIGN + 512, 0), -EINVAL);
    CHECK_EQ(fs->pwrite(fs, fd, block, BOP_FS_ALIGN, 512), -EINVAL);
    CHECK_EQ(fs->pread(fs, fd, block + 512, BOP_FS_ALIGN, 0), -EINVAL);
    CHECK_EQ(fs->pread(fs, fd, block, 512, 0), -EINVAL);
    CHECK_EQ(fs->pread(fs, fd, block, BOP_FS_ALIGN, 512), -EINVAL);
    CHECK_EQ(fs->pwrite(fs, plain, block + 1, 3, 2 * BOP_FS_ALIGN + 5), 3); /* The other may. */
    CHECK_EQ(fs->pread(fs, fd, block, BOP_FS_ALIGN, 2 * BOP_FS_ALIGN), 8);  /* To the end. */
    CHECK(!fs->map);
}

TEST(sim, has_a_bound_on_descriptors)
{
    struct disk *disk = &f->disk;
    int fd = 0;

    disk_begin(disk, 1);
    for (int i = 0; i < 1024; i++) {
        fd = open_file(disk, "f");
    }
    CHECK_EQ(disk->fs->open(disk->fs, "f", O_RDONLY), -EMFILE);
    close_file(disk, fd);
    CHECK(open_file(disk, "f") != fd);
}

TEST(sim, locks_a_file_for_one_descriptor)
{
    struct disk *disk = &f->disk;
    struct bop_fs *fs;
    int a, b;

    disk_begin(disk, 1);
    fs = disk->fs;
    a = open_file(disk, "f");
    b = open_file(disk, "f");
    CHECK_EQ(fs->lock(fs, a), 0);
    CHECK_EQ(fs->lock(fs, a), 0);
    CHECK_EQ(fs->lock(fs, b), BOP_ELOCKED);
    close_file(disk, a);
    CHECK_EQ(fs->lock(fs, b), 0);
    CHECK_EQ(fs->lock(fs, open_file(disk, "f")), BOP_ELOCKED);
    bop_fs_sim_kill_process(disk->sim);
    CHECK_EQ(fs->lock(fs, open_file(disk, "f")), 0);
    bop_fs_sim_lose_power(disk->sim);
    CHECK_EQ(fs->lock(fs, open_file(disk, "f")), 0);
}

/* ---- Room ---- */

TEST(sim, fills_up_and_can_be_freed)
{
    struct disk *disk = &f->disk;
    struct bop_fs *fs;
    char buffer[1000] = {0};
    uint64_t room;
    int a, b;

    disk->capacity_bytes = 10000;
    disk_begin(disk, 1);
    fs = disk->fs;
    a = open_file(disk, "a");
    b = open_file(disk, "b");
    REQUIRE_EQ(fs->allocate(fs, a, 9500), 0);
    CHECK_EQ(fs->free_bytes(fs, "/", &room), 0);
    CHECK_EQ(room, 500);
    CHECK_EQ(fs->pwrite(fs, b, buffer, 1000, 0), 500); /* What there is room for. */
    CHECK_EQ(fs->pwrite(fs, b, buffer, 1000, 500), -ENOSPC);
    CHECK_EQ(fs->pwrite(fs, b, buffer, 1, 20000), -ENOSPC);
    CHECK_EQ(fs->allocate(fs, b, 501), -ENOSPC);
    CHECK_EQ(fs->truncate(fs, b, 501), -ENOSPC);
    CHECK_EQ(size_of(disk, "b"), 500);
    CHECK_EQ(fs->pwrite(fs, a, buffer, 1000, 8500), 1000); /* Inside its size. */
    REQUIRE_EQ(fs->truncate(fs, a, 9000), 0);
    CHECK_EQ(fs->pwrite(fs, b, buffer, 1000, 500), 500);
    REQUIRE_EQ(fs->unlink(fs, "a"), 0);
    CHECK_EQ(fs->free_bytes(fs, "/", &room), 0);
    CHECK_EQ(room, 0); /* Still open. */
    close_file(disk, a);
    CHECK_EQ(fs->free_bytes(fs, "/", &room), 0);
    CHECK_EQ(room, 9000);
    bop_fs_sim_set_capacity(disk->sim, 800);
    CHECK_EQ(fs->free_bytes(fs, "/", &room), 0);
    CHECK_EQ(room, 0);
    CHECK_EQ(fs->pwrite(fs, b, buffer, 1, 1000), -ENOSPC);
    bop_fs_sim_set_capacity(disk->sim, 0);
    CHECK_EQ(fs->pwrite(fs, b, buffer, 1, 1000), 1);
}

/* ---- Stopping ---- */

static int no_name(void *user, const char *name)
{
    return 0;
}

/* Call every operation that counts once; returns the number that worked. Each works if all do. */
static unsigned call_each(struct disk *disk, int fd)
{
    struct bop_fs *fs = disk->fs;
    uint64_t out;
    char byte = 'x';
    int other = fs->open(fs, "f", O_RDWR | O_CREAT);
    unsigned worked = other >= 0;

    worked += fs->pwrite(fs, fd, &byte, 1, 0) == 1;
    worked += fs->pread(fs, fd, &byte, 1, 0) == 1;
    worked += fs->sync(fs, fd) == 0;
    worked += fs->truncate(fs, fd, 10) == 0;
    worked += fs->allocate(fs, fd, 20) == 0;
    worked += fs->size(fs, fd, &out) == 0;
    worked += fs->lock(fs, fd) == 0;
    worked += fs->mkdir(fs, "d") == 0;
    worked += fs->rename(fs, "f", "g") == 0;
    worked += fs->unlink(fs, "g") == 0;
    worked += fs->sync_dir(fs, "/") == 0;
    worked += fs->list(fs, "/", no_name, NULL) == 0;
    worked += fs->free_bytes(fs, "/", &out) == 0;
    if (other >= 0) {
        CHECK_EQ(fs->close(fs, other), 0); /* Never fails, never counts. */
    }
    return worked;
}

TEST(sim, stops_at_each_operation)
{
    struct disk *disk = &f->disk;

    for (unsigned n = 1; n <= 15; n++) {
        uint64_t operations;
        int fd;

        disk_begin(disk, n);
        fd = open_file(disk, "start");
        operations = bop_fs_sim_operations(disk->sim);
        bop_fs_sim_stop_after(disk->sim, n);
        CHECK_EQ(call_each(disk, fd), n - 1);
        CHECK_EQ(bop_fs_sim_operations(disk->sim) - operations, 14);
        disk_end(disk);
    }
}

TEST(sim, changes_nothing_once_stopped)
{
    struct disk *disk = &f->disk;
    uint64_t digest;
    int fd;

    disk_begin(disk, 1);
    fd = make_durable(disk, "f", 'a', 100);
    digest = bop_fs_sim_digest(disk->sim);
    bop_fs_sim_stop_after(disk->sim, 1);
    CHECK_EQ(disk->fs->sync(disk->fs, fd), -EIO); /* The one it stops at. */
    CHECK_EQ(call_each(disk, fd), 0);
    CHECK_EQ(bop_fs_sim_digest(disk->sim), digest);
    bop_fs_sim_stop_after(disk->sim, 0);
    CHECK_EQ(call_each(disk, fd), 14);
}

TEST(sim, goes_on_after_the_process_or_the_power_was_gone)
{
    struct disk *disk = &f->disk;

    disk_begin(disk, 1);
    bop_fs_sim_stop_after(disk->sim, 1);
    bop_fs_sim_kill_process(disk->sim);
    close_file(disk, open_file(disk, "f"));
    bop_fs_sim_stop_after(disk->sim, 1);
    bop_fs_sim_lose_power(disk->sim);
    close_file(disk, open_file(disk, "f"));
}

/* The write that it stops at may be done up to some sector's end. */
TEST(sim, stops_amid_a_write)
{
    struct disk *disk = &f->disk;
    bool none = false, part = false, all = false;

    for (uint64_t seed = 0; disk_of_seed(disk, seed); seed++) {
        static const char data[1000];
        int fd = make_durable(disk, "f", 'a', 100);
        int64_t size;

        bop_fs_sim_stop_after(disk->sim, 1);
        CHECK_EQ(disk->fs->pwrite(disk->fs, fd, data, 1000, 100), -EIO);
        CHECK_EQ(disk->fs->pwrite(disk->fs, fd, data, 1000, 100), -EIO);
        bop_fs_sim_kill_process(disk->sim);
        size = size_of(disk, "f");
        none |= size == 100;
        part |= size == 512 || size == 1024;
        all |= size == 1100;
        CHECK(size == 100 || size == 512 || size == 1024 || size == 1100);
    }
    CHECK(none && part && all);
}

/* ---- Determinism ---- */

/* Some of everything; returns a digest of all that was seen on the way. */
static uint64_t random_run(struct disk *disk, uint64_t seed)
{
    struct bop_random random;
    uint64_t digest = 0;

    disk_begin(disk, seed);
    bop_random_seed(&random, 1); /* The same calls for all seeds of the disk. */
    for (int i = 0; i < 200; i++) {
        const char *names[] = {"a", "b", "c", "d"};
        const char *name = names[bop_random_below(&random, 4)];
        int fd;

        switch (bop_random_below(&random, 6)) {
        case 0:
            BOP_IGNORE(disk->fs->unlink(disk->fs, name)); /* Or there is none. */
            break;
        case 1:
            BOP_IGNORE(disk->fs->rename(disk->fs, name, names[bop_random_below(&random, 4)]));
            break;
        case 2:
            bop_fs_sim_lose_power(disk->sim);
            break;
        case 3:
            CHECK_EQ(disk->fs->sync_dir(disk->fs, "/"), 0);
            break;
        default:
            fd = open_file(disk, name);
            fill(disk, fd, (char)('a' + i % 26), bop_random_below(&random, 10000),
                 bop_random_below(&random, 5000));
            close_file(disk, fd);
        }
        digest = digest * 31 + bop_fs_sim_digest(disk->sim);
    }
    disk_end(disk);
    return digest;
}

TEST(sim, repeats_itself_for_the_same_seed)
{
    unsigned same = 0;

    for (uint64_t seed = 0; seed < 20; seed++) {
        uint64_t digest = random_run(&f->disk, seed);

        CHECK_EQ(random_run(&f->disk, seed), digest);
        same += random_run(&f->disk, seed + 1000) == digest;
    }
    CHECK_EQ(same, 0);
}

TEST(sim, has_a_digest_of_names_and_contents)
{
    struct disk *disk = &f->disk;
    uint64_t digests[6];

    disk_begin(disk, 1);
    digests[0] = bop_fs_sim_digest(disk->sim);
    close_file(disk, open_file(disk, "f"));
    digests[1] = bop_fs_sim_digest(disk->sim);
    CHECK_EQ(disk->fs->rename(disk->fs, "f", "g"), 0);
    digests[2] = bop_fs_sim_digest(disk->sim);
    CHECK_EQ(disk->fs->truncate(disk->fs, open_file(disk, "g"), 5000), 0);
    digests[3] = bop_fs_sim_digest(disk->sim);
    CHECK_EQ(bop_fs_sim_flip_bit(disk->sim, "g", 4999 * 8 + 7), 0);
    digests[4] = bop_fs_sim_digest(disk->sim);
    CHECK_EQ(disk->fs->mkdir(disk->fs, "d"), 0);
    digests[5] = bop_fs_sim_digest(disk->sim);
    for (int i = 0; i < 6; i++) {
        for (int j = 0; j < i; j++) {
            CHECK(digests[i] != digests[j]);
        }
    }
    /* A zero written and a zero never written are the same to a reader. */
    CHECK_EQ(bop_fs_sim_flip_bit(disk->sim, "g", 4999 * 8 + 7), 0);
    CHECK_EQ(disk->fs->rename(disk->fs, "d", "e"), 0);
    CHECK_EQ(disk->fs->rename(disk->fs, "e", "d"), 0);
    CHECK_EQ(bop_fs_sim_flip_bit(disk->sim, "g", 4999 * 8 + 7), 0);
    CHECK_EQ(bop_fs_sim_digest(disk->sim), digests[5]);
}

/* ---- Memory and threads ---- */

/* Returns the first failure. What failed for lack of memory changed nothing. */
static int use_memory(struct disk *disk)
{
    struct bop_fs *fs = disk->fs;
    char data[9000];
    int rc, fd;

    memset(data, 'x', sizeof(data));
    rc = fs->mkdir(fs, "d");
    if (rc < 0) {
        return rc;
    }
    fd = fs->open(fs, "d/f", O_RDWR | O_CREAT);
    if (fd < 0) {
        return fd;
    }
    /* A write that memory ran out in is short, as any may be. */
    rc = fs->pwrite(fs, fd, data, sizeof(data), 0) == sizeof(data) ? 0 : BOP_ENOMEM;
    if (rc == 0) {
        rc = fs->sync(fs, fd);
    }
    if (rc == 0) {
        uint64_t digest = bop_fs_sim_digest(disk->sim);

        rc = fs->truncate(fs, fd, 100);
        CHECK(rc == 0 || bop_fs_sim_digest(disk->sim) == digest);
    }
    if (rc == 0) {
        rc = fs->truncate(fs, fd, 9000);
    }
    if (rc == 0) {
        uint64_t digest = bop_fs_sim_digest(disk->sim);

        rc = fs->rename(fs, "d/f", "g");
        CHECK(rc == 0 || bop_fs_sim_digest(disk->sim) == digest);
    }
    if (rc == 0) {
        rc = fs->list(fs, "/", no_name, NULL);
    }
    if (rc == 0) {
        rc = bop_fs_sim_flip_bit(disk->sim, "g", 8 * 8000);
    }
    if (rc == 0) {
        rc = fs->unlink(fs, "g");
    }
    CHECK_EQ(fs->close(fs, fd), 0);
    return rc;
}

TEST(sim, survives_each_lack_of_memory)
{
    struct disk *disk = &f->disk;

    FAULT_SWEEP(&f->faults) {
        struct bop_fs_sim_options options = {.allocator = &f->heap.allocator, .seed = 1};
        int rc = bop_fs_sim_create(&options, &disk->sim);

        if (rc == 0) {
            disk->fs = bop_fs_sim_fs(disk->sim);
            rc = use_memory(disk);
            bop_fs_sim_lose_power(disk->sim);
        }
        CHECK_EQ(rc, f->faults.fired);
        disk_end(disk);
        CHECK_EQ(f->heap.live, 0);
    }
}

static void *write_and_read(void *user)
{
    struct disk *disk = user;
    static _Atomic int number;
    char path[16];
    int fd;

    snprintf(path, sizeof(path), "f%d", number++);
    fd = disk->fs->open(disk->fs, path, O_RDWR | O_CREAT);
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t back;

        CHECK_EQ(bop_fs_write_all(disk->fs, fd, &i, sizeof(i), i * 100), 0);
        CHECK_EQ(bop_fs_read_exact(disk->fs, fd, &back, sizeof(back), i * 100), 0);
        CHECK_EQ(back, i);
        CHECK_EQ(disk->fs->sync(disk->fs, fd), 0);
    }
    CHECK_EQ(disk->fs->close(disk->fs, fd), 0);
    return NULL;
}

TEST(sim, may_be_used_by_several_threads)
{
    pthread_t threads[4];

    disk_begin(&f->disk, 1);
    for (int i = 0; i < 4; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, write_and_read, &f->disk), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
}
