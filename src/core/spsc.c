/*
 * The queue from one producer to one consumer.
 *
 *      tail   where the next push writes, stored by the producer only
 *      head   where the next pop reads, stored by the consumer only
 *
 * Both only ever rise; an item's place is its index % capacity, and
 * tail - head <= capacity always. Each side keeps the other's index as it last
 * saw it, which can only understate what may be done, and looks at the real one
 * when that says nothing may.
 *
 * Closing must shut out a push that has found the queue open and not yet stored
 * tail. So a push makes `pushes` odd, then looks at the state; and close sets the
 * state, then looks at `pushes` and waits while it is the same odd number. The
 * fences between (asymmetric_fence.h) let at least one of the two see the other,
 * at no cost to the push. Only then is the state CLOSED, which is what entitles
 * the consumer to say "closed and drained".
 */
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include <bop/mem.h>
#include <bop/spsc.h>

#include "mpmc/asymmetric_fence.h"
#include "mpmc/eventcount.h"

#define CACHE_LINE   128 /* Two lines: the adjacent-line prefetcher pairs them. */
#define CAPACITY_MAX (UINT64_C(1) << 31)

/* How often a waiting function looks again before it sleeps: about the cost of a sleep. */
#define LOOKS_MAX 100

enum state {
    OPEN = 0,
    CLOSING = 1, /* Pushes are being shut out. */
    CLOSED = 2,  /* No push succeeds any more. */
};

struct bop_spsc {
    /* Constant, or rarely written. */
    struct bop_allocator *allocator;
    void (*discard)(void *user, uint64_t item);
    void *user;
    void *block; /* The memory of all this. */
    size_t block_bytes;
    uint64_t *items;
    uint64_t mask;                    /* Capacity - 1. */
    atomic_uint state;                /* enum state */
    struct bop__eventcount not_empty; /* The consumer waits here, */
    struct bop__eventcount not_full;  /* and here the producer. */

    /* The producer's. */
    _Alignas(CACHE_LINE) _Atomic uint64_t tail;
    uint64_t head_seen;
    atomic_uint pushes; /* Odd while a push is under way. */

    /* The consumer's. */
    _Alignas(CACHE_LINE) _Atomic uint64_t head;
    uint64_t tail_seen;
};

/* -- Create, destroy --------------------------------------------------------------------------- */

int bop_spsc_create(const struct bop_spsc_options *options, struct bop_spsc **out_queue,
                    struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "core.mpmc");
    size_t capacity = options->capacity;
    struct bop_spsc *queue;
    size_t block_bytes;
    void *block;

    if (capacity < 2 || capacity > CAPACITY_MAX || (capacity & (capacity - 1)) != 0) {
        return bop_error_say(err, BOP_EINVAL,
                             "capacity is %zu, but must be a power of two from 2 to 2^31",
                             capacity);
    }
    /* An allocator aligns for the basic types only. */
    block_bytes = sizeof(*queue) + CACHE_LINE - 1 + capacity * sizeof(*queue->items);
    block = bop_alloc(allocator, block_bytes);
    if (!block) {
        return bop_error_set(err, BOP_ENOMEM, "create a queue of %zu items", capacity);
    }
    bop__asymmetric_fence_init();
    queue = (struct bop_spsc *)(((uintptr_t)block + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1));
    *queue = (struct bop_spsc){
        .allocator = allocator,
        .discard = options->discard,
        .user = options->user,
        .block = block,
        .block_bytes = block_bytes,
        .items = (uint64_t *)(queue + 1),
        .mask = capacity - 1,
    };
    *out_queue = queue;
    return 0;
}

void bop_spsc_destroy(struct bop_spsc *queue)
{
    uint64_t item;

    if (!queue) {
        return;
    }
    if (queue->discard) {
        while (bop_spsc_pop(queue, &item) == 1) {
            queue->discard(queue->user, item);
        }
    }
    bop_free(queue->allocator, queue->block, queue->block_bytes);
}

