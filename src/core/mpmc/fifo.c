/*
 * The kind `fifo`: unbounded, linearizable, lock-free.
 *
 * A list of segments (fifo_segment.h has their layout). Producers work in the
 * one that `tail` names, consumers in the one that `head` names. After Correia
 * and Ramalhete's FAAArrayQueue (2016), with two changes:
 *
 *   - A bulk is not one cell an item. Its items go as a run of plain cells to the
 *     other end of the segment, reserved together with one slot by one operation;
 *     one compare-and-swap of that slot then publishes all of them at once.
 *   - So that consumers can share a run, in order, a consumer reserves nothing
 *     ahead: it looks at the slot at `dequeue` and moves that on, past the slot or
 *     by some items inside its run, with one compare-and-swap.
 *
 *      push    reserve a slot: fetch-and-add on `enqueue`. Publish: EMPTY -> item in the slot.
 *      bulk    reserve a slot and cells: compare-and-swap on `enqueue`. Write the cells. Publish:
 *              EMPTY -> run in the slot. All or none, whatever happens in between.
 *      pop     read the slot at `dequeue`, move `dequeue` on.
 *      late    a consumer that finds the slot EMPTY looks again for about a microsecond, then gives
 *              it up: EMPTY -> TAKEN. Its producer's publishing fails; it takes another slot.
 *      grow    where a segment has no room, its producer puts the items into a new one, or a chain
 *              of them, that nobody knows, closes the segment, and links the new one behind it with
 *              one compare-and-swap of `next`: again all or none.
 *
 * Invariants, beside those of the segment:
 *
 *   (1) A segment has a successor only after it is closed or its slots are all reserved, so that
 *       none is reserved after that.
 *   (2) `dequeue` only moves over slots that are not EMPTY, and each move is one consumer's. The
 *       head moves on only from a segment that has a successor and whose slots are all behind
 *       `dequeue`.
 *   (3) The tail is never before the head.
 *   (4) Nobody reads a segment that its hazard pointer does not name (fifo_hazard.h), and no cell
 *       of a segment is written again while somebody's does.
 *
 * Why it is linearizable. Slots are totally ordered: by segment, then by index;
 * the order of reservation. A push takes effect when it reserves the slot that it
 * later publishes in, or when its segments are linked; it lies between the call
 * and its return either way. A pop takes effect when it moves `dequeue`; by (2) all
 * moves are in the order of the slots, and inside a run in that of its items. So
 * items leave in the order in which their pushes took effect; slots given up
 * belong to pushes that take effect later. A pop that answers "empty" has read
 * `dequeue` at slot s, then at most s slots in `enqueue`, then no successor. When
 * it read `enqueue` no slot that was reserved lay at or behind s, and by (2) all
 * before had been consumed or given up, and without a successor later there was
 * none then: it takes effect at that read.
 *
 * Why it is lock-free. A consumer waits for a slot a bounded number of looks. A
 * producer tries again only after a consumer gave up its slot, or because another
 * has linked a segment or moved the tail; a consumer, only because another has
 * moved on. A compare-and-swap fails only if another's succeeded. Consumers could
 * give up one slot after the other under producers that are always late; but a
 * segment has an end, and the push that links the next one has its item in it.
 *
 * Closing closes the tail, puts a mark where a successor would be linked, and
 * gives up every slot that is still EMPTY: what was not published before that
 * never will be.
 *
 * Memory. A segment that no hazard pointer names goes to a few spares or back to
 * the allocator at once (fifo_segment.c). A token that idles pins one segment.
 *
 * The size is counted: what is left in the head segment slot by slot, what the
 * others hold by their words, minus the items whose slots were given up, which
 * their producers have counted.
 */
#include <limits.h>

#include "fifo.h"

static int fifo_create(const struct bop_mpmc_options *options, struct bop_allocator *allocator,
                       struct bop_mpmc **out_queue)
{
    /* An allocator aligns for the basic types only. */
    size_t block_bytes = sizeof(struct bop__fifo) + BOP__CACHE_LINE - 1;
    void *block = bop_alloc_zeroed(allocator, block_bytes);
    struct bop__fifo_segment *first;
    struct bop__fifo *queue;
    int rc;

    if (!block) {
        return BOP_ENOMEM;
    }
    queue = (struct bop__fifo *)(((uintptr_t)block + BOP__CACHE_LINE - 1) &
                                 ~(uintptr_t)(BOP__CACHE_LINE - 1));
    queue->block = block;
    queue->block_bytes = block_bytes;
    queue->base.allocator = allocator;
    queue->base.memory_bytes_max = SIZE_MAX;
    queue->store.queue = &queue->base;
    queue->hazards.store = &queue->store;
    queue->hazards.allocator = allocator;
    rc = bop__fifo_store_take(&queue->store, BOP__FIFO_SMALL, 0, &first);
    if (rc < 0) {
        bop_free(allocator, block, block_bytes);
        return rc;
    }
    atomic_init(&queue->segments, 1);
    atomic_init(&queue->tail, first);
    atomic_init(&queue->head, first);
    *out_queue = &queue->base;
    return 0;
}

