/* The HTTP client against servers that follow a script, most of which misbehave. */
#include <stdio.h>

#include <bop/http_client.h>

#include "../net_fixture.h"

#define CONNS_MAX   64
#define ANSWERS_MAX 16

/* What a scripted server does with a request. */
struct answer {
    const char *text;
    bool close; /* After it. */
};

struct server_conn {
    struct fixture *f;
    struct bop_socket *socket;
    struct bop_buf got;
    unsigned requests;
    bool closed;
};

struct outcome {
    unsigned dones;
    int code;
    unsigned status;
    unsigned redirects;
    bool reused;
    char message[BOP_ERROR_MESSAGE_MAX];
    char url[256];
    struct bop_buf body; /* Of on_body or of the result. */
    unsigned heads;
    unsigned writables;
    struct fixture *f;
    struct bop_http_call *call;
    void (*on_body)(struct outcome *outcome);
    void (*on_done)(struct outcome *outcome);
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_loop *loop;
    struct bop_listener *listener;
    struct bop_http_client *client;
    struct server_conn conns[CONNS_MAX];
    unsigned conn_count;
    struct answer answers[ANSWERS_MAX]; /* By the number of the request, of all connections. */
    unsigned requests;
    bool answer_rest_in_pieces; /* One byte a turn. */
    char url[64];
};

/* ---- The server ---- */

static size_t head_size(struct bop_slice bytes)
{
    const uint8_t *end = bytes.size >= 4 ? memmem(bytes.data, bytes.size, "\r\n\r\n", 4) : NULL;

    return end != NULL ? (size_t)(end - bytes.data) + 4 : 0;
}

static size_t server_on_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct server_conn *conn = user;
    struct fixture *f = conn->f;
    size_t size = head_size(bytes);

    if (size == 0) {
        return 0;
    }
    REQUIRE_EQ(bop_buf_append(&conn->got, bytes.data, bytes.size), 0);
    /* Bodies are part of the last request's bytes: tests send them in one piece with its head. */
    for (size_t at = 0; size != 0; size = head_size(bop_slice(bytes.data + at, bytes.size - at))) {
        const struct answer *answer = &f->answers[f->requests++ % ANSWERS_MAX];

        at += size;
        conn->requests++;
        if (answer->text != NULL) {
            CHECK_EQ(bop_socket_write(socket, bop_slice_cstr(answer->text)), 0);
        }
        if (answer->close) {
            bop_socket_close_after_flush(socket, 1000);
            break;
        }
    }
    return bytes.size;
}

static void server_on_close(struct bop_socket *socket, void *user, int reason)
{
    ((struct server_conn *)user)->closed = true;
}

static const struct bop_socket_events server_events = {.on_data = server_on_data,
                                                       .on_close = server_on_close};

static bool server_on_accept(struct bop_listener *listener, struct bop_socket *socket, void *user)
{
    struct fixture *f = user;
    struct server_conn *conn = &f->conns[f->conn_count++];

    REQUIRE(f->conn_count <= CONNS_MAX);
    *conn = (struct server_conn){.f = f};
    conn->socket = socket;
    bop_buf_init(&conn->got, NULL, 0);
    bop_socket_attach(socket, &server_events, conn);
    return true;
}

static void setup(struct fixture *f)
{
    struct bop_listen_options listen = {.on_accept = server_on_accept, .user = f};

    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(
        bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator}, &f->loop), 0);
    REQUIRE_EQ(bop_listen(f->loop, &listen, &f->listener, NULL), 0);
    snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u", bop_listener_port(f->listener));
    REQUIRE_EQ(bop_http_client_create(f->loop, NULL, &f->client), 0);
}

