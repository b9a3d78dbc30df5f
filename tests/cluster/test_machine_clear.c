/*
 * Clearing collections: at once for whoever looks, little by little in the store.
 */
#include <stdio.h>

#include "machine_help.h"
#include "snapshot.h"

struct fixture {
    struct test_heap heap;
    struct world world;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    world_init(&f->world, &f->heap.allocator);
}

static void teardown(struct fixture *f)
{
    world_close(&f->world);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void fill(struct world *w, const char *map, unsigned count)
{
    bool single = !w->batch;
    char key[16];

    if (single) {
        world_begin(w);
    }
    for (unsigned i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "%u", i);
        CHECK_EQ(world_put(w, map, key, "v"), BOP_STATUS_OK);
    }
    if (single) {
        world_commit(w);
    }
}

static uint64_t clear(struct world *w, enum bop_op op, const char *name)
{
    struct bop_operation operation = {.op = op, .name = bytes(name)};

    CHECK_EQ(world_write(w, 0, 0, 0, &operation), BOP_STATUS_OK);
    return world_decoded(w, op).size;
}

TEST(clear, empties_each_kind)
{
    struct world *w = &f->world;
    struct bop_operation add = {.op = BOP_OP_SET_ADD, .name = bytes("x"), .key = bytes("k")};
    struct bop_operation pair = {
        .op = BOP_OP_MULTIMAP_PUT, .name = bytes("x"), .key = bytes("k"), .value = bytes("v")};
    struct bop_operation set_size = {.op = BOP_OP_SET_SIZE, .name = bytes("x")};
    struct bop_operation multimap_size = {.op = BOP_OP_MULTIMAP_SIZE, .name = bytes("x")};

    fill(w, "x", 3);
    CHECK_EQ(world_write(w, 0, 0, 0, &add), BOP_STATUS_OK);
    CHECK_EQ(world_write(w, 0, 0, 0, &pair), BOP_STATUS_OK);
    CHECK_EQ(clear(w, BOP_OP_MAP_CLEAR, "x"), 3);
    CHECK_EQ(world_size(w, "x"), 0);
    CHECK_EQ(world_get(w, "x", bytes("1")).status, BOP_STATUS_NOT_FOUND);
    CHECK_EQ(world_read(w, &set_size).size, 1);
    CHECK_EQ(clear(w, BOP_OP_SET_CLEAR, "x"), 1);
    CHECK_EQ(world_read(w, &set_size).size, 0);
    CHECK_EQ(world_read(w, &multimap_size).size, 1);
    CHECK_EQ(clear(w, BOP_OP_MULTIMAP_CLEAR, "x"), 1);
    CHECK_EQ(world_read(w, &multimap_size).size, 0);
    /* So few are gone with the entry that cleared them. */
    CHECK_EQ(world_records(w, MACHINE_ENTRIES), 0);
    CHECK_EQ(world_records(w, MACHINE_GARBAGE), 0);
    CHECK_EQ(world_put(w, "x", "1", "new"), BOP_STATUS_OK);
    CHECK_EQ(world_size(w, "x"), 1);
}

/* What is empty keeps its id; what is not there is not made. */
TEST(clear, of_nothing_changes_nothing)
{
    struct world *w = &f->world;
    struct bop_operation create = {.op = BOP_OP_MAP_CREATE, .name = bytes("m")};

    CHECK_EQ(clear(w, BOP_OP_MAP_CLEAR, "m"), 0);
    CHECK_EQ(world_records(w, MACHINE_MAPS), 0);
    CHECK_EQ(world_write(w, 0, 0, 0, &create), BOP_STATUS_OK);
    CHECK_EQ(clear(w, BOP_OP_MAP_CLEAR, "m"), 0);
    CHECK_EQ(world_records(w, MACHINE_GARBAGE), 0);
    CHECK_EQ(w->machine->map_next, 2);
}

/* 1000 entries: 64 go with each entry of the log, the clear's own and those of barriers included.
 */
