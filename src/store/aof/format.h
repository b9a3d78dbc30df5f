/*
 * The log's bytes on disk, format version 2, which differs from version 1 in the segment's header
 * and in that there are fillers: docs/design/aof.md says what each field is for and why it lies
 * where it does.
 *
 * Two things here are not a matter of taste. seq is the first field and never
 * zero, and the last byte of a header and of a record is a mark that is never
 * zero: so a header or record that was written in part is known by its zeros.
 */
#ifndef BOP_STORE_AOF_FORMAT_H
#define BOP_STORE_AOF_FORMAT_H

#include <stdio.h>

#include <bop/aof.h>
#include <bop/crc32c.h>

#define BOP__AOF_MAGIC          UINT64_C(0x4753464f41504f42) /* "BOPAOFSG" */
#define BOP__AOF_VERSION        2u
#define BOP__AOF_VERSION_OLDEST 1u
#define BOP__AOF_SEGMENT_HEADER 4096u

#define BOP__AOF_RECORD_HEADER 48u
#define BOP__AOF_RECORD_ALIGN  8u
#define BOP__AOF_SECTOR        512u
#define BOP__AOF_END_MARK      0xa5u
#define BOP__AOF_HEADER_MARK   (0x15u << 27)
#define BOP__AOF_FILLER_MARK   (0x13u << 27)
#define BOP__AOF_FILLER_BYTE   0xa5u
#define BOP__AOF_FILLER_MIN    56u /* What the smallest one takes. */
#define BOP__AOF_BLOCK         4096u
#define BOP__AOF_LENGTH_MASK   ((1u << 27) - 1)

/* A segment's flags. */
#define BOP__AOF_FLAG_ALIGNED 1u /* Commits begin at multiples of a block. */
#define BOP__AOF_FLAG_EARLY   2u /* Records were written before the file had its name. */
#define BOP__AOF_FLAGS_KNOWN  (BOP__AOF_FLAG_ALIGNED | BOP__AOF_FLAG_EARLY)

/* Segments whose unacknowledged tail a segment may say it took over. */
#define BOP__AOF_ORIGINS 4

/* The highest record number; the room above keeps sums of numbers from wrapping. */
#define BOP__AOF_SEQ_MAX (UINT64_MAX >> 1)

/* "<base>-<generation>.seg", 16 hex digits each. */
#define BOP__AOF_NAME_SIZE 38
#define BOP__AOF_NEXT_NAME "next.tmp"
#define BOP__AOF_LOCK_NAME "lock"

_Static_assert(BOP_AOF_RECORD_MAX <= BOP__AOF_LENGTH_MASK, "a length fits its bits");

/** The used part of a segment's header block; the rest is zeros. */
struct bop__aof_segment_header {
    uint64_t magic;
    uint32_t version;
    uint32_t crc; /* Of the whole block with this field zero. */
    uint64_t base;
    uint64_t generation;
    uint64_t size;
    uint64_t front; /* The log's first record when this segment was begun. */
    uint32_t seed;
    uint32_t flags;
    /* From here on zeros in version 1. */
    uint8_t log_id[BOP_AOF_ID_SIZE];
    uint64_t epoch;
    uint64_t origins[BOP__AOF_ORIGINS]; /* Generations whose tail was re-homed here, or 0. */
};

_Static_assert(sizeof(struct bop__aof_segment_header) == 112, "a disk format");
_Static_assert(offsetof(struct bop__aof_segment_header, version) == 8, "the same in all versions");
_Static_assert(offsetof(struct bop__aof_segment_header, crc) == 12, "the same in all versions");
_Static_assert(offsetof(struct bop__aof_segment_header, base) == 16, "a disk format");
_Static_assert(offsetof(struct bop__aof_segment_header, front) == 40, "a disk format");
_Static_assert(offsetof(struct bop__aof_segment_header, log_id) == 56, "a disk format");
_Static_assert(offsetof(struct bop__aof_segment_header, origins) == 80, "a disk format");

struct bop__aof_record_header {
    uint64_t seq;
    uint64_t tag;
    uint64_t time_us;
    uint64_t durable_seq;
    uint32_t payload_crc;
    uint32_t chain;
    uint32_t header_crc; /* Of the header with this field zero, begun with the segment's salt. */
    uint32_t length;     /* With the header mark in its upper bits. */
};

_Static_assert(sizeof(struct bop__aof_record_header) == BOP__AOF_RECORD_HEADER, "a disk format");
_Static_assert(offsetof(struct bop__aof_record_header, seq) == 0, "a header begins with no zero");
_Static_assert(offsetof(struct bop__aof_record_header, durable_seq) == 24, "a disk format");
_Static_assert(offsetof(struct bop__aof_record_header, header_crc) == 40, "a disk format");
_Static_assert(offsetof(struct bop__aof_record_header, length) == 44,
               "a header ends with its mark");

