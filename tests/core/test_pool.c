/*
 * Pools: what each call promises, random runs against a model, faults, and what
 * checked builds and the address sanitizer find.
 */
#include <bop/pool.h>

#include <bop/error.h>
#include <bop/mem.h>
#include <bop/random.h>

#include "../../src/core/poison.h"
#include "dying.h"
#include "tap.h"

#define CELLS_MAX 8000

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_pool *pool;

    /* The model: the cells in use, each filled with a byte of its own. */
    struct bop_random random;
    uint8_t *cells[CELLS_MAX];
    uint8_t fills[CELLS_MAX];
    size_t count;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
}

static void teardown(struct fixture *f)
{
    while (f->count > 0) {
        bop_pool_free(f->pool, f->cells[--f->count]);
    }
    bop_pool_destroy(f->pool);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void create(struct fixture *f, size_t cell_bytes, size_t alignment, size_t cells_max)
{
    struct bop_pool_options options = {.allocator = &f->heap.allocator,
                                       .cell_bytes = cell_bytes,
                                       .alignment = alignment,
                                       .cells_max = cells_max};

    f->pool = NULL;
    REQUIRE_EQ(bop_pool_create(&options, &f->pool), 0);
}

static void destroy(struct fixture *f)
{
    bop_pool_destroy(f->pool);
    f->pool = NULL;
    CHECK_EQ(f->heap.live, 0);
}

/* Allocate until the pool has that many slabs. The cells are in f->cells. */
static void fill_slabs(struct fixture *f, size_t slabs)
{
    while (f->heap.blocks < 1 + slabs) {
        REQUIRE(f->count < CELLS_MAX);
        f->cells[f->count] = bop_pool_alloc(f->pool);
        REQUIRE(f->cells[f->count]);
        f->count++;
    }
}

static void free_all(struct fixture *f)
{
    while (f->count > 0) {
        bop_pool_free(f->pool, f->cells[--f->count]);
    }
}

TEST(pool, refuses_options_that_make_no_sense)
{
    struct bop_pool_options options = {.allocator = &f->heap.allocator};
    struct bop_pool *pool = NULL;

    CHECK_EQ(bop_pool_create(&options, &pool), BOP_EINVAL);
    options.cell_bytes = SIZE_MAX;
    CHECK_EQ(bop_pool_create(&options, &pool), BOP_EINVAL);
    options.cell_bytes = 8;
    options.alignment = 24;
    CHECK_EQ(bop_pool_create(&options, &pool), BOP_EINVAL);
    options.alignment = 8192;
    CHECK_EQ(bop_pool_create(&options, &pool), BOP_EINVAL);
    CHECK_PTR_EQ(pool, NULL);
    bop_pool_destroy(NULL);
}

TEST(pool, allocates_under_its_tag)
{
    struct bop_pool_options options = {.cell_bytes = 100};
    struct bop_mem_stats stats;
    uint64_t live = 0;

    REQUIRE_EQ(bop_pool_create(&options, &f->pool), 0);
    f->cells[f->count++] = bop_pool_alloc(f->pool);
    bop_mem_stats(&stats);
    for (size_t i = 0; i < stats.tag_count; i++) {
        if (strcmp(stats.tags[i].name, "core.pool") == 0) {
            live = stats.tags[i].live_bytes;
        }
    }
    CHECK(live > bop_pool_stats(f->pool).held_bytes); /* And the pool. */
}

TEST(pool, hands_out_next_what_was_freed_last)
{
    void *first, *second;

    create(f, 40, 0, 0);
    fill_slabs(f, 3);
    first = f->cells[0];
    second = f->cells[f->count - 1];
    bop_pool_free(f->pool, first);
    CHECK_PTR_EQ(bop_pool_alloc(f->pool), first);
    bop_pool_free(f->pool, second);
    CHECK_PTR_EQ(bop_pool_alloc(f->pool), second);
    bop_pool_free(f->pool, NULL);
}

TEST(pool, allocates_slabs_only)
{
    struct bop_pool_stats stats;

    create(f, 64, 0, 0);
    CHECK_EQ(f->heap.blocks, 1); /* The pool. */
    fill_slabs(f, 1);
    stats = bop_pool_stats(f->pool);
    CHECK_EQ(stats.cells_used, 1);
    CHECK(stats.cells_held >= 1000); /* Of 128 KiB in windows of 63 cells; fewer with gaps. */
    CHECK(stats.held_bytes >= stats.cells_held * 64);
    while (f->count < stats.cells_held) {
        f->cells[f->count] = bop_pool_alloc(f->pool);
        f->count++;
    }
    CHECK_EQ(f->heap.blocks, 2);
    fill_slabs(f, 2);
    CHECK_EQ(f->count, stats.cells_held + 1);
}

/* The reserve is kept, and what was freed last is in it. */
TEST(pool, gives_empty_slabs_back_but_for_one)
{
    struct bop_pool_stats stats;
    void *last;

    create(f, 100, 0, 0);
    fill_slabs(f, 3);
    last = f->cells[0];
    free_all(f);
    CHECK_EQ(f->heap.blocks, 2);
    stats = bop_pool_stats(f->pool);
    CHECK_EQ(stats.cells_used, 0);
    CHECK(stats.cells_held > 0);
    CHECK(f->heap.live > stats.held_bytes);
    CHECK_PTR_EQ(f->cells[0] = bop_pool_alloc(f->pool), last);
    f->count = 1;
}

/* At the edge of a slab a pair of calls must not cost an allocation each time. */
TEST(pool, does_not_swing_at_the_edge_of_a_slab)
{
    uint64_t before;

    create(f, 100, 0, 0);
    fill_slabs(f, 2);
    before = f->faults.at;
    for (int i = 0; i < 100; i++) {
        bop_pool_free(f->pool, f->cells[f->count - 1]);
        f->cells[f->count - 1] = bop_pool_alloc(f->pool);
    }
    CHECK_EQ(f->faults.at, before);
}

TEST(pool, hands_out_no_more_than_its_bound)
{
    create(f, 24, 0, 5);
    for (f->count = 0; f->count < 5; f->count++) {
        f->cells[f->count] = bop_pool_alloc(f->pool);
        REQUIRE(f->cells[f->count]);
    }
    CHECK_PTR_EQ(bop_pool_alloc(f->pool), NULL);
    CHECK(f->heap.live < 10000); /* No more memory than so few need. */
    bop_pool_free(f->pool, f->cells[2]);
    f->cells[2] = bop_pool_alloc(f->pool);
    CHECK(f->cells[2]);
    CHECK_PTR_EQ(bop_pool_alloc(f->pool), NULL);
}

#ifndef BOP_DEBUG /* There it aborts. */
TEST(pool, frees_cells_in_use_when_destroyed)
{
    create(f, 100, 0, 0);
    fill_slabs(f, 3);
    f->count = 0;
    destroy(f);
}
#endif

/* ---- Against a model ---- */

static void check_cell(struct fixture *f, size_t number, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (f->cells[number][i] != f->fills[number]) {
            CHECK_EQ(f->cells[number][i], f->fills[number]);
            return;
        }
    }
}

