/*
 * Exchanges: handles, answers in steps, back-pressure both ways, aborts at every
 * point, and what the server keeps count of.
 */
#include "server_fixture.h"

static void setup(struct fixture *f)
{
    server_setup(f);
    server_start(f, NULL);
}

FIXTURE(setup, server_teardown)

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

/* ---- Handles ---- */

TEST(exchange, handle_of_the_past_does_nothing)
{
    struct client *client = client_open(f);
    struct bop_http_exchange *first;

    client_says(client, GET("/hello"));
    CHECK_EQ(take_response(client).status, 200);
    first = f->last;
    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 2);
    CHECK(f->last != first); /* The same connection, another handle. */
    CHECK(!bop_http_is_open(first));
    CHECK_EQ(bop_http_status(first, 500), BOP_ECLOSED);
    CHECK_EQ(bop_http_header(first, "A", bytes("b")), BOP_ECLOSED);
    CHECK_EQ(bop_http_reply(first, 200, NULL, bytes("stolen")), BOP_ECLOSED);
    CHECK_EQ(bop_http_write(first, bytes("stolen")), BOP_ECLOSED);
    CHECK_EQ(bop_http_end(first, bytes("stolen")), BOP_ECLOSED);
    CHECK_EQ(bop_http_on_body(first, echo_piece, f), BOP_ECLOSED);
    CHECK_EQ(bop_http_compress(first), BOP_ECLOSED);
    CHECK_EQ(bop_http_queued(first), 0);
    bop_http_close(first);
    CHECK(bop_http_is_open(f->last));
    CHECK_EQ(bop_http_reply(f->last, 200, NULL, bytes("mine")), 0);
    CHECK_STR_EQ(take_response(client).body, "mine");
    client_close(client);
}

TEST(exchange, handle_ends_with_its_connection)
{
    struct client *client = client_open(f);

    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    client_abort(client);
    AWAIT(f, f->aborts == 1);
    CHECK(!bop_http_is_open(f->last));
    CHECK_EQ(bop_http_reply(f->last, 200, NULL, bytes("late")), BOP_ECLOSED);
    CHECK_EQ(bop_http_counters(f->server).aborted, 1);
    CHECK_EQ(bop_http_counters(f->server).connections_now, 0);
}

TEST(exchange, closed_by_its_handler_is_told_once)
{
    struct client *client = client_open(f);

    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    bop_http_close(f->last);
    CHECK(!bop_http_is_open(f->last));
    CHECK_EQ(f->aborts, 0); /* Not from inside the call. */
    AWAIT(f, f->aborts == 1);
    AWAIT(f, client_ended(client));
    CHECK_EQ(client->size, 0);
    client_close(client);
    turns(f, 3);
    CHECK_EQ(f->aborts, 1);
}

/* ---- Answers in steps ---- */

TEST(exchange, refuses_what_would_break_the_framing)
{
    struct client *client = client_open(f);
    struct response response;

    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    CHECK_EQ(bop_http_header(f->last, "Transfer-Encoding", bytes("chunked")), BOP_EINVAL);
    CHECK_EQ(bop_http_header(f->last, "connection", bytes("close")), BOP_EINVAL);
    CHECK_EQ(bop_http_header(f->last, "Content-Length", bytes("x")), BOP_EINVAL);
    CHECK_EQ(bop_http_header(f->last, "A", bytes("b\r\nC: d")), BOP_EINVAL);
    CHECK_EQ(bop_http_header(f->last, "A b", bytes("c")), BOP_EINVAL);
    CHECK_EQ(bop_http_header(f->last, "", bytes("c")), BOP_EINVAL);
    CHECK_EQ(bop_http_status(f->last, 100), BOP_EINVAL);
    CHECK_EQ(bop_http_status(f->last, 600), BOP_EINVAL);
    CHECK_EQ(bop_http_header(f->last, "A", bytes("b")), 0);
    CHECK_EQ(bop_http_header(f->last, "Date", bytes("mine")), 0);
    CHECK_EQ(bop_http_write(f->last, bytes("x")), 0);
    CHECK_EQ(bop_http_header(f->last, "Late", bytes("c")), BOP_EINVAL);
    CHECK_EQ(bop_http_reply(f->last, 200, NULL, bytes("")), BOP_EINVAL);
    CHECK_EQ(bop_http_end(f->last, bytes("")), 0);
    response = take_response(client);
    CHECK_STR_EQ(response.body, "x");
    CHECK_STR_EQ(response_header(&response, "A"), "b");
    CHECK_STR_EQ(response_header(&response, "Date"), "mine");
    CHECK(response_header(&response, "Late") == NULL);
    client_close(client);
}

