/*
 * The prototype's kinds, with its exact bytes: each request becomes an operation
 * and gets its own response kind. They carry no session, so a write whose reply is
 * lost in a change of leadership is answered with an error that says so.
 */
#include <stdio.h>

#include "service_internal.h"

#define CODE_OK  0
#define CODE_ERR 1

void bop__service_error(struct service_conn *conn, uint32_t request, const char *text)
{
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop_write_u8(&writer, CODE_ERR);
        bop_write_bytes(&writer, bop_slice_cstr(text));
        bop__service_end(conn, out, at, BOP_WIRE_KIND_ERROR_RESPONSE, BOP_WIRE_RESPONSE, request,
                         &writer);
    }
}

static void pong(struct service_conn *conn, uint32_t request)
{
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop__service_end(conn, out, at, BOP_WIRE_KIND_PONG, BOP_WIRE_RESPONSE | BOP_WIRE_PONG,
                         request, &writer);
    }
}

/* The operation a request stands for. False: not one that is served. */
static bool to_operation(uint16_t kind, struct bop_slice payload, struct bop_operation *out)
{
    struct bop_reader reader = bop_reader(payload); /* It was checked before. */

    *out = (struct bop_operation){.name = bop_read_string(&reader)};
    switch (kind) {
    case BOP_WIRE_KIND_CREATE_MAP_REQUEST:
        out->op = BOP_OP_MAP_CREATE;
        return true;
    case BOP_WIRE_KIND_MAP_PUT_REQUEST:
        out->op = BOP_OP_MAP_PUT;
        out->key = bop_read_bytes(&reader);
        out->value = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MAP_GET_REQUEST:
        out->op = BOP_OP_MAP_GET;
        out->key = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MAP_REMOVE_REQUEST:
        out->op = BOP_OP_MAP_DELETE;
        out->key = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MAP_SIZE_REQUEST:
        out->op = BOP_OP_MAP_SIZE;
        return true;
    case BOP_WIRE_KIND_CREATE_SET_REQUEST:
        out->op = BOP_OP_SET_CREATE;
        return true;
    case BOP_WIRE_KIND_SET_ADD_REQUEST:
        out->op = BOP_OP_SET_ADD;
        out->key = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_SET_REMOVE_REQUEST:
        out->op = BOP_OP_SET_REMOVE;
        out->key = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_SET_CONTAINS_REQUEST:
        out->op = BOP_OP_SET_CONTAINS;
        out->key = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_SET_SIZE_REQUEST:
        out->op = BOP_OP_SET_SIZE;
        return true;
    case BOP_WIRE_KIND_CREATE_COUNTER_REQUEST:
        out->op = BOP_OP_COUNTER_CREATE;
        return true;
    case BOP_WIRE_KIND_COUNTER_GET_REQUEST:
        out->op = BOP_OP_COUNTER_GET;
        return true;
    case BOP_WIRE_KIND_COUNTER_INCREMENT_REQUEST:
        out->op = BOP_OP_COUNTER_ADD;
        out->delta = bop_read_i64(&reader);
        return true;
    default:
        return false;
    }
}

/* The fields of a response after its code, made of the operation's result. */
static void write_result(struct bop_writer *writer, const struct service_request *request,
                         uint8_t status, struct bop_slice result)
{
    struct bop_reader reader = bop_reader(result);
    struct bop_reader payload = bop_reader(bop__service_payload(request));

    switch (request->kind) {
    case BOP_WIRE_KIND_CREATE_MAP_REQUEST:
    case BOP_WIRE_KIND_CREATE_SET_REQUEST:
    case BOP_WIRE_KIND_CREATE_COUNTER_REQUEST:
        bop_write_bytes(writer, bop_read_string(&payload));
        break;
    case BOP_WIRE_KIND_MAP_GET_REQUEST:
        bop_write_bool(writer, status == BOP_STATUS_OK);
        if (status == BOP_STATUS_OK) {
            bop_read_u64(&reader); /* The version, which the prototype does not know. */
            bop_write_bytes(writer, bop_read_bytes(&reader));
        }
        break;
    case BOP_WIRE_KIND_SET_CONTAINS_REQUEST:
        bop_write_bool(writer, bop_read_bool(&reader));
        break;
    case BOP_WIRE_KIND_MAP_SIZE_REQUEST:
    case BOP_WIRE_KIND_SET_SIZE_REQUEST:
        bop_write_u64(writer, bop_read_u64(&reader));
        break;
    case BOP_WIRE_KIND_COUNTER_GET_REQUEST:
        /* A counter that was never touched stands at 0. */
        bop_write_i64(writer, status == BOP_STATUS_OK ? bop_read_i64(&reader) : 0);
        break;
    case BOP_WIRE_KIND_COUNTER_INCREMENT_REQUEST:
        bop_write_i64(writer, bop_read_i64(&reader));
        break;
    default:
        break;
    }
}

