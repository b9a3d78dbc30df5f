/*
 * Encrypting what is queued, and sending it: full records as far as the queue
 * has bytes for them, a batch of records by one send.
 */
#include <openssl/err.h>
#include <sys/socket.h>

#include "stream.h"

/* Answers of TLS itself (to key updates, say) that a peer may leave unread. */
#define ANSWER_BYTES_MAX (256u * 1024)
/* Up to this size, what is unsent goes out together with what comes next. */
#define MERGE_BYTES_MAX BOP__TLS_RECORD_BYTES
/* Of one socket in a turn; then the others of its loop come first. */
#define BATCHES_MAX 8

size_t bop__tls_unsent(const struct bop__socket *sock)
{
    const struct bop__tls_stream *stream = bop__socket_tls(sock);

    return stream != NULL && stream->unsent != NULL ? stream->unsent->size - stream->unsent->sent
                                                    : 0;
}

void bop__tls_free_unsent(struct bop__tls_stream *stream)
{
    struct bop__tls_unsent *unsent = stream->unsent;

    if (unsent != NULL) {
        stream->unsent = NULL;
        bop_free(stream->wire->loop->allocator, unsent, sizeof(*unsent) + unsent->size);
    }
}

/* Make it what is unsent, behind what is. */
static int keep(struct bop__tls_stream *stream, struct bop_slice bytes)
{
    struct bop__tls_unsent *old = stream->unsent, *block;
    size_t before = old != NULL ? old->size - old->sent : 0;

    block = (struct bop__tls_unsent *)bop_alloc(stream->wire->loop->allocator,
                                                sizeof(*block) + before + bytes.size);
    if (block == NULL) {
        return BOP_ENOMEM;
    }
    block->sent = 0;
    block->size = before + bytes.size;
    if (before > 0) {
        memcpy(block->data, old->data + old->sent, before);
    }
    memcpy(block->data + before, bytes.data, bytes.size);
    bop__tls_free_unsent(stream);
    stream->unsent = block;
    return 0;
}

int bop__tls_keep_out(struct bop__tls_stream *stream)
{
    struct bop_buf *out = &stream->wire->out;
    int rc;

    if (out->size == 0) {
        return 0;
    }
    rc = bop__tls_unsent(stream->sock) <= ANSWER_BYTES_MAX ? keep(stream, bop_buf_slice(out))
                                                           : BOP_EFULL;
    bop_buf_clear(out);
    if (rc == 0) {
        bop__socket_flush_later(stream->sock);
    }
    return rc;
}

