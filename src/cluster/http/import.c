/*
 * Lines of JSON into a map, many writes under way at a time; while there are enough,
 * the body is not read on.
 *
 * Entries are written in their order, so of two with one key the later one stays.
 * The first failure ends it: what was stored till then is counted in the answer.
 */
#include <inttypes.h>
#include <jansson.h>

#include "http.h"

#define OUTSTANDING_MAX 256 /* Writes under way... */
#define OUTSTANDING_LOW (OUTSTANDING_MAX / 2)
#define BYTES_MAX       (8u * 1024 * 1024) /* ...and their bytes, where there are several. */
/* A line with the longest key and value where JSON takes six bytes for each of theirs. */
#define LINE_MAX_BYTES (64u * 1024 * 1024)

/* The stream of its request. Lines that are yet to be taken are in the request's body. */
struct import {
    unsigned outstanding;
    size_t bytes; /* Of those. */
    uint64_t stored;
    uint64_t line;
    size_t scanned; /* Of the body, without a line feed. */
    bool ended;     /* The body is all there. */
    bool failed;
    bool paused;
    struct http_problem problem;
    struct bop_buf key;
    struct bop_buf value;
};

struct import_write {
    struct replica_write write;
    struct http_request *request;
    size_t bytes;
};

static void go_on(struct http_request *request);

static void end(struct http_request *request)
{
    struct import *import = request->stream;

    bop_buf_deinit(&import->key);
    bop_buf_deinit(&import->value);
    bop_free(request->api->allocator, import, sizeof(*import));
}

/* The first failure counts. */
static void note(struct import *import, enum http_problem_kind kind, const char *text)
{
    if (!import->failed) {
        import->failed = true;
        bop__http_problem(&import->problem, kind, "line %" PRIu64 ": %s", import->line, text);
    }
}

/* ---- Writing ---- */

static void write_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct import_write *entry = BOP_CONTAINER_OF(write, struct import_write, write);
    struct http_request *request = entry->request;
    struct import *import = request->stream;

    import->outstanding--;
    import->bytes -= entry->bytes;
    bop_free(request->api->allocator, entry, sizeof(*entry));
    if (status == BOP_STATUS_OK) {
        import->stored++;
    } else if (!import->failed) {
        /* Which line it was is not known any more, and the next attempt begins anew. */
        import->failed = true;
        import->problem = (struct http_problem){.kind = bop__http_problem_of_status(status)};
    }
    request->busy = import->outstanding > 0;
    if (!request->over) {
        go_on(request);
    } else if (!request->busy) {
        bop__http_idle(request);
    }
}

/* Put the entry in key and value. The bop_status: BUSY if it is to be tried again later. */
static uint8_t put(struct http_request *request)
{
    struct import *import = request->stream;
    struct command command = {.kind = COMMAND_WRITE};
    struct import_write *entry;
    struct http_problem problem;
    uint8_t status;

    request->call.operation.key = bop_buf_slice(&import->key);
    request->call.operation.value = bop_buf_slice(&import->value);
    if (bop__http_encode(&request->call, &request->bytes, &problem) < 0) {
        note(import, problem.kind, problem.detail);
        return BOP_STATUS_BAD_REQUEST;
    }
    entry = bop_alloc(request->api->allocator, sizeof(*entry));
    if (!entry) {
        return BOP_STATUS_BUSY;
    }
    *entry = (struct import_write){
        .write = {.done = write_done}, .request = request, .bytes = request->bytes.size};
    command.operation = bop_buf_slice(&request->bytes);
    status = bop__replica_write(request->api->backend.replica, &entry->write, &command);
    if (status != BOP_STATUS_OK) {
        bop_free(request->api->allocator, entry, sizeof(*entry));
        return status;
    }
    import->outstanding++;
    import->bytes += entry->bytes;
    request->busy = true;
    return status;
}

/* ---- Lines ---- */

/* The bytes under "name" or "name64". */
static int get_bytes(const json_t *object, const char *name, const char *name64,
                     struct bop_buf *out)
{
    const json_t *plain = json_object_get(object, name);
    const json_t *coded = json_object_get(object, name64);
    const json_t *string = plain ? plain : coded;
    struct bop_slice text;

    bop_buf_clear(out);
    if ((plain != NULL) == (coded != NULL) || !json_is_string(string)) {
        return BOP_EMALFORMED;
    }
    text = bop_slice(json_string_value(string), json_string_length(string));
    return plain ? bop_buf_append(out, text.data, text.size) : bop__base64_decode(out, text, false);
}

int bop__http_parse_line(struct bop_slice line, struct bop_buf *key, struct bop_buf *value)
{
    json_error_t trouble;
    json_t *object = json_loadb(line.size > 0 ? (const char *)line.data : "", line.size,
                                JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &trouble);
    int rc = json_is_object(object) ? get_bytes(object, "key", "key64", key) : BOP_EMALFORMED;

    if (rc == 0) {
        rc = get_bytes(object, "value", "value64", value);
    }
    json_decref(object);
    return rc;
}

