/*
 * Reading a segment at open, and judging the place where its good records end: the end
 * of the log, a torn tail or corruption. docs/design/aof.md has the rules, and why no
 * crash is judged corrupt.
 *
 * Nothing here trusts a length or a number before the checksum over it, and
 * memory does not depend on what the file claims: payloads are checked in pieces.
 */
#include "recovery.h"

#include <inttypes.h>

/* ---- Reading a file ---- */

void bop__recovery_close(struct bop__recovery *r)
{
    if (r->fd >= 0) {
        /* Only read, or synced. */
        BOP_IGNORE(r->aof->fs->close(r->aof->fs, r->fd));
        r->fd = -1;
    }
    r->buffer_size = 0;
}

int bop__recovery_open(struct bop__recovery *r, uint64_t base, uint64_t generation, int flags)
{
    struct bop_fs *fs = r->aof->fs;
    int rc;

    bop__recovery_close(r);
    if (!bop__segment_path(r->aof->path, base, generation, r->path)) {
        return bop_error_set(r->err, -ENAMETOOLONG, "%s", r->aof->path);
    }
    rc = fs->open(fs, r->path, flags);
    if (rc < 0) {
        return bop_error_set(r->err, rc, "open %s", r->path);
    }
    r->fd = rc;
    rc = fs->size(fs, r->fd, &r->file_size);
    if (rc < 0) {
        return bop_error_set(r->err, rc, "size of %s", r->path);
    }
    return 0;
}

int bop__recovery_fetch(struct bop__recovery *r, uint64_t offset, size_t size,
                        const uint8_t **out_bytes)
{
    uint64_t have_end = r->buffer_offset + r->buffer_size;

    BOP_ASSERT(size <= BOP__RECOVERY_BYTES && offset + size <= r->file_size);
    if (r->buffer_size == 0 || offset < r->buffer_offset || offset + size > have_end) {
        size_t wanted = (size_t)bop_min_u64(BOP__RECOVERY_BYTES, r->file_size - offset);
        int rc;

        r->buffer_size = 0;
        rc = bop_fs_read_exact(r->aof->fs, r->fd, r->buffer, wanted, offset);
        if (rc < 0) {
            return bop_error_set(r->err, rc, "read %s at %" PRIu64, r->path, offset);
        }
        r->buffer_offset = offset;
        r->buffer_size = wanted;
    }
    *out_bytes = r->buffer + (offset - r->buffer_offset);
    return 0;
}

/* ---- Checking records ---- */

/* Where a scan stands. */
struct position {
    const struct bop__segment *segment;
    uint64_t offset;
    uint64_t seq;
    uint32_t chain;
};

enum verdict {
    GOOD,
    HEADER_BAD,   /* Its checksum does not match, or it is not all in the file. */
    HEADER_WRONG, /* It was written, but not here or not then. */
    BODY_BAD,     /* The header is right, the rest is not, or is not all in the file. */
};

static int check_header(struct bop__recovery *r, const struct position *at,
                        struct bop__aof_record_header *out_header, enum verdict *out_verdict)
{
    const uint8_t *bytes;
    int rc;

    *out_verdict = HEADER_BAD;
    if (r->file_size < at->offset || r->file_size - at->offset < BOP__AOF_RECORD_HEADER) {
        return 0;
    }
    rc = bop__recovery_fetch(r, at->offset, BOP__AOF_RECORD_HEADER, &bytes);
    if (rc != 0) {
        return rc;
    }
    memcpy(out_header, bytes, sizeof(*out_header));
    if (!bop__aof_header_valid(at->segment->salt, out_header)) {
        return 0;
    }
    if (out_header->seq != at->seq || out_header->chain != at->chain ||
        out_header->durable_seq >= at->seq ||
        bop__aof_record_size(bop__aof_record_length(out_header)) > at->segment->size - at->offset) {
        *out_verdict = HEADER_WRONG;
        return 0;
    }
    *out_verdict = GOOD;
    return 0;
}

static int payload_crc(struct bop__recovery *r, uint64_t offset, uint64_t size, uint32_t *out_crc)
{
    uint32_t crc = 0;

    while (size > 0) {
        size_t step = (size_t)bop_min_u64(size, BOP__RECOVERY_BYTES);
        const uint8_t *bytes;
        int rc = bop__recovery_fetch(r, offset, step, &bytes);

        if (rc != 0) {
            return rc;
        }
        crc = bop_crc32c(crc, bytes, step);
        offset += step;
        size -= step;
    }
    *out_crc = crc;
    return 0;
}

