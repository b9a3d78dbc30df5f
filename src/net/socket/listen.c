/*
 * Listeners.
 *
 * Out of descriptors or memory, the kernel keeps reporting the connection that
 * could not be accepted: the listener then looks away for a moment instead of
 * spinning. The waiting connections stay in the kernel's backlog meanwhile.
 *
 * A closed listener's memory lives until the turn ends and its last connection
 * is freed.
 */
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "socket_internal.h"

#define CONNECTIONS_MAX_DEFAULT 65536

/* Accepted in one turn, so that a flood of connections leaves room for others. */
#define ACCEPTS_PER_TURN_MAX 64

#define ACCEPT_AGAIN_MS 100

static void free_listener(struct bop_listener *listener)
{
    bop_free(listener->loop->allocator, listener, sizeof(*listener));
}

void bop__listener_release(struct bop_listener *listener)
{
    listener->connections--;
    if (listener->connections == 0 && listener->closed && bop_list_empty(&listener->link)) {
        free_listener(listener);
    }
}

void bop__listener_retire(struct bop_listener *listener)
{
    BOP_ASSERT(listener->closed && bop_list_empty(&listener->link));
    if (listener->connections == 0) {
        free_listener(listener);
    }
}

static void take_connection(struct bop_listener *listener, int fd, const struct sockaddr *sockaddr)
{
    struct bop_socket *sock = bop__socket_create(listener->loop, &listener->options.limits);
    int one = 1;

    if (sock == NULL) {
        BOP_IGNORE(close(fd)); /* Without memory there is no other answer. */
        return;
    }
    sock->source.fd = fd;
    sock->source.on_events = bop__socket_on_events;
    sock->state = BOP__SOCKET_OPEN;
    sock->peer = bop__address_of(sockaddr);
    sock->listener = listener;
    listener->connections++;
    /* It costs latency if it fails, nothing else. */
    BOP_IGNORE(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
    if (bop__loop_watch(listener->loop, &sock->source, EPOLLIN) != 0) {
        bop__socket_discard(sock);
        return;
    }
    if (!listener->options.on_accept(listener, sock, listener->options.user)) {
        sock->events = NULL; /* It was never the user's: no on_close. */
        bop__socket_begin_close(sock, BOP_ECANCELED);
        return;
    }
    BOP_ASSERT(sock->events != NULL || sock->state == BOP__SOCKET_CLOSED);
}

/* Accept one. Returns whether to try for another. */
static bool accept_one(struct bop_listener *listener)
{
    struct sockaddr_storage storage;
    struct sockaddr *sockaddr = (struct sockaddr *)&storage;
    socklen_t size = sizeof(storage);
    int fd = accept4(listener->source.fd, sockaddr, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        if (listener->connections >= listener->options.connections_max) {
            BOP_IGNORE(close(fd)); /* Refused. */
        } else {
            take_connection(listener, fd, sockaddr);
        }
        return true;
    }
    switch (errno) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        /* Should the timer fail for lack of memory too, the next turn tries again. */
        if (bop_timer_start(listener->loop, &listener->again, ACCEPT_AGAIN_MS) == 0) {
            BOP_IGNORE(bop__loop_rewatch(listener->loop, &listener->source, 0)); /* Likewise. */
        }
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
        /* Restarting a timer that has just fired needs no memory. */
        BOP_IGNORE(bop_timer_start(listener->loop, timer, ACCEPT_AGAIN_MS));
    }
}

/* A bound, listening socket. Returns it or -errno. */
static int open_socket(const struct addrinfo *address)
{
    int one = 1, zero = 0, rc;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);

    if (fd < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0) {
        goto fail;
    }
    if (address->ai_family == AF_INET6) {
        /* So that "::" takes IPv4 too, whatever the system's default. Best effort. */
        BOP_IGNORE(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)));
    }
    if (bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0) {
        goto fail;
    }
    return fd;

fail:
    rc = -errno;
    BOP_IGNORE(close(fd)); /* Nothing was done with it. */
    return rc;
}

/* The first address of the host that can be listened on. */
static int open_any(const char *host, uint16_t port, struct bop_error *err)
{
    struct addrinfo *list;
    int rc = bop__address_resolve(host, port, "listen on", &list, err);

    if (rc != 0) {
        return rc;
    }
    for (const struct addrinfo *address = list; address != NULL; address = address->ai_next) {
        int fd = open_socket(address);

        if (fd >= 0) {
            freeaddrinfo(list);
            return fd;
        }
        rc = rc != 0 ? rc : fd; /* The first address is the one people mean. */
    }
    freeaddrinfo(list);
    return bop__address_error(err, rc, "listen on", host, port);
}

static int start_listening(struct bop_listener *listener, const char *host, struct bop_error *err)
{
    struct sockaddr_storage storage;
    socklen_t size = sizeof(storage);
    int rc = open_any(host, listener->port, err);

    if (rc < 0) {
        return rc;
    }
    listener->source.fd = rc;
    if (getsockname(rc, (struct sockaddr *)&storage, &size) != 0) {
        return bop__address_error(err, -errno, "listen on", host, listener->port);
    }
    rc = bop__loop_watch(listener->loop, &listener->source, EPOLLIN);
    if (rc != 0) {
        return bop__address_error(err, rc, "listen on", host, listener->port);
    }
    listener->port = bop__address_of((struct sockaddr *)&storage).port;
    return 0;
}

int bop_listen(struct bop_loop *loop, const struct bop_listen_options *options,
               struct bop_listener **out_listener, struct bop_error *err)
{
    const char *host = options->host != NULL ? options->host : "127.0.0.1";
    struct bop_listener *listener;
    int rc;

    if (options->on_accept == NULL || host[0] == '\0') {
        return bop__address_error(err, BOP_EINVAL, "listen on", host, options->port);
    }
    if (loop->destroying) {
        return bop__address_error(err, BOP_ECLOSED, "listen on", host, options->port);
    }
    listener = (struct bop_listener *)bop_alloc_zeroed(loop->allocator, sizeof(*listener));
    if (listener == NULL) {
        return bop__address_error(err, BOP_ENOMEM, "listen on", host, options->port);
    }
    listener->loop = loop;
    listener->source.fd = -1;
    listener->source.on_events = on_listener_events;
    bop_timer_init(&listener->again, accept_again);
    listener->options = *options;
    listener->options.host = NULL;
    if (listener->options.connections_max == 0) {
        listener->options.connections_max = CONNECTIONS_MAX_DEFAULT;
    }
    listener->port = options->port;
    rc = start_listening(listener, host, err);
    if (rc != 0) {
        bop__loop_close_source(loop, &listener->source);
        free_listener(listener);
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
    listener->closed = true;
    bop_timer_stop(listener->loop, &listener->again);
    bop__loop_close_source(listener->loop, &listener->source);
    bop_list_remove(&listener->link);
    bop_list_push_back(&listener->loop->retired, &listener->link);
}

uint16_t bop_listener_port(const struct bop_listener *listener)
{
    return listener->port;
}
