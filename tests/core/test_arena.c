/*
 * Arenas: what each call promises, a random run against a model, faults, and
 * that the address sanitizer finds what is used too long.
 */
#include <bop/arena.h>

#include <bop/mem.h>
#include <bop/random.h>

#include "../../src/core/poison.h"
#include "dying.h"
#include "tap.h"

#define PIECES_MAX 400
#define MARKS_MAX  8

struct piece {
    uint8_t *at;
    size_t size;
    size_t alignment;
    uint8_t fill;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_arena arena;

    /* The model: living pieces, oldest first, and how many there were at each mark. */
    struct bop_random random;
    struct piece pieces[PIECES_MAX];
    size_t piece_count;
    struct bop_arena_mark marks[MARKS_MAX];
    size_t marked_counts[MARKS_MAX];
    size_t mark_count;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
    bop_arena_init(&f->arena, &f->heap.allocator, 0, 0);
}

static void teardown(struct fixture *f)
{
    bop_arena_deinit(&f->arena);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static struct bop_allocator *as_allocator(struct fixture *f)
{
    return &f->arena.allocator;
}

/* ---- Pieces and blocks ---- */

TEST(arena, allocates_nothing_before_it_is_used)
{
    CHECK_EQ(f->heap.blocks, 0);
    bop_arena_reset(&f->arena);
    bop_arena_rewind(&f->arena, bop_arena_mark(&f->arena));
    CHECK_EQ(f->heap.blocks, 0);
    CHECK_EQ(f->arena.held_bytes, 0);
}

TEST(arena, cuts_pieces_from_one_block)
{
    for (int i = 0; i < 100; i++) {
        uint8_t *piece = bop_arena_alloc(&f->arena, 20, 4);

        REQUIRE(piece);
        memset(piece, i, 20);
    }
    CHECK_EQ(f->heap.blocks, 1);
    CHECK_EQ(f->heap.live, 4096);
    CHECK_EQ(f->arena.held_bytes, 4096);
    CHECK(f->arena.used_bytes >= 2000);
}

TEST(arena, aligns_up_to_a_page)
{
    for (size_t alignment = 1; alignment <= 4096; alignment *= 2) {
        for (size_t size = 1; size <= 5000; size = size * 3 + 1) {
            uint8_t *piece = bop_arena_alloc(&f->arena, size, alignment);

            REQUIRE(piece);
            CHECK_EQ((uintptr_t)piece % alignment, 0);
            memset(piece, 0xff, size);
        }
    }
}

/* 4096 + 8192 + ... + 1 MiB + 1 MiB. */
TEST(arena, doubles_its_blocks_up_to_the_bound)
{
    size_t expected = 0;

    for (size_t bytes = 4096; bytes < BOP_ARENA_BLOCK_MAX; bytes *= 2) {
        expected += bytes;
    }
    expected += 2 * BOP_ARENA_BLOCK_MAX;
    while (f->heap.blocks < 10) { /* 8 from 4 KiB to 512 KiB, and 2. */
        REQUIRE(bop_arena_alloc(&f->arena, 1000, 8));
    }
    CHECK_EQ(f->heap.live, expected);
}

TEST(arena, gives_large_pieces_blocks_of_their_own)
{
    size_t size = (size_t)3 * BOP_ARENA_BLOCK_MAX;
    uint8_t *piece = bop_arena_alloc(&f->arena, size, 16);

    REQUIRE(piece);
    memset(piece, 0xff, size);
    CHECK_EQ(f->heap.blocks, 1);
    CHECK(f->heap.live >= size && f->heap.live < size + 256);
    REQUIRE(bop_arena_alloc(&f->arena, 8, 8));
    CHECK_EQ(f->heap.blocks, 2);
    CHECK(f->heap.live < size + 256 + 4097); /* The next is as small as if there had been none. */
}

TEST(arena, copies_text)
{
    char *text = bop_arena_strdup(&f->arena, "hello");
    char *empty = bop_arena_strdup(&f->arena, "");

    CHECK_STR_EQ(text, "hello");
    CHECK_STR_EQ(empty, "");
}

TEST(arena, allocates_under_its_tag)
{
    struct bop_arena arena;
    struct bop_mem_stats stats;
    uint64_t live = 0;

    bop_arena_init(&arena, NULL, 0, 0);
    CHECK(bop_arena_alloc(&arena, 1, 1));
    bop_mem_stats(&stats);
    for (size_t i = 0; i < stats.tag_count; i++) {
        if (strcmp(stats.tags[i].name, "core.arena") == 0) {
            live = stats.tags[i].live_bytes;
        }
    }
    CHECK_EQ(live, 4096);
    bop_arena_deinit(&arena);
}

TEST(arena, refuses_sizes_beyond_all_memory)
{
    f->faults.fail_at = 0;
    CHECK_PTR_EQ(bop_arena_alloc(&f->arena, SIZE_MAX, 1), NULL);
    CHECK_PTR_EQ(bop_arena_alloc(&f->arena, SIZE_MAX - 8, 4096), NULL);
    CHECK_PTR_EQ(bop_arena_alloc(&f->arena, (size_t)PTRDIFF_MAX, 16), NULL);
    CHECK_EQ(f->heap.live, 0);
}

/* ---- Reset, deinit, limits ---- */

TEST(arena, keeps_its_first_block_at_reset)
{
    uint8_t *first = bop_arena_alloc(&f->arena, 100, 16);

    while (f->heap.blocks < 5) {
        REQUIRE(bop_arena_alloc(&f->arena, 1000, 8));
    }
    bop_arena_reset(&f->arena);
    CHECK_EQ(f->heap.blocks, 1);
    CHECK_EQ(f->heap.live, 4096);
    CHECK_EQ(f->arena.used_bytes, 0);
    CHECK_PTR_EQ(bop_arena_alloc(&f->arena, 100, 16), first);
    while (f->heap.blocks < 2) {
        REQUIRE(bop_arena_alloc(&f->arena, 1000, 8));
    }
    CHECK_EQ(f->heap.live, 4096 + 8192); /* As the first time. */
}

TEST(arena, keeps_no_large_block_at_reset)
{
    REQUIRE(bop_arena_alloc(&f->arena, 2 * BOP_ARENA_BLOCK_MAX, 8));
    bop_arena_reset(&f->arena);
    CHECK_EQ(f->heap.live, 0);
    CHECK(bop_arena_alloc(&f->arena, 8, 8));
    CHECK_EQ(f->heap.live, 4096);
}

TEST(arena, is_as_new_after_deinit)
{
    REQUIRE(bop_arena_alloc(&f->arena, 100000, 8));
    bop_arena_deinit(&f->arena);
    CHECK_EQ(f->heap.live, 0);
    CHECK_EQ(f->arena.used_bytes, 0);
    REQUIRE(bop_arena_alloc(&f->arena, 8, 8));
    CHECK_EQ(f->heap.live, 4096);
}

/* 1000 + 2000 leave 500 of 3500: the third block is as small as that. */
TEST(arena, holds_no_more_than_its_limit)
{
    size_t pieces = 0;

    bop_arena_init(&f->arena, &f->heap.allocator, 1000, 3500);
    while (bop_arena_alloc(&f->arena, 100, 4)) {
        pieces++;
        CHECK(f->heap.live <= 3500);
    }
    CHECK_EQ(f->heap.live, 3500);
    CHECK(pieces >= 9 + 18 + 4 - 6); /* Six less where there are gaps. */
    CHECK_PTR_EQ(bop_arena_alloc(&f->arena, 3500, 4), NULL);
    bop_arena_reset(&f->arena);
    CHECK(bop_arena_alloc(&f->arena, 2400, 4));
    CHECK(f->heap.live <= 3500);
}

/* ---- Marks ---- */

TEST(arena, goes_back_to_a_mark)
{
    struct bop_arena_mark mark;
    char *kept = bop_arena_strdup(&f->arena, "kept");
    size_t held = f->arena.held_bytes;
    size_t used = f->arena.used_bytes;
    void *after;

    mark = bop_arena_mark(&f->arena);
    after = bop_arena_alloc(&f->arena, 10, 16);
    for (int i = 0; i < 1000; i++) {
        REQUIRE(bop_arena_alloc(&f->arena, 1000, 8));
    }
    REQUIRE(bop_arena_alloc(&f->arena, 2 * BOP_ARENA_BLOCK_MAX, 8));
    bop_arena_rewind(&f->arena, mark);
    CHECK_EQ(f->arena.held_bytes, held);
    CHECK_EQ(f->arena.used_bytes, used);
    CHECK_EQ(f->heap.live, held);
    CHECK_STR_EQ(kept, "kept");
    CHECK_PTR_EQ(bop_arena_alloc(&f->arena, 10, 16), after);
}

TEST(arena, goes_back_to_its_beginning)
{
    struct bop_arena_mark mark = bop_arena_mark(&f->arena);

    REQUIRE(bop_arena_alloc(&f->arena, 10000, 8));
    bop_arena_rewind(&f->arena, mark);
    CHECK_EQ(f->arena.used_bytes, 0);
    CHECK_EQ(f->heap.blocks, 1);
}

/* Or going back would cut off what it grew by. */
TEST(arena, does_not_grow_a_piece_past_a_mark)
{
    struct bop_allocator *allocator = as_allocator(f);
    uint8_t *piece = bop_alloc(allocator, 8);
    struct bop_arena_mark mark = bop_arena_mark(&f->arena);

    REQUIRE(piece);
    CHECK(bop_realloc(allocator, piece, 8, 16) != piece);
    bop_arena_rewind(&f->arena, mark);
}

/* ---- As an allocator ---- */

TEST(arena_allocator, grows_the_last_piece_in_place)
{
    struct bop_allocator *allocator = as_allocator(f);
    uint8_t *piece = bop_realloc(allocator, NULL, 0, 10);
    size_t used;

    REQUIRE(piece);
    CHECK_EQ((uintptr_t)piece % _Alignof(max_align_t), 0);
    used = f->arena.used_bytes;
    memset(piece, 1, 10);
    CHECK_PTR_EQ(bop_realloc(allocator, piece, 10, 1000), piece);
    CHECK_EQ(f->arena.used_bytes, used + 990);
    memset(piece, 1, 1000);
    CHECK_PTR_EQ(bop_realloc(allocator, piece, 1000, 20), piece);
    CHECK_EQ(f->arena.used_bytes, used + 10);
    CHECK_EQ(f->heap.blocks, 1);
}

TEST(arena_allocator, copies_a_piece_that_cannot_grow_in_place)
{
    struct bop_allocator *allocator = as_allocator(f);
    uint8_t *first = bop_alloc(allocator, 4);
    uint8_t *second = bop_alloc(allocator, 4);
    uint8_t *moved;

    REQUIRE(first && second);
    memcpy(first, "abcd", 4);
    memcpy(second, "efgh", 4);
    moved = bop_realloc(allocator, first, 4, 8);
    REQUIRE(moved && moved != first);
    CHECK_MEM_EQ(moved, "abcd", 4);
    moved = bop_realloc(allocator, moved, 8, 100000); /* Into another block. */
    REQUIRE(moved);
    CHECK_MEM_EQ(moved, "abcd", 4);
    CHECK_MEM_EQ(second, "efgh", 4);
    CHECK_PTR_EQ(bop_realloc(allocator, second, 4, 2), second);
    CHECK_MEM_EQ(second, "ef", 2);
}

TEST(arena_allocator, takes_back_the_last_piece_only)
{
    struct bop_allocator *allocator = as_allocator(f);
    void *first = bop_alloc(allocator, 64);
    void *second = bop_alloc(allocator, 64);
    size_t used;

    REQUIRE(first && second);
    used = f->arena.used_bytes;
    bop_free(allocator, NULL, 0);
    bop_free(allocator, first, 64);
    CHECK_EQ(f->arena.used_bytes, used);
    bop_free(allocator, second, 64);
    CHECK_EQ(f->arena.used_bytes, used - 64);
    CHECK(bop_alloc(allocator, 64) != first);
}

/* ---- Against a model ---- */

static void check_piece(const struct piece *piece)
{
    for (size_t i = 0; i < piece->size; i++) {
        if (piece->at[i] != piece->fill) {
            CHECK_EQ(piece->at[i], piece->fill);
            return;
        }
    }
}

static void check_pieces_from(struct fixture *f, size_t first)
{
    for (size_t i = first; i < f->piece_count; i++) {
        check_piece(&f->pieces[i]);
    }
}

static void fill_piece(struct fixture *f, struct piece *piece)
{
    piece->fill = (uint8_t)bop_random_next(&f->random);
    memset(piece->at, piece->fill, piece->size);
}

static size_t some_size(struct fixture *f)
{
    static const size_t bounds[] = {16, 100, 1000, 20000, 3 * BOP_ARENA_BLOCK_MAX / 2};
    size_t pick = bop_random_below(&f->random, 100);

    return 1 + bop_random_below(&f->random, bounds[pick < 96 ? pick % 4 : 4]);
}

static void model_alloc(struct fixture *f)
{
    struct piece *piece = &f->pieces[f->piece_count];

    if (f->piece_count == PIECES_MAX) {
        return;
    }
    *piece = (struct piece){.size = some_size(f),
                            .alignment = (size_t)1 << bop_random_below(&f->random, 13)};
    piece->at = bop_arena_alloc(&f->arena, piece->size, piece->alignment);
    if (!piece->at) {
        CHECK(f->arena.limit_bytes > 0);
        return;
    }
    CHECK_EQ((uintptr_t)piece->at % piece->alignment, 0);
    fill_piece(f, piece);
    f->piece_count++;
}

/* Only pieces of after the last mark: what older ones grow into is gone with it. */
static void model_realloc(struct fixture *f)
{
    size_t first = f->mark_count > 0 ? f->marked_counts[f->mark_count - 1] : 0;
    struct piece *piece;
    size_t size = some_size(f);
    uint8_t *moved;

    if (first == f->piece_count) {
        return;
    }
    piece = &f->pieces[bop_random_chance(&f->random, 1, 2)
                           ? f->piece_count - 1
                           : first + bop_random_below(&f->random, f->piece_count - first)];
    moved = bop_realloc(as_allocator(f), piece->at, piece->size, size);
    if (!moved) {
        CHECK(f->arena.limit_bytes > 0);
        return;
    }
    piece->at = moved;
    piece->size = bop_min_u64(piece->size, size);
    check_piece(piece);
    piece->size = size;
    fill_piece(f, piece);
}

static void model_free(struct fixture *f)
{
    size_t first = f->mark_count > 0 ? f->marked_counts[f->mark_count - 1] : 0;
    struct piece *piece;

    if (first == f->piece_count) {
        return;
    }
    piece = &f->pieces[--f->piece_count];
    check_piece(piece);
    bop_free(as_allocator(f), piece->at, piece->size);
}

static void model_mark(struct fixture *f)
{
    if (f->mark_count < MARKS_MAX) {
        f->marks[f->mark_count] = bop_arena_mark(&f->arena);
        f->marked_counts[f->mark_count] = f->piece_count;
        f->mark_count++;
    }
}

static void model_rewind(struct fixture *f)
{
    if (f->mark_count > 0) {
        size_t to = bop_random_below(&f->random, f->mark_count);

        check_pieces_from(f, f->marked_counts[to]);
        bop_arena_rewind(&f->arena, f->marks[to]);
        f->piece_count = f->marked_counts[to];
        f->mark_count = to;
        CHECK_EQ(f->arena.used_bytes, f->marks[to].used_bytes);
    }
}

static void model_clear(struct fixture *f)
{
    check_pieces_from(f, 0);
    if (bop_random_chance(&f->random, 1, 2)) {
        bop_arena_reset(&f->arena);
        CHECK(f->heap.blocks <= 1);
    } else {
        bop_arena_deinit(&f->arena);
        CHECK_EQ(f->heap.blocks, 0);
    }
    CHECK_EQ(f->arena.used_bytes, 0);
    f->piece_count = 0;
    f->mark_count = 0;
}

static void run_model(struct fixture *f, uint64_t seed, size_t block_bytes, size_t limit_bytes)
{
    test_note("seed %" PRIu64 ", blocks %zu, limit %zu", seed, block_bytes, limit_bytes);
    bop_random_seed(&f->random, seed);
    f->piece_count = 0;
    f->mark_count = 0;
    bop_arena_init(&f->arena, &f->heap.allocator, block_bytes, limit_bytes);
    for (int step = 0; step < 3000; step++) {
        size_t pick = bop_random_below(&f->random, 1000);

        if (pick < 600) {
            model_alloc(f);
        } else if (pick < 800) {
            model_realloc(f);
        } else if (pick < 900) {
            model_free(f);
        } else if (pick < 950) {
            model_mark(f);
        } else if (pick < 995) {
            model_rewind(f);
        } else {
            model_clear(f);
        }
        CHECK_EQ(f->heap.live, f->arena.held_bytes);
        CHECK(limit_bytes == 0 || f->heap.live <= limit_bytes);
    }
    check_pieces_from(f, 0);
    bop_arena_deinit(&f->arena);
}

TEST(arena, behaves_as_its_model)
{
    static const size_t block_bytes[] = {0, 1, 100, 3000, 5000000};

    for (uint64_t seed = 1; seed <= 10; seed++) {
        run_model(f, seed, block_bytes[seed % 5], seed % 3 == 0 ? 40000 * seed : 0);
    }
}

/* ---- Faults ---- */

/* The third and the fourth find room. */
static bool fill_some(struct fixture *f)
{
    return bop_arena_alloc(&f->arena, 3000, 16) && bop_arena_alloc(&f->arena, 7000, 4096) &&
           bop_arena_strdup(&f->arena, "text") && bop_alloc(as_allocator(f), 100) &&
           bop_arena_alloc(&f->arena, 2 * BOP_ARENA_BLOCK_MAX, 16);
}

TEST(arena, survives_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        bool done = fill_some(f);

        CHECK_EQ(done, f->faults.fired == 0);
        CHECK_EQ(f->heap.live, f->arena.held_bytes);
        bop_arena_deinit(&f->arena);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 3);
}

