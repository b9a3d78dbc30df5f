/*
 * An HTTP server that answers each request with its body, of any size: what the
 * client does not take holds back what it sends. A body whose length is not known
 * beforehand (chunked) is kept until it ends, and so gets a length, unless it is
 * large: then it goes back as it comes.
 *
 *     http-echo [--port N]
 */
#include <bop/http.h>
#include <stdio.h>
#include <stdlib.h>

#define KEPT_MAX 65536 /* Bytes of a body without a length. */

struct echo {
    struct bop_buf kept;
    bool streams; /* More than may be kept: what was is sent already. */
};

static void echo_free(struct echo *echo)
{
    if (echo != NULL) {
        bop_buf_deinit(&echo->kept);
        free(echo);
    }
}

static void resume(struct bop_http_exchange *http, void *user)
{
    bop_http_resume(http);
}

static void on_abort(struct bop_http_exchange *http, void *user)
{
    echo_free(user);
}

static void send_back(struct bop_http_exchange *http, struct bop_slice bytes, bool last,
                      struct echo *echo)
{
    int rc = last ? bop_http_end(http, bytes) : bop_http_write(http, bytes);

    if (rc < 0) {
        bop_http_close(http); /* on_abort follows. */
    } else if (last) {
        echo_free(echo);
    } else if (rc == BOP_HTTP_PRESSURE) {
        bop_http_pause(http);
    }
}

static void on_body(struct bop_http_exchange *http, struct bop_slice bytes, bool last, void *user)
{
    struct echo *echo = user;

    if (echo == NULL || echo->streams) {
        send_back(http, bytes, last, echo);
    } else if (bop_buf_append(&echo->kept, bytes.data, bytes.size) < 0) {
        bop_http_close(http);
    } else if (last || echo->kept.size > KEPT_MAX) {
        echo->streams = true;
        send_back(http, bop_buf_slice(&echo->kept), last, echo);
    }
}

static void on_request(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    struct bop_slice type = bop_http_known(head, BOP_HTTP_CONTENT_TYPE);
    struct echo *echo = NULL;

    if (type.data != NULL) {
        bop_http_header(http, "Content-Type", type);
    }
    if (head->framing == BOP_HTTP_LENGTH) {
        bop_http_content_length(http, head->content_length);
    } else if (head->framing == BOP_HTTP_CHUNKED && (echo = calloc(1, sizeof(*echo))) != NULL) {
        bop_buf_init(&echo->kept, NULL, 0);
        bop_http_on_abort(http, on_abort, echo);
    }
    bop_http_on_drain(http, resume, NULL);
    bop_http_body_max(http, UINT64_MAX);
    bop_http_on_body(http, on_body, echo);
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
