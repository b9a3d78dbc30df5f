/*
 * The protocol's own kinds: hello, sessions, writes, reads, status.
 */
#include "service_legacy.h"

#include <bop/mem.h>

#define SERVICE_PROTOCOL 1

int bop__service_create(const struct service_options *options, struct service **out_service)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "cluster.service");
    struct service *service = bop_alloc_zeroed(allocator, sizeof(*service));

    if (!service) {
        return BOP_ENOMEM;
    }
    service->options = *options;
    service->allocator = allocator;
    service->replica = options->replica;
    service->started_ms = bop_clock_monotonic_ms(options->clock);
    bop_buf_init(&service->scratch, allocator, 0);
    bop_buf_init(&service->nodes_left, allocator, 0);
    bop_list_init(&service->syncs);
    bop__service_settles_init(service);
    if (bop__service_watches_create(service) < 0) {
        bop_free(allocator, service, sizeof(*service));
        return BOP_ENOMEM;
    }
    *out_service = service;
    return 0;
}

void bop__service_destroy(struct service *service)
{
    if (service) {
        bop__service_settles_deinit(service);
        bop_buf_deinit(&service->scratch);
        bop_buf_deinit(&service->nodes_left);
        bop__watch_hub_destroy(service->watches);
        bop__service_sessions_deinit(service);
        bop_free(service->allocator, service, sizeof(*service));
    }
}

int bop__service_connect(struct service *service, const struct service_io *io, void *user,
                         struct service_conn **out_conn)
{
    struct service_conn *conn = bop_alloc_zeroed(service->allocator, sizeof(*conn));

    if (!conn) {
        return BOP_ENOMEM;
    }
    conn->service = service;
    conn->io = io;
    conn->user = user;
    conn->who = bop__auth_who(service->options.auth);
    service->clients++;
    *out_conn = conn;
    return 0;
}

static void free_conn(struct service_conn *conn)
{
    bop__service_legacy_free(conn);
    bop_free(conn->service->allocator, conn, sizeof(*conn));
}

void bop__service_disconnect(struct service_conn *conn)
{
    conn->closed = true;
    conn->service->clients--;
    conn->outstanding++; /* It stays until we are through. */
    bop__service_settles_forget(conn);
    conn->outstanding--;
    bop__watch_disconnect(conn->watches);
    conn->watches = NULL;
    bop__service_views_close(conn);
    bop__service_session_forget(conn);
    if (conn->outstanding == 0) {
        free_conn(conn);
    }
}

/* ---- Requests and responses ---- */

struct bop_buf *bop__service_begin(struct service_conn *conn, size_t *out_at)
{
    struct bop_buf *out = conn->closed ? NULL : conn->io->output(conn->user);

    if (!out) {
        return NULL;
    }
    if (bop_wire_begin(out, out_at) < 0) {
        conn->io->close(conn->user);
        return NULL;
    }
    return out;
}

void bop__service_end(struct service_conn *conn, struct bop_buf *out, size_t at,
                      enum bop_wire_kind kind, uint8_t flags, uint32_t request,
                      const struct bop_writer *writer)
{
    if (writer->code < 0) {
        /* An answer that cannot be given must not look like one that is still to come. */
        bop_wire_cancel(out, at);
        conn->io->close(conn->user);
        return;
    }
    bop_wire_end(out, at, kind, flags, request);
    conn->io->flush(conn->user);
}

struct service_request *bop__service_request(struct service_conn *conn,
                                             const struct bop_wire_frame *frame)
{
    size_t size = sizeof(struct service_request) + frame->payload.size;
    struct service_request *request = bop_alloc(conn->service->allocator, size);

    if (!request) {
        return NULL;
    }
    request->conn = conn;
    request->id = frame->request;
    request->kind = frame->kind;
    request->size = frame->payload.size;
    if (request->size > 0) {
        memcpy(request->payload, frame->payload.data, request->size);
    }
    conn->outstanding++;
    return request;
}

void bop__service_finish(struct service_request *request)
{
    struct service_conn *conn = request->conn;

    bop_free(conn->service->allocator, request, sizeof(*request) + request->size);
    conn->outstanding--;
    if (conn->closed) {
        if (conn->outstanding == 0) {
            free_conn(conn);
        }
    } else if (conn->paused && conn->outstanding <= SERVICE_OUTSTANDING_LOW) {
        conn->paused = false;
        conn->io->resume(conn->user);
    }
}

