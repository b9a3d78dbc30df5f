/*
 * Reading: one recv a readiness event, into the loop's buffer, lent to on_data;
 * only what it leaves is copied to the socket.
 *
 * A small rest is put in front of what the next recv brings, so that a stream
 * of messages whose reads end within a message costs a copy of that piece, not
 * of the whole read. A larger one, a big message on its way, is appended to.
 *
 * The peer's end waits until all bytes before it were given, and reading is not
 * paused; so does a hang-up without an error, which is reported as long as the
 * descriptor is watched.
 */
#include <sys/epoll.h>
#include <sys/socket.h>

#include "../tls/tls_internal.h"
#include "socket_internal.h"

/* A rest up to this size is put in front of the next read. */
#define FRONT_BYTES_MAX (16u * 1024)

/* To send what is queued for a peer that has ended its side, to users who do not
 * care for that. */
#define LEAVE_BY_PEER_MS 30000

/* Of a read that a rate limit made wait: the part of a second's worth that is
 * worth reading. */
#define RATE_PARTS_PER_S 16

/* ---- What is kept ---- */

static void free_kept(struct bop__socket *sock)
{
    struct bop__kept *kept = sock->kept;

    sock->kept = NULL;
    if (kept != NULL) {
        bop_free(bop__socket_loop(sock)->allocator, kept, sizeof(*kept) + kept->capacity);
    }
}

static size_t kept_size(const struct bop__socket *sock)
{
    return sock->kept != NULL ? sock->kept->size : 0;
}

/* Drop the first bytes of what is kept, and the memory with the last. */
static void drop_kept(struct bop__socket *sock, size_t count)
{
    struct bop__kept *kept = sock->kept;

    if (count == kept_size(sock)) {
        free_kept(sock);
    } else if (count > 0) {
        kept->size -= count;
        memmove(kept->data, kept->data + count, kept->size);
    }
}

/* Append; closes if that fails. */
static void keep(struct bop__socket *sock, struct bop_slice bytes)
{
    struct bop_allocator *allocator = bop__socket_loop(sock)->allocator;
    struct bop__kept *kept = sock->kept;
    size_t size = kept_size(sock), old = kept != NULL ? sizeof(*kept) + kept->capacity : 0;

    if (kept == NULL || bytes.size > kept->capacity - size) {
        /* The first is exact: mostly a piece of a message that the next read completes. */
        size_t capacity = kept == NULL ? bop_max_u64(bytes.size, 64)
                                       : bop_max_u64(size + bytes.size, 2 * kept->capacity);

        kept = (struct bop__kept *)bop_realloc(allocator, kept, old, sizeof(*kept) + capacity);
        if (kept == NULL) {
            bop__socket_begin_close(sock, BOP_ENOMEM);
            return;
        }
        kept->capacity = capacity;
        sock->kept = kept;
    }
    memcpy(kept->data + size, bytes.data, bytes.size);
    kept->size = size + bytes.size;
}

/* ---- Giving ---- */

static bool takes_input(const struct bop__socket *sock)
{
    return sock->state == BOP__SOCKET_OPEN && !sock->leaving && !sock->deaf;
}

/* The user, or a full queue, wants no input now. */
static bool is_held(const struct bop__socket *sock)
{
    return sock->paused || sock->held;
}

/* Hand the bytes over. Returns what was consumed. */
static size_t deliver(struct bop__socket *sock, struct bop_slice bytes)
{
    size_t consumed;

    sock->wants_delivery = false;
    if (sock->counts) {
        sock->more->counters.reads++;
    }
    consumed = sock->events->on_data(bop__socket_handle(sock), sock->user, bytes);
    BOP_ASSERT(consumed <= bytes.size);
    return consumed;
}

/* What on_data leaves is bounded; what waits for it to be called, by one read. */
static void check_bound(struct bop__socket *sock, size_t left)
{
    if (left > sock->context->limits.read_buffer_max) {
        bop__socket_begin_close(sock, BOP_EFULL);
    }
}

