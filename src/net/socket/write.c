/*
 * Writing: bytes are queued, and sent once, when the socket's own on_data
 * returns or at the end of the turn (send.c). What the kernel does not take
 * waits for EPOLLOUT, which is watched only then.
 */
#include <sys/epoll.h>
#include <unistd.h>

#include "../tls/tls_internal.h"
#include "socket_internal.h"

/* Fewer bytes are copied: a reference costs about as much as they do. */
#define SHARED_BYTES_MIN 512

_Static_assert(EPOLLOUT == 4, "bop__socket_blocked() knows the bit");

/* Room was wanted for a write that is to be dropped: no error to its caller. */
#define DROPPED 1

/* ---- The queue ---- */

struct bop__queue *bop__socket_queue(struct bop__socket *sock)
{
    struct bop_loop *loop = bop__socket_loop(sock);
    struct bop__sockets *sockets = loop->sockets;

    bop__loop_check_thread(loop);
    if (sock->queue != NULL) {
        return sock->queue;
    }
    if (sockets->spare_count > 0) {
        sock->queue = sockets->spares[--sockets->spare_count];
    } else {
        sock->queue = (struct bop__queue *)bop_alloc(loop->allocator, sizeof(*sock->queue));
        if (sock->queue == NULL) {
            return NULL;
        }
        bop__queue_init(sock->queue, loop->allocator);
    }
    sock->queue->boundaries = sock->context->limits.when_full == BOP_SOCKET_DROP_OLDEST;
    return sock->queue;
}

void bop__socket_leave_queue(struct bop__socket *sock)
{
    struct bop_loop *loop = bop__socket_loop(sock);
    struct bop__sockets *sockets = loop->sockets;
    struct bop__queue *queue = sock->queue;

    if (queue == NULL || bop__queue_size(queue) > 0) {
        return;
    }
    sock->queue = NULL;
    if (!bop__queue_is_plain(queue)) {
        bop__queue_clear(queue);
    }
    if (queue->bytes.capacity <= BOP__SPARE_QUEUE_BYTES_MAX &&
        sockets->spare_count < BOP__SPARE_QUEUES_MAX) {
        sockets->spares[sockets->spare_count++] = queue;
    } else {
        bop__queue_deinit(queue);
        bop_free(loop->allocator, queue, sizeof(*queue));
    }
}

size_t bop__socket_queued(const struct bop__socket *sock)
{
    size_t queued = sock->queue != NULL ? (size_t)bop__queue_size(sock->queue) : 0;

    return sock->has_tls ? queued + bop__tls_unsent(sock) : queued;
}

/* ---- Room ---- */

static bool accepts_output(const struct bop__socket *sock)
{
    return sock->state != BOP__SOCKET_CLOSED && !sock->leaving && !sock->shutting;
}

static int drop_oldest(struct bop__socket *sock, size_t size, size_t excess)
{
    const struct bop_socket_limits *limits = &sock->context->limits;
    size_t dropped = 0;

    if (size <= limits->write_buffer_max && sock->queue != NULL && sock->queue->boundaries) {
        dropped = bop__queue_drop(sock->queue, excess);
        if (sock->counts) {
            sock->more->counters.dropped += dropped;
        }
    }
    return bop__socket_queued(sock) + size <= limits->write_buffer_max ? 0 : BOP_EFULL;
}

/* Is there room for so much more? 0, DROPPED, or the code to return. */
static int make_room(struct bop__socket *sock, size_t size)
{
    const struct bop_socket_limits *limits = &sock->context->limits;
    size_t queued;

    if (!accepts_output(sock)) {
        return BOP_ECLOSED;
    }
    queued = bop__socket_queued(sock);
    if (BOP_LIKELY(queued <= limits->write_buffer_max &&
                   size <= limits->write_buffer_max - queued)) {
        return 0;
    }
    switch (limits->when_full) {
    case BOP_SOCKET_DROP_OLDEST:
        return drop_oldest(sock, size, queued + size - limits->write_buffer_max);
    case BOP_SOCKET_DROP_NEWEST:
        if (sock->counts) {
            sock->more->counters.dropped++;
        }
        return DROPPED;
    case BOP_SOCKET_CLOSE:
        bop__socket_begin_close(sock, BOP_EFULL);
        return BOP_EFULL;
    case BOP_SOCKET_REFUSE:
    case BOP_SOCKET_PAUSE:
        break;
    }
    return BOP_EFULL;
}

/* Something was queued by a write of its own. */
static int queued_one(struct bop__socket *sock)
{
    if (sock->counts) {
        sock->more->counters.writes++;
    }
    bop__socket_flush_later(sock);
    return 0;
}

/* ---- Writes ---- */

int bop__socket_write(struct bop__socket *sock, struct bop_slice bytes)
{
    struct bop__queue *queue;
    int rc = make_room(sock, bytes.size);

    if (rc != 0 || bytes.size == 0) {
        return rc == DROPPED ? 0 : rc;
    }
    queue = bop__socket_queue(sock);
    rc = queue != NULL ? bop_buf_append(&queue->bytes, bytes.data, bytes.size) : BOP_ENOMEM;
    return rc != 0 ? rc : queued_one(sock);
}

