/*
 * Log levels, formatting, and the sinks to nowhere and to standard error.
 *
 * Messages may quote what came from outside, so the sink to standard error
 * escapes control characters: one event is one line, whatever it quotes, and
 * nothing can steer the reader's terminal.
 */
#include <bop/log.h>

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The longest message; a longer one is cut and ends in "...". */
#define LOG_MESSAGE_MAX 2048
/* Time, level and module in front of it. */
#define LOG_PREFIX_MAX 128
/* How much longer escaping makes a byte: "\x1b". */
#define LOG_ESCAPE_MAX 4

static const char *const level_names[] = {
    [BOP_LOG_DEBUG] = "debug",
    [BOP_LOG_INFO] = "info",
    [BOP_LOG_WARN] = "warn",
    [BOP_LOG_ERROR] = "error",
};

static const char *const level_marks[] = {
    [BOP_LOG_DEBUG] = "DEBUG",
    [BOP_LOG_INFO] = "INFO",
    [BOP_LOG_WARN] = "WARN",
    [BOP_LOG_ERROR] = "ERROR",
};

/* ---- Sinks ---- */

static void null_write(struct bop_log *self, enum bop_log_level level, const char *module,
                       const char *message)
{
}

struct bop_log *bop_log_null(void)
{
    /* Above every level, so that nothing is formatted for it. */
    static struct bop_log sink = {.level = (enum bop_log_level)(BOP_LOG_ERROR + 1),
                                  .write = null_write};

    return &sink;
}

/* "2026-01-31T12:00:00.123Z INFO raft ". Returns its length. */
static size_t format_prefix(char *out, size_t room, enum bop_log_level level, const char *module)
{
    struct timespec now;
    struct tm utc;
    int length;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    length = snprintf(out, room, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s %.32s ",
                      utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                      utc.tm_sec, now.tv_nsec / 1000000, level_marks[level], module);
    return length > 0 && (size_t)length < room ? (size_t)length : 0;
}

/* Copy the message with control characters escaped. Returns the length, at most room. */
static size_t escape_message(char *out, size_t room, const char *message)
{
    size_t length = 0;

    for (; *message && room - length >= LOG_ESCAPE_MAX; message++) {
        unsigned char c = (unsigned char)*message;

        if (c == '\n') {
            out[length++] = '\\';
            out[length++] = 'n';
        } else if (c < 0x20 || c == 0x7f) {
            out[length++] = '\\';
            out[length++] = 'x';
            out[length++] = "0123456789abcdef"[c >> 4];
            out[length++] = "0123456789abcdef"[c & 15];
        } else {
            out[length++] = (char)c;
        }
    }
    return length;
}

static void stderr_write(struct bop_log *self, enum bop_log_level level, const char *module,
                         const char *message)
{
    char line[LOG_PREFIX_MAX + LOG_MESSAGE_MAX * LOG_ESCAPE_MAX + 1];
    size_t length = format_prefix(line, LOG_PREFIX_MAX, level, module);

    length += escape_message(line + length, sizeof(line) - 1 - length, message);
    line[length++] = '\n';
    /* One write keeps lines of several threads apart. Where standard error is
     * gone there is nobody to tell. */
    BOP_IGNORE(write(STDERR_FILENO, line, length));
}

struct bop_log *bop_log_stderr(void)
{
    static struct bop_log sink = {.level = BOP_LOG_INFO, .write = stderr_write};

    return &sink;
}

/* ---- Levels and events ---- */

const char *bop_log_level_name(enum bop_log_level level)
{
    BOP_ASSERT((size_t)level < BOP_COUNT_OF(level_names));
    return level_names[level];
}

/* Relaxed: whoever logs meanwhile may do so by either level. */
enum bop_log_level bop_log_level_get(const struct bop_log *log)
{
    return __atomic_load_n(&log->level, __ATOMIC_RELAXED);
}

void bop_log_level_set(struct bop_log *log, enum bop_log_level level)
{
    __atomic_store_n(&log->level, level, __ATOMIC_RELAXED);
}

bool bop_log_level_parse(const char *name, enum bop_log_level *out_level)
{
    for (size_t i = 0; i < BOP_COUNT_OF(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out_level = (enum bop_log_level)i;
            return true;
        }
    }
    return false;
}

void bop_log(struct bop_log *log, enum bop_log_level level, const char *module, const char *format,
             ...)
{
    char message[LOG_MESSAGE_MAX];
    va_list arguments;
    int wanted;

    if (!log || level < bop_log_level_get(log)) {
        return;
    }
    va_start(arguments, format);
    wanted = vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    if (wanted < 0) {
        return; /* Only for a format that is a bug; nothing sensible to say. */
    }
    if ((size_t)wanted >= sizeof(message)) {
        memcpy(message + sizeof(message) - sizeof("..."), "...", sizeof("..."));
    }
    log->write(log, level, module, message);
}
