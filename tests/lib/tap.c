/*
 * Registering, running and reporting.
 *
 * A test ends early (REQUIRE, TEST_SKIP) by a long jump to the runner, so that
 * checks work in helpers of any depth and of any type.
 */
#include "tap.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <bop/error.h>

#include "state.h"

/* Failed checks that one test prints; the rest is only counted. */
#define FAILURES_PRINTED_MAX 20
/* Bytes of a slice that a failed check prints, from just before the difference. */
#define BYTES_PRINTED_MAX 48
#define NAME_SIZE         256

static struct test__case *cases; /* By line, as in the file. */

/* The running test. */
static atomic_uint failures;
static atomic_uint_fast64_t sweep_round;
static const char *skip_reason;
static jmp_buf runner;
static pthread_t runner_thread;
static char running_name[NAME_SIZE + 16]; /* For on_signal(), with its frame. */

/* One message at a time. */
static pthread_mutex_t print_lock = PTHREAD_MUTEX_INITIALIZER;

void test__register(struct test__case *entry)
{
    struct test__case **at = &cases;

    while (*at && (*at)->line <= entry->line) {
        at = &(*at)->next;
    }
    entry->next = *at;
    *at = entry;
}

unsigned test__failures(void)
{
    return atomic_load(&failures);
}

void test__set_round(uint64_t round)
{
    atomic_store(&sweep_round, round);
}

/* ---- Failing ---- */

/* Print text as TAP comments, each line with a mark of its own. */
static void print_comment(const char *text)
{
    pthread_mutex_lock(&print_lock);
    fputs("# ", stdout);
    for (; *text; text++) {
        putchar(*text);
        if (*text == '\n') {
            fputs("# ", stdout);
        }
    }
    putchar('\n');
    fflush(stdout);
    pthread_mutex_unlock(&print_lock);
}

void test_note(const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    print_comment(text);
}

void test__failed(const char *file, int line, const char *format, ...)
{
    char text[2048];
    uint64_t round = atomic_load(&sweep_round);
    unsigned before = atomic_fetch_add(&failures, 1);
    va_list arguments;
    int length;

    if (before >= FAILURES_PRINTED_MAX) {
        if (before == FAILURES_PRINTED_MAX) {
            print_comment("more failed checks are not shown");
        }
        return;
    }
    length = snprintf(text, sizeof(text), "%s:%d: ", file, line);
    if (round > 0) {
        length += snprintf(text + length, sizeof(text) - (size_t)length,
                           "(fault at operation %" PRIu64 ") ", round);
    }
    va_start(arguments, format);
    vsnprintf(text + length, sizeof(text) - (size_t)length, format, arguments);
    va_end(arguments);
    print_comment(text);
}

static BOP_NORETURN void leave(void)
{
    if (!pthread_equal(pthread_self(), runner_thread)) {
        print_comment("the test cannot be left from a thread of its own: aborting");
        abort();
    }
    longjmp(runner, 1);
}

void test__abandon(void)
{
    leave();
}

void test__skip(const char *reason)
{
    skip_reason = reason;
    leave();
}

/* ---- Checks ---- */

/* A number, and the name of the error it may stand for. */
static const char *number_text(struct test__number number, char text[64])
{
    int64_t value = (int64_t)number.bits;
    const char *name;

    if (!number.negative) {
        snprintf(text, 64, "%" PRIu64, number.bits);
        return text;
    }
    name = value > INT32_MIN ? bop_error_name((int)value) : "UNKNOWN";
    if (strcmp(name, "UNKNOWN") == 0) {
        snprintf(text, 64, "%" PRId64, value);
    } else {
        snprintf(text, 64, "%" PRId64 " (%s)", value, name);
    }
    return text;
}

bool test__equal(const char *file, int line, const char *a_text, struct test__number a,
                 const char *b_text, struct test__number b)
{
    char a_value[64], b_value[64];

    if (a.negative == b.negative && a.bits == b.bits) {
        return true;
    }
    test__failed(file, line, "not equal\n  %s = %s\n  %s = %s", a_text, number_text(a, a_value),
                 b_text, number_text(b, b_value));
    return false;
}

void test__equal_pointers(const char *file, int line, const char *a_text, const void *a,
                          const char *b_text, const void *b)
{
    if (a != b) {
        test__failed(file, line, "not the same address\n  %s = %p\n  %s = %p", a_text, a, b_text,
                     b);
    }
}

void test__equal_strings(const char *file, int line, const char *a_text, const char *a,
                         const char *b_text, const char *b)
{
    if (a == b || (a && b && strcmp(a, b) == 0)) {
        return;
    }
    test__failed(file, line, "not equal\n  %s = \"%s\"\n  %s = \"%s\"", a_text, a ? a : "(NULL)",
                 b_text, b ? b : "(NULL)");
}

void test__has_string(const char *file, int line, const char *text_text, const char *text,
                      const char *part)
{
    if (!text || !strstr(text, part)) {
        test__failed(file, line, "\"%s\" is not in\n  %s = \"%s\"", part, text_text,
                     text ? text : "(NULL)");
    }
}

