/*
 * A server's connections against peers that follow the protocol, and peers that do not.
 */
#include "conn_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

/* ---- Messages ---- */

TEST(conn, gives_whole_messages_and_sends_them)
{
    struct peer *peer;

    f->echo = true;
    serve(f);
    peer = peer_open(f);
    peer_send_frames(peer, {TEXT("hello")}, {FRAME(0x82, "\x01\x02")}, {TEXT("")});
    expect_got(peer, "T(hello) B(\\01\\02) T()");
    CHECK_STR_EQ(seen(f), "T(hello) B(\\01\\02) T()");
    peer_free(peer);
    expect_seen(f, "close(1006 the connection ended without a close frame)");
}

TEST(conn, echoes_messages_of_all_sizes)
{
    static const size_t sizes[] = {0, 1, 125, 126, 127, 65535, 65536, 65537, 200000, 1 << 20};
    struct peer *peer;
    char expected[32];

    f->echo = true;
    serve(f);
    peer = peer_open(f);
    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        peer_send_frames(peer, {0x82, NULL, sizes[i]});
        if (sizes[i] > 200) {
            snprintf(expected, sizeof(expected), "B(#%zu)", sizes[i]);
            expect_got(peer, expected);
        } else {
            TURN_UNTIL((peer_read(peer), peer->got.size > 0));
            peer->got.size = 0;
            peer->got.text[0] = '\0';
        }
    }
    CHECK_EQ(f->messages, BOP_COUNT_OF(sizes));
    peer_free(peer);
}

TEST(conn, puts_fragments_together_with_pings_between)
{
    struct peer *peer;

    f->echo = true;
    serve(f);
    peer = peer_open(f);
    peer_send_frames(peer, {FRAME(0x01, "frag")}, {FRAME(0x89, "1")}, {FRAME(0x00, "men")},
                     {FRAME(0x8a, "2")}, {FRAME(0x80, "ts")}, {FRAME(0x89, "3")});
    expect_got(peer, "O(1) T(fragments) O(3)");
    CHECK_STR_EQ(seen(f), "P(1) O(2) T(fragments) P(3)");
    peer_free(peer);
}

TEST(conn, takes_frames_that_come_with_the_request)
{
    struct peer *peer;
    struct wire wire = {0};
    const char *request = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
                          "Upgrade\r\nSec-WebSocket-Key: " PEER_KEY
                          "\r\nSec-WebSocket-Version: 13\r\n\r\n";

    f->echo = true;
    serve(f);
    wire_put(&wire, request, strlen(request));
    wire_put_frame(&wire, &(struct wire_frame){TEXT("early")}, true);
    peer = peer_new(f, connect_to(f->port, 0), false);
    peer_send(peer, wire.data, wire.size);
    CHECK_STR_HAS(peer_head(peer), "101");
    expect_got(peer, "T(early)");
    CHECK_STR_EQ(seen(f), "open T(early)");
    free(wire.data);
    peer_free(peer);
}

/* The same script however it is cut: two fragments with a ping, a message, the close. */
TEST(conn, sees_the_same_cut_at_every_byte)
{
    static const struct wire_frame script[] = {{FRAME(0x01, "h\xc3")},
                                               {FRAME(0x89, "p")},
                                               {FRAME(0x80, "\xa9!")},
                                               {FRAME(0x82, "bin")},
                                               {FRAME(0x88, "\x03\xe8"
                                                            "bye")},
                                               END};
    struct wire wire = {0};

    f->echo = true;
    serve(f);
    wire_put_frames(&wire, script, true);
    for (size_t cut = 0; cut <= wire.size; cut++) {
        struct peer *peer = peer_open(f);

        peer_send(peer, wire.data, cut);
        turn(f->loop);
        turn(f->loop);
        peer_send(peer, wire.data + cut, wire.size - cut);
        expect_got(peer, "O(p) T(h\\c3\\a9!) B(bin) X(1000) end");
        peer_free(peer);
        expect_seen(f, "P(p) T(h\\c3\\a9!) B(bin) close(1000 bye)");
    }
    free(wire.data);
}

TEST(conn, takes_single_bytes)
{
    struct wire wire = {0};
    struct peer *peer;

    f->echo = true;
    serve(f);
    peer = peer_open(f);
    wire_put_frames(
        &wire, (const struct wire_frame[]){{FRAME(0x01, "one ")}, {FRAME(0x80, "by one")}, END},
        true);
    for (size_t i = 0; i < wire.size; i++) {
        peer_send(peer, wire.data + i, 1);
        turn(f->loop);
    }
    expect_got(peer, "T(one by one)");
    free(wire.data);
    peer_free(peer);
}

