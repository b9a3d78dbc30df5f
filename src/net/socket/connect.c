/*
 * Connecting: a name is resolved, then its addresses are tried by "happy
 * eyeballs" (RFC 8305): in the order given but with the families in turn, each a
 * moment after the one before or as soon as that failed, the first one to be
 * connected wins and the others are closed. All of it, and TLS after it, within
 * the one timeout of the socket.
 *
 * What belongs to it lies in a block that an established socket does not need.
 * It is freed at the end of the turn in which connecting ended, for events of
 * its descriptors may have been reported already.
 */
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../resolve/resolve_internal.h"
#include "socket_internal.h"

#define TIMEOUT_MS_DEFAULT 30000

/* "Connection Attempt Delay" of RFC 8305, as recommended. */
#define ATTEMPT_DELAY_MS 250

/* A Unix listener whose backlog is full does not say when it has room again. */
#define UNIX_AGAIN_MS 20

struct attempt {
    struct bop__source source;
    struct bop__connecting *connecting;
    struct bop_address address;
};

struct bop__connecting {
    struct bop__guest guest; /* Once it has ended. */
    struct bop__socket *sock;
    struct bop_loop *loop;
    struct bop_resolve *resolve; /* While the name is looked up. */
    struct bop_timer delay;      /* Until the next attempt. */
    struct bop_tls *tls;
    struct bop_address local; /* To bind to; its family is AF_UNSPEC for any. */
    size_t count;             /* Of attempts; */
    size_t next;              /* those from here on are yet to be made, */
    size_t running;           /* and so many of the others are under way. */
    int code;                 /* Of the failure that says most. */
    struct sockaddr_un path;
    socklen_t path_size;                                  /* 0: no Unix socket. */
    char target[BOP__HOST_NAME_MAX + sizeof("[]:65535")]; /* For people. */
    char tls_name[BOP__HOST_NAME_MAX + 1];
    struct attempt attempts[BOP_RESOLVE_ADDRESSES_MAX];
};

/* ---- The end ---- */

static void free_connecting(struct bop__guest *guest)
{
    struct bop__connecting *connecting = BOP_CONTAINER_OF(guest, struct bop__connecting, guest);

    bop_free(connecting->loop->allocator, connecting, sizeof(*connecting));
}

void bop__connecting_end(struct bop__socket *sock)
{
    struct bop__connecting *connecting = sock->more->connecting;

    sock->more->connecting = NULL;
    if (connecting->resolve != NULL) {
        bop__resolve_drop(connecting->resolve);
    }
    bop_timer_stop(connecting->loop, &connecting->delay);
    for (size_t i = 0; i < connecting->count; i++) {
        bop__loop_close_source(connecting->loop, &connecting->attempts[i].source);
    }
    bop__loop_guest_leaves(connecting->loop, &connecting->guest);
}

/* Close the socket and say why. */
static void fail(struct bop__connecting *connecting, int code)
{
    struct bop_error err;

    if (code == BOP_EINVAL) {
        bop_error_say(&err, code, "connect to %s: no valid host and port", connecting->target);
    } else {
        bop_error_set(&err, code, "connect to %s", connecting->target);
    }
    bop__socket_set_error_text(connecting->sock, err.message);
    bop__socket_begin_close(connecting->sock, code);
}

/* ---- Attempts ---- */

/* Trouble of ours, which another address would not mend. */
static bool is_local(int rc)
{
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS || rc == -ENOSPC;
}

/* There is no way from here to such an address: of several failures it says least. */
static bool is_unreachable(int rc)
{
    return rc == -ENETUNREACH || rc == -EHOSTUNREACH || rc == -EADDRNOTAVAIL || rc == -EAFNOSUPPORT;
}

static void note_failure(struct bop__connecting *connecting, int rc)
{
    if (connecting->code == 0 || (is_unreachable(connecting->code) && !is_unreachable(rc))) {
        connecting->code = rc;
    }
}

/* Choose the local address, if that was asked for. */
static int bind_local(const struct bop__connecting *connecting, int fd, int family)
{
    struct bop_address local = connecting->local;
    struct sockaddr_storage storage;
    socklen_t size;
    int one = 1;

    if (local.family == AF_UNSPEC && local.port == 0) {
        return 0;
    }
    if (local.family == AF_UNSPEC) {
        local.family = (uint16_t)family; /* Any address, but this port. */
    }
    if (local.family != family) {
        return -EAFNOSUPPORT;
    }
    /* Best effort both: a port is not blocked by connections of the past, nor, if
     * the kernel is to choose it, by ones to other addresses. */
    BOP_IGNORE(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
    if (local.port == 0) {
        BOP_IGNORE(setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)));
    }
    size = bop_address_to_sockaddr(&local, &storage);
    return bind(fd, (struct sockaddr *)&storage, size) == 0 ? 0 : -errno;
}

