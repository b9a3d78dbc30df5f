/*
 * Where log events go. A library that returns an error does not log it as well;
 * it traces at debug level and warns only of what it got over by itself.
 *
 * An event is a message and, in the message, key=value pairs:
 *
 *     bop_log(log, BOP_LOG_WARN, "raft", "peer unreachable peer=%" PRIu64 " for_ms=%" PRIu64, ...)
 */
#ifndef BOP_LOG_H
#define BOP_LOG_H

#include <stdarg.h>

#include <bop/base.h>

enum bop_log_level {
    BOP_LOG_DEBUG,
    BOP_LOG_INFO,
    BOP_LOG_WARN,
    BOP_LOG_ERROR,
};

/** A sink. write gets a finished line without line feed; it may be called from any thread. */
struct bop_log {
    enum bop_log_level level; /* Events below are not formatted. */
    void (*write)(struct bop_log *self, enum bop_log_level level, const char *module,
                  const char *message);
};

/** A sink that drops everything. Lives for ever. */
BOP_API struct bop_log *bop_log_null(void);

/**
 * A sink to standard error: "2026-01-31T12:00:00.123Z INFO raft message". One
 * write a line. Shared by the process; set .level before threads start, bop_log_level_set() after.
 */
BOP_API struct bop_log *bop_log_stderr(void);

/** "debug", "info", "warn", "error". */
BOP_API const char *bop_log_level_name(enum bop_log_level level);

/** The level of a sink, and another one from now on. Any thread. */
BOP_API enum bop_log_level bop_log_level_get(const struct bop_log *log);
BOP_API void bop_log_level_set(struct bop_log *log, enum bop_log_level level);

/** The level of that name. Returns false if there is none. */
BOP_API bool bop_log_level_parse(const char *name, enum bop_log_level *out_level);

/** Format and hand to the sink if the level is wanted. log may be NULL. */
BOP_API void bop_log(struct bop_log *log, enum bop_log_level level, const char *module,
                     const char *format, ...) BOP_PRINTF(4, 5);

#endif
