/*
 * Connections under test: a server whose handlers write down what they see, and
 * raw peers that send what they like and write down what they get, both in the
 * records of frame_fixture.h. "open" and "close(CODE REASON)" stand for the
 * handlers; "end" and "reset" for the end of the peer's connection.
 */
#ifndef BOP_TESTS_NET_WS_CONN_FIXTURE_H
#define BOP_TESTS_NET_WS_CONN_FIXTURE_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bop/ws.h>

#include "../net_fixture.h"
#include "frame_fixture.h"

/* Turns of a millisecond, only waited for by a test that fails. */
#define PATIENCE_TURNS 60000

enum { PEER_BYTES_MAX = 4 << 20 };

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct net_clock clock;
    struct bop_loop *loop;
    struct bop_http_server *server;
    struct bop_topics *topics;
    struct bop_ws_options options; /* To be changed before serve(). */
    uint16_t port;
    struct record seen; /* By all handlers. */
    struct bop_ws *ws;  /* That opened last. */
    bool echo;
    bool quiet; /* Do not write messages down. */
    int rc;     /* What the last send of a handler returned. */
    unsigned opens, closes, messages, drains, dropped;
    bool stopped;
    void (*message)(struct fixture *f, struct bop_ws *ws, enum bop_ws_opcode opcode,
                    struct bop_slice message); /* Besides. */
};

/* ---- What handlers see ---- */

static inline void see(struct fixture *f, const char *text)
{
    if (f->seen.size > 0) {
        record_put(&f->seen, " ");
    }
    record_put(&f->seen, text);
}

static inline void see_open(struct bop_ws *ws, void *user)
{
    struct fixture *f = (struct fixture *)user;

    f->ws = ws;
    f->opens++;
    CHECK(bop_ws_is_open(ws));
    CHECK_PTR_EQ(bop_ws_user(ws), f);
    see(f, "open");
}

static inline void see_message(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                               struct bop_slice message)
{
    struct fixture *f = (struct fixture *)user;

    f->messages++;
    CHECK(bop_ws_is_open(ws));
    if (!f->quiet) {
        record_payload(&f->seen, opcode == BOP_WS_TEXT ? 'T' : 'B', "", message.data, message.size);
    }
    if (f->echo) {
        f->rc = bop_ws_send(ws, opcode, message);
    }
    if (f->message != NULL) {
        f->message(f, ws, opcode, message);
    }
}

static inline void see_ping(struct bop_ws *ws, void *user, struct bop_slice payload)
{
    record_payload(&((struct fixture *)user)->seen, 'P', "", payload.data, payload.size);
}

static inline void see_pong(struct bop_ws *ws, void *user, struct bop_slice payload)
{
    record_payload(&((struct fixture *)user)->seen, 'O', "", payload.data, payload.size);
}

static inline void see_drain(struct bop_ws *ws, void *user)
{
    ((struct fixture *)user)->drains++;
}

static inline void see_dropped(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                               struct bop_slice message)
{
    ((struct fixture *)user)->dropped++;
}

static inline void see_close(struct bop_ws *ws, void *user, unsigned code, struct bop_slice reason)
{
    struct fixture *f = (struct fixture *)user;
    char text[256];

    f->closes++;
    CHECK(!bop_ws_is_open(ws));
    CHECK_EQ(bop_ws_send(ws, BOP_WS_TEXT, bytes("late")), BOP_ECLOSED);
    snprintf(text, sizeof(text), reason.size > 0 ? "close(%u %.*s)" : "close(%u)", code,
             (int)reason.size, (const char *)reason.data);
    see(f, text);
}

/* What was seen since the last call. */
static inline const char *seen(struct fixture *f)
{
    static char text[RECORD_MAX];

    memcpy(text, f->seen.text, f->seen.size + 1);
    f->seen.size = 0;
    f->seen.text[0] = '\0';
    return text;
}

/* ---- The server ---- */

static inline void fixture_setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    net_clock_init(&f->clock, 1000);
    REQUIRE_EQ(bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator,
                                                          .clock = &f->clock.clock},
                               &f->loop),
               0);
    f->options = (struct bop_ws_options){
        .on_open = see_open,
        .on_message = see_message,
        .on_ping = see_ping,
        .on_pong = see_pong,
        .on_drain = see_drain,
        .on_dropped = see_dropped,
        .on_close = see_close,
    };
}

