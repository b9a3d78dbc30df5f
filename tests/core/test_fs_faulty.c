/*
 * The file system whose n-th operation fails.
 */
#include <bop/sim.h>

#include "tap.h"

struct fixture {
    struct bop_fs_sim *sim;
    struct bop_faults faults;
    struct bop_fs_faulty faulty;
    struct bop_fs *fs;
};

static void setup(struct fixture *f)
{
    struct bop_fs_sim_options options = {.seed = 1};

    REQUIRE_EQ(bop_fs_sim_create(&options, &f->sim), 0);
    bop_fs_faulty_init(&f->faulty, bop_fs_sim_fs(f->sim), &f->faults);
    f->fs = &f->faulty.fs;
}

static void teardown(struct fixture *f)
{
    bop_fs_sim_destroy(f->sim);
}

FIXTURE(setup, teardown)

TEST(faults, fire_once_at_their_step)
{
    struct bop_faults faults = {.fail_at = 3};

    CHECK_EQ(bop_faults_step(NULL, -EIO), 0);
    CHECK_EQ(bop_faults_step(&faults, -EIO), 0);
    CHECK_EQ(bop_faults_step(&faults, -EIO), 0);
    CHECK_EQ(faults.fired, 0);
    CHECK_EQ(bop_faults_step(&faults, BOP_ENOMEM), BOP_ENOMEM);
    CHECK_EQ(bop_faults_step(&faults, -EIO), 0);
    CHECK_EQ(faults.fired, BOP_ENOMEM);
    CHECK_EQ(faults.at, 4);
}

TEST(faults, never_fire_when_told_so)
{
    struct bop_faults faults = {.fail_at = 0};

    for (int i = 0; i < 100; i++) {
        CHECK_EQ(bop_faults_step(&faults, -EIO), 0);
    }
    CHECK_EQ(faults.at, 100);
    CHECK_EQ(faults.fired, 0);
}

static int no_name(void *user, const char *name)
{
    return 0;
}

/* Call everything; returns the one failure. Uses a second file, so that each call works
 * whether the others did or not. */
static int call_each(struct fixture *f, int fd)
{
    struct bop_fs *fs = f->fs;
    uint64_t out;
    char byte = 'x';
    int other = fs->open(fs, "other", O_RDWR | O_CREAT);
    int codes[] = {
        other < 0 ? other : 0,
        fs->pwrite(fs, fd, &byte, 1, 0) < 0 ? -EIO : 0,
        fs->pread(fs, fd, &byte, 1, 0) < 0 ? -EIO : 0,
        fs->sync(fs, fd),
        fs->truncate(fs, fd, 10),
        fs->allocate(fs, fd, 20),
        fs->size(fs, fd, &out),
        fs->lock(fs, fd),
        fs->mkdir(fs, "d"),
        fs->rename(fs, "f", "g"),
        fs->sync_dir(fs, "/"),
        fs->free_bytes(fs, "/", &out),
    };
    int rc = 0;

    /* What tidies up always works. */
    CHECK_EQ(fs->list(fs, "/", no_name, NULL), 0);
    CHECK_EQ(other < 0 ? 0 : fs->close(fs, other), 0);
    CHECK_EQ(other < 0 ? 0 : fs->unlink(fs, "other"), 0);
    for (size_t i = 0; i < BOP_COUNT_OF(codes); i++) {
        CHECK(codes[i] == 0 || rc == 0);
        rc = codes[i] ? codes[i] : rc;
    }
    return rc;
}

/* Each of the twelve that count fails in turn, and no other call sees it. */
TEST(fs_faulty, fails_each_operation_but_what_tidies_up)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_fs *under = bop_fs_sim_fs(f->sim);
        int fd = under->open(under, "f", O_RDWR | O_CREAT);
        int rc;

        REQUIRE(fd >= 0);
        rc = call_each(f, fd);
        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(f->faulty.open_files, 0);
        CHECK_EQ(under->close(under, fd), 0);
        bop_fs_sim_destroy(f->sim);
        REQUIRE_EQ(bop_fs_sim_create(&(struct bop_fs_sim_options){.seed = 1}, &f->sim), 0);
        f->faulty.under = bop_fs_sim_fs(f->sim);
    }
    CHECK_EQ(f->faults.at, 12);
}

