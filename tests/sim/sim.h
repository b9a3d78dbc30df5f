/*
 * Whole clusters on virtual time.
 *
 * A run is a set of nodes, each the replica and its service as the daemon runs
 * them, unchanged, and everything around them made of one seed: clock, executors,
 * disks, network, clients, faults. There is one queue of events, ordered by time
 * and then by number, and one source of chance; so a seed repeats a run to the
 * bit, which the digest of its trace shows.
 *
 *      world.c     the queue, the clock, what happened lately
 *      node.c      a node's life: open, turn, crash, stop; its executors
 *      net.c       connections between nodes
 *      client.c    clients, and their connections
 *      watcher.c   their watches
 *      viewer.c    their views of one revision
 *      settler.c   how they wait for those who watch
 *      backups.c   backups that they fetch
 *      workload.c  what they ask for
 *      nemesis.c   what goes wrong, and when
 *      operator.c  who changes the cluster meanwhile
 *      loss.c      logs that lose their tail
 *      defect.c    defects of the state machine, put in on purpose
 *      model.c     what must hold, checked against the committed entries
 *      state.c     the model's state
 *      shown.c     what it looks like as a whole
 *      main.c      options, many seeds, reports
 */
#ifndef BOP_TESTS_SIM_H
#define BOP_TESTS_SIM_H

#include <inttypes.h>

#include <bop/clock.h>
#include <bop/executor.h>
#include <bop/fs.h>
#include <bop/list.h>
#include <bop/log.h>
#include <bop/random.h>
#include <bop/sim.h>
#include <bop/slice.h>

#include "buggify.h"
#include "replica.h"
#include "replica_admin.h"
#include "replica_member.h"
#include "service.h"
#include "state.h"

#define SIM_NODES_MAX   6
#define SIM_CLIENTS_MAX 6
#define SIM_CONNS       2 /* Of a client. */
#define SIM_WATCHES     3 /* Likewise. */
#define SIM_TOLD_MAX    20000
#define SIM_RING        30 /* Events remembered of each node. */
#define SIM_LINE        200

#define SIM_MS UINT64_C(1000) /* In microseconds. */
#define SIM_S  UINT64_C(1000000)

/** Defects put in on purpose, each of which a check must find. */
enum sim_mutation {
    SIM_MUTATE_NONE,
    SIM_MUTATE_STALE_READ,   /* Clients take stale reads for linearizable ones. */
    SIM_MUTATE_LOSE_WRITE,   /* Disks say that the log is synced and do not sync it. */
    SIM_MUTATE_LOSE_DISK,    /* Disks are empty after a loss of power. */
    SIM_MUTATE_LOSE_VOTE,    /* The same, of the vote file only. */
    SIM_MUTATE_DOUBLE_APPLY, /* Clients repeat a write under a new number. */
    SIM_MUTATE_TAMPER,       /* The network changes a byte of an entry, checksum and all. */
    SIM_MUTATE_DEAD_OWNER,   /* Locks are granted to sessions that end in the same entry. */
    SIM_MUTATE_NO_UNDO,      /* What a transaction did stays, though it failed. */
    SIM_MUTATE_EARLY,        /* Entries expire before their time. */
    SIM_MUTATE_TWICE,        /* Those who watch are told events twice. */
    SIM_MUTATE_COUNT,
};

struct sim_options {
    uint64_t seed;
    uint64_t time_ms; /* With faults; 0: the seed says. The calm at the end comes on top. */
    unsigned nodes;   /* 0: the seed says. */
    bool verbose;
    enum sim_mutation mutation;
    const char *scratch;                  /* A directory for the stores, emptied for each run. */
    const struct bop_raft_engine *engine; /* Of all nodes; NULL: libraft. */
};

struct sim_stats {
    uint64_t committed, leaders, crashes, power_losses, stops, installs, snapshots, exits;
    uint64_t writes, reads, repeats, expired_sessions, events, joins, breaks;
    uint64_t watched, shown, viewed, settled, backups, resyncs, changes, answers, removed, replaced,
        tails;
};

