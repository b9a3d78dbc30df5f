/*
 * The life of a connection: made, used, closed in every way, never twice.
 */
#include <sys/resource.h>

#include "socket_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

static void make_echo(struct end *end)
{
    end->echo = true;
}

TEST(sock, carries_bytes_both_ways)
{
    struct end client;

    end_init(&client, f);
    f->prepare = make_echo;
    end_connect(&client, default_limits);
    write_text(&client, "before it is open, ");
    TURN_UNTIL(client.opens == 1);
    write_text(&client, "and after");
    TURN_UNTIL(client.got.size == 28);
    CHECK_SLICE_EQ(bop_buf_slice(&client.got), bytes("before it is open, and after"));
    CHECK_EQ(client.opens, 1);
    CHECK_EQ(f->accepted[0].opens, 0);
    end_close(&client);
    TURN_UNTIL(client.closes == 1 && f->accepted[0].closes == 1);
    CHECK_EQ(client.reason, BOP_ECANCELED);
    CHECK_EQ(f->accepted[0].reason, 0);
    bop_buf_deinit(&client.got);
}

TEST(sock, names_the_other_side)
{
    struct end client;
    char expected[64];

    end_init(&client, f);
    end_connect(&client, default_limits);
    TURN_UNTIL(f->accepts == 1 && client.opens == 1);
    snprintf(expected, sizeof(expected), "127.0.0.1:%u", bop_listener_port(f->listener));
    CHECK_STR_EQ(bop_socket_peer_name(client.sock), expected);
    CHECK_STR_HAS(bop_socket_peer_name(f->accepted[0].sock), "127.0.0.1:");
    end_close(&client);
    CHECK_STR_EQ(bop_socket_peer_name(client.sock), expected); /* Until on_close has returned. */
    TURN_UNTIL(client.closes == 1);
}

TEST(sock, refuses_what_comes_after_close)
{
    struct end client;

    end_init(&client, f);
    end_connect(&client, default_limits);
    TURN_UNTIL(client.opens == 1);
    write_text(&client, "dropped");
    end_close(&client);
    end_close(&client);
    CHECK_EQ(bop_socket_write(client.sock, bytes("x")), BOP_ECLOSED);
    CHECK_PTR_EQ(bop_socket_output(client.sock), NULL);
    CHECK_EQ(bop_socket_queued(client.sock), 0);
    bop_socket_flush_later(client.sock);
    bop_socket_pause(client.sock);
    bop_socket_resume(client.sock);
    bop_socket_close_after_flush(client.sock, 10);
    TURN_UNTIL(client.closes == 1 && f->accepts == 1 && f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].got.size, 0);
}

/* ---- Closing in each callback ---- */

static void close_again(struct end *end)
{
    bop_socket_close(end->sock);
}

TEST(close, in_on_open)
{
    struct end client;

    end_init(&client, f);
    client.open = end_close;
    client.close = close_again;
    end_connect(&client, default_limits);
    TURN_UNTIL(client.closes == 1 && f->accepts == 1 && f->accepted[0].closes == 1);
    CHECK_EQ(client.reason, BOP_ECANCELED);
}

static size_t close_on_data(struct end *end, struct bop_slice bytes)
{
    end_close(end);
    /* The bytes are ours until we return. */
    CHECK_EQ(bytes.data[0], 'x');
    return bytes.size / 2;
}

static void prepare_close_on_data(struct end *end)
{
    end->data = close_on_data;
}

TEST(close, in_on_data)
{
    struct end client;

    end_init(&client, f);
    f->prepare = prepare_close_on_data;
    end_connect(&client, default_limits);
    write_text(&client, "xyz");
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(f->accepted[0].datas, 1);
    CHECK_EQ(f->accepted[0].reason, BOP_ECANCELED);
}

TEST(close, in_on_accept)
{
    struct end client;

    end_init(&client, f);
    f->accept = end_close;
    end_connect(&client, default_limits);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, 0);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, BOP_ECANCELED);
}

TEST(close, in_on_pressure)
{
    struct end client;
    struct bop_socket_limits limits = {.write_high = 10, .write_low = 5};

    end_init(&client, f);
    client.drain = end_close;
    end_connect(&client, limits);
    write_text(&client, "more than ten bytes");
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.drains, 1);
    CHECK_EQ(client.reason, BOP_ECANCELED);
}

