/*
 * A node: the replica and its service on a loop, two lanes for the disk, links to
 * the peers, one listener.
 *
 * At the end of every turn of the loop the replica takes its turn: all that came
 * in from clients, peers and disk is proposed, applied and answered together, and
 * what it queued goes out in the flush that follows.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bop/clock.h>
#include <bop/executor.h>
#include <bop/fs.h>
#include <bop/mem.h>
#include <bop/random.h>

#include "node.h"

#define LOG_WRITES 8 /* Commits of the log on their way to the disk at once. */

#ifndef BOP_VERSION
#define BOP_VERSION "unknown"
#endif

/* ---- What the replica needs ---- */

static struct bop_buf *transport_output(struct replica_transport *self, uint64_t peer)
{
    struct bop_node *node = BOP_CONTAINER_OF(self, struct bop_node, transport);
    struct node_link *link = bop__node_link(node, peer);

    return link && link->ready ? bop_socket_output(link->out) : NULL;
}

static void transport_flush(struct replica_transport *self, uint64_t peer)
{
    struct bop_node *node = BOP_CONTAINER_OF(self, struct bop_node, transport);

    bop_socket_flush_later(bop__node_link(node, peer)->out);
}

static void on_replica_failed(void *user, int code, const char *message)
{
    struct bop_node *node = user;

    node->options.on_failed(node->options.user, code, message);
}

static void on_configuration(void *user, const struct bop_raft_configuration *conf)
{
    bop__node_links_configure(user, conf);
}

static void on_events(void *user, uint64_t index, struct bop_slice events)
{
    bop__service_events(((struct bop_node *)user)->service, index, events);
}

static void on_reset(void *user, uint64_t index)
{
    bop__service_reset(((struct bop_node *)user)->service, index);
}

static int on_peer(void *user, uint64_t peer, const struct bop_wire_frame *frame)
{
    return bop__service_peer(((struct bop_node *)user)->service, peer, frame);
}

static void on_release(void *user)
{
    bop__service_release(((struct bop_node *)user)->service);
}

static void notice_run(struct node_notice *notice, struct bop_lane *lane)
{
    /* Before the lane is looked at: what comes later is told once more. seq_cst, for no reason but
     * that it is rare. */
    atomic_store(&notice->posted, false);
    if (lane) {
        bop_lane_poll(lane);
    }
}

static void notice_send(struct node_notice *notice, struct bop_loop *loop)
{
    if (!atomic_exchange(&notice->posted, true)) {
        bop_loop_post(loop, &notice->post);
    }
}

static void on_log_post(struct bop_post *post)
{
    struct bop_node *node = BOP_CONTAINER_OF(post, struct bop_node, log_notice.post);

    notice_run(&node->log_notice, node->log_lane);
}

static void on_work_post(struct bop_post *post)
{
    struct bop_node *node = BOP_CONTAINER_OF(post, struct bop_node, work_notice.post);

    notice_run(&node->work_notice, node->work_lane);
}

static void notify_log(void *user)
{
    struct bop_node *node = user;

    notice_send(&node->log_notice, node->loop);
}

static void notify_work(void *user)
{
    struct bop_node *node = user;

    notice_send(&node->work_notice, node->loop);
}

/* ---- Turning ---- */

static void finish_stop(struct bop_node *node);

static void on_turn(struct bop_hook *hook)
{
    struct bop_node *node = BOP_CONTAINER_OF(hook, struct bop_node, hook);
    uint64_t deadline, now;

    if (!node->started || node->closing) {
        return;
    }
    bop__replica_turn(node->replica);
    if (bop__replica_failed(node->replica) != 0) {
        return;
    }
    if (node->stopped) {
        finish_stop(node);
    }
    deadline = bop_min_u64(bop__service_turn(node->service),
                           bop__replica_deadline_ms(node->replica));
    now = bop_loop_now_ms(node->loop);
    /* Starting fails for want of memory only; the watch timer turns the loop as well. */
    BOP_IGNORE(bop_timer_start(node->loop, &node->timer, deadline > now ? deadline - now : 0));
}

