/*
 * A connection: heads in, one exchange after the other, out.
 *
 * on_data works through all the bytes there are: pipelined requests that are
 * answered in their handlers make one send. What cannot be begun yet, since an
 * answer before it is not whole or the peer does not take its answers, stays in
 * the socket, which is paused meanwhile: so a client can have read ahead of it
 * what one receive brings and no more.
 */
#include "parse.h"
#include "server_internal.h"

/* How long a peer may take to close its side after our last bytes. */
#define LINGER_MS 5000u

/* With so little queued the linger time is enough to send it, too. */
#define LINGER_QUEUE_MAX (16u * 1024)

void bop__http_conn_set_reading(struct bop__http_conn *conn, bool reading)
{
    if (conn->paused != !reading) {
        conn->paused = !reading;
        if (reading) {
            bop__socket_resume(bop__http_sock(conn));
        } else {
            bop__socket_pause(bop__http_sock(conn));
        }
    }
}

void bop__http_conn_kill(struct bop__http_conn *conn)
{
    if (conn->phase != BOP__HTTP_GONE) {
        conn->phase = BOP__HTTP_GONE; /* Its exchange ends in on_close. */
        bop__http_wheel_remove(conn);
        bop__socket_begin_close(bop__http_sock(conn), BOP_ECANCELED);
    }
}

void bop__http_conn_leave(struct bop__http_conn *conn)
{
    struct bop__socket *sock = bop__http_sock(conn);
    uint64_t timeout_ms = conn->server->options.write_timeout_ms;

    if (conn->phase == BOP__HTTP_GONE) {
        return;
    }
    if (conn->exchange != NULL && conn->exchange->answered) {
        bop__exchange_release(conn->exchange);
    }
    conn->phase = BOP__HTTP_LEAVING;
    if (bop__socket_queued(sock) > conn->server->options.write_high) {
        /* As long as the peer takes some of it there is no hurry: on_pressure comes back here. */
        bop__socket_flush_later(sock);
        bop__http_conn_set_reading(conn, false);
        return;
    }
    if (bop__socket_queued(sock) <= LINGER_QUEUE_MAX) {
        timeout_ms = bop_min_u64(timeout_ms, LINGER_MS);
    }
    bop__socket_close_after_flush(sock, timeout_ms);
}

void bop__http_conn_refuse(struct bop__http_conn *conn, unsigned status, const char *why)
{
    struct bop__exchange *ex = conn->exchange;
    bool begun = ex != NULL && (ex->head_sent || ex->answered);
    bool of_head = ex != NULL ? ex->method == BOP_HTTP_HEAD : conn->of_head;

    if (ex != NULL) {
        bop__exchange_abort(ex);
    }
    if (conn->phase == BOP__HTTP_GONE) {
        return; /* on_abort closed it. */
    }
    if (!begun) {
        bop__http_write_refusal(conn, status, why, of_head);
    }
    bop__http_conn_leave(conn);
}

/* After a handler or a callback: where does the connection stand? */
static void settle(struct bop__http_conn *conn)
{
    struct bop__exchange *ex = conn->exchange;

    if (ex == NULL || conn->phase >= BOP__HTTP_LEAVING) {
        return;
    }
    if (!ex->answered) {
        conn->phase = ex->body_done ? BOP__HTTP_ANSWER : BOP__HTTP_BODY;
    } else if (ex->close_after) {
        bop__http_conn_leave(conn);
    } else if (!ex->body_done) {
        conn->phase = BOP__HTTP_DRAIN;
    } else {
        bop__exchange_release(ex);
        conn->phase = BOP__HTTP_IDLE;
        if (conn->server->stopping) {
            bop__http_conn_leave(conn);
        }
    }
}

/* Its method, of a head that is not whole or bad. */
static bool says_head(struct bop_slice bytes)
{
    size_t at = 0;

    while (at < bytes.size && (bytes.data[at] == '\r' || bytes.data[at] == '\n')) {
        at++;
    }
    return bytes.size - at >= 5 && memcmp(bytes.data + at, "HEAD ", 5) == 0;
}

