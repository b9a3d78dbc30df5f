/*
 * Readers: records in order, from any segment in any tier, without copying.
 *
 * A reader goes through one segment after another. It looks a segment up once, with how far it may
 * be read, and reads up to there without looking again but at one number: the count of truncations,
 * which tells that what was looked up may be void. Only at the end of what is known does it look
 * again.
 *
 * What it reads is checked: each record by itself, and that it follows the one before, also from
 * segment to segment: a segment's seed is the link of the record before it.
 *
 * A segment may change its place at any time: the file that is open stays readable, and the
 * archive's copy has the same bytes at the same offsets, so that the walk goes on in it where it
 * was.
 */
#include "stream.h"

#include <inttypes.h>

#include "internal.h"

/* After entering so many segments, files that the log has let go of are looked for. */
#define PURGE_EACH 64u

/* ---- Segments that are kept open ---- */

static void close_source(struct bop__reader_segment *segment)
{
    if (segment->source) {
        segment->source->close(segment->source);
        segment->source = NULL;
    }
}

static void forget(struct bop_aof_reader *r, struct bop__reader_segment *segment)
{
    close_source(segment);
    bop__footer_deinit(&segment->footer);
    if (segment->marks) {
        bop_free(r->allocator, segment->marks, segment->mark_capacity * sizeof(*segment->marks));
    }
    *segment = (struct bop__reader_segment){0};
}

/* The one of this generation, or one that is free now. */
static struct bop__reader_segment *slot_of(struct bop_aof_reader *r, uint64_t generation)
{
    struct bop__reader_segment *oldest = NULL;

    for (size_t i = 0; i < BOP__READER_SEGMENTS; i++) {
        struct bop__reader_segment *segment = &r->segments[i];

        if (segment->generation == generation) {
            return segment;
        }
        if (!oldest || segment->last_used < oldest->last_used) {
            oldest = segment;
        }
    }
    if (oldest == r->segment) {
        r->segment = NULL;
    }
    forget(r, oldest);
    return oldest;
}

void bop__reader_purge(struct bop_aof_reader *r)
{
    for (size_t i = 0; i < BOP__READER_SEGMENTS; i++) {
        struct bop__reader_segment *segment = &r->segments[i];
        struct bop__file_view view;

        if (!segment->source || !segment->local) {
            continue;
        }
        if (bop__aof_catalogue_generation(r->lookup.catalogue, r->lookup.level, segment->generation,
                                          &view)) {
            bop__segment_file_unref(view.file);
        } else if (segment != r->segment) {
            close_source(segment);
        }
    }
}

/* Have the slot's source open where the segment is now. */
static int open_slot(struct bop_aof_reader *r, struct bop__reader_segment *segment,
                     const struct bop__place *place, struct bop_error *err)
{
    bool local = place->file != NULL;

    if (segment->source && segment->local != local) {
        close_source(segment);
    }
    if (!segment->source) {
        int rc = bop__place_open(&r->lookup, place, &segment->source, err);

        r->walk.held = 0;
        if (rc < 0) {
            segment->source = NULL;
            return rc;
        }
    }
    segment->generation = place->generation;
    segment->base = place->base;
    segment->local = local;
    segment->sealed = place->sealed;
    if (local) {
        segment->source->size = place->sealed ? place->facts.size : place->end;
    }
    return 0;
}

int bop__reader_enter(struct bop_aof_reader *r, const struct bop__place *place,
                      struct bop_error *err)
{
    struct bop__reader_segment *segment = slot_of(r, place->generation);
    int rc;

    if (segment != r->segment) {
        r->segment = NULL;
        r->walk = bop__walk_begin(place->seed, place->base, place->generation);
        r->clock++;
        if (r->clock % PURGE_EACH == 0) {
            bop__reader_purge(r);
        }
    }
    rc = open_slot(r, segment, place, err);
    if (rc < 0) {
        r->segment = NULL;
        return rc;
    }
    segment->last_used = r->clock;
    r->segment = segment;
    r->base = place->base;
    r->end_seq = place->end_seq;
    r->end = place->end;
    r->truncations = place->truncations;
    return 0;
}

/* ---- Finding the next record ---- */

static uint64_t truncations_now(const struct bop_aof_reader *r)
{
    return atomic_load_explicit(&r->lookup.catalogue->atomic_truncations, memory_order_acquire);
}

/* What was looked up still holds for the record seq. */
static inline bool holds(const struct bop_aof_reader *r, uint64_t seq)
{
    return r->segment && seq >= r->base && seq < r->end_seq && r->truncations == truncations_now(r);
}

static int gone(struct bop_aof_reader *r, struct bop_error *err)
{
    return bop_error_set(err, BOP_ENOTFOUND, "record %" PRIu64 " was truncated", r->next);
}

/* Whether the segment can be the one behind the record that was read last. */
static int check_follows(struct bop_aof_reader *r, const struct bop__place *place,
                         struct bop_error *err)
{
    if (!r->follows || place->generation == r->generation) {
        return 0;
    }
    if (place->base != r->next) {
        r->voided = true; /* Records that were read are in another segment now. */
        return gone(r, err);
    }
    if (place->seed != r->link) {
        return bop_error_set(err, BOP_ECORRUPT,
                             "%s: record %" PRIu64 " at offset %u: does not follow the segment "
                             "before",
                             place->file ? place->file->path : "archived segment", r->next,
                             BOP__AOF_SEGMENT_HEADER);
    }
    return 0;
}

