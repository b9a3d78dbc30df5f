/*
 * A packed segment as a source, as its parts see it: warm_open.c makes it and reads through it,
 * warm_frames.c gets the frames.
 */
#ifndef BOP_STORE_AOF_WARM_SOURCE_H
#define BOP_STORE_AOF_WARM_SOURCE_H

#include "warm_map.h"

struct bop__warm_source {
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

/** How many bytes of the segment a frame holds. */
static inline size_t bop__warm_frame_size(const struct bop__warm_source *self, uint32_t number)
{
    return (size_t)(self->map->places[number + 1].at - self->map->places[number].at);
}

/** Fill a frame from its compressed bytes, which are checked. 0, BOP_ECORRUPT or BOP_ENOMEM. */
int bop__warm_decompress(struct bop__warm_source *self, struct bop__frame *frame,
                         const uint8_t *bytes, struct bop_error *err);

/** Make a frame the current one, and have up to count from there on loaded if it has to be. */
int bop__warm_use(struct bop__warm_source *self, uint32_t number, unsigned count,
                  struct bop_error *err);

#endif
