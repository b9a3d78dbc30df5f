/*
 * The engine on libraft's sans-I/O core: what its files share.
 *
 *      engine_libraft.c       the table: create, destroy, step, status
 *      libraft_core.c         one call of raft_step(), and what follows from it
 *      libraft_receive.c      messages: checked, then fed in a form the core can take
 *      libraft_refill.c       followers that lost what they had acknowledged
 *      libraft_change.c       START, snapshots, membership changes, transfer
 *      libraft_convert.c      between our types and libraft's
 *      libraft_heap.c         the core's memory
 *
 * "The core" is libraft's struct raft throughout.
 */
#ifndef BOP_RAFT_ENGINE_LIBRAFT_H
#define BOP_RAFT_ENGINE_LIBRAFT_H

#include <bop/raft.h>
#include <raft.h>

#include "configuration.h"
#include "libraft_heap.h"
#include "outbox.h"
#include "read_index.h"

#define LIBRAFT_VERSION_MIN 2201

/* No term or index of a peer above this is believed: adding to it cannot overflow. */
#define RAFT_NUMBER_MAX (UINT64_C(1) << 62)

/* Of MESSAGE__APPEND_ENTRIES_RESULT_VERSION in libraft 0.22.1. */
#define APPEND_RESULT_VERSION 2

/* The address under which every peer is known to the core, which sends nothing itself. */
#define PEER_ADDRESS "-"

/* A configuration in libraft's form, in memory of our own. */
struct libraft_conf {
    struct raft_server servers[BOP_RAFT_SERVERS_MAX];
    struct raft_configuration conf;
};

/* What the leader knows of a peer beyond the core's progress. */
struct libraft_peer {
    uint64_t id;
    uint64_t heard_ms;      /* When it last answered, or when we became leader. */
    uint64_t install_index; /* Of the snapshot it was sent last; 0: none. */
    bool install_lost;      /* The connection broke since. */

    /* W11, libraft_refill.c */
    uint64_t acked;   /* While some are lost: the last entry it acknowledged. */
    bool lost;        /* It does not have what the core counts as matched... */
    uint64_t have;    /* ...but this, which it acknowledged since. */
    uint64_t next;    /* The next entry that it is sent, */
    uint64_t sent;    /* the last one that it was sent, */
    uint64_t sent_ms; /* and when. */
};

struct libraft {
    struct bop_raft base;
    struct bop_allocator *allocator;
    struct libraft_heap heap;
    struct raft core;
    struct raft_outbox out;
    struct read_index reads;
    uint64_t id;
    unsigned election_timeout_ms;
    unsigned heartbeat_ms;
    bool started;
    int failed; /* 0, or the code with which it became useless. */
    char error[BOP_ERROR_MESSAGE_MAX];

    uint64_t now_ms;
    uint64_t timed_ms; /* The last TIME event. */
    uint64_t dropped;

    /* As leader. */
    uint64_t led_term;    /* The term we took up leadership in last. */
    uint64_t ready_index; /* The first entry of that term. */
    struct libraft_peer peers[BOP_RAFT_SERVERS_MAX];
    unsigned peer_count;
    bool doubt;    /* W11: some peers are lost, or were in this step. */
    uint64_t held; /* Then: our own log is durable up to here; 0: as the core has it. */

    /* As follower: who leads seen_term, and when we last heard of it. */
    uint64_t seen_leader;
    uint64_t seen_term;
    uint64_t seen_ms;

    struct bop_raft_snapshot snapshot;   /* The newest one here; index 0: none. */
    struct bop_raft_snapshot installing; /* While core.snapshot.installing. */
    struct bop_raft_snapshot incoming;   /* Of an INSTALL that is being fed. */

    /* During one step. */
    bool install;
    uint64_t core_barrier; /* The core itself appended a barrier here; 0: it did not. */
    const struct bop_raft_entry *source; /* What raw was made from. */
    struct raft_entry *raw;              /* Entries in libraft's form; lent to the core. */
    size_t raw_capacity;
    struct bop_raft_entry *submitted; /* Of SUBMIT, with their terms. */
    size_t submitted_capacity;
    struct bop_raft_entry barrier; /* Of a new leader. */
    struct bop_raft_entry change;
    struct bop_buf change_data;
    struct libraft_conf incoming_conf; /* Of incoming, in the core's form. */
    char payload[8];                   /* Stands for the batch of entries and for snapshot data. */
};

/* ---- engine_libraft.c ---- */

/** Refuse a libraft that is too old. Returns 0 or BOP_EVERSION. */
int bop__libraft_check_version(int version, struct bop_error *err);

/** Say why a step is refused or failed. Returns code. */
int bop__libraft_say(struct libraft *self, int code, const char *format, ...) BOP_PRINTF(3, 4);

/* ---- libraft_core.c ---- */