TEST(close, before_it_is_open)
{
    struct end client;

    end_init(&client, f);
    end_connect(&client, default_limits);
    end_close(&client);
    CHECK_EQ(client.closes, 0);
    turn(f->loop);
    CHECK_EQ(client.closes, 1);
    CHECK_EQ(client.opens, 0);
}

/* One connection closes another that has an event in the same turn. */
static struct end *victim;

static size_t close_victim(struct end *end, struct bop_slice bytes)
{
    if (victim->closes == 0) {
        bop_socket_close(victim->sock);
    }
    return bytes.size;
}

TEST(close, of_one_with_an_event_in_the_same_turn)
{
    struct end clients[2];

    for (int i = 0; i < 2; i++) {
        end_init(&clients[i], f);
        end_connect(&clients[i], default_limits);
        TURN_UNTIL(f->accepts == (unsigned)i + 1 && clients[i].opens == 1);
    }
    f->accepted[0].data = close_victim;
    f->accepted[1].data = close_victim;
    victim = &f->accepted[1];
    write_text(&clients[0], "x");
    write_text(&clients[1], "x");
    TURN_UNTIL(f->accepted[1].closes == 1);
    TURN_UNTIL(clients[1].closes == 1);
    CHECK_EQ(f->accepted[0].closes, 0);
    end_finish(&clients[0]);
}

/* ---- Closed by the other side, or not at all ---- */

TEST(close, by_a_reset_gives_its_code)
{
    int fd = raw_connect(f, 0);

    raw_reset(fd);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, -ECONNRESET);
}

TEST(close, by_a_reset_while_paused_gives_its_code)
{
    int fd = raw_connect(f, 0);

    bop_socket_pause(f->accepted[0].sock);
    raw_send(fd, "abc", 3);
    turn(f->loop);
    raw_reset(fd);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, -ECONNRESET);
    CHECK_EQ(f->accepted[0].datas, 0);
}

/* A peer that sends its request, ends its side and waits. */
TEST(close, by_a_half_close_lets_the_answer_out)
{
    char answer[16];
    int fd;

    f->prepare = make_echo;
    fd = raw_connect(f, 0);
    raw_send(fd, "question", 8);
    shutdown(fd, SHUT_WR);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, 0);
    CHECK_EQ(raw_await(fd, answer, sizeof(answer)), 8);
    CHECK_MEM_EQ(answer, "question", 8);
    CHECK_EQ(raw_await(fd, answer, sizeof(answer)), 0);
    close(fd);
}

/* The second write meets a reset: an error code, not a signal. */
TEST(close, by_writing_to_a_dead_peer_gives_its_code)
{
    int fd = raw_connect(f, 0);

    bop_socket_pause(f->accepted[0].sock); /* So that it does not see the end. */
    close(fd);
    for (int i = 0; i < 1000 && f->accepted[0].closes == 0; i++) {
        BOP_IGNORE(bop_socket_write(f->accepted[0].sock, bytes("x"))); /* Until it is closed. */
        REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
    }
    CHECK_EQ(f->accepted[0].closes, 1);
    CHECK(f->accepted[0].reason == -EPIPE || f->accepted[0].reason == -ECONNRESET);
}

TEST(loop, destroyed_closes_all_with_canceled)
{
    struct end open, connecting;

    end_init(&open, f);
    end_init(&connecting, f);
    end_connect(&open, default_limits);
    TURN_UNTIL(open.opens == 1 && f->accepts == 1);
    end_connect(&connecting, default_limits);
    write_text(&open, "never sent");
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    CHECK_EQ(open.closes, 1);
    CHECK_EQ(open.reason, BOP_ECANCELED);
    CHECK_EQ(connecting.closes, 1);
    CHECK_EQ(connecting.reason, BOP_ECANCELED);
    CHECK_EQ(f->accepted[0].closes, 1);
    CHECK_EQ(f->accepted[0].reason, BOP_ECANCELED);
}

