/*
 * A queue of values of one type, by value, over struct bop_mpmc:
 *
 *     struct job { uint32_t id; char name[28]; };
 *
 *     BOP_MPMC_DEFINE(job_queue, struct job)
 *
 *     struct job_queue *queue;
 *     rc = job_queue_create(&options, NULL, &queue, &err);
 *     rc = job_queue_push(queue, NULL, (struct job){.id = 1});
 *     rc = job_queue_pop(queue, NULL, &job);
 *
 * The macro defines struct job_queue and, as static inline functions, job_queue_
 * and each of
 *
 *     create destroy close size memory_bytes producer_open consumer_open
 *     push try_push push_wait push_bulk try_push_bulk push_bulk_wait push_some
 *     pop pop_wait pop_bulk pop_bulk_wait arm eventfd
 *
 * which promise and return what their namesakes in mpmc.h do, with the type in
 * place of uint64_t. What differs:
 *
 * A value of up to 8 bytes travels as the item itself. A larger one travels in a
 * block from the queue's allocator, which the pop copies out of and frees, and so
 * does a push that is refused: pushes may return -ENOMEM for it, and the forms
 * with try_ allocate it too. A bulk of more than BOP_MPMC_TYPED_AT_ONCE values
 * that is pushed all or none needs an array from the allocator while it lasts.
 *
 * create takes the discard for values still inside at destroy by itself, as
 * void (*discard)(void *user, type *value), with the user of the options, whose
 * own discard must be NULL. The value is destroy's: discard frees what it points
 * to. Tokens are closed by bop_mpmc_producer_close() and bop_mpmc_consumer_close().
 *
 * The type is any that can be assigned and is aligned as usual; its name must
 * work as in "type const *".
 */
#ifndef BOP_MPMC_TYPED_H
#define BOP_MPMC_TYPED_H

#include <string.h>

#include <bop/mem.h>
#include <bop/mpmc.h>

/* Values that are moved with one call of the queue, on the stack. */
#define BOP_MPMC_TYPED_AT_ONCE 64

/* -- What the macro stands on ------------------------------------------------------------------ */

enum bop__mpmc_typed_how {
    BOP__MPMC_TYPED_PUSH,
    BOP__MPMC_TYPED_TRY,
    BOP__MPMC_TYPED_WAIT,
};

/* The item for a value. Returns 0 or -ENOMEM. `size` is a constant wherever this is inlined. */
static inline int bop__mpmc_typed_wrap(struct bop_allocator *allocator, const void *value,
                                       size_t size, uint64_t *out_item)
{
    void *block;

    if (size <= sizeof(*out_item)) {
        *out_item = 0;
        memcpy(out_item, value, size);
        return 0;
    }
    block = bop_alloc(allocator, size);
    if (!block) {
        return BOP_ENOMEM;
    }
    memcpy(block, value, size);
    *out_item = (uintptr_t)block;
    return 0;
}

/* The value of an item, which is used up. */
static inline void bop__mpmc_typed_unwrap(struct bop_allocator *allocator, uint64_t item,
                                          void *out_value, size_t size)
{
    if (size <= sizeof(item)) {
        memcpy(out_value, &item, size);
    } else {
        memcpy(out_value, (const void *)(uintptr_t)item, size);
        bop_free(allocator, (void *)(uintptr_t)item, size);
    }
}

/* Free the blocks of items that will not be popped. */
static inline void bop__mpmc_typed_drop(struct bop_allocator *allocator, const uint64_t *items,
                                        size_t size, size_t count)
{
    for (size_t i = 0; size > sizeof(*items) && i < count; i++) {
        bop_free(allocator, (void *)(uintptr_t)items[i], size);
    }
}

/* The items for values, from the front: their number, `count` unless memory is short. */
static inline size_t bop__mpmc_typed_wrap_some(struct bop_allocator *allocator, const void *values,
                                               size_t size, size_t count, uint64_t *out_items)
{
    size_t done = 0;

    while (done < count && bop__mpmc_typed_wrap(allocator, (const char *)values + done * size, size,
                                                &out_items[done]) == 0) {
        done++;
    }
    return done;
}

