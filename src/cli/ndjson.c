/*
 * Entries to lines and back, by jansson; only base64 is our own.
 */
#include "ndjson.h"

#include <stdio.h>

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ---- base64 ---- */

/* Four digits for up to three bytes; out is not NUL-terminated. */
static void encode_group(const uint8_t *bytes, size_t count, char out_digits[4])
{
    unsigned bits = (unsigned)bytes[0] << 16 | (count > 1 ? (unsigned)bytes[1] << 8 : 0) |
                    (count > 2 ? bytes[2] : 0u);

    for (unsigned i = 0; i < 4; i++) {
        out_digits[i] = i <= count ? base64_digits[bits >> (18 - 6 * i) & 63] : '=';
    }
}

static int append_base64(struct bop_buf *buf, struct bop_slice bytes)
{
    char digits[4];
    int rc = bop_buf_reserve(buf, (bytes.size + 2) / 3 * 4);

    for (size_t at = 0; at < bytes.size && rc == 0; at += 3) {
        encode_group(bytes.data + at, (size_t)bop_min_u64(3, bytes.size - at), digits);
        rc = bop_buf_append(buf, digits, sizeof(digits));
    }
    return rc;
}

/* Where a padded group of four digits has 1, 2 or 3 bytes; -1 for what is no group. The bits
 * that padding cuts off must be 0, so that there is one text for each value. */
static int decode_group(const char digits[4], uint8_t out_bytes[3])
{
    unsigned bits = 0;
    int count = digits[3] != '=' ? 3 : digits[2] != '=' ? 2 : 1;

    for (int i = 0; i < 4; i++) {
        const char *digit = i <= count && digits[i] ? strchr(base64_digits, digits[i]) : NULL;

        if (i <= count && !digit) {
            return -1;
        }
        bits = bits << 6 | (digit ? (unsigned)(digit - base64_digits) : 0);
    }
    for (int i = 0; i < 3; i++) {
        out_bytes[i] = (uint8_t)(bits >> (16 - 8 * i));
    }
    return count == 3 || out_bytes[count] == 0 ? count : -1;
}

static int decode_base64(const char *text, size_t size, struct bop_buf *out)
{
    uint8_t bytes[3];
    int rc = size % 4 == 0 ? bop_buf_reserve(out, size / 4 * 3) : BOP_EMALFORMED;

    for (size_t at = 0; at < size && rc == 0; at += 4) {
        int count = decode_group(text + at, bytes);

        if (count < 0 || (count < 3 && at + 4 < size)) {
            return BOP_EMALFORMED;
        }
        rc = bop_buf_append(out, bytes, (size_t)count);
    }
    return rc;
}

/* ---- Writing ---- */

static json_t *base64_string(struct bop_slice bytes)
{
    struct bop_buf buf;
    json_t *string = NULL;

    bop_buf_init(&buf, NULL, 0);
    if (append_base64(&buf, bytes) == 0) {
        string = json_stringn_nocheck((const char *)buf.data, buf.size);
    }
    bop_buf_deinit(&buf);
    return string;
}

int ndjson_set_bytes(json_t *object, const char *name, struct bop_slice value)
{
    char name64[32];
    json_t *string;

    if (bop_slice_is_utf8(value)) {
        /* jansson takes no NULL, not even for no bytes. */
        string = json_stringn_nocheck(value.size > 0 ? (const char *)value.data : "", value.size);
    } else {
        snprintf(name64, sizeof(name64), "%s64", name);
        name = name64;
        string = base64_string(value);
    }
    return json_object_set_new_nocheck(object, name, string) < 0 ? BOP_ENOMEM : 0;
}

static int append_text(const char *text, size_t size, void *user)
{
    struct bop_buf *buf = (struct bop_buf *)user;

    return bop_buf_append(buf, text, size) < 0 ? -1 : 0;
}

int ndjson_write_object(struct bop_buf *buf, const json_t *object)
{
    size_t before = buf->size;

    if (json_dump_callback(object, append_text, buf, JSON_COMPACT) < 0 ||
        bop_buf_append(buf, "\n", 1) < 0) {
        buf->size = before;
        return BOP_ENOMEM;
    }
    return 0;
}

