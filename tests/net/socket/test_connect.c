/*
 * Connecting: names, several addresses, ends of one's own, and every way to fail.
 */
#include <sys/resource.h>
#include <sys/un.h>

#include "../resolve/fake_resolver.h"
#include "socket_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

static int connect_with(struct fixture *f, struct end *end, struct bop_connect_options options)
{
    int rc;

    end_init(end, f);
    options.events = &end_events;
    options.user = end;
    end->in_callback = true;
    rc = bop_connect(f->loop, &options, &end->sock, NULL);
    end->in_callback = false;
    return rc;
}

/* ---- A loop whose time is the test's ---- */

static void use_clock(struct fixture *f, struct net_clock *clock)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator, .clock = &clock->clock};

    bop_loop_destroy(f->loop);
    net_clock_init(clock, 1000);
    REQUIRE_EQ(bop_loop_create(&options, &f->loop), 0);
    fixture_listen(f, (struct bop_listen_options){.host = NULL});
}

/* Turn until the fake's answer has come: it is posted by a thread. */
static void turn_until_answered(struct fixture *f, struct fake_resolver *fake)
{
    pthread_mutex_lock(&fake->lock);
    while (fake->calls == 0 || fake->running > 0) {
        pthread_cond_wait(&fake->changed, &fake->lock);
    }
    pthread_mutex_unlock(&fake->lock);
    bop_resolver_destroy(fake->resolver); /* Its threads have posted when this returns. */
    fake->resolver = NULL;
    turn(f->loop);
}

/* A port of an address that nobody listens on, bound, so that nobody else takes it. */
static int reserve(const char *host, uint16_t *out_port, bool listens)
{
    struct sockaddr_storage storage;
    struct bop_address address;
    socklen_t size;
    int fd;

    REQUIRE_EQ(bop_address_parse(host, *out_port, &address), 0);
    size = bop_address_to_sockaddr(&address, &storage);
    fd = socket(address.family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&storage, size) != 0) {
        close(fd);
        return -1;
    }
    REQUIRE_EQ(listens ? listen(fd, 10) : 0, 0);
    size = sizeof(storage);
    REQUIRE_EQ(getsockname(fd, (struct sockaddr *)&storage, &size), 0);
    *out_port = bop_address_from_sockaddr((struct sockaddr *)&storage).port;
    return fd;
}

/** An address that never answers: a listener whose backlog is full. */
struct black_hole {
    int fd;
    int fillers[3];
};

static void black_hole_open(struct black_hole *hole, const char *host, uint16_t port)
{
    struct sockaddr_storage storage;
    struct bop_address address;
    socklen_t size;
    int one = 1;

    REQUIRE_EQ(bop_address_parse(host, port, &address), 0);
    size = bop_address_to_sockaddr(&address, &storage);
    hole->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE_EQ(setsockopt(hole->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
    REQUIRE_EQ(bind(hole->fd, (struct sockaddr *)&storage, size), 0);
    REQUIRE_EQ(listen(hole->fd, 0), 0);
    for (int i = 0; i < 3; i++) {
        hole->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        BOP_IGNORE(connect(hole->fillers[i], (struct sockaddr *)&storage, size));
    }
}

static void black_hole_close(struct black_hole *hole)
{
    for (int i = 0; i < 3; i++) {
        close(hole->fillers[i]);
    }
    close(hole->fd);
}

/* ---- Names ---- */

TEST(connect, by_name_asks_another_thread_and_opens)
{
    struct fake_resolver fake = {0};
    struct end client;
    char expected[64];

    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){.host = "db.example",
                                                         .port = bop_listener_port(f->listener),
                                                         .resolver = fake.resolver}),
               0);
    snprintf(expected, sizeof(expected), "db.example:%u", bop_listener_port(f->listener));
    CHECK_STR_EQ(bop_socket_peer_name(client.sock), expected);
    write_text(&client, "written before the name is known");
    TURN_UNTIL(client.opens == 1);
    CHECK_STR_EQ(fake.last_host, "db.example");
    snprintf(expected, sizeof(expected), "127.0.0.1:%u", bop_listener_port(f->listener));
    CHECK_STR_EQ(bop_socket_peer_name(client.sock), expected);
    TURN_UNTIL(f->accepts == 1 && f->accepted[0].got.size == 32);
    end_finish(&client);
    fake_resolver_deinit(&fake);
}

