/*
 * The test harness: small programs that print TAP.
 *
 *     #include "tap.h"
 *
 *     struct fixture {
 *         struct bop_faults faults;
 *         struct test_heap heap;
 *     };
 *
 *     static void setup(struct fixture *f)
 *     {
 *         test_heap_init(&f->heap, &f->faults);
 *     }
 *
 *     static void teardown(struct fixture *f)
 *     {
 *         CHECK_EQ(f->heap.live, 0);
 *     }
 *
 *     FIXTURE(setup, teardown)
 *
 *     TEST(buf, keeps_what_was_appended)
 *     {
 *         struct bop_buf buf;
 *
 *         bop_buf_init(&buf, &f->heap.allocator, 0);
 *         REQUIRE_EQ(bop_buf_append(&buf, "abc", 3), 0);
 *         CHECK_SLICE_EQ(bop_buf_slice(&buf), bytes("abc"));
 *         bop_buf_deinit(&buf);
 *     }
 *
 * That is a whole program: a test registers itself, main() is in the library,
 * and the line printed is "ok 1 - buf: keeps what was appended". Tests run in
 * the order of the file. Arguments pick tests by parts of their names; --list
 * lists them. The exit status is 0 if all that ran passed.
 *
 * The fixture is optional: a file without FIXTURE() just has tests, whose `f`
 * is NULL. Each test gets a zeroed struct fixture of its own; teardown runs
 * whatever happened before it, so it has to accept what setup left half-built.
 *
 * A failing CHECK says where and what, and the test goes on; a failing REQUIRE
 * ends the test on the spot (teardown runs, the memory of the test leaks). Both
 * may be used in helper functions and, but for REQUIRE and TEST_SKIP, in any
 * thread; a REQUIRE that fails in another thread aborts the program.
 *
 * Values are evaluated once. CHECK_EQ takes integers of any width and sign and
 * compares what they mean: -1 is not UINT64_MAX.
 */
#ifndef BOP_TESTS_TAP_H
#define BOP_TESTS_TAP_H

#include <inttypes.h>
#include <string.h>

#include <bop/base.h>
#include <bop/slice.h>

#include "heap.h"

/* ---- Tests and fixtures ---- */

/* Defined by a test file that wants one. */
struct fixture;

