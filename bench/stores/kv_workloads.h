/*
 * The workloads of bench/kv, around either bop_kv or LMDB itself, which the including
 * file puts behind these functions. Both keep the same file format, so both run with the
 * same page cache, map and number of transactions.
 *
 *     PROGRAM DIRECTORY ENTRIES [ahead]
 *
 * prints nanoseconds an operation: batched puts of random keys, gets of random keys, and scans.
 */
#ifndef BOP_BENCH_KV_WORKLOADS_H
#define BOP_BENCH_KV_WORKLOADS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define KEY_BYTES   16
#define VALUE_BYTES 100
#define BATCH       1000
#define GETS_A_TXN  100

static void store_open(const char *path, bool read_ahead);
static void store_close(void);
static void txn_begin(bool write);
static void txn_end(bool commit);
static void put(const void *key, const void *value);
static uint8_t get(const void *key);     /* Its value's first byte. */
static uint64_t scan(uint64_t *out_sum); /* How many, and the sum of the values' first bytes. */

static void require(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

static double now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* Key i of a random order: a bijection of 64 bits (the finalizer of splitmix64), twice. */
static void make_key(uint64_t i, uint8_t out_key[KEY_BYTES])
{
    for (int half = 0; half < 2; half++) {
        uint64_t x = i + 0x9e3779b97f4a7c15u * (unsigned)(half + 1);

        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
        x = (x ^ x >> 27) * 0x94d049bb133111ebu;
        x ^= x >> 31;
        memcpy(out_key + 8 * half, &x, 8);
    }
}

static double measure_puts(uint64_t entries)
{
    uint8_t key[KEY_BYTES], value[VALUE_BYTES] = {0};
    double start = now_ns();

    for (uint64_t i = 0; i < entries; i += BATCH) {
        txn_begin(true);
        for (uint64_t j = i; j < i + BATCH; j++) {
            make_key(j, key);
            value[0] = (uint8_t)j;
            put(key, value);
        }
        txn_end(true);
    }
    return (now_ns() - start) / (double)entries;
}

static double measure_gets(uint64_t entries, uint64_t gets)
{
    uint8_t key[KEY_BYTES];
    uint64_t at = 12345;
    double start = now_ns();

    for (uint64_t i = 0; i < gets; i += GETS_A_TXN) {
        txn_begin(false);
        for (unsigned j = 0; j < GETS_A_TXN; j++) {
            at = at * 6364136223846793005u + 1442695040888963407u;
            make_key((at >> 20) % entries, key);
            require(get(key) == (uint8_t)((at >> 20) % entries), "get");
        }
        txn_end(false);
    }
    return (now_ns() - start) / (double)gets;
}

static double measure_scans(uint64_t entries, unsigned scans)
{
    uint64_t wanted = 0, sum;
    double start;

    for (uint64_t i = 0; i < entries; i++) {
        wanted += (uint8_t)i;
    }
    start = now_ns();
    for (unsigned i = 0; i < scans; i++) {
        txn_begin(false);
        require(scan(&sum) == entries && sum == wanted, "scan");
        txn_end(false);
    }
    return (now_ns() - start) / (double)entries / scans;
}

int main(int argc, char **argv)
{
    uint64_t entries = argc >= 3 ? strtoull(argv[2], NULL, 10) : 0;
    bool read_ahead = argc == 4 && strcmp(argv[3], "ahead") == 0;

    if (entries == 0 || entries % BATCH != 0 || argc > (read_ahead ? 4 : 3)) {
        fprintf(stderr, "usage: %s DIRECTORY ENTRIES [ahead]\n  ENTRIES is a multiple of %d\n",
                argv[0], BATCH);
        return 2;
    }
    store_open(argv[1], read_ahead);
    printf("put %.1f\n", measure_puts(entries));
    measure_gets(entries, entries / 4 / GETS_A_TXN * GETS_A_TXN); /* Warm up. */
    printf("get %.1f\n", measure_gets(entries, entries));
    measure_scans(entries, 1);
    printf("scan %.2f\n", measure_scans(entries, 20));
    store_close();
    return 0;
}

#endif
