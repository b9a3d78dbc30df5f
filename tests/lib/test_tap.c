/*
 * The harness itself: that a failing check fails, above all.
 *
 * Each test runs one test of tap_victim.c in a process of its own and looks at
 * its output and its exit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

#define OUTPUT_MAX 65536

struct fixture {
    char output[OUTPUT_MAX]; /* Standard output and error together. */
    int status;              /* As of waitpid(2). */
};

FIXTURE(NULL, NULL)

/* Run the victim with one argument, or with none for NULL. */
static void run_victim(struct fixture *f, const char *argument)
{
    const struct rlimit no_core = {.rlim_cur = 0, .rlim_max = 0};
    int ends[2];
    size_t size = 0;
    ssize_t got;
    pid_t child;

    REQUIRE_EQ(pipe(ends), 0);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        /* It leaks and aborts on purpose: no leak report, no core file. */
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
        setrlimit(RLIMIT_CORE, &no_core);
        execl(TAP_VICTIM, TAP_VICTIM, argument, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    while ((got = read(ends[0], f->output + size, OUTPUT_MAX - 1 - size)) > 0) {
        size += (size_t)got;
    }
    f->output[size] = '\0';
    close(ends[0]);
    REQUIRE_EQ(waitpid(child, &f->status, 0), child);
}

static void check_exit(const struct fixture *f, int status)
{
    CHECK(WIFEXITED(f->status));
    CHECK_EQ(WEXITSTATUS(f->status), status);
}

/* Run the victim's test "fail: name", which must fail and say `what`. */
static void check_fails(struct fixture *f, const char *name, const char *what)
{
    run_victim(f, name);
    check_exit(f, 1);
    CHECK_STR_HAS(f->output, "\n1..1\n");
    CHECK_STR_HAS(f->output, "\nnot ok 1 - ");
    CHECK_STR_HAS(f->output, what);
    CHECK_STR_HAS(f->output, "# torn down\n");
}

/* Run the victim's test, which must end the program by a signal and say `what`. */
static void check_dies(struct fixture *f, const char *name, const char *what)
{
    run_victim(f, name);
    CHECK(WIFSIGNALED(f->status));
    CHECK_STR_HAS(f->output, what);
    CHECK(!strstr(f->output, "ok 1"));
}

TEST(tap, passes_what_holds)
{
    run_victim(f, "pass: of all kinds");
    check_exit(f, 0);
    CHECK_STR_HAS(f->output, "TAP version 13\n1..1\n");
    CHECK_STR_HAS(f->output, "\nok 1 - pass: of all kinds\n");
}

TEST(tap, goes_on_after_a_failed_check)
{
    check_fails(f, "fail: check", "tap_victim.c:");
    CHECK_STR_HAS(f->output, "CHECK(1 > 2)");
    CHECK_STR_HAS(f->output, "# went on\n");
}

TEST(tap, leaves_the_test_at_a_failed_require_in_a_helper)
{
    check_fails(f, "fail: require in a helper", "REQUIRE(value == 5)");
    CHECK(!strstr(f->output, "went on"));
}

TEST(tap, leaves_the_test_at_a_failed_require_eq)
{
    check_fails(f, "fail: require eq", "#   3 = 3\n#   4 = 4\n");
    CHECK(!strstr(f->output, "went on"));
}

TEST(tap, tells_minus_one_from_the_largest)
{
    check_fails(f, "fail: equal bits", "#   UINT64_MAX = 18446744073709551615\n");
    CHECK_STR_HAS(f->output, "#   -1 = -1 (EPERM)\n");
}

TEST(tap, names_error_codes)
{
    check_fails(f, "fail: error code", "-12 (ENOMEM)");
}

TEST(tap, shows_both_strings)
{
    check_fails(f, "fail: strings", "#   \"abc\" = \"abc\"\n#   NULL = \"(NULL)\"\n");
}

TEST(tap, shows_the_string_that_lacks_a_part)
{
    check_fails(f, "fail: string without part", "\"xyz\" is not in");
}

TEST(tap, shows_where_slices_differ)
{
    check_fails(f, "fail: slices", "differ at byte 11 (shown from byte 3)");
    CHECK_STR_HAS(f->output, "= 13 bytes \"3456789abc\"\n");
    CHECK_STR_HAS(f->output, "= 12 bytes \"3456789a\\x01\"\n");
}

TEST(tap, shows_where_memory_differs)
{
    check_fails(f, "fail: memory", "differ at byte 3");
}

TEST(tap, fails_for_other_pointers)
{
    check_fails(f, "fail: pointers", "not the same address");
}

TEST(tap, counts_a_failure_in_another_thread)
{
    check_fails(f, "fail: in a thread", "#   *(int *)argument = 1\n#   2 = 2\n");
}

TEST(tap, fails_a_test_for_its_teardown)
{
    check_fails(f, "fail: by a leak", "#   f->heap.live = 10\n");
}

TEST(tap, prints_a_bounded_number_of_failures)
{
    check_fails(f, "fail: very often", "#   i = 19\n");
    CHECK_STR_HAS(f->output, "more failed checks are not shown");
    CHECK(!strstr(f->output, "#   i = 20\n"));
}

/* The first allocation fails in the first round, the second in the second. */
TEST(tap, names_the_round_of_a_sweep_and_ends_it)
{
    check_fails(f, "fail: in a sweep", "(fault at operation 2) CHECK(b)");
    CHECK(!strstr(f->output, "operation 3"));
}

TEST(tap, reports_a_skipped_test)
{
    run_victim(f, "skip: with a reason");
    check_exit(f, 0);
    CHECK_STR_HAS(f->output, "\nok 1 - skip: with a reason # SKIP no such machine\n");
}

TEST(tap, does_not_hide_a_failure_behind_a_skip)
{
    run_victim(f, "skip: after a failure");
    check_exit(f, 1);
    CHECK_STR_HAS(f->output, "\nnot ok 1 - skip: after a failure\n");
}

TEST(tap, says_what_died_and_where)
{
    check_dies(f, "crash: by assertion", "assertion failed: f == NULL");
    CHECK_STR_HAS(f->output, "# died in crash: by assertion\n");
}

TEST(tap, aborts_when_a_thread_cannot_go_on)
{
    check_dies(f, "crash: by require in a thread", "REQUIRE(value == 5)");
}

TEST(heap, dies_of_a_wrong_size)
{
    check_dies(f, "crash: by wrong size", "freed with a wrong size (block of 10 bytes, given 11)");
}

/* The address sanitizer, if there, sees it first and ends the program its way. */
TEST(heap, dies_of_a_write_past_the_end)
{
    run_victim(f, "crash: by overflow");
    CHECK(f->status != 0);
    CHECK(!strstr(f->output, "ok 1"));
    CHECK(strstr(f->output, "written past its end") || strstr(f->output, "heap-buffer-overflow"));
}

TEST(tap, removes_temporary_directories)
{
    char *path, *end;

    run_victim(f, "tmpdir: is removed");
    check_exit(f, 0);
    path = strstr(f->output, "# made ");
    REQUIRE(path);
    path += strlen("# made ");
    end = strstr(path, "/sub\n");
    REQUIRE(end);
    *end = '\0';
    CHECK_STR_HAS(path, "/bop-test-");
    CHECK_EQ(access(path, F_OK), -1);
    CHECK_EQ(access("/", F_OK), 0); /* What a link points at stays. */
}

TEST(tap, lists_tests_without_running_them)
{
    run_victim(f, "--list");
    check_exit(f, 0);
    CHECK_STR_HAS(f->output, "fail: check\n");
    CHECK_STR_HAS(f->output, "crash: by assertion\n");
    CHECK(!strstr(f->output, "ok "));
}

TEST(tap, fails_when_no_test_has_the_name)
{
    run_victim(f, "nonesuch");
    check_exit(f, 1);
}

/* ---- The heap and the sweep, from within ---- */

TEST(heap, counts_what_is_live)
{
    struct test_heap heap;
    struct bop_allocator *allocator = &heap.allocator;
    uint8_t *memory;

    test_heap_init(&heap, NULL);
    memory = bop_alloc(allocator, 10);
    CHECK_EQ(heap.live, 10);
    memcpy(memory, "0123456789", 10);
    memory = bop_realloc(allocator, memory, 10, 20);
    CHECK_EQ(heap.live, 20);
    CHECK_EQ(heap.blocks, 1);
    CHECK_MEM_EQ(memory, "0123456789", 10);
    memory = bop_realloc(allocator, memory, 20, 3);
    CHECK_MEM_EQ(memory, "012", 3);
    CHECK_EQ(heap.live, 3);
    bop_free(allocator, memory, 3);
    bop_free(allocator, NULL, 0);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.blocks, 0);
}

/* Two operations: the rounds fail the first, the second and none. */
TEST(sweep, fails_each_operation_once_and_then_none)
{
    struct bop_faults faults = {0};
    struct test_heap heap;
    int rounds = 0, failed[2] = {0, 0};

    test_heap_init(&heap, &faults);
    FAULT_SWEEP(&faults) {
        void *memory[2];

        rounds++;
        for (int i = 0; i < 2; i++) {
            memory[i] = bop_alloc(&heap.allocator, 8);
            failed[i] += !memory[i];
        }
        CHECK_EQ(faults.fired, memory[0] && memory[1] ? 0 : -ENOMEM);
        for (int i = 0; i < 2; i++) {
            bop_free(&heap.allocator, memory[i], 8);
        }
    }
    CHECK_EQ(rounds, 3);
    CHECK_EQ(failed[0], 1);
    CHECK_EQ(failed[1], 1);
    CHECK_EQ(faults.at, 2);
    CHECK_EQ(faults.fail_at, 0);
    CHECK_EQ(heap.live, 0);
}
