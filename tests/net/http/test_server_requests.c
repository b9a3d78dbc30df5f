/*
 * What a client sees of RFC 9110 and 9112, request by request: each row sent in
 * one piece, cut in two at every byte, and byte by byte. A connection that is to
 * stay open must then answer one more request.
 */
#include "server_fixture.h"
#include "state.h"

static void setup(struct fixture *f)
{
    server_setup(f);
    server_start(f, &(struct bop_http_server_options){
                        .limits = {.head_bytes_max = 2048, .target_bytes_max = 256},
                        .body_bytes_max = 64,
                    });
}

FIXTURE(setup, server_teardown)

enum after { KEEPS, CLOSES };

struct row {
    const char *what;
    const char *request;
    const char *statuses; /* Of the answers, in order; "H200" answers HEAD. */
    enum after after;
    const char *body; /* Of the last answer, if not NULL. */
    const char *has;  /* In the last answer's head, if not NULL. */
    const char *lacks;
};

#define HOST "Host: x\r\n"

/* ---- Driving ---- */

static void check_statuses(struct client *client, const struct row *row, struct response *response)
{
    const char *at = row->statuses;

    while (*at != '\0') {
        bool head_only = *at == 'H';
        unsigned status = (unsigned)strtoul(at + head_only, (char **)&at, 10);

        *response = take_response_to(client, head_only);
        CHECK_EQ(response->status, status);
        at += strspn(at, " ");
    }
}

static void check_after(struct client *client, const struct row *row)
{
    struct response response;

    if (row->after == CLOSES) {
        AWAIT(client->f, client_ended(client));
        CHECK(!client->reset);
    } else {
        client_says(client, "GET /hello HTTP/1.1\r\nHost: x\r\nX-After: 1\r\n\r\n");
        response = take_response(client);
        CHECK_EQ(response.status, 200);
        CHECK_STR_EQ(response.body, "hello");
    }
    CHECK_EQ(client->taken, client->size); /* Nothing else was said. */
}

static void check_row(struct client *client, const struct row *row)
{
    struct response response = {0};

    check_statuses(client, row, &response);
    if (row->body != NULL) {
        CHECK_STR_EQ(response.body, row->body);
    }
    if (row->has != NULL) {
        CHECK_STR_HAS(response.head, row->has);
    }
    if (row->lacks != NULL) {
        CHECK(strcasestr(response.head, row->lacks) == NULL);
    }
    check_after(client, row);
}

static bool run_cut(struct fixture *f, const struct row *row, size_t cut)
{
    struct bop_slice request = bytes(row->request);
    struct client *client = client_open(f);
    unsigned failures = test__failures();

    client_send(client, bop_slice(request.data, cut));
    client_send(client, bop_slice(request.data + cut, request.size - cut));
    check_row(client, row);
    client_close(client);
    turns(f, 2);
    if (test__failures() != failures) {
        test_note("in the row \"%s\", cut at %zu", row->what, cut);
        return false;
    }
    return true;
}

static void run_bytewise(struct fixture *f, const struct row *row)
{
    struct bop_slice request = bytes(row->request);
    struct client *client = client_open(f);
    unsigned failures = test__failures();

    for (size_t i = 0; i < request.size; i++) {
        client_send(client, bop_slice(request.data + i, 1));
    }
    check_row(client, row);
    client_close(client);
    turns(f, 2);
    if (test__failures() != failures) {
        test_note("in the row \"%s\", byte by byte", row->what);
    }
}

static void run(struct fixture *f, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(rows[i].request);

        for (size_t cut = 0; cut < size && run_cut(f, &rows[i], cut); cut++) {
        }
        run_bytewise(f, &rows[i]);
    }
}

#define RUN(rows) run(f, rows, BOP_COUNT_OF(rows))

/* ---- Methods and targets (RFC 9110, 9; 9112, 3) ---- */

