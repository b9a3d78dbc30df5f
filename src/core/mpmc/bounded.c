/*
 * The bounded kind: a ring of cells, each with stamps that say whose it is (after
 * Vyukov's queue, 2010), and bulk forms that take a run of cells with one
 * compare-and-swap.
 *
 *      position   0 1 2 3 ...: every push takes the next of `tail`, every pop the
 *                 next of `head`; position p lives in cell p % capacity, in lap
 *                 p / capacity, whose stamp is the lap's number + 1, in 8 bits
 *      filled     by cell, the stamp of the last lap whose item was put in
 *      emptied    by cell, the stamp of the last lap whose item was taken out; with
 *                 that of the lap before p's the cell is free for the push of p
 *
 * A push reads the stamp `emptied` of the cell at tail, moves tail past it by a
 * compare-and-swap, writes the item and then `filled`; a pop does the same at
 * head the other way round. A compare-and-swap that succeeds proves that the stamp
 * read before it still holds, and none else may touch the cell until its stamp is
 * written. A run of n is n such cells in a row. Indices have 63 bits and do not
 * wrap; bit 63 of tail says that the queue is closed, and makes every
 * compare-and-swap fail that did not expect it.
 *
 * Eight bits are enough. A push that finds tail not past p, and moves it, sees
 * emptied[p] as the push a lap before read it or newer, for that one released what
 * it had read with its own compare-and-swap; and none newer than lap p - capacity
 * can have written. So it sees one of two values in a row: that of p's place being
 * free, or the one before. A pop sees filled[p] likewise. Who sees anything else
 * fails at the compare-and-swap, or looks at the indices, which have all bits.
 *
 * Items, `filled` and `emptied` lie apart from one another, so that a bulk moves
 * few cache lines (64 items: eight and one there, one back), items are copied as a
 * whole, stamps are read and written eight at a time, and each line is written by
 * one side only.
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
#include <string.h>

#include "internal.h"

#define CLOSED (UINT64_C(1) << 63)

/* How often to look again for a thread in the middle of an operation: first at full speed, it needs
 * a few nanoseconds, then after yielding to it, as it has probably been preempted. */
#define SPINS_MAX  64
#define YIELDS_MAX 4

/* Runs are looked through, and stamped, eight cells at a time. The thread sanitizer takes a word
 * and its bytes for different variables; and in a word the first cell must be the lowest byte. */
#if defined(__SANITIZE_THREAD__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#define STAMPS_AT_ONCE 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STAMPS_AT_ONCE 1
#endif
#endif
#ifndef STAMPS_AT_ONCE
#define STAMPS_AT_ONCE 8
#define EACH_STAMP     UINT64_C(0x0101010101010101)
#endif

struct bounded {
    struct bop_mpmc base;

    /* Constant. */
    uint64_t mask; /* Capacity - 1. */
    unsigned lap_shift;
    uint64_t *items; /* Whoever has moved the index past a cell owns its item until the stamp. */
    _Atomic uint8_t *filled;
    _Atomic uint8_t *emptied;
    void *block; /* The memory of all this. */
    size_t block_bytes;

    _Alignas(BOP__CACHE_LINE) _Atomic uint64_t tail; /* Of the next push, and CLOSED. */
    _Alignas(BOP__CACHE_LINE) _Atomic uint64_t head; /* Of the next pop. */
};

static inline struct bounded *bounded_of(struct bop_mpmc *base)
{
    return BOP_CONTAINER_OF(base, struct bounded, base);
}

static inline size_t cell_of(const struct bounded *queue, uint64_t position)
{
    return (size_t)(position & queue->mask);
}

/* The stamp that `filled` has once the position holds its item; `emptied` has the one before while
 * the position is free. */
static inline uint8_t stamp_of(const struct bounded *queue, uint64_t position)
{
    return (uint8_t)((position >> queue->lap_shift) + 1);
}

static inline bool is_free(const struct bounded *queue, uint64_t position)
{
    /* Acquire pairs with the release in take(): the item of the lap before was read. */
    return atomic_load_explicit(&queue->emptied[cell_of(queue, position)], memory_order_acquire) ==
           (uint8_t)(stamp_of(queue, position) - 1);
}

