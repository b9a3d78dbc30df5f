/*
 * Damage: what is told as corruption, what is cut as torn, and that nothing damaged
 * is ever served.
 */
#include <bop/sim.h>

#include "harness.h"

/* ---- Files of a closed log ---- */

static void read_whole(struct fixture *f, const char *path, struct bop_buf *out)
{
    bop_buf_init(out, NULL, 0);
    REQUIRE_EQ(bop_fs_read_file(f->fs, path, SIZE_MAX / 2, out), 0);
}

static void write_at(struct fixture *f, const char *path, const void *data, size_t size,
                     uint64_t offset)
{
    int fd = f->fs->open(f->fs, path, O_RDWR);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(bop_fs_write_all(f->fs, fd, data, size, offset), 0);
    REQUIRE_EQ(f->fs->close(f->fs, fd), 0);
}

/* Open and expect corruption; nothing is changed by that. */
static void check_corrupt(struct fixture *f)
{
    uint64_t digest = bop_fs_sim_digest(f->sim);
    int rc = open_log(f);

    CHECK_EQ(rc, BOP_ECORRUPT);
    CHECK_EQ(bop_fs_sim_digest(f->sim), digest);
    if (rc == 0) {
        close_log(f);
    }
}

/* Where a record begins in the only segment; all have the same size. */
static uint64_t offset_of(uint64_t seq, uint64_t record_size)
{
    return BOP__AOF_SEGMENT_HEADER + (seq - 1) * record_size;
}

/* ---- Bit flips ---- */

/* Each bit of each record, of the last one too as it has no sector of zeros, and of its header. */
TEST(recovery, finds_each_flipped_bit)
{
    uint64_t end = offset_of(7, 56); /* 48 of header, "r 1" to "r 6", zeros, the mark. */
    const char *path;

    REQUIRE_EQ(open_log(f), 0);
    for (int i = 0; i < 6; i++) {
        append_texts(f, "r", 1); /* Each one vouches for those before. */
    }
    close_log(f);
    path = segment_path(1, 1);
    for (uint64_t bit = 0; bit < end * 8; bit++) {
        if (bit == 64 * 8) {
            bit = (BOP__AOF_SEGMENT_HEADER - 2) * 8; /* The header's zeros are all alike. */
        }
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, path, bit), 0);
        check_corrupt(f);
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, path, bit), 0);
    }
    REQUIRE_EQ(open_log(f), 0);
    check_texts(f, "r", 1, 6);
    CHECK_EQ(bop_aof_last(f->aof), 6);
}

TEST(recovery, names_the_place_of_corruption)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 1);
    append_texts(f, "r", 1);
    append_texts(f, "r", 1);
    close_log(f);
    /* In the payload of record 2, at 4096 + 56. */
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), (4152 + 48) * 8), 0);
    check_corrupt(f);
    CHECK_STR_HAS(f->err.message, segment_path(1, 1));
    CHECK_STR_HAS(f->err.message, "record 2 at offset 4152");
}

/* The zeros behind the records belong to nobody: a bit there costs nothing. */
TEST(recovery, takes_flips_behind_the_end_for_a_torn_tail)
{
    uint64_t end = offset_of(4, 56);

    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 3);
    close_log(f);
    for (uint64_t bit = end * 8; bit < (end + 64) * 8; bit++) {
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), bit), 0);
        REQUIRE_EQ(open_log(f), 0);
        CHECK_EQ(bop_aof_last(f->aof), 3);
        CHECK(f->recovery.torn_bytes > 0);
        CHECK_EQ(f->recovery.torn_from_seq, 4);
        close_log(f);
    }
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(f->recovery.torn_bytes, 0);
    check_texts(f, "r", 1, 3);
}

/* Take the footer from a sealed segment. */
static void unseal(struct fixture *f, const char *path, uint64_t end)
{
    int fd = f->fs->open(f->fs, path, O_RDWR);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(f->fs->truncate(f->fs, fd, end), 0);
    REQUIRE_EQ(f->fs->close(f->fs, fd), 0);
}

/* A flip in an older segment is found though its own records do not vouch for each other. */
TEST(recovery, finds_flips_in_older_segments)
{
    f->options.segment_bytes = 4096 + 4 * 56;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 8); /* One batch: nobody's durable_seq says anything. */
    close_log(f);
    unseal(f, segment_path(1, 1), offset_of(5, 56));
    for (uint64_t bit = 4096 * 8; bit < (4096 + 4 * 56) * 8; bit += 3) {
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), bit), 0);
        check_corrupt(f);
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), bit), 0);
    }
}

