/* Userspace RCU's wfcqueue, its nodes from malloc. Consumers take its own lock in turn. */
#define _LGPL_SOURCE 1 /* Inline what can be. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <urcu/wfcqueue.h>

struct node {
    struct cds_wfcq_node link;
    uint64_t item;
};

struct queue {
    struct cds_wfcq_head head;
    struct cds_wfcq_tail tail __attribute__((aligned(128)));
};

#include "no_tokens.h"

static struct queue *queue_create(void)
{
    struct queue *queue = aligned_alloc(128, sizeof(*queue));

    if (queue)
        cds_wfcq_init(&queue->head, &queue->tail);
    return queue;
}

static void queue_destroy(struct queue *queue)
{
    cds_wfcq_destroy(&queue->head, &queue->tail);
    free(queue);
}

static inline bool push(struct queue *queue, struct producer *token, uint64_t item)
{
    struct node *node = malloc(sizeof(*node));

    (void)token;
    if (!node)
        return false;
    cds_wfcq_node_init(&node->link);
    node->item = item;
    cds_wfcq_enqueue(&queue->head, &queue->tail, &node->link);
    return true;
}

static inline bool pop(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    struct node *node;

    (void)token;
    node = (struct node *)cds_wfcq_dequeue_blocking(&queue->head, &queue->tail);
    if (!node)
        return false;
    *out_item = node->item;
    free(node);
    return true;
}

#include "bulk_by_one.h"
#include "workloads.h"
