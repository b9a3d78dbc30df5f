/*
 * JSON as it is written, straight into a buffer: answers are listings of a
 * thousand entries, for which a tree in between would be memory and time for
 * nothing. What is read goes through jansson.
 *
 * Bytes are text if they are UTF-8, and else base64 (RFC 4648, by OpenSSL) under
 * the same name with "64" behind it.
 */
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "http.h"

#define NUMBER_MAX 24
#define BASE64_MAX (64u * 1024 * 1024) /* Its sizes are ints. */

/* ---- Pieces ---- */

static void put(struct http_json *json, const void *bytes, size_t size)
{
    if (json->code == 0) {
        json->code = bop_buf_append(json->buf, bytes, size);
    }
}

static void put_escape(struct http_json *json, uint8_t byte)
{
    char text[8];
    int size = byte == '"' || byte == '\\' ? snprintf(text, sizeof(text), "\\%c", byte)
               : byte == '\n'              ? snprintf(text, sizeof(text), "\\n")
                                           : snprintf(text, sizeof(text), "\\u%04x", byte);

    put(json, text, (size_t)size);
}

/* The text is UTF-8. */
static void put_string(struct http_json *json, struct bop_slice text)
{
    size_t begun = 0;

    put(json, "\"", 1);
    for (size_t at = 0; at < text.size; at++) {
        uint8_t byte = text.data[at];

        if (byte < 0x20 || byte == '"' || byte == '\\' || byte == 0x7f) {
            put(json, text.data + begun, at - begun);
            put_escape(json, byte);
            begun = at + 1;
        }
    }
    put(json, text.data + begun, text.size - begun);
    put(json, "\"", 1);
}

static void begin(struct http_json *json, const char *name)
{
    if (json->comma) {
        put(json, ",", 1);
    }
    json->comma = true;
    if (name) {
        put_string(json, bop_slice_cstr(name));
        put(json, ":", 1);
    }
}

void bop__json_open(struct http_json *json, const char *name, char bracket)
{
    begin(json, name);
    put(json, &bracket, 1);
    json->comma = false;
}

void bop__json_close(struct http_json *json, char bracket)
{
    put(json, &bracket, 1);
    json->comma = true;
}

void bop__json_bool(struct http_json *json, const char *name, bool value)
{
    begin(json, name);
    put(json, value ? "true" : "false", value ? 4 : 5);
}

void bop__json_u64(struct http_json *json, const char *name, uint64_t value)
{
    char text[NUMBER_MAX];

    begin(json, name);
    put(json, text, (size_t)snprintf(text, sizeof(text), "%" PRIu64, value));
}

void bop__json_i64(struct http_json *json, const char *name, int64_t value)
{
    char text[NUMBER_MAX];

    begin(json, name);
    put(json, text, (size_t)snprintf(text, sizeof(text), "%" PRIi64, value));
}

void bop__json_raw(struct http_json *json, const char *text)
{
    put(json, text, strlen(text));
}

/* ---- Text and bytes ---- */

void bop__json_text(struct http_json *json, const char *name, struct bop_slice text)
{
    begin(json, name);
    if (bop_slice_is_utf8(text)) {
        put_string(json, text);
        return;
    }
    /* Only names that people gave come here: byte by byte is fine. */
    put(json, "\"", 1);
    for (size_t at = 0; at < text.size; at++) {
        uint8_t byte = text.data[at];

        if (byte < 0x20 || byte == '"' || byte == '\\' || byte >= 0x7f) {
            put_escape(json, byte < 0x7f ? byte : '?');
        } else {
            put(json, &byte, 1);
        }
    }
    put(json, "\"", 1);
}

void bop__json_bytes(struct http_json *json, const char *name, struct bop_slice bytes)
{
    char name64[32];

    if (bop_slice_is_utf8(bytes)) {
        begin(json, name);
        put_string(json, bytes);
        return;
    }
    snprintf(name64, sizeof(name64), "%s64", name);
    begin(json, name64);
    put(json, "\"", 1);
    if (json->code == 0) {
        json->code = bop__base64_encode(json->buf, bytes, false);
    }
    put(json, "\"", 1);
}

