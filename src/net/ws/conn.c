/*
 * The life of a connection: opened, closed, freed; and what its user asks of it.
 * See conn.h for its states.
 */
#include "conn.h"

/* ---- What most never need ---- */

static struct bop_allocator *allocator_of(const struct bop__ws *ws)
{
    return bop__socket_loop(bop__ws_sock(ws))->allocator;
}

struct bop__ws_extra *bop__ws_extra(struct bop__ws *ws)
{
    if (ws->extra == NULL) {
        ws->extra = (struct bop__ws_extra *)bop_alloc_zeroed(allocator_of(ws), sizeof(*ws->extra));
        if (ws->extra != NULL) {
            bop_buf_init(&ws->extra->held, allocator_of(ws), 0);
        }
    }
    return ws->extra;
}

static void free_text(struct bop_allocator *allocator, char **text, size_t *bytes)
{
    if (*text != NULL) {
        bop_free(allocator, *text, *bytes);
    }
    *text = NULL;
    *bytes = 0;
}

static void free_extra(struct bop__ws *ws)
{
    struct bop_allocator *allocator = allocator_of(ws);
    struct bop__ws_extra *extra = ws->extra;

    ws->extra = NULL;
    if (ws->group->zip != NULL) {
        bop_ws_zip_stream_deinit(ws->group->zip, &extra->send);
        bop_ws_zip_stream_deinit(ws->group->zip, &extra->receive);
    }
    bop_buf_deinit(&extra->held);
    if (extra->block != NULL) {
        bop_free(allocator, extra->block, ws->group->options.user_bytes);
    }
    free_text(allocator, &extra->protocol, &extra->protocol_bytes);
    free_text(allocator, &extra->reason, &extra->reason_bytes);
    bop_tls_destroy(extra->tls);
    bop_free(allocator, extra, sizeof(*extra));
}

void bop__ws_set_reason(struct bop__ws *ws, struct bop_slice reason)
{
    struct bop__ws_extra *extra = reason.size > 0 ? bop__ws_extra(ws) : ws->extra;

    if (extra == NULL) {
        return;
    }
    free_text(allocator_of(ws), &extra->reason, &extra->reason_bytes);
    if (reason.size > 0) {
        extra->reason = (char *)bop_alloc(allocator_of(ws), reason.size);
        if (extra->reason != NULL) {
            memcpy(extra->reason, reason.data, reason.size);
            extra->reason_bytes = reason.size;
        }
    }
}

/* ---- Opened ---- */

void bop__ws_init(struct bop__ws *ws, struct bop__ws_group *group, void *user)
{
    ws->group = group;
    ws->user = user;
    ws->client = group->client;
    ws->protocol = BOP__WS_PROTOCOL_NONE;
    ws->active_ms = bop__ws_now(ws);
    ws->since_ms = ws->active_ms;
    group->references++;
    group->connections++;
    bop__ws_wheel_add(ws);
}

int bop__ws_set_deflate(struct bop__ws *ws, const struct bop_ws_deflate *deflate)
{
    struct bop_ws_zip_stream send, receive;
    struct bop__ws_extra *extra;

    if (!deflate->on) {
        return 0;
    }
    bop_ws_zip_streams(deflate, ws->client, &send, &receive);
    if (send.takeover || receive.takeover) {
        extra = bop__ws_extra(ws);
        if (extra == NULL) {
            return BOP_ENOMEM;
        }
        extra->send = send;
        extra->receive = receive;
    }
    ws->deflate = true;
    ws->send_bits = send.bits & 15u;
    ws->receive_bits = receive.bits & 15u;
    ws->send_takeover = send.takeover;
    ws->receive_takeover = receive.takeover;
    return 0;
}

static int protocol_index(const struct bop__ws_group *group, const char *protocol)
{
    const char *const *list = group->options.protocols;

    for (int i = 0; list != NULL && list[i] != NULL && i < BOP__WS_PROTOCOL_EXTRA; i++) {
        if (strcmp(list[i], protocol) == 0) {
            return i;
        }
    }
    return BOP__WS_PROTOCOL_EXTRA;
}

int bop__ws_set_protocol(struct bop__ws *ws, const char *protocol)
{
    struct bop__ws_extra *extra;

    if (protocol == NULL) {
        return 0;
    }
    ws->protocol = (uint8_t)protocol_index(ws->group, protocol);
    if (ws->protocol != BOP__WS_PROTOCOL_EXTRA) {
        return 0;
    }
    extra = bop__ws_extra(ws);
    if (extra == NULL) {
        return BOP_ENOMEM;
    }
    extra->protocol_bytes = strlen(protocol) + 1;
    extra->protocol = (char *)bop_alloc(allocator_of(ws), extra->protocol_bytes);
    if (extra->protocol == NULL) {
        return BOP_ENOMEM;
    }
    memcpy(extra->protocol, protocol, extra->protocol_bytes);
    return 0;
}

