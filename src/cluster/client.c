/*
 * The client's requests, from being asked for to their one callback. The rules
 * are in client_internal.h.
 */
#include "client_internal.h"
#include "client_lock.h"

#include <bop/mem.h>

#define INDEX_MASK ((1u << CLIENT_INDEX_BITS) - 1)

_Static_assert(BOP_CLIENT_OUTSTANDING_MAX <= 1u << CLIENT_INDEX_BITS, "an index must fit in an id");

/* Of a WRITE_REQUEST: header, session, sequence, acked. The longest of all. */
#define FRAME_OVERHEAD (BOP_WIRE_HEADER + 24)

static const struct bop_result no_result;

static struct client_request *request_of(struct bop_list *link)
{
    return BOP_CONTAINER_OF(link, struct client_request, link);
}

static struct client_lane *lane_of(struct bop_client *client, const struct client_request *request)
{
    return request->kind == BOP_WIRE_KIND_WRITE_REQUEST ? &client->writes : &client->reads;
}

static uint32_t request_id(const struct bop_client *client, const struct client_request *request)
{
    return request->generation << CLIENT_INDEX_BITS | (uint32_t)(request - client->requests);
}

/* ---- Checking ---- */

static void check_lane(const struct client_lane *lane)
{
    size_t queued = 0;
    uint64_t sequence = 0, deadline_ms = 0;
    bool unsent = false;

    BOP_LIST_FOR_EACH(link, &lane->requests) {
        const struct client_request *request = request_of(link);

        queued += request->queued;
        BOP_ASSERT(request->deadline_ms >= deadline_ms);
        deadline_ms = request->deadline_ms;
        BOP_ASSERT(request->queued || bop__client_ready(lane->client));
        BOP_ASSERT(request->sequence == 0 || (!unsent && request->sequence > sequence));
        unsent = unsent || request->sequence == 0;
        sequence = bop_max_u64(sequence, request->sequence);
    }
    BOP_ASSERT(queued == lane->queued);
    BOP_ASSERT(sequence <= lane->client->session.last_sequence);
}

void bop__client_check(const struct bop_client *client)
{
    check_lane(&client->writes);
    check_lane(&client->reads);
}

static void debug_check(const struct bop_client *client)
{
#ifdef BOP_DEBUG
    bop__client_check(client);
#else
    (void)client;
#endif
}

/* ---- Ending ---- */

/* Slots keep small buffers, so that the next request need not allocate. */
static void trim(struct bop_client *client, struct client_request *request)
{
    bop_buf_clear(&request->operation);
    if (request->operation.capacity > CLIENT_KEEP_BYTES) {
        bop_buf_deinit(&request->operation);
        bop_buf_init(&request->operation, client->allocator, 0);
    }
}

static void free_slot(struct bop_client *client, struct client_request *request)
{
    if (request->queued) {
        lane_of(client, request)->queued--;
    }
    client->outstanding--;
    client->outstanding_bytes -= request->operation.size;
    trim(client, request);
    request->kind = 0;
    request->queued = false;
    request->sequence = 0;
    request->generation = request->generation == CLIENT_GENERATION_MAX ? 1
                                                                       : request->generation + 1;
    bop_list_remove(&request->link);
    bop_list_push_front(&client->free, &request->link);
}

/* End a request: its slot is free when its callback runs. */
static void finish(struct bop_client *client, struct client_request *request, int code,
                   const struct bop_result *result, const struct bop_status_response *status)
{
    bop_client_fn fn = request->fn;
    bop_client_status_fn status_fn = request->status_fn;
    bop_client_admin_fn admin_fn = request->admin_fn;
    bop_client_view_fn view_fn = request->view_fn;
    bop_client_settled_fn settled_fn = request->settled_fn;
    void *user = request->user;

    free_slot(client, request);
    BOP_ASSERT(!client->calling);
    client->calling = true;
    if (fn) {
        fn(user, code, result ? result : &no_result);
    } else if (status_fn) {
        status_fn(user, code, status);
    } else if (admin_fn) {
        admin_fn(user, code, client->admin_response);
    } else if (view_fn) {
        view_fn(user, code, client->view_response);
    } else if (settled_fn) {
        settled_fn(user, code);
    }
    client->calling = false;
}

