/*
 * The prototype's kinds that are of a node: join, leave, the list of nodes, and locks.
 *
 * A connection that joins gets a session of its own, which is its "connection id": it
 * stays alive while frames come, PING at the least, and ends after LEGACY_TIMEOUT_MS of
 * silence, with all that it owns. The session is a member of the group LEGACY_GROUP, named
 *
 *      node id, a zero byte, the session's id in 16 hex digits
 *
 * as a node may have several connections; it is listed once. Locks are requests labelled
 * with the node's id, so that a node finds its own again from a new connection.
 *
 * Requests of these kinds run one after another on a connection: while one is under way the
 * next one is not taken.
 */
#include <inttypes.h>
#include <stdio.h>

#include <bop/random.h>

#include "service_legacy.h"

#define LEGACY_GROUP      "bop.nodes"
#define LEGACY_TIMEOUT_MS 20000
#define LEGACY_ALIVE_MS   1000 /* The leader is told of a connection's life so often at most. */
#define NODE_ID_MAX       200
#define SUFFIX_SIZE       17 /* What a member's name has behind the node's id. */

struct legacy_node {
    bool busy;        /* A request is under way. */
    uint64_t session; /* 0: not joined. */
    uint64_t sequence;
    uint64_t alive_ms;
    struct sync *sync;
    size_t id_size; /* 0: not joined. */
    uint8_t id[NODE_ID_MAX];
};

static struct bop_slice id_of(const struct legacy_node *node)
{
    return bop_slice(node->id, node->id_size);
}

void bop__service_legacy_free(struct service_conn *conn)
{
    if (conn->legacy) {
        bop__service_sync_end(conn->legacy->sync);
    }
    bop_free(conn->service->allocator, conn->legacy, sizeof(*conn->legacy));
    conn->legacy = NULL;
}

struct sync *bop__service_legacy_sync(const struct service_conn *conn)
{
    return conn->legacy ? conn->legacy->sync : NULL;
}

bool bop__service_legacy_busy(const struct service_conn *conn)
{
    return conn->legacy && conn->legacy->busy;
}

void bop__service_legacy_alive(struct service_conn *conn)
{
    struct legacy_node *node = conn->legacy;
    uint64_t now_ms = bop_clock_monotonic_ms(conn->service->options.clock);

    if (node && node->session != 0 && now_ms - node->alive_ms >= LEGACY_ALIVE_MS) {
        node->alive_ms = now_ms;
        bop__replica_session_alive(conn->service->replica, node->session);
    }
}

/* ---- Answers ---- */

/* The request is over: the connection may go on with its next one. */
static void finish(struct service_request *request)
{
    request->conn->legacy->busy = false;
    bop__service_finish(request);
}

static void fail(struct service_request *request, const char *text)
{
    bop__service_error(request->conn, request->id, text);
    finish(request);
}

/* Begin a response that is OK; NULL: nobody to answer. */
static struct bop_buf *begin_ok(struct service_request *request, size_t *out_at,
                                struct bop_writer *out_writer)
{
    struct bop_buf *out = bop__service_begin(request->conn, out_at);

    if (out) {
        *out_writer = bop_writer(out);
        bop_write_u8(out_writer, 0);
    }
    return out;
}

static void end_ok(struct service_request *request, struct bop_buf *out, size_t at,
                   const struct bop_writer *writer)
{
    bop__service_end(request->conn, out, at, (enum bop_wire_kind)(request->kind + 1),
                     BOP_WIRE_RESPONSE, request->id, writer);
}

/* OK, and these bytes behind it. */
static void succeed(struct service_request *request, struct bop_slice fields)
{
    struct bop_writer writer;
    size_t at;
    struct bop_buf *out = begin_ok(request, &at, &writer);

    if (out) {
        bop_write_raw(&writer, fields);
        end_ok(request, out, at, &writer);
    }
    finish(request);
}

