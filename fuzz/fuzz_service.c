/*
 * Fuzzes what a node does for its clients: the service on a replica of its own, on a
 * simulated disk, with two connections, on which anything comes in any order: well-formed
 * requests of all kinds about a few names, raw payloads, frames of peers, broken
 * connections, queues that are full, time.
 *
 * Properties: nothing crashes, leaks or reads outside (the sanitizers' part); memory stays
 * below a bound; what goes out is whole frames, each of them a response whose payload its
 * decoder takes; each request that was taken is answered once, by its own kind, on
 * connections that are always read from; an operation's result can be decoded as one of it.
 *
 * The first byte of the input says whether tokens are wanted.
 */
#include <unistd.h>

#include <bop/backup.h>
#include <bop/cluster_admin.h>
#include <bop/sim.h>
#include <bop/watch.h>

#include "replica_internal.h"
#include "service.h"

#define FUZZ_HEAP_MAX (96u * 1024 * 1024)
#define STEPS_MAX     200
#define STORE_SIZE    (8u * 1024 * 1024)
#define PEERS         2
#define ANSWERS_MS    70000 /* By then everything that waits was given up. */
#define AGAIN_MAX     20    /* Attempts to have a request taken. */
#define TOKEN         "fuzz"

#include "fuzz_heap.h"
#include "make_operation.h"

/* ---- The world ---- */

/* What was asked under a request id. */
struct asked {
    uint16_t kind;
    uint8_t op;
    bool waits; /* For its answer. */
};

struct peer {
    struct service_conn *conn;
    struct bop_buf in; /* What the service has sent. */
    bool stuck;        /* Over its bound: no output to be had. */
    bool missed;       /* It was, or it broke the protocol: answers may be missing. */
    bool closing;
    uint32_t next;
    struct asked asked[STEPS_MAX + 2];
};

struct world {
    struct bop_fs_sim *disk;
    struct bop_clock clock;
    uint64_t now_us;
    struct bop_inline_executor executor;
    struct replica_transport transport;
    struct replica_options options;
    struct replica *replica;
    struct auth *auth;
    struct service *service;
    struct peer peers[PEERS];
    uint64_t session;
    uint64_t sequence;
    uint64_t view;
    uint64_t backup;
};

static char store[] = "/dev/shm/fuzz_service_XXXXXX"; /* In memory: it is waited for. */

static void remove_store(void)
{
    BOP_IGNORE(bop_kv_remove(store, NULL));
    rmdir(store);
}

static uint64_t monotonic_us(struct bop_clock *self)
{
    return BOP_CONTAINER_OF(self, struct world, clock)->now_us;
}

static uint64_t wall_ms(struct bop_clock *self)
{
    return 1700000000000 + BOP_CONTAINER_OF(self, struct world, clock)->now_us / 1000;
}

static struct bop_buf *no_output(struct replica_transport *self, uint64_t peer)
{
    return NULL;
}

static void no_flush(struct replica_transport *self, uint64_t peer)
{
}

/* ---- What comes out ---- */

static void decoded_reply(const struct asked *asked, struct bop_slice payload)
{
    struct bop_result result;
    struct bop_reply reply;

    require(bop_reply_decode(payload, &reply) == 0);
    require(asked->op == 0 ||
            bop_result_decode((enum bop_op)asked->op, reply.status, reply.result, &result) == 0);
}

