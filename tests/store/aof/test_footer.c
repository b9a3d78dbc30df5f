/*
 * Footers of sealed segments: what is found when one is made, that it reads back, that sealing is
 * all or nothing wherever it stops, and that no byte of it can be changed unseen.
 */
#include <bop/sim.h>

#include "segments.h"

#include "store/aof/merkle.h"

#define PATH "/s.seg"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_sim *sim;
    struct bop_fs *fs;
    struct maker maker;
    struct bop__footer footer;
    struct bop_error err;
};

static void setup(struct fixture *f)
{
    struct bop_fs_sim_options options = {.seed = 1};

    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_fs_sim_create(&options, &f->sim), 0);
    f->fs = bop_fs_sim_fs(f->sim);
    maker_init(&f->maker, 100, 5, 0xabcd);
}

static void teardown(struct fixture *f)
{
    bop__footer_deinit(&f->footer);
    maker_deinit(&f->maker);
    CHECK_EQ(f->heap.live, 0);
    bop_fs_sim_destroy(f->sim);
}

FIXTURE(setup, teardown)

/* Records of many sizes, one bigger than a leaf, with a filler here and there. */
static void make_mixed(struct fixture *f)
{
    for (unsigned i = 0; i < 2000; i++) {
        maker_record(&f->maker, i * 37 % 300);
        if (i % 100 == 50) {
            maker_filler(&f->maker);
        }
    }
    maker_record(&f->maker, 200000);
    for (unsigned i = 0; i < 1000; i++) {
        maker_record(&f->maker, 100);
    }
    maker_write(&f->maker, f->fs, PATH, 300000);
}

static int open_source(struct fixture *f, struct bop_fs *fs, bool sealed,
                       struct bop__segment_source **out_source)
{
    int rc = bop__file_source_open(&f->heap.allocator, fs, PATH, sealed, false, out_source,
                                   &f->err);

    if (rc == 0 && !sealed) {
        (*out_source)->size = f->maker.facts.end;
    }
    return rc;
}

static int build(struct fixture *f, struct bop_fs *fs, struct bop__footer *out_footer)
{
    struct bop__segment_source *source = NULL;
    int rc = open_source(f, fs, false, &source);

    if (rc == 0) {
        out_footer->facts = f->maker.facts;
        rc = bop__footer_build(&f->heap.allocator, source, out_footer, &f->err);
        source->close(source);
    }
    return rc;
}

static int read_back(struct fixture *f, bool facts_only, struct bop__footer *out_footer)
{
    struct bop__segment_source *source = NULL;
    int rc = open_source(f, f->fs, true, &source);

    if (rc == 0) {
        rc = bop__footer_read(&f->heap.allocator, source, facts_only, out_footer, &f->err);
        source->close(source);
    }
    return rc;
}

static void check_facts(const struct bop__segment_facts *a, const struct bop__segment_facts *b)
{
    CHECK_MEM_EQ(a->log_id, b->log_id, sizeof(a->log_id));
    CHECK_EQ(a->base, b->base);
    CHECK_EQ(a->end_seq, b->end_seq);
    CHECK_EQ(a->generation, b->generation);
    CHECK_EQ(a->epoch, b->epoch);
    CHECK_EQ(a->seed, b->seed);
    CHECK_EQ(a->link, b->link);
    CHECK_EQ(a->end, b->end);
    CHECK_EQ(a->size, b->size);
    CHECK_EQ(a->first_time_us, b->first_time_us);
    CHECK_EQ(a->last_time_us, b->last_time_us);
    CHECK_EQ(a->first_tag, b->first_tag);
    CHECK_EQ(a->last_tag, b->last_tag);
    CHECK_MEM_EQ(a->root, b->root, sizeof(a->root));
}

static void seal(struct fixture *f)
{
    REQUIRE_EQ(build(f, f->fs, &f->footer), 0);
    REQUIRE_EQ(bop__footer_seal(f->fs, PATH, &f->footer, &f->err), 0);
}

/* ---- Making ---- */

