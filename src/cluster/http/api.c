/*
 * The server, and from a request's head to its route.
 *
 * Routing is by a router of our own behind one route of the server's, so that
 * paths and methods that are not served are answered as all problems are, and
 * tests and fuzzer can have the routes without a socket.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <strings.h>

#include "http.h"

#define ALLOW_MAX     128
#define METHODS_MAX   8
#define STOP_GRACE_MS 1000

/* ---- What a browser may be made to ask ---- */

/* A page of another origin makes a visitor's browser ask in its name: such requests say so. */
static bool is_cross_origin(const struct bop_http_head *head)
{
    struct bop_slice origin = bop_http_known(head, BOP_HTTP_ORIGIN);
    const uint8_t *slashes;
    struct bop_slice host;

    if (!origin.data) {
        return false;
    }
    slashes = memmem(origin.data, origin.size, "://", 3);
    if (!slashes) {
        return true; /* "null", say of a file. */
    }
    host = bop_slice(slashes + 3, (size_t)(origin.data + origin.size - slashes - 3));
    return !bop_slice_equal(host, head->authority);
}

/* "127.8.9.10", "::1", "::ffff:127.0.0.1", "localhost"; NULL is loopback, too. */
static bool is_loopback(const char *host)
{
    struct in_addr four;
    struct in6_addr six;

    if (!host || strcasecmp(host, "localhost") == 0) {
        return true;
    }
    if (inet_pton(AF_INET, host, &four) == 1) {
        return ntohl(four.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    return inet_pton(AF_INET6, host, &six) == 1 &&
           (IN6_IS_ADDR_LOOPBACK(&six) ||
            (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == IN_LOOPBACKNET));
}

/* The host of "host:port", of which what is in brackets is an address and is given whole. */
static struct bop_slice host_of(struct bop_slice authority)
{
    const uint8_t *colon = authority.size > 0 && authority.data[0] != '['
                               ? memchr(authority.data, ':', authority.size)
                               : NULL;

    return colon ? bop_slice(authority.data, (size_t)(colon - authority.data)) : authority;
}

static bool is_name(struct bop_slice host, const char *name)
{
    return host.size == strlen(name) && strncasecmp((const char *)host.data, name, host.size) == 0;
}

/* Whether it asks for a name that is not ours. Whoever owns a name can have it mean 127.0.0.1 once
 * his page is loaded from it ("DNS rebinding"); its requests come from the server's own origin
 * then, and nothing but the name tells them from others. Only a name can be moved so: addresses
 * are fine. Tokens, and certificates, are what such a page has not. */
static bool is_misdirected(const struct http_api *api, const struct bop_http_head *head)
{
    struct bop_slice host = host_of(head->authority);
    char text[INET_ADDRSTRLEN];
    struct in_addr four;

    if (!api->local || api->backend.auth || host.size == 0 || host.data[0] == '[') {
        return false;
    }
    if (is_name(host, "localhost") || (api->options.host && is_name(host, api->options.host))) {
        return false;
    }
    if (host.size >= sizeof(text)) {
        return true;
    }
    memcpy(text, host.data, host.size);
    text[host.size] = '\0';
    return inet_pton(AF_INET, text, &four) != 1;
}

/* ---- What is not served ---- */

static void answer_problem(struct http_api *api, struct bop_http_exchange *http,
                           enum http_problem_kind kind, const char *detail, const char *allow)
{
    struct http_problem problem = {.kind = kind};
    struct http_answer answer = {.allow = allow};

    snprintf(problem.detail, sizeof(problem.detail), "%s", detail);
    bop_buf_init(&answer.text, api->allocator, 0);
    if (bop__http_answer_problem(&answer, &problem) < 0 ||
        bop__http_send_answer(http, &answer) < 0) {
        bop_http_close(http);
    }
    bop_buf_deinit(&answer.text);
}

/* "GET, HEAD, PUT, OPTIONS". Returns how many of them are ours. */
static unsigned list_methods(struct http_api *api, struct bop_slice path, char out_text[ALLOW_MAX])
{
    struct bop_slice methods[METHODS_MAX];
    unsigned count = bop_router_methods(api->router, bop_slice(NULL, 0), path, methods,
                                        METHODS_MAX);
    size_t size = 0;

    for (unsigned n = 0; n < count && n < METHODS_MAX; n++) {
        size += (size_t)snprintf(out_text + size, ALLOW_MAX - size, "%.*s, ", (int)methods[n].size,
                                 (const char *)methods[n].data);
    }
    snprintf(out_text + size, ALLOW_MAX - size, "OPTIONS");
    return count;
}

static void answer_unrouted(struct http_api *api, struct bop_http_exchange *http,
                            const struct bop_http_head *head)
{
    char allow[ALLOW_MAX];
    struct http_answer options = {.status = 204, .allow = allow};

    if (list_methods(api, head->path, allow) == 0) {
        answer_problem(api, http, HTTP_NO_ROUTE, "", NULL);
    } else if (head->method != BOP_HTTP_OPTIONS) {
        answer_problem(api, http, HTTP_NO_METHOD, "", allow);
    } else if (bop__http_send_answer(http, &options) < 0) {
        bop_http_close(http);
    }
}

static void on_request(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    struct http_api *api = user;
    struct bop_router_match match;

    if (!api->backend.replica) {
        answer_problem(api, http, HTTP_NOT_READY, "the node is starting", NULL);
    } else if (is_misdirected(api, head)) {
        answer_problem(api, http, HTTP_MISDIRECTED, "", NULL);
    } else if (is_cross_origin(head)) {
        answer_problem(api, http, HTTP_CROSS_ORIGIN, "", NULL);
    } else if (!bop_router_match(api->router, bop_slice(NULL, 0), head->method_text, head->path,
                                 &match)) {
        answer_unrouted(api, http, head);
    } else {
        bop__http_begin(api, http, head, &match);
    }
}

/* ---- Routes ---- */

/* "/v1/maps/{name}/entries/{key}" as the router has it: "/v1/maps/:name/entries/" and "*". */
static void pattern_of(const char *path, char *out_pattern, size_t size)
{
    size_t at = 0;

    for (const char *from = path; *from && at + 1 < size; from++) {
        if (strcmp(from, "{key}") == 0 || strcmp(from, "{member}") == 0) {
            out_pattern[at++] = '*';
            break;
        }
        if (*from != '}') {
            out_pattern[at++] = *from == '{' ? ':' : *from;
        }
    }
    out_pattern[at] = '\0';
}

int bop__http_router(struct bop_allocator *allocator, struct bop_router **out_router)
{
    size_t count;
    const struct http_route *routes = bop__http_routes(&count);
    struct bop_router *router;
    int rc = bop_router_create(allocator, &router);

    if (rc < 0) {
        return rc;
    }
    for (size_t n = 0; n < count && rc == 0; n++) {
        char pattern[128];

        pattern_of(routes[n].path, pattern, sizeof(pattern));
        rc = bop_router_add(router, NULL, routes[n].method, pattern, (void *)&routes[n]);
    }
    if (rc < 0) {
        bop_router_destroy(router);
        return rc;
    }
    *out_router = router;
    return 0;
}

/* ---- Life ---- */

static int start(struct http_api *api, struct bop_error *err)
{
    const struct bop_http_server_options server_options = {
        .limits = {.head_bytes_max = HTTP_HEAD_MAX, .target_bytes_max = HTTP_TARGET_MAX},
        .body_bytes_max = UINT64_MAX, /* Each route has its own. */
    };
    const struct bop_http_listen_options listen_options = {
        .host = api->options.host,
        .port = api->options.port,
        .tls = api->options.tls,
        .connections_max = api->options.connections_max ? api->options.connections_max
                                                        : HTTP_CONNECTIONS_MAX,
    };
    int rc = bop__http_router(api->allocator, &api->router);

    if (rc == 0) {
        rc = bop_http_server_create(api->options.loop, &server_options, &api->server);
    }
    if (rc == 0) {
        rc = bop_http_route(api->server, NULL, "/*", on_request, api);
    }
    if (rc == 0 && api->options.metrics) {
        rc = bop_http_metrics(api->server, api->options.metrics, NULL);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "start the HTTP server");
    }
    rc = bop_http_listen(api->server, &listen_options, &api->listener, err);
    return rc < 0 ? bop_error_wrap(err, "HTTP") : 0;
}

int bop__http_api_create(const struct http_api_options *options, struct http_api **out_api,
                         struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "cluster.http");
    struct http_api *api = bop_alloc_zeroed(allocator, sizeof(*api));
    int rc;

    if (!api) {
        return bop_error_set(err, BOP_ENOMEM, "start the HTTP server");
    }
    api->options = *options;
    api->allocator = allocator;
    bop_list_init(&api->standing);
    api->local = !options->tls && is_loopback(options->host);
    rc = start(api, err);
    if (rc < 0) {
        bop__http_api_close(api);
        bop__http_api_destroy(api);
        return rc;
    }
    api->port = bop_listener_port(api->listener);
    *out_api = api;
    return 0;
}

void bop__http_api_serve(struct http_api *api, const struct http_api_backend *backend)
{
    api->backend = *backend;
}

uint16_t bop__http_api_port(const struct http_api *api)
{
    return api->port;
}

static void on_stopped(struct bop_http_server *server, void *user)
{
    /* Nobody waits: what is left is closed with the node. */
}

void bop__http_api_stop(struct http_api *api)
{
    api->stopping = true;
    bop_http_server_stop(api->server, STOP_GRACE_MS, on_stopped, api);
}

void bop__http_api_close(struct http_api *api)
{
    api->stopping = true;
    bop_http_server_destroy(api->server);
    api->server = NULL;
    api->closed = true;
}

bool bop__http_api_is_idle(const struct http_api *api)
{
    return api->requests == 0;
}

void bop__http_api_destroy(struct http_api *api)
{
    if (!api) {
        return;
    }
    BOP_ASSERT(!api->server && api->requests == 0);
    bop_router_destroy(api->router);
    bop_free(api->allocator, api, sizeof(*api));
}
