/*
 * Reading records back, from batches that wait and from files.
 *
 * A cursor remembers where a reader stopped, with a window of file bytes there,
 * so that reading on costs neither a search nor, mostly, a system call. There are a few,
 * since a log has a few readers that go their own ways; the one unused for longest
 * is taken for a new position. Nothing a cursor holds gets stale: a file only
 * grows, and a segment that leaves the log takes its cursors along.
 *
 * Whatever is served was checked: header checksum, number, payload checksum, padding,
 * and the chain wherever the record before was seen.
 */
#include "internal.h"

#include <inttypes.h>

/* ---- Cursors ---- */

void bop__cursors_init(struct bop_aof *aof)
{
    for (size_t i = 0; i < BOP__AOF_CURSORS; i++) {
        aof->cursors[i].fd = -1;
    }
}

static void release(struct bop_aof *aof, struct bop__cursor *cursor)
{
    if (cursor->fd >= 0) {
        /* Only read from. */
        BOP_IGNORE(aof->fs->close(aof->fs, cursor->fd));
        cursor->fd = -1;
    }
    cursor->segment = NULL;
    cursor->window_size = 0;
}

void bop__cursors_deinit(struct bop_aof *aof)
{
    for (size_t i = 0; i < BOP__AOF_CURSORS; i++) {
        struct bop__cursor *cursor = &aof->cursors[i];

        release(aof, cursor);
        if (cursor->window) {
            bop_free(aof->allocator, cursor->window, BOP__AOF_WINDOW_BYTES);
        }
    }
}

void bop__cursors_forget(struct bop_aof *aof, const struct bop__segment *segment)
{
    for (size_t i = 0; i < BOP__AOF_CURSORS; i++) {
        if (aof->cursors[i].segment == segment) {
            release(aof, &aof->cursors[i]);
        }
    }
}

static void set_position(struct bop__cursor *cursor, struct bop__index_entry entry)
{
    const struct bop__segment *segment = cursor->segment;

    cursor->next_seq = entry.seq;
    cursor->next_offset = entry.offset;
    cursor->chain_known = entry.seq == segment->base;
    cursor->chain = segment->salt;
}

/* A cursor that stands at seq, or at an indexed record before it. */
static struct bop__cursor *cursor_at(struct bop_aof *aof, uint64_t seq)
{
    struct bop__segment *segment = bop__aof_segment_of(aof, seq);
    struct bop__cursor *oldest = &aof->cursors[0];

    aof->cursor_clock++;
    for (size_t i = 0; i < BOP__AOF_CURSORS; i++) {
        struct bop__cursor *cursor = &aof->cursors[i];

        if (cursor->segment == segment && cursor->next_seq == seq) {
            cursor->last_used = aof->cursor_clock;
            return cursor;
        }
        if (cursor->last_used < oldest->last_used) {
            oldest = cursor;
        }
    }
    if (oldest->segment != segment) {
        release(aof, oldest);
        oldest->segment = segment;
    }
    oldest->last_used = aof->cursor_clock;
    set_position(oldest, bop__segment_index_find(segment, seq));
    return oldest;
}

/* ---- Bytes ---- */

static int corrupt(const struct bop_aof *aof, const struct bop__cursor *cursor, const char *what,
                   struct bop_error *err)
{
    char path[BOP__AOF_PATH_MAX];

    if (!bop__segment_path(aof->path, cursor->segment->base, cursor->segment->generation, path)) {
        path[0] = '\0';
    }
    return bop_error_set(err, BOP_ECORRUPT, "%s: record %" PRIu64 " at offset %" PRIu64 ": %s",
                         path, cursor->next_seq, cursor->next_offset, what);
}

static int need_file(struct bop_aof *aof, struct bop__cursor *cursor, struct bop_error *err)
{
    char path[BOP__AOF_PATH_MAX];
    int rc;

    if (cursor->fd >= 0) {
        return 0;
    }
    if (!bop__segment_path(aof->path, cursor->segment->base, cursor->segment->generation, path)) {
        return bop_error_set(err, -ENAMETOOLONG, "%s", aof->path);
    }
    if (!cursor->window) {
        cursor->window = bop_alloc(aof->allocator, BOP__AOF_WINDOW_BYTES);
        if (!cursor->window) {
            return bop_error_set(err, BOP_ENOMEM, "read %s", path);
        }
    }
    rc = aof->fs->open(aof->fs, path, O_RDONLY);
    if (rc < 0) {
        return bop_error_set(err, rc, "open %s", path);
    }
    cursor->fd = rc;
    return 0;
}

