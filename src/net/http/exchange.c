/*
 * Exchanges: their records, their handles, and what a handler asks of a request.
 */
#include <bop/router.h>
#include <bop/url.h>

#include "server_internal.h"

/* Records kept for reuse; more were in use at once only for slow answers. */
#define POOL_MAX 256u

/* What a record in the pool may keep of its header buffer. */
#define POOL_HEADERS_MAX 1024u

/* Of headers that a handler sets. */
#define HEADERS_BYTES_MAX (64u * 1024)

static struct bop__exchange *from_pool(struct bop_http_server *server)
{
    struct bop__exchange *ex = server->pool;

    if (BOP_LIKELY(ex != NULL)) {
        server->pool = ex->next;
        server->pooled--;
        return ex;
    }
    ex = (struct bop__exchange *)bop_alloc_zeroed(server->allocator, sizeof(*ex));
    if (ex != NULL) {
        bop_buf_init(&ex->headers, server->allocator, HEADERS_BYTES_MAX);
        bop_buf_init(&ex->whole, server->allocator, 0);
    }
    return ex;
}

struct bop__exchange *bop__exchange_take(struct bop__http_conn *conn,
                                         const struct bop_http_head *head)
{
    struct bop_http_server *server = conn->server;
    struct bop__exchange *ex = from_pool(server);

    if (BOP_UNLIKELY(ex == NULL)) {
        return NULL;
    }
    memset(&ex->body_received, 0,
           offsetof(struct bop__exchange, zeros_end) -
               offsetof(struct bop__exchange, body_received));
    ex->conn = conn;
    ex->head = head;
    ex->match = NULL;
    ex->body_max = server->options.body_bytes_max;
    ex->status = 200;
    ex->method = (uint8_t)head->method;
    ex->minor_0 = head->minor == 0;
    ex->keep_alive = head->keep_alive;
    ex->body_done = true;
    if (head->framing != BOP_HTTP_NO_BODY) {
        ex->body_done = false;
        ex->expects = head->expect_continue;
        ex->rate_ms = bop__http_now(server);
        ex->rate_received = 0;
        bop_http1_body_init(&ex->body, head);
    }
    conn->exchange = ex;
    return ex;
}

void bop__exchange_release(struct bop__exchange *ex)
{
    struct bop_http_server *server = ex->conn->server;

    ex->conn->exchange = NULL;
    if (BOP_UNLIKELY(ex->deflate != NULL)) {
        bop__http_deflate_end(ex);
    }
    if (BOP_UNLIKELY(ex->whole.data != NULL)) {
        bop_buf_deinit(&ex->whole);
    }
    bop_buf_clear(&ex->headers);
    if (BOP_UNLIKELY(ex->headers.capacity > POOL_HEADERS_MAX)) {
        bop_buf_deinit(&ex->headers);
    }
    if (BOP_UNLIKELY(server->pooled >= POOL_MAX)) {
        bop_buf_deinit(&ex->headers);
        bop_free(server->allocator, ex, sizeof(*ex));
        return;
    }
    ex->next = server->pool;
    server->pool = ex;
    server->pooled++;
}

void bop__exchange_free_pool(struct bop_http_server *server)
{
    while (server->pool != NULL) {
        struct bop__exchange *ex = server->pool;

        server->pool = ex->next;
        bop_buf_deinit(&ex->headers);
        bop_free(server->allocator, ex, sizeof(*ex));
    }
    server->pooled = 0;
}

struct bop__exchange *bop__exchange_of(const struct bop_http_exchange *http)
{
    struct bop__http_conn *conn = bop__http_conn_of(http);

    if (conn == NULL || conn->phase >= BOP__HTTP_LEAVING || conn->exchange == NULL ||
        conn->exchange->answered) {
        return NULL;
    }
    return conn->exchange;
}

struct bop_http_exchange *bop__exchange_handle(const struct bop__exchange *ex)
{
    return (struct bop_http_exchange *)(void *)bop__http_socket(ex->conn);
}

void bop__exchange_answered(struct bop__exchange *ex)
{
    struct bop__http_conn *conn = ex->conn;
    unsigned class = ex->status / 100u;

    conn->server->counters.responses[class <= 5 ? class : 0]++;
    ex->answered = true;
    ex->body_paused = false;
    bop__http_new_generation(conn);
    if (!conn->busy) {
        bop__socket_flush_later(bop__http_sock(conn));
        bop__http_conn_continue(conn);
    }
}

void bop__exchange_abort(struct bop__exchange *ex)
{
    struct bop_http_exchange *http = bop__exchange_handle(ex);
    void (*on_abort)(struct bop_http_exchange * http, void *user) = ex->on_abort;
    void *user = ex->abort_user;
    bool answered = ex->answered;

    bop__exchange_release(ex);
    if (!answered) {
        bop__http_new_generation(ex->conn);
        if (on_abort != NULL) {
            on_abort(http, user);
        }
    }
}

