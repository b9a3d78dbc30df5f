/*
 * Locks, semaphores and read/write locks of a cluster, and what is made of them: elections
 * and barriers.
 *
 *     static void granted(void *user, struct bop_client_lock *lock, int code)
 *     {
 *         if (code == 0) {
 *             ... bop_client_lock_token(lock) ...
 *             rc = bop_client_lock_release(lock, NULL, NULL);
 *         }
 *     }
 *
 *     struct bop_client_lock_options options = {.name = bop_slice_cstr("jobs")};
 *
 *     rc = bop_client_lock_acquire(client, &options, granted, lost, user, &lock);
 *
 * A lock is held by the request that asked for it, not by the client: a client that asks
 * twice waits for itself. Requests are served in the order in which they came.
 *
 * A lock is lost with the client's session: when the client was cut off for longer than
 * that lasts. The client hears of it, by its own clock if need be and before the cluster gives
 * the lock to another one; but a program that stands still hears nothing. What must
 * not be done by two holders at once is to be guarded by the token, which rises from grant to
 * grant: whoever is written to remembers the highest token and refuses lower ones.
 *
 * Threads: those of bop_client; the blocking forms any.
 */
#ifndef BOP_CLIENT_LOCK_H
#define BOP_CLIENT_LOCK_H

#include <bop/client.h>

/** A request for a lock: from asking for it to the end of its release. */
struct bop_client_lock;

#define BOP_CLIENT_LOCK_SHARED_CAPACITY                                                            \
    ((uint32_t)INT32_MAX) /* Of locks for readers and writers. */

/** What to ask for. A zeroed field means its default. */
struct bop_client_lock_options {
    struct bop_slice name;  /* Required; copied. */
    struct bop_slice label; /* For those who look at the lock, and to adopt it; copied. */
    uint32_t capacity;      /* Of the lock, if this request makes it. Default 1: a mutex. */
    uint32_t permits;       /* Of these, for this request. Default 1. */
    uint64_t timeout_ms;    /* How long to wait for it. Default: for ever. If nobody answers,
                             * request_timeout_ms of the client comes to it. */
    bool try_only;          /* Do not wait at all. */
};

/** For readers, who share the lock, and for writers, who do not. */
static inline void bop_client_lock_for_reading(struct bop_client_lock_options *options)
{
    options->capacity = BOP_CLIENT_LOCK_SHARED_CAPACITY;
    options->permits = 1;
}
static inline void bop_client_lock_for_writing(struct bop_client_lock_options *options)
{
    options->capacity = options->permits = BOP_CLIENT_LOCK_SHARED_CAPACITY;
}

/**
 * Called exactly once per accepted request, from the loop. With code 0 the lock is held, and
 * `lock` is the caller's until its release. With any other code `lock` is gone when the
 * callback returns: BOP_ETIMEOUT, it was not free in time; BOP_ECANCELED, released before it
 * was granted, or the client is being destroyed; BOP_ESESSION; BOP_ECONDITION, the lock
 * has another capacity; or another code of bop_client_execute().
 */
typedef void (*bop_client_lock_fn)(void *user, struct bop_client_lock *lock, int code);
/** The lock is not held any more, though it was not released. Release it all the same. */
typedef void (*bop_client_lost_fn)(void *user, struct bop_client_lock *lock);

/**
 * Ask for a lock. lost may be NULL. *out_lock may be used to release it before it is granted.
 *
 * Returns 0, BOP_EINVAL for permits that no such lock has, or as bop_client_execute().
 */
BOP_API BOP_MUST_USE int bop_client_lock_acquire(struct bop_client *client,
                                                 const struct bop_client_lock_options *options,
                                                 bop_client_lock_fn fn, bop_client_lost_fn lost,
                                                 void *user, struct bop_client_lock **out_lock);

/**
 * Take over a grant by its label, from whatever session holds it: a program that was started
 * again goes on with what it held. fn's code is BOP_ENOTFOUND if there is none. Else as above.
 */
BOP_API BOP_MUST_USE int bop_client_lock_adopt(struct bop_client *client, struct bop_slice name,
                                               struct bop_slice label, bop_client_lock_fn fn,
                                               bop_client_lost_fn lost, void *user,
                                               struct bop_client_lock **out_lock);

/** Called once the cluster has it; code is 0 also if the lock was lost before. */
typedef void (*bop_client_released_fn)(void *user, int code);

/**
 * Give a lock back, or stop asking for it. fn, which may be NULL, is called when that is
 * done. The lock must not be used any more after 0.
 *
 * Returns 0; or BOP_EFULL or BOP_ENOMEM: then try again later.
 */
BOP_API BOP_MUST_USE int bop_client_lock_release(struct bop_client_lock *lock,
                                                 bop_client_released_fn fn, void *user);

/** Held, so far as the client knows. */
BOP_API bool bop_client_lock_is_held(const struct bop_client_lock *lock);
/** The fencing token of a lock that is or was held; 0: it is not granted yet. */
BOP_API uint64_t bop_client_lock_token(const struct bop_client_lock *lock);
/** By which others see the request; 0: not known yet. */
BOP_API uint64_t bop_client_lock_ticket(const struct bop_client_lock *lock);

/* ---- Blocking ---- */

/** A lock held through a blocking client. */
struct bop_client_blocking_lock;

/**
 * Ask for a lock and wait for it. Returns 0, with *out_lock the caller's until its release, or a
 * code as of the callback.
 */
BOP_API BOP_MUST_USE int
bop_client_blocking_lock_acquire(struct bop_client_blocking *client,
                                 const struct bop_client_lock_options *options,
                                 struct bop_client_blocking_lock **out_lock, struct bop_error *err);
BOP_API BOP_MUST_USE int bop_client_blocking_lock_adopt(struct bop_client_blocking *client,
                                                        struct bop_slice name,
                                                        struct bop_slice label,
                                                        struct bop_client_blocking_lock **out_lock,
                                                        struct bop_error *err);
/** Give it back and wait for that. The lock is gone, whatever is returned. NULL is fine. */
BOP_API int bop_client_blocking_lock_release(struct bop_client_blocking_lock *lock,
                                             struct bop_error *err);
BOP_API uint64_t bop_client_blocking_lock_token(const struct bop_client_blocking_lock *lock);
BOP_API uint64_t bop_client_blocking_lock_ticket(const struct bop_client_blocking_lock *lock);
/** Held, so far as the client knows. Any thread, at any time. */
BOP_API bool bop_client_blocking_lock_is_held(const struct bop_client_blocking_lock *lock);

#endif
