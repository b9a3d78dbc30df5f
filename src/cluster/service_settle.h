/*
 * Kinds 180 and 181: waiting until all who watch something have heard what became of it.
 *
 * Of whoever watches it with ACKNOWLEDGE, on all nodes: the node asked finds out at which
 * revision it was asked, and asks the others (PEER_WATCH_ASK), each of which answers
 * (PEER_WATCH_DONE) when the connections of its clients have acknowledged that revision, or are
 * gone. Who has not acknowledged it is asked to, by a progress mark.
 */
#ifndef BOP_CLUSTER_SERVICE_SETTLE_H
#define BOP_CLUSTER_SERVICE_SETTLE_H

#include <bop/list.h>
#include <bop/wire.h>

#define SERVICE_SETTLES_MAX      1024  /* Of a node, those for others included. */
#define SERVICE_SETTLE_MS        5000  /* If the client says nothing... */
#define SERVICE_SETTLE_MAX_MS    60000 /* ...and at most. */
#define SERVICE_SETTLE_REPEAT_MS 100   /* Then who has not answered is asked again. */

struct service;
struct service_conn;

struct service_settles {
    struct bop_list list;
    size_t count;
    uint64_t last_id;
};

struct settle;

/** Somebody of this node who waits. */
struct settler {
    /* Called once, from the service's turn; not once it was forgotten. */
    void (*done)(struct settler *self, bool complete);
    struct settle *settle; /* NULL: not under way. */
};

void bop__service_settles_init(struct service *service);
/** Begin to wait until all have heard of what is in `revision`, which a read said; the payload is
 * that of kind 180, checked. False: too many are under way, or no memory. */
BOP_MUST_USE bool bop__service_settle_begin(struct service *service, struct settler *settler,
                                            struct bop_slice payload, uint64_t revision);
/** Nobody waits any more. May be given one that is not under way. */
void bop__service_settle_forget(struct settler *settler);
/** From a client. */
BOP_MUST_USE int bop__service_settle(struct service_conn *conn, const struct bop_wire_frame *frame);
/** The client is gone, and with it what it asked for. */
void bop__service_settles_forget(struct service_conn *conn);
void bop__service_settles_deinit(struct service *service);
/** Before the hub's turn, which sends the marks that are asked for here. Returns when to be called
 * again. */
uint64_t bop__service_settles_turn(struct service *service, uint64_t now_ms);

#endif
