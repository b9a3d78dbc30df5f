#include <bop/crc32c.h>
#include <bop/sim.h>
#include <bop/slice.h>

#include "vote_file.h"

#include "tap.h"

#define PATH "/vote"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_sim *sim;
    struct bop_fs *fs;
    struct vote_file file;
};

static void make_disk(struct fixture *f, uint64_t seed)
{
    struct bop_fs_sim_options options = {.allocator = &f->heap.allocator, .seed = seed};

    bop_fs_sim_destroy(f->sim);
    f->sim = NULL;
    REQUIRE_EQ(bop_fs_sim_create(&options, &f->sim), 0);
    f->fs = bop_fs_sim_fs(f->sim);
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    f->file.fd = -1;
    make_disk(f, 1);
}

static void teardown(struct fixture *f)
{
    bop__vote_file_close(&f->file);
    bop_fs_sim_destroy(f->sim);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static int open_file(struct fixture *f, bool create)
{
    return bop__vote_file_open(&f->file, f->fs, PATH, create, NULL);
}

TEST(vote_file, begins_with_nothing_voted)
{
    REQUIRE_EQ(open_file(f, true), 0);
    CHECK_EQ(f->file.term, 0);
    CHECK_EQ(f->file.vote, 0);
    bop__vote_file_close(&f->file);
    REQUIRE_EQ(open_file(f, false), 0);
    CHECK_EQ(f->file.term, 0);
    CHECK_EQ(f->file.vote, 0);
}

TEST(vote_file, keeps_what_was_saved_last)
{
    REQUIRE_EQ(open_file(f, true), 0);
    for (uint64_t term = 1; term <= 5; term++) {
        REQUIRE_EQ(bop__vote_file_save(&f->file, term, term * 10), 0);
        CHECK_EQ(f->file.term, term);
        bop__vote_file_close(&f->file);
        REQUIRE_EQ(open_file(f, false), 0);
        CHECK_EQ(f->file.term, term);
        CHECK_EQ(f->file.vote, term * 10);
    }
}

TEST(vote_file, that_is_not_there_is_no_new_one)
{
    struct bop_error err = {0};

    CHECK_EQ(bop__vote_file_open(&f->file, f->fs, PATH, false, &err), -ENOENT);
    CHECK_STR_HAS(err.message, PATH);
    CHECK(!bop_fs_exists(f->fs, PATH));
}

/* The bytes are a disk format; docs/design/data-directory.md has them. */
TEST(vote_file, has_these_bytes)
{
    static const uint8_t expected[] = {
        'B',  'O',  'P',  'V',  'O', 'T', 'E', '1', /* Magic. */
        3,    0,    0,    0,    0,   0,   0,   0,   /* Counter: two saves made the file. */
        8,    7,    6,    5,    4,   3,   2,   1,   /* Term. */
        9,    0,    0,    0,    0,   0,   0,   0,   /* Vote. */
        0xb7, 0xcb, 0xde, 0xad,                     /* crc32c. */
    };
    uint8_t slot[sizeof(expected)];

    REQUIRE_EQ(open_file(f, true), 0);
    REQUIRE_EQ(bop__vote_file_save(&f->file, 0x0102030405060708, 9), 0);
    REQUIRE_EQ(bop_fs_read_exact(f->fs, f->file.fd, slot, sizeof(slot), 4096), 0);
    CHECK_MEM_EQ(slot, expected, sizeof(expected));
}

/* Damage of the newer slot leaves the older one; nothing but these two is ever read. */
TEST(vote_file, with_one_damaged_slot_has_the_other)
{
    REQUIRE_EQ(open_file(f, true), 0);
    REQUIRE_EQ(bop__vote_file_save(&f->file, 4, 40), 0); /* Counter 3: slot 1. */
    REQUIRE_EQ(bop__vote_file_save(&f->file, 5, 50), 0); /* Counter 4: slot 0. */
    bop__vote_file_close(&f->file);
    for (uint64_t bit = 0; bit < (uint64_t)36 * 8; bit++) {
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PATH, bit), 0);
        REQUIRE_EQ(open_file(f, false), 0);
        CHECK_EQ(f->file.term, 4);
        CHECK_EQ(f->file.vote, 40);
        bop__vote_file_close(&f->file);
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PATH, bit), 0);
    }
}

TEST(vote_file, with_both_slots_damaged_is_refused)
{
    struct bop_error err = {0};

    REQUIRE_EQ(open_file(f, true), 0);
    bop__vote_file_close(&f->file);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PATH, 100), 0);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PATH, (4096 + 20) * 8), 0);
    CHECK_EQ(bop__vote_file_open(&f->file, f->fs, PATH, false, &err), BOP_ECORRUPT);
    CHECK_STR_HAS(err.message, PATH);
}

