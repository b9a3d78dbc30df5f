/*
 * The cache of decompressed frames: a hash table and a list by last use, under one lock that is
 * held for a look-up, never for a load.
 *
 *   claimed (LOADING, in the table) -> published (READY, in the table and on the list)
 *                                   -> abandoned (FAILED, nowhere)
 *
 * Who waits for a frame holds a reference to it, so what it waits for cannot go away, and takes it
 * even if it was forgotten meanwhile. The table has one reference to each frame in it.
 */
#include "frame_cache.h"

#include <pthread.h>

#define BUCKETS_MIN  64u
#define BUCKETS_MAX  (1u << 20)
#define CONTEXTS_MAX 8u

struct bop__frame_cache {
    struct bop_allocator *allocator;
    uint64_t bytes_max;

    pthread_mutex_t lock;
    pthread_cond_t loaded; /* A frame stopped loading. */
    uint64_t bytes;        /* Of frames on the list. */
    struct bop_list lru;   /* The least recently used first. */
    ZSTD_DCtx *contexts[CONTEXTS_MAX];
    size_t context_count;
    size_t bucket_count; /* A power of two. */
    struct bop_list *buckets;
};

/* ---- Frames ---- */

static size_t frame_bytes(const struct bop__frame *frame)
{
    return sizeof(*frame) + frame->size;
}

struct bop__frame *bop__frame_create(struct bop_allocator *allocator, uint64_t file_number,
                                     uint64_t number, size_t size)
{
    struct bop__frame *frame = bop_alloc(allocator, sizeof(*frame) + size);

    if (frame) {
        bop_list_init(&frame->lru);
        bop_list_init(&frame->bucket);
        frame->allocator = allocator;
        frame->file_number = file_number;
        frame->number = number;
        frame->size = size;
        atomic_init(&frame->references, 1);
        frame->state = BOP__FRAME_LOADING;
    }
    return frame;
}

static void hold(struct bop__frame *frame)
{
    /* Relaxed: whoever holds has a reference or the lock already. */
    atomic_fetch_add_explicit(&frame->references, 1, memory_order_relaxed);
}

void bop__frame_release(struct bop__frame *frame)
{
    /* Each release makes the holder's reads happen before the last one frees. */
    if (frame && atomic_fetch_sub_explicit(&frame->references, 1, memory_order_acq_rel) == 1) {
        bop_free(frame->allocator, frame, frame_bytes(frame));
    }
}

/* ---- The cache ---- */

static size_t buckets_for(uint64_t bytes_max)
{
    size_t count = BUCKETS_MIN;

    while (count < BUCKETS_MAX && count < bytes_max / (16 * 1024)) {
        count *= 2;
    }
    return count;
}

int bop__frame_cache_create(struct bop_allocator *allocator, uint64_t bytes_max,
                            struct bop__frame_cache **out_cache)
{
    struct bop__frame_cache *cache;

    allocator = bop_allocator_or_default(allocator);
    cache = bop_alloc_zeroed(allocator, sizeof(*cache));
    if (!cache) {
        return BOP_ENOMEM;
    }
    cache->allocator = allocator;
    cache->bytes_max = bytes_max;
    cache->bucket_count = buckets_for(bytes_max);
    cache->buckets = bop_alloc_array(allocator, cache->bucket_count, sizeof(*cache->buckets));
    if (!cache->buckets) {
        bop_free(allocator, cache, sizeof(*cache));
        return BOP_ENOMEM;
    }
    for (size_t i = 0; i < cache->bucket_count; i++) {
        bop_list_init(&cache->buckets[i]);
    }
    bop_list_init(&cache->lru);
    BOP_ASSERT(pthread_mutex_init(&cache->lock, NULL) == 0);
    BOP_ASSERT(pthread_cond_init(&cache->loaded, NULL) == 0);
    *out_cache = cache;
    return 0;
}

/* Take a frame out of the cache. Whoever holds it keeps it. */
static void drop(struct bop__frame_cache *cache, struct bop__frame *frame)
{
    if (frame->state == BOP__FRAME_READY) {
        cache->bytes -= frame_bytes(frame);
    }
    bop_list_remove(&frame->lru);
    bop_list_remove(&frame->bucket);
    bop__frame_release(frame);
}

static struct bop__frame *oldest(struct bop__frame_cache *cache)
{
    return BOP_CONTAINER_OF(cache->lru.next, struct bop__frame, lru);
}