static void teardown(struct fixture *f)
{
    bop_http_client_destroy(f->client);
    bop_loop_destroy(f->loop);
    for (unsigned i = 0; i < f->conn_count; i++) {
        bop_buf_deinit(&f->conns[i].got);
    }
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void use_options(struct fixture *f, struct bop_http_client_options options)
{
    bop_http_client_destroy(f->client);
    f->client = NULL;
    REQUIRE_EQ(bop_http_client_create(f->loop, &options, &f->client), 0);
}

#define TURN_UNTIL(condition)                                                                      \
    do {                                                                                           \
        int turns_left_ = 6000;                                                                    \
        while (!(condition)) {                                                                     \
            REQUIRE(turns_left_-- > 0 && #condition);                                              \
            REQUIRE_EQ(bop_loop_run_once(f->loop, 10), 0);                                         \
        }                                                                                          \
    } while (0)

/* ---- Calls ---- */

static void on_head(struct bop_http_call *call, void *user, const struct bop_http_head *head)
{
    struct outcome *o = user;

    CHECK_EQ(o->dones, 0);
    o->heads++;
}

static void on_body(struct bop_http_call *call, void *user, struct bop_slice bytes)
{
    struct outcome *o = user;

    CHECK_EQ(o->dones, 0);
    CHECK_EQ(bop_buf_append(&o->body, bytes.data, bytes.size), 0);
    if (o->on_body != NULL) {
        o->on_body(o);
    }
}

static void on_writable(struct bop_http_call *call, void *user)
{
    ((struct outcome *)user)->writables++;
}

static void on_done(struct bop_http_call *call, void *user, const struct bop_http_result *result)
{
    struct outcome *o = user;

    CHECK_PTR_EQ(call, o->call);
    o->dones++;
    o->code = result->code;
    o->status = result->status;
    o->redirects = result->redirects;
    o->reused = result->reused;
    snprintf(o->message, sizeof(o->message), "%s", result->message);
    snprintf(o->url, sizeof(o->url), "%s", result->url);
    CHECK_EQ(bop_buf_append(&o->body, result->body.data, result->body.size), 0);
    if (o->on_done != NULL) {
        o->on_done(o);
    }
}

static void begin(struct fixture *f, struct outcome *o, const char *path,
                  struct bop_http_request request)
{
    char url[256];

    snprintf(url, sizeof(url), "%s%s", f->url, path);
    if (o->f == NULL) {
        o->f = f;
        bop_buf_init(&o->body, NULL, 0);
    }
    request.url = request.url != NULL ? request.url : url;
    request.on_head = on_head;
    request.on_writable = on_writable;
    request.on_done = on_done;
    request.user = o;
    REQUIRE_EQ(bop_http_fetch(f->client, &request, &o->call, NULL), 0);
    CHECK_EQ(o->dones, 0); /* Never from inside. */
}

static void get(struct fixture *f, struct outcome *o, const char *path)
{
    begin(f, o, path, (struct bop_http_request){.method = NULL});
}

static void finish(struct fixture *f, struct outcome *o)
{
    TURN_UNTIL(o->dones > 0);
    CHECK_EQ(o->dones, 1);
    CHECK_EQ(bop_http_call_write(o->call, bytes("x"), false), BOP_ECLOSED);
    bop_http_call_cancel(o->call); /* Of the past: nothing happens. */
}

static void check_answer(struct fixture *f, struct outcome *o, unsigned status, const char *body)
{
    finish(f, o);
    if (o->code != 0) {
        test_note("%s", o->message);
    }
    CHECK_EQ(o->code, 0);
    CHECK_EQ(o->status, status);
    CHECK_SLICE_EQ(bop_buf_slice(&o->body), bytes(body));
    bop_buf_deinit(&o->body);
    *o = (struct outcome){.dones = 0};
}

static void check_failure(struct fixture *f, struct outcome *o, int code)
{
    finish(f, o);
    CHECK_EQ(o->code, code);
    CHECK(o->message[0] != '\0');
    bop_buf_deinit(&o->body);
    *o = (struct outcome){.dones = 0};
}

#define OK_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

static bool request_has(const struct server_conn *conn, const char *text)
{
    return memmem(conn->got.data, conn->got.size, text, strlen(text)) != NULL;
}

TEST(client, gets_an_answer)
{
    struct outcome o = {.dones = 0};

    f->answers[0].text = OK_HELLO;
    get(f, &o, "/path?query");
    check_answer(f, &o, 200, "hello");
    CHECK(request_has(&f->conns[0], "GET /path?query HTTP/1.1\r\nHost: 127.0.0.1:"));
}

static const struct {
    const char *text;
    bool close;
    int code;
    unsigned status;
    const char *body;
} cases[] = {
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: "
     "1\r\n\r\n",
     false, 0, 200, "abcde"},
    {"HTTP/1.1 200 OK\r\n\r\nuntil close", true, 0, 200, "until close"},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", true, 0, 200, "ab"},
    {"HTTP/1.1 204 No Content\r\n\r\n", false, 0, 204, ""},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, 0, 304, ""},
    {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false, 0, 404, ""},
    {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
     false, 0, 200, "x"},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", true, 0, 200, "x"},
    {"SSH-2.0-OpenSSH_9.2\r\n", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", false,
     BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", false, BOP_EMALFORMED, 200,
     NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", true, BOP_ECLOSED, 200, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true, BOP_ECLOSED, 200,
     NULL},
    {"HTTP/1.1 200 OK\r\nContent-Le", true, BOP_ECLOSED, 0, NULL},
    {"", true, BOP_ECLOSED, 0, NULL},
    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", false,
     BOP_EPROTOCOL, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", false, BOP_ETOOBIG, 200, NULL},
    /* What could be read in two ways. */
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false,
     BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false, BOP_EMALFORMED,
     0, NULL},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, BOP_EMALFORMED, 0,
     NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", false, BOP_EMALFORMED, 0,
     NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nA: b\r\n Content-Length: 5\r\n\r\nhello", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\nhello", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", false, BOP_EMALFORMED, 0, NULL},
    /* Chunks. */
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n", false, BOP_EMALFORMED,
     200, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", false,
     BOP_EMALFORMED, 200, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", false, BOP_EMALFORMED, 200,
     NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n", false, BOP_EMALFORMED, 200,
     NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", false,
     BOP_EMALFORMED, 200, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", true, BOP_ECLOSED, 200, NULL},
    /* Status lines. */
    {"HTTP/2.0 200 OK\r\n\r\n", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 20 OK\r\n\r\n", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 2000 OK\r\n\r\n", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1  200 OK\r\n\r\n", false, BOP_EMALFORMED, 0, NULL},
    {"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", false, BOP_EMALFORMED, 0, NULL},
    {"HTTP/1.1 200", true, BOP_ECLOSED, 0, NULL},
    {"HTTP/1.1 100 Continue\r\n\r\n", true, BOP_ECLOSED, 0, NULL},
    {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false, 0, 204, ""},
};

