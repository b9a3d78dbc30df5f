/*
 * /healthz: this process works; restart it if not. /readyz: it can serve; send it
 * requests only while it says so.
 */
#include <inttypes.h>

#include "status.h"

/* Entries behind what it knows to be committed that are no reason to send clients elsewhere. */
#define LAG_MAX 10000

void bop__http_serve_healthz(struct http_request *request)
{
    int code = bop__replica_failed(request->api->backend.replica);
    int rc;

    if (code != 0) {
        bop__http_fail_with(request, HTTP_FAILED, bop_strerror(code));
        return;
    }
    rc = bop_buf_append(&request->answer.text, "{\"status\":\"ok\"}", 15);
    bop__http_send_text(request, "application/json", rc);
}

/* 0, or -1 with why it is not ready. */
static int judge(struct http_api *api, struct http_problem *out_problem)
{
    struct bop_status_response status;

    bop__http_status(api, &status);
    /* "ok" but for no leader, an installation under way, a full disk, a failure. */
    if (!bop_slice_equal(status.health, bop_slice_cstr("ok"))) {
        return bop__http_problem(out_problem, HTTP_NOT_READY, "%.*s", (int)status.health.size,
                                 (const char *)status.health.data);
    }
    if (!bop__replica_machine(api->backend.replica)) {
        return bop__http_problem(out_problem, HTTP_NOT_READY, "installing a snapshot");
    }
    if (status.commit > status.applied && status.commit - status.applied > LAG_MAX) {
        return bop__http_problem(out_problem, HTTP_NOT_READY,
                                 "%" PRIu64 " entries are yet to be applied",
                                 status.commit - status.applied);
    }
    return 0;
}

static void answer_readiness(struct http_request *request, int code)
{
    struct http_json json = bop__http_json(&request->answer.text);
    struct bop_status_response status;
    struct http_problem problem;

    if (judge(request->api, &problem) < 0) {
        bop__http_fail(request, &problem);
        return;
    }
    if (code < 0) {
        bop__http_fail_with(request, HTTP_NOT_READY, "no majority confirms that the leader leads");
        return;
    }
    bop__http_status(request->api, &status);
    bop__json_open(&json, NULL, '{');
    bop__json_text(&json, "status", bop_slice_cstr("ready"));
    bop__json_text(&json, "state", bop_slice_cstr(bop__http_state_name(status.state)));
    bop__json_u64(&json, "leader", status.leader);
    bop__json_u64(&json, "applied", status.applied);
    bop__json_close(&json, '}');
    bop__http_send_text(request, "application/json", json.code);
}

static void read_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct http_request *request = BOP_CONTAINER_OF(read, struct http_request, read);

    if (request->over) {
        bop__http_idle(request);
        return;
    }
    request->busy = false;
    answer_readiness(request, code);
}

/* A node that lost its leader a moment ago does not know that yet. So it does what its clients
 * want of it: a linearizable read, which is answered when it is caught up with the leader. */
void bop__http_serve_readyz(struct http_request *request)
{
    struct http_problem problem;

    if (judge(request->api, &problem) < 0) {
        bop__http_fail(request, &problem);
        return;
    }
    request->busy = true;
    request->read = (struct replica_read){.done = read_done};
    bop__replica_read(request->api->backend.replica, &request->read);
}