enum sim_event_kind {
    SIM_EVENT_TURN,    /* a: node, c: its life. */
    SIM_EVENT_TIMER,   /* a: node, c: its life. */
    SIM_EVENT_RUN,     /* a: node, b: executor, c: its life. */
    SIM_EVENT_DONE,    /* a: node, b: executor, c: its life. */
    SIM_EVENT_START,   /* a: node, c: its life. */
    SIM_EVENT_CRASH,   /* a: node, b: with power, c: its life. */
    SIM_EVENT_DIAL,    /* a -> b: nodes, c: the connection. */
    SIM_EVENT_ACCEPT,  /* As DIAL. */
    SIM_EVENT_READY,   /* As DIAL. */
    SIM_EVENT_DELIVER, /* As DIAL. */
    SIM_EVENT_LOST,    /* As DIAL. */
    SIM_EVENT_CLIENT,  /* a: client. */
    SIM_EVENT_REQUEST, /* a: client, b: connection, c: its number. */
    SIM_EVENT_REPLY,   /* As REQUEST. */
    SIM_EVENT_HANGUP,  /* As REQUEST: the client learns that it is gone. */
    SIM_EVENT_NEMESIS,
    SIM_EVENT_OPERATOR,
};

struct sim_event {
    uint64_t at_us;
    uint64_t number;
    uint16_t kind;
    uint16_t a, b;
    uint64_t c;
};

/* ---- Bytes under way ---- */

/** First in, first out, each piece with its time of arrival. */
struct sim_pipe {
    struct bop_list pieces;
    uint64_t last_us;
    size_t bytes;
};

struct sim_piece {
    struct bop_list link;
    uint64_t at_us;
    size_t size;
    uint8_t bytes[];
};

/** What node a says to node b, on the connection that a dialed. */
struct sim_link {
    uint64_t epoch;    /* Of the newest connection, or of the attempt to make it. */
    uint64_t accepted; /* The one that b listens to; 0: none. */
    bool ready;        /* a may speak. */
    bool blocked;      /* Nothing gets through; what is under way waits. */
    struct bop_buf out;
    struct sim_pipe pipe;
    char hello[MEMBER_TEXT_MAX]; /* What a says of itself as it dials, */
    uint8_t word[16];            /* and what b says to it before it hangs up. */
    size_t word_size;
};

/* ---- Nodes ---- */

struct sim_executor {
    struct bop_executor executor; /* First. */
    struct sim_node *node;
    unsigned number;
    struct bop_list queue; /* Tasks to run. */
    struct bop_list ran;   /* Tasks whose done is to be called. */
    bool running;          /* A RUN event is under way. */
    uint64_t hung_until_us;
};

struct sim_told {
    uint64_t index;
    uint64_t digest;
};