/* Answer with a status and what belongs to it. */
static void respond(struct service_conn *conn, enum bop_wire_kind kind, uint32_t id, uint8_t status,
                    struct bop_slice result)
{
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop_write_u8(&writer, status);
        bop_write_raw(&writer, result);
        bop__service_end(conn, out, at, kind, BOP_WIRE_RESPONSE, id, &writer);
    }
}

void bop__service_respond(struct service_conn *conn, const struct bop_wire_frame *frame,
                          uint8_t status, struct bop_slice result)
{
    respond(conn, (enum bop_wire_kind)(frame->kind + 1), frame->request, status, result);
}

static void respond_status(struct service_conn *conn, const struct bop_wire_frame *frame,
                           uint8_t status)
{
    respond(conn, (enum bop_wire_kind)(frame->kind + 1), frame->request, status,
            bop_slice(NULL, 0));
}

/* ---- Writes ---- */

static void write_done(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct service_request *request = BOP_CONTAINER_OF(write, struct service_request, write);

    respond(request->conn, (enum bop_wire_kind)(request->kind + 1), request->id, status, result);
    bop__service_finish(request);
}

/* Hand a command to the replica; done answers, or a refusal is answered here. */
static int submit(struct service_conn *conn, const struct bop_wire_frame *frame,
                  struct command *command, bool retryable,
                  void (*done)(struct replica_write *, uint8_t, struct bop_slice))
{
    /* The payload is encoded into the log entry at once: none is kept. */
    struct bop_wire_frame bare = {.kind = frame->kind, .request = frame->request};
    struct service_request *request = bop__service_request(conn, &bare);
    uint8_t status;

    if (!request) {
        return BOP_ENOMEM;
    }
    request->write = (struct replica_write){.done = done, .retryable = retryable};
    status = bop__replica_write(conn->service->replica, &request->write, command);
    if (status != BOP_STATUS_OK) {
        done(&request->write, status, bop_slice(NULL, 0));
    }
    return 0;
}

static int serve_write(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_write_request in;
    struct bop_operation operation;
    struct command command = {.kind = COMMAND_WRITE};
    int rc = bop_write_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    rc = bop_operation_decode(in.operation, &operation);
    if (rc < 0 || !bop_op_is_write(operation.op)) {
        respond_status(conn, frame,
                       rc == BOP_ETOOBIG ? BOP_STATUS_TOO_BIG : BOP_STATUS_BAD_REQUEST);
        return 0;
    }
    if (!bop__service_allows(conn, frame, &operation)) {
        return 0;
    }
    command.session = in.session;
    command.sequence = in.sequence;
    command.acked = in.acked;
    command.operation = in.operation;
    return submit(conn, frame, &command, in.session != 0, write_done);
}

/* ---- Sessions ---- */

static int serve_session_close(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_session_request in;
    struct command command = {.kind = COMMAND_SESSION_CLOSE};
    int rc = bop_session_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    command.session = in.session;
    memcpy(command.token, in.token, sizeof(command.token));
    bop__service_session_ends(conn, in.session);
    return submit(conn, frame, &command, true, write_done);
}

/* Whether a session is open can only be told as of now: through a read. */
static void session_read_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct service_request *request = BOP_CONTAINER_OF(read, struct service_request, read);
    struct service *service = request->conn->service;
    struct machine *machine = bop__replica_machine(service->replica);
    uint64_t session = bop_load_u64(request->payload);
    const uint8_t *token = request->kind == BOP_WIRE_KIND_SESSION_RESUME_REQUEST
                               ? request->payload + 8
                               : NULL;
    uint8_t status = BOP_STATUS_RETRY;

    if (code == 0 && machine) {
        status = BOP_STATUS_OK;
        if (!bop__machine_session_check(machine, session, NULL)) {
            status = BOP_STATUS_NO_SESSION;
            bop__service_session_ends(request->conn, session);
        } else if (!bop__machine_session_check(machine, session, token)) {
            status = BOP_STATUS_REFUSED;
        } else if (token) {
            bop__service_session_resumed(request->conn, session);
        }
    }
    respond(request->conn, (enum bop_wire_kind)(request->kind + 1), request->id, status,
            bop_slice(NULL, 0));
    bop__service_finish(request);
}

static int serve_session_read(struct service_conn *conn, const struct bop_wire_frame *frame,
                              uint64_t session, bool patient)
{
    struct service_request *request = bop__service_request(conn, frame);

    if (!request) {
        return BOP_ENOMEM;
    }
    bop__replica_session_alive(conn->service->replica, session);
    request->read = (struct replica_read){.done = session_read_done, .patient = patient};
    bop__replica_read(conn->service->replica, &request->read);
    return 0;
}

