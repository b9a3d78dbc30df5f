/*
 * Ways to run a loop: to its end, drained, driven from outside.
 */
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <bop/socket.h>

#include "../net_fixture.h"

struct fixture {
    struct test_heap heap;
    struct bop_loop *loop;
    struct bop_listener *listener;
    struct bop_socket *server;
    struct bop_socket *client;
    unsigned timers, posts, opens, closes;
    int reasons[2];
    bool close_on_open;
};

struct test_timer {
    struct bop_timer timer;
    struct fixture *f;
    unsigned again;
};

struct test_post {
    struct bop_post post;
    struct fixture *f;
};

static void on_timer(struct bop_timer *timer)
{
    struct test_timer *self = BOP_CONTAINER_OF(timer, struct test_timer, timer);

    self->f->timers++;
    if (self->again > 0) {
        self->again--;
        bop_timer_start(self->f->loop, timer, 1);
    }
}

static struct test_timer timer_of(struct fixture *f)
{
    struct test_timer timer = {.f = f};

    bop_timer_init(&timer.timer, on_timer);
    return timer;
}

static void on_post(struct bop_post *post)
{
    BOP_CONTAINER_OF(post, struct test_post, post)->f->posts++;
}

static size_t on_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    return bytes.size;
}

static void on_open(struct bop_socket *socket, void *user)
{
    struct fixture *f = user;

    f->opens++;
    if (f->close_on_open) {
        bop_socket_close(socket);
    }
}

static void on_close(struct bop_socket *socket, void *user, int reason)
{
    struct fixture *f = user;

    REQUIRE(f->closes < 2);
    f->reasons[f->closes++] = reason;
}

static const struct bop_socket_events events = {
    .on_open = on_open, .on_data = on_data, .on_close = on_close};

static bool on_accept(struct bop_listener *listener, struct bop_socket *socket, void *user)
{
    struct fixture *f = user;

    f->server = socket;
    bop_socket_attach(socket, &events, user);
    return true;
}

static void listen_and_connect(struct fixture *f)
{
    REQUIRE_EQ(bop_listen(f->loop, &(struct bop_listen_options){.on_accept = on_accept, .user = f},
                          &f->listener, NULL),
               0);
    REQUIRE_EQ(bop_connect(f->loop,
                           &(struct bop_connect_options){.host = "127.0.0.1",
                                                         .port = bop_listener_port(f->listener),
                                                         .events = &events,
                                                         .user = f},
                           &f->client, NULL),
               0);
}

static void connect_both(struct fixture *f)
{
    listen_and_connect(f);
    while (f->server == NULL || f->opens == 0) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, -1), 0);
    }
}

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    REQUIRE_EQ(
        bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator}, &f->loop), 0);
}

static void teardown(struct fixture *f)
{
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* ---- To the end ---- */

TEST(to_end, of_an_empty_loop_is_at_once)
{
    CHECK_EQ(bop_loop_run_to_end(f->loop), 0);
}

TEST(to_end, waits_for_timers_and_posts)
{
    struct test_timer timer = timer_of(f);
    struct test_post post = {.post.fn = on_post, .f = f};

    timer.again = 2;
    bop_timer_start(f->loop, &timer.timer, 1);
    bop_loop_post(f->loop, &post.post);
    CHECK_EQ(bop_loop_run_to_end(f->loop), 0);
    CHECK_EQ(f->timers, 3);
    CHECK_EQ(f->posts, 1);
}

TEST(to_end, waits_for_sockets_to_close)
{
    listen_and_connect(f);
    f->close_on_open = true;
    bop_listener_close(f->listener); /* The kernel has accepted already. */
    CHECK_EQ(bop_loop_run_to_end(f->loop), 0);
    CHECK_EQ(f->closes, 1);
}

static void close_listener(struct bop_timer *timer)
{
    struct fixture *f = BOP_CONTAINER_OF(timer, struct test_timer, timer)->f;

    f->timers++;
    bop_listener_close(f->listener);
}

TEST(to_end, waits_for_a_listener_to_close)
{
    struct test_timer timer = timer_of(f);

    REQUIRE_EQ(bop_listen(f->loop, &(struct bop_listen_options){.on_accept = on_accept, .user = f},
                          &f->listener, NULL),
               0);
    bop_timer_init(&timer.timer, close_listener);
    bop_timer_start(f->loop, &timer.timer, 2);
    CHECK_EQ(bop_loop_run_to_end(f->loop), 0);
    CHECK_EQ(f->timers, 1);
}

TEST(to_end, is_ended_by_stop)
{
    listen_and_connect(f);
    bop_loop_stop(f->loop);
    CHECK_EQ(bop_loop_run_to_end(f->loop), 0);
}

static void release_hold(struct bop_post *post)
{
    struct fixture *f = BOP_CONTAINER_OF(post, struct test_post, post)->f;

    f->posts++;
    bop_loop_release(f->loop);
}

static void *post_later(void *argument)
{
    struct test_post *post = argument;

    bop_loop_post(post->f->loop, &post->post);
    return NULL;
}

/* The loop cannot know of the thread but by the hold. */
TEST(to_end, waits_for_a_hold)
{
    struct test_post post = {.post.fn = release_hold, .f = f};
    pthread_t thread;

    bop_loop_hold(f->loop);
    REQUIRE_EQ(pthread_create(&thread, NULL, post_later, &post), 0);
    CHECK_EQ(bop_loop_run_to_end(f->loop), 0);
    CHECK_EQ(f->posts, 1);
    pthread_join(thread, NULL);
}

/* ---- Drained ---- */

TEST(drain, of_an_idle_loop_stops_it)
{
    bop_loop_drain(f->loop, 60000);
    CHECK_EQ(bop_loop_run(f->loop), 0);
}

TEST(drain, stops_when_the_last_socket_closed)
{
    connect_both(f);
    bop_loop_drain(f->loop, 60000);
    turn(f->loop);
    CHECK_EQ(f->closes, 0); /* They go on. */
    CHECK_EQ(bop_socket_write(f->client, bop_slice("x", 1)), 0);
    bop_socket_close_after_flush(f->client, 1000);
    CHECK_EQ(bop_loop_run(f->loop), 0);
    CHECK_EQ(f->closes, 2);
}

TEST(drain, closes_what_is_left_when_time_is_over)
{
    connect_both(f);
    bop_loop_drain(f->loop, 5);
    CHECK_EQ(bop_loop_run(f->loop), 0);
    REQUIRE_EQ(f->closes, 2);
    CHECK_EQ(f->reasons[0], BOP_ECANCELED);
}

TEST(drain, accepts_no_more)
{
    struct bop_listen_options options = {.on_accept = on_accept, .user = f};
    uint16_t port;

    connect_both(f);
    port = bop_listener_port(f->listener);
    bop_loop_drain(f->loop, 5);
    /* The port is free already. */
    options.port = port;
    REQUIRE_EQ(bop_listen(f->loop, &options, &f->listener, NULL), 0);
    CHECK_EQ(bop_loop_run(f->loop), 0);
}

/* ---- Driven from outside ---- */

static bool readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, timeout_ms) == 1;
}

