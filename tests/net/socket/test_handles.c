/*
 * Handles of the past, sockets in their own memory, and the rest of what can be
 * asked of a socket.
 */
#include <sys/un.h>

#include "../../../src/net/socket/socket_internal.h"
#include "socket_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

/* Nothing that a late call does has an effect, on it or on who has its memory now. */
static void check_past(struct bop_socket *past)
{
    struct bop_slice part = bytes("x");
    struct bop_socket_counters counters;
    struct bop_shared shared;
    char data[600] = {0};

    bop_shared_init(&shared, data, sizeof(data), NULL);
    CHECK_EQ(bop_socket_write(past, part), BOP_ECLOSED);
    CHECK_EQ(bop_socket_write_parts(past, &part, 1), BOP_ECLOSED);
    CHECK_EQ(bop_socket_write_shared(past, &shared, 0, sizeof(data)), BOP_ECLOSED);
    CHECK_EQ(atomic_load(&shared.references), 1);
    CHECK_EQ(bop_socket_write_file(past, dup(0), 0, 1), BOP_ECLOSED);
    CHECK_PTR_EQ(bop_socket_output(past), NULL);
    bop_socket_flush_later(past);
    CHECK_EQ(bop_socket_flush(past), BOP_ECLOSED);
    CHECK_EQ(bop_socket_queued(past), 0);
    CHECK_EQ(bop_socket_shutdown(past), BOP_ECLOSED);
    CHECK_EQ(bop_socket_shutdown_read(past), BOP_ECLOSED);
    bop_socket_pause(past);
    bop_socket_resume(past);
    bop_socket_close(past);
    bop_socket_close_after_flush(past, 1);
    CHECK(!bop_socket_is_open(past));
    bop_socket_set_idle_timeout(past, 1);
    bop_socket_set_lifetime(past, 1);
    CHECK_PTR_EQ(bop_socket_user(past), NULL);
    CHECK_PTR_EQ(bop_socket_loop(past), NULL);
    CHECK_EQ(bop_socket_fd(past), -1);
    CHECK_STR_EQ(bop_socket_peer_name(past), "unknown");
    CHECK_EQ(bop_socket_peer_port(past), 0);
    CHECK_EQ(bop_socket_local_port(past), 0);
    CHECK_STR_EQ(bop_socket_error_text(past, BOP_EFULL), bop_strerror(BOP_EFULL));
    CHECK_EQ(bop_socket_counters(past, &counters), BOP_ECLOSED);
    bop_socket_attach(past, &end_events, NULL);
}

TEST(handle, of_the_past_is_known_for_what_it_is)
{
    struct bop_socket *past;
    int fd = raw_connect(f, 0), next;

    past = f->accepted[0].sock;
    CHECK(bop_socket_is_open(past));
    CHECK_PTR_EQ(bop_socket_user(past), &f->accepted[0]);
    CHECK_PTR_EQ(bop_socket_loop(past), f->loop);
    close(fd);
    TURN_UNTIL(f->accepted[0].closes == 1);
    check_past(past);
    check_past(NULL);
    next = raw_connect(f, 0); /* In the same memory. */
    check_past(past);
    CHECK(f->accepted[1].sock != past);
    raw_send(next, "abc", 3);
    TURN_UNTIL(f->accepted[1].got.size == 3);
    CHECK_EQ(f->accepted[1].closes, 0);
    close(next);
}

TEST(handle, is_good_in_on_close_but_closed)
{
    struct bop_socket *sock;
    int fd = raw_connect(f, 0);

    sock = f->accepted[0].sock;
    bop_socket_close(sock);
    CHECK(!bop_socket_is_open(sock));
    CHECK_EQ(bop_socket_write(sock, bytes("x")), BOP_ECLOSED);
    CHECK_EQ(bop_socket_fd(sock), -1);
    CHECK_PTR_EQ(bop_socket_user(sock), &f->accepted[0]); /* Until on_close has returned. */
    turn(f->loop);
    CHECK_PTR_EQ(bop_socket_user(sock), NULL);
    close(fd);
}