static bool is_sent_write(const struct client_request *request)
{
    return request->sequence != 0;
}

static bool is_unsent_write(const struct client_request *request)
{
    return request->kind == BOP_WIRE_KIND_WRITE_REQUEST && request->sequence == 0;
}

static bool was_never_sent(const struct client_request *request)
{
    return !request->sent_before;
}

static bool is_any(const struct client_request *request)
{
    return true;
}

/* End those of a lane that pick chooses, but not what their callbacks ask for meanwhile. */
static void finish_some(struct bop_client *client, struct client_lane *lane,
                        bool (*pick)(const struct client_request *request), int code)
{
    struct bop_list *link = lane->requests.next;
    struct bop_list *last = lane->requests.prev;
    bool more = !bop_list_empty(&lane->requests);

    while (more) {
        struct bop_list *next = link->next;

        more = link != last;
        if (pick(request_of(link))) {
            finish(client, request_of(link), code, NULL, NULL);
        }
        link = next;
    }
}

void bop__client_fail_writes(struct bop_client *client, bool sent, int code)
{
    finish_some(client, &client->writes, sent ? is_sent_write : is_unsent_write, code);
}

void bop__client_fail_unsent(struct bop_client *client, int code)
{
    finish_some(client, &client->writes, was_never_sent, code);
    finish_some(client, &client->reads, was_never_sent, code);
}

/* ---- Giving up ---- */

static struct client_request *first_of(const struct client_lane *lane)
{
    return bop_list_empty(&lane->requests) ? NULL : request_of(lane->requests.next);
}

static void give_up(struct bop_client *client, struct client_lane *lane, uint64_t now_ms)
{
    struct client_request *request;

    while ((request = first_of(lane)) && request->deadline_ms <= now_ms) {
        client->info.timeouts++;
        finish(client, request, BOP_ETIMEOUT, NULL, NULL);
    }
}

static uint64_t first_deadline(const struct bop_client *client)
{
    const struct client_request *write = first_of(&client->writes);
    const struct client_request *read = first_of(&client->reads);

    return bop_min_u64(write ? write->deadline_ms : UINT64_MAX,
                       read ? read->deadline_ms : UINT64_MAX);
}

static void on_deadline(struct bop_timer *timer)
{
    struct bop_client *client = BOP_CONTAINER_OF(timer, struct bop_client, deadline);
    uint64_t now_ms = bop_loop_now_ms(client->loop);
    uint64_t due_ms;

    give_up(client, &client->writes, now_ms);
    give_up(client, &client->reads, now_ms);
    due_ms = first_deadline(client);
    if (due_ms != UINT64_MAX && !bop_timer_is_running(&client->deadline)) {
        /* Cannot fail: this timer's place in the loop's queue has just become free,
         * unless a callback took it; then the next request starts it. */
        BOP_IGNORE(bop_timer_start(client->loop, &client->deadline,
                                   due_ms > now_ms ? due_ms - now_ms : 0));
    }
    debug_check(client);
}

/* ---- Sending ---- */

void bop__client_pause(struct client_lane *lane)
{
    if (bop_timer_is_running(&lane->pause)) {
        return;
    }
    /* Without memory for the timer the tick's flush is the pause. */
    BOP_IGNORE(bop_timer_start(lane->client->loop, &lane->pause, lane->pause_ms));
    lane->pause_ms = bop_min_u64(lane->pause_ms * 2, CLIENT_PAUSE_MAX_MS);
    bop__client_ask_leader(lane->client);
}

/* All writes up to this one are answered or given up. */
static uint64_t acked_sequence(const struct bop_client *client)
{
    const struct client_request *first = first_of(&client->writes);

    return first && first->sequence ? first->sequence - 1 : client->session.last_sequence;
}

