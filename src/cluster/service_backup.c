/*
 * Kinds 170 to 173: backups, handed to the replica. What is to hold all that was
 * acknowledged before is cut once a read would be answered.
 */
#include "replica_backup.h"
#include "service_internal.h"

static void respond(struct service_conn *conn, uint32_t id, const struct bop_backup_response *in)
{
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop_backup_response_encode(&writer, in);
        bop__service_end(conn, out, at, BOP_WIRE_KIND_BACKUP_RESPONSE, BOP_WIRE_RESPONSE, id,
                         &writer);
    }
}

static void cut_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct service_request *request = BOP_CONTAINER_OF(read, struct service_request, read);
    struct service_conn *conn = request->conn;
    const struct service_options *options = &conn->service->options;
    struct bop_backup_request in = {.action = BOP_BACKUP_CUT};
    struct bop_backup_response response = {
        .code = BOP_BACKUP_NOT_NOW,
        .text = bop_slice_cstr(bop_backup_code_text(BOP_BACKUP_NOT_NOW)),
        .node = options->node,
    };

    if (code == 0 && !conn->closed) {
        bop__replica_backup(conn->service->replica, &in, &response);
    }
    respond(conn, request->id, &response);
    bop__service_finish(request);
}

static int serve_request(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_backup_request in;
    struct bop_backup_response response;
    struct service_request *request;
    int rc = bop_backup_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    if (in.action != BOP_BACKUP_CUT) {
        bop__replica_backup(conn->service->replica, &in, &response);
        respond(conn, frame->request, &response);
        return 0;
    }
    request = bop__service_request(conn, frame);
    if (!request) {
        return BOP_ENOMEM;
    }
    request->read = (struct replica_read){.done = cut_done};
    bop__replica_read(conn->service->replica, &request->read);
    return 0;
}

static int serve_read(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_backup_read_request in;
    struct bop_backup_read_response response;
    struct bop_writer writer;
    struct bop_buf *out;
    size_t at;
    int rc = bop_backup_read_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    bop__replica_backup_read(conn->service->replica, &in, &response);
    out = bop__service_begin(conn, &at);
    if (out) {
        writer = bop_writer(out);
        bop_backup_read_response_encode(&writer, &response);
        bop__service_end(conn, out, at, BOP_WIRE_KIND_BACKUP_READ_RESPONSE, BOP_WIRE_RESPONSE,
                         frame->request, &writer);
    }
    return 0;
}

int bop__service_backup(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    return frame->kind == BOP_WIRE_KIND_BACKUP_REQUEST ? serve_request(conn, frame)
                                                       : serve_read(conn, frame);
}