static void on_timer(struct bop_timer *timer)
{
    /* It only ends the wait: the turn's hook does the work. */
}

static void on_watch(struct bop_timer *timer)
{
    struct bop_node *node = BOP_CONTAINER_OF(timer, struct bop_node, watch);

    bop__node_links_watch(node);
    if (bop_timer_start(node->loop, timer, NODE_WATCH_MS) < 0) {
        bop_log(node->log, BOP_LOG_ERROR, "node", "no memory for a timer");
    }
}

/* ---- Starting ---- */

static int copy_text(char *out, size_t size, const char *text, const char *what,
                     struct bop_error *err)
{
    if (snprintf(out, size, "%s", text) >= (int)size) {
        return bop_error_set(err, -ENAMETOOLONG, "%s", what);
    }
    return 0;
}

static int copy_texts(struct bop_node *node, struct bop_error *err)
{
    const struct bop_node_options *options = &node->options;
    int rc = copy_text(node->data, sizeof(node->data), options->data, "data directory", err);

    if (rc == 0) {
        rc = copy_text(node->cluster, sizeof(node->cluster),
                       options->cluster ? options->cluster : "bop", "cluster name", err);
    }
    if (rc == 0) {
        rc = copy_text(node->version, sizeof(node->version),
                       options->version ? options->version : BOP_VERSION, "version", err);
    }
    if (rc == 0) {
        rc = copy_text(node->host, sizeof(node->host),
                       options->listen_host ? options->listen_host : "127.0.0.1", "listen host",
                       err);
    }
    return rc;
}

static int listen_on(struct bop_node *node, struct bop_error *err)
{
    struct bop_listen_options options = {
        .host = node->host,
        .port = node->options.listen_port,
        .connections_max = (node->options.clients_max ? node->options.clients_max : 10000) +
                           2 * BOP_RAFT_SERVERS_MAX,
        .tls = node->tls.server,
        .on_accept = bop__node_accept,
        .user = node,
    };
    int rc = bop_listen(node->loop, &options, &node->listener, err);

    if (rc < 0) {
        return rc;
    }
    snprintf(node->address, sizeof(node->address), strchr(node->host, ':') ? "[%s]:%u" : "%s:%u",
             node->host, bop_listener_port(node->listener));
    return 0;
}

static int start_lanes(struct bop_node *node)
{
    struct bop_lane_options options = {.allocator = node->options.allocator,
                                       .name = "bop-log",
                                       .notify = notify_log,
                                       .user = node,
                                       .writes = LOG_WRITES};
    int rc;

    node->log_notice.post.fn = on_log_post;
    node->work_notice.post.fn = on_work_post;
    rc = bop_lane_create(&options, &node->log_lane);
    if (rc == 0) {
        options.name = "bop-snapshot";
        options.background = true; /* Nobody waits for a snapshot as for an answer. */
        options.writes = 0;
        options.notify = notify_work;
        rc = bop_lane_create(&options, &node->work_lane);
    }
    return rc;
}

/* The servers of a new cluster: the peers given, and this node. */
static int initial_configuration(const struct bop_node *node, struct bop_raft_configuration *conf,
                                 struct bop_error *err)
{
    bool has_self = false;

    memset(conf, 0, sizeof(*conf));
    for (unsigned n = 0; n <= node->options.peer_count; n++) {
        struct bop_raft_server *server = &conf->servers[conf->count];
        bool self = n == node->options.peer_count;
        const struct bop_node_peer *peer = self ? NULL : &node->options.peers[n];

        if (self && has_self) {
            continue;
        }
        if (conf->count == BOP_RAFT_SERVERS_MAX) {
            return bop_error_say(err, BOP_EINVAL, "a cluster has at most %d servers",
                                 BOP_RAFT_SERVERS_MAX);
        }
        server->role = BOP_RAFT_VOTER;
        if (self || peer->id == node->options.id) {
            has_self = true;
            server->id = node->options.id;
        } else {
            server->id = peer->id;
        }
        if (self) {
            snprintf(server->address, sizeof(server->address), "%s", node->address);
        } else {
            snprintf(server->address, sizeof(server->address),
                     strchr(peer->host, ':') ? "[%s]:%u" : "%s:%u", peer->host, peer->port);
        }
        conf->count++;
    }
    return 0;
}

