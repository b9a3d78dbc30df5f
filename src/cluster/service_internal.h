/*
 * Shared by service.c (our own kinds), service_legacy.c (the prototype's) and
 * service_auth.c (tokens and rights).
 */
#ifndef BOP_CLUSTER_SERVICE_INTERNAL_H
#define BOP_CLUSTER_SERVICE_INTERNAL_H

#include "replica_admin.h"
#include "service.h"
#include "service_settle.h"
#include "service_view.h"
#include "watch.h"

/* Of wire_kinds.def: kinds that ask for rights by name themselves. */
#define SERVICE_WATCH_KINDS     150
#define SERVICE_WATCH_KINDS_END 158
#define SERVICE_VIEW_KINDS      174
#define SERVICE_VIEW_KINDS_END  182 /* Settling is among them. */

/* Connections by the session that is used on each: chained. */
struct service_sessions {
    struct service_conn **buckets;
    size_t capacity; /* A power of two, or 0. */
    size_t count;
};

struct service {
    struct service_options options;
    struct bop_allocator *allocator;
    struct replica *replica;
    uint64_t started_ms;
    uint64_t clients;
    struct bop_buf scratch;
    struct bop_list syncs;     /* Connections that are told the state: service_sync.c. */
    struct bop_buf nodes_left; /* Ids of nodes of which a connection ended, as strings. */
    struct service_sessions sessions;
    struct watch_hub *watches;
    struct service_views views;
    struct service_settles settles;
};

struct service_conn {
    struct service *service;
    const struct service_io *io;
    void *user;
    uint64_t session; /* Used on it; 0: none. */
    struct service_conn *session_next;
    bool closed; /* The client is gone; freed with the last request. */
    bool paused;
    unsigned outstanding;
    struct auth_who who;
    struct watch_conn *watches; /* NULL: it has opened none yet. */
    unsigned views;             /* Open. */
    struct legacy_node *legacy; /* What it joined as; NULL: nothing. */
};

/** A request under way. Its payload follows the struct. */
struct service_request {
    union {
        struct replica_write write;
        struct replica_read read;
        struct replica_admin admin;
        struct settler settler;
    };
    struct service_conn *conn;
    uint32_t id;
    uint16_t kind;
    size_t size; /* Of the payload. */
    uint8_t payload[];
};

/** Begin a response; NULL: nobody to answer. */
struct bop_buf *bop__service_begin(struct service_conn *conn, size_t *out_at);
void bop__service_end(struct service_conn *conn, struct bop_buf *out, size_t at,
                      enum bop_wire_kind kind, uint8_t flags, uint32_t request,
                      const struct bop_writer *writer);

/** Make a request, counted in its connection. NULL: no memory. */
struct service_request *bop__service_request(struct service_conn *conn,
                                             const struct bop_wire_frame *frame);
/** It is answered. */
void bop__service_finish(struct service_request *request);

static inline struct bop_slice bop__service_payload(const struct service_request *request)
{
    return bop_slice(request->payload, request->size);
}

/** Kinds 130 and 138. */
BOP_MUST_USE int bop__service_session_open(struct service_conn *conn,
                                           const struct bop_wire_frame *frame);
BOP_MUST_USE int bop__service_session_start(struct service_conn *conn,
                                            const struct bop_wire_frame *frame);
/** Answer either. */
void bop__service_answer_open(struct service_conn *conn, uint16_t kind, uint32_t id,
                              const struct bop_session_start_response *response);
/** It showed the session's token. */
void bop__service_session_resumed(struct service_conn *conn, uint64_t session);
/** It asked for the end of the session. */
void bop__service_session_ends(struct service_conn *conn, uint64_t session);
/** The connection is gone. */
void bop__service_session_forget(struct service_conn *conn);
void bop__service_sessions_deinit(struct service *service);

/** Answer a request with a status and what belongs to it. */
void bop__service_respond(struct service_conn *conn, const struct bop_wire_frame *frame,
                          uint8_t status, struct bop_slice result);

/** Kinds 150 to 156. */
BOP_MUST_USE int bop__service_watches_create(struct service *service);
/** Answer one of these, or of views, that it is not allowed. */
void bop__service_deny_watch(struct service_conn *conn, const struct bop_wire_frame *frame);
BOP_MUST_USE int bop__service_watch(struct service_conn *conn, const struct bop_wire_frame *frame);
/** Kinds 174 to 179. */
BOP_MUST_USE int bop__service_view(struct service_conn *conn, const struct bop_wire_frame *frame);

/** What an entry changed, to those that are told the state; and what else there is to tell. */
void bop__service_sync_events(struct service *service, struct bop_slice events);
void bop__service_sync_reset(struct service *service);
void bop__service_sync_review(struct service *service);
void bop__service_sync_turn(struct service *service);

/** Kinds 1 to 74. */
BOP_MUST_USE int bop__service_legacy(struct service_conn *conn, const struct bop_wire_frame *frame);

/** Kinds 160 to 167. */
BOP_MUST_USE int bop__service_admin(struct service_conn *conn, const struct bop_wire_frame *frame);
/** Kinds 170 to 173. */
BOP_MUST_USE int bop__service_backup(struct service_conn *conn, const struct bop_wire_frame *frame);

/* ---- service_auth.c ---- */

bool bop__service_admits_slowly(struct service_conn *conn, const struct bop_wire_frame *frame);
bool bop__service_allows_slowly(struct service_conn *conn, const struct bop_wire_frame *frame,
                                const struct bop_operation *operation);

/** Whether a client may ask for this at all. False: it was told why not. */
static inline bool bop__service_admits(struct service_conn *conn,
                                       const struct bop_wire_frame *frame)
{
    return !conn->who.auth || bop__service_admits_slowly(conn, frame);
}

/** Whether it may do this operation. Likewise. */
static inline bool bop__service_allows(struct service_conn *conn,
                                       const struct bop_wire_frame *frame,
                                       const struct bop_operation *operation)
{
    return !conn->who.auth || bop__service_allows_slowly(conn, frame, operation);
}

/** Answer that it is not allowed, for the reason `text`. */
void bop__service_deny(struct service_conn *conn, const struct bop_wire_frame *frame,
                       const char *text);

BOP_MUST_USE int bop__service_show_token(struct service_conn *conn,
                                         const struct bop_wire_frame *frame);

/** Answer with kind 69. */
void bop__service_error(struct service_conn *conn, uint32_t request, const char *text);

#endif
