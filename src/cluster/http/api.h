/*
 * The HTTP/JSON API of a node: what node.c sees of it.
 *
 * It lives on the node's loop. Requests become operations of the replica, as
 * frames do in the service; docs/design/http-api.md has the routes and shapes.
 *
 * Threads: the loop's only.
 */
#ifndef BOP_CLUSTER_HTTP_API_H
#define BOP_CLUSTER_HTTP_API_H

#include <bop/error.h>
#include <bop/executor.h>
#include <bop/http.h>
#include <bop/loop.h>
#include <bop/metrics.h>

#include "../replica.h"
#include "../service.h"

struct http_api;

struct http_api_options {
    struct bop_allocator *allocator; /* Borrowed, as all pointers here, until destroy. */
    struct bop_loop *loop;
    struct bop_log *log;
    struct bop_metrics *metrics; /* NULL: none to serve. */
    const char *host;
    uint16_t port;            /* 0: any free one. */
    struct bop_tls *tls;      /* NULL: plain. */
    unsigned connections_max; /* 0: HTTP_CONNECTIONS_MAX. */
};

/** What requests are served from, once it is there. */
struct http_api_backend {
    struct replica *replica;
    struct service *service;
    struct auth *auth;                  /* NULL: everybody may do everything. */
    struct bop_executor *work_executor; /* For what takes milliseconds. */
};

/** Listen. Nothing is answered before bop__http_api_serve(), and the loop turns. */
BOP_MUST_USE int bop__http_api_create(const struct http_api_options *options,
                                      struct http_api **out_api, struct bop_error *err);
void bop__http_api_serve(struct http_api *api, const struct http_api_backend *backend);

uint16_t bop__http_api_port(const struct http_api *api);

/** Take no further requests, finish those under way, close what is left after a moment. */
void bop__http_api_stop(struct http_api *api);

/** Close everything; what goes on until bop__http_api_is_idle() comes from the loop. */
void bop__http_api_close(struct http_api *api);
bool bop__http_api_is_idle(const struct http_api *api);

/** Closed and idle. NULL is fine. */
void bop__http_api_destroy(struct http_api *api);

#endif
