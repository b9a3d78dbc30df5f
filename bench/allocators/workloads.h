/*
 * What an allocator is put to. The shapes are those that allocators are commonly
 * compared by; the code is ours.
 */
#ifndef BENCH_ALLOCATORS_WORKLOADS_H
#define BENCH_ALLOCATORS_WORKLOADS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "blocks.h"

#define THREADS_MAX 16

/* One thread's part. */
struct worker {
    unsigned number;
    uint64_t random;
    struct block *table; /* Of the workload's size, from the system and touched already. */
    uint64_t pairs;      /* Result: of an allocation and a free, or reallocations. */
};

struct workload {
    const char *name;
    size_t table_blocks; /* A thread. */
    unsigned threads_multiple;
    void (*prepare)(struct worker *workers, unsigned count); /* May be NULL; not timed. */
    void (*run)(struct worker *worker);
};

extern const struct workload workloads[];
extern const size_t workload_count;

/* The threads of the running workload, and where they meet. */
extern struct worker workers[THREADS_MAX];
extern unsigned worker_count;
extern pthread_barrier_t meeting;

#endif
