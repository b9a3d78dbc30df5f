/*
 * Snapshot files as bytes, docs/design/snapshot.md. All numbers are little-endian.
 *
 *      preamble   magic 8 bytes, version u32, crc32c u32 of these 12
 *      block      kind u32, size u32, crc32c u32, `size` bytes of payload
 *      ...
 *
 * A block's checksum covers kind, size and payload and goes on from that of the
 * block before it (the first one's from the preamble's). So no block can be
 * missing, doubled or out of place, and the last one's vouches for the whole.
 *
 *      HEADER     state format u32, zeros u32, position 40 bytes, configuration b
 *      RECORDS    times: table u8, key size u16, value size u32, key, value
 *      END        records of each of the 18 tables u64, digest of content u64
 *
 * The version is the format of the state that the file holds, which says how many tables
 * there are; else older ones are the same.
 *
 * One HEADER, any number of RECORDS, one END, nothing else. Tables come in the
 * order of their numbers, keys in each strictly ascending.
 */
#ifndef BOP_CLUSTER_SNAPSHOT_FORMAT_H
#define BOP_CLUSTER_SNAPSHOT_FORMAT_H

#include "machine_internal.h"
#include "snapshot.h"

#define SNAPSHOT_MAGIC            "BOPSNAP\n"
#define SNAPSHOT_MAGIC_SIZE       8
#define SNAPSHOT_VERSION          3 /* That of the state's format. */
#define SNAPSHOT_VERSION_MIN      1
#define SNAPSHOT_PREAMBLE         16
#define SNAPSHOT_BLOCK_HEAD       12
#define SNAPSHOT_RECORD_HEAD      7
#define SNAPSHOT_HEADER_MIN       (8 + MACHINE_POSITION_SIZE + 4)
#define SNAPSHOT_END_SIZE(tables) (8 * (tables) + 8)
#define SNAPSHOT_BLOCK_BYTES      (256 * 1024)       /* A RECORDS block ends once it has these. */
#define SNAPSHOT_BLOCK_MAX        (16 * 1024 * 1024) /* Of a payload; that and the largest record fit. */
#define SNAPSHOT_CHUNK_BYTES      (256 * 1024)       /* Of a file that are written at once. */
#define SNAPSHOT_SYNC_BYTES       (16 * 1024 * 1024) /* In the page cache and not synced. */
#define SNAPSHOT_PATH_MAX         4096

enum snapshot_block {
    SNAPSHOT_HEADER = 1,
    SNAPSHOT_RECORDS = 2,
    SNAPSHOT_END = 3,
};

_Static_assert(SNAPSHOT_BLOCK_BYTES + SNAPSHOT_RECORD_HEAD + BOP_KV_KEY_MAX + 12 +
                       MACHINE_ENTRY_KEY_MAX + BOP_VALUE_MAX <=
                   SNAPSHOT_BLOCK_MAX,
               "a block may end with the largest record");

/** What both ends count of the records that went by. */
struct snapshot_tally {
    uint64_t records[MACHINE_TABLES];
    uint64_t digest;
};

static inline void snapshot_tally_add(struct snapshot_tally *tally, enum machine_table table,
                                      struct bop_slice key, struct bop_slice value)
{
    tally->records[table]++;
    tally->digest = bop__machine_record_digest(tally->digest, table, key, value);
}

/** A file being read. Open, then next until it returns 0, then close. */
struct snapshot_reader {
    struct bop_fs *fs;
    int fd;
    uint64_t size;
    uint64_t offset;
    uint64_t block_at; /* Where the block read last begins. */
    uint32_t crc;
    struct bop_buf block; /* The payload of the block read last. */
    struct snapshot_info info;
    struct snapshot_tally tally;
    /* The last record. */
    int table; /* -1: there was none. */
    size_t key_size;
    uint8_t key[BOP_KV_KEY_MAX];
    /* What META and the tables with ids say, for it must fit together. */
    uint32_t format; /* Of the state, which the version of the file says. */
    unsigned tables; /* That this format has. */
    bool format_seen;
    struct machine_position position;
    uint32_t map_next;
    uint32_t map_id_max;
};

/** Open a file and read its header. Close the reader whatever it returns. */
BOP_MUST_USE int bop__snapshot_reader_open(struct snapshot_reader *reader,
                                           struct bop_allocator *allocator, struct bop_fs *fs,
                                           const char *path);
/** Go back to where open left it. */
BOP_MUST_USE int bop__snapshot_reader_rewind(struct snapshot_reader *reader);
/**
 * The next block of records, checked: 1 and *out_records, borrowed until the next call; 0 at
 * the end of a whole file; or a code.
 */
BOP_MUST_USE int bop__snapshot_reader_next(struct snapshot_reader *reader,
                                           struct bop_slice *out_records);
void bop__snapshot_reader_close(struct snapshot_reader *reader);

/** Take a record off the front. False if none is whole; at the end of a checked block none is left.
 */
bool bop__snapshot_record_next(struct bop_slice *records, enum machine_table *out_table,
                               struct bop_slice *out_key, struct bop_slice *out_value);

#endif
