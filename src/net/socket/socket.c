/*
 * The life of a socket: made, opened, attached, closed, freed. See
 * socket_internal.h for its states.
 */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "../tls/tls_internal.h"
#include "socket_internal.h"

#define READ_BUFFER_MAX_DEFAULT  ((16u << 20) + (64u << 10))
#define WRITE_BUFFER_MAX_DEFAULT (64u << 20)
#define WRITE_HIGH_DEFAULT       (1u << 20)
#define WRITE_LOW_DEFAULT        (256u << 10)

/* ---- Contexts ---- */

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

void bop__socket_context_init(struct bop__socket_context *context, struct bop_loop *loop,
                              const struct bop_socket_limits *limits, size_t user_bytes)
{
    *context = (struct bop__socket_context){
        .loop = loop, .limits = with_defaults(limits), .user_bytes = user_bytes};
}

struct bop__sockets *bop__sockets_of(struct bop_loop *loop)
{
    if (loop->sockets == NULL) {
        loop->sockets = (struct bop__sockets *)bop_alloc_zeroed(loop->allocator,
                                                                sizeof(struct bop__sockets));
        if (loop->sockets != NULL) {
            bop__slots_init(&loop->sockets->slots, loop->allocator);
        }
    }
    return loop->sockets;
}

static void release_context(struct bop__socket_context *context)
{
    if (context->listener != NULL) {
        bop__listener_release(context->listener);
    } else if (--context->references == 0) {
        bop_free(context->loop->allocator, context, sizeof(*context));
    }
}

struct bop__socket_context *bop__socket_context(struct bop_loop *loop,
                                                const struct bop_socket_limits *limits,
                                                size_t user_bytes)
{
    struct bop__sockets *sockets = bop__sockets_of(loop);
    struct bop_socket_limits full = with_defaults(limits);
    struct bop__socket_context *context;

    if (sockets == NULL) {
        return NULL;
    }
    context = sockets->context;
    /* Differing bytes between the members would only cost a context more. */
    if (context != NULL && context->user_bytes == user_bytes &&
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
        memcmp(&context->limits, &full, sizeof(full)) == 0) {
        context->references++;
        return context;
    }
    context = (struct bop__socket_context *)bop_alloc(loop->allocator, sizeof(*context));
    if (context == NULL) {
        return NULL;
    }
    bop__socket_context_init(context, loop, limits, user_bytes);
    context->references = 2;
    if (sockets->context != NULL) {
        release_context(sockets->context);
    }
    sockets->context = context;
    return context;
}

/* ---- Made ---- */

static bool wants_more(const struct bop_socket_limits *limits)
{
    return limits->counters || limits->lifetime_ms != 0 || limits->pause_max_ms != 0 ||
           bop__rate_limits(&limits->read_rate) || bop__rate_limits(&limits->write_rate);
}

/* What only some limits need. Returns 0, BOP_ENOMEM or BOP_EINVAL. */
static int set_up_limits(struct bop__socket *sock)
{
    const struct bop_socket_limits *limits = &sock->context->limits;
    struct bop_loop *loop = bop__socket_loop(sock);
    struct bop__socket_more *more;
    int rc = 0;

    if (!wants_more(limits)) {
        return 0;
    }
    more = bop__socket_more(sock);
    if (more == NULL) {
        return BOP_ENOMEM;
    }
    sock->counts = limits->counters;
    if (bop__rate_limits(&limits->read_rate)) {
        rc = bop__rate_create(loop->allocator, &limits->read_rate, loop->now_ms, &more->read_rate);
    }
    if (rc == 0 && bop__rate_limits(&limits->write_rate)) {
        rc = bop__rate_create(loop->allocator, &limits->write_rate, loop->now_ms,
                              &more->write_rate);
    }
    if (limits->lifetime_ms != 0) {
        more->lifetime_due_ms = loop->now_ms + limits->lifetime_ms;
    }
    return rc;
}

struct bop__socket *bop__socket_create(struct bop__socket_context *context)
{
    struct bop__sockets *sockets = bop__sockets_of(context->loop);
    struct bop__socket *sock;

