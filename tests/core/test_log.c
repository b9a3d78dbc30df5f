/*
 * Levels, formatting and the sinks.
 *
 * Standard error is a datagram socket while a test looks: a datagram is one
 * write, so that one line in one write can be seen.
 */
#include <bop/log.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tap.h"

#define LINE_MAX_BYTES 16384

/* A sink that remembers the last event. */
struct memory_log {
    struct bop_log log;
    int events;
    enum bop_log_level level;
    char module[32];
    char message[4096];
};

struct fixture {
    struct memory_log memory;
    int standard_error; /* The real one, kept aside. */
    int reader;         /* The other end of what stands in for it. */
    char line[LINE_MAX_BYTES];
};

static void memory_write(struct bop_log *self, enum bop_log_level level, const char *module,
                         const char *message)
{
    struct memory_log *memory = BOP_CONTAINER_OF(self, struct memory_log, log);

    memory->events++;
    memory->level = level;
    snprintf(memory->module, sizeof(memory->module), "%s", module);
    snprintf(memory->message, sizeof(memory->message), "%s", message);
}

static void setup(struct fixture *f)
{
    f->memory.log = (struct bop_log){.level = BOP_LOG_INFO, .write = memory_write};
    f->standard_error = -1;
    f->reader = -1;
    bop_log_stderr()->level = BOP_LOG_INFO;
}

static void capture_end(struct fixture *f)
{
    if (f->standard_error >= 0) {
        dup2(f->standard_error, STDERR_FILENO);
        close(f->standard_error);
        close(f->reader);
        f->standard_error = -1;
    }
}

FIXTURE(setup, capture_end)

static void capture(struct fixture *f)
{
    int ends[2];

    REQUIRE_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    f->standard_error = dup(STDERR_FILENO);
    REQUIRE(f->standard_error >= 0);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    f->reader = ends[0];
}

/* The next write to standard error as a string; NULL if there was none. */
static const char *captured(struct fixture *f)
{
    ssize_t got = recv(f->reader, f->line, sizeof(f->line) - 1, MSG_DONTWAIT);

    if (got < 0) {
        CHECK_EQ(errno, EAGAIN);
        return NULL;
    }
    f->line[got] = '\0';
    return f->line;
}

TEST(log_level, has_names_that_parse)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};

    for (size_t i = 0; i < BOP_COUNT_OF(names); i++) {
        enum bop_log_level level;

        CHECK_STR_EQ(bop_log_level_name((enum bop_log_level)i), names[i]);
        REQUIRE(bop_log_level_parse(names[i], &level));
        CHECK_EQ(level, i);
    }
}

TEST(log_level, refuses_other_names_and_leaves_the_level)
{
    enum bop_log_level level = BOP_LOG_WARN;

    CHECK(!bop_log_level_parse("", &level));
    CHECK(!bop_log_level_parse("INFO", &level));
    CHECK(!bop_log_level_parse("infos", &level));
    CHECK(!bop_log_level_parse("inf", &level));
    CHECK_EQ(level, BOP_LOG_WARN);
}

TEST(log, formats_and_hands_to_the_sink)
{
    bop_log(&f->memory.log, BOP_LOG_WARN, "raft", "peer unreachable peer=%d for_ms=%d", 2, 500);
    CHECK_EQ(f->memory.events, 1);
    CHECK_EQ(f->memory.level, BOP_LOG_WARN);
    CHECK_STR_EQ(f->memory.module, "raft");
    CHECK_STR_EQ(f->memory.message, "peer unreachable peer=2 for_ms=500");
}

TEST(log, drops_what_is_below_its_level)
{
    bop_log(&f->memory.log, BOP_LOG_DEBUG, "m", "x");
    CHECK_EQ(f->memory.events, 0);
    bop_log(&f->memory.log, BOP_LOG_INFO, "m", "x");
    bop_log(&f->memory.log, BOP_LOG_ERROR, "m", "x");
    CHECK_EQ(f->memory.events, 2);
    f->memory.log.level = BOP_LOG_ERROR;
    bop_log(&f->memory.log, BOP_LOG_WARN, "m", "x");
    CHECK_EQ(f->memory.events, 2);
}

TEST(log, may_be_null)
{
    bop_log(NULL, BOP_LOG_ERROR, "m", "x");
    bop_log(bop_log_null(), BOP_LOG_ERROR, "m", "x");
    bop_log_null()->write(bop_log_null(), BOP_LOG_ERROR, "m", "x");
}