TEST(arena_allocator, leaves_the_old_piece_when_it_cannot_grow)
{
    struct bop_allocator *allocator = as_allocator(f);

    FAULT_SWEEP(&f->faults) {
        uint8_t *piece = bop_alloc(allocator, 4);
        uint8_t *moved = piece;

        if (piece) {
            memcpy(piece, "abcd", 4);
            moved = bop_realloc(allocator, piece, 4, 100000);
            CHECK_MEM_EQ(moved ? moved : piece, "abcd", 4);
        }
        CHECK_EQ(moved == NULL, f->faults.fired != 0);
        bop_arena_deinit(&f->arena);
    }
    CHECK_EQ(f->faults.at, 2);
}

/* ---- What ends the process ---- */

static void rewind_to_gone_mark(struct fixture *f)
{
    struct bop_arena_mark mark;

    BOP_IGNORE(bop_arena_alloc(&f->arena, 4000, 8));
    BOP_IGNORE(bop_arena_alloc(&f->arena, 4000, 8));
    mark = bop_arena_mark(&f->arena);
    bop_arena_deinit(&f->arena);
    bop_arena_rewind(&f->arena, mark);
}

TEST(arena, aborts_at_a_mark_that_is_gone)
{
    check_dies(f, rewind_to_gone_mark, "assertion failed: arena->blocks");
}

