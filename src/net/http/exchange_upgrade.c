/*
 * Upgrades: after 101 the connection is somebody else's, with all that comes
 * after the head. The server counts it no longer among its own; what is to be
 * told of the server's stop joins as a guest.
 */
#include "upgrade.h"

_Static_assert(sizeof(struct bop__http_conn) >= BOP__HTTP_BLOCK_BYTES - 8 &&
                   sizeof(struct bop__http_conn) <= BOP__HTTP_BLOCK_BYTES,
               "the block is the connection's");

/* "101 Switching Protocols" with the headers set so far. */
static int write_switching(struct bop__exchange *ex, const char *protocol)
{
    struct bop__http_conn *conn = ex->conn;
    struct bop__socket *sock = bop__http_sock(conn);
    struct bop_slice parts[] = {
        bop_slice_cstr("HTTP/1.1 101 Switching Protocols\r\nUpgrade: "),
        bop_slice_cstr(protocol),
        bop_slice_cstr("\r\nConnection: Upgrade\r\n"),
        bop_buf_slice(&ex->headers),
        bop_slice_cstr("\r\n"),
    };

    return bop__socket_write_parts(sock, parts, BOP_COUNT_OF(parts));
}

/* The connection is the server's no longer; its block may hold anything from here on. */
static void hand_out(struct bop__exchange *ex, const struct bop_socket_events *events)
{
    struct bop__http_conn *conn = ex->conn;
    struct bop_http_server *server = conn->server;
    struct bop__socket *sock = bop__http_sock(conn);
    bool busy = conn->busy;

    server->counters.responses[1]++;
    server->counters.connections_now--;
    bop__http_conn_set_slow(conn, false);
    bop__http_conn_set_reading(conn, true);
    bop__http_wheel_remove(conn);
    bop__exchange_release(ex);
    conn->phase = BOP__HTTP_GONE;
    bop__http_new_generation(conn);
    sock->events = events;
    if (busy) {
        server->taken = true;
        server->taken_socket = sock;
    }
}

static int take_over(struct bop_http_exchange *http, const char *protocol,
                     const struct bop_socket_events *events, void *user, bool in_place,
                     struct bop__socket **out_socket)
{
    struct bop__exchange *ex = bop__exchange_of(http);
    struct bop_http_server *server;
    struct bop__socket *sock;
    int rc;

    if (ex == NULL) {
        return BOP_ECLOSED;
    }
    if (ex->head_sent || !ex->body_done || ex->minor_0 ||
        !bop_http_header_is_valid(bop_slice_cstr("Upgrade"), bop_slice_cstr(protocol))) {
        return BOP_EINVAL;
    }
    rc = write_switching(ex, protocol);
    if (rc != 0) {
        return rc;
    }
    server = ex->conn->server;
    sock = bop__http_sock(ex->conn);
    hand_out(ex, events);
    if (in_place) {
        user = memset(bop__socket_block(sock), 0, BOP__HTTP_BLOCK_BYTES);
    }
    sock->user = user;
    *out_socket = sock;
    bop__http_server_look_stopped(server);
    bop__http_server_unref(server);
    return 0;
}

int bop__http_take_over(struct bop_http_exchange *http, const char *protocol,
                        const struct bop_socket_events *events, struct bop__socket **out_socket)
{
    return take_over(http, protocol, events, NULL, true, out_socket);
}

int bop_http_upgrade(struct bop_http_exchange *http, const char *protocol,
                     const struct bop_socket_events *events, void *user,
                     struct bop_socket **out_socket)
{
    struct bop__socket *sock;
    int rc = take_over(http, protocol, events, user, false, &sock);

    if (rc == 0) {
        *out_socket = bop__socket_handle(sock);
    }
    return rc;
}

struct bop_http_server *bop__http_server_of(const struct bop_http_exchange *http)
{
    const struct bop__exchange *ex = bop__exchange_of(http);

    return ex == NULL ? NULL : ex->conn->server;
}
