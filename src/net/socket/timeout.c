/*
 * Timeouts. A socket has one timer for all of them: it runs until the earliest
 * was due when it was started. What postpones a timeout only notes the time; the
 * timer finds out when it fires, and starts anew for what is due then.
 */
#include "socket_internal.h"

/* What 32 bits can tell apart: some 24 days. */
#define TIMEOUT_MS_MAX ((uint64_t)INT32_MAX)

#define NEVER UINT64_MAX

/* When opening, leaving or idleness is over; NEVER without a timeout. */
static uint64_t own_due_ms(const struct bop__socket *sock)
{
    uint64_t now_ms = bop__socket_loop(sock)->now_ms;
    /* A clock's low bits are all there is; what is timed began before now. */
    uint64_t passed_ms = (uint32_t)((uint32_t)now_ms - sock->active_ms);

    return sock->timeout_ms != 0 ? now_ms - passed_ms + sock->timeout_ms : NEVER;
}

static uint64_t earlier(uint64_t due_ms, uint64_t other_ms)
{
    return other_ms != 0 ? bop_min_u64(due_ms, other_ms) : due_ms;
}

static uint64_t next_due_ms(const struct bop__socket *sock)
{
    const struct bop__socket_more *more = sock->more;
    uint64_t due_ms = own_due_ms(sock);

    if (more != NULL && !sock->leaving) {
        due_ms = earlier(due_ms, more->lifetime_due_ms);
        due_ms = earlier(due_ms, more->pause_due_ms);
        due_ms = earlier(due_ms, sock->read_waits ? more->read_due_ms : 0);
    }
    return more != NULL && sock->write_waits ? earlier(due_ms, more->write_due_ms) : due_ms;
}

void bop__socket_arm(struct bop__socket *sock)
{
    struct bop_loop *loop = bop__socket_loop(sock);
    uint64_t due_ms = next_due_ms(sock);

    if (due_ms == NEVER || (bop_timer_is_running(&sock->timer) && sock->timer.due_ms <= due_ms)) {
        return; /* It fires early enough; too early does no harm. */
    }
    bop_timer_start(loop, &sock->timer, due_ms > loop->now_ms ? due_ms - loop->now_ms : 0);
}

void bop__socket_set_timeout(struct bop__socket *sock, uint64_t timeout_ms)
{
    sock->active_ms = (uint32_t)bop__socket_loop(sock)->now_ms;
    sock->timeout_ms = (uint32_t)bop_min_u64(timeout_ms, TIMEOUT_MS_MAX);
    bop__socket_arm(sock);
}

/* Idle for so long, or the end of its life: the user says what becomes of it. */
static void tell(struct bop__socket *sock, void (*callback)(struct bop_socket *socket, void *user))
{
    if (callback != NULL) {
        callback(bop__socket_handle(sock), sock->user);
    } else {
        bop__socket_begin_close(sock, -ETIMEDOUT);
    }
}

static void on_own_timeout(struct bop__socket *sock)
{
    if (sock->leaving) {
        bop__socket_begin_close(sock, sock->left_by_peer ? -ETIMEDOUT : BOP_ECANCELED);
    } else if (sock->opening) {
        bop__socket_begin_close(sock, -ETIMEDOUT);
    } else {
        sock->active_ms = (uint32_t)bop__socket_loop(sock)->now_ms;
        tell(sock, sock->events->on_idle);
    }
}

static bool is_due(uint64_t due_ms, uint64_t now_ms)
{
    return due_ms != 0 && due_ms <= now_ms;
}

static void on_other_timeouts(struct bop__socket *sock, uint64_t now_ms)
{
    struct bop__socket_more *more = sock->more;

    if (sock->write_waits && is_due(more->write_due_ms, now_ms)) {
        sock->write_waits = false;
        bop__socket_flush_later(sock);
    }
    if (sock->leaving) {
        return;
    }
    if (sock->read_waits && is_due(more->read_due_ms, now_ms)) {
        sock->read_waits = false;
        bop__socket_update_reading(sock);
    }
    if (is_due(more->pause_due_ms, now_ms)) {
        bop__socket_begin_close(sock, -ETIMEDOUT);
    }
    if (sock->state != BOP__SOCKET_CLOSED && is_due(more->lifetime_due_ms, now_ms)) {
        more->lifetime_due_ms = 0;
        tell(sock, sock->events->on_lifetime);
    }
}

void bop__socket_on_timer(struct bop_timer *timer)
{
    struct bop__socket *sock = BOP_CONTAINER_OF(timer, struct bop__socket, timer);
    uint64_t now_ms = bop__socket_loop(sock)->now_ms;

    if (own_due_ms(sock) <= now_ms) {
        on_own_timeout(sock);
    }
    if (sock->state != BOP__SOCKET_CLOSED && sock->more != NULL) {
        on_other_timeouts(sock, now_ms);
    }
    if (sock->state != BOP__SOCKET_CLOSED) {
        bop__socket_arm(sock);
    }
}

/* ---- For users ---- */

void bop_socket_set_idle_timeout(struct bop_socket *socket, uint64_t timeout_ms)
{
    struct bop__socket *sock = bop__socket_of(socket);

    if (sock == NULL || sock->state == BOP__SOCKET_CLOSED || sock->leaving) {
        return;
    }
    if (sock->opening) {
        sock->more->idle_ms = timeout_ms; /* One that is opening has it. */
    } else {
        bop__socket_set_timeout(sock, timeout_ms);
    }
}

void bop_socket_set_lifetime(struct bop_socket *socket, uint64_t lifetime_ms)
{
    struct bop__socket *sock = bop__socket_of(socket);
    struct bop__socket_more *more;

    if (sock == NULL || sock->state == BOP__SOCKET_CLOSED || sock->leaving) {
        return;
    }
    more = bop__socket_more(sock);
    if (more == NULL) {
        bop__socket_begin_close(sock, BOP_ENOMEM); /* Without a bound it might stay for ever. */
        return;
    }
    more->lifetime_due_ms = lifetime_ms != 0 ? bop__socket_loop(sock)->now_ms + lifetime_ms : 0;
    bop__socket_arm(sock);
}
