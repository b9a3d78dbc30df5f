/*
 * Watches on a WebSocket: the wire protocol's kinds 150 to 156 as messages of JSON.
 *
 * What is slow is bounded as for its own connections: above WATCH_QUEUE_HIGH the hub
 * queues nothing more, and goes on from its history when there is room again. What cannot
 * be queued for want of memory ends the connection: nothing is left out in silence.
 *
 * A WebSocket on which the token of a session was shown stands for it, as a client's
 * connection does: when it breaks, the session has its grace from then on. The last one on
 * which it was shown is the one that counts.
 */
#include <bop/ws.h>

#include "../watch.h"

#include "http.h"

#define KEPT_BYTES (64u * 1024) /* Of the buffer that messages are written to. */

struct watcher {
    struct bop_list standing; /* Of the api's, while it stands for... */
    uint64_t session;         /* ...this one. */
    struct replica_read read; /* Whether the token that was shown... */
    struct {
        bool busy;
        uint32_t id;
        uint64_t session;
        uint8_t token[BOP_TOKEN_SIZE];
    } shown;     /* ...is that of this one. */
    bool closed; /* The read is waited for, and nothing else. */
    struct http_api *api;
    struct bop_ws *ws;
    struct watch_conn *watches;
    struct auth_who who;
    struct bop_buf text;
};

/* ---- Sending ---- */

static struct http_json begin(struct watcher *watcher)
{
    struct http_json json = bop__http_json(&watcher->text);

    bop_buf_clear(&watcher->text);
    bop__json_open(&json, NULL, '{');
    return json;
}

static void send(struct watcher *watcher, struct http_json *json)
{
    int rc;

    bop__json_close(json, '}');
    rc = json->code < 0 ? json->code
                        : bop_ws_send(watcher->ws, BOP_WS_TEXT, bop_buf_slice(&watcher->text));
    if (rc < 0) {
        bop_ws_terminate(watcher->ws); /* on_close follows, from the loop. */
    }
    if (watcher->text.capacity > KEPT_BYTES) {
        bop_buf_deinit(&watcher->text);
        bop_buf_init(&watcher->text, watcher->api->allocator, 0);
    }
}

static void send_problem(struct watcher *watcher, uint32_t id, const struct http_problem *problem)
{
    struct http_json json = begin(watcher);

    if (id != 0) {
        bop__json_u64(&json, "id", id);
    }
    bop__json_problem(&json, "problem", problem);
    send(watcher, &json);
}

static void send_problem_with(struct watcher *watcher, uint32_t id, enum http_problem_kind kind,
                              const char *detail)
{
    struct http_problem problem;

    bop__http_problem(&problem, kind, "%s", detail);
    send_problem(watcher, id, &problem);
}

static void write_flag(struct http_json *json, const char *name, uint8_t flags, uint8_t flag)
{
    if (flags & flag) {
        bop__json_bool(json, name, true);
    }
}

static void tell(void *user, uint32_t watch, const struct bop_watch_events *events)
{
    struct watcher *watcher = user;
    struct http_json json;

    if (events->flags & BOP_WATCH_EVENTS_DENIED) {
        send_problem_with(watcher, watch, HTTP_DENIED,
                          "the watch is over: the token that was shown does not allow it any more");
        return;
    }
    json = begin(watcher);
    if (watch != 0) {
        bop__json_u64(&json, "id", watch);
    }
    bop__json_u64(&json, "revision", events->revision);
    if (events->events.size > 0) {
        bop__json_open(&json, "events", '[');
        bop__json_events(&json, events->events);
        bop__json_close(&json, ']');
    }
    write_flag(&json, "progress", events->flags, BOP_WATCH_EVENTS_PROGRESS);
    write_flag(&json, "snapshot", events->flags, BOP_WATCH_EVENTS_SNAPSHOT);
    write_flag(&json, "resync", events->flags, BOP_WATCH_EVENTS_RESYNC);
    write_flag(&json, "more", events->flags, BOP_WATCH_EVENTS_MORE);
    write_flag(&json, "live", events->flags, BOP_WATCH_EVENTS_LIVE);
    send(watcher, &json);
}

static size_t queued(void *user)
{
    const struct watcher *watcher = user;

    return bop_ws_queued(watcher->ws);
}

static bool allows(void *user, const struct watch_subject *subject)
{
    return bop__http_watch_allows(&((struct watcher *)user)->who, subject->name);
}

static const struct watch_sink sink = {.tell = tell, .queued = queued, .allows = allows};

