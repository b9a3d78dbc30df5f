/* The client's locks, as client_session.c and client.c know them: client_lock.c. */
#ifndef BOP_CLUSTER_CLIENT_LOCK_H
#define BOP_CLUSTER_CLIENT_LOCK_H

#include <bop/client_lock.h>

#include "client_internal.h"

#define CLIENT_LOCK_POLL_MIN_MS 10    /* While a request waits: from so often, doubled each */
#define CLIENT_LOCK_POLL_MAX_MS 100   /* time, to so often. */
#define CLIENT_LOCK_WATCH_MS    500   /* After a node denied the watch of the session. */
#define CLIENT_LOCK_STRAY_MS    60000 /* Requests whose answer never came are looked for so long. */
#define CLIENT_LOCK_PAGE        1000
#define CLIENT_LOCK_SYNCS       3   /* In the time for which what is held counts as held, */
#define CLIENT_LOCK_LIFE_MIN_MS 100 /* which is not below this. */

void bop__client_locks_init(struct bop_client *client);
/** The session is over: what was held is lost, and what waits ends. */
void bop__client_locks_lost(struct bop_client *client);
/** The client is being destroyed. */
void bop__client_locks_close(struct bop_client *client);

/** Release it, whatever it takes. Callbacks that are still due may come from inside this call. */
void bop__client_lock_drop(struct bop_client_lock *lock);

/* ---- client_barrier.c ---- */

void bop__client_barriers_close(struct bop_client *client);

/* ---- client_blocking.c ---- */

/** Have a post run on the thread of a blocking client. */
void bop__client_blocking_post(struct bop_client_blocking *client, struct bop_post *post);
struct bop_client *bop__client_blocking_client(struct bop_client_blocking *client);
struct bop_allocator *bop__client_blocking_allocator(struct bop_client_blocking *client);

#endif
