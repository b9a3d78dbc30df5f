/*
 * Accepted connections: clients, and peers that dialed us. The first frame tells
 * which. Whoever breaks the protocol is told why and closed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "node.h"
#include "peer_wire.h"
#include "replica_member.h"

#define REFUSAL_MAX 512

void bop__node_conn_close(struct node_conn *conn)
{
    conn->closing = true;
    bop_socket_close(conn->tcp);
}

/* ---- What a service connection needs ---- */

static struct bop_buf *client_output(void *user)
{
    struct node_conn *conn = user;
    struct bop_buf *out = bop_socket_output(conn->tcp);

    if (!out) {
        bop__node_conn_close(conn); /* It takes its answers too slowly, or is gone. */
    }
    return out;
}

static void client_flush(void *user)
{
    bop_socket_flush_later(((struct node_conn *)user)->tcp);
}

static void client_resume(void *user)
{
    bop_socket_resume(((struct node_conn *)user)->tcp);
}

static void client_close(void *user)
{
    struct node_conn *conn = user;

    conn->closing = true;
    bop_socket_close_after_flush(conn->tcp, CLOSE_FLUSH_MS);
}

static void client_complain(void *user, const char *text)
{
    struct node_conn *conn = user;

    bop__node_log_stranger(conn->node, conn->tcp, text);
}

static size_t client_queued(void *user)
{
    return bop_socket_queued(((struct node_conn *)user)->tcp);
}

static const struct service_io client_io = {
    .complain = client_complain,
    .output = client_output,
    .flush = client_flush,
    .resume = client_resume,
    .close = client_close,
    .queued = client_queued,
};

/* ---- Peers ---- */

static void refusal_of(const struct node_conn *conn, const struct peer_hello *hello,
                       char out_text[REFUSAL_MAX])
{
    const struct bop_node *node = conn->node;

    out_text[0] = '\0';
    if (hello->protocol != PEER_PROTOCOL) {
        snprintf(out_text, REFUSAL_MAX, "it speaks peer protocol %u, not %u", PEER_PROTOCOL,
                 hello->protocol);
    } else if (!bop_slice_equal(hello->cluster, bop_slice_cstr(node->cluster))) {
        snprintf(out_text, REFUSAL_MAX, "it belongs to cluster \"%s\", not \"%.*s\"", node->cluster,
                 (int)bop_min_u64(hello->cluster.size, 100), (const char *)hello->cluster.data);
    } else if (hello->target != node->options.id) {
        snprintf(out_text, REFUSAL_MAX, "it is node %" PRIu64 ", not %" PRIu64, node->options.id,
                 hello->target);
    } else if (hello->node == node->options.id || hello->node == 0) {
        snprintf(out_text, REFUSAL_MAX, "there is another node %" PRIu64, hello->node);
    }
}

static int send_welcome(struct node_conn *conn, const char *refusal)
{
    struct peer_welcome welcome = {
        .protocol = PEER_PROTOCOL,
        .node = conn->node->options.id,
        .refusal = bop_slice_cstr(refusal),
    };
    struct bop_buf *out = bop_socket_output(conn->tcp);
    struct bop_writer writer;
    size_t at;

    if (!out || bop_wire_begin(out, &at) < 0) {
        return BOP_ENOMEM;
    }
    writer = bop_writer(out);
    bop__peer_welcome_encode(&writer, &welcome);
    if (writer.code < 0) {
        bop_wire_cancel(out, at);
        return writer.code;
    }
    bop_wire_end(out, at, BOP_WIRE_KIND_PEER_WELCOME, BOP_WIRE_REQUEST, 0);
    bop_socket_flush_later(conn->tcp);
    return 0;
}

/* A node that is about to join is not known yet: its hello says where it listens. */
static struct node_link *link_for(struct node_conn *conn, const struct peer_hello *hello)
{
    struct bop_raft_configuration conf = {.count = 1};
    struct bop_raft_server *server = &conf.servers[0];

    if (!bop__node_link(conn->node, hello->node) && hello->address.size < sizeof(server->address)) {
        server->id = hello->node;
        memcpy(server->address, hello->address.data, hello->address.size);
        bop__node_links_configure(conn->node, &conf);
    }
    return bop__node_link(conn->node, hello->node);
}

