#include <stdlib.h>

#include <bop/sim.h>

#include "service.h"

#include "replica_help.h"
#include "service_internal.h"

#define VERSION "9.9"

/* A client's end of a connection. */
struct peer {
    struct service_conn *conn;
    struct bop_buf in; /* What the service has sent. */
    unsigned flushes;
    unsigned resumes;
    unsigned closes;
    bool stuck; /* Over its bound: no output to be had. */
};

struct fixture {
    struct world w;
    struct service *service;
    struct peer peer;
    struct bop_buf payload;
};

static struct bop_buf *peer_output(void *user)
{
    struct peer *peer = user;

    return peer->stuck ? NULL : &peer->in;
}

static void peer_flush(void *user)
{
    ((struct peer *)user)->flushes++;
}

static void peer_resume(void *user)
{
    ((struct peer *)user)->resumes++;
}

static void peer_close(void *user)
{
    ((struct peer *)user)->closes++;
}

static const struct service_io io = {
    .output = peer_output, .flush = peer_flush, .resume = peer_resume, .close = peer_close};

static int connect_peer(struct fixture *f, struct peer *peer)
{
    memset(peer, 0, sizeof(*peer));
    bop_buf_init(&peer->in, &f->w.heap.allocator, 0);
    return bop__service_connect(f->service, &io, peer, &peer->conn);
}

static void disconnect_peer(struct peer *peer)
{
    if (peer->conn) {
        bop__service_disconnect(peer->conn);
        peer->conn = NULL;
    }
    bop_buf_deinit(&peer->in);
}

static int start_service(struct fixture *f)
{
    struct service_options options = {
        .allocator = &f->w.heap.allocator,
        .clock = &f->w.clock,
        .replica = f->w.replica,
        .cluster = "blue",
        .version = VERSION,
        .node = 1,
    };

    return bop__service_create(&options, &f->service);
}

static void setup(struct fixture *f)
{
    world_init(&f->w);
    bop_buf_init(&f->payload, NULL, 0);
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE(world_settle(&f->w));
    REQUIRE_EQ(start_service(f), 0);
    REQUIRE_EQ(connect_peer(f, &f->peer), 0);
}

static void teardown(struct fixture *f)
{
    f->w.faults.fail_at = 0;
    disconnect_peer(&f->peer);
    world_close(&f->w);
    bop__service_destroy(f->service);
    bop_buf_deinit(&f->payload);
    world_deinit(&f->w);
}

FIXTURE(setup, teardown)

/* ---- Asking ---- */

static struct bop_writer begin(struct fixture *f)
{
    bop_buf_clear(&f->payload);
    return bop_writer(&f->payload);
}

/* Give the payload made last as a request to the service. */
static int ask(struct fixture *f, enum bop_wire_kind kind, uint32_t request)
{
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST,
                                   .kind = kind,
                                   .request = request,
                                   .payload = bop_buf_slice(&f->payload)};

    return bop__service_frame(f->peer.conn, &frame);
}

/* Take the first response off. Returns the status, its first byte; the rest of the payload
 * is borrowed until the next take. */
static struct bop_wire_frame take(struct fixture *f)
{
    static uint8_t copy[BOP_WIRE_FRAME_MAX];
    struct bop_wire_frame frame = {0};
    size_t used;

    REQUIRE_EQ(bop_wire_parse(bop_buf_slice(&f->peer.in), 0, &frame, &used, NULL), 0);
    REQUIRE(frame.payload.size <= sizeof(copy));
    if (frame.payload.size > 0) {
        memcpy(copy, frame.payload.data, frame.payload.size);
    }
    frame.payload.data = copy;
    bop_buf_consume(&f->peer.in, used);
    return frame;
}

/* Run until there is an answer, and take it: of this kind, for this request. */
static struct bop_slice answer(struct fixture *f, enum bop_wire_kind kind, uint32_t request)
{
    struct bop_wire_frame frame;

    for (unsigned n = 0; n < WORLD_TURNS && f->peer.in.size == 0; n++) {
        world_run(&f->w, 1);
    }
    frame = take(f);
    CHECK_EQ(frame.kind, kind);
    CHECK_EQ(frame.request, request);
    CHECK_EQ(frame.flags, BOP_WIRE_RESPONSE);
    return frame.payload;
}

static uint8_t answered_status(struct fixture *f, enum bop_wire_kind kind, uint32_t request)
{
    struct bop_slice payload = answer(f, kind, request);

    REQUIRE(payload.size > 0);
    return payload.data[0];
}

/* ---- Sessions ---- */

static const uint8_t token[BOP_TOKEN_SIZE] = "0123456789abcdef";

static struct bop_session_open_response open_session(struct fixture *f, uint32_t timeout_ms)
{
    struct bop_session_open_request in = {.timeout_ms = timeout_ms};
    struct bop_session_open_response out = {0};
    struct bop_writer w = begin(f);

    memcpy(in.token, token, sizeof(token));
    bop_session_open_request_encode(&w, &in);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_SESSION_OPEN_REQUEST, 1), 0);
    REQUIRE_EQ(
        bop_session_open_response_decode(answer(f, BOP_WIRE_KIND_SESSION_OPEN_RESPONSE, 1), &out),
        0);
    return out;
}

static uint8_t about_session(struct fixture *f, enum bop_wire_kind kind, uint64_t session,
                             const char *with_token)
{
    struct bop_session_request in = {.session = session};
    struct bop_writer w = begin(f);

    memcpy(in.token, with_token, sizeof(in.token));
    bop_session_request_encode(&w, &in);
    REQUIRE_EQ(ask(f, kind, 2), 0);
    return answered_status(f, (enum bop_wire_kind)(kind + 1), 2);
}

static uint8_t alive(struct fixture *f, uint64_t session)
{
    struct bop_writer w = begin(f);

    bop_session_alive_request_encode(&w, session);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_SESSION_ALIVE_REQUEST, 3), 0);
    return answered_status(f, BOP_WIRE_KIND_SESSION_ALIVE_RESPONSE, 3);
}

TEST(service, opens_a_session)
{
    struct bop_session_open_response opened = open_session(f, 5000);

    CHECK_EQ(opened.status, BOP_STATUS_OK);
    CHECK(opened.session > 0);
    CHECK_EQ(opened.timeout_ms, 5000);
    CHECK_EQ(alive(f, opened.session), BOP_STATUS_OK);
}

