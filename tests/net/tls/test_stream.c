/*
 * Bytes over TLS: large and small, cut anywhere, both ways at once, to the end
 * and not to the end; and peers that do not do as they should.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "openssl_faults.h"
#include "tls_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

static void start_with(struct fixture *f, const struct bop_tls_options *server,
                       const struct bop_socket_limits *limits)
{
    struct bop_tls_options client = client_options(f);

    make_server(f, server);
    make_client(f, &client);
    start_listening(f, limits);
}

static void start(struct fixture *f)
{
    struct bop_tls_options server = server_options(f);

    start_with(f, &server, NULL);
}

static uint8_t pattern(size_t at)
{
    return (uint8_t)((at * 2654435761u) >> 13);
}

static uint8_t *make_pattern(size_t size)
{
    uint8_t *bytes = malloc(size);

    REQUIRE(bytes != NULL);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = pattern(i);
    }
    return bytes;
}

static bool has_pattern(const struct bop_buf *buf)
{
    for (size_t i = 0; i < buf->size; i++) {
        if (buf->data[i] != pattern(i)) {
            return false;
        }
    }
    return true;
}

static void make_echo(struct end *end)
{
    end->echo = true;
}

static void make_keep(struct end *end)
{
    end->keep = true;
}

/* ---- Bytes ---- */

TEST(stream, echoes_writes_of_all_sizes)
{
    size_t total = 3u << 20, at = 0, piece = 1;
    uint8_t *data = make_pattern(total);
    struct end client, *server;

    start(f);
    f->prepare = make_echo;
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    while (at < total) {
        piece = bop_min_u64(piece * 3 % 70001 + 1, total - at);
        REQUIRE_EQ(bop_socket_write(client.socket, bop_slice(data + at, piece)), 0);
        at += piece;
        if (at % 7 == 0) {
            REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
        }
    }
    TURN_UNTIL(client.got.size == total);
    CHECK(has_pattern(&client.got));
    close_both(&client, server);
    end_deinit(&client);
    free(data);
}

TEST(stream, sends_shared_buffers_and_files)
{
    size_t total = 300000;
    uint8_t *data = make_pattern(3 * total);
    const char *path = test_path(NULL, "file");
    struct bop_shared *shared = bop_shared_create(bop_allocator_default(), total);
    struct end client, *server;
    int fd = open(path, O_RDWR | O_CREAT, 0600);

    REQUIRE(fd >= 0 && shared != NULL);
    REQUIRE_EQ(write(fd, data, 3 * total), (ssize_t)(3 * total));
    memcpy(shared->data, data + total, total);
    start(f);
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    CHECK_EQ(bop_socket_write(server->socket, bop_slice(data, total)), 0);
    CHECK_EQ(bop_socket_write_shared(server->socket, shared, 0, total), 0);
    CHECK_EQ(bop_socket_write_file(server->socket, fd, 2 * total, total - 1), 0);
    CHECK_EQ(bop_socket_write(server->socket, bop_slice(data + 3 * total - 1, 1)), 0);
    bop_shared_unref(shared);
    TURN_UNTIL(client.got.size == 3 * total);
    CHECK(has_pattern(&client.got));
    close_both(&client, server);
    end_deinit(&client);
    free(data);
}

TEST(stream, sends_all_before_it_closes)
{
    size_t total = 5u << 20;
    uint8_t *data = make_pattern(total);
    struct end client, *server;

    start(f);
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    REQUIRE_EQ(bop_socket_write(server->socket, bop_slice(data, total)), 0);
    bop_socket_close_after_flush(server->socket, 20000);
    TURN_UNTIL(client.closes == 1 && server->closes == 1);
    CHECK_EQ(client.got.size, total);
    CHECK(has_pattern(&client.got));
    CHECK_EQ(client.ends, 1);
    CHECK_EQ(server->reason, BOP_ECANCELED);
    end_deinit(&client);
    free(data);
}

TEST(stream, closes_each_half_by_itself)
{
    struct end client, *server;

    start(f);
    f->prepare = make_keep;
    end_init(&client, f);
    client.keep = true;
    server = connect_both(&client, "a.test");
    end_write(&client, "last words");
    CHECK_EQ(bop_socket_shutdown(client.socket), 0);
    TURN_UNTIL(server->ends == 1);
    CHECK_SLICE_EQ(bop_buf_slice(&server->got), bytes("last words"));
    end_write(server, "but I have more to say");
    TURN_UNTIL(client.got.size == 22);
    CHECK_EQ(client.ends, 0);
    CHECK_EQ(bop_socket_shutdown(server->socket), 0);
    TURN_UNTIL(client.closes == 1 && server->closes == 1);
    CHECK_EQ(client.ends, 1);
    CHECK_EQ(client.reason, 0);
    CHECK_EQ(server->reason, 0);
    end_deinit(&client);
}