static void encode_request(struct bop_client *client, const struct client_request *request,
                           uint64_t sequence, struct bop_writer *writer)
{
    struct bop_slice operation = bop_buf_slice(&request->operation);

    if (request->kind == BOP_WIRE_KIND_WRITE_REQUEST) {
        struct bop_write_request message = {
            .session = client->session.id,
            .sequence = sequence,
            .acked = acked_sequence(client),
            .operation = operation,
        };

        bop_write_request_encode(writer, &message);
    } else if (request->admin_fn || request->kind == BOP_WIRE_KIND_WATCH_SETTLE_REQUEST) {
        bop_write_raw(writer, operation);
    } else if (request->kind == BOP_WIRE_KIND_READ_REQUEST) {
        struct bop_read_request message = {.consistency = request->consistency,
                                           .operation = operation};

        bop_read_request_encode(writer, &message);
    } else if (request->kind == BOP_WIRE_KIND_VIEW_READ_REQUEST) {
        struct bop_view_read_request message = {.view = request->view, .operation = operation};

        bop_view_read_request_encode(writer, &message);
    } else if (request->kind == BOP_WIRE_KIND_VIEW_CLOSE_REQUEST) {
        struct bop_view_close_request message = {.view = request->view};

        bop_view_close_request_encode(writer, &message);
    }
}

/* Returns false if the connection takes no more now; on_pressure or the tick go on. */
static bool send_request(struct bop_client *client, struct client_request *request)
{
    struct client_lane *lane = lane_of(client, request);
    bool is_write = lane == &client->writes;
    uint64_t sequence = request->sequence;
    struct bop_writer writer;
    struct bop_buf *buf;
    size_t at;

    buf = bop__client_frame_begin(client, &at);
    if (!buf) {
        return false;
    }
    if (is_write && sequence == 0) {
        sequence = client->session.last_sequence + 1;
    }
    writer = bop_writer(buf);
    encode_request(client, request, sequence, &writer);
    if (!bop__client_frame_end(client, buf, at, (enum bop_wire_kind)request->kind,
                               request_id(client, request), writer.code)) {
        return false;
    }
    if (is_write) {
        client->session.last_sequence = bop_max_u64(client->session.last_sequence, sequence);
        client->session.life_ms = bop_loop_now_ms(client->loop);
        request->sequence = sequence;
    }
    client->info.resent += request->sent_before;
    request->sent_again = request->sent_before;
    request->sent_before = true;
    request->queued = false;
    lane->queued--;
    return true;
}

static bool may_send(struct bop_client *client, const struct client_lane *lane)
{
    if (!bop__client_ready(client) || bop_timer_is_running(&lane->pause)) {
        return false;
    }
    if (lane == &client->writes && client->session.state != CLIENT_SESSION_OPEN) {
        bop__client_session_want(client);
        return false;
    }
    return true;
}

static void flush_lane(struct bop_client *client, struct client_lane *lane)
{
    if (lane->queued == 0 || !may_send(client, lane)) {
        return;
    }
    BOP_LIST_FOR_EACH(link, &lane->requests) {
        struct client_request *request = request_of(link);

        if (request->queued && !send_request(client, request)) {
            break;
        }
    }
}

void bop__client_flush(struct bop_client *client)
{
    flush_lane(client, &client->writes);
    flush_lane(client, &client->reads);
    bop__client_watches_flush(client);
    debug_check(client);
}

static void on_pause_over(struct bop_timer *timer)
{
    struct client_lane *lane = BOP_CONTAINER_OF(timer, struct client_lane, pause);

    flush_lane(lane->client, lane);
}

static void queue_request(struct client_lane *lane, struct client_request *request)
{
    BOP_ASSERT(!request->queued);
    request->queued = true;
    lane->queued++;
}