void bop__frame_cache_destroy(struct bop__frame_cache *cache)
{
    if (!cache) {
        return;
    }
    while (!bop_list_empty(&cache->lru)) {
        drop(cache, oldest(cache));
    }
    for (size_t i = 0; i < cache->bucket_count; i++) {
        BOP_ASSERT(bop_list_empty(&cache->buckets[i])); /* Nobody loads. */
    }
    while (cache->context_count > 0) {
        ZSTD_freeDCtx(cache->contexts[--cache->context_count]);
    }
    pthread_cond_destroy(&cache->loaded);
    pthread_mutex_destroy(&cache->lock);
    bop_free(cache->allocator, cache->buckets, cache->bucket_count * sizeof(*cache->buckets));
    bop_free(cache->allocator, cache, sizeof(*cache));
}

static void lock(const struct bop__frame_cache *cache)
{
    BOP_ASSERT(pthread_mutex_lock((pthread_mutex_t *)&cache->lock) == 0);
}

static void unlock(const struct bop__frame_cache *cache)
{
    BOP_ASSERT(pthread_mutex_unlock((pthread_mutex_t *)&cache->lock) == 0);
}

struct bop_allocator *bop__frame_cache_allocator(const struct bop__frame_cache *cache)
{
    return cache->allocator;
}

uint64_t bop__frame_cache_bytes(const struct bop__frame_cache *cache)
{
    uint64_t bytes;

    lock(cache);
    bytes = cache->bytes;
    unlock(cache);
    return bytes;
}

void bop__frame_cache_forget(struct bop__frame_cache *cache, uint64_t file_number)
{
    lock(cache);
    /* The table, not the list: what is being loaded is to be forgotten too. */
    for (size_t i = 0; i < cache->bucket_count; i++) {
        BOP_LIST_FOR_EACH_SAFE(link, &cache->buckets[i]) {
            struct bop__frame *frame = BOP_CONTAINER_OF(link, struct bop__frame, bucket);

            if (frame->file_number == file_number) {
                drop(cache, frame);
            }
        }
    }
    unlock(cache);
}

/* ---- Look-up; under the lock ---- */

static struct bop_list *bucket_of(struct bop__frame_cache *cache, uint64_t file_number,
                                  uint64_t number)
{
    /* Files' numbers may be small or digests, frames' are small: the multiplications spread both
     * into the upper half. */
    uint64_t hash = (file_number ^ number * UINT64_C(0x9e3779b97f4a7c15)) *
                    UINT64_C(0xd6e8feb86659fd93);

    return &cache->buckets[(hash >> 32) & (cache->bucket_count - 1)];
}

/* The frame in the table, with a reference and as the last used one. */
static struct bop__frame *look_up(struct bop__frame_cache *cache, uint64_t file_number,
                                  uint64_t number)
{
    BOP_LIST_FOR_EACH(link, bucket_of(cache, file_number, number)) {
        struct bop__frame *frame = BOP_CONTAINER_OF(link, struct bop__frame, bucket);

        if (frame->file_number == file_number && frame->number == number) {
            if (frame->state == BOP__FRAME_READY) {
                bop_list_remove(&frame->lru);
                bop_list_push_back(&cache->lru, &frame->lru);
            }
            hold(frame);
            return frame;
        }
    }
    return NULL;
}

static void enter(struct bop__frame_cache *cache, struct bop__frame *frame)
{
    hold(frame);
    bop_list_push_front(bucket_of(cache, frame->file_number, frame->number), &frame->bucket);
}

/* It is filled and in the table: keep it, and push others out. It itself stays, even if it alone
 * is above the budget: who asked for it is about to look. */
static void keep(struct bop__frame_cache *cache, struct bop__frame *frame)
{
    bop_list_push_back(&cache->lru, &frame->lru);
    cache->bytes += frame_bytes(frame);
    while (cache->bytes > cache->bytes_max && oldest(cache) != frame) {
        drop(cache, oldest(cache));
    }
}

/* ---- Claims ---- */

struct bop__frame *bop__frame_cache_find(struct bop__frame_cache *cache, uint64_t file_number,
                                         uint64_t number)
{
    struct bop__frame *frame;

    lock(cache);
    frame = look_up(cache, file_number, number);
    if (frame && frame->state != BOP__FRAME_READY) {
        bop__frame_release(frame); /* Not the last one: the table has one. */
        frame = NULL;
    }
    unlock(cache);
    return frame;
}