/* Nothing is allocated for a connection but its socket, nor for messages that come whole. */
TEST(conn, needs_no_memory_of_its_own)
{
    struct peer *peers[4];
    size_t blocks;

    f->echo = true;
    f->quiet = true;
    serve(f);
    peers[0] = peer_open(f);
    peer_send_frames(peers[0], {TEXT("hello")});
    expect_got(peers[0], "T(hello)");
    blocks = f->heap.blocks;
    for (int i = 1; i < 4; i++) {
        peers[i] = peer_open(f);
        CHECK_EQ(f->heap.blocks, blocks);
        peer_send_frames(peers[i], {TEXT("hello")});
        expect_got(peers[i], "T(hello)");
        CHECK_EQ(f->heap.blocks, blocks);
    }
    for (int i = 0; i < 4; i++) {
        peer_free(peers[i]);
    }
}

/* ---- Errors ---- */

TEST(conn, fails_with_the_code_that_fits)
{
    static const struct {
        struct wire_frame frames[3];
        const char *got;
    } cases[] = {
        {{{0x81, "x", 1, WIRE_OTHER_ROLE}, END}, "X(1002 an unmasked frame from a client) end"},
        {{{FRAME(0x83, "x")}, END}, "X(1002 a reserved opcode) end"},
        {{{FRAME(0xa1, "x")}, END}, "X(1002 a reserved bit is set) end"},
        {{{FRAME(0x80, "x")}, END}, "X(1002 a continuation of no message) end"},
        {{{FRAME(0x01, "x")}, {TEXT("y")}, END}, "X(1002 a new message inside another one) end"},
        {{{TEXT("\xff")}, END}, "X(1007 text is not UTF-8) end"},
        {{{FRAME(0x88, "\x03\xed")}, END}, "X(1002 a close code that may not be sent) end"},
        {{{FRAME(0x88, "\x03")}, END}, "X(1002 a close frame with half a code) end"},
        {{{FRAME(0x88, "\x03\xe8\xff")}, END}, "X(1007 the reason of closing is not UTF-8) end"},
        {{{0x82, NULL, 1001}, END}, "X(1009 the message is too big) end"},
        {{{0x02, NULL, 600}, {0x80, NULL, 600}, END}, "X(1009 the message is too big) end"},
    };

    f->options.message_bytes_max = 1000;
    serve(f);
    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        struct peer *peer = peer_open(f);

        for (const struct wire_frame *frame = cases[i].frames; frame->first != 0xffff; frame++) {
            peer_send_frame(peer, frame);
        }
        shutdown(peer->fd, SHUT_WR);
        expect_got(peer, cases[i].got);
        peer_free(peer);
        TURN_UNTIL(f->closes == f->opens);
        CHECK_STR_HAS(seen(f), "close(1006 ");
    }
}

/* Text is refused at the byte that spoils it, not at the end of its frame. */
TEST(conn, fails_text_as_soon_as_it_is_bad)
{
    struct peer *peer;
    uint8_t part[6 + 2] = {0x81, 0xfe, 0x03, 0xe8}; /* 1,000 bytes to come, key 0. */

    serve(f);
    peer = peer_open(f);
    peer_send(peer, part, 8);
    peer_send(peer, "ok\xc0", 3);
    expect_got(peer, "X(1007 text is not UTF-8) end");
    peer_free(peer);
}

/* ---- Closing ---- */

TEST(close, by_the_peer_is_answered_with_its_code)
{
    struct peer *peer;

    serve(f);
    peer = peer_open(f);
    peer_send_frames(peer, {FRAME(0x88, "\x0f\xa0why not")}); /* 4000 */
    expect_got(peer, "X(4000) end");
    peer_free(peer);
    expect_seen(f, "close(4000 why not)");
}

TEST(close, without_a_code_has_none)
{
    struct peer *peer;

    serve(f);
    peer = peer_open(f);
    peer_send_frames(peer, {FRAME(0x88, "")}, {TEXT("not read any more")});
    expect_got(peer, "X(1005) end");
    peer_free(peer);
    expect_seen(f, "close(1005)");
}

TEST(close, by_us_waits_for_the_answer)
{
    struct peer *peer;

    serve(f);
    peer = peer_open(f);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("last")), 0);
    CHECK_EQ(bop_ws_close(f->ws, 1001, bytes("moving")), 0);
    CHECK_EQ(bop_ws_close(f->ws, 1001, bytes("moving")), BOP_ECLOSED);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("x")), BOP_ECLOSED);
    CHECK(!bop_ws_is_open(f->ws));
    expect_got(peer, "T(last) X(1001 moving)");
    peer_send_frames(peer, {TEXT("dropped")}, {FRAME(0x88, "\x03\xe9")});
    expect_got(peer, "end");
    peer_free(peer);
    expect_seen(f, "close(1001)");
}

