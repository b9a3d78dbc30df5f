/*
 * Frames in memory: counted references, and the cache that packed segments share.
 *
 * A frame has a number in a file with a number. It is claimed by one, who loads it, while others
 * that want it wait; then it does not change any more and stays as long as anybody holds it,
 * in the cache or not.
 */
#ifndef BOP_STORE_AOF_FRAME_CACHE_H
#define BOP_STORE_AOF_FRAME_CACHE_H

#include <stdatomic.h>

#include <bop/list.h>
#include <zstd.h>

#include "warm.h"

enum bop__frame_state {
    BOP__FRAME_LOADING,
    BOP__FRAME_READY,
    BOP__FRAME_FAILED,
};

struct bop__frame {
    struct bop_list lru; /* On the cache's list while it is ready and in the cache. */
    struct bop_list bucket;
    struct bop_allocator *allocator;
    uint64_t file_number;
    uint64_t number;
    size_t size;
    atomic_uint references;
    enum bop__frame_state state; /* The cache's lock. */
    _Alignas(16) uint8_t data[];
};

/** A frame that is in no cache, with one reference. NULL: no memory. */
struct bop__frame *bop__frame_create(struct bop_allocator *allocator, uint64_t file_number,
                                     uint64_t number, size_t size);
/** Give a reference back. NULL is fine. */
void bop__frame_release(struct bop__frame *frame);

/** What its frames are allocated with: they may outlive who puts them there. */
struct bop_allocator *bop__frame_cache_allocator(const struct bop__frame_cache *cache);

/** A reference to a frame that is there, or NULL. */
struct bop__frame *bop__frame_cache_find(struct bop__frame_cache *cache, uint64_t file_number,
                                         uint64_t number);

/**
 * Find a frame or begin to load it. 1: *out_frame is there. 0: it is the caller's to fill and then
 * to publish or to abandon. BOP_EBUSY: somebody else loads it (only without wait). BOP_ENOMEM.
 */
int bop__frame_cache_claim(struct bop__frame_cache *cache, uint64_t file_number, uint64_t number,
                           size_t size, bool wait, struct bop__frame **out_frame);
/** It is filled. The caller keeps its reference. */
void bop__frame_cache_publish(struct bop__frame_cache *cache, struct bop__frame *frame);
/** It could not be loaded; the caller's reference is gone. */
void bop__frame_cache_abandon(struct bop__frame_cache *cache, struct bop__frame *frame);

/** Put a filled frame there that was not claimed, unless there is one: then that is returned, with
 * the caller's reference, and the other is released. */
struct bop__frame *bop__frame_cache_put(struct bop__frame_cache *cache, struct bop__frame *frame);

/** A context to decompress with, from those that lie ready. NULL: no memory. */
ZSTD_DCtx *bop__frame_cache_take_context(struct bop__frame_cache *cache);
void bop__frame_cache_give_context(struct bop__frame_cache *cache, ZSTD_DCtx *context);

#endif