static int compare_servers(const void *a, const void *b)
{
    const struct bop_raft_server *left = a, *right = b;

    return left->id < right->id ? -1 : left->id > right->id;
}

/* Empty if the system does not say. */
static void boot_id(char out_id[64])
{
    struct bop_buf text;

    bop_buf_init(&text, NULL, 0);
    out_id[0] = '\0';
    if (bop_fs_read_file(bop_fs_real(), "/proc/sys/kernel/random/boot_id", 63, &text) >= 0 &&
        text.size >= 36) {
        memcpy(out_id, text.data, 36);
        out_id[36] = '\0';
    }
    bop_buf_deinit(&text);
}

static int open_replica(struct bop_node *node, struct bop_error *err)
{
    struct bop_raft_configuration conf;
    char boot[64];
    struct replica_options options = {
        .allocator = node->options.allocator,
        .fs = bop_fs_real(),
        .clock = bop_clock_system(),
        .log_executor = bop_lane_executor(node->log_lane),
        .work_executor = bop_lane_executor(node->work_lane),
        .log = node->log,
        .metrics = node->options.metrics,
        .transport = &node->transport,
        .events = {.on_failed = on_replica_failed,
                   .on_configuration = on_configuration,
                   .on_events = on_events,
                   .on_reset = on_reset,
                   .on_release = on_release,
                   .on_peer = on_peer,
                   .user = node},
        .path = node->data,
        .boot_id = boot,
        .cluster = node->cluster,
        .id = node->options.id,
        .address = node->address,
        .initial = &conf,
        .join = node->options.join,
        .learner = node->options.learner,
        .election_timeout_ms = node->options.election_timeout_ms,
        .heartbeat_ms = node->options.heartbeat_ms,
        .snapshot_entries = node->options.snapshot_entries,
        .trailing_entries = node->options.trailing_entries,
        .inflight_entries = node->options.inflight_entries,
        .uncommitted_bytes = node->options.uncommitted_bytes,
        .send_bytes_s = node->options.send_bytes_s,
        .segment_bytes = node->options.segment_bytes,
        .state_bytes_max = node->options.state_bytes_max,
    };
    int rc = initial_configuration(node, &conf, err);

    if (rc < 0) {
        return rc;
    }
    /* Every node writes the same first entry, whatever the order of its flags. */
    qsort(conf.servers, conf.count, sizeof(conf.servers[0]), compare_servers);
    boot_id(boot);
    rc = bop_random_secret(&options.seed, sizeof(options.seed));
    return rc < 0 ? bop_error_set(err, rc, "get random bytes")
                  : bop__replica_open(&options, &node->replica, err);
}

static int start_service(struct bop_node *node, struct bop_error *err)
{
    struct service_options options = {
        .allocator = node->options.allocator,
        .clock = bop_clock_system(),
        .replica = node->replica,
        .cluster = node->cluster,
        .version = node->version,
        .node = node->options.id,
        .auth = node->auth,
        .tell_memory = bop__node_tell_memory,
        .metrics = node->options.metrics,
    };
    int rc = bop__service_create(&options, &node->service);

    return rc < 0 ? bop_error_set(err, rc, "start the service") : 0;
}