int ndjson_write(struct bop_buf *buf, struct bop_slice key, struct bop_slice value)
{
    json_t *object = json_object();
    int rc = object ? ndjson_set_bytes(object, "key", key) : BOP_ENOMEM;

    if (rc == 0) {
        rc = ndjson_set_bytes(object, "value", value);
    }
    if (rc == 0) {
        rc = ndjson_write_object(buf, object);
    }
    json_decref(object);
    return rc;
}

int ndjson_write_member(struct bop_buf *buf, struct bop_slice member)
{
    json_t *object = json_object();
    int rc = object ? ndjson_set_bytes(object, "member", member) : BOP_ENOMEM;

    if (rc == 0) {
        rc = ndjson_write_object(buf, object);
    }
    json_decref(object);
    return rc;
}

int ndjson_write_counter(struct bop_buf *buf, struct bop_slice name, int64_t value)
{
    json_t *object = json_object();
    int rc = object ? ndjson_set_bytes(object, "counter", name) : BOP_ENOMEM;

    if (rc == 0 && json_object_set_new(object, "value", json_integer(value)) != 0) {
        rc = BOP_ENOMEM;
    }
    if (rc == 0) {
        rc = ndjson_write_object(buf, object);
    }
    json_decref(object);
    return rc;
}

/* ---- Reading ---- */

int ndjson_get_bytes(const json_t *object, const char *name, struct bop_buf *out,
                     struct bop_error *err)
{
    char name64[32];
    const json_t *plain, *coded, *string;
    int rc;

    snprintf(name64, sizeof(name64), "%s64", name);
    plain = json_object_get(object, name);
    coded = json_object_get(object, name64);
    string = plain ? plain : coded;
    bop_buf_clear(out);
    if ((plain != NULL) == (coded != NULL)) {
        return bop_error_say(err, BOP_EMALFORMED,
                             plain ? "both \"%s\" and \"%s\"" : "neither \"%s\" nor \"%s\"", name,
                             name64);
    }
    if (!json_is_string(string)) {
        return bop_error_say(err, BOP_EMALFORMED, "\"%s\" is no string", plain ? name : name64);
    }
    if (plain) {
        rc = bop_buf_append(out, json_string_value(string), json_string_length(string));
    } else {
        rc = decode_base64(json_string_value(string), json_string_length(string), out);
    }
    if (rc == BOP_EMALFORMED) {
        return bop_error_say(err, rc, "\"%s\" is no base64", name64);
    }
    return rc < 0 ? bop_error_set(err, rc, "read \"%s\"", name) : 0;
}

static int load_object(struct bop_slice line, json_t **out_object, struct bop_error *err)
{
    json_error_t trouble;
    json_t *object = json_loadb(line.size > 0 ? (const char *)line.data : "", line.size,
                                JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &trouble);

    if (!object) {
        return bop_error_say(err, BOP_EMALFORMED, "no JSON: %s", trouble.text);
    }
    if (!json_is_object(object)) {
        json_decref(object);
        return bop_error_say(err, BOP_EMALFORMED, "no JSON object");
    }
    *out_object = object;
    return 0;
}

int ndjson_read(struct bop_slice line, struct bop_buf *key, struct bop_buf *value,
                struct bop_error *err)
{
    json_t *object;
    int rc = load_object(line, &object, err);

    if (rc < 0) {
        return rc;
    }
    rc = ndjson_get_bytes(object, "key", key, err);
    if (rc == 0) {
        rc = ndjson_get_bytes(object, "value", value, err);
    }
    json_decref(object);
    return rc;
}

int ndjson_read_member(struct bop_slice line, struct bop_buf *member, struct bop_error *err)
{
    json_t *object;
    int rc = load_object(line, &object, err);

    if (rc == 0) {
        rc = ndjson_get_bytes(object, "member", member, err);
        json_decref(object);
    }
    return rc;
}

int ndjson_read_counter(struct bop_slice line, struct bop_buf *name, int64_t *out_value,
                        struct bop_error *err)
{
    const json_t *value;
    json_t *object;
    int rc = load_object(line, &object, err);

    if (rc < 0) {
        return rc;
    }
    rc = ndjson_get_bytes(object, "counter", name, err);
    value = json_object_get(object, "value");
    if (rc == 0 && !json_is_integer(value)) {
        rc = bop_error_say(err, BOP_EMALFORMED, "\"value\" is not a whole number");
    } else if (rc == 0) {
        *out_value = json_integer_value(value);
    }
    json_decref(object);
    return rc;
}
