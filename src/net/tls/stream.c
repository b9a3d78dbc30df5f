/*
 * The life of a TLS socket: handshake, plain bytes, end. Sending is in output.c.
 */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "stream.h"

/* What one byte on the wire can become is never more than one plain byte, but a
 * record that was begun earlier adds its own. */
_Static_assert(BOP__TLS_BATCH_BYTES >= 2 * BOP__TLS_RECORD_BYTES, "one record fits behind another");

uint64_t bop__tls_now_ms(const SSL *ssl)
{
    const struct bop__tls_wire *wire = (struct bop__tls_wire *)BIO_get_data(SSL_get_rbio(ssl));

    return wire->loop->now_ms;
}

const char *bop__tls_session_name(const SSL *ssl)
{
    const struct bop__tls_wire *wire = (struct bop__tls_wire *)BIO_get_data(SSL_get_rbio(ssl));

    return wire->stream != NULL ? wire->stream->name : NULL;
}

/* ---- Failing ---- */

/* OpenSSL's reasons in words that tell what to look for. */
static void describe(const struct bop__tls_stream *stream, char *text, size_t size)
{
    unsigned long error = ERR_peek_error(); /* The first is the cause of the others. */
    int reason = ERR_GET_REASON(error);
    long verified = SSL_get_verify_result(stream->ssl);
    bool is_ssl = ERR_GET_LIB(error) == ERR_LIB_SSL;

    if (is_ssl && reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        snprintf(text, size, "the peer's certificate is refused: %s",
                 X509_verify_cert_error_string(verified));
    } else if (is_ssl && reason == SSL_R_HTTP_REQUEST) {
        snprintf(text, size, "the peer speaks plain HTTP");
    } else if (is_ssl && reason == SSL_R_WRONG_VERSION_NUMBER) {
        snprintf(text, size, "the peer does not speak TLS");
    } else if (is_ssl && reason > SSL_AD_REASON_OFFSET) {
        snprintf(text, size, "the peer gave up: %s",
                 SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET));
    } else if (error == 0) {
        snprintf(text, size, "the peer ended it"); /* By close_notify, in a handshake. */
    } else {
        const char *words = ERR_reason_error_string(error);

        snprintf(text, size, "%s", words != NULL ? words : "unknown error");
    }
}

void bop__tls_explain(struct bop__tls_stream *stream)
{
    char what[BOP_ERROR_MESSAGE_MAX / 2];
    char text[BOP_ERROR_MESSAGE_MAX];

    describe(stream, what, sizeof(what));
    ERR_clear_error();
    snprintf(text, sizeof(text), "%s: %s", stream->done ? "TLS" : "TLS handshake", what);
    bop__socket_set_error_text(stream->sock, text);
    stream->failed = true;
}

/* Whoever does not speak TLS would not understand an alert. */
static void answer_plainly(struct bop__tls_stream *stream)
{
    const struct bop_buf *answer = &stream->tls->plain_answer;
    unsigned long error = ERR_peek_error();
    int reason = ERR_GET_REASON(error);

    if (!stream->done && answer->size > 0 && ERR_GET_LIB(error) == ERR_LIB_SSL &&
        (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST)) {
        bop_buf_clear(&stream->wire->out);
        /* Without memory for it it is not said. */
        BOP_IGNORE(bop_buf_append(&stream->wire->out, answer->data, answer->size));
    }
}

void bop__tls_fail(struct bop__tls_stream *stream)
{
    answer_plainly(stream);
    bop__tls_explain(stream);
    bop__tls_send_last(stream); /* The alert. */
    bop__socket_begin_close(stream->sock, BOP_ETLS);
}

/* Fail for a reason of our own. */
static void fail_saying(struct bop__tls_stream *stream, int reason, const char *text)
{
    bop__socket_set_error_text(stream->sock, text);
    stream->failed = true;
    bop__socket_begin_close(stream->sock, reason);
}

/* Keep what OpenSSL wrote, or close. Returns whether the socket is still open. */
static bool keep_out(struct bop__tls_stream *stream)
{
    int rc = bop__tls_keep_out(stream);

    if (rc == BOP_EFULL) {
        fail_saying(stream, BOP_ETLS, "TLS: the peer asks for answers and does not read them");
    } else if (rc != 0) {
        bop__socket_begin_close(stream->sock, rc);
    }
    return rc == 0;
}

/* ---- Handshake ---- */

