/*
 * Shared by the files of the hub:
 *
 *     watch.c           connections, opening and closing, turns
 *     watch_event.c     an entry's events to the watches they are for
 *     watch_later.c     watches that are not live, connections that are behind
 *     watch_snapshot.c  how things stand, read from a view
 *     watch_settle.c    whether all have acknowledged
 *
 * A watch is in one of four states:
 *
 *                 open with SNAPSHOT          open at a past revision       open from now on
 *                        |                            |                           |
 *                        v                            v                           v
 *      +-----------> SNAPSHOT --at the end of it--> REPLAY --nothing is left--> LIVE
 *      | with flag       |                            |                           |
 *      |                 | the view is gone           | the history has lost it   | so it had
 *      |                 v                            v                           v
 *      +-- RESYNC is told <---------------------- LOST <--------------------------+
 *      without the flag: the watch ends
 *
 * A LIVE one is in the list of its interval, any other in its connection's list of pending
 * ones. A connection whose queue is full is behind: its live watches are moved from the hub's
 * index to its own, with which it goes through the history from `sent` on.
 *
 * watch->last is the last revision that a watch was told, or need not be told: what makes it
 * sure that none is told twice.
 */
#ifndef BOP_CLUSTER_WATCH_INTERNAL_H
#define BOP_CLUSTER_WATCH_INTERNAL_H

#include "watch.h"
#include "watch_index.h"

enum watch_state {
    WATCH_SNAPSHOT,
    WATCH_REPLAY,
    WATCH_LIVE,
    WATCH_LOST,
};

struct watch {
    struct watch *next;   /* Of the same slot of its connection. */
    struct bop_list link; /* Of its interval's watches, or of its connection's pending ones. */
    struct watch_conn *conn;
    struct watch_interval *interval;
    struct watch_scan *scan; /* SNAPSHOT: how far it is; NULL: not begun. */
    uint64_t last;
    uint32_t id;
    uint8_t state;    /* enum watch_state. */
    uint8_t flags;    /* As opened. */
    bool resync_told; /* LOST */
};

/** One revision of the state, shared by snapshots that began together. */
struct watch_view {
    struct bop_list link;
    struct machine_view *view; /* NULL: released. */
    uint64_t revision;
    uint64_t opened_ms;
    unsigned references;
};

struct watch_scan {
    struct watch_view *view;
    struct bop_buf cursor;
    uint8_t kind; /* Of names: those of this kind are next. */
    uint64_t begun_ms;
};

struct watch_conn {
    struct watch_hub *hub;
    uint64_t number;      /* They are told in this order. */
    struct bop_list link; /* Of all. */
    struct bop_list busy; /* In hub->busy while there is something to do, see below. */
    const struct watch_sink *sink;
    void *user;
    struct watch **slots; /* By id. */
    size_t capacity;      /* A power of two, or 0. */
    size_t count;
    struct bop_list pending; /* Watches that are not LIVE. */
    bool behind;
    bool moving;            /* Behind since this very entry: its watches are moved after it. */
    uint64_t sent;          /* behind: told up to here. */
    struct watch_index own; /* behind: its live watches. */
    uint64_t acked;
    uint64_t marked;  /* By the last mark. */
    uint64_t told_ms; /* When it was told something last. */
    size_t progress;  /* Watches that want marks. */
    bool mark_asked;
};

/** One event of the entry under way. */
struct watch_item {
    struct bop_event event;
    struct bop_slice raw;
    size_t bare_at;   /* Without previous, in hub->bare; */
    size_t bare_size; /* 0: not made yet. */
};

/** That an event is for a watch. */
struct watch_hit {
    struct watch *watch;
    uint32_t item;
};

struct watch_hub {
    struct watch_options options;
    struct bop_allocator *allocator;
    struct history history;
    struct watch_index index;
    uint64_t told; /* All live watches were told up to here. */
    uint64_t conns_made;
    uint64_t now_ms;
    uint64_t marks_ms; /* When to look for quiet connections. */
    struct bop_list conns;
    struct bop_list
        busy; /* Connections that are behind, or have pending watches or a mark asked. */
    struct bop_list views;
    size_t view_count;
    size_t watches;
    size_t progress;
    /* Of the entry or page under way. */
    struct watch_item *items;
    size_t item_count;
    size_t item_capacity;
    struct watch_hit *hits;
    size_t hit_count;
    size_t hit_capacity;
    struct bop_buf bare;
    struct bop_buf out;
    struct bop_buf page;
    /* Left of this turn. */
    unsigned entries_left;
    unsigned pages_left;
    struct {
        struct bop_metric *watches, *events, *resyncs, *history;
    } metrics;
};

/* ---- watch.c ---- */

void bop__watch_free(struct watch *watch);
/** Something is to be done for this connection in the next turn. */
void bop__watch_conn_busy(struct watch_conn *conn);
/** Tell a watch, or with watch NULL the connection. */
void bop__watch_tell(struct watch_conn *conn, const struct watch *watch, uint64_t revision,
                     uint8_t flags, struct bop_slice events);
/** Events were lost for it. */
void bop__watch_lose(struct watch *watch);
void bop__watch_tell_resync(struct watch *watch);
/** Make it live, in the index that its connection's live watches are in. */
BOP_MUST_USE int bop__watch_go_live(struct watch *watch);
/** Move the live watches to the connection's own index, or back to the hub's. */
void bop__watch_conn_move(struct watch_conn *conn, struct watch_index *to);

static inline size_t bop__watch_queued(const struct watch_conn *conn)
{
    return conn->sink->queued(conn->user);
}

/* ---- watch_event.c ---- */

/** Take an entry apart. 0, BOP_ENOMEM or BOP_EMALFORMED. */
BOP_MUST_USE int bop__watch_entry(struct watch_hub *hub, struct bop_slice events);
/** Tell it to the live watches in an index. For a connection that is behind (conn is not NULL):
 * false if its queue is full now, and not all were told. */
bool bop__watch_dispatch(struct watch_hub *hub, struct watch_index *index, struct watch_conn *conn,
                         uint64_t revision);
/** Tell it to one watch, if it is for it. */
void bop__watch_dispatch_one(struct watch *watch, uint64_t revision);

/* ---- watch_later.c ---- */

/** See to a connection that has something to be done. Returns when it wants to be seen to again
 * by itself; UINT64_MAX: when something happens. */
uint64_t bop__watch_conn_work(struct watch_conn *conn);

/* ---- watch_snapshot.c ---- */

enum watch_step {
    WATCH_STEP_DONE,  /* The watch is pending no more, or gone. */
    WATCH_STEP_NEXT,  /* It has another state: go on. */
    WATCH_STEP_FULL,  /* The connection's queue is. */
    WATCH_STEP_TURN,  /* Enough for this turn. */
    WATCH_STEP_LATER, /* No memory, or no view to be had just now. */
};
enum watch_step bop__watch_snapshot_step(struct watch *watch);
void bop__watch_scan_free(struct watch *watch);

#endif
