/*
 * Listeners: addresses, limits, running out of descriptors.
 */
#include <sys/resource.h>

#include "socket_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

TEST(listen, on_a_busy_port_says_which)
{
    struct bop_listen_options options = {.port = bop_listener_port(f->listener),
                                         .on_accept = fixture_on_accept};
    struct bop_listener *listener = NULL;
    struct bop_error err = {0};
    char expected[128];

    CHECK_EQ(bop_listen(f->loop, &options, &listener, &err), -EADDRINUSE);
    CHECK_PTR_EQ(listener, NULL);
    snprintf(expected, sizeof(expected), "listen on 127.0.0.1:%u: %s", options.port,
             strerror(EADDRINUSE));
    CHECK_STR_EQ(err.message, expected);
}

TEST(listen, refuses_bad_options)
{
    struct bop_listen_options options = {.host = "127.0.0.1"};
    struct bop_listener *listener = NULL;
    struct bop_error err = {0};

    CHECK_EQ(bop_listen(f->loop, &options, &listener, &err), BOP_EINVAL);
    options.on_accept = fixture_on_accept;
    options.host = "no..name";
    CHECK_EQ(bop_listen(f->loop, &options, &listener, &err), BOP_ENOTFOUND);
    CHECK_STR_HAS(err.message, "listen on no..name:0: ");
    options.host = "192.0.2.1"; /* For documentation only: nobody has it. */
    CHECK_EQ(bop_listen(f->loop, &options, &listener, &err), -EADDRNOTAVAIL);
    CHECK_PTR_EQ(listener, NULL);
}

/* ---- Several ---- */

static unsigned quiet_closes;

static size_t quiet_on_data(struct bop_socket *sock, void *user, struct bop_slice bytes)
{
    return bytes.size;
}

static void quiet_on_close(struct bop_socket *sock, void *user, int reason)
{
    quiet_closes++;
}

static const struct bop_socket_events quiet_events = {.on_data = quiet_on_data,
                                                      .on_close = quiet_on_close};

static bool quiet_on_accept(struct bop_listener *listener, struct bop_socket *sock, void *user)
{
    *(struct bop_socket **)user = sock;
    bop_socket_attach(sock, &quiet_events, NULL);
    return true;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

TEST(listen, several_on_one_loop_have_each_its_own_options)
{
    static const char much[100000];
    struct bop_socket *narrow = NULL, *wide = NULL;
    struct bop_listen_options options = {.on_accept = quiet_on_accept, .user = &wide};
    struct bop_listener *narrow_listener, *wide_listener;
    int narrow_fd, wide_fd;

    quiet_closes = 0;
    REQUIRE_EQ(bop_listen(f->loop, &options, &wide_listener, NULL), 0);
    options.user = &narrow;
    options.limits.write_buffer_max = 1000;
    REQUIRE_EQ(bop_listen(f->loop, &options, &narrow_listener, NULL), 0);
    wide_fd = connect_to(bop_listener_port(wide_listener));
    narrow_fd = connect_to(bop_listener_port(narrow_listener));
    TURN_UNTIL(wide != NULL && narrow != NULL);
    CHECK_PTR_EQ(bop_socket_loop(wide), f->loop);
    CHECK_PTR_EQ(bop_socket_loop(narrow), f->loop);
    CHECK_EQ(bop_socket_write(wide, bop_slice(much, sizeof(much))), 0);
    CHECK_EQ(bop_socket_write(narrow, bop_slice(much, sizeof(much))), BOP_EFULL);
    bop_listener_close(narrow_listener);
    CHECK(bop_socket_is_open(narrow));
    CHECK_EQ(bop_listener_counters(wide_listener).open, 1);
    close(raw_connect(f, 0)); /* A third one goes on, too. */
    close(wide_fd);
    close(narrow_fd);
    TURN_UNTIL(quiet_closes == 2 && f->accepted[0].closes == 1);
}

TEST(listen, on_ipv6)
{
    struct bop_listen_options options = {.host = "::1", .on_accept = fixture_on_accept, .user = f};
    struct bop_connect_options connect = {.host = "::1", .events = &end_events};
    struct bop_error err = {0};
    struct end client;
    int rc;

    bop_listener_close(f->listener);
    rc = bop_listen(f->loop, &options, &f->listener, &err);
    if (rc == -EADDRNOTAVAIL || rc == -EAFNOSUPPORT) {
        CHECK_STR_HAS(err.message, "listen on [::1]:0: ");
        TEST_SKIP("no IPv6 here");
    }
    REQUIRE_EQ(rc, 0);
    end_init(&client, f);
    connect.port = bop_listener_port(f->listener);
    connect.user = &client;
    REQUIRE_EQ(bop_connect(f->loop, &connect, &client.sock, NULL), 0);
    TURN_UNTIL(client.opens == 1 && f->accepts == 1);
    CHECK_STR_HAS(bop_socket_peer_name(f->accepted[0].sock), "[::1]:");
    /* The same port again names the address in brackets. */
    options.port = connect.port;
    CHECK_EQ(bop_listen(f->loop, &options, &f->listener, &err), -EADDRINUSE);
    CHECK_STR_HAS(err.message, "listen on [::1]:");
    end_finish(&client);
}

TEST(listen, may_refuse_a_connection)
{
    char buffer[4];
    int fd;

    f->refuse = true;
    fd = raw_connect(f, 0);
    CHECK_EQ(f->refused, 1);
    turn(f->loop);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 0);
    close(fd);
}

