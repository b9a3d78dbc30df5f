/*
 * Readers, receipts and proofs over the log itself: following it from other threads while it is
 * written, rolled, sealed and truncated.
 */
#include "harness.h"

#include <pthread.h>

#define RECORDS 30000u

/* A log with a lane of its own, on real files. */
static void open_own(struct fixture *f)
{
    f->options.fs = NULL;
    f->options.executor = NULL;
    f->options.allocator = NULL;
    f->options.path = test_path(NULL, "log");
    f->options.segment_bytes = UINT64_C(1) << 17;
    REQUIRE_EQ(open_log(f), 0);
}

/* Wait until all segments but the newest are sealed. */
static void wait_sealed(struct fixture *f)
{
    while (f->aof && bop_aof_busy(f->aof)) {
        BOP_IGNORE(bop_aof_wait(f->aof, BOP_AOF_DISK, bop_aof_last(f->aof) + 1, 1));
    }
}

static void append_numbers(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t seq = bop_aof_last(f->aof) + 1;
        char payload[64];
        struct bop_aof_record record = {.tag = seq, .time_us = seq * 2};
        struct bop_aof_append one = {.records = &record, .count = 1};

        snprintf(payload, sizeof(payload), "record %llu", (unsigned long long)seq);
        record.head = bytes(payload);
        REQUIRE_EQ(bop_aof_append_wait(f->aof, &one, NULL, -1), 0);
    }
}

static void check_view(const struct bop_aof_view *view, uint64_t seq)
{
    char payload[64];

    snprintf(payload, sizeof(payload), "record %llu", (unsigned long long)seq);
    CHECK_EQ(view->seq, seq);
    CHECK_EQ(view->tag, seq);
    CHECK_SLICE_EQ(view->payload, bytes(payload));
}

struct follower {
    pthread_t thread;
    struct bop_aof *aof;
    struct bop_aof_reader_options options;
    uint64_t until;
};

static void *follow(void *arg)
{
    struct follower *w = arg;
    struct bop_aof_reader *reader = NULL;
    struct bop_error err;
    uint64_t seq = 1;

    if (bop_aof_reader_open(w->aof, &w->options, &reader) < 0) {
        CHECK(false);
        return NULL;
    }
    while (seq <= w->until) {
        struct bop_aof_view view = {0};
        int rc = bop_aof_reader_next(reader, &view, &err);

        if (rc == 0) {
            check_view(&view, seq);
            seq++;
        } else if (rc == BOP_EEND) {
            BOP_IGNORE(bop_aof_reader_wait(reader, -1));
        } else {
            CHECK_EQ(rc, 0);
            break;
        }
    }
    bop_aof_reader_close(reader);
    return NULL;
}

static void follow_while_written(struct fixture *f, enum bop_aof_layout layout)
{
    struct follower followers[3] = {
        {.options = {.level = BOP_AOF_DISK}},
        {.options = {.level = BOP_AOF_OS}},
        {.options = {.pread = true}},
    };

    f->options.layout = layout;
    open_own(f);
    for (size_t i = 0; i < 3; i++) {
        followers[i].aof = f->aof;
        followers[i].until = RECORDS;
        REQUIRE_EQ(pthread_create(&followers[i].thread, NULL, follow, &followers[i]), 0);
    }
    append_numbers(f, RECORDS);
    CHECK_EQ(bop_aof_wait(f->aof, BOP_AOF_DISK, RECORDS, -1), 0);
    for (size_t i = 0; i < 3; i++) {
        REQUIRE_EQ(pthread_join(followers[i].thread, NULL), 0);
    }
    bop_aof_close(f->aof);
    f->aof = NULL;
}

TEST(reader, follows_a_packed_log)
{
    follow_while_written(f, BOP_AOF_PACKED);
}

TEST(reader, follows_an_aligned_log)
{
    follow_while_written(f, BOP_AOF_ALIGNED);
}

/* Each record of a log of many segments, sealed or not, found by number, time and tag, again after
 * opening it anew. */
