/*
 * The first step of a parse, in one pass. A template: the file that includes it
 * defines
 *
 *      CORE                      attributes of every function here
 *      scan(at, end, class)      the first byte not of the class, or end
 *      marks_begin(at, end)      a struct marks, with which
 *      marks_find(marks, at, class)   does what scan() does for TOKEN and VALUE, for
 *                                places that only go up
 *
 * and gets request_head() and response_head(). All results depend on the bytes
 * alone, not on how scan() reads them, so every engine gives the same.
 *
 * A head that is cut gives BOP_ETRUNCATED or, if something is already wrong, what
 * the whole would give. So each check looks at the bytes in their order.
 */
#include "parse.h"

/* ---- Header lines ---- */

/* A line did not begin with a name and a colon. stop: the first byte that is no tchar. */
static int refuse_line(struct bop__http_parse *parse, const uint8_t *line, const uint8_t *stop)
{
    if (*stop == ':') {
        return bop__http_refuse(parse, 400, "a header has no name");
    }
    if (*stop == '\n') {
        return bop__http_refuse(parse, 400, "a line ends in LF without CR");
    }
    if (*stop == ' ' || *stop == '\t') {
        return bop__http_refuse(parse, 400,
                                stop == line ? "a header line begins with white space"
                                             : "white space stands before a header's colon");
    }
    return bop__http_refuse(parse, 400, "a header's name has a character no name may have");
}

/* A value ended at a byte that is neither part of it nor CRLF. */
static int refuse_value(struct bop__http_parse *parse, const uint8_t *stop)
{
    if (*stop == '\r') {
        return bop__http_refuse(parse, 400, "CR without LF");
    }
    if (*stop == '\n') {
        return bop__http_refuse(parse, 400, "a line ends in LF without CR");
    }
    return bop__http_refuse(parse, 400, "a header's value has a control character");
}

/* The empty line, or a CR that is none. */
CORE static int end_of_head(struct bop__http_parse *parse, const uint8_t *at)
{
    if (parse->end - at < 2) {
        return BOP_ETRUNCATED;
    }
    if (at[1] != '\n') {
        return bop__http_refuse(parse, 400, "CR without LF");
    }
    parse->at = at + 2;
    return 0;
}

