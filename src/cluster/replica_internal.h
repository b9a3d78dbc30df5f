/*
 * The replica's own state, shared by the files replica*.c.
 *
 *      replica.c           open, close, one turn, deadlines, status
 *      replica_log.c       entries: the log file and the cache in front of it
 *      replica_step.c      one event into the engine, and what its update asks for
 *      replica_apply.c     committed entries into the state machine
 *      replica_request.c   writes and reads of clients, forwarding, sessions
 *      replica_digest.c    whether all nodes hold the same
 *      replica_time.c      the cluster's time, and what is due by it
 *      replica_peer.c      frames from and messages to peers
 *      replica_snapshot.c  taking and installing snapshots, the state at start
 *      replica_remove.c    removing snapshots that a newer one stands for
 *      replica_transfer.c  snapshots on their way to and from peers
 *      replica_backup.c    snapshots that clients take with them
 *      replica_join.c      a node that asks to be added
 *      replica_member.c    who belongs to the cluster, and who should lead it
 *      replica_admin.c     changes that an operator asks for
 *      replica_param.c     parameters that are read and set while it runs
 */
#ifndef BOP_CLUSTER_REPLICA_INTERNAL_H
#define BOP_CLUSTER_REPLICA_INTERNAL_H

#include <inttypes.h>

#include <bop/aof.h>

#include "data_dir.h"
#include "entry_cache.h"
#include "peer_wire.h"
#include "replica.h"
#include "replica_admin.h"
#include "replica_backup.h"
#include "replica_member.h"
#include "snapshot.h"
#include "stoppable_fs.h"
#include "vote_file.h"

/* Bounds. Each has a reason beside it; none is met in ordinary use. */
#define PENDING_WRITES_MAX 16384 /* Of this node's clients. A power of two. */
#define UNCOMMITTED_MAX                                                                            \
    (32u * 1024 * 1024)         /* Bytes a leader takes ahead of commit.                           \
                                 */
#define JOIN_CAUGHT_UP     1000 /* Entries that a standby may lack to become a voter. */
#define LOG_PENDING_MAX    (64u * 1024 * 1024) /* Bytes a follower takes ahead of its disk. */
#define ENTRY_CACHE_MAX    (4u * 1024 * 1024)
#define LOG_READ_MAX       1024          /* Entries read back from disk at once... */
#define LOG_READ_BYTES     (256u * 1024) /* ...and their bytes. */
#define APPLY_ENTRIES_MAX  4096          /* At once. */
#define APPLY_BYTES_MAX    (2u * 1024 * 1024)
#define SETTLE_ENTRIES     16384 /* In one transaction... */
#define SETTLE_BYTES       (4u * 1024 * 1024)
#define SETTLE_MS          100           /* ...which stays open so long at most. */
#define READ_BATCHES_MAX   8             /* Asked for and not granted; later reads join the next. */
#define READ_GATHER_MS     50            /* Patient reads wait so long for more. */
#define CHUNK_BYTES        (128u * 1024) /* Of a snapshot on its way. */
#define SEND_AHEAD_US      5000 /* Of the rate that is allowed: turns are not on the microsecond. */
#define SEND_AGAIN_MS      500  /* After a refusal; consensus asks with each heartbeat. */
#define CATCH_UP_MS        120000 /* Entries are kept so long for one that loads a snapshot. */
#define SEND_STALL_MS      10000  /* Without an acknowledgement; then a transfer is given up. */
#define SNAPSHOT_BYTES_MAX (1ull << 40)   /* That a peer may announce. */
#define CHUNK_WINDOW       (1024u * 1024) /* Sent and not acknowledged. */
#define ALIVE_MAX          512            /* Sessions in one message to the leader. */
#define PROPOSALS_MAX      8192           /* Of one turn; more wait for the next. */
#define WRITE_DEADLINE_MS  5000           /* Then the outcome is given as unknown. */
#define SNAPSHOT_SEGMENTS  4 /* Of the log, applied since a snapshot: time for another. */
#define SNAPSHOT_LARGE     (64u * 1024 * 1024) /* Bytes; below, one costs next to nothing. */
#define SNAPSHOT_SLICE     (1024u * 1024) /* Bytes of records that are written from one view. */
#define PAST_BYTES_MIN     (64u * 1024 * 1024) /* For what changes while a snapshot is written... */
#define PAST_SHARE         4                   /* ...or this part of what the last one had. */
#define SNAPSHOT_REST_MS   50    /* Between two slices at most, while entries come... */
#define SNAPSHOT_REST_ALL  60000 /* ...and between all of them, by the last one's size. */
#define TAKE_RETRY_MS      5000  /* After a snapshot that could not be taken. */
#define APPLY_RETRY_MS     500   /* After a full disk. */
#define APPLY_GATHER_MS    10    /* Entries wait so long where nobody waits for them. */
#define APPLY_TURN_MS      20    /* Of one turn; heartbeats must not wait longer. */
#define DISK_RESERVE       (32u * 1024 * 1024) /* Free bytes below which no write is taken. */
#define DISK_LOOK          (4u * 1024 * 1024)  /* The log's bytes after which it is looked at. */
#define DIGESTS_KEPT       4                   /* Of each node, to compare. */
#define LEVEL_WAIT_MS      3000 /* For servers that were never there, before the level is raised. */
#define HOUSEKEEPING_MS    100
#define PATH_MAX_BYTES     4096

