/*
 * Connections under test: a loop with a listener, ends that record what happens
 * to them, and raw sockets that misbehave.
 */
#ifndef BOP_TESTS_TCP_FIXTURE_H
#define BOP_TESTS_TCP_FIXTURE_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bop/socket.h>

#include "../net_fixture.h"

/** One end of a connection: what happened, and what to do when it happens. */
struct end {
    struct bop_socket *sock;
    struct fixture *f;
    struct bop_buf got; /* All bytes consumed. */
    unsigned opens, datas, drains, closes;
    unsigned ends, rises, idles, lifetimes, limits;
    int reason;
    bool in_callback;

    size_t consume_max;                                      /* Of each delivery, if not 0. */
    bool consume_none;                                       /* Look, but leave all. */
    bool echo;                                               /* Write back what was consumed. */
    size_t (*data)(struct end *end, struct bop_slice bytes); /* Instead of all these. */
    void (*open)(struct end *end);
    void (*drain)(struct end *end);
    void (*finish)(struct end *end); /* The peer sends no more. */
    void (*close)(struct end *end);
};

enum { ENDS_MAX = 1200 };

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_loop *loop;
    struct bop_listener *listener;
    struct end accepted[ENDS_MAX]; /* In order of accepting. */
    unsigned accepts;
    unsigned refused;
    size_t taken; /* Bytes, by those who count them here. */
    bool refuse; /* on_accept says no. */
    bool full;   /* Attach all callbacks, those included whose lack means something. */
    void (*accept)(struct end *end);
    void (*prepare)(struct end *end); /* Before it is attached. */
};

static inline void end_on_open(struct bop_socket *sock, void *user)
{
    struct end *end = user;

    CHECK_PTR_EQ(sock, end->sock);
    CHECK_EQ(end->closes, 0);
    end->opens++;
    if (end->open != NULL) {
        end->open(end);
    }
}

static inline size_t end_on_data(struct bop_socket *sock, void *user, struct bop_slice bytes)
{
    struct end *end = user;
    size_t size = bytes.size;

    CHECK_PTR_EQ(sock, end->sock);
    CHECK_EQ(end->closes, 0);
    CHECK(size > 0);
    end->datas++;
    if (end->data != NULL) {
        return end->data(end, bytes);
    }
    if (end->consume_none) {
        return 0;
    }
    if (end->consume_max != 0 && size > end->consume_max) {
        size = end->consume_max;
    }
    BOP_IGNORE(bop_buf_append(&end->got, bytes.data, size)); /* Fault sweeps may fail it. */
    if (end->echo) {
        BOP_IGNORE(bop_socket_write(sock, bop_slice(bytes.data, size))); /* Likewise. */
    }
    return size;
}

static inline void end_on_pressure(struct bop_socket *sock, void *user, bool on)
{
    struct end *end = user;

    CHECK_EQ(end->closes, 0);
    if (on) {
        CHECK_EQ(end->rises, end->drains);
        end->rises++;
        return;
    }
    end->drains++;
    if (end->drain != NULL) {
        end->drain(end);
    }
}

static inline void end_on_close(struct bop_socket *sock, void *user, int reason)
{
    struct end *end = user;

    CHECK_PTR_EQ(sock, end->sock);
    CHECK(!end->in_callback);
    end->closes++;
    end->reason = reason;
    if (end->close != NULL) {
        end->close(end);
    }
}

static const struct bop_socket_events end_events = {
    .on_open = end_on_open,
    .on_data = end_on_data,
    .on_pressure = end_on_pressure,
    .on_close = end_on_close,
};

static inline void end_on_end(struct bop_socket *sock, void *user)
{
    struct end *end = user;

    CHECK_EQ(end->closes, 0);
    end->ends++;
    if (end->finish != NULL) {
        end->finish(end);
    }
}

static inline void end_on_idle(struct bop_socket *sock, void *user)
{
    ((struct end *)user)->idles++;
}

static inline void end_on_lifetime(struct bop_socket *sock, void *user)
{
    ((struct end *)user)->lifetimes++;
}

static inline void end_on_limited(struct bop_socket *sock, void *user, uint64_t asked,
                                  uint64_t available)
{
    CHECK(available < asked);
    ((struct end *)user)->limits++;
}

static const struct bop_socket_events full_events = {
    .on_open = end_on_open,
    .on_data = end_on_data,
    .on_end = end_on_end,
    .on_pressure = end_on_pressure,
    .on_idle = end_on_idle,
    .on_lifetime = end_on_lifetime,
    .on_limited = end_on_limited,
    .on_close = end_on_close,
};

static inline void end_init(struct end *end, struct fixture *f)
{
    *end = (struct end){.f = f};
    bop_buf_init(&end->got, NULL, 0);
}

