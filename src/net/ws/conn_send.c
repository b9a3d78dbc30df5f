/*
 * Sending: a frame is appended to the socket's queue, header and payload in one
 * go, and goes out with what else the turn wrote.
 *
 * The queue's length is what back-pressure is about. Above pressure_high a send
 * first tries to get rid of it, and says PRESSURE if the kernel takes no more;
 * the socket then tells when it fell. Above pressure_max messages are dropped.
 */
#include "conn.h"

/* What compressed messages may leave of the loop's shared memory. */
#define DEFLATED_KEPT_MAX (256u * 1024)

/* ---- Frames ---- */

static int why_no_output(const struct bop__socket *sock)
{
    if (sock->state == BOP__SOCKET_CLOSED || sock->leaving || sock->shutting) {
        return BOP_ECLOSED;
    }
    return bop__socket_queued(sock) > sock->context->limits.write_buffer_max ? BOP_EFULL
                                                                             : BOP_ENOMEM;
}

int bop__ws_put(struct bop__ws *ws, unsigned first_byte, struct bop_slice payload)
{
    struct bop__socket *sock = bop__ws_sock(ws);
    struct bop_buf *out = bop__socket_output(sock);
    uint32_t key;
    int rc = 0;

    if (BOP_UNLIKELY(out == NULL)) {
        return why_no_output(sock);
    }
    if (ws->client) {
        rc = bop_ws_keys_next(&ws->group->home->keys, &key);
    }
    if (BOP_LIKELY(rc == 0)) {
        rc = bop_ws_append(out, first_byte, payload, ws->client ? &key : NULL);
    }
    if (BOP_UNLIKELY(rc != 0)) {
        bop__socket_leave_queue(sock); /* It may have been borrowed for this. */
        return rc;
    }
    bop__socket_flush_later(sock);
    return 0;
}

/* ---- Back-pressure ---- */

/* Send now what is queued, from wherever this is called. */
static void try_sending(struct bop__socket *sock)
{
    bop__socket_transmit(sock);
    if (sock->state == BOP__SOCKET_OPEN && (sock->rose || sock->limited || sock->above)) {
        bop__socket_flush_later(sock); /* It is told from the loop. */
    }
}

int bop__ws_pressure(struct bop__ws *ws)
{
    struct bop__socket *sock = bop__ws_sock(ws);
    size_t high = ws->group->options.pressure_high;

    if (ws->group->options.sending_is_activity) {
        ws->active_ms = bop__ws_now(ws);
    }
    if (BOP_LIKELY(bop__socket_queued(sock) <= high)) {
        return 0;
    }
    if (!bop__socket_blocked(sock)) {
        try_sending(sock);
        if (sock->state != BOP__SOCKET_OPEN) {
            return BOP_ECLOSED;
        }
        if (bop__socket_queued(sock) <= high) {
            return 0;
        }
    }
    ws->pressed = true;
    sock->above = true; /* So that the socket tells when its queue fell. */
    return BOP_WS_PRESSURE;
}

void bop__ws_drained(struct bop__ws *ws)
{
    struct bop__socket *sock = bop__ws_sock(ws);
    const struct bop_ws_options *options = &ws->group->options;

    if (!ws->pressed) {
        return;
    }
    if (bop__socket_queued(sock) > options->pressure_high / 2) {
        sock->above = true; /* Not by our measure: to be told again. */
        return;
    }
    ws->pressed = false;
    if (options->on_drain != NULL && bop__ws_is_open(ws)) {
        options->on_drain(bop__ws_handle(ws), ws->user);
    }
}

bool bop__ws_is_slow(struct bop__ws *ws)
{
    const struct bop_ws_options *options = &ws->group->options;

    if (BOP_LIKELY(bop__socket_queued(bop__ws_sock(ws)) <= options->pressure_max)) {
        return false;
    }
    ws->group->counters->slow++;
    if (options->slow == BOP_WS_SLOW_CLOSE && bop__ws_is_open(ws)) {
        ws->group->counters->slow_closed++;
        bop__ws_begin_close(ws, BOP_WS_POLICY, bop_slice_cstr("too slow"));
    }
    return true;
}

/* ---- Compression ---- */

