#include <stdio.h>
#include <stdlib.h>

#include <bop/crc32c.h>
#include <bop/sim.h>

#include "machine_help.h"
#include "snapshot.h"
#include "snapshot_format.h"
#include "stoppable_fs.h"

#define TOKEN "0123456789abcde"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;   /* Of the machine. */
    struct test_heap faulty; /* Of what reads and writes snapshots. */
    struct bop_fs_faulty fs;
    struct world world;
    struct bop_buf conf;
    struct bop_buf file;
    const char *path;
    bool read_soon; /* A snapshot that is written. */
};

static void setup(struct fixture *f)
{
    struct bop_raft_configuration conf = {.count = 2};

    test_heap_init(&f->heap, NULL);
    test_heap_init(&f->faulty, &f->faults);
    bop_fs_faulty_init(&f->fs, bop_fs_real(), &f->faults);
    f->path = test_path(NULL, "snapshot");
    bop_buf_init(&f->conf, NULL, 0);
    bop_buf_init(&f->file, NULL, 0);
    for (unsigned i = 0; i < 2; i++) {
        conf.servers[i].id = i + 1;
        conf.servers[i].role = BOP_RAFT_VOTER;
        snprintf(conf.servers[i].address, sizeof(conf.servers[i].address), "host:900%u", i);
    }
    REQUIRE_EQ(bop_raft_configuration_encode(&conf, &f->conf), 0);
    world_init(&f->world, &f->heap.allocator);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    bop_buf_deinit(&f->conf);
    bop_buf_deinit(&f->file);
    CHECK_EQ(f->heap.live, 0);
    CHECK_EQ(f->faulty.live, 0);
    CHECK_EQ(f->fs.open_files, 0);
}

FIXTURE(setup, teardown)

/* Something of everything, in 10 entries. Two sessions: 2, which has written, and 3. */
static void fill(struct fixture *f)
{
    struct world *w = &f->world;
    struct bop_operation add = op_add("counter", 42);
    uint8_t key[600];
    struct bop_operation put = op_put("m", bop_slice(key, sizeof(key)), bytes("long"));
    struct bop_operation member = {.op = BOP_OP_SET_ADD, .name = bytes("m"), .key = bytes("x")};

    memset(key, 'k', sizeof(key));
    world_entry(w, BOP_RAFT_CHANGE, bop_buf_slice(&f->conf));
    world_session(w, 5000, TOKEN);
    world_session(w, 6000, TOKEN);
    world_put(w, "m", "a", "one");
    world_put(w, "m", "", "empty");
    world_put(w, "other", "b", "");
    world_write(w, 0, 0, 0, &put);
    world_write(w, 0, 0, 0, &member);
    world_write(w, 2, 1, 0, &add);
    world_write(w, 2, 70, 0, &add);
    CHECK_EQ(bop__machine_position(w->machine).index, 10);
}

static int write_view(struct fixture *f, struct bop_fs *fs, const char *path,
                      struct machine_view *view, struct snapshot_info *out_info,
                      struct bop_error *err)
{
    struct machine_position position = bop__machine_view_position(view);
    struct snapshot_writer *writer;
    int rc = bop__snapshot_writer_open(&f->faulty.allocator, fs, path, &position,
                                       bop_buf_slice(&f->conf), false, &writer, err);

    if (rc < 0) {
        return rc;
    }
    rc = bop__machine_walk(view, bop__snapshot_writer_record, writer);
    if (rc < 0) {
        bop__snapshot_writer_drop(writer);
        return rc;
    }
    return bop__snapshot_writer_finish(writer, out_info, err);
}

static int write_to(struct fixture *f, struct bop_fs *fs, const char *path,
                    struct snapshot_info *out_info, struct bop_error *err)
{
    struct machine_view *view;
    int rc;

    REQUIRE_EQ(bop__machine_view_open(f->world.machine, &view), 0);
    rc = f->read_soon ? bop__snapshot_write(&f->faulty.allocator, fs, path, view,
                                            bop_buf_slice(&f->conf), out_info, err)
                      : write_view(f, fs, path, view, out_info, err);
    bop__machine_view_close(view);
    return rc;
}

