/*
 * What an operator asks of the cluster: see bop/cluster_admin.h. Any node takes a
 * request; changes, transfers and the list of servers are the leader's to answer and
 * travel there and back between the nodes.
 */
#ifndef BOP_CLUSTER_REPLICA_ADMIN_H
#define BOP_CLUSTER_REPLICA_ADMIN_H

#include <bop/cluster_admin.h>
#include <bop/list.h>

struct replica;

/** A request under way; intrusive, lives until done. */
struct replica_admin {
    struct bop_list link; /* The replica's from here to the next comment. */
    uint64_t id;
    uint64_t deadline_ms;
    uint64_t sent_to; /* The leader that has it; 0: nobody yet. */
    uint64_t sent_term;
    /* The caller's. */
    uint16_t kind;            /* Of the request: BOP_WIRE_KIND_CLUSTER_..._REQUEST. */
    struct bop_slice payload; /* Borrowed until done. */
    /* response is the payload of the answer, borrowed for the call. */
    void (*done)(struct replica_admin *admin, struct bop_slice response);
};

/** Ask. kind, payload and done are set. done is called once, from a turn or from close. */
void bop__replica_admin(struct replica *replica, struct replica_admin *admin);

/** Who is to be answered. */
struct admin_origin {
    uint64_t peer;    /* 0: a request of this node's. */
    uint64_t request; /* By the origin's count. */
};

/** The replica's part of it. */
struct replica_admins {
    struct bop_list waiting; /* Of struct replica_admin. */
    uint64_t last_id;
    struct {
        bool active;
        struct admin_origin origin;
        uint64_t term;
        struct bop_admin_change_response response;
        char text[BOP_ADMIN_TEXT_MAX];
    } change; /* Submitted, not known to be committed. */
    struct {
        bool active;
        struct admin_origin origin;
        uint64_t to; /* 0: to any. */
        uint64_t deadline_ms;
    } transfer;
    struct bop_buf out;
};

#endif
