/*
 * The helpers over any file system, most of all that a file is replaced whole
 * whatever fails and whenever the power goes.
 */
#include <limits.h>
#include <stdio.h>

#include <bop/sim.h>

#include "tap.h"

#define SEEDS 100

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_sim *sim;
    struct bop_fs_faulty faulty;
    struct bop_fs *fs;
    struct bop_buf buf;
};

static void begin(struct fixture *f, uint64_t seed)
{
    struct bop_fs_sim_options options = {.seed = seed};

    REQUIRE_EQ(bop_fs_sim_create(&options, &f->sim), 0);
    bop_fs_faulty_init(&f->faulty, bop_fs_sim_fs(f->sim), &f->faults);
    f->fs = &f->faulty.fs;
}

static void end(struct fixture *f)
{
    CHECK_EQ(f->faulty.open_files, 0);
    bop_fs_sim_destroy(f->sim);
    f->sim = NULL;
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop_buf_init(&f->buf, &f->heap.allocator, 0);
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->buf);
    bop_fs_sim_destroy(f->sim);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* ---- Reading and writing ---- */

/* A file system that does three bytes at a time, and none from `stuck_at` on. */
struct slow_fs {
    struct bop_fs fs;
    struct bop_fs *under;
    uint64_t stuck_at;
};

static ssize_t slow_pread(struct bop_fs *self, int fd, void *out_bytes, size_t size,
                          uint64_t offset)
{
    struct slow_fs *slow = BOP_CONTAINER_OF(self, struct slow_fs, fs);

    return slow->under->pread(slow->under, fd, out_bytes, bop_min_u64(size, 3), offset);
}

static ssize_t slow_pwrite(struct bop_fs *self, int fd, const void *data, size_t size,
                           uint64_t offset)
{
    struct slow_fs *slow = BOP_CONTAINER_OF(self, struct slow_fs, fs);

    if (offset >= slow->stuck_at) {
        return 0;
    }
    return slow->under->pwrite(slow->under, fd, data, bop_min_u64(size, 3), offset);
}

TEST(fs_util, goes_on_after_short_reads_and_writes)
{
    struct slow_fs slow = {.fs = {.pread = slow_pread, .pwrite = slow_pwrite},
                           .stuck_at = UINT64_MAX};
    char back[10];
    int fd;

    begin(f, 1);
    slow.under = f->fs;
    fd = f->fs->open(f->fs, "f", O_RDWR | O_CREAT);
    CHECK_EQ(bop_fs_write_all(&slow.fs, fd, "0123456789", 10, 100), 0);
    CHECK_EQ(bop_fs_read_exact(&slow.fs, fd, back, 10, 100), 0);
    CHECK_MEM_EQ(back, "0123456789", 10);
    CHECK_EQ(bop_fs_read_exact(&slow.fs, fd, back, 10, 101), BOP_ETRUNCATED);
    CHECK_EQ(bop_fs_read_exact(&slow.fs, fd, back, 0, 1000), 0);
    CHECK_EQ(bop_fs_read_exact(&slow.fs, -1, back, 1, 0), -EBADF);
    CHECK_EQ(bop_fs_write_all(&slow.fs, fd, "", 0, 0), 0);
    slow.stuck_at = 5;
    CHECK_EQ(bop_fs_write_all(&slow.fs, fd, "0123456789", 10, 0), -EIO);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
    end(f);
}

TEST(fs_util, reads_a_whole_file_after_what_is_there)
{
    begin(f, 1);
    REQUIRE_EQ(bop_fs_write_file(f->fs, "f", bytes("content"), NULL), 0);
    REQUIRE_EQ(bop_fs_write_file(f->fs, "empty", bytes(""), NULL), 0);
    REQUIRE_EQ(bop_buf_append(&f->buf, "some ", 5), 0);
    CHECK_EQ(bop_fs_read_file(f->fs, "f", 7, &f->buf), 0);
    CHECK_EQ(bop_fs_read_file(f->fs, "empty", 0, &f->buf), 0);
    CHECK_EQ(bop_fs_read_file(f->fs, "f", 6, &f->buf), BOP_ETOOBIG);
    CHECK_EQ(bop_fs_read_file(f->fs, "none", 7, &f->buf), -ENOENT);
    CHECK_EQ(bop_fs_read_file(f->fs, "/", 7, &f->buf), -EISDIR);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("some content"));
    CHECK_EQ(bop_fs_read_file(f->fs, "f", SIZE_MAX, &f->buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("some contentcontent"));
    end(f);
}