/* ---- Steps: one write or read after another, each with its own end ---- */

typedef void write_done_fn(struct replica_write *write, uint8_t status, struct bop_slice result);

static void submit(struct service_request *request, struct command *command, write_done_fn *done)
{
    uint8_t status;

    request->write = (struct replica_write){.done = done};
    status = bop__replica_write(request->conn->service->replica, &request->write, command);
    if (status != BOP_STATUS_OK) {
        done(&request->write, status, bop_slice(NULL, 0));
    }
}

/* An operation of the connection's session. */
static void submit_operation(struct service_request *request, const struct bop_operation *operation,
                             write_done_fn *done)
{
    struct service *service = request->conn->service;
    struct legacy_node *node = request->conn->legacy;
    struct bop_writer writer = bop_writer(&service->scratch);
    struct command command = {.kind = COMMAND_WRITE,
                              .session = node->session,
                              .sequence = node->sequence + 1,
                              .acked = node->sequence};

    bop_buf_clear(&service->scratch);
    bop_operation_encode(&writer, operation);
    if (writer.code < 0) {
        fail(request, "busy, try again later");
        return;
    }
    node->sequence++;
    command.operation = bop_buf_slice(&service->scratch);
    submit(request, &command, done);
}

/* The request of a write that ended well, if its connection is still there; else it is over. */
static struct service_request *good(struct replica_write *write, uint8_t status)
{
    struct service_request *request = BOP_CONTAINER_OF(write, struct service_request, write);

    if (request->conn->closed) {
        finish(request);
        return NULL;
    }
    if (status == BOP_STATUS_NO_SESSION) {
        request->conn->legacy->session = 0;
        request->conn->legacy->id_size = 0;
        fail(request, "this node was silent for too long and has left: join again");
        return NULL;
    }
    if (status != BOP_STATUS_OK) {
        fail(request, bop_status_text(status));
        return NULL;
    }
    return request;
}

static struct bop_slice name_of(const struct service_request *request)
{
    struct bop_reader reader = bop_reader(bop__service_payload(request));

    return bop_read_string(&reader);
}

static struct bop_result decoded(enum bop_op op, struct bop_slice bytes)
{
    struct bop_result result = {0};
    int rc = bop_result_decode(op, BOP_STATUS_OK, bytes, &result);

    BOP_ASSERT(rc == 0); /* The machine made it. */
    return result;
}

/* ---- Join ---- */

static void joined(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct service_request *request = good(write, status);
    uint8_t session[8];

    if (!request) {
        return;
    }
    if (!request->conn->legacy->sync &&
        bop__service_sync_begin(request->conn, &request->conn->legacy->sync) < 0) {
        fail(request, "busy, try again later");
        return;
    }
    bop_store_u64(session, request->conn->legacy->session);
    succeed(request, bop_slice(session, sizeof(session)));
}

static void opened(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct service_request *request = good(write, status);
    struct bop_operation join = {.op = BOP_OP_MEMBER_JOIN, .name = bop_slice_cstr(LEGACY_GROUP)};
    char name[NODE_ID_MAX + SUFFIX_SIZE + 1];
    struct legacy_node *node;

    if (!request) {
        return;
    }
    node = request->conn->legacy;
    node->session = bop_load_u64(result.data);
    node->sequence = 0;
    node->alive_ms = bop_clock_monotonic_ms(request->conn->service->options.clock);
    node->id_size = name_of(request).size;
    memcpy(node->id, name_of(request).data, node->id_size);
    memcpy(name, node->id, node->id_size);
    name[node->id_size] = '\0';
    snprintf(name + node->id_size + 1, SUFFIX_SIZE, "%016" PRIx64, node->session);
    join.key = bop_slice(name, node->id_size + SUFFIX_SIZE);
    submit_operation(request, &join, joined);
}