static int read_file(struct bop_aof *aof, struct bop__cursor *cursor, void *out_bytes, size_t size,
                     uint64_t offset, struct bop_error *err)
{
    int rc = need_file(aof, cursor, err);

    if (rc < 0) {
        return rc;
    }
    rc = bop_fs_read_exact(aof->fs, cursor->fd, out_bytes, size, offset);
    if (rc == BOP_ETRUNCATED) {
        return corrupt(aof, cursor, "the file ends before it", err);
    }
    if (rc < 0) {
        return bop_error_set(err, rc, "read the log in %s", aof->path);
    }
    return 0;
}

/* Point at size bytes of the segment, at most a window, in a batch or in the window. */
static int fetch(struct bop_aof *aof, struct bop__cursor *cursor, uint64_t offset, size_t size,
                 const uint8_t **out_bytes, struct bop_error *err)
{
    const struct bop__segment *segment = cursor->segment;
    size_t there;
    int rc;

    if (offset >= segment->file_end) {
        *out_bytes = bop__batch_find(aof, segment, offset, &there);
        /* Whole records lie in one op. */
        BOP_ASSERT(*out_bytes && there >= size);
        return 0;
    }
    if (cursor->window_size == 0 || offset < cursor->window_offset ||
        offset + size > cursor->window_offset + cursor->window_size) {
        size_t wanted = (size_t)bop_min_u64(BOP__AOF_WINDOW_BYTES, segment->file_end - offset);

        if (wanted < size) {
            corrupt(aof, cursor, "reaches beyond the end of the log", err);
            return BOP_ECORRUPT;
        }
        cursor->window_size = 0;
        rc = need_file(aof, cursor, err);
        if (rc == 0) {
            rc = read_file(aof, cursor, cursor->window, wanted, offset, err);
        }
        if (rc < 0) {
            return rc;
        }
        cursor->window_offset = offset;
        cursor->window_size = wanted;
    }
    BOP_ASSERT(cursor->window); /* Made before anything was read into it. */
    *out_bytes = cursor->window + (offset - cursor->window_offset);
    return 0;
}

/* ---- Records ---- */

/* Read and check the header at the cursor, which may be a filler's. */
static int read_any_header(struct bop_aof *aof, struct bop__cursor *cursor,
                           struct bop__aof_record_header *out_header, struct bop_error *err)
{
    const struct bop__segment *segment = cursor->segment;
    struct bop__aof_record_header header = {0};
    const uint8_t *bytes = NULL;
    uint64_t size;
    int rc = fetch(aof, cursor, cursor->next_offset, sizeof(header), &bytes, err);

    if (rc != 0) {
        return rc;
    }
    memcpy(&header, bytes, sizeof(header));
    if (!bop__aof_header_valid(segment->salt, &header)) {
        return corrupt(aof, cursor, "header checksum", err);
    }
    if (header.seq != cursor->next_seq) {
        return corrupt(aof, cursor, "another record is in its place", err);
    }
    if (cursor->chain_known && header.chain != cursor->chain) {
        return corrupt(aof, cursor, "does not follow the record before", err);
    }
    size = bop__aof_record_size(bop__aof_record_length(&header));
    if (size > segment->end - cursor->next_offset) {
        return corrupt(aof, cursor, "length", err);
    }
    *out_header = header;
    return 0;
}

static void step_over(struct bop__cursor *cursor, const struct bop__aof_record_header *header)
{
    cursor->next_seq += bop__aof_is_filler(header) ? 0 : 1;
    cursor->next_offset += bop__aof_record_size(bop__aof_record_length(header));
    cursor->chain = bop__aof_link(header);
    cursor->chain_known = true;
}

/* Read and check the header of the record at the cursor. A filler before it, which holds nothing,
 * is stepped over. */
