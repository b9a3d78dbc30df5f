/*
 * What every other header builds on: visibility, attributes, assertions.
 *
 * Assertions are for bugs, never for input. BOP_ASSERT stays in release builds;
 * BOP_DEBUG_ASSERT is for checks too costly for them.
 */
#ifndef BOP_BASE_H
#define BOP_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOP_API                           __attribute__((visibility("default")))
#define BOP_MUST_USE                      __attribute__((warn_unused_result))
#define BOP_PRINTF(format_arg, first_arg) __attribute__((format(printf, format_arg, first_arg)))
#define BOP_NORETURN                      __attribute__((noreturn))
#define BOP_UNUSED                        __attribute__((unused))
#define BOP_LIKELY(condition)             __builtin_expect(!!(condition), 1)
#define BOP_UNLIKELY(condition)           __builtin_expect(!!(condition), 0)

/** Drop a result on purpose; a comment beside it says why that is right. */
#define BOP_IGNORE(expression)                                                                     \
    do {                                                                                           \
        __auto_type ignored_ = (expression);                                                       \
        (void)ignored_;                                                                            \
    } while (0)

#define BOP_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/** The struct that holds `member` at `pointer`. */
#define BOP_CONTAINER_OF(pointer, type, member)                                                    \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define BOP_ASSERT(condition)                                                                      \
    (BOP_LIKELY(condition) ? (void)0 : bop_assert_failed(__FILE__, __LINE__, __func__, #condition))

#ifdef BOP_DEBUG
#define BOP_DEBUG_ASSERT(condition) BOP_ASSERT(condition)
#else
#define BOP_DEBUG_ASSERT(condition) ((void)sizeof(!(condition)))
#endif

/** Say on standard error which assertion failed and abort. */
BOP_API BOP_NORETURN void bop_assert_failed(const char *file, int line, const char *function,
                                            const char *condition);

static inline uint64_t bop_min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t bop_max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