static void join(struct service_request *request)
{
    struct legacy_node *node = request->conn->legacy;
    struct bop_slice id = name_of(request);
    struct command command = {.kind = COMMAND_SESSION_OPEN, .timeout_ms = LEGACY_TIMEOUT_MS};
    uint8_t session[8];

    if (id.size == 0 || id.size > NODE_ID_MAX) {
        fail(request, "a node's id has 1 to 200 bytes");
    } else if (node->session != 0 && !bop_slice_equal(id, id_of(node))) {
        fail(request, "this connection has joined as another node: leave first");
    } else if (node->session != 0) {
        bop_store_u64(session, node->session);
        succeed(request, bop_slice(session, sizeof(session)));
    } else if (bop_random_secret(command.token, sizeof(command.token)) < 0) {
        fail(request, "busy, try again later");
    } else {
        submit(request, &command, opened);
    }
}

/* ---- The list of nodes ---- */

struct bop_slice bop__service_node_id(struct bop_slice group, struct bop_slice member)
{
    bool is_node = bop_slice_equal(group, bop_slice_cstr(LEGACY_GROUP)) &&
                   member.size > SUFFIX_SIZE && member.data[member.size - SUFFIX_SIZE] == '\0';

    return is_node ? bop_slice(member.data, member.size - SUFFIX_SIZE) : bop_slice(NULL, 0);
}

struct node_walk {
    service_node_fn *fn;
    void *user;
};

static int visit_member(void *user, const struct bop_scan_entry *entry)
{
    const struct node_walk *walk = user;
    struct bop_slice id = bop__service_node_id(bop_slice_cstr(LEGACY_GROUP), entry->key);

    return id.size > 0 && entry->value.size >= 8
               ? walk->fn(walk->user, id, bop_load_u64(entry->value.data))
               : 0;
}

int bop__service_each_node(struct machine_view *view, struct bop_allocator *allocator,
                           service_node_fn *fn, void *user)
{
    struct bop_operation list = {.op = BOP_OP_MEMBER_LIST, .name = bop_slice_cstr(LEGACY_GROUP)};
    struct node_walk walk = {.fn = fn, .user = user};

    return bop__service_each_entry(view, allocator, &list, visit_member, &walk);
}

struct node_list {
    struct bop_buf *out; /* Ids as strings. */
    uint32_t count;
};

/* A node that joined twice is listed where it joined first. */
static int list_node(void *user, struct bop_slice id, uint64_t session)
{
    struct node_list *list = user;
    struct bop_reader reader = bop_reader(bop_buf_slice(list->out));
    struct bop_writer writer = bop_writer(list->out);

    while (bop_reader_left(&reader) > 0) {
        if (bop_slice_equal(bop_read_bytes(&reader), id)) {
            return 0;
        }
    }
    list->count++;
    bop_write_bytes(&writer, id);
    return writer.code;
}

static void nodes_read(struct replica_read *read, int code, struct machine_view *view)
{
    struct service_request *request = BOP_CONTAINER_OF(read, struct service_request, read);
    struct bop_allocator *allocator = request->conn->service->allocator;
    struct node_list list = {0};
    struct bop_writer writer;
    struct bop_buf ids, *out;
    size_t at;

    bop_buf_init(&ids, allocator, BOP_WIRE_FRAME_MAX / 2);
    list.out = &ids;
    code = code ? code : bop__service_each_node(view, allocator, list_node, &list);
    if (code != 0) {
        bop_buf_deinit(&ids);
        fail(request, bop_status_text(BOP_STATUS_RETRY));
        return;
    }
    out = begin_ok(request, &at, &writer);
    if (out) {
        bop_write_u32(&writer, list.count);
        bop_write_raw(&writer, bop_buf_slice(&ids));
        end_ok(request, out, at, &writer);
    }
    bop_buf_deinit(&ids);
    finish(request);
}

