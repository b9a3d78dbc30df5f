/*
 * A client for Autobahn|Testsuite's fuzzing server: sends each message of each case back.
 *
 *     autobahn_client URL     as ws://127.0.0.1:9001
 */
#include <stdio.h>
#include <stdlib.h>

#include <bop/ws.h>

#define LARGEST ((size_t)64 << 20) /* Of the suite's messages 16 MiB are the largest. */

static struct bop_loop *loop;
static int cases = -1; /* Not told yet. */

static void count(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                  struct bop_slice message)
{
    char text[16];

    snprintf(text, sizeof(text), "%.*s", (int)message.size, (const char *)message.data);
    cases = atoi(text);
}

static void echo(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode, struct bop_slice message)
{
    if (bop_ws_send(ws, opcode, message) == BOP_WS_PRESSURE) {
        bop_ws_pause(ws);
    }
}

static void go_on(struct bop_ws *ws, void *user)
{
    bop_ws_resume(ws);
}

static void on_close(struct bop_ws *ws, void *user, unsigned code, struct bop_slice reason)
{
    bop_loop_stop(loop);
}

/* Until it is closed. */
static int connect_to(const char *url, const struct bop_ws_options *options)
{
    struct bop_ws_connect_options connect = {.url = url, .options = options};
    struct bop_error err = {0};
    struct bop_ws *ws;

    if (bop_ws_connect(loop, &connect, &ws, &err) != 0) {
        fprintf(stderr, "autobahn_client: %s\n", err.message);
        return -1;
    }
    return bop_loop_run(loop);
}

static int run(const char *server)
{
    static const struct bop_ws_options counting = {.on_message = count, .on_close = on_close};
    static const struct bop_ws_options echoing = {.on_message = echo,
                                                  .on_drain = go_on,
                                                  .on_close = on_close,
                                                  .message_bytes_max = LARGEST,
                                                  .pressure_max = LARGEST,
                                                  .deflate_level = 1};
    char url[256];
    int rc;

    snprintf(url, sizeof(url), "%s/getCaseCount", server);
    rc = connect_to(url, &counting);
    for (int n = 1; rc == 0 && n <= cases; n++) {
        snprintf(url, sizeof(url), "%s/runCase?case=%d&agent=bop", server, n);
        rc = connect_to(url, &echoing);
    }
    snprintf(url, sizeof(url), "%s/updateReports?agent=bop", server);
    return rc == 0 && cases > 0 ? connect_to(url, &counting) : -1;
}

int main(int argc, char **argv)
{
    int rc;

    if (argc != 2) {
        fprintf(stderr, "usage: autobahn_client URL\n");
        return 2;
    }
    if (bop_loop_create(NULL, &loop) != 0) {
        return 1;
    }
    rc = run(argv[1]);
    bop_loop_destroy(loop);
    return rc == 0 ? 0 : 1;
}
