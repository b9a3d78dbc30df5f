/*
 * Where a redirect leads (RFC 9110, 15.4): 303 becomes GET, 301 and 302 do so for
 * POST, as all clients have it; 307 and 308 repeat the request with its body.
 *
 * To another origin neither Authorization nor Cookie go along. From https to http
 * is not followed: what was asked for in secret would be told.
 */
#include <strings.h>

#include <bop/url.h>

#include "../text.h"
#include "client_internal.h"

static bool is_redirect(unsigned status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* Take the lines of a header out of what the user gave. */
static void drop_field(struct bop_buf *fields, const char *name)
{
    size_t at = 0;

    while (at < fields->size) {
        uint8_t *line = fields->data + at;
        uint8_t *colon = (uint8_t *)memchr(line, ':', fields->size - at);
        uint8_t *end = (uint8_t *)memchr(line, '\n', fields->size - at);
        size_t size = (size_t)(end - line) + 1;

        if (bop__text_is(bop_slice(line, (size_t)(colon - line)), name)) {
            memmove(line, end + 1, fields->size - at - size);
            fields->size -= size;
        } else {
            at += size;
        }
    }
}

static bool same_origin(const struct bop__client_url *a, const struct bop__client_url *b)
{
    return a->tls == b->tls && a->port == b->port && a->host.size == b->host.size &&
           strncasecmp((const char *)a->host.data, (const char *)b->host.data, a->host.size) == 0;
}

static void become_get(struct bop__call *call)
{
    call->method = BOP_HTTP_GET;
    bop_buf_clear(&call->method_text);
    bop_buf_clear(&call->body);
    call->request.body_later = 0;
    call->request.expect_continue = false;
    call->idempotent = true;
    drop_field(&call->fields, "Content-Type");
    drop_field(&call->fields, "Content-Encoding");
}

int bop__call_redirect(struct bop__call *call, const struct bop_http_head *head)
{
    struct bop_slice location = bop_http_known(head, BOP_HTTP_LOCATION);
    struct bop__client_url from, to;
    struct bop_buf url;
    bool to_get;
    int rc;

    if (!is_redirect(head->status) || call->request.redirects_max == 0 || location.size == 0) {
        return 0;
    }
    to_get = (head->status == 303 && call->method != BOP_HTTP_HEAD) ||
             (head->status <= 302 && call->method == BOP_HTTP_POST);
    if (call->request.body_later != 0 && !to_get) {
        return 0; /* Its body is gone. */
    }
    if (call->redirects >= call->request.redirects_max) {
        return bop_error_set(&call->error, BOP_EOVERFLOW, "more than %u redirects",
                             call->request.redirects_max);
    }
    bop_buf_init(&url, call->client->allocator, 0);
    rc = bop_url_resolve(bop_buf_slice(&call->url), location, &url);
    if (rc == 0 && (!bop__client_url_split(bop_buf_slice(&call->url), &from) ||
                    !bop__client_url_split(bop_buf_slice(&url), &to) || (from.tls && !to.tls))) {
        rc = BOP_EMALFORMED;
    }
    if (rc != 0) {
        bop_buf_deinit(&url);
        return rc == BOP_ENOMEM ? rc
                                : bop_error_set(&call->error, rc, "redirect to \"%.*s\"",
                                                (int)bop_min_u64(location.size, 200),
                                                (const char *)location.data);
    }
    if (!same_origin(&from, &to)) {
        drop_field(&call->fields, "Authorization");
        drop_field(&call->fields, "Cookie");
    }
    bop_buf_deinit(&call->url);
    call->url = url;
    if (to_get && call->method != BOP_HTTP_GET) {
        become_get(call);
    }
    call->redirects++;
    call->client->counters.redirected++;
    return 1;
}
