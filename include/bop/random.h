/*
 * A small seeded generator (xoshiro256**, Blackman and Vigna 2018, seeded by
 * splitmix64): the same seed gives the same numbers for ever. Not for secrets:
 * those come from bop_random_secret().
 */
#ifndef BOP_RANDOM_H
#define BOP_RANDOM_H

#include <bop/base.h>

struct bop_random {
    uint64_t state[4];
};

BOP_API void bop_random_seed(struct bop_random *random, uint64_t seed);
BOP_API uint64_t bop_random_next(struct bop_random *random);

/** Uniform in [0, bound); bound is not 0. */
BOP_API uint64_t bop_random_below(struct bop_random *random, uint64_t bound);

/** True in `parts` of `whole` cases. */
static inline bool bop_random_chance(struct bop_random *random, uint64_t parts, uint64_t whole)
{
    return bop_random_below(random, whole) < parts;
}

/** Fill with bytes from the system's generator. Returns 0 or -errno. */
BOP_API BOP_MUST_USE int bop_random_secret(void *out_bytes, size_t size);

#endif
