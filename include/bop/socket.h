/*
 * Stream sockets on a loop: TCP and Unix, plain or TLS; listen, connect, framed
 * reads, corked writes with back-pressure.
 *
 * Reading: on_data gets all bytes not yet consumed and says how many it took;
 * the rest is kept and given again with what comes after. Writing: bytes are
 * copied to the socket's queue (or counted, see bop_socket_write_shared) and
 * sent by one call when the callback that wrote them returns, or at the end of
 * the turn; what the kernel refuses is sent when it is ready again.
 *
 * Handles: a struct bop_socket * is an opaque handle that carries a generation,
 * not an address. It is good from the call or callback that gave it until its
 * on_close returns, which is called exactly once per socket, always from the
 * loop. A handle used later, as long as its loop lives, is recognized: calls
 * return BOP_ECLOSED, 0, NULL or false, and do nothing. After
 * bop_socket_close() no callback but on_close follows.
 *
 * Memory: an idle socket holds one block of less than 200 bytes (and what
 * OpenSSL needs, with TLS); buffers belong to the loop and are lent.
 *
 * Threads: the loop's only, but for bop_shared_* (any).
 */
#ifndef BOP_SOCKET_H
#define BOP_SOCKET_H

#include <bop/base.h>
#include <bop/error.h>
#include <bop/loop.h>
#include <bop/shared.h>
#include <bop/slice.h>

struct bop_socket;
struct bop_listener;
struct bop_address;  /* bop/address.h */
struct bop_resolver; /* bop/resolve.h */
struct bop_tls;      /* bop/tls.h: certificates and rules, shared by sockets. */

/** What happens on a socket. user is the one of the socket. NULL callbacks are skipped. */
struct bop_socket_events {
    /* An outgoing connection is established, or a TLS handshake (of either side) is done. */
    void (*on_open)(struct bop_socket *socket, void *user);
    /* Bytes came. Returns how many were consumed (0 to size). Required. */
    size_t (*on_data)(struct bop_socket *socket, void *user, struct bop_slice bytes);
    /* The peer sends no more; writing goes on. Without this callback the socket
     * sends what is queued and closes with reason 0. */
    void (*on_end)(struct bop_socket *socket, void *user);
    /* The queue rose above the high watermark (on) or fell to the low one again (off). */
    void (*on_pressure)(struct bop_socket *socket, void *user, bool on);
    /* Nothing was received or sent for idle_timeout_ms. Without this callback: close(-ETIMEDOUT).
     */
    void (*on_idle)(struct bop_socket *socket, void *user);
    /* lifetime_ms passed. Without this callback: close(-ETIMEDOUT). */
    void (*on_lifetime)(struct bop_socket *socket, void *user);
    /* A rate limit made the socket wait: what was asked and what was left of it, in bytes. */
    void (*on_limited)(struct bop_socket *socket, void *user, uint64_t asked, uint64_t available);
    /* Closed: 0 by the peer in order, BOP_ECANCELED by us, -errno, BOP_EFULL, a TLS error
     * (BOP_ETLS, see bop_socket_error_text) else. Required. */
    void (*on_close)(struct bop_socket *socket, void *user, int reason);
};

/** What a write does that would take the queue over write_buffer_max. */
enum bop_socket_full {
    BOP_SOCKET_REFUSE = 0,  /* It returns BOP_EFULL; nothing is queued. */
    BOP_SOCKET_PAUSE,       /* As REFUSE; and reading pauses above the high watermark until the
                               queue fell to the low one, so that an echo cannot outrun its peer. */
    BOP_SOCKET_DROP_OLDEST, /* Whole writes that were not begun are dropped from the front. */
    BOP_SOCKET_DROP_NEWEST, /* The write itself is dropped and counted; it returns 0. */
    BOP_SOCKET_CLOSE,       /* The socket closes with BOP_EFULL. */
};

enum bop_rate_algorithm {
    BOP_RATE_TOKEN_BUCKET = 0,
    BOP_RATE_SLIDING_WINDOW,
    BOP_RATE_FIXED_WINDOW,
};

/** At most so much each window. All zero: no limit. Over it the socket waits, nothing is lost. */
struct bop_rate {
    enum bop_rate_algorithm algorithm;
    uint64_t bytes_per_s;
    uint64_t operations_per_s; /* Reads or writes. */
    uint64_t burst_bytes;      /* Token bucket's depth. Default: bytes_per_s. */
    uint64_t window_ms;        /* Of the windows. Default 1,000. */
};

/** Zero fields take the defaults. Shared by all sockets of a listener: costs an idle one nothing.
 */
