/*
 * The pops: the kind's own, then whoever waits for room is told, or the wait for
 * an item.
 *
 * A pop that finds nothing in a closed queue looks once more: between its look
 * and its reading of the state somebody may have pushed and closed.
 */
#include "front.h"
#include "lanes_hot.h"
#include "token.h"

/* With items inside that are another consumer's by order of its claim, a waiter looks again from
 * time to time: nobody tells it when that consumer's thread has exited. */
#define ELSEWHERE_NAP_NS UINT64_C(20000000)
#define CAUGHT_UP_PAUSES 64u /* About a microsecond. */
#define LOCKSTEP_RUNS    64u

static inline void popped(struct bop_mpmc *queue, size_t count)
{
    if (queue->may_refuse) {
        bop__mpmc_signal_not_full(queue, count > UINT32_MAX ? UINT32_MAX : (unsigned)count);
    }
}

/* The last look. Returns a count, 0, or BOP_ECLOSED. */
static ssize_t look_last(struct bop_mpmc *queue, struct bop_mpmc_consumer *consumer,
                         uint64_t *out_items, size_t count, bool *out_elsewhere)
{
    /* Acquire pairs with the release in close: what was accepted is seen by the look. */
    unsigned state = atomic_load_explicit(&queue->state, memory_order_acquire);
    ssize_t got = bop__mpmc_last_look(queue, consumer, out_items, count);

    *out_elsewhere = got == BOP__MPMC_ELSEWHERE;
    if (got > 0) {
        popped(queue, (size_t)got);
        return got;
    }
    return got == 0 && state == BOP__MPMC_CLOSED ? BOP_ECLOSED : 0;
}

/* A pop has found nothing. */
static ssize_t found_nothing(struct bop_mpmc *queue, struct bop_mpmc_consumer *consumer,
                             uint64_t *out_items, size_t count)
{
    bool elsewhere;

    /* Relaxed: look_last() reads it again. */
    if (BOP_LIKELY(atomic_load_explicit(&queue->state, memory_order_relaxed) != BOP__MPMC_CLOSED)) {
        return 0;
    }
    return look_last(queue, consumer, out_items, count, &elsewhere);
}

/*
 * A consumer that has just caught up with the producers lets them get ahead before it looks again:
 * once, and for less than it takes to be scheduled. Else it would fetch the line that they write to
 * for each single item, at which both sides run at the pace of the interconnect. One that finds
 * nothing time and again, as a loop that polls does, does not wait; and one that finds a single
 * item each time does so rarely: that may be all there is, a question or an answer, and somebody
 * waits for what comes of it; or it is the pace just spoken of, and one wait ends it.
 */
static bool wait_a_moment(struct bop_mpmc_consumer *consumer)
{
    unsigned pops = consumer ? consumer->pops : 0;

    if (pops == 0) {
        return false;
    }
    consumer->pops = 0;
    if (pops == 1 && consumer->dry_runs++ % LOCKSTEP_RUNS != 0) {
        return false;
    }
    for (unsigned i = 0; i < CAUGHT_UP_PAUSES; i++) {
        bop__mpmc_pause();
    }
    return true;
}

int bop_mpmc_pop(struct bop_mpmc *queue, struct bop_mpmc_consumer *handle, uint64_t *out_item)
{
    struct bop_mpmc_consumer *consumer = bop__token_unwrap(queue, handle);

    if (BOP_LIKELY(queue->kind == BOP_MPMC_LANES && consumer &&
                   bop__claim_pop((struct lanes_consumer *)consumer, out_item))) {
        popped(queue, 1);
        return 1;
    }
    do {
        if (BOP_LIKELY(queue->ops->pop(queue, consumer, out_item) > 0)) {
            if (consumer) {
                consumer->pops++;
            }
            popped(queue, 1);
            return 1;
        }
    } while (wait_a_moment(consumer));
    return (int)found_nothing(queue, consumer, out_item, 1);
}

ssize_t bop_mpmc_pop_bulk(struct bop_mpmc *queue, struct bop_mpmc_consumer *handle,
                          uint64_t *out_items, size_t count)
{
    struct bop_mpmc_consumer *consumer = bop__token_unwrap(queue, handle);
    size_t got;

    if (count == 0) {
        return 0;
    }
    do {
        got = queue->ops->pop_bulk(queue, consumer, out_items, count);
        if (BOP_LIKELY(got > 0)) {
            if (consumer) {
                consumer->pops++;
            }
            popped(queue, got);
            return (ssize_t)got;
        }
    } while (wait_a_moment(consumer));
    return found_nothing(queue, consumer, out_items, count);
}

/* -- Waiting for an item ----------------------------------------------------------------------- */

/* After a first pop that found nothing. */
static ssize_t wait_for_items(struct bop_mpmc *queue, struct bop_mpmc_consumer *handle,
                              uint64_t *out_items, size_t count, uint64_t timeout_us)
{
    struct bop_mpmc_consumer *consumer = bop__token_unwrap(queue, handle);
    struct bop__mpmc_wait wait = bop__mpmc_wait_begin(&queue->not_empty, timeout_us);
    bool in_time = true, elsewhere;
    ssize_t got;

    while (bop__mpmc_wait_spin(&wait)) {
        got = bop_mpmc_pop_bulk(queue, handle, out_items, count);
        if (got != 0) {
            bop__mpmc_wait_spin_paid(&wait);
            return got;
        }
    }
    do {
        uint32_t key = bop__eventcount_prepare(&queue->not_empty);

        got = look_last(queue, consumer, out_items, count, &elsewhere);
        if (got != 0) {
            bop__eventcount_cancel(&queue->not_empty);
            return got;
        }
        in_time = bop__mpmc_wait_sleep(&wait, key, elsewhere ? ELSEWHERE_NAP_NS : UINT64_MAX);
        got = bop_mpmc_pop_bulk(queue, handle, out_items, count);
    } while (got == 0 && in_time);
    return got;
}

ssize_t bop_mpmc_pop_bulk_wait(struct bop_mpmc *queue, struct bop_mpmc_consumer *consumer,
                               uint64_t *out_items, size_t count, uint64_t timeout_us)
{
    ssize_t got = bop_mpmc_pop_bulk(queue, consumer, out_items, count);

    if (BOP_LIKELY(got != 0) || count == 0 || timeout_us == 0) {
        return got;
    }
    return wait_for_items(queue, consumer, out_items, count, timeout_us);
}

int bop_mpmc_pop_wait(struct bop_mpmc *queue, struct bop_mpmc_consumer *consumer,
                      uint64_t *out_item, uint64_t timeout_us)
{
    int got = bop_mpmc_pop(queue, consumer, out_item);

    if (BOP_LIKELY(got != 0) || timeout_us == 0) {
        return got;
    }
    return (int)wait_for_items(queue, consumer, out_item, 1, timeout_us);
}
