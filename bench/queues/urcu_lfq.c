/* Userspace RCU's rculfqueue, its nodes from malloc and freed after a grace period. */
#define _LGPL_SOURCE 1 /* Inline what can be. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <urcu/urcu-memb.h>

#include <urcu/rculfqueue.h>

struct node {
    struct cds_lfq_node_rcu link;
    struct rcu_head freed;
    uint64_t item;
};

struct queue {
    struct cds_lfq_queue_rcu inner;
};

struct producer {
    char unused;
};

struct consumer {
    char unused;
};

static __thread unsigned registered; /* Tokens that the thread has open. */

static bool thread_enter(void)
{
    if (registered++ == 0)
        urcu_memb_register_thread();
    return true;
}

static void thread_leave(void)
{
    if (--registered == 0)
        urcu_memb_unregister_thread();
}

static struct queue *queue_create(void)
{
    struct queue *queue = aligned_alloc(128, 128 * ((sizeof(*queue) + 127) / 128));

    if (!queue)
        return NULL;
    thread_enter();
    cds_lfq_init_rcu(&queue->inner, urcu_memb_call_rcu);
    thread_leave();
    return queue;
}

static void queue_destroy(struct queue *queue)
{
    thread_enter();
    cds_lfq_destroy_rcu(&queue->inner);
    thread_leave();
    urcu_memb_barrier();
    free(queue);
}

static bool producer_open(struct queue *queue, struct producer *token)
{
    (void)queue, (void)token;
    return thread_enter();
}

static void producer_close(struct queue *queue, struct producer *token)
{
    (void)queue, (void)token;
    thread_leave();
}

static bool consumer_open(struct queue *queue, struct consumer *token)
{
    (void)queue, (void)token;
    return thread_enter();
}

static void consumer_close(struct queue *queue, struct consumer *token)
{
    (void)queue, (void)token;
    thread_leave();
}

static void free_node(struct rcu_head *head)
{
    free((char *)head - offsetof(struct node, freed));
}

static inline bool push(struct queue *queue, struct producer *token, uint64_t item)
{
    struct node *node = malloc(sizeof(*node));

    (void)token;
    if (!node)
        return false;
    cds_lfq_node_init_rcu(&node->link);
    node->item = item;
    urcu_memb_read_lock();
    cds_lfq_enqueue_rcu(&queue->inner, &node->link);
    urcu_memb_read_unlock();
    return true;
}

static inline bool pop(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    struct node *node;

    (void)token;
    urcu_memb_read_lock();
    node = (struct node *)cds_lfq_dequeue_rcu(&queue->inner);
    urcu_memb_read_unlock();
    if (!node)
        return false;
    *out_item = node->item;
    urcu_memb_call_rcu(&node->freed, free_node);
    return true;
}

#include "bulk_by_one.h"
#include "workloads.h"
