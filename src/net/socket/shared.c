/*
 * Counted bytes. Those of bop_shared_create() are one block, header and all.
 */
#include <bop/shared.h>

struct block {
    struct bop_shared shared;
    size_t bytes; /* Allocated: whoever fills it may make shared.size less. */
    uint8_t data[];
};

struct bop_shared *bop_shared_create(struct bop_allocator *allocator, size_t size)
{
    struct bop_allocator *from = bop_allocator_or_default(allocator);
    struct block *block;

    if (size > SIZE_MAX - sizeof(*block)) {
        return NULL;
    }
    block = (struct block *)bop_alloc(from, sizeof(*block) + size);
    if (block == NULL) {
        return NULL;
    }
    bop_shared_init(&block->shared, block->data, size, NULL);
    block->shared.allocator = from;
    block->bytes = sizeof(*block) + size;
    return &block->shared;
}

void bop_shared_init(struct bop_shared *shared, void *data, size_t size,
                     void (*release)(struct bop_shared *shared))
{
    shared->data = (uint8_t *)data;
    shared->size = size;
    atomic_init(&shared->references, 1);
    shared->allocator = NULL;
    shared->release = release;
}

struct bop_shared *bop_shared_ref(struct bop_shared *shared)
{
    /* Relaxed: whoever takes a reference has one, so nothing can be missed. */
    atomic_fetch_add_explicit(&shared->references, 1, memory_order_relaxed);
    return shared;
}

void bop_shared_unref(struct bop_shared *shared)
{
    if (shared == NULL) {
        return;
    }
    /* Release what was done with the bytes; the last one acquires what all did. */
    if (atomic_fetch_sub_explicit(&shared->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    if (shared->release != NULL) {
        shared->release(shared);
    } else {
        struct block *block = BOP_CONTAINER_OF(shared, struct block, shared);

        bop_free(shared->allocator, block, block->bytes);
    }
}
