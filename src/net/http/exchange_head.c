/*
 * Heads of answers, written straight to the socket's output.
 *
 * A head is put together from lines that are ready: the status line and what the
 * server adds (Server, Date; made anew each second), the headers that were set,
 * and the framing.
 */
#include <stdio.h>

#include "respond.h"

/* Room for the status line, the framing lines and their ends, beside what is counted. */
#define HEAD_ROOM 256u

/* ---- Lines ---- */

static const char two_digits[] = "00010203040506070809101112131415161718192021222324"
                                 "25262728293031323334353637383940414243444546474849"
                                 "50515253545556575859606162636465666768697071727374"
                                 "75767778798081828384858687888990919293949596979899";

static uint8_t *put_number(uint8_t *at, uint64_t value)
{
    char digits[20];
    size_t from = sizeof(digits);

    while (value >= 100) {
        from -= 2;
        memcpy(digits + from, two_digits + 2 * (value % 100), 2);
        value /= 100;
    }
    if (value >= 10) {
        from -= 2;
        memcpy(digits + from, two_digits + 2 * value, 2);
    } else {
        digits[--from] = (char)('0' + value);
    }
    return bop__put(at, digits + from, sizeof(digits) - from);
}

/* "HTTP/1.1 200 OK\r\n", and the server's lines after it. */
static const char ok_line[] = "HTTP/1.1 200 OK\r\n";
#define OK_LINE_SIZE (sizeof(ok_line) - 1)

static void refresh_lines(struct bop_http_server *server)
{
    uint64_t wall_ms = bop_clock_wall_ms(server->loop->clock);
    char date[30];
    int size;

    bop_http_date_format((int64_t)(wall_ms / 1000), date);
    size = snprintf(server->lines, sizeof(server->lines), "%s%s%s%s%s%s%s", ok_line,
                    server->options.server_name != NULL ? "Server: " : "",
                    server->options.server_name != NULL ? server->options.server_name : "",
                    server->options.server_name != NULL ? "\r\n" : "",
                    server->options.no_date ? "" : "Date: ", server->options.no_date ? "" : date,
                    server->options.no_date ? "" : "\r\n");
    BOP_ASSERT(size > 0 && (size_t)size < sizeof(server->lines));
    server->lines_size = (size_t)size;
    server->lines_until_ms = server->loop->now_ms + 1000 - wall_ms % 1000;
}

/* The status line and the server's lines. An answer that has its own Date or Server, which is
 * rare, gets the others by themselves. */
static uint8_t *put_status(uint8_t *at, struct bop_http_server *server, unsigned status,
                           const struct bop__exchange *ex)
{
    const char *reason;

    if (BOP_UNLIKELY(server->loop->now_ms >= server->lines_until_ms)) {
        refresh_lines(server);
    }
    if (BOP_LIKELY(status == 200 && (ex == NULL || (!ex->has_date && !ex->has_server)))) {
        return bop__put(at, server->lines, server->lines_size);
    }
    reason = bop_http_reason(status);
    at = PUT(at, "HTTP/1.1 ");
    at = put_number(at, status);
    *at++ = ' ';
    at = bop__put(at, reason, strlen(reason));
    at = PUT(at, "\r\n");
    if (ex == NULL || (!ex->has_date && !ex->has_server)) {
        return bop__put(at, server->lines + OK_LINE_SIZE, server->lines_size - OK_LINE_SIZE);
    }
    if (!ex->has_server && server->options.server_name != NULL) {
        at = PUT(at, "Server: ");
        at = bop__put(at, server->options.server_name, strlen(server->options.server_name));
        at = PUT(at, "\r\n");
    }
    if (!ex->has_date && !server->options.no_date) {
        at = PUT(at, "Date: ");
        at = bop__put(at, server->lines + server->lines_size - 31, 31); /* 29 and CRLF. */
    }
    return at;
}

/* ---- Heads ---- */

bool bop__exchange_may_keep(const struct bop__exchange *ex)
{
    const struct bop__http_conn *conn = ex->conn;

    return ex->keep_alive && !ex->close_after && !conn->server->stopping &&
           conn->requests < conn->server->options.requests_max &&
           bop__http_sock(conn)->slot.generation < BOP__SLOT_GENERATIONS - 3 &&
           !(ex->expects && !ex->body_done); /* The client may send the body or not. */
}

struct bop_buf *bop__http_output(struct bop__http_conn *conn, size_t room, int *out_rc)
{
    struct bop_buf *out = bop__socket_output(bop__http_sock(conn));

