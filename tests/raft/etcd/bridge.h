/*
 * What C and Go say to each other: plain numbers, in memory of C's. Payloads stay
 * in C; Go sees the term, the type and the size of an entry, and of a configuration
 * who votes and who learns.
 */
#ifndef BOP_TEST_ETCD_BRIDGE_H
#define BOP_TEST_ETCD_BRIDGE_H

#include <stdint.h>

#define ETCD_SERVERS_MAX 15
#define ETCD_ERROR_MAX   256

/* Of etcd's raftpb.MessageType. */
enum {
    ETCD_APP = 3,
    ETCD_APP_RESULT = 4,
    ETCD_VOTE = 5,
    ETCD_VOTE_RESULT = 6,
    ETCD_SNAPSHOT = 7,
    ETCD_HEARTBEAT = 8,
    ETCD_HEARTBEAT_RESULT = 9,
    ETCD_TIMEOUT_NOW = 14,
    ETCD_PRE_VOTE = 17,
    ETCD_PRE_VOTE_RESULT = 18,
};

/* Of etcd's raft.StateType. */
enum { ETCD_FOLLOWER, ETCD_CANDIDATE, ETCD_LEADER, ETCD_PRE_CANDIDATE };

struct etcd_entry {
    uint64_t term;
    uint32_t change; /* 1: a configuration, the next one of the changes told with it. */
    uint32_t size;
};

struct etcd_members {
    uint32_t voter_count, learner_count;
    uint64_t voters[ETCD_SERVERS_MAX];
    uint64_t learners[ETCD_SERVERS_MAX + 1];
};

struct etcd_entries {
    const struct etcd_entry *entries;
    const struct etcd_members *changes; /* As many as there are changes among the entries. */
    uint64_t count;
};

struct etcd_start {
    uint64_t id, term, vote;
    uint64_t commit;                /* What is known of it; the members are as of this. */
    uint64_t base_index, base_term; /* What the entries go on from. */
    uint64_t snapshot_index;        /* 0: there is none. */
    uint64_t snapshot_term;
    struct etcd_members members;
    uint32_t election_ticks;
};

struct etcd_message {
    uint32_t type;
    uint32_t reject;
    uint32_t transfer; /* VOTE: by order of the leader. */
    uint32_t count;    /* Outgoing APP. */
    uint64_t peer, term, index, log_term, commit, hint;
    struct etcd_members members; /* Incoming SNAPSHOT. */
};

struct etcd_progress {
    uint64_t id, match;
};

/* What has come of the calls since the last one of its kind. */
struct etcd_ready {
    uint64_t term, vote, leader, transferee;
    uint64_t commit;  /* What may be told: committed, and durable here. */
    uint64_t waiting; /* Committed, but not durable here yet. */
    uint64_t durable, last_index;
    uint32_t state;
    uint32_t append_count;
    uint64_t append_index, append_term_first, append_term_last;
    uint64_t install_index, install_term; /* 0: none. */
    const struct etcd_message *messages;  /* Until the next call. */
    uint32_t message_count;
    uint32_t progress_count; /* Of a leader. */
    struct etcd_progress progress[ETCD_SERVERS_MAX + 1];
    struct etcd_members members; /* In force: the newest committed ones. */
};

#endif
