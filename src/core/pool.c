/*
 * Pools. A slab is one block from the allocator. It is cut into windows, and each
 * window starts with a pointer to its slab, so that the address of a cell leads
 * to its slab without a search:
 *
 *      slab
 *      +------+---------+------+------+-----+---------+------+------+-----+
 *      | lost | window: | cell | cell | ... | window: | cell | cell | ... |
 *      +------+ slab    +------+------+-----+ slab    +------+------+-----+
 *
 * A window of small cells starts at a multiple of its size, a power of two: the
 * address is masked. What is lost before the first one is nothing where the
 * block is aligned so by chance, and up to a window else. A window of a large
 * cell has just that cell, and nothing is lost.
 *
 * Each slab chains its free cells through their first words, and takes a cell
 * never used before once the chain is empty: memory is touched only when needed.
 * The current slab is the one of the last alloc or free, so a freed cell is the
 * next one handed out.
 *
 *      open      slabs that may have free cells; alloc drops those that have
 *                none when it meets them, free puts the slab back
 *      reserve   the one slab without a cell in use that is kept; on `open` too
 *
 * Under the address sanitizer all bytes of cells not in use are poisoned, and
 * cells lie a gap apart.
 */
#include <bop/pool.h>

#include <string.h>

#include <bop/error.h>
#include <bop/list.h>
#include <bop/mem.h>

#include "poison.h"

#define ALIGNMENT_DEFAULT 16
#define ALIGNMENT_MAX     4096
#define ALIGNMENT_BLOCK   16 /* What the allocator gives. */
#define CELL_BYTES_MAX    ((size_t)1 << 40)

/* Cells up to here share a window, and so do those that would lose more than one part to aligning
 * a window for each. */
#define SMALL_STRIDE_MAX 512
#define LARGE_CELL_PARTS 8

#define WINDOW_BYTES_MIN 4096
#define WINDOW_CELLS_MIN 16 /* So that little is lost at the ends of windows. */
#define SLAB_BYTES_GOOD  131072
#define SLAB_WINDOWS_MIN 4 /* Of those aligned to their size: one may be lost. */

struct cell {
    struct cell *next; /* While free. */
};

struct slab {
    struct bop_list link; /* Of all slabs. */
    struct bop_list open; /* On the pool's open list, if is_open. */
    bool is_open;
    char *block;       /* From the allocator; this struct lies at its end. */
    struct cell *free; /* Cells freed. */
    char *fresh;       /* The first cell never used, NULL if there is none. */
    size_t cells_used;
    size_t cells_held;
#ifdef BOP_DEBUG
    bool *in_use; /* By the number of the cell's place: see place_of(). */
#endif
};

struct bop_pool {
    struct slab *current; /* NULL if there is no slab. */
    size_t cells_used;
    size_t cells_max;

    size_t cell_bytes; /* As asked for. */
    size_t stride;     /* From one cell to the next. */
    size_t first;      /* From a window's start to its first cell. */
    size_t window_bytes;
    size_t window_alignment;
    uintptr_t window_mask; /* Of a cell's address: how far the cell is from the window's start, */
    size_t window_back;    /* but for this. */
    size_t block_bytes;    /* Of a slab, without the struct at its end. */

    struct bop_allocator *allocator;
    struct bop_list slabs;
    struct bop_list open;
    struct slab *reserve;
    size_t cells_held;
    size_t held_bytes;
};

