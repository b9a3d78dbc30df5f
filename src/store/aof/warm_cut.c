/*
 * Cutting a segment's bytes into frames.
 *
 * Where a frame may end is known when the next record's header is there. Until then the header is
 * collected behind the frame, for which there is room; if the record does not fit, the frame is
 * given out without it, and it moves to the front.
 */
#include "warm_cut.h"

int bop__cutter_init(struct bop__cutter *cutter, struct bop_allocator *allocator,
                     size_t frame_bytes)
{
    *cutter = (struct bop__cutter){
        .allocator = allocator,
        .frame_bytes = frame_bytes,
        .unit_left = BOP__AOF_SEGMENT_HEADER,
        .bytes = bop_alloc(allocator, frame_bytes + BOP__AOF_RECORD_HEADER),
    };
    return cutter->bytes ? 0 : BOP_ENOMEM;
}

void bop__cutter_deinit(struct bop__cutter *cutter)
{
    if (cutter->bytes) {
        bop_free(cutter->allocator, cutter->bytes, cutter->frame_bytes + BOP__AOF_RECORD_HEADER);
        cutter->bytes = NULL;
    }
}

/* Give out the first `size` bytes as a frame. */
static int give(struct bop__cutter *c, size_t size, struct bop_error *err)
{
    int rc = c->on_frame(c->user, c->bytes, size, c->records, c->first, err);

    c->size -= size;
    memmove(c->bytes, c->bytes + size, c->size);
    c->records = 0;
    c->first = 0;
    return rc;
}

static size_t collect(struct bop__cutter *c, const uint8_t *bytes, size_t size)
{
    memcpy(c->bytes + c->size, bytes, size);
    c->size += size;
    return size;
}

/* The header of a record, or of a filler, is there. */
static int begin_record(struct bop__cutter *c, struct bop_error *err)
{
    size_t begin = c->size - BOP__AOF_RECORD_HEADER;
    struct bop__aof_record_header header;
    uint32_t mark;
    uint64_t size;
    int rc;

    memcpy(&header, c->bytes + begin, sizeof(header));
    mark = header.length & ~BOP__AOF_LENGTH_MASK;
    if (mark != BOP__AOF_HEADER_MARK && mark != BOP__AOF_FILLER_MARK) {
        c->lost = true;
        return 0;
    }
    size = bop__aof_record_size(bop__aof_record_length(&header));
    if (begin > 0 && size > c->frame_bytes - begin) {
        rc = give(c, begin, err);
        if (rc < 0) {
            return rc;
        }
        begin = 0;
    }
    if (mark == BOP__AOF_HEADER_MARK && c->records++ == 0) {
        c->first = (uint32_t)begin;
    }
    c->header_have = 0;
    c->unit_left = size - BOP__AOF_RECORD_HEADER;
    return 0;
}

int bop__cutter_add(struct bop__cutter *c, const uint8_t *bytes, size_t size, struct bop_error *err)
{
    while (size > 0 && !c->lost) {
        size_t step;
        int rc = 0;

        if (c->unit_left > 0) {
            step = (size_t)bop_min_u64(bop_min_u64(size, c->unit_left), c->frame_bytes - c->size);
            c->unit_left -= collect(c, bytes, step);
            if (c->size == c->frame_bytes) {
                rc = give(c, c->size, err);
            }
        } else {
            step = (size_t)bop_min_u64(size, BOP__AOF_RECORD_HEADER - c->header_have);
            c->header_have += collect(c, bytes, step);
            if (c->header_have == BOP__AOF_RECORD_HEADER) {
                rc = begin_record(c, err);
            }
        }
        if (rc < 0) {
            return rc;
        }
        bytes += step;
        size -= step;
    }
    return 0;
}

int bop__cutter_end(struct bop__cutter *c, bool *out_whole, struct bop_error *err)
{
    *out_whole = !c->lost && c->unit_left == 0 && c->header_have == 0;
    return *out_whole && c->size > 0 ? give(c, c->size, err) : 0;
}

int bop__cutter_add_plain(struct bop__cutter *c, const uint8_t *bytes, size_t size,
                          struct bop_error *err)
{
    while (size > 0) {
        size_t step = (size_t)bop_min_u64(size, c->frame_bytes - c->size);
        int rc = 0;

        collect(c, bytes, step);
        if (c->size == c->frame_bytes) {
            rc = give(c, c->size, err);
        }
        if (rc < 0) {
            return rc;
        }
        bytes += step;
        size -= step;
    }
    return 0;
}
