/*
 * Segments of a fifo queue; fifo_segment.h has their layout and invariants.
 *
 * Spares lie in a few slots that are filled by compare-and-swap and emptied by
 * exchange. A slot hands out whole pointers and links nothing, so there is no ABA.
 */
#include <string.h>

#include "fifo_segment.h"

_Static_assert(sizeof(struct bop__fifo_segment) == 3 * BOP__CACHE_LINE, "padding is off");
_Static_assert(BOP__FIFO_BIG_BYTES / 8 < 1 << 16, "a segment's cells must fit its word");

struct bop__fifo_segment bop__fifo_next_full;
struct bop__fifo_segment bop__fifo_next_closed;

void bop__fifo_segment_close(struct bop__fifo_segment *segment)
{
    /* Release: who sees it closed sees what we did before. Acquire pairs with earlier
     * reservations, for nothing but simplicity. */
    uint64_t before = atomic_fetch_or_explicit(&segment->enqueue, BOP__FIFO_CLOSED,
                                               memory_order_acq_rel);
    uint32_t bound = segment->capacity - bop__fifo_run_items(before);
    uint32_t slots = bop__fifo_slots(before);

    if (!(before & BOP__FIFO_CLOSED)) {
        /* Release: the count is not to be seen before the mark. */
        atomic_store_explicit(&segment->final, slots < bound ? slots : bound, memory_order_release);
    }
}

size_t bop__fifo_segment_items(struct bop__fifo_segment *segment)
{
    /* Relaxed, all three: exact at rest, when the caller's own synchronization has ordered what
     * came before, and a figure between the extremes otherwise. */
    uint64_t enqueue = atomic_load_explicit(&segment->enqueue, memory_order_relaxed);
    uint64_t dead = atomic_load_explicit(&segment->dead, memory_order_relaxed);
    size_t items = (size_t)bop__fifo_segment_limit(segment) - bop__fifo_runs(enqueue) +
                   bop__fifo_run_items(enqueue);

    return items > dead && items <= segment->capacity ? items - (size_t)dead : 0;
}

size_t bop__fifo_segment_left(struct bop__fifo_segment *segment)
{
    uint32_t limit = bop__fifo_segment_limit(segment);
    /* Relaxed: as in bop__fifo_segment_items(). */
    uint64_t place = atomic_load_explicit(&segment->dequeue, memory_order_relaxed);
    size_t items = 0;

    for (uint32_t slot = (uint32_t)(place >> 32); slot < limit; slot++) {
        uint64_t cell = atomic_load_explicit(&segment->cells[slot], memory_order_relaxed);

        if (cell == BOP__FIFO_EMPTY || cell == BOP__FIFO_TAKEN) {
            continue;
        }
        items += cell >> 48 == BOP__FIFO_MARK ? bop__fifo_run_count(cell) : 1;
    }
    /* The offset is below the count of the run that it is in. */
    return items > (uint32_t)place ? items - (uint32_t)place : 0;
}

uint32_t bop__fifo_segment_fill(struct bop__fifo_segment *segment, const uint64_t *items,
                                size_t count)
{
    uint32_t run = count < segment->capacity ? (uint32_t)count : segment->capacity - 1;
    uint32_t position = segment->capacity - run;

    /* Relaxed, all stores: the segment is published by the release that links it. */
    if (count == 1 && !bop__fifo_is_special(items[0])) {
        atomic_store_explicit(&segment->cells[0], items[0], memory_order_relaxed);
        atomic_store_explicit(&segment->enqueue, BOP__FIFO_SLOT, memory_order_relaxed);
        return 1;
    }
    memcpy((void *)&segment->cells[position], items, run * sizeof(items[0]));
    atomic_store_explicit(&segment->cells[0], bop__fifo_run_header(position, run),
                          memory_order_relaxed);
    atomic_store_explicit(&segment->enqueue, BOP__FIFO_SLOT + BOP__FIFO_RUN + run * BOP__FIFO_ITEM,
                          memory_order_relaxed);
    return run;
}

static size_t class_bytes(enum bop__fifo_class class)
{
    return class == BOP__FIFO_BIG ? BOP__FIFO_BIG_BYTES : BOP__FIFO_SMALL_BYTES;
}

static void reset(struct bop__fifo_segment *segment, enum bop__fifo_class class)
{
    memset((void *)segment, 0, class_bytes(class));
    segment->class = class;
    segment->capacity = bop__fifo_class_cells(class);
    atomic_init(&segment->final, BOP__FIFO_NO_LIMIT);
}

