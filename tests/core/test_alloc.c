/*
 * The default allocator and the helpers over any.
 */
#include <bop/alloc.h>

#include "tap.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, &f->faults);
}

static void teardown(struct fixture *f)
{
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

TEST(alloc_default, is_there_and_always_the_same)
{
    CHECK(bop_allocator_default());
    CHECK_PTR_EQ(bop_allocator_default(), bop_allocator_default());
    CHECK_PTR_EQ(bop_allocator_or_default(NULL), bop_allocator_default());
    CHECK_PTR_EQ(bop_allocator_or_default(&f->heap.allocator), &f->heap.allocator);
}

TEST(alloc_default, aligns_for_any_type)
{
    struct bop_allocator *allocator = bop_allocator_default();

    for (size_t size = sizeof(max_align_t); size < 5000; size += 7) {
        void *memory = bop_alloc(allocator, size);

        REQUIRE(memory);
        CHECK_EQ((uintptr_t)memory % _Alignof(max_align_t), 0);
        memset(memory, 0xff, size);
        bop_free(allocator, memory, size);
    }
}

TEST(alloc_default, keeps_the_content_when_growing_and_shrinking)
{
    struct bop_allocator *allocator = bop_allocator_default();
    uint8_t *memory = bop_realloc(allocator, NULL, 0, 4);

    REQUIRE(memory);
    memcpy(memory, "abcd", 4);
    memory = bop_realloc(allocator, memory, 4, 100000);
    REQUIRE(memory);
    CHECK_MEM_EQ(memory, "abcd", 4);
    memory = bop_realloc(allocator, memory, 100000, 2);
    REQUIRE(memory);
    CHECK_MEM_EQ(memory, "ab", 2);
    bop_free(allocator, memory, 2);
}

TEST(alloc_default, frees_null)
{
    bop_free(bop_allocator_default(), NULL, 0);
}

TEST(alloc_zeroed, is_zeroed)
{
    static const uint8_t zeros[100];
    void *memory = bop_alloc_zeroed(&f->heap.allocator, 100);

    REQUIRE(memory);
    CHECK_MEM_EQ(memory, zeros, 100);
    bop_free(&f->heap.allocator, memory, 100);
}

TEST(alloc_array, is_zeroed_and_of_the_product)
{
    static const uint8_t zeros[60];
    void *memory = bop_alloc_array(&f->heap.allocator, 5, 12);

    REQUIRE(memory);
    CHECK_MEM_EQ(memory, zeros, 60);
    CHECK_EQ(f->heap.live, 60);
    bop_free(&f->heap.allocator, memory, 60);
}

TEST(alloc_array, refuses_a_product_that_overflows)
{
    CHECK_PTR_EQ(bop_alloc_array(&f->heap.allocator, SIZE_MAX / 2 + 1, 2), NULL);
    CHECK_PTR_EQ(bop_alloc_array(&f->heap.allocator, SIZE_MAX, SIZE_MAX), NULL);
    CHECK_PTR_EQ(bop_alloc_array(&f->heap.allocator, 8, SIZE_MAX / 8 + 1), NULL);
    CHECK_EQ(f->faults.at, 0); /* The allocator was not asked. */
}

TEST(alloc, gives_null_when_memory_is_short)
{
    FAULT_SWEEP(&f->faults) {
        void *zeroed = bop_alloc_zeroed(&f->heap.allocator, 8);
        void *array = bop_alloc_array(&f->heap.allocator, 2, 4);

        CHECK_EQ(zeroed && array, f->faults.fired == 0);
        bop_free(&f->heap.allocator, zeroed, 8);
        bop_free(&f->heap.allocator, array, 8);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 2);
}