/* ---- Peers that do not read ---- */

static void count_pressure(struct end *end, bool on)
{
    end->ends += on ? 100 : 1000;
}

static void make_pressed(struct end *end)
{
    end->pressure = count_pressure;
}

TEST(stream, feels_the_pressure_of_a_peer_that_does_not_read)
{
    struct bop_socket_limits limits = {
        .write_buffer_max = 8u << 20, .write_high = 1u << 20, .write_low = 64u << 10};
    struct bop_tls_options options = server_options(f);
    uint8_t *data = make_pattern(1u << 20);
    size_t accepted = 0;
    struct end client, *server;
    int rc = 0;

    start_with(f, &options, &limits);
    f->prepare = make_pressed;
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    bop_socket_pause(client.socket);
    /* The kernel takes some megabytes; then it is up to our queue. */
    for (int i = 0; i < 200 && rc == 0; i++) {
        rc = bop_socket_write(server->socket, bop_slice(data, 1u << 20));
        accepted += rc == 0 ? 1u << 20 : 0;
        REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
    }
    CHECK_EQ(rc, BOP_EFULL);
    CHECK(bop_socket_queued(server->socket) > 7u << 20);
    CHECK(bop_socket_queued(server->socket) <= (8u << 20) + (256u << 10));
    CHECK_EQ(server->ends, 100);
    bop_socket_resume(client.socket);
    TURN_UNTIL(client.got.size == accepted && server->ends == 1100);
    CHECK_EQ(bop_socket_queued(server->socket), 0);
    close_both(&client, server);
    end_deinit(&client);
    free(data);
}

/* ---- A wire that cuts and changes ---- */

/** Carries bytes between a client and the listener, `step` of them a turn. */
struct proxy {
    struct bop_listener *listener;
    struct bop_socket *near, *far;
    struct fixture *f;
    size_t step;
    size_t passed;     /* Bytes from the client to the server. */
    size_t corrupt_at; /* Change this one of them; SIZE_MAX: none. */
    struct bop_buf to_far, to_near;
    unsigned closes;
};

static size_t proxy_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct proxy *proxy = (struct proxy *)user;
    struct bop_buf *buf = socket == proxy->near ? &proxy->to_far : &proxy->to_near;

    REQUIRE_EQ(bop_buf_append(buf, bytes.data, bytes.size), 0);
    return bytes.size;
}

static void proxy_close(struct bop_socket *socket, void *user, int reason)
{
    struct proxy *proxy = (struct proxy *)user;

    struct bop_buf *rest = socket == proxy->near ? &proxy->to_far : &proxy->to_near;

    proxy->closes++;
    BOP_IGNORE(
        bop_socket_write(socket == proxy->near ? proxy->far : proxy->near, bop_buf_slice(rest)));
    bop_buf_clear(rest);
    bop_socket_close_after_flush(socket == proxy->near ? proxy->far : proxy->near, 1000);
}

static const struct bop_socket_events proxy_events = {.on_data = proxy_data,
                                                      .on_close = proxy_close};

static bool proxy_accept(struct bop_listener *listener, struct bop_socket *socket, void *user)
{
    struct proxy *proxy = (struct proxy *)user;
    struct bop_connect_options options = {.host = "127.0.0.1",
                                          .port = bop_listener_port(proxy->f->listener),
                                          .events = &proxy_events,
                                          .user = proxy};

    proxy->near = socket;
    bop_socket_attach(socket, &proxy_events, proxy);
    REQUIRE_EQ(bop_connect(proxy->f->loop, &options, &proxy->far, NULL), 0);
    return true;
}