static void judge(struct fixture *f, struct outcome *o, size_t i)
{
    finish(f, o);
    CHECK_EQ(o->code, cases[i].code);
    CHECK_EQ(o->status, cases[i].status);
    if (cases[i].body != NULL) {
        CHECK_SLICE_EQ(bop_buf_slice(&o->body), bytes(cases[i].body));
    }
    if (o->code != cases[i].code || o->status != cases[i].status) {
        test_note("case %zu: %s", i, o->message);
    }
    bop_buf_deinit(&o->body);
    *o = (struct outcome){.dones = 0};
}

TEST(client, judges_answers)
{
    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        struct outcome o = {.dones = 0};

        use_options(f, (struct bop_http_client_options){.keep_ms = 0});
        f->requests = 0;
        f->answers[0] = (struct answer){cases[i].text, cases[i].close};
        get(f, &o, "/");
        judge(f, &o, i);
    }
}

/* The server's answer comes in two pieces, cut at each byte in turn. */
TEST(client, judges_answers_cut_at_every_byte)
{
    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        for (size_t cut = 1; cut < strlen(cases[i].text); cut++) {
            struct outcome o = {.dones = 0};
            char first[256];
            struct server_conn *conn;

            use_options(f, (struct bop_http_client_options){.keep_ms = 0});
            snprintf(first, sizeof(first), "%.*s", (int)cut, cases[i].text);
            f->requests = 0;
            f->answers[0] = (struct answer){first, false};
            f->conn_count = 0;
            get(f, &o, "/");
            TURN_UNTIL(f->requests == 1);
            conn = &f->conns[0];
            turn(f->loop);
            if (o.dones == 0 && !conn->closed) {
                BOP_IGNORE(bop_socket_write(conn->socket, bytes(cases[i].text + cut)));
                if (cases[i].close) {
                    bop_socket_close_after_flush(conn->socket, 1000);
                }
            }
            judge(f, &o, i);
            TURN_UNTIL(conn->closed || cases[i].code == 0);
            if (!conn->closed) {
                bop_socket_close(conn->socket);
                TURN_UNTIL(conn->closed);
            }
            bop_buf_deinit(&conn->got);
        }
    }
    f->conn_count = 0;
}

