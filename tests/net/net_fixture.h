/*
 * A loop on the tracking heap and a clock that stands until it is set.
 */
#ifndef BOP_TESTS_NET_FIXTURE_H
#define BOP_TESTS_NET_FIXTURE_H

#include <bop/error.h>
#include <bop/loop.h>

#include "tap.h"

struct net_clock {
    struct bop_clock clock;
    uint64_t now_us;
};

static inline uint64_t net_clock_now(struct bop_clock *self)
{
    return BOP_CONTAINER_OF(self, struct net_clock, clock)->now_us;
}

static inline uint64_t net_clock_wall(struct bop_clock *self)
{
    return net_clock_now(self) / 1000;
}

static inline void net_clock_init(struct net_clock *clock, uint64_t now_ms)
{
    *clock = (struct net_clock){
        .clock = {.monotonic_us = net_clock_now, .wall_ms = net_clock_wall},
        .now_us = now_ms * 1000,
    };
}

/** One turn that does not wait. */
static inline void turn(struct bop_loop *loop)
{
    CHECK_EQ(bop_loop_run_once(loop, 0), 0);
}

#endif