TEST(service, grants_timeouts_within_bounds)
{
    CHECK_EQ(open_session(f, 0).timeout_ms, MACHINE_SESSION_TIMEOUT_MIN_MS);
    CHECK_EQ(open_session(f, UINT32_MAX).timeout_ms, MACHINE_SESSION_TIMEOUT_MAX_MS);
}

TEST(service, resumes_a_session_by_its_token_only)
{
    uint64_t session = open_session(f, 5000).session;

    CHECK_EQ(about_session(f, BOP_WIRE_KIND_SESSION_RESUME_REQUEST, session, "0123456789abcdef"),
             BOP_STATUS_OK);
    CHECK_EQ(about_session(f, BOP_WIRE_KIND_SESSION_RESUME_REQUEST, session, "0123456789abcdeF"),
             BOP_STATUS_REFUSED);
    CHECK_EQ(
        about_session(f, BOP_WIRE_KIND_SESSION_RESUME_REQUEST, session + 1, "0123456789abcdef"),
        BOP_STATUS_NO_SESSION);
}

TEST(service, closes_a_session)
{
    uint64_t session = open_session(f, 5000).session;

    CHECK_EQ(about_session(f, BOP_WIRE_KIND_SESSION_CLOSE_REQUEST, session, "0123456789abcdeF"),
             BOP_STATUS_REFUSED);
    CHECK_EQ(alive(f, session), BOP_STATUS_OK);
    CHECK_EQ(about_session(f, BOP_WIRE_KIND_SESSION_CLOSE_REQUEST, session, "0123456789abcdef"),
             BOP_STATUS_OK);
    CHECK_EQ(alive(f, session), BOP_STATUS_NO_SESSION);
    CHECK_EQ(about_session(f, BOP_WIRE_KIND_SESSION_RESUME_REQUEST, session, "0123456789abcdef"),
             BOP_STATUS_NO_SESSION);
}

TEST(service, lets_a_silent_session_expire)
{
    uint64_t silent = open_session(f, 1000).session;
    uint64_t loud = open_session(f, 1000).session;

    for (int n = 0; n < 4; n++) {
        world_run(&f->w, 400);
        CHECK_EQ(alive(f, loud), BOP_STATUS_OK);
    }
    /* Asking about it would be a sign of life. */
    CHECK(!bop__machine_session_check(f->w.replica->machine, silent, NULL));
    CHECK_EQ(alive(f, silent), BOP_STATUS_NO_SESSION);
}

static struct bop_session_start_response start_session(struct fixture *f, uint32_t timeout_ms,
                                                       uint32_t grace_ms)
{
    struct bop_session_start_request in = {.timeout_ms = timeout_ms, .grace_ms = grace_ms};
    struct bop_session_start_response out = {0};
    struct bop_writer w = begin(f);

    memcpy(in.token, token, sizeof(token));
    bop_session_start_request_encode(&w, &in);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_SESSION_START_REQUEST, 1), 0);
    REQUIRE_EQ(
        bop_session_start_response_decode(answer(f, BOP_WIRE_KIND_SESSION_START_RESPONSE, 1), &out),
        0);
    return out;
}

static uint8_t resume(struct fixture *f, uint64_t session)
{
    return about_session(f, BOP_WIRE_KIND_SESSION_RESUME_REQUEST, session, (const char *)token);
}

/* The client's process dies. */
static void break_peer(struct peer *peer)
{
    bop__service_cut(peer->conn);
    disconnect_peer(peer);
}

TEST(service, ends_a_session_after_its_grace_when_its_connection_breaks)
{
    struct bop_session_start_response opened = start_session(f, 60000, 1000);
    uint64_t plain = start_session(f, 60000, 0).session;

    CHECK_EQ(opened.status, BOP_STATUS_OK);
    CHECK_EQ(opened.timeout_ms, 60000);
    CHECK_EQ(opened.grace_ms, 1000);
    CHECK_EQ(start_session(f, 2000, 60000).grace_ms, 2000);
    CHECK_EQ(resume(f, opened.session), BOP_STATUS_OK);
    world_run(&f->w, 5000); /* Silent, but there. */
    break_peer(&f->peer);
    world_run(&f->w, 800);
    REQUIRE_EQ(connect_peer(f, &f->peer), 0);
    CHECK_EQ(resume(f, opened.session), BOP_STATUS_OK); /* In time. */
    world_run(&f->w, 5000);
    CHECK(bop__machine_session_check(f->w.replica->machine, opened.session, NULL));
    CHECK_EQ(resume(f, plain), BOP_STATUS_OK); /* Now the connection is this one's. */
    CHECK_EQ(resume(f, opened.session), BOP_STATUS_OK);
    break_peer(&f->peer);
    world_run(&f->w, 1000 + 3 * HOUSEKEEPING_MS);
    CHECK(!bop__machine_session_check(f->w.replica->machine, opened.session, NULL));
    CHECK(bop__machine_session_check(f->w.replica->machine, plain, NULL));
    REQUIRE_EQ(connect_peer(f, &f->peer), 0);
}

/* The old connection is found broken after the client came back on another one. */
TEST(service, takes_nobody_who_came_back_for_gone)
{
    uint64_t session = start_session(f, 60000, 1000).session;
    struct peer old = f->peer;

    /* The service writes to whom it was given. */
    old.conn->user = &old;
    REQUIRE_EQ(connect_peer(f, &f->peer), 0);
    CHECK_EQ(resume(f, session), BOP_STATUS_OK);
    break_peer(&old);
    world_run(&f->w, 5000);
    CHECK(bop__machine_session_check(f->w.replica->machine, session, NULL));
}

