/*
 * Consensus as a pure state machine (Raft: Ongaro and Ousterhout 2014, Ongaro's
 * dissertation for pre-vote, read index and membership): events in, updates
 * out, no clock, no thread, no file, no socket.
 *
 * The engine (libraft, or another behind the same table) keeps terms, votes,
 * progress and the terms of the log, but no payloads: the owner keeps the log
 * and fills the entries of an outgoing append from it.
 *
 * What the owner must do with an update, in this order:
 *   1. hard_state: make term and vote durable (synced) before anything else.
 *   2. appends: for each, replace the log from `index` on by the entries, and
 *      begin to write them. When they are durable, step ENTRIES_PERSISTED.
 *   3. install: begin to install the snapshot the message spoke of; when it is
 *      durable, step SNAPSHOT_PERSISTED. Apply nothing meanwhile.
 *   4. messages: send them, first in first out per peer; a peer connection that
 *      breaks loses what was in flight, never reorders or repeats it.
 *   5. commit: apply up to min(commit, what is durable here), in order.
 *   6. reads: answer them once all entries up to their index are applied.
 *   7. call step TIME at bop_raft_deadline_ms() at the latest.
 *
 * The engine keeps the rules that its core leaves to the caller and works around
 * the core's defects; docs/design/raft.md lists them. Two rules are left to the
 * owner, for only it can keep them:
 *
 *   - ENTRIES_PERSISTED reports what is durable of the log as it is now: an
 *     append update that replaces entries lowers the owner's durable mark to
 *     below its index until the new entries are written. No report of an older
 *     write may reach beyond that. (The engine itself drops reports that do not
 *     rise, that lie beyond its log, or that come while it is installing.)
 *   - After an install the old log is gone: a START after a crash between
 *     "snapshot durable" and "log emptied" must not bring the old log back.
 *
 * Threads: one at a time per instance.
 */
#ifndef BOP_RAFT_H
#define BOP_RAFT_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>
#include <bop/slice.h>

#define BOP_RAFT_SERVERS_MAX 15

struct bop_raft;

enum bop_raft_role {
    BOP_RAFT_VOTER = 1,
    BOP_RAFT_STANDBY = 2, /* Gets the log, does not count for a majority (a learner). */
    BOP_RAFT_SPARE = 3,   /* Known, gets nothing. */
};

enum bop_raft_state {
    BOP_RAFT_UNAVAILABLE = 0,
    BOP_RAFT_FOLLOWER,
    BOP_RAFT_CANDIDATE,
    BOP_RAFT_LEADER,
};

struct bop_raft_server {
    uint64_t id; /* Above 0. */
    enum bop_raft_role role;
    char address[280]; /* "host:port". */
};

struct bop_raft_configuration {
    struct bop_raft_server servers[BOP_RAFT_SERVERS_MAX];
    unsigned count;
};

/**
 * Append the encoding of a configuration: the payload of a CHANGE entry, in the
 * format that libraft has for it (u8 1, u64 count, then of each server u64 id,
 * address with NUL, u8 role; zeros to a multiple of 8). Returns 0, BOP_ENOMEM,
 * BOP_EFULL, or BOP_EINVAL if it is no valid configuration (see decode).
 */
BOP_API BOP_MUST_USE int bop_raft_configuration_encode(const struct bop_raft_configuration *conf,
                                                       struct bop_buf *out);
/**
 * Returns 0 or BOP_EMALFORMED; also for no servers or too many, an id of 0, an
 * unknown role, an empty or too long address, and an id or address used twice.
 */
BOP_API BOP_MUST_USE int bop_raft_configuration_decode(struct bop_slice data,
                                                       struct bop_raft_configuration *out_conf);

enum bop_raft_entry_type {
    BOP_RAFT_COMMAND = 1,
    BOP_RAFT_BARRIER = 2,
    BOP_RAFT_CHANGE = 3,
};

struct bop_raft_entry {
    uint64_t term;
    enum bop_raft_entry_type type;
    struct bop_slice data;
};

/** Where a snapshot ends. */
struct bop_raft_snapshot {
    uint64_t index; /* The last entry in it. */
    uint64_t term;
    uint64_t conf_index; /* The entry that the configuration came from. */
    struct bop_raft_configuration conf;
};

enum bop_raft_message_type {
    BOP_RAFT_APPEND = 1,
    BOP_RAFT_APPEND_RESULT = 2,
    BOP_RAFT_VOTE = 3,
    BOP_RAFT_VOTE_RESULT = 4,
    BOP_RAFT_INSTALL = 5, /* Outgoing: stream the newest snapshot; incoming: it has come whole. */
    BOP_RAFT_TIMEOUT_NOW = 6,
    BOP_RAFT_READ_PROBE = 7,
    BOP_RAFT_READ_PROBE_RESULT = 8,
    BOP_RAFT_READ_REQUEST = 9, /* A follower asks the leader for a read index. */
    BOP_RAFT_READ_RESULT = 10,
};

