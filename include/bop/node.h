/*
 * A node of a BOP cluster on a loop: what bopd runs, and what a program embeds
 * that wants to be a member itself.
 *
 * A node listens on one port for clients and peers alike, dials every peer, keeps
 * its share of the state in a data directory, and runs two threads of its own for
 * the disk; everything else happens on the loop it is given.
 *
 * Threads: the loop's only. A node that was stopped may be destroyed by another one, once the
 * loop does not run any more.
 */
#ifndef BOP_NODE_H
#define BOP_NODE_H

#include <bop/alloc.h>
#include <bop/error.h>
#include <bop/log.h>
#include <bop/loop.h>
#include <bop/metrics.h>
#include <bop/raft.h>

struct bop_node;

struct bop_node_peer {
    uint64_t id;
    const char *host;
    uint16_t port;
};

/** What a client's certificate is good for. */
enum bop_node_certificates {
    BOP_NODE_CERTIFICATES_NONE = 0, /* Nothing; it needs none. */
    BOP_NODE_CERTIFICATES_OPTIONAL, /* It may stand for a token: see bop_node_token. */
    BOP_NODE_CERTIFICATES_REQUIRED, /* Likewise, and there is no connection without one. */
};

/**
 * TLS of all that a node listens on and dials. Files are PEM. Between nodes both sides
 * show a certificate of the CA that has the node's name in it (subjectAltName, DNS).
 */
struct bop_node_tls {
    const char *certificate; /* Leaf first. Required, and so is the key. */
    const char *key;
    const char *ca; /* Who vouches for peers and for clients' certificates. Needed for both. */
    const char *node_name; /* How a node is called in its certificate, {id} being its number.
                              Default: "bop-node-{id}". */
    enum bop_node_certificates client_certificates;
};

/** What may be done; each includes those before it. */
enum bop_right {
    BOP_RIGHT_READ = 1,
    BOP_RIGHT_WRITE = 2,
    BOP_RIGHT_ADMIN = 3, /* On "*" only: change the cluster itself. */
};

/** A right in a namespace, which is what a name has before its first '/'. */
struct bop_node_grant {
    const char *name_space; /* "": names without a '/'. "*": all names. */
    enum bop_right right;
};

#define BOP_TOKEN_HASH_SIZE           32
#define BOP_NODE_CERTIFICATE_NAME_MAX 255

/** Who may do what. It is known by a token, or by a certificate, or by either. */
struct bop_node_token {
    const char *name;        /* For people. Required; no other has it. */
    const uint8_t *sha256;   /* Of the token: BOP_TOKEN_HASH_SIZE bytes. NULL: it has none. */
    const char *certificate; /* A DNS name, address or common name in the client's certificate. */
    const struct bop_node_grant *grants;
    size_t grant_count;
};

struct bop_node_options {
    struct bop_allocator *allocator; /* Borrowed, as all pointers here but texts, until destroy. */
    struct bop_loop *loop;           /* Required. */
    struct bop_log *log;             /* Default: none. */
    struct bop_metrics *metrics;     /* Default: none. */
    const char *data;                /* The data directory, made if missing. Required. */
    const char *cluster;             /* The cluster's name. Default: "bop". */
    const char *version;             /* Told to clients. Default: the library's. */
    uint64_t id;                     /* Above 0. Required. */
    const char *listen_host;         /* Default: 127.0.0.1. */
    uint16_t listen_port;            /* 0: any free one. */
    const char *http_host;           /* Where to serve HTTP. NULL: nowhere. */
    uint16_t http_port;              /* 0: any free one. */
    const struct bop_node_peer *peers; /* All servers of a new cluster; self may be among them. */
    unsigned peer_count;               /* At most BOP_RAFT_SERVERS_MAX. */
    bool join;                         /* Begin empty and ask the peers to be added. */
    bool learner;                      /* With join: without a vote, and stay so. */
    unsigned election_timeout_ms;      /* Default 300. */
    unsigned heartbeat_ms;             /* Default 50. */
    unsigned clients_max;              /* Connections. Default 10,000. */
    uint64_t snapshot_entries;         /* Between snapshots. Default 1,000,000. */
    uint64_t trailing_entries;         /* Kept below one. Default 10,000. */
    unsigned inflight_entries;         /* Sent to a node ahead of its answers. Default 65,536. */
    uint64_t uncommitted_bytes;        /* Of writes taken ahead of commit. Default 32 MiB. */
    uint64_t send_bytes_s;             /* Of snapshots and backups, a second. Default: no bound. */
    uint64_t segment_bytes;            /* Of a log file. Default 64 MiB. */
    uint64_t state_bytes_max;          /* Upper bound of the state. Default 64 GiB. */
    const struct bop_node_tls *tls;    /* Copied. Default: clients and peers speak in the clear. */
    /* Copied; see bop_node_set_tokens(). NULL: everybody may do everything, for good. */
    const struct bop_node_token *tokens;
    size_t token_count;
    /* The node cannot go on: its disk failed, say. It answers nothing any more; destroy it.
     * Required. */
    void (*on_failed)(void *user, int code, const char *message);
    void *user;
};

/** What could not be had when starting failed. */
enum bop_node_part {
    BOP_NODE_LISTEN,
    BOP_NODE_DATA,
    BOP_NODE_TLS,
    BOP_NODE_HTTP, /* Its address. */
};

/** Listen, recover the data, begin to take part. out_failed_part may be NULL. */
BOP_API BOP_MUST_USE int bop_node_start(const struct bop_node_options *options,
                                        struct bop_node **out_node,
                                        enum bop_node_part *out_failed_part, struct bop_error *err);

/**
 * Read certificates, key and CA again, for connections to come; those there are go on. What
 * cannot be read changes nothing. Returns 0 (also without TLS) or a code.
 */
BOP_API BOP_MUST_USE int bop_node_reload_tls(struct bop_node *node, struct bop_error *err);

/**
 * Replace all tokens, of a node that was started with some; they are copied. It counts at once, on
 * connections that are there too. A code (BOP_EINVAL, BOP_ENOMEM) says that nothing was changed.
 */
BOP_API BOP_MUST_USE int bop_node_set_tokens(struct bop_node *node,
                                             const struct bop_node_token *tokens, size_t count,
                                             struct bop_error *err);

/** Where it listens. */
BOP_API uint16_t bop_node_port(const struct bop_node *node);
/** Where it serves HTTP; 0: nowhere. */
BOP_API uint16_t bop_node_http_port(const struct bop_node *node);

/**
 * Stop in order: hand over leadership if it has it, let what is under way finish
 * for a moment, close. stopped is called once, from the loop; then destroy it.
 */
BOP_API void bop_node_stop(struct bop_node *node, void (*stopped)(void *user), void *user);

/** Free a node, stopped or not; connections are closed, requests end as retryable. NULL is fine. */
BOP_API void bop_node_destroy(struct bop_node *node);

struct bop_node_status {
    enum bop_raft_state state;
    uint64_t term;
    uint64_t leader;
    uint64_t applied;
};
BOP_API void bop_node_status(struct bop_node *node, struct bop_node_status *out_status);

#endif
