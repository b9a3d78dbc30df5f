/*
 * URLs by RFC 3986: taking them apart, percent-encoding, queries, and paths that
 * are safe to open.
 *
 * Parts borrow from the text and are not decoded; decoded text is appended to a
 * buffer of the caller's. Pure functions, any thread.
 */
#ifndef BOP_URL_H
#define BOP_URL_H

#include <bop/base.h>
#include <bop/slice.h>

/** A URL or a relative reference. A part that is not there has data NULL; an empty one has not. */
struct bop_url {
    struct bop_slice scheme;    /* Without ":". */
    struct bop_slice authority; /* Between "//" and the path: the next three. */
    struct bop_slice user;      /* Before "@": "name" or "name:password". */
    struct bop_slice host;      /* An IPv6 address without its brackets. */
    struct bop_slice path;      /* May be empty, then data is not NULL. */
    struct bop_slice query;     /* Without "?". */
    struct bop_slice fragment;  /* Without "#". */
    bool is_ip_literal;         /* The host stood in brackets. */
    bool has_port;              /* "host:" has none. */
    uint16_t port;              /* As given, else that of the scheme, else 0. */
};

/**
 * Take a URL apart. Strict: only characters that may stand there, "%" only before two hexadecimal
 * digits, ports up to 65535. Returns 0 or BOP_EMALFORMED.
 */
BOP_API BOP_MUST_USE int bop_url_parse(struct bop_slice text, struct bop_url *out_url);

/** 80 for http and ws, 443 for https and wss, without case; else 0. */
BOP_API uint16_t bop_url_default_port(struct bop_slice scheme);

/**
 * "host", "host:port", "[::1]:port" as in Host. The host is given without brackets and must not be
 * empty; port is 0 where none is given. Returns 0 or BOP_EMALFORMED.
 */
BOP_API BOP_MUST_USE int bop_url_split_host_port(struct bop_slice authority,
                                                 struct bop_slice *out_host, uint16_t *out_port);

/**
 * What a reference means in a document: RFC 3986, 5.2, for the Location of a redirect. base is
 * absolute. The URL is appended. Returns 0, BOP_EMALFORMED, BOP_ENOMEM or BOP_EFULL; the buffer is
 * not changed then.
 */
BOP_API BOP_MUST_USE int bop_url_resolve(struct bop_slice base, struct bop_slice reference,
                                         struct bop_buf *buf);

/* ---- Percent-encoding ---- */

/** Append text with every "%41" decoded. Returns 0, BOP_EMALFORMED ("%" without two hexadecimal
 * digits), BOP_ENOMEM or BOP_EFULL; the buffer is not changed then. */
BOP_API BOP_MUST_USE int bop_url_decode(struct bop_slice text, struct bop_buf *buf);
/** The same with "+" for a space, as forms and queries are encoded. */
BOP_API BOP_MUST_USE int bop_url_decode_form(struct bop_slice text, struct bop_buf *buf);
/** Append text with all encoded but letters, digits, "-", ".", "_", "~": for one part of a URL. */
BOP_API BOP_MUST_USE int bop_url_encode(struct bop_slice text, struct bop_buf *buf);
/** The same, but "/" stays: for a path. */
BOP_API BOP_MUST_USE int bop_url_encode_path(struct bop_slice path, struct bop_buf *buf);

/* ---- Queries ---- */

/**
 * The next "name=value" of a query, both not decoded. Begin with the query; *in_out_rest is moved
 * on. Without "=" the value's data is NULL; empty pieces between "&" are skipped. False at the end.
 */
BOP_API BOP_MUST_USE bool bop_url_query_next(struct bop_slice *in_out_rest,
                                             struct bop_slice *out_name,
                                             struct bop_slice *out_value);
/** The first value of that name: names are compared decoded, the value is not. False: none. */
BOP_API BOP_MUST_USE bool bop_url_query_find(struct bop_slice query, const char *name,
                                             struct bop_slice *out_value);

/* ---- Paths ---- */

/** Append path without "." and ".." segments (RFC 3986, 5.2.4). Returns 0, BOP_ENOMEM, BOP_EFULL.
 */
BOP_API BOP_MUST_USE int bop_url_normalize(struct bop_slice path, struct bop_buf *buf);

/**
 * Append the name of a file below some directory that a request's path asks for: decoded, relative,
 * without ".", ".." and empty segments, no "/" in front; "/" at the end stays (so "a/" for
 * "/x/../a/", and nothing for "/").
 *
 * Returns BOP_EMALFORMED for bad encoding and where a decoded segment has "/", a backslash or a
 * control character; BOP_EDENIED where ".." leads out; BOP_ENOMEM or BOP_EFULL. The buffer is not
 * changed then.
 */
BOP_API BOP_MUST_USE int bop_url_file_name(struct bop_slice path, struct bop_buf *buf);

#endif
