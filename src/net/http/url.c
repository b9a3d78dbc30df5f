/*
 * Taking URLs apart and putting references onto them: RFC 3986, 3 and 5.
 */
#include <bop/url.h>

#include "parse.h"
#include "url_internal.h"

/* ---- Characters ---- */

/* Unreserved, sub-delims, those in `more`, and "%" before two hexadecimal digits. */
static bool is_text(struct bop_slice text, const char *more)
{
    const uint8_t *at = text.data, *end = text.size > 0 ? at + text.size : at;

    while (at < end) {
        if (*at == '%'
                ? !bop__url_is_encoded(at, end)
                : !bop__http_is(*at, BOP__HTTP_HOST) && (*at == '\0' || !strchr(more, *at))) {
            return false;
        }
        at += *at == '%' ? 3 : 1;
    }
    return true;
}

static bool is_letter(uint8_t c)
{
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

static bool is_scheme(struct bop_slice text)
{
    if (text.size == 0 || !is_letter(text.data[0])) {
        return false;
    }
    for (size_t i = 1; i < text.size; i++) {
        uint8_t c = text.data[i];

        if (!is_letter(c) && !(c >= '0' && c <= '9') && c != '+' && c != '-' && c != '.') {
            return false;
        }
    }
    return true;
}

/* What stands before the first of `stops`; *in_out_rest begins with that, or is empty. */
static struct bop_slice take_until(struct bop_slice *in_out_rest, const char *stops)
{
    struct bop_slice text = *in_out_rest;
    size_t size = 0;

    while (size < text.size && (text.data[size] == '\0' || !strchr(stops, text.data[size]))) {
        size++;
    }
    *in_out_rest = bop_slice(text.data + size, text.size - size);
    return bop_slice(text.data, size);
}

static bool begins_with(struct bop_slice text, char c)
{
    return text.size > 0 && text.data[0] == (uint8_t)c;
}

static struct bop_slice without_first(struct bop_slice text, size_t count)
{
    return bop_slice(text.data + count, text.size - count);
}

/* ---- Authorities ---- */

static bool read_port(struct bop_slice text, bool *out_has_port, uint16_t *out_port)
{
    unsigned port = 0;

    *out_has_port = text.size > 1;
    *out_port = 0;
    if (text.size == 0) {
        return true;
    }
    if (text.data[0] != ':' || text.size > 6) {
        return false;
    }
    for (size_t i = 1; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        port = port * 10 + (text.data[i] - (unsigned)'0');
    }
    *out_port = (uint16_t)port;
    return port <= UINT16_MAX;
}

/* host and port into *url. */
static bool read_host_port(struct bop_slice text, struct bop_url *url)
{
    if (begins_with(text, '[')) {
        const uint8_t *close = memchr(text.data, ']', text.size);

        if (!close || !bop__url_ip_literal_is_valid(text.data + 1, close)) {
            return false;
        }
        url->is_ip_literal = true;
        url->host = bop_slice(text.data + 1, (size_t)(close - text.data - 1));
        text = without_first(text, url->host.size + 2);
    } else {
        url->host = take_until(&text, ":");
        if (!is_text(url->host, "")) {
            return false;
        }
    }
    return read_port(text, &url->has_port, &url->port);
}

static bool read_authority(struct bop_url *url)
{
    struct bop_slice text = url->authority;
    const uint8_t *at = text.size > 0 ? memchr(text.data, '@', text.size) : NULL;

    if (at) {
        url->user = bop_slice(text.data, (size_t)(at - text.data));
        text = without_first(text, url->user.size + 1);
    }
    return is_text(url->user, ":") && read_host_port(text, url);
}

int bop_url_split_host_port(struct bop_slice authority, struct bop_slice *out_host,
                            uint16_t *out_port)
{
    struct bop_url url = {.port = 0};

    if (authority.size == 0 || !read_host_port(authority, &url) || url.host.size == 0) {
        return BOP_EMALFORMED;
    }
    *out_host = url.host;
    *out_port = url.port;
    return 0;
}

uint16_t bop_url_default_port(struct bop_slice scheme)
{
    if (scheme.size < 2 || scheme.size > 5 || !is_scheme(scheme)) {
        return 0;
    }
    if ((scheme.size == 4 && bop__http_same_name(scheme.data, "http", 4)) ||
        (scheme.size == 2 && bop__http_same_name(scheme.data, "ws", 2))) {
        return 80;
    }
    if ((scheme.size == 5 && bop__http_same_name(scheme.data, "https", 5)) ||
        (scheme.size == 3 && bop__http_same_name(scheme.data, "wss", 3))) {
        return 443;
    }
    return 0;
}

/* ---- URLs ---- */

/* Cut into its parts by the delimiters alone: RFC 3986, appendix B. */
static void split(struct bop_slice text, struct bop_url *url)
{
    struct bop_slice rest = text, first;

    *url = (struct bop_url){.port = 0};
    first = take_until(&rest, ":/?#");
    if (begins_with(rest, ':')) {
        url->scheme = first;
        text = rest = without_first(rest, 1);
    }
    rest = text;
    if (rest.size >= 2 && rest.data[0] == '/' && rest.data[1] == '/') {
        rest = without_first(rest, 2);
        url->authority = take_until(&rest, "/?#");
    }
    url->path = take_until(&rest, "?#");
    if (begins_with(rest, '?')) {
        rest = without_first(rest, 1);
        url->query = take_until(&rest, "#");
    }
    if (begins_with(rest, '#')) {
        url->fragment = without_first(rest, 1);
    }
}

int bop_url_parse(struct bop_slice text, struct bop_url *out_url)
{
    struct bop_url url;

    /* So that parts that are empty have data. */
    split(text.data ? text : bop_slice("", 0), &url);
    if ((url.scheme.data && !is_scheme(url.scheme)) || !is_text(url.path, ":@/") ||
        !is_text(url.query, ":@/?") || !is_text(url.fragment, ":@/?") ||
        (url.authority.data && !read_authority(&url))) {
        return BOP_EMALFORMED;
    }
    if (!url.has_port && url.scheme.data) {
        url.port = bop_url_default_port(url.scheme);
    }
    *out_url = url;
    return 0;
}

/* ---- References ---- */

/* The path of the base up to its last "/", then the reference's: RFC 3986, 5.2.3. */
static int merge_paths(const struct bop_url *base, struct bop_slice path, struct bop_buf *merged)
{
    struct bop_slice front = base->path;
    int rc;

    while (front.size > 0 && front.data[front.size - 1] != '/') {
        front.size--;
    }
    if (base->authority.data && base->path.size == 0) {
        front = bop_slice("/", 1);
    }
    rc = bop_buf_append(merged, front.data, front.size);
    return rc != 0 ? rc : bop_buf_append(merged, path.data, path.size);
}

static void append_part(struct bop_writer *writer, const char *before, struct bop_slice part,
                        const char *after)
{
    if (part.data) {
        bop_write_raw(writer, bop_slice_cstr(before));
        bop_write_raw(writer, part);
        bop_write_raw(writer, bop_slice_cstr(after));
    }
}

static int append_path(const struct bop_url *base, const struct bop_url *to, struct bop_buf *buf)
{
    struct bop_buf merged;
    int rc;

    if (begins_with(to->path, '/')) {
        return bop_url_normalize(to->path, buf);
    }
    bop_buf_init(&merged, buf->allocator, buf->size_max);
    rc = merge_paths(base, to->path, &merged);
    if (rc == 0) {
        rc = bop_url_normalize(bop_buf_slice(&merged), buf);
    }
    bop_buf_deinit(&merged);
    return rc;
}

/* RFC 3986, 5.2.2 and 5.3. */
static int append_resolved(const struct bop_url *base, const struct bop_url *to,
                           struct bop_buf *buf)
{
    struct bop_writer writer = bop_writer(buf);
    bool own = to->scheme.data || to->authority.data;
    bool same_path = !own && to->path.size == 0;

    append_part(&writer, "", to->scheme.data ? to->scheme : base->scheme, ":");
    append_part(&writer, "//", own ? to->authority : base->authority, "");
    if (writer.code == 0) {
        writer.code = same_path ? bop_buf_append(buf, base->path.data, base->path.size)
                      : own     ? bop_url_normalize(to->path, buf)
                                : append_path(base, to, buf);
    }
    append_part(&writer, "?", same_path && !to->query.data ? base->query : to->query, "");
    append_part(&writer, "#", to->fragment, "");
    return writer.code;
}

int bop_url_resolve(struct bop_slice base, struct bop_slice reference, struct bop_buf *buf)
{
    struct bop_url from, to;
    size_t size = buf->size;
    int rc;

    if (bop_url_parse(base, &from) != 0 || !from.scheme.data ||
        bop_url_parse(reference, &to) != 0) {
        return BOP_EMALFORMED;
    }
    rc = append_resolved(&from, &to, buf);
    if (rc != 0) {
        buf->size = size;
    }
    return rc;
}
