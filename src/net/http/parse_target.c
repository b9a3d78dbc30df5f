/*
 * Targets that are not a plain path, and who a request is for.
 *
 * RFC 9112, 3.2: a target is a path, a whole URL, the "host:port" of CONNECT or
 * the "*" of OPTIONS. The first step has made sure that it is of visible
 * characters; here it is taken apart.
 */
#include "parse.h"
#include "url_internal.h"

/* ---- Authorities ---- */

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

bool bop__http_port_is_valid(const uint8_t *at, const uint8_t *end)
{
    unsigned port = 0;

    if (at == end) {
        return true;
    }
    if (*at != ':' || end - at > 6) {
        return false;
    }
    for (at++; at < end; at++) {
        if (!is_digit(*at)) {
            return false;
        }
        port = port * 10 + (*at - (unsigned)'0');
    }
    return port <= UINT16_MAX;
}

bool bop__http_authority_is_valid(struct bop_slice authority, bool empty_allowed)
{
    const uint8_t *at = authority.data, *end;

    if (authority.size == 0) {
        return empty_allowed;
    }
    end = at + authority.size;
    if (*at == '[') {
        const uint8_t *close = memchr(at, ']', authority.size);

        return close && bop__url_ip_literal_is_valid(at + 1, close) &&
               bop__http_port_is_valid(close + 1, end);
    }
    while (at < end && (bop__http_is(*at, BOP__HTTP_HOST) || bop__url_is_encoded(at, end))) {
        at += *at == '%' ? 3 : 1;
    }
    return at > authority.data && bop__http_port_is_valid(at, end);
}

/* ---- Forms ---- */

/* After the scheme of a whole URL, or NULL where it is not one that an HTTP server is asked for. */
static const uint8_t *skip_scheme(const uint8_t *at, const uint8_t *end)
{
    size_t size = (size_t)(end - at);

    if (size >= 7 && bop__http_same_name(at, "http://", 7)) {
        return at + 7;
    }
    return size >= 8 && bop__http_same_name(at, "https://", 8) ? at + 8 : NULL;
}

static int absolute_form(struct bop__http_parse *parse)
{
    struct bop_http_head *head = parse->head;
    const uint8_t *end = head->target.data + head->target.size;
    const uint8_t *at = skip_scheme(head->target.data, end), *start = at;

    if (!at) {
        return bop__http_refuse(parse, 400, "the target is neither a path nor an http URL");
    }
    while (at < end && *at != '/' && *at != '?') {
        at++;
    }
    head->authority = bop_slice(start, (size_t)(at - start));
    /* Also refuses user information: it is not for requests (RFC 9110, 4.2.4). */
    if (!bop__http_authority_is_valid(head->authority, false)) {
        return bop__http_refuse(parse, 400, "the target's host is not valid");
    }
    head->target_form = BOP_HTTP_ABSOLUTE_FORM;
    if (at < end && *at == '/') {
        const uint8_t *path = at;

        at = memchr(path, '?', (size_t)(end - path));
        head->path = bop_slice(path, (size_t)((at ? at : end) - path));
    } else {
        head->path = bop_slice("/", 1);
    }
    return 0;
}

static int authority_form(struct bop__http_parse *parse)
{
    struct bop_http_head *head = parse->head;
    struct bop_slice target = head->target;
    const uint8_t *last = target.data + target.size - 1;
    bool has_port = is_digit(*last);

    /* Without a port there is nothing to connect to (RFC 9110, 9.3.6); nor is 0 one. */
    while (has_port && last > target.data && *last == '0') {
        last--;
    }
    if (!has_port || *last == ':' || !memchr(target.data, ':', target.size) ||
        !bop__http_authority_is_valid(target, false)) {
        return bop__http_refuse(parse, 400, "the target of CONNECT is not host:port");
    }
    head->target_form = BOP_HTTP_AUTHORITY_FORM;
    head->authority = target;
    head->path = head->query = bop_slice(NULL, 0);
    return 0;
}

int bop__http_target(struct bop__http_parse *parse)
{
    struct bop_http_head *head = parse->head;

    if (head->method == BOP_HTTP_CONNECT) {
        return authority_form(parse);
    }
    if (head->target.size == 1 && head->target.data[0] == '*') {
        if (head->method != BOP_HTTP_OPTIONS) {
            return bop__http_refuse(parse, 400, "the target \"*\" is for OPTIONS only");
        }
        head->target_form = BOP_HTTP_ASTERISK_FORM;
        return 0;
    }
    return absolute_form(parse);
}
