/*
 * Damaged, swapped, cut and malicious packed files: told, named, and never served.
 */
#include "warm_harness.h"

#include <zstd.h>

#include <bop/sim.h>

static const struct segment_options small = {
    .base = 10, .generation = 2, .records = 40, .length_max = 100, .seed = 3};

static void make_small(struct fixture *f, bool dictionary)
{
    struct segment_options o = small;

    f->options.frame_bytes = 1024;
    if (dictionary) {
        o.records = 800;
        f->options.dictionary_bytes = 1024;
    }
    make_and_pack(f, &o);
}

/* Verify the bytes as they are. */
static int verify(struct fixture *f)
{
    struct memory_packed packed = memory_packed(bop_buf_slice(&f->packed));
    struct bop__warm_facts facts;

    memset(&f->err, 0, sizeof(f->err));
    return bop__warm_verify(&f->heap.allocator, &packed.packed, f->segment.facts.root, &facts,
                            &f->err);
}

static void check_corrupt(struct fixture *f)
{
    int rc = verify(f);

    CHECK_EQ(rc, BOP_ECORRUPT);
    CHECK_EQ(f->err.code, rc);
    CHECK_STR_HAS(f->err.message, "memory.zst");
}

/* Whoever reads it gets the bytes that were, or is told. */
static void check_never_served(struct fixture *f)
{
    struct memory_packed packed = memory_packed(bop_buf_slice(&f->packed));
    struct bop__segment_source *source;
    int rc = bop__warm_open(&f->heap.allocator, &packed.packed, NULL, &source, &f->err);

    if (rc < 0) {
        CHECK(rc == BOP_ECORRUPT || rc == BOP_EVERSION);
        return;
    }
    for (uint64_t at = 0; at < source->size;) {
        struct bop_slice got = {0};

        rc = source->at(source, at, 1, &got, &f->err);
        if (rc == 0) {
            REQUIRE(got.size > 0);
            CHECK_MEM_EQ(got.data, f->segment.bytes.data + at, got.size);
        } else {
            CHECK_EQ(rc, BOP_ECORRUPT);
        }
        at += rc == 0 ? got.size : 500;
    }
    source->close(source);
}

