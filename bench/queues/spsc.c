/* Our queue for one producer and one consumer. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <bop/spsc.h>

#define CAPACITY 65536

struct queue {
    struct bop_spsc *inner;
};

#include "no_tokens.h"

static struct queue *queue_create(void)
{
    struct bop_spsc_options options = {.capacity = CAPACITY};
    struct queue *queue = malloc(sizeof(*queue));

    if (queue && bop_spsc_create(&options, &queue->inner, NULL) == 0)
        return queue;
    free(queue);
    return NULL;
}

static void queue_destroy(struct queue *queue)
{
    bop_spsc_destroy(queue->inner);
    free(queue);
}

static inline bool push(struct queue *queue, struct producer *token, uint64_t item)
{
    (void)token;
    return bop_spsc_push(queue->inner, item) == 0;
}

static inline size_t push_bulk(struct queue *queue, struct producer *token, const uint64_t *items,
                               size_t count)
{
    ssize_t pushed = bop_spsc_push_bulk(queue->inner, items, count);

    (void)token;
    return pushed > 0 ? (size_t)pushed : 0;
}

static inline bool pop(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    (void)token;
    return bop_spsc_pop(queue->inner, out_item) == 1;
}

static inline size_t pop_bulk(struct queue *queue, struct consumer *token, uint64_t *out_items,
                              size_t count)
{
    ssize_t popped = bop_spsc_pop_bulk(queue->inner, out_items, count);

    (void)token;
    return popped > 0 ? (size_t)popped : 0;
}

#include "workloads.h"