/** Define a test. Its body follows; the fixture is `f`. */
#define TEST(suite, name)                                                                          \
    static void test_##suite##_##name(struct fixture *f);                                          \
    __attribute__((constructor)) static void test_register_##suite##_##name(void)                  \
    {                                                                                              \
        static struct test__case entry = {.suite_name = #suite,                                    \
                                          .test_name = #name,                                      \
                                          .line = __LINE__,                                        \
                                          .fixture = &test__fixture,                               \
                                          .run = test_##suite##_##name};                           \
        test__register(&entry);                                                                    \
    }                                                                                              \
    static void test_##suite##_##name(BOP_UNUSED struct fixture *f)

/** Give the tests of this file a fixture. At most once a file, before its tests. */
#define FIXTURE(setup_function, teardown_function)                                                 \
    static struct test__fixture_kind test__fixture = {                                             \
        .size = sizeof(struct fixture), .setup = setup_function, .teardown = teardown_function};

/** End the test here and report it as skipped, with the reason. */
#define TEST_SKIP(reason) test__skip(reason)

/** Add a line to the output, say the seed of a random test. */
BOP_PRINTF(1, 2) void test_note(const char *format, ...);

/* ---- Checks ---- */

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0 : test__failed(__FILE__, __LINE__, "CHECK(%s)", #condition))
#define REQUIRE(condition)                                                                         \
    ((condition) ? (void)0                                                                         \
                 : (test__failed(__FILE__, __LINE__, "REQUIRE(%s)", #condition), test__abandon()))

#define CHECK_EQ(a, b)                                                                             \
    ((void)test__equal(__FILE__, __LINE__, #a, TEST__NUMBER(a), #b, TEST__NUMBER(b)))
#define REQUIRE_EQ(a, b)                                                                           \
    (test__equal(__FILE__, __LINE__, #a, TEST__NUMBER(a), #b, TEST__NUMBER(b)) ? (void)0           \
                                                                               : test__abandon())

/** Pointers: the same address. */
#define CHECK_PTR_EQ(a, b) test__equal_pointers(__FILE__, __LINE__, #a, a, #b, b)

/** NUL-terminated strings; NULL equals NULL only. */
#define CHECK_STR_EQ(a, b) test__equal_strings(__FILE__, __LINE__, #a, a, #b, b)

/** The string `text` has `part` in it. */
#define CHECK_STR_HAS(text, part) test__has_string(__FILE__, __LINE__, #text, text, part)

/** Two struct bop_slice. */
#define CHECK_SLICE_EQ(a, b) test__equal_slices(__FILE__, __LINE__, #a, a, #b, b)

/** `size` bytes at a and at b. */
#define CHECK_MEM_EQ(a, b, size)                                                                   \
    test__equal_slices(__FILE__, __LINE__, #a, bop_slice(a, size), #b, bop_slice(b, size))

/* ---- Helpers ---- */

/** The bytes of a string, without its NUL. */
static inline struct bop_slice bytes(const char *text)
{
    return bop_slice_cstr(text);
}

/**
 * Make a new empty directory under TMPDIR (or /tmp). It is removed with all
 * that is in it after the teardown of the running test, and so is the string.
 * Owner's thread. Never NULL.
 */
const char *test_tmpdir(void);

/** "<directory>/<name>"; a new directory of test_tmpdir() if NULL is given. Lives as long as those.
 */
const char *test_path(const char *directory, const char *name);

/* ---- What the macros stand on ---- */

struct test__fixture_kind {
    size_t size; /* 0: no fixture. */
    void (*setup)(struct fixture *f);
    void (*teardown)(struct fixture *f);
};

/* A tentative definition, to be completed by FIXTURE(). */
BOP_UNUSED static struct test__fixture_kind test__fixture;

struct test__case {
    struct test__case *next;
    const char *suite_name;
    const char *test_name;
    int line;
    const struct test__fixture_kind *fixture;
    void (*run)(struct fixture *f);
};

void test__register(struct test__case *entry);
int test__main(int argc, char **argv);

BOP_PRINTF(3, 4) void test__failed(const char *file, int line, const char *format, ...);
BOP_NORETURN void test__abandon(void);
BOP_NORETURN void test__skip(const char *reason);

/* An integer of any type: negative ones by their two's complement. */
struct test__number {
    bool negative;
    uint64_t bits;
};

static inline struct test__number test__signed(long long value)
{
    return (struct test__number){.negative = value < 0, .bits = (uint64_t)value};
}

static inline struct test__number test__unsigned(unsigned long long value)
{
    return (struct test__number){.negative = false, .bits = value};
}

/* Only here to refuse to compile. */
struct test__not_an_integer {
    int dummy;
};
struct test__number test__refuse(struct test__not_an_integer value);

/* clang-format off */
#define TEST__NUMBER(value)                                                                        \
    _Generic((value),                                                                              \
        bool: test__unsigned, unsigned char: test__unsigned, unsigned short: test__unsigned,       \
        unsigned: test__unsigned, unsigned long: test__unsigned,                                   \
        unsigned long long: test__unsigned,                                                        \
        float: test__refuse, double: test__refuse, long double: test__refuse,                      \
        default: test__signed)(value)
/* clang-format on */

bool test__equal(const char *file, int line, const char *a_text, struct test__number a,
                 const char *b_text, struct test__number b);
void test__equal_pointers(const char *file, int line, const char *a_text, const void *a,
                          const char *b_text, const void *b);
void test__equal_strings(const char *file, int line, const char *a_text, const char *a,
                         const char *b_text, const char *b);
void test__has_string(const char *file, int line, const char *text_text, const char *text,
                      const char *part);
void test__equal_slices(const char *file, int line, const char *a_text, struct bop_slice a,
                        const char *b_text, struct bop_slice b);

#endif
