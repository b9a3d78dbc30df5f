/*
 * The life of a connection: made, attached, closed, freed. See tcp_internal.h
 * for its states.
 */
#include <netdb.h>
#include <sys/epoll.h>

#include "tcp_internal.h"

#define READ_BUFFER_MAX_DEFAULT  ((16u << 20) + (64u << 10))
#define WRITE_BUFFER_MAX_DEFAULT (64u << 20)
#define WRITE_HIGH_DEFAULT       (1u << 20)
#define WRITE_LOW_DEFAULT        (256u << 10)

static struct bop_tcp_limits with_defaults(const struct bop_tcp_limits *limits)
{
    struct bop_tcp_limits full = *limits;

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
    struct bop_tcp *tcp = BOP_CONTAINER_OF(timer, struct bop_tcp, timer);

    bop__tcp_begin_close(tcp, tcp->leaving ? BOP_ECANCELED : -ETIMEDOUT);
}

struct bop_tcp *bop__tcp_create(struct bop_loop *loop, const struct bop_tcp_limits *limits)
{
    struct bop_tcp *tcp = (struct bop_tcp *)bop_alloc_zeroed(loop->allocator, sizeof(*tcp));

    if (tcp == NULL) {
        return NULL;
    }
    tcp->source.fd = -1;
    tcp->loop = loop;
    bop_list_push_back(&loop->connections, &tcp->link);
    bop_list_init(&tcp->queued);
    bop_list_init(&tcp->pending);
    bop_buf_init(&tcp->in, loop->allocator, 0);
    /* The bounds of both are kept by who appends, in terms of what is unsent. */
    bop_buf_init(&tcp->out, loop->allocator, 0);
    tcp->limits = with_defaults(limits);
    bop_timer_init(&tcp->timer, on_timeout);
    tcp->state = BOP__TCP_CONNECTING;
    return tcp;
}

static void free_tcp(struct bop_tcp *tcp)
{
    struct bop_allocator *allocator = tcp->loop->allocator;

    bop_list_remove(&tcp->link);
    bop_buf_deinit(&tcp->in);
    bop__loop_leave_spare(tcp->loop, &tcp->out);
    bop_buf_deinit(&tcp->out);
    if (tcp->peer_text != NULL) {
        bop_free(allocator, tcp->peer_text, BOP__ADDRESS_TEXT_MAX);
    }
    if (tcp->listener != NULL) {
        bop__listener_release(tcp->listener);
    }
    bop_free(allocator, tcp, sizeof(*tcp));
}

void bop__tcp_discard(struct bop_tcp *tcp)
{
    bop__tcp_begin_close(tcp, BOP_ECANCELED);
    free_tcp(tcp);
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

void bop__tcp_watch(struct bop_tcp *tcp, uint32_t events)
{
    int rc = bop__loop_rewatch(tcp->loop, &tcp->source, events);

    if (rc != 0) {
        bop__tcp_begin_close(tcp, rc);
    }
}

/*
 * The buffers stay until the connection is freed: a callback further up the
 * stack may be looking at them.
 */
void bop__tcp_begin_close(struct bop_tcp *tcp, int reason)
{
    if (tcp->state == BOP__TCP_CLOSED) {
        return;
    }
    tcp->state = BOP__TCP_CLOSED;
    tcp->reason = reason;
    bop__loop_close_source(tcp->loop, &tcp->source);
    bop_timer_stop(tcp->loop, &tcp->timer);
    bop_list_remove(&tcp->queued);
    bop_list_remove(&tcp->pending);
    bop_list_remove(&tcp->link);
    bop_list_push_back(&tcp->loop->closing, &tcp->link);
    if (tcp->addresses != NULL) {
        freeaddrinfo(tcp->addresses);
        tcp->addresses = NULL;
        tcp->address = NULL;
    }
}

/* Those closed from here on have their turn at the end of the next one, lest an
 * on_close that connects again at once, in vain, keeps this one from ending. */
void bop__tcp_finish_closes(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->closing, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        struct bop_tcp *tcp = BOP_CONTAINER_OF(link, struct bop_tcp, link);

        if (tcp->events != NULL) {
            tcp->events->on_close(tcp, tcp->user, tcp->reason);
        }
        free_tcp(tcp);
    }
    while ((link = bop_list_pop_front(&loop->retired)) != NULL) {
        bop__listener_retire(BOP_CONTAINER_OF(link, struct bop_tcp_listener, link));
    }
}

void bop__tcp_close_all(struct bop_loop *loop)
{
    while (!bop_list_empty(&loop->connections)) {
        bop_tcp_close(BOP_CONTAINER_OF(loop->connections.next, struct bop_tcp, link));
    }
    while (!bop_list_empty(&loop->listeners)) {
        bop_tcp_listener_close(
            BOP_CONTAINER_OF(loop->listeners.next, struct bop_tcp_listener, link));
    }
}

void bop_tcp_attach(struct bop_tcp *tcp, const struct bop_tcp_events *events, void *user)
{
    BOP_ASSERT(events != NULL && events->on_data != NULL && events->on_close != NULL);
    tcp->events = events;
    tcp->user = user;
}

void bop_tcp_close(struct bop_tcp *tcp)
{
    bop__tcp_begin_close(tcp, BOP_ECANCELED);
}

void bop_tcp_close_after_flush(struct bop_tcp *tcp, uint64_t timeout_ms)
{
    if (tcp->state == BOP__TCP_CLOSED || tcp->leaving) {
        return;
    }
    tcp->leaving = true;
    tcp->paused = false;
    bop_list_remove(&tcp->pending);
    /* Not below 1 ms: timers run before the flush, and one attempt is owed. */
    if (bop_timer_start(tcp->loop, &tcp->timer, bop_max_u64(timeout_ms, 1)) != 0) {
        bop__tcp_begin_close(tcp, BOP_ECANCELED); /* Without a bound it might stay for ever. */
        return;
    }
    if (tcp->state == BOP__TCP_OPEN) {
        bop__tcp_watch(tcp, tcp->source.watched | EPOLLIN);
        bop_tcp_flush_later(tcp);
    }
}

const char *bop_tcp_peer_name(const struct bop_tcp *tcp)
{
    /* Written on the first call: most connections are never named. */
    struct bop_tcp *self = (struct bop_tcp *)tcp;

    if (self->peer_text == NULL) {
        self->peer_text = (char *)bop_alloc(self->loop->allocator, BOP__ADDRESS_TEXT_MAX);
        if (self->peer_text == NULL) {
            return "unknown";
        }
        bop__address_format(&self->peer, self->peer_text);
    }
    return self->peer_text;
}