static void deliver_kept(struct bop__socket *sock)
{
    size_t consumed = deliver(sock, bop_slice(sock->kept->data, sock->kept->size));

    if (takes_input(sock)) {
        drop_kept(sock, consumed);
        check_bound(sock, kept_size(sock));
    }
}

/* The loop's buffer has room in front of the bytes for what is kept. */
static bool fits_in_front(const struct bop__socket *sock, struct bop_slice bytes)
{
    uintptr_t buffer = (uintptr_t)bop__socket_loop(sock)->receive;
    uintptr_t at = (uintptr_t)bytes.data;

    return at >= buffer + sock->kept->size && at < buffer + BOP__RECEIVE_BYTES &&
           sock->kept->size <= FRONT_BYTES_MAX;
}

void bop__socket_received(struct bop__socket *sock, struct bop_slice bytes)
{
    size_t front = kept_size(sock), consumed;

    if (bytes.size == 0 || !takes_input(sock)) {
        return;
    }
    if (is_held(sock) || sock->wants_delivery || (front > 0 && !fits_in_front(sock, bytes))) {
        keep(sock, bytes);
        if (takes_input(sock) && !is_held(sock) && !sock->wants_delivery) {
            deliver_kept(sock);
        }
        return;
    }
    if (front > 0) {
        bytes = bop_slice(bytes.data - front, bytes.size + front);
        memcpy((uint8_t *)bytes.data, sock->kept->data, front);
    }
    consumed = deliver(sock, bytes);
    if (takes_input(sock)) {
        check_bound(sock, bytes.size - consumed);
    }
    if (!takes_input(sock)) {
        return; /* No on_data will follow. */
    }
    if (front > 0) {
        drop_kept(sock, bop_min_u64(consumed, front));
    }
    consumed = bop_max_u64(consumed, front);
    if (consumed < bytes.size) {
        keep(sock, bop_slice(bytes.data + consumed, bytes.size - consumed));
    }
}

/* ---- The peer's end ---- */

static void tell_end(struct bop__socket *sock)
{
    if (!sock->end_owed || sock->state != BOP__SOCKET_OPEN || sock->leaving || is_held(sock) ||
        sock->wants_delivery) {
        return;
    }
    sock->end_owed = false;
    if (sock->events->on_end != NULL) {
        sock->events->on_end(bop__socket_handle(sock), sock->user);
        if (sock->said_bye) {
            bop__socket_begin_close(sock, 0);
        }
        return;
    }
    /* What was queued has one attempt now, and time if it does not go at once. */
    bop__socket_transmit(sock);
    if (sock->state == BOP__SOCKET_OPEN && !sock->leaving) {
        sock->left_by_peer = true;
        bop__socket_close_after_flush(sock, LEAVE_BY_PEER_MS);
        bop__socket_transmit(sock);
    }
}

void bop__socket_ended(struct bop__socket *sock)
{
    if (sock->state != BOP__SOCKET_OPEN || sock->at_end) {
        return;
    }
    sock->at_end = true;
    if (sock->leaving) {
        if (sock->said_bye) {
            bop__socket_begin_close(sock, BOP_ECANCELED);
            return;
        }
    } else {
        sock->end_owed = true;
        tell_end(sock);
    }
    bop__socket_update_reading(sock);
}

/* ---- Input ---- */

/* What is kept is given before more is read: or a reader that pauses often and takes little each
 * time would have more and more kept for it. */
static bool gives_first(const struct bop__socket *sock)
{
    return sock->wants_delivery && sock->kept != NULL;
}

static bool wants_reading(const struct bop__socket *sock)
{
    if (sock->at_end) {
        return false;
    }
    return sock->leaving || sock->deaf ||
           (!is_held(sock) && !sock->read_waits && !gives_first(sock));
}

/* What callbacks queued on this socket goes out at once: the memory is at hand, and the peer waits.
 */
