/*
 * Places where order, size or time may be another than usual and nothing must go wrong:
 * a batch of one entry, a cache that forgets, a queue that is full. Who tests whole
 * clusters sets a hook that says yes now and then; in builds without BOP_DEBUG there is
 * none, and the answer is no.
 *
 * Nothing that changes what an entry does may hang on an answer: replicas would differ.
 */
#ifndef BOP_CLUSTER_BUGGIFY_H
#define BOP_CLUSTER_BUGGIFY_H

#include <stdbool.h>
#include <stddef.h>

enum buggify_point {
    BUGGIFY_APPLY_FEW,          /* No more entries at once than this one. */
    BUGGIFY_SETTLE_NOW,         /* The batch of the state is committed. */
    BUGGIFY_COLLECTIONS_FORGET, /* The cache of collections is full. */
    BUGGIFY_CHUNKS_FORGET,      /* That of replies is. */
    BUGGIFY_PROPOSALS_FULL,     /* The leader takes no more writes for now. */
    BUGGIFY_FORWARD_DROP,       /* The queue to the leader is full. */
    BUGGIFY_READS_WAIT,         /* So many reads are asked for that more have to wait. */
    BUGGIFY_ALIVE_NOW,          /* What is said of sessions is said at once. */
    BUGGIFY_LOG_READ_ONE,       /* The log is read back entry by entry. */
    BUGGIFY_SNAPSHOT_NOW,       /* It is time for one. */
    BUGGIFY_CHUNK_SMALL,        /* Of a snapshot on its way, a few bytes. */
    BUGGIFY_WINDOW_SMALL,       /* One chunk at a time. */
    BUGGIFY_WATCH_PIECES,       /* Events of an entry go in pieces. */
    BUGGIFY_WATCH_BEHIND,       /* A connection takes its events too slowly. */
    BUGGIFY_WATCH_SHARE,        /* Little of the history in one turn. */
    BUGGIFY_SLICE_SMALL,        /* Of a snapshot, a record or two are written from one view. */
    BUGGIFY_PAST_FULL,          /* No more can be kept of what was when it began. */
    BUGGIFY_COUNT,
};

#ifdef BOP_DEBUG
/** NULL: never. To be set before there are other threads. */
extern bool (*bop__buggify_hook)(enum buggify_point point);

static inline bool buggify(enum buggify_point point)
{
    return bop__buggify_hook && bop__buggify_hook(point);
}
#else
static inline bool buggify(enum buggify_point point)
{
    return false;
}
#endif

#endif