static int check_body(struct bop__recovery *r, const struct position *at,
                      const struct bop__aof_record_header *header, enum verdict *out_verdict)
{
    uint64_t length = bop__aof_record_length(header);
    uint64_t size = bop__aof_record_size(length);
    size_t padding = (size_t)(size - BOP__AOF_RECORD_HEADER - length);
    const uint8_t *bytes;
    uint32_t crc;
    int rc;

    *out_verdict = BODY_BAD;
    if (r->file_size - at->offset < size) {
        return 0;
    }
    rc = payload_crc(r, at->offset + BOP__AOF_RECORD_HEADER, length, &crc);
    if (rc != 0 || crc != header->payload_crc) {
        return rc;
    }
    rc = bop__recovery_fetch(r, at->offset + size - padding, padding, &bytes);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i + 1 < padding; i++) {
        if (bytes[i] != 0) {
            return 0;
        }
    }
    if (bytes[padding - 1] == BOP__AOF_END_MARK) {
        *out_verdict = GOOD;
    }
    return 0;
}

static int check_record(struct bop__recovery *r, const struct position *at,
                        struct bop__aof_record_header *out_header, enum verdict *out_verdict)
{
    int rc = check_header(r, at, out_header, out_verdict);

    if (rc == 0 && *out_verdict == GOOD) {
        rc = check_body(r, at, out_header, out_verdict);
    }
    return rc;
}

static const char *verdict_text(enum verdict verdict)
{
    switch (verdict) {
    case GOOD:
        return "good";
    case HEADER_BAD:
        return "header checksum";
    case HEADER_WRONG:
        return "another record is in its place";
    case BODY_BAD:
        return "payload checksum";
    }
    return "";
}

static int corrupt(struct bop__recovery *r, const struct position *at, const char *why,
                   enum verdict verdict)
{
    return bop_error_set(r->err, BOP_ECORRUPT,
                         "%s: record %" PRIu64 " at offset %" PRIu64 ": %s: %s", r->path, at->seq,
                         at->offset, verdict_text(verdict), why);
}

/* ---- Judging the end ---- */

/* True if [from, to) lies in the file, ends with a byte that is not zero, and has no sector
 * whose part in it is all zeros: then no crash has kept any of it from being written. In a header
 * the last byte must not be the only one, or a single bit flipped in zeros would pass for one. */
static int fully_written(struct bop__recovery *r, uint64_t from, uint64_t to, bool *out_fully)
{
    bool header = to - from == BOP__AOF_RECORD_HEADER;

    *out_fully = false;
    if (to > r->file_size) {
        return 0;
    }
    while (from < to) {
        uint64_t sector_end = (from / BOP__AOF_SECTOR + 1) * BOP__AOF_SECTOR;
        size_t size = (size_t)(bop_min_u64(sector_end, to) - from);
        size_t counted = header && from + size == to ? size - 1 : size;
        const uint8_t *bytes;
        uint8_t any = 0;
        int rc = bop__recovery_fetch(r, from, size, &bytes);

        if (rc < 0) {
            return rc;
        }
        for (size_t i = 0; i < counted; i++) {
            any |= bytes[i];
        }
        from += size;
        if (any == 0 || (from == to && bytes[size - 1] == 0)) {
            return 0;
        }
    }
    *out_fully = true;
    return 0;
}

/* Where records may vouch for the bad one, and what there is. */
struct behind {
    const struct position *at;
    uint64_t from; /* What lies before is part of a record: headers in it are its payload's. */
    bool vouched;
};

/* What is bad is a filler, since the record expected there lies right behind it, and it was on
 * disk: it was so when the record before it was. */
static bool behind_filler(const struct position *at, const struct bop__aof_record_header *header,
                          uint64_t offset)
{
    return at->segment->aligned && header->seq == at->seq && !bop__aof_is_filler(header) &&
           offset == at->offset + bop__aof_filler_size(at->offset) &&
           header->durable_seq + 1 >= at->seq;
}

