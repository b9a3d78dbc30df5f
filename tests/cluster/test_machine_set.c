/*
 * Sets in the state machine: members, sizes, scans, and that nothing of them gets mixed
 * up with maps of the same name.
 */
#include <stdio.h>

#include "machine_help.h"

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

/* Run a write about a member and return its bool. */
static bool write_member(struct fixture *f, enum bop_op op, const char *set,
                         struct bop_slice member)
{
    struct bop_operation operation = {.op = op, .name = bytes(set), .key = member};

    CHECK_EQ(world_write(&f->world, 0, 0, 0, &operation), BOP_STATUS_OK);
    return world_decoded(&f->world, op).existed;
}

static bool add(struct fixture *f, const char *set, struct bop_slice member)
{
    return write_member(f, BOP_OP_SET_ADD, set, member);
}

static bool remove_member(struct fixture *f, const char *set, struct bop_slice member)
{
    return write_member(f, BOP_OP_SET_REMOVE, set, member);
}

static bool create(struct fixture *f, const char *set)
{
    return write_member(f, BOP_OP_SET_CREATE, set, bop_slice(NULL, 0));
}

static bool contains(struct fixture *f, const char *set, struct bop_slice member)
{
    struct bop_operation operation = {.op = BOP_OP_SET_CONTAINS, .name = bytes(set), .key = member};
    struct bop_result result = world_read(&f->world, &operation);

    CHECK_EQ(result.status, BOP_STATUS_OK);
    return result.existed;
}

static uint64_t size(struct fixture *f, const char *set)
{
    struct bop_operation operation = {.op = BOP_OP_SET_SIZE, .name = bytes(set)};

    return world_read(&f->world, &operation).size;
}

static struct bop_result scan(struct fixture *f, const char *set, struct bop_slice cursor,
                              uint32_t limit)
{
    struct bop_operation operation = {
        .op = BOP_OP_SET_SCAN, .name = bytes(set), .cursor = cursor, .limit = limit};

    return world_read(&f->world, &operation);
}

TEST(set, holds_each_member_once)
{
    CHECK(add(f, "s", bytes("a")));
    CHECK(!add(f, "s", bytes("a")));
    CHECK(add(f, "s", bytes("")));
    CHECK(contains(f, "s", bytes("a")));
    CHECK(contains(f, "s", bytes("")));
    CHECK(!contains(f, "s", bytes("b")));
    CHECK_EQ(size(f, "s"), 2);
    CHECK(remove_member(f, "s", bytes("a")));
    CHECK(!remove_member(f, "s", bytes("a")));
    CHECK(!contains(f, "s", bytes("a")));
    CHECK_EQ(size(f, "s"), 1);
}

TEST(set, is_made_by_its_first_member_or_a_create)
{
    CHECK_EQ(size(f, "s"), 0);
    CHECK(!contains(f, "s", bytes("a")));
    CHECK(!remove_member(f, "s", bytes("a")));
    CHECK_EQ(world_records(&f->world, MACHINE_SETS), 0); /* A remove makes none. */
    CHECK(create(f, "s"));
    CHECK(!create(f, "s"));
    CHECK(add(f, "t", bytes("a")));
    CHECK(!create(f, "t"));
    CHECK(remove_member(f, "t", bytes("a")));
    CHECK(!create(f, "t")); /* Empty, and still there. */
    CHECK_EQ(world_records(&f->world, MACHINE_SETS), 2);
    CHECK_EQ(world_records(&f->world, MACHINE_ENTRIES), 0);
}

TEST(set, is_apart_from_a_map_of_its_name)
{
    CHECK_EQ(world_put(&f->world, "x", "k", "v"), BOP_STATUS_OK);
    CHECK(add(f, "x", bytes("k")));
    CHECK(add(f, "x", bytes("l")));
    CHECK_EQ(world_size(&f->world, "x"), 1);
    CHECK_EQ(size(f, "x"), 2);
    CHECK(remove_member(f, "x", bytes("k")));
    CHECK_SLICE_EQ(world_get(&f->world, "x", bytes("k")).value, bytes("v"));
    CHECK_EQ(world_delete(&f->world, "x", "k"), BOP_STATUS_OK);
    CHECK(contains(f, "x", bytes("l")));
    world_reopen(&f->world);
    CHECK_EQ(world_size(&f->world, "x"), 0);
    CHECK_EQ(size(f, "x"), 1);
}

