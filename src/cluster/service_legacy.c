/*
 * The prototype's kinds, with its exact bytes: each request becomes an operation
 * and gets its own response kind. They carry no session, so a write whose reply is
 * lost in a change of leadership is answered with an error that says so.
 */
#include <stdio.h>

#include "service_legacy.h"

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
    case BOP_WIRE_KIND_CREATE_MULTIMAP_REQUEST:
        out->op = BOP_OP_MULTIMAP_CREATE;
        return true;
    case BOP_WIRE_KIND_MULTIMAP_PUT_REQUEST:
        out->op = BOP_OP_MULTIMAP_PUT;
        out->key = bop_read_bytes(&reader);
        out->value = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MULTIMAP_GET_REQUEST:
        out->op = BOP_OP_MULTIMAP_GET;
        out->key = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MULTIMAP_REMOVE_REQUEST:
        out->op = BOP_OP_MULTIMAP_REMOVE;
        out->key = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MULTIMAP_REMOVE_VALUE_REQUEST:
        out->op = BOP_OP_MULTIMAP_REMOVE_VALUE;
        out->key = bop_read_bytes(&reader);
        out->value = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MULTIMAP_SIZE_REQUEST:
        out->op = BOP_OP_MULTIMAP_SIZE;
        return true;
    case BOP_WIRE_KIND_MULTIMAP_KEY_SIZE_REQUEST:
        out->op = BOP_OP_MULTIMAP_KEY_SIZE;
        out->key = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MULTIMAP_CONTAINS_KEY_REQUEST:
        out->op = BOP_OP_MULTIMAP_CONTAINS_KEY;
        out->key = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MULTIMAP_CONTAINS_VALUE_REQUEST:
        out->op = BOP_OP_MULTIMAP_CONTAINS_VALUE;
        out->value = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MULTIMAP_CONTAINS_ENTRY_REQUEST:
        out->op = BOP_OP_MULTIMAP_CONTAINS_ENTRY;
        out->key = bop_read_bytes(&reader);
        out->value = bop_read_bytes(&reader);
        return true;
    case BOP_WIRE_KIND_MULTIMAP_KEYS_REQUEST:
        out->op = BOP_OP_MULTIMAP_KEYS;
        return true;
    case BOP_WIRE_KIND_MULTIMAP_VALUES_REQUEST:
        out->op = BOP_OP_MULTIMAP_VALUES;
        return true;
    case BOP_WIRE_KIND_MULTIMAP_ENTRIES_REQUEST:
        out->op = BOP_OP_MULTIMAP_ENTRIES;
        return true;
    case BOP_WIRE_KIND_MULTIMAP_CLEAR_REQUEST:
        out->op = BOP_OP_MULTIMAP_CLEAR;
        return true;
    case BOP_WIRE_KIND_CREATE_LOCK_REQUEST:
        out->op = BOP_OP_LOCK_CREATE;
        out->capacity = 1;
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
    case BOP_WIRE_KIND_CREATE_MULTIMAP_REQUEST:
    case BOP_WIRE_KIND_CREATE_COUNTER_REQUEST:
    case BOP_WIRE_KIND_CREATE_LOCK_REQUEST:
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
    case BOP_WIRE_KIND_MULTIMAP_CONTAINS_KEY_REQUEST:
    case BOP_WIRE_KIND_MULTIMAP_CONTAINS_VALUE_REQUEST:
    case BOP_WIRE_KIND_MULTIMAP_CONTAINS_ENTRY_REQUEST:
        bop_write_bool(writer, bop_read_bool(&reader));
        break;
    case BOP_WIRE_KIND_MAP_SIZE_REQUEST:
    case BOP_WIRE_KIND_SET_SIZE_REQUEST:
    case BOP_WIRE_KIND_MULTIMAP_SIZE_REQUEST:
    case BOP_WIRE_KIND_MULTIMAP_KEY_SIZE_REQUEST:
        bop_write_u64(writer, bop_read_u64(&reader));
        break;
    case BOP_WIRE_KIND_MULTIMAP_GET_REQUEST:
    case BOP_WIRE_KIND_MULTIMAP_KEYS_REQUEST:
    case BOP_WIRE_KIND_MULTIMAP_VALUES_REQUEST:
    case BOP_WIRE_KIND_MULTIMAP_ENTRIES_REQUEST:
        bop_write_raw(writer, result); /* As read_list() made it. */
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

/* ---- Whole lists: all pages of a scan as one ---- */

/* Room for the response's code is taken off what a frame may hold. */
#define LIST_BYTES_MAX (BOP_WIRE_FRAME_MAX - BOP_WIRE_HEADER - 1)

struct list {
    enum bop_op op;
    struct bop_buf *out;
    size_t count_at; /* Where the count of items is, or of keys. */
    uint32_t count;
    /* Of entries: where the count of the last key's values is, and the key, in out. */
    size_t values_at;
    uint32_t values;
    size_t key_at;
    size_t key_size;
};

static bool is_list(enum bop_op op)
{
    return op == BOP_OP_MULTIMAP_GET || op == BOP_OP_MULTIMAP_KEYS ||
           op == BOP_OP_MULTIMAP_VALUES || op == BOP_OP_MULTIMAP_ENTRIES;
}

