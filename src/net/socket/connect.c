/*
 * Connecting: the addresses of a host are tried in turn until one answers, all
 * within one timeout.
 */
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "socket_internal.h"

static void on_connect_events(struct bop__source *source, uint32_t events);

/* Trouble of ours, which another address would not mend. */
static bool is_local(int rc)
{
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS || rc == -ENOSPC;
}

/* Begin to connect to one address. Returns 0 or -errno. */
static int try_address(struct bop_socket *sock, const struct addrinfo *address)
{
    int one = 1, rc;

    sock->peer = bop__address_of(address->ai_addr);
    if (sock->peer_text != NULL) {
        bop__address_format(&sock->peer, sock->peer_text);
    }
    sock->source.on_events = on_connect_events;
    sock->source.fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                             IPPROTO_TCP);
    if (sock->source.fd < 0) {
        return -errno;
    }
    /* It costs latency if it fails, nothing else. */
    BOP_IGNORE(setsockopt(sock->source.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
    rc = connect(sock->source.fd, address->ai_addr, address->ai_addrlen);
    if (rc != 0 && errno != EINPROGRESS && errno != EINTR) {
        rc = -errno;
    } else {
        rc = bop__loop_watch(sock->loop, &sock->source, EPOLLOUT);
    }
    if (rc != 0) {
        bop__loop_close_source(sock->loop, &sock->source);
    }
    return rc;
}

/* Go on to the next address that can be tried. rc is what becomes of it if there
 * is none. Returns 0 or -errno. */
static int try_next(struct bop_socket *sock, int rc)
{
    while (sock->address != NULL) {
        const struct addrinfo *address = sock->address;

        sock->address = address->ai_next;
        rc = try_address(sock, address);
        if (rc == 0 || is_local(rc)) {
            break;
        }
    }
    return rc;
}

/* To a free port of this host a connection may be made from that very port, to
 * itself. */
static bool is_to_itself(const struct bop_socket *sock)
{
    struct sockaddr_storage storage;
    socklen_t size = sizeof(storage);
    struct bop__address own;

    if (getsockname(sock->source.fd, (struct sockaddr *)&storage, &size) != 0) {
        return false;
    }
    own = bop__address_of((struct sockaddr *)&storage);
    return own.family == sock->peer.family && own.port == sock->peer.port &&
           memcmp(own.ip, sock->peer.ip, sizeof(own.ip)) == 0;
}

static void become_open(struct bop_socket *sock)
{
    sock->state = BOP__SOCKET_OPEN;
    sock->source.on_events = bop__socket_on_events;
    freeaddrinfo(sock->addresses);
    sock->addresses = NULL;
    sock->address = NULL;
    bop__socket_watch(sock, EPOLLIN);
    if (sock->state == BOP__SOCKET_CLOSED) {
        return;
    }
    if (bop_socket_queued(sock) > 0 || sock->leaving) {
        bop_socket_flush_later(sock);
    }
    if (!sock->leaving) { /* The timer is the one of leaving then. */
        bop_timer_stop(sock->loop, &sock->timer);
        if (sock->events->on_open != NULL) {
            sock->events->on_open(sock, sock->user);
        }
    }
}

static void on_connect_events(struct bop__source *source, uint32_t events)
{
    struct bop_socket *sock = BOP_CONTAINER_OF(source, struct bop_socket, source);
    int rc = bop__socket_error(source->fd);

    if (rc == 0 && is_to_itself(sock)) {
        rc = -ECONNREFUSED; /* Nobody listens there. */
    }
    if (rc == 0 && (events & EPOLLOUT)) {
        become_open(sock);
        return;
    }
    bop__loop_close_source(sock->loop, source);
    rc = try_next(sock, rc != 0 ? rc : -ECONNREFUSED);
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
    }
}

/* Returns 0, also when connecting has failed already, which on_close will tell;
 * or local trouble. */
static int start_connecting(struct bop_socket *sock, const struct bop_connect_options *options,
                            struct bop_error *err)
{
    int rc = bop__address_resolve(options->host, options->port, "connect to", &sock->addresses,
                                  NULL);

    if (rc == 0) {
        sock->address = sock->addresses;
        rc = try_next(sock, 0);
    }
    if (is_local(rc)) {
        return bop__address_error(err, rc, "connect to", options->host, options->port);
    }
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
        return 0;
    }
    if (options->timeout_ms != 0) {
        rc = bop_timer_start(sock->loop, &sock->timer, options->timeout_ms);
        if (rc != 0) {
            return bop__address_error(err, rc, "connect to", options->host, options->port);
        }
    }
    return 0;
}

int bop_connect(struct bop_loop *loop, const struct bop_connect_options *options,
                struct bop_socket **out_socket, struct bop_error *err)
{
    struct bop_socket *sock;
    int rc;

    if (options->host == NULL || options->host[0] == '\0' || options->events == NULL ||
        options->events->on_data == NULL || options->events->on_close == NULL) {
        return bop_error_set(err, BOP_EINVAL, "connect");
    }
    if (loop->destroying) {
        return bop__address_error(err, BOP_ECLOSED, "connect to", options->host, options->port);
    }
    sock = bop__socket_create(loop, &options->limits);
    if (sock == NULL) {
        return bop__address_error(err, BOP_ENOMEM, "connect to", options->host, options->port);
    }
    sock->events = options->events;
    sock->user = options->user;
    rc = start_connecting(sock, options, err);
    if (rc != 0) {
        bop__socket_discard(sock);
        return rc;
    }
    *out_socket = sock;
    return 0;
}
