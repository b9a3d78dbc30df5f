/*
 * Elections and barriers: recipes on top of the client's locks and counters.
 *
 * Threads: the thread of the client's loop only.
 */
#ifndef BOP_CLIENT_ELECTION_H
#define BOP_CLIENT_ELECTION_H

#include <bop/client_lock.h>

/* ---- Elections: whoever has stood the longest leads ---- */

/** A candidate that stands, or leads. */
struct bop_client_election;

struct bop_client_election_options {
    struct bop_slice name;      /* Of the election: a lock has this name. Required; copied. */
    struct bop_slice candidate; /* Who we are, to observers; at most BOP_LABEL_MAX bytes; copied. */
    /* It leads from now on. The token rises from leader to leader: give it to all that is written
     * to, to refuse what an earlier leader still has on its way. */
    void (*won)(void *user, struct bop_client_election *election, uint64_t token);
    /* It does not lead any more, though it did not resign, and stands again by itself. */
    void (*lost)(void *user, struct bop_client_election *election);
    /* It cannot stand: a code of bop_client_lock_acquire(), such as BOP_EDENIED. Resign. */
    void (*failed)(void *user, struct bop_client_election *election, int code);
    void *user;
};

/** Stand. Callbacks may be NULL; they come from the loop. Returns as bop_client_lock_acquire(). */
BOP_API BOP_MUST_USE int
bop_client_election_campaign(struct bop_client *client,
                             const struct bop_client_election_options *options,
                             struct bop_client_election **out_election);

/**
 * Lead or stand no more. The election is gone and none of its callbacks comes any more; the next
 * one leads once the cluster has heard of it. To be called before the client is destroyed. NULL is
 * fine.
 */
BOP_API void bop_client_election_resign(struct bop_client_election *election);

BOP_API bool bop_client_election_leads(const struct bop_client_election *election);

/** Told who leads, and again when that is another one. */
struct bop_client_observer;

/** candidate is borrowed for the call, and empty, with token 0, while nobody leads. */
typedef void (*bop_client_observe_fn)(void *user, struct bop_slice candidate, uint64_t token);

/** Returns 0, BOP_EINVAL, BOP_ETOOBIG or BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_client_election_observe(struct bop_client *client,
                                                     struct bop_slice name,
                                                     bop_client_observe_fn fn, void *user,
                                                     struct bop_client_observer **out_observer);
/** To be called before the client is destroyed. NULL is fine. */
BOP_API void bop_client_election_unobserve(struct bop_client_observer *observer);

/* ---- Barriers: nobody goes on before all have come ---- */

/**
 * Come to a barrier of so many parties; fn is called with 0 when as many have come as make it full,
 * and the barrier is ready for the next round. With BOP_ETIMEOUT after timeout_ms (0: never) it is
 * as if this one had not come; with another code that is not known.
 *
 * A party that dies after it came counts as come: the barrier is a counter of the same name.
 *
 * Returns 0, BOP_EINVAL for no parties, or as bop_client_execute().
 */
BOP_API BOP_MUST_USE int bop_client_barrier_wait(struct bop_client *client, struct bop_slice name,
                                                 uint32_t parties, uint64_t timeout_ms,
                                                 void (*fn)(void *user, int code), void *user);

#endif
