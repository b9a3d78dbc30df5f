/*
 * etcd's raft behind struct bop_raft_engine: a second engine, for the simulators.
 * One core was written by other people, in another language, on other assumptions;
 * under the same owner, the same seeds and the same checks it tells what of our
 * code holds for Raft and what for libraft alone.
 *
 *      bridge.go              the core: what it is fed, what comes out, what waits
 *      bridge.h               what the two sides pass
 *      engine_etcd.c          the table: create, destroy, step, status
 *      etcd_message.c         messages to and from peers
 *      etcd_configuration.c   the configurations of the log
 *
 * Messages are ours (struct bop_raft_message). etcd's are put into them so:
 *
 *      APPEND          MsgApp; with prev_index 0 and no entries MsgHeartbeat
 *      APPEND_RESULT   MsgAppResp; with rejected and last_index 0 MsgHeartbeatResp
 *      VOTE            MsgVote, MsgPreVote; disrupt_leader: the leader gave the order
 *      VOTE_RESULT     MsgVoteResp, MsgPreVoteResp
 *      INSTALL         MsgSnap
 *      TIMEOUT_NOW     MsgTimeoutNow
 *
 * A MsgApp from entry 0 without entries says no more than a heartbeat; so does an
 * acknowledgement of nothing. Reads are not etcd's but read_index.c's: it asks an
 * engine for nothing but its standing.
 */
#ifndef BOP_TEST_ENGINE_ETCD_H
#define BOP_TEST_ENGINE_ETCD_H

#include <bop/raft.h>
#include <bop/random.h>

#include "../../../src/raft/configuration.h"
#include "../../../src/raft/outbox.h"
#include "../../../src/raft/read_index.h"
#include "bridge.h"

/** The engine. Its instances are for one thread at a time, as the contract says. */
const struct bop_raft_engine *bop_raft_engine_etcd(void);

/* ---- What its files share ---- */

struct etcd_change {
    uint64_t index;
    struct bop_raft_configuration conf;
};

struct etcd_engine {
    struct bop_raft base;
    struct bop_allocator *allocator;
    uint64_t core; /* Go's handle; 0: not started. */
    uint64_t id;
    unsigned election_timeout_ms;
    unsigned heartbeat_ms;
    unsigned install_timeout_ms;
    struct bop_random random;
    struct raft_outbox out;
    struct read_index reads;
    int failed;
    char error[BOP_ERROR_MESSAGE_MAX];

    uint64_t now_ms;
    uint64_t tick_ms;     /* When the next tick is due. */
    uint64_t election_ms; /* When to stand for election. */
    uint64_t heard_ms;    /* Of a leader. */
    uint64_t dropped;
    uint64_t ready_index; /* Leader: the first entry of its term. */

    struct etcd_ready ready;
    struct bop_raft_snapshot snapshot;   /* The newest one here; index 0: none. */
    struct bop_raft_snapshot incoming;   /* Of an INSTALL that is being fed. */
    struct bop_raft_snapshot installing; /* index 0: none. */

    /* The newest committed configuration and those above it, oldest first. */
    struct etcd_change *changes;
    unsigned change_count, change_capacity;

    /* The entries of this step, and where they stand. */
    const struct bop_raft_entry *source;
    uint64_t source_index;
    unsigned source_count;
    struct bop_raft_entry *submitted;
    size_t submitted_capacity;
    struct bop_raft_entry barrier;
    struct bop_buf change_data;
};

static inline struct etcd_engine *bop__etcd(const struct bop_raft *raft)
{
    return (struct etcd_engine *)(void *)(uintptr_t)raft;
}

/** Say why a step is refused or failed. Returns code. */
int bop__etcd_say(struct etcd_engine *self, int code, const char *format, ...) BOP_PRINTF(3, 4);

/** The core has panicked: say with what. */
int bop__etcd_fail(struct etcd_engine *self);

/* ---- etcd_message.c ---- */

/** Feed a message to the core, or drop it. Returns 0 or the code of a failure. */
BOP_MUST_USE int bop__etcd_receive(struct etcd_engine *self, const struct bop_raft_message *in);

/** Put the core's messages into the outbox. */
void bop__etcd_put_messages(struct etcd_engine *self);

/* ---- etcd_configuration.c ---- */

void bop__etcd_members(const struct bop_raft_configuration *conf, struct etcd_members *out);

/** The entries as the core takes them. Returns 0, BOP_ENOMEM or BOP_EINVAL. */
BOP_MUST_USE int bop__etcd_entries(struct etcd_engine *self, const struct bop_raft_entry *entries,
                                   size_t count, struct etcd_entries *out);
void bop__etcd_entries_free(struct etcd_engine *self, struct etcd_entries *entries);

/** The log from `index` on is replaced by these entries. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__etcd_changes_append(struct etcd_engine *self, uint64_t index,
                                          const struct bop_raft_entry *entries, size_t count);
BOP_MUST_USE int bop__etcd_changes_reset(struct etcd_engine *self, uint64_t index,
                                         const struct bop_raft_configuration *conf);
/** Forget what is older than the newest committed one. */
void bop__etcd_changes_settle(struct etcd_engine *self, uint64_t commit);
/** The newest one at or below an index; NULL: there is none. */
const struct etcd_change *bop__etcd_change_at(const struct etcd_engine *self, uint64_t index);

/* ---- bridge.go ---- */

int bop_etcd_create(struct etcd_start *start, struct etcd_entries *log, uint64_t *out_handle,
                    char *out_error);
void bop_etcd_destroy(uint64_t handle);
void bop_etcd_failure(uint64_t handle, char *out);
int bop_etcd_time(uint64_t handle, uint32_t install_ticks);
int bop_etcd_campaign(uint64_t handle);
int bop_etcd_transfer(uint64_t handle, uint64_t peer);
int bop_etcd_propose(uint64_t handle, struct etcd_entries *entries);
int bop_etcd_persisted(uint64_t handle, uint64_t index);
int bop_etcd_installed(uint64_t handle);
int bop_etcd_compact(uint64_t handle, uint64_t index, uint64_t trailing);
int bop_etcd_lost(uint64_t handle, uint64_t peer);
int bop_etcd_receive(uint64_t handle, struct etcd_message *in, struct etcd_entries *entries);
int bop_etcd_collect(uint64_t handle, struct etcd_ready *out);

#endif
