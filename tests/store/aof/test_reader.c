/*
 * Readers over a log made by hand: what they read, where they seek to, what they notice.
 */
#include "small_log.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct small_log log;
    struct bop_aof_reader *reader;
    struct bop_error err;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    small_init(&f->log, &f->heap.allocator, bop_fs_real(), 10);
}

static void teardown(struct fixture *f)
{
    bop_aof_reader_close(f->reader);
    small_deinit(&f->log);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void open_reader(struct fixture *f, enum bop_aof_level level, bool pread)
{
    struct bop__lookup lookup = small_lookup(&f->log, pread);

    bop_aof_reader_close(f->reader);
    lookup.level = level;
    REQUIRE_EQ(bop__reader_open(&lookup, &f->heap.allocator, &f->reader), 0);
}

/* Four segments: one with fillers and records of all sizes, sealed; one with records that are all
 * alike, sealed; one not sealed yet; the newest. 10 is the first record. */
static void fill(struct fixture *f)
{
    for (unsigned i = 0; i < 900; i++) {
        small_append(&f->log, i * 41 % 500);
        if (i % 50 == 20) {
            maker_filler(&small_newest(&f->log)->maker);
        }
    }
    small_append(&f->log, 100000);
    small_append(&f->log, 0);
    small_publish(&f->log, true);
    small_roll(&f->log);
    for (unsigned i = 0; i < 1000; i++) {
        small_append(&f->log, 200);
    }
    small_publish(&f->log, true);
    small_roll(&f->log);
    for (unsigned i = 0; i < 1000; i++) {
        small_append(&f->log, i % 300);
    }
    small_publish(&f->log, true);
    small_roll(&f->log);
    for (unsigned i = 0; i < 100; i++) {
        small_append(&f->log, 60);
    }
    small_publish(&f->log, true);
    small_seal(&f->log, 0);
    small_seal(&f->log, 1);
}

/* The next record is this one. */
static void check_next(struct fixture *f, uint64_t seq)
{
    struct bop_aof_view view = {0};

    CHECK_EQ(bop_aof_reader_position(f->reader), seq);
    REQUIRE_EQ(bop_aof_reader_next(f->reader, &view, &f->err), 0);
    CHECK_EQ(view.seq, seq);
    CHECK_EQ(view.tag, maker_tag(seq));
    CHECK_EQ(view.time_us, maker_time(seq));
    CHECK_EQ(view.tier, BOP_AOF_HOT);
    check_payload(seq, view.payload);
}

static int next(struct fixture *f)
{
    struct bop_aof_view view = {0};

    return bop_aof_reader_next(f->reader, &view, &f->err);
}

/* ---- Reading and seeking ---- */

TEST(reader, reads_all_records_in_order)
{
    fill(f);
    for (int pread = 0; pread < 2; pread++) {
        open_reader(f, BOP_AOF_DISK, pread);
        for (uint64_t seq = 10; seq < small_next(&f->log); seq++) {
            check_next(f, seq);
        }
        CHECK_EQ(next(f), BOP_EEND);
        CHECK_EQ(next(f), BOP_EEND);
        CHECK_EQ(bop_aof_reader_position(f->reader), small_next(&f->log));
    }
}

TEST(reader, seeks_to_every_record)
{
    struct bop_random random;
    uint64_t count;

    fill(f);
    count = small_next(&f->log) - 10;
    bop_random_seed(&random, 3);
    for (int pread = 0; pread < 2; pread++) {
        open_reader(f, BOP_AOF_DISK, pread);
        for (uint64_t i = 0; i < count; i++) {
            uint64_t seq = 10 + (i * 1103) % count; /* Each once. */

            REQUIRE_EQ(bop_aof_reader_seek(f->reader, seq, &f->err), 0);
            check_next(f, seq);
            if (seq + 1 < 10 + count && bop_random_next(&random) % 2) {
                check_next(f, seq + 1);
            }
        }
    }
}

/* What a payload holds is never taken for a record, not even one that is in its place by the
 * average. */
TEST(reader, is_not_fooled_by_payloads_that_look_like_records)
{
    struct maker *m = &f->log.segments[0].maker;
    size_t begin, size;

    for (unsigned i = 0; i < 50; i++) {
        small_append(&f->log, 100);
    }
    begin = m->file.size - (size_t)bop__aof_record_size(100);
    size = m->file.size - begin;
    for (unsigned i = 0; i < 50; i++) {
        struct bop__aof_record_header header;
        size_t at = m->file.size;

        small_append(&f->log, 1000);
        /* Copies of a record in the payload, under a header that vouches for them. */
        for (size_t k = 0; k + size <= 1000; k += 8) {
            memcpy(m->file.data + at + BOP__AOF_RECORD_HEADER + k, m->file.data + begin, size);
        }
        memcpy(&header, m->file.data + at, sizeof(header));
        header.payload_crc = bop_crc32c(0, m->file.data + at + BOP__AOF_RECORD_HEADER, 1000);
        header.header_crc = bop__aof_header_crc(m->salt, &header);
        memcpy(m->file.data + at, &header, sizeof(header));
        m->chain = m->facts.link = bop__aof_link(&header);
    }
    small_publish(&f->log, true);
    small_roll(&f->log);
    small_seal(&f->log, 0);
    open_reader(f, BOP_AOF_DISK, false);
    for (uint64_t seq = 10; seq < 110; seq++) {
        struct bop_aof_view view = {0};

        REQUIRE_EQ(bop_aof_reader_seek(f->reader, seq, &f->err), 0);
        REQUIRE_EQ(bop_aof_reader_next(f->reader, &view, &f->err), 0);
        CHECK_EQ(view.seq, seq);
        CHECK_EQ(view.payload.size, seq < 60 ? 100 : 1000);
    }
}

TEST(reader, seeks_from_the_oldest_to_behind_the_last)
{
    fill(f);
    open_reader(f, BOP_AOF_DISK, false);
    CHECK_EQ(bop_aof_reader_seek(f->reader, 9, &f->err), BOP_ENOTFOUND);
    CHECK_EQ(bop_aof_reader_seek(f->reader, small_next(&f->log) + 1, &f->err), BOP_ENOTFOUND);
    CHECK_STR_HAS(f->err.message, " of 10 to ");
    CHECK_EQ(bop_aof_reader_position(f->reader), 10);
    check_next(f, 10);
    REQUIRE_EQ(bop_aof_reader_seek(f->reader, small_next(&f->log), &f->err), 0);
    CHECK_EQ(next(f), BOP_EEND);
    small_append(&f->log, 5);
    small_publish(&f->log, true);
    check_next(f, small_next(&f->log) - 1);
}

/* Times are three times the number, tags seven times. */
TEST(reader, seeks_by_time_and_tag)
{
    uint64_t end;

    fill(f);
    end = small_next(&f->log);
    open_reader(f, BOP_AOF_DISK, false);
    for (uint64_t seq = 10; seq < end; seq += seq % 13 + 1) {
        REQUIRE_EQ(bop_aof_reader_seek_time(f->reader, maker_time(seq), &f->err), 0);
        check_next(f, seq);
        REQUIRE_EQ(bop_aof_reader_seek_time(f->reader, maker_time(seq) - 1, &f->err), 0);
        check_next(f, seq);
        REQUIRE_EQ(bop_aof_reader_seek_tag(f->reader, maker_tag(seq) - 3, &f->err), 0);
        check_next(f, seq);
    }
    REQUIRE_EQ(bop_aof_reader_seek_time(f->reader, 0, &f->err), 0);
    check_next(f, 10);
    REQUIRE_EQ(bop_aof_reader_seek_tag(f->reader, UINT64_MAX, &f->err), 0);
    CHECK_EQ(bop_aof_reader_position(f->reader), end);
    CHECK_EQ(next(f), BOP_EEND);
    for (size_t n = 1; n < f->log.count; n++) {
        uint64_t base = f->log.segments[n].maker.facts.base;

        REQUIRE_EQ(bop_aof_reader_seek_time(f->reader, maker_time(base) - 2, &f->err), 0);
        check_next(f, base);
        REQUIRE_EQ(bop_aof_reader_seek_time(f->reader, maker_time(base - 1), &f->err), 0);
        check_next(f, base - 1);
        check_next(f, base);
    }
}

TEST(reader, of_an_empty_log_is_at_its_end)
{
    open_reader(f, BOP_AOF_DISK, false);
    CHECK_EQ(next(f), BOP_EEND);
    CHECK_EQ(bop_aof_reader_seek_time(f->reader, 5, &f->err), 0);
    CHECK_EQ(bop_aof_reader_position(f->reader), 10);
    CHECK_EQ(next(f), BOP_EEND);
}

TEST(reader, sees_what_has_reached_its_level)
{
    small_append(&f->log, 10);
    small_publish(&f->log, true);
    small_append(&f->log, 20);
    small_publish(&f->log, false);
    small_append(&f->log, 30);
    small_write(&f->log);
    open_reader(f, BOP_AOF_DISK, false);
    check_next(f, 10);
    CHECK_EQ(next(f), BOP_EEND);
    open_reader(f, BOP_AOF_OS, false);
    check_next(f, 10);
    check_next(f, 11);
    CHECK_EQ(next(f), BOP_EEND);
    small_publish(&f->log, true);
    check_next(f, 12);
}

/* ---- What is bad ---- */

static void flip(struct fixture *f, size_t n, uint64_t bit)
{
    struct small_segment *segment = &f->log.segments[n];
    uint8_t byte = 0;

    REQUIRE_EQ(bop_fs_read_exact(f->log.fs, segment->fd, &byte, 1, bit / 8), 0);
    byte ^= (uint8_t)(1u << bit % 8);
    REQUIRE_EQ(bop_fs_write_all(f->log.fs, segment->fd, &byte, 1, bit / 8), 0);
}

/* No flipped bit is served; those before it are, and those behind it can be gone to. */
TEST(reader, sees_each_flipped_bit)
{
    for (unsigned i = 0; i < 6; i++) {
        small_append(&f->log, 20 + i);
    }
    maker_filler(&small_newest(&f->log)->maker);
    small_append(&f->log, 3);
    small_publish(&f->log, true);
    for (uint64_t bit = UINT64_C(4096) * 8;
         bit<f->log.durable.end * 8; bit += bit> UINT64_C(4600) * 8 && bit < UINT64_C(8000) * 8
             ? 1001
             : 1) {
        uint64_t seq = 10;
        int rc = 0;

        flip(f, 0, bit);
        open_reader(f, BOP_AOF_DISK, bit % 2);
        while (rc == 0) {
            struct bop_aof_view view = {0};

            rc = bop_aof_reader_next(f->reader, &view, &f->err);
            if (rc == 0) {
                check_payload(seq, view.payload);
                seq++;
            }
        }
        CHECK_EQ(rc, BOP_ECORRUPT);
        CHECK(seq < 17);
        CHECK_STR_HAS(f->err.message, f->log.segments[0].file->path);
        CHECK_STR_HAS(f->err.message, ": record 1");
        CHECK_EQ(next(f), BOP_ECORRUPT);
        CHECK_EQ(bop_aof_reader_position(f->reader), seq);
        flip(f, 0, bit);
    }
}

/* A record of another generation of the same number is not taken. */
TEST(reader, sees_a_segment_that_does_not_follow)
{
    small_append(&f->log, 10);
    small_publish(&f->log, true);
    bop__aof_catalogue_end(&f->log.catalogue, f->log.segments[0].file, 11,
                           f->log.segments[0].maker.facts.end);
    small_begin(&f->log, 11, 12345);
    small_append(&f->log, 10);
    small_publish(&f->log, true);
    open_reader(f, BOP_AOF_DISK, false);
    check_next(f, 10);
    CHECK_EQ(next(f), BOP_ECORRUPT);
    CHECK_STR_HAS(f->err.message, "does not follow the segment before");
    CHECK_EQ(bop_aof_reader_seek(f->reader, 11, &f->err), 0);
    check_next(f, 11); /* By itself it is right. */
}

/* Without its index a segment is walked through. */
TEST(reader, gets_over_a_bad_footer)
{
    fill(f);
    flip(f, 1, (f->log.segments[1].maker.facts.end + 9) * 8);
    flip(f, 0, (f->log.segments[0].maker.facts.size - 100) * 8);
    open_reader(f, BOP_AOF_DISK, false);
    for (uint64_t seq = 10; seq < small_next(&f->log); seq += 97) {
        REQUIRE_EQ(bop_aof_reader_seek(f->reader, seq, &f->err), 0);
        check_next(f, seq);
        REQUIRE_EQ(bop_aof_reader_seek_tag(f->reader, maker_tag(seq), &f->err), 0);
        check_next(f, seq);
    }
}

TEST(reader, says_which_file_is_missing)
{
    fill(f);
    REQUIRE_EQ(f->log.fs->unlink(f->log.fs, f->log.segments[1].file->path), 0);
    open_reader(f, BOP_AOF_DISK, false);
    REQUIRE_EQ(bop_aof_reader_seek(f->reader, f->log.segments[1].maker.facts.base, &f->err), 0);
    CHECK_EQ(next(f), -ENOENT);
    CHECK_STR_HAS(f->err.message, f->log.segments[1].file->path);
}

/* ---- What the log does meanwhile ---- */

TEST(reader, goes_on_in_a_file_that_the_log_let_go_of)
{
    uint64_t base;

    fill(f);
    open_reader(f, BOP_AOF_DISK, false);
    check_next(f, 10);
    small_drop(&f->log, 0);
    small_drop(&f->log, 1);
    base = f->log.segments[1].maker.facts.base;
    bop__aof_catalogue_oldest(&f->log.catalogue, f->log.segments[2].maker.facts.base);
    for (uint64_t seq = 11; seq < base; seq++) {
        check_next(f, seq);
    }
    CHECK_EQ(next(f), BOP_ENOTFOUND);
    CHECK_EQ(bop_aof_reader_seek(f->reader, base, &f->err), BOP_ENOTFOUND);
    base = f->log.segments[2].maker.facts.base;
    REQUIRE_EQ(bop_aof_reader_seek(f->reader, base, &f->err), 0);
    check_next(f, base);
}

TEST(reader, is_not_disturbed_by_sealing)
{
    fill(f);
    open_reader(f, BOP_AOF_DISK, false);
    REQUIRE_EQ(bop_aof_reader_seek(f->reader, f->log.segments[2].maker.facts.base, &f->err), 0);
    for (uint64_t seq = f->log.segments[2].maker.facts.base; seq < small_next(&f->log); seq++) {
        check_next(f, seq);
        if (seq == f->log.segments[2].maker.facts.base + 300) {
            small_seal(&f->log, 2);
        }
    }
    REQUIRE_EQ(bop_aof_reader_seek(f->reader, f->log.segments[2].maker.facts.base + 7, &f->err), 0);
    check_next(f, f->log.segments[2].maker.facts.base + 7);
}

/* A record that was just read is dropped, and its segment is sealed, which cuts it: who has the
 * record still has it. */
TEST(reader, keeps_what_it_read_when_that_is_dropped_and_cut)
{
    struct bop_aof_view view = {0};

    for (unsigned i = 0; i < 1000; i++) {
        small_append(&f->log, 300);
    }
    small_publish(&f->log, true);
    open_reader(f, BOP_AOF_DISK, false);
    REQUIRE_EQ(bop_aof_reader_seek(f->reader, 900, &f->err), 0);
    REQUIRE_EQ(bop_aof_reader_next(f->reader, &view, &f->err), 0);
    small_truncate(&f->log, 19);
    small_seal(&f->log, 0);
    CHECK_EQ(view.seq, 900);
    check_payload(900, view.payload);
    CHECK_EQ(next(f), BOP_ENOTFOUND);
    REQUIRE_EQ(bop_aof_reader_seek(f->reader, 12, &f->err), 0);
    for (uint64_t seq = 12; seq < 20; seq++) {
        check_next(f, seq);
    }
    CHECK_EQ(next(f), BOP_EEND);
}

/* Records 10 to 29, of which from 20 on are dropped and written anew. */
static void truncate_at_20(struct fixture *f)
{
    small_truncate(&f->log, 19);
    for (unsigned i = 0; i < 30; i++) {
        small_append(&f->log, 77);
    }
    small_publish(&f->log, true);
}

TEST(reader, that_has_read_what_was_truncated_is_told)
{
    for (unsigned i = 0; i < 20; i++) {
        small_append(&f->log, 50);
    }
    small_publish(&f->log, true);
    for (uint64_t read = 15; read <= 25; read++) {
        struct bop_aof_view view = {0};
        size_t before = f->log.count;

        open_reader(f, BOP_AOF_DISK, false);
        for (uint64_t seq = 10; seq <= read; seq++) {
            check_next(f, seq);
        }
        truncate_at_20(f);
        if (read <= 19) {
            for (uint64_t seq = read + 1; seq <= 49; seq++) {
                check_next(f, seq);
            }
        } else {
            CHECK_EQ(next(f), BOP_ENOTFOUND);
            CHECK_EQ(next(f), BOP_ENOTFOUND);
            CHECK_EQ(bop_aof_reader_wait(f->reader, -1), BOP_AOF_EVENT_TRUNCATED);
            REQUIRE_EQ(bop_aof_reader_seek(f->reader, 20, &f->err), 0);
            REQUIRE_EQ(bop_aof_reader_next(f->reader, &view, &f->err), 0);
            CHECK_EQ(view.payload.size, 77);
        }
        CHECK_EQ(f->log.count, before + 1);
    }
}

/* The record it waits for is gone, and another will have its number. */
TEST(reader, at_the_end_is_told_of_a_truncation)
{
    for (unsigned i = 0; i < 20; i++) {
        small_append(&f->log, 50);
    }
    small_publish(&f->log, true);
    open_reader(f, BOP_AOF_DISK, false);
    for (uint64_t seq = 10; seq < 30; seq++) {
        check_next(f, seq);
    }
    CHECK_EQ(next(f), BOP_EEND);
    small_truncate(&f->log, 19);
    CHECK_EQ(next(f), BOP_ENOTFOUND);
    REQUIRE_EQ(bop_aof_reader_seek(f->reader, 20, &f->err), 0);
    CHECK_EQ(next(f), BOP_EEND);
    small_append(&f->log, 5);
    small_publish(&f->log, true);
    check_next(f, 20);
    CHECK_EQ(next(f), BOP_EEND);
    /* One behind what is truncated next, having read nothing of it. */
    small_append(&f->log, 6);
    small_publish(&f->log, true);
    small_truncate(&f->log, 20);
    CHECK_EQ(next(f), BOP_EEND);
    small_append(&f->log, 7);
    small_publish(&f->log, true);
    check_next(f, 21);
}

/* ---- Events ---- */

TEST(reader, waits_for_events_and_misses_none)
{
    small_append(&f->log, 1);
    small_publish(&f->log, true);
    open_reader(f, BOP_AOF_DISK, false);
    CHECK_EQ(bop_aof_reader_wait(f->reader, 0), BOP_AOF_EVENT_RECORDS);
    check_next(f, 10);
    CHECK_EQ(bop_aof_reader_wait(f->reader, 0), BOP_AOF_EVENT_NONE);
    CHECK_EQ(bop_aof_reader_wait(f->reader, 5), BOP_AOF_EVENT_NONE);
    for (int i = 0; i < 3; i++) {
        small_append(&f->log, 1);
        small_publish(&f->log, true);
        small_roll(&f->log);
        small_seal(&f->log, f->log.count - 2);
    }
    CHECK_EQ(bop_aof_reader_sealed(f->reader), 0);
    CHECK_EQ(bop_aof_reader_wait(f->reader, -1), BOP_AOF_EVENT_SEALED);
    CHECK_EQ(bop_aof_reader_sealed(f->reader), 3);
    CHECK_EQ(bop_aof_reader_wait(f->reader, -1), BOP_AOF_EVENT_RECORDS);
    check_next(f, 11);
    check_next(f, 12);
    small_truncate(&f->log, 12);
    CHECK_EQ(bop_aof_reader_wait(f->reader, -1), BOP_AOF_EVENT_TRUNCATED);
    CHECK_EQ(bop_aof_reader_wait(f->reader, 0), BOP_AOF_EVENT_NONE);
    CHECK_EQ(next(f), BOP_EEND);
    small_append(&f->log, 9);
    small_publish(&f->log, true);
    bop__aof_catalogue_close(&f->log.catalogue);
    CHECK_EQ(bop_aof_reader_wait(f->reader, -1), BOP_AOF_EVENT_RECORDS);
    check_next(f, 13);
    CHECK_EQ(bop_aof_reader_wait(f->reader, -1), BOP_AOF_EVENT_CLOSED);
}

/* ---- Memory ---- */

static int read_all(struct fixture *f)
{
    struct bop__lookup lookup = small_lookup(&f->log, true);
    struct bop_aof_view view = {0};
    int rc = bop__reader_open(&lookup, &f->heap.allocator, &f->reader);

    for (uint64_t seq = 10; rc == 0 && seq < small_next(&f->log); seq += 150) {
        rc = bop_aof_reader_seek(f->reader, seq, &f->err);
        if (rc == 0) {
            rc = bop_aof_reader_next(f->reader, &view, &f->err);
        }
        if (rc == 0) {
            CHECK_EQ(view.seq, seq);
            check_payload(seq, view.payload);
        }
    }
    bop_aof_reader_close(f->reader);
    f->reader = NULL;
    return rc;
}

/* Lacking memory for an index is got over; for anything else it is said. */
TEST(reader, survives_each_fault)
{
    size_t before;

    fill(f);
    before = f->heap.live;
    FAULT_SWEEP(&f->faults) {
        int rc = read_all(f);

        CHECK(rc == 0 || rc == f->faults.fired);
        CHECK_EQ(f->heap.live, before);
    }
    CHECK(f->faults.at >= 10);
}
