/*
 * Slices, buffers, readers and writers.
 */
#include <bop/mem.h>
#include <bop/slice.h>

#include <bop/error.h>
#include <bop/random.h>

#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_buf buf;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop_buf_init(&f->buf, &f->heap.allocator, 0);
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->buf);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static int sign(int value)
{
    return (value > 0) - (value < 0);
}

TEST(slice, compares_as_bytes_and_the_shorter_is_less)
{
    CHECK_EQ(sign(bop_slice_compare(bytes("abc"), bytes("abd"))), -1);
    CHECK_EQ(sign(bop_slice_compare(bytes("b"), bytes("abd"))), 1);
    CHECK_EQ(sign(bop_slice_compare(bytes("ab"), bytes("abc"))), -1);
    CHECK_EQ(sign(bop_slice_compare(bytes("abc"), bytes("ab"))), 1);
    CHECK_EQ(bop_slice_compare(bytes("abc"), bytes("abc")), 0);
    CHECK_EQ(sign(bop_slice_compare(bytes("\xff"), bytes("\x01"))), 1);
    CHECK_EQ(sign(bop_slice_compare(bop_slice(NULL, 0), bytes("a"))), -1);
    CHECK_EQ(bop_slice_compare(bop_slice(NULL, 0), bytes("")), 0);
}

TEST(slice, is_equal_by_content)
{
    CHECK(bop_slice_equal(bytes("abc"), bop_slice("abcd", 3)));
    CHECK(bop_slice_equal(bop_slice(NULL, 0), bytes("")));
    CHECK(!bop_slice_equal(bytes("abc"), bytes("abd")));
    CHECK(!bop_slice_equal(bytes("abc"), bytes("ab")));
}

/* ---- UTF-8 ---- */

TEST(utf8, takes_the_first_and_last_of_each_length)
{
    CHECK(bop_slice_is_utf8(bop_slice(NULL, 0)));
    CHECK(bop_slice_is_utf8(bop_slice("\0", 1)));        /* U+0000 */
    CHECK(bop_slice_is_utf8(bytes("\x7f")));             /* U+007F */
    CHECK(bop_slice_is_utf8(bytes("\xc2\x80")));         /* U+0080 */
    CHECK(bop_slice_is_utf8(bytes("\xdf\xbf")));         /* U+07FF */
    CHECK(bop_slice_is_utf8(bytes("\xe0\xa0\x80")));     /* U+0800 */
    CHECK(bop_slice_is_utf8(bytes("\xed\x9f\xbf")));     /* U+D7FF */
    CHECK(bop_slice_is_utf8(bytes("\xee\x80\x80")));     /* U+E000 */
    CHECK(bop_slice_is_utf8(bytes("\xef\xbf\xbf")));     /* U+FFFF */
    CHECK(bop_slice_is_utf8(bytes("\xf0\x90\x80\x80"))); /* U+10000 */
    CHECK(bop_slice_is_utf8(bytes("\xf4\x8f\xbf\xbf"))); /* U+10FFFF */
    CHECK(bop_slice_is_utf8(bytes("na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80 text")));
}

TEST(utf8, refuses_overlong_forms)
{
    CHECK(!bop_slice_is_utf8(bytes("\xc0\x80")));
    CHECK(!bop_slice_is_utf8(bytes("\xc1\xbf")));
    CHECK(!bop_slice_is_utf8(bytes("\xe0\x80\x80")));
    CHECK(!bop_slice_is_utf8(bytes("\xe0\x9f\xbf")));
    CHECK(!bop_slice_is_utf8(bytes("\xf0\x80\x80\x80")));
    CHECK(!bop_slice_is_utf8(bytes("\xf0\x8f\xbf\xbf")));
}

