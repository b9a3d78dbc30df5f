/*
 * Entries as text: one JSON object a line, for `bop map import` and `export`.
 *
 *     {"key":"hello","value":"world"}
 *     {"key":"caf\u00e9","value64":"/wD+"}
 *
 * "key" and "value" are the bytes as they are if they are UTF-8; else "key64" and
 * "value64" hold them in base64 (RFC 4648, padded). A reader takes either form of
 * each, in any order, wants exactly one of both, and ignores other members. So any
 * bytes come back as they went, and each line by itself is JSON for other tools.
 */
#ifndef BOP_CLI_NDJSON_H
#define BOP_CLI_NDJSON_H

#include <jansson.h>

#include <bop/error.h>
#include <bop/slice.h>

/* A line with the longest key and value where JSON takes six bytes for each of theirs. */
#define NDJSON_LINE_MAX (64u * 1024 * 1024)

/** Put "name" or "name64" with the bytes into an object. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int ndjson_set_bytes(json_t *object, const char *name, struct bop_slice value);

/** Append a line, line feed included. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int ndjson_write(struct bop_buf *buf, struct bop_slice key, struct bop_slice value);

/** Append an object as one line. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int ndjson_write_object(struct bop_buf *buf, const json_t *object);

/** The bytes under "name" or "name64" of an object into out, cleared first. Codes as below. */
BOP_MUST_USE int ndjson_get_bytes(const json_t *object, const char *name, struct bop_buf *out,
                                  struct bop_error *err);

/** Append the line of a set's member: {"member":"hello"}. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int ndjson_write_member(struct bop_buf *buf, struct bop_slice member);

/** As ndjson_read(), of such a line. */
BOP_MUST_USE int ndjson_read_member(struct bop_slice line, struct bop_buf *member,
                                    struct bop_error *err);

/** Append the line of a counter: {"counter":"hits","value":7}. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int ndjson_write_counter(struct bop_buf *buf, struct bop_slice name, int64_t value);

/** As ndjson_read(), of such a line. */
BOP_MUST_USE int ndjson_read_counter(struct bop_slice line, struct bop_buf *name,
                                     int64_t *out_value, struct bop_error *err);

/**
 * Read a line, with or without its line feed. key and value are cleared first.
 * Returns 0, BOP_EMALFORMED with what is wrong in err, or BOP_ENOMEM.
 */
BOP_MUST_USE int ndjson_read(struct bop_slice line, struct bop_buf *key, struct bop_buf *value,
                             struct bop_error *err);

#endif
