/* For queues without bulk calls: as many single ones. The file that includes this has push, pop. */
#ifndef BENCH_QUEUES_BULK_BY_ONE_H
#define BENCH_QUEUES_BULK_BY_ONE_H

#include <stddef.h>

static inline size_t push_bulk(struct queue *queue, struct producer *token, const uint64_t *items,
                               size_t count)
{
    size_t done = 0;

    while (done < count && push(queue, token, items[done]))
        done++;
    return done;
}

static inline size_t pop_bulk(struct queue *queue, struct consumer *token, uint64_t *out_items,
                              size_t count)
{
    size_t done = 0;

    while (done < count && pop(queue, token, &out_items[done]))
        done++;
    return done;
}

#endif