TEST(connect, to_a_name_that_is_not_known_says_so)
{
    struct fake_resolver fake = {0};
    struct end client;

    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake.addresses[0] = NULL;
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "nobody.example", .port = 1, .resolver = fake.resolver}),
               0);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, BOP_ENOTFOUND);
    fake_resolver_deinit(&fake);
}

TEST(connect, closed_while_its_name_is_looked_up)
{
    struct fake_resolver fake = {0};
    struct end client;

    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake_resolver_hold(&fake, true);
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "db.example", .port = 1, .resolver = fake.resolver}),
               0);
    fake_resolver_await(&fake, 1);
    end_close(&client);
    turn(f->loop);
    CHECK_EQ(client.closes, 1);
    CHECK_EQ(client.reason, BOP_ECANCELED);
    fake_resolver_hold(&fake, false);
    fake_resolver_await(&fake, 0);
    turn(f->loop);
    CHECK_EQ(client.closes, 1);
    fake_resolver_deinit(&fake);
}

TEST(connect, whose_name_takes_too_long_times_out)
{
    struct fake_resolver fake = {0};
    struct net_clock clock;
    struct end client;

    use_clock(f, &clock);
    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake_resolver_hold(&fake, true);
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "db.example", .port = 1, .resolver = fake.resolver}),
               0);
    clock.now_us += 29999 * 1000;
    turn(f->loop);
    CHECK_EQ(client.closes, 0);
    clock.now_us += 1000; /* The default: 30 s. */
    turn(f->loop);
    CHECK_EQ(client.closes, 1);
    CHECK_EQ(client.reason, -ETIMEDOUT);
    fake_resolver_deinit(&fake);
}

TEST(connect, whose_loop_ends_while_its_name_is_looked_up)
{
    struct fake_resolver fake = {0};
    struct end client;

    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake_resolver_hold(&fake, true);
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "db.example", .port = 1, .resolver = fake.resolver}),
               0);
    fake_resolver_await(&fake, 1);
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    CHECK_EQ(client.closes, 1);
    CHECK_EQ(client.reason, BOP_ECANCELED);
    fake_resolver_deinit(&fake);
}

TEST(connect, to_more_names_than_may_wait_is_refused_at_once)
{
    struct fake_resolver fake = {0};
    struct end clients[3];
    struct bop_connect_options options = {.host = "db.example", .port = 1};

    fake_resolver_init(&fake, &f->heap.allocator, 1, 1);
    fake_resolver_hold(&fake, true);
    options.resolver = fake.resolver;
    REQUIRE_EQ(connect_with(f, &clients[0], options), 0);
    fake_resolver_await(&fake, 1);
    REQUIRE_EQ(connect_with(f, &clients[1], options), 0);
    CHECK_EQ(connect_with(f, &clients[2], options), BOP_EBUSY);
    end_finish(&clients[0]);
    end_finish(&clients[1]);
    CHECK_EQ(clients[2].closes, 0);
    fake_resolver_deinit(&fake);
}

/* ---- Several addresses ---- */

TEST(eyeballs, the_first_address_that_answers_wins)
{
    struct fake_resolver fake = {0};
    struct net_clock clock;
    struct black_hole hole;
    struct end client;
    uint16_t port;

    use_clock(f, &clock);
    port = bop_listener_port(f->listener);
    black_hole_open(&hole, "127.0.0.9", port);
    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake.addresses[0] = "127.0.0.9";
    fake.addresses[1] = "127.0.0.1";
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "db.example", .port = port, .resolver = fake.resolver}),
               0);
    turn_until_answered(f, &fake);
    clock.now_us += 249 * 1000;
    for (int i = 0; i < 3; i++) {
        turn(f->loop);
    }
    CHECK_EQ(client.opens + f->accepts, 0); /* Not yet its turn. */
    clock.now_us += 1000;
    for (int i = 0; i < 5000 && (client.opens == 0 || f->accepts == 0); i++) {
        turn(f->loop);
    }
    CHECK_EQ(client.opens, 1);
    CHECK_STR_HAS(bop_socket_peer_name(client.sock), "127.0.0.1:");
    end_close(&client);
    turn(f->loop);
    black_hole_close(&hole);
    fake_resolver_deinit(&fake);
}