TEST(utf8, refuses_surrogates_and_what_is_past_the_last_character)
{
    CHECK(!bop_slice_is_utf8(bytes("\xed\xa0\x80")));     /* U+D800 */
    CHECK(!bop_slice_is_utf8(bytes("\xed\xbf\xbf")));     /* U+DFFF */
    CHECK(!bop_slice_is_utf8(bytes("\xf4\x90\x80\x80"))); /* U+110000 */
    CHECK(!bop_slice_is_utf8(bytes("\xf5\x80\x80\x80")));
    CHECK(!bop_slice_is_utf8(bytes("\xf8\x88\x80\x80\x80")));
    CHECK(!bop_slice_is_utf8(bytes("\xfe")));
    CHECK(!bop_slice_is_utf8(bytes("\xff")));
}

TEST(utf8, refuses_stray_and_missing_continuations)
{
    CHECK(!bop_slice_is_utf8(bytes("\x80")));
    CHECK(!bop_slice_is_utf8(bytes("\xbf")));
    CHECK(!bop_slice_is_utf8(bytes("\xc2\x41")));
    CHECK(!bop_slice_is_utf8(bytes("\xe2\x82\x41")));
    CHECK(!bop_slice_is_utf8(bytes("\xe2\x41\xac")));
    CHECK(!bop_slice_is_utf8(bytes("\xf0\x9f\x98\xc0")));
    CHECK(!bop_slice_is_utf8(bytes("\xf0\x9f\x41\x80")));
    CHECK(!bop_slice_is_utf8(bytes("\xc2\x80\x80")));
}

/* Cut at the end of the slice, though the bytes beyond it would complete it. */
TEST(utf8, does_not_look_past_the_end)
{
    CHECK(!bop_slice_is_utf8(bop_slice("\xc2\x80", 1)));
    CHECK(!bop_slice_is_utf8(bop_slice("\xe2\x82\xac", 2)));
    CHECK(!bop_slice_is_utf8(bop_slice("\xf0\x9f\x98\x80", 3)));
    CHECK(!bop_slice_is_utf8(bop_slice("\xf0\x9f\x98\x80", 1)));
}

/* The way that takes eight at once must not step over a bad byte anywhere. */
TEST(utf8, finds_a_bad_byte_at_any_place)
{
    uint8_t text[40];

    for (size_t size = 1; size <= sizeof(text); size++) {
        for (size_t at = 0; at < size; at++) {
            memset(text, 'a', size);
            text[at] = 0xff;
            CHECK(!bop_slice_is_utf8(bop_slice(text, size)));
        }
        memset(text, 'a', size);
        CHECK(bop_slice_is_utf8(bop_slice(text, size)));
    }
}

/* Every sequence of three bytes against the definition by code points. */
TEST(utf8, agrees_with_decoding_on_every_three_byte_sequence)
{
    unsigned good = 0;

    for (unsigned value = 0xc00000; value <= 0xffffff; value++) {
        const uint8_t text[3] = {value >> 16, value >> 8 & 0xff, value & 0xff};
        unsigned code = (text[0] & 0x0fu) << 12 | (text[1] & 0x3fu) << 6 | (text[2] & 0x3fu);
        bool three = (text[0] & 0xf0) == 0xe0 && (text[1] & 0xc0) == 0x80 &&
                     (text[2] & 0xc0) == 0x80 && code >= 0x800 && (code < 0xd800 || code > 0xdfff);
        bool two = text[0] >= 0xc2 && text[0] < 0xe0 && (text[1] & 0xc0) == 0x80 && text[2] < 0x80;

        good += three || two;
        if (bop_slice_is_utf8(bop_slice(text, 3)) != (three || two)) {
            CHECK_EQ(value, 0);
        }
    }
    /* 0x10000 - 0x800 - 0x800 of three bytes; 30 * 64 of two, and one of 128 after it. */
    CHECK_EQ(good, 61440 + 30 * 64 * 128);
}

/* ---- Buffers ---- */