TEST(close, of_both_at_once_needs_one_frame_each)
{
    struct peer *peer;

    serve(f);
    peer = peer_open(f);
    peer_send_frames(peer, {FRAME(0x88, "\x03\xe8mine")});
    CHECK_EQ(bop_ws_close(f->ws, 3000, bytes("ours")), 0);
    expect_got(peer, "X(3000 ours) end");
    peer_free(peer);
    expect_seen(f, "close(1000 mine)");
}

/* A message whose rest comes after we began to close is passed over up to the close frame. */
TEST(close, in_the_middle_of_a_message_finds_the_answer)
{
    struct peer *peer;

    serve(f);
    peer = peer_open(f);
    peer_send_frames(peer, {FRAME(0x01, "begun")});
    turn(f->loop);
    turn(f->loop);
    CHECK_EQ(bop_ws_close(f->ws, 1000, bytes("")), 0);
    peer_send_frames(peer, {FRAME(0x80, " and ended")}, {FRAME(0x88, "\x03\xe8")});
    expect_got(peer, "X(1000) end");
    peer_free(peer);
    expect_seen(f, "close(1000)");
}

TEST(close, that_is_not_answered_has_a_deadline)
{
    struct peer *peer;

    f->options.close_timeout_ms = 400;
    serve(f);
    peer = peer_open(f);
    CHECK_EQ(bop_ws_close(f->ws, 1000, bytes("")), 0);
    expect_got(peer, "X(1000)");
    pass_ms(f, 399);
    CHECK_STR_EQ(seen(f), "");
    pass_ms(f, 151);
    expect_seen(f, "close(1006 the peer did not close in time)");
    expect_got(peer, "end");
    peer_free(peer);
}

TEST(close, without_a_frame_is_abnormal)
{
    struct peer *peer;

    serve(f);
    peer = peer_open(f);
    peer_reset(peer);
    TURN_UNTIL(f->closes == 1);
    CHECK_STR_HAS(seen(f), "close(1006 ");
    peer_free(peer);

    peer = peer_open(f);
    bop_ws_terminate(f->ws);
    expect_seen(f, "close(1006)");
    expect_got(peer, "end");
    peer_free(peer);
}

TEST(close, takes_only_codes_that_may_be_sent)
{
    static const unsigned bad[] = {0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535};
    char reason[125];
    struct peer *peer;

    memset(reason, 'r', sizeof(reason));
    serve(f);
    peer = peer_open(f);
    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        CHECK_EQ(bop_ws_close(f->ws, bad[i], bytes("")), BOP_EINVAL);
    }
    CHECK_EQ(bop_ws_close(f->ws, 1000, bop_slice(reason, 124)), BOP_EINVAL);
    CHECK_EQ(bop_ws_close(f->ws, 1000, bytes("\xff")), BOP_EINVAL);
    CHECK(bop_ws_is_open(f->ws));
    CHECK_EQ(bop_ws_close(f->ws, 4999, bop_slice(reason, 123)), 0);
    peer_free(peer);
}

/* ---- Handles ---- */

TEST(handle, of_the_past_does_nothing)
{
    struct peer *peer;
    struct bop_ws *old;

    serve(f);
    peer = peer_open(f);
    old = f->ws;
    peer_free(peer);
    TURN_UNTIL(f->closes == 1);
    seen(f);
    peer = peer_open(f); /* Most likely in the same memory. */
    CHECK(old != f->ws);
    CHECK_EQ(bop_ws_send(old, BOP_WS_TEXT, bytes("x")), BOP_ECLOSED);
    CHECK_EQ(bop_ws_send_part(old, BOP_WS_TEXT, bytes("x"), true), BOP_ECLOSED);
    CHECK_EQ(bop_ws_ping(old, bytes("x")), BOP_ECLOSED);
    CHECK_EQ(bop_ws_close(old, 1000, bytes("x")), BOP_ECLOSED);
    CHECK_EQ(bop_ws_subscribe(old, "t"), BOP_ECLOSED);
    CHECK_EQ(bop_ws_unsubscribe(old, "t"), BOP_ECLOSED);
    CHECK_EQ(bop_ws_publish(old, "t", BOP_WS_TEXT, bytes("x")), BOP_ECLOSED);
    CHECK(!bop_ws_is_subscribed(old, "t"));
    CHECK(!bop_ws_is_open(old));
    CHECK_EQ(bop_ws_queued(old), 0);
    CHECK(bop_ws_user(old) == NULL);
    CHECK(bop_ws_loop(old) == NULL);
    CHECK(bop_ws_protocol(old) == NULL);
    bop_ws_pause(old);
    bop_ws_resume(old);
    bop_ws_terminate(old);
    CHECK(bop_ws_is_open(f->ws));
    CHECK_EQ(bop_ws_subscribe(f->ws, "t"), BOP_EUNSUPPORTED); /* Without topics. */
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_CLOSE, bytes("x")), BOP_EINVAL);
    peer_free(peer);
}