static int read_header(struct bop_aof *aof, struct bop__cursor *cursor,
                       struct bop__aof_record_header *out_header, struct bop_error *err)
{
    int rc = read_any_header(aof, cursor, out_header, err);

    while (rc == 0 && bop__aof_is_filler(out_header)) {
        step_over(cursor, out_header);
        rc = read_any_header(aof, cursor, out_header, err);
    }
    return rc;
}

/* Go on to seq, from header to header. */
static int walk_to(struct bop_aof *aof, struct bop__cursor *cursor, uint64_t seq,
                   struct bop_error *err)
{
    struct bop__aof_record_header header = {0};

    while (cursor->next_seq < seq) {
        int rc = read_header(aof, cursor, &header, err);

        if (rc < 0) {
            return rc;
        }
        step_over(cursor, &header);
    }
    return 0;
}

static bool padding_right(const uint8_t *padding, size_t size)
{
    for (size_t i = 0; i + 1 < size; i++) {
        if (padding[i] != 0) {
            return false;
        }
    }
    return padding[size - 1] == BOP__AOF_END_MARK;
}

/* Append what follows the header, payload and padding, to out. */
static int read_body(struct bop_aof *aof, struct bop__cursor *cursor, size_t size,
                     struct bop_buf *out, struct bop_error *err)
{
    uint64_t offset = cursor->next_offset + BOP__AOF_RECORD_HEADER;
    const uint8_t *bytes = NULL;
    int rc = bop_buf_reserve(out, size);

    if (rc < 0) {
        return bop_error_set(err, rc, "read a record of %zu bytes", size);
    }
    if (offset < cursor->segment->file_end &&
        BOP__AOF_RECORD_HEADER + size > BOP__AOF_WINDOW_BYTES) {
        rc = read_file(aof, cursor, out->data + out->size, size, offset, err);
    } else {
        /* With the header, so that the window begins with the record. */
        rc = fetch(aof, cursor, cursor->next_offset, BOP__AOF_RECORD_HEADER + size, &bytes, err);
        if (rc == 0) {
            memcpy(out->data + out->size, bytes + BOP__AOF_RECORD_HEADER, size);
        }
    }
    if (rc == 0) {
        out->size += size;
    }
    return rc;
}

/* Append the payload of the record at the cursor to out and step over it. Returns 1, or 0 if
 * it has more than bytes_max. */
static int read_record(struct bop_aof *aof, struct bop__cursor *cursor, size_t bytes_max,
                       struct bop_buf *out, struct bop_aof_view *out_view, struct bop_error *err)
{
    size_t begin = out->size;
    struct bop__aof_record_header header = {0};
    size_t length, body;
    int rc = read_header(aof, cursor, &header, err);

    if (rc < 0) {
        return rc;
    }
    length = bop__aof_record_length(&header);
    body = (size_t)bop__aof_record_size(length) - BOP__AOF_RECORD_HEADER;
    if (length > bytes_max) {
        return 0;
    }
    rc = read_body(aof, cursor, body, out, err);
    if (rc < 0) {
        return rc;
    }
    out->size = begin + length;
    if (bop_crc32c(0, out->data + begin, length) != header.payload_crc) {
        out->size = begin;
        return corrupt(aof, cursor, "payload checksum", err);
    }
    if (!padding_right(out->data + begin + length, body - length)) {
        out->size = begin;
        return corrupt(aof, cursor, "padding", err);
    }
    /* data is set when the buffer grows no more. */
    *out_view = (struct bop_aof_view){
        .seq = header.seq,
        .tag = header.tag,
        .time_us = header.time_us,
        .payload = {.data = NULL, .size = length},
    };
    step_over(cursor, &header);
    return 1;
}

int bop__aof_link_of(struct bop_aof *aof, uint64_t seq, uint32_t *out_link, uint64_t *out_end)
{
    struct bop__cursor *cursor = cursor_at(aof, seq);
    struct bop__aof_record_header header = {0};
    int rc = walk_to(aof, cursor, seq, NULL);

    if (rc == 0) {
        rc = read_header(aof, cursor, &header, NULL);
    }
    if (rc < 0) {
        return rc;
    }
    step_over(cursor, &header);
    *out_link = cursor->chain;
    *out_end = cursor->next_offset;
    return 0;
}