/* 2047 bytes fit; of more, the last three say that there was more. */
TEST(log, cuts_a_long_message)
{
    char text[3001];

    memset(text, 'x', 3000);
    text[2047] = '\0';
    bop_log(&f->memory.log, BOP_LOG_INFO, "m", "%s", text);
    CHECK_EQ(strlen(f->memory.message), 2047);
    CHECK_STR_EQ(f->memory.message + 2043, "xxxx");

    text[2047] = 'x';
    text[3000] = '\0';
    bop_log(&f->memory.log, BOP_LOG_INFO, "m", "%s", text);
    CHECK_EQ(strlen(f->memory.message), 2047);
    CHECK_STR_EQ(f->memory.message + 2043, "x...");
}

/* "2026-01-31T12:00:00.123Z": digits where the pattern has a 0. */
static void check_time(const char *text)
{
    static const char pattern[] = "0000-00-00T00:00:00.000Z ";

    for (size_t i = 0; pattern[i]; i++) {
        if (pattern[i] == '0') {
            CHECK(text[i] >= '0' && text[i] <= '9');
        } else {
            CHECK_EQ(text[i], pattern[i]);
        }
    }
    CHECK_EQ(text[0], '2');
}

TEST(log_stderr, writes_time_level_module_and_message_in_one_write)
{
    const char *line;

    capture(f);
    bop_log(bop_log_stderr(), BOP_LOG_INFO, "raft", "leader of term=%d", 7);
    line = captured(f);
    REQUIRE(line);
    check_time(line);
    CHECK_STR_EQ(line + 25, "INFO raft leader of term=7\n");
    CHECK_PTR_EQ(captured(f), NULL);

    bop_log(bop_log_stderr(), BOP_LOG_WARN, "aof", "slow");
    line = captured(f);
    REQUIRE(line);
    CHECK_STR_EQ(line + 25, "WARN aof slow\n");

    bop_log(bop_log_stderr(), BOP_LOG_ERROR, "aof", "lost");
    line = captured(f);
    REQUIRE(line);
    CHECK_STR_EQ(line + 25, "ERROR aof lost\n");
}

TEST(log_stderr, obeys_its_level)
{
    capture(f);
    bop_log(bop_log_stderr(), BOP_LOG_DEBUG, "m", "x");
    CHECK_PTR_EQ(captured(f), NULL);
    bop_log_stderr()->level = BOP_LOG_DEBUG;
    bop_log(bop_log_stderr(), BOP_LOG_DEBUG, "m", "x");
    CHECK_STR_HAS(captured(f), "Z DEBUG m x\n");
}

/* What a client sent must not look like a line of ours, nor steer a terminal. */
TEST(log_stderr, escapes_control_characters)
{
    const char *line;

    capture(f);
    bop_log(bop_log_stderr(), BOP_LOG_INFO, "m", "name=%s", "a\nb\r\x1b[2J\x7f\tz\xc3\xa9");
    line = captured(f);
    REQUIRE(line);
    CHECK_STR_EQ(line + 25, "INFO m name=a\\nb\\x0d\\x1b[2J\\x7f\\x09z\xc3\xa9\n");
}

/* 2047 bytes that each become four, after a module that is cut at 32. */
TEST(log_stderr, has_room_for_the_worst_message)
{
    char text[2048];
    const char *line;

    memset(text, 1, 2047);
    text[2047] = '\0';
    capture(f);
    bop_log(bop_log_stderr(), BOP_LOG_INFO,
            "a_name_of_a_module_that_is_much_too_long_to_be_one_and_would_not_fit", "%s", text);
    line = captured(f);
    REQUIRE(line);
    CHECK_STR_HAS(line, "INFO a_name_of_a_module_that_is_much_ \\x01");
    CHECK_EQ(strlen(line), 25 + 5 + 33 + 4 * 2047 + 1);
    CHECK_STR_EQ(line + strlen(line) - 5, "\\x01\n");
}

static void *log_in_thread(void *argument)
{
    for (int i = 0; i < 50; i++) {
        bop_log(bop_log_stderr(), BOP_LOG_INFO, "m", "message of a thread");
    }
    return NULL;
}

TEST(log_stderr, keeps_the_lines_of_threads_apart)
{
    pthread_t threads[2];
    const char *line;
    int lines = 0;

    capture(f);
    for (int i = 0; i < 2; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, log_in_thread, NULL), 0);
    }
    while (lines < 100) {
        line = captured(f);
        if (line) {
            CHECK_STR_EQ(line + 25, "INFO m message of a thread\n");
            lines++;
        }
    }
    for (int i = 0; i < 2; i++) {
        REQUIRE_EQ(pthread_join(threads[i], NULL), 0);
    }
    CHECK_PTR_EQ(captured(f), NULL);
}
