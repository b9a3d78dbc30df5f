/*
 * Timeouts: a wheel of coarse slots, so that a message only notes when it came.
 *
 * A connection is looked at when the earliest deadline it had may have passed;
 * then what is due is done, and it is put where its next deadline falls. One
 * that is busy is so looked at once in an interval of pings. A deadline is met
 * late by at most two ticks, of an eighth of the shortest timeout or a second.
 */
#include "../metrics/export.h"
#include "conn.h"

/* 32 bits of milliseconds tell 24 days apart; longer timeouts are that long. */
#define WAIT_MS_MAX ((uint64_t)INT32_MAX / 2)

static uint64_t at_most(uint64_t ms)
{
    return bop_min_u64(ms, WAIT_MS_MAX);
}

/* Milliseconds from since on that have passed. */
static uint64_t passed_ms(const struct bop__ws *ws, uint32_t since_ms)
{
    return (uint32_t)(bop__ws_now(ws) - since_ms);
}

static uint64_t left_ms(uint64_t timeout_ms, uint64_t passed)
{
    if (timeout_ms == UINT64_MAX) {
        return UINT64_MAX;
    }
    return at_most(timeout_ms) > passed ? at_most(timeout_ms) - passed : 0;
}

static uint64_t ping_left_ms(const struct bop__ws *ws)
{
    uint64_t interval_ms = ws->group->options.ping_interval_ms;

    if (interval_ms == UINT64_MAX || ws->pings == UINT8_MAX) {
        return UINT64_MAX;
    }
    return left_ms(at_most(interval_ms) * (ws->pings + 1u), passed_ms(ws, ws->active_ms));
}

/* Until the next deadline; 0: one has passed. */
static uint64_t wait_ms(const struct bop__ws *ws)
{
    const struct bop_ws_options *options = &ws->group->options;

    switch ((enum bop__ws_state)ws->state) {
    case BOP__WS_OPENING:
        return left_ms(bop__ws_handshake_timeout_ms(ws), passed_ms(ws, ws->since_ms));
    case BOP__WS_OPEN:
        return bop_min_u64(
            bop_min_u64(left_ms(options->idle_timeout_ms, passed_ms(ws, ws->active_ms)),
                        left_ms(options->lifetime_ms, passed_ms(ws, ws->since_ms))),
            ping_left_ms(ws));
    case BOP__WS_CLOSING:
        return left_ms(options->close_timeout_ms, passed_ms(ws, ws->since_ms));
    case BOP__WS_LEAVING:
        break; /* The socket's own timer sees to it. */
    }
    return WAIT_MS_MAX;
}

static void place(struct bop__ws *ws)
{
    struct bop__ws_group *group = ws->group;
    uint64_t ticks = bop_min_u64(wait_ms(ws), WAIT_MS_MAX) / group->tick_ms + 1;

    ticks = bop_min_u64(ticks, BOP__WS_WHEEL_SLOTS - 1);
    bop_list_remove(&ws->link);
    bop_list_push_back(&group->wheel[(group->tick_now + ticks) % BOP__WS_WHEEL_SLOTS], &ws->link);
}

void bop__ws_wheel_wait(struct bop__ws *ws)
{
    if (!bop_list_empty(&ws->link)) {
        place(ws);
    }
}

void bop__ws_wheel_add(struct bop__ws *ws)
{
    struct bop__ws_group *group = ws->group;

    if (!bop_timer_is_running(&group->tick)) {
        group->tick_now = bop__ws_now(ws) / group->tick_ms;
        BOP_IGNORE(
            bop_timer_start(group->home->loop, &group->tick, group->tick_ms)); /* Always 0. */
    }
    bop_list_init(&ws->link);
    place(ws);
}

void bop__ws_wheel_remove(struct bop__ws *ws)
{
    bop_list_remove(&ws->link);
}

/* ---- What is due ---- */

static void check_open(struct bop__ws *ws)
{
    const struct bop_ws_options *options = &ws->group->options;

    if (bop__ws_sock(ws)->paused) {
        ws->active_ms = bop__ws_now(ws); /* Nothing can come: that is us. */
    }
    if (left_ms(options->idle_timeout_ms, passed_ms(ws, ws->active_ms)) == 0) {
        ws->group->counters->timeouts++;
        bop__ws_set_reason(ws, bop_slice_cstr("nothing came for too long"));
        bop__ws_cut(ws);
    } else if (left_ms(options->lifetime_ms, passed_ms(ws, ws->since_ms)) == 0) {
        bop__ws_begin_close(ws, BOP_WS_GOING_AWAY, bop_slice_cstr("end of its lifetime"));
    } else if (ping_left_ms(ws) == 0) {
        ws->pings++;
        ws->group->counters->pings_sent++;
        /* Without memory for a ping the idle timeout decides. */
        BOP_IGNORE(bop__ws_put(ws, BOP_WS_FIN | BOP_WS_PING, bop_slice(NULL, 0)));
    }
}

static void check(struct bop__ws *ws)
{
    if (wait_ms(ws) == 0) {
        switch ((enum bop__ws_state)ws->state) {
        case BOP__WS_OPENING:
            ws->group->counters->timeouts++;
            bop__ws_set_reason(ws, bop_slice_cstr("the server did not answer in time"));
            bop__ws_cut(ws);
            break;
        case BOP__WS_OPEN:
            check_open(ws);
            break;
        case BOP__WS_CLOSING:
            ws->group->counters->timeouts++;
            bop__ws_set_reason(ws, bop_slice_cstr("the peer did not close in time"));
            bop__ws_cut(ws);
            break;
        case BOP__WS_LEAVING:
            break;
        }
    }
    place(ws);
}

static void work_through(struct bop_list *slot)
{
    struct bop_list due, *link;

    bop__list_take(slot, &due); /* A check may put one back into the same slot. */
    while ((link = bop_list_pop_front(&due)) != NULL) {
        check(BOP_CONTAINER_OF(link, struct bop__ws, link));
    }
}

static void on_tick(struct bop_timer *timer)
{
    struct bop__ws_group *group = BOP_CONTAINER_OF(timer, struct bop__ws_group, tick);
    struct bop_loop *loop = group->home->loop;
    uint32_t due = (uint32_t)loop->now_ms / group->tick_ms;
    unsigned slots = 0;

    /* After a long pause each slot is worked through once. */
    while (group->tick_now != due && slots < BOP__WS_WHEEL_SLOTS) {
        group->tick_now++;
        slots++;
        work_through(&group->wheel[group->tick_now % BOP__WS_WHEEL_SLOTS]);
    }
    group->tick_now = due;
    if (loop->now_ms >= group->publish_ms || group->connections == 0) {
        group->publish_ms = loop->now_ms + BOP__EXPORT_INTERVAL_MS;
        bop__ws_group_publish(group);
    }
    if (group->connections > 0) {
        BOP_IGNORE(bop_timer_start(loop, timer, group->tick_ms)); /* Always 0. */
    }
}

void bop__ws_wheel_init(struct bop__ws_group *group)
{
    const struct bop_ws_options *options = &group->options;
    uint64_t shortest = bop_min_u64(
        bop_min_u64(options->idle_timeout_ms, options->lifetime_ms),
        bop_min_u64(options->ping_interval_ms, options->close_timeout_ms));

    group->tick_ms = (uint32_t)bop_max_u64(bop_min_u64(shortest / 8, 1000), 1);
    bop_timer_init(&group->tick, on_tick);
    for (unsigned i = 0; i < BOP__WS_WHEEL_SLOTS; i++) {
        bop_list_init(&group->wheel[i]);
    }
}