/* One that refuses is not waited for. */
TEST(eyeballs, the_next_address_is_tried_as_soon_as_one_fails)
{
    struct fake_resolver fake = {0};
    struct net_clock clock; /* It stands still. */
    struct end client;

    use_clock(f, &clock);
    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake.addresses[0] = "127.0.0.8";
    fake.addresses[1] = "127.0.0.7";
    fake.addresses[2] = "255.255.255.255"; /* Fails without being tried. */
    fake.addresses[3] = "127.0.0.1";
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){.host = "db.example",
                                                         .port = bop_listener_port(f->listener),
                                                         .resolver = fake.resolver}),
               0);
    turn_until_answered(f, &fake);
    for (int i = 0; i < 5000 && client.opens == 0; i++) {
        turn(f->loop);
    }
    CHECK_EQ(client.opens, 1);
    CHECK_STR_HAS(bop_socket_peer_name(client.sock), "127.0.0.1:");
    end_close(&client);
    turn(f->loop);
    fake_resolver_deinit(&fake);
}

/* Both are connected when the loop looks: one wins, the other is closed. */
TEST(eyeballs, one_wins_of_two_that_answer_in_the_same_turn)
{
    struct fake_resolver fake = {0};
    struct net_clock clock;
    struct end client;
    struct pollfd wait;
    uint16_t port = 0;
    int fds[2];

    use_clock(f, &clock);
    fds[0] = reserve("127.0.0.5", &port, true);
    fds[1] = reserve("127.0.0.6", &port, true);
    REQUIRE(fds[0] >= 0 && fds[1] >= 0);
    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake.addresses[0] = "127.0.0.5";
    fake.addresses[1] = "127.0.0.6";
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "db.example", .port = port, .resolver = fake.resolver}),
               0);
    turn_until_answered(f, &fake);
    wait = (struct pollfd){.fd = fds[0], .events = POLLIN};
    REQUIRE_EQ(poll(&wait, 1, 60000), 1);
    clock.now_us += 250 * 1000;
    turn(f->loop);
    for (int i = 0; i < 5000 && client.opens == 0; i++) {
        turn(f->loop);
    }
    CHECK_EQ(client.opens, 1);
    CHECK_STR_HAS(bop_socket_peer_name(client.sock), "127.0.0.5:");
    /* Had the second been begun, it is closed. */
    wait.fd = fds[1];
    if (poll(&wait, 1, 0) > 0) {
        int extra = accept(fds[1], NULL, NULL);
        char byte;

        REQUIRE(extra >= 0);
        CHECK_EQ(raw_await(extra, &byte, 1), 0);
        close(extra);
    }
    end_close(&client);
    turn(f->loop);
    close(fds[0]);
    close(fds[1]);
    fake_resolver_deinit(&fake);
}

/* IPv6 first, then the families in turn, whatever the order within the answer. */
TEST(eyeballs, families_take_turns)
{
    struct fake_resolver fake = {0};
    struct net_clock clock;
    struct black_hole hole;
    struct end client;
    uint16_t port = 0;
    int fd;

    use_clock(f, &clock);
    fd = reserve("::1", &port, true);
    if (fd < 0) {
        TEST_SKIP("no IPv6 on this machine");
    }
    black_hole_open(&hole, "127.0.0.9", port);
    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake.addresses[0] = "127.0.0.9";
    fake.addresses[1] = "127.0.0.1"; /* Nobody listens there: it would fail in between. */
    fake.addresses[2] = "::1";
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "db.example", .port = port, .resolver = fake.resolver}),
               0);
    turn_until_answered(f, &fake);
    clock.now_us += 250 * 1000;
    for (int i = 0; i < 5000 && client.opens == 0; i++) {
        turn(f->loop);
    }
    CHECK_EQ(client.opens, 1);
    CHECK_STR_HAS(bop_socket_peer_name(client.sock), "[::1]:");
    end_close(&client);
    turn(f->loop);
    black_hole_close(&hole);
    close(fd);
    fake_resolver_deinit(&fake);
}

TEST(eyeballs, of_many_failures_the_telling_one_is_told)
{
    struct fake_resolver fake = {0};
    struct end client;
    uint16_t port = 0;
    int fd = reserve("127.0.0.1", &port, false);

    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake.addresses[0] = "255.255.255.255";
    fake.addresses[1] = "127.0.0.1";
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "db.example", .port = port, .resolver = fake.resolver}),
               0);
    TURN_UNTIL(client.closes == 1);
    CHECK(client.reason == -ECONNREFUSED || client.reason == -EACCES);
    close(fd);
    fake_resolver_deinit(&fake);
}

