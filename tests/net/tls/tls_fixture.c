#include "tls_fixture.h"

#include <stdio.h>

static void note_open(struct bop_socket *socket, void *user)
{
    struct end *end = (struct end *)user;

    end->opens++;
    end->info_rc = bop_socket_tls_info(socket, &end->info);
    snprintf(end->alpn, sizeof(end->alpn), "%.*s", (int)end->info.alpn.size,
             end->info.alpn.data != NULL ? (const char *)end->info.alpn.data : "");
    if (end->open != NULL) {
        end->open(end);
    }
}

static size_t note_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct end *end = (struct end *)user;

    if (end->echo) {
        /* What does not fit any more is for later: it is given again. */
        int rc = bop_socket_write(socket, bytes);

        return rc == 0 ? bytes.size : 0;
    }
    REQUIRE_EQ(bop_buf_append(&end->got, bytes.data, bytes.size), 0);
    return bytes.size;
}

static void note_end(struct bop_socket *socket, void *user)
{
    struct end *end = (struct end *)user;

    end->ends++;
    if (!end->keep) {
        bop_socket_close_after_flush(socket, 5000);
    }
}

static void note_pressure(struct bop_socket *socket, void *user, bool on)
{
    struct end *end = (struct end *)user;

    if (end->pressure != NULL) {
        end->pressure(end, on);
    }
}

static void note_close(struct bop_socket *socket, void *user, int reason)
{
    struct end *end = (struct end *)user;

    end->closes++;
    end->reason = reason;
    snprintf(end->text, sizeof(end->text), "%s", bop_socket_error_text(socket, reason));
}

const struct bop_socket_events end_events = {
    .on_open = note_open,
    .on_data = note_data,
    .on_end = note_end,
    .on_pressure = note_pressure,
    .on_close = note_close,
};

static bool note_accept(struct bop_listener *listener, struct bop_socket *socket, void *user)
{
    struct fixture *f = (struct fixture *)user;
    struct end *end = &f->accepted[f->accepts % ACCEPTED_MAX];

    f->accepts++;
    bop_buf_deinit(&end->got);
    end_init(end, f);
    end->socket = socket;
    if (f->prepare != NULL) {
        f->prepare(end);
    }
    bop_socket_attach(socket, &end_events, end);
    return true;
}

void fixture_setup(struct fixture *f)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator};

    test_heap_init(&f->heap, &f->faults);
    for (size_t i = 0; i < ACCEPTED_MAX; i++) {
        end_init(&f->accepted[i], f);
    }
    REQUIRE_EQ(bop_loop_create(&options, &f->loop), 0);
    f->ca = cert_make(&(struct cert_options){.name = "Test CA"});
    f->cert = cert_make(&(struct cert_options){
        .name = "a.test", .alternatives = "DNS:a.test,IP:127.0.0.1", .issuer = &f->ca});
}

void fixture_teardown(struct fixture *f)
{
    bop_listener_close(f->listener);
    bop_loop_destroy(f->loop);
    for (size_t i = 0; i < ACCEPTED_MAX; i++) {
        end_deinit(&f->accepted[i]);
    }
    bop_tls_destroy(f->server);
    bop_tls_destroy(f->client);
    cert_free(&f->ca);
    cert_free(&f->cert);
    CHECK_EQ(f->heap.live, 0);
}

struct bop_tls_options server_options(struct fixture *f)
{
    return (struct bop_tls_options){
        .server = true,
        .identity = {.cert_pem = cert_pem(&f->cert), .key_pem = cert_key_pem(&f->cert)}};
}

struct bop_tls_options client_options(struct fixture *f)
{
    return (struct bop_tls_options){.ca_pem = cert_pem(&f->ca)};
}

static void make(struct bop_tls **tls, const struct bop_tls_options *options)
{
    struct bop_error err = {0};
    int rc;

    bop_tls_destroy(*tls);
    *tls = NULL;
    rc = bop_tls_create(options, tls, &err);
    CHECK_STR_EQ(err.message, "");
    REQUIRE_EQ(rc, 0);
}

void make_server(struct fixture *f, const struct bop_tls_options *options)
{
    make(&f->server, options);
}

void make_client(struct fixture *f, const struct bop_tls_options *options)
{
    make(&f->client, options);
}

void start_listening(struct fixture *f, const struct bop_socket_limits *limits)
{
    struct bop_listen_options options = {.tls = f->server, .on_accept = note_accept, .user = f};

    if (limits != NULL) {
        options.limits = *limits;
    }
    REQUIRE_EQ(bop_listen(f->loop, &options, &f->listener, NULL), 0);
}

void end_init(struct end *end, struct fixture *f)
{
    *end = (struct end){.f = f};
    bop_buf_init(&end->got, NULL, 0);
}

void end_deinit(struct end *end)
{
    bop_buf_deinit(&end->got);
}

void end_connect_with(struct end *end, struct bop_tls *tls, const char *name,
                      const struct bop_socket_limits *limits)
{
    struct bop_connect_options options = {
        .host = "127.0.0.1",
        .port = bop_listener_port(end->f->listener),
        .tls = tls,
        .tls_name = name,
        .events = &end_events,
        .user = end,
    };

    if (limits != NULL) {
        options.limits = *limits;
    }
    REQUIRE_EQ(bop_connect(end->f->loop, &options, &end->socket, NULL), 0);
}

void end_connect(struct end *end, struct bop_tls *tls, const char *name)
{
    end_connect_with(end, tls, name, NULL);
}

void end_write(struct end *end, const char *text)
{
    CHECK_EQ(bop_socket_write(end->socket, bytes(text)), 0);
}

struct end *connect_both(struct end *client, const char *name)
{
    struct fixture *f = client->f;
    unsigned before = f->accepts;
    struct end *server = &f->accepted[before % ACCEPTED_MAX];

    end_connect(client, f->client, name);
    TURN_UNTIL(client->opens == 1 && f->accepts == before + 1 && server->opens == 1);
    CHECK_EQ(client->info_rc, 0);
    CHECK_EQ(server->info_rc, 0);
    return server;
}

void close_both(struct end *client, struct end *server)
{
    struct fixture *f = client->f;

    bop_socket_close_after_flush(client->socket, 5000);
    TURN_UNTIL(client->closes == 1 && server->closes == 1);
}