TEST(fs_faulty, fails_with_the_code_given)
{
    f->faults = (struct bop_faults){.fail_at = 1, .code = -ENOSPC};
    CHECK_EQ(f->fs->open(f->fs, "f", O_RDWR | O_CREAT), -ENOSPC);
    CHECK_EQ(f->faults.fired, -ENOSPC);
    CHECK_EQ(f->faulty.open_files, 0);
    CHECK(!bop_fs_exists(f->fs, "f"));
}

TEST(fs_faulty, writes_half_when_a_write_fails)
{
    int fd = f->fs->open(f->fs, "f", O_RDWR | O_CREAT);
    char back[8];

    REQUIRE(fd >= 0);
    f->faults = (struct bop_faults){.fail_at = 1};
    CHECK_EQ(f->fs->pwrite(f->fs, fd, "abcdefg", 7, 0), -EIO);
    CHECK_EQ(f->fs->pread(f->fs, fd, back, 8, 0), 3); /* 7 / 2. */
    CHECK_MEM_EQ(back, "abc", 3);
}

TEST(fs_faulty, counts_open_files)
{
    int a = f->fs->open(f->fs, "f", O_RDWR | O_CREAT);
    int b = f->fs->open(f->fs, "f", O_RDONLY);

    CHECK_EQ(f->faulty.open_files, 2);
    CHECK_EQ(f->fs->open(f->fs, "none", O_RDONLY), -ENOENT);
    CHECK_EQ(f->faulty.open_files, 2);
    CHECK_EQ(f->fs->close(f->fs, a), 0);
    CHECK_EQ(f->fs->close(f->fs, a), -EBADF);
    CHECK_EQ(f->faulty.open_files, 1);
    CHECK_EQ(f->fs->close(f->fs, b), 0);
    CHECK_EQ(f->faulty.open_files, 0);
}

TEST(fs_faulty, works_without_faults)
{
    bop_fs_faulty_init(&f->faulty, bop_fs_sim_fs(f->sim), NULL);
    CHECK_EQ(bop_fs_write_file(f->fs, "f", bytes("content"), NULL), 0);
    CHECK(bop_fs_exists(f->fs, "f"));
}

TEST(fs_faulty, writes_half_in_whole_blocks_past_the_cache)
{
    static _Alignas(BOP_FS_ALIGN) char block[3 * BOP_FS_ALIGN];
    int fd = f->fs->open(f->fs, "f", O_RDWR | O_CREAT | O_DIRECT);
    uint64_t size;

    REQUIRE(fd >= 0);
    f->faults = (struct bop_faults){.fail_at = 1};
    CHECK_EQ(f->fs->pwrite(f->fs, fd, block, sizeof(block), 0), -EIO);
    CHECK_EQ(f->fs->size(f->fs, fd, &size), 0);
    CHECK_EQ(size, BOP_FS_ALIGN); /* Of three, one and a half. */
}

/* The simulated disk has no map, so neither has what is over it; the real one has. */
TEST(fs_faulty, maps_where_there_is_a_map)
{
    const char *path = test_path(test_tmpdir(), "f");
    const void *bytes = NULL;
    int fd;

    CHECK(!f->fs->map);
    CHECK(!f->fs->unmap);
    bop_fs_faulty_init(&f->faulty, bop_fs_real(), &f->faults);
    fd = f->fs->open(f->fs, path, O_RDWR | O_CREAT);
    REQUIRE(fd >= 0);
    CHECK_EQ(f->fs->pwrite(f->fs, fd, "abc", 3, 0), 3);
    f->faults = (struct bop_faults){.fail_at = 1};
    CHECK_EQ(f->fs->map(f->fs, fd, 3, &bytes), -EIO);
    CHECK_PTR_EQ(bytes, NULL);
    REQUIRE_EQ(f->fs->map(f->fs, fd, 3, &bytes), 0);
    CHECK_MEM_EQ(bytes, "abc", 3);
    CHECK_EQ(f->faults.at, 2);
    f->fs->unmap(f->fs, bytes, 3);
    CHECK_EQ(f->faults.at, 2); /* It tidies up. */
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
}
