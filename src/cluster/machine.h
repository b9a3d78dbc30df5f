/*
 * The state machine: maps, sets, multimaps, counters and sessions in a bop_kv, changed by log
 * entries in order and by nothing else.
 *
 * Applying is a pure function of state and entry: no clock, no randomness, no
 * order of pointers or hash seeds. After the same entries two machines hold the
 * same bytes in every table. The applied index is committed with the effects it
 * stands for.
 *
 * What is kept in memory beside the store (session table with reply windows,
 * sizes of collections) is rebuilt from it at open and after an abort.
 *
 * Threads: the owner's only, but for a view, which may be read on another thread
 * while the owner goes on applying.
 */
#ifndef BOP_CLUSTER_MACHINE_H
#define BOP_CLUSTER_MACHINE_H

#include <bop/alloc.h>
#include <bop/error.h>
#include <bop/kv.h>
#include <bop/metrics.h>
#include <bop/raft.h>
#include <bop/slice.h>
#include <bop/wire.h>

#include "command.h"

/*
 * Levels: what operations and commands there are. A cluster begins at 1 and is raised by a LEVEL
 * entry, once every one of its servers knows what that brings. Below, it is answered TOO_OLD: all
 * replicas apply an entry alike, whatever their versions.
 *
 *   1  maps, sets, multimaps, counters, sessions
 *   2  times to live, exchange, take, bulk puts, locks, members, registrations, transactions,
 * timers
 */
#define MACHINE_LEVEL     2
#define MACHINE_LEVEL_MIN 1
/* That brought sessions with grace. */
#define MACHINE_LEVEL_GRACE 2

#define MACHINE_WINDOW_MAX             16384  /* Unacked writes of one session. */
#define MACHINE_SESSIONS_MAX           196608 /* Open ones: a table of 2^18 at three quarters. */
#define MACHINE_SESSION_TIMEOUT_MIN_MS 1000
#define MACHINE_SESSION_TIMEOUT_MAX_MS (24 * 3600 * 1000)
#define MACHINE_SCAN_LIMIT_MAX         10000 /* Entries in one page of a scan; asked for with 0. */
#define MACHINE_SCAN_BYTES_MAX         (1024 * 1024) /* Bytes after which a page ends. */

struct machine;
struct machine_view;

struct machine_options {
    struct bop_allocator *allocator; /* Borrowed until close. Default: the process's. */
    struct bop_metrics *metrics;     /* Borrowed. Default: none. */
    const char *path;                /* The store's directory. Required. */
    uint64_t bytes_max;              /* As bop_kv_options. */
    uint64_t grow_step_bytes;        /* As bop_kv_options. */
};

/** What the state stands at. Zeros: nothing applied yet. */
struct machine_position {
    uint64_t index;      /* The last entry applied. */
    uint64_t term;       /* Its term. */
    uint64_t digest;     /* Chained over index, term, type and payload of all entries applied. */
    uint64_t time_ms;    /* The highest time seen in an entry. */
    uint64_t conf_index; /* The last CHANGE entry applied; 0: none. */
};

/** Open or make. BOP_EVERSION for a state of a newer format, BOP_ECORRUPT if it makes no sense. */
BOP_MUST_USE int bop__machine_open(const struct machine_options *options,
                                   struct machine **out_machine, struct bop_error *err);
void bop__machine_close(struct machine *machine);

struct machine_position bop__machine_position(const struct machine *machine);

/** The payload of the last CHANGE entry applied, owned by the machine until the next apply. Empty:
 * none. */
struct bop_slice bop__machine_configuration(const struct machine *machine);

/* ---- Applying ---- */

/** What became of an entry. The result bytes lie in the buffer given to apply: for a WRITE the
 * operation's, for a SESSION_OPEN the session u64, else none. */
struct machine_result {
    enum command_kind kind; /* 0 for BARRIER and CHANGE entries, and for commands that cannot be
                             * decoded: nobody to answer. */
    uint64_t origin_node;
    uint64_t origin_request;
    uint64_t session; /* WRITE: its session; SESSION_OPEN: the new one. */
    uint8_t status;
    size_t result_at; /* In the results buffer: the operation's result without the status. */
    size_t result_size;
    size_t events_at; /* In the events buffer, if there is one: what the entry changed. */
    size_t events_size;
};

/** Append the events (include/bop/wire.h) of entries applied from now on to a buffer, which the
 * caller clears when it likes between entries, and after an abort. NULL: to none. */
