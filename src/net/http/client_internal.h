/*
 * The HTTP client as its own files see it.
 *
 *      client.c           the client: made, ended, counted
 *      client_call.c      a call's life: begun, ended, its body, its timers
 *      client_request.c   what is asked for: checked, kept, written as bytes
 *      client_redirect.c  where a redirect leads
 *      client_pool.c      origins, their connections and who waits for one
 *      client_conn.c      a connection: answers read and given to their calls
 *
 * An origin is a scheme, host and port (or a Unix socket), found by its key. It
 * has its connections, and the calls that wait for one. A connection has the
 * calls sent on it in the order of sending, and reads the answer to the first.
 *
 *      WAITING -> SENT -> ENDED -> (on_done) -> the slot is free
 *         ^________|  made again: redirected, or its connection was stale
 *
 * A call that its user ends (cancel) is ENDED at once and told of it by a post,
 * as no callback comes from inside the call that asked for it.
 */
#ifndef BOP_NET_HTTP_CLIENT_INTERNAL_H
#define BOP_NET_HTTP_CLIENT_INTERNAL_H

#include <bop/http_client.h>
#include <bop/list.h>

#include "../socket/slots.h"

#define BOP__CLIENT_BUCKETS 64 /* A power of two. */

/* Content of an answer that nobody wants, read to keep its connection. */
#define BOP__CLIENT_DRAIN_MAX (64u * 1024)

enum bop__call_state {
    BOP__CALL_WAITING = 1, /* For a connection, or for one to open. */
    BOP__CALL_SENT,
    BOP__CALL_ENDED,
};

struct bop__client_origin {
    struct bop_list link;    /* In its bucket. */
    struct bop_list conns;   /* bop__client_conn.link, all. */
    struct bop_list kept;    /* bop__client_conn.kept of those without calls. */
    struct bop_list waiting; /* bop__call.link */
    unsigned conn_count;
    uint32_t hash;
    struct bop_http_client *client;
    bool tls;
    uint16_t port;
    char *host;      /* As connected to: no brackets. */
    char *unix_path; /* Or NULL. */
};

/** Lies in its socket's block. */
struct bop__client_conn {
    struct bop_list link;  /* origin.conns */
    struct bop_list kept;  /* origin.kept, or none. */
    struct bop_list calls; /* bop__call.link, in order of sending. */
    struct bop__client_origin *origin;
    struct bop_socket *socket;
    struct bop_http1_body body; /* Of the answer being read. */
    uint64_t served;            /* Answers read whole. */
    uint64_t kept_since_ms;
    unsigned call_count;
    unsigned interim;   /* 1xx heads before this answer. */
    uint64_t drained;   /* Content dropped of this answer. */
    uint64_t delivered; /* Content given of it. */
    bool open;
    bool counted;   /* In the counts of origin and client. */
    bool in_body;   /* The head of the answer was read. */
    bool got_bytes; /* Of the answer being read. */
    bool last;      /* This answer is the last one on it. */
    bool closing;   /* Nothing is read any more. */
};

/** The parts of a URL, borrowed from a text. */
struct bop__client_url {
    bool tls;
    uint16_t port;
    struct bop_slice host;      /* Without brackets. */
    struct bop_slice authority; /* As Host says it. */
    struct bop_slice target;    /* Path and query; may be empty: "/". */
};

struct bop__call {
    struct bop__slot slot; /* First: handles lead here. */
    uint8_t state;         /* enum bop__call_state */
    bool idempotent;
    bool pipelinable;
    bool retried;
    bool reused;
    bool head_seen;    /* Its final answer has begun. */
    bool body_sent;    /* All of the request is on its way. */
    bool body_allowed; /* ...or may be. */
    bool redirecting;  /* The answer is dropped, and the call then made anew. */
    bool paused;
    bool wants_writable;
    bool posted;                    /* The post is the loop's. */
    bool told;                      /* on_done was called. */
    struct bop_list link;           /* origin.waiting or conn.calls, or none. */
    struct bop_list all;            /* client.calls */
    struct bop_http_client *client; /* Until it was told. */
    struct bop__pool *pool;
    struct bop__client_conn *conn;
    struct bop__client_origin *origin; /* While WAITING or SENT. */
    struct bop_timer timeout;
    struct bop_timer soon; /* To send a body that waits, or to go on after a pause. */
    struct bop_post post;

