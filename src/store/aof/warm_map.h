/*
 * What the tail of a packed file says: where its frames are and what they hold. It is parsed and
 * checked once and shared, through the cache, by all that have the file open.
 */
#ifndef BOP_STORE_AOF_WARM_MAP_H
#define BOP_STORE_AOF_WARM_MAP_H

#include "frame_cache.h"
#include "warm_format.h"

/* What is read at the end of a file at first; if the tail is longer, the rest follows. */
#define BOP__WARM_TAIL_READ (128u * 1024)

/** A frame. The one behind the last only has offset and at. */
struct bop__warm_place {
    uint64_t offset;    /* In the packed file. */
    uint64_t at;        /* Of its content in the segment. */
    uint64_t first_seq; /* Of the first record that begins in it; of the next one if none does. */
    uint32_t first;     /* Where that one begins in it. */
    uint32_t records;
    uint32_t crc;
};

/** Lies in a struct bop__frame's data, with the dictionary behind the places. */
struct bop__warm_map {
    struct bop__segment_facts facts;
    uint64_t file_number;
    uint64_t packed_size;
    uint64_t tail; /* Where the footer's frames begin. */
    uint32_t frames;
    uint32_t footer_frame;
    uint32_t dictionary_size;
    struct bop__warm_place places[];
};

static inline const void *bop__warm_map_dictionary(const struct bop__warm_map *map)
{
    return &map->places[map->frames + 1];
}

/** The last bytes of a file, as far as they were read. */
struct bop__warm_tail {
    struct bop_buf bytes;
    uint64_t begin; /* Where they begin in the file. */
};

/**
 * Read and check the tail of a packed file, as a frame of number BOP__WARM_TAIL that is not in
 * a cache. out_tail is the caller's to deinit in any case, and has all from map->tail on when this
 * returns 0.
 */
int bop__warm_map_read(struct bop_allocator *allocator, struct bop__packed *packed,
                       struct bop__warm_tail *out_tail, struct bop__frame **out_map,
                       struct bop_error *err);

#endif
