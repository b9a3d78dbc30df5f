/*
 * A bounded queue of 64-bit values from one producer to one consumer.
 *
 * A ring with an index on each side; each side keeps a copy of the other's index
 * and looks at the real one only when the copy says full or empty, so that the
 * two share no cache line most of the time (Lee et al., "MCRingBuffer", 2010).
 * Wait-free but for the functions whose name ends in _wait, and for close, which
 * waits for a push under way.
 *
 * Threads: one may push and one may pop, at the same time. The other functions:
 * any thread, but for create and destroy, which need the queue to themselves.
 */
#ifndef BOP_SPSC_H
#define BOP_SPSC_H

#include <sys/types.h>

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>

struct bop_spsc;

#define BOP_SPSC_FOREVER UINT64_MAX

struct bop_spsc_options {
    struct bop_allocator *allocator; /* Borrowed until destroy. Default: the tag "core.mpmc". */
    size_t capacity;                 /* A power of two, 2 to 2^31. Required. */
    /* Destroy hands each item still inside to this, in order. Default: they are dropped. */
    void (*discard)(void *user, uint64_t item);
    void *user;
};

/** Returns 0, -EINVAL with err naming the field, or -ENOMEM. err may be NULL. */
BOP_API BOP_MUST_USE int bop_spsc_create(const struct bop_spsc_options *options,
                                         struct bop_spsc **out_queue, struct bop_error *err);
/** NULL is fine. */
BOP_API void bop_spsc_destroy(struct bop_spsc *queue);

/**
 * Refuse pushes from now on and wake whoever waits. Any thread. When this returns no push succeeds
 * any more, and what was accepted can be popped; then pops return BOP_ECLOSED.
 */
BOP_API void bop_spsc_close(struct bop_spsc *queue);

/** Returns 0, BOP_EFULL or BOP_ECLOSED. */
BOP_API BOP_MUST_USE int bop_spsc_push(struct bop_spsc *queue, uint64_t item);
/** As many as fit, from the front: their number (at least 1), or BOP_EFULL, BOP_ECLOSED. */
BOP_API BOP_MUST_USE ssize_t bop_spsc_push_bulk(struct bop_spsc *queue, const uint64_t *items,
                                                size_t count);
/** As push; while it is full wait, at most timeout_us: BOP_ETIMEOUT then. */
BOP_API BOP_MUST_USE int bop_spsc_push_wait(struct bop_spsc *queue, uint64_t item,
                                            uint64_t timeout_us);

/** 1 and the item, 0 if empty, BOP_ECLOSED if closed and drained. */
BOP_API BOP_MUST_USE int bop_spsc_pop(struct bop_spsc *queue, uint64_t *out_item);
/** Up to count items: their number, 0 if empty, BOP_ECLOSED if closed and drained. */
BOP_API BOP_MUST_USE ssize_t bop_spsc_pop_bulk(struct bop_spsc *queue, uint64_t *out_items,
                                               size_t count);
/** As pop; while it is empty wait, at most timeout_us: 0 then. */
BOP_API BOP_MUST_USE int bop_spsc_pop_wait(struct bop_spsc *queue, uint64_t *out_item,
                                           uint64_t timeout_us);

/** Items inside: exact at rest. */
BOP_API size_t bop_spsc_size(const struct bop_spsc *queue);
BOP_API size_t bop_spsc_capacity(const struct bop_spsc *queue);

#endif
