/*
 * The client's connections. One is active: all requests go over it. A second one,
 * the candidate, is made beside it when the active one's server says that
 * somebody else leads; only when that one confirms it does the client move, so
 * a stale word about a dead leader costs nothing.
 *
 * Endpoints are tried round robin, and after each round of those given one that a server told of
 * (client_servers.c); after each such round in vain there is a pause, from 10 to 500 ms, half of it
 * by chance so that many clients spread out.
 *
 * A tick sends a hello on the active connection, which tells who leads and that the
 * server lives: one that takes nothing and says nothing for silence_timeout_ms
 * with a hello pending is left.
 *
 * A token is shown before the first hello and not waited for: who does not know it
 * says so before the hello's answer.
 */
#include <inttypes.h>
#include <stdio.h>

#include "client_internal.h"

#define LAST_WORD_MS 1000 /* How long a connection being left may take to send what is queued. */

static void schedule_reconnect(struct bop_client *client);
static void start_candidate(struct bop_client *client, struct bop_slice address);

/* ---- Frames of the client's own ---- */

static struct bop_buf *frame_begin(struct client_link *link, size_t *out_at)
{
    struct bop_buf *buf = bop_socket_output(link->tcp);

    if (!buf || bop_wire_begin(buf, out_at) != 0) {
        return NULL;
    }
    return buf;
}

static bool frame_end(struct client_link *link, struct bop_buf *buf, size_t at,
                      enum bop_wire_kind kind, uint32_t request, int code)
{
    if (code != 0) {
        bop_wire_cancel(buf, at);
        return false;
    }
    bop_wire_end(buf, at, kind, BOP_WIRE_REQUEST, request);
    bop_socket_flush_later(link->tcp);
    return true;
}

struct bop_buf *bop__client_frame_begin(struct bop_client *client, size_t *out_at)
{
    return frame_begin(client->active, out_at);
}

bool bop__client_frame_end(struct bop_client *client, struct bop_buf *buf, size_t at,
                           enum bop_wire_kind kind, uint32_t request, int code)
{
    return frame_end(client->active, buf, at, kind, request, code);
}

static void send_hello(struct client_link *link)
{
    struct bop_client *client = link->client;
    struct bop_hello_request message = {
        .protocol = BOP_WIRE_VERSION,
        .cluster = bop_slice_cstr(link->told && client->servers.cluster[0] ? client->servers.cluster
                                                                           : client->cluster),
        .client = bop_slice_cstr(client->name),
    };
    struct bop_writer writer;
    struct bop_buf *buf;
    size_t at;

    buf = frame_begin(link, &at);
    if (!buf) {
        return; /* The next tick tries again. */
    }
    writer = bop_writer(buf);
    bop_hello_request_encode(&writer, &message);
    if (frame_end(link, buf, at, BOP_WIRE_KIND_HELLO_REQUEST, BOP_WIRE_KIND_HELLO_REQUEST,
                  writer.code)) {
        link->hello_pending = true;
        link->hello_ms = bop_loop_now_ms(client->loop);
    }
}

void bop__client_ask_leader(struct bop_client *client)
{
    if (bop__client_ready(client) && !client->active->hello_pending) {
        send_hello(client->active);
    }
}

/* ---- Losing connections ---- */

/* why: NULL, or more than the code tells. */
static void note_trouble(struct bop_client *client, const struct client_endpoint *endpoint,
                         int code, const char *what, const char *why)
{
    bop_error_say(&client->info.trouble, code, "%s %s:%u: %s", what, endpoint->host, endpoint->port,
                  why ? why : bop_strerror(code));
    bop_log(client->log, BOP_LOG_DEBUG, "client", "trouble: %s", client->info.trouble.message);
}

static void retry_candidate_later(struct bop_client *client)
{
    client->candidate_after_ms = bop_loop_now_ms(client->loop) + client->candidate_ms;
    client->candidate_ms = bop_min_u64(client->candidate_ms * 2, CLIENT_CANDIDATE_MAX_MS);
}