TEST(footer, says_what_the_segment_holds)
{
    make_mixed(f);
    REQUIRE_EQ(build(f, f->fs, &f->footer), 0);
    CHECK_EQ(f->footer.facts.first_time_us, maker_time(100));
    CHECK_EQ(f->footer.facts.first_tag, maker_tag(100));
    CHECK_EQ(f->footer.facts.last_time_us, maker_time(3100));
    CHECK_EQ(f->footer.facts.last_tag, maker_tag(3100));
    CHECK_EQ(f->footer.facts.end_seq, 3101);
    CHECK_EQ(f->footer.facts.link, f->maker.chain);
    CHECK_EQ(f->footer.facts.size, f->footer.facts.end + f->footer.leaf_count * 72 + 256);
}

/* Each leaf is where its record is, covers up to the next, and its hash is that of its bytes. */
TEST(footer, covers_all_records_with_leaves)
{
    struct bop__merkle merkle;
    uint8_t root[BOP_AOF_DIGEST_SIZE];

    make_mixed(f);
    REQUIRE_EQ(build(f, f->fs, &f->footer), 0);
    REQUIRE_EQ(bop__merkle_init(&merkle), 0);
    CHECK(f->footer.leaf_count >= 8);
    CHECK_EQ(f->footer.leaves[0].offset, 4096);
    for (size_t i = 0; i < f->footer.leaf_count; i++) {
        const struct bop__footer_leaf *leaf = &f->footer.leaves[i];
        bool last = i + 1 == f->footer.leaf_count;
        uint64_t end = last ? f->footer.facts.end : leaf[1].offset;
        uint8_t hash[BOP_AOF_DIGEST_SIZE];

        CHECK(last || end - leaf->offset >= BOP__FOOTER_LEAF_BYTES);
        CHECK_EQ(bop_load_u64(f->maker.file.data + leaf->offset), leaf->seq);
        CHECK_EQ(leaf->time_us, maker_time(leaf->seq));
        CHECK_EQ(leaf->tag, maker_tag(leaf->seq));
        bop__merkle_leaf_begin(&merkle);
        bop__merkle_leaf_add(&merkle, f->maker.file.data + leaf->offset,
                             (size_t)(end - leaf->offset));
        bop__merkle_leaf_end(&merkle, hash);
        CHECK_MEM_EQ(hash, leaf->hash, sizeof(hash));
    }
    CHECK_EQ(bop__merkle_root(&merkle, root), 0);
    CHECK_MEM_EQ(root, f->footer.facts.root, sizeof(root));
    bop__merkle_deinit(&merkle);
}

/* A stride leads to every record of its leaf, and is only there if it does. */
TEST(footer, knows_leaves_whose_records_are_all_alike)
{
    size_t alike = 0;

    make_mixed(f);
    REQUIRE_EQ(build(f, f->fs, &f->footer), 0);
    CHECK_EQ(f->footer.leaves[0].stride, 0);
    for (size_t i = 0; i + 1 < f->footer.leaf_count; i++) {
        const struct bop__footer_leaf *leaf = &f->footer.leaves[i];

        for (uint64_t k = 0; leaf->stride > 0 && k < leaf[1].seq - leaf->seq; k++) {
            CHECK_EQ(bop_load_u64(f->maker.file.data + leaf->offset + k * leaf->stride),
                     leaf->seq + k);
        }
        alike += leaf->stride > 0;
    }
    CHECK(alike >= 1);
}

TEST(footer, finds_the_leaf_of_a_record)
{
    make_mixed(f);
    REQUIRE_EQ(build(f, f->fs, &f->footer), 0);
    for (uint64_t seq = 100; seq < 3101; seq++) {
        const struct bop__footer_leaf *leaf = bop__footer_find(&f->footer, seq);

        CHECK(leaf->seq <= seq);
        CHECK(leaf + 1 == f->footer.leaves + f->footer.leaf_count || leaf[1].seq > seq);
    }
}

