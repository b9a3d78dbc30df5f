/* moodycamel::ReaderWriterQueue: one producer, one consumer, and it grows. */
#include <stdbool.h>
#include <stdint.h>

#include <readerwriterqueue/readerwriterqueue.h>

struct queue {
    moodycamel::ReaderWriterQueue<uint64_t> inner{65536};
};

#include "no_tokens.h"

static struct queue *queue_create(void)
{
    return new queue;
}

static void queue_destroy(struct queue *queue)
{
    delete queue;
}

static inline bool push(struct queue *queue, struct producer *token, uint64_t item)
{
    (void)token;
    return queue->inner.enqueue(item);
}

static inline bool pop(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    (void)token;
    return queue->inner.try_dequeue(*out_item);
}

#include "bulk_by_one.h"
#include "workloads.h"
