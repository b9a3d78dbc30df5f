/*
 * Sending: one call takes all that is queued, if the kernel has room.
 *
 * A queue with files is sent in several: bytes up to a file, then the file. A
 * small piece of one is read and sent as bytes, which costs less than to have
 * the kernel splice it; TLS reads them all.
 */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../tls/tls_internal.h"
#include "socket_internal.h"

#define PIECES_MAX 64

/* More than this of one socket's in a turn would keep the others waiting. */
#define TURN_BYTES_MAX (4u << 20)

/* Of a write that a rate limit made wait: the part of a second's worth that is
 * worth sending. */
#define RATE_PARTS_PER_S 16

#define UNLIMITED UINT64_MAX

/* ---- Rates ---- */

static struct bop__rate *write_rate(const struct bop__socket *sock)
{
    return sock->more != NULL ? sock->more->write_rate : NULL;
}

/* How many bytes one operation may send now. */
static uint64_t allowance(const struct bop__socket *sock)
{
    struct bop__rate *rate = write_rate(sock);

    return BOP_LIKELY(rate == NULL)
               ? UNLIMITED
               : bop__rate_allowed(rate, bop__socket_loop(sock)->now_ms, bop__socket_queued(sock));
}

/* One operation has sent so much. */
static void count_sent(struct bop__socket *sock, uint64_t size)
{
    struct bop__rate *rate = write_rate(sock);

    if (rate != NULL) {
        bop__rate_take(rate, bop__socket_loop(sock)->now_ms, size);
    }
}

/* Something is queued: does the rate make it wait? */
static bool has_to_wait(struct bop__socket *sock)
{
    struct bop__rate *rate = write_rate(sock);
    uint64_t now_ms = bop__socket_loop(sock)->now_ms, queued = bop__socket_queued(sock);
    uint64_t worth = sock->context->limits.write_rate.bytes_per_s / RATE_PARTS_PER_S, wait_ms;

    if (rate == NULL || bop__rate_allowed(rate, now_ms, queued) > 0) {
        return false;
    }
    wait_ms = bop__rate_wait_ms(rate, now_ms, bop_max_u64(1, bop_min_u64(queued, worth)));
    if (!sock->write_waits) {
        sock->limited = true;
        sock->more->limited_asked = queued;
        sock->more->limited_available = 0;
        sock->more->counters.limited++;
    }
    sock->write_waits = true;
    sock->more->write_due_ms = now_ms + bop_max_u64(wait_ms, 1);
    bop__socket_arm(sock);
    return true;
}

/* ---- Files ---- */

static uint8_t *file_bytes(struct bop_loop *loop)
{
    if (loop->sockets->file_bytes == NULL) {
        loop->sockets->file_bytes = (uint8_t *)bop_alloc(loop->allocator, BOP__FILE_BYTES);
    }
    return loop->sockets->file_bytes;
}

/* Read the next piece of a file, of at most so many bytes. Empty with *out_rc set if that fails. */
static struct bop_slice read_file(struct bop__socket *sock, const struct bop__queue_ref *file,
                                  uint64_t size_max, int *out_rc)
{
    uint8_t *buffer = file_bytes(bop__socket_loop(sock));
    size_t size = bop_min_u64(bop_min_u64(file->size, size_max), BOP__FILE_BYTES);
    ssize_t got;

    *out_rc = buffer != NULL ? 0 : BOP_ENOMEM;
    if (buffer == NULL || size == 0) {
        return bop_slice(NULL, 0);
    }
    do {
        got = pread(file->fd, buffer, size, (off_t)file->offset);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        *out_rc = got == 0 ? -EIO : -errno; /* It is shorter than it was said to be. */
        return bop_slice(NULL, 0);
    }
    return bop_slice(buffer, (size_t)got);
}

/* As sendfile(), but a peer that is gone is an error and no signal: the system
 * has no flag for that. */
