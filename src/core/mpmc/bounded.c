/*
 * The bounded kind: a ring of cells, each with a turn (Vyukov's queue, 2010), and
 * bulk forms that take a run of cells with one compare-and-swap.
 *
 *      position   0 1 2 3 ...: every push takes the next of `tail`, every pop the
 *                 next of `head`; position p lives in cell p % capacity
 *      turn       p             the cell is free for the push of p
 *                 p + 1         the cell holds the item of p
 *                 p + capacity  the item is taken: free for the push a lap later
 *
 * A push reads the turn of the cell at tail, moves tail past it by a
 * compare-and-swap, writes the item and then the turn; a pop does the same at
 * head. Turns and indices only ever rise, so a compare-and-swap that succeeds
 * proves that the turn read before it still holds, and none else may touch the
 * cell until its turn is written. A run of n is n such cells in a row. Indices
 * have 63 bits and do not wrap; bit 63 of tail says that the queue is closed, and
 * makes every compare-and-swap fail that did not expect it.
 *
 * Linearizability. An accepted push takes effect at its compare-and-swap of tail
 * and an accepted pop at that of head, a bulk form all at once, in one order that
 * is first in, first out. Closing takes effect at the fetch-or of tail. Refusals:
 *
 *   full    (1) The push reads tail, then finds head so far behind that the items
 *           between leave no room: exact, at the load of head.
 *           (2) Otherwise a pop has moved head past the cell and not yet given it
 *           back. The push looks again for a while, yielding the processor, and
 *           then refuses: spurious, though only while that pop is under way.
 *   empty   (1) The pop reads head, then finds tail no further: exact, at the
 *           load of tail.
 *           (2) Otherwise a push has moved tail past the cell and not yet
 *           published its item; as above. Items behind it wait with it.
 *   closed  A push: exact, at the load of tail. A pop: exact, for close returns
 *           after every accepted push has published.
 *
 * With no operation under way case (2) is impossible: a queue at rest refuses
 * exactly. For sleepers it means that a push which publishes late may make more
 * items ready than its own, and a pop more room: the front wakes up as many.
 */
#include <sched.h>

#include "internal.h"

#define CLOSED (UINT64_C(1) << 63)

/* How often to look again for a thread in the middle of an operation: first at full speed, it needs
 * a few nanoseconds, then after yielding to it, as it has probably been preempted. */
#define SPINS_MAX  64
#define YIELDS_MAX 4

struct cell {
    _Atomic uint64_t turn;
    uint64_t
        item; /* Whoever has moved the index past the cell owns it until the turn is written. */
};

struct bounded {
    struct bop_mpmc base;

    /* Constant. */
    struct cell *cells;
    uint64_t mask; /* Capacity - 1. */
    void *block;   /* The memory of all this. */
    size_t block_bytes;

    _Alignas(BOP__CACHE_LINE) _Atomic uint64_t tail; /* Of the next push, and CLOSED. */
    _Alignas(BOP__CACHE_LINE) _Atomic uint64_t head; /* Of the next pop. */
};

static inline struct bounded *bounded_of(struct bop_mpmc *base)
{
    return BOP_CONTAINER_OF(base, struct bounded, base);
}

static inline struct cell *cell_at(const struct bounded *queue, uint64_t position)
{
    return &queue->cells[position & queue->mask];
}

static inline uint64_t turn_at(const struct bounded *queue, uint64_t position)
{
    /* Acquire pairs with the release that gave the cell away: the item is there, or was read. */
    return atomic_load_explicit(&cell_at(queue, position)->turn, memory_order_acquire);
}

/* After an acquire, what is loaded next is no older than the index: that makes refusals exact. */
static inline uint64_t load_index(const _Atomic uint64_t *index)
{
    return atomic_load_explicit(index, memory_order_acquire);
}

/* Relaxed: that the turn still holds follows from the value alone, and the items are ordered by
 * their turns. Failing has the acquire of load_index(). */
static inline bool advance(_Atomic uint64_t *index, uint64_t *expected, uint64_t by)
{
    return atomic_compare_exchange_weak_explicit(index, expected, *expected + by,
                                                 memory_order_acquire, memory_order_acquire);
}

/* Wait a moment for a thread in the middle of an operation; false once that has been enough. */
static bool back_off(unsigned *rounds)
{
    if (*rounds == SPINS_MAX + YIELDS_MAX) {
        return false;
    }
    if ((*rounds)++ >= SPINS_MAX) {
        sched_yield();
    } else {
        bop__mpmc_pause();
    }
    return true;
}

/* The push that read *tail found the cell of position not free. True: look again, with *tail
 * loaded anew; false: full. */
static bool may_get_room(struct bounded *queue, uint64_t *tail, uint64_t position, unsigned *rounds)
{
    uint64_t before = *tail;

    *tail = load_index(&queue->tail);
    if (*tail != before) {
        return true;
    }
    /* Signed: others may have pushed and popped since, so that head is beyond. */
    if ((int64_t)(position - load_index(&queue->head)) > (int64_t)queue->mask) {
        return false;
    }
    return back_off(rounds);
}

