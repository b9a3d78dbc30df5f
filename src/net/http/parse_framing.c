/*
 * Where a message ends, and what becomes of its connection: the rules of RFC
 * 9112, 6 and 9, in one place.
 *
 * They are read as strictly as the RFC allows, for two programs that disagree
 * about an end is how requests are smuggled: Content-Length stands alone, once,
 * and is digits; a transfer coding is one "chunked" and nothing else.
 */
#include "parse.h"
#include "parse_list.h"

static bool is_there(const struct bop__http_parse *parse, unsigned known)
{
    return (parse->seen >> known & 1) != 0;
}

/* The next value of a known header from index *in_out_at on. */
static bool next_value(const struct bop__http_parse *parse, enum bop_http_known known,
                       unsigned *in_out_at, struct bop_slice *out_value)
{
    const struct bop_http_head *head = parse->head;
    const struct bop__http_name *name = &bop__http_names[known];

    if (!is_there(parse, known)) {
        return false;
    }
    if (*in_out_at == 0) {
        *in_out_at = (unsigned)head->known[known] + 1;
        *out_value = head->headers[head->known[known]].value;
        return true;
    }
    if ((parse->repeated >> known & 1) == 0) {
        return false;
    }
    while (*in_out_at < head->header_count) {
        const struct bop_http_header *header = &head->headers[(*in_out_at)++];

        if (header->name.size == name->size &&
            bop__http_same_name(header->name.data, name->text, name->size)) {
            *out_value = header->value;
            return true;
        }
    }
    return false;
}

/* name is lower case, of letters and hyphens, 2 or more; the element has no control characters. */
static bool is_word(struct bop_slice element, const char *name, size_t size)
{
    return element.size == size && bop__http_same_name(element.data, name, size);
}

/* ---- Content-Length and Transfer-Encoding ---- */

static int read_length(struct bop__http_parse *parse, uint64_t *out_length)
{
    struct bop_slice text = bop_http_known(parse->head, BOP_HTTP_CONTENT_LENGTH);
    uint64_t length = 0;

    if (parse->repeated >> BOP_HTTP_CONTENT_LENGTH & 1) {
        return bop__http_refuse(parse, 400, "Content-Length stands there more than once");
    }
    for (size_t i = 0; i < text.size; i++) {
        unsigned digit = text.data[i] - (unsigned)'0';

        if (digit > 9) {
            return bop__http_refuse(parse, 400, "Content-Length is not a number");
        }
        if (length > ((uint64_t)INT64_MAX - digit) / 10) {
            return bop__http_refuse(parse, 400, "Content-Length is too large");
        }
        length = length * 10 + digit;
    }
    if (text.size == 0) {
        return bop__http_refuse(parse, 400, "Content-Length is empty");
    }
    *out_length = length;
    return 0;
}

static bool begins_with_token(struct bop_slice element)
{
    return element.size > 0 && bop__http_is(element.data[0], BOP__HTTP_TOKEN);
}

/* 0 if the message is chunked and nothing else. */
static int check_coding(struct bop__http_parse *parse)
{
    struct bop_slice value, coding;
    unsigned at = 0, chunked = 0;
    bool others = false, last_is_chunked = false;

    while (next_value(parse, BOP_HTTP_TRANSFER_ENCODING, &at, &value)) {
        struct bop__http_list list = bop__http_list(value);

        while (bop__http_list_next(&list, &coding)) {
            if (!begins_with_token(coding)) {
                return bop__http_refuse(parse, 400, "Transfer-Encoding has what is no coding");
            }
            last_is_chunked = is_word(coding, "chunked", 7);
            chunked += last_is_chunked;
            others = others || !last_is_chunked;
        }
    }
    if (!last_is_chunked || chunked != 1) {
        return bop__http_refuse(parse, 400, "the last transfer coding is not one \"chunked\"");
    }
    return others ? bop__http_refuse(parse, 501, "the transfer coding is not known") : 0;
}

/* Both ways: no doubt may remain about where the message ends. */
static int check_chunked(struct bop__http_parse *parse)
{
    if (parse->head->minor == 0) {
        return bop__http_refuse(parse, 400, "HTTP/1.0 has no Transfer-Encoding");
    }
    if (is_there(parse, BOP_HTTP_CONTENT_LENGTH)) {
        return bop__http_refuse(parse, 400, "Content-Length stands beside Transfer-Encoding");
    }
    return check_coding(parse);
}

/* ---- Connection ---- */

static void read_connection(struct bop__http_parse *parse)
{
    struct bop_http_head *head = parse->head;
    struct bop_slice value, option;
    bool close = false, keep = false, upgrade = false;
    unsigned at = 0;

    while (next_value(parse, BOP_HTTP_CONNECTION, &at, &value)) {
        struct bop__http_list list = bop__http_list(value);

        while (bop__http_list_next(&list, &option)) {
            close = close || is_word(option, "close", 5);
            keep = keep || is_word(option, "keep-alive", 10);
            upgrade = upgrade || is_word(option, "upgrade", 7);
        }
    }
    head->keep_alive = !close && (keep || head->minor == 1);
    /* In HTTP/1.0 it is to be ignored (RFC 9110, 7.8). */
    head->upgrade = upgrade && head->minor == 1 && is_there(parse, BOP_HTTP_UPGRADE);
}

