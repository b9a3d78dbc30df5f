/*
 * The fast path: it is taken where it can be, shut by whatever is up in the gate,
 * and leaves mimalloc's books as mimalloc expects them.
 */
#include <bop/heap_profile.h>
#include <bop/mem.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

#include "own_malloc.h"

#include "../../../src/core/mem/collect.h"
#include "../../../src/core/mem/fast.h"

#define BLOCKS 4000

#ifdef BOP_HAVE_MIMALLOC

static bool is_open(enum bop__fast_face face)
{
    return bop__mem_own_door.heaps[face] != &bop__fast_shut &&
           bop__mem_own_door.owners[face] != BOP__FAST_NOBODY;
}

/* Something to make the thread's door, and to look through it at what is up in the gate. */
static void come_by(void)
{
    for (int i = 0; i < 3; i++) {
        bop_mem_free(bop_mem_alloc(10));
    }
}

/* Where mimalloc is the one that is known; there it must not fail in silence. */
static bool can_be_fast(void)
{
    return bop__collect_is_for_others();
}

TEST(fast, is_taken)
{
    void *first, *second;

    come_by();
    CHECK_EQ(is_open(BOP__FAST_FAMILY), can_be_fast());
    CHECK_EQ(is_open(BOP__FAST_TAGS), can_be_fast());
    first = bop_mem_alloc(48);
    second = bop__fast_alloc(BOP__FAST_FAMILY, 48);
    if (can_be_fast()) {
        /* The page of the first has room. */
        CHECK(second != NULL);
        CHECK(bop__fast_free(BOP__FAST_FAMILY, second));
    }
    CHECK(bop__fast_alloc(BOP__FAST_FAMILY, 0) == NULL);
    CHECK(bop__fast_alloc(BOP__FAST_FAMILY, BOP__FAST_SIZE_MAX + 1) == NULL);
    CHECK(bop__fast_alloc(BOP__FAST_FAMILY, SIZE_MAX) == NULL);
    bop_mem_free(first);
}

TEST(fast, sizes_are_whole)
{
    static unsigned char *blocks[BOP__FAST_SIZE_MAX + 17];

    for (int round = 0; round < 3; round++) {
        for (size_t size = 0; size < BOP_COUNT_OF(blocks); size++) {
            blocks[size] = bop_mem_alloc(size);
            CHECK(blocks[size] != NULL);
            CHECK_EQ((uintptr_t)blocks[size] % 16, 0);
            CHECK(bop_mem_usable_size(blocks[size]) >= size);
            memset(blocks[size], (int)(size + 1), size);
        }
        for (size_t size = 0; size < BOP_COUNT_OF(blocks); size++) {
            for (size_t at = 0; at < size; at++) {
                if (blocks[size][at] != (unsigned char)(size + 1)) {
                    CHECK_EQ(size, at); /* A neighbour wrote here. */
                }
            }
            bop_mem_free(blocks[size]);
        }
    }
}

TEST(fast, medium_sizes_are_whole)
{
    static unsigned char *blocks[2 * BOP__FAST_MEDIUM_MAX];
    const size_t step = 31;
    size_t taken = 0;

    for (size_t size = BOP__FAST_SIZE_MAX; size < BOP_COUNT_OF(blocks); size += step) {
        void *second;

        blocks[size] = bop_mem_alloc(size);
        REQUIRE(blocks[size] != NULL);
        second = bop__fast_alloc_medium(BOP__FAST_FAMILY, size);
        if (second) {
            taken++;
            CHECK(bop_mem_usable_size(second) >= size);
            CHECK(bop__fast_free(BOP__FAST_FAMILY, second)); /* The page has the first. */
        }
        CHECK_EQ((uintptr_t)blocks[size] % 16, 0);
        CHECK(bop_mem_usable_size(blocks[size]) >= size);
        CHECK(bop_mem_usable_size(blocks[size]) <= size + size / 4 + 16);
        memset(blocks[size], (int)(size / step), size);
    }
    CHECK_EQ(taken > 0, can_be_fast());
    for (size_t size = BOP__FAST_SIZE_MAX; size < BOP_COUNT_OF(blocks); size += step) {
        unsigned char *expected = bop_mem_alloc(size);

        memset(expected, (int)(size / step), size);
        CHECK_MEM_EQ(blocks[size], expected, size);
        bop_mem_free(blocks[size]);
        bop_mem_free(expected);
    }
    CHECK(bop__fast_alloc_medium(BOP__FAST_FAMILY, BOP__FAST_SIZE_MAX) == NULL);
    CHECK(bop__fast_alloc_medium(BOP__FAST_FAMILY, BOP__FAST_MEDIUM_MAX + 1) == NULL);
    CHECK(bop__fast_alloc_medium(BOP__FAST_FAMILY, SIZE_MAX) == NULL);
}