void bop__machine_events_to(struct machine *machine, struct bop_buf *events);

/** Begin a batch. 0, BOP_ENOROOM or another code; on failure there is no batch. */
BOP_MUST_USE int bop__machine_begin(struct machine *machine);

/**
 * Apply the entry after the last applied one (asserted). results is appended to.
 * An entry that makes no sense is applied as one that changes nothing, with
 * status BAD_REQUEST: every replica must go on alike. Any code but 0
 * (BOP_ENOROOM, BOP_ENOMEM, I/O) means: abort the batch; what it applied is
 * undone and may be applied again later.
 */
BOP_MUST_USE int bop__machine_apply(struct machine *machine, uint64_t index,
                                    const struct bop_raft_entry *entry, struct bop_buf *results,
                                    struct machine_result *out_result);

/** Make the batch visible. On failure it is aborted. */
BOP_MUST_USE int bop__machine_commit(struct machine *machine);

/** Undo the batch and rebuild what is kept in memory. 0 or a code that makes the machine unusable.
 */
BOP_MUST_USE int bop__machine_abort(struct machine *machine);

/** Make everything committed survive a crash of the system too. No batch may be open. */
BOP_MUST_USE int bop__machine_sync(struct machine *machine, struct bop_error *err);

/* ---- Reading: a view is one revision of everything, as of the last commit ---- */

BOP_MUST_USE int bop__machine_view_open(struct machine *machine, struct machine_view **out_view);
void bop__machine_view_close(struct machine_view *view);
struct machine_position bop__machine_view_position(const struct machine_view *view);

/** Run a read operation; its result (without status) is appended. Returns the bop_status, or a
 * negative code. */
BOP_MUST_USE int bop__machine_read(struct machine_view *view, const struct bop_operation *operation,
                                   struct bop_buf *out);

/** A digest of every byte of every table: equal for equal positions. */
BOP_MUST_USE int bop__machine_content_digest(struct machine_view *view, uint64_t *out_digest);

/** No deadline of the state is earlier, in the cluster's time; UINT64_MAX: there is none. When it
 * is due the leader proposes a TIMERS entry. */
uint64_t bop__machine_deadline_next(const struct machine *machine);

/** What the cluster agreed to speak of; see MACHINE_LEVEL. */
uint32_t bop__machine_level(const struct machine *machine);

/* ---- Sessions. Liveness is the leader's business and not replicated: seen_ms is any clock of the
 * caller's. A session that was never heard of counts as heard of when sessions_expired() first
 * meets it ---- */

/** The timeout that a session gets which asks for this one. */
static inline uint32_t bop__machine_session_timeout(uint32_t timeout_ms)
{
    return timeout_ms < MACHINE_SESSION_TIMEOUT_MIN_MS   ? MACHINE_SESSION_TIMEOUT_MIN_MS
           : timeout_ms > MACHINE_SESSION_TIMEOUT_MAX_MS ? MACHINE_SESSION_TIMEOUT_MAX_MS
                                                         : timeout_ms;
}

uint64_t bop__machine_session_count(const struct machine *machine);
/** True if the session is open; and, if token is not NULL, the token is its. */
bool bop__machine_session_check(const struct machine *machine, uint64_t session,
                                const uint8_t *token);
/** Note that a session was heard of. False if there is none. */
bool bop__machine_session_seen(struct machine *machine, uint64_t session, uint64_t seen_ms);
/** The same, and through which node. */
bool bop__machine_session_heard(struct machine *machine, uint64_t session, uint64_t via,
                                uint64_t seen_ms);
/** A write of it was applied. That it was sent may be long ago: who was cut meanwhile stays so, and
 * who went on elsewhere too. */
void bop__machine_session_wrote(struct machine *machine, uint64_t session, uint64_t via,
                                uint64_t seen_ms);
/** A node says that the connection broke on which a session was used. If that is the node it was
 * heard of last, and it has a grace, it ends when nothing more is heard for so long. */
void bop__machine_session_cut(struct machine *machine, uint64_t session, uint64_t via,
                              uint64_t now_ms);
/** A new leader gives every session a fresh timeout. */
void bop__machine_sessions_seen_all(struct machine *machine, uint64_t seen_ms);
/** Up to max sessions not heard of for longer than their timeout. Returns how many. */
size_t bop__machine_sessions_expired(struct machine *machine, uint64_t now_ms,
                                     uint64_t *out_sessions, size_t max);

#endif