/* A node that was removed hears so before it is refused: it is to end, not to ask again. */
static int send_removed(struct node_conn *conn, enum introduction why)
{
    struct bop_buf *out = bop_socket_output(conn->tcp);
    struct bop_writer writer;
    size_t at;

    if (!out || bop_wire_begin(out, &at) < 0) {
        return BOP_ENOMEM;
    }
    writer = bop_writer(out);
    bop__replica_removed_encode(conn->node->replica, &writer, why);
    if (writer.code < 0) {
        bop_wire_cancel(out, at);
        return writer.code;
    }
    bop_wire_end(out, at, BOP_WIRE_KIND_PEER_REMOVED, BOP_WIRE_REQUEST, 0);
    return 0;
}

/* What the replica knows of the one that says hello. */
static int introduce(struct node_conn *conn, const struct peer_hello *hello,
                     char out_text[REFUSAL_MAX])
{
    enum introduction said = bop__replica_introduced(conn->node->replica, hello->node,
                                                     hello->address, out_text, REFUSAL_MAX);

    switch (said) {
    case INTRODUCTION_ACCEPTED:
        out_text[0] = '\0';
        return 0;
    case INTRODUCTION_REMOVED:
    case INTRODUCTION_REPLACED:
        return send_removed(conn, said);
    case INTRODUCTION_REFUSED:
        break;
    }
    return 0;
}

static int peer_hello(struct node_conn *conn, const struct bop_wire_frame *frame)
{
    char refusal[REFUSAL_MAX];
    struct peer_hello hello;
    struct node_link *link = NULL;
    int rc = bop__peer_hello_decode(frame->payload, &hello);

    if (rc < 0) {
        return rc;
    }
    refusal_of(conn, &hello, refusal);
    if (!refusal[0] &&
        bop__node_tls_is_peer(conn->node, conn->tcp, hello.node, refusal, sizeof(refusal))) {
        rc = introduce(conn, &hello, refusal);
        if (rc < 0) {
            return rc;
        }
        link = refusal[0] ? NULL : link_for(conn, &hello);
        if (!link && !refusal[0]) {
            snprintf(refusal, sizeof(refusal), "it has no room for another peer");
        }
    }
    rc = send_welcome(conn, refusal);
    if (rc < 0 || !link) {
        if (rc == 0) {
            bop__node_log_stranger(conn->node, conn->tcp, refusal);
            client_close(conn);
        }
        return rc;
    }
    if (link->in) {
        /* A newer connection ends the older one: what it still holds must not come after. */
        link->in->peer = NULL;
        bop__node_conn_close(link->in);
    }
    link->in = conn;
    conn->peer = link;
    return 0;
}

/* ---- Frames ---- */

static int client_connect(struct node_conn *conn)
{
    struct bop_tls_certificate certificate;
    int rc = bop__service_connect(conn->node->service, &client_io, conn, &conn->client);

    if (rc == 0 && conn->node->auth && conn->node->tls.clients != BOP_NODE_CERTIFICATES_NONE &&
        bop_socket_peer_certificate(conn->tcp, &certificate) == 0) {
        bop__service_show_certificate(conn->client, certificate.names);
        if (!bop__service_knows(conn->client) && !strchr(certificate.common_name, ',')) {
            bop__service_show_certificate(conn->client, certificate.common_name);
        }
    }
    return rc;
}

static int first_frame(struct node_conn *conn, const struct bop_wire_frame *frame)
{
    if (frame->kind == BOP_WIRE_KIND_PEER_HELLO) {
        return peer_hello(conn, frame);
    }
    return client_connect(conn);
}

static int take_frame(struct node_conn *conn, const struct bop_wire_frame *frame)
{
    if (!conn->peer && !conn->client) {
        int rc = first_frame(conn, frame);

        if (rc < 0 || !conn->client) {
            return rc;
        }
    }
    return conn->peer ? bop__replica_peer_frame(conn->node->replica, conn->peer->id, frame)
                      : bop__service_frame(conn->client, frame);
}

void bop__node_log_stranger(struct bop_node *node, const struct bop_socket *tcp, const char *text)
{
    uint64_t second = bop_loop_now_ms(node->loop) / 1000;

    if (second != node->strangers_s) {
        node->strangers_s = second;
        node->strangers = 0;
    }
    if (node->strangers++ < STRANGERS_PER_S) {
        bop_log(node->log, BOP_LOG_WARN, "net", "%s: %s", bop_socket_peer_name(tcp), text);
    }
}