/* Index and term. */
#define SNAPSHOT_NAME "snapshots/%016" PRIx64 "-%016" PRIx64 ".snap"

#define ALIVE_CUT (UINT64_C(1) << 63) /* With a session's id: its connection broke. */

/** The digest of a state's content, as of an entry; index 0: none. */
struct replica_digest {
    uint64_t index;
    uint64_t digest;
    uint32_t format; /* Of the state. */
};

struct replica_peer {
    uint64_t id;                                 /* 0: free. */
    struct replica_digest digests[DIGESTS_KEPT]; /* Told by it. */
    bool connected;
    uint64_t heard_ms; /* 0: never. */
    /* As it introduced itself; 0: it did not say. */
    uint64_t incarnation;
    uint32_t level;
    uint64_t since;  /* Likewise: it is a member, by the configuration of this entry. */
    bool was_member; /* Of a configuration that this node led by. */
    bool impostor;   /* It said hello before we knew whose place it takes. */
    bool outdated;   /* It was added since, perhaps for another directory than that. */
    /* Leader of tell_term: what it knows to be committed, and for which entry it waits. */
    uint64_t tell_term;
    uint64_t told;
    uint64_t waits_for;
    /* A snapshot on its way to this peer. */
    struct {
        bool active;
        bool offered; /* It has yet to say how much of it is there. */
        int fd;
        uint64_t raft_term;
        uint64_t index;
        uint64_t term;
        uint64_t size;
        uint64_t sent;
        uint64_t acked;
        uint64_t acked_ms;
        uint64_t refused_ms; /* When it would not have one; 0: it has not said so since. */
        uint64_t logged;     /* The newest whose sending was noted in the log. */
    } send;
    /* It has all of a snapshot that we, who led in this term, sent: what follows is kept for it. */
    struct {
        uint64_t index; /* What it has, as far as we know; 0: nothing is kept. */
        uint64_t term;
        uint64_t ms; /* When that was last more. */
    } catching_up;
};

/** A snapshot on its way to us. */
struct incoming_snapshot {
    bool active;
    int fd;
    uint64_t from;
    uint64_t raft_term;
    uint64_t index;
    uint64_t term;
    uint64_t size;
    uint64_t received;
};

struct read_batch {
    struct bop_list link;
    uint64_t context;
    uint64_t index; /* 0: not granted yet. */
    struct bop_list reads;
};

/** A snapshot of our own being written. */
struct snapshot_taking {
    bool active;
    uint64_t log_bytes; /* Applied between the snapshot before and this one. */
    struct bop_task task;
    struct machine_past *past;      /* Of the machine as it was, */
    struct snapshot_writer *writer; /* into here, slice by slice. NULL before the first one. */
    bool more;                      /* The slice under way was not the last one. */
    bool resting;                   /* Between two slices: no task is under way. */
    uint64_t rest_until_ms;
    uint64_t applied; /* When the slice under way began. */
    struct bop_buf conf;
    struct snapshot_info info;
    char path[PATH_MAX_BYTES];
    int rc;
    struct bop_error error;
};

