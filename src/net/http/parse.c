/*
 * Heads of requests and responses: limits, first lines that are not the usual,
 * and the choice of an engine.
 */
#include "parse.h"

#include <stdatomic.h>

#include <bop/error.h>

#define HEAD_BYTES_DEFAULT   ((size_t)16 * 1024)
#define TARGET_BYTES_DEFAULT ((size_t)8 * 1024)
#define HEADERS_DEFAULT      100

/* An engine that reads vectors is only given bytes that fill one. */
#define VECTOR_MAX 32

/* ---- Engines ---- */

const struct bop__http_engine *bop__http_engine_at(unsigned index)
{
    const struct bop__http_engine *engines[3] = {&bop__http_engine_scalar};
    unsigned count = 1;

#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        engines[count++] = &bop__http_engine_sse42;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi")) {
        engines[count++] = &bop__http_engine_avx2;
    }
#endif
    return index < count ? engines[index] : NULL;
}

const struct bop__http_engine *bop__http_engine(void)
{
    static _Atomic(const struct bop__http_engine *) chosen;
    /* Relaxed: what it points to is constant, and whoever chooses chooses the same. */
    const struct bop__http_engine *engine = atomic_load_explicit(&chosen, memory_order_relaxed);

    if (BOP_UNLIKELY(!engine)) {
        for (unsigned at = 0; bop__http_engine_at(at); at++) {
            engine = bop__http_engine_at(at);
        }
        atomic_store_explicit(&chosen, engine, memory_order_relaxed);
    }
    return engine;
}

/* ---- First lines ---- */

/* "HTTP/" DIGIT "." DIGIT; 0 with both, BOP_ETRUNCATED or -400. */
static int read_version(struct bop__http_parse *parse, const uint8_t *at, unsigned *out_major,
                        unsigned *out_minor)
{
    static const char form[] = "HTTP/9.9";
    size_t have = (size_t)(parse->end - at);

    for (size_t i = 0; i < sizeof(form) - 1; i++) {
        if (i == have) {
            return BOP_ETRUNCATED;
        }
        if (form[i] == '9' ? at[i] < '0' || at[i] > '9' : at[i] != (uint8_t)form[i]) {
            return bop__http_refuse(parse, 400, "the version is not of the form HTTP/1.1");
        }
    }
    *out_major = at[5] - (unsigned)'0';
    *out_minor = at[7] - (unsigned)'0';
    return 0;
}

int bop__http_request_version(struct bop__http_parse *parse, const uint8_t **in_out_at)
{
    const uint8_t *at = *in_out_at;
    unsigned major, minor;
    int rc = read_version(parse, at, &major, &minor);

    if (rc != 0) {
        return rc;
    }
    at += 8;
    for (const char *expected = "\r\n"; *expected != '\0'; expected++, at++) {
        if (at == parse->end) {
            return BOP_ETRUNCATED;
        }
        if (*at != (uint8_t)*expected) {
            return bop__http_refuse(parse, 400, "the request line does not end in CRLF");
        }
    }
    if (major != 1) {
        return bop__http_refuse(parse, 505, "the version is not HTTP/1");
    }
    /* Higher minor versions are to be read as the highest we know (RFC 9110, 2.5). */
    parse->head->minor = minor == 0 ? 0 : 1;
    *in_out_at = at;
    return 0;
}

int bop__http_status_begin(struct bop__http_parse *parse, const uint8_t **in_out_at)
{
    const uint8_t *at = *in_out_at;
    unsigned major, minor, status = 0;
    int rc = read_version(parse, at, &major, &minor);

    if (rc != 0) {
        return rc;
    }
    if (major != 1) {
        return bop__http_refuse(parse, 505, "the version is not HTTP/1");
    }
    at += 8;
    for (int i = 0; i < 4; i++, at++) {
        if (at == parse->end) {
            return BOP_ETRUNCATED;
        }
        if (i == 0 ? *at != ' ' : *at < '0' || *at > '9') {
            return bop__http_refuse(parse, 400, "the status is not of three digits");
        }
        status = i == 0 ? 0 : status * 10 + (*at - (unsigned)'0');
    }
    if (status < 100) {
        return bop__http_refuse(parse, 400, "the status is below 100");
    }
    if (at == parse->end) {
        return BOP_ETRUNCATED;
    }
    /* Many servers leave the space out where there is no reason. */
    if (*at != ' ' && *at != '\r') {
        return bop__http_refuse(parse, 400, "the status is not of three digits");
    }
    parse->head->minor = minor == 0 ? 0 : 1;
    parse->head->status = status;
    *in_out_at = *at == ' ' ? at + 1 : at;
    return 0;
}