struct sim_node {
    struct sim *sim;
    unsigned index;
    uint64_t id;
    char address[32];
    uint64_t life;    /* Events of an earlier life mean nothing. */
    bool exists;      /* False: it is to join and has not begun yet, or is gone for good. */
    bool removed;     /* It says that it was removed from the cluster. */
    bool claimed;     /* It said so before anybody had applied the entry: that must come yet. */
    bool was_member;  /* By a committed configuration, with this directory... */
    bool was_removed; /* ...and not any more. */
    uint64_t lost_incarnation; /* Of the directory that it had before. */
    bool up;
    bool join;
    struct replica *replica;
    struct service *service;
    struct bop_fs_sim *disk;
    struct bop_clock clock;
    int64_t wall_offset_ms;
    struct bop_log log;
    struct replica_transport transport;
    struct sim_executor executors[2]; /* Log, work. */
    char state_path[256];
    unsigned boot;
    char boot_id[32];
    bool turning;      /* A TURN event is under way. */
    uint64_t timer_us; /* Of the TIMER event under way. */
    uint64_t service_due_ms;
    uint64_t paused_until_us;
    uint64_t stop_at; /* The disk's operation at which this life ends; 0: none. */
    bool stop_power;  /* It ends by loss of power. */
    bool excused;     /* Its disk was made to fail: it may stop, or refuse to start. With a full one
                       * it may refuse to start, no more. */
    bool lost_power;  /* And was not started since. */
    bool gave_up;     /* The replica has failed; the process ends. */
    struct sim_told *told; /* Entries whose events it told since it was looked at. */
    unsigned told_count;
    uint64_t reset;    /* The last entry up to which its state was replaced. */
    uint64_t observed; /* Entries up to here were compared with those of the others. */
    unsigned refused;  /* Attempts to start in a row that failed. */
    struct {
        bool wanted; /* The end of its log is to be lost before it starts. */
        uint64_t low, last, applied;
        bool lost; /* It was, in this life of its disk, behind this entry, */
        uint64_t kept;
        uint64_t missed; /* and the next start must notice by this entry; 0: it need not. */
    } tail;
    uint64_t full_until_us;
    char shown[SIM_LINE]; /* By --verbose. */
    unsigned line;
    char lines[SIM_RING][SIM_LINE];
};

/* ---- Clients ---- */

struct sim_conn {
    struct sim_client *client;
    unsigned number;
    struct sim_node *node; /* NULL: none. */
    uint64_t epoch;
    struct service_conn *service; /* NULL: the node is gone. */
    struct bop_buf out;           /* Of the node. */
    struct sim_pipe requests, replies;
};

enum sim_op_state {
    SIM_OP_OPEN,
    SIM_OP_ANSWERED,
    SIM_OP_UNKNOWN, /* Given up; may have been applied or may yet be. */
    SIM_OP_REFUSED, /* Given up; must never be applied. */
};

/** A request of a client, for ever. Its number, from 1, is its id on the wire. */
struct sim_op {
    enum sim_op_state state;
    unsigned client;
    enum bop_op op; /* 0: opens or closes a session. */
    uint64_t session;
    uint64_t sequence;
    uint8_t *bytes; /* Of the operation. */
    size_t size;
    bool stale;
    bool closes;       /* With op 0: it ends a session. */
    bool want_copy;    /* It is to be sent twice. */
    uint64_t floor;    /* What was acknowledged when it was first sent. */
    uint64_t first_us; /* When it was first sent; */
    uint64_t sent_us;  /* and last. */
    uint64_t again_us;
    unsigned sends;
    unsigned conns; /* A bit for each connection on which an answer may come. */
    /* As the model has it. */
    uint64_t applied; /* The entry that did it; 0: none yet. */
    uint8_t status;
    uint64_t result; /* A digest. */
};

/** A watch of a client, which goes on wherever the client is connected. */
struct sim_watch {
    enum bop_watch_what what;
    char name[3];
    bool previous; /* It wants what was there before. */
    bool snapshot; /* It wants to begin with how things stand, */
    bool asked;    /* and asked for it with its last open, */
    bool begins;   /* and was not told all of that yet. */
    struct state_shown *shown;
    uint64_t session;      /* Of SESSION. */
    bool acknowledges;     /* It answers marks, */
    uint64_t acknowledged; /* and did so up to here since it was opened. */
    uint32_t id;           /* On the wire; 0: it is not open. */
    bool open;             /* And that was answered. */
    unsigned conn;         /* Where. */
    uint64_t revision;     /* All up to here was told. */
    size_t next_event;     /* The model's next one. */
};

/** A view of one revision: at most one at a time, and one question about it. */
struct sim_view {
    enum { SIM_VIEW_NONE, SIM_VIEW_OPENS, SIM_VIEW_OPEN, SIM_VIEW_ASKED, SIM_VIEW_CLOSES } state;
    unsigned conn;
    uint32_t request; /* The last one. */
    uint64_t id;
    uint64_t revision;
    uint64_t floor; /* What was acknowledged when it was asked for. */
    unsigned asks;
    struct bop_buf operation; /* What was asked. */
};

