/*
 * Opening what a directory holds: docs/design/aof.md, section Recovery.
 *
 * First everything is read and judged, and only when it is found good is anything
 * changed: heal() does that, and may be cut short at any point.
 *
 * Nothing here trusts a length or a number before the checksum over it, and
 * memory does not depend on what the files claim: payloads are checked in pieces.
 */
#include "internal.h"

#include <inttypes.h>
#include <stdlib.h>

/* What is read at once. */
#define SCAN_BYTES (256u * 1024)
/* The zeros that the newest segment gets behind its last record. */
#define TAIL_ZEROS UINT64_C(0x10000)

struct found {
    uint64_t base;
    uint64_t generation;
    struct bop__aof_segment_header header;
};

struct recovery {
    struct bop_aof *aof;
    struct bop_error *err;
    struct found *found; /* By generation; the void ones at the end, after `count`. */
    size_t count;
    size_t total;
    size_t capacity;

    /* The file being read. */
    int fd;
    char path[BOP__AOF_PATH_MAX];
    uint64_t file_size;
    uint8_t *buffer; /* SCAN_BYTES. */
    uint64_t buffer_offset;
    size_t buffer_size;

    /* The end of the newest segment. */
    uint64_t vouched;  /* Records up to here were durable. */
    uint64_t log_end;  /* Where the last record ends. */
    uint64_t torn_end; /* Where the zeros begin, if something is before them; else 0. */
};

/* ---- Reading a file ---- */

static void close_segment(struct recovery *r)
{
    if (r->fd >= 0) {
        /* Only read, or synced. */
        BOP_IGNORE(r->aof->fs->close(r->aof->fs, r->fd));
        r->fd = -1;
    }
    r->buffer_size = 0;
}