/* What a server may send before an answer, or instead of one, is bounded. */
TEST(client, bounds_what_comes_before_a_body)
{
    static char endless[4096];
    struct outcome o = {.dones = 0};

    use_options(f, (struct bop_http_client_options){.limits = {.head_bytes_max = 1024}});
    memset(endless, 'a', sizeof(endless) - 1);
    memcpy(endless, "HTTP/1.1 200 OK\r\nA: ", 20);
    f->answers[0].text = endless;
    get(f, &o, "/");
    check_failure(f, &o, BOP_ETOOBIG);

    for (size_t at = 0; at < sizeof(endless) - 26; at += 25) {
        memcpy(endless + at, "HTTP/1.1 100 Continue\r\n\r\n", 26);
    }
    f->answers[1].text = endless;
    get(f, &o, "/");
    check_failure(f, &o, BOP_EPROTOCOL);
    CHECK_EQ(bop_http_client_counters(f->client).kept_now, 0);
}

TEST(client, keeps_connections)
{
    struct outcome o = {.dones = 0};

    for (int i = 0; i < 5; i++) {
        f->answers[i].text = OK_HELLO;
        get(f, &o, "/");
        check_answer(f, &o, 200, "hello");
    }
    CHECK_EQ(f->conn_count, 1);
    CHECK_EQ(bop_http_client_counters(f->client).reused, 4);
    CHECK_EQ(bop_http_client_counters(f->client).kept_now, 1);
}

static bool shows(struct bop_metrics *metrics, const char *line)
{
    struct bop_buf text;
    bool found;

    bop_buf_init(&text, NULL, 0);
    REQUIRE_EQ(bop_metrics_write(metrics, &text), 0);
    REQUIRE_EQ(bop_buf_append(&text, "", 1), 0);
    found = strstr((char *)text.data, line) != NULL;
    bop_buf_deinit(&text);
    return found;
}

TEST(client, is_counted_in_a_registry)
{
    struct bop_metrics *metrics, *other;
    struct outcome o = {.dones = 0};

    REQUIRE_EQ(bop_metrics_create(NULL, &metrics), 0);
    REQUIRE_EQ(bop_metrics_create(NULL, &other), 0);
    CHECK_EQ(bop_http_client_metrics(f->client, metrics, "to=\"test\""), 0);
    CHECK_EQ(bop_http_client_metrics(f->client, other, NULL), BOP_EINVAL);
    for (int i = 0; i < 3; i++) {
        f->answers[i].text = OK_HELLO;
        get(f, &o, "/");
        check_answer(f, &o, 200, "hello");
    }
    /* By itself, within a second. */
    TURN_UNTIL(shows(metrics, "bop_http_client_calls_total{to=\"test\"} 3\n"));
    CHECK(shows(metrics, "bop_http_client_reused_total{to=\"test\"} 2\n"));
    CHECK(shows(metrics, "bop_http_client_kept{to=\"test\"} 1\n"));
    f->answers[3].text = OK_HELLO;
    get(f, &o, "/");
    CHECK_EQ(bop_http_client_metrics(f->client, metrics, NULL), 0); /* Now. */
    CHECK(shows(metrics, "bop_http_client_calls_total{to=\"test\"} 4\n"));
    CHECK(shows(metrics, "bop_http_client_kept{to=\"test\"} 0\n"));
    check_answer(f, &o, 200, "hello");
    bop_http_client_destroy(f->client);
    f->client = NULL;
    CHECK(shows(metrics, "bop_http_client_connections{to=\"test\"} 0\n"));
    CHECK(shows(metrics, "bop_http_client_calls_total{to=\"test\"} 4\n"));
    bop_metrics_destroy(metrics);
    bop_metrics_destroy(other);
}

TEST(client, bounds_connections_of_a_host_and_serves_all_in_turn)
{
    struct outcome o[10] = {{.dones = 0}};

    use_options(f, (struct bop_http_client_options){.connections_per_host_max = 2});
    for (int i = 0; i < 10; i++) {
        f->answers[i].text = OK_HELLO;
        get(f, &o[i], "/");
    }
    CHECK_EQ(bop_http_client_counters(f->client).waiting_now, 8);
    for (int i = 0; i < 10; i++) {
        check_answer(f, &o[i], 200, "hello");
    }
    CHECK_EQ(f->conn_count, 2);
}