CORE static inline const uint8_t *trim_end(const uint8_t *start, const uint8_t *end)
{
    while (end > start && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    return end;
}

CORE static int header_lines(struct bop__http_parse *parse, const uint8_t *at)
{
    const uint8_t *const end = parse->end;
    struct bop_http_head *const head = parse->head;
    struct marks marks = marks_begin(at, end);
    unsigned count = 0;

    parse->in_headers = true;
    for (;; count++) {
        const uint8_t *line = at, *value;
        unsigned known;

        at = marks_find(&marks, line, BOP__HTTP_TOKEN);
        if (BOP_UNLIKELY(line == end)) {
            return BOP_ETRUNCATED;
        }
        if (*line == '\r') {
            head->header_count = count;
            return end_of_head(parse, line);
        }
        if (BOP_UNLIKELY(count == parse->headers_max)) {
            return bop__http_refuse(parse, 431, "there are too many headers");
        }
        if (BOP_UNLIKELY(at == end)) {
            return BOP_ETRUNCATED;
        }
        if (BOP_UNLIKELY(*at != ':' || at == line)) {
            return refuse_line(parse, line, at);
        }
        known = bop__http_name_find(line, (size_t)(at - line));
        head->headers[count].name = bop_slice(line, (size_t)(at - line));
        if (known != BOP__HTTP_NAME_COUNT) {
            parse->repeated |= parse->seen & UINT32_C(1) << known;
            if (known < BOP_HTTP_KNOWN_COUNT && (parse->seen >> known & 1) == 0) {
                head->known[known] = (int16_t)count;
            }
            parse->seen |= UINT32_C(1) << known;
        }
        for (at++; at < end && (*at == ' ' || *at == '\t'); at++) {
        }
        value = at;
        if (known == BOP_HTTP_HOST) {
            parse->host_stop = scan(value, end, BOP__HTTP_HOST);
        }
        at = marks_find(&marks, value, BOP__HTTP_VALUE);
        if (BOP_UNLIKELY(end - at < 2)) {
            return at < end && *at != '\r' ? refuse_value(parse, at) : BOP_ETRUNCATED;
        }
        if (BOP_UNLIKELY(at[0] != '\r' || at[1] != '\n')) {
            return refuse_value(parse, at);
        }
        head->headers[count].value = bop_slice(value, (size_t)(trim_end(value, at) - value));
        at += 2;
    }
}

/* ---- First lines ---- */

/* After a target and its space: "HTTP/1.1" CRLF, or something else. */
CORE static inline int version_and_end(struct bop__http_parse *parse, const uint8_t **in_out_at)
{
    const uint8_t *at = *in_out_at;

    if (BOP_LIKELY(parse->end - at >= 10 && memcmp(at, "HTTP/1.1\r\n", 10) == 0)) {
        parse->head->minor = 1;
        *in_out_at = at + 10;
        return 0;
    }
    return bop__http_request_version(parse, in_out_at);
}

CORE static inline int target_of_request(struct bop__http_parse *parse, const uint8_t **in_out_at)
{
    struct bop_http_head *head = parse->head;
    const uint8_t *start = *in_out_at, *at, *question;

    at = scan(start, parse->end, BOP__HTTP_PATH);
    question = at;
    if (at < parse->end && *at == '?') {
        at = scan(at + 1, parse->end, BOP__HTTP_QUERY);
    }
    if (BOP_UNLIKELY((size_t)(at - start) > parse->target_bytes_max)) {
        return bop__http_refuse(parse, 414, "the target is too long");
    }
    if (BOP_UNLIKELY(at == parse->end)) {
        return BOP_ETRUNCATED;
    }
    if (BOP_UNLIKELY(*at != ' ' || at == start)) {
        return bop__http_refuse(parse, 400,
                                *at == ' ' ? "the target is empty"
                                           : "the target has a character that it must encode");
    }
    head->target = bop_slice(start, (size_t)(at - start));
    head->path = bop_slice(start, (size_t)(question - start));
    head->query = question < at ? bop_slice(question + 1, (size_t)(at - question - 1))
                                : bop_slice(NULL, 0);
    *in_out_at = at + 1;
    return 0;
}

CORE static inline int method_of_request(struct bop__http_parse *parse, const uint8_t **in_out_at)
{
    struct bop_http_head *head = parse->head;
    const uint8_t *start = *in_out_at, *at;
    size_t size;

    /* What nearly all requests are. */
    if (BOP_LIKELY(parse->end - start >= 4 && memcmp(start, "GET ", 4) == 0)) {
        head->method_text = bop_slice(start, 3);
        head->method = BOP_HTTP_GET;
        *in_out_at = start + 4;
        return 0;
    }
    at = scan(start, parse->end, BOP__HTTP_TOKEN);
    size = (size_t)(at - start);
    if (BOP_UNLIKELY(size > BOP__HTTP_METHOD_MAX)) {
        return bop__http_refuse(parse, 501, "the method is too long");
    }
    if (BOP_UNLIKELY(at == parse->end)) {
        return BOP_ETRUNCATED;
    }
    if (BOP_UNLIKELY(*at != ' ' || size == 0)) {
        return bop__http_refuse(parse, 400, "the request line does not begin with a method");
    }
    head->method_text = bop_slice(start, size);
    head->method = bop__http_method_find(start, size);
    *in_out_at = at + 1;
    return 0;
}

CORE static int request_head(struct bop__http_parse *parse)
{
    struct bop_http_head *head = parse->head;
    const uint8_t *at = parse->at;
    int rc = method_of_request(parse, &at);

    if (BOP_UNLIKELY(rc != 0)) {
        return rc;
    }
    rc = target_of_request(parse, &at);
    if (BOP_UNLIKELY(rc != 0)) {
        return rc;
    }
    rc = version_and_end(parse, &at);
    if (BOP_UNLIKELY(rc != 0)) {
        return rc;
    }
    head->target_form = BOP_HTTP_ORIGIN_FORM;
    head->authority = bop_slice(NULL, 0);
    if (BOP_UNLIKELY(head->target.data[0] != '/' || head->method == BOP_HTTP_CONNECT)) {
        rc = bop__http_target(parse);
        if (rc != 0) {
            return rc;
        }
    }
    return header_lines(parse, at);
}

CORE static int response_head(struct bop__http_parse *parse)
{
    struct bop_http_head *head = parse->head;
    const uint8_t *at = parse->at, *reason;
    int rc = bop__http_status_begin(parse, &at);

    if (rc != 0) {
        return rc;
    }
    reason = at;
    at = scan(reason, parse->end, BOP__HTTP_VALUE);
    if (parse->end - at < 2) {
        return at < parse->end && *at != '\r' ? refuse_value(parse, at) : BOP_ETRUNCATED;
    }
    if (at[0] != '\r' || at[1] != '\n') {
        return refuse_value(parse, at);
    }
    head->reason = bop_slice(reason, (size_t)(at - reason));
    return header_lines(parse, at + 2);
}
