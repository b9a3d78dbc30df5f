/*
 * TCP connections on a loop: listen, connect, framed reads, corked writes with
 * back-pressure.
 *
 * Reading: on_data gets all bytes not yet consumed and says how many it took;
 * the rest is kept and given again with what comes after. Writing: bytes are
 * copied to the connection's queue and sent at the end of the turn, what the
 * kernel refuses when it is ready again.
 *
 * Ownership: a connection belongs to the loop. It is valid from the call or
 * callback that gave it until its on_close returns, which is called exactly
 * once per connection, always from the loop. After bop_socket_close() no callback
 * but on_close follows.
 *
 * Threads: the loop's only.
 */
#ifndef BOP_SOCKET_H
#define BOP_SOCKET_H

#include <bop/base.h>
#include <bop/error.h>
#include <bop/loop.h>
#include <bop/slice.h>

struct bop_socket;
struct bop_socket_listener;

/** What happens on a connection. user is the one of the connection. NULL callbacks are skipped. */
struct bop_socket_events {
    /* An outgoing connection is established. */
    void (*on_open)(struct bop_socket *sock, void *user);
    /* Bytes came. Returns how many were consumed (0 to size). Required. */
    size_t (*on_data)(struct bop_socket *sock, void *user, struct bop_slice bytes);
    /* The queue fell to the low watermark after having been above the high one. */
    void (*on_drain)(struct bop_socket *sock, void *user);
    /* Closed: 0 by the peer in order, BOP_ECANCELED by us, -errno or BOP_EFULL else. Required. */
    void (*on_close)(struct bop_socket *sock, void *user, int reason);
};

struct bop_socket_limits {
    size_t read_buffer_max;  /* Unconsumed bytes; more closes with BOP_EFULL. Default 16 MiB + 64
                                KiB. */
    size_t write_buffer_max; /* Queued bytes; a write above is refused. Default 64 MiB. */
    size_t write_high;       /* Watermark for on_drain. Default 1 MiB. */
    size_t write_low;        /* Default 256 KiB. */
};

struct bop_socket_listen_options {
    const char *host; /* A numeric address or a name; NULL: loopback. */
    uint16_t port;    /* 0: any free one, see bop_socket_listener_port(). */
    struct bop_socket_limits limits;
    unsigned connections_max; /* Further ones are closed at once. Default 65,536. */
    /* A connection came. Returns false to close it, else sets its events and user with
     * bop_socket_attach(). Required. */
    bool (*on_accept)(struct bop_socket_listener *listener, struct bop_socket *sock, void *user);
    void *user;
};

/** Listen. The error of a busy port names host and port. */
BOP_API BOP_MUST_USE int bop_socket_listen(struct bop_loop *loop,
                                        const struct bop_socket_listen_options *options,
                                        struct bop_socket_listener **out_listener,
                                        struct bop_error *err);
/** Stop listening; accepted connections go on. NULL is fine. */
BOP_API void bop_socket_listener_close(struct bop_socket_listener *listener);
BOP_API uint16_t bop_socket_listener_port(const struct bop_socket_listener *listener);

struct bop_socket_connect_options {
    const char *host; /* A numeric address, or a name (resolved by getaddrinfo, which may block). */
    uint16_t port;
    uint64_t timeout_ms; /* To be established; 0: the system's. Then on_close(-ETIMEDOUT). */
    struct bop_socket_limits limits;
    const struct bop_socket_events *events; /* Borrowed while connected. */
    void *user;
};

/** Begin to connect. Failure to connect comes as on_close; only local trouble is returned. */
BOP_API BOP_MUST_USE int bop_socket_connect(struct bop_loop *loop,
                                         const struct bop_socket_connect_options *options,
                                         struct bop_socket **out_socket, struct bop_error *err);

/** Set who hears of a connection. events is borrowed while connected. */
BOP_API void bop_socket_attach(struct bop_socket *sock, const struct bop_socket_events *events, void *user);

/** Queue a copy. Returns 0, BOP_EFULL (nothing queued), BOP_ENOMEM or BOP_ECLOSED. */
BOP_API BOP_MUST_USE int bop_socket_write(struct bop_socket *sock, struct bop_slice bytes);

/**
 * The connection's output queue itself, to encode into without a copy: append
 * whole messages only, in this very callback, then call bop_socket_flush_later().
 * NULL once the connection is closing or above write_buffer_max.
 */
BOP_API struct bop_buf *bop_socket_output(struct bop_socket *sock);
BOP_API void bop_socket_flush_later(struct bop_socket *sock);

/** Bytes queued and not yet taken by the kernel. */
BOP_API size_t bop_socket_queued(const struct bop_socket *sock);

/** Stop and go on reading; what is kept unconsumed is given again after resuming. */
BOP_API void bop_socket_pause(struct bop_socket *sock);
BOP_API void bop_socket_resume(struct bop_socket *sock);

/** Drop what is queued and close; on_close(BOP_ECANCELED) follows from the loop. Idempotent. */
BOP_API void bop_socket_close(struct bop_socket *sock);

/** As close, once what is queued has gone out, or after timeout_ms. */
BOP_API void bop_socket_close_after_flush(struct bop_socket *sock, uint64_t timeout_ms);

/** "127.0.0.1:4000" of the other side, for messages. Valid as long as the connection. */
BOP_API const char *bop_socket_peer_name(const struct bop_socket *sock);

#endif
