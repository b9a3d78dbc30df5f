/*
 * The real file system, in a directory of its own.
 */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

struct fixture {
    struct bop_fs *fs;
    const char *dir;
    const char *path; /* A file in it, not made yet. */
    struct bop_buf buf;
};

static void setup(struct fixture *f)
{
    f->fs = bop_fs_real();
    f->dir = test_tmpdir();
    f->path = test_path(f->dir, "f");
    bop_buf_init(&f->buf, NULL, 0);
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->buf);
}

FIXTURE(setup, teardown)

static int open_file(struct fixture *f)
{
    int fd = f->fs->open(f->fs, f->path, O_RDWR | O_CREAT);

    REQUIRE(fd >= 0);
    return fd;
}

TEST(fs_real, writes_and_reads)
{
    char buffer[16];
    uint64_t size;
    int fd = open_file(f);

    CHECK_EQ(f->fs->pwrite(f->fs, fd, "hello", 5, 1000), 5);
    CHECK_EQ(f->fs->pread(f->fs, fd, buffer, 16, 998), 7);
    CHECK_MEM_EQ(buffer, "\0\0hello", 7);
    CHECK_EQ(f->fs->pread(f->fs, fd, buffer, 16, 1005), 0);
    f->fs->write_back(f->fs, fd, 0, 1005); /* Whatever comes of it, nothing is told. */
    f->fs->write_back(f->fs, -1, 0, 1005);
    CHECK_EQ(f->fs->sync(f->fs, fd), 0);
    CHECK_EQ(f->fs->size(f->fs, fd, &size), 0);
    CHECK_EQ(size, 1005);
    CHECK_EQ(f->fs->truncate(f->fs, fd, 1002), 0);
    CHECK_EQ(f->fs->allocate(f->fs, fd, 1004), 0);
    CHECK_EQ(f->fs->allocate(f->fs, fd, 0), 0);
    CHECK_EQ(f->fs->pread(f->fs, fd, buffer, 16, 1000), 4);
    CHECK_MEM_EQ(buffer, "he\0\0", 4);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
}

TEST(fs_real, maps_what_is_written_before_and_after)
{
    const void *bytes;
    int fd = open_file(f);

    CHECK_EQ(f->fs->map(f->fs, fd, 0, &bytes), -EINVAL);
    CHECK_EQ(f->fs->map(f->fs, -1, 1, &bytes), -EBADF);
    CHECK_EQ(f->fs->allocate(f->fs, fd, 10000), 0);
    CHECK_EQ(f->fs->pwrite(f->fs, fd, "hello", 5, 5000), 5);
    REQUIRE_EQ(f->fs->map(f->fs, fd, 10000, &bytes), 0);
    CHECK_MEM_EQ((const char *)bytes + 4998, "\0\0hello\0", 8);
    CHECK_EQ(f->fs->pwrite(f->fs, fd, "again", 5, 9995), 5);
    CHECK_EQ(f->fs->close(f->fs, fd), 0); /* The map stays. */
    CHECK_MEM_EQ((const char *)bytes + 9994, "\0again", 6);
    f->fs->unmap(f->fs, bytes, 10000);
    fd = f->fs->open(f->fs, "/", O_RDONLY); /* A directory has nothing to map. */
    REQUIRE(fd >= 0);
    CHECK_EQ(f->fs->map(f->fs, fd, 1, &bytes), BOP_EUNSUPPORTED);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
}