/* The client must not take a part for the whole. */
TEST(exchange, cuts_an_answer_that_is_shorter_than_announced)
{
    struct client *client = client_open(f);

    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    CHECK_EQ(bop_http_content_length(f->last, 10), 0);
    CHECK_EQ(bop_http_write(f->last, bytes("12345")), 0);
    CHECK_EQ(bop_http_end(f->last, bytes("678")), BOP_EINVAL);
    CHECK(!bop_http_is_open(f->last));
    AWAIT(f, client_ended(client));
    client_close(client);
}

TEST(exchange, answers_from_a_shared_buffer)
{
    struct client *client = client_open(f);
    struct bop_shared *shared = bop_shared_create(&f->heap.allocator, 100000);

    memset(shared->data, 's', shared->size);
    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    CHECK_EQ(bop_http_reply_shared(f->last, 200, "text/plain", shared, 1, 99998), 0);
    CHECK_EQ(take_response(client).body_size, 99998);
    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 2);
    CHECK_EQ(bop_http_write_shared(f->last, shared, 99999, 2), BOP_EINVAL);
    CHECK(bop_http_write_shared(f->last, shared, 0, 100000) >= 0); /* A chunk. */
    CHECK_EQ(bop_http_end(f->last, bytes("!")), 0);
    CHECK_EQ(take_response(client).body_size, 100001);
    bop_shared_unref(shared);
    client_close(client);
    turns(f, 3);
}

/* ---- Back-pressure ---- */

static void fill(struct bop_http_exchange *http)
{
    static char block[16384];
    int rc = 0;

    for (int i = 0; rc == 0 && i < 10000; i++) {
        rc = bop_http_write(http, bop_slice(block, sizeof(block)));
    }
    CHECK_EQ(rc, BOP_HTTP_PRESSURE);
}

static void on_drain(struct bop_http_exchange *http, void *user)
{
    ((struct fixture *)user)->drains++;
}

TEST(exchange, tells_of_a_slow_client_and_when_it_has_caught_up)
{
    struct client *client = client_open(f);

    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    bop_http_on_drain(f->last, on_drain, f);
    do { /* Until the kernels of both sides hold all they will. */
        f->drains = 0;
        fill(f->last);
        turns(f, 5);
    } while (f->drains > 0 || bop_http_queued(f->last) <= 64 * 1024);
    CHECK(bop_http_queued(f->last) > 64 * 1024);
    CHECK_EQ(bop_http_counters(f->server).slow_now, 1);
    for (int i = 0; i < 1000 && f->drains == 0; i++) {
        client->size = 0;
        client_receive(client);
        turn(f->loop);
    }
    CHECK_EQ(f->drains, 1);
    CHECK(bop_http_queued(f->last) <= 32 * 1024);
    CHECK_EQ(bop_http_counters(f->server).slow_now, 0);
    CHECK(bop_http_counters(f->server).slow > 0);
    client_close(client);
    AWAIT(f, f->aborts == 1);
}

