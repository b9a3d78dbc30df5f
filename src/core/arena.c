/*
 * Arenas.
 *
 *      blocks                                            first
 *      +--------+---------------+------+       +--------+------------------+
 *      | header | pieces        | free | ----> | header | pieces    | lost |
 *      +--------+---------------+------+ older +--------+------------------+
 *                               at     end
 *
 * Pieces are cut from the newest block only, so that a mark is a block and a
 * place in it, and going back to it is popping blocks. What was left of the
 * block before is lost until then: less than that block, and mostly never
 * touched.
 *
 * A block remembers how large the next one was to be before it was made. Popping
 * it puts that back, so an arena emptied is as it was after init.
 *
 * Under the address sanitizer all bytes but those of living pieces are poisoned,
 * with a gap before each piece.
 */
#include <bop/arena.h>

#include <string.h>

#include <bop/mem.h>

#include "poison.h"

#define ALIGNMENT_DEFAULT 16 /* Of the allocator's pieces; also what `under` gives. */
#define ALIGNMENT_MAX     4096
#define BLOCK_DEFAULT     4096

struct bop_arena_block {
    struct bop_arena_block *older;
    size_t bytes;       /* With this header. */
    size_t bytes_after; /* block_bytes before this block was made. */
    bool is_own;        /* Made for one piece that is larger than the bound. */
};

#define HEADER_BYTES sizeof(struct bop_arena_block)

_Static_assert(HEADER_BYTES % ALIGNMENT_DEFAULT == 0, "the first piece is to be aligned");

static char *block_start(struct bop_arena_block *block)
{
    return (char *)block + HEADER_BYTES;
}

static char *block_end(struct bop_arena_block *block)
{
    return (char *)block + block->bytes;
}

/* ---- Blocks ---- */

/* Everything from `at` in the newest block is free. */
static void cut_at(struct bop_arena *arena, char *at)
{
    arena->at = at;
    arena->end = block_end(arena->blocks);
    arena->last = NULL;
    bop__poison(at, (size_t)(arena->end - at));
}

/* How large a block is to be that has `need` bytes for pieces; 0 if it must not be. */
static size_t bytes_of_next(const struct bop_arena *arena, size_t need, bool *out_is_own)
{
    size_t room = arena->limit_bytes ? arena->limit_bytes - arena->held_bytes : PTRDIFF_MAX;
    size_t bytes = arena->block_bytes;
    size_t least;

    if (__builtin_add_overflow(need, HEADER_BYTES, &least) || least > room) {
        return 0;
    }
    while (bytes < least && bytes < BOP_ARENA_BLOCK_MAX) {
        bytes *= 2;
    }
    *out_is_own = bytes < least;
    if (*out_is_own) {
        return least;
    }
    return bytes < room ? bytes : room; /* What the limit leaves may be less, and is enough. */
}

static bool push_block(struct bop_arena *arena, size_t need)
{
    bool is_own = false;
    size_t bytes = bytes_of_next(arena, need, &is_own);
    struct bop_arena_block *block = bytes > 0 ? bop_alloc(arena->under, bytes) : NULL;

    if (!block) {
        return false;
    }
    *block = (struct bop_arena_block){.older = arena->blocks,
                                      .bytes = bytes,
                                      .bytes_after = arena->block_bytes,
                                      .is_own = is_own};
    if (!is_own && arena->block_bytes < BOP_ARENA_BLOCK_MAX) {
        arena->block_bytes = bop_min_u64(bytes * 2, BOP_ARENA_BLOCK_MAX);
    }
    arena->held_bytes += bytes;
    arena->blocks = block;
    cut_at(arena, block_start(block));
    return true;
}

static void pop_block(struct bop_arena *arena)
{
    struct bop_arena_block *block = arena->blocks;
    size_t bytes = block->bytes;

    arena->blocks = block->older;
    arena->block_bytes = block->bytes_after;
    arena->held_bytes -= bytes;
    bop__unpoison(block, bytes);
    bop_free(arena->under, block, bytes);
}

/* ---- Pieces ---- */

/* Before the first piece of a block. */
static size_t padding_max(size_t alignment)
{
    if (BOP__POISON_GAP > 0) {
        return alignment + BOP__POISON_GAP;
    }
    return alignment > ALIGNMENT_DEFAULT ? alignment - ALIGNMENT_DEFAULT : 0;
}

void *bop_arena_alloc(struct bop_arena *arena, size_t size, size_t alignment)
{
    size_t padding, whole;

    BOP_ASSERT(size > 0);
    BOP_ASSERT(alignment > 0 && alignment <= ALIGNMENT_MAX && (alignment & (alignment - 1)) == 0);
    alignment = bop_max_u64(alignment, BOP__POISON_GAP);
    for (;;) {
        padding = (-((uintptr_t)arena->at + BOP__POISON_GAP) & (alignment - 1)) + BOP__POISON_GAP;
        if (__builtin_add_overflow(size, padding, &whole)) {
            return NULL;
        }
        if (BOP_LIKELY(whole <= (size_t)(arena->end - arena->at))) {
            break;
        }
        if (__builtin_add_overflow(size, padding_max(alignment), &whole) ||
            !push_block(arena, whole)) {
            return NULL;
        }
    }
    arena->last = arena->at + padding;
    arena->at += whole;
    arena->used_bytes += whole;
    bop__unpoison(arena->last, size);
    return arena->last;
}

