/*
 * Truncation from the back and the front, and reset.
 */
#include "harness.h"

static bool has_file(struct fixture *f, const char *path)
{
    return bop_fs_exists(f->fs, path);
}

TEST(truncate, back_makes_place_for_others)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "old", 10);
    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 6), 0);
    CHECK_EQ(bop_aof_last(f->aof), 6);
    CHECK_EQ(bop_aof_durable(f->aof), 6); /* It was 10. */
    append_texts(f, "new", 3);
    CHECK_EQ(f->durable, 9);
    for (int round = 0; round < 2; round++) {
        check_texts(f, "old", 1, 6);
        check_texts(f, "new", 7, 9);
        CHECK_EQ(bop_aof_last(f->aof), 9);
        close_log(f);
        REQUIRE_EQ(open_log(f), 0);
    }
}

TEST(truncate, back_drops_what_is_not_yet_written)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "old", 2);
    REQUIRE_EQ(append(f, bytes("old 3"), bytes("")), 0);
    REQUIRE_EQ(append(f, bytes("old 4"), bytes("")), 0);
    REQUIRE_EQ(append(f, bytes("old 5"), bytes("")), 0);
    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 3), 0);
    check_texts(f, "old", 1, 3);
    bop_inline_poll(&f->executor);
    CHECK_EQ(f->durable, 3); /* 4 and 5 are never called durable. */
    append_texts(f, "new", 2);
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    check_texts(f, "old", 1, 3);
    check_texts(f, "new", 4, 5);
}

TEST(truncate, back_may_drop_all_and_many_segments)
{
    f->options.segment_bytes = 4096 + 4 * 56;
    f->options.first_seq = 10;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "o", 40);
    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 9), 0);
    CHECK_EQ(bop_aof_first(f->aof), 10);
    CHECK_EQ(bop_aof_last(f->aof), 9);
    append_texts(f, "n", 5);
    CHECK(!has_file(f, segment_path(10, 1)));
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(f->recovery.segments, 2);
    check_texts(f, "n", 10, 14);
}

TEST(truncate, back_refuses_what_is_not_there)
{
    f->options.first_seq = 5;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "x", 3);
    CHECK_EQ(bop_aof_truncate_back(f->aof, 3), BOP_EINVAL);
    CHECK_EQ(bop_aof_truncate_back(f->aof, 8), BOP_EINVAL);
    CHECK_EQ(bop_aof_truncate_back(f->aof, 7), 0); /* Nothing to do. */
    CHECK(!bop_aof_busy(f->aof));
    CHECK_EQ(bop_aof_last(f->aof), 7);
}

/* The chain goes on from the last kept record, wherever it is read from. */
TEST(truncate, back_repeats)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "a", 100);
    for (uint64_t keep = 99; keep > 80; keep--) {
        REQUIRE_EQ(bop_aof_truncate_back(f->aof, keep), 0);
        REQUIRE_EQ(append(f, bytes("gone"), bytes("")), 0);
        if (keep % 3 == 0) {
            bop_inline_poll(&f->executor);
        }
    }
    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 81), 0);
    append_texts(f, "b", 20);
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    check_texts(f, "a", 1, 81);
    check_texts(f, "b", 82, 101);
    CHECK_EQ(f->recovery.segments, 2);
}

TEST(truncate, front_lets_whole_segments_go)
{
    f->options.segment_bytes = 4096 + 4 * 56; /* 4 records each. */
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 16);
    REQUIRE_EQ(bop_aof_truncate_front(f->aof, 4), 0);
    CHECK_EQ(bop_aof_first(f->aof), 1); /* 4 is in the first one. */
    REQUIRE_EQ(bop_aof_truncate_front(f->aof, 10), 0);
    CHECK_EQ(bop_aof_first(f->aof), 9);
    bop_inline_poll(&f->executor);
    CHECK(!has_file(f, segment_path(1, 1)));
    CHECK(!has_file(f, segment_path(5, 2)));
    CHECK(has_file(f, segment_path(9, 3)));
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_first(f->aof), 9);
    check_texts(f, "r", 9, 16);

    REQUIRE_EQ(bop_aof_truncate_front(f->aof, 1000), 0);
    CHECK_EQ(bop_aof_last(f->aof), 16);
    CHECK_EQ(bop_aof_first(f->aof), 17);
    append_texts(f, "r", 1);
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    check_texts(f, "r", 17, 17);
}

TEST(truncate, reset_begins_anew_anywhere)
{
    static const uint64_t firsts[] = {1000, 3, 1, UINT64_C(1) << 40};

    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "old", 10);
    for (size_t i = 0; i < BOP_COUNT_OF(firsts); i++) {
        uint64_t first = firsts[i];

        REQUIRE_EQ(append(f, bytes("not yet written"), bytes("")), 0);
        REQUIRE_EQ(bop_aof_reset(f->aof, first), 0);
        CHECK_EQ(bop_aof_first(f->aof), first);
        CHECK_EQ(bop_aof_last(f->aof), first - 1);
        CHECK_EQ(bop_aof_durable(f->aof), first - 1);
        append_texts(f, "new", 2);
        CHECK_EQ(f->durable, first + 1);
        close_log(f);
        REQUIRE_EQ(open_log(f), 0);
        CHECK_EQ(f->recovery.segments, 1);
        CHECK_EQ(bop_aof_first(f->aof), first);
        CHECK_EQ(bop_aof_last(f->aof), first + 1);
        check_texts(f, "new", first, first + 1);
    }
    CHECK_EQ(bop_aof_reset(f->aof, 0), BOP_EINVAL);
    CHECK_EQ(bop_aof_reset(f->aof, UINT64_MAX), BOP_EINVAL);
}
