/*
 * What goes wrong on the simulated disk by chance or on demand: short and failing
 * calls, syncs that hang, bits that rot, pages torn as a whole.
 */
#include <pthread.h>
#include <sched.h>

#include <bop/sim.h>

#include "sim_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

static struct bop_fs_sim *make(struct fixture *f, const struct bop_fs_sim_options *options)
{
    disk_end(&f->disk);
    REQUIRE_EQ(bop_fs_sim_create(options, &f->disk.sim), 0);
    f->disk.fs = bop_fs_sim_fs(f->disk.sim);
    return f->disk.sim;
}

static int open_rw(struct bop_fs *fs, const char *path)
{
    int fd = fs->open(fs, path, O_RDWR | O_CREAT);

    REQUIRE(fd >= 0);
    return fd;
}

TEST(sim_faults, calls_are_short_but_helpers_go_on)
{
    struct bop_fs_sim_options options = {.seed = 4,
                                         .faults = {.short_read = 32768, .short_write = 32768}};
    struct bop_fs *fs;
    uint8_t bytes[5000], back[5000];
    unsigned short_writes = 0, short_reads = 0;
    int fd;

    make(f, &options);
    fs = f->disk.fs;
    fd = open_rw(fs, "/a");
    memset(bytes, 'x', sizeof(bytes));
    for (int i = 0; i < 100; i++) {
        ssize_t count = fs->pwrite(fs, fd, bytes, sizeof(bytes), 0);

        REQUIRE(count > 0 && count <= (ssize_t)sizeof(bytes));
        short_writes += count < (ssize_t)sizeof(bytes);
    }
    CHECK(short_writes > 20 && short_writes < 80);
    REQUIRE_EQ(bop_fs_write_all(fs, fd, bytes, sizeof(bytes), 0), 0);
    for (int i = 0; i < 100; i++) {
        ssize_t count = fs->pread(fs, fd, back, sizeof(back), 0);

        REQUIRE(count > 0 && count <= (ssize_t)sizeof(back));
        short_reads += count < (ssize_t)sizeof(back);
    }
    CHECK(short_reads > 20 && short_reads < 80);
    REQUIRE_EQ(bop_fs_read_exact(fs, fd, back, sizeof(back), 0), 0);
    CHECK(memcmp(bytes, back, sizeof(bytes)) == 0);
    fs->close(fs, fd);
}

TEST(sim_faults, writes_and_syncs_fail_by_chance)
{
    struct bop_fs_sim_options options = {.seed = 4,
                                         .faults = {.write_error = 16384, .sync_error = 16384}};
    unsigned writes = 0, syncs = 0;
    struct bop_fs *fs;
    int fd;

    make(f, &options);
    fs = f->disk.fs;
    fd = open_rw(fs, "/a");
    for (int i = 0; i < 200; i++) {
        ssize_t rc = fs->pwrite(fs, fd, "x", 1, 0);

        CHECK(rc == 1 || rc == -EIO);
        writes += rc < 0;
        rc = fs->sync(fs, fd);
        CHECK(rc == 0 || rc == -EIO);
        syncs += rc < 0;
    }
    CHECK(writes > 20 && writes < 100);
    CHECK(syncs > 20 && syncs < 100);
    bop_fs_sim_set_faults(f->disk.sim, &(struct bop_fs_sim_faults){0});
    CHECK_EQ(fs->pwrite(fs, fd, "x", 1, 0), 1);
    CHECK_EQ(fs->sync(fs, fd), 0);
    fs->close(fs, fd);
}

TEST(sim_faults, the_nth_sync_fails)
{
    struct bop_fs *fs;
    int fd;

    make(f, &(struct bop_fs_sim_options){.seed = 1});
    fs = f->disk.fs;
    fd = open_rw(fs, "/a");
    CHECK_EQ(fs->sync(fs, fd), 0);
    bop_fs_sim_fail_sync_at(f->disk.sim, 3);
    CHECK_EQ(fs->sync(fs, fd), 0);
    CHECK_EQ(fs->sync_dir(fs, "/"), 0);
    CHECK_EQ(fs->sync(fs, fd), -EIO);
    CHECK_EQ(fs->sync(fs, fd), 0);
    bop_fs_sim_fail_sync_at(f->disk.sim, 1);
    bop_fs_sim_fail_sync_at(f->disk.sim, 0);
    CHECK_EQ(fs->sync(fs, fd), 0);
    fs->close(fs, fd);
}

struct syncer {
    struct bop_fs *fs;
    int fd;
    int result;
};

static void *sync_it(void *argument)
{
    struct syncer *syncer = argument;

    syncer->result = syncer->fs->sync(syncer->fs, syncer->fd);
    return NULL;
}

/* Start a sync that hangs. */
static void hang_one(struct fixture *f, struct syncer *syncer, pthread_t *out_thread)
{
    make(f, &(struct bop_fs_sim_options){.seed = 1});
    syncer->fs = f->disk.fs;
    syncer->fd = open_rw(f->disk.fs, "/a");
    REQUIRE_EQ(f->disk.fs->pwrite(f->disk.fs, syncer->fd, "x", 1, 0), 1);
    bop_fs_sim_hang_syncs(f->disk.sim);
    REQUIRE_EQ(pthread_create(out_thread, NULL, sync_it, syncer), 0);
    while (bop_fs_sim_hanging(f->disk.sim) == 0) {
        sched_yield();
    }
}

