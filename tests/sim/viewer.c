/*
 * Views of clients: each shows one revision, which has all that was acknowledged when the view was
 * asked for, and the same one however often it is read and whatever happens meanwhile.
 */
#include "sim.h"

#define VIEW_REQUEST UINT32_C(0x60000000) /* Above those of watches. */
#define ASKS_MAX     8

static void send(struct sim_client *client, enum bop_wire_kind kind, struct bop_slice payload)
{
    struct sim_view *view = &client->view;
    struct bop_buf frame;
    size_t at;

    view->request = view->request >= VIEW_REQUEST ? view->request + 1 : VIEW_REQUEST;
    bop_buf_init(&frame, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&frame, &at) == 0);
    BOP_ASSERT(bop_buf_append(&frame, payload.data, payload.size) == 0);
    bop_wire_end(&frame, at, kind, BOP_WIRE_REQUEST, view->request);
    sim_client_send(&client->conns[view->conn], &frame);
    bop_buf_deinit(&frame);
}

static void open_view(struct sim_client *client)
{
    struct sim_view *view = &client->view;

    view->conn = (unsigned)sim_below(client->sim, SIM_CONNS);
    if (!client->conns[view->conn].service) {
        return;
    }
    view->state = SIM_VIEW_OPENS;
    view->asks = 0;
    view->floor = sim_model_floor(client->sim);
    send(client, BOP_WIRE_KIND_VIEW_OPEN_REQUEST, bop_slice(NULL, 0));
}

static void ask(struct sim_client *client)
{
    struct sim_view *view = &client->view;
    struct bop_view_read_request request = {.view = view->id};
    struct bop_buf payload;
    struct bop_writer writer = bop_writer(&payload);

    bop_buf_init(&payload, NULL, 0);
    bop_buf_clear(&view->operation);
    sim_workload_read(client, &view->operation);
    request.operation = bop_buf_slice(&view->operation);
    bop_view_read_request_encode(&writer, &request);
    BOP_ASSERT(writer.code == 0);
    view->state = SIM_VIEW_ASKED;
    send(client, BOP_WIRE_KIND_VIEW_READ_REQUEST, bop_buf_slice(&payload));
    bop_buf_deinit(&payload);
}

static void close_view(struct sim_client *client)
{
    uint8_t payload[8];

    bop_store_u64(payload, client->view.id);
    client->view.state = SIM_VIEW_CLOSES;
    send(client, BOP_WIRE_KIND_VIEW_CLOSE_REQUEST, bop_slice(payload, sizeof(payload)));
}

void sim_viewer_turn(struct sim_client *client)
{
    struct sim *sim = client->sim;
    struct sim_view *view = &client->view;

    if (view->state == SIM_VIEW_NONE && !sim->quiet && sim_chance(sim, 1, 40)) {
        open_view(client);
    } else if (view->state == SIM_VIEW_OPEN && client->conns[view->conn].service &&
               sim_chance(sim, 1, 4)) {
        if (view->asks++ < ASKS_MAX) {
            ask(client);
        } else {
            close_view(client);
        }
    }
}

void sim_viewer_hangup(struct sim_client *client, unsigned conn)
{
    if (client->view.conn == conn) {
        client->view.state = SIM_VIEW_NONE; /* It went with its connection. */
    }
}

static void opened(struct sim_client *client, struct bop_slice payload)
{
    struct sim_view *view = &client->view;
    struct bop_view_open_response in;

    if (bop_view_open_response_decode(payload, &in) < 0) {
        sim_fail(client->sim, "a response to VIEW_OPEN is malformed");
    } else if (in.status == BOP_STATUS_BUSY || in.status == BOP_STATUS_RETRY) {
        view->state = SIM_VIEW_NONE;
    } else if (in.status != BOP_STATUS_OK) {
        sim_fail(client->sim, "VIEW_OPEN is answered \"%s\"", bop_status_text(in.status));
    } else if (in.revision < view->floor || in.revision > sim_model_applied(client->sim)) {
        sim_fail(client->sim,
                 "a view is of entry %" PRIu64 ", and all up to %" PRIu64 " was acknowledged",
                 in.revision, view->floor);
    } else {
        view->state = SIM_VIEW_OPEN;
        view->id = in.view;
        view->revision = in.revision;
    }
}

static void was_read(struct sim_client *client, struct bop_slice payload)
{
    struct sim_view *view = &client->view;
    struct bop_reply in;

    if (bop_reply_decode(payload, &in) < 0) {
        sim_fail(client->sim, "a response to VIEW_READ is malformed");
    } else if (in.status == BOP_STATUS_NO_VIEW) {
        view->state = SIM_VIEW_NONE; /* The state it showed was replaced, or it was idle. */
    } else {
        view->state = SIM_VIEW_OPEN;
        sim_model_viewed(client->sim, view->revision, bop_buf_slice(&view->operation), &in);
    }
}

static void closed(struct sim_client *client, struct bop_slice payload)
{
    uint8_t status;

    client->view.state = SIM_VIEW_NONE;
    if (bop_session_status_decode(payload, &status) < 0 ||
        (status != BOP_STATUS_OK && status != BOP_STATUS_NO_VIEW)) {
        sim_fail(client->sim, "a response to VIEW_CLOSE is malformed");
    }
}

bool sim_viewer_frame(struct sim_client *client, const struct bop_wire_frame *frame)
{
    const struct sim_view *view = &client->view;
    bool expected = frame->request == view->request;

    if (frame->kind < BOP_WIRE_KIND_VIEW_OPEN_RESPONSE ||
        frame->kind > BOP_WIRE_KIND_VIEW_CLOSE_RESPONSE) {
        return false;
    }
    if (frame->kind == BOP_WIRE_KIND_VIEW_OPEN_RESPONSE && expected &&
        view->state == SIM_VIEW_OPENS) {
        opened(client, frame->payload);
    } else if (frame->kind == BOP_WIRE_KIND_VIEW_READ_RESPONSE && expected &&
               view->state == SIM_VIEW_ASKED) {
        was_read(client, frame->payload);
    } else if (frame->kind == BOP_WIRE_KIND_VIEW_CLOSE_RESPONSE && expected &&
               view->state == SIM_VIEW_CLOSES) {
        closed(client, frame->payload);
    } else {
        sim_fail(client->sim, "client %u gets an answer about a view it did not ask for",
                 client->index);
    }
    return true;
}

void sim_viewer_init(struct sim_client *client)
{
    bop_buf_init(&client->view.operation, NULL, 0);
}

void sim_viewer_deinit(struct sim_client *client)
{
    bop_buf_deinit(&client->view.operation);
}
