/*
 * Fuzzes what a client makes of a server that says anything: over a connection of loopback
 * each request is answered as it should be, with a strange status or result, with nonsense,
 * under another id, with news of watches that may not be open, not at all, or by a broken
 * connection.
 *
 * Properties: nothing crashes, leaks or reads outside (the sanitizers' part); each request
 * that was taken has one callback, each result in it can be walked to its end, and each event
 * told can be decoded; at the end nothing of the client is left.
 *
 * The first bytes choose what is asked for, the others how it is answered.
 */
#include <sys/socket.h>

#include <bop/client_election.h>
#include <bop/client_view.h>
#include <bop/client_watch.h>
#include <bop/presence.h>
#include <bop/socket.h>

#define FUZZ_HEAP_MAX (64u * 1024 * 1024)
#define REQUESTS_MAX  12
#define TURNS_MAX     400
#define TURNS_IDLE    4 /* Turns in which nothing happens, and then nothing more will. */

#include "fuzz_heap.h"
#include "make_operation.h"

static struct bop_loop *loop;
static struct bop_listener *listener;
static char endpoint[32];
static struct bop_reader choices;
static struct bop_socket *open_sockets[8]; /* Of the server. */
static unsigned steps;                     /* Whatever happens counts here. */
static unsigned asked, told;
static struct bop_client_lock *lock;
static struct bop_client *client;

/* ---- The server ---- */

static void say(struct bop_socket *socket, uint16_t kind, uint32_t request,
                struct bop_slice payload)
{
    struct bop_buf *out = bop_socket_output(socket);
    size_t at;

    if (out && bop_wire_begin(out, &at) == 0) {
        require(bop_buf_append(out, payload.data, payload.size) == 0);
        bop_wire_end(out, at, (enum bop_wire_kind)kind, BOP_WIRE_RESPONSE, request);
        bop_socket_flush_later(socket);
    }
}

static struct bop_slice raw(void)
{
    size_t size = make_choice(&choices) % 64u;

    return bop_read_raw(&choices, bop_min_u64(size, bop_reader_left(&choices)));
}

/* A result in the shape of the operation's. */
static void write_result(struct bop_writer *writer, struct bop_slice operation)
{
    const struct operation_shape *shape = operation.size > 0
                                              ? bop__operation_shape((enum bop_op)operation.data[0])
                                              : NULL;

    for (const char *field = shape ? shape->result : ""; *field != '\0'; field++) {
        uint32_t count;

        switch (*field) {
        case 'B':
            bop_write_u8(writer, make_choice(&choices) % 2);
            break;
        case 'V':
            bop_write_bytes(writer, make_bytes(&choices));
            break;
        case 'A':
        case 'R':
            bop_write_u32(writer, (uint32_t)make_number(&choices));
            break;
        case 'S':
            bop_write_u64(writer, make_number(&choices));
            bop_write_bytes(writer, make_bytes(&choices));
            count = make_choice(&choices) % 4;
            bop_write_u32(writer, count);
            for (; count > 0; count--) {
                bop_write_bytes(writer, make_bytes(&choices));
                bop_write_u64(writer, make_number(&choices));
                bop_write_bytes(writer, make_bytes(&choices));
            }
            break;
        case 'X':
            count = make_choice(&choices) % 4;
            bop_write_u32(writer, count);
            for (; count > 0; count--) {
                bop_write_u8(writer, make_choice(&choices) % 16);
                bop_write_bytes(writer, make_bytes(&choices));
            }
            break;
        default:
            bop_write_u64(writer, make_number(&choices));
        }
    }
}

static uint8_t mostly_ok(void)
{
    uint8_t choice = make_choice(&choices);

    return choice < 200 ? BOP_STATUS_OK : choice % 20;
}

static void write_session(struct bop_writer *writer, bool grace)
{
    bop_write_u8(writer, mostly_ok());
    bop_write_u64(writer, 1 + make_number(&choices) % 4);
    bop_write_u32(writer, 3000);
    if (grace) {
        bop_write_u32(writer, 1000);
    }
}

static void write_hello(struct bop_writer *writer)
{
    struct bop_hello_response hello = {
        .status = mostly_ok(), .protocol = 1, .node = 1, .leader = 1};

    bop_hello_response_encode(writer, &hello);
}