/* Look the next record's segment up and enter it. */
static int look_up(struct bop_aof_reader *r, struct bop_error *err)
{
    int rc = BOP_ENOTFOUND;

    for (int i = 0; i < BOP__LOOKUP_TRIES && rc == BOP_ENOTFOUND; i++) {
        struct bop__place place;

        rc = bop__lookup_seq(&r->lookup, r->next, &place);
        if (rc < 0) {
            return rc == BOP_ENOTFOUND ? gone(r, err) : rc;
        }
        rc = check_follows(r, &place, err);
        if (rc == 0) {
            rc = bop__reader_enter(r, &place, err);
        }
        bop__place_deinit(&place);
        if (r->voided) {
            return rc;
        }
    }
    return rc;
}

/* There is no record `next` yet. Or was there one, or the one before it, and it was truncated? (If
 * there are new ones up to next - 1 already, the segment of the following one will tell.) */
static int at_end(struct bop_aof_reader *r, struct bop_error *err)
{
    uint64_t truncations = truncations_now(r);

    if (r->truncations == truncations) {
        return BOP_EEND;
    }
    if (r->next > bop__aof_catalogue_state(r->lookup.catalogue, r->lookup.level).visible + 1) {
        r->voided = true;
        return gone(r, err);
    }
    r->truncations = truncations;
    r->end_seq = 0; /* How far it may be read is to be looked up. */
    return BOP_EEND;
}

static int settle(struct bop_aof_reader *r, struct bop_error *err)
{
    if (r->voided) {
        return gone(r, err);
    }
    if (!holds(r, r->next)) {
        int rc = look_up(r, err);

        if (rc < 0) {
            return rc == BOP_EEND ? at_end(r, err) : rc;
        }
    }
    return bop__reader_walk_to(r, r->next, err);
}

/* ---- Reading ---- */

static int read_next(struct bop_aof_reader *r, struct bop_aof_view *out_view, struct bop_error *err)
{
    struct bop__aof_record_header header = {0};
    struct bop__segment_source *source;
    const uint8_t *payload;
    const char *wrong;
    int rc;

    if (BOP_UNLIKELY(r->walk.seq != r->next || !holds(r, r->next))) {
        rc = settle(r, err);
        if (rc < 0) {
            return rc;
        }
    }
    source = r->segment->source;
    do {
        rc = bop__walk_fetch(&r->walk, source, r->end, r->hint, &header, err);
        if (BOP_UNLIKELY(rc < 0)) {
            return rc;
        }
        wrong = bop__walk_body(&header, r->walk.at);
        if (BOP_UNLIKELY(wrong)) {
            return bop__walk_corrupt(&r->walk, source->name, wrong, err);
        }
        payload = r->walk.at + BOP__AOF_RECORD_HEADER;
        bop__walk_step(&r->walk, &header);
    } while (BOP_UNLIKELY(bop__aof_is_filler(&header)));
    r->follows = true;
    r->generation = r->segment->generation;
    r->link = r->walk.chain;
    r->next++;
    r->hint = (size_t)bop__aof_record_size(bop__aof_record_length(&header));
    *out_view = (struct bop_aof_view){
        .seq = header.seq,
        .tag = header.tag,
        .time_us = header.time_us,
        .payload = bop_slice(payload, bop__aof_record_length(&header)),
        .tier = source->tier,
    };
    return 0;
}

int bop_aof_reader_next(struct bop_aof_reader *reader, struct bop_aof_view *out_view,
                        struct bop_error *err)
{
    int rc = read_next(reader, out_view, err);

    if (BOP_UNLIKELY(rc == BOP_EHYDRATING)) {
        /* What is fetched may have come before the count of fetches is taken: look again. */
        reader->hydrations =
            bop__aof_catalogue_state(reader->lookup.catalogue, reader->lookup.level).hydrations;
        rc = read_next(reader, out_view, err);
    }
    reader->hydrating = rc == BOP_EHYDRATING;
    return rc;
}

void bop__reader_jump(struct bop_aof_reader *r, uint64_t seq)
{
    r->next = seq;
    r->voided = false;
    r->follows = false;
    r->hydrating = false;
}

uint64_t bop_aof_reader_position(const struct bop_aof_reader *reader)
{
    return reader->next;
}

/* ---- Opening and closing ---- */

int bop__reader_open(const struct bop__lookup *lookup, struct bop_allocator *allocator,
                     struct bop_aof_reader **out_reader)
{
    struct bop__catalogue_state state = bop__aof_catalogue_state(lookup->catalogue, lookup->level);
    struct bop_aof_reader *r = bop_alloc_zeroed(allocator, sizeof(*r));

    if (!r) {
        return BOP_ENOMEM;
    }
    r->lookup = *lookup;
    r->lookup.allocator = allocator;
    r->allocator = allocator;
    r->next = state.oldest;
    r->truncations = state.truncations;
    r->told_sealed = state.sealed;
    r->told_truncations = state.truncations;
    *out_reader = r;
    return 0;
}

int bop_aof_reader_open(struct bop_aof *aof, const struct bop_aof_reader_options *options,
                        struct bop_aof_reader **out_reader)
{
    struct bop__lookup lookup = bop__lookup_in(aof, options->level, options->pread,
                                               options->blocking);

    if (options->level != BOP_AOF_DEFAULT && options->level != BOP_AOF_OS &&
        options->level != BOP_AOF_DISK) {
        return BOP_EINVAL;
    }
    return bop__reader_open(&lookup, bop_allocator_or_default(options->allocator), out_reader);
}

void bop_aof_reader_close(struct bop_aof_reader *reader)
{
    if (!reader) {
        return;
    }
    for (size_t i = 0; i < BOP__READER_SEGMENTS; i++) {
        forget(reader, &reader->segments[i]);
    }
    bop_free(reader->allocator, reader, sizeof(*reader));
}
