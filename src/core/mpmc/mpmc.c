/*
 * The front of the queues: arguments, creation, closing, and arming. The pushes
 * and pops proper are in push.c and pop.c.
 *
 * A queue's state moves OPEN -> CLOSING -> CLOSED. Whoever makes the first move
 * has the kind shut the producers out and makes the second; others who close
 * meanwhile wait for it. A push that was accepted was so before CLOSED, and who
 * reads CLOSED sees all of them.
 */
#include "front.h"

#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <bop/mem.h>

#include "token.h"

#define TAG "core.mpmc"

#define BOUNDED_CAPACITY_MIN 2
#define BOUNDED_CAPACITY_MAX (UINT64_C(1) << 31)

static const struct bop__mpmc_ops *ops_of(enum bop_mpmc_kind kind)
{
    switch (kind) {
    case BOP_MPMC_LANES:
        return &bop__mpmc_lanes_ops;
    case BOP_MPMC_FIFO:
        return &bop__mpmc_fifo_ops;
    case BOP_MPMC_BOUNDED:
        return &bop__mpmc_bounded_ops;
    }
    return NULL;
}

static int check_options(const struct bop_mpmc_options *options, struct bop_error *err)
{
    size_t capacity = options->capacity;

    if (!ops_of(options->kind)) {
        return bop_error_say(err, BOP_EINVAL, "kind must be lanes, fifo or bounded, not %d",
                             (int)options->kind);
    }
    if (options->kind != BOP_MPMC_BOUNDED) {
        return capacity == 0
                   ? 0
                   : bop_error_say(err, BOP_EINVAL,
                                   "capacity must be 0 for a queue that grows, not %zu", capacity);
    }
    if (capacity < BOUNDED_CAPACITY_MIN || capacity > BOUNDED_CAPACITY_MAX ||
        (capacity & (capacity - 1)) != 0) {
        return bop_error_say(err, BOP_EINVAL,
                             "capacity must be a power of two from 2 to 2^31, not %zu", capacity);
    }
    if (options->memory_bytes_max != 0) {
        return bop_error_say(err, BOP_EINVAL,
                             "memory_bytes_max must be 0 for a bounded queue, not %zu",
                             options->memory_bytes_max);
    }
    return 0;
}

/* The common part, once the kind has made its own. */
static void init_common(struct bop_mpmc *queue, const struct bop_mpmc_options *options,
                        struct bop_allocator *allocator)
{
    bool bounded = options->kind == BOP_MPMC_BOUNDED;

    queue->ops = ops_of(options->kind);
    queue->kind = options->kind;
    if (queue->bulk_max == 0) {
        queue->bulk_max = bounded ? options->capacity : SIZE_MAX;
    }
    queue->allocator = allocator;
    queue->big_allocator = options->allocator ? options->allocator : bop_tag_pages(TAG);
    queue->memory_bytes_max = options->memory_bytes_max ? options->memory_bytes_max : SIZE_MAX;
    queue->may_refuse = bounded || options->memory_bytes_max != 0;
    queue->discard = options->discard;
    queue->notify = options->notify;
    queue->user = options->user;
    atomic_init(&queue->event_fd, -1);
    atomic_init(&queue->state, BOP__MPMC_OPEN);
    bop__eventcount_init(&queue->not_empty);
    bop__eventcount_init(&queue->not_full);
}

int bop_mpmc_create(const struct bop_mpmc_options *options, struct bop_mpmc **out_queue,
                    struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, TAG);
    struct bop_mpmc *queue;
    int rc = check_options(options, err);

    if (rc < 0) {
        return rc;
    }
    bop__asymmetric_fence_init();
    rc = ops_of(options->kind)->create(options, allocator, &queue);
    if (rc < 0) {
        return bop_error_set(err, rc, "create a queue");
    }
    init_common(queue, options, allocator);
    *out_queue = queue;
    return 0;
}

static void discard_all(struct bop_mpmc *queue)
{
    uint64_t items[64];
    ssize_t count;

    /* Nobody else is there, so the last look takes everything, wherever it lies. */
    while ((count = bop__mpmc_last_look(queue, NULL, items, BOP_COUNT_OF(items))) > 0) {
        for (ssize_t i = 0; queue->discard && i < count; i++) {
            queue->discard(queue->user, items[i]);
        }
    }
}

void bop_mpmc_destroy(struct bop_mpmc *queue)
{
    int event_fd;

    if (!queue) {
        return;
    }
    bop__tokens_kill(queue);
    discard_all(queue);
    /* Relaxed: destroy has the queue to itself. */
    event_fd = atomic_load_explicit(&queue->event_fd, memory_order_relaxed);
    if (event_fd >= 0) {
        close(event_fd);
    }
    queue->ops->destroy(queue);
}