/* A request's head is there: hand it out. Returns its size; 0 when it is not. */
static size_t read_head(struct bop__http_conn *conn, struct bop_slice bytes)
{
    struct bop_http_server *server = conn->server;
    struct bop__exchange *ex;
    const char *why = NULL;
    size_t size;
    int rc;

    rc = bop_http1_parse_request(bytes, &server->options.limits, &server->head, &why);
    if (BOP_UNLIKELY(rc != 0)) {
        conn->of_head = says_head(bytes);
        if (rc == BOP_ETRUNCATED) {
            conn->seen = (uint32_t)bytes.size;
            return 0;
        }
        server->counters.requests++;
        server->counters.malformed++;
        bop__http_conn_refuse(conn, (unsigned)-rc, why != NULL ? why : "malformed request");
        return 0;
    }
    size = server->head.size;
    server->counters.requests++;
    conn->requests++;
    conn->seen = 0;
    conn->empty_lines = 0;
    conn->of_head = false;
    ex = bop__exchange_take(conn, &server->head);
    if (BOP_UNLIKELY(ex == NULL)) {
        bop__http_conn_refuse(conn, 503, "out of memory");
        return 0;
    }
    bop__http_dispatch(ex, &server->head);
    if (BOP_UNLIKELY(server->taken)) {
        return size; /* The connection's block is somebody else's now. */
    }
    settle(conn);
    return size;
}

/* Empty lines between requests, as RFC 9112, 2.2 has us take them, are no head's beginning. */
static size_t skip_empty_lines(struct bop__http_conn *conn, struct bop_slice bytes)
{
    size_t at = 0;

    while (conn->empty_lines < BOP__HTTP_EMPTY_LINES_MAX && at + 1 < bytes.size &&
           bytes.data[at] == '\r' && bytes.data[at + 1] == '\n') {
        at += 2;
        conn->empty_lines++;
    }
    return at;
}

static size_t begin_request(struct bop__http_conn *conn, struct bop_slice bytes)
{
    size_t skipped;

    if (BOP_UNLIKELY(bytes.data[0] == '\r')) {
        skipped = skip_empty_lines(conn, bytes);
        if (skipped > 0) {
            conn->phase = BOP__HTTP_IDLE; /* A CR had come alone. */
            conn->seen = 0;
            return skipped;
        }
        if (conn->empty_lines == BOP__HTTP_EMPTY_LINES_MAX) {
            conn->server->counters.requests++;
            conn->server->counters.malformed++;
            bop__http_conn_refuse(conn, 400, "too many empty lines precede the request");
            return 0;
        }
    }
    if (conn->phase == BOP__HTTP_HEAD &&
        !bop_http1_may_go_on(bytes, conn->seen, &conn->server->options.limits)) {
        conn->seen = (uint32_t)bytes.size;
        return 0;
    }
    return read_head(conn, bytes);
}

/* Do the answers of this read, and what was queued before it, rise above the bound? Counting the
 * bytes spares to ask the socket after each request. */
static bool rises(struct bop__http_conn *conn, uint32_t out_before)
{
    struct bop__socket *sock = bop__http_sock(conn);
    size_t high = conn->server->options.write_high;

    if ((uint32_t)(conn->out_total - out_before) <= high) {
        return false;
    }
    bop__socket_transmit(sock); /* If it closes, on_close says so. */
    return bop__socket_queued(sock) > high;
}

