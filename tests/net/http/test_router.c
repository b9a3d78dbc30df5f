/*
 * The router: by example, and against a model that looks at all routes one by one.
 */
#include <bop/router.h>

#include <stdio.h>
#include <stdlib.h>

#include <bop/error.h>
#include <bop/random.h>

#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_router *router;
    struct bop_router_match match;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_router_create(&f->heap.allocator, &f->router), 0);
}

static void teardown(struct fixture *f)
{
    bop_router_destroy(f->router);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* A route is the text of what it was added with. */
static void add(struct fixture *f, const char *host, const char *method, const char *pattern,
                const char *name)
{
    REQUIRE_EQ(bop_router_add(f->router, host, method, pattern, (void *)(uintptr_t)name), 0);
}

static const char *match_host(struct fixture *f, const char *host, const char *method,
                              const char *path)
{
    bool found = bop_router_match(f->router, host ? bytes(host) : bop_slice(NULL, 0), bytes(method),
                                  bytes(path), &f->match);

    return found ? f->match.route : NULL;
}

static const char *match(struct fixture *f, const char *method, const char *path)
{
    return match_host(f, NULL, method, path);
}

static const char *next(struct fixture *f)
{
    return bop_router_next(&f->match) ? f->match.route : NULL;
}

TEST(router, takes_static_before_parameter_before_wildcard)
{
    add(f, NULL, "GET", "/users/*", "wildcard");
    add(f, NULL, "GET", "/users/:id", "parameter");
    add(f, NULL, "GET", "/users/me", "static");

    CHECK_STR_EQ(match(f, "GET", "/users/me"), "static");
    CHECK_STR_EQ(next(f), "parameter");
    CHECK_SLICE_EQ(bop_router_param(&f->match, "id"), bytes("me"));
    CHECK_STR_EQ(next(f), "wildcard");
    CHECK_SLICE_EQ(bop_router_param(&f->match, "*"), bytes("me"));
    CHECK_STR_EQ(next(f), NULL);

    CHECK_STR_EQ(match(f, "GET", "/users/7"), "parameter");
    CHECK_STR_EQ(match(f, "GET", "/users/7/x"), "wildcard");
    CHECK_SLICE_EQ(bop_router_param(&f->match, "*"), bytes("7/x"));
    CHECK_STR_EQ(match(f, "GET", "/users/"), "wildcard"); /* A parameter is not empty. */
    CHECK_SLICE_EQ(bop_router_param(&f->match, "*"), bytes(""));
    CHECK(bop_router_param(&f->match, "id").data == NULL);
    CHECK_STR_EQ(match(f, "GET", "/users"), NULL);
}

TEST(router, goes_back_where_the_better_way_leads_nowhere)
{
    add(f, NULL, "GET", "/a/b/c", "static");
    add(f, NULL, "GET", "/a/:x/d", "parameter");
    add(f, NULL, "GET", "/*", "wildcard");

    CHECK_STR_EQ(match(f, "GET", "/a/b/d"), "parameter");
    CHECK_SLICE_EQ(bop_router_param(&f->match, "x"), bytes("b"));
    CHECK_STR_EQ(match(f, "GET", "/a/b/e"), "wildcard");
    CHECK_EQ(f->match.param_count, 1);
}

TEST(router, tells_slashes_apart)
{
    add(f, NULL, "GET", "/", "root");
    add(f, NULL, "GET", "/a", "without");
    add(f, NULL, "GET", "/a/", "with");
    add(f, NULL, "GET", "/a//b", "twice");

    CHECK_STR_EQ(match(f, "GET", "/"), "root");
    CHECK_STR_EQ(match(f, "GET", "/a"), "without");
    CHECK_STR_EQ(match(f, "GET", "/a/"), "with");
    CHECK_STR_EQ(match(f, "GET", "/a//b"), "twice");
    CHECK_STR_EQ(match(f, "GET", "//"), NULL);
    CHECK_STR_EQ(match(f, "GET", "*"), NULL);
    CHECK_STR_EQ(match(f, "GET", ""), NULL);
}

TEST(router, prefers_the_method_itself_and_gives_get_to_head)
{
    add(f, NULL, NULL, "/a", "any");
    add(f, NULL, "GET", "/a", "get");
    add(f, NULL, "POST", "/a", "post");

    CHECK_STR_EQ(match(f, "POST", "/a"), "post");
    CHECK_STR_EQ(next(f), "any");
    CHECK_STR_EQ(next(f), NULL);
    CHECK_STR_EQ(match(f, "HEAD", "/a"), "get");
    CHECK_STR_EQ(match(f, "BREW", "/a"), "any");
    add(f, NULL, "HEAD", "/a", "head");
    CHECK_STR_EQ(match(f, "HEAD", "/a"), "head");
    CHECK_STR_EQ(next(f), "get");
    CHECK_STR_EQ(next(f), "any");
}

TEST(router, prefers_the_exact_host_then_the_longest_wildcard)
{
    add(f, NULL, "GET", "/a", "any");
    add(f, "*.example.org", "GET", "/a", "wildcard");
    add(f, "*.b.Example.org", "GET", "/a", "longer");
    add(f, "a.b.example.org", "GET", "/a", "exact");

    CHECK_STR_EQ(match_host(f, "A.b.example.org:8080", "GET", "/a"), "exact");
    CHECK_STR_EQ(next(f), "longer");
    CHECK_STR_EQ(next(f), "wildcard");
    CHECK_STR_EQ(next(f), "any");
    CHECK_STR_EQ(next(f), NULL);
    CHECK_STR_EQ(match_host(f, "x.example.org.", "GET", "/a"), "wildcard");
    CHECK_STR_EQ(match_host(f, "example.org", "GET", "/a"), "any");
    CHECK_STR_EQ(match_host(f, ".example.org", "GET", "/a"), "any");
    CHECK_STR_EQ(match_host(f, "[::1]:80", "GET", "/a"), "any");
    CHECK_STR_EQ(match_host(f, NULL, "GET", "/a"), "any");
}

TEST(router, lists_the_methods_of_a_path)
{
    struct bop_slice methods[4];

    add(f, NULL, "GET", "/a", "get");
    add(f, NULL, "POST", "/:x", "post");
    add(f, NULL, "POST", "/*", "post too");
    add(f, NULL, NULL, "/b", "any");

    REQUIRE_EQ(bop_router_methods(f->router, bytes("h"), bytes("/a"), methods, 4), 3);
    CHECK_SLICE_EQ(methods[0], bytes("GET"));
    CHECK_SLICE_EQ(methods[1], bytes("HEAD"));
    CHECK_SLICE_EQ(methods[2], bytes("POST"));
    CHECK_EQ(bop_router_methods(f->router, bytes("h"), bytes("/b"), methods, 4), 1);
    CHECK_EQ(bop_router_methods(f->router, bytes("h"), bytes("*"), methods, 4), 0);
}

TEST(router, refuses_what_is_no_route)
{
    static const struct {
        const char *host, *method, *pattern;
    } bad[] = {
        {NULL, "GET", ""},
        {NULL, "GET", "a"},
        {NULL, "GET", "*"},
        {NULL, "GET", "/*/a"},
        {NULL, "GET", "/:"},
        {NULL, "GET", "/:a/:a"},
        {NULL, "GET", "/:/a"},
        {NULL, "", "/a"},
        {NULL, "G T", "/a"},
        {"", "GET", "/a"},
        {"*", "GET", "/a"},
        {"a*.b", "GET", "/a"},
        {"http://a/", "GET", "/a"},
        {"a b", "GET", "/a"},
        {NULL, "GET", "/:a/:b/:c/:d/:e/:f/:g/:h/:i/:j/:k/:l/:m/:n/:o/:p/:q"},
    };
    char deep[2 * (BOP_ROUTER_SEGMENTS_MAX + 1) + 1];

    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        CHECK_EQ(bop_router_add(f->router, bad[i].host, bad[i].method, bad[i].pattern, f),
                 BOP_EINVAL);
    }
    for (size_t i = 0; i + 1 < sizeof(deep); i++) {
        deep[i] = i % 2 ? 'a' : '/';
    }
    deep[sizeof(deep) - 1] = '\0';
    CHECK_EQ(bop_router_add(f->router, NULL, NULL, deep, f), BOP_EINVAL);
    deep[sizeof(deep) - 3] = '\0'; /* One segment less is as many as may be. */
    CHECK_EQ(bop_router_add(f->router, NULL, NULL, deep, f), 0);
    CHECK(match(f, "GET", deep) != NULL);
    CHECK_EQ(bop_router_add(f->router, NULL, NULL, "/a", NULL), BOP_EINVAL);
    add(f, NULL, "GET", "/x/:a", "first");
    CHECK_EQ(bop_router_add(f->router, NULL, "GET", "/x/:b", f), BOP_EEXISTS);
}