static void cut_it(struct fixture *f, struct bop_ws *ws, enum bop_ws_opcode opcode,
                   struct bop_slice message)
{
    bop_ws_terminate(ws);
}

/* What comes with the message in whose callback it was cut is not given any more. */
TEST(handle, may_be_cut_in_its_own_callback)
{
    struct peer *peer;

    f->message = cut_it;
    serve(f);
    peer = peer_open(f);
    peer->out.size = 0;
    wire_put_frames(&peer->out, (const struct wire_frame[]){{TEXT("a")}, {TEXT("b")}, END}, true);
    peer_send(peer, peer->out.data, peer->out.size);
    expect_seen(f, "T(a) close(1006)");
    peer_free(peer);
}

/* ---- The handshake ---- */

static unsigned upgrade(struct bop_http_exchange *http, const struct bop_http_head *head,
                        void *route_user, void **in_out_user)
{
    struct fixture *f = (struct fixture *)route_user;

    CHECK_PTR_EQ(*in_out_user, f);
    if (bop_http_find(head, "X-Refuse").data != NULL) {
        return 401;
    }
    CHECK_EQ(bop_ws_accept_protocol(http, "nobody.asked"), BOP_EINVAL);
    if (bop_http_find(head, "X-Other").data != NULL) {
        CHECK_EQ(bop_ws_accept_protocol(http, "other"), 0);
    }
    CHECK_EQ(bop_http_header(http, "X-Server", bytes("yes")), 0);
    return 0;
}

static void expect_refusal(struct fixture *f, const char *more, const char *answer)
{
    struct peer *peer = peer_ask(f, more, 0);

    CHECK_STR_HAS(peer_head(peer), answer);
    peer_free(peer);
}

TEST(handshake, asks_who_comes)
{
    static const char *const protocols[] = {"chat.v2", "chat.v1", NULL};
    static const char *const origins[] = {"https://good.example", NULL};
    struct peer *peer;
    const char *head;

    f->options.on_upgrade = upgrade;
    f->options.protocols = protocols;
    f->options.origins = origins;
    serve(f);
    expect_refusal(f, "X-Refuse: 1\r\n", "HTTP/1.1 401 ");
    expect_refusal(f, "Origin: https://bad.example\r\n", "HTTP/1.1 403 ");
    peer = peer_ask(f, "Origin: https://good.example\r\nSec-WebSocket-Protocol: x, chat.v1\r\n", 0);
    head = peer_head(peer);
    CHECK_STR_HAS(head, "HTTP/1.1 101 ");
    CHECK_STR_HAS(head, "Sec-WebSocket-Protocol: chat.v1\r\n");
    CHECK_STR_HAS(head, "X-Server: yes\r\n");
    CHECK_STR_EQ(bop_ws_protocol(f->ws), "chat.v1");
    peer_free(peer);
    peer = peer_ask(f, "X-Other: 1\r\nSec-WebSocket-Protocol: chat.v1, other\r\n", 0);
    CHECK_STR_HAS(peer_head(peer), "Sec-WebSocket-Protocol: other\r\n");
    CHECK_STR_EQ(bop_ws_protocol(f->ws), "other");
    peer_free(peer);
    peer = peer_ask(f, "", 0);
    CHECK(strstr(peer_head(peer), "Sec-WebSocket-Protocol") == NULL);
    CHECK(bop_ws_protocol(f->ws) == NULL);
    peer_free(peer);
}

TEST(handshake, refuses_other_requests)
{
    static const struct {
        const char *request;
        const char *answer;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 426 "},
        {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 4"},
        {"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Key: " PEER_KEY "\r\nSec-WebSocket-Version: 12\r\n\r\n",
         "HTTP/1.1 426 "},
        {"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n\r\n",
         "HTTP/1.1 400 "},
        {"GET /elsewhere HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 404 "},
    };

    serve(f);
    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        struct peer *peer = peer_new(f, connect_to(f->port, 0), false);

        peer_send(peer, cases[i].request, strlen(cases[i].request));
        CHECK_STR_HAS(peer_head(peer), cases[i].answer);
        peer_free(peer);
    }
    CHECK_EQ(f->opens, 0);
}

