/*
 * Where readers go: to a number, a time or a tag.
 *
 * Inside of a segment the way begins at the nearest place known: where the reader stands, the
 * footer's leaf, what a packed segment knows of its frames, or what was remembered from walking
 * there before. From there headers are read until the record is met. Where all records of a leaf
 * take the same room nothing has to be read.
 *
 * Among segments a time or tag is found by bisecting over numbers: the first record of a segment
 * says on which side of it to look on.
 */
#include <inttypes.h>

#include "stream.h"

enum field {
    FIELD_TIME,
    FIELD_TAG,
};

/* ---- Inside of a segment ---- */

/* Remember where the walk stands, if that is far enough from what is remembered already. What
 * cannot be remembered for lack of memory is walked to again. */
static void mark(struct bop_aof_reader *r)
{
    struct bop__reader_segment *segment = r->segment;
    const struct bop__mark *last = segment->mark_count > 0
                                       ? &segment->marks[segment->mark_count - 1]
                                       : NULL;
    uint64_t from = last ? last->offset : BOP__AOF_SEGMENT_HEADER;

    if (r->walk.offset < from + BOP__READER_MARK_BYTES || (last && r->walk.seq <= last->seq)) {
        return;
    }
    if (segment->mark_count == segment->mark_capacity) {
        size_t capacity = bop_max_u64(16, 2 * (uint64_t)segment->mark_capacity);
        struct bop__mark *marks = bop_realloc(r->allocator, segment->marks,
                                              segment->mark_capacity * sizeof(*marks),
                                              capacity * sizeof(*marks));

        if (!marks) {
            return;
        }
        segment->marks = marks;
        segment->mark_capacity = capacity;
    }
    segment->marks[segment->mark_count++] = (struct bop__mark){.seq = r->walk.seq,
                                                               .offset = r->walk.offset};
}

static struct bop__mark nearest_mark(const struct bop__reader_segment *segment, uint64_t seq)
{
    struct bop__mark found = {.seq = segment->base, .offset = BOP__AOF_SEGMENT_HEADER};
    size_t low = 0, high = segment->mark_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (segment->marks[middle].seq <= seq) {
            found = segment->marks[middle];
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return found;
}

/* By the footer; the hint becomes what is to be read there. */
static struct bop__mark nearest_leaf(struct bop_aof_reader *r, const struct bop__footer *footer,
                                     uint64_t seq)
{
    const struct bop__footer_leaf *leaf = bop__footer_find(footer, seq);
    bool last = leaf + 1 == footer->leaves + footer->leaf_count;
    uint64_t bytes = (last ? footer->facts.end : leaf[1].offset) - leaf->offset;

    if (leaf->stride > 0) {
        r->hint = leaf->stride;
        return (struct bop__mark){.seq = seq,
                                  .offset = leaf->offset + (seq - leaf->seq) * leaf->stride};
    }
    r->hint = (size_t)bop_min_u64(bytes, 2 * (uint64_t)BOP__FOOTER_LEAF_BYTES);
    return (struct bop__mark){.seq = leaf->seq, .offset = leaf->offset};
}

/* Have the footer read, if there is one. That it is bad harms nobody here: there is more to walk.
 */
static int need_footer(struct bop_aof_reader *r)
{
    struct bop__reader_segment *segment = r->segment;
    int rc;

    if (segment->footer_tried || !segment->sealed) {
        return 0;
    }
    r->walk.held = 0;
    rc = bop__footer_read(r->allocator, segment->source, false, &segment->footer, NULL);
    if (rc == BOP_EHYDRATING) {
        return rc;
    }
    segment->footer_tried = true;
    if (rc == 0 && (segment->footer.facts.generation != segment->generation ||
                    segment->footer.facts.base != segment->base)) {
        bop__footer_deinit(&segment->footer); /* Another segment's. */
    }
    return 0;
}

/* The nearest place at or before seq but for where the walk stands. */
static int nearest(struct bop_aof_reader *r, uint64_t seq, struct bop__mark *out_mark)
{
    struct bop__reader_segment *segment = r->segment;
    int rc;

    if (segment->source->find &&
        segment->source->find(segment->source, seq, &out_mark->seq, &out_mark->offset)) {
        return 0;
    }
    rc = need_footer(r);
    if (rc < 0) {
        return rc;
    }
    *out_mark = segment->footer.leaf_count > 0 && seq < segment->footer.facts.end_seq
                    ? nearest_leaf(r, &segment->footer, seq)
                    : nearest_mark(segment, seq);
    return 0;
}

/* Go on by one record, reading no more of it than its header. */
static int step(struct bop_aof_reader *r, struct bop__aof_record_header *out_header,
                struct bop_error *err)
{
    int rc = bop__walk_peek(&r->walk, r->segment->source, r->end, r->hint, out_header, err);

