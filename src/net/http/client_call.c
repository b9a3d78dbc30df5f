/*
 * A call's life: begun, ended, its body, its timers.
 */
#include <stdio.h>

#include "../loop/loop_internal.h"
#include "client_internal.h"

#define EXPECT_MS          1000
#define BODY_PRESSURE      (64u * 1024)
#define IDLE_MS_DEFAULT    30000
#define ANSWER_MAX_DEFAULT (64u << 20)

struct bop__call *bop__call_of(const struct bop_http_call *handle)
{
    return (struct bop__call *)bop__slot_of(handle);
}

struct bop_http_call *bop__call_handle(const struct bop__call *call)
{
    return (struct bop_http_call *)bop__slot_handle(&call->slot);
}

/* ---- Ending ---- */

static void free_parts(struct bop__call *call)
{
    bop_buf_deinit(&call->method_text);
    bop_buf_deinit(&call->url);
    bop_buf_deinit(&call->fields);
    bop_buf_deinit(&call->body);
    bop_buf_deinit(&call->answer);
}

static void release(struct bop__call *call)
{
    if (!call->posted) {
        bop__pool_give(call->pool, &call->slot);
    }
}

void bop__call_detach(struct bop__call *call)
{
    if (call->conn != NULL) {
        call->conn->call_count--;
        call->conn = NULL;
    } else if (call->state == BOP__CALL_WAITING && !bop_list_empty(&call->link)) {
        call->client->waiting--;
    }
    bop_list_remove(&call->link);
}

static void stop(struct bop__call *call)
{
    bop__call_detach(call);
    bop_timer_stop(call->client->loop, &call->timeout);
    bop_timer_stop(call->client->loop, &call->soon);
    call->state = BOP__CALL_ENDED;
}

/* NUL-terminated: results are for people too. */
static const char *url_text(struct bop__call *call)
{
    return bop_buf_append(&call->url, "", 1) == 0 ? (const char *)call->url.data
                                                  : call->request.url;
}

static void tell(struct bop__call *call)
{
    struct bop_http_result result = {
        .code = call->error.code,
        .message = call->error.code != 0 ? call->error.message : "",
        .status = call->status,
        .body = bop_buf_slice(&call->answer),
        .redirects = call->redirects,
        .reused = call->reused,
    };

    result.url = url_text(call);
    if (result.code != 0) {
        call->client->counters.failed++;
    }
    bop_list_remove(&call->all);
    call->told = true;
    call->request.on_done(bop__call_handle(call), call->request.user, &result);
    free_parts(call);
    call->client = NULL;
    release(call);
}

void bop__call_end(struct bop__call *call, int code, const char *message)
{
    if (call->state != BOP__CALL_ENDED) {
        stop(call);
        if (code == 0) {
            call->error.code = 0;
        } else if (message != NULL) {
            BOP_IGNORE(bop_error_say(&call->error, code, "%s", message));
        } else {
            BOP_IGNORE(bop_error_set(&call->error, code, "call"));
        }
    }
    if (!call->told) {
        tell(call);
    }
}

static void on_post(struct bop_post *post)
{
    struct bop__call *call = BOP_CONTAINER_OF(post, struct bop__call, post);

    call->posted = false;
    if (call->told) {
        release(call);
    } else {
        tell(call);
    }
}

void bop__call_end_later(struct bop__call *call, int code)
{
    stop(call);
    if (call->error.code == 0) {
        BOP_IGNORE(bop_error_set(&call->error, code, "call"));
    }
    call->posted = true;
    bop_loop_post(call->client->loop, &call->post);
}

/* Whatever it has on its connection is of no use to the next one. */
static void leave_connection(struct bop__call *call)
{
    if (call->conn != NULL) {
        bop__conn_close(call->conn);
    }
}

void bop_http_call_cancel(struct bop_http_call *handle)
{
    struct bop__call *call = bop__call_of(handle);

    if (call != NULL && call->state != BOP__CALL_ENDED) {
        leave_connection(call);
        bop__call_end_later(call, BOP_ECANCELED);
    }
}

static void on_timeout(struct bop_timer *timer)
{
    struct bop__call *call = BOP_CONTAINER_OF(timer, struct bop__call, timeout);

    leave_connection(call);
    bop__call_end(call, BOP_ETIMEOUT, "the call took longer than it was given");
}

/* ---- Beginning ---- */