/* Pass some bytes on, and turn once. */
static void proxy_turn(struct proxy *proxy)
{
    size_t count = bop_min_u64(proxy->step, proxy->to_far.size);

    if (count > 0) {
        if (proxy->corrupt_at >= proxy->passed && proxy->corrupt_at < proxy->passed + count) {
            proxy->to_far.data[proxy->corrupt_at - proxy->passed] ^= 1;
        }
        BOP_IGNORE(bop_socket_write(proxy->far, bop_slice(proxy->to_far.data, count)));
        bop_buf_consume(&proxy->to_far, count);
        proxy->passed += count;
    }
    count = bop_min_u64(proxy->step, proxy->to_near.size);
    if (count > 0) {
        BOP_IGNORE(bop_socket_write(proxy->near, bop_slice(proxy->to_near.data, count)));
        bop_buf_consume(&proxy->to_near, count);
    }
    REQUIRE_EQ(
        bop_loop_run_once(proxy->f->loop, proxy->to_far.size + proxy->to_near.size > 0 ? 0 : 20),
        0);
}

static void proxy_start(struct proxy *proxy, struct fixture *f, size_t step, struct end *client)
{
    struct bop_listen_options listen = {.on_accept = proxy_accept, .user = proxy};
    struct bop_listener *listener = f->listener;

    *proxy = (struct proxy){.f = f, .step = step, .corrupt_at = SIZE_MAX};
    bop_buf_init(&proxy->to_far, NULL, 0);
    bop_buf_init(&proxy->to_near, NULL, 0);
    REQUIRE_EQ(bop_listen(f->loop, &listen, &proxy->listener, NULL), 0);
    f->listener = proxy->listener; /* For the client to connect to. */
    end_connect(client, f->client, "a.test");
    f->listener = listener;
}

static void proxy_stop(struct proxy *proxy)
{
    struct fixture *f = proxy->f;

    bop_listener_close(proxy->listener);
    bop_socket_close(proxy->near);
    bop_socket_close(proxy->far);
    TURN_UNTIL(proxy->closes == 2);
    bop_buf_deinit(&proxy->to_far);
    bop_buf_deinit(&proxy->to_near);
}

static void check_cut(struct fixture *f, size_t step)
{
    struct end client, *server = &f->accepted[f->accepts % ACCEPTED_MAX];
    struct proxy proxy;

    f->prepare = make_echo;
    end_init(&client, f);
    proxy_start(&proxy, f, step, &client);
    end_write(&client, "cut anywhere");
    for (int i = 0; i < 20000 && client.got.size < 12; i++) {
        proxy_turn(&proxy);
    }
    CHECK_SLICE_EQ(bop_buf_slice(&client.got), bytes("cut anywhere"));
    bop_socket_close_after_flush(client.socket, 20000);
    for (int i = 0; i < 20000 && client.closes + server->closes < 2; i++) {
        proxy_turn(&proxy);
    }
    CHECK_EQ(client.closes, 1);
    CHECK_EQ(server->closes, 1);
    CHECK_EQ(server->ends, 1);
    proxy_stop(&proxy);
    end_deinit(&client);
}

TEST(wire, may_cut_anywhere)
{
    start(f);
    check_cut(f, 1);
    check_cut(f, 2);
    check_cut(f, 7);
    check_cut(f, 1000);
}

TEST(wire, may_not_change_a_byte)
{
    struct end client, *server = &f->accepted[0];
    struct proxy proxy;

    start(f);
    end_init(&client, f);
    proxy_start(&proxy, f, 100000, &client);
    for (int i = 0; i < 1000 && (client.opens == 0 || server->opens == 0); i++) {
        proxy_turn(&proxy);
    }
    REQUIRE_EQ(server->opens, 1);
    end_write(&client, "good");
    for (int i = 0; i < 1000 && server->got.size < 4; i++) {
        proxy_turn(&proxy);
    }
    proxy.corrupt_at = proxy.passed + 10;
    end_write(&client, "bad");
    for (int i = 0; i < 1000 && server->closes == 0; i++) {
        proxy_turn(&proxy);
    }
    CHECK_EQ(server->reason, BOP_ETLS);
    CHECK_STR_HAS(server->text, "TLS: ");
    CHECK_STR_HAS(server->text, "bad record mac");
    CHECK_SLICE_EQ(bop_buf_slice(&server->got), bytes("good"));
    for (int i = 0; i < 1000 && client.closes == 0; i++) {
        proxy_turn(&proxy);
    }
    CHECK_STR_HAS(client.text, "the peer gave up: bad record mac");
    proxy_stop(&proxy);
    end_deinit(&client);
}