static void model_alloc(struct fixture *f, size_t size, size_t alignment)
{
    uint8_t *cell = bop_pool_alloc(f->pool);

    REQUIRE(cell);
    CHECK_EQ((uintptr_t)cell % alignment, 0);
    f->cells[f->count] = cell;
    f->fills[f->count] = (uint8_t)bop_random_next(&f->random);
    memset(cell, f->fills[f->count], size);
    f->count++;
}

static void model_free(struct fixture *f, size_t size)
{
    size_t number = bop_random_below(&f->random, f->count);

    check_cell(f, number, size);
    bop_pool_free(f->pool, f->cells[number]);
    f->count--;
    f->cells[number] = f->cells[f->count];
    f->fills[number] = f->fills[f->count];
}

/* Swings between nothing and count_max cells. */
static void run_model(struct fixture *f, size_t size, size_t alignment, size_t count_max)
{
    bool grows = true;

    create(f, size, alignment, 0);
    for (size_t step = 0; step < 6 * count_max; step++) {
        struct bop_pool_stats stats;

        if (f->count == count_max) {
            grows = false;
        } else if (f->count == 0) {
            grows = true;
        }
        if (f->count == 0 ||
            (f->count < count_max && bop_random_chance(&f->random, grows ? 3 : 1, 4))) {
            model_alloc(f, size, alignment);
        } else {
            model_free(f, size);
        }
        stats = bop_pool_stats(f->pool);
        CHECK_EQ(stats.cells_used, f->count);
        CHECK(stats.cells_held >= stats.cells_used);
        CHECK(stats.held_bytes < f->heap.live);
    }
    while (f->count > 0) {
        model_free(f, size);
    }
    CHECK(f->heap.blocks <= 2);
    destroy(f);
}

TEST(pool, behaves_as_its_model)
{
    bop_random_seed(&f->random, 1);
    for (size_t alignment = 1; alignment <= 4096; alignment *= 4) {
        for (size_t size = 1; size <= 1000; size = size * 3 + 1) {
            run_model(f, size, alignment, 700);
        }
    }
}

TEST(pool, behaves_as_its_model_with_large_cells)
{
    static const size_t sizes[] = {2000, 4096, 5000, 16384, 70000, 1000000};

    bop_random_seed(&f->random, 2);
    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        run_model(f, sizes[i], 16, 20);
        run_model(f, sizes[i], 4096, 20);
    }
}

