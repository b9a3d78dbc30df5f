/*
 * Names of hosts resolved without blocking a loop.
 *
 * getaddrinfo() blocks, for seconds where a name server is out of reach, so it
 * runs on threads of a resolver: none until the first name is asked for (asking
 * for a name is asking for a thread), then as many as names are looked up at the
 * same time, up to a bound. Numeric addresses need no thread. bop_connect()
 * resolves its host this way.
 *
 * A lookup that is canceled or times out answers at once; its thread is left to
 * end in its own time, and what it finds is dropped. So a loop may be destroyed
 * whatever its threads are doing.
 *
 * Threads: bop_resolve() and bop_resolve_cancel() from the loop's only; a
 * resolver serves any number of loops.
 */
#ifndef BOP_RESOLVE_H
#define BOP_RESOLVE_H

#include <bop/address.h>
#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>
#include <bop/loop.h>

/* Of one host; further ones are dropped. */
#define BOP_RESOLVE_ADDRESSES_MAX 32

/* ---- Asking ---- */

struct bop_resolver;
struct bop_resolve;

/** What became of a lookup. Lent for the time of the callback. */
struct bop_resolved {
    /* 0: there is at least one address. BOP_ENOTFOUND: no such name, or none of its
     * addresses is of the family. BOP_EAGAIN: the name servers gave no answer.
     * -ETIMEDOUT, BOP_ECANCELED, BOP_ENOMEM, -errno. */
    int code;
    const struct bop_address *addresses; /* The one to prefer first (RFC 6724). */
    size_t count;
    const char *text; /* "resolve HOST: reason"; of success "". */
};

struct bop_resolve_options {
    const char *host;    /* A name, or a numeric address as of bop_address_parse(). Required. */
    uint16_t port;       /* Put into the addresses. */
    uint16_t family;     /* AF_INET or AF_INET6 only; AF_UNSPEC (0): both. */
    uint64_t timeout_ms; /* Waiting for a thread included. Default: 30,000. */
    /* Borrowed until on_done. Default: the process's, with the defaults of
     * struct bop_resolver_options. */
    struct bop_resolver *resolver;
    /* Called exactly once, from the loop. Required. */
    void (*on_done)(struct bop_resolve *resolve, void *user, const struct bop_resolved *result);
    void *user;
};

/**
 * Begin to look up a host. *out_resolve is good until on_done returns.
 *
 * Returns 0; BOP_EINVAL for a malformed address or bad options; BOP_EBUSY if
 * too many names wait already; BOP_ECLOSED on a loop that is being destroyed;
 * BOP_ENOMEM; or -errno if the first thread cannot be started.
 */
BOP_API BOP_MUST_USE int bop_resolve(struct bop_loop *loop,
                                     const struct bop_resolve_options *options,
                                     struct bop_resolve **out_resolve, struct bop_error *err);

/** on_done(BOP_ECANCELED) follows from the loop, unless on_done is due already. */
BOP_API void bop_resolve_cancel(struct bop_resolve *resolve);

/* ---- Resolvers ---- */

/**
 * Look up a name: blocks as long as it likes, on any thread. Writes at most
 * `max` addresses of both families, ports left alone, and returns how many; or a
 * negative code, having set err.
 */
typedef int (*bop_resolve_fn)(void *user, const char *host, struct bop_address *out_addresses,
                              size_t max, struct bop_error *err);

struct bop_resolver_options {
    /* Used by its threads. Borrowed until destroy, and until the loops of canceled lookups
     * have turned once more or were destroyed. */
    struct bop_allocator *allocator;
    unsigned threads_max;   /* Default 4. */
    unsigned queue_max;     /* Names that wait for a thread. Default 1,024. */
    bop_resolve_fn resolve; /* Default: getaddrinfo(). */
    void *user;
};

/** Make a resolver of one's own. Starts no thread. Returns 0 or BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_resolver_create(const struct bop_resolver_options *options,
                                             struct bop_resolver **out_resolver);

/** Waits for lookups on its threads to return; nobody may be waiting for one. NULL is fine. */
BOP_API void bop_resolver_destroy(struct bop_resolver *resolver);

#endif