/* A sealed segment is trusted at open. A bad footer is none; a bad record is told when it is read,
 * and no other is lost. */
TEST(recovery, finds_flips_in_sealed_segments)
{
    uint64_t end = offset_of(5, 56);
    uint64_t size;
    int fd;

    f->options.segment_bytes = 4096 + 4 * 56;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 8);
    close_log(f);
    fd = f->fs->open(f->fs, segment_path(1, 1), O_RDONLY);
    REQUIRE(fd >= 0);
    REQUIRE_EQ(f->fs->size(f->fs, fd, &size), 0);
    REQUIRE_EQ(f->fs->close(f->fs, fd), 0);
    REQUIRE(size > end);
    for (uint64_t bit = 4096 * 8; bit < size * 8; bit += 7) {
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), bit), 0);
        REQUIRE_EQ(open_log(f), 0);
        CHECK_EQ(bop_aof_last(f->aof), 8);
        for (uint64_t seq = 1; seq <= 8; seq++) {
            bool bad = bit / 8 < end && seq == 1 + (bit / 8 - 4096) / 56;
            struct bop_aof_view view;
            int rc = bop_aof_read(f->aof, seq, 1, SIZE_MAX, &f->buf, &view, &f->err);

            CHECK(rc == 1 || rc == BOP_ECORRUPT);
            CHECK(!bad || rc == BOP_ECORRUPT);
        }
        close_log(f);
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), bit), 0);
    }
}

/* While the log is open: a read gives the record as it was or says that it is corrupt. */
TEST(recovery, never_serves_a_flipped_bit)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 3);
    for (uint64_t bit = 4096 * 8; bit < (4096 + 3 * 56) * 8; bit++) {
        uint64_t bad = 1 + (bit / 8 - 4096) / 56;

        close_log(f); /* Forget what readers have in memory. */
        REQUIRE_EQ(open_log(f), 0);
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), bit), 0);
        for (uint64_t seq = 1; seq <= 3; seq++) {
            struct bop_aof_view view;
            int rc = bop_aof_read(f->aof, seq, 1, SIZE_MAX, &f->buf, &view, &f->err);

            CHECK(rc == 1 || rc == BOP_ECORRUPT);
            CHECK(seq != bad || rc == BOP_ECORRUPT);
        }
        REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), bit), 0);
    }
}

/* ---- Torn and not torn ---- */

/* A write that ends at any byte is torn, wherever it ends: two records of one batch. */
TEST(recovery, cuts_a_write_that_ends_at_any_byte)
{
    static uint8_t payload[1000]; /* Three sectors. */
    static const uint8_t zeros[2048];
    const uint64_t second = 4096 + 56;
    struct bop_buf whole;

    memset(payload, 'p', sizeof(payload));
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 1);
    REQUIRE_EQ(append(f, bop_slice(payload, sizeof(payload)), bytes("")), 0);
    REQUIRE_EQ(append(f, bytes("r 3"), bytes("")), 0);
    bop_inline_poll(&f->executor);
    close_log(f);
    read_whole(f, segment_path(1, 1), &whole);
    /* 48 + 1000 + 1 up to 1056, and 56. */
    for (uint64_t end = second; end < second + 1056 + 56; end++) {
        write_at(f, segment_path(1, 1), whole.data + second, 1056 + 56, second);
        write_at(f, segment_path(1, 1), zeros, (size_t)(second + 1056 + 56 - end), end);
        REQUIRE_EQ(open_log(f), 0);
        CHECK_EQ(bop_aof_last(f->aof), end < second + 1056 ? 1 : 2);
        CHECK_EQ(f->recovery.torn_from_seq,
                 end == second || end == second + 1056 ? 0 : bop_aof_last(f->aof) + 1);
        close_log(f);
    }
    bop_buf_deinit(&whole);
}

/* The last record, all of it written, with a wrong bit: no crash does that. */
TEST(recovery, does_not_cut_what_was_written_as_a_whole)
{
    static uint8_t payload[2000];

    memset(payload, 'p', sizeof(payload));
    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(append(f, bop_slice(payload, sizeof(payload)), bytes("")), 0);
    bop_inline_poll(&f->executor);
    close_log(f);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), (4096 + 1500) * 8), 0);
    check_corrupt(f);
    CHECK_STR_HAS(f->err.message, "written as a whole");
}