/* Connections that come and go: no two have a handle in common, and memory stays. */
TEST(handle, is_never_given_twice)
{
    enum { COUNT = 600 };
    struct bop_socket **seen = calloc(COUNT, sizeof(*seen));
    size_t live = 0;

    REQUIRE(seen != NULL);
    for (int i = 0; i < COUNT; i++) {
        int fd = raw_connect(f, 0);

        seen[i] = f->accepted[i].sock;
        for (int k = i - 20; k < i; k++) {
            REQUIRE(k < 0 || (seen[k] != seen[i] && !bop_socket_is_open(seen[k])));
        }
        close(fd);
        TURN_UNTIL(f->accepted[i].closes == 1);
        if (i == 10) {
            live = f->heap.live;
        }
    }
    CHECK_EQ(f->heap.live, live);
    free(seen);
}

/* ---- Memory of the user's in the socket's ---- */

struct block {
    uint64_t zero;
    struct bop_socket *sock;
    unsigned closes;
};

static unsigned blocks_closed;
static size_t block_got;

static size_t block_on_data(struct bop_socket *sock, void *user, struct bop_slice bytes)
{
    struct block *block = user;

    CHECK_PTR_EQ(block->sock, sock);
    block_got += bytes.size;
    return bytes.size;
}

static void block_on_close(struct bop_socket *sock, void *user, int reason)
{
    struct block *block = user;

    CHECK_PTR_EQ(block->sock, sock);
    blocks_closed++;
}

static const struct bop_socket_events block_events = {.on_data = block_on_data,
                                                      .on_close = block_on_close};

static bool block_on_accept(struct bop_listener *listener, struct bop_socket *sock, void *user)
{
    struct block *block = bop_socket_user(sock);

    CHECK_EQ((uintptr_t)block % 8, 0);
    CHECK_EQ(block->zero, 0);
    CHECK_PTR_EQ(block->sock, NULL);
    block->sock = sock;
    block->zero = UINT64_MAX;
    bop_socket_attach(sock, &block_events, user); /* Its user stays the block. */
    return true;
}

TEST(user_bytes, are_zeroed_memory_in_the_socket)
{
    struct bop_listen_options options = {
        .on_accept = block_on_accept, .user = f, .user_bytes = sizeof(struct block)};
    struct bop_connect_options connect = {
        .host = "127.0.0.1", .events = &block_events, .user_bytes = sizeof(struct block)};
    struct bop_listener *listener;
    struct bop_socket *sock;
    struct block *block;

    blocks_closed = 0;
    block_got = 0;
    REQUIRE_EQ(bop_listen(f->loop, &options, &listener, NULL), 0);
    connect.port = bop_listener_port(listener);
    for (int i = 0; i < 20; i++) {
        REQUIRE_EQ(bop_connect(f->loop, &connect, &sock, NULL), 0);
        block = bop_socket_user(sock);
        CHECK_EQ(block->zero, 0);
        block->sock = sock;
        REQUIRE_EQ(bop_socket_write(sock, bytes("hello")), 0);
        TURN_UNTIL(block_got == 5 * (size_t)(i + 1));
        bop_socket_close(sock);
        TURN_UNTIL(blocks_closed == 2 * (unsigned)(i + 1));
    }
    options.user_bytes = 1 << 20;
    CHECK_EQ(bop_listen(f->loop, &options, &listener, NULL), BOP_EINVAL);
}

/* ---- Another one to hear of it ---- */

static size_t count_on_data(struct bop_socket *sock, void *user, struct bop_slice bytes)
{
    *(size_t *)user += bytes.size;
    return bytes.size;
}

static void count_on_close(struct bop_socket *sock, void *user, int reason)
{
    CHECK(false); /* It was given back before. */
}