/* Begin the values of a key, unless they go on. */
static void list_key(struct list *list, struct bop_writer *writer, struct bop_slice key)
{
    if (list->count > 0 &&
        bop_slice_equal(bop_slice(list->out->data + list->key_at, list->key_size), key)) {
        return;
    }
    list->count++;
    list->key_at = list->out->size + 4;
    list->key_size = key.size;
    bop_write_bytes(writer, key);
    list->values_at = list->out->size;
    list->values = 0;
    bop_write_u32(writer, 0);
}

static int list_add(void *user, const struct bop_scan_entry *entry)
{
    struct list *list = user;
    struct bop_writer writer = bop_writer(list->out);

    if (list->op == BOP_OP_MULTIMAP_ENTRIES) {
        list_key(list, &writer, entry->key);
        bop_write_bytes(&writer, entry->value);
        if (writer.code == 0) {
            bop_store_u32(list->out->data + list->values_at, ++list->values);
        }
    } else {
        bop_write_bytes(&writer, list->op == BOP_OP_MULTIMAP_KEYS ? entry->key : entry->value);
        list->count++;
    }
    return writer.code;
}

int bop__service_each_entry(struct machine_view *view, struct bop_allocator *allocator,
                            struct bop_operation *operation, service_entry_fn *fn, void *user)
{
    struct bop_scan_entry entry;
    struct bop_buf page, cursor;
    int rc;

    bop_buf_init(&page, allocator, 0);
    bop_buf_init(&cursor, allocator, 0);
    do {
        struct bop_result result = {0};

        bop_buf_clear(&page);
        operation->cursor = bop_buf_slice(&cursor);
        rc = bop__machine_read(view, operation, &page);
        if (rc == BOP_STATUS_OK) {
            rc = bop_result_decode(operation->op, BOP_STATUS_OK, bop_buf_slice(&page), &result);
        }
        while (rc == 0 && bop_scan_next(&result.entries, &entry)) {
            rc = fn(user, &entry);
        }
        bop_buf_clear(&cursor);
        if (rc == 0) {
            rc = bop_buf_append(&cursor, result.cursor.data, result.cursor.size);
        }
    } while (rc == 0 && cursor.size > 0);
    bop_buf_deinit(&page);
    bop_buf_deinit(&cursor);
    return rc;
}

/* All of it, in the prototype's form. BOP_STATUS_TOO_BIG if no frame could hold it. */
static int read_list(struct machine_view *view, struct bop_operation *operation,
                     struct bop_buf *out)
{
    struct list list = {.op = operation->op, .out = out, .count_at = out->size};
    struct bop_writer writer = bop_writer(out);
    int rc;

    bop_write_u32(&writer, 0);
    rc = writer.code;
    if (rc == 0) {
        rc = bop__service_each_entry(view, out->allocator, operation, list_add, &list);
    }
    if (rc == 0) {
        bop_store_u32(out->data + list.count_at, list.count);
    }
    return rc == BOP_EFULL ? BOP_STATUS_TOO_BIG : rc;
}

/* ---- Answers ---- */

static void respond(struct service_request *request, uint8_t status, struct bop_slice result)
{
    struct service_conn *conn = request->conn;
    struct bop_writer writer;
    struct bop_buf *out;
    size_t at;

    if (status == BOP_STATUS_TOO_BIG) { /* Of requests this was said before they were run. */
        bop__service_error(conn, request->id,
                           "too long for one answer: read it in pages, with READ_REQUEST");
        return;
    }
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
    bop_buf_init(&result, request->conn->service->allocator, LIST_BYTES_MAX);
    if (code == 0) {
        status = is_list(operation.op) ? read_list(view, &operation, &result)
                                       : bop__machine_read(view, &operation, &result);
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

static bool is_of_multimap(enum bop_op op)
{
    return op == BOP_OP_MULTIMAP_PUT || op == BOP_OP_MULTIMAP_REMOVE_VALUE ||
           op == BOP_OP_MULTIMAP_CONTAINS_VALUE || op == BOP_OP_MULTIMAP_CONTAINS_ENTRY;
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
    if (operation->value.size > BOP_KEY_MAX && is_of_multimap(operation->op)) {
        return "a multimap's value has at most 64 KiB";
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
    if (frame->kind == BOP_WIRE_KIND_STATE_SYNC_ACK) {
        bop__service_legacy_alive(conn);
        return bop__service_sync_acked(bop__service_legacy_sync(conn), frame->payload);
    }
    if (frame->flags & BOP_WIRE_RESPONSE) {
        return BOP_EPROTOCOL; /* We asked nothing. */
    }
    if (bop__service_legacy_is_of_node(frame->kind) && bop__service_legacy_busy(conn)) {
        conn->paused = true;
        return BOP_EAGAIN;
    }
    bop__service_legacy_alive(conn);
    if (frame->kind == BOP_WIRE_KIND_PING || (frame->flags & BOP_WIRE_PING)) {
        pong(conn, frame->request);
    }
    if (frame->kind == BOP_WIRE_KIND_PING) {
        return 0;
    }
    if (bop__service_legacy_is_of_node(frame->kind)) {
        return bop__service_legacy_node(conn, frame);
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
    if (!bop__service_allows(conn, frame, &operation)) {
        return 0;
    }
    return serve_operation(conn, frame, &operation);
}
