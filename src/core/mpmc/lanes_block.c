/*
 * Blocks, and the map that finds them.
 *
 * A lane's items are numbered 0, 1, 2 ... for ever. 512 of them are a unit; a
 * block holds one unit; four in a lane that has carried many items, for handing a
 * block round costs a dozen cache misses, as much as the items of a small one; or
 * 16 where there is a backlog. The map is a ring of pointers by unit:
 *
 *                     head                     tail
 *      items     ......|-------------------------|
 *      units     |  4  |  5  |  6  |  7  |  8  |  9  |
 *      slots        4     5     6     7     0     1        mask = 7
 *
 *   (1) A slot holds the block of one unit that is not done, or NULL. The units in
 *       the ring lie within mask + 1 of each other.
 *   (2) Only the producer puts blocks in, and only into slots that are NULL: where
 *       one is not, an old unit is still being read, and the map is doubled.
 *   (3) Whoever brings a block's `done` to its capacity, and nobody else, takes it
 *       out of the map and then retires it: it becomes a spare, or goes back to
 *       the allocator at once, so that a queue that was drained holds little.
 *   (4) Whoever has claimed an item and not added it to `done` may look its block
 *       up and read it: by (3) it is there, and by (2) its slot is too. An older
 *       map will do, if it is one that the unit was put into: nothing is ever put
 *       into it afterwards, and it lives as long as the lane.
 *
 * Doubling copies the slots while others take blocks out of the old map. The one
 * who takes out clears the old slot and then reads which map is current; the
 * producer makes the new one current and then reads the old slots again. In the
 * single order of these four at least one sees the other, and clears the new slot.
 * The producer works out a slot's unit from (1), for a block that it finds in a
 * slot may be freed before it could look inside.
 *
 * Bytes of blocks are counted on one shared counter, and only where blocks come
 * from and go back to an allocator. A ceiling counts spare blocks too, so before a
 * push is refused all lanes' spares are given back.
 */
#include "lanes.h"

#include <sched.h>

#define BYTES_OF(items) (sizeof(struct lane_block) + (items) * sizeof(uint64_t))
#define SMALL_BYTES     BYTES_OF(LANE_UNIT)
#define BIG_BYTES       BYTES_OF(LANE_BIG)
#define MEDIUM_PART     16u /* Of a ceiling, for medium blocks. */

static const unsigned capacities[] = {
    [LANE_SIZE_SMALL] = LANE_UNIT,
    [LANE_SIZE_MEDIUM] = LANE_MEDIUM,
    [LANE_SIZE_BIG] = LANE_BIG,
};

_Static_assert(sizeof(struct lane_block) == 64, "items start a cache line");

static enum lane_block_size size_of(const struct lane_block *block)
{
    return block->capacity == LANE_BIG      ? LANE_SIZE_BIG
           : block->capacity == LANE_MEDIUM ? LANE_SIZE_MEDIUM
                                            : LANE_SIZE_SMALL;
}

static struct bop_allocator *allocator_of(struct lanes *queue, enum lane_block_size size)
{
    return size == LANE_SIZE_BIG ? queue->base.big_allocator : queue->base.allocator;
}

void bop__lanes_set_limit(struct lanes *queue, size_t memory_bytes_max)
{
    if (memory_bytes_max == 0) {
        queue->memory_limit = UINT64_MAX / 2; /* So that adding to it does not wrap. */
        return;
    }
    queue->memory_limit = bop_max_u64(memory_bytes_max, BIG_BYTES);
    /* In whole small blocks behind one that is nearly full. */
    queue->base.bulk_max = (size_t)(queue->memory_limit / SMALL_BYTES - 1) * LANE_UNIT;
}

/* -- From and to the allocators ---------------------------------------------------------------- */

