/*
 * Error codes, and errors with context.
 *
 * A function that can fail returns 0 (or a count) or a negative code: -errno as
 * the system gave it, or one of errors.def. Off the hot path it also takes a
 * `struct bop_error *`, last and optional, which says what was being done:
 *
 *     open log /var/lib/bop: lock: in use by another process
 */
#ifndef BOP_ERROR_H
#define BOP_ERROR_H

#include <errno.h>
#include <stdarg.h>

#include <bop/base.h>

enum bop_error_code {
    BOP_OK = 0,
    BOP_EINVAL = -EINVAL,
    BOP_ENOMEM = -ENOMEM,
    BOP_EAGAIN = -EAGAIN,
#define BOP_ERROR(name, value, text) name = value,
#include <bop/errors.def>
#undef BOP_ERROR
};

#define BOP_ERROR_MESSAGE_MAX 512

/** A code and a sentence. Zeroed means: no error. Plain memory, copied freely. */
struct bop_error {
    int code;
    char message[BOP_ERROR_MESSAGE_MAX]; /* NUL-terminated; a long one is cut. */
};

/** The text of a code: of errors.def, or the system's for a negative errno. Never NULL. */
BOP_API const char *bop_strerror(int code);

/** The name of a code, "BOP_ECORRUPT" or "ENOENT"; "UNKNOWN" for a strange one. Never NULL. */
BOP_API const char *bop_error_name(int code);

/**
 * Set the error to "<formatted>: <text of code>" and return code. err may be NULL.
 */
BOP_API int bop_error_set(struct bop_error *err, int code, const char *format, ...)
    BOP_PRINTF(3, 4);

/**
 * Set the error to the formatted sentence alone, for errors that say the way
 * out in words of their own. Returns code. err may be NULL.
 */
BOP_API int bop_error_say(struct bop_error *err, int code, const char *format, ...)
    BOP_PRINTF(3, 4);

/** Put "<formatted>: " in front of what err says already. err may be NULL. Returns err's code. */
BOP_API int bop_error_wrap(struct bop_error *err, const char *format, ...) BOP_PRINTF(2, 3);

#ifdef __clang_analyzer__
/* The code given is the code returned, which an analyzer cannot see from here. */
#define bop_error_set(err, code, ...) ((void)(bop_error_set)(err, code, __VA_ARGS__), (code))
#define bop_error_say(err, code, ...) ((void)(bop_error_say)(err, code, __VA_ARGS__), (code))
#endif

#endif