TEST(buf, holds_what_was_appended)
{
    REQUIRE_EQ(bop_buf_append(&f->buf, "hello ", 6), 0);
    REQUIRE_EQ(bop_buf_append(&f->buf, NULL, 0), 0);
    REQUIRE_EQ(bop_buf_append(&f->buf, "world", 5), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("hello world"));
}

TEST(buf, grows_by_doubling)
{
    for (int i = 0; i < 1000; i++) {
        uint8_t byte = (uint8_t)i;

        REQUIRE_EQ(bop_buf_append(&f->buf, &byte, 1), 0);
    }
    CHECK_EQ(f->buf.size, 1000);
    CHECK_EQ(f->buf.capacity, 1024);
    for (size_t i = 0; i < 1000; i++) {
        CHECK_EQ(f->buf.data[i], i & 0xff);
    }
}

TEST(buf, works_without_an_allocator_given)
{
    struct bop_buf buf = {0};

    CHECK_EQ(bop_buf_append(&buf, "abc", 3), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&buf), bytes("abc"));
    bop_buf_deinit(&buf);

    bop_buf_init(&buf, NULL, 0);
    CHECK_PTR_EQ(buf.allocator, bop_tag("core.buffer"));
    CHECK_EQ(bop_buf_append(&buf, "abc", 3), 0);
    bop_buf_deinit(&buf);
}

TEST(buf, reserves_without_changing_the_content)
{
    REQUIRE_EQ(bop_buf_append(&f->buf, "abc", 3), 0);
    REQUIRE_EQ(bop_buf_reserve(&f->buf, 5000), 0);
    CHECK(f->buf.capacity >= 5003);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("abc"));
    REQUIRE_EQ(bop_buf_reserve(&f->buf, 0), 0);
}

TEST(buf, allocates_nothing_for_nothing)
{
    CHECK_EQ(bop_buf_reserve(&f->buf, 0), 0);
    CHECK_EQ(bop_buf_append(&f->buf, NULL, 0), 0);
    CHECK_EQ(f->heap.live, 0);
}

TEST(buf, is_full_at_its_bound)
{
    bop_buf_init(&f->buf, &f->heap.allocator, 100);
    REQUIRE_EQ(bop_buf_reserve(&f->buf, 70), 0);
    f->buf.size = 70;
    CHECK_EQ(bop_buf_reserve(&f->buf, 31), BOP_EFULL);
    CHECK_EQ(bop_buf_reserve(&f->buf, SIZE_MAX), BOP_EFULL);
    CHECK_EQ(bop_buf_reserve(&f->buf, 30), 0);
    CHECK_EQ(f->buf.capacity, 100);
    f->buf.size = 100;
    CHECK_EQ(bop_buf_append(&f->buf, "x", 1), BOP_EFULL);
    CHECK_EQ(bop_buf_append(&f->buf, "", 0), 0);
    CHECK_EQ(f->buf.size, 100);
}

TEST(buf, is_full_above_a_bound_that_was_lowered)
{
    REQUIRE_EQ(bop_buf_append(&f->buf, "abc", 3), 0);
    f->buf.size_max = 2;
    CHECK_EQ(bop_buf_append(&f->buf, "d", 1), BOP_EFULL);
    bop_buf_consume(&f->buf, 2);
    CHECK_EQ(bop_buf_append(&f->buf, "d", 1), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("cd"));
}

TEST(buf, refuses_sizes_that_cannot_be)
{
    REQUIRE_EQ(bop_buf_append(&f->buf, "abc", 3), 0);
    f->faults.at = 0;
    CHECK_EQ(bop_buf_reserve(&f->buf, SIZE_MAX), BOP_ENOMEM);
    CHECK_EQ(bop_buf_reserve(&f->buf, SIZE_MAX - 2), BOP_ENOMEM);
    CHECK_EQ(bop_buf_reserve(&f->buf, SIZE_MAX / 2), BOP_ENOMEM);
    CHECK_EQ(f->faults.at, 0); /* The allocator was not asked. */
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("abc"));
}

