/*
 * Requests of the HTTP API: a head, an empty line, a body. What is translated is an
 * operation, or a watch, that the decoder of frames takes as it is; whatever is refused is
 * a problem of its own kind. The body also goes by as a line of an import, as a message of a
 * WebSocket, as the result that the operation came to, and as events: what is answered or told
 * then is JSON, whatever bytes are in it.
 */
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "http/http.h"

static struct bop_router *router;
static struct bop_http_head head;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void answer_problem(const struct http_problem *problem)
{
    struct http_answer answer = {0};

    BOP_ASSERT(problem->kind > HTTP_NO_PROBLEM && problem->kind < HTTP_PROBLEM_COUNT);
    bop_buf_init(&answer.text, NULL, 0);
    BOP_ASSERT(bop__http_answer_problem(&answer, problem) == 0);
    BOP_ASSERT(bop_slice_is_utf8(answer.content));
    bop_buf_deinit(&answer.text);
}

/* A watch that is asked for is one that frames can ask for. */
static int open_watch(struct http_call *call, const struct http_watch *watch,
                      struct http_problem *problem)
{
    struct bop_watch_open_request open, again;
    struct bop_writer writer;
    struct bop_buf out;
    int rc = bop__http_watch_request(call, watch, &open, problem);

    if (rc == 0) {
        bop_buf_init(&out, NULL, 0);
        writer = bop_writer(&out);
        bop_watch_open_request_encode(&writer, &open);
        BOP_ASSERT(writer.code == 0);
        BOP_ASSERT(bop_watch_open_request_decode(bop_buf_slice(&out), &again) == 0);
        bop_buf_deinit(&out);
    }
    return rc;
}

static void take_message(struct bop_slice text)
{
    struct http_call call = {0};
    struct http_watch_message message;
    struct http_problem problem = {0};
    struct bop_arena arena;
    int rc;

    bop_arena_init(&arena, NULL, 0, 0);
    call.arena = &arena;
    rc = bop__http_take_watch_message(&call, text, &message, &problem);
    if (rc == 0 && message.kind == WATCH_MESSAGE_OPEN) {
        BOP_ASSERT(message.id != 0);
        rc = open_watch(&call, &message.watch, &problem);
    }
    if (rc < 0) {
        answer_problem(&problem);
    }
    bop_arena_deinit(&arena);
}

static int translate(struct http_call *call, const struct bop_router_match *match,
                     struct bop_slice body, struct bop_buf *out, struct http_problem *problem)
{
    struct bop_operation operation;
    int rc = bop__http_translate(call, &head, match, problem);

    if (rc == 0 && call->route->op != 0 && !(call->route->takes & TAKES_STREAM)) {
        rc = bop__http_translate_body(call, body, problem);
        if (rc == 0) {
            rc = bop__http_encode(call, out, problem);
        }
        if (rc == 0) {
            BOP_ASSERT(bop_operation_decode(bop_buf_slice(out), &operation) == 0);
            BOP_ASSERT(bop__http_form(operation.op) != NULL);
        }
    }
    if (rc == 0 && (call->route->takes & TAKES_WATCH)) {
        rc = open_watch(call, &call->watch, problem);
    }
    return rc;
}

static void import_line(struct bop_slice line)
{
    struct bop_buf key, value;

    bop_buf_init(&key, NULL, 0);
    bop_buf_init(&value, NULL, 0);
    BOP_IGNORE(bop__http_parse_line(line, &key, &value));
    bop_buf_deinit(&key);
    bop_buf_deinit(&value);
}

static void require_json(struct bop_slice text)
{
    json_error_t error;
    /* Numbers may be as large as a u64. */
    json_t *value = json_loadb((const char *)text.data, text.size,
                               JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);

    if (!value) {
        fprintf(stderr, "%s: %.*s\n", error.text, (int)text.size, (const char *)text.data);
    }
    BOP_ASSERT(value != NULL);
    json_decref(value);
}

/* What an operation came to. Results of transactions are those of its own operations. */
static void answer_result(const struct http_call *call, struct bop_slice bytes)
{
    struct http_answer answer = {0};
    struct bop_result result;

    if (call->route->op == 0 || call->operation.op == BOP_OP_TRANSACTION ||
        bop_result_decode(call->operation.op, BOP_STATUS_OK, bytes, &result) < 0) {
        return;
    }
    bop_buf_init(&answer.text, NULL, 0);
    BOP_ASSERT(bop__http_answer_result(&answer, call, &result) == 0);
    BOP_ASSERT(answer.status >= 200 && answer.status < 500);
    if (answer.type && strcmp(answer.type, "application/octet-stream") != 0) {
        require_json(answer.content);
    }
    bop_buf_deinit(&answer.text);
}

static void tell_events(struct bop_slice bytes)
{
    struct http_json json;
    struct bop_buf text;

    bop_buf_init(&text, NULL, 0);
    json = bop__http_json(&text);
    bop__json_open(&json, NULL, '[');
    bop__json_events(&json, bytes);
    bop__json_close(&json, ']');
    BOP_ASSERT(json.code == 0);
    require_json(bop_buf_slice(&text));
    bop_buf_deinit(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_router_match match;
    struct http_problem problem = {0};
    struct http_call call = {0};
    struct bop_slice body;
    struct bop_arena arena;
    struct bop_buf out;

    if (!router) {
        BOP_ASSERT(bop__http_router(NULL, &router) == 0);
    }
    if (bop_http1_parse_request(bop_slice(data, size), NULL, &head, NULL) != 0 ||
        !bop_router_match(router, bop_slice(NULL, 0), head.method_text, head.path, &match)) {
        return 0;
    }
    body = bop_slice(data + head.size, size - head.size);
    bop_arena_init(&arena, NULL, 0, 0);
    bop_buf_init(&out, NULL, 0);
    call.arena = &arena;
    if (bop__http_translate(&call, &head, &match, &problem) == 0) {
        answer_result(&call, body);
    }
    tell_events(body);
    call = (struct http_call){.arena = &arena};
    problem = (struct http_problem){0};
    if (translate(&call, &match, body, &out, &problem) < 0) {
        answer_problem(&problem);
    }
    import_line(body);
    take_message(body);
    bop_buf_deinit(&out);
    bop_arena_deinit(&arena);
    return 0;
}
