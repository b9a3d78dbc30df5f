/*
 * Answers in one piece: status, headers, reply.
 */
#include <stdio.h>
#include <strings.h>

#include "../text.h"
#include "respond.h"

/* ---- Status and headers ---- */

int bop__exchange_add_header(struct bop__exchange *ex, const char *name, struct bop_slice value)
{
    size_t name_size = strlen(name);
    uint8_t *at;
    int rc = bop_buf_reserve(&ex->headers, name_size + value.size + 4);

    if (rc != 0) {
        return rc;
    }
    at = ex->headers.data + ex->headers.size;
    at = bop__put(at, name, name_size);
    at = PUT(at, ": ");
    if (value.size > 0) {
        at = bop__put(at, value.data, value.size);
    }
    at = PUT(at, "\r\n");
    ex->headers.size = (size_t)(at - ex->headers.data);
    return 0;
}

int bop_http_status(struct bop_http_exchange *http, unsigned status)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    if (ex->head_sent || status < 200 || status > 599) {
        return BOP_EINVAL;
    }
    ex->status = (uint16_t)status;
    return 0;
}

int bop_http_content_length(struct bop_http_exchange *http, uint64_t size)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    if (ex->head_sent || ex->deflate != NULL) {
        return BOP_EINVAL;
    }
    ex->has_length = true;
    ex->content_length = size;
    return 0;
}

/* "Content-Length: n" as a header is the announcement of a length. */
static int set_length(struct bop_http_exchange *http, struct bop_slice value)
{
    uint64_t length = 0;

    if (value.size == 0 || value.size > 18) {
        return BOP_EINVAL;
    }
    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') {
            return BOP_EINVAL;
        }
        length = length * 10 + (value.data[i] - '0');
    }
    return bop_http_content_length(http, length);
}

int bop_http_header(struct bop_http_exchange *http, const char *name, struct bop_slice value)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    struct bop_slice name_slice = bop_slice_cstr(name);

    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    if (ex->head_sent || !bop_http_header_is_valid(name_slice, value) ||
        bop__text_is(name_slice, "Transfer-Encoding") || bop__text_is(name_slice, "Connection") ||
        bop__text_is(name_slice, "Keep-Alive")) {
        return BOP_EINVAL;
    }
    if (bop__text_is(name_slice, "Content-Length")) {
        return set_length(http, value);
    }
    ex->has_date = ex->has_date || bop__text_is(name_slice, "Date");
    ex->has_server = ex->has_server || bop__text_is(name_slice, "Server");
    return bop__exchange_add_header(ex, name, value);
}

/* ---- Whole answers ---- */

int bop__exchange_reply(struct bop__exchange *ex, const char *content_type, struct bop_slice body)
{
    bool empty = bop__http_has_no_content(ex->status);
    bool bodiless = empty || ex->method == BOP_HTTP_HEAD;
    struct bop_buf *out;
    uint8_t *at;
    int rc;

    rc = bop__exchange_begin(ex, content_type,
                             empty && !(ex->has_length && ex->status == 304) ? BOP__HTTP_BY_NOTHING
                                                                             : BOP__HTTP_BY_LENGTH,
                             ex->has_length ? ex->content_length : body.size,
                             bodiless ? 0 : body.size, &out, &at);
    if (rc != 0) {
        return rc;
    }
    if (!bodiless && body.size > 0) {
        at = bop__put(at, body.data, body.size);
    }
    ex->written = body.size;
    bop__http_wrote(ex->conn, out, at);
    bop__exchange_answered(ex);
    return 0;
}

int bop__exchange_reply_compressed(struct bop__exchange *ex, const char *content_type,
                                   struct bop_slice body)
{
    const char *coding = bop__http_deflate_name(ex->deflate);
    struct bop_buf smaller;
    int rc;

    bop_buf_init(&smaller, ex->conn->server->allocator, 0);
    rc = bop__http_deflate_all(ex->deflate, body, &smaller);
    bop__http_deflate_end(ex);
    if (rc == 0 && smaller.size < body.size) {
        rc = bop__exchange_add_header(ex, "Content-Encoding", bop_slice_cstr(coding));
        if (rc == 0) {
            rc = bop__exchange_reply(ex, content_type, bop_buf_slice(&smaller));
        }
    } else {
        rc = bop__exchange_reply(ex, content_type, body); /* As it is, also for want of memory. */
    }
    bop_buf_deinit(&smaller);
    return rc;
}

int bop_http_reply(struct bop_http_exchange *http, unsigned status, const char *content_type,
                   struct bop_slice body)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (BOP_UNLIKELY(ex == NULL)) {
        return BOP_ECLOSED;
    }
    if (BOP_UNLIKELY(ex->head_sent || status < 200 || status > 599 || ex->has_length)) {
        return BOP_EINVAL;
    }
    ex->status = (uint16_t)status;
    return BOP_UNLIKELY(ex->deflate != NULL)
               ? bop__exchange_reply_compressed(ex, content_type, body)
               : bop__exchange_reply(ex, content_type, body);
}

void bop__exchange_reply_text(struct bop__exchange *ex, unsigned status, const char *text)
{
    char line[256];
    int size = snprintf(line, sizeof(line), "%s\n", text);

    ex->status = (uint16_t)status;
    if (bop__exchange_reply(ex, "text/plain",
                            bop_slice(line, bop_min_u64((size_t)size, sizeof(line) - 1))) != 0) {
        bop__http_conn_kill(ex->conn);
    }
}