/* A filler before the first record belongs to the first leaf, as does the one record after it. */
TEST(footer, is_made_of_a_segment_that_begins_with_a_filler)
{
    maker_filler(&f->maker); /* None: the header is a whole block. */
    CHECK_EQ(f->maker.file.size, 4096);
    f->maker.chain = bop__aof_filler_encode(
        (REQUIRE_EQ(bop_buf_reserve(&f->maker.file, 4096), 0), f->maker.file.data + 4096), 4096,
        f->maker.salt, 100, 99, f->maker.chain);
    f->maker.file.size += 4096;
    maker_record(&f->maker, 10);
    maker_write(&f->maker, f->fs, PATH, 0);
    seal(f);
    CHECK_EQ(f->footer.leaf_count, 1);
    CHECK_EQ(f->footer.leaves[0].offset, 4096);
    CHECK_EQ(f->footer.leaves[0].seq, 100);
    CHECK_EQ(f->footer.leaves[0].time_us, maker_time(100));
    CHECK_EQ(f->footer.leaves[0].stride, 0);
}

/* A footer vouches for its records: none is made of bad ones. */
TEST(footer, is_not_made_of_damaged_records)
{
    struct bop__footer footer;

    for (unsigned i = 0; i < 5; i++) {
        maker_record(&f->maker, 50 + i);
    }
    maker_write(&f->maker, f->fs, PATH, 0);
    for (uint64_t bit = UINT64_C(4096) * 8; bit < f->maker.facts.end * 8; bit += 3) {
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PATH, bit), 0);
        CHECK_EQ(build(f, f->fs, &footer), BOP_ECORRUPT);
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PATH, bit), 0);
    }
    CHECK_STR_HAS(f->err.message, PATH ": record 104 at offset ");
    f->maker.facts.end_seq = 106;
    CHECK_EQ(build(f, f->fs, &footer), BOP_ECORRUPT);
    f->maker.facts.end_seq = 104;
    CHECK_EQ(build(f, f->fs, &footer), BOP_ECORRUPT);
}

/* ---- Sealing and reading ---- */

TEST(footer, reads_back_as_it_was_made)
{
    struct bop__footer read;

    make_mixed(f);
    CHECK_EQ(read_back(f, true, &read), BOP_ENOTFOUND);
    seal(f);
    REQUIRE_EQ(read_back(f, true, &read), 0);
    check_facts(&read.facts, &f->footer.facts);
    CHECK_EQ(read.leaf_count, 0);
    REQUIRE_EQ(read_back(f, false, &read), 0);
    check_facts(&read.facts, &f->footer.facts);
    REQUIRE_EQ(read.leaf_count, f->footer.leaf_count);
    for (size_t i = 0; i < read.leaf_count; i++) {
        CHECK_EQ(read.leaves[i].seq, f->footer.leaves[i].seq);
        CHECK_EQ(read.leaves[i].offset, f->footer.leaves[i].offset);
        CHECK_EQ(read.leaves[i].time_us, f->footer.leaves[i].time_us);
        CHECK_EQ(read.leaves[i].tag, f->footer.leaves[i].tag);
        CHECK_EQ(read.leaves[i].stride, f->footer.leaves[i].stride);
        CHECK_MEM_EQ(read.leaves[i].hash, f->footer.leaves[i].hash, BOP_AOF_DIGEST_SIZE);
    }
    bop__footer_deinit(&read);
}

TEST(footer, seals_again_what_is_sealed)
{
    struct bop__footer read;
    uint64_t digest;

    make_mixed(f);
    seal(f);
    digest = bop_fs_sim_digest(f->sim);
    CHECK_EQ(bop__footer_seal(f->fs, PATH, &f->footer, &f->err), 0);
    CHECK_EQ(bop_fs_sim_digest(f->sim), digest);
    REQUIRE_EQ(read_back(f, true, &read), 0);
    check_facts(&read.facts, &f->footer.facts);
}

