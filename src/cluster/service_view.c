/*
 * Kinds 174 to 179: a view is opened at a revision at or above everything answered before,
 * read from, and closed; by itself too, when it is idle or old, when its connection
 * goes, and when the state is replaced by a snapshot's.
 */
#include "service_internal.h"

#include <bop/random.h>

static void close_view(struct service *service, struct service_view *view)
{
    bop__machine_view_close(view->view);
    view->conn->views--;
    service->views.count--;
    *view = (struct service_view){0};
}

void bop__service_views_close(struct service_conn *conn)
{
    struct service_views *views = &conn->service->views;

    for (size_t n = 0; n < SERVICE_VIEWS_MAX && conn->views > 0; n++) {
        if (views->list[n].id != 0 && views->list[n].conn == conn) {
            close_view(conn->service, &views->list[n]);
        }
    }
}

void bop__service_views_release(struct service *service)
{
    for (size_t n = 0; n < SERVICE_VIEWS_MAX; n++) {
        if (service->views.list[n].id != 0) {
            close_view(service, &service->views.list[n]);
        }
    }
}

uint64_t bop__service_views_turn(struct service *service, uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;

    for (size_t n = 0; n < SERVICE_VIEWS_MAX && service->views.count > 0; n++) {
        struct service_view *view = &service->views.list[n];
        uint64_t until_ms = bop_min_u64(view->used_ms + SERVICE_VIEW_IDLE_MS,
                                        view->opened_ms + SERVICE_VIEW_LIFE_MS);

        if (view->id == 0) {
            continue;
        }
        if (until_ms <= now_ms) {
            close_view(service, view);
        } else {
            due_ms = bop_min_u64(due_ms, until_ms);
        }
    }
    return due_ms;
}

static struct service_view *find_view(struct service_conn *conn, uint64_t id)
{
    struct service_views *views = &conn->service->views;

    for (size_t n = 0; id != 0 && n < SERVICE_VIEWS_MAX; n++) {
        if (views->list[n].id == id && views->list[n].conn == conn) {
            return &views->list[n];
        }
    }
    return NULL;
}

/* ---- Opening ---- */

static bool is_full(const struct service_conn *conn)
{
    return conn->views >= SERVICE_VIEWS_CONN_MAX || conn->service->views.count >= SERVICE_VIEWS_MAX;
}

/* A view as of now; its place is found, and it is counted. */
static uint8_t make_view(struct service_conn *conn, struct service_view **out_view)
{
    struct service *service = conn->service;
    struct service_view *view = service->views.list;

    if (is_full(conn)) {
        return BOP_STATUS_BUSY;
    }
    while (view->id != 0) {
        view++;
    }
    if (!bop__replica_machine(service->replica) || bop_random_secret(&view->id, 8) < 0 ||
        view->id == 0 || bop__replica_view_open(service->replica, &view->view) < 0) {
        view->id = 0;
        return BOP_STATUS_RETRY;
    }
    view->conn = conn;
    view->opened_ms = bop_clock_monotonic_ms(service->options.clock);
    view->used_ms = view->opened_ms;
    conn->views++;
    service->views.count++;
    *out_view = view;
    return BOP_STATUS_OK;
}

static void respond_open(struct service_conn *conn, uint32_t id, uint8_t status,
                         const struct service_view *view)
{
    struct bop_view_open_response response = {.status = status};
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (!out) {
        return;
    }
    if (view) {
        response.view = view->id;
        response.revision = bop__machine_view_position(view->view).index;
    }
    writer = bop_writer(out);
    bop_view_open_response_encode(&writer, &response);
    bop__service_end(conn, out, at, BOP_WIRE_KIND_VIEW_OPEN_RESPONSE, BOP_WIRE_RESPONSE, id,
                     &writer);
}

/* The view given is lent; ours is of the same state or a newer one. */
static void open_done(struct replica_read *read, int code, struct machine_view *lent)
{
    struct service_request *request = BOP_CONTAINER_OF(read, struct service_request, read);
    struct service_conn *conn = request->conn;
    struct service_view *view = NULL;
    uint8_t status = BOP_STATUS_RETRY;

    if (!conn->closed) {
        if (code == 0) {
            status = make_view(conn, &view);
        }
        if (view &&
            bop__machine_view_position(view->view).index < bop__machine_view_position(lent).index) {
            close_view(conn->service, view); /* A batch was undone in between. */
            view = NULL;
            status = BOP_STATUS_RETRY;
        }
        respond_open(conn, request->id, status, view);
    }
    bop__service_finish(request);
}

static int serve_open(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct service_request *request;

    if (frame->payload.size != 0) {
        return BOP_EMALFORMED;
    }
    if (is_full(conn)) {
        respond_open(conn, frame->request, BOP_STATUS_BUSY, NULL);
        return 0;
    }
    request = bop__service_request(conn, frame);
    if (!request) {
        return BOP_ENOMEM;
    }
    request->read = (struct replica_read){.done = open_done};
    bop__replica_read(conn->service->replica, &request->read);
    return 0;
}

/* ---- Reading ---- */

static void read_from(struct service_conn *conn, const struct bop_wire_frame *frame,
                      struct service_view *view, const struct bop_operation *operation)
{
    size_t at, status_at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;
    int rc;

    if (!out) {
        return;
    }
    view->used_ms = bop_clock_monotonic_ms(conn->service->options.clock);
    writer = bop_writer(out);
    status_at = out->size;
    bop_write_u8(&writer, BOP_STATUS_RETRY);
    if (writer.code == 0) {
        rc = bop__machine_read(view->view, operation, out);
        if (rc >= 0) {
            out->data[status_at] = (uint8_t)rc;
        } else {
            out->size = status_at + 1;
        }
    }
    bop__service_end(conn, out, at, BOP_WIRE_KIND_VIEW_READ_RESPONSE, BOP_WIRE_RESPONSE,
                     frame->request, &writer);
}

static int serve_read(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_view_read_request in;
    struct bop_operation operation;
    struct service_view *view;
    int rc = bop_view_read_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    rc = bop_operation_decode(in.operation, &operation);
    if (rc < 0 || bop_op_is_write(operation.op)) {
        bop__service_respond(conn, frame,
                             rc == BOP_ETOOBIG ? BOP_STATUS_TOO_BIG : BOP_STATUS_BAD_REQUEST,
                             bop_slice(NULL, 0));
        return 0;
    }
    if (!bop__service_allows(conn, frame, &operation)) {
        return 0;
    }
    view = find_view(conn, in.view);
    if (!view) {
        bop__service_respond(conn, frame, BOP_STATUS_NO_VIEW, bop_slice(NULL, 0));
        return 0;
    }
    read_from(conn, frame, view, &operation);
    return 0;
}

static int serve_close(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_view_close_request in;
    struct service_view *view;
    int rc = bop_view_close_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    view = find_view(conn, in.view);
    if (view) {
        close_view(conn->service, view);
    }
    bop__service_respond(conn, frame, view ? BOP_STATUS_OK : BOP_STATUS_NO_VIEW,
                         bop_slice(NULL, 0));
    return 0;
}

int bop__service_view(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    switch (frame->kind) {
    case BOP_WIRE_KIND_VIEW_OPEN_REQUEST:
        return serve_open(conn, frame);
    case BOP_WIRE_KIND_VIEW_READ_REQUEST:
        return serve_read(conn, frame);
    default:
        return serve_close(conn, frame);
    }
}
