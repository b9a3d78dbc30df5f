/*
 * The trie of a router.
 *
 * A node is a prefix of patterns, by whole segments. Below it are nodes for
 * static segments (sorted), one for a parameter and one for a wildcard, which has
 * nothing below it. What ends at a node are its leaves, one for each method.
 */
#ifndef BOP_NET_HTTP_ROUTER_INTERNAL_H
#define BOP_NET_HTTP_ROUTER_INTERNAL_H

#include <bop/router.h>

struct bop__router_leaf {
    void *route;
    struct bop_slice method; /* data NULL: any. Of `text`. */
    struct bop_slice *names; /* Of `text`. */
    char *text;              /* The method and the pattern. */
    size_t text_size;
    unsigned name_count;
};

struct bop__router_node {
    struct bop_slice segment; /* Its own; static nodes only. */
    struct bop__router_node **children;
    struct bop__router_node *param;
    struct bop__router_node *wildcard;
    struct bop__router_leaf *leaves; /* That of any method, if there is one, is the last. */
    unsigned child_count, child_capacity;
    unsigned leaf_count, leaf_capacity;
};

/* The routes of one host. name is lower case; "" for any, ".example.org" for "*.example.org". */
struct bop__router_host {
    struct bop_slice name;
    struct bop__router_node root;
};

struct bop_router {
    struct bop_allocator *allocator;
    struct bop__router_host **hosts; /* Sorted by name: any, then wildcards, then exact ones. */
    unsigned host_count, host_capacity;
};

/* The place of a static segment among a node's children, or where it would be. */
unsigned bop__router_child_at(const struct bop__router_node *node, struct bop_slice segment,
                              bool *out_found);
struct bop__router_host *bop__router_host_find(const struct bop_router *router,
                                               struct bop_slice name, unsigned *out_at);

/* The segment at *in_out_at, which moves behind the "/" after it, or to NULL at the end. */
static inline struct bop_slice bop__router_segment(const uint8_t **in_out_at, const uint8_t *end)
{
    const uint8_t *start = *in_out_at;
    const uint8_t *slash = start < end ? memchr(start, '/', (size_t)(end - start)) : NULL;

    *in_out_at = slash ? slash + 1 : NULL;
    return bop_slice(start, (size_t)((slash ? slash : end) - start));
}

#endif