TEST(buf, consumes_from_the_front)
{
    REQUIRE_EQ(bop_buf_append(&f->buf, "hello world", 11), 0);
    bop_buf_consume(&f->buf, 0);
    bop_buf_consume(&f->buf, 6);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("world"));
    bop_buf_consume(&f->buf, 4);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bytes("d"));
    bop_buf_consume(&f->buf, 100);
    CHECK_EQ(f->buf.size, 0);
    bop_buf_consume(&f->buf, 1);
    CHECK_EQ(f->buf.size, 0);
}

TEST(buf, keeps_its_memory_when_cleared_and_can_be_deinited_twice)
{
    REQUIRE_EQ(bop_buf_append(&f->buf, "abc", 3), 0);
    bop_buf_clear(&f->buf);
    CHECK_EQ(f->buf.size, 0);
    CHECK_EQ(f->heap.live, 64);
    bop_buf_deinit(&f->buf);
    bop_buf_deinit(&f->buf);
    CHECK_EQ(f->heap.live, 0);
}

/* A refused growth leaves the buffer as it was, and it can be used on. */
TEST(buf, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        size_t expected = 0;

        for (int i = 0; i < 10; i++) {
            int rc = bop_buf_append(&f->buf, "0123456789abcdef0123456789abcdef", 32);

            CHECK(rc == 0 || (rc == BOP_ENOMEM && f->faults.fired == BOP_ENOMEM));
            expected += rc == 0 ? 32 : 0;
        }
        CHECK_EQ(f->buf.size, expected);
        CHECK_EQ(expected, f->faults.fired ? 320 - 32 : 320);
        for (size_t i = 0; i < expected; i++) {
            CHECK_EQ(f->buf.data[i], "0123456789abcdef"[i % 16]);
        }
        bop_buf_deinit(&f->buf);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 4); /* 64, 128, 256, 512. */
}

/* ---- Readers ---- */

TEST(reader, reads_little_endian)
{
    static const uint8_t data[] = {
        0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0xff, 0,
    };
    struct bop_reader reader = bop_reader(bop_slice(data, sizeof(data)));

    CHECK_EQ(bop_read_u8(&reader), 0x01);
    CHECK_EQ(bop_read_u16(&reader), 0x0302);
    CHECK_EQ(bop_read_u32(&reader), 0x07060504);
    CHECK_EQ(bop_read_u64(&reader), UINT64_C(0xff0e0d0c0b0a0908));
    CHECK_EQ(bop_reader_left(&reader), 1);
}

TEST(reader, reads_signed_and_bool)
{
    static const uint8_t data[] = {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 1};
    struct bop_reader reader = bop_reader(bop_slice(data, sizeof(data)));

    CHECK_EQ(bop_read_i64(&reader), -2);
    CHECK(!bop_read_bool(&reader));
    CHECK(!bop_reader_done(&reader));
    CHECK(bop_read_bool(&reader));
    CHECK(bop_reader_done(&reader));
}

TEST(reader, borrows_bytes)
{
    static const char data[] = "\x03\0\0\0abc\x02\0\0\0\xc3\xa9rest";
    struct bop_reader reader = bop_reader(bop_slice(data, sizeof(data) - 1));
    struct bop_slice first = bop_read_bytes(&reader);

    CHECK_SLICE_EQ(first, bytes("abc"));
    CHECK_PTR_EQ(first.data, data + 4);
    CHECK_SLICE_EQ(bop_read_string(&reader), bytes("\xc3\xa9"));
    CHECK_SLICE_EQ(bop_read_raw(&reader, 4), bytes("rest"));
    CHECK_SLICE_EQ(bop_read_raw(&reader, 0), bytes(""));
    CHECK(bop_reader_done(&reader));
}

