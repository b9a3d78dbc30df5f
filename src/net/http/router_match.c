/*
 * Finding routes in the trie.
 *
 * A search walks the nodes in the order of preference, each at most once as the
 * trie is a tree, and counts the routes that fit. The next best is found by
 * walking again and skipping those before: so that a match needs no memory but
 * its own, and what is asked for nearly always, the first, costs nothing more.
 */
#include "router_internal.h"

struct search {
    struct bop_router_match *match; /* NULL while methods are collected. */
    const uint8_t *end;             /* Of the path. */
    struct bop_slice params[BOP_ROUTER_PARAMS_MAX];
    unsigned skip;
    struct bop_slice *methods;
    unsigned methods_max;
    unsigned method_count;
};

/* ---- What ends at a node ---- */

static bool is_text(struct bop_slice slice, const char *text, size_t size)
{
    return bop_slice_equal(slice, bop_slice(text, size));
}

/* Its own method first, then GET for HEAD, then any. */
static bool take_leaf(struct search *search, const struct bop__router_leaf *leaf,
                      unsigned param_count)
{
    struct bop_router_match *match = search->match;

    if (search->skip > 0) {
        search->skip--;
        return false;
    }
    match->route = leaf->route;
    match->names = leaf->names;
    match->param_count = param_count;
    if (param_count > 0) {
        memcpy(match->params, search->params, param_count * sizeof(match->params[0]));
    }
    return true;
}

static bool pick_leaf(struct search *search, const struct bop__router_node *node,
                      unsigned param_count)
{
    struct bop_slice method = search->match->method;
    const struct bop__router_leaf *leaf = node->leaves, *get = NULL;
    const struct bop__router_leaf *end = node->leaf_count > 0 ? leaf + node->leaf_count : leaf;
    bool is_head = is_text(method, "HEAD", 4);

    for (; leaf < end && leaf->method.data; leaf++) {
        if (bop_slice_equal(leaf->method, method)) {
            if (take_leaf(search, leaf, param_count)) {
                return true;
            }
        } else if (is_head && is_text(leaf->method, "GET", 3)) {
            get = leaf;
        }
    }
    if (get && take_leaf(search, get, param_count)) {
        return true;
    }
    return leaf < end && take_leaf(search, leaf, param_count);
}

static void collect_method(struct search *search, struct bop_slice method)
{
    for (unsigned i = 0; i < search->method_count && i < search->methods_max; i++) {
        if (bop_slice_equal(search->methods[i], method)) {
            return;
        }
    }
    if (search->method_count < search->methods_max) {
        search->methods[search->method_count] = method;
    }
    search->method_count++;
}

static void collect_methods(struct search *search, const struct bop__router_node *node)
{
    for (unsigned i = 0; i < node->leaf_count; i++) {
        struct bop_slice method = node->leaves[i].method;

        if (!method.data) {
            continue;
        }
        collect_method(search, method);
        if (is_text(method, "GET", 3)) {
            collect_method(search, bop_slice("HEAD", 4));
        }
    }
}

static bool at_node(struct search *search, const struct bop__router_node *node,
                    unsigned param_count)
{
    if (search->match) {
        return pick_leaf(search, node, param_count);
    }
    collect_methods(search, node);
    return false;
}

/* ---- The walk ---- */

static const struct bop__router_node *static_child(const struct bop__router_node *node,
                                                   struct bop_slice segment)
{
    bool found;
    unsigned at;

    if (node->child_count <= 4) {
        for (unsigned i = 0; i < node->child_count; i++) {
            if (bop_slice_equal(node->children[i]->segment, segment)) {
                return node->children[i];
            }
        }
        return NULL;
    }
    at = bop__router_child_at(node, segment, &found);
    return found ? node->children[at] : NULL;
}

/* at: the rest of the path, NULL at its end. As deep as patterns may be. */
static bool walk(struct search *search, const struct bop__router_node *node, const uint8_t *at,
                 unsigned param_count)
{
    const uint8_t *rest = at;
    const struct bop__router_node *child;
    struct bop_slice segment;

    if (!at) {
        return at_node(search, node, param_count);
    }
    segment = bop__router_segment(&at, search->end);
    child = static_child(node, segment);
    if (child && walk(search, child, at, param_count)) {
        return true;
    }
    if (node->param && segment.size > 0) {
        search->params[param_count] = segment;
        if (walk(search, node->param, at, param_count + 1)) {
            return true;
        }
    }
    if (node->wildcard) {
        search->params[param_count] = bop_slice(rest, (size_t)(search->end - rest));
        return at_node(search, node->wildcard, param_count + 1);
    }
    return false;
}

