/*
 * The replica: consensus bound to the log, the state machine and the peers.
 *
 * It owns no thread and no socket. Time, files, executors and the peer transport
 * are handed in, so the same code runs in the daemon on a loop and in a
 * simulator on virtual time. The owner feeds it frames, requests and finished
 * tasks as they come and calls bop__replica_turn() once after each group of
 * them: what came in one turn is proposed, asked, applied and answered together.
 *
 * Threads: the owner's only.
 */
#ifndef BOP_CLUSTER_REPLICA_H
#define BOP_CLUSTER_REPLICA_H

#include <bop/alloc.h>
#include <bop/clock.h>
#include <bop/error.h>
#include <bop/executor.h>
#include <bop/fs.h>
#include <bop/list.h>
#include <bop/log.h>
#include <bop/metrics.h>
#include <bop/raft.h>
#include <bop/wire.h>

#include "command.h"
#include "machine.h"

struct replica;

/** The way to the peers: first in, first out per peer while connected; a break loses what was in
 * flight. */
struct replica_transport {
    /* The queue to a peer, to append whole frames to; NULL if it is not connected or its
     * queue is over its bound. */
    struct bop_buf *(*output)(struct replica_transport *self, uint64_t peer);
    /* Frames were appended to the queue of this peer. */
    void (*flush)(struct replica_transport *self, uint64_t peer);
};

/** What the owner hears, never from inside one of its own calls but turn. */
struct replica_events {
    /* The replica cannot go on (its log failed, say); nothing is done or answered any more. */
    void (*on_failed)(void *user, int code, const char *message);
    /* The servers of the cluster, now or as a change proposes. NULL is fine. */
    void (*on_configuration)(void *user, const struct bop_raft_configuration *conf);
    /* An entry was applied that changed something: its events, told once, before the results of
     * its writes. NULL is fine, here and below. */
    void (*on_events)(void *user, uint64_t index, struct bop_slice events);
    /* The state was replaced by a snapshot's: what led to it is not told. */
    void (*on_reset)(void *user, uint64_t index);
    /* A peer said something about watches (PEER_WATCH_...), as it comes. A code: it is out of its
     * mind. NULL: nobody listens. */
    int (*on_peer)(void *user, uint64_t peer, const struct bop_wire_frame *frame);
    /* The state machine is about to go: close all views. Also from inside close. */
    void (*on_release)(void *user);
    void *user;
};

struct replica_options {
    struct bop_allocator *allocator; /* Borrowed, as all pointers here, until close. */
    struct bop_fs *fs;
    struct bop_clock *clock;
    struct bop_executor *log_executor;  /* Runs the log's writes. */
    struct bop_executor *work_executor; /* Runs snapshots. */
    struct bop_log *log;
    struct bop_metrics *metrics;
    struct replica_transport *transport;
    struct replica_events events;
    const struct bop_raft_engine *engine; /* NULL: libraft. */
    const char *path;                     /* The data directory. */
    const char *state_path;               /* The store of the state machine; NULL: path/state. */
    const char *boot_id; /* Of the running system: another one means that the system went down. */
    const char *cluster; /* The cluster's name. */
    uint64_t id;
    const char *address; /* Where this node listens, as peers and clients are told. */
    const struct bop_raft_configuration *initial; /* Of a new cluster, self included. */
    bool join;                                    /* Begin with nothing and ask to be added. */
    bool learner;   /* With join: be added without a vote, and stay so. */
    uint32_t level; /* The highest feature level this node can do. Default: MACHINE_LEVEL. */
    uint64_t seed;
    unsigned election_timeout_ms;
    unsigned heartbeat_ms;
    uint64_t snapshot_entries;  /* Applied since the last one. Default 1,000,000. */
    uint64_t trailing_entries;  /* Kept in the log below a snapshot. Default 10,000. */
    unsigned inflight_entries;  /* Sent to a peer ahead of its answers. Default 65,536. */
    uint64_t uncommitted_bytes; /* Of writes taken ahead of commit. Default 32 MiB. */
    uint64_t segment_bytes;     /* Of the log. Default 64 MiB. */
    uint64_t send_bytes_s;      /* Of snapshots and backups, a second. Default: no bound. */
    uint64_t state_bytes_max;   /* As bop_kv_options.bytes_max. */
    uint64_t state_step_bytes;  /* As bop_kv_options.grow_step_bytes. */
};

/**
 * Open the data directory (made if missing), recover and start. The error says what to do.
 * A failure with tasks already under way is told by on_failed in the first turn instead.
 */
BOP_MUST_USE int bop__replica_open(const struct replica_options *options,
                                   struct replica **out_replica, struct bop_error *err);