static void requeue_lane(struct client_lane *lane)
{
    BOP_LIST_FOR_EACH(link, &lane->requests) {
        if (!request_of(link)->queued) {
            queue_request(lane, request_of(link));
        }
    }
}

void bop__client_requeue(struct bop_client *client)
{
    requeue_lane(&client->writes);
    requeue_lane(&client->reads);
    bop__client_watches_unlinked(client);
}

/* ---- Answers ---- */

/* The request that a response is for; NULL for one that was given up. */
static struct client_request *find_request(struct bop_client *client, uint32_t id)
{
    uint32_t index = id & INDEX_MASK;
    struct client_request *request;

    if (index >= client->outstanding_max) {
        return NULL;
    }
    request = &client->requests[index];
    if (request->kind == 0 || request->generation != id >> CLIENT_INDEX_BITS) {
        return NULL;
    }
    return request;
}

void bop__client_request_again(struct bop_client *client, struct client_request *request)
{
    struct client_lane *lane = lane_of(client, request);

    client->info.retries++;
    queue_request(lane, request);
    bop__client_pause(lane);
}

void bop__client_request_finish(struct bop_client *client, struct client_request *request, int code,
                                const struct bop_client_view *view)
{
    client->view_response = view;
    finish(client, request, code, NULL, NULL);
    client->view_response = NULL;
}

/*
 * Not decided: there will be another answer. A write for which there is no room was not done, but
 * if it was sent before, that time may have got into the log, and be done still.
 */
static bool is_undecided(const struct client_request *request, uint8_t status)
{
    return status == BOP_STATUS_RETRY || status == BOP_STATUS_BUSY ||
           (status == BOP_STATUS_NO_ROOM && request->sent_again);
}

/*
 * A refusal of what was sent before says nothing of that time. RETRY and NO_ROOM pass, so the
 * request is sent until it is decided; a right that is missing stays, so it is not known. All other
 * refusals are the log's, which remembers what it answered to the session, or follow from the
 * request's bytes alone.
 */
static int denied_code(const struct client_request *request)
{
    bool changes = request->kind == BOP_WIRE_KIND_WRITE_REQUEST ||
                   request->kind == BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST ||
                   request->kind == BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST ||
                   request->kind == BOP_WIRE_KIND_CLUSTER_PARAMS_REQUEST;

    return changes && request->sent_again ? BOP_EUNCERTAIN : BOP_EDENIED;
}

static int on_reply(struct bop_client *client, struct client_request *request,
                    struct bop_slice payload)
{
    struct client_lane *lane = lane_of(client, request);
    struct bop_reply reply;
    struct bop_result result;
    int code;

    if (bop_reply_decode(payload, &reply) < 0) {
        return BOP_EPROTOCOL;
    }
    if (is_undecided(request, reply.status)) {
        bop__client_request_again(client, request);
        return 0;
    }
    lane->pause_ms = CLIENT_PAUSE_MIN_MS;
    if (reply.status == BOP_STATUS_NO_SESSION && lane == &client->writes) {
        bop__client_session_lost(client);
        return 0;
    }
    code = bop_status_code(reply.status);
    if (reply.status == BOP_STATUS_DENIED) {
        struct bop_reader reader = bop_reader(reply.result);

        bop__client_denied(client, bop_read_string(&reader));
        code = denied_code(request);
    }
    if (bop_result_decode((enum bop_op)request->op, reply.status, reply.result, &result) < 0) {
        /* Sent again it would be answered alike. */
        finish(client, request, BOP_EPROTOCOL, NULL, NULL);
        return BOP_EPROTOCOL;
    }
    finish(client, request, code, &result, NULL);
    return 0;
}

static int on_status(struct bop_client *client, struct client_request *request,
                     struct bop_slice payload)
{
    struct bop_status_response status;

    if (bop_status_response_decode(payload, &status) < 0) {
        finish(client, request, BOP_EPROTOCOL, NULL, NULL);
        return BOP_EPROTOCOL;
    }
    finish(client, request, 0, NULL, &status);
    return 0;
}