enum bop_http_method bop__http_method_find(const uint8_t *text, size_t size)
{
    switch (size) {
    case 3:
        return memcmp(text, "GET", 3) == 0   ? BOP_HTTP_GET
               : memcmp(text, "PUT", 3) == 0 ? BOP_HTTP_PUT
                                             : BOP_HTTP_OTHER;
    case 4:
        return memcmp(text, "POST", 4) == 0   ? BOP_HTTP_POST
               : memcmp(text, "HEAD", 4) == 0 ? BOP_HTTP_HEAD
                                              : BOP_HTTP_OTHER;
    case 5:
        return memcmp(text, "PATCH", 5) == 0   ? BOP_HTTP_PATCH
               : memcmp(text, "TRACE", 5) == 0 ? BOP_HTTP_TRACE
                                               : BOP_HTTP_OTHER;
    case 6:
        return memcmp(text, "DELETE", 6) == 0 ? BOP_HTTP_DELETE : BOP_HTTP_OTHER;
    case 7:
        return memcmp(text, "OPTIONS", 7) == 0   ? BOP_HTTP_OPTIONS
               : memcmp(text, "CONNECT", 7) == 0 ? BOP_HTTP_CONNECT
                                                 : BOP_HTTP_OTHER;
    default:
        return BOP_HTTP_OTHER;
    }
}

/* ---- Limits ---- */

static size_t head_bytes_max(const struct bop_http1_limits *limits)
{
    return limits && limits->head_bytes_max > 0 ? limits->head_bytes_max : HEAD_BYTES_DEFAULT;
}

static size_t target_bytes_max(const struct bop_http1_limits *limits)
{
    return limits && limits->target_bytes_max > 0 ? limits->target_bytes_max : TARGET_BYTES_DEFAULT;
}

static unsigned headers_max(const struct bop_http1_limits *limits)
{
    unsigned count = limits && limits->headers_max > 0 ? limits->headers_max : HEADERS_DEFAULT;

    return count < BOP_HTTP_HEADERS_MAX ? count : BOP_HTTP_HEADERS_MAX;
}

static void begin(struct bop__http_parse *parse, struct bop_slice bytes,
                  const struct bop_http1_limits *limits, struct bop_http_head *head)
{
    parse->at = bytes.data;
    /* Adding even 0 to NULL is undefined. */
    parse->end = bytes.size > 0 ? bytes.data + bop_min_u64(bytes.size, head_bytes_max(limits))
                                : bytes.data;
    parse->head = head;
    parse->target_bytes_max = target_bytes_max(limits);
    parse->headers_max = headers_max(limits);
    parse->in_headers = false;
    parse->seen = 0;
    parse->repeated = 0;
    parse->why = NULL;
    memset(head->known, 0xff, sizeof(head->known)); /* All -1. */
}

/* More bytes than a head may have, and its end is not among them? */
static int truncated(struct bop__http_parse *parse, struct bop_slice bytes,
                     const struct bop_http1_limits *limits)
{
    if (bytes.size < head_bytes_max(limits)) {
        return BOP_ETRUNCATED;
    }
    return parse->in_headers ? bop__http_refuse(parse, 431, "the head is too long")
                             : bop__http_refuse(parse, 414, "the first line is too long");
}

/* ---- Requests ---- */

/* Clients of old send an empty line too many after a body. */
static int skip_empty_lines(struct bop__http_parse *parse)
{
    for (unsigned count = 0; parse->at < parse->end && *parse->at == '\r'; count++) {
        if (count == BOP__HTTP_EMPTY_LINES_MAX) {
            return bop__http_refuse(parse, 400, "too many empty lines precede the request");
        }
        if (parse->end - parse->at < 2) {
            return BOP_ETRUNCATED;
        }
        if (parse->at[1] != '\n') {
            return bop__http_refuse(parse, 400, "CR without LF");
        }
        parse->at += 2;
    }
    return parse->at == parse->end ? BOP_ETRUNCATED : 0;
}

