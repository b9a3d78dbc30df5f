/*
 * Which route a request takes: by host name, path and method.
 *
 * A pattern is made of segments:
 *
 *      /users/all           static: that text, compared as bytes, not decoded
 *      /users/:id/posts     ":id" is one segment that is not empty
 *      /files/ then *       as the last segment: all the rest, which may be empty
 *
 * Of several routes that match, the order is: an exact host before the wildcard
 * host with the longest name before routes for any host; then segment by
 * segment static before parameter before wildcard; then a route of the method
 * before one of any method. HEAD also takes routes of GET, after its own. One
 * asks for the first and then, if that does not want the request, for the next.
 *
 * A match allocates nothing and visits a part of the trie at most once, so it
 * takes time by the number of routes at worst, whatever the path.
 *
 * Threads: matching may be done by many at a time, changing needs the router to
 * oneself.
 */
#ifndef BOP_ROUTER_H
#define BOP_ROUTER_H

#include <bop/base.h>
#include <bop/slice.h>

struct bop_router;

#define BOP_ROUTER_SEGMENTS_MAX 64 /* Of a pattern; paths may have more. */
#define BOP_ROUTER_PARAMS_MAX   16 /* Of a pattern, its wildcard included. */
#define BOP_ROUTER_HOST_MAX     255

BOP_API BOP_MUST_USE int bop_router_create(struct bop_allocator *allocator,
                                           struct bop_router **out_router);
/** NULL is fine. */
BOP_API void bop_router_destroy(struct bop_router *router);

/**
 * Add a route. host NULL: any; "example.org", or "*.example.org" for all names below it, without
 * case. method NULL: any; else a token, with case. route is what a match gives; not NULL.
 *
 * Returns 0; BOP_EEXISTS where a route of that host and method has the same shape (names of
 * parameters make no difference); BOP_EINVAL for what is no pattern, host or method; BOP_ENOMEM.
 */
BOP_API BOP_MUST_USE int bop_router_add(struct bop_router *router, const char *host,
                                        const char *method, const char *pattern, void *route);

/** Take a route out; what it led to is in *out_route if that is not NULL. 0 or BOP_ENOTFOUND. */
BOP_API int bop_router_remove(struct bop_router *router, const char *host, const char *method,
                              const char *pattern, void **out_route);

/** A match, good until the router changes or the request's bytes go. */
struct bop_router_match {
    void *route;
    const struct bop_slice *names; /* Of the parameters; a wildcard's is "*". */
    unsigned param_count;
    struct bop_slice params[BOP_ROUTER_PARAMS_MAX]; /* As in the path, not decoded. */
    /* What was asked for, and how many matches came before: for bop_router_next(). */
    const struct bop_router *router;
    struct bop_slice host, method, path;
    unsigned rank;
};

/**
 * Find the best route. host: of a request, with or without a port (data NULL: none); path: as sent,
 * without its query. Returns false if there is none; *out_match may have changed all the same.
 */
BOP_API BOP_MUST_USE bool bop_router_match(const struct bop_router *router, struct bop_slice host,
                                           struct bop_slice method, struct bop_slice path,
                                           struct bop_router_match *out_match);
/** The next best. False: there is none. */
BOP_API BOP_MUST_USE bool bop_router_next(struct bop_router_match *in_out_match);

/** The parameter of that name; data NULL: none. */
BOP_API struct bop_slice bop_router_param(const struct bop_router_match *match, const char *name);

/**
 * The methods that have a route there, each once, HEAD after GET, in no other order: what Allow
 * says. Writes up to max of them and returns how many there are, 0 if only routes of any method, or
 * none, match.
 */
BOP_API unsigned bop_router_methods(const struct bop_router *router, struct bop_slice host,
                                    struct bop_slice path, struct bop_slice *out_methods,
                                    unsigned max);

#endif
