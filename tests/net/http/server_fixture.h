/*
 * An HTTP server under test, with handlers that try what handlers do, and raw
 * clients that send what they like.
 */
#ifndef BOP_TESTS_SERVER_FIXTURE_H
#define BOP_TESTS_SERVER_FIXTURE_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bop/http.h>

#include "../net_fixture.h"

/* Longer than any step takes, and only waited for by a test that fails. */
#define PATIENCE_TURNS 60000

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct net_clock clock;
    struct bop_loop *loop;
    struct bop_http_server *server;
    uint16_t port;

    /* What the handlers saw. */
    struct bop_http_exchange *last; /* Of the handler that ran last. */
    struct bop_timer later;
    unsigned requests;
    unsigned aborts;
    unsigned drains;
    unsigned bodies; /* Calls of on_body. */
    uint64_t body_bytes;
    int rc; /* What a call under test returned. */
    bool stopped;
};

/* ---- A client: a plain socket, and all it received ---- */

struct client {
    struct fixture *f;
    int fd;
    bool ended; /* The server has closed its side. */
    bool reset;
    size_t size;
    size_t taken; /* Of the bytes, by take_response(). */
    char bytes[256 * 1024];
};

static inline void turns(struct fixture *f, int count)
{
    while (count-- > 0) {
        turn(f->loop);
    }
}

