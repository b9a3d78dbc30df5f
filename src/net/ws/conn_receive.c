/*
 * Receiving: frames are decoded and unmasked in the loop's buffer, and a message
 * that lies whole in it is given to its user from there. Only a message that
 * comes in pieces is put together in memory of its own, which grows with what
 * has come, not with what was announced.
 */
#include "conn.h"

/* Messages' memory kept for the next, and the largest worth keeping. */
#define SPARES_MAX      16
#define SPARE_BYTES_MAX (64u * 1024)

/* Of a compressed message for on_part: what is given at once. */
#define PART_BYTES_MAX (64u * 1024)

/* What inflated messages may leave of the loop's shared memory. */
#define INFLATED_KEPT_MAX (256u * 1024)

/* ---- Memory of messages under way ---- */

static struct bop__ws_partial *take_partial(struct bop__ws *ws)
{
    struct bop__ws_home *home = ws->group->home;
    struct bop__ws_partial *partial = home->spares;

    if (partial != NULL) {
        home->spares = partial->next;
        home->spare_count--;
    } else {
        partial = (struct bop__ws_partial *)bop_alloc_zeroed(home->loop->allocator,
                                                             sizeof(*partial));
        if (partial == NULL) {
            return NULL;
        }
        bop_buf_init(&partial->message, home->loop->allocator, 0);
    }
    partial->receive = bop__ws_fresh_stream(ws->receive_bits);
    ws->partial = partial;
    return partial;
}

void bop__ws_drop_partial(struct bop__ws *ws)
{
    struct bop__ws_home *home = ws->group->home;
    struct bop__ws_partial *partial = ws->partial;

    ws->partial = NULL;
    if (partial == NULL) {
        return;
    }
    if (ws->group->zip != NULL) {
        bop_ws_zip_stream_deinit(ws->group->zip, &partial->receive);
    }
    bop_buf_clear(&partial->message);
    if (home->spare_count >= SPARES_MAX) {
        bop_buf_deinit(&partial->message);
        bop_free(home->loop->allocator, partial, sizeof(*partial));
        return;
    }
    if (partial->message.capacity > SPARE_BYTES_MAX) {
        bop_buf_deinit(&partial->message);
        bop_buf_init(&partial->message, home->loop->allocator, 0);
    }
    partial->next = home->spares;
    home->spares = partial;
    home->spare_count++;
}

void bop__ws_free_spares(struct bop__ws_home *home)
{
    while (home->spares != NULL) {
        struct bop__ws_partial *partial = home->spares;

        home->spares = partial->next;
        bop_buf_deinit(&partial->message);
        bop_free(home->loop->allocator, partial, sizeof(*partial));
    }
}

/* ---- Giving ---- */

static void give_message(struct bop__ws *ws, unsigned opcode, struct bop_slice message)
{
    if (ws->state == BOP__WS_OPEN) {
        ws->group->options.on_message(bop__ws_handle(ws), ws->user, (enum bop_ws_opcode)opcode,
                                      message);
    }
}

static void give_part(struct bop__ws *ws, unsigned opcode, struct bop_slice bytes, bool first,
                      bool last)
{
    if (ws->state == BOP__WS_OPEN) {
        ws->group->options.on_part(bop__ws_handle(ws), ws->user, (enum bop_ws_opcode)opcode, bytes,
                                   first, last);
    }
}

/* ---- Compressed messages ---- */

static void fail_inflate(struct bop__ws *ws, int rc)
{
    switch (rc) {
    case -BOP_WS_INVALID:
        bop__ws_fail(ws, BOP_WS_INVALID, "a message does not inflate, or not to UTF-8");
        break;
    case -BOP_WS_TOO_BIG:
        bop__ws_fail(ws, BOP_WS_TOO_BIG, "the message is too big");
        break;
    default:
        bop__ws_fail(ws, BOP_WS_INTERNAL, "out of memory");
    }
}

/* Inflate a piece, give it to on_part as it comes. Returns as bop_ws_inflate() but for 1. */
static int inflate_to_parts(struct bop__ws *ws, struct bop_ws_zip *zip,
                            struct bop_ws_zip_stream *stream, const struct bop_ws_event *event,
                            struct bop_ws_utf8 *utf8)
{
    struct bop_buf *out = &ws->group->home->inflated;
    struct bop_slice piece = bop_slice(event->data, event->size);
    bool first = event->first;
    int rc;

    do {
        bop_buf_clear(out);
        rc = bop_ws_inflate(zip, stream, &piece, event->last, ws->group->options.message_bytes_max,
                            utf8, PART_BYTES_MAX, out);
        if (rc >= 0 && (out->size > 0 || first || (rc == 0 && event->last))) {
            give_part(ws, event->opcode, bop_buf_slice(out), first, rc == 0 && event->last);
            first = false;
        }
    } while (rc == 1 && bop__ws_is_open(ws));
    return rc == 1 ? 0 : rc;
}