TEST(router, forgets_what_is_removed)
{
    void *route = NULL;

    add(f, "h", "GET", "/a/:b/c", "one");
    add(f, NULL, "GET", "/a/:b", "two");
    CHECK_EQ(bop_router_remove(f->router, NULL, "GET", "/a/:b/c", NULL), BOP_ENOTFOUND);
    CHECK_EQ(bop_router_remove(f->router, "h", "POST", "/a/:b/c", NULL), BOP_ENOTFOUND);
    CHECK_EQ(bop_router_remove(f->router, "h", "GET", "a", NULL), BOP_ENOTFOUND);
    CHECK_EQ(bop_router_remove(f->router, "h", "GET", "/a/:other/c", &route), 0);
    CHECK_STR_EQ(route, "one");
    CHECK_STR_EQ(match_host(f, "h", "GET", "/a/1/c"), NULL);
    CHECK_STR_EQ(match_host(f, "h", "GET", "/a/1"), "two");
    CHECK_EQ(bop_router_remove(f->router, NULL, "GET", "/a/:b", NULL), 0);
    CHECK_STR_EQ(match(f, "GET", "/a/1"), NULL);
}

TEST(router, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_router *router = NULL;
        int rc = bop_router_create(&f->heap.allocator, &router);
        size_t before = f->heap.live;

        for (int i = 0; i < 3 && rc == 0; i++) {
            static const char *const patterns[] = {"/a/:b/c", "/a/:b/*", "/a/d"};

            rc = bop_router_add(router, "h", i == 1 ? NULL : "GET", patterns[i], f);
            if (rc != 0 && i == 0) {
                CHECK(f->heap.live <= before + 64); /* At most the list of hosts is longer. */
            }
        }
        CHECK_EQ(rc, f->faults.fired);
        bop_router_destroy(router);
    }
    CHECK(f->faults.at > 15);
}

