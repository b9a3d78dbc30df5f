/*
 * One bop_tls for the loops of several threads, while another thread changes it.
 */
#include <pthread.h>

#include "certs.h"
#include "tap.h"
#include <bop/loop.h>
#include <bop/socket.h>
#include <bop/tls.h>

#define CONNECTIONS 30

/** A loop on a thread of its own, with a server and a client. */
struct worker {
    pthread_t thread;
    struct bop_tls *server;
    struct bop_tls *client;
    struct bop_loop *loop;
    struct bop_listener *listener;
    unsigned begun;
    unsigned echoed;
    unsigned closed;
};

struct fixture {
    struct cert ca;
    struct cert cert;
    struct bop_tls *server;
    struct bop_tls *client;
};

static void setup(struct fixture *f)
{
    f->ca = cert_make(&(struct cert_options){.name = "Test CA"});
    f->cert = cert_make(&(struct cert_options){
        .name = "a.test", .alternatives = "DNS:a.test,DNS:b.test", .issuer = &f->ca});
}

static void teardown(struct fixture *f)
{
    bop_tls_destroy(f->server);
    bop_tls_destroy(f->client);
    cert_free(&f->ca);
    cert_free(&f->cert);
}

FIXTURE(setup, teardown)

static size_t echo(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    CHECK_EQ(bop_socket_write(socket, bytes), 0);
    return bytes.size;
}

static void forget(struct bop_socket *socket, void *user, int reason)
{
}

static const struct bop_socket_events server_events = {.on_data = echo, .on_close = forget};

static bool on_accept(struct bop_listener *listener, struct bop_socket *socket, void *user)
{
    bop_socket_attach(socket, &server_events, NULL);
    return true;
}

static size_t on_echo(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct worker *worker = (struct worker *)user;

    worker->echoed++;
    CHECK_EQ(bytes.size, 5);
    bop_socket_close_after_flush(socket, 5000);
    return bytes.size;
}

static void on_close(struct bop_socket *socket, void *user, int reason)
{
    struct worker *worker = (struct worker *)user;

    worker->closed++;
}

static const struct bop_socket_events client_events = {.on_data = on_echo, .on_close = on_close};

static void connect_once(struct worker *worker)
{
    struct bop_connect_options options = {
        .host = "127.0.0.1",
        .port = bop_listener_port(worker->listener),
        .tls = worker->client,
        .tls_name = worker->begun % 2 == 0 ? "a.test" : "b.test",
        .events = &client_events,
        .user = worker,
    };
    struct bop_socket *socket;

    CHECK_EQ(bop_connect(worker->loop, &options, &socket, NULL), 0);
    CHECK_EQ(bop_socket_write(socket, bytes("hello")), 0);
    worker->begun++;
}

static void *work(void *arg)
{
    struct worker *worker = (struct worker *)arg;

    /* Two at a time, one after the other. */
    for (unsigned turns = 0; worker->closed < CONNECTIONS && turns < 100000; turns++) {
        while (worker->begun < CONNECTIONS && worker->begun < worker->closed + 2) {
            connect_once(worker);
        }
        CHECK_EQ(bop_loop_run_once(worker->loop, 100), 0);
    }
    return NULL;
}

static void start(struct worker *worker)
{
    struct bop_listen_options listen = {.tls = worker->server, .on_accept = on_accept};

    REQUIRE_EQ(bop_loop_create(NULL, &worker->loop), 0);
    REQUIRE_EQ(bop_listen(worker->loop, &listen, &worker->listener, NULL), 0);
    REQUIRE_EQ(pthread_create(&worker->thread, NULL, work, worker), 0);
}

TEST(threads, share_a_tls_that_changes)
{
    struct bop_tls_options server = {
        .server = true,
        .identity = {.cert_pem = cert_pem(&f->cert), .key_pem = cert_key_pem(&f->cert)}};
    struct bop_tls_options client = {.ca_pem = cert_pem(&f->ca)};
    struct worker workers[2] = {{.begun = 0}};

    REQUIRE_EQ(bop_tls_create(&server, &f->server, NULL), 0);
    REQUIRE_EQ(bop_tls_create(&client, &f->client, NULL), 0);
    for (int i = 0; i < 2; i++) {
        workers[i].server = f->server;
        workers[i].client = f->client;
        start(&workers[i]);
    }
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(bop_tls_reload(f->server, NULL, NULL), 0);
        CHECK_EQ(bop_tls_reload(f->client, NULL, NULL), 0);
        CHECK_EQ(bop_tls_add_name(f->server, "b.test", &server.identity, NULL), 0);
        bop_tls_remove_name(f->server, "b.test");
    }
    for (int i = 0; i < 2; i++) {
        REQUIRE_EQ(pthread_join(workers[i].thread, NULL), 0);
        CHECK_EQ(workers[i].echoed, CONNECTIONS);
        bop_listener_close(workers[i].listener);
        bop_loop_destroy(workers[i].loop);
    }
}