/* Answers are not piled up for a client that sends requests and reads nothing. */
TEST(exchange, begins_no_request_while_its_client_takes_no_answers)
{
    static const char request[] = GET("/hello");
    struct client *client = client_open(f);
    uint64_t size = sizeof(request) - 1, sent = 0;
    unsigned answers = 0;

    /* All that the kernels of both sides take, until nothing has moved for long. They may take some
     * more at any time, and then the server goes on for as much as has room. */
    for (int waits = 0; waits < 200; waits++) {
        struct bop_http_counters before = bop_http_counters(f->server), now;
        ssize_t more;

        do {
            more = send(client->fd, request + sent % size, size - sent % size, MSG_DONTWAIT);
            sent += more > 0 ? (uint64_t)more : 0;
            waits = more > 0 ? 0 : waits;
        } while (more > 0);
        turn(f->loop);
        now = bop_http_counters(f->server);
        waits = now.requests == before.requests ? waits : 0;
        REQUIRE(f->heap.live < 4 * 1024 * 1024);
    }
    CHECK_EQ(bop_http_counters(f->server).slow_now, 1);
    CHECK_EQ(bop_http_counters(f->server).requests, f->requests);
    CHECK(sent / size > f->requests + 100); /* They are there, and wait. */
    /* None is lost: as it reads, each is answered, and the one that it has sent in part, too. */
    for (int i = 0; (sent % size != 0 || answers < sent / size) && i < PATIENCE_TURNS; i++) {
        struct response response;

        client_receive(client);
        if (sent % size != 0) {
            ssize_t more = send(client->fd, request + sent % size, size - sent % size,
                                MSG_DONTWAIT);

            sent += more > 0 ? (uint64_t)more : 0;
        }
        while (peel_response(client, false, &response)) {
            answers += response.status == 200;
        }
        memmove(client->bytes, client->bytes + client->taken, client->size - client->taken);
        client->size -= client->taken;
        client->taken = 0;
        CHECK_EQ(bop_loop_run_once(f->loop, 1), 0);
    }
    CHECK_EQ(answers, sent / size);
    CHECK_EQ(f->requests, answers);
    client_close(client);
}

/* What was asked before the client said that it was all is answered, however much that is. */
TEST(exchange, answers_all_before_the_end)
{
    enum { COUNT = 5000 };
    struct client *client = client_open(f);
    unsigned answers = 0;

    for (int i = 0; i < COUNT; i++) {
        REQUIRE(send(client->fd, GET("/hello"), strlen(GET("/hello")), 0) > 0);
    }
    shutdown(client->fd, SHUT_WR);
    for (int i = 0; i < 5; i++) {
        turn(f->loop); /* It does not read yet. */
    }
    while (!client->ended) {
        struct response response;

        client_receive(client);
        while (peel_response(client, false, &response)) {
            answers += response.status == 200;
        }
        memmove(client->bytes, client->bytes + client->taken, client->size - client->taken);
        client->size -= client->taken;
        client->taken = 0;
        turn(f->loop);
    }
    CHECK_EQ(answers, COUNT);
    CHECK(!client->reset);
    client_close(client);
}

/* An echo of any size holds the sender back rather than growing. */
TEST(exchange, streams_a_body_with_back_pressure)
{
    struct client *client = client_open(f);
    static char block[65536];
    uint64_t to_send = 20u << 20, received = 0;
    size_t most = 0;

    client_says(client, "PUT /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 20971520\r\n\r\n");
    while (to_send > 0 || received < 20u << 20) {
        ssize_t sent = to_send > 0 ? send(client->fd, block, bop_min_u64(to_send, sizeof(block)),
                                          MSG_DONTWAIT)
                                   : 0;

        to_send -= sent > 0 ? (uint64_t)sent : 0;
        turn(f->loop);
        most = f->heap.live > most ? f->heap.live : most;
        if (to_send < 10u << 20 || sent < 0) { /* First it only sends. */
            client->size = 0;
            client_receive(client);
            received += client->size;
            if (client->ended) {
                break;
            }
        }
    }
    CHECK_EQ(to_send, 0);
    AWAIT(f, f->body_bytes == 20u << 20);
    CHECK(f->drains > 0);
    CHECK(most < 4 * 1024 * 1024);
    client_close(client);
}

