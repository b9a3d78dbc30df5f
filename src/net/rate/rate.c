/*
 * Rate limiters. A limiter has two gauges, of bytes and of operations, which
 * follow the same algorithm.
 *
 * The token bucket counts in thousandths, so that a millisecond adds a whole
 * number of them whatever the rate.
 *
 * The sliding window: slot numbers are time / slot_ms, and slot i is kept at
 * i % slots. `span` slots, the present one included, are all that a stretch of
 * window_ms ending now can touch. What is counted in them never exceeds the
 * share, so no stretch does.
 */
#include "rate.h"

#include <bop/error.h>

#define SLOTS_WANTED 16u
#define SLOTS_MAX    (SLOTS_WANTED + 1)

/* Rates and shares are cut to what their products fit 64 bits with; no machine
 * moves so much. */
#define RATE_MAX  (1ull << 50)
#define SHARE_MAX (1ull << 60)

#define WINDOW_MS_DEFAULT 1000
#define WINDOW_MS_MAX     (1ull << 40)

#define UNLIMITED UINT64_MAX

struct gauge {
    uint64_t per_s; /* 0: no limit. */
    uint64_t share; /* The most at once: bucket's depth or window's share. */
    uint64_t count; /* Bucket: thousandths left. Windows: passed, in all slots. */
    uint64_t *slots;
};

struct bop__rate {
    struct bop_allocator *allocator;
    enum bop_rate_algorithm algorithm;
    uint64_t origin_ms; /* Times below are counted from here. */
    uint64_t at_ms;     /* To which the gauges are brought. */
    uint64_t window_ms;
    uint64_t slot_ms; /* Sliding window only, as are the slots. */
    uint64_t span;
    struct gauge bytes;
    struct gauge operations;
    uint64_t slots[]; /* Of bytes, then of operations; SLOTS_MAX each. */
};

/* ---- Making ---- */

static uint64_t share_of(uint64_t per_s, uint64_t window_ms)
{
    uint64_t whole = per_s / 1000, rest = per_s % 1000;

    if (whole > SHARE_MAX / window_ms) {
        return SHARE_MAX;
    }
    return bop_max_u64(1, bop_min_u64(SHARE_MAX, whole * window_ms + rest * window_ms / 1000));
}

static void init_gauge(const struct bop__rate *rate, struct gauge *gauge, uint64_t per_s,
                       uint64_t depth)
{
    gauge->per_s = bop_min_u64(per_s, RATE_MAX);
    if (rate->algorithm == BOP_RATE_TOKEN_BUCKET) {
        gauge->share = depth != 0 ? bop_min_u64(depth, RATE_MAX) : gauge->per_s;
        gauge->count = gauge->share * 1000;
    } else {
        gauge->share = share_of(gauge->per_s, rate->window_ms);
    }
}

static size_t rate_size(enum bop_rate_algorithm algorithm)
{
    size_t slots = algorithm == BOP_RATE_SLIDING_WINDOW ? 2 * (size_t)SLOTS_MAX : 0;

    return sizeof(struct bop__rate) + slots * sizeof(uint64_t);
}

static void init_slots(struct bop__rate *rate)
{
    rate->slot_ms = (rate->window_ms + SLOTS_WANTED - 1) / SLOTS_WANTED;
    /* The slots that window_ms milliseconds in a row can touch: one more than fit
     * in, unless each is one millisecond. */
    rate->span = (rate->window_ms - 1 + rate->slot_ms - 1) / rate->slot_ms + 1;
    BOP_ASSERT(rate->span <= SLOTS_MAX);
    rate->bytes.slots = rate->slots;
    rate->operations.slots = rate->slots + SLOTS_MAX;
}

int bop__rate_create(struct bop_allocator *allocator, const struct bop_rate *rule, uint64_t now_ms,
                     struct bop__rate **out_rate)
{
    struct bop__rate *rate;

    if (rule->algorithm != BOP_RATE_TOKEN_BUCKET && rule->algorithm != BOP_RATE_SLIDING_WINDOW &&
        rule->algorithm != BOP_RATE_FIXED_WINDOW) {
        return BOP_EINVAL;
    }
    rate = (struct bop__rate *)bop_alloc_zeroed(allocator, rate_size(rule->algorithm));
    if (rate == NULL) {
        return BOP_ENOMEM;
    }
    rate->allocator = allocator;
    rate->algorithm = rule->algorithm;
    rate->origin_ms = now_ms;
    rate->window_ms = rule->window_ms != 0 ? bop_min_u64(rule->window_ms, WINDOW_MS_MAX)
                                           : WINDOW_MS_DEFAULT;
    init_gauge(rate, &rate->bytes, rule->bytes_per_s, rule->burst_bytes);
    init_gauge(rate, &rate->operations, rule->operations_per_s, 0);
    if (rate->algorithm == BOP_RATE_SLIDING_WINDOW) {
        init_slots(rate);
    }
    *out_rate = rate;
    return 0;
}

void bop__rate_destroy(struct bop__rate *rate)
{
    if (rate != NULL) {
        bop_free(rate->allocator, rate, rate_size(rate->algorithm));
    }
}

/* ---- Time goes on ---- */

