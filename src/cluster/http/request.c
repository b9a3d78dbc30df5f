/*
 * A request's life: its head is translated, its body gathered, its operation given
 * to the replica, its answer sent.
 *
 * It is over once it is answered or its connection gone, busy while the replica or
 * an executor has it; it is freed when it is over and not busy.
 */
#include <inttypes.h>
#include <stdio.h>

#include "http.h"

/* ---- Answers on the wire ---- */

static int add_headers(struct bop_http_exchange *http, const struct http_answer *answer)
{
    char text[32];
    int rc = bop_http_status(http, answer->status);

    if (rc == 0 && answer->type) {
        rc = bop_http_header(http, "Content-Type", bop_slice_cstr(answer->type));
    }
    if (rc == 0 && answer->type) {
        /* A browser must not take somebody's value for a page. */
        rc = bop_http_header(http, "X-Content-Type-Options", bop_slice_cstr("nosniff"));
    }
    if (rc == 0) {
        rc = bop_http_header(http, "Cache-Control", bop_slice_cstr("no-cache"));
    }
    if (rc == 0 && answer->has_version) {
        snprintf(text, sizeof(text), "\"%" PRIu64 "\"", answer->version);
        rc = bop_http_header(http, "ETag", bop_slice_cstr(text));
    }
    if (rc == 0 && answer->has_ttl) {
        snprintf(text, sizeof(text), "%" PRIu64, answer->ttl_ms);
        rc = bop_http_header(http, "BOP-TTL-Ms", bop_slice_cstr(text));
    }
    if (rc == 0 && answer->retry_after_s) {
        snprintf(text, sizeof(text), "%u", answer->retry_after_s);
        rc = bop_http_header(http, "Retry-After", bop_slice_cstr(text));
    }
    if (rc == 0 && answer->wants_token) {
        rc = bop_http_header(http, "WWW-Authenticate", bop_slice_cstr("Bearer"));
    }
    if (rc == 0 && answer->allow) {
        rc = bop_http_header(http, "Allow", bop_slice_cstr(answer->allow));
    }
    return rc;
}

int bop__http_send_answer(struct bop_http_exchange *http, const struct http_answer *answer)
{
    int rc = add_headers(http, answer);

    return rc == 0 ? bop_http_end(http, answer->content) : rc;
}

/* ---- The end ---- */

void bop__http_release(struct http_request *request, size_t bytes)
{
    size_t released = bytes < request->counted ? bytes : request->counted;

    request->api->body_bytes -= released;
    request->counted -= released;
}

static void drop_body(struct http_request *request)
{
    bop_buf_deinit(&request->body);
    bop_buf_deinit(&request->bytes);
    bop__http_release(request, request->counted);
}

static void free_request(struct http_request *request)
{
    struct http_api *api = request->api;

    if (request->stream_end) {
        request->stream_end(request);
    }
    drop_body(request);
    bop_buf_deinit(&request->answer.text);
    bop_arena_deinit(&request->arena);
    api->requests--;
    bop_free(api->allocator, request, sizeof(*request));
}

void bop__http_over(struct http_request *request)
{
    request->over = true;
    if (!request->busy) {
        free_request(request);
    }
}

void bop__http_idle(struct http_request *request)
{
    request->busy = false;
    if (request->over) {
        free_request(request);
    }
}

/* The connection is gone, or the server has answered in our place. */
static void on_abort(struct bop_http_exchange *http, void *user)
{
    bop__http_over(user);
}

void bop__http_send(struct http_request *request)
{
    if (bop__http_send_answer(request->http, &request->answer) >= 0) {
        bop__http_over(request);
    } else {
        bop_http_close(request->http); /* on_abort follows. */
    }
}

void bop__http_fail(struct http_request *request, const struct http_problem *problem)
{
    if (bop__http_answer_problem(&request->answer, problem) < 0) {
        bop_http_close(request->http); /* Not even memory to say so. */
        return;
    }
    bop__http_send(request);
}