int bop__socket_write_parts(struct bop__socket *sock, const struct bop_slice *parts, size_t count)
{
    struct bop__queue *queue;
    size_t size = 0;
    int rc;

    for (size_t i = 0; i < count; i++) {
        size += parts[i].size;
    }
    rc = make_room(sock, size);
    if (rc != 0 || size == 0) {
        return rc == DROPPED ? 0 : rc;
    }
    queue = bop__socket_queue(sock);
    rc = queue != NULL ? bop_buf_reserve(&queue->bytes, size) : BOP_ENOMEM;
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        if (parts[i].size > 0) {
            memcpy(queue->bytes.data + queue->bytes.size, parts[i].data, parts[i].size);
            queue->bytes.size += parts[i].size;
        }
    }
    return queued_one(sock);
}

int bop__socket_write_shared(struct bop__socket *sock, struct bop_shared *shared, size_t offset,
                             size_t size)
{
    struct bop__queue *queue;
    int rc;

    if (offset > shared->size || size > shared->size - offset) {
        return BOP_EINVAL;
    }
    if (size < SHARED_BYTES_MIN) {
        return bop__socket_write(sock, bop_slice(shared->data + offset, size));
    }
    rc = make_room(sock, size);
    if (rc != 0) {
        return rc == DROPPED ? 0 : rc;
    }
    queue = bop__socket_queue(sock);
    rc = queue != NULL ? bop__queue_add_shared(queue, shared, offset, size) : BOP_ENOMEM;
    return rc != 0 ? rc : queued_one(sock);
}

int bop__socket_write_file(struct bop__socket *sock, int fd, uint64_t offset, uint64_t size)
{
    struct bop__queue *queue = NULL;
    int rc = 0;

    /* A file takes no memory while it waits: it counts to the queue, but is not
     * held to its bound. */
    if (!accepts_output(sock)) {
        rc = BOP_ECLOSED;
    } else if (offset > INT64_MAX || size > INT64_MAX - offset) {
        rc = BOP_EINVAL;
    } else if (size > 0) {
        queue = bop__socket_queue(sock);
        rc = queue != NULL ? bop__queue_add_file(queue, fd, offset, size) : BOP_ENOMEM;
    }
    if (rc != 0 || size == 0) {
        BOP_IGNORE(close(fd)); /* It was not read. */
        return rc;
    }
    return queued_one(sock);
}

struct bop_buf *bop__socket_output(struct bop__socket *sock)
{
    struct bop__queue *queue;

    if (!accepts_output(sock) ||
        bop__socket_queued(sock) > sock->context->limits.write_buffer_max) {
        return NULL;
    }
    queue = bop__socket_queue(sock);
    return queue != NULL ? &queue->bytes : NULL;
}

void bop__socket_mark(struct bop__socket *sock)
{
    if (sock->queue != NULL && sock->queue->boundaries && bop__queue_mark(sock->queue) != 0) {
        sock->queue->boundaries = false; /* Without memory nothing can be dropped any more. */
    }
}

void bop__socket_flush_later(struct bop__socket *sock)
{
    if (sock->state == BOP__SOCKET_CLOSED) {
        return;
    }
    bop__socket_mark(sock);
    bop__socket_note_height(sock);
    /* A connecting one begins to send when open, a blocked one on EPOLLOUT; but of
     * pressure it is told from the flush. */
    if (sock->wants_flush || sock->state != BOP__SOCKET_OPEN ||
        (bop__socket_blocked(sock) && !sock->rose)) {
        return;
    }
    sock->wants_flush = true;
    if (!sock->in_input && bop_list_empty(&sock->work)) {
        bop_list_push_back(&bop__socket_loop(sock)->flush, &sock->work);
    }
}

/* ---- For users ---- */

int bop_socket_write(struct bop_socket *socket, struct bop_slice bytes)
{
    struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL ? bop__socket_write(sock, bytes) : BOP_ECLOSED;
}

int bop_socket_write_parts(struct bop_socket *socket, const struct bop_slice *parts, size_t count)
{
    struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL ? bop__socket_write_parts(sock, parts, count) : BOP_ECLOSED;
}

int bop_socket_write_shared(struct bop_socket *socket, struct bop_shared *buffer, size_t offset,
                            size_t size)
{
    struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL ? bop__socket_write_shared(sock, buffer, offset, size) : BOP_ECLOSED;
}

int bop_socket_write_file(struct bop_socket *socket, int fd, uint64_t offset, uint64_t size)
{
    struct bop__socket *sock = bop__socket_of(socket);

    if (sock == NULL) {
        BOP_IGNORE(close(fd)); /* It was not read. */
        return BOP_ECLOSED;
    }
    return bop__socket_write_file(sock, fd, offset, size);
}

struct bop_buf *bop_socket_output(struct bop_socket *socket)
{
    struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL ? bop__socket_output(sock) : NULL;
}

void bop_socket_flush_later(struct bop_socket *socket)
{
    struct bop__socket *sock = bop__socket_of(socket);

    if (sock != NULL) {
        bop__socket_flush_later(sock);
    }
}

size_t bop_socket_queued(const struct bop_socket *socket)
{
    const struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL && sock->state != BOP__SOCKET_CLOSED ? bop__socket_queued(sock) : 0;
}