/** What a record with this payload takes in the file. */
static inline uint64_t bop__aof_record_size(uint64_t length)
{
    /* One byte at least after the payload, for the end mark. */
    return (BOP__AOF_RECORD_HEADER + length + BOP__AOF_RECORD_ALIGN) &
           ~(uint64_t)(BOP__AOF_RECORD_ALIGN - 1);
}

static inline uint32_t bop__aof_record_length(const struct bop__aof_record_header *header)
{
    return header->length & BOP__AOF_LENGTH_MASK;
}

/** Write the header with this header_crc. By words of eight bytes, which are read again at once: of
 * smaller ones the processor would have to wait until they are in its cache. */
static inline void bop__aof_header_store(uint8_t out_bytes[BOP__AOF_RECORD_HEADER],
                                         const struct bop__aof_record_header *header,
                                         uint32_t header_crc)
{
    bop_store_u64(out_bytes, header->seq);
    bop_store_u64(out_bytes + 8, header->tag);
    bop_store_u64(out_bytes + 16, header->time_us);
    bop_store_u64(out_bytes + 24, header->durable_seq);
    bop_store_u64(out_bytes + 32, header->payload_crc | (uint64_t)header->chain << 32);
    bop_store_u64(out_bytes + 40, header_crc | (uint64_t)header->length << 32);
}

static inline uint32_t bop__aof_header_crc(uint32_t salt,
                                           const struct bop__aof_record_header *header)
{
    uint8_t bytes[BOP__AOF_RECORD_HEADER];

    bop__aof_header_store(bytes, header, 0);
    return bop_crc32c(salt, bytes, sizeof(bytes));
}

/** True if what has this header only fills a block up: it has no number of its own. */
static inline bool bop__aof_is_filler(const struct bop__aof_record_header *header)
{
    return (header->length & ~BOP__AOF_LENGTH_MASK) == BOP__AOF_FILLER_MARK;
}

/** What the filler takes that follows a commit which ends at this offset; 0: none is needed. */
static inline uint64_t bop__aof_filler_size(uint64_t end)
{
    uint64_t gap = (BOP__AOF_BLOCK - end % BOP__AOF_BLOCK) % BOP__AOF_BLOCK;

    return gap > 0 && gap < BOP__AOF_FILLER_MIN ? gap + BOP__AOF_BLOCK : gap;
}

/** True if this is a header of the segment with this salt, a filler's too; its place is not looked
 * at. */
static inline bool bop__aof_header_valid(uint32_t salt, const struct bop__aof_record_header *header)
{
    uint32_t mark = header->length & ~BOP__AOF_LENGTH_MASK;

    return (mark == BOP__AOF_HEADER_MARK || mark == BOP__AOF_FILLER_MARK) &&
           bop__aof_record_length(header) <= BOP_AOF_RECORD_MAX &&
           header->header_crc == bop__aof_header_crc(salt, header);
}

/** What the next record's chain must be. */
static inline uint32_t bop__aof_link(const struct bop__aof_record_header *header)
{
    uint8_t bytes[12];

    bop_store_u64(bytes, header->header_crc | (uint64_t)header->payload_crc << 32);
    bop_store_u32(bytes + 8, header->chain);
    return bop_crc32c(0, bytes, sizeof(bytes));
}

/** What tells the records of one segment from all others; also its first record's chain. */
static inline uint32_t bop__aof_salt(uint32_t seed, uint64_t base, uint64_t generation)
{
    uint8_t bytes[20];

    bop_store_u32(bytes, seed);
    bop_store_u64(bytes + 4, base);
    bop_store_u64(bytes + 12, generation);
    return bop_crc32c(0, bytes, sizeof(bytes));
}

/** Write the filler of this size (bop__aof_filler_size) that precedes record next_seq; returns the
 * link of it. */
uint32_t bop__aof_filler_encode(uint8_t *out_bytes, size_t size, uint32_t salt, uint64_t next_seq,
                                uint64_t durable_seq, uint32_t chain);

/** The file name of a segment. */
void bop__aof_segment_name(uint64_t base, uint64_t generation, char out_name[BOP__AOF_NAME_SIZE]);

/** False if the name is not one of a segment. */
bool bop__aof_segment_name_parse(const char *name, uint64_t *out_base, uint64_t *out_generation);

/** Fill a header block, with magic, version and checksum. */
void bop__aof_segment_header_encode(const struct bop__aof_segment_header *header,
                                    uint8_t out_block[BOP__AOF_SEGMENT_HEADER]);

/** Check a header block; path is for the message. Returns 0, BOP_ECORRUPT or BOP_EVERSION. */
int bop__aof_segment_header_decode(const uint8_t block[BOP__AOF_SEGMENT_HEADER], const char *path,
                                   struct bop__aof_segment_header *out_header,
                                   struct bop_error *err);

#endif
