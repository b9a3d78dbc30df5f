/*
 * Backup files without a cluster: what is said of one, and the data directory that is made
 * from one. Clusters that are backed up and restored are in tests/system/test_backup.py.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bop/backup.h>
#include <bop/sim.h>

#include "data_dir.h"
#include "machine_help.h"
#include "member_file.h"
#include "snapshot.h"
#include "vote_file.h"

/* Map m has v for k, set s has x, as of entry 2 in term 3; made by other code than ours. */
static const uint8_t golden[] = {
#include "snapshot_vector.h"
};
static const uint8_t version_1[] = {
#include "snapshot_vector_1.h"
};
static const uint8_t version_2[] = {
#include "snapshot_vector_2.h"
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_faulty fs;
    struct bop_raft_configuration servers;
    struct bop_restore_options options;
    struct bop_backup_info info;
    struct bop_error err;
};

static void add_server(struct fixture *f, uint64_t id)
{
    struct bop_raft_server *server = &f->servers.servers[f->servers.count++];

    server->id = id;
    server->role = BOP_RAFT_VOTER;
    snprintf(server->address, sizeof(server->address), "host:%u", (unsigned)id);
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop_fs_faulty_init(&f->fs, bop_fs_real(), &f->faults);
    add_server(f, 7);
    f->options = (struct bop_restore_options){
        .allocator = &f->heap.allocator,
        .fs = &f->fs.fs,
        .file = test_path(NULL, "backup"),
        .data = test_path(NULL, "data"),
        .cluster = "green",
        .node = 7,
        .servers = &f->servers,
    };
}

static void teardown(struct fixture *f)
{
    CHECK_EQ(f->heap.live, 0);
    CHECK_EQ(f->fs.open_files, 0);
}

FIXTURE(setup, teardown)

static void write_bytes(const char *path, const uint8_t *bytes, size_t size)
{
    struct bop_fs *fs = bop_fs_real();
    int fd = fs->open(fs, path, O_RDWR | O_CREAT | O_TRUNC);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(bop_fs_write_all(fs, fd, bytes, size, 0), 0);
    REQUIRE_EQ(fs->close(fs, fd), 0);
}

static int restore(struct fixture *f)
{
    memset(&f->err, 0, sizeof(f->err));
    return bop_restore(&f->options, &f->info, &f->err);
}

static const char *in_data(const struct fixture *f, const char *name)
{
    static char path[4096];

    snprintf(path, sizeof(path), "%s/%s", f->options.data, name);
    return path;
}

static void check_text(const struct fixture *f, const char *name, const char *text)
{
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 0);
    REQUIRE_EQ(bop_fs_read_file(bop_fs_real(), in_data(f, name), 1000, &buf), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&buf), bop_slice_cstr(text));
    bop_buf_deinit(&buf);
}

#define SNAPSHOT "snapshots/0000000000000003-0000000000000004.snap"

TEST(backup, says_what_it_is)
{
    struct bop_error err = {0};

    write_bytes(f->options.file, golden, sizeof(golden));
    REQUIRE_EQ(bop_backup_check(f->options.file, &f->info, &err), 0);
    CHECK_EQ(f->info.format, 3);
    CHECK_EQ(f->info.index, 2);
    CHECK_EQ(f->info.term, 3);
    CHECK_EQ(f->info.bytes, sizeof(golden));
    CHECK_EQ(f->info.entries, 7); /* 2 collections, k and x, and 3 of meta. */
    CHECK_EQ(f->info.time_ms, 1000);
    CHECK_EQ(f->info.configuration.count, 0);
}

/* Every bit counts, and the message has the block in which one is wrong. */
TEST(backup, damage_is_refused_with_its_place)
{
    uint8_t bytes[sizeof(golden)];

    memcpy(bytes, golden, sizeof(golden));
    for (size_t n = 0; n < sizeof(golden); n++) {
        struct bop_error err = {0};
        /* Of the preamble 16; of the header 12 and 52; of the records 12 and 188. */
        unsigned block = n < 16 ? 0 : n < 80 ? 16 : n < 280 ? 80 : 280;
        char place[40];

        bytes[n] ^= 1u << n % 8;
        write_bytes(f->options.file, bytes, sizeof(bytes));
        CHECK(bop_backup_check(f->options.file, &f->info, &err) < 0);
        snprintf(place, sizeof(place), "block at byte %u:", block);
        CHECK_STR_HAS(err.message, place);
        CHECK_EQ(restore(f), err.code);
        CHECK(!bop_fs_exists(bop_fs_real(), f->options.data));
        bytes[n] = golden[n];
    }
    for (size_t size = 0; size < sizeof(golden); size++) {
        struct bop_error err = {0};

        write_bytes(f->options.file, golden, size);
        CHECK(bop_backup_check(f->options.file, &f->info, &err) < 0);
    }
}

/* ---- Restoring ---- */

static void check_state(struct fixture *f)
{
    struct world world = {.options = {.path = test_path(f->options.data, "state")}};
    struct bop_raft_configuration conf;

    world_init(&world, &f->heap.allocator);
    CHECK_EQ(bop__machine_position(world.machine).index, 3);
    CHECK_EQ(bop__machine_position(world.machine).term, 4);
    CHECK_EQ(bop__machine_position(world.machine).conf_index, 3);
    CHECK_SLICE_EQ(world_get(&world, "m", bytes("k")).value, bytes("v"));
    REQUIRE_EQ(bop_raft_configuration_decode(bop__machine_configuration(world.machine), &conf), 0);
    CHECK_EQ(conf.count, 1);
    CHECK_EQ(conf.servers[0].id, 7);
    world_close(&world);
}

