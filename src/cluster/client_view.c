/*
 * Views: bop/client_view.h.
 *
 * A request about a view is one of the lane of reads, and is sent again as they are. So what is
 * asked of a view whose connection broke is asked on the next one, where nobody knows that
 * view: ids are drawn by chance, and a view is found on its own connection only. The answer,
 * NO_VIEW, is what the caller is told.
 */
#include "client_internal.h"

#include <bop/watch.h>

int bop_client_view_open(struct bop_client *client, bop_client_view_fn fn, void *user)
{
    struct client_request *request;
    int rc = bop__client_request_begin(client, &request);

    if (rc < 0) {
        return rc;
    }
    request->kind = BOP_WIRE_KIND_VIEW_OPEN_REQUEST;
    request->view_fn = fn;
    request->user = user;
    bop__client_request_accept(client, request);
    return 0;
}

int bop_client_view_read(struct bop_client *client, const struct bop_client_view *view,
                         const struct bop_operation *operation, bop_client_fn fn, void *user)
{
    struct client_request *request;
    int rc;

    if (bop_op_is_write(operation->op)) {
        return BOP_EINVAL;
    }
    rc = bop__client_request_begin(client, &request);
    if (rc == 0) {
        rc = bop__client_request_fill(client, request, operation);
    }
    if (rc < 0) {
        return rc;
    }
    request->kind = BOP_WIRE_KIND_VIEW_READ_REQUEST;
    request->op = (uint8_t)operation->op;
    request->view = view->id;
    request->fn = fn;
    request->user = user;
    bop__client_request_accept(client, request);
    return 0;
}

int bop_client_view_close(struct bop_client *client, const struct bop_client_view *view)
{
    struct client_request *request;
    int rc = bop__client_request_begin(client, &request);

    if (rc < 0) {
        return rc;
    }
    request->kind = BOP_WIRE_KIND_VIEW_CLOSE_REQUEST;
    request->view = view->id;
    bop__client_request_accept(client, request);
    return 0;
}

static int on_opened(struct bop_client *client, struct client_request *request,
                     struct bop_slice payload)
{
    struct bop_view_open_response message;
    struct bop_client_view view;

    if (bop_view_open_response_decode(payload, &message) < 0) {
        bop__client_request_finish(client, request, BOP_EPROTOCOL, NULL);
        return BOP_EPROTOCOL;
    }
    if (message.status == BOP_STATUS_RETRY || message.status == BOP_STATUS_BUSY) {
        bop__client_request_again(client, request);
        return 0;
    }
    view = (struct bop_client_view){.id = message.view, .revision = message.revision};
    bop__client_request_finish(client, request, bop_status_code(message.status),
                               message.status == BOP_STATUS_OK ? &view : NULL);
    return 0;
}

int bop__client_view_answer(struct bop_client *client, struct client_request *request,
                            struct bop_slice payload)
{
    if (request->kind == BOP_WIRE_KIND_VIEW_OPEN_REQUEST) {
        return on_opened(client, request, payload);
    }
    /* Whether there was still something to close is the same to us. */
    bop__client_request_finish(client, request, 0, NULL);
    return 0;
}