/*
 * Who comes back goes on at once to ask for what the session owns, which is told to nobody else. So
 * a token that this node knows counts when it is shown; whether the session is still open takes a
 * read.
 */
static int serve_session_resume(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct machine *machine = bop__replica_machine(conn->service->replica);
    struct bop_session_request in;
    int rc = bop_session_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    if (machine && bop__machine_session_check(machine, in.session, in.token)) {
        bop__service_session_resumed(conn, in.session);
    }
    return serve_session_read(conn, frame, in.session, false);
}

static int serve_session_alive(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_reader reader = bop_reader(frame->payload);
    uint64_t session = bop_read_u64(&reader);

    /* Sessions by the thousand say so every few seconds: a question to the others for each would
     * be most of what that costs. */
    return bop_reader_done(&reader) ? serve_session_read(conn, frame, session, true)
                                    : BOP_EMALFORMED;
}

/* ---- Reads ---- */

/* Run the operation on a view and answer. */
static void answer_read(struct service_conn *conn, uint32_t id, struct bop_slice bytes,
                        struct machine_view *view)
{
    struct bop_operation operation;
    size_t at, status_at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;
    int rc;

    if (!out) {
        return;
    }
    rc = bop_operation_decode(bytes, &operation);
    BOP_ASSERT(rc == 0); /* It was decoded when it came. */
    writer = bop_writer(out);
    status_at = out->size;
    bop_write_u8(&writer, BOP_STATUS_RETRY);
    if (writer.code == 0) {
        rc = bop__machine_read(view, &operation, out);
        if (rc >= 0) {
            out->data[status_at] = (uint8_t)rc;
        } else {
            out->size = status_at + 1; /* RETRY: it could not be read just now. */
        }
    }
    bop__service_end(conn, out, at, BOP_WIRE_KIND_READ_RESPONSE, BOP_WIRE_RESPONSE, id, &writer);
}

static void read_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct service_request *request = BOP_CONTAINER_OF(read, struct service_request, read);
    struct service_conn *conn = request->conn;

    if (code < 0) {
        respond(conn, BOP_WIRE_KIND_READ_RESPONSE, request->id, BOP_STATUS_RETRY,
                bop_slice(NULL, 0));
    } else {
        answer_read(conn, request->id, bop__service_payload(request), view);
    }
    bop__service_finish(request);
}

static int serve_stale_read(struct service_conn *conn, const struct bop_wire_frame *frame,
                            struct bop_slice operation)
{
    struct replica *replica = conn->service->replica;
    struct machine_view *view;

    if (!bop__replica_machine(replica) || bop__replica_view_open(replica, &view) < 0) {
        respond_status(conn, frame, BOP_STATUS_RETRY);
        return 0;
    }
    answer_read(conn, frame->request, operation, view);
    bop__machine_view_close(view);
    return 0;
}

static int serve_read(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_read_request in;
    struct bop_operation operation;
    struct bop_wire_frame kept = *frame;
    struct service_request *request;
    int rc = bop_read_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    rc = bop_operation_decode(in.operation, &operation);
    if (rc < 0 || bop_op_is_write(operation.op)) {
        respond_status(conn, frame,
                       rc == BOP_ETOOBIG ? BOP_STATUS_TOO_BIG : BOP_STATUS_BAD_REQUEST);
        return 0;
    }
    if (!bop__service_allows(conn, frame, &operation)) {
        return 0;
    }
    if (in.consistency == 1) {
        return serve_stale_read(conn, frame, in.operation);
    }
    kept.payload = in.operation;
    request = bop__service_request(conn, &kept);
    if (!request) {
        return BOP_ENOMEM;
    }
    request->read = (struct replica_read){.done = read_done};
    bop__replica_read(conn->service->replica, &request->read);
    return 0;
}

/* ---- Hello and status ---- */