/* ---- The model ---- */

#define ROUTES_MAX 24

struct model_route {
    const char *host, *method;
    char pattern[32];
    bool used;
};

static const char *const hosts[] = {NULL, "h.x", "*.x", "*.h.x", "g.h.x"};
static const char *const asked_hosts[] = {NULL, "h.x", "G.h.X:80", "a.h.x", "x", "q.x."};
static const char *const methods[] = {NULL, "GET", "POST", "HEAD"};
static const char *const asked_methods[] = {"GET", "POST", "HEAD", "PUT"};

static void random_pattern(struct bop_random *random, char *out_text, bool is_path)
{
    static const char *const segments[] = {"a", "b", "ab", "", ":", "*"};
    unsigned depth = 1 + (unsigned)bop_random_below(random, 4);

    out_text[0] = '\0';
    for (unsigned i = 0; i < depth; i++) {
        const char *segment = segments[bop_random_below(random, is_path ? 4 : 6)];

        strcat(out_text, "/");
        strcat(out_text, segment);
        if (*segment == ':') {
            sprintf(out_text + strlen(out_text), "p%u", i);
        }
        if (*segment == '*') {
            break;
        }
    }
}

/* Whether the pattern fits, and how: a digit a segment, 0 static, 1 parameter, 2 wildcard. */
static bool model_fits(const char *pattern, const char *path, char *out_kinds)
{
    for (; *pattern == '/'; pattern++, path++) {
        size_t a = strcspn(pattern + 1, "/"), b = strcspn(path + 1, "/");

        if (*path != '/') {
            return false;
        }
        if (pattern[1] == '*') {
            *out_kinds++ = '2';
            *out_kinds = '\0';
            return true;
        }
        if (pattern[1] == ':' ? b == 0 : a != b || memcmp(pattern + 1, path + 1, a) != 0) {
            return false;
        }
        *out_kinds++ = pattern[1] == ':' ? '1' : '0';
        pattern += a;
        path += b;
    }
    *out_kinds = '\0';
    return *path == '\0';
}

/* "0" exact, "1" and "2" wildcards, "3" any; or NULL. Indexes are of the tables above. */
static const char *model_host(const char *host, unsigned asked)
{
    static const char *const ranks[][5] = {
        {"3", NULL, NULL, NULL, NULL}, {"3", "0", "2", NULL, NULL},   {"3", NULL, "2", "1", "0"},
        {"3", NULL, "2", "1", NULL},   {"3", NULL, NULL, NULL, NULL}, {"3", NULL, "2", NULL, NULL},
    };

    for (unsigned i = 0; i < 5; i++) {
        if (host == hosts[i]) {
            return ranks[asked][i];
        }
    }
    return NULL;
}