/* options.user_bytes. Returns 0 or BOP_ENOMEM. */
static int make_block(struct bop__ws *ws)
{
    struct bop__ws_extra *extra;

    if (ws->group->options.user_bytes == 0) {
        return 0;
    }
    extra = bop__ws_extra(ws);
    if (extra == NULL) {
        return BOP_ENOMEM;
    }
    extra->block = bop_alloc_zeroed(allocator_of(ws), ws->group->options.user_bytes);
    ws->user = extra->block;
    return extra->block != NULL ? 0 : BOP_ENOMEM;
}

void bop__ws_opened(struct bop__ws *ws)
{
    const struct bop_ws_options *options = &ws->group->options;

    if (make_block(ws) != 0) {
        bop__ws_cut(ws);
        return;
    }
    ws->state = BOP__WS_OPEN;
    ws->opened = true;
    ws->group->counters->opened++;
    ws->group->counters->open_now++;
    ws->active_ms = bop__ws_now(ws);
    ws->since_ms = ws->active_ms;
    bop__ws_wheel_wait(ws);
    if (options->on_open != NULL) {
        options->on_open(bop__ws_handle(ws), ws->user);
    }
    if (ws->group->stopping) {
        bop__ws_begin_close(ws, BOP_WS_GOING_AWAY, bop_slice(NULL, 0));
    }
}

/* ---- Closed ---- */

void bop__ws_cut(struct bop__ws *ws)
{
    bop__socket_begin_close(bop__ws_sock(ws), BOP_ECANCELED);
}

/* All is said: close once it is sent. */
static void leave(struct bop__ws *ws)
{
    ws->state = BOP__WS_LEAVING;
    bop__socket_close_after_flush(bop__ws_sock(ws), ws->group->options.close_timeout_ms);
}

static int put_close(struct bop__ws *ws, unsigned code, struct bop_slice reason)
{
    uint8_t payload[BOP_WS_CONTROL_MAX];
    int size = bop_ws_close_payload(payload, code, reason);

    BOP_ASSERT(size >= 0);
    return bop__ws_put(ws, BOP_WS_FIN | BOP_WS_CLOSE, bop_slice(payload, (size_t)size));
}

void bop__ws_begin_close(struct bop__ws *ws, unsigned code, struct bop_slice reason)
{
    if (!bop__ws_is_open(ws)) {
        return;
    }
    if (put_close(ws, code, reason) != 0) {
        bop__ws_cut(ws);
        return;
    }
    ws->state = BOP__WS_CLOSING;
    ws->since_ms = bop__ws_now(ws);
    bop__ws_wheel_wait(ws);
    bop__socket_resume(bop__ws_sock(ws)); /* Or the peer's close frame is not seen. */
}

void bop__ws_fail(struct bop__ws *ws, unsigned code, const char *why)
{
    struct bop_slice reason = bop_slice_cstr(why);

    ws->group->counters->failed++;
    bop__ws_set_reason(ws, reason);
    if (ws->state == BOP__WS_OPEN && put_close(ws, code, reason) != 0) {
        bop__ws_cut(ws);
        return;
    }
    leave(ws);
}

/* The peer's close frame came. */
void bop__ws_peer_closes(struct bop__ws *ws, unsigned code, struct bop_slice reason)
{
    ws->close_code = (uint16_t)code;
    bop__ws_set_reason(ws, reason);
    if (ws->state == BOP__WS_OPEN && put_close(ws, code, bop_slice(NULL, 0)) != 0) {
        bop__ws_cut(ws);
        return;
    }
    leave(ws);
}

/* The peer sends no more, and said no good-bye. */
static void on_end(struct bop_socket *socket, void *user)
{
    struct bop__ws *ws = (struct bop__ws *)user;

    if (ws->state == BOP__WS_OPEN || ws->state == BOP__WS_CLOSING) {
        bop__ws_set_reason(ws, bop_slice_cstr("the connection ended without a close frame"));
    }
    leave(ws);
}

static void tell_close(struct bop__ws *ws, int reason)
{
    const struct bop_ws_options *options = &ws->group->options;
    struct bop_slice text = bop_slice(NULL, 0);

    if (ws->close_code == 0 && (ws->extra == NULL || ws->extra->reason == NULL) &&
        reason != BOP_ECANCELED) {
        text = bop_slice_cstr(bop_socket_error_text(bop__socket_handle(bop__ws_sock(ws)), reason));
    } else if (ws->extra != NULL) {
        text = bop_slice(ws->extra->reason, ws->extra->reason_bytes);
    }
    if (options->on_close != NULL && (ws->opened || ws->client)) {
        options->on_close(bop__ws_handle(ws), ws->user,
                          ws->close_code != 0 ? ws->close_code : BOP_WS_ABNORMAL, text);
    }
}

