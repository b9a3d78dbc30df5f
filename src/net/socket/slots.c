#include "slots.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The first chunk of a pool is small, for loops with a few sockets; each further
 * one is twice as large, up to what is worth giving back in one piece. */
#define CHUNK_BYTES_MIN (4u * 1024)
#define CHUNK_BYTES_MAX (256u * 1024)

/* Fewer slots than this in a chunk are not worth its head. */
#define CHUNK_SLOTS_MIN 8

/* Pages of chunks from this size on are given back. */
#define RETURN_BYTES_MIN (64u * 1024)

struct free_slot {
    struct bop__slot slot;
    uint32_t kept; /* The owner's, as it was given back. */
    struct free_slot *next;
};

struct bop__chunk {
    void *memory; /* As allocated. */
    size_t memory_bytes;
    struct bop__pool *pool;
    struct bop_list link; /* pool.open, or none while no slot is free. */
    struct free_slot *free;
    uint32_t count;      /* Slots in all... */
    uint32_t carved;     /* ...of which so many were taken at least once... */
    uint32_t used;       /* ...and so many are in use or used up. */
    uint32_t generation; /* Of slots when carved. */
};

/* The head takes whole slots' alignment. */
#define CHUNK_HEAD_BYTES                                                                           \
    ((sizeof(struct bop__chunk) + BOP__SLOT_ALIGN - 1) / BOP__SLOT_ALIGN * BOP__SLOT_ALIGN)

static char *slot_at(struct bop__chunk *chunk, size_t index)
{
    return (char *)chunk + CHUNK_HEAD_BYTES + index * chunk->pool->slot_bytes;
}

void bop__slots_init(struct bop__slots *slots, struct bop_allocator *allocator)
{
    *slots = (struct bop__slots){.allocator = allocator};
    bop_list_init(&slots->pools);
}

void bop__slots_deinit(struct bop__slots *slots)
{
    struct bop_list *link;

    for (size_t i = 0; i < slots->chunk_count; i++) {
        bop_free(slots->allocator, slots->chunks[i]->memory, slots->chunks[i]->memory_bytes);
    }
    bop_free(slots->allocator, slots->chunks, slots->chunk_capacity * sizeof(struct bop__chunk *));
    while ((link = bop_list_pop_front(&slots->pools)) != NULL) {
        struct bop__pool *pool = BOP_CONTAINER_OF(link, struct bop__pool, link);

        bop_free(slots->allocator, pool, sizeof(*pool));
    }
}

struct bop__pool *bop__slots_pool(struct bop__slots *slots, size_t bytes)
{
    size_t slot_bytes = (bytes + BOP__SLOT_ALIGN - 1) / BOP__SLOT_ALIGN * BOP__SLOT_ALIGN;
    struct bop__pool *pool;

    BOP_LIST_FOR_EACH(link, &slots->pools) {
        pool = BOP_CONTAINER_OF(link, struct bop__pool, link);
        if (pool->slot_bytes == slot_bytes) {
            return pool;
        }
    }
    pool = (struct bop__pool *)bop_alloc_zeroed(slots->allocator, sizeof(*pool));
    if (pool == NULL) {
        return NULL;
    }
    pool->slots = slots;
    pool->slot_bytes = slot_bytes;
    pool->chunk_bytes = bop_max_u64(CHUNK_BYTES_MIN, CHUNK_SLOTS_MIN * slot_bytes);
    bop_list_init(&pool->open);
    bop_list_push_back(&slots->pools, &pool->link);
    return pool;
}

/* ---- Chunks ---- */

/* Room in the table for one more. */
static int reserve_entry(struct bop__slots *slots)
{
    size_t capacity = slots->chunk_capacity != 0 ? 2 * slots->chunk_capacity : 8;
    struct bop__chunk **chunks;

    if (slots->chunk_count < slots->chunk_capacity) {
        return 0;
    }
    chunks = (struct bop__chunk **)bop_realloc(slots->allocator, slots->chunks,
                                               slots->chunk_capacity * sizeof(struct bop__chunk *),
                                               capacity * sizeof(struct bop__chunk *));
    if (chunks == NULL) {
        return -1;
    }
    slots->chunks = chunks;
    slots->chunk_capacity = capacity;
    return 0;
}