static void write_snapshot(struct fixture *f, struct snapshot_info *out_info)
{
    struct bop_error err = {0};

    if (write_to(f, &f->fs.fs, f->path, out_info, &err) != 0) {
        test_note("%s", err.message);
        REQUIRE_EQ(err.code, 0);
    }
}

static int check(struct fixture *f, struct snapshot_info *out_info)
{
    return bop__snapshot_check(&f->faulty.allocator, &f->fs.fs, f->path, out_info, NULL);
}

static int peek(struct fixture *f, struct snapshot_info *out_info)
{
    return bop__snapshot_peek(&f->faulty.allocator, &f->fs.fs, f->path, out_info, NULL);
}

static void read_snapshot(struct fixture *f)
{
    bop_buf_clear(&f->file);
    REQUIRE_EQ(bop_fs_read_file(bop_fs_real(), f->path, 1 << 30, &f->file), 0);
}

/* Put what is in f->file there as the file. */
static void replace_snapshot(struct fixture *f)
{
    struct bop_fs *fs = bop_fs_real();
    int fd = fs->open(fs, f->path, O_RDWR | O_CREAT | O_TRUNC);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(bop_fs_write_all(fs, fd, f->file.data, f->file.size, 0), 0);
    REQUIRE_EQ(fs->close(fs, fd), 0);
}

/* Open a machine from the snapshot in a directory of its own. */
static void load(struct fixture *f, struct world *loaded, struct snapshot_info *out_info)
{
    struct bop_error err = {0};

    loaded->options.path = test_path(NULL, "loaded");
    loaded->options.allocator = &f->heap.allocator;
    if (bop__snapshot_load(&f->fs.fs, f->path, &loaded->options, out_info, &err) != 0) {
        test_note("%s", err.message);
        REQUIRE_EQ(err.code, 0);
    }
    world_init(loaded, &f->heap.allocator);
}

/* ---- Whole files ---- */

TEST(snapshot, says_what_it_is)
{
    struct snapshot_info written, checked;
    struct machine_position position;

    fill(f);
    position = bop__machine_position(f->world.machine);
    write_snapshot(f, &written);
    REQUIRE_EQ(check(f, &checked), 0);
    read_snapshot(f);
    CHECK_EQ(checked.raft.index, 10);
    CHECK_EQ(checked.raft.term, WORLD_TERM);
    CHECK_EQ(checked.raft.conf_index, 1);
    CHECK_EQ(checked.raft.conf.count, 2);
    CHECK_STR_EQ(checked.raft.conf.servers[1].address, "host:9001");
    CHECK_EQ(checked.position.digest, position.digest);
    CHECK_EQ(checked.position.time_ms, 1000);
    CHECK_EQ(checked.bytes, f->file.size);
    /* 2 maps, 5 entries, 1 counter, 2 sessions, 2 chunks of replies, 4 of META, 1 set. */
    CHECK_EQ(checked.entries, 17);
    CHECK_EQ(written.raft.index, 10);
    CHECK_EQ(written.raft.conf.count, 2);
    CHECK_EQ(written.bytes, checked.bytes);
    CHECK_EQ(written.entries, checked.entries);
    CHECK_EQ(written.position.digest, position.digest);
}

/* Its header and its last block say what reading all of it says. */
TEST(snapshot, peeked_at_is_the_same)
{
    struct snapshot_info info, peeked;

    fill(f);
    write_snapshot(f, &info);
    REQUIRE_EQ(check(f, &info), 0);
    REQUIRE_EQ(peek(f, &peeked), 0);
    CHECK_EQ(peeked.raft.index, info.raft.index);
    CHECK_EQ(peeked.raft.term, info.raft.term);
    CHECK_EQ(peeked.raft.conf_index, info.raft.conf_index);
    CHECK_EQ(peeked.raft.conf.count, info.raft.conf.count);
    CHECK_STR_EQ(peeked.raft.conf.servers[1].address, info.raft.conf.servers[1].address);
    CHECK_EQ(peeked.position.digest, info.position.digest);
    CHECK_EQ(peeked.bytes, info.bytes);
    CHECK_EQ(peeked.entries, info.entries);
    CHECK_EQ(peeked.format, info.format);
}