/** Waits until all who watch a key have acknowledged what it is. */
struct sim_settler {
    uint32_t request; /* The last one. */
    bool asked;       /* And not answered yet. */
    unsigned conn;
    uint64_t floor;                                 /* What was acknowledged when it asked, */
    uint32_t watches[SIM_CLIENTS_MAX][SIM_WATCHES]; /* and who watched; 0: not this one. */
    /* One that had not acknowledged, unless it hears until then that it is over. */
    const struct sim_watch *suspect;
    uint32_t suspect_id;
    unsigned suspect_client;
    uint64_t heard, until_us;
};

/** A backup: cut by a node, fetched in pieces. */
struct sim_backup {
    enum { SIM_BACKUP_NONE, SIM_BACKUP_CUTS, SIM_BACKUP_READS, SIM_BACKUP_DROPS } state;
    unsigned conn;
    uint32_t request; /* The last one. */
    bool asked;       /* And not answered yet. */
    uint64_t wait_us; /* Nothing is asked before. */
    uint64_t id;
    uint64_t floor; /* What was acknowledged when it was asked for. */
    uint64_t index, bytes;
    struct bop_buf file;
};

struct sim_client {
    struct sim *sim;
    unsigned index;
    bool uses_session;
    struct sim_conn conns[SIM_CONNS];
    uint64_t connect_us; /* Not before. */
    uint64_t session;
    uint64_t session_op; /* The one that opens it; 0: none. */
    uint32_t session_timeout_ms;
    uint8_t token[BOP_TOKEN_SIZE];
    uint64_t alive_us; /* When to say so next. */
    uint64_t sequence;
    uint64_t *open_ops; /* Outstanding. */
    unsigned open_count;
    unsigned pipeline;
    uint64_t think_us;
    uint64_t silent_until_us;
    uint32_t grace_ms; /* 0: sessions without. */
    struct sim_watch watches[SIM_WATCHES];
    unsigned watch_count;
    uint32_t watch_ids;
    struct sim_view view;
    struct sim_settler settler;
    struct sim_backup backup;
};

#define SIM_PIPELINE_MAX 64

/* ---- The whole ---- */

struct sim_entry {
    uint64_t term;
    uint64_t payload; /* A digest. */
    uint64_t digest;  /* Of the machine there; 0: not seen. */
    uint64_t content; /* Likewise, of all its tables. */
    uint64_t events;  /* Likewise, of what it changed; 0: nothing. */
    uint64_t seen_us; /* When it was applied first. */
    size_t first_event;
};

struct sim_model;

struct sim {
    struct sim_options options;
    struct bop_random random;
    uint64_t now_us;
    uint64_t number;
    struct sim_event *events; /* A heap. */
    size_t event_count, event_capacity;
    uint64_t digest;
    bool failed;
    char failure[512];
    struct sim_stats stats;

    unsigned node_count; /* With the one that joins. */
    unsigned founders;
    struct sim_node nodes[SIM_NODES_MAX];
    struct sim_link links[SIM_NODES_MAX][SIM_NODES_MAX];
    size_t queue_max; /* Bytes of a connection, above which it takes no more. */
    uint64_t snapshot_entries, trailing_entries, segment_bytes;

    unsigned client_count;
    struct sim_client clients[SIM_CLIENTS_MAX];
    struct sim_op *ops;
    size_t op_count, op_capacity;
    bool big_values;
    struct bop_random secrets;   /* What is drawn where nobody may guess it. */
    struct bop_random oddities;  /* What bop/buggify.h's points are answered from. */
    uint16_t odd[BUGGIFY_COUNT]; /* In so many of 1,024 times. */

    uint64_t faults_end_us, quiet_us, end_us;
    uint32_t fault_weights[20];
    bool replaces;              /* What kind of operator there is. */
    struct sim_node *replacing; /* Its disk is gone. */
    uint64_t fault_pause_us;
    bool calm;  /* No more faults. */
    bool quiet; /* No more new requests. */
    bool over;