static inline int bop__mpmc_typed_push(struct bop_mpmc *queue, struct bop_allocator *allocator,
                                       struct bop_mpmc_producer *producer, const void *value,
                                       size_t size, enum bop__mpmc_typed_how how,
                                       uint64_t timeout_us)
{
    uint64_t item;
    int rc = bop__mpmc_typed_wrap(allocator, value, size, &item);

    if (rc < 0) {
        return rc;
    }
    rc = how == BOP__MPMC_TYPED_PUSH  ? bop_mpmc_push(queue, producer, item)
         : how == BOP__MPMC_TYPED_TRY ? bop_mpmc_try_push(queue, producer, item)
                                      : bop_mpmc_push_wait(queue, producer, item, timeout_us);
    if (rc < 0) {
        bop__mpmc_typed_drop(allocator, &item, size, 1);
    }
    return rc;
}

/* All or none of the values by way of `items`, which has room for them. */
static inline int bop__mpmc_typed_push_by(struct bop_mpmc *queue, struct bop_allocator *allocator,
                                          struct bop_mpmc_producer *producer, const void *values,
                                          size_t size, size_t count, uint64_t *items,
                                          enum bop__mpmc_typed_how how, uint64_t timeout_us)
{
    size_t wrapped = bop__mpmc_typed_wrap_some(allocator, values, size, count, items);
    int rc;

    if (wrapped < count) {
        rc = BOP_ENOMEM;
    } else if (how == BOP__MPMC_TYPED_PUSH) {
        rc = bop_mpmc_push_bulk(queue, producer, items, count);
    } else if (how == BOP__MPMC_TYPED_TRY) {
        rc = bop_mpmc_try_push_bulk(queue, producer, items, count);
    } else {
        rc = bop_mpmc_push_bulk_wait(queue, producer, items, count, timeout_us);
    }
    if (rc < 0) {
        bop__mpmc_typed_drop(allocator, items, size, wrapped);
    }
    return rc;
}

static inline int bop__mpmc_typed_push_bulk(struct bop_mpmc *queue, struct bop_allocator *allocator,
                                            struct bop_mpmc_producer *producer, const void *values,
                                            size_t size, size_t count, enum bop__mpmc_typed_how how,
                                            uint64_t timeout_us)
{
    uint64_t few[BOP_MPMC_TYPED_AT_ONCE];
    uint64_t *items;
    int rc;

    if (count <= BOP_MPMC_TYPED_AT_ONCE) {
        return bop__mpmc_typed_push_by(queue, allocator, producer, values, size, count, few, how,
                                       timeout_us);
    }
    items = count <= SIZE_MAX / sizeof(*items) ? bop_alloc(allocator, count * sizeof(*items))
                                               : NULL;
    if (!items) {
        return BOP_ENOMEM;
    }
    rc = bop__mpmc_typed_push_by(queue, allocator, producer, values, size, count, items, how,
                                 timeout_us);
    bop_free(allocator, items, count * sizeof(*items));
    return rc;
}

static inline ssize_t bop__mpmc_typed_push_some(struct bop_mpmc *queue,
                                                struct bop_allocator *allocator,
                                                struct bop_mpmc_producer *producer,
                                                const void *values, size_t size, size_t count)
{
    uint64_t items[BOP_MPMC_TYPED_AT_ONCE];
    size_t done = 0;
    size_t wanted, wrapped;
    ssize_t pushed;

    do {
        wanted = (size_t)bop_min_u64(count - done, BOP_MPMC_TYPED_AT_ONCE);
        wrapped = bop__mpmc_typed_wrap_some(allocator, (const char *)values + done * size, size,
                                            wanted, items);
        pushed = wrapped == 0 && wanted > 0 ? BOP_ENOMEM
                                            : bop_mpmc_push_some(queue, producer, items, wrapped);
        if (pushed < 0) {
            bop__mpmc_typed_drop(allocator, items, size, wrapped);
            return done > 0 ? (ssize_t)done : pushed;
        }
        bop__mpmc_typed_drop(allocator, items + pushed, size, wrapped - (size_t)pushed);
        done += (size_t)pushed;
    } while ((size_t)pushed == wanted && done < count);
    return (ssize_t)done;
}

/* Waits for the first value only; timeout_us 0: not at all. */
static inline ssize_t bop__mpmc_typed_pop_bulk(struct bop_mpmc *queue,
                                               struct bop_allocator *allocator,
                                               struct bop_mpmc_consumer *consumer, void *out_values,
                                               size_t size, size_t count, uint64_t timeout_us)
{
    uint64_t items[BOP_MPMC_TYPED_AT_ONCE];
    size_t done = 0;
    size_t wanted;
    ssize_t popped;

    do {
        wanted = (size_t)bop_min_u64(count - done, BOP_MPMC_TYPED_AT_ONCE);
        popped = timeout_us > 0 && done == 0
                     ? bop_mpmc_pop_bulk_wait(queue, consumer, items, wanted, timeout_us)
                     : bop_mpmc_pop_bulk(queue, consumer, items, wanted);
        if (popped < 0) {
            return done > 0 ? (ssize_t)done : popped;
        }
        for (size_t i = 0; i < (size_t)popped; i++) {
            bop__mpmc_typed_unwrap(allocator, items[i], (char *)out_values + (done + i) * size,
                                   size);
        }
        done += (size_t)popped;
    } while ((size_t)popped == wanted && done < count);
    return (ssize_t)done;
}

