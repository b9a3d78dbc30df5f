/* What the demo writes, and that its comparison overlooks nothing. */
#include <stdio.h>
#include <stdlib.h>

#include <bop/wire.h>

#include "demo_data.h"
#include "tap.h"

struct fixture {
    struct demo_data data;
    struct demo_check check;
};

static void setup(struct fixture *f)
{
    demo_data_init(&f->data);
}

static void teardown(struct fixture *f)
{
    free(f->check.seen);
    demo_data_deinit(&f->data);
}

FIXTURE(setup, teardown)

static void add(struct fixture *f, const char *key, const char *value)
{
    REQUIRE_EQ(demo_data_add(&f->data, bytes(key), bytes(value)), 0);
}

/* Three entries, acknowledged with versions 10, 11 and 12. */
static void make_three(struct fixture *f)
{
    add(f, "b", "2");
    add(f, "a", "1");
    add(f, "c", "3");
    REQUIRE_EQ(demo_data_finish(&f->data), 0);
    for (size_t i = 0; i < 3; i++) {
        f->data.entries[i].version = 10 + i;
    }
    REQUIRE_EQ(demo_check_begin(&f->check, &f->data), 0);
}

static void give(struct fixture *f, const char *key, const char *value, uint64_t version)
{
    demo_check_entry(&f->check, bytes(key), bytes(value), version);
}

TEST(demo_data, keeps_the_order_and_sorts_beside_it)
{
    add(f, "b", "2");
    add(f, "", "0");
    add(f, "a", "1");
    REQUIRE_EQ(demo_data_finish(&f->data), 0);
    CHECK_SLICE_EQ(demo_data_key(&f->data, 0), bytes("b"));
    CHECK_SLICE_EQ(demo_data_value(&f->data, 2), bytes("1"));
    CHECK_EQ(f->data.sorted[0], 1);
    CHECK_EQ(f->data.sorted[1], 2);
    CHECK_EQ(f->data.sorted[2], 0);
}

TEST(demo_data, keeps_the_last_of_one_key)
{
    add(f, "a", "1");
    add(f, "b", "2");
    add(f, "a", "3");
    add(f, "a", "4");
    REQUIRE_EQ(demo_data_finish(&f->data), 0);
    REQUIRE_EQ(f->data.count, 2);
    CHECK_SLICE_EQ(demo_data_key(&f->data, 0), bytes("b"));
    CHECK_SLICE_EQ(demo_data_value(&f->data, 1), bytes("4"));
    CHECK_EQ(f->data.sorted[0], 1);
}

TEST(demo_data, refuses_what_no_map_takes)
{
    static const uint8_t key[BOP_KEY_MAX + 1];

    CHECK_EQ(demo_data_add(&f->data, bop_slice(key, BOP_KEY_MAX), bytes("")), 0);
    CHECK_EQ(demo_data_add(&f->data, bop_slice(key, BOP_KEY_MAX + 1), bytes("")), BOP_ETOOBIG);
}

/* 50,000 entries, of which none has the key of another. */
TEST(demo_data, makes_words_that_differ)
{
    REQUIRE_EQ(demo_data_generate(&f->data, 50000), 0);
    REQUIRE_EQ(demo_data_finish(&f->data), 0);
    CHECK_EQ(f->data.count, 50000);
    for (size_t i = 0; i < f->data.count; i++) {
        size_t size = demo_data_value(&f->data, i).size;

        CHECK(size >= 100 && size <= 200);
        CHECK_EQ(demo_data_key(&f->data, i).size, 13); /* "word/" and 4 syllables. */
    }
}

TEST(demo_data, makes_the_same_each_time)
{
    struct demo_data other;

    demo_data_init(&other);
    REQUIRE_EQ(demo_data_generate(&f->data, 100), 0);
    REQUIRE_EQ(demo_data_generate(&other, 200), 0);
    CHECK_MEM_EQ(f->data.bytes.data, other.bytes.data, f->data.bytes.size);
    demo_data_deinit(&other);
}

TEST(demo_data, reads_packages)
{
    const char *path = test_path(NULL, "status");
    struct bop_error err = {0};
    FILE *file = fopen(path, "w");

    REQUIRE(file);
    fputs("Package: x\nA: b\n\nPackage: y\n", file);
    fclose(file);
    CHECK_EQ(demo_data_add_packages(&f->data, path, &err), 2);
    CHECK_SLICE_EQ(demo_data_key(&f->data, 1), bytes("y"));
    CHECK_EQ(demo_data_add_packages(&f->data, test_path(NULL, "none"), &err), -ENOENT);
}

TEST(demo_check, is_content_with_what_was_written)
{
    make_three(f);
    give(f, "c", "3", 12);
    give(f, "a", "1", 11);
    give(f, "b", "2", 10);
    demo_check_end(&f->check);
    CHECK(demo_check_good(&f->check));
    CHECK_EQ(f->check.found, 3);
}

TEST(demo_check, finds_a_lost_entry)
{
    make_three(f);
    give(f, "a", "1", 11);
    give(f, "c", "3", 12);
    demo_check_end(&f->check);
    CHECK(!demo_check_good(&f->check));
    CHECK_EQ(f->check.lost, 1);
}

/* What was never acknowledged may be missing, and may be there. */
TEST(demo_check, promises_nothing_of_what_was_not_acknowledged)
{
    make_three(f);
    f->data.entries[0].version = 0;
    f->data.entries[1].version = 0;
    give(f, "a", "1", 99);
    give(f, "c", "3", 12);
    demo_check_end(&f->check);
    CHECK(demo_check_good(&f->check));
}

TEST(demo_check, finds_a_changed_value)
{
    make_three(f);
    give(f, "a", "1 ", 11);
    give(f, "b", "2", 10);
    give(f, "c", "3", 12);
    demo_check_end(&f->check);
    CHECK(!demo_check_good(&f->check));
    CHECK_EQ(f->check.different, 1);
}

TEST(demo_check, finds_an_entry_written_twice)
{
    make_three(f);
    give(f, "a", "1", 13);
    give(f, "b", "2", 10);
    give(f, "c", "3", 12);
    demo_check_end(&f->check);
    CHECK(!demo_check_good(&f->check));
    CHECK_EQ(f->check.doubled, 1);
}

TEST(demo_check, finds_a_key_given_twice)
{
    make_three(f);
    give(f, "a", "1", 11);
    give(f, "a", "1", 11);
    give(f, "b", "2", 10);
    give(f, "c", "3", 12);
    demo_check_end(&f->check);
    CHECK(!demo_check_good(&f->check));
    CHECK_EQ(f->check.repeated, 1);
    CHECK_EQ(f->check.found, 3);
}

TEST(demo_check, finds_what_nobody_wrote)
{
    make_three(f);
    give(f, "a", "1", 11);
    give(f, "aa", "1", 11);
    give(f, "b", "2", 10);
    give(f, "c", "3", 12);
    demo_check_end(&f->check);
    CHECK(!demo_check_good(&f->check));
    CHECK_EQ(f->check.unknown, 1);
}
