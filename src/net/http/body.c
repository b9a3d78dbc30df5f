/*
 * Bodies as they come: RFC 9112, 6 and 7.
 *
 * A chunked body is a machine that takes a byte at a time, but for the content,
 * of which it takes what is there:
 *
 *      digits --;--> extension --+            +-----> content, CRLF --+
 *        |                       |            |                       |
 *        +----------CR-----------+--LF--(size > 0)      <--digits-----+
 *                                             |
 *                                             +(size 0)--> trailers --CRLF--> end
 *
 * The number of digits is part of the state, so that zeros before a size do not
 * go on for ever. Extensions and trailers count into `extra`; content pays for
 * extensions, as long streams whose every chunk is signed are in order, and tiny
 * chunks with big extensions are not.
 *
 * Trailers are dropped, but a trailer that would frame, route, authorize or
 * describe the message is an error (RFC 9110, 6.5.1): somebody on the path could
 * take it for a header. `left`, which has no other use there, keeps a hash of the
 * name read so far.
 */
#include "parse.h"
#include "url_internal.h"

#define EXTRA_MAX  4096
#define DIGITS_MAX 16

enum state {
    /* Below and at DIGITS_MAX: so many digits of a size were read. */
    EXTENSION_SPACE = DIGITS_MAX + 1, /* White space; ";" must follow. */
    EXTENSION,                        /* After ";": white space or a name. */
    EXTENSION_NAME,
    EXTENSION_NAME_SPACE, /* White space after a name: "=" or ";" must follow. */
    EXTENSION_VALUE,      /* After "=": white space, a token or a quoted string. */
    EXTENSION_TOKEN,
    EXTENSION_QUOTED,
    EXTENSION_ESCAPED, /* After a backslash. */
    EXTENSION_END,     /* After a quoted string. */
    SIZE_LF,
    CONTENT,
    CONTENT_CR,
    CONTENT_LF,
    TRAILER, /* At the begin of a line. */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF,
    ENDED,
    FAILED,
};

/* ---- Trailers ---- */

#define HASH_BEGIN UINT64_C(0xcbf29ce484222325)

/* FNV-1a. That another name has the same value only means that it is refused as well. */
static uint64_t hash_more(uint64_t hash, uint8_t c)
{
    c = c >= 'A' && c <= 'Z' ? c | 0x20 : c;
    return (hash ^ c) * UINT64_C(0x100000001b3);
}

static uint64_t hash_of(const char *name)
{
    uint64_t hash = HASH_BEGIN;

    for (; *name != '\0'; name++) {
        hash = hash_more(hash, (uint8_t)*name);
    }
    return hash;
}

static bool is_forbidden_trailer(uint64_t hash)
{
    static const char *const names[] = {
        "transfer-encoding",
        "content-length",
        "host",
        "trailer",
        "te",
        "connection",
        "upgrade",
        "expect",
        "content-encoding",
        "content-type",
        "content-range",
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "www-authenticate",
        "proxy-authenticate",
        "max-forwards",
        "cache-control",
        "range",
    };

    for (size_t i = 0; i < BOP_COUNT_OF(names); i++) {
        if (hash == hash_of(names[i])) {
            return true;
        }
    }
    return false;
}

/* ---- The machine ---- */

/* The state after one byte; FAILED if it may not stand there. */
static enum state size_next(struct bop_http1_body *body, uint8_t c)
{
    int digit = bop__url_hex(c);

    if (digit >= 0) {
        body->left = body->left << 4 | (unsigned)digit;
        /* The sum of all content is an int64_t somewhere. */
        return body->state == DIGITS_MAX || body->left > INT64_MAX ? FAILED
                                                                   : (enum state)body->state + 1;
    }
    if (body->state == 0) {
        return FAILED;
    }
    switch (c) {
    case '\r':
        return SIZE_LF;
    case ';':
        return EXTENSION;
    case ' ':
    case '\t':
        return EXTENSION_SPACE;
    default:
        return FAILED;
    }
}

/* After a name or a value: what may come next. */
static enum state extension_after(uint8_t c)
{
    return c == ';' ? EXTENSION : c == '\r' ? SIZE_LF : FAILED;
}

static enum state extension_next(enum state state, uint8_t c)
{
    bool space = c == ' ' || c == '\t', token = bop__http_is(c, BOP__HTTP_TOKEN);

    switch (state) {
    case EXTENSION_SPACE:
        return space ? EXTENSION_SPACE : c == ';' ? EXTENSION : FAILED;
    case EXTENSION:
        return space ? EXTENSION : token ? EXTENSION_NAME : FAILED;
    case EXTENSION_NAME:
        return token      ? state
               : c == '=' ? EXTENSION_VALUE
               : space    ? EXTENSION_NAME_SPACE
                          : extension_after(c);
    case EXTENSION_NAME_SPACE:
        return space ? state : c == '=' ? EXTENSION_VALUE : c == ';' ? EXTENSION : FAILED;
    case EXTENSION_VALUE:
        return space ? state : c == '"' ? EXTENSION_QUOTED : token ? EXTENSION_TOKEN : FAILED;
    case EXTENSION_TOKEN:
        return token ? state : space ? EXTENSION_SPACE : extension_after(c);
    case EXTENSION_QUOTED:
        return c == '"'                            ? EXTENSION_END
               : c == '\\'                         ? EXTENSION_ESCAPED
               : !bop__http_is(c, BOP__HTTP_VALUE) ? FAILED
                                                   : state;
    case EXTENSION_ESCAPED:
        return bop__http_is(c, BOP__HTTP_VALUE) ? EXTENSION_QUOTED : FAILED;
    default:
        return space ? EXTENSION_SPACE : extension_after(c);
    }
}