static void end_input(struct bop__socket *sock)
{
    sock->in_input = false;
    if (sock->state != BOP__SOCKET_OPEN) {
        return;
    }
    if (sock->wants_flush) {
        bop__socket_flush(sock);
    }
}

/* on_data began TLS: what it left belongs to the handshake. */
static void begin_tls(struct bop__socket *sock)
{
    struct bop__kept *kept = sock->kept;

    if (kept == NULL || sock->state != BOP__SOCKET_OPEN) {
        return; /* Nothing yet. Or it goes with the socket. */
    }
    sock->kept = NULL;
    bop__tls_received(sock, bop_slice(kept->data, kept->size));
    bop_free(bop__socket_loop(sock)->allocator, kept, sizeof(*kept) + kept->capacity);
}

void bop__socket_input(struct bop__socket *sock, struct bop_slice bytes)
{
    bop__socket_note_active(sock);
    if (sock->counts) {
        BOP_ASSERT(sock->more != NULL); /* The counters lie there. */
        sock->more->counters.bytes_received += bytes.size;
    }
    sock->in_input = true;
    if (sock->has_tls) {
        bop__tls_received(sock, bytes);
    } else {
        bop__socket_received(sock, bytes);
        if (BOP_UNLIKELY(sock->has_tls)) {
            begin_tls(sock);
        }
    }
    end_input(sock);
}

void bop__socket_input_end(struct bop__socket *sock)
{
    sock->in_input = true;
    if (sock->has_tls && !sock->leaving) {
        bop__tls_end(sock);
    } else {
        bop__socket_ended(sock);
    }
    end_input(sock);
}

/* How much may be read now; 0 when the rate's limit makes it wait. */
static size_t read_allowance(struct bop__socket *sock, size_t wanted)
{
    struct bop_loop *loop = bop__socket_loop(sock);
    struct bop__rate *rate = sock->more->read_rate;
    uint64_t worth = sock->context->limits.read_rate.bytes_per_s / RATE_PARTS_PER_S;
    uint64_t least = bop_max_u64(1, bop_min_u64(wanted, worth)), wait_ms;
    size_t allowed = (size_t)bop__rate_allowed(rate, loop->now_ms, wanted);

    wait_ms = allowed == 0 ? bop__rate_wait_ms(rate, loop->now_ms, least) : 0;
    if (wait_ms == 0) {
        return allowed;
    }
    sock->read_waits = true;
    sock->more->read_due_ms = loop->now_ms + wait_ms;
    bop__socket_arm(sock);
    bop__socket_watch(sock, sock->source.watched & ~(uint32_t)EPOLLIN);
    if (sock->counts) {
        sock->more->counters.limited++;
    }
    if (sock->events->on_limited != NULL && sock->state == BOP__SOCKET_OPEN) {
        sock->events->on_limited(bop__socket_handle(sock), sock->user, wanted, allowed);
    }
    return 0;
}

static void read_ready(struct bop__socket *sock)
{
    struct bop_loop *loop = bop__socket_loop(sock);
    bool limited = sock->more != NULL && sock->more->read_rate != NULL;
    size_t kept = sock->has_tls ? 0 : kept_size(sock);
    size_t front = kept <= FRONT_BYTES_MAX ? kept : 0, room = BOP__RECEIVE_BYTES - front;
    ssize_t got;

    if (limited) {
        room = read_allowance(sock, room);
        if (room == 0) {
            return;
        }
    }
    got = recv(sock->source.fd, loop->receive + front, room, MSG_DONTWAIT);
    if (got > 0) {
        if (limited) {
            bop__rate_take(sock->more->read_rate, loop->now_ms, (uint64_t)got);
        }
        bop__socket_input(sock, bop_slice(loop->receive + front, (size_t)got));
    } else if (got == 0) {
        bop__socket_input_end(sock);
    } else if (errno != EAGAIN && errno != EINTR) {
        bop__socket_begin_close(sock, -errno);
    }
}

