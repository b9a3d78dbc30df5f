/*
 * The parser's cases once more, on connections: what is refused is answered with
 * its status and closed, the rest gets to a handler; whether it comes whole or
 * byte by byte.
 */
#include "server_fixture.h"
#include "state.h"

static void take_any(struct bop_http_exchange *http, const struct bop_http_head *head, void *user)
{
    struct fixture *f = (struct fixture *)user;

    f->requests++;
    CHECK_EQ(bop_http_reply(http, 200, NULL, bytes("taken")), 0);
}

static void setup(struct fixture *f)
{
    server_setup(f);
    server_create(f, NULL);
    REQUIRE_EQ(bop_http_route(f->server, NULL, "/*", take_any, f), 0);
    server_listen(f, &(struct bop_http_listen_options){.host = "127.0.0.1"});
}

FIXTURE(setup, server_teardown)

static struct client *send_case(struct fixture *f, struct bop_slice text, bool bytewise)
{
    struct client *client = client_open(f);

    for (size_t i = 0; bytewise && i < text.size; i++) {
        client_send(client, bop_slice(text.data + i, 1));
    }
    if (bytewise && text.data[text.size - 1] != '\n') {
        client_says(client, "\n"); /* Lines are looked at when they end, so that drips are cheap. */
    }
    if (!bytewise) {
        client_send(client, text);
    }
    return client;
}

static unsigned final_status(struct client *client, struct bop_slice text)
{
    bool head_only = text.size >= 5 && memcmp(text.data, "HEAD ", 5) == 0;
    unsigned status;

    do {
        status = take_response_to(client, head_only).status;
    } while (status >= 100 && status < 200);
    return status;
}

static void tell(unsigned failures, const char *section, struct bop_slice text, bool bytewise)
{
    if (test__failures() != failures) {
        test_note("RFC %s, %s: %.*s", section, bytewise ? "byte by byte" : "whole", (int)text.size,
                  (const char *)text.data);
    }
}

static void check_bad(struct fixture *f, const char *section, struct bop_slice text,
                      unsigned expected)
{
    for (int bytewise = 0; bytewise < 2; bytewise++) {
        unsigned failures = test__failures(), requests = f->requests;
        struct client *client = send_case(f, text, bytewise);

        CHECK_EQ(final_status(client, text), expected);
        AWAIT(f, client_ended(client));
        CHECK(!client->reset);
        CHECK_EQ(client->taken, client->size); /* Nothing else was said. */
        CHECK_EQ(f->requests, requests);
        client_close(client);
        turns(f, 2);
        tell(failures, section, text, bytewise);
    }
}

static bool says(struct bop_slice text, const char *what)
{
    return memmem(text.data, bop_min_u64(text.size, 32), what, strlen(what)) != NULL;
}

static void check_good(struct fixture *f, const char *section, struct bop_slice text)
{
    /* What a server answers by itself. */
    unsigned own = says(text, "CONNECT ") ? 501 : says(text, "OPTIONS * ") ? 204 : 0;

    for (int bytewise = 0; bytewise < 2; bytewise++) {
        unsigned failures = test__failures(), requests = f->requests, status;
        struct client *client = send_case(f, text, bytewise);

        status = final_status(client, text);
        CHECK_EQ(status, own != 0 ? own : 200);
        CHECK_EQ(f->requests, requests + (own == 0));
        client_close(client);
        turns(f, 2);
        tell(failures, section, text, bytewise);
    }
}

#define TEXT(literal) bop_slice(literal, sizeof(literal) - 1)

#define GET_LINE "GET / HTTP/1.1\r\n"
#define GET      GET_LINE "Host: h\r\n"
#define POST     "POST / HTTP/1.1\r\nHost: h\r\n"

TEST(conformance, what_is_good_is_served)
{
#define GOOD(section, text, expected)           check_good(f, section, TEXT(text));
#define LINE(section, text, count, name, value) check_good(f, section, TEXT(text));
#define BAD(section, status, text)
#include "cases_request.def"
#undef GOOD
#undef LINE
#undef BAD
}

TEST(conformance, what_is_bad_is_refused_with_its_status)
{
#define GOOD(section, text, expected)
#define LINE(section, text, count, name, value)
#define BAD(section, status, text) check_bad(f, section, TEXT(text), status);
#include "cases_request.def"
#undef GOOD
#undef LINE
#undef BAD
}
