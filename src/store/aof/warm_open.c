/*
 * A packed segment as a source: offsets are the segment's, bytes come out of frames.
 *
 * The frame read last is held, so that reading on within it costs nothing. What spans frames
 * is joined in a window of the source's own, which slides on with a reader that asks for much at
 * each step. It is kept when a frame must be waited for, so that each try comes further even if
 * the cache is too small for all of them.
 *
 * Nobody else's bytes reach zstd without a checksum that was right, and zstd gets a buffer
 * of the size that the seek table says and must fill it exactly.
 */
#include "warm_map.h"

#include <inttypes.h>

/* A longer buffer is not kept when what was joined in it is no longer needed. */
#define JOIN_KEPT_MAX (1024u * 1024)

struct warm_source {
    struct bop__segment_source source;
    struct bop_allocator *allocator;
    struct bop__packed *packed;
    struct bop__frame_cache *cache; /* May be NULL. */
    struct bop__frame *map_frame;
    const struct bop__warm_map *map; /* In map_frame. */
    ZSTD_DDict *dictionary;          /* NULL: there is none. */
    ZSTD_DCtx *context;              /* Only without a cache, which has some. */
    struct bop__frame *current;      /* The frame used last, or NULL. */
    struct bop_buf packed_bytes;
    struct bop_buf join; /* The window: bytes of several frames, from join_at on. */
    uint64_t join_at;    /* UINT64_MAX: there is none. */
};

static struct warm_source *self_of(struct bop__segment_source *source)
{
    return BOP_CONTAINER_OF(source, struct warm_source, source);
}

static const struct warm_source *const_self_of(const struct bop__segment_source *source)
{
    return (const struct warm_source *)(const void *)((const char *)source -
                                                      offsetof(struct warm_source, source));
}

/* ---- Decompressing ---- */

static int bad_frame(const struct warm_source *self, uint32_t number, const char *what,
                     struct bop_error *err)
{
    const struct bop__warm_place *place = &self->map->places[number];

    return bop_error_set(err, BOP_ECORRUPT,
                         "%s: packed segment: frame %" PRIu32 " at %" PRIu64 ", bytes %" PRIu64
                         " to %" PRIu64 " of the segment: %s",
                         self->packed->name, number, place->offset, place->at, place[1].at, what);
}

static ZSTD_DCtx *take_context(struct warm_source *self)
{
    if (self->cache) {
        return bop__frame_cache_take_context(self->cache);
    }
    if (!self->context) {
        self->context = ZSTD_createDCtx();
    }
    return self->context;
}

static void give_context(struct warm_source *self, ZSTD_DCtx *context)
{
    if (self->cache) {
        bop__frame_cache_give_context(self->cache, context);
    }
}

/* Fill a frame from its compressed bytes. */
static int decompress(struct warm_source *self, struct bop__frame *frame, const uint8_t *bytes,
                      struct bop_error *err)
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

static size_t content_size(const struct warm_source *self, uint32_t number)
{
    return (size_t)(self->map->places[number + 1].at - self->map->places[number].at);
}

/* ---- Loading ---- */

/* Frames that this source has claimed. */
struct claims {
    struct bop__frame *frames[BOP__WARM_LOAD_MAX];
    unsigned count;
};

