/*
 * A log's records in files, for `bop aof export` and `import`.
 *
 * As text, one JSON object a line:
 *
 *     {"seq":7,"tag":1,"time_us":1700000000000000,"payload":"text"}
 *
 * with "payload64" (RFC 4648, padded) where the bytes are not UTF-8, and numbers of 2^63 and more
 * as strings. In binary, little-endian: the 8 bytes "BOPAOFX1", then for each record
 *
 *     seq u64, tag u64, time_us u64, length u32, crc u32, payload
 *
 * with the CRC-32C of the 28 bytes before it and of the payload.
 */
#ifndef BOP_CLI_AOF_RECORD_H
#define BOP_CLI_AOF_RECORD_H

#include <bop/aof.h>

#include "source.h"

#define AOF_RECORD_HEAD 32u

extern const char aof_record_magic[8];

/** Append a record. 0 or BOP_ENOMEM. */
int aof_record_write(struct bop_buf *out, const struct bop_aof_view *view, bool raw);

/** Reads either form, told apart by the first bytes. */
struct aof_records {
    int fd;
    struct lines lines;
    struct bop_buf held; /* Raw bytes that were read. */
    size_t at;
    bool raw;
    bool begun;
    bool at_end;
    uint64_t number; /* Of the record, or line, read last. */
    struct bop_buf payload;
};

void aof_records_init(struct aof_records *records, int fd);
void aof_records_deinit(struct aof_records *records);

/** The next one; *out_seq is 0 if it has no number. Its payload stays until the next call. Returns
 * 1, 0 at the end, or a code with what is wrong in err. */
int aof_records_next(struct aof_records *records, struct bop_aof_record *out_record,
                     uint64_t *out_seq, struct bop_error *err);

#endif