static int open_auth(struct bop_node *node, struct bop_error *err)
{
    int rc;

    if (!node->options.tokens) {
        return 0;
    }
    rc = bop__auth_create(node->options.allocator, &node->auth);
    return rc < 0 ? bop_error_set(err, rc, "take over the tokens")
                  : bop_node_set_tokens(node, node->options.tokens, node->options.token_count, err);
}

int bop_node_set_tokens(struct bop_node *node, const struct bop_node_token *tokens, size_t count,
                        struct bop_error *err)
{
    int rc;

    if (!node->auth) {
        return bop_error_say(err, BOP_EINVAL, "the node was started without tokens");
    }
    rc = bop__auth_set(node->auth, tokens, count, err);
    if (rc == 0 && node->service) {
        bop__service_review(node->service);
    }
    return rc;
}

static void init(struct bop_node *node, const struct bop_node_options *options)
{
    node->options = *options;
    node->loop = options->loop;
    node->log = options->log ? options->log : bop_log_null();
    node->transport = (struct replica_transport){.output = transport_output,
                                                 .flush = transport_flush};
    node->hook.fn = on_turn;
    bop_list_init(&node->hook.link);
    bop_list_init(&node->conns);
    bop_timer_init(&node->timer, on_timer);
    bop_timer_init(&node->watch, on_watch);
    bop__node_links_init(node);
    if (options->metrics) {
        node->bad_frames = bop_metrics_counter(options->metrics, "bop_bad_frames_total", NULL,
                                               "Connections closed for breaking the protocol.");
    }
}

static int start(struct bop_node *node, enum bop_node_part *part, struct bop_error *err)
{
    int rc = copy_texts(node, err);

    *part = BOP_NODE_TLS;
    if (rc == 0) {
        rc = bop__node_tls_open(node, err);
    }
    if (rc == 0) {
        rc = open_auth(node, err);
    }
    if (rc < 0) {
        return rc;
    }
    *part = BOP_NODE_LISTEN;
    if (rc == 0) {
        rc = listen_on(node, err);
    }
    if (rc < 0) {
        return rc;
    }
    *part = BOP_NODE_HTTP;
    rc = bop__node_http_listen(node, err);
    if (rc < 0) {
        return rc;
    }
    *part = BOP_NODE_DATA;
    rc = start_lanes(node);
    if (rc < 0) {
        return bop_error_set(err, rc, "start the threads for the disk");
    }
    rc = open_replica(node, err);
    if (rc == 0) {
        rc = start_service(node, err);
    }
    if (rc == 0) {
        rc = bop_timer_start(node->loop, &node->watch, NODE_WATCH_MS);
    }
    if (rc == 0) {
        rc = bop_timer_start(node->loop, &node->timer, 0);
    }
    return rc;
}

int bop_node_start(const struct bop_node_options *options, struct bop_node **out_node,
                   enum bop_node_part *out_failed_part, struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "cluster.node");
    struct bop_node *node;
    enum bop_node_part part;
    int rc;

    if (!options->loop || !options->data || options->id == 0 || !options->on_failed ||
        options->peer_count > BOP_RAFT_SERVERS_MAX) {
        return bop_error_set(err, BOP_EINVAL, "start a node");
    }
    node = bop_alloc_zeroed(allocator, sizeof(*node));
    if (!node) {
        return bop_error_set(err, BOP_ENOMEM, "start a node");
    }
    node->allocator = allocator;
    init(node, options);
    rc = start(node, &part, err);
    if (rc < 0) {
        if (out_failed_part) {
            *out_failed_part = part;
        }
        bop_node_destroy(node);
        return rc;
    }
    for (unsigned n = 0; n < options->peer_count; n++) {
        bop__node_link_add(node, options->peers[n].id, options->peers[n].host,
                           options->peers[n].port);
    }
    bop_loop_add_hook(node->loop, &node->hook);
    bop__node_http_serve(node);
    node->started = true;
    *out_node = node;
    return 0;
}

uint16_t bop_node_port(const struct bop_node *node)
{
    return bop_listener_port(node->listener);
}

