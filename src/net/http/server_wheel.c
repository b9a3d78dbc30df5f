/*
 * Timeouts: a wheel of coarse slots that costs a request nothing.
 *
 * A request that is read whole and answered at once only writes down when it
 * came. The wheel looks at a connection when a deadline it had may have passed,
 * finds the one it has now, and puts it where that one falls: so a busy
 * connection is looked at once in a timeout, not moved with each request. Only
 * a wait whose deadline is nearer than the next look moves it at once.
 *
 * Exactness: a tick, an eighth of the shortest timeout and at most a second. A
 * peer that does not take its answer is found in one and a half times of
 * write_timeout_ms.
 */
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "server_internal.h"

#define NEVER UINT32_MAX

/* Over so long the rate of a body is measured. */
#define RATE_WINDOW_MS 10000u

/* Times are of 32 bits and wrap: what is compared lies within half of that. */
static bool passed(uint32_t deadline_ms, uint32_t now_ms)
{
    return (int32_t)(now_ms - deadline_ms) >= 0;
}

static uint32_t at_most(uint64_t ms)
{
    return (uint32_t)bop_min_u64(ms, 1u << 30);
}

/* Put it where the wheel comes by at the first tick at or after check_ms. */
static void place(struct bop__http_conn *conn, uint32_t delay_ms)
{
    struct bop_http_server *server = conn->server;
    uint32_t now = bop__http_now(server);
    uint32_t ticks = (uint32_t)bop_min_u64(delay_ms / server->tick_ms + 1,
                                           BOP__HTTP_WHEEL_SLOTS - 1);

    conn->check_ms = now + delay_ms;
    bop_list_remove(&conn->link);
    bop_list_push_back(&server->wheel[(server->tick_now + ticks) % BOP__HTTP_WHEEL_SLOTS],
                       &conn->link);
}

void bop__http_wheel_add(struct bop__http_conn *conn)
{
    struct bop_http_server *server = conn->server;

    if (!bop_timer_is_running(&server->tick)) {
        server->tick_now = bop__http_now(server) / server->tick_ms;
        bop_timer_start(server->loop, &server->tick, server->tick_ms);
    }
    bop_list_init(&conn->link);
    bop__http_wheel_wait(conn);
}

void bop__http_wheel_remove(struct bop__http_conn *conn)
{
    bop_list_remove(&conn->link);
}

/* How long the present wait may take. */
static uint32_t patience(const struct bop__http_conn *conn)
{
    const struct bop_http_server_options *options = &conn->server->options;

    switch ((enum bop__http_phase)conn->phase) {
    case BOP__HTTP_PROXY:
    case BOP__HTTP_HEAD:
        return at_most(options->head_timeout_ms);
    case BOP__HTTP_IDLE:
        return at_most(options->idle_timeout_ms);
    case BOP__HTTP_BODY:
        return conn->paused ? NEVER : at_most(options->body_timeout_ms);
    case BOP__HTTP_DRAIN:
        return at_most(options->body_timeout_ms);
    case BOP__HTTP_ANSWER:
    case BOP__HTTP_LEAVING:
    case BOP__HTTP_GONE:
        break;
    }
    return NEVER;
}

void bop__http_wheel_wait(struct bop__http_conn *conn)
{
    uint32_t now = bop__http_now(conn->server);
    uint32_t wait = patience(conn);
    uint32_t look = at_most(conn->server->options.write_timeout_ms) / 2;

    conn->since_ms = now;
    wait = wait < look ? wait : look;
    if (bop_list_empty(&conn->link) || !passed(conn->check_ms, now + wait)) {
        place(conn, wait);
    }
}

/* Has the peer taken nothing of what is queued for too long? The kernel's own queue may hold
 * megabytes, for which a slow peer needs minutes: so what counts is what it has acknowledged. */
static bool is_stuck(struct bop__http_conn *conn, uint32_t now)
{
    const struct bop__socket *sock = bop__http_sock(conn);
    uint32_t queued = (uint32_t)bop__socket_queued(sock);
    uint32_t taken = conn->out_total - queued;
    int unacknowledged = 0;

    if (queued > 0 && ioctl(sock->source.fd, SIOCOUTQ, &unacknowledged) == 0) {
        taken -= (uint32_t)unacknowledged;
    }
    if (queued == 0 || taken != conn->taken_total) {
        conn->taken_total = taken;
        conn->taken_ms = now;
        return false;
    }
    return passed(conn->taken_ms + at_most(conn->server->options.write_timeout_ms), now);
}