void bop_spsc_close(struct bop_spsc *queue)
{
    unsigned open = OPEN;
    unsigned pushes;

    /* Relaxed: the fence below orders it before the look at pushes. */
    atomic_compare_exchange_strong_explicit(&queue->state, &open, CLOSING, memory_order_relaxed,
                                            memory_order_relaxed);
    bop__fence_rare();
    /* Acquire pairs with the release at the end of the push: its tail is seen by whoever sees
     * CLOSED. */
    pushes = atomic_load_explicit(&queue->pushes, memory_order_acquire);
    while (pushes % 2 != 0 &&
           atomic_load_explicit(&queue->pushes, memory_order_acquire) == pushes) {
        sched_yield();
    }
    /* Release pairs with the acquire in nothing_left(). */
    atomic_store_explicit(&queue->state, CLOSED, memory_order_release);
    /* Nobody arms these, so there is no one to notify. */
    BOP_IGNORE(bop__eventcount_signal(&queue->not_empty, 1));
    BOP_IGNORE(bop__eventcount_signal(&queue->not_full, 1));
}

/* -- Push -------------------------------------------------------------------------------------- */

/* Relaxed, here and in the next: the producer is the only one to store it. */
static inline void end_push(struct bop_spsc *queue)
{
    unsigned pushes = atomic_load_explicit(&queue->pushes, memory_order_relaxed);

    /* Release pairs with the acquire in close: the new tail is seen by then. */
    atomic_store_explicit(&queue->pushes, pushes + 1, memory_order_release);
}

/* False: closed. True: a close waits for end_push(). */
static inline bool begin_push(struct bop_spsc *queue)
{
    unsigned pushes = atomic_load_explicit(&queue->pushes, memory_order_relaxed);

    /* Relaxed: the fence orders it before the look at the state. */
    atomic_store_explicit(&queue->pushes, pushes + 1, memory_order_relaxed);
    bop__fence_hot();
    /* Relaxed: a push that finds it closed reads nothing that depends on it. */
    if (BOP_LIKELY(atomic_load_explicit(&queue->state, memory_order_relaxed) == OPEN)) {
        return true;
    }
    end_push(queue);
    return false;
}

/* Free places, up to `most`. */
static inline size_t room(struct bop_spsc *queue, uint64_t tail, size_t most)
{
    uint64_t capacity = queue->mask + 1;
    uint64_t free_places = capacity - (tail - queue->head_seen);

    if (free_places < most) {
        /* Acquire pairs with the release in take(): the items have been read. */
        queue->head_seen = atomic_load_explicit(&queue->head, memory_order_acquire);
        free_places = capacity - (tail - queue->head_seen);
    }
    return (size_t)bop_min_u64(free_places, most);
}

/* Inline, so that the form for one item has no loop. */
static inline ssize_t push(struct bop_spsc *queue, const uint64_t *items, size_t count)
{
    /* Relaxed: the producer's own. */
    uint64_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    size_t places;

    if (!begin_push(queue)) {
        return BOP_ECLOSED;
    }
    places = room(queue, tail, count);
    for (size_t i = 0; i < places; i++) {
        queue->items[(tail + i) & queue->mask] = items[i];
    }
    if (places > 0) {
        /* Release pairs with the acquire in ready(): the items, and what was written before. */
        atomic_store_explicit(&queue->tail, tail + places, memory_order_release);
    }
    end_push(queue);
    if (places == 0) {
        return count == 0 ? 0 : BOP_EFULL;
    }
    BOP_IGNORE(bop__eventcount_signal(&queue->not_empty, 1)); /* Nobody arms it. */
    return (ssize_t)places;
}

int bop_spsc_push(struct bop_spsc *queue, uint64_t item)
{
    ssize_t pushed = push(queue, &item, 1);

    return pushed == 1 ? 0 : (int)pushed;
}

ssize_t bop_spsc_push_bulk(struct bop_spsc *queue, const uint64_t *items, size_t count)
{
    return push(queue, items, count);
}

/* -- Pop --------------------------------------------------------------------------------------- */

/* Items inside, up to `most`. */
static inline size_t ready(struct bop_spsc *queue, uint64_t head, size_t most)
{
    uint64_t inside = queue->tail_seen - head;

    if (inside < most) {
        /* Acquire pairs with the release in push(): the items are there. */
        queue->tail_seen = atomic_load_explicit(&queue->tail, memory_order_acquire);
        inside = queue->tail_seen - head;
    }
    return (size_t)bop_min_u64(inside, most);
}