/* The answer that a request should have, more or less. */
static void write_answer(struct bop_writer *writer, const struct bop_wire_frame *frame)
{
    struct bop_slice payload = frame->payload;

    switch (frame->kind) {
    case BOP_WIRE_KIND_HELLO_REQUEST:
        write_hello(writer);
        break;
    case BOP_WIRE_KIND_SESSION_OPEN_REQUEST:
    case BOP_WIRE_KIND_SESSION_START_REQUEST:
        write_session(writer, frame->kind == BOP_WIRE_KIND_SESSION_START_REQUEST);
        break;
    case BOP_WIRE_KIND_WRITE_REQUEST:
        bop_write_u8(writer, mostly_ok());
        write_result(writer, bop_slice(payload.data + 24, payload.size - 24));
        break;
    case BOP_WIRE_KIND_READ_REQUEST:
        bop_write_u8(writer, mostly_ok());
        write_result(writer, bop_slice(payload.data + 1, payload.size - 1));
        break;
    case BOP_WIRE_KIND_VIEW_READ_REQUEST:
        bop_write_u8(writer, mostly_ok());
        write_result(writer, bop_slice(payload.data + 8, payload.size - 8));
        break;
    case BOP_WIRE_KIND_VIEW_OPEN_REQUEST:
        bop_write_u8(writer, mostly_ok());
        bop_write_u64(writer, make_number(&choices));
        bop_write_u64(writer, make_number(&choices));
        break;
    case BOP_WIRE_KIND_WATCH_OPEN_REQUEST:
        bop_write_u8(writer, mostly_ok());
        bop_write_u64(writer, make_number(&choices));
        break;
    case BOP_WIRE_KIND_WATCH_SETTLE_REQUEST:
        bop_write_u8(writer, mostly_ok());
        bop_write_u8(writer, make_choice(&choices) % 2);
        break;
    default:
        bop_write_u8(writer, mostly_ok());
    }
}

static void write_event(struct bop_writer *writer)
{
    static const uint8_t types[] = {1,  2,  3,  4,  8,  9,  16, 18, 24, 26, 32,
                                    33, 34, 35, 37, 40, 41, 42, 48, 49, 56, 57};
    struct bop_event event = {
        .type = (enum bop_event_type)types[make_choice(&choices) % BOP_COUNT_OF(types)],
        .flags = make_choice(&choices) % 16,
        .name = make_name(&choices),
        .key = make_bytes(&choices),
        .value = make_bytes(&choices),
        .session = make_number(&choices),
        .number = (int64_t)make_number(&choices),
        .token = make_number(&choices)};

    bop_event_encode(writer, &event);
}

