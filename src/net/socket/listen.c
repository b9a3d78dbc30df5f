/*
 * Listeners.
 *
 * Out of descriptors or memory, the kernel keeps reporting the connection that
 * could not be accepted: the listener then looks away for a moment instead of
 * spinning. The waiting connections stay in the kernel's backlog meanwhile.
 *
 * With several loops, the listener's own accepts and posts each connection to
 * the loop whose turn it is. A closed listener's memory lives until the turn ends
 * and its last connection, on whichever loop, is freed; the threads of these
 * loops share no more of it than counts and what does not change.
 */
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../tls/tls_internal.h"
#include "socket_internal.h"

#define CONNECTIONS_MAX_DEFAULT 65536

/* Accepted in one turn, so that a flood of connections leaves room for others. */
#define ACCEPTS_PER_TURN_MAX 64

#define ACCEPT_AGAIN_MS 100

static void release(struct bop_listener *listener)
{
    /* Release what was done with it; the last one acquires what all did. */
    if (atomic_fetch_sub_explicit(&listener->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (listener->path != NULL) {
        bop_free(listener->allocator, listener->path, listener->path_bytes);
    }
    bop_free(listener->allocator, listener,
             sizeof(*listener) + listener->context_count * sizeof(listener->contexts[0]));
}

void bop__listener_release(struct bop_listener *listener)
{
    /* Relaxed: a count, nothing else is read by it. */
    atomic_fetch_sub_explicit(&listener->open, 1, memory_order_relaxed);
    release(listener);
}

void bop__listener_retire(struct bop_listener *listener)
{
    BOP_ASSERT(listener->closed && bop_list_empty(&listener->link));
    release(listener);
}

/* ---- Connections ---- */

/* Start TLS, if it is to be, and ask the user. Returns whether the user has it. */
static bool introduce(struct bop_listener *listener, struct bop__socket *sock)
{
    const struct bop_listen_options *options = &listener->options;

    if (options->tls != NULL) {
        sock->opening = true;
        if (bop__socket_more(sock) == NULL || bop__tls_start(sock, options->tls, NULL) != 0) {
            return false;
        }
    }
    if (!sock->opening) { /* A handshake has a time of its own. */
        bop__socket_set_timeout(sock, sock->context->limits.idle_timeout_ms);
    }
    if (!options->on_accept(listener, bop__socket_handle(sock), options->user)) {
        sock->events = NULL; /* It was never the user's: no on_close. */
        return false;
    }
    BOP_ASSERT(sock->events != NULL || sock->state == BOP__SOCKET_CLOSED);
    return true;
}

/* On the thread of the context's loop, which keeps the listener meanwhile. The
 * connection is counted already. */
static void take_connection(struct bop__socket_context *context, int fd)
{
    struct bop_listener *listener = context->listener;
    struct bop__socket *sock = bop__socket_create(context);

    if (sock == NULL) {
        atomic_fetch_add_explicit(&listener->out_of_memory, 1, memory_order_relaxed);
        BOP_IGNORE(close(fd)); /* Without memory there is no other answer. */
        return;
    }
    sock->source.fd = fd;
    sock->state = BOP__SOCKET_OPEN;
    bop__socket_watch(sock, EPOLLIN);
    if (sock->state == BOP__SOCKET_CLOSED) {
        return; /* Without memory to watch it. */
    }
    if (!introduce(listener, sock)) {
        bop__socket_begin_close(sock, BOP_ECANCELED);
    }
}

/* A connection on its way to another loop. */
struct hand_over {
    struct bop_post post;
    struct bop__socket_context *context;
    struct bop_allocator *allocator;
    int fd;
};

static void arrive(struct bop_post *post)
{
    struct hand_over *hand_over = BOP_CONTAINER_OF(post, struct hand_over, post);
    struct bop__socket_context *context = hand_over->context;
    struct bop_listener *listener = context->listener;
    int fd = hand_over->fd;

    bop_free(hand_over->allocator, hand_over, sizeof(*hand_over));
    if (context->loop->destroying || atomic_load(&listener->closed)) {
        BOP_IGNORE(close(fd)); /* It came too late. */
        bop__listener_release(listener);
        return;
    }
    atomic_fetch_add_explicit(&listener->references, 1, memory_order_relaxed);
    take_connection(context, fd);
    release(listener);
}

static void hand_over(struct bop__socket_context *context, int fd)
{
    struct bop_allocator *allocator = context->listener->allocator;
    struct hand_over *hand_over = (struct hand_over *)bop_alloc(allocator, sizeof(*hand_over));

    if (hand_over == NULL) {
        atomic_fetch_add_explicit(&context->listener->out_of_memory, 1, memory_order_relaxed);
        BOP_IGNORE(close(fd)); /* Without memory there is no other answer. */
        bop__listener_release(context->listener);
        return;
    }
    *hand_over = (struct hand_over){
        .post.fn = arrive, .context = context, .allocator = allocator, .fd = fd};
    bop_loop_post(context->loop, &hand_over->post);
}

static void on_connection(struct bop_listener *listener, int fd)
{
    struct bop__socket_context *context = &listener->contexts[listener->next];

    if (atomic_load_explicit(&listener->open, memory_order_relaxed) >=
        listener->options.connections_max) {
        listener->counters.refused++;
        BOP_IGNORE(close(fd)); /* Refused. */
        return;
    }
    listener->counters.accepted++;
    listener->next = (listener->next + 1) % listener->context_count;
    atomic_fetch_add_explicit(&listener->open, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&listener->references, 1, memory_order_relaxed);
    if (context->loop == listener->loop) {
        take_connection(context, fd);
    } else {
        hand_over(context, fd);
    }
}

/* ---- Accepting ---- */

static void look_away(struct bop_listener *listener, bool no_memory)
{
    if (no_memory) {
        atomic_fetch_add_explicit(&listener->out_of_memory, 1, memory_order_relaxed);
    } else {
        listener->counters.out_of_files++;
    }
    bop_timer_start(listener->loop, &listener->again, ACCEPT_AGAIN_MS);
    /* If that fails, the next turn tries again. */
    BOP_IGNORE(bop__loop_rewatch(listener->loop, &listener->source, 0));
}

/* Accept one. Returns whether to try for another. */
static bool accept_one(struct bop_listener *listener)
{
    int fd = accept4(listener->source.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        on_connection(listener, fd);
        return true;
    }
    switch (errno) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        look_away(listener, errno == ENOBUFS || errno == ENOMEM);
        return false;
    case EAGAIN:
        return false;
    default:
        /* A connection that failed before it was accepted; others may wait. */
        return true;
    }
}

static void on_listener_events(struct bop__source *source, uint32_t events)
{
    struct bop_listener *listener = BOP_CONTAINER_OF(source, struct bop_listener, source);

    for (int i = 0; i < ACCEPTS_PER_TURN_MAX; i++) {
        if (!accept_one(listener) || listener->closed) {
            break;
        }
    }
}

static void accept_again(struct bop_timer *timer)
{
    struct bop_listener *listener = BOP_CONTAINER_OF(timer, struct bop_listener, again);

    if (bop__loop_rewatch(listener->loop, &listener->source, EPOLLIN) != 0) {
        bop_timer_start(listener->loop, timer, ACCEPT_AGAIN_MS);
    }
}

/* ---- Listening ---- */

static int set_options(int fd, int family, bool reuse_port)
{
    int one = 1, zero = 0;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        (reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) != 0)) {
        return -errno;
    }
    if (family == AF_INET6) {
        /* So that "::" takes IPv4 too, whatever the system's default. Best effort. */
        BOP_IGNORE(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)));
    }
    /* What it accepts has it from here. It costs latency if it fails, nothing else. */
    BOP_IGNORE(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
    return 0;
}