/* Compress into the loop's memory. Returns as bop_ws_deflate(). */
static int compress(struct bop__ws *ws, struct bop_ws_zip_stream *stream, struct bop_slice bytes,
                    bool last, struct bop_slice *out_bytes)
{
    struct bop_ws_zip *zip = bop__ws_zip(ws->group);
    struct bop_buf *deflated = &ws->group->home->deflated;
    int rc;

    if (zip == NULL) {
        return BOP_ENOMEM;
    }
    bop_buf_clear(deflated);
    rc = bop_ws_deflate(zip, stream, bytes, last, deflated);
    *out_bytes = bop_buf_slice(deflated);
    return rc;
}

static void end_compress(struct bop__ws *ws)
{
    struct bop_buf *deflated = &ws->group->home->deflated;

    if (deflated->capacity > DEFLATED_KEPT_MAX) {
        bop_buf_deinit(deflated);
    }
}

/* A whole message, compressed. Returns 0; 1: it got no smaller; or a code. */
static int put_compressed(struct bop__ws *ws, unsigned opcode, struct bop_slice message)
{
    struct bop_ws_zip_stream fresh = bop__ws_fresh_stream(ws->send_bits);
    struct bop_ws_zip_stream *stream = ws->send_takeover ? &ws->extra->send : &fresh;
    struct bop_slice bytes;
    int rc = compress(ws, stream, message, true, &bytes);

    if (rc == 0) {
        rc = bop__ws_put(ws, BOP_WS_FIN | BOP_WS_COMPRESSED | opcode, bytes);
    }
    if (rc < 0 && ws->send_takeover) {
        /* What the peer's window holds is not known any more. */
        bop__ws_fail(ws, BOP_WS_INTERNAL, "out of memory");
    }
    end_compress(ws);
    return rc;
}

/* ---- Messages ---- */

/* Append a small message to a queue that is about to be sent anyway, and is short: what all but the
 * first of several answers to one read are. False: it takes the long way. */
static inline bool put_small(struct bop__ws *ws, unsigned opcode, struct bop_slice message)
{
    struct bop__socket *sock = bop__ws_sock(ws);
    struct bop__queue *queue = sock->queue;
    uint8_t *at;

    if (queue == NULL || !sock->wants_flush || message.size > BOP_WS_CONTROL_MAX || ws->client ||
        (ws->deflate && message.size >= ws->group->options.deflate_threshold) || ws->in_parts ||
        sock->has_tls || sock->state != BOP__SOCKET_OPEN || sock->leaving || sock->shutting ||
        queue->boundaries ||
        bop__queue_size(queue) + message.size + 2 > ws->group->short_queue_max ||
        queue->bytes.capacity - queue->bytes.size < message.size + 2 ||
        ws->group->options.sending_is_activity) {
        return false;
    }
    at = queue->bytes.data + queue->bytes.size;
    at[0] = (uint8_t)(BOP_WS_FIN | opcode);
    at[1] = (uint8_t)message.size;
    if (message.size > 0) {
        memcpy(at + 2, message.data, message.size);
    }
    queue->bytes.size += message.size + 2;
    ws->group->counters->messages_sent++;
    return true;
}

static int send_message(struct bop__ws *ws, unsigned opcode, struct bop_slice message, bool plain)
{
    int rc = 1;

    if (BOP_UNLIKELY(ws == NULL || ws->state != BOP__WS_OPEN)) {
        return BOP_ECLOSED;
    }
    if (BOP_UNLIKELY(opcode != BOP_WS_TEXT && opcode != BOP_WS_BINARY)) {
        return BOP_EINVAL;
    }
    if (put_small(ws, opcode, message)) {
        return 0;
    }
    if (BOP_UNLIKELY(ws->in_parts)) {
        return BOP_EBUSY;
    }
    if (BOP_UNLIKELY(bop__ws_is_slow(ws))) {
        return BOP_EFULL;
    }
    if (ws->deflate && !plain && message.size >= ws->group->options.deflate_threshold) {
        rc = put_compressed(ws, opcode, message);
    }
    if (rc == 1) {
        rc = bop__ws_put(ws, BOP_WS_FIN | opcode, message);
    }
    if (BOP_UNLIKELY(rc != 0)) {
        return rc;
    }
    ws->group->counters->messages_sent++;
    return bop__ws_pressure(ws);
}

int bop_ws_send(struct bop_ws *handle, enum bop_ws_opcode opcode, struct bop_slice message)
{
    return send_message(bop__ws_of(handle), opcode, message, false);
}

int bop_ws_send_plain(struct bop_ws *handle, enum bop_ws_opcode opcode, struct bop_slice message)
{
    return send_message(bop__ws_of(handle), opcode, message, true);
}

/* ---- Messages in parts ---- */

