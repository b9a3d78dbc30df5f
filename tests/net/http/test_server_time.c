/*
 * Timeouts and the graceful stop, on a clock that stands until the test moves it.
 */
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "server_fixture.h"
#include "server_internal.h"

static void setup(struct fixture *f)
{
    server_setup(f);
}

FIXTURE(setup, server_teardown)

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

static const struct bop_http_server_options short_times = {
    .head_timeout_ms = 2000,
    .body_timeout_ms = 3000,
    .idle_timeout_ms = 5000,
    .write_timeout_ms = 4000,
};

/* Alive shortly before a time has passed, and not shortly after. */
static unsigned status_after(struct fixture *f, struct client *client, uint64_t ms)
{
    struct response response;

    pass_time(f, ms - 100);
    CHECK(!client_ended(client));
    CHECK_EQ(client->size, client->taken);
    pass_time(f, ms / 4 + 300); /* A tick is an eighth of the shortest. */
    response = take_response(client);
    AWAIT(f, client_ended(client));
    return response.status;
}

TEST(time_out, of_an_idle_connection)
{
    struct client *client;

    server_start(f, &short_times);
    client = client_open(f);
    turns(f, 3);
    CHECK_EQ(status_after(f, client, 5000), 0);
    client_close(client);
    CHECK_EQ(bop_http_counters(f->server).timeouts, 0); /* That is no failure. */
}

TEST(time_out, of_idleness_begins_with_the_answer)
{
    struct client *client;

    server_start(f, &short_times);
    client = client_open(f);
    turns(f, 3);
    for (int i = 0; i < 4; i++) {
        pass_time(f, 4000);
        client_says(client, GET("/hello"));
        CHECK_EQ(take_response(client).status, 200);
    }
    CHECK_EQ(status_after(f, client, 5000), 0);
    client_close(client);
}

TEST(time_out, of_a_head_that_drips)
{
    struct client *client;

    server_start(f, &short_times);
    client = client_open(f);
    turns(f, 3);
    pass_time(f, 1000); /* Idle before it does not count. */
    client_says(client, "GET /he");
    pass_time(f, 1000);
    client_says(client, "llo HTTP/1.1\r\n"); /* Nor does this begin anew. */
    CHECK_EQ(status_after(f, client, 1000), 408);
    client_close(client);
    CHECK_EQ(bop_http_counters(f->server).timeouts, 1);
}

