/*
 * Clients that speak the wire protocol, and their connections to nodes. They
 * number their writes, repeat them under the same number at any node until they
 * are answered, send some of them twice on purpose, and give up what they cannot
 * know the end of.
 */
#include <stdlib.h>
#include <string.h>

#include <bop/crc32c.h>

#include "sim.h"

#define ANSWER_US     (2 * SIM_S)  /* Then a request is repeated. */
#define UNCERTAIN_US  (12 * SIM_S) /* Then the end of one without a session is unknown. */
#define ALIVE_REQUEST UINT32_MAX   /* The id of requests that are no operations. */

struct sim_op *sim_op(struct sim *sim, uint64_t number)
{
    return number > 0 && number <= sim->op_count ? &sim->ops[number - 1] : NULL;
}

/* ---- Connections ---- */

static struct bop_buf *conn_output(void *user)
{
    return &((struct sim_conn *)user)->out;
}

static void conn_flush(void *user)
{
    struct sim_conn *conn = user;
    struct sim *sim = conn->client->sim;
    uint64_t at_us = sim_pipe_push(sim, &conn->replies, bop_buf_slice(&conn->out));

    bop_buf_clear(&conn->out);
    sim_push(sim, at_us, SIM_EVENT_REPLY, conn->client->index, conn->number, conn->epoch);
}

static void conn_resume(void *user)
{
    struct sim_conn *conn = user;
    struct sim *sim = conn->client->sim;

    sim_push(sim, sim->now_us, SIM_EVENT_REQUEST, conn->client->index, conn->number, conn->epoch);
}

static void conn_close(void *user)
{
    struct sim_conn *conn = user;

    sim_fail(conn->client->sim, "a service closes the connection of client %u",
             conn->client->index);
}

static const struct service_io conn_io = {
    .output = conn_output,
    .flush = conn_flush,
    .resume = conn_resume,
    .close = conn_close,
};

static void connect_conn(struct sim_conn *conn)
{
    struct sim *sim = conn->client->sim;
    struct sim_node *node = &sim->nodes[sim_below(sim, sim->node_count)];

    if (!node->up || bop__service_connect(node->service, &conn_io, conn, &conn->service) < 0) {
        return;
    }
    conn->node = node;
    conn->epoch++;
}

/* The node's end is gone; the client's will hear of it. */
static void cut_conn(struct sim_conn *conn, uint64_t after_us)
{
    struct sim *sim = conn->client->sim;

    bop__service_disconnect(conn->service);
    conn->service = NULL;
    sim_pipe_clear(&conn->requests);
    bop_buf_clear(&conn->out);
    sim_push(sim, sim->now_us + after_us, SIM_EVENT_HANGUP, conn->client->index, conn->number,
             conn->epoch);
}

void sim_clients_node_down(struct sim_node *node)
{
    struct sim *sim = node->sim;

    for (unsigned c = 0; c < sim->client_count; c++) {
        for (unsigned n = 0; n < SIM_CONNS; n++) {
            struct sim_conn *conn = &sim->clients[c].conns[n];

            if (conn->service && conn->node == node) {
                cut_conn(conn, sim_latency(sim));
            }
        }
    }
}

void sim_client_break(struct sim *sim, unsigned client, unsigned number)
{
    struct sim_conn *conn = &sim->clients[client].conns[number];

    if (conn->service) {
        sim->stats.breaks++;
        bop__service_cut(conn->service);
        sim_node_touch(conn->node);
        cut_conn(conn, 0);
    }
}

/* ---- Operations ---- */

static void close_op(struct sim_client *client, uint64_t number, enum sim_op_state state)
{
    struct sim_op *op = sim_op(client->sim, number);

    BOP_ASSERT(op->state == SIM_OP_OPEN);
    op->state = state;
    for (unsigned n = 0; n < client->open_count; n++) {
        if (client->open_ops[n] == number) {
            client->open_ops[n] = client->open_ops[--client->open_count];
            return;
        }
    }
    BOP_ASSERT(!"an open operation");
}

