/*
 * The inside of a client, shared by its files:
 *
 *     client.c           requests: asked for, sent, answered, given up
 *     client_link.c      connections: made, greeted, watched, lost, moved to the leader
 *     client_servers.c   servers that were not given but told of
 *     client_session.c   the session: opened, kept, lost
 *     client_settle.c    waiting until all who watch have heard
 *     client_trust.c     TLS and the token
 *     client_view.c      views, which are read from as the cluster is
 *     client_blocking.c  a client on a thread of its own
 *
 * A request has a slot for as long as it is under way. Its id on the wire is the
 * slot's index and generation, so a late answer to a request that was given up
 * finds the generation changed and is dropped. Slots lie in two lanes, writes and
 * reads, in the order in which they were asked for. A request is queued (to be
 * sent, again or for the first time) or sent on the present connection:
 *
 *     execute --> queued <--------------------------+
 *                   | flush                         | connection lost or changed,
 *                   v                               | RETRY, BUSY
 *                 sent -----------------------------+
 *                   | answered, given up, session lost, client destroyed
 *                   v
 *                 callback; the slot is free
 *
 * Invariants, checked by bop__client_check():
 *
 *   (1) lane->queued is the number of queued requests in the lane.
 *   (2) Sequence numbers in the lane of writes rise, and those without one (never sent
 *       in this session) come last. So all below the first one's is acknowledged.
 *   (3) Nothing is sent while there is no greeted connection.
 *   (4) Deadlines do not fall along a lane.
 */
#ifndef BOP_CLUSTER_CLIENT_INTERNAL_H
#define BOP_CLUSTER_CLIENT_INTERNAL_H

#include <bop/client.h>
#include <bop/random.h>
#include <bop/socket.h>
#include <bop/tls.h>

#include "client_view.h"
#include "client_watch.h"

/* A request id: the slot's index below, its generation above. Generation 0 is for
 * the ids of the client's own requests, which are their kinds. */
#define CLIENT_INDEX_BITS     14
#define CLIENT_GENERATION_MAX ((1u << (32 - CLIENT_INDEX_BITS)) - 1)

#define CLIENT_KEEP_BYTES 1024 /* A slot keeps a buffer of this size for the next request. */

/* Bytes on their way into the kernel, above which requests wait in their slots. */
#define CLIENT_WRITE_BYTES_MAX (4u * 1024 * 1024)

#define CLIENT_PAUSE_MIN_MS        5  /* After RETRY or BUSY; doubled each time in a row. */
#define CLIENT_PAUSE_MAX_MS        25 /* No election is missed for longer. */
#define CLIENT_RECONNECT_MIN_MS    10 /* After a round of endpoints in vain; doubled likewise. */
#define CLIENT_RECONNECT_MAX_MS    500
#define CLIENT_STABLE_MS           1000 /* A connection of use or of this age ends the doubling. */
#define CLIENT_CANDIDATE_MIN_MS    100  /* After a leader that could not be reached; likewise. */
#define CLIENT_CANDIDATE_MAX_MS    5000
#define CLIENT_SERVERS_AGAIN_MS    300000 /* How often it is asked who the servers are... */
#define CLIENT_SERVERS_SPREAD_MS   10000  /* ...and within what time after a change of servers. */
#define CLIENT_TICK_MIN_MS         50
#define CLIENT_SESSION_TIMEOUT_MIN 100

struct client_endpoint {
    char host[256];
    uint16_t port;
};

struct client_request {
    struct bop_list link;     /* Of its lane, or of the free ones. */
    struct bop_buf operation; /* Encoded; empty for a status request. */
    uint64_t deadline_ms;
    uint64_t sequence; /* Writes: 0 until sent in the session. */
    uint64_t view;     /* Of what is asked of a view. */
    uint32_t generation;
    uint16_t kind; /* Of the request on the wire. */
    uint8_t op;
    uint8_t consistency;
    bool queued;
    bool sent_before;
    bool sent_again; /* So a refusal says nothing of the first time. */
    bop_client_fn fn;
    bop_client_status_fn status_fn;
    bop_client_admin_fn admin_fn;
    bop_client_view_fn view_fn;
    bop_client_settled_fn settled_fn;
    void *user;
};

/** Requests of one sort, in order. */
struct client_lane {
    struct bop_client *client;
    struct bop_list requests;
    size_t queued;
    uint64_t pause_ms;      /* How long the next pause is. */
    struct bop_timer pause; /* While it runs nothing of this lane is sent. */
};

/** A connection. Freed by its on_close; client is NULL from when it counts no more. */
struct client_link {
    struct bop_client *client;
    struct bop_allocator *allocator;
    struct bop_socket *tcp;
    struct client_endpoint endpoint;
    bool opened;
    bool greeted;
    bool hello_pending;
    bool auth_pending;
    bool told;           /* The endpoint was not given, but told of by a server. */
    bool useful;         /* It has answered a request. */
    uint64_t hello_ms;   /* When the pending hello was sent, or the connection begun. */
    uint64_t heard_ms;   /* When the other side last showed that it lives. */
    size_t queued_bytes; /* At the last look: if fewer now, it takes what we send. */
    uint64_t greeted_ms;
    uint64_t node;
};

