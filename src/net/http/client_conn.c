/*
 * A connection: answers read and given to their calls, in the order of sending.
 *
 * Nothing of an answer that breaks the rules is believed: the connection closes,
 * its first call fails, and those behind it are made again if they may be.
 */
#include <stdio.h>

#include "client_internal.h"

#define WRITE_HIGH  (64u * 1024)
#define WRITE_LOW   (16u * 1024)
#define INTERIM_MAX 16 /* 1xx answers before the final one. */

static struct bop__call *first_call(const struct bop__client_conn *conn)
{
    return bop_list_empty(&conn->calls)
               ? NULL
               : BOP_CONTAINER_OF(conn->calls.next, struct bop__call, link);
}

/* ---- Closing ---- */

static void uncount(struct bop__client_conn *conn)
{
    if (conn->counted) {
        conn->counted = false;
        conn->origin->conn_count--;
        conn->origin->client->conn_count--;
    }
    if (!bop_list_empty(&conn->kept)) {
        bop_list_remove(&conn->kept);
        conn->origin->client->kept_count--;
    }
}

void bop__conn_close(struct bop__client_conn *conn)
{
    if (!conn->closing) {
        conn->closing = true;
        uncount(conn);
        bop_socket_close(conn->socket);
    }
}

void bop__conn_forget(struct bop__client_conn *conn)
{
    uncount(conn);
    bop_list_remove(&conn->link);
    conn->origin = NULL;
    conn->closing = true;
    bop_socket_close(conn->socket);
}

static void fail(struct bop__client_conn *conn, struct bop__call *call, int code, const char *why)
{
    bop__conn_close(conn);
    bop__call_end(call, code, why);
}

/* ---- Answers ---- */

/* The answer is whole, or as whole as it need be. */
static void finish_answer(struct bop__client_conn *conn, struct bop__call *call)
{
    struct bop__client_origin *origin = conn->origin;
    int rc;

    conn->in_body = false;
    conn->got_bytes = false;
    conn->interim = 0;
    conn->drained = 0;
    conn->served++;
    if (conn->last || !call->body_sent) {
        bop__conn_close(conn);
    }
    bop__call_detach(call);
    if (!conn->closing && first_call(conn) == NULL) {
        bop_list_push_back(&origin->kept, &conn->kept);
        origin->client->kept_count++;
        bop_socket_set_idle_timeout(conn->socket, origin->client->options.keep_ms);
    }
    if (call->redirecting) {
        rc = bop__call_enqueue(call, true);
        if (rc != 0) {
            bop__call_end(call, rc, NULL);
        }
    } else {
        bop__call_end(call, 0, NULL);
    }
    bop__origin_dispatch(origin);
}

/* A piece of content. Returns whether to go on. */
static bool deliver(struct bop__client_conn *conn, struct bop__call *call, struct bop_slice bytes)
{
    int rc;

    if (call->redirecting) {
        conn->drained += bytes.size;
        if (conn->drained > BOP__CLIENT_DRAIN_MAX) {
            conn->last = true;
            finish_answer(conn, call);
            return false;
        }
        return true;
    }
    conn->delivered += bytes.size;
    if (conn->delivered > call->request.body_bytes_max) {
        fail(conn, call, BOP_ETOOBIG, "the answer's body is larger than allowed");
        return false;
    }
    if (call->request.on_body != NULL) {
        call->request.on_body(bop__call_handle(call), call->request.user, bytes);
        return !conn->closing && !call->paused;
    }
    rc = bop_buf_append(&call->answer, bytes.data, bytes.size);
    if (rc != 0) {
        fail(conn, call, rc, NULL);
        return false;
    }
    return true;
}

/* Takes from the bytes what belongs to the answer. */
static void read_body(struct bop__client_conn *conn, struct bop__call *call,
                      struct bop_slice *in_out_bytes)
{
    struct bop_slice piece;
    int rc;

    while ((rc = bop_http1_body_decode(&conn->body, in_out_bytes, &piece)) == 1) {
        if (piece.size > 0 && !deliver(conn, call, piece)) {
            return;
        }
    }
    if (rc == 0) {
        finish_answer(conn, call);
    } else if (rc != BOP_ETRUNCATED) {
        fail(conn, call, BOP_EMALFORMED, "the answer's body breaks the rules of chunks");
    }
}

