/*
 * Settling: service_settle.h.
 *
 *      client --SETTLE--> node: read index --> revision r
 *                           |--ASK(r)--> each peer that is connected
 *                           |            its watchers acknowledged r --DONE-->
 *                           | own watchers acknowledged r
 *      client <--complete-- all of these; or the time is over: not complete
 *
 * A message may be lost with a connection between nodes, so it is sent again until it is
 * answered; an answer that comes twice finds nobody. A peer that is not connected is not waited
 * for, and the answer is that not all are known to have heard.
 */
#include "replica_internal.h"
#include "service_internal.h"

#include <bop/mem.h>
#include <bop/random.h>

struct settle {
    struct bop_list link;
    struct service *service;
    struct settler *settler; /* Of this node's own; NULL: of a peer, which is... */
    uint64_t peer;           /* ...this one, and calls it... */
    uint64_t peer_id;        /* ...this. */
    uint64_t id;
    uint64_t revision;
    uint64_t deadline_ms;
    uint64_t repeat_ms;
    bool here;     /* Those of this node have heard. */
    bool complete; /* Nobody was left out. */
    unsigned waiting;
    uint64_t peers[REPLICA_SERVERS_MAX]; /* Who has not answered. */
    struct bop_watch_settle_request ask; /* Its slices point into payload. */
    size_t size;
    uint8_t payload[];
};

static uint64_t now_of(const struct service *service)
{
    return bop_clock_monotonic_ms(service->options.clock);
}

/* ---- Beginning and end ---- */

/* NULL: too many, or no memory. The payload was decoded before. */
static struct settle *make(struct service *service, struct bop_slice payload, uint64_t revision)
{
    struct settle *settle;
    uint64_t now_ms = now_of(service);
    int rc;

    if (service->settles.count >= SERVICE_SETTLES_MAX) {
        return NULL;
    }
    settle = (struct settle *)bop_alloc_zeroed(service->allocator, sizeof(*settle) + payload.size);
    if (!settle) {
        return NULL;
    }
    memcpy(settle->payload, payload.data, payload.size);
    settle->size = payload.size;
    settle->service = service;
    settle->revision = revision;
    settle->complete = true;
    settle->id = ++service->settles.last_id;
    rc = bop_watch_settle_request_decode(bop_slice(settle->payload, settle->size), &settle->ask);
    BOP_ASSERT(rc == 0);
    settle->deadline_ms = now_ms + bop_min_u64(settle->ask.timeout_ms ? settle->ask.timeout_ms
                                                                      : SERVICE_SETTLE_MS,
                                               SERVICE_SETTLE_MAX_MS);
    settle->repeat_ms = now_ms + SERVICE_SETTLE_REPEAT_MS;
    bop_list_push_back(&service->settles.list, &settle->link);
    service->settles.count++;
    return settle;
}

static void respond(struct service_conn *conn, uint32_t id, uint8_t status, bool complete)
{
    struct bop_watch_settle_response response = {.status = status, .complete = complete};
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop_watch_settle_response_encode(&writer, &response);
        bop__service_end(conn, out, at, BOP_WIRE_KIND_WATCH_SETTLE_RESPONSE, BOP_WIRE_RESPONSE, id,
                         &writer);
    }
}

static void tell_peer(const struct settle *settle, bool complete)
{
    struct replica *replica = settle->service->replica;
    struct bop_writer writer;
    size_t at;
    struct bop_buf *out = bop__replica_frame_begin(replica, settle->peer, &at);

    if (out) {
        writer = bop_writer(out);
        bop_write_u64(&writer, settle->peer_id);
        bop_write_u8(&writer, complete);
        bop__replica_frame_end(replica, settle->peer, out, at, BOP_WIRE_KIND_PEER_WATCH_DONE,
                               &writer);
    } /* Else it asks again. */
}

static void drop(struct settle *settle)
{
    struct service *service = settle->service;

    bop_list_remove(&settle->link);
    service->settles.count--;
    if (settle->settler) {
        settle->settler->settle = NULL;
    }
    bop_free(service->allocator, settle, sizeof(*settle) + settle->size);
}

