/*
 * Fuzzes the router: each line of the input adds a route, removes one or asks.
 *
 *      + METHOD HOST PATTERN      "-" for any method, any host
 *      - METHOD HOST PATTERN
 *      ? METHOD HOST PATH
 *
 * Properties: a route that is given fits what was asked for, and its parameters
 * are pieces of the path; no route is given twice; a route of any method and host
 * that fits the path is among those given; after removal it is not.
 */
#include <stdio.h>
#include <stdlib.h>

#include <bop/error.h>
#include <bop/router.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

#define ROUTES_MAX 32
#define WORD_MAX   200

struct route {
    char method[WORD_MAX], host[WORD_MAX], pattern[WORD_MAX];
    bool used, given;
};

static struct route routes[ROUTES_MAX];

/* Segment by segment, as the interface says it. */
static bool fits(const char *pattern, const char *path)
{
    while (*pattern == '/' && *path == '/') {
        size_t a = strcspn(pattern + 1, "/"), b = strcspn(path + 1, "/");

        if (a == 1 && pattern[1] == '*') {
            return true;
        }
        if (a > 0 && pattern[1] == ':' ? b == 0 : a != b || memcmp(pattern + 1, path + 1, a) != 0) {
            return false;
        }
        pattern += 1 + a;
        path += 1 + b;
    }
    return *pattern == '\0' && *path == '\0';
}

static const char *or_null(const char *word)
{
    return strcmp(word, "-") == 0 ? NULL : word;
}

static void add(struct bop_router *router, const struct route *line)
{
    for (unsigned i = 0; i < ROUTES_MAX; i++) {
        if (!routes[i].used) {
            routes[i] = *line;
            routes[i].used = bop_router_add(router, or_null(line->host), or_null(line->method),
                                            line->pattern, &routes[i]) == 0;
            return;
        }
    }
}

static void take_out(struct bop_router *router, const struct route *line)
{
    void *route = NULL;
    int rc = bop_router_remove(router, or_null(line->host), or_null(line->method), line->pattern,
                               &route);

    require(rc == BOP_ENOTFOUND ? route == NULL : rc == 0);
    if (rc == 0) {
        require(((struct route *)route)->used);
        ((struct route *)route)->used = false;
    }
}

static void check_match(const struct bop_router_match *match, const struct route *line)
{
    struct route *route = match->route;

    require(route->used && !route->given);
    route->given = true;
    require(fits(route->pattern, line->pattern));
    require(!or_null(route->method) || strcmp(route->method, line->method) == 0 ||
            (strcmp(route->method, "GET") == 0 && strcmp(line->method, "HEAD") == 0));
    require(match->param_count <= BOP_ROUTER_PARAMS_MAX);
    for (unsigned i = 0; i < match->param_count; i++) {
        struct bop_slice value = match->params[i];

        require(value.data >= match->path.data &&
                value.data + value.size <= match->path.data + match->path.size);
    }
}

static void ask(struct bop_router *router, const struct route *line)
{
    struct bop_router_match match;
    struct bop_slice host = or_null(line->host) ? bop_slice_cstr(line->host) : bop_slice(NULL, 0);
    struct bop_slice methods[4];
    bool found;

    for (unsigned i = 0; i < ROUTES_MAX; i++) {
        routes[i].given = false;
    }
    found = bop_router_match(router, host, bop_slice_cstr(line->method),
                             bop_slice_cstr(line->pattern), &match);
    for (unsigned i = 0; found; i++) {
        require(i < ROUTES_MAX);
        check_match(&match, line);
        found = bop_router_next(&match);
    }
    for (unsigned i = 0; i < ROUTES_MAX; i++) {
        if (routes[i].used && !or_null(routes[i].host) && !or_null(routes[i].method) &&
            fits(routes[i].pattern, line->pattern)) {
            require(routes[i].given);
        }
    }
    bop_router_methods(router, host, bop_slice_cstr(line->pattern), methods, 4);
}

static void do_line(struct bop_router *router, const char *text)
{
    struct route line = {.used = false};
    char op;

    if (sscanf(text, "%c %199s %199s %199s", &op, line.method, line.host, line.pattern) != 4) {
        return;
    }
    if (op == '+') {
        add(router, &line);
    } else if (op == '-') {
        take_out(router, &line);
    } else if (op == '?') {
        ask(router, &line);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_router *router;
    char text[700];

    memset(routes, 0, sizeof(routes));
    require(bop_router_create(NULL, &router) == 0);
    for (size_t at = 0; at < size;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t length = end ? (size_t)(end - data) - at : size - at;

        if (length < sizeof(text)) {
            memcpy(text, data + at, length);
            text[length] = '\0';
            do_line(router, text);
        }
        at += length + 1;
    }
    bop_router_destroy(router);
    return 0;
}