char *bop_arena_strdup(struct bop_arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = bop_arena_alloc(arena, size, 1);

    return copy ? memcpy(copy, text, size) : NULL;
}

/* ---- As an allocator ---- */

static void *vtable_alloc(struct bop_allocator *self, size_t size)
{
    return bop_arena_alloc(BOP_CONTAINER_OF(self, struct bop_arena, allocator), size,
                           ALIGNMENT_DEFAULT);
}

static bool is_last(const struct bop_arena *arena, const void *memory, size_t size)
{
    if (!memory || memory != arena->last) {
        return false;
    }
    BOP_DEBUG_ASSERT((const char *)memory + size == arena->at); /* Or the size is wrong. */
    return true;
}

/* The piece allocated last is to end after `size` bytes. */
static void resize_last(struct bop_arena *arena, size_t size)
{
    char *memory = arena->last;
    char *before = arena->at;

    arena->at = memory + size;
    if (arena->at > before) {
        arena->used_bytes += (size_t)(arena->at - before);
        bop__unpoison(memory, size);
    } else {
        arena->used_bytes -= (size_t)(before - arena->at);
        bop__poison(arena->at, (size_t)(before - arena->at));
    }
}

static void vtable_free(struct bop_allocator *self, void *memory, size_t size)
{
    struct bop_arena *arena = BOP_CONTAINER_OF(self, struct bop_arena, allocator);

    if (is_last(arena, memory, size)) {
        resize_last(arena, 0);
        arena->last = NULL;
    } else if (memory) {
        bop__poison(memory, size);
    }
}

static void *vtable_realloc(struct bop_allocator *self, void *memory, size_t old_size,
                            size_t new_size)
{
    struct bop_arena *arena = BOP_CONTAINER_OF(self, struct bop_arena, allocator);
    void *moved;

    BOP_ASSERT(new_size > 0);
    if (is_last(arena, memory, old_size) && new_size <= (size_t)(arena->end - (char *)memory)) {
        resize_last(arena, new_size);
        return memory;
    }
    if (memory && new_size <= old_size) {
        bop__poison((char *)memory + new_size, old_size - new_size);
        return memory;
    }
    moved = vtable_alloc(self, new_size);
    if (moved && memory) {
        memcpy(moved, memory, old_size);
        bop__poison(memory, old_size);
    }
    return moved;
}

/* ---- The whole ---- */

void bop_arena_init(struct bop_arena *arena, struct bop_allocator *under, size_t block_bytes,
                    size_t limit_bytes)
{
    /* So that doubling and its header find room. */
    BOP_ASSERT(block_bytes <= PTRDIFF_MAX / 2);
    *arena = (struct bop_arena){
        .allocator = {.alloc = vtable_alloc, .realloc = vtable_realloc, .free = vtable_free},
        .under = bop_allocator_or_tag(under, "core.arena"),
        .block_bytes = block_bytes ? block_bytes : BLOCK_DEFAULT,
        .limit_bytes = limit_bytes,
    };
}

void bop_arena_deinit(struct bop_arena *arena)
{
    while (arena->blocks) {
        pop_block(arena);
    }
    arena->at = NULL;
    arena->end = NULL;
    arena->last = NULL;
    arena->used_bytes = 0;
}

void bop_arena_reset(struct bop_arena *arena)
{
    while (arena->blocks && (arena->blocks->older || arena->blocks->is_own)) {
        pop_block(arena);
    }
    if (!arena->blocks) {
        bop_arena_deinit(arena);
        return;
    }
    cut_at(arena, block_start(arena->blocks));
    arena->used_bytes = 0;
}

struct bop_arena_mark bop_arena_mark(struct bop_arena *arena)
{
    /* The piece before the mark must not grow past it, or going back would cut it. */
    arena->last = NULL;
    return (struct bop_arena_mark){
        .block = arena->blocks, .at = arena->at, .used_bytes = arena->used_bytes};
}

void bop_arena_rewind(struct bop_arena *arena, struct bop_arena_mark mark)
{
    if (!mark.block) {
        bop_arena_reset(arena);
        return;
    }
    while (arena->blocks != mark.block) {
        BOP_ASSERT(arena->blocks); /* Or the mark was taken before a reset or an earlier rewind. */
        pop_block(arena);
    }
    BOP_DEBUG_ASSERT(mark.at >= block_start(mark.block) && mark.at <= block_end(mark.block));
    cut_at(arena, mark.at);
    arena->used_bytes = mark.used_bytes;
}
