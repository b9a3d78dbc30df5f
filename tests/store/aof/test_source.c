/*
 * The bytes of a local segment file: mapped and read, growing, cut behind what is read.
 */
#include "segments.h"

#define FILE_BYTES (3u * 1024 * 1024 + 123)

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_fs_faulty faulty;
    const char *path;
    struct bop_error err;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop_fs_faulty_init(&f->faulty, bop_fs_real(), &f->faults);
    f->path = test_path(NULL, "file.seg");
}

static void teardown(struct fixture *f)
{
    CHECK_EQ(f->heap.live, 0);
    CHECK_EQ(f->faulty.open_files, 0);
}

FIXTURE(setup, teardown)

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 13 + (offset >> 8) * 5 + (offset >> 16));
}

/* Write [from, to) of the file. */
static void write_bytes(struct fixture *f, uint64_t from, uint64_t to)
{
    struct bop_fs *fs = bop_fs_real();
    int fd = fs->open(fs, f->path, O_RDWR | O_CREAT);
    uint8_t bytes[4096];

    REQUIRE(fd >= 0);
    while (from < to) {
        size_t size = bop_min_u64(sizeof(bytes), to - from);

        for (size_t i = 0; i < size; i++) {
            bytes[i] = byte_at(from + i);
        }
        REQUIRE_EQ(bop_fs_write_all(fs, fd, bytes, size, from), 0);
        from += size;
    }
    REQUIRE_EQ(fs->close(fs, fd), 0);
}

static void cut(struct fixture *f, uint64_t size)
{
    struct bop_fs *fs = bop_fs_real();
    int fd = fs->open(fs, f->path, O_RDWR);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(fs->truncate(fs, fd, size), 0);
    REQUIRE_EQ(fs->close(fs, fd), 0);
}

static struct bop__segment_source *open_source(struct fixture *f, bool sealed, bool pread)
{
    struct bop__segment_source *source = NULL;

    REQUIRE_EQ(bop__file_source_open(&f->heap.allocator, &f->faulty.fs, f->path, sealed, pread,
                                     &source, &f->err),
               0);
    CHECK_EQ(source->tier, BOP_AOF_HOT);
    CHECK_STR_EQ(source->name, f->path);
    return source;
}

/* What at gives is the file's bytes, at least `least` of them and none from `size` on. */
static void check_at(struct fixture *f, struct bop__segment_source *source, uint64_t offset,
                     size_t least)
{
    struct bop_slice bytes = {0};
    uint64_t left = source->size > offset ? source->size - offset : 0;
    size_t wrong = 0;

    REQUIRE_EQ(source->at(source, offset, least, &bytes, &f->err), 0);
    CHECK(bytes.size >= bop_min_u64(least, left));
    CHECK(bytes.size <= left);
    for (size_t i = 0; i < bytes.size; i++) {
        wrong += bytes.data[i] != byte_at(offset + i);
    }
    CHECK_EQ(wrong, 0);
}

static void check_everywhere(struct fixture *f, bool pread)
{
    struct bop__segment_source *source;
    struct bop_random random;

    write_bytes(f, 0, FILE_BYTES);
    source = open_source(f, true, pread);
    CHECK_EQ(source->size, FILE_BYTES);
    check_at(f, source, FILE_BYTES, 1);
    check_at(f, source, UINT64_MAX, 1);
    check_at(f, source, FILE_BYTES - 1, 100);
    check_at(f, source, 0, FILE_BYTES);
    check_at(f, source, 0, SIZE_MAX);
    bop_random_seed(&random, 7);
    for (int i = 0; i < 300; i++) {
        check_at(f, source, bop_random_next(&random) % FILE_BYTES,
                 bop_random_next(&random) % (i % 2 ? 200 : 200000));
    }
    source->close(source);
}

TEST(source, gives_any_bytes_of_a_mapped_file)
{
    check_everywhere(f, false);
}

TEST(source, gives_any_bytes_of_a_file_that_is_read)
{
    check_everywhere(f, true);
}