/* More than the table of sessions has room for at first, ended in another order. */
TEST(service, knows_each_connections_session)
{
    enum { PEERS = 200 };
    uint64_t sessions[PEERS];
    struct peer *peers = calloc(PEERS, sizeof(*peers));
    struct peer mine = f->peer;

    REQUIRE(peers);
    for (size_t i = 0; i < PEERS; i++) {
        REQUIRE_EQ(connect_peer(f, &f->peer), 0);
        sessions[i] = start_session(f, 60000, 1000).session;
        peers[i] = f->peer;
        peers[i].conn->user = &peers[i];
    }
    f->peer = mine;
    for (size_t i = 0; i < PEERS; i++) {
        size_t at = i * 77 % PEERS; /* 77 and 200 have no factor in common. */

        if (at % 2 == 0) {
            break_peer(&peers[at]);
        } else {
            disconnect_peer(&peers[at]); /* As when the node closes. */
        }
    }
    world_run(&f->w, 1000 + 3 * HOUSEKEEPING_MS);
    for (size_t i = 0; i < PEERS; i++) {
        CHECK_EQ(bop__machine_session_check(f->w.replica->machine, sessions[i], NULL), i % 2 == 1);
    }
    free(peers);
}

/* ---- Writes ---- */

static void encode_add(struct fixture *f, uint64_t session, uint64_t sequence, uint64_t acked,
                       int64_t delta)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_ADD, .name = bytes("c"), .delta = delta};
    struct bop_write_request in = {.session = session, .sequence = sequence, .acked = acked};
    struct bop_buf buf;
    struct bop_writer w = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop_operation_encode(&w, &operation);
    in.operation = bop_buf_slice(&buf);
    w = begin(f);
    bop_write_request_encode(&w, &in);
    REQUIRE_EQ(w.code, 0);
    bop_buf_deinit(&buf);
}

/* The status of an addition, and in *out_value what the counter stands at then. */
static uint8_t add(struct fixture *f, uint64_t session, uint64_t sequence, uint64_t acked,
                   int64_t delta, int64_t *out_value)
{
    struct bop_slice payload;

    encode_add(f, session, sequence, acked, delta);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_WRITE_REQUEST, 7), 0);
    payload = answer(f, BOP_WIRE_KIND_WRITE_RESPONSE, 7);
    REQUIRE(payload.size > 0);
    *out_value = payload.size == 9 ? (int64_t)bop_load_u64(payload.data + 1) : 0;
    return payload.data[0];
}

TEST(service, writes_without_a_session)
{
    int64_t value;

    CHECK_EQ(add(f, 0, 0, 0, 5, &value), BOP_STATUS_OK);
    CHECK_EQ(value, 5);
    CHECK_EQ(add(f, 0, 0, 0, -7, &value), BOP_STATUS_OK);
    CHECK_EQ(value, -2);
}

TEST(service, repeats_the_reply_of_a_write_it_has_done)
{
    uint64_t session = open_session(f, 60000).session;
    int64_t value;

    CHECK_EQ(add(f, session, 1, 0, 5, &value), BOP_STATUS_OK);
    CHECK_EQ(add(f, session, 2, 0, 5, &value), BOP_STATUS_OK);
    CHECK_EQ(value, 10);
    CHECK_EQ(add(f, session, 1, 0, 5, &value), BOP_STATUS_OK);
    CHECK_EQ(value, 5); /* As it was answered then. */
    CHECK_EQ(add(f, session, 3, 2, 5, &value), BOP_STATUS_OK);
    CHECK_EQ(value, 15);
    CHECK_EQ(add(f, session, 1, 0, 5, &value), BOP_STATUS_STALE); /* It said that it has it. */
    CHECK_EQ(add(f, session + 1, 1, 0, 5, &value), BOP_STATUS_NO_SESSION);
    CHECK_EQ(world_counter(&f->w), 15);
}

TEST(service, answers_two_duplicates_on_their_way_alike)
{
    uint64_t session = open_session(f, 60000).session;
    struct bop_slice payload;

    encode_add(f, session, 1, 0, 5);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_WRITE_REQUEST, 1), 0);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_WRITE_REQUEST, 2), 0);
    for (uint32_t request = 1; request <= 2; request++) {
        payload = answer(f, BOP_WIRE_KIND_WRITE_RESPONSE, request);
        REQUIRE_EQ(payload.size, 9);
        CHECK_EQ(payload.data[0], BOP_STATUS_OK);
        CHECK_EQ(bop_load_u64(payload.data + 1), 5);
    }
    CHECK_EQ(world_counter(&f->w), 5);
}

TEST(service, keeps_a_window_of_replies_only)
{
    uint64_t session = open_session(f, 60000).session;
    int64_t value;

    CHECK_EQ(add(f, session, MACHINE_WINDOW_MAX, 0, 1, &value), BOP_STATUS_OK);
    CHECK_EQ(add(f, session, MACHINE_WINDOW_MAX + 1, 0, 1, &value), BOP_STATUS_BUSY);
    CHECK_EQ(add(f, session, MACHINE_WINDOW_MAX + 1, 1, 1, &value), BOP_STATUS_OK);
    CHECK_EQ(value, 2);
}

static uint8_t write_raw(struct fixture *f, struct bop_slice operation)
{
    struct bop_write_request in = {.operation = operation};
    struct bop_writer w = begin(f);

    bop_write_request_encode(&w, &in);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_WRITE_REQUEST, 8), 0);
    return answered_status(f, BOP_WIRE_KIND_WRITE_RESPONSE, 8);
}