static inline int connect_to(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;

    REQUIRE(fd >= 0);
    REQUIRE_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_EQ(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
    REQUIRE_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static inline struct client *client_open(struct fixture *f)
{
    struct client *client = (struct client *)malloc(sizeof(*client));

    REQUIRE(client != NULL);
    client->f = f;
    client->fd = connect_to(f->port);
    client->ended = false;
    client->reset = false;
    client->size = 0;
    client->taken = 0;
    client->bytes[0] = '\0';
    return client;
}

static inline void client_close(struct client *client)
{
    close(client->fd);
    free(client);
}

/* Close so that the server sees a reset. */
static inline void client_abort(struct client *client)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    client_close(client);
}

static inline void client_receive(struct client *client)
{
    ssize_t got;

    do {
        size_t room = sizeof(client->bytes) - 1 - client->size;

        if (room == 0) {
            return;
        }
        got = recv(client->fd, client->bytes + client->size, room, MSG_DONTWAIT);
        if (got > 0) {
            client->size += (size_t)got;
        } else if (got == 0) {
            client->ended = true;
        } else if (errno != EAGAIN) {
            client->ended = true;
            client->reset = true;
        }
    } while (got > 0);
    client->bytes[client->size] = '\0';
}

/* Send all, letting the server read meanwhile. */
static inline void client_send(struct client *client, struct bop_slice bytes)
{
    for (int i = 0; bytes.size > 0 && i < PATIENCE_TURNS; i++) {
        ssize_t sent = send(client->fd, bytes.data, bytes.size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent > 0) {
            bytes = bop_slice(bytes.data + sent, bytes.size - (size_t)sent);
        } else if (errno != EAGAIN) {
            return; /* The server has closed: what it said is what counts. */
        }
        turn(client->f->loop);
        client_receive(client);
    }
    CHECK_EQ(bytes.size, 0);
}

static inline void client_says(struct client *client, const char *text)
{
    client_send(client, bop_slice_cstr(text));
}

/* Turn until a condition holds, or the patience ends. */
#define AWAIT(f, condition)                                                                        \
    do {                                                                                           \
        for (int await_ = 0; !(condition) && await_ < PATIENCE_TURNS; await_++) {                  \
            CHECK_EQ(bop_loop_run_once((f)->loop, await_ < 4 ? 0 : 1), 0);                         \
        }                                                                                          \
        CHECK(condition);                                                                          \
    } while (0)

static inline bool client_sees(struct client *client, const char *text)
{
    client_receive(client);
    return strstr(client->bytes, text) != NULL;
}

static inline bool client_ended(struct client *client)
{
    client_receive(client);
    return client->ended;
}

/* ---- Responses ---- */

struct response {
    unsigned status;
    const char *head; /* NUL-terminated, with its empty line. */
    const char *body; /* NUL-terminated, decoded. */
    size_t body_size;
    bool whole;
};

static inline const char *response_header(const struct response *response, const char *name)
{
    static char value[512];
    const char *at = response->head;
    size_t size = strlen(name);

    while ((at = strstr(at, "\r\n")) != NULL) {
        at += 2;
        if (strncasecmp(at, name, size) == 0 && at[size] == ':') {
            const char *end = strstr(at, "\r\n");

            at += size + 1 + strspn(at + size + 1, " ");
            snprintf(value, sizeof(value), "%.*s", (int)(end - at), at);
            return value;
        }
    }
    return NULL;
}

static char response_head_text[64 * 1024];
static char response_body_text[sizeof(((struct client *)0)->bytes)];

/* Take chunks apart. Returns the bytes they take, 0 while the last is missing. */
static inline size_t take_chunks(const char *bytes, size_t size, size_t *out_body_size)
{
    const char *at = bytes;

    *out_body_size = 0;
    for (;;) {
        const char *line_end = (const char *)memmem(at, size - (size_t)(at - bytes), "\r\n", 2);
        size_t chunk = strtoul(at, NULL, 16);

        if (line_end == NULL || (size_t)(line_end + 4 - bytes) + chunk > size) {
            return 0;
        }
        at = line_end + 2;
        memcpy(response_body_text + *out_body_size, at, chunk);
        *out_body_size += chunk;
        CHECK_MEM_EQ(at + chunk, "\r\n", 2);
        at += chunk + 2;
        if (chunk == 0) {
            return (size_t)(at - bytes);
        }
    }
}

/* The next response, if it is whole already. head_only: it answers HEAD. */
static inline bool peel_response(struct client *client, bool head_only, struct response *response)
{
    const char *from = client->bytes + client->taken;
    size_t size = client->size - client->taken;
    const char *head_end = (const char *)memmem(from, size, "\r\n\r\n", 4);
    size_t head_size, body_bytes;

    if (head_end == NULL) {
        return false;
    }
    head_size = (size_t)(head_end + 4 - from);
    REQUIRE(head_size < sizeof(response_head_text));
    memcpy(response_head_text, from, head_size);
    response_head_text[head_size] = '\0';
    response->head = response_head_text;
    response->body = response_body_text;
    response->body_size = 0;
    REQUIRE_EQ(strncmp(from, "HTTP/1.1 ", 9), 0);
    response->status = (unsigned)strtoul(from + 9, NULL, 10);
    if (head_only || response->status < 200 || response->status == 204 || response->status == 304) {
        body_bytes = 0;
    } else if (response_header(response, "Transfer-Encoding") != NULL) {
        body_bytes = take_chunks(from + head_size, size - head_size, &response->body_size);
        if (body_bytes == 0) {
            return false;
        }
    } else if (response_header(response, "Content-Length") != NULL) {
        body_bytes = strtoul(response_header(response, "Content-Length"), NULL, 10);
        if (body_bytes > size - head_size) {
            return false;
        }
        memcpy(response_body_text, from + head_size, body_bytes);
        response->body_size = body_bytes;
    } else {
        if (!client->ended) {
            return false;
        }
        body_bytes = size - head_size;
        memcpy(response_body_text, from + head_size, body_bytes);
        response->body_size = body_bytes;
    }
    response_body_text[response->body_size] = '\0';
    client->taken += head_size + body_bytes;
    return true;
}

/* Wait for the next response. status 0: none came. */
static inline struct response take_response_to(struct client *client, bool head_only)
{
    struct response response = {.head = "", .body = ""};

    for (int i = 0; i < PATIENCE_TURNS; i++) {
        client_receive(client);
        if (peel_response(client, head_only, &response)) {
            response.whole = true;
            return response;
        }
        if (client->ended) {
            break;
        }
        CHECK_EQ(bop_loop_run_once(client->f->loop, i < 4 ? 0 : 1), 0);
    }
    response.status = 0;
    return response;
}

static inline struct response take_response(struct client *client)
{
    return take_response_to(client, false);
}

/* ---- Handlers ---- */

static inline void note(struct fixture *f, struct bop_http_exchange *http)
{
    f->last = http;
    f->requests++;
}

static inline void count_abort(struct bop_http_exchange *http, void *user)
{
    struct fixture *f = (struct fixture *)user;

    CHECK(!bop_http_is_open(http));
    CHECK_EQ(bop_http_write(http, bytes("x")), BOP_ECLOSED);
    f->aborts++;
}

static inline void say_hello(struct bop_http_exchange *http, const struct bop_http_head *head,
                             void *user)
{
    note((struct fixture *)user, http);
    CHECK_EQ(bop_http_reply(http, 200, "text/plain", bytes("hello")), 0);
    /* From here on the handle is of the past. */
    CHECK(!bop_http_is_open(http));
    CHECK_EQ(bop_http_reply(http, 200, NULL, bytes("again")), BOP_ECLOSED);
}

static inline void echo_whole(struct bop_http_exchange *http, struct bop_slice body, bool last,
                              void *user)
{
    struct fixture *f = (struct fixture *)user;

    CHECK(last);
    f->bodies++;
    f->body_bytes += body.size;
    CHECK_EQ(bop_http_reply(http, 200, "application/octet-stream", body), 0);
}

static inline void on_echo(struct bop_http_exchange *http, const struct bop_http_head *head,
                           void *user)
{
    struct fixture *f = (struct fixture *)user;

    note(f, http);
    bop_http_on_abort(http, count_abort, f);
    f->rc = bop_http_on_whole_body(http, echo_whole, f);
}

static inline void resume_body(struct bop_http_exchange *http, void *user)
{
    struct fixture *f = (struct fixture *)user;

    f->drains++;
    bop_http_resume(http);
}

static inline void echo_piece(struct bop_http_exchange *http, struct bop_slice piece, bool last,
                              void *user)
{
    struct fixture *f = (struct fixture *)user;
    int rc = last ? bop_http_end(http, piece) : bop_http_write(http, piece);

    f->bodies++;
    f->body_bytes += piece.size;
    CHECK(rc >= 0);
    if (rc == BOP_HTTP_PRESSURE) {
        bop_http_pause(http);
    }
}

static inline void on_stream(struct bop_http_exchange *http, const struct bop_http_head *head,
                             void *user)
{
    struct fixture *f = (struct fixture *)user;

    note(f, http);
    bop_http_on_abort(http, count_abort, f);
    bop_http_on_drain(http, resume_body, f);
    CHECK_EQ(bop_http_body_max(http, UINT64_MAX), 0);
    CHECK_EQ(bop_http_on_body(http, echo_piece, f), 0);
}

static inline void in_chunks(struct bop_http_exchange *http, const struct bop_http_head *head,
                             void *user)
{
    note((struct fixture *)user, http);
    CHECK_EQ(bop_http_write(http, bytes("one,")), 0);
    CHECK_EQ(bop_http_write(http, bytes("")), 0);
    CHECK_EQ(bop_http_write(http, bytes("two,")), 0);
    CHECK_EQ(bop_http_written(http), 8);
    CHECK_EQ(bop_http_end(http, bytes("three")), 0);
}

static inline void with_length(struct bop_http_exchange *http, const struct bop_http_head *head,
                               void *user)
{
    note((struct fixture *)user, http);
    CHECK_EQ(bop_http_status(http, 201), 0);
    CHECK_EQ(bop_http_header(http, "Content-Length", bytes("6")), 0);
    CHECK_EQ(bop_http_header(http, "X-One", bytes("1")), 0);
    CHECK_EQ(bop_http_write(http, bytes("abc")), 0);
    CHECK_EQ(bop_http_write(http, bytes("defg")), BOP_EINVAL);
    CHECK_EQ(bop_http_end(http, bytes("def")), 0);
}

static inline void answer_later(struct bop_timer *timer)
{
    struct fixture *f = BOP_CONTAINER_OF(timer, struct fixture, later);

    f->rc = bop_http_reply(f->last, 200, NULL, bytes("later"));
}

static inline void on_later(struct bop_http_exchange *http, const struct bop_http_head *head,
                            void *user)
{
    struct fixture *f = (struct fixture *)user;

    note(f, http);
    bop_http_on_abort(http, count_abort, f);
    bop_timer_start(f->loop, &f->later, 0);
}

/* Never answers by itself: the test does. */
static inline void on_held(struct bop_http_exchange *http, const struct bop_http_head *head,
                           void *user)
{
    struct fixture *f = (struct fixture *)user;

    note(f, http);
    bop_http_on_abort(http, count_abort, f);
}

static inline void on_params(struct bop_http_exchange *http, const struct bop_http_head *head,
                             void *user)
{
    struct bop_slice a = bop_http_param(http, "a"), b = bop_http_param(http, "b");
    char text[256];

    note((struct fixture *)user, http);
    CHECK(bop_http_param(http, "c").data == NULL);
    snprintf(text, sizeof(text), "%.*s|%.*s", (int)a.size, (const char *)a.data, (int)b.size,
             (const char *)b.data);
    CHECK_EQ(bop_http_reply(http, 200, NULL, bytes(text)), 0);
}

static inline void on_query(struct bop_http_exchange *http, const struct bop_http_head *head,
                            void *user)
{
    struct fixture *f = (struct fixture *)user;
    struct bop_buf value;

    note(f, http);
    bop_buf_init(&value, &f->heap.allocator, 0);
    f->rc = bop_http_query(head, "name", &value);
    CHECK_EQ(bop_http_reply(http, f->rc == 0 ? 200 : 400, NULL, bop_buf_slice(&value)), 0);
    bop_buf_deinit(&value);
}

static inline void on_no_content(struct bop_http_exchange *http, const struct bop_http_head *head,
                                 void *user)
{
    note((struct fixture *)user, http);
    CHECK_EQ(bop_http_reply(http, 204, NULL, bytes("")), 0);
}

static inline void on_next(struct bop_http_exchange *http, const struct bop_http_head *head,
                           void *user)
{
    bop_http_next(http);
}

static inline void on_any_method(struct bop_http_exchange *http, const struct bop_http_head *head,
                                 void *user)
{
    note((struct fixture *)user, http);
    CHECK_EQ(bop_http_reply(http, 200, "text/plain", head->method_text), 0);
}

/* ---- Setting up ---- */

static inline void add_routes(struct fixture *f)
{
    static const struct {
        const char *method, *pattern;
        bop_http_handler_fn handler;
    } routes[] = {
        {"GET", "/hello", say_hello},    {NULL, "/echo", on_echo},
        {NULL, "/stream", on_stream},    {"GET", "/chunks", in_chunks},
        {"GET", "/length", with_length}, {"GET", "/later", on_later},
        {NULL, "/held", on_held},        {"GET", "/params/:a/:b", on_params},
        {"GET", "/query", on_query},     {"GET", "/none", on_no_content},
        {"PUT", "/ignore", say_hello},   {"POST", "/ignore", say_hello},
        {"GET", "/next/here", on_next},  {"GET", "/next/:name", say_hello},
        {"GET", "/last", on_next},       {NULL, "/any", on_any_method},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(routes); i++) {
        REQUIRE_EQ(
            bop_http_route(f->server, routes[i].method, routes[i].pattern, routes[i].handler, f),
            0);
    }
}

static inline void server_listen(struct fixture *f, const struct bop_http_listen_options *options)
{
    struct bop_listener *listener;
    struct bop_error err;

    REQUIRE_EQ(bop_http_listen(f->server, options, &listener, &err), 0);
    f->port = bop_listener_port(listener);
}

static inline void server_create(struct fixture *f, const struct bop_http_server_options *options)
{
    REQUIRE_EQ(bop_http_server_create(f->loop, options, &f->server), 0);
}

static inline void server_setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    net_clock_init(&f->clock, 1000000);
    REQUIRE_EQ(bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator,
                                                          .clock = &f->clock.clock},
                               &f->loop),
               0);
    bop_timer_init(&f->later, answer_later);
}

/* With the usual routes and no options. */
static inline void server_start(struct fixture *f, const struct bop_http_server_options *options)
{
    server_create(f, options);
    add_routes(f);
    server_listen(f, &(struct bop_http_listen_options){0});
}

static inline void server_teardown(struct fixture *f)
{
    bop_http_server_destroy(f->server);
    if (f->loop != NULL) {
        turns(f, 3);
        bop_loop_destroy(f->loop);
    }
    CHECK_EQ(f->heap.live, 0);
}

/* Let time pass, a bit at a time, as it does. */
static inline void pass_time(struct fixture *f, uint64_t ms)
{
    while (ms > 0) {
        uint64_t step = ms < 250 ? ms : 250;

        f->clock.now_us += step * 1000;
        ms -= step;
        turn(f->loop);
    }
    turns(f, 2);
}

#endif
