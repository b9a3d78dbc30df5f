/*
 * Taking an HTTP connection over, for the protocols of this library.
 */
#ifndef BOP_NET_HTTP_UPGRADE_H
#define BOP_NET_HTTP_UPGRADE_H

#include "server_internal.h"

/** Bytes of the socket's own block that are the new owner's after bop__http_take_over(). */
#define BOP__HTTP_BLOCK_BYTES 64u

/**
 * As bop_http_upgrade(), but the user of the events is the socket's own block, zeroed, so that the
 * connection needs no memory beside it. In the handler: what came after the head is given to
 * on_data once the handler has returned. Returns 0 or a code as there.
 */
BOP_MUST_USE int bop__http_take_over(struct bop_http_exchange *http, const char *protocol,
                                     const struct bop_socket_events *events,
                                     struct bop__socket **out_socket);

/** The server of an open exchange; NULL for a handle of the past. See struct bop__http_guest. */
struct bop_http_server *bop__http_server_of(const struct bop_http_exchange *http);

#endif