TEST(fs_real, reads_and_writes_past_the_cache)
{
    static _Alignas(BOP_FS_ALIGN) char block[2 * BOP_FS_ALIGN];
    char buffer[4];
    int fd = f->fs->open(f->fs, f->path, O_RDWR | O_CREAT | O_DIRECT);

    if (fd == -EINVAL) {
        TEST_SKIP("no O_DIRECT in the tests' directory");
    }
    REQUIRE(fd >= 0);
    memset(block, 'x', sizeof(block));
    CHECK_EQ(f->fs->pwrite(f->fs, fd, block, sizeof(block), BOP_FS_ALIGN), sizeof(block));
    CHECK_EQ(f->fs->sync(f->fs, fd), 0);
    CHECK_EQ(f->fs->pread(f->fs, fd, block, BOP_FS_ALIGN, 0), BOP_FS_ALIGN);
    CHECK_EQ(block[BOP_FS_ALIGN - 1], 0);
    CHECK_EQ(f->fs->pwrite(f->fs, fd, block, 100, 1), -EINVAL);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
    fd = open_file(f);
    CHECK_EQ(f->fs->pread(f->fs, fd, buffer, 4, BOP_FS_ALIGN - 2), 4);
    CHECK_MEM_EQ(buffer, "\0\0xx", 4);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
}

TEST(fs_real, makes_private_files_that_children_do_not_inherit)
{
    struct stat st;
    int fd = open_file(f);
    const char *dir = test_path(f->dir, "d");

    REQUIRE_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_mode & 0777 & ~0600, 0);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK_EQ(f->fs->mkdir(f->fs, dir), 0);
    REQUIRE_EQ(stat(dir, &st), 0);
    CHECK_EQ(st.st_mode & 0777 & ~0700, 0);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
}

TEST(fs_real, gives_the_systems_errors)
{
    uint64_t out;
    char byte = 0;
    int fd;

    CHECK_EQ(f->fs->open(f->fs, f->path, O_RDONLY), -ENOENT);
    fd = open_file(f);
    CHECK_EQ(f->fs->open(f->fs, f->path, O_RDWR | O_CREAT | O_EXCL), -EEXIST);
    CHECK_EQ(f->fs->open(f->fs, f->dir, O_RDWR), -EISDIR);
    CHECK_EQ(f->fs->pread(f->fs, fd, &byte, 1, UINT64_MAX), BOP_EINVAL);
    CHECK_EQ(f->fs->pwrite(f->fs, fd, &byte, 1, UINT64_MAX), -EFBIG);
    CHECK_EQ(f->fs->truncate(f->fs, fd, UINT64_MAX), -EFBIG);
    CHECK_EQ(f->fs->allocate(f->fs, fd, UINT64_MAX), -EFBIG);
    CHECK_EQ(f->fs->mkdir(f->fs, f->dir), -EEXIST);
    CHECK_EQ(f->fs->sync_dir(f->fs, f->path), -ENOTDIR);
    CHECK_EQ(f->fs->list(f->fs, f->path, NULL, NULL), -ENOTDIR);
    CHECK_EQ(f->fs->unlink(f->fs, f->path), 0);
    CHECK_EQ(f->fs->unlink(f->fs, f->path), -ENOENT);
    CHECK_EQ(f->fs->rename(f->fs, f->path, f->path), -ENOENT);
    CHECK_EQ(f->fs->free_bytes(f->fs, f->path, &out), -ENOENT);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
    CHECK_EQ(f->fs->close(f->fs, -1), -EBADF);
    CHECK_EQ(f->fs->sync(f->fs, -1), -EBADF);
    CHECK_EQ(f->fs->truncate(f->fs, -1, 0), -EBADF);
    CHECK_EQ(f->fs->allocate(f->fs, -1, 1), -EBADF);
    CHECK_EQ(f->fs->size(f->fs, -1, &out), -EBADF);
    CHECK_EQ(f->fs->lock(f->fs, -1), -EBADF);
}

/* -ENOSPC where the disk is full; this device always is. */
TEST(fs_real, reports_a_full_disk)
{
    int fd = f->fs->open(f->fs, "/dev/full", O_RDWR);

    if (fd < 0) {
        TEST_SKIP("no /dev/full here");
    }
    CHECK_EQ(bop_fs_write_all(f->fs, fd, "x", 1, 0), -ENOSPC);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
}

TEST(fs_real, knows_the_room)
{
    uint64_t room = 0;

    CHECK_EQ(f->fs->free_bytes(f->fs, f->dir, &room), 0);
    CHECK(room > 0);
}

/* ---- Names ---- */

