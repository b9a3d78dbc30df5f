/*
 * What a client is in a cluster, kept so across sessions: the groups that it is a member of and the
 * addresses that it is registered at.
 *
 * Members and registrations end with the session of the client, and a client that was cut off for
 * too long gets another session. A presence then joins and registers anew: members one by one,
 * registrations in bulk. What could not be done for now is tried again until it is done or not
 * wanted any more.
 *
 * Threads: that of the client's loop.
 */
#ifndef BOP_PRESENCE_H
#define BOP_PRESENCE_H

#include <bop/client.h>

struct bop_presence;

enum bop_presence_news {
    BOP_PRESENCE_THERE = 1,  /* All that is wanted is done, again or for the first time. */
    BOP_PRESENCE_LOST = 2,   /* The session ended, and all with it. It is being done anew. */
    BOP_PRESENCE_TAKEN = 3,  /* A member's name is another session's. It is tried again. */
    BOP_PRESENCE_FAILED = 4, /* Something will not be done, for a reason that stays: code. It is
                                tried again in the next session only. */
};

struct bop_presence_options {
    struct bop_client *client; /* Borrowed until destroy. Required. */
    uint64_t retry_ms; /* After a name that was taken or a request that timed out. Default 1,000. */
    /* May be NULL. name is the member, or the address; empty for THERE and LOST. Not from inside
     * the calls below. May make any of them but destroy. */
    void (*news)(void *user, enum bop_presence_news news, struct bop_slice name, int code);
    void *user;
};

/** Returns 0 or BOP_ENOMEM. */
BOP_API BOP_MUST_USE int bop_presence_create(const struct bop_presence_options *options,
                                             struct bop_presence **out_presence);
/** Before the client is destroyed. Nothing is taken back: that is done by the end of the session.
 * NULL is fine. */
BOP_API void bop_presence_destroy(struct bop_presence *presence);

/** Be a member with this information, or if so already, with this one from now on. What it points
 * to is copied. Returns 0, BOP_EINVAL, BOP_ETOOBIG or BOP_ENOMEM, as all of these. */
BOP_API BOP_MUST_USE int bop_presence_join(struct bop_presence *presence, struct bop_slice group,
                                           struct bop_slice member, struct bop_slice info);
BOP_API void bop_presence_leave(struct bop_presence *presence, struct bop_slice group,
                                struct bop_slice member);
/** Be registered. A sequence is of one address of a registry. */
BOP_API BOP_MUST_USE int bop_presence_add(struct bop_presence *presence, struct bop_slice registry,
                                          struct bop_slice address, uint64_t sequence);
BOP_API void bop_presence_remove(struct bop_presence *presence, struct bop_slice registry,
                                 struct bop_slice address, uint64_t sequence);

/** Is all that is wanted done? */
BOP_API bool bop_presence_there(const struct bop_presence *presence);

#endif
