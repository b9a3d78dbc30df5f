/*
 * The malloc family: what it promises, and random sequences of all of it.
 */
#include <pthread.h>

#include <bop/mem.h>
#include <bop/random.h>

#include "tap.h"

TEST(mem, gives_a_pointer_for_size_0)
{
    void *blocks[] = {bop_mem_alloc(0), bop_mem_zalloc(0), bop_mem_calloc(0, 5),
                      bop_mem_alloc_aligned(0, 64), bop_mem_zalloc_aligned(0, 64)};

    for (size_t i = 0; i < BOP_COUNT_OF(blocks); i++) {
        CHECK(blocks[i]);
        bop_mem_free(blocks[i]);
    }
    bop_mem_free(NULL);
    bop_mem_free_sized(NULL, 5);
    CHECK_EQ(bop_mem_usable_size(NULL), 0);
}

TEST(mem, refuses_what_is_too_large_or_askew)
{
    void *block = bop_mem_alloc(10);
    size_t huge = (size_t)PTRDIFF_MAX;
    void *none[] = {bop_mem_alloc(huge),
                    bop_mem_alloc(SIZE_MAX),
                    bop_mem_zalloc(SIZE_MAX),
                    bop_mem_calloc(SIZE_MAX / 2, 3),
                    bop_mem_calloc(SIZE_MAX, SIZE_MAX),
                    bop_mem_alloc_aligned(10, 0),
                    bop_mem_alloc_aligned(10, 24),
                    bop_mem_alloc_aligned(SIZE_MAX - 8, 16),
                    bop_mem_alloc_aligned(10, (size_t)1 << 63),
                    bop_mem_zalloc_aligned(10, 3),
                    bop_mem_realloc(block, SIZE_MAX),
                    bop_mem_realloc_aligned(block, 10, 5)};

    for (size_t i = 0; i < BOP_COUNT_OF(none); i++) {
        CHECK_PTR_EQ(none[i], NULL);
    }
    bop_mem_free_sized(block, 10);
}

TEST(mem, realloc_to_0_frees)
{
    void *none = bop_mem_realloc(bop_mem_alloc(100), 0);
    void *none_aligned = bop_mem_realloc_aligned(bop_mem_alloc_aligned(100, 256), 0, 256);
    void *some = bop_mem_realloc(NULL, 10);

    CHECK_PTR_EQ(none, NULL);
    CHECK_PTR_EQ(none_aligned, NULL);
    CHECK(some);
    none = bop_mem_realloc(NULL, 0);
    CHECK_PTR_EQ(none, NULL);
    bop_mem_free(some);
}

TEST(mem, zeroes_what_was_used_before)
{
    for (size_t size = 1; size < 300000; size = size * 3 + 1) {
        uint8_t *block = bop_mem_alloc(size);
        size_t sum = 0;

        REQUIRE(block);
        memset(block, 0xff, size);
        bop_mem_free(block);
        block = bop_mem_calloc(size, 1);
        REQUIRE(block);
        for (size_t i = 0; i < size; i++) {
            sum += block[i];
        }
        CHECK_EQ(sum, 0);
        bop_mem_free_sized(block, size);
    }
}

/* -- Random sequences -------------------------------------------------------------------------- */

#define SLOTS 256
#define STEPS 40000

struct slot {
    uint8_t *block;
    size_t size;
    size_t alignment;
    uint8_t pattern;
};

static bool holds(const uint8_t *block, size_t size, uint8_t pattern)
{
    for (size_t i = 0; i < size; i++) {
        if (block[i] != pattern) {
            return false;
        }
    }
    return true;
}

static size_t random_size(struct bop_random *random)
{
    unsigned scale = (unsigned)bop_random_below(random, 16);

    return bop_random_below(random, (uint64_t)8 << scale);
}

static void check_new(const struct slot *slot)
{
    REQUIRE(slot->block);
    CHECK_EQ((uintptr_t)slot->block % slot->alignment, 0);
    CHECK((uintptr_t)slot->block % 16 == 0 || slot->alignment < 16);
    CHECK(bop_mem_usable_size(slot->block) >= slot->size);
}

static void make(struct slot *slot, struct bop_random *random)
{
    bool zero = bop_random_chance(random, 1, 3);

    slot->size = random_size(random);
    slot->alignment = 16;
    if (bop_random_chance(random, 1, 2)) {
        slot->alignment = (size_t)1 << bop_random_below(random, 17);
        slot->block = zero ? bop_mem_zalloc_aligned(slot->size, slot->alignment)
                           : bop_mem_alloc_aligned(slot->size, slot->alignment);
    } else {
        slot->block = zero ? bop_mem_zalloc(slot->size) : bop_mem_alloc(slot->size);
    }
    check_new(slot);
    CHECK(!zero || holds(slot->block, slot->size, 0));
}

static void resize(struct slot *slot, struct bop_random *random)
{
    size_t size = random_size(random) + 1;
    size_t kept = size < slot->size ? size : slot->size;

    slot->block = slot->alignment == 16 && bop_random_chance(random, 1, 2)
                      ? bop_mem_realloc(slot->block, size)
                      : bop_mem_realloc_aligned(slot->block, size, slot->alignment);
    slot->size = size;
    check_new(slot);
    CHECK(holds(slot->block, kept, slot->pattern));
}