/* What lay behind the records, dropped ones say, is no more. */
TEST(footer, cuts_what_lies_behind_the_records)
{
    struct bop__footer read;

    for (unsigned i = 0; i < 10; i++) {
        maker_record(&f->maker, 100);
    }
    {
        struct bop__segment_facts kept = f->maker.facts;

        maker_record(&f->maker, 5000);
        maker_write(&f->maker, f->fs, PATH, 100);
        f->maker.facts = kept;
    }
    seal(f);
    REQUIRE_EQ(read_back(f, false, &read), 0);
    CHECK_EQ(read.facts.end_seq, 110);
    bop__footer_deinit(&read);
    CHECK(!bop_fs_exists(f->fs, "/" BOP__FOOTER_COPY_NAME));
}

/* Wherever the power fails, the file is sealed whole or not at all, its records stay, and sealing
 * it again ends the same. Also when there are as many zeros behind the records as the footer is
 * long, so that the trailer's place is the file's end all the time. */
TEST(footer, survives_a_power_loss_at_each_step)
{
    for (unsigned round = 0; round < 75; round++) {
        struct bop__footer read;
        struct maker maker;
        int rc;

        f->maker.file.size = 4096;
        f->maker.facts.end = 4096;
        f->maker.facts.end_seq = 100;
        f->maker.chain = f->maker.salt;
        for (unsigned i = 0; i < 900; i++) {
            maker_record(&f->maker, 100);
        }
        if (round % 5 == 4) { /* One was dropped: a copy is made. */
            struct bop__segment_facts kept = f->maker.facts;

            maker_filler(&f->maker);
            maker_record(&f->maker, 10);
            f->maker.facts = kept;
        }
        maker = f->maker;
        maker_write(&maker, f->fs, PATH, round % 3 == 0 ? 100000 : round % 3 == 1 ? 0 : 472);
        bop__footer_deinit(&f->footer);
        REQUIRE_EQ(build(f, f->fs, &f->footer), 0);
        CHECK_EQ(f->footer.leaf_count, 3);
        bop_fs_sim_stop_after(f->sim, 1 + round / 5);
        rc = bop__footer_seal(f->fs, PATH, &f->footer, &f->err);
        bop_fs_sim_lose_power(f->sim);
        if (read_back(f, true, &read) == 0) {
            check_facts(&read.facts, &f->footer.facts);
            REQUIRE_EQ(read_back(f, false, &read), 0);
            bop__footer_deinit(&read);
        } else {
            CHECK(rc < 0);
        }
        REQUIRE_EQ(bop__footer_seal(f->fs, PATH, &f->footer, &f->err), 0);
        REQUIRE_EQ(read_back(f, false, &read), 0);
        check_facts(&read.facts, &f->footer.facts);
        bop__footer_deinit(&read);
    }
}

/* ---- Hostile files ---- */

/* In the trailer's magic a flipped bit makes the file one that was not sealed. */
TEST(footer, sees_each_flipped_bit)
{
    struct bop__footer read;
    uint64_t end;

    for (unsigned i = 0; i < 1000; i++) {
        maker_record(&f->maker, 100);
    }
    maker_write(&f->maker, f->fs, PATH, 0);
    seal(f);
    end = f->footer.facts.end;
    for (uint64_t byte = end; byte < f->footer.facts.size; byte++) {
        bool in_leaves = byte < f->footer.facts.size - BOP__FOOTER_TRAILER;
        bool in_magic = byte >= f->footer.facts.size - 8;
        int code = in_magic ? BOP_ENOTFOUND : BOP_ECORRUPT;
        int rc;

        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PATH, byte * 8 + byte % 8), 0);
        rc = read_back(f, false, &read);
        CHECK_EQ(rc, code);
        rc = read_back(f, true, &read);
        CHECK_EQ(rc, in_leaves ? 0 : code);
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PATH, byte * 8 + byte % 8), 0);
    }
}

