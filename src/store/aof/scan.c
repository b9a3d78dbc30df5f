/*
 * Reading a segment at open, and judging the place where its good records end: the end
 * of the log, a torn tail or corruption. docs/design/aof.md has the rules, and why no
 * crash is judged corrupt.
 *
 * Nothing here trusts a length or a number before the checksum over it, and
 * memory does not depend on what the file claims: payloads are checked in pieces.
 */
#include "look.h"
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

static int check_header(struct bop__recovery *r, const struct position *at,
                        struct bop__aof_record_header *out_header,
                        enum bop__look_verdict *out_verdict)
{
    const uint8_t *bytes;
    int rc;

    *out_verdict = BOP__LOOK_HEADER_BAD;
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
        *out_verdict = BOP__LOOK_HEADER_WRONG;
        return 0;
    }
    *out_verdict = BOP__LOOK_GOOD;
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
                      const struct bop__aof_record_header *header,
                      enum bop__look_verdict *out_verdict)
{
    uint64_t length = bop__aof_record_length(header);
    uint64_t size = bop__aof_record_size(length);
    size_t padding = (size_t)(size - BOP__AOF_RECORD_HEADER - length);
    const uint8_t *bytes;
    uint32_t crc;
    int rc;

    *out_verdict = BOP__LOOK_BODY_BAD;
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
        *out_verdict = BOP__LOOK_GOOD;
    }
    return 0;
}

static int check_record(struct bop__recovery *r, const struct position *at,
                        struct bop__aof_record_header *out_header,
                        enum bop__look_verdict *out_verdict)
{
    int rc = check_header(r, at, out_header, out_verdict);

    if (rc == 0 && *out_verdict == BOP__LOOK_GOOD) {
        rc = check_body(r, at, out_header, out_verdict);
    }
    return rc;
}

static int corrupt(struct bop__recovery *r, const struct position *at, const char *why,
                   enum bop__look_verdict verdict)
{
    return bop_error_set(r->err, BOP_ECORRUPT,
                         "%s: record %" PRIu64 " at offset %" PRIu64 ": %s: %s", r->path, at->seq,
                         at->offset, bop__look_text(verdict), why);
}

/* ---- Judging the end ---- */

/* What a look at a place sees: the file, through the recovery's buffer. */
struct view {
    struct bop__segment_source source;
    struct bop__recovery *recovery;
};

static int view_at(struct bop__segment_source *self, uint64_t offset, size_t least,
                   struct bop_slice *out_bytes, struct bop_error *err)
{
    struct bop__recovery *r = BOP_CONTAINER_OF(self, struct view, source)->recovery;
    size_t size = (size_t)bop_min_u64(least, self->size - bop_min_u64(self->size, offset));
    const uint8_t *bytes = NULL;
    int rc = size > 0 ? bop__recovery_fetch(r, offset, size, &bytes) : 0;

    BOP_IGNORE(err); /* It is in r->err. */
    *out_bytes = bop_slice(bytes, size);
    return rc;
}

/* The newest segment has no good record at this place: its end, a torn tail, or corruption? */
static int judge(struct bop__recovery *r, const struct position *at,
                 const struct bop__aof_record_header *header, enum bop__look_verdict verdict)
{
    const struct bop__segment *segment = at->segment;
    struct view view = {.source = {.name = r->path, .size = r->file_size, .at = view_at},
                        .recovery = r};
    struct bop__look look = bop__look_begin(&view.source, segment->seed, segment->base,
                                            segment->generation, segment->size, segment->aligned);
    const char *why = NULL;
    bool vouched;
    int rc;

    look.offset = at->offset;
    look.seq = at->seq;
    look.chain = at->chain;
    rc = bop__look_judge(&look, header, verdict, &why, &r->torn_end, &vouched, r->err);
    return rc == 0 && why ? corrupt(r, at, why, verdict) : rc;
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
    enum bop__look_verdict verdict = BOP__LOOK_GOOD;
    int rc = 0;

    r->aof->tail_link = segment->seed;
    while (at.seq < limit) {
        rc = check_record(r, &at, &header, &verdict);
        if (rc < 0 || verdict != BOP__LOOK_GOOD) {
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
    if (rc == 0 && verdict != BOP__LOOK_GOOD) {
        rc = newest ? judge(r, &at, &header, verdict)
                    : corrupt(r, &at, "a later segment says that it was on disk", verdict);
    }
    return rc;
}
