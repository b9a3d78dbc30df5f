/*
 * UTF-8 (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF) that comes in
 * pieces.
 *
 * What a piece's end leaves of a character is three bytes of state: how many bytes are missing,
 * and the bounds of the next one, which are narrower than 80..BF after E0, ED, F0 and F4. So the
 * first byte that no continuation can save is refused at once, wherever the pieces are cut.
 *
 * A piece is then checked in three parts: the rest of the character it begins in, byte by byte;
 * whole characters, in bulk; the character it ends in, byte by byte. The bulk is Keiser and
 * Lemire's range check ("Validating UTF-8 in less than one instruction per byte", 2021): each pair
 * of neighbouring bytes is classified by three lookups of four bits, whose conjunction is the set
 * of errors the pair is part of.
 */
#include "ws_frame.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define WS_HAVE_X86 1
#else
#define WS_HAVE_X86 0
#endif

/* ---- Byte by byte ---- */

/* What may follow a first byte; missing 0: it is no first byte of several. */
static inline struct bop_ws_utf8 after_first(uint8_t byte)
{
    struct bop_ws_utf8 next = {.low = 0x80, .high = 0xbf};

    if (byte >= 0xc2 && byte <= 0xdf) {
        next.missing = 1;
    } else if (byte >= 0xe0 && byte <= 0xef) {
        next.missing = 2;
        next.low = byte == 0xe0 ? 0xa0 : 0x80;  /* Else overlong. */
        next.high = byte == 0xed ? 0x9f : 0xbf; /* Else a surrogate. */
    } else if (byte >= 0xf0 && byte <= 0xf4) {
        next.missing = 3;
        next.low = byte == 0xf0 ? 0x90 : 0x80;  /* Else overlong. */
        next.high = byte == 0xf4 ? 0x8f : 0xbf; /* Else above U+10FFFF. */
    }
    return next;
}

static inline bool feed_byte(struct bop_ws_utf8 *utf8, uint8_t byte)
{
    if (utf8->missing == 0) {
        if (byte < 0x80) {
            return true;
        }
        *utf8 = after_first(byte);
        return utf8->missing != 0;
    }
    if (byte < utf8->low || byte > utf8->high) {
        return false;
    }
    utf8->missing--;
    utf8->low = 0x80;
    utf8->high = 0xbf;
    return true;
}

static bool whole_scalar(const uint8_t *at, size_t size)
{
    const uint8_t *end = at + size;
    struct bop_ws_utf8 utf8 = {0};

    while (at < end) {
        if (utf8.missing == 0 && end - at >= 8 &&
            (bop_load_u64(at) & UINT64_C(0x8080808080808080)) == 0) {
            at += 8;
        } else if (!feed_byte(&utf8, *at++)) {
            return false;
        }
    }
    return utf8.missing == 0;
}

#if WS_HAVE_X86

/* ---- By range check ---- */

/* Errors that a pair of bytes can show, a bit each. */
#define TOO_SHORT      0x01 /* 11______ 0_______, 11______ 11______ */
#define TOO_LONG       0x02 /* 0_______ 10______ */
#define OVERLONG_3     0x04 /* 11100000 100_____ */
#define TOO_LARGE      0x08 /* 11110100 1001____ and above */
#define SURROGATE      0x10 /* 11101101 101_____ */
#define OVERLONG_2     0x20 /* 1100000_ 10______ */
#define TOO_LARGE_1000 0x40 /* 11110101 1000____ and above */
#define OVERLONG_4     0x40 /* 11110000 1000____ */
#define TWO_CONTS      0x80 /* 10______ 10______: fine where two or three before is a first byte. */
#define CARRY          (TOO_SHORT | TOO_LONG | TWO_CONTS)

/* By the high half of the first byte of the pair, by its low half, by the high half of the
 * second. Twice, since a shuffle of 32 bytes looks up in each half on its own. */
#define FIRST_HIGH                                                                                 \
    TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TWO_CONTS,     \
        TWO_CONTS, TWO_CONTS, TWO_CONTS, TOO_SHORT | OVERLONG_2, TOO_SHORT,                        \
        TOO_SHORT | OVERLONG_3 | SURROGATE, TOO_SHORT | TOO_LARGE | TOO_LARGE_1000 | OVERLONG_4
