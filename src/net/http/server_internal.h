/*
 * The HTTP server as its own files see it.
 *
 * A connection's state lies in its socket's user block, one exchange at a time on
 * it in a record from the server's pool:
 *
 *     PROXY --> IDLE --> HEAD --> BODY --> ANSWER --> IDLE ...
 *                          \        \--> DRAIN --/      \--> LEAVING
 *
 *     PROXY    waits for the PROXY header of its listener
 *     IDLE     nothing of a request has come
 *     HEAD     a part of a head has
 *     BODY     the handler ran; the body is being read
 *     ANSWER   the body is read; the answer is not whole
 *     DRAIN    the answer is whole; the rest of the body is dropped
 *     LEAVING  an answer with "Connection: close" is on its way; nothing is read
 *     GONE     closed, or taken over by an upgrade
 *
 * A handle of an exchange is its socket's handle; the end of an exchange makes a
 * new generation (slot.h). Every connection but a GONE one is on the wheel
 * (server_wheel.c), which looks at it when its next deadline may have passed.
 */
#ifndef BOP_NET_HTTP_SERVER_INTERNAL_H
#define BOP_NET_HTTP_SERVER_INTERNAL_H

#include <bop/http.h>
#include <bop/list.h>

#include "../metrics/export.h"
#include "../socket/socket_internal.h"
#include "accept_encoding.h"

enum bop__http_phase {
    BOP__HTTP_PROXY,
    BOP__HTTP_IDLE,
    BOP__HTTP_HEAD,
    BOP__HTTP_BODY,
    BOP__HTTP_ANSWER,
    BOP__HTTP_DRAIN,
    BOP__HTTP_LEAVING,
    BOP__HTTP_GONE,
};

/** In the socket's user block: what an idle connection costs. */
struct bop__http_conn {
    struct bop_http_server *server;
    struct bop_list link;           /* A slot of the wheel. */
    struct bop__exchange *exchange; /* From the head until body and answer are done, else NULL. */
    uint32_t since_ms;              /* When the present wait began; the body: its last byte. */
    uint32_t check_ms;              /* When the wheel looks at it next. */
    uint32_t seen;                  /* PROXY, HEAD: bytes that were there at the last parse. */
    uint32_t requests;
    uint32_t out_total;   /* Bytes written to the socket; wraps. */
    uint32_t taken_total; /* Those that the peer had taken when the wheel last looked, */
    uint32_t taken_ms;    /* and since when it is so. */
    uint8_t phase;        /* enum bop__http_phase */
    uint8_t empty_lines;  /* Taken since the last request. */
    bool busy : 1;        /* on_data is running: it goes on by itself. */
    bool wrote : 1;       /* ...and has to flush. */
    bool paused : 1;      /* The socket is. */
    bool choked : 1;      /* No further request until the queue has fallen. */
    bool ended : 1;       /* The peer sends no more. */
    bool proxied : 1;     /* A struct bop__http_proxied. */
    bool slow : 1;        /* Counted in slow_now. */
    bool of_head : 1;     /* What has come of a request, which is not whole or bad, says HEAD. */
};
_Static_assert(sizeof(struct bop__http_conn) <= 64, "what an idle connection costs");

enum {
    BOP__HTTP_PEER_NAME_MAX = 128,
    BOP__HTTP_SERVER_NAME_MAX = 96,
};

/** The block of a connection whose listener expects a PROXY header. */
struct bop__http_proxied {
    struct bop__http_conn conn;
    struct bop_tls *tls; /* A reference, until TLS begins behind the header; NULL: plain. */
    char peer_name[BOP__HTTP_PEER_NAME_MAX]; /* "": the header names none. */
};

struct bop__http_deflate; /* compress.c */

/** A request and its answer, from the server's pool. */
struct bop__exchange {
    struct bop__http_conn *conn;
    struct bop__exchange *next; /* In the pool. */

