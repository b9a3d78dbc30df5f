/*
 * The engine for any processor: a table look-up a byte.
 */
#include "parse.h"

#define CORE

static inline const uint8_t *scan(const uint8_t *at, const uint8_t *end, enum bop__http_class which)
{
    while (at < end && bop__http_is(*at, which)) {
        at++;
    }
    return at;
}

struct marks {
    const uint8_t *end;
};

static inline struct marks marks_begin(const uint8_t *at, const uint8_t *end)
{
    return (struct marks){.end = end};
}

static inline const uint8_t *marks_find(const struct marks *marks, const uint8_t *at,
                                        enum bop__http_class which)
{
    return scan(at, marks->end, which);
}

#include "parse_core.h"

const struct bop__http_engine bop__http_engine_scalar = {
    .name = "scalar",
    .request = request_head,
    .response = response_head,
};