static void respond(struct service_request *request, uint8_t status, struct bop_slice result)
{
    struct service_conn *conn = request->conn;
    struct bop_writer writer;
    struct bop_buf *out;
    size_t at;

    if (status != BOP_STATUS_OK && status != BOP_STATUS_NOT_FOUND) {
        bop__service_error(conn, request->id, bop_status_text(status));
        return;
    }
    out = bop__service_begin(conn, &at);
    if (out) {
        writer = bop_writer(out);
        bop_write_u8(&writer, CODE_OK);
        write_result(&writer, request, status, result);
        bop__service_end(conn, out, at, (enum bop_wire_kind)(request->kind + 1), BOP_WIRE_RESPONSE,
                         request->id, &writer);
    }
}

static void write_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct service_request *request = BOP_CONTAINER_OF(write, struct service_request, write);

    respond(request, status, result);
    bop__service_finish(request);
}

static void read_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct service_request *request = BOP_CONTAINER_OF(read, struct service_request, read);
    struct bop_operation operation;
    struct bop_buf result;
    int status = BOP_STATUS_RETRY;
    bool known = to_operation(request->kind, bop__service_payload(request), &operation);

    BOP_ASSERT(known);
    bop_buf_init(&result, request->conn->service->allocator, 0);
    if (code == 0) {
        status = bop__machine_read(view, &operation, &result);
    }
    respond(request, status < 0 ? BOP_STATUS_RETRY : (uint8_t)status, bop_buf_slice(&result));
    bop_buf_deinit(&result);
    bop__service_finish(request);
}

static int serve_operation(struct service_conn *conn, const struct bop_wire_frame *frame,
                           const struct bop_operation *operation)
{
    struct service *service = conn->service;
    struct command command = {.kind = COMMAND_WRITE};
    struct service_request *request = bop__service_request(conn, frame);
    struct bop_writer writer = bop_writer(&service->scratch);
    uint8_t status = BOP_STATUS_BUSY;

    if (!request) {
        return BOP_ENOMEM;
    }
    if (!bop_op_is_write(operation->op)) {
        request->read = (struct replica_read){.done = read_done};
        bop__replica_read(service->replica, &request->read);
        return 0;
    }
    bop_buf_clear(&service->scratch);
    bop_operation_encode(&writer, operation);
    command.operation = bop_buf_slice(&service->scratch);
    request->write = (struct replica_write){.done = write_done};
    if (writer.code == 0) {
        status = bop__replica_write(service->replica, &request->write, &command);
    }
    if (status != BOP_STATUS_OK) {
        write_done(&request->write, status, bop_slice(NULL, 0));
    }
    return 0;
}

/* The same bounds as for our own kinds. */
static const char *refusal(const struct bop_operation *operation)
{
    if (operation->name.size == 0 || operation->name.size > BOP_NAME_MAX) {
        return "a name has 1 to 255 bytes";
    }
    if (operation->key.size > BOP_KEY_MAX) {
        return operation->op == BOP_OP_SET_ADD ? "a set's value has at most 64 KiB"
                                               : "a key has at most 64 KiB";
    }
    return operation->value.size > BOP_VALUE_MAX ? "a value has at most 8 MiB" : NULL;
}

int bop__service_legacy(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_operation operation;
    char text[128];
    int rc = bop_wire_check(frame->kind, frame->payload);

    if (rc < 0) {
        return rc;
    }
    if (frame->flags & BOP_WIRE_RESPONSE) {
        return BOP_EPROTOCOL; /* We asked nothing. */
    }
    if (frame->kind == BOP_WIRE_KIND_PING || (frame->flags & BOP_WIRE_PING)) {
        pong(conn, frame->request);
    }
    if (frame->kind == BOP_WIRE_KIND_PING) {
        return 0;
    }
    if (!to_operation(frame->kind, frame->payload, &operation)) {
        snprintf(text, sizeof(text), "%s is not served by this version",
                 bop_wire_kind_name(frame->kind));
        bop__service_error(conn, frame->request, text);
        return 0;
    }
    if (refusal(&operation)) {
        bop__service_error(conn, frame->request, refusal(&operation));
        return 0;
    }
    return serve_operation(conn, frame, &operation);
}