TEST(service, refuses_writes_that_make_no_sense)
{
    struct bop_operation read = {.op = BOP_OP_COUNTER_GET, .name = bytes("c")};
    struct bop_buf buf;
    struct bop_writer w = bop_writer(&buf);
    uint64_t last = bop_aof_last(f->w.replica->aof);

    bop_buf_init(&buf, NULL, 0);
    bop_operation_encode(&w, &read);
    CHECK_EQ(write_raw(f, bop_buf_slice(&buf)), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(write_raw(f, bytes("")), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(write_raw(f, bytes("\x01hello")), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(bop_aof_last(f->w.replica->aof), last); /* None became an entry. */
    bop_buf_deinit(&buf);
}

TEST(service, refuses_writes_that_are_too_big)
{
    static uint8_t value[BOP_VALUE_MAX + 1];
    struct bop_operation put = {
        .op = BOP_OP_MAP_PUT, .name = bytes("m"), .value = bop_slice(value, sizeof(value))};
    struct bop_buf buf;
    struct bop_writer w = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop_operation_encode(&w, &put);
    CHECK_EQ(write_raw(f, bop_buf_slice(&buf)), BOP_STATUS_TOO_BIG);
    bop_buf_deinit(&buf);
}

TEST(service, takes_no_write_while_the_disk_is_nearly_full)
{
    int64_t value;

    bop_fs_sim_set_capacity(f->w.disk, DISK_RESERVE / 2);
    world_run(&f->w, 2 * HOUSEKEEPING_MS);
    CHECK_EQ(add(f, 0, 0, 0, 1, &value), BOP_STATUS_NO_ROOM);
    bop_fs_sim_set_capacity(f->w.disk, 0);
    world_run(&f->w, 2 * HOUSEKEEPING_MS);
    CHECK_EQ(add(f, 0, 0, 0, 1, &value), BOP_STATUS_OK);
}

/* ---- Reads ---- */

static uint8_t get(struct fixture *f, enum bop_consistency consistency, int64_t *out_value)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_GET, .name = bytes("c")};
    struct bop_read_request in = {.consistency = consistency};
    struct bop_slice payload;
    struct bop_buf buf;
    struct bop_writer w = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop_operation_encode(&w, &operation);
    in.operation = bop_buf_slice(&buf);
    w = begin(f);
    bop_read_request_encode(&w, &in);
    bop_buf_deinit(&buf);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_READ_REQUEST, 9), 0);
    if (consistency == BOP_READ_STALE) {
        CHECK(f->peer.in.size > 0); /* At once, without asking anybody. */
    }
    payload = answer(f, BOP_WIRE_KIND_READ_RESPONSE, 9);
    *out_value = payload.size == 9 ? (int64_t)bop_load_u64(payload.data + 1) : 0;
    return payload.data[0];
}

TEST(service, reads_what_was_written)
{
    int64_t value;

    CHECK_EQ(get(f, BOP_READ_LINEARIZABLE, &value), BOP_STATUS_NOT_FOUND);
    CHECK_EQ(get(f, BOP_READ_STALE, &value), BOP_STATUS_NOT_FOUND);
    CHECK_EQ(add(f, 0, 0, 0, 5, &value), BOP_STATUS_OK);
    CHECK_EQ(get(f, BOP_READ_LINEARIZABLE, &value), BOP_STATUS_OK);
    CHECK_EQ(value, 5);
    CHECK_EQ(get(f, BOP_READ_STALE, &value), BOP_STATUS_OK);
    CHECK_EQ(value, 5);
}

static uint8_t read_raw(struct fixture *f, struct bop_slice operation)
{
    struct bop_read_request in = {.operation = operation};
    struct bop_writer w = begin(f);

    bop_read_request_encode(&w, &in);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_READ_REQUEST, 8), 0);
    return answered_status(f, BOP_WIRE_KIND_READ_RESPONSE, 8);
}

TEST(service, refuses_reads_that_make_no_sense)
{
    struct bop_operation write = {.op = BOP_OP_COUNTER_CREATE, .name = bytes("c")};
    struct bop_buf buf;
    struct bop_writer w = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop_operation_encode(&w, &write);
    CHECK_EQ(read_raw(f, bop_buf_slice(&buf)), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(read_raw(f, bytes("")), BOP_STATUS_BAD_REQUEST);
    CHECK_EQ(read_raw(f, bytes("\x50\xff\xff\xff\xff")), BOP_STATUS_BAD_REQUEST);
    bop_buf_deinit(&buf);
}

/* ---- Hello and status ---- */

static struct bop_hello_response hello(struct fixture *f, uint16_t protocol, const char *cluster)
{
    struct bop_hello_request in = {
        .protocol = protocol, .cluster = bytes(cluster), .client = bytes("test")};
    struct bop_hello_response out = {0};
    struct bop_writer w = begin(f);

    bop_hello_request_encode(&w, &in);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_HELLO_REQUEST, 4), 0);
    REQUIRE_EQ(bop_hello_response_decode(answer(f, BOP_WIRE_KIND_HELLO_RESPONSE, 4), &out), 0);
    return out;
}

TEST(service, says_who_it_is)
{
    struct bop_hello_response out = hello(f, 1, "blue");

    CHECK_EQ(out.status, BOP_STATUS_OK);
    CHECK_EQ(out.protocol, 1);
    CHECK_EQ(out.node, 1);
    CHECK_SLICE_EQ(out.cluster, bytes("blue"));
    CHECK_EQ(out.leader, 1);
    CHECK_SLICE_EQ(out.leader_address, bytes("host:1"));
    CHECK_SLICE_EQ(out.version, bytes(VERSION));
    CHECK_EQ(hello(f, 1, "").status, BOP_STATUS_OK);
    CHECK_EQ(f->peer.closes, 0);
}

TEST(service, refuses_another_cluster_or_protocol_and_closes)
{
    CHECK_EQ(hello(f, 1, "red").status, BOP_STATUS_REFUSED);
    CHECK_EQ(f->peer.closes, 1);
    CHECK_EQ(hello(f, 2, "blue").status, BOP_STATUS_REFUSED);
    CHECK_EQ(f->peer.closes, 2);
}

TEST(service, tells_its_status)
{
    struct bop_status_response out;
    int64_t value;

    CHECK_EQ(add(f, 0, 0, 0, 5, &value), BOP_STATUS_OK);
    open_session(f, 60000);
    f->w.now_us += 1234000;
    begin(f);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_STATUS_REQUEST, 5), 0);
    REQUIRE_EQ(bop_status_response_decode(answer(f, BOP_WIRE_KIND_STATUS_RESPONSE, 5), &out), 0);
    CHECK_EQ(out.node, 1);
    CHECK_SLICE_EQ(out.cluster, bytes("blue"));
    CHECK_SLICE_EQ(out.version, bytes(VERSION));
    CHECK_EQ(out.state, BOP_RAFT_LEADER);
    CHECK_EQ(out.leader, 1);
    CHECK_EQ(out.applied, f->w.replica->applied);
    CHECK_EQ(out.durable_index, out.applied);
    CHECK_EQ(out.first_index, 1);
    CHECK_EQ(out.sessions, 1);
    CHECK_EQ(out.clients, 1);
    CHECK(out.uptime_ms >= 1234);
    CHECK_SLICE_EQ(out.health, bytes("ok"));
    REQUIRE_EQ(out.peer_count, 1);
    CHECK_EQ(out.peers[0].id, 1);
    CHECK(out.peers[0].connected);
    CHECK(out.log_method.size > 0);
    CHECK_EQ(out.log_writes, 0);
    CHECK(out.log_writes_max >= 1);
}