/* A bound, listening socket. Returns it or -errno. */
static int open_address(const struct addrinfo *address, bool reuse_port, int backlog)
{
    int rc,
        fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);

    if (fd < 0) {
        return -errno;
    }
    rc = set_options(fd, address->ai_family, reuse_port);
    if (rc == 0 &&
        (bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, backlog) != 0)) {
        rc = -errno;
    }
    if (rc != 0) {
        BOP_IGNORE(close(fd)); /* Nothing was done with it. */
        return rc;
    }
    return fd;
}

/* The first address of the host that can be listened on. */
static int open_any(const char *host, const struct bop_listen_options *options, int backlog,
                    struct bop_error *err)
{
    struct addrinfo *list;
    int rc = bop__address_resolve(host, options->port, "listen on", &list, err);

    if (rc != 0) {
        return rc;
    }
    for (const struct addrinfo *address = list; address != NULL; address = address->ai_next) {
        int fd = open_address(address, options->reuse_port, backlog);

        if (fd >= 0) {
            freeaddrinfo(list);
            return fd;
        }
        rc = rc != 0 ? rc : fd; /* The first address is the one people mean. */
    }
    freeaddrinfo(list);
    return bop__address_error(err, rc, "listen on", host, options->port);
}

/* Remember a path, to remove it in the end if it is still this socket's. */
static int keep_path(struct bop_listener *listener, const char *path)
{
    struct stat status;

    if (path[0] == '@') {
        return 0;
    }
    listener->path_bytes = strlen(path) + 1;
    listener->path = (char *)bop_alloc(listener->allocator, listener->path_bytes);
    if (listener->path == NULL) {
        BOP_IGNORE(unlink(path)); /* Without memory it is not listened on. */
        return BOP_ENOMEM;
    }
    memcpy(listener->path, path, listener->path_bytes);
    if (lstat(path, &status) == 0) {
        listener->path_device = status.st_dev;
        listener->path_inode = status.st_ino;
    }
    return 0;
}

static void remove_path(const struct bop_listener *listener)
{
    struct stat status;

    if (listener->path != NULL && lstat(listener->path, &status) == 0 &&
        status.st_dev == listener->path_device && status.st_ino == listener->path_inode) {
        BOP_IGNORE(unlink(listener->path)); /* Else it is stale: the next one replaces it. */
    }
}