/* Index of the first chunk above the address. */
static size_t chunks_up_to(const struct bop__slots *slots, const void *address)
{
    size_t low = 0, high = slots->chunk_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if ((uintptr_t)slots->chunks[middle] <= (uintptr_t)address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct bop__chunk *add_chunk(struct bop__pool *pool)
{
    struct bop__slots *slots = pool->slots;
    size_t bytes = CHUNK_HEAD_BYTES + pool->chunk_bytes + BOP__SLOT_ALIGN - 1, at;
    struct bop__chunk *chunk;
    void *memory;

    if (reserve_entry(slots) != 0) {
        return NULL;
    }
    memory = bop_alloc(slots->allocator, bytes);
    if (memory == NULL) {
        return NULL;
    }
    chunk = (struct bop__chunk *)(((uintptr_t)memory + BOP__SLOT_ALIGN - 1) &
                                  ~(uintptr_t)(BOP__SLOT_ALIGN - 1));
    *chunk = (struct bop__chunk){
        .memory = memory,
        .memory_bytes = bytes,
        .pool = pool,
        .count = (uint32_t)(pool->chunk_bytes / pool->slot_bytes),
        .generation = 1,
    };
    bop_list_init(&chunk->link);
    bop_list_push_front(&pool->open, &chunk->link);
    pool->free += chunk->count;
    if (pool->chunk_bytes < CHUNK_BYTES_MAX) {
        pool->chunk_bytes *= 2;
    }
    at = chunks_up_to(slots, chunk);
    memmove(slots->chunks + at + 1, slots->chunks + at,
            (slots->chunk_count - at) * sizeof(struct bop__chunk *));
    slots->chunks[at] = chunk;
    slots->chunk_count++;
    return chunk;
}

/*
 * Nothing of it is in use: begin anew above all generations it ever gave out. The
 * whole pages in it go; slots that share a page with something else keep their
 * content, whose generation was never handed out either.
 */
static void reset_chunk(struct bop__chunk *chunk)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)slot_at(chunk, 0) + page - 1) & ~(uintptr_t)(page - 1);
    uintptr_t to = (uintptr_t)slot_at(chunk, chunk->carved) & ~(uintptr_t)(page - 1);
    uint32_t generation = chunk->generation;

    for (uint32_t i = 0; i < chunk->carved; i++) {
        const struct bop__slot *slot = (const struct bop__slot *)slot_at(chunk, i);

        generation = slot->generation > generation ? slot->generation : generation;
    }
    if (from >= to || generation >= BOP__SLOT_GENERATIONS / 2) {
        return; /* Nothing to win, or young slots would be aged by an old one. */
    }
    if (madvise((void *)from, to - from, MADV_DONTNEED) != 0) {
        return; /* It stays as it was. */
    }
    chunk->generation = generation;
    chunk->carved = 0;
    chunk->free = NULL;
}

/* ---- Slots ---- */

struct bop__slot *bop__pool_take(struct bop__pool *pool)
{
    struct bop__chunk *chunk = bop_list_empty(&pool->open)
                                   ? add_chunk(pool)
                                   : BOP_CONTAINER_OF(pool->open.next, struct bop__chunk, link);
    struct bop__slot *slot;

    if (chunk == NULL) {
        return NULL;
    }
    if (chunk->free != NULL) {
        slot = &chunk->free->slot;
        chunk->free = chunk->free->next;
    } else {
        slot = (struct bop__slot *)slot_at(chunk, chunk->carved++);
        slot->generation = chunk->generation;
    }
    chunk->used++;
    pool->free--;
    if (chunk->free == NULL && chunk->carved == chunk->count) {
        bop_list_remove(&chunk->link);
    }
    memset(slot + 1, 0, pool->slot_bytes - sizeof(*slot));
    return slot;
}

void bop__pool_give(struct bop__pool *pool, struct bop__slot *slot)
{
    struct bop__slots *slots = pool->slots;
    struct bop__chunk *chunk = slots->chunks[chunks_up_to(slots, slot) - 1];
    struct free_slot *freed = (struct free_slot *)slot;

    BOP_DEBUG_ASSERT(chunk->pool == pool && chunk->used > 0);
    slot->generation++;
    if (slot->generation >= BOP__SLOT_GENERATIONS - 1) {
        return; /* Used up: it counts as in use from now on. */
    }
    freed->next = chunk->free;
    chunk->free = freed;
    chunk->used--;
    pool->free++;
    if (bop_list_empty(&chunk->link)) {
        bop_list_push_front(&pool->open, &chunk->link);
    }
    /* Only if others have as many free, or the next sockets would take the pages again. */
    if (chunk->used == 0 && chunk->memory_bytes >= RETURN_BYTES_MIN &&
        pool->free >= 2 * (size_t)chunk->count) {
        reset_chunk(chunk);
        /* Last, so that the chunks in use are filled first. */
        bop_list_remove(&chunk->link);
        bop_list_push_back(&pool->open, &chunk->link);
    }
}

void bop__slots_each(struct bop__slots *slots, void (*fn)(struct bop__slot *slot, void *arg),
                     void *arg)
{
    for (size_t i = 0; i < slots->chunk_count; i++) {
        struct bop__chunk *chunk = slots->chunks[i];

        for (uint32_t n = 0; n < chunk->carved; n++) {
            fn((struct bop__slot *)slot_at(chunk, n), arg);
        }
    }
}
