/*
 * A lookup as the files of this folder see it: the loop's half (struct
 * bop_resolve) and the resolver's (struct bop__lookup), which outlives it when
 * it is given up.
 *
 *      WAITING ----> RUNNING ----> ANSWERED ----> freed by the loop
 *         |             |             |
 *         v             v             v
 *       freed      freed by the    freed by the
 *                     thread       post's call
 *
 * Downwards: given up. State and owner change under the resolver's lock; but a
 * lookup that is ANSWERED is its loop's alone.
 */
#ifndef BOP_NET_RESOLVE_INTERNAL_H
#define BOP_NET_RESOLVE_INTERNAL_H

#include <bop/list.h>
#include <bop/resolve.h>

#include "../loop/loop_internal.h"

/* Of DNS, its trailing dot included. */
#define BOP__HOST_NAME_MAX 254

enum bop__lookup_state {
    BOP__LOOKUP_WAITING,
    BOP__LOOKUP_RUNNING,
    BOP__LOOKUP_ANSWERED,
};

struct bop__lookup {
    struct bop_list link; /* resolver.queue while it waits. */
    struct bop_allocator *allocator;
    struct bop_resolver *resolver; /* A reference. */
    struct bop_resolve *owner;     /* NULL once given up. */
    struct bop_loop *loop;
    struct bop_post post; /* To the loop, with the answer. */
    enum bop__lookup_state state;
    int result; /* As of bop_resolve_fn. */
    struct bop_error err;
    struct bop_address addresses[BOP_RESOLVE_ADDRESSES_MAX];
    char host[BOP__HOST_NAME_MAX + 1];
};

/* ---- resolve.c ---- */

/** Whether a name server could know it: labels of a length that DNS allows, of characters that are
 * no separators elsewhere. */
bool bop__host_may_be_name(const char *host);

/** Forget a lookup: on_done is not called. For who outlives it not. */
void bop__resolve_drop(struct bop_resolve *resolve);

/** The lookup has an answer: on its loop's thread. */
void bop__resolve_answered(struct bop_resolve *resolve, const struct bop__lookup *lookup);

/* ---- resolver.c ---- */

/** The process's own. */
struct bop_resolver *bop__resolver_default(void);

/** Have a name looked up for owner. Returns 0, BOP_EBUSY, BOP_ENOMEM or -errno. */
BOP_MUST_USE int bop__lookup_start(struct bop_resolver *resolver, struct bop_loop *loop,
                                   struct bop_resolve *owner, const char *host,
                                   struct bop__lookup **out_lookup);

/** Nobody waits for it any more. */
void bop__lookup_give_up(struct bop__lookup *lookup);

/* ---- lookup.c ---- */

/** bop_resolve_fn by getaddrinfo(). */
int bop__lookup_system(void *user, const char *host, struct bop_address *out_addresses, size_t max,
                       struct bop_error *err);

#endif