static int say(struct bop_error *err, int rc, const struct bop_listen_options *options)
{
    const char *host = options->host != NULL ? options->host : "127.0.0.1";

    return options->path != NULL ? bop_error_set(err, rc, "listen on unix:%s", options->path)
                                 : bop__address_error(err, rc, "listen on", host, options->port);
}

static int open_descriptor(struct bop_listener *listener, const struct bop_listen_options *options,
                           struct bop_error *err)
{
    int backlog = options->backlog != 0 ? (int)bop_min_u64(options->backlog, INT32_MAX) : SOMAXCONN;
    int fd, rc;

    if (options->path == NULL) {
        fd = open_any(options->host != NULL ? options->host : "127.0.0.1", options, backlog, err);
        listener->source.fd = fd >= 0 ? fd : -1;
        return fd >= 0 ? 0 : fd;
    }
    fd = bop__unix_listen(options->path, backlog);
    if (fd < 0) {
        return say(err, fd, options);
    }
    listener->source.fd = fd;
    rc = keep_path(listener, options->path);
    return rc != 0 ? say(err, rc, options) : 0;
}

static int start_listening(struct bop_listener *listener, const struct bop_listen_options *options,
                           struct bop_error *err)
{
    struct sockaddr_storage storage;
    socklen_t size = sizeof(storage);
    int rc = open_descriptor(listener, options, err);

    if (rc != 0) {
        return rc;
    }
    if (getsockname(listener->source.fd, (struct sockaddr *)&storage, &size) != 0) {
        return say(err, -errno, options);
    }
    rc = bop__loop_watch(listener->loop, &listener->source, EPOLLIN);
    if (rc != 0) {
        return say(err, rc, options);
    }
    listener->port = bop_address_from_sockaddr((struct sockaddr *)&storage).port;
    return 0;
}

static struct bop_listener *create_listener(struct bop_loop *loop,
                                            const struct bop_listen_options *options)
{
    bool own = options->loops == NULL || options->loop_count == 0;
    size_t count = own ? 1 : options->loop_count;
    struct bop_listener *listener;

    if (count > SIZE_MAX / sizeof(listener->contexts[0]) / 2) {
        return NULL;
    }
    listener = (struct bop_listener *)bop_alloc_zeroed(
        loop->allocator, sizeof(*listener) + count * sizeof(listener->contexts[0]));
    if (listener == NULL) {
        return NULL;
    }
    listener->loop = loop;
    listener->allocator = loop->allocator;
    listener->source.fd = -1;
    listener->source.on_events = on_listener_events;
    bop_timer_init(&listener->again, accept_again);
    listener->options = *options;
    listener->options.host = NULL;
    listener->options.path = NULL;
    listener->options.loops = NULL;
    if (listener->options.connections_max == 0) {
        listener->options.connections_max = CONNECTIONS_MAX_DEFAULT;
    }
    atomic_init(&listener->references, 1);
    listener->context_count = count;
    for (size_t i = 0; i < count; i++) {
        bop__socket_context_init(&listener->contexts[i], own ? loop : options->loops[i],
                                 &options->limits, options->user_bytes);
        listener->contexts[i].listener = listener;
    }
    return listener;
}

int bop_listen(struct bop_loop *loop, const struct bop_listen_options *options,
               struct bop_listener **out_listener, struct bop_error *err)
{
    struct bop_listener *listener;
    int rc;

    bop__loop_check_thread(loop);
    if (options->on_accept == NULL || options->user_bytes > BOP__USER_BYTES_MAX ||
        (options->host != NULL && options->host[0] == '\0')) {
        return say(err, BOP_EINVAL, options);
    }
    if (loop->destroying) {
        return say(err, BOP_ECLOSED, options);
    }
    listener = create_listener(loop, options);
    if (listener == NULL) {
        return say(err, BOP_ENOMEM, options);
    }
    rc = start_listening(listener, options, err);
    if (rc != 0) {
        bop__loop_close_source(loop, &listener->source);
        remove_path(listener);
        release(listener);
        return rc;
    }
    bop_list_push_back(&loop->listeners, &listener->link);
    *out_listener = listener;
    return 0;
}

void bop_listener_close(struct bop_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    BOP_ASSERT(!listener->closed);
    atomic_store(&listener->closed, true);
    bop_timer_stop(listener->loop, &listener->again);
    remove_path(listener);
    bop__loop_close_source(listener->loop, &listener->source);
    bop_list_remove(&listener->link);
    bop_list_push_back(&listener->loop->retired, &listener->link);
}

uint16_t bop_listener_port(const struct bop_listener *listener)
{
    return listener->port;
}

struct bop_listener_counters bop_listener_counters(const struct bop_listener *listener)
{
    struct bop_listener_counters counters = listener->counters;

    /* Relaxed: counts of other threads, as of about now. */
    counters.out_of_memory = atomic_load_explicit(&listener->out_of_memory, memory_order_relaxed);
    counters.open = atomic_load_explicit(&listener->open, memory_order_relaxed);
    return counters;
}