void bop__http_fail_with(struct http_request *request, enum http_problem_kind kind,
                         const char *detail)
{
    struct http_problem problem = {.kind = kind};

    snprintf(problem.detail, sizeof(problem.detail), "%s", detail);
    bop__http_fail(request, &problem);
}

/* There is no memory to say what was done. Of what may have changed something, that is all that can
 * be said: "busy" would mean that it did not. */
static void fail_to_answer(struct http_request *request, bool changed)
{
    bop__http_fail_with(request, changed ? HTTP_UNCERTAIN : HTTP_BUSY, "no memory for the answer");
}

void bop__http_send_text(struct http_request *request, const char *type, int code)
{
    struct http_answer *answer = &request->answer;

    if (code < 0) {
        fail_to_answer(request, strcmp(request->route->method, "GET") != 0);
        return;
    }
    answer->status = answer->status ? answer->status : 200;
    answer->type = type;
    answer->content = bop_buf_slice(&answer->text);
    bop__http_send(request);
}

/* ---- The replica ---- */

/* Answer what became of the operation. */
static void finish(struct http_request *request, uint8_t status, struct bop_slice bytes)
{
    struct bop_result result;

    if (bop_result_decode(request->call.operation.op, status, bytes, &result) < 0) {
        bop__http_fail_with(request, HTTP_FAILED, "the result makes no sense");
    } else if (bop__http_answer_result(&request->answer, &request->call, &result) < 0) {
        fail_to_answer(request,
                       status == BOP_STATUS_OK && bop_op_is_write(request->call.operation.op));
    } else {
        bop__http_send(request);
    }
}

static void write_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct http_request *request = BOP_CONTAINER_OF(write, struct http_request, write);

    if (!request->over) {
        request->busy = false;
        finish(request, status, result);
    } else {
        bop__http_idle(request);
    }
}

static void submit_write(struct http_request *request)
{
    struct command command = {.kind = COMMAND_WRITE,
                              .session = request->call.session,
                              .sequence = request->call.sequence,
                              .acked = request->call.acked,
                              .operation = bop_buf_slice(&request->bytes)};
    uint8_t status;

    request->busy = true;
    request->write = (struct replica_write){.done = write_done,
                                            .retryable = request->call.session != 0};
    status = bop__replica_write(request->api->backend.replica, &request->write, &command);
    drop_body(request); /* The log has it, or nobody wants it. */
    if (status != BOP_STATUS_OK) {
        write_done(&request->write, status, bop_slice(NULL, 0));
    }
}

uint8_t bop__http_read_view(struct machine_view *view, const struct bop_operation *operation,
                            struct bop_buf *out)
{
    int rc = bop__machine_read(view, operation, out);

    return rc >= 0 ? (uint8_t)rc : BOP_STATUS_RETRY;
}

static void answer_read(struct http_request *request, struct machine_view *view)
{
    struct bop_buf out;
    uint8_t status;

    bop_buf_init(&out, request->api->allocator, 0);
    status = bop__http_read_view(view, &request->call.operation, &out);
    finish(request, status, status == BOP_STATUS_RETRY ? bop_slice(NULL, 0) : bop_buf_slice(&out));
    bop_buf_deinit(&out);
}

static void read_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct http_request *request = BOP_CONTAINER_OF(read, struct http_request, read);

    if (request->over) {
        bop__http_idle(request);
        return;
    }
    request->busy = false;
    if (code < 0) {
        finish(request, BOP_STATUS_RETRY, bop_slice(NULL, 0));
    } else {
        answer_read(request, view);
    }
}

static void submit_stale_read(struct http_request *request)
{
    struct replica *replica = request->api->backend.replica;
    struct machine_view *view;

    if (!bop__replica_machine(replica) || bop__replica_view_open(replica, &view) < 0) {
        finish(request, BOP_STATUS_RETRY, bop_slice(NULL, 0));
        return;
    }
    answer_read(request, view);
    bop__machine_view_close(view);
}