/** Snapshots that a newer one stands for, being removed one at a time. */
struct snapshot_removing {
    bool wanted; /* There may be some. */
    bool running;
    struct bop_task task;
    char path[PATH_MAX_BYTES];
    int rc;
};

enum verify_phase {
    VERIFY_IDLE,
    VERIFY_UNDER_WAY,
    VERIFY_DAMAGED,
};

/** The newest snapshot, which a start did not read through, being checked. */
struct snapshot_verify {
    enum verify_phase phase;
    bool running; /* A task of it is. */
    uint64_t index;
    uint64_t term;
    uint64_t again_ms; /* After there was no memory. */
    struct snapshot_reader *reader;
    struct bop_task task;
    int rc;
};

enum install_phase {
    INSTALL_IDLE,
    INSTALL_CHECKING, /* A received file is verified and given its name. */
    INSTALL_WAITING,  /* The engine wants it; a snapshot of our own is still being written. */
    INSTALL_LOADING,  /* The state is made from it. */
    INSTALL_SETTLING, /* Done but for the log's reset, which may not be durable yet. */
};

/** A snapshot of a peer's being put in place of our state. */
struct snapshot_install {
    enum install_phase phase;
    struct bop_task task;
    int fd; /* CHECKING: of the received file. */
    uint64_t from;
    uint64_t raft_term;
    struct snapshot_info info;
    char path[PATH_MAX_BYTES]; /* Its name once checked. */
    int rc;
    struct bop_error error;
};

/** The cluster's time as a leader tells it, and what is proposed because of it. */
struct replica_time {
    uint64_t base_ms;  /* The cluster's time... */
    uint64_t since_ms; /* ...at this one of the monotonic clock, when we were elected. */
    uint64_t last_ms;  /* The highest given to an entry. */
    uint64_t again_ms; /* Timers that found no room are proposed again then. */
    bool timers_pending;
    bool level_pending;
    struct replica_write timers_write;
    struct replica_write level_write;
};

struct replica {
    struct replica_options options;
    struct bop_allocator *allocator;
    struct bop_fs *fs;
    char *strings; /* Backing of the texts in options. */
    size_t strings_size;

    int failed;
    char failure[BOP_ERROR_MESSAGE_MAX];
    bool failure_told;

    struct bop_random random;
    uint64_t now_ms; /* Of this turn. */
    struct data_dir dir;

    /* Consensus and log. */
    struct bop_raft *raft;
    struct bop_raft_status status; /* After the last step. */
    struct vote_file votes;
    struct bop_aof *aof;
    struct entry_cache cache;
    uint64_t durable;                   /* As told by the log; stepped up to... */
    uint64_t durable_told;              /* ...here. */
    struct bop_raft_configuration conf; /* The newest. */
    struct bop_raft_entry *decode_entries;
    struct bop_buf scratch;         /* Of one call. */
    struct bop_buf log_scratch;     /* Entries read back from disk. */
    struct bop_aof_view *log_views; /* LOG_READ_MAX of them: a window of entries read back. */
    uint64_t log_window;            /* Index of the first one. */
    unsigned log_window_count;
    struct bop_aof_record *log_records;
    size_t log_records_capacity;

    /* State machine. */
    struct machine *machine; /* NULL while a snapshot is being loaded. */
    uint64_t applied;        /* The last entry whose result was told. */
    uint64_t applied_bytes;  /* Of entries since the last snapshot, as far as seen. */
    struct {                 /* The transaction that entries are applied in. */
        bool open;
        uint64_t due_ms;
        uint64_t again_ms; /* When what was undone is applied again, after that failed. */
        uint64_t entries;
        uint64_t bytes;
    } batch;
    bool apply_more;         /* The turn's time was up before all was applied. */
    bool apply_stopped;      /* At an entry of which a snapshot is to be taken. */
    uint64_t apply_due_ms;   /* Committed entries gather until then; 0: there are none. */
    bool disk_low;           /* Less than DISK_RESERVE is free. */
    bool log_full;           /* None is: what is to be appended waits. */
    uint64_t disk_taken;     /* Bytes that went to the log since the disk was looked at. */
    bool state_full;         /* The last batch found no room... */
    uint64_t apply_again_ms; /* ...and is tried again then. */
    struct bop_buf results;
    struct bop_buf events;              /* As results; only if somebody wants them. */
    struct machine_result *result_list; /* APPLY_ENTRIES_MAX of them. */

