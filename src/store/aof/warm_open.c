/*
 * A packed segment as a source: offsets are the segment's, bytes come out of frames.
 *
 * The frame read last is held, so that reading on within it costs nothing. What spans frames
 * is joined in a window of the source's own, which slides on with a reader that asks for much at
 * each step. It is kept when a frame must be waited for, so that each try comes further even if
 * the cache is too small for all of them.
 */
#include "warm_source.h"

#include <inttypes.h>

/* A longer buffer is not kept when what was joined in it is no longer needed. */
#define JOIN_KEPT_MAX (1024u * 1024)

static struct bop__warm_source *self_of(struct bop__segment_source *source)
{
    return BOP_CONTAINER_OF(source, struct bop__warm_source, source);
}

static const struct bop__warm_source *const_self_of(const struct bop__segment_source *source)
{
    return self_of((struct bop__segment_source *)source);
}

/* ---- The source ---- */

static uint64_t frame_end(const struct bop__warm_source *self, uint32_t number)
{
    return self->map->places[number + 1].at;
}

/* The frame that has this byte of the segment. */
static uint32_t frame_at(const struct bop__warm_source *self, uint64_t offset)
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
static unsigned frames_to(const struct bop__warm_source *self, uint32_t number, uint64_t end)
{
    unsigned count = 1;

    while (count < BOP__WARM_LOAD_MAX && frame_end(self, number + count - 1) < end) {
        count++;
    }
    return count;
}

static struct bop_slice rest_of_current(const struct bop__warm_source *self, uint64_t offset)
{
    const struct bop__frame *frame = self->current;
    size_t skipped = (size_t)(offset - self->map->places[frame->number].at);

    return bop_slice(frame->data + skipped, frame->size - skipped);
}

/* True if the window has the bytes from offset on, `least` of them. */
static bool joined(const struct bop__warm_source *self, uint64_t offset, size_t least)
{
    return offset >= self->join_at && offset - self->join_at <= self->join.size &&
           self->join.size - (size_t)(offset - self->join_at) >= least;
}

/* Move the window's beginning up to offset, or near to it. */
static void move_window(struct bop__warm_source *self, uint64_t offset)
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
static int join(struct bop__warm_source *self, uint64_t offset, size_t least, struct bop_error *err)
{
    move_window(self, offset);
    while (!joined(self, offset, least)) {
        uint64_t at = self->join_at + self->join.size;
        uint32_t number = frame_at(self, at);
        struct bop_slice bytes;
        int rc = bop__warm_use(self, number, frames_to(self, number, offset + least), err);

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

static void forget_join(struct bop__warm_source *self)
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
    struct bop__warm_source *self = self_of(source);
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
    rc = bop__warm_use(self, number, 1, err);
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
    struct bop__warm_source *self = self_of(source);

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

static int digest_dictionary(struct bop__warm_source *self, struct bop_error *err)
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
static int keep_footer(struct bop__warm_source *self, const struct bop__warm_tail *tail,
                       struct bop_error *err)
{
    const struct bop__warm_map *map = self->map;

    for (uint32_t i = map->footer_frame; i < map->frames; i++) {
        struct bop__frame *frame;
        int rc = bop__frame_cache_claim(self->cache, map->file_number, i,
                                        bop__warm_frame_size(self, i), false, &frame);

        if (rc == 1) {
            bop__frame_release(frame);
        }
        if (rc == 1 || rc == BOP_EBUSY) {
            continue;
        }
        if (rc == 0) {
            rc = bop__warm_decompress(
                self, frame, tail->bytes.data + (map->places[i].offset - tail->begin), err);
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

static void set_map(struct bop__warm_source *self, struct bop__frame *frame)
{
    self->map_frame = frame;
    self->map = (const struct bop__warm_map *)(const void *)frame->data;
    self->source.size = self->map->facts.size;
}

static int read_map(struct bop__warm_source *self, struct bop_error *err)
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

static int find_map(struct bop__warm_source *self, struct bop_error *err)
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
    struct bop__warm_source *self;
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
    struct bop__warm_source *self = self_of(warm);
    uint64_t end;

    BOP_ASSERT(self->cache && !self->packed->ask);
    if (frame >= self->map->frames) {
        return 0;
    }
    end = frame + bop_min_u64(bop_min_u64(count, BOP__WARM_LOAD_MAX), self->map->frames - frame);
    while (frame < end) {
        /* Each time round loads all that nobody else loads, and then steps over what is there. */
        int rc = bop__warm_use(self, (uint32_t)frame, (unsigned)(end - frame), err);

        if (rc < 0) {
            return rc;
        }
        frame++;
    }
    return 0;
}