TEST(eyeballs, all_within_one_timeout)
{
    struct fake_resolver fake = {0};
    struct net_clock clock;
    struct black_hole holes[2];
    struct end client;
    uint16_t port;

    use_clock(f, &clock);
    port = bop_listener_port(f->listener);
    black_hole_open(&holes[0], "127.0.0.9", port);
    black_hole_open(&holes[1], "127.0.0.10", port);
    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake.addresses[0] = "127.0.0.9";
    fake.addresses[1] = "127.0.0.10";
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){.host = "db.example",
                                                         .port = port,
                                                         .timeout_ms = 600,
                                                         .resolver = fake.resolver}),
               0);
    turn_until_answered(f, &fake);
    clock.now_us += 300 * 1000;
    turn(f->loop);
    clock.now_us += 299 * 1000;
    turn(f->loop);
    CHECK_EQ(client.closes, 0);
    clock.now_us += 1000;
    turn(f->loop);
    CHECK_EQ(client.closes, 1);
    CHECK_EQ(client.reason, -ETIMEDOUT);
    black_hole_close(&holes[0]);
    black_hole_close(&holes[1]);
    fake_resolver_deinit(&fake);
}

TEST(eyeballs, closed_while_several_are_tried)
{
    struct fake_resolver fake = {0};
    struct net_clock clock;
    struct black_hole holes[2];
    struct end client;
    uint16_t port;

    use_clock(f, &clock);
    port = bop_listener_port(f->listener);
    black_hole_open(&holes[0], "127.0.0.9", port);
    black_hole_open(&holes[1], "127.0.0.10", port);
    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    fake.addresses[0] = "127.0.0.9";
    fake.addresses[1] = "127.0.0.10";
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "db.example", .port = port, .resolver = fake.resolver}),
               0);
    turn_until_answered(f, &fake);
    clock.now_us += 300 * 1000;
    turn(f->loop);
    end_close(&client);
    turn(f->loop);
    CHECK_EQ(client.closes, 1);
    CHECK_EQ(client.reason, BOP_ECANCELED);
    black_hole_close(&holes[0]);
    black_hole_close(&holes[1]);
    fake_resolver_deinit(&fake);
}

/* ---- Addresses and ends of one's own ---- */

TEST(connect, to_an_address_needs_no_text)
{
    struct bop_address address = bop_address_ipv4(0x7f000001, bop_listener_port(f->listener));
    struct end client;

    REQUIRE_EQ(connect_with(f, &client, (struct bop_connect_options){.address = &address}), 0);
    TURN_UNTIL(client.opens == 1);
    end_finish(&client);
}

TEST(connect, from_an_address_and_port)
{
    uint16_t port = 0;
    int fd = reserve("127.0.0.3", &port, false);
    struct end client;
    char expected[64];

    close(fd); /* To have a port that is free. */
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){.host = "127.0.0.1",
                                                         .port = bop_listener_port(f->listener),
                                                         .source_host = "127.0.0.3",
                                                         .source_port = port}),
               0);
    TURN_UNTIL(client.opens == 1 && f->accepts == 1);
    snprintf(expected, sizeof(expected), "127.0.0.3:%u", port);
    CHECK_STR_EQ(bop_socket_peer_name(f->accepted[0].sock), expected);
    CHECK_EQ(bop_socket_local_port(client.sock), port);
    end_finish(&client);
}

TEST(connect, from_a_port_alone)
{
    uint16_t port = 0;
    int fd = reserve("0.0.0.0", &port, false);
    struct end client;

    close(fd);
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){.host = "127.0.0.1",
                                                         .port = bop_listener_port(f->listener),
                                                         .source_port = port}),
               0);
    TURN_UNTIL(client.opens == 1);
    CHECK_EQ(bop_socket_local_port(client.sock), port);
    end_finish(&client);
}