static void step(struct slot *slot, struct bop_random *random)
{
    if (!slot->block) {
        make(slot, random);
    } else if (bop_random_chance(random, 1, 2)) {
        CHECK(holds(slot->block, slot->size, slot->pattern));
        resize(slot, random);
    } else {
        CHECK(holds(slot->block, slot->size, slot->pattern));
        if (bop_random_chance(random, 1, 2)) {
            bop_mem_free(slot->block);
        } else {
            bop_mem_free_sized(slot->block, slot->size);
        }
        *slot = (struct slot){.block = NULL};
        return;
    }
    slot->pattern = (uint8_t)bop_random_below(random, 256);
    memset(slot->block, slot->pattern, slot->size);
}

static void *random_sequence(void *argument)
{
    struct slot slots[SLOTS] = {{.block = NULL}};
    struct bop_random random;

    bop_random_seed(&random, (uintptr_t)argument);
    for (int i = 0; i < STEPS; i++) {
        step(&slots[bop_random_below(&random, SLOTS)], &random);
    }
    for (int i = 0; i < SLOTS; i++) {
        bop_mem_free(slots[i].block);
    }
    return NULL;
}

TEST(mem, keeps_contents_and_alignment)
{
    random_sequence((void *)1);
}

TEST(mem, keeps_contents_and_alignment_on_threads)
{
    pthread_t threads[3];

    for (uintptr_t i = 0; i < 3; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, random_sequence, (void *)(i + 2)), 0);
    }
    for (int i = 0; i < 3; i++) {
        REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
    }
}

TEST(mem, aligns_very_large)
{
    for (size_t alignment = (size_t)1 << 17; alignment <= (size_t)1 << 26; alignment *= 2) {
        uint8_t *block = bop_mem_alloc_aligned(100000, alignment);

        REQUIRE(block);
        CHECK_EQ((uintptr_t)block % alignment, 0);
        memset(block, 7, 100000);
        block = bop_mem_realloc_aligned(block, 200000, alignment);
        REQUIRE(block);
        CHECK_EQ((uintptr_t)block % alignment, 0);
        CHECK(holds(block, 100000, 7));
        bop_mem_free(block);
    }
}

/* Power-of-two sizes, for which an allocator may think that it needs to do nothing. */
TEST(mem, aligns_to_the_size)
{
    for (size_t size = 8; size <= 65536; size *= 2) {
        void *blocks[16];

        for (int i = 0; i < 16; i++) {
            blocks[i] = bop_mem_alloc_aligned(size, size);
            CHECK_EQ((uintptr_t)blocks[i] % size, 0);
        }
        for (int i = 0; i < 16; i++) {
            bop_mem_free(blocks[i]);
        }
    }
}

TEST(mem, is_the_default_allocator)
{
    struct bop_allocator *allocator = bop_allocator_default();
    void *block = bop_alloc(allocator, 10);

    REQUIRE(block);
    CHECK_EQ((uintptr_t)block % 16, 0);
    block = bop_realloc(allocator, block, 10, 100);
    REQUIRE(block);
    bop_free(allocator, block, 100);
}

/* -- Threads' ends ----------------------------------------------------------------------------- */

static pthread_key_t key;

/* Runs after the thread has given up its record. */
static void free_late(void *memory)
{
    void *more = bop_alloc(bop_tag("test.late"), 50);

    bop_free(bop_tag("test.late"), memory, 100);
    CHECK(more);
    bop_free(bop_tag("test.late"), more, 50);
    bop_mem_free(bop_mem_alloc(30));
}

static void *alloc_for_later(void *argument)
{
    void *block = bop_alloc(bop_tag("test.late"), 100);

    REQUIRE(block);
    REQUIRE_EQ(pthread_setspecific(key, block), 0);
    return bop_alloc(bop_tag("test.late"), 7);
}

TEST(mem, serves_destructors_of_threads)
{
    struct bop_mem_stats stats;
    pthread_t thread;
    void *left;

    REQUIRE_EQ(pthread_key_create(&key, free_late), 0);
    for (int i = 0; i < 20; i++) {
        REQUIRE_EQ(pthread_create(&thread, NULL, alloc_for_later, NULL), 0);
        REQUIRE_EQ(pthread_join(thread, &left), 0);
        bop_free(bop_tag("test.late"), left, 7);
    }
    pthread_key_delete(key);
    bop_mem_stats(&stats);
    for (size_t i = 0; i < stats.tag_count; i++) {
        if (strcmp(stats.tags[i].name, "test.late") == 0) {
            CHECK_EQ(stats.tags[i].live_bytes, 0);
            CHECK_EQ(stats.tags[i].live_allocations, 0);
            CHECK_EQ(stats.tags[i].allocations, 60);
            CHECK_EQ(stats.tags[i].bytes_allocated, 20 * 157);
        }
    }
}
