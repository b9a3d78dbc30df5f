/*
 * Answers in pieces.
 *
 * Framing is the server's alone: a length where it is announced, else chunks for
 * 1.1 and the connection's end for 1.0. An answer that cannot be ended as it was
 * begun is cut with its connection, so that no client takes a part for the whole.
 */
#include <unistd.h>

#include "respond.h"

/* A chunk's size in hexadecimal, and CRLF. */
#define CHUNK_HEAD_MAX 20u

/* The framing of an answer that is written in pieces. */
static enum bop__http_framed framed_of_pieces(const struct bop__exchange *ex)
{
    if (ex->has_length && ex->status != 204) {
        return BOP__HTTP_BY_LENGTH;
    }
    if (bop__http_has_no_content(ex->status)) {
        return BOP__HTTP_BY_NOTHING;
    }
    return ex->minor_0 ? BOP__HTTP_BY_CLOSE : BOP__HTTP_BY_CHUNKS;
}

static int begin_pieces(struct bop__exchange *ex)
{
    enum bop__http_framed framed = framed_of_pieces(ex);
    struct bop_buf *out;
    uint8_t *at;
    int rc = 0;

    if (ex->deflate != NULL) {
        rc = bop__exchange_add_header(ex, "Content-Encoding",
                                      bop_slice_cstr(bop__http_deflate_name(ex->deflate)));
    }
    if (rc != 0) {
        return rc;
    }
    rc = bop__exchange_begin(ex, NULL, framed, ex->content_length, 0, &out, &at);
    if (rc == 0) {
        ex->chunked = framed == BOP__HTTP_BY_CHUNKS;
        bop__http_wrote(ex->conn, out, at);
    }
    return rc;
}

int bop__exchange_begin_length(struct bop__exchange *ex, uint64_t length)
{
    ex->has_length = true;
    ex->content_length = length;
    return begin_pieces(ex);
}

void bop__exchange_wrote(struct bop__exchange *ex, uint64_t size)
{
    ex->written += size;
    ex->conn->out_total += (uint32_t)size;
    ex->conn->server->counters.bytes_sent += size;
}

static int pressure(struct bop__exchange *ex)
{
    struct bop__http_conn *conn = ex->conn;

    if (bop__socket_queued(bop__http_sock(conn)) <= conn->server->options.write_high) {
        return 0;
    }
    bop__socket_flush_later(bop__http_sock(conn)); /* So that it notes how high it is. */
    ex->pressed = true;
    if (bop__socket_blocked(bop__http_sock(conn))) {
        bop__http_conn_set_slow(conn, true);
    }
    return BOP_HTTP_PRESSURE;
}

/* Append a piece as it is or as a chunk. */
static int put_piece(struct bop__exchange *ex, struct bop_slice bytes)
{
    struct bop_buf *out;
    uint8_t *at;
    int rc;

    if (bytes.size == 0 || ex->no_content) {
        return 0; /* An empty chunk would end the body. */
    }
    out = bop__http_output(ex->conn, bytes.size + CHUNK_HEAD_MAX + 2, &rc);
    if (out == NULL) {
        return rc;
    }
    at = out->data + out->size;
    if (ex->chunked) {
        at = bop__put_hex(at, bytes.size);
        at = PUT(at, "\r\n");
    }
    at = bop__put(at, bytes.data, bytes.size);
    if (ex->chunked) {
        at = PUT(at, "\r\n");
    }
    bop__http_wrote(ex->conn, out, at);
    return 0;
}

/* Begin if that is to be done, and see that no more is written than was announced. */
static int prepare(struct bop__exchange *ex, uint64_t size)
{
    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    if (ex->has_length && size > ex->content_length - ex->written) {
        return BOP_EINVAL;
    }
    return ex->head_sent ? 0 : begin_pieces(ex);
}

static int write_piece(struct bop__exchange *ex, struct bop_slice bytes, bool last)
{
    struct bop_slice piece = bytes;
    int rc;

    if (ex->deflate != NULL && !ex->no_content) {
        rc = bop__http_deflate_piece(ex->deflate, bytes, last, &piece);
        if (rc != 0) {
            bop__http_conn_kill(ex->conn); /* What was written of it cannot be ended. */
            return rc;
        }
    }
    rc = put_piece(ex, piece);
    if (rc == 0) {
        ex->written += bytes.size;
    } else if (ex->deflate != NULL) {
        bop__http_conn_kill(ex->conn);
    }
    return rc;
}

int bop_http_write(struct bop_http_exchange *http, struct bop_slice bytes)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    int rc = prepare(ex, bytes.size);

    if (rc == 0) {
        rc = write_piece(ex, bytes, false);
    }
    return rc == 0 ? pressure(ex) : rc;
}

