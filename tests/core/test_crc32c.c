/*
 * CRC-32C: the vectors of RFC 3720 B.4, and the instruction against the table.
 */
#include <bop/crc32c.h>

#include <pthread.h>

#include <bop/random.h>

#include "tap.h"

/* Longer than two rounds of the longest lanes (3 * 4096), and some. */
#define LENGTH_MAX 40000

struct fixture {
    uint8_t data[LENGTH_MAX + 16];
    struct bop_random random;
};

static void setup(struct fixture *f)
{
    bop_random_seed(&f->random, 1);
    for (size_t i = 0; i < sizeof(f->data); i++) {
        f->data[i] = (uint8_t)bop_random_next(&f->random);
    }
}

FIXTURE(setup, NULL)

/* One bit at a time, straight from the definition. */
static uint32_t by_definition(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0);
        }
    }
    return ~crc;
}

static void check_vector(const void *data, size_t size, uint32_t expected)
{
    CHECK_EQ(bop_crc32c(0, data, size), expected);
    CHECK_EQ(bop_crc32c_table(0, data, size), expected);
    CHECK_EQ(by_definition(0, data, size), expected);
}

/* The RFC gives the bytes in the order of the wire: aa 36 91 8a is 0x8a9136aa here. */
TEST(crc32c, gives_the_vectors_of_rfc_3720)
{
    static const uint8_t read_command[48] = {
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
        0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };
    uint8_t text[32];

    memset(text, 0, 32);
    check_vector(text, 32, 0x8a9136aa);
    memset(text, 0xff, 32);
    check_vector(text, 32, 0x62a8ab43);
    for (uint8_t i = 0; i < 32; i++) {
        text[i] = i;
    }
    check_vector(text, 32, 0x46dd794e);
    for (uint8_t i = 0; i < 32; i++) {
        text[i] = 31 - i;
    }
    check_vector(text, 32, 0x113fdb5c);
    check_vector(read_command, sizeof(read_command), 0xd9963a56);
}

TEST(crc32c, gives_the_check_value)
{
    check_vector("123456789", 9, 0xe3069283);
}

TEST(crc32c, of_nothing_is_what_went_in)
{
    check_vector("", 0, 0);
    CHECK_EQ(bop_crc32c(0, NULL, 0), 0);
    CHECK_EQ(bop_crc32c(0x12345678, NULL, 0), 0x12345678);
    CHECK_EQ(bop_crc32c_table(0x12345678, NULL, 0), 0x12345678);
}

TEST(crc32c, agrees_with_the_definition_at_every_short_length_and_alignment)
{
    for (size_t align = 0; align < 8; align++) {
        for (size_t size = 0; size < 100; size++) {
            uint32_t expected = by_definition(7, f->data + align, size);

            CHECK_EQ(bop_crc32c(7, f->data + align, size), expected);
            CHECK_EQ(bop_crc32c_table(7, f->data + align, size), expected);
        }
    }
}

/* Where a way of doing it ends and another one begins. */
TEST(crc32c, agrees_with_the_table_around_the_lane_sizes)
{
    static const size_t sizes[] = {3 * 256, 6 * 256, 3 * 4096, 6 * 4096, 3 * 4096 + 3 * 256};

    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        for (size_t size = sizes[i] - 9; size <= sizes[i] + 9; size++) {
            CHECK_EQ(bop_crc32c(0, f->data + 3, size), bop_crc32c_table(0, f->data + 3, size));
        }
        CHECK_EQ(bop_crc32c_table(0, f->data, sizes[i]), by_definition(0, f->data, sizes[i]));
    }
}

TEST(crc32c, agrees_with_the_table_at_random_lengths_alignments_and_starts)
{
    for (int round = 0; round < 3000; round++) {
        size_t size = bop_random_below(&f->random, LENGTH_MAX);
        size_t align = bop_random_below(&f->random, 16);
        uint32_t start = (uint32_t)bop_random_next(&f->random);

        CHECK_EQ(bop_crc32c(start, f->data + align, size),
                 bop_crc32c_table(start, f->data + align, size));
    }
}

TEST(crc32c, goes_on_where_it_stopped)
{
    uint32_t whole = bop_crc32c(0, f->data, LENGTH_MAX);

    for (int round = 0; round < 300; round++) {
        size_t cut = bop_random_below(&f->random, LENGTH_MAX + 1);
        uint32_t first = bop_crc32c(0, f->data, cut);

        CHECK_EQ(bop_crc32c(first, f->data + cut, LENGTH_MAX - cut), whole);
        first = bop_crc32c_table(0, f->data, cut);
        CHECK_EQ(bop_crc32c_table(first, f->data + cut, LENGTH_MAX - cut), whole);
    }
}

/* Any single flipped bit shows. */
TEST(crc32c, sees_each_flipped_bit)
{
    uint32_t whole = bop_crc32c(0, f->data, 1000);

    for (size_t bit = 0; bit < 8000; bit++) {
        f->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(bop_crc32c(0, f->data, 1000) != whole);
        f->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

TEST(crc32c, uses_the_instruction_where_there_is_one)
{
#if defined(__x86_64__)
    CHECK_EQ(bop_crc32c_is_hardware(), !!__builtin_cpu_supports("sse4.2"));
#else
    CHECK(!bop_crc32c_is_hardware());
#endif
}

/* ---- Threads: the tables are made once, by whoever comes first ---- */

static void *sum_in_thread(void *argument)
{
    struct fixture *f = argument;

    CHECK_EQ(bop_crc32c(0, "123456789", 9), 0xe3069283);
    CHECK_EQ(bop_crc32c(0, f->data, LENGTH_MAX), bop_crc32c_table(0, f->data, LENGTH_MAX));
    return NULL;
}

TEST(crc32c, may_be_used_from_any_thread)
{
    pthread_t threads[4];

    for (int i = 0; i < 4; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, sum_in_thread, f), 0);
    }
    for (int i = 0; i < 4; i++) {
        REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
    }
}