/* The pop that read *head found no item there. True: look again, with *head loaded anew; false:
 * empty. */
static bool may_get_item(struct bounded *queue, uint64_t *head, unsigned *rounds)
{
    uint64_t before = *head;

    *head = load_index(&queue->head);
    if (*head != before) {
        return true;
    }
    if ((load_index(&queue->tail) & ~CLOSED) == *head) {
        return false;
    }
    return back_off(rounds);
}

static inline void publish(struct bounded *queue, uint64_t position, uint64_t item)
{
    struct cell *cell = cell_at(queue, position);

    cell->item = item;
    /* Release pairs with the acquire of the pop: it sees the item, and what was written before the
     * push. */
    atomic_store_explicit(&cell->turn, position + 1, memory_order_release);
}

static inline uint64_t take(struct bounded *queue, uint64_t position)
{
    struct cell *cell = cell_at(queue, position);
    uint64_t item = cell->item;

    /* Release pairs with the acquire of the push a lap later: the item has been read before it is
     * overwritten. */
    atomic_store_explicit(&cell->turn, position + queue->mask + 1, memory_order_release);
    return item;
}

/* -- Push -------------------------------------------------------------------------------------- */

static int bounded_push(struct bop_mpmc *base, struct bop_mpmc_producer *producer, uint64_t item,
                        unsigned flags)
{
    struct bounded *queue = bounded_of(base);
    uint64_t tail = load_index(&queue->tail);
    unsigned rounds = 0;

    (void)producer;
    (void)flags; /* It never allocates. */
    for (;;) {
        if (BOP_UNLIKELY(tail & CLOSED)) {
            return BOP_ECLOSED;
        }
        if (BOP_LIKELY(turn_at(queue, tail) == tail)) {
            if (BOP_LIKELY(advance(&queue->tail, &tail, 1))) {
                publish(queue, tail, item);
                return 0;
            }
        } else if (!may_get_room(queue, &tail, tail, &rounds)) {
            return BOP_EFULL;
        }
    }
}

/* How many cells from position on have the turn of their position plus `state`, up to count. */
static inline size_t run_length(const struct bounded *queue, uint64_t position, unsigned state,
                                size_t count)
{
    size_t run = 0;

    while (run < count && turn_at(queue, position + run) == position + run + state) {
        run++;
    }
    return run;
}

static ssize_t bounded_push_bulk(struct bop_mpmc *base, struct bop_mpmc_producer *producer,
                                 const uint64_t *items, size_t count, unsigned flags)
{
    struct bounded *queue = bounded_of(base);
    size_t most = (size_t)bop_min_u64(count, queue->mask + 1);
    size_t least = flags & BOP__MPMC_ALL ? count : 1; /* More than the capacity never fits. */
    uint64_t tail = load_index(&queue->tail);
    unsigned rounds = 0;

    (void)producer;
    for (;;) {
        size_t run;

        if (BOP_UNLIKELY(tail & CLOSED)) {
            return BOP_ECLOSED;
        }
        if (BOP_UNLIKELY(least > most)) {
            return BOP_EFULL;
        }
        run = run_length(queue, tail, 0, most);
        if (BOP_LIKELY(run >= least)) {
            if (BOP_LIKELY(advance(&queue->tail, &tail, run))) {
                for (size_t i = 0; i < run; i++) {
                    publish(queue, tail + i, items[i]);
                }
                return (ssize_t)run;
            }
        } else if (!may_get_room(queue, &tail, tail + least - 1, &rounds)) {
            return BOP_EFULL;
        }
    }
}

/* -- Pop --------------------------------------------------------------------------------------- */

static int bounded_pop(struct bop_mpmc *base, struct bop_mpmc_consumer *consumer,
                       uint64_t *out_item)
{
    struct bounded *queue = bounded_of(base);
    uint64_t head = load_index(&queue->head);
    unsigned rounds = 0;

    (void)consumer;
    for (;;) {
        if (BOP_LIKELY(turn_at(queue, head) == head + 1)) {
            if (BOP_LIKELY(advance(&queue->head, &head, 1))) {
                *out_item = take(queue, head);
                return 1;
            }
        } else if (!may_get_item(queue, &head, &rounds)) {
            return 0;
        }
    }
}

static size_t bounded_pop_bulk(struct bop_mpmc *base, struct bop_mpmc_consumer *consumer,
                               uint64_t *out_items, size_t count)
{
    struct bounded *queue = bounded_of(base);
    size_t most = (size_t)bop_min_u64(count, queue->mask + 1);
    uint64_t head = load_index(&queue->head);
    unsigned rounds = 0;

    (void)consumer;
    for (;;) {
        size_t run = run_length(queue, head, 1, most);

        if (BOP_LIKELY(run > 0)) {
            if (BOP_LIKELY(advance(&queue->head, &head, run))) {
                for (size_t i = 0; i < run; i++) {
                    out_items[i] = take(queue, head + i);
                }
                return run;
            }
        } else if (!may_get_item(queue, &head, &rounds)) {
            return 0;
        }
    }
}

