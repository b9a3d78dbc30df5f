/*
 * Proofs of runs of records, and that nothing in one can be changed.
 */
#include "small_log.h"

struct fixture {
    struct test_heap heap;
    struct bop_faults faults;
    struct small_log log;
    struct bop_buf bytes;
    struct bop_aof_proof proof;
    struct bop_error err;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    small_init(&f->log, &f->heap.allocator, bop_fs_real(), 10);
    bop_buf_init(&f->bytes, &f->heap.allocator, 0);
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->bytes);
    small_deinit(&f->log);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* A sealed segment of records of `length` bytes, with some fillers, and a newest one. */
static void fill(struct fixture *f, unsigned count, size_t length)
{
    for (unsigned i = 0; i < count; i++) {
        small_append(&f->log, length + i % 5);
        if (i % 100 == 99 && i + 1 < count) {
            maker_filler(&small_newest(&f->log)->maker);
        }
    }
    small_publish(&f->log, true);
    small_roll(&f->log);
    small_seal(&f->log, 0);
    small_append(&f->log, 5);
    small_publish(&f->log, true);
}

static int prove(struct fixture *f, uint64_t seq)
{
    struct bop__lookup lookup = small_lookup(&f->log, false);

    bop_buf_clear(&f->bytes);
    return bop__prove(&lookup, seq, &f->proof, &f->bytes, &f->err);
}

static int check(struct fixture *f)
{
    return bop_aof_proof_check(&f->proof, bop_buf_slice(&f->bytes),
                               f->log.segments[0].maker.facts.root);
}

TEST(proof, is_made_and_right_for_each_record)
{
    uint64_t leaves = 0;

    fill(f, 4000, 100);
    for (uint64_t seq = 10; seq < 4010; seq += 53) {
        REQUIRE_EQ(prove(f, seq), 0);
        CHECK(f->proof.first_seq <= seq && seq <= f->proof.last_seq);
        CHECK_EQ(check(f), 0);
        leaves = f->proof.leaves;
    }
    CHECK(leaves >= 8);
    REQUIRE_EQ(prove(f, 4009), 0);
    CHECK_EQ(f->proof.last_seq, 4009);
    CHECK_EQ(check(f), 0);
}

TEST(proof, is_not_there_before_the_segment_is_sealed)
{
    fill(f, 100, 100);
    CHECK_EQ(prove(f, 110), BOP_EEND);
    CHECK_STR_HAS(f->err.message, "record 110 is not sealed");
    CHECK_EQ(prove(f, 111), BOP_EEND);
    CHECK_EQ(prove(f, 9), BOP_ENOTFOUND);
    CHECK_EQ(f->bytes.size, 0);
}

/* No single bit of proof or bytes can be changed and still prove anything else: only what says how
 * to hash (leaf, leaves) may pass, and then the records are the same. */
TEST(proof, cannot_be_tampered_with)
{
    struct bop_aof_proof good;
    uint8_t *at = (uint8_t *)&f->proof;
    size_t leaf_from = offsetof(struct bop_aof_proof, leaf);
    size_t leaf_to = offsetof(struct bop_aof_proof, count);
    size_t end = offsetof(struct bop_aof_proof, root) + sizeof(good.root);
    unsigned passed = 0;

    fill(f, 4000, 100);
    REQUIRE_EQ(prove(f, 2000), 0);
    good = f->proof;
    for (size_t i = 0; i < end; i++) {
        for (int bit = 0; bit < 8; bit++) {
            int rc;

            at[i] ^= (uint8_t)(1u << bit);
            rc = check(f);
            CHECK(rc == BOP_ECORRUPT || (rc == 0 && i >= leaf_from && i < leaf_to));
            passed += rc == 0;
            at[i] ^= (uint8_t)(1u << bit);
        }
    }
    CHECK(passed <= 4);
    CHECK_EQ(memcmp(&good, &f->proof, end), 0);
    for (size_t i = 0; i < f->bytes.size; i++) {
        f->bytes.data[i] ^= (uint8_t)(1u << i % 8);
        CHECK_EQ(check(f), BOP_ECORRUPT);
        f->bytes.data[i] ^= (uint8_t)(1u << i % 8);
    }
    CHECK_EQ(check(f), 0);
}

TEST(proof, is_of_these_bytes_and_this_root)
{
    struct bop_aof_proof other;

    fill(f, 4000, 100);
    REQUIRE_EQ(prove(f, 3000), 0);
    other = f->proof;
    REQUIRE_EQ(prove(f, 20), 0);
    CHECK_EQ(bop_aof_proof_check(&other, bop_buf_slice(&f->bytes), other.root), BOP_ECORRUPT);
    CHECK_EQ(
        bop_aof_proof_check(&f->proof, bop_slice(f->bytes.data, f->bytes.size - 8), f->proof.root),
        BOP_ECORRUPT);
    CHECK_EQ(bop_aof_proof_check(&f->proof, bop_slice(NULL, 0), f->proof.root), BOP_ECORRUPT);
    f->proof.root[5] ^= 1;
    CHECK_EQ(bop_aof_proof_check(&f->proof, bop_buf_slice(&f->bytes), f->proof.root), BOP_ECORRUPT);
}

/* Any numbers in a proof: nothing outside of it is read. */
TEST(proof, may_be_anything)
{
    struct bop_random random;

    fill(f, 2000, 100);
    REQUIRE_EQ(prove(f, 20), 0);
    bop_random_seed(&random, 5);
    for (int i = 0; i < 20000; i++) {
        struct bop_aof_proof proof = f->proof;
        uint64_t *words[] = {&proof.first_seq, &proof.last_seq, &proof.leaf, &proof.leaves};

        *words[i % 4] = bop_random_next(&random) >> (bop_random_next(&random) % 64);
        if (i % 8 >= 4) {
            proof.count = (uint32_t)(bop_random_next(&random) % 50);
        }
        CHECK(bop_aof_proof_check(&proof, bop_slice(f->bytes.data, i % 500),
                                  f->log.segments[0].maker.facts.root) == BOP_ECORRUPT);
    }
}

/* Records that were changed on the disk after sealing have no proof. */
TEST(proof, is_not_made_of_changed_records)
{
    struct small_segment *segment = &f->log.segments[0];
    uint8_t byte = 0xff;

    fill(f, 2000, 100);
    REQUIRE_EQ(bop_fs_write_all(f->log.fs, segment->fd, &byte, 1, 4096 + 60), 0);
    CHECK_EQ(prove(f, 10), BOP_ECORRUPT);
    CHECK_STR_HAS(f->err.message, "are not those that were sealed");
    CHECK_EQ(prove(f, 2000), 0);
    CHECK_EQ(check(f), 0);
}

TEST(proof, survives_each_fault)
{
    size_t before;

    fill(f, 2000, 100);
    bop_buf_deinit(&f->bytes);
    before = f->heap.live;
    FAULT_SWEEP(&f->faults) {
        int rc = prove(f, 500);

        CHECK(rc == 0 || rc == f->faults.fired);
        CHECK(rc < 0 || check(f) == 0);
        bop_buf_deinit(&f->bytes);
        CHECK_EQ(f->heap.live, before);
    }
    CHECK(f->faults.at >= 3);
}
