/*
 * Events after a revision, waited for: the answer is a page of those that there are,
 * or that come first, and the revision to ask with the next time.
 *
 * The request is a connection of the hub with one watch. What the hub tells in one turn
 * of the loop is one page; it is sent from a timer of no time, as a sink may not call the
 * hub, and the end of the request does.
 */
#include "../watch.h"

#include "http.h"

#define WATCH_ID 1
#define TYPE     "application/json"

/* The stream of its request. */
struct waiting {
    struct http_request *request;
    struct watch_conn *watches;
    struct bop_timer timer; /* For the end of the wait, or the end of the turn. */
    uint64_t revision;      /* All up to here is in the page. */
    bool has_events;
    bool live;    /* The past is told. */
    bool expired; /* It is to be answered as soon as it is live. */
    bool resync;  /* Events are missing: there is no answer but that. */
    bool denied;  /* It is not allowed any more; likewise. */
    int code;     /* Of writing. */
};

static void end(struct http_request *request)
{
    struct waiting *waiting = request->stream;

    bop_timer_stop(request->api->options.loop, &waiting->timer);
    bop__watch_disconnect(waiting->watches);
    bop_free(request->api->allocator, waiting, sizeof(*waiting));
}

/* ---- From the hub ---- */

static struct http_json page_of(struct waiting *waiting)
{
    return bop__http_json(&waiting->request->answer.text);
}

/* The array is open, and a comma goes before what is not its first event. */
static void add_events(struct waiting *waiting, struct bop_slice events)
{
    struct http_json json = page_of(waiting);
    size_t before = json.buf->size;

    if (!waiting->has_events) {
        bop__json_raw(&json, "{\"events\":[");
    }
    json.comma = waiting->has_events;
    bop__json_events(&json, events);
    waiting->has_events = true;
    waiting->code = json.code;
    if (json.code == 0 && !bop__http_hold(waiting->request, json.buf->size - before)) {
        waiting->code = BOP_EFULL;
    }
}

static void tell(void *user, uint32_t watch, const struct bop_watch_events *events)
{
    struct waiting *waiting = user;

    if (waiting->resync || waiting->denied || waiting->code < 0) {
        return;
    }
    waiting->revision = bop_max_u64(waiting->revision, events->revision);
    waiting->resync = (events->flags & BOP_WATCH_EVENTS_RESYNC) != 0;
    waiting->denied = (events->flags & BOP_WATCH_EVENTS_DENIED) != 0;
    waiting->live = waiting->live || (events->flags & BOP_WATCH_EVENTS_LIVE);
    if (events->events.size > 0) {
        add_events(waiting, events->events);
    }
    if (waiting->has_events || waiting->resync || waiting->denied || waiting->expired) {
        waiting->expired = true;
        if (bop_timer_start(waiting->request->api->options.loop, &waiting->timer, 0) < 0) {
            waiting->code = BOP_ENOMEM; /* The timer that runs already tells. */
        }
    }
}

/* Once a page is full the rest waits in the hub's history. */
static size_t queued(void *user)
{
    const struct waiting *waiting = user;

    return waiting->request->answer.text.size >= HTTP_WATCH_PAGE ? SIZE_MAX : 0;
}

static bool allows(void *user, const struct watch_subject *subject)
{
    struct waiting *waiting = user;

    return bop__http_watch_allows(&waiting->request->who, subject->name);
}

static const struct watch_sink sink = {.tell = tell, .queued = queued, .allows = allows};

/* ---- The answer ---- */

static void fail_compacted(struct http_request *request, uint64_t oldest)
{
    struct http_problem problem = {.kind = HTTP_COMPACTED, .has_oldest = true, .oldest = oldest};

    bop__http_fail(request, &problem);
}

/* It says why; what was told in the same turn is not sent. */
static void fail_denied(struct http_request *request)
{
    struct http_problem problem = {.kind = HTTP_DENIED};

    BOP_IGNORE(bop__http_watch_authorise(&request->who, request->call.operation.name, &problem));
    bop__http_fail(request, &problem);
}

static void answer(struct waiting *waiting)
{
    struct http_request *request = waiting->request;
    struct http_json json = page_of(waiting);

    if (!waiting->has_events) {
        bop__json_raw(&json, "{\"events\":[");
        waiting->revision = bop_max_u64(waiting->revision, bop__watch_conn_told(waiting->watches));
    }
    bop__json_close(&json, ']');
    bop__json_u64(&json, "revision", waiting->revision);
    bop__json_close(&json, '}');
    bop__http_send_text(request, TYPE, json.code);
}

static void on_timer(struct bop_timer *timer)
{
    struct waiting *waiting = BOP_CONTAINER_OF(timer, struct waiting, timer);

    if (waiting->code < 0) {
        bop__http_fail_with(waiting->request, HTTP_BUSY, "no memory for the events");
    } else if (waiting->denied) {
        fail_denied(waiting->request);
    } else if (waiting->resync) {
        fail_compacted(waiting->request, waiting->revision);
    } else if (waiting->has_events || waiting->live) {
        answer(waiting);
    } else {
        waiting->expired = true; /* tell() goes on, with the past or the news that it is over. */
    }
}

/* ---- The request ---- */

static void fail_open(struct http_request *request, uint8_t status, uint64_t revision)
{
    if (status == BOP_STATUS_COMPACTED) {
        fail_compacted(request, revision);
    } else if (status == BOP_STATUS_BAD_REQUEST) {
        bop__http_fail_with(request, HTTP_BAD_REQUEST, "no key can be within these bounds");
    } else {
        bop__http_fail_with(request, bop__http_problem_of_status(status), "");
    }
}

static int start(struct http_request *request, struct watch_hub *hub)
{
    struct waiting *waiting = bop_alloc_zeroed(request->api->allocator, sizeof(*waiting));

    if (!waiting) {
        return BOP_ENOMEM;
    }
    waiting->request = request;
    bop_timer_init(&waiting->timer, on_timer);
    request->stream = waiting;
    request->stream_end = end;
    if (bop__watch_connect(hub, &sink, waiting, &waiting->watches) < 0) {
        return BOP_ENOMEM;
    }
    return bop_timer_start(request->api->options.loop, &waiting->timer,
                           request->call.watch.timeout_ms);
}

void bop__http_serve_watch(struct http_request *request)
{
    struct bop_watch_open_request open;
    struct http_problem problem;
    struct waiting *waiting;
    uint64_t revision;
    uint8_t status;

    if (bop__http_watch_request(&request->call, &request->call.watch, &open, &problem) < 0 ||
        bop__http_watch_authorise(&request->who, open.name, &problem) < 0) {
        bop__http_fail(request, &problem);
        return;
    }
    if (request->head_only) { /* There is nothing to wait for. */
        bop__http_send_text(request, TYPE, 0);
        return;
    }
    if (start(request, bop__service_watches(request->api->backend.service)) < 0) {
        bop__http_fail_with(request, HTTP_BUSY, "no memory for a watch");
        return;
    }
    waiting = request->stream;
    status = bop__watch_open(waiting->watches, WATCH_ID, &open, &revision);
    if (status != BOP_STATUS_OK) {
        fail_open(request, status, revision);
        return;
    }
    waiting->revision = revision;
    waiting->live = open.revision == 0;
    bop_http_end_aborts(request->http); /* Nobody is waited for that has gone. */
}