TEST(time_out, of_a_body_that_stops)
{
    struct client *client;

    server_start(f, &short_times);
    client = client_open(f);
    client_says(client, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab");
    pass_time(f, 2000);
    client_says(client, "cd");
    CHECK_EQ(status_after(f, client, 3000), 408);
    CHECK_EQ(f->aborts, 1);
    client_close(client);
}

TEST(time_out, of_a_body_that_drips)
{
    struct client *client;
    struct response response;

    server_start(f, &short_times); /* And the default of 100 bytes a second, over 10 s. */
    client = client_open(f);
    client_says(client, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    for (int i = 0; i < 9; i++) {
        pass_time(f, 1000);
        client_says(client, "a");
        CHECK(!client_ended(client));
    }
    for (int i = 0; i < 6; i++) {
        pass_time(f, 1000);
        client_says(client, "a");
    }
    response = take_response(client);
    CHECK_EQ(response.status, 408);
    client_close(client);
}

TEST(time_out, of_no_body_that_the_handler_holds_back)
{
    struct client *client;

    server_start(f, &short_times);
    client = client_open(f);
    client_says(client, "PUT /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab");
    AWAIT(f, f->body_bytes == 2);
    bop_http_pause(f->last);
    client_says(client, "cd");
    pass_time(f, 30000);
    CHECK(!client_ended(client));
    bop_http_resume(f->last);
    CHECK_STR_EQ(take_response(client).body, "abcd");
    client_close(client);
}

TEST(time_out, of_no_answer_that_takes_long)
{
    struct client *client;

    server_start(f, &short_times);
    client = client_open(f);
    client_says(client, GET("/held"));
    pass_time(f, 100000);
    CHECK(!client_ended(client));
    CHECK_EQ(bop_http_reply(f->last, 200, NULL, bytes("at last")), 0);
    CHECK_STR_EQ(take_response(client).body, "at last");
    client_close(client);
}

TEST(time_out, of_an_answer_that_is_not_read)
{
    static char block[65536];
    struct client *client;
    uint64_t passed = 0;

    server_start(f, &short_times);
    client = client_open(f);
    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    for (int i = 0; i < 1000 && bop_http_queued(f->last) < 1u << 20; i++) {
        CHECK(bop_http_write(f->last, bop_slice(block, sizeof(block))) >= 0);
        turn(f->loop);
    }
    for (; f->aborts == 0 && passed < 20000; passed += 500) {
        pass_time(f, 500);
    }
    CHECK_EQ(f->aborts, 1);
    CHECK(passed >= 4000 && passed <= 8000);
    client_close(client);
}

/* How much of its answer the client's kernel has acknowledged. */
static uint32_t acknowledged(struct fixture *f)
{
    struct bop__http_conn *conn = bop__exchange_of(f->last)->conn;
    const struct bop__socket *sock = bop__http_sock(conn);
    int on_its_way = 0;

    CHECK_EQ(ioctl(sock->source.fd, SIOCOUTQ, &on_its_way), 0);
    return conn->out_total - (uint32_t)bop__socket_queued(sock) - (uint32_t)on_its_way;
}

/* Read until the server's side hears of it: the client's kernel opens its window only when a part
 * of its buffer is free, and says so in its own time, which is not the test's. */
static bool reads_some(struct fixture *f, struct client *client, uint32_t before)
{
    client->size = 0;
    client_receive(client);
    return bop_http_queued(f->last) == 0 || acknowledged(f) != before;
}

/* A slow reader is not a peer that never reads. */
TEST(time_out, of_no_client_that_reads_slowly)
{
    static char block[65536];
    struct client *client;

    server_start(f, &short_times);
    client = client_open(f);
    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    for (int i = 0; i < 1000 && bop_http_queued(f->last) < 4u << 20; i++) {
        CHECK(bop_http_write(f->last, bop_slice(block, sizeof(block))) >= 0);
        turn(f->loop);
    }
    for (int i = 0; i < 10; i++) {
        uint32_t before = acknowledged(f);

        AWAIT(f, reads_some(f, client, before));
        pass_time(f, 2000);
    }
    CHECK_EQ(f->aborts, 0);
    client_close(client);
}

TEST(time_out, of_thousands_at_once)
{
    enum { COUNT = 400 };
    struct client *clients[COUNT];

    server_start(f, &short_times);
    for (int i = 0; i < COUNT; i++) {
        clients[i] = client_open(f);
        client_says(clients[i], i % 2 == 0 ? "GET /hel" : GET("/hello"));
    }
    turns(f, 5);
    CHECK_EQ(bop_http_counters(f->server).connections_now, COUNT);
    pass_time(f, 2500);
    for (int i = 0; i < COUNT; i += 2) {
        CHECK_EQ(take_response(clients[i]).status, 408);
    }
    pass_time(f, 4000);
    for (int i = 0; i < COUNT; i++) {
        AWAIT(f, client_ended(clients[i]));
        client_close(clients[i]);
    }
    AWAIT(f, bop_http_counters(f->server).connections_now == 0);
}

/* ---- Requests of a connection ---- */

TEST(connection, ends_after_so_many_requests)
{
    struct client *client;
    struct response response;

    server_start(f, &(struct bop_http_server_options){.requests_max = 3});
    client = client_open(f);
    client_says(client, GET("/hello") GET("/hello") GET("/hello") GET("/hello"));
    CHECK(response_header((response = take_response(client), &response), "Connection") == NULL);
    CHECK_EQ(take_response(client).status, 200);
    response = take_response(client);
    CHECK_STR_EQ(response_header(&response, "Connection"), "close");
    AWAIT(f, client_ended(client));
    CHECK_EQ(client->taken, client->size);
    client_close(client);
}

/* The handles of a connection are not without end: it closes before they are. */
TEST(connection, ends_before_its_handles_do)
{
    enum { BATCH = 512 };
    static char batch[BATCH * 36];
    struct client *client;
    uint64_t served = 0;
    size_t size = 0;

    server_start(f, &(struct bop_http_server_options){.requests_max = UINT32_MAX});
    for (int i = 0; i < BATCH; i++) {
        size += (size_t)sprintf(batch + size, GET("/none"));
    }
    client = client_open(f);
    while (!client->ended && served < 1u << 23) {
        client_send(client, bop_slice(batch, size));
        client->size = 0;
        client_receive(client);
        served += BATCH;
    }
    CHECK(client->ended);
    CHECK(f->server != NULL && bop_http_counters(f->server).requests <= 1u << 22);
    CHECK(bop_http_counters(f->server).requests >= (1u << 22) - 10000);
    client_close(client);
}

/* ---- Stop ---- */

static void on_stopped(struct bop_http_server *server, void *user)
{
    ((struct fixture *)user)->stopped = true;
}

TEST(stop, of_a_server_with_nothing_to_do)
{
    server_start(f, NULL);
    bop_http_server_stop(f->server, 1000, on_stopped, f);
    CHECK(!f->stopped); /* Not from inside the call. */
    AWAIT(f, f->stopped);
}

TEST(stop, answers_what_has_begun)
{
    struct client *idle, *held, *body, *pipelined;
    struct bop_http_exchange *late;
    struct response response;

    server_start(f, NULL);
    idle = client_open(f);
    held = client_open(f);
    body = client_open(f);
    pipelined = client_open(f);
    client_says(idle, GET("/hello"));
    CHECK_EQ(take_response(idle).status, 200);
    client_says(body, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na");
    client_says(pipelined, "GET /hel");
    client_says(held, GET("/held"));
    AWAIT(f, f->requests == 3);
    late = f->last;
    bop_http_server_stop(f->server, 60000, on_stopped, f);
    AWAIT(f, client_ended(idle));
    CHECK(!idle->reset);
    CHECK(!client_ended(held));
    client_says(body, "b");
    response = take_response(body);
    CHECK_STR_EQ(response.body, "ab");
    CHECK_STR_EQ(response_header(&response, "Connection"), "close");
    client_says(pipelined, "lo HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK_EQ(take_response(pipelined).status, 200);
    CHECK(!f->stopped);
    /* Its port is closed. */
    {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons(f->port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        CHECK(connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0);
        close(fd);
    }
    CHECK_EQ(bop_http_reply(late, 200, NULL, bytes("late")), 0);
    CHECK_STR_EQ(take_response(held).body, "late");
    client_close(idle);
    client_close(body);
    client_close(pipelined);
    client_close(held);
    AWAIT(f, f->stopped);
}

TEST(stop, has_a_deadline)
{
    struct client *client;

    server_start(f, NULL);
    client = client_open(f);
    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    bop_http_server_stop(f->server, 2000, on_stopped, f);
    pass_time(f, 1900);
    CHECK(!f->stopped && !client_ended(client));
    pass_time(f, 300);
    AWAIT(f, f->stopped);
    CHECK_EQ(f->aborts, 1);
    AWAIT(f, client_ended(client));
    client_close(client);
}

TEST(stop, sends_a_large_answer_to_its_end)
{
    static char block[8u << 20];
    struct client *client;
    size_t received = 0;

    server_start(f, NULL);
    client = client_open(f);
    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    CHECK_EQ(bop_http_reply(f->last, 200, NULL, bop_slice(block, sizeof(block))), 0);
    bop_http_server_stop(f->server, 60000, on_stopped, f);
    while (!client->ended) {
        client->size = 0;
        client_receive(client);
        received += client->size;
        turn(f->loop);
    }
    CHECK(!client->reset);
    CHECK(received > sizeof(block));
    client_close(client);
    AWAIT(f, f->stopped);
}
