/*
 * A WebSocket client for the terminal: sends each line of standard input, prints
 * each message.
 *
 *      ws-client [--count N] URL
 *
 * With --count it closes after so many messages, else when the input ends.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/ws.h>

static struct bop_loop *loop;
static struct bop_ws *ws;
static unsigned long wanted; /* Messages; 0: any number. */
static unsigned long received;
static int result;

/* ---- The connection, on the loop's thread ---- */

static void on_message(struct bop_ws *from, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice message)
{
    if (opcode == BOP_WS_TEXT) {
        printf("%.*s\n", (int)message.size, (const char *)message.data);
    } else {
        printf("(%zu bytes)\n", message.size);
    }
    fflush(stdout);
    if (++received == wanted) {
        bop_ws_close(from, BOP_WS_NORMAL, bop_slice(NULL, 0));
    }
}

static void on_close(struct bop_ws *from, void *user, unsigned code, struct bop_slice reason)
{
    result = code == BOP_WS_NORMAL ? 0 : 1;
    if (result != 0) {
        fprintf(stderr, "ws-client: closed, %u %.*s\n", code, (int)reason.size,
                (const char *)reason.data);
    }
    bop_loop_stop(loop);
}

/* ---- Lines, read on a thread of their own and handed over ---- */

struct line {
    size_t size;
    char text[];
};

static void send_line(void *arg)
{
    struct line *line = (struct line *)arg;

    if (bop_ws_send(ws, BOP_WS_TEXT, bop_slice(line->text, line->size)) < 0) {
        fprintf(stderr, "ws-client: not sent\n");
    }
    free(line);
}

static void end_lines(void *arg)
{
    if (wanted == 0) {
        bop_ws_close(ws, BOP_WS_NORMAL, bop_slice(NULL, 0));
    }
}

static void *read_lines(void *arg)
{
    struct bop_loop_handle *handle = (struct bop_loop_handle *)arg;
    char *text = NULL;
    size_t capacity = 0;
    ssize_t size;
    int rc = 0;

    while (rc == 0 && (size = getline(&text, &capacity, stdin)) >= 0) {
        struct line *line;

        size -= size > 0 && text[size - 1] == '\n';
        line = (struct line *)malloc(sizeof(*line) + (size_t)size);
        if (line == NULL) {
            break;
        }
        line->size = (size_t)size;
        memcpy(line->text, text, (size_t)size);
        rc = bop_loop_handle_call(handle, send_line, line);
        if (rc != 0) {
            free(line); /* The loop is over. */
        }
    }
    if (rc == 0) {
        BOP_IGNORE(bop_loop_handle_call(handle, end_lines, NULL)); /* Else the loop is over. */
    }
    free(text);
    bop_loop_handle_unref(handle);
    return NULL;
}

static void on_open(struct bop_ws *from, void *user)
{
    struct bop_loop_handle *handle = bop_loop_handle(loop);
    pthread_t thread;

    /* The thread may hang in a read for ever: it is left to itself. */
    if (handle == NULL || pthread_create(&thread, NULL, read_lines, handle) != 0 ||
        pthread_detach(thread) != 0) {
        fprintf(stderr, "ws-client: no thread to read lines with\n");
        bop_ws_terminate(from);
    }
}

int main(int argc, char **argv)
{
    static const struct bop_ws_options options = {
        .on_open = on_open, .on_message = on_message, .on_close = on_close};
    struct bop_ws_connect_options connect = {.options = &options};
    struct bop_error err = {0};
    int at = 1, rc;

    if (argc == 4 && strcmp(argv[1], "--count") == 0) {
        wanted = strtoul(argv[2], NULL, 10);
        at = 3;
    }
    if (at + 1 != argc) {
        fprintf(stderr, "usage: ws-client [--count N] URL\n");
        return 2;
    }
    connect.url = argv[at];
    if (bop_loop_create(NULL, &loop) != 0) {
        return 1;
    }
    if (bop_ws_connect(loop, &connect, &ws, &err) != 0) {
        fprintf(stderr, "ws-client: %s\n", err.message);
        return 1;
    }
    rc = bop_loop_run(loop);
    bop_loop_destroy(loop);
    return rc == 0 ? result : 1;
}