/* Takes an interim answer. */
static void take_interim(struct bop__client_conn *conn, struct bop__call *call, unsigned status)
{
    if (status == 101 || ++conn->interim > INTERIM_MAX) {
        fail(conn, call, BOP_EPROTOCOL,
             status == 101 ? "the server switched protocols unasked" : "too many interim answers");
    } else if (status == 100) {
        bop__call_send_body(call);
    }
}

static void begin_answer(struct bop__client_conn *conn, struct bop__call *call,
                         const struct bop_http_head *head)
{
    int rc;

    bop_timer_stop(call->client->loop, &call->soon);
    conn->in_body = true;
    conn->delivered = 0;
    conn->last = !head->keep_alive || head->framing == BOP_HTTP_UNTIL_CLOSE;
    bop_http1_body_init(&conn->body, head);
    call->head_seen = true;
    call->status = head->status;
    rc = bop__call_redirect(call, head);
    if (rc < 0) {
        bop__conn_close(conn);
        bop__call_end(call, rc, call->error.code != 0 ? call->error.message : NULL);
        return;
    }
    call->redirecting = rc == 1;
    if (!call->redirecting && head->framing == BOP_HTTP_LENGTH &&
        head->content_length > call->request.body_bytes_max) {
        fail(conn, call, BOP_ETOOBIG, "the answer's body is larger than allowed");
    } else if (!call->redirecting && call->request.on_head != NULL) {
        call->request.on_head(bop__call_handle(call), call->request.user, head);
    }
}

/* Takes a head. Returns false if there is none yet. */
static bool read_head(struct bop__client_conn *conn, struct bop__call *call,
                      struct bop_slice *in_out_bytes)
{
    struct bop_http_client *client = call->client;
    const char *why = NULL;
    int rc = bop_http1_parse_response(*in_out_bytes, &client->options.limits, call->method,
                                      &client->head, &why);

    if (rc == BOP_ETRUNCATED) {
        return false;
    }
    if (rc != 0) {
        fail(conn, call, rc, why);
        return true;
    }
    *in_out_bytes = bop_slice(in_out_bytes->data + client->head.size,
                              in_out_bytes->size - client->head.size);
    if (client->head.status < 200) {
        take_interim(conn, call, client->head.status);
    } else {
        begin_answer(conn, call, &client->head);
    }
    return true;
}

void bop__conn_continue(struct bop__client_conn *conn)
{
    if (!conn->closing && conn->in_body) {
        struct bop_slice none = bop_slice("", 0);

        read_body(conn, first_call(conn), &none);
    }
}

static size_t on_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct bop__client_conn *conn = (struct bop__client_conn *)user;
    struct bop_slice left = bytes;

    while (!conn->closing) {
        struct bop__call *call = first_call(conn);

        if (call == NULL) {
            if (left.size > 0) {
                bop__conn_close(conn); /* Nobody asked. */
            }
            break;
        }
        if (call->paused) {
            bop_socket_pause(socket);
            break;
        }
        if (conn->in_body) {
            size_t before = left.size;

            read_body(conn, call, &left);
            if (left.size == before && (conn->closing || conn->in_body)) {
                break;
            }
        } else {
            conn->got_bytes = conn->got_bytes || left.size > 0;
            if (left.size == 0 || !read_head(conn, call, &left)) {
                break;
            }
        }
    }
    return conn->closing ? bytes.size : bytes.size - left.size;
}

/* ---- Other events ---- */

static void on_open(struct bop_socket *socket, void *user)
{
    struct bop__client_conn *conn = (struct bop__client_conn *)user;

    conn->open = true;
    BOP_LIST_FOR_EACH_SAFE(link, &conn->calls) {
        if (!conn->closing) {
            bop__call_send(BOP_CONTAINER_OF(link, struct bop__call, link));
        }
    }
}

static void on_pressure(struct bop_socket *socket, void *user, bool on)
{
    struct bop__client_conn *conn = (struct bop__client_conn *)user;

    if (!on && !conn->closing && !bop_list_empty(&conn->calls)) {
        bop__call_writable(BOP_CONTAINER_OF(conn->calls.prev, struct bop__call, link));
    }
}

static void on_idle(struct bop_socket *socket, void *user)
{
    struct bop__client_conn *conn = (struct bop__client_conn *)user;
    struct bop__call *call = first_call(conn);

    if (conn->closing) {
        return;
    }
    bop__conn_close(conn);
    if (call != NULL) {
        bop__call_end(call, BOP_ETIMEOUT, "the server was silent for too long");
    }
}