/* Requests whose answers have no room for it are told so that they are not allowed. */
static int on_error(struct bop_client *client, const struct bop_wire_frame *frame)
{
    static const char prefix[] = "access denied: "; /* Which the code says already. */
    struct client_request *request = find_request(client, frame->request);
    struct bop_slice text;

    if (!request || request->queued || request->fn ||
        !bop__client_error_text(frame->payload, &text)) {
        return BOP_EPROTOCOL;
    }
    if (text.size > sizeof(prefix) - 1 && memcmp(text.data, prefix, sizeof(prefix) - 1) == 0) {
        text = bop_slice(text.data + sizeof(prefix) - 1, text.size - (sizeof(prefix) - 1));
    }
    bop__client_denied(client, text);
    finish(client, request, denied_code(request), NULL, NULL);
    return 0;
}

/* The answer to an operator's request, which is not looked into here. */
static int on_admin(struct bop_client *client, struct client_request *request,
                    struct bop_slice payload)
{
    client->admin_response = payload;
    finish(client, request, 0, NULL, NULL);
    client->admin_response = bop_slice(NULL, 0);
    return 0;
}

static bool is_admin_response(uint16_t kind)
{
    return kind >= BOP_WIRE_KIND_CLUSTER_MEMBERS_RESPONSE &&
           kind <= BOP_WIRE_KIND_BACKUP_READ_RESPONSE && kind % 2 == 1;
}

int bop__client_answer(struct bop_client *client, const struct bop_wire_frame *frame)
{
    struct client_request *request;
    int rc;

    if (frame->kind == BOP_WIRE_KIND_ERROR_RESPONSE) {
        return on_error(client, frame);
    }
    if (bop__client_watch_kind(frame->kind)) {
        return bop__client_watch_answer(client, frame);
    }
    if (frame->kind != BOP_WIRE_KIND_WRITE_RESPONSE && frame->kind != BOP_WIRE_KIND_READ_RESPONSE &&
        frame->kind != BOP_WIRE_KIND_STATUS_RESPONSE && !is_admin_response(frame->kind) &&
        frame->kind != BOP_WIRE_KIND_VIEW_READ_RESPONSE &&
        !bop__client_view_response(frame->kind) &&
        frame->kind != BOP_WIRE_KIND_WATCH_SETTLE_RESPONSE) {
        return bop__client_session_answer(client, frame);
    }
    request = find_request(client, frame->request);
    if (!request) {
        return 0;
    }
    if (request->queued || frame->kind != request->kind + 1) {
        return BOP_EPROTOCOL; /* Not asked, or not this. */
    }
    rc = bop__client_view_response(frame->kind)
             ? bop__client_view_answer(client, request, frame->payload)
         : frame->kind == BOP_WIRE_KIND_WATCH_SETTLE_RESPONSE
             ? bop__client_settle_answer(client, request, frame->payload)
         : is_admin_response(frame->kind)               ? on_admin(client, request, frame->payload)
         : frame->kind == BOP_WIRE_KIND_STATUS_RESPONSE ? on_status(client, request, frame->payload)
                                                        : on_reply(client, request, frame->payload);
    debug_check(client);
    return rc;
}

/* ---- Asking ---- */

/* The deadline timer runs while there are requests that end some time. */
static int start_deadline(struct bop_client *client)
{
    if (client->request_timeout_ms == BOP_CLIENT_NO_TIMEOUT ||
        bop_timer_is_running(&client->deadline)) {
        return 0;
    }
    return bop_timer_start(client->loop, &client->deadline, client->request_timeout_ms);
}

int bop__client_request_begin(struct bop_client *client, struct client_request **out_request)
{
    struct client_request *request;
    int rc;

    if (client->closing) {
        return BOP_ECLOSED;
    }
    if (bop_list_empty(&client->free)) {
        return BOP_EFULL;
    }
    rc = start_deadline(client);
    if (rc < 0) {
        return rc;
    }
    request = request_of(client->free.next);
    request->fn = NULL;
    request->status_fn = NULL;
    request->admin_fn = NULL;
    request->view_fn = NULL;
    request->settled_fn = NULL;
    *out_request = request;
    return 0;
}

