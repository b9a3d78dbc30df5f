/*
 * Names and header blocks of segment files.
 */
#include "format.h"

#include <inttypes.h>

void bop__aof_segment_name(uint64_t base, uint64_t generation, char out_name[BOP__AOF_NAME_SIZE])
{
    int size = snprintf(out_name, BOP__AOF_NAME_SIZE, "%016" PRIx64 "-%016" PRIx64 ".seg", base,
                        generation);

    BOP_ASSERT(size == BOP__AOF_NAME_SIZE - 1);
}

/* 16 lower-case hex digits; false for anything else, so that each file has one name. */
static bool parse_hex16(const char *text, uint64_t *out_value)
{
    uint64_t value = 0;

    for (int i = 0; i < 16; i++) {
        char c = text[i];

        if (c >= '0' && c <= '9') {
            value = value << 4 | (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        } else {
            return false;
        }
    }
    *out_value = value;
    return true;
}

bool bop__aof_segment_name_parse(const char *name, uint64_t *out_base, uint64_t *out_generation)
{
    return strlen(name) == BOP__AOF_NAME_SIZE - 1 && parse_hex16(name, out_base) &&
           name[16] == '-' && parse_hex16(name + 17, out_generation) &&
           strcmp(name + 33, ".seg") == 0;
}

/* The checksum of a block as if its crc field were zero. */
static uint32_t block_crc(const uint8_t block[BOP__AOF_SEGMENT_HEADER])
{
    static const uint8_t zeros[sizeof(uint32_t)];
    size_t at = offsetof(struct bop__aof_segment_header, crc);
    uint32_t crc = bop_crc32c(0, block, at);

    crc = bop_crc32c(crc, zeros, sizeof(zeros));
    at += sizeof(zeros);
    return bop_crc32c(crc, block + at, BOP__AOF_SEGMENT_HEADER - at);
}

uint32_t bop__aof_filler_encode(uint8_t *out_bytes, size_t size, uint32_t salt, uint64_t next_seq,
                                uint64_t durable_seq, uint32_t chain)
{
    /* So long that no zeros pad it: the next byte is the end mark. */
    uint32_t length = (uint32_t)size - BOP__AOF_RECORD_HEADER - 1;
    struct bop__aof_record_header header = {
        .seq = next_seq,
        .durable_seq = durable_seq,
        .chain = chain,
        .length = BOP__AOF_FILLER_MARK | length,
    };
    uint8_t *payload = out_bytes + BOP__AOF_RECORD_HEADER;

    BOP_ASSERT(size >= BOP__AOF_FILLER_MIN && size % BOP__AOF_RECORD_ALIGN == 0);
    memset(payload, BOP__AOF_FILLER_BYTE, length);
    payload[length] = BOP__AOF_END_MARK;
    header.payload_crc = bop_crc32c(0, payload, length);
    header.header_crc = bop__aof_header_crc(salt, &header);
    memcpy(out_bytes, &header, sizeof(header));
    return bop__aof_link(&header);
}

void bop__aof_segment_header_encode(const struct bop__aof_segment_header *header,
                                    uint8_t out_block[BOP__AOF_SEGMENT_HEADER])
{
    struct bop__aof_segment_header full = *header;

    full.magic = BOP__AOF_MAGIC;
    full.version = BOP__AOF_VERSION;
    memset(out_block, 0, BOP__AOF_SEGMENT_HEADER);
    memcpy(out_block, &full, sizeof(full));
    full.crc = block_crc(out_block);
    memcpy(out_block, &full, sizeof(full));
}

int bop__aof_segment_header_decode(const uint8_t block[BOP__AOF_SEGMENT_HEADER], const char *path,
                                   struct bop__aof_segment_header *out_header,
                                   struct bop_error *err)
{
    struct bop__aof_segment_header header;

    memcpy(&header, block, sizeof(header));
    if (header.magic != BOP__AOF_MAGIC) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: not a segment of a log", path);
    }
    if (header.crc != block_crc(block)) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: header checksum", path);
    }
    if (header.version < BOP__AOF_VERSION_OLDEST || header.version > BOP__AOF_VERSION) {
        return bop_error_say(err, BOP_EVERSION,
                             "%s has log format version %u, this program knows versions %u to %u: "
                             "use the program that wrote it, or a newer one",
                             path, header.version, BOP__AOF_VERSION_OLDEST, BOP__AOF_VERSION);
    }
    if ((header.flags & ~(header.version == 1 ? 0 : BOP__AOF_FLAGS_KNOWN)) != 0) {
        return bop_error_say(err, BOP_EVERSION,
                             "%s has log format flags 0x%x, this program knows 0x%x: use the "
                             "program that wrote it, or a newer one",
                             path, header.flags, BOP__AOF_FLAGS_KNOWN);
    }
    if (header.base == 0 || header.base > BOP__AOF_SEQ_MAX || header.generation == 0 ||
        header.generation == UINT64_MAX || header.front == 0 || header.front > header.base ||
        header.size < BOP__AOF_SEGMENT_HEADER) {
        return bop_error_set(err, BOP_ECORRUPT, "%s: header values", path);
    }
    *out_header = header;
    return 0;
}
