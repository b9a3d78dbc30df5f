/*
 * The producer's side of a lane.
 *
 * A push writes its items and then publishes all of them with one store to
 * `tail`; there is no read-modify-write in it. Around that it says that it is
 * `pushing`, so that close can be strict without any cost here:
 *
 *      push                              close
 *      pushing = 1                       state = CLOSING
 *      hot fence                         rare fence
 *      state is OPEN? else give up       wait until no lane is pushing
 *      write, publish
 *      pushing = 0
 *
 * Either the push sees CLOSING or close sees it pushing, and waits; so when close
 * returns no push succeeds any more, and all that did are published.
 */
#include "lanes.h"

#include <sched.h>
#include <string.h>

#include "lanes_hot.h"

/* Make the next block the current one. Only when the current one is full. */
static int next_room(struct lane *lane, unsigned flags)
{
    struct lane_room room;
    int rc = bop__lane_gather(lane, 1, flags, &room);

    if (rc == 0) {
        rc = bop__lane_install(lane, &room, flags);
    }
    if (rc < 0) {
        return rc;
    }
    lane->room = room.first->items;
    lane->room_base = room.first->base;
    lane->room_end = room.first->base + room.first->capacity;
    return 0;
}

/* The lane for a thread without a token, locked. */
static int lock_shared(struct lanes *queue, unsigned flags, struct lane **out_lane)
{
    _Atomic(struct lane *) *place = &queue->shared[bop__lanes_thread_number() % LANES_SHARED];
    /* Acquire pairs with the release below. */
    struct lane *lane = atomic_load_explicit(place, memory_order_acquire);
    int rc = 0;

    if (BOP_UNLIKELY(!lane)) {
        if (flags & BOP__MPMC_NO_ALLOC) {
            return BOP_EFULL;
        }
        pthread_mutex_lock(&queue->registry);
        /* Relaxed: it is written under the lock. */
        lane = atomic_load_explicit(place, memory_order_relaxed);
        if (!lane) {
            rc = bop__lanes_lane_make(queue, &lane);
            if (rc == 0) {
                lane->in_use = true;                                      /* No token gets it. */
                atomic_store_explicit(place, lane, memory_order_release); /* Shows the lane. */
            }
        }
        pthread_mutex_unlock(&queue->registry);
        if (rc < 0) {
            return rc;
        }
    }
    pthread_mutex_lock(&lane->lock);
    *out_lane = lane;
    return 0;
}

int bop__lanes_push_slow(struct lane *lane, uint64_t item, unsigned flags)
{
    int rc = next_room(lane, flags);

    if (rc == 0) {
        bop__lane_write(lane, item);
    }
    bop__lane_push_end(lane);
    return rc;
}

int bop__lanes_push(struct bop_mpmc *base, struct bop_mpmc_producer *producer, uint64_t item,
                    unsigned flags)
{
    struct lane *lane;
    int rc;

    if (BOP_LIKELY(producer != NULL)) {
        return bop__lane_push((struct lane *)producer, base, item, flags);
    }
    rc = lock_shared(lanes_of(base), flags, &lane);
    if (rc < 0) {
        return rc;
    }
    rc = bop__lane_push(lane, base, item, flags | BOP__MPMC_LOCKED);
    pthread_mutex_unlock(&lane->lock);
    return rc;
}

/* -- In bulk ----------------------------------------------------------------------------------- */

/* Have room for all items, or as many as there can be; *room is what was added to the current
 * block's. Returns how many fit, or why none does. */
static ssize_t make_room(struct lane *lane, uint64_t tail, size_t count, unsigned flags,
                         struct lane_room *room)
{
    size_t have = (size_t)(lane->room_end - tail);
    int rc;

    *room = (struct lane_room){NULL};
    if (count <= have) {
        return (ssize_t)count;
    }
    rc = bop__lane_gather(lane, count - have, flags, room);
    if (rc < 0 && (flags & BOP__MPMC_ALL)) {
        bop__lane_give_back(lane, room);
        return rc;
    }
    if (room->first) {
        int install_rc = bop__lane_install(lane, room, flags);

        if (install_rc < 0) {
            if (flags & BOP__MPMC_ALL) {
                return install_rc;
            }
            rc = install_rc;
        }
    }
    have += room->items;
    return have > 0 ? (ssize_t)(count < have ? count : have) : rc;
}

/* Write the items behind tail, first into the current block, then into those of the room. */
static void fill(struct lane *lane, uint64_t tail, const uint64_t *items, size_t count,
                 const struct lane_room *room)
{
    size_t here = (size_t)bop_min_u64(lane->room_end - tail, count);

    if (here > 0) { /* A new lane has no block to point at. */
        memcpy(&lane->room[tail - lane->room_base], items, here * sizeof(*items));
    }
    for (struct lane_block *block = room->first; block; block = block->next) {
        items += here;
        count -= here;
        here = (size_t)bop_min_u64(block->capacity, count);
        memcpy(block->items, items, here * sizeof(*items));
        lane->room = block->items;
        lane->room_base = block->base;
        lane->room_end = block->base + block->capacity;
    }
}

static ssize_t push_bulk_to(struct lane *lane, struct bop_mpmc *base, const uint64_t *items,
                            size_t count, unsigned flags)
{
    struct lane_room room;
    uint64_t tail;
    ssize_t fits;

    if (!bop__lane_push_begin(lane, base)) {
        return BOP_ECLOSED;
    }
    /* Relaxed: our own. */
    tail = atomic_load_explicit(&lane->tail, memory_order_relaxed);
    fits = make_room(lane, tail, count, flags, &room);
    if (fits > 0) {
        fill(lane, tail, items, (size_t)fits, &room);
        /* Release: as in bop__lane_write(). */
        atomic_store_explicit(&lane->tail, tail + (size_t)fits, memory_order_release);
    }
    bop__lane_push_end(lane);
    return fits;
}

ssize_t bop__lanes_push_bulk(struct bop_mpmc *base, struct bop_mpmc_producer *producer,
                             const uint64_t *items, size_t count, unsigned flags)
{
    struct lane *lane;
    ssize_t rc;

    if (BOP_LIKELY(producer != NULL)) {
        return push_bulk_to((struct lane *)producer, base, items, count, flags);
    }
    rc = lock_shared(lanes_of(base), flags, &lane);
    if (rc < 0) {
        return rc;
    }
    rc = push_bulk_to(lane, base, items, count, flags | BOP__MPMC_LOCKED);
    pthread_mutex_unlock(&lane->lock);
    return rc;
}

/* -- Closing ----------------------------------------------------------------------------------- */

void bop__lanes_close(struct bop_mpmc *base)
{
    struct lane *lane;

    bop__fence_rare();
    /* Acquire pairs with the release of who made the newest lane. One that is made after the fence
     * has only pushes that see the state. */
    lane = atomic_load_explicit(&lanes_of(base)->lanes, memory_order_acquire);
    for (; lane; lane = lane->next) {
        /* Acquire pairs with the release in bop__lane_push_end(): its items are published. */
        while (atomic_load_explicit(&lane->pushing, memory_order_acquire) != 0) {
            sched_yield();
        }
    }
}