static void fill_bucket(struct gauge *gauge, uint64_t elapsed_ms)
{
    uint64_t missing = gauge->share * 1000 - gauge->count;

    if (gauge->per_s == 0) {
        return;
    }
    if (elapsed_ms > missing / gauge->per_s) {
        gauge->count += missing;
    } else {
        gauge->count += elapsed_ms * gauge->per_s;
    }
}

/* Slot `index` begins: what it held lies span slots back, out of the window. */
static void begin_slot(const struct bop__rate *rate, struct gauge *gauge, uint64_t index)
{
    uint64_t *slot = &gauge->slots[index % rate->span];

    gauge->count -= *slot;
    *slot = 0;
}

static void slide(struct bop__rate *rate, uint64_t to_ms)
{
    uint64_t from = rate->at_ms / rate->slot_ms, to = to_ms / rate->slot_ms;

    /* Of more than span new slots only the last matter: each place begins once. */
    for (uint64_t i = bop_max_u64(from + 1, to + 1 > rate->span ? to + 1 - rate->span : 0); i <= to;
         i++) {
        begin_slot(rate, &rate->bytes, i);
        begin_slot(rate, &rate->operations, i);
    }
}

static void bring_to(struct bop__rate *rate, uint64_t now_ms)
{
    uint64_t to_ms = now_ms > rate->origin_ms ? now_ms - rate->origin_ms : 0;

    if (to_ms <= rate->at_ms) {
        return;
    }
    switch (rate->algorithm) {
    case BOP_RATE_TOKEN_BUCKET:
        fill_bucket(&rate->bytes, to_ms - rate->at_ms);
        fill_bucket(&rate->operations, to_ms - rate->at_ms);
        break;
    case BOP_RATE_FIXED_WINDOW:
        if (to_ms / rate->window_ms != rate->at_ms / rate->window_ms) {
            rate->bytes.count = 0;
            rate->operations.count = 0;
        }
        break;
    case BOP_RATE_SLIDING_WINDOW:
        slide(rate, to_ms);
        break;
    }
    rate->at_ms = to_ms;
}

/* ---- What may pass ---- */

static uint64_t room(const struct bop__rate *rate, const struct gauge *gauge)
{
    if (gauge->per_s == 0) {
        return UNLIMITED;
    }
    return rate->algorithm == BOP_RATE_TOKEN_BUCKET ? gauge->count / 1000
                                                    : gauge->share - gauge->count;
}

uint64_t bop__rate_allowed(struct bop__rate *rate, uint64_t now_ms, uint64_t wanted)
{
    bring_to(rate, now_ms);
    return room(rate, &rate->operations) == 0 ? 0 : bop_min_u64(wanted, room(rate, &rate->bytes));
}

static void take(const struct bop__rate *rate, struct gauge *gauge, uint64_t amount)
{
    BOP_DEBUG_ASSERT(amount <= room(rate, gauge));
    amount = bop_min_u64(amount, room(rate, gauge));
    if (gauge->per_s == 0) {
        return;
    }
    if (rate->algorithm == BOP_RATE_TOKEN_BUCKET) {
        gauge->count -= amount * 1000;
        return;
    }
    gauge->count += amount;
    if (rate->algorithm == BOP_RATE_SLIDING_WINDOW) {
        gauge->slots[rate->at_ms / rate->slot_ms % rate->span] += amount;
    }
}

void bop__rate_take(struct bop__rate *rate, uint64_t now_ms, uint64_t bytes)
{
    bring_to(rate, now_ms);
    take(rate, &rate->bytes, bytes);
    take(rate, &rate->operations, 1);
}

/* ---- When more may ---- */

/* When so much has left the window that this amount has room. */
static uint64_t slides_at_ms(const struct bop__rate *rate, const struct gauge *gauge,
                             uint64_t amount)
{
    uint64_t present = rate->at_ms / rate->slot_ms, left = gauge->count, next = present;

    while (left + amount > gauge->share) {
        next++; /* The slot whose beginning drops the oldest one kept. */
        left -= gauge->slots[next % rate->span];
        BOP_ASSERT(next <= present + rate->span);
    }
    return next * rate->slot_ms;
}

static uint64_t gauge_wait_ms(const struct bop__rate *rate, const struct gauge *gauge,
                              uint64_t amount)
{
    if (gauge->per_s == 0) {
        return 0;
    }
    amount = bop_min_u64(amount, gauge->share);
    if (amount <= room(rate, gauge)) {
        return 0;
    }
    switch (rate->algorithm) {
    case BOP_RATE_TOKEN_BUCKET:
        return (amount * 1000 - gauge->count + gauge->per_s - 1) / gauge->per_s;
    case BOP_RATE_FIXED_WINDOW:
        return rate->window_ms - rate->at_ms % rate->window_ms;
    case BOP_RATE_SLIDING_WINDOW:
        return slides_at_ms(rate, gauge, amount) - rate->at_ms;
    }
    return 0;
}

uint64_t bop__rate_wait_ms(struct bop__rate *rate, uint64_t now_ms, uint64_t bytes)
{
    bring_to(rate, now_ms);
    return bop_max_u64(gauge_wait_ms(rate, &rate->operations, 1),
                       gauge_wait_ms(rate, &rate->bytes, bytes));
}
