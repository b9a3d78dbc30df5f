/*
 * A server for tests by other programs.
 *
 *     serve [--dir PATH] [--tls CERT KEY [CA]] [--proxy]
 *
 * Prints its port, and serves until its standard input ends; then stops in order
 * and prints its counters.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <bop/http.h>

static struct bop_http_server *server;

static void on_peer(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    bop_http_reply(http, 200, "text/plain", bop_slice_cstr(bop_http_peer_name(http)));
}

static void on_certificate(struct bop_http_exchange *http, const struct bop_http_head *head,
                           void *user)
{
    struct bop_tls_certificate certificate;
    int rc = bop_http_peer_certificate(http, &certificate);

    bop_http_reply(http, rc == 0 ? 200 : 404, "text/plain",
                   bop_slice_cstr(rc == 0 ? certificate.common_name : bop_strerror(rc)));
}

static void on_gzip(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    bop_http_compress(http);
    for (int i = 0; i < 1000; i++) {
        char line[64];

        snprintf(line, sizeof(line), "line %d of a text that goes on\n", i);
        if (bop_http_write(http, bop_slice_cstr(line)) < 0) {
            return;
        }
    }
    bop_http_end(http, bop_slice(NULL, 0));
}

/* ---- /echo: the body back, of any size ---- */

static void resume(struct bop_http_exchange *http, void *user)
{
    bop_http_resume(http);
}

static void echo(struct bop_http_exchange *http, struct bop_slice bytes, bool last, void *user)
{
    int rc = last ? bop_http_end(http, bytes) : bop_http_write(http, bytes);

    if (rc == BOP_HTTP_PRESSURE) {
        bop_http_pause(http);
    }
}

static void on_echo(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    bop_http_on_drain(http, resume, NULL);
    bop_http_body_max(http, UINT64_MAX);
    bop_http_on_body(http, echo, NULL);
}

/* ---- /count: how many bytes came ---- */

static void count(struct bop_http_exchange *http, struct bop_slice bytes, bool last, void *user)
{
    static uint64_t total; /* One upload at a time. */
    char text[32];

    total += bytes.size;
    if (last) {
        snprintf(text, sizeof(text), "%llu", (unsigned long long)total);
        total = 0;
        bop_http_reply(http, 200, "text/plain", bop_slice_cstr(text));
    }
}

static void on_count(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    bop_http_body_max(http, UINT64_MAX);
    bop_http_on_body(http, count, NULL);
}

/* ---- /metrics ---- */

static struct bop_metrics *metrics;

static void on_metrics(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    struct bop_buf text;

    int rc = bop_http_metrics(server, metrics, NULL); /* As of now. */

    bop_buf_init(&text, NULL, 0);
    if (rc == 0) {
        rc = bop_metrics_write(metrics, &text);
    }
    bop_http_reply(http, rc == 0 ? 200 : 500, "text/plain; version=0.0.4", bop_buf_slice(&text));
    bop_buf_deinit(&text);
}

/* ---- The end ---- */

static void on_stopped(struct bop_http_server *stopped, void *user)
{
    bop_loop_stop((struct bop_loop *)user);
}

static size_t on_input(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    return bytes.size;
}

static void on_input_end(struct bop_socket *socket, void *user, int reason)
{
    bop_http_server_stop(server, 60000, on_stopped, user);
}

static const struct bop_socket_events input_events = {.on_data = on_input,
                                                      .on_close = on_input_end};

static void fail(const char *what, int rc, const struct bop_error *err)
{
    if (rc != 0) {
        fprintf(stderr, "serve: %s: %s\n", what, err != NULL ? err->message : bop_strerror(rc));
        exit(1);
    }
}

static void add_routes(const char *directory)
{
    struct bop_http_files_options options = {.compress = true, .precompressed = true};
    struct bop_error err;

    fail("route", bop_http_route(server, "GET", "/peer", on_peer, NULL), NULL);
    fail("route", bop_http_route(server, "GET", "/certificate", on_certificate, NULL), NULL);
    fail("route", bop_http_route(server, "GET", "/gzip", on_gzip, NULL), NULL);
    fail("route", bop_http_route(server, "GET", "/metrics", on_metrics, NULL), NULL);
    fail("route", bop_http_route(server, NULL, "/echo", on_echo, NULL), NULL);
    fail("route", bop_http_route(server, NULL, "/count", on_count, NULL), NULL);
    if (directory != NULL) {
        fail("files", bop_http_files(server, "/files", directory, &options, &err), &err);
    }
}

static struct bop_tls *make_tls(char **files, const char *ca)
{
    struct bop_tls_options options = {
        .server = true,
        .identity = {.cert_file = files[0], .key_file = files[1]},
        .ca_file = ca,
        .verify = ca != NULL ? BOP_TLS_VERIFY_OPTIONAL : BOP_TLS_VERIFY_DEFAULT,
    };
    struct bop_tls *tls;
    struct bop_error err;

    fail("tls", bop_tls_create(&options, &tls, &err), &err);
    return tls;
}

int main(int argc, char **argv)
{
    struct bop_http_listen_options listen = {0};
    struct bop_http_counters counters;
    struct bop_listener *listener;
    const char *directory = NULL;
    struct bop_socket *input;
    struct bop_loop *loop;
    struct bop_error err;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc) {
            directory = argv[++i];
        } else if (strcmp(argv[i], "--tls") == 0 && i + 2 < argc) {
            listen.tls = make_tls(argv + i + 1, i + 3 < argc ? argv[i + 3] : NULL);
            i += i + 3 < argc ? 3 : 2;
        } else if (strcmp(argv[i], "--proxy") == 0) {
            listen.proxy_protocol = true;
        }
    }
    fail("loop", bop_loop_create(&(struct bop_loop_options){0}, &loop), NULL);
    fail("server", bop_http_server_create(loop, NULL, &server), NULL);
    fail("metrics", bop_metrics_create(NULL, &metrics), NULL);
    fail("metrics", bop_http_metrics(server, metrics, NULL), NULL);
    add_routes(directory);
    fail("listen", bop_http_listen(server, &listen, &listener, &err), &err);
    /* Standard input is a socket pair's end: when the other closes, it is time to stop. */
    fail("input",
         bop_socket_adopt(loop, 0, &(struct bop_socket_limits){0}, &input_events, loop, &input),
         NULL);
    printf("%u\n", bop_listener_port(listener));
    fflush(stdout);
    fail("run", bop_loop_run(loop), NULL);
    counters = bop_http_counters(server);
    printf("connections=%llu requests=%llu malformed=%llu aborted=%llu now=%llu\n",
           (unsigned long long)counters.connections, (unsigned long long)counters.requests,
           (unsigned long long)counters.malformed, (unsigned long long)counters.aborted,
           (unsigned long long)counters.connections_now);
    bop_http_server_destroy(server);
    bop_metrics_destroy(metrics);
    bop_loop_destroy(loop);
    bop_tls_destroy(listen.tls);
    return 0;
}
