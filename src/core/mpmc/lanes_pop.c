/*
 * The consumers' side of the lanes.
 *
 * A consumer token first pops from its claim. When that is used up it claims from
 * the lane that it is at, and after LANES_BUDGET items, or when there is nothing,
 * from the next one. How much it claims: no more than claim_ahead; no more than
 * its share of what is there, if others consume too; and one item only, which is
 * no claim, while somebody waits for items. Without a token a consumer takes what
 * it returns and no more.
 *
 * A pop that finds all lanes empty looks for claims to take over. The last look
 * does that too, and takes busy owners' as well: lanes first, claims afterwards,
 * as lanes_claim.c needs it.
 */
#include "lanes.h"

#include <string.h>

#include "front.h"
#include "lanes_hot.h"

#define ITEMS_A_LINE 8u
#define PREFETCH_MAX 128u /* Items; 16 lines. */
#define BACKLOG_PART 4u   /* Of its share of a backlog a consumer claims one in so many items. */

static struct lane *first_lane(struct lanes *queue)
{
    /* Acquire pairs with the release of who made the newest lane. */
    return atomic_load_explicit(&queue->lanes, memory_order_acquire);
}

static struct lane *next_lane(struct lanes *queue, const struct lane *lane)
{
    return lane->next ? lane->next : first_lane(queue);
}

/* The items of a lane behind head: at least `enough` of them, or as many as there are. `tail` is in
 * the producer's line, so it is only read when what was seen of it before does not do. */
static uint64_t items_behind(struct lane *lane, uint64_t head, uint64_t enough)
{
    /* Acquire pairs with the release below: with the figure comes what the push of those items
     * made visible to who has read it from `tail`. */
    uint64_t tail = atomic_load_explicit(&lane->tail_seen, memory_order_acquire);

    if ((int64_t)(tail - head) < (int64_t)enough) {
        /* Acquire pairs with the release of the push. */
        tail = atomic_load_explicit(&lane->tail, memory_order_acquire);
        /* Release: as above. An older figure that overwrites a newer one is only less. */
        atomic_store_explicit(&lane->tail_seen, tail, memory_order_release);
    }
    return tail - head;
}

/* Have what the next pop of as many will read on its way meanwhile, as each pop ends with a
 * read-modify-write that waits for its reads. Only whole lines of what is published: the producer
 * still writes to the others. */
static void prefetch_behind(const struct lane_run *run, uint64_t behind)
{
    const struct lane_block *block = run->block;
    uint64_t from = run->index + run->count - block->base;
    uint64_t end = bop_min_u64(from + bop_min_u64(behind, bop_min_u64(run->count, PREFETCH_MAX)),
                               block->capacity);

    for (; from + ITEMS_A_LINE <= end; from += ITEMS_A_LINE) {
        __builtin_prefetch(&block->items[from]);
    }
}

/* How many items to claim, at most and of which backlog for how many consumers. */
struct claim_size {
    unsigned most;
    unsigned most_of_backlog; /* Each claim costs two read-modify-writes on lines that all share. */
    unsigned share;           /* One in so many. */
};

/* Of so many items that are there. */
static uint64_t claim_count(const struct claim_size *size, uint64_t there)
{
    uint64_t of_backlog = bop_min_u64(there / BACKLOG_PART / size->share, size->most_of_backlog);
    uint64_t count = size->most > 1 ? (there + size->share - 1) / size->share : there;

    return bop_min_u64(count, bop_max_u64(size->most, of_backlog));
}

/* Claim a run of items. */
static bool claim_run(struct lane *lane, const struct claim_size *size, struct lane_run *out_run)
{
    /* Acquire pairs with the release below: `tail` is not read older than this head. */
    uint64_t head = atomic_load_explicit(&lane->head, memory_order_acquire);
    uint64_t there, count;

    do {
        there = items_behind(lane, head, (uint64_t)size->most * size->share);
        if (there == 0) {
            return false;
        }
        /* A run lies in one block. */
        count = bop_min_u64(claim_count(size, there), LANE_UNIT - head % LANE_UNIT);
        /* acq_rel: release holds the mark `claiming` before it; acquire on both ways, as above. */
    } while (!atomic_compare_exchange_weak_explicit(&lane->head, &head, head + count,
                                                    memory_order_acq_rel, memory_order_acquire));
    out_run->lane = lane;
    out_run->block = bop__lane_block_of(lane, head);
    out_run->index = head;
    out_run->count = (unsigned)count;
    prefetch_behind(out_run, there - count);
    return true;
}