TEST(vote_file, that_is_cut_is_refused)
{
    REQUIRE_EQ(open_file(f, true), 0);
    for (uint64_t size = 4096 + 35; size > 0; size /= 2) {
        REQUIRE_EQ(f->fs->truncate(f->fs, f->file.fd, size), 0);
        bop__vote_file_close(&f->file);
        /* Whatever is left in it: it was made longer. */
        CHECK_EQ(open_file(f, false), BOP_ECORRUPT);
        f->file.fd = f->fs->open(f->fs, PATH, O_RDWR);
        REQUIRE(f->file.fd >= 0);
        f->file.fs = f->fs;
    }
}

/* ---- Power failures ---- */

/* Save until an operation fails. Returns the last term of which a save returned. */
static uint64_t save_until_cut(struct fixture *f, uint64_t term)
{
    while (bop__vote_file_save(&f->file, term + 1, (term + 1) * 7) == 0) {
        term++;
    }
    bop__vote_file_close(&f->file);
    return term;
}

/* The power fails at each operation of a series of saves, over and over. What is
 * there then is what the last save that returned wrote, or the one that was cut. */
TEST(vote_file, never_goes_back_nor_invents)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        uint64_t term = 0;

        make_disk(f, seed);
        REQUIRE_EQ(open_file(f, true), 0);
        REQUIRE_EQ(f->fs->sync_dir(f->fs, "/"), 0);
        for (uint64_t operation = 1; operation <= 20; operation++) {
            uint64_t saved;

            bop_fs_sim_stop_after(f->sim, operation);
            saved = save_until_cut(f, term);
            bop_fs_sim_lose_power(f->sim);
            REQUIRE_EQ(open_file(f, false), 0);
            CHECK(f->file.term == saved || f->file.term == saved + 1);
            CHECK_EQ(f->file.vote, f->file.term * 7);
            term = f->file.term;
        }
        bop__vote_file_close(&f->file);
    }
}

/* The same with syncs that fail: what they should have written is lost, or is not. */
TEST(vote_file, survives_failed_syncs)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        make_disk(f, seed);
        REQUIRE_EQ(open_file(f, true), 0);
        REQUIRE_EQ(f->fs->sync_dir(f->fs, "/"), 0);
        REQUIRE_EQ(bop__vote_file_save(&f->file, 1, 7), 0);
        bop_fs_sim_fail_syncs(f->sim, 1);
        CHECK(bop__vote_file_save(&f->file, 2, 14) < 0);
        CHECK_EQ(f->file.term, 1); /* Nothing is to follow from it. */
        bop__vote_file_close(&f->file);
        if (seed % 2) {
            bop_fs_sim_lose_power(f->sim);
        } else {
            bop_fs_sim_kill_process(f->sim);
        }
        REQUIRE_EQ(open_file(f, false), 0);
        CHECK(f->file.term == 1 || f->file.term == 2);
        CHECK_EQ(f->file.vote, f->file.term * 7);
        bop__vote_file_close(&f->file);
    }
}

/* Each operation fails once in turn: that very error, and nothing stays open. */
TEST(vote_file, survives_each_fault)
{
    struct bop_fs_faulty faulty;

    bop_fs_faulty_init(&faulty, f->fs, &f->faults);
    FAULT_SWEEP(&f->faults) {
        struct bop_error err = {0};
        struct vote_file file;
        int rc = bop__vote_file_open(&file, &faulty.fs, PATH, true, &err);

        if (rc == 0) {
            rc = bop__vote_file_save(&file, 1, 2);
            bop__vote_file_close(&file);
        } else {
            CHECK_STR_HAS(err.message, PATH);
        }
        if (rc == 0) {
            rc = bop__vote_file_open(&file, &faulty.fs, PATH, false, &err);
            CHECK(rc < 0 || (file.term == 1 && file.vote == 2));
            bop__vote_file_close(&file);
        }
        CHECK_EQ(rc, f->faults.fired);
        CHECK_EQ(faulty.open_files, 0);
    }
    /* Two opens, three writes and their syncs, one read; the disk makes some short. */
    CHECK(f->faults.at >= 9);
}

/* Its next save would count as the oldest. */
TEST(vote_file, refuses_a_counter_that_would_begin_anew)
{
    uint8_t slot[36];
    int fd;

    REQUIRE_EQ(bop__vote_file_open(&f->file, f->fs, PATH, true, NULL), 0);
    REQUIRE_EQ(bop__vote_file_save(&f->file, 5, 1), 0);
    bop__vote_file_close(&f->file);
    fd = f->fs->open(f->fs, PATH, O_RDWR);
    REQUIRE(fd >= 0);
    REQUIRE_EQ(bop_fs_read_exact(f->fs, fd, slot, sizeof(slot), 0), 0);
    bop_store_u64(slot + 8, UINT64_MAX);
    bop_store_u32(slot + 32, bop_crc32c(0, slot, 32));
    REQUIRE_EQ(bop_fs_write_all(f->fs, fd, slot, sizeof(slot), 0), 0);
    CHECK_EQ(f->fs->close(f->fs, fd), 0);
    REQUIRE_EQ(bop__vote_file_open(&f->file, f->fs, PATH, false, NULL), 0);
    CHECK_EQ(f->file.term, 5);
    CHECK_EQ(f->file.vote, 1);
}
