/*
 * Reading: one recv a readiness event, into the loop's buffer, lent to on_data;
 * only what it leaves is copied to the connection.
 *
 * A small rest is put in front of what the next recv brings, so that a stream
 * of messages whose reads end within a message costs a copy of that piece, not
 * of the whole read. A larger one, a big message on its way, is appended to.
 */
#include <sys/epoll.h>
#include <sys/socket.h>

#include "tcp_internal.h"

/* A rest up to this size is put in front of the next read. */
#define FRONT_BYTES_MAX (16u * 1024)

/* Hand the bytes over. Returns what was consumed. */
static size_t deliver(struct bop_tcp *tcp, struct bop_slice bytes)
{
    size_t consumed;

    bop_list_remove(&tcp->pending);
    consumed = tcp->events->on_data(tcp, tcp->user, bytes);
    BOP_ASSERT(consumed <= bytes.size);
    return consumed;
}

/* Drop the first bytes of what is kept, and the memory with the last. */
static void drop_kept(struct bop_tcp *tcp, size_t count)
{
    if (count == tcp->in.size) {
        bop_buf_deinit(&tcp->in);
    } else {
        bop_buf_consume(&tcp->in, count);
    }
}

static void deliver_kept(struct bop_tcp *tcp)
{
    size_t consumed = deliver(tcp, bop_buf_slice(&tcp->in));

    if (tcp->state == BOP__TCP_CLOSED || tcp->leaving) {
        return; /* No on_data will follow. */
    }
    drop_kept(tcp, consumed);
    if (tcp->in.size > tcp->limits.read_buffer_max) {
        bop__tcp_begin_close(tcp, BOP_EFULL);
    }
}

/* The receive buffer holds `front` bytes copied from what is kept, and new ones. */
static void deliver_received(struct bop_tcp *tcp, size_t front, size_t size)
{
    const uint8_t *bytes = tcp->loop->receive;
    size_t consumed = deliver(tcp, bop_slice(bytes, size));
    int rc;

    if (tcp->state == BOP__TCP_CLOSED || tcp->leaving) {
        return; /* No on_data will follow. */
    }
    if (size - consumed > tcp->limits.read_buffer_max) {
        bop__tcp_begin_close(tcp, BOP_EFULL);
        return;
    }
    if (front > 0) {
        drop_kept(tcp, bop_min_u64(consumed, front));
    }
    consumed = bop_max_u64(consumed, front);
    if (consumed < size) {
        rc = bop_buf_append(&tcp->in, bytes + consumed, size - consumed);
        if (rc != 0) {
            bop__tcp_begin_close(tcp, rc);
        }
    }
}

static void read_and_deliver(struct bop_tcp *tcp)
{
    uint8_t *buffer = tcp->loop->receive;
    size_t front = tcp->in.size <= FRONT_BYTES_MAX ? tcp->in.size : 0;
    ssize_t got = recv(tcp->source.fd, buffer + front, BOP__RECEIVE_BYTES - front, MSG_DONTWAIT);
    int rc;

    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            bop__tcp_begin_close(tcp, -errno);
        }
        return;
    }
    if (got == 0) {
        /* What this turn has queued would go out at its end: do that now. */
        if (!bop__tcp_blocked(tcp)) {
            BOP_IGNORE(bop__tcp_send(tcp)); /* The connection ends here either way. */
        }
        bop__tcp_begin_close(tcp, 0);
        return;
    }
    if (tcp->in.size > FRONT_BYTES_MAX) {
        rc = bop_buf_append(&tcp->in, buffer, (size_t)got);
        if (rc != 0) {
            bop__tcp_begin_close(tcp, rc);
            return;
        }
        deliver_kept(tcp);
        return;
    }
    if (front > 0) {
        memcpy(buffer, tcp->in.data, front);
    }
    deliver_received(tcp, front, front + (size_t)got);
}

/* A leaving connection reads only to learn of the peer's end. */
static void read_and_drop(struct bop_tcp *tcp)
{
    ssize_t got;

    if (tcp->at_end) {
        /* Only an error or a hang-up is reported any more: nothing can be sent. */
        int error = bop__socket_error(tcp->source.fd);

        bop__tcp_begin_close(tcp, error != 0 ? error : BOP_ECANCELED);
        return;
    }
    got = recv(tcp->source.fd, tcp->loop->receive, BOP__RECEIVE_BYTES, MSG_DONTWAIT);
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            bop__tcp_begin_close(tcp, -errno);
        }
    } else if (got == 0) {
        tcp->at_end = true;
        if (tcp->said_bye) {
            bop__tcp_begin_close(tcp, BOP_ECANCELED);
            return;
        }
        bop__tcp_watch(tcp, tcp->source.watched & ~(uint32_t)EPOLLIN);
    }
}

void bop__tcp_on_events(struct bop__source *source, uint32_t events)
{
    struct bop_tcp *tcp = BOP_CONTAINER_OF(source, struct bop_tcp, source);

    if ((events & EPOLLOUT) && bop_list_empty(&tcp->queued)) {
        bop_list_push_back(&tcp->loop->flush, &tcp->queued);
    }
    if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP))) {
        return;
    }
    if (tcp->leaving) {
        read_and_drop(tcp);
    } else if (!tcp->paused) {
        read_and_deliver(tcp);
    } else if (events & (EPOLLERR | EPOLLHUP)) {
        int error = bop__socket_error(source->fd);

        bop__tcp_begin_close(tcp, error != 0 ? error : -ECONNRESET);
    } else {
        /* Only now that bytes came: to pause and resume in one turn costs no call. */
        bop__tcp_watch(tcp, source->watched & ~(uint32_t)EPOLLIN);
    }
}

void bop__tcp_redeliver_all(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->redeliver, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        struct bop_tcp *tcp = BOP_CONTAINER_OF(link, struct bop_tcp, pending);

        if (!tcp->paused && tcp->in.size > 0) {
            deliver_kept(tcp);
        }
    }
}

void bop_tcp_pause(struct bop_tcp *tcp)
{
    if (tcp->state != BOP__TCP_CLOSED && !tcp->leaving) {
        tcp->paused = true;
        bop_list_remove(&tcp->pending);
    }
}

void bop_tcp_resume(struct bop_tcp *tcp)
{
    if (tcp->state == BOP__TCP_CLOSED || !tcp->paused) {
        return;
    }
    tcp->paused = false;
    /* Whether bytes are kept may be known only when a running on_data returns. */
    bop_list_push_back(&tcp->loop->redeliver, &tcp->pending);
    if (tcp->state == BOP__TCP_OPEN) {
        bop__tcp_watch(tcp, tcp->source.watched | EPOLLIN);
    }
}