static void submit_read(struct http_request *request)
{
    if (request->call.stale) {
        submit_stale_read(request);
        return;
    }
    request->busy = true;
    request->read = (struct replica_read){.done = read_done};
    bop__replica_read(request->api->backend.replica, &request->read);
}

/* ---- Head and body ---- */

/* All of it is here. */
static void run(struct http_request *request)
{
    struct http_problem problem;

    if (request->route->serve) {
        if (request->body.size > 0 && !(request->route->takes & TAKES_JSON)) {
            bop__http_fail_with(request, HTTP_BAD_REQUEST, "no body is taken here");
            return;
        }
        request->route->serve(request);
        return;
    }
    if (bop__http_translate_body(&request->call, bop_buf_slice(&request->body), &problem) < 0 ||
        bop__http_encode(&request->call, &request->bytes, &problem) < 0 ||
        bop__http_authorise_operation(&request->who, &request->call.operation, &problem) < 0) {
        bop__http_fail(request, &problem);
    } else if (bop_op_is_write(request->call.operation.op)) {
        submit_write(request);
    } else {
        submit_read(request);
    }
}

bool bop__http_hold(struct http_request *request, size_t bytes)
{
    struct http_api *api = request->api;

    if (bytes > HTTP_BODIES_MAX || api->body_bytes > HTTP_BODIES_MAX - bytes) {
        return false;
    }
    api->body_bytes += bytes;
    request->counted += bytes;
    return true;
}

static void fail_too_big(struct http_request *request)
{
    struct http_problem problem;

    bop__http_problem(&problem, HTTP_TOO_BIG, "the body has more than %" PRIu64 " bytes",
                      bop__http_body_max(request->route));
    bop__http_fail(request, &problem);
}

static void on_body(struct bop_http_exchange *http, struct bop_slice bytes, bool last, void *user)
{
    struct http_request *request = user;

    if (request->body.size + bytes.size > bop__http_body_max(request->route)) {
        fail_too_big(request);
        return;
    }
    if (!bop__http_hold(request, bytes.size) ||
        bop_buf_append(&request->body, bytes.data, bytes.size) < 0) {
        bop__http_fail_with(request, HTTP_BUSY, "too many large requests at once");
        return;
    }
    if (last) {
        run(request);
    }
}

static void take_body(struct http_request *request, const struct bop_http_head *head)
{
    if (request->no_body || (request->route->takes & TAKES_STREAM)) {
        run(request);
    } else if (head->framing == BOP_HTTP_LENGTH &&
               head->content_length > bop__http_body_max(request->route)) {
        fail_too_big(request);
    } else if (bop_http_on_body(request->http, on_body, request) < 0) {
        bop_http_close(request->http);
    }
}

void bop__http_begin(struct http_api *api, struct bop_http_exchange *http,
                     const struct bop_http_head *head, const struct bop_router_match *match)
{
    struct http_request *request = bop_alloc_zeroed(api->allocator, sizeof(*request));
    struct http_problem problem;

    if (!request) {
        bop_http_close(http);
        return;
    }
    api->requests++;
    request->api = api;
    request->http = http;
    request->route = match->route;
    request->head_only = head->method == BOP_HTTP_HEAD;
    request->no_body = head->framing == BOP_HTTP_NO_BODY;
    bop_arena_init(&request->arena, api->allocator, HTTP_ARENA_BYTES, 0);
    request->call.arena = &request->arena;
    bop_buf_init(&request->body, api->allocator, 0);
    bop_buf_init(&request->bytes, api->allocator, 0);
    bop_buf_init(&request->answer.text, api->allocator, 0);
    bop_http_on_abort(http, on_abort, request);
    if (bop__http_translate(&request->call, head, match, &problem) < 0 ||
        bop__http_authorise(api, http, head, &request->call, &request->who, &problem) < 0) {
        bop__http_fail(request, &problem);
        return;
    }
    if ((request->route->takes & TAKES_WATCH) && bop_http_known(head, BOP_HTTP_UPGRADE).data) {
        bop__http_watch_upgrade(request, head);
    } else {
        take_body(request, head);
    }
}