/* Work through what there is. Returns the bytes taken. */
static size_t work(struct bop__http_conn *conn, struct bop_slice bytes)
{
    struct bop_http_server *server = conn->server;
    uint32_t out_before = conn->out_total - (uint32_t)bop__socket_queued(bop__http_sock(conn));
    size_t used = 0;

    for (;;) {
        struct bop_slice rest = bop_slice(bytes.data + used, bytes.size - used);
        size_t taken;

        switch ((enum bop__http_phase)conn->phase) {
        case BOP__HTTP_PROXY:
            taken = bop__http_proxy_read(conn, rest);
            if (taken == 0 || bop__http_sock(conn)->has_tls) {
                return used + taken;
            }
            break;
        case BOP__HTTP_IDLE:
        case BOP__HTTP_HEAD:
            if (rest.size == 0) {
                return used;
            }
            if (BOP_UNLIKELY(rises(conn, out_before))) {
                conn->choked = true;
                bop__http_conn_set_slow(conn, true);
                return used;
            }
            taken = begin_request(conn, rest);
            if (server->taken) {
                return used + taken;
            }
            if (taken == 0) {
                if (conn->phase == BOP__HTTP_IDLE) {
                    conn->phase = BOP__HTTP_HEAD;
                    bop__http_wheel_wait(conn);
                }
                return used;
            }
            break;
        case BOP__HTTP_BODY:
        case BOP__HTTP_DRAIN:
            taken = bop__http_body_read(conn, rest);
            settle(conn);
            if (conn->phase == BOP__HTTP_BODY || conn->phase == BOP__HTTP_DRAIN) {
                return used + taken;
            }
            break;
        case BOP__HTTP_ANSWER:
            return used;
        case BOP__HTTP_LEAVING:
        case BOP__HTTP_GONE:
        default:
            return bytes.size;
        }
        used += taken;
    }
}

/* The bytes that came with an upgrade's head are the new owner's. */
static size_t hand_over(struct bop_http_server *server, struct bop_slice bytes, size_t used)
{
    struct bop__socket *sock = server->taken_socket;

    server->taken = false;
    if (used < bytes.size && sock->state == BOP__SOCKET_OPEN && !sock->leaving) {
        used += sock->events->on_data(bop__socket_handle(sock), sock->user,
                                      bop_slice(bytes.data + used, bytes.size - used));
    }
    return used;
}

/* The bytes there are were worked through: send what that made; what does it wait for? */
static void after_work(struct bop__http_conn *conn, bool all_taken)
{
    uint8_t phase = conn->phase;

    if (conn->wrote) {
        conn->wrote = false;
        bop__socket_flush_later(bop__http_sock(conn));
    }
    if (phase >= BOP__HTTP_LEAVING) {
        return;
    }
    if (conn->ended && all_taken && phase <= BOP__HTTP_IDLE) {
        bop__http_conn_leave(conn);
        return;
    }
    if (conn->choked || (phase == BOP__HTTP_ANSWER && !all_taken) ||
        (phase == BOP__HTTP_BODY && conn->exchange->body_paused)) {
        bop__http_conn_set_reading(conn, false);
    }
    if (phase != BOP__HTTP_HEAD) {
        bop__http_wheel_wait(conn); /* A head has one time limit as a whole. */
    }
}

static size_t on_data(struct bop_socket *socket, void *user, struct bop_slice bytes)
{
    struct bop__http_conn *conn = (struct bop__http_conn *)user;
    struct bop_http_server *server = conn->server;
    size_t used;

    server->references++; /* A handler may upgrade the connection and destroy the server. */
    conn->busy = true;
    used = work(conn, bytes);
    server->counters.bytes_received += used;
    if (BOP_UNLIKELY(server->taken)) {
        used = hand_over(server, bytes, used);
    } else {
        conn->busy = false;
        after_work(conn, used == bytes.size);
    }
    bop__http_server_unref(server);
    return used;
}

void bop__http_conn_continue(struct bop__http_conn *conn)
{
    if (conn->busy) {
        return; /* on_data sees to it. */
    }
    settle(conn);
    if (conn->phase >= BOP__HTTP_LEAVING) {
        return;
    }
    if (conn->ended && !conn->paused && conn->phase == BOP__HTTP_IDLE) {
        bop__http_conn_leave(conn);
        return;
    }
    bop__http_wheel_wait(conn);
    if (!conn->choked && !(conn->phase == BOP__HTTP_BODY && conn->exchange->body_paused)) {
        bop__http_conn_set_reading(conn, true);
    }
}