static void abandon_all(struct warm_source *self, struct claims *claims, unsigned from)
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
static int read_claimed(struct warm_source *self, const struct claims *claims,
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
static int load_claimed(struct warm_source *self, struct claims *claims, struct bop_error *err)
{
    uint64_t begin = self->map->places[claims->frames[0]->number].offset;
    int rc = read_claimed(self, claims, err);

    for (unsigned i = 0; i < claims->count; i++) {
        struct bop__frame *frame = claims->frames[i];

        if (rc == 0) {
            rc = decompress(
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
static int claim_run(struct warm_source *self, uint32_t first, unsigned count,
                     struct claims *claims)
{
    claims->count = 0;
    if (!self->cache) {
        count = 1; /* There is nowhere to put more. */
    }
    for (unsigned i = 0; i < count; i++) {
        struct bop__frame *frame = NULL;
        size_t size = content_size(self, first + i);
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

/* Make a frame the current one, and have up to count from there on loaded if it has to be. */
static int use_frame(struct warm_source *self, uint32_t number, unsigned count,
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

/* ---- The source ---- */

static uint64_t frame_end(const struct warm_source *self, uint32_t number)
{
    return self->map->places[number + 1].at;
}

/* The frame that has this byte of the segment. */
static uint32_t frame_at(const struct warm_source *self, uint64_t offset)
{
    const struct bop__warm_place *places = self->map->places;
    uint32_t low = 0;
    uint32_t high = self->map->frames;

    if (self->current) {
        uint32_t near = (uint32_t)self->current->number;

        if (places[near].at <= offset && offset < places[near + 1].at) {
            return near;
        }
    }
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (places[middle].at <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* How many frames from this one on hold bytes before `end`, as far as one load goes. */
static unsigned frames_to(const struct warm_source *self, uint32_t number, uint64_t end)
{
    unsigned count = 1;

    while (count < BOP__WARM_LOAD_MAX && frame_end(self, number + count - 1) < end) {
        count++;
    }
    return count;
}

static struct bop_slice rest_of_current(const struct warm_source *self, uint64_t offset)
{
    const struct bop__frame *frame = self->current;
    size_t skipped = (size_t)(offset - self->map->places[frame->number].at);

    return bop_slice(frame->data + skipped, frame->size - skipped);
}

/* True if the window has the bytes from offset on, `least` of them. */
static bool joined(const struct warm_source *self, uint64_t offset, size_t least)
{
    return offset >= self->join_at && offset - self->join_at <= self->join.size &&
           self->join.size - (size_t)(offset - self->join_at) >= least;
}

/* Move the window's beginning up to offset, or near to it. */
static void move_window(struct warm_source *self, uint64_t offset)
{
    size_t skipped;

    if (offset < self->join_at || offset - self->join_at > self->join.size) {
        bop_buf_clear(&self->join);
        self->join_at = offset;
        return;
    }
    /* Seldom enough that each byte is moved once or so, and not once for each record. */
    skipped = (size_t)(offset - self->join_at);
    if (skipped > self->join.size / 2) {
        bop_buf_consume(&self->join, skipped);
        self->join_at = offset;
    }
}

/* Collect what spans frames: extend the window until it has [offset, offset + least). */
static int join(struct warm_source *self, uint64_t offset, size_t least, struct bop_error *err)
{
    move_window(self, offset);
    while (!joined(self, offset, least)) {
        uint64_t at = self->join_at + self->join.size;
        uint32_t number = frame_at(self, at);
        struct bop_slice bytes;
        int rc = use_frame(self, number, frames_to(self, number, offset + least), err);

        if (rc < 0) {
            return rc;
        }
        bytes = rest_of_current(self, at);
        rc = bop_buf_append(&self->join, bytes.data, bytes.size);
        if (rc < 0) {
            return bop_error_set(err, rc, "%zu bytes of %s", least, self->packed->name);
        }
    }
    return 0;
}

static void forget_join(struct warm_source *self)
{
    bop_buf_clear(&self->join);
    self->join_at = UINT64_MAX;
    if (self->join.capacity > JOIN_KEPT_MAX) {
        bop_buf_deinit(&self->join);
        bop_buf_init(&self->join, self->allocator, 0);
    }
}

static int warm_at(struct bop__segment_source *source, uint64_t offset, size_t least,
                   struct bop_slice *out_bytes, struct bop_error *err)
{
    struct warm_source *self = self_of(source);
    uint32_t number;
    int rc;

    if (offset >= source->size) {
        *out_bytes = bop_slice(NULL, 0);
        return 0;
    }
    least = (size_t)bop_min_u64(bop_max_u64(least, 1), source->size - offset);
    number = frame_at(self, offset);
    if (least > frame_end(self, number) - offset) {
        size_t skipped;

        rc = join(self, offset, least, err);
        if (rc == 0) {
            skipped = (size_t)(offset - self->join_at);
            *out_bytes = bop_slice(self->join.data + skipped, self->join.size - skipped);
        }
        return rc;
    }
    rc = use_frame(self, number, 1, err);
    if (rc < 0) {
        return rc;
    }
    if (self->join_at != UINT64_MAX) {
        forget_join(self);
    }
    *out_bytes = rest_of_current(self, offset);
    return 0;
}

static bool warm_find(const struct bop__segment_source *source, uint64_t seq, uint64_t *out_seq,
                      uint64_t *out_offset)
{
    const struct bop__warm_map *map = const_self_of(source)->map;
    uint32_t low = 0;
    uint32_t high = map->frames;

    if (seq < map->facts.base || seq >= map->facts.end_seq) {
        return false;
    }
    /* The last frame whose first record is not above seq. It has records, or the next frame would
     * have the same first one. */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (map->places[middle].first_seq <= seq) {
            low = middle;
        } else {
            high = middle;
        }
    }
    *out_seq = map->places[low].first_seq;
    *out_offset = map->places[low].at + map->places[low].first;
    return true;
}

static void warm_close(struct bop__segment_source *source)
{
    struct warm_source *self = self_of(source);

    bop__frame_release(self->current);
    bop__frame_release(self->map_frame);
    ZSTD_freeDDict(self->dictionary);
    ZSTD_freeDCtx(self->context);
    bop_buf_deinit(&self->packed_bytes);
    bop_buf_deinit(&self->join);
    self->packed->close(self->packed);
    bop_free(self->allocator, self, sizeof(*self));
}

/* ---- Opening ---- */

static int digest_dictionary(struct warm_source *self, struct bop_error *err)
{
    const struct bop__warm_map *map = self->map;

    if (map->dictionary_size == 0) {
        return 0;
    }
    self->dictionary = ZSTD_createDDict(bop__warm_map_dictionary(map), map->dictionary_size);
    if (!self->dictionary) {
        /* It does not say which of the two it is: of a good dictionary, memory. */
        return ZSTD_getDictID_fromDict(bop__warm_map_dictionary(map), map->dictionary_size) != 0
                   ? bop_error_set(err, BOP_ENOMEM, "dictionary of %s", self->packed->name)
                   : bop_error_set(err, BOP_ECORRUPT, "%s: packed segment: dictionary",
                                   self->packed->name);
    }
    return 0;
}

/* Put frames of the footer, whose bytes came with the tail, where they will be looked for. */
static int keep_footer(struct warm_source *self, const struct bop__warm_tail *tail,
                       struct bop_error *err)
{
    const struct bop__warm_map *map = self->map;

    for (uint32_t i = map->footer_frame; i < map->frames; i++) {
        struct bop__frame *frame;
        int rc = bop__frame_cache_claim(self->cache, map->file_number, i, content_size(self, i),
                                        false, &frame);

        if (rc == 1) {
            bop__frame_release(frame);
        }
        if (rc == 1 || rc == BOP_EBUSY) {
            continue;
        }
        if (rc == 0) {
            rc = decompress(self, frame, tail->bytes.data + (map->places[i].offset - tail->begin),
                            err);
            if (rc < 0) {
                bop__frame_cache_abandon(self->cache, frame);
                return rc;
            }
            bop__frame_cache_publish(self->cache, frame);
            bop__frame_release(frame);
        }
        if (rc < 0) {
            return bop_error_set(err, rc, "footer of %s", self->packed->name);
        }
    }
    return 0;
}

static void set_map(struct warm_source *self, struct bop__frame *frame)
{
    self->map_frame = frame;
    self->map = (const struct bop__warm_map *)(const void *)frame->data;
    self->source.size = self->map->facts.size;
}

static int read_map(struct warm_source *self, struct bop_error *err)
{
    struct bop__warm_tail tail;
    struct bop_allocator *allocator = self->cache ? bop__frame_cache_allocator(self->cache)
                                                  : self->allocator;
    struct bop__frame *frame;
    int rc = bop__warm_map_read(allocator, self->packed, &tail, &frame, err);

    if (rc == 0) {
        set_map(self, frame);
        rc = digest_dictionary(self, err);
    }
    if (rc == 0 && self->cache) {
        rc = keep_footer(self, &tail, err);
        if (rc == 0) {
            /* Last, so that it is there for who asked for it even if the cache is too small. */
            set_map(self, bop__frame_cache_put(self->cache, frame));
        }
    }
    bop_buf_deinit(&tail.bytes);
    return rc;
}

static int find_map(struct warm_source *self, struct bop_error *err)
{
    struct bop__packed *packed = self->packed;
    struct bop__frame *frame = NULL;
    size_t size;

    if (self->cache && packed->file_number != 0) {
        frame = bop__frame_cache_find(self->cache, packed->file_number, BOP__WARM_TAIL);
    }
    if (frame) {
        set_map(self, frame);
        if (self->map->packed_size != packed->size) {
            return bop_error_set(err, BOP_ECORRUPT,
                                 "%s: packed segment: it has %" PRIu64
                                 " bytes and should have %" PRIu64,
                                 packed->name, packed->size, self->map->packed_size);
        }
        return digest_dictionary(self, err);
    }
    if (!packed->ask) {
        return read_map(self, err);
    }
    size = (size_t)bop_min_u64(packed->size, BOP__WARM_TAIL_READ);
    return packed->ask(packed, packed->size - size, size, BOP__WARM_TAIL);
}

int bop__warm_open(struct bop_allocator *allocator, struct bop__packed *packed,
                   struct bop__frame_cache *cache, struct bop__segment_source **out_source,
                   struct bop_error *err)
{
    struct warm_source *self;
    int rc;

    BOP_ASSERT(!packed->ask || (cache && packed->file_number != 0));
    allocator = bop_allocator_or_default(allocator);
    self = bop_alloc_zeroed(allocator, sizeof(*self));
    if (!self) {
        rc = bop_error_set(err, BOP_ENOMEM, "open %s", packed->name);
        packed->close(packed);
        return rc;
    }
    self->source = (struct bop__segment_source){.tier = packed->tier,
                                                .name = packed->name,
                                                .at = warm_at,
                                                .find = warm_find,
                                                .close = warm_close};
    self->allocator = allocator;
    self->packed = packed;
    self->cache = cache;
    self->join_at = UINT64_MAX;
    bop_buf_init(&self->packed_bytes, allocator, 0);
    bop_buf_init(&self->join, allocator, 0);
    rc = find_map(self, err);
    if (rc < 0) {
        warm_close(&self->source);
        return rc;
    }
    *out_source = &self->source;
    return 0;
}

const struct bop__segment_facts *bop__warm_segment(const struct bop__segment_source *warm)
{
    return &const_self_of(warm)->map->facts;
}

uint64_t bop__warm_frames(const struct bop__segment_source *warm)
{
    return const_self_of(warm)->map->frames;
}

int bop__warm_load(struct bop__segment_source *warm, uint64_t frame, unsigned count,
                   struct bop_error *err)
{
    struct warm_source *self = self_of(warm);
    uint64_t end;

    BOP_ASSERT(self->cache && !self->packed->ask);
    if (frame >= self->map->frames) {
        return 0;
    }
    end = frame + bop_min_u64(bop_min_u64(count, BOP__WARM_LOAD_MAX), self->map->frames - frame);
    while (frame < end) {
        /* Each time round loads all that nobody else loads, and then steps over what is there. */
        int rc = use_frame(self, (uint32_t)frame, (unsigned)(end - frame), err);

        if (rc < 0) {
            return rc;
        }
        frame++;
    }
    return 0;
}
