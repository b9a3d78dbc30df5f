/*
 * xoshiro256** (Blackman and Vigna 2018), seeded by splitmix64, and the
 * system's generator for secrets.
 *
 * The numbers of a seed are for ever: a recorded seed must replay its run.
 * tests/core/test_random.c pins them.
 */
#include <bop/random.h>

#include <errno.h>
#include <sys/random.h>
#include <sys/types.h>

__extension__ typedef unsigned __int128 uint128;

static uint64_t rotate_left(uint64_t value, unsigned count)
{
    return value << count | value >> (64 - count);
}

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

void bop_random_seed(struct bop_random *random, uint64_t seed)
{
    for (size_t i = 0; i < BOP_COUNT_OF(random->state); i++) {
        random->state[i] = splitmix64(&seed);
    }
}

uint64_t bop_random_next(struct bop_random *random)
{
    uint64_t *s = random->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/*
 * Lemire 2019: the high half of next * bound is uniform once the low halves
 * that would make some results likelier than others are thrown again. Fewer
 * than one throw in two is, so the loop ends.
 */
uint64_t bop_random_below(struct bop_random *random, uint64_t bound)
{
    uint64_t unfair;
    uint128 product;

    BOP_ASSERT(bound > 0);
    product = (uint128)bop_random_next(random) * bound;
    if ((uint64_t)product < bound) {
        unfair = -bound % bound; /* 2^64 mod bound */
        while ((uint64_t)product < unfair) {
            product = (uint128)bop_random_next(random) * bound;
        }
    }
    return (uint64_t)(product >> 64);
}

int bop_random_secret(void *out_bytes, size_t size)
{
    uint8_t *at = out_bytes;

    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);

        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        at += got;
        size -= (size_t)got;
    }
    return 0;
}
