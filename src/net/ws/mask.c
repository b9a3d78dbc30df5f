/*
 * Masking: xor with four bytes over and over, 64 at a time where the processor can.
 *
 * The key is a number whose lowest byte goes with the next payload byte; after n bytes it is
 * rotated by n. Whole words leave it as it is, so only the last one to three bytes of a piece
 * turn it, and a piece may begin at any phase and any address.
 *
 * All ways also gather the bytes that come out: most text is ASCII, and to know that much for
 * nothing saves looking at it again (see bop_ws_utf8_feed()).
 */
#include "ws_frame.h"

#include <stdatomic.h>

#include <bop/random.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define WS_HAVE_X86 1
#else
#define WS_HAVE_X86 0
#endif

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* ---- What the processor can ---- */

static _Atomic int simd_in_use = -1; /* enum ws_simd; -1: not known yet. */

enum ws_simd bop__ws_simd_best(void)
{
#if WS_HAVE_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) {
        return WS_AVX2;
    }
    if (__builtin_cpu_supports("ssse3")) {
        return WS_SSE;
    }
#endif
    return WS_SCALAR;
}

void bop__ws_simd_limit(enum ws_simd most)
{
    enum ws_simd best = bop__ws_simd_best();

    /* Relaxed, as below: the number is all there is to see. */
    atomic_store_explicit(&simd_in_use, most < best ? most : best, memory_order_relaxed);
}

enum ws_simd bop__ws_simd(void)
{
    int simd = atomic_load_explicit(&simd_in_use, memory_order_relaxed);

    if (BOP_UNLIKELY(simd < 0)) {
        simd = bop__ws_simd_best();
        atomic_store_explicit(&simd_in_use, simd, memory_order_relaxed);
    }
    return (enum ws_simd)simd;
}

/* ---- Eight bytes at a time ---- */

static inline uint32_t turn(uint32_t key, size_t bytes)
{
    unsigned bits = 8 * (unsigned)(bytes & 3);

    return bits == 0 ? key : key >> bits | key << (32 - bits);
}

static inline uint32_t xor_scalar(uint8_t *to, const uint8_t *from, size_t size, uint32_t key,
                                  uint64_t *in_out_seen)
{
    uint64_t key8 = (uint64_t)key << 32 | key;
    uint64_t seen = 0;
    uint32_t next = turn(key, size);

    for (; size >= 8; size -= 8, to += 8, from += 8) {
        uint64_t word = bop_load_u64(from) ^ key8;

        bop_store_u64(to, word);
        seen |= word;
    }
    if (size >= 4) {
        uint32_t word = bop_load_u32(from) ^ key;

        bop_store_u32(to, word);
        seen |= word;
        size -= 4, to += 4, from += 4;
    }
    for (; size > 0; size--, key >>= 8) {
        uint8_t byte = (uint8_t)(*from++ ^ key);

        *to++ = byte;
        seen |= byte;
    }
    *in_out_seen |= seen;
    return next;
}

/* ---- Vectors ---- */

#if WS_HAVE_X86

static uint32_t xor_sse(uint8_t *to, const uint8_t *from, size_t size, uint32_t key,
                        uint64_t *in_out_seen)
{
    __m128i keys = _mm_set1_epi32((int)key);
    __m128i seen = _mm_setzero_si128();

    for (; size >= 32; size -= 32, to += 32, from += 32) {
        __m128i a = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)from), keys);
        __m128i b = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)(from + 16)),
                                  keys);

        _mm_storeu_si128((__m128i *)(void *)to, a);
        _mm_storeu_si128((__m128i *)(void *)(to + 16), b);
        seen = _mm_or_si128(seen, _mm_or_si128(a, b));
    }
    *in_out_seen |= _mm_movemask_epi8(seen) ? HIGH_BITS : 0;
    return xor_scalar(to, from, size, key, in_out_seen);
}

__attribute__((target("avx2"))) static uint32_t
xor_avx2(uint8_t *to, const uint8_t *from, size_t size, uint32_t key, uint64_t *in_out_seen)
{
    __m256i keys = _mm256_set1_epi32((int)key);
    __m256i seen = _mm256_setzero_si256();

    for (; size >= 64; size -= 64, to += 64, from += 64) {
        __m256i a = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)from), keys);
        __m256i b = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)(from + 32)),
                                     keys);

        _mm256_storeu_si256((__m256i *)(void *)to, a);
        _mm256_storeu_si256((__m256i *)(void *)(to + 32), b);
        seen = _mm256_or_si256(seen, _mm256_or_si256(a, b));
    }
    if (size >= 32) {
        __m256i a = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)from), keys);

        _mm256_storeu_si256((__m256i *)(void *)to, a);
        seen = _mm256_or_si256(seen, a);
        size -= 32, to += 32, from += 32;
    }
    *in_out_seen |= _mm256_movemask_epi8(seen) ? HIGH_BITS : 0;
    return xor_scalar(to, from, size, key, in_out_seen);
}

#endif

/* Below this a vector's set-up costs more than it saves. */
#define VECTOR_SIZE_MIN 48

static inline uint32_t xor_any(uint8_t *to, const uint8_t *from, size_t size, uint32_t key,
                               uint64_t *in_out_seen)
{
#if WS_HAVE_X86
    if (size >= VECTOR_SIZE_MIN) {
        switch (bop__ws_simd()) {
        case WS_AVX2:
            return xor_avx2(to, from, size, key, in_out_seen);
        case WS_SSE:
            return xor_sse(to, from, size, key, in_out_seen);
        case WS_SCALAR:
            break;
        }
    }
#endif
    return xor_scalar(to, from, size, key, in_out_seen);
}

uint32_t bop_ws_mask(uint8_t *to, const uint8_t *from, size_t size, uint32_t key)
{
    uint64_t seen = 0;

    return xor_any(to, from, size, key, &seen);
}

uint32_t bop__ws_unmask_text(uint8_t *bytes, size_t size, uint32_t key, bool *out_not_ascii)
{
    uint64_t seen = 0;

    key = xor_any(bytes, bytes, size, key, &seen);
    *out_not_ascii = (seen & HIGH_BITS) != 0;
    return key;
}

/* ---- Keys ---- */

int bop_ws_keys_next(struct bop_ws_keys *keys, uint32_t *out_key)
{
    if (keys->left == 0) {
        int rc = bop_random_secret(keys->keys, sizeof(keys->keys));

        if (rc != 0) {
            return rc;
        }
        keys->left = BOP_COUNT_OF(keys->keys);
    }
    *out_key = keys->keys[--keys->left];
    return 0;
}
