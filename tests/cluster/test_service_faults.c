/*
 * The service without memory: a script of requests of all kinds over two connections, in
 * which each allocation of the service fails once in turn. Each request is answered, or its
 * connection is to be closed; nothing is leaked, and once there is memory again everything
 * is served. The replica has memory of its own, which does not fail.
 */
#include <bop/backup.h>
#include <bop/cluster_admin.h>
#include <bop/watch.h>

#include "service.h"

#include "replica_help.h"
#include "service_internal.h"

#define PEERS        2
#define REQUESTS_MAX 128
#define TURNS        400 /* Of 5 ms: by then everything is answered that can be. */

struct peer {
    struct fixture *f;
    struct service_conn *conn;
    struct bop_buf in;
    bool closing;
    uint32_t next;                /* The request id of the next request. */
    uint16_t waits[REQUESTS_MAX]; /* The kind asked under it; 0: answered. */
    unsigned events;
};

struct fixture {
    struct world w;
    struct bop_faults faults;
    struct test_heap heap; /* The service's. */
    struct service *service;
    struct peer peers[PEERS];
    struct bop_buf payload;
    struct bop_writer writer;
    uint64_t session;
    uint64_t view;
    uint64_t backup;
    unsigned refused; /* Requests that were answered with another status than OK. */
};

/* ---- What comes back ---- */

static struct bop_buf *peer_output(void *user)
{
    return &((struct peer *)user)->in;
}

static void peer_ignore(void *user)
{
}

static void peer_close(void *user)
{
    ((struct peer *)user)->closing = true;
}

static const struct service_io io = {
    .output = peer_output, .flush = peer_ignore, .resume = peer_ignore, .close = peer_close};

/* Remember what later requests are about. */
static void remember(struct fixture *f, const struct bop_wire_frame *frame)
{
    struct bop_session_start_response session;
    struct bop_view_open_response view;
    struct bop_backup_response backup;

    switch (frame->kind) {
    case BOP_WIRE_KIND_SESSION_START_RESPONSE:
        REQUIRE_EQ(bop_session_start_response_decode(frame->payload, &session), 0);
        f->session = session.session;
        break;
    case BOP_WIRE_KIND_VIEW_OPEN_RESPONSE:
        REQUIRE_EQ(bop_view_open_response_decode(frame->payload, &view), 0);
        f->view = view.view;
        break;
    case BOP_WIRE_KIND_BACKUP_RESPONSE:
        REQUIRE_EQ(bop_backup_response_decode(frame->payload, &backup), 0);
        f->backup = backup.backup;
        break;
    default:
        break;
    }
}

static void take(struct peer *peer)
{
    struct bop_wire_frame frame;
    size_t used;

    while (peer->in.size > 0) {
        REQUIRE_EQ(bop_wire_parse(bop_buf_slice(&peer->in), 0, &frame, &used, NULL), 0);
        if (frame.kind == BOP_WIRE_KIND_WATCH_EVENTS || frame.kind == BOP_WIRE_KIND_STATE_SYNC) {
            peer->events++;
        } else {
            REQUIRE(frame.request < peer->next);
            CHECK(peer->waits[frame.request] != 0);
            CHECK(frame.kind == peer->waits[frame.request] + 1 ||
                  frame.kind == BOP_WIRE_KIND_ERROR_RESPONSE);
            peer->waits[frame.request] = 0;
            peer->f->refused += frame.payload.size > 0 && frame.payload.data[0] != BOP_STATUS_OK;
            remember(peer->f, &frame);
        }
        bop_buf_consume(&peer->in, used);
    }
}

static void turn(struct fixture *f)
{
    world_run(&f->w, 5);
    BOP_IGNORE(bop__service_turn(f->service)); /* It is called often enough. */
    for (unsigned n = 0; n < PEERS; n++) {
        take(&f->peers[n]);
    }
}

static bool waits(const struct fixture *f)
{
    for (unsigned n = 0; n < PEERS; n++) {
        for (uint32_t i = 1; i < f->peers[n].next && !f->peers[n].closing; i++) {
            if (f->peers[n].waits[i] != 0) {
                return true;
            }
        }
    }
    return false;
}

