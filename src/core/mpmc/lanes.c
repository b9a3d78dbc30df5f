/*
 * The kind `lanes`: a lane for each producer, and claims for consumers.
 *
 *      producer --> lane 0  ....XXXXXXXXXX|      tail: one store publishes
 *      producer --> lane 1  .......XXXXX|        head: one compare-and-swap claims
 *      (others) --> lane 2  ..XXX|
 *                             \___ claims of consumer tokens, popped one by one
 *
 *   lanes_push.c    the producer's side of a lane, and closing
 *   lanes_block.c   where a lane's items lie: blocks, and the map that finds them
 *   lanes_pop.c     the consumers' side: which lane, and how much to claim
 *   lanes_claim.c   a claim between its owner and those who take it over
 *   lanes_thread.c  which threads are still there
 *   lanes.c         the registry: lanes and consumers, opened, closed, reused
 *
 * Invariants:
 *
 *   (1) A lane has one producer at a time: the token that has it, or of the shared
 *       lanes whoever holds its lock. A lane whose token was closed goes to the next
 *       token that is opened, after the end of what is in it.
 *   (2) head <= tail. Items from head to tail are in the lane; those below head are
 *       popped, or in exactly one claim or rest, or on the way there.
 *   (3) Lanes and consumers are made but not freed before destroy, and linked by
 *       pointers that never change: whoever reads the newest one can walk them all.
 *   (4) A consumer has a place for its order in each lane that can be seen: it is
 *       made with the consumer for the lanes that are there, and by the maker of a
 *       lane, before that is seen, for all consumers. Hence no pop allocates.
 */
#include "lanes.h"

#include <string.h>

void *bop__lanes_alloc_aligned(struct bop_allocator *allocator, size_t size, void **out_memory)
{
    size_t bytes = size + BOP__CACHE_LINE - 1;
    void *memory = bop_alloc_zeroed(allocator, bytes);

    if (!memory) {
        return NULL;
    }
    *out_memory = memory;
    return (void *)(((uintptr_t)memory + BOP__CACHE_LINE - 1) & ~(uintptr_t)(BOP__CACHE_LINE - 1));
}

void bop__lanes_free_aligned(struct bop_allocator *allocator, void *memory, size_t size)
{
    bop_free(allocator, memory, size + BOP__CACHE_LINE - 1);
}

/* -- The order's places ------------------------------------------------------------------------ */

static size_t chunk_bytes(unsigned chunk)
{
    return ((size_t)LANES_CHUNK_FIRST << chunk) * sizeof(uint64_t);
}

static unsigned chunk_of(unsigned lane_id)
{
    return 31u - (unsigned)__builtin_clz(lane_id + LANES_CHUNK_FIRST) -
           (unsigned)__builtin_ctz(LANES_CHUNK_FIRST);
}

/* Have the chunk that a lane of this id needs. Under the registry's lock. */
static int add_chunk(struct lanes *queue, struct lanes_consumer *consumer, unsigned chunk)
{
    uint64_t *received;

    /* Relaxed: written under the lock. */
    if (atomic_load_explicit(&consumer->received[chunk], memory_order_relaxed)) {
        return 0;
    }
    received = bop_alloc_zeroed(queue->base.allocator, chunk_bytes(chunk));
    if (!received) {
        return BOP_ENOMEM;
    }
    /* Release pairs with the acquire of the owner. */
    atomic_store_explicit(&consumer->received[chunk], received, memory_order_release);
    return 0;
}

/* -- Lanes ------------------------------------------------------------------------------------- */

static void free_lane(struct lanes *queue, struct lane *lane)
{
    bop__lane_free_blocks(lane);
    pthread_mutex_destroy(&lane->lock);
    bop__lanes_free_aligned(queue->base.allocator, lane->memory, sizeof(*lane));
}

/* All consumers have a place for the lane. Under the registry's lock. */
static int add_chunks(struct lanes *queue, unsigned lane_id)
{
    /* Relaxed: written under the lock. */
    struct lanes_consumer *consumer = atomic_load_explicit(&queue->consumers, memory_order_relaxed);
    int rc = 0;

    for (; consumer && rc == 0; consumer = consumer->next) {
        rc = add_chunk(queue, consumer, chunk_of(lane_id));
    }
    return rc;
}

static struct lane *new_lane(struct lanes *queue)
{
    void *memory;
    struct lane *lane = bop__lanes_alloc_aligned(queue->base.allocator, sizeof(*lane), &memory);

    if (!lane) {
        return NULL;
    }
    lane->memory = memory;
    lane->queue = queue;
    lane->id = queue->lane_count;
    if (bop__lane_map_init(lane) < 0) {
        bop__lanes_free_aligned(queue->base.allocator, memory, sizeof(*lane));
        return NULL;
    }
    pthread_mutex_init(&lane->lock, NULL); /* Of the default kind: it cannot fail. */
    return lane;
}