static ssize_t send_file_quietly(int socket_fd, int file_fd, off_t offset, size_t size)
{
    const struct timespec at_once = {0};
    sigset_t pipe_signal, before, pending;
    ssize_t sent;
    bool was_pending;
    int error;

    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigpending(&pending);
    was_pending = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    sent = sendfile(socket_fd, file_fd, &offset, size);
    error = errno;
    if (sent < 0 && error == EPIPE && !was_pending) {
        BOP_IGNORE(sigtimedwait(&pipe_signal, NULL, &at_once)); /* Taken, if it came at all. */
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return sent;
}

/* ---- One call ---- */

static ssize_t send_pieces(struct bop__socket *sock, struct iovec *pieces, int count, int flags)
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};

    return count == 1 ? send(sock->source.fd, pieces[0].iov_base, pieces[0].iov_len, flags)
                      : sendmsg(sock->source.fd, &message, flags);
}

/* Cut the pieces to so many bytes. Returns their sum. */
static uint64_t cut_pieces(struct iovec *pieces, int *count, uint64_t size_max)
{
    uint64_t size = 0;

    for (int i = 0; i < *count; i++) {
        if (pieces[i].iov_len >= size_max - size) {
            pieces[i].iov_len = size_max - size;
            *count = i + 1;
        }
        size += pieces[i].iov_len;
    }
    return size;
}

/* Send the front of the queue, at most so much. Returns what was sent, or -errno. */
static ssize_t send_front(struct bop__socket *sock, uint64_t size_max, uint64_t *out_tried)
{
    const struct bop__queue_ref *file = bop__queue_file(sock->queue);
    struct iovec pieces[PIECES_MAX];
    int count, flags = MSG_NOSIGNAL | MSG_DONTWAIT, rc;
    ssize_t sent;

    if (file != NULL && bop_min_u64(file->size, size_max) > BOP__FILE_BYTES) {
        *out_tried = bop_min_u64(bop_min_u64(file->size, size_max), TURN_BYTES_MAX);
        sent = send_file_quietly(sock->source.fd, file->fd, (off_t)file->offset, *out_tried);
        if (sent == 0) {
            return -EIO; /* It is shorter than it was said to be. */
        }
    } else if (file != NULL) {
        struct bop_slice bytes = read_file(sock, file, size_max, &rc);

        if (bytes.size == 0) {
            return rc;
        }
        *out_tried = bytes.size;
        flags |= bytes.size < bop_min_u64(bop__queue_size(sock->queue), size_max) ? MSG_MORE : 0;
        sent = send(sock->source.fd, bytes.data, bytes.size, flags);
    } else {
        count = bop__queue_gather(sock->queue, pieces, PIECES_MAX);
        *out_tried = cut_pieces(pieces, &count, size_max);
        /* What is left follows at once. */
        flags |= *out_tried < bop_min_u64(bop__queue_size(sock->queue), size_max) ? MSG_MORE : 0;
        sent = send_pieces(sock, pieces, count, flags);
    }
    return sent >= 0 ? sent : -errno;
}

/* One attempt to send the queue as it is. Returns 0 or -errno, not -EAGAIN. */
static int send_plain(struct bop__socket *sock)
{
    uint64_t total = 0;

    while (bop__queue_size(sock->queue) > 0 && total < TURN_BYTES_MAX) {
        uint64_t allowed = allowance(sock), tried = 0;
        ssize_t sent = allowed > 0 ? send_front(sock, allowed, &tried) : -EAGAIN;

        if (sent < 0) {
            return sent == -EAGAIN || sent == -EINTR ? 0 : (int)sent;
        }
        count_sent(sock, (uint64_t)sent);
        if (sock->counts) {
            sock->more->counters.sends++;
            sock->more->counters.bytes_sent += (uint64_t)sent;
        }
        bop__queue_sent(sock->queue, (uint64_t)sent);
        total += (uint64_t)sent;
        if ((uint64_t)sent < tried) {
            break; /* The kernel has no more room. */
        }
    }
    if (total > 0) {
        bop__socket_note_active(sock);
    }
    return 0;
}

int bop__socket_send(struct bop__socket *sock)
{
    if (sock->has_tls) {
        if (sock->counts) {
            sock->more->counters.sends++;
        }
        return bop__tls_send(sock);
    }
    return sock->queue != NULL ? send_plain(sock) : 0;
}

