/*
 * Handles: what other threads hold of a loop that may be gone.
 *
 * A handle outlives its loop and knows whether it is there. A thread that posts
 * through it counts itself in `state` while it does; closing sets the lowest bit
 * and waits until nobody is counted. So posting takes two atomic additions and
 * never waits, and the loop's end waits for a few instructions of others.
 */
#include <sched.h>

#include <bop/error.h>

#include "loop_internal.h"

#define CLOSED 1u
#define USER   2u

struct bop_loop_handle {
    struct bop_allocator *allocator;
    struct bop_loop *loop; /* Good while counted in an open state. */
    _Atomic uint32_t references;
    _Atomic uint32_t state; /* CLOSED, and USER for each who is using the loop. */
};

uint64_t bop__thread_id(void)
{
    static _Atomic uint64_t last;
    static _Thread_local uint64_t id;

    if (id == 0) {
        id = atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1; /* Only counts. */
    }
    return id;
}

/* ---- The loop's side ---- */

struct bop_loop_handle *bop_loop_handle(struct bop_loop *loop)
{
    struct bop_loop_handle *handle = loop->handle;

    if (loop->destroying) {
        return NULL;
    }
    if (handle == NULL) {
        handle = (struct bop_loop_handle *)bop_alloc(loop->allocator, sizeof(*handle));
        if (handle == NULL) {
            return NULL;
        }
        handle->allocator = loop->allocator;
        handle->loop = loop;
        atomic_init(&handle->references, 1); /* The loop's own. */
        atomic_init(&handle->state, 0);
        loop->handle = handle;
    }
    return bop_loop_handle_ref(handle);
}

void bop__loop_close_handle(struct bop_loop *loop)
{
    struct bop_loop_handle *handle = loop->handle;

    if (handle == NULL) {
        return;
    }
    loop->handle = NULL;
    /* Acquire pairs with the release of leave(): their posts have arrived. */
    atomic_fetch_or_explicit(&handle->state, CLOSED, memory_order_acq_rel);
    while (atomic_load_explicit(&handle->state, memory_order_acquire) != CLOSED) {
        sched_yield();
    }
    bop_loop_handle_unref(handle);
}

/* ---- Any thread ---- */

struct bop_loop_handle *bop_loop_handle_ref(struct bop_loop_handle *handle)
{
    /* Relaxed: the caller's own reference keeps it meanwhile. */
    atomic_fetch_add_explicit(&handle->references, 1, memory_order_relaxed);
    return handle;
}

void bop_loop_handle_unref(struct bop_loop_handle *handle)
{
    /* Release hands over what this thread did with it, acquire takes over what all did. */
    if (handle != NULL &&
        atomic_fetch_sub_explicit(&handle->references, 1, memory_order_acq_rel) == 1) {
        bop_free(handle->allocator, handle, sizeof(*handle));
    }
}

static void leave(struct bop_loop_handle *handle)
{
    /* Release pairs with the acquire of bop__loop_close_handle(). */
    atomic_fetch_sub_explicit(&handle->state, USER, memory_order_release);
}

/* The loop, which stays until leave(); NULL if it is closed. */
static struct bop_loop *use(struct bop_loop_handle *handle)
{
    /* Acquire: nothing of the loop is looked at before. */
    if (atomic_fetch_add_explicit(&handle->state, USER, memory_order_acquire) & CLOSED) {
        leave(handle);
        return NULL;
    }
    return handle->loop;
}

int bop_loop_handle_post(struct bop_loop_handle *handle, struct bop_post *post)
{
    struct bop_loop *loop = use(handle);

    if (loop == NULL) {
        return BOP_ECLOSED;
    }
    bop_loop_post(loop, post);
    leave(handle);
    return 0;
}

int bop_loop_handle_run_on(struct bop_loop_handle *handle, struct bop_post *post)
{
    struct bop_loop *loop = use(handle);
    bool here;

    if (loop == NULL) {
        return BOP_ECLOSED;
    }
    here = bop_loop_is_on_thread(loop);
    if (!here) {
        bop_loop_post(loop, post);
    }
    leave(handle);
    if (here) {
        post->fn(post); /* It may even destroy the loop: nobody is counted any more. */
    }
    return 0;
}

int bop_loop_handle_call(struct bop_loop_handle *handle, void (*fn)(void *arg), void *arg)
{
    struct bop_loop *loop = use(handle);
    int rc;

    if (loop == NULL) {
        return BOP_ECLOSED;
    }
    rc = bop_loop_call(loop, fn, arg);
    leave(handle);
    return rc;
}

bool bop__loop_handle_is_here(struct bop_loop_handle *handle)
{
    struct bop_loop *loop = use(handle);
    bool here;

    if (loop == NULL) {
        return false;
    }
    here = bop_loop_is_on_thread(loop);
    leave(handle);
    return here;
}

bool bop_loop_handle_is_open(const struct bop_loop_handle *handle)
{
    /* Relaxed: it may be closed when the asker looks at the answer. */
    return (atomic_load_explicit(&handle->state, memory_order_relaxed) & CLOSED) == 0;
}