TEST(snapshot, loads_as_what_it_was)
{
    struct world loaded = {0};
    struct bop_operation add = op_add("counter", 1);
    struct snapshot_info info;

    fill(f);
    write_snapshot(f, &info);
    load(f, &loaded, &info);
    CHECK_EQ(info.raft.index, 10);
    CHECK_EQ(world_digest(&loaded), world_digest(&f->world));
    CHECK_EQ(bop__machine_position(loaded.machine).index, 10);
    CHECK_EQ(bop__machine_position(loaded.machine).digest,
             bop__machine_position(f->world.machine).digest);
    CHECK_SLICE_EQ(bop__machine_configuration(loaded.machine), bop_buf_slice(&f->conf));
    CHECK_EQ(bop__machine_session_count(loaded.machine), 2);
    /* A retry has its first answer, and both go on alike. */
    CHECK_EQ(world_write(&loaded, 2, 70, 0, &add), BOP_STATUS_OK);
    CHECK_EQ(world_decoded(&loaded, BOP_OP_COUNTER_ADD).number, 84);
    world_write(&f->world, 2, 70, 0, &add);
    world_put(&f->world, "third", "k", "v");
    world_put(&loaded, "third", "k", "v");
    CHECK_EQ(world_digest(&loaded), world_digest(&f->world));
    world_close(&loaded);
}

TEST(snapshot, of_nothing_is_a_snapshot)
{
    struct world loaded = {0};
    struct snapshot_info info;

    bop_buf_clear(&f->conf);
    write_snapshot(f, &info);
    REQUIRE_EQ(check(f, &info), 0);
    CHECK_EQ(info.raft.index, 0);
    CHECK_EQ(info.raft.conf.count, 0);
    CHECK_EQ(info.entries, 1);
    load(f, &loaded, &info);
    CHECK_EQ(world_digest(&loaded), world_digest(&f->world));
    world_close(&loaded);
}

/* 2000 entries of 1000 bytes and one of 8 MiB: eight blocks and one that is as big as they get. */
TEST(snapshot, may_have_many_blocks)
{
    struct world *w = &f->world, loaded = {0};
    uint8_t *value = malloc(BOP_VALUE_MAX);
    struct snapshot_info info;
    struct bop_operation put;

    REQUIRE(value);
    memset(value, 'v', BOP_VALUE_MAX);
    world_begin(w);
    for (unsigned i = 0; i < 2000; i++) {
        char key[16];

        snprintf(key, sizeof(key), "%u", i * 7919);
        put = op_put("m", bytes(key), bop_slice(value, 1000));
        CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_OK);
    }
    put = op_put("m", bytes("5big"), bop_slice(value, BOP_VALUE_MAX));
    CHECK_EQ(world_write(w, 0, 0, 0, &put), BOP_STATUS_OK);
    world_commit(w);
    write_snapshot(f, &info);
    CHECK(info.bytes > 10000000);
    loaded.options.grow_step_bytes = 1 << 20; /* Less than the big value needs. */
    load(f, &loaded, &info);
    CHECK_EQ(world_digest(&loaded), world_digest(w));
    CHECK_EQ(world_size(&loaded, "m"), 2001);
    world_close(&loaded);
    free(value);
}

/* Writes are counted, and one of them is when it is stopped. */
struct stopping {
    struct stoppable_fs fs;
    ssize_t (*pwrite)(struct bop_fs *self, int fd, const void *bytes, size_t size, uint64_t offset);
    unsigned writes;
    unsigned stop_at;
};

static ssize_t stopping_pwrite(struct bop_fs *self, int fd, const void *bytes, size_t size,
                               uint64_t offset)
{
    struct stopping *stopping = BOP_CONTAINER_OF(self, struct stopping, fs.fs);

    if (++stopping->writes == stopping->stop_at) {
        bop__stoppable_fs_stop(&stopping->fs);
    }
    return stopping->pwrite(self, fd, bytes, size, offset);
}