TEST(listen, closes_connections_above_the_limit)
{
    char buffer[4];
    int fds[3], late;
    struct sockaddr_in address;

    bop_listener_close(f->listener);
    fixture_listen(f, (struct bop_listen_options){.connections_max = 2});
    fds[0] = raw_connect(f, 0);
    fds[1] = raw_connect(f, 0);
    address = loopback(bop_listener_port(f->listener));
    late = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE_EQ(connect(late, (struct sockaddr *)&address, sizeof(address)), 0);
    TURN_UNTIL(raw_receive(late, buffer, sizeof(buffer)) == 0);
    CHECK_EQ(f->accepts, 2);
    CHECK_EQ(bop_listener_counters(f->listener).refused, 1);
    CHECK_EQ(bop_listener_counters(f->listener).open, 2);
    close(late);
    close(fds[0]);
    TURN_UNTIL(f->accepted[0].closes == 1);
    fds[2] = raw_connect(f, 0); /* There is room again. */
    CHECK_EQ(f->accepts, 3);
    close(fds[1]);
    close(fds[2]);
}

TEST(listen, ended_leaves_its_connections)
{
    struct end client;
    struct bop_connect_options options = {.host = "127.0.0.1", .events = &end_events};
    int fd = raw_connect(f, 0);

    options.port = bop_listener_port(f->listener);
    bop_listener_close(f->listener);
    bop_listener_close(NULL);
    turn(f->loop);
    raw_send(fd, "still here", 10);
    TURN_UNTIL(f->accepted[0].got.size == 10);
    end_init(&client, f);
    options.user = &client;
    REQUIRE_EQ(bop_connect(f->loop, &options, &client.sock, NULL), 0);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, -ECONNREFUSED);
    close(fd);
    TURN_UNTIL(f->accepted[0].closes == 1);
}

static void close_listener(struct end *end)
{
    bop_listener_close(end->f->listener);
}

TEST(listen, may_end_in_on_accept)
{
    struct end clients[3];

    f->accept = close_listener;
    for (int i = 0; i < 3; i++) {
        end_init(&clients[i], f);
        end_connect(&clients[i], default_limits);
    }
    TURN_UNTIL(clients[0].opens == 1);
    turn(f->loop);
    CHECK_EQ(f->accepts, 1);
    for (int i = 0; i < 3; i++) {
        end_finish(&clients[i]);
    }
    TURN_UNTIL(f->accepted[0].closes == 1);
}

/* With no descriptor left the listener looks away for a moment, on a clock that
 * the test moves, and then serves who has waited. */
TEST(listen, survives_running_out_of_descriptors)
{
    struct net_clock clock;
    struct bop_loop_options options = {.allocator = &f->heap.allocator, .clock = &clock.clock};
    struct sockaddr_in address;
    struct rlimit before, tight;
    int fd, next;

    bop_loop_destroy(f->loop);
    net_clock_init(&clock, 0);
    REQUIRE_EQ(bop_loop_create(&options, &f->loop), 0);
    fixture_listen(f, (struct bop_listen_options){.port = 0});
    address = loopback(bop_listener_port(f->listener));
    fd = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);

    next = dup(fd);
    REQUIRE(next >= 0);
    close(next);
    REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    tight.rlim_cur = (rlim_t)next;
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
    REQUIRE_EQ(bop_loop_run_once(f->loop, 60000), 0); /* It is on its way. */
    turn(f->loop);
    CHECK_EQ(f->accepts, 0);
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    turn(f->loop);
    CHECK_EQ(f->accepts, 0); /* Not spinning meanwhile. */
    CHECK_EQ(bop_listener_counters(f->listener).out_of_files, 1);
    clock.now_us += 100 * 1000;
    turn(f->loop);
    turn(f->loop);
    CHECK_EQ(f->accepts, 1);
    close(fd);
    bop_loop_destroy(f->loop);
    f->loop = NULL;
}
