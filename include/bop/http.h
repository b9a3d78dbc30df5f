/*
 * An HTTP/1.1 server on a loop.
 *
 *      static void hello(struct bop_http_exchange *http, const struct bop_http_head *head,
 *                        void *user)
 *      {
 *          bop_http_reply(http, 200, "text/plain", bop_slice_cstr("Hello world!"));
 *      }
 *      int main(void)
 *      {
 *          return bop_http_serve(8080, "/", hello, NULL) != 0;
 *      }
 *
 * An exchange is one request and its response. Its handler runs once the head is
 * there; head and what it borrows are good until the handler returns. It answers
 * in the handler or later, from the loop's thread. Pipelined requests wait for
 * the answer before theirs.
 *
 * Handles: a struct bop_http_exchange * carries a generation, as a socket's
 * handle does (bop/socket.h): once the answer is whole or the connection gone,
 * calls return BOP_ECLOSED and do nothing.
 *
 * Body: what on_body does not take (bop_http_on_body was not called in the
 * handler) is read and dropped up to a bound, then the connection closes.
 *
 * Bounds: of requests sent ahead, no more is read than one receive brings; while
 * answers above write_high wait for the client to take them, no request is begun.
 *
 * Threads: the loop's. For several, one server a loop on one port (reuse_port).
 */
#ifndef BOP_HTTP_H
#define BOP_HTTP_H

#include <bop/http1.h>
#include <bop/loop.h>
#include <bop/metrics.h>
#include <bop/socket.h>
#include <bop/tls.h>

struct bop_http_server;
struct bop_http_exchange;

/** Zero fields take the defaults. */
struct bop_http_server_options {
    struct bop_http1_limits limits;
    uint64_t body_bytes_max;  /* Over it 413. Default 1 MiB; UINT64_MAX: no bound. */
    uint64_t head_timeout_ms; /* From the first byte of a head to its end: 408. Default 10 s. */
    uint64_t body_timeout_ms; /* Without a byte of a body: 408. Default 30 s. */
    uint64_t body_bytes_per_s_min; /* Slower over 10 s: 408. Default 100; UINT64_MAX: no bound. */
    uint64_t idle_timeout_ms;      /* Between requests. Default 60 s. */
    uint64_t write_timeout_ms;     /* An answer that the peer does not take. Default 30 s. */
    unsigned requests_max;         /* Of a connection, then "Connection: close". Default: 2^20. */
    size_t write_high;             /* Of an answer queued: BOP_HTTP_PRESSURE. Default 64 KiB. */
    const char *server_name;       /* The Server header. NULL: none. Borrowed until destroy. */
    bool no_date;                  /* Leave the Date header out. */
    bool end_aborts; /* A client that has closed its sending side gets no answer that is not there
                        yet: so on_abort tells early of one that is gone. Default: it gets it. */
};

BOP_API BOP_MUST_USE int bop_http_server_create(struct bop_loop *loop,
                                                const struct bop_http_server_options *options,
                                                struct bop_http_server **out_server);
/** Close all at once; on_abort of open exchanges follows from the loop. Before the loop's own end.
 * NULL is fine. */
BOP_API void bop_http_server_destroy(struct bop_http_server *server);

/**
 * Stop accepting, answer what has begun (with "Connection: close"), tell WebSockets 1001, close
 * idle connections; after deadline_ms close the others. Then on_stopped, from the loop.
 */
BOP_API void bop_http_server_stop(struct bop_http_server *server, uint64_t deadline_ms,
                                  void (*on_stopped)(struct bop_http_server *server, void *user),
                                  void *user);

/* ---- Listening ---- */

struct bop_http_listen_options {
    const char *host; /* As in bop_listen_options. */
    uint16_t port;
    const char *path;
    struct bop_tls *tls;
    unsigned connections_max;
    bool reuse_port;
    bool proxy_protocol; /* Each connection begins with a PROXY v1 or v2 header (HAProxy's
                            specification); without one it is closed. With tls, it comes before the
                            handshake, in the clear. */
};
/** The listener is the server's, which closes it; out_listener may be NULL. */
BOP_API BOP_MUST_USE int bop_http_listen(struct bop_http_server *server,
                                         const struct bop_http_listen_options *options,
                                         struct bop_listener **out_listener, struct bop_error *err);

/* ---- Routes ---- */

typedef void (*bop_http_handler_fn)(struct bop_http_exchange *http,
                                    const struct bop_http_head *head, void *user);