/* Reading on takes ever more at once; after a jump only what was asked for. */
TEST(source, reads_ahead_only_when_read_in_order)
{
    struct bop__segment_source *source;
    struct bop_slice bytes = {0};
    uint64_t offset = 0;
    uint64_t before = 0;
    int calls = 0;

    write_bytes(f, 0, FILE_BYTES);
    source = open_source(f, true, true);
    while (offset < FILE_BYTES) {
        REQUIRE_EQ(source->at(source, offset, 48, &bytes, &f->err), 0);
        offset += bytes.size;
        calls++;
    }
    CHECK(calls <= 12);
    before = f->faults.at;
    for (uint64_t i = 1; i <= 10; i++) {
        REQUIRE_EQ(source->at(source, FILE_BYTES / 11 * i, 5000, &bytes, &f->err), 0);
        CHECK_EQ(bytes.size, 5000);
    }
    CHECK_EQ(f->faults.at, before + 10); /* One pread each. */
    source->close(source);
}

/* Nothing is handed out above size, and nothing read below it was kept from before it was there. */
static void check_growth(struct fixture *f, bool pread)
{
    struct bop__segment_source *source;
    uint64_t size = 0;

    write_bytes(f, 0, 10);
    cut(f, 65536); /* Zeros ahead. */
    source = open_source(f, false, pread);
    CHECK_EQ(source->size, 0);
    check_at(f, source, 0, 100);
    for (int i = 0; i < 200; i++) {
        uint64_t next = size + 1 + (uint64_t)i * 37;

        write_bytes(f, size, next);
        if (i % 16 == 0) {
            cut(f, next + 65536);
        }
        source->size = next;
        check_at(f, source, size, (size_t)(next - size));
        check_at(f, source, size / 2, 100);
        check_at(f, source, next, 48);
        size = next;
    }
    source->close(source);
}

TEST(source, follows_a_mapped_file_that_grows)
{
    check_growth(f, false);
}

TEST(source, follows_a_file_that_grows_and_is_read)
{
    check_growth(f, true);
}

/* A page that was cut off would end the process. */
TEST(source, survives_that_a_mapped_file_is_cut_behind_what_is_read)
{
    struct bop__segment_source *source;

    write_bytes(f, 0, FILE_BYTES);
    source = open_source(f, false, false);
    source->size = 1000000;
    check_at(f, source, 0, 1000000);
    cut(f, 1000000);
    check_at(f, source, 0, 1000000);
    check_at(f, source, 999990, 100);
    check_at(f, source, 500000, 500000);
    source->close(source);
}

/* A file that is shorter than it should be: what there is, and no signal. */
TEST(source, gives_less_where_the_file_ends_early)
{
    for (int pread = 0; pread < 2; pread++) {
        struct bop__segment_source *source;
        struct bop_slice bytes = {0};

        write_bytes(f, 0, 100000);
        cut(f, 50000);
        source = open_source(f, false, pread);
        source->size = 100000;
        REQUIRE_EQ(source->at(source, 40000, 20000, &bytes, &f->err), 0);
        CHECK_EQ(bytes.size, 10000);
        REQUIRE_EQ(source->at(source, 60000, 100, &bytes, &f->err), 0);
        CHECK_EQ(bytes.size, 0);
        source->close(source);
    }
}

TEST(source, says_which_file_is_missing)
{
    struct bop__segment_source *source = NULL;

    CHECK_EQ(bop__file_source_open(&f->heap.allocator, &f->faulty.fs, f->path, true, false, &source,
                                   &f->err),
             -ENOENT);
    CHECK_STR_HAS(f->err.message, "file.seg");
    CHECK(source == NULL);
}

static int read_in_steps(struct fixture *f, bool pread)
{
    struct bop__segment_source *source = NULL;
    uint64_t offset = 0;
    int rc = bop__file_source_open(&f->heap.allocator, &f->faulty.fs, f->path, true, pread, &source,
                                   &f->err);

    while (rc == 0 && offset < source->size) {
        struct bop_slice bytes = {0};

        rc = source->at(source, offset, 3000, &bytes, &f->err);
        for (size_t i = 0; i < bytes.size; i++) {
            CHECK(bytes.data[i] == byte_at(offset + i));
        }
        offset += bytes.size;
    }
    if (source) {
        source->close(source);
    }
    return rc;
}

/* Without a mapping the file is read, so what fails there is got over. */
TEST(source, survives_each_fault)
{
    write_bytes(f, 0, 300000);
    for (int pread = 0; pread < 2; pread++) {
        FAULT_SWEEP(&f->faults) {
            int rc = read_in_steps(f, pread);

            CHECK(rc == 0 || rc == f->faults.fired);
            CHECK_EQ(f->heap.live, 0);
            CHECK_EQ(f->faulty.open_files, 0);
        }
    }
}