    /* Requests. */
    struct replica_write **writes; /* PENDING_WRITES_MAX, by id. */
    uint64_t write_next;           /* The next id. */
    uint64_t write_oldest;         /* No pending write has a lower id. */
    size_t write_count;
    uint64_t pending_leader; /* Leader and term under which pending writes were sent. */
    uint64_t pending_term;
    struct bop_buf proposals; /* Commands of this turn: u32 size, bytes. */
    unsigned proposal_count;
    struct bop_buf submitting; /* The commands that are being submitted. */
    /* Leader: bytes submitted and not committed, in two buckets that take turns: the
     * older one is empty once the entry it ends with is committed. */
    struct {
        uint64_t bytes;
        uint64_t last;
    } uncommitted[2];
    struct replica_time time;
    struct bop_list reads_new;
    uint64_t reads_due_ms;        /* When to ask for them; UINT64_MAX: there are none. */
    struct bop_list read_batches; /* In order of asking. */
    unsigned read_batch_count;
    uint64_t read_context;
    uint64_t alive[ALIVE_MAX]; /* Sessions to tell the leader about. */
    unsigned alive_count;
    uint64_t housekeeping_ms;              /* When next. */
    struct bop_raft_entry *submit_entries; /* PROPOSALS_MAX of them. */
    bool expiring;                         /* An EXPIRE of ours is on its way. */
    struct replica_write expire_write;

    /* Peers. */
    struct replica_peer peers[BOP_RAFT_SERVERS_MAX + 1];

    /* Snapshots. */
    struct snapshot_info snapshot; /* The newest; raft.index 0: none. */
    struct replica_digest digests[DIGESTS_KEPT];
    struct incoming_snapshot incoming;
    struct stoppable_fs writing; /* What snapshots of our own are written through. */
    struct snapshot_taking taking;
    struct snapshot_removing removing;
    struct snapshot_verify verify;
    struct snapshot_install install;
    struct replica_backup backups[BACKUPS_MAX];
    uint64_t send_due_us; /* When more of snapshots and backups may be sent. */
    char state_path[PATH_MAX_BYTES];
    uint64_t take_again_ms; /* After one that could not be taken. */
    uint64_t join_ms;       /* When to ask next. */
    struct replica_members members;
    struct {
        uint64_t index;     /* An entry that was here and is not any more; 0: nothing is missed. */
        uint64_t committed; /* A leader told us since that so much is committed. */
    } lost;
    struct replica_admins admins;

    /* Metrics. */
    struct {
        struct bop_metric *applied, *commit, *term, *leader, *proposals, *reads, *elections;
        struct bop_metric *snapshots_taken, *snapshots_installed, *digest_mismatches,
            *dropped_appends;
        struct bop_histogram *apply_batch;
    } metrics;
};

/* replica.c */
int bop__replica_fail(struct replica *replica, int code, const char *format, ...) BOP_PRINTF(3, 4);
BOP_MUST_USE int bop__replica_path(const struct replica *replica, char *out_path,
                                   const char *format, ...) BOP_PRINTF(3, 4);

/* replica_log.c */
BOP_MUST_USE int bop__replica_log_open(struct replica *replica, struct bop_error *err);
BOP_MUST_USE int bop__replica_log_append(struct replica *replica, uint64_t index,
                                         const struct bop_raft_entry *entries, unsigned count);
/** The entry, borrowed until the next call of this module; NULL: it could not be read (replica
 * failed). */
const struct bop_raft_entry *bop__replica_log_get(struct replica *replica, uint64_t index,
                                                  struct bop_raft_entry *storage);