static int write_stopping(struct fixture *f, struct stopping *stopping, unsigned stop_at)
{
    struct snapshot_info info;

    *stopping = (struct stopping){.stop_at = stop_at};
    bop__stoppable_fs_init(&stopping->fs, &f->fs.fs);
    stopping->pwrite = stopping->fs.fs.pwrite;
    stopping->fs.fs.pwrite = stopping_pwrite;
    return write_to(f, &stopping->fs.fs, f->path, &info, NULL);
}

TEST(snapshot, can_be_stopped_at_each_write)
{
    struct stopping stopping;
    char value[1000], temporary[512];
    unsigned writes;

    memset(value, 'v', sizeof(value));
    snprintf(temporary, sizeof(temporary), "%s.tmp", f->path);
    world_begin(&f->world);
    for (unsigned i = 0; i < 3000; i++) {
        char key[16];
        struct bop_operation put;

        snprintf(key, sizeof(key), "%u", i);
        put = op_put("m", bytes(key), bop_slice(value, sizeof(value)));
        CHECK_EQ(world_write(&f->world, 0, 0, 0, &put), BOP_STATUS_OK);
    }
    world_commit(&f->world);
    REQUIRE_EQ(write_stopping(f, &stopping, 0), 0);
    writes = stopping.writes;
    CHECK(writes > 5);
    REQUIRE_EQ(bop_fs_real()->unlink(bop_fs_real(), f->path), 0);
    for (unsigned n = 1; n <= writes; n++) {
        CHECK_EQ(write_stopping(f, &stopping, n), BOP_ECANCELED);
        CHECK_EQ(stopping.writes, n); /* None comes after it. */
        CHECK(!bop_fs_exists(bop_fs_real(), f->path));
        CHECK(!bop_fs_exists(bop_fs_real(), temporary));
    }
}

/* ---- A disk that is nearly full ---- */

struct nearly_full {
    struct bop_fs_faulty fs;
    uint64_t left;
};

static int nearly_full_free_bytes(struct bop_fs *fs, const char *path, uint64_t *out_bytes)
{
    const struct nearly_full *self = BOP_CONTAINER_OF(fs, struct nearly_full, fs.fs);

    CHECK(bop_fs_exists(bop_fs_real(), path));
    *out_bytes = self->left;
    return 0;
}

static ssize_t nearly_full_pwrite(struct bop_fs *fs, int fd, const void *data, size_t size,
                                  uint64_t offset)
{
    struct nearly_full *self = BOP_CONTAINER_OF(fs, struct nearly_full, fs.fs);

    REQUIRE(self->left >= size);
    self->left -= size;
    return bop_fs_real()->pwrite(bop_fs_real(), fd, data, size, offset);
}

TEST(snapshot, leaves_the_log_its_room)
{
    struct nearly_full disk;
    struct snapshot_info info;
    struct bop_error err = {0};

    fill(f);
    write_snapshot(f, &info);
    REQUIRE_EQ(bop_fs_real()->unlink(bop_fs_real(), f->path), 0);
    bop_fs_faulty_init(&disk.fs, bop_fs_real(), &f->faults);
    disk.fs.fs.free_bytes = nearly_full_free_bytes;
    disk.fs.fs.pwrite = nearly_full_pwrite;
    disk.left = SNAPSHOT_ROOM_KEPT + info.bytes - 1;
    CHECK_EQ(write_to(f, &disk.fs.fs, f->path, &info, &err), BOP_ENOROOM);
    CHECK(strstr(err.message, "no room on disk"));
    CHECK(disk.left >= SNAPSHOT_ROOM_KEPT);
    CHECK(!bop_fs_exists(bop_fs_real(), f->path));
    /* Past the page cache it is written in whole pages. */
    disk.left = SNAPSHOT_ROOM_KEPT + (info.bytes + BOP_FS_ALIGN - 1) / BOP_FS_ALIGN * BOP_FS_ALIGN;
    CHECK_EQ(write_to(f, &disk.fs.fs, f->path, &info, NULL), 0);
    CHECK(disk.left >= SNAPSHOT_ROOM_KEPT);
    CHECK_EQ(bop_fs_exists(bop_fs_real(), f->path), true);
}

