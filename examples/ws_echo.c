/*
 * A WebSocket server that sends each message back:
 *
 *      ws-echo [--host ADDRESS] [--port N]
 *
 * It stops in order on SIGINT and SIGTERM: connections are told that it goes.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/ws.h>

static struct bop_loop *loop;

static void echo(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode, struct bop_slice message)
{
    /* A client that sends and does not read is not read from, until it does. */
    if (bop_ws_send(ws, opcode, message) == BOP_WS_PRESSURE) {
        bop_ws_pause(ws);
    }
}

static void go_on(struct bop_ws *ws, void *user)
{
    bop_ws_resume(ws);
}

static void on_signal(int signal_number)
{
    bop_loop_stop(loop);
}

static void on_stopped(struct bop_http_server *server, void *user)
{
    bop_loop_stop(loop);
}

static int fail(const char *message)
{
    fprintf(stderr, "ws-echo: %s\n", message);
    return 1;
}

static int serve(struct bop_http_server *server, const struct bop_http_listen_options *listen)
{
    struct bop_listener *listener;
    struct bop_error err = {0};

    if (bop_http_listen(server, listen, &listener, &err) != 0) {
        return fail(err.message);
    }
    printf("listening on port %u\n", bop_listener_port(listener));
    fflush(stdout);
    if (bop_loop_run(loop) != 0) {
        return fail("the loop failed");
    }
    bop_http_server_stop(server, 5000, on_stopped, NULL);
    return bop_loop_run(loop) == 0 ? 0 : fail("the loop failed");
}

int main(int argc, char **argv)
{
    static const struct bop_ws_options options = {
        .on_message = echo,
        .on_drain = go_on,
        .message_bytes_max = (size_t)64 << 20,
        .pressure_max = (size_t)64 << 20, /* Nothing is dropped: it pauses instead. */
        .deflate_level = 1,
    };
    struct bop_http_listen_options listen = {.port = 9001, .connections_max = 20000};
    struct bop_http_server *server = NULL;
    int rc;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--port") == 0 && i + 1 < argc) {
            listen.port = (uint16_t)atoi(argv[++i]);
        } else if (strcmp(argv[i], "--host") == 0 && i + 1 < argc) {
            listen.host = argv[++i];
        } else {
            fprintf(stderr, "usage: ws-echo [--host ADDRESS] [--port N]\n");
            return 2;
        }
    }
    if (bop_loop_create(NULL, &loop) != 0 || bop_http_server_create(loop, NULL, &server) != 0 ||
        bop_ws_route(server, "/*", &options, NULL) != 0) {
        return fail("out of memory");
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    rc = serve(server, &listen);
    bop_http_server_destroy(server);
    /* From here on there is no loop to stop. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    bop_loop_destroy(loop);
    return rc;
}