static enum state trailer_next(struct bop_http1_body *body, uint8_t c)
{
    switch ((enum state)body->state) {
    case TRAILER:
        if (c == '\r') {
            return END_LF;
        }
        body->left = hash_more(HASH_BEGIN, c);
        return bop__http_is(c, BOP__HTTP_TOKEN) ? TRAILER_NAME : FAILED;
    case TRAILER_NAME:
        if (c == ':') {
            return is_forbidden_trailer(body->left) ? FAILED : TRAILER_VALUE;
        }
        body->left = hash_more(body->left, c);
        return bop__http_is(c, BOP__HTTP_TOKEN) ? TRAILER_NAME : FAILED;
    case TRAILER_VALUE:
        return c == '\r' ? TRAILER_LF : bop__http_is(c, BOP__HTTP_VALUE) ? TRAILER_VALUE : FAILED;
    case TRAILER_LF:
        return c == '\n' ? TRAILER : FAILED;
    default:
        return c == '\n' ? ENDED : FAILED;
    }
}

static enum state chunk_next(struct bop_http1_body *body, uint8_t c)
{
    enum state state = (enum state)body->state;

    if (body->state <= DIGITS_MAX) {
        return size_next(body, c);
    }
    if (state < SIZE_LF) {
        return extension_next(state, c);
    }
    switch (state) {
    case SIZE_LF:
        return c != '\n' ? FAILED : body->left > 0 ? CONTENT : TRAILER;
    case CONTENT_CR:
        return c == '\r' ? CONTENT_LF : FAILED;
    case CONTENT_LF:
        body->left = 0;
        return c == '\n' ? (enum state)0 : FAILED;
    default:
        return trailer_next(body, c);
    }
}

static bool is_extra(enum state state)
{
    return (state >= EXTENSION_SPACE && state < SIZE_LF) ||
           (state >= TRAILER_NAME && state <= TRAILER_LF);
}

/* What of the content is there, as a piece. */
static int take_content(struct bop_http1_body *body, struct bop_slice *in_out_bytes,
                        struct bop_slice *out_data)
{
    size_t size = (size_t)bop_min_u64(body->left, in_out_bytes->size);

    *out_data = bop_slice(in_out_bytes->data, size);
    *in_out_bytes = bop_slice(in_out_bytes->data + size, in_out_bytes->size - size);
    body->left -= size;
    return 1;
}

static int decode_chunked(struct bop_http1_body *body, struct bop_slice *in_out_bytes,
                          struct bop_slice *out_data)
{
    const uint8_t *at = in_out_bytes->data;
    const uint8_t *end = in_out_bytes->size > 0 ? at + in_out_bytes->size : at;

    while (at < end && body->state != ENDED && body->state != FAILED) {
        if (body->state == CONTENT) {
            *in_out_bytes = bop_slice(at, (size_t)(end - at));
            take_content(body, in_out_bytes, out_data);
            body->state = body->left > 0 ? CONTENT : CONTENT_CR;
            body->extra -= (uint16_t)bop_min_u64(body->extra, out_data->size);
            return 1;
        }
        body->state = (uint8_t)chunk_next(body, *at++);
        if (is_extra((enum state)body->state) && ++body->extra > EXTRA_MAX) {
            body->state = FAILED;
            body->left = 431;
        } else if (body->state == FAILED) {
            body->left = 400;
        }
    }
    *in_out_bytes = bop_slice(at, (size_t)(end - at));
    if (body->state == FAILED) {
        return -(int)body->left;
    }
    return body->state == ENDED ? 0 : BOP_ETRUNCATED;
}

void bop_http1_body_init(struct bop_http1_body *body, const struct bop_http_head *head)
{
    *body = (struct bop_http1_body){.framing = (uint8_t)head->framing};
    if (head->framing == BOP_HTTP_LENGTH) {
        body->left = head->content_length;
    }
}

int bop_http1_body_decode(struct bop_http1_body *body, struct bop_slice *in_out_bytes,
                          struct bop_slice *out_data)
{
    *out_data = bop_slice(NULL, 0);
    switch ((enum bop_http_framing)body->framing) {
    case BOP_HTTP_LENGTH:
        if (body->left == 0) {
            return 0;
        }
        return in_out_bytes->size > 0 ? take_content(body, in_out_bytes, out_data) : BOP_ETRUNCATED;
    case BOP_HTTP_CHUNKED:
        return decode_chunked(body, in_out_bytes, out_data);
    case BOP_HTTP_UNTIL_CLOSE:
        body->left = UINT64_MAX;
        return in_out_bytes->size > 0 ? take_content(body, in_out_bytes, out_data) : BOP_ETRUNCATED;
    default:
        return 0;
    }
}