/* Look at a word: is it the last one so far that is not zero, does a header begin there? */
static void look_at_word(struct bop__recovery *r, struct behind *behind, uint64_t offset,
                         const uint8_t *bytes, size_t size)
{
    const struct position *at = behind->at;
    uint64_t seq = bop_load_u64(bytes);
    struct bop__aof_record_header header;

    if (seq == 0) {
        return;
    }
    r->torn_end = offset + sizeof(seq);
    /* Records lie behind each other, so seq says how far away this is at least. */
    if (offset < behind->from || seq < at->seq || size < sizeof(header) ||
        seq - at->seq > (offset - at->offset) / BOP__AOF_RECORD_HEADER) {
        return;
    }
    memcpy(&header, bytes, sizeof(header));
    if (header.durable_seq >= header.seq || !bop__aof_header_valid(at->segment->salt, &header)) {
        return;
    }
    behind->vouched |= header.durable_seq >= at->seq || behind_filler(at, &header, offset);
    behind->from = offset + bop__aof_record_size(bop__aof_record_length(&header));
}

/* Set torn_end to where all bytes from there on are zeros, or 0, and see if a record vouches. */
static int look_behind(struct bop__recovery *r, struct behind *behind)
{
    uint64_t offset = behind->at->offset;

    r->torn_end = 0;
    while (offset < r->file_size && !behind->vouched) {
        uint64_t left = r->file_size - offset;
        size_t size = (size_t)bop_min_u64(left, BOP__RECOVERY_BYTES);
        size_t at = 0;
        const uint8_t *bytes;
        int rc = bop__recovery_fetch(r, offset, size, &bytes);

        if (rc != 0) {
            return rc;
        }
        for (; at + sizeof(uint64_t) <= size; at += sizeof(uint64_t)) {
            look_at_word(r, behind, offset + at, bytes + at, size - at);
        }
        if (size == left) {
            /* The odd bytes of a file whose size is no multiple of a word. */
            for (; at < size; at++) {
                r->torn_end = bytes[at] != 0 ? offset + at + 1 : r->torn_end;
            }
            break;
        }
        /* Again from the last place where a whole header might begin. */
        offset += size - (BOP__AOF_RECORD_HEADER - sizeof(uint64_t));
    }
    return 0;
}

/* The newest segment has no good record at this place: its end, a torn tail, or corruption? */
static int judge(struct bop__recovery *r, const struct position *at,
                 const struct bop__aof_record_header *header, enum verdict verdict)
{
    uint64_t extent = BOP__AOF_RECORD_HEADER;
    struct behind behind = {.at = at, .from = at->offset};
    bool fully;
    int rc;

    if (verdict == BODY_BAD) {
        extent = bop__aof_record_size(bop__aof_record_length(header));
        behind.from += extent;
    }
    rc = look_behind(r, &behind);
    if (rc < 0) {
        return rc;
    }
    if (behind.vouched) {
        return corrupt(r, at, "a later record says that it was on disk", verdict);
    }
    if (verdict == HEADER_WRONG) {
        return corrupt(r, at, "it was never written there", verdict);
    }
    rc = fully_written(r, at->offset, at->offset + extent, &fully);
    if (rc == 0 && fully) {
        return corrupt(r, at, "it was written as a whole", verdict);
    }
    return rc;
}

/* ---- Scanning ---- */

int bop__recovery_scan(struct bop__recovery *r, struct bop__segment *segment, uint64_t limit,
                       bool newest)
{
    struct position at = {
        .segment = segment,
        .offset = BOP__AOF_SEGMENT_HEADER,
        .seq = segment->base,
        .chain = segment->salt,
    };
    struct bop__aof_record_header header;
    enum verdict verdict = GOOD;
    int rc = 0;

    r->aof->tail_link = segment->seed;
    while (at.seq < limit) {
        rc = check_record(r, &at, &header, &verdict);
        if (rc < 0 || verdict != GOOD) {
            break;
        }
        r->vouched = bop_max_u64(r->vouched, header.durable_seq);
        at.chain = bop__aof_link(&header);
        if (!bop__aof_is_filler(&header)) {
            bop__segment_index_add(r->aof->allocator, segment, at.seq, at.offset);
            r->aof->tail_link = at.chain;
            at.seq++;
        }
        at.offset += bop__aof_record_size(bop__aof_record_length(&header));
        segment->records_end = bop__aof_is_filler(&header) ? segment->records_end : at.offset;
    }
    segment->end = at.offset;
    segment->sent_end = at.offset;
    segment->end_seq = at.seq;
    segment->chain = at.chain;
    segment->file_end = at.offset;
    r->log_end = at.offset;
    if (rc == 0 && verdict != GOOD) {
        rc = newest ? judge(r, &at, &header, verdict)
                    : corrupt(r, &at, "a later segment says that it was on disk", verdict);
    }
    return rc;
}