/* Inline, as push(). */
static inline ssize_t pop(struct bop_spsc *queue, uint64_t *out_items, size_t count)
{
    /* Relaxed: the consumer's own. */
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    size_t taken = ready(queue, head, count);

    if (BOP_UNLIKELY(taken == 0)) {
        /* Acquire pairs with the release in close: then the next look sees every accepted push. */
        if (count == 0 || atomic_load_explicit(&queue->state, memory_order_acquire) != CLOSED) {
            return 0;
        }
        taken = ready(queue, head, count);
        if (taken == 0) {
            return BOP_ECLOSED;
        }
    }
    for (size_t i = 0; i < taken; i++) {
        out_items[i] = queue->items[(head + i) & queue->mask];
    }
    /* Release pairs with the acquire in room(): the items have been read. */
    atomic_store_explicit(&queue->head, head + taken, memory_order_release);
    BOP_IGNORE(bop__eventcount_signal(&queue->not_full, 1)); /* Nobody arms it. */
    return (ssize_t)taken;
}

int bop_spsc_pop(struct bop_spsc *queue, uint64_t *out_item)
{
    return (int)pop(queue, out_item, 1);
}

ssize_t bop_spsc_pop_bulk(struct bop_spsc *queue, uint64_t *out_items, size_t count)
{
    return pop(queue, out_items, count);
}

/* -- Waiting ----------------------------------------------------------------------------------- */

/* The monotonic time in ns at which a timeout in us ends; UINT64_MAX: never. */
static uint64_t deadline_after(uint64_t timeout_us)
{
    struct timespec now;
    uint64_t now_ns;

    if (timeout_us == BOP_SPSC_FOREVER) {
        return UINT64_MAX;
    }
    BOP_IGNORE(clock_gettime(CLOCK_MONOTONIC, &now)); /* Fails for a bad clock only. */
    now_ns = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    return timeout_us > (UINT64_MAX - now_ns) / 1000 ? UINT64_MAX : now_ns + timeout_us * 1000;
}

/* The eventcount's order: announce, look again, sleep. A look returns `nothing` while there is
 * cause to wait; so does this, once the time is over. */
static int wait_for(struct bop_spsc *queue, struct bop__eventcount *eventcount,
                    int (*look)(struct bop_spsc *queue, uint64_t *item), uint64_t *item,
                    int nothing, uint64_t timeout_us)
{
    uint64_t deadline_ns;
    bool in_time = true;
    int rc = nothing;

    for (int i = 0; i < LOOKS_MAX && rc == nothing; i++) {
        rc = look(queue, item);
    }
    if (rc != nothing || timeout_us == 0) {
        return rc;
    }
    deadline_ns = deadline_after(timeout_us);
    do {
        uint32_t key = bop__eventcount_prepare(eventcount);

        rc = look(queue, item);
        if (rc != nothing) {
            bop__eventcount_cancel(eventcount);
            return rc;
        }
        in_time = bop__eventcount_wait(eventcount, key, deadline_ns);
        rc = look(queue, item);
    } while (rc == nothing && in_time);
    return rc;
}

static int look_to_push(struct bop_spsc *queue, uint64_t *item)
{
    return bop_spsc_push(queue, *item);
}

int bop_spsc_push_wait(struct bop_spsc *queue, uint64_t item, uint64_t timeout_us)
{
    int rc = wait_for(queue, &queue->not_full, look_to_push, &item, BOP_EFULL, timeout_us);

    return rc == BOP_EFULL ? BOP_ETIMEOUT : rc;
}

int bop_spsc_pop_wait(struct bop_spsc *queue, uint64_t *out_item, uint64_t timeout_us)
{
    return wait_for(queue, &queue->not_empty, bop_spsc_pop, out_item, 0, timeout_us);
}

/* -- Size -------------------------------------------------------------------------------------- */

size_t bop_spsc_size(const struct bop_spsc *queue)
{
    /* Head first, and acquire: tail is then no older, and the difference not negative. */
    uint64_t head = atomic_load_explicit(&queue->head, memory_order_acquire);
    /* Relaxed: a figure, no item is read. */
    uint64_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);

    return (size_t)bop_min_u64(tail - head, queue->mask + 1);
}

size_t bop_spsc_capacity(const struct bop_spsc *queue)
{
    return (size_t)(queue->mask + 1);
}
