/*
 * The ways to the peers. Each node dials every other one and speaks only on what
 * it dialed: so the frames of one direction are in order, and a new connection
 * means that what was in flight on the old one is lost.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"
#include "peer_wire.h"
#include "replica_member.h"

static void dial(struct node_link *link);

static void on_retry(struct bop_timer *timer)
{
    dial(BOP_CONTAINER_OF(timer, struct node_link, retry));
}

static void retry_later(struct node_link *link)
{
    uint64_t delay = link->refused ? LINK_REFUSED_MS : link->retry_ms;

    link->retry_ms = bop_min_u64(link->retry_ms * 2, LINK_RETRY_MAX_MS);
    if (!link->node->closing && bop_timer_start(link->node->loop, &link->retry, delay) < 0) {
        bop_log(link->node->log, BOP_LOG_ERROR, "peer", "no memory to try node %" PRIu64 " again",
                link->id);
    }
}

static void send_hello(struct node_link *link)
{
    char self[MEMBER_TEXT_MAX];
    struct peer_hello hello = {
        .protocol = PEER_PROTOCOL,
        .node = link->node->options.id,
        .target = link->id,
        .cluster = bop_slice_cstr(link->node->cluster),
    };
    struct bop_buf *out = bop_socket_output(link->out);
    struct bop_writer writer;
    size_t at;

    if (!out || bop_wire_begin(out, &at) < 0) {
        bop_socket_close(link->out);
        return;
    }
    bop__replica_introduction(link->node->replica, self);
    hello.address = bop_slice_cstr(self);
    writer = bop_writer(out);
    bop__peer_hello_encode(&writer, &hello);
    if (writer.code < 0) {
        bop_wire_cancel(out, at);
        bop_socket_close(link->out);
        return;
    }
    bop_wire_end(out, at, BOP_WIRE_KIND_PEER_HELLO, BOP_WIRE_REQUEST, 0);
    bop_socket_flush_later(link->out);
}

static void on_open(struct bop_socket *tcp, void *user)
{
    send_hello(user);
}

static int welcome(struct node_link *link, const struct bop_wire_frame *frame)
{
    struct peer_welcome in;
    int rc = frame->kind == BOP_WIRE_KIND_PEER_WELCOME
                 ? bop__peer_welcome_decode(frame->payload, &in)
                 : BOP_EPROTOCOL;

    if (rc < 0 || link->ready) {
        return rc < 0 ? rc : BOP_EPROTOCOL;
    }
    if (in.refusal.size > 0) {
        if (!link->refused) {
            bop_log(link->node->log, BOP_LOG_ERROR, "peer",
                    "node %" PRIu64 " at %s:%u refuses us: %.*s", link->id, link->host, link->port,
                    (int)bop_min_u64(in.refusal.size, 300), (const char *)in.refusal.data);
        }
        link->refused = true;
        return BOP_EMISMATCH;
    }
    link->refused = false;
    link->complained = false;
    link->ready = true;
    link->retry_ms = LINK_RETRY_MIN_MS;
    bop_log(link->node->log, BOP_LOG_INFO, "peer", "connected node=%" PRIu64 " at %s:%u", link->id,
            link->host, link->port);
    bop__replica_peer_connected(link->node->replica, link->id);
    return 0;
}

/* Not refused only, but told before that we are no member: which may be the end of us. */
static int removed(struct node_link *link, const struct bop_wire_frame *frame)
{
    return link->ready ? BOP_EPROTOCOL : bop__replica_removed(link->node->replica, frame->payload, true);
}

/* Why it does not welcome us: that it speaks TLS, mostly. It closes then, and that is told. */
static int complain(struct node_link *link, const struct bop_wire_frame *frame)
{
    struct bop_reader reader = bop_reader(frame->payload);
    struct bop_slice text;

    bop_read_u8(&reader);
    text = bop_read_string(&reader);
    if (bop_reader_done(&reader) && !link->complained) {
        link->complained = true;
        bop_log(link->node->log, BOP_LOG_WARN, "peer",
                "cannot reach node %" PRIu64 " at %s:%u: %.*s", link->id, link->host, link->port,
                (int)bop_min_u64(text.size, 200), (const char *)text.data);
    }
    return BOP_EPROTOCOL;
}

/* Nothing but the welcome, or a last word, comes on a connection that we dialed. */
static size_t on_data(struct bop_socket *tcp, void *user, struct bop_slice bytes)
{
    struct node_link *link = user;
    size_t at = 0;

    while (at < bytes.size) {
        struct bop_wire_frame frame;
        size_t used = 0;
        int rc = bop_wire_parse(bop_slice(bytes.data + at, bytes.size - at), BOP_WIRE_FRAME_MAX,
                                &frame, &used, NULL);

        if (rc == BOP_EAGAIN) {
            break;
        }
        if (rc == 0) {
            rc = frame.kind == BOP_WIRE_KIND_PEER_REMOVED     ? removed(link, &frame)
                 : frame.kind == BOP_WIRE_KIND_ERROR_RESPONSE ? complain(link, &frame)
                                                              : welcome(link, &frame);
        }
        if (rc < 0) {
            bop_socket_close(tcp);
            return bytes.size;
        }
        at += used;
    }
    return at;
}

static void on_close(struct bop_socket *tcp, void *user, int reason)
{
    struct node_link *link = user;
    bool was_ready = link->ready;
    const char *why = reason ? bop_socket_error_text(tcp, reason) : "closed by the peer";

    link->out = NULL;
    link->ready = false;
    link->stalled = 0;
    if (link->node->closing) {
        return;
    }
    if (was_ready) {
        bop_log(link->node->log, BOP_LOG_INFO, "peer", "lost node=%" PRIu64 ": %s", link->id, why);
        bop__replica_peer_lost(link->node->replica, link->id);
    } else if (!link->complained && !link->refused) {
        link->complained = true;
        bop_log(link->node->log, reason == BOP_ETLS ? BOP_LOG_WARN : BOP_LOG_INFO, "peer",
                "cannot reach node %" PRIu64 " at %s:%u yet: %s", link->id, link->host, link->port,
                why);
    }
    retry_later(link);
}