static const struct row methods[] = {
    {"GET", "GET /hello HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, "hello", "Content-Length: 5\r\n"},
    {"HEAD has GET's head and no body", "HEAD /hello HTTP/1.1\r\n" HOST "\r\n", "H200", KEEPS, NULL,
     "Content-Length: 5\r\n"},
    {"HEAD of chunks", "HEAD /chunks HTTP/1.1\r\n" HOST "\r\n", "H200", KEEPS},
    {"HEAD of a length announced", "HEAD /length HTTP/1.1\r\n" HOST "\r\n", "H201", KEEPS, NULL,
     "Content-Length: 6\r\n"},
    {"HEAD of nothing", "HEAD /nope HTTP/1.1\r\n" HOST "\r\n", "H404", KEEPS},
    {"a path without a route", "GET /nope HTTP/1.1\r\n" HOST "\r\n", "404", KEEPS, "not found\n"},
    {"a method the path does not have", "POST /hello HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n",
     "405", KEEPS, NULL, "Allow: GET, HEAD, OPTIONS\r\n"},
    {"405 and its body is dropped",
     "POST /hello HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nabcde", "405", KEEPS},
    {"DELETE of what has only GET", "DELETE /hello HTTP/1.1\r\n" HOST "\r\n", "405", KEEPS},
    {"Allow names all", "GET /ignore HTTP/1.1\r\n" HOST "\r\n", "405", KEEPS, NULL, "PUT"},
    {"OPTIONS of a path", "OPTIONS /hello HTTP/1.1\r\n" HOST "\r\n", "204", KEEPS, NULL,
     "Allow: GET, HEAD, OPTIONS\r\n", "Content-Length"},
    {"OPTIONS of nothing", "OPTIONS /nope HTTP/1.1\r\n" HOST "\r\n", "404", KEEPS},
    {"OPTIONS *", "OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "204", KEEPS, NULL, "Allow: "},
    {"* is for OPTIONS only", "GET * HTTP/1.1\r\n" HOST "\r\n", "400", CLOSES},
    {"a method nobody knows", "BREW /hello HTTP/1.1\r\n" HOST "\r\n", "501", KEEPS},
    {"a method of one's own", "BREW /any HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, "BREW"},
    {"methods are case-sensitive", "get /hello HTTP/1.1\r\n" HOST "\r\n", "501", KEEPS},
    {"PATCH", "PATCH /any HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, "PATCH"},
    {"TRACE is not served", "TRACE /hello HTTP/1.1\r\n" HOST "\r\n", "405", KEEPS},
    {"CONNECT is for proxies", "CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", "501", KEEPS},
    {"absolute form", "GET http://x/hello HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, "hello"},
    {"absolute form without a path", "OPTIONS http://x HTTP/1.1\r\n" HOST "\r\n", "404", KEEPS},
    {"absolute form with a query", "GET http://x/query?name=v HTTP/1.1\r\n" HOST "\r\n", "200",
     KEEPS, "v"},
    {"a query", "GET /query?name=a+b%21&name=c HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, "a b!"},
    {"an empty query value", "GET /query?name= HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, ""},
    {"a query without the name", "GET /query?other=1 HTTP/1.1\r\n" HOST "\r\n", "400", KEEPS},
    {"a bad escape in a query", "GET /query?name=%4 HTTP/1.1\r\n" HOST "\r\n", "400", KEEPS},
    {"parameters", "GET /params/one/t%77o HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, "one|t%77o"},
    {"a parameter is not empty", "GET /params//two HTTP/1.1\r\n" HOST "\r\n", "404", KEEPS},
    {"the next route", "GET /next/here HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, "hello"},
    {"no next route", "GET /last HTTP/1.1\r\n" HOST "\r\n", "405", KEEPS},
    {"a target with a space", "GET /hel lo HTTP/1.1\r\n" HOST "\r\n", "400", CLOSES},
    {"no target", "GET HTTP/1.1\r\n" HOST "\r\n", "400", CLOSES},
    {"a fragment", "GET /hello#top HTTP/1.1\r\n" HOST "\r\n", "400", CLOSES},
    {"a control in the target", "GET /hel\001lo HTTP/1.1\r\n" HOST "\r\n", "400", CLOSES},
    {"a relative target", "GET hello HTTP/1.1\r\n" HOST "\r\n", "400", CLOSES},
    {"two spaces", "GET  /hello HTTP/1.1\r\n" HOST "\r\n", "400", CLOSES},
    {"a tab", "GET\t/hello HTTP/1.1\r\n" HOST "\r\n", "400", CLOSES},
    {"an invalid method", "G@T /hello HTTP/1.1\r\n" HOST "\r\n", "400", CLOSES},
};

TEST(server, routes_methods_and_targets)
{
    RUN(methods);
}

/* ---- Versions and connections (9112, 2.3, 9) ---- */

static const struct row versions[] = {
    {"1.0 closes", "GET /hello HTTP/1.0\r\n\r\n", "200", CLOSES, "hello", "Connection: close\r\n"},
    {"1.0 with keep-alive", "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200", KEEPS,
     "hello", "Connection: keep-alive\r\n"},
    {"1.0 has no chunks", "GET /chunks HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200", CLOSES,
     "one,two,three", "Connection: close\r\n", "Transfer-Encoding"},
    {"1.0 with a length", "GET /length HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "201", KEEPS,
     "abcdef", "Content-Length: 6\r\n"},
    {"1.0 gets no 100", "POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
     "200", CLOSES, "a"},
    {"1.0 may not send chunks",
     "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", CLOSES},
    {"1.1 keeps", "GET /hello HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, NULL, NULL, "Connection:"},
    {"1.1 with close", "GET /hello HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", "200", CLOSES,
     "hello", "Connection: close\r\n"},
    {"close among others", "GET /hello HTTP/1.1\r\n" HOST "Connection: x, Close\r\n\r\n", "200",
     CLOSES},
    {"nothing after close is served",
     "GET /hello HTTP/1.1\r\n" HOST "Connection: close\r\n\r\nGET /hello HTTP/1.1\r\n" HOST "\r\n",
     "200", CLOSES},
    {"1.2 is answered as 1.1", "GET /hello HTTP/1.2\r\n" HOST "\r\n", "200", KEEPS},
    {"2.0 is not served", "GET /hello HTTP/2.0\r\n" HOST "\r\n", "505", CLOSES},
    {"0.9 is not served", "GET /hello\r\n\r\n", "400", CLOSES},
    {"the protocol's name is case-sensitive", "GET /hello http/1.1\r\n" HOST "\r\n", "400", CLOSES},
    {"no version", "GET /hello \r\n" HOST "\r\n", "400", CLOSES},
    {"HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505", CLOSES},
    {"an answer has a date", "GET /hello HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, NULL,
     "Date: Thu, 01 Jan 1970 00:16:40 GMT\r\n"}, /* The clock's 1,000 s. */
};

TEST(server, keeps_connections_by_version)
{
    RUN(versions);
}

/* ---- Heads (9112, 2.2, 3.2, 5) ---- */

static const struct row heads[] = {
    {"no Host", "GET /hello HTTP/1.1\r\n\r\n", "400", CLOSES},
    {"two Hosts", "GET /hello HTTP/1.1\r\n" HOST HOST "\r\n", "400", CLOSES},
    {"an empty Host", "GET /hello HTTP/1.1\r\nHost:\r\n\r\n", "200", KEEPS},
    {"a malformed Host", "GET /hello HTTP/1.1\r\nHost: a b\r\n\r\n", "400", CLOSES},
    {"empty lines before", "\r\n\r\nGET /hello HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS},
    {"only LF", "GET /hello HTTP/1.1\nHost: x\n\n", "400", CLOSES},
    {"LF within", "GET /hello HTTP/1.1\r\nHost: x\n\r\n", "400", CLOSES},
    {"a CR alone", "GET /hello HTTP/1.1\r\nA: b\rc\r\n" HOST "\r\n", "400", CLOSES},
    {"a space before the colon", "GET /hello HTTP/1.1\r\nHost : x\r\n\r\n", "400", CLOSES},
    {"a folded line", "GET /hello HTTP/1.1\r\n" HOST "A: b\r\n c\r\n\r\n", "400", CLOSES},
    {"a line that begins with a space", "GET /hello HTTP/1.1\r\n Host: x\r\n\r\n", "400", CLOSES},
    {"no colon", "GET /hello HTTP/1.1\r\n" HOST "abc\r\n\r\n", "400", CLOSES},
    {"an empty name", "GET /hello HTTP/1.1\r\n" HOST ": abc\r\n\r\n", "400", CLOSES},
    {"a name that is no token", "GET /hello HTTP/1.1\r\n" HOST "a(b: c\r\n\r\n", "400", CLOSES},
    {"a NUL-like control in a value", "GET /hello HTTP/1.1\r\n" HOST "A: b\001c\r\n\r\n", "400",
     CLOSES},
    {"a tab in a value", "GET /hello HTTP/1.1\r\n" HOST "A: b\tc\r\n\r\n", "200", KEEPS},
    {"bytes above 127 in a value", "GET /hello HTTP/1.1\r\n" HOST "A: \xc3\xa4\r\n\r\n", "200",
     KEEPS},
    {"an unknown expectation", "GET /hello HTTP/1.1\r\n" HOST "Expect: tea\r\n\r\n", "417", CLOSES},
    {"TLS on a plain port", "\x16\x03\x01\x02", "400", CLOSES},
    {"an answer instead of a request", "HTTP/1.1 200 OK\r\n\r\n", "400", CLOSES},
};

TEST(server, refuses_malformed_heads)
{
    RUN(heads);
    CHECK(bop_http_counters(f->server).malformed > 0);
}

/* ---- Bodies (9112, 6, 7) ---- */

static const struct row bodies[] = {
    {"a length", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nabcde", "200", KEEPS,
     "abcde"},
    {"a length of 0", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", "200", KEEPS, ""},
    {"no body", "POST /echo HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, ""},
    {"a body of GET", "GET /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nab", "200", KEEPS,
     "ab"},
    {"the same length twice",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", "400",
     CLOSES},
    {"two lengths",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\nContent-Length: 3\r\n\r\nab", "400",
     CLOSES},
    {"two lengths in a line", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2, 3\r\n\r\nab",
     "400", CLOSES},
    {"a negative length", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", "400",
     CLOSES},
    {"a signed length", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: +2\r\n\r\nab", "400",
     CLOSES},
    {"a hexadecimal length", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 0x2\r\n\r\nab", "400",
     CLOSES},
    {"an empty length", "POST /echo HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", "400", CLOSES},
    {"a length of 30 digits",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 100000000000000000000000000000\r\n\r\n", "400",
     CLOSES},
    {"chunks",
     "POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
     "200", KEEPS, "abc0123456789"},
    {"no chunks", "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "200", KEEPS, ""},
    {"chunk extensions",
     "POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n1;a=\"b\"\r\nx\r\n0;c\r\n\r\n",
     "200", KEEPS, "x"},
    {"trailers",
     "POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n",
     "200", KEEPS, "x"},
    {"chunked, whatever its case",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: CHUNKED\r\n\r\n1\r\nx\r\n0\r\n\r\n", "200",
     KEEPS, "x"},
    {"chunks and a length",
     "POST /echo HTTP/1.1\r\n" HOST
     "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "400", CLOSES},
    {"two transfer codings",
     "POST /echo HTTP/1.1\r\n" HOST
     "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "400", CLOSES},
    {"a transfer coding that is not chunked",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: brew\r\n\r\n", "400", CLOSES},
    {"gzip as transfer coding",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", "501", CLOSES},
    {"a chunk size that is none",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nx\r\n", "400", CLOSES},
    {"a chunk size with a sign",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n+1\r\n", "400", CLOSES},
    {"a chunk size of 20 digits",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n11111111111111111111\r\n",
     "400", CLOSES},
    {"a chunk longer than its size",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n", "400",
     CLOSES},
    {"a chunk that ends with LF",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n", "400", CLOSES},
    {"a body that is too large", "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 65\r\n\r\n", "413",
     CLOSES},
    {"chunks that are too many",
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
     "40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n1\r\nx\r\n",
     "413", CLOSES},
    {"100 Continue",
     "POST /echo HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
     "100 200", KEEPS, "ab"},
    {"no 100 without a body", "GET /hello HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n\r\n", "200",
     KEEPS, "hello"},
    {"no 100 for a body that nobody reads: it may come or not",
     "PUT /ignore HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", "200",
     CLOSES, "hello", "Connection: close\r\n"},
    {"a body that nobody reads", "PUT /ignore HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nabcde",
     "200", KEEPS, "hello"},
    {"chunks that nobody reads",
     "PUT /ignore HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     "200", KEEPS, "hello"},
    {"malformed chunks that nobody reads",
     "PUT /ignore HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "200", CLOSES},
    {"a stream", "PUT /stream HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc", "200", KEEPS, NULL,
     NULL, NULL},
    {"an answer in chunks", "GET /chunks HTTP/1.1\r\n" HOST "\r\n", "200", KEEPS, "one,two,three",
     "Transfer-Encoding: chunked\r\n", "Content-Length"},
    {"an answer of a length", "GET /length HTTP/1.1\r\n" HOST "\r\n", "201", KEEPS, "abcdef",
     "X-One: 1\r\n", "Transfer-Encoding"},
    {"204 has no length", "GET /none HTTP/1.1\r\n" HOST "\r\n", "204", KEEPS, NULL, NULL,
     "Content-Length"},
};

TEST(server, frames_bodies)
{
    RUN(bodies);
}

/* ---- Pipelining (9112, 9.3.2) ---- */

static const struct row pipelines[] = {
    {"two", "GET /hello HTTP/1.1\r\n" HOST "\r\nGET /length HTTP/1.1\r\n" HOST "\r\n", "200 201",
     KEEPS, "abcdef"},
    {"a late answer first",
     "GET /later HTTP/1.1\r\n" HOST "\r\nGET /hello HTTP/1.1\r\n" HOST "\r\n", "200 200", KEEPS,
     "hello"},
    {"late answers", "GET /later HTTP/1.1\r\n" HOST "\r\nGET /later HTTP/1.1\r\n" HOST "\r\n",
     "200 200", KEEPS, "later"},
    {"bodies",
     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nab"
     "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n"
     "HEAD /hello HTTP/1.1\r\n" HOST "\r\n"
     "GET /chunks HTTP/1.1\r\n" HOST "\r\n",
     "200 200 H200 200", KEEPS, "one,two,three"},
    {"a malformed one behind a good one", "GET /hello HTTP/1.1\r\n" HOST "\r\nGET /\r\n\r\n",
     "200 400", CLOSES},
    {"nothing is served behind a malformed one",
     "GET /hello HTTP/9.1\r\n" HOST "\r\nGET /hello HTTP/1.1\r\n" HOST "\r\n", "505", CLOSES},
    {"empty lines between",
     "GET /hello HTTP/1.1\r\n" HOST "\r\n\r\n\r\nGET /hello HTTP/1.1\r\n" HOST "\r\n", "200 200",
     KEEPS},
    {"a body that nobody reads between",
     "PUT /ignore HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nGETGET /length HTTP/1.1\r\n" HOST
     "\r\n",
     "200 201", KEEPS, "abcdef"},
};

TEST(server, answers_pipelined_requests_in_order)
{
    RUN(pipelines);
}

/* ---- Limits ---- */

static void check_large(struct fixture *f, const char *before, size_t size, const char *after,
                        unsigned status)
{
    struct client *client = client_open(f);
    struct response response;
    char *filler = (char *)malloc(size + 1);

    REQUIRE(filler != NULL);
    memset(filler, 'a', size);
    filler[size] = '\0';
    client_says(client, before);
    client_says(client, filler);
    client_says(client, after);
    response = take_response(client);
    CHECK_EQ(response.status, status);
    if (status >= 400) {
        CHECK_STR_HAS(response.head, "Connection: close\r\n");
        AWAIT(f, client_ended(client));
        CHECK(!client->reset);
    }
    client_close(client);
    free(filler);
    turns(f, 2);
}

TEST(server, refuses_heads_above_the_limits)
{
    check_large(f, "GET /hello?", 240, " HTTP/1.1\r\nHost: x\r\n\r\n", 200);
    check_large(f, "GET /hello?", 300, " HTTP/1.1\r\nHost: x\r\n\r\n", 414);
    check_large(f, "GET /hello?", 100000, " HTTP/1.1\r\nHost: x\r\n\r\n", 414);
    check_large(f, "GET /hello HTTP/1.1\r\nHost: x\r\nA: ", 1900, "\r\n\r\n", 200);
    check_large(f, "GET /hello HTTP/1.1\r\nHost: x\r\nA: ", 2100, "\r\n\r\n", 431);
    check_large(f, "GET /hello HTTP/1.1\r\nHost: x\r\nA: ", 100000, "\r\n\r\n", 431);
    check_large(f, "", 100000, "\r\n\r\n", 501);
}

TEST(server, refuses_too_many_headers)
{
    struct client *client = client_open(f);

    client_says(client, "GET /hello HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 100; i++) { /* The default, and Host. */
        client_says(client, "A: b\r\n");
    }
    client_says(client, "\r\n");
    CHECK_EQ(take_response(client).status, 431);
    client_close(client);
}

/* ---- The end of the client's side ---- */

static unsigned status_after_end(struct fixture *f, const char *request)
{
    struct client *client = client_open(f);
    unsigned status;

    client_says(client, request);
    shutdown(client->fd, SHUT_WR);
    status = take_response(client).status;
    AWAIT(f, client_ended(client));
    CHECK(!client->reset);
    client_close(client);
    turns(f, 2);
    return status;
}

TEST(server, answers_a_client_that_has_said_all)
{
    CHECK_EQ(status_after_end(f, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
    CHECK_EQ(status_after_end(f, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n"), 200);
    CHECK_EQ(status_after_end(f, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n"
                                 "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"),
             200);
}

TEST(server, refuses_what_ends_early)
{
    CHECK_EQ(status_after_end(f, ""), 0);
    CHECK_EQ(status_after_end(f, "GET /hello HT"), 400);
    CHECK_EQ(status_after_end(f, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab"),
             400);
    CHECK_EQ(f->aborts, 1);
}
