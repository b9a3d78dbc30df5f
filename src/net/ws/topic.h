/*
 * Topics as their own files see them.
 *
 *      struct bop_topics ---> branch of loop A ---> topic "news" ---> its subscribers on A
 *                        \                     \--> topic "chat"
 *                         \-> branch of loop B ...
 *
 * Each loop that has a route or clients with these topics has a branch, and only
 * its thread touches what is in it, but for `tree_lock`, `load` and `counts`.
 * Branches are added at the front of a list that never shrinks, so that any
 * thread may walk it; one whose loop is gone refuses what is posted.
 *
 * A message published is framed once, as a server sends it. For the publisher's
 * own loop it goes straight into the topic's batch; for each other loop whose
 * `load` says that the topic may have subscribers there, it is posted. At the
 * end of a turn batches are delivered in order (topic_deliver.c).
 */
#ifndef BOP_NET_WS_TOPIC_H
#define BOP_NET_WS_TOPIC_H

#include <pthread.h>
#include <stdatomic.h>

#include <bop/list.h>
#include <bop/ws.h>

struct bop__ws;
struct bop__topic;

/** A connection's subscription; `at` is its place in the topic's list. */
struct bop__subscription {
    struct bop__topic *topic;
    size_t at;
};

/** Those of one connection. */
struct bop__subscriptions {
    struct bop__subscription *list;
    size_t count;
    size_t capacity;
};

/** A subscriber; `at` is the subscription's place in the connection's list. ws NULL: it went while
 * the list was walked. */
struct bop__subscriber {
    struct bop__ws *ws;
    size_t at;
};

/** A topic on one loop. Exists while it has subscribers, or is being delivered. */
struct bop__topic {
    struct bop__topic *next; /* In the branch's table. */
    uint64_t hash;
    struct bop__subscriber *list;
    size_t count; /* Of the list, with those that went while it is walked. */
    size_t gone;  /* Those. */
    size_t capacity;
    unsigned walks;
    unsigned batches; /* That wait to be delivered. */
    size_t name_size;
    char name[]; /* NUL-terminated. */
};

/** Messages of a turn to one topic, back to back as frames of a server. */
struct bop__batch {
    struct bop_list link; /* branch.batches */
    struct bop__topic *topic;
    struct bop_shared *frames;
    size_t capacity; /* Of frames that are ours to append to; 0: they are lent. */
    size_t messages;
    size_t largest;                   /* Payload. */
    struct bop_ws_prepared *prepared; /* Which is all there is in it, or NULL. */
    struct bop__except *excepts;      /* Messages that one connection does not get. */
    size_t except_count;
    size_t except_capacity;
};

/** One of them. */
struct bop__except {
    size_t at;               /* Of the frame. */
    const struct bop_ws *ws; /* A handle: the connection may be gone. */
};

/* Classes of topics by hash, of which a branch counts its subscriptions. */
#define BOP__LOAD_CLASSES 1024u

struct bop__branch_counts {
    _Atomic uint64_t topics;
    _Atomic uint64_t subscriptions;
    _Atomic uint64_t delivered;
    _Atomic uint64_t dropped;
    _Atomic uint64_t closed;
};

struct bop__branch {
    struct bop__branch *next; /* topics.branches; set once. */
    struct bop_topics *topics;
    struct bop_loop *loop;          /* Good for its own thread, while joined. */
    struct bop_loop_handle *handle; /* For others. */
    size_t joined;                  /* Groups. */
    struct bop_hook hook;
    struct bop_post wake; /* Has a turn come for what was published outside of one. */
    bool waking;
    uint64_t delivered_in; /* The turn whose hook has run. */
    struct bop__topic **table;
    size_t table_size; /* A power of two, or 0. */
    size_t table_count;
    struct bop_list batches;
    struct bop__batch *spare;
    struct bop__burst *burst;  /* Of its loop's sends, once a topic had many subscribers there. */
    bool burst_tried;          /* NULL after that: it is not to be had. */
    pthread_mutex_t tree_lock; /* Of the table and the lists' counts, against other threads. */
    struct bop__branch_counts counts;
    _Atomic uint32_t load[BOP__LOAD_CLASSES];
};

struct bop_topics {
    struct bop_allocator *allocator;
    uint64_t seed[2];
    _Atomic size_t references; /* The user's, of branches in use, of messages. */
    _Atomic(struct bop__branch *) branches;
    _Atomic uint64_t published;
    pthread_mutex_t join_lock;
    pthread_mutex_t export_lock;
    struct bop__export *exported; /* NULL: in no registry. Under export_lock. */
};

struct bop_ws_prepared {
    struct bop_shared plain; /* The frame; whose references are those of all this. */
    struct bop_allocator *allocator;
    size_t bytes;                /* Of the block. */
    size_t header_size;          /* Of plain's. */
    struct bop_shared *deflated; /* NULL: not compressed, or not worth it. */
    uint8_t opcode;
    uint8_t data[];
};

/* ---- topic.c ---- */

uint64_t bop__topic_hash(const struct bop_topics *topics, const char *name, size_t size);
struct bop__topic *bop__topic_find(const struct bop__branch *branch, uint64_t hash,
                                   const char *name, size_t size);
/** Free it if nothing needs it any more. */
void bop__topic_look_unused(struct bop__branch *branch, struct bop__topic *topic);
/** A walk of the list ended: close the gaps. */
void bop__topic_end_walk(struct bop__branch *branch, struct bop__topic *topic);

/** The branch of a loop, made if there is none. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__branch_join(struct bop_topics *topics, struct bop_loop *loop,
                                  struct bop__branch **out_branch);
void bop__branch_leave(struct bop__branch *branch);

/** The connection ends: no subscription stays. */
void bop__subscriptions_end(struct bop__ws *ws);

void bop__topics_unref(struct bop_topics *topics);

/** Add to a counter that only this thread changes. */
static inline void bop__count(_Atomic uint64_t *counter, int64_t change)
{
    /* Relaxed: readers want a number, not an order; and nobody else writes. */
    atomic_store_explicit(counter,
                          atomic_load_explicit(counter, memory_order_relaxed) + (uint64_t)change,
                          memory_order_relaxed);
}

/* ---- topic_batch.c ---- */

/** Add a message, framed as header and payload, to the topic's batch of this turn. prepared: whose
 * message it is, or NULL; lent: a buffer that holds just that frame and may be kept, or NULL.
 * Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__batch_add(struct bop__branch *branch, struct bop__topic *topic,
                                struct bop_slice header, struct bop_slice payload,
                                struct bop_shared *lent, struct bop_ws_prepared *prepared,
                                const struct bop_ws *except);
void bop__topic_batch_free(struct bop__branch *branch, struct bop__batch *batch);

/* ---- topic_prepared.c ---- */

/** What this connection, a server's, is sent of it. */
struct bop_shared *bop__prepared_frame(struct bop_ws_prepared *prepared, const struct bop__ws *ws);

/* ---- topic_publish.c ---- */

/** Add a message for all subscribers but one, or NULL. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__publish(struct bop_topics *topics, const char *name, unsigned opcode,
                              struct bop_slice message, struct bop_ws_prepared *prepared,
                              const struct bop_ws *except);

/* ---- metrics.c ---- */

/** The registry is no longer used. */
void bop__topics_unexport(struct bop_topics *topics);

/* ---- topic_deliver.c ---- */

/** The hook at a turn's end. */
void bop__branch_deliver(struct bop_hook *hook);

#endif