/* ---- What breaks the protocol ---- */

TEST(service, closes_on_payloads_that_are_malformed)
{
    static const enum bop_wire_kind kinds[] = {
        BOP_WIRE_KIND_HELLO_REQUEST,          BOP_WIRE_KIND_SESSION_OPEN_REQUEST,
        BOP_WIRE_KIND_SESSION_RESUME_REQUEST, BOP_WIRE_KIND_SESSION_CLOSE_REQUEST,
        BOP_WIRE_KIND_SESSION_ALIVE_REQUEST,  BOP_WIRE_KIND_WRITE_REQUEST,
        BOP_WIRE_KIND_READ_REQUEST,           BOP_WIRE_KIND_STATUS_REQUEST,
    };

    for (size_t n = 0; n < BOP_COUNT_OF(kinds); n++) {
        begin(f);
        REQUIRE_EQ(bop_buf_append(&f->payload, "\xff", 1), 0);
        CHECK_EQ(ask(f, kinds[n], 1), BOP_EMALFORMED);
    }
    CHECK_EQ(f->peer.in.size, 0);
}

TEST(service, closes_on_kinds_that_are_no_requests)
{
    begin(f);
    CHECK_EQ(ask(f, BOP_WIRE_KIND_HELLO_RESPONSE, 1), BOP_EPROTOCOL);
    CHECK_EQ(ask(f, BOP_WIRE_KIND_PEER_RAFT, 1), BOP_EPROTOCOL);
    CHECK_EQ(ask(f, (enum bop_wire_kind)127, 1), BOP_EPROTOCOL);
    CHECK(ask(f, (enum bop_wire_kind)0, 1) < 0);
    CHECK_EQ(f->peer.in.size, 0);
}

/* ---- The prototype's kinds: payloads as they were on its wire ---- */

static void check_legacy(struct fixture *f, enum bop_wire_kind kind, struct bop_slice request,
                         enum bop_wire_kind answer_kind, struct bop_slice expected)
{
    begin(f);
    REQUIRE_EQ(bop_buf_append(&f->payload, request.data, request.size), 0);
    REQUIRE_EQ(ask(f, kind, 0x01020304), 0);
    CHECK_SLICE_EQ(answer(f, answer_kind, 0x01020304), expected);
}