static void connect_anew(struct end *end)
{
    struct bop_connect_options options = {
        .host = "127.0.0.1", .port = 1, .events = &end_events, .user = end};
    struct bop_socket *sock;

    CHECK_EQ(bop_connect(end->f->loop, &options, &sock, NULL), BOP_ECLOSED);
}

TEST(loop, being_destroyed_opens_nothing_new)
{
    struct end client;

    end_init(&client, f);
    client.close = connect_anew;
    end_connect(&client, default_limits);
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    CHECK_EQ(client.closes, 1);
}

/* ---- Connecting ---- */

/* A port of loopback that nobody listens on: bound, so that nobody else takes it. */
static int reserve_port(uint16_t *out_port)
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_EQ(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *out_port = ntohs(address.sin_port);
    return fd;
}

TEST(connect, that_is_refused_closes_with_the_code)
{
    struct bop_connect_options options = {.host = "127.0.0.1", .events = &end_events};
    struct end client;
    int fd = reserve_port(&options.port);

    end_init(&client, f);
    options.user = &client;
    REQUIRE_EQ(bop_connect(f->loop, &options, &client.sock, NULL), 0);
    CHECK_EQ(client.closes, 0);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, -ECONNREFUSED);
    CHECK_EQ(client.opens, 0);
    close(fd);
}

TEST(connect, that_takes_too_long_closes_with_timed_out)
{
    struct bop_connect_options options = {
        .host = "127.0.0.1", .timeout_ms = 20, .events = &end_events};
    struct sockaddr_in address;
    struct end client;
    int fd = reserve_port(&options.port), fillers[4];

    /* A backlog of nothing, filled: the kernel drops further attempts. */
    REQUIRE_EQ(listen(fd, 0), 0);
    address = loopback(options.port);
    for (int i = 0; i < 4; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        BOP_IGNORE(connect(fillers[i], (struct sockaddr *)&address, sizeof(address)));
    }
    end_init(&client, f);
    options.user = &client;
    REQUIRE_EQ(bop_connect(f->loop, &options, &client.sock, NULL), 0);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, -ETIMEDOUT);
    for (int i = 0; i < 4; i++) {
        close(fillers[i]);
    }
    close(fd);
}

/* "localhost" may be ::1 first, where nobody listens. */
TEST(connect, by_name_tries_each_address)
{
    struct bop_connect_options options = {
        .host = "localhost", .port = bop_listener_port(f->listener), .events = &end_events};
    struct end client;

    end_init(&client, f);
    options.user = &client;
    REQUIRE_EQ(bop_connect(f->loop, &options, &client.sock, NULL), 0);
    CHECK_STR_HAS(bop_socket_peer_name(client.sock), ":");
    TURN_UNTIL(client.opens == 1);
    CHECK_STR_HAS(bop_socket_peer_name(client.sock), "127.0.0.1:");
    end_finish(&client);
}

TEST(connect, to_a_name_that_is_none_closes_with_not_found)
{
    struct bop_connect_options options = {.host = "no..name", .port = 1, .events = &end_events};
    struct end client;

    end_init(&client, f);
    options.user = &client;
    REQUIRE_EQ(bop_connect(f->loop, &options, &client.sock, NULL), 0);
    CHECK_EQ(client.closes, 0);
    turn(f->loop);
    CHECK_EQ(client.closes, 1);
    CHECK_EQ(client.reason, BOP_ENOTFOUND);
}

TEST(connect, refuses_bad_options)
{
    struct bop_socket_events no_close = {.on_data = end_on_data};
    struct bop_connect_options options = {.host = "127.0.0.1", .port = 1};
    struct bop_socket *sock = NULL;

    CHECK_EQ(bop_connect(f->loop, &options, &sock, NULL), BOP_EINVAL);
    options.events = &no_close;
    CHECK_EQ(bop_connect(f->loop, &options, &sock, NULL), BOP_EINVAL);
    options.events = &end_events;
    options.host = NULL;
    CHECK_EQ(bop_connect(f->loop, &options, &sock, NULL), BOP_EINVAL);
    CHECK_PTR_EQ(sock, NULL);
}

