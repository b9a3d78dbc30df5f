/*
 * Sessions by HTTP: opened, kept alive and closed here; used by BOP-Session and
 * BOP-Sequence of any write, which is then done once however often it is sent.
 */
#include <jansson.h>

#include <bop/random.h>

#include "http.h"

#define TIMEOUT_DEFAULT_MS 10000

/* What is told of a session that was opened; the stream of its request. */
struct opening {
    uint32_t timeout_ms;
    uint32_t grace_ms;
    uint8_t token[BOP_TOKEN_SIZE];
};

static void end(struct http_request *request)
{
    bop_free(request->api->allocator, request->stream, sizeof(struct opening));
}

static void fail_with_status(struct http_request *request, uint8_t status)
{
    bop__http_fail_with(request, bop__http_problem_of_status(status), "");
}

static void tell(struct http_request *request, uint64_t session)
{
    const struct opening *opening = request->stream;
    struct http_json json = bop__http_json(&request->answer.text);

    bop__json_open(&json, NULL, '{');
    bop__json_u64(&json, "session", session);
    bop__json_raw(&json, ",\"token\":\"");
    if (json.code == 0) {
        json.code = bop__base64_encode(json.buf, bop_slice(opening->token, BOP_TOKEN_SIZE), true);
    }
    bop__json_raw(&json, "\"");
    bop__json_u64(&json, "timeout_ms", opening->timeout_ms);
    bop__json_u64(&json, "grace_ms", opening->grace_ms);
    bop__json_close(&json, '}');
    request->answer.status = 201;
    bop__http_send_text(request, "application/json", json.code);
}

static void open_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct http_request *request = BOP_CONTAINER_OF(write, struct http_request, write);

    if (request->over) {
        bop__http_idle(request); /* Nobody knows the session: it will expire. */
        return;
    }
    request->busy = false;
    if (status == BOP_STATUS_OK) {
        tell(request, bop_load_u64(result.data));
    } else {
        fail_with_status(request, status);
    }
}

/* A whole number under this name, if there is one. 0, or -1. */
static int take_ms(const json_t *object, const char *name, json_int_t least, size_t *taken,
                   uint32_t *out_ms)
{
    const json_t *value = json_object_get(object, name);
    json_int_t number = json_integer_value(value);

    if (!value) {
        return 0;
    }
    ++*taken;
    *out_ms = (uint32_t)bop_min_u64((uint64_t)number, UINT32_MAX);
    return json_is_integer(value) && number >= least ? 0 : -1;
}

/* {"timeout_ms": 10000, "grace_ms": 0}. 0, or -1. */
static int take_terms(struct bop_slice body, struct command *command)
{
    json_t *object = body.size == 0 ? json_object()
                                    : json_loadb((const char *)body.data, body.size,
                                                 JSON_REJECT_DUPLICATES, NULL);
    uint32_t timeout_ms = TIMEOUT_DEFAULT_MS, grace_ms = 0;
    size_t taken = 0;
    bool good = json_is_object(object) &&
                take_ms(object, "timeout_ms", 1, &taken, &timeout_ms) == 0 &&
                take_ms(object, "grace_ms", 0, &taken, &grace_ms) == 0 &&
                json_object_size(object) == taken;

    json_decref(object);
    command->timeout_ms = bop__machine_session_timeout(timeout_ms);
    command->grace_ms = (uint32_t)bop_min_u64(grace_ms, command->timeout_ms);
    return good ? 0 : -1;
}

void bop__http_serve_session_open(struct http_request *request)
{
    struct command command = {.kind = COMMAND_SESSION_OPEN};
    struct opening *opening;
    uint8_t status;

    if (take_terms(bop_buf_slice(&request->body), &command) < 0) {
        bop__http_fail_with(request, HTTP_BAD_REQUEST,
                            "write {\"timeout_ms\": 10000, \"grace_ms\": 2000}, or one of them");
        return;
    }
    opening = bop_alloc_zeroed(request->api->allocator, sizeof(*opening));
    if (!opening || bop_random_secret(command.token, sizeof(command.token)) < 0) {
        bop_free(request->api->allocator, opening, sizeof(*opening));
        bop__http_fail_with(request, HTTP_BUSY, "no memory for a session");
        return;
    }
    opening->timeout_ms = command.timeout_ms;
    opening->grace_ms = command.grace_ms;
    memcpy(opening->token, command.token, sizeof(command.token));
    request->stream = opening;
    request->stream_end = end;
    request->busy = true;
    request->write = (struct replica_write){.done = open_done, .retryable = true};
    status = bop__replica_write(request->api->backend.replica, &request->write, &command);
    if (status != BOP_STATUS_OK) {
        open_done(&request->write, status, bop_slice(NULL, 0));
    }
}

static void alive_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct http_request *request = BOP_CONTAINER_OF(read, struct http_request, read);
    struct machine *machine = bop__replica_machine(request->api->backend.replica);
    struct http_json json = bop__http_json(&request->answer.text);

    if (request->over) {
        bop__http_idle(request);
        return;
    }
    request->busy = false;
    if (code < 0 || !machine) {
        fail_with_status(request, BOP_STATUS_RETRY);
        return;
    }
    if (!bop__machine_session_check(machine, request->call.session, NULL)) {
        fail_with_status(request, BOP_STATUS_NO_SESSION);
        return;
    }
    bop__json_open(&json, NULL, '{');
    bop__json_bool(&json, "alive", true);
    bop__json_close(&json, '}');
    bop__http_send_text(request, "application/json", json.code);
}

void bop__http_serve_session_alive(struct http_request *request)
{
    struct replica *replica = request->api->backend.replica;

    bop__replica_session_alive(replica, request->call.session);
    request->busy = true;
    request->read = (struct replica_read){.done = alive_done};
    bop__replica_read(replica, &request->read);
}

static void close_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct http_request *request = BOP_CONTAINER_OF(write, struct http_request, write);
    struct http_json json = bop__http_json(&request->answer.text);

    if (request->over) {
        bop__http_idle(request);
        return;
    }
    request->busy = false;
    if (status != BOP_STATUS_OK) {
        fail_with_status(request, status);
        return;
    }
    bop__json_open(&json, NULL, '{');
    bop__json_bool(&json, "closed", true);
    bop__json_close(&json, '}');
    bop__http_send_text(request, "application/json", json.code);
}

void bop__http_serve_session_close(struct http_request *request)
{
    struct command command = {.kind = COMMAND_SESSION_CLOSE, .session = request->call.session};
    uint8_t status;

    if (!request->call.has_token) {
        bop__http_fail_with(request, HTTP_BAD_REQUEST,
                            "BOP-Token is to be the token that came with the session");
        return;
    }
    memcpy(command.token, request->call.token, sizeof(command.token));
    request->busy = true;
    request->write = (struct replica_write){.done = close_done, .retryable = true};
    status = bop__replica_write(request->api->backend.replica, &request->write, &command);
    if (status != BOP_STATUS_OK) {
        close_done(&request->write, status, bop_slice(NULL, 0));
    }
}
