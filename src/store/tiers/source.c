/*
 * Segments as readers see them, on any thread: from the first tier that has them,
 * and from the next one when that turns out to be bad.
 */
#include <bop/error.h>

#include "internal.h"

struct tiered_source {
    struct bop__segment_source source;
    struct bop__tiered *segment;
    struct bop__segment_source *inner; /* NULL: not opened yet. */
    bool blocking;
};

bool bop__is_bad(int code)
{
    return code == BOP_ECORRUPT || code == BOP_ETRUNCATED || code == BOP_ENOTFOUND ||
           code == -ENOENT || code == BOP_EVERSION;
}

void bop__tiered_suspect(struct bop__tiered *segment, unsigned tier)
{
    struct bop_tiers *tiers = segment->archive->tiers;

    pthread_mutex_lock(&tiers->lock);
    if (tier == 1) {
        segment->suspect1 = true;
    } else {
        segment->suspect2 = true;
    }
    pthread_mutex_unlock(&tiers->lock);
    bop__tiers_wake(tiers);
}

/* Where to read from, and what is needed for that; tier -1: from nowhere. */
struct place {
    int tier;
    char path[BOP__PATH_MAX];
    struct bop__object_facts object;
};

static void find_place(struct bop__tiered *segment, struct place *out_place)
{
    struct bop__archive *archive = segment->archive;
    struct bop_tiers *tiers = archive->tiers;

    pthread_mutex_lock(&tiers->lock);
    out_place->object = bop__tiered_object(segment);
    if (segment->in_tier0) {
        out_place->tier = 0;
        snprintf(out_place->path, sizeof(out_place->path), "%s", segment->path);
    } else if (segment->in_tier1 && !segment->suspect1 &&
               bop__archive_warm_path(archive, &segment->facts, "", out_place->path)) {
        out_place->tier = 1;
    } else {
        out_place->tier = segment->in_tier2 ? 2 : -1;
    }
    pthread_mutex_unlock(&tiers->lock);
}

static int open_packed(struct tiered_source *source, const struct place *place,
                       struct bop__packed **out_packed, struct bop_error *err)
{
    struct bop_tiers *tiers = source->segment->archive->tiers;
    int rc;

    if (place->tier == 1) {
        rc = bop__packed_file_open(tiers->allocator, tiers->options.fs, place->path, out_packed,
                                   err);
        if (rc == 0) {
            (*out_packed)->file_number = place->object.number;
        }
        return rc;
    }
    rc = bop__object_open(source->segment, &place->object,
                          source->blocking ? BOP__OBJECT_READER : BOP__OBJECT_ASKING, out_packed);
    return rc < 0 ? bop_error_set(err, rc, "open object %s", place->object.key) : 0;
}

static int open_inner(struct tiered_source *source, struct place *place, struct bop_error *err)
{
    struct bop__tiered *segment = source->segment;
    struct bop_tiers *tiers = segment->archive->tiers;
    struct bop__packed *packed;
    int rc;

    find_place(segment, place);
    if (place->tier < 0) {
        return bop_error_set(err, BOP_ECORRUPT,
                             "records %" PRIu64 " to %" PRIu64 " of log %s (segment generation "
                             "%" PRIu64 ") are in no tier",
                             segment->facts.base, segment->facts.end_seq - 1,
                             segment->archive->name, segment->facts.generation);
    }
    if (place->tier == 0) {
        rc = bop__file_source_open(tiers->allocator, tiers->options.fs, place->path, true, false,
                                   &source->inner, err);
    } else {
        rc = open_packed(source, place, &packed, err);
        if (rc == 0) {
            rc = bop__warm_open(tiers->allocator, packed, tiers->cache, &source->inner, err);
        }
    }
    if (rc < 0) {
        source->inner = NULL;
        return rc;
    }
    BOP_ASSERT(source->inner);
    source->source.tier = source->inner->tier;
    return 0;
}

static void close_inner(struct tiered_source *source)
{
    if (source->inner) {
        source->inner->close(source->inner);
        source->inner = NULL;
    }
}

