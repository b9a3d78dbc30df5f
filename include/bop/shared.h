/*
 * Counted bytes: immutable once shared, freed with the last reference. One
 * framed message goes to a thousand sockets without a copy.
 *
 * Threads: any; a reference is owned by one of them at a time.
 */
#ifndef BOP_SHARED_H
#define BOP_SHARED_H

#include <stdatomic.h>

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/slice.h>

struct bop_shared {
    uint8_t *data;
    size_t size;
    _Atomic uint32_t references;
    struct bop_allocator *allocator;            /* Of bop_shared_create(). */
    void (*release)(struct bop_shared *shared); /* Called instead with the last reference. */
};

/** A buffer of `size` bytes to fill before it is shared, with one reference. NULL: no memory. */
BOP_API BOP_MUST_USE struct bop_shared *bop_shared_create(struct bop_allocator *allocator,
                                                          size_t size);
/** Make a header of one's own around bytes of one's own, with one reference. */
BOP_API void bop_shared_init(struct bop_shared *shared, void *data, size_t size,
                             void (*release)(struct bop_shared *shared));
BOP_API struct bop_shared *bop_shared_ref(struct bop_shared *shared);
/** NULL is fine. */
BOP_API void bop_shared_unref(struct bop_shared *shared);

#endif
