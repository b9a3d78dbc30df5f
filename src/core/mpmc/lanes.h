/*
 * A queue of lanes: what its files share. How it works and why it is right is at
 * the head of lanes.c (the whole), lanes_block.c (blocks and their map) and
 * lanes_claim.c (claims, and taking them over).
 */
#ifndef BOP_MPMC_LANES_H
#define BOP_MPMC_LANES_H

#include <pthread.h>

#include "internal.h"

#define LANE_UNIT           512u              /* Items; what a small block holds. */
#define LANE_MEDIUM         (4u * LANE_UNIT)  /* Items of a medium block. */
#define LANE_BIG            (16u * LANE_UNIT) /* Items of a big block. */
#define LANE_WARM           4096u /* Items that a lane carries before it gets medium blocks. */
#define LANE_BIG_BACKLOG    2048u /* Items inside a lane from which on it gets big blocks. */
#define LANE_MAP_UNITS_MIN  16u   /* Slots of a new map: one big block. */
#define LANE_SPARES         8u    /* Blocks of a size kept for a backlog that rises again. */
#define LANE_FAR_AHEAD      (LANE_SPARES * LANE_BIG) /* Items inside: as many as spares hold. */
#define LANES_SHARED        8u                       /* Lanes of producers without tokens. */
#define LANES_BUDGET        256u /* Items from one lane before the next one's turn. */
#define LANES_CLAIM         16u  /* Items to claim at once, where the user leaves it to us ... */
#define LANES_CLAIM_BACKLOG 64u  /* ... and of a backlog. */
#define LANES_CHUNKS        28u  /* Of 8, 16, 32 ... lanes. */
#define LANES_CHUNK_FIRST   8u

/* -- Blocks and lanes -------------------------------------------------------------------------- */

struct lane_block {
    /* Written before it is in the map, then constant. */
    uint64_t base;           /* The index of its first item. */
    unsigned capacity;       /* LANE_UNIT, LANE_MEDIUM or LANE_BIG. */
    atomic_uint done;        /* Items that were read, or will not be. At capacity it is retired. */
    struct lane_block *next; /* While its producer gathers blocks. */
    uint64_t pad[5];         /* Items start a cache line, if the allocator aligns the block so. */
    uint64_t items[];
};

enum lane_block_size {
    LANE_SIZE_SMALL = 0,
    LANE_SIZE_MEDIUM = 1,
    LANE_SIZE_BIG = 2,
    LANE_SIZES,
};

struct lane_map {
    struct lane_map *older; /* The one before it was doubled: kept for readers that are late. */
    uint64_t mask;
    _Atomic(struct lane_block *) slots[]; /* Of unit u: slots[u & mask]; NULL when it is free. */
};

struct lane {
    /* The producer's line: it writes it with each push, consumers read `tail`. */
    struct bop_mpmc_producer producer;               /* First: the token of who has the lane. */
    _Alignas(BOP__CACHE_LINE) _Atomic uint64_t tail; /* Items below are published. */
    atomic_uint pushing;                             /* 1 while a push is under way. */
    uint64_t room_end;                               /* The end of the current block. */
    uint64_t room_base;
    uint64_t *room; /* Its items. */

    /* The consumers' line. */
    _Alignas(BOP__CACHE_LINE) _Atomic uint64_t head; /* Items below are claimed. */
    _Atomic uint64_t tail_seen;                      /* A figure that `tail` has had. */

    /* Written with each block. NULL where there is none. */
    _Alignas(BOP__CACHE_LINE) _Atomic(struct lane_block *) spares[LANE_SIZES][LANE_SPARES];

    /* Rarely written. */
    _Alignas(BOP__CACHE_LINE) _Atomic(struct lane_map *) map;
    struct lanes *queue;
    struct lane *next;    /* The one made before, or NULL. Constant. */
    unsigned id;          /* 0, 1, 2 ... in the order of making. */
    bool in_use;          /* Has a producer token. Under the registry's lock. */
    pthread_mutex_t lock; /* A shared lane's producers take turns. */
    void *memory;         /* What it was allocated as. */
};

/* -- Claims and consumers ---------------------------------------------------------------------- */

/* A run of items of one block that is somebody's to pop. */
struct lane_run {
    struct lane *lane;
    struct lane_block *block;
    uint64_t index; /* Of the first. */
    unsigned count;
};

/* The number of a claim in its upper 48 bits, an offset into it in the lower 16. */
#define CLAIM_OFFSET_BITS 16
#define CLAIM_OFFSET_MASK ((UINT64_C(1) << CLAIM_OFFSET_BITS) - 1)

struct lanes_thread;

struct lanes_consumer {
    struct bop_mpmc_consumer base; /* First. */

