/*
 * HTTP/1.1 and 1.0 messages as bytes: a parser of heads, a decoder of bodies.
 * Pure functions over memory, no sockets, no allocation.
 *
 * Strict as RFC 9112 allows a server to be, since what two programs on a path
 * read differently is how requests are smuggled: only CRLF ends a line; no
 * space before a colon, no folding; a Content-Length that is repeated, or stands
 * beside Transfer-Encoding, is an error, as is any transfer coding but one
 * `chunked`. docs/design/net-http.md has a table of all such decisions.
 *
 * Everything a parse gives borrows from the bytes parsed.
 *
 * Speed: one pass, 16 or 32 bytes at a time where the processor can, chosen at
 * run time; a scalar twin gives the same results on every input (fuzzed).
 */
#ifndef BOP_HTTP1_H
#define BOP_HTTP1_H

#include <bop/base.h>
#include <bop/slice.h>

enum bop_http_method {
    BOP_HTTP_OTHER = 0, /* Any other token, see method_text. */
    BOP_HTTP_GET,
    BOP_HTTP_HEAD,
    BOP_HTTP_POST,
    BOP_HTTP_PUT,
    BOP_HTTP_DELETE,
    BOP_HTTP_CONNECT,
    BOP_HTTP_OPTIONS,
    BOP_HTTP_TRACE,
    BOP_HTTP_PATCH,
    BOP_HTTP_METHOD_COUNT,
};

/** Headers found while parsing: their place is kept, so that asking for them costs nothing. */
enum bop_http_known {
    BOP_HTTP_HOST = 0,
    BOP_HTTP_CONTENT_LENGTH,
    BOP_HTTP_CONTENT_TYPE,
    BOP_HTTP_TRANSFER_ENCODING,
    BOP_HTTP_CONNECTION,
    BOP_HTTP_UPGRADE,
    BOP_HTTP_EXPECT,
    BOP_HTTP_ACCEPT_ENCODING,
    BOP_HTTP_RANGE,
    BOP_HTTP_IF_NONE_MATCH,
    BOP_HTTP_IF_MODIFIED_SINCE,
    BOP_HTTP_IF_RANGE,
    BOP_HTTP_AUTHORIZATION,
    BOP_HTTP_COOKIE,
    BOP_HTTP_ORIGIN,
    BOP_HTTP_LOCATION,
    BOP_HTTP_SEC_WEBSOCKET_KEY,
    BOP_HTTP_SEC_WEBSOCKET_VERSION,
    BOP_HTTP_SEC_WEBSOCKET_PROTOCOL,
    BOP_HTTP_SEC_WEBSOCKET_EXTENSIONS,
    BOP_HTTP_SEC_WEBSOCKET_ACCEPT,
    BOP_HTTP_KNOWN_COUNT,
};

struct bop_http_header {
    struct bop_slice name;  /* As sent; compare without case. */
    struct bop_slice value; /* Without surrounding white space. */
};

/** How a body ends. */
enum bop_http_framing {
    BOP_HTTP_NO_BODY = 0,
    BOP_HTTP_LENGTH, /* content_length bytes (may be 0). */
    BOP_HTTP_CHUNKED,
    BOP_HTTP_UNTIL_CLOSE, /* Responses only. */
};

enum bop_http_target {
    BOP_HTTP_ORIGIN_FORM = 0, /* "/path?query" */
    BOP_HTTP_ABSOLUTE_FORM,   /* "http://host/path?query": path and query are of it. */
    BOP_HTTP_AUTHORITY_FORM,  /* CONNECT: "host:port" */
    BOP_HTTP_ASTERISK_FORM,   /* OPTIONS: "*" */
};

#define BOP_HTTP_HEADERS_MAX 128 /* What a head can hold at most; limits may allow fewer. */

/** A parsed head. Big: one for all connections of a loop does. */
struct bop_http_head {
    enum bop_http_method method;
    enum bop_http_target target_form;
    enum bop_http_framing framing;
    unsigned status; /* Responses. */
    unsigned minor;  /* HTTP/1.minor: 0 or 1; higher ones are read as 1. */
    bool keep_alive; /* What version and Connection ask for; never with BOP_HTTP_UNTIL_CLOSE. */
    bool expect_continue; /* Asked for in HTTP/1.1, and there is a body to wait for. */
    bool upgrade;         /* Connection names "upgrade" and Upgrade is there. */
    bool trailers;        /* TE or Trailer was sent. */
    uint64_t content_length;
    struct bop_slice method_text;
    struct bop_slice target;    /* As sent. */
    struct bop_slice authority; /* Of absolute and authority form, else the value of Host. */
    struct bop_slice path;      /* Not decoded; "/" where absolute form has none, "*" of asterisk
                                   form, data NULL of authority form. */
    struct bop_slice query;     /* Without "?". */
    struct bop_slice reason;    /* Responses. */
    size_t size;                /* Bytes of the head, its empty line included. */
    unsigned header_count;
    int16_t known[BOP_HTTP_KNOWN_COUNT]; /* Index of the first of that name, or -1. */
    struct bop_http_header headers[BOP_HTTP_HEADERS_MAX];
};