TEST(connect, from_a_name_or_a_malformed_address_is_refused)
{
    static const char *const hosts[] = {"localhost", "127.0.0", "::g", ""};
    struct bop_error err = {0};

    for (size_t i = 0; i < BOP_COUNT_OF(hosts); i++) {
        struct bop_connect_options options = {
            .host = "127.0.0.1", .port = 1, .source_host = hosts[i], .events = &end_events};
        struct bop_socket *sock = NULL;

        CHECK_EQ(bop_connect(f->loop, &options, &sock, &err), BOP_EINVAL);
        CHECK_STR_HAS(err.message, "no numeric address");
        CHECK_PTR_EQ(sock, NULL);
    }
}

TEST(connect, from_an_address_of_another_family_or_host_fails)
{
    struct end client;

    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){.host = "127.0.0.1",
                                                         .port = bop_listener_port(f->listener),
                                                         .source_host = "::1"}),
               0);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, -EAFNOSUPPORT);
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){.host = "127.0.0.1",
                                                         .port = bop_listener_port(f->listener),
                                                         .source_host = "192.0.2.1"}),
               0);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, -EADDRNOTAVAIL);
}

/* ---- Unix sockets ---- */

static int listen_unix(const char *path, int backlog)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = strlen(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd >= 0 && size < sizeof(address.sun_path));
    memcpy(address.sun_path, path, size);
    if (path[0] == '@') {
        address.sun_path[0] = '\0';
    }
    REQUIRE_EQ(bind(fd, (struct sockaddr *)&address,
                    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)),
               0);
    REQUIRE_EQ(listen(fd, backlog), 0);
    return fd;
}

static void check_unix(struct fixture *f, const char *path)
{
    int listener = listen_unix(path, 10), fd;
    struct end client;
    char got[8], expected[160];

    REQUIRE_EQ(connect_with(f, &client, (struct bop_connect_options){.path = path}), 0);
    write_text(&client, "hello");
    TURN_UNTIL(client.opens == 1);
    snprintf(expected, sizeof(expected), "unix:%s", path);
    CHECK_STR_EQ(bop_socket_peer_name(client.sock), expected);
    fd = accept(listener, NULL, NULL);
    REQUIRE(fd >= 0);
    turn(f->loop);
    CHECK_EQ(raw_await(fd, got, sizeof(got)), 5);
    close(fd);
    close(listener);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, 0);
    bop_buf_deinit(&client.got);
}

TEST(unix_socket, by_path)
{
    check_unix(f, test_path(NULL, "s"));
}

TEST(unix_socket, by_an_abstract_name)
{
    char name[60];

    snprintf(name, sizeof(name), "@bop-test-connect-%d", (int)getpid());
    check_unix(f, name);
}

TEST(unix_socket, that_is_not_there_says_so)
{
    const char *path = test_path(NULL, "nobody");
    struct end client;

    REQUIRE_EQ(connect_with(f, &client, (struct bop_connect_options){.path = path}), 0);
    CHECK_STR_HAS(bop_socket_error_text(client.sock, -ENOENT), path);
    CHECK_STR_HAS(bop_socket_error_text(client.sock, -ENOENT), "No such file or directory");
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, -ENOENT);
}

TEST(unix_socket, whose_path_is_too_long_is_refused)
{
    char path[200];
    struct end client;

    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    CHECK_EQ(connect_with(f, &client, (struct bop_connect_options){.path = path}), -ENAMETOOLONG);
    CHECK_EQ(connect_with(f, &client, (struct bop_connect_options){.path = ""}), BOP_EINVAL);
}

