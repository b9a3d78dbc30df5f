/*
 * Looking for the end of a run by vectors, for engines that define misfits(): bit
 * n is set if byte n of 32 is not of a class.
 *
 * For header lines, blocks of 64 bytes are turned into two words, of where no name
 * and where no value can go on, so that finding the next end is a shift and a
 * count; going from line to line then does not wait for vectors.
 *
 * Nothing outside of the bytes is read: where less than a vector is left, the last
 * 32 bytes are looked at, and those before the place are shifted out. So an engine
 * is only given 32 bytes or more, see parse_request().
 */
#define INLINE static inline __attribute__((always_inline))
#define VECTOR 32

CORE INLINE const uint8_t *scan(const uint8_t *at, const uint8_t *end, enum bop__http_class which)
{
    uint32_t mask;

    for (; end - at >= VECTOR; at += VECTOR) {
        mask = misfits(at, which);
        if (mask != 0) {
            return at + __builtin_ctz(mask);
        }
    }
    if (at == end) {
        return end;
    }
    mask = misfits(end - VECTOR, which) >> (VECTOR - (end - at));
    return mask != 0 ? at + __builtin_ctz(mask) : end;
}

/* ---- Blocks ---- */

struct marks {
    const uint8_t *block;
    const uint8_t *end;
    uint64_t token; /* Bit n: byte n of the block is no tchar, or at the end. */
    uint64_t value; /* The same for values. */
};

CORE INLINE uint64_t misfits_block(const uint8_t *at, enum bop__http_class which)
{
    return misfits(at, which) | (uint64_t)misfits(at + VECTOR, which) << VECTOR;
}

/* Of a block of which `left` bytes are there, fewer than 64. */
CORE INLINE uint64_t misfits_last(const uint8_t *at, const uint8_t *end, enum bop__http_class which)
{
    size_t left = (size_t)(end - at);
    uint64_t last;

    if (left == 0) {
        return UINT64_MAX;
    }
    last = misfits(end - VECTOR, which);
    last = left < VECTOR ? last >> (VECTOR - left) : last << (left - VECTOR) | misfits(at, which);
    return last | UINT64_MAX << left;
}

CORE INLINE void marks_load(struct marks *marks)
{
    if (BOP_LIKELY(marks->end - marks->block >= 64)) {
        marks->token = misfits_block(marks->block, BOP__HTTP_TOKEN);
        marks->value = misfits_block(marks->block, BOP__HTTP_VALUE);
    } else {
        marks->token = misfits_last(marks->block, marks->end, BOP__HTTP_TOKEN);
        marks->value = misfits_last(marks->block, marks->end, BOP__HTTP_VALUE);
    }
}

CORE INLINE struct marks marks_begin(const uint8_t *at, const uint8_t *end)
{
    struct marks marks = {.block = at, .end = end};

    marks_load(&marks);
    return marks;
}

/* As scan(), for places that only go up. */
CORE INLINE const uint8_t *marks_find(struct marks *marks, const uint8_t *at,
                                      enum bop__http_class which)
{
    for (;;) {
        size_t offset = (size_t)(at - marks->block);

        if (BOP_LIKELY(offset < 64)) {
            uint64_t rest = (which == BOP__HTTP_TOKEN ? marks->token : marks->value) >> offset;

            if (BOP_LIKELY(rest != 0)) {
                return at + __builtin_ctzll(rest);
            }
            at = marks->block + 64;
        }
        marks->block += 64;
        marks_load(marks);
    }
}

#include "parse_core.h"
