/*
 * Time, handed in so that a simulator can supply its own.
 */
#ifndef BOP_CLOCK_H
#define BOP_CLOCK_H

#include <bop/base.h>

struct bop_clock {
    /* Microseconds since some start; never goes back, never jumps. Timers use this one. */
    uint64_t (*monotonic_us)(struct bop_clock *self);
    /* Milliseconds since 1970-01-01 UTC; may jump. For people and expiry stamps only. */
    uint64_t (*wall_ms)(struct bop_clock *self);
};

/** The system's clock. Lives for ever; any thread. */
BOP_API struct bop_clock *bop_clock_system(void);

static inline uint64_t bop_clock_monotonic_us(struct bop_clock *clock)
{
    return clock->monotonic_us(clock);
}

static inline uint64_t bop_clock_monotonic_ms(struct bop_clock *clock)
{
    return clock->monotonic_us(clock) / 1000;
}

static inline uint64_t bop_clock_wall_ms(struct bop_clock *clock)
{
    return clock->wall_ms(clock);
}

#endif