/* Whether a call whose connection has gone is made again. */
static bool may_retry(const struct bop__client_conn *conn, const struct bop__call *call, bool first)
{
    if (call->retried || !call->idempotent || call->request.body_later != 0) {
        return false;
    }
    return first ? conn->served > 0 && !conn->got_bytes : true;
}

/* The connection has gone before a call's answer was whole. */
static void lose_call(struct bop__client_conn *conn, struct bop__call *call, bool first, int reason)
{
    int rc = reason != 0 ? reason : BOP_ECLOSED;
    bool retry = may_retry(conn, call, first);
    char text[BOP_ERROR_MESSAGE_MAX];

    if (!conn->open && reason != 0) { /* That names the host. */
        snprintf(text, sizeof(text), "%s", bop_socket_error_text(conn->socket, reason));
    } else {
        snprintf(text, sizeof(text), "%s:%u: %s", conn->origin->host, conn->origin->port,
                 reason != 0 ? bop_socket_error_text(conn->socket, reason)
                             : "the server closed the connection before its answer was whole");
    }
    bop__call_detach(call);
    if (retry) {
        call->retried = true;
        call->client->counters.retried++;
        rc = bop__call_enqueue(call, true);
        if (rc == 0) {
            return;
        }
    }
    bop__call_end(call, rc, text);
}

static void on_close(struct bop_socket *socket, void *user, int reason)
{
    struct bop__client_conn *conn = (struct bop__client_conn *)user;
    struct bop__client_origin *origin = conn->origin;
    struct bop_http_client *client;
    struct bop__call *call;
    bool first = true;

    if (origin == NULL) {
        return; /* The client has gone before. */
    }
    client = origin->client;
    uncount(conn);
    bop_list_remove(&conn->link);
    call = first_call(conn);
    if (call != NULL && conn->in_body && reason == 0 &&
        conn->body.framing == BOP_HTTP_UNTIL_CLOSE) {
        conn->closing = true;
        finish_answer(conn, call);
        first = false;
    }
    conn->closing = true;
    /* From the back: each that is made again goes to the front of those that wait. */
    while (!bop_list_empty(&conn->calls)) {
        call = BOP_CONTAINER_OF(conn->calls.prev, struct bop__call, link);
        lose_call(conn, call, first && call == first_call(conn), reason);
    }
    bop__client_dispatch_all(client);
    bop__origin_release(origin);
}

static const struct bop_socket_events conn_events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_pressure = on_pressure,
    .on_idle = on_idle,
    .on_close = on_close,
};

/* ---- Beginning ---- */

int bop__client_connect(struct bop__client_origin *origin, struct bop__client_conn **out_conn,
                        struct bop_error *err)
{
    struct bop_http_client *client = origin->client;
    struct bop_tls *tls = client->options.tls != NULL ? client->options.tls : client->own_tls;
    struct bop_connect_options options = {
        .host = origin->unix_path != NULL ? NULL : origin->host,
        .port = origin->port,
        .path = origin->unix_path,
        .timeout_ms = client->options.connect_timeout_ms,
        .tls = origin->tls ? tls : NULL,
        .tls_name = origin->host,
        .limits = {.write_high = WRITE_HIGH, .write_low = WRITE_LOW},
        .events = &conn_events,
        .user_bytes = sizeof(struct bop__client_conn),
    };
    struct bop__client_conn *conn;
    struct bop_socket *socket;
    int rc = bop_connect(client->loop, &options, &socket, err);

    if (rc != 0) {
        return rc;
    }
    conn = (struct bop__client_conn *)bop_socket_user(socket);
    bop_list_init(&conn->kept);
    bop_list_init(&conn->calls);
    conn->origin = origin;
    conn->socket = socket;
    conn->counted = true;
    bop_list_push_back(&origin->conns, &conn->link);
    origin->conn_count++;
    client->conn_count++;
    client->counters.connections++;
    *out_conn = conn;
    return 0;
}

void bop__conn_take(struct bop__client_conn *conn, struct bop__call *call)
{
    bop_list_push_back(&conn->calls, &call->link);
    conn->call_count++;
    call->conn = conn;
    call->reused = conn->served > 0;
    if (call->reused) {
        call->client->counters.reused++;
    }
    if (conn->open) {
        bop__call_send(call);
    }
}