static void end(struct settle *settle, bool complete)
{
    struct settler *settler = settle->settler;

    if (!settler) {
        tell_peer(settle, complete);
    }
    drop(settle);
    if (settler) {
        settler->done(settler, complete);
    }
}

void bop__service_settles_init(struct service *service)
{
    bop_list_init(&service->settles.list);
    /* By chance, so that what this node asked before it was started again is not taken for what it
     * asks now. */
    if (bop_random_secret(&service->settles.last_id, sizeof(service->settles.last_id)) < 0) {
        service->settles.last_id = now_of(service) << 20;
    }
}

void bop__service_settles_deinit(struct service *service)
{
    while (!bop_list_empty(&service->settles.list)) {
        drop(BOP_CONTAINER_OF(service->settles.list.next, struct settle, link));
    }
}

/* ---- Peers ---- */

/* False: there is no way to it now. */
static bool ask_peer(const struct settle *settle, uint64_t peer)
{
    struct replica *replica = settle->service->replica;
    struct bop_writer writer;
    size_t at;
    struct bop_buf *out = bop__replica_frame_begin(replica, peer, &at);

    if (!out) {
        return false;
    }
    writer = bop_writer(out);
    bop_write_u64(&writer, settle->id);
    bop_write_u64(&writer, settle->revision);
    bop_write_raw(&writer, bop_slice(settle->payload, settle->size));
    bop__replica_frame_end(replica, peer, out, at, BOP_WIRE_KIND_PEER_WATCH_ASK, &writer);
    return true;
}

/* Ask those that have not answered; who cannot be asked is waited for no more. */
static void ask_peers(struct settle *settle)
{
    unsigned left = 0;

    for (unsigned n = 0; n < settle->waiting; n++) {
        if (ask_peer(settle, settle->peers[n])) {
            settle->peers[left++] = settle->peers[n];
        } else {
            settle->complete = false;
        }
    }
    settle->waiting = left;
}

static void find_peers(struct settle *settle)
{
    uint64_t ids[REPLICA_SERVERS_MAX];
    unsigned count = bop__replica_servers(settle->service->replica, ids);

    for (unsigned n = 0; n < count; n++) {
        if (ids[n] != settle->service->options.node) {
            settle->peers[settle->waiting++] = ids[n];
        }
    }
}

static struct settle *find_asked(struct service *service, uint64_t peer, uint64_t peer_id)
{
    BOP_LIST_FOR_EACH(link, &service->settles.list) {
        struct settle *settle = BOP_CONTAINER_OF(link, struct settle, link);

        if (!settle->settler && settle->peer == peer && settle->peer_id == peer_id) {
            return settle;
        }
    }
    return NULL;
}

static int asked(struct service *service, uint64_t peer, struct bop_slice payload)
{
    struct bop_reader reader = bop_reader(payload);
    uint64_t id = bop_read_u64(&reader);
    uint64_t revision = bop_read_u64(&reader);
    struct bop_slice rest = bop_read_raw(&reader, bop_reader_left(&reader));
    struct bop_watch_settle_request ask;
    struct settle *settle;

    if (reader.failed || bop_watch_settle_request_decode(rest, &ask) < 0) {
        return BOP_EMALFORMED;
    }
    if (find_asked(service, peer, id)) {
        return 0;
    }
    settle = make(service, rest, revision);
    if (settle) { /* Else it asks again, while it has time. */
        settle->peer = peer;
        settle->peer_id = id;
    }
    return 0;
}

static int answered(struct service *service, uint64_t peer, struct bop_slice payload)
{
    struct bop_reader reader = bop_reader(payload);
    uint64_t id = bop_read_u64(&reader);
    bool complete = bop_read_bool(&reader);

    if (!bop_reader_done(&reader)) {
        return BOP_EMALFORMED;
    }
    BOP_LIST_FOR_EACH(link, &service->settles.list) {
        struct settle *settle = BOP_CONTAINER_OF(link, struct settle, link);

        for (unsigned n = 0; settle->settler && settle->id == id && n < settle->waiting; n++) {
            if (settle->peers[n] == peer) {
                settle->peers[n] = settle->peers[--settle->waiting];
                settle->complete = settle->complete && complete;
            }
        }
    }
    return 0;
}