    /* The claim, see lanes_claim.c. */
    _Alignas(BOP__CACHE_LINE) _Atomic uint64_t at;
    uint64_t claim_end;        /* The owner's copy of end. */
    _Atomic(uint64_t *) items; /* Of offset 0. */
    _Atomic uint64_t end;
    _Atomic(struct lane *) lane;
    _Atomic(struct lane_block *) block;
    _Atomic uint64_t index; /* Of offset 0. */
    _Atomic(struct lanes_thread *) thread;
    _Atomic uint64_t thread_life; /* Of thread when it claimed. */
    atomic_uint claiming;         /* 1 while a run is on its way into the claim. */

    /* The owner's. */
    unsigned claim_ahead;   /* Items at most, of a claim; */
    unsigned claim_backlog; /* of one from a backlog that is long beside it. */
    unsigned budget;
    struct lane *cursor;

    /* Rarely written. */
    _Alignas(BOP__CACHE_LINE) pthread_mutex_t lock; /* Of whoever takes over, or lost something. */
    atomic_bool closed;
    atomic_bool moving;     /* From the claim to `rest`. */
    struct lane_run rest;   /* Of a claim that was taken over without a token. Under the lock. */
    atomic_uint rest_count; /* rest.count, to be looked at without the lock. */
    bool orphan;            /* Closed, and counted in orphans. Under the lock. */
    _Atomic uint64_t told;  /* The claim as an arming loop was last told of it. */
    struct lanes_consumer *next; /* The one made before, or NULL. Constant. */
    void *memory;
    /* By lane: one past the highest index received. The owner's; the chunks are added by others. */
    _Atomic(uint64_t *) received[LANES_CHUNKS];
};

/* -- The queue --------------------------------------------------------------------------------- */

struct lanes {
    struct bop_mpmc base; /* First. */
    uint64_t memory_limit;

    _Alignas(BOP__CACHE_LINE) _Atomic(struct lane *) lanes; /* The newest, then by next. */
    _Atomic(struct lanes_consumer *) consumers;             /* As lanes. */
    _Atomic(struct lane *) shared[LANES_SHARED];            /* NULL until used. */
    atomic_uint consumers_open;
    atomic_uint orphans;      /* Closed tokens with something in them. */
    atomic_uint takeovers;    /* Begun so far. */
    pthread_mutex_t registry; /* Of making, opening and closing lanes and consumers. */
    unsigned lane_count;      /* Under the registry's lock. */
    void *memory;

    _Alignas(BOP__CACHE_LINE) _Atomic uint64_t block_bytes;
};

static inline struct lanes *lanes_of(struct bop_mpmc *base)
{
    return (struct lanes *)base;
}

/* Allocate zeroed, aligned to cache lines; *out_memory is what lanes_free_aligned() takes. */
void *bop__lanes_alloc_aligned(struct bop_allocator *allocator, size_t size, void **out_memory);
void bop__lanes_free_aligned(struct bop_allocator *allocator, void *memory, size_t size);

/* -- lanes_block.c ----------------------------------------------------------------------------- */

/* Blocks on their way into a lane. */
struct lane_room {
    struct lane_block *first;
    struct lane_block *last;
    size_t items;
};

/* The ceiling, at least one big block; 0: none. */
void bop__lanes_set_limit(struct lanes *queue, size_t memory_bytes_max);
int bop__lane_map_init(struct lane *lane);
/* Gather blocks for at least count items behind the lane's room. 0, or why there are fewer. */
int bop__lane_gather(struct lane *lane, size_t count, unsigned flags, struct lane_room *out_room);
/* Put them into the map. 0, or a code, and then they are given back. */
int bop__lane_install(struct lane *lane, struct lane_room *room, unsigned flags);
void bop__lane_give_back(struct lane *lane, struct lane_room *room);
void bop__lane_retire(struct lane *lane, struct lane_block *block);
/* Free all blocks and maps of a lane that nobody uses. */
void bop__lane_free_blocks(struct lane *lane);

/* The block of an item that is claimed and not done. */
static inline struct lane_block *bop__lane_block_of(struct lane *lane, uint64_t index)
{
    /* Acquire pairs with the release in grow(). The claimant has read `tail`, so the map it gets
     * here is not older than the one that the item's unit was put into. */
    struct lane_map *map = atomic_load_explicit(&lane->map, memory_order_acquire);

    /* Acquire pairs with the release in bop__lane_install(): base and capacity are there. */
    return atomic_load_explicit(&map->slots[(index / LANE_UNIT) & map->mask], memory_order_acquire);
}