    if (rc == 0) {
        bop__walk_step(&r->walk, out_header);
    }
    return rc;
}

int bop__reader_walk_to(struct bop_aof_reader *r, uint64_t seq, struct bop_error *err)
{
    if (r->walk.seq != seq) {
        struct bop__mark to = {0};
        int rc = nearest(r, seq, &to);

        if (rc < 0) {
            return rc;
        }
        if (r->walk.seq > seq || r->walk.seq < to.seq) {
            bop__walk_jump(&r->walk, to.seq, to.offset);
        }
    }
    while (r->walk.seq < seq) {
        struct bop__aof_record_header header;
        int rc = step(r, &header, err);

        if (rc < 0) {
            return rc;
        }
        mark(r);
    }
    mark(r);
    return 0;
}

int bop_aof_reader_seek(struct bop_aof_reader *reader, uint64_t seq, struct bop_error *err)
{
    struct bop__catalogue_state state;
    bool known = reader->segment && seq >= reader->base && seq < reader->end_seq;

    if (!known ||
        reader->truncations != atomic_load_explicit(&reader->lookup.catalogue->atomic_truncations,
                                                    memory_order_acquire)) {
        state = bop__aof_catalogue_state(reader->lookup.catalogue, reader->lookup.level);
        if (seq < state.oldest || seq > state.visible + 1) {
            return bop_error_set(err, BOP_ENOTFOUND,
                                 "record %" PRIu64 " of %" PRIu64 " to %" PRIu64, seq, state.oldest,
                                 state.visible);
        }
    }
    bop__reader_jump(reader, seq);
    return 0;
}

/* ---- By time or tag ---- */

static uint64_t header_value(const struct bop__aof_record_header *header, enum field field)
{
    return field == FIELD_TIME ? header->time_us : header->tag;
}

/* The value of the first record of the segment, which becomes the current one if it has to be
 * read. */
static int first_value(struct bop_aof_reader *r, const struct bop__place *place, enum field field,
                       uint64_t *out_value, struct bop_error *err)
{
    struct bop__aof_record_header header = {0};
    int rc;

    if (place->sealed) {
        *out_value = field == FIELD_TIME ? place->facts.first_time_us : place->facts.first_tag;
        return 0;
    }
    rc = bop__reader_enter(r, place, err);
    if (rc == 0) {
        rc = bop__reader_walk_to(r, place->base, err);
    }
    while (rc == 0 && r->walk.seq == place->base) {
        rc = step(r, &header, err);
    }
    if (rc == 0) {
        *out_value = header_value(&header, field);
    }
    return rc;
}

/* The first record of the current segment whose value is at least this, or its end. */
static int first_in_segment(struct bop_aof_reader *r, enum field field, uint64_t value,
                            uint64_t *out_seq, struct bop_error *err)
{
    const struct bop__footer *footer = &r->segment->footer;
    uint64_t from = r->base;
    int rc = need_footer(r);

    for (size_t low = 0, high = footer->leaf_count; rc == 0 && low < high;) {
        size_t middle = low + (high - low) / 2;
        const struct bop__footer_leaf *leaf = &footer->leaves[middle];

        if ((field == FIELD_TIME ? leaf->time_us : leaf->tag) < value) {
            from = bop_max_u64(from, bop_min_u64(leaf->seq, r->end_seq));
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (rc == 0 && from < r->end_seq) {
        rc = bop__reader_walk_to(r, from, err);
    }
    while (rc == 0 && from < r->end_seq) {
        struct bop__aof_record_header header = {0};

        rc = step(r, &header, err);
        if (rc == 0 && !bop__aof_is_filler(&header)) {
            if (header_value(&header, field) >= value) {
                break;
            }
            from++;
        }
        mark(r);
    }
    *out_seq = from;
    return rc;
}

/* The segment that holds record seq or else the one above it, and the value of its first record.
 * BOP_EEND if there is none, or it begins at `high` or above. */
static int look_at(struct bop_aof_reader *r, enum field field, uint64_t seq, uint64_t high,
                   struct bop__place *out_place, uint64_t *out_value, struct bop_error *err)
{
    struct bop__place place;
    int rc = bop__lookup_from(&r->lookup, seq, &place);

    if (rc < 0) {
        return rc == BOP_ENOTFOUND ? BOP_EEND : rc;
    }
    rc = place.base >= high ? BOP_EEND : first_value(r, &place, field, out_value, err);
    /* Only its numbers are wanted. */
    bop__place_deinit(&place);
    *out_place = place;
    return rc;
}

/* Between records `low` and `high` (one above the last), the first with at least this value. What
 * is below low is less; at high and above it is not. */
static int find_value(struct bop_aof_reader *r, enum field field, uint64_t wanted, uint64_t low,
                      uint64_t high, uint64_t *out_seq, struct bop_error *err)
{
    uint64_t best = 0; /* A record of the last segment whose first value is less. */
    struct bop__place place = {0};
    int rc;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        uint64_t value = 0;

        rc = look_at(r, field, middle, high, &place, &value, err);
        if (rc == BOP_EEND) {
            high = middle;
        } else if (rc < 0) {
            return rc;
        } else if (value < wanted) {
            best = place.base;
            low = place.end_seq;
        } else {
            high = bop_max_u64(low, place.base);
        }
    }
    *out_seq = high;
    if (best == 0) {
        return 0; /* All are at least that. */
    }
    rc = bop__lookup_seq(&r->lookup, best, &place);
    if (rc == 0) {
        rc = bop__reader_enter(r, &place, err);
        bop__place_deinit(&place);
    }
    return rc < 0 ? rc : first_in_segment(r, field, wanted, out_seq, err);
}

static int seek_value(struct bop_aof_reader *r, enum field field, uint64_t value,
                      struct bop_error *err)
{
    struct bop__catalogue_state state = bop__aof_catalogue_state(r->lookup.catalogue,
                                                                 r->lookup.level);
    uint64_t seq = 0;
    int rc = BOP_ENOTFOUND;

    /* A segment that went elsewhere meanwhile is looked for again. */
    for (int i = 0; i < BOP__LOOKUP_TRIES && rc == BOP_ENOTFOUND; i++) {
        rc = find_value(r, field, value, state.oldest, state.visible + 1, &seq, err);
    }
    if (rc == 0) {
        bop__reader_jump(r, seq);
    }
    return rc;
}

static int seek_value_waiting(struct bop_aof_reader *r, enum field field, uint64_t value,
                              struct bop_error *err)
{
    int rc = seek_value(r, field, value, err);

    if (rc == BOP_EHYDRATING) {
        r->hydrations = bop__aof_catalogue_state(r->lookup.catalogue, r->lookup.level).hydrations;
        rc = seek_value(r, field, value, err);
        r->hydrating = rc == BOP_EHYDRATING;
    }
    return rc;
}

int bop_aof_reader_seek_time(struct bop_aof_reader *reader, uint64_t time_us, struct bop_error *err)
{
    return seek_value_waiting(reader, FIELD_TIME, time_us, err);
}

int bop_aof_reader_seek_tag(struct bop_aof_reader *reader, uint64_t tag, struct bop_error *err)
{
    return seek_value_waiting(reader, FIELD_TAG, tag, err);
}