/* The same with a sector of zeros, as a power loss leaves it: cut, and said so. */
TEST(recovery, cuts_a_record_with_a_sector_that_was_not_written)
{
    static uint8_t payload[2000];
    static const uint8_t sector[512];

    memset(payload, 'p', sizeof(payload));
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 1);
    REQUIRE_EQ(append(f, bop_slice(payload, sizeof(payload)), bytes("")), 0);
    bop_inline_poll(&f->executor);
    close_log(f);
    write_at(f, segment_path(1, 1), sector, sizeof(sector), 4096 + 1024);
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_last(f->aof), 1);
    CHECK_EQ(f->recovery.torn_from_seq, 2);
    CHECK_EQ(f->recovery.torn_bytes, 2056); /* 48 + 2000 + 1, up to 8. */
    append_texts(f, "s", 1);
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(f->recovery.torn_bytes, 0);
    check_texts(f, "r", 1, 1);
    check_texts(f, "s", 2, 2);
}

/* Sectors of zeros, a flipped bit, and a later record that says it was durable. */
TEST(recovery, believes_a_record_that_vouches)
{
    static uint8_t payload[2000];

    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(append(f, bop_slice(payload, sizeof(payload)), bytes("")), 0);
    bop_inline_poll(&f->executor);
    append_texts(f, "r", 1);
    close_log(f);
    REQUIRE_EQ(bop_fs_sim_flip_bit(f->sim, segment_path(1, 1), (4096 + 1500) * 8), 0);
    check_corrupt(f);
    CHECK_STR_HAS(f->err.message, "a later record says");
}

/* The payload of a torn record holds a log's file, whose records vouch for each other. */
TEST(recovery, no_record_in_a_payload_vouches)
{
    static const uint8_t sector[512];
    struct bop_buf copy;

    REQUIRE_EQ(open_log(f), 0);
    for (int i = 0; i < 50; i++) {
        append_texts(f, "inner", 1);
    }
    close_log(f);
    read_whole(f, segment_path(1, 1), &copy);
    REQUIRE(copy.size > 7000);

    f->options.segment_bytes = 65536;
    f->options.path = "/outer"; /* With the same base, generation and so salt. */
    REQUIRE_EQ(open_log(f), 0);
    REQUIRE_EQ(append(f, bop_slice(copy.data, 7000), bytes("")), 0);
    REQUIRE_EQ(append(f, bop_slice(copy.data, 7000), bytes("")), 0);
    bop_inline_poll(&f->executor);
    close_log(f);
    write_at(f, "/outer/0000000000000001-0000000000000001.seg", sector, 512, 17 * 512);
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_last(f->aof), 0);
    CHECK_EQ(f->recovery.torn_from_seq, 1);
    bop_buf_deinit(&copy);
}

/* ---- Records where they do not belong ---- */

/* What was truncated is put where its successor belongs: number and chain of record 6 fit. */
TEST(recovery, a_stale_record_never_validates)
{
    struct bop_buf old;
    uint64_t sixth = offset_of(6, 56);

    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "o", 8);
    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 5), 0);
    bop_inline_poll(&f->executor);
    close_log(f);
    read_whole(f, segment_path(1, 1), &old);
    write_at(f, segment_path(6, 2), old.data + sixth, 3 * 56, 4096);
    bop_buf_deinit(&old);
    check_corrupt(f);
}

TEST(recovery, a_segment_that_is_missing_is_told)
{
    char path[64];

    f->options.segment_bytes = 4096 + 4 * 56;
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 12);
    close_log(f);

    snprintf(path, sizeof(path), "%s", segment_path(5, 2));
    REQUIRE_EQ(f->fs->rename(f->fs, path, "/aside"), 0);
    check_corrupt(f); /* In the middle. */
    REQUIRE_EQ(f->fs->rename(f->fs, "/aside", path), 0);

    snprintf(path, sizeof(path), "%s", segment_path(1, 1));
    REQUIRE_EQ(f->fs->rename(f->fs, path, "/aside"), 0);
    check_corrupt(f); /* At the front. */
    CHECK_STR_HAS(f->err.message, "records 1 to 4 are missing");
    REQUIRE_EQ(f->fs->rename(f->fs, "/aside", path), 0);

    REQUIRE_EQ(f->fs->rename(f->fs, path, segment_path(2, 1)), 0);
    check_corrupt(f); /* Under a wrong name. */
}