static int put_shared(struct bop__exchange *ex, struct bop_shared *buffer, size_t offset,
                      size_t size)
{
    struct bop__http_conn *conn = ex->conn;
    struct bop_buf *out;
    uint8_t *at;
    int rc;

    if (ex->chunked) {
        out = bop__http_output(conn, CHUNK_HEAD_MAX, &rc);
        if (out == NULL) {
            return rc;
        }
        at = bop__put_hex(out->data + out->size, size);
        bop__http_wrote(conn, out, PUT(at, "\r\n"));
    }
    rc = bop__socket_write_shared(bop__http_sock(conn), buffer, offset, size);
    if (rc == 0) {
        bop__exchange_wrote(ex, size);
        if (ex->chunked) {
            out = bop__http_output(conn, 2, &rc);
            if (out != NULL) {
                bop__http_wrote(conn, out, PUT(out->data + out->size, "\r\n"));
            }
        }
    }
    if (rc != 0 && ex->chunked) {
        bop__http_conn_kill(conn); /* A chunk was begun. */
    }
    return rc;
}

int bop_http_write_shared(struct bop_http_exchange *http, struct bop_shared *buffer, size_t offset,
                          size_t size)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    int rc;

    if (offset > buffer->size || size > buffer->size - offset) {
        return BOP_EINVAL;
    }
    rc = prepare(ex, size);
    if (rc != 0) {
        return rc;
    }
    if (ex->deflate != NULL || ex->no_content || size == 0) {
        rc = write_piece(ex, bop_slice(buffer->data + offset, size), false);
    } else {
        rc = put_shared(ex, buffer, offset, size);
    }
    return rc == 0 ? pressure(ex) : rc;
}

/* The head was sent, all pieces were written: end the body. */
static int finish(struct bop__exchange *ex)
{
    struct bop_buf *out;
    int rc;

    if (ex->has_length && ex->written != ex->content_length && !ex->no_content) {
        bop__http_conn_kill(ex->conn);
        return BOP_EINVAL;
    }
    if (ex->chunked && !ex->no_content) {
        out = bop__http_output(ex->conn, 8, &rc);
        if (out == NULL) {
            bop__http_conn_kill(ex->conn);
            return rc;
        }
        bop__http_wrote(ex->conn, out, PUT(out->data + out->size, "0\r\n\r\n"));
    }
    bop__exchange_answered(ex);
    return 0;
}

int bop_http_end(struct bop_http_exchange *http, struct bop_slice last_bytes)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    int rc;

    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    if (!ex->head_sent && ex->deflate != NULL) {
        return bop__exchange_reply_compressed(ex, NULL, last_bytes);
    }
    if (!ex->head_sent && (!ex->has_length || ex->content_length == last_bytes.size)) {
        return bop__exchange_reply(ex, NULL, last_bytes);
    }
    rc = prepare(ex, last_bytes.size);
    if (rc == 0) {
        rc = write_piece(ex, last_bytes, true);
    }
    return rc == 0 ? finish(ex) : rc;
}

int bop_http_reply_shared(struct bop_http_exchange *http, unsigned status, const char *content_type,
                          struct bop_shared *buffer, size_t offset, size_t size)
{
    int rc = bop_http_status(http, status);

    if (rc == 0 && content_type != NULL) {
        rc = bop_http_header(http, "Content-Type", bop_slice_cstr(content_type));
    }
    if (rc == 0 && bop__exchange_of(http)->deflate == NULL) {
        rc = bop_http_content_length(http, size);
    }
    if (rc == 0) {
        rc = bop_http_write_shared(http, buffer, offset, size);
    }
    return rc >= 0 ? bop_http_end(http, bop_slice(NULL, 0)) : rc;
}

int bop_http_end_file(struct bop_http_exchange *http, int fd, uint64_t offset, uint64_t size)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    int rc = 0;

    if (ex == NULL || ex->head_sent || ex->deflate != NULL) {
        close(fd);
        return ex == NULL ? BOP_ECLOSED : BOP_EINVAL;
    }
    rc = bop__exchange_begin_length(ex, size);
    if (rc != 0 || ex->no_content || size == 0) {
        close(fd);
    } else {
        rc = bop__socket_write_file(bop__http_sock(ex->conn), fd, offset, size);
    }
    if (rc != 0) {
        if (ex->head_sent) {
            bop__http_conn_kill(ex->conn);
        }
        return rc;
    }
    bop__exchange_wrote(ex, ex->no_content ? 0 : size);
    ex->written = size;
    bop__exchange_answered(ex);
    return 0;
}

uint64_t bop_http_written(const struct bop_http_exchange *http)
{
    const struct bop__exchange *ex = bop__exchange_of(http);

    return ex == NULL ? 0 : ex->written;
}

size_t bop_http_queued(const struct bop_http_exchange *http)
{
    const struct bop__exchange *ex = bop__exchange_of(http);

    return ex == NULL ? 0 : bop__socket_queued(bop__http_sock(ex->conn));
}
