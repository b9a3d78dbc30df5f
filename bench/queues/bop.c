/* Our queue with a token for each side of each thread, of the kind that -DKIND=BOP_MPMC_... says.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <bop/mpmc.h>

#define CAPACITY 65536 /* Where the kind has one. */

struct queue {
    struct bop_mpmc *inner;
};

struct producer {
    struct bop_mpmc_producer *inner;
};

struct consumer {
    struct bop_mpmc_consumer *inner;
};

static struct queue *queue_create(void)
{
    struct bop_mpmc_options options = {.kind = KIND,
                                       .capacity = KIND == BOP_MPMC_BOUNDED ? CAPACITY : 0};
    struct queue *queue = malloc(sizeof(*queue));

    if (queue && bop_mpmc_create(&options, &queue->inner, NULL) == 0)
        return queue;
    free(queue);
    return NULL;
}

static void queue_destroy(struct queue *queue)
{
    bop_mpmc_destroy(queue->inner);
    free(queue);
}

static bool producer_open(struct queue *queue, struct producer *token)
{
    return bop_mpmc_producer_open(queue->inner, &token->inner) == 0;
}

static void producer_close(struct queue *queue, struct producer *token)
{
    (void)queue;
    bop_mpmc_producer_close(token->inner);
}

static bool consumer_open(struct queue *queue, struct consumer *token)
{
    return bop_mpmc_consumer_open(queue->inner, 0, &token->inner) == 0;
}

static void consumer_close(struct queue *queue, struct consumer *token)
{
    (void)queue;
    bop_mpmc_consumer_close(token->inner);
}

static inline bool push(struct queue *queue, struct producer *token, uint64_t item)
{
    return bop_mpmc_push(queue->inner, token->inner, item) == 0;
}

static inline size_t push_bulk(struct queue *queue, struct producer *token, const uint64_t *items,
                               size_t count)
{
    ssize_t pushed = bop_mpmc_push_some(queue->inner, token->inner, items, count);

    return pushed > 0 ? (size_t)pushed : 0;
}

static inline bool pop(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    return bop_mpmc_pop(queue->inner, token->inner, out_item) == 1;
}

static inline size_t pop_bulk(struct queue *queue, struct consumer *token, uint64_t *out_items,
                              size_t count)
{
    ssize_t popped = bop_mpmc_pop_bulk(queue->inner, token->inner, out_items, count);

    return popped > 0 ? (size_t)popped : 0;
}

#define QUEUE_WAITS 1

static inline void pop_wait(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    if (bop_mpmc_pop_wait(queue->inner, token->inner, out_item, BOP_MPMC_FOREVER) != 1)
        abort(); /* It would have had to wait. */
}

static inline size_t pop_bulk_wait(struct queue *queue, struct consumer *token, uint64_t *out_items,
                                   size_t count)
{
    ssize_t popped = bop_mpmc_pop_bulk_wait(queue->inner, token->inner, out_items, count,
                                            BOP_MPMC_FOREVER);

    if (popped <= 0)
        abort();
    return (size_t)popped;
}

#include "workloads.h"