TEST(reader, finds_every_record_of_a_log)
{
    struct bop_aof_reader_options options = {0};

    open_own(f);
    append_numbers(f, 20000);
    for (int round = 0; round < 2; round++) {
        struct bop_aof_reader *reader = NULL;
        struct bop_aof_view view = {0};

        REQUIRE_EQ(bop_aof_wait(f->aof, BOP_AOF_DISK, 20000, -1), 0);
        REQUIRE_EQ(bop_aof_reader_open(f->aof, &options, &reader), 0);
        for (uint64_t seq = 1; seq <= 20000; seq += 37) {
            REQUIRE_EQ(bop_aof_reader_seek(reader, seq, &f->err), 0);
            REQUIRE_EQ(bop_aof_reader_next(reader, &view, &f->err), 0);
            check_view(&view, seq);
            REQUIRE_EQ(bop_aof_reader_seek_time(reader, seq * 2 - 1, &f->err), 0);
            CHECK_EQ(bop_aof_reader_position(reader), seq);
            REQUIRE_EQ(bop_aof_reader_seek_tag(reader, seq, &f->err), 0);
            CHECK_EQ(bop_aof_reader_position(reader), seq);
        }
        CHECK_EQ(bop_aof_prefetch(f->aof, 1, UINT64_MAX), 0);
        CHECK_EQ(bop_aof_prefetch(f->aof, 100000, 1), 0);
        CHECK_EQ(bop_aof_prefetch(f->aof, 0, 1), BOP_ENOTFOUND);
        bop_aof_reader_close(reader);
        wait_sealed(f);
        bop_aof_close(f->aof);
        REQUIRE_EQ(bop_aof_open(&f->options, &f->aof, NULL, &f->err), 0);
    }
    bop_aof_close(f->aof);
    f->aof = NULL;
}

TEST(receipt, is_verified_by_the_log)
{
    struct bop_aof_receipt receipts[300];
    struct bop_aof_verified verified;

    open_own(f);
    for (unsigned i = 0; i < 300; i++) {
        struct bop_aof_record record = {.tag = i, .head = bytes("some payload")};
        struct bop_aof_append append = {.records = &record, .count = 1};

        REQUIRE_EQ(bop_aof_append_wait(f->aof, &append, &receipts[i], -1), 0);
    }
    REQUIRE_EQ(bop_aof_verify(f->aof, &receipts[299], &verified, &f->err), 0);
    CHECK(verified.verdict == BOP_AOF_VERDICT_PENDING || verified.verdict == BOP_AOF_VERDICT_KEPT);
    REQUIRE_EQ(bop_aof_wait(f->aof, BOP_AOF_DISK, 300, -1), 0);
    for (unsigned i = 0; i < 300; i++) {
        REQUIRE_EQ(bop_aof_verify(f->aof, &receipts[i], &verified, &f->err), 0);
        CHECK_EQ(verified.verdict, BOP_AOF_VERDICT_KEPT);
        CHECK_EQ(verified.offset, receipts[i].offset);
    }
    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 200), 0);
    REQUIRE_EQ(bop_aof_verify(f->aof, &receipts[250], &verified, &f->err), 0);
    CHECK(verified.verdict == BOP_AOF_VERDICT_TRUNCATED ||
          verified.verdict == BOP_AOF_VERDICT_LOST);
    append_numbers(f, 100);
    REQUIRE_EQ(bop_aof_wait(f->aof, BOP_AOF_DISK, 300, -1), 0);
    REQUIRE_EQ(bop_aof_verify(f->aof, &receipts[250], &verified, &f->err), 0);
    CHECK_EQ(verified.verdict, BOP_AOF_VERDICT_TRUNCATED);
    REQUIRE_EQ(bop_aof_verify(f->aof, &receipts[199], &verified, &f->err), 0);
    CHECK_EQ(verified.verdict, BOP_AOF_VERDICT_KEPT);
    receipts[0].log_id[3] ^= 1;
    CHECK_EQ(bop_aof_verify(f->aof, &receipts[0], &verified, &f->err), BOP_EINVAL);
    bop_aof_close(f->aof);
    f->aof = NULL;
}

TEST(proof, is_made_by_the_log)
{
    struct bop_aof_proof proof;

    open_own(f);
    append_numbers(f, 20000);
    REQUIRE_EQ(bop_aof_wait(f->aof, BOP_AOF_DISK, 20000, -1), 0);
    wait_sealed(f);
    for (uint64_t seq = 1; seq < 15000; seq += 777) {
        bop_buf_clear(&f->buf);
        REQUIRE_EQ(bop_aof_prove(f->aof, seq, &proof, &f->buf, &f->err), 0);
        CHECK(proof.first_seq <= seq && seq <= proof.last_seq);
        CHECK_EQ(bop_aof_proof_check(&proof, bop_buf_slice(&f->buf), proof.root), 0);
    }
    CHECK_EQ(bop_aof_prove(f->aof, 20000, &proof, &f->buf, &f->err), BOP_EEND);
    bop_aof_close(f->aof);
    f->aof = NULL;
}