static void accept_by_hand(struct bop_http_exchange *http, const struct bop_http_head *head,
                           void *user)
{
    struct fixture *f = (struct fixture *)user;
    struct bop_ws *ws = NULL;

    f->rc = bop_ws_accept(http, head, &f->options, f, &ws);
    CHECK(f->rc != 0 || ws == f->ws);
    CHECK(!bop_http_is_open(http));
}

TEST(handshake, is_made_by_a_handler_of_ones_own)
{
    struct peer *peer;
    struct bop_listener *listener;

    f->echo = true;
    REQUIRE_EQ(bop_http_server_create(f->loop, NULL, &f->server), 0);
    REQUIRE_EQ(bop_http_route(f->server, NULL, "/", accept_by_hand, f), 0);
    REQUIRE_EQ(bop_http_listen(f->server, &(struct bop_http_listen_options){.host = "127.0.0.1"},
                               &listener, NULL),
               0);
    f->port = bop_listener_port(listener);
    for (int i = 0; i < 3; i++) {
        peer = peer_open(f);
        peer_send_frames(peer, {TEXT("mine")});
        expect_got(peer, "T(mine)");
        CHECK_STR_EQ(seen(f), "T(mine)");
        peer_free(peer);
        TURN_UNTIL(f->closes == f->opens);
        seen(f);
    }
    peer = peer_new(f, connect_to(f->port, 0), false);
    peer_send(peer, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 27);
    CHECK_STR_HAS(peer_head(peer), "HTTP/1.1 426 ");
    CHECK_EQ(f->rc, BOP_EPROTOCOL);
    peer_free(peer);
}

TEST(handshake, options_that_make_no_sense_are_refused)
{
    struct bop_ws_options none = {.on_open = see_open};
    struct bop_ws_options bits = {.on_message = see_message, .deflate_window_bits = 8};
    struct bop_ws_options level = {.on_message = see_message, .deflate_level = 10};

    serve(f);
    CHECK_EQ(bop_ws_route(f->server, "/a", &none, NULL), BOP_EINVAL);
    CHECK_EQ(bop_ws_route(f->server, "/b", &bits, NULL), BOP_EINVAL);
    CHECK_EQ(bop_ws_route(f->server, "/c", &level, NULL), BOP_EINVAL);
    CHECK_EQ(bop_ws_route(f->server, "/", &f->options, NULL), BOP_EEXISTS);
}

/* ---- Parts ---- */

static void see_part(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                     struct bop_slice part, bool first, bool last)
{
    struct fixture *f = (struct fixture *)user;

    record_payload(&f->seen, opcode == BOP_WS_TEXT ? 'T' : 'B', first ? "<" : "-", part.data,
                   part.size);
    if (last) {
        record_put(&f->seen, ">");
    }
}

TEST(parts, are_given_as_they_come)
{
    struct peer *peer;

    f->options.on_message = NULL;
    f->options.on_part = see_part;
    serve(f);
    peer = peer_open(f);
    peer_send_frames(peer, {TEXT("whole")}, {FRAME(0x02, "a")}, {FRAME(0x00, "b")});
    expect_seen(f, "T(<whole)> B(<a) B(-b)");
    peer_send_frames(peer, {FRAME(0x80, "")}, {TEXT("next")});
    expect_seen(f, "B(-)> T(<next)>");
    peer_free(peer);
}

TEST(parts, are_sent_as_frames_of_one_message)
{
    struct peer *peer;

    serve(f);
    peer = peer_open(f);
    CHECK_EQ(bop_ws_send_part(f->ws, BOP_WS_TEXT, bytes("one "), false), 0);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("no")), BOP_EBUSY);
    CHECK_EQ(bop_ws_ping(f->ws, bytes("yes")), 0);
    CHECK_EQ(bop_ws_send_part(f->ws, BOP_WS_TEXT, bytes("two "), false), 0);
    CHECK_EQ(bop_ws_send_part(f->ws, BOP_WS_TEXT, bytes("three"), true), 0);
    CHECK_EQ(bop_ws_send_part(f->ws, BOP_WS_BINARY, bytes("whole"), true), 0);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("after")), 0);
    expect_got(peer, "P(yes) T(one two three) B(whole) T(after)");
    peer_free(peer);
}

/* ---- Pausing ---- */

static void pause_it(struct fixture *f, struct bop_ws *ws, enum bop_ws_opcode opcode,
                     struct bop_slice message)
{
    bop_ws_pause(ws);
}

