/* The fake cluster of the client's tests; see its header. */
#include "fake_cluster.h"

#include <stdio.h>

struct fake_connection {
    struct fake_node *node;
    struct bop_list link;
    struct bop_socket *tcp;
    bool known; /* It showed the token. */
    bool greeted;
};

static uint32_t hash(struct bop_slice data)
{
    uint32_t h = 2166136261; /* FNV-1a. */

    for (size_t i = 0; i < data.size; i++) {
        h = (h ^ data.data[i]) * 16777619;
    }
    return h;
}

/* ---- Answering ---- */

static void answer(struct bop_socket *tcp, enum bop_wire_kind kind, uint32_t request,
                   struct bop_slice payload)
{
    struct bop_buf *buf = bop_socket_output(tcp);
    size_t at;

    if (!buf) {
        return;
    }
    BOP_ASSERT(bop_wire_begin(buf, &at) == 0);
    BOP_ASSERT(bop_buf_append(buf, payload.data, payload.size) == 0);
    bop_wire_end(buf, at, kind, BOP_WIRE_RESPONSE, request);
    bop_socket_flush_later(tcp);
}

void fake_node_say(struct bop_socket *tcp, uint16_t kind, uint32_t request,
                   struct bop_slice payload)
{
    answer(tcp, (enum bop_wire_kind)kind, request, payload);
}

static void answer_status(struct bop_socket *tcp, enum bop_wire_kind kind, uint32_t request,
                          uint8_t status)
{
    answer(tcp, kind, request, bop_slice(&status, 1));
}

