/*
 * The opening handshake (RFC 6455, section 4).
 *
 * A server answers a key with the SHA-1 of it and a fixed text, which proves that it understood
 * the request, and nothing else. What a header must say once it must not say twice, lest two
 * readers on the path take different ones.
 */
#include "../text.h"
#include "ws_frame.h"

#include <stdio.h>

#include <openssl/evp.h>

#include <bop/random.h>

#define KEY_BYTES  16
#define SHA1_BYTES 20

static const char accept_text[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/* ---- What both sides need ---- */

void bop_ws_accept_key(const char key[BOP_WS_KEY_SIZE], char out_accept[BOP_WS_ACCEPT_SIZE + 1])
{
    char text[BOP_WS_KEY_SIZE + sizeof(accept_text) - 1];
    uint8_t sum[SHA1_BYTES];

    memcpy(text, key, BOP_WS_KEY_SIZE);
    memcpy(text + BOP_WS_KEY_SIZE, accept_text, sizeof(accept_text) - 1);
    BOP_ASSERT(EVP_Digest(text, sizeof(text), sum, NULL, EVP_sha1(), NULL) == 1);
    EVP_EncodeBlock((unsigned char *)out_accept, sum, SHA1_BYTES);
}

/* How many headers have that name; the value of the first. */
static unsigned count_headers(const struct bop_http_head *head, const char *name,
                              struct bop_slice *out_value)
{
    unsigned count = 0;

    *out_value = bop_slice(NULL, 0);
    for (unsigned i = 0; i < head->header_count; i++) {
        if (bop__text_is(head->headers[i].name, name) && count++ == 0) {
            *out_value = head->headers[i].value;
        }
    }
    return count;
}

/* Goes through the elements of all Sec-WebSocket-Protocol headers. */
struct protocols {
    const struct bop_http_head *head;
    unsigned header; /* The next one to look at. */
    struct bop_slice left;
};

/* Returns false at the end. An element may be empty, or no token. */
static bool next_protocol(struct protocols *protocols, struct bop_slice *out_protocol)
{
    const struct bop_http_head *head = protocols->head;
    const uint8_t *comma, *end;

    while (protocols->left.data == NULL) {
        if (protocols->header == head->header_count) {
            return false;
        }
        if (bop__text_is(head->headers[protocols->header++].name, "Sec-WebSocket-Protocol")) {
            protocols->left = head->headers[protocols->header - 1].value;
        }
    }
    end = protocols->left.data + protocols->left.size;
    comma = memchr(protocols->left.data, ',', protocols->left.size);
    *out_protocol = bop_slice(protocols->left.data,
                              (size_t)((comma ? comma : end) - protocols->left.data));
    protocols->left = comma ? bop_slice(comma + 1, (size_t)(end - comma - 1)) : bop_slice(NULL, 0);
    while (out_protocol->size > 0 &&
           (out_protocol->data[0] == ' ' || out_protocol->data[0] == '\t')) {
        *out_protocol = bop_slice(out_protocol->data + 1, out_protocol->size - 1);
    }
    while (out_protocol->size > 0 && (out_protocol->data[out_protocol->size - 1] == ' ' ||
                                      out_protocol->data[out_protocol->size - 1] == '\t')) {
        out_protocol->size--;
    }
    return true;
}

/* ---- Servers ---- */

static int refuse(int status, const char **out_why, const char *why)
{
    if (out_why) {
        *out_why = why;
    }
    return -status;
}

/* 22 characters of base64's and two '='. The last one's spare bits are not looked at, as RFC 4648
 * leaves to readers: nothing is decoded. */
static bool is_key(struct bop_slice key)
{
    if (key.size != BOP_WS_KEY_SIZE || key.data[22] != '=' || key.data[23] != '=') {
        return false;
    }
    for (unsigned i = 0; i < 22; i++) {
        uint8_t byte = key.data[i];

        if (!((byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
              (byte >= '0' && byte <= '9') || byte == '+' || byte == '/')) {
            return false;
        }
    }
    return true;
}

/* Tokens, each once, and at least one if there is such a header; elements may be empty, as in
 * "a,,b". */
static bool protocols_are_good(const struct bop_http_head *head)
{
    struct protocols all = {.head = head};
    struct bop_slice one, other;
    unsigned found = 0;

    while (next_protocol(&all, &one)) {
        struct protocols before = {.head = head};

        if (one.size == 0) {
            continue;
        }
        found++;
        if (!bop__ws_is_token(one)) {
            return false;
        }
        while (next_protocol(&before, &other) && other.data != one.data) {
            if (bop_slice_equal(one, other)) {
                return false;
            }
        }
    }
    return found > 0 || count_headers(head, "Sec-WebSocket-Protocol", &one) == 0;
}

static bool extensions_are_good(const struct bop_http_head *head)
{
    struct ws_extensions extensions = {.head = head};
    struct ws_extension extension;
    int rc;

    while ((rc = bop__ws_extension_next(&extensions, &extension)) == 1) {
    }
    return rc == 0;
}

int bop_ws_request_check(const struct bop_http_head *head, char out_accept[BOP_WS_ACCEPT_SIZE + 1],
                         const char **out_why)
{
    struct bop_slice key, version, other;

    if (head->minor < 1 || !bop_http_has_token(head, "Upgrade", "websocket")) {
        return refuse(426, out_why, "not a WebSocket request");
    }
    if (head->method != BOP_HTTP_GET) {
        return refuse(405, out_why, "a WebSocket request by another method than GET");
    }
    if (!bop_http_has_token(head, "Connection", "upgrade")) {
        return refuse(400, out_why, "Connection does not name Upgrade");
    }
    if (head->framing == BOP_HTTP_CHUNKED || head->content_length != 0) {
        return refuse(400, out_why, "a WebSocket request with a body");
    }
    switch (count_headers(head, "Sec-WebSocket-Version", &version)) {
    case 0:
        return refuse(400, out_why, "no Sec-WebSocket-Version");
    case 1:
        if (!bop__text_is(version, "13")) {
            return refuse(426, out_why, "a version of WebSocket other than 13");
        }
        break;
    default:
        return refuse(400, out_why, "Sec-WebSocket-Version twice");
    }
    if (count_headers(head, "Sec-WebSocket-Key", &key) != 1 || !is_key(key)) {
        return refuse(400, out_why, "not one Sec-WebSocket-Key of 16 bytes");
    }
    if (count_headers(head, "Sec-WebSocket-Accept", &other) != 0) {
        return refuse(400, out_why, "Sec-WebSocket-Accept in a request");
    }
    if (count_headers(head, "Origin", &other) > 1) {
        return refuse(400, out_why, "Origin twice");
    }
    if (!protocols_are_good(head)) {
        return refuse(400, out_why, "Sec-WebSocket-Protocol is no list of different tokens");
    }
    if (!extensions_are_good(head)) {
        return refuse(400, out_why, "Sec-WebSocket-Extensions is malformed");
    }
    bop_ws_accept_key((const char *)key.data, out_accept);
    return 0;
}

const char *bop_ws_protocol_choose(const struct bop_http_head *head, const char *const *protocols,
                                   size_t protocol_count)
{
    struct protocols offered = {.head = head};
    struct bop_slice one;

    while (next_protocol(&offered, &one)) {
        for (size_t i = 0; i < protocol_count; i++) {
            if (bop_slice_equal(one, bop_slice_cstr(protocols[i]))) {
                return protocols[i];
            }
        }
    }
    return NULL;
}

/* ---- Clients: the request ---- */

/* Printable, without spaces, and nothing outside of ASCII. */
static bool is_visible(const char *text)
{
    for (; *text; text++) {
        if (*text <= ' ' || *text >= 0x7f) {
            return false;
        }
    }
    return true;
}

static bool header_is_free(struct bop_slice name)
{
    static const char *const taken[] = {
        "Host",
        "Upgrade",
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Accept",
    };

    for (size_t i = 0; i < BOP_COUNT_OF(taken); i++) {
        if (bop__text_is(name, taken[i])) {
            return false;
        }
    }
    return true;
}

static bool request_is_good(const struct bop_ws_request *request)
{
    const char *target = request->target;

    if (!request->host || !request->host[0] || !is_visible(request->host) ||
        strpbrk(request->host, "/?#@\\")) {
        return false;
    }
    if (target && (target[0] != '/' || !is_visible(target) || strchr(target, '#'))) {
        return false;
    }
    if (request->origin && (!request->origin[0] || !is_visible(request->origin))) {
        return false;
    }
    for (size_t i = 0; i < request->protocol_count; i++) {
        if (!bop__ws_is_token(bop_slice_cstr(request->protocols[i]))) {
            return false;
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(request->protocols[i], request->protocols[k]) == 0) {
                return false;
            }
        }
    }
    for (size_t i = 0; i < request->header_count; i++) {
        const struct bop_http_header *header = &request->headers[i];

        if (!bop_http_header_is_valid(header->name, header->value) ||
            !header_is_free(header->name) ||
            (request->origin && bop__text_is(header->name, "Origin"))) {
            return false;
        }
    }
    return true;
}

static void put(struct bop_writer *writer, const char *text)
{
    bop_write_raw(writer, bop_slice_cstr(text));
}

static void put_header(struct bop_writer *writer, const char *name, const char *value)
{
    put(writer, name);
    put(writer, ": ");
    put(writer, value);
    put(writer, "\r\n");
}

static void put_head(struct bop_writer *writer, const struct bop_ws_request *request,
                     const char *key)
{
    put(writer, "GET ");
    put(writer, request->target ? request->target : "/");
    put(writer, " HTTP/1.1\r\n");
    put_header(writer, "Host", request->host);
    put(writer, "Upgrade: websocket\r\nConnection: Upgrade\r\n");
    put_header(writer, "Sec-WebSocket-Key", key);
    put(writer, "Sec-WebSocket-Version: 13\r\n");
    if (request->origin) {
        put_header(writer, "Origin", request->origin);
    }
    for (size_t i = 0; i < request->protocol_count; i++) {
        put(writer, i == 0 ? "Sec-WebSocket-Protocol: " : ", ");
        put(writer, request->protocols[i]);
        put(writer, i + 1 == request->protocol_count ? "\r\n" : "");
    }
    if (request->deflate.enabled) {
        char offer[BOP_WS_EXTENSION_TEXT_MAX];

        bop__ws_deflate_offer(&request->deflate, offer);
        put_header(writer, "Sec-WebSocket-Extensions", offer);
    }
    for (size_t i = 0; i < request->header_count; i++) {
        bop_write_raw(writer, request->headers[i].name);
        put(writer, ": ");
        bop_write_raw(writer, request->headers[i].value);
        put(writer, "\r\n");
    }
    put(writer, "\r\n");
}

int bop_ws_request_append(const struct bop_ws_request *request, struct bop_buf *buf,
                          char out_key[BOP_WS_KEY_SIZE + 1])
{
    struct bop_writer writer = bop_writer(buf);
    size_t size = buf->size;
    uint8_t secret[KEY_BYTES];
    char key[BOP_WS_KEY_SIZE + 1];
    int rc;

    if (!request_is_good(request)) {
        return BOP_EINVAL;
    }
    rc = bop_random_secret(secret, sizeof(secret));
    if (rc != 0) {
        return rc;
    }
    EVP_EncodeBlock((unsigned char *)key, secret, KEY_BYTES);
    put_head(&writer, request, key);
    if (writer.code != 0) {
        buf->size = size;
        return writer.code;
    }
    memcpy(out_key, key, sizeof(key));
    return 0;
}

/* ---- Clients: the response ---- */

static int broken(const char **out_why, const char *why)
{
    if (out_why) {
        *out_why = why;
    }
    return BOP_EPROTOCOL;
}

static int check_protocol(const struct bop_http_head *head, const struct bop_ws_request *request,
                          const char **out_protocol, const char **out_why)
{
    struct bop_slice value;

    *out_protocol = NULL;
    switch (count_headers(head, "Sec-WebSocket-Protocol", &value)) {
    case 0:
        return 0;
    case 1:
        break;
    default:
        return broken(out_why, "Sec-WebSocket-Protocol twice");
    }
    for (size_t i = 0; i < request->protocol_count; i++) {
        if (bop_slice_equal(value, bop_slice_cstr(request->protocols[i]))) {
            *out_protocol = request->protocols[i];
            return 0;
        }
    }
    return broken(out_why, "a subprotocol that was not asked for");
}

static int check_extensions(const struct bop_http_head *head, const struct bop_ws_request *request,
                            struct bop_ws_deflate *out_deflate, const char **out_why)
{
    struct ws_extensions extensions = {.head = head};
    struct ws_extension extension;
    int rc;

    *out_deflate = (struct bop_ws_deflate){.on = false};
    while ((rc = bop__ws_extension_next(&extensions, &extension)) == 1) {
        const char *why;

        rc = bop__ws_deflate_agree(&extension, &request->deflate, out_deflate, &why);
        if (rc != 0) {
            return broken(out_why, why);
        }
    }
    return rc == 0 ? 0 : broken(out_why, "Sec-WebSocket-Extensions is malformed");
}

int bop_ws_response_check(const struct bop_http_head *head, const struct bop_ws_request *request,
                          const char key[BOP_WS_KEY_SIZE], const char **out_protocol,
                          struct bop_ws_deflate *out_deflate, const char **out_why)
{
    char expected[BOP_WS_ACCEPT_SIZE + 1];
    struct bop_slice value;
    int rc;

    if (head->status != 101 || head->minor < 1) {
        return broken(out_why, "the answer is not 101 Switching Protocols");
    }
    if (count_headers(head, "Upgrade", &value) != 1 || !bop__text_is(value, "websocket")) {
        return broken(out_why, "Upgrade is not websocket");
    }
    if (!bop_http_has_token(head, "Connection", "upgrade")) {
        return broken(out_why, "Connection does not name Upgrade");
    }
    bop_ws_accept_key(key, expected);
    if (count_headers(head, "Sec-WebSocket-Accept", &value) != 1 ||
        !bop_slice_equal(value, bop_slice_cstr(expected))) {
        return broken(out_why, "Sec-WebSocket-Accept does not match the key");
    }
    rc = check_protocol(head, request, out_protocol, out_why);
    return rc != 0 ? rc : check_extensions(head, request, out_deflate, out_why);
}