int bop__lanes_lane_make(struct lanes *queue, struct lane **out_lane)
{
    struct lane *lane = new_lane(queue);

    if (!lane) {
        return BOP_ENOMEM;
    }
    if (add_chunks(queue, lane->id) < 0) {
        free_lane(queue, lane);
        return BOP_ENOMEM;
    }
    queue->lane_count++;
    /* Relaxed: written under the lock. */
    lane->next = atomic_load_explicit(&queue->lanes, memory_order_relaxed);
    /* Release pairs with the acquires of whoever walks the lanes. */
    atomic_store_explicit(&queue->lanes, lane, memory_order_release);
    *out_lane = lane;
    return 0;
}

/* A lane that had a token and has none. Under the registry's lock. */
static struct lane *unused_lane(struct lanes *queue)
{
    /* Relaxed: written under the lock. */
    struct lane *lane = atomic_load_explicit(&queue->lanes, memory_order_relaxed);

    while (lane && lane->in_use) {
        lane = lane->next;
    }
    return lane;
}

static int lanes_producer_open(struct bop_mpmc *base, struct bop_mpmc_producer **out_producer)
{
    struct lanes *queue = lanes_of(base);
    struct lane *lane;
    int rc = 0;

    pthread_mutex_lock(&queue->registry);
    lane = unused_lane(queue);
    if (!lane) {
        rc = bop__lanes_lane_make(queue, &lane);
    }
    if (rc == 0) {
        lane->in_use = true;
        *out_producer = &lane->producer;
    }
    pthread_mutex_unlock(&queue->registry);
    return rc;
}

static void lanes_producer_close(struct bop_mpmc_producer *producer)
{
    struct lane *lane = (struct lane *)producer;

    pthread_mutex_lock(&lane->queue->registry);
    lane->in_use = false;
    pthread_mutex_unlock(&lane->queue->registry);
}

/* -- Consumers --------------------------------------------------------------------------------- */

static void free_consumer(struct lanes *queue, struct lanes_consumer *consumer)
{
    for (unsigned i = 0; i < LANES_CHUNKS; i++) {
        /* Relaxed: nobody else has it. */
        bop_free(queue->base.allocator,
                 atomic_load_explicit(&consumer->received[i], memory_order_relaxed),
                 chunk_bytes(i));
    }
    pthread_mutex_destroy(&consumer->lock);
    bop__lanes_free_aligned(queue->base.allocator, consumer->memory, sizeof(*consumer));
}

/* Under the registry's lock. */
static struct lanes_consumer *new_consumer(struct lanes *queue)
{
    void *memory;
    struct lanes_consumer *consumer = bop__lanes_alloc_aligned(queue->base.allocator,
                                                               sizeof(*consumer), &memory);

    if (!consumer) {
        return NULL;
    }
    consumer->memory = memory;
    consumer->base.queue = &queue->base;
    pthread_mutex_init(&consumer->lock, NULL); /* Of the default kind: it cannot fail. */
    for (unsigned id = 0; id < queue->lane_count; id++) {
        if (add_chunk(queue, consumer, chunk_of(id)) < 0) {
            free_consumer(queue, consumer);
            return NULL;
        }
    }
    /* Relaxed: written under the lock. */
    consumer->next = atomic_load_explicit(&queue->consumers, memory_order_relaxed);
    /* Release pairs with the acquires of whoever walks the consumers. */
    atomic_store_explicit(&queue->consumers, consumer, memory_order_release);
    return consumer;
}

/* Open a closed consumer anew, if nothing is left in it. */
static bool reuse(struct lanes_consumer *consumer)
{
    bool reused = false;

    if (pthread_mutex_trylock(&consumer->lock) != 0) {
        return false;
    }
    /* Relaxed: written under the lock. */
    if (atomic_load_explicit(&consumer->closed, memory_order_relaxed) &&
        consumer->rest.count == 0 && bop__claim_left(consumer) == 0) {
        uint64_t at = atomic_load_explicit(&consumer->at, memory_order_relaxed);

        /* Nothing is left of the old claim: all its words say so. */
        consumer->claim_end = at;
        atomic_store_explicit(&consumer->end, at, memory_order_relaxed);
        for (unsigned i = 0; i < LANES_CHUNKS; i++) {
            uint64_t *received = atomic_load_explicit(&consumer->received[i], memory_order_relaxed);

            if (received) {
                memset(received, 0, chunk_bytes(i));
            }
        }
        /* Relaxed: thieves read it under the lock, or as a hint. */
        atomic_store_explicit(&consumer->closed, false, memory_order_relaxed);
        reused = true;
    }
    pthread_mutex_unlock(&consumer->lock);
    return reused;
}

static int lanes_consumer_open(struct bop_mpmc *base, unsigned claim_ahead,
                               struct bop_mpmc_consumer **out_consumer)
{
    struct lanes *queue = lanes_of(base);
    struct lanes_consumer *consumer;