/** It will be closed: what takes long and need not be done ends as soon as it can. */
void bop__replica_stop(struct replica *replica);
/** Write down that all is in order. Then close; tasks must have finished (see bop__replica_busy).
 */
void bop__replica_close(struct replica *replica);

/** True while tasks of the replica are with an executor. */
bool bop__replica_busy(const struct replica *replica);

/** Do all that the inputs since the last turn ask for. */
void bop__replica_turn(struct replica *replica);

/**
 * Commit what is applied, which turn may leave for later: from then on, until the next turn, the
 * store's writer is no thread's. 0, or why it could not be: then it is undone, and applied again
 * later.
 */
BOP_MUST_USE int bop__replica_settle(struct replica *replica);

/** When to call turn at the latest, on the monotonic clock. */
uint64_t bop__replica_deadline_ms(const struct replica *replica);

/** 0, or the code with which it failed. */
int bop__replica_failed(const struct replica *replica);

/* ---- Peers ---- */

void bop__replica_peer_connected(struct replica *replica, uint64_t peer);
void bop__replica_peer_lost(struct replica *replica, uint64_t peer);
/** Take a frame of kind PEER_*. A code means: close the connection, the sender is out of its mind.
 */
BOP_MUST_USE int bop__replica_peer_frame(struct replica *replica, uint64_t peer,
                                         const struct bop_wire_frame *frame);

/** Leader only: begin to hand leadership over. False if not the leader. */
bool bop__replica_transfer(struct replica *replica);

/** To this voter; 0: to the best. 0, BOP_ENOTLEADER, BOP_EBUSY, or BOP_EINVAL if it cannot lead. */
int bop__replica_transfer_to(struct replica *replica, uint64_t peer);

/* ---- Requests ---- */

/** A write under way; intrusive, lives until done. */
struct replica_write {
    /* status is a bop_status, result the operation's result or a new session's u64. */
    void (*done)(struct replica_write *write, uint8_t status, struct bop_slice result);
    uint64_t id; /* The replica's from here on. */
    uint64_t deadline_ms;
    bool retryable; /* A lost one may be answered RETRY, for it carries a session or is harmless. */
};

/**
 * Propose a command, here or through the leader; origin and time are filled in.
 * Returns BOP_STATUS_OK if done will be called (from a turn), or the status
 * with which it is refused at once.
 */
BOP_MUST_USE uint8_t bop__replica_write(struct replica *replica, struct replica_write *write,
                                        struct command *command);

/** A linearizable read under way; intrusive, lives until done. */
struct replica_read {
    struct bop_list link; /* The replica's. */
    /* code 0: read from view, which stands at or after the moment of asking. Else: not now (RETRY).
     */
    void (*done)(struct replica_read *read, int code, struct machine_view *view);
    /* Nobody waits for it: it may be asked for a few milliseconds later, with others. */
    bool patient;
};

/** Ask for a read; done is called from a turn. */
void bop__replica_read(struct replica *replica, struct replica_read *read);

/** A client of this node showed signs of life for a session. */
void bop__replica_session_alive(struct replica *replica, uint64_t session);
/** The connection it was used on broke: if it has a grace, that is how long it has from now on. */
void bop__replica_session_cut(struct replica *replica, uint64_t session);

/* ---- Looking in ---- */

/** Never NULL while the replica has not failed; the machine may be absent during an install. */
struct machine *bop__replica_machine(struct replica *replica);

/** The last entry whose events and results were told. */
uint64_t bop__replica_applied(const struct replica *replica);

/** A view of all that is applied. The machine must not be absent. */
BOP_MUST_USE int bop__replica_view_open(struct replica *replica, struct machine_view **out_view);

/** Everything but clients and uptime. Slices are borrowed until the next call on the replica. */
void bop__replica_status(struct replica *replica, struct bop_status_response *out_status);
void bop__replica_raft_status(const struct replica *replica, struct bop_raft_status *out_status);
void bop__replica_configuration(const struct replica *replica,
                                struct bop_raft_configuration *out_conf);

#define REPLICA_SERVERS_MAX (2 * BOP_RAFT_SERVERS_MAX)

/** Whose clients may be told what is applied here: the servers of the applied configuration, and of
 * the newest one that is known. That alone will not do: it may be taken back while it is not
 * committed, and is not there yet while a snapshot is installed. Returns how many there are. */
unsigned bop__replica_servers(const struct replica *replica, uint64_t out_ids[REPLICA_SERVERS_MAX]);

/** The leader's id and address; 0 and empty if none is known. */
uint64_t bop__replica_leader(struct replica *replica, struct bop_slice *out_address);

#endif