static inline bool has_item(const struct bounded *queue, uint64_t position)
{
    /* Acquire pairs with the release in publish(): the item is there. */
    return atomic_load_explicit(&queue->filled[cell_of(queue, position)], memory_order_acquire) ==
           stamp_of(queue, position);
}

#if STAMPS_AT_ONCE > 1
static inline _Atomic uint64_t *octet_of(_Atomic uint8_t *stamps, size_t cell)
{
    return (_Atomic uint64_t *)(void *)&stamps[cell - cell % STAMPS_AT_ONCE];
}
#endif

/* After an acquire, what is loaded next is no older than the index: that makes refusals exact. */
static inline uint64_t load_index(const _Atomic uint64_t *index)
{
    return atomic_load_explicit(index, memory_order_acquire);
}

/* Release: who sees the index past a cell sees its stamp no older than we did. Acquire, on both
 * ways: as load_index(). */
static inline bool advance(_Atomic uint64_t *index, uint64_t *expected, uint64_t by)
{
    return atomic_compare_exchange_weak_explicit(index, expected, *expected + by,
                                                 memory_order_acq_rel, memory_order_acquire);
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
    size_t cell = cell_of(queue, position);

    queue->items[cell] = item;
    /* Release pairs with the acquire of the pop: it sees the item, and what was written before the
     * push. */
    atomic_store_explicit(&queue->filled[cell], stamp_of(queue, position), memory_order_release);
}

static inline uint64_t take(struct bounded *queue, uint64_t position)
{
    size_t cell = cell_of(queue, position);
    uint64_t item = queue->items[cell];

    /* Release pairs with the acquire of the push a lap later: the item has been read before it is
     * overwritten. */
    atomic_store_explicit(&queue->emptied[cell], stamp_of(queue, position), memory_order_release);
    return item;
}

/* -- Runs of cells ----------------------------------------------------------------------------- */

/* How many of count positions lie before the ring's end: they have one stamp. */
static inline size_t until_edge(const struct bounded *queue, uint64_t position, size_t count)
{
    return (size_t)bop_min_u64(count, queue->mask + 1 - (position & queue->mask));
}

/* How many stamps from stamps[cell] on are as wanted, up to count. */
static size_t count_stamps(_Atomic uint8_t *stamps, size_t cell, size_t count, uint8_t wanted)
{
    size_t same = 0;

    while (same < count) {
#if STAMPS_AT_ONCE > 1
        unsigned skip = (unsigned)((cell + same) % STAMPS_AT_ONCE);
        /* Acquire: as in is_free() and has_item(), for each of them. */
        uint64_t differ = (atomic_load_explicit(octet_of(stamps, cell + same),
                                                memory_order_acquire) ^
                           wanted * EACH_STAMP) >>
                          (8 * skip);

        if (differ != 0) {
            return (size_t)bop_min_u64(count, same + (unsigned)__builtin_ctzll(differ) / 8);
        }
        same += STAMPS_AT_ONCE - skip;
#else
        /* Acquire: as in is_free() and has_item(). */
        if (atomic_load_explicit(&stamps[cell + same], memory_order_acquire) != wanted) {
            return same;
        }
        same++;
#endif
    }
    return count;
}

/* Release: as in publish() and take(), for each of them. */
static void write_stamps(_Atomic uint8_t *stamps, size_t cell, size_t count, uint8_t stamp)
{
    size_t end = cell + count;

    while (cell < end) {
#if STAMPS_AT_ONCE > 1
        if (cell % STAMPS_AT_ONCE == 0 && end - cell >= STAMPS_AT_ONCE) {
            atomic_store_explicit(octet_of(stamps, cell), stamp * EACH_STAMP, memory_order_release);
            cell += STAMPS_AT_ONCE;
            continue;
        }
#endif
        atomic_store_explicit(&stamps[cell], stamp, memory_order_release);
        cell++;
    }
}

