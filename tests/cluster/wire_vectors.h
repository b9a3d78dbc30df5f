/*
 * The golden frames of wire_vectors.def as bytes, and a checksum of their own:
 * CRC-32 bit by bit, as IEEE 802.3 describes it, so that the tests do not judge the
 * library by the library it uses.
 */
#ifndef BOP_TESTS_WIRE_VECTORS_H
#define BOP_TESTS_WIRE_VECTORS_H

#include <bop/wire.h>

#define VECTOR_BYTES_MAX 1024

struct vector {
    const char *name;
    uint16_t kind;
    uint8_t flags;
    uint32_t request;
    const char *hex;
};

static const struct vector vectors[] = {
#define VECTOR(kind_name, flags_, request_, hex_)                                                  \
    {.name = #kind_name,                                                                           \
     .kind = BOP_WIRE_KIND_##kind_name,                                                            \
     .flags = flags_,                                                                              \
     .request = request_,                                                                          \
     .hex = hex_},
#include "wire_vectors.def"
#undef VECTOR
};

static inline uint8_t hex_digit(char c)
{
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* The bytes of a vector, in a buffer of VECTOR_BYTES_MAX. */
static inline struct bop_slice vector_bytes(const struct vector *vector, uint8_t *buffer)
{
    size_t size = strlen(vector->hex) / 2;

    BOP_ASSERT(size <= VECTOR_BYTES_MAX);
    for (size_t i = 0; i < size; i++) {
        buffer[i] = (uint8_t)(hex_digit(vector->hex[2 * i]) << 4 |
                              hex_digit(vector->hex[2 * i + 1]));
    }
    return bop_slice(buffer, size);
}

static inline struct bop_slice vector_payload(const struct vector *vector, uint8_t *buffer)
{
    struct bop_slice whole = vector_bytes(vector, buffer);

    return bop_slice(whole.data + BOP_WIRE_HEADER, whole.size - BOP_WIRE_HEADER);
}

static inline uint32_t crc32_bitwise(const uint8_t *data, size_t size)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        }
    }
    return ~crc;
}

/* Make the checksum of a frame right again after it was changed. */
static inline void repair_crc(uint8_t *frame, size_t size)
{
    bop_store_u32(frame, crc32_bitwise(frame + 4, size - 4));
}

#endif
