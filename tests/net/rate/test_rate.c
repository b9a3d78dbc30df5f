/*
 * Rate limiters: what each algorithm promises, on every trace of random
 * operations, and that a wait is as long as it must be and not longer.
 */
#include <bop/error.h>
#include <bop/random.h>

#include "net/rate/rate.h"
#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
}

static void teardown(struct fixture *f)
{
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static struct bop__rate *create(struct fixture *f, struct bop_rate rule)
{
    struct bop__rate *rate;

    REQUIRE_EQ(bop__rate_create(&f->heap.allocator, &rule, 5000, &rate), 0);
    return rate;
}

TEST(rate, without_a_rule_limits_nothing)
{
    struct bop_rate rule = {.burst_bytes = 5, .window_ms = 7};

    CHECK(!bop__rate_limits(&rule));
    rule.operations_per_s = 1;
    CHECK(bop__rate_limits(&rule));
}

TEST(rate, refuses_an_algorithm_that_is_none)
{
    struct bop_rate rule = {.algorithm = (enum bop_rate_algorithm)9, .bytes_per_s = 1};
    struct bop__rate *rate = NULL;

    CHECK_EQ(bop__rate_create(&f->heap.allocator, &rule, 0, &rate), BOP_EINVAL);
    CHECK_PTR_EQ(rate, NULL);
    bop__rate_destroy(NULL);
}

TEST(rate, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_rate rule = {.algorithm = BOP_RATE_SLIDING_WINDOW, .bytes_per_s = 1};
        struct bop__rate *rate = NULL;
        int rc = bop__rate_create(&f->heap.allocator, &rule, 0, &rate);

        CHECK_EQ(rc, f->faults.fired);
        bop__rate_destroy(rate);
    }
    CHECK_EQ(f->faults.at, 1);
}

/* ---- Token bucket ---- */

TEST(token_bucket, lets_a_burst_pass_and_then_its_rate)
{
    struct bop__rate *rate = create(f, (struct bop_rate){.bytes_per_s = 1000, .burst_bytes = 300});

    CHECK_EQ(bop__rate_allowed(rate, 5000, 1000), 300);
    bop__rate_take(rate, 5000, 300);
    CHECK_EQ(bop__rate_allowed(rate, 5000, 1000), 0);
    CHECK_EQ(bop__rate_wait_ms(rate, 5000, 25), 25);
    CHECK_EQ(bop__rate_allowed(rate, 5025, 1000), 25);
    bop__rate_take(rate, 5025, 20);
    CHECK_EQ(bop__rate_allowed(rate, 5026, 1000), 6);
    CHECK_EQ(bop__rate_allowed(rate, 9000, 1000), 300); /* Never above its depth. */
    bop__rate_destroy(rate);
}

TEST(token_bucket, waits_for_no_more_than_it_can_hold)
{
    struct bop__rate *rate = create(f, (struct bop_rate){.bytes_per_s = 1000, .burst_bytes = 300});

    bop__rate_take(rate, 5000, 300);
    CHECK_EQ(bop__rate_wait_ms(rate, 5000, 1u << 30), 300);
    bop__rate_destroy(rate);
}

TEST(token_bucket, adds_less_than_a_byte_a_millisecond_without_losing_any)
{
    struct bop__rate *rate = create(f, (struct bop_rate){.bytes_per_s = 3});

    CHECK_EQ(bop__rate_allowed(rate, 5000, 100), 3); /* The default depth: a second's worth. */
    bop__rate_take(rate, 5000, 3);
    for (uint64_t ms = 5001; ms < 5334; ms++) {
        CHECK_EQ(bop__rate_allowed(rate, ms, 100), 0);
    }
    CHECK_EQ(bop__rate_allowed(rate, 5334, 100), 1); /* 334 * 3 = 1002 thousandths. */
    CHECK_EQ(bop__rate_wait_ms(rate, 5334, 2), 333); /* 667 * 3 = 2001. */
    bop__rate_destroy(rate);
}

TEST(rate, of_operations_is_apart_from_that_of_bytes)
{
    struct bop__rate *rate = create(f, (struct bop_rate){.operations_per_s = 2});

    for (int i = 0; i < 2; i++) {
        CHECK_EQ(bop__rate_allowed(rate, 5000, UINT64_MAX), UINT64_MAX);
        bop__rate_take(rate, 5000, 1u << 20);
    }
    CHECK_EQ(bop__rate_allowed(rate, 5000, 1), 0);
    CHECK_EQ(bop__rate_wait_ms(rate, 5000, 1), 500);
    CHECK_EQ(bop__rate_allowed(rate, 5500, 1), 1);
    bop__rate_destroy(rate);
}