/**
 * Feed one event to the core, gather what it asks for, and do at once what must
 * follow: the configuration that was just committed, the barrier of a new leader.
 * Returns 0, a refusal (BOP_ENOTLEADER, BOP_EBUSY, BOP_EINVAL) or the code of a
 * failure, which is final.
 */
BOP_MUST_USE int bop__libraft_feed(struct libraft *self, struct raft_event *event);

/** Leader: append entries, which live at least as long as the update. */
BOP_MUST_USE int bop__libraft_submit(struct libraft *self, const struct bop_raft_entry *entries,
                                     unsigned count);

/** The record of a server of the configuration, made if need be; NULL for a stranger. */
struct libraft_peer *bop__libraft_peer(struct libraft *self, uint64_t id);

/** What is known of peers goes with them: they may come back with nothing. */
void bop__libraft_forget_strangers(struct libraft *self);

/** The server of the core's newest configuration; NULL if it has none with this id. */
struct raft_server *bop__libraft_server(struct libraft *self, uint64_t id);

/** Leader of the core's term, with an entry of that term committed. */
bool bop__libraft_ready(const struct libraft *self);

/** The leader of the core's term as far as it is known; 0: it is not. */
uint64_t bop__libraft_leader(const struct libraft *self);

/** The view of the moment, for the read index. */
void bop__libraft_view(const struct libraft *self, struct read_view *out_view);

/* ---- libraft_receive.c ---- */

BOP_MUST_USE int bop__libraft_receive(struct libraft *self, const struct bop_raft_message *message);

/** A follower without a vote never stops believing in its leader by itself. */
void bop__libraft_forget_leader(struct libraft *self);
/** When forget_leader has something to do; UINT64_MAX: nothing. */
uint64_t bop__libraft_forget_ms(const struct libraft *self);

/** The leader's last snapshot to this peer may not have arrived. */
void bop__libraft_peer_lost(struct libraft *self, uint64_t peer);

/* ---- libraft_refill.c ---- */

/** Leader: what a peer acknowledged and has; as raft_match_index(), which may be too much. */
uint64_t bop__libraft_match(const struct libraft *self, uint64_t id);

/** It lost some of what it had acknowledged, and was not filled up yet. */
bool bop__libraft_lost(const struct libraft *self, uint64_t id);

/** A peer answered to an append of this term: rejected is 0, or what did not match. */
void bop__libraft_answered(struct libraft *self, struct libraft_peer *peer, uint64_t rejected,
                           uint64_t last);

/** As much of an acknowledgement up to index as the core may hear of now. */
uint64_t bop__libraft_tellable(const struct libraft *self, uint64_t index);

/** Tell the core what it may hear by now. */
BOP_MUST_USE int bop__libraft_settle(struct libraft *self);

/** At the end of each step: who does not lead holds nothing back. */
BOP_MUST_USE int bop__libraft_release(struct libraft *self);

/* ---- libraft_change.c ---- */

BOP_MUST_USE int bop__libraft_start(struct libraft *self, const struct bop_raft_event *event);
BOP_MUST_USE int bop__libraft_change(struct libraft *self,
                                     const struct bop_raft_configuration *conf);
BOP_MUST_USE int bop__libraft_transfer(struct libraft *self, uint64_t peer);
BOP_MUST_USE int bop__libraft_snapshot_taken(struct libraft *self,
                                             const struct bop_raft_snapshot *snapshot,
                                             uint64_t trailing);
BOP_MUST_USE int bop__libraft_snapshot_persisted(struct libraft *self,
                                                 const struct bop_raft_snapshot *snapshot);

/* ---- libraft_convert.c ---- */

/** Room for count entries in raw. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__libraft_reserve_raw(struct libraft *self, size_t count);

/** Write entries into raw (which has room), as lent memory. */
void bop__libraft_lend_entries(struct libraft *self, const struct bop_raft_entry *entries,
                               size_t count);

/** A configuration in libraft's form that points into `conf`, as lent memory. */
void bop__libraft_lend_configuration(struct libraft_conf *lent,
                                     const struct bop_raft_configuration *conf);

/** A configuration of libraft's own memory, for events that keep it. Returns 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__libraft_give_configuration(struct libraft *self,
                                                 const struct bop_raft_configuration *conf,
                                                 struct raft_configuration *out_conf);
BOP_MUST_USE int bop__libraft_copy_configuration(struct libraft *self,
                                                 const struct raft_configuration *conf,
                                                 struct raft_configuration *out_conf);

void bop__libraft_read_configuration(const struct raft_configuration *conf,
                                     struct bop_raft_configuration *out_conf);

/** The term of an entry that the core knows of; 0: it does not. */
uint64_t bop__libraft_term_of(const struct raft *core, uint64_t index);

/** Append a message of the core's to the outbox. */
void bop__libraft_put_message(struct libraft *self, const struct raft_message *message);

static inline struct libraft *bop__libraft(const struct bop_raft *raft)
{
    return (struct libraft *)(void *)(uintptr_t)raft;
}

#endif
