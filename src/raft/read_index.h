/*
 * Linearizable reads without the log (Ongaro's dissertation, 6.4), for a whole
 * batch of reads at a time, on any node.
 *
 * The leader notes its commit index when a batch arrives and then makes sure
 * that it was still the leader at that moment: it sends a probe with a rising
 * sequence number to every voter, and a voter answers if its term is the probe's.
 * Once a majority has answered this probe or a later one, the batch may be served
 * as soon as the noted index is applied. It is right because whoever leads a
 * higher term needs the vote of one of those that answered, and had it not yet
 * when that one did: all that later leader commits is later than the read.
 *
 *   - Before an entry of its own term is committed, a leader's commit index may
 *     lag behind what an earlier leader has acknowledged. Batches wait until then
 *     ("ready").
 *   - Up to PROBES_IN_FLIGHT_MAX probes are under way; batches that arrive beyond
 *     that share the next one.
 *   - Probes and answers may be lost, never repeated out of turn: the newest probe
 *     is sent again every heartbeat interval. Answers only ever raise what a voter
 *     has confirmed.
 *
 * A follower or standby asks its leader with the same numbers: a request, for
 * which the leader runs a batch of its own, and a result with the index.
 *
 * Sequences of a node start at a number derived from its seed, so that the answer
 * to a request it sent before a restart is not taken for that to a new one.
 *
 * Every batch ends exactly once: with an index, or with BOP_ENOLEADER when the
 * node's role, term or leader changes, the leader refuses, or nothing comes for
 * two election timeouts. Nothing here knows a clock, a socket or the engine.
 */
#ifndef BOP_RAFT_READ_INDEX_H
#define BOP_RAFT_READ_INDEX_H

#include "outbox.h"

/* Batches that wait, of all origins. An owner asks once per turn, so few do. */
#define READ_BATCHES_MAX 4096

#define PROBES_IN_FLIGHT_MAX 4

/* How the node stands, told with each call. */
struct read_view {
    uint64_t now_ms;
    uint64_t self;
    enum bop_raft_state state;
    uint64_t term;
    uint64_t leader; /* 0: none known. */
    bool ready;      /* Leader: an entry of its own term is committed. */
    uint64_t commit;
    uint64_t voters[BOP_RAFT_SERVERS_MAX]; /* Of the newest configuration. */
    unsigned voter_count;
};

struct read_batch {
    uint64_t peer;     /* Who asked: 0 for the owner of this node. */
    uint64_t tag;      /* The owner's context or the peer's sequence. */
    uint64_t sequence; /* The probe or request that decides it; 0: not sent yet. */
    uint64_t index;    /* Leader: the commit index when it came; 0: not ready then. */
    uint64_t since_ms;
};

struct read_acked {
    uint64_t peer;
    uint64_t sequence;
};

struct read_index {
    struct bop_allocator *allocator;
    uint64_t heartbeat_ms; /* When to send again. */
    uint64_t timeout_ms;   /* When to give up. */

    /* The standing that the batches belong to. */
    enum bop_raft_state state;
    uint64_t term;
    uint64_t leader;

    struct read_batch *batches; /* A ring, oldest first; those with a sequence come first. */
    unsigned capacity;          /* A power of two, or 0. */
    unsigned head;
    unsigned count;
    unsigned sent; /* How many have a sequence. */

    uint64_t sequence;  /* Of the newest probe or request. */
    uint64_t confirmed; /* All up to here are decided. */
    uint64_t sent_ms;
    struct read_acked acked[BOP_RAFT_SERVERS_MAX];
    unsigned acked_count;
};

void bop__read_index_init(struct read_index *reads, struct bop_allocator *allocator,
                          unsigned heartbeat_ms, unsigned election_timeout_ms, uint64_t seed);
void bop__read_index_deinit(struct read_index *reads);
/** Other times, from the next batch on. */
void bop__read_index_tune(struct read_index *reads, unsigned heartbeat_ms,
                          unsigned election_timeout_ms);

/** Take in a batch of the owner's. Returns 0, BOP_EBUSY (READ_BATCHES_MAX wait) or BOP_ENOMEM. */
BOP_MUST_USE int bop__read_index_ask(struct read_index *reads, const struct read_view *view,
                                     uint64_t context, struct raft_outbox *out);

/** Take in a message of one of the four READ types. */
void bop__read_index_receive(struct read_index *reads, const struct read_view *view,
                             const struct bop_raft_message *message, struct raft_outbox *out);

/** To call at the end of each step: notices what changed and does what is due. */
void bop__read_index_turn(struct read_index *reads, const struct read_view *view,
                          struct raft_outbox *out);

/** When turn has something to do by the clock; UINT64_MAX: nothing. */
uint64_t bop__read_index_deadline_ms(const struct read_index *reads);

#endif