/* The active connection is gone. If there is a candidate it takes its place,
 * whoever it turns out to be. */
static void active_lost(struct bop_client *client, const struct client_link *link)
{
    uint64_t now = bop_loop_now_ms(client->loop);

    client->active = NULL;
    client->leader = 0;
    bop__client_session_unlinked(client);
    bop__client_requeue(client);
    if (link->useful || (link->greeted && now - link->greeted_ms >= CLIENT_STABLE_MS)) {
        client->attempts = 0;
        client->reconnect_ms = CLIENT_RECONNECT_MIN_MS;
    }
    if (client->candidate) {
        client->active = client->candidate;
        client->candidate = NULL;
    } else {
        schedule_reconnect(client);
    }
}

/* A connection counts no more; what is left of it goes with its on_close. */
static void detach(struct client_link *link, int code, const char *what, const char *why)
{
    struct bop_client *client = link->client;

    link->client = NULL;
    note_trouble(client, &link->endpoint, code, what, why);
    if (client->candidate == link) {
        client->candidate = NULL;
        retry_candidate_later(client);
    } else {
        active_lost(client, link);
    }
}

static void drop(struct client_link *link, int code, const char *what)
{
    bop_socket_close(link->tcp);
    detach(link, code, what, NULL);
}

/* ---- Greeting ---- */

static void become_ready(struct bop_client *client)
{
    struct client_link *link = client->active;

    client->info.connects++;
    client->refusals = 0;
    client->denials = 0;
    client->info.trouble.code = 0;
    client->tick_ms = CLIENT_TICK_MIN_MS;
    bop_log(client->log, BOP_LOG_DEBUG, "client", "connected endpoint=%s:%u node=%" PRIu64,
            link->endpoint.host, link->endpoint.port, link->node);
    bop__client_session_resume(client);
    bop__client_servers_greeted(client);
    bop__client_flush(client);
}

/* The candidate leads: go over to it. The old one's answers, if any are on their
 * way, are lost; what is sent again is answered alike. */
static void move(struct bop_client *client)
{
    struct client_link *old = client->active;

    client->active = client->candidate;
    client->candidate = NULL;
    client->candidate_ms = CLIENT_CANDIDATE_MIN_MS;
    client->info.moves++;
    old->client = NULL;
    bop_socket_close(old->tcp);
    bop__client_session_unlinked(client);
    bop__client_requeue(client);
    become_ready(client);
}

/* A server of another cluster. When all that were given are, requests that went nowhere end. */
static void refused(struct bop_client *client, struct client_link *link)
{
    client->refusals += !link->told;
    drop(link, BOP_EMISMATCH, "connect to");
    if (client->refusals >= client->endpoint_count) {
        bop__client_fail_unsent(client, BOP_EMISMATCH);
    }
}

/* A server that does not know the token. Likewise. */
static void denied(struct bop_client *client, struct client_link *link)
{
    bop__client_denied(client, bop_slice(NULL, 0));
    client->denials += !link->told;
    drop(link, BOP_EDENIED, "connect to");
    if (client->denials >= client->endpoint_count) {
        bop__client_fail_unsent(client, BOP_EDENIED);
    }
}

static int on_auth(struct bop_client *client, struct client_link *link, struct bop_slice payload)
{
    uint8_t status;

    if (!link->auth_pending || bop_session_status_decode(payload, &status) < 0) {
        return BOP_EPROTOCOL;
    }
    link->auth_pending = false;
    if (status == BOP_STATUS_DENIED) {
        denied(client, link);
        return 0;
    }
    return status == BOP_STATUS_OK ? 0 : BOP_EPROTOCOL;
}

static void remember_cluster(const struct client_link *link, struct bop_slice cluster)
{
    struct client_servers *servers = &link->client->servers;

    if (!link->told && cluster.size < sizeof(servers->cluster)) {
        snprintf(servers->cluster, sizeof(servers->cluster), "%.*s", (int)cluster.size,
                 (const char *)cluster.data);
    }
}

