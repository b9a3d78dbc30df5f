/*
 * The demo's writer: puts all entries through one client, a fixed number of them
 * under way at a time, and is told nothing of what happens to the servers.
 *
 * With each batch of entries it adds their number to a counter. A map would hide
 * that an entry was written twice; the counter would be too high, and the entry's
 * version another than the one acknowledged.
 */
#ifndef BOP_CLI_DEMO_LOAD_H
#define BOP_CLI_DEMO_LOAD_H

#include <bop/client.h>

#include "demo_data.h"

#define DEMO_MAP         "demo"
#define DEMO_COUNTER     "demo-written"
#define DEMO_OUTSTANDING 64
#define DEMO_BATCH       100 /* Entries a counter request stands for. */

struct demo_load;

struct demo_put {
    struct demo_load *load;
    struct demo_put *next; /* While free. */
    size_t entry;
    uint64_t asked_us;
};

struct demo_load {
    struct bop_client *client;
    struct demo_data *data;
    struct demo_put puts[DEMO_OUTSTANDING];
    struct demo_put *free;
    size_t next;        /* The entry to be asked for next. */
    size_t hold_at;     /* Stop asking before this one, so that some are left after the kill. */
    size_t in_batch;    /* Asked for since the last counter request. */
    unsigned adding;    /* Counter requests under way. */
    uint64_t acked;     /* Entries. */
    uint64_t existed;   /* Puts that found their key there already: written before. */
    int64_t added;      /* To the counter, as acknowledged. */
    int code;           /* The first failure. */
    uint64_t killed_us; /* When the leader was killed; 0: not yet. */
    uint64_t killed_connects; /* Connections of the client's till then. */
    uint64_t again_us;        /* When the first write was acknowledged over a new one. */
    uint64_t started_us;
    uint64_t ended_us;
};

void demo_load_begin(struct demo_load *load, struct bop_client *client, struct demo_data *data);

/** The leader is dead as of now: the next write that is acknowledged anew ends the gap. */
void demo_load_killed(struct demo_load *load);

/** Ask for more if there is room. Acknowledged ones do so by themselves. */
void demo_load_go_on(struct demo_load *load);

bool demo_load_done(const struct demo_load *load);

/** The latency below which this share of the writes stayed, in us. */
uint64_t demo_load_latency_us(const struct demo_load *load, double share);

#endif