/* Read the record seq through a cursor, which is set first if need be. */
static int read_at(struct bop_aof *aof, uint64_t seq, size_t bytes_max, struct bop__cursor **cursor,
                   struct bop_buf *out, struct bop_aof_view *out_view, struct bop_error *err)
{
    int rc = 0;

    if (!*cursor || seq >= (*cursor)->segment->end_seq) {
        *cursor = cursor_at(aof, seq);
        rc = walk_to(aof, *cursor, seq, err);
    }
    return rc < 0 ? rc : read_record(aof, *cursor, bytes_max, out, out_view, err);
}

/* The buffer grows no more: say where each payload is. */
static void set_payloads(struct bop_aof_view *views, size_t count, const struct bop_buf *buf)
{
    size_t at = 0;

    for (size_t i = 0; i < count; i++) {
        views[i].payload.data = buf->data + at;
        at += views[i].payload.size;
    }
}

/* ---- What is only in lower tiers ---- */

static int need_below(struct bop_aof *aof, uint64_t seq, struct bop_error *err)
{
    /* Not blocking: whom it would wait for may need this thread. */
    const struct bop_aof_reader_options options = {.allocator = aof->allocator,
                                                   .level = BOP_AOF_OS};
    int rc = 0;

    if (!aof->below) {
        rc = bop_aof_reader_open(aof, &options, &aof->below);
        if (rc < 0) {
            return bop_error_set(err, rc, "read record %" PRIu64, seq);
        }
    }
    if (bop_aof_reader_position(aof->below) != seq) {
        rc = bop_aof_reader_seek(aof->below, seq, err);
    }
    return rc;
}

/* As bop_aof_read, for records below the local ones; up to those. */
static int read_below(struct bop_aof *aof, uint64_t seq, size_t count_max, size_t bytes_max,
                      struct bop_buf *out_buf, struct bop_aof_view *out_views,
                      struct bop_error *err)
{
    size_t count = 0;
    int rc = aof->archive ? need_below(aof, seq, err) : BOP_ENOTFOUND;

    while (rc == 0 && count < count_max && seq + count < bop_aof_first(aof)) {
        struct bop_aof_view *view = &out_views[count];

        rc = bop_aof_reader_next(aof->below, view, count == 0 ? err : NULL);
        if (rc < 0 || (count > 0 && view->payload.size > bytes_max - out_buf->size)) {
            break;
        }
        rc = bop_buf_append(out_buf, view->payload.data, view->payload.size);
        if (rc == 0) {
            count++;
            bytes_max = bop_max_u64(bytes_max, out_buf->size);
        }
    }
    if (count == 0) {
        return rc == BOP_EHYDRATING ? bop__refuse(aof, BOP_AOF_REFUSED_HYDRATION) : rc;
    }
    set_payloads(out_views, count, out_buf);
    return (int)count;
}

int bop_aof_read(struct bop_aof *aof, uint64_t seq, size_t count_max, size_t bytes_max,
                 struct bop_buf *out_buf, struct bop_aof_view *out_views, struct bop_error *err)
{
    struct bop__cursor *cursor = NULL;
    size_t count = 0;

    bop_buf_clear(out_buf);
    if (seq > aof->last) {
        return BOP_ENOTFOUND;
    }
    count_max = (size_t)bop_min_u64(count_max, INT32_MAX);
    if (seq < bop_aof_first(aof)) {
        return read_below(aof, seq, count_max, bytes_max, out_buf, out_views, err);
    }
    while (count < count_max && seq + count <= aof->last) {
        size_t room = bytes_max > out_buf->size ? bytes_max - out_buf->size : 0;
        int rc = read_at(aof, seq + count, count == 0 ? SIZE_MAX : room, &cursor, out_buf,
                         &out_views[count], count == 0 ? err : NULL);

        if (rc < 0 && count == 0) {
            return rc;
        }
        if (rc <= 0) {
            break; /* What was read is good; an error comes again when it is first. */
        }
        count++;
    }
    set_payloads(out_views, count, out_buf);
    return (int)count;
}