    *out_rc = out == NULL ? BOP_EFULL : 0;
    if (out != NULL && BOP_UNLIKELY(out->capacity - out->size < room)) {
        *out_rc = bop_buf_reserve(out, room);
    }
    return *out_rc == 0 ? out : NULL;
}

void bop__http_wrote(struct bop__http_conn *conn, struct bop_buf *out, const uint8_t *end)
{
    size_t size = (size_t)(end - (out->data + out->size));

    out->size += size;
    conn->out_total += (uint32_t)size;
    conn->server->counters.bytes_sent += size;
    if (conn->busy) {
        conn->wrote = true;
    } else {
        bop__socket_flush_later(bop__http_sock(conn));
    }
}

static uint8_t *put_framed(uint8_t *at, enum bop__http_framed framed, uint64_t length)
{
    switch (framed) {
    case BOP__HTTP_BY_LENGTH:
        at = PUT(at, "Content-Length: ");
        at = put_number(at, length);
        return PUT(at, "\r\n");
    case BOP__HTTP_BY_CHUNKS:
        return PUT(at, "Transfer-Encoding: chunked\r\n");
    case BOP__HTTP_BY_CLOSE:
    case BOP__HTTP_BY_NOTHING:
        break;
    }
    return at;
}

static uint8_t *put_connection(uint8_t *at, struct bop__exchange *ex)
{
    if (BOP_UNLIKELY(ex->close_after)) {
        return PUT(at, "Connection: close\r\n");
    }
    return BOP_UNLIKELY(ex->minor_0) ? PUT(at, "Connection: keep-alive\r\n") : at;
}

int bop__exchange_begin(struct bop__exchange *ex, const char *content_type,
                        enum bop__http_framed framed, uint64_t length, size_t room,
                        struct bop_buf **out, uint8_t **out_at)
{
    struct bop__http_conn *conn = ex->conn;
    size_t type_size = content_type != NULL ? strlen(content_type) : 0;
    uint8_t *at;
    int rc;

    *out = bop__http_output(
        conn, HEAD_ROOM + sizeof(conn->server->lines) + ex->headers.size + type_size + room, &rc);
    if (*out == NULL) {
        return rc;
    }
    ex->head_sent = true;
    ex->no_content = ex->method == BOP_HTTP_HEAD || bop__http_has_no_content(ex->status);
    ex->close_after = framed == BOP__HTTP_BY_CLOSE || !bop__exchange_may_keep(ex);
    at = put_status((*out)->data + (*out)->size, conn->server, ex->status, ex);
    if (ex->headers.size > 0) {
        at = bop__put(at, ex->headers.data, ex->headers.size);
    }
    if (content_type != NULL) {
        at = PUT(at, "Content-Type: ");
        at = bop__put(at, content_type, type_size);
        at = PUT(at, "\r\n");
    }
    at = put_connection(at, ex);
    at = put_framed(at, framed, length);
    *out_at = PUT(at, "\r\n");
    return 0;
}

void bop__exchange_continue(struct bop__exchange *ex)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct bop_buf *out;
    int rc;

    if (!ex->expects) {
        return;
    }
    ex->expects = false;
    out = bop__http_output(ex->conn, sizeof(line), &rc);
    if (out != NULL) { /* Else the client goes on without it, or gives up. */
        bop__http_wrote(ex->conn, out, PUT(out->data + out->size, line));
        ex->conn->server->counters.responses[1]++;
    }
}

void bop__http_write_refusal(struct bop__http_conn *conn, unsigned status, const char *why,
                             bool of_head)
{
    size_t size = strlen(why);
    struct bop_buf *out;
    uint8_t *at;
    int rc;

    out = bop__http_output(conn, HEAD_ROOM + sizeof(conn->server->lines) + size, &rc);
    if (out == NULL) {
        return; /* It closes all the same. */
    }
    at = put_status(out->data + out->size, conn->server, status, NULL);
    at = PUT(at, "Content-Type: text/plain\r\nConnection: close\r\nContent-Length: ");
    at = put_number(at, size + 1);
    at = PUT(at, "\r\n\r\n");
    if (!of_head) { /* Whose answers have no content (RFC 9110, 9.3.2). */
        at = bop__put(at, why, size);
        at = PUT(at, "\n");
    }
    bop__http_wrote(conn, out, at);
    conn->server->counters.responses[status / 100]++;
}