/** A message to or from a peer. Of the union only the member of its type means anything. */
struct bop_raft_message {
    enum bop_raft_message_type type;
    uint64_t peer; /* To whom, or from whom. */
    uint64_t term;
    union {
        struct {
            uint64_t prev_index;
            uint64_t prev_term;
            uint64_t commit;
            /* Outgoing: entries prev_index + 1 ... prev_index + count of the owner's log,
             * entries is NULL. Incoming: entries has count elements, borrowed for the call. */
            const struct bop_raft_entry *entries;
            unsigned count;
        } append;
        struct {
            uint64_t rejected; /* 0, or the index that did not match. */
            uint64_t last_index;
            uint16_t features;
            uint16_t capacity;
        } append_result;
        struct {
            uint64_t candidate;
            uint64_t last_index;
            uint64_t last_term;
            bool disrupt_leader;
            bool pre_vote;
        } vote;
        struct {
            bool granted;
            bool pre_vote;
            uint16_t features;
            uint16_t capacity;
        } vote_result;
        /* Outgoing: the newest snapshot here; a newer one may be sent in its place. */
        struct bop_raft_snapshot install;
        struct {
            uint64_t last_index;
            uint64_t last_term;
        } timeout_now;
        struct {
            uint64_t sequence; /* Of the probe, or of the follower's request. */
            uint64_t index;    /* READ_RESULT: the read index, 0 if refused. */
        } read;
    };
};

enum bop_raft_event_type {
    BOP_RAFT_EVENT_START = 1,          /* First of all, once. */
    BOP_RAFT_EVENT_TIME,               /* A deadline may have passed. */
    BOP_RAFT_EVENT_RECEIVE,            /* A message came. */
    BOP_RAFT_EVENT_SUBMIT,             /* Leader: append commands. BOP_ENOTLEADER else. */
    BOP_RAFT_EVENT_CHANGE,             /* Leader: change the configuration by one server. */
    BOP_RAFT_EVENT_ENTRIES_PERSISTED,  /* The log is durable up to index. */
    BOP_RAFT_EVENT_SNAPSHOT_TAKEN,     /* A local snapshot is durable; entries below may go. */
    BOP_RAFT_EVENT_SNAPSHOT_PERSISTED, /* The snapshot of an install is durable and loaded. */
    BOP_RAFT_EVENT_READ,               /* Ask for a read index for all reads of a batch. */
    BOP_RAFT_EVENT_TRANSFER,           /* Leader: hand leadership to a server, 0: to the best. */
    BOP_RAFT_EVENT_PEER_LOST,          /* The connection to a peer, or a snapshot to it, broke. */
};

struct bop_raft_event {
    enum bop_raft_event_type type;
    uint64_t now_ms; /* Of a monotonic clock; never less than in an earlier step. */
    union {
        struct {
            uint64_t term;
            uint64_t vote;
            const struct bop_raft_snapshot *snapshot; /* NULL if there is none. */
            /* The log, all of it durable. Without a snapshot it begins at 1 with a CHANGE
             * or is empty. With one it reaches at least to the snapshot's last entry, with
             * that entry's term, or is empty. first_index counts only if it is not empty. */
            uint64_t first_index;
            const struct bop_raft_entry *entries; /* data is needed for CHANGE only. */
            size_t count;
        } start;
        const struct bop_raft_message *receive;
        struct {
            const struct bop_raft_entry *entries; /* Type COMMAND; the term is filled in. */
            unsigned count;
        } submit;
        const struct bop_raft_configuration *change;
        uint64_t persisted_index;
        struct {
            /* Above 1 and above the last one, committed, durable in the log; else BOP_EINVAL. */
            const struct bop_raft_snapshot *snapshot;
            uint64_t trailing; /* Entries at and below its index that the owner's log keeps. */
        } taken;
        const struct bop_raft_snapshot *snapshot_persisted;
        uint64_t read_context; /* Given back in reads; the owner's, unique. */
        uint64_t peer;         /* TRANSFER, PEER_LOST. */
    };
};

/**
 * entries and their data may point into what the event pointed to (SUBMIT,
 * RECEIVE): valid until that memory goes or until the next step, whichever is
 * first.
 */
struct bop_raft_append_update {
    uint64_t index; /* Of the first entry; the log at and above it is replaced. */
    const struct bop_raft_entry *entries;
    unsigned count;
};

struct bop_raft_read_update {
    uint64_t context;
    uint64_t index; /* Serve once this is applied. */
    int code;       /* 0; BOP_ENOLEADER or BOP_ENOTLEADER: not granted, ask again later. */
};

/** What a step asks for. Everything pointed to is borrowed until the next step or destroy. */
struct bop_raft_update {
    bool hard_state; /* term or vote changed. */
    uint64_t term;
    uint64_t vote;
    const struct bop_raft_append_update *appends;
    unsigned append_count;
    const struct bop_raft_snapshot *install; /* NULL: none. */
    const struct bop_raft_message *messages;
    unsigned message_count;
    bool state_changed; /* State or leader. */
    bool commit_changed;
    const struct bop_raft_read_update *reads;
    unsigned read_count;
    bool configuration_changed; /* The newest configuration, committed or not, is another. */
};

