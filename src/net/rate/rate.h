/*
 * Rate limiters: how much of a stream may pass now, and when more may.
 *
 * Pure state: time is handed in, in milliseconds of any clock that starts
 * anywhere; one that goes back is taken to stand still. The user of a limiter
 * asks bop__rate_allowed() before an operation, moves at most so much, and tells
 * it with bop__rate_take(). When nothing or too little may pass it arms one
 * timer for bop__rate_wait_ms(). Nothing is ever lost, it only waits.
 *
 *   token bucket     full at first (burst_bytes; for operations, a second's
 *                    worth), and filled evenly. In any t ms pass at most
 *                    depth + t * rate.
 *   fixed window     windows of window_ms one after the other from creation,
 *                    each with its own share. Around a border twice the share
 *                    can pass in one window's time.
 *   sliding window   no stretch of window_ms, wherever it begins, has more than
 *                    the share. What passed is counted in up to 16 slots of
 *                    equal length and forgotten by whole slots, so up to 1/16
 *                    less than the share passes in the long run.
 *
 * A window's share is rate * window_ms / 1000, and at least 1. Bytes and
 * operations are limited apart, each by its rate; a rate of 0 is no limit.
 *
 * Threads: one at a time.
 */
#ifndef BOP_NET_RATE_H
#define BOP_NET_RATE_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/socket.h>

struct bop__rate;

/** Whether a rule limits anything: without that, no limiter is needed. */
static inline bool bop__rate_limits(const struct bop_rate *rule)
{
    return rule->bytes_per_s != 0 || rule->operations_per_s != 0;
}

/** Make a limiter that nothing has passed yet. Returns 0, BOP_ENOMEM, or BOP_EINVAL for an
 * algorithm that is none. */
BOP_MUST_USE int bop__rate_create(struct bop_allocator *allocator, const struct bop_rate *rule,
                                  uint64_t now_ms, struct bop__rate **out_rate);
/** NULL is fine. */
void bop__rate_destroy(struct bop__rate *rate);

/** How many bytes one operation may move now: at most `wanted`, 0 if it has to wait. */
uint64_t bop__rate_allowed(struct bop__rate *rate, uint64_t now_ms, uint64_t wanted);

/** One operation has moved so many bytes: no more than was allowed at the same time. */
void bop__rate_take(struct bop__rate *rate, uint64_t now_ms, uint64_t bytes);

/** Milliseconds from now until one operation may move so many bytes, if none passes before; of more
 * than can ever pass at once, until that most may. 0: it may now. */
uint64_t bop__rate_wait_ms(struct bop__rate *rate, uint64_t now_ms, uint64_t bytes);

#endif