/* Input that nobody wants is read to learn of the peer's end. */
static void read_and_drop(struct bop__socket *sock)
{
    struct bop_loop *loop = bop__socket_loop(sock);
    ssize_t got = recv(sock->source.fd, loop->receive, BOP__RECEIVE_BYTES, MSG_DONTWAIT);

    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            bop__socket_begin_close(sock, -errno);
        }
    } else if (got == 0) {
        bop__socket_ended(sock);
    }
}

/* ---- Events ---- */

void bop__socket_update_reading(struct bop__socket *sock)
{
    uint32_t watched = sock->source.watched;

    if (wants_reading(sock)) {
        bop__socket_watch(sock, watched | EPOLLIN);
    } else if (sock->at_end && sock->source.attached) {
        bop__socket_watch(sock, watched & ~(uint32_t)EPOLLIN);
    } /* Else only when bytes come: to pause and resume in one turn costs no call. */
}

/* An error or a hang-up of one that does not read. */
static void on_hang_up(struct bop__socket *sock)
{
    int error = bop__socket_error(sock->source.fd);

    if (error != 0) {
        bop__socket_begin_close(sock, error);
    } else if (sock->leaving) {
        bop__socket_begin_close(sock, BOP_ECANCELED);
    } else if (sock->at_end && !sock->end_owed) {
        bop__socket_begin_close(sock, 0); /* Both sides are done. */
    } else {
        /* Bytes may be there to read yet, and it is reported until they are read. */
        bop__loop_unwatch(bop__socket_loop(sock), &sock->source);
    }
}

void bop__socket_on_events(struct bop__source *source, uint32_t events)
{
    struct bop__socket *sock = BOP_CONTAINER_OF(source, struct bop__socket, source);

    if (BOP_LIKELY(events == EPOLLIN && !sock->leaving && !sock->deaf && wants_reading(sock))) {
        read_ready(sock);
        return;
    }
    if ((events & EPOLLOUT) && !sock->wants_flush) {
        sock->wants_flush = true;
        if (bop_list_empty(&sock->work)) {
            bop_list_push_back(&bop__socket_loop(sock)->flush, &sock->work);
        }
    }
    if (!(events & (EPOLLIN | EPOLLERR | EPOLLHUP))) {
        return;
    }
    if (!wants_reading(sock)) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            on_hang_up(sock);
        } else if (!gives_first(sock)) { /* Which is done in this turn. */
            bop__socket_watch(sock, source->watched & ~(uint32_t)EPOLLIN);
        }
    } else if ((sock->leaving || sock->deaf) && !sock->has_tls) {
        read_and_drop(sock);
    } else {
        read_ready(sock); /* Of TLS, only what is decrypted may be dropped. */
    }
}

/* Where it costs no call, and bytes would go on coming into memory. */
static void stop_input(struct bop__socket *sock)
{
    if (sock->source.delegates && sock->source.attached && !wants_reading(sock) &&
        bop__socket_loop(sock)->backend->receives) {
        bop__socket_watch(sock, sock->source.watched & ~(uint32_t)EPOLLIN);
    }
}

/* Bytes that the backend has read: as read_ready() where it reads by itself. */
static void take_input(struct bop__socket *sock, struct bop_slice bytes)
{
    struct bop_loop *loop = bop__socket_loop(sock);
    size_t front = sock->has_tls ? 0 : kept_size(sock);

    if (front > 0 && front <= FRONT_BYTES_MAX && bytes.size <= BOP__RECEIVE_BYTES - front) {
        /* To where what is kept fits in front. */
        memcpy(loop->receive + front, bytes.data, bytes.size);
        bytes.data = loop->receive + front;
    }
    bop__socket_input(sock, bytes);
}