    /* From here to the mark each exchange begins with zeros. */
    uint64_t body_received;            /* Decoded. */
    uint64_t written;                  /* Of the answer's body. */
    struct bop__http_deflate *deflate; /* bop_http_compress(): the answer goes through it. */
    bop_http_body_fn on_body;
    void (*on_abort)(struct bop_http_exchange *http, void *user);
    void (*on_drain)(struct bop_http_exchange *http, void *user);
    bool expects : 1;     /* "100 Continue" was asked for and not sent. */
    bool body_whole : 1;  /* on_body wants all at once. */
    bool body_paused : 1; /* By the user. */
    bool head_sent : 1;
    bool has_length : 1;  /* content_length was announced. */
    bool chunked : 1;     /* How the answer's body is framed... */
    bool no_content : 1;  /* ...or HEAD, 204, 304: it is not sent. */
    bool close_after : 1; /* The answer says "Connection: close". */
    bool has_date : 1;    /* Set by the user. */
    bool has_server : 1;
    bool pressed : 1;    /* PRESSURE was returned. */
    bool answered : 1;   /* The answer is whole, the handle of the past. */
    bool next_route : 1; /* bop_http_next() was called. */
    bool end_aborts : 1; /* bop_http_end_aborts() was. */
    uint8_t zeros_end;

    bool minor_0;    /* HTTP/1.0 */
    bool keep_alive; /* The client would. */
    bool body_done;
    uint8_t method; /* enum bop_http_method */
    uint16_t status;
    const struct bop_http_head *head;     /* While the handler runs, else NULL. */
    const struct bop_router_match *match; /* While the handler runs. */
    uint64_t body_max;                    /* 413 above it. */
    struct bop_buf headers;               /* Of the answer, as they will be sent. */
    /* The rest means something only where something above says so. */
    struct bop_buf whole;    /* The body so far, if wanted whole. */
    uint64_t content_length; /* Of the answer. */
    struct bop_http1_body body;
    uint64_t rate_received; /* body_received when the present window of the rate began, */
    uint32_t rate_ms;       /* and when that was. */
    void *body_user;
    void *abort_user;
    void *drain_user;
};

#define BOP__HTTP_WHEEL_SLOTS 64u

/** Something on the server's connections that stops with it: the WebSockets of a route. */
struct bop__http_guest {
    struct bop_list link;
    /* bop_http_server_stop(): begin to say good-bye. Leave (bop__http_guest_leave) when done. */
    void (*on_stop)(struct bop__http_guest *guest, uint64_t deadline_ms);
    /* The deadline passed, or bop_http_server_destroy(): close all at once, and leave. */
    void (*on_kill)(struct bop__http_guest *guest);
    /* The server's memory goes, and with it what sends requests here. */
    void (*on_free)(struct bop__http_guest *guest);
    struct bop_http_server *server; /* NULL once it is freed. */
    bool stays;                     /* It did not leave. */
};

struct bop_http_server {
    struct bop_loop *loop;
    struct bop_allocator *allocator;
    struct bop_http_server_options options; /* With the defaults filled in. */
    struct bop_http_counters counters;
    struct bop_router *router;
    struct bop_list routes;    /* struct bop__http_route.link, server_dispatch.c */
    struct bop_list listeners; /* struct bop__http_listener.link */
    struct bop_list guests;    /* struct bop__http_guest.link */
    size_t guests_staying;
    struct bop_list files; /* struct bop__files.link, files.c */
    struct bop__exchange *pool;
    unsigned pooled;
    size_t references; /* The user's, each connection's and the post's. */
    /* The wheel. */
    struct bop_timer tick;
    uint32_t tick_ms;
    uint32_t tick_now; /* The tick that was last worked through. */
    struct bop_list wheel[BOP__HTTP_WHEEL_SLOTS];
    /* Stopping. */
    bool stopping;
    bool destroyed;
    bool stop_posted;
    /* The handler that ran has taken its connection over: what came after its head is for these. */
    bool taken;
    bool dispatching; /* A handler is being looked for or runs. */
    struct bop__socket *taken_socket;
    struct bop_timer deadline;
    struct bop_post stopped;
    void (*on_stopped)(struct bop_http_server *server, void *user);
    void *stopped_user;
    /* What begins each answer, made anew each second: "HTTP/1.1 200 OK\r\nServer: ...\r\nDate:
     * ...\r\n"; the lines after the first serve other statuses. */
    uint64_t lines_until_ms;
    size_t lines_size;
    char lines[256];
    struct bop__http_deflate *deflate_spares[BOP__HTTP_CODINGS];
    struct bop__export *exported; /* NULL: not asked for. */
    uint64_t publish_ms;
    struct bop_http_head head; /* Of the request whose handler runs. */
};