void bop_mpmc_close(struct bop_mpmc *queue)
{
    unsigned state = BOP__MPMC_OPEN;

    /* acq_rel: of those who close only the order of the moves matters. Failure, acquire: as the
     * load below. */
    if (!atomic_compare_exchange_strong_explicit(&queue->state, &state, BOP__MPMC_CLOSING,
                                                 memory_order_acq_rel, memory_order_acquire)) {
        while (state != BOP__MPMC_CLOSED) {
            sched_yield();
            /* Acquire pairs with the release below: what was accepted is seen by our caller. */
            state = atomic_load_explicit(&queue->state, memory_order_acquire);
        }
        return;
    }
    queue->ops->close(queue);
    /* Release pairs with the acquire of a pop that finds nothing: it sees all that was accepted. */
    atomic_store_explicit(&queue->state, BOP__MPMC_CLOSED, memory_order_release);
    BOP_IGNORE(bop__eventcount_signal(&queue->not_full, UINT32_MAX)); /* Nobody arms this one. */
    bop__mpmc_signal_not_empty(queue, UINT32_MAX);
}

size_t bop_mpmc_size(const struct bop_mpmc *queue)
{
    return queue->ops->size(queue);
}

size_t bop_mpmc_memory_bytes(const struct bop_mpmc *queue)
{
    return queue->ops->memory_bytes(queue);
}

/* -- Tokens ------------------------------------------------------------------------------------ */

int bop_mpmc_producer_open(struct bop_mpmc *queue, struct bop_mpmc_producer **out_producer)
{
    struct bop_mpmc_producer *producer;
    void *handle;
    int rc = queue->ops->producer_open(queue, &producer);

    if (rc < 0) {
        return rc;
    }
    producer->queue = queue;
    handle = bop__token_wrap(queue, producer);
    if (!handle) {
        queue->ops->producer_close(producer);
        return BOP_ENOMEM;
    }
    *out_producer = handle;
    return 0;
}

void bop_mpmc_producer_close(struct bop_mpmc_producer *handle)
{
    struct bop_mpmc_producer *producer = bop__token_unwrap(NULL, handle);

    if (producer) {
        producer->queue->ops->producer_close(producer);
        bop__token_retire(handle);
    }
}

int bop_mpmc_consumer_open(struct bop_mpmc *queue, unsigned claim_ahead,
                           struct bop_mpmc_consumer **out_consumer)
{
    struct bop_mpmc_consumer *consumer;
    void *handle;
    int rc;

    if (claim_ahead > BOP_MPMC_CLAIM_AHEAD_MAX) {
        return BOP_EINVAL;
    }
    rc = queue->ops->consumer_open(queue, claim_ahead, &consumer);
    if (rc < 0) {
        return rc;
    }
    consumer->queue = queue;
    handle = bop__token_wrap(queue, consumer);
    if (!handle) {
        queue->ops->consumer_close(consumer);
        return BOP_ENOMEM;
    }
    *out_consumer = handle;
    return 0;
}

void bop_mpmc_consumer_close(struct bop_mpmc_consumer *handle)
{
    struct bop_mpmc_consumer *consumer = bop__token_unwrap(NULL, handle);

    if (consumer) {
        struct bop_mpmc *queue = consumer->queue;

        queue->ops->consumer_close(consumer);
        bop__token_retire(handle);
        if (queue->may_refuse) {
            /* What it held may have been the rest of a block. */
            BOP_IGNORE(bop__eventcount_signal(&queue->not_full, UINT32_MAX));
        }
    }
}

/* -- In an event loop -------------------------------------------------------------------------- */

void bop__mpmc_notify(struct bop_mpmc *queue)
{
    /* Acquire pairs with the release in bop_mpmc_eventfd(); the number is all there is to see. */
    int event_fd = atomic_load_explicit(&queue->event_fd, memory_order_acquire);

    if (event_fd >= 0) {
        /* It fails only when the counter is full, and then it is readable already. */
        BOP_IGNORE(eventfd_write(event_fd, 1));
    }
    if (queue->notify) {
        queue->notify(queue->user);
    }
}

static bool worth_a_look(struct bop_mpmc *queue)
{
    /* Acquire: as in a pop that finds nothing. While it is CLOSING, close is still to notify. */
    if (atomic_load_explicit(&queue->state, memory_order_acquire) == BOP__MPMC_CLOSED) {
        return true;
    }
    return queue->ops->worth_a_look ? queue->ops->worth_a_look(queue) : queue->ops->size(queue) > 0;
}

bool bop_mpmc_arm(struct bop_mpmc *queue)
{
    /* Acquire: as in bop__mpmc_notify(). */
    int event_fd = atomic_load_explicit(&queue->event_fd, memory_order_acquire);

    if (event_fd >= 0) {
        eventfd_t value;

        /* It fails when there is nothing to clear. */
        BOP_IGNORE(eventfd_read(event_fd, &value));
    }
    bop__eventcount_arm(&queue->not_empty);
    if (worth_a_look(queue)) {
        bop__eventcount_disarm(&queue->not_empty);
        return false;
    }
    return true;
}

int bop_mpmc_eventfd(struct bop_mpmc *queue)
{
    /* Acquire: as in bop__mpmc_notify(). */
    int have = atomic_load_explicit(&queue->event_fd, memory_order_acquire);
    int made;

    if (have >= 0) {
        return have;
    }
    made = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (made < 0) {
        return -errno;
    }
    /* Release: as in bop__mpmc_notify(). Acquire on failure: the number of the winner. */
    if (!atomic_compare_exchange_strong_explicit(&queue->event_fd, &have, made,
                                                 memory_order_release, memory_order_acquire)) {
        close(made);
        return have;
    }
    return made;
}
