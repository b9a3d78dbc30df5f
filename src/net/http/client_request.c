/*
 * What is asked for: checked when it is asked for, kept, written as bytes.
 */
#include <stdio.h>
#include <strings.h>

#include <bop/url.h>

#include "../text.h"
#include "client_internal.h"

static bool is_token(struct bop_slice text)
{
    return bop_http_header_is_valid(text, bop_slice("", 0));
}

bool bop__client_url_split(struct bop_slice text, struct bop__client_url *out_url)
{
    struct bop_url url;

    if (bop_url_parse(text, &url) != 0 || url.host.size == 0 || url.host.size > 255 ||
        url.user.data != NULL) {
        return false;
    }
    *out_url = (struct bop__client_url){
        .tls = bop__text_is(url.scheme, "https"),
        .port = url.port,
        .host = url.host,
        .authority = url.authority,
        .target = url.path, /* A fragment is not sent. */
    };
    if (url.query.data != NULL) {
        out_url->target.size = (size_t)(url.query.data + url.query.size - url.path.data);
    }
    return out_url->tls || bop__text_is(url.scheme, "http");
}

/* ---- Keeping ---- */

static const struct {
    const char *name;
    enum bop_http_method method;
    bool idempotent;
} methods[] = {
    {"GET", BOP_HTTP_GET, true},          {"HEAD", BOP_HTTP_HEAD, true},
    {"POST", BOP_HTTP_POST, false},       {"PUT", BOP_HTTP_PUT, true},
    {"DELETE", BOP_HTTP_DELETE, true},    {"OPTIONS", BOP_HTTP_OPTIONS, true},
    {"TRACE", BOP_HTTP_TRACE, true},      {"PATCH", BOP_HTTP_PATCH, false},
    {"CONNECT", BOP_HTTP_CONNECT, false},
};

static void set_method(struct bop__call *call, const char *text)
{
    call->method = BOP_HTTP_OTHER;
    for (size_t i = 0; i < BOP_COUNT_OF(methods); i++) {
        if (strcmp(text, methods[i].name) == 0) {
            call->method = methods[i].method;
            call->idempotent = methods[i].idempotent;
        }
    }
}

/* Those we write ourselves, or that would mean something else on the wire than we think. */
static bool is_ours(struct bop_slice name)
{
    static const char *const ours[] = {"Host",       "Content-Length", "Transfer-Encoding",
                                       "Connection", "Expect",         "Upgrade",
                                       "TE",         "Trailer"};

    for (size_t i = 0; i < BOP_COUNT_OF(ours); i++) {
        if (bop__text_is(name, ours[i])) {
            return true;
        }
    }
    return false;
}

static int keep_fields(struct bop__call *call, const struct bop_http_request *request,
                       struct bop_error *err)
{
    struct bop_writer writer = bop_writer(&call->fields);

    for (size_t i = 0; i < request->header_count; i++) {
        const struct bop_http_header *header = &request->headers[i];

        if (!bop_http_header_is_valid(header->name, header->value) || is_ours(header->name)) {
            return bop_error_set(err, BOP_EINVAL, "header \"%.*s\"",
                                 (int)bop_min_u64(header->name.size, 100),
                                 (const char *)header->name.data);
        }
        bop_write_raw(&writer, header->name);
        bop_write_raw(&writer, bop_slice_cstr(": "));
        bop_write_raw(&writer, header->value);
        bop_write_raw(&writer, bop_slice_cstr("\r\n"));
    }
    return writer.code;
}

int bop__call_keep_request(struct bop__call *call, const struct bop_http_request *request,
                           struct bop_error *err)
{
    const char *method = request->method != NULL ? request->method : "GET";
    struct bop__client_url url;
    int rc;

    if (request->url == NULL || request->on_done == NULL ||
        !bop__client_url_split(bop_slice_cstr(request->url), &url)) {
        return bop_error_set(err, BOP_EINVAL, "URL \"%s\"",
                             request->url != NULL ? request->url : "");
    }
    set_method(call, method);
    if (!is_token(bop_slice_cstr(method)) || call->method == BOP_HTTP_CONNECT) {
        return bop_error_set(err, BOP_EINVAL, "method \"%s\"", method);
    }
    if (request->body.size > 0 && request->body_later != 0) {
        return bop_error_set(err, BOP_EINVAL, "a body now and one later");
    }
    call->request = *request;
    call->later_left = request->body_later == UINT64_MAX ? 0 : request->body_later;
    call->pipelinable = (call->method == BOP_HTTP_GET || call->method == BOP_HTTP_HEAD) &&
                        request->body.size == 0 && request->body_later == 0;
    rc = bop_buf_append(&call->url, request->url, strlen(request->url));
    if (rc == 0 && call->method == BOP_HTTP_OTHER) {
        rc = bop_buf_append(&call->method_text, method, strlen(method));
    }
    if (rc == 0 && request->body.size > 0) {
        rc = bop_buf_append(&call->body, request->body.data, request->body.size);
    }
    return rc != 0 ? rc : keep_fields(call, request, err);
}

/* ---- Writing ---- */

static struct bop_slice method_text(const struct bop__call *call)
{
    for (size_t i = 0; i < BOP_COUNT_OF(methods); i++) {
        if (call->method == methods[i].method) {
            return bop_slice_cstr(methods[i].name);
        }
    }
    return bop_buf_slice(&call->method_text);
}

static void write_text(struct bop_writer *writer, const char *text)
{
    bop_write_raw(writer, bop_slice_cstr(text));
}

static void write_framing(const struct bop__call *call, struct bop_writer *writer)
{
    uint64_t size = call->request.body_later != 0 ? call->request.body_later : call->body.size;
    char text[64];

    if (size == UINT64_MAX) {
        write_text(writer, "Transfer-Encoding: chunked\r\n");
    } else if (size > 0 || call->method == BOP_HTTP_POST || call->method == BOP_HTTP_PUT ||
               call->method == BOP_HTTP_PATCH) {
        snprintf(text, sizeof(text), "Content-Length: %llu\r\n", (unsigned long long)size);
        write_text(writer, text);
    }
    if (size > 0 && call->request.expect_continue) {
        write_text(writer, "Expect: 100-continue\r\n");
    }
}

int bop__call_write_head(const struct bop__call *call, struct bop_buf *out)
{
    struct bop_writer writer = bop_writer(out);
    struct bop__client_url url;

    if (!bop__client_url_split(bop_buf_slice(&call->url), &url)) {
        return BOP_EINVAL; /* It was looked at when it came. */
    }
    bop_write_raw(&writer, method_text(call));
    write_text(&writer, url.target.size > 0 && url.target.data[0] == '/' ? " " : " /");
    bop_write_raw(&writer, url.target);
    write_text(&writer, " HTTP/1.1\r\nHost: ");
    bop_write_raw(&writer, url.authority);
    write_text(&writer, "\r\n");
    if (call->client->options.user_agent != NULL) {
        write_text(&writer, "User-Agent: ");
        write_text(&writer, call->client->options.user_agent);
        write_text(&writer, "\r\n");
    }
    bop_write_raw(&writer, bop_buf_slice(&call->fields));
    write_framing(call, &writer);
    write_text(&writer, "\r\n");
    return writer.code;
}
