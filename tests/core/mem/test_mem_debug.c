/*
 * Builds with debug_checks abort on a wrong free, with a line that says whose.
 */
#include <stdlib.h>

#include <bop/mem.h>

#include "tap.h"

#include "../dying.h"

#ifndef BOP_DEBUG

TEST(mem_debug, is_for_builds_with_checks)
{
    TEST_SKIP("built without debug_checks");
}

#else

/* Where the compiler cannot follow it. */
static void *volatile hidden;

static void free_twice(struct fixture *f)
{
    hidden = bop_alloc(bop_tag("debug.twice"), 77);
    bop_free(bop_tag("debug.twice"), hidden, 77);
    bop_free(bop_tag("debug.twice"), hidden, 77);
}

static void free_foreign(struct fixture *f)
{
    static char memory[64];

    hidden = memory + 16;
    bop_free(bop_tag("debug.foreign"), hidden, 10);
}

static void free_wrong_size(struct fixture *f)
{
    hidden = bop_alloc(bop_tag("debug.size"), 77);
    bop_free(bop_tag("debug.size"), hidden, 78);
}

static void free_wrong_tag(struct fixture *f)
{
    hidden = bop_alloc(bop_tag("debug.one"), 77);
    bop_free(bop_tag("debug.two"), hidden, 77);
}

static void free_to_pages(struct fixture *f)
{
    hidden = bop_alloc(bop_tag("debug.one"), 77);
    bop_free(bop_tag_pages("debug.one"), hidden, 77);
}

static void family_free_twice(struct fixture *f)
{
    hidden = bop_mem_alloc(33);
    bop_mem_free(hidden);
    bop_mem_free(hidden);
}

static void family_free_wrong_size(struct fixture *f)
{
    hidden = bop_mem_alloc(33);
    bop_mem_free_sized(hidden, 32);
}

static void family_realloc_foreign(struct fixture *f)
{
    static char memory[64];

    hidden = memory;
    BOP_IGNORE(bop_mem_realloc(hidden, 10));
}

static void realloc_wrong_size(struct fixture *f)
{
    hidden = bop_alloc(bop_tag("debug.realloc"), 10);
    BOP_IGNORE(bop_realloc(bop_tag("debug.realloc"), hidden, 11, 20));
}

TEST(mem_debug, finds_double_frees)
{
    check_dies(f, free_twice, "bop: memory error: double free of 0x");
    check_dies(f, free_twice, "(77 bytes, tag debug.twice)");
    check_dies(f, family_free_twice, "(33 bytes, tag the malloc family)");
}

TEST(mem_debug, finds_foreign_pointers)
{
    check_dies(f, free_foreign, "bop: memory error: free of foreign pointer 0x");
    check_dies(f, free_foreign, "which tag debug.foreign never handed out");
    check_dies(f, family_realloc_foreign, "which tag the malloc family never handed out");
}

TEST(mem_debug, finds_wrong_sizes)
{
    check_dies(f, free_wrong_size, "(77 bytes, tag debug.size) was freed as 78 bytes");
    check_dies(f, family_free_wrong_size, "(33 bytes, tag the malloc family) was freed as 32");
    check_dies(f, realloc_wrong_size, "(10 bytes, tag debug.realloc) was freed as 11 bytes");
}

TEST(mem_debug, finds_wrong_tags)
{
    check_dies(f, free_wrong_tag, "(77 bytes, tag debug.one) was freed to tag debug.two");
    check_dies(f, free_to_pages, "tag debug.one) was freed to tag debug.one (pages)");
}

TEST(mem_debug, keeps_up_with_many_blocks)
{
    static void *blocks[100000];

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < BOP_COUNT_OF(blocks); i++) {
            blocks[i] = bop_mem_alloc(i % 100);
            REQUIRE(blocks[i]);
        }
        for (size_t i = 0; i < BOP_COUNT_OF(blocks); i++) {
            bop_mem_free_sized(blocks[i], i % 100);
        }
    }
    /* What is wrong is found among them still. */
    check_dies(f, free_twice, "double free");
}

#endif