/* The name in an authority, lower case, without port and without the dot of the root. */
static struct bop_slice host_name(struct bop_slice authority, uint8_t text[BOP_ROUTER_HOST_MAX])
{
    size_t size = authority.size;

    for (size_t i = authority.size; i > 0; i--) {
        uint8_t c = authority.data[i - 1];

        if (c == ':') {
            size = i - 1;
        }
        if (c < '0' || c > '9') {
            break;
        }
    }
    if (size > 1 && authority.data[size - 1] == '.') {
        size--;
    }
    if (size > BOP_ROUTER_HOST_MAX) {
        return bop_slice(NULL, 0);
    }
    for (size_t i = 0; i < size; i++) {
        uint8_t c = authority.data[i];

        text[i] = c >= 'A' && c <= 'Z' ? c | 0x20 : c;
    }
    return bop_slice(text, size);
}

static bool walk_host(struct search *search, const struct bop_router *router, struct bop_slice name,
                      const uint8_t *path)
{
    unsigned at;
    const struct bop__router_host *host = bop__router_host_find(router, name, &at);

    return host && walk(search, &host->root, path, 0);
}

/* The exact host, then wildcards from the longest on. */
static bool walk_named(struct search *search, const struct bop_router *router,
                       struct bop_slice authority, const uint8_t *path)
{
    uint8_t text[BOP_ROUTER_HOST_MAX];
    struct bop_slice name = host_name(authority, text);

    /* One that begins with a dot would be taken for a wildcard's. */
    if (name.size == 0 || name.data[0] == '.') {
        return false;
    }
    if (walk_host(search, router, name, path)) {
        return true;
    }
    for (size_t i = 1; i < name.size; i++) {
        if (name.data[i] == '.' &&
            walk_host(search, router, bop_slice(name.data + i, name.size - i), path)) {
            return true;
        }
    }
    return false;
}

static bool walk_all(struct search *search, const struct bop_router *router, struct bop_slice host,
                     struct bop_slice path)
{
    if (path.size == 0 || path.data[0] != '/' || router->host_count == 0) {
        return false;
    }
    search->end = path.data + path.size;
    if (host.data && (router->host_count > 1 || router->hosts[0]->name.size > 0) &&
        walk_named(search, router, host, path.data + 1)) {
        return true;
    }
    /* Sorting puts routes for any host first. */
    return router->hosts[0]->name.size == 0 &&
           walk(search, &router->hosts[0]->root, path.data + 1, 0);
}

/* ---- The interface ---- */

static bool find(struct bop_router_match *match)
{
    struct search search;

    search.match = match;
    search.skip = match->rank;
    return walk_all(&search, match->router, match->host, match->path);
}

bool bop_router_match(const struct bop_router *router, struct bop_slice host,
                      struct bop_slice method, struct bop_slice path,
                      struct bop_router_match *out_match)
{
    out_match->router = router;
    out_match->host = host;
    out_match->method = method;
    out_match->path = path;
    out_match->rank = 0;
    return find(out_match);
}

bool bop_router_next(struct bop_router_match *in_out_match)
{
    in_out_match->rank++;
    return find(in_out_match);
}

struct bop_slice bop_router_param(const struct bop_router_match *match, const char *name)
{
    size_t size = strlen(name);

    for (unsigned i = 0; i < match->param_count; i++) {
        if (is_text(match->names[i], name, size)) {
            return match->params[i];
        }
    }
    return bop_slice(NULL, 0);
}

unsigned bop_router_methods(const struct bop_router *router, struct bop_slice host,
                            struct bop_slice path, struct bop_slice *out_methods, unsigned max)
{
    struct search search;

    search.match = NULL;
    search.methods = out_methods;
    search.methods_max = max;
    search.method_count = 0;
    BOP_IGNORE(walk_all(&search, router, host, path)); /* Collecting never finds. */
    return search.method_count;
}