void bop__client_request_accept(struct bop_client *client, struct client_request *request)
{
    struct client_lane *lane = lane_of(client, request);
    bool first_in_line = lane->queued == 0;

    request->deadline_ms = BOP_CLIENT_NO_TIMEOUT;
    if (client->request_timeout_ms != BOP_CLIENT_NO_TIMEOUT) {
        request->deadline_ms = bop_loop_now_ms(client->loop) + client->request_timeout_ms;
    }
    request->sent_before = request->sent_again = false;
    bop_list_remove(&request->link);
    bop_list_push_back(&lane->requests, &request->link);
    client->outstanding++;
    client->outstanding_bytes += request->operation.size;
    queue_request(lane, request);
    if (first_in_line && may_send(client, lane)) {
        BOP_IGNORE(send_request(client, request)); /* Else it stays queued. */
    }
}

static int fill(struct bop_client *client, struct client_request *request,
                const struct bop_operation *operation)
{
    struct bop_writer writer = bop_writer(&request->operation);
    struct bop_operation decoded;
    int rc;

    bop_operation_encode(&writer, operation);
    if (writer.code != 0) {
        return writer.code;
    }
    if (request->operation.size > BOP_WIRE_FRAME_MAX - FRAME_OVERHEAD) {
        return BOP_ETOOBIG;
    }
    rc = bop_operation_decode(bop_buf_slice(&request->operation), &decoded);
    if (rc < 0) {
        return rc == BOP_EMALFORMED ? BOP_EINVAL : rc;
    }
    if (request->operation.size > client->outstanding_bytes_max - client->outstanding_bytes) {
        return BOP_EFULL;
    }
    return 0;
}

/* Put the operation into the slot, unless it is none that a server would take. */
int bop__client_request_fill(struct bop_client *client, struct client_request *request,
                             const struct bop_operation *operation)
{
    int rc = fill(client, request, operation);

    if (rc < 0) {
        trim(client, request);
    }
    return rc;
}

int bop_client_execute(struct bop_client *client, const struct bop_operation *operation,
                       enum bop_consistency consistency, bop_client_fn fn, void *user)
{
    struct client_request *request;
    int rc;

    if (consistency != BOP_READ_LINEARIZABLE && consistency != BOP_READ_STALE) {
        return BOP_EINVAL;
    }
    rc = bop__client_request_begin(client, &request);
    if (rc == 0) {
        rc = bop__client_request_fill(client, request, operation);
    }
    if (rc < 0) {
        return rc;
    }
    request->kind = bop_op_is_write(operation->op) ? BOP_WIRE_KIND_WRITE_REQUEST
                                                   : BOP_WIRE_KIND_READ_REQUEST;
    request->op = (uint8_t)operation->op;
    request->consistency = (uint8_t)consistency;
    request->fn = fn;
    request->user = user;
    bop__client_request_accept(client, request);
    return 0;
}

int bop_client_status(struct bop_client *client, bop_client_status_fn fn, void *user)
{
    struct client_request *request;
    int rc = bop__client_request_begin(client, &request);

    if (rc < 0) {
        return rc;
    }
    request->kind = BOP_WIRE_KIND_STATUS_REQUEST;
    request->status_fn = fn;
    request->user = user;
    bop__client_request_accept(client, request);
    return 0;
}

int bop_client_admin(struct bop_client *client, uint16_t kind, struct bop_slice payload,
                     bop_client_admin_fn fn, void *user)
{
    struct client_request *request;
    int rc;

    if (kind % 2 != 0 || !is_admin_response(kind + 1)) {
        return BOP_EINVAL;
    }
    rc = bop__client_request_begin(client, &request);
    if (rc < 0) {
        return rc;
    }
    rc = bop_buf_append(&request->operation, payload.data, payload.size);
    if (rc < 0) {
        return rc;
    }
    request->kind = kind;
    request->admin_fn = fn;
    request->user = user;
    bop__client_request_accept(client, request);
    return 0;
}