void bop_node_status(struct bop_node *node, struct bop_node_status *out_status)
{
    struct bop_status_response status;

    bop__replica_status(node->replica, &status);
    *out_status = (struct bop_node_status){
        .state = (enum bop_raft_state)status.state,
        .term = status.term,
        .leader = status.leader,
        .applied = status.applied,
    };
}

/* ---- Stopping ---- */

static void on_stopped_post(struct bop_post *post)
{
    struct bop_node *node = BOP_CONTAINER_OF(post, struct bop_node, stopped_post);

    node->stopped(node->stopped_user);
}

static void finish_stop(struct bop_node *node)
{
    struct bop_raft_status status;

    bop__replica_raft_status(node->replica, &status);
    if (status.state == BOP_RAFT_LEADER && bop_loop_now_ms(node->loop) < node->stop_by_ms) {
        return;
    }
    node->closing = true;
    /* The store's writer is the thread's that began to write, and the node may be destroyed by
     * another one, when the loop has ended. A failure is kept in the replica. */
    BOP_IGNORE(bop__replica_settle(node->replica));
    node->stopped_post.fn = on_stopped_post;
    bop_loop_post(node->loop, &node->stopped_post);
}

void bop_node_stop(struct bop_node *node, void (*stopped)(void *user), void *user)
{
    struct bop_raft_configuration conf;

    node->stopped = stopped;
    node->stopped_user = user;
    node->stop_by_ms = bop_loop_now_ms(node->loop);
    bop_listener_close(node->listener);
    node->listener = NULL;
    bop__node_http_stop(node);
    bop__replica_configuration(node->replica, &conf);
    if (conf.count > 1 && bop__replica_transfer(node->replica)) {
        node->stop_by_ms += STOP_WAIT_MS;
    }
}

static bool has_connections(const struct bop_node *node)
{
    for (size_t n = 0; n < BOP_COUNT_OF(node->links); n++) {
        if (node->links[n].out) {
            return true;
        }
    }
    return !bop_list_empty(&node->conns) || !bop__node_http_is_idle(node);
}

/* Their on_close comes from the loop, and so do the last posts of the lanes. */
static void close_connections(struct bop_node *node)
{
    bop__node_links_close(node);
    bop__node_conns_close(node);
    do {
        if (bop_loop_run_once(node->loop, 0) < 0) {
            break;
        }
    } while (has_connections(node));
}

/* A task that is done may ask for another one: the log's next batch, its upkeep. */
static void drain_lanes(struct bop_node *node)
{
    do {
        if (node->work_lane) {
            bop_lane_drain(node->work_lane);
        }
        if (node->log_lane) {
            bop_lane_drain(node->log_lane);
        }
    } while (node->replica && bop__replica_busy(node->replica));
}

void bop_node_destroy(struct bop_node *node)
{
    struct bop_lane *log_lane, *work_lane;

    if (!node) {
        return;
    }
    node->closing = true;
    bop_listener_close(node->listener);
    bop__node_http_close(node);
    bop_timer_stop(node->loop, &node->timer);
    bop_timer_stop(node->loop, &node->watch);
    if (node->started) {
        bop_loop_remove_hook(node->loop, &node->hook);
    }
    log_lane = node->log_lane;
    work_lane = node->work_lane;
    if (node->replica) {
        bop__replica_stop(node->replica);
    }
    drain_lanes(node);
    node->log_lane = NULL;
    node->work_lane = NULL;
    bop__replica_close(node->replica);
    close_connections(node);
    bop__node_http_destroy(node);
    bop__service_destroy(node->service);
    bop_lane_destroy(work_lane);
    bop_lane_destroy(log_lane);
    bop__auth_destroy(node->auth);
    bop__node_tls_close(node);
    /* The lanes may have posted once more: let that go by before the memory goes. */
    BOP_IGNORE(bop_loop_run_once(node->loop, 0));
    bop_free(node->allocator, node, sizeof(*node));
}