struct bop_raft_status {
    enum bop_raft_state state;
    uint64_t term;
    uint64_t vote;
    uint64_t leader; /* 0: none known. */
    uint64_t commit;
    uint64_t last_index;
    uint64_t snapshot_index;
    bool installing;  /* Between an install update and its SNAPSHOT_PERSISTED. */
    bool ready;       /* Leader: an entry of its own term is committed, so reads may be served. */
    bool changing;    /* A configuration change is under way. */
    uint64_t dropped; /* Messages from peers that made no sense and were ignored. */
};

struct bop_raft_options {
    struct bop_allocator *allocator; /* Borrowed until destroy. Default: the process's. */
    uint64_t id;                     /* This server's. */
    const char *address;
    uint64_t seed; /* For election timeouts and read sequences: another one at each start. */
    unsigned election_timeout_ms;  /* Default 300. */
    unsigned heartbeat_ms;         /* Default 50. */
    unsigned install_timeout_ms;   /* Default 600,000. */
    unsigned inflight_entries_max; /* Per peer. Default 65,536. */
};

/** An engine: the table of functions behind the calls below. */
struct bop_raft_engine {
    const char *name;
    int (*create)(const struct bop_raft_options *options, struct bop_raft **out_raft,
                  struct bop_error *err);
    void (*destroy)(struct bop_raft *raft);
    int (*step)(struct bop_raft *raft, const struct bop_raft_event *event,
                struct bop_raft_update *out_update);
    uint64_t (*deadline_ms)(const struct bop_raft *raft);
    void (*status)(const struct bop_raft *raft, struct bop_raft_status *out_status);
    void (*configuration)(const struct bop_raft *raft, struct bop_raft_configuration *out_conf,
                          uint64_t *out_committed_index);
    uint64_t (*match_index)(const struct bop_raft *raft, uint64_t peer);
    const char *(*last_error)(const struct bop_raft *raft);
    int (*tune)(struct bop_raft *raft, const struct bop_raft_options *options); /* May be NULL. */
};

/** First in every engine's instance. */
struct bop_raft {
    const struct bop_raft_engine *engine;
};

/**
 * The engine on libraft's sans-I/O core. Its create refuses a libraft below
 * 0.22.1 (BOP_EVERSION). It takes over libraft's process-wide heap at the first
 * create: a process that also uses libraft by itself must do so through the same
 * static copy and only after that.
 */
BOP_API const struct bop_raft_engine *bop_raft_engine_libraft(void);

/** engine NULL: libraft. */
BOP_API BOP_MUST_USE int bop_raft_create(const struct bop_raft_engine *engine,
                                         const struct bop_raft_options *options,
                                         struct bop_raft **out_raft, struct bop_error *err);
BOP_API void bop_raft_destroy(struct bop_raft *raft);

/**
 * Take in one event. On success *out_update says what to do. Returns 0;
 * BOP_ENOTLEADER (also a leader that is handing over), BOP_EBUSY (a change is
 * under way or must wait, too many reads wait, a snapshot is being installed) or
 * BOP_EINVAL for an event that is refused and changes nothing; any other code
 * means that the instance is of no use any more: BOP_ENOMEM, BOP_ECORRUPT (a
 * peer contradicts a committed entry), BOP_EFAILED. A message that makes no
 * sense is no error: it is dropped and counted.
 *
 * A CHANGE holds the whole new configuration; it adds, removes or alters one
 * server. To add a voter, add it as STANDBY first and make it VOTER once its
 * match index is near the end of the log.
 */
BOP_API BOP_MUST_USE int bop_raft_step(struct bop_raft *raft, const struct bop_raft_event *event,
                                       struct bop_raft_update *out_update);

/**
 * Change election_timeout_ms, heartbeat_ms and inflight_entries_max, all three, while it
 * runs; nothing else of the options counts. Returns 0, BOP_EINVAL if they do not fit each
 * other, or BOP_EUNSUPPORTED.
 */
BOP_API BOP_MUST_USE int bop_raft_tune(struct bop_raft *raft,
                                       const struct bop_raft_options *options);

/** When to step TIME next, in ms of now_ms's clock. */
BOP_API uint64_t bop_raft_deadline_ms(const struct bop_raft *raft);
BOP_API void bop_raft_status(const struct bop_raft *raft, struct bop_raft_status *out_status);

/** The newest configuration in the log, committed or not. out_committed_index may be NULL. */
BOP_API void bop_raft_configuration(const struct bop_raft *raft,
                                    struct bop_raft_configuration *out_conf,
                                    uint64_t *out_committed_index);

/** Leader: the last entry known to be durable on a peer; 0 if not the leader. */
BOP_API uint64_t bop_raft_match_index(const struct bop_raft *raft, uint64_t peer);

/** Why the last step was refused or failed; "" if none was. Valid until the next step. */
BOP_API const char *bop_raft_last_error(const struct bop_raft *raft);

#endif