static void read(struct service_request *request,
                 void (*done)(struct replica_read *, int, struct machine_view *))
{
    request->read = (struct replica_read){.done = done};
    bop__replica_read(request->conn->service->replica, &request->read);
}

/* ---- Leave: all connections of the node end, in one entry ---- */

struct sessions {
    struct bop_slice id;
    struct bop_buf list; /* u64s */
};

static int note_session(void *user, struct bop_slice id, uint64_t session)
{
    struct sessions *sessions = user;
    struct bop_writer writer = bop_writer(&sessions->list);

    if (bop_slice_equal(id, sessions->id) && sessions->list.size < COMMAND_EXPIRE_MAX * 8) {
        bop_write_u64(&writer, session);
    }
    return writer.code;
}

static void left(struct replica_write *write, uint8_t status, struct bop_slice result)
{
    struct service_request *request = good(write, status);

    if (!request) {
        return;
    }
    if (bop_slice_equal(name_of(request), id_of(request->conn->legacy))) {
        request->conn->legacy->session = 0;
        request->conn->legacy->id_size = 0;
    }
    succeed(request, bop_slice(NULL, 0));
}

static void leaving_read(struct replica_read *read, int code, struct machine_view *view)
{
    struct service_request *request = BOP_CONTAINER_OF(read, struct service_request, read);
    struct bop_allocator *allocator = request->conn->service->allocator;
    struct command command = {.kind = COMMAND_SESSION_EXPIRE};
    struct sessions sessions = {.id = name_of(request)};

    bop_buf_init(&sessions.list, allocator, 0);
    code = code ? code : bop__service_each_node(view, allocator, note_session, &sessions);
    if (request->conn->closed) {
        finish(request);
    } else if (code != 0) {
        fail(request, bop_status_text(BOP_STATUS_RETRY));
    } else if (sessions.list.size == 0) {
        fail(request, "node not found");
    } else {
        command.expired = bop_buf_slice(&sessions.list);
        submit(request, &command, left);
    }
    bop_buf_deinit(&sessions.list);
}

/* ---- Locks ---- */

static struct bop_operation of_lock(const struct service_request *request, enum bop_op op)
{
    return (struct bop_operation){
        .op = op, .name = name_of(request), .label = id_of(request->conn->legacy)};
}

/* Where a node stands in a lock's queue. */
struct place {
    struct bop_slice label;
    bool found;
    bool granted;
    uint64_t position; /* Among those who wait. */
};

static int visit_request(void *user, const struct bop_scan_entry *entry)
{
    struct place *place = user;

    place->granted = bop_load_u64(entry->value.data + 8) != 0;
    place->position += !place->granted;
    place->found = bop_slice_equal(entry->key, place->label);
    return place->found ? BOP_EEND : 0;
}

static int find_place(struct machine_view *view, struct bop_allocator *allocator,
                      struct bop_slice lock, struct place *place)
{
    struct bop_operation get = {.op = BOP_OP_LOCK_GET, .name = lock};
    int rc = bop__service_each_entry(view, allocator, &get, visit_request, place);

    return rc == BOP_EEND || rc == BOP_STATUS_NOT_FOUND ? 0 : rc;
}

static void tell_place(struct service_request *request, bool granted, uint64_t position)
{
    uint8_t fields[10] = {granted, !granted};

    bop_store_u64(fields + 2, position);
    succeed(request, bop_slice(fields, granted ? 2 : 10));
}

static void acquired(struct replica_write *write, uint8_t status, struct bop_slice bytes)
{
    struct service_request *request = good(write, status);
    struct bop_result result;

    if (request) {
        result = decoded(BOP_OP_LOCK_ACQUIRE, bytes);
        tell_place(request, result.token != 0, result.position);
    }
}

