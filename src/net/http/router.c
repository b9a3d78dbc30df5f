/*
 * Building the trie of routes.
 */
#include "router_internal.h"

#include <bop/error.h>

#include "parse.h"

/* ---- Memory ---- */

static void deinit_leaf(struct bop_allocator *allocator, struct bop__router_leaf *leaf)
{
    bop_free(allocator, leaf->names, leaf->name_count * sizeof(leaf->names[0]));
    bop_free(allocator, leaf->text, leaf->text_size);
}

/* Depth is bounded by that of patterns. */
static void deinit_node(struct bop_allocator *allocator, struct bop__router_node *node)
{
    struct bop__router_node *others[] = {node->param, node->wildcard};

    for (unsigned i = 0; i < node->leaf_count; i++) {
        deinit_leaf(allocator, &node->leaves[i]);
    }
    bop_free(allocator, node->leaves, node->leaf_capacity * sizeof(node->leaves[0]));
    for (unsigned i = 0; i < node->child_count; i++) {
        deinit_node(allocator, node->children[i]);
        bop_free(allocator, node->children[i], sizeof(*node));
    }
    bop_free(allocator, node->children, node->child_capacity * sizeof(node->children[0]));
    for (size_t i = 0; i < BOP_COUNT_OF(others); i++) {
        if (others[i]) {
            deinit_node(allocator, others[i]);
            bop_free(allocator, others[i], sizeof(*node));
        }
    }
    bop_free(allocator, (void *)(uintptr_t)node->segment.data, node->segment.size);
}

int bop_router_create(struct bop_allocator *allocator, struct bop_router **out_router)
{
    struct bop_router *router;

    allocator = bop_allocator_or_default(allocator);
    router = bop_alloc_zeroed(allocator, sizeof(*router));
    if (!router) {
        return BOP_ENOMEM;
    }
    router->allocator = allocator;
    *out_router = router;
    return 0;
}

static void destroy_host(struct bop_allocator *allocator, struct bop__router_host *host)
{
    deinit_node(allocator, &host->root);
    bop_free(allocator, (void *)(uintptr_t)host->name.data, host->name.size);
    bop_free(allocator, host, sizeof(*host));
}

void bop_router_destroy(struct bop_router *router)
{
    if (!router) {
        return;
    }
    for (unsigned i = 0; i < router->host_count; i++) {
        destroy_host(router->allocator, router->hosts[i]);
    }
    bop_free(router->allocator, router->hosts, router->host_capacity * sizeof(router->hosts[0]));
    bop_free(router->allocator, router, sizeof(*router));
}

/* Open a gap of one item at `at` in an array of `count`. NULL: no memory, nothing changed. */
static void *open_gap(struct bop_allocator *allocator, void *array, unsigned count,
                      unsigned *in_out_capacity, unsigned at, size_t item)
{
    char *items = array;

    if (count == *in_out_capacity) {
        unsigned capacity = count == 0 ? 1 : count * 2;

        items = bop_realloc(allocator, array, count * item, capacity * item);
        if (!items) {
            return NULL;
        }
        *in_out_capacity = capacity;
    }
    memmove(items + (at + 1) * item, items + at * item, (count - at) * item);
    return items;
}

static void close_gap(void *array, unsigned count, unsigned at, size_t item)
{
    char *items = array;

    memmove(items + at * item, items + (at + 1) * item, (count - 1 - at) * item);
}

static int copy(struct bop_allocator *allocator, struct bop_slice from, struct bop_slice *out_copy)
{
    uint8_t *data = NULL;

    if (from.size > 0) {
        data = bop_alloc(allocator, from.size);
        if (!data) {
            return BOP_ENOMEM;
        }
        memcpy(data, from.data, from.size);
    }
    *out_copy = bop_slice(data, from.size);
    return 0;
}

/* ---- Patterns ---- */

static bool is_param(struct bop_slice segment)
{
    return segment.size > 0 && segment.data[0] == ':';
}

static bool is_wildcard(struct bop_slice segment)
{
    return segment.size == 1 && segment.data[0] == '*';
}

/* The name that a segment gives to what it takes; size 0: it is static. */
static struct bop_slice name_of(struct bop_slice segment)
{
    return is_param(segment)      ? bop_slice(segment.data + 1, segment.size - 1)
           : is_wildcard(segment) ? segment
                                  : bop_slice(NULL, 0);
}