TEST(outside, descriptor_tells_of_posts)
{
    struct test_post post = {.post.fn = on_post, .f = f};
    int fd = bop_loop_fd(f->loop);

    REQUIRE(fd >= 0);
    CHECK_EQ(bop_loop_fd(f->loop), fd);
    turn(f->loop); /* What the beginning left to be seen. */
    CHECK(!readable(fd, 0));
    bop_loop_post(f->loop, &post.post);
    CHECK(readable(fd, -1));
    turn(f->loop);
    CHECK_EQ(f->posts, 1);
    CHECK(!readable(fd, 0));
}

TEST(outside, descriptor_tells_of_timers)
{
    struct test_timer timer = timer_of(f);
    int fd = bop_loop_fd(f->loop);

    timer.again = 3;
    REQUIRE(fd >= 0);
    turn(f->loop);
    bop_timer_start(f->loop, &timer.timer, 1);
    while (f->timers < 4) {
        CHECK(readable(fd, -1));
        turn(f->loop);
    }
    turn(f->loop); /* The last one's ring, should it have come late. */
    CHECK(!readable(fd, 0));
}

TEST(outside, descriptor_tells_of_sockets)
{
    int fd = bop_loop_fd(f->loop);

    REQUIRE(fd >= 0);
    listen_and_connect(f);
    BOP_IGNORE(bop_loop_wait_ms(f->loop) == 0); /* It was used from outside. */
    while (f->server == NULL || f->opens == 0) {
        CHECK(readable(fd, -1));
        turn(f->loop);
    }
    bop_socket_close(f->client);
    CHECK_EQ(bop_loop_wait_ms(f->loop), 0);
    while (f->closes < 2) {
        CHECK(readable(fd, -1));
        turn(f->loop);
    }
}

TEST(outside, wait_is_as_long_as_the_next_timer_is_away)
{
    struct test_timer timer = timer_of(f);
    struct test_post post = {.post.fn = on_post, .f = f};
    int64_t ms;

    CHECK_EQ(bop_loop_wait_ms(f->loop), -1);
    bop_timer_start(f->loop, &timer.timer, 100000);
    ms = bop_loop_wait_ms(f->loop);
    CHECK(ms > 50000 && ms <= 100000);
    bop_timer_stop(f->loop, &timer.timer);
    CHECK_EQ(bop_loop_wait_ms(f->loop), -1);
    bop_loop_post(f->loop, &post.post);
    CHECK_EQ(bop_loop_wait_ms(f->loop), 0);
    turn(f->loop);
    CHECK_EQ(bop_loop_wait_ms(f->loop), -1);
}

/* The descriptor itself is nothing that run_to_end stays for. */
TEST(outside, descriptor_does_not_keep_the_loop)
{
    REQUIRE(bop_loop_fd(f->loop) >= 0);
    CHECK_EQ(bop_loop_run_to_end(f->loop), 0);
}