static size_t round_up(size_t value, size_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

/* ---- The geometry ---- */

static char *window_of(const struct bop_pool *pool, void *cell)
{
    return (char *)cell - ((uintptr_t)cell & pool->window_mask) - pool->window_back;
}

static struct slab *slab_of(const struct bop_pool *pool, void *cell)
{
    return *(struct slab **)(void *)window_of(pool, cell);
}

static char *block_end(const struct bop_pool *pool, const struct slab *slab)
{
    return slab->block + pool->block_bytes;
}

/* The first window of the slab. */
static char *first_window(const struct bop_pool *pool, const struct slab *slab)
{
    return slab->block + (-(uintptr_t)slab->block & (pool->window_alignment - 1));
}

/* The first cell of the window, NULL if it has no room for any. */
static char *first_cell(const struct bop_pool *pool, const struct slab *slab, char *window)
{
    size_t room = (size_t)(block_end(pool, slab) - window);

    return room >= pool->first + pool->stride ? window + pool->first : NULL;
}

/* The cell after this one in the slab, NULL if it is the last. */
static char *cell_after(const struct bop_pool *pool, const struct slab *slab, char *cell)
{
    char *window = window_of(pool, cell);
    char *next = cell + pool->stride;

    if (next + pool->stride > window + pool->window_bytes) {
        window += pool->window_bytes;
        return window < block_end(pool, slab) ? first_cell(pool, slab, window) : NULL;
    }
    return next + pool->stride <= block_end(pool, slab) ? next : NULL;
}

static size_t cells_a_window(const struct bop_pool *pool)
{
    return (pool->window_bytes - pool->first) / pool->stride;
}

/* Windows that many cells share. */
static size_t share_windows(struct bop_pool *pool)
{
    size_t window = WINDOW_BYTES_MIN;
    size_t windows, enough;

    while (window < pool->first + WINDOW_CELLS_MIN * pool->stride) {
        window *= 2;
    }
    pool->window_bytes = window;
    pool->window_alignment = window;
    pool->window_mask = window - 1;
    pool->window_back = 0;

    enough = (pool->cells_max - 1) / cells_a_window(pool) + 2; /* One for what may be lost. */
    windows = bop_max_u64(SLAB_BYTES_GOOD / window, SLAB_WINDOWS_MIN);
    return window * bop_min_u64(windows, enough);
}

/* A window for each cell. */
static size_t single_windows(struct bop_pool *pool, size_t alignment)
{
    size_t slack = alignment > ALIGNMENT_BLOCK ? alignment - ALIGNMENT_BLOCK : 0;
    size_t windows;

    pool->window_bytes = pool->first + pool->stride;
    pool->window_alignment = alignment;
    pool->window_mask = 0;
    pool->window_back = pool->first;

    windows = bop_max_u64(SLAB_BYTES_GOOD / pool->window_bytes, 1);
    return pool->window_bytes * bop_min_u64(windows, pool->cells_max) + slack;
}

static void choose_geometry(struct bop_pool *pool, size_t cell_bytes, size_t alignment)
{
    pool->cell_bytes = cell_bytes;
    alignment = bop_max_u64(alignment, _Alignof(struct cell));
    cell_bytes = bop_max_u64(cell_bytes, sizeof(struct cell));
    pool->stride = round_up(cell_bytes + BOP__POISON_GAP, alignment);
    pool->first = round_up(sizeof(struct slab *), alignment);
    if (pool->stride <= SMALL_STRIDE_MAX || alignment > pool->stride / LARGE_CELL_PARTS) {
        pool->block_bytes = share_windows(pool);
    } else {
        pool->block_bytes = single_windows(pool, alignment);
    }
    pool->block_bytes = round_up(pool->block_bytes, _Alignof(struct slab));
}

/* ---- Checks of builds with debug_checks ---- */

#ifdef BOP_DEBUG

static size_t places(const struct bop_pool *pool)
{
    return (pool->block_bytes / pool->window_bytes + 1) * cells_a_window(pool);
}

static size_t place_of(const struct bop_pool *pool, const struct slab *slab, char *cell)
{
    char *window = window_of(pool, cell);
    size_t number = (size_t)(window - first_window(pool, slab)) / pool->window_bytes;

    return number * cells_a_window(pool) + (size_t)(cell - window - pool->first) / pool->stride;
}

static size_t debug_bytes(const struct bop_pool *pool)
{
    return places(pool);
}

static void debug_prepare(const struct bop_pool *pool, struct slab *slab)
{
    slab->in_use = (bool *)(slab + 1);
    memset(slab->in_use, 0, places(pool));
}

static void debug_note_alloc(const struct bop_pool *pool, struct slab *slab, void *cell)
{
    slab->in_use[place_of(pool, slab, cell)] = true;
}

/* True if a cell starts there. Looks at all slabs: what comes from elsewhere must not be read. */
static bool is_cell(const struct bop_pool *pool, char *memory)
{
    BOP_LIST_FOR_EACH(link, &pool->slabs) {
        const struct slab *slab = BOP_CONTAINER_OF(link, struct slab, link);
        char *start = first_window(pool, slab);
        size_t offset;

        if (memory < start || memory >= block_end(pool, slab)) {
            continue;
        }
        offset = (size_t)(memory - start) % pool->window_bytes;
        return offset >= pool->first && (offset - pool->first) % pool->stride == 0 &&
               offset + pool->stride <= pool->window_bytes &&
               memory + pool->stride <= block_end(pool, slab);
    }
    return false;
}

static void debug_note_free(const struct bop_pool *pool, void *cell)
{
    bool *in_use;

    if (!is_cell(pool, cell)) {
        bop_assert_failed(__FILE__, __LINE__, "bop_pool_free", "the pointer is a cell of the pool");
    }
    in_use = &slab_of(pool, cell)->in_use[place_of(pool, slab_of(pool, cell), cell)];
    if (!*in_use) {
        bop_assert_failed(__FILE__, __LINE__, "bop_pool_free", "the cell is not free already");
    }
    *in_use = false;
}

#else

static size_t debug_bytes(const struct bop_pool *pool)
{
    return 0;
}

static void debug_prepare(const struct bop_pool *pool, struct slab *slab)
{
}

static void debug_note_alloc(const struct bop_pool *pool, struct slab *slab, void *cell)
{
}

static void debug_note_free(const struct bop_pool *pool, void *cell)
{
}

#endif

/* ---- Slabs ---- */

static size_t slab_bytes(const struct bop_pool *pool)
{
    return pool->block_bytes + sizeof(struct slab) + debug_bytes(pool);
}

static void open_slab(struct bop_pool *pool, struct slab *slab)
{
    slab->is_open = true;
    bop_list_push_front(&pool->open, &slab->open);
}

/* Write the pointers to the slab, and count its cells. */
static void prepare_windows(struct bop_pool *pool, struct slab *slab)
{
    char *window = first_window(pool, slab);

    slab->fresh = first_cell(pool, slab, window);
    while (window < block_end(pool, slab) && first_cell(pool, slab, window)) {
        size_t room = (size_t)(block_end(pool, slab) - window);
        size_t size = room < pool->window_bytes ? room : pool->window_bytes;

        *(struct slab **)(void *)window = slab;
        slab->cells_held += (size - pool->first) / pool->stride;
        bop__poison(window + pool->first, size - pool->first);
        window += pool->window_bytes;
    }
}

static struct slab *add_slab(struct bop_pool *pool)
{
    char *block = bop_alloc(pool->allocator, slab_bytes(pool));
    struct slab *slab;

    if (!block) {
        return NULL;
    }
    slab = (struct slab *)(void *)(block + pool->block_bytes);
    *slab = (struct slab){.block = block};
    debug_prepare(pool, slab);
    prepare_windows(pool, slab);
    pool->cells_held += slab->cells_held;
    pool->held_bytes += slab_bytes(pool);
    bop_list_push_back(&pool->slabs, &slab->link);
    open_slab(pool, slab);
    return slab;
}

static void drop_slab(struct bop_pool *pool, struct slab *slab)
{
    pool->cells_held -= slab->cells_held;
    pool->held_bytes -= slab_bytes(pool);
    if (slab->is_open) {
        bop_list_remove(&slab->open);
    }
    bop_list_remove(&slab->link);
    bop__unpoison(slab->block, pool->block_bytes);
    bop_free(pool->allocator, slab->block, slab_bytes(pool));
}

/* The slab's last cell was freed. It is the reserve from now on; the one before goes. */
static void keep_empty(struct bop_pool *pool, struct slab *slab)
{
    struct slab *before = pool->reserve;

    pool->reserve = slab;
    /* Others are to be filled before it, so that it stays empty. */
    bop_list_remove(&slab->open);
    bop_list_push_back(&pool->open, &slab->open);
    if (before) {
        drop_slab(pool, before);
    }
}

/* A slab with a free cell; NULL if there is no memory. */
static BOP_MUST_USE struct slab *find_slab(struct bop_pool *pool)
{
    while (!bop_list_empty(&pool->open)) {
        struct slab *slab = BOP_CONTAINER_OF(pool->open.next, struct slab, open);

        if (slab->free || slab->fresh) {
            return slab;
        }
        slab->is_open = false;
        bop_list_remove(&slab->open);
    }
    return add_slab(pool);
}

/* ---- Cells ---- */

void *bop_pool_alloc(struct bop_pool *pool)
{
    struct slab *slab = pool->current;
    struct cell *cell;

    if (BOP_UNLIKELY(pool->cells_used >= pool->cells_max)) {
        return NULL;
    }
    if (BOP_UNLIKELY(!slab || (!slab->free && !slab->fresh))) {
        slab = find_slab(pool);
        if (!slab) {
            return NULL;
        }
        pool->current = slab;
    }
    cell = slab->free;
    if (BOP_LIKELY(cell)) {
        bop__unpoison(cell, sizeof(*cell)); /* More than the cell, perhaps. */
        slab->free = cell->next;
    } else {
        cell = (struct cell *)(void *)slab->fresh;
        slab->fresh = cell_after(pool, slab, slab->fresh);
    }
    if (slab->cells_used++ == 0 && slab == pool->reserve) {
        pool->reserve = NULL;
    }
    pool->cells_used++;
    debug_note_alloc(pool, slab, cell);
    bop__poison(cell, pool->stride);
    bop__unpoison(cell, pool->cell_bytes);
    return cell;
}

void bop_pool_free(struct bop_pool *pool, void *memory)
{
    struct cell *cell = memory;
    struct slab *slab;

    if (!cell) {
        return;
    }
    debug_note_free(pool, cell);
    slab = slab_of(pool, cell);
    bop__unpoison(cell, sizeof(*cell));
    cell->next = slab->free;
    bop__poison(cell, pool->stride);
    slab->free = cell;
    pool->current = slab;
    pool->cells_used--;
    if (BOP_UNLIKELY(!slab->is_open)) {
        open_slab(pool, slab);
    }
    if (BOP_UNLIKELY(--slab->cells_used == 0)) {
        keep_empty(pool, slab);
    }
}

/* ---- The whole ---- */

static bool options_are_valid(const struct bop_pool_options *options)
{
    size_t alignment = options->alignment;

    return options->cell_bytes > 0 && options->cell_bytes <= CELL_BYTES_MAX &&
           alignment <= ALIGNMENT_MAX && (alignment & (alignment - 1)) == 0;
}

int bop_pool_create(const struct bop_pool_options *options, struct bop_pool **out_pool)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "core.pool");
    struct bop_pool *pool;

    if (!options_are_valid(options)) {
        return BOP_EINVAL;
    }
    pool = bop_alloc_zeroed(allocator, sizeof(*pool));
    if (!pool) {
        return BOP_ENOMEM;
    }
    pool->allocator = allocator;
    pool->cells_max = options->cells_max ? options->cells_max : SIZE_MAX;
    bop_list_init(&pool->slabs);
    bop_list_init(&pool->open);
    choose_geometry(pool, options->cell_bytes,
                    options->alignment ? options->alignment : ALIGNMENT_DEFAULT);
    *out_pool = pool;
    return 0;
}

void bop_pool_destroy(struct bop_pool *pool)
{
    if (!pool) {
        return;
    }
    BOP_DEBUG_ASSERT(pool->cells_used == 0);
    while (!bop_list_empty(&pool->slabs)) {
        drop_slab(pool, BOP_CONTAINER_OF(pool->slabs.next, struct slab, link));
    }
    bop_free(pool->allocator, pool, sizeof(*pool));
}

struct bop_pool_stats bop_pool_stats(const struct bop_pool *pool)
{
    return (struct bop_pool_stats){.cells_used = pool->cells_used,
                                   .cells_held = pool->cells_held,
                                   .held_bytes = pool->held_bytes};
}
