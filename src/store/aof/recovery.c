/*
 * Opening what a directory holds: docs/design/aof.md, section Recovery.
 *
 * First everything is read and judged, and only when it is found good is anything
 * changed: heal() does that, and may be cut short at any point.
 */
#include "recovery.h"

#include <inttypes.h>
#include <stdlib.h>

#include <bop/random.h>

/* The zeros that the newest segment gets behind its last record. */
#define TAIL_ZEROS UINT64_C(0x10000)

/* ---- What is there ---- */

static int add_found(void *user, const char *name)
{
    struct bop__recovery *r = user;
    struct bop__found found = {0};

    if (!bop__aof_segment_name_parse(name, &found.base, &found.generation)) {
        return 0;
    }
    if (r->total == r->capacity) {
        size_t capacity = r->capacity > 0 ? r->capacity * 2 : 16;
        struct bop__found *grown = bop_realloc(
            r->aof->allocator, r->found, r->capacity * sizeof(*grown), capacity * sizeof(*grown));

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
    const struct bop__found *a = a_void;
    const struct bop__found *b = b_void;

    return a->generation < b->generation ? -1 : a->generation > b->generation;
}

static int read_header(struct bop__recovery *r, struct bop__found *found)
{
    int rc = bop__recovery_open(r, found->base, found->generation, O_RDONLY);

    if (rc < 0) {
        return rc;
    }
    if (r->file_size < BOP__AOF_SEGMENT_HEADER) {
        return bop_error_set(r->err, BOP_ECORRUPT, "%s: no whole header", r->path);
    }
    /* No more than that: there may be thousands of files. */
    rc = bop_fs_read_exact(r->aof->fs, r->fd, r->buffer, BOP__AOF_SEGMENT_HEADER, 0);
    if (rc < 0) {
        return bop_error_set(r->err, rc, "read %s", r->path);
    }
    rc = bop__aof_segment_header_decode(r->buffer, r->path, &found->header, r->err);
    if (rc < 0) {
        return rc;
    }
    if (found->header.base != found->base || found->header.generation != found->generation) {
        return bop_error_set(r->err, BOP_ECORRUPT, "%s: header of another segment", r->path);
    }
    return 0;
}

static int list_segments(struct bop__recovery *r)
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
static int resolve(struct bop__recovery *r)
{
    uint64_t front = r->found[r->total - 1].header.front;
    uint64_t limit = UINT64_MAX;
    size_t kept = r->total; /* found[kept..total) are kept. */

    for (size_t i = r->total; i-- > 0;) {
        struct bop__found found = r->found[i];

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
        struct bop__found found = r->found[i];

        r->found[i] = r->found[kept + i];
        r->found[kept + i] = found;
    }
    return 0;
}

/* Read the footer of the open file, if it has one. One that is bad is as good as none: the
 * records are checked instead. */
static int read_footer(struct bop__recovery *r, struct bop__found *found, uint64_t limit)
{
    struct bop__segment_facts *facts = &found->facts;
    uint64_t size = r->file_size;
    int rc;

    if (size < BOP__AOF_SEGMENT_HEADER + BOP__FOOTER_TRAILER) {
        return 0;
    }
    rc = bop_fs_read_exact(r->aof->fs, r->fd, r->buffer, BOP__FOOTER_TRAILER,
                           size - BOP__FOOTER_TRAILER);
    if (rc < 0) {
        return bop_error_set(r->err, rc, "read %s", r->path);
    }
    rc = bop__footer_decode_trailer(r->buffer, size, r->path, facts, r->err);
    if (rc == BOP_EVERSION || rc == BOP_ENOMEM) {
        return rc;
    }
    /* One that speaks of more records than are kept is from before a truncation. */
    found->sealed = rc == 0 && facts->base == found->base &&
                    facts->generation == found->generation && facts->seed == found->header.seed &&
                    facts->end_seq <= limit;
    if (r->err) {
        *r->err = (struct bop_error){0};
    }
    return 0;
}

/* Look for footers in all but the newest. With an archive, a sealed segment that ends before the
 * next one begins was let go of, like those between them, and has come back. */
static int read_footers(struct bop__recovery *r)
{
    size_t void_count = 0;

    for (size_t i = 0; i + 1 < r->count; i++) {
        struct bop__found *found = &r->found[i];
        int rc = bop__recovery_open(r, found->base, found->generation, O_RDONLY);

        if (rc == 0) {
            rc = read_footer(r, found, r->found[i + 1].base);
        }
        if (rc < 0) {
            return rc;
        }
        if (r->aof->options.tiers && found->sealed && found->facts.end_seq < r->found[i + 1].base) {
            void_count = i + 1;
        }
    }
    r->first = void_count;
    return 0;
}

/* What the newest header says of the log. One of version 1 says nothing: it gets its identity
 * with the next segment. */
static int take_identity(struct bop__recovery *r)
{
    const struct bop__aof_segment_header *header = &r->found[r->count - 1].header;
    struct bop_aof *aof = r->aof;
    int rc = 0;

    aof->generation = header->generation;
    if (aof->options.epoch != 0 && aof->options.epoch < header->epoch) {
        return bop_error_say(r->err, BOP_EFENCED, "%s: epoch %" PRIu64 " is fenced off by %" PRIu64,
                             aof->path, aof->options.epoch, header->epoch);
    }
    aof->epoch = bop_max_u64(header->epoch, aof->options.epoch);
    memcpy(aof->id, header->log_id, sizeof(aof->id));
    if (header->version == 1) {
        rc = bop_random_secret(aof->id, sizeof(aof->id));
    }
    return rc < 0 ? bop_error_set(r->err, rc, "make the identity of a log") : 0;
}

/* All segments of one log: a file of another one would be taken for damage, or not noticed. */
static int check_identity(struct bop__recovery *r, const struct bop__found *found)
{
    const struct bop__aof_segment_header *newest = &r->found[r->count - 1].header;

    if (found->header.version != 1 &&
        memcmp(found->header.log_id, newest->log_id, sizeof(newest->log_id)) != 0) {
        return bop_error_set(r->err, BOP_ECORRUPT, "%s: it is a segment of another log", r->path);
    }
    if (found->header.epoch > newest->epoch) {
        return bop_error_set(r->err, BOP_ECORRUPT, "%s: its epoch is above a later segment's",
                             r->path);
    }
    return 0;
}

/* A segment as its footer says, up to its end. */
static void trust(struct bop__recovery *r, struct bop__segment *segment,
                  const struct bop__segment_facts *facts)
{
    segment->end_seq = facts->end_seq;
    segment->end = segment->records_end = segment->sent_end = segment->file_end = facts->end;
    segment->chain = facts->link;
    segment->sealed = true;
    segment->file->sealed = true;
    segment->file->facts = *facts;
    r->aof->tail_link = facts->link;
}

static int scan_found(struct bop__recovery *r, size_t i)
{
    const struct bop__found *found = &r->found[i];
    struct bop_aof *aof = r->aof;
    bool newest = i + 1 == r->count;
    uint64_t limit = newest ? BOP__AOF_SEQ_MAX : r->found[i + 1].base;
    bool trusted = found->sealed && found->facts.end_seq == limit;
    struct bop__segment *segment;
    int rc;

    if (trusted) {
        BOP_ASSERT(bop__segment_path(aof->path, found->base, found->generation, r->path));
        rc = 0;
    } else {
        rc = bop__recovery_open(r, found->base, found->generation, newest ? O_RDWR : O_RDONLY);
    }
    if (rc < 0) {
        return rc;
    }
    if (i > r->first && found->header.seed != aof->tail_link) {
        return bop_error_set(r->err, BOP_ECORRUPT, "%s: does not follow the segment before",
                             r->path);
    }
    rc = check_identity(r, found);
    if (rc < 0) {
        return rc;
    }
    segment = bop__segment_new(aof);
    if (!segment) {
        return bop_error_set(r->err, BOP_ENOMEM, "scan %s", r->path);
    }
    bop__segment_init(aof, segment, &found->header);
    segment->state = BOP__SEGMENT_NAMED;
    aof->segments[aof->segment_count++] = segment;
    /* A segment is begun when all before is durable. */
    r->vouched = bop_max_u64(r->vouched, found->base - 1);
    if (trusted) {
        trust(r, segment, &found->facts);
        return 0;
    }
    return bop__recovery_scan(r, segment, limit, newest);
}

static int scan(struct bop__recovery *r)
{
    struct bop_aof *aof = r->aof;
    const struct bop__segment *newest;
    int rc = bop__aof_segments_reserve(aof, r->count);

    if (rc < 0) {
        return bop_error_set(r->err, rc, "open the segments");
    }
    for (size_t i = r->first; i < r->count; i++) {
        rc = scan_found(r, i);
        if (rc < 0) {
            return rc;
        }
    }
    newest = bop__aof_newest(aof);
    aof->last = newest->end_seq - 1;
    return 0;
}

/* What is missing at the front lies in the archive, or the log is damaged. */
static int check_front(struct bop__recovery *r)
{
    struct bop_aof *aof = r->aof;
    uint64_t base = r->found[r->first].base;

    aof->front = r->found[r->count - 1].header.front;
    aof->oldest = base;
    if (base < aof->front) {
        return bop_error_set(r->err, BOP_ECORRUPT, "%s: its segments contradict each other",
                             aof->path);
    }
    return bop__archived_check(aof, aof->front, base, r->err);
}

/* ---- Healing ---- */

/* Write the records that nobody vouches for again, as they are: after a failed sync the page
 * cache may show them, believe them clean, and never write them. */
static int rewrite_unvouched(struct bop__recovery *r, const struct bop__segment *newest)
{
    struct bop_fs *fs = r->aof->fs;
    uint64_t offset = newest->end;

    if (r->vouched < r->aof->last) {
        /* The index may lead to an earlier one, which does no harm. */
        offset = bop__segment_index_find(newest, r->vouched + 1).offset;
    }
    while (offset < newest->end) {
        size_t size = (size_t)bop_min_u64(newest->end - offset, BOP__RECOVERY_BYTES);
        const uint8_t *bytes;
        int rc = bop__recovery_fetch(r, offset, size, &bytes);

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

static int remove_file(struct bop__recovery *r, const char *path)
{
    int rc = r->aof->fs->unlink(r->aof->fs, path);

    /* Not synced: if it comes back after a crash, it is removed again. */
    return rc < 0 && rc != -ENOENT ? bop_error_set(r->err, rc, "remove %s", path) : 0;
}

/* A file that was being prepared. It goes before another one is: in a crash it may have kept
 * this name beside the one of a segment. */
static int remove_next(struct bop__recovery *r)
{
    /* The second is a sealed copy that did not get its segment's name. */
    static const char *const names[] = {BOP__AOF_NEXT_NAME, BOP__FOOTER_COPY_NAME};

    for (size_t i = 0; i < BOP_COUNT_OF(names); i++) {
        char path[BOP__AOF_PATH_MAX];
        int rc;

        if (!bop__aof_path(r->aof->path, names[i], path)) {
            return bop_error_set(r->err, -ENAMETOOLONG, "%s", r->aof->path);
        }
        rc = remove_file(r, path);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int remove_void(struct bop__recovery *r)
{
    for (size_t i = 0; i < r->total; i++) {
        char path[BOP__AOF_PATH_MAX];
        int rc;

        if (i >= r->first && i < r->count) {
            continue;
        }
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
static int cut_tail(struct bop__recovery *r, const struct bop__segment *newest)
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
static int continue_newest(struct bop__recovery *r)
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
    bop__recovery_close(r);
    return bop__continue_now(r->aof, bop__aof_newest(r->aof), r->file_size, r->err);
}

/* Copies a segment's records to another generation, record by record, each at its place. */
struct mover {
    struct bop__recovery *r;
    struct bop__segment *to;
    int fd;
};

static int move_bytes(struct mover *m, uint64_t offset, uint64_t size, struct bop_error *err)
{
    while (size > 0) {
        size_t step = (size_t)bop_min_u64(size, BOP__RECOVERY_BYTES);
        const uint8_t *bytes;
        int rc = bop__recovery_fetch(m->r, offset, step, &bytes);

        if (rc < 0) {
            return rc;
        }
        rc = bop_fs_write_all(m->r->aof->fs, m->fd, bytes, step, offset);
        if (rc < 0) {
            return bop_error_set(err, rc, "copy %s", m->r->path);
        }
        offset += step;
        size -= step;
    }
    return 0;
}

/* Move the record at offset: all is as it was but what says where it belongs. */
static int move_record(struct mover *m, uint64_t offset, uint64_t *out_size, struct bop_error *err)
{
    struct bop__aof_record_header header;
    const uint8_t *bytes;
    uint64_t size;
    int rc = bop__recovery_fetch(m->r, offset, BOP__AOF_RECORD_HEADER, &bytes);

    if (rc < 0) {
        return rc;
    }
    memcpy(&header, bytes, sizeof(header));
    header.chain = m->to->chain;
    header.header_crc = bop__aof_header_crc(m->to->salt, &header);
    m->to->chain = bop__aof_link(&header);
    if (!bop__aof_is_filler(&header)) {
        m->r->aof->tail_link = m->to->chain;
        bop__segment_index_add(m->r->aof->allocator, m->to, header.seq, offset);
    }
    size = bop__aof_record_size(bop__aof_record_length(&header));
    *out_size = size;
    rc = bop_fs_write_all(m->r->aof->fs, m->fd, &header, sizeof(header), offset);
    if (rc < 0) {
        return bop_error_set(err, rc, "copy %s", m->r->path);
    }
    return move_bytes(m, offset + sizeof(header), size - sizeof(header), err);
}

static int move_records(void *user, int fd, struct bop_error *err)
{
    struct mover *m = user;
    uint64_t offset = BOP__AOF_SEGMENT_HEADER;
    int rc = 0;

    m->fd = fd;
    while (rc == 0 && offset < m->to->end) {
        uint64_t size = 0;

        rc = move_record(m, offset, &size, err);
        offset += size;
    }
    return rc;
}

/* True if the newest segment may have a name that did not get to disk when a sync of the
 * directory failed, and that syncing again may not bring there. What was written after the
 * name was durable says so: an empty one cannot, and one that was written early can only by a
 * record that vouches for another of its own. */
static bool is_name_doubtful(const struct bop__recovery *r, const struct bop__segment *newest)
{
    return newest->end_seq == newest->base ||
           ((newest->header.flags & BOP__AOF_FLAG_EARLY) != 0 && r->vouched < newest->base);
}

/* Begin the newest segment anew, with its records if it has any. */
static int replace_newest(struct bop__recovery *r)
{
    struct bop_aof *aof = r->aof;
    struct bop__segment *old = bop__aof_newest(aof);
    struct bop__segment *segment = bop__segment_new(aof);
    struct bop__aof_segment_header header;
    struct mover mover = {.r = r, .to = segment};
    int rc;

    if (!segment) {
        return bop_error_set(r->err, BOP_ENOMEM, "begin a segment in %s", aof->path);
    }
    aof->tail_link = old->seed;
    header = bop__aof_next_header(aof, old->base, bop__aof_segment_size(aof, 0));
    if (old->end_seq > old->base) {
        header.size = old->size;
        header.flags = old->header.flags & BOP__AOF_FLAG_ALIGNED;
        header.epoch = old->header.epoch;
        header.origins[0] = old->generation;
        memcpy(&header.origins[1], old->header.origins,
               sizeof(header.origins) - sizeof(header.origins[0]));
    }
    bop__segment_init(aof, segment, &header);
    segment->end = segment->file_end = old->end;
    segment->records_end = old->records_end;
    segment->end_seq = old->end_seq;
    rc = bop__begin_now(aof, segment, move_records, &mover, r->err);
    if (rc < 0) {
        bop__segment_free(aof, segment);
        return rc;
    }
    aof->segments[aof->segment_count - 1] = segment;
    bop__segment_free(aof, old);
    return remove_file(r, r->path);
}

/* True if the newest segment, which has records, can take no more. */
static bool is_full_up(const struct bop_aof *aof, const struct bop__segment *newest)
{
    return newest->header.version != BOP__AOF_VERSION || newest->aligned != aof->aligned ||
           (newest->aligned && newest->end % BOP__AOF_BLOCK != 0) ||
           newest->header.epoch != aof->epoch;
}

/* Begin a segment behind the newest one, which is durable and has records. */
static int begin_behind(struct bop__recovery *r)
{
    struct bop_aof *aof = r->aof;
    struct bop__aof_segment_header header;
    struct bop__segment *segment;
    int rc = bop__aof_segments_reserve(aof, 1);

    segment = rc == 0 ? bop__segment_new(aof) : NULL;
    if (!segment) {
        return bop_error_set(r->err, BOP_ENOMEM, "begin a segment in %s", aof->path);
    }
    header = bop__aof_next_header(aof, aof->last + 1, bop__aof_segment_size(aof, 0));
    bop__segment_init(aof, segment, &header);
    aof->segments[aof->segment_count++] = segment;
    return bop__begin_now(aof, segment, NULL, NULL, r->err);
}

/* Change what must be changed, in an order that may be broken off anywhere. */
static int heal(struct bop__recovery *r)
{
    struct bop_aof *aof = r->aof;
    int rc = aof->fs->sync_dir(aof->fs, aof->path);

    if (rc < 0) {
        return bop_error_set(r->err, rc, "sync directory %s", aof->path);
    }
    rc = remove_next(r);
    if (rc == 0) {
        rc = is_name_doubtful(r, bop__aof_newest(aof)) ? replace_newest(r) : continue_newest(r);
    }
    if (rc == 0 && is_full_up(aof, bop__aof_newest(aof))) {
        rc = begin_behind(r);
    }
    return rc == 0 ? remove_void(r) : rc;
}

static void report(const struct bop__recovery *r, struct bop_aof_recovery *out)
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

static int recover_all(struct bop__recovery *r, struct bop_aof_recovery *out)
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
        rc = take_identity(r);
    }
    if (rc == 0 && r->aof->options.tiers) {
        rc = bop__archived_open(r->aof, r->err);
    }
    if (rc == 0) {
        rc = read_footers(r);
    }
    if (rc == 0) {
        rc = check_front(r);
    }
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
    struct bop__recovery r = {.aof = aof, .err = err, .fd = -1};
    int rc;

    r.buffer = bop_alloc(aof->allocator, BOP__RECOVERY_BYTES);
    if (!r.buffer) {
        return bop_error_set(err, BOP_ENOMEM, "scan the log");
    }
    rc = recover_all(&r, out_recovery);
    bop__recovery_close(&r);
    bop_free(aof->allocator, r.found, r.capacity * sizeof(*r.found));
    bop_free(aof->allocator, r.buffer, BOP__RECOVERY_BYTES);
    return rc;
}
