/*
 * Our servers that are no examples:
 *
 *      net_server https|fanout PORT CERT KEY
 *
 * https says hello; fanout sends each WebSocket message to all connections.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/http.h>
#include <bop/ws.h>

static struct bop_topics *topics;

static void hello(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    bop_http_reply(http, 200, NULL, bop_slice_cstr("Hello world!"));
}

static void on_open(struct bop_ws *ws, void *user)
{
    if (bop_ws_subscribe(ws, "all") != 0) {
        bop_ws_terminate(ws);
    }
}

static void on_message(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice message)
{
    if (bop_topics_publish(topics, "all", opcode, message) != 0) {
        bop_ws_terminate(ws);
    }
}

static int fail(const struct bop_error *err)
{
    fprintf(stderr, "net_server: %s\n", err->message);
    return 1;
}

int main(int argc, char **argv)
{
    static struct bop_ws_options fanout = {
        .on_open = on_open, .on_message = on_message, .compression = BOP_WS_COMPRESS_NEVER};
    struct bop_tls_options tls_options = {.server = true};
    struct bop_http_listen_options listen = {.host = "127.0.0.1"};
    struct bop_http_server *server;
    struct bop_loop *loop;
    struct bop_error err = {0};

    if (argc != 5) {
        fprintf(stderr, "usage: net_server https|fanout PORT CERT KEY\n");
        return 2;
    }
    listen.port = (uint16_t)atoi(argv[2]);
    listen.connections_max = 20000;
    topics = bop_topics_create(NULL);
    fanout.topics = topics;
    if (topics == NULL || bop_loop_create(NULL, &loop) != 0 ||
        bop_http_server_create(loop, NULL, &server) != 0 ||
        bop_http_route(server, "GET", "/hello", hello, NULL) != 0) {
        return 1;
    }
    if (strcmp(argv[1], "https") == 0) {
        tls_options.identity.cert_file = argv[3];
        tls_options.identity.key_file = argv[4];
        if (bop_tls_create(&tls_options, &listen.tls, &err) != 0) {
            return fail(&err);
        }
        if (bop_http_route(server, "GET", "/", hello, NULL) != 0) {
            return 1;
        }
    } else if (bop_ws_route(server, "/", &fanout, NULL) != 0) {
        return 1;
    }
    if (bop_http_listen(server, &listen, NULL, &err) != 0) {
        return fail(&err);
    }
    return bop_loop_run(loop) == 0 ? 0 : 1;
}
