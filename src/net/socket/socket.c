/*
 * The life of a connection: made, attached, closed, freed. See socket_internal.h
 * for its states.
 */
#include <netdb.h>
#include <sys/epoll.h>

#include "socket_internal.h"

#define READ_BUFFER_MAX_DEFAULT  ((16u << 20) + (64u << 10))
#define WRITE_BUFFER_MAX_DEFAULT (64u << 20)
#define WRITE_HIGH_DEFAULT       (1u << 20)
#define WRITE_LOW_DEFAULT        (256u << 10)

static struct bop_socket_limits with_defaults(const struct bop_socket_limits *limits)
{
    struct bop_socket_limits full = *limits;

    full.read_buffer_max = full.read_buffer_max ? full.read_buffer_max : READ_BUFFER_MAX_DEFAULT;
    full.write_buffer_max = full.write_buffer_max ? full.write_buffer_max
                                                  : WRITE_BUFFER_MAX_DEFAULT;
    full.write_high = full.write_high ? full.write_high : WRITE_HIGH_DEFAULT;
    full.write_low = full.write_low ? full.write_low : WRITE_LOW_DEFAULT;
    /* Watermarks above the bound would never be met, nor a low one above the high. */
    full.write_high = bop_min_u64(full.write_high, full.write_buffer_max);
    full.write_low = bop_min_u64(full.write_low, full.write_high);
    return full;
}

/* Connecting or leaving took too long. */
static void on_timeout(struct bop_timer *timer)
{
    struct bop_socket *sock = BOP_CONTAINER_OF(timer, struct bop_socket, timer);

    bop__socket_begin_close(sock, sock->leaving ? BOP_ECANCELED : -ETIMEDOUT);
}

struct bop_socket *bop__socket_create(struct bop_loop *loop, const struct bop_socket_limits *limits)
{
    struct bop_socket *sock = (struct bop_socket *)bop_alloc_zeroed(loop->allocator, sizeof(*sock));

    if (sock == NULL) {
        return NULL;
    }
    sock->source.fd = -1;
    sock->loop = loop;
    bop_list_push_back(&loop->connections, &sock->link);
    bop_list_init(&sock->queued);
    bop_list_init(&sock->pending);
    bop_buf_init(&sock->in, loop->allocator, 0);
    /* The bounds of both are kept by who appends, in terms of what is unsent. */
    bop_buf_init(&sock->out, loop->allocator, 0);
    sock->limits = with_defaults(limits);
    bop_timer_init(&sock->timer, on_timeout);
    sock->state = BOP__SOCKET_CONNECTING;
    return sock;
}

static void free_socket(struct bop_socket *sock)
{
    struct bop_allocator *allocator = sock->loop->allocator;

    bop_list_remove(&sock->link);
    bop_buf_deinit(&sock->in);
    bop__loop_leave_spare(sock->loop, &sock->out);
    bop_buf_deinit(&sock->out);
    if (sock->peer_text != NULL) {
        bop_free(allocator, sock->peer_text, BOP__ADDRESS_TEXT_MAX);
    }
    if (sock->listener != NULL) {
        bop__listener_release(sock->listener);
    }
    bop_free(allocator, sock, sizeof(*sock));
}

void bop__socket_discard(struct bop_socket *sock)
{
    bop__socket_begin_close(sock, BOP_ECANCELED);
    free_socket(sock);
}

int bop__socket_error(int fd)
{
    int error = 0;
    socklen_t size = sizeof(error);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        return -errno;
    }
    return -error;
}

void bop__socket_watch(struct bop_socket *sock, uint32_t events)
{
    int rc = bop__loop_rewatch(sock->loop, &sock->source, events);

    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
    }
}

/*
 * The buffers stay until the connection is freed: a callback further up the
 * stack may be looking at them.
 */
void bop__socket_begin_close(struct bop_socket *sock, int reason)
{
    if (sock->state == BOP__SOCKET_CLOSED) {
        return;
    }
    sock->state = BOP__SOCKET_CLOSED;
    sock->reason = reason;
    bop__loop_close_source(sock->loop, &sock->source);
    bop_timer_stop(sock->loop, &sock->timer);
    bop_list_remove(&sock->queued);
    bop_list_remove(&sock->pending);
    bop_list_remove(&sock->link);
    bop_list_push_back(&sock->loop->closing, &sock->link);
    if (sock->addresses != NULL) {
        freeaddrinfo(sock->addresses);
        sock->addresses = NULL;
        sock->address = NULL;
    }
}

/* Those closed from here on have their turn at the end of the next one, lest an
 * on_close that connects again at once, in vain, keeps this one from ending. */
void bop__socket_finish_closes(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->closing, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        struct bop_socket *sock = BOP_CONTAINER_OF(link, struct bop_socket, link);

        if (sock->events != NULL) {
            sock->events->on_close(sock, sock->user, sock->reason);
        }
        free_socket(sock);
    }
    while ((link = bop_list_pop_front(&loop->retired)) != NULL) {
        bop__listener_retire(BOP_CONTAINER_OF(link, struct bop_listener, link));
    }
}

void bop__socket_close_all(struct bop_loop *loop)
{
    while (!bop_list_empty(&loop->connections)) {
        bop_socket_close(BOP_CONTAINER_OF(loop->connections.next, struct bop_socket, link));
    }
    while (!bop_list_empty(&loop->listeners)) {
        bop_listener_close(BOP_CONTAINER_OF(loop->listeners.next, struct bop_listener, link));
    }
}

void bop_socket_attach(struct bop_socket *sock, const struct bop_socket_events *events, void *user)
{
    BOP_ASSERT(events != NULL && events->on_data != NULL && events->on_close != NULL);
    sock->events = events;
    sock->user = user;
}

void bop_socket_close(struct bop_socket *sock)
{
    bop__socket_begin_close(sock, BOP_ECANCELED);
}

void bop_socket_close_after_flush(struct bop_socket *sock, uint64_t timeout_ms)
{
    if (sock->state == BOP__SOCKET_CLOSED || sock->leaving) {
        return;
    }
    sock->leaving = true;
    sock->paused = false;
    bop_list_remove(&sock->pending);
    /* Not below 1 ms: timers run before the flush, and one attempt is owed. */
    if (bop_timer_start(sock->loop, &sock->timer, bop_max_u64(timeout_ms, 1)) != 0) {
        bop__socket_begin_close(sock, BOP_ECANCELED); /* Without a bound it might stay for ever. */
        return;
    }
    if (sock->state == BOP__SOCKET_OPEN) {
        bop__socket_watch(sock, sock->source.watched | EPOLLIN);
        bop_socket_flush_later(sock);
    }
}

const char *bop_socket_peer_name(const struct bop_socket *sock)
{
    /* Written on the first call: most connections are never named. */
    struct bop_socket *self = (struct bop_socket *)sock;

    if (self->peer_text == NULL) {
        self->peer_text = (char *)bop_alloc(self->loop->allocator, BOP__ADDRESS_TEXT_MAX);
        if (self->peer_text == NULL) {
            return "unknown";
        }
        bop__address_format(&self->peer, self->peer_text);
    }
    return self->peer_text;
}
