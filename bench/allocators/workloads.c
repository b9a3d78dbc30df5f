#include "workloads.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

/* xorshift64*, Marsaglia and Vigna: cheap beside what is measured. */
static inline uint32_t next_random(struct worker *worker)
{
    uint64_t x = worker->random;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    worker->random = x;
    return (uint32_t)((x * UINT64_C(0x2545f4914f6cdd1d)) >> 32);
}

/* Near enough to uniform in [0, bound). */
static inline uint32_t random_below(struct worker *worker, uint32_t bound)
{
    return (uint32_t)(((uint64_t)next_random(worker) * bound) >> 32);
}

static inline uint32_t random_size(struct worker *worker, uint32_t least, uint32_t most)
{
    return least + random_below(worker, most - least + 1);
}

static void free_table(struct worker *worker, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (worker->table[i].at)
            block_free(&worker->table[i]);
    }
}

/* ---- churn: 16 sizes, last in first out ---- */

#define CHURN_SIZES  16
#define CHURN_ROUNDS 1500000

static void run_churn(struct worker *worker)
{
    static const uint16_t sizes[CHURN_SIZES] = {16,  24,  32,  48,  64,  80,  96,  128,
                                                160, 192, 256, 320, 384, 512, 768, 1024};
    struct block blocks[CHURN_SIZES];

    for (uint32_t round = 0; round < CHURN_ROUNDS; round++) {
        for (uint32_t i = 0; i < CHURN_SIZES; i++)
            blocks[i] = block_alloc(sizes[i], round + i);
        for (uint32_t i = CHURN_SIZES; i > 0; i--)
            block_free(&blocks[i - 1]);
    }
    worker->pairs = (uint64_t)CHURN_ROUNDS * CHURN_SIZES;
}

/* ---- larson: a server's threads replace blocks, and hand what lives on to another ---- */

#define LARSON_BLOCKS      5000
#define LARSON_GENERATIONS 60
#define LARSON_STEPS       100000

static void run_larson(struct worker *worker)
{
    uint32_t stamp = worker->number;

    for (unsigned generation = 0; generation < LARSON_GENERATIONS; generation++) {
        struct block *table = workers[(worker->number + generation) % worker_count].table;

        for (unsigned i = 0; i < LARSON_STEPS; i++) {
            struct block *block = &table[random_below(worker, LARSON_BLOCKS)];

            if (block->at)
                block_free(block);
            *block = block_alloc(random_size(worker, BLOCK_SIZE_MIN, 1000), stamp++);
        }
        if (worker_count > 1)
            pthread_barrier_wait(&meeting);
    }
    free_table(worker, LARSON_BLOCKS);
    worker->pairs = (uint64_t)LARSON_GENERATIONS * LARSON_STEPS;
}

/* ---- xmalloc: half of the threads allocate, the other half free ---- */

#define XMALLOC_BATCH   120
#define XMALLOC_BATCHES 30000 /* A producer. */
#define XMALLOC_QUEUED  64

struct batch {
    struct block blocks[XMALLOC_BATCH];
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t room, work;
    struct block batches[XMALLOC_QUEUED]; /* A block that holds a struct batch each. */
    unsigned first, count;
    unsigned taken; /* In all. */
} exchange = {.lock = PTHREAD_MUTEX_INITIALIZER,
              .room = PTHREAD_COND_INITIALIZER,
              .work = PTHREAD_COND_INITIALIZER};

static void put_batch(struct block batch)
{
    pthread_mutex_lock(&exchange.lock);
    while (exchange.count == XMALLOC_QUEUED)
        pthread_cond_wait(&exchange.room, &exchange.lock);
    exchange.batches[(exchange.first + exchange.count++) % XMALLOC_QUEUED] = batch;
    pthread_mutex_unlock(&exchange.lock);
    pthread_cond_signal(&exchange.work);
}

/* Returns false when there will be none any more. */
static bool take_batch(struct block *out_batch)
{
    unsigned all = worker_count / 2 * XMALLOC_BATCHES;
    bool is_last;

    pthread_mutex_lock(&exchange.lock);
    while (exchange.count == 0 && exchange.taken < all)
        pthread_cond_wait(&exchange.work, &exchange.lock);
    if (exchange.count == 0) {
        pthread_mutex_unlock(&exchange.lock);
        return false;
    }
    *out_batch = exchange.batches[exchange.first];
    exchange.first = (exchange.first + 1) % XMALLOC_QUEUED;
    exchange.count--;
    is_last = ++exchange.taken == all;
    pthread_mutex_unlock(&exchange.lock);
    if (is_last)
        pthread_cond_broadcast(&exchange.work);
    else
        pthread_cond_signal(&exchange.room);
    return true;
}

static void produce(struct worker *worker)
{
    for (uint32_t round = 0; round < XMALLOC_BATCHES; round++) {
        struct block batch = block_alloc(sizeof(struct batch), 0);
        struct batch *inner = (struct batch *)(void *)batch.at;

        for (uint32_t i = 0; i < XMALLOC_BATCH; i++)
            inner->blocks[i] = block_alloc(random_size(worker, 16, 512), round + i);
        put_batch(batch);
    }
    worker->pairs = (uint64_t)XMALLOC_BATCHES * (XMALLOC_BATCH + 1);
}

static void consume(struct worker *worker)
{
    struct block batch;

    while (take_batch(&batch)) {
        struct batch *inner = (struct batch *)(void *)batch.at;

        for (uint32_t i = 0; i < XMALLOC_BATCH; i++)
            block_free(&inner->blocks[i]);
        raw_free(batch.at, batch.size); /* Its stamp is overwritten. */
    }
    worker->pairs = 0;
}

