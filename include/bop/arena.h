/*
 * An arena: allocate piece by piece, free all at once. For what lives as long as
 * a request or a connection.
 *
 * Pieces are cut one after another from blocks that double in size up to a
 * bound; what is larger gets a block of its own. Reset keeps the first block, so
 * a request after the first usually allocates nothing from underneath.
 *
 * An arena is an allocator too (arena->allocator), for what takes one: its free
 * takes back only the piece allocated last, its realloc grows that one in place.
 *
 * Threads: one at a time.
 */
#ifndef BOP_ARENA_H
#define BOP_ARENA_H

#include <bop/alloc.h>
#include <bop/base.h>

struct bop_arena_block;

/** Lies in the caller's memory. Fields are the arena's own but for `allocator`. */
struct bop_arena {
    struct bop_allocator allocator; /* First. Borrow its address for as long as the arena lives. */
    struct bop_allocator *under;
    struct bop_arena_block *blocks; /* Newest first. */
    char *at, *end;                 /* What is free in the newest block. */
    void *last;                     /* The piece allocated last, or NULL. */
    size_t block_bytes;             /* Of the next block. */
    size_t used_bytes;              /* Of pieces handed out since the reset, padding included. */
    size_t limit_bytes;             /* Of blocks; 0: none. */
    size_t held_bytes;              /* Of blocks. */
};

#define BOP_ARENA_BLOCK_MAX (1024 * 1024)

/**
 * An empty arena, without a block yet. under: borrowed until deinit; NULL: the tag "core.arena".
 * block_bytes: of the first block; 0 means 4096. limit_bytes: refuse to hold more; 0: no limit.
 */
BOP_API void bop_arena_init(struct bop_arena *arena, struct bop_allocator *under,
                            size_t block_bytes, size_t limit_bytes);

/** Give all blocks back; the arena may be used again as after init. */
BOP_API void bop_arena_deinit(struct bop_arena *arena);

/** All pieces are gone at once. Keeps one block for what comes next. */
BOP_API void bop_arena_reset(struct bop_arena *arena);

/** size bytes (not 0) aligned to alignment, a power of two up to 4096; NULL if there is no memory.
 */
BOP_API BOP_MUST_USE void *bop_arena_alloc(struct bop_arena *arena, size_t size, size_t alignment);

/**
 * A place to return to: everything allocated after it is gone again, and marks taken after it are
 * no good any more. What was allocated last before it no longer grows in place.
 */
struct bop_arena_mark {
    struct bop_arena_block *block;
    char *at;
    size_t used_bytes;
};
BOP_API struct bop_arena_mark bop_arena_mark(struct bop_arena *arena);
BOP_API void bop_arena_rewind(struct bop_arena *arena, struct bop_arena_mark mark);

/** A copy of the text, with its NUL; NULL if there is no memory. */
BOP_API BOP_MUST_USE char *bop_arena_strdup(struct bop_arena *arena, const char *text);

#endif
