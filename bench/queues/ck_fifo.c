/*
 * Concurrency Kit's linked queue. Its entries come from blocks of the producer's own and are
 * never reused or freed, which spares it both the allocator and safe reclamation: its best case.
 */
#include <ck_fifo.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_ENTRIES 4096

struct queue {
    ck_fifo_mpmc_t fifo;
};

struct producer {
    ck_fifo_mpmc_entry_t *block;
    size_t used;
};

#define OWN_PRODUCER
#include "no_tokens.h"

static void *zeroed(size_t bytes)
{
    void *memory = aligned_alloc(128, (bytes + 127) / 128 * 128);

    if (memory)
        memset(memory, 0, bytes);
    return memory;
}

static struct queue *queue_create(void)
{
    struct queue *queue = zeroed(sizeof(*queue));
    ck_fifo_mpmc_entry_t *stub = zeroed(sizeof(*stub));

    if (queue && stub)
        ck_fifo_mpmc_init(&queue->fifo, stub);
    return stub ? queue : NULL;
}

static void queue_destroy(struct queue *queue)
{
    free(queue);
}

static bool producer_open(struct queue *queue, struct producer *token)
{
    (void)queue;
    token->used = BLOCK_ENTRIES;
    return true;
}

static void producer_close(struct queue *queue, struct producer *token)
{
    (void)queue, (void)token;
}

static inline bool push(struct queue *queue, struct producer *token, uint64_t item)
{
    if (token->used == BLOCK_ENTRIES) {
        token->block = zeroed(BLOCK_ENTRIES * sizeof(*token->block));
        if (!token->block)
            return false;
        token->used = 0;
    }
    ck_fifo_mpmc_enqueue(&queue->fifo, &token->block[token->used++], (void *)(uintptr_t)item);
    return true;
}

static inline bool pop(struct queue *queue, struct consumer *token, uint64_t *out_item)
{
    ck_fifo_mpmc_entry_t *garbage;
    void *item;

    (void)token;
    if (!ck_fifo_mpmc_dequeue(&queue->fifo, &item, &garbage))
        return false;
    *out_item = (uint64_t)(uintptr_t)item;
    return true;
}

#include "bulk_by_one.h"
#include "workloads.h"