static int gather(void *user, const char *name)
{
    struct bop_buf *text = user;

    if (name[0] == 'x') {
        return 7;
    }
    CHECK_EQ(bop_buf_append(text, name, strlen(name)), 0);
    return bop_buf_append(text, " ", 1);
}

TEST(fs_real, lists_in_byte_order)
{
    const char *names[] = {"b", "ab", "a", "a.b", "\xc3\xa9", "B"};

    CHECK_EQ(f->fs->list(f->fs, f->dir, gather, &f->buf), 0);
    CHECK_EQ(f->buf.size, 0);
    for (size_t i = 0; i < BOP_COUNT_OF(names); i++) {
        const char *path = test_path(f->dir, names[i]);

        CHECK_EQ(bop_fs_write_file(f->fs, path, bytes(""), NULL), 0);
    }
    CHECK_EQ(f->fs->list(f->fs, f->dir, gather, &f->buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("B a a.b ab b \xc3\xa9 "));
    bop_buf_clear(&f->buf);
    CHECK_EQ(bop_fs_write_file(f->fs, test_path(f->dir, "x"), bytes(""), NULL), 0);
    CHECK_EQ(f->fs->list(f->fs, f->dir, gather, &f->buf), 7);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("B a a.b ab b "));
}

TEST(fs_real, replaces_files_and_makes_directories)
{
    const char *deep = test_path(f->dir, "a/b/c");
    const char *path = test_path(deep, "f");

    CHECK_EQ(bop_fs_mkdirs(f->fs, deep), 0);
    CHECK_EQ(bop_fs_mkdirs(f->fs, deep), 0);
    CHECK(bop_fs_exists(f->fs, deep));
    CHECK_EQ(bop_fs_write_file(f->fs, path, bytes("old"), NULL), 0);
    CHECK_EQ(bop_fs_write_file(f->fs, path, bytes("newer"), NULL), 0);
    CHECK_EQ(bop_fs_read_file(f->fs, path, 100, &f->buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("newer"));
    CHECK_EQ(bop_fs_mkdirs(f->fs, path), -ENOTDIR);
    CHECK(!bop_fs_exists(f->fs, test_path(deep, "f.tmp")));
    CHECK_EQ(f->fs->sync_dir(f->fs, deep), 0);
}

/* ---- Locks ---- */

/* Ask for the lock in another process; returns what it got. */
static int lock_elsewhere(struct fixture *f)
{
    pid_t child = fork();
    int status = 0;

    REQUIRE(child >= 0);
    if (child == 0) {
        int fd = f->fs->open(f->fs, f->path, O_RDWR);
        int rc = fd < 0 ? fd : f->fs->lock(f->fs, fd);

        _exit(rc == 0 ? 0 : rc == BOP_ELOCKED ? 1 : 2);
    }
    REQUIRE_EQ(waitpid(child, &status, 0), child);
    REQUIRE(WIFEXITED(status));
    switch (WEXITSTATUS(status)) {
    case 0:
        return 0;
    case 1:
        return BOP_ELOCKED;
    default:
        return BOP_EIO;
    }
}

TEST(fs_real, locks_other_processes_out)
{
    int fd = open_file(f);

    CHECK_EQ(lock_elsewhere(f), 0);
    CHECK_EQ(f->fs->lock(f->fs, fd), 0); /* The other one has died. */
    CHECK_EQ(f->fs->lock(f->fs, fd), 0);
    CHECK_EQ(lock_elsewhere(f), BOP_ELOCKED);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
    CHECK_EQ(lock_elsewhere(f), 0);
}

TEST(fs_real, locks_other_descriptors_out)
{
    int a = open_file(f);
    int b = open_file(f);

    CHECK_EQ(f->fs->lock(f->fs, a), 0);
    CHECK_EQ(f->fs->lock(f->fs, b), BOP_ELOCKED);
    CHECK_EQ(f->fs->close(f->fs, a), 0);
    CHECK_EQ(f->fs->lock(f->fs, b), 0);
    CHECK_EQ(f->fs->close(f->fs, b), 0);
}
