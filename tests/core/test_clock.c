/*
 * The system's clock: what can be said of it without a bound on time.
 */
#include <bop/clock.h>

#include <time.h>

#include "tap.h"

TEST(clock, never_goes_back)
{
    struct bop_clock *clock = bop_clock_system();
    uint64_t last = bop_clock_monotonic_us(clock);

    for (int i = 0; i < 100000; i++) {
        uint64_t now = bop_clock_monotonic_us(clock);

        REQUIRE(now >= last);
        last = now;
    }
}

TEST(clock, goes_on)
{
    struct bop_clock *clock = bop_clock_system();
    uint64_t start = bop_clock_monotonic_us(clock);

    while (bop_clock_monotonic_us(clock) == start) {
    }
    CHECK(bop_clock_monotonic_us(clock) > start);
}

/* Readings of the system's clock before and after enclose ours, in the same unit. */
TEST(clock, counts_microseconds)
{
    struct timespec before, after;
    uint64_t us, ms;

    clock_gettime(CLOCK_MONOTONIC, &before);
    us = bop_clock_monotonic_us(bop_clock_system());
    ms = bop_clock_monotonic_ms(bop_clock_system());
    clock_gettime(CLOCK_MONOTONIC, &after);

    CHECK(us >= (uint64_t)before.tv_sec * 1000000 + (uint64_t)before.tv_nsec / 1000);
    CHECK(us <= (uint64_t)after.tv_sec * 1000000 + (uint64_t)after.tv_nsec / 1000);
    CHECK(ms >= us / 1000);
    CHECK(ms <= (uint64_t)after.tv_sec * 1000 + (uint64_t)after.tv_nsec / 1000000);
}

TEST(clock, knows_the_year)
{
    CHECK(bop_clock_wall_ms(bop_clock_system()) > UINT64_C(1700000000000));  /* 2023-11 */
    CHECK(bop_clock_wall_ms(bop_clock_system()) < UINT64_C(32503680000000)); /* 3000-01 */
}

struct frozen {
    struct bop_clock clock;
    uint64_t us;
};

static uint64_t frozen_us(struct bop_clock *self)
{
    return BOP_CONTAINER_OF(self, struct frozen, clock)->us;
}

TEST(clock, can_be_anothers)
{
    struct frozen frozen = {.clock = {.monotonic_us = frozen_us, .wall_ms = frozen_us}, .us = 5999};

    CHECK_EQ(bop_clock_monotonic_us(&frozen.clock), 5999);
    CHECK_EQ(bop_clock_monotonic_ms(&frozen.clock), 5);
    CHECK_EQ(bop_clock_wall_ms(&frozen.clock), 5999);
}