/* ---- Messages ---- */

static void answer_open(struct watcher *watcher, uint32_t id, uint8_t status, uint64_t revision)
{
    struct http_problem problem = {.kind = bop__http_problem_of_status(status)};
    struct http_json json;

    if (status == BOP_STATUS_BAD_REQUEST) {
        send_problem_with(watcher, id, HTTP_BAD_REQUEST,
                          "this id has a watch already, or no key can be within these bounds");
    } else if (status != BOP_STATUS_OK) {
        problem.has_oldest = status == BOP_STATUS_COMPACTED;
        problem.oldest = revision;
        send_problem(watcher, id, &problem);
    } else {
        json = begin(watcher);
        bop__json_u64(&json, "id", id);
        bop__json_bool(&json, "opened", true);
        bop__json_u64(&json, "revision", revision);
        send(watcher, &json);
    }
}

static void open_watch(struct watcher *watcher, struct http_call *call,
                       const struct http_watch_message *message)
{
    struct watch_hub *hub = bop__service_watches(watcher->api->backend.service);
    struct bop_watch_open_request open;
    struct http_problem problem;
    uint64_t revision;
    uint8_t status;

    if (bop__http_watch_request(call, &message->watch, &open, &problem) < 0 ||
        bop__http_watch_authorise(&watcher->who, open.name, &problem) < 0) {
        send_problem(watcher, message->id, &problem);
        return;
    }
    if (!watcher->watches && bop__watch_connect(hub, &sink, watcher, &watcher->watches) < 0) {
        send_problem_with(watcher, message->id, HTTP_BUSY, "no memory for watches");
        return;
    }
    status = bop__watch_open(watcher->watches, message->id, &open, &revision);
    answer_open(watcher, message->id, status, revision);
}

/* ---- Standing for a session ---- */

static void stand_for_nothing(struct watcher *watcher)
{
    bop_list_remove(&watcher->standing);
    bop_list_init(&watcher->standing);
    watcher->session = 0;
}

static void stand_for(struct watcher *watcher, uint64_t session)
{
    struct bop_list *all = &watcher->api->standing;

    BOP_LIST_FOR_EACH(link, all) {
        struct watcher *other = BOP_CONTAINER_OF(link, struct watcher, standing);

        if (other->session == session) {
            stand_for_nothing(other);
            break;
        }
    }
    stand_for_nothing(watcher);
    watcher->session = session;
    bop_list_push_back(all, &watcher->standing);
    bop__replica_session_alive(watcher->api->backend.replica, session);
}

static void free_watcher(struct watcher *watcher);

/* What a session is can only be told as of now: through a read. */
static void shown(struct replica_read *read, int code, struct machine_view *view)
{
    struct watcher *watcher = BOP_CONTAINER_OF(read, struct watcher, read);
    uint64_t session = watcher->shown.session;
    struct machine *machine;
    struct http_json json;

    watcher->shown.busy = false;
    if (watcher->closed) {
        free_watcher(watcher);
        return;
    }
    machine = bop__replica_machine(watcher->api->backend.replica);
    if (code < 0 || !machine) {
        send_problem_with(watcher, watcher->shown.id, HTTP_RETRY, "");
    } else if (!bop__machine_session_check(machine, session, NULL)) {
        send_problem_with(watcher, watcher->shown.id, HTTP_NO_SESSION, "");
    } else if (!bop__machine_session_check(machine, session, watcher->shown.token)) {
        send_problem_with(watcher, watcher->shown.id, HTTP_REFUSED, "the token is another one's");
    } else {
        stand_for(watcher, session);
        json = begin(watcher);
        bop__json_u64(&json, "id", watcher->shown.id);
        bop__json_u64(&json, "session", session);
        bop__json_bool(&json, "alive", true);
        send(watcher, &json);
    }
}

static void show(struct watcher *watcher, const struct http_watch_message *message)
{
    if (!bop__auth_known(&watcher->who)) {
        send_problem_with(watcher, message->id, HTTP_DENIED,
                          "the token that was shown is not known any more");
        return;
    }
    if (watcher->shown.busy) {
        send_problem_with(watcher, message->id, HTTP_BUSY, "one is being looked at already");
        return;
    }
    watcher->shown.busy = true;
    watcher->shown.id = message->id;
    watcher->shown.session = message->session;
    memcpy(watcher->shown.token, message->token, sizeof(message->token));
    watcher->read = (struct replica_read){.done = shown};
    bop__replica_read(watcher->api->backend.replica, &watcher->read);
}