static bool is_write(const struct sim_op *op)
{
    return op->op != 0 && bop_op_is_write(op->op);
}

static void session_lost(struct sim_client *client)
{
    client->sim->stats.expired_sessions++;
    for (unsigned n = client->open_count; n > 0; n--) {
        uint64_t number = client->open_ops[n - 1];
        struct sim_op *op = sim_op(client->sim, number);

        if (is_write(op) && op->session != 0) {
            close_op(client, number, SIM_OP_UNKNOWN);
        }
    }
    client->session = 0;
}

/* Replies up to here have all arrived. */
static uint64_t acked(const struct sim_client *client)
{
    uint64_t lowest = client->sequence + 1;

    for (unsigned n = 0; n < client->open_count; n++) {
        const struct sim_op *op = sim_op(client->sim, client->open_ops[n]);

        if (is_write(op) && op->session != 0) {
            lowest = bop_min_u64(lowest, op->sequence);
        }
    }
    return lowest - 1;
}

static enum bop_wire_kind encode_request(struct sim_client *client, uint64_t number,
                                         const struct sim_op *op, struct bop_writer *writer)
{
    struct bop_slice operation = bop_slice(op->bytes, op->size);
    enum bop_wire_kind kind = BOP_WIRE_KIND_SESSION_OPEN_REQUEST;

    if (op->closes) {
        struct bop_session_request out = {.session = op->session};

        kind = BOP_WIRE_KIND_SESSION_CLOSE_REQUEST;
        memcpy(out.token, client->token, sizeof(out.token));
        bop_session_request_encode(writer, &out);
    } else if (op->op == 0 && client->grace_ms > 0) {
        struct bop_session_start_request out = {.timeout_ms = client->session_timeout_ms,
                                                .grace_ms = client->grace_ms};

        kind = BOP_WIRE_KIND_SESSION_START_REQUEST;
        memcpy(out.token, client->token, sizeof(out.token));
        bop_session_start_request_encode(writer, &out);
    } else if (op->op == 0) {
        struct bop_session_open_request out = {.timeout_ms = client->session_timeout_ms};

        memcpy(out.token, client->token, sizeof(out.token));
        bop_session_open_request_encode(writer, &out);
    } else {
        if (is_write(op)) {
            struct bop_write_request out = {.session = op->session,
                                            .sequence = op->sequence,
                                            .acked = op->session ? acked(client) : 0,
                                            .operation = operation};

            kind = BOP_WIRE_KIND_WRITE_REQUEST;
            bop_write_request_encode(writer, &out);
        } else {
            bool stale = op->stale || client->sim->options.mutation == SIM_MUTATE_STALE_READ;
            struct bop_read_request out = {.consistency = stale ? BOP_READ_STALE
                                                                : BOP_READ_LINEARIZABLE,
                                           .operation = operation};

            kind = BOP_WIRE_KIND_READ_REQUEST;
            bop_read_request_encode(writer, &out);
        }
    }
    return kind;
}

void sim_client_send(struct sim_conn *conn, struct bop_buf *frame)
{
    struct sim *sim = conn->client->sim;
    uint64_t at_us = sim_pipe_push(sim, &conn->requests, bop_buf_slice(frame));

    sim_push(sim, at_us, SIM_EVENT_REQUEST, conn->client->index, conn->number, conn->epoch);
}

static void send_op(struct sim_conn *conn, uint64_t number)
{
    struct sim_client *client = conn->client;
    struct sim_op *op = sim_op(client->sim, number);
    struct bop_buf frame;
    struct bop_writer writer = bop_writer(&frame);
    enum bop_wire_kind kind;
    size_t at;

    bop_buf_init(&frame, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&frame, &at) == 0);
    kind = encode_request(client, number, op, &writer);
    bop_wire_end(&frame, at, kind, BOP_WIRE_REQUEST, (uint32_t)number);
    sim_client_send(conn, &frame);
    bop_buf_deinit(&frame);
    client->sim->stats.repeats += op->sends > 0;
    op->sends++;
    op->conns |= 1u << conn->number;
}