static void answered(struct fixture *f)
{
    for (unsigned n = 0; n < TURNS && waits(f); n++) {
        turn(f);
    }
    if (waits(f)) {
        for (uint32_t i = 1; i < f->peers[0].next; i++) {
            test_note("request %u: %s", i,
                      f->peers[0].waits[i] ? bop_wire_kind_name(f->peers[0].waits[i]) : "answered");
        }
    }
    CHECK(!waits(f));
}

/* ---- The world ---- */

static void on_events(void *user, uint64_t index, struct bop_slice events)
{
    struct fixture *f = user;

    if (f->service) {
        bop__service_events(f->service, index, events);
    }
}

static void on_release(void *user)
{
    struct fixture *f = user;

    if (f->service) {
        bop__service_release(f->service);
    }
}

static void on_failed(void *user, int code, const char *message)
{
    test_note("the replica failed: %s", message);
    CHECK_EQ(code, 0);
}

static void setup(struct fixture *f)
{
    world_init(&f->w);
    f->w.options.events = (struct replica_events){
        .on_failed = on_failed, .on_events = on_events, .on_release = on_release, .user = f};
    test_heap_init(&f->heap, &f->faults);
    bop_buf_init(&f->payload, NULL, 0);
    f->writer = bop_writer(&f->payload);
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE(world_settle(&f->w));
    world_run(&f->w, 1000); /* The cluster comes to speak of all that there is. */
    REQUIRE(world_settle(&f->w));
}