static void fifo_destroy(struct bop_mpmc *base)
{
    struct bop__fifo *queue = bop__fifo_of(base);
    /* Relaxed: the queue is the caller's alone. */
    struct bop__fifo_segment *segment = atomic_load_explicit(&queue->head, memory_order_relaxed);
    struct bop__fifo_segment *next;

    bop__fifo_hazards_deinit(&queue->hazards);
    for (; bop__fifo_is_segment(segment); segment = next) {
        next = atomic_load_explicit(&segment->next, memory_order_relaxed);
        bop__fifo_store_give(&queue->store, segment);
    }
    bop__fifo_store_deinit(&queue->store);
    bop_free(base->allocator, queue->block, queue->block_bytes);
}

/* -- Tokens ------------------------------------------------------------------------------------ */

static int fifo_producer_open(struct bop_mpmc *base, struct bop_mpmc_producer **out_producer)
{
    struct bop__fifo *queue = bop__fifo_of(base);
    struct bop__fifo_producer *producer = bop_alloc(base->allocator, sizeof(*producer));
    struct bop__fifo_hazard *hazard = producer ? bop__fifo_hazard_open(&queue->hazards) : NULL;

    if (!hazard) {
        bop_free(base->allocator, producer, sizeof(*producer));
        return BOP_ENOMEM;
    }
    *producer = (struct bop__fifo_producer){.base.queue = base, .hazard = hazard};
    *out_producer = &producer->base;
    return 0;
}

static void fifo_producer_close(struct bop_mpmc_producer *base)
{
    struct bop__fifo_producer *producer = BOP_CONTAINER_OF(base, struct bop__fifo_producer, base);
    struct bop__fifo *queue = bop__fifo_of(base->queue);

    bop__fifo_hazard_close(&queue->hazards, producer->hazard);
    bop_free(queue->base.allocator, producer, sizeof(*producer));
}

static int fifo_consumer_open(struct bop_mpmc *base, unsigned claim_ahead,
                              struct bop_mpmc_consumer **out_consumer)
{
    struct bop__fifo *queue = bop__fifo_of(base);
    struct bop__fifo_consumer *consumer = bop_alloc(base->allocator, sizeof(*consumer));
    struct bop__fifo_hazard *hazard = consumer ? bop__fifo_hazard_open(&queue->hazards) : NULL;

    if (!hazard) {
        bop_free(base->allocator, consumer, sizeof(*consumer));
        return BOP_ENOMEM;
    }
    *consumer = (struct bop__fifo_consumer){.base.queue = base, .hazard = hazard};
    *out_consumer = &consumer->base;
    return 0;
}

static void fifo_consumer_close(struct bop_mpmc_consumer *base)
{
    struct bop__fifo_consumer *consumer = BOP_CONTAINER_OF(base, struct bop__fifo_consumer, base);
    struct bop__fifo *queue = bop__fifo_of(base->queue);

    bop__fifo_hazard_close(&queue->hazards, consumer->hazard);
    bop_free(queue->base.allocator, consumer, sizeof(*consumer));
}

/* -- All segments ------------------------------------------------------------------------------ */

/* Call visit for each segment from the head on. While the head stays where it was, nothing behind
 * it can be retired: so each next one is protected first, and then the head looked at again. False:
 * the head has moved. */
static bool walk(struct bop__fifo *queue, struct bop__fifo_hazard *first,
                 struct bop__fifo_hazard *other,
                 void (*visit)(struct bop__fifo_segment *segment, bool is_head, void *user),
                 void *user)
{
    struct bop__fifo_segment *head = bop__fifo_hazard_protect(&queue->hazards, first, &queue->head);
    struct bop__fifo_segment *segment = head;

    for (;;) {
        visit(segment, segment == head, user);
        /* Acquire pairs with the release that linked it. */
        segment = atomic_load_explicit(&segment->next, memory_order_acquire);
        if (!bop__fifo_is_segment(segment)) {
            return true;
        }
        /* Sequentially consistent, both, as in fifo_hazard.c. */
        atomic_store_explicit(&other->segment, segment, memory_order_seq_cst);
        if (atomic_load_explicit(&queue->head, memory_order_seq_cst) != head) {
            return false;
        }
    }
}