/** Servers that were told of: client_servers.c. */
struct client_servers {
    struct client_endpoint *list;
    size_t count;
    size_t capacity;
    size_t next;
    bool known;      /* A server has told. */
    bool asked;      /* On the present connection. */
    uint64_t ask_ms; /* When to ask. */
    /* The cluster of the given server that greeted us last; a told one must be of it as well. */
    char cluster[BOP_NAME_MAX + 1];
};

enum client_session_state {
    CLIENT_SESSION_NONE,
    CLIENT_SESSION_OPENING, /* Asked for on the present connection. */
    CLIENT_SESSION_OPEN,
};

struct client_session {
    enum client_session_state state;
    uint64_t id; /* 0 unless OPEN. */
    uint8_t token[BOP_TOKEN_SIZE];
    uint32_t timeout_ms;    /* As granted. */
    uint64_t last_sequence; /* Given to a write. */
    uint64_t life_ms;       /* When we last gave a sign of life. */
    uint64_t resume_asked;  /* The session a pending resume is about; 0: none pending. */
    uint64_t alive_asked;   /* Likewise. */
};

/** Requests for locks: client_lock.c. */
struct client_locks {
    struct bop_list list;
    struct bop_list barriers; /* client_barrier.c */
    struct bop_timer timer;
    uint64_t poll_ms;
    struct bop_client_watch *watch; /* Of the session; NULL: none. */
    uint64_t watched;               /* The session it was opened for. */
    uint64_t watch_again_ms;        /* When to open it again, having been denied; 0: not. */
    uint64_t sync_session;          /* Of the sync under way; 0: none. */
    uint64_t sync_ms;               /* When it, or the last one, began. */
    uint64_t confirmed_ms;          /* When the last one began that came to its end. */
};

struct bop_client {
    struct bop_allocator *allocator;
    struct bop_loop *loop;
    struct bop_log *log;
    struct client_endpoint *endpoints;
    size_t endpoint_count;
    char cluster[BOP_NAME_MAX + 1];
    char name[BOP_NAME_MAX + 1];
    uint32_t session_timeout_ms;
    uint64_t request_timeout_ms;
    uint64_t connect_timeout_ms;
    uint64_t silence_timeout_ms;
    unsigned outstanding_max;
    size_t outstanding_bytes_max;
    bool pin;
    struct bop_tls *tls; /* NULL: plain. */
    bool own_tls;
    char *server_name; /* NULL: the endpoint's host. */
    char *token;       /* NULL: none. */
    int (*secret)(void *out_bytes, size_t size);
    struct bop_random random; /* For back-off. */

    struct client_request *requests; /* outstanding_max slots. */
    struct bop_list free;
    size_t outstanding;
    size_t outstanding_bytes;
    struct client_lane writes;
    struct client_lane reads;
    struct client_servers servers;
    struct bop_timer deadline;
    bool calling; /* Inside a callback. */
    bool closing; /* Being destroyed. */

    struct client_link *active;    /* Where requests go; NULL while waiting to reconnect. */
    struct client_link *candidate; /* Being made to the leader, beside an active one. */
    struct bop_timer reconnect;
    size_t next_endpoint;
    size_t attempts;       /* In this round: bop__client_round(). */
    size_t refusals;       /* In a row: servers of another cluster. */
    size_t denials;        /* In a row: servers that do not know the token. */
    uint64_t reconnect_ms; /* How long the next pause between rounds is. */
    uint64_t candidate_ms; /* Likewise for candidates. */
    uint64_t candidate_after_ms;
    uint64_t leader; /* As the active one said last. */
    struct bop_timer tick;
    uint64_t tick_ms;

    struct bop_slice admin_response;             /* For the callback that is being called. */
    const struct bop_client_view *view_response; /* Likewise. */
    struct client_session session;
    struct client_watches watches;
    uint32_t session_grace_ms; /* Wanted; 0 once a cluster did not know of it. */
    void (*on_session_lost)(void *user);
    void *lost_user;
    struct bop_list presences; /* client_presence.c */
    struct client_locks locks;
    struct bop_client_info info; /* The counters and the trouble in it. */
};

/* ---- client.c ---- */

/** True if requests may be sent. */
static inline bool bop__client_ready(const struct bop_client *client)
{
    return client->active && client->active->greeted;
}

/** True if a request that ended so may have been done, or may still be, in the session there is. */
static inline bool bop__client_may_be_done(int code)
{
    return code == BOP_ETIMEOUT || code == BOP_EUNCERTAIN;
}

/** Send what is queued, as far as connection, session and pauses allow. */
void bop__client_flush(struct bop_client *client);

/** Send nothing of this lane for a while. */
void bop__client_pause(struct client_lane *lane);

/** The connection is gone: all that was sent is to be sent again. */
void bop__client_requeue(struct bop_client *client);