/* One that holds or waits already stays where it is. */
static void acquire_read(struct replica_read *read, int code, struct machine_view *view)
{
    struct service_request *request = BOP_CONTAINER_OF(read, struct service_request, read);
    struct bop_operation acquire;
    struct place place = {0};

    if (request->conn->closed) {
        finish(request);
        return;
    }
    place.label = id_of(request->conn->legacy);
    code = code ? code
                : find_place(view, request->conn->service->allocator, name_of(request), &place);
    if (code != 0) {
        fail(request, bop_status_text(BOP_STATUS_RETRY));
    } else if (place.found) {
        tell_place(request, place.granted, place.position);
    } else {
        acquire = of_lock(request, BOP_OP_LOCK_ACQUIRE);
        acquire.capacity = 1;
        acquire.permits = 1;
        acquire.ttl_ms = BOP_LOCK_TIMEOUT_NEVER;
        submit_operation(request, &acquire, acquired);
    }
}

static void released(struct replica_write *write, uint8_t status, struct bop_slice bytes)
{
    struct service_request *request = good(write, status);

    if (request) {
        succeed(request, bop_slice(NULL, 0));
    }
}

/* It was granted to this node, perhaps on another connection: now it is this one's to release. */
static void release_adopted(struct replica_write *write, uint8_t status, struct bop_slice bytes)
{
    struct service_request *request = good(write, status);
    struct bop_operation release;
    struct bop_result result;

    if (!request) {
        return;
    }
    result = decoded(BOP_OP_LOCK_ADOPT, bytes);
    if (result.token == 0) {
        fail(request, "the lock is not held by this node");
        return;
    }
    release = of_lock(request, BOP_OP_LOCK_RELEASE);
    release.sequence = result.ticket;
    submit_operation(request, &release, released);
}

/* ---- Which locks are still held, after a reconnect ---- */

static void synchronised(struct replica_write *write, uint8_t status, struct bop_slice bytes)
{
    struct service_request *request = good(write, status);
    struct bop_buf fields[2];
    uint32_t counts[2] = {0};
    struct bop_slice entries, inner;
    struct bop_reader names;
    uint8_t one;

    if (!request) {
        return;
    }
    names = bop_reader(bop__service_payload(request));
    bop_read_u32(&names);
    for (unsigned n = 0; n < 2; n++) {
        bop_buf_init(&fields[n], request->conn->service->allocator, 0);
        BOP_IGNORE(bop_buf_append(&fields[n], counts, 4)); /* What is missing is noticed below. */
    }
    entries = decoded(BOP_OP_TRANSACTION, bytes).entries;
    while (bop_transaction_result_next(&entries, &one, &inner)) {
        bool lost = decoded(BOP_OP_LOCK_ADOPT, inner).token == 0;
        struct bop_writer writer = bop_writer(&fields[lost]);

        bop_write_bytes(&writer, bop_read_string(&names));
        counts[lost]++;
    }
    if (fields[0].size < 4 || fields[1].size < 4) {
        fail(request, "busy, try again later");
    } else {
        struct bop_writer writer = bop_writer(&fields[0]);

        bop_store_u32(fields[0].data, counts[0]);
        bop_store_u32(fields[1].data, counts[1]);
        bop_write_raw(&writer, bop_buf_slice(&fields[1]));
        succeed(request, bop_buf_slice(&fields[0]));
    }
    bop_buf_deinit(&fields[0]);
    bop_buf_deinit(&fields[1]);
}

static void lock_sync(struct service_request *request)
{
    struct bop_reader names = bop_reader(bop__service_payload(request));
    uint32_t count = bop_read_u32(&names);
    struct bop_transaction txn;
    struct bop_operation operation;
    int rc;

    bop_transaction_init(&txn, request->conn->service->allocator);
    for (uint32_t n = 0; n < count && txn.then_count <= BOP_TRANSACTION_MAX; n++) {
        struct bop_operation adopt = {.op = BOP_OP_LOCK_ADOPT,
                                      .name = bop_read_string(&names),
                                      .label = id_of(request->conn->legacy)};

        bop_transaction_then(&txn, &adopt);
    }
    rc = bop_transaction_operation(&txn, &operation);
    if (rc < 0) {
        fail(request, rc == BOP_ETOOBIG ? "at most 512 locks at once" : "busy, try again later");
    } else {
        submit_operation(request, &operation, synchronised);
    }
    bop_transaction_deinit(&txn);
}