TEST(sim_faults, a_sync_hangs_until_released)
{
    struct syncer syncer = {.result = 1};
    pthread_t thread;

    hang_one(f, &syncer, &thread);
    /* Others go on meanwhile. */
    CHECK_EQ(f->disk.fs->pwrite(f->disk.fs, syncer.fd, "y", 1, 1), 1);
    bop_fs_sim_release_syncs(f->disk.sim);
    pthread_join(thread, NULL);
    CHECK_EQ(syncer.result, 0);
    CHECK_EQ(bop_fs_sim_hanging(f->disk.sim), 0);
    f->disk.fs->close(f->disk.fs, syncer.fd);
}

TEST(sim_faults, a_crash_ends_a_sync_that_hangs)
{
    struct syncer syncer = {.result = 1};
    pthread_t thread;

    hang_one(f, &syncer, &thread);
    bop_fs_sim_kill_process(f->disk.sim);
    pthread_join(thread, NULL);
    CHECK_EQ(syncer.result, -EIO);
}

TEST(sim_faults, rot_flips_one_bit_and_says_which)
{
    struct bop_fs_sim_rotten rotten;
    struct bop_fs_sim *sim = make(f, &(struct bop_fs_sim_options){.seed = 9});
    struct bop_fs *fs = f->disk.fs;
    unsigned second = 0;
    uint64_t before;
    int a, b;

    CHECK_EQ(bop_fs_sim_rot(sim, &rotten), BOP_ENOTFOUND);
    REQUIRE_EQ(fs->mkdir(fs, "/d"), 0);
    a = open_rw(fs, "/a");
    b = open_rw(fs, "/d/b");
    REQUIRE_EQ(fs->pwrite(fs, a, "aaaa", 4, 0), 4);
    REQUIRE_EQ(fs->pwrite(fs, b, "bbbbbbbbbbbb", 12, 0), 12);
    before = bop_fs_sim_digest(sim);
    for (int i = 0; i < 100; i++) {
        REQUIRE_EQ(bop_fs_sim_rot(sim, &rotten), 0);
        second += strcmp(rotten.path, "/d/b") == 0;
        CHECK(bop_fs_sim_digest(sim) != before);
        REQUIRE_EQ(bop_fs_sim_flip_bit(sim, rotten.path, rotten.bit), 0);
        CHECK_EQ(bop_fs_sim_digest(sim), before);
    }
    CHECK(second > 50 && second < 95); /* Three quarters of the bits. */
    fs->close(fs, a);
    fs->close(fs, b);
}

TEST(sim_faults, bits_rot_at_a_power_loss)
{
    unsigned rotten = 0;

    for (uint64_t seed = 1; seed <= 100; seed++) {
        char bytes[64];
        int fd;

        make(f, &(struct bop_fs_sim_options){.seed = seed, .faults = {.rot = 32768}});
        fd = open_rw(f->disk.fs, "/a");
        memset(bytes, 'x', sizeof(bytes));
        REQUIRE_EQ(bop_fs_write_all(f->disk.fs, fd, bytes, sizeof(bytes), 0), 0);
        REQUIRE_EQ(f->disk.fs->sync(f->disk.fs, fd), 0);
        REQUIRE_EQ(f->disk.fs->sync_dir(f->disk.fs, "/"), 0);
        bop_fs_sim_lose_power(f->disk.sim);
        fd = f->disk.fs->open(f->disk.fs, "/a", O_RDONLY);
        REQUIRE(fd >= 0);
        REQUIRE_EQ(bop_fs_read_exact(f->disk.fs, fd, bytes, sizeof(bytes), 0), 0);
        for (size_t i = 0; i < sizeof(bytes); i++) {
            rotten += bytes[i] != 'x';
        }
        f->disk.fs->close(f->disk.fs, fd);
    }
    CHECK(rotten > 25 && rotten < 75);
}

/* Power is lost under a page of x over a page of o: count the sectors that were kept. */
static unsigned torn_page(struct fixture *f, uint64_t seed, unsigned tear_bytes)
{
    uint8_t page[4096];
    unsigned kept = 0;
    int fd;

    make(f, &(struct bop_fs_sim_options){.seed = seed, .tear_bytes = tear_bytes});
    fd = open_rw(f->disk.fs, "/a");
    memset(page, 'o', sizeof(page));
    REQUIRE_EQ(bop_fs_write_all(f->disk.fs, fd, page, sizeof(page), 0), 0);
    REQUIRE_EQ(f->disk.fs->sync(f->disk.fs, fd), 0);
    REQUIRE_EQ(f->disk.fs->sync_dir(f->disk.fs, "/"), 0);
    memset(page, 'x', sizeof(page));
    REQUIRE_EQ(bop_fs_write_all(f->disk.fs, fd, page, sizeof(page), 0), 0);
    bop_fs_sim_lose_power(f->disk.sim);
    fd = f->disk.fs->open(f->disk.fs, "/a", O_RDONLY);
    REQUIRE(fd >= 0);
    REQUIRE_EQ(bop_fs_read_exact(f->disk.fs, fd, page, sizeof(page), 0), 0);
    for (size_t i = 0; i < 8; i++) {
        kept += page[i * 512] == 'x';
        CHECK_EQ(page[i * 512], page[i * 512 + 511]);
    }
    f->disk.fs->close(f->disk.fs, fd);
    return kept;
}

TEST(sim_faults, tears_at_512_or_at_4096)
{
    unsigned parts = 0, whole[2] = {0};

    for (uint64_t seed = 1; seed <= 200; seed++) {
        unsigned small = torn_page(f, seed, 0), large = torn_page(f, seed, 4096);

        parts += small != 0 && small != 8;
        CHECK(large == 0 || large == 8);
        whole[large == 8]++;
    }
    CHECK(parts > 30);
    CHECK(whole[0] > 30 && whole[1] > 30);
    CHECK_EQ(bop_fs_sim_create(&(struct bop_fs_sim_options){.tear_bytes = 1000}, &f->disk.sim),
             BOP_EINVAL);
}