static void answer_hello(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    struct fake_node *node = connection->node;
    struct fake_cluster *cluster = node->cluster;
    struct bop_hello_request hello;
    struct bop_hello_response response = {.protocol = 1, .node = node->id};
    char address[32] = "";
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    node->hellos++;
    CHECK_EQ(bop_hello_request_decode(frame->payload, &hello), 0);
    CHECK_EQ(hello.protocol, BOP_WIRE_VERSION);
    connection->greeted = true;
    response.cluster = bop_slice_cstr(node->name);
    response.status = node->refuse || (hello.cluster.size > 0 &&
                                       !bop_slice_equal(hello.cluster, response.cluster))
                          ? BOP_STATUS_REFUSED
                          : BOP_STATUS_OK;
    response.leader = cluster->leader;
    if (cluster->leader) {
        snprintf(address, sizeof(address), "127.0.0.1:%u",
                 cluster->leader_port ? cluster->leader_port
                                      : cluster->nodes[cluster->leader - 1].port);
    }
    response.leader_address = bop_slice_cstr(address);
    bop_buf_init(&buf, NULL, 0);
    bop_hello_response_encode(&writer, &response);
    answer(connection->tcp, BOP_WIRE_KIND_HELLO_RESPONSE, frame->request, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

static void read_open(const struct bop_wire_frame *frame, struct bop_session_start_request *out)
{
    struct bop_session_open_request open;

    if (frame->kind == BOP_WIRE_KIND_SESSION_START_REQUEST) {
        CHECK_EQ(bop_session_start_request_decode(frame->payload, out), 0);
        return;
    }
    CHECK_EQ(bop_session_open_request_decode(frame->payload, &open), 0);
    out->timeout_ms = open.timeout_ms;
    memcpy(out->token, open.token, BOP_TOKEN_SIZE);
}

static void answer_open(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    struct fake_node *node = connection->node;
    struct fake_cluster *cluster = node->cluster;
    bool start = frame->kind == BOP_WIRE_KIND_SESSION_START_REQUEST;
    struct bop_session_start_request request = {0};
    struct bop_session_start_response response = {.timeout_ms = cluster->session_timeout_ms};
    struct fake_session *session;
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    node->opens++;
    read_open(frame, &request);
    cluster->grace_ms = response.grace_ms = request.grace_ms;
    if (node->open_retry) {
        node->open_retry--;
        response.status = BOP_STATUS_RETRY;
    } else if (start && cluster->old) {
        response.status = BOP_STATUS_TOO_OLD;
    } else {
        response.session = ++cluster->session_count;
        BOP_ASSERT(response.session <= FAKE_SESSIONS);
        session = &cluster->sessions[response.session];
        session->open = true;
        memcpy(session->token, request.token, BOP_TOKEN_SIZE);
        session->replies = (struct fake_reply *)bop_alloc_array(
            bop_allocator_default(), FAKE_SEQUENCE_MAX, sizeof(*session->replies));
        BOP_ASSERT(session->replies);
    }
    bop_buf_init(&buf, NULL, 0);
    if (start) {
        bop_session_start_response_encode(&writer, &response);
    } else {
        bop_session_open_response_encode(
            &writer, &(struct bop_session_open_response){.status = response.status,
                                                         .session = response.session,
                                                         .timeout_ms = response.timeout_ms});
    }
    answer(connection->tcp, (enum bop_wire_kind)(frame->kind + 1), frame->request,
           bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

static struct fake_session *find_session(struct fake_cluster *cluster, uint64_t id)
{
    if (id == 0 || id > cluster->session_count || !cluster->sessions[id].open) {
        return NULL;
    }
    return &cluster->sessions[id];
}

static void answer_token(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    struct fake_node *node = connection->node;
    struct bop_session_request request;
    struct fake_session *session;
    uint8_t status = BOP_STATUS_OK;

    CHECK_EQ(bop_session_request_decode(frame->payload, &request), 0);
    session = find_session(node->cluster, request.session);
    if (!session) {
        status = BOP_STATUS_NO_SESSION;
    } else {
        CHECK_MEM_EQ(session->token, request.token, BOP_TOKEN_SIZE);
    }
    if (frame->kind == BOP_WIRE_KIND_SESSION_CLOSE_REQUEST) {
        node->closes++;
        if (session) {
            session->open = false;
        }
    } else {
        node->resumes++;
    }
    answer_status(connection->tcp, (enum bop_wire_kind)(frame->kind + 1), frame->request, status);
}

static void answer_alive(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    uint64_t id;

    connection->node->alives++;
    CHECK_EQ(bop_session_alive_request_decode(frame->payload, &id), 0);
    answer_status(connection->tcp, BOP_WIRE_KIND_SESSION_ALIVE_RESPONSE, frame->request,
                  find_session(connection->node->cluster, id) ? BOP_STATUS_OK
                                                              : BOP_STATUS_NO_SESSION);
}

/* ---- The model ---- */

static void execute(struct fake_cluster *cluster, const struct bop_operation *operation,
                    struct fake_reply *out_reply)
{
    struct bop_result result = {.status = BOP_STATUS_OK};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    cluster->executed++;
    if (operation->op == BOP_OP_COUNTER_ADD) {
        cluster->counter += operation->delta;
        result.number = cluster->counter;
    } else if (operation->op == BOP_OP_MAP_PUT && operation->condition == BOP_IF_ABSENT) {
        result.status = BOP_STATUS_CONDITION;
        result.version = 77;
    } else if (operation->op == BOP_OP_MAP_PUT) {
        cluster->last_put_size = bop_min_u64(operation->value.size, sizeof(cluster->last_put));
        memcpy(cluster->last_put, operation->value.data, cluster->last_put_size);
        result.version = cluster->executed;
    } else if (operation->op == BOP_OP_SET_ADD || operation->op == BOP_OP_MULTIMAP_PUT) {
        result.existed = true;
    } else if (operation->op == BOP_OP_MEMBER_JOIN && cluster->taken > 0) {
        cluster->taken--;
        result.status = BOP_STATUS_CONDITION;
        result.version = 77;
    } else if (operation->op == BOP_OP_MEMBER_JOIN) {
        cluster->members++;
        result.version = cluster->executed;
    } else if (operation->op == BOP_OP_MEMBER_LEAVE) {
        cluster->members--;
        result.existed = true;
    } else if (operation->op == BOP_OP_REGISTRATION_ADD_ALL) {
        cluster->bulks++;
        cluster->registrations += operation->count;
        result.size = operation->count;
    } else if (operation->op == BOP_OP_LOCK_ACQUIRE) {
        result.ticket = cluster->executed; /* It waits. */
        result.position = 1;
    } else if (operation->op == BOP_OP_REGISTRATION_REMOVE) {
        cluster->removed++;
        result.existed = true;
    }
    bop_buf_init(&buf, NULL, 0);
    bop_result_encode(&writer, operation->op, &result);
    BOP_ASSERT(buf.size <= sizeof(out_reply->result));
    out_reply->done = true;
    out_reply->status = result.status;
    out_reply->result_size = buf.size;
    memcpy(out_reply->result, buf.data, buf.size);
    bop_buf_deinit(&buf);
}

/* Find the reply of a write, by executing it if it is new. NULL: no such session. */
static struct fake_reply *apply(struct fake_cluster *cluster,
                                const struct bop_write_request *request)
{
    struct fake_session *session = find_session(cluster, request->session);
    struct bop_operation operation;
    struct fake_reply *reply;

    if (!session) {
        return NULL;
    }
    CHECK(request->acked >= session->acked);
    CHECK(request->sequence > request->acked);
    BOP_ASSERT(request->sequence > 0 && request->sequence < FAKE_SEQUENCE_MAX);
    session->acked = bop_max_u64(session->acked, request->acked);
    session->sequence_max = bop_max_u64(session->sequence_max, request->sequence);
    reply = &session->replies[request->sequence];
    if (reply->done) {
        CHECK_EQ(reply->operation_hash, hash(request->operation));
        return reply;
    }
    CHECK_EQ(bop_operation_decode(request->operation, &operation), 0);
    reply->operation_hash = hash(request->operation);
    execute(cluster, &operation, reply);
    return reply;
}

static void write_reply(struct fake_connection *connection, uint32_t request,
                        const struct fake_reply *reply)
{
    uint8_t payload[32];
    size_t size = 1 + reply->result_size;

    payload[0] = reply->status;
    memcpy(payload + 1, reply->result, reply->result_size);
    if (connection->node->cut_results) {
        size--;
    }
    answer(connection->tcp, BOP_WIRE_KIND_WRITE_RESPONSE, request, bop_slice(payload, size));
}

/* The n-th from now? */
static bool counts_down(unsigned *knob)
{
    return *knob > 0 && --*knob == 0;
}

/* Knobs that concern reads and writes alike. True: that was the answer. */
static bool interfere(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    struct fake_node *node = connection->node;

    if (counts_down(&node->drop_before)) {
        bop_socket_close(connection->tcp);
    } else if (counts_down(&node->garbage)) {
        CHECK_EQ(bop_socket_write(connection->tcp, bytes("HTTP/1.1 400 Bad Request\r\n\r\n")), 0);
    } else if (node->retry) {
        node->retry--;
        answer_status(connection->tcp, (enum bop_wire_kind)(frame->kind + 1), frame->request,
                      BOP_STATUS_RETRY);
    } else if (node->busy) {
        node->busy--;
        answer_status(connection->tcp, (enum bop_wire_kind)(frame->kind + 1), frame->request,
                      BOP_STATUS_BUSY);
    } else {
        return false;
    }
    return true;
}

/* To somebody who showed no token, or one without the right. */
static void deny(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    struct bop_session_open_response opened = {.status = BOP_STATUS_DENIED};
    enum bop_wire_kind kind = (enum bop_wire_kind)(frame->kind + 1);
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    if (frame->kind == BOP_WIRE_KIND_SESSION_OPEN_REQUEST) {
        bop_session_open_response_encode(&writer, &opened);
    } else if (frame->kind == BOP_WIRE_KIND_READ_REQUEST ||
               frame->kind == BOP_WIRE_KIND_WRITE_REQUEST) {
        bop_write_u8(&writer, BOP_STATUS_DENIED);
        bop_write_bytes(&writer, bytes("show me something"));
    } else {
        kind = BOP_WIRE_KIND_ERROR_RESPONSE;
        bop_write_u8(&writer, 1);
        bop_write_bytes(&writer, bytes("access denied: show me anything"));
    }
    answer(connection->tcp, kind, frame->request, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

static void answer_write(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    struct fake_node *node = connection->node;
    struct bop_write_request request;
    struct fake_reply *reply;
    uint8_t half[20] = {0};

    node->writes++;
    node->last_request = frame->request;
    node->last_tcp = connection->tcp;
    CHECK_EQ(bop_write_request_decode(frame->payload, &request), 0);
    if (interfere(connection, frame)) {
        return;
    }
    if (node->no_room) {
        node->no_room--;
        answer_status(connection->tcp, BOP_WIRE_KIND_WRITE_RESPONSE, frame->request,
                      BOP_STATUS_NO_ROOM);
        return;
    }
    if (node->denied) {
        node->denied--;
        deny(connection, frame);
        return;
    }
    if (node->no_session) {
        node->no_session--;
        node->cluster->sessions[request.session].open = false;
    }
    reply = apply(node->cluster, &request);
    if (!reply) {
        answer_status(connection->tcp, BOP_WIRE_KIND_WRITE_RESPONSE, frame->request,
                      BOP_STATUS_NO_SESSION);
    } else if (counts_down(&node->drop_after)) {
        bop_socket_close(connection->tcp);
    } else if (counts_down(&node->drop_within)) {
        bop_store_u32(half + 4, 40);
        half[8] = 1;
        half[9] = BOP_WIRE_RESPONSE;
        bop_store_u16(half + 10, BOP_WIRE_KIND_WRITE_RESPONSE);
        CHECK_EQ(bop_socket_write(connection->tcp, bop_slice(half, sizeof(half))), 0);
        bop_socket_close_after_flush(connection->tcp, 1000);
    } else if (!node->mute) {
        write_reply(connection, frame->request, reply);
    }
}

static void answer_read(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    struct fake_node *node = connection->node;
    struct bop_read_request request;
    struct bop_operation operation;
    struct bop_result result = {.version = 5, .value = bytes("seen")};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    node->reads++;
    CHECK_EQ(bop_read_request_decode(frame->payload, &request), 0);
    CHECK_EQ(bop_operation_decode(request.operation, &operation), 0);
    if (interfere(connection, frame) || node->mute) {
        return;
    }
    result.number = node->cluster->counter;
    result.size = 3;
    bop_buf_init(&buf, NULL, 0);
    bop_write_u8(&writer, node->read_status);
    if (node->read_status == BOP_STATUS_OK) {
        bop_result_encode(&writer, operation.op, &result);
    }
    answer(connection->tcp, BOP_WIRE_KIND_READ_RESPONSE, frame->request, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

static void answer_node_status(struct fake_connection *connection,
                               const struct bop_wire_frame *frame)
{
    struct bop_status_response status = {.node = connection->node->id,
                                         .health = bytes("ok"),
                                         .leader = connection->node->cluster->leader};
    const struct fake_node *nodes = connection->node->cluster->nodes;
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    for (unsigned i = 0; i < FAKE_NODES && nodes[i].port; i++) {
        status.peers[i].id = i + 1;
        status.peers[i].address = bop_slice_cstr(nodes[i].address);
        status.peer_count++;
    }
    bop_buf_init(&buf, NULL, 0);
    bop_status_response_encode(&writer, &status);
    answer(connection->tcp, BOP_WIRE_KIND_STATUS_RESPONSE, frame->request, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

static void answer_auth(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    struct fake_node *node = connection->node;
    uint8_t status = BOP_STATUS_OK;

    node->auths++;
    if (node->token && !bop_slice_equal(frame->payload, bop_slice_cstr(node->token))) {
        status = BOP_STATUS_DENIED;
    }
    connection->known = status == BOP_STATUS_OK;
    answer(connection->tcp, BOP_WIRE_KIND_AUTH_RESPONSE, frame->request, bop_slice(&status, 1));
}

/* Nothing but no. */
static void answer_operator(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    if (!interfere(connection, frame)) {
        REQUIRE(connection->node->denied > 0);
        connection->node->denied--;
        deny(connection, frame);
    }
}

static void take(struct fake_connection *connection, const struct bop_wire_frame *frame)
{
    if (connection->node->silent) {
        return;
    }
    CHECK(connection->greeted || frame->kind == BOP_WIRE_KIND_HELLO_REQUEST ||
          frame->kind == BOP_WIRE_KIND_AUTH_REQUEST);
    if (connection->node->token && !connection->known &&
        frame->kind != BOP_WIRE_KIND_HELLO_REQUEST && frame->kind != BOP_WIRE_KIND_AUTH_REQUEST) {
        deny(connection, frame);
        return;
    }
    switch (frame->kind) {
    case BOP_WIRE_KIND_AUTH_REQUEST:
        answer_auth(connection, frame);
        break;
    case BOP_WIRE_KIND_HELLO_REQUEST:
        answer_hello(connection, frame);
        break;
    case BOP_WIRE_KIND_SESSION_OPEN_REQUEST:
    case BOP_WIRE_KIND_SESSION_START_REQUEST:
        answer_open(connection, frame);
        break;
    case BOP_WIRE_KIND_SESSION_RESUME_REQUEST:
    case BOP_WIRE_KIND_SESSION_CLOSE_REQUEST:
        answer_token(connection, frame);
        break;
    case BOP_WIRE_KIND_SESSION_ALIVE_REQUEST:
        answer_alive(connection, frame);
        break;
    case BOP_WIRE_KIND_WRITE_REQUEST:
        answer_write(connection, frame);
        break;
    case BOP_WIRE_KIND_READ_REQUEST:
        answer_read(connection, frame);
        break;
    case BOP_WIRE_KIND_STATUS_REQUEST:
        answer_node_status(connection, frame);
        break;
    case BOP_WIRE_KIND_WATCH_OPEN_REQUEST:
    case BOP_WIRE_KIND_WATCH_CLOSE_REQUEST:
    case BOP_WIRE_KIND_WATCH_ACK:
        REQUIRE(connection->node->cluster->on_watch != NULL);
        connection->node->cluster->on_watch(connection->node->cluster->watch_user, connection->node,
                                            connection->tcp, frame);
        break;
    case BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST:
    case BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST:
        answer_operator(connection, frame);
        break;
    default:
        CHECK(!"a kind that clients send");
    }
}

/* ---- Connections ---- */

static size_t on_data(struct bop_socket *tcp, void *user, struct bop_slice data)
{
    struct fake_connection *connection = (struct fake_connection *)user;
    size_t used = 0;

    /* NULL once closed: what is behind is lost. */
    while (bop_socket_output(tcp)) {
        struct bop_wire_frame frame;
        size_t size;
        int rc = bop_wire_parse(bop_slice(data.data + used, data.size - used), 0, &frame, &size,
                                NULL);

        if (rc == BOP_EAGAIN) {
            return used;
        }
        if (rc < 0) {
            CHECK_EQ(rc, 0);
            bop_socket_close(tcp);
            return data.size;
        }
        used += size;
        take(connection, &frame);
    }
    return data.size;
}

static void on_close(struct bop_socket *tcp, void *user, int reason)
{
    struct fake_connection *connection = (struct fake_connection *)user;

    connection->node->connection_count--;
    if (connection->node->last_tcp == tcp) {
        connection->node->last_tcp = NULL;
    }
    bop_list_remove(&connection->link);
    bop_free(bop_allocator_default(), connection, sizeof(*connection));
}

static const struct bop_socket_events events = {.on_data = on_data, .on_close = on_close};

static bool on_accept(struct bop_listener *listener, struct bop_socket *tcp, void *user)
{
    struct fake_node *node = (struct fake_node *)user;
    struct fake_connection *connection = (struct fake_connection *)bop_alloc_zeroed(
        bop_allocator_default(), sizeof(*connection));

    BOP_ASSERT(connection);
    connection->node = node;
    connection->tcp = tcp;
    bop_list_push_back(&node->connections, &connection->link);
    node->connection_count++;
    bop_socket_attach(tcp, &events, connection);
    return true;
}

void fake_cluster_start(struct fake_cluster *cluster, struct bop_loop *loop, unsigned nodes)
{
    *cluster = (struct fake_cluster){.loop = loop, .leader = 1, .session_timeout_ms = 3000};
    for (unsigned i = 0; i < nodes; i++) {
        struct fake_node *node = &cluster->nodes[i];
        struct bop_listen_options options = {.on_accept = on_accept, .user = node};

        node->cluster = cluster;
        node->id = i + 1;
        node->name = "test";
        bop_list_init(&node->connections);
        REQUIRE_EQ(bop_listen(loop, &options, &node->listener, NULL), 0);
        node->port = bop_listener_port(node->listener);
        snprintf(node->address, sizeof(node->address), "127.0.0.1:%u", node->port);
    }
}

void fake_node_drop(struct fake_node *node)
{
    BOP_LIST_FOR_EACH_SAFE(link, &node->connections) {
        bop_socket_close(BOP_CONTAINER_OF(link, struct fake_connection, link)->tcp);
    }
}

void fake_node_kill(struct fake_node *node)
{
    if (node->listener) {
        bop_listener_close(node->listener);
        node->listener = NULL;
        fake_node_drop(node);
    }
}

void fake_cluster_stop(struct fake_cluster *cluster)
{
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        fake_node_kill(&cluster->nodes[i]);
    }
    for (unsigned i = 1; i <= FAKE_SESSIONS; i++) {
        struct fake_session *session = &cluster->sessions[i];

        if (session->replies) {
            bop_free(bop_allocator_default(), session->replies,
                     FAKE_SEQUENCE_MAX * sizeof(*session->replies));
            session->replies = NULL;
        }
        session->open = false;
    }
}

void fake_node_answer_last(struct fake_node *node)
{
    uint8_t payload[9] = {BOP_STATUS_OK, 1};

    REQUIRE(node->last_tcp != NULL);
    answer(node->last_tcp, BOP_WIRE_KIND_WRITE_RESPONSE, node->last_request,
           bop_slice(payload, sizeof(payload)));
}