/* OpenSSL's state, which takes some 10 KiB. */
static int make_ssl(struct bop__tls_stream *stream)
{
    SSL_CTX *ctx = bop__tls_context(stream->tls);
    BIO *bio = stream->wire->bio;

    stream->ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    if (stream->ssl == NULL) {
        ERR_clear_error();
        return BOP_ENOMEM;
    }
    BIO_up_ref(bio);
    SSL_set_bio(stream->ssl, bio, bio); /* One reference for both. */
    if (stream->tls->server) {
        SSL_set_accept_state(stream->ssl);
    } else {
        SSL_set_connect_state(stream->ssl);
    }
    return 0;
}

/* Returns whether the handshake is done and the socket still open. */
static bool shake(struct bop__tls_stream *stream, struct bop_slice *bytes)
{
    int result, error;

    bop__tls_wire_begin(stream, *bytes);
    result = SSL_do_handshake(stream->ssl);
    error = result == 1 ? SSL_ERROR_NONE : SSL_get_error(stream->ssl, result);
    *bytes = bop__tls_wire_end(stream->wire);
    if (stream->sock->state != BOP__SOCKET_OPEN) { /* In on_unknown_name. */
        bop_buf_clear(&stream->wire->out);
        return false;
    }
    if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ) {
        bop__tls_fail(stream);
        return false;
    }
    /* Sent with what on_open queues. */
    if (!keep_out(stream) || error != SSL_ERROR_NONE) {
        return false;
    }
    stream->done = true;
    bop__socket_opened(stream->sock);
    return stream->sock->state == BOP__SOCKET_OPEN;
}

/* ---- Plain bytes ---- */

/* Decrypt as much as fits into the plain buffer. Returns SSL_ERROR_NONE if there may be more. */
static int decrypt_batch(struct bop__tls_stream *stream, struct bop_slice *bytes, size_t *out_size)
{
    size_t size = 0, count;
    int result = 1, error = SSL_ERROR_NONE;

    bop__tls_wire_begin(stream, *bytes);
    while (result == 1 && size <= BOP__TLS_BATCH_BYTES - BOP__TLS_RECORD_BYTES) {
        result = SSL_read_ex(stream->ssl, stream->wire->plain + size, BOP__TLS_BATCH_BYTES - size,
                             &count);
        size += result == 1 ? count : 0;
    }
    if (result != 1) {
        error = SSL_get_error(stream->ssl, result);
    }
    *bytes = bop__tls_wire_end(stream->wire);
    BOP_DEBUG_ASSERT(error != SSL_ERROR_WANT_READ || bytes->size == 0);
    *out_size = size;
    return error;
}

static void decrypt(struct bop__tls_stream *stream, struct bop_slice bytes)
{
    struct bop__socket *sock = stream->sock;
    int error = SSL_ERROR_NONE;
    size_t size;

    while (error == SSL_ERROR_NONE && !stream->got_bye) {
        error = decrypt_batch(stream, &bytes, &size);
        if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ &&
            error != SSL_ERROR_ZERO_RETURN) {
            bop__tls_explain(stream); /* Before a callback can use OpenSSL. */
        }
        if (stream->failed) {
            bop__tls_send_last(stream); /* The alert. */
        } else if (!keep_out(stream)) {
            return;
        }
        if (size > 0) {
            bop__socket_received(sock, bop_slice(stream->wire->plain, size));
        }
        if (sock->state != BOP__SOCKET_OPEN) {
            return;
        }
        if (stream->failed) {
            bop__socket_begin_close(sock, BOP_ETLS);
            return;
        }
        if (error == SSL_ERROR_ZERO_RETURN) {
            stream->got_bye = true;
            bop__socket_ended(sock);
        }
    }
}

void bop__tls_go_on(struct bop__tls_stream *stream, struct bop_slice bytes)
{
    if (stream->ssl == NULL) {
        int rc = make_ssl(stream);

        if (rc != 0) {
            bop__socket_begin_close(stream->sock, rc);
            return;
        }
    }
    if (stream->done || shake(stream, &bytes)) {
        if (bytes.size > 0) {
            decrypt(stream, bytes);
        }
    }
}

void bop__tls_received(struct bop__socket *sock, struct bop_slice bytes)
{
    struct bop__tls_stream *stream = bop__socket_tls(sock);
    int rc = 0;

    if (stream->failed || stream->got_bye) {
        return;
    }
    if (stream->done || (stream->waiting == NULL && bop__tls_admit(stream))) {
        bop__tls_go_on(stream, bytes);
        return;
    }
    rc = bop__tls_wait(stream, bytes);
    if (rc != 0) {
        bop__socket_begin_close(sock, rc);
    }
}