#define LITERAL(text) bop_slice(text, sizeof(text) - 1)
#define LEGACY(name, request, reply)                                                               \
    check_legacy(f, BOP_WIRE_KIND_##name##_REQUEST, LITERAL(request),                              \
                 BOP_WIRE_KIND_##name##_RESPONSE, LITERAL(reply))

TEST(service_legacy, serves_maps)
{
    LEGACY(CREATE_MAP, "\1\0\0\0m", "\0\1\0\0\0m");
    LEGACY(CREATE_MAP, "\1\0\0\0m", "\0\1\0\0\0m"); /* Again is fine. */
    LEGACY(MAP_SIZE, "\1\0\0\0m", "\0\0\0\0\0\0\0\0\0");
    LEGACY(MAP_GET, "\1\0\0\0m\1\0\0\0k", "\0\0");
    LEGACY(MAP_PUT, "\1\0\0\0m\1\0\0\0k\2\0\0\0v1", "\0");
    LEGACY(MAP_GET, "\1\0\0\0m\1\0\0\0k", "\0\1\2\0\0\0v1");
    LEGACY(MAP_PUT, "\1\0\0\0m\1\0\0\0k\0\0\0\0", "\0");
    LEGACY(MAP_GET, "\1\0\0\0m\1\0\0\0k", "\0\1\0\0\0\0");
    LEGACY(MAP_PUT, "\1\0\0\0m\0\0\0\0\1\0\0\0v", "\0"); /* An empty key. */
    LEGACY(MAP_SIZE, "\1\0\0\0m", "\0\2\0\0\0\0\0\0\0");
    LEGACY(MAP_REMOVE, "\1\0\0\0m\1\0\0\0k", "\0");
    LEGACY(MAP_REMOVE, "\1\0\0\0m\1\0\0\0k", "\0");
    LEGACY(MAP_SIZE, "\1\0\0\0m", "\0\1\0\0\0\0\0\0\0");
    LEGACY(MAP_SIZE, "\4\0\0\0none", "\0\0\0\0\0\0\0\0\0");
    LEGACY(MAP_GET, "\4\0\0\0none\1\0\0\0k", "\0\0");
}

TEST(service_legacy, serves_counters)
{
    LEGACY(CREATE_COUNTER, "\1\0\0\0n", "\0\1\0\0\0n");
    LEGACY(COUNTER_GET, "\1\0\0\0n", "\0\0\0\0\0\0\0\0\0");
    LEGACY(COUNTER_INCREMENT, "\1\0\0\0n\5\0\0\0\0\0\0\0", "\0\5\0\0\0\0\0\0\0");
    LEGACY(COUNTER_INCREMENT, "\1\0\0\0n\xfa\xff\xff\xff\xff\xff\xff\xff",
           "\0\xff\xff\xff\xff\xff\xff\xff\xff"); /* -6 makes -1. */
    LEGACY(COUNTER_GET, "\1\0\0\0n", "\0\xff\xff\xff\xff\xff\xff\xff\xff");
    LEGACY(COUNTER_GET, "\4\0\0\0none", "\0\0\0\0\0\0\0\0\0");
}

TEST(service_legacy, serves_sets)
{
    LEGACY(CREATE_SET, "\1\0\0\0s", "\0\1\0\0\0s");
    LEGACY(CREATE_SET, "\1\0\0\0s", "\0\1\0\0\0s"); /* Again is fine. */
    LEGACY(SET_SIZE, "\1\0\0\0s", "\0\0\0\0\0\0\0\0\0");
    LEGACY(SET_CONTAINS, "\1\0\0\0s\1\0\0\0v", "\0\0");
    LEGACY(SET_ADD, "\1\0\0\0s\1\0\0\0v", "\0");
    LEGACY(SET_ADD, "\1\0\0\0s\1\0\0\0v", "\0"); /* It is there already. */
    LEGACY(SET_ADD, "\1\0\0\0s\0\0\0\0", "\0");  /* An empty one. */
    LEGACY(SET_CONTAINS, "\1\0\0\0s\1\0\0\0v", "\0\1");
    LEGACY(SET_SIZE, "\1\0\0\0s", "\0\2\0\0\0\0\0\0\0");
    LEGACY(SET_REMOVE, "\1\0\0\0s\1\0\0\0v", "\0");
    LEGACY(SET_REMOVE, "\1\0\0\0s\1\0\0\0v", "\0");
    LEGACY(SET_SIZE, "\1\0\0\0s", "\0\1\0\0\0\0\0\0\0");
    LEGACY(SET_SIZE, "\4\0\0\0none", "\0\0\0\0\0\0\0\0\0");
    LEGACY(SET_CONTAINS, "\4\0\0\0none\1\0\0\0v", "\0\0");
    LEGACY(SET_REMOVE, "\4\0\0\0none\1\0\0\0v", "\0");
}

TEST(service_legacy, serves_multimaps)
{
    LEGACY(CREATE_MULTIMAP, "\1\0\0\0m", "\0\1\0\0\0m");
    LEGACY(CREATE_MULTIMAP, "\1\0\0\0m", "\0\1\0\0\0m"); /* Again is fine. */
    LEGACY(MULTIMAP_GET, "\1\0\0\0m\1\0\0\0k", "\0\0\0\0\0");
    LEGACY(MULTIMAP_ENTRIES, "\1\0\0\0m", "\0\0\0\0\0");
    LEGACY(MULTIMAP_PUT, "\1\0\0\0m\1\0\0\0k\1\0\0\0b", "\0");
    LEGACY(MULTIMAP_PUT, "\1\0\0\0m\1\0\0\0k\1\0\0\0a", "\0");
    LEGACY(MULTIMAP_PUT, "\1\0\0\0m\1\0\0\0k\1\0\0\0a", "\0"); /* It is there already. */
    LEGACY(MULTIMAP_PUT, "\1\0\0\0m\0\0\0\0\1\0\0\0a", "\0");
    LEGACY(MULTIMAP_SIZE, "\1\0\0\0m", "\0\3\0\0\0\0\0\0\0");
    LEGACY(MULTIMAP_KEY_SIZE, "\1\0\0\0m\1\0\0\0k", "\0\2\0\0\0\0\0\0\0");
    LEGACY(MULTIMAP_GET, "\1\0\0\0m\1\0\0\0k", "\0\2\0\0\0\1\0\0\0a\1\0\0\0b");
    LEGACY(MULTIMAP_CONTAINS_KEY, "\1\0\0\0m\1\0\0\0k", "\0\1");
    LEGACY(MULTIMAP_CONTAINS_KEY, "\1\0\0\0m\1\0\0\0l", "\0\0");
    LEGACY(MULTIMAP_CONTAINS_VALUE, "\1\0\0\0m\1\0\0\0b", "\0\1");
    LEGACY(MULTIMAP_CONTAINS_VALUE, "\1\0\0\0m\1\0\0\0c", "\0\0");
    LEGACY(MULTIMAP_CONTAINS_ENTRY, "\1\0\0\0m\1\0\0\0k\1\0\0\0b", "\0\1");
    LEGACY(MULTIMAP_CONTAINS_ENTRY, "\1\0\0\0m\0\0\0\0\1\0\0\0b", "\0\0");
    LEGACY(MULTIMAP_KEYS, "\1\0\0\0m", "\0\2\0\0\0\0\0\0\0\1\0\0\0k");
    LEGACY(MULTIMAP_VALUES, "\1\0\0\0m", "\0\3\0\0\0\1\0\0\0a\1\0\0\0a\1\0\0\0b");
    LEGACY(MULTIMAP_ENTRIES, "\1\0\0\0m",
           "\0\2\0\0\0\0\0\0\0\1\0\0\0\1\0\0\0a\1\0\0\0k\2\0\0\0\1\0\0\0a\1\0\0\0b");
    LEGACY(MULTIMAP_REMOVE_VALUE, "\1\0\0\0m\1\0\0\0k\1\0\0\0a", "\0");
    LEGACY(MULTIMAP_REMOVE_VALUE, "\1\0\0\0m\1\0\0\0k\1\0\0\0a", "\0");
    LEGACY(MULTIMAP_REMOVE, "\1\0\0\0m\0\0\0\0", "\0");
    LEGACY(MULTIMAP_SIZE, "\1\0\0\0m", "\0\1\0\0\0\0\0\0\0");
    LEGACY(MULTIMAP_CLEAR, "\1\0\0\0m", "\0");
    LEGACY(MULTIMAP_SIZE, "\1\0\0\0m", "\0\0\0\0\0\0\0\0\0");
    LEGACY(MULTIMAP_CLEAR, "\4\0\0\0none", "\0");
    LEGACY(MULTIMAP_KEYS, "\4\0\0\0none", "\0\0\0\0\0");
}

/* 257 values of 64 KiB are more than a frame holds; 255 are not. */
TEST(service_legacy, tells_of_an_answer_that_is_too_long)
{
    static uint8_t value[BOP_KEY_MAX];
    struct bop_slice text;

    for (unsigned i = 0; i < 257; i++) {
        struct bop_writer writer = bop_writer(&f->payload);

        begin(f);
        bop_store_u32(value, i);
        bop_write_bytes(&writer, bytes("m"));
        bop_write_bytes(&writer, bytes("k"));
        bop_write_bytes(&writer, bop_slice(value, sizeof(value)));
        REQUIRE_EQ(writer.code, 0);
        REQUIRE_EQ(ask(f, BOP_WIRE_KIND_MULTIMAP_PUT_REQUEST, 5), 0);
        CHECK_SLICE_EQ(answer(f, BOP_WIRE_KIND_MULTIMAP_PUT_RESPONSE, 5), LITERAL("\0"));
        if (i == 254) {
            begin(f);
            REQUIRE_EQ(bop_buf_append(&f->payload, "\1\0\0\0m", 5), 0);
            REQUIRE_EQ(ask(f, BOP_WIRE_KIND_MULTIMAP_VALUES_REQUEST, 6), 0);
            text = answer(f, BOP_WIRE_KIND_MULTIMAP_VALUES_RESPONSE, 6);
            CHECK_EQ(text.size, 5 + 255 * (4 + sizeof(value)));
        }
    }
    begin(f);
    REQUIRE_EQ(bop_buf_append(&f->payload, "\1\0\0\0m", 5), 0);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_MULTIMAP_ENTRIES_REQUEST, 7), 0);
    text = answer(f, BOP_WIRE_KIND_ERROR_RESPONSE, 7);
    CHECK(memmem(text.data, text.size, "read it in pages", 16));
}