/* ---- Requests ---- */

bool bop__service_legacy_is_of_node(uint16_t kind)
{
    switch (kind) {
    case BOP_WIRE_KIND_JOIN_REQUEST:
    case BOP_WIRE_KIND_LEAVE_REQUEST:
    case BOP_WIRE_KIND_GET_NODES_REQUEST:
    case BOP_WIRE_KIND_LOCK_ACQUIRE_REQUEST:
    case BOP_WIRE_KIND_LOCK_RELEASE_REQUEST:
    case BOP_WIRE_KIND_LOCK_SYNC_REQUEST:
        return true;
    default:
        return false;
    }
}

static void run_lock(struct service_request *request)
{
    struct bop_operation operation;

    if (request->kind != BOP_WIRE_KIND_LOCK_SYNC_REQUEST &&
        (name_of(request).size == 0 || name_of(request).size > BOP_NAME_MAX)) {
        fail(request, "a name has 1 to 255 bytes");
        return;
    }
    if (request->conn->legacy->session == 0) {
        fail(request, "node not found: this connection has not joined");
        return;
    }
    switch (request->kind) {
    case BOP_WIRE_KIND_LOCK_ACQUIRE_REQUEST:
        read(request, acquire_read);
        break;
    case BOP_WIRE_KIND_LOCK_RELEASE_REQUEST:
        operation = of_lock(request, BOP_OP_LOCK_ADOPT);
        submit_operation(request, &operation, release_adopted);
        break;
    default:
        lock_sync(request);
    }
}

/* May this client do that? If not it was answered. */
static bool allowed(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_reader names = bop_reader(frame->payload);
    struct bop_operation operation = {.name = bop_slice_cstr(LEGACY_GROUP)};
    uint32_t count = 1;

    switch (frame->kind) {
    case BOP_WIRE_KIND_GET_NODES_REQUEST:
        operation.op = BOP_OP_MEMBER_LIST;
        return bop__service_allows(conn, frame, &operation);
    case BOP_WIRE_KIND_JOIN_REQUEST:
    case BOP_WIRE_KIND_LEAVE_REQUEST:
        operation.op = BOP_OP_MEMBER_JOIN;
        return bop__service_allows(conn, frame, &operation);
    case BOP_WIRE_KIND_LOCK_SYNC_REQUEST:
        count = bop_read_u32(&names);
        break;
    default:
        break;
    }
    operation.op = BOP_OP_LOCK_ACQUIRE;
    for (uint32_t n = 0; n < count; n++) {
        operation.name = bop_read_string(&names);
        if (!bop__service_allows(conn, frame, &operation)) {
            return false;
        }
    }
    return true;
}

int bop__service_legacy_node(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct service_request *request;

    if (!conn->legacy) {
        conn->legacy = bop_alloc_zeroed(conn->service->allocator, sizeof(*conn->legacy));
        if (!conn->legacy) {
            return BOP_ENOMEM;
        }
    }
    if (!allowed(conn, frame)) {
        return 0;
    }
    request = bop__service_request(conn, frame);
    if (!request) {
        return BOP_ENOMEM;
    }
    conn->legacy->busy = true;
    switch (frame->kind) {
    case BOP_WIRE_KIND_JOIN_REQUEST:
        join(request);
        break;
    case BOP_WIRE_KIND_LEAVE_REQUEST:
        read(request, leaving_read);
        break;
    case BOP_WIRE_KIND_GET_NODES_REQUEST:
        read(request, nodes_read);
        break;
    default:
        run_lock(request);
    }
    return 0;
}