struct bop_socket_limits {
    size_t read_buffer_max;  /* Unconsumed bytes; more closes with BOP_EFULL. Default 16 MiB + 64
                                KiB. */
    size_t write_buffer_max; /* Queued bytes. Default 64 MiB. */
    size_t write_high;       /* Watermarks of on_pressure. Default 1 MiB. */
    size_t write_low;        /* Default 256 KiB. */
    enum bop_socket_full when_full;
    uint64_t idle_timeout_ms;  /* 0: none. */
    uint64_t lifetime_ms;      /* 0: none. */
    uint64_t pause_max_ms;     /* A queue that stays above write_low for so long closes with
                                  -ETIMEDOUT: a peer that never reads. 0: none. */
    struct bop_rate read_rate; /* Of each socket. */
    struct bop_rate write_rate;
    bool counters; /* Keep struct bop_socket_counters for each socket (64 bytes more). */
};

/* ---- Listening ---- */

struct bop_listen_options {
    const char *host; /* A numeric address or a name; NULL: loopback. A name is looked up before
                         bop_listen() returns, which is for programs that start. */
    uint16_t port;    /* 0: any free one, see bop_listener_port(). */
    const char *path; /* Instead of host and port: a Unix socket; a stale one is replaced. '@' as
                         first character: abstract. */
    struct bop_socket_limits limits;
    struct bop_tls *tls;      /* NULL: plain. Borrowed until the listener is closed. */
    unsigned connections_max; /* Further ones are closed at once. Default 65,536. */
    unsigned backlog;         /* Default: the system's most. */
    bool reuse_port; /* SO_REUSEPORT: several loops listen on one port, the kernel spreads. */
    /* Or: connections are handed to these loops in turn, whose threads call on_accept. Borrowed
     * until the listener is closed. NULL: the listener's own loop. */
    struct bop_loop *const *loops;
    size_t loop_count;
    size_t
        user_bytes; /* Zeroed memory in the socket's own block, aligned to 8: its user, if not 0. */
    /* A connection came; with TLS, its handshake is yet to come (on_open). Returns false to close
     * it, else sets its events with bop_socket_attach(). Required. */
    bool (*on_accept)(struct bop_listener *listener, struct bop_socket *socket, void *user);
    void *user;
};

/** Listen. The error of a busy port names host and port. */
BOP_API BOP_MUST_USE int bop_listen(struct bop_loop *loop, const struct bop_listen_options *options,
                                    struct bop_listener **out_listener, struct bop_error *err);
/** Stop listening; accepted connections go on. NULL is fine. */
BOP_API void bop_listener_close(struct bop_listener *listener);
BOP_API uint16_t bop_listener_port(const struct bop_listener *listener);

struct bop_listener_counters {
    uint64_t accepted;
    uint64_t refused;      /* Over connections_max. */
    uint64_t out_of_files; /* Times that accepting had to wait for a descriptor (EMFILE, ENFILE). */
    uint64_t out_of_memory;
    uint64_t open; /* Now. */
};
BOP_API struct bop_listener_counters bop_listener_counters(const struct bop_listener *listener);

/* ---- Connecting ---- */

struct bop_connect_options {
    const char *host; /* A numeric address, or a name (resolved on another thread, RFC 8305). */
    uint16_t port;
    const char *path;                  /* Instead of host and port: a Unix socket, '@': abstract. */
    const struct bop_address *address; /* Instead of host and port: numeric. Copied. */
    const char *source_host;           /* Numeric, optional: connect from this address, */
    uint16_t source_port;              /* and this port. */
    uint64_t timeout_ms; /* To be established, TLS included; 0: 30 s. Then on_close(-ETIMEDOUT). */
    struct bop_tls *tls; /* NULL: plain. Borrowed until on_close. */
    struct bop_resolver *resolver; /* Of names. Borrowed until on_close; NULL: the process's. */
    const char *tls_name;          /* Sent as SNI and checked in the certificate. Default: host. */
    struct bop_socket_limits limits;
    const struct bop_socket_events *events; /* Borrowed while connected. */
    size_t user_bytes;                      /* As in bop_listen_options. */
    void *user;
};

/** Begin to connect. Failure to connect comes as on_close; only local trouble is returned. */
BOP_API BOP_MUST_USE int bop_connect(struct bop_loop *loop,
                                     const struct bop_connect_options *options,
                                     struct bop_socket **out_socket, struct bop_error *err);

/** Take over a connected descriptor, which is the loop's from a successful return on. */
BOP_API BOP_MUST_USE int bop_socket_adopt(struct bop_loop *loop, int fd,
                                          const struct bop_socket_limits *limits,
                                          const struct bop_socket_events *events, void *user,
                                          struct bop_socket **out_socket);

/** Set who hears of a socket; events is borrowed while connected. user is ignored with user_bytes.
 */
BOP_API void bop_socket_attach(struct bop_socket *socket, const struct bop_socket_events *events,
                               void *user);

/* ---- Writing ---- */