static void send_alive(struct sim_conn *conn)
{
    struct bop_buf frame;
    struct bop_writer writer = bop_writer(&frame);
    size_t at;

    bop_buf_init(&frame, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&frame, &at) == 0);
    bop_session_alive_request_encode(&writer, conn->client->session);
    bop_wire_end(&frame, at, BOP_WIRE_KIND_SESSION_ALIVE_REQUEST, BOP_WIRE_REQUEST, ALIVE_REQUEST);
    sim_client_send(conn, &frame);
    bop_buf_deinit(&frame);
}

static void send_status(struct sim_conn *conn)
{
    struct bop_buf frame;
    size_t at;

    bop_buf_init(&frame, NULL, 0);
    BOP_ASSERT(bop_wire_begin(&frame, &at) == 0);
    bop_wire_end(&frame, at, BOP_WIRE_KIND_STATUS_REQUEST, BOP_WIRE_REQUEST, ALIVE_REQUEST);
    sim_client_send(conn, &frame);
    bop_buf_deinit(&frame);
}

static uint64_t new_op(struct sim_client *client)
{
    struct sim *sim = client->sim;
    struct sim_op *op;

    if (sim->op_count == sim->op_capacity) {
        sim->op_capacity = sim->op_capacity ? sim->op_capacity * 2 : 1024;
        sim->ops = realloc(sim->ops, sim->op_capacity * sizeof(*op));
        BOP_ASSERT(sim->ops);
    }
    op = &sim->ops[sim->op_count++];
    *op = (struct sim_op){.client = client->index, .floor = sim_model_floor(sim)};
    client->open_ops[client->open_count++] = sim->op_count;
    return sim->op_count;
}

static void choose_op(struct sim_client *client, uint64_t number)
{
    struct sim *sim = client->sim;
    struct sim_op *op = sim_op(sim, number);

    sim_workload(client, number);
    if (!is_write(op)) {
        op->stale = sim_chance(sim, 1, 6);
    } else if (client->uses_session) {
        op->session = client->session;
        op->sequence = ++client->sequence;
        op->want_copy = sim_chance(sim, 1, 8);
    }
}

/* ---- Answers ---- */

static void again(struct sim_client *client, uint64_t number)
{
    struct sim *sim = client->sim;
    struct sim_op *op = sim_op(sim, number);

    if (is_write(op) && op->session == 0) {
        close_op(client, number, SIM_OP_REFUSED);
        return;
    }
    op->again_us = sim->now_us + sim_between(sim, 5 * SIM_MS, 300 * SIM_MS);
    op->conns = 0;
    if (sim->options.mutation == SIM_MUTATE_DOUBLE_APPLY && is_write(op)) {
        op->sequence = ++client->sequence;
    }
}

static void session_opened(struct sim_client *client, uint64_t number, bool grace,
                           struct bop_slice payload)
{
    struct bop_session_open_response in;
    struct bop_session_start_response started = {0};
    struct sim *sim = client->sim;
    int rc = grace ? bop_session_start_response_decode(payload, &started)
                   : bop_session_open_response_decode(payload, &in);

    if (grace) {
        in = (struct bop_session_open_response){.status = started.status,
                                                .session = started.session};
    }
    if (rc < 0) {
        sim_fail(sim, "a response to SESSION_OPEN is malformed");
        return;
    }
    if (in.status != BOP_STATUS_OK) {
        again(client, number);
        return;
    }
    close_op(client, number, SIM_OP_ANSWERED);
    client->session_op = 0;
    client->session = in.session;
    client->sequence = 0;
    sim_op(sim, number)->session = in.session;
    sim_model_written(sim, number, in.status, bop_slice(NULL, 0));
}

static void session_closed(struct sim_client *client, uint64_t number, struct bop_slice payload)
{
    struct sim *sim = client->sim;
    uint8_t status;

    if (bop_session_status_decode(payload, &status) < 0) {
        sim_fail(sim, "a response to SESSION_CLOSE is malformed");
    } else if (status != BOP_STATUS_OK && status != BOP_STATUS_NO_SESSION) {
        again(client, number);
    } else if (sim_model_session_open(sim, sim_op(sim, number)->session)) {
        sim_fail(sim, "session %" PRIu64 " is open and its client is told that it is closed",
                 sim_op(sim, number)->session);
    } else {
        close_op(client, number, SIM_OP_ANSWERED);
    }
}

