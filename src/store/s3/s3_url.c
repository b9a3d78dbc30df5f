/*
 * Names on the wire. The signature covers the path and the query as they are
 * sent, and libcurl signs them as it is given them: so they are encoded here,
 * in the one way that the signature's canonical form has, with the parameters
 * sorted and each with its '='.
 *
 * libcurl takes "." and ".." out of paths, after which the signature would be of another
 * object: keys that have such segments are refused.
 */
#include "s3.h"

#include <stdlib.h>

#include <openssl/evp.h>

static bool is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

int bop__s3_encode(struct bop_buf *out, const char *text, bool keep_slash)
{
    static const char digits[] = "0123456789ABCDEF";
    int rc = 0;

    for (const unsigned char *at = (const unsigned char *)text; rc == 0 && *at; at++) {
        char escaped[3] = {'%', digits[*at >> 4], digits[*at & 15]};

        if (is_unreserved(*at) || (keep_slash && *at == '/')) {
            rc = bop_buf_append(out, at, 1);
        } else {
            rc = bop_buf_append(out, escaped, 3);
        }
    }
    return rc;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool bop__s3_decode(char *text)
{
    char *to = text;

    for (const char *from = text; *from; from++) {
        if (*from == '+') {
            *to++ = ' ';
        } else if (*from == '%') {
            int high = digit_of(from[1]);
            int low = high < 0 ? -1 : digit_of(from[2]);

            if (low < 0 || (high == 0 && low == 0)) {
                return false;
            }
            *to++ = (char)(high * 16 + low);
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
    return true;
}

/* A segment of "." or ".." in a path. */
static bool has_dots(const char *key)
{
    for (const char *at = key; at; at = strchr(at, '/')) {
        size_t size;

        at += at != key;
        size = strcspn(at, "/");
        if ((size == 1 && at[0] == '.') || (size == 2 && at[0] == '.' && at[1] == '.')) {
            return true;
        }
    }
    return false;
}

int bop__s3_check_key(const struct s3 *s3, const char *verb, const char *key, struct bop_error *err)
{
    if (!key || !key[0]) {
        return bop_error_say(err, BOP_EINVAL, "%s: the key is empty", verb);
    }
    if (strlen(s3->prefix) + strlen(key) > BOP_OBJECT_KEY_MAX) {
        return bop_error_say(err, BOP_EINVAL,
                             "%s %.100s...: the key with its prefix is longer than %d bytes", verb,
                             key, BOP_OBJECT_KEY_MAX);
    }
    if (!bop_slice_is_utf8(bop_slice_cstr(key))) {
        return bop_error_say(err, BOP_EINVAL, "%s: the key is not UTF-8", verb);
    }
    if (has_dots(key)) {
        return bop_error_say(err, BOP_EINVAL, "%s %.100s: a key has no part \".\" or \"..\"", verb,
                             key);
    }
    return 0;
}

static int append_text(struct bop_buf *out, const char *text)
{
    return bop_buf_append(out, text, strlen(text));
}

/* "https://bucket.host:port" or "https://host:port/bucket". */
static int append_bucket(const struct s3 *s3, struct bop_buf *out)
{
    const char *host = strstr(s3->endpoint, "://") + 3;
    int rc;

    if (!s3->virtual_host) {
        rc = append_text(out, s3->endpoint);
        rc = rc < 0 ? rc : append_text(out, "/");
        return rc < 0 ? rc : append_text(out, s3->bucket);
    }
    rc = bop_buf_append(out, s3->endpoint, (size_t)(host - s3->endpoint));
    rc = rc < 0 ? rc : append_text(out, s3->bucket);
    rc = rc < 0 ? rc : append_text(out, ".");
    return rc < 0 ? rc : append_text(out, host);
}

int bop__s3_url(const struct s3 *s3, const char *key, const struct s3_param *params,
                size_t param_count, struct bop_buf *out)
{
    int rc = append_bucket(s3, out);

    /* A bucket's path too ends with a slash in virtual-host style: it is the root. */
    if (rc == 0 && (key || s3->virtual_host)) {
        rc = append_text(out, "/");
    }
    if (rc == 0 && key) {
        rc = bop__s3_encode(out, s3->prefix, true);
        rc = rc < 0 ? rc : bop__s3_encode(out, key, true);
    }
    for (size_t i = 0; rc == 0 && i < param_count; i++) {
        BOP_DEBUG_ASSERT(i == 0 || strcmp(params[i - 1].name, params[i].name) < 0);
        rc = append_text(out, i == 0 ? "?" : "&");
        rc = rc < 0 ? rc : bop__s3_encode(out, params[i].name, false);
        rc = rc < 0 ? rc : append_text(out, "=");
        rc = rc < 0 ? rc : bop__s3_encode(out, params[i].value, false);
    }
    return rc < 0 ? rc : bop_buf_append(out, "", 1);
}

void bop__s3_hex(const uint8_t digest[32], char out_text[S3_HEX_MAX])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < 32; i++) {
        out_text[2 * i] = digits[digest[i] >> 4];
        out_text[2 * i + 1] = digits[digest[i] & 15];
    }
    out_text[64] = '\0';
}

bool bop__s3_unhex(const char *text, uint8_t out_digest[32])
{
    uint8_t digest[32];

    if (strlen(text) != 64) {
        return false;
    }
    for (size_t i = 0; i < 32; i++) {
        int high = digit_of(text[2 * i]);
        int low = digit_of(text[2 * i + 1]);

        if (high < 0 || low < 0) {
            return false;
        }
        digest[i] = (uint8_t)(high * 16 + low);
    }
    memcpy(out_digest, digest, sizeof(digest));
    return true;
}

void bop__s3_base64(const uint8_t *bytes, size_t size, char out_text[S3_BASE64_MAX])
{
    BOP_ASSERT(size <= 33); /* 44 characters and a NUL. */
    EVP_EncodeBlock((unsigned char *)out_text, bytes, (int)size);
}

int bop__s3_sha256(const void *bytes, size_t size, uint8_t out_digest[32])
{
    return EVP_Digest(bytes, size, out_digest, NULL, EVP_sha256(), NULL) == 1 ? 0 : BOP_ENOMEM;
}
