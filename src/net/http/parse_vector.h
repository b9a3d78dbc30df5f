/*
 * scan() by vectors of WIDTH bytes, for engines that define misfits().
 *
 * Nothing outside of the bytes is read: where less than a vector is left, the
 * last WIDTH bytes are looked at, and those before the place are shifted out. So
 * an engine is only given WIDTH bytes or more, see bop__http_parse_request().
 */
CORE static inline __attribute__((always_inline)) const uint8_t *
scan(const uint8_t *at, const uint8_t *end, enum bop__http_class which)
{
    uint32_t mask;

    for (; end - at >= WIDTH; at += WIDTH) {
        mask = misfits(at, which);
        if (mask != 0) {
            return at + __builtin_ctz(mask);
        }
    }
    if (at == end) {
        return end;
    }
    mask = misfits(end - WIDTH, which) >> (WIDTH - (end - at));
    return mask != 0 ? at + __builtin_ctz(mask) : end;
}

#include "parse_core.h"