#define FIRST_LOW                                                                                  \
    CARRY | OVERLONG_3 | OVERLONG_2 | OVERLONG_4, CARRY | OVERLONG_2, CARRY, CARRY,                \
        CARRY | TOO_LARGE, CARRY | TOO_LARGE | TOO_LARGE_1000, CARRY | TOO_LARGE | TOO_LARGE_1000, \
        CARRY | TOO_LARGE | TOO_LARGE_1000, CARRY | TOO_LARGE | TOO_LARGE_1000,                    \
        CARRY | TOO_LARGE | TOO_LARGE_1000, CARRY | TOO_LARGE | TOO_LARGE_1000,                    \
        CARRY | TOO_LARGE | TOO_LARGE_1000, CARRY | TOO_LARGE | TOO_LARGE_1000,                    \
        CARRY | TOO_LARGE | TOO_LARGE_1000 | SURROGATE, CARRY | TOO_LARGE | TOO_LARGE_1000,        \
        CARRY | TOO_LARGE | TOO_LARGE_1000
#define SECOND_HIGH                                                                                \
    TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT,        \
        TOO_LONG | OVERLONG_2 | TWO_CONTS | OVERLONG_3 | TOO_LARGE_1000 | OVERLONG_4,              \
        TOO_LONG | OVERLONG_2 | TWO_CONTS | OVERLONG_3 | TOO_LARGE,                                \
        TOO_LONG | OVERLONG_2 | TWO_CONTS | SURROGATE | TOO_LARGE,                                 \
        TOO_LONG | OVERLONG_2 | TWO_CONTS | SURROGATE | TOO_LARGE, TOO_SHORT, TOO_SHORT,           \
        TOO_SHORT, TOO_SHORT

static const uint8_t first_high_table[32] = {FIRST_HIGH, FIRST_HIGH};
static const uint8_t first_low_table[32] = {FIRST_LOW, FIRST_LOW};
static const uint8_t second_high_table[32] = {SECOND_HIGH, SECOND_HIGH};

#define LOAD16(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define LOAD32(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))

/* The errors in 16 bytes, of which `before` are the 16 ahead of them. */
__attribute__((target("ssse3"))) static inline __m128i errors_sse(__m128i bytes, __m128i before)
{
    const __m128i nibble = _mm_set1_epi8(0x0f);
    __m128i prev1 = _mm_alignr_epi8(bytes, before, 15);
    __m128i prev2 = _mm_alignr_epi8(bytes, before, 14);
    __m128i prev3 = _mm_alignr_epi8(bytes, before, 13);
    __m128i first_high = _mm_shuffle_epi8(LOAD16(first_high_table),
                                          _mm_and_si128(_mm_srli_epi16(prev1, 4), nibble));
    __m128i first_low = _mm_shuffle_epi8(LOAD16(first_low_table), _mm_and_si128(prev1, nibble));
    __m128i second_high = _mm_shuffle_epi8(LOAD16(second_high_table),
                                           _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble));
    __m128i pair = _mm_and_si128(_mm_and_si128(first_high, first_low), second_high);
    /* Third and fourth bytes: where two continuations in a row are not only fine but needed. */
    __m128i third = _mm_subs_epu8(prev2, _mm_set1_epi8((char)(0xe0 - 0x80)));
    __m128i fourth = _mm_subs_epu8(prev3, _mm_set1_epi8((char)(0xf0 - 0x80)));
    __m128i needed = _mm_and_si128(_mm_or_si128(third, fourth), _mm_set1_epi8((char)0x80));

    return _mm_xor_si128(needed, pair);
}

__attribute__((target("ssse3"))) static bool whole_sse(const uint8_t *at, size_t size)
{
    __m128i before = _mm_setzero_si128(), errors = _mm_setzero_si128();
    uint8_t rest[16] = {0};

    while (size >= 16) {
        __m128i bytes = LOAD16(at);

        if (_mm_movemask_epi8(_mm_or_si128(bytes, before)) != 0) {
            errors = _mm_or_si128(errors, errors_sse(bytes, before));
        }
        before = bytes;
        size -= 16, at += 16;
        while (size >= 64 && _mm_movemask_epi8(before) == 0) {
            __m128i a = _mm_or_si128(LOAD16(at), LOAD16(at + 16));
            __m128i b = _mm_or_si128(LOAD16(at + 32), LOAD16(at + 48));

            if (_mm_movemask_epi8(_mm_or_si128(a, b)) != 0) {
                break;
            }
            size -= 64, at += 64;
        }
    }
    /* Zeros after the end make a character that is cut there an error. */
    memcpy(rest, at, size);
    errors = _mm_or_si128(errors, errors_sse(LOAD16(rest), before));
    return _mm_movemask_epi8(_mm_cmpeq_epi8(errors, _mm_setzero_si128())) == 0xffff;
}