/* Take items from a lane for good, as many as there are. */
static size_t take_from(struct lane *lane, struct lanes_consumer *consumer, uint64_t *out_items,
                        size_t count)
{
    struct claim_size size = {.share = 1};
    struct lane_run run;
    size_t got = 0;

    while (got < count) {
        size.most = (unsigned)bop_min_u64(count - got, LANE_UNIT);
        if (!claim_run(lane, &size, &run)) {
            break;
        }
        memcpy(&out_items[got], &run.block->items[run.index - run.block->base],
               run.count * sizeof(*out_items));
        got += run.count;
        if (consumer) {
            bop__lanes_note_received(consumer, lane, run.index + run.count);
        }
        bop__lane_done(lane, run.block, run.count);
    }
    return got;
}

/* -- One item, with a token -------------------------------------------------------------------- */

static struct claim_size claim_size(const struct lanes *queue,
                                    const struct lanes_consumer *consumer)
{
    /* Relaxed, both: hints. A waiter that comes just now is woken after the claim. */
    unsigned open = atomic_load_explicit(&queue->consumers_open, memory_order_relaxed);
    bool waiter = atomic_load_explicit(&queue->base.not_empty.word, memory_order_relaxed) != 0;

    return (struct claim_size){.most = waiter ? 1 : consumer->claim_ahead,
                               .most_of_backlog = waiter ? 1 : consumer->claim_backlog,
                               .share = open > 1 ? open : 1};
}

/* Pop from a lane, and claim more. */
static bool claim_from(struct lane *lane, struct lanes_consumer *consumer, uint64_t *out_item)
{
    struct lanes *queue = lane->queue;
    struct claim_size size = claim_size(queue, consumer);
    struct lane_run run;

    if (size.most > 1) {
        /* Relaxed: the exchange of head, or the lock of a thief, holds it before. */
        atomic_store_explicit(&consumer->claiming, 1, memory_order_relaxed);
    }
    if (!claim_run(lane, &size, &run)) {
        /* Relaxed: nothing was claimed. */
        atomic_store_explicit(&consumer->claiming, 0, memory_order_relaxed);
        return false;
    }
    *out_item = run.block->items[run.index - run.block->base];
    consumer->budget -= (unsigned)bop_min_u64(consumer->budget, run.count);
    if (run.count > 1) {
        bop__claim_publish(consumer, &run, 1);
        bop__mpmc_signal_not_empty(&queue->base, 1); /* For who looked in between. */
        return true;
    }
    /* Relaxed: what was claimed is popped. */
    atomic_store_explicit(&consumer->claiming, 0, memory_order_relaxed);
    bop__lanes_note_received(consumer, lane, run.index + 1);
    bop__lane_done(lane, run.block, 1);
    return true;
}

/* The lane whose turn it is; NULL if there are none. */
static struct lane *turn_of(struct lanes *queue, struct lanes_consumer *consumer)
{
    struct lane *lane = consumer->cursor;

    if (!lane) {
        lane = first_lane(queue);
    } else if (consumer->budget == 0) {
        lane = next_lane(queue, lane);
    } else {
        return lane;
    }
    consumer->budget = LANES_BUDGET;
    return lane;
}

/* The claim is used up. */
static int pop_elsewhere(struct lanes *queue, struct lanes_consumer *consumer, uint64_t *out_item)
{
    struct lane *start = turn_of(queue, consumer), *lane = start;
    bool elsewhere = false;

    if (bop__claim_take_rest(consumer, out_item, 1) > 0) {
        return 1;
    }
    /* Relaxed: a hint; who must not miss an orphan gets to the last look. */
    if (BOP_UNLIKELY(atomic_load_explicit(&queue->orphans, memory_order_relaxed) > 0) &&
        bop__lanes_take_over(queue, consumer, out_item, 1, TAKEOVER_ORPHANS, &elsewhere) > 0) {
        return 1;
    }
    if (!lane) {
        return 0;
    }
    do {
        if (claim_from(lane, consumer, out_item)) {
            consumer->cursor = lane;
            return 1;
        }
        lane = next_lane(queue, lane);
        consumer->budget = LANES_BUDGET;
    } while (lane != start);
    consumer->cursor = start;
    return (int)bop__lanes_take_over(queue, consumer, out_item, 1, TAKEOVER_IDLE, &elsewhere);
}

