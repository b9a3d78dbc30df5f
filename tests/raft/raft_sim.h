/*
 * A cluster in one process, on virtual time: real engines, and around each of
 * them the owner that include/bop/raft.h asks for, with a disk that is slow, may
 * lose or tear what was not synced, and a network that delays, loses what is in
 * flight and can be cut in one direction. All that happens follows from the seed.
 *
 * It checks as it goes, and stops at the first violation (sim->violation):
 *
 *   - at most one leader a term;
 *   - what is committed at an index never changes, on any node, ever;
 *   - all nodes apply the same entries in the same order;
 *   - a read never gets an index below one that was committed and applied on any
 *     node before the read began;
 *   - no acknowledged vote or term is taken back, no step fails.
 */
#ifndef BOP_TESTS_RAFT_SIM_H
#define BOP_TESTS_RAFT_SIM_H

#include <bop/raft.h>
#include <bop/random.h>

#define SIM_NODES_MAX  7
#define SIM_LOG_MAX    60000
#define SIM_READS_MAX  256
#define SIM_WRITES_MAX 512

struct sim_log {
    struct bop_raft_entry *entries; /* Data lies in the arena and never changes. */
    uint64_t first;                 /* The index of entries[0]. */
    size_t count;
    size_t capacity;
};

struct sim_snapshot {
    struct bop_raft_snapshot meta; /* index 0: none. */
    uint64_t hash;                 /* Of all that was applied. */
};

struct sim_write {
    uint64_t index;
    struct bop_raft_entry *entries;
    unsigned count;
    uint64_t done_ms;
    bool overtaken; /* Not to be reported. */
};

struct sim_read {
    uint64_t context; /* 0: free. */
    uint64_t floor;   /* What it must at least see. */
    uint64_t index;   /* Granted; 0: not yet. */
};

struct sim_node {
    uint64_t id;
    struct bop_raft *raft;
    bool up;
    bool hold_disk; /* Writes do not finish. */

    /* On disk. */
    uint64_t term;
    uint64_t vote;
    struct sim_log disk;
    struct sim_snapshot snapshot;

    /* In memory. */
    struct sim_log log;
    uint64_t durable;
    struct sim_write writes[SIM_WRITES_MAX];
    unsigned write_head;
    unsigned write_count;
    uint64_t disk_free_ms;
    struct sim_snapshot installing;
    uint64_t install_done_ms; /* 0: none under way. */
    uint64_t applied;
    uint64_t hash;
    struct bop_raft_configuration conf; /* As of applied. */
    uint64_t conf_index;
    struct sim_read reads[SIM_READS_MAX];
};

struct sim_message {
    struct sim_message *next;
    uint64_t at_ms;
    uint64_t from;
    uint64_t to;
    struct bop_raft_message message;
    struct bop_raft_entry *entries;
    struct sim_snapshot snapshot;
};

struct sim_committed {
    uint64_t term;
    uint64_t hash;
};

struct sim_options {
    uint64_t seed;
    unsigned nodes;  /* With ids 1... */
    unsigned voters; /* The first so many; the other nodes start with nothing. */
    unsigned latency_ms_max;
    unsigned disk_ms_max;
    unsigned piece_max;                   /* Entries in a frame; 0: no bound. */
    struct bop_allocator *allocator;      /* Of the engines. */
    const struct bop_raft_engine *engine; /* NULL: libraft. */
};

/* The engine that a test program is built for. */
#ifdef BOP_TEST_ETCD
#include "engine_etcd.h"
#define SIM_ENGINE bop_raft_engine_etcd()
#else
#define SIM_ENGINE NULL
#endif

struct sim {
    struct sim_options options;
    struct bop_random random;
    uint64_t now_ms;
    struct sim_node nodes[SIM_NODES_MAX + 1];       /* By id. */
    bool cut[SIM_NODES_MAX + 1][SIM_NODES_MAX + 1]; /* From, to. */
    uint64_t last_ms[SIM_NODES_MAX + 1][SIM_NODES_MAX + 1];
    struct sim_message *messages;
    struct bop_buf **arena;
    size_t arena_count;
    uint64_t *leaders; /* By term. */
    size_t leaders_count;
    struct sim_committed *committed; /* By index. */
    uint64_t committed_last;
    uint64_t acknowledged; /* Applied by some node. */
    uint64_t contexts;
    uint64_t values;

    uint64_t elections;
    uint64_t crashes;
    uint64_t losses;
    uint64_t changes;
    uint64_t installs;
    uint64_t reads_granted;
    uint64_t reads_refused;
    char violation[256];
};

struct sim *sim_create(const struct sim_options *options);
void sim_destroy(struct sim *sim);

void sim_start(struct sim *sim, uint64_t id);
/** Loses what was not synced; the write under way may have reached the disk in part. */
void sim_crash(struct sim *sim, uint64_t id);
/** One that is down comes back without its last entries, if that can be borne: all others have
 * them. */
void sim_lose_tail(struct sim *sim, uint64_t id);
/** Loses what is in flight between the two. */
void sim_break(struct sim *sim, uint64_t a, uint64_t b);
void sim_isolate(struct sim *sim, uint64_t id);
void sim_heal(struct sim *sim);

void sim_run(struct sim *sim, uint64_t ms);
/** Run until a leader is there that is ready; 0: none within limit_ms. */
uint64_t sim_run_until_leader(struct sim *sim, uint64_t limit_ms);
/** Run until every node that is up and gets the log has applied all of the leader's. */
bool sim_run_until_equal(struct sim *sim, uint64_t limit_ms);

/** The node that leads the highest term; 0: none. */
uint64_t sim_leader(struct sim *sim);

int sim_submit(struct sim *sim, uint64_t id, unsigned count);
/** role 0 removes the server. */
int sim_change(struct sim *sim, uint64_t id, uint64_t server, enum bop_raft_role role);
int sim_transfer(struct sim *sim, uint64_t id, uint64_t to);
int sim_snapshot(struct sim *sim, uint64_t id, uint64_t trailing);
int sim_read(struct sim *sim, uint64_t id);

struct bop_raft_status sim_status(struct sim *sim, uint64_t id);

/** Print how every node stands, as TAP comments. */
void sim_print(struct sim *sim);

void sim_configuration_of(unsigned voters, struct bop_raft_configuration *out_conf);

#endif