int bop__service_peer(struct service *service, uint64_t peer, const struct bop_wire_frame *frame)
{
    return frame->kind == BOP_WIRE_KIND_PEER_WATCH_ASK ? asked(service, peer, frame->payload)
                                                       : answered(service, peer, frame->payload);
}

/* ---- This node's own ---- */

bool bop__service_settle_begin(struct service *service, struct settler *settler,
                               struct bop_slice payload, uint64_t revision)
{
    struct settle *settle = make(service, payload, revision);

    settler->settle = settle;
    if (!settle) {
        return false;
    }
    settle->settler = settler;
    find_peers(settle);
    ask_peers(settle);
    return true;
}

void bop__service_settle_forget(struct settler *settler)
{
    if (settler->settle) {
        drop(settler->settle);
    }
}

/* ---- Clients ---- */

static void settled(struct settler *settler, bool complete)
{
    struct service_request *request = BOP_CONTAINER_OF(settler, struct service_request, settler);

    respond(request->conn, request->id, BOP_STATUS_OK, complete);
    bop__service_finish(request);
}

void bop__service_settles_forget(struct service_conn *conn)
{
    BOP_LIST_FOR_EACH_SAFE(link, &conn->service->settles.list) {
        struct settler *settler = BOP_CONTAINER_OF(link, struct settle, link)->settler;
        struct service_request *request;

        if (!settler || settler->done != settled) {
            continue; /* Asked for by another node, or by our own service. */
        }
        request = BOP_CONTAINER_OF(settler, struct service_request, settler);
        if (request->conn == conn) {
            bop__service_settle_forget(settler);
            bop__service_finish(request);
        }
    }
}

static void read_done(struct replica_read *read, int code, struct machine_view *view)
{
    struct service_request *request = BOP_CONTAINER_OF(read, struct service_request, read);
    struct service_conn *conn = request->conn;

    if (conn->closed || code < 0) {
        respond(conn, request->id, BOP_STATUS_RETRY, false);
        bop__service_finish(request);
        return;
    }
    request->settler = (struct settler){.done = settled};
    if (!bop__service_settle_begin(conn->service, &request->settler, bop__service_payload(request),
                                   bop__machine_view_position(view).index)) {
        respond(conn, request->id, BOP_STATUS_BUSY, false);
        bop__service_finish(request);
    }
}

int bop__service_settle(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_watch_settle_request in;
    struct service_request *request;
    int rc = bop_watch_settle_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    if (conn->who.auth && !(in.name.size > 0 ? bop__auth_allows(&conn->who, BOP_RIGHT_READ, in.name)
                                             : bop__auth_allows_all(&conn->who, BOP_RIGHT_READ))) {
        respond(conn, frame->request, BOP_STATUS_DENIED, false);
        return 0;
    }
    request = bop__service_request(conn, frame);
    if (!request) {
        return BOP_ENOMEM;
    }
    request->read = (struct replica_read){.done = read_done};
    bop__replica_read(conn->service->replica, &request->read);
    return 0;
}

/* ---- Turns ---- */

/* Who has not heard is asked for a word, in the hub's turn that follows. */
static bool have_heard(const struct settle *settle)
{
    struct service *service = settle->service;

    return bop__replica_applied(service->replica) >= settle->revision &&
           bop__watch_settled(service->watches, &settle->ask, settle->revision);
}

uint64_t bop__service_settles_turn(struct service *service, uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;

    BOP_LIST_FOR_EACH_SAFE(link, &service->settles.list) {
        struct settle *settle = BOP_CONTAINER_OF(link, struct settle, link);

        settle->here = settle->here || have_heard(settle);
        if (now_ms >= settle->repeat_ms) {
            settle->repeat_ms = now_ms + SERVICE_SETTLE_REPEAT_MS;
            ask_peers(settle);
        }
        if (settle->here && settle->waiting == 0) {
            end(settle, settle->complete);
        } else if (now_ms >= settle->deadline_ms) {
            end(settle, false);
        } else {
            due_ms = bop_min_u64(due_ms, bop_min_u64(settle->repeat_ms, settle->deadline_ms));
        }
    }
    return due_ms;
}