static void no_session(struct sim_client *client, uint64_t session)
{
    if (session == 0 || session != client->session) {
        return;
    }
    if (sim_model_session_open(client->sim, session)) {
        sim_fail(client->sim, "session %" PRIu64 " is open and a client is told it is not",
                 session);
        return;
    }
    session_lost(client);
}

static void answered(struct sim_client *client, uint64_t number, uint8_t status,
                     struct bop_slice bytes)
{
    struct sim *sim = client->sim;
    struct sim_op *op = sim_op(sim, number);

    close_op(client, number, SIM_OP_ANSWERED);
    if (is_write(op)) {
        sim->stats.writes++;
        sim_model_written(sim, number, status, bytes);
    } else {
        sim->stats.reads++;
        sim_model_read(sim, number, status, bytes);
    }
}

/* The answer to a copy of what was answered already: the same one, or none of use. */
static void answered_again(struct sim *sim, uint64_t number, uint8_t status, struct bop_slice bytes)
{
    const struct sim_op *op = sim_op(sim, number);

    if (op->state == SIM_OP_ANSWERED && is_write(op) &&
        (status == BOP_STATUS_OK || status == BOP_STATUS_CONDITION)) {
        sim_model_written(sim, number, status, bytes);
    }
}

static void take_reply(struct sim_client *client, uint64_t number, struct bop_slice payload)
{
    struct sim *sim = client->sim;
    struct sim_op *op = sim_op(sim, number);
    struct bop_reply in;

    if (bop_reply_decode(payload, &in) < 0) {
        sim_fail(sim, "the reply to operation %" PRIu64 " is malformed", number);
        return;
    }
    if (op->state != SIM_OP_OPEN) {
        answered_again(sim, number, in.status, in.result);
        return;
    }
    switch (in.status) {
    case BOP_STATUS_OK:
    case BOP_STATUS_CONDITION:
        answered(client, number, in.status, in.result);
        break;
    case BOP_STATUS_NOT_FOUND:
    case BOP_STATUS_BAD_REQUEST:
        answered(client, number, in.status, in.result);
        break;
    case BOP_STATUS_TOO_OLD:
        if (op->applied == 0) {
            close_op(client, number, SIM_OP_UNKNOWN); /* Refused before it came to the log. */
        } else {
            answered(client, number, in.status, in.result);
        }
        break;
    case BOP_STATUS_RETRY:
    case BOP_STATUS_BUSY:
    case BOP_STATUS_NO_ROOM:
        again(client, number);
        break;
    case BOP_STATUS_NO_SESSION:
        no_session(client, op->session);
        break;
    case BOP_STATUS_UNCERTAIN:
        if (!is_write(op) || op->session != 0) {
            sim_fail(sim, "what may be repeated is answered UNCERTAIN");
            return;
        }
        close_op(client, number, SIM_OP_UNKNOWN);
        break;
    default:
        sim_fail(sim, "operation %" PRIu64 " is answered \"%s\"", number,
                 bop_status_text(in.status));
    }
}