TEST(pause, holds_messages_back)
{
    struct peer *peer;

    f->message = pause_it;
    serve(f);
    peer = peer_open(f);
    peer_send_frames(peer, {TEXT("a")}, {TEXT("b")}, {TEXT("c")}, {FRAME(0x88, "\x03\xe8")});
    expect_seen(f, "T(a)");
    pass_ms(f, 20);
    CHECK_STR_EQ(seen(f), "");
    bop_ws_resume(f->ws);
    expect_seen(f, "T(b)");
    f->message = NULL;
    bop_ws_resume(f->ws);
    expect_seen(f, "T(c)");
    peer_free(peer);
    expect_seen(f, "close(1000)");
}

/* ---- Back-pressure ---- */

static uint8_t block[64 * 1024];

/* A peer that does not read, and a connection that was written to until it said PRESSURE. */
static struct peer *press(struct fixture *f)
{
    struct peer *peer = peer_open_with(f, "", 4096);
    int rc = 0;

    seen(f);
    for (int i = 0; i < 1000 && rc == 0; i++) {
        rc = bop_ws_send(f->ws, BOP_WS_BINARY, bop_slice(block, sizeof(block)));
    }
    CHECK_EQ(rc, BOP_WS_PRESSURE);
    CHECK(bop_ws_queued(f->ws) > 100000);
    return peer;
}

static void read_all(struct peer *peer)
{
    peer_receive(peer);
    peer->size = 0;
}

TEST(pressure, is_said_and_drained)
{
    struct peer *peer;

    f->options.pressure_high = 100000;
    f->options.compression = BOP_WS_COMPRESS_NEVER;
    serve(f);
    peer = press(f);
    CHECK_EQ(f->drains, 0);
    TURN_UNTIL((read_all(peer), f->drains == 1));
    CHECK(bop_ws_queued(f->ws) <= 50000);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_BINARY, bytes("more")), 0);
    TURN_UNTIL((read_all(peer), bop_ws_queued(f->ws) == 0));
    CHECK_EQ(f->drains, 1);
    peer_free(peer);
}

TEST(pressure, drops_what_is_too_much)
{
    struct peer *peer;
    size_t queued;

    f->options.pressure_high = 100000;
    f->options.pressure_max = 200000;
    serve(f);
    peer = press(f);
    for (int i = 0; bop_ws_queued(f->ws) <= 200000 && i < 10; i++) {
        CHECK_EQ(bop_ws_send(f->ws, BOP_WS_BINARY, bop_slice(block, sizeof(block))),
                 BOP_WS_PRESSURE);
    }
    queued = bop_ws_queued(f->ws);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("too much")), BOP_EFULL);
    CHECK_EQ(bop_ws_ping(f->ws, bytes("")), BOP_EFULL);
    CHECK_EQ(bop_ws_queued(f->ws), queued);
    CHECK(bop_ws_is_open(f->ws));
    peer_free(peer);
}

/* A peer that pings and does not read gets answers up to the bound, and no more. */
TEST(pressure, bounds_the_answers_to_pings)
{
    struct peer *peer;

    f->options.pressure_high = 100000;
    f->options.pressure_max = 100000;
    f->options.on_ping = NULL;
    serve(f);
    peer = press(f);
    CHECK(bop_ws_queued(f->ws) > 100000);
    for (int i = 0; i < 2000; i++) {
        peer_send_frames(peer, {0x89, NULL, 125});
    }
    pass_ms(f, 5);
    CHECK(bop_ws_queued(f->ws) < 300000);
    CHECK(bop_ws_is_open(f->ws));
    peer_free(peer);
}

TEST(pressure, closes_who_is_too_slow)
{
    struct peer *peer;

    f->options.pressure_high = 100000;
    f->options.pressure_max = 100001;
    f->options.slow = BOP_WS_SLOW_CLOSE;
    f->options.close_timeout_ms = 1000;
    serve(f);
    peer = press(f);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("too much")), BOP_EFULL);
    CHECK(!bop_ws_is_open(f->ws));
    pass_ms(f, 1400);
    expect_seen(f, "close(1006 the peer did not close in time)");
    peer_free(peer);
}

/* ---- Counters ---- */

