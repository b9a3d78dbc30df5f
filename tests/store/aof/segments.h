/*
 * Segment files made by hand, for tests of what reads them without a log.
 */
#ifndef BOP_TESTS_STORE_AOF_SEGMENTS_H
#define BOP_TESTS_STORE_AOF_SEGMENTS_H

#include <stdio.h>

#include <bop/aof.h>

#include "store/aof/footer.h"
#include "store/aof/format.h"
#include "tap.h"

struct maker {
    struct bop_buf file; /* What was made. */
    struct bop__segment_facts facts;
    uint32_t salt;
    uint32_t chain;
};

/* Time and tag of a record follow from its number. */
static inline uint64_t maker_time(uint64_t seq)
{
    return seq * 3;
}

static inline uint64_t maker_tag(uint64_t seq)
{
    return seq * 7;
}

/* So does each byte of its payload. */
static inline uint8_t maker_byte(uint64_t seq, size_t i)
{
    return (uint8_t)(seq * 31 + i * 7 + (i >> 8));
}

BOP_UNUSED static void maker_init(struct maker *m, uint64_t base, uint64_t generation,
                                  uint32_t seed)
{
    struct bop__aof_segment_header header = {.base = base,
                                             .generation = generation,
                                             .size = 64u << 20,
                                             .front = 1,
                                             .seed = seed,
                                             .epoch = 3};
    uint8_t block[BOP__AOF_SEGMENT_HEADER];

    memset(header.log_id, 0x1d, sizeof(header.log_id));
    *m = (struct maker){.salt = bop__aof_salt(seed, base, generation),
                        .facts = {.base = base,
                                  .end_seq = base,
                                  .generation = generation,
                                  .epoch = 3,
                                  .seed = seed,
                                  .end = BOP__AOF_SEGMENT_HEADER}};
    memcpy(m->facts.log_id, header.log_id, sizeof(header.log_id));
    m->chain = m->salt;
    bop_buf_init(&m->file, NULL, 0);
    bop__aof_segment_header_encode(&header, block);
    REQUIRE_EQ(bop_buf_append(&m->file, block, sizeof(block)), 0);
}

BOP_UNUSED static void maker_deinit(struct maker *m)
{
    bop_buf_deinit(&m->file);
}

/* Append a record with a payload of this length. */
BOP_UNUSED static void maker_record(struct maker *m, size_t length)
{
    size_t size = (size_t)bop__aof_record_size(length);
    struct bop__aof_record_header header = {
        .seq = m->facts.end_seq,
        .tag = maker_tag(m->facts.end_seq),
        .time_us = maker_time(m->facts.end_seq),
        .durable_seq = m->facts.base - 1,
        .chain = m->chain,
        .length = BOP__AOF_HEADER_MARK | (uint32_t)length,
    };
    uint8_t *at;

    REQUIRE_EQ(bop_buf_reserve(&m->file, size), 0);
    at = m->file.data + m->file.size;
    memset(at, 0, size);
    for (size_t i = 0; i < length; i++) {
        at[BOP__AOF_RECORD_HEADER + i] = maker_byte(header.seq, i);
    }
    at[size - 1] = BOP__AOF_END_MARK;
    header.payload_crc = bop_crc32c(0, at + BOP__AOF_RECORD_HEADER, length);
    header.header_crc = bop__aof_header_crc(m->salt, &header);
    memcpy(at, &header, sizeof(header));
    m->file.size += size;
    m->chain = bop__aof_link(&header);
    m->facts.link = m->chain;
    m->facts.end = m->file.size;
    m->facts.end_seq++;
}

/* Fill the last block up, as an aligned log does. */
BOP_UNUSED static void maker_filler(struct maker *m)
{
    size_t size = (size_t)bop__aof_filler_size(m->file.size);

    if (size > 0) {
        REQUIRE_EQ(bop_buf_reserve(&m->file, size), 0);
        m->chain = bop__aof_filler_encode(m->file.data + m->file.size, size, m->salt,
                                          m->facts.end_seq, m->facts.base - 1, m->chain);
        m->file.size += size;
    }
}

/* Write what was made, and `zeros` zeros behind it, into a file. */
BOP_UNUSED static void maker_write(const struct maker *m, struct bop_fs *fs, const char *path,
                                   size_t zeros)
{
    int fd = fs->open(fs, path, O_RDWR | O_CREAT | O_TRUNC);

    REQUIRE(fd >= 0);
    REQUIRE_EQ(bop_fs_write_all(fs, fd, m->file.data, m->file.size, 0), 0);
    REQUIRE_EQ(fs->truncate(fs, fd, m->file.size + zeros), 0);
    REQUIRE_EQ(fs->sync(fs, fd), 0);
    REQUIRE_EQ(fs->close(fs, fd), 0);
}

/* The payload of a record is that of its number. */
BOP_UNUSED static void check_payload(uint64_t seq, struct bop_slice payload)
{
    size_t wrong = 0;

    for (size_t i = 0; i < payload.size; i++) {
        wrong += payload.data[i] != maker_byte(seq, i);
    }
    CHECK_EQ(wrong, 0);
}

#endif