    struct sim_model *model;
};

/* world.c */
BOP_MUST_USE bool sim_run(const struct sim_options *options, struct sim_stats *out_stats,
                          uint64_t *out_digest, char *out_failure, size_t failure_size);
void sim_push(struct sim *sim, uint64_t at_us, enum sim_event_kind kind, unsigned a, unsigned b,
              uint64_t c);
/** The first violation counts. */
void sim_fail(struct sim *sim, const char *format, ...) BOP_PRINTF(2, 3);
/** Note what happened to a node (NULL: to the whole). */
void sim_say(struct sim *sim, struct sim_node *node, const char *format, ...) BOP_PRINTF(3, 4);
void sim_mix(struct sim *sim, uint64_t value);
/** After a program error: say which run it was and what happened lately. */
void sim_dump(void);
uint64_t sim_below(struct sim *sim, uint64_t bound);
bool sim_chance(struct sim *sim, unsigned parts, unsigned whole);
/** Uniform between, both included. */
uint64_t sim_between(struct sim *sim, uint64_t low, uint64_t high);
/** How long something takes on the network. */
uint64_t sim_latency(struct sim *sim);
void *sim_memory(size_t size);

void sim_pipe_init(struct sim_pipe *pipe);
/** Returns when it arrives. */
uint64_t sim_pipe_push(struct sim *sim, struct sim_pipe *pipe, struct bop_slice bytes);
/** The next piece that has arrived, to be freed; NULL: none. */
struct sim_piece *sim_pipe_pop(struct sim *sim, struct sim_pipe *pipe);
void sim_pipe_clear(struct sim_pipe *pipe);

/* node.c */
void sim_node_init(struct sim *sim, unsigned index);
void sim_node_deinit(struct sim_node *node);
void sim_node_start(struct sim_node *node);
/** It has something to do. */
void sim_node_touch(struct sim_node *node);
/** To be called whenever code of the node has run: ends its life if that has come. */
void sim_node_after(struct sim_node *node);
void sim_node_crash(struct sim_node *node, bool power);
void sim_node_stop(struct sim_node *node, bool reboot);
/** It is down, and comes back with nothing and asks to be added. */
void sim_node_wipe(struct sim_node *node);
void sim_node_event(struct sim *sim, const struct sim_event *event);
bool sim_node_leads(const struct sim_node *node);

/* loss.c */
/** It dies, and comes back without the last entries of its log if the others can bear that. */
void sim_lose_tail(struct sim *sim, struct sim_node *node);
void sim_tail_start(struct sim_node *node);

/* net.c */
void sim_net_init(struct sim *sim);
void sim_net_deinit(struct sim *sim);
void sim_net_up(struct sim_node *node);
void sim_net_down(struct sim_node *node);
void sim_net_block(struct sim *sim, unsigned a, unsigned b, bool blocked);
void sim_net_break(struct sim *sim, unsigned a, unsigned b);
void sim_net_event(struct sim *sim, const struct sim_event *event);
struct bop_buf *sim_net_output(struct replica_transport *self, uint64_t peer);
void sim_net_flush(struct replica_transport *self, uint64_t peer);

/* client.c */
void sim_clients_init(struct sim *sim);
void sim_clients_deinit(struct sim *sim);
void sim_clients_node_down(struct sim_node *node);
void sim_client_event(struct sim *sim, const struct sim_event *event);
void sim_client_send(struct sim_conn *conn, struct bop_buf *frame);
void sim_client_break(struct sim *sim, unsigned client, unsigned conn);
bool sim_clients_done(const struct sim *sim);
struct sim_op *sim_op(struct sim *sim, uint64_t number);
/** At the end: watches were told everything. */
void sim_clients_finish(struct sim *sim);