    pthread_mutex_lock(&queue->registry);
    /* Relaxed: written under the lock. */
    consumer = atomic_load_explicit(&queue->consumers, memory_order_relaxed);
    while (consumer && !reuse(consumer)) {
        consumer = consumer->next;
    }
    if (!consumer) {
        consumer = new_consumer(queue);
    }
    if (consumer) {
        consumer->claim_ahead = claim_ahead ? claim_ahead : LANES_CLAIM;
        consumer->claim_backlog = claim_ahead ? claim_ahead : LANES_CLAIM_BACKLOG;
        consumer->budget = 0;
        consumer->cursor = NULL;
        /* Relaxed: a hint. */
        atomic_fetch_add_explicit(&queue->consumers_open, 1, memory_order_relaxed);
        *out_consumer = &consumer->base;
    }
    pthread_mutex_unlock(&queue->registry);
    return consumer ? 0 : BOP_ENOMEM;
}

static void lanes_consumer_close(struct bop_mpmc_consumer *token)
{
    struct lanes_consumer *consumer = (struct lanes_consumer *)token;

    /* Relaxed: a hint. */
    atomic_fetch_sub_explicit(&lanes_of(token->queue)->consumers_open, 1, memory_order_relaxed);
    bop__claim_close(consumer);
}

/* -- The queue --------------------------------------------------------------------------------- */

static int lanes_create(const struct bop_mpmc_options *options, struct bop_allocator *allocator,
                        struct bop_mpmc **out_queue)
{
    void *memory;
    struct lanes *queue = bop__lanes_alloc_aligned(allocator, sizeof(*queue), &memory);

    if (!queue) {
        return BOP_ENOMEM;
    }
    queue->memory = memory;
    bop__lanes_set_limit(queue, options->memory_bytes_max);
    pthread_mutex_init(&queue->registry, NULL); /* Of the default kind: it cannot fail. */
    *out_queue = &queue->base;
    return 0;
}

static void lanes_destroy(struct bop_mpmc *base)
{
    struct lanes *queue = lanes_of(base);
    struct bop_allocator *allocator = base->allocator;
    /* Relaxed: nobody else has the queue. */
    struct lane *lane = atomic_load_explicit(&queue->lanes, memory_order_relaxed), *next_lane;
    struct lanes_consumer *consumer = atomic_load_explicit(&queue->consumers, memory_order_relaxed),
                          *next_consumer;

    for (; lane; lane = next_lane) {
        next_lane = lane->next;
        free_lane(queue, lane);
    }
    for (; consumer; consumer = next_consumer) {
        next_consumer = consumer->next;
        free_consumer(queue, consumer);
    }
    pthread_mutex_destroy(&queue->registry);
    bop__lanes_free_aligned(allocator, queue->memory, sizeof(*queue));
}

static size_t lanes_size(const struct bop_mpmc *base)
{
    struct lanes *queue = lanes_of((struct bop_mpmc *)base);
    /* Acquire, both: pair with the releases of who made the newest. */
    struct lane *lane = atomic_load_explicit(&queue->lanes, memory_order_acquire);
    struct lanes_consumer *consumer = atomic_load_explicit(&queue->consumers, memory_order_acquire);
    size_t size = 0;

    for (; lane; lane = lane->next) {
        /* Acquire: tail is not read older than head, so the difference is not below 0. */
        uint64_t head = atomic_load_explicit(&lane->head, memory_order_acquire);

        /* Relaxed: a number. */
        size += (size_t)(atomic_load_explicit(&lane->tail, memory_order_relaxed) - head);
    }
    for (; consumer; consumer = consumer->next) {
        size += bop__claim_left(consumer);
        /* Relaxed: a number. */
        size += atomic_load_explicit(&consumer->rest_count, memory_order_relaxed);
    }
    return size;
}

static size_t lanes_memory_bytes(const struct bop_mpmc *base)
{
    /* Relaxed: a number. */
    return (size_t)atomic_load_explicit(&lanes_of((struct bop_mpmc *)base)->block_bytes,
                                        memory_order_relaxed);
}

const struct bop__mpmc_ops bop__mpmc_lanes_ops = {
    .create = lanes_create,
    .destroy = lanes_destroy,
    .push = bop__lanes_push,
    .push_bulk = bop__lanes_push_bulk,
    .pop = bop__lanes_pop,
    .pop_bulk = bop__lanes_pop_bulk,
    .pop_last_look = bop__lanes_pop_last_look,
    .producer_open = lanes_producer_open,
    .producer_close = lanes_producer_close,
    .consumer_open = lanes_consumer_open,
    .consumer_close = lanes_consumer_close,
    .close = bop__lanes_close,
    .size = lanes_size,
    .memory_bytes = lanes_memory_bytes,
    .worth_a_look = bop__lanes_worth_a_look,
};