/**
 * Have requests handled. method NULL: any. pattern: "/users/:id/posts" (a parameter is one
 * segment),
 * "/files/" "*" as last segment (the rest, may be empty). Static wins over parameter, parameter
 * over wildcard, segment by segment; a method of its own over any. HEAD is answered by GET's
 * handler, without the body; OPTIONS, and 405 with Allow, by the server. host: NULL for any, a
 * name, or
 * "*.example.org". Returns 0, BOP_EEXISTS, BOP_EINVAL, BOP_ENOMEM, or BOP_EBUSY inside a handler.
 */
BOP_API BOP_MUST_USE int bop_http_route(struct bop_http_server *server, const char *method,
                                        const char *pattern, bop_http_handler_fn handler,
                                        void *user);
BOP_API BOP_MUST_USE int bop_http_route_host(struct bop_http_server *server, const char *host,
                                             const char *method, const char *pattern,
                                             bop_http_handler_fn handler, void *user);
/** In the handler: leave the request to the next route that matches less closely. */
BOP_API void bop_http_next(struct bop_http_exchange *http);

/** A server that is a whole program: a loop and a server of its own on a port of 127.0.0.1, with
 * one handler for all methods. Returns when the loop is stopped (bop_loop_stop() of
 * bop_http_loop(), in the handler): 0, or a code, as that of a port that is taken. */
BOP_API int bop_http_serve(uint16_t port, const char *pattern, bop_http_handler_fn handler,
                           void *user);

/* ---- The request ---- */

/** A parameter of the route, not decoded; "*" is the rest. data NULL: none of that name. Good in
 * the handler. */
BOP_API struct bop_slice bop_http_param(const struct bop_http_exchange *http, const char *name);
/** A query value, percent-decoded into buf (appended). 0, BOP_ENOTFOUND, BOP_EMALFORMED,
 * BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_http_query(const struct bop_http_head *head, const char *name,
                                        struct bop_buf *buf);

/** Have the body given in pieces; the last call has last set (its bytes may be empty). Only in the
 * handler. "100 Continue" is sent for it if the client expects that. */
typedef void (*bop_http_body_fn)(struct bop_http_exchange *http, struct bop_slice bytes, bool last,
                                 void *user);
BOP_API int bop_http_on_body(struct bop_http_exchange *http, bop_http_body_fn on_body, void *user);
/** Have the whole body at once. Both return 0, BOP_ECLOSED, BOP_EINVAL outside the handler, or
 * BOP_ETOOBIG: the length is above the bound, the server has answered 413. A body without a length
 * that grows above it is answered so, too, and on_abort called. */
BOP_API int bop_http_on_whole_body(struct bop_http_exchange *http, bop_http_body_fn on_body,
                                   void *user);
/** Another bound for this request's body than body_bytes_max, before asking for it. */
BOP_API int bop_http_body_max(struct bop_http_exchange *http, uint64_t bytes_max);
/** Stop and go on reading the body: back-pressure towards the client. */
BOP_API void bop_http_pause(struct bop_http_exchange *http);
BOP_API void bop_http_resume(struct bop_http_exchange *http);

/** The connection went before the answer was whole, or the server answered in the handler's place
 * (408, 413, 400 for a malformed body). The handle is closed when this is called. */
BOP_API void bop_http_on_abort(struct bop_http_exchange *http,
                               void (*on_abort)(struct bop_http_exchange *http, void *user),
                               void *user);

/** For an answer that may take long: a client that closes its sending side from now on is taken to
 * be gone, as with the server's end_aborts. */
BOP_API void bop_http_end_aborts(struct bop_http_exchange *http);

/** The client's address, of the PROXY header where that is expected. */
BOP_API const char *bop_http_peer_name(const struct bop_http_exchange *http);
BOP_API int bop_http_peer_certificate(const struct bop_http_exchange *http,
                                      struct bop_tls_certificate *out_certificate);
BOP_API struct bop_loop *bop_http_loop(const struct bop_http_exchange *http);

/* ---- The response ---- */

/** What writing returns when it took the bytes but the client is slow: wait for on_drain. */
#define BOP_HTTP_PRESSURE 1

/** The whole answer in one call. content_type NULL: none. 0 or a code. */
BOP_API int bop_http_reply(struct bop_http_exchange *http, unsigned status,
                           const char *content_type, struct bop_slice body);

/** The same from a counted buffer, which is sent without a copy. */
BOP_API int bop_http_reply_shared(struct bop_http_exchange *http, unsigned status,
                                  const char *content_type, struct bop_shared *buffer,
                                  size_t offset, size_t size);

/** Or in steps: status (default 200), headers, then write any number of times, then end. A header
 * that is not valid, or that frames the message (Content-Length with another value than is written,
 * Transfer-Encoding, Connection), is BOP_EINVAL. */