/* watcher.c */
void sim_watches_init(struct sim_client *client);
void sim_watches_deinit(struct sim_client *client);
/** Open those that are not. */
void sim_watches_turn(struct sim_client *client);
/** Returns whether a frame was for one of them. */
bool sim_watches_frame(struct sim_conn *conn, const struct bop_wire_frame *frame);
void sim_watches_hangup(struct sim_client *client, unsigned conn);

/* viewer.c */
void sim_viewer_init(struct sim_client *client);
void sim_viewer_turn(struct sim_client *client);
void sim_viewer_hangup(struct sim_client *client, unsigned conn);
/** Returns whether a frame was for its view. */
bool sim_viewer_frame(struct sim_client *client, const struct bop_wire_frame *frame);
void sim_viewer_deinit(struct sim_client *client);

/* settler.c */
void sim_settler_turn(struct sim_client *client);
void sim_settler_hangup(struct sim_client *client, unsigned conn);
/** Returns whether a frame was an answer to it. */
bool sim_settler_frame(struct sim_client *client, const struct bop_wire_frame *frame);

/* backups.c */
void sim_backup_init(struct sim_client *client);
void sim_backup_turn(struct sim_client *client);
void sim_backup_hangup(struct sim_client *client, unsigned conn);
/** Returns whether a frame was about its backup. */
bool sim_backup_frame(struct sim_client *client, const struct bop_wire_frame *frame);
void sim_backup_deinit(struct sim_client *client);

/* workload.c */
/** Choose a read and append it to out. */
void sim_workload_read(struct sim_client *client, struct bop_buf *out);
/** Choose what an operation is to be. */
void sim_workload(struct sim_client *client, uint64_t number);

/* nemesis.c */
void sim_nemesis_init(struct sim *sim);
void sim_nemesis_event(struct sim *sim);
void sim_nemesis_calm(struct sim *sim);
/** A node is about to start: perhaps not for long. */
void sim_nemesis_start(struct sim_node *node);

/* operator.c */
void sim_operator_event(struct sim *sim);
void sim_operator_act(struct sim *sim);

/* defect.c */
extern enum sim_mutation sim_defect;

/* model.c */
void sim_model_init(struct sim *sim);
void sim_model_deinit(struct sim *sim);
/** Compare what a node has applied since the last time. */
void sim_model_observe(struct sim_node *node);
/** A replica began anew from what its disk holds. */
void sim_model_reopened(struct sim_node *node);
uint64_t sim_model_floor(const struct sim *sim);
/** An answer to a write or a session's opening with status OK or CONDITION. */
void sim_model_written(struct sim *sim, uint64_t number, uint8_t status, struct bop_slice result);
void sim_model_read(struct sim *sim, uint64_t number, uint8_t status, struct bop_slice result);
/** At the end: everybody has everything. */
void sim_model_finish(struct sim *sim);
/** True if all nodes are up and have applied the same. */
bool sim_model_at_rest(const struct sim *sim);
uint64_t sim_model_applied(const struct sim *sim);
bool sim_model_session_open(const struct sim *sim, uint64_t session);
const struct state *sim_model_state(const struct sim *sim);
/** The last one committed; count 0: that of the founders. */
const struct bop_raft_configuration *sim_model_configuration(const struct sim *sim);
/** A node tells what an entry changed. */
void sim_model_told(struct sim_node *node, uint64_t index, struct bop_slice events);
void sim_model_watch_from(struct sim *sim, struct sim_watch *watch, uint64_t revision);
void sim_model_watched(struct sim *sim, struct sim_watch *watch, const struct bop_watch_events *in);
/** A backup is of the state after this entry. */
void sim_model_backed_up(struct sim *sim, uint64_t index, uint64_t digest, uint64_t content);
/** It was told all up to this revision. */
void sim_model_marked(struct sim *sim, struct sim_watch *watch, uint64_t revision);
/** What a view of this revision shows. */
void sim_model_viewed(struct sim *sim, uint64_t revision, struct bop_slice operation,
                      const struct bop_reply *reply);
bool sim_model_watch_is_late(const struct sim *sim, const struct sim_watch *watch);

#endif