__attribute__((target("avx2"))) static inline __m256i errors_avx2(__m256i bytes, __m256i before)
{
    const __m256i nibble = _mm256_set1_epi8(0x0f);
    __m256i middle = _mm256_permute2x128_si256(before, bytes, 0x21);
    __m256i prev1 = _mm256_alignr_epi8(bytes, middle, 15);
    __m256i prev2 = _mm256_alignr_epi8(bytes, middle, 14);
    __m256i prev3 = _mm256_alignr_epi8(bytes, middle, 13);
    __m256i first_high = _mm256_shuffle_epi8(LOAD32(first_high_table),
                                             _mm256_and_si256(_mm256_srli_epi16(prev1, 4), nibble));
    __m256i first_low = _mm256_shuffle_epi8(LOAD32(first_low_table),
                                            _mm256_and_si256(prev1, nibble));
    __m256i second_high = _mm256_shuffle_epi8(
        LOAD32(second_high_table), _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
    __m256i pair = _mm256_and_si256(_mm256_and_si256(first_high, first_low), second_high);
    __m256i third = _mm256_subs_epu8(prev2, _mm256_set1_epi8((char)(0xe0 - 0x80)));
    __m256i fourth = _mm256_subs_epu8(prev3, _mm256_set1_epi8((char)(0xf0 - 0x80)));
    __m256i needed = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8((char)0x80));

    return _mm256_xor_si256(needed, pair);
}

__attribute__((target("avx2"))) static bool whole_avx2(const uint8_t *at, size_t size)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i before = zero, errors = zero;
    uint8_t rest[32] = {0};

    while (size >= 32) {
        __m256i bytes = LOAD32(at);

        if (_mm256_movemask_epi8(_mm256_or_si256(bytes, before)) != 0) {
            errors = _mm256_or_si256(errors, errors_avx2(bytes, before));
        }
        before = bytes;
        size -= 32, at += 32;
        while (size >= 128 && _mm256_movemask_epi8(before) == 0) {
            __m256i a = _mm256_or_si256(LOAD32(at), LOAD32(at + 32));
            __m256i b = _mm256_or_si256(LOAD32(at + 64), LOAD32(at + 96));

            if (_mm256_movemask_epi8(_mm256_or_si256(a, b)) != 0) {
                break;
            }
            size -= 128, at += 128;
        }
    }
    memcpy(rest, at, size);
    errors = _mm256_or_si256(errors, errors_avx2(LOAD32(rest), before));
    return _mm256_testz_si256(errors, errors);
}

#endif

bool bop__ws_utf8_whole(const uint8_t *bytes, size_t size)
{
#if WS_HAVE_X86
    switch (size >= 16 ? bop__ws_simd() : WS_SCALAR) {
    case WS_AVX2:
        return whole_avx2(bytes, size);
    case WS_SSE:
        return whole_sse(bytes, size);
    case WS_SCALAR:
        break;
    }
#endif
    return whole_scalar(bytes, size);
}

/* ---- Pieces ---- */

/* How many bytes at the end belong to a character that is cut there, or might: 0 to 3. */
static size_t cut_size(const uint8_t *bytes, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        uint8_t byte = bytes[size - back];

        if (byte >= 0xc0) {
            size_t needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;

            return needed > back ? back : 0;
        }
        if (byte < 0x80) {
            return 0;
        }
    }
    return 0;
}

bool bop_ws_utf8_feed(struct bop_ws_utf8 *utf8, struct bop_slice bytes)
{
    const uint8_t *at = bytes.data;
    size_t size = bytes.size, cut;

    for (; size > 0 && utf8->missing != 0; size--) {
        if (!feed_byte(utf8, *at++)) {
            return false;
        }
    }
    if (size == 0) {
        return true;
    }
    cut = cut_size(at, size);
    if (!bop__ws_utf8_whole(at, size - cut)) {
        return false;
    }
    for (at += size - cut; cut > 0; cut--) {
        if (!feed_byte(utf8, *at++)) {
            return false;
        }
    }
    return true;
}