/* ---- base64 ---- */

static void swap_digits(uint8_t *digits, size_t size, const char from[2], const char to[2])
{
    for (size_t at = 0; at < size; at++) {
        digits[at] = digits[at] == (uint8_t)from[0]   ? (uint8_t)to[0]
                     : digits[at] == (uint8_t)from[1] ? (uint8_t)to[1]
                                                      : digits[at];
    }
}

int bop__base64_encode(struct bop_buf *buf, struct bop_slice bytes, bool url)
{
    uint8_t *digits;
    size_t size;
    int rc;

    if (bytes.size == 0) {
        return 0;
    }
    if (bytes.size > BASE64_MAX) {
        return BOP_ETOOBIG;
    }
    rc = bop_buf_reserve(buf, (bytes.size + 2) / 3 * 4 + 1); /* It writes a NUL, too. */
    if (rc < 0) {
        return rc;
    }
    digits = buf->data + buf->size;
    size = (size_t)EVP_EncodeBlock(digits, bytes.data, (int)bytes.size);
    if (url) {
        swap_digits(digits, size, "+/", "-_");
        while (digits[size - 1] == '=') {
            size--;
        }
    }
    buf->size += size;
    return 0;
}

/* Whether encoding the bytes gives the digits, which are padded. */
static int same_again(struct bop_slice bytes, struct bop_slice digits)
{
    struct bop_buf again;
    int rc;

    bop_buf_init(&again, NULL, 0);
    rc = bop__base64_encode(&again, bytes, false);
    if (rc == 0 && !bop_slice_equal(bop_buf_slice(&again), digits)) {
        rc = BOP_EMALFORMED;
    }
    bop_buf_deinit(&again);
    return rc;
}

static int decode_padded(struct bop_buf *buf, struct bop_slice digits)
{
    size_t before = buf->size;
    size_t padding = (digits.data[digits.size - 1] == '=') + (digits.data[digits.size - 2] == '=');
    int size;
    int rc = bop_buf_reserve(buf, digits.size / 4 * 3);

    if (rc < 0) {
        return rc;
    }
    size = EVP_DecodeBlock(buf->data + buf->size, digits.data, (int)digits.size);
    if (size < 0 || (size_t)size < padding) {
        return BOP_EMALFORMED;
    }
    buf->size += (size_t)size - padding;
    /* It skips white space and takes bits that mean nothing: what it makes of that is not
     * encoded as it came. */
    rc = same_again(bop_slice(buf->data + before, buf->size - before), digits);
    if (rc < 0) {
        buf->size = before;
    }
    return rc;
}

int bop__base64_decode(struct bop_buf *buf, struct bop_slice text, bool url)
{
    struct bop_buf digits;
    int rc;

    if (text.size == 0) {
        return 0;
    }
    if (text.size > BASE64_MAX || (!url && text.size % 4 != 0) || (url && text.size % 4 == 1)) {
        return BOP_EMALFORMED;
    }
    if (!url) {
        return decode_padded(buf, text);
    }
    if (memchr(text.data, '+', text.size) || memchr(text.data, '/', text.size) ||
        memchr(text.data, '=', text.size)) {
        return BOP_EMALFORMED;
    }
    bop_buf_init(&digits, NULL, 0);
    rc = bop_buf_append(&digits, text.data, text.size);
    if (rc == 0) {
        rc = bop_buf_append(&digits, "==", (4 - text.size % 4) % 4);
    }
    if (rc == 0) {
        swap_digits(digits.data, digits.size, "-_", "+/");
        rc = decode_padded(buf, bop_buf_slice(&digits));
    }
    bop_buf_deinit(&digits);
    return rc;
}