void bop_client_info(const struct bop_client *client, struct bop_client_info *out_info)
{
    *out_info = client->info;
    out_info->ready = bop__client_ready(client);
    out_info->servers = client->endpoint_count + client->servers.count;
    out_info->node = out_info->ready ? client->active->node : 0;
    out_info->leader = client->leader;
    out_info->session = client->session.id;
    out_info->outstanding = client->outstanding;
}

/* ---- Beginning and end ---- */

static int copy_text(char *out, const char *text, const char *what, struct bop_error *err)
{
    struct bop_slice slice = bop_slice_cstr(text ? text : "");

    if (slice.size > BOP_NAME_MAX || !bop_slice_is_utf8(slice)) {
        return bop_error_say(err, BOP_EINVAL, "%s: not UTF-8 of at most %d bytes", what,
                             BOP_NAME_MAX);
    }
    memcpy(out, slice.data, slice.size);
    out[slice.size] = '\0';
    return 0;
}

static int copy_endpoints(struct bop_client *client, const struct bop_client_options *options,
                          struct bop_error *err)
{
    if (options->endpoint_count == 0 || options->endpoint_count > BOP_CLIENT_ENDPOINTS_MAX) {
        return bop_error_say(err, BOP_EINVAL, "%zu endpoints: 1 to %d wanted",
                             options->endpoint_count, BOP_CLIENT_ENDPOINTS_MAX);
    }
    client->endpoints = (struct client_endpoint *)bop_alloc_array(
        client->allocator, options->endpoint_count, sizeof(*client->endpoints));
    if (!client->endpoints) {
        return bop_error_set(err, BOP_ENOMEM, "create a client");
    }
    client->endpoint_count = options->endpoint_count;
    for (size_t i = 0; i < options->endpoint_count; i++) {
        if (bop__client_endpoint_parse(bop_slice_cstr(options->endpoints[i]),
                                       &client->endpoints[i]) < 0) {
            return bop_error_say(err, BOP_EINVAL, "endpoint \"%s\" is not host:port",
                                 options->endpoints[i]);
        }
    }
    return 0;
}

static int set_options(struct bop_client *client, const struct bop_client_options *options,
                       struct bop_error *err)
{
    int rc;

    client->log = options->log;
    client->pin = options->pin;
    client->session_timeout_ms = options->session_timeout_ms ? options->session_timeout_ms : 10000;
    client->session_grace_ms = options->session_grace_ms;
    client->on_session_lost = options->on_session_lost;
    client->lost_user = options->user;
    client->request_timeout_ms = options->request_timeout_ms ? options->request_timeout_ms : 30000;
    client->connect_timeout_ms = options->connect_timeout_ms ? options->connect_timeout_ms : 2000;
    client->silence_timeout_ms = options->silence_timeout_ms ? options->silence_timeout_ms : 2000;
    client->outstanding_max = options->outstanding_max ? options->outstanding_max : 4096;
    client->outstanding_bytes_max = options->outstanding_bytes_max ? options->outstanding_bytes_max
                                                                   : 64u * 1024 * 1024;
    /* Below, some request could never be made. */
    client->outstanding_bytes_max = bop_max_u64(client->outstanding_bytes_max, BOP_WIRE_FRAME_MAX);
    client->secret = options->secret ? options->secret : bop_random_secret;
    if (client->outstanding_max > BOP_CLIENT_OUTSTANDING_MAX) {
        return bop_error_say(err, BOP_EINVAL, "%u outstanding requests: at most %d",
                             client->outstanding_max, BOP_CLIENT_OUTSTANDING_MAX);
    }
    if (client->session_timeout_ms < CLIENT_SESSION_TIMEOUT_MIN) {
        return bop_error_say(err, BOP_EINVAL, "a session timeout of %u ms: at least %d",
                             client->session_timeout_ms, CLIENT_SESSION_TIMEOUT_MIN);
    }
    rc = copy_text(client->cluster, options->cluster, "cluster name", err);
    if (rc == 0) {
        rc = copy_text(client->name, options->name ? options->name : "client", "client name", err);
    }
    if (rc == 0) {
        rc = copy_endpoints(client, options, err);
    }
    if (rc == 0) {
        rc = bop__client_trust_init(client, options, err);
    }
    return rc;
}