static bool is_blank(struct bop_slice line)
{
    for (size_t at = 0; at < line.size; at++) {
        if (!strchr(" \t\r\n", line.data[at]) || line.data[at] == '\0') {
            return false;
        }
    }
    return true;
}

/* False: not taken, and to be tried again later. */
static bool take_line(struct http_request *request, struct bop_slice line)
{
    struct import *import = request->stream;
    uint8_t status;
    int rc;

    import->line++;
    if (is_blank(line)) {
        return true;
    }
    rc = bop__http_parse_line(line, &import->key, &import->value);
    if (rc < 0) {
        note(import, rc == BOP_ENOMEM ? HTTP_BUSY : HTTP_BAD_REQUEST,
             rc == BOP_ENOMEM
                 ? "no memory"
                 : "not an object with \"key\" or \"key64\", \"value\" or \"value64\"");
        return true;
    }
    status = put(request);
    if (status == BOP_STATUS_BUSY && import->outstanding > 0) {
        import->line--;
        return false;
    }
    if (status != BOP_STATUS_OK) {
        note(import, bop__http_problem_of_status(status), "not stored");
    }
    return true;
}

/* The end of the line that begins at `at`, its feed included; 0: it is not all there. */
static size_t find_end(struct http_request *request, size_t at)
{
    struct import *import = request->stream;
    const struct bop_buf *body = &request->body;
    size_t from = import->scanned > at ? import->scanned : at;
    const uint8_t *feed = body->size > from ? memchr(body->data + from, '\n', body->size - from)
                                            : NULL;

    if (feed) {
        return (size_t)(feed - body->data) + 1;
    }
    import->scanned = body->size;
    return import->ended && body->size > at ? body->size : 0;
}

static bool is_full(const struct import *import)
{
    return import->outstanding >= OUTSTANDING_MAX ||
           (import->outstanding > 0 && import->bytes > BYTES_MAX);
}

/* Take the lines that are there. Returns whether more could be taken. */
static bool take_lines(struct http_request *request)
{
    struct import *import = request->stream;
    size_t at = 0, next;
    bool hungry = true;

    while (hungry && !import->failed) {
        next = is_full(import) ? 0 : find_end(request, at);
        if (next == 0) {
            hungry = !is_full(import);
            break;
        }
        hungry = take_line(request, bop_slice(request->body.data + at, next - at));
        at = hungry ? next : at;
    }
    bop_buf_consume(&request->body, at);
    bop__http_release(request, at);
    import->scanned -= bop_min_u64(import->scanned, at);
    return hungry;
}

/* ---- The stream ---- */

static void answer(struct http_request *request)
{
    struct import *import = request->stream;
    struct http_json json = bop__http_json(&request->answer.text);

    if (import->failed) {
        import->problem.has_stored = true;
        import->problem.stored = import->stored;
        bop__http_fail(request, &import->problem);
        return;
    }
    bop__json_open(&json, NULL, '{');
    bop__json_u64(&json, "stored", import->stored);
    bop__json_close(&json, '}');
    bop__http_send_text(request, "application/json", json.code);
}

static void pause_reading(struct http_request *request, bool pause)
{
    struct import *import = request->stream;

    if (import->paused == pause || import->ended) {
        return;
    }
    import->paused = pause;
    if (pause) {
        bop_http_pause(request->http);
    } else {
        bop_http_resume(request->http);
    }
}

/* Something has changed: more of the body is there, or fewer writes are under way. */
static void go_on(struct http_request *request)
{
    struct import *import = request->stream;
    bool hungry = false;

    if (!import->failed && (!import->paused || import->outstanding <= OUTSTANDING_LOW)) {
        hungry = take_lines(request);
    }
    if (!import->failed && request->body.size > LINE_MAX_BYTES && hungry) {
        import->line++;
        note(import, HTTP_TOO_BIG, "longer than 64 MiB");
    }
    if (import->outstanding == 0 &&
        (import->failed || (import->ended && request->body.size == 0))) {
        answer(request);
        return;
    }
    pause_reading(request, import->failed || !hungry);
}

static void on_body(struct bop_http_exchange *http, struct bop_slice bytes, bool last, void *user)
{
    struct http_request *request = user;
    struct import *import = request->stream;

    import->ended = last;
    if (!import->failed && (!bop__http_hold(request, bytes.size) ||
                            bop_buf_append(&request->body, bytes.data, bytes.size) < 0)) {
        note(import, HTTP_BUSY, "too many large requests at once");
    }
    go_on(request);
}

void bop__http_serve_import(struct http_request *request)
{
    struct import *import = bop_alloc_zeroed(request->api->allocator, sizeof(*import));

    if (!import) {
        bop__http_fail_with(request, HTTP_BUSY, "no memory for an import");
        return;
    }
    bop_buf_init(&import->key, request->api->allocator, 0);
    bop_buf_init(&import->value, request->api->allocator, 0);
    request->stream = import;
    request->stream_end = end;
    if (request->no_body) {
        answer(request);
    } else if (bop_http_on_body(request->http, on_body, request) < 0) {
        bop_http_close(request->http);
    }
}
