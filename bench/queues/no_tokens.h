/* For queues without tokens, or with one for producers only: then OWN_PRODUCER is defined. The file
 * that includes this has defined struct queue. */
#ifndef BENCH_QUEUES_NO_TOKENS_H
#define BENCH_QUEUES_NO_TOKENS_H

#include <stdbool.h>

struct consumer {
    char unused;
};

static bool consumer_open(struct queue *queue, struct consumer *token)
{
    (void)queue, (void)token;
    return true;
}

static void consumer_close(struct queue *queue, struct consumer *token)
{
    (void)queue, (void)token;
}

#ifndef OWN_PRODUCER
struct producer {
    char unused;
};

static bool producer_open(struct queue *queue, struct producer *token)
{
    (void)queue, (void)token;
    return true;
}

static void producer_close(struct queue *queue, struct producer *token)
{
    (void)queue, (void)token;
}
#endif

#endif
