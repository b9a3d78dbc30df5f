/*
 * Connecting: the addresses of a host are tried in turn until one answers, all
 * within one timeout.
 */
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "tcp_internal.h"

static void on_connect_events(struct bop__source *source, uint32_t events);

/* Trouble of ours, which another address would not mend. */
static bool is_local(int rc)
{
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS || rc == -ENOSPC;
}

/* Begin to connect to one address. Returns 0 or -errno. */
static int try_address(struct bop_tcp *tcp, const struct addrinfo *address)
{
    int one = 1, rc;

    tcp->peer = bop__address_of(address->ai_addr);
    if (tcp->peer_text != NULL) {
        bop__address_format(&tcp->peer, tcp->peer_text);
    }
    tcp->source.on_events = on_connect_events;
    tcp->source.fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                            IPPROTO_TCP);
    if (tcp->source.fd < 0) {
        return -errno;
    }
    /* It costs latency if it fails, nothing else. */
    BOP_IGNORE(setsockopt(tcp->source.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
    rc = connect(tcp->source.fd, address->ai_addr, address->ai_addrlen);
    if (rc != 0 && errno != EINPROGRESS && errno != EINTR) {
        rc = -errno;
    } else {
        rc = bop__loop_watch(tcp->loop, &tcp->source, EPOLLOUT);
    }
    if (rc != 0) {
        bop__loop_close_source(tcp->loop, &tcp->source);
    }
    return rc;
}

/* Go on to the next address that can be tried. rc is what becomes of it if there
 * is none. Returns 0 or -errno. */
static int try_next(struct bop_tcp *tcp, int rc)
{
    while (tcp->address != NULL) {
        const struct addrinfo *address = tcp->address;

        tcp->address = address->ai_next;
        rc = try_address(tcp, address);
        if (rc == 0 || is_local(rc)) {
            break;
        }
    }
    return rc;
}

/* To a free port of this host a connection may be made from that very port, to
 * itself. */
static bool is_to_itself(const struct bop_tcp *tcp)
{
    struct sockaddr_storage storage;
    socklen_t size = sizeof(storage);
    struct bop__address own;

    if (getsockname(tcp->source.fd, (struct sockaddr *)&storage, &size) != 0) {
        return false;
    }
    own = bop__address_of((struct sockaddr *)&storage);
    return own.family == tcp->peer.family && own.port == tcp->peer.port &&
           memcmp(own.ip, tcp->peer.ip, sizeof(own.ip)) == 0;
}

static void become_open(struct bop_tcp *tcp)
{
    tcp->state = BOP__TCP_OPEN;
    tcp->source.on_events = bop__tcp_on_events;
    freeaddrinfo(tcp->addresses);
    tcp->addresses = NULL;
    tcp->address = NULL;
    bop__tcp_watch(tcp, EPOLLIN);
    if (tcp->state == BOP__TCP_CLOSED) {
        return;
    }
    if (bop_tcp_queued(tcp) > 0 || tcp->leaving) {
        bop_tcp_flush_later(tcp);
    }
    if (!tcp->leaving) { /* The timer is the one of leaving then. */
        bop_timer_stop(tcp->loop, &tcp->timer);
        if (tcp->events->on_open != NULL) {
            tcp->events->on_open(tcp, tcp->user);
        }
    }
}

static void on_connect_events(struct bop__source *source, uint32_t events)
{
    struct bop_tcp *tcp = BOP_CONTAINER_OF(source, struct bop_tcp, source);
    int rc = bop__socket_error(source->fd);

    if (rc == 0 && is_to_itself(tcp)) {
        rc = -ECONNREFUSED; /* Nobody listens there. */
    }
    if (rc == 0 && (events & EPOLLOUT)) {
        become_open(tcp);
        return;
    }
    bop__loop_close_source(tcp->loop, source);
    rc = try_next(tcp, rc != 0 ? rc : -ECONNREFUSED);
    if (rc != 0) {
        bop__tcp_begin_close(tcp, rc);
    }
}

/* Returns 0, also when connecting has failed already, which on_close will tell;
 * or local trouble. */
static int start_connecting(struct bop_tcp *tcp, const struct bop_tcp_connect_options *options,
                            struct bop_error *err)
{
    int rc = bop__address_resolve(options->host, options->port, "connect to", &tcp->addresses,
                                  NULL);

    if (rc == 0) {
        tcp->address = tcp->addresses;
        rc = try_next(tcp, 0);
    }
    if (is_local(rc)) {
        return bop__address_error(err, rc, "connect to", options->host, options->port);
    }
    if (rc != 0) {
        bop__tcp_begin_close(tcp, rc);
        return 0;
    }
    if (options->timeout_ms != 0) {
        rc = bop_timer_start(tcp->loop, &tcp->timer, options->timeout_ms);
        if (rc != 0) {
            return bop__address_error(err, rc, "connect to", options->host, options->port);
        }
    }
    return 0;
}

int bop_tcp_connect(struct bop_loop *loop, const struct bop_tcp_connect_options *options,
                    struct bop_tcp **out_tcp, struct bop_error *err)
{
    struct bop_tcp *tcp;
    int rc;

    if (options->host == NULL || options->host[0] == '\0' || options->events == NULL ||
        options->events->on_data == NULL || options->events->on_close == NULL) {
        return bop_error_set(err, BOP_EINVAL, "connect");
    }
    if (loop->destroying) {
        return bop__address_error(err, BOP_ECLOSED, "connect to", options->host, options->port);
    }
    tcp = bop__tcp_create(loop, &options->limits);
    if (tcp == NULL) {
        return bop__address_error(err, BOP_ENOMEM, "connect to", options->host, options->port);
    }
    tcp->events = options->events;
    tcp->user = options->user;
    rc = start_connecting(tcp, options, err);
    if (rc != 0) {
        bop__tcp_discard(tcp);
        return rc;
    }
    *out_tcp = tcp;
    return 0;
}