static void on_soon(struct bop_timer *timer)
{
    struct bop__call *call = BOP_CONTAINER_OF(timer, struct bop__call, soon);

    if (call->head_seen) {
        bop__conn_continue(call->conn); /* It was resumed. */
    } else {
        bop__call_send_body(call);
    }
}

static struct bop__call *create(struct bop_http_client *client)
{
    struct bop__call *call = (struct bop__call *)bop__pool_take(client->pool);

    if (call == NULL) {
        return NULL;
    }
    call->client = client;
    call->pool = client->pool;
    bop_list_init(&call->link);
    bop_list_init(&call->all);
    bop_timer_init(&call->timeout, on_timeout);
    bop_timer_init(&call->soon, on_soon);
    call->post.fn = on_post;
    bop_buf_init(&call->method_text, client->allocator, 0);
    bop_buf_init(&call->url, client->allocator, 0);
    bop_buf_init(&call->fields, client->allocator, 0);
    bop_buf_init(&call->body, client->allocator, 0);
    bop_buf_init(&call->answer, client->allocator, 0);
    return call;
}

static void set_defaults(struct bop_http_request *request)
{
    if (request->idle_timeout_ms == 0) {
        request->idle_timeout_ms = IDLE_MS_DEFAULT;
    }
    if (request->body_bytes_max == 0) {
        request->body_bytes_max = request->on_body != NULL ? UINT64_MAX : ANSWER_MAX_DEFAULT;
    }
}

int bop__call_enqueue(struct bop__call *call, bool first)
{
    struct bop__client_url url;
    struct bop__client_origin *origin = NULL;

    if (bop__client_url_split(bop_buf_slice(&call->url), &url)) {
        origin = bop__client_origin(call->client, &url, call->request.unix_path);
    }
    if (origin == NULL) {
        return BOP_ENOMEM;
    }
    call->state = BOP__CALL_WAITING;
    call->origin = origin;
    call->head_seen = false;
    call->body_allowed = false;
    call->body_sent = false;
    call->redirecting = false;
    bop_buf_clear(&call->answer);
    if (first) {
        bop_list_push_front(&origin->waiting, &call->link);
    } else {
        bop_list_push_back(&origin->waiting, &call->link);
    }
    call->client->waiting++;
    bop__origin_dispatch(origin);
    return 0;
}

static int make_own_tls(struct bop_http_client *client, struct bop_error *err)
{
    struct bop_tls_options options = {.server = false};

    if (client->options.tls == NULL && client->own_tls == NULL) {
        return bop_tls_create(&options, &client->own_tls, err);
    }
    return 0;
}

int bop_http_fetch(struct bop_http_client *client, const struct bop_http_request *request,
                   struct bop_http_call **out_call, struct bop_error *err)
{
    struct bop__client_url url;
    struct bop__call *call;
    int rc;

    if (client->destroying) {
        return bop_error_set(err, BOP_ECLOSED, "HTTP client");
    }
    if (client->waiting >= client->options.waiting_max) {
        return bop_error_set(err, BOP_EFULL, "%u HTTP calls wait for a connection",
                             client->waiting);
    }
    call = create(client);
    if (call == NULL) {
        return bop_error_set(err, BOP_ENOMEM, "HTTP call");
    }
    rc = bop__call_keep_request(call, request, err);
    set_defaults(&call->request);
    if (rc == 0 && bop__client_url_split(bop_buf_slice(&call->url), &url) && url.tls) {
        rc = make_own_tls(client, err);
    }
    if (rc == 0) {
        bop_list_push_back(&client->calls, &call->all);
        rc = bop__call_enqueue(call, false);
    }
    if (rc != 0) {
        bop_list_remove(&call->all);
        free_parts(call);
        release(call);
        return rc;
    }
    client->counters.calls++;
    bop__client_publish_soon(client);
    if (call->state != BOP__CALL_ENDED && request->timeout_ms != 0) {
        BOP_IGNORE(bop_timer_start(client->loop, &call->timeout, request->timeout_ms));
    }
    if (out_call != NULL) {
        *out_call = bop__call_handle(call);
    }
    return 0;
}

/* ---- Sending ---- */

