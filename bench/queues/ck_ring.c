/* Concurrency Kit's ring of 65,536 pointers; with -DSPSC for one producer and one consumer. */
#include <ck_ring.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef SPSC
#define ENQUEUE ck_ring_enqueue_spsc
#define DEQUEUE ck_ring_dequeue_spsc
#else
#define ENQUEUE ck_ring_enqueue_mpmc
#define DEQUEUE ck_ring_dequeue_mpmc
#endif

#define CAPACITY 65536

struct queue {
    ck_ring_t ring;
    ck_ring_buffer_t buffer[CAPACITY];
};

#include "no_tokens.h"

static struct queue *queue_create(void)
{
    struct queue *queue = aligned_alloc(128, sizeof(*queue));

    if (!queue)
        return NULL;
    memset(queue, 0, sizeof(*queue));
    ck_ring_init(&queue->ring, CAPACITY);
    return queue;
}

static void queue_destroy(struct queue *queue)
{
    free(queue);
}

static inline bool push(struct queue *queue, struct producer *token, uint64_t item)
{
    (void)token;
    return ENQUEUE(&queue->ring, queue->buffer, (void *)(uintptr_t)item);
}

static inline bool pop(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    void *item;

    (void)token;
    if (!DEQUEUE(&queue->ring, queue->buffer, &item))
        return false;
    *out_item = (uint64_t)(uintptr_t)item;
    return true;
}

#include "bulk_by_one.h"
#include "workloads.h"
