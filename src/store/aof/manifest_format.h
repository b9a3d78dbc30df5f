/*
 * The manifest's bytes: docs/design/manifest.md.
 */
#ifndef BOP_STORE_AOF_MANIFEST_FORMAT_H
#define BOP_STORE_AOF_MANIFEST_FORMAT_H

#include <bop/crc32c.h>

#include "manifest.h"

#define BOP__MANIFEST_MAGIC       UINT64_C(0x31474f4c4d504f42) /* "BOPMLOG1" */
#define BOP__MANIFEST_VERSION     1u
#define BOP__MANIFEST_HEADER      64u
#define BOP__MANIFEST_RECORD      48u
#define BOP__MANIFEST_MARK        UINT32_C(0xa5b0b5a5)
#define BOP__MANIFEST_PAYLOAD_MAX (128u * 1024)
#define BOP__MANIFEST_STRING_MAX  4096u
#define BOP__MANIFEST_CHUNK_MAX   (UINT64_C(1) << 31) /* Bytes of a chunk that is read. */
#define BOP__MANIFEST_NAME_SIZE   26                  /* 20 digits, ".mlog", NUL. */
#define BOP__MANIFEST_SECTOR      512u

struct bop__manifest_chunk_header {
    uint64_t magic;
    uint32_t version;
    uint32_t crc;
    uint64_t index;
    uint64_t first;
    uint8_t log_id[BOP_AOF_ID_SIZE];
    uint32_t seed;
    uint32_t flags;
    uint64_t zero;
};

_Static_assert(sizeof(struct bop__manifest_chunk_header) == BOP__MANIFEST_HEADER, "a disk format");
_Static_assert(offsetof(struct bop__manifest_chunk_header, log_id) == 32, "a disk format");

struct bop__manifest_record_header {
    uint64_t number;
    uint64_t generation;
    uint64_t time_ms;
    uint16_t kind;
    uint16_t back;
    uint32_t length;
    uint32_t payload_crc;
    uint32_t chain;
    uint32_t header_crc;
    uint32_t mark;
};

_Static_assert(sizeof(struct bop__manifest_record_header) == BOP__MANIFEST_RECORD, "a disk format");
_Static_assert(offsetof(struct bop__manifest_record_header, header_crc) == 40, "a disk format");

/* Flags of a catalogue entry. */
enum bop__manifest_flag {
    BOP__ENTRY_PACKED = 1,
    BOP__ENTRY_PACKED_EVICTED = 2,
    BOP__ENTRY_RAW_EVICTED = 4,
    BOP__ENTRY_UPLOADING = 8,
    BOP__ENTRY_UPLOADED = 16,
    BOP__ENTRY_DELETE_QUEUED = 32,
    BOP__ENTRY_DELETED = 64,
    BOP__ENTRY_DROPPED = 128,
    BOP__ENTRY_PACKING = 256,
    BOP__ENTRY_HYDRATING = 512,
};

/** A record takes so many bytes with this payload. */
static inline uint64_t bop__manifest_record_size(uint64_t length)
{
    return (BOP__MANIFEST_RECORD + length + 7) & ~UINT64_C(7);
}

/** Where in a chunk a record goes: what the next one must carry. */
struct bop__manifest_place {
    uint32_t salt; /* The chunk header's crc. */
    uint32_t chain;
    uint64_t number;
    uint16_t back; /* Records before it in the same append. */
};

/** Append a chunk's header; out_place is that of its first record. 0 or BOP_ENOMEM. */
int bop__manifest_header_encode(uint64_t index, const uint8_t log_id[BOP_AOF_ID_SIZE],
                                uint64_t first, uint32_t seed, struct bop_buf *out,
                                struct bop__manifest_place *out_place);

/** Check a header; path is for the message. 0, BOP_ECORRUPT, BOP_EVERSION. */
int bop__manifest_header_decode(struct bop_slice chunk, const char *path,
                                struct bop__manifest_chunk_header *out_header,
                                struct bop__manifest_place *out_place, struct bop_error *err);

/** Append a record, and move the place on. entry is for CATALOGUE only. 0, BOP_ETOOBIG, BOP_ENOMEM.
 */
int bop__manifest_record_encode(const struct bop__manifest_record *record,
                                const struct bop__manifest_entry *entry,
                                struct bop__manifest_place *place, struct bop_buf *out);

/** A record as it lies in a chunk. Strings are copies in here, so that they end with NUL. */
struct bop__manifest_decoded {
    struct bop__manifest_record record;
    struct bop__manifest_entry entry; /* Of CATALOGUE; its strings too. */
    uint32_t entry_flags;
    uint64_t entries; /* Of SNAPSHOT_MARKER. */
    uint64_t size;    /* Bytes it takes. */
    bool known;
    char strings[3][BOP__MANIFEST_STRING_MAX + 1];
};

/**
 * The record at offset of a chunk, if a good one lies there; the place is moved on. 0;
 * BOP_ENOTFOUND if none does; BOP_EMALFORMED if it is whole but its payload makes no sense.
 */
int bop__manifest_record_decode(struct bop_slice chunk, uint64_t offset,
                                struct bop__manifest_place *place,
                                struct bop__manifest_decoded *out_decoded);

/** What lies at offset, where no good record is, is a torn tail or nothing at all. */
bool bop__manifest_tail_is_torn(struct bop_slice chunk, uint64_t offset,
                                const struct bop__manifest_place *place);

/** The file name of a chunk; false if the name is not one. */
void bop__manifest_name(uint64_t index, char out_name[BOP__MANIFEST_NAME_SIZE]);
bool bop__manifest_name_parse(const char *name, uint64_t *out_index);

#endif
