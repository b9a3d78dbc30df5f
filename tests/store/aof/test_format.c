/*
 * The format, byte for byte. These bytes are on users' disks: a change here is a new
 * version of the format (docs/design/aof.md), never a new expectation.
 */
#include "harness.h"

/* Computed from the document by other means: the used part of the header block, and three
 * records. The rest of the file is zeros. */
/* clang-format off */
static const uint8_t golden_header[56] = {
    0x42, 0x4f, 0x50, 0x41, 0x4f, 0x46, 0x53, 0x47, 0x01, 0x00, 0x00, 0x00,
    0xdc, 0xb2, 0x52, 0xcc, 0x64, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x64, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

static const uint8_t golden_records[168] = {
    0x64, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0xe8, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x63, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x4c, 0xbb, 0x71, 0x9a,
    0x70, 0x74, 0x29, 0x47, 0x2c, 0x27, 0x62, 0xdd, 0x05, 0x00, 0x00, 0xa8,
    0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x00, 0x00, 0xa5, 0x65, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xd0, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x64, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x96, 0x56, 0x99, 0x6d, 0x09, 0x5e, 0x62, 0x31,
    0x60, 0x1d, 0x9e, 0xa1, 0x06, 0x00, 0x00, 0xa8, 0x77, 0x6f, 0x72, 0x6c,
    0x64, 0x21, 0x00, 0xa5, 0x66, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x65, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0xd3, 0x7a, 0xdf, 0x16, 0x34, 0xe0, 0xff, 0xb6,
    0x00, 0x00, 0x00, 0xa8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xa5,
};
/* clang-format on */

/* Each committed by itself, so that durable_seq goes along. */
static void make_golden(struct fixture *f)
{
    struct bop_aof_record one = {.tag = 7, .time_us = 1000, .head = bytes("hello")};
    struct bop_aof_record two = {
        .tag = UINT64_MAX, .time_us = 2000, .head = bytes("wor"), .body = bytes("ld!")};
    struct bop_aof_record three = {0};

    f->options.first_seq = 100;
    f->options.segment_bytes = 65536;
    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(bop_aof_append(f->aof, &one, 1), 0);
    bop_inline_poll(&f->executor);
    REQUIRE_EQ(bop_aof_append(f->aof, &two, 1), 0);
    bop_inline_poll(&f->executor);
    REQUIRE_EQ(bop_aof_append(f->aof, &three, 1), 0);
    bop_inline_poll(&f->executor);
}

static bool all_zeros(const uint8_t *at, const uint8_t *end)
{
    while (at < end && *at == 0) {
        at++;
    }
    return at == end;
}

TEST(format, is_written_as_it_was)
{
    const size_t end = 4096 + sizeof(golden_records);
    struct bop_buf file;

    make_golden(f);
    close_log(f);
    bop_buf_init(&file, NULL, 0);
    REQUIRE_EQ(bop_fs_read_file(f->fs, segment_path(100, 1), SIZE_MAX / 2, &file), 0);
    REQUIRE(file.size >= end);
    CHECK_MEM_EQ(file.data, golden_header, sizeof(golden_header));
    CHECK_MEM_EQ(file.data + 4096, golden_records, sizeof(golden_records));
    CHECK(all_zeros(file.data + sizeof(golden_header), file.data + 4096));
    CHECK(all_zeros(file.data + end, file.data + file.size));
    bop_buf_deinit(&file);
}

TEST(format, is_read_as_it_was)
{
    static const uint8_t zeros[4096 - sizeof(golden_header)];
    struct bop_aof_view views[4];
    int fd;

    REQUIRE_EQ(bop_fs_mkdirs(f->fs, LOG_PATH), 0);
    fd = f->fs->open(f->fs, segment_path(100, 1), O_RDWR | O_CREAT);
    REQUIRE(fd >= 0);
    REQUIRE_EQ(bop_fs_write_all(f->fs, fd, golden_header, sizeof(golden_header), 0), 0);
    REQUIRE_EQ(bop_fs_write_all(f->fs, fd, zeros, sizeof(zeros), sizeof(golden_header)), 0);
    REQUIRE_EQ(bop_fs_write_all(f->fs, fd, golden_records, sizeof(golden_records), 4096), 0);
    REQUIRE_EQ(f->fs->close(f->fs, fd), 0);

    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(bop_aof_read(f->aof, 100, 4, SIZE_MAX, &f->buf, views, &f->err), 3);
    CHECK_EQ(views[0].tag, 7);
    CHECK_EQ(views[0].time_us, 1000);
    CHECK_SLICE_EQ(views[0].payload, bytes("hello"));
    CHECK_EQ(views[1].tag, UINT64_MAX);
    CHECK_SLICE_EQ(views[1].payload, bytes("world!"));
    CHECK_EQ(views[2].seq, 102);
    CHECK_EQ(views[2].payload.size, 0);
}

TEST(format, names_are_parsed_strictly)
{
    static const char *const bad[] = {
        "",
        "lock",
        "next.tmp",
        "0000000000000001-0000000000000001.se",
        "0000000000000001-0000000000000001.segx",
        "0000000000000001_0000000000000001.seg",
        "000000000000000A-0000000000000001.seg",
        " 000000000000001-0000000000000001.seg",
    };
    uint64_t base, generation;

    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        CHECK(!bop__aof_segment_name_parse(bad[i], &base, &generation));
    }
    REQUIRE(
        bop__aof_segment_name_parse("00000000000003e8-fedcba9876543210.seg", &base, &generation));
    CHECK_EQ(base, 1000);
    CHECK_EQ(generation, UINT64_C(0xfedcba9876543210));
}
