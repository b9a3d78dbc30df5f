/*
 * One listener, several loops: connections handed over to threads of their own.
 */
#include <pthread.h>

#include "socket_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

enum { LOOPS = 2 };

/* A loop on a thread, echoing. */
struct worker {
    struct bop_loop *loop;
    pthread_t thread;
    _Atomic unsigned accepts;
    _Atomic unsigned closes;
};

static struct worker workers[LOOPS];

static size_t echo_on_data(struct bop_socket *sock, void *user, struct bop_slice bytes)
{
    struct worker *worker = user;

    CHECK(pthread_equal(worker->thread, pthread_self()));
    CHECK_EQ(bop_socket_write(sock, bytes), 0);
    return bytes.size;
}

static void echo_on_close(struct bop_socket *sock, void *user, int reason)
{
    struct worker *worker = user;

    worker->closes++;
}

static const struct bop_socket_events echo_events = {.on_data = echo_on_data,
                                                     .on_close = echo_on_close};

static bool worker_on_accept(struct bop_listener *listener, struct bop_socket *sock, void *user)
{
    for (int i = 0; i < LOOPS; i++) {
        if (bop_socket_loop(sock) == workers[i].loop) {
            workers[i].accepts++;
            bop_socket_attach(sock, &echo_events, &workers[i]);
            return true;
        }
    }
    CHECK(!"a loop of ours");
    return false;
}

static void *work(void *arg)
{
    struct worker *worker = arg;

    CHECK_EQ(bop_loop_run(worker->loop), 0);
    return NULL;
}

static void start_workers(struct fixture *f)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator};

    for (int i = 0; i < LOOPS; i++) {
        workers[i] = (struct worker){.accepts = 0};
        REQUIRE_EQ(bop_loop_create(&options, &workers[i].loop), 0);
        REQUIRE_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
}

static void stop_workers(void)
{
    for (int i = 0; i < LOOPS; i++) {
        bop_loop_stop(workers[i].loop);
        REQUIRE_EQ(pthread_join(workers[i].thread, NULL), 0);
        bop_loop_destroy(workers[i].loop);
    }
}

static void listen_for_workers(struct fixture *f)
{
    struct bop_loop *loops[LOOPS] = {workers[0].loop, workers[1].loop};
    struct bop_listen_options options = {
        .on_accept = worker_on_accept, .loops = loops, .loop_count = LOOPS};

    bop_listener_close(f->listener);
    REQUIRE_EQ(bop_listen(f->loop, &options, &f->listener, NULL), 0);
}

static int connect_one(struct fixture *f)
{
    struct sockaddr_in address = loopback(bop_listener_port(f->listener));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Send and read back, while the listener's own loop turns. */
static void check_echo(struct fixture *f, int fd)
{
    char buffer[8];
    ssize_t got;

    raw_send(fd, "hello", 5);
    while ((got = raw_receive(fd, buffer, sizeof(buffer))) == -EAGAIN) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
    }
    CHECK_EQ(got, 5);
    CHECK_MEM_EQ(buffer, "hello", 5);
}

TEST(loops, get_connections_in_turn)
{
    enum { COUNT = 40 };
    int fds[COUNT];

    start_workers(f);
    listen_for_workers(f);
    for (int i = 0; i < COUNT; i++) {
        fds[i] = connect_one(f);
        check_echo(f, fds[i]);
    }
    CHECK_EQ(workers[0].accepts, COUNT / 2);
    CHECK_EQ(workers[1].accepts, COUNT / 2);
    CHECK_EQ(bop_listener_counters(f->listener).accepted, COUNT);
    CHECK_EQ(bop_listener_counters(f->listener).open, COUNT);
    for (int i = 0; i < COUNT; i++) {
        close(fds[i]);
    }
    TURN_UNTIL(bop_listener_counters(f->listener).open == 0);
    bop_listener_close(f->listener);
    turn(f->loop);
    stop_workers();
    CHECK_EQ(workers[0].closes + workers[1].closes, COUNT);
}

/* The listener ends while its connections live on elsewhere, and its loop too. */
TEST(loops, outlive_the_listener)
{
    int fds[4];
    char buffer[8];

    start_workers(f);
    listen_for_workers(f);
    for (int i = 0; i < 4; i++) {
        fds[i] = connect_one(f);
        check_echo(f, fds[i]);
    }
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    for (int i = 0; i < 4; i++) {
        raw_send(fds[i], "still", 5);
        CHECK_EQ(raw_await(fds[i], buffer, sizeof(buffer)), 5);
        close(fds[i]);
    }
    stop_workers();
    CHECK_EQ(workers[0].closes + workers[1].closes, 4);
}

/* Connections on their way when all ends: nothing leaks. */
TEST(loops, may_end_with_connections_on_their_way)
{
    int fds[30];

    start_workers(f);
    listen_for_workers(f);
    for (int i = 0; i < 30; i++) {
        fds[i] = connect_one(f);
    }
    turn(f->loop);
    bop_listener_close(f->listener);
    turn(f->loop);
    stop_workers();
    CHECK_EQ(workers[0].closes + workers[1].closes, workers[0].accepts + workers[1].accepts);
    for (int i = 0; i < 30; i++) {
        close(fds[i]);
    }
}

/* Two loops on one port, spread by the kernel. */
TEST(loops, may_share_a_port)
{
    struct bop_listen_options options = {
        .on_accept = fixture_on_accept, .user = f, .reuse_port = true};
    struct bop_listener *first, *second, *third = NULL;

    REQUIRE_EQ(bop_listen(f->loop, &options, &first, NULL), 0);
    options.port = bop_listener_port(first);
    REQUIRE_EQ(bop_listen(f->loop, &options, &second, NULL), 0);
    CHECK_EQ(bop_listener_port(second), options.port);
    options.reuse_port = false;
    CHECK_EQ(bop_listen(f->loop, &options, &third, NULL), -EADDRINUSE);
}
