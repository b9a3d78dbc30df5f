/*
 * Kinds 160 to 167: an operator's requests, handed to the replica.
 */
#include "service_internal.h"

static void admin_done(struct replica_admin *admin, struct bop_slice response)
{
    struct service_request *request = BOP_CONTAINER_OF(admin, struct service_request, admin);
    struct service_conn *conn = request->conn;
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop_write_raw(&writer, response);
        bop__service_end(conn, out, at, (enum bop_wire_kind)(request->kind + 1), BOP_WIRE_RESPONSE,
                         request->id, &writer);
    }
    bop__service_finish(request);
}

/* Whether the payload is one of its kind: who breaks the protocol is closed here. */
static int check(const struct bop_wire_frame *frame)
{
    struct bop_admin_change_request change;
    struct bop_admin_transfer_request transfer;
    struct bop_admin_params params;

    switch (frame->kind) {
    case BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST:
        return frame->payload.size == 0 ? 0 : BOP_EMALFORMED;
    case BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST:
        return bop_admin_change_request_decode(frame->payload, &change);
    case BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST:
        return bop_admin_transfer_request_decode(frame->payload, &transfer);
    case BOP_WIRE_KIND_CLUSTER_PARAMS_REQUEST:
        return bop_admin_params_request_decode(frame->payload, &params);
    default:
        return BOP_EPROTOCOL;
    }
}

int bop__service_admin(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct service_request *request;
    int rc = check(frame);

    if (rc < 0) {
        return rc;
    }
    request = bop__service_request(conn, frame);
    if (!request) {
        return BOP_ENOMEM;
    }
    request->admin = (struct replica_admin){
        .kind = frame->kind,
        .payload = bop__service_payload(request),
        .done = admin_done,
    };
    bop__replica_admin(conn->service->replica, &request->admin);
    return 0;
}