/* -- The macro --------------------------------------------------------------------------------- */

#define BOP_MPMC_DEFINE(name, type)                                                                \
                                                                                                   \
    struct name {                                                                                  \
        struct bop_mpmc *queue;                                                                    \
        struct bop_allocator *allocator;                                                           \
        void (*discard)(void *user, type *value);                                                  \
        void (*notify)(void *user);                                                                \
        void *user;                                                                                \
    };                                                                                             \
                                                                                                   \
    _Static_assert(_Alignof(type) <= _Alignof(max_align_t),                                        \
                   "an allocator does not align for " #type);                                      \
                                                                                                   \
    BOP_UNUSED static void name##__discard(void *self, uint64_t item)                              \
    {                                                                                              \
        struct name *queue = (struct name *)self;                                                  \
        type value;                                                                                \
                                                                                                   \
        bop__mpmc_typed_unwrap(queue->allocator, item, &value, sizeof(type));                      \
        if (queue->discard) {                                                                      \
            queue->discard(queue->user, &value);                                                   \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED static void name##__notify(void *self)                                              \
    {                                                                                              \
        struct name *queue = (struct name *)self;                                                  \
                                                                                                   \
        queue->notify(queue->user);                                                                \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_create(                                       \
        const struct bop_mpmc_options *options, void (*discard)(void *user, type *value),          \
        struct name **out_queue, struct bop_error *err)                                            \
    {                                                                                              \
        struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "core.mpmc");   \
        struct bop_mpmc_options inner = *options;                                                  \
        struct name *queue;                                                                        \
        int rc;                                                                                    \
                                                                                                   \
        if (options->discard) {                                                                    \
            return bop_error_say(err, BOP_EINVAL,                                                  \
                                 "discard is set in the options, but " #name                       \
                                 "_create() takes it as a parameter");                             \
        }                                                                                          \
        queue = (struct name *)bop_alloc(allocator, sizeof(*queue));                               \
        if (!queue) {                                                                              \
            return bop_error_set(err, BOP_ENOMEM, "create a queue");                               \
        }                                                                                          \
        queue->allocator = allocator;                                                              \
        queue->discard = discard;                                                                  \
        queue->notify = options->notify;                                                           \
        queue->user = options->user;                                                               \
        inner.discard = discard || sizeof(type) > sizeof(uint64_t) ? name##__discard : NULL;       \
        inner.notify = options->notify ? name##__notify : NULL;                                    \
        inner.user = queue;                                                                        \
        rc = bop_mpmc_create(&inner, &queue->queue, err);                                          \
        if (rc < 0) {                                                                              \
            bop_free(allocator, queue, sizeof(*queue));                                            \
            return rc;                                                                             \
        }                                                                                          \
        *out_queue = queue;                                                                        \
        return 0;                                                                                  \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED static inline void name##_destroy(struct name *queue)                               \
    {                                                                                              \
        if (queue) {                                                                               \
            bop_mpmc_destroy(queue->queue);                                                        \
            bop_free(queue->allocator, queue, sizeof(*queue));                                     \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED static inline void name##_close(struct name *queue)                                 \
    {                                                                                              \
        bop_mpmc_close(queue->queue);                                                              \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED static inline size_t name##_size(const struct name *queue)                          \
    {                                                                                              \
        return bop_mpmc_size(queue->queue);                                                        \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED static inline size_t name##_memory_bytes(const struct name *queue)                  \
    {                                                                                              \
        return bop_mpmc_memory_bytes(queue->queue);                                                \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_producer_open(                                \
        struct name *queue, struct bop_mpmc_producer **out_producer)                               \
    {                                                                                              \
        return bop_mpmc_producer_open(queue->queue, out_producer);                                 \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_consumer_open(                                \
        struct name *queue, unsigned claim_ahead, struct bop_mpmc_consumer **out_consumer)         \
    {                                                                                              \
        return bop_mpmc_consumer_open(queue->queue, claim_ahead, out_consumer);                    \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_push(                                         \
        struct name *queue, struct bop_mpmc_producer *producer, type value)                        \
    {                                                                                              \
        return bop__mpmc_typed_push(queue->queue, queue->allocator, producer, &value,              \
                                    sizeof(type), BOP__MPMC_TYPED_PUSH, 0);                        \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_try_push(                                     \
        struct name *queue, struct bop_mpmc_producer *producer, type value)                        \
    {                                                                                              \
        return bop__mpmc_typed_push(queue->queue, queue->allocator, producer, &value,              \
                                    sizeof(type), BOP__MPMC_TYPED_TRY, 0);                         \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_push_wait(                                    \
        struct name *queue, struct bop_mpmc_producer *producer, type value, uint64_t timeout_us)   \
    {                                                                                              \
        return bop__mpmc_typed_push(queue->queue, queue->allocator, producer, &value,              \
                                    sizeof(type), BOP__MPMC_TYPED_WAIT, timeout_us);               \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_push_bulk(                                    \
        struct name *queue, struct bop_mpmc_producer *producer, type const *values, size_t count)  \
    {                                                                                              \
        return bop__mpmc_typed_push_bulk(queue->queue, queue->allocator, producer, values,         \
                                         sizeof(type), count, BOP__MPMC_TYPED_PUSH, 0);            \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_try_push_bulk(                                \
        struct name *queue, struct bop_mpmc_producer *producer, type const *values, size_t count)  \
    {                                                                                              \
        return bop__mpmc_typed_push_bulk(queue->queue, queue->allocator, producer, values,         \
                                         sizeof(type), count, BOP__MPMC_TYPED_TRY, 0);             \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_push_bulk_wait(                               \
        struct name *queue, struct bop_mpmc_producer *producer, type const *values, size_t count,  \
        uint64_t timeout_us)                                                                       \
    {                                                                                              \
        return bop__mpmc_typed_push_bulk(queue->queue, queue->allocator, producer, values,         \
                                         sizeof(type), count, BOP__MPMC_TYPED_WAIT, timeout_us);   \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline ssize_t name##_push_some(                                \
        struct name *queue, struct bop_mpmc_producer *producer, type const *values, size_t count)  \
    {                                                                                              \
        return bop__mpmc_typed_push_some(queue->queue, queue->allocator, producer, values,         \
                                         sizeof(type), count);                                     \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_pop(                                          \
        struct name *queue, struct bop_mpmc_consumer *consumer, type *out_value)                   \
    {                                                                                              \
        uint64_t item = 0;                                                                         \
        int rc = bop_mpmc_pop(queue->queue, consumer, &item);                                      \
                                                                                                   \
        if (rc == 1) {                                                                             \
            bop__mpmc_typed_unwrap(queue->allocator, item, out_value, sizeof(type));               \
        }                                                                                          \
        return rc;                                                                                 \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_pop_wait(                                     \
        struct name *queue, struct bop_mpmc_consumer *consumer, type *out_value,                   \
        uint64_t timeout_us)                                                                       \
    {                                                                                              \
        uint64_t item = 0;                                                                         \
        int rc = bop_mpmc_pop_wait(queue->queue, consumer, &item, timeout_us);                     \
                                                                                                   \
        if (rc == 1) {                                                                             \
            bop__mpmc_typed_unwrap(queue->allocator, item, out_value, sizeof(type));               \
        }                                                                                          \
        return rc;                                                                                 \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline ssize_t name##_pop_bulk(                                 \
        struct name *queue, struct bop_mpmc_consumer *consumer, type *out_values, size_t count)    \
    {                                                                                              \
        return bop__mpmc_typed_pop_bulk(queue->queue, queue->allocator, consumer, out_values,      \
                                        sizeof(type), count, 0);                                   \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline ssize_t name##_pop_bulk_wait(                            \
        struct name *queue, struct bop_mpmc_consumer *consumer, type *out_values, size_t count,    \
        uint64_t timeout_us)                                                                       \
    {                                                                                              \
        return bop__mpmc_typed_pop_bulk(queue->queue, queue->allocator, consumer, out_values,      \
                                        sizeof(type), count, timeout_us);                          \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline bool name##_arm(struct name *queue)                      \
    {                                                                                              \
        return bop_mpmc_arm(queue->queue);                                                         \
    }                                                                                              \
                                                                                                   \
    BOP_UNUSED BOP_MUST_USE static inline int name##_eventfd(struct name *queue)                   \
    {                                                                                              \
        return bop_mpmc_eventfd(queue->queue);                                                     \
    }

#endif
