/*
 * Which watches an event is for: intervals of keys by the object they are of.
 *
 * An exact key k is the interval [k, k 00), a prefix [p, p's successor), the whole of an
 * object ["", end). The intervals of one object are a treap by their lower bounds, each
 * with the highest upper bound below it, so that finding those around a key costs about
 * as many steps as there are, and the logarithm of how many there are.
 *
 * Equal intervals are one, with all their watches in a list.
 */
#ifndef BOP_CLUSTER_WATCH_INDEX_H
#define BOP_CLUSTER_WATCH_INDEX_H

#include <bop/alloc.h>
#include <bop/list.h>
#include <bop/random.h>
#include <bop/slice.h>

/** The object: a kind and a name. Goes with its last interval. */
struct watch_name {
    struct watch_name *next; /* Of the same bucket. */
    struct watch_index *index;
    struct watch_interval *root;
    uint64_t hash;
    uint8_t what;
    uint8_t size;
    uint8_t bytes[];
};

struct watch_interval {
    struct watch_name *name;
    struct watch_interval *left;
    struct watch_interval *right;
    const struct watch_interval *highest; /* That with the highest `to` at or below this node. */
    struct bop_list watches;              /* Those that are live; the owner's. */
    uint32_t references;
    uint32_t priority;
    uint32_t from_size;
    uint32_t to_size; /* 0: to the end. */
    bool exact;       /* Of one key. */
    uint8_t bytes[];  /* from, then to; of an exact key only to, which begins with it. */
};

struct watch_index {
    struct bop_allocator *allocator;
    struct watch_name **buckets;
    size_t capacity; /* A power of two, or 0. */
    size_t count;    /* Names. */
    size_t bytes;    /* Of names and intervals. */
    uint64_t seed;
    struct bop_random random;
};

/** Which intervals of an object are meant. */
enum watch_scope {
    WATCH_KEY,   /* Those around a key. */
    WATCH_ALL,   /* All. */
    WATCH_WHOLE, /* Those without bounds. */
};

void bop__watch_index_init(struct watch_index *index, struct bop_allocator *allocator,
                           uint64_t seed);
/** No interval may be left. */
void bop__watch_index_deinit(struct watch_index *index);

/** Find or make an interval, with a reference for the caller. to empty: to the end; else above
 * from. 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__watch_index_get(struct watch_index *index, uint8_t what,
                                      struct bop_slice name, struct bop_slice from,
                                      struct bop_slice to, struct watch_interval **out_interval);
void bop__watch_index_put(struct watch_interval *interval);

struct bop_slice bop__watch_interval_from(const struct watch_interval *interval);
/** Empty: to the end. */
struct bop_slice bop__watch_interval_to(const struct watch_interval *interval);
bool bop__watch_interval_matches(const struct watch_interval *interval, enum watch_scope scope,
                                 struct bop_slice key);

/** Call hit for each interval of the object that is meant. hit may not change the index. */
void bop__watch_index_match(const struct watch_index *index, uint8_t what, struct bop_slice name,
                            enum watch_scope scope, struct bop_slice key,
                            void (*hit)(void *user, struct watch_interval *interval), void *user);

/** Asserts the rules of the treap. */
void bop__watch_index_check(const struct watch_index *index);

#endif
