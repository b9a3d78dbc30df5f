/*
 * Tickers: timers that fire again and again.
 */
#include "../net_fixture.h"

struct fixture {
    struct test_heap heap;
    struct net_clock clock;
    struct bop_loop *loop;
    uint64_t fired_ms[64]; /* When. */
    size_t fires;
    size_t stop_after; /* Fires; 0: never. */
};

static void on_tick(struct bop_ticker *ticker)
{
    struct fixture *f = ticker->user;

    REQUIRE(f->fires < BOP_COUNT_OF(f->fired_ms));
    f->fired_ms[f->fires++] = bop_loop_now_ms(f->loop);
    if (f->fires == f->stop_after) {
        bop_ticker_stop(ticker);
    }
}

static void advance_ms(struct fixture *f, uint64_t ms)
{
    f->clock.now_us += ms * 1000;
    turn(f->loop);
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    net_clock_init(&f->clock, 1000);
    REQUIRE_EQ(bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator,
                                                          .clock = &f->clock.clock},
                               &f->loop),
               0);
}

static void teardown(struct fixture *f)
{
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

TEST(ticker, fires_first_and_then_again_and_again)
{
    struct bop_ticker ticker;

    bop_ticker_init(&ticker, on_tick, f);
    CHECK(!bop_ticker_is_running(&ticker));
    bop_ticker_start(f->loop, &ticker, 5, 10);
    for (int ms = 0; ms < 30; ms++) {
        advance_ms(f, 1);
    }
    REQUIRE_EQ(f->fires, 3);
    CHECK_EQ(f->fired_ms[0], 1005);
    CHECK_EQ(f->fired_ms[1], 1015);
    CHECK_EQ(f->fired_ms[2], 1025);
    bop_ticker_stop(&ticker);
    CHECK(!bop_ticker_is_running(&ticker));
    advance_ms(f, 100);
    CHECK_EQ(f->fires, 3);
}

TEST(ticker, without_repeat_fires_once)
{
    struct bop_ticker ticker;

    bop_ticker_init(&ticker, on_tick, f);
    bop_ticker_start(f->loop, &ticker, 5, 0);
    advance_ms(f, 5);
    advance_ms(f, 5);
    CHECK_EQ(f->fires, 1);
    CHECK(!bop_ticker_is_running(&ticker));
    bop_ticker_reset(&ticker); /* Nothing to reset. */
    CHECK(!bop_ticker_is_running(&ticker));
}

/* Late by 3 and then by 27: the step is kept, and what was missed is left out. */
TEST(ticker, keeps_step_when_it_is_late)
{
    struct bop_ticker ticker;

    bop_ticker_init(&ticker, on_tick, f);
    bop_ticker_start(f->loop, &ticker, 10, 10); /* 1010, 1020, ... */
    advance_ms(f, 13);
    CHECK_EQ(ticker.timer.due_ms, 1020);
    advance_ms(f, 34);
    CHECK_EQ(ticker.timer.due_ms, 1050);
    REQUIRE_EQ(f->fires, 2);
    CHECK_EQ(f->fired_ms[1], 1047);
    bop_ticker_stop(&ticker);
}

TEST(ticker, may_stop_itself)
{
    struct bop_ticker ticker;

    f->stop_after = 2;
    bop_ticker_init(&ticker, on_tick, f);
    bop_ticker_stop(&ticker); /* Never started. */
    bop_ticker_start(f->loop, &ticker, 0, 1);
    for (int ms = 0; ms < 5; ms++) {
        advance_ms(f, 1);
    }
    CHECK_EQ(f->fires, 2);
    CHECK(!bop_ticker_is_running(&ticker));
}

TEST(ticker, reset_counts_from_now)
{
    struct bop_ticker ticker;

    bop_ticker_init(&ticker, on_tick, f);
    bop_ticker_start(f->loop, &ticker, 10, 10);
    advance_ms(f, 9);
    bop_ticker_reset(&ticker);
    advance_ms(f, 9);
    CHECK_EQ(f->fires, 0);
    advance_ms(f, 1);
    CHECK_EQ(f->fires, 1);
    bop_ticker_stop(&ticker);
}

TEST(ticker, several_keep_apart)
{
    struct bop_ticker tickers[3];

    for (int i = 0; i < 3; i++) {
        bop_ticker_init(&tickers[i], on_tick, f);
        bop_ticker_start(f->loop, &tickers[i], 10, (uint64_t)(i + 1) * 10);
    }
    for (int ms = 0; ms < 60; ms++) {
        advance_ms(f, 1);
    }
    /* 6 of the first, 3 of the second (10, 30, 50), 2 of the third (10, 40). */
    CHECK_EQ(f->fires, 11);
    for (int i = 0; i < 3; i++) {
        bop_ticker_stop(&tickers[i]);
    }
}
