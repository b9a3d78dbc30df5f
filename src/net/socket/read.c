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

#include "socket_internal.h"

/* A rest up to this size is put in front of the next read. */
#define FRONT_BYTES_MAX (16u * 1024)

/* Hand the bytes over. Returns what was consumed. */
static size_t deliver(struct bop_socket *sock, struct bop_slice bytes)
{
    size_t consumed;

    bop_list_remove(&sock->pending);
    consumed = sock->events->on_data(sock, sock->user, bytes);
    BOP_ASSERT(consumed <= bytes.size);
    return consumed;
}

/* Drop the first bytes of what is kept, and the memory with the last. */
static void drop_kept(struct bop_socket *sock, size_t count)
{
    if (count == sock->in.size) {
        bop_buf_deinit(&sock->in);
    } else {
        bop_buf_consume(&sock->in, count);
    }
}

static void deliver_kept(struct bop_socket *sock)
{
    size_t consumed = deliver(sock, bop_buf_slice(&sock->in));

    if (sock->state == BOP__SOCKET_CLOSED || sock->leaving) {
        return; /* No on_data will follow. */
    }
    drop_kept(sock, consumed);
    if (sock->in.size > sock->limits.read_buffer_max) {
        bop__socket_begin_close(sock, BOP_EFULL);
    }
}

/* The receive buffer holds `front` bytes copied from what is kept, and new ones. */
static void deliver_received(struct bop_socket *sock, size_t front, size_t size)
{
    const uint8_t *bytes = sock->loop->receive;
    size_t consumed = deliver(sock, bop_slice(bytes, size));
    int rc;

    if (sock->state == BOP__SOCKET_CLOSED || sock->leaving) {
        return; /* No on_data will follow. */
    }
    if (size - consumed > sock->limits.read_buffer_max) {
        bop__socket_begin_close(sock, BOP_EFULL);
        return;
    }
    if (front > 0) {
        drop_kept(sock, bop_min_u64(consumed, front));
    }
    consumed = bop_max_u64(consumed, front);
    if (consumed < size) {
        rc = bop_buf_append(&sock->in, bytes + consumed, size - consumed);
        if (rc != 0) {
            bop__socket_begin_close(sock, rc);
        }
    }
}

static void read_and_deliver(struct bop_socket *sock)
{
    uint8_t *buffer = sock->loop->receive;
    size_t front = sock->in.size <= FRONT_BYTES_MAX ? sock->in.size : 0;
    ssize_t got = recv(sock->source.fd, buffer + front, BOP__RECEIVE_BYTES - front, MSG_DONTWAIT);
    int rc;

    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            bop__socket_begin_close(sock, -errno);
        }
        return;
    }
    if (got == 0) {
        /* What this turn has queued would go out at its end: do that now. */
        if (!bop__socket_blocked(sock)) {
            BOP_IGNORE(bop__socket_send(sock)); /* The connection ends here either way. */
        }
        bop__socket_begin_close(sock, 0);
        return;
    }
    if (sock->in.size > FRONT_BYTES_MAX) {
        rc = bop_buf_append(&sock->in, buffer, (size_t)got);
        if (rc != 0) {
            bop__socket_begin_close(sock, rc);
            return;
        }
        deliver_kept(sock);
        return;
    }
    if (front > 0) {
        memcpy(buffer, sock->in.data, front);
    }
    deliver_received(sock, front, front + (size_t)got);
}

/* A leaving connection reads only to learn of the peer's end. */
static void read_and_drop(struct bop_socket *sock)
{
    ssize_t got;

    if (sock->at_end) {
        /* Only an error or a hang-up is reported any more: nothing can be sent. */
        int error = bop__socket_error(sock->source.fd);

        bop__socket_begin_close(sock, error != 0 ? error : BOP_ECANCELED);
        return;
    }
    got = recv(sock->source.fd, sock->loop->receive, BOP__RECEIVE_BYTES, MSG_DONTWAIT);
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            bop__socket_begin_close(sock, -errno);
        }
    } else if (got == 0) {
        sock->at_end = true;
        if (sock->said_bye) {
            bop__socket_begin_close(sock, BOP_ECANCELED);
            return;
        }
        bop__socket_watch(sock, sock->source.watched & ~(uint32_t)EPOLLIN);
    }
}

void bop__socket_on_events(struct bop__source *source, uint32_t events)
{
    struct bop_socket *sock = BOP_CONTAINER_OF(source, struct bop_socket, source);

    if ((events & EPOLLOUT) && bop_list_empty(&sock->queued)) {
        bop_list_push_back(&sock->loop->flush, &sock->queued);
    }
    if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP))) {
        return;
    }
    if (sock->leaving) {
        read_and_drop(sock);
    } else if (!sock->paused) {
        read_and_deliver(sock);
    } else if (events & (EPOLLERR | EPOLLHUP)) {
        int error = bop__socket_error(source->fd);

        bop__socket_begin_close(sock, error != 0 ? error : -ECONNRESET);
    } else {
        /* Only now that bytes came: to pause and resume in one turn costs no call. */
        bop__socket_watch(sock, source->watched & ~(uint32_t)EPOLLIN);
    }
}

void bop__socket_redeliver_all(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->redeliver, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        struct bop_socket *sock = BOP_CONTAINER_OF(link, struct bop_socket, pending);

        if (!sock->paused && sock->in.size > 0) {
            deliver_kept(sock);
        }
    }
}

void bop_socket_pause(struct bop_socket *sock)
{
    if (sock->state != BOP__SOCKET_CLOSED && !sock->leaving) {
        sock->paused = true;
        bop_list_remove(&sock->pending);
    }
}

void bop_socket_resume(struct bop_socket *sock)
{
    if (sock->state == BOP__SOCKET_CLOSED || !sock->paused) {
        return;
    }
    sock->paused = false;
    /* Whether bytes are kept may be known only when a running on_data returns. */
    bop_list_push_back(&sock->loop->redeliver, &sock->pending);
    if (sock->state == BOP__SOCKET_OPEN) {
        bop__socket_watch(sock, sock->source.watched | EPOLLIN);
    }
}