/* ---- What is asked ---- */

static void close_watch(struct watcher *watcher, uint32_t id)
{
    bool existed = watcher->watches && bop__watch_close(watcher->watches, id);
    struct http_json json = begin(watcher);

    bop__json_u64(&json, "id", id);
    bop__json_bool(&json, "closed", true);
    bop__json_bool(&json, "existed", existed);
    send(watcher, &json);
}

static void serve(struct watcher *watcher, struct http_call *call, struct bop_slice text)
{
    struct http_watch_message message;
    struct http_problem problem;

    if (bop__http_take_watch_message(call, text, &message, &problem) < 0) {
        send_problem(watcher, message.id, &problem);
        return;
    }
    switch (message.kind) {
    case WATCH_MESSAGE_OPEN:
        open_watch(watcher, call, &message);
        break;
    case WATCH_MESSAGE_CLOSE:
        close_watch(watcher, message.id);
        break;
    case WATCH_MESSAGE_ACK:
        if (watcher->watches) {
            bop__watch_acked(watcher->watches, &message.ack);
        }
        break;
    case WATCH_MESSAGE_SESSION:
        show(watcher, &message);
        break;
    }
}

static void on_message(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice message)
{
    struct watcher *watcher = user;
    struct http_call call = {0};
    struct bop_arena arena;

    if (opcode != BOP_WS_TEXT) {
        BOP_IGNORE(bop_ws_close(ws, BOP_WS_UNSUPPORTED, bop_slice_cstr("messages are JSON")));
        return;
    }
    bop_arena_init(&arena, watcher->api->allocator, HTTP_ARENA_BYTES, 0);
    call.arena = &arena;
    serve(watcher, &call, message);
    bop_arena_deinit(&arena);
    if (bop_ws_queued(ws) > WATCH_QUEUE_HIGH) {
        bop_ws_pause(ws); /* Who does not read answers asks for no more. */
    }
}

static void on_drain(struct bop_ws *ws, void *user)
{
    bop_ws_resume(ws); /* The hub goes on by itself, at the end of the turn. */
}

/* ---- Life ---- */

static void free_watcher(struct watcher *watcher)
{
    struct http_api *api = watcher->api;

    bop_buf_deinit(&watcher->text);
    api->requests--;
    bop_free(api->allocator, watcher, sizeof(*watcher));
}

static void on_open(struct bop_ws *ws, void *user)
{
    ((struct watcher *)user)->ws = ws;
}

static void on_close(struct bop_ws *ws, void *user, unsigned code, struct bop_slice reason)
{
    struct watcher *watcher = user;

    bop__watch_disconnect(watcher->watches);
    if (watcher->session != 0 && !watcher->api->stopping) {
        bop__replica_session_cut(watcher->api->backend.replica, watcher->session);
    }
    stand_for_nothing(watcher);
    watcher->closed = true;
    if (!watcher->shown.busy) {
        free_watcher(watcher);
    }
}

/* The hub sees to slow readers. Compressing would be the loop's time, which is the log's. */
static const struct bop_ws_options options = {
    .on_open = on_open,
    .on_message = on_message,
    .on_drain = on_drain,
    .on_close = on_close,
    .message_bytes_max = HTTP_FIELDS_MAX,
    .pressure_high = WATCH_QUEUE_LOW,
    .pressure_max = SIZE_MAX,
    .compression = BOP_WS_COMPRESS_NEVER,
};

void bop__http_watch_upgrade(struct http_request *request, const struct bop_http_head *head)
{
    struct http_api *api = request->api;
    struct bop_http_exchange *http = request->http;
    struct watcher *watcher;

    if (head->query.size > 0) {
        bop__http_fail_with(request, HTTP_BAD_REQUEST,
                            "a WebSocket takes no parameters: its messages say what to watch");
        return;
    }
    watcher = bop_alloc_zeroed(api->allocator, sizeof(*watcher));
    if (!watcher) {
        bop__http_fail_with(request, HTTP_BUSY, "no memory for a WebSocket");
        return;
    }
    api->requests++;
    watcher->api = api;
    watcher->who = request->who;
    bop_list_init(&watcher->standing);
    bop_buf_init(&watcher->text, api->allocator, 0);
    bop_http_on_abort(http, NULL, NULL); /* It answers by itself from here on. */
    bop__http_over(request);
    if (bop_ws_accept(http, head, &options, watcher, NULL) < 0) {
        free_watcher(watcher);
    }
}