/* How many positions from `position` on are free, up to count. */
static size_t count_free(const struct bounded *queue, uint64_t position, size_t count)
{
    size_t here = until_edge(queue, position, count);
    size_t run = count_stamps(queue->emptied, cell_of(queue, position), here,
                              (uint8_t)(stamp_of(queue, position) - 1));

    if (BOP_UNLIKELY(run == here && here < count)) {
        run += count_stamps(queue->emptied, 0, count - here, stamp_of(queue, position));
    }
    return run;
}

/* How many positions from `position` on hold items, up to count. */
static size_t count_items(const struct bounded *queue, uint64_t position, size_t count)
{
    size_t here = until_edge(queue, position, count);
    size_t run = count_stamps(queue->filled, cell_of(queue, position), here,
                              stamp_of(queue, position));

    if (BOP_UNLIKELY(run == here && here < count)) {
        run += count_stamps(queue->filled, 0, count - here,
                            (uint8_t)(stamp_of(queue, position) + 1));
    }
    return run;
}

static void publish_run(struct bounded *queue, uint64_t position, const uint64_t *items,
                        size_t count)
{
    while (count > 0) {
        size_t cell = cell_of(queue, position), here = until_edge(queue, position, count);

        memcpy(&queue->items[cell], items, here * sizeof(*items));
        write_stamps(queue->filled, cell, here, stamp_of(queue, position));
        position += here;
        items += here;
        count -= here;
    }
}

static void take_run(struct bounded *queue, uint64_t position, uint64_t *out_items, size_t count)
{
    while (count > 0) {
        size_t cell = cell_of(queue, position), here = until_edge(queue, position, count);

        memcpy(out_items, &queue->items[cell], here * sizeof(*out_items));
        write_stamps(queue->emptied, cell, here, stamp_of(queue, position));
        position += here;
        out_items += here;
        count -= here;
    }
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
        if (BOP_LIKELY(is_free(queue, tail))) {
            if (BOP_LIKELY(advance(&queue->tail, &tail, 1))) {
                publish(queue, tail, item);
                return 0;
            }
        } else if (!may_get_room(queue, &tail, tail, &rounds)) {
            return BOP_EFULL;
        }
    }
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
        run = count_free(queue, tail, most);
        if (BOP_LIKELY(run >= least)) {
            if (BOP_LIKELY(advance(&queue->tail, &tail, run))) {
                publish_run(queue, tail, items, run);
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
        if (BOP_LIKELY(has_item(queue, head))) {
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
        size_t run = count_items(queue, head, most);

        if (BOP_LIKELY(run > 0)) {
            if (BOP_LIKELY(advance(&queue->head, &head, run))) {
                take_run(queue, head, out_items, run);
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

        while (!has_item(queue, position)) {
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
    uint64_t head = load_index(&queue->head), before;

    do {
        if (has_item(queue, head)) {
            return true;
        }
        before = head;
        head = load_index(&queue->head);
    } while (head != before); /* Else the stamp was of a later lap. */
    return false;
}

/* -- Create, destroy, tokens ------------------------------------------------------------------- */

static int bounded_create(const struct bop_mpmc_options *options, struct bop_allocator *allocator,
                          struct bop_mpmc **out_queue)
{
    /* An allocator aligns for the basic types only. */
    size_t stamps_bytes = (options->capacity + BOP__CACHE_LINE - 1) &
                          ~(size_t)(BOP__CACHE_LINE - 1);
    size_t items_bytes = (options->capacity * sizeof(uint64_t) + BOP__CACHE_LINE - 1) &
                         ~(size_t)(BOP__CACHE_LINE - 1);
    size_t block_bytes = sizeof(struct bounded) + BOP__CACHE_LINE - 1 + items_bytes +
                         2 * stamps_bytes;
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
        .mask = options->capacity - 1,
        .lap_shift = (unsigned)__builtin_ctzll(options->capacity),
        .block = block,
        .block_bytes = block_bytes,
    };
    queue->items = (uint64_t *)(queue + 1);
    queue->filled = (_Atomic uint8_t *)queue->items + items_bytes;
    queue->emptied = queue->filled + stamps_bytes;
    memset(queue->items, 0, items_bytes + 2 * stamps_bytes);
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
