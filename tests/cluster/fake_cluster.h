/*
 * A cluster for the client's tests: nodes that listen on loopback, share one
 * model of what a cluster keeps (sessions with their replies, counters, maps of
 * none but the last put), and do what a script of knobs says: answer RETRY or BUSY,
 * drop connections before or after acting, stay silent, talk nonsense.
 *
 * The model checks the client as it goes: tokens, sequence numbers, that a
 * repeated write has the same bytes, that acked never falls and that nothing
 * acknowledged is sent again.
 */
#ifndef BOP_TESTS_FAKE_CLUSTER_H
#define BOP_TESTS_FAKE_CLUSTER_H

#include "tap.h"

#include <bop/loop.h>
#include <bop/random.h>
#include <bop/socket.h>
#include <bop/wire.h>

#define FAKE_NODES        3
#define FAKE_SESSIONS     16
#define FAKE_SEQUENCE_MAX 8192

struct fake_reply {
    bool done;
    uint32_t operation_hash;
    uint8_t status;
    uint8_t result[24];
    size_t result_size;
};

struct fake_session {
    bool open;
    uint8_t token[BOP_TOKEN_SIZE];
    uint64_t acked;
    uint64_t sequence_max;
    struct fake_reply *replies; /* FAKE_SEQUENCE_MAX, by sequence. */
};

struct fake_cluster;

struct fake_node {
    struct fake_cluster *cluster;
    uint64_t id;
    struct bop_listener *listener;
    uint16_t port;
    char address[32]; /* With it. */
    struct bop_list connections;
    size_t connection_count;

    /* What to do, each counted down. 0: nothing. */
    unsigned retry;       /* So many writes and reads are answered RETRY... */
    unsigned busy;        /* ...or BUSY. */
    unsigned no_room;     /* So many writes are answered NO_ROOM... */
    unsigned denied;      /* ...or DENIED, as are so many operators' requests. */
    unsigned no_session;  /* So many writes are answered NO_SESSION; the session ends. */
    unsigned open_retry;  /* So many opens are answered RETRY. */
    unsigned drop_before; /* The n-th request from now: close without acting. */
    unsigned drop_after;  /* ...act, then close without an answer. */
    unsigned drop_within; /* ...act, then close after half of the answer. */
    unsigned garbage;     /* ...answer nonsense. */
    bool mute;            /* Hears requests, answers hellos only. */
    bool silent;          /* Answers nothing at all. */
    bool refuse;          /* Another cluster. */
    const char *name;     /* Of its cluster, which is told, and minded in hellos. */
    const char *token;    /* Wanted of clients. NULL: none. */
    uint8_t read_status;  /* What reads are answered with instead, if not 0. */
    bool cut_results;     /* Results lack their last byte. */

    /* What was seen. */
    unsigned auths, hellos, opens, resumes, alives, closes, writes, reads;
    uint32_t last_request; /* The last write's id on the wire. */
    struct bop_socket *last_tcp;
};

struct fake_cluster {
    struct bop_loop *loop;
    struct fake_node nodes[FAKE_NODES];
    uint64_t leader;                                 /* As nodes say. 0: none. */
    uint16_t leader_port;                            /* If not 0: where they say it is. */
    struct fake_session sessions[FAKE_SESSIONS + 1]; /* By id, from 1. */
    uint64_t session_count;
    uint32_t session_timeout_ms; /* Granted. */
    int64_t counter;
    unsigned executed;
    unsigned members;       /* Joined less left, in all sessions. */
    unsigned registrations; /* Added, in all sessions, and... */
    unsigned bulks;         /* ...in so many requests. */
    unsigned removed;       /* Of them. */
    unsigned taken;         /* So many joins are answered CONDITION. */
    uint32_t grace_ms;      /* Asked for last. */
    bool old;               /* Knows of no grace. */
    uint8_t last_put[16];
    size_t last_put_size;
    /* Takes requests about watches, and answers them with fake_node_say(). */
    void (*on_watch)(void *user, struct fake_node *node, struct bop_socket *tcp,
                     const struct bop_wire_frame *frame);
    void *watch_user;
};

/** Say something on a connection, asked or not. */
void fake_node_say(struct bop_socket *tcp, uint16_t kind, uint32_t request,
                   struct bop_slice payload);

void fake_cluster_start(struct fake_cluster *cluster, struct bop_loop *loop, unsigned nodes);
/** Close all connections and stop listening; on_close of each comes from the loop. */
void fake_cluster_stop(struct fake_cluster *cluster);
/** A node dies: no connection, no listener. */
void fake_node_kill(struct fake_node *node);
/** Close its connections. */
void fake_node_drop(struct fake_node *node);
/** Answer the last write with OK of a counter; late, so to speak. */
void fake_node_answer_last(struct fake_node *node);

#endif