/* A member that is added again keeps the version it has. */
TEST(set, scan_gives_members_and_who_added_them)
{
    struct bop_scan_entry entry;
    struct bop_result page;

    add(f, "s", bytes("b"));
    add(f, "s", bytes("a"));
    add(f, "s", bytes("b"));
    page = scan(f, "s", bytes(""), 0);
    CHECK_EQ(page.revision, 3);
    CHECK_EQ(page.count, 2);
    CHECK_EQ(page.cursor.size, 0);
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_SLICE_EQ(entry.key, bytes("a"));
    CHECK_EQ(entry.version, 2);
    CHECK_EQ(entry.value.size, 0);
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_SLICE_EQ(entry.key, bytes("b"));
    CHECK_EQ(entry.version, 1);
    CHECK_EQ(scan(f, "none", bytes(""), 0).count, 0);
}

/* 500 members in pages of 7; what is added and removed between the pages does no harm. */
TEST(set, scan_goes_on_from_a_cursor)
{
    struct bop_buf cursor;
    unsigned seen = 0, pages = 0;
    char name[16];

    bop_buf_init(&cursor, NULL, 0);
    world_begin(&f->world);
    for (unsigned i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "%03u", i);
        add(f, "s", bytes(name));
    }
    world_commit(&f->world);
    do {
        struct bop_result page = scan(f, "s", bop_buf_slice(&cursor), 7);
        struct bop_scan_entry entry;

        while (bop_scan_next(&page.entries, &entry)) {
            snprintf(name, sizeof(name), "%03u", seen++);
            CHECK_SLICE_EQ(entry.key, bytes(name));
        }
        bop_buf_clear(&cursor);
        REQUIRE_EQ(bop_buf_append(&cursor, page.cursor.data, page.cursor.size), 0);
        remove_member(f, "s", bytes(name)); /* The one the cursor stands on. */
        pages++;
    } while (cursor.size > 0);
    CHECK_EQ(seen, 500);
    CHECK_EQ(pages, 72); /* 71 times 7 and 3. */
    bop_buf_deinit(&cursor);
}

TEST(set, members_may_be_long)
{
    static uint8_t member[BOP_KEY_MAX + 1];
    struct bop_scan_entry entry;
    struct bop_result page;
    struct bop_operation operation = {.op = BOP_OP_SET_ADD, .name = bytes("s")};

    memset(member, 'm', sizeof(member));
    CHECK(add(f, "s", bop_slice(member, BOP_KEY_MAX)));
    CHECK(!add(f, "s", bop_slice(member, BOP_KEY_MAX)));
    CHECK(!contains(f, "s", bop_slice(member, BOP_KEY_MAX - 1)));
    CHECK(contains(f, "s", bop_slice(member, BOP_KEY_MAX)));
    page = scan(f, "s", bytes(""), 0);
    REQUIRE(bop_scan_next(&page.entries, &entry));
    CHECK_SLICE_EQ(entry.key, bop_slice(member, BOP_KEY_MAX));
    operation.key = bop_slice(member, sizeof(member));
    CHECK_EQ(world_write(&f->world, 0, 0, 0, &operation), BOP_STATUS_TOO_BIG);
    CHECK(remove_member(f, "s", bop_slice(member, BOP_KEY_MAX)));
    CHECK_EQ(world_records(&f->world, MACHINE_ENTRIES), 0);
}

/* More sets and maps of the same names than the cache has, in one batch. */
TEST(set, more_of_them_than_are_cached)
{
    char name[16];

    world_begin(&f->world);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 500; i++) {
            snprintf(name, sizeof(name), "x%u", i);
            CHECK(add(f, name, bytes(round ? "a" : "b")));
            CHECK_EQ(world_put(&f->world, name, "k", "v"), BOP_STATUS_OK);
        }
    }
    world_commit(&f->world);
    for (unsigned i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "x%u", i);
        CHECK_EQ(size(f, name), 2);
        CHECK_EQ(world_size(&f->world, name), 1);
    }
    CHECK_EQ(world_records(&f->world, MACHINE_SETS), 500);
    CHECK_EQ(world_records(&f->world, MACHINE_ENTRIES), 1500);
}

TEST(set, abort_takes_back_what_the_batch_did)
{
    uint64_t digest;

    add(f, "s", bytes("a"));
    digest = world_digest(&f->world);
    world_begin(&f->world);
    add(f, "s", bytes("b"));
    add(f, "t", bytes("b"));
    remove_member(f, "s", bytes("a"));
    world_abort(&f->world);
    CHECK_EQ(world_digest(&f->world), digest);
    CHECK(contains(f, "s", bytes("a")));
    CHECK_EQ(size(f, "s"), 1);
    CHECK_EQ(size(f, "t"), 0);
}