TEST(reader, of_nothing_is_done_and_fails_to_read)
{
    struct bop_reader reader = bop_reader(bop_slice(NULL, 0));

    CHECK(bop_reader_done(&reader));
    CHECK_EQ(bop_read_raw(&reader, 0).size, 0);
    CHECK(bop_reader_done(&reader));
    CHECK_EQ(bop_read_u8(&reader), 0);
    CHECK(reader.failed);
    CHECK(!bop_reader_done(&reader));
}

/* Each type with one byte too few; then nothing more is read, though there are bytes. */
TEST(reader, fails_for_good_at_the_first_read_past_the_end)
{
    static const uint8_t ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    struct bop_reader reader;

    reader = bop_reader(bop_slice(ones, 1));
    CHECK_EQ(bop_read_u16(&reader), 0);
    CHECK(reader.failed);
    CHECK_EQ(bop_read_u8(&reader), 0);
    CHECK_EQ(bop_reader_left(&reader), 0);

    reader = bop_reader(bop_slice(ones, 3));
    CHECK_EQ(bop_read_u32(&reader), 0);
    CHECK(reader.failed);

    reader = bop_reader(bop_slice(ones, 7));
    CHECK_EQ(bop_read_u64(&reader), 0);
    CHECK(reader.failed);

    reader = bop_reader(bop_slice(ones, 7));
    CHECK_EQ(bop_read_i64(&reader), 0);
    CHECK(reader.failed);

    reader = bop_reader(bop_slice(ones, 8));
    CHECK_EQ(bop_read_raw(&reader, 9).size, 0);
    CHECK(reader.failed);
    CHECK(!bop_read_bool(&reader));
    CHECK_PTR_EQ(bop_read_raw(&reader, 1).data, NULL);
}

TEST(reader, does_not_believe_a_length)
{
    struct bop_reader reader;

    reader = bop_reader(bop_slice("\x04\0\0\0abc", 7));
    CHECK_PTR_EQ(bop_read_bytes(&reader).data, NULL);
    CHECK(reader.failed);

    reader = bop_reader(bop_slice("\xff\xff\xff\xff", 4));
    CHECK_EQ(bop_read_bytes(&reader).size, 0);
    CHECK(reader.failed);

    reader = bop_reader(bop_slice("abc", 3));
    CHECK_EQ(bop_read_raw(&reader, SIZE_MAX).size, 0);
    CHECK(reader.failed);
}

TEST(reader, refuses_a_bool_of_two)
{
    struct bop_reader reader = bop_reader(bytes("\x02\x01"));

    CHECK(!bop_read_bool(&reader));
    CHECK(reader.failed);
    CHECK(!bop_read_bool(&reader));
}

TEST(reader, refuses_a_string_that_is_not_utf8)
{
    struct bop_reader reader = bop_reader(bop_slice("\x02\0\0\0\xc3\x28z", 7));

    CHECK_PTR_EQ(bop_read_string(&reader).data, NULL);
    CHECK(reader.failed);
    CHECK_EQ(bop_read_u8(&reader), 0);
}

/* ---- Writers ---- */

static void write_all_types(struct bop_writer *writer)
{
    bop_write_u8(writer, 1);
    bop_write_u16(writer, 0x0302);
    bop_write_u32(writer, 0x07060504);
    bop_write_u64(writer, UINT64_C(0x0f0e0d0c0b0a0908));
    bop_write_i64(writer, -2);
    bop_write_bool(writer, true);
    bop_write_bool(writer, false);
    bop_write_bytes(writer, bytes("abc"));
    bop_write_bytes(writer, bop_slice(NULL, 0));
    bop_write_raw(writer, bytes("xyz"));
}

static const char all_types[] = "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
                                "\xfe\xff\xff\xff\xff\xff\xff\xff\x01\x00"
                                "\x03\0\0\0abc\0\0\0\0xyz";

TEST(writer, writes_little_endian)
{
    struct bop_writer writer = bop_writer(&f->buf);

    write_all_types(&writer);
    CHECK_EQ(writer.code, 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bop_slice(all_types, sizeof(all_types) - 1));
}