static const struct bop_socket_events count_events = {.on_data = count_on_data,
                                                      .on_close = count_on_close};

static size_t counted;

static size_t hand_on(struct end *end, struct bop_slice bytes)
{
    bop_socket_attach(end->sock, &count_events, &counted);
    return 1;
}

TEST(attach, may_change_who_hears_of_a_socket_at_any_time)
{
    int fd = raw_connect(f, 0);
    struct end *end = &f->accepted[0];

    counted = 0;
    raw_send(fd, "one", 3);
    TURN_UNTIL(end->got.size == 3);
    bop_socket_attach(end->sock, &count_events, &counted);
    CHECK_PTR_EQ(bop_socket_user(end->sock), &counted);
    raw_send(fd, "three", 5);
    TURN_UNTIL(counted == 5);
    bop_socket_attach(end->sock, &end_events, end);
    end->data = hand_on; /* From inside, with what it left. */
    raw_send(fd, "seven", 5);
    TURN_UNTIL(end->datas == 2);
    raw_send(fd, "!", 1);
    TURN_UNTIL(counted == 5 + 5);
    CHECK_EQ(end->got.size, 3);
    bop_socket_attach(end->sock, &end_events, end);
    close(fd);
    TURN_UNTIL(end->closes == 1);
}

/* ---- What it costs ---- */

static size_t big_block_on_data(struct bop_socket *sock, void *user, struct bop_slice bytes)
{
    CHECK_EQ(bop_socket_write(sock, bytes), 0);
    return bytes.size;
}

static void ignore_close(struct bop_socket *sock, void *user, int reason)
{
}

static const struct bop_socket_events echo_events = {.on_data = big_block_on_data,
                                                     .on_close = ignore_close};

static bool echo_on_accept(struct bop_listener *listener, struct bop_socket *sock, void *user)
{
    ++*(unsigned *)user;
    bop_socket_attach(sock, &echo_events, NULL);
    return true;
}

static void await_echo(struct fixture *f, int fd)
{
    char buffer[8];
    ssize_t got;

    while ((got = raw_receive(fd, buffer, sizeof(buffer))) == -EAGAIN) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
    }
    CHECK_EQ(got, 5);
}

/* An idle connection with a state of 64 bytes holds 200 at most, after it was used too;
 * and to use it takes no memory. */
TEST(memory, of_an_idle_connection_is_little_and_a_request_takes_none)
{
    enum { COUNT = 480 };
    unsigned accepts = 0;
    struct bop_listen_options options = {.on_accept = echo_on_accept,
                                         .user = &accepts,
                                         .user_bytes = 64,
                                         .limits.idle_timeout_ms = 60000};
    struct bop_listener *listener;
    struct sockaddr_in address;
    size_t before, operations;
    int fds[COUNT];

    CHECK(sizeof(struct bop__socket) <= 128);
    REQUIRE_EQ(bop_listen(f->loop, &options, &listener, NULL), 0);
    address = loopback(bop_listener_port(listener));
    before = f->heap.live;
    for (unsigned i = 0; i < COUNT; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE_EQ(connect(fds[i], (struct sockaddr *)&address, sizeof(address)), 0);
        TURN_UNTIL(accepts == i + 1);
        raw_send(fds[i], "hello", 5);
        await_echo(f, fds[i]);
    }
    /* What is not in use of the last chunk, and one queue kept for all. */
    CHECK(f->heap.live - before <= COUNT * 200 + 64 * 1024 + 4096);
    operations = f->faults.at;
    CHECK(operations > 0);
    for (int round = 0; round < 20; round++) {
        for (unsigned i = 0; i < COUNT; i += 16) {
            raw_send(fds[i], "again", 5);
        }
        for (unsigned i = 0; i < COUNT; i += 16) {
            await_echo(f, fds[i]);
        }
    }
    CHECK_EQ(f->faults.at, operations);
    for (unsigned i = 0; i < COUNT; i++) {
        close(fds[i]);
    }
    TURN_UNTIL(bop_listener_counters(listener).open == 0);
    CHECK_EQ(bop_listener_counters(listener).accepted, COUNT);
}

