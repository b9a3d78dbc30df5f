/*
 * The segments of a fifo queue: their layout, and where they come from and go to.
 *
 *      0                                                   data        capacity
 *      +--------+--------+--------+ . . . . . . . +--------+--------------+
 *      | slot 0 | slot 1 | slot 2 |  not reserved | run 1's items | run 0's |
 *      +--------+--------+--------+ . . . . . . . +--------+--------------+
 *
 * A segment is one array of 8-byte cells, used from both ends: slots grow up from
 * its front, the items of runs grow down from its end. `enqueue` counts both in
 * one word, so that one atomic operation reserves them together:
 *
 *      bit   63       62 .. 40                 39 .. 20       19 .. 0
 *            closed   items in runs (cells)    runs           slots
 *
 * A slot goes from EMPTY to one of
 *
 *      an item itself         any value but 0 and those whose upper 16 bits are MARK
 *      MARK count position    a run: its items lie in the cells at position
 *      TAKEN                  given up by a consumer (or by close) that found it empty for long:
 *                             its producer takes another
 *
 * and never changes after that. An item that looks like EMPTY or MARK is pushed as
 * a run of one.
 *
 * Invariants:
 *
 *   (1) Reserved items of runs never reach below `slots reserved + 1` at the time, and are
 *       reserved by compare-and-swap, never beyond the room and never after closing: that part of
 *       the word is exact.
 *   (2) Slots are reserved by fetch-and-add, which may overshoot. The reservation holds if the word
 *       before it was not closed and its slots were below capacity - items; so valid slots are
 *       consecutive from 0, and once one was refused all later ones are.
 *   (3) A cell below bop__fifo_segment_limit() is or becomes a slot; it never holds a run's item.
 */
#ifndef BOP_MPMC_FIFO_SEGMENT_H
#define BOP_MPMC_FIFO_SEGMENT_H

#include <stdatomic.h>

#include "internal.h"

#define BOP__FIFO_EMPTY UINT64_C(0)
#define BOP__FIFO_MARK  UINT64_C(0xfff5)
#define BOP__FIFO_TAKEN (BOP__FIFO_MARK << 48 | UINT64_C(0xffffffffffff))

#define BOP__FIFO_SLOT   UINT64_C(1)
#define BOP__FIFO_RUN    (UINT64_C(1) << 20)
#define BOP__FIFO_ITEM   (UINT64_C(1) << 40)
#define BOP__FIFO_CLOSED (UINT64_C(1) << 63)

/* A queue starts small; one with a backlog goes on in big segments. */
#define BOP__FIFO_SMALL_BYTES    4096
#define BOP__FIFO_BIG_BYTES      65536
#define BOP__FIFO_NO_LIMIT       UINT32_MAX
#define BOP__FIFO_SPARES_A_CLASS 4

enum bop__fifo_class {
    BOP__FIFO_SMALL = 0,
    BOP__FIFO_BIG = 1,
    BOP__FIFO_CLASSES = 2,
};

/* Padding rather than alignment keeps the three parts in lines of their own: an allocator aligns
 * for the basic types only. */
struct bop__fifo_segment {
    _Atomic uint64_t enqueue; /* As above. Producers. */
    char pad_enqueue[BOP__CACHE_LINE - sizeof(uint64_t)];

    /* The slot to be consumed (upper half), and how many items of its run are gone. Consumers. */
    _Atomic uint64_t dequeue;
    char pad_dequeue[BOP__CACHE_LINE - sizeof(uint64_t)];

    /* Read by all, written a few times in a segment's life. */
    _Atomic(struct bop__fifo_segment *) next; /* NULL, a mark (below), or the successor. */
    struct bop__fifo_segment *below;          /* In the stack of retired segments. */
    _Atomic uint64_t dead;                    /* Items reserved whose slot was TAKEN. */
    _Atomic uint32_t final;                   /* Slots when it was closed; NO_LIMIT before. */
    uint32_t capacity;                        /* Cells. */
    enum bop__fifo_class class;
    char pad_next[BOP__CACHE_LINE - 3 * sizeof(void *) - 3 * sizeof(uint32_t)];

    _Atomic uint64_t cells[];
};

/* What stands in `next` where no segment follows: FULL: there is no room and the successor could
 * not be allocated yet; CLOSED: there will be none. */
extern struct bop__fifo_segment bop__fifo_next_full;
extern struct bop__fifo_segment bop__fifo_next_closed;

static inline bool bop__fifo_is_segment(const struct bop__fifo_segment *next)
{
    return next && next != &bop__fifo_next_full && next != &bop__fifo_next_closed;
}