TEST(clear, removes_a_little_with_each_entry)
{
    struct world *w = &f->world;
    unsigned entries = 1;

    fill(w, "m", 1000);
    fill(w, "other", 5);
    CHECK_EQ(clear(w, BOP_OP_MAP_CLEAR, "m"), 1000);
    CHECK_EQ(world_size(w, "m"), 0);
    CHECK_EQ(world_records(w, MACHINE_ENTRIES), 1000 - 64 + 5);
    CHECK_EQ(world_records(w, MACHINE_GARBAGE), 1);
    fill(w, "m", 7); /* With the new id; each takes its part of the old. */
    CHECK_EQ(world_records(w, MACHINE_ENTRIES), 1000 - 8 * 64 + 5 + 7);
    CHECK_EQ(clear(w, BOP_OP_MAP_CLEAR, "m"), 7); /* Garbage behind the garbage. */
    CHECK_EQ(world_records(w, MACHINE_GARBAGE), 2);
    while (world_records(w, MACHINE_GARBAGE) > 0 && entries < 100) {
        world_entry(w, BOP_RAFT_BARRIER, bop_slice(NULL, 0));
        entries++;
    }
    CHECK_EQ(entries, 9); /* 1000 - 9 * 64 = 424: 7 more, and one for the 7 others. */
    CHECK_EQ(world_records(w, MACHINE_ENTRIES), 5);
    CHECK_EQ(world_size(w, "other"), 5);
}

/* Whatever the batches, and whatever is aborted, reopened or loaded in between. */
TEST(clear, leaves_the_same_bytes_everywhere)
{
    struct world *w = &f->world, other = {0};
    const char *path = test_path(NULL, "snapshot");
    struct machine_view *view;
    struct snapshot_info info;

    fill(w, "m", 500);
    clear(w, BOP_OP_MAP_CLEAR, "m");
    fill(w, "m", 3);

    other.options.path = test_path(NULL, "other");
    world_init(&other, &f->heap.allocator);
    world_begin(&other);
    fill(&other, "m", 500);
    clear(&other, BOP_OP_MAP_CLEAR, "m");
    world_abort(&other);
    fill(&other, "m", 500);
    world_begin(&other);
    clear(&other, BOP_OP_MAP_CLEAR, "m");
    fill(&other, "m", 1);
    world_abort(&other);
    clear(&other, BOP_OP_MAP_CLEAR, "m");
    world_reopen(&other);
    fill(&other, "m", 3);
    CHECK_EQ(world_digest(&other), world_digest(w));

    REQUIRE_EQ(bop__machine_view_open(other.machine, &view), 0);
    REQUIRE_EQ(
        bop__snapshot_write(NULL, bop_fs_real(), path, view, bop_slice(NULL, 0), &info, NULL), 0);
    bop__machine_view_close(view);
    bop__machine_close(other.machine);
    other.machine = NULL;
    REQUIRE_EQ(bop__snapshot_load(bop_fs_real(), path, &other.options, &info, NULL), 0);
    world_open(&other);
    CHECK_EQ(world_records(&other, MACHINE_GARBAGE), 1);
    for (unsigned i = 0; i < 5; i++) {
        world_entry(w, BOP_RAFT_BARRIER, bop_slice(NULL, 0));
        world_entry(&other, BOP_RAFT_BARRIER, bop_slice(NULL, 0));
        CHECK_EQ(world_digest(&other), world_digest(w));
    }
    CHECK_EQ(world_records(&other, MACHINE_GARBAGE), 0);
    CHECK_EQ(world_records(&other, MACHINE_ENTRIES), 3);
    world_close(&other);
}

TEST(clear, of_a_store_that_makes_no_sense_is_told)
{
    struct world *w = &f->world;
    uint8_t left[MACHINE_GARBAGE_SIZE] = {0};

    CHECK_EQ(bop__machine_record_check(MACHINE_GARBAGE, bop_slice("\0\0\0\1", 4),
                                       bop_slice(left, sizeof(left))),
             BOP_ECORRUPT);
    left[0] = 1;
    CHECK_EQ(bop__machine_record_check(MACHINE_GARBAGE, bop_slice("\0\0\0\1", 4),
                                       bop_slice(left, sizeof(left))),
             0);
    CHECK_EQ(bop__machine_record_check(MACHINE_GARBAGE, bop_slice("\0\0\0\0", 4),
                                       bop_slice(left, sizeof(left))),
             BOP_ECORRUPT);
    CHECK_EQ(
        bop__machine_record_check(MACHINE_GARBAGE, bop_slice("\0\0\0\1", 4), bop_slice(left, 7)),
        BOP_ECORRUPT);
    CHECK_EQ(world_size(w, "m"), 0);
}
