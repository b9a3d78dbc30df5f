/*
 * The frames of a packed segment: from the cache, or read, checked and decompressed.
 *
 * Nobody else's bytes reach zstd without a checksum that was right, and zstd gets a buffer
 * of the size that the seek table says and must fill it exactly.
 */
#include "warm_source.h"

#include <inttypes.h>

/* ---- Decompressing ---- */

static int bad_frame(const struct bop__warm_source *self, uint32_t number, const char *what,
                     struct bop_error *err)
{
    const struct bop__warm_place *place = &self->map->places[number];

    return bop_error_set(err, BOP_ECORRUPT,
                         "%s: packed segment: frame %" PRIu32 " at %" PRIu64 ", bytes %" PRIu64
                         " to %" PRIu64 " of the segment: %s",
                         self->packed->name, number, place->offset, place->at, place[1].at, what);
}

static ZSTD_DCtx *take_context(struct bop__warm_source *self)
{
    if (self->cache) {
        return bop__frame_cache_take_context(self->cache);
    }
    if (!self->context) {
        self->context = ZSTD_createDCtx();
    }
    return self->context;
}

static void give_context(struct bop__warm_source *self, ZSTD_DCtx *context)
{
    if (self->cache) {
        bop__frame_cache_give_context(self->cache, context);
    }
}

int bop__warm_decompress(struct bop__warm_source *self, struct bop__frame *frame,
                         const uint8_t *bytes, struct bop_error *err)
{
    uint32_t number = (uint32_t)frame->number;
    const struct bop__warm_place *place = &self->map->places[number];
    size_t size = (size_t)(place[1].offset - place->offset);
    ZSTD_DCtx *context;
    size_t got;

    if (bop_crc32c(0, bytes, size) != place->crc) {
        return bad_frame(self, number, "checksum", err);
    }
    /* Several frames in the place of one could be skippable or too many: exactly one. */
    if (ZSTD_findFrameCompressedSize(bytes, size) != size ||
        ZSTD_getFrameContentSize(bytes, size) != frame->size) {
        return bad_frame(self, number, "not one zstd frame of this size", err);
    }
    context = take_context(self);
    if (!context) {
        return bop_error_set(err, BOP_ENOMEM, "decompress %s", self->packed->name);
    }
    got = self->dictionary ? ZSTD_decompress_usingDDict(context, frame->data, frame->size, bytes,
                                                        size, self->dictionary)
                           : ZSTD_decompressDCtx(context, frame->data, frame->size, bytes, size);
    give_context(self, context);
    if (ZSTD_isError(got)) {
        return bad_frame(self, number, ZSTD_getErrorName(got), err);
    }
    return got == frame->size ? 0 : bad_frame(self, number, "it has another size", err);
}

/* ---- Loading ---- */

/* Frames that this source has claimed. */
struct claims {
    struct bop__frame *frames[BOP__WARM_LOAD_MAX];
    unsigned count;
};

static void abandon_all(struct bop__warm_source *self, struct claims *claims, unsigned from)
{
    for (unsigned i = from; i < claims->count; i++) {
        if (self->cache) {
            bop__frame_cache_abandon(self->cache, claims->frames[i]);
        } else {
            bop__frame_release(claims->frames[i]);
        }
    }
}

/* Read from the first claimed frame to the last one, with what lies between. */
static int read_claimed(struct bop__warm_source *self, const struct claims *claims,
                        struct bop_error *err)
{
    const struct bop__warm_place *places = self->map->places;
    uint64_t begin = places[claims->frames[0]->number].offset;
    uint64_t end = places[claims->frames[claims->count - 1]->number + 1].offset;
    int rc;

    bop_buf_clear(&self->packed_bytes);
    rc = self->packed->read(self->packed, begin, (size_t)(end - begin), &self->packed_bytes, err);
    BOP_ASSERT(rc < 0 || self->packed_bytes.size == end - begin);
    return rc;
}

/* Fill and publish what was claimed. The first one becomes the current frame. */
static int load_claimed(struct bop__warm_source *self, struct claims *claims, struct bop_error *err)
{
    uint64_t begin = self->map->places[claims->frames[0]->number].offset;
    int rc = read_claimed(self, claims, err);

    for (unsigned i = 0; i < claims->count; i++) {
        struct bop__frame *frame = claims->frames[i];

        if (rc == 0) {
            rc = bop__warm_decompress(
                self, frame,
                self->packed_bytes.data + (self->map->places[frame->number].offset - begin), err);
        }
        if (rc < 0) {
            abandon_all(self, claims, i);
            return rc;
        }
        if (self->cache) {
            bop__frame_cache_publish(self->cache, frame);
        }
        if (i == 0) {
            bop__frame_release(self->current);
            self->current = frame;
        } else {
            bop__frame_release(frame);
        }
    }
    return 0;
}

/* Claim frames from `first` on that are not there; the first one is waited for, if somebody else
 * loads it. Returns 1 if it is there: then it is the current one, and nothing is claimed. */
static int claim_run(struct bop__warm_source *self, uint32_t first, unsigned count,
                     struct claims *claims)
{
    claims->count = 0;
    if (!self->cache) {
        count = 1; /* There is nowhere to put more. */
    }
    for (unsigned i = 0; i < count; i++) {
        struct bop__frame *frame = NULL;
        size_t size = bop__warm_frame_size(self, first + i);
        int rc = 0;

        if (self->cache) {
            rc = bop__frame_cache_claim(self->cache, self->map->file_number, first + i, size,
                                        i == 0, &frame);
        } else {
            frame = bop__frame_create(self->allocator, 0, first, size);
            rc = frame ? 0 : BOP_ENOMEM;
        }
        if (rc == 0) {
            claims->frames[claims->count++] = frame;
        } else if (rc == 1 && i == 0) {
            bop__frame_release(self->current);
            self->current = frame;
            return 1;
        } else if (rc == 1) {
            bop__frame_release(frame);
        } else if (rc != BOP_EBUSY) {
            abandon_all(self, claims, 0);
            return rc;
        }
    }
    return 0;
}

int bop__warm_use(struct bop__warm_source *self, uint32_t number, unsigned count,
                  struct bop_error *err)
{
    struct claims claims;
    int rc;

    if (self->current && self->current->number == number) {
        return 0;
    }
    if (self->packed->ask) {
        const struct bop__warm_place *places = self->map->places;
        struct bop__frame *frame = bop__frame_cache_find(self->cache, self->map->file_number,
                                                         number);

        if (!frame) {
            return self->packed->ask(
                self->packed, places[number].offset,
                (size_t)(places[number + count].offset - places[number].offset), number);
        }
        bop__frame_release(self->current);
        self->current = frame;
        return 0;
    }
    rc = claim_run(self, number, count, &claims);
    if (rc == BOP_ENOMEM) {
        return bop_error_set(err, rc, "read %s", self->packed->name);
    }
    return rc == 0 ? load_claimed(self, &claims, err) : 0;
}