static int on_hello(struct bop_client *client, struct client_link *link, struct bop_slice payload)
{
    struct bop_hello_response message;
    bool first = !link->greeted;

    if (bop_hello_response_decode(payload, &message) < 0 || !link->hello_pending) {
        return BOP_EPROTOCOL;
    }
    link->hello_pending = false;
    if (message.status == BOP_STATUS_REFUSED) {
        refused(client, link);
        return 0;
    }
    if (message.status != BOP_STATUS_OK) {
        return BOP_EPROTOCOL;
    }
    if (link == client->candidate && message.leader != message.node) {
        drop(link, BOP_ENOTLEADER, "move to");
        return 0;
    }
    link->node = message.node;
    link->greeted = true;
    remember_cluster(link, message.cluster);
    client->leader = message.leader;
    if (first) {
        link->greeted_ms = bop_loop_now_ms(client->loop);
        if (link == client->candidate) {
            move(client);
        } else {
            become_ready(client);
        }
    }
    /* The callbacks of become_ready() may not drop a link; only answers do. */
    if (message.leader != 0 && message.leader != message.node && message.leader_address.size > 0) {
        start_candidate(client, message.leader_address);
    }
    return 0;
}

/* ---- What the connection says ---- */

static void send_token(struct client_link *link)
{
    struct bop_writer writer;
    struct bop_buf *buf;
    size_t at;

    buf = frame_begin(link, &at);
    if (!buf) {
        return; /* Then the connection is of no use, which it will show. */
    }
    writer = bop_writer(buf);
    bop_write_raw(&writer, bop_slice_cstr(link->client->token));
    link->auth_pending = frame_end(link, buf, at, BOP_WIRE_KIND_AUTH_REQUEST,
                                   BOP_WIRE_KIND_AUTH_REQUEST, writer.code);
}

static void on_open(struct bop_socket *tcp, void *user)
{
    struct client_link *link = (struct client_link *)user;

    link->opened = true;
    if (link->client) {
        link->heard_ms = bop_loop_now_ms(link->client->loop);
        if (link->client->token) {
            send_token(link);
        }
        send_hello(link);
    }
}

/* What the server says before it closes. */
static int on_last_word(struct client_link *link, struct bop_slice payload)
{
    struct bop_slice text;
    char why[256];

    if (!bop__client_error_text(payload, &text)) {
        return BOP_EPROTOCOL;
    }
    snprintf(why, sizeof(why), "it says: %.*s", (int)bop_min_u64(text.size, 200),
             (const char *)text.data);
    bop_socket_close(link->tcp);
    detach(link, BOP_EPROTOCOL, link->greeted ? "connection to" : "connect to", why);
    return 0;
}

static int take_frame(struct client_link *link, const struct bop_wire_frame *frame)
{
    struct bop_client *client = link->client;
    int rc;

    if (frame->kind == BOP_WIRE_KIND_AUTH_RESPONSE) {
        return on_auth(client, link, frame->payload);
    }
    if (frame->kind == BOP_WIRE_KIND_ERROR_RESPONSE && frame->request == 0) {
        return on_last_word(link, frame->payload);
    }

    if (frame->kind == BOP_WIRE_KIND_HELLO_RESPONSE) {
        return on_hello(client, link, frame->payload);
    }
    if (!link->greeted || link != client->active) {
        return BOP_EPROTOCOL;
    }
    if (bop__client_servers_kind(frame)) {
        return bop__client_servers_answer(client, frame); /* Of no use as such. */
    }
    rc = bop__client_answer(client, frame);
    link->useful = link->useful || rc == 0;
    return rc;
}