/** Zero fields take the defaults. */
struct bop_http1_limits {
    size_t head_bytes_max;   /* Default 16 KiB; over it 431. */
    size_t target_bytes_max; /* Default 8 KiB; over it 414. */
    unsigned headers_max;    /* Default 100; over it 431. */
    uint64_t body_bytes_max; /* Of a Content-Length; default: none. Over it 413. */
};

/**
 * Parse a request's head. Empty lines before it are skipped (RFC 9112, 2.2), and counted in size.
 *
 * Returns 0 when whole; BOP_ETRUNCATED when more bytes are needed (and what is there may still
 * become a good head); else -status of the answer to give: -400, -413, -414, -417, -431, -501
 * (unknown transfer coding), -505. out_why, if not NULL, is then set to one line saying what is
 * wrong, of static duration. *out_head is meaningless unless 0 is returned.
 */
BOP_API BOP_MUST_USE int bop_http1_parse_request(struct bop_slice bytes,
                                                 const struct bop_http1_limits *limits,
                                                 struct bop_http_head *out_head,
                                                 const char **out_why);

/**
 * Whether parsing a head again is worthwhile, now that bytes are there, of which the first `seen`
 * gave BOP_ETRUNCATED: a line has ended since, or a limit is passed. For heads that come a byte at
 * a time, which would else be parsed once a byte: this looks at new bytes only, and says yes once a
 * line. Nothing is lost by waiting but that some errors show at the end of their line.
 */
BOP_API bool bop_http1_may_go_on(struct bop_slice bytes, size_t seen,
                                 const struct bop_http1_limits *limits);

/**
 * Parse a response's head. request_method decides about the body (HEAD, CONNECT have none).
 * Returns 0, BOP_ETRUNCATED, or BOP_EMALFORMED or BOP_ETOOBIG with out_why.
 */
BOP_API BOP_MUST_USE int bop_http1_parse_response(struct bop_slice bytes,
                                                  const struct bop_http1_limits *limits,
                                                  enum bop_http_method request_method,
                                                  struct bop_http_head *out_head,
                                                  const char **out_why);

/** The first header of that name, without case. data NULL: none (an empty value has data). */
BOP_API struct bop_slice bop_http_find(const struct bop_http_head *head, const char *name);
static inline struct bop_slice bop_http_known(const struct bop_http_head *head,
                                              enum bop_http_known which)
{
    return head->known[which] >= 0 ? head->headers[head->known[which]].value : bop_slice(NULL, 0);
}
/** Whether a comma-separated list has a token, without case; of all headers of that name. */
BOP_API bool bop_http_has_token(const struct bop_http_head *head, const char *name,
                                const char *token);

/* ---- Bodies ---- */

/** Where a body's decoding stands. Small: lives in the connection. */
struct bop_http1_body {
    uint64_t left;   /* Of the length or the chunk. */
    uint8_t framing; /* enum bop_http_framing */
    uint8_t state;
    uint16_t extra; /* Bytes of chunk extensions and trailers seen that no content paid for. */
};

BOP_API void bop_http1_body_init(struct bop_http1_body *body, const struct bop_http_head *head);

/**
 * Decode some. Takes *in_out_bytes from its front; out_data borrows a piece of the content (may be
 * empty). Call until it returns something else than 1.
 *
 * Returns 1 (a piece is in out_data; call again), BOP_ETRUNCATED (all taken, more must come; no
 * piece), 0 (the body ended before what remains of *in_out_bytes; no piece), or -400, -431 (chunk
 * extensions or trailers above their bound, 4 KiB, from which the content received in between is
 * taken off). Trailers are checked and dropped. What is returned last is returned again.
 */
BOP_API BOP_MUST_USE int bop_http1_body_decode(struct bop_http1_body *body,
                                               struct bop_slice *in_out_bytes,
                                               struct bop_slice *out_data);

/* ---- Writing ---- */

/** "200" -> "OK"; "" where none is known. */
BOP_API const char *bop_http_reason(unsigned status);
/** Whether name is a token and value has no control characters: what may be sent as a header. */
BOP_API bool bop_http_header_is_valid(struct bop_slice name, struct bop_slice value);
/** "Sun, 06 Nov 1994 08:49:37 GMT" (29 characters and a NUL), and back (all three forms of RFC
 * 9110; false: not a date). */
BOP_API void bop_http_date_format(int64_t unix_s, char out_text[30]);
BOP_API bool bop_http_date_parse(struct bop_slice text, int64_t *out_unix_s);

#endif
