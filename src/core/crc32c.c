/*
 * CRC-32C by the processor's instruction or by table.
 *
 * The polynomial is 0x1EDC6F41; everything here works on its bit-reversed form.
 * Both ways share the convention that the checksum going in and out is
 * inverted, so that leading zeros count.
 *
 * By table: slicing by eight. slices[k][b] is the checksum of byte b followed by
 * k zero bytes, so eight bytes are looked up at once and combined.
 *
 * By instruction: crc32 takes three cycles but one can start every cycle, so a
 * long input is cut into three lanes that are summed side by side:
 *
 *      | lane a | lane b | lane c |     crc = shift(shift(a) ^ b) ^ c
 *
 * where shift(x) is the checksum register x after one lane of zero bytes. That
 * is linear over GF(2), so it is the xor of four lookups, one for each byte of
 * x. Long lanes pay for the shift best; shorter ones catch what remains.
 */
#include <bop/crc32c.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <bop/slice.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define CRC32C_HAVE_SSE42 1
#else
#define CRC32C_HAVE_SSE42 0
#endif

#define POLYNOMIAL      UINT32_C(0x82f63b78)
#define SLICES          8
#define LONG_LANE_SIZE  4096
#define SHORT_LANE_SIZE 256

static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static bool hardware;
/* Set last: what short inputs look at instead of calling pthread_once(), which costs as much
 * as a hundred bytes of summing. */
static _Atomic bool ready;
static uint32_t slices[SLICES][256];
static uint32_t long_shift[4][256];
static uint32_t short_shift[4][256];

/* ---- Tables ---- */

static void prepare_slices(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;

        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        }
        slices[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        for (int k = 1; k < SLICES; k++) {
            uint32_t crc = slices[k - 1][byte];

            slices[k][byte] = crc >> 8 ^ slices[0][crc & 0xff];
        }
    }
}

/* The register after `size` zero bytes, the slow way. */
static uint32_t shift_slowly(uint32_t crc, size_t size)
{
    while (size-- > 0) {
        crc = crc >> 8 ^ slices[0][crc & 0xff];
    }
    return crc;
}

/* By linearity, 32 slow shifts of single bits give all the rest. */
static void prepare_shift(uint32_t shift[4][256], size_t lane_size)
{
    for (int at = 0; at < 4; at++) {
        for (uint32_t bit = 0; bit < 8; bit++) {
            shift[at][1u << bit] = shift_slowly(UINT32_C(1) << (8 * at + (int)bit), lane_size);
        }
        for (uint32_t byte = 1; byte < 256; byte++) {
            uint32_t lowest = byte & -byte;

            shift[at][byte] = shift[at][lowest] ^ shift[at][byte ^ lowest];
        }
    }
}

static void prepare(void)
{
    prepare_slices();
    prepare_shift(long_shift, LONG_LANE_SIZE);
    prepare_shift(short_shift, SHORT_LANE_SIZE);
#if CRC32C_HAVE_SSE42
    hardware = __builtin_cpu_supports("sse4.2");
#endif
    /* Release pairs with the acquire in prepare_once: who sees it sees the tables. */
    atomic_store_explicit(&ready, true, memory_order_release);
}

static inline void prepare_once(void)
{
    if (BOP_UNLIKELY(!atomic_load_explicit(&ready, memory_order_acquire))) {
        /* Fails only for arguments that make no sense. */
        pthread_once(&prepared, prepare);
    }
}

/* ---- By table ---- */

uint32_t bop_crc32c_table(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *at = data;

    prepare_once();
    crc = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        uint32_t low = bop_load_u32(at) ^ crc;
        uint32_t high = bop_load_u32(at + 4);

        crc = slices[7][low & 0xff] ^ slices[6][low >> 8 & 0xff] ^ slices[5][low >> 16 & 0xff] ^
              slices[4][low >> 24] ^ slices[3][high & 0xff] ^ slices[2][high >> 8 & 0xff] ^
              slices[1][high >> 16 & 0xff] ^ slices[0][high >> 24];
    }
    for (; size > 0; size--, at++) {
        crc = crc >> 8 ^ slices[0][(crc ^ *at) & 0xff];
    }
    return ~crc;
}

/* ---- By instruction ---- */

#if CRC32C_HAVE_SSE42

static uint32_t shift_lane(uint32_t shift[4][256], uint64_t crc)
{
    return shift[0][crc & 0xff] ^ shift[1][crc >> 8 & 0xff] ^ shift[2][crc >> 16 & 0xff] ^
           shift[3][crc >> 24 & 0xff];
}

/* Three lanes, each lane_size long, a multiple of 8. */
__attribute__((target("sse4.2"))) static inline uint64_t
sum_lanes(uint64_t crc, const uint8_t *at, size_t lane_size, uint32_t shift[4][256])
{
    uint64_t b = 0, c = 0;

    for (const uint8_t *end = at + lane_size; at < end; at += 8) {
        crc = _mm_crc32_u64(crc, bop_load_u64(at));
        b = _mm_crc32_u64(b, bop_load_u64(at + lane_size));
        c = _mm_crc32_u64(c, bop_load_u64(at + 2 * lane_size));
    }
    crc = shift_lane(shift, crc) ^ b;
    return shift_lane(shift, crc) ^ c;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t start, const uint8_t *at,
                                                               size_t size)
{
    uint64_t crc = ~start;

    for (; size >= 3 * LONG_LANE_SIZE; size -= 3 * LONG_LANE_SIZE, at += 3 * LONG_LANE_SIZE) {
        crc = sum_lanes(crc, at, LONG_LANE_SIZE, long_shift);
    }
    for (; size >= 3 * SHORT_LANE_SIZE; size -= 3 * SHORT_LANE_SIZE, at += 3 * SHORT_LANE_SIZE) {
        crc = sum_lanes(crc, at, SHORT_LANE_SIZE, short_shift);
    }
    for (; size >= 8; size -= 8, at += 8) {
        crc = _mm_crc32_u64(crc, bop_load_u64(at));
    }
    if (size >= 4) {
        crc = _mm_crc32_u32((uint32_t)crc, bop_load_u32(at));
        size -= 4;
        at += 4;
    }
    for (; size > 0; size--, at++) {
        crc = _mm_crc32_u8((uint32_t)crc, *at);
    }
    return ~(uint32_t)crc;
}

#endif

uint32_t bop_crc32c(uint32_t crc, const void *data, size_t size)
{
#if CRC32C_HAVE_SSE42
    prepare_once();
    if (hardware) {
        return crc32c_sse42(crc, data, size);
    }
#endif
    return bop_crc32c_table(crc, data, size);
}

bool bop_crc32c_is_hardware(void)
{
    prepare_once();
    return hardware;
}
