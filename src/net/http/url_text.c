/*
 * Percent-encoding, queries and paths of URLs.
 */
#include <bop/url.h>

#include "parse.h"
#include "url_internal.h"

/* ---- Decoding ---- */

static int decode(struct bop_slice text, bool is_form, struct bop_buf *buf)
{
    const uint8_t *at = text.data, *end = text.size > 0 ? at + text.size : at;
    int rc = bop_buf_reserve(buf, text.size);
    uint8_t *out;

    if (rc != 0 || text.size == 0) {
        return rc;
    }
    for (out = buf->data + buf->size; at < end; out++) {
        if (*at != '%') {
            *out = is_form && *at == '+' ? ' ' : *at;
            at++;
        } else if (bop__url_is_encoded(at, end)) {
            *out = bop__url_decoded(at);
            at += 3;
        } else {
            return BOP_EMALFORMED;
        }
    }
    buf->size = (size_t)(out - buf->data);
    return 0;
}

int bop_url_decode(struct bop_slice text, struct bop_buf *buf)
{
    return decode(text, false, buf);
}

int bop_url_decode_form(struct bop_slice text, struct bop_buf *buf)
{
    return decode(text, true, buf);
}

/* ---- Encoding ---- */

static bool is_unreserved(uint8_t c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static int encode(struct bop_slice text, bool is_path, struct bop_buf *buf)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t grow = 0;
    uint8_t *out;
    int rc;

    for (size_t i = 0; i < text.size; i++) {
        grow += is_unreserved(text.data[i]) || (is_path && text.data[i] == '/') ? 1 : 3;
    }
    rc = bop_buf_reserve(buf, grow);
    if (rc != 0 || grow == 0) {
        return rc;
    }
    out = buf->data + buf->size;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];

        if (is_unreserved(c) || (is_path && c == '/')) {
            *out++ = c;
        } else {
            *out++ = '%';
            *out++ = (uint8_t)digits[c >> 4];
            *out++ = (uint8_t)digits[c & 15];
        }
    }
    buf->size += grow;
    return 0;
}

int bop_url_encode(struct bop_slice text, struct bop_buf *buf)
{
    return encode(text, false, buf);
}

int bop_url_encode_path(struct bop_slice path, struct bop_buf *buf)
{
    return encode(path, true, buf);
}

/* ---- Queries ---- */

bool bop_url_query_next(struct bop_slice *in_out_rest, struct bop_slice *out_name,
                        struct bop_slice *out_value)
{
    struct bop_slice rest = *in_out_rest;

    while (rest.size > 0) {
        const uint8_t *amp = memchr(rest.data, '&', rest.size);
        size_t size = amp ? (size_t)(amp - rest.data) : rest.size;
        struct bop_slice piece = bop_slice(rest.data, size);

        rest = amp ? bop_slice(amp + 1, rest.size - size - 1) : bop_slice(NULL, 0);
        if (size > 0) {
            const uint8_t *equals = memchr(piece.data, '=', size);
            size_t name = equals ? (size_t)(equals - piece.data) : size;

            *in_out_rest = rest;
            *out_name = bop_slice(piece.data, name);
            *out_value = equals ? bop_slice(equals + 1, size - name - 1) : bop_slice(NULL, 0);
            return true;
        }
    }
    *in_out_rest = bop_slice(NULL, 0);
    return false;
}

/* Whether text, decoded as forms are, is `name`. What cannot be decoded is nothing. */
static bool decodes_to(struct bop_slice text, const char *name)
{
    const uint8_t *at = text.data, *end = text.size > 0 ? at + text.size : at;

    for (; at < end; name++) {
        uint8_t c = *at == '+' ? ' ' : *at;

        if (*at == '%') {
            if (!bop__url_is_encoded(at, end)) {
                return false;
            }
            c = bop__url_decoded(at);
            at += 2;
        }
        at++;
        if (c == '\0' || c != (uint8_t)*name) {
            return false;
        }
    }
    return *name == '\0';
}

