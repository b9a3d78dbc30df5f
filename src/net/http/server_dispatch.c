/*
 * From a request to its handler; what no handler takes the server answers.
 */
#include <bop/router.h>

#include "server_internal.h"

struct bop__http_route {
    struct bop_list link; /* server.routes */
    bop_http_handler_fn handler;
    void *user;
};

/* Methods of one path that Allow can name. */
#define ALLOW_METHODS_MAX 32u

int bop_http_route_host(struct bop_http_server *server, const char *host, const char *method,
                        const char *pattern, bop_http_handler_fn handler, void *user)
{
    struct bop__http_route *route;
    int rc;

    if (handler == NULL) {
        return BOP_EINVAL;
    }
    if (server->dispatching) {
        return BOP_EBUSY; /* What was matched would not hold any more. */
    }
    route = (struct bop__http_route *)bop_alloc_zeroed(server->allocator, sizeof(*route));
    if (route == NULL) {
        return BOP_ENOMEM;
    }
    route->handler = handler;
    route->user = user;
    rc = bop_router_add(server->router, host, method, pattern, route);
    if (rc != 0) {
        bop_free(server->allocator, route, sizeof(*route));
        return rc;
    }
    bop_list_push_back(&server->routes, &route->link);
    return 0;
}

int bop_http_route(struct bop_http_server *server, const char *method, const char *pattern,
                   bop_http_handler_fn handler, void *user)
{
    return bop_http_route_host(server, NULL, method, pattern, handler, user);
}

void bop__http_routes_free(struct bop_http_server *server)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(&server->routes)) != NULL) {
        bop_free(server->allocator, BOP_CONTAINER_OF(link, struct bop__http_route, link),
                 sizeof(struct bop__http_route));
    }
}

/* "Allow: GET, HEAD, OPTIONS". False: there are no methods to name. */
static bool add_allow(struct bop__exchange *ex, const struct bop_http_head *head)
{
    struct bop_slice methods[ALLOW_METHODS_MAX];
    char text[512];
    size_t size = 0;
    bool options = false;
    unsigned count = bop_router_methods(ex->conn->server->router, head->authority, head->path,
                                        methods, ALLOW_METHODS_MAX);

    count = count < ALLOW_METHODS_MAX ? count : ALLOW_METHODS_MAX;
    for (unsigned i = 0; i < count; i++) {
        if (size + methods[i].size + sizeof(", OPTIONS") > sizeof(text)) {
            break;
        }
        memcpy(text + size, methods[i].data, methods[i].size);
        size += methods[i].size;
        memcpy(text + size, ", ", 2);
        size += 2;
        options = options || bop_slice_equal(methods[i], bop_slice_cstr("OPTIONS"));
    }
    if (count == 0) {
        return false;
    }
    if (options) {
        size -= 2;
    } else {
        memcpy(text + size, "OPTIONS", 7);
        size += 7;
    }
    return bop__exchange_add_header(ex, "Allow", bop_slice(text, size)) == 0;
}

static void reply_empty(struct bop__exchange *ex, unsigned status)
{
    if (bop_http_reply(bop__exchange_handle(ex), status, NULL, bop_slice(NULL, 0)) < 0) {
        bop__http_conn_kill(ex->conn);
    }
}

/* No route, or none that wanted it. */
static void answer_unrouted(struct bop__exchange *ex, const struct bop_http_head *head)
{
    bop_buf_clear(&ex->headers); /* Of a handler that left it to the next. */
    if (head->method == BOP_HTTP_OTHER) {
        bop__exchange_reply_text(ex, 501, "no such method");
    } else if (!add_allow(ex, head)) {
        bop__exchange_reply_text(ex, 404, "not found");
    } else if (head->method == BOP_HTTP_OPTIONS) {
        reply_empty(ex, 204);
    } else {
        bop__exchange_reply_text(ex, 405, "method not allowed");
    }
}

/* "OPTIONS *" asks about the server as a whole. */
static void answer_asterisk(struct bop__exchange *ex)
{
    if (bop__exchange_add_header(
            ex, "Allow", bop_slice_cstr("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")) != 0) {
        bop__http_conn_kill(ex->conn);
        return;
    }
    reply_empty(ex, 204);
}

static void call_handlers(struct bop__exchange *ex, const struct bop_http_head *head)
{
    struct bop_http_server *server = ex->conn->server;
    struct bop_router_match match;
    bool found = bop_router_match(server->router, head->authority, head->method_text, head->path,
                                  &match);

    ex->match = &match;
    while (found) {
        const struct bop__http_route *route = (const struct bop__http_route *)match.route;

        ex->next_route = false;
        route->handler(bop__exchange_handle(ex), head, route->user);
        if (BOP_UNLIKELY(server->taken)) {
            return; /* The record is in the pool. */
        }
        if (BOP_LIKELY(ex->answered || !ex->next_route || ex->conn->phase == BOP__HTTP_GONE)) {
            break;
        }
        found = bop_router_next(&match);
    }
    ex->match = NULL;
    if (!found) {
        answer_unrouted(ex, head);
    }
}

void bop__http_dispatch(struct bop__exchange *ex, const struct bop_http_head *head)
{
    struct bop_http_server *server = ex->conn->server;

    server->dispatching = true;
    if (BOP_LIKELY(head->target_form <= BOP_HTTP_ABSOLUTE_FORM)) {
        call_handlers(ex, head);
    } else if (head->target_form == BOP_HTTP_ASTERISK_FORM) {
        answer_asterisk(ex);
    } else {
        bop__exchange_reply_text(ex, 501, "this is no proxy");
    }
    server->dispatching = false;
    if (!server->taken) {
        ex->head = NULL;
    }
}