static const char *model_method(const char *method, const char *asked)
{
    if (!method) {
        return "2";
    }
    if (strcmp(method, asked) == 0) {
        return "0";
    }
    return strcmp(asked, "HEAD") == 0 && strcmp(method, "GET") == 0 ? "1" : NULL;
}

/* What orders the routes that fit; false if this one does not. */
static bool model_rank(const struct model_route *route, unsigned host, const char *method,
                       const char *path, char *out_rank)
{
    const char *by_host = model_host(route->host, host), *by_method;

    by_method = model_method(route->method, method);
    if (!route->used || !by_host || !by_method || !model_fits(route->pattern, path, out_rank + 1)) {
        return false;
    }
    out_rank[0] = by_host[0];
    strcat(out_rank, "/"); /* Below the digits: a prefix cannot be as both fit the same path. */
    strcat(out_rank, by_method);
    return true;
}

/* The route with the least rank above `after`. */
static const struct model_route *model_next(const struct model_route *routes, unsigned host,
                                            const char *method, const char *path, char *in_out_rank)
{
    const struct model_route *best = NULL;
    char best_rank[32] = "~", rank[32];

    for (unsigned i = 0; i < ROUTES_MAX; i++) {
        if (model_rank(&routes[i], host, method, path, rank) && strcmp(rank, in_out_rank) > 0 &&
            strcmp(rank, best_rank) < 0) {
            strcpy(best_rank, rank);
            best = &routes[i];
        }
    }
    strcpy(in_out_rank, best_rank);
    return best;
}

static void compare(struct fixture *f, struct bop_random *random, const struct model_route *routes)
{
    unsigned host = (unsigned)bop_random_below(random, BOP_COUNT_OF(asked_hosts));
    const char *method = asked_methods[bop_random_below(random, BOP_COUNT_OF(asked_methods))];
    char path[32], rank[32] = "";
    const struct model_route *expected;
    struct bop_slice name;
    bool found;

    random_pattern(random, path, true);
    name = asked_hosts[host] ? bytes(asked_hosts[host]) : bop_slice(NULL, 0);
    found = bop_router_match(f->router, name, bytes(method), bytes(path), &f->match);
    for (unsigned i = 0; i <= ROUTES_MAX; i++) {
        expected = model_next(routes, host, method, path, rank);
        CHECK_PTR_EQ(found ? f->match.route : NULL, expected);
        if (!found || !expected) {
            break;
        }
        /* What the parameters took is in the path, and they are named by their place. */
        for (unsigned p = 0; p < f->match.param_count; p++) {
            struct bop_slice value = f->match.params[p];

            CHECK(value.data >= f->match.path.data &&
                  value.data + value.size <= f->match.path.data + f->match.path.size);
            if (f->match.names[p].data[0] == 'p') {
                const char *at = path;

                for (int s = f->match.names[p].data[1] - '0'; s >= 0; s--) {
                    at = strchr(at, '/') + 1;
                }
                CHECK_PTR_EQ(value.data, f->match.path.data + (at - path));
                CHECK_EQ(value.size, strcspn(at, "/"));
            }
        }
        found = bop_router_next(&f->match);
    }
}

static void change(struct fixture *f, struct bop_random *random, struct model_route *routes)
{
    struct model_route *route = &routes[bop_random_below(random, ROUTES_MAX)];

    if (route->used) {
        void *removed = NULL;

        CHECK_EQ(bop_router_remove(f->router, route->host, route->method, route->pattern, &removed),
                 0);
        CHECK_PTR_EQ(removed, route);
        route->used = false;
    } else {
        route->host = hosts[bop_random_below(random, BOP_COUNT_OF(hosts))];
        route->method = methods[bop_random_below(random, BOP_COUNT_OF(methods))];
        random_pattern(random, route->pattern, false);
        route->used = bop_router_add(f->router, route->host, route->method, route->pattern,
                                     route) == 0;
    }
}

TEST(router, finds_what_a_look_at_every_route_finds)
{
    struct model_route routes[ROUTES_MAX] = {{.used = false}};
    struct bop_random random;

    bop_random_seed(&random, 20);
    for (unsigned i = 0; i < 4000; i++) {
        change(f, &random, routes);
        for (unsigned k = 0; k < 5; k++) {
            compare(f, &random, routes);
        }
    }
}
