/*
 * The handles of builds with debug_checks. All of them are on a list, closed ones
 * on a second one as well, oldest first.
 */
#include "token.h"

#ifdef BOP_DEBUG

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <bop/list.h>

enum handle_state {
    HANDLE_OPEN,
    HANDLE_CLOSED,
    HANDLE_DEAD, /* Its queue is destroyed. */
};

struct handle {
    struct bop_list link; /* Of `open`, `closed` or `dead`. Under the lock. */
    struct bop_mpmc *queue;
    void *token;
    atomic_int state; /* enum handle_state */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct bop_list open_handles = {&open_handles, &open_handles};
static struct bop_list closed_handles = {&closed_handles, &closed_handles};
static struct bop_list dead_handles = {&dead_handles, &dead_handles}; /* Kept for ever. */
static unsigned closed_count;

static BOP_NORETURN void misused(const char *how)
{
    fprintf(stderr, "bop_mpmc: misuse: %s\n", how);
    abort();
}

void *bop__token_wrap(struct bop_mpmc *queue, void *token)
{
    struct handle *handle = malloc(sizeof(*handle));

    if (!handle) {
        return NULL;
    }
    handle->queue = queue;
    handle->token = token;
    atomic_init(&handle->state, HANDLE_OPEN);
    pthread_mutex_lock(&lock);
    bop_list_push_back(&open_handles, &handle->link);
    pthread_mutex_unlock(&lock);
    return handle;
}

void *bop__token_unwrap(const struct bop_mpmc *queue, const void *pointer)
{
    const struct handle *handle = pointer;

    if (!handle) {
        return NULL;
    }
    /* Relaxed: correct programs only ever see HANDLE_OPEN here, and others must not gain an order
     * between threads from the check. */
    switch (atomic_load_explicit(&handle->state, memory_order_relaxed)) {
    case HANDLE_CLOSED:
        misused("a token was used after it was closed");
    case HANDLE_DEAD:
        misused("a token was used after its queue was destroyed");
    }
    if (queue && handle->queue != queue) {
        misused("a token was used with another queue");
    }
    return handle->token;
}

void bop__token_retire(void *pointer)
{
    struct handle *handle = pointer;
    struct handle *oldest = NULL;

    pthread_mutex_lock(&lock);
    /* Relaxed: as in bop__token_unwrap(). */
    atomic_store_explicit(&handle->state, HANDLE_CLOSED, memory_order_relaxed);
    bop_list_remove(&handle->link);
    bop_list_push_back(&closed_handles, &handle->link);
    if (++closed_count > BOP__TOKENS_CLOSED_MAX) {
        closed_count--;
        oldest = BOP_CONTAINER_OF(bop_list_pop_front(&closed_handles), struct handle, link);
    }
    pthread_mutex_unlock(&lock);
    free(oldest);
}

void bop__tokens_kill(const struct bop_mpmc *queue)
{
    pthread_mutex_lock(&lock);
    BOP_LIST_FOR_EACH_SAFE(link, &open_handles) {
        struct handle *handle = BOP_CONTAINER_OF(link, struct handle, link);

        if (handle->queue == queue) {
            /* Relaxed: as in bop__token_unwrap(). */
            atomic_store_explicit(&handle->state, HANDLE_DEAD, memory_order_relaxed);
            bop_list_remove(link);
            bop_list_push_back(&dead_handles, link);
        }
    }
    pthread_mutex_unlock(&lock);
}

#endif