static int serve_hello(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    const struct service_options *options = &conn->service->options;
    struct bop_hello_response response = {
        .status = BOP_STATUS_OK,
        .protocol = SERVICE_PROTOCOL,
        .node = options->node,
        .cluster = bop_slice_cstr(options->cluster),
        .version = bop_slice_cstr(options->version),
    };
    struct bop_hello_request in;
    struct bop_writer writer;
    struct bop_buf *out;
    size_t at;
    int rc = bop_hello_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    if (in.protocol != SERVICE_PROTOCOL ||
        (in.cluster.size > 0 && !bop_slice_equal(in.cluster, response.cluster))) {
        response.status = BOP_STATUS_REFUSED;
    }
    response.leader = bop__replica_leader(conn->service->replica, &response.leader_address);
    out = bop__service_begin(conn, &at);
    if (!out) {
        return 0;
    }
    writer = bop_writer(out);
    bop_hello_response_encode(&writer, &response);
    bop__service_end(conn, out, at, BOP_WIRE_KIND_HELLO_RESPONSE, BOP_WIRE_RESPONSE, frame->request,
                     &writer);
    if (response.status != BOP_STATUS_OK) {
        conn->io->close(conn->user);
    }
    return 0;
}

void bop__service_status(struct service *service, struct bop_status_response *out)
{
    bop__replica_status(service->replica, out);
    out->version = bop_slice_cstr(service->options.version);
    out->clients = service->clients;
    if (service->options.tell_memory) {
        service->options.tell_memory(out);
    }
    out->uptime_ms = bop_clock_monotonic_ms(service->options.clock) - service->started_ms;
}

static int serve_status(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_status_response response;
    struct bop_writer writer;
    size_t at;
    struct bop_buf *out;

    if (frame->payload.size != 0) {
        return BOP_EMALFORMED;
    }
    bop__service_status(conn->service, &response);
    out = bop__service_begin(conn, &at);
    if (out) {
        writer = bop_writer(out);
        bop_status_response_encode(&writer, &response);
        bop__service_end(conn, out, at, BOP_WIRE_KIND_STATUS_RESPONSE, BOP_WIRE_RESPONSE,
                         frame->request, &writer);
    }
    return 0;
}

int bop__service_frame(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    if (conn->outstanding >= SERVICE_OUTSTANDING_MAX) {
        conn->paused = true;
        return BOP_EAGAIN;
    }
    if (!bop__service_admits(conn, frame)) {
        return 0;
    }
    switch (frame->kind) {
    case BOP_WIRE_KIND_WRITE_REQUEST:
        return serve_write(conn, frame);
    case BOP_WIRE_KIND_READ_REQUEST:
        return serve_read(conn, frame);
    case BOP_WIRE_KIND_HELLO_REQUEST:
        return serve_hello(conn, frame);
    case BOP_WIRE_KIND_SESSION_OPEN_REQUEST:
        return bop__service_session_open(conn, frame);
    case BOP_WIRE_KIND_SESSION_START_REQUEST:
        return bop__service_session_start(conn, frame);
    case BOP_WIRE_KIND_SESSION_RESUME_REQUEST:
        return serve_session_resume(conn, frame);
    case BOP_WIRE_KIND_SESSION_CLOSE_REQUEST:
        return serve_session_close(conn, frame);
    case BOP_WIRE_KIND_SESSION_ALIVE_REQUEST:
        return serve_session_alive(conn, frame);
    case BOP_WIRE_KIND_STATUS_REQUEST:
        return serve_status(conn, frame);
    case BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST:
    case BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST:
    case BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST:
    case BOP_WIRE_KIND_CLUSTER_PARAMS_REQUEST:
        return bop__service_admin(conn, frame);
    case BOP_WIRE_KIND_BACKUP_REQUEST:
    case BOP_WIRE_KIND_BACKUP_READ_REQUEST:
        return bop__service_backup(conn, frame);
    case BOP_WIRE_KIND_AUTH_REQUEST:
        return bop__service_show_token(conn, frame);
    case BOP_WIRE_KIND_WATCH_OPEN_REQUEST:
    case BOP_WIRE_KIND_WATCH_CLOSE_REQUEST:
    case BOP_WIRE_KIND_WATCH_ACK:
        return bop__service_watch(conn, frame);
    case BOP_WIRE_KIND_VIEW_OPEN_REQUEST:
    case BOP_WIRE_KIND_VIEW_READ_REQUEST:
    case BOP_WIRE_KIND_VIEW_CLOSE_REQUEST:
        return bop__service_view(conn, frame);
    case BOP_WIRE_KIND_WATCH_SETTLE_REQUEST:
        return bop__service_settle(conn, frame);
    default:
        return frame->kind <= BOP_WIRE_KIND_STATE_SYNC_ACK ? bop__service_legacy(conn, frame)
                                                           : BOP_EPROTOCOL;
    }
}
