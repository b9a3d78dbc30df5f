/*
 * Packed segments: the bytes of a sealed segment as a seekable zstd file, the same in tier 1
 * and tier 2. Frames are cut at records, so that one record is read by decompressing
 * one frame. Any zstd can unpack it. docs/design/warm.md describes the file.
 */
#ifndef BOP_STORE_AOF_WARM_H
#define BOP_STORE_AOF_WARM_H

#include <stdatomic.h>

#include "footer.h"

/** What packing made. */
struct bop__warm_facts {
    struct bop__segment_facts segment;
    uint64_t packed_size;
    uint64_t frames;
    uint8_t sha256[32]; /* Of the packed file. */
};

struct bop__warm_pack_options {
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    int level;
    size_t frame_bytes;
    size_t dictionary_bytes;    /* Trained on the segment's own records. 0: none. */
    const _Atomic bool *cancel; /* Ends with BOP_ECANCELED soon. May be NULL. */
    void (*on_progress)(void *user, uint64_t bytes); /* Of the segment. May be NULL. */
    void *user;
};

/**
 * Pack a sealed segment into the file at path: a temporary one first, synced, renamed, the
 * directory synced. Every record and the root are checked on the way, and with
 * memory bounded by a few frames. Blocks.
 */
int bop__warm_pack(const struct bop__warm_pack_options *options,
                   struct bop__segment_source *segment, const char *path,
                   struct bop__warm_facts *out_facts, struct bop_error *err);

/** Where a packed file's bytes are: a local file or an object. One thread at a time. */
struct bop__packed {
    enum bop_aof_tier tier;
    uint64_t size;
    /* Which file, for the cache: the same bytes have the same number, in this process. */
    uint64_t file_number;
    /* Append exactly these bytes to out. May block. */
    int (*read)(struct bop__packed *self, uint64_t offset, size_t size, struct bop_buf *out,
                struct bop_error *err);
    /* Instead of read when it would block too long: ask for it and return BOP_EHYDRATING. NULL:
     * read is called. */
    int (*ask)(struct bop__packed *self, uint64_t offset, size_t size, uint64_t frame);
    void (*close)(struct bop__packed *self);
};

/** A local packed file. */
int bop__packed_file_open(struct bop_allocator *allocator, struct bop_fs *fs, const char *path,
                          struct bop__packed **out_packed, struct bop_error *err);

/** Decompressed frames in memory, least recently used go first. Any thread. */
struct bop__frame_cache;
int bop__frame_cache_create(struct bop_allocator *allocator, uint64_t bytes_max,
                            struct bop__frame_cache **out_cache);
void bop__frame_cache_destroy(struct bop__frame_cache *cache);
uint64_t bop__frame_cache_bytes(const struct bop__frame_cache *cache);
/** Drop what belongs to a file. */
void bop__frame_cache_forget(struct bop__frame_cache *cache, uint64_t file_number);

/**
 * The segment in a packed file, as a source; packed becomes the source's, also on failure. The
 * trailer with the seek table and the footer is read and checked now (BOP_EHYDRATING is possible).
 */
int bop__warm_open(struct bop_allocator *allocator, struct bop__packed *packed,
                   struct bop__frame_cache *cache, struct bop__segment_source **out_source,
                   struct bop_error *err);

/** The packed file's frames: for read-ahead, and to fetch one that was asked for into the cache. */
uint64_t bop__warm_frames(const struct bop__segment_source *warm);
int bop__warm_load(struct bop__segment_source *warm, uint64_t frame, unsigned count,
                   struct bop_error *err);

/** Unpack everything and check it: frames, records, links, leaves, and that the root is `root`. */
int bop__warm_verify(struct bop_allocator *allocator, struct bop__packed *packed,
                     const uint8_t root[BOP_AOF_DIGEST_SIZE], struct bop__warm_facts *out_facts,
                     struct bop_error *err);

/** Write the segment's file as it was: temporary, synced, renamed, the directory synced. */
int bop__warm_unpack(struct bop_allocator *allocator, struct bop_fs *fs, struct bop__packed *packed,
                     const char *path, struct bop_error *err);

#endif
