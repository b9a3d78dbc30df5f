/*
 * What a node does for its clients: frames in, frames out, no socket. One
 * service a node, one connection object a client.
 *
 * Both the protocol's own kinds and the prototype's are answered here; requests
 * become commands and reads of the replica. Answers go out in the order in which
 * they are known, each under its request's id.
 *
 * Threads: the replica's owner's only.
 */
#ifndef BOP_CLUSTER_SERVICE_H
#define BOP_CLUSTER_SERVICE_H

#include <bop/alloc.h>
#include <bop/clock.h>
#include <bop/wire.h>

#include "auth.h"
#include "replica.h"

#define SERVICE_OUTSTANDING_MAX 8192 /* Requests of one connection; then it is paused... */
#define SERVICE_OUTSTANDING_LOW 4096 /* ...until so few are left. */

struct service;
struct service_conn;
struct watch_hub;

/** How a connection reaches its client. user is the one given at open. */
struct service_io {
    /* The queue to append whole frames to; NULL: gone, or over its bound. */
    struct bop_buf *(*output)(void *user);
    void (*flush)(void *user);
    /* Requests may be given again after one was answered BOP_EAGAIN. */
    void (*resume)(void *user);
    /* Close once what is queued has gone out. May be called more than once. */
    void (*close)(void *user);
    /* Bytes queued and not taken yet: watches wait while they are many. NULL: none are, ever. */
    size_t (*queued)(void *user);
    /* It did what people should know of. NULL: nobody wants to. */
    void (*complain)(void *user, const char *text);
};

struct service_options {
    struct bop_allocator *allocator; /* Borrowed, as all pointers here, until destroy. */
    struct bop_clock *clock;
    struct replica *replica;
    const char *cluster;
    const char *version;
    uint64_t node;
    struct auth *auth; /* NULL: no tokens are wanted. */
    /* Fill in the memory of a status response, which borrows what it points to until the next
     * call. NULL: none is told. */
    void (*tell_memory)(struct bop_status_response *out);
    struct bop_metrics *metrics; /* NULL: none. */
    size_t history_bytes_max;    /* Of past events, for watches; 0: the default of watch.h. */
    uint64_t watch_seed;         /* Of the index of watches; 0: a secret one. */
};

/** As the replica tells; see struct replica_events. */
void bop__service_events(struct service *service, uint64_t index, struct bop_slice events);
void bop__service_reset(struct service *service, uint64_t index);
void bop__service_release(struct service *service);
/** There are other tokens: what was opened with one that does not allow it any more ends. */
void bop__service_review(struct service *service);
BOP_MUST_USE int bop__service_peer(struct service *service, uint64_t peer,
                                   const struct bop_wire_frame *frame);
/** After each turn of the replica. Returns when to be called again at the latest, on the monotonic
 * clock. */
uint64_t bop__service_turn(struct service *service);

BOP_MUST_USE int bop__service_create(const struct service_options *options,
                                     struct service **out_service);
/** All connections are closed and the replica has answered all requests. */
void bop__service_destroy(struct service *service);

BOP_MUST_USE int bop__service_connect(struct service *service, const struct service_io *io,
                                      void *user, struct service_conn **out_conn);

/** Its certificate, which is good, has these names, with commas between them. */
void bop__service_show_certificate(struct service_conn *conn, const char *names);
/** Whether it is somebody by now, or need not be. */
bool bop__service_knows(struct service_conn *conn);

/** The client is gone: io is not called any more. What it asked for is finished in silence. */
void bop__service_disconnect(struct service_conn *conn);

/**
 * Take a request. Returns 0; BOP_EAGAIN: not taken, give it again after resume;
 * any other code: close, the client breaks the protocol.
 */
BOP_MUST_USE int bop__service_frame(struct service_conn *conn, const struct bop_wire_frame *frame);

/** Whose watches are told what this node applies. */
struct watch_hub *bop__service_watches(struct service *service);

/** What kind 145 answers. Slices are borrowed until the next call. */
void bop__service_status(struct service *service, struct bop_status_response *out);

/** The client is about to be gone, and not because this node closes: its session has no more than
 * its grace to come back. */
void bop__service_cut(struct service_conn *conn);

#endif
