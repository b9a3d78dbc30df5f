/*
 * The system's clock.
 */
#include <bop/clock.h>

#include <time.h>

static uint64_t system_monotonic_us(struct bop_clock *self)
{
    struct timespec now;

    /* Cannot fail: every Linux has this clock. */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t system_wall_ms(struct bop_clock *self)
{
    struct timespec now;

    /* As above. */
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

struct bop_clock *bop_clock_system(void)
{
    static struct bop_clock clock = {
        .monotonic_us = system_monotonic_us,
        .wall_ms = system_wall_ms,
    };

    return &clock;
}