/* One send. Returns what the kernel took, or -errno, not -EAGAIN. */
static ssize_t send_bytes(struct bop__tls_stream *stream, const uint8_t *data, size_t size)
{
    ssize_t sent = send(stream->sock->source.fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    return sent;
}

/* Send from what is unsent, all by itself. */
static int send_unsent(struct bop__tls_stream *stream)
{
    struct bop__tls_unsent *unsent = stream->unsent;
    ssize_t sent = send_bytes(stream, unsent->data + unsent->sent, unsent->size - unsent->sent);

    if (sent < 0) {
        return (int)sent;
    }
    unsent->sent += (size_t)sent;
    if (unsent->sent == unsent->size) {
        bop__tls_free_unsent(stream);
    }
    return 0;
}

/* Put what is unsent at the front of `out`. */
static int take_unsent(struct bop__tls_stream *stream)
{
    struct bop__tls_unsent *unsent = stream->unsent;
    int rc = 0;

    if (unsent != NULL) {
        rc = bop_buf_append(&stream->wire->out, unsent->data + unsent->sent,
                            unsent->size - unsent->sent);
        bop__tls_free_unsent(stream);
    }
    return rc;
}

/* Encrypt bytes to `out`. */
static int encrypt(struct bop__tls_stream *stream, struct bop_slice bytes)
{
    size_t written = 0;
    int ok;

    bop__tls_wire_begin(stream, bop_slice(NULL, 0));
    ok = SSL_write_ex(stream->ssl, bytes.data, bytes.size, &written);
    bop__tls_wire_end(stream->wire);
    if (ok != 1 || written != bytes.size) {
        bop__tls_explain(stream);
        return BOP_ETLS;
    }
    return 0;
}

/* Small pieces of the queue, a header and its body, are put into one record. */
static struct bop_slice gather(struct bop__tls_stream *stream, struct bop_slice piece, int *out_rc)
{
    uint8_t *bytes = stream->wire->gather;
    size_t size = 0;

    while (piece.size > 0 && size < BOP__TLS_RECORD_BYTES) {
        size_t count = bop_min_u64(piece.size, BOP__TLS_RECORD_BYTES - size);

        memcpy(bytes + size, piece.data, count);
        bop__socket_taken(stream->sock, count);
        size += count;
        piece = bop__socket_peek(stream->sock, out_rc);
    }
    return bop_slice(bytes, size);
}

/* Encrypt from the queue until there is a batch. *out_drained: there was no more. */
static int encrypt_queue(struct bop__tls_stream *stream, bool *out_drained)
{
    struct bop_buf *out = &stream->wire->out;
    int rc = 0;

    *out_drained = false;
    while (rc == 0 && out->size < BOP__TLS_BATCH_BYTES) {
        struct bop_slice piece = bop__socket_peek(stream->sock, &rc);

        if (rc != 0 || piece.size == 0) {
            *out_drained = true;
            break;
        }
        if (piece.size < BOP__TLS_RECORD_BYTES) {
            piece = gather(stream, piece, &rc);
            rc = rc == 0 ? encrypt(stream, piece) : rc;
        } else {
            piece.size = bop_min_u64(piece.size, BOP__TLS_BATCH_BYTES);
            rc = encrypt(stream, piece);
            bop__socket_taken(stream->sock, piece.size);
        }
    }
    return rc;
}

/* A rate limit may have ended the batch. */
static bool is_queue_empty(const struct bop__socket *sock)
{
    return sock->queue == NULL || bop__queue_size(sock->queue) == 0;
}

static void say_bye(struct bop__tls_stream *stream)
{
    stream->said_bye = true;
    bop__tls_wire_begin(stream, bop_slice(NULL, 0));
    BOP_IGNORE(SSL_shutdown(stream->ssl)); /* 0 and 1 are success; else the peer hears of the end
                                              from the socket. */
    bop__tls_wire_end(stream->wire);
}

/* Fill `out` with what is to be sent next. */
static int fill(struct bop__tls_stream *stream)
{
    bool drained;
    int rc = take_unsent(stream);

    if (rc != 0 || !stream->done) {
        return rc;
    }
    if (stream->said_bye) {
        return 0;
    }
    rc = encrypt_queue(stream, &drained);
    if (rc == 0 && drained && stream->wants_bye && is_queue_empty(stream->sock)) {
        say_bye(stream);
    }
    return rc;
}

/* Send `out`, and keep what the kernel refuses. */
static int send_out(struct bop__tls_stream *stream)
{
    struct bop_buf *out = &stream->wire->out;
    ssize_t sent = send_bytes(stream, out->data, out->size);
    int rc = sent < 0 ? (int)sent : 0;

    if (rc == 0 && (size_t)sent < out->size) {
        rc = keep(stream, bop_slice(out->data + sent, out->size - (size_t)sent));
    }
    bop_buf_clear(out);
    return rc;
}

int bop__tls_send(struct bop__socket *sock)
{
    struct bop__tls_stream *stream = bop__socket_tls(sock);
    struct bop_buf *out = &stream->wire->out;
    int rc = 0;

    if (stream->failed) {
        return 0; /* It is being closed. */
    }
    if (bop__tls_unsent(sock) > MERGE_BYTES_MAX) {
        rc = send_unsent(stream);
        if (stream->unsent != NULL) {
            return rc;
        }
    }
    for (int i = 0; i < BATCHES_MAX && rc == 0; i++) {
        rc = fill(stream); /* With the little that is unsent in front. */
        if (rc != 0 || out->size == 0) {
            break;
        }
        rc = send_out(stream);
        if (stream->unsent != NULL) {
            break;
        }
    }
    bop_buf_clear(out);
    return rc;
}

void bop__tls_send_last(struct bop__tls_stream *stream)
{
    struct bop_buf *out = &stream->wire->out;

    if (bop__tls_unsent(stream->sock) == 0 && out->size > 0) {
        BOP_IGNORE(send_bytes(stream, out->data, out->size));
    }
    bop_buf_clear(out);
}

void bop__tls_shutdown(struct bop__socket *sock)
{
    struct bop__tls_stream *stream = bop__socket_tls(sock);
    int rc = 0;

    if (!stream->done || stream->failed || stream->said_bye) {
        return;
    }
    stream->wants_bye = true;
    if (is_queue_empty(sock)) {
        rc = bop__tls_send(sock); /* It says bye, and keeps what the kernel refuses. */
        if (stream->unsent != NULL) {
            bop__socket_flush_later(sock);
        }
    }
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
    }
}