struct bop_slice bop__socket_peek(struct bop__socket *sock, int *out_rc)
{
    const struct bop__queue_ref *file;
    uint64_t allowed;
    struct iovec piece;
    int count = 1;

    *out_rc = 0;
    if (sock->queue == NULL || bop__queue_size(sock->queue) == 0) {
        return bop_slice(NULL, 0);
    }
    allowed = allowance(sock);
    file = bop__queue_file(sock->queue);
    if (file != NULL) {
        return read_file(sock, file, allowed, out_rc);
    }
    BOP_IGNORE(bop__queue_gather(sock->queue, &piece, 1)); /* There is one: the size says so. */
    BOP_IGNORE(cut_pieces(&piece, &count, allowed));       /* As above. */
    return bop_slice(piece.iov_base, piece.iov_len);
}

void bop__socket_taken(struct bop__socket *sock, size_t size)
{
    count_sent(sock, size);
    if (sock->counts) {
        sock->more->counters.bytes_sent += size;
    }
    bop__queue_sent(sock->queue, size);
    bop__socket_note_active(sock);
}

/* ---- What follows from it ---- */

/* All sent: tell the peer, and wait for its end. */
static void say_bye(struct bop__socket *sock)
{
    if (sock->has_tls && !sock->said_tls_bye) {
        sock->said_tls_bye = true;
        bop__tls_shutdown(sock);
        if (sock->state != BOP__SOCKET_OPEN || bop__tls_unsent(sock) > 0) {
            return; /* Its last record goes first. */
        }
    }
    sock->said_bye = true;
    if (sock->at_end && (sock->leaving || !sock->end_owed)) {
        bop__socket_begin_close(sock, !sock->leaving || sock->left_by_peer ? 0 : BOP_ECANCELED);
    } else if (shutdown(sock->source.fd, SHUT_WR) != 0) {
        bop__socket_begin_close(sock, sock->leaving ? BOP_ECANCELED : -errno);
    }
}

/* Watch for room if something waits for that. */
static void watch_room(struct bop__socket *sock, bool waits)
{
    uint32_t watched = sock->source.watched;

    bop__socket_watch(sock, waits ? watched | EPOLLOUT : watched & ~(uint32_t)EPOLLOUT);
}

/* What most sends are: some copied bytes, of a socket that nothing special is asked of. */
static bool is_simple(const struct bop__socket *sock)
{
    const struct bop__queue *queue = sock->queue;
    const struct bop__socket_more *more = sock->more;

    if (queue == NULL || sock->state != BOP__SOCKET_OPEN || sock->has_tls || sock->counts ||
        sock->rose || sock->above || sock->opening || sock->shutting || sock->leaving ||
        bop__socket_blocked(sock) || bop__queue_has_refs(queue) || queue->boundaries ||
        (more != NULL && more->write_rate != NULL)) {
        return false;
    }
    return queue->bytes.size > queue->sent &&
           queue->bytes.size - queue->sent <= sock->context->limits.write_high;
}

static void transmit_simple(struct bop__socket *sock)
{
    struct bop__queue *queue = sock->queue;
    size_t size = queue->bytes.size - queue->sent;
    ssize_t sent = send(sock->source.fd, queue->bytes.data + queue->sent, size,
                        MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        bop__socket_begin_close(sock, -errno);
        return;
    }
    if (sent > 0) {
        bop__queue_sent(queue, (uint64_t)sent);
        bop__socket_note_active(sock);
    }
    if ((size_t)sent == size) {
        bop__socket_leave_queue(sock);
    } else {
        watch_room(sock, true);
    }
}