static void on_end(struct bop_socket *socket, void *user)
{
    struct bop__http_conn *conn = (struct bop__http_conn *)user;

    conn->ended = true;
    switch ((enum bop__http_phase)conn->phase) {
    case BOP__HTTP_HEAD:
        conn->server->counters.malformed++;
        bop__http_conn_refuse(conn, 400, "the request's head ends early");
        break;
    case BOP__HTTP_BODY:
        conn->server->counters.malformed++;
        bop__http_conn_refuse(conn, 400, "the request's body ends early");
        break;
    case BOP__HTTP_ANSWER:
        if (conn->server->options.end_aborts || conn->exchange->end_aborts) {
            bop__http_conn_kill(conn);
        }
        break;
    case BOP__HTTP_PROXY:
    case BOP__HTTP_IDLE:
    case BOP__HTTP_DRAIN:
        bop__http_conn_leave(conn);
        break;
    case BOP__HTTP_LEAVING:
    case BOP__HTTP_GONE:
        break;
    }
}

void bop__http_conn_set_slow(struct bop__http_conn *conn, bool slow)
{
    struct bop_http_counters *counters = &conn->server->counters;

    if (conn->slow != slow) {
        conn->slow = slow;
        counters->slow += slow;
        counters->slow_now += slow ? 1 : UINT64_MAX; /* One less. */
    }
}

static void on_pressure(struct bop_socket *socket, void *user, bool on)
{
    struct bop__http_conn *conn = (struct bop__http_conn *)user;
    struct bop__exchange *ex = conn->exchange;

    /* A queue that was high but is sent is nobody's fault. */
    bop__http_conn_set_slow(conn, on && bop__socket_blocked(bop__http_sock(conn)));
    if (on || conn->phase == BOP__HTTP_GONE) {
        return;
    }
    if (conn->phase == BOP__HTTP_LEAVING) {
        bop__http_conn_leave(conn);
        return;
    }
    if (conn->choked) {
        conn->choked = false;
        bop__http_conn_continue(conn);
    }
    if (ex != NULL && !ex->answered && ex->pressed) {
        ex->pressed = false;
        if (ex->on_drain != NULL) {
            ex->on_drain(bop__exchange_handle(ex), ex->drain_user);
        }
    }
}

static void on_close(struct bop_socket *socket, void *user, int reason)
{
    struct bop__http_conn *conn = (struct bop__http_conn *)user;
    struct bop_http_server *server = conn->server;

    conn->phase = BOP__HTTP_GONE;
    bop__http_wheel_remove(conn);
    if (conn->proxied) {
        bop__http_proxy_close(conn);
    }
    server->counters.connections_now--;
    bop__http_conn_set_slow(conn, false);
    if (conn->exchange != NULL) {
        if (!conn->exchange->answered) {
            server->counters.aborted++;
            server->counters.responses[0]++;
        }
        bop__exchange_abort(conn->exchange);
    }
    bop__http_server_look_stopped(server);
    bop__http_server_unref(server);
}

static const struct bop_socket_events conn_events = {
    .on_data = on_data,
    .on_end = on_end,
    .on_pressure = on_pressure,
    .on_close = on_close,
};

bool bop__http_accept(struct bop_listener *listener, struct bop_socket *socket, void *user)
{
    const struct bop__http_listener *from = (const struct bop__http_listener *)user;
    struct bop_http_server *server = from->server;
    struct bop__http_conn *conn = (struct bop__http_conn *)bop_socket_user(socket);

    conn->server = server;
    conn->phase = BOP__HTTP_IDLE;
    if (server->stopping) {
        return false;
    }
    if (from->proxy_protocol) {
        bop__http_proxy_open(conn, from->tls);
    }
    bop__http_wheel_add(conn);
    bop_socket_attach(socket, &conn_events, NULL);
    server->references++;
    server->counters.connections++;
    server->counters.connections_now++;
    return true;
}
