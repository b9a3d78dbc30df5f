/*
 * Packing and unpacking when memory lacks, files fail, and the power does.
 */
#include <bop/sim.h>

#include "warm_harness.h"

static const struct segment_options some = {
    .base = 1, .generation = 1, .records = 600, .length_max = 1500, .seed = 9, .noise = true};

static int unpack(struct fixture *f, struct bop_fs *fs)
{
    struct bop__packed *packed;
    int rc = bop__packed_file_open(&f->heap.allocator, fs, PACKED_PATH, &packed, &f->err);

    if (rc == 0) {
        rc = bop__warm_unpack(&f->heap.allocator, fs, packed, "/warm/b.seg", &f->err);
        packed->close(packed);
    }
    return rc;
}

/* True if there is a file of this name; it has this content then. */
static bool is_whole(struct fixture *f, const char *path, struct bop_slice want)
{
    struct bop_buf got;
    bool there = bop_fs_exists(f->fs, path);

    if (there) {
        bop_buf_init(&got, NULL, 0);
        REQUIRE_EQ(bop_fs_read_file(f->fs, path, SIZE_MAX / 2, &got), 0);
        CHECK_SLICE_EQ(bop_buf_slice(&got), want);
        bop_buf_deinit(&got);
    }
    return there;
}

static struct bop_slice packed_slice(const struct fixture *f)
{
    return bop_buf_slice(&f->packed);
}

/* ---- Crashes ---- */

enum crash {
    KILL,
    POWER,
    CRASHES,
};

/* Cut the work at each of its operations, crash, and look: all of the file or none of it. */
static void sweep_crashes(struct fixture *f, int (*work)(struct fixture *f), const char *path,
                          struct bop_slice want, enum crash crash)
{
    bool done = false;

    for (uint64_t at = 1; !done; at++) {
        struct bop_error saved = {0};

        REQUIRE(at < 1000);
        bop_fs_sim_stop_after(f->sim, at);
        done = work(f) == 0;
        saved = f->err;
        if (crash == POWER) {
            bop_fs_sim_lose_power(f->sim);
        } else {
            bop_fs_sim_kill_process(f->sim);
        }
        CHECK(done || saved.code != 0);
        CHECK(is_whole(f, path, want) || !done);
        if (bop_fs_exists(f->fs, path)) {
            REQUIRE_EQ(f->fs->unlink(f->fs, path), 0);
            REQUIRE_EQ(f->fs->sync_dir(f->fs, "/warm"), 0);
        }
        /* What the crash left does not stand in the way. */
        if (at % 5 == 0) {
            REQUIRE_EQ(work(f), 0);
            CHECK(is_whole(f, path, want));
            REQUIRE_EQ(f->fs->unlink(f->fs, path), 0);
        }
    }
}

static int pack_only(struct fixture *f)
{
    struct memory_source source = memory_source(f->segment.bytes.data, f->segment.bytes.size);

    return bop__warm_pack(&f->options, &source.source, PACKED_PATH, &f->facts, &f->err);
}

static int unpack_only(struct fixture *f)
{
    return unpack(f, f->fs);
}

TEST(warm_faults, a_crash_leaves_all_of_a_packed_file_or_nothing)
{
    make_and_pack(f, &some);
    REQUIRE_EQ(f->fs->unlink(f->fs, PACKED_PATH), 0);
    for (int crash = 0; crash < CRASHES; crash++) {
        sweep_crashes(f, pack_only, PACKED_PATH, packed_slice(f), (enum crash)crash);
    }
}

TEST(warm_faults, a_crash_leaves_all_of_an_unpacked_file_or_nothing)
{
    make_and_pack(f, &some);
    for (int crash = 0; crash < CRASHES; crash++) {
        sweep_crashes(f, unpack_only, "/warm/b.seg", bop_buf_slice(&f->segment.bytes),
                      (enum crash)crash);
    }
}

TEST(warm_faults, a_file_that_is_there_is_replaced_as_a_whole)
{
    make_and_pack(f, &some);
    for (uint64_t at = 1, done = 0; !done; at++) {
        bop_fs_sim_stop_after(f->sim, at);
        done = pack_only(f) == 0;
        bop_fs_sim_lose_power(f->sim);
        CHECK(is_whole(f, PACKED_PATH, packed_slice(f)));
    }
}

/* ---- Failing operations and lacking memory ---- */