#define DECODED(name)                                                                              \
    do {                                                                                           \
        struct bop_##name message_;                                                                \
                                                                                                   \
        require(bop_##name##_decode(frame->payload, &message_) == 0);                              \
    } while (0)

static void decoded(struct world *world, const struct asked *asked,
                    const struct bop_wire_frame *frame)
{
    struct bop_session_start_response start;
    struct bop_session_open_response open;
    struct bop_view_open_response view;
    struct bop_backup_response backup;
    uint8_t status;

    switch (frame->kind) {
    case BOP_WIRE_KIND_SESSION_OPEN_RESPONSE:
        require(bop_session_open_response_decode(frame->payload, &open) == 0);
        world->session = open.session;
        world->sequence = 0;
        break;
    case BOP_WIRE_KIND_SESSION_START_RESPONSE:
        require(bop_session_start_response_decode(frame->payload, &start) == 0);
        world->session = start.session;
        world->sequence = 0;
        break;
    case BOP_WIRE_KIND_SESSION_RESUME_RESPONSE:
    case BOP_WIRE_KIND_SESSION_CLOSE_RESPONSE:
    case BOP_WIRE_KIND_SESSION_ALIVE_RESPONSE:
    case BOP_WIRE_KIND_AUTH_RESPONSE:
    case BOP_WIRE_KIND_WATCH_CLOSE_RESPONSE:
    case BOP_WIRE_KIND_VIEW_CLOSE_RESPONSE:
        require(bop_session_status_decode(frame->payload, &status) == 0);
        break;
    case BOP_WIRE_KIND_WRITE_RESPONSE:
    case BOP_WIRE_KIND_READ_RESPONSE:
    case BOP_WIRE_KIND_VIEW_READ_RESPONSE:
        decoded_reply(asked, frame->payload);
        break;
    case BOP_WIRE_KIND_HELLO_RESPONSE:
        DECODED(hello_response);
        break;
    case BOP_WIRE_KIND_STATUS_RESPONSE:
        DECODED(status_response);
        break;
    case BOP_WIRE_KIND_WATCH_OPEN_RESPONSE:
        DECODED(watch_open_response);
        break;
    case BOP_WIRE_KIND_WATCH_SETTLE_RESPONSE:
        DECODED(watch_settle_response);
        break;
    case BOP_WIRE_KIND_VIEW_OPEN_RESPONSE:
        require(bop_view_open_response_decode(frame->payload, &view) == 0);
        world->view = view.view;
        break;
    case BOP_WIRE_KIND_CLUSTER_MEMBERS_RESPONSE:
        DECODED(admin_members);
        break;
    case BOP_WIRE_KIND_CLUSTER_CHANGE_RESPONSE:
        DECODED(admin_change_response);
        break;
    case BOP_WIRE_KIND_CLUSTER_TRANSFER_RESPONSE:
        DECODED(admin_transfer_response);
        break;
    case BOP_WIRE_KIND_BACKUP_RESPONSE:
        require(bop_backup_response_decode(frame->payload, &backup) == 0);
        world->backup = backup.backup;
        break;
    case BOP_WIRE_KIND_BACKUP_READ_RESPONSE:
        DECODED(backup_read_response);
        break;
    default:
        require(bop_wire_check(frame->kind, frame->payload) == 0);
    }
}

/* A request of our own is answered by its number plus one; one of the prototype by that, or by
 * what says that it cannot be. Nothing is answered twice. */
static void answered(struct world *world, struct peer *peer, const struct bop_wire_frame *frame)
{
    struct bop_watch_events events;
    struct asked *asked;

    if (frame->kind == BOP_WIRE_KIND_WATCH_EVENTS) {
        require(frame->request < peer->next);
        require(bop_watch_events_decode(frame->payload, &events) == 0);
        return;
    }
    if (frame->kind == BOP_WIRE_KIND_STATE_SYNC) {
        require(bop_wire_check(frame->kind, frame->payload) == 0);
        return;
    }
    require(frame->flags & (BOP_WIRE_RESPONSE | BOP_WIRE_PONG));
    require(frame->request > 0 && frame->request < peer->next);
    asked = &peer->asked[frame->request];
    require(asked->waits);
    asked->waits = false;
    require(frame->kind == asked->kind + 1 || frame->kind == BOP_WIRE_KIND_ERROR_RESPONSE ||
            frame->kind == BOP_WIRE_KIND_LEADER_REDIRECT_RESPONSE);
    decoded(world, asked, frame);
}

static void take(struct world *world, struct peer *peer)
{
    struct bop_wire_frame frame;
    size_t used;

    while (peer->in.size > 0) {
        require(bop_wire_parse(bop_buf_slice(&peer->in), 0, &frame, &used, NULL) == 0);
        answered(world, peer, &frame);
        bop_buf_consume(&peer->in, used);
    }
}

static struct bop_buf *peer_output(void *user)
{
    struct peer *peer = user;

    return peer->stuck ? NULL : &peer->in;
}

static void peer_flush(void *user)
{
}

static void peer_resume(void *user)
{
}

static void peer_close(void *user)
{
    ((struct peer *)user)->closing = true;
}

static size_t peer_queued(void *user)
{
    const struct peer *peer = user;

    return peer->stuck ? SIZE_MAX / 2 : peer->in.size;
}

static const struct service_io io = {.output = peer_output,
                                     .flush = peer_flush,
                                     .resume = peer_resume,
                                     .close = peer_close,
                                     .queued = peer_queued};

static void peer_connect(struct world *world, struct peer *peer)
{
    memset(peer, 0, sizeof(*peer));
    bop_buf_init(&peer->in, &heap, 0);
    peer->next = 1;
    require(bop__service_connect(world->service, &io, peer, &peer->conn) == 0);
}

static void peer_disconnect(struct peer *peer, bool cut)
{
    if (cut) {
        bop__service_cut(peer->conn);
    }
    bop__service_disconnect(peer->conn);
    bop_buf_deinit(&peer->in);
}

/* ---- Its life ---- */

static void on_failed(void *user, int code, const char *message)
{
    fprintf(stderr, "%s\n", message);
    require(!"the replica fails");
}

static void on_events(void *user, uint64_t index, struct bop_slice events)
{
    struct world *world = user;

    if (world->service) {
        bop__service_events(world->service, index, events);
    }
}

static void on_reset(void *user, uint64_t index)
{
    struct world *world = user;

    if (world->service) {
        bop__service_reset(world->service, index);
    }
}

static void on_release(void *user)
{
    struct world *world = user;

    if (world->service) {
        bop__service_release(world->service);
    }
}

static int on_peer(void *user, uint64_t peer, const struct bop_wire_frame *frame)
{
    return bop__service_peer(((struct world *)user)->service, peer, frame);
}

static void turn(struct world *world)
{
    bop_inline_poll(&world->executor);
    bop__replica_turn(world->replica);
    if (world->service) {
        BOP_IGNORE(bop__service_turn(world->service)); /* It is called often enough. */
    }
}

/* So many turns, which last so long together. */
static void run(struct world *world, unsigned turns, uint64_t ms)
{
    for (unsigned n = 0; n < turns; n++) {
        world->now_us += ms * 1000 / turns;
        turn(world);
    }
    for (unsigned n = 0; n < PEERS && world->service; n++) {
        take(world, &world->peers[n]);
    }
}

static struct auth *make_auth(void)
{
    static const struct bop_node_grant grants[] = {{.name_space = "a", .right = BOP_RIGHT_WRITE},
                                                   {.name_space = "b", .right = BOP_RIGHT_READ}};
    static const uint8_t sha256[] = {0x93, 0x85, 0x0b, 0x70, 0x75, 0x85, 0xe4, 0x04,
                                     0xe4, 0x95, 0x1a, 0x3d, 0xdc, 0x1f, 0x05, 0xa3,
                                     0x4b, 0x3d, 0x4f, 0x5f, 0xc0, 0x81, 0xd6, 0x16,
                                     0xf4, 0x6d, 0x8a, 0x2e, 0x8f, 0x1c, 0x8e, 0x68};
    struct bop_node_token token = {
        .name = "t", .sha256 = sha256, .grants = grants, .grant_count = 2};
    struct auth *auth;

    require(bop__auth_create(&heap, &auth) == 0);
    require(bop__auth_set(auth, &token, 1, NULL) == 0);
    return auth;
}

static void world_init(struct world *world, bool tokens)
{
    static const struct bop_raft_configuration alone = {
        .count = 1, .servers = {{.id = 1, .role = BOP_RAFT_VOTER, .address = "a:1"}}};
    struct bop_fs_sim_options disk_options = {.seed = 1};
    struct service_options options = {.allocator = &heap,
                                      .clock = &world->clock,
                                      .cluster = "c",
                                      .version = "1",
                                      .node = 1,
                                      .watch_seed = 1};

    require(bop_fs_sim_create(&disk_options, &world->disk) == 0);
    require(bop_kv_remove(store, NULL) == 0);
    world->clock = (struct bop_clock){.monotonic_us = monotonic_us, .wall_ms = wall_ms};
    world->now_us = 1000000;
    bop_inline_init(&world->executor);
    world->transport = (struct replica_transport){.output = no_output, .flush = no_flush};
    world->options = (struct replica_options){
        .allocator = &heap,
        .fs = bop_fs_sim_fs(world->disk),
        .clock = &world->clock,
        .log_executor = &world->executor.executor,
        .work_executor = &world->executor.executor,
        .transport = &world->transport,
        .events = {.on_failed = on_failed,
                   .on_events = on_events,
                   .on_reset = on_reset,
                   .on_release = on_release,
                   .on_peer = on_peer,
                   .user = world},
        .path = "/data",
        .state_path = store,
        .boot_id = "0",
        .cluster = "c",
        .id = 1,
        .address = "a:1",
        .initial = &alone,
        .seed = 1,
        .snapshot_entries = 50,
        .trailing_entries = 4,
        .segment_bytes = 64 * 1024,
        .state_bytes_max = STORE_SIZE,
        .state_step_bytes = 64 * 1024,
    };
    require(bop__replica_open(&world->options, &world->replica, NULL) == 0);
    for (unsigned n = 0; n < 1000 && !world->replica->status.ready; n++) {
        run(world, 1, 10);
    }
    require(world->replica->status.ready);
    run(world, 20, 20); /* The cluster comes to speak of all that there is. */
    world->auth = tokens ? make_auth() : NULL;
    options.replica = world->replica;
    options.auth = world->auth;
    require(bop__service_create(&options, &world->service) == 0);
    for (unsigned n = 0; n < PEERS; n++) {
        peer_connect(world, &world->peers[n]);
    }
}

static void world_deinit(struct world *world)
{
    for (unsigned n = 0; n < PEERS; n++) {
        peer_disconnect(&world->peers[n], false);
    }
    bop_inline_poll(&world->executor);
    require(!bop__replica_busy(world->replica));
    bop__replica_close(world->replica);
    bop__service_destroy(world->service);
    bop__auth_destroy(world->auth);
    bop_fs_sim_destroy(world->disk);
    require(heap_live == 0);
}

/* ---- What is asked ---- */

static void ask(struct world *world, struct peer *peer, uint16_t kind, uint8_t op,
                struct bop_slice payload)
{
    struct bop_wire_frame frame = {
        .flags = BOP_WIRE_REQUEST, .kind = kind, .request = peer->next, .payload = payload};
    int rc;

    if (peer->closing || peer->next >= BOP_COUNT_OF(peer->asked)) {
        return;
    }
    peer->asked[peer->next++] = (struct asked){.kind = kind,
                                               .op = op,
                                               .waits = kind != BOP_WIRE_KIND_WATCH_ACK &&
                                                        kind != BOP_WIRE_KIND_STATE_SYNC_ACK};
    rc = bop__service_frame(peer->conn, &frame);
    for (unsigned n = 0; n < AGAIN_MAX && rc == BOP_EAGAIN; n++) {
        run(world, 1, 5); /* After the one that is under way. */
        rc = bop__service_frame(peer->conn, &frame);
    }
    if (rc == BOP_EAGAIN) {
        peer->asked[peer->next - 1].waits = false; /* That one waits for others. */
        return;
    }
    require(rc == 0 || rc == BOP_EMALFORMED || rc == BOP_EPROTOCOL || rc == BOP_ETOOBIG);
    if (rc < 0) {
        peer_disconnect(peer, true);
        peer_connect(world, peer);
    }
}

static void write_operation(struct bop_writer *writer, struct bop_reader *choices, bool write,
                            uint8_t *out_op)
{
    size_t at = writer->buf->size;

    if (write) {
        make_write(writer, choices);
    } else {
        make_read(writer, choices);
    }
    require(writer->code == 0);
    *out_op = writer->buf->data[at];
}

static void write_watch(struct bop_writer *writer, struct bop_reader *choices)
{
    struct bop_watch_open_request in = {.what = (uint8_t)(1 + make_choice(choices) % 9),
                                        .flags = make_choice(choices) % 16};

    if (in.what != BOP_WATCH_SESSION && in.what != BOP_WATCH_NAMES) {
        in.name = make_name(choices);
    }
    if (make_choice(choices) % 2) {
        in.prefix = make_bytes(choices);
        in.from = make_bytes(choices);
        in.to = make_bytes(choices);
        in.revision = make_number(choices);
    }
    bop_watch_open_request_encode(writer, &in);
}

static void write_settle(struct bop_writer *writer, struct bop_reader *choices)
{
    struct bop_watch_settle_request in = {.what = (uint8_t)(1 + make_choice(choices) % 9)};

    if (in.what != BOP_WATCH_SESSION && in.what != BOP_WATCH_NAMES) {
        in.name = make_name(choices);
    }
    in.key = make_bytes(choices);
    in.timeout_ms = (uint32_t)make_number(choices);
    bop_watch_settle_request_encode(writer, &in);
}

static void write_admin(struct bop_writer *writer, struct bop_reader *choices)
{
    struct bop_admin_change_request in = {.action = make_choice(choices) % 7,
                                          .flags = make_choice(choices) % 4,
                                          .node = make_number(choices),
                                          .priority = (uint32_t)make_number(choices)};

    if (in.action == BOP_ADMIN_ADD || in.action == BOP_ADMIN_REMOVE) {
        in.flags |= BOP_ADMIN_PLAN; /* Or this one would wait for others, which there are not. */
    }
    in.address = make_bytes(choices);
    bop_admin_change_request_encode(writer, &in);
}

/* The fields of one of the prototype's requests. */
static void write_legacy(struct bop_writer *writer, struct bop_reader *choices, const char *fields)
{
    for (; *fields != '\0'; fields++) {
        switch (*fields) {
        case 's':
            bop_write_bytes(writer, make_name(choices));
            break;
        case 'b':
            bop_write_bytes(writer, make_bytes(choices));
            break;
        case 'i':
        case 'q':
            bop_write_u64(writer, make_number(choices));
            break;
        default: /* A list of one. */
            bop_write_u32(writer, 1);
            bop_write_bytes(writer, make_name(choices));
        }
    }
}

static uint16_t write_prototype(struct bop_writer *writer, struct bop_reader *choices)
{
    static const struct {
        uint16_t kind;
        const char *fields;
    } requests[] = {
#define OWN_REQUEST                                0
#define OWN_RESPONSE                               0
#define PEER                                       0
#define PING                                       1
#define PONG                                       0
#define REQUEST                                    1
#define RESPONSE                                   0
#define BOP_WIRE_KIND(name, number, fields, flags) {(flags) ? (number) : 0, fields},
#include <bop/wire_kinds.def>
#undef BOP_WIRE_KIND
#undef OWN_REQUEST
#undef OWN_RESPONSE
#undef PEER
#undef PING
#undef PONG
#undef REQUEST
#undef RESPONSE
    };
    size_t at = make_choice(choices) % BOP_COUNT_OF(requests);

    while (requests[at].kind == 0 || requests[at].kind == BOP_WIRE_KIND_STATE_SYNC) {
        at = (at + 1) % BOP_COUNT_OF(requests);
    }
    write_legacy(writer, choices, requests[at].fields);
    return requests[at].kind;
}

static uint16_t write_session(struct world *world, struct bop_writer *writer,
                              struct bop_reader *choices)
{
    uint8_t how = make_choice(choices);
    uint64_t session = how & 128 ? make_number(choices) : world->session;
    uint8_t token[BOP_TOKEN_SIZE] = {how & 64 ? 1 : 0};

    switch (how % 6) {
    case 0:
        bop_write_u32(writer, (uint32_t)make_number(choices));
        bop_write_raw(writer, bop_slice(token, sizeof(token)));
        return BOP_WIRE_KIND_SESSION_OPEN_REQUEST;
    case 1:
    case 2:
        bop_write_u32(writer, (uint32_t)make_number(choices));
        bop_write_u32(writer, (uint32_t)make_number(choices));
        bop_write_raw(writer, bop_slice(token, sizeof(token)));
        return BOP_WIRE_KIND_SESSION_START_REQUEST;
    case 3:
        bop_session_alive_request_encode(writer, session);
        return BOP_WIRE_KIND_SESSION_ALIVE_REQUEST;
    default:
        bop_write_u64(writer, session);
        bop_write_raw(writer, bop_slice(token, sizeof(token)));
        return how % 6 == 4 ? BOP_WIRE_KIND_SESSION_RESUME_REQUEST
                            : BOP_WIRE_KIND_SESSION_CLOSE_REQUEST;
    }
}

static uint16_t write_other(struct world *world, struct bop_writer *writer,
                            struct bop_reader *choices)
{
    switch (make_choice(choices) % 12) {
    case 0:
        bop_write_u16(writer, make_choice(choices) % 2);
        bop_write_bytes(writer, make_bytes(choices));
        bop_write_bytes(writer, bop_slice(NULL, 0));
        return BOP_WIRE_KIND_HELLO_REQUEST;
    case 1:
        return BOP_WIRE_KIND_STATUS_REQUEST;
    case 2:
        bop_write_raw(writer,
                      make_choice(choices) % 4 ? bop_slice_cstr(TOKEN) : make_bytes(choices));
        return BOP_WIRE_KIND_AUTH_REQUEST;
    case 3:
        return BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST;
    case 4:
        write_admin(writer, choices);
        return BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST;
    case 5:
        bop_write_u64(writer, make_number(choices));
        return BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST;
    case 6:
    case 7:
        bop_write_u8(writer, make_choice(choices) % 6);
        bop_write_u64(writer, make_choice(choices) % 2 ? world->backup : make_number(choices));
        return BOP_WIRE_KIND_BACKUP_REQUEST;
    case 8:
        bop_write_u64(writer, make_choice(choices) % 8 ? world->backup : make_number(choices));
        bop_write_u64(writer, make_number(choices));
        bop_write_u32(writer, (uint32_t)make_number(choices));
        return BOP_WIRE_KIND_BACKUP_READ_REQUEST;
    case 9:
        return BOP_WIRE_KIND_VIEW_OPEN_REQUEST;
    case 10:
        bop_write_u64(writer, world->view);
        return BOP_WIRE_KIND_VIEW_CLOSE_REQUEST;
    default:
        bop_write_u32(writer, (uint32_t)make_number(choices));
        return BOP_WIRE_KIND_WATCH_CLOSE_REQUEST;
    }
}

static void ask_something(struct world *world, struct peer *peer, uint8_t what,
                          struct bop_reader *choices)
{
    uint16_t kind = BOP_WIRE_KIND_WRITE_REQUEST;
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);
    uint8_t op = 0, how;

    bop_buf_init(&buf, NULL, 0);
    switch (what % 12) {
    case 0:
    case 1:
    case 2:
    case 3:
        how = make_choice(choices);
        bop_write_u64(&writer, how % 4 ? world->session : 0);
        bop_write_u64(&writer, how & 64 ? make_number(choices) : ++world->sequence);
        bop_write_u64(&writer, how & 128 ? make_number(choices) : world->sequence - 1);
        write_operation(&writer, choices, true, &op);
        break;
    case 4:
        kind = BOP_WIRE_KIND_READ_REQUEST;
        bop_write_u8(&writer, make_choice(choices) % 2);
        write_operation(&writer, choices, false, &op);
        break;
    case 5:
        kind = BOP_WIRE_KIND_VIEW_READ_REQUEST;
        bop_write_u64(&writer, world->view);
        write_operation(&writer, choices, false, &op);
        break;
    case 6:
        kind = BOP_WIRE_KIND_WATCH_OPEN_REQUEST;
        write_watch(&writer, choices);
        break;
    case 7:
        kind = BOP_WIRE_KIND_WATCH_SETTLE_REQUEST;
        write_settle(&writer, choices);
        break;
    case 8:
        kind = BOP_WIRE_KIND_WATCH_ACK;
        bop_write_u64(&writer, make_number(choices));
        bop_write_u8(&writer, make_choice(choices) % 2);
        break;
    case 9:
        kind = write_session(world, &writer, choices);
        break;
    case 10:
        kind = write_prototype(&writer, choices);
        break;
    default:
        kind = write_other(world, &writer, choices);
    }
    require(writer.code == 0);
    ask(world, peer, kind, op, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

static void ask_raw(struct world *world, struct peer *peer, struct bop_reader *choices)
{
    uint16_t kind = make_choice(choices);
    size_t size = bop_min_u64(make_choice(choices), bop_reader_left(choices));
    struct bop_slice payload = bop_read_raw(choices, size);
    const char *name = bop_wire_kind_name(kind);

    /* Nobody gets here with others: which flags fit which kind is seen to before. */
    if (name && (strstr(name, "REQUEST") || kind == BOP_WIRE_KIND_PING ||
                 kind == BOP_WIRE_KIND_WATCH_ACK || kind == BOP_WIRE_KIND_STATE_SYNC_ACK)) {
        ask(world, peer, kind, 0, payload);
    }
}

static void give_peer(struct world *world, struct bop_reader *choices)
{
    size_t size = bop_min_u64(make_choice(choices), bop_reader_left(choices));
    struct bop_wire_frame frame = {
        .flags = BOP_WIRE_REQUEST,
        .kind = (uint16_t)(BOP_WIRE_KIND_PEER_WATCH_ASK + make_choice(choices) % 2),
        .payload = bop_read_raw(choices, bop_min_u64(size, bop_reader_left(choices)))};
    int rc = bop__service_peer(world->service, 2, &frame);

    require(rc == 0 || rc == BOP_EMALFORMED || rc == BOP_EPROTOCOL);
}

static void step(struct world *world, struct bop_reader *choices)
{
    uint8_t what = make_choice(choices);
    struct peer *peer = &world->peers[what >> 7];

    switch (what % 32) {
    case 24:
    case 25:
        run(world, 1 + make_choice(choices) % 8, make_number(choices) % 100000);
        break;
    case 26:
        run(world, 4, 4);
        break;
    case 27:
        take(world, peer);
        peer_disconnect(peer, what & 64);
        peer_connect(world, peer);
        break;
    case 28:
        peer->stuck = !peer->stuck;
        peer->missed = true;
        break;
    case 29:
        give_peer(world, choices);
        break;
    case 30:
    case 31:
        ask_raw(world, peer, choices);
        break;
    default:
        ask_something(world, peer, what % 32, choices);
    }
}

/* Everything that was asked and could be answered was. */
static void all_answered(struct world *world)
{
    for (unsigned n = 0; n < PEERS; n++) {
        struct peer *peer = &world->peers[n];

        take(world, peer);
        for (uint32_t i = 1; i < peer->next; i++) {
            if (peer->asked[i].waits && !peer->missed && !peer->closing) {
                fprintf(stderr, "%s is not answered\n", bop_wire_kind_name(peer->asked[i].kind));
                require(!"every request is answered");
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool made;
    static struct world world;
    struct bop_reader choices = bop_reader(bop_slice(data, size));

    if (!made) {
        require(mkdtemp(store) != NULL);
        atexit(remove_store);
        made = true;
    }
    memset(&world, 0, sizeof(world));
    world_init(&world, make_choice(&choices) % 2);
    for (unsigned n = 0; n < STEPS_MAX && bop_reader_left(&choices) > 0; n++) {
        step(&world, &choices);
    }
    run(&world, 20, 20);
    run(&world, 20, ANSWERS_MS);
    all_answered(&world);
    world_deinit(&world);
    return 0;
}
