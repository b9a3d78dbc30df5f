/*
 * Packed segments: the bytes of a sealed segment as a seekable zstd file, the same in tier 1
 * and tier 2. Frames are cut at records, so that one record is read by decompressing
 * one frame. Any zstd can unpack it. docs/design/warm.md describes the file.
 */
#ifndef BOP_STORE_AOF_WARM_H
#define BOP_STORE_AOF_WARM_H

#include <stdatomic.h>

#include "footer.h"

#define BOP__WARM_FRAME_MIN      1024u
#define BOP__WARM_FRAME_MAX      (1024u * 1024)
#define BOP__WARM_DICTIONARY_MAX (128u * 1024)
/* Frames that bop__warm_load takes at once, at most. */
#define BOP__WARM_LOAD_MAX 256u
/* What bop__packed.ask is given for a frame when the tail of the file is wanted. */
#define BOP__WARM_TAIL UINT64_MAX

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
    size_t frame_bytes;         /* BOP__WARM_FRAME_MIN to _MAX. */
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
    const char *name; /* For messages: the path or the key. Lives as long as this. */
    uint64_t size;
    /* Which file, for the cache: the same bytes have the same number, in this process. 0: opening
     * makes one from the content, and reads the tail each time. */
    uint64_t file_number;
    /* Append exactly these bytes to out. May block. */
    int (*read)(struct bop__packed *self, uint64_t offset, size_t size, struct bop_buf *out,
                struct bop_error *err);
    /* Instead of read when it would block too long: ask for it and return BOP_EHYDRATING. NULL:
     * read is called. [offset, offset + size) are whole frames from `frame` on, all that the caller
     * needs now and that is not in the cache, as far as bop__warm_load goes. Whoever serves it
     * opens the file with a packed of the same number and without ask, and calls that; for
     * BOP__WARM_TAIL opening is all. */
    int (*ask)(struct bop__packed *self, uint64_t offset, size_t size, uint64_t frame);
    void (*close)(struct bop__packed *self);
};

/** A local packed file. Its file_number is 0 and may be set before it is used. */
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
 * tail with seek table, facts and footer is read and checked now (BOP_EHYDRATING is possible),
 * or is found in the cache. BOP_ECORRUPT; BOP_EVERSION. cache may be NULL: then there is none, and
 * packed->ask must be NULL. The cache lives longer than the source.
 */
int bop__warm_open(struct bop_allocator *allocator, struct bop__packed *packed,
                   struct bop__frame_cache *cache, struct bop__segment_source **out_source,
                   struct bop_error *err);

/** What the file says of its segment, to be compared with what was expected there. */
const struct bop__segment_facts *bop__warm_segment(const struct bop__segment_source *warm);

/** The packed file's frames: for read-ahead, and to fetch one that was asked for into the cache. */
uint64_t bop__warm_frames(const struct bop__segment_source *warm);
/** Load `count` frames from `frame` on, as far as there are, with one read; those there are not. */
int bop__warm_load(struct bop__segment_source *warm, uint64_t frame, unsigned count,
                   struct bop_error *err);

/** Unpack everything and check it: frames, records, links, leaves, and that the root is `root`.
 * packed stays the caller's, here and below, and is read front to back. */
int bop__warm_verify(struct bop_allocator *allocator, struct bop__packed *packed,
                     const uint8_t root[BOP_AOF_DIGEST_SIZE], struct bop__warm_facts *out_facts,
                     struct bop_error *err);

/** Write the segment's file as it was: temporary, synced, renamed, the directory synced. */
int bop__warm_unpack(struct bop_allocator *allocator, struct bop_fs *fs, struct bop__packed *packed,
                     const char *path, struct bop_error *err);

#endif
