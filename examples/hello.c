/*
 * An HTTP server that says hello, whatever it is asked.
 *
 *     hello [--port N]
 */
#include <bop/http.h>
#include <stdio.h>
#include <stdlib.h>

static void hello(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    bop_http_reply(http, 200, "text/plain", bop_slice_cstr("Hello world!"));
}

int main(int argc, char **argv)
{
    uint16_t port = argc > 2 && strcmp(argv[1], "--port") == 0 ? (uint16_t)atoi(argv[2]) : 8080;
    struct bop_http_listen_options listen = {.port = port};
    struct bop_http_server *server;
    struct bop_listener *listener;
    struct bop_loop *loop;
    struct bop_error err;

    if (bop_loop_create(&(struct bop_loop_options){0}, &loop) != 0 ||
        bop_http_server_create(loop, NULL, &server) != 0 ||
        bop_http_route(server, NULL, "/*", hello, NULL) != 0) {
        return 1;
    }
    if (bop_http_listen(server, &listen, &listener, &err) != 0) {
        fprintf(stderr, "hello: %s\n", err.message);
        return 1;
    }
    printf("hello: http://127.0.0.1:%u/\n", bop_listener_port(listener));
    fflush(stdout);
    return bop_loop_run(loop) != 0;
}
