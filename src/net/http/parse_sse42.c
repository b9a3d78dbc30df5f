/*
 * The engine for x86-64 with SSE4.2: two vectors of 16 bytes at a time.
 */
#include "parse.h"

#if defined(__x86_64__)
#include <nmmintrin.h>

#define CORE __attribute__((target("sse4.2")))

/* Bit n: byte n of 16 is not of the class. */
CORE static inline __attribute__((always_inline)) uint32_t misfits16(__m128i bytes,
                                                                     enum bop__http_class which)
{
    const __m128i bits = _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, (char)128, 0, 0, 0, 0, 0, 0, 0, 0);
    __m128i lows, highs;

    if (which == BOP__HTTP_VALUE) {
        __m128i visible = _mm_cmpeq_epi8(_mm_max_epu8(bytes, _mm_set1_epi8(' ')), bytes);
        __m128i fits = _mm_or_si128(visible, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t')));

        fits = _mm_andnot_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f)), fits);
        return (uint32_t)_mm_movemask_epi8(fits) ^ 0xffff;
    }
    /* By the low half: for which high halves it fits. From 0x80 the shuffle gives 0. */
    lows = _mm_shuffle_epi8(
        _mm_loadu_si128((const __m128i *)(const void *)bop__http_nibbles[which]), bytes);
    highs = _mm_shuffle_epi8(bits, _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(0x0f)));
    return (uint32_t)_mm_movemask_epi8(
        _mm_cmpeq_epi8(_mm_and_si128(lows, highs), _mm_setzero_si128()));
}

CORE static inline __attribute__((always_inline)) uint32_t misfits(const uint8_t *at,
                                                                   enum bop__http_class which)
{
    uint32_t low = misfits16(_mm_loadu_si128((const __m128i *)(const void *)at), which);

    return low | misfits16(_mm_loadu_si128((const __m128i *)(const void *)(at + 16)), which) << 16;
}

#include "parse_vector.h"

const struct bop__http_engine bop__http_engine_sse42 = {
    .name = "sse4.2",
    .request = request_head,
    .response = response_head,
};
#endif