TEST(rate, stands_still_when_time_goes_back)
{
    for (int algorithm = 0; algorithm < 3; algorithm++) {
        struct bop__rate *rate = create(
            f, (struct bop_rate){.algorithm = algorithm, .bytes_per_s = 1000});

        CHECK_EQ(bop__rate_allowed(rate, 5100, 2000), 1000);
        bop__rate_take(rate, 5100, 1000);
        CHECK_EQ(bop__rate_allowed(rate, 0, 1), 0);
        CHECK_EQ(bop__rate_allowed(rate, 5100, 1), 0);
        bop__rate_destroy(rate);
    }
}

TEST(rate, of_absurd_numbers_overflows_nothing)
{
    for (int algorithm = 0; algorithm < 3; algorithm++) {
        struct bop__rate *rate = create(f, (struct bop_rate){.algorithm = algorithm,
                                                             .bytes_per_s = UINT64_MAX,
                                                             .operations_per_s = UINT64_MAX,
                                                             .burst_bytes = UINT64_MAX,
                                                             .window_ms = UINT64_MAX});
        uint64_t all = bop__rate_allowed(rate, 5000, UINT64_MAX);

        CHECK(all >= 1ull << 50);
        bop__rate_take(rate, 5000, all);
        CHECK_EQ(bop__rate_allowed(rate, 5000, 1), 0);
        CHECK(bop__rate_wait_ms(rate, 5000, UINT64_MAX) > 0);
        CHECK_EQ(bop__rate_allowed(rate, UINT64_MAX, UINT64_MAX), all);
        bop__rate_destroy(rate);
    }
}

/* ---- Windows ---- */

TEST(fixed_window, gives_each_window_its_share)
{
    struct bop__rate *rate = create(f, (struct bop_rate){.algorithm = BOP_RATE_FIXED_WINDOW,
                                                         .bytes_per_s = 1000,
                                                         .window_ms = 100});

    bop__rate_take(rate, 5099, 100); /* 1000 * 100 / 1000. */
    CHECK_EQ(bop__rate_allowed(rate, 5099, 1), 0);
    CHECK_EQ(bop__rate_wait_ms(rate, 5099, 1), 1);
    CHECK_EQ(bop__rate_allowed(rate, 5100, 500), 100);
    bop__rate_take(rate, 5100, 99);
    CHECK_EQ(bop__rate_wait_ms(rate, 5110, 2), 90);
    CHECK_EQ(bop__rate_wait_ms(rate, 5110, 1), 0);
    bop__rate_destroy(rate);
}

TEST(sliding_window, forgets_a_slot_at_a_time)
{
    struct bop__rate *rate = create(f, (struct bop_rate){.algorithm = BOP_RATE_SLIDING_WINDOW,
                                                         .bytes_per_s = 1000,
                                                         .window_ms = 160}); /* Slots of 10 ms. */

    bop__rate_take(rate, 5000, 60);
    bop__rate_take(rate, 5019, 100);
    CHECK_EQ(bop__rate_wait_ms(rate, 5019, 60), 151); /* At 5170: the 17th slot after the first. */
    CHECK_EQ(bop__rate_allowed(rate, 5169, 500), 0);
    CHECK_EQ(bop__rate_allowed(rate, 5170, 500), 60);
    CHECK_EQ(bop__rate_wait_ms(rate, 5170, 61), 10);
    CHECK_EQ(bop__rate_allowed(rate, 5180, 500), 160);
    bop__rate_destroy(rate);
}

TEST(rate, of_less_than_one_a_window_lets_one_pass)
{
    for (int algorithm = BOP_RATE_SLIDING_WINDOW; algorithm <= BOP_RATE_FIXED_WINDOW; algorithm++) {
        struct bop__rate *rate = create(
            f, (struct bop_rate){.algorithm = algorithm, .operations_per_s = 1, .window_ms = 10});

        CHECK_EQ(bop__rate_allowed(rate, 5000, 7), 7);
        bop__rate_take(rate, 5000, 7);
        CHECK_EQ(bop__rate_allowed(rate, 5000, 7), 0);
        CHECK_EQ(bop__rate_allowed(rate, 5010, 7), 7);
        bop__rate_destroy(rate);
    }
}

/* ---- Random traces ---- */

enum { EVENTS_MAX = 300 };

struct event {
    uint64_t ms;
    uint64_t bytes;
};

struct trace {
    struct bop_rate rule;
    uint64_t share;
    struct event events[EVENTS_MAX];
    size_t count;
};

static uint64_t window_sum(const struct trace *trace, size_t from, uint64_t end_ms)
{
    uint64_t sum = 0;

    for (size_t i = from; i < trace->count && trace->events[i].ms < end_ms; i++) {
        sum += trace->events[i].bytes;
    }
    return sum;
}