/* Collect the names of a pattern. Returns how many, or BOP_EINVAL. */
static int read_pattern(struct bop_slice pattern, struct bop_slice names[BOP_ROUTER_PARAMS_MAX])
{
    const uint8_t *at = pattern.data + 1, *end = pattern.data + pattern.size;
    unsigned segments = 0;
    int count = 0;

    if (pattern.size == 0 || pattern.data[0] != '/') {
        return BOP_EINVAL;
    }
    while (at) {
        struct bop_slice segment = bop__router_segment(&at, end), name = name_of(segment);

        if (++segments > BOP_ROUTER_SEGMENTS_MAX || (is_wildcard(segment) && at) ||
            (is_param(segment) && name.size == 0)) {
            return BOP_EINVAL;
        }
        for (int i = 0; name.size > 0 && i < count; i++) {
            if (bop_slice_equal(names[i], name)) {
                return BOP_EINVAL;
            }
        }
        if (name.size > 0) {
            if (count == BOP_ROUTER_PARAMS_MAX) {
                return BOP_EINVAL;
            }
            names[count++] = name;
        }
    }
    return count;
}

/* ---- Hosts ---- */

/* "*.Example.org" as ".example.org"; BOP_EINVAL if it is no host. */
static int read_host(const char *host, uint8_t text[BOP_ROUTER_HOST_MAX],
                     struct bop_slice *out_name)
{
    struct bop_slice name = bop_slice_cstr(host ? host : "");

    if (name.size >= 2 && host[0] == '*' && host[1] == '.') {
        name = bop_slice(name.data + 1, name.size - 1);
    }
    if (name.size > BOP_ROUTER_HOST_MAX || (host && name.size < 1)) {
        return BOP_EINVAL;
    }
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = name.data[i];

        if (c == '*' || c == '/' || c <= ' ' || c >= 0x7f) {
            return BOP_EINVAL;
        }
        text[i] = c >= 'A' && c <= 'Z' ? c | 0x20 : c;
    }
    *out_name = bop_slice(text, name.size);
    return 0;
}

struct bop__router_host *bop__router_host_find(const struct bop_router *router,
                                               struct bop_slice name, unsigned *out_at)
{
    unsigned low = 0, high = router->host_count;

