/*
 * A chat room for browsers: a page, and a WebSocket that sends what each says to
 * all.
 *
 *      chat [--host ADDRESS] [--port N]
 *
 * Open http://localhost:9002/ in two windows.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/ws.h>

#define ROOM "room"

static const char page[] =
    "<!doctype html>\n"
    "<html lang=\"en\"><meta charset=\"utf-8\"><title>bop chat</title>\n"
    "<style>body{font:16px sans-serif;max-width:40em;margin:2em auto}"
    "#log{border:1px solid #ccc;height:20em;overflow:auto;padding:.5em;white-space:pre-wrap}"
    "form{display:flex;margin-top:.5em}input{flex:1}</style>\n"
    "<h1>Chat</h1><div id=\"log\"></div>\n"
    "<form><input id=\"text\" autocomplete=\"off\" placeholder=\"Say something\" autofocus>"
    "<button>Send</button></form>\n"
    "<script>\n"
    "const log = document.getElementById('log'), text = document.getElementById('text');\n"
    "const show = line => { log.append(line + '\\n'); log.scrollTop = log.scrollHeight; };\n"
    "const scheme = location.protocol === 'https:' ? 'wss://' : 'ws://';\n"
    "const ws = new WebSocket(scheme + location.host + '/chat', 'bop.chat');\n"
    "ws.onopen = () => {\n"
    "    show('(connected)');\n"
    "    const say = new URLSearchParams(location.search).get('say');\n"
    "    if (say) ws.send(say);\n"
    "};\n"
    "ws.onmessage = event => show(event.data);\n"
    "ws.onclose = event => show('(closed: ' + event.code + ')');\n"
    "document.querySelector('form').onsubmit = event => {\n"
    "    event.preventDefault();\n"
    "    if (text.value) ws.send(text.value);\n"
    "    text.value = '';\n"
    "};\n"
    "</script></html>\n";

/* Lines longer than this are none. */
#define LINE_BYTES_MAX 4096

static struct bop_loop *loop;
static unsigned guests;

static int say(struct bop_topics *topics, const char *who, struct bop_slice line)
{
    char text[LINE_BYTES_MAX + 64];
    int size = snprintf(text, sizeof(text), "%s: %.*s", who, (int)line.size,
                        (const char *)line.data);

    return bop_topics_publish(topics, ROOM, BOP_WS_TEXT, bop_slice(text, (size_t)size));
}

/** Of each connection. */
struct guest {
    char name[32];
};

static void on_open(struct bop_ws *ws, void *user)
{
    struct guest *guest = (struct guest *)user;

    snprintf(guest->name, sizeof(guest->name), "guest %u", ++guests);
    if (bop_ws_subscribe(ws, ROOM) != 0) {
        bop_ws_close(ws, BOP_WS_TRY_LATER, bop_slice_cstr("out of memory"));
    }
}

static struct bop_topics *topics;

static void on_message(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice message)
{
    const struct guest *guest = (const struct guest *)user;

    if (opcode != BOP_WS_TEXT) {
        bop_ws_close(ws, BOP_WS_UNSUPPORTED, bop_slice_cstr("text only"));
    } else if (say(topics, guest->name, message) != 0) {
        bop_ws_close(ws, BOP_WS_TRY_LATER, bop_slice_cstr("out of memory"));
    }
}

static void send_page(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    bop_http_reply(http, 200, "text/html; charset=utf-8", bop_slice(page, sizeof(page) - 1));
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
    fprintf(stderr, "chat: %s\n", message);
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
    static const char *const protocols[] = {"bop.chat", NULL};
    struct bop_ws_options options = {
        .on_open = on_open,
        .on_message = on_message,
        .message_bytes_max = LINE_BYTES_MAX,
        .protocols = protocols,
        .user_bytes = sizeof(struct guest),
    };
    struct bop_http_listen_options listen = {.port = 9002};
    struct bop_http_server *server = NULL;
    int rc;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--port") == 0 && i + 1 < argc) {
            listen.port = (uint16_t)atoi(argv[++i]);
        } else if (strcmp(argv[i], "--host") == 0 && i + 1 < argc) {
            listen.host = argv[++i];
        } else {
            fprintf(stderr, "usage: chat [--host ADDRESS] [--port N]\n");
            return 2;
        }
    }
    topics = bop_topics_create(NULL);
    options.topics = topics;
    if (topics == NULL || bop_loop_create(NULL, &loop) != 0 ||
        bop_http_server_create(loop, NULL, &server) != 0 ||
        bop_http_route(server, "GET", "/", send_page, NULL) != 0 ||
        bop_ws_route(server, "/chat", &options, NULL) != 0) {
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
    bop_topics_destroy(topics);
    return rc;
}