/* ---- The seam to the socket's memory ---- */

static inline struct bop__socket *bop__http_sock(const struct bop__http_conn *conn)
{
    return bop__socket_of_block(conn);
}

/** The socket of a connection, by its present handle. */
static inline struct bop_socket *bop__http_socket(const struct bop__http_conn *conn)
{
    return bop__socket_handle(bop__http_sock(conn));
}

/** The connection of a handle; NULL if it is of the past. */
static inline struct bop__http_conn *bop__http_conn_of(const void *handle)
{
    struct bop__socket *sock = (struct bop__socket *)bop__slot_of(handle);

    return sock != NULL ? (struct bop__http_conn *)bop__socket_block(sock) : NULL;
}

/** Make all handles given so far handles of the past. */
static inline void bop__http_new_generation(struct bop__http_conn *conn)
{
    /* One that has no further generation gets no further request: bop__exchange_may_keep(). */
    BOP_IGNORE(bop__slot_renew(&bop__http_sock(conn)->slot));
}

struct bop__http_listener {
    struct bop_list link;
    struct bop_http_server *server;
    struct bop_listener *listener;
    bool proxy_protocol;
    struct bop_tls *tls; /* What begins behind the PROXY header; else the listener does it. */
};

/* ---- server.c ---- */

/** Give a reference back; the last frees the server. */
void bop__http_server_unref(struct bop_http_server *server);
/** After a connection or a guest went: is it stopped? */
void bop__http_server_look_stopped(struct bop_http_server *server);
void bop__http_guest_join(struct bop_http_server *server, struct bop__http_guest *guest);
void bop__http_guest_leave(struct bop__http_guest *guest);

/* ---- server_conn.c ---- */

bool bop__http_accept(struct bop_listener *listener, struct bop_socket *socket, void *user);
/** An answer became whole, or something that held the reading back went: go on. */
void bop__http_conn_continue(struct bop__http_conn *conn);
/** Send what is queued, then close, without losing it to a peer that still sends. */
void bop__http_conn_leave(struct bop__http_conn *conn);
/** Close at once. */
void bop__http_conn_kill(struct bop__http_conn *conn);
/** Whether the client takes what it is sent, for the counters. */
void bop__http_conn_set_slow(struct bop__http_conn *conn, bool slow);
/** Answer what cannot be served with one line that says why, and leave. An open exchange ends. */
void bop__http_conn_refuse(struct bop__http_conn *conn, unsigned status, const char *why);
/** Take bytes of a PROXY header. Returns what was taken; 0: more must come, or it left. */
size_t bop__http_proxy_read(struct bop__http_conn *conn, struct bop_slice bytes);
/** A connection of a listener behind a proxy begins, and is over. tls may be NULL. */
void bop__http_proxy_open(struct bop__http_conn *conn, struct bop_tls *tls);
void bop__http_proxy_close(struct bop__http_conn *conn);
/** Pause or resume the socket, as the connection's state wants it. */
void bop__http_conn_set_reading(struct bop__http_conn *conn, bool reading);

/* ---- server_body.c ---- */

/** Decode and hand over what there is of the body. Returns the bytes taken. */
size_t bop__http_body_read(struct bop__http_conn *conn, struct bop_slice bytes);