/* The first part decides whether the message is compressed. */
static int begin_parts(struct bop__ws *ws, struct bop_slice bytes)
{
    ws->deflates_part = ws->deflate && bytes.size >= ws->group->options.deflate_threshold;
    if (ws->deflates_part && !ws->send_takeover) {
        struct bop__ws_extra *extra = bop__ws_extra(ws);

        if (extra == NULL) {
            return BOP_ENOMEM;
        }
        extra->send = bop__ws_fresh_stream(ws->send_bits);
    }
    return 0;
}

/* Parts are lost that the peer waits for, or a window: nothing sensible can follow. */
static void lose_message(struct bop__ws *ws)
{
    bop__ws_fail(ws, BOP_WS_INTERNAL, "out of memory");
}

/* The message is whole: what waited for that goes after it. */
static void end_parts(struct bop__ws *ws)
{
    struct bop__ws_extra *extra = ws->extra;
    struct bop_buf *out;

    ws->in_parts = false;
    if (extra == NULL) {
        return;
    }
    if (!ws->send_takeover && ws->group->zip != NULL) {
        bop_ws_zip_stream_deinit(ws->group->zip, &extra->send);
    }
    if (extra->held.size > 0) {
        out = bop__socket_output(bop__ws_sock(ws));
        if (out == NULL || bop_buf_append(out, extra->held.data, extra->held.size) != 0) {
            lose_message(ws);
        } else {
            bop__socket_flush_later(bop__ws_sock(ws));
        }
        bop_buf_deinit(&extra->held);
    }
}

static int put_part(struct bop__ws *ws, unsigned opcode, struct bop_slice bytes, bool last)
{
    unsigned first_byte = last ? BOP_WS_FIN : 0;
    int rc = 0;

    if (!ws->in_parts) {
        rc = begin_parts(ws, bytes);
        first_byte |= opcode | (ws->deflates_part ? BOP_WS_COMPRESSED : 0);
    }
    if (rc == 0 && ws->deflates_part) {
        bool whole = !ws->in_parts && last;

        rc = compress(ws, &ws->extra->send, bytes, last, &bytes);
        if (rc == 1 && whole) {
            first_byte &= ~BOP_WS_COMPRESSED;
            rc = 0;
        }
    }
    return rc == 0 ? bop__ws_put(ws, first_byte, bytes) : rc;
}

int bop_ws_send_part(struct bop_ws *handle, enum bop_ws_opcode opcode, struct bop_slice bytes,
                     bool last)
{
    struct bop__ws *ws = bop__ws_of(handle);
    bool begun;
    int rc;

    if (ws == NULL || ws->state != BOP__WS_OPEN) {
        return BOP_ECLOSED;
    }
    if (opcode != BOP_WS_TEXT && opcode != BOP_WS_BINARY) {
        return BOP_EINVAL;
    }
    begun = ws->in_parts;
    if (!begun && bop__ws_is_slow(ws)) {
        return BOP_EFULL;
    }
    rc = put_part(ws, opcode, bytes, last);
    end_compress(ws);
    if (rc != 0) {
        if (rc != BOP_ECLOSED && (begun || ws->send_takeover)) {
            lose_message(ws);
        } else if (ws->extra != NULL && ws->group->zip != NULL) {
            bop_ws_zip_stream_deinit(ws->group->zip, &ws->extra->send);
        }
        return rc;
    }
    ws->in_parts = true;
    if (last) {
        ws->group->counters->messages_sent++;
        end_parts(ws);
    }
    return bop__ws_pressure(ws);
}

/* ---- Control frames ---- */

static int send_control(struct bop_ws *handle, unsigned opcode, struct bop_slice payload)
{
    struct bop__ws *ws = bop__ws_of(handle);
    int rc;

    if (ws == NULL || ws->state != BOP__WS_OPEN) {
        return BOP_ECLOSED;
    }
    if (payload.size > BOP_WS_CONTROL_MAX) {
        return BOP_EINVAL;
    }
    if (bop__ws_is_slow(ws)) {
        return BOP_EFULL;
    }
    rc = bop__ws_put(ws, BOP_WS_FIN | opcode, payload);
    return rc == 0 ? bop__ws_pressure(ws) : rc;
}

int bop_ws_ping(struct bop_ws *handle, struct bop_slice payload)
{
    return send_control(handle, BOP_WS_PING, payload);
}

int bop_ws_pong(struct bop_ws *handle, struct bop_slice payload)
{
    return send_control(handle, BOP_WS_PONG, payload);
}
