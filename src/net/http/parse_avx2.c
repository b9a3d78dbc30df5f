/*
 * The engine for x86-64 with AVX2: 32 bytes at a time.
 */
#include "parse.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define CORE __attribute__((target("avx2,bmi")))

/* Bit n: byte n of 32 is not of the class. */
CORE static inline __attribute__((always_inline)) uint32_t misfits(const uint8_t *at,
                                                                   enum bop__http_class which)
{
    const __m256i bits = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, (char)128, 0, 0, 0, 0, 0, 0, 0, 0));
    __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)at);
    __m256i lows, highs;

    if (which == BOP__HTTP_VALUE) {
        __m256i visible = _mm256_cmpeq_epi8(_mm256_max_epu8(bytes, _mm256_set1_epi8(' ')), bytes);
        __m256i fits = _mm256_or_si256(visible, _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\t')));

        fits = _mm256_andnot_si256(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f)), fits);
        return ~(uint32_t)_mm256_movemask_epi8(fits);
    }
    /* By the low half: for which high halves it fits. From 0x80 the shuffle gives 0. */
    lows = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(
                                   (const __m128i *)(const void *)bop__http_nibbles[which])),
                               bytes);
    highs = _mm256_shuffle_epi8(
        bits, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(0x0f)));
    return (uint32_t)_mm256_movemask_epi8(
        _mm256_cmpeq_epi8(_mm256_and_si256(lows, highs), _mm256_setzero_si256()));
}

#include "parse_vector.h"

const struct bop__http_engine bop__http_engine_avx2 = {
    .name = "avx2",
    .request = request_head,
    .response = response_head,
};
#endif