    if (sockets != NULL && context->pool == NULL) {
        context->pool = bop__slots_pool(&sockets->slots,
                                        sizeof(struct bop__socket) + context->user_bytes);
    }
    sock = context->pool != NULL ? (struct bop__socket *)bop__pool_take(context->pool) : NULL;
    if (sock == NULL) {
        release_context(context);
        return NULL;
    }
    sock->state = BOP__SOCKET_CONNECTING;
    sock->source.fd = -1;
    sock->source.on_events = bop__socket_on_events;
    sock->context = context;
    context->loop->socket_count++;
    sock->user = context->user_bytes != 0 ? bop__socket_block(sock) : NULL;
    bop_list_init(&sock->work);
    bop_timer_init(&sock->timer, bop__socket_on_timer);
    if (set_up_limits(sock) != 0) {
        bop__socket_discard(sock);
        return NULL;
    }
    /* A rate limit says how much may be read. */
    sock->source.delegates = sock->more == NULL || sock->more->read_rate == NULL;
    return sock;
}

struct bop__socket_more *bop__socket_more(struct bop__socket *sock)
{
    if (sock->more == NULL) {
        sock->more = (struct bop__socket_more *)bop_alloc_zeroed(bop__socket_loop(sock)->allocator,
                                                                 sizeof(*sock->more));
        if (sock->more != NULL) {
            sock->more->idle_ms = sock->context->limits.idle_timeout_ms;
        }
    }
    return sock->more;
}

int bop__socket_set_tls(struct bop__socket *sock, struct bop__tls_stream *tls)
{
    struct bop__socket_more *more = bop__socket_more(sock);

    if (more == NULL) {
        return BOP_ENOMEM;
    }
    more->tls = tls;
    sock->has_tls = true;
    return 0;
}

/* ---- Opened ---- */

/* An option of the descriptor, -errno if it has none. */
static int ask(int fd, int option)
{
    int value = 0;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -errno;
}

void bop__socket_connected(struct bop__socket *sock, struct bop__source *from, struct bop_tls *tls,
                           const char *name)
{
    int rc = bop__loop_move_source(bop__socket_loop(sock), from, &sock->source);

    if (rc == 0) {
        sock->state = BOP__SOCKET_OPEN;
        bop__socket_watch(sock, EPOLLIN);
    }
    if (rc == 0 && tls != NULL && sock->state == BOP__SOCKET_OPEN) {
        rc = bop__tls_start(sock, tls, name);
    } else if (rc == 0) {
        bop__socket_opened(sock);
    }
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
    }
}

void bop__socket_opened(struct bop__socket *sock)
{
    if (sock->state != BOP__SOCKET_OPEN || !sock->opening) {
        return;
    }
    sock->opening = false;
    if (bop__socket_queued(sock) > 0 || sock->leaving || sock->shutting) {
        bop__socket_flush_later(sock);
    }
    if (sock->leaving) {
        return; /* The timeout is the one of leaving then. */
    }
    bop__socket_set_timeout(sock, sock->more != NULL ? sock->more->idle_ms
                                                     : sock->context->limits.idle_timeout_ms);
    if (sock->events->on_open != NULL) {
        sock->events->on_open(bop__socket_handle(sock), sock->user);
    }
}

int bop_socket_adopt(struct bop_loop *loop, int fd, const struct bop_socket_limits *limits,
                     const struct bop_socket_events *events, void *user,
                     struct bop_socket **out_socket)
{
    static const struct bop_socket_limits defaults;
    struct bop__socket_context *context;
    struct bop__socket *sock;
    int type = ask(fd, SO_TYPE), flags = fcntl(fd, F_GETFL), one = 1, rc;

