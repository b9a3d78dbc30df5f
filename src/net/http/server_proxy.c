/*
 * The PROXY header that begins each connection of a listener behind a proxy. It
 * comes in the clear; TLS, if there is to be, begins with the byte behind it.
 */
#include <bop/proxy_protocol.h>
#include <stdio.h>

#include "../tls/tls_internal.h"
#include "server_internal.h"

_Static_assert(BOP__HTTP_PEER_NAME_MAX >= BOP_ADDRESS_TEXT_MAX, "a name is an address");

/* Whom the header names; nobody for a health check of the proxy itself. */
static void keep_name(struct bop__http_proxied *proxied, const struct bop_proxy_header *header)
{
    if (header->is_local) {
        return;
    }
    if (header->family == BOP_PROXY_INET) {
        bop_address_format(&header->source, proxied->peer_name);
    } else if (header->family == BOP_PROXY_UNIX) {
        snprintf(proxied->peer_name, sizeof(proxied->peer_name), "unix:%.*s",
                 (int)bop_min_u64(header->source_path.size, sizeof(proxied->peer_name) - 6),
                 (const char *)header->source_path.data);
    }
}

void bop__http_proxy_open(struct bop__http_conn *conn, struct bop_tls *tls)
{
    struct bop__http_proxied *proxied = (struct bop__http_proxied *)conn;

    conn->phase = BOP__HTTP_PROXY;
    conn->proxied = true;
    if (tls != NULL) {
        proxied->tls = tls;
        bop__tls_ref(tls); /* Its user may destroy it before the header comes. */
    }
}

void bop__http_proxy_close(struct bop__http_conn *conn)
{
    struct bop__http_proxied *proxied = (struct bop__http_proxied *)conn;

    if (proxied->tls != NULL) {
        bop__tls_unref(proxied->tls);
        proxied->tls = NULL;
    }
}

/* What on_data leaves in the socket is the handshake's. */
static void begin_tls(struct bop__http_conn *conn)
{
    struct bop__http_proxied *proxied = (struct bop__http_proxied *)conn;

    if (proxied->tls != NULL) {
        if (bop__tls_start(bop__http_sock(conn), proxied->tls, NULL) != 0) {
            bop__http_conn_kill(conn); /* For want of memory. */
        }
        bop__http_proxy_close(conn);
    }
}

size_t bop__http_proxy_read(struct bop__http_conn *conn, struct bop_slice bytes)
{
    struct bop_proxy_header header;
    int rc;

    if (bytes.size == 0) {
        return 0;
    }
    rc = bop_proxy_parse(bytes, &header);
    if (rc == BOP_ETRUNCATED) {
        return 0;
    }
    if (rc != 0) {
        /* Whoever it is, it is not the proxy: it gets no answer. */
        conn->server->counters.malformed++;
        bop__http_conn_kill(conn);
        return 0;
    }
    keep_name((struct bop__http_proxied *)conn, &header);
    conn->phase = BOP__HTTP_IDLE;
    begin_tls(conn);
    return header.size;
}