/* A whole trailer of another length of file, or of another version, is said to be that. */
TEST(footer, refuses_what_does_not_fit_the_file)
{
    uint8_t trailer[BOP__FOOTER_TRAILER];
    struct bop__segment_facts facts;
    struct bop_buf bytes;

    maker_record(&f->maker, 100);
    maker_write(&f->maker, f->fs, PATH, 0);
    REQUIRE_EQ(build(f, f->fs, &f->footer), 0);
    bop_buf_init(&bytes, NULL, 0);
    REQUIRE_EQ(bop__footer_encode(&f->footer, &bytes), 0);
    memcpy(trailer, bytes.data + bytes.size - sizeof(trailer), sizeof(trailer));
    bop_buf_deinit(&bytes);
    CHECK_EQ(bop__footer_decode_trailer(trailer, f->footer.facts.size, PATH, &facts, &f->err), 0);
    check_facts(&facts, &f->footer.facts);
    for (int off = -8; off <= 8; off += 16) {
        CHECK_EQ(bop__footer_decode_trailer(trailer, f->footer.facts.size + (uint64_t)off, PATH,
                                            &facts, &f->err),
                 BOP_ECORRUPT);
    }
    bop_store_u32(trailer + 240, 2);
    bop_store_u32(trailer + 244, 0);
    bop_store_u32(trailer + 244, bop_crc32c(0, trailer, sizeof(trailer)));
    CHECK_EQ(bop__footer_decode_trailer(trailer, f->footer.facts.size, PATH, &facts, &f->err),
             BOP_EVERSION);
    CHECK_STR_HAS(f->err.message, "footer version 2");
}

/* Numbers that are out of bounds, with right checksums: nothing is allocated or read by them. */
TEST(footer, refuses_numbers_that_cannot_be)
{
    static const struct {
        size_t at;
        uint64_t value;
    } bad[] = {
        {16, 0},
        {16, 1000},
        {24, 100},
        {24, UINT64_MAX},
        {24, 100 + 10000},
        {32, 0},
        {56, 0},
        {56, 4095},
        {56, 4104 + 1},
        {56, UINT64_MAX},
        {56, UINT64_MAX - 255},
        {64, 0},
        {64, UINT64_MAX},
        {136, 0},
        {136, 2},
        {136, UINT64_MAX},
        {136, UINT64_MAX / 72 + 1},
    };
    struct bop_buf bytes;

    for (unsigned i = 0; i < 10; i++) {
        maker_record(&f->maker, 100);
    }
    maker_write(&f->maker, f->fs, PATH, 0);
    REQUIRE_EQ(build(f, f->fs, &f->footer), 0);
    bop_buf_init(&bytes, NULL, 0);
    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        struct bop__segment_facts facts;
        uint8_t *trailer;

        bop_buf_clear(&bytes);
        REQUIRE_EQ(bop__footer_encode(&f->footer, &bytes), 0);
        trailer = bytes.data + bytes.size - BOP__FOOTER_TRAILER;
        bop_store_u64(trailer + bad[i].at, bad[i].value);
        bop_store_u32(trailer + 244, 0);
        bop_store_u32(trailer + 244, bop_crc32c(0, trailer, BOP__FOOTER_TRAILER));
        CHECK_EQ(bop__footer_decode_trailer(trailer, f->footer.facts.size, PATH, &facts, &f->err),
                 BOP_ECORRUPT);
    }
    bop_buf_deinit(&bytes);
}

/* Cut anywhere, a sealed file is one that was not sealed; never is a byte behind the end used. */
TEST(footer, takes_any_length_of_file)
{
    struct bop__footer read;

    maker_record(&f->maker, 100);
    maker_write(&f->maker, f->fs, PATH, 0);
    seal(f);
    for (uint64_t size = f->footer.facts.size; size-- > 0;) {
        int fd = f->fs->open(f->fs, PATH, O_RDWR);
        int rc;

        REQUIRE(fd >= 0);
        REQUIRE_EQ(f->fs->truncate(f->fs, fd, size), 0);
        REQUIRE_EQ(f->fs->close(f->fs, fd), 0);
        rc = read_back(f, false, &read);
        CHECK_EQ(rc, BOP_ENOTFOUND);
    }
}