/* Open, bind and connect one. Returns 0 if that is under way, or -errno. */
static int open_attempt(struct bop__connecting *connecting, struct attempt *attempt)
{
    bool is_unix = connecting->path_size != 0;
    int family = is_unix ? AF_UNIX : attempt->address.family;
    int one = 1, rc;
    struct sockaddr_storage storage;
    socklen_t size = is_unix ? 0 : bop_address_to_sockaddr(&attempt->address, &storage);
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    attempt->source.fd = fd;
    if (is_unix) {
        rc = connect(fd, (struct sockaddr *)&connecting->path, connecting->path_size);
    } else {
        /* It costs latency if it fails, nothing else. */
        BOP_IGNORE(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
        rc = bind_local(connecting, fd, family);
        if (rc != 0) {
            return rc;
        }
        rc = connect(fd, (struct sockaddr *)&storage, size);
    }
    if (rc != 0 && errno != EINPROGRESS && errno != EINTR) {
        return -errno;
    }
    return bop__loop_watch(connecting->loop, &attempt->source, EPOLLOUT);
}

static void end_attempt(struct bop__connecting *connecting, struct attempt *attempt, int rc)
{
    bop__loop_close_source(connecting->loop, &attempt->source);
    note_failure(connecting, rc);
}

/* Make the next attempt that can be begun. Returns 0 if one is under way, also
 * an earlier one; or what became of all. */
static int attempt_next(struct bop__connecting *connecting)
{
    while (connecting->next < connecting->count) {
        struct attempt *attempt = &connecting->attempts[connecting->next];
        int rc = open_attempt(connecting, attempt);

        if (rc == -EAGAIN && connecting->path_size != 0) {
            bop__loop_close_source(connecting->loop, &attempt->source);
            bop_timer_start(connecting->loop, &connecting->delay, UNIX_AGAIN_MS);
            return 0;
        }
        connecting->next++;
        if (rc == 0) {
            connecting->running++;
            if (connecting->next < connecting->count) {
                bop_timer_start(connecting->loop, &connecting->delay, ATTEMPT_DELAY_MS);
            }
            return 0;
        }
        end_attempt(connecting, attempt, rc);
        if (is_local(rc)) {
            connecting->code = rc;
            break;
        }
    }
    return connecting->running > 0 ? 0 : connecting->code;
}

static void attempt_next_or_fail(struct bop__connecting *connecting)
{
    int rc = attempt_next(connecting);

    if (rc != 0) {
        fail(connecting, rc);
    }
}

static void on_delay(struct bop_timer *timer)
{
    attempt_next_or_fail(BOP_CONTAINER_OF(timer, struct bop__connecting, delay));
}

/* To a free port of this host a connection may be made from that very port, to
 * itself. */
static bool is_to_itself(const struct attempt *attempt)
{
    struct sockaddr_storage storage;
    socklen_t size = sizeof(storage);
    struct bop_address own;

    if (attempt->address.family == AF_UNSPEC ||
        getsockname(attempt->source.fd, (struct sockaddr *)&storage, &size) != 0) {
        return false;
    }
    own = bop_address_from_sockaddr((struct sockaddr *)&storage);
    own.scope = attempt->address.scope;
    return bop_address_equal(&own, &attempt->address);
}

/* This one has won. */
static void succeed(struct attempt *attempt)
{
    struct bop__connecting *connecting = attempt->connecting;
    struct bop__socket *sock = connecting->sock;
    char name[BOP_ADDRESS_TEXT_MAX];

    if (attempt->address.family != AF_UNSPEC) {
        bop_address_format(&attempt->address, name);
        bop__socket_set_peer_name(sock, name);
    }
    bop__socket_connected(sock, &attempt->source, connecting->tls,
                          connecting->tls_name[0] != '\0' ? connecting->tls_name : NULL);
    if (sock->more->connecting != NULL) { /* Else it has closed meanwhile. */
        bop__connecting_end(sock);
    }
}

static void on_attempt_events(struct bop__source *source, uint32_t events)
{
    struct attempt *attempt = BOP_CONTAINER_OF(source, struct attempt, source);
    struct bop__connecting *connecting = attempt->connecting;
    int rc = bop__socket_error(source->fd);

    if (rc == 0 && is_to_itself(attempt)) {
        rc = -ECONNREFUSED; /* Nobody listens there. */
    }
    if (rc == 0 && (events & EPOLLOUT)) {
        succeed(attempt);
        return;
    }
    connecting->running--;
    end_attempt(connecting, attempt, rc != 0 ? rc : -ECONNREFUSED);
    attempt_next_or_fail(connecting); /* No need to wait for the delay. */
}

/* ---- Addresses ---- */

static void add_attempt(struct bop__connecting *connecting, const struct bop_address *address)
{
    struct attempt *attempt = &connecting->attempts[connecting->count++];

    attempt->source.fd = -1;
    attempt->source.on_events = on_attempt_events;
    attempt->connecting = connecting;
    attempt->address = *address;
}

/* The next of a family from `at` on; count if there is none. */
static size_t find_family(const struct bop_address *addresses, size_t count, size_t at, bool first)
{
    while (at < count && (addresses[at].family == addresses[0].family) != first) {
        at++;
    }
    return at;
}

/* The families in turn, beginning with that of the first address (RFC 8305, 4). */
static void add_interleaved(struct bop__connecting *connecting, const struct bop_address *addresses,
                            size_t count)
{
    size_t at[2] = {0, find_family(addresses, count, 0, false)};

    for (unsigned turn = 0; at[0] < count || at[1] < count; turn ^= 1) {
        if (at[turn] < count) {
            add_attempt(connecting, &addresses[at[turn]]);
            at[turn] = find_family(addresses, count, at[turn] + 1, turn == 0);
        }
    }
}

static void on_resolved(struct bop_resolve *resolve, void *user, const struct bop_resolved *result)
{
    struct bop__connecting *connecting = (struct bop__connecting *)user;

    connecting->resolve = NULL;
    if (result->code == 0) {
        add_interleaved(connecting, result->addresses, result->count);
        attempt_next_or_fail(connecting);
        return;
    }
    bop__socket_set_error_text(connecting->sock, result->text);
    bop__socket_begin_close(connecting->sock, result->code);
}

/* ---- The beginning ---- */

/* Begin with what the host is. Returns 0; BOP_EINVAL or BOP_ENOTFOUND for one
 * that is none; or local trouble. */
static int begin_host(struct bop__connecting *connecting, const struct bop_connect_options *options)
{
    struct bop_resolve_options ask = {.host = options->host,
                                      .port = options->port,
                                      .resolver = options->resolver,
                                      .timeout_ms = UINT32_MAX, /* The socket's is shorter. */
                                      .on_done = on_resolved,
                                      .user = connecting};
    struct bop_address address;
    int rc;

    if (options->address != NULL) {
        add_attempt(connecting, options->address);
        return options->address->port != 0 ? attempt_next(connecting) : BOP_EINVAL;
    }
    if (options->port == 0 || strlen(options->host) > BOP__HOST_NAME_MAX) {
        return BOP_EINVAL;
    }
    rc = bop_address_parse(options->host, options->port, &address);
    if (rc == 0) {
        add_attempt(connecting, &address);
        return attempt_next(connecting);
    }
    return rc == BOP_ENOTFOUND && bop__host_may_be_name(options->host)
               ? bop_resolve(connecting->loop, &ask, &connecting->resolve, NULL)
               : rc;
}

static int begin_path(struct bop__connecting *connecting)
{
    static const struct bop_address none;

    add_attempt(connecting, &none);
    return attempt_next(connecting);
}

/* "HOST:PORT" or "unix:PATH". */
static void name_target(struct bop__connecting *connecting,
                        const struct bop_connect_options *options)
{
    char address[BOP_ADDRESS_TEXT_MAX];

    if (options->path != NULL) {
        snprintf(connecting->target, sizeof(connecting->target), "unix:%s", options->path);
    } else if (options->address != NULL) {
        bop_address_format(options->address, address);
        snprintf(connecting->target, sizeof(connecting->target), "%s", address);
    } else if (strchr(options->host, ':') != NULL && options->host[0] != '[') {
        snprintf(connecting->target, sizeof(connecting->target), "[%.*s]:%u", BOP__HOST_NAME_MAX,
                 options->host, options->port);
    } else {
        snprintf(connecting->target, sizeof(connecting->target), "%.*s:%u", BOP__HOST_NAME_MAX,
                 options->host, options->port);
    }
}

static void set_tls(struct bop__connecting *connecting, const struct bop_connect_options *options)
{
    const char *name = options->tls_name != NULL ? options->tls_name : options->host;

    connecting->tls = options->tls;
    if (options->tls != NULL && name != NULL) {
        snprintf(connecting->tls_name, sizeof(connecting->tls_name), "%s", name);
    }
}

/* Returns 0 or BOP_ENOMEM. */
static int create_connecting(struct bop__socket *sock, const struct bop_connect_options *options,
                             struct bop__connecting **out_connecting)
{
    struct bop_loop *loop = bop__socket_loop(sock);
    struct bop__socket_more *more = bop__socket_more(sock);
    struct bop__connecting *connecting;

    if (more == NULL) {
        return BOP_ENOMEM;
    }
    connecting = (struct bop__connecting *)bop_alloc_zeroed(loop->allocator, sizeof(*connecting));
    if (connecting == NULL) {
        return BOP_ENOMEM;
    }
    more->connecting = connecting;
    bop_list_init(&connecting->guest.link);
    connecting->guest.finish = free_connecting;
    connecting->sock = sock;
    connecting->loop = loop;
    bop_timer_init(&connecting->delay, on_delay);
    name_target(connecting, options);
    set_tls(connecting, options);
    bop__socket_set_peer_name(sock, connecting->target);
    *out_connecting = connecting;
    return 0;
}

/* Where to connect from, and to if that is a path. Returns 0 or a bad option's error. */
static int set_ends(struct bop__connecting *connecting, const struct bop_connect_options *options,
                    struct bop_error *err)
{
    if (options->source_host != NULL &&
        bop_address_parse(options->source_host, 0, &connecting->local) != 0) {
        return bop_error_say(err, BOP_EINVAL, "connect from %s: no numeric address",
                             options->source_host);
    }
    connecting->local.port = options->source_port;
    if (options->path != NULL) {
        int size = bop__unix_address(options->path, &connecting->path);

        if (size < 0) {
            return bop_error_set(err, size, "connect to %s", connecting->target);
        }
        connecting->path_size = (socklen_t)size;
    }
    return 0;
}

/* Returns 0, also when connecting has failed already, which on_close will tell;
 * or local trouble. */
static int start_connecting(struct bop__socket *sock, const struct bop_connect_options *options,
                            struct bop_error *err)
{
    struct bop__connecting *connecting = NULL;
    int rc = create_connecting(sock, options, &connecting);

    if (rc != 0) {
        return bop_error_set(err, rc, "connect");
    }
    rc = set_ends(connecting, options, err);
    if (rc != 0) {
        return rc;
    }
    sock->opening = true;
    bop__socket_set_timeout(sock,
                            options->timeout_ms != 0 ? options->timeout_ms : TIMEOUT_MS_DEFAULT);
    rc = options->path != NULL ? begin_path(connecting) : begin_host(connecting, options);
    if (rc == BOP_EBUSY || is_local(rc)) {
        return bop_error_set(err, rc, "connect to %s", connecting->target);
    }
    if (rc != 0) {
        fail(connecting, rc);
    }
    return 0;
}

static bool are_options_complete(const struct bop_connect_options *options)
{
    bool has_target = options->path != NULL
                          ? options->path[0] != '\0'
                          : options->address != NULL ||
                                (options->host != NULL && options->host[0] != '\0');

    return has_target && options->events != NULL && options->events->on_data != NULL &&
           options->events->on_close != NULL;
}

int bop_connect(struct bop_loop *loop, const struct bop_connect_options *options,
                struct bop_socket **out_socket, struct bop_error *err)
{
    struct bop__socket_context *context;
    struct bop__socket *sock;
    int rc;

    bop__loop_check_thread(loop);
    if (!are_options_complete(options) || options->user_bytes > BOP__USER_BYTES_MAX) {
        return bop_error_set(err, BOP_EINVAL, "connect");
    }
    if (loop->destroying) {
        return bop_error_set(err, BOP_ECLOSED, "connect");
    }
    context = bop__socket_context(loop, &options->limits, options->user_bytes);
    sock = context != NULL ? bop__socket_create(context) : NULL;
    if (sock == NULL) {
        return bop_error_set(err, BOP_ENOMEM, "connect");
    }
    sock->opening = true;
    sock->events = options->events;
    if (options->user_bytes == 0) {
        sock->user = options->user;
    }
    rc = start_connecting(sock, options, err);
    if (rc != 0) {
        bop__socket_discard(sock);
        return rc;
    }
    *out_socket = bop__socket_handle(sock);
    return 0;
}