static size_t on_data(struct bop_socket *tcp, void *user, struct bop_slice bytes)
{
    struct client_link *link = (struct client_link *)user;
    struct bop_wire_frame frame;
    size_t used = 0, size;
    int rc;

    if (link->client) {
        link->heard_ms = bop_loop_now_ms(link->client->loop);
    }
    /* A frame may end the link's time; those behind it are nobody's then. */
    while (link->client) {
        rc = bop_wire_parse(bop_slice(bytes.data + used, bytes.size - used), 0, &frame, &size,
                            NULL);
        if (rc == BOP_EAGAIN) {
            break;
        }
        if (rc == 0) {
            used += size;
            rc = take_frame(link, &frame);
        }
        if (rc < 0 && link->client) {
            drop(link, rc, "bad answer from");
        }
    }
    return link->client ? used : bytes.size;
}

static void on_pressure(struct bop_socket *tcp, void *user, bool on)
{
    struct client_link *link = (struct client_link *)user;

    if (!on && link->client && link->client->active == link) {
        bop__client_flush(link->client);
    }
}

static void on_close(struct bop_socket *tcp, void *user, int reason)
{
    struct client_link *link = (struct client_link *)user;

    if (link->client) {
        detach(link, reason ? reason : BOP_ECLOSED, link->greeted ? "connection to" : "connect to",
               reason ? bop_socket_error_text(tcp, reason) : NULL);
    }
    bop_free(link->allocator, link, sizeof(*link));
}

static const struct bop_socket_events link_events = {
    .on_open = on_open,
    .on_data = on_data,
    .on_pressure = on_pressure,
    .on_close = on_close,
};

/* ---- Making connections ---- */

static struct client_link *make_link(struct bop_client *client,
                                     const struct client_endpoint *endpoint, bool told)
{
    struct bop_connect_options options = {
        .host = endpoint->host,
        .port = endpoint->port,
        .timeout_ms = client->connect_timeout_ms,
        .tls = client->tls,
        .tls_name = client->server_name,
        .limits = {.write_buffer_max = CLIENT_WRITE_BYTES_MAX},
        .events = &link_events,
    };
    struct client_link *link = (struct client_link *)bop_alloc_zeroed(client->allocator,
                                                                      sizeof(*link));
    int rc = BOP_ENOMEM;

    if (link) {
        link->client = client;
        link->allocator = client->allocator;
        link->endpoint = *endpoint;
        link->told = told;
        link->hello_ms = bop_loop_now_ms(client->loop);
        link->heard_ms = link->hello_ms;
        options.user = link;
        rc = bop_connect(client->loop, &options, &link->tcp, NULL);
    }
    if (rc < 0) {
        note_trouble(client, endpoint, rc, "connect to", NULL);
        bop_free(client->allocator, link, sizeof(*link));
        return NULL;
    }
    return link;
}

static void connect_next(struct bop_timer *timer)
{
    struct bop_client *client = BOP_CONTAINER_OF(timer, struct bop_client, reconnect);
    const struct client_endpoint *endpoint;
    bool told;

    if (client->active) {
        return;
    }
    endpoint = bop__client_next_endpoint(client, &told);
    client->attempts++;
    client->active = make_link(client, endpoint, told);
    if (!client->active) {
        schedule_reconnect(client);
    }
}

static void schedule_reconnect(struct bop_client *client)
{
    uint64_t delay_ms = 0;

    if (client->attempts >= bop__client_round(client)) {
        delay_ms = client->reconnect_ms / 2 +
                   bop_random_below(&client->random, client->reconnect_ms / 2 + 1);
        client->reconnect_ms = bop_min_u64(client->reconnect_ms * 2, CLIENT_RECONNECT_MAX_MS);
        client->attempts = 0;
    }
    /* Without memory for the timer the tick tries again. */
    BOP_IGNORE(bop_timer_start(client->loop, &client->reconnect, delay_ms));
}

