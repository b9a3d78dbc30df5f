/*
 * Connecting: the addresses of a host are tried in turn until one answers, all
 * within one timeout.
 */
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "socket_internal.h"

#define TIMEOUT_MS_DEFAULT 30000

struct bop__connecting {
    struct bop__source source;
    struct bop__socket *sock;
    struct addrinfo *addresses;
    const struct addrinfo *address; /* The next of them to try. */
    struct bop__address peer;       /* The one that is tried. */
    struct bop_tls *tls;
};

static void on_connect_events(struct bop__source *source, uint32_t events);

/* Trouble of ours, which another address would not mend. */
static bool is_local(int rc)
{
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS || rc == -ENOSPC;
}

void bop__connecting_end(struct bop__socket *sock)
{
    struct bop__connecting *connecting = sock->more->connecting;
    struct bop_loop *loop = bop__socket_loop(sock);

    bop__loop_close_source(loop, &connecting->source);
    if (connecting->addresses != NULL) {
        freeaddrinfo(connecting->addresses);
        connecting->addresses = NULL;
        connecting->address = NULL;
    }
}

void bop__connecting_free(struct bop__socket *sock)
{
    bop_free(bop__socket_loop(sock)->allocator, sock->more->connecting,
             sizeof(*sock->more->connecting));
    sock->more->connecting = NULL;
}

/* Begin to connect to one address. Returns 0 or -errno. */
static int try_address(struct bop__connecting *connecting, const struct addrinfo *address)
{
    struct bop__source *source = &connecting->source;
    char text[BOP__ADDRESS_TEXT_MAX];
    int one = 1, rc;

    connecting->peer = bop__address_of(address->ai_addr);
    bop__address_format(&connecting->peer, text);
    bop__socket_set_peer_name(connecting->sock, text);
    source->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                        IPPROTO_TCP);
    if (source->fd < 0) {
        return -errno;
    }
    /* It costs latency if it fails, nothing else. */
    BOP_IGNORE(setsockopt(source->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
    rc = connect(source->fd, address->ai_addr, address->ai_addrlen);
    if (rc != 0 && errno != EINPROGRESS && errno != EINTR) {
        rc = -errno;
    } else {
        rc = bop__loop_watch(bop__socket_loop(connecting->sock), source, EPOLLOUT);
    }
    if (rc != 0) {
        bop__loop_close_source(bop__socket_loop(connecting->sock), source);
    }
    return rc;
}

/* Go on to the next address that can be tried. rc is what becomes of it if there
 * is none. Returns 0 or -errno. */
static int try_next(struct bop__connecting *connecting, int rc)
{
    while (connecting->address != NULL) {
        const struct addrinfo *address = connecting->address;

        connecting->address = address->ai_next;
        rc = try_address(connecting, address);
        if (rc == 0 || is_local(rc)) {
            break;
        }
    }
    return rc;
}

/* To a free port of this host a connection may be made from that very port, to
 * itself. */
static bool is_to_itself(const struct bop__connecting *connecting)
{
    struct sockaddr_storage storage;
    socklen_t size = sizeof(storage);
    struct bop__address own;

    if (getsockname(connecting->source.fd, (struct sockaddr *)&storage, &size) != 0) {
        return false;
    }
    own = bop__address_of((struct sockaddr *)&storage);
    return bop_address_equal(&own, &connecting->peer);
}

static void on_connect_events(struct bop__source *source, uint32_t events)
{
    struct bop__connecting *connecting = BOP_CONTAINER_OF(source, struct bop__connecting, source);
    struct bop__socket *sock = connecting->sock;
    int rc = bop__socket_error(source->fd);

    if (rc == 0 && is_to_itself(connecting)) {
        rc = -ECONNREFUSED; /* Nobody listens there. */
    }
    if (rc == 0 && (events & EPOLLOUT)) {
        bop__socket_connected(sock, source, connecting->tls, NULL);
        return;
    }
    bop__loop_close_source(bop__socket_loop(sock), source);
    rc = try_next(connecting, rc != 0 ? rc : -ECONNREFUSED);
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
    }
}

/* Returns 0, also when connecting has failed already, which on_close will tell;
 * or local trouble. */
static int start_connecting(struct bop__socket *sock, const struct bop_connect_options *options)
{
    struct bop__socket_more *more = bop__socket_more(sock);
    struct bop__connecting *connecting;
    int rc;

    connecting = more != NULL ? (struct bop__connecting *)bop_alloc_zeroed(
                                    bop__socket_loop(sock)->allocator, sizeof(*connecting))
                              : NULL;
    if (connecting == NULL) {
        return BOP_ENOMEM;
    }
    more->connecting = connecting;
    connecting->source.fd = -1;
    connecting->source.on_events = on_connect_events;
    connecting->sock = sock;
    connecting->tls = options->tls;
    rc = bop__address_resolve(options->host, options->port, "connect to", &connecting->addresses,
                              NULL);
    if (rc == 0) {
        connecting->address = connecting->addresses;
        rc = try_next(connecting, 0);
    }
    if (is_local(rc)) {
        return rc;
    }
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
        return 0;
    }
    bop__socket_set_timeout(sock,
                            options->timeout_ms != 0 ? options->timeout_ms : TIMEOUT_MS_DEFAULT);
    return 0;
}

int bop_connect(struct bop_loop *loop, const struct bop_connect_options *options,
                struct bop_socket **out_socket, struct bop_error *err)
{
    struct bop__socket_context *context;
    struct bop__socket *sock;
    int rc;

    if (options->host == NULL || options->host[0] == '\0' || options->events == NULL ||
        options->events->on_data == NULL || options->events->on_close == NULL ||
        options->user_bytes > BOP__USER_BYTES_MAX) {
        return bop_error_set(err, BOP_EINVAL, "connect");
    }
    if (loop->destroying) {
        return bop__address_error(err, BOP_ECLOSED, "connect to", options->host, options->port);
    }
    context = bop__socket_context(loop, &options->limits, options->user_bytes);
    sock = context != NULL ? bop__socket_create(context) : NULL;
    if (sock == NULL) {
        return bop__address_error(err, BOP_ENOMEM, "connect to", options->host, options->port);
    }
    sock->opening = true;
    sock->events = options->events;
    if (options->user_bytes == 0) {
        sock->user = options->user;
    }
    rc = start_connecting(sock, options);
    if (rc != 0) {
        bop__socket_discard(sock);
        return bop__address_error(err, rc, "connect to", options->host, options->port);
    }
    *out_socket = bop__socket_handle(sock);
    return 0;
}