/* An end without close_notify may be somebody else's doing. */
TEST(wire, may_not_end_it)
{
    struct end client, *server;

    start(f);
    end_init(&client, f);
    server = connect_both(&client, "a.test");
    end_write(&client, "some");
    TURN_UNTIL(server->got.size == 4);
    REQUIRE_EQ(shutdown(bop_socket_fd(client.socket), SHUT_WR), 0);
    TURN_UNTIL(server->closes == 1);
    CHECK_EQ(server->ends, 0);
    CHECK_EQ(server->reason, -ECONNRESET);
    CHECK_STR_HAS(server->text, "without close_notify");
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, -ECONNRESET);
    end_deinit(&client);
}

/* ---- Peers that do not speak TLS ---- */

static void check_stranger(struct fixture *f, struct bop_slice bytes, const char *text)
{
    struct end *server = &f->accepted[f->accepts % ACCEPTED_MAX];
    struct end stranger;

    end_init(&stranger, f);
    end_connect(&stranger, NULL, NULL);
    REQUIRE_EQ(bop_socket_write(stranger.socket, bytes), 0);
    TURN_UNTIL(stranger.closes == 1 && server->closes == 1);
    CHECK_EQ(server->opens, 0);
    CHECK_EQ(server->reason, BOP_ETLS);
    CHECK_STR_HAS(server->text, text);
    end_deinit(&stranger);
}

TEST(strangers, are_told_apart)
{
    static const uint8_t broken_hello[] = {0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0xff, 0, 0};
    uint8_t *noise = make_pattern(100000);

    start(f);
    check_stranger(f, bytes("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"), "plain HTTP");
    check_stranger(f, bytes("EHLO there, this is no TLS at all"), "does not speak TLS");
    check_stranger(f, bop_slice(noise, 100000), "TLS handshake: ");
    check_stranger(f, bop_slice(broken_hello, sizeof(broken_hello)), "TLS handshake: ");
    free(noise);
}

TEST(strangers, are_answered_in_the_clear)
{
    struct bop_tls_options options = server_options(f);
    struct end stranger, client;

    options.plain_answer = bytes("TLS, please\n");
    start_with(f, &options, NULL);
    end_init(&stranger, f);
    end_connect(&stranger, NULL, NULL);
    end_write(&stranger, "EHLO there, this is no TLS at all");
    TURN_UNTIL(stranger.closes == 1);
    CHECK_SLICE_EQ(bop_buf_slice(&stranger.got), options.plain_answer);
    /* Who fails for another reason hears of it by TLS. */
    end_init(&client, f);
    end_connect(&client, f->client, "other.test");
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.got.size, 0);
    CHECK_STR_HAS(client.text, "hostname mismatch");
    end_deinit(&stranger);
    end_deinit(&client);
}

TEST(strangers, have_little_time)
{
    struct bop_tls_options options = server_options(f);
    struct end silent, slow;

    options.handshake_timeout_ms = 30;
    start_with(f, &options, NULL);
    end_init(&silent, f);
    end_init(&slow, f);
    end_connect(&silent, NULL, NULL);
    end_connect(&slow, NULL, NULL);
    end_write(&slow, "\x16\x03\x01\x02");
    TURN_UNTIL(f->accepts == 2 && f->accepted[0].closes == 1 && f->accepted[1].closes == 1);
    CHECK_EQ(f->accepted[0].reason, -ETIMEDOUT);
    CHECK_EQ(f->accepted[1].reason, -ETIMEDOUT);
    TURN_UNTIL(silent.closes == 1 && slow.closes == 1);
    end_deinit(&silent);
    end_deinit(&slow);
}

/* ---- Rationing ---- */

TEST(ration, spreads_handshakes_over_turns)
{
    enum { COUNT = 20 };
    struct bop_tls_options options = server_options(f);
    struct end clients[COUNT];
    unsigned open = 0, most = 0, turns = 0;

    options.handshakes_per_turn = 2;
    start_with(f, &options, NULL);
    for (int i = 0; i < COUNT; i++) {
        end_init(&clients[i], f);
        end_connect(&clients[i], f->client, "a.test");
    }
    while (open < COUNT && turns++ < 100000) {
        unsigned now = 0;

        REQUIRE_EQ(bop_loop_run_once(f->loop, 100), 0);
        for (unsigned i = 0; i < f->accepts; i++) {
            now += f->accepted[i].opens;
        }
        most = now - open > most ? now - open : most;
        open = now;
    }
    CHECK_EQ(open, COUNT);
    CHECK(most <= 2);
    for (int i = 0; i < COUNT; i++) {
        TURN_UNTIL(clients[i].opens == 1);
        close_both(&clients[i], &f->accepted[i]);
        end_deinit(&clients[i]);
    }
}