/* replica_loss.c */
/** Read from the data directory whether entries are missed. */
BOP_MUST_USE int bop__replica_loss_open(struct replica *replica, struct bop_error *err);
/** The log ends before this entry, which was applied here. */
BOP_MUST_USE int bop__replica_loss_found(struct replica *replica, uint64_t index,
                                         struct bop_error *err);
/** A message that is neither sent nor heard, for entries are missed. */
bool bop__replica_loss_silences(const struct replica *replica,
                                const struct bop_raft_message *message);
/** After a step with it. */
void bop__replica_loss_heard(struct replica *replica, const struct bop_raft_message *message);
void bop__replica_loss_turn(struct replica *replica);

/* replica_step.c */
int bop__replica_step(struct replica *replica, const struct bop_raft_event *event);

/* replica_apply.c */
void bop__replica_apply(struct replica *replica);

/* replica_request.c */
void bop__replica_requests_turn(struct replica *replica);
void bop__replica_requests_leadership(struct replica *replica);
void bop__replica_requests_housekeeping(struct replica *replica);
void bop__replica_requests_deinit(struct replica *replica);
void bop__replica_reads_serve(struct replica *replica);
void bop__replica_read_granted(struct replica *replica, const struct bop_raft_read_update *read);
void bop__replica_write_finish(struct replica *replica, const struct machine_result *result);
void bop__replica_write_refused(struct replica *replica, uint64_t id, uint8_t status);
int bop__replica_forwarded(struct replica *replica, uint64_t peer, struct bop_slice command);
void bop__replica_alive_list(struct replica *replica, uint64_t peer, struct bop_slice payload);

/* replica_time.c */
/** We lead from here on. */
void bop__replica_time_begin(struct replica *replica);
/** The cluster's time now. We lead. */
uint64_t bop__replica_time(struct replica *replica);
void bop__replica_time_turn(struct replica *replica);
/** When something is due, on the monotonic clock; UINT64_MAX: nothing is. */
uint64_t bop__replica_timers_due_ms(const struct replica *replica);

/* replica_peer.c */
struct replica_peer *bop__replica_peer(struct replica *replica, uint64_t id);
void bop__replica_send(struct replica *replica, const struct bop_raft_message *message);
/** Leader: a request at this peer can be answered once it knows that the entry is committed. */
void bop__replica_peer_waits(struct replica *replica, uint64_t peer, uint64_t index);
/** Leader: tell peers that wait what is committed, if no append did that anyway. */
void bop__replica_tell_commits(struct replica *replica);
/** Begin a frame to a peer; NULL if it cannot be had now. End it with bop__replica_frame_end(). */
struct bop_buf *bop__replica_frame_begin(struct replica *replica, uint64_t peer, size_t *out_at);
void bop__replica_frame_end(struct replica *replica, uint64_t peer, struct bop_buf *buf, size_t at,
                            enum bop_wire_kind kind, const struct bop_writer *writer);

/* replica_snapshot.c */
BOP_MUST_USE int bop__replica_state_open(struct replica *replica, bool trusted,
                                         struct bop_error *err);
void bop__replica_snapshot_turn(struct replica *replica);
/** Of what index and term a snapshot with such a name is; false: it is no name of one. */
bool bop__replica_snapshot_name(const char *name, uint64_t *out_index, uint64_t *out_term);
/** Of one that is being written and rests; for the end. */
void bop__replica_snapshot_give_up(struct replica *replica);
void bop__replica_snapshot_install(struct replica *replica,
                                   const struct bop_raft_snapshot *snapshot);

/* replica_remove.c */
void bop__replica_remove_turn(struct replica *replica);

/* replica_verify.c */
/** The newest snapshot is believed by its header alone: read the rest when there is time. */
void bop__replica_verify_begin(struct replica *replica);
void bop__replica_verify_turn(struct replica *replica);
/** The newest snapshot was read through, now or when it was made. */
bool bop__replica_verify_passed(const struct replica *replica);
/** It is known not to be whole. */
bool bop__replica_verify_failed(const struct replica *replica);
/** The damaged one was written anew. */
void bop__replica_verify_replaced(struct replica *replica);
void bop__replica_verify_deinit(struct replica *replica);