static int make_slots(struct bop_client *client)
{
    client->requests = (struct client_request *)bop_alloc_array(
        client->allocator, client->outstanding_max, sizeof(*client->requests));
    if (!client->requests) {
        return BOP_ENOMEM;
    }
    for (unsigned i = 0; i < client->outstanding_max; i++) {
        struct client_request *request = &client->requests[i];

        bop_buf_init(&request->operation, client->allocator, 0);
        request->generation = 1;
        bop_list_push_back(&client->free, &request->link);
    }
    return 0;
}

static void init_lane(struct client_lane *lane, struct bop_client *client)
{
    lane->client = client;
    lane->pause_ms = CLIENT_PAUSE_MIN_MS;
    bop_list_init(&lane->requests);
    bop_timer_init(&lane->pause, on_pause_over);
}

int bop_client_create(const struct bop_client_options *options, struct bop_client **out_client,
                      struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "cluster.client");
    struct bop_client *client;
    uint64_t seed;
    int rc;

    BOP_ASSERT(options->loop);
    client = (struct bop_client *)bop_alloc_zeroed(allocator, sizeof(*client));
    if (!client) {
        return bop_error_set(err, BOP_ENOMEM, "create a client");
    }
    client->allocator = allocator;
    client->loop = options->loop;
    bop_list_init(&client->free);
    bop_list_init(&client->presences);
    init_lane(&client->writes, client);
    init_lane(&client->reads, client);
    bop_timer_init(&client->deadline, on_deadline);
    bop__client_links_init(client);
    bop__client_watches_init(client);
    bop__client_locks_init(client);

    rc = set_options(client, options, err);
    if (rc < 0) {
        goto fail;
    }
    rc = client->secret(&seed, sizeof(seed));
    if (rc < 0) {
        bop_error_set(err, rc, "get random bytes");
        goto fail;
    }
    bop_random_seed(&client->random, seed);
    rc = make_slots(client);
    if (rc == 0) {
        rc = bop__client_links_start(client);
    }
    if (rc < 0) {
        bop_error_set(err, rc, "create a client");
        goto fail;
    }
    *out_client = client;
    return 0;

fail:
    bop_client_destroy(client);
    return rc;
}

void bop_client_destroy(struct bop_client *client)
{
    if (!client) {
        return;
    }
    BOP_ASSERT(!client->calling);
    bop__client_links_stop(client);
    client->closing = true; /* Callbacks may ask for no more. */
    finish_some(client, &client->writes, is_any, BOP_ECANCELED);
    finish_some(client, &client->reads, is_any, BOP_ECANCELED);
    bop__client_locks_close(client);
    bop__client_watches_close(client);
    bop_timer_stop(client->loop, &client->writes.pause);
    bop_timer_stop(client->loop, &client->reads.pause);
    bop_timer_stop(client->loop, &client->deadline);
    for (unsigned i = 0; client->requests && i < client->outstanding_max; i++) {
        bop_buf_deinit(&client->requests[i].operation);
    }
    if (client->requests) {
        bop_free(client->allocator, client->requests,
                 client->outstanding_max * sizeof(*client->requests));
    }
    if (client->endpoints) {
        bop_free(client->allocator, client->endpoints,
                 client->endpoint_count * sizeof(*client->endpoints));
    }
    bop__client_servers_deinit(client);
    bop__client_trust_deinit(client);
    bop_free(client->allocator, client, sizeof(*client));
}