TEST(exchange, pauses_and_resumes_a_body)
{
    struct client *client = client_open(f);
    unsigned pieces;

    client_says(client, "PUT /stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "3\r\nabc\r\n");
    AWAIT(f, f->body_bytes == 3);
    bop_http_pause(f->last);
    client_says(client, "3\r\ndef\r\n0\r\n\r\n");
    turns(f, 5);
    CHECK_EQ(f->body_bytes, 3);
    pieces = f->bodies;
    bop_http_resume(f->last);
    AWAIT(f, f->body_bytes == 6);
    CHECK_STR_EQ(take_response(client).body, "abcdef");
    CHECK_EQ(f->bodies, pieces + 2); /* The piece, and the end. */
    client_close(client);
}

/* What nobody asked for is dropped up to a bound; above it the connection goes. */
TEST(exchange, does_not_read_a_large_body_that_nobody_wants)
{
    struct client *client = client_open(f);
    static char block[65536];

    client_says(client, "PUT /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    CHECK_EQ(take_response(client).status, 200);
    for (int i = 0; i < 1000 && !client_ended(client); i++) {
        client_send(client, bop_slice(block, sizeof(block)));
    }
    CHECK(client->ended);
    client_close(client);
}

/* ---- Aborts at every point ---- */

TEST(exchange, survives_an_abort_at_every_byte)
{
    static const char request[] =
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n0\r\n\r\n" GET("/held");

    for (size_t at = 0; at < sizeof(request); at++) {
        struct client *client = client_open(f);

        client_send(client, bop_slice(request, at));
        client_abort(client);
        AWAIT(f, bop_http_counters(f->server).connections_now == 0);
    }
    CHECK_EQ(bop_http_counters(f->server).connections, sizeof(request));
}

TEST(exchange, is_aborted_by_the_end_if_that_is_wanted)
{
    struct bop_http_server *usual = f->server;
    struct client *client;

    bop_http_server_destroy(usual);
    server_start(f, &(struct bop_http_server_options){.end_aborts = true});
    client = client_open(f);
    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    shutdown(client->fd, SHUT_WR);
    AWAIT(f, f->aborts == 1);
    AWAIT(f, client_ended(client));
    client_close(client);
}

static void hold_until_the_end(struct bop_http_exchange *http, const struct bop_http_head *head,
                               void *user)
{
    struct fixture *f = (struct fixture *)user;

    f->requests++;
    bop_http_end_aborts(http);
    bop_http_on_abort(http, count_abort, f);
}

TEST(exchange, is_aborted_by_the_end_if_it_says_so_itself)
{
    struct client *client = client_open(f), *other = client_open(f);

    CHECK_EQ(bop_http_route(f->server, "GET", "/until", hold_until_the_end, f), 0);
    client_says(client, GET("/until"));
    client_says(other, GET("/held"));
    AWAIT(f, f->requests == 2);
    shutdown(other->fd, SHUT_WR);
    shutdown(client->fd, SHUT_WR);
    AWAIT(f, f->aborts == 1);
    AWAIT(f, client_ended(client));
    CHECK(!client_ended(other));
    client_close(client);
    client_close(other);
}

/* Destroying the server from inside its handler. */
static void destroy_all(struct bop_http_exchange *http, const struct bop_http_head *head,
                        void *user)
{
    struct fixture *f = (struct fixture *)user;

    bop_http_on_abort(http, count_abort, f);
    bop_http_server_destroy(f->server);
    f->server = NULL;
    CHECK_EQ(bop_http_reply(http, 200, NULL, bytes("x")), BOP_ECLOSED);
}

TEST(exchange, may_destroy_its_server)
{
    struct client *client = client_open(f), *other = client_open(f);

    CHECK_EQ(bop_http_route(f->server, "GET", "/destroy", destroy_all, f), 0);
    client_says(other, GET("/held"));
    AWAIT(f, f->requests == 1);
    client_says(client, GET("/destroy") GET("/hello"));
    AWAIT(f, client_ended(client) && client_ended(other));
    CHECK_EQ(f->aborts, 2);
    CHECK_EQ(client->size, 0);
    client_close(client);
    client_close(other);
}

static void add_route_inside(struct bop_http_exchange *http, const struct bop_http_head *head,
                             void *user)
{
    struct fixture *f = (struct fixture *)user;

    f->rc = bop_http_route(f->server, "GET", "/new", say_hello, f);
    CHECK_EQ(bop_http_reply(http, 200, NULL, bytes("")), 0);
}

TEST(exchange, adds_no_route_while_one_is_taken)
{
    struct client *client = client_open(f);

    CHECK_EQ(bop_http_route(f->server, "GET", "/add", add_route_inside, f), 0);
    client_says(client, GET("/add"));
    CHECK_EQ(take_response(client).status, 200);
    CHECK_EQ(f->rc, BOP_EBUSY);
    client_close(client);
}

/* ---- Upgrades ---- */

static size_t shout(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct fixture *f = (struct fixture *)user;

    f->bodies++;
    CHECK_EQ(bop_socket_write(socket, bytes), 0);
    CHECK_EQ(bop_socket_write(socket, bop_slice_cstr("!")), 0);
    return bytes.size;
}

static void count_close(struct bop_socket *socket, void *user, int reason)
{
    ((struct fixture *)user)->aborts++;
}

static const struct bop_socket_events shouting = {.on_data = shout, .on_close = count_close};

static void on_upgrade(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    struct fixture *f = (struct fixture *)user;
    struct bop_socket *socket;

    note(f, http);
    CHECK_EQ(bop_http_header(http, "X-Word", bytes("y")), 0);
    f->rc = bop_http_upgrade(http, "shout", &shouting, f, &socket);
    CHECK(f->rc != 0 || !bop_http_is_open(http));
    if (f->rc != 0) {
        CHECK_EQ(bop_http_reply(http, 426, NULL, bytes("")), 0);
    }
}

TEST(exchange, hands_the_connection_out)
{
    struct client *client = client_open(f);
    struct response response;

    CHECK_EQ(bop_http_route(f->server, "GET", "/up", on_upgrade, f), 0);
    client_says(client, GET("/hello") GET("/up") "with the head");
    CHECK_EQ(take_response(client).status, 200);
    response = take_response(client);
    CHECK_EQ(response.status, 101);
    CHECK_STR_EQ(response_header(&response, "Upgrade"), "shout");
    CHECK_STR_EQ(response_header(&response, "Connection"), "Upgrade");
    CHECK_STR_EQ(response_header(&response, "X-Word"), "y");
    AWAIT(f, client_sees(client, "with the head!"));
    client_says(client, "after");
    AWAIT(f, client_sees(client, "after!"));
    CHECK_EQ(bop_http_counters(f->server).connections_now, 0);
    client_close(client);
    AWAIT(f, f->aborts == 1);
}

TEST(exchange, upgrades_after_the_handler)
{
    struct client *client = client_open(f);
    struct bop_socket *socket;

    client_says(client, GET("/held"));
    AWAIT(f, f->requests == 1);
    client_says(client, "early");
    turns(f, 3);
    CHECK_EQ(bop_http_upgrade(f->last, "shout", &shouting, f, &socket), 0);
    AWAIT(f, client_sees(client, "101 Switching") && client_sees(client, "early!"));
    client_close(client);
    AWAIT(f, f->aborts == 1);
}

TEST(exchange, does_not_upgrade_with_a_body_or_1_0)
{
    struct client *client = client_open(f);

    CHECK_EQ(bop_http_route(f->server, NULL, "/up", on_upgrade, f), 0);
    client_says(client, "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na");
    CHECK_EQ(take_response(client).status, 426);
    CHECK_EQ(f->rc, BOP_EINVAL);
    client_says(client, "GET /up HTTP/1.0\r\n\r\n");
    CHECK_EQ(take_response(client).status, 426);
    CHECK_EQ(f->rc, BOP_EINVAL);
    client_close(client);
}

/* ---- Compression ---- */

static void on_gzip(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    static char text[5000];

    memset(text, 'z', sizeof(text));
    CHECK_EQ(bop_http_compress(http), 0);
    if (head->query.size == 0) {
        CHECK_EQ(bop_http_reply(http, 200, "text/plain", bop_slice(text, sizeof(text))), 0);
    } else {
        CHECK_EQ(bop_http_content_length(http, 5) == 0,
                 bop_http_known(head, BOP_HTTP_ACCEPT_ENCODING).data == NULL);
        CHECK(bop_http_write(http, bytes("abc")) >= 0);
        CHECK(bop_http_end(http, bytes("de")) >= 0);
    }
}

TEST(exchange, compresses_for_clients_that_take_it)
{
    static const struct {
        const char *accept;
        const char *coding;
    } rows[] = {
        {"gzip", "gzip"},
        {"deflate, gzip;q=0.5", "deflate"},
        {"deflate;q=0.5, gzip;q=0.5", "gzip"},
        {"deflate;q=0.501, gzip;q=0.5", "deflate"},
        {"gzip, deflate, br, zstd", "gzip"},
        {"*", "gzip"},
        {"*;q=0.5, deflate", "deflate"},
        {"gzip;q=0", NULL},
        {"gzip; q=0.000, *", "deflate"},
        {"gzip;q=0, deflate;q=0, *", NULL},
        {"deflate", "deflate"},
        {"DEFLATE;Q=1.000", "deflate"},
        {"identity", NULL},
        {"identity, gzip;q=0.5", NULL},
        {"identity;q=0.5, gzip;q=0.5", "gzip"},
        {"identity;q=0", NULL},
        {"identity;q=0, *", "gzip"},
        {"", NULL},
        {"GZIP", "gzip"},
        {"gzip;q=0.001", "gzip"},
        {"*;q=0", NULL},
        {"br;q=1.0, x-gzip", "gzip"},
        {" , gzip\t;\tq=1 ,,", "gzip"},
        {"br\r\nAccept-Encoding: deflate", "deflate"},
        /* Malformed weights are as if the element was not there. */
        {"gzip;q=", NULL},
        {"gzip;q=2", NULL},
        {"gzip;q=1.001", NULL},
        {"gzip;q=0.0001", NULL},
        {"gzip;q=0,5", NULL},
        {"gzip;q=.5", NULL},
        {"gzip;q=-1", NULL},
        {"gzip;x=1", NULL},
        {"gzip;", NULL},
        {"gzip;q=x, deflate;q=0.1", "deflate"},
        {"gzi, gzipp", NULL},
    };
    struct client *client = client_open(f);

    CHECK_EQ(bop_http_route(f->server, "GET", "/gzip", on_gzip, f), 0);
    for (size_t i = 0; i < BOP_COUNT_OF(rows); i++) {
        struct response response;
        char request[256];

        snprintf(request, sizeof(request),
                 "GET /gzip HTTP/1.1\r\nHost: x\r\nAccept-Encoding: %s\r\n\r\n", rows[i].accept);
        client_says(client, request);
        response = take_response(client);
        CHECK_EQ(response_header(&response, "Content-Encoding") != NULL, rows[i].coding != NULL);
        CHECK_EQ(response.body_size < 5000, rows[i].coding != NULL);
        CHECK_STR_EQ(response_header(&response, "Vary"), "Accept-Encoding");
        if (rows[i].coding != NULL) {
            CHECK_STR_EQ(response_header(&response, "Content-Encoding"), rows[i].coding);
            CHECK_MEM_EQ(response.body, rows[i].coding[0] == 'g' ? "\x1f\x8b" : "\x78\x5e", 2);
        }
    }
    client_says(client, "GET /gzip?x HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK_STR_EQ(take_response(client).body, "abcde");
    client_says(client, "GET /gzip?x HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n");
    CHECK_MEM_EQ(take_response(client).body, "\x1f\x8b", 2);
    client_says(client, "GET /gzip?x HTTP/1.1\r\nHost: x\r\nAccept-Encoding: deflate\r\n\r\n");
    CHECK_MEM_EQ(take_response(client).body, "\x78\x5e", 2);
    client_close(client);
}

/* ---- Counters ---- */

TEST(exchange, is_counted)
{
    struct client *client = client_open(f);
    struct bop_http_counters counters;

    client_says(client, GET("/hello") GET("/nope") GET("/none"));
    CHECK_EQ(take_response(client).status, 200);
    CHECK_EQ(take_response(client).status, 404);
    CHECK_EQ(take_response(client).status, 204);
    counters = bop_http_counters(f->server);
    CHECK_EQ(counters.connections, 1);
    CHECK_EQ(counters.connections_now, 1);
    CHECK_EQ(counters.requests, 3);
    CHECK_EQ(counters.responses[2], 2);
    CHECK_EQ(counters.responses[4], 1);
    CHECK_EQ(counters.bytes_received, strlen(GET("/hello") GET("/nope") GET("/none")));
    CHECK_EQ(counters.bytes_sent, client->size);
    client_close(client);
}

TEST(exchange, is_counted_in_a_registry)
{
    struct client *client = client_open(f);
    struct bop_metrics *metrics;
    struct bop_buf text;

    bop_buf_init(&text, &f->heap.allocator, 0);
    REQUIRE_EQ(bop_metrics_create(&f->heap.allocator, &metrics), 0);
    CHECK_EQ(bop_http_metrics(f->server, metrics, "server=\"a\""), 0);
    client_says(client, GET("/hello") GET("/nope"));
    CHECK_EQ(take_response(client).status, 200);
    CHECK_EQ(take_response(client).status, 404);
    pass_time(f, 2500); /* By itself. */
    CHECK_EQ(bop_metrics_write(metrics, &text), 0);
    CHECK_EQ(bop_buf_append(&text, "", 1), 0);
    CHECK_STR_HAS((char *)text.data, "bop_http_requests_total{server=\"a\"} 2\n");
    CHECK_STR_HAS((char *)text.data, "bop_http_responses_total{server=\"a\",class=\"4xx\"} 1\n");
    CHECK_STR_HAS((char *)text.data, "bop_http_connections{server=\"a\"} 1\n");
    client_close(client);
    AWAIT(f, bop_http_counters(f->server).connections_now == 0);
    CHECK_EQ(bop_http_metrics(f->server, metrics, NULL), 0); /* Now. */
    bop_buf_clear(&text);
    CHECK_EQ(bop_metrics_write(metrics, &text), 0);
    CHECK_EQ(bop_buf_append(&text, "", 1), 0);
    CHECK_STR_HAS((char *)text.data, "bop_http_connections{server=\"a\"} 0\n");
    bop_http_server_destroy(f->server);
    f->server = NULL;
    bop_metrics_destroy(metrics);
    bop_buf_deinit(&text);
}

/* ---- Memory ---- */

static void echo_under_faults(struct bop_http_exchange *http, struct bop_slice body, bool last,
                              void *user)
{
    if (bop_http_reply(http, 200, "text/plain", body) != 0) {
        bop_http_close(http);
    }
}

static int make_and_destroy(struct fixture *f)
{
    struct bop_http_server *server = NULL;
    int rc = bop_http_server_create(f->loop, NULL, &server);

    if (rc == 0) {
        rc = bop_http_route(server, "GET", "/hello", say_hello, f);
    }
    if (rc == 0) {
        rc = bop_http_listen(server, &(struct bop_http_listen_options){0}, NULL, NULL);
    }
    bop_http_server_destroy(server);
    turns(f, 2);
    return rc;
}

TEST(exchange, server_is_made_whole_or_not_at_all)
{
    FAULT_SWEEP(&f->faults) {
        int rc = make_and_destroy(f);

        CHECK_EQ(rc, f->faults.fired);
    }
}

static void on_anything(struct bop_http_exchange *http, const struct bop_http_head *head,
                        void *user)
{
    struct fixture *f = (struct fixture *)user;

    note(f, http);
    bop_http_on_abort(http, count_abort, f);
    if (bop_http_header(http, "A", bytes("b")) != 0 || bop_http_compress(http) != 0 ||
        bop_http_on_whole_body(http, echo_under_faults, f) != 0) {
        bop_http_close(http);
    }
}

/* Whatever allocation fails, the request is answered or its connection closed, and the next
 * connection is served. */
TEST(exchange, survives_each_want_of_memory)
{
    CHECK_EQ(bop_http_route(f->server, "POST", "/anything", on_anything, f), 0);
    FAULT_SWEEP(&f->faults) {
        struct client *client = client_open(f);
        unsigned status;

        client_says(client, "POST /anything HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n"
                            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        client_says(client, "3\r\ndef\r\n0\r\n\r\n");
        status = take_response(client).status;
        CHECK(status == 200 || status == 503 || status == 0);
        client_close(client);
        AWAIT(f, bop_http_counters(f->server).connections_now == 0);
    }
    CHECK(f->requests > 0);
}