static inline int parse_request(const struct bop__http_engine *engine, struct bop_slice bytes,
                                const struct bop_http1_limits *limits,
                                struct bop_http_head *out_head, const char **out_why)
{
    struct bop__http_parse parse;
    int rc = 0;

    begin(&parse, bytes, limits, out_head);
    if (BOP_UNLIKELY(parse.at == parse.end || *parse.at == '\r')) {
        rc = skip_empty_lines(&parse);
    }
    if (BOP_LIKELY(rc == 0)) {
        if (BOP_UNLIKELY(parse.end - bytes.data < VECTOR_MAX)) {
            engine = &bop__http_engine_scalar;
        }
        rc = engine->request(&parse);
    }
    if (rc == BOP_ETRUNCATED) {
        rc = truncated(&parse, bytes, limits);
    }
    if (BOP_LIKELY(rc == 0)) {
        out_head->status = 0;
        out_head->reason = bop_slice(NULL, 0);
        out_head->size = (size_t)(parse.at - bytes.data);
        rc = bop__http_request_framing(&parse, limits ? limits->body_bytes_max : 0);
    }
    if (BOP_UNLIKELY(rc != 0 && rc != BOP_ETRUNCATED && out_why)) {
        *out_why = parse.why;
    }
    return rc;
}

int bop__http_parse_request(const struct bop__http_engine *engine, struct bop_slice bytes,
                            const struct bop_http1_limits *limits, struct bop_http_head *out_head,
                            const char **out_why)
{
    return parse_request(engine, bytes, limits, out_head, out_why);
}

int bop_http1_parse_request(struct bop_slice bytes, const struct bop_http1_limits *limits,
                            struct bop_http_head *out_head, const char **out_why)
{
    return parse_request(bop__http_engine(), bytes, limits, out_head, out_why);
}

/* ---- Responses ---- */

int bop__http_parse_response(const struct bop__http_engine *engine, struct bop_slice bytes,
                             const struct bop_http1_limits *limits,
                             enum bop_http_method request_method, struct bop_http_head *out_head,
                             const char **out_why)
{
    struct bop__http_parse parse;
    int rc;

    begin(&parse, bytes, limits, out_head);
    if (parse.end - parse.at < VECTOR_MAX) {
        engine = &bop__http_engine_scalar;
    }
    rc = engine->response(&parse);
    if (rc == BOP_ETRUNCATED) {
        rc = truncated(&parse, bytes, limits);
    }
    if (rc == 0) {
        out_head->method = request_method;
        out_head->target_form = BOP_HTTP_ORIGIN_FORM;
        out_head->method_text = out_head->target = bop_slice(NULL, 0);
        out_head->authority = out_head->path = out_head->query = bop_slice(NULL, 0);
        out_head->size = (size_t)(parse.at - bytes.data);
        rc = bop__http_response_framing(&parse, request_method);
    }
    if (rc == 0 || rc == BOP_ETRUNCATED) {
        return rc;
    }
    if (out_why) {
        *out_why = parse.why;
    }
    return rc == -414 || rc == -431 ? BOP_ETOOBIG : BOP_EMALFORMED;
}

int bop_http1_parse_response(struct bop_slice bytes, const struct bop_http1_limits *limits,
                             enum bop_http_method request_method, struct bop_http_head *out_head,
                             const char **out_why)
{
    return bop__http_parse_response(bop__http_engine(), bytes, limits, request_method, out_head,
                                    out_why);
}

/* ---- Heads that come in pieces ---- */

bool bop_http1_may_go_on(struct bop_slice bytes, size_t seen, const struct bop_http1_limits *limits)
{
    /* Where a first line that is too long shows at the latest. */
    size_t line_max = target_bytes_max(limits) + BOP__HTTP_METHOD_MAX +
                      2 * (size_t)BOP__HTTP_EMPTY_LINES_MAX + 2;

    if (seen == 0 || bytes.size >= head_bytes_max(limits) ||
        (seen < line_max && bytes.size >= line_max)) {
        return true;
    }
    return bytes.size > seen && memchr(bytes.data + seen, '\n', bytes.size - seen) != NULL;
}