TEST(counters, tell_what_happened)
{
    struct bop_ws_counters counters = {0};
    struct bop_ws_prepared *prepared = bop_ws_prepare(BOP_WS_TEXT, bytes("ready"), false);
    struct peer *peer;

    f->options.counters = &counters;
    f->options.idle_timeout_ms = 1000;
    f->options.ping_interval_ms = 600;
    f->echo = true;
    serve(f);
    peer = peer_open(f);
    peer_send_frames(peer, {TEXT("a")}, {FRAME(0x01, "b")}, {FRAME(0x80, "c")}, {FRAME(0x89, "")});
    expect_got(peer, "T(a) T(bc) O()");
    CHECK_EQ(counters.messages_received, 2);
    CHECK_EQ(counters.messages_sent, 2);
    CHECK_EQ(bop_ws_send_part(f->ws, BOP_WS_TEXT, bytes("p"), false), 0);
    CHECK_EQ(counters.messages_sent, 2);
    CHECK_EQ(bop_ws_send_part(f->ws, BOP_WS_TEXT, bytes("q"), true), 0);
    CHECK_EQ(bop_ws_send_prepared(f->ws, prepared), 0);
    CHECK_EQ(counters.messages_sent, 4);
    CHECK_EQ(counters.open_now, 1);
    pass_ms(f, 700);
    CHECK_EQ(counters.pings_sent, 1);
    CHECK_EQ(counters.timeouts, 0);
    pass_ms(f, 700); /* It did not answer. */
    CHECK_EQ(counters.timeouts, 1);
    CHECK_EQ(counters.open_now, 0);
    peer_free(peer);
    seen(f);

    peer = peer_open(f);
    peer_send_frames(peer, {FRAME(0x83, "")});
    TURN_UNTIL(counters.failed == 1);
    peer_free(peer);
    TURN_UNTIL(counters.open_now == 0);
    CHECK_EQ(counters.opened, 2);
    CHECK_EQ(counters.timeouts, 1);
    bop_ws_prepared_unref(prepared);
}

/* What shows a peer that never reads. */
TEST(counters, tell_of_the_slow)
{
    struct bop_ws_counters counters = {0};
    struct peer *peer;

    f->options.counters = &counters;
    f->options.pressure_high = 100000;
    f->options.pressure_max = 100001;
    f->options.slow = BOP_WS_SLOW_CLOSE;
    f->options.close_timeout_ms = 1000;
    serve(f);
    peer = press(f);
    CHECK_EQ(counters.slow, 0);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("too much")), BOP_EFULL);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("too much")), BOP_ECLOSED);
    CHECK_EQ(counters.slow, 1);
    CHECK_EQ(counters.slow_closed, 1);
    pass_ms(f, 1400);
    CHECK_EQ(counters.timeouts, 1);
    CHECK_EQ(counters.open_now, 0);
    peer_free(peer);
}

/* ---- A registry ---- */

TEST(counters, are_kept_in_a_registry)
{
    struct bop_metrics *metrics;
    struct peer *one, *other;

    REQUIRE_EQ(bop_metrics_create(NULL, &metrics), 0);
    f->options.metrics = metrics;
    f->options.metrics_labels = "route=\"/\"";
    f->echo = true;
    serve(f);
    check_shows(metrics, "bop_ws_open{route=\"/\"} 0\n");
    one = peer_open(f);
    other = peer_open(f);
    peer_send_frames(one, {TEXT("a")}, {TEXT("b")});
    expect_got(one, "T(a) T(b)");
    pass_ms(f, 2500); /* By itself. */
    check_shows(metrics, "bop_ws_opened_total{route=\"/\"} 2\n");
    check_shows(metrics, "bop_ws_open{route=\"/\"} 2\n");
    check_shows(metrics, "bop_ws_received_messages_total{route=\"/\"} 2\n");
    check_shows(metrics, "bop_ws_sent_messages_total{route=\"/\"} 2\n");
    peer_free(one);
    peer_free(other);
    TURN_UNTIL(f->closes == 2);
    pass_ms(f, 1000); /* The last one has gone: no later than this. */
    check_shows(metrics, "bop_ws_open{route=\"/\"} 0\n");
    bop_http_server_destroy(f->server);
    f->server = NULL;
    turn(f->loop);
    check_shows(metrics, "bop_ws_opened_total{route=\"/\"} 2\n");
    bop_metrics_destroy(metrics);
}

TEST(counters, of_one_route_go_to_one_place)
{
    struct bop_ws_counters counters = {0};
    struct bop_metrics *metrics;

    REQUIRE_EQ(bop_metrics_create(NULL, &metrics), 0);
    f->options.counters = &counters;
    f->options.metrics = metrics;
    REQUIRE_EQ(bop_http_server_create(f->loop, NULL, &f->server), 0);
    CHECK_EQ(bop_ws_route(f->server, "/", &f->options, f), BOP_EINVAL);
    f->options.counters = NULL;
    CHECK_EQ(bop_ws_route(f->server, "/", &f->options, f), 0);
    bop_http_server_destroy(f->server);
    f->server = NULL;
    bop_metrics_destroy(metrics);
}