bool bop_url_query_find(struct bop_slice query, const char *name, struct bop_slice *out_value)
{
    struct bop_slice found, value;

    while (bop_url_query_next(&query, &found, &value)) {
        if (decodes_to(found, name)) {
            *out_value = value;
            return true;
        }
    }
    return false;
}

/* ---- Paths ---- */

/* The next segment; *in_out_at moves behind its "/", or to NULL at the end. */
static struct bop_slice next_segment(const uint8_t **in_out_at, const uint8_t *end)
{
    const uint8_t *start = *in_out_at;
    const uint8_t *slash = start < end ? memchr(start, '/', (size_t)(end - start)) : NULL;

    *in_out_at = slash ? slash + 1 : NULL;
    return bop_slice(start, (size_t)((slash ? slash : end) - start));
}

static bool is_dots(struct bop_slice segment, size_t count)
{
    return segment.size == count && memcmp(segment.data, "..", count) == 0;
}

/* Take "name/" off the end of what was appended since `from`. */
static void pop_segment(struct bop_buf *buf, size_t from)
{
    if (buf->size > from) {
        buf->size--;
    }
    while (buf->size > from && buf->data[buf->size - 1] != '/') {
        buf->size--;
    }
}

/* Segments are put down with the "/" after them, so that taking one back is easy. */
int bop_url_normalize(struct bop_slice path, struct bop_buf *buf)
{
    const uint8_t *at = path.data, *end = path.size > 0 ? at + path.size : at;
    size_t from;
    int rc = bop_buf_reserve(buf, path.size + 1); /* And the "/" that comes off again. */

    if (rc != 0 || path.size == 0) {
        return rc;
    }
    if (*at == '/') {
        buf->data[buf->size++] = '/';
        at++;
    }
    from = buf->size;
    while (at) {
        struct bop_slice segment = next_segment(&at, end);

        if (is_dots(segment, 1)) {
            continue;
        }
        if (is_dots(segment, 2)) {
            pop_segment(buf, from);
            continue;
        }
        if (segment.size > 0) {
            memcpy(buf->data + buf->size, segment.data, segment.size);
            buf->size += segment.size;
        }
        if (at) {
            buf->data[buf->size++] = '/';
        }
    }
    return 0;
}

/* Decode one segment to the end of buf. */
static int append_name(struct bop_slice segment, struct bop_buf *buf)
{
    size_t from = buf->size;
    int rc = decode(segment, false, buf);

    for (size_t i = from; rc == 0 && i < buf->size; i++) {
        uint8_t c = buf->data[i];

        if (c == '/' || c == '\\' || c < 0x20 || c == 0x7f) {
            rc = BOP_EMALFORMED;
        }
    }
    return rc;
}

static int append_file_name(struct bop_slice path, size_t from, struct bop_buf *buf)
{
    const uint8_t *at = path.data, *end = path.data + path.size;
    bool is_directory = true;

    at += *at == '/';
    while (at) {
        size_t start = buf->size;
        int rc = append_name(next_segment(&at, end), buf);
        struct bop_slice name;

        if (rc != 0) {
            return rc;
        }
        name = bop_slice(buf->data + start, buf->size - start);
        is_directory = name.size == 0 || is_dots(name, 1) || is_dots(name, 2);
        if (!is_directory) {
            buf->data[buf->size++] = '/'; /* There is room, see the caller. */
            continue;
        }
        buf->size = start;
        if (is_dots(name, 2)) {
            if (start == from) {
                return BOP_EDENIED;
            }
            pop_segment(buf, from);
        }
    }
    buf->size -= !is_directory;
    return 0;
}

int bop_url_file_name(struct bop_slice path, struct bop_buf *buf)
{
    size_t from = buf->size;
    int rc;

    if (path.size == 0) {
        return 0;
    }
    /* So much that no later step needs more, and data stays where it is. */
    rc = bop_buf_reserve(buf, path.size + 1);
    if (rc == 0) {
        rc = append_file_name(path, from, buf);
    }
    if (rc != 0) {
        buf->size = from;
    }
    return rc;
}