static void run_xmalloc(struct worker *worker)
{
    if (worker->number % 2 == 0)
        produce(worker);
    else
        consume(worker);
}

/* ---- alloc-test: many live, any one is replaced next ---- */

#define RANDOM_BLOCKS 100000
#define RANDOM_STEPS  2000000

static void run_alloc_test(struct worker *worker)
{
    for (uint32_t i = 0; i < RANDOM_STEPS; i++) {
        struct block *block = &worker->table[random_below(worker, RANDOM_BLOCKS)];

        if (block->at)
            block_free(block);
        /* Small sizes are more frequent: a power of two from 8 to 4096 is picked first. */
        *block = block_alloc(random_size(worker, BLOCK_SIZE_MIN, 8u << random_below(worker, 10)),
                             i);
    }
    free_table(worker, RANDOM_BLOCKS);
    worker->pairs = RANDOM_STEPS;
}

/* ---- cache-scratch: each thread first gets a neighbour of the others' block ---- */

#define SCRATCH_ROUNDS 120000
#define SCRATCH_WRITES 1000

static void prepare_cache_scratch(struct worker *all, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        all[i].table[0] = block_alloc(8, i);
}

static void run_cache_scratch(struct worker *worker)
{
    block_free(&worker->table[0]);
    for (uint32_t round = 0; round < SCRATCH_ROUNDS; round++) {
        struct block block = block_alloc(8, round);
        volatile uint8_t *byte = block.at + 4; /* Between the two stamps. */

        for (int i = 0; i < SCRATCH_WRITES; i++)
            *byte = (uint8_t)(*byte + 1);
        block_free(&block);
    }
    worker->pairs = SCRATCH_ROUNDS;
}

/* ---- burst: many live, all freed, and again ---- */

#define BURST_BLOCKS 200000
#define BURST_ROUNDS 12

static void run_burst(struct worker *worker)
{
    for (int round = 0; round < BURST_ROUNDS; round++) {
        for (uint32_t i = 0; i < BURST_BLOCKS; i++)
            worker->table[i] = block_alloc(random_size(worker, 16, 2048), i);
        free_table(worker, BURST_BLOCKS);
    }
    worker->pairs = (uint64_t)BURST_BLOCKS * BURST_ROUNDS;
}

/* ---- frag: most are freed here and there, then as many bytes of another size come ---- */

#define FRAG_BLOCKS 1000000
#define FRAG_OTHERS 108000 /* Of 1000 bytes: about what was freed. */

static void run_frag(struct worker *worker)
{
    struct block *others = worker->table + FRAG_BLOCKS;

    for (uint32_t i = 0; i < FRAG_BLOCKS; i++)
        worker->table[i] = block_alloc(random_size(worker, 16, 224), i);
    for (uint32_t i = 0; i < FRAG_BLOCKS; i++) {
        if (random_below(worker, 10) > 0)
            block_free(&worker->table[i]);
    }
    for (uint32_t i = 0; i < FRAG_OTHERS; i++)
        others[i] = block_alloc(1000, i);
    free_table(worker, FRAG_BLOCKS + FRAG_OTHERS);
    worker->pairs = FRAG_BLOCKS + FRAG_OTHERS;
}

/* ---- realloc: a buffer grows from 64 bytes to 4 MiB ---- */

#define REALLOC_ROUNDS 500
#define REALLOC_LEAST  64
#define REALLOC_MOST   (4 * 1024 * 1024)
#define PAGE           4096

static void run_realloc(struct worker *worker)
{
    worker->pairs = 0;
    for (uint32_t round = 0; round < REALLOC_ROUNDS; round++) {
        struct block block = block_alloc(REALLOC_LEAST, round);

        while (block.size < REALLOC_MOST) {
            uint32_t size = block.size + block.size / 2;

            size = size < REALLOC_MOST ? size : REALLOC_MOST;
            block.at = raw_realloc(block.at, block.size, size);
            if (!block.at)
                die("no memory");
            block_check(&block);
            for (uint32_t at = block.size; at < size; at += PAGE)
                block.at[at] = (uint8_t)round; /* As whoever fills the buffer would. */
            block.size = size;
            block_stamp(&block);
            worker->pairs++;
        }
        block_free(&block);
    }
}

const struct workload workloads[] = {
    {.name = "churn", .threads_multiple = 1, .run = run_churn},
    {.name = "larson", .threads_multiple = 1, .table_blocks = LARSON_BLOCKS, .run = run_larson},
    {.name = "xmalloc", .threads_multiple = 2, .run = run_xmalloc},
    {.name = "alloc-test",
     .threads_multiple = 1,
     .table_blocks = RANDOM_BLOCKS,
     .run = run_alloc_test},
    {.name = "cache-scratch",
     .threads_multiple = 1,
     .table_blocks = 1,
     .prepare = prepare_cache_scratch,
     .run = run_cache_scratch},
    {.name = "burst", .threads_multiple = 1, .table_blocks = BURST_BLOCKS, .run = run_burst},
    {.name = "frag",
     .threads_multiple = 1,
     .table_blocks = FRAG_BLOCKS + FRAG_OTHERS,
     .run = run_frag},
    {.name = "realloc", .threads_multiple = 1, .run = run_realloc},
};
const size_t workload_count = sizeof(workloads) / sizeof(workloads[0]);