/* A view is a revision: what is applied while it is written out is not in it. */
TEST(snapshot, is_of_the_views_moment)
{
    struct machine_view *view;
    struct snapshot_info info;

    world_put(&f->world, "m", "a", "1");
    REQUIRE_EQ(bop__machine_view_open(f->world.machine, &view), 0);
    world_put(&f->world, "m", "b", "2");
    REQUIRE_EQ(
        bop__snapshot_write(NULL, &f->fs.fs, f->path, view, bop_buf_slice(&f->conf), &info, NULL),
        0);
    bop__machine_view_close(view);
    CHECK_EQ(info.raft.index, 1);
    CHECK_EQ(info.entries, 1 + 1 + 3); /* A map, an entry, META without a configuration. */
}

/* Replaces a state that has other things, and more of them. */
TEST(snapshot, load_replaces_what_was_there)
{
    struct world loaded = {0};
    struct snapshot_info info;

    fill(f);
    write_snapshot(f, &info);
    world_init(&loaded, &f->heap.allocator);
    for (unsigned i = 0; i < 100; i++) {
        char key[16];

        snprintf(key, sizeof(key), "%u", i);
        world_put(&loaded, "old", key, "v");
    }
    bop__machine_close(loaded.machine);
    REQUIRE_EQ(bop__snapshot_load(&f->fs.fs, f->path, &loaded.options, &info, NULL), 0);
    world_open(&loaded);
    CHECK_EQ(world_digest(&loaded), world_digest(&f->world));
    world_close(&loaded);
}

/* ---- The format ---- */

/* Made by hand after docs/design/snapshot.md; scripts of others may read these files. */
TEST(snapshot, has_these_bytes)
{
    static const uint8_t expected[] = {
#include "snapshot_vector.h"
    };
    struct bop_operation add = {.op = BOP_OP_SET_ADD, .name = bytes("s"), .key = bytes("x")};
    struct snapshot_info info;

    world_put(&f->world, "m", "k", "v");
    world_write(&f->world, 0, 0, 0, &add);
    bop_buf_clear(&f->conf);
    write_snapshot(f, &info);
    read_snapshot(f);
    CHECK_SLICE_EQ(bop_buf_slice(&f->file), bop_slice(expected, sizeof(expected)));
}

/* Files as older versions wrote them, made as above. */
static const uint8_t version_1[] = {
#include "snapshot_vector_1.h"
};
static const uint8_t version_2[] = {
#include "snapshot_vector_2.h"
};

static void old_snapshot(struct fixture *f, struct bop_slice old)
{
    bop_buf_clear(&f->file);
    REQUIRE_EQ(bop_buf_append(&f->file, old.data, old.size), 0);
    replace_snapshot(f);
}

TEST(snapshot, of_version_1_is_loaded)
{
    struct world loaded = {0};
    struct snapshot_info info;

    old_snapshot(f, bop_slice(version_1, sizeof(version_1)));
    REQUIRE_EQ(check(f, &info), 0);
    CHECK_EQ(info.raft.index, 1);
    CHECK_EQ(info.entries, 5);
    load(f, &loaded, &info);
    world_put(&f->world, "m", "k", "v");
    CHECK_EQ(world_digest(&loaded), world_digest(&f->world));
    CHECK_EQ(world_records(&loaded, MACHINE_SETS), 0);
    world_close(&loaded);
}

TEST(snapshot, of_version_2_is_loaded)
{
    struct bop_operation add = {.op = BOP_OP_SET_ADD, .name = bytes("s"), .key = bytes("x")};
    struct world loaded = {0};
    struct snapshot_info info;

    old_snapshot(f, bop_slice(version_2, sizeof(version_2)));
    REQUIRE_EQ(check(f, &info), 0);
    CHECK_EQ(info.raft.index, 2);
    load(f, &loaded, &info);
    world_put(&f->world, "m", "k", "v");
    world_write(&f->world, 0, 0, 0, &add);
    CHECK_EQ(world_digest(&loaded), world_digest(&f->world));
    world_close(&loaded);
}

