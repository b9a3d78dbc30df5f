/*
 * Tickers: timers that start themselves again. They keep step with their first
 * due time rather than with when they got to run; ticks missed meanwhile are not
 * made up for.
 */
#include <bop/loop.h>

static void on_timer(struct bop_timer *timer)
{
    struct bop_ticker *ticker = BOP_CONTAINER_OF(timer, struct bop_ticker, timer);

    if (ticker->repeat_ms != 0) {
        uint64_t late_ms = bop_loop_now_ms(ticker->loop) - timer->due_ms;

        /* Before the call, which may stop it or free its memory. */
        bop_timer_start(ticker->loop, timer, ticker->repeat_ms - late_ms % ticker->repeat_ms);
    }
    ticker->fn(ticker);
}

void bop_ticker_init(struct bop_ticker *ticker, void (*fn)(struct bop_ticker *ticker), void *user)
{
    *ticker = (struct bop_ticker){.fn = fn, .user = user};
    bop_timer_init(&ticker->timer, on_timer);
}

void bop_ticker_start(struct bop_loop *loop, struct bop_ticker *ticker, uint64_t first_ms,
                      uint64_t repeat_ms)
{
    ticker->loop = loop;
    ticker->repeat_ms = repeat_ms;
    bop_timer_start(loop, &ticker->timer, first_ms);
}

void bop_ticker_reset(struct bop_ticker *ticker)
{
    if (bop_ticker_is_running(ticker) && ticker->repeat_ms != 0) {
        bop_timer_start(ticker->loop, &ticker->timer, ticker->repeat_ms);
    }
}

void bop_ticker_stop(struct bop_ticker *ticker)
{
    if (ticker->loop != NULL) {
        bop_timer_stop(ticker->loop, &ticker->timer);
    }
}