    if (type < 0) {
        return type;
    }
    if (type != SOCK_STREAM || events == NULL || events->on_data == NULL ||
        events->on_close == NULL) {
        return BOP_EINVAL; /* Borders of messages would be lost. */
    }
    if (loop->destroying) {
        return BOP_ECLOSED;
    }
    context = bop__socket_context(loop, limits != NULL ? limits : &defaults, 0);
    sock = context != NULL ? bop__socket_create(context) : NULL;
    if (sock == NULL) {
        return BOP_ENOMEM;
    }
    rc = fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 ? 0 : -errno;
    if (rc == 0) {
        sock->source.fd = fd;
        rc = bop__loop_watch(loop, &sock->source, EPOLLIN);
        sock->source.fd = rc == 0 ? fd : -1; /* Still the caller's. */
    }
    if (rc != 0) {
        bop__socket_discard(sock);
        return rc;
    }
    /* It costs latency if it fails, or is no TCP socket; nothing else. */
    BOP_IGNORE(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
    sock->state = BOP__SOCKET_OPEN;
    sock->events = events;
    sock->user = user;
    bop__socket_set_timeout(sock, context->limits.idle_timeout_ms);
    *out_socket = bop__socket_handle(sock);
    return 0;
}

/* ---- Closed ---- */

int bop__socket_error(int fd)
{
    int error = 0;
    socklen_t size = sizeof(error);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        return -errno;
    }
    return -error;
}

void bop__socket_watch(struct bop__socket *sock, uint32_t events)
{
    struct bop_loop *loop = bop__socket_loop(sock);
    int rc;

    if (sock->state != BOP__SOCKET_OPEN) {
        return;
    }
    rc = sock->source.attached ? bop__loop_rewatch(loop, &sock->source, events)
                               : bop__loop_watch(loop, &sock->source, events);
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
    }
}

void bop__socket_begin_close(struct bop__socket *sock, int reason)
{
    struct bop_loop *loop = bop__socket_loop(sock);

    bop__loop_check_thread(loop);
    if (sock->state == BOP__SOCKET_CLOSED) {
        return;
    }
    if (sock->more != NULL && sock->more->connecting != NULL) {
        bop__connecting_end(sock);
    }
    sock->state = BOP__SOCKET_CLOSED;
    sock->reason = reason;
    loop->socket_count--;
    bop__loop_close_source(loop, &sock->source);
    bop_timer_stop(loop, &sock->timer);
    bop_list_remove(&sock->work);
    bop_list_push_back(&loop->closing, &sock->work);
}

static void free_more(struct bop__socket *sock, struct bop_allocator *allocator)
{
    struct bop__socket_more *more = sock->more;

    if (sock->has_tls) {
        bop__tls_free(sock);
    }
    BOP_ASSERT(more->connecting == NULL); /* It ended when the socket was closed. */
    if (more->peer_name != NULL) {
        bop_free(allocator, more->peer_name, BOP__PEER_NAME_MAX);
    }
    if (more->error_text != NULL) {
        bop_free(allocator, more->error_text, BOP_ERROR_MESSAGE_MAX);
    }
    bop__rate_destroy(more->read_rate);
    bop__rate_destroy(more->write_rate);
    bop_free(allocator, more, sizeof(*more));
}

static void free_socket(struct bop__socket *sock)
{
    struct bop__socket_context *context = sock->context;
    struct bop_allocator *allocator = context->loop->allocator;

    bop_list_remove(&sock->work);
    if (sock->kept != NULL) {
        bop_free(allocator, sock->kept, sizeof(*sock->kept) + sock->kept->capacity);
    }
    if (sock->queue != NULL) {
        bop__queue_clear(sock->queue);
        bop__socket_leave_queue(sock);
    }
    if (sock->more != NULL) {
        free_more(sock, allocator);
    }
    sock->state = BOP__SOCKET_FREE;
    bop__pool_give(context->pool, &sock->slot);
    release_context(context);
}

void bop__socket_discard(struct bop__socket *sock)
{
    bop__socket_begin_close(sock, BOP_ECANCELED);
    free_socket(sock);
}

/* Those closed from here on have their turn at the end of the next one, lest an
 * on_close that connects again at once, in vain, keeps this one from ending. */
void bop__socket_finish_closes(struct bop_loop *loop)
{
    struct bop_list now, *link;

    bop__list_take(&loop->closing, &now);
    while ((link = bop_list_pop_front(&now)) != NULL) {
        struct bop__socket *sock = BOP_CONTAINER_OF(link, struct bop__socket, work);

        if (sock->events != NULL) {
            sock->events->on_close(bop__socket_handle(sock), sock->user, sock->reason);
        }
        free_socket(sock);
    }
    while ((link = bop_list_pop_front(&loop->retired)) != NULL) {
        bop__listener_retire(BOP_CONTAINER_OF(link, struct bop_listener, link));
    }
}

