/*
 * The request's body: decoded where it lies in the receive buffer and handed to
 * the exchange in pieces, or gathered where it is wanted whole, or dropped.
 */
#include "server_internal.h"

/* So much of a body that nobody wants is read for the sake of the requests after it. */
#define DRAIN_BYTES_MAX (256u * 1024)

/* Call on_body; with last, for the last time. */
static void hand_over(struct bop__exchange *ex, struct bop_slice bytes, bool last)
{
    bop_http_body_fn on_body = ex->on_body;

    if (last) {
        ex->on_body = NULL;
        ex->body_done = true;
    }
    on_body(bop__exchange_handle(ex), bytes, last, ex->body_user);
}

/* Gather for one call at the end; the one piece of a small body is not copied. */
static void gather(struct bop__exchange *ex, struct bop_slice piece, bool last)
{
    int rc;

    if (last && ex->whole.size == 0) {
        hand_over(ex, piece, true);
        return;
    }
    rc = bop_buf_append(&ex->whole, piece.data, piece.size);
    if (rc != 0) {
        bop__http_conn_refuse(ex->conn, 503, "out of memory");
    } else if (last) {
        hand_over(ex, bop_buf_slice(&ex->whole), true);
    }
}

static void take_piece(struct bop__exchange *ex, struct bop_slice piece)
{
    bool last = ex->body.framing == BOP_HTTP_LENGTH && ex->body.left == 0;

    ex->body_received += piece.size;
    if (ex->answered || ex->on_body == NULL) {
        ex->body_done = last;
        if (ex->body_received > DRAIN_BYTES_MAX && !last) {
            ex->close_after = true; /* settle() leaves, now or with the answer. */
            ex->body_done = !ex->answered;
        }
        return;
    }
    if (ex->body_received > ex->body_max) {
        bop__http_conn_refuse(ex->conn, 413, "the request's body is too large");
        return;
    }
    if (ex->body_whole) {
        gather(ex, piece, last);
    } else {
        hand_over(ex, piece, last);
    }
}

/* It ended between pieces: an empty one, or chunked. */
static void end_body(struct bop__exchange *ex)
{
    if (ex->answered || ex->on_body == NULL) {
        ex->body_done = true;
    } else if (ex->body_whole) {
        gather(ex, bop_slice("", 0), true);
    } else {
        hand_over(ex, bop_slice("", 0), true);
    }
}

size_t bop__http_body_read(struct bop__http_conn *conn, struct bop_slice bytes)
{
    struct bop__exchange *ex = conn->exchange;
    struct bop_slice rest = bytes;
    struct bop_slice piece;
    int rc;

    while (!ex->body_done && !ex->body_paused) {
        rc = bop_http1_body_decode(&ex->body, &rest, &piece);
        if (rc == 1) {
            take_piece(ex, piece);
        } else if (rc == 0) {
            end_body(ex);
        } else if (rc == BOP_ETRUNCATED) {
            break;
        } else {
            conn->server->counters.malformed++;
            bop__http_conn_refuse(conn, (unsigned)-rc,
                                  rc == -431 ? "the body's chunk extensions or trailers are too "
                                               "large"
                                             : "the body's chunks are malformed");
        }
        if (conn->exchange != ex || conn->phase >= BOP__HTTP_LEAVING ||
            (ex->answered && conn->phase == BOP__HTTP_BODY)) {
            break; /* settle() decides how to go on. */
        }
    }
    return bytes.size - rest.size;
}