TEST(fs_util, heeds_the_bound_of_the_buffer)
{
    begin(f, 1);
    REQUIRE_EQ(bop_fs_write_file(f->fs, "f", bytes("content"), NULL), 0);
    f->buf.size_max = 6;
    CHECK_EQ(bop_fs_read_file(f->fs, "f", 100, &f->buf), BOP_EFULL);
    CHECK_EQ(f->buf.size, 0);
    f->buf.size_max = 7;
    CHECK_EQ(bop_fs_read_file(f->fs, "f", 100, &f->buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("content"));
    end(f);
}

/* Files in /proc say that they are empty. */
TEST(fs_util, reads_files_that_do_not_know_their_size)
{
    const char *path = "/proc/self/smaps";

    if (!bop_fs_exists(bop_fs_real(), path)) {
        TEST_SKIP("no /proc/self/smaps here");
    }
    CHECK_EQ(bop_fs_read_file(bop_fs_real(), path, 1 << 24, &f->buf), 0);
    CHECK(f->buf.size > 4096);
    bop_buf_clear(&f->buf);
    CHECK_EQ(bop_fs_read_file(bop_fs_real(), path, 100, &f->buf), BOP_ETOOBIG);
    CHECK_EQ(f->buf.size, 0);
}

TEST(fs_util, survives_each_fault_of_a_read)
{
    begin(f, 1);
    REQUIRE_EQ(bop_fs_write_file(f->fs, "f", bytes("content"), NULL), 0);
    FAULT_SWEEP(&f->faults) {
        struct bop_buf buf;
        int rc;

        bop_buf_init(&buf, &f->heap.allocator, 0);
        rc = bop_fs_read_file(f->fs, "f", 100, &buf);
        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(buf.size, f->faults.fired ? 0 : 7);
        CHECK_EQ(f->faulty.open_files, 0);
        bop_buf_deinit(&buf);
    }
    CHECK_EQ(f->faults.at, 5); /* open, size, memory, read, read at the end. */
    end(f);
}

/* ---- Replacing a file ---- */

/* More than a page, so that it can be torn. */
static char old_content[6000];
static char new_content[9000];

static struct bop_slice old_slice(void)
{
    memset(old_content, 'o', sizeof(old_content));
    return bop_slice(old_content, sizeof(old_content));
}

static struct bop_slice new_slice(void)
{
    memset(new_content, 'n', sizeof(new_content));
    return bop_slice(new_content, sizeof(new_content));
}

/* Which content the file has: 'o', 'n', or '?' if none of them whole. */
static char which(struct fixture *f, const char *path)
{
    struct bop_slice content;

    bop_buf_clear(&f->buf);
    REQUIRE_EQ(bop_fs_read_file(f->fs, path, 1 << 20, &f->buf), 0);
    content = bop_buf_slice(&f->buf);
    if (bop_slice_equal(content, old_slice())) {
        return 'o';
    }
    return bop_slice_equal(content, new_slice()) ? 'n' : '?';
}

static void begin_with_old(struct fixture *f, uint64_t seed)
{
    begin(f, seed);
    REQUIRE_EQ(bop_fs_mkdirs(f->fs, "/a/b"), 0);
    REQUIRE_EQ(bop_fs_write_file(f->fs, "/a/b/f", old_slice(), NULL), 0);
}

TEST(fs_util, replaces_a_file)
{
    begin_with_old(f, 1);
    CHECK_EQ(which(f, "/a/b/f"), 'o');
    CHECK_EQ(bop_fs_write_file(f->fs, "/a/b/f", new_slice(), NULL), 0);
    CHECK_EQ(which(f, "/a/b/f"), 'n');
    CHECK(!bop_fs_exists(f->fs, "/a/b/f.tmp"));
    end(f);
}

/* begin_with_old() without a fault and without being counted. */
static void prepare(struct fixture *f, uint64_t seed)
{
    struct bop_faults faults = f->faults;

    f->faults.fail_at = 0;
    begin_with_old(f, seed);
    f->faults = faults;
}

/* Whatever fails, and whether then the process or the power dies: the file is old or new, whole;
 * new if the call said so. */
TEST(fs_util, replaces_whole_whatever_fails)
{
    unsigned kept = 0, replaced = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        FAULT_SWEEP(&f->faults) {
            struct bop_error err = {0};
            char found;
            int rc;

            prepare(f, seed);
            rc = bop_fs_write_file(f->fs, "/a/b/f", new_slice(), &err);
            CHECK_EQ(rc, f->faults.fired);
            CHECK_EQ(err.code, rc);
            CHECK_EQ(f->faulty.open_files, 0);
            f->faults.fail_at = 0;
            CHECK(!bop_fs_exists(f->fs, "/a/b/f.tmp"));
            if (seed % 4 == 0) {
                bop_fs_sim_kill_process(f->sim);
            } else {
                bop_fs_sim_lose_power(f->sim);
            }
            found = which(f, "/a/b/f");
            CHECK(found == 'n' || (found == 'o' && rc < 0));
            kept += found == 'o';
            replaced += found == 'n' && rc < 0;
            end(f);
        }
    }
    CHECK(kept > 0 && replaced > 0);
}

