/*
 * Locks of a blocking client: a call waits on a semaphore for what the loop's thread comes to.
 * A held lock lies on the heap; whether it is still held may be asked by any thread.
 */
#include <semaphore.h>
#include <stdatomic.h>

#include <bop/mem.h>

#include "client_lock.h"

struct bop_client_blocking_lock {
    struct bop_client_blocking *client;
    struct bop_client_lock *lock; /* The loop's thread only, as the next. */
    struct lock_call *call;       /* Who waits for the grant. */
    uint64_t ticket;
    uint64_t token;
    _Atomic bool held;
};

struct lock_call {
    struct bop_post post;
    struct bop_client_blocking_lock *lock;
    const struct bop_client_lock_options *options; /* NULL: adopt by the next two. */
    struct bop_slice name;
    struct bop_slice label;
    int code;
    sem_t done;
};

static void finish(struct lock_call *call, int code)
{
    call->code = code;
    sem_post(&call->done);
}

static int wait_for(struct lock_call *call)
{
    int rc = sem_init(&call->done, 0, 0);

    BOP_ASSERT(rc == 0); /* Fails for bad arguments only. */
    bop__client_blocking_post(call->lock->client, &call->post);
    while (sem_wait(&call->done) != 0) {
        BOP_ASSERT(errno == EINTR);
    }
    sem_destroy(&call->done);
    return call->code;
}

/* ---- On the loop's thread ---- */

static void on_granted(void *user, struct bop_client_lock *granted, int code)
{
    struct bop_client_blocking_lock *lock = (struct bop_client_blocking_lock *)user;

    if (code == 0) {
        lock->ticket = bop_client_lock_ticket(granted);
        lock->token = bop_client_lock_token(granted);
        /* Relaxed: the semaphore orders it for who waits, and to others it is news of no certain
         * age anyway. */
        atomic_store_explicit(&lock->held, true, memory_order_relaxed);
    }
    finish(lock->call, code);
}

static void on_lost(void *user, struct bop_client_lock *lost)
{
    struct bop_client_blocking_lock *lock = (struct bop_client_blocking_lock *)user;

    (void)lost;
    atomic_store_explicit(&lock->held, false, memory_order_relaxed);
}

static void on_released(void *user, int code)
{
    finish((struct lock_call *)user, code);
}

static void run_acquire(struct bop_post *post)
{
    struct lock_call *call = BOP_CONTAINER_OF(post, struct lock_call, post);
    struct bop_client *client = bop__client_blocking_client(call->lock->client);
    int rc = call->options ? bop_client_lock_acquire(client, call->options, on_granted, on_lost,
                                                     call->lock, &call->lock->lock)
                           : bop_client_lock_adopt(client, call->name, call->label, on_granted,
                                                   on_lost, call->lock, &call->lock->lock);

    if (rc < 0) {
        finish(call, rc);
    }
}

static void run_release(struct bop_post *post)
{
    struct lock_call *call = BOP_CONTAINER_OF(post, struct lock_call, post);
    int rc = bop_client_lock_release(call->lock->lock, on_released, call);

    if (rc < 0) {
        /* There is no room just now. The loop turns, so there will be. */
        bop__client_blocking_post(call->lock->client, post);
    }
}

/* ---- On the caller's ---- */

static int tell(struct bop_error *err, const char *what, struct bop_slice name, int code)
{
    return bop_error_set(err, code, "%s \"%.*s\"", what, (int)name.size, (const char *)name.data);
}

static int get(struct bop_client_blocking *client, struct lock_call *call,
               struct bop_client_blocking_lock **out_lock, struct bop_error *err)
{
    struct bop_allocator *allocator = bop__client_blocking_allocator(client);
    struct bop_client_blocking_lock *lock;
    int rc;

    lock = (struct bop_client_blocking_lock *)bop_alloc_zeroed(allocator, sizeof(*lock));
    if (!lock) {
        return bop_error_set(err, BOP_ENOMEM, "ask for a lock");
    }
    lock->client = client;
    lock->call = call;
    call->lock = lock;
    call->post.fn = run_acquire;
    rc = wait_for(call);
    lock->call = NULL;
    if (rc < 0) {
        bop_free(allocator, lock, sizeof(*lock));
        return rc;
    }
    *out_lock = lock;
    return 0;
}

int bop_client_blocking_lock_acquire(struct bop_client_blocking *client,
                                     const struct bop_client_lock_options *options,
                                     struct bop_client_blocking_lock **out_lock,
                                     struct bop_error *err)
{
    struct lock_call call = {.options = options};
    int rc = get(client, &call, out_lock, err);

    return rc < 0 ? tell(err, "acquire", options->name, rc) : 0;
}

int bop_client_blocking_lock_adopt(struct bop_client_blocking *client, struct bop_slice name,
                                   struct bop_slice label,
                                   struct bop_client_blocking_lock **out_lock,
                                   struct bop_error *err)
{
    struct lock_call call = {.name = name, .label = label};
    int rc = get(client, &call, out_lock, err);

    return rc < 0 ? tell(err, "adopt", name, rc) : 0;
}

int bop_client_blocking_lock_release(struct bop_client_blocking_lock *lock, struct bop_error *err)
{
    struct lock_call call = {.post = {.fn = run_release}, .lock = lock};
    int rc;

    if (!lock) {
        return 0;
    }
    rc = wait_for(&call);
    bop_free(bop__client_blocking_allocator(lock->client), lock, sizeof(*lock));
    return rc < 0 ? bop_error_set(err, rc, "release a lock") : 0;
}

uint64_t bop_client_blocking_lock_token(const struct bop_client_blocking_lock *lock)
{
    return lock->token;
}

uint64_t bop_client_blocking_lock_ticket(const struct bop_client_blocking_lock *lock)
{
    return lock->ticket;
}

bool bop_client_blocking_lock_is_held(const struct bop_client_blocking_lock *lock)
{
    return atomic_load_explicit(&lock->held, memory_order_relaxed);
}