/* ---- Faults ---- */

TEST(footer, survives_each_fault)
{
    struct bop_fs_faulty faulty;

    struct bop__segment_facts kept;

    for (unsigned i = 0; i < 2000; i++) {
        maker_record(&f->maker, 100);
    }
    kept = f->maker.facts;
    maker_record(&f->maker, 100);
    f->maker.facts = kept; /* Dropped: the longer way. */
    bop_fs_faulty_init(&faulty, f->fs, &f->faults);
    FAULT_SWEEP(&f->faults) {
        struct bop__footer footer = {0}, read = {0};
        int rc;

        maker_write(&f->maker, f->fs, PATH, 500);
        rc = build(f, &faulty.fs, &footer);
        if (rc == 0) {
            rc = bop__footer_seal(&faulty.fs, PATH, &footer, &f->err);
        }
        if (rc == 0) {
            rc = read_back(f, false, &read);
        }
        CHECK(rc == 0 || rc == f->faults.fired);
        CHECK(rc < 0 || read.leaf_count == footer.leaf_count);
        bop__footer_deinit(&read);
        bop__footer_deinit(&footer);
        CHECK_EQ(f->heap.live, 0);
        CHECK_EQ(faulty.open_files, 0);
    }
    CHECK(f->faults.at >= 15);
}

/* Every byte of a small sealed segment's footer, pinned. */
TEST(footer, has_the_documented_bytes)
{
    const uint8_t *trailer;
    struct bop_buf bytes;

    maker_record(&f->maker, 3);
    maker_write(&f->maker, f->fs, PATH, 0);
    REQUIRE_EQ(build(f, f->fs, &f->footer), 0);
    bop_buf_init(&bytes, NULL, 0);
    REQUIRE_EQ(bop__footer_encode(&f->footer, &bytes), 0);
    REQUIRE_EQ(bytes.size, 72 + 256);
    CHECK_EQ(bop_load_u64(bytes.data), 100);
    CHECK_EQ(bop_load_u64(bytes.data + 8), 4096);
    CHECK_EQ(bop_load_u64(bytes.data + 16), 300);
    CHECK_EQ(bop_load_u64(bytes.data + 24), 700);
    CHECK_EQ(bop_load_u32(bytes.data + 32), 56);
    CHECK_EQ(bop_load_u32(bytes.data + 36), 0);
    CHECK_MEM_EQ(bytes.data + 40, f->footer.facts.root, 32); /* One leaf: its hash is the root. */
    trailer = bytes.data + 72;
    CHECK_EQ(trailer[0], 0x1d);
    CHECK_EQ(bop_load_u64(trailer + 16), 100);
    CHECK_EQ(bop_load_u64(trailer + 24), 101);
    CHECK_EQ(bop_load_u64(trailer + 32), 5);
    CHECK_EQ(bop_load_u64(trailer + 40), 3);
    CHECK_EQ(bop_load_u32(trailer + 48), 0xabcd);
    CHECK_EQ(bop_load_u32(trailer + 52), f->maker.chain);
    CHECK_EQ(bop_load_u64(trailer + 56), 4096 + 56);
    CHECK_EQ(bop_load_u64(trailer + 64), 4096 + 56 + 72 + 256);
    CHECK_EQ(bop_load_u64(trailer + 72), 300);
    CHECK_EQ(bop_load_u64(trailer + 80), 300);
    CHECK_EQ(bop_load_u64(trailer + 88), 700);
    CHECK_EQ(bop_load_u64(trailer + 96), 700);
    CHECK_EQ(bop_load_u64(trailer + 136), 1);
    CHECK_EQ(bop_load_u32(trailer + 144), bop_crc32c(0, bytes.data, 72));
    CHECK_EQ(bop_load_u32(trailer + 240), 1);
    CHECK_MEM_EQ(trailer + 248, "BOPAOFFT", 8);
    for (size_t i = 148; i < 240; i++) {
        CHECK_EQ(trailer[i], 0);
    }
    bop_buf_deinit(&bytes);
}
