/*
 * An HTTP/1.1 client on a loop: calls over a pool of connections.
 *
 *      static void done(struct bop_http_call *call, void *user,
 *                       const struct bop_http_result *result)
 *      {
 *          printf("%u %.*s\n", result->status, (int)result->body.size, result->body.data);
 *      }
 *      struct bop_http_request request = {.url = "http://127.0.0.1:8080/", .on_done = done};
 *      bop_http_fetch(client, &request, NULL, NULL);
 *
 * A call ends with exactly one on_done, from the loop: with the answer, or with
 * the code of what went wrong and a line that says so. A response that breaks
 * RFC 9112 ends its call with BOP_EMALFORMED and its connection with it.
 *
 * Connections are kept for the next call to the same scheme, host and port. A
 * call that found its kept connection closed by the server before any byte of
 * an answer is made again on a new one, once, if its method is idempotent
 * (RFC 9110, 9.2.2).
 *
 * Handles: a struct bop_http_call * carries a generation, as a socket's handle
 * does (bop/socket.h): after on_done, calls with it return BOP_ECLOSED.
 *
 * Threads: the loop's.
 */
#ifndef BOP_HTTP_CLIENT_H
#define BOP_HTTP_CLIENT_H

#include <bop/error.h>
#include <bop/http1.h>
#include <bop/loop.h>
#include <bop/metrics.h>
#include <bop/socket.h>
#include <bop/tls.h>

struct bop_http_client;
struct bop_http_call;

/** Zero fields take the defaults. */
struct bop_http_client_options {
    struct bop_tls *tls; /* For https, borrowed. NULL: one that trusts the system's authorities. */
    struct bop_http1_limits limits;    /* Of responses. */
    unsigned connections_per_host_max; /* Default 8: further calls wait. */
    unsigned connections_max;          /* Of all hosts. Default 256. */
    unsigned waiting_max;              /* Calls that wait for a connection. Default 1,024. */
    unsigned pipeline_max;             /* Calls sent ahead of answers on one connection, if they are
                                          GET or HEAD. Default 1: no pipelining. */
    uint64_t keep_ms;                  /* An unused connection is kept. Default 30 s. */
    uint64_t connect_timeout_ms;       /* Names and TLS included. Default 10 s. */
    const char *user_agent;            /* Default: none is sent. */
};

BOP_API BOP_MUST_USE int bop_http_client_create(struct bop_loop *loop,
                                                const struct bop_http_client_options *options,
                                                struct bop_http_client **out_client);
/** End all calls (on_done with BOP_ECANCELED, from inside) and close all. NULL is fine; not from a
 * callback of this client. */
BOP_API void bop_http_client_destroy(struct bop_http_client *client);

/** How a call ended. Borrowed during on_done. */
struct bop_http_result {
    int code;              /* 0: an answer came, whole. Else what went wrong: */
    const char *message;   /* in one line. */
    unsigned status;       /* 0 if no head came. */
    const char *url;       /* Of the answer: another than asked for after redirects. */
    struct bop_slice body; /* Whole, if on_body was not given. */
    unsigned redirects;
    bool reused; /* The connection had served calls before. */
};

/** What to ask for. Everything is copied but the callbacks' user; zero fields take the defaults. */
struct bop_http_request {
    const char *method;    /* Default "GET". */
    const char *url;       /* "http://host:port/path?query", "https://...". Required. */
    const char *unix_path; /* Connect there instead; the URL names the host. */
    const struct bop_http_header *headers; /* Host and those that frame the body are ours. */
    size_t header_count;
    struct bop_slice body;
    /* The body comes later, by bop_http_call_write(): of this size, or chunked with UINT64_MAX. */
    uint64_t body_later;
    bool expect_continue;     /* Send the body when the server says so, or after 1 s. */
    unsigned redirects_max;   /* Follow so many of 301, 302, 303, 307, 308. Default 0: none. */
    uint64_t timeout_ms;      /* Of the whole call. Default: none. */
    uint64_t idle_timeout_ms; /* Without a byte either way. Default 30 s. */
    uint64_t body_bytes_max;  /* Of the answer. Default 64 MiB; with on_body none. */

    /* The head of the final answer; good during the call. Optional. */
    void (*on_head)(struct bop_http_call *call, void *user, const struct bop_http_head *head);
    /* Pieces of the body instead of the whole in on_done. Optional. */
    void (*on_body)(struct bop_http_call *call, void *user, struct bop_slice bytes);
    /* A body that comes later: the connection takes more. Optional. */
    void (*on_writable)(struct bop_http_call *call, void *user);
    void (*on_done)(struct bop_http_call *call, void *user,
                    const struct bop_http_result *result); /* Required. */
    void *user;
};

/** Begin a call; out_call may be NULL. Returns 0, BOP_EINVAL (a bad URL, method or header; err says
 * which), BOP_EFULL (waiting_max) or BOP_ENOMEM; then nothing was begun. */
BOP_API BOP_MUST_USE int bop_http_fetch(struct bop_http_client *client,
                                        const struct bop_http_request *request,
                                        struct bop_http_call **out_call, struct bop_error *err);

/** End a call early: on_done(BOP_ECANCELED) follows from the loop. */
BOP_API void bop_http_call_cancel(struct bop_http_call *call);

/** The next piece of a body that comes later; last ends it. Returns 0, BOP_HTTP_CALL_PRESSURE
 * (taken; wait for on_writable), BOP_EINVAL (more or less than was announced) or BOP_ECLOSED. */
#define BOP_HTTP_CALL_PRESSURE 1
BOP_API int bop_http_call_write(struct bop_http_call *call, struct bop_slice bytes, bool last);

/** Stop and go on reading the answer's body. */
BOP_API void bop_http_call_pause(struct bop_http_call *call);
BOP_API void bop_http_call_resume(struct bop_http_call *call);

struct bop_http_client_counters {
    uint64_t calls;
    uint64_t failed;  /* on_done with a code. */
    uint64_t retried; /* On a new connection, as the kept one was closed. */
    uint64_t redirected;
    uint64_t connections; /* Made. */
    uint64_t reused;      /* Calls on a kept one. */
    uint64_t open_now;
    uint64_t kept_now;
    uint64_t waiting_now;
};
BOP_API struct bop_http_client_counters
bop_http_client_counters(const struct bop_http_client *client);

/** Keep the counters in a registry as well, as bop_http_client_..., brought up to date once a
 * second while there are connections, and by calling this again. Clients with the same labels add
 * up. labels as in bop/metrics.h, or NULL. The registry is borrowed until destroy. Returns 0,
 * BOP_EINVAL (another registry), or BOP_ENOMEM as registering does. */
BOP_API BOP_MUST_USE int bop_http_client_metrics(struct bop_http_client *client,
                                                 struct bop_metrics *metrics, const char *labels);

#endif
