/*
 * Writing: bytes are queued, and each connection that queued some sends once, at
 * the end of the turn. What the kernel does not take waits for EPOLLOUT, which
 * is watched only then.
 *
 * The queue is one buffer with a count of what is sent of it, so that a partial
 * send moves no bytes; they are moved once the sent part is the larger one, so
 * that each byte moves at most once on average.
 */
#include <sys/epoll.h>
#include <sys/socket.h>

#include "socket_internal.h"

/* Less than this at the front of a queue is not worth moving the rest for. */
#define COMPACT_BYTES_MIN (64u * 1024)

_Static_assert(EPOLLOUT == 4, "bop__socket_blocked() knows the bit");

size_t bop_socket_queued(const struct bop_socket *sock)
{
    return sock->state == BOP__SOCKET_CLOSED ? 0 : sock->out.size - sock->out_sent;
}

static bool accepts_output(const struct bop_socket *sock)
{
    return sock->state != BOP__SOCKET_CLOSED && !sock->leaving;
}

static void note_height(struct bop_socket *sock)
{
    if (bop_socket_queued(sock) > sock->limits.write_high) {
        sock->above_high = true;
    }
}

struct bop_buf *bop_socket_output(struct bop_socket *sock)
{
    if (!accepts_output(sock) || bop_socket_queued(sock) > sock->limits.write_buffer_max) {
        return NULL;
    }
    if (sock->out.data == NULL) {
        bop__loop_take_spare(sock->loop, &sock->out);
    }
    return &sock->out;
}

void bop_socket_flush_later(struct bop_socket *sock)
{
    if (sock->state == BOP__SOCKET_CLOSED) {
        return;
    }
    note_height(sock);
    /* A connecting one begins to send when open, a blocked one on EPOLLOUT. */
    if (sock->state == BOP__SOCKET_OPEN && !bop__socket_blocked(sock) &&
        bop_list_empty(&sock->queued)) {
        bop_list_push_back(&sock->loop->flush, &sock->queued);
    }
}

int bop_socket_write(struct bop_socket *sock, struct bop_slice bytes)
{
    size_t queued = bop_socket_queued(sock);
    int rc;

    if (!accepts_output(sock)) {
        return BOP_ECLOSED;
    }
    if (queued > sock->limits.write_buffer_max ||
        bytes.size > sock->limits.write_buffer_max - queued) {
        return BOP_EFULL;
    }
    if (bytes.size == 0) {
        return 0;
    }
    if (sock->out.data == NULL) {
        bop__loop_take_spare(sock->loop, &sock->out);
    }
    rc = bop_buf_append(&sock->out, bytes.data, bytes.size);
    if (rc != 0) {
        return rc;
    }
    bop_socket_flush_later(sock);
    return 0;
}

int bop__socket_send(struct bop_socket *sock)
{
    size_t unsent = sock->out.size - sock->out_sent;
    ssize_t sent;

    if (unsent == 0) {
        return 0;
    }
    sent = send(sock->source.fd, sock->out.data + sock->out_sent, unsent,
                MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    sock->out_sent += (size_t)sent;
    if (sock->out_sent == sock->out.size) {
        sock->out_sent = 0;
        bop__loop_leave_spare(sock->loop, &sock->out);
    } else if (sock->out_sent >= COMPACT_BYTES_MIN && sock->out_sent >= sock->out.size / 2) {
        bop_buf_consume(&sock->out, sock->out_sent);
        sock->out_sent = 0;
    }
    return 0;
}

/* All sent: tell the peer, and wait for its end. */
static void say_bye(struct bop_socket *sock)
{
    sock->said_bye = true;
    if (sock->at_end || shutdown(sock->source.fd, SHUT_WR) != 0) {
        bop__socket_begin_close(sock, BOP_ECANCELED);
    }
}

static void flush(struct bop_socket *sock)
{
    int rc;

    note_height(sock); /* bop_socket_output() lets the queue grow unseen. */
    rc = bop__socket_send(sock);
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
        return;
    }
    if (bop_socket_queued(sock) > 0) {
        bop__socket_watch(sock, sock->source.watched | EPOLLOUT);
    } else {
        bop__socket_watch(sock, sock->source.watched & ~(uint32_t)EPOLLOUT);
        if (sock->leaving && sock->state == BOP__SOCKET_OPEN && !sock->said_bye) {
            say_bye(sock);
        }
    }
    if (sock->above_high && sock->state == BOP__SOCKET_OPEN && !sock->leaving &&
        bop_socket_queued(sock) <= sock->limits.write_low) {
        sock->above_high = false;
        if (sock->events->on_pressure != NULL) {
            sock->events->on_pressure(sock, sock->user, false);
        }
    }
}

/* What on_pressure queues goes out in the next turn: one send a turn each. */
void bop__socket_flush_all(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->flush, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        flush(BOP_CONTAINER_OF(link, struct bop_socket, queued));
    }
}