/* ---- Damage ---- */

/* Every bit of a file, one at a time. */
TEST(snapshot, with_any_bit_flipped_is_refused)
{
    struct snapshot_info info;

    fill(f);
    write_snapshot(f, &info);
    read_snapshot(f);
    for (size_t bit = 0; bit < f->file.size * 8; bit++) {
        struct bop_fs *fs = bop_fs_real();
        uint8_t flipped = (uint8_t)(f->file.data[bit / 8] ^ 1u << bit % 8);
        int fd = fs->open(fs, f->path, O_RDWR), rc;

        REQUIRE(fd >= 0);
        REQUIRE_EQ(bop_fs_write_all(fs, fd, &flipped, 1, bit / 8), 0);
        rc = check(f, &info);
        CHECK(rc == BOP_ECORRUPT || rc == BOP_ETRUNCATED);
        REQUIRE_EQ(bop_fs_write_all(fs, fd, &f->file.data[bit / 8], 1, bit / 8), 0);
        REQUIRE_EQ(fs->close(fs, fd), 0);
    }
    CHECK_EQ(check(f, &info), 0);
}

TEST(snapshot, cut_anywhere_is_refused)
{
    struct bop_fs *fs = bop_fs_real();
    struct snapshot_info info;
    int fd;

    fill(f);
    write_snapshot(f, &info);
    fd = fs->open(fs, f->path, O_RDWR);
    REQUIRE(fd >= 0);
    for (uint64_t size = info.bytes; size-- > 0;) {
        REQUIRE_EQ(fs->truncate(fs, fd, size), 0);
        CHECK_EQ(check(f, &info), BOP_ETRUNCATED);
        CHECK(peek(f, &info) < 0);
    }
    REQUIRE_EQ(fs->close(fs, fd), 0);
}

TEST(snapshot, with_anything_behind_it_is_refused)
{
    struct snapshot_info info;

    fill(f);
    write_snapshot(f, &info);
    read_snapshot(f);
    REQUIRE_EQ(bop_buf_append(&f->file, "", 1), 0);
    replace_snapshot(f);
    CHECK_EQ(check(f, &info), BOP_ECORRUPT);
    CHECK_EQ(peek(f, &info), BOP_ECORRUPT);
}

/* Give each block of f->file the checksum it should have. */
static void repair(struct fixture *f)
{
    uint32_t crc = bop_crc32c(0, f->file.data, 12);
    size_t at = SNAPSHOT_PREAMBLE;

    bop_store_u32(f->file.data + 12, crc);
    while (at + SNAPSHOT_BLOCK_HEAD <= f->file.size) {
        uint32_t size = bop_load_u32(f->file.data + at + 4);

        if (size > f->file.size - at - SNAPSHOT_BLOCK_HEAD) {
            break;
        }
        crc = bop_crc32c(crc, f->file.data + at, 8);
        crc = bop_crc32c(crc, f->file.data + at + SNAPSHOT_BLOCK_HEAD, size);
        bop_store_u32(f->file.data + at + 8, crc);
        at += SNAPSHOT_BLOCK_HEAD + size;
    }
}

TEST(snapshot, of_another_version_is_told_apart)
{
    struct snapshot_info info;

    fill(f);
    write_snapshot(f, &info);
    read_snapshot(f);
    bop_store_u32(f->file.data + 8, SNAPSHOT_VERSION + 1);
    repair(f);
    replace_snapshot(f);
    CHECK_EQ(check(f, &info), BOP_EVERSION);
    bop_store_u32(f->file.data + 8, SNAPSHOT_VERSION);
    bop_store_u32(f->file.data + 28, MACHINE_FORMAT + 1); /* The state's, first in HEADER. */
    repair(f);
    replace_snapshot(f);
    CHECK_EQ(check(f, &info), BOP_EVERSION);
    bop_store_u32(f->file.data + 28, 1); /* The older one, in a file of the newer version. */
    repair(f);
    replace_snapshot(f);
    CHECK_EQ(check(f, &info), BOP_EVERSION);
    old_snapshot(f, bop_slice(version_1, sizeof(version_1)));
    bop_store_u32(f->file.data + 28, 2);
    repair(f);
    replace_snapshot(f);
    CHECK_EQ(check(f, &info), BOP_EVERSION);
}