/* From each event on, no stretch has more than its algorithm promises. */
static void check_bytes(const struct trace *trace)
{
    uint64_t window_ms = trace->rule.window_ms;

    for (size_t i = 0; i < trace->count; i++) {
        uint64_t start_ms = trace->events[i].ms, sum = 0;

        switch (trace->rule.algorithm) {
        case BOP_RATE_TOKEN_BUCKET:
            for (size_t k = i; k < trace->count; k++) {
                uint64_t elapsed_ms = trace->events[k].ms - start_ms;

                sum += trace->events[k].bytes;
                CHECK(sum * 1000 <= trace->share * 1000 + elapsed_ms * trace->rule.bytes_per_s);
            }
            break;
        case BOP_RATE_SLIDING_WINDOW:
            CHECK(window_sum(trace, i, start_ms + window_ms) <= trace->share);
            break;
        case BOP_RATE_FIXED_WINDOW:
            start_ms = 5000 + (start_ms - 5000) / window_ms * window_ms;
            CHECK(window_sum(trace, i, start_ms + window_ms) <= trace->share);
            break;
        }
    }
}

static void check_operations(const struct trace *trace)
{
    uint64_t share = bop_max_u64(1, trace->rule.operations_per_s * trace->rule.window_ms / 1000);

    if (trace->rule.algorithm != BOP_RATE_SLIDING_WINDOW || trace->rule.operations_per_s == 0) {
        return;
    }
    for (size_t i = 0; i + share < trace->count; i++) {
        CHECK(trace->events[i + share].ms - trace->events[i].ms >= trace->rule.window_ms);
    }
}

/* The wait leads to the first millisecond in which so much may pass. */
static uint64_t check_wait(struct bop__rate *rate, struct trace *trace, uint64_t now_ms,
                           uint64_t wanted)
{
    uint64_t wait_ms = bop__rate_wait_ms(rate, now_ms, wanted);
    uint64_t most = bop_min_u64(wanted, trace->share);

    if (wait_ms > 0) {
        CHECK(bop__rate_allowed(rate, now_ms + wait_ms - 1, wanted) < most);
    }
    CHECK(bop__rate_allowed(rate, now_ms + wait_ms, wanted) >= most);
    return now_ms + wait_ms;
}

static struct bop_rate random_rule(struct bop_random *random, int algorithm)
{
    return (struct bop_rate){
        .algorithm = algorithm,
        .bytes_per_s = 1 +
                       bop_random_below(random, bop_random_chance(random, 1, 2) ? 50 : 1u << 20),
        .operations_per_s = bop_random_chance(random, 1, 2) ? 1 + bop_random_below(random, 500) : 0,
        .burst_bytes = 1 + bop_random_below(random, 1u << 20),
        .window_ms = 1 + bop_random_below(random, bop_random_chance(random, 1, 2) ? 40 : 3000),
    };
}

static void run_trace(struct fixture *f, struct bop_random *random, int algorithm)
{
    struct trace trace = {.rule = random_rule(random, algorithm)};
    struct bop__rate *rate = create(f, trace.rule);
    uint64_t now_ms = 5000;

    trace.share = algorithm == BOP_RATE_TOKEN_BUCKET
                      ? trace.rule.burst_bytes
                      : bop_max_u64(1, trace.rule.bytes_per_s * trace.rule.window_ms / 1000);
    while (trace.count < EVENTS_MAX) {
        uint64_t wanted = 1 + bop_random_below(random, 2 * trace.share), allowed;

        if (bop_random_chance(random, 1, 3)) {
            now_ms += bop_random_below(random, 2 * trace.rule.window_ms);
        }
        if (bop_random_chance(random, 1, 3)) {
            now_ms = check_wait(rate, &trace, now_ms, wanted);
        } else {
            now_ms += bop__rate_wait_ms(rate, now_ms, 1);
        }
        allowed = bop__rate_allowed(rate, now_ms, wanted);
        CHECK(allowed > 0 && allowed <= wanted);
        bop__rate_take(rate, now_ms, allowed);
        trace.events[trace.count++] = (struct event){now_ms, allowed};
    }
    check_bytes(&trace);
    check_operations(&trace);
    bop__rate_destroy(rate);
}

TEST(rate, keeps_its_promise_on_random_traces)
{
    struct bop_random random;

    bop_random_seed(&random, 1);
    for (int i = 0; i < 600; i++) {
        run_trace(f, &random, i % 3);
    }
}

/* One that always takes what it may gets nearly its rate: at worst 16 of 17 parts. */
TEST(rate, is_reached_by_one_that_always_asks)
{
    for (int algorithm = 0; algorithm < 3; algorithm++) {
        struct bop__rate *rate = create(f, (struct bop_rate){.algorithm = algorithm,
                                                             .bytes_per_s = 100000,
                                                             .burst_bytes = 1000,
                                                             .window_ms = 160});
        uint64_t now_ms = 5000, sum = 0;

        while (now_ms < 15000) { /* 10 s: 1,000,000 bytes. */
            uint64_t allowed = bop__rate_allowed(rate, now_ms, 500);

            bop__rate_take(rate, now_ms, allowed);
            sum += allowed;
            now_ms += bop__rate_wait_ms(rate, now_ms, 1);
        }
        CHECK(sum >= 1000000ull * 16 / 17);
        CHECK(sum <= 1000000 + 16000);
        bop__rate_destroy(rate);
    }
}