static void take_response(struct sim_conn *conn, const struct bop_wire_frame *frame)
{
    struct sim_client *client = conn->client;
    struct sim *sim = client->sim;
    struct sim_op *op = sim_op(sim, frame->request);
    struct bop_status_response node_status;
    uint8_t status;

    if (sim_watches_frame(conn, frame) || sim_viewer_frame(client, frame) ||
        sim_settler_frame(client, frame) || sim_backup_frame(client, frame)) {
        return;
    }
    if (frame->kind == BOP_WIRE_KIND_STATUS_RESPONSE) {
        if (bop_status_response_decode(frame->payload, &node_status) < 0) {
            sim_fail(sim, "a response to STATUS is malformed");
        }
        return;
    }
    if (frame->kind == BOP_WIRE_KIND_SESSION_ALIVE_RESPONSE) {
        if (bop_session_status_decode(frame->payload, &status) < 0) {
            sim_fail(sim, "a response to SESSION_ALIVE is malformed");
        }
        return; /* Of whichever session it was: its next write tells. */
    }
    if (!op || op->client != client->index) {
        sim_fail(sim, "client %u gets an answer to what it never asked", client->index);
    } else if (frame->kind == BOP_WIRE_KIND_SESSION_OPEN_RESPONSE ||
               frame->kind == BOP_WIRE_KIND_SESSION_START_RESPONSE) {
        if (op->state == SIM_OP_OPEN) {
            session_opened(client, frame->request,
                           frame->kind == BOP_WIRE_KIND_SESSION_START_RESPONSE, frame->payload);
        }
    } else if (frame->kind == BOP_WIRE_KIND_SESSION_CLOSE_RESPONSE) {
        if (op->state == SIM_OP_OPEN) {
            session_closed(client, frame->request, frame->payload);
        }
    } else if (frame->kind == BOP_WIRE_KIND_WRITE_RESPONSE ||
               frame->kind == BOP_WIRE_KIND_READ_RESPONSE) {
        take_reply(client, frame->request, frame->payload);
    } else {
        sim_fail(sim, "client %u gets a frame of kind %u", client->index, frame->kind);
    }
}

/* ---- Events ---- */

static void on_request(struct sim_conn *conn)
{
    struct sim *sim = conn->client->sim;
    struct sim_node *node = conn->node;
    struct sim_piece *piece;

    while (conn->service && !sim->failed && (piece = sim_pipe_pop(sim, &conn->requests))) {
        struct bop_wire_frame frame;
        size_t used;
        int rc = bop_wire_parse(bop_slice(piece->bytes, piece->size), 0, &frame, &used, NULL);

        if (rc == 0) {
            rc = bop__service_frame(conn->service, &frame);
        }
        free(piece);
        if (rc < 0) {
            sim_fail(sim, "a service refuses a frame: %s", bop_strerror(rc));
            return;
        }
        sim_node_after(node);
        sim_node_touch(node);
    }
}

static void on_reply(struct sim_conn *conn)
{
    struct sim *sim = conn->client->sim;
    struct sim_piece *piece;

    while (!sim->failed && (piece = sim_pipe_pop(sim, &conn->replies))) {
        struct bop_slice rest = bop_slice(piece->bytes, piece->size);

        sim_mix(sim, bop_crc32c(0, piece->bytes, piece->size));
        while (rest.size > 0 && !sim->failed) {
            struct bop_wire_frame frame;
            size_t used;

            if (bop_wire_parse(rest, 0, &frame, &used, NULL) < 0) {
                sim_fail(sim, "client %u cannot parse an answer", conn->client->index);
                break;
            }
            take_response(conn, &frame);
            rest = bop_slice(rest.data + used, rest.size - used);
        }
        free(piece);
    }
}

static void on_hangup(struct sim_conn *conn)
{
    struct sim_client *client = conn->client;
    struct sim *sim = client->sim;

    sim_pipe_clear(&conn->requests);
    sim_pipe_clear(&conn->replies);
    sim_watches_hangup(client, conn->number);
    sim_viewer_hangup(client, conn->number);
    sim_settler_hangup(client, conn->number);
    sim_backup_hangup(client, conn->number);
    conn->node = NULL;
    conn->epoch++;
    client->connect_us = sim->now_us + sim_below(sim, 200 * SIM_MS);
    for (unsigned n = client->open_count; n > 0; n--) {
        uint64_t number = client->open_ops[n - 1];
        struct sim_op *op = sim_op(sim, number);

        if (!(op->conns & 1u << conn->number)) {
            continue;
        }
        op->conns &= ~(1u << conn->number);
        if (is_write(op) && op->session == 0) {
            close_op(client, number, SIM_OP_UNKNOWN);
        } else if (op->conns == 0) {
            op->again_us = sim->now_us;
        }
    }
}

