/*
 * Views of a client: read one revision as often as wanted, while writes go on.
 *
 *     rc = bop_client_blocking_view_open(client, &view, &err);
 *     rc = bop_client_blocking_view_read(client, &view, &scan, &buf, &page, &err);
 *     ...
 *     bop_client_blocking_view_close(client, &view);
 *
 * A view shows a state that has everything that was answered before it was opened. It is of one
 * node and one connection: when that breaks, or the client moves to another leader, it is
 * over, as it is after 30 idle seconds and after 5 minutes in any case. Then reading from it is
 * BOP_ENOVIEW; who needs all of one revision opens another one and begins again.
 *
 * A server gives at most 16 of them to a connection. Those above wait, till the request times out.
 *
 * Threads: as bop_client, and bop_client_blocking.
 */
#ifndef BOP_CLIENT_VIEW_H
#define BOP_CLIENT_VIEW_H

#include <bop/client.h>

/** What is known of a view; the caller's, to be copied as it likes. */
struct bop_client_view {
    uint64_t id;
    uint64_t revision; /* The entry of the log that it shows last. */
};

/** view is NULL unless code is 0, and borrowed for the call. */
typedef void (*bop_client_view_fn)(void *user, int code, const struct bop_client_view *view);

/** Ask for a view. Returns as bop_client_execute(). */
BOP_API BOP_MUST_USE int bop_client_view_open(struct bop_client *client, bop_client_view_fn fn,
                                              void *user);

/**
 * Any read operation, of that revision. fn is called with what bop_client_execute() would give,
 * or BOP_ENOVIEW. Returns as that does; BOP_EINVAL also for an operation that writes.
 */
BOP_API BOP_MUST_USE int bop_client_view_read(struct bop_client *client,
                                              const struct bop_client_view *view,
                                              const struct bop_operation *operation,
                                              bop_client_fn fn, void *user);

/** The view is not needed any more. One that is over is closed already. Returns as
 * bop_client_execute(); if that is not 0, it ends by itself. */
BOP_API int bop_client_view_close(struct bop_client *client, const struct bop_client_view *view);

/** Open one and wait for it. Returns 0 and *out_view, or a code. */
BOP_API BOP_MUST_USE int bop_client_blocking_view_open(struct bop_client_blocking *client,
                                                       struct bop_client_view *out_view,
                                                       struct bop_error *err);
/** As bop_client_blocking_execute(); BOP_ENOVIEW: begin again with another one. */
BOP_API BOP_MUST_USE int bop_client_blocking_view_read(struct bop_client_blocking *client,
                                                       const struct bop_client_view *view,
                                                       const struct bop_operation *operation,
                                                       struct bop_buf *buf,
                                                       struct bop_result *out_result,
                                                       struct bop_error *err);
BOP_API void bop_client_blocking_view_close(struct bop_client_blocking *client,
                                            const struct bop_client_view *view);

#endif