#ifdef BOP_DEBUG

static void free_with_wrong_size(struct fixture *f)
{
    void *piece = bop_alloc(as_allocator(f), 100);

    bop_free(as_allocator(f), piece, 99);
}

TEST(arena_allocator, aborts_at_a_wrong_size_of_the_last_piece)
{
    check_dies(f, free_with_wrong_size, "assertion failed: (const char *)memory + size");
}

#endif

#ifdef BOP__POISONS

static volatile uint8_t seen;

static void use_after_reset(struct fixture *f)
{
    volatile uint8_t *piece = bop_arena_alloc(&f->arena, 100, 1);

    piece[99] = 1;
    bop_arena_reset(&f->arena);
    seen = piece[99];
}

static void use_after_rewind(struct fixture *f)
{
    struct bop_arena_mark mark;
    volatile uint8_t *piece;

    BOP_IGNORE(bop_arena_alloc(&f->arena, 5, 1));
    mark = bop_arena_mark(&f->arena);
    piece = bop_arena_alloc(&f->arena, 3, 1);
    piece[0] = 1;
    bop_arena_rewind(&f->arena, mark);
    piece[0] = 2;
}

static void use_after_free(struct fixture *f)
{
    volatile uint8_t *piece = bop_alloc(as_allocator(f), 10);

    BOP_IGNORE(bop_alloc(as_allocator(f), 10));
    bop_free(as_allocator(f), (void *)(uintptr_t)piece, 10);
    piece[0] = 1;
}