/* Does its body come, but too slowly? */
static bool is_slow(struct bop__http_conn *conn, uint32_t now)
{
    struct bop__exchange *ex = conn->exchange;
    uint64_t rate = conn->server->options.body_bytes_per_s_min;
    uint64_t came;

    if (conn->phase != BOP__HTTP_BODY || rate == UINT64_MAX) {
        return false;
    }
    if (conn->paused) {
        ex->rate_ms = now; /* It waits for us. */
        ex->rate_received = ex->body_received;
        return false;
    }
    if (!passed(ex->rate_ms + RATE_WINDOW_MS, now)) {
        return false;
    }
    came = ex->body_received - ex->rate_received;
    if (came * 1000 < rate * (now - ex->rate_ms)) {
        return true;
    }
    ex->rate_ms = now;
    ex->rate_received = ex->body_received;
    return false;
}

static void time_out(struct bop__http_conn *conn)
{
    conn->server->counters.timeouts++;
    switch ((enum bop__http_phase)conn->phase) {
    case BOP__HTTP_HEAD:
        bop__http_conn_refuse(conn, 408, "the request's head took too long");
        break;
    case BOP__HTTP_BODY:
        bop__http_conn_refuse(conn, 408, "the request's body came too slowly");
        break;
    case BOP__HTTP_IDLE:
        conn->server->counters.timeouts--; /* What connections are kept for is no failure. */
        bop__http_conn_leave(conn);
        break;
    default:
        bop__http_conn_kill(conn);
    }
    if (conn->phase != BOP__HTTP_GONE && bop_list_empty(&conn->link)) {
        place(conn, at_most(conn->server->options.write_timeout_ms) / 2);
    }
}

/* Its time to be looked at has come. */
static void check(struct bop__http_conn *conn, uint32_t now)
{
    uint32_t wait = patience(conn);
    uint32_t look = at_most(conn->server->options.write_timeout_ms) / 2;

    if (conn->server->stopping && conn->phase <= BOP__HTTP_IDLE) {
        bop__http_conn_leave(conn); /* It was being looked at when the stop came. */
    }
    if (is_stuck(conn, now)) {
        conn->server->counters.timeouts++;
        bop__http_conn_kill(conn);
        return;
    }
    if (is_slow(conn, now) || (wait != NEVER && passed(conn->since_ms + wait, now))) {
        time_out(conn);
        return;
    }
    if (wait != NEVER) {
        wait = conn->since_ms + wait - now;
    }
    place(conn, wait < look ? wait : look);
}

static void work_through(struct bop_list *slot, uint32_t now)
{
    struct bop_list due;
    struct bop_list *link;

    /* Moved first: a check may put one back into the same slot. */
    bop_list_init(&due);
    while ((link = bop_list_pop_front(slot)) != NULL) {
        bop_list_push_back(&due, link);
    }
    while ((link = bop_list_pop_front(&due)) != NULL) {
        struct bop__http_conn *conn = BOP_CONTAINER_OF(link, struct bop__http_conn, link);

        if (conn->server->destroyed) {
            bop__http_conn_kill(conn); /* By a callback of one before it. */
        } else if (passed(conn->check_ms, now)) {
            check(conn, now);
        } else {
            place(conn, conn->check_ms - now); /* The wheel was behind when it was put here. */
        }
    }
}

void bop__http_wheel_turn(struct bop_timer *timer)
{
    struct bop_http_server *server = BOP_CONTAINER_OF(timer, struct bop_http_server, tick);
    uint32_t now = bop__http_now(server);
    uint32_t due = now / server->tick_ms;
    unsigned slots = 0;

    server->references++; /* A check may close the last connection. */
    /* After a long pause each slot is worked through once. */
    while (server->tick_now != due && slots < BOP__HTTP_WHEEL_SLOTS) {
        server->tick_now++;
        slots++;
        work_through(&server->wheel[server->tick_now % BOP__HTTP_WHEEL_SLOTS], now);
    }
    server->tick_now = due;
    if (server->loop->now_ms >= server->publish_ms || server->counters.connections_now == 0) {
        server->publish_ms = server->loop->now_ms + BOP__EXPORT_INTERVAL_MS;
        bop__http_metrics_publish(server);
    }
    if (server->counters.connections_now > 0) {
        bop_timer_start(server->loop, timer, server->tick_ms);
    }
    bop__http_server_unref(server);
}