static void start_candidate(struct bop_client *client, struct bop_slice address)
{
    struct client_endpoint endpoint;

    if (client->pin || client->candidate || !bop__client_ready(client) ||
        bop_loop_now_ms(client->loop) < client->candidate_after_ms) {
        return;
    }
    if (bop__client_endpoint_parse(address, &endpoint) == 0) {
        client->candidate = make_link(client, &endpoint, true);
    }
    if (!client->candidate) {
        retry_candidate_later(client);
    }
}

/* ---- The tick ---- */

/* Leave a silent server; ask the others for a word. */
static void look_after(struct bop_client *client, struct client_link *link)
{
    uint64_t now = bop_loop_now_ms(client->loop);
    size_t queued = bop_socket_queued(link->tcp);

    if (queued < link->queued_bytes) {
        link->heard_ms = now; /* It takes what we send: a long value, say. */
    }
    link->queued_bytes = queued;
    /* A queue that is full and stuck has no room even for a hello. */
    if ((link->hello_pending || queued > 0) &&
        now - bop_max_u64(link->heard_ms, link->hello_ms) >= client->silence_timeout_ms) {
        drop(link, BOP_ETIMEOUT, link->greeted ? "no word from" : "no greeting from");
    } else if (link->opened && !link->hello_pending) {
        send_hello(link);
    }
}

/* Often while we are not with the leader, then ever more rarely. */
static void next_tick(struct bop_client *client)
{
    uint64_t session_ms = client->session.state == CLIENT_SESSION_OPEN ? client->session.timeout_ms
                                                                       : client->session_timeout_ms;
    uint64_t tick_max = bop_min_u64(client->silence_timeout_ms / 4, session_ms / 6);
    bool settled = bop__client_ready(client) &&
                   (client->pin || client->leader == client->active->node);

    tick_max = bop_max_u64(tick_max, 1);
    client->tick_ms = settled ? tick_max : bop_min_u64(client->tick_ms * 2, tick_max);
    /* Cannot fail: this timer's place in the loop's queue has just become free. */
    BOP_IGNORE(bop_timer_start(client->loop, &client->tick, client->tick_ms));
}

static void on_tick(struct bop_timer *timer)
{
    struct bop_client *client = BOP_CONTAINER_OF(timer, struct bop_client, tick);

    next_tick(client);
    if (client->candidate) {
        look_after(client, client->candidate);
    }
    if (client->active) {
        look_after(client, client->active);
    } else if (!bop_timer_is_running(&client->reconnect)) {
        schedule_reconnect(client);
    }
    bop__client_session_tick(client);
    bop__client_servers_ask(client);
    bop__client_flush(client);
}

/* ---- Beginning and end ---- */

void bop__client_links_init(struct bop_client *client)
{
    client->reconnect_ms = CLIENT_RECONNECT_MIN_MS;
    client->candidate_ms = CLIENT_CANDIDATE_MIN_MS;
    client->tick_ms = CLIENT_TICK_MIN_MS;
    bop_timer_init(&client->reconnect, connect_next);
    bop_timer_init(&client->tick, on_tick);
}

int bop__client_links_start(struct bop_client *client)
{
    int rc = bop_timer_start(client->loop, &client->tick, client->tick_ms);

    if (rc == 0) {
        rc = bop_timer_start(client->loop, &client->reconnect, 0);
    }
    return rc;
}

void bop__client_links_stop(struct bop_client *client)
{
    bop_timer_stop(client->loop, &client->reconnect);
    bop_timer_stop(client->loop, &client->tick);
    bop__client_session_close(client);
    if (client->candidate) {
        client->candidate->client = NULL;
        bop_socket_close(client->candidate->tcp);
    }
    if (client->active) {
        client->active->client = NULL;
        if (client->active->opened) {
            bop_socket_close_after_flush(client->active->tcp, LAST_WORD_MS);
        } else {
            bop_socket_close(client->active->tcp); /* It may still want the TLS that goes now. */
        }
    }
    client->candidate = NULL;
    client->active = NULL;
}
