/*
 * The hub of a node: all watches of all its connections, told from the entries that
 * this node applies, whoever leads.
 *
 * What is told of each entry is what it changed, once, in the order of entries; a
 * connection hears all events of an entry before the replies to writes of that entry. One
 * that takes its events too slowly is left behind and goes on from the history when there
 * is room again; what the history no longer has is told as RESYNC. Watches from a
 * past revision go through the history first, those with SNAPSHOT through a view and then
 * through the history: states and moves are in watch_internal.h.
 *
 * Threads: the replica's owner's only.
 */
#ifndef BOP_CLUSTER_WATCH_H
#define BOP_CLUSTER_WATCH_H

#include <bop/alloc.h>
#include <bop/metrics.h>
#include <bop/watch.h>

#include "history.h"
#include "replica.h"

#define WATCHES_CONN_MAX    100000 /* Of a connection... */
#define WATCHES_NODE_MAX    1000000
#define WATCH_BYTES_MAX     (512u * 1024 * 1024) /* ...and of all, with their keys. */
#define WATCH_QUEUE_HIGH    (4u * 1024 * 1024)   /* A queue above is left behind... */
#define WATCH_QUEUE_LOW     (1024u * 1024)       /* ...until it is below this. */
#define WATCH_FRAME_BYTES   (1024u * 1024)      /* Events of an entry that are more go in pieces. */
#define WATCH_ENTRY_BYTES   (32u * 1024 * 1024) /* More of one entry for one watch: RESYNC. */
#define WATCH_QUIET_MS      5000                /* Then comes a progress mark. */
#define WATCH_VIEWS_MAX     8                   /* Views that snapshots are read from. */
#define WATCH_VIEW_SHARE_MS 1000                /* A view so young is good for one more. */
#define WATCH_VIEW_MS       60000 /* A snapshot that goes on for longer begins anew. */
#define WATCH_TURN_ENTRIES  4096  /* Of the history, gone through in one turn... */
#define WATCH_TURN_PAGES    8     /* ...and pages of snapshots. */

struct watch_hub;
struct watch_conn;

/** What a watch is of, as it is kept: the bounds are one interval. */
struct watch_subject {
    uint8_t what; /* enum bop_watch_what. */
    struct bop_slice name;
    struct bop_slice from;
    struct bop_slice to; /* Empty: to the end. */
};

/** Who is told. No function may call the hub. */
struct watch_sink {
    /* Queue what a watch is told; watch 0: of the connection. Whole or not at all. */
    void (*tell)(void *user, uint32_t watch, const struct bop_watch_events *events);
    /* Bytes queued that were not taken yet. */
    size_t (*queued)(void *user);
    /* Whether it may watch this, as far as rights go. */
    bool (*allows)(void *user, const struct watch_subject *subject);
};

/** Zero fields take the defaults above. */
struct watch_options {
    struct bop_allocator *allocator; /* Borrowed, as all pointers here, until destroy. */
    struct bop_metrics *metrics;     /* NULL: none. */
    struct replica *replica;         /* For snapshots. */
    uint64_t revision;               /* Told already. */
    uint64_t seed;
    size_t history_bytes_max;
    size_t watches_conn_max;
    size_t watches_max;
    size_t bytes_max;
    size_t queue_high;
    size_t queue_low;
};

BOP_MUST_USE int bop__watch_hub_create(const struct watch_options *options,
                                       struct watch_hub **out_hub);
/** All connections are gone. NULL is fine. */
void bop__watch_hub_destroy(struct watch_hub *hub);

/* ---- From the replica ---- */

/** An entry was applied and changed this: one or more events. */
void bop__watch_hub_events(struct watch_hub *hub, uint64_t revision, struct bop_slice events);
/** The state was replaced by that of this revision: what is between was never seen. */
void bop__watch_hub_reset(struct watch_hub *hub, uint64_t revision);
/** Close all views: the machine goes. */
void bop__watch_hub_release(struct watch_hub *hub);
/** After each turn of the replica, which has applied up to this revision. Returns when to be
 * called again at the latest; UINT64_MAX: no matter when. */
uint64_t bop__watch_hub_turn(struct watch_hub *hub, uint64_t revision, uint64_t now_ms);

/** Rights have changed: watches that are not allowed any more are told so, and end. */
void bop__watch_hub_review(struct watch_hub *hub);

/* ---- From clients ---- */

BOP_MUST_USE int bop__watch_connect(struct watch_hub *hub, const struct watch_sink *sink,
                                    void *user, struct watch_conn **out_conn);
/** End all its watches. NULL is fine. */
void bop__watch_disconnect(struct watch_conn *conn);

/**
 * Open a watch under an id, which is not 0 and no other's of this connection. Returns OK, with
 * *out_revision, after which events will follow; COMPACTED with the oldest it could be; RETRY
 * from now on, before the first entry; BUSY over a bound or without memory; or BAD_REQUEST. Nothing
 * is told from within.
 */
uint8_t bop__watch_open(struct watch_conn *conn, uint32_t id,
                        const struct bop_watch_open_request *request, uint64_t *out_revision);
/** False if there is none. */
bool bop__watch_close(struct watch_conn *conn, uint32_t id);
void bop__watch_acked(struct watch_conn *conn, const struct bop_watch_ack *ack);
/** Whether all connections that watch this with ACKNOWLEDGE have acknowledged the revision, which
 * the hub was told. Those that have not are sent a mark in the next turn, once. */
bool bop__watch_settled(struct watch_hub *hub, const struct bop_watch_settle_request *ask,
                        uint64_t revision);

/* ---- Looking in ---- */

size_t bop__watch_hub_count(const struct watch_hub *hub);
/** What the connection said last to have seen to. */
uint64_t bop__watch_conn_acked(const struct watch_conn *conn);
/** All its watches were told everything up to here. 0: one is in its past, or the connection is
 * behind. */
uint64_t bop__watch_conn_told(const struct watch_conn *conn);

#endif
