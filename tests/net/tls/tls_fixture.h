/*
 * A loop, a listener with TLS, and ends that note what happens to them.
 */
#ifndef BOP_TESTS_NET_TLS_FIXTURE_H
#define BOP_TESTS_NET_TLS_FIXTURE_H

#include <bop/loop.h>
#include <bop/socket.h>
#include <bop/tls.h>

#include "certs.h"
#include "tap.h"

#define ACCEPTED_MAX 64

struct end {
    struct fixture *f;
    struct bop_socket *socket;
    struct bop_buf got;
    unsigned opens;
    unsigned ends;
    unsigned closes;
    int reason;
    char text[256]; /* bop_socket_error_text() in on_close. */
    bool echo;
    bool keep; /* on_end does nothing; else it closes after flush. */
    void (*open)(struct end *end);
    void (*pressure)(struct end *end, bool on);
    int info_rc;
    struct bop_tls_info info; /* Of on_open: strings are good until on_close. */
    char alpn[64];
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_loop *loop;
    struct cert ca;
    struct cert cert; /* Of "a.test" and "127.0.0.1". */
    struct bop_tls *server;
    struct bop_tls *client;
    struct bop_listener *listener;
    struct end accepted[ACCEPTED_MAX];
    unsigned accepts;
    void (*prepare)(struct end *end); /* For each accepted one. */
};

void fixture_setup(struct fixture *f);
void fixture_teardown(struct fixture *f);

/** What a server or client of the fixture is made with. */
struct bop_tls_options server_options(struct fixture *f);
struct bop_tls_options client_options(struct fixture *f);
/** Replace f->server or f->client. */
void make_server(struct fixture *f, const struct bop_tls_options *options);
void make_client(struct fixture *f, const struct bop_tls_options *options);
/** Listen with f->server. */
void start_listening(struct fixture *f, const struct bop_socket_limits *limits);

/** Note what happens in the struct end that is the user. */
extern const struct bop_socket_events end_events;

void end_init(struct end *end, struct fixture *f);
/** Connect to the listener; tls may be NULL: plain. */
void end_connect(struct end *end, struct bop_tls *tls, const char *name);
void end_connect_with(struct end *end, struct bop_tls *tls, const char *name,
                      const struct bop_socket_limits *limits);
void end_write(struct end *end, const char *text);
void end_deinit(struct end *end);

/** Connect, and turn until both are open. Returns the accepted end. */
struct end *connect_both(struct end *client, const char *name);
/** Close both, and turn until they are closed. */
void close_both(struct end *client, struct end *server);

/** Turn the loop until the condition holds; fails the test if that takes longer than 20 s. */
#define TURN_UNTIL(condition)                                                                      \
    do {                                                                                           \
        uint64_t until_ms_ = bop_loop_now_ms(f->loop) + 20000;                                     \
        while (!(condition) && bop_loop_now_ms(f->loop) < until_ms_) {                             \
            REQUIRE_EQ(bop_loop_run_once(f->loop, 100), 0);                                        \
        }                                                                                          \
        REQUIRE(condition);                                                                        \
    } while (0)

#endif