/* Cells of a segment of that class. */
static inline uint32_t bop__fifo_class_cells(enum bop__fifo_class class)
{
    size_t bytes = class == BOP__FIFO_BIG ? BOP__FIFO_BIG_BYTES : BOP__FIFO_SMALL_BYTES;

    return (uint32_t)((bytes - sizeof(struct bop__fifo_segment)) / sizeof(uint64_t));
}

static inline uint32_t bop__fifo_slots(uint64_t enqueue)
{
    return (uint32_t)(enqueue & 0xfffff);
}

static inline uint32_t bop__fifo_runs(uint64_t enqueue)
{
    return (uint32_t)(enqueue >> 20 & 0xfffff);
}

static inline uint32_t bop__fifo_run_items(uint64_t enqueue)
{
    return (uint32_t)(enqueue >> 40 & 0x7fffff);
}

/* Cells that are left; 0 once one slot too many was asked for. */
static inline uint32_t bop__fifo_room(const struct bop__fifo_segment *segment, uint64_t enqueue)
{
    uint32_t used = bop__fifo_slots(enqueue) + bop__fifo_run_items(enqueue);

    return (enqueue & BOP__FIFO_CLOSED) || used >= segment->capacity ? 0 : segment->capacity - used;
}

/* The item cannot stand in a slot. */
static inline bool bop__fifo_is_special(uint64_t item)
{
    return item == BOP__FIFO_EMPTY || item >> 48 == BOP__FIFO_MARK;
}

static inline uint64_t bop__fifo_run_header(uint32_t position, uint32_t count)
{
    return BOP__FIFO_MARK << 48 | (uint64_t)count << 24 | position;
}

static inline uint32_t bop__fifo_run_count(uint64_t header)
{
    return (uint32_t)(header >> 24 & 0xffffff);
}

static inline uint32_t bop__fifo_run_position(uint64_t header)
{
    return (uint32_t)(header & 0xffffff);
}

/* Slots reserved so far; final once the segment is full or closed and `final` is set. Between
 * closing and that it may count slots that nobody has, which are empty for ever. */
static inline uint32_t bop__fifo_segment_limit(struct bop__fifo_segment *segment)
{
    /* Acquire: an operation that looks at `next` after it must not see an older one. */
    uint64_t enqueue = atomic_load_explicit(&segment->enqueue, memory_order_acquire);
    uint32_t bound = segment->capacity - bop__fifo_run_items(enqueue);
    uint32_t slots = bop__fifo_slots(enqueue) < bound ? bop__fifo_slots(enqueue) : bound;

    if (enqueue & BOP__FIFO_CLOSED) {
        /* Relaxed: either figure is right. */
        uint32_t final = atomic_load_explicit(&segment->final, memory_order_relaxed);

        slots = final < slots ? final : slots;
    }
    return slots;
}

/* Shut producers out; any thread, any number of times. */
void bop__fifo_segment_close(struct bop__fifo_segment *segment);

/* Items that a segment nobody has consumed from holds; exact while nothing is under way. */
size_t bop__fifo_segment_items(struct bop__fifo_segment *segment);

/* Items that are left in the head segment; walks its slots. */
size_t bop__fifo_segment_left(struct bop__fifo_segment *segment);

/* Put up to count items into a new segment that only the caller knows: how many. */
uint32_t bop__fifo_segment_fill(struct bop__fifo_segment *segment, const uint64_t *items,
                                size_t count);

/* Where the segments of one queue come from. */
struct bop__fifo_store {
    const struct bop_mpmc *queue; /* Has the allocators and the ceiling. */
    atomic_size_t bytes;          /* Of all segments, spare ones included. */
    _Atomic(struct bop__fifo_segment *) spares[BOP__FIFO_CLASSES][BOP__FIFO_SPARES_A_CLASS];
};

/**
 * An empty segment, by preference of that class: a spare one or, unless flags have
 * BOP__MPMC_NO_ALLOC, a new one.
 *
 * Returns 0, BOP_EFULL or -ENOMEM.
 */
int bop__fifo_store_take(struct bop__fifo_store *store, enum bop__fifo_class class, unsigned flags,
                         struct bop__fifo_segment **out_segment);

/* Keep it as a spare or give it back; nobody knows it any more. */
void bop__fifo_store_give(struct bop__fifo_store *store, struct bop__fifo_segment *segment);

/* Give all spares back; all segments are here. */
void bop__fifo_store_deinit(struct bop__fifo_store *store);

#endif