/* A full backlog is tried again and again until there is room. */
TEST(unix_socket, with_a_full_backlog_waits_for_room)
{
    const char *path = test_path(NULL, "s");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = listen_unix(path, 0), filler, accepted;
    struct net_clock clock;
    struct end client;

    use_clock(f, &clock);
    memcpy(address.sun_path, path, strlen(path));
    filler = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    REQUIRE_EQ(connect(filler, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_EQ(connect_with(f, &client, (struct bop_connect_options){.path = path}), 0);
    for (int i = 0; i < 10; i++) {
        clock.now_us += 20 * 1000;
        turn(f->loop);
    }
    CHECK_EQ(client.opens + client.closes, 0);
    accepted = accept(listener, NULL, NULL);
    REQUIRE(accepted >= 0);
    for (int i = 0; i < 3; i++) {
        clock.now_us += 20 * 1000;
        turn(f->loop);
    }
    CHECK_EQ(client.opens, 1);
    end_close(&client);
    turn(f->loop);
    close(accepted);
    close(filler);
    close(listener);
}

/* ---- Failures ---- */

static void check_text(struct end *end)
{
    CHECK_STR_HAS(bop_socket_error_text(end->sock, end->reason), "connect to ");
    CHECK_STR_HAS(bop_socket_error_text(end->sock, end->reason),
                  end->reason == -ECONNREFUSED ? ": Connection refused" : "no valid host and port");
}

TEST(error, of_a_malformed_host_comes_at_once)
{
    static const char *const hosts[] = {"256.1.1.1", "127.0.0", "::g", "[::1", "1.2.3.4:80"};

    for (size_t i = 0; i < BOP_COUNT_OF(hosts); i++) {
        struct end client;

        REQUIRE_EQ(
            connect_with(f, &client, (struct bop_connect_options){.host = hosts[i], .port = 1}), 0);
        client.close = check_text;
        CHECK_EQ(client.closes, 0);
        turn(f->loop);
        CHECK_EQ(client.closes, 1);
        CHECK_EQ(client.reason, BOP_EINVAL);
    }
}

TEST(error, of_a_host_too_long_for_a_name)
{
    char host[400];
    struct end client;

    memset(host, 'a', sizeof(host) - 1);
    host[sizeof(host) - 1] = '\0';
    REQUIRE_EQ(connect_with(f, &client, (struct bop_connect_options){.host = host, .port = 1}), 0);
    client.close = check_text;
    turn(f->loop);
    CHECK_EQ(client.reason, BOP_EINVAL);
}

TEST(error, of_port_zero_comes_at_once)
{
    struct bop_address address = bop_address_ipv4(0x7f000001, 0);
    struct end client;

    REQUIRE_EQ(connect_with(f, &client, (struct bop_connect_options){.host = "127.0.0.1"}), 0);
    client.close = check_text;
    turn(f->loop);
    CHECK_EQ(client.reason, BOP_EINVAL);
    REQUIRE_EQ(connect_with(f, &client, (struct bop_connect_options){.address = &address}), 0);
    turn(f->loop);
    CHECK_EQ(client.reason, BOP_EINVAL);
}

TEST(error, of_an_unreachable_port_says_so)
{
    uint16_t port = 0;
    int fd = reserve("127.0.0.1", &port, false);
    struct end client;

    REQUIRE_EQ(
        connect_with(f, &client, (struct bop_connect_options){.host = "127.0.0.1", .port = port}),
        0);
    client.close = check_text;
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, -ECONNREFUSED);
    close(fd);
}

/* From a port of the range that the kernel chooses from, to that very port, a
 * connection may meet itself; it must not count as one. */
TEST(error, of_connecting_to_oneself)
{
    uint16_t port = 0;
    int fd = reserve("127.0.0.1", &port, false);
    struct end client;

    close(fd);
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){.host = "127.0.0.1",
                                                         .port = port,
                                                         .source_host = "127.0.0.1",
                                                         .source_port = port}),
               0);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, -ECONNREFUSED);
    CHECK_EQ(client.opens, 0);
}

TEST(error, of_no_descriptors_while_a_name_is_resolved)
{
    struct fake_resolver fake = {0};
    struct rlimit before, none;
    struct end client;

    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    REQUIRE_EQ(connect_with(f, &client,
                            (struct bop_connect_options){
                                .host = "db.example", .port = 1, .resolver = fake.resolver}),
               0);
    REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    TURN_UNTIL(client.closes == 1);
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_EQ(client.reason, -EMFILE);
    fake_resolver_deinit(&fake);
}

/* ---- Faults ---- */

TEST(connect, by_name_survives_each_fault)
{
    struct fake_resolver fake = {0};

    fake_resolver_init(&fake, &f->heap.allocator, 1, 10);
    FAULT_SWEEP(&f->faults) {
        struct end client;
        int rc;

        bop_loop_destroy(f->loop);
        f->loop = NULL;
        if (bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator},
                            &f->loop) != 0) {
            continue;
        }
        rc = connect_with(f, &client,
                          (struct bop_connect_options){
                              .host = "db.example", .port = 1, .resolver = fake.resolver});
        CHECK(rc == 0 || rc == f->faults.fired);
        if (rc == 0) {
            TURN_UNTIL(client.closes == 1);
            CHECK(client.reason == -ECONNREFUSED || client.reason == f->faults.fired);
        }
    }
    CHECK(f->faults.at >= 8);
    fake_resolver_deinit(&fake);
}