static inline bool fixture_on_accept(struct bop_listener *listener, struct bop_socket *sock,
                                     void *user)
{
    struct fixture *f = user;
    struct end *end;

    CHECK_PTR_EQ(listener, f->listener);
    if (f->refuse) {
        f->refused++;
        return false;
    }
    REQUIRE(f->accepts < ENDS_MAX);
    end = &f->accepted[f->accepts++];
    end_init(end, f);
    end->sock = sock;
    if (f->prepare != NULL) {
        f->prepare(end);
    }
    bop_socket_attach(sock, f->full ? &full_events : &end_events, end);
    if (f->accept != NULL) {
        f->accept(end);
    }
    return true;
}

static inline void fixture_listen(struct fixture *f, struct bop_listen_options options)
{
    struct bop_error err = {0};
    int rc;

    options.on_accept = fixture_on_accept;
    options.user = f;
    rc = bop_listen(f->loop, &options, &f->listener, &err);
    if (rc != 0) {
        test_note("%s", err.message);
    }
    REQUIRE_EQ(rc, 0);
}

static inline void fixture_setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(
        bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator}, &f->loop), 0);
    fixture_listen(f, (struct bop_listen_options){.host = NULL});
}

static inline void fixture_teardown(struct fixture *f)
{
    bop_loop_destroy(f->loop);
    for (unsigned i = 0; i < f->accepts; i++) {
        CHECK_EQ(f->accepted[i].closes, 1);
        bop_buf_deinit(&f->accepted[i].got);
    }
    CHECK_EQ(f->heap.live, 0);
}

/** Turn until the condition holds; far more turns than any test needs are a failure. */
#define TURN_UNTIL(condition)                                                                      \
    do {                                                                                           \
        int turns_left_ = 6000;                                                                    \
        while (!(condition)) {                                                                     \
            REQUIRE(turns_left_-- > 0 && #condition);                                              \
            REQUIRE_EQ(bop_loop_run_once(f->loop, 10), 0);                                         \
        }                                                                                          \
    } while (0)

/** Connect an end, set up but for its handle, to the listener. */
static inline void end_connect(struct end *end, struct bop_socket_limits limits)
{
    struct bop_connect_options options = {.host = "127.0.0.1",
                                          .port = bop_listener_port(end->f->listener),
                                          .limits = limits,
                                          .events = end->f->full ? &full_events : &end_events,
                                          .user = end};

    REQUIRE_EQ(bop_connect(end->f->loop, &options, &end->sock, NULL), 0);
}

static const struct bop_socket_limits default_limits;

static inline void write_text(struct end *end, const char *text)
{
    CHECK_EQ(bop_socket_write(end->sock, bytes(text)), 0);
}

/** Close, and check that no callback comes from inside. */
static inline void end_close(struct end *end)
{
    end->in_callback = true;
    bop_socket_close(end->sock);
    end->in_callback = false;
}

/** Close an end that lives on the stack, and wait until nothing will call it. */
static inline void end_finish(struct end *end)
{
    struct fixture *f = end->f;

    if (end->closes == 0) {
        end_close(end);
    }
    TURN_UNTIL(end->closes == 1);
    bop_buf_deinit(&end->got);
}

/* ---- Raw sockets ---- */

static inline struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/** A raw non-blocking socket connected to the listener, and accepted. receive_bytes as SO_RCVBUF
 * if not 0. */
static inline int raw_connect(struct fixture *f, int receive_bytes)
{
    struct sockaddr_in address = loopback(bop_listener_port(f->listener));
    unsigned before = f->accepts + f->refused;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(fd >= 0);
    if (receive_bytes != 0) {
        REQUIRE_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes)), 0);
    }
    REQUIRE_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    TURN_UNTIL(f->accepts + f->refused > before);
    return fd;
}

/** What can be received now: bytes, 0 at the end, -errno else. */
static inline ssize_t raw_receive(int fd, void *buffer, size_t size)
{
    ssize_t got = recv(fd, buffer, size, MSG_DONTWAIT);

    return got >= 0 ? got : -errno;
}

/** As raw_receive(), but waits for bytes or the end that are on their way. */
static inline ssize_t raw_await(int fd, void *buffer, size_t size)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    REQUIRE_EQ(poll(&wait, 1, 60000), 1);
    return raw_receive(fd, buffer, size);
}

static inline void raw_send(int fd, const void *data, size_t size)
{
    REQUIRE_EQ(send(fd, data, size, MSG_NOSIGNAL), size);
}

/** Close so that the other side sees a reset. */
static inline void raw_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    REQUIRE_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    close(fd);
}

/** Byte i of a stream that repeats itself at no power of two. */
static inline uint8_t pattern(size_t i)
{
    return (uint8_t)(i % 251);
}

static inline void fill_pattern(uint8_t *data, size_t size, size_t from)
{
    for (size_t i = 0; i < size; i++) {
        data[i] = pattern(from + i);
    }
}

static inline bool is_pattern(const uint8_t *data, size_t size, size_t from)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] != pattern(from + i)) {
            return false;
        }
    }
    return true;
}

#endif