/* Walk until it gets through, or so many times. start is called before each. */
static void walk_all(struct bop__fifo *queue, unsigned tries_max, void (*start)(void *user),
                     void (*visit)(struct bop__fifo_segment *segment, bool is_head, void *user),
                     void *user)
{
    /* One of each role: who waits for the second for lack of memory waits for producers only. */
    struct bop__fifo_hazard *first = bop__fifo_hazard_borrow(&queue->hazards, BOP__FIFO_CONSUMER);
    struct bop__fifo_hazard *other = bop__fifo_hazard_borrow(&queue->hazards, BOP__FIFO_PRODUCER);
    bool through = false;

    while (!through && tries_max-- > 0) {
        start(user);
        through = walk(queue, first, other, visit, user);
    }
    bop__fifo_hazard_drop(&queue->hazards, other);
    bop__fifo_hazard_return(&queue->hazards, other);
    bop__fifo_hazard_return(&queue->hazards, first);
}

static void start_count(void *user)
{
    *(size_t *)user = 0;
}

static void count_items(struct bop__fifo_segment *segment, bool is_head, void *user)
{
    *(size_t *)user += is_head ? bop__fifo_segment_left(segment) : bop__fifo_segment_items(segment);
}

/* At rest the first walk gets through. Else the head must have moved on in each of these, and what
 * the last one saw will do. */
#define SIZE_WALKS_MAX 8

static size_t fifo_size(const struct bop_mpmc *base)
{
    struct bop__fifo *queue = bop__fifo_of((struct bop_mpmc *)base); /* To borrow records. */
    size_t items = 0;

    walk_all(queue, SIZE_WALKS_MAX, start_count, count_items, &items);
    return items;
}

static size_t fifo_memory_bytes(const struct bop_mpmc *base)
{
    struct bop__fifo *queue = bop__fifo_of((struct bop_mpmc *)base);

    /* Relaxed: a count. */
    return atomic_load_explicit(&queue->store.bytes, memory_order_relaxed);
}

/* -- Closing ----------------------------------------------------------------------------------- */

/* Let no segment follow this one. False: one does. */
static bool seal(struct bop__fifo_segment *tail)
{
    struct bop__fifo_segment *expected = NULL;

    bop__fifo_segment_close(tail);
    /* Release: who sees the mark sees the segment closed. Failure is relaxed: only compared. */
    while (!atomic_compare_exchange_strong_explicit(&tail->next, &expected, &bop__fifo_next_closed,
                                                    memory_order_release, memory_order_relaxed)) {
        if (expected != &bop__fifo_next_full) {
            return expected == &bop__fifo_next_closed;
        }
    }
    return true;
}

static void start_nothing(void *user)
{
}

/* Give up the slots whose producers have not come yet: their pushes fail. */
static void give_up_slots(struct bop__fifo_segment *segment, bool is_head, void *user)
{
    uint32_t limit = bop__fifo_segment_limit(segment);

    for (uint32_t slot = 0; slot < limit; slot++) {
        uint64_t expected = BOP__FIFO_EMPTY;

        /* Relaxed, both: TAKEN hands nothing over. */
        if (atomic_load_explicit(&segment->cells[slot], memory_order_relaxed) == BOP__FIFO_EMPTY) {
            atomic_compare_exchange_strong_explicit(&segment->cells[slot], &expected,
                                                    BOP__FIFO_TAKEN, memory_order_relaxed,
                                                    memory_order_relaxed);
        }
    }
}

static void fifo_close(struct bop_mpmc *base)
{
    struct bop__fifo *queue = bop__fifo_of(base);
    struct bop__fifo_hazard *hazard = bop__fifo_hazard_borrow(&queue->hazards, BOP__FIFO_PRODUCER);
    struct bop__fifo_segment *tail, *next, *expected;

    for (;;) {
        tail = bop__fifo_hazard_protect(&queue->hazards, hazard, &queue->tail);
        if (seal(tail)) {
            break;
        }
        /* Acquire pairs with the link. The exchange: see link_chain() in fifo_push.c. */
        next = atomic_load_explicit(&tail->next, memory_order_acquire);
        expected = tail;
        atomic_compare_exchange_strong_explicit(&queue->tail, &expected, next, memory_order_seq_cst,
                                                memory_order_relaxed);
    }
    bop__fifo_hazard_return(&queue->hazards, hazard);
    /* No slot is reserved any more. Only pops move the head now, each over a whole segment, so this
     * ends. */
    walk_all(queue, UINT_MAX, start_nothing, give_up_slots, NULL);
}

const struct bop__mpmc_ops bop__mpmc_fifo_ops = {
    .create = fifo_create,
    .destroy = fifo_destroy,
    .push = bop__fifo_push,
    .push_bulk = bop__fifo_push_bulk,
    .pop = bop__fifo_pop,
    .pop_bulk = bop__fifo_pop_bulk,
    .producer_open = fifo_producer_open,
    .producer_close = fifo_producer_close,
    .consumer_open = fifo_consumer_open,
    .consumer_close = fifo_consumer_close,
    .close = fifo_close,
    .size = fifo_size,
    .memory_bytes = fifo_memory_bytes,
};