    enum bop_http_method method;
    struct bop_buf method_text;
    struct bop_buf url;
    struct bop_buf fields; /* The user's headers, as lines. */
    struct bop_buf body;
    struct bop_http_request request; /* Its pointers are not looked at, but callbacks and user. */
    uint64_t later_left;             /* Of a body of known size that comes later. */
    unsigned redirects;

    struct bop_buf answer; /* Content, without on_body. */
    unsigned status;
    struct bop_error error;
};

struct bop_http_client {
    struct bop_loop *loop;
    struct bop_allocator *allocator;
    struct bop__pool *pool; /* Of calls. */
    struct bop_http_client_options options;
    char *user_agent;
    struct bop_tls *own_tls; /* Made with the first https call, if none was given. */
    struct bop_list calls;
    struct bop_list buckets[BOP__CLIENT_BUCKETS];
    unsigned conn_count;
    unsigned kept_count;
    unsigned waiting;
    bool destroying;
    struct bop_http_client_counters counters;
    struct bop_http_head head;    /* Of the answer being parsed. */
    struct bop_buf out;           /* A request's head. */
    struct bop__export *exported; /* NULL: in no registry. */
    struct bop_timer publish;
};

/* ---- client_call.c ---- */

struct bop__call *bop__call_of(const struct bop_http_call *handle);
struct bop_http_call *bop__call_handle(const struct bop__call *call);
/** Put it on its origin's queue, by its url. 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__call_enqueue(struct bop__call *call, bool first);
/** Off its connection or queue; what else it has stays. */
void bop__call_detach(struct bop__call *call);
/** End it and tell its user, who is called from in here. code 0: with the answer. */
void bop__call_end(struct bop__call *call, int code, const char *message);
/** As above, from the loop later. call->error says what happened. */
void bop__call_end_later(struct bop__call *call, int code);
/** Its connection is open and it is its turn to be sent. */
void bop__call_send(struct bop__call *call);
/** The server wants the body (100), or nothing speaks against it. */
void bop__call_send_body(struct bop__call *call);
/** The connection takes more. */
void bop__call_writable(struct bop__call *call);

/* ---- client_request.c ---- */

/** Keep what the request asks for in the call. 0, BOP_EINVAL with err, BOP_ENOMEM. */
BOP_MUST_USE int bop__call_keep_request(struct bop__call *call,
                                        const struct bop_http_request *request,
                                        struct bop_error *err);
/** Append the head to send. 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__call_write_head(const struct bop__call *call, struct bop_buf *out);
/** Split a URL of the schemes we know. False: it is none. */
bool bop__client_url_split(struct bop_slice url, struct bop__client_url *out_url);

/* ---- client_redirect.c ---- */

/** Whether the answer is a redirect to be followed; then the call's url, method and headers are
 * changed for it. 0: not; 1: it is; else a code. */
BOP_MUST_USE int bop__call_redirect(struct bop__call *call, const struct bop_http_head *head);

/* ---- client_pool.c ---- */

/** The origin of a URL, made if need be. NULL: no memory. */
struct bop__client_origin *bop__client_origin(struct bop_http_client *client,
                                              const struct bop__client_url *url,
                                              const char *unix_path);
/** Give its waiting calls connections, as far as there are. */
void bop__origin_dispatch(struct bop__client_origin *origin);
/** As above for all, after a connection of any has gone. */
void bop__client_dispatch_all(struct bop_http_client *client);
/** Free an origin that nothing is left of. */
void bop__origin_release(struct bop__client_origin *origin);

/* ---- client_metrics.c ---- */

/** Something happens: bring the registry up to date in a second, if there is one. */
void bop__client_publish_soon(struct bop_http_client *client);
/** The registry is no longer used. */
void bop__client_unexport(struct bop_http_client *client);

/* ---- client_conn.c ---- */

/** Connect for an origin. 0 or a code with err. */
BOP_MUST_USE int bop__client_connect(struct bop__client_origin *origin,
                                     struct bop__client_conn **out_conn, struct bop_error *err);
/** Send a call on it, now or when it is open. */
void bop__conn_take(struct bop__client_conn *conn, struct bop__call *call);
/** Close it; its calls are made again or fail when on_close comes. */
void bop__conn_close(struct bop__client_conn *conn);
/** Go on reading an answer whose call was paused. */
void bop__conn_continue(struct bop__client_conn *conn);
/** The client goes: close it without a word to anybody. */
void bop__conn_forget(struct bop__client_conn *conn);

#endif
