/*
 * A whole map as lines of JSON, page by page, as fast as the client takes them:
 * the next page is read when the one before has gone out.
 *
 * Each page is of one revision; between pages the map may change. The format is
 * that of `bop map export`.
 */
#include "http.h"

#define PAGE_ENTRIES 1000
#define NDJSON_TYPE  "application/x-ndjson"

/* The stream of its request. */
struct export
{
    struct bop_buf cursor; /* Where the next page begins. */
    struct bop_buf text;
    bool begun; /* The head of the answer is out. */
};

enum step {
    STEP_ENDED, /* The request must not be touched any more. */
    STEP_WAITS, /* For on_drain. */
    STEP_GOES_ON,
};

static void ask(struct http_request *request);

static void end(struct http_request *request)
{
    struct export *export = request->stream;

    bop_buf_deinit(&export->cursor);
    bop_buf_deinit(&export->text);
    bop_free(request->api->allocator, export, sizeof(*export));
}

/* What is not the whole must not look like it: the connection is cut. */
static enum step cut(struct http_request *request)
{
    bop_http_close(request->http); /* on_abort follows. */
    return STEP_ENDED;
}

static int write_lines(struct bop_buf *text, struct bop_slice entries)
{
    struct http_json json = bop__http_json(text);
    struct bop_scan_entry entry;

    bop_buf_clear(text);
    while (bop_scan_next(&entries, &entry)) {
        json.comma = false;
        bop__json_open(&json, NULL, '{');
        bop__json_bytes(&json, "key", entry.key);
        bop__json_bytes(&json, "value", entry.value);
        bop__json_close(&json, '}');
        bop__json_raw(&json, "\n");
    }
    return json.code;
}

static int begin(struct http_request *request)
{
    struct export *export = request->stream;

    export->begun = true;
    return bop_http_header(request->http, "Content-Type", bop_slice_cstr(NDJSON_TYPE));
}

static enum step write_page(struct http_request *request, const struct bop_result *page)
{
    struct export *export = request->stream;
    int rc = export->begun ? 0 : begin(request);

    bop_buf_clear(&export->cursor);
    if (rc == 0) {
        rc = bop_buf_append(&export->cursor, page->cursor.data, page->cursor.size);
    }
    if (rc == 0) {
        rc = write_lines(&export->text, page->entries);
    }
    if (rc == 0) {
        rc = bop_http_write(request->http, bop_buf_slice(&export->text));
    }
    if (rc < 0) {
        return cut(request);
    }
    if (export->cursor.size > 0) {
        return rc == BOP_HTTP_PRESSURE ? STEP_WAITS : STEP_GOES_ON;
    }
    if (bop_http_end(request->http, bop_slice(NULL, 0)) < 0) {
        return cut(request);
    }
    bop__http_over(request);
    return STEP_ENDED;
}

static enum step fail(struct http_request *request, uint8_t status)
{
    struct export *export = request->stream;

    if (export->begun) {
        return cut(request);
    }
    bop__http_fail_with(request, bop__http_problem_of_status(status), "");
    return STEP_ENDED;
}

static enum step take_page(struct http_request *request, struct machine_view *view)
{
    struct bop_operation *operation = &request->call.operation;
    struct export *export = request->stream;
    struct bop_result page;
    struct bop_buf out;
    enum step step;
    uint8_t status;

    operation->cursor = bop_buf_slice(&export->cursor);
    bop_buf_init(&out, request->api->allocator, 0);
    status = bop__http_read_view(view, operation, &out);
    if (status != BOP_STATUS_OK) {
        step = fail(request, status);
    } else if (bop_result_decode(operation->op, status, bop_buf_slice(&out), &page) < 0) {
        step = cut(request);
    } else {
        step = write_page(request, &page);
    }
    bop_buf_deinit(&out);
    return step;
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
        BOP_IGNORE(fail(request, BOP_STATUS_RETRY)); /* Ended either way. */
    } else if (take_page(request, view) == STEP_GOES_ON) {
        ask(request);
    }
}

static void read_stale(struct http_request *request)
{
    struct replica *replica = request->api->backend.replica;
    struct machine_view *view;
    enum step step;

    do {
        if (!bop__replica_machine(replica) || bop__replica_view_open(replica, &view) < 0) {
            BOP_IGNORE(fail(request, BOP_STATUS_RETRY)); /* Ended either way. */
            return;
        }
        step = take_page(request, view);
        bop__machine_view_close(view);
    } while (step == STEP_GOES_ON);
}

static void ask(struct http_request *request)
{
    if (request->call.stale) {
        read_stale(request);
        return;
    }
    request->busy = true;
    request->read = (struct replica_read){.done = read_done};
    bop__replica_read(request->api->backend.replica, &request->read);
}

static void on_drain(struct bop_http_exchange *http, void *user)
{
    struct http_request *request = user;

    if (!request->busy) {
        ask(request);
    }
}

void bop__http_serve_export(struct http_request *request)
{
    struct http_problem problem;
    struct export *export;

    if (bop__http_encode(&request->call, &request->bytes, &problem) < 0) {
        bop__http_fail(request, &problem);
        return;
    }
    if (request->head_only) { /* Its body would be read for nobody. */
        request->answer.type = NDJSON_TYPE;
        bop__http_send_text(request, NDJSON_TYPE, 0);
        return;
    }
    export = bop_alloc_zeroed(request->api->allocator, sizeof(*export));
    if (!export) {
        bop__http_fail_with(request, HTTP_BUSY, "no memory for an export");
        return;
    }
    bop_buf_init(&export->cursor, request->api->allocator, 0);
    bop_buf_init(&export->text, request->api->allocator, 0);
    request->stream = export;
    request->stream_end = end;
    request->call.operation.limit = PAGE_ENTRIES;
    bop_http_on_drain(request->http, on_drain, request);
    ask(request);
}