TEST(writer, writes_what_a_reader_reads)
{
    struct bop_writer writer = bop_writer(&f->buf);
    struct bop_reader reader;

    write_all_types(&writer);
    reader = bop_reader(bop_buf_slice(&f->buf));
    CHECK_EQ(bop_read_u8(&reader), 1);
    CHECK_EQ(bop_read_u16(&reader), 0x0302);
    CHECK_EQ(bop_read_u32(&reader), 0x07060504);
    CHECK_EQ(bop_read_u64(&reader), UINT64_C(0x0f0e0d0c0b0a0908));
    CHECK_EQ(bop_read_i64(&reader), -2);
    CHECK(bop_read_bool(&reader));
    CHECK(!bop_read_bool(&reader));
    CHECK_SLICE_EQ(bop_read_string(&reader), bytes("abc"));
    CHECK_EQ(bop_read_bytes(&reader).size, 0);
    CHECK_SLICE_EQ(bop_read_raw(&reader, 3), bytes("xyz"));
    CHECK(bop_reader_done(&reader));
}

/* Nothing follows what did not fit, not even what would. */
TEST(writer, stops_at_the_bound)
{
    struct bop_writer writer = bop_writer(&f->buf);

    bop_buf_init(&f->buf, &f->heap.allocator, 6);
    bop_write_u32(&writer, 1);
    bop_write_u32(&writer, 2);
    CHECK_EQ(writer.code, BOP_EFULL);
    bop_write_u8(&writer, 3);
    CHECK_EQ(f->buf.size, 4);
}

TEST(writer, refuses_bytes_whose_length_does_not_fit)
{
    struct bop_writer writer = bop_writer(&f->buf);

    /* Never read: the length alone is looked at. */
    bop_write_bytes(&writer, bop_slice("x", (size_t)UINT32_MAX + 1));
    CHECK_EQ(writer.code, BOP_EFULL);
    CHECK_EQ(f->buf.size, 0);
}

TEST(writer, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_writer writer = bop_writer(&f->buf);

        write_all_types(&writer);
        write_all_types(&writer);
        CHECK_EQ(writer.code, f->faults.fired);
        CHECK(f->buf.size <= 2 * (sizeof(all_types) - 1));
        bop_buf_deinit(&f->buf);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 2); /* 78 bytes: 64, then 128. */
}

/* Whatever bytes it gets, a decoder stays within them and ends. */
TEST(reader, stays_within_any_input)
{
    struct bop_random random;

    bop_random_seed(&random, 1);
    for (int round = 0; round < 20000; round++) {
        size_t size = bop_random_below(&random, 24);
        uint8_t *data = bop_alloc(&f->heap.allocator, size + 1);
        struct bop_reader reader = bop_reader(bop_slice(data, size));
        unsigned steps = 0;

        for (size_t i = 0; i < size; i++) {
            data[i] = bop_random_chance(&random, 1, 2) ? (uint8_t)bop_random_below(&random, 4)
                                                       : (uint8_t)bop_random_next(&random);
        }
        while (bop_reader_left(&reader) > 0) {
            size_t left = bop_reader_left(&reader);
            struct bop_slice got = bop_slice(NULL, 0);

            switch (bop_random_below(&random, 5)) {
            case 0:
                bop_read_u8(&reader);
                break;
            case 1:
                bop_read_bool(&reader);
                break;
            case 2:
                bop_read_u16(&reader);
                break;
            case 3:
                got = bop_read_bytes(&reader);
                break;
            default:
                got = bop_read_string(&reader);
                break;
            }
            CHECK(got.size <= left);
            CHECK(got.size == 0 || (got.data >= data && got.data + got.size <= data + size));
            REQUIRE(++steps <= size);
        }
        bop_free(&f->heap.allocator, data, size + 1);
    }
}
