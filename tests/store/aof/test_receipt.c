/*
 * What receipts are told became of their records.
 */
#include "small_log.h"

struct fixture {
    struct test_heap heap;
    struct bop_faults faults;
    struct small_log log;
    struct bop_aof_verified verified;
    struct bop_error err;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    small_init(&f->log, &f->heap.allocator, bop_fs_real(), 10);
}

static void teardown(struct fixture *f)
{
    small_deinit(&f->log);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* Append a record and give its receipt, as the log does. */
static struct bop_aof_receipt append(struct fixture *f, size_t length, enum bop_aof_level level)
{
    struct maker *m = &small_newest(&f->log)->maker;
    struct bop_aof_receipt receipt = {.seq = m->facts.end_seq,
                                      .generation = m->facts.generation,
                                      .offset = m->file.size,
                                      .level = level};

    memcpy(receipt.log_id, m->facts.log_id, sizeof(receipt.log_id));
    small_append(&f->log, length);
    receipt.link = m->chain;
    atomic_store(&f->log.catalogue.last, receipt.seq);
    return receipt;
}

static enum bop_aof_verdict verify(struct fixture *f, const struct bop_aof_receipt *receipt)
{
    struct bop__lookup lookup = small_lookup(&f->log, false);

    lookup.level = BOP_AOF_OS;
    REQUIRE_EQ(bop__verify(&lookup, receipt, &f->verified, &f->err), 0);
    return f->verified.verdict;
}

TEST(receipt, is_pending_until_the_record_is_at_its_level)
{
    struct bop_aof_receipt memory = append(f, 10, BOP_AOF_MEMORY);
    struct bop_aof_receipt os = append(f, 10, BOP_AOF_OS);
    struct bop_aof_receipt disk = append(f, 10, BOP_AOF_DISK);
    struct bop_aof_receipt tier2 = append(f, 10, BOP_AOF_TIER2);

    CHECK_EQ(verify(f, &memory), BOP_AOF_VERDICT_PENDING);
    CHECK_EQ(verify(f, &tier2), BOP_AOF_VERDICT_PENDING);
    small_publish(&f->log, false);
    CHECK_EQ(verify(f, &memory), BOP_AOF_VERDICT_KEPT);
    CHECK_EQ(verify(f, &os), BOP_AOF_VERDICT_KEPT);
    CHECK_EQ(verify(f, &disk), BOP_AOF_VERDICT_PENDING);
    small_publish(&f->log, true);
    CHECK_EQ(verify(f, &disk), BOP_AOF_VERDICT_KEPT);
    CHECK_EQ(f->verified.generation, disk.generation);
    CHECK_EQ(f->verified.offset, disk.offset);
    CHECK_EQ(f->verified.tier, BOP_AOF_HOT);
    CHECK_EQ(verify(f, &tier2), BOP_AOF_VERDICT_PENDING);
    atomic_store(&f->log.catalogue.tier2, tier2.seq);
    CHECK_EQ(verify(f, &tier2), BOP_AOF_VERDICT_KEPT);
}

TEST(receipt, finds_its_record_in_any_segment)
{
    struct bop_aof_receipt receipts[200];

    for (size_t i = 0; i < 200; i++) {
        receipts[i] = append(f, i * 37 % 4000, BOP_AOF_DISK);
        small_publish(&f->log, true);
        if (i % 50 == 49) {
            small_roll(&f->log);
            small_seal(&f->log, f->log.count - 2);
        } else if (i % 20 == 0) {
            maker_filler(&small_newest(&f->log)->maker);
        }
    }
    for (size_t i = 0; i < 200; i++) {
        CHECK_EQ(verify(f, &receipts[i]), BOP_AOF_VERDICT_KEPT);
        CHECK_EQ(f->verified.offset, receipts[i].offset);
    }
}

TEST(receipt, of_a_truncated_record_says_so)
{
    struct bop_aof_receipt kept = append(f, 10, BOP_AOF_DISK);
    struct bop_aof_receipt dropped = append(f, 10, BOP_AOF_DISK);
    struct bop_aof_receipt later = append(f, 10, BOP_AOF_DISK);

    small_publish(&f->log, true);
    small_truncate(&f->log, kept.seq);
    atomic_store(&f->log.catalogue.last, kept.seq);
    CHECK_EQ(verify(f, &kept), BOP_AOF_VERDICT_KEPT);
    CHECK_EQ(verify(f, &dropped), BOP_AOF_VERDICT_TRUNCATED);
    append(f, 10, BOP_AOF_DISK);
    small_publish(&f->log, true);
    CHECK_EQ(verify(f, &dropped), BOP_AOF_VERDICT_TRUNCATED); /* Another is in its place. */
    CHECK_EQ(verify(f, &later), BOP_AOF_VERDICT_TRUNCATED);
    bop__aof_catalogue_oldest(&f->log.catalogue, 11);
    small_drop(&f->log, 0);
    CHECK_EQ(verify(f, &kept), BOP_AOF_VERDICT_TRUNCATED);
}

/* Written, not synced, and gone with the power; others got the numbers in the same segment. */
TEST(receipt, of_a_lost_record_says_so)
{
    struct bop_aof_receipt kept = append(f, 10, BOP_AOF_OS);
    struct bop_aof_receipt lost;
    struct maker before;

    small_publish(&f->log, true);
    before = small_newest(&f->log)->maker;
    lost = append(f, 10, BOP_AOF_OS);
    small_newest(&f->log)->maker.facts = before.facts;
    small_newest(&f->log)->maker.chain = before.chain;
    small_newest(&f->log)->maker.file.size = before.file.size;
    atomic_store(&f->log.catalogue.last, kept.seq);
    CHECK_EQ(verify(f, &kept), BOP_AOF_VERDICT_KEPT);
    CHECK_EQ(verify(f, &lost), BOP_AOF_VERDICT_LOST);
    append(f, 11, BOP_AOF_OS);
    small_publish(&f->log, true);
    CHECK_EQ(verify(f, &lost), BOP_AOF_VERDICT_LOST);
    CHECK_EQ(f->verified.generation, 0);
}

/* The new segment's header says whose tail it took over. */
TEST(receipt, follows_a_tail_that_was_moved)
{
    struct bop_aof_receipt kept = append(f, 10, BOP_AOF_DISK);
    struct bop_aof_receipt moved = append(f, 20, BOP_AOF_DISK);
    struct bop__aof_segment_header header;
    struct maker *m;

    small_publish(&f->log, true);
    small_truncate(&f->log, kept.seq);
    m = &small_newest(&f->log)->maker;
    memcpy(&header, m->file.data, sizeof(header));
    header.origins[0] = 99;
    header.origins[2] = moved.generation;
    bop__aof_segment_header_encode(&header, m->file.data);
    small_newest(&f->log)->written = 0;
    append(f, 20, BOP_AOF_DISK);
    small_publish(&f->log, true);
    CHECK_EQ(verify(f, &moved), BOP_AOF_VERDICT_KEPT);
    CHECK_EQ(f->verified.generation, m->facts.generation);
    CHECK_EQ(f->verified.offset, 4096);
}

/* A receipt with any bit of what it says of the record changed is never one of a kept record. */
TEST(receipt, cannot_be_tampered_with)
{
    struct bop_aof_receipt good, bad;

    for (int i = 0; i < 20; i++) {
        good = append(f, 100, BOP_AOF_DISK);
    }
    append(f, 100, BOP_AOF_DISK);
    small_publish(&f->log, true);
    small_roll(&f->log);
    CHECK_EQ(verify(f, &good), BOP_AOF_VERDICT_KEPT);
    for (size_t bit = offsetof(struct bop_aof_receipt, seq) * 8;
         bit < (offsetof(struct bop_aof_receipt, link) + 4) * 8; bit++) {
        bad = good;
        ((uint8_t *)&bad)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(verify(f, &bad) != BOP_AOF_VERDICT_KEPT);
    }
}

TEST(receipt, of_a_damaged_record_is_no_verdict)
{
    struct bop__lookup lookup = small_lookup(&f->log, false);
    struct bop_aof_receipt receipt = append(f, 100, BOP_AOF_DISK);
    uint8_t byte = 0xff;

    small_publish(&f->log, true);
    REQUIRE_EQ(bop_fs_write_all(f->log.fs, small_newest(&f->log)->fd, &byte, 1, 4096 + 60), 0);
    CHECK_EQ(bop__verify(&lookup, &receipt, &f->verified, &f->err), BOP_ECORRUPT);
    CHECK_STR_HAS(f->err.message, "record 10 at offset 4096: payload checksum");
}

TEST(receipt, survives_each_fault)
{
    struct bop__lookup lookup = small_lookup(&f->log, true);
    struct bop_aof_receipt receipt = append(f, 100, BOP_AOF_DISK);
    size_t before;

    small_publish(&f->log, true);
    small_roll(&f->log);
    small_seal(&f->log, 0);
    before = f->heap.live;
    FAULT_SWEEP(&f->faults) {
        int rc = bop__verify(&lookup, &receipt, &f->verified, &f->err);

        CHECK_EQ(rc, f->faults.fired);
        CHECK(rc < 0 || f->verified.verdict == BOP_AOF_VERDICT_KEPT);
        CHECK_EQ(f->heap.live, before);
    }
    CHECK(f->faults.at >= 3);
}