/* Who sends much while it waits is heard out of turn. */
TEST(ration, hoards_no_bytes)
{
    enum { COUNT = 6 };
    struct bop_tls_options options = server_options(f);
    uint8_t *noise = make_pattern(300000);
    struct end strangers[COUNT];

    options.handshakes_per_turn = 1;
    start_with(f, &options, NULL);
    for (int i = 0; i < COUNT; i++) {
        end_init(&strangers[i], f);
        end_connect(&strangers[i], NULL, NULL);
        REQUIRE_EQ(bop_socket_write(strangers[i].socket, bop_slice(noise, 300000)), 0);
    }
    for (int i = 0; i < COUNT; i++) {
        TURN_UNTIL(strangers[i].closes == 1 && f->accepts == COUNT && f->accepted[i].closes == 1);
        CHECK_EQ(f->accepted[i].reason, BOP_ETLS);
        end_deinit(&strangers[i]);
    }
    free(noise);
}

/* Closing those that wait, in the middle of it, leaves nothing behind. */
TEST(ration, forgets_who_leaves)
{
    enum { COUNT = 20 };
    struct bop_tls_options options = server_options(f);
    struct end clients[COUNT];

    options.handshakes_per_turn = 1;
    start_with(f, &options, NULL);
    for (int i = 0; i < COUNT; i++) {
        end_init(&clients[i], f);
        end_connect(&clients[i], f->client, "a.test");
    }
    TURN_UNTIL(f->accepts == COUNT);
    for (int i = 0; i < COUNT; i++) {
        if (i % 2 == 0) {
            bop_socket_close(f->accepted[i].socket);
        } else {
            bop_socket_close(clients[i].socket);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        TURN_UNTIL(clients[i].closes == 1 && f->accepted[i].closes == 1);
        end_deinit(&clients[i]);
    }
}

/* ---- Faults ---- */

/* Connect, echo, close, as far as it goes. */
static void talk(struct fixture *f, struct end *client)
{
    struct end *server = &f->accepted[f->accepts % ACCEPTED_MAX];
    unsigned before = f->accepts;

    BOP_IGNORE(bop_socket_write(client->socket, bytes("hello")));
    for (int i = 0; i < 2000 && client->got.size < 5 && client->closes == 0; i++) {
        BOP_IGNORE(bop_loop_run_once(f->loop, 10));
    }
    bop_socket_close_after_flush(client->socket, 2000);
    for (int i = 0; i < 2000 && client->closes == 0; i++) {
        BOP_IGNORE(bop_loop_run_once(f->loop, 10));
    }
    for (int i = 0; i < 2000 && f->accepts > before && server->closes == 0; i++) {
        BOP_IGNORE(bop_loop_run_once(f->loop, 10));
    }
    CHECK_EQ(client->closes, 1);
    CHECK(f->accepts == before || server->closes == 1);
}

/* Whatever allocation of ours fails, every socket that was handed out closes
 * once, and nothing leaks. */
TEST(faults, close_what_they_hit)
{
    struct bop_tls_options options = server_options(f);
    unsigned whole = 0;

    start_with(f, &options, NULL);
    f->prepare = make_echo;
    FAULT_SWEEP(&f->faults) {
        struct end client;
        struct bop_connect_options connect = {
            .host = "127.0.0.1",
            .port = bop_listener_port(f->listener),
            .tls = f->client,
            .tls_name = "a.test",
            .events = &end_events,
            .user = &client,
        };

        end_init(&client, f);
        if (bop_connect(f->loop, &connect, &client.socket, NULL) == 0) {
            talk(f, &client);
            whole += client.got.size == 5 ? 1 : 0;
        }
        end_deinit(&client);
    }
    CHECK(whole >= 1); /* The last round at least. */
}

/* The same for those of OpenSSL. Rounds grow apart: there are thousands. */
TEST(faults, of_openssl_close_what_they_hit)
{
    unsigned whole = 0, rounds = 0;
    bool fired = true;

    start(f);
    f->prepare = make_echo;
    for (unsigned long at = 1; fired; at += 1 + at / 8, rounds++) {
        struct end client;

        end_init(&client, f);
        openssl_fail_at(at);
        end_connect(&client, f->client, "a.test");
        talk(f, &client);
        fired = openssl_failed();
        whole += client.got.size == 5 ? 1 : 0;
        end_deinit(&client);
    }
    CHECK(whole >= 1);
    CHECK(rounds > 30);
}