BOP_API int bop_http_status(struct bop_http_exchange *http, unsigned status);
BOP_API int bop_http_header(struct bop_http_exchange *http, const char *name,
                            struct bop_slice value);
/** Announce the length of a body that is written in pieces; without it pieces are chunked. To write
 * more is BOP_EINVAL; to end with less is, too, and closes the connection. */
BOP_API int bop_http_content_length(struct bop_http_exchange *http, uint64_t size);
BOP_API int bop_http_write(struct bop_http_exchange *http, struct bop_slice bytes);
BOP_API int bop_http_write_shared(struct bop_http_exchange *http, struct bop_shared *buffer,
                                  size_t offset, size_t size);
BOP_API int bop_http_end(struct bop_http_exchange *http, struct bop_slice last_bytes);
/** A part of a file as the body, from fd, which is closed in any case; ends the answer. */
BOP_API int bop_http_end_file(struct bop_http_exchange *http, int fd, uint64_t offset,
                              uint64_t size);
/** Bytes of the answer's body written so far, and those still queued. */
BOP_API uint64_t bop_http_written(const struct bop_http_exchange *http);
BOP_API size_t bop_http_queued(const struct bop_http_exchange *http);
BOP_API void bop_http_on_drain(struct bop_http_exchange *http,
                               void (*on_drain)(struct bop_http_exchange *http, void *user),
                               void *user);
/** Close the connection without (the rest of) an answer. on_abort follows from the loop. */
BOP_API void bop_http_close(struct bop_http_exchange *http);
BOP_API bool bop_http_is_open(const struct bop_http_exchange *http);

/** Take the connection over: sends 101 with the headers set so far and Upgrade: protocol, and gives
 * the socket, with bytes that came after the head delivered to the events once the handler has
 * returned. The exchange ends. Returns 0, BOP_ECLOSED, BOP_EINVAL (an answer was begun, a body is
 * yet to be read, HTTP/1.0), or what writing returns. */
BOP_API BOP_MUST_USE int bop_http_upgrade(struct bop_http_exchange *http, const char *protocol,
                                          const struct bop_socket_events *events, void *user,
                                          struct bop_socket **out_socket);

/* ---- Files ---- */

struct bop_http_files_options {
    const char *index;         /* Default "index.html"; "": none. */
    const char *cache_control; /* A header for all, or NULL. */
    bool compress;             /* gzip or deflate on the fly: text types, 1 KiB to 1 MiB. */
    bool precompressed;        /* Prefer "name.gz" beside "name" where the client accepts gzip. */
};
/** Serve a directory below a prefix ("/static"): types by name, ETag, Last-Modified, conditional
 * and range requests, sendfile. Nothing outside the directory, no dot files. 0 or a code with err.
 */
BOP_API BOP_MUST_USE int bop_http_files(struct bop_http_server *server, const char *prefix,
                                        const char *directory,
                                        const struct bop_http_files_options *options,
                                        struct bop_error *err);
/** Answer this request with gzip or deflate, by what the client accepts and likes better: for
 * bodies written by hand. */
BOP_API int bop_http_compress(struct bop_http_exchange *http);

/* ---- Counters ---- */

struct bop_http_counters {
    uint64_t connections; /* Accepted. */
    uint64_t connections_now;
    uint64_t requests;
    uint64_t responses[6]; /* By class: 1xx to 5xx; 0: none, cut. */
    uint64_t malformed;    /* Requests refused by the parser. */
    uint64_t timeouts;
    uint64_t aborted;      /* Connections that went before their answer was whole. */
    uint64_t refused;      /* Connections above connections_max. */
    uint64_t out_of_files; /* Times that accepting had to wait for a descriptor. */
    uint64_t bytes_received;
    uint64_t bytes_sent;
    uint64_t slow;     /* Times that a client took less than it was sent, and write_high waited. */
    uint64_t slow_now; /* Connections of which that is so. */
};
BOP_API struct bop_http_counters bop_http_counters(const struct bop_http_server *server);

/** Keep the counters in a registry as well, under the names bop_http_..., brought up to date once a
 * second while there are connections, and by calling this again. Servers of several loops with the
 * same labels add up. labels as in bop/metrics.h, or NULL. The registry is borrowed until destroy.
 * Returns 0, BOP_EINVAL (another registry), or BOP_ENOMEM as registering does. */
BOP_API BOP_MUST_USE int bop_http_metrics(struct bop_http_server *server,
                                          struct bop_metrics *metrics, const char *labels);

#endif