static inline void serve(struct fixture *f)
{
    struct bop_listener *listener;

    REQUIRE_EQ(bop_http_server_create(f->loop, NULL, &f->server), 0);
    REQUIRE_EQ(bop_ws_route(f->server, "/", &f->options, f), 0);
    REQUIRE_EQ(bop_http_listen(f->server, &(struct bop_http_listen_options){.host = "127.0.0.1"},
                               &listener, NULL),
               0);
    f->port = bop_listener_port(listener);
}

static inline void with_topics(struct fixture *f)
{
    f->topics = bop_topics_create(&f->heap.allocator);
    REQUIRE(f->topics != NULL);
    f->options.topics = f->topics;
}

static inline void fixture_teardown(struct fixture *f)
{
    bop_http_server_destroy(f->server);
    bop_loop_destroy(f->loop);
    bop_topics_destroy(f->topics);
    CHECK_EQ(f->opens, f->closes);
    CHECK_EQ(f->heap.live, 0);
}

/** Turn until the condition holds. */
#define TURN_UNTIL(condition)                                                                      \
    do {                                                                                           \
        int turns_left_ = PATIENCE_TURNS;                                                          \
        while (!(condition)) {                                                                     \
            REQUIRE(turns_left_-- > 0 && #condition);                                              \
            REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);                                          \
        }                                                                                          \
    } while (0)

/** Let time pass: the loop sees each tick of it. */
static inline void pass_ms(struct fixture *f, uint64_t ms)
{
    for (uint64_t step = ms < 100 ? 1 : ms / 100; ms > 0; ms -= step < ms ? step : ms) {
        f->clock.now_us += (step < ms ? step : ms) * 1000;
        turn(f->loop);
        turn(f->loop);
    }
}

/** The registry has this line. */
static inline void check_shows(struct bop_metrics *metrics, const char *line)
{
    struct bop_buf text;

    bop_buf_init(&text, NULL, 0);
    REQUIRE_EQ(bop_metrics_write(metrics, &text), 0);
    REQUIRE_EQ(bop_buf_append(&text, "", 1), 0);
    CHECK_STR_HAS((char *)text.data, line);
    bop_buf_deinit(&text);
}

/* ---- Peers ---- */

struct peer {
    struct fixture *f;
    int fd;
    bool server; /* It plays the server. */
    bool ended;
    bool reset;
    struct wire out;
    struct bop_ws_decoder decoder;
    struct bop_ws_rules rules;
    struct record got;
    size_t size; /* Of bytes not decoded yet. */
    uint8_t *bytes;
};

static inline struct peer *peer_new(struct fixture *f, int fd, bool server)
{
    struct peer *peer = calloc(1, sizeof(*peer));

    REQUIRE(peer != NULL);
    peer->bytes = malloc(PEER_BYTES_MAX);
    REQUIRE(peer->bytes != NULL);
    peer->f = f;
    peer->fd = fd;
    peer->server = server;
    peer->rules = (struct bop_ws_rules){.message_bytes_max = UINT64_MAX, .client = !server};
    REQUIRE_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return peer;
}

static inline void peer_free(struct peer *peer)
{
    if (peer->fd >= 0) {
        close(peer->fd);
    }
    free(peer->got.message);
    free(peer->out.data);
    free(peer->bytes);
    free(peer);
}

/* Close so that the other side sees a reset. */
static inline void peer_reset(struct peer *peer)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(peer->fd);
    peer->fd = -1;
}

/* What has come, undecoded. */
static inline void peer_receive(struct peer *peer)
{
    ssize_t got;

    do {
        REQUIRE(peer->size < PEER_BYTES_MAX);
        got = recv(peer->fd, peer->bytes + peer->size, PEER_BYTES_MAX - peer->size, MSG_DONTWAIT);
        if (got > 0) {
            peer->size += (size_t)got;
        }
    } while (got > 0);
    peer->ended = peer->ended || got == 0;
    peer->reset = peer->reset || (got < 0 && errno != EAGAIN);
}

/* Receive and decode; writes "end" or "reset" once. */
static inline void peer_read(struct peer *peer)
{
    bool ended = peer->ended, reset = peer->reset;
    struct bop_ws_event event;
    struct bop_slice rest;
    int rc;

    if (peer->fd < 0 || ended || reset) {
        return;
    }
    peer_receive(peer);
    rest = bop_slice(peer->bytes, peer->size);
    while ((rc = bop_ws_decode(&peer->decoder, &peer->rules, &rest, &event)) == 1) {
        record_event(&peer->got, &event);
    }
    CHECK_EQ(rc, BOP_ETRUNCATED);
    memmove(peer->bytes, rest.data, rest.size);
    peer->size = rest.size;
    if (peer->ended || peer->reset) {
        record_put(&peer->got, peer->got.size > 0 ? " " : "");
        record_put(&peer->got, peer->ended ? "end" : "reset");
    }
}