/* ---- Versions ---- */

static void write_version(struct fixture *f, uint32_t version, uint32_t flags)
{
    struct bop__aof_segment_header header;
    uint8_t block[BOP__AOF_SEGMENT_HEADER];
    struct bop_buf file;

    read_whole(f, segment_path(1, 1), &file);
    memcpy(block, file.data, sizeof(block));
    bop_buf_deinit(&file);
    memcpy(&header, block, sizeof(header));
    header.version = version;
    header.flags = flags;
    header.crc = 0;
    memcpy(block, &header, sizeof(header));
    header.crc = bop_crc32c(0, block, sizeof(block));
    memcpy(block, &header, sizeof(header));
    write_at(f, segment_path(1, 1), block, sizeof(block), 0);
}

TEST(recovery, names_both_versions_of_a_newer_format)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 1);
    close_log(f);
    write_version(f, 7, 0);
    CHECK_EQ(open_log(f), BOP_EVERSION);
    CHECK_STR_HAS(f->err.message, "version 7");
    CHECK_STR_HAS(f->err.message, "versions 1 to 2");
    write_version(f, 1, 4);
    CHECK_EQ(open_log(f), BOP_EVERSION);
    CHECK_STR_HAS(f->err.message, "0x4");
    write_version(f, 1, 0);
    REQUIRE_EQ(open_log(f), 0);
}

/* ---- Failed syncs ---- */

TEST(recovery, durable_stays_after_a_failed_sync)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 3);
    bop_fs_sim_fail_syncs(f->sim, 1);
    append_texts(f, "r", 1);
    CHECK_EQ(f->failed_calls, 1);
    CHECK_EQ(f->failed_code, -EIO);
    CHECK_EQ(bop_aof_failed(f->aof), -EIO);
    CHECK_EQ(bop_aof_durable(f->aof), 3);
    CHECK(!bop_aof_busy(f->aof));
    check_texts(f, "r", 1, 4); /* Still read, from memory. */

    CHECK_EQ(append(f, bytes("x"), bytes("")), BOP_EFAILED);
    CHECK_EQ(bop_aof_truncate_back(f->aof, 1), BOP_EFAILED);
    CHECK_EQ(bop_aof_truncate_front(f->aof, 1), BOP_EFAILED);
    CHECK_EQ(bop_aof_reset(f->aof, 1), BOP_EFAILED);
    bop_inline_poll(&f->executor);
    CHECK_EQ(bop_aof_durable(f->aof), 3);
    CHECK_EQ(f->failed_calls, 1);
}

/* The cache shows record 4 though no sync will write it. What opening calls durable is. */
TEST(recovery, makes_durable_what_a_failed_sync_left_in_the_cache)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 3);
    bop_fs_sim_fail_syncs(f->sim, 1);
    append_texts(f, "r", 1);
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_durable(f->aof), 4);
    bop_fs_sim_lose_power(f->sim);
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_last(f->aof), 4);
    check_texts(f, "r", 1, 4);
}

static struct bop_fs_sim *failing_sim;
static int (*sim_sync_dir)(struct bop_fs *self, const char *path);

static int failing_sync_dir(struct bop_fs *self, const char *path)
{
    bop_fs_sim_fail_syncs(failing_sim, 1);
    return sim_sync_dir(self, path);
}

/* The name of a new segment is in memory only, and syncing the directory again does nothing. */
TEST(recovery, replaces_a_name_that_a_failed_sync_left_in_the_cache)
{
    REQUIRE_EQ(open_log(f), 0);
    append_texts(f, "r", 3);
    failing_sim = f->sim;
    sim_sync_dir = f->fs->sync_dir;
    f->fs->sync_dir = failing_sync_dir;
    REQUIRE_EQ(bop_aof_truncate_back(f->aof, 1), 0);
    bop_inline_poll(&f->executor);
    f->fs->sync_dir = sim_sync_dir;
    CHECK_EQ(f->failed_calls, 1);
    close_log(f);

    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_last(f->aof), 1);
    append_texts(f, "s", 2);
    CHECK_EQ(f->durable, 3);
    bop_fs_sim_lose_power(f->sim);
    close_log(f);
    REQUIRE_EQ(open_log(f), 0);
    CHECK_EQ(bop_aof_last(f->aof), 3);
    check_texts(f, "r", 1, 1);
    check_texts(f, "s", 2, 3);
}