static bool reserve_bytes(struct lanes *queue, size_t bytes, uint64_t limit)
{
    /* Relaxed, here and below: a count of its own, which orders nothing. */
    uint64_t held = atomic_load_explicit(&queue->block_bytes, memory_order_relaxed);

    do {
        if (held + bytes > limit) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&queue->block_bytes, &held, held + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void free_block(struct lanes *queue, struct lane_block *block)
{
    size_t bytes = BYTES_OF(block->capacity);

    bop_free(allocator_of(queue, size_of(block)), block, bytes);
    /* Relaxed: as in reserve_bytes(). After the free, so that no more is held than counted. */
    atomic_fetch_sub_explicit(&queue->block_bytes, bytes, memory_order_relaxed);
}

static struct lane_block *take_spare(_Atomic(struct lane_block *) *spares)
{
    for (unsigned i = 0; i < LANE_SPARES; i++) {
        struct lane_block *block;

        /* Relaxed: whether it is worth the exchange. */
        if (!atomic_load_explicit(&spares[i], memory_order_relaxed)) {
            continue;
        }
        /* Acquire pairs with the release in put_spare(). */
        block = atomic_exchange_explicit(&spares[i], NULL, memory_order_acquire);
        if (block) {
            return block;
        }
    }
    return NULL;
}

/* False: it has enough. */
static bool put_spare(_Atomic(struct lane_block *) *spares, struct lane_block *block)
{
    for (unsigned i = 0; i < LANE_SPARES; i++) {
        struct lane_block *none = NULL;

        /* Relaxed: whether it is worth the exchange. Release pairs with the acquire of who takes
         * it: all our reads, and those of the others that `done` has told us of, come before its
         * next use. */
        if (!atomic_load_explicit(&spares[i], memory_order_relaxed) &&
            atomic_compare_exchange_strong_explicit(&spares[i], &none, block, memory_order_release,
                                                    memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

static void free_spares(struct lanes *queue, struct lane *lane)
{
    struct lane_block *block;

    for (unsigned size = 0; size < LANE_SIZES; size++) {
        while ((block = take_spare(lane->spares[size]))) {
            free_block(queue, block);
        }
    }
}

/* Make room below the ceiling. */
static void free_all_spares(struct lanes *queue)
{
    /* Acquire pairs with the release of who made the newest lane. */
    struct lane *lane = atomic_load_explicit(&queue->lanes, memory_order_acquire);

    for (; lane; lane = lane->next) {
        free_spares(queue, lane);
    }
}

/* A new block in *out_block; 0, BOP_EFULL or BOP_ENOMEM. */
static int new_block(struct lanes *queue, enum lane_block_size size, struct lane_block **out_block)
{
    size_t bytes = BYTES_OF(capacities[size]);
    /* Most of a ceiling is for backlogs and for small blocks, so that many lanes can share it. */
    uint64_t limit = size == LANE_SIZE_MEDIUM ? queue->memory_limit / MEDIUM_PART
                                              : queue->memory_limit;
    struct lane_block *block;

    if (!reserve_bytes(queue, bytes, limit)) {
        return BOP_EFULL;
    }
    block = bop_alloc(allocator_of(queue, size), bytes);
    if (!block) {
        /* Relaxed: as in reserve_bytes(). */
        atomic_fetch_sub_explicit(&queue->block_bytes, bytes, memory_order_relaxed);
        return BOP_ENOMEM;
    }
    block->capacity = capacities[size];
    *out_block = block;
    return 0;
}

static struct lane_block *take_any_spare(struct lane *lane)
{
    struct lane_block *block = NULL;

    for (unsigned size = 0; size < LANE_SIZES && !block; size++) {
        block = take_spare(lane->spares[size]);
    }
    return block;
}

static int get_block(struct lane *lane, enum lane_block_size size, unsigned flags,
                     struct lane_block **out_block)
{
    struct lanes *queue = lane->queue;
    struct lane_block *spare = take_spare(lane->spares[size]);
    int rc;

    if (!spare && (size == LANE_SIZE_SMALL || (flags & BOP__MPMC_NO_ALLOC))) {
        spare = take_any_spare(lane);
    }
    if (spare) {
        *out_block = spare;
        return 0;
    }
    if (flags & BOP__MPMC_NO_ALLOC) {
        return BOP_EFULL;
    }
    if (size != LANE_SIZE_SMALL) {
        if (new_block(queue, size, out_block) == 0) {
            return 0;
        }
        *out_block = take_spare(lane->spares[LANE_SIZE_SMALL]);
        if (*out_block) {
            return 0;
        }
    }
    rc = new_block(queue, LANE_SIZE_SMALL, out_block);
    if (rc == BOP_EFULL) {
        free_all_spares(queue);
        rc = new_block(queue, LANE_SIZE_SMALL, out_block);
    }
    return rc;
}

/* -- Into the map ------------------------------------------------------------------------------ */

/* Of the next block, with so many items inside, or to go in. */
static enum lane_block_size next_size(const struct lane *lane, uint64_t backlog)
{
    if (backlog > LANE_BIG_BACKLOG) {
        return LANE_SIZE_BIG;
    }
    return lane->room_end >= LANE_WARM ? LANE_SIZE_MEDIUM : LANE_SIZE_SMALL;
}

static uint64_t backlog_of(const struct lane *lane)
{
    /* Relaxed, both: an estimate. tail is the producer's own. */
    return atomic_load_explicit(&lane->tail, memory_order_relaxed) -
           atomic_load_explicit(&lane->head, memory_order_relaxed);
}

static bool has_spare(_Atomic(struct lane_block *) *spares)
{
    bool found = false;

    for (unsigned i = 0; i < LANE_SPARES && !found; i++) {
        /* Relaxed: a hint. */
        found = atomic_load_explicit(&spares[i], memory_order_relaxed) != NULL;
    }
    return found;
}

/*
 * The producer is far ahead, and has used up the blocks that went round so far. If its consumers
 * are waiting for this CPU, they get it now: what they will read is still in its cache, and the
 * blocks that they hand back save fresh pages, which cost more than the items in them. Else the
 * producer would go on until its time is up, millions of items later. Where nobody waits for the
 * CPU it is a short system call for each big block. Who holds up other producers does not yield.
 */
static void yield_if_far_ahead(struct lane *lane, unsigned flags)
{
    if (!(flags & (BOP__MPMC_NO_ALLOC | BOP__MPMC_LOCKED)) && backlog_of(lane) >= LANE_FAR_AHEAD &&
        !has_spare(lane->spares[LANE_SIZE_BIG])) {
        sched_yield();
    }
}

int bop__lane_gather(struct lane *lane, size_t count, unsigned flags, struct lane_room *out_room)
{
    struct lane_room room = {NULL};
    uint64_t backlog;
    int rc = 0;

    yield_if_far_ahead(lane, flags);
    backlog = backlog_of(lane);

    while (room.items < count) {
        struct lane_block *block;

        rc = get_block(lane, next_size(lane, bop_max_u64(backlog, count - room.items)), flags,
                       &block);
        if (rc < 0) {
            break;
        }
        block->base = lane->room_end + room.items;
        atomic_init(&block->done, 0);
        block->next = NULL;
        if (room.last) {
            room.last->next = block;
        } else {
            room.first = block;
        }
        room.last = block;
        room.items += block->capacity;
    }
    *out_room = room;
    return rc;
}

void bop__lane_give_back(struct lane *lane, struct lane_room *room)
{
    struct lane_block *next;

    for (struct lane_block *block = room->first; block; block = next) {
        next = block->next;
        free_block(lane->queue, block);
    }
    *room = (struct lane_room){NULL};
}

static struct lane_map *new_map(struct lanes *queue, uint64_t units)
{
    struct lane_map *map = bop_alloc_zeroed(queue->base.allocator,
                                            sizeof(*map) + units * sizeof(map->slots[0]));

    if (map) {
        map->mask = units - 1;
    }
    return map;
}

int bop__lane_map_init(struct lane *lane)
{
    struct lane_map *map = new_map(lane->queue, LANE_MAP_UNITS_MIN);

    if (!map) {
        return BOP_ENOMEM;
    }
    atomic_init(&lane->map, map);
    return 0;
}

/* Double the map until it has `units` slots. end_unit: after the last unit in it. */
static int grow(struct lane *lane, uint64_t units, uint64_t end_unit)
{
    /* Relaxed: only the producer writes it. */
    struct lane_map *old = atomic_load_explicit(&lane->map, memory_order_relaxed);
    uint64_t old_units = old->mask + 1, first = end_unit > old_units ? end_unit - old_units : 0;
    struct lane_map *map;

    for (units = bop_max_u64(units, 2 * old_units); (units & (units - 1)) != 0;) {
        units += units & (~units + 1); /* Up to a power of two. */
    }
    map = new_map(lane->queue, units);
    if (!map) {
        return BOP_ENOMEM;
    }
    map->older = old;
    for (uint64_t unit = first; unit < end_unit; unit++) {
        /* Relaxed: what is in the slot now was put in by us. */
        struct lane_block *block = atomic_load_explicit(&old->slots[unit & old->mask],
                                                        memory_order_relaxed);

        atomic_init(&map->slots[unit & map->mask], block);
    }
    /* seq_cst: before the loads below, see the head of the file; release shows the slots. */
    atomic_store_explicit(&lane->map, map, memory_order_seq_cst);
    for (uint64_t unit = first; unit < end_unit; unit++) {
        /* seq_cst: after the store above. */
        if (!atomic_load_explicit(&old->slots[unit & old->mask], memory_order_seq_cst)) {
            /* Relaxed: who took it out may do the same; both write NULL, and the slot is put to
             * use again by us alone. */
            atomic_store_explicit(&map->slots[unit & map->mask], NULL, memory_order_relaxed);
        }
    }
    return 0;
}

static bool slots_free(const struct lane_map *map, uint64_t unit, uint64_t end_unit)
{
    if (end_unit - unit > map->mask + 1) {
        return false;
    }
    for (; unit < end_unit; unit++) {
        /* Relaxed: whoever read the block that was there came to an end before the block did,
         * and its memory reaches us, if at all, through a spare or the allocator. */
        if (atomic_load_explicit(&map->slots[unit & map->mask], memory_order_relaxed)) {
            return false;
        }
    }
    return true;
}

int bop__lane_install(struct lane *lane, struct lane_room *room, unsigned flags)
{
    /* Relaxed: only the producer writes it. */
    struct lane_map *map = atomic_load_explicit(&lane->map, memory_order_relaxed);
    uint64_t unit = lane->room_end / LANE_UNIT, end_unit = unit + room->items / LANE_UNIT;

    while (!slots_free(map, unit, end_unit)) {
        int rc = flags & BOP__MPMC_NO_ALLOC ? BOP_EFULL : grow(lane, end_unit - unit, unit);

        if (rc < 0) {
            bop__lane_give_back(lane, room);
            return rc;
        }
        map = atomic_load_explicit(&lane->map, memory_order_relaxed); /* Our own. */
    }
    for (struct lane_block *block = room->first; block; block = block->next) {
        for (unsigned i = 0; i < block->capacity / LANE_UNIT; i++, unit++) {
            /* Release: who finds the block sees its head. */
            atomic_store_explicit(&map->slots[unit & map->mask], block, memory_order_release);
        }
    }
    return 0;
}

/* -- Out of the map ---------------------------------------------------------------------------- */

static void clear_slots(struct lane_map *map, struct lane_block *block)
{
    uint64_t unit = block->base / LANE_UNIT, end_unit = unit + block->capacity / LANE_UNIT;

    for (; unit < end_unit; unit++) {
        struct lane_block *expected = block;

        /* Only where it still is: the producer may have cleared the slot of a doubled map and put
         * the next block in. seq_cst: before the load of the current map, see the head. */
        atomic_compare_exchange_strong_explicit(&map->slots[unit & map->mask], &expected, NULL,
                                                memory_order_seq_cst, memory_order_seq_cst);
    }
}

void bop__lane_retire(struct lane *lane, struct lane_block *block)
{
    /* Acquire: as in bop__lane_block_of(). */
    struct lane_map *map = atomic_load_explicit(&lane->map, memory_order_acquire), *cleared;

    do {
        clear_slots(map, block);
        cleared = map;
        /* seq_cst: after the slots were cleared. */
        map = atomic_load_explicit(&lane->map, memory_order_seq_cst);
    } while (map != cleared);

    if (!put_spare(lane->spares[size_of(block)], block)) {
        free_block(lane->queue, block);
    }
}

void bop__lane_free_blocks(struct lane *lane)
{
    struct lanes *queue = lane->queue;
    /* Relaxed, here and below: nobody else uses the lane. */
    struct lane_map *map = atomic_load_explicit(&lane->map, memory_order_relaxed), *older;

    for (uint64_t i = 0; i <= map->mask; i++) {
        struct lane_block *block = atomic_load_explicit(&map->slots[i], memory_order_relaxed);

        if (block && ((block->base / LANE_UNIT) & map->mask) == i) {
            for (uint64_t u = i; u < i + block->capacity / LANE_UNIT; u++) {
                atomic_store_explicit(&map->slots[u & map->mask], NULL, memory_order_relaxed);
            }
            free_block(queue, block);
        }
    }
    for (; map; map = older) {
        older = map->older;
        bop_free(queue->base.allocator, map,
                 sizeof(*map) + (map->mask + 1) * sizeof(map->slots[0]));
    }
    free_spares(queue, lane);
}