TEST(service_legacy, says_an_error_by_kind_69)
{
    LEGACY(COUNTER_INCREMENT, "\1\0\0\0n\xff\xff\xff\xff\xff\xff\xff\x7f",
           "\0\xff\xff\xff\xff\xff\xff\xff\x7f");
    begin(f);
    REQUIRE_EQ(bop_buf_append(&f->payload, "\1\0\0\0n\1\0\0\0\0\0\0\0", 13), 0);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_COUNTER_INCREMENT_REQUEST, 6), 0);
    CHECK_EQ(answered_status(f, BOP_WIRE_KIND_ERROR_RESPONSE, 6), 1);
    LEGACY(COUNTER_GET, "\1\0\0\0n", "\0\xff\xff\xff\xff\xff\xff\xff\x7f");
    check_legacy(f, BOP_WIRE_KIND_MAP_SIZE_REQUEST, LITERAL("\0\0\0\0"),
                 BOP_WIRE_KIND_ERROR_RESPONSE, LITERAL("\1\x19\0\0\0a name has 1 to 255 bytes"));
}

/* Of a node that has not joined, in order: what needs none, and what does. */
TEST(service_legacy, serves_nodes_and_locks)
{
    struct bop_slice text;

    check_legacy(f, BOP_WIRE_KIND_GET_NODES_REQUEST, bop_slice(NULL, 0),
                 BOP_WIRE_KIND_GET_NODES_RESPONSE, LITERAL("\0\0\0\0\0"));
    begin(f);
    REQUIRE_EQ(bop_buf_append(&f->payload, "\1\0\0\0l", 5), 0);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_LOCK_ACQUIRE_REQUEST, 5), 0);
    text = answer(f, BOP_WIRE_KIND_ERROR_RESPONSE, 5);
    CHECK(memmem(text.data, text.size, "not joined", 10));
    begin(f);
    REQUIRE_EQ(bop_buf_append(&f->payload, "\1\0\0\0a", 5), 0);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_JOIN_REQUEST, 6), 0);
    CHECK_EQ(answered_status(f, BOP_WIRE_KIND_JOIN_RESPONSE, 6), 0);
    LEGACY(LOCK_ACQUIRE, "\1\0\0\0l", "\0\1\0");
    LEGACY(LOCK_SYNC, "\2\0\0\0\1\0\0\0l\1\0\0\0m", "\0\1\0\0\0\1\0\0\0l\1\0\0\0\1\0\0\0m");
    LEGACY(LOCK_RELEASE, "\1\0\0\0l", "\0");
    check_legacy(f, BOP_WIRE_KIND_GET_NODES_REQUEST, bop_slice(NULL, 0),
                 BOP_WIRE_KIND_GET_NODES_RESPONSE, LITERAL("\0\1\0\0\0\1\0\0\0a"));
    LEGACY(LEAVE, "\1\0\0\0a", "\0");
}

/* A message that is the servers' to send. */
TEST(service_legacy, refuses_state_from_clients)
{
    struct bop_slice text;

    begin(f);
    REQUIRE_EQ(bop_buf_append(&f->payload, "\1\0\0\0\0\0\0\0\0\0\0\0", 12), 0);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_STATE_SYNC, 5), 0);
    text = answer(f, BOP_WIRE_KIND_ERROR_RESPONSE, 5);
    CHECK(memmem(text.data, text.size, "STATE_SYNC is not served", 24));
}

TEST(service_legacy, answers_a_ping)
{
    struct bop_wire_frame frame = {
        .flags = BOP_WIRE_PING, .kind = BOP_WIRE_KIND_PING, .request = 77};
    struct bop_wire_frame pong;

    REQUIRE_EQ(bop__service_frame(f->peer.conn, &frame), 0);
    pong = take(f);
    CHECK_EQ(pong.kind, BOP_WIRE_KIND_PONG);
    CHECK_EQ(pong.flags, BOP_WIRE_RESPONSE | BOP_WIRE_PONG);
    CHECK_EQ(pong.request, 77);
    CHECK_EQ(pong.payload.size, 0);
}

/* A request that carries the ping flag gets both: the pong at once, then its answer. */
TEST(service_legacy, answers_a_request_with_a_ping)
{
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST | BOP_WIRE_PING,
                                   .kind = BOP_WIRE_KIND_MAP_SIZE_REQUEST,
                                   .request = 78,
                                   .payload = LITERAL("\1\0\0\0m")};

    REQUIRE_EQ(bop__service_frame(f->peer.conn, &frame), 0);
    CHECK_EQ(take(f).kind, BOP_WIRE_KIND_PONG);
    CHECK_SLICE_EQ(answer(f, BOP_WIRE_KIND_MAP_SIZE_RESPONSE, 78), LITERAL("\0\0\0\0\0\0\0\0\0"));
}

TEST(service_legacy, closes_on_malformed_and_on_responses)
{
    struct bop_wire_frame response = {.flags = BOP_WIRE_RESPONSE,
                                      .kind = BOP_WIRE_KIND_MAP_PUT_RESPONSE,
                                      .payload = LITERAL("\0")};

    begin(f);
    REQUIRE_EQ(bop_buf_append(&f->payload, "\2\0\0\0m", 5), 0);
    CHECK_EQ(ask(f, BOP_WIRE_KIND_MAP_SIZE_REQUEST, 1), BOP_EMALFORMED);
    CHECK_EQ(bop__service_frame(f->peer.conn, &response), BOP_EPROTOCOL);
}

/* ---- Bounds ---- */