TEST(connect, without_descriptors_is_refused_at_once)
{
    struct bop_connect_options options = {.host = "127.0.0.1", .port = 1, .events = &end_events};
    struct bop_error err = {0};
    struct rlimit before, none;
    struct bop_socket *sock = NULL;
    int rc;

    REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    rc = bop_connect(f->loop, &options, &sock, &err);
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_EQ(rc, -EMFILE);
    CHECK_STR_HAS(err.message, "connect to 127.0.0.1:1: ");
}

/* ---- Many ---- */

TEST(sock, a_thousand_at_once)
{
    enum { COUNT = 1000 };
    struct end *clients = calloc(COUNT, sizeof(*clients));
    unsigned done = 0;
    struct rlimit limit;

    REQUIRE(clients != NULL);
    REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 2 * COUNT + 50) {
        free(clients);
        TEST_SKIP("too few descriptors allowed");
    }
    f->prepare = make_echo;
    for (int i = 0; i < COUNT; i++) {
        end_init(&clients[i], f);
        end_connect(&clients[i], default_limits);
        write_text(&clients[i], "hello");
    }
    while (done < COUNT) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 1000), 0);
        done = 0;
        for (int i = 0; i < COUNT; i++) {
            done += clients[i].got.size == 5;
            REQUIRE_EQ(clients[i].closes, 0);
        }
    }
    CHECK_EQ(f->accepts, COUNT);
    for (int i = 0; i < COUNT; i++) {
        end_close(&clients[i]);
        bop_buf_deinit(&clients[i].got);
    }
    TURN_UNTIL(f->accepted[COUNT - 1].closes == 1);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(clients[i].closes, 1);
    }
    free(clients);
}

static bool all_are_closed(const struct fixture *f)
{
    for (unsigned i = 0; i < f->accepts; i++) {
        if (f->accepted[i].closes == 0) {
            return false;
        }
    }
    return true;
}

/* Connect, and close at another moment each time, from either side. */
static void come_and_go(struct fixture *f, int round)
{
    struct end client;

    if (round % 4 == 3) {
        struct sockaddr_in address = loopback(bop_listener_port(f->listener));
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        REQUIRE(fd >= 0);
        REQUIRE_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        if (round % 8 == 3) {
            raw_reset(fd);
        } else {
            close(fd);
        }
        return;
    }
    end_init(&client, f);
    end_connect(&client, default_limits);
    if (round % 4 == 1) {
        turn(f->loop);
    } else if (round % 4 == 2) {
        TURN_UNTIL(client.opens == 1);
    }
    end_finish(&client);
    CHECK_EQ(client.closes, 1);
}

TEST(sock, comes_and_goes_in_no_time_and_leaves_nothing)
{
    enum { ROUNDS = 400 };
    size_t live = 0;

    for (int round = 0; round < 2 * ROUNDS; round++) {
        if (round == ROUNDS) {
            TURN_UNTIL(all_are_closed(f));
            live = f->heap.live;
        }
        come_and_go(f, round);
    }
    TURN_UNTIL(bop_listener_counters(f->listener).open == 0 && all_are_closed(f));
    CHECK(f->accepts > ROUNDS);
    CHECK(f->heap.live <= live);
}

/* ---- Faults ---- */

static void keep_some(struct end *end)
{
    end->consume_max = 3;
    end->echo = true;
}

/* Make all, exchange bytes with some kept, close. Returns the first code that is not 0. */
static int whole_life(struct fixture *f, struct end *client)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator};
    struct bop_listen_options listen = {.on_accept = fixture_on_accept, .user = f};
    struct bop_connect_options connect = {
        .host = "127.0.0.1", .timeout_ms = 10000, .events = &end_events, .user = client};
    int rc = bop_loop_create(&options, &f->loop);

    if (rc != 0) {
        return rc;
    }
    rc = bop_listen(f->loop, &listen, &f->listener, NULL);
    if (rc != 0) {
        return rc;
    }
    connect.port = bop_listener_port(f->listener);
    rc = bop_connect(f->loop, &connect, &client->sock, NULL);
    if (rc != 0) {
        client->closes = 1; /* It will not be called: as good as closed. */
        return rc;
    }
    rc = bop_socket_write(client->sock, bytes("hello"));
    CHECK(strlen(bop_socket_peer_name(client->sock)) > 0);
    TURN_UNTIL(client->got.size == 3 || client->closes == 1 || rc != 0);
    if (client->closes == 0) {
        bop_socket_close_after_flush(client->sock, 1000);
        TURN_UNTIL(client->closes == 1);
    }
    return rc;
}