static const struct bop_socket_events link_events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_close = on_close,
};

static void dial(struct node_link *link)
{
    struct bop_connect_options options = {
        .host = link->host,
        .port = link->port,
        .timeout_ms = LINK_CONNECT_MS,
        .tls = link->node->tls.peers,
        .limits = {.counters = true},
        .events = &link_events,
        .user = link,
    };
    struct bop_error err = {0};
    char name[HOST_MAX];

    if (link->node->closing || link->out) {
        return;
    }
    if (link->node->tls.server && !link->node->tls.peers) {
        bop_log(link->node->log, BOP_LOG_ERROR, "peer",
                "node %" PRIu64 " is not dialed: TLS between nodes wants a CA (tls.ca)", link->id);
        return;
    }
    if (options.tls) {
        options.tls_name = bop__node_tls_name(link->node, link->id, name);
    }
    link->sent = 0;
    if (bop_connect(link->node->loop, &options, &link->out, &err) < 0) {
        link->out = NULL;
        if (!link->complained) {
            link->complained = true;
            bop_log(link->node->log, BOP_LOG_WARN, "peer", "%s", err.message);
        }
        retry_later(link);
    }
}

struct node_link *bop__node_link(struct bop_node *node, uint64_t id)
{
    for (size_t n = 0; n < BOP_COUNT_OF(node->links); n++) {
        if (id != 0 && node->links[n].id == id) {
            return &node->links[n];
        }
    }
    return NULL;
}

void bop__node_link_add(struct bop_node *node, uint64_t id, const char *host, uint16_t port)
{
    if (id == 0 || id == node->options.id || bop__node_link(node, id)) {
        return;
    }
    for (size_t n = 0; n < BOP_COUNT_OF(node->links); n++) {
        struct node_link *link = &node->links[n];

        if (link->id == 0) {
            link->id = id;
            snprintf(link->host, sizeof(link->host), "%s", host);
            link->port = port;
            link->retry_ms = LINK_RETRY_MIN_MS;
            dial(link);
            return;
        }
    }
}

/* Split "host:port", "[v6]:port". */
static bool split_address(const char *address, char out_host[HOST_MAX], uint16_t *out_port)
{
    const char *colon = strrchr(address, ':');
    size_t length;
    unsigned long port;

    if (!colon) {
        return false;
    }
    port = strtoul(colon + 1, NULL, 10);
    length = (size_t)(colon - address);
    if (length >= 2 && address[0] == '[' && address[length - 1] == ']') {
        address++;
        length -= 2;
    }
    if (length == 0 || length >= HOST_MAX || port == 0 || port > UINT16_MAX) {
        return false;
    }
    memcpy(out_host, address, length);
    out_host[length] = '\0';
    *out_port = (uint16_t)port;
    return true;
}

static bool in_configuration(const struct bop_raft_configuration *conf, uint64_t id)
{
    for (unsigned n = 0; n < conf->count; n++) {
        if (conf->servers[n].id == id) {
            return true;
        }
    }
    return false;
}

void bop__node_links_configure(struct bop_node *node, const struct bop_raft_configuration *conf)
{
    char host[HOST_MAX];
    uint16_t port;

    for (unsigned n = 0; n < conf->count; n++) {
        struct member member;

        bop__member_of(&conf->servers[n], &member);
        if (split_address(member.address, host, &port)) {
            bop__node_link_add(node, conf->servers[n].id, host, port);
        }
    }
    for (size_t n = 0; n < BOP_COUNT_OF(node->links) && in_configuration(conf, node->options.id);
         n++) {
        struct node_link *link = &node->links[n];

        if (link->id != 0 && !in_configuration(conf, link->id)) {
            link->retry_ms = LINK_RETRY_MAX_MS; /* It was removed, or is about to join. */
        }
    }
}

void bop__node_links_init(struct bop_node *node)
{
    for (size_t n = 0; n < BOP_COUNT_OF(node->links); n++) {
        node->links[n].node = node;
        bop_timer_init(&node->links[n].retry, on_retry);
    }
}

void bop__node_links_close(struct bop_node *node)
{
    for (size_t n = 0; n < BOP_COUNT_OF(node->links); n++) {
        bop_timer_stop(node->loop, &node->links[n].retry);
        if (node->links[n].out) {
            bop_socket_close(node->links[n].out);
        }
    }
}

/* Something waits, and nothing of it has gone out since the last look. */
static bool stands_still(struct node_link *link)
{
    struct bop_socket_counters counters;
    uint64_t before = link->sent;

    if (!link->out || bop_socket_queued(link->out) == 0 ||
        bop_socket_counters(link->out, &counters) < 0) {
        return false;
    }
    link->sent = counters.bytes_sent;
    return link->sent == before;
}

/* A peer whose machine is gone says nothing: its queue just stops moving. Looks are counted and not
 * the time between them, in which this process may not have run at all. */
void bop__node_links_watch(struct bop_node *node)
{
    for (size_t n = 0; n < BOP_COUNT_OF(node->links); n++) {
        struct node_link *link = &node->links[n];

        if (!stands_still(link)) {
            link->stalled = 0;
        } else if (++link->stalled >= LINK_STALL_LOOKS) {
            bop_log(node->log, BOP_LOG_WARN, "peer", "node %" PRIu64 " takes nothing: reconnect",
                    link->id);
            bop_socket_close(link->out);
        }
    }
}