/* ---- Time ---- */

TEST(time, pings_who_is_silent_and_closes_who_stays_so)
{
    struct peer *peer;

    f->options.idle_timeout_ms = 1000;
    f->options.ping_interval_ms = 400;
    serve(f);
    peer = peer_open(f);
    pass_ms(f, 399);
    expect_got(peer, "");
    pass_ms(f, 101);
    expect_got(peer, "P()");
    peer_send_frames(peer, {FRAME(0x8a, "")});
    expect_seen(f, "O()");
    pass_ms(f, 399); /* From now on it says nothing. */
    expect_got(peer, "");
    pass_ms(f, 101);
    expect_got(peer, "P()");
    pass_ms(f, 400);
    expect_got(peer, "P()");
    pass_ms(f, 200);
    expect_seen(f, "close(1006 nothing came for too long)");
    expect_got(peer, "end");
    peer_free(peer);
}

TEST(time, stands_still_while_paused)
{
    struct peer *peer;

    f->options.idle_timeout_ms = 1000;
    f->options.ping_interval_ms = UINT64_MAX;
    serve(f);
    peer = peer_open(f);
    bop_ws_pause(f->ws);
    pass_ms(f, 5000);
    CHECK(bop_ws_is_open(f->ws));
    bop_ws_resume(f->ws);
    pass_ms(f, 900);
    CHECK(bop_ws_is_open(f->ws));
    pass_ms(f, 500);
    expect_seen(f, "close(1006 nothing came for too long)");
    peer_free(peer);
}

TEST(time, sending_counts_only_if_it_shall)
{
    struct peer *peer;

    f->options.idle_timeout_ms = 1000;
    f->options.ping_interval_ms = UINT64_MAX;
    f->options.sending_is_activity = true;
    serve(f);
    peer = peer_open(f);
    for (int i = 0; i < 5; i++) {
        pass_ms(f, 600);
        CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("!")), 0);
    }
    CHECK_EQ(f->closes, 0);
    pass_ms(f, 1300);
    expect_seen(f, "close(1006 nothing came for too long)");
    peer_free(peer);
}

TEST(time, ends_a_life)
{
    struct peer *peer;

    f->options.lifetime_ms = 1000;
    serve(f);
    peer = peer_open(f);
    for (int i = 0; i < 3; i++) {
        pass_ms(f, 300);
        peer_send_frames(peer, {TEXT("alive")});
        expect_seen(f, "T(alive)");
    }
    pass_ms(f, 400);
    expect_got(peer, "X(1001 end of its lifetime)");
    peer_send_frames(peer, {FRAME(0x88, "\x03\xe9")});
    expect_got(peer, "end");
    peer_free(peer);
    expect_seen(f, "close(1001)");
}

/* ---- The server's stop ---- */

static void on_stopped(struct bop_http_server *server, void *user)
{
    ((struct fixture *)user)->stopped = true;
}

TEST(stop, says_going_away_and_waits)
{
    struct peer *peer;

    serve(f);
    peer = peer_open(f);
    bop_http_server_stop(f->server, 5000, on_stopped, f);
    expect_got(peer, "X(1001)");
    CHECK(!f->stopped);
    peer_send_frames(peer, {FRAME(0x88, "\x03\xe9")});
    expect_got(peer, "end");
    peer_free(peer);
    expect_seen(f, "close(1001)");
    TURN_UNTIL(f->stopped);
}

TEST(stop, cuts_who_does_not_go)
{
    struct peer *peer;

    f->options.close_timeout_ms = 60000;
    serve(f);
    peer = peer_open(f);
    bop_http_server_stop(f->server, 500, on_stopped, f);
    expect_got(peer, "X(1001)");
    pass_ms(f, 600);
    expect_got(peer, "end");
    TURN_UNTIL(f->stopped);
    peer_free(peer);
}

/* A request that had begun finds its route although nothing holds the stop up. */
TEST(stop, answers_late_requests)
{
    struct peer *peer;

    serve(f);
    peer = peer_new(f, connect_to(f->port, 0), false);
    peer_send(peer, "GET / HTTP/1.1\r\n", 16);
    for (int i = 0; i < 5; i++) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
    }
    bop_http_server_stop(f->server, 5000, on_stopped, f);
    peer_send(peer,
              "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " PEER_KEY
              "\r\nSec-WebSocket-Version: 13\r\n\r\n",
              124);
    CHECK_STR_HAS(peer_head(peer), "HTTP/1.1 503 ");
    peer_free(peer);
    TURN_UNTIL(f->stopped);
}
