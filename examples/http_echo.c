/*
 * An HTTP server that answers each request with its body, of any size: what the
 * client does not take holds back what it sends.
 *
 *     http-echo [--port N]
 */
#include <bop/http.h>
#include <stdio.h>
#include <stdlib.h>

static void resume(struct bop_http_exchange *http, void *user)
{
    bop_http_resume(http);
}

static void echo(struct bop_http_exchange *http, struct bop_slice bytes, bool last, void *user)
{
    int rc = last ? bop_http_end(http, bytes) : bop_http_write(http, bytes);

    if (rc == BOP_HTTP_PRESSURE) {
        bop_http_pause(http);
    } else if (rc < 0) {
        bop_http_close(http);
    }
}

static void on_request(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    struct bop_slice type = bop_http_known(head, BOP_HTTP_CONTENT_TYPE);

    if (type.data != NULL) {
        bop_http_header(http, "Content-Type", type);
    }
    if (head->framing == BOP_HTTP_LENGTH) {
        bop_http_content_length(http, head->content_length);
    }
    bop_http_on_drain(http, resume, NULL);
    bop_http_body_max(http, UINT64_MAX);
    bop_http_on_body(http, echo, NULL);
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
        bop_http_route(server, NULL, "/*", on_request, NULL) != 0) {
        return 1;
    }
    if (bop_http_listen(server, &listen, &listener, &err) != 0) {
        fprintf(stderr, "http-echo: %s\n", err.message);
        return 1;
    }
    printf("http-echo: http://127.0.0.1:%u/\n", bop_listener_port(listener));
    fflush(stdout);
    return bop_loop_run(loop) != 0;
}