/* ---- What a handler asks ---- */

struct bop_slice bop_http_param(const struct bop_http_exchange *http, const char *name)
{
    const struct bop__exchange *ex = bop__exchange_of(http);

    if (ex == NULL || ex->match == NULL) {
        return bop_slice(NULL, 0);
    }
    return bop_router_param(ex->match, name);
}

int bop_http_query(const struct bop_http_head *head, const char *name, struct bop_buf *buf)
{
    struct bop_slice value;

    if (!bop_url_query_find(head->query, name, &value)) {
        return BOP_ENOTFOUND;
    }
    return value.size > 0 ? bop_url_decode_form(value, buf) : 0;
}

void bop_http_next(struct bop_http_exchange *http)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex != NULL && ex->match != NULL) {
        ex->next_route = true;
    }
}

static int want_body(struct bop_http_exchange *http, bop_http_body_fn on_body, void *user,
                     bool whole)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    if (ex->head == NULL || on_body == NULL) {
        return BOP_EINVAL; /* Too late: some of it may be gone. */
    }
    if (ex->head->framing == BOP_HTTP_LENGTH && ex->head->content_length > ex->body_max) {
        ex->close_after = true; /* It is not worth reading. */
        bop__exchange_reply_text(ex, 413, "the request's body is too large");
        return BOP_ETOOBIG;
    }
    ex->on_body = on_body;
    ex->body_user = user;
    ex->body_whole = whole;
    if (ex->body_done) {
        /* One last call for no body, too. */
        ex->body_done = false;
        bop_http1_body_init(&ex->body, ex->head);
    }
    bop__exchange_continue(ex);
    return 0;
}

int bop_http_on_body(struct bop_http_exchange *http, bop_http_body_fn on_body, void *user)
{
    return want_body(http, on_body, user, false);
}

int bop_http_on_whole_body(struct bop_http_exchange *http, bop_http_body_fn on_body, void *user)
{
    return want_body(http, on_body, user, true);
}

int bop_http_body_max(struct bop_http_exchange *http, uint64_t bytes_max)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    ex->body_max = bytes_max;
    return 0;
}

void bop_http_pause(struct bop_http_exchange *http)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex == NULL || ex->body_done) {
        return;
    }
    ex->body_paused = true;
    if (!ex->conn->busy) {
        bop__http_conn_set_reading(ex->conn, false);
    }
}

void bop_http_resume(struct bop_http_exchange *http)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex == NULL || !ex->body_paused) {
        return;
    }
    ex->body_paused = false;
    ex->rate_ms = bop__http_now(ex->conn->server);
    ex->rate_received = ex->body_received;
    bop__http_conn_continue(ex->conn);
}

void bop_http_on_abort(struct bop_http_exchange *http,
                       void (*on_abort)(struct bop_http_exchange *http, void *user), void *user)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex != NULL) {
        ex->on_abort = on_abort;
        ex->abort_user = user;
    }
}

void bop_http_end_aborts(struct bop_http_exchange *http)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex != NULL) {
        ex->end_aborts = true;
    }
}

void bop_http_on_drain(struct bop_http_exchange *http,
                       void (*on_drain)(struct bop_http_exchange *http, void *user), void *user)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex != NULL) {
        ex->on_drain = on_drain;
        ex->drain_user = user;
    }
}

bool bop_http_is_open(const struct bop_http_exchange *http)
{
    return bop__exchange_of(http) != NULL;
}

void bop_http_close(struct bop_http_exchange *http)
{
    struct bop__exchange *ex = bop__exchange_of(http);

    if (ex != NULL) {
        bop__http_conn_kill(ex->conn);
    }
}

const char *bop_http_peer_name(const struct bop_http_exchange *http)
{
    const struct bop__http_conn *conn = bop__http_conn_of(http);

    if (conn == NULL) {
        return "unknown";
    }
    if (conn->proxied && ((const struct bop__http_proxied *)conn)->peer_name[0] != '\0') {
        return ((const struct bop__http_proxied *)conn)->peer_name;
    }
    return bop_socket_peer_name(bop__http_socket(conn));
}

int bop_http_peer_certificate(const struct bop_http_exchange *http,
                              struct bop_tls_certificate *out_certificate)
{
    const struct bop__exchange *ex = bop__exchange_of(http);

    return ex == NULL ? BOP_ECLOSED
                      : bop_socket_peer_certificate(bop__http_socket(ex->conn), out_certificate);
}

struct bop_loop *bop_http_loop(const struct bop_http_exchange *http)
{
    const struct bop__exchange *ex = bop__exchange_of(http);

    return ex == NULL ? NULL : ex->conn->server->loop;
}