void bop__socket_transmit(struct bop__socket *sock)
{
    size_t queued, in_tls;
    int rc;

    if (sock->wants_flush) {
        sock->wants_flush = false;
        if (!sock->listed) {
            bop_list_remove(&sock->work);
        }
    }
    if (BOP_LIKELY(is_simple(sock))) {
        transmit_simple(sock);
        return;
    }
    if (sock->state != BOP__SOCKET_OPEN) {
        return;
    }
    /* bop_socket_output() lets the queue grow unseen. */
    bop__socket_mark(sock);
    bop__socket_note_height(sock);
    if (sock->write_waits) {
        return;
    }
    rc = bop__socket_send(sock);
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
    }
    if (sock->state != BOP__SOCKET_OPEN) {
        return;
    }
    bop__socket_leave_queue(sock);
    queued = bop__socket_queued(sock);
    if (queued == 0) {
        watch_room(sock, false);
        if ((sock->leaving || sock->shutting) && !sock->said_bye && !sock->opening) {
            say_bye(sock);
        }
    } else {
        in_tls = sock->has_tls ? bop__tls_unsent(sock) : 0;
        /* What is in the clear waits for the handshake, or for the rate. */
        watch_room(sock, in_tls > 0 || (!sock->opening && !has_to_wait(sock)));
    }
}

void bop__socket_note_height(struct bop__socket *sock)
{
    const struct bop_socket_limits *limits = &sock->context->limits;

    if (sock->above || sock->rose || bop__socket_queued(sock) <= limits->write_high) {
        return;
    }
    sock->rose = true;
    if (limits->when_full == BOP_SOCKET_PAUSE) {
        bop__socket_hold(sock);
    }
}

static void tell_pressure(struct bop__socket *sock, bool on)
{
    struct bop__socket_more *more = sock->more;
    uint64_t pause_max_ms = sock->context->limits.pause_max_ms;

    sock->above = on;
    if (on && sock->counts) {
        more->counters.pressure++;
    }
    if (pause_max_ms != 0) {
        more->pause_due_ms = on ? bop__socket_loop(sock)->now_ms + pause_max_ms : 0;
        bop__socket_arm(sock);
    }
    if (!on) {
        bop__socket_release(sock);
    }
    if (sock->events->on_pressure != NULL) {
        sock->events->on_pressure(bop__socket_handle(sock), sock->user, on);
    }
}

static bool tells(const struct bop__socket *sock)
{
    return sock->state == BOP__SOCKET_OPEN && !sock->leaving;
}

void bop__socket_flush(struct bop__socket *sock)
{
    bop__socket_transmit(sock);
    if (sock->limited && tells(sock)) {
        sock->limited = false;
        if (sock->events->on_limited != NULL) {
            sock->events->on_limited(bop__socket_handle(sock), sock->user,
                                     sock->more->limited_asked, sock->more->limited_available);
        }
    }
    if (sock->rose && tells(sock)) {
        sock->rose = false;
        tell_pressure(sock, true);
    }
    if (sock->above && tells(sock) && bop__socket_queued(sock) <= sock->context->limits.write_low) {
        tell_pressure(sock, false);
    }
}

/* What on_pressure queues goes out in the next turn: one send a turn each. */
void bop__socket_flush_all(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->flush, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        bop__socket_flush(BOP_CONTAINER_OF(link, struct bop__socket, work));
    }
}

int bop__socket_shutdown(struct bop__socket *sock)
{
    if (sock->state == BOP__SOCKET_CLOSED || sock->leaving) {
        return BOP_ECLOSED;
    }
    if (!sock->shutting) {
        bop__socket_flush_later(sock);
        sock->shutting = true;
    }
    return 0;
}

/* ---- For users ---- */

int bop_socket_shutdown(struct bop_socket *socket)
{
    struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL ? bop__socket_shutdown(sock) : BOP_ECLOSED;
}

int bop_socket_flush(struct bop_socket *socket)
{
    struct bop__socket *sock = bop__socket_of(socket);

    if (sock == NULL || sock->state == BOP__SOCKET_CLOSED) {
        return BOP_ECLOSED;
    }
    if (sock->state == BOP__SOCKET_OPEN && !bop__socket_blocked(sock)) {
        bop__socket_flush_later(sock); /* Marks what was written by bop_socket_output(). */
        bop__socket_transmit(sock);
        if (sock->state == BOP__SOCKET_OPEN && (sock->rose || sock->limited || sock->above)) {
            bop__socket_flush_later(sock); /* It is told from the loop. */
        }
    }
    return sock->state != BOP__SOCKET_CLOSED ? 0 : BOP_ECLOSED;
}