/* The first bytes of a TLS handshake: said in words, which go to the log and nowhere else. */
static bool speaks_tls(struct bop_slice bytes)
{
    return bytes.size >= 2 && bytes.data[0] == 0x16 && bytes.data[1] == 0x03;
}

/* Say why, then close. */
static void close_for(struct node_conn *conn, int code, const char *text)
{
    struct bop_buf *out = conn->peer ? NULL : bop_socket_output(conn->tcp);
    struct bop_writer writer;
    size_t at;

    bop_metric_add(conn->node->bad_frames, 1);
    bop__node_log_stranger(conn->node, conn->tcp, text);
    if (out && bop_wire_begin(out, &at) == 0) {
        writer = bop_writer(out);
        bop_write_u8(&writer, 1);
        bop_write_bytes(&writer, bop_slice_cstr(text));
        if (writer.code == 0) {
            bop_wire_end(out, at, BOP_WIRE_KIND_ERROR_RESPONSE, BOP_WIRE_RESPONSE, 0);
            bop_socket_flush_later(conn->tcp);
        } else {
            bop_wire_cancel(out, at);
        }
    }
    client_close(conn);
}

static size_t on_data(struct bop_socket *tcp, void *user, struct bop_slice bytes)
{
    struct node_conn *conn = user;
    size_t at = 0;

    if (!conn->heard && !conn->node->tls.server && speaks_tls(bytes)) {
        close_for(conn, BOP_EPROTOCOL, "it speaks TLS, for which this node has no certificate");
        return bytes.size;
    }
    conn->heard = true;
    while (!conn->closing && !conn->node->closing) {
        struct bop_wire_frame frame;
        struct bop_error err = {0};
        size_t used;
        int rc = bop_wire_parse(bop_slice(bytes.data + at, bytes.size - at), BOP_WIRE_FRAME_MAX,
                                &frame, &used, &err);

        if (rc == BOP_EAGAIN) {
            return at;
        }
        if (rc == 0) {
            rc = take_frame(conn, &frame);
            if (rc == BOP_EAGAIN) {
                bop_socket_pause(tcp);
                return at;
            }
            if (rc < 0) {
                bop_error_set(&err, rc, "%s", bop_wire_kind_name(frame.kind));
            }
        }
        if (rc < 0) {
            close_for(conn, rc, err.message);
            break;
        }
        at += used;
    }
    return bytes.size;
}

static void on_close(struct bop_socket *tcp, void *user, int reason)
{
    struct node_conn *conn = user;

    if (reason == BOP_ETLS) {
        bop__node_log_stranger(conn->node, tcp, bop_socket_error_text(tcp, reason));
    }
    if (conn->client && !conn->node->closing) {
        bop__service_cut(conn->client);
    }
    if (conn->client) {
        bop__service_disconnect(conn->client);
    }
    if (conn->peer && conn->peer->in == conn) {
        conn->peer->in = NULL;
    }
    bop_list_remove(&conn->link);
    bop_free(conn->node->allocator, conn, sizeof(*conn));
}

static const struct bop_socket_events conn_events = {
    .on_data = on_data,
    .on_close = on_close,
};

bool bop__node_accept(struct bop_listener *listener, struct bop_socket *tcp, void *user)
{
    struct bop_node *node = user;
    struct node_conn *conn;

    if (!node->started || node->closing) {
        return false;
    }
    conn = bop_alloc_zeroed(node->allocator, sizeof(*conn));
    if (!conn) {
        return false;
    }
    conn->node = node;
    conn->tcp = tcp;
    if (node->tls.server) {
        /* Kept from now on, for when a handshake fails and the socket is gone. */
        (void)bop_socket_peer_name(tcp);
    }
    bop_list_push_back(&node->conns, &conn->link);
    bop_socket_attach(tcp, &conn_events, conn);
    return true;
}

void bop__node_conns_close(struct bop_node *node)
{
    BOP_LIST_FOR_EACH_SAFE(link, &node->conns) {
        bop__node_conn_close(BOP_CONTAINER_OF(link, struct node_conn, link));
    }
}
