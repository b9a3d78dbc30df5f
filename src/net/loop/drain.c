/*
 * The graceful stop: accept no more, let sockets end in their own time, and
 * close those that have not when the time is over.
 */
#include "../socket/socket_internal.h"
#include "loop_internal.h"

bool bop__drain_done(const struct bop_loop *loop)
{
    return loop->draining && loop->socket_count == 0 && bop_list_empty(&loop->closing);
}

/* Time is over. */
static void on_drain_timer(struct bop_timer *timer)
{
    struct bop_loop *loop = BOP_CONTAINER_OF(timer, struct bop_loop, drain_timer);

    bop__socket_close_all(loop);
}

void bop__drain_init(struct bop_loop *loop)
{
    bop_timer_init(&loop->drain_timer, on_drain_timer);
}

void bop__drain_look(struct bop_loop *loop)
{
    if (bop__drain_done(loop)) {
        loop->draining = false;
        bop_timer_stop(loop, &loop->drain_timer);
        bop_loop_stop(loop);
    }
}

void bop_loop_drain(struct bop_loop *loop, uint64_t timeout_ms)
{
    while (!bop_list_empty(&loop->listeners)) {
        bop_listener_close(BOP_CONTAINER_OF(loop->listeners.next, struct bop_listener, link));
    }
    loop->draining = true;
    bop_timer_start(loop, &loop->drain_timer, timeout_ms);
}