/* ---- Asked ---- */

TEST(ports, of_both_sides)
{
    struct end client;

    end_init(&client, f);
    end_connect(&client, default_limits);
    TURN_UNTIL(client.opens == 1 && f->accepts == 1);
    CHECK_EQ(bop_socket_peer_port(client.sock), bop_listener_port(f->listener));
    CHECK_EQ(bop_socket_local_port(f->accepted[0].sock), bop_listener_port(f->listener));
    CHECK_EQ(bop_socket_local_port(client.sock), bop_socket_peer_port(f->accepted[0].sock));
    CHECK(bop_socket_fd(client.sock) >= 0);
    CHECK_STR_EQ(bop_socket_error_text(client.sock, BOP_EFULL), bop_strerror(BOP_EFULL));
    end_finish(&client);
}

/* ---- Adopted ---- */

TEST(adopt, takes_over_a_connected_descriptor)
{
    struct end end;
    char buffer[8];
    int fds[2];

    end_init(&end, f);
    REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    REQUIRE_EQ(bop_socket_adopt(f->loop, fds[0], NULL, &end_events, &end, &end.sock), 0);
    CHECK_EQ(bop_socket_fd(end.sock), fds[0]);
    raw_send(fds[1], "hello", 5);
    TURN_UNTIL(end.got.size == 5);
    write_text(&end, "world");
    turn(f->loop);
    CHECK_EQ(raw_await(fds[1], buffer, sizeof(buffer)), 5);
    CHECK_STR_EQ(bop_socket_peer_name(end.sock), "unix:");
    close(fds[1]);
    TURN_UNTIL(end.closes == 1);
    CHECK_EQ(end.reason, 0);
    CHECK_EQ(end.opens, 0);
    CHECK_EQ(fcntl(fds[0], F_GETFD), -1);
    bop_buf_deinit(&end.got);
}

TEST(adopt, leaves_what_it_cannot_take)
{
    struct bop_socket *sock = NULL;
    const char *path = test_path(NULL, "file");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    REQUIRE(fd >= 0);
    CHECK_EQ(bop_socket_adopt(f->loop, fd, NULL, &end_events, NULL, &sock), -ENOTSOCK);
    CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    CHECK_EQ(bop_socket_adopt(f->loop, fd, NULL, &end_events, NULL, &sock), -EBADF);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(bop_socket_adopt(f->loop, fd, NULL, &end_events, NULL, &sock), BOP_EINVAL);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(bop_socket_adopt(f->loop, fd, NULL, NULL, NULL, &sock), BOP_EINVAL);
    close(fd);
    CHECK_PTR_EQ(sock, NULL);
}

/* A Unix peer that is gone reports a hang-up for ever: it must not be lost, nor
 * keep a paused reader's loop busy. */
TEST(adopt, paused_keeps_what_a_closed_peer_has_sent)
{
    struct end end;
    int fds[2];

    end_init(&end, f);
    REQUIRE_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    REQUIRE_EQ(bop_socket_adopt(f->loop, fds[0], NULL, &end_events, &end, &end.sock), 0);
    bop_socket_pause(end.sock);
    raw_send(fds[1], "last words", 10);
    close(fds[1]);
    for (int i = 0; i < 5; i++) {
        turn(f->loop);
    }
    CHECK_EQ(end.closes, 0);
    CHECK_EQ(end.datas, 0);
    bop_socket_resume(end.sock);
    TURN_UNTIL(end.closes == 1);
    CHECK_EQ(end.reason, 0);
    CHECK_SLICE_EQ(bop_buf_slice(&end.got), bytes("last words"));
    bop_buf_deinit(&end.got);
}