/* ---- server_wheel.c ---- */

static inline uint32_t bop__http_now(const struct bop_http_server *server)
{
    return (uint32_t)server->loop->now_ms;
}
void bop__http_wheel_add(struct bop__http_conn *conn);
void bop__http_wheel_remove(struct bop__http_conn *conn);
/** The wheel's timer. */
void bop__http_wheel_turn(struct bop_timer *timer);
/** The present wait began now. */
void bop__http_wheel_wait(struct bop__http_conn *conn);

/* ---- server_metrics.c ---- */

/** Bring the registry's metrics up to date. */
void bop__http_metrics_publish(struct bop_http_server *server);
/** The same for the last time: its gauges go down to nothing. */
void bop__http_metrics_end(struct bop_http_server *server);

/* ---- server_dispatch.c ---- */

/** Find the handler and call it, or answer in its place. */
void bop__http_dispatch(struct bop__exchange *ex, const struct bop_http_head *head);
void bop__http_routes_free(struct bop_http_server *server);

/* ---- exchange.c ---- */

/** A clean record for the request of a head; NULL: no memory. */
struct bop__exchange *bop__exchange_take(struct bop__http_conn *conn,
                                         const struct bop_http_head *head);
void bop__exchange_release(struct bop__exchange *ex);
/** The open exchange of a handle, or NULL. */
struct bop__exchange *bop__exchange_of(const struct bop_http_exchange *http);
struct bop_http_exchange *bop__exchange_handle(const struct bop__exchange *ex);
/** The answer is whole: the handle is of the past, the connection may go on. */
void bop__exchange_answered(struct bop__exchange *ex);
/** End an exchange without (the rest of) an answer and tell its user. */
void bop__exchange_abort(struct bop__exchange *ex);
void bop__exchange_free_pool(struct bop_http_server *server);

/* ---- exchange_respond.c ---- */

/** Whether the connection may be used for another request after this answer. */
bool bop__exchange_may_keep(const struct bop__exchange *ex);
/** Add a line to the answer's headers that the server vouches for. */
BOP_MUST_USE int bop__exchange_add_header(struct bop__exchange *ex, const char *name,
                                          struct bop_slice value);
/** "100 Continue", if it is waited for. */
void bop__exchange_continue(struct bop__exchange *ex);
/** Answer with a line of text. */
void bop__exchange_reply_text(struct bop__exchange *ex, unsigned status, const char *text);
/** Write an answer's head of its own to a connection without exchange: "Connection: close". */
void bop__http_write_refusal(struct bop__http_conn *conn, unsigned status, const char *why,
                             bool of_head);
/** Send a head whose body of `length` bytes the caller writes to the socket itself. */
BOP_MUST_USE int bop__exchange_begin_length(struct bop__exchange *ex, uint64_t length);
/** The body announced was written to the socket by the caller. */
void bop__exchange_wrote(struct bop__exchange *ex, uint64_t size);

/* ---- files.c ---- */

void bop__files_free_all(struct bop_http_server *server);

/* ---- compress.c ---- */

BOP_MUST_USE int bop__http_deflate_begin(struct bop__exchange *ex, enum bop__http_coding coding);
/** What it is called in Content-Encoding. */
const char *bop__http_deflate_name(const struct bop__http_deflate *deflate);
/** Compress all of an answer's body. Returns 0 with out filled, or a code. */
BOP_MUST_USE int bop__http_deflate_all(struct bop__http_deflate *deflate, struct bop_slice bytes,
                                       struct bop_buf *out);
/** Compress a piece; all that came is in out, so that the client can read it. */
BOP_MUST_USE int bop__http_deflate_piece(struct bop__http_deflate *deflate, struct bop_slice bytes,
                                         bool last, struct bop_slice *out_bytes);
void bop__http_deflate_end(struct bop__exchange *ex);
void bop__http_deflate_free(struct bop_http_server *server);

#endif