/* News of a watch: of the request just made, or of another one. */
static void push(struct bop_socket *socket, uint32_t request)
{
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop_write_u64(&writer, make_number(&choices));
    bop_write_u8(&writer, make_choice(&choices) % 32);
    for (unsigned count = make_choice(&choices) % 4; count > 0; count--) {
        write_event(&writer);
    }
    request -= make_choice(&choices) % 4;
    say(socket, BOP_WIRE_KIND_WATCH_EVENTS, request, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

static void respond(struct bop_socket *socket, const struct bop_wire_frame *frame)
{
    uint8_t how = make_choice(&choices);
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    steps++;
    bop_buf_init(&buf, NULL, 0);
    switch (how) {
    case 255:
        bop_socket_close(socket);
        break;
    case 254:
        BOP_IGNORE(bop_socket_write(socket, raw())); /* It may be closed. */
        break;
    case 253:
        break;
    case 252:
        say(socket, (uint16_t)(frame->kind + 1), frame->request, raw());
        break;
    case 251:
        say(socket, make_choice(&choices), frame->request, raw());
        break;
    case 250:
        write_answer(&writer, frame);
        say(socket, (uint16_t)(frame->kind + 1), frame->request + 1, bop_buf_slice(&buf));
        break;
    default:
        if (frame->kind != BOP_WIRE_KIND_WATCH_ACK) {
            write_answer(&writer, frame);
            say(socket, (uint16_t)(frame->kind + 1), frame->request, bop_buf_slice(&buf));
        }
        if (how > 200 || frame->kind == BOP_WIRE_KIND_WATCH_OPEN_REQUEST) {
            push(socket, frame->request);
        }
    }
    bop_buf_deinit(&buf);
}

/* What the client sends is right, whatever it was told. */
static size_t on_data(struct bop_socket *socket, void *user, struct bop_slice data)
{
    struct bop_wire_frame frame;
    size_t at = 0, used;
    int rc;

    while ((rc = bop_wire_parse(bop_slice(data.data + at, data.size - at), 0, &frame, &used,
                                NULL)) == 0) {
        at += used;
        require(frame.flags & (BOP_WIRE_REQUEST | BOP_WIRE_PING));
        respond(socket, &frame);
        if (!bop_socket_is_open(socket)) {
            return data.size;
        }
    }
    require(rc == BOP_EAGAIN);
    return at;
}

static void on_close(struct bop_socket *socket, void *user, int reason)
{
    for (size_t n = 0; n < BOP_COUNT_OF(open_sockets); n++) {
        if (open_sockets[n] == socket) {
            open_sockets[n] = NULL;
        }
    }
}

static const struct bop_socket_events events = {.on_data = on_data, .on_close = on_close};

static bool on_accept(struct bop_listener *self, struct bop_socket *socket, void *user)
{
    /* Or the ports would be used up: a reset leaves nothing behind. */
    struct linger linger = {.l_onoff = 1};

    steps++;
    require(setsockopt(bop_socket_fd(socket), SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
    for (size_t n = 0; n < BOP_COUNT_OF(open_sockets); n++) {
        if (!open_sockets[n]) {
            open_sockets[n] = socket;
            bop_socket_attach(socket, &events, NULL);
            return true;
        }
    }
    return false;
}

/* ---- The client's side ---- */

/* What lives until it is ended, and at most once each. */
struct standing {
    struct bop_client_watch *watch;
    struct bop_client_election *election;
    struct bop_client_observer *observer;
    struct bop_presence *presence;
};

static void on_result(void *user, int code, const struct bop_result *result)
{
    struct bop_slice rest = result->entries;
    struct bop_slice bytes;
    uint8_t status;

    told++;
    steps++;
    require(told <= asked);
    for (uint32_t n = 0; n < result->count && code == 0; n++) {
        struct bop_scan_entry entry;

        require(user ? bop_transaction_result_next(&rest, &status, &bytes)
                     : bop_scan_next(&rest, &entry));
    }
}

static void on_code(void *user, int code)
{
    told++;
    steps++;
    require(told <= asked);
}

static void on_lock(void *user, struct bop_client_lock *granted, int code)
{
    if (code != 0) {
        lock = NULL;
    }
    on_code(user, code);
}

static void on_view(void *user, int code, const struct bop_client_view *view)
{
    struct bop_operation size = {.op = BOP_OP_MAP_SIZE, .name = bop_slice_cstr("m")};

    on_code(user, code);
    if (code == 0 && bop_client_view_read(client, view, &size, on_result, NULL) == 0) {
        asked++;
    }
}

static void on_news(void *user, const struct bop_client_news *news)
{
    struct standing *standing = user;
    struct bop_slice rest = news->events;
    struct bop_event event;
    int rc;

    steps++;
    if (news->code != 0) {
        standing->watch = NULL; /* It is over, and gone. */
    }
    while ((rc = bop_event_next(&rest, &event)) > 0) {
    }
    require(rc == 0);
}

static void on_presence(void *user, enum bop_presence_news news, struct bop_slice name, int code)
{
    steps++;
}

static void on_won(void *user, struct bop_client_election *election, uint64_t token)
{
    require(token > 0);
    steps++;
}

static void on_lost(void *user, struct bop_client_election *election)
{
    steps++;
}

static void on_failed(void *user, struct bop_client_election *election, int code)
{
    steps++;
}

static void on_candidate(void *user, struct bop_slice candidate, uint64_t token)
{
    steps++;
}

static void ask_operation(bool write)
{
    struct bop_operation operation;
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);
    void *user = NULL;

    bop_buf_init(&buf, NULL, 0);
    if (write) {
        make_write(&writer, &choices);
    } else {
        make_read(&writer, &choices);
    }
    if (bop_operation_decode(bop_buf_slice(&buf), &operation) == 0) {
        user = operation.op == BOP_OP_TRANSACTION ? &asked : NULL;
        asked += bop_client_execute(client, &operation, BOP_READ_LINEARIZABLE, on_result, user) ==
                 0;
    }
    bop_buf_deinit(&buf);
}

static void stand(struct standing *standing, uint8_t what)
{
    struct bop_client_watch_options watch = {
        .what = BOP_WATCH_MAP, .name = bop_slice_cstr("m"), .flags = (uint8_t)(what >> 4)};
    struct bop_client_election_options election = {.name = bop_slice_cstr("e"),
                                                   .candidate = bop_slice_cstr("me"),
                                                   .won = on_won,
                                                   .lost = on_lost,
                                                   .failed = on_failed};
    struct bop_presence_options presence = {.client = client, .news = on_presence};

    if (what % 4 == 0 && !standing->watch) {
        BOP_IGNORE(bop_client_watch_open(client, &watch, on_news, standing, &standing->watch));
    } else if (what % 4 == 1 && !standing->election) {
        BOP_IGNORE(bop_client_election_campaign(client, &election, &standing->election));
    } else if (what % 4 == 2 && !standing->observer) {
        BOP_IGNORE(bop_client_election_observe(client, bop_slice_cstr("e"), on_candidate, NULL,
                                               &standing->observer));
    } else if (!standing->presence) {
        require(bop_presence_create(&presence, &standing->presence) == 0);
        BOP_IGNORE(bop_presence_join(standing->presence, bop_slice_cstr("g"), bop_slice_cstr("me"),
                                     bop_slice_cstr("")));
        BOP_IGNORE(
            bop_presence_add(standing->presence, bop_slice_cstr("r"), bop_slice_cstr("a"), 1));
    }
}

static void end_standing(struct standing *standing)
{
    bop_client_watch_close(standing->watch);
    bop_client_election_resign(standing->election);
    bop_client_election_unobserve(standing->observer);
    bop_presence_destroy(standing->presence);
}

static void ask(struct standing *standing)
{
    struct bop_client_lock_options lock_options = {.name = bop_slice_cstr("l")};
    uint8_t what = make_choice(&choices);

    switch (what % 8) {
    case 0:
    case 1:
    case 2:
        ask_operation(true);
        break;
    case 3:
        ask_operation(false);
        break;
    case 4:
        if (!lock) {
            asked += bop_client_lock_acquire(client, &lock_options, on_lock, NULL, NULL, &lock) ==
                     0;
        } else if (bop_client_lock_release(lock, on_code, NULL) == 0) {
            asked++;
            lock = NULL;
        }
        break;
    case 5:
        asked += bop_client_view_open(client, on_view, NULL) == 0;
        break;
    case 6:
        asked += bop_client_barrier_wait(client, bop_slice_cstr("b"), 2, 1000, on_code, NULL) == 0;
        break;
    default:
        stand(standing, what >> 3);
    }
}

/* As long as something happens, and the input has something to say. */
static void run(struct standing *standing)
{
    unsigned idle = 0;

    for (unsigned turn = 0; turn < TURNS_MAX && idle < TURNS_IDLE; turn++) {
        unsigned before = steps;

        require(bop_loop_run_once(loop, 1) == 0);
        idle = steps == before ? idle + 1 : 0;
        if (turn % 8 == 7 && bop_reader_left(&choices) > 0 && asked < REQUESTS_MAX) {
            ask(standing);
        }
    }
}

static void start(void)
{
    struct bop_loop_options loop_options = {0};
    struct bop_listen_options options = {.on_accept = on_accept};

    require(bop_loop_create(&loop_options, &loop) == 0);
    require(bop_listen(loop, &options, &listener, NULL) == 0);
    snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", bop_listener_port(listener));
}

static int same_secret(void *out_bytes, size_t size)
{
    memset(out_bytes, 7, size);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *endpoints[] = {endpoint};
    struct bop_client_options options = {.allocator = &heap,
                                         .endpoints = endpoints,
                                         .endpoint_count = 1,
                                         .token = "t",
                                         .session_grace_ms = 1000,
                                         .secret = same_secret};
    struct standing standing = {0};

    if (!loop) {
        start();
    }
    choices = bop_reader(bop_slice(data, size));
    asked = told = 0;
    lock = NULL;
    options.loop = loop;
    if (make_choice(&choices) % 2) {
        options.token = NULL;
    }
    require(bop_client_create(&options, &client, NULL) == 0);
    for (unsigned n = make_choice(&choices) % 6; n > 0; n--) {
        ask(&standing);
    }
    run(&standing);
    end_standing(&standing);
    for (size_t n = 0; n < BOP_COUNT_OF(open_sockets); n++) {
        if (open_sockets[n]) {
            bop_socket_close(open_sockets[n]);
        }
    }
    bop_client_destroy(client);
    client = NULL;
    for (unsigned turn = 0; turn < 10000 && heap_live > 0; turn++) {
        require(bop_loop_run_once(loop, 1) == 0);
    }
    require(heap_live == 0);
    require(told == asked);
    return 0;
}