/* replica_transfer.c */
void bop__replica_snapshot_send(struct replica *replica, const struct bop_raft_message *message);
/** Send what found no room in a peer's queue before. */
void bop__replica_snapshot_send_on(struct replica *replica);
/** When that may go on, on the monotonic clock; UINT64_MAX: nothing waits for the time. */
uint64_t bop__replica_snapshot_due_ms(const struct replica *replica);
void bop__replica_snapshot_stop_sending(struct replica *replica, struct replica_peer *peer);
int bop__replica_snapshot_chunk(struct replica *replica, uint64_t peer,
                                const struct peer_chunk *chunk);
/** A peer is about to send one. Returns 0 or BOP_EMALFORMED. */
int bop__replica_snapshot_offered(struct replica *replica, uint64_t peer,
                                  const struct peer_offer *offer);
/** A peer says how much of the one on its way it has. */
void bop__replica_snapshot_have(struct replica *replica, struct replica_peer *peer,
                                const struct peer_have *have);
void bop__replica_snapshot_ack(struct replica *replica, struct replica_peer *peer,
                               const struct peer_chunk_ack *ack);
void bop__replica_snapshot_deinit(struct replica *replica);
/** How long to wait before more of a snapshot or a backup is sent; 0: not at all. */
uint32_t bop__replica_send_wait_ms(const struct replica *replica);
/** So much of one was sent. */
void bop__replica_send_count(struct replica *replica, uint64_t bytes);

/* replica_backup.c */
/** Remove what an earlier run left. */
void bop__replica_backups_open(struct replica *replica);
void bop__replica_backups_turn(struct replica *replica);
bool bop__replica_backups_cutting(const struct replica *replica);
void bop__replica_backups_deinit(struct replica *replica);

/** May one be taken now? */
bool bop__replica_snapshot_may_take(const struct replica *replica);
/** Find out who of those that were sent a snapshot has caught up since. */
void bop__replica_catching_up_turn(struct replica *replica);

/* replica_digest.c */
/** A snapshot was taken: its content has this digest. */
void bop__replica_digest_taken(struct replica *replica, uint64_t index, uint64_t digest);
BOP_MUST_USE int bop__replica_digest_told(struct replica *replica, struct replica_peer *peer,
                                          struct bop_slice payload);

/* replica_join.c */
void bop__replica_join_turn(struct replica *replica);
int bop__replica_join_asked(struct replica *replica, uint64_t peer, struct bop_slice payload);
/** Leader: change the configuration. 0, or why not, with bop_raft_last_error(). */
int bop__replica_change(struct replica *replica, const struct bop_raft_configuration *conf);

/* replica_member.c */
BOP_MUST_USE int bop__replica_members_open(struct replica *replica, struct bop_error *err);
void bop__replica_members_turn(struct replica *replica);
/** This directory was a member by a committed configuration, or is one by the newest. */
bool bop__replica_members_have_us(const struct replica *replica);
/** Leader: a standby may get a vote. */
bool bop__replica_caught_up(const struct replica *replica, uint64_t id);
/** The highest feature level that every server of the cluster is known to have. */
uint32_t bop__replica_level(struct replica *replica);
/** The newest configuration may be another one than before, which was not committed if
 * was_changing. */
void bop__replica_members_configured(struct replica *replica,
                                     const struct bop_raft_configuration *before,
                                     bool was_changing);
/** The log is read. The newest configuration is of the entry `index`, and followed this one; if it
 * was the first that had us, it is committed if we know that one was. */
void bop__replica_members_started(struct replica *replica,
                                  const struct bop_raft_configuration *before, uint64_t index);

/* replica_admin.c */
void bop__replica_admins_turn(struct replica *replica);
void bop__replica_admins_deinit(struct replica *replica);
int bop__replica_admin_asked(struct replica *replica, uint64_t peer, struct bop_slice payload);
int bop__replica_admin_answered(struct replica *replica, struct bop_slice payload);

/* replica_param.c */
void bop__replica_params(struct replica *replica, const struct bop_admin_params *set,
                         struct bop_writer *out);

#endif