TEST(pool, behaves_as_its_model_over_many_slabs)
{
    bop_random_seed(&f->random, 3);
    run_model(f, 512, 8, 3000);
    run_model(f, 528, 16, 3000);
}

/* 100 of 16 KiB, in slabs of 7. */
TEST(pool, wastes_little_on_large_cells)
{
    struct bop_pool_stats stats;

    create(f, 16384, 0, 0);
    for (f->count = 0; f->count < 100; f->count++) {
        f->cells[f->count] = bop_pool_alloc(f->pool);
        REQUIRE(f->cells[f->count]);
    }
    stats = bop_pool_stats(f->pool);
    CHECK(stats.held_bytes < 120 * 16384);
}

/* ---- Faults ---- */

TEST(pool, survives_each_fault)
{
    struct bop_pool_options options = {
        .allocator = &f->heap.allocator, .cell_bytes = 30000, .cells_max = 6};

    FAULT_SWEEP(&f->faults) {
        size_t failed = 0;
        int rc;

        f->pool = NULL;
        rc = bop_pool_create(&options, &f->pool);
        CHECK_EQ(rc, f->faults.fired != 0 ? BOP_ENOMEM : 0);
        f->count = 0;
        while (rc == 0 && f->count < 6) {
            f->cells[f->count] = bop_pool_alloc(f->pool);
            if (f->cells[f->count]) {
                f->count++;
            } else {
                failed++; /* The next call may get it. */
            }
        }
        CHECK_EQ(failed > 0, rc == 0 && f->faults.fired != 0);
        free_all(f);
        destroy(f);
    }
    CHECK_EQ(f->faults.at, 3); /* The pool, and two slabs of 4 cells. */
}

/* ---- What ends the process ---- */

#ifdef BOP_DEBUG

static void free_twice(struct fixture *f)
{
    void *cell;

    create(f, 40, 0, 0);
    cell = bop_pool_alloc(f->pool);
    BOP_IGNORE(bop_pool_alloc(f->pool));
    bop_pool_free(f->pool, cell);
    bop_pool_free(f->pool, cell);
}

static void free_large_twice(struct fixture *f)
{
    void *cell;

    create(f, 4000, 0, 0);
    cell = bop_pool_alloc(f->pool);
    BOP_IGNORE(bop_pool_alloc(f->pool));
    bop_pool_free(f->pool, cell);
    bop_pool_free(f->pool, cell);
}

static void free_inside_a_cell(struct fixture *f)
{
    char *cell;

    create(f, 40, 0, 0);
    cell = bop_pool_alloc(f->pool);
    bop_pool_free(f->pool, cell + 8);
}

static void free_what_is_elsewhere(struct fixture *f)
{
    char elsewhere[40];

    create(f, 40, 0, 0);
    BOP_IGNORE(bop_pool_alloc(f->pool));
    bop_pool_free(f->pool, elsewhere);
}

static void destroy_in_use(struct fixture *f)
{
    create(f, 40, 0, 0);
    BOP_IGNORE(bop_pool_alloc(f->pool));
    bop_pool_destroy(f->pool);
}

TEST(pool, aborts_where_it_is_misused)
{
    check_dies(f, free_twice, "the cell is not free already");
    check_dies(f, free_large_twice, "the cell is not free already");
    check_dies(f, free_inside_a_cell, "the pointer is a cell of the pool");
    check_dies(f, free_what_is_elsewhere, "the pointer is a cell of the pool");
    check_dies(f, destroy_in_use, "pool->cells_used == 0");
}

#endif

#ifdef BOP__POISONS

static void use_after_free(struct fixture *f)
{
    volatile uint8_t *cell;

    create(f, 40, 0, 0);
    cell = bop_pool_alloc(f->pool);
    bop_pool_free(f->pool, (void *)(uintptr_t)cell);
    cell[0] = 1;
}

static void use_past_the_end(struct fixture *f)
{
    volatile uint8_t *cell;

    create(f, 40, 0, 0);
    BOP_IGNORE(bop_pool_alloc(f->pool));
    cell = bop_pool_alloc(f->pool);
    cell[40] = 1;
}

static void use_what_was_never_handed_out(struct fixture *f)
{
    volatile uint8_t *cell;

    create(f, 48, 0, 0);
    cell = bop_pool_alloc(f->pool);
    cell[64] = 1;
}

TEST(pool, lets_the_address_sanitizer_find_what_is_used_too_long)
{
    check_dies(f, use_after_free, "use-after-poison");
    check_dies(f, use_past_the_end, "use-after-poison");
    check_dies(f, use_what_was_never_handed_out, "use-after-poison");
}

#endif