/* A right checksum over a wrong byte: most of them are found even so, and none does harm. */
TEST(snapshot, with_repaired_checksums_does_no_harm)
{
    struct snapshot_info info;
    size_t refused = 0;

    fill(f);
    write_snapshot(f, &info);
    read_snapshot(f);
    for (size_t i = 0; i < f->file.size; i++) {
        uint8_t old = f->file.data[i];

        f->file.data[i] = (uint8_t)(old + 1);
        repair(f);
        replace_snapshot(f);
        if (check(f, &info) != 0) {
            refused++;
        }
        f->file.data[i] = old;
    }
    /* All but the checksums, which repair() has put right, and the bytes of the header that
     * say what nothing else does: the names and ids in the configuration. */
    test_note("%zu of %zu bytes refused", refused, f->file.size);
    CHECK(refused > f->file.size - 100);
}

TEST(snapshot, that_is_not_there_is_an_error_that_says_so)
{
    struct snapshot_info info;
    struct bop_error err;

    CHECK_EQ(bop__snapshot_check(NULL, &f->fs.fs, f->path, &info, &err), -ENOENT);
    CHECK_STR_HAS(err.message, f->path);
}

TEST(snapshot, that_is_damaged_leaves_the_state_alone)
{
    struct world old = {0};
    struct snapshot_info info;
    struct bop_error err;

    fill(f);
    write_snapshot(f, &info);
    read_snapshot(f);
    f->file.data[f->file.size - 1] ^= 1;
    replace_snapshot(f);
    world_init(&old, &f->heap.allocator);
    world_put(&old, "old", "k", "v");
    bop__machine_close(old.machine);
    CHECK_EQ(bop__snapshot_load(&f->fs.fs, f->path, &old.options, &info, &err), BOP_ECORRUPT);
    CHECK_STR_HAS(err.message, f->path);
    world_open(&old);
    CHECK_EQ(world_size(&old, "old"), 1);
    world_close(&old);
}

/* ---- Faults ---- */

static void sweep_write(struct fixture *f)
{
    struct bop_fs *fs = bop_fs_real();

    FAULT_SWEEP(&f->faults) {
        struct snapshot_info info;
        int rc = write_to(f, &f->fs.fs, f->path, &info, NULL);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(bop_fs_exists(fs, f->path), rc == 0);
        BOP_IGNORE(fs->unlink(fs, f->path));
        CHECK_EQ(f->faulty.live, 0);
        CHECK_EQ(f->fs.open_files, 0);
    }
}

TEST(snapshot, write_survives_each_fault)
{
    fill(f);
    f->read_soon = true;
    sweep_write(f);
    /* The writer and its chunk; open, a look at the room, write, sync, rename, sync_dir; the
     * buffer grows five times. */
    CHECK_EQ(f->faults.at, 13);
    f->read_soon = false;
    sweep_write(f);
    /* And truncate; or, where there is no going past the page cache, a second open. */
    CHECK_EQ(f->faults.at, 14);
}