int bop__lanes_pop(struct bop_mpmc *base, struct bop_mpmc_consumer *token, uint64_t *out_item)
{
    struct lanes_consumer *consumer = (struct lanes_consumer *)token;

    if (BOP_UNLIKELY(!consumer)) {
        return (int)bop__lanes_pop_bulk(base, NULL, out_item, 1);
    }
    return bop__claim_pop(consumer, out_item) || pop_elsewhere(lanes_of(base), consumer, out_item);
}

/* -- Several items, or without a token --------------------------------------------------------- */

/* Items of the consumer's own claim. */
static size_t pop_claimed(struct lanes_consumer *consumer, uint64_t *out_items, size_t count)
{
    /* Relaxed: only the owner writes it. */
    uint64_t at = atomic_load_explicit(&consumer->at, memory_order_relaxed);
    unsigned mine = (unsigned)bop_min_u64(consumer->claim_end - at, count);

    if (mine == 0) {
        return 0;
    }
    /* Relaxed, both: as in bop__claim_pop(). */
    atomic_store_explicit(&consumer->at, at + mine, memory_order_relaxed);
    bop__fence_hot();
    if (BOP_UNLIKELY(at + mine > atomic_load_explicit(&consumer->end, memory_order_relaxed))) {
        mine = bop__claim_contended(consumer, at, mine);
    }
    /* Relaxed: our own. */
    memcpy(out_items,
           &atomic_load_explicit(&consumer->items, memory_order_relaxed)[at & CLAIM_OFFSET_MASK],
           mine * sizeof(*out_items));
    if (at + mine == consumer->claim_end) {
        bop__claim_finish(consumer);
    }
    return mine;
}

/* Where to begin without a token: threads begin at different lanes, and each at another one the
 * next time. */
static struct lane *any_turn(struct lanes *queue)
{
    static _Thread_local unsigned turn;
    struct lane *lane = first_lane(queue);

    for (unsigned i = (bop__lanes_thread_number() + turn++ / LANES_BUDGET) % LANES_SHARED;
         i > 0 && lane; i--) {
        lane = next_lane(queue, lane);
    }
    return lane;
}

static size_t pop_lanes(struct lanes *queue, struct lanes_consumer *consumer, uint64_t *out_items,
                        size_t count)
{
    struct lane *start = consumer ? turn_of(queue, consumer) : any_turn(queue), *lane = start;
    size_t got = 0;

    if (!lane) {
        return 0;
    }
    do {
        size_t from_lane = take_from(lane, consumer, &out_items[got], count - got);

        got += from_lane;
        if (got == count) {
            break;
        }
        lane = next_lane(queue, lane);
        if (consumer) {
            consumer->budget = LANES_BUDGET;
        }
    } while (lane != start);
    if (consumer) {
        consumer->cursor = lane;
        consumer->budget -= (unsigned)bop_min_u64(consumer->budget, got);
    }
    return got;
}

size_t bop__lanes_pop_bulk(struct bop_mpmc *base, struct bop_mpmc_consumer *token,
                           uint64_t *out_items, size_t count)
{
    struct lanes_consumer *consumer = (struct lanes_consumer *)token;
    struct lanes *queue = lanes_of(base);
    size_t got = consumer ? pop_claimed(consumer, out_items, count) : 0;
    bool elsewhere = false;

    if (consumer && got < count) {
        got += bop__claim_take_rest(consumer, &out_items[got], count - got);
    }
    /* Relaxed: as in pop_elsewhere(). */
    if (got < count && atomic_load_explicit(&queue->orphans, memory_order_relaxed) > 0) {
        got += bop__lanes_take_over(queue, consumer, &out_items[got], count - got, TAKEOVER_ORPHANS,
                                    &elsewhere);
    }
    if (got < count) {
        got += pop_lanes(queue, consumer, &out_items[got], count - got);
    }
    if (got == 0) {
        got = bop__lanes_take_over(queue, consumer, out_items, count, TAKEOVER_IDLE, &elsewhere);
    }
    return got;
}

ssize_t bop__lanes_pop_last_look(struct bop_mpmc *base, struct bop_mpmc_consumer *token,
                                 uint64_t *out_items, size_t count)
{
    size_t got = bop__lanes_pop_bulk(base, token, out_items, count);
    bool elsewhere = false;

    if (got == 0) {
        got = bop__lanes_take_over(lanes_of(base), (struct lanes_consumer *)token, out_items, count,
                                   TAKEOVER_ALL, &elsewhere);
    }
    return got > 0 ? (ssize_t)got : elsewhere ? BOP__MPMC_ELSEWHERE : 0;
}