/* Whoever cuts the connection must not be able to pass for the peer's own end. */
void bop__tls_end(struct bop__socket *sock)
{
    struct bop__tls_stream *stream = bop__socket_tls(sock);

    if (stream->got_bye || stream->failed) {
        return;
    }
    fail_saying(stream, -ECONNRESET,
                stream->done ? "TLS: the connection ended without close_notify"
                             : "TLS handshake: the peer closed the connection");
}

/* ---- Beginning and end ---- */

static int copy_name(struct bop__tls_stream *stream, const char *name)
{
    stream->name = OPENSSL_strdup(name);
    return stream->name != NULL ? 0 : BOP_ENOMEM;
}

/* Whom to ask for and whom to expect. Returns 0, BOP_ENOMEM, or BOP_EINVAL for a name that no
 * certificate can have. */
static int set_peer(struct bop__tls_stream *stream, const char *name)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(stream->ssl);
    char normal[BOP__TLS_NAME_MAX + 1];
    SSL_SESSION *session;
    int rc;

    if (name == NULL) {
        return stream->tls->verify == BOP_TLS_VERIFY_NONE ? 0 : BOP_EINVAL;
    }
    if (X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1) {
        rc = copy_name(stream, name);
    } else if (!bop__tls_name_normalize(name, false, normal)) {
        return stream->tls->verify == BOP_TLS_VERIFY_NONE ? 0 : BOP_EINVAL;
    } else {
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        if (X509_VERIFY_PARAM_set1_host(param, normal, 0) != 1 ||
            SSL_set_tlsext_host_name(stream->ssl, normal) != 1) {
            return BOP_ENOMEM;
        }
        rc = copy_name(stream, normal);
    }
    if (rc == 0) {
        session = bop__tls_sessions_take(&stream->tls->sessions, stream->name);
        /* A session that does not fit the rules any more: a full handshake. */
        BOP_IGNORE(session != NULL && SSL_set_session(stream->ssl, session));
        SSL_SESSION_free(session);
    }
    ERR_clear_error();
    return rc;
}

static int start_client(struct bop__tls_stream *stream, const char *name)
{
    struct bop_slice none = bop_slice(NULL, 0);
    int rc = make_ssl(stream);

    if (rc == 0) {
        rc = set_peer(stream, name);
    }
    if (rc == BOP_EINVAL) {
        fail_saying(stream, BOP_ETLS, "TLS: there is no name to expect in the certificate");
        return 0;
    }
    if (rc == 0) {
        BOP_IGNORE(shake(stream, &none)); /* Says hello. */
    }
    return rc;
}

int bop__tls_start(struct bop__socket *sock, struct bop_tls *tls, const char *name)
{
    struct bop_allocator *allocator = bop__socket_loop(sock)->allocator;
    struct bop__tls_stream *stream = (struct bop__tls_stream *)bop_alloc_zeroed(allocator,
                                                                                sizeof(*stream));
    int rc;

    if (stream == NULL) {
        return BOP_ENOMEM;
    }
    rc = bop__socket_set_tls(sock, stream);
    if (rc != 0) {
        bop_free(allocator, stream, sizeof(*stream));
        return rc;
    }
    stream->sock = sock;
    stream->tls = tls;
    bop__tls_ref(tls);
    stream->wire = bop__tls_wire_of(bop__socket_loop(sock));
    if (stream->wire == NULL) {
        return BOP_ENOMEM;
    }
    sock->opening = true;
    if (tls->server != (sock->context->listener != NULL)) {
        fail_saying(stream, BOP_EINVAL,
                    tls->server ? "TLS: options of a server were given to connect with"
                                : "TLS: options of a client were given to listen with");
        return 0;
    }
    if (!tls->server) {
        return start_client(stream, name); /* In the time that connecting has. */
    }
    bop__socket_set_timeout(sock, tls->handshake_timeout_ms);
    return 0;
}

void bop__tls_free(struct bop__socket *sock)
{
    struct bop__tls_stream *stream = bop__socket_tls(sock);

    if (stream->wire != NULL) {
        bop__tls_stop_waiting(stream);
        bop__tls_free_unsent(stream);
    }
    if (stream->ssl != NULL) {
        if (stream->done && !stream->failed) {
            /* Else OpenSSL would forbid to resume the session of a connection that was cut. */
            SSL_set_shutdown(stream->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        }
        SSL_free(stream->ssl);
    }
    OPENSSL_free(stream->name);
    bop__tls_unref(stream->tls);
    sock->has_tls = false;
    sock->more->tls = NULL;
    bop_free(bop__socket_loop(sock)->allocator, stream, sizeof(*stream));
}
