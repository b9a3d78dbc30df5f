/*
 * Waiting until all who watch something, and acknowledge what they hear, have heard what it is
 * now: after a registration was added, its address.
 */
#include <bop/watch.h>

#include "../service_settle.h"

#include "http.h"

/* The stream of its request. */
struct settling {
    struct http_request *request;
    struct settler settler;
    struct bop_buf payload; /* What the service is asked. */
};

static void end(struct http_request *request)
{
    struct settling *settling = request->stream;

    bop__service_settle_forget(&settling->settler);
    bop_buf_deinit(&settling->payload);
    bop_free(request->api->allocator, settling, sizeof(*settling));
}

static void settled(struct settler *settler, bool complete)
{
    struct settling *settling = BOP_CONTAINER_OF(settler, struct settling, settler);
    struct http_request *request = settling->request;
    struct http_json json = bop__http_json(&request->answer.text);

    bop__json_open(&json, NULL, '{');
    bop__json_bool(&json, "complete", complete);
    bop__json_close(&json, '}');
    if (json.code < 0) {
        bop__http_fail_with(request, HTTP_BUSY, "no memory for the answer");
        return;
    }
    bop__http_send_text(request, "application/json", 0);
}

static void read_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct http_request *request = BOP_CONTAINER_OF(read, struct http_request, read);
    struct settling *settling = request->stream;

    if (request->over) {
        bop__http_idle(request);
        return;
    }
    request->busy = false;
    if (code < 0) {
        bop__http_fail_with(request, HTTP_RETRY, "");
    } else if (!bop__service_settle_begin(request->api->backend.service, &settling->settler,
                                          bop_buf_slice(&settling->payload),
                                          bop__machine_view_position(view).index)) {
        bop__http_fail_with(request, HTTP_BUSY, "too many wait already");
    } else {
        bop_http_end_aborts(request->http); /* Nobody is waited for that has gone. */
    }
}

/* What is asked, in settling->payload. 0, BOP_EINVAL or BOP_ENOMEM. */
static int encode(struct settling *settling, const struct http_watch *watch)
{
    struct bop_watch_settle_request ask = {.what = watch->what,
                                           .name = watch->name,
                                           .key = watch->key,
                                           .timeout_ms = (uint32_t)watch->timeout_ms};
    struct bop_writer writer = bop_writer(&settling->payload);

    bop_watch_settle_request_encode(&writer, &ask);
    if (writer.code < 0) {
        return writer.code;
    }
    return bop_watch_settle_request_decode(bop_buf_slice(&settling->payload), &ask) < 0 ? BOP_EINVAL
                                                                                        : 0;
}

static int start(struct http_request *request)
{
    struct settling *settling = bop_alloc_zeroed(request->api->allocator, sizeof(*settling));

    if (!settling) {
        return BOP_ENOMEM;
    }
    settling->request = request;
    settling->settler.done = settled;
    bop_buf_init(&settling->payload, request->api->allocator, 0);
    request->stream = settling;
    request->stream_end = end;
    return encode(settling, &request->call.watch);
}

void bop__http_serve_settle(struct http_request *request)
{
    struct http_problem problem;
    int rc;

    if (bop__http_watch_authorise(&request->who, request->call.watch.name, &problem) < 0) {
        bop__http_fail(request, &problem);
        return;
    }
    rc = start(request);
    if (rc < 0) {
        bop__http_fail_with(request, rc == BOP_EINVAL ? HTTP_BAD_REQUEST : HTTP_BUSY,
                            rc == BOP_EINVAL ? "say kind and, but for session and names, name"
                                             : "no memory for this");
        return;
    }
    request->busy = true;
    request->read = (struct replica_read){.done = read_done};
    bop__replica_read(request->api->backend.replica, &request->read);
}
