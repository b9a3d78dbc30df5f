#include "history.h"

#include <bop/random.h>

#include "tap.h"

#define MANY 3000

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct history history;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop__history_init(&f->history, &f->heap.allocator, 4 * HISTORY_CHUNK, 10);
}

static void teardown(struct fixture *f)
{
    bop__history_deinit(&f->history);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* The events of an entry: its revision over and over, as many bytes as the test says. */
static void add(struct fixture *f, uint64_t revision, size_t size)
{
    static uint8_t data[8 * HISTORY_CHUNK];

    REQUIRE(size <= sizeof(data));
    memset(data, (int)(revision & 0xff), size);
    bop__history_add(&f->history, revision, bop_slice(data, size));
}

/* That what follows `after` is these revisions, each of `size` bytes. */
static void check_after(struct fixture *f, uint64_t after, const uint64_t *revisions, size_t count)
{
    struct history_cursor cursor;
    struct bop_slice events;
    uint64_t revision;

    REQUIRE(bop__history_seek(&f->history, after, &cursor));
    for (size_t n = 0; n < count; n++) {
        REQUIRE(bop__history_next(&f->history, &cursor, &revision, &events));
        CHECK_EQ(revision, revisions[n]);
        CHECK_EQ(events.data[0], revisions[n] & 0xff);
        CHECK_EQ(events.data[events.size - 1], revisions[n] & 0xff);
    }
    CHECK(!bop__history_next(&f->history, &cursor, &revision, &events));
}

TEST(history, costs_nothing_while_it_is_empty)
{
    CHECK_EQ(f->heap.live, 0);
    check_after(f, 10, NULL, 0);
    check_after(f, 99, NULL, 0); /* What is still to come. */
}

TEST(history, reaches_back_to_where_it_began)
{
    struct history_cursor cursor;

    CHECK(!bop__history_seek(&f->history, 9, &cursor));
    CHECK(bop__history_seek(&f->history, 10, &cursor));
}

TEST(history, gives_what_follows_a_revision)
{
    static const uint64_t all[] = {11, 15, 16, 40};

    for (size_t n = 0; n < 4; n++) {
        add(f, all[n], 100);
    }
    check_after(f, 10, all, 4);
    check_after(f, 11, all + 1, 3);
    check_after(f, 14, all + 1, 3); /* Between two. */
    check_after(f, 39, all + 3, 1);
    check_after(f, 40, NULL, 0);
    check_after(f, 41, NULL, 0);
}

TEST(history, drops_the_oldest_and_says_so)
{
    struct history_cursor cursor;
    struct bop_slice events;
    uint64_t revision, expected;

    for (uint64_t n = 11; n < 11 + MANY; n++) {
        add(f, n, 500);
        REQUIRE(f->history.bytes <= 4 * HISTORY_CHUNK);
        REQUIRE(f->heap.live <= 4 * HISTORY_CHUNK + 1024);
    }
    CHECK(f->history.after > 10);
    CHECK(!bop__history_seek(&f->history, f->history.after - 1, &cursor));
    REQUIRE(bop__history_seek(&f->history, f->history.after, &cursor));
    expected = f->history.after + 1;
    while (bop__history_next(&f->history, &cursor, &revision, &events)) {
        REQUIRE_EQ(revision, expected++);
        CHECK_EQ(events.size, 500);
    }
    CHECK_EQ(expected, 11 + MANY);
}

TEST(history, holds_an_entry_larger_than_a_chunk)
{
    static const uint64_t all[] = {11, 12, 13};

    add(f, 11, 10);
    add(f, 12, HISTORY_CHUNK + 10);
    add(f, 13, 10);
    check_after(f, 10, all, 3);
}

TEST(history, forgets_all_for_an_entry_it_cannot_hold)
{
    static const uint64_t rest[] = {13};

    add(f, 11, 10);
    add(f, 12, 5 * HISTORY_CHUNK);
    CHECK_EQ(f->history.after, 12);
    CHECK_EQ(f->history.bytes, 0);
    add(f, 13, 10);
    check_after(f, 12, rest, 1);
}

TEST(history, forgets_all_without_memory_and_goes_on)
{
    static const uint64_t rest[] = {13};

    FAULT_SWEEP(&f->faults) {
        bop__history_deinit(&f->history);
        bop__history_init(&f->history, &f->heap.allocator, 4 * HISTORY_CHUNK, 10);
        add(f, 11, 10);
        add(f, 12, HISTORY_CHUNK);
        CHECK(f->history.after == 10 || f->faults.fired);
        CHECK_EQ(f->history.last, 12);
        f->faults.fail_at = 0;
        add(f, 13, 10);
        check_after(f, 12, rest, 1);
    }
}

TEST(history, a_reset_begins_anew)
{
    struct history_cursor cursor;
    static const uint64_t rest[] = {101};

    add(f, 11, 10);
    bop__history_reset(&f->history, 100);
    CHECK(!bop__history_seek(&f->history, 99, &cursor));
    add(f, 101, 10);
    check_after(f, 100, rest, 1);
}

/* Against a plain list of what was added. */
TEST(history, is_what_was_added)
{
    struct bop_random random;
    static uint64_t revisions[MANY];
    uint64_t revision = 10;
    size_t first = 0;

    bop_random_seed(&random, 5);
    for (size_t n = 0; n < MANY; n++) {
        revision += 1 + bop_random_below(&random, 3);
        revisions[n] = revision;
        add(f, revision, 1 + bop_random_below(&random, 2000));
        if (n % 50 == 0) {
            size_t from;

            while (revisions[first] <= f->history.after) {
                first++;
            }
            from = first + bop_random_below(&random, n + 1 - first);
            check_after(f, from > first ? revisions[from - 1] : f->history.after, revisions + from,
                        n + 1 - from);
        }
    }
}