static void on_close(struct bop_socket *socket, void *user, int reason)
{
    struct bop__ws *ws = (struct bop__ws *)user;
    struct bop__ws_group *group = ws->group;

    ws->state = BOP__WS_LEAVING;
    bop__ws_wheel_remove(ws);
    bop__ws_drop_partial(ws);
    if (ws->extra != NULL) {
        bop__subscriptions_end(ws);
        bop__ws_handshake_free(ws);
    }
    group->counters->open_now -= ws->opened; /* Before the user may let go of them. */
    tell_close(ws, reason);
    if (ws->extra != NULL) {
        free_extra(ws);
    }
    group->connections--;
    if (group->stopping && group->connections == 0 && group->guest.server != NULL) {
        bop__http_guest_leave(&group->guest);
    }
    bop__ws_group_release(group);
}

static void on_pressure(struct bop_socket *socket, void *user, bool on)
{
    if (!on) {
        bop__ws_drained((struct bop__ws *)user);
    }
}

const struct bop_socket_events bop__ws_events = {
    .on_data = bop__ws_on_data,
    .on_end = on_end,
    .on_pressure = on_pressure,
    .on_close = on_close,
};

/* ---- For users ---- */

int bop_ws_close(struct bop_ws *handle, unsigned code, struct bop_slice reason)
{
    struct bop__ws *ws = bop__ws_of(handle);
    uint8_t payload[BOP_WS_CONTROL_MAX];

    if (reason.size > BOP_WS_REASON_MAX || !bop_ws_close_code_is_valid(code) ||
        bop_ws_close_payload(payload, code, reason) < 0) {
        return BOP_EINVAL;
    }
    if (ws == NULL) {
        return BOP_ECLOSED;
    }
    if (ws->state == BOP__WS_OPENING) {
        bop__ws_cut(ws); /* There is nobody yet to say it to. */
        return 0;
    }
    if (!bop__ws_is_open(ws)) {
        return BOP_ECLOSED;
    }
    bop__ws_begin_close(ws, code, reason);
    return 0;
}

void bop_ws_terminate(struct bop_ws *handle)
{
    struct bop__ws *ws = bop__ws_of(handle);

    if (ws != NULL) {
        bop__ws_cut(ws);
    }
}

void *bop_ws_user(const struct bop_ws *handle)
{
    const struct bop__ws *ws = bop__ws_of(handle);

    return ws != NULL ? ws->user : NULL;
}

bool bop_ws_is_open(const struct bop_ws *handle)
{
    const struct bop__ws *ws = bop__ws_of(handle);

    return ws != NULL && bop__ws_is_open(ws);
}

size_t bop_ws_queued(const struct bop_ws *handle)
{
    const struct bop__ws *ws = bop__ws_of(handle);

    return ws != NULL ? bop_socket_queued((const struct bop_socket *)(const void *)handle) : 0;
}

const char *bop_ws_protocol(const struct bop_ws *handle)
{
    const struct bop__ws *ws = bop__ws_of(handle);

    if (ws == NULL || ws->protocol == BOP__WS_PROTOCOL_NONE) {
        return NULL;
    }
    return ws->protocol == BOP__WS_PROTOCOL_EXTRA ? ws->extra->protocol
                                                  : ws->group->options.protocols[ws->protocol];
}

bool bop_ws_is_compressed(const struct bop_ws *handle)
{
    const struct bop__ws *ws = bop__ws_of(handle);

    return ws != NULL && ws->deflate;
}

const char *bop_ws_peer_name(const struct bop_ws *handle)
{
    return bop_socket_peer_name((const struct bop_socket *)(const void *)handle);
}

struct bop_loop *bop_ws_loop(const struct bop_ws *handle)
{
    return bop_socket_loop((const struct bop_socket *)(const void *)handle);
}

void bop_ws_pause(struct bop_ws *handle)
{
    struct bop__ws *ws = bop__ws_of(handle);

    if (ws != NULL && ws->state == BOP__WS_OPEN) {
        bop__socket_pause(bop__ws_sock(ws));
    }
}

void bop_ws_resume(struct bop_ws *handle)
{
    struct bop__ws *ws = bop__ws_of(handle);

    if (ws != NULL && ws->state == BOP__WS_OPEN) {
        ws->active_ms = bop__ws_now(ws);
        bop__socket_resume(bop__ws_sock(ws));
    }
}
