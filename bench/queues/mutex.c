/*
 * What one would write without a queue library: a ring that doubles when it is full, a mutex, a
 * condition variable. Pops look whether anything is inside before they take the mutex, and pushes
 * signal only where somebody waits, which makes it a good one of its sort.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define CAPACITY_FIRST 1024

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t some;
    unsigned waiting;
    size_t capacity;
    uint64_t *items;
    uint64_t head;
    uint64_t tail;
};

#include "no_tokens.h"

static struct queue *queue_create(void)
{
    struct queue *queue = aligned_alloc(128, (sizeof(*queue) + 127) / 128 * 128);

    if (!queue)
        return NULL;
    *queue = (struct queue){.capacity = CAPACITY_FIRST,
                            .items = malloc(CAPACITY_FIRST * sizeof(uint64_t))};
    pthread_mutex_init(&queue->mutex, NULL);
    pthread_cond_init(&queue->some, NULL);
    if (queue->items)
        return queue;
    free(queue);
    return NULL;
}

static void queue_destroy(struct queue *queue)
{
    pthread_mutex_destroy(&queue->mutex);
    pthread_cond_destroy(&queue->some);
    free(queue->items);
    free(queue);
}

static bool double_capacity(struct queue *queue)
{
    size_t capacity = 2 * queue->capacity;
    uint64_t *items = malloc(capacity * sizeof(*items));

    if (!items)
        return false;
    for (uint64_t i = queue->head; i != queue->tail; i++)
        items[i & (capacity - 1)] = queue->items[i & (queue->capacity - 1)];
    free(queue->items);
    queue->items = items;
    queue->capacity = capacity;
    return true;
}

static inline size_t push_bulk(struct queue *queue, struct producer *token, const uint64_t *items,
                               size_t count)
{
    uint64_t tail;
    bool wake;

    (void)token;
    pthread_mutex_lock(&queue->mutex);
    tail = queue->tail;
    while (tail - queue->head + count > queue->capacity) {
        if (!double_capacity(queue)) {
            pthread_mutex_unlock(&queue->mutex);
            return 0;
        }
    }
    for (size_t i = 0; i < count; i++)
        queue->items[tail++ & (queue->capacity - 1)] = items[i];
    __atomic_store_n(&queue->tail, tail, __ATOMIC_RELAXED);
    wake = queue->waiting != 0;
    pthread_mutex_unlock(&queue->mutex);
    if (wake)
        pthread_cond_signal(&queue->some);
    return count;
}

static inline bool push(struct queue *queue, struct producer *token, uint64_t item)
{
    return push_bulk(queue, token, &item, 1) == 1;
}

static inline size_t take(struct queue *queue, uint64_t *out_items, size_t count)
{
    uint64_t head = queue->head;
    size_t done = 0;

    while (done < count && head != queue->tail)
        out_items[done++] = queue->items[head++ & (queue->capacity - 1)];
    __atomic_store_n(&queue->head, head, __ATOMIC_RELAXED);
    return done;
}

static inline size_t pop_bulk(struct queue *queue, struct consumer *token, uint64_t *out_items,
                              size_t count)
{
    size_t done;

    (void)token;
    if (__atomic_load_n(&queue->head, __ATOMIC_RELAXED) ==
        __atomic_load_n(&queue->tail, __ATOMIC_RELAXED))
        return 0;
    pthread_mutex_lock(&queue->mutex);
    done = take(queue, out_items, count);
    pthread_mutex_unlock(&queue->mutex);
    return done;
}

static inline bool pop(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    return pop_bulk(queue, token, out_item, 1) == 1;
}

#define QUEUE_WAITS 1

static inline size_t pop_bulk_wait(struct queue *queue, struct consumer *token, uint64_t *out_items,
                                   size_t count)
{
    size_t done;

    (void)token;
    pthread_mutex_lock(&queue->mutex);
    queue->waiting++;
    while (queue->head == queue->tail)
        pthread_cond_wait(&queue->some, &queue->mutex);
    queue->waiting--;
    done = take(queue, out_items, count);
    pthread_mutex_unlock(&queue->mutex);
    return done;
}

static inline void pop_wait(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    pop_bulk_wait(queue, token, out_item, 1);
}

#include "workloads.h"