/**
 * Queue a copy. Returns 0, BOP_EFULL (nothing queued), BOP_ENOMEM or BOP_ECLOSED.
 * Above the high watermark it still returns 0: see on_pressure, bop_socket_queued().
 */
BOP_API BOP_MUST_USE int bop_socket_write(struct bop_socket *socket, struct bop_slice bytes);

/** As one write of all parts: a header and its payload. */
BOP_API BOP_MUST_USE int bop_socket_write_parts(struct bop_socket *socket,
                                                const struct bop_slice *parts, size_t count);

/** Queue bytes of a counted buffer without a copy (small ones are copied); takes a reference. */
BOP_API BOP_MUST_USE int bop_socket_write_shared(struct bop_socket *socket,
                                                 struct bop_shared *buffer, size_t offset,
                                                 size_t size);

/** Queue a part of a file (sendfile; read and encrypted with TLS). fd is closed once it is sent or
 * the socket closes, also when this fails. A file that turns out shorter closes with -EIO. */
BOP_API BOP_MUST_USE int bop_socket_write_file(struct bop_socket *socket, int fd, uint64_t offset,
                                               uint64_t size);

/**
 * The socket's output queue itself, to encode into without a copy: append whole
 * messages only, in this very callback, then call bop_socket_flush_later().
 * NULL once the socket is closing or above write_buffer_max.
 */
BOP_API struct bop_buf *bop_socket_output(struct bop_socket *socket);
BOP_API void bop_socket_flush_later(struct bop_socket *socket);

/** Send now what is queued. Returns 0, also when some waits for the kernel, or BOP_ECLOSED. */
BOP_API int bop_socket_flush(struct bop_socket *socket);

/** Bytes queued and not yet taken by the kernel. */
BOP_API size_t bop_socket_queued(const struct bop_socket *socket);

/** Say, after what is queued, that nothing follows (half-close). Reading goes on. */
BOP_API int bop_socket_shutdown(struct bop_socket *socket);

/* ---- Reading ---- */

/** Stop and go on reading; what is kept unconsumed is given again after resuming. */
BOP_API void bop_socket_pause(struct bop_socket *socket);
BOP_API void bop_socket_resume(struct bop_socket *socket);

/** Read no more (the receiving half): what still comes is dropped. */
BOP_API int bop_socket_shutdown_read(struct bop_socket *socket);

/* ---- Closing and asking ---- */

/** Drop what is queued and close; on_close(BOP_ECANCELED) follows from the loop. Idempotent. */
BOP_API void bop_socket_close(struct bop_socket *socket);

/** As close, once what is queued has gone out, or after timeout_ms. */
BOP_API void bop_socket_close_after_flush(struct bop_socket *socket, uint64_t timeout_ms);

/** Whether it can still be written to. False for any handle of the past. */
BOP_API bool bop_socket_is_open(const struct bop_socket *socket);

/** Change the timeouts of one socket; 0 ends one. */
BOP_API void bop_socket_set_idle_timeout(struct bop_socket *socket, uint64_t timeout_ms);
BOP_API void bop_socket_set_lifetime(struct bop_socket *socket, uint64_t lifetime_ms);

/** The user of attach or connect, or the block of user_bytes. NULL for a handle of the past. */
BOP_API void *bop_socket_user(const struct bop_socket *socket);
BOP_API struct bop_loop *bop_socket_loop(const struct bop_socket *socket);

/** The descriptor, for setsockopt() and the like; -1 when closed. Don't read, write or close it. */
BOP_API int bop_socket_fd(const struct bop_socket *socket);

/** "127.0.0.1:4000", "[::1]:4000" or "unix:/path", for messages. Good as long as the socket. */
BOP_API const char *bop_socket_peer_name(const struct bop_socket *socket);
BOP_API uint16_t bop_socket_peer_port(const struct bop_socket *socket);
BOP_API uint16_t bop_socket_local_port(const struct bop_socket *socket);

/** What went wrong on the way to on_close, longer than bop_strerror(reason) where TLS said more. */
BOP_API const char *bop_socket_error_text(const struct bop_socket *socket, int reason);

struct bop_socket_counters {
    uint64_t bytes_received;
    uint64_t bytes_sent;
    uint64_t reads; /* Deliveries of bytes. */
    uint64_t writes;
    uint64_t sends;    /* System calls of writing: writes / sends tells what corking saved. */
    uint64_t pressure; /* Times the queue rose above the high watermark. */
    uint64_t pauses;
    uint64_t limited; /* Times a rate limit made it wait. */
    uint64_t dropped; /* Writes dropped by when_full. */
};
/** Returns 0, BOP_EUNSUPPORTED without limits.counters, or BOP_ECLOSED. */
BOP_API BOP_MUST_USE int bop_socket_counters(const struct bop_socket *socket,
                                             struct bop_socket_counters *out_counters);

#endif