static int open_segment(struct recovery *r, uint64_t base, uint64_t generation, int flags)
{
    struct bop_fs *fs = r->aof->fs;
    int rc;

    close_segment(r);
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

/* Point at size bytes (at most SCAN_BYTES) at offset, all within the file. */
static int fetch(struct recovery *r, uint64_t offset, size_t size, const uint8_t **out_bytes)
{
    uint64_t have_end = r->buffer_offset + r->buffer_size;

    BOP_ASSERT(size <= SCAN_BYTES && offset + size <= r->file_size);
    if (r->buffer_size == 0 || offset < r->buffer_offset || offset + size > have_end) {
        size_t wanted = (size_t)bop_min_u64(SCAN_BYTES, r->file_size - offset);
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

/* ---- What is there ---- */

static int add_found(void *user, const char *name)
{
    struct recovery *r = user;
    struct found found = {0};

    if (!bop__aof_segment_name_parse(name, &found.base, &found.generation)) {
        return 0;
    }
    if (r->total == r->capacity) {
        size_t capacity = r->capacity > 0 ? r->capacity * 2 : 16;
        struct found *grown = bop_realloc(r->aof->allocator, r->found, r->capacity * sizeof(*grown),
                                          capacity * sizeof(*grown));

        if (!grown) {
            return BOP_ENOMEM;
        }
        r->found = grown;
        r->capacity = capacity;
    }
    r->found[r->total++] = found;
    return 0;
}

static int by_generation(const void *a_void, const void *b_void)
{
    const struct found *a = a_void;
    const struct found *b = b_void;

    return a->generation < b->generation ? -1 : a->generation > b->generation;
}

static int read_header(struct recovery *r, struct found *found)
{
    const uint8_t *block;
    int rc = open_segment(r, found->base, found->generation, O_RDONLY);

    if (rc < 0) {
        return rc;
    }
    if (r->file_size < BOP__AOF_SEGMENT_HEADER) {
        return bop_error_set(r->err, BOP_ECORRUPT, "%s: no whole header", r->path);
    }
    rc = fetch(r, 0, BOP__AOF_SEGMENT_HEADER, &block);
    if (rc == 0) {
        rc = bop__aof_segment_header_decode(block, r->path, &found->header, r->err);
    }
    if (rc < 0) {
        return rc;
    }
    if (found->header.base != found->base || found->header.generation != found->generation) {
        return bop_error_set(r->err, BOP_ECORRUPT, "%s: header of another segment", r->path);
    }
    return 0;
}

static int list_segments(struct recovery *r)
{
    int rc = r->aof->fs->list(r->aof->fs, r->aof->path, add_found, r);

    if (rc < 0) {
        return bop_error_set(r->err, rc, "list %s", r->aof->path);
    }
    if (r->total == 0) {
        return 0;
    }
    qsort(r->found, r->total, sizeof(*r->found), by_generation);
    for (size_t i = 0; i < r->total; i++) {
        rc = read_header(r, &r->found[i]);
        if (rc < 0) {
            return rc;
        }
        if (i > 0 && r->found[i].generation == r->found[i - 1].generation) {
            return bop_error_set(r->err, BOP_ECORRUPT, "%s: its generation is there twice",
                                 r->path);
        }
    }
    return 0;
}

/* Part the segments of the log from the void ones, which go behind `count`. */
static int resolve(struct recovery *r)
{
    uint64_t front = r->found[r->total - 1].header.front;
    uint64_t limit = UINT64_MAX;
    size_t kept = r->total; /* found[kept..total) are kept. */

    for (size_t i = r->total; i-- > 0;) {
        struct found found = r->found[i];

        if (found.base >= limit || limit <= front) {
            continue;
        }
        limit = found.base;
        /* Swap: the void one moves down. */
        r->found[i] = r->found[--kept];
        r->found[kept] = found;
    }
    /* Turn round, so that the kept ones are at the front, oldest first. */
    r->count = r->total - kept;
    for (size_t i = 0; kept > 0 && i < r->count; i++) {
        struct found found = r->found[i];

        r->found[i] = r->found[kept + i];
        r->found[kept + i] = found;
    }
    if (limit != front) {
        return bop_error_set(r->err, BOP_ECORRUPT,
                             "%s: the log begins at record %" PRIu64 ", the segment with it is "
                             "missing",
                             r->aof->path, front);
    }
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

static int check_header(struct recovery *r, const struct position *at,
                        struct bop__aof_record_header *out_header, enum verdict *out_verdict)
{
    const uint8_t *bytes;
    int rc;

    *out_verdict = HEADER_BAD;
    if (r->file_size < at->offset || r->file_size - at->offset < BOP__AOF_RECORD_HEADER) {
        return 0;
    }
    rc = fetch(r, at->offset, BOP__AOF_RECORD_HEADER, &bytes);
    if (rc < 0) {
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

static int payload_crc(struct recovery *r, uint64_t offset, uint64_t size, uint32_t *out_crc)
{
    uint32_t crc = 0;

    while (size > 0) {
        size_t step = (size_t)bop_min_u64(size, SCAN_BYTES);
        const uint8_t *bytes;
        int rc = fetch(r, offset, step, &bytes);

        if (rc < 0) {
            return rc;
        }
        crc = bop_crc32c(crc, bytes, step);
        offset += step;
        size -= step;
    }
    *out_crc = crc;
    return 0;
}

static int check_body(struct recovery *r, const struct position *at,
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
    if (rc < 0 || crc != header->payload_crc) {
        return rc;
    }
    rc = fetch(r, at->offset + size - padding, padding, &bytes);
    if (rc < 0) {
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

static int check_record(struct recovery *r, const struct position *at,
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

static int corrupt(struct recovery *r, const struct position *at, const char *why,
                   enum verdict verdict)
{
    return bop_error_set(r->err, BOP_ECORRUPT,
                         "%s: record %" PRIu64 " at offset %" PRIu64 ": %s: %s", r->path, at->seq,
                         at->offset, verdict_text(verdict), why);
}

/* ---- Judging the end ---- */

/* True if [from, to) lies in the file, ends with a byte that is not zero, and has no sector
 * whose part in it is all zeros: then no crash has kept any of it from being written. */
static int fully_written(struct recovery *r, uint64_t from, uint64_t to, bool *out_fully)
{
    *out_fully = false;
    if (to > r->file_size) {
        return 0;
    }
    while (from < to) {
        uint64_t sector_end = (from / BOP__AOF_SECTOR + 1) * BOP__AOF_SECTOR;
        size_t size = (size_t)(bop_min_u64(sector_end, to) - from);
        const uint8_t *bytes;
        uint8_t any = 0;
        int rc = fetch(r, from, size, &bytes);

        if (rc < 0) {
            return rc;
        }
        for (size_t i = 0; i < size; i++) {
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

/* Look at the words from `at` on, in the buffer: find records that vouch for at->seq, and the
 * last word that is not zero. */
static bool look_at_words(struct recovery *r, const struct position *at, uint64_t offset,
                          const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i + sizeof(uint64_t) <= size; i += sizeof(uint64_t)) {
        uint64_t seq = bop_load_u64(bytes + i);
        struct bop__aof_record_header header;

        if (seq == 0) {
            continue;
        }
        r->torn_end = offset + i + sizeof(uint64_t);
        /* Records lie behind each other, so seq says how far away this may be. */
        if (seq <= at->seq || seq - at->seq > (offset + i - at->offset) / BOP__AOF_RECORD_HEADER ||
            i + sizeof(header) > size) {
            continue;
        }
        memcpy(&header, bytes + i, sizeof(header));
        if (header.durable_seq >= at->seq && header.durable_seq < header.seq &&
            bop__aof_header_valid(at->segment->salt, &header)) {
            return true;
        }
    }
    return false;
}

/* Set torn_end to where all bytes from there on are zeros, or 0; true if a record vouches. */
static int look_behind(struct recovery *r, const struct position *at, bool *out_vouched)
{
    uint64_t offset = at->offset;

    r->torn_end = 0;
    *out_vouched = false;
    while (offset < r->file_size) {
        uint64_t left = r->file_size - offset;
        size_t size = (size_t)bop_min_u64(left, SCAN_BYTES);
        const uint8_t *bytes;
        int rc = fetch(r, offset, size, &bytes);

        if (rc < 0) {
            return rc;
        }
        if (look_at_words(r, at, offset, bytes, size)) {
            *out_vouched = true;
            return 0;
        }
        if (size == left) {
            /* The odd bytes of a file whose size is no multiple of a word. */
            for (size_t i = size - size % sizeof(uint64_t); i < size; i++) {
                r->torn_end = bytes[i] != 0 ? offset + i + 1 : r->torn_end;
            }
            break;
        }
        /* Again from the last place where a whole header might begin. */
        offset += size - (BOP__AOF_RECORD_HEADER - sizeof(uint64_t));
    }
    return 0;
}

/* The newest segment has no good record at this place: its end, a torn tail, or corruption? */
static int judge(struct recovery *r, const struct position *at,
                 const struct bop__aof_record_header *header, enum verdict verdict)
{
    uint64_t extent = BOP__AOF_RECORD_HEADER;
    bool vouched, fully;
    int rc = look_behind(r, at, &vouched);

    if (rc < 0) {
        return rc;
    }
    if (vouched) {
        return corrupt(r, at, "a later record says that it was on disk", verdict);
    }
    if (verdict == HEADER_WRONG) {
        return corrupt(r, at, "it was never written there", verdict);
    }
    if (verdict == BODY_BAD) {
        extent = bop__aof_record_size(bop__aof_record_length(header));
    }
    rc = fully_written(r, at->offset, at->offset + extent, &fully);
    if (rc == 0 && fully) {
        return corrupt(r, at, "it was written as a whole", verdict);
    }
    return rc;
}

/* ---- Scanning ---- */

/* Read a segment's records up to limit, or, the newest, to its end. */
static int scan_segment(struct recovery *r, struct bop__segment *segment, uint64_t limit,
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
        bop__segment_index_add(r->aof->allocator, segment, at.seq, at.offset);
        r->vouched = bop_max_u64(r->vouched, header.durable_seq);
        at.offset += bop__aof_record_size(bop__aof_record_length(&header));
        at.seq++;
        at.chain = bop__aof_link(&header);
        r->aof->tail_link = at.chain;
    }
    segment->end = at.offset;
    segment->end_seq = at.seq;
    segment->file_end = at.offset;
    r->log_end = at.offset;
    if (rc == 0 && verdict != GOOD) {
        rc = newest ? judge(r, &at, &header, verdict)
                    : corrupt(r, &at, "a later segment says that it was on disk", verdict);
    }
    return rc;
}

static int scan_found(struct recovery *r, size_t i)
{
    const struct found *found = &r->found[i];
    struct bop_aof *aof = r->aof;
    bool newest = i + 1 == r->count;
    struct bop__segment *segment;
    int rc = open_segment(r, found->base, found->generation, newest ? O_RDWR : O_RDONLY);

    if (rc < 0) {
        return rc;
    }
    if (i > 0 && found->header.seed != aof->tail_link) {
        return bop_error_set(r->err, BOP_ECORRUPT, "%s: does not follow the segment before",
                             r->path);
    }
    segment = bop__segment_new(aof->allocator);
    if (!segment) {
        return bop_error_set(r->err, BOP_ENOMEM, "scan %s", r->path);
    }
    bop__segment_init(segment, found->base, found->generation, found->header.size,
                      found->header.front, found->header.seed);
    aof->segments[aof->segment_count++] = segment;
    /* A segment is begun when all before is durable. */
    r->vouched = bop_max_u64(r->vouched, found->base - 1);
    return scan_segment(r, segment, newest ? BOP__AOF_SEQ_MAX : r->found[i + 1].base, newest);
}

static int scan(struct recovery *r)
{
    struct bop_aof *aof = r->aof;
    int rc = bop__aof_segments_reserve(aof, r->count);

    if (rc < 0) {
        return bop_error_set(r->err, rc, "open the segments");
    }
    for (size_t i = 0; i < r->count; i++) {
        rc = scan_found(r, i);
        if (rc < 0) {
            return rc;
        }
    }
    aof->generation = r->found[r->count - 1].generation;
    aof->last = aof->segments[aof->segment_count - 1]->end_seq - 1;
    aof->durable = aof->last;
    return 0;
}

/* ---- Healing ---- */

/* Write the records that nobody vouches for again, as they are: after a failed sync the page
 * cache may show them, believe them clean, and never write them. */
static int rewrite_unvouched(struct recovery *r, const struct bop__segment *newest)
{
    struct bop_fs *fs = r->aof->fs;
    uint64_t offset = newest->end;

    if (r->vouched < r->aof->last) {
        /* The index may lead to an earlier one, which does no harm. */
        offset = bop__segment_index_find(newest, r->vouched + 1).offset;
    }
    while (offset < newest->end) {
        size_t size = (size_t)bop_min_u64(newest->end - offset, SCAN_BYTES);
        const uint8_t *bytes;
        int rc = fetch(r, offset, size, &bytes);

        if (rc < 0) {
            return rc;
        }
        rc = bop_fs_write_all(fs, r->fd, bytes, size, offset);
        if (rc < 0) {
            return bop_error_set(r->err, rc, "write %s", r->path);
        }
        offset += size;
    }
    return 0;
}

static int remove_file(struct recovery *r, const char *path)
{
    int rc = r->aof->fs->unlink(r->aof->fs, path);

    /* Not synced: if it comes back after a crash, it is removed again. */
    return rc < 0 && rc != -ENOENT ? bop_error_set(r->err, rc, "remove %s", path) : 0;
}

/* A file that was being prepared. It goes before another one is: in a crash it may have kept
 * this name beside the one of a segment. */
static int remove_next(struct recovery *r)
{
    char path[BOP__AOF_PATH_MAX];

    if (!bop__aof_path(r->aof->path, BOP__AOF_NEXT_NAME, path)) {
        return bop_error_set(r->err, -ENAMETOOLONG, "%s", r->aof->path);
    }
    return remove_file(r, path);
}

static int remove_void(struct recovery *r)
{
    for (size_t i = r->count; i < r->total; i++) {
        char path[BOP__AOF_PATH_MAX];
        int rc;

        if (!bop__segment_path(r->aof->path, r->found[i].base, r->found[i].generation, path)) {
            return bop_error_set(r->err, -ENAMETOOLONG, "%s", r->aof->path);
        }
        rc = remove_file(r, path);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Cut the tail, and give the file a size that it did not have: after a failed sync its
 * size too may be in memory only and believed clean. */
static int cut_tail(struct recovery *r, const struct bop__segment *newest)
{
    struct bop_fs *fs = r->aof->fs;
    uint64_t end = newest->end + TAIL_ZEROS;
    int rc = 0;

    if (r->file_size > newest->end) {
        rc = fs->truncate(fs, r->fd, newest->end);
    }
    if (rc == 0) {
        rc = bop__aof_write_zeros(fs, r->fd, newest->end, end);
    }
    if (rc < 0) {
        return bop_error_set(r->err, rc, "cut the tail of %s", r->path);
    }
    r->file_size = end;
    return 0;
}

/* Make the newest segment, which is open, durable and its tail clean, and go on in it. */
static int continue_newest(struct recovery *r)
{
    struct bop_fs *fs = r->aof->fs;
    const struct bop__segment *newest = r->aof->segments[r->aof->segment_count - 1];
    int rc = rewrite_unvouched(r, newest);

    if (rc == 0) {
        rc = cut_tail(r, newest);
    }
    if (rc < 0) {
        return rc;
    }
    rc = fs->sync(fs, r->fd);
    if (rc < 0) {
        return bop_error_set(r->err, rc, "sync %s", r->path);
    }
    bop__writer_continue(&r->aof->writer, r->fd, newest->size, newest->end, r->file_size);
    r->fd = -1;
    return 0;
}

/* Begin the newest segment, which is empty, anew: it may be one whose name did not get to disk
 * when a sync of the directory failed, and syncing again may do nothing. */
static int replace_newest(struct recovery *r)
{
    struct bop_aof *aof = r->aof;
    struct bop__segment *newest = aof->segments[aof->segment_count - 1];
    char path[BOP__AOF_PATH_MAX];
    int rc;

    memcpy(path, r->path, sizeof(path));
    aof->generation++;
    bop__segment_init(newest, newest->base, aof->generation, aof->options.segment_bytes,
                      aof->segments[0]->base, newest->seed);
    rc = bop__writer_begin(&aof->writer, newest);
    if (rc < 0) {
        if (r->err) {
            *r->err = aof->writer.error;
        }
        return rc;
    }
    return remove_file(r, path);
}

/* Change what must be changed, in an order that may be broken off anywhere. */
static int heal(struct recovery *r)
{
    struct bop_aof *aof = r->aof;
    const struct bop__segment *newest = aof->segments[aof->segment_count - 1];
    int rc = aof->fs->sync_dir(aof->fs, aof->path);

    if (rc < 0) {
        return bop_error_set(r->err, rc, "sync directory %s", aof->path);
    }
    rc = remove_next(r);
    if (rc == 0) {
        rc = newest->end_seq > newest->base ? continue_newest(r) : replace_newest(r);
    }
    return rc == 0 ? remove_void(r) : rc;
}

static void report(const struct recovery *r, struct bop_aof_recovery *out)
{
    const struct bop_aof *aof = r->aof;

    out->segments = (unsigned)aof->segment_count;
    if (r->torn_end > 0) {
        out->torn_bytes = r->torn_end - r->log_end;
        out->torn_from_seq = aof->last + 1;
        bop_log(aof->options.log, BOP_LOG_WARN, "aof",
                "torn tail cut file=%s from_seq=%" PRIu64 " bytes=%" PRIu64, r->path,
                out->torn_from_seq, out->torn_bytes);
    }
}

static int recover_all(struct recovery *r, struct bop_aof_recovery *out)
{
    int rc = list_segments(r);

    if (rc < 0) {
        return rc;
    }
    if (r->total == 0) {
        return remove_next(r);
    }
    rc = resolve(r);
    if (rc == 0) {
        rc = scan(r);
    }
    if (rc == 0) {
        rc = heal(r);
    }
    if (rc == 0) {
        report(r, out);
    }
    return rc;
}

int bop__aof_recover(struct bop_aof *aof, struct bop_aof_recovery *out_recovery,
                     struct bop_error *err)
{
    struct recovery r = {.aof = aof, .err = err, .fd = -1};
    int rc;

    r.buffer = bop_alloc(aof->allocator, SCAN_BYTES);
    if (!r.buffer) {
        return bop_error_set(err, BOP_ENOMEM, "scan the log");
    }
    rc = recover_all(&r, out_recovery);
    close_segment(&r);
    bop_free(aof->allocator, r.found, r.capacity * sizeof(*r.found));
    bop_free(aof->allocator, r.buffer, SCAN_BYTES);
    return rc;
}