TEST(client, refuses_calls_when_too_many_wait)
{
    struct outcome o[2] = {{.dones = 0}};
    struct bop_http_request request = {.url = f->url, .on_done = on_done};
    struct bop_error err = {0};

    use_options(f,
                (struct bop_http_client_options){.connections_per_host_max = 1, .waiting_max = 1});
    get(f, &o[0], "/");
    get(f, &o[1], "/");
    CHECK_EQ(bop_http_fetch(f->client, &request, NULL, &err), BOP_EFULL);
    bop_http_client_destroy(f->client);
    f->client = NULL;
    CHECK_EQ(o[0].code, BOP_ECANCELED);
    CHECK_EQ(o[1].code, BOP_ECANCELED);
    bop_buf_deinit(&o[0].body);
    bop_buf_deinit(&o[1].body);
}

TEST(client, makes_a_call_again_whose_kept_connection_was_closed)
{
    struct outcome o = {.dones = 0};

    f->answers[0].text = OK_HELLO;
    f->answers[1] = (struct answer){NULL, true}; /* Closed instead of an answer. */
    f->answers[2].text = OK_HELLO;
    get(f, &o, "/");
    check_answer(f, &o, 200, "hello");
    get(f, &o, "/");
    check_answer(f, &o, 200, "hello");
    CHECK_EQ(f->conn_count, 2);
    CHECK_EQ(bop_http_client_counters(f->client).retried, 1);
}

TEST(client, does_not_repeat_what_is_not_idempotent)
{
    struct outcome o = {.dones = 0};

    f->answers[0].text = OK_HELLO;
    f->answers[1] = (struct answer){NULL, true};
    get(f, &o, "/");
    check_answer(f, &o, 200, "hello");
    begin(f, &o, "/", (struct bop_http_request){.method = "POST", .body = bytes("x")});
    check_failure(f, &o, BOP_ECLOSED);
    CHECK_EQ(f->conn_count, 1);
}

TEST(client, closes_a_connection_that_speaks_unasked)
{
    struct outcome o = {.dones = 0};

    f->answers[0].text = OK_HELLO "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!";
    f->answers[1].text = OK_HELLO;
    get(f, &o, "/");
    check_answer(f, &o, 200, "hello");
    TURN_UNTIL(f->conns[0].closed);
    get(f, &o, "/");
    check_answer(f, &o, 200, "hello");
    CHECK_EQ(f->conn_count, 2);
}

TEST(client, follows_redirects_by_choice)
{
    struct outcome o = {.dones = 0};

    f->answers[0].text = "HTTP/1.1 302 Found\r\nLocation: ../b?x\r\nContent-Length: 3\r\n\r\nabc";
    f->answers[1].text = OK_HELLO;
    get(f, &o, "/dir/a");
    check_answer(f, &o, 302, "abc");
    f->requests = 0;
    begin(f, &o, "/dir/a", (struct bop_http_request){.redirects_max = 3});
    finish(f, &o);
    CHECK_EQ(o.status, 200);
    CHECK_EQ(o.redirects, 1);
    CHECK(strstr(o.url, "/b?x") != NULL);
    CHECK(request_has(&f->conns[0], "GET /b?x HTTP/1.1\r\n"));
    CHECK_EQ(o.heads, 1);
    bop_buf_deinit(&o.body);
}

