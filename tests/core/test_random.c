/*
 * The generator: its numbers are pinned, for a seed must replay a run for ever.
 */
#include <bop/random.h>

#include <errno.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap.h"

/* What the system's generator does in this program, reset before each test. */
static size_t system_limit;  /* Bytes a call; 0: no limit. */
static int system_errors[4]; /* Of the first calls; 0: none. */
static unsigned system_calls;

/* Takes the place of the C library's. */
ssize_t getrandom(void *buffer, size_t length, unsigned flags)
{
    unsigned call = system_calls++;

    if (call < BOP_COUNT_OF(system_errors) && system_errors[call] != 0) {
        errno = system_errors[call];
        return -1;
    }
    if (system_limit > 0 && length > system_limit) {
        length = system_limit;
    }
    return syscall(SYS_getrandom, buffer, length, flags);
}

struct fixture {
    int unused;
};

static void setup(struct fixture *f)
{
    system_limit = 0;
    memset(system_errors, 0, sizeof(system_errors));
    system_calls = 0;
}

FIXTURE(setup, NULL)

/* splitmix64 from 1234567, as published with the generator. */
TEST(random, seeds_by_splitmix64)
{
    struct bop_random random;

    bop_random_seed(&random, 1234567);
    CHECK_EQ(random.state[0], UINT64_C(6457827717110365317));
    CHECK_EQ(random.state[1], UINT64_C(3203168211198807973));
    CHECK_EQ(random.state[2], UINT64_C(9817491932198370423));
    CHECK_EQ(random.state[3], UINT64_C(4593380528125082431));
}

/* The numbers of the authors' program from the state 1, 2, 3, 4. */
TEST(random, is_xoshiro256_starstar)
{
    static const uint64_t expected[] = {
        UINT64_C(11520),
        UINT64_C(0),
        UINT64_C(1509978240),
        UINT64_C(1215971899390074240),
        UINT64_C(1216172134540287360),
        UINT64_C(607988272756665600),
        UINT64_C(16172922978634559625),
        UINT64_C(8476171486693032832),
        UINT64_C(10595114339597558777),
        UINT64_C(2904607092377533576),
    };
    struct bop_random random = {.state = {1, 2, 3, 4}};

    for (size_t i = 0; i < BOP_COUNT_OF(expected); i++) {
        CHECK_EQ(bop_random_next(&random), expected[i]);
    }
}

TEST(random, gives_equal_numbers_for_equal_seeds_only)
{
    struct bop_random a, b, c;
    int same = 0;

    bop_random_seed(&a, 7);
    bop_random_seed(&b, 7);
    bop_random_seed(&c, 8);
    for (int i = 0; i < 100; i++) {
        uint64_t number = bop_random_next(&a);

        CHECK_EQ(number, bop_random_next(&b));
        same += number == bop_random_next(&c);
    }
    CHECK_EQ(same, 0);
}

TEST(random_below, is_pinned)
{
    static const uint64_t expected[] = {83, 378, 680, 924, 991, 769, 719, 850, 761, 583};
    struct bop_random random;

    bop_random_seed(&random, 42);
    for (size_t i = 0; i < BOP_COUNT_OF(expected); i++) {
        CHECK_EQ(bop_random_below(&random, 1000), expected[i]);
    }
}

TEST(random_below, stays_below)
{
    static const uint64_t bounds[] = {
        1, 2, 3, 10, UINT32_MAX, UINT64_C(1) << 63, (UINT64_C(1) << 63) + 1, UINT64_MAX};
    struct bop_random random;

    bop_random_seed(&random, 1);
    for (size_t i = 0; i < BOP_COUNT_OF(bounds); i++) {
        for (int round = 0; round < 1000; round++) {
            CHECK(bop_random_below(&random, bounds[i]) < bounds[i]);
        }
    }
}

/* 60,000 throws of a die: each face 10,000 times but for a deviation that, at six sigma (548),
 * a fair die does not show; and the seed is fixed anyway. */
TEST(random_below, is_uniform)
{
    unsigned faces[6] = {0};
    struct bop_random random;

    bop_random_seed(&random, 3);
    for (int i = 0; i < 60000; i++) {
        faces[bop_random_below(&random, 6)]++;
    }
    for (int i = 0; i < 6; i++) {
        CHECK(faces[i] > 10000 - 548);
        CHECK(faces[i] < 10000 + 548);
    }
}

/* A bound of 3/4 of the range. Four numbers fall on three results, so without a second throw
 * every third result would come twice as often, in half of all cases. */
TEST(random_below, is_fair_for_large_bounds)
{
    const uint64_t bound = UINT64_C(3) << 62;
    unsigned thirds[3] = {0};
    struct bop_random random;

    bop_random_seed(&random, 4);
    for (int i = 0; i < 30000; i++) {
        thirds[bop_random_below(&random, bound) % 3]++;
    }
    for (int i = 0; i < 3; i++) {
        CHECK(thirds[i] > 10000 - 490); /* Six sigma of sqrt(30000 * 1/3 * 2/3) = 81.6. */
        CHECK(thirds[i] < 10000 + 490);
    }
}

TEST(random_chance, is_never_at_0_and_always_at_1)
{
    struct bop_random random;

    bop_random_seed(&random, 5);
    for (int i = 0; i < 1000; i++) {
        CHECK(!bop_random_chance(&random, 0, 10));
        CHECK(bop_random_chance(&random, 10, 10));
    }
}

/* That one of the 256 values is missing in 10,000 bytes has a probability of 10^-14; what is
 * past the end stays. */
TEST(random_secret, fills_all_and_no_more)
{
    static uint8_t secret[10001];
    bool seen[256] = {false};

    CHECK_EQ(bop_random_secret(secret, 10000), 0);
    for (size_t i = 0; i < 10000; i++) {
        seen[secret[i]] = true;
    }
    for (size_t i = 0; i < 256; i++) {
        CHECK(seen[i]);
    }
    CHECK_EQ(secret[10000], 0);
}

/* 25 bytes by 7 at a time, and an interruption in between: 7, -EINTR, 7, 7, 4. */
TEST(random_secret, goes_on_after_a_part_and_after_a_signal)
{
    static const uint8_t zeros[7];
    uint8_t secret[26] = {0};

    system_limit = 7;
    system_errors[1] = EINTR;
    CHECK_EQ(bop_random_secret(secret, 25), 0);
    CHECK_EQ(system_calls, 5);
    CHECK(memcmp(secret, zeros, 7) != 0);
    CHECK(memcmp(secret + 7, zeros, 7) != 0);
    CHECK(memcmp(secret + 14, zeros, 7) != 0);
    CHECK(memcmp(secret + 21, zeros, 4) != 0);
    CHECK_EQ(secret[25], 0);
}

TEST(random_secret, says_why_it_failed)
{
    uint8_t secret[8];

    system_errors[0] = ENOSYS;
    CHECK_EQ(bop_random_secret(secret, sizeof(secret)), -ENOSYS);
}

TEST(random_secret, differs_each_time)
{
    uint8_t a[32], b[32];

    CHECK_EQ(bop_random_secret(a, sizeof(a)), 0);
    CHECK_EQ(bop_random_secret(b, sizeof(b)), 0);
    CHECK(memcmp(a, b, sizeof(a)) != 0);
    CHECK_EQ(bop_random_secret(NULL, 0), 0);
}