/* Turn until the peer's record is that, or show what it is instead. */
static inline void expect_got(struct peer *peer, const char *expected)
{
    struct fixture *f = peer->f;

    for (int i = 0; i < PATIENCE_TURNS; i++) {
        peer_read(peer);
        if (strcmp(peer->got.text, expected) == 0) {
            break;
        }
        REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
    }
    CHECK_STR_EQ(peer->got.text, expected);
    peer->got.size = 0;
    peer->got.text[0] = '\0';
}

/* The same of the handlers' record. */
static inline void expect_seen(struct fixture *f, const char *expected)
{
    for (int i = 0; i < PATIENCE_TURNS && strcmp(f->seen.text, expected) != 0; i++) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
    }
    CHECK_STR_EQ(seen(f), expected);
}

/* Send all, turning while the other side is slow. */
static inline void peer_send(struct peer *peer, const void *data, size_t size)
{
    struct fixture *f = peer->f;
    const uint8_t *at = (const uint8_t *)data;

    for (int i = 0; size > 0 && i < PATIENCE_TURNS; i++) {
        ssize_t sent = send(peer->fd, at, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0) {
            REQUIRE_EQ(errno, EAGAIN);
            peer_receive(peer);
            REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
            continue;
        }
        at += sent;
        size -= (size_t)sent;
    }
    REQUIRE_EQ(size, 0);
}

static inline void peer_send_frame(struct peer *peer, const struct wire_frame *frame)
{
    peer->out.size = 0;
    wire_put_frame(&peer->out, frame, !peer->server);
    peer_send(peer, peer->out.data, peer->out.size);
}

/** peer_send_frames(peer, {TEXT("a")}, {FRAME(0x89, "ping")}) */
#define peer_send_frames(peer, ...)                                                                \
    do {                                                                                           \
        const struct wire_frame frames_[] = {__VA_ARGS__, END};                                    \
        for (const struct wire_frame *frame_ = frames_; frame_->first != 0xffff; frame_++) {       \
            peer_send_frame(peer, frame_);                                                         \
        }                                                                                          \
    } while (0)

static inline int connect_to(uint16_t port, int receive_bytes)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    REQUIRE(fd >= 0);
    if (receive_bytes != 0) {
        REQUIRE_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes)), 0);
    }
    REQUIRE_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
    return fd;
}

/* RFC 6455's own example. */
#define PEER_KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define PEER_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static inline size_t head_size(const struct peer *peer)
{
    const uint8_t *end = memmem(peer->bytes, peer->size, "\r\n\r\n", 4);

    return end != NULL ? (size_t)(end + 4 - peer->bytes) : 0;
}

/* Wait for a head and take it, NUL-terminated, from what came. */
static inline const char *peer_head(struct peer *peer)
{
    static char head[4096];
    struct fixture *f = peer->f;
    size_t size;

    TURN_UNTIL((peer_receive(peer), head_size(peer) > 0) || peer->ended);
    size = head_size(peer);
    REQUIRE(size < sizeof(head));
    memcpy(head, peer->bytes, size);
    head[size] = '\0';
    peer->size -= size;
    memmove(peer->bytes, peer->bytes + size, peer->size);
    return head;
}

/* Ask to open, with more header lines ("" for none). */
static inline struct peer *peer_ask(struct fixture *f, const char *more, int receive_bytes)
{
    struct peer *peer = peer_new(f, connect_to(f->port, receive_bytes), false);
    char request[1024];

    snprintf(request, sizeof(request),
             "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Key: " PEER_KEY "\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
             more);
    peer_send(peer, request, strlen(request));
    return peer;
}

static inline struct peer *peer_open_with(struct fixture *f, const char *more, int receive_bytes)
{
    struct peer *peer = peer_ask(f, more, receive_bytes);
    unsigned opens = f->opens;
    const char *head = peer_head(peer);

    CHECK_STR_HAS(head, "HTTP/1.1 101 ");
    CHECK_STR_HAS(head, "Sec-WebSocket-Accept: " PEER_ACCEPT "\r\n");
    peer->rules.deflate = strstr(head, "permessage-deflate") != NULL;
    TURN_UNTIL(f->opens >= opens);
    return peer;
}

/* Open, with what was seen of that forgotten. */
static inline struct peer *peer_open(struct fixture *f)
{
    struct peer *peer = peer_open_with(f, "", 0);

    CHECK_STR_EQ(seen(f), "open");
    return peer;
}

#endif