/* Printable bytes as they are, others as \xNN, from the given place on. */
static const char *bytes_text(struct bop_slice slice, size_t from,
                              char text[BYTES_PRINTED_MAX * 4 + 8])
{
    size_t end = slice.size - from > BYTES_PRINTED_MAX ? from + BYTES_PRINTED_MAX : slice.size;
    char *at = text;

    *at = '\0';
    for (size_t i = from; i < end; i++) {
        uint8_t byte = slice.data[i];

        at += sprintf(at, byte >= 0x20 && byte < 0x7f && byte != '\\' ? "%c" : "\\x%02x", byte);
    }
    if (end < slice.size) {
        strcpy(at, "...");
    }
    return text;
}

void test__equal_slices(const char *file, int line, const char *a_text, struct bop_slice a,
                        const char *b_text, struct bop_slice b)
{
    char a_value[BYTES_PRINTED_MAX * 4 + 8], b_value[BYTES_PRINTED_MAX * 4 + 8];
    size_t common = a.size < b.size ? a.size : b.size;
    size_t at = 0, from;

    if (bop_slice_equal(a, b)) {
        return;
    }
    while (at < common && a.data[at] == b.data[at]) {
        at++;
    }
    from = at > 8 ? at - 8 : 0;
    test__failed(file, line,
                 "differ at byte %zu (shown from byte %zu)\n  %s = %zu bytes \"%s\"\n"
                 "  %s = %zu bytes \"%s\"",
                 at, from, a_text, a.size, bytes_text(a, from, a_value), b_text, b.size,
                 bytes_text(b, from, b_value));
}

/* ---- Running ---- */

/* "suite: name as a sentence" */
static void sentence(const struct test__case *test, char out[NAME_SIZE])
{
    int length = snprintf(out, NAME_SIZE, "%s: ", test->suite_name);

    snprintf(out + length, NAME_SIZE - (size_t)length, "%s", test->test_name);
    for (char *at = out + length; *at; at++) {
        if (*at == '_') {
            *at = ' ';
        }
    }
}

/* True if no part was given, or one of them is in the name. */
static bool is_wanted(const struct test__case *test, int count, char **parts)
{
    char name[NAME_SIZE];

    sentence(test, name);
    for (int i = 0; i < count; i++) {
        if (strstr(name, parts[i]) || strstr(test->test_name, parts[i])) {
            return true;
        }
    }
    return count == 0;
}

/* Say which test a crash was in, then crash as before. */
static void on_signal(int number)
{
    BOP_IGNORE(write(STDOUT_FILENO, running_name, strlen(running_name)));
    raise(number);
}

static void watch_signals(void)
{
    static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};

    for (size_t i = 0; i < BOP_COUNT_OF(fatal); i++) {
        struct sigaction action;

        /* A sanitizer's own handler says more: leave it. */
        if (sigaction(fatal[i], NULL, &action) == 0 && action.sa_handler == SIG_DFL) {
            action.sa_handler = on_signal;
            action.sa_flags = (int)SA_RESETHAND;
            sigaction(fatal[i], &action, NULL);
        }
    }
}

static void run_guarded(void (*function)(struct fixture *f), struct fixture *f)
{
    if (function && setjmp(runner) == 0) {
        function(f);
    }
}

/* Returns true if the test passed or was skipped. */
static bool run_case(const struct test__case *test, int number)
{
    const struct test__fixture_kind *kind = test->fixture;
    struct fixture *f = NULL;
    char name[NAME_SIZE];
    bool passed;

    sentence(test, name);
    snprintf(running_name, sizeof(running_name), "# died in %s\n", name);
    atomic_store(&failures, 0);
    atomic_store(&sweep_round, 0);
    skip_reason = NULL;
    if (kind->size > 0) {
        f = calloc(1, kind->size);
        if (!f) {
            abort();
        }
    }

    run_guarded(kind->setup, f);
    if (atomic_load(&failures) == 0 && !skip_reason) {
        run_guarded(test->run, f);
    }
    run_guarded(kind->teardown, f);
    free(f);
    test__remove_tmpdirs();

    passed = atomic_load(&failures) == 0;
    printf("%s %d - %s", passed ? "ok" : "not ok", number, name);
    if (passed && skip_reason) {
        printf(" # SKIP %s", skip_reason);
    }
    putchar('\n');
    fflush(stdout);
    return passed;
}

static int list_cases(void)
{
    char name[NAME_SIZE];

    for (const struct test__case *test = cases; test; test = test->next) {
        sentence(test, name);
        puts(name);
    }
    return EXIT_SUCCESS;
}

int test__main(int argc, char **argv)
{
    char **parts = argv + 1;
    int count = argc - 1;
    int planned = 0, number = 0;
    bool passed = true;

    if (count == 1 && strcmp(parts[0], "--list") == 0) {
        return list_cases();
    }
    for (const struct test__case *test = cases; test; test = test->next) {
        planned += is_wanted(test, count, parts);
    }
    if (planned == 0) {
        fputs("no test has such a name; --list lists them\n", stderr);
        return EXIT_FAILURE;
    }

    runner_thread = pthread_self();
    watch_signals();
    printf("TAP version 13\n1..%d\n", planned);
    fflush(stdout);
    for (const struct test__case *test = cases; test; test = test->next) {
        if (is_wanted(test, count, parts) && !run_case(test, ++number)) {
            passed = false;
        }
    }
    return passed ? EXIT_SUCCESS : EXIT_FAILURE;
}
