/*
 * Tests that fail, skip and crash on purpose: test_tap.c runs them one by one
 * and looks at what the harness makes of it.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

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
    test_note("torn down");
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

TEST(pass, of_all_kinds)
{
    enum { SMALL = -1 } small = SMALL;
    uint64_t big = UINT64_MAX;
    char c = 'x';

    CHECK(true);
    REQUIRE(1 < 2);
    CHECK_EQ(small, -1);
    CHECK_EQ(big, UINT64_MAX);
    CHECK_EQ((uint8_t)200, 200);
    CHECK_EQ((int8_t)-3, -3LL);
    CHECK_EQ(c, 'x');
    CHECK_EQ(true, 1);
    CHECK_EQ(f->heap.live, 0);
    REQUIRE_EQ(sizeof(int), 4);
    CHECK_PTR_EQ(f, f);
    CHECK_STR_EQ("abc", "abc");
    CHECK_STR_EQ(NULL, NULL);
    CHECK_STR_HAS("abcdef", "cde");
    CHECK_SLICE_EQ(bytes("abc"), bop_slice("abcd", 3));
    CHECK_SLICE_EQ(bop_slice(NULL, 0), bytes(""));
    CHECK_MEM_EQ("abcd", "abce", 3);
}

TEST(fail, check)
{
    CHECK(1 > 2);
    test_note("went on");
}

static int helper_that_requires(int value)
{
    REQUIRE(value == 5);
    return value;
}

TEST(fail, require_in_a_helper)
{
    CHECK_EQ(helper_that_requires(4), 4);
    test_note("went on");
}

TEST(fail, require_eq)
{
    REQUIRE_EQ(3, 4);
    test_note("went on");
}

TEST(fail, equal_bits_of_other_sign)
{
    CHECK_EQ(-1, UINT64_MAX);
}

TEST(fail, error_code)
{
    CHECK_EQ(-12, 0);
}

TEST(fail, strings)
{
    CHECK_STR_EQ("abc", NULL);
}

TEST(fail, string_without_part)
{
    CHECK_STR_HAS("abcdef", "xyz");
}

TEST(fail, slices)
{
    CHECK_SLICE_EQ(bytes("0123456789abc"), bytes("0123456789a\x01"));
}

TEST(fail, memory)
{
    CHECK_MEM_EQ("abcd", "abce", 4);
}

TEST(fail, pointers)
{
    CHECK_PTR_EQ(f, NULL);
}

static void *check_in_thread(void *argument)
{
    CHECK_EQ(*(int *)argument, 2);
    return NULL;
}

TEST(fail, in_a_thread)
{
    int one = 1;
    pthread_t thread;

    REQUIRE_EQ(pthread_create(&thread, NULL, check_in_thread, &one), 0);
    REQUIRE_EQ(pthread_join(thread, NULL), 0);
}

TEST(fail, by_a_leak)
{
    BOP_IGNORE(bop_alloc(&f->heap.allocator, 10));
}

TEST(fail, very_often)
{
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(i, -5000);
    }
}

TEST(fail, in_a_sweep)
{
    FAULT_SWEEP(&f->faults) {
        void *a = bop_alloc(&f->heap.allocator, 1);
        void *b = bop_alloc(&f->heap.allocator, 1);

        CHECK(b);
        bop_free(&f->heap.allocator, a, 1);
        bop_free(&f->heap.allocator, b, 1);
    }
}

TEST(skip, with_a_reason)
{
    TEST_SKIP("no such machine");
}

TEST(skip, after_a_failure)
{
    CHECK(false);
    TEST_SKIP("no such machine");
}

TEST(crash, by_assertion)
{
    BOP_ASSERT(f == NULL);
}

TEST(crash, by_wrong_size)
{
    void *memory = bop_alloc(&f->heap.allocator, 10);

    bop_free(&f->heap.allocator, memory, 11);
}

TEST(crash, by_overflow)
{
    uint8_t *memory = bop_alloc(&f->heap.allocator, 10);

    /* Through a volatile pointer, that no compiler sees it coming. */
    ((volatile uint8_t *)memory)[10] = 1;
    bop_free(&f->heap.allocator, memory, 10);
}

static void *require_in_thread(void *argument)
{
    helper_that_requires(*(int *)argument);
    return NULL;
}

TEST(crash, by_require_in_a_thread)
{
    pthread_t thread;
    int seven = 7;

    REQUIRE_EQ(pthread_create(&thread, NULL, require_in_thread, &seven), 0);
    pthread_join(thread, NULL);
}

TEST(tmpdir, is_removed)
{
    const char *path = test_path(test_tmpdir(), "sub");
    FILE *file;

    CHECK_EQ(mkdir(path, 0700), 0);
    file = fopen(test_path(path, "file"), "w");
    REQUIRE(file);
    fclose(file);
    CHECK_EQ(symlink("/", test_path(path, "link")), 0);
    test_note("made %s", path);
}