static void teardown(struct fixture *f)
{
    f->faults.fail_at = 0;
    world_deinit(&f->w);
    bop_buf_deinit(&f->payload);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void connect_peer(struct fixture *f, struct peer *peer)
{
    memset(peer, 0, sizeof(*peer));
    peer->f = f;
    peer->next = 1;
    bop_buf_init(&peer->in, &f->heap.allocator, 0);
    peer->closing = bop__service_connect(f->service, &io, peer, &peer->conn) < 0;
    CHECK(!peer->closing || f->faults.fired != 0);
}

static void disconnect_peer(struct peer *peer)
{
    if (peer->conn) {
        bop__service_cut(peer->conn);
        bop__service_disconnect(peer->conn);
    }
    peer->conn = NULL;
    bop_buf_deinit(&peer->in);
}

/* Send the payload that was written, and begin another one. */
static void ask(struct fixture *f, unsigned which, uint16_t kind)
{
    struct peer *peer = &f->peers[which];
    struct bop_wire_frame frame = {.flags = BOP_WIRE_REQUEST,
                                   .kind = kind,
                                   .request = peer->next,
                                   .payload = bop_buf_slice(&f->payload)};
    int rc;

    REQUIRE_EQ(f->writer.code, 0);
    if (!peer->closing) {
        REQUIRE(peer->next < REQUESTS_MAX);
        peer->waits[peer->next++] = kind;
        rc = bop__service_frame(peer->conn, &frame);
        for (unsigned n = 0; n < TURNS && rc == BOP_EAGAIN; n++) { /* After others. */
            turn(f);
            rc = bop__service_frame(peer->conn, &frame);
        }
        if (rc < 0) {
            CHECK_EQ(rc, BOP_ENOMEM);
            CHECK(f->faults.fired != 0);
            peer->closing = true;
        }
    }
    bop_buf_clear(&f->payload);
}

/* ---- The script ---- */

static void write_operation(struct fixture *f, unsigned which, const struct bop_operation *op,
                            uint64_t sequence)
{
    bop_write_u64(&f->writer, sequence > 0 ? f->session : 0);
    bop_write_u64(&f->writer, sequence);
    bop_write_u64(&f->writer, 0);
    bop_operation_encode(&f->writer, op);
    ask(f, which, BOP_WIRE_KIND_WRITE_REQUEST);
}

static void open_watch(struct fixture *f, unsigned which, uint8_t what, const char *name)
{
    struct bop_watch_open_request in = {.what = what,
                                        .name = bytes(name),
                                        .flags = BOP_WATCH_SNAPSHOT | BOP_WATCH_PREVIOUS |
                                                 BOP_WATCH_ACKNOWLEDGE};

    bop_watch_open_request_encode(&f->writer, &in);
    ask(f, which, BOP_WIRE_KIND_WATCH_OPEN_REQUEST);
}

static void sessions_and_watches(struct fixture *f)
{
    struct bop_session_start_request start = {.timeout_ms = 60000, .grace_ms = 1000};

    bop_write_u16(&f->writer, 1);
    bop_write_bytes(&f->writer, bytes("blue"));
    bop_write_bytes(&f->writer, bytes("test"));
    ask(f, 0, BOP_WIRE_KIND_HELLO_REQUEST);
    bop_session_start_request_encode(&f->writer, &start);
    ask(f, 0, BOP_WIRE_KIND_SESSION_START_REQUEST);
    answered(f);
    open_watch(f, 0, BOP_WATCH_MAP, "m");
    open_watch(f, 0, BOP_WATCH_REGISTRY, "r");
    open_watch(f, 1, BOP_WATCH_SESSION, "");
    open_watch(f, 1, BOP_WATCH_NAMES, "");
    open_watch(f, 1, BOP_WATCH_LOCK, "l");
    answered(f);
}

static void writes(struct fixture *f)
{
    struct bop_operation put = {
        .op = BOP_OP_MAP_PUT, .name = bytes("m"), .key = bytes("k"), .value = bytes("v")};
    struct bop_operation add = {
        .op = BOP_OP_REGISTRATION_ADD, .name = bytes("r"), .key = bytes("a"), .sequence = 1};
    struct bop_operation join = {
        .op = BOP_OP_MEMBER_JOIN, .name = bytes("g"), .key = bytes("me"), .value = bytes("i")};
    struct bop_operation lock = {
        .op = BOP_OP_LOCK_ACQUIRE, .name = bytes("l"), .capacity = 1, .permits = 1, .ttl_ms = 200};

    write_operation(f, 1, &put, 0);
    write_operation(f, 0, &add, 1);
    write_operation(f, 0, &join, 2);
    write_operation(f, 0, &lock, 3);
    write_operation(f, 0, &lock, 4); /* It waits. */
    answered(f);
}

static void views(struct fixture *f)
{
    struct bop_operation scan = {.op = BOP_OP_MAP_SCAN, .name = bytes("m")};

    ask(f, 0, BOP_WIRE_KIND_VIEW_OPEN_REQUEST);
    answered(f);
    bop_write_u64(&f->writer, f->view);
    bop_operation_encode(&f->writer, &scan);
    ask(f, 0, BOP_WIRE_KIND_VIEW_READ_REQUEST);
    bop_write_u8(&f->writer, BOP_READ_LINEARIZABLE);
    bop_operation_encode(&f->writer, &scan);
    ask(f, 0, BOP_WIRE_KIND_READ_REQUEST);
    bop_write_u8(&f->writer, BOP_READ_STALE);
    bop_operation_encode(&f->writer, &scan);
    ask(f, 0, BOP_WIRE_KIND_READ_REQUEST);
    answered(f);
    bop_write_u64(&f->writer, f->view);
    ask(f, 0, BOP_WIRE_KIND_VIEW_CLOSE_REQUEST);
    answered(f);
}

/* Those who watch do not acknowledge: it takes its time, and is told so. */
static void settle(struct fixture *f)
{
    struct bop_watch_settle_request in = {
        .what = BOP_WATCH_REGISTRY, .name = bytes("r"), .key = bytes("a"), .timeout_ms = 50};

    bop_watch_settle_request_encode(&f->writer, &in);
    ask(f, 1, BOP_WIRE_KIND_WATCH_SETTLE_REQUEST);
    answered(f);
}

static void prototype(struct fixture *f)
{
    bop_write_bytes(&f->writer, bytes("node-1"));
    ask(f, 1, BOP_WIRE_KIND_JOIN_REQUEST);
    answered(f);
    bop_write_bytes(&f->writer, bytes("old"));
    ask(f, 1, BOP_WIRE_KIND_CREATE_MAP_REQUEST);
    bop_write_bytes(&f->writer, bytes("old"));
    bop_write_bytes(&f->writer, bytes("k"));
    bop_write_bytes(&f->writer, bytes("v"));
    ask(f, 1, BOP_WIRE_KIND_MAP_PUT_REQUEST);
    bop_write_bytes(&f->writer, bytes("mm"));
    bop_write_bytes(&f->writer, bytes("k"));
    bop_write_bytes(&f->writer, bytes("v"));
    ask(f, 1, BOP_WIRE_KIND_MULTIMAP_PUT_REQUEST);
    bop_write_bytes(&f->writer, bytes("lock"));
    ask(f, 1, BOP_WIRE_KIND_LOCK_ACQUIRE_REQUEST);
    ask(f, 1, BOP_WIRE_KIND_GET_NODES_REQUEST);
    answered(f);
    bop_write_bytes(&f->writer, bytes("mm"));
    ask(f, 1, BOP_WIRE_KIND_MULTIMAP_ENTRIES_REQUEST);
    bop_write_bytes(&f->writer, bytes("lock"));
    ask(f, 1, BOP_WIRE_KIND_LOCK_RELEASE_REQUEST);
    answered(f);
    bop_write_bytes(&f->writer, bytes("node-1"));
    ask(f, 1, BOP_WIRE_KIND_LEAVE_REQUEST);
    answered(f);
}

static void administration(struct fixture *f)
{
    struct bop_admin_params params = {0};

    ask(f, 0, BOP_WIRE_KIND_STATUS_REQUEST);
    ask(f, 0, BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST);
    bop_admin_params_request_encode(&f->writer, &params);
    ask(f, 0, BOP_WIRE_KIND_CLUSTER_PARAMS_REQUEST);
    bop_write_u64(&f->writer, 0);
    ask(f, 0, BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST);
    bop_write_u8(&f->writer, BOP_BACKUP_CUT);
    bop_write_u64(&f->writer, 0);
    ask(f, 0, BOP_WIRE_KIND_BACKUP_REQUEST);
    answered(f);
    bop_write_u64(&f->writer, f->backup);
    bop_write_u64(&f->writer, 0);
    bop_write_u32(&f->writer, 1000);
    ask(f, 0, BOP_WIRE_KIND_BACKUP_READ_REQUEST);
    bop_write_u8(&f->writer, BOP_BACKUP_DROP);
    bop_write_u64(&f->writer, f->backup);
    ask(f, 0, BOP_WIRE_KIND_BACKUP_REQUEST);
    answered(f);
}

static void script(struct fixture *f)
{
    f->session = f->view = f->backup = 0;
    f->refused = 0;
    for (unsigned n = 0; n < PEERS; n++) {
        connect_peer(f, &f->peers[n]);
    }
    sessions_and_watches(f);
    writes(f);
    views(f);
    settle(f);
    prototype(f);
    administration(f);
    if (f->session != 0) {
        struct bop_session_request close = {.session = f->session};

        bop_session_request_encode(&f->writer, &close);
        ask(f, 0, BOP_WIRE_KIND_SESSION_CLOSE_REQUEST);
        answered(f);
    }
}

static int start_service(struct fixture *f)
{
    struct service_options options = {.allocator = &f->heap.allocator,
                                      .clock = &f->w.clock,
                                      .replica = f->w.replica,
                                      .cluster = "blue",
                                      .version = "9.9",
                                      .node = 1,
                                      .watch_seed = 1};

    return bop__service_create(&options, &f->service);
}

static void stop_service(struct fixture *f)
{
    for (unsigned n = 0; n < PEERS; n++) {
        disconnect_peer(&f->peers[n]);
    }
    REQUIRE(world_settle(&f->w));
    bop__service_release(f->service);
    bop__service_destroy(f->service);
    f->service = NULL;
}

TEST(service_faults, are_told_or_close_the_connection)
{
    unsigned plain;

    REQUIRE_EQ(start_service(f), 0);
    script(f);
    plain = f->refused;
    CHECK(f->peers[0].events > 0);
    CHECK(f->peers[1].events > 0);
    stop_service(f);
    CHECK_EQ(f->heap.live, 0);
    FAULT_SWEEP(&f->faults) {
        int rc = start_service(f);

        CHECK(rc == 0 || (rc == BOP_ENOMEM && f->faults.fired != 0));
        if (rc == 0) {
            script(f);
            stop_service(f);
        }
        CHECK_EQ(f->heap.live, 0);
    }
    test_note("%d allocations", (int)f->faults.at);
    REQUIRE_EQ(start_service(f), 0);
    script(f);
    CHECK_EQ(f->refused, plain);
    stop_service(f);
}