static struct bop__fifo_segment *take_spare(struct bop__fifo_store *store,
                                            enum bop__fifo_class class)
{
    for (size_t i = 0; i < BOP__FIFO_SPARES_A_CLASS; i++) {
        /* Relaxed: only whether it is worth the exchange. */
        if (atomic_load_explicit(&store->spares[class][i], memory_order_relaxed)) {
            /* Acquire pairs with the release in keep_spare(): the last user is done with it. */
            struct bop__fifo_segment *segment = atomic_exchange_explicit(
                &store->spares[class][i], NULL, memory_order_acquire);

            if (segment) {
                return segment;
            }
        }
    }
    return NULL;
}

static bool keep_spare(struct bop__fifo_store *store, struct bop__fifo_segment *segment)
{
    for (size_t i = 0; i < BOP__FIFO_SPARES_A_CLASS; i++) {
        _Atomic(struct bop__fifo_segment *) *spare = &store->spares[segment->class][i];
        struct bop__fifo_segment *expected = NULL;

        /* Relaxed: only whether it is worth trying. Release pairs with take_spare(). */
        if (!atomic_load_explicit(spare, memory_order_relaxed) &&
            atomic_compare_exchange_strong_explicit(spare, &expected, segment, memory_order_release,
                                                    memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

static struct bop_allocator *allocator_of(struct bop__fifo_store *store, enum bop__fifo_class class)
{
    return class == BOP__FIFO_BIG ? store->queue->big_allocator : store->queue->allocator;
}

/* Returns 0, BOP_EFULL or -ENOMEM. */
static int allocate(struct bop__fifo_store *store, enum bop__fifo_class class,
                    struct bop__fifo_segment **out_segment)
{
    size_t bytes_max = store->queue->memory_bytes_max;
    size_t bytes = class_bytes(class);
    /* Relaxed: a count that orders nothing. Added first, so that it never goes over. */
    size_t before = atomic_fetch_add_explicit(&store->bytes, bytes, memory_order_relaxed);
    void *memory = NULL;
    int rc = BOP_EFULL;

    bytes_max = bytes_max < BOP__FIFO_BIG_BYTES ? BOP__FIFO_BIG_BYTES : bytes_max;
    if (before <= bytes_max - bytes) {
        memory = bop_alloc(allocator_of(store, class), bytes);
        rc = memory ? 0 : BOP_ENOMEM;
    }
    if (rc < 0) {
        atomic_fetch_sub_explicit(&store->bytes, bytes, memory_order_relaxed);
        return rc;
    }
    *out_segment = memory;
    return 0;
}

int bop__fifo_store_take(struct bop__fifo_store *store, enum bop__fifo_class class, unsigned flags,
                         struct bop__fifo_segment **out_segment)
{
    enum bop__fifo_class other = class == BOP__FIFO_BIG ? BOP__FIFO_SMALL : BOP__FIFO_BIG;
    struct bop__fifo_segment *segment = take_spare(store, class);
    bool may_allocate = !(flags & BOP__MPMC_NO_ALLOC);
    int rc = BOP_EFULL;

    if (!segment && class == BOP__FIFO_BIG && may_allocate) {
        rc = allocate(store, class, &segment);
    }
    if (!segment && rc == BOP_EFULL) {
        class = other;
        segment = take_spare(store, class);
    }
    if (!segment && rc == BOP_EFULL && may_allocate) {
        /* Near the ceiling a small one may still do. */
        class = BOP__FIFO_SMALL;
        rc = allocate(store, class, &segment);
    }
    if (!segment) {
        return rc;
    }
    reset(segment, class);
    *out_segment = segment;
    return 0;
}

static void release(struct bop__fifo_store *store, struct bop__fifo_segment *segment)
{
    enum bop__fifo_class class = segment->class;

    bop_free(allocator_of(store, class), segment, class_bytes(class));
    /* Relaxed: a count; after the free, so that it is never below what is held. */
    atomic_fetch_sub_explicit(&store->bytes, class_bytes(class), memory_order_relaxed);
}

void bop__fifo_store_give(struct bop__fifo_store *store, struct bop__fifo_segment *segment)
{
    if (!keep_spare(store, segment)) {
        release(store, segment);
    }
}

void bop__fifo_store_deinit(struct bop__fifo_store *store)
{
    struct bop__fifo_segment *segment;

    for (int class = 0; class < BOP__FIFO_CLASSES; class ++) {
        while ((segment = take_spare(store, (enum bop__fifo_class) class)) != NULL) {
            release(store, segment);
        }
    }
    BOP_ASSERT(atomic_load_explicit(&store->bytes, memory_order_relaxed) == 0);
}
