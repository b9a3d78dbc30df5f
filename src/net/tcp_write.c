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

#include "tcp_internal.h"

/* Less than this at the front of a queue is not worth moving the rest for. */
#define COMPACT_BYTES_MIN (64u * 1024)

_Static_assert(EPOLLOUT == 4, "bop__tcp_blocked() knows the bit");

size_t bop_tcp_queued(const struct bop_tcp *tcp)
{
    return tcp->state == BOP__TCP_CLOSED ? 0 : tcp->out.size - tcp->out_sent;
}

static bool accepts_output(const struct bop_tcp *tcp)
{
    return tcp->state != BOP__TCP_CLOSED && !tcp->leaving;
}

static void note_height(struct bop_tcp *tcp)
{
    if (bop_tcp_queued(tcp) > tcp->limits.write_high) {
        tcp->above_high = true;
    }
}

struct bop_buf *bop_tcp_output(struct bop_tcp *tcp)
{
    if (!accepts_output(tcp) || bop_tcp_queued(tcp) > tcp->limits.write_buffer_max) {
        return NULL;
    }
    if (tcp->out.data == NULL) {
        bop__loop_take_spare(tcp->loop, &tcp->out);
    }
    return &tcp->out;
}

void bop_tcp_flush_later(struct bop_tcp *tcp)
{
    if (tcp->state == BOP__TCP_CLOSED) {
        return;
    }
    note_height(tcp);
    /* A connecting one begins to send when open, a blocked one on EPOLLOUT. */
    if (tcp->state == BOP__TCP_OPEN && !bop__tcp_blocked(tcp) && bop_list_empty(&tcp->queued)) {
        bop_list_push_back(&tcp->loop->flush, &tcp->queued);
    }
}

int bop_tcp_write(struct bop_tcp *tcp, struct bop_slice bytes)
{
    size_t queued = bop_tcp_queued(tcp);
    int rc;

    if (!accepts_output(tcp)) {
        return BOP_ECLOSED;
    }
    if (queued > tcp->limits.write_buffer_max ||
        bytes.size > tcp->limits.write_buffer_max - queued) {
        return BOP_EFULL;
    }
    if (bytes.size == 0) {
        return 0;
    }
    if (tcp->out.data == NULL) {
        bop__loop_take_spare(tcp->loop, &tcp->out);
    }
    rc = bop_buf_append(&tcp->out, bytes.data, bytes.size);
    if (rc != 0) {
        return rc;
    }
    bop_tcp_flush_later(tcp);
    return 0;
}

int bop__tcp_send(struct bop_tcp *tcp)
{
    size_t unsent = tcp->out.size - tcp->out_sent;
    ssize_t sent;

    if (unsent == 0) {
        return 0;
    }
    sent = send(tcp->source.fd, tcp->out.data + tcp->out_sent, unsent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    tcp->out_sent += (size_t)sent;
    if (tcp->out_sent == tcp->out.size) {
        tcp->out_sent = 0;
        bop__loop_leave_spare(tcp->loop, &tcp->out);
    } else if (tcp->out_sent >= COMPACT_BYTES_MIN && tcp->out_sent >= tcp->out.size / 2) {
        bop_buf_consume(&tcp->out, tcp->out_sent);
        tcp->out_sent = 0;
    }
    return 0;
}

/* All sent: tell the peer, and wait for its end. */
static void say_bye(struct bop_tcp *tcp)
{
    tcp->said_bye = true;
    if (tcp->at_end || shutdown(tcp->source.fd, SHUT_WR) != 0) {
        bop__tcp_begin_close(tcp, BOP_ECANCELED);
    }
}

static void flush(struct bop_tcp *tcp)
{
    int rc;

    note_height(tcp); /* bop_tcp_output() lets the queue grow unseen. */
    rc = bop__tcp_send(tcp);
    if (rc != 0) {
        bop__tcp_begin_close(tcp, rc);
        return;
    }
    if (bop_tcp_queued(tcp) > 0) {
        bop__tcp_watch(tcp, tcp->source.watched | EPOLLOUT);
    } else {
        bop__tcp_watch(tcp, tcp->source.watched & ~(uint32_t)EPOLLOUT);
        if (tcp->leaving && tcp->state == BOP__TCP_OPEN && !tcp->said_bye) {
            say_bye(tcp);
        }
    }
    if (tcp->above_high && tcp->state == BOP__TCP_OPEN && !tcp->leaving &&
        bop_tcp_queued(tcp) <= tcp->limits.write_low) {
        tcp->above_high = false;
        if (tcp->events->on_drain != NULL) {
            tcp->events->on_drain(tcp, tcp->user);
        }
    }
}

/* What on_drain queues goes out in the next turn: one send a turn each. */
void bop__tcp_flush_all(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->flush, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        flush(BOP_CONTAINER_OF(link, struct bop_tcp, queued));
    }
}
