/*
 * Posts: an intrusive lock-free stack for any number of producers, taken whole
 * and reversed by the loop, so that what one thread posts runs in its order.
 *
 * Only a post that finds the stack empty wakes the loop: the ones after it ride
 * on the same wake. With epoll the eventfd is watched edge-triggered and never
 * read: each write is an edge of its own, so a write after the loop took the
 * stack makes the next wait return, and none is lost. With io_uring it is read
 * in the turn that it began; what a write before that stood for, the turn or the
 * next one's look for work finds.
 */
#include <errno.h>
#include <unistd.h>

#include <bop/error.h>

#include "loop_internal.h"

void bop__loop_wake(struct bop_loop *loop)
{
    uint64_t one = 1;
    int saved_errno = errno; /* bop_loop_stop() may run in a signal handler. */
    ssize_t written;

    do {
        written = write(loop->wake_fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    /* It can only fail when the counter is full, after 2^64 - 2 wakes. */
    atomic_fetch_add_explicit(&loop->wake.written, 1, memory_order_relaxed); /* Only counts. */
    errno = saved_errno;
}

void bop_loop_post(struct bop_loop *loop, struct bop_post *post)
{
    struct bop_post *top;

    /* Relaxed: the value only links; the exchange below validates it. */
    top = atomic_load_explicit(&loop->wake.posted, memory_order_relaxed);
    do {
        post->next = top;
        /* Release pairs with the acquire in bop__posts_run(): the loop sees what
         * this thread wrote before posting. A chain of such exchanges is a
         * release sequence, so that holds for every post of the stack. */
    } while (!atomic_compare_exchange_weak_explicit(&loop->wake.posted, &top, post,
                                                    memory_order_release, memory_order_relaxed));
    /* From here on the post may have run and be gone. */
    if (top == NULL) {
        bop__loop_wake(loop);
    }
}

int bop_loop_run_on(struct bop_loop *loop, struct bop_post *post)
{
    /* Relaxed: true before destroy runs what was posted, so what it posts is refused. */
    if (atomic_load_explicit(&loop->wake.closed, memory_order_relaxed)) {
        return BOP_ECLOSED;
    }
    if (bop_loop_is_on_thread(loop)) {
        post->fn(post);
    } else {
        bop_loop_post(loop, post);
    }
    return 0;
}

/* ---- Calls: posts that the loop allocates ---- */

struct call {
    struct bop_post post;
    struct bop_allocator *allocator;
    void (*fn)(void *arg);
    void *arg;
};

static void run_call(struct bop_post *post)
{
    struct call call = *BOP_CONTAINER_OF(post, struct call, post);

    bop_free(call.allocator, BOP_CONTAINER_OF(post, struct call, post), sizeof(struct call));
    call.fn(call.arg);
}

int bop_loop_call(struct bop_loop *loop, void (*fn)(void *arg), void *arg)
{
    struct call *call;

    /* Relaxed: as in bop_loop_run_on(). */
    if (atomic_load_explicit(&loop->wake.closed, memory_order_relaxed)) {
        return BOP_ECLOSED;
    }
    call = (struct call *)bop_alloc(loop->allocator, sizeof(*call));
    if (call == NULL) {
        return BOP_ENOMEM;
    }
    *call = (struct call){.post.fn = run_call, .allocator = loop->allocator, .fn = fn, .arg = arg};
    bop_loop_post(loop, &call->post);
    return 0;
}

/* ---- Wake and stop ---- */

void bop_loop_wakeup(struct bop_loop *loop)
{
    /* Release pairs with the acquire in run_hooks_wakeup(): the hooks see what was
     * written before. Only the first of several wakes. */
    if (!atomic_exchange_explicit(&loop->wake.wakeup, true, memory_order_release)) {
        bop__loop_wake(loop);
    }
}

void bop_loop_stop(struct bop_loop *loop)
{
    /* Release pairs with the acquire in bop_loop_run(): whoever stops the loop
     * can rely on what it wrote before being seen after run has returned. */
    atomic_store_explicit(&loop->wake.stop, true, memory_order_release);
    bop__loop_wake(loop);
}

/* ---- The loop's side ---- */

void bop__posts_drop(struct bop_loop *loop)
{
    /* Acquire pairs with the release in bop_loop_post(). */
    struct bop_post *post = atomic_exchange_explicit(&loop->wake.posted, NULL,
                                                     memory_order_acquire);

    while (post != NULL) {
        struct bop_post *next = post->next;

        post->next = NULL;
        if (post->fn == run_call) {
            bop_free(loop->allocator, BOP_CONTAINER_OF(post, struct call, post),
                     sizeof(struct call));
        }
        post = next;
    }
}

void bop__posts_run(struct bop_loop *loop)
{
    struct bop_post *newest, *oldest = NULL;

    if (!bop__posts_pending(loop)) {
        return;
    }
    /* Acquire pairs with the release in bop_loop_post(). */
    newest = atomic_exchange_explicit(&loop->wake.posted, NULL, memory_order_acquire);
    while (newest != NULL) {
        struct bop_post *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        struct bop_post *post = oldest;

        oldest = post->next; /* fn may free the post or post it again. */
        post->next = NULL;
        post->fn(post);
    }
}
