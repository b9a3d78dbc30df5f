/*
 * Clients against servers that follow a script, good and bad, and against ours.
 */
#include "../tls/certs.h"
#include "conn_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

#define SWITCHING                                                                                  \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

/* A listening socket of the script's. */
static int listen_raw(struct fixture *f)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_EQ(listen(fd, 16), 0);
    REQUIRE_EQ(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    f->port = ntohs(address.sin_port);
    return fd;
}

static int connect_ws(struct fixture *f, const char *path, struct bop_ws **out_ws)
{
    char url[256];
    struct bop_ws_connect_options options = {.url = url, .options = &f->options, .user = f};

    snprintf(url, sizeof(url), "ws://127.0.0.1:%u%s", f->port, path);
    return bop_ws_connect(f->loop, &options, out_ws, NULL);
}

/* The script's side of a connection that asks; its request is left in out_head. */
static struct peer *take_request(struct fixture *f, int listener, char *out_head)
{
    struct peer *peer;
    int fd = -1;

    TURN_UNTIL((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0 ||
               errno != EAGAIN);
    REQUIRE(fd >= 0);
    peer = peer_new(f, fd, true);
    strcpy(out_head, peer_head(peer));
    return peer;
}

static void accept_for(const char *head, char out_accept[BOP_WS_ACCEPT_SIZE + 1])
{
    const char *key = strcasestr(head, "Sec-WebSocket-Key: ");

    REQUIRE(key != NULL);
    bop_ws_accept_key(key + strlen("Sec-WebSocket-Key: "), out_accept);
}

/* Say yes, with more header lines. */
static void say_yes(struct peer *peer, const char *head, const char *more)
{
    char accept[BOP_WS_ACCEPT_SIZE + 1], answer[512];

    accept_for(head, accept);
    snprintf(answer, sizeof(answer), SWITCHING "Sec-WebSocket-Accept: %s\r\n%s\r\n", accept, more);
    peer_send(peer, answer, strlen(answer));
}

/* A client open to a script. */
struct pair {
    int listener;
    struct peer *peer;
    struct bop_ws *ws;
    char head[4096];
};

static void pair_open(struct fixture *f, struct pair *pair, const char *more)
{
    pair->listener = listen_raw(f);
    REQUIRE_EQ(fcntl(pair->listener, F_SETFL, O_NONBLOCK), 0);
    REQUIRE_EQ(connect_ws(f, "/", &pair->ws), 0);
    pair->peer = take_request(f, pair->listener, pair->head);
    say_yes(pair->peer, pair->head, more);
    expect_seen(f, "open");
    CHECK_PTR_EQ(f->ws, pair->ws);
}

static void pair_close(struct pair *pair)
{
    peer_free(pair->peer);
    close(pair->listener);
}

/* ---- Opening ---- */

TEST(client, asks_as_the_protocol_says)
{
    static const char *const protocols[] = {"chat.v2", "chat.v1", NULL};
    const struct bop_http_header headers[] = {{bytes("X-Token"), bytes("42")}};
    struct bop_ws_connect_options options = {.headers = headers, .header_count = 1, .user = f};
    char url[64], head[4096], host[64];
    int listener = listen_raw(f);
    struct peer *peer;

    f->options.protocols = protocols;
    options.options = &f->options;
    options.url = url;
    snprintf(url, sizeof(url), "WS://127.0.0.1:%u/chat?room=1", f->port);
    snprintf(host, sizeof(host), "Host: 127.0.0.1:%u\r\n", f->port);
    REQUIRE_EQ(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    REQUIRE_EQ(bop_ws_connect(f->loop, &options, NULL, NULL), 0);
    peer = take_request(f, listener, head);
    CHECK_STR_HAS(head, "GET /chat?room=1 HTTP/1.1\r\n");
    CHECK_STR_HAS(head, host);
    CHECK_STR_HAS(head, "Upgrade: websocket\r\n");
    CHECK_STR_HAS(head, "Connection: Upgrade\r\n");
    CHECK_STR_HAS(head, "Sec-WebSocket-Version: 13\r\n");
    CHECK_STR_HAS(head, "Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n");
    CHECK_STR_HAS(head, "Sec-WebSocket-Extensions: permessage-deflate");
    CHECK_STR_HAS(head, "X-Token: 42\r\n");
    say_yes(peer, head, "Sec-WebSocket-Protocol: chat.v1\r\n");
    expect_seen(f, "open");
    CHECK_STR_EQ(bop_ws_protocol(f->ws), "chat.v1");
    CHECK(!bop_ws_is_compressed(f->ws));
    peer_free(peer);
    close(listener);
}

TEST(client, is_told_why_it_cannot_open)
{
    static const struct {
        const char *answer;
        const char *reason;
    } cases[] = {
        {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
         "the server answered 404 Not Found"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "the server answered 200 OK"},
        {"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 401 No\r\n\r\n", "the server answered 401 No"},
        {"SSH-2.0-OpenSSH\r\n\r\n", "the server's answer: "},
        {SWITCHING "Sec-WebSocket-Accept: " PEER_ACCEPT "\r\n\r\n", "ccept"},
        {SWITCHING "\r\n", "ccept"},
        {"", "the server closed instead of answering"},
        {"HTTP/1.1 101 Swit", "the server closed instead of answering"},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        char head[4096];
        int listener = listen_raw(f);
        struct bop_ws *ws;
        struct peer *peer;

        REQUIRE_EQ(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
        REQUIRE_EQ(connect_ws(f, "/", &ws), 0);
        CHECK(!bop_ws_is_open(ws));
        CHECK_EQ(bop_ws_send(ws, BOP_WS_TEXT, bytes("early")), BOP_ECLOSED);
        peer = take_request(f, listener, head);
        peer_send(peer, cases[i].answer, strlen(cases[i].answer));
        shutdown(peer->fd, SHUT_WR);
        TURN_UNTIL(f->closes == i + 1);
        CHECK_STR_HAS(f->seen.text, "close(1006 ");
        CHECK_STR_HAS(seen(f), cases[i].reason);
        peer_free(peer);
        close(listener);
    }
    CHECK_EQ(f->opens, 0);
    f->closes = 0;
}

/* What was not offered may not be chosen. */
TEST(client, takes_nothing_it_did_not_ask_for)
{
    static const char *const more[] = {
        "Sec-WebSocket-Protocol: other\r\n",
        "Sec-WebSocket-Extensions: permessage-bzip2\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; unknown=1\r\n",
    };

    for (size_t i = 0; i < BOP_COUNT_OF(more); i++) {
        char head[4096];
        int listener = listen_raw(f);
        struct bop_ws *ws;
        struct peer *peer;

        REQUIRE_EQ(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
        REQUIRE_EQ(connect_ws(f, "/", &ws), 0);
        peer = take_request(f, listener, head);
        say_yes(peer, head, more[i]);
        TURN_UNTIL(f->closes == i + 1);
        CHECK_STR_HAS(seen(f), "close(1006 ");
        peer_free(peer);
        close(listener);
    }
    CHECK_EQ(f->opens, 0);
    f->closes = 0;
}

TEST(client, waits_only_so_long)
{
    char url[64], head[4096];
    struct bop_ws_connect_options options = {
        .url = url, .options = &f->options, .user = f, .timeout_ms = 1000};
    int listener = listen_raw(f);
    struct peer *peer;

    snprintf(url, sizeof(url), "ws://127.0.0.1:%u/", f->port);
    REQUIRE_EQ(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    REQUIRE_EQ(bop_ws_connect(f->loop, &options, NULL, NULL), 0);
    peer = take_request(f, listener, head);
    pass_ms(f, 900);
    CHECK_EQ(f->closes, 0);
    pass_ms(f, 2200);
    expect_seen(f, "close(1006 the server did not answer in time)");
    peer_free(peer);
    close(listener);
    f->closes = 0;
}

TEST(client, hears_that_nobody_listens)
{
    int listener = listen_raw(f);
    struct bop_ws *ws;

    close(listener); /* Its port is free again, and nobody's. */
    REQUIRE_EQ(connect_ws(f, "/", &ws), 0);
    TURN_UNTIL(f->closes == 1);
    CHECK_STR_HAS(f->seen.text, "close(1006 ");
    CHECK_STR_HAS(seen(f), "refused");
    f->closes = 0;
}

TEST(client, may_give_up_while_opening)
{
    char head[4096];
    int listener = listen_raw(f);
    struct bop_ws *ws;
    struct peer *peer;

    REQUIRE_EQ(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    REQUIRE_EQ(connect_ws(f, "/", &ws), 0);
    peer = take_request(f, listener, head);
    CHECK_EQ(bop_ws_close(ws, 1000, bytes("")), 0);
    expect_seen(f, "close(1006)");
    peer_free(peer);
    close(listener);
    f->closes = 0;
}

TEST(client, refuses_what_is_no_url_of_its_own)
{
    static const char *const bad[] = {
        "",
        "ws://",
        "http://localhost/",
        "localhost:80",
        "ws://host/a b",
        "ws://h:99999/",
        "ws://h/#part",
        "ws://user@h/",
        "//localhost/",
        "wss:/h",
    };
    struct bop_error err;
    struct bop_ws *ws;

    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        struct bop_ws_connect_options options = {.url = bad[i], .options = &f->options};

        err = (struct bop_error){0};
        CHECK_EQ(bop_ws_connect(f->loop, &options, &ws, &err), BOP_EINVAL);
        CHECK_STR_HAS(err.message, "connect to ");
    }
}

/* ---- Open ---- */

TEST(client, masks_what_it_sends)
{
    struct pair pair;

    f->echo = true;
    pair_open(f, &pair, "");
    CHECK_EQ(bop_ws_send(pair.ws, BOP_WS_TEXT, bytes("hello")), 0);
    CHECK_EQ(bop_ws_ping(pair.ws, bytes("p")), 0);
    CHECK_EQ(bop_ws_send_part(pair.ws, BOP_WS_BINARY, bytes("a"), false), 0);
    CHECK_EQ(bop_ws_send_part(pair.ws, BOP_WS_BINARY, bytes("b"), true), 0);
    expect_got(pair.peer,
               "T(hello) P(p) B(ab)"); /* Decoded as a server does: masked or not at all. */
    peer_send_frames(pair.peer, {TEXT("from the server")}, {FRAME(0x89, "q")});
    expect_got(pair.peer, "T(from the server) O(q)");
    CHECK_STR_EQ(seen(f), "T(from the server) P(q)");
    pair_close(&pair);
}

TEST(client, takes_frames_that_come_with_the_answer)
{
    char accept[BOP_WS_ACCEPT_SIZE + 1], answer[512], head[4096];
    int listener = listen_raw(f);
    struct bop_ws *ws;
    struct peer *peer;

    REQUIRE_EQ(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    REQUIRE_EQ(connect_ws(f, "/", &ws), 0);
    peer = take_request(f, listener, head);
    accept_for(head, accept);
    snprintf(answer, sizeof(answer),
             SWITCHING "Sec-WebSocket-Accept: %s\r\n\r\n\x81\x02hi\x81\x05"
                       "split",
             accept);
    /* In single bytes. */
    for (size_t i = 0; i < strlen(answer); i++) {
        peer_send(peer, answer + i, 1);
        turn(f->loop);
    }
    expect_seen(f, "open T(hi) T(split)");
    peer_free(peer);
    close(listener);
}

/* What a server may not send, and how it is told. */
TEST(client, fails_servers_that_break_the_rules)
{
    static const struct {
        struct wire_frame frames[3];
        const char *got;
    } cases[] = {
        {{{0x81, "x", 1, WIRE_OTHER_ROLE}, END}, "X(1002 a masked frame from a server) end"},
        {{{0x89, "", 0, WIRE_OTHER_ROLE}, END}, "X(1002 a masked frame from a server) end"},
        {{{0x88, "\x03\xe8", 2, WIRE_OTHER_ROLE}, END}, "X(1002 a masked frame from a server) end"},
        {{{FRAME(0x83, "x")}, END}, "X(1002 a reserved opcode) end"},
        {{{FRAME(0x8b, "")}, END}, "X(1002 a reserved opcode) end"},
        {{{FRAME(0xa1, "x")}, END}, "X(1002 a reserved bit is set) end"},
        {{{FRAME(0x80, "x")}, END}, "X(1002 a continuation of no message) end"},
        {{{FRAME(0x01, "x")}, {TEXT("y")}, END}, "X(1002 a new message inside another one) end"},
        {{{TEXT("\xed\xa0\x80")}, END}, "X(1007 text is not UTF-8) end"},
        {{{FRAME(0x01, "\xe2\x82")}, {FRAME(0x80, "")}, END},
         "X(1007 text ends within a character) end"},
        {{{FRAME(0x88, "\x03\xee")}, END}, "X(1002 a close code that may not be sent) end"},
        {{{FRAME(0x88, "\x03")}, END}, "X(1002 a close frame with half a code) end"},
        {{{FRAME(0x88, "\x03\xe8\xff")}, END}, "X(1007 the reason of closing is not UTF-8) end"},
        {{{0x82, NULL, 1001}, END}, "X(1009 the message is too big) end"},
        {{{0x02, NULL, 600}, {0x80, NULL, 600}, END}, "X(1009 the message is too big) end"},
    };
    struct bop_ws_counters counters = {0};

    f->options.message_bytes_max = 1000;
    f->options.counters = &counters;
    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        struct pair pair;

        pair_open(f, &pair, "");
        for (const struct wire_frame *frame = cases[i].frames; frame->first != 0xffff; frame++) {
            peer_send_frame(pair.peer, frame);
        }
        expect_got(pair.peer, cases[i].got);
        pair_close(&pair);
        TURN_UNTIL(f->closes == f->opens);
        CHECK_STR_HAS(seen(f), "close(1006 ");
        CHECK_EQ(counters.failed, i + 1);
    }
    CHECK_EQ(counters.opened, BOP_COUNT_OF(cases));
    CHECK_EQ(counters.open_now, 0);
    CHECK_EQ(counters.messages_received, 0);
}

TEST(client, closes_both_ways)
{
    struct pair pair;

    pair_open(f, &pair, "");
    CHECK_EQ(bop_ws_close(pair.ws, 1000, bytes("done")), 0);
    expect_got(pair.peer, "X(1000 done)");
    peer_send_frames(pair.peer, {FRAME(0x88, "\x03\xe8")});
    expect_got(pair.peer, "end");
    pair_close(&pair);
    expect_seen(f, "close(1000)");

    pair_open(f, &pair, "");
    peer_send_frames(pair.peer, {FRAME(0x88, "\x03\xe9shutdown")});
    expect_got(pair.peer, "X(1001) end");
    pair_close(&pair);
    expect_seen(f, "close(1001 shutdown)");
}

TEST(client, compresses_if_the_server_agrees)
{
    static char text[2000];
    struct pair pair;

    memset(text, 'c', sizeof(text));
    pair_open(f, &pair,
              "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; "
              "server_no_context_takeover\r\n");
    CHECK(bop_ws_is_compressed(pair.ws));
    pair.peer->rules.deflate = true;
    CHECK_EQ(bop_ws_send(pair.ws, BOP_WS_TEXT, bop_slice(text, sizeof(text))), 0);
    TURN_UNTIL((peer_read(pair.peer), pair.peer->got.size > 0));
    CHECK_STR_HAS(pair.peer->got.text, "T(z:");
    pair_close(&pair);
}

/* ---- With a server of ours ---- */

static unsigned echoes;

static void echo_back(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                      struct bop_slice message)
{
    echoes++;
    CHECK_EQ(bop_ws_send(ws, opcode, message), 0);
}

TEST(client, talks_to_our_server)
{
    static const struct bop_ws_options server_options = {.on_message = echo_back,
                                                         .compression = BOP_WS_COMPRESS_TAKEOVER};
    static char text[30000];
    struct bop_listener *listener;
    struct bop_ws *ws[3];

    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (char)('a' + i * i / 5 % 26);
    }
    echoes = 0;
    f->quiet = true;
    REQUIRE_EQ(bop_http_server_create(f->loop, NULL, &f->server), 0);
    REQUIRE_EQ(bop_ws_route(f->server, "/echo", &server_options, NULL), 0);
    REQUIRE_EQ(bop_http_listen(f->server, &(struct bop_http_listen_options){.host = "127.0.0.1"},
                               &listener, NULL),
               0);
    f->port = bop_listener_port(listener);
    for (unsigned round = 0; round < 2; round++) {
        f->options.compression = round == 0 ? BOP_WS_COMPRESS_DEFAULT : BOP_WS_COMPRESS_TAKEOVER;
        for (int i = 0; i < 3; i++) {
            REQUIRE_EQ(connect_ws(f, "/echo", &ws[i]), 0);
        }
        TURN_UNTIL(f->opens == (round + 1) * 3);
        for (int i = 0; i < 30; i++) {
            CHECK(bop_ws_send(ws[i % 3], BOP_WS_TEXT, bop_slice(text, (size_t)i * 1000)) >= 0);
        }
        TURN_UNTIL(f->messages == (round + 1) * 30);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(bop_ws_close(ws[i], 1000, bytes("")), 0);
        }
        TURN_UNTIL(f->closes == f->opens);
        CHECK_STR_HAS(seen(f), "close(1000)");
    }
    CHECK_EQ(echoes, 60);
}

static void subscribe_it(struct bop_ws *ws, void *user)
{
    see_open(ws, user);
    CHECK_EQ(bop_ws_subscribe(ws, "t"), 0);
}

/* Over TLS, where nothing is sent past the encryption: not topics either. */
TEST(client, talks_to_our_server_over_tls)
{
    struct cert cert = cert_make(
        &(struct cert_options){.name = "localhost", .alternatives = "DNS:localhost,IP:127.0.0.1"});
    struct bop_ws_options server_options = {.on_message = echo_back, .on_open = subscribe_it};
    struct bop_http_listen_options listen = {.host = "127.0.0.1"};
    struct bop_ws_connect_options options = {.options = &f->options, .user = f};
    struct bop_listener *listener;
    struct bop_tls *client_tls;
    char url[64];

    with_topics(f);
    server_options.topics = f->topics;
    f->options.topics = NULL;
    REQUIRE_EQ(
        bop_tls_create(&(struct bop_tls_options){.server = true,
                                                 .identity = {.cert_pem = cert_pem(&cert),
                                                              .key_pem = cert_key_pem(&cert)}},
                       &listen.tls, NULL),
        0);
    REQUIRE_EQ(
        bop_tls_create(&(struct bop_tls_options){.ca_pem = cert_pem(&cert)}, &client_tls, NULL), 0);
    REQUIRE_EQ(bop_http_server_create(f->loop, NULL, &f->server), 0);
    REQUIRE_EQ(bop_ws_route(f->server, "/", &server_options, f), 0);
    REQUIRE_EQ(bop_http_listen(f->server, &listen, &listener, NULL), 0);
    snprintf(url, sizeof(url), "wss://localhost:%u/", bop_listener_port(listener));
    options.url = url;
    options.tls = client_tls;
    REQUIRE_EQ(bop_ws_connect(f->loop, &options, NULL, NULL), 0);
    TURN_UNTIL(f->opens == 2); /* Both ends. */
    seen(f);
    CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_TEXT, bytes("secret")), 0);
    TURN_UNTIL(f->messages == 1);
    CHECK_STR_EQ(seen(f), "T(secret)");
    f->opens = 1; /* The server's end has no on_close. */

    /* Whom it does not trust it does not talk to. */
    options.tls = NULL;
    REQUIRE_EQ(bop_ws_connect(f->loop, &options, NULL, NULL), 0);
    TURN_UNTIL(f->closes == 1);
    CHECK_STR_HAS(seen(f), "close(1006 ");
    f->closes = 0;
    bop_http_server_destroy(f->server);
    f->server = NULL;
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    bop_tls_destroy(listen.tls);
    bop_tls_destroy(client_tls);
    cert_free(&cert);
}

TEST(client, reaches_a_unix_socket)
{
    static const struct bop_ws_options server_options = {.on_message = echo_back};
    struct bop_ws_connect_options options = {
        .url = "ws://some.host/", .options = &f->options, .user = f};
    char path[64];

    snprintf(path, sizeof(path), "@bop-ws-%d", (int)getpid());
    options.unix_path = path;
    REQUIRE_EQ(bop_http_server_create(f->loop, NULL, &f->server), 0);
    REQUIRE_EQ(bop_ws_route(f->server, "/", &server_options, f), 0);
    REQUIRE_EQ(
        bop_http_listen(f->server, &(struct bop_http_listen_options){.path = path}, NULL, NULL), 0);
    REQUIRE_EQ(bop_ws_connect(f->loop, &options, NULL, NULL), 0);
    TURN_UNTIL(f->opens == 1);
    CHECK_EQ(bop_ws_send(f->ws, BOP_WS_TEXT, bytes("by path")), 0);
    TURN_UNTIL(f->messages == 1);
    CHECK_STR_EQ(seen(f), "open T(by path)");
}

/* A client may subscribe as well: what it is sent is masked for it alone. */
TEST(client, hears_topics)
{
    struct pair pair;

    with_topics(f);
    f->options.on_open = subscribe_it;
    pair_open(f, &pair, "");
    CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_TEXT, bytes("one")), 0);
    CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_BINARY, bytes("two")), 0);
    expect_got(pair.peer, "T(one) B(two)");
    pair_close(&pair);
    TURN_UNTIL(f->closes == 1);
}

TEST(client, survives_want_of_memory)
{
    struct bop_ws *ws;
    int listener = listen_raw(f);
    size_t live;

    f->options.on_close = NULL;
    f->options.on_open = NULL;
    REQUIRE_EQ(connect_ws(f, "/", &ws), 0); /* So that what the loop keeps is there. */
    for (int i = 0; i < 3; i++) {
        turn(f->loop);
    }
    bop_ws_terminate(ws);
    turn(f->loop);
    turn(f->loop);
    live = f->heap.live;
    FAULT_SWEEP(&f->faults) {
        int rc = connect_ws(f, "/", &ws);

        CHECK(rc == 0 || rc == BOP_ENOMEM);
        for (int i = 0; i < 3; i++) {
            turn(f->loop);
        }
        if (rc == 0) {
            bop_ws_terminate(ws);
        }
        turn(f->loop);
        turn(f->loop);
        CHECK_EQ(f->heap.live, live);
    }
    CHECK(f->faults.at >= 6);
    close(listener);
}