static struct sim_conn *some_conn(struct sim_client *client)
{
    struct sim_conn *first = &client->conns[sim_below(client->sim, SIM_CONNS)];

    for (unsigned n = 0; n < SIM_CONNS; n++) {
        struct sim_conn *conn = &client->conns[(first->number + n) % SIM_CONNS];

        if (conn->service) {
            return conn;
        }
    }
    return NULL;
}

static void repeat(struct sim_client *client, uint64_t number)
{
    struct sim *sim = client->sim;
    struct sim_op *op = sim_op(sim, number);
    struct sim_conn *conn = some_conn(client);

    if (is_write(op) && op->session == 0 && op->sends > 0) {
        if (sim->now_us > op->sent_us + UNCERTAIN_US) {
            close_op(client, number, SIM_OP_UNKNOWN);
        }
        return;
    }
    if (!conn || sim->now_us < op->again_us ||
        (op->conns != 0 && sim->now_us < op->sent_us + ANSWER_US)) {
        return;
    }
    op->sent_us = sim->now_us;
    op->first_us = op->first_us ? op->first_us : sim->now_us;
    send_op(conn, number);
    if (op->want_copy) {
        op->want_copy = false;
        conn = &client->conns[(conn->number + 1) % SIM_CONNS];
        if (conn->service) {
            send_op(conn, number);
        }
    }
}

static void session_turn(struct sim_client *client)
{
    struct sim *sim = client->sim;
    struct sim_conn *conn;

    if (client->session == 0) {
        if (client->session_op == 0 && !sim->quiet) {
            client->session_op = new_op(client);
            repeat(client, client->session_op);
        }
        return;
    }
    if (sim->now_us >= client->alive_us && (conn = some_conn(client))) {
        client->alive_us = sim->now_us + client->session_timeout_ms * SIM_MS / 4;
        send_alive(conn);
    }
}

/* Its locks and all else go with it; then it opens another one. */
static void end_session(struct sim_client *client)
{
    uint64_t number;
    struct sim_op *op;

    for (unsigned n = 0; n < client->open_count; n++) {
        if (is_write(sim_op(client->sim, client->open_ops[n]))) {
            return;
        }
    }
    number = new_op(client);
    op = sim_op(client->sim, number);
    op->closes = true;
    op->session = client->session;
    client->session = 0;
    repeat(client, number);
}

static void ask(struct sim_client *client)
{
    struct sim *sim = client->sim;
    unsigned burst = (unsigned)sim_between(sim, 1, 4);

    if (sim->quiet || (client->uses_session && client->session == 0)) {
        return;
    }
    for (unsigned n = 0; n < burst && client->open_count < client->pipeline; n++) {
        uint64_t number = new_op(client);

        choose_op(client, number);
        repeat(client, number);
    }
}

static void client_turn(struct sim_client *client)
{
    struct sim *sim = client->sim;
    struct sim_conn *conn;

    if (sim->now_us >= client->connect_us) {
        for (unsigned n = 0; n < SIM_CONNS; n++) {
            if (!client->conns[n].node) {
                connect_conn(&client->conns[n]);
            }
        }
    }
    if (sim->now_us >= client->silent_until_us) {
        if (client->uses_session) {
            session_turn(client);
        }
        for (unsigned n = client->open_count; n > 0; n--) {
            repeat(client, client->open_ops[n - 1]);
        }
        ask(client);
        if (client->session != 0 && client->open_count < client->pipeline && !sim->quiet &&
            sim_chance(sim, 1, 100)) {
            end_session(client);
        }
        sim_watches_turn(client);
        sim_viewer_turn(client);
        sim_settler_turn(client);
        sim_backup_turn(client);
        if (sim_chance(sim, 1, 50) && (conn = some_conn(client))) {
            send_status(conn);
        }
        if (!sim->calm && sim_chance(sim, 1, 400)) {
            /* Long enough for a session to expire. */
            client->silent_until_us = sim->now_us + sim_between(sim, SIM_S, 5 * SIM_S);
        }
    }
    sim_push(sim, sim->now_us + 1 + sim_below(sim, 2 * client->think_us), SIM_EVENT_CLIENT,
             client->index, 0, 0);
}