/* -- Close, size ------------------------------------------------------------------------------- */

static void bounded_close(struct bop_mpmc *base)
{
    struct bounded *queue = bounded_of(base);
    /* Acquire release, as advance() and more: every push is before it, and will be published, or
     * after it, and fails. */
    uint64_t end = atomic_fetch_or_explicit(&queue->tail, CLOSED, memory_order_acq_rel) & ~CLOSED;
    /* What lies before head was published, or no pop had taken it. */
    uint64_t position = load_index(&queue->head);

    for (; position < end; position++) {
        unsigned rounds = 0;

        while ((int64_t)(turn_at(queue, position) - position) <= 0) {
            if (!back_off(&rounds)) {
                rounds = SPINS_MAX; /* The push is preempted: yield until it has published. */
            }
        }
    }
}

static size_t bounded_size(const struct bop_mpmc *base)
{
    const struct bounded *queue = (const struct bounded *)base;
    /* Head first: tail is then no older, and the difference not negative. */
    uint64_t head = load_index(&queue->head);
    uint64_t tail = load_index(&queue->tail) & ~CLOSED;

    return (size_t)bop_min_u64(tail - head, queue->mask + 1);
}

static size_t bounded_memory_bytes(const struct bop_mpmc *base)
{
    return ((const struct bounded *)base)->block_bytes;
}

/* What is pushed and not published yet is no reason to look: its publishing notifies. */
static bool bounded_worth_a_look(struct bop_mpmc *base)
{
    struct bounded *queue = bounded_of(base);
    uint64_t head = load_index(&queue->head);

    return (int64_t)(turn_at(queue, head) - head) > 0;
}

/* -- Create, destroy, tokens ------------------------------------------------------------------- */

static int bounded_create(const struct bop_mpmc_options *options, struct bop_allocator *allocator,
                          struct bop_mpmc **out_queue)
{
    /* An allocator aligns for the basic types only. */
    size_t block_bytes = sizeof(struct bounded) + BOP__CACHE_LINE - 1 +
                         options->capacity * sizeof(struct cell);
    void *block = bop_alloc(allocator, block_bytes);
    struct bounded *queue;

    if (!block) {
        return BOP_ENOMEM;
    }
    queue = (struct bounded *)(((uintptr_t)block + BOP__CACHE_LINE - 1) &
                               ~(uintptr_t)(BOP__CACHE_LINE - 1));
    *queue = (struct bounded){
        .base.allocator = allocator,
        .base.bulk_max = options->capacity,
        .cells = (struct cell *)(queue + 1),
        .mask = options->capacity - 1,
        .block = block,
        .block_bytes = block_bytes,
    };
    for (uint64_t i = 0; i <= queue->mask; i++) {
        atomic_init(&queue->cells[i].turn, i);
        queue->cells[i].item = 0;
    }
    *out_queue = &queue->base;
    return 0;
}

static void bounded_destroy(struct bop_mpmc *base)
{
    struct bounded *queue = bounded_of(base);

    bop_free(base->allocator, queue->block, queue->block_bytes);
}

/* A token has nothing to remember here. */
static int bounded_producer_open(struct bop_mpmc *base, struct bop_mpmc_producer **out_producer)
{
    struct bop_mpmc_producer *producer = bop_alloc(base->allocator, sizeof(*producer));

    if (!producer) {
        return BOP_ENOMEM;
    }
    *producer = (struct bop_mpmc_producer){.queue = base};
    *out_producer = producer;
    return 0;
}

static void bounded_producer_close(struct bop_mpmc_producer *producer)
{
    bop_free(producer->queue->allocator, producer, sizeof(*producer));
}

static int bounded_consumer_open(struct bop_mpmc *base, unsigned claim_ahead,
                                 struct bop_mpmc_consumer **out_consumer)
{
    struct bop_mpmc_consumer *consumer = bop_alloc(base->allocator, sizeof(*consumer));

    (void)claim_ahead;
    if (!consumer) {
        return BOP_ENOMEM;
    }
    *consumer = (struct bop_mpmc_consumer){.queue = base};
    *out_consumer = consumer;
    return 0;
}

static void bounded_consumer_close(struct bop_mpmc_consumer *consumer)
{
    bop_free(consumer->queue->allocator, consumer, sizeof(*consumer));
}

const struct bop__mpmc_ops bop__mpmc_bounded_ops = {
    .create = bounded_create,
    .destroy = bounded_destroy,
    .push = bounded_push,
    .push_bulk = bounded_push_bulk,
    .pop = bounded_pop,
    .pop_bulk = bounded_pop_bulk,
    .producer_open = bounded_producer_open,
    .producer_close = bounded_producer_close,
    .consumer_open = bounded_consumer_open,
    .consumer_close = bounded_consumer_close,
    .close = bounded_close,
    .size = bounded_size,
    .memory_bytes = bounded_memory_bytes,
    .worth_a_look = bounded_worth_a_look,
};