TEST(warm_damage, finds_each_flipped_bit)
{
    make_small(f, false);
    CHECK_EQ(verify(f), 0);
    for (uint64_t bit = 0; bit < f->packed.size * 8; bit++) {
        f->packed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        check_corrupt(f);
        if (bit % 7 == 0) {
            check_never_served(f);
        }
        f->packed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK_EQ(verify(f), 0);
}

TEST(warm_damage, finds_flips_around_a_dictionary)
{
    size_t begin;

    make_small(f, true);
    CHECK_EQ(verify(f), 0);
    begin = f->packed.size - 4000;
    for (uint64_t bit = begin * 8; bit < f->packed.size * 8; bit += 5) {
        f->packed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        check_corrupt(f);
        f->packed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

TEST(warm_damage, finds_each_cut)
{
    make_small(f, false);
    for (size_t size = f->packed.size; size-- > 0;) {
        f->packed.size = size;
        check_corrupt(f);
    }
}

TEST(warm_damage, finds_what_was_appended)
{
    make_small(f, false);
    REQUIRE_EQ(bop_buf_append(&f->packed, "\0", 1), 0);
    check_corrupt(f);
    f->packed.size--;
    /* A copy of its own end behind it. */
    REQUIRE_EQ(bop_buf_reserve(&f->packed, 2000), 0);
    memcpy(f->packed.data + f->packed.size, f->packed.data + f->packed.size - 2000, 2000);
    f->packed.size += 2000;
    check_corrupt(f);
}

TEST(warm_damage, names_the_frame)
{
    struct memory_packed packed;
    struct bop__segment_source *source;
    struct bop_slice got;

    make_small(f, false);
    f->packed.data[30] ^= 1;
    packed = memory_packed(bop_buf_slice(&f->packed));
    REQUIRE_EQ(bop__warm_open(NULL, &packed.packed, f->cache, &source, &f->err), 0);
    CHECK_EQ(source->at(source, 100, 1, &got, &f->err), BOP_ECORRUPT);
    CHECK_STR_HAS(f->err.message, "memory.zst: packed segment: frame 0 at 0");
    CHECK_STR_HAS(f->err.message, "checksum");
    /* The others are still there, and that one still is not. */
    CHECK_EQ(source->at(source, 5000, 1, &got, &f->err), 0);
    CHECK_EQ(source->at(source, 100, 1, &got, &f->err), BOP_ECORRUPT);
    source->close(source);
}

TEST(warm_damage, tells_another_segments_file)
{
    struct segment_options other = small;
    struct memory_packed packed;
    struct bop__warm_facts facts;
    uint8_t root[32];

    make_small(f, false);
    memcpy(root, f->segment.facts.root, sizeof(root));
    segment_free(&f->segment);
    other.generation++;
    make_and_pack(f, &other);
    packed = memory_packed(bop_buf_slice(&f->packed));
    CHECK_EQ(bop__warm_verify(NULL, &packed.packed, root, &facts, &f->err), BOP_ECORRUPT);
    CHECK_STR_HAS(f->err.message, "not the one of this segment");
}

/* ---- With checksums that are right ---- */

/* Where the trailer's facts are. */
static uint8_t *trailer_of(struct fixture *f, size_t *out_table)
{
    size_t table = f->packed.size - (size_t)bop__seek_table_size(bop_load_u32(
                                        f->packed.data + f->packed.size - BOP__SEEK_END_SIZE));

    *out_table = table;
    return f->packed.data + table - BOP__WARM_TRAILER_SIZE;
}

/* Make the checksums of the tail right again. */
static void make_right(struct fixture *f)
{
    size_t table;
    struct bop__warm_trailer trailer;
    uint8_t *at = trailer_of(f, &table);

    memcpy(&trailer, at, sizeof(trailer));
    trailer.table_crc = bop_crc32c(0, f->packed.data + table, f->packed.size - table);
    if (trailer.content_size >= BOP__WARM_TRAILER_SIZE && trailer.content_size <= table) {
        trailer.index_crc = bop_crc32c(0, f->packed.data + table - trailer.content_size,
                                       trailer.content_size - BOP__WARM_TRAILER_SIZE);
    }
    trailer.crc = bop__warm_trailer_crc(&trailer);
    memcpy(at, &trailer, sizeof(trailer));
}

TEST(warm_damage, tells_another_version)
{
    uint8_t *trailer;
    size_t table;

    make_small(f, false);
    trailer = trailer_of(f, &table);
    bop_store_u32(trailer + offsetof(struct bop__warm_trailer, version), 2);
    make_right(f);
    CHECK_EQ(verify(f), BOP_EVERSION);
    CHECK_STR_HAS(f->err.message, "version 2");
    CHECK_STR_HAS(f->err.message, "memory.zst");
    bop_store_u32(trailer + offsetof(struct bop__warm_trailer, version), 1);
    bop_store_u32(trailer + offsetof(struct bop__warm_trailer, flags), 4);
    make_right(f);
    CHECK_EQ(verify(f), BOP_EVERSION);
    CHECK_STR_HAS(f->err.message, "flags 0x4");
}

/* The most a frame may hold can be said too high, the level is for people, and checksums were just
 * made right. */
static bool harmless(size_t at)
{
    return at == offsetof(struct bop__warm_trailer, frame_bytes) ||
           at == offsetof(struct bop__warm_trailer, level) ||
           at == offsetof(struct bop__warm_trailer, index_crc) ||
           at == offsetof(struct bop__warm_trailer, table_crc);
}

/* Whatever a field says, with checksums that are right: refused, or harmless. */
TEST(warm_damage, believes_no_field_of_the_trailer)
{
    static const uint64_t values[] = {0, 1, 2, 255, 65536, UINT32_MAX, UINT64_MAX / 2, UINT64_MAX};
    size_t table;

    make_small(f, false);
    for (size_t at = 16; at < 184; at += 4) {
        for (size_t i = 0; i < BOP_COUNT_OF(values); i++) {
            uint8_t *field = trailer_of(f, &table) + at;
            uint8_t saved[8];
            size_t size = at % 8 == 0 ? 8 : 4;

            memcpy(saved, field, size);
            memcpy(field, &values[i], size);
            if (memcmp(saved, field, size) != 0) {
                make_right(f);
                CHECK(harmless(at) || verify(f) != 0);
                check_never_served(f);
            }
            memcpy(field, saved, size);
        }
    }
    make_right(f);
    CHECK_EQ(verify(f), 0);
}

TEST(warm_damage, believes_no_entry_of_the_tables)
{
    static const uint32_t values[] = {0, 1, 48, 1024, 65536, UINT32_MAX / 2, UINT32_MAX};
    size_t table, from;

    make_small(f, false);
    trailer_of(f, &table);
    from = table - BOP__WARM_TRAILER_SIZE - 5 * BOP__WARM_INDEX_SIZE;
    for (size_t at = from; at + 4 <= f->packed.size; at += 4) {
        if (at == table - BOP__WARM_TRAILER_SIZE) {
            at = table; /* Fields have their own test. */
        }
        for (size_t i = 0; i < BOP_COUNT_OF(values); i++) {
            uint32_t saved = bop_load_u32(f->packed.data + at);

            bop_store_u32(f->packed.data + at, values[i]);
            if (saved != values[i] && at + 13 < f->packed.size) {
                make_right(f);
                check_never_served(f);
            }
            bop_store_u32(f->packed.data + at, saved);
        }
    }
}

/* A frame that says it is bigger, or holds a skippable one, or two: with its checksum right. */
TEST(warm_damage, takes_one_zstd_frame_for_a_frame)
{
    struct bop__warm_trailer trailer;
    size_t table, index, frame_size;
    uint8_t *frame;

    make_small(f, false);
    memcpy(&trailer, trailer_of(f, &table), sizeof(trailer));
    index = table - trailer.content_size;
    frame_size = bop_load_u32(f->packed.data + table + 8);
    frame = f->packed.data;

    bop_store_u32(frame, 0x184D2A50);
    bop_store_u32(frame + 4, (uint32_t)frame_size - 8);
    bop_store_u32(f->packed.data + index + 8, bop_crc32c(0, frame, frame_size));
    make_right(f);
    check_corrupt(f);
    CHECK_STR_HAS(f->err.message, "not one zstd frame");
    /* A frame of the same size whose content is shorter. */
    memset(frame, 0, frame_size);
    REQUIRE(!ZSTD_isError(ZSTD_compress(frame, frame_size, "short", 5, 1)));
    bop_store_u32(f->packed.data + index + 8, bop_crc32c(0, frame, frame_size));
    make_right(f);
    check_corrupt(f);
    CHECK_STR_HAS(f->err.message, "frame 0");
}

/* ---- Files on disk ---- */

TEST(warm_damage, unpacks_nothing_that_is_damaged)
{
    make_small(f, false);
    for (uint64_t bit = 3; bit < f->packed.size * 8; bit += 101) {
        struct bop__packed *packed;

        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PACKED_PATH, bit), 0);
        REQUIRE_EQ(bop__packed_file_open(NULL, f->fs, PACKED_PATH, &packed, &f->err), 0);
        CHECK_EQ(bop__warm_unpack(NULL, f->fs, packed, "/warm/b.seg", &f->err), BOP_ECORRUPT);
        CHECK_STR_HAS(f->err.message, PACKED_PATH);
        packed->close(packed);
        CHECK(!bop_fs_exists(f->fs, "/warm/b.seg"));
        CHECK(!bop_fs_exists(f->fs, "/warm/b.seg.tmp"));
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, PACKED_PATH, bit), 0);
    }
}

TEST(warm_damage, names_a_file_that_is_missing)
{
    struct bop__packed *packed;

    CHECK_EQ(bop__packed_file_open(NULL, f->fs, "/warm/none", &packed, &f->err), -ENOENT);
    CHECK_STR_HAS(f->err.message, "/warm/none");
}

/* Cut while it is open. */
TEST(warm_damage, tells_a_file_that_became_shorter)
{
    struct bop__segment_source *source;
    struct bop_slice got;
    int fd;

    make_small(f, false);
    REQUIRE_EQ(open_packed(f, &source), 0);
    fd = f->fs->open(f->fs, PACKED_PATH, O_RDWR);
    REQUIRE(fd >= 0);
    REQUIRE_EQ(f->fs->truncate(f->fs, fd, 10), 0);
    REQUIRE_EQ(f->fs->close(f->fs, fd), 0);
    CHECK_EQ(source->at(source, 0, 1, &got, &f->err), BOP_ECORRUPT);
    CHECK_STR_HAS(f->err.message, PACKED_PATH);
    source->close(source);
}