/** End the writes that were (sent) or were never (not sent) sent in this session. */
void bop__client_fail_writes(struct bop_client *client, bool sent, int code);
/** End all requests that were never sent at all. */
void bop__client_fail_unsent(struct bop_client *client, int code);

/** A free slot for a request: next, give it a kind and what goes with that, and accept it; or leave
 * it be. Returns 0, BOP_EFULL, BOP_ECLOSED or BOP_ENOMEM. */
BOP_MUST_USE int bop__client_request_begin(struct bop_client *client,
                                           struct client_request **out_request);
/** Put an operation into it. Returns 0, or a code: then the slot is as it was. */
BOP_MUST_USE int bop__client_request_fill(struct bop_client *client, struct client_request *request,
                                          const struct bop_operation *operation);
/** It is under way from here on. */
void bop__client_request_accept(struct bop_client *client, struct client_request *request);
/** It is answered; view: NULL unless one was opened. */
void bop__client_request_finish(struct bop_client *client, struct client_request *request, int code,
                                const struct bop_client_view *view);
/** It was answered RETRY or BUSY: send it again after a pause. */
void bop__client_request_again(struct bop_client *client, struct client_request *request);

/** Take a frame from the active, greeted connection. A code means: the server talks nonsense. */
BOP_MUST_USE int bop__client_answer(struct bop_client *client, const struct bop_wire_frame *frame);

void bop__client_check(const struct bop_client *client);

/* ---- client_link.c ---- */

void bop__client_links_init(struct bop_client *client);
/** Begin to connect. 0 or BOP_ENOMEM. */
BOP_MUST_USE int bop__client_links_start(struct bop_client *client);
/** Drop all connections, after a last word. */
void bop__client_links_stop(struct bop_client *client);
/** Ask the active connection who leads, unless that is under way. */
void bop__client_ask_leader(struct bop_client *client);

/** Begin a frame on the active connection, or NULL: not now. */
struct bop_buf *bop__client_frame_begin(struct bop_client *client, size_t *out_at);
/** Finish it, or take it back if code is not 0. Returns whether it was sent. */
bool bop__client_frame_end(struct bop_client *client, struct bop_buf *buf, size_t at,
                           enum bop_wire_kind kind, uint32_t request, int code);

/* ---- client_servers.c ---- */

void bop__client_servers_deinit(struct bop_client *client);
/** The active connection is greeted: ask, now or in a while. */
void bop__client_servers_greeted(struct bop_client *client);
/** Ask if it is time. */
void bop__client_servers_ask(struct bop_client *client);
/** Is this the answer to that? */
bool bop__client_servers_kind(const struct bop_wire_frame *frame);
/** 0, or BOP_EPROTOCOL if nobody asked. */
BOP_MUST_USE int bop__client_servers_answer(struct bop_client *client,
                                            const struct bop_wire_frame *frame);
/** How many attempts to connect there are in a round. */
size_t bop__client_round(const struct bop_client *client);
/** Where the next attempt goes; told: it is none of those given. */
const struct client_endpoint *bop__client_next_endpoint(struct bop_client *client, bool *out_told);

/* ---- client_trust.c ---- */

/** Take over TLS and token. Returns 0 or a code; bop__client_trust_deinit() in any case. */
BOP_MUST_USE int bop__client_trust_init(struct bop_client *client,
                                        const struct bop_client_options *options,
                                        struct bop_error *err);
void bop__client_trust_deinit(struct bop_client *client);
/** Remember why something was denied: what the server said, or else why it will have been. */
void bop__client_denied(struct bop_client *client, struct bop_slice said);
/** As of an ERROR_RESPONSE. False: there is none in it. */
BOP_MUST_USE bool bop__client_error_text(struct bop_slice payload, struct bop_slice *out_text);

/* ---- client_session.c ---- */

/** Ask for a session if there is none and none was asked for. */
void bop__client_session_want(struct bop_client *client);
/** On a new connection: show the token of the session there is. */
void bop__client_session_resume(struct bop_client *client);
/** The connection is gone, and with it what was asked for on it. */
void bop__client_session_unlinked(struct bop_client *client);
/** It is over: its writes end with BOP_ESESSION. */
void bop__client_session_lost(struct bop_client *client);
/** Give a sign of life if it is time. */
void bop__client_session_tick(struct bop_client *client);
/** The last word on the connection, if there is a session. */
void bop__client_session_close(struct bop_client *client);
BOP_MUST_USE int bop__client_session_answer(struct bop_client *client,
                                            const struct bop_wire_frame *frame);

/* ---- client_settle.c ---- */

BOP_MUST_USE int bop__client_settle_answer(struct bop_client *client,
                                           struct client_request *request,
                                           struct bop_slice payload);

/* ---- client_presence.c ---- */

/** The session is lost: begin anew. */
void bop__client_presences_lost(struct bop_client *client);

/* ---- client_endpoint.c ---- */

/** "host:port" or "[address]:port". Returns 0 or BOP_EINVAL. */
BOP_MUST_USE int bop__client_endpoint_parse(struct bop_slice text, struct client_endpoint *out);

#endif
