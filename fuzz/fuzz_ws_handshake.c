/*
 * Fuzzes the opening handshake on top of the HTTP parser: requests to a server, and responses to a
 * client.
 *
 * The input: a byte of options, then a head. If the byte's lowest bit is set, it is a response.
 *
 * Properties: nothing reads outside of the input; a code is one of those documented, and says why;
 * an answer to an offer is one that our own client takes, and has the values that were agreed on.
 */
#include <stdio.h>
#include <stdlib.h>

#include "net/ws/ws_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bop_http_head head;

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static const char *const protocols[] = {"chat", "mqtt"};

static void require_agreed(const struct bop_ws_deflate *deflate)
{
    require(deflate->server_bits >= 8 && deflate->server_bits <= 15);
    require(deflate->client_bits >= 8 && deflate->client_bits <= 15);
}

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

static void request(struct bop_slice bytes, const struct bop_ws_deflate_options *options)
{
    char accept[BOP_WS_ACCEPT_SIZE + 1], text[BOP_WS_EXTENSION_TEXT_MAX];
    struct bop_ws_deflate deflate;
    const char *why = NULL, *protocol;
    int rc;

    if (bop_http1_parse_request(bytes, NULL, &head, &why) != 0) {
        return;
    }
    why = NULL;
    rc = bop_ws_request_check(&head, accept, &why);
    require(rc == 0 || rc == -400 || rc == -405 || rc == -426);
    require((rc == 0) == (why == NULL));
    if (rc != 0) {
        return;
    }
    require(strlen(accept) == BOP_WS_ACCEPT_SIZE);
    protocol = bop_ws_protocol_choose(&head, protocols, BOP_COUNT_OF(protocols));
    require(!protocol || bop_http_has_token(&head, "Sec-WebSocket-Protocol", protocol));
    if (bop_ws_deflate_accept(&head, options, &deflate, text)) {
        require(options->enabled && deflate.on);
        require_agreed(&deflate);
        require(has(text, "server_no") == !deflate.server_takeover);
        require(has(text, "client_no") == !deflate.client_takeover);
        require(deflate.server_bits == 15 || has(text, "server_max"));
        require((deflate.client_bits < 15) == has(text, "client_max"));
    }
}

static void response(struct bop_slice bytes, const struct bop_ws_deflate_options *options)
{
    static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
    struct bop_ws_request asked = {.host = "h",
                                   .protocols = protocols,
                                   .protocol_count = BOP_COUNT_OF(protocols),
                                   .deflate = *options};
    struct bop_ws_deflate deflate = {0};
    const char *why = NULL, *protocol = NULL;
    int rc;

    if (bop_http1_parse_response(bytes, NULL, BOP_HTTP_GET, &head, &why) != 0) {
        return;
    }
    why = NULL;
    rc = bop_ws_response_check(&head, &asked, key, &protocol, &deflate, &why);
    require((rc == 0 && !why) || (rc == BOP_EPROTOCOL && why));
    if (rc == 0) {
        require(head.status == 101);
        require(!protocol || bop_slice_equal(bop_http_find(&head, "Sec-WebSocket-Protocol"),
                                             bop_slice_cstr(protocol)));
        require(!deflate.on || options->enabled);
        if (deflate.on) {
            require_agreed(&deflate);
            require(options->server_takeover || !deflate.server_takeover);
            require(options->client_takeover || !deflate.client_takeover);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_ws_deflate_options options = {.enabled = true};
    uint8_t *memory;

    if (size < 1) {
        return 0;
    }
    options.enabled = data[0] & 2;
    options.server_takeover = data[0] & 4;
    options.client_takeover = data[0] & 8;
    options.server_bits = data[0] & 16 ? 10 : 0;
    options.client_bits = data[0] & 32 ? 11 : 0;
    memory = malloc(size);
    require(memory != NULL);
    memcpy(memory, data + 1, size - 1);
    if (data[0] & 1) {
        response(bop_slice(memory, size - 1), &options);
    } else {
        request(bop_slice(memory, size - 1), &options);
    }
    free(memory);
    return 0;
}