/* The end of a page, of a chunk, and what lies beside them. */
TEST(snapshot, is_the_same_either_way_at_any_size)
{
    static const size_t sizes[] = {1, 1000, 2000, 4096, 260000, 524288};
    struct bop_buf soon;
    char value[524288];

    memset(value, 'v', sizeof(value));
    bop_buf_init(&soon, NULL, 0);
    fill(f);
    for (size_t n = 0; n < BOP_COUNT_OF(sizes); n++) {
        for (size_t beyond = 0; beyond < 2 * BOP_FS_ALIGN; beyond += BOP_FS_ALIGN / 2 - 1) {
            struct bop_operation put;
            struct snapshot_info info;

            put = op_put("m", bytes("big"),
                         bop_slice(value, bop_min_u64(sizes[n] + beyond, sizeof(value))));
            CHECK_EQ(world_write(&f->world, 0, 0, 0, &put), BOP_STATUS_OK);
            f->read_soon = true;
            write_snapshot(f, &info);
            read_snapshot(f);
            bop_buf_clear(&soon);
            REQUIRE_EQ(bop_buf_append(&soon, f->file.data, f->file.size), 0);
            CHECK_EQ(soon.size, info.bytes);
            f->read_soon = false;
            write_snapshot(f, &info);
            read_snapshot(f);
            CHECK(bop_slice_equal(bop_buf_slice(&soon), bop_buf_slice(&f->file)));
        }
    }
    bop_buf_deinit(&soon);
}

TEST(snapshot, check_survives_each_fault)
{
    struct snapshot_info info;

    fill(f);
    write_snapshot(f, &info);
    FAULT_SWEEP(&f->faults) {
        int rc = check(f, &info);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(f->faulty.live, 0);
        CHECK_EQ(f->fs.open_files, 0);
    }
}

TEST(snapshot, peek_survives_each_fault)
{
    struct snapshot_info info;

    fill(f);
    write_snapshot(f, &info);
    FAULT_SWEEP(&f->faults) {
        int rc = peek(f, &info);

        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(f->faulty.live, 0);
        CHECK_EQ(f->fs.open_files, 0);
    }
}

/* The state after a load that failed is the new one or none, but never a part of it. */
TEST(snapshot, load_survives_each_fault)
{
    struct world loaded = {0};
    struct snapshot_info info;

    fill(f);
    write_snapshot(f, &info);
    world_init(&loaded, NULL);
    FAULT_SWEEP(&f->faults) {
        int rc;

        bop__machine_close(loaded.machine);
        loaded.machine = NULL;
        loaded.options.allocator = &f->faulty.allocator;
        rc = bop__snapshot_load(&f->fs.fs, f->path, &loaded.options, &info, NULL);
        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(f->faulty.live, 0);
        loaded.options.allocator = NULL;
        world_open(&loaded);
        if (rc == 0) {
            CHECK_EQ(world_digest(&loaded), world_digest(&f->world));
        } else {
            CHECK_EQ(bop__machine_position(loaded.machine).index, 0);
            CHECK_EQ(world_size(&loaded, "m"), 0);
            CHECK_EQ(bop__machine_session_count(loaded.machine), 0);
        }
    }
    world_close(&loaded);
}

/* Power fails after each operation in turn: what has the final name is whole. */
TEST(snapshot, is_whole_or_not_there_after_power_loss)
{
    struct bop_fs_sim_options options = {.seed = 7};
    uint64_t operations = 1;

    fill(f);
    for (uint64_t cut = 1; cut <= operations; cut++) {
        struct bop_fs_sim *sim;
        struct snapshot_info info;
        uint64_t begin;
        struct bop_fs *fs;
        int rc;

        options.seed++;
        REQUIRE_EQ(bop_fs_sim_create(&options, &sim), 0);
        fs = bop_fs_sim_fs(sim);
        REQUIRE_EQ(bop_fs_mkdirs(fs, "/data"), 0);
        begin = bop_fs_sim_operations(sim);
        bop_fs_sim_stop_after(sim, cut);
        rc = write_to(f, fs, "/data/snapshot", &info, NULL);
        operations = bop_fs_sim_operations(sim) - begin;
        bop_fs_sim_lose_power(sim);
        if (rc == 0 || bop_fs_exists(fs, "/data/snapshot")) {
            CHECK_EQ(bop__snapshot_check(NULL, fs, "/data/snapshot", &info, NULL), 0);
            CHECK_EQ(info.raft.index, 10);
        }
        bop_fs_sim_destroy(sim);
        if (rc == 0) {
            break;
        }
    }
}