TEST(client, ends_a_circle_of_redirects)
{
    struct outcome o = {.dones = 0};

    for (int i = 0; i < ANSWERS_MAX; i++) {
        f->answers[i].text = "HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    }
    begin(f, &o, "/", (struct bop_http_request){.redirects_max = 5});
    check_failure(f, &o, BOP_EOVERFLOW);
    CHECK_EQ(f->requests, 6);
}

TEST(client, redirects_change_the_method_as_all_do)
{
    static const struct {
        const char *status;
        const char *method;
        const char *then;
        bool body;
    } rules[] = {
        {"301", "POST", "GET /b ", false},  {"302", "POST", "GET /b ", false},
        {"303", "PUT", "GET /b ", false},   {"307", "POST", "POST /b ", true},
        {"308", "PUT", "PUT /b ", true},    {"301", "PUT", "PUT /b ", true},
        {"303", "HEAD", "HEAD /b ", false},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(rules); i++) {
        struct outcome o = {.dones = 0};
        char text[128];
        bool head = strcmp(rules[i].method, "HEAD") == 0;

        use_options(f, (struct bop_http_client_options){.keep_ms = 0});
        snprintf(text, sizeof(text), "HTTP/1.1 %s X\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
                 rules[i].status);
        f->requests = 0;
        f->answers[0].text = text;
        f->answers[1].text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        begin(f, &o, "/a",
              (struct bop_http_request){.method = rules[i].method,
                                        .body = head ? bytes("") : bytes("BODY"),
                                        .redirects_max = 1});
        check_answer(f, &o, 200, "");
        CHECK(request_has(&f->conns[f->conn_count - 1], rules[i].then));
    }
}

TEST(client, secrets_stay_with_their_origin)
{
    struct outcome o = {.dones = 0};
    struct bop_http_header headers[] = {{bytes("Authorization"), bytes("secret")},
                                        {bytes("Cookie"), bytes("secret")},
                                        {bytes("X-Other"), bytes("kept")}};
    char text[160];

    snprintf(text, sizeof(text),
             "HTTP/1.1 302 Found\r\nLocation: http://localhost:%u/\r\nContent-Length: 0\r\n\r\n",
             bop_listener_port(f->listener));
    f->answers[0].text = text;
    f->answers[1].text = OK_HELLO;
    begin(f, &o, "/",
          (struct bop_http_request){.headers = headers, .header_count = 3, .redirects_max = 1});
    check_answer(f, &o, 200, "hello");
    REQUIRE_EQ(f->conn_count, 2);
    CHECK(request_has(&f->conns[0], "Authorization: secret\r\n"));
    CHECK(!request_has(&f->conns[1], "secret"));
    CHECK(request_has(&f->conns[1], "X-Other: kept\r\n"));
}

TEST(client, pipelines_by_choice)
{
    struct outcome o[5] = {{.dones = 0}};

    use_options(f,
                (struct bop_http_client_options){.connections_per_host_max = 1, .pipeline_max = 4});
    for (int i = 0; i < 5; i++) {
        f->answers[i].text = OK_HELLO;
    }
    get(f, &o[0], "/");
    check_answer(f, &o[0], 200, "hello");
    for (int i = 1; i < 5; i++) {
        get(f, &o[i], "/");
    }
    CHECK_EQ(bop_http_client_counters(f->client).waiting_now, 0);
    for (int i = 1; i < 5; i++) {
        check_answer(f, &o[i], 200, "hello");
    }
    CHECK_EQ(f->conn_count, 1);
}

/* The second answer breaks off: that call fails, those behind it are made again. */
TEST(client, pipelined_calls_survive_the_failure_before_them)
{
    struct outcome o[4] = {{.dones = 0}};

    use_options(f,
                (struct bop_http_client_options){.connections_per_host_max = 1, .pipeline_max = 4});
    f->answers[0].text = OK_HELLO;
    f->answers[1] = (struct answer){"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", true};
    f->answers[2].text = OK_HELLO;
    f->answers[3].text = OK_HELLO;
    get(f, &o[0], "/");
    check_answer(f, &o[0], 200, "hello");
    for (int i = 1; i < 4; i++) {
        get(f, &o[i], "/");
    }
    check_failure(f, &o[1], BOP_ECLOSED);
    check_answer(f, &o[2], 200, "hello");
    check_answer(f, &o[3], 200, "hello");
}

static void pause_call(struct outcome *o)
{
    bop_http_call_pause(o->call);
}

TEST(client, pauses_and_resumes)
{
    struct outcome o = {.on_body = pause_call};

    f->answers[0].text = OK_HELLO;
    begin(f, &o, "/", (struct bop_http_request){.on_body = on_body});
    TURN_UNTIL(o.body.size == 5);
    for (int i = 0; i < 5; i++) {
        turn(f->loop);
    }
    CHECK_EQ(o.dones, 0);
    bop_http_call_resume(o.call);
    check_answer(f, &o, 200, "hello");
}

static void cancel_call(struct outcome *o)
{
    bop_http_call_cancel(o->call);
    CHECK_EQ(o->dones, 0);
}

TEST(client, can_be_canceled_anywhere)
{
    struct outcome o = {.dones = 0};

    get(f, &o, "/"); /* Before it is connected. */
    bop_http_call_cancel(o.call);
    check_failure(f, &o, BOP_ECANCELED);
    get(f, &o, "/"); /* Waiting for an answer. */
    TURN_UNTIL(f->requests == 1);
    bop_http_call_cancel(o.call);
    check_failure(f, &o, BOP_ECANCELED);
    f->answers[1].text = OK_HELLO;
    o.on_body = cancel_call; /* In the middle of its body. */
    begin(f, &o, "/", (struct bop_http_request){.on_body = on_body});
    check_failure(f, &o, BOP_ECANCELED);
    CHECK_EQ(bop_http_client_counters(f->client).open_now, 0);
}

TEST(client, times_out)
{
    struct outcome o = {.dones = 0};

    begin(f, &o, "/", (struct bop_http_request){.timeout_ms = 20});
    check_failure(f, &o, BOP_ETIMEOUT);
    begin(f, &o, "/", (struct bop_http_request){.idle_timeout_ms = 20});
    check_failure(f, &o, BOP_ETIMEOUT);
}

TEST(client, sends_bodies)
{
    struct outcome o = {.dones = 0};

    f->answers[0].text = OK_HELLO;
    begin(f, &o, "/", (struct bop_http_request){.method = "POST", .body = bytes("BODY")});
    check_answer(f, &o, 200, "hello");
    CHECK(request_has(&f->conns[0], "Content-Length: 4\r\n\r\nBODY"));
}

TEST(client, sends_a_body_that_comes_later)
{
    struct outcome o = {.dones = 0};

    begin(f, &o, "/", (struct bop_http_request){.method = "PUT", .body_later = 6});
    TURN_UNTIL(o.writables == 1);
    CHECK_EQ(bop_http_call_write(o.call, bytes("1234567"), false), BOP_EINVAL);
    CHECK_EQ(bop_http_call_write(o.call, bytes("123"), true), BOP_EINVAL);
    CHECK_EQ(bop_http_call_write(o.call, bytes("123"), false), 0);
    CHECK_EQ(bop_http_call_write(o.call, bytes("456"), true), 0);
    CHECK_EQ(bop_http_call_write(o.call, bytes("7"), true), BOP_EINVAL);
    TURN_UNTIL(f->requests == 1);
    CHECK_EQ(bop_socket_write(f->conns[0].socket, bytes(OK_HELLO)), 0);
    check_answer(f, &o, 200, "hello");
    CHECK(request_has(&f->conns[0], "PUT / HTTP/1.1\r\n"));
}

TEST(client, sends_a_chunked_body)
{
    struct outcome o = {.dones = 0};

    begin(f, &o, "/",
          (struct bop_http_request){
              .method = "POST", .body_later = UINT64_MAX, .expect_continue = true});
    TURN_UNTIL(f->requests == 1);
    CHECK(request_has(&f->conns[0], "Expect: 100-continue\r\n"));
    CHECK(request_has(&f->conns[0], "Transfer-Encoding: chunked\r\n"));
    CHECK_EQ(bop_http_call_write(o.call, bytes("early"), false), BOP_EBUSY);
    CHECK_EQ(bop_socket_write(f->conns[0].socket, bytes("HTTP/1.1 100 Continue\r\n\r\n")), 0);
    TURN_UNTIL(o.writables == 1);
    f->answers[1].text = OK_HELLO; /* For the end of chunks looks like one of a head. */
    CHECK_EQ(bop_http_call_write(o.call, bytes("0123456789abcdef"), false), 0);
    CHECK_EQ(bop_http_call_write(o.call, bytes("g"), true), 0);
    check_answer(f, &o, 200, "hello");
    CHECK(request_has(&f->conns[0], "10\r\n0123456789abcdef\r\n1\r\ng\r\n0\r\n\r\n"));
}

TEST(client, takes_an_answer_before_its_body_is_sent)
{
    struct outcome o = {.dones = 0};

    f->answers[0].text = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
    begin(f, &o, "/",
          (struct bop_http_request){
              .method = "POST", .body = bytes("BODY"), .expect_continue = true});
    check_answer(f, &o, 413, "");
    CHECK(!request_has(&f->conns[0], "BODY"));
    TURN_UNTIL(f->conns[0].closed); /* Nobody could tell whether a body follows. */
}

TEST(client, refuses_what_cannot_be_asked)
{
    static const char *const urls[] = {"",
                                       "ftp://x/",
                                       "http://",
                                       "http://a b/",
                                       "http://u@h/",
                                       "http://h:0x/",
                                       "http://h:65536/",
                                       "/path",
                                       "http:///x"};
    struct bop_http_header bad[] = {{bytes("Host"), bytes("x")},
                                    {bytes("Content-Length"), bytes("1")},
                                    {bytes("A b"), bytes("x")},
                                    {bytes("A"), bytes("x\r\nB: y")}};
    struct bop_http_request request = {.on_done = on_done};
    struct bop_error err = {0};

    for (size_t i = 0; i < BOP_COUNT_OF(urls); i++) {
        request.url = urls[i];
        CHECK_EQ(bop_http_fetch(f->client, &request, NULL, &err), BOP_EINVAL);
    }
    request.url = f->url;
    request.header_count = 1;
    for (size_t i = 0; i < BOP_COUNT_OF(bad); i++) {
        request.headers = &bad[i];
        CHECK_EQ(bop_http_fetch(f->client, &request, NULL, &err), BOP_EINVAL);
    }
    request.header_count = 0;
    request.method = "GE T";
    CHECK_EQ(bop_http_fetch(f->client, &request, NULL, &err), BOP_EINVAL);
    request.method = "CONNECT";
    CHECK_EQ(bop_http_fetch(f->client, &request, NULL, &err), BOP_EINVAL);
}

TEST(client, tells_why_it_could_not_connect)
{
    struct outcome o = {.dones = 0};

    bop_listener_close(f->listener);
    turn(f->loop);
    get(f, &o, "/");
    finish(f, &o);
    CHECK_EQ(o.code, -ECONNREFUSED);
    CHECK(strstr(o.message, "127.0.0.1") != NULL);
    bop_buf_deinit(&o.body);
}

static void call_again(struct outcome *o)
{
    static struct bop_http_request request;

    if (o->dones < 3) {
        request = (struct bop_http_request){.url = o->f->url, .on_done = on_done, .user = o};
        CHECK_EQ(bop_http_fetch(o->f->client, &request, &o->call, NULL), 0);
    }
}

TEST(client, may_be_called_from_its_callbacks)
{
    struct outcome o = {.on_done = call_again};

    for (int i = 0; i < 3; i++) {
        f->answers[i].text = OK_HELLO;
    }
    get(f, &o, "/");
    TURN_UNTIL(o.dones == 3);
    CHECK_EQ(o.code, 0);
    CHECK_EQ(f->conn_count, 1);
    bop_buf_deinit(&o.body);
}

TEST(client, survives_want_of_memory_anywhere)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_http_client *client = NULL;
        struct outcome o = {.f = f};
        struct bop_http_request request = {.url = f->url, .on_done = on_done, .user = &o};
        int rc;

        bop_buf_init(&o.body, NULL, 0);
        f->requests = 0;
        f->answers[0].text = OK_HELLO;
        rc = bop_http_client_create(f->loop, NULL, &client);
        if (rc == 0) {
            rc = bop_http_fetch(client, &request, &o.call, NULL);
        }
        if (rc == 0) {
            TURN_UNTIL(o.dones == 1);
            CHECK(o.code == 0 || f->faults.fired != 0);
        } else {
            CHECK(f->faults.fired != 0);
        }
        bop_http_client_destroy(client);
        turn(f->loop);
        turn(f->loop);
        bop_buf_deinit(&o.body);
        for (unsigned i = 0; i < f->conn_count; i++) {
            if (!f->conns[i].closed) {
                bop_socket_close(f->conns[i].socket);
                TURN_UNTIL(f->conns[i].closed);
            }
            bop_buf_deinit(&f->conns[i].got);
        }
        f->conn_count = 0;
    }
}
