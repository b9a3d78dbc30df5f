/*
 * Sessions of clients: opening them, and noting which connection each is used on, so that
 * the leader can be told when it breaks.
 *
 * A connection has the session that was last opened or, with its token, resumed on it; a
 * session has the connection on which that was. So a client that came back before its
 * old connection was found broken is not taken for one that went.
 */
#include "service_internal.h"

#define BUCKETS_MIN 64 /* A power of two. */

/* ---- Whose session ---- */

static struct service_conn **bucket_of(const struct service_sessions *sessions, uint64_t session)
{
    /* Fibonacci hashing: ids are indexes of the log, which lie close together. */
    uint64_t hash = session * UINT64_C(0x9e3779b97f4a7c15);

    return &sessions->buckets[hash >> 32 & (sessions->capacity - 1)];
}

static void link_conn(struct service_sessions *sessions, struct service_conn *conn)
{
    struct service_conn **bucket = bucket_of(sessions, conn->session);

    conn->session_next = *bucket;
    *bucket = conn;
}

/* Without memory the buckets get longer, and that is all. Returns false if there are none. */
static bool reserve(struct service *service)
{
    struct service_sessions *sessions = &service->sessions;
    struct service_sessions grown = {.capacity = sessions->capacity ? sessions->capacity * 2
                                                                    : BUCKETS_MIN,
                                     .count = sessions->count};

    if (sessions->count < sessions->capacity) {
        return true;
    }
    grown.buckets = bop_alloc_array(service->allocator, grown.capacity, sizeof(*grown.buckets));
    if (!grown.buckets) {
        return sessions->capacity > 0;
    }
    for (size_t i = 0; i < sessions->capacity; i++) {
        struct service_conn *conn = sessions->buckets[i];

        while (conn) {
            struct service_conn *next = conn->session_next;

            link_conn(&grown, conn);
            conn = next;
        }
    }
    bop__service_sessions_deinit(service);
    *sessions = grown;
    return true;
}

void bop__service_sessions_deinit(struct service *service)
{
    bop_free(service->allocator, service->sessions.buckets,
             service->sessions.capacity * sizeof(*service->sessions.buckets));
    service->sessions = (struct service_sessions){0};
}

static void leave_session(struct service_conn *conn)
{
    struct service_sessions *sessions = &conn->service->sessions;
    struct service_conn **at;

    if (conn->session == 0) {
        return;
    }
    at = bucket_of(sessions, conn->session);
    while (*at != conn) {
        at = &(*at)->session_next;
    }
    *at = conn->session_next;
    conn->session = 0;
    sessions->count--;
}

/* The session is used on this connection from now on, whatever it was used on before. */
static void take_session(struct service_conn *conn, uint64_t session)
{
    struct service *service = conn->service;
    struct service_conn *other;

    if (conn->closed || conn->session == session) {
        return;
    }
    leave_session(conn);
    if (!reserve(service)) {
        return; /* When it breaks nobody is told: the session has its whole timeout. */
    }
    for (other = *bucket_of(&service->sessions, session); other; other = other->session_next) {
        if (other->session == session) {
            leave_session(other);
            break;
        }
    }
    conn->session = session;
    link_conn(&service->sessions, conn);
    service->sessions.count++;
}

void bop__service_session_resumed(struct service_conn *conn, uint64_t session)
{
    if (conn->closed) {
        return;
    }
    take_session(conn, session);
    /* Once more: its old connection may have been found broken since it asked. */
    bop__replica_session_alive(conn->service->replica, session);
}

void bop__service_session_ends(struct service_conn *conn, uint64_t session)
{
    if (conn->session == session) {
        leave_session(conn);
    }
}

void bop__service_session_forget(struct service_conn *conn)
{
    leave_session(conn);
}

void bop__service_cut(struct service_conn *conn)
{
    if (conn->session != 0) {
        bop__replica_session_cut(conn->service->replica, conn->session);
    }
}

/* ---- Opening ---- */

/* What was granted, until it is. */
struct terms {
    uint32_t timeout_ms;
    uint32_t grace_ms;
};

void bop__service_answer_open(struct service_conn *conn, uint16_t kind, uint32_t id,
                              const struct bop_session_start_response *response)
{
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (!out) {
        return;
    }
    writer = bop_writer(out);
    if (kind == BOP_WIRE_KIND_SESSION_START_REQUEST) {
        bop_session_start_response_encode(&writer, response);
    } else {
        struct bop_session_open_response older = {.status = response->status,
                                                  .session = response->session,
                                                  .timeout_ms = response->timeout_ms};

        bop_session_open_response_encode(&writer, &older);
    }
    bop__service_end(conn, out, at, (enum bop_wire_kind)(kind + 1), BOP_WIRE_RESPONSE, id, &writer);
}

static void open_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct service_request *request = BOP_CONTAINER_OF(write, struct service_request, write);
    struct service_conn *conn = request->conn;
    struct bop_session_start_response response = {.status = status};
    struct terms terms;

    if (status == BOP_STATUS_OK) {
        memcpy(&terms, request->payload, sizeof(terms));
        response.session = bop_load_u64(result.data);
        response.timeout_ms = terms.timeout_ms;
        response.grace_ms = terms.grace_ms;
        take_session(conn, response.session);
        if (conn->closed) {
            bop__replica_session_cut(conn->service->replica, response.session);
        }
    }
    bop__service_answer_open(conn, request->kind, request->id, &response);
    bop__service_finish(request);
}

static int open_session(struct service_conn *conn, const struct bop_wire_frame *frame,
                        struct command *command)
{
    struct terms terms = {.timeout_ms = command->timeout_ms, .grace_ms = command->grace_ms};
    struct bop_wire_frame kept = {.kind = frame->kind,
                                  .request = frame->request,
                                  .payload = bop_slice(&terms, sizeof(terms))};
    struct service_request *request = bop__service_request(conn, &kept);
    uint8_t status;

    if (!request) {
        return BOP_ENOMEM;
    }
    request->write = (struct replica_write){.done = open_done, .retryable = true};
    status = bop__replica_write(conn->service->replica, &request->write, command);
    if (status != BOP_STATUS_OK) {
        open_done(&request->write, status, bop_slice(NULL, 0));
    }
    return 0;
}

int bop__service_session_open(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct command command = {.kind = COMMAND_SESSION_OPEN};
    struct bop_session_open_request in;
    int rc = bop_session_open_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    command.timeout_ms = bop__machine_session_timeout(in.timeout_ms);
    memcpy(command.token, in.token, sizeof(command.token));
    return open_session(conn, frame, &command);
}

int bop__service_session_start(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct command command = {.kind = COMMAND_SESSION_OPEN};
    struct bop_session_start_request in;
    int rc = bop_session_start_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    command.timeout_ms = bop__machine_session_timeout(in.timeout_ms);
    command.grace_ms = (uint32_t)bop_min_u64(in.grace_ms, command.timeout_ms);
    memcpy(command.token, in.token, sizeof(command.token));
    return open_session(conn, frame, &command);
}