TEST(restore, makes_a_data_directory)
{
    struct vote_file votes;
    struct member_file member;
    struct bop_fs *fs = bop_fs_real();

    write_bytes(f->options.file, golden, sizeof(golden));
    REQUIRE_EQ(restore(f), 0);
    CHECK_EQ(f->info.index, 3); /* The first entry of the new cluster, behind the backup's last. */
    CHECK_EQ(f->info.term, 4);
    check_text(f, "identity", "bop-data 1\nnode 7\ncluster green\n");
    check_text(f, "boot", DATA_DIR_CLEAN);
    REQUIRE_EQ(bop_backup_check(in_data(f, SNAPSHOT), &f->info, NULL), 0);
    CHECK_EQ(f->info.index, 3);
    CHECK_EQ(f->info.term, 4);
    CHECK_EQ(f->info.entries, 8); /* As before, and the configuration. */
    CHECK_EQ(f->info.time_ms, 1000);
    REQUIRE_EQ(f->info.configuration.count, 1);
    CHECK_EQ(f->info.configuration.servers[0].id, 7);
    CHECK_STR_EQ(f->info.configuration.servers[0].address, "host:7");
    REQUIRE_EQ(bop__vote_file_open(&votes, fs, in_data(f, "vote"), false, NULL), 0);
    CHECK_EQ(votes.term, 4);
    CHECK_EQ(votes.vote, 0);
    bop__vote_file_close(&votes);
    REQUIRE_EQ(bop__member_file_open(&member, fs, in_data(f, "member"), 1, MEMBER_NO, NULL), 0);
    CHECK_EQ(member.state, MEMBER_YES);
    CHECK(member.incarnation > 1);
    check_state(f);
}

TEST(restore, takes_older_formats)
{
    write_bytes(f->options.file, version_1, sizeof(version_1));
    REQUIRE_EQ(restore(f), 0);
    CHECK_EQ(f->info.format, 3); /* As it was written anew. */
    CHECK_EQ(f->info.index, 2);
    f->options.data = test_path(NULL, "other");
    write_bytes(f->options.file, version_2, sizeof(version_2));
    REQUIRE_EQ(restore(f), 0);
    check_state(f);
}

/* Nodes that are made from one file with one list begin with the same bytes. */
TEST(restore, makes_several_nodes_alike)
{
    const char *first = f->options.data;
    struct bop_buf one, other;

    bop_buf_init(&one, NULL, 0);
    bop_buf_init(&other, NULL, 0);
    add_server(f, 9);
    write_bytes(f->options.file, golden, sizeof(golden));
    REQUIRE_EQ(restore(f), 0);
    REQUIRE_EQ(bop_fs_read_file(bop_fs_real(), in_data(f, SNAPSHOT), 10000, &one), 0);
    f->options.data = test_path(NULL, "other");
    f->options.node = 9;
    REQUIRE_EQ(restore(f), 0);
    REQUIRE_EQ(bop_fs_read_file(bop_fs_real(), in_data(f, SNAPSHOT), 10000, &other), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&one), bop_buf_slice(&other));
    check_text(f, "identity", "bop-data 1\nnode 9\ncluster green\n");
    f->options.data = first;
    bop_buf_deinit(&one);
    bop_buf_deinit(&other);
}

TEST(restore, refuses_what_it_must)
{
    const char *file = f->options.file;

    write_bytes(f->options.file, golden, sizeof(golden));
    f->options.node = 8;
    CHECK_EQ(restore(f), BOP_EINVAL);
    CHECK_STR_HAS(f->err.message, "node 8 is not among the voters");
    f->options.node = 7;
    f->servers.servers[0].role = BOP_RAFT_STANDBY;
    CHECK_EQ(restore(f), BOP_EINVAL);
    f->servers.servers[0].role = BOP_RAFT_VOTER;
    f->options.cluster = "two\nlines";
    CHECK_EQ(restore(f), BOP_EINVAL);
    f->options.cluster = "green";
    f->options.file = test_path(NULL, "missing");
    CHECK_EQ(restore(f), -ENOENT);
    CHECK(!bop_fs_exists(bop_fs_real(), f->options.data));
    REQUIRE_EQ(mkdir(f->options.data, 0700), 0);
    write_bytes(in_data(f, "notes"), golden, 4);
    f->options.file = file;
    CHECK_EQ(restore(f), BOP_EEXISTS);
    CHECK_STR_HAS(f->err.message, "notes");
    REQUIRE_EQ(unlink(in_data(f, "notes")), 0);
    CHECK_EQ(restore(f), 0); /* Empty is as good as missing. */
    CHECK_EQ(restore(f), BOP_EEXISTS);
}

/* Whatever fails, the directory is one that bopd refuses, for it has no vote, or a whole one. */
TEST(restore, survives_each_fault)
{
    unsigned round = 0;

    write_bytes(f->options.file, golden, sizeof(golden));
    f->options.state_bytes_max = 1024 * 1024;
    FAULT_SWEEP(&f->faults) {
        char name[32];
        int rc;

        snprintf(name, sizeof(name), "data-%u", round++);
        f->options.data = test_path(NULL, name);
        rc = restore(f);
        /* Closing what was synced is the one thing that may fail unheard. */
        CHECK(rc == f->faults.fired || rc == 0);
        CHECK(rc < 0 || bop_fs_exists(bop_fs_real(), in_data(f, "vote")));
        if (bop_fs_exists(bop_fs_real(), in_data(f, "vote"))) {
            CHECK_EQ(bop_backup_check(in_data(f, SNAPSHOT), &f->info, NULL), 0);
            check_text(f, "identity", "bop-data 1\nnode 7\ncluster green\n");
        }
        CHECK_EQ(f->heap.live, 0);
        CHECK_EQ(f->fs.open_files, 0);
    }
    CHECK(round > 60);
    test_note("%u rounds", round);
}
