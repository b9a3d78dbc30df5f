/*
 * The loop's beginning and end, and what there is to know about it.
 */
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <bop/error.h>
#include <bop/mem.h>

#include "loop_internal.h"

uint64_t bop_loop_now_ms(const struct bop_loop *loop)
{
    return loop->now_ms;
}

uint64_t bop_loop_iteration(const struct bop_loop *loop)
{
    return loop->iteration;
}

struct bop_allocator *bop_loop_allocator(const struct bop_loop *loop)
{
    return loop->allocator;
}

const char *bop_loop_backend_name(const struct bop_loop *loop)
{
    return loop->backend->name;
}

bool bop_loop_is_on_thread(const struct bop_loop *loop)
{
    /* Relaxed, here and below: see enter() in turn.c. */
    return atomic_load_explicit(&loop->wake.thread, memory_order_relaxed) == bop__thread_id();
}

bool bop_loop_is_running(const struct bop_loop *loop)
{
    return atomic_load_explicit(&loop->wake.running, memory_order_relaxed);
}

static void free_loop(struct bop_loop *loop)
{
    struct bop_allocator *allocator = loop->allocator;

    bop__timers_deinit(&loop->timers);
    bop__sockets_free(loop);
    bop__udps_free(loop);
    if (loop->backend != NULL) {
        bop__outside_close(loop);
        loop->backend->ops->destroy(loop->backend);
    }
    if (loop->wake_fd >= 0) {
        BOP_IGNORE(close(loop->wake_fd)); /* Nothing is buffered in it. */
    }
    if (loop->receive != NULL) {
        bop_free(allocator, loop->receive, BOP__RECEIVE_BYTES);
    }
    bop_free(allocator, loop, sizeof(*loop));
}

static void init_loop(struct bop_loop *loop, const struct bop_loop_options *options)
{
    loop->clock = options && options->clock ? options->clock : bop_clock_system();
    loop->busy_poll_us = options ? options->busy_poll_us : 0;
    loop->wake_fd = -1;
    loop->outside.fd = -1;
    bop__loop_read_clock(loop);
    bop__timers_init(&loop->timers, loop->now_ms);
    bop__drain_init(loop);
    for (unsigned kind = 0; kind < BOP__HOOK_KINDS; kind++) {
        bop_list_init(&loop->hooks[kind]);
    }
    bop_list_init(&loop->listeners);
    bop_list_init(&loop->redeliver);
    bop_list_init(&loop->flush);
    bop_list_init(&loop->closing);
    bop_list_init(&loop->retired);
    bop_list_init(&loop->guests);
    bop_list_init(&loop->leaving);
    atomic_init(&loop->wake.posted, NULL);
    atomic_init(&loop->wake.stop, false);
    atomic_init(&loop->wake.wakeup, false);
    atomic_init(&loop->wake.closed, false);
    atomic_init(&loop->wake.thread, 0);
    atomic_init(&loop->wake.running, false);
    atomic_init(&loop->wake.written, 0);
}

int bop_loop_create(const struct bop_loop_options *options, struct bop_loop **out_loop)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options ? options->allocator : NULL,
                                                           "net");
    struct bop_loop *loop = (struct bop_loop *)bop_alloc_zeroed(allocator, sizeof(*loop));
    int rc = BOP_ENOMEM;

    if (loop == NULL) {
        return BOP_ENOMEM;
    }
    loop->allocator = allocator;
    init_loop(loop, options);
    loop->receive = (uint8_t *)bop_alloc(allocator, BOP__RECEIVE_BYTES);
    if (loop->receive == NULL) {
        goto fail;
    }
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0) {
        rc = -errno;
        goto fail;
    }
    rc = bop__backend_create(loop, options ? options->backend : BOP_LOOP_BACKEND_DEFAULT,
                             &loop->backend);
    if (rc != 0) {
        goto fail;
    }
    *out_loop = loop;
    return 0;

fail:
    free_loop(loop);
    return rc;
}

void bop_loop_destroy(struct bop_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    BOP_ASSERT(!loop->in_turn);
    loop->destroying = true; /* From here on nothing new is opened. */
    bop__loop_close_handle(loop);
    /* Relaxed: who posts from another thread at this time must use a handle, and has. */
    atomic_store_explicit(&loop->wake.closed, true, memory_order_relaxed);
    loop->in_turn = true;
    bop__posts_run(loop);
    bop__socket_close_all(loop);
    bop__guests_close_all(loop);
    while (!bop_list_empty(&loop->closing) || !bop_list_empty(&loop->retired) ||
           !bop_list_empty(&loop->leaving)) {
        bop__socket_finish_closes(loop);
        bop__guests_finish(loop);
    }
    /* What was posted by those; what these post in their turn has no loop left to
     * run on and is dropped, or one that posts itself again would never end. */
    bop__posts_run(loop);
    bop__posts_drop(loop);
    free_loop(loop);
}
