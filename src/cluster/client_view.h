/*
 * The client's views, for the other files of the client.
 */
#ifndef BOP_CLUSTER_CLIENT_VIEW_H
#define BOP_CLUSTER_CLIENT_VIEW_H

#include <bop/client_view.h>

struct client_request;

/** True for the responses that bop__client_view_answer() takes. */
static inline bool bop__client_view_response(uint16_t kind)
{
    return kind == BOP_WIRE_KIND_VIEW_OPEN_RESPONSE || kind == BOP_WIRE_KIND_VIEW_CLOSE_RESPONSE;
}

BOP_MUST_USE int bop__client_view_answer(struct bop_client *client, struct client_request *request,
                                         struct bop_slice payload);

#endif