TEST(sock, survives_each_fault)
{
    f->prepare = keep_some;
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    FAULT_SWEEP(&f->faults) {
        struct end client;
        int rc;

        end_init(&client, f);
        f->accepts = 0;
        rc = whole_life(f, &client);
        CHECK(rc == 0 || rc == f->faults.fired);
        bop_loop_destroy(f->loop);
        f->loop = NULL;
        CHECK(client.closes == 1 || client.sock == NULL);
        CHECK(f->faults.fired != 0 || client.got.size == 3);
        for (unsigned i = 0; i < f->accepts; i++) {
            CHECK_EQ(f->accepted[i].closes, 1);
            bop_buf_deinit(&f->accepted[i].got);
        }
        bop_buf_deinit(&client.got);
        CHECK_EQ(f->heap.live, 0);
    }
    f->accepts = 0;
    /* The loop, its sockets' memory, table and chunks; the listener; of the client's
     * socket what it connects with, its seldom needs and its name; its queue, which the
     * server's then is; the rest that the server keeps. */
    CHECK(f->faults.at >= 12);
}

/* All that can be asked of a socket, with memory failing anywhere. */
static int rich_life(struct fixture *f, struct end *client)
{
    struct bop_socket_limits limits = {.counters = true,
                                       .lifetime_ms = 100000,
                                       .pause_max_ms = 100000,
                                       .when_full = BOP_SOCKET_DROP_OLDEST,
                                       .read_rate = {.bytes_per_s = 1 << 30},
                                       .write_rate = {.bytes_per_s = 1 << 30}};
    struct bop_loop_options options = {.allocator = &f->heap.allocator};
    struct bop_listen_options listen = {.on_accept = fixture_on_accept,
                                        .user = f,
                                        .limits = limits,
                                        .path = test_path(test_tmpdir(), "socket")};
    struct bop_slice parts[2] = {bytes("he"), bytes("llo")};
    struct bop_shared *shared;
    int fds[2], rc = bop_loop_create(&options, &f->loop);

    rc = rc != 0 ? rc : bop_listen(f->loop, &listen, &f->listener, NULL);
    if (rc != 0) {
        return rc;
    }
    REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    rc = bop_socket_adopt(f->loop, fds[0], &limits, &end_events, client, &client->sock);
    if (rc != 0) {
        close(fds[0]);
        close(fds[1]);
        client->closes = 1; /* It will not be called: as good as closed. */
        return rc;
    }
    shared = bop_shared_create(&f->heap.allocator, 2000);
    rc = shared != NULL ? bop_socket_write_shared(client->sock, shared, 0, 2000) : BOP_ENOMEM;
    bop_shared_unref(shared);
    rc = rc != 0 ? rc : bop_socket_write_parts(client->sock, parts, 2);
    rc = rc != 0 ? rc : bop_socket_write_file(client->sock, dup(fds[1]), 0, 0);
    bop_socket_set_lifetime(client->sock, 5000);
    raw_send(fds[1], "question", 8);
    TURN_UNTIL(client->got.size == 3 || client->closes == 1 || rc != 0);
    if (client->closes == 0) {
        bop_socket_close_after_flush(client->sock, 1000);
    }
    close(fds[1]);
    TURN_UNTIL(client->closes == 1);
    return rc;
}

TEST(sock, with_all_limits_survives_each_fault)
{
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    FAULT_SWEEP(&f->faults) {
        struct end client;
        int rc;

        end_init(&client, f);
        client.consume_max = 3;
        rc = rich_life(f, &client);
        CHECK(rc == 0 || rc == f->faults.fired);
        bop_loop_destroy(f->loop);
        f->loop = NULL;
        CHECK(client.closes == 1 || client.sock == NULL);
        CHECK(f->faults.fired != 0 || client.got.size == 3);
        bop_buf_deinit(&client.got);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK(f->faults.at >= 12);
}