TEST(service, pauses_a_connection_with_too_many_requests)
{
    unsigned taken = 0;
    size_t answers = 0;

    encode_add(f, 0, 0, 0, 1);
    while (taken <= SERVICE_OUTSTANDING_MAX && ask(f, BOP_WIRE_KIND_WRITE_REQUEST, taken) == 0) {
        taken++;
    }
    CHECK_EQ(taken, SERVICE_OUTSTANDING_MAX);
    CHECK_EQ(ask(f, BOP_WIRE_KIND_WRITE_REQUEST, taken), BOP_EAGAIN);
    CHECK_EQ(ask(f, BOP_WIRE_KIND_STATUS_REQUEST, taken), BOP_EAGAIN);
    CHECK_EQ(f->peer.resumes, 0);
    REQUIRE(world_settle(&f->w));
    CHECK_EQ(f->peer.resumes, 1); /* Once, though all were answered. */
    while (f->peer.in.size > 0) {
        struct bop_wire_frame frame;
        size_t used;

        REQUIRE_EQ(bop_wire_parse(bop_buf_slice(&f->peer.in), 0, &frame, &used, NULL), 0);
        CHECK_EQ(frame.request, answers);
        CHECK_EQ(frame.payload.data[0], BOP_STATUS_OK);
        answers++;
        bop_buf_consume(&f->peer.in, used);
    }
    CHECK_EQ(answers, taken);
    CHECK_EQ(ask(f, BOP_WIRE_KIND_WRITE_REQUEST, 0), 0);
}

TEST(service, with_a_stuck_client_drops_answers_and_goes_on)
{
    int64_t value;

    f->peer.stuck = true;
    encode_add(f, 0, 0, 0, 1);
    REQUIRE_EQ(ask(f, BOP_WIRE_KIND_WRITE_REQUEST, 1), 0);
    REQUIRE(world_settle(&f->w));
    CHECK_EQ(f->peer.in.size, 0);
    f->peer.stuck = false;
    CHECK_EQ(add(f, 0, 0, 0, 1, &value), BOP_STATUS_OK);
    CHECK_EQ(value, 2);
}

/* ---- Clients that go ---- */

/* One of each kind of request, none of them answered yet. */
static void ask_for_all(struct fixture *f)
{
    struct bop_session_open_request open = {.timeout_ms = 5000};
    struct bop_operation read = {.op = BOP_OP_COUNTER_GET, .name = bytes("c")};
    struct bop_writer w;

    encode_add(f, 0, 0, 0, 1);
    BOP_IGNORE(ask(f, BOP_WIRE_KIND_WRITE_REQUEST, 1));
    w = begin(f);
    bop_session_open_request_encode(&w, &open);
    BOP_IGNORE(ask(f, BOP_WIRE_KIND_SESSION_OPEN_REQUEST, 2));
    w = begin(f);
    bop_session_alive_request_encode(&w, 1);
    BOP_IGNORE(ask(f, BOP_WIRE_KIND_SESSION_ALIVE_REQUEST, 3));
    w = begin(f);
    bop_write_u8(&w, BOP_READ_LINEARIZABLE);
    bop_operation_encode(&w, &read);
    BOP_IGNORE(ask(f, BOP_WIRE_KIND_READ_REQUEST, 4));
    f->payload.data[0] = BOP_READ_STALE;
    BOP_IGNORE(ask(f, BOP_WIRE_KIND_READ_REQUEST, 5));
    begin(f);
    BOP_IGNORE(bop_buf_append(&f->payload, "\1\0\0\0m\1\0\0\0k\2\0\0\0v1", 16));
    BOP_IGNORE(ask(f, BOP_WIRE_KIND_MAP_PUT_REQUEST, 6));
    f->payload.size = 10;
    BOP_IGNORE(ask(f, BOP_WIRE_KIND_MAP_GET_REQUEST, 7));
    begin(f);
    BOP_IGNORE(ask(f, BOP_WIRE_KIND_STATUS_REQUEST, 8));
}

TEST(service, finishes_in_silence_what_a_gone_client_asked_for)
{
    unsigned flushes;

    ask_for_all(f);
    bop__replica_turn(f->w.replica);
    flushes = f->peer.flushes;
    bop__service_disconnect(f->peer.conn); /* It is freed with its last request. */
    f->peer.conn = NULL;
    REQUIRE(world_settle(&f->w));
    CHECK_EQ(f->peer.flushes, flushes);
    CHECK_EQ(f->service->clients, 0);
    CHECK_EQ(world_counter(&f->w), 1);
}

TEST(service, answers_all_when_the_replica_is_closed)
{
    ask_for_all(f);
    world_close(&f->w);
    CHECK_EQ(f->peer.conn->outstanding, 0);
    CHECK_EQ(f->peer.flushes, 8);
}

TEST(service, closed_under_a_gone_client_leaks_nothing)
{
    ask_for_all(f);
    bop__replica_turn(f->w.replica);
    disconnect_peer(&f->peer);
    world_close(&f->w);
}

/* ---- Faults: each allocation and file operation fails once in turn ---- */

/* Of each request there is an answer, or the connection is to be closed; the replica goes on,
 * or says that it cannot. */
TEST(service, survives_each_fault)
{
    disconnect_peer(&f->peer);
    bop__service_destroy(f->service);
    f->service = NULL;
    FAULT_SWEEP(&f->w.faults) {
        int rc = start_service(f);

        CHECK(rc == 0 || rc == BOP_ENOMEM);
        if (rc == 0) {
            rc = connect_peer(f, &f->peer);
            CHECK(rc == 0 || rc == BOP_ENOMEM);
        }
        if (rc == 0) {
            ask_for_all(f);
            CHECK(world_settle(&f->w) || f->w.failed != 0);
        }
        f->w.faults.fail_at = 0;
        if (f->w.failed != 0) {
            CHECK_EQ(f->w.failed, f->w.faults.fired);
            world_close(&f->w);
        }
        CHECK(!f->peer.conn || f->peer.conn->outstanding == 0);
        disconnect_peer(&f->peer);
        bop__service_destroy(f->service);
        f->service = NULL;
        if (!f->w.replica) {
            CHECK_EQ(f->w.heap.live, 0);
            REQUIRE_EQ(world_open(&f->w), 0);
            REQUIRE(world_settle(&f->w));
        }
    }
    REQUIRE_EQ(start_service(f), 0);
    REQUIRE_EQ(connect_peer(f, &f->peer), 0);
}