/* A block that is alone in its page comes and goes: the page stays, until it is collected. */
TEST(fast, an_empty_page_is_collected)
{
    void *block = bop_mem_alloc(700);
    void *again;

    bop_mem_free(block);
    again = bop_mem_alloc(700);
    CHECK(again != NULL);
    bop_mem_free(again);
    bop_mem_purge();
    if (can_be_fast()) {
        /* The heap has no page of that size any more. */
        CHECK(bop__fast_alloc(BOP__FAST_FAMILY, 700) == NULL);
    }
    block = bop_mem_alloc(700);
    memset(block, 1, 700);
    bop_mem_free(block);
}

static void *blocks_of_others[BLOCKS];

static void *free_half(void *unused)
{
    come_by();
    for (int i = 0; i < BLOCKS; i += 2) {
        bop_mem_free(blocks_of_others[i]);
    }
    return unused;
}

/* What another thread owns is freed the usual way, and comes back to its owner. */
TEST(fast, blocks_of_another_thread)
{
    pthread_t thread;

    for (int i = 0; i < BLOCKS; i++) {
        blocks_of_others[i] = bop_mem_alloc(64);
        memset(blocks_of_others[i], i, 64);
    }
    CHECK_EQ(pthread_create(&thread, NULL, free_half, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < BLOCKS; i += 2) {
        blocks_of_others[i] = bop_mem_alloc(64);
        memset(blocks_of_others[i], i, 64);
    }
    for (int i = 0; i < BLOCKS; i++) {
        unsigned char expected[64];

        memset(expected, i, sizeof(expected));
        CHECK_MEM_EQ(blocks_of_others[i], expected, sizeof(expected));
        bop_mem_free(blocks_of_others[i]);
    }
}

/* Blocks that do not begin where their page says, and ones that have a page for themselves. */
TEST(fast, blocks_that_are_not_small)
{
    for (size_t alignment = 32; alignment <= 65536; alignment *= 2) {
        void *blocks[20];

        for (int i = 0; i < 20; i++) {
            blocks[i] = bop_mem_alloc_aligned(100, alignment);
            CHECK_EQ((uintptr_t)blocks[i] % alignment, 0);
            memset(blocks[i], i, 100);
        }
        for (int i = 0; i < 20; i++) {
            bop_mem_free(blocks[i]);
        }
    }
    for (size_t size = 2048; size <= (size_t)64 << 20; size *= 2) {
        unsigned char *block = bop_mem_alloc(size);

        CHECK(block != NULL);
        block[0] = block[size - 1] = 1;
        bop_mem_free(block);
    }
}

TEST(fast, a_profile_shuts_it)
{
    struct bop_allocator *tag = bop_tag("test.fast");
    void *block;

    CHECK_EQ(bop_heap_profile_start(1), 0);
    CHECK(!is_open(BOP__FAST_FAMILY));
    CHECK(!is_open(BOP__FAST_TAGS));
    block = bop_alloc(tag, 100);
    CHECK(block != NULL);
    bop_heap_profile_stop();
    bop_free(tag, block, 100);
    come_by();
    CHECK_EQ(is_open(BOP__FAST_FAMILY), can_be_fast());
    CHECK_EQ(is_open(BOP__FAST_TAGS), can_be_fast());
}

TEST(fast, a_child_has_it)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        come_by();
        _exit(is_open(BOP__FAST_FAMILY) == can_be_fast() ? 0 : 1);
    }
    CHECK(child > 0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

/* Last: there is no way back. */
TEST(fast, counting_shuts_the_family_only)
{
    bop_mem_count_untagged();
    CHECK(!is_open(BOP__FAST_FAMILY));
    CHECK_EQ(is_open(BOP__FAST_TAGS), can_be_fast());
    come_by();
    CHECK(!is_open(BOP__FAST_FAMILY));
}

#else

TEST(fast, all_is_a_miss)
{
    CHECK(bop__fast_alloc(BOP__FAST_FAMILY, 16) == NULL);
    CHECK(!bop__fast_free(BOP__FAST_TAGS, &(int){0}));
}

#endif
