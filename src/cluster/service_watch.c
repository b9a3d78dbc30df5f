/*
 * Kinds 150 to 156: watches of a connection, opened in the node's hub, told by frames.
 */
#include "service_internal.h"

#include <bop/random.h>

/* ---- Telling ---- */

static void tell(void *user, uint32_t watch, const struct bop_watch_events *events)
{
    struct service_conn *conn = (struct service_conn *)user;
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop_watch_events_encode(&writer, events);
        bop__service_end(conn, out, at, BOP_WIRE_KIND_WATCH_EVENTS, BOP_WIRE_RESPONSE, watch,
                         &writer);
    }
}

static size_t queued(void *user)
{
    const struct service_conn *conn = (const struct service_conn *)user;

    return conn->io->queued ? conn->io->queued(conn->user) : 0;
}

/* What a session owns is for whoever has shown that it is his: its locks are granted so. */
static bool is_own_session(const struct service_conn *conn, const struct watch_subject *subject)
{
    uint8_t id[9] = {0};

    bop_store_u64(id, __builtin_bswap64(conn->session));
    return subject->what == BOP_WATCH_SESSION && conn->session != 0 &&
           bop_slice_equal(subject->from, bop_slice(id, 8)) &&
           bop_slice_equal(subject->to, bop_slice(id, 9));
}

/* What has no name reaches everywhere. */
static bool allows(void *user, const struct watch_subject *subject)
{
    struct service_conn *conn = (struct service_conn *)user;

    if (is_own_session(conn, subject)) {
        return bop__auth_known(&conn->who);
    }
    return subject->name.size > 0 ? bop__auth_allows(&conn->who, BOP_RIGHT_READ, subject->name)
                                  : bop__auth_allows_all(&conn->who, BOP_RIGHT_READ);
}

static const struct watch_sink sink = {.tell = tell, .queued = queued, .allows = allows};

/* ---- From clients ---- */

static void respond_open(struct service_conn *conn, const struct bop_wire_frame *frame,
                         uint8_t status, uint64_t revision)
{
    struct bop_watch_open_response response = {.status = status, .revision = revision};
    size_t at;
    struct bop_buf *out = bop__service_begin(conn, &at);
    struct bop_writer writer;

    if (out) {
        writer = bop_writer(out);
        bop_watch_open_response_encode(&writer, &response);
        bop__service_end(conn, out, at, BOP_WIRE_KIND_WATCH_OPEN_RESPONSE, BOP_WIRE_RESPONSE,
                         frame->request, &writer);
    }
}

void bop__service_deny_watch(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    static const uint8_t zeros[16];
    size_t size = 0;

    if (frame->kind == BOP_WIRE_KIND_WATCH_OPEN_REQUEST) {
        size = 8; /* The revision. */
    } else if (frame->kind == BOP_WIRE_KIND_VIEW_OPEN_REQUEST) {
        size = 16; /* View and revision. */
    }
    bop__service_respond(conn, frame, BOP_STATUS_DENIED, bop_slice(zeros, size));
}

static bool is_allowed(struct service_conn *conn, const struct bop_watch_open_request *request)
{
    struct watch_subject subject = {
        .what = request->what, .name = request->name, .from = request->from, .to = request->to};

    return !conn->who.auth || allows(conn, &subject);
}

static int serve_open(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_watch_open_request in;
    uint64_t revision = 0;
    uint8_t status;
    int rc = bop_watch_open_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    if (!is_allowed(conn, &in)) {
        bop__service_deny_watch(conn, frame);
        return 0;
    }
    if (!conn->watches &&
        bop__watch_connect(conn->service->watches, &sink, conn, &conn->watches) < 0) {
        return BOP_ENOMEM;
    }
    /* What was applied since the last turn is told already, but counted at its end. */
    status = bop__watch_open(conn->watches, frame->request, &in, &revision);
    respond_open(conn, frame, status, revision);
    return 0;
}

static int serve_close(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_watch_close_request in;
    bool closed;
    int rc = bop_watch_close_request_decode(frame->payload, &in);

    if (rc < 0) {
        return rc;
    }
    closed = conn->watches && bop__watch_close(conn->watches, in.watch);
    bop__service_respond(conn, frame, closed ? BOP_STATUS_OK : BOP_STATUS_NOT_FOUND,
                         bop_slice(NULL, 0));
    return 0;
}

static int serve_ack(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    struct bop_watch_ack in;
    int rc = bop_watch_ack_decode(frame->payload, &in);

    if (rc == 0 && conn->watches) {
        bop__watch_acked(conn->watches, &in);
    }
    return rc;
}

int bop__service_watch(struct service_conn *conn, const struct bop_wire_frame *frame)
{
    switch (frame->kind) {
    case BOP_WIRE_KIND_WATCH_OPEN_REQUEST:
        return serve_open(conn, frame);
    case BOP_WIRE_KIND_WATCH_CLOSE_REQUEST:
        return serve_close(conn, frame);
    default:
        return serve_ack(conn, frame);
    }
}

/* ---- From the replica ---- */

int bop__service_watches_create(struct service *service)
{
    struct watch_options options = {
        .allocator = service->options.allocator,
        .metrics = service->options.metrics,
        .replica = service->replica,
        .revision = bop__replica_applied(service->replica),
        .history_bytes_max = service->options.history_bytes_max,
        .seed = service->options.watch_seed,
    };

    if (options.seed == 0 && bop_random_secret(&options.seed, sizeof(options.seed)) < 0) {
        options.seed = (uintptr_t)service; /* It keeps strangers from guessing, no more. */
    }
    return bop__watch_hub_create(&options, &service->watches);
}

void bop__service_review(struct service *service)
{
    bop__watch_hub_review(service->watches);
    bop__service_sync_review(service);
}

struct watch_hub *bop__service_watches(struct service *service)
{
    return service->watches;
}

void bop__service_events(struct service *service, uint64_t index, struct bop_slice events)
{
    bop__watch_hub_events(service->watches, index, events);
    bop__service_sync_events(service, events);
}

void bop__service_reset(struct service *service, uint64_t index)
{
    bop__watch_hub_reset(service->watches, index);
    bop__service_sync_reset(service);
}

void bop__service_release(struct service *service)
{
    if (service) {
        bop__watch_hub_release(service->watches);
        bop__service_views_release(service);
    }
}

uint64_t bop__service_turn(struct service *service)
{
    uint64_t now_ms = bop_clock_monotonic_ms(service->options.clock);
    uint64_t due_ms;

    bop__service_sync_turn(service);
    due_ms = bop__service_settles_turn(service, now_ms);
    due_ms = bop_min_u64(
        due_ms,
        bop__watch_hub_turn(service->watches, bop__replica_applied(service->replica), now_ms));
    return bop_min_u64(due_ms, bop__service_views_turn(service, now_ms));
}