void bop__socket_on_input(struct bop__source *source, int32_t result, const uint8_t *bytes)
{
    struct bop__socket *sock = BOP_CONTAINER_OF(source, struct bop__socket, source);
    /* Of TLS, only what is decrypted may be dropped. */
    bool drops = (sock->leaving || sock->deaf) && !sock->has_tls;

    if (result < 0) {
        bop__socket_begin_close(sock, result);
    } else if (result == 0 && drops) {
        bop__socket_ended(sock);
    } else if (result == 0) {
        bop__socket_input_end(sock);
    } else if (!drops) {
        take_input(sock, bop_slice(bytes, (size_t)result)); /* Kept, if paused. */
    }
    stop_input(sock);
}

/* ---- Pausing ---- */

void bop__socket_redeliver_all(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->redeliver, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        struct bop__socket *sock = BOP_CONTAINER_OF(link, struct bop__socket, work);

        sock->listed = false;
        if (sock->wants_flush) {
            bop_list_push_back(&loop->flush, &sock->work);
        }
        if (sock->wants_delivery) {
            sock->wants_delivery = false;
            sock->in_input = true;
            if (sock->kept != NULL && takes_input(sock) && !is_held(sock)) {
                deliver_kept(sock);
            }
            tell_end(sock);
            if (sock->state == BOP__SOCKET_OPEN) {
                bop__socket_update_reading(sock);
            }
            end_input(sock);
        }
    }
}

/* Give what is kept in the next turn's course, if it is not to wait any more. */
static void deliver_later(struct bop__socket *sock)
{
    if (is_held(sock) || sock->wants_delivery || sock->leaving) {
        return;
    }
    /* Whether bytes are kept may be known only when a running on_data returns. */
    sock->wants_delivery = true;
    if (!sock->listed) {
        sock->listed = true;
        bop_list_remove(&sock->work);
        bop_list_push_back(&bop__socket_loop(sock)->redeliver, &sock->work);
    }
    bop__socket_update_reading(sock);
}

static void deliver_not(struct bop__socket *sock)
{
    sock->wants_delivery = false;
    if (sock->listed) {
        sock->listed = false;
        bop_list_remove(&sock->work);
        if (sock->wants_flush && !sock->in_input) {
            bop_list_push_back(&bop__socket_loop(sock)->flush, &sock->work);
        }
    }
}

void bop__socket_pause(struct bop__socket *sock)
{
    if (sock->state == BOP__SOCKET_CLOSED || sock->leaving || sock->paused) {
        return;
    }
    sock->paused = true;
    if (sock->counts) {
        sock->more->counters.pauses++;
    }
    deliver_not(sock);
    stop_input(sock);
}

void bop__socket_resume(struct bop__socket *sock)
{
    if (sock->state == BOP__SOCKET_CLOSED || !sock->paused) {
        return;
    }
    sock->paused = false;
    deliver_later(sock);
}

void bop__socket_hold(struct bop__socket *sock)
{
    if (!sock->held) {
        sock->held = true;
        deliver_not(sock);
        stop_input(sock);
    }
}

void bop__socket_release(struct bop__socket *sock)
{
    if (sock->held) {
        sock->held = false;
        deliver_later(sock);
    }
}

void bop_socket_pause(struct bop_socket *socket)
{
    struct bop__socket *sock = bop__socket_of(socket);

    if (sock != NULL) {
        bop__socket_pause(sock);
    }
}

void bop_socket_resume(struct bop_socket *socket)
{
    struct bop__socket *sock = bop__socket_of(socket);

    if (sock != NULL) {
        bop__socket_resume(sock);
    }
}

int bop_socket_shutdown_read(struct bop_socket *socket)
{
    struct bop__socket *sock = bop__socket_of(socket);

    if (sock == NULL || sock->state == BOP__SOCKET_CLOSED) {
        return BOP_ECLOSED;
    }
    sock->deaf = true;
    deliver_not(sock);
    if (!sock->in_input) { /* Else on_data may be looking at it. */
        free_kept(sock);
    }
    bop__socket_update_reading(sock);
    return 0;
}
