/*
 * The pushes: the kind's own, then whoever waits is told, or the wait for room.
 */
#include "front.h"
#include "lanes_hot.h"
#include "token.h"

static int push_one(struct bop_mpmc *queue, struct bop_mpmc_producer *handle, uint64_t item,
                    unsigned flags)
{
    struct bop_mpmc_producer *producer = bop__token_unwrap(queue, handle);
    int rc;

    if (BOP_LIKELY(queue->kind == BOP_MPMC_LANES && producer)) {
        rc = bop__lane_push((struct lane *)producer, queue, item, flags);
    } else {
        rc = queue->ops->push(queue, producer, item, flags);
    }

    if (BOP_LIKELY(rc == 0)) {
        bop__mpmc_signal_not_empty(queue, 1);
    }
    return rc;
}

static ssize_t push_many(struct bop_mpmc *queue, struct bop_mpmc_producer *handle,
                         const uint64_t *items, size_t count, unsigned flags)
{
    struct bop_mpmc_producer *producer = bop__token_unwrap(queue, handle);
    ssize_t rc;

    if (count == 0) {
        return 0;
    }
    rc = queue->ops->push_bulk(queue, producer, items, count, flags);
    if (BOP_LIKELY(rc > 0)) {
        bop__mpmc_signal_not_empty(queue, rc > UINT32_MAX ? UINT32_MAX : (unsigned)rc);
    }
    return rc;
}

/* All or none: a count means success. */
static int code_of(ssize_t rc)
{
    return rc < 0 ? (int)rc : 0;
}

int bop_mpmc_push(struct bop_mpmc *queue, struct bop_mpmc_producer *producer, uint64_t item)
{
    return push_one(queue, producer, item, 0);
}

int bop_mpmc_try_push(struct bop_mpmc *queue, struct bop_mpmc_producer *producer, uint64_t item)
{
    return push_one(queue, producer, item, BOP__MPMC_NO_ALLOC);
}

int bop_mpmc_push_bulk(struct bop_mpmc *queue, struct bop_mpmc_producer *producer,
                       const uint64_t *items, size_t count)
{
    return code_of(push_many(queue, producer, items, count, BOP__MPMC_ALL));
}

ssize_t bop_mpmc_push_some(struct bop_mpmc *queue, struct bop_mpmc_producer *producer,
                           const uint64_t *items, size_t count)
{
    return push_many(queue, producer, items, count, 0);
}

int bop_mpmc_try_push_bulk(struct bop_mpmc *queue, struct bop_mpmc_producer *producer,
                           const uint64_t *items, size_t count)
{
    return code_of(push_many(queue, producer, items, count, BOP__MPMC_ALL | BOP__MPMC_NO_ALLOC));
}

/* -- Waiting for room -------------------------------------------------------------------------- */

/* Sleep and look by turns. Returns as push_many(). */
static ssize_t sleep_for_room(struct bop_mpmc *queue, struct bop_mpmc_producer *producer,
                              const uint64_t *items, size_t count, struct bop__mpmc_wait *wait)
{
    bool in_time;
    ssize_t rc;

    do {
        uint32_t key = bop__eventcount_prepare(&queue->not_full);

        rc = push_many(queue, producer, items, count, BOP__MPMC_ALL);
        if (rc != BOP_EFULL) {
            bop__eventcount_cancel(&queue->not_full);
            return rc;
        }
        in_time = bop__mpmc_wait_sleep(wait, key, UINT64_MAX);
        rc = push_many(queue, producer, items, count, BOP__MPMC_ALL);
    } while (rc == BOP_EFULL && in_time);
    return rc;
}

/* After a first refusal. */
static int wait_for_room(struct bop_mpmc *queue, struct bop_mpmc_producer *producer,
                         const uint64_t *items, size_t count, uint64_t timeout_us)
{
    struct bop__mpmc_wait wait = bop__mpmc_wait_begin(&queue->not_full, timeout_us);
    unsigned bulk = count > 1 ? 1 : 0;
    ssize_t rc;

    while (bop__mpmc_wait_spin(&wait)) {
        rc = push_many(queue, producer, items, count, BOP__MPMC_ALL);
        if (rc != BOP_EFULL) {
            bop__mpmc_wait_spin_paid(&wait);
            return code_of(rc);
        }
    }
    /* Relaxed: going to sleep, or the look before it, orders it. */
    atomic_fetch_add_explicit(&queue->bulks_waiting, bulk, memory_order_relaxed);
    rc = sleep_for_room(queue, producer, items, count, &wait);
    atomic_fetch_sub_explicit(&queue->bulks_waiting, bulk, memory_order_relaxed); /* As above. */
    return rc == BOP_EFULL ? BOP_ETIMEOUT : code_of(rc);
}

int bop_mpmc_push_bulk_wait(struct bop_mpmc *queue, struct bop_mpmc_producer *producer,
                            const uint64_t *items, size_t count, uint64_t timeout_us)
{
    ssize_t rc = push_many(queue, producer, items, count, BOP__MPMC_ALL);

    if (rc != BOP_EFULL) {
        return code_of(rc);
    }
    if (count > queue->bulk_max) {
        return BOP_EFULL; /* It would wait for what cannot be. */
    }
    return timeout_us == 0 ? BOP_ETIMEOUT
                           : wait_for_room(queue, producer, items, count, timeout_us);
}

int bop_mpmc_push_wait(struct bop_mpmc *queue, struct bop_mpmc_producer *producer, uint64_t item,
                       uint64_t timeout_us)
{
    int rc = push_one(queue, producer, item, 0);

    if (BOP_LIKELY(rc != BOP_EFULL)) {
        return rc;
    }
    return timeout_us == 0 ? BOP_ETIMEOUT : wait_for_room(queue, producer, &item, 1, timeout_us);
}