void bop__call_send(struct bop__call *call)
{
    struct bop_http_client *client = call->client;
    bool has_body = call->body.size > 0 || call->request.body_later != 0;
    bool waits = has_body && call->request.expect_continue;
    struct bop_slice parts[2];
    int rc;

    call->state = BOP__CALL_SENT;
    bop_buf_clear(&client->out);
    rc = bop__call_write_head(call, &client->out);
    parts[0] = bop_buf_slice(&client->out);
    parts[1] = waits ? bop_slice(NULL, 0) : bop_buf_slice(&call->body);
    if (rc == 0) {
        rc = bop_socket_write_parts(call->conn->socket, parts, 2);
    }
    if (rc != 0) {
        bop__conn_close(call->conn);
        bop__call_end_later(call, rc);
        return;
    }
    bop_socket_set_idle_timeout(call->conn->socket, call->request.idle_timeout_ms);
    call->body_sent = !waits && call->request.body_later == 0;
    if (!call->body_sent) {
        /* Also to be told of being writable, which must come from the loop. */
        BOP_IGNORE(bop_timer_start(client->loop, &call->soon, waits ? EXPECT_MS : 0));
    }
}

void bop__call_send_body(struct bop__call *call)
{
    if (call->body_sent || call->body_allowed || call->conn == NULL) {
        return;
    }
    bop_timer_stop(call->client->loop, &call->soon);
    call->body_allowed = true;
    if (call->request.body_later != 0) {
        bop__call_writable(call);
        return;
    }
    call->body_sent = true;
    if (bop_socket_write(call->conn->socket, bop_buf_slice(&call->body)) != 0) {
        bop__conn_close(call->conn);
    }
}

void bop__call_writable(struct bop__call *call)
{
    if (call->body_allowed && !call->body_sent && call->request.on_writable != NULL) {
        call->request.on_writable(bop__call_handle(call), call->request.user);
    }
}

static int write_chunk(struct bop__call *call, struct bop_slice bytes, bool last)
{
    char size[24] = "";
    struct bop_slice parts[3] = {bop_slice(NULL, 0)};
    size_t count = 0;

    if (bytes.size > 0) {
        snprintf(size, sizeof(size), "%zx\r\n", bytes.size);
        parts[count++] = bop_slice_cstr(size);
        parts[count++] = bytes;
    }
    parts[count++] = bop_slice_cstr(bytes.size == 0 ? (last ? "0\r\n\r\n" : "")
                                    : last          ? "\r\n0\r\n\r\n"
                                                    : "\r\n");
    return bop_socket_write_parts(call->conn->socket, parts, count);
}

static int write_known(struct bop__call *call, struct bop_slice bytes, bool last)
{
    int rc;

    if (bytes.size > call->later_left || (last && bytes.size != call->later_left)) {
        return BOP_EINVAL;
    }
    rc = bop_socket_write(call->conn->socket, bytes);
    if (rc == 0) {
        call->later_left -= bytes.size;
    }
    return rc;
}

int bop_http_call_write(struct bop_http_call *handle, struct bop_slice bytes, bool last)
{
    struct bop__call *call = bop__call_of(handle);
    int rc;

    if (call == NULL || call->state == BOP__CALL_ENDED) {
        return BOP_ECLOSED;
    }
    if (!call->body_allowed || call->body_sent) {
        return call->body_sent ? BOP_EINVAL : BOP_EBUSY;
    }
    rc = call->request.body_later == UINT64_MAX ? write_chunk(call, bytes, last)
                                                : write_known(call, bytes, last);
    if (rc != 0) {
        return rc;
    }
    call->body_sent = last;
    return bop_socket_queued(call->conn->socket) > BODY_PRESSURE ? BOP_HTTP_CALL_PRESSURE : 0;
}

/* ---- Reading ---- */

void bop_http_call_pause(struct bop_http_call *handle)
{
    struct bop__call *call = bop__call_of(handle);

    if (call != NULL && call->state != BOP__CALL_ENDED) {
        call->paused = true;
        if (call->conn != NULL) {
            bop_socket_pause(call->conn->socket);
        }
    }
}

void bop_http_call_resume(struct bop_http_call *handle)
{
    struct bop__call *call = bop__call_of(handle);

    if (call != NULL && call->paused) {
        call->paused = false;
        if (call->conn != NULL) {
            bop_socket_resume(call->conn->socket);
        }
        if (call->conn != NULL && call->head_seen) {
            /* Its end may be all that is left, for which no bytes come. */
            BOP_IGNORE(bop_timer_start(call->client->loop, &call->soon, 0));
        }
    }
}