/* Items of the block have been read. It may be gone after this. */
static inline void bop__lane_done(struct lane *lane, struct lane_block *block, unsigned count)
{
    unsigned capacity = block->capacity;

    /* acq_rel: release, for our reads of the items come before whatever is written over them;
     * acquire, for whoever completes the block goes on with it after everybody's reads. */
    if (BOP_UNLIKELY(atomic_fetch_add_explicit(&block->done, count, memory_order_acq_rel) + count ==
                     capacity)) {
        bop__lane_retire(lane, block);
    }
}

/* -- lanes_push.c ------------------------------------------------------------------------------ */

int bop__lanes_push(struct bop_mpmc *base, struct bop_mpmc_producer *producer, uint64_t item,
                    unsigned flags);
ssize_t bop__lanes_push_bulk(struct bop_mpmc *base, struct bop_mpmc_producer *producer,
                             const uint64_t *items, size_t count, unsigned flags);
void bop__lanes_close(struct bop_mpmc *base);

/* -- lanes.c: the registry --------------------------------------------------------------------- */

/* A lane that no token has, made if need be; under the registry's lock. */
int bop__lanes_lane_make(struct lanes *queue, struct lane **out_lane);

/* -- lanes_pop.c ------------------------------------------------------------------------------- */

int bop__lanes_pop(struct bop_mpmc *base, struct bop_mpmc_consumer *consumer, uint64_t *out_item);
size_t bop__lanes_pop_bulk(struct bop_mpmc *base, struct bop_mpmc_consumer *consumer,
                           uint64_t *out_items, size_t count);
ssize_t bop__lanes_pop_last_look(struct bop_mpmc *base, struct bop_mpmc_consumer *consumer,
                                 uint64_t *out_items, size_t count);

/* -- lanes_claim.c ----------------------------------------------------------------------------- */

/* How many items of its claim nobody has touched, as far as can be seen from outside. */
unsigned bop__claim_left(struct lanes_consumer *consumer);

/* Make the run, whose first `taken` items the owner has taken, the consumer's claim; the caller
 * has set `claiming` before the run left where it was. */
void bop__claim_publish(struct lanes_consumer *consumer, const struct lane_run *run,
                        unsigned taken);
/* Whatever the claim held is used up or lost: settle with the block. */
void bop__claim_finish(struct lanes_consumer *consumer);
/* The owner wanted `wanted` items from `from` on, and somebody may be taking over: how many of
 * them are its own. */
unsigned bop__claim_contended(struct lanes_consumer *consumer, uint64_t from, unsigned wanted);
void bop__claim_close(struct lanes_consumer *consumer);
/* Pop from what a pop without a token left over of the consumer's own claim; first of all when the
 * claim is used up. Owner's thread. */
size_t bop__claim_take_rest(struct lanes_consumer *consumer, uint64_t *out_items, size_t count);

enum takeover {
    TAKEOVER_ORPHANS, /* From closed tokens. */
    TAKEOVER_IDLE,    /* And from those that do not move. */
    TAKEOVER_ALL,     /* From all where it is allowed. */
};

/* Pop up to count items from the claims of others; what remains of a run becomes thief's claim.
 * thief may be NULL; if not, its own claim is used up. *out_elsewhere is set if something may be
 * left in the claims, and else not touched. */
size_t bop__lanes_take_over(struct lanes *queue, struct lanes_consumer *thief, uint64_t *out_items,
                            size_t count, enum takeover how, bool *out_elsewhere);
bool bop__lanes_worth_a_look(struct bop_mpmc *base);

/* The index after the highest that the consumer has received of a lane. */
static inline uint64_t *bop__lanes_received(struct lanes_consumer *consumer, unsigned lane_id)
{
    unsigned number = lane_id + LANES_CHUNK_FIRST;
    unsigned chunk = 31u - (unsigned)__builtin_clz(number) -
                     (unsigned)__builtin_ctz(LANES_CHUNK_FIRST);

    /* Acquire pairs with the release of who added the chunk, before the lane could be seen. */
    return &atomic_load_explicit(&consumer->received[chunk],
                                 memory_order_acquire)[number - (LANES_CHUNK_FIRST << chunk)];
}

static inline void bop__lanes_note_received(struct lanes_consumer *consumer, struct lane *lane,
                                            uint64_t end)
{
    uint64_t *received = bop__lanes_received(consumer, lane->id);

    if (*received < end) {
        *received = end;
    }
}

/* -- lanes_thread.c ---------------------------------------------------------------------------- */

/* A thread's record lives for ever; `life` moves on when the thread exits, and the record goes to
 * another thread. */
struct lanes_thread {
    _Atomic uint64_t life;
    struct lanes_thread *next_free;
};

/* The calling thread's; NULL without memory for one: it counts as alive for ever. */
struct lanes_thread *bop__lanes_thread(void);
/* A small number of the calling thread's own. */
unsigned bop__lanes_thread_number(void);

#endif