    while (low < high) {
        unsigned middle = (low + high) / 2;
        int order = bop_slice_compare(router->hosts[middle]->name, name);

        if (order == 0) {
            *out_at = middle;
            return router->hosts[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *out_at = low;
    return NULL;
}

static int host_add(struct bop_router *router, struct bop_slice name,
                    struct bop__router_host **out_host)
{
    struct bop__router_host *host, **hosts;
    unsigned at;
    int rc;

    *out_host = bop__router_host_find(router, name, &at);
    if (*out_host) {
        return 0;
    }
    host = bop_alloc_zeroed(router->allocator, sizeof(*host));
    if (!host) {
        return BOP_ENOMEM;
    }
    rc = copy(router->allocator, name, &host->name);
    hosts = rc == 0 ? open_gap(router->allocator, router->hosts, router->host_count,
                               &router->host_capacity, at, sizeof(hosts[0]))
                    : NULL;
    if (!hosts) {
        destroy_host(router->allocator, host);
        return BOP_ENOMEM;
    }
    router->hosts = hosts;
    hosts[at] = host;
    router->host_count++;
    *out_host = host;
    return 0;
}

/* ---- Nodes ---- */

unsigned bop__router_child_at(const struct bop__router_node *node, struct bop_slice segment,
                              bool *out_found)
{
    unsigned low = 0, high = node->child_count;

    *out_found = false;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        int order = bop_slice_compare(node->children[middle]->segment, segment);

        if (order == 0) {
            *out_found = true;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The node below for a segment of a pattern, or NULL. */
static struct bop__router_node *child_of(struct bop__router_node *node, struct bop_slice segment)
{
    bool found;
    unsigned at;

    if (is_param(segment)) {
        return node->param;
    }
    if (is_wildcard(segment)) {
        return node->wildcard;
    }
    at = bop__router_child_at(node, segment, &found);
    return found ? node->children[at] : NULL;
}

static int child_add_static(struct bop_allocator *allocator, struct bop__router_node *node,
                            struct bop_slice segment, struct bop__router_node *child)
{
    struct bop__router_node **children;
    bool found;
    unsigned at = bop__router_child_at(node, segment, &found);
    int rc = copy(allocator, segment, &child->segment);

    if (rc != 0) {
        return rc;
    }
    children = open_gap(allocator, node->children, node->child_count, &node->child_capacity, at,
                        sizeof(children[0]));
    if (!children) {
        return BOP_ENOMEM;
    }
    node->children = children;
    children[at] = child;
    node->child_count++;
    return 0;
}

static int child_add(struct bop_allocator *allocator, struct bop__router_node *node,
                     struct bop_slice segment, struct bop__router_node **out_child)
{
    struct bop__router_node *child = child_of(node, segment);
    int rc = 0;

    if (!child) {
        child = bop_alloc_zeroed(allocator, sizeof(*child));
        if (!child) {
            return BOP_ENOMEM;
        }
        if (is_param(segment)) {
            node->param = child;
        } else if (is_wildcard(segment)) {
            node->wildcard = child;
        } else {
            rc = child_add_static(allocator, node, segment, child);
        }
        if (rc != 0) {
            deinit_node(allocator, child);
            bop_free(allocator, child, sizeof(*child));
            return rc;
        }
    }
    *out_child = child;
    return 0;
}

static bool is_empty(const struct bop__router_node *node)
{
    return node->leaf_count == 0 && node->child_count == 0 && !node->param && !node->wildcard;
}

static void child_remove(struct bop_allocator *allocator, struct bop__router_node *node,
                         struct bop_slice segment)
{
    struct bop__router_node *child = child_of(node, segment);
    bool found;

    if (is_param(segment)) {
        node->param = NULL;
    } else if (is_wildcard(segment)) {
        node->wildcard = NULL;
    } else {
        close_gap(node->children, node->child_count, bop__router_child_at(node, segment, &found),
                  sizeof(node->children[0]));
        node->child_count--;
    }
    deinit_node(allocator, child);
    bop_free(allocator, child, sizeof(*child));
}

/* Take out the nodes of a pattern below `node` that have nothing (left) in them. */
static void prune(struct bop_allocator *allocator, struct bop__router_node *node, const uint8_t *at,
                  const uint8_t *end)
{
    struct bop__router_node *child;
    struct bop_slice segment;

    if (!at) {
        return;
    }
    segment = bop__router_segment(&at, end);
    child = child_of(node, segment);
    if (child) {
        prune(allocator, child, at, end);
        if (is_empty(child)) {
            child_remove(allocator, node, segment);
        }
    }
}

/* And the host, if it has none left. */
static void prune_host(struct bop_router *router, struct bop_slice name, struct bop_slice pattern)
{
    unsigned at;
    struct bop__router_host *host = bop__router_host_find(router, name, &at);

    prune(router->allocator, &host->root, pattern.data + 1, pattern.data + pattern.size);
    if (is_empty(&host->root)) {
        close_gap(router->hosts, router->host_count, at, sizeof(router->hosts[0]));
        router->host_count--;
        destroy_host(router->allocator, host);
    }
}

/* ---- Leaves ---- */

static bool leaf_find(const struct bop__router_node *node, const char *method, unsigned *out_at)
{
    struct bop_slice wanted = method ? bop_slice_cstr(method) : bop_slice(NULL, 0);

    for (*out_at = 0; *out_at < node->leaf_count; ++*out_at) {
        if (bop_slice_equal(node->leaves[*out_at].method, wanted)) {
            return true;
        }
    }
    return false;
}

/* The text that the slices of a leaf are of, and those. */
static int leaf_init(struct bop_allocator *allocator, struct bop__router_leaf *leaf,
                     struct bop_slice method, struct bop_slice pattern,
                     const struct bop_slice *names, unsigned name_count)
{
    leaf->text_size = method.size + pattern.size;
    leaf->text = bop_alloc(allocator, leaf->text_size);
    if (!leaf->text) {
        return BOP_ENOMEM;
    }
    if (method.size > 0) {
        memcpy(leaf->text, method.data, method.size);
        leaf->method = bop_slice(leaf->text, method.size);
    }
    memcpy(leaf->text + method.size, pattern.data, pattern.size);
    if (name_count > 0) {
        leaf->names = bop_alloc(allocator, name_count * sizeof(leaf->names[0]));
        if (!leaf->names) {
            return BOP_ENOMEM;
        }
        leaf->name_count = name_count;
    }
    for (unsigned i = 0; i < name_count; i++) {
        leaf->names[i] = bop_slice(leaf->text + method.size + (names[i].data - pattern.data),
                                   names[i].size);
    }
    return 0;
}

static int leaf_add(struct bop_allocator *allocator, struct bop__router_node *node,
                    const struct bop__router_leaf *leaf)
{
    unsigned count = node->leaf_count, at = count;
    struct bop__router_leaf *leaves;

    /* That of any method comes last, so that the order is that of a search. */
    if (count > 0 && !node->leaves[count - 1].method.data) {
        at--;
    }
    leaves = open_gap(allocator, node->leaves, count, &node->leaf_capacity, at, sizeof(leaves[0]));
    if (!leaves) {
        return BOP_ENOMEM;
    }
    node->leaves = leaves;
    leaves[at] = *leaf;
    node->leaf_count++;
    return 0;
}

/* ---- Adding and removing ---- */

static bool is_method(const char *method)
{
    struct bop_slice text = bop_slice_cstr(method);

    return bop_http_header_is_valid(text, bop_slice(NULL, 0));
}

/* Walk down, making what is not there, and put the leaf at the end. */
static int add_below(struct bop_router *router, struct bop__router_node *node,
                     struct bop_slice pattern, const char *method,
                     const struct bop__router_leaf *leaf)
{
    const uint8_t *at = pattern.data + 1, *end = pattern.data + pattern.size;
    unsigned place;
    int rc = 0;

    while (at && rc == 0) {
        rc = child_add(router->allocator, node, bop__router_segment(&at, end), &node);
    }
    if (rc != 0) {
        return rc;
    }
    return leaf_find(node, method, &place) ? BOP_EEXISTS : leaf_add(router->allocator, node, leaf);
}

int bop_router_add(struct bop_router *router, const char *host, const char *method,
                   const char *pattern, void *route)
{
    struct bop_slice text = bop_slice_cstr(pattern), names[BOP_ROUTER_PARAMS_MAX], name;
    uint8_t host_text[BOP_ROUTER_HOST_MAX];
    struct bop__router_leaf leaf = {.route = route};
    struct bop__router_host *at_host;
    int count = read_pattern(text, names), rc;

    if (!route || count < 0 || (method && !is_method(method)) ||
        read_host(host, host_text, &name) != 0) {
        return BOP_EINVAL;
    }
    rc = leaf_init(router->allocator, &leaf, method ? bop_slice_cstr(method) : bop_slice(NULL, 0),
                   text, names, (unsigned)count);
    if (rc == 0) {
        rc = host_add(router, name, &at_host);
    }
    if (rc == 0) {
        rc = add_below(router, &at_host->root, text, method, &leaf);
        if (rc != 0) {
            prune_host(router, name, text);
        }
    }
    if (rc != 0) {
        deinit_leaf(router->allocator, &leaf);
    }
    return rc;
}

int bop_router_remove(struct bop_router *router, const char *host, const char *method,
                      const char *pattern, void **out_route)
{
    struct bop_slice text = bop_slice_cstr(pattern), names[BOP_ROUTER_PARAMS_MAX], name;
    const uint8_t *at = text.data + 1, *end = text.data + text.size;
    uint8_t host_text[BOP_ROUTER_HOST_MAX];
    struct bop__router_host *at_host;
    struct bop__router_node *node;
    unsigned place;

    if (read_pattern(text, names) < 0 || read_host(host, host_text, &name) != 0) {
        return BOP_ENOTFOUND;
    }
    at_host = bop__router_host_find(router, name, &place);
    node = at_host ? &at_host->root : NULL;
    while (at && node) {
        node = child_of(node, bop__router_segment(&at, end));
    }
    if (!node || !leaf_find(node, method, &place)) {
        return BOP_ENOTFOUND;
    }
    if (out_route) {
        *out_route = node->leaves[place].route;
    }
    deinit_leaf(router->allocator, &node->leaves[place]);
    close_gap(node->leaves, node->leaf_count, place, sizeof(node->leaves[0]));
    node->leaf_count--;
    prune_host(router, name, text);
    return 0;
}