/* The same with everything failing from an operation on, as when the machine stops there. */
TEST(fs_util, replaces_whole_wherever_it_stops)
{
    unsigned kept = 0, replaced = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        for (uint64_t n = 1; n <= 6; n++) {
            char found;
            int rc;

            begin_with_old(f, seed);
            bop_fs_sim_stop_after(f->sim, n);
            rc = bop_fs_write_file(f->fs, "/a/b/f", new_slice(), NULL);
            CHECK_EQ(rc, n <= 5 ? -EIO : 0); /* open, write, sync, rename, sync of the directory. */
            bop_fs_sim_lose_power(f->sim);
            found = which(f, "/a/b/f");
            CHECK(found == 'n' || (found == 'o' && rc < 0));
            kept += found == 'o';
            replaced += found == 'n' && rc < 0;
            /* What was left behind is in nobody's way. */
            CHECK_EQ(bop_fs_write_file(f->fs, "/a/b/f", old_slice(), NULL), 0);
            bop_fs_sim_lose_power(f->sim);
            CHECK_EQ(which(f, "/a/b/f"), 'o');
            CHECK(!bop_fs_exists(f->fs, "/a/b/f.tmp"));
            end(f);
        }
    }
    CHECK(kept > 0 && replaced > 0);
}

TEST(fs_util, says_what_it_could_not_do)
{
    struct bop_error err = {0};
    char path[PATH_MAX + 10];

    begin(f, 1);
    CHECK_EQ(bop_fs_write_file(f->fs, "none/f", bytes("x"), &err), -ENOENT);
    CHECK_STR_HAS(err.message, "create none/f.tmp: ");
    REQUIRE_EQ(f->fs->mkdir(f->fs, "d"), 0);
    CHECK_EQ(bop_fs_write_file(f->fs, "d", bytes("x"), &err), -EISDIR);
    CHECK_STR_HAS(err.message, "rename d.tmp to d: ");
    CHECK(!bop_fs_exists(f->fs, "d.tmp"));
    memset(path, 'x', sizeof(path));
    path[PATH_MAX - 4] = '\0'; /* Too long with ".tmp" and its NUL. */
    CHECK_EQ(bop_fs_write_file(f->fs, path, bytes("x"), NULL), -ENAMETOOLONG);
    end(f);
}

TEST(fs_util, leaves_the_old_file_on_a_full_disk)
{
    begin_with_old(f, 1);
    bop_fs_sim_set_capacity(f->sim, 10000); /* 6000 + 9000 do not fit. */
    CHECK_EQ(bop_fs_write_file(f->fs, "/a/b/f", new_slice(), NULL), -ENOSPC);
    CHECK_EQ(which(f, "/a/b/f"), 'o');
    bop_fs_sim_set_capacity(f->sim, 15000);
    CHECK_EQ(bop_fs_write_file(f->fs, "/a/b/f", new_slice(), NULL), 0); /* The rest was freed. */
    end(f);
}

/* ---- Directories ---- */

TEST(fs_util, makes_all_directories_of_a_path)
{
    begin(f, 1);
    CHECK_EQ(bop_fs_mkdirs(f->fs, "/a//b/./c/"), 0);
    CHECK_EQ(bop_fs_mkdirs(f->fs, "/a/b/c"), 0);
    CHECK_EQ(bop_fs_mkdirs(f->fs, "/"), 0);
    CHECK_EQ(bop_fs_mkdirs(f->fs, "d"), 0);
    CHECK(bop_fs_exists(f->fs, "/a/b/c"));
    CHECK(bop_fs_exists(f->fs, "/d"));
    REQUIRE_EQ(bop_fs_write_file(f->fs, "/a/f", bytes("x"), NULL), 0);
    CHECK_EQ(bop_fs_mkdirs(f->fs, "/a/f"), -ENOTDIR);
    CHECK_EQ(bop_fs_mkdirs(f->fs, "/a/f/g"), -ENOTDIR);
    CHECK_EQ(bop_fs_mkdirs(f->fs, ""), -ENOENT);
    CHECK(!bop_fs_exists(f->fs, "/e"));
    end(f);
}

TEST(fs_util, reports_each_fault_of_making_directories)
{
    FAULT_SWEEP(&f->faults) {
        int rc;

        begin(f, 1);
        rc = bop_fs_mkdirs(f->fs, "a/b");
        CHECK_EQ(rc, f->faults.fired);
        end(f);
    }
    CHECK_EQ(f->faults.at, 4); /* Two made, and the directory of each synced. */
}
