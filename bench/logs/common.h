/* What the programs of bench/aof share. They print "NAME VALUE" lines. */
#ifndef BENCH_LOGS_COMMON_H
#define BENCH_LOGS_COMMON_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_NS  300000000u
#define BYTES_MAX   (UINT64_C(2) << 30) /* Of a run, for the disk's sake. */
#define COMMITS_MAX (1u << 20)          /* Whose time is kept. */

__attribute__((noreturn)) static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static inline uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Bytes that do not compress to nothing. */
static inline void *make_bytes(size_t size)
{
    uint8_t *bytes = malloc(size);
    uint64_t state = 88172645463325252u;

    if (!bytes)
        die("malloc", "out of memory");
    for (size_t i = 0; i < size; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[i] = (uint8_t)state;
    }
    return bytes;
}

/* A run: some time that is not counted, then some that is. Times of commits are kept in us. */
struct run {
    uint64_t count_from_ns;
    uint64_t end_ns;
    uint64_t first_ns; /* When the first commit that counts was done. */
    uint64_t last_ns;
    uint64_t commits;
    uint64_t bytes; /* Also of those that do not count. */
    uint32_t *us;
};

static inline void run_begin(struct run *run, double seconds)
{
    *run = (struct run){.count_from_ns = now_ns() + WARM_UP_NS};
    run->end_ns = run->count_from_ns + (uint64_t)(seconds * 1e9);
    run->us = malloc(COMMITS_MAX * sizeof(*run->us));
    if (!run->us)
        die("malloc", "out of memory");
}

/* A commit is done that began then. */
static inline void run_commit(struct run *run, uint64_t began_ns, size_t bytes)
{
    uint64_t now = now_ns();

    run->bytes += bytes;
    if (now < run->count_from_ns)
        return;
    if (run->first_ns == 0) {
        run->first_ns = now;
        return; /* What is counted from. */
    }
    if (run->commits < COMMITS_MAX)
        run->us[run->commits] = (uint32_t)((now - began_ns) / 1000);
    run->commits++;
    run->last_ns = now;
}

static inline bool run_over(const struct run *run)
{
    return now_ns() >= run->end_ns || run->bytes >= BYTES_MAX;
}

static int compare_us(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static inline void run_print(struct run *run, size_t size, unsigned count)
{
    size_t kept = run->commits < COMMITS_MAX ? (size_t)run->commits : COMMITS_MAX;
    double seconds = (double)(run->last_ns - run->first_ns) / 1e9;

    if (kept == 0)
        die("run", "too short for two commits");
    qsort(run->us, kept, sizeof(*run->us), compare_us);
    printf("records_s %.1f\n", (double)run->commits * count / seconds);
    printf("mb_s %.3f\n", (double)run->commits * count * (double)size / seconds / 1e6);
    printf("p50_us %u\n", run->us[kept / 2]);
    printf("p99_us %u\n", run->us[kept * 99 / 100]);
    free(run->us);
}

#endif