void sim_client_event(struct sim *sim, const struct sim_event *event)
{
    struct sim_client *client = &sim->clients[event->a];
    struct sim_conn *conn = &client->conns[event->b];

    if (event->kind == SIM_EVENT_CLIENT) {
        client_turn(client);
        return;
    }
    if (event->c != conn->epoch) {
        return;
    }
    if (event->kind == SIM_EVENT_REPLY) {
        on_reply(conn);
    } else if (event->kind == SIM_EVENT_HANGUP) {
        on_hangup(conn);
    } else if (conn->service && sim->now_us < conn->node->paused_until_us) {
        sim_push(sim, conn->node->paused_until_us, SIM_EVENT_REQUEST, event->a, event->b, event->c);
    } else if (conn->service) {
        on_request(conn);
    }
}

/* ---- From begin to end ---- */

void sim_clients_init(struct sim *sim)
{
    for (unsigned c = 0; c < sim->client_count; c++) {
        struct sim_client *client = &sim->clients[c];

        client->sim = sim;
        client->index = c;
        client->uses_session = c == 0 || sim_chance(sim, 3, 4);
        client->pipeline = (unsigned)sim_between(sim, 1, SIM_PIPELINE_MAX - 1);
        client->open_ops = sim_memory(SIM_PIPELINE_MAX * sizeof(uint64_t));
        client->think_us = sim_between(sim, 5 * SIM_MS, 40 * SIM_MS);
        client->session_timeout_ms = (uint32_t)sim_between(sim, 1000, 6000);
        client->grace_ms = sim_chance(sim, 1, 2) ? (uint32_t)sim_between(sim, 200, 2000) : 0;
        for (unsigned n = 0; n < BOP_TOKEN_SIZE; n++) {
            client->token[n] = (uint8_t)sim_below(sim, 256);
        }
        for (unsigned n = 0; n < SIM_CONNS; n++) {
            struct sim_conn *conn = &client->conns[n];

            conn->client = client;
            conn->number = n;
            bop_buf_init(&conn->out, NULL, 0);
            sim_pipe_init(&conn->requests);
            sim_pipe_init(&conn->replies);
        }
        sim_watches_init(client);
        sim_viewer_init(client);
        sim_backup_init(client);
        sim_push(sim, sim->now_us + sim_below(sim, SIM_S), SIM_EVENT_CLIENT, c, 0, 0);
    }
}

void sim_clients_deinit(struct sim *sim)
{
    for (unsigned c = 0; c < sim->client_count; c++) {
        struct sim_client *client = &sim->clients[c];

        for (unsigned n = 0; n < SIM_CONNS; n++) {
            bop_buf_deinit(&client->conns[n].out);
            sim_pipe_clear(&client->conns[n].requests);
            sim_pipe_clear(&client->conns[n].replies);
        }
        sim_watches_deinit(client);
        sim_viewer_deinit(client);
        sim_backup_deinit(client);
        free(client->open_ops);
    }
    for (size_t n = 0; n < sim->op_count; n++) {
        free(sim->ops[n].bytes);
    }
    free(sim->ops);
}

bool sim_clients_done(const struct sim *sim)
{
    for (unsigned c = 0; c < sim->client_count; c++) {
        if (sim->clients[c].open_count > 0) {
            return false;
        }
    }
    return true;
}

void sim_clients_finish(struct sim *sim)
{
    for (unsigned c = 0; c < sim->client_count; c++) {
        struct sim_client *client = &sim->clients[c];

        for (unsigned n = 0; n < client->watch_count && !sim->failed; n++) {
            struct sim_watch *watch = &client->watches[n];

            if (watch->what == BOP_WATCH_SESSION && watch->session == 0) {
                continue;
            }
            if (!watch->open || watch->begins || sim_model_watch_is_late(sim, watch)) {
                sim_fail(sim, "liveness: a watch of client %u was told up to entry %" PRIu64 "%s",
                         c, watch->revision, watch->open ? "" : " and is not open");
            }
        }
    }
}
