/*
 * The opening handshake of both sides, and what is agreed on in it: RFC 6455, sections 4 and 9.1,
 * and RFC 7692, section 7.1.
 */
#include <stdio.h>

#include <bop/ws_codec.h>

#include "tap.h"

#include "cases_handshake.h"

static struct bop_http_head head;

/* ---- Servers ---- */

static const char request_start[] = "GET /chat HTTP/1.1\r\nHost: example.org\r\n";

/* Lines are put one after the other, '|' between them. */
static struct bop_slice make_message(const char *start, const char *lines, char *text, size_t size)
{
    int length = snprintf(text, size, "%s", start);

    for (; *lines; lines++) {
        length += snprintf(text + length, size - (size_t)length, *lines == '|' ? "\r\n" : "%c",
                           *lines);
    }
    length += snprintf(text + length, size - (size_t)length, "\r\n\r\n");
    BOP_ASSERT((size_t)length < size);
    return bop_slice(text, (size_t)length);
}

static int parse_request(const char *start, const char *lines)
{
    static char text[4096];
    const char *why;

    return bop_http1_parse_request(make_message(start, lines, text, sizeof(text)), NULL, &head,
                                   &why);
}

TEST(handshake, requests)
{
    for (size_t i = 0; i < BOP_COUNT_OF(request_cases); i++) {
        const struct request_case *c = &request_cases[i];
        char accept[BOP_WS_ACCEPT_SIZE + 1] = "";
        const char *why = NULL;
        int rc = parse_request(c->start ? c->start : request_start, c->lines);

        if (rc == 0) {
            rc = bop_ws_request_check(&head, accept, &why);
            CHECK_EQ(rc != 0, why != NULL);
        }
        if (rc != -c->status || (rc == 0 && strcmp(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") != 0)) {
            test__failed(__FILE__, __LINE__, "%s: %d instead of %d (%s)", c->name, -rc, c->status,
                         why ? why : "");
        }
    }
    test_note("%zu cases", BOP_COUNT_OF(request_cases));
}

TEST(handshake, chooses_the_first_protocol_that_both_know)
{
    static const char *const ours[] = {"mqtt", "chat.v2", "chat"};
    static const struct {
        const char *lines;
        const char *chosen;
    } cases[] = {
        {"X: y", NULL},
        {"Sec-WebSocket-Protocol: chat", "chat"},
        {"Sec-WebSocket-Protocol: soap, chat.v2 , mqtt", "chat.v2"},
        {"Sec-WebSocket-Protocol: soap, wamp", NULL},
        {"Sec-WebSocket-Protocol: Chat", NULL},
        {"Sec-WebSocket-Protocol: chat.v", NULL},
        {"Sec-WebSocket-Protocol: soap|X: y|Sec-WebSocket-Protocol: mqtt", "mqtt"},
        {"Sec-WebSocket-Protocol: ,chat", "chat"},
    };

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        REQUIRE_EQ(parse_request(request_start, cases[i].lines), 0);
        CHECK_STR_EQ(bop_ws_protocol_choose(&head, ours, BOP_COUNT_OF(ours)), cases[i].chosen);
    }
    CHECK_STR_EQ(bop_ws_protocol_choose(&head, NULL, 0), NULL);
}

TEST(handshake, answers_offers_of_deflate)
{
    for (size_t i = 0; i < BOP_COUNT_OF(offer_cases); i++) {
        const struct offer_case *c = &offer_cases[i];
        struct bop_ws_deflate_options options = c->options;
        struct bop_ws_deflate deflate;
        char text[BOP_WS_EXTENSION_TEXT_MAX], lines[512];
        bool on;

        options.enabled = !c->disabled;
        snprintf(lines, sizeof(lines), "Sec-WebSocket-Extensions: %s", c->offer);
        REQUIRE_EQ(parse_request(request_start, lines), 0);
        on = bop_ws_deflate_accept(&head, &options, &deflate, text);
        if (on != deflate.on || strcmp(text, c->answer) != 0 ||
            (on &&
             (deflate.server_bits != c->server_bits || deflate.client_bits != c->client_bits ||
              deflate.server_takeover == (strstr(text, "server_no") != NULL) ||
              deflate.client_takeover == (strstr(text, "client_no") != NULL)))) {
            test__failed(__FILE__, __LINE__, "\"%s\": \"%s\" instead of \"%s\", %u, %u", c->offer,
                         text, c->answer, deflate.server_bits, deflate.client_bits);
        }
    }
    test_note("%zu cases", BOP_COUNT_OF(offer_cases));
}

/* ---- Clients ---- */

static int parse_response(const char *start, const char *lines)
{
    static char text[4096];
    const char *why;

    return bop_http1_parse_response(make_message(start, lines, text, sizeof(text)), NULL,
                                    BOP_HTTP_GET, &head, &why);
}

static const char *const protocols[] = {"chat", "mqtt"};

TEST(handshake, responses)
{
    static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";

    for (size_t i = 0; i < BOP_COUNT_OF(response_cases); i++) {
        const struct response_case *c = &response_cases[i];
        struct bop_ws_request request = {.host = "example.org",
                                         .protocols = protocols,
                                         .protocol_count = BOP_COUNT_OF(protocols),
                                         .deflate = c->options};
        struct bop_ws_deflate deflate = {0};
        const char *protocol = NULL, *why = NULL;
        int rc = parse_response(c->start ? c->start : "HTTP/1.1 101 Switching Protocols\r\n",
                                c->lines);

        if (rc == 0) {
            rc = bop_ws_response_check(&head, &request, key, &protocol, &deflate, &why);
            CHECK_EQ(rc != 0, why != NULL);
        }
        if ((rc == 0) != c->good) {
            test__failed(__FILE__, __LINE__, "%s: %d (%s)", c->name, rc, why ? why : "");
        } else if (c->good) {
            CHECK_STR_EQ(protocol, c->protocol);
            CHECK_EQ(deflate.on, c->server_bits != 0);
            CHECK_EQ(deflate.server_bits, c->server_bits);
            CHECK_EQ(deflate.client_bits, c->client_bits);
        }
    }
    test_note("%zu cases", BOP_COUNT_OF(response_cases));
}

/* What a client writes, a server takes; and the other way round. */
TEST(handshake, both_sides_understand_each_other)
{
    for (unsigned bits = 8; bits <= 15; bits++) {
        for (unsigned flags = 0; flags < 16; flags++) {
            struct bop_ws_deflate_options server = {.enabled = true,
                                                    .server_bits = (uint8_t)(23 - bits),
                                                    .server_takeover = flags & 1,
                                                    .client_takeover = flags & 2};
            struct bop_ws_request request = {.host = "example.org:8080",
                                             .target = "/chat?room=1",
                                             .origin = "https://example.org",
                                             .protocols = protocols,
                                             .protocol_count = 2,
                                             .deflate = {.enabled = true,
                                                         .server_bits = (uint8_t)bits,
                                                         .client_bits = (uint8_t)bits,
                                                         .server_takeover = flags & 4,
                                                         .client_takeover = flags & 8}};
            struct bop_ws_deflate at_server, at_client;
            char key[BOP_WS_KEY_SIZE + 1], accept[BOP_WS_ACCEPT_SIZE + 1];
            char text[BOP_WS_EXTENSION_TEXT_MAX], lines[512];
            const char *why = NULL, *protocol;
            struct bop_buf buf;

            bop_buf_init(&buf, NULL, 0);
            REQUIRE_EQ(bop_ws_request_append(&request, &buf, key), 0);
            REQUIRE_EQ(bop_http1_parse_request(bop_buf_slice(&buf), NULL, &head, &why), 0);
            CHECK_EQ(head.size, buf.size);
            CHECK_SLICE_EQ(head.target, bytes("/chat?room=1"));
            CHECK_SLICE_EQ(bop_http_find(&head, "Origin"), bytes("https://example.org"));
            CHECK_EQ(bop_ws_request_check(&head, accept, &why), 0);
            CHECK(bop_ws_deflate_accept(&head, &server, &at_server, text));
            snprintf(lines, sizeof(lines),
                     "Upgrade: websocket|Connection: Upgrade|Sec-WebSocket-Accept: %s|"
                     "Sec-WebSocket-Protocol: mqtt|Sec-WebSocket-Extensions: %s",
                     accept, text);
            REQUIRE_EQ(parse_response("HTTP/1.1 101 Switching Protocols\r\n", lines), 0);
            CHECK_EQ(bop_ws_response_check(&head, &request, key, &protocol, &at_client, &why), 0);
            CHECK_STR_EQ(protocol, "mqtt");
            CHECK(at_client.on);
            CHECK_EQ(at_client.server_bits, at_server.server_bits);
            CHECK_EQ(at_client.client_bits, at_server.client_bits);
            CHECK_EQ(at_client.server_takeover, at_server.server_takeover);
            CHECK_EQ(at_client.client_takeover, at_server.client_takeover);
            bop_buf_deinit(&buf);
        }
    }
}

TEST(handshake, writes_no_request_that_is_wrong)
{
    static const struct bop_http_header smuggled = {{(const uint8_t *)"X", 1},
                                                    {(const uint8_t *)"a\r\nY: b", 7}};
    static const struct bop_http_header taken = {{(const uint8_t *)"connection", 10},
                                                 {(const uint8_t *)"close", 5}};
    static const struct bop_http_header origin = {{(const uint8_t *)"origin", 6},
                                                  {(const uint8_t *)"null", 4}};
    static const char *const twice[] = {"a", "a"}, *const spaced[] = {"a b"}, *const empty[] = {""};
    const struct bop_ws_request wrong[] = {
        {.host = NULL},
        {.host = ""},
        {.host = "a b"},
        {.host = "a\r\nX: y"},
        {.host = "a/b"},
        {.host = "user@a"},
        {.host = "a", .target = "chat"},
        {.host = "a", .target = ""},
        {.host = "a", .target = "/a b"},
        {.host = "a", .target = "/a#b"},
        {.host = "a", .target = "/\xc3\xa9"},
        {.host = "a", .origin = ""},
        {.host = "a", .origin = "x\n"},
        {.host = "a", .protocols = twice, .protocol_count = 2},
        {.host = "a", .protocols = spaced, .protocol_count = 1},
        {.host = "a", .protocols = empty, .protocol_count = 1},
        {.host = "a", .headers = &smuggled, .header_count = 1},
        {.host = "a", .headers = &taken, .header_count = 1},
        {.host = "a", .origin = "x", .headers = &origin, .header_count = 1},
    };
    char key[BOP_WS_KEY_SIZE + 1] = "untouched";
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 0);
    for (size_t i = 0; i < BOP_COUNT_OF(wrong); i++) {
        int rc = bop_ws_request_append(&wrong[i], &buf, key);

        if (rc != BOP_EINVAL || buf.size != 0) {
            test__failed(__FILE__, __LINE__, "request %zu: %d", i, rc);
        }
    }
    CHECK_STR_EQ(key, "untouched");
    CHECK_EQ(bop_ws_request_append(
                 &(struct bop_ws_request){.host = "a", .headers = &origin, .header_count = 1}, &buf,
                 key),
             0);
    bop_buf_deinit(&buf);
}

/* RFC 6455, 1.3. */
TEST(handshake, accepts_the_key_of_the_document)
{
    char accept[BOP_WS_ACCEPT_SIZE + 1];

    bop_ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", accept);
    CHECK_STR_EQ(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