/* One look, under the lock, which is given up while waiting. As bop__frame_cache_claim; with fresh
 * NULL, BOP_EAGAIN says that one is needed. */
static int claim(struct bop__frame_cache *cache, uint64_t file_number, uint64_t number, bool wait,
                 struct bop__frame *fresh, struct bop__frame **out_frame)
{
    struct bop__frame *frame = look_up(cache, file_number, number);

    while (frame && wait && frame->state == BOP__FRAME_LOADING) {
        BOP_ASSERT(pthread_cond_wait(&cache->loaded, &cache->lock) == 0);
    }
    if (frame && frame->state == BOP__FRAME_READY) {
        *out_frame = frame;
        return 1;
    }
    if (frame) {
        /* Being loaded, or it could not be loaded, and the next one may try. */
        int rc = frame->state == BOP__FRAME_LOADING ? BOP_EBUSY : BOP_EAGAIN;

        bop__frame_release(frame);
        return rc;
    }
    if (!fresh) {
        return BOP_EAGAIN;
    }
    enter(cache, fresh);
    *out_frame = fresh;
    return 0;
}

int bop__frame_cache_claim(struct bop__frame_cache *cache, uint64_t file_number, uint64_t number,
                           size_t size, bool wait, struct bop__frame **out_frame)
{
    struct bop__frame *fresh = NULL;
    int rc;

    for (;;) {
        lock(cache);
        rc = claim(cache, file_number, number, wait, fresh, out_frame);
        unlock(cache);
        if (rc != BOP_EAGAIN) {
            break;
        }
        if (!fresh) {
            /* Without the lock: somebody else may have claimed it when we come back. */
            fresh = bop__frame_create(cache->allocator, file_number, number, size);
            if (!fresh) {
                return BOP_ENOMEM;
            }
        }
    }
    if (rc != 0) {
        bop__frame_release(fresh);
    }
    return rc;
}

void bop__frame_cache_publish(struct bop__frame_cache *cache, struct bop__frame *frame)
{
    lock(cache);
    BOP_ASSERT(frame->state == BOP__FRAME_LOADING);
    frame->state = BOP__FRAME_READY;
    if (!bop_list_empty(&frame->bucket)) { /* Else it was forgotten. */
        keep(cache, frame);
    }
    BOP_ASSERT(pthread_cond_broadcast(&cache->loaded) == 0);
    unlock(cache);
}

void bop__frame_cache_abandon(struct bop__frame_cache *cache, struct bop__frame *frame)
{
    lock(cache);
    BOP_ASSERT(frame->state == BOP__FRAME_LOADING);
    if (!bop_list_empty(&frame->bucket)) {
        drop(cache, frame);
    }
    frame->state = BOP__FRAME_FAILED;
    BOP_ASSERT(pthread_cond_broadcast(&cache->loaded) == 0);
    unlock(cache);
    bop__frame_release(frame);
}

struct bop__frame *bop__frame_cache_put(struct bop__frame_cache *cache, struct bop__frame *frame)
{
    struct bop__frame *there;

    lock(cache);
    there = look_up(cache, frame->file_number, frame->number);
    if (!there) {
        frame->state = BOP__FRAME_READY;
        enter(cache, frame);
        keep(cache, frame);
    }
    unlock(cache);
    if (there) {
        BOP_ASSERT(there->state == BOP__FRAME_READY); /* Only claims load in the table. */
        bop__frame_release(frame);
        return there;
    }
    return frame;
}

/* ---- Contexts ---- */

ZSTD_DCtx *bop__frame_cache_take_context(struct bop__frame_cache *cache)
{
    ZSTD_DCtx *context = NULL;

    lock(cache);
    if (cache->context_count > 0) {
        context = cache->contexts[--cache->context_count];
    }
    unlock(cache);
    return context ? context : ZSTD_createDCtx();
}

void bop__frame_cache_give_context(struct bop__frame_cache *cache, ZSTD_DCtx *context)
{
    lock(cache);
    if (cache->context_count < CONTEXTS_MAX) {
        cache->contexts[cache->context_count++] = context;
        context = NULL;
    }
    unlock(cache);
    ZSTD_freeDCtx(context); /* NULL is fine. */
}