static void use_after_realloc(struct fixture *f)
{
    volatile uint8_t *piece = bop_alloc(as_allocator(f), 10);

    BOP_IGNORE(bop_alloc(as_allocator(f), 10));
    BOP_IGNORE(bop_realloc(as_allocator(f), (void *)(uintptr_t)piece, 10, 20));
    piece[0] = 1;
}

static void use_past_the_end(struct fixture *f)
{
    volatile uint8_t *piece = bop_arena_alloc(&f->arena, 7, 1);

    BOP_IGNORE(bop_arena_alloc(&f->arena, 7, 1));
    piece[7] = 1;
}

static void use_what_was_cut_off(struct fixture *f)
{
    volatile uint8_t *piece = bop_alloc(as_allocator(f), 100);

    BOP_IGNORE(bop_realloc(as_allocator(f), (void *)(uintptr_t)piece, 100, 50));
    piece[50] = 1;
}

TEST(arena, lets_the_address_sanitizer_find_what_is_used_too_long)
{
    check_dies(f, use_after_reset, "use-after-poison");
    check_dies(f, use_after_rewind, "use-after-poison");
    check_dies(f, use_after_free, "use-after-poison");
    check_dies(f, use_after_realloc, "use-after-poison");
    check_dies(f, use_past_the_end, "use-after-poison");
    check_dies(f, use_what_was_cut_off, "use-after-poison");
}

#endif