TEST(warm_faults, packing_survives_each_failure)
{
    struct bop_fs_faulty faulty;

    make_and_pack(f, &some);
    f->options.dictionary_bytes = 2048;
    REQUIRE_EQ(pack(f), 0);
    REQUIRE_EQ(f->fs->unlink(f->fs, PACKED_PATH), 0);
    bop_fs_faulty_init(&faulty, f->fs, &f->faults);
    f->options.fs = &faulty.fs;
    FAULT_SWEEP(&f->faults) {
        size_t live = f->heap.live;
        int rc = pack_only(f);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(f->heap.live, live);
        CHECK_EQ(faulty.open_files, 0);
        CHECK(!bop_fs_exists(f->fs, PACKED_PATH ".tmp"));
        CHECK(is_whole(f, PACKED_PATH, packed_slice(f)) || rc < 0);
        if (bop_fs_exists(f->fs, PACKED_PATH)) {
            REQUIRE_EQ(f->fs->unlink(f->fs, PACKED_PATH), 0);
        }
    }
}

TEST(warm_faults, unpacking_survives_each_failure)
{
    struct bop_fs_faulty faulty;

    make_and_pack(f, &some);
    bop_fs_faulty_init(&faulty, f->fs, &f->faults);
    FAULT_SWEEP(&f->faults) {
        size_t live = f->heap.live;
        int rc = unpack(f, &faulty.fs);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(f->heap.live, live);
        CHECK_EQ(faulty.open_files, 0);
        CHECK(!bop_fs_exists(f->fs, "/warm/b.seg.tmp"));
        CHECK(is_whole(f, "/warm/b.seg", bop_buf_slice(&f->segment.bytes)) || rc < 0);
        if (bop_fs_exists(f->fs, "/warm/b.seg")) {
            REQUIRE_EQ(f->fs->unlink(f->fs, "/warm/b.seg"), 0);
        }
    }
}

/* Open, read here and there, load ahead. */
static int read_around(struct fixture *f, struct bop_fs *fs, struct bop__frame_cache *cache)
{
    struct bop__packed *packed;
    struct bop__segment_source *source;
    int rc = bop__packed_file_open(&f->heap.allocator, fs, PACKED_PATH, &packed, &f->err);

    if (rc == 0) {
        rc = bop__warm_open(&f->heap.allocator, packed, cache, &source, &f->err);
    }
    if (rc < 0) {
        return rc;
    }
    for (uint64_t at = 0; rc == 0 && at < source->size; at += 70001) {
        struct bop_slice got;

        rc = source->at(source, at, 20000, &got, &f->err);
        if (rc == 0) {
            CHECK_MEM_EQ(got.data, f->segment.bytes.data + at, got.size);
        }
    }
    if (rc == 0) {
        rc = bop__warm_load(source, 3, 6, &f->err);
    }
    source->close(source);
    return rc;
}

TEST(warm_faults, reading_survives_each_failure)
{
    struct bop_fs_faulty faulty;

    make_and_pack(f, &some);
    f->options.dictionary_bytes = 2048;
    REQUIRE_EQ(pack(f), 0);
    bop_fs_faulty_init(&faulty, f->fs, &f->faults);
    FAULT_SWEEP(&f->faults) {
        struct bop__frame_cache *cache = NULL;
        size_t live = f->heap.live;
        int rc = bop__frame_cache_create(&f->heap.allocator, 100000, &cache);

        if (rc == 0) {
            rc = read_around(f, &faulty.fs, cache);
        }
        CHECK_EQ(rc, f->faults.fired);
        bop__frame_cache_destroy(cache);
        CHECK_EQ(f->heap.live, live);
        CHECK_EQ(faulty.open_files, 0);
    }
}

TEST(warm_faults, says_that_the_disk_is_full)
{
    make_and_pack(f, &some);
    REQUIRE_EQ(f->fs->unlink(f->fs, PACKED_PATH), 0);
    bop_fs_sim_set_capacity(f->sim, 1000);
    CHECK_EQ(pack_only(f), -ENOSPC);
    CHECK_STR_HAS(f->err.message, PACKED_PATH ".tmp");
    CHECK(!bop_fs_exists(f->fs, PACKED_PATH ".tmp"));
    bop_fs_sim_set_capacity(f->sim, 0);
    CHECK_EQ(pack_only(f), 0);
}