/* ---- Requests ---- */

/* A plain name has been seen to be one while its line was read; anything else is looked at anew. */
static bool host_is_valid(const struct bop__http_parse *parse, struct bop_slice host)
{
    const uint8_t *stop = parse->host_stop, *end = host.data + host.size;

    return (stop > host.data && bop__http_port_is_valid(stop, end)) ||
           bop__http_authority_is_valid(host, true);
}

static int check_host(struct bop__http_parse *parse)
{
    struct bop_http_head *head = parse->head;
    struct bop_slice host = bop_http_known(head, BOP_HTTP_HOST);

    if (BOP_UNLIKELY(!host.data)) {
        return head->minor == 0 ? 0 : bop__http_refuse(parse, 400, "Host is missing");
    }
    if (BOP_UNLIKELY(parse->repeated >> BOP_HTTP_HOST & 1)) {
        return bop__http_refuse(parse, 400, "Host stands there more than once");
    }
    if (BOP_UNLIKELY(!host_is_valid(parse, host))) {
        return bop__http_refuse(parse, 400, "Host is not valid");
    }
    /* What the target says wins (RFC 9112, 3.2.2). */
    if (!head->authority.data) {
        head->authority = host;
    }
    return 0;
}

static int check_expect(struct bop__http_parse *parse)
{
    struct bop_http_head *head = parse->head;
    struct bop_slice value, element;
    unsigned at = 0;

    while (next_value(parse, BOP_HTTP_EXPECT, &at, &value)) {
        struct bop__http_list list = bop__http_list(value);

        while (bop__http_list_next(&list, &element)) {
            if (is_word(element, "100-continue", 12)) {
                /* To be ignored in HTTP/1.0 (RFC 9110, 10.1.1), and moot without a body. */
                head->expect_continue = head->minor == 1 && head->framing != BOP_HTTP_NO_BODY &&
                                        !(head->framing == BOP_HTTP_LENGTH &&
                                          head->content_length == 0);
            } else if (element.size > 0) {
                return bop__http_refuse(parse, 417, "the expectation is not 100-continue");
            }
        }
    }
    return 0;
}

int bop__http_request_framing(struct bop__http_parse *parse, uint64_t body_bytes_max)
{
    struct bop_http_head *head = parse->head;
    int rc = check_host(parse);

    if (BOP_UNLIKELY(rc != 0)) {
        return rc;
    }
    head->framing = BOP_HTTP_NO_BODY;
    head->content_length = 0;
    head->expect_continue = false;
    head->trailers = is_there(parse, BOP__HTTP_TE) || is_there(parse, BOP__HTTP_TRAILER);
    if (is_there(parse, BOP_HTTP_TRANSFER_ENCODING)) {
        head->framing = BOP_HTTP_CHUNKED;
        rc = check_chunked(parse);
    } else if (is_there(parse, BOP_HTTP_CONTENT_LENGTH)) {
        head->framing = BOP_HTTP_LENGTH;
        rc = read_length(parse, &head->content_length);
    }
    if (BOP_UNLIKELY(rc != 0)) {
        return rc;
    }
    read_connection(parse);
    rc = is_there(parse, BOP_HTTP_EXPECT) ? check_expect(parse) : 0;
    if (rc == 0 && body_bytes_max > 0 && head->content_length > body_bytes_max) {
        rc = bop__http_refuse(parse, 413, "the body is too large");
    }
    return rc;
}

/* ---- Responses ---- */

/* RFC 9112, 6.3: these end with their head, whatever it says. */
static bool has_no_body(unsigned status, enum bop_http_method request_method)
{
    return request_method == BOP_HTTP_HEAD || status < 200 || status == 204 || status == 304 ||
           (request_method == BOP_HTTP_CONNECT && status < 300);
}

int bop__http_response_framing(struct bop__http_parse *parse, enum bop_http_method request_method)
{
    struct bop_http_head *head = parse->head;
    /* In the answer to CONNECT, and where nothing may be, lengths mean nothing. */
    bool tunnel = head->status < 200 || head->status == 204 ||
                  (request_method == BOP_HTTP_CONNECT && head->status < 300);
    int rc = 0;

    head->framing = BOP_HTTP_UNTIL_CLOSE;
    head->content_length = 0;
    head->expect_continue = false;
    head->trailers = is_there(parse, BOP__HTTP_TRAILER);
    if (is_there(parse, BOP_HTTP_TRANSFER_ENCODING) && !tunnel) {
        head->framing = BOP_HTTP_CHUNKED;
        rc = check_chunked(parse);
    } else if (is_there(parse, BOP_HTTP_CONTENT_LENGTH) && !tunnel) {
        head->framing = BOP_HTTP_LENGTH;
        rc = read_length(parse, &head->content_length);
    }
    if (rc != 0) {
        return rc;
    }
    if (has_no_body(head->status, request_method)) {
        head->framing = BOP_HTTP_NO_BODY;
    }
    read_connection(parse);
    head->keep_alive = head->keep_alive && head->framing != BOP_HTTP_UNTIL_CLOSE;
    return 0;
}