/* After a failure: true if it is worth another try, with what is there then. */
static bool go_on(struct tiered_source *source, int tier, int code, unsigned tries)
{
    struct bop__tiered *segment = source->segment;

    /* A device that cannot read the file is as good as no file. */
    if (!bop__is_bad(code) && !(tier < 2 && code == -EIO)) {
        return false;
    }
    if (tier == 0) {
        struct place place;

        /* It may have left tier 0 since. */
        find_place(segment, &place);
        return place.tier != 0;
    }
    if (tier == 1) {
        bop__tiered_suspect(segment, 1);
        return true;
    }
    if (!source->blocking) {
        return false; /* Whoever fetches judges. */
    }
    if (tries < BOP__BAD_FETCHES) {
        return true; /* Perhaps it was cut or bent on its way. */
    }
    bop__tiered_suspect(segment, 2);
    return false;
}

static int source_at(struct bop__segment_source *self, uint64_t offset, size_t least,
                     struct bop_slice *out_bytes, struct bop_error *err)
{
    struct tiered_source *source = BOP_CONTAINER_OF(self, struct tiered_source, source);
    struct place place = {.tier = (int)self->tier};
    unsigned tries = 0;
    int rc;

    for (;;) {
        rc = source->inner ? 0 : open_inner(source, &place, err);
        if (rc == 0) {
            place.tier = source->inner->tier == BOP_AOF_HOT    ? 0
                         : source->inner->tier == BOP_AOF_WARM ? 1
                                                               : 2;
            rc = source->inner->at(source->inner, offset, least, out_bytes, err);
        }
        if (rc == 0 || place.tier < 0 || rc == BOP_EHYDRATING) {
            return rc;
        }
        tries += place.tier == 2;
        if (!go_on(source, place.tier, rc, tries)) {
            break;
        }
        close_inner(source);
    }
    if (rc == BOP_ENOTFOUND || rc == -ENOENT) {
        /* To the log that would mean a record that was dropped. */
        rc = bop_error_set(err, BOP_ECORRUPT,
                           "segment generation %" PRIu64 " of log %s: %s is gone",
                           source->segment->facts.generation, source->segment->archive->name,
                           place.tier == 2 ? source->segment->key : "its file");
    }
    return rc;
}

static bool source_find(const struct bop__segment_source *self, uint64_t seq, uint64_t *out_seq,
                        uint64_t *out_offset)
{
    const struct tiered_source *source = BOP_CONTAINER_OF(self, const struct tiered_source, source);

    return source->inner && source->inner->find &&
           source->inner->find(source->inner, seq, out_seq, out_offset);
}

static void source_close(struct bop__segment_source *self)
{
    struct tiered_source *source = BOP_CONTAINER_OF(self, struct tiered_source, source);
    struct bop__tiered *segment = source->segment;
    struct bop_tiers *tiers = segment->archive->tiers;
    struct bop_allocator *allocator = tiers->allocator;
    bool last;

    close_inner(source);
    pthread_mutex_lock(&tiers->lock);
    segment->readers--;
    last = segment->readers == 0 && segment->closed;
    pthread_mutex_unlock(&tiers->lock);
    if (last) {
        bop__tiers_wake(tiers); /* It may be removed. The segment may be gone from here. */
    }
    bop_free(allocator, source, sizeof(*source));
}

static struct bop__tiered *hold(struct bop__archive *archive, uint64_t generation)
{
    struct bop_tiers *tiers = archive->tiers;
    struct bop__tiered *segment;

    pthread_mutex_lock(&tiers->lock);
    segment = bop__archive_segment(archive, generation);
    if (segment && segment->closed) {
        segment = NULL;
    }
    if (segment) {
        segment->readers++;
    }
    pthread_mutex_unlock(&tiers->lock);
    return segment;
}

int bop__archive_source(struct bop__archive *archive, uint64_t generation, bool blocking,
                        struct bop__segment_source **out_source, struct bop_error *err)
{
    struct bop_allocator *allocator = archive->tiers->allocator;
    struct tiered_source *source = bop_alloc_zeroed(allocator, sizeof(*source));

    if (!source) {
        return bop_error_set(err, BOP_ENOMEM, "open an archived segment");
    }
    source->segment = hold(archive, generation);
    if (!source->segment) {
        bop_free(allocator, source, sizeof(*source));
        return bop_error_set(err, BOP_ENOTFOUND, "segment generation %" PRIu64 " of log %s",
                             generation, archive->name);
    }
    source->blocking = blocking;
    source->source = (struct bop__segment_source){.tier = BOP_AOF_COLD,
                                                  .name = source->segment->key,
                                                  .size = source->segment->facts.size,
                                                  .at = source_at,
                                                  .find = source_find,
                                                  .close = source_close};
    bop__archive_touch(archive, generation);
    *out_source = &source->source;
    return 0;
}
