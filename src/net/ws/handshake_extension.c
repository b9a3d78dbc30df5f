/*
 * The grammar of Sec-WebSocket-Extensions (RFC 6455, 9.1):
 *
 *      extension-list  = 1#extension
 *      extension       = token *( ";" token [ "=" ( token | quoted-string ) ] )
 *
 * with white space between any two of its parts and empty elements in the list, as that document's
 * grammar has it (RFC 2616, 2.1). A quoted value must be a token once its quotes and backslashes
 * are gone. What does not follow the grammar fails the handshake.
 */
#include "../text.h"
#include "ws_frame.h"

#include <strings.h>

bool bop__ws_is_token_byte(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || (byte != 0 && strchr("!#$%&'*+-.^_`|~", byte) != NULL);
}

bool bop__ws_is_token(struct bop_slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (!bop__ws_is_token_byte(text.data[i])) {
            return false;
        }
    }
    return text.size > 0;
}

static void skip(struct bop_slice *left, size_t count)
{
    left->data += count;
    left->size -= count;
}

static void skip_space(struct bop_slice *left)
{
    while (left->size > 0 && (left->data[0] == ' ' || left->data[0] == '\t')) {
        skip(left, 1);
    }
}

/* A separator, and the space around it. */
static bool skip_byte(struct bop_slice *left, uint8_t byte)
{
    skip_space(left);
    if (left->size == 0 || left->data[0] != byte) {
        return false;
    }
    skip(left, 1);
    skip_space(left);
    return true;
}

static bool read_token(struct bop_slice *left, struct bop_slice *out_token)
{
    size_t size = 0;

    while (size < left->size && bop__ws_is_token_byte(left->data[size])) {
        size++;
    }
    *out_token = bop_slice(left->data, size);
    skip(left, size);
    return size > 0;
}

static void put(char value[WS_VALUE_MAX + 1], size_t at, uint8_t byte)
{
    if (at < WS_VALUE_MAX) {
        value[at] = (char)byte;
        value[at + 1] = '\0';
    } else {
        value[0] = '\0';
    }
}

static bool read_quoted(struct bop_slice *left, char value[WS_VALUE_MAX + 1])
{
    size_t size = 0;

    for (skip(left, 1); left->size > 0; skip(left, 1)) {
        uint8_t byte = left->data[0];

        if (byte == '"') {
            skip(left, 1);
            return size > 0;
        }
        if (byte == '\\') {
            skip(left, 1);
            byte = left->size > 0 ? left->data[0] : 0;
        }
        if (!bop__ws_is_token_byte(byte)) {
            return false;
        }
        put(value, size++, byte);
    }
    return false;
}

static bool read_value(struct bop_slice *left, char value[WS_VALUE_MAX + 1])
{
    struct bop_slice token;

    value[0] = '\0';
    if (left->size > 0 && left->data[0] == '"') {
        return read_quoted(left, value);
    }
    if (!read_token(left, &token)) {
        return false;
    }
    for (size_t i = 0; i < token.size; i++) {
        put(value, i, token.data[i]);
    }
    return true;
}

static bool read_extension(struct bop_slice *left, struct ws_extension *extension)
{
    extension->parameter_count = 0;
    if (!read_token(left, &extension->name)) {
        return false;
    }
    while (skip_byte(left, ';')) {
        struct ws_parameter parameter = {.has_value = false};

        if (!read_token(left, &parameter.name)) {
            return false;
        }
        parameter.has_value = skip_byte(left, '=');
        if (parameter.has_value && !read_value(left, parameter.value)) {
            return false;
        }
        if (extension->parameter_count < WS_PARAMETERS_MAX) {
            extension->parameters[extension->parameter_count++] = parameter;
        }
    }
    return left->size == 0 || left->data[0] == ',';
}

int bop__ws_extension_next(struct ws_extensions *extensions, struct ws_extension *out_extension)
{
    const struct bop_http_head *head = extensions->head;

    for (;;) {
        while (extensions->left.size > 0 && skip_byte(&extensions->left, ',')) {
        }
        if (extensions->left.size > 0) {
            extensions->in_header++;
            return read_extension(&extensions->left, out_extension) ? 1 : BOP_EMALFORMED;
        }
        if (extensions->header > 0 && extensions->in_header == 0) {
            return BOP_EMALFORMED; /* A list of nothing. */
        }
        while (extensions->header < head->header_count &&
               !bop__text_is(head->headers[extensions->header].name, "Sec-WebSocket-Extensions")) {
            extensions->header++;
        }
        if (extensions->header == head->header_count) {
            return 0;
        }
        extensions->left = head->headers[extensions->header++].value;
        extensions->in_header = 0;
    }
}
