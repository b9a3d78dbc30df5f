/*
 * Shared by node.c (start, stop, the replica on the loop), node_link.c (peers),
 * node_conn.c (accepted connections) and node_tls.c (certificates).
 */
#ifndef BOP_CLUSTER_NODE_H
#define BOP_CLUSTER_NODE_H

#include <bop/node.h>
#include <bop/socket.h>
#include <bop/tls.h>
#include <stdatomic.h>

#include "http/api.h"
#include "replica.h"
#include "service.h"

#define LINK_RETRY_MIN_MS 20   /* Between attempts to reach a peer, doubling... */
#define LINK_RETRY_MAX_MS 500  /* ...up to this. */
#define LINK_REFUSED_MS   5000 /* After it said no. */
#define LINK_CONNECT_MS   2000
#define NODE_WATCH_MS     500
#define LINK_STALL_LOOKS  10   /* Unmoved so often, a queue is that of a dead peer. */
#define STOP_WAIT_MS      1000 /* For leadership to be handed over. */
#define CLOSE_FLUSH_MS    1000
#define HOST_MAX          256
#define STRANGERS_PER_S   10 /* Lines of the log about them in a second. */

struct bop_node;

/** The way to one peer: a connection we dial for what we say, one it dials for what it says. */
struct node_link {
    struct bop_node *node;
    uint64_t id; /* 0: free. */
    char host[HOST_MAX];
    uint16_t port;
    struct bop_socket *out; /* Dialed; NULL while not connected. */
    bool ready;             /* It welcomed us. */
    bool refused;
    bool complained;      /* The log knows already that it cannot be reached. */
    struct node_conn *in; /* Accepted from it. */
    struct bop_timer retry;
    uint64_t retry_ms;
    uint64_t sent;    /* Bytes of out when last looked at, every NODE_WATCH_MS... */
    unsigned stalled; /* ...and how often none had gone out since, though some wait. */
};

/** An accepted connection: a client's, or a peer's once it said PEER_HELLO. */
struct node_conn {
    struct bop_list link; /* In node->conns. */
    struct bop_node *node;
    struct bop_socket *tcp;
    struct service_conn *client; /* NULL before the first frame, and for a peer. */
    struct node_link *peer;      /* NULL for a client. */
    bool closing;
    bool heard; /* Something came. */
};

/** Certificates. All zero without TLS. */
struct node_tls {
    struct bop_tls *server; /* Of the listener. */
    struct bop_tls *http;   /* Of the HTTP listener: nobody but clients come there. */
    struct bop_tls *peers;  /* To dial with; NULL without a CA. */
    char name[HOST_MAX];    /* With {id} in it. */
    enum bop_node_certificates clients;
};

/* A lane's thread has something for the loop. Destroying drains a lane without waiting for the
 * loop, and a post that is under way must not be posted again. */
struct node_notice {
    struct bop_post post;
    atomic_bool posted;
};

struct bop_node {
    struct bop_node_options options;
    struct bop_allocator *allocator;
    struct bop_loop *loop;
    struct bop_log *log;
    char data[4096];
    char cluster[256];
    char version[64];
    char host[HOST_MAX];
    char address[HOST_MAX + 8];
    struct bop_listener *listener;
    struct bop_lane *log_lane;
    struct bop_lane *work_lane;
    struct node_notice log_notice;
    struct node_notice work_notice;
    struct replica *replica;
    struct service *service;
    struct auth *auth;     /* NULL: no tokens are wanted. */
    struct http_api *http; /* NULL: not served. */
    struct replica_transport transport;
    struct node_link links[BOP_RAFT_SERVERS_MAX + 1];
    struct bop_list conns;
    struct bop_hook hook;
    struct bop_timer timer; /* The replica's deadline. */
    struct bop_timer watch; /* Looks after links. */
    bool started;
    bool closing;
    /* Stopping. */
    void (*stopped)(void *user);
    void *stopped_user;
    uint64_t stop_by_ms;
    struct bop_post stopped_post;
    struct bop_metric *bad_frames;
    struct node_tls tls;
    uint64_t strangers_s; /* The second in which... */
    unsigned strangers;   /* ...so many lines were logged about them. */
};

/* node_link.c */
void bop__node_links_init(struct bop_node *node);
void bop__node_links_configure(struct bop_node *node, const struct bop_raft_configuration *conf);
struct node_link *bop__node_link(struct bop_node *node, uint64_t id);
void bop__node_link_add(struct bop_node *node, uint64_t id, const char *host, uint16_t port);
void bop__node_links_close(struct bop_node *node);
void bop__node_links_watch(struct bop_node *node);

/* node_conn.c */
bool bop__node_accept(struct bop_listener *listener, struct bop_socket *tcp, void *user);
void bop__node_conns_close(struct bop_node *node);
void bop__node_conn_close(struct node_conn *conn);
/* Warn of what a stranger did, unless there were many of them in this second. */
void bop__node_log_stranger(struct bop_node *node, const struct bop_socket *tcp, const char *text);

/* node_tls.c */
BOP_MUST_USE int bop__node_tls_open(struct bop_node *node, struct bop_error *err);
void bop__node_tls_close(struct bop_node *node);
/* How node `id` is called in its certificate. */
const char *bop__node_tls_name(const struct bop_node *node, uint64_t id, char out_name[HOST_MAX]);
/* Whether the other side of an accepted connection may speak as node `id`; if not, why. */
bool bop__node_tls_is_peer(const struct bop_node *node, const struct bop_socket *tcp, uint64_t id,
                           char *out_refusal, size_t size);

/* node_http.c: nothing is done where HTTP is not served. */
BOP_MUST_USE int bop__node_http_listen(struct bop_node *node, struct bop_error *err);
void bop__node_http_serve(struct bop_node *node);
void bop__node_http_stop(struct bop_node *node);
void bop__node_http_close(struct bop_node *node);
bool bop__node_http_is_idle(const struct bop_node *node);
void bop__node_http_destroy(struct bop_node *node);

/* node_memory.c */
void bop__node_tell_memory(struct bop_status_response *out);

#endif