/* Returns 0 or as bop_ws_inflate(). */
static int take_compressed(struct bop__ws *ws, struct bop_ws_decoder *decoder,
                           const struct bop_ws_event *event)
{
    struct bop_ws_zip *zip = bop__ws_zip(ws->group);
    struct bop_ws_zip_stream fresh = bop__ws_fresh_stream(ws->receive_bits);
    struct bop_ws_zip_stream *stream = &fresh;
    struct bop_ws_utf8 *utf8 = event->opcode == BOP_WS_TEXT ? &decoder->utf8 : NULL;
    struct bop_slice piece = bop_slice(event->data, event->size);
    struct bop_buf *out = ws->partial != NULL ? &ws->partial->message : &ws->group->home->inflated;
    int rc;

    if (zip == NULL) {
        return BOP_ENOMEM;
    }
    if (ws->receive_takeover) {
        stream = &ws->extra->receive;
    } else if (ws->partial != NULL) {
        stream = &ws->partial->receive;
    }
    if (ws->group->options.on_part != NULL) {
        rc = inflate_to_parts(ws, zip, stream, event, utf8);
    } else {
        if (ws->partial == NULL) {
            bop_buf_clear(out);
        }
        rc = bop_ws_inflate(zip, stream, &piece, event->last, ws->group->options.message_bytes_max,
                            utf8, SIZE_MAX, out);
        if (rc == 0 && event->last) {
            give_message(ws, event->opcode, bop_buf_slice(out));
        }
    }
    bop_ws_zip_stream_deinit(zip, &fresh);
    if (ws->group->home->inflated.capacity > INFLATED_KEPT_MAX) {
        bop_buf_deinit(&ws->group->home->inflated);
    }
    return rc;
}

/* ---- Events ---- */

static int take_plain(struct bop__ws *ws, const struct bop_ws_event *event)
{
    struct bop_slice piece = bop_slice(event->data, event->size);
    struct bop_buf *message;
    int rc;

    if (ws->group->options.on_part != NULL) {
        give_part(ws, event->opcode, piece, event->first, event->last);
        return 0;
    }
    if (ws->partial == NULL) {
        give_message(ws, event->opcode, piece);
        return 0;
    }
    message = &ws->partial->message;
    if (piece.size > 0) {
        rc = bop_buf_append(message, piece.data, piece.size);
        if (rc != 0) {
            return rc;
        }
    }
    if (event->last) {
        give_message(ws, event->opcode, bop_buf_slice(message));
    }
    return 0;
}

/* A piece of a message. Returns where its decoding goes on. */
static struct bop_ws_decoder *take_piece(struct bop__ws *ws, struct bop_ws_decoder *decoder,
                                         const struct bop_ws_event *event)
{
    int rc;

    if (event->first && !event->last) {
        struct bop__ws_partial *partial = take_partial(ws);

        if (partial == NULL) {
            bop__ws_fail(ws, BOP_WS_INTERNAL, "out of memory");
            return decoder;
        }
        partial->decoder = *decoder;
        decoder = &partial->decoder;
    }
    if (ws->state != BOP__WS_OPEN) {
        return decoder; /* We are closing: only its end is of interest. */
    }
    ws->group->counters->messages_received += event->last;
    rc = event->compressed ? take_compressed(ws, decoder, event) : take_plain(ws, event);
    if (rc != 0) {
        fail_inflate(ws, rc);
    }
    return decoder;
}

static void take_control(struct bop__ws *ws, const struct bop_ws_event *event)
{
    const struct bop_ws_options *options = &ws->group->options;
    struct bop_slice payload = bop_slice(event->data, event->size);

    switch (event->opcode) {
    case BOP_WS_CLOSE:
        bop__ws_peer_closes(ws, event->close_code, payload);
        return;
    case BOP_WS_PING:
        if (ws->state != BOP__WS_OPEN) {
            return;
        }
        /* One that asks and does not read gets no more answers than the queue may hold. */
        if (!bop__ws_is_slow(ws) && bop__ws_put(ws, BOP_WS_FIN | BOP_WS_PONG, payload) != 0) {
            bop__ws_cut(ws);
        } else if (options->on_ping != NULL) {
            options->on_ping(bop__ws_handle(ws), ws->user, payload);
        }
        return;
    default:
        if (ws->state == BOP__WS_OPEN && options->on_pong != NULL) {
            options->on_pong(bop__ws_handle(ws), ws->user, payload);
        }
    }
}

/* Whether more is to be decoded now. */
static inline bool goes_on(const struct bop__ws *ws, const struct bop__socket *sock)
{
    return sock->state == BOP__SOCKET_OPEN && !sock->leaving && !sock->paused &&
           ws->state != BOP__WS_LEAVING;
}

size_t bop__ws_on_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct bop__ws *ws = (struct bop__ws *)user;
    struct bop__socket *sock = bop__ws_sock(ws);
    const struct bop_ws_options *options = &ws->group->options;
    const struct bop_ws_rules rules = {
        .message_bytes_max = options->message_bytes_max == SIZE_MAX ? UINT64_MAX
                                                                    : options->message_bytes_max,
        .client = ws->client,
        .deflate = ws->deflate,
    };
    struct bop_ws_decoder idle = {0};
    struct bop_ws_decoder *decoder = ws->partial != NULL ? &ws->partial->decoder : &idle;
    struct bop_slice rest = bytes;
    struct bop_ws_event event;
    int rc;

    ws->active_ms = bop__ws_now(ws);
    ws->pings = 0;
    while ((rc = bop_ws_decode(decoder, &rules, &rest, &event)) == 1) {
        if (BOP_LIKELY(event.opcode < BOP_WS_CLOSE)) {
            decoder = take_piece(ws, decoder, &event);
            if (event.last && decoder != &idle) {
                bop__ws_drop_partial(ws);
                idle = (struct bop_ws_decoder){0};
                decoder = &idle;
            }
        } else {
            take_control(ws, &event);
        }
        if (BOP_UNLIKELY(!goes_on(ws, sock))) {
            return bytes.size - rest.size;
        }
    }
    if (BOP_UNLIKELY(rc != BOP_ETRUNCATED)) {
        bop__ws_fail(ws, (unsigned)-rc, event.why);
        return bytes.size;
    }
    return bytes.size - rest.size;
}
