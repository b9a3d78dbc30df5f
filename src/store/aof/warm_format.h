/*
 * The bytes of a packed segment, format version 1: docs/design/warm.md says what each
 * field is for. The seek table's numbers are those of zstd's contrib/seekable_format.
 */
#ifndef BOP_STORE_AOF_WARM_FORMAT_H
#define BOP_STORE_AOF_WARM_FORMAT_H

#include <bop/crc32c.h>

#include "warm.h"

#define BOP__WARM_MAGIC   UINT64_C(0x314d524157504f42) /* "BOPWARM1" */
#define BOP__WARM_VERSION 1u

#define BOP__WARM_SKIPPABLE_HEADER 8u /* Magic and size. */
#define BOP__WARM_DICTIONARY_MAGIC 0x184d2a5du
#define BOP__WARM_TRAILER_MAGIC    0x184d2a5bu

#define BOP__SEEK_TABLE_MAGIC  0x184d2a5eu
#define BOP__SEEK_END_MAGIC    0x8f92eab1u
#define BOP__SEEK_ENTRY_SIZE   8u
#define BOP__SEEK_END_SIZE     9u
#define BOP__WARM_FRAMES_MAX   (1u << 24)
#define BOP__WARM_INDEX_SIZE   12u
#define BOP__WARM_TRAILER_SIZE 256u

/** One for each frame with bytes of the segment. */
struct bop__warm_index {
    uint32_t records; /* That begin in the frame. */
    uint32_t first;   /* Where the first of them begins. */
    uint32_t crc;     /* Of the frame as compressed. */
};

_Static_assert(sizeof(struct bop__warm_index) == BOP__WARM_INDEX_SIZE, "a disk format");

/** The facts at the end of the trailer. */
struct bop__warm_trailer {
    struct bop__segment_facts facts;
    uint32_t frames;
    uint32_t footer_frame;
    uint32_t dictionary_size;
    uint32_t dictionary_crc;
    uint32_t frame_bytes;
    int32_t level;
    uint64_t packed_size;
    uint32_t index_crc;
    uint32_t table_crc;
    uint32_t content_size;
    uint32_t flags;
    uint8_t zeros[56];
    uint32_t version;
    uint32_t crc; /* Of all of this with this field zero. */
    uint64_t magic;
};

_Static_assert(sizeof(struct bop__warm_trailer) == BOP__WARM_TRAILER_SIZE, "a disk format");
_Static_assert(offsetof(struct bop__warm_trailer, frames) == 136, "a disk format");
_Static_assert(offsetof(struct bop__warm_trailer, dictionary_size) == 144, "a disk format");
_Static_assert(offsetof(struct bop__warm_trailer, packed_size) == 160, "a disk format");
_Static_assert(offsetof(struct bop__warm_trailer, content_size) == 176, "a disk format");
_Static_assert(offsetof(struct bop__warm_trailer, version) == 240, "the same in all versions");
_Static_assert(offsetof(struct bop__warm_trailer, crc) == 244, "the same in all versions");
_Static_assert(offsetof(struct bop__warm_trailer, magic) == 248, "the same in all versions");

/** What the seek table's skippable frame takes with so many entries. */
static inline uint64_t bop__seek_table_size(uint64_t entries)
{
    return BOP__WARM_SKIPPABLE_HEADER + entries * BOP__SEEK_ENTRY_SIZE + BOP__SEEK_END_SIZE;
}

static inline uint32_t bop__warm_trailer_crc(const struct bop__warm_trailer *trailer)
{
    struct bop__warm_trailer copy = *trailer;

    copy.crc = 0;
    return bop_crc32c(0, &copy, sizeof(copy));
}

#endif