static void close_slot(struct bop__slot *slot, void *arg)
{
    struct bop__socket *sock = (struct bop__socket *)slot;

    (void)arg;
    if (sock->state == BOP__SOCKET_CONNECTING || sock->state == BOP__SOCKET_OPEN) {
        bop__socket_begin_close(sock, BOP_ECANCELED);
    }
}

void bop__socket_close_all(struct bop_loop *loop)
{
    if (loop->sockets != NULL) {
        bop__slots_each(&loop->sockets->slots, close_slot, NULL);
    }
    while (!bop_list_empty(&loop->listeners)) {
        bop_listener_close(BOP_CONTAINER_OF(loop->listeners.next, struct bop_listener, link));
    }
}

void bop__sockets_free(struct bop_loop *loop)
{
    struct bop__sockets *sockets = loop->sockets;

    bop__tls_wire_free(loop);
    if (sockets == NULL) {
        return;
    }
    if (sockets->context != NULL) {
        release_context(sockets->context);
    }
    while (sockets->spare_count > 0) {
        struct bop__queue *queue = sockets->spares[--sockets->spare_count];

        bop__queue_deinit(queue);
        bop_free(loop->allocator, queue, sizeof(*queue));
    }
    if (sockets->file_bytes != NULL) {
        bop_free(loop->allocator, sockets->file_bytes, BOP__FILE_BYTES);
    }
    bop__slots_deinit(&sockets->slots);
    bop_free(loop->allocator, sockets, sizeof(*sockets));
    loop->sockets = NULL;
}

void bop__socket_close_after_flush(struct bop__socket *sock, uint64_t timeout_ms)
{
    if (sock->state == BOP__SOCKET_CLOSED || sock->leaving) {
        return;
    }
    sock->leaving = true;
    sock->paused = false;
    sock->held = false;
    sock->wants_delivery = false;
    sock->listed = false;
    bop_list_remove(&sock->work);
    sock->wants_flush = false;
    /* Not below 1 ms: timers run before the flush, and one attempt is owed. */
    bop__socket_set_timeout(sock, bop_max_u64(timeout_ms, 1));
    if (sock->state == BOP__SOCKET_OPEN) {
        bop__socket_update_reading(sock);
        bop__socket_flush_later(sock);
    }
}

/* ---- For users ---- */

void bop_socket_attach(struct bop_socket *socket, const struct bop_socket_events *events,
                       void *user)
{
    struct bop__socket *sock = bop__socket_of(socket);

    BOP_ASSERT(events != NULL && events->on_data != NULL && events->on_close != NULL);
    if (sock == NULL) {
        return;
    }
    sock->events = events;
    if (sock->context->user_bytes == 0) {
        sock->user = user;
    }
}

void bop_socket_close(struct bop_socket *socket)
{
    struct bop__socket *sock = bop__socket_of(socket);

    if (sock != NULL) {
        bop__socket_begin_close(sock, BOP_ECANCELED);
    }
}

void bop_socket_close_after_flush(struct bop_socket *socket, uint64_t timeout_ms)
{
    struct bop__socket *sock = bop__socket_of(socket);

    if (sock != NULL) {
        bop__socket_close_after_flush(sock, timeout_ms);
    }
}

bool bop_socket_is_open(const struct bop_socket *socket)
{
    const struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL && sock->state != BOP__SOCKET_CLOSED && !sock->leaving && !sock->shutting;
}

void *bop_socket_user(const struct bop_socket *socket)
{
    const struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL ? sock->user : NULL;
}

struct bop_loop *bop_socket_loop(const struct bop_socket *socket)
{
    const struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL ? bop__socket_loop(sock) : NULL;
}

int bop_socket_fd(const struct bop_socket *socket)
{
    const struct bop__socket *sock = bop__socket_of(socket);

    return sock != NULL ? sock->source.fd : -1;
}

int bop_socket_counters(const struct bop_socket *socket, struct bop_socket_counters *out_counters)
{
    const struct bop__socket *sock = bop__socket_of(socket);

    if (sock == NULL) {
        return BOP_ECLOSED;
    }
    if (!sock->counts) {
        return BOP_EUNSUPPORTED;
    }
    *out_counters = sock->more->counters;
    return 0;
}
