/*
 * Fuzzes what a connection does with the bytes it gets: frames off a stream,
 * their payloads checked or decoded, the operations and results in them decoded.
 *
 * Properties: nothing reads outside of the input (the sanitizers' part); a frame
 * that is accepted, made anew, gives the same bytes; a message or operation that
 * is accepted, encoded anew, gives the same bytes.
 *
 * Random bytes hardly ever have the right checksum, so the input is used in three
 * ways: as a stream as it is, as a stream whose headers get size and checksum
 * repaired, and as a bare payload for each decoder.
 */
#include <bop/backup.h>
#include <bop/cluster_admin.h>
#include <bop/watch.h>
#include <bop/wire.h>

#include "fuzz_round_trip.h"

/* ---- decode, encode, compare ---- */

/* What is in it has a fuzzer of its own, fuzz_operation.c. */
static void operation(struct bop_slice bytes)
{
    FUZZ_ROUND_TRIP(operation, bytes);
}

static void reply(struct bop_slice payload)
{
    struct bop_result result;
    struct bop_reply message;

    FUZZ_ROUND_TRIP(reply, payload);
    if (bop_reply_decode(payload, &message) < 0) {
        return;
    }
    for (unsigned op = 0; op < 256; op++) {
        int rc = bop_result_decode((enum bop_op)op, message.status, message.result, &result);

        require(rc == 0 || rc == BOP_EMALFORMED);
    }
}

static void status_only(struct bop_slice payload)
{
    uint8_t status;

    require(bop_session_status_decode(payload, &status) < 0 || payload.size == 1);
}

/* The events of a frame, one by one, are its bytes again. */
static void events(struct bop_slice payload)
{
    struct bop_writer writer = fuzz_writer();
    struct bop_watch_events message;
    struct bop_event event;

    if (bop_watch_events_decode(payload, &message) < 0) {
        return;
    }
    for (struct bop_slice rest = message.events; bop_event_next(&rest, &event) > 0;) {
        bop_event_encode(&writer, &event);
    }
    fuzz_same(&writer, message.events);
}

static void session_alive(struct bop_slice payload)
{
    struct bop_writer writer = fuzz_writer();
    uint64_t session;

    if (bop_session_alive_request_decode(payload, &session) < 0) {
        return;
    }
    bop_session_alive_request_encode(&writer, session);
    fuzz_same(&writer, payload);
}

static void admin_payload_of(uint16_t kind, struct bop_slice payload)
{
    switch (kind) {
    case BOP_WIRE_KIND_CLUSTER_MEMBERS_RESPONSE:
        FUZZ_ROUND_TRIP(admin_members, payload);
        break;
    case BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST:
        FUZZ_ROUND_TRIP(admin_change_request, payload);
        break;
    case BOP_WIRE_KIND_CLUSTER_CHANGE_RESPONSE:
        FUZZ_ROUND_TRIP(admin_change_response, payload);
        break;
    case BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST:
        FUZZ_ROUND_TRIP(admin_transfer_request, payload);
        break;
    case BOP_WIRE_KIND_CLUSTER_TRANSFER_RESPONSE:
        FUZZ_ROUND_TRIP(admin_transfer_response, payload);
        break;
    case BOP_WIRE_KIND_CLUSTER_PARAMS_REQUEST:
        FUZZ_ROUND_TRIP_AS(bop_admin_params, bop_admin_params_request_decode,
                           bop_admin_params_request_encode, payload);
        break;
    case BOP_WIRE_KIND_CLUSTER_PARAMS_RESPONSE:
        FUZZ_ROUND_TRIP_AS(bop_admin_params, bop_admin_params_response_decode,
                           bop_admin_params_response_encode, payload);
        break;
    case BOP_WIRE_KIND_BACKUP_REQUEST:
        FUZZ_ROUND_TRIP(backup_request, payload);
        break;
    case BOP_WIRE_KIND_BACKUP_RESPONSE:
        FUZZ_ROUND_TRIP(backup_response, payload);
        break;
    case BOP_WIRE_KIND_BACKUP_READ_REQUEST:
        FUZZ_ROUND_TRIP(backup_read_request, payload);
        break;
    case BOP_WIRE_KIND_BACKUP_READ_RESPONSE:
        FUZZ_ROUND_TRIP(backup_read_response, payload);
        break;
    default:
        break;
    }
}

static void watch_payload_of(uint16_t kind, struct bop_slice payload)
{
    struct bop_view_read_request read;

    switch (kind) {
    case BOP_WIRE_KIND_WATCH_OPEN_REQUEST:
        FUZZ_ROUND_TRIP(watch_open_request, payload);
        break;
    case BOP_WIRE_KIND_WATCH_OPEN_RESPONSE:
        FUZZ_ROUND_TRIP(watch_open_response, payload);
        break;
    case BOP_WIRE_KIND_WATCH_CLOSE_REQUEST:
        FUZZ_ROUND_TRIP(watch_close_request, payload);
        break;
    case BOP_WIRE_KIND_WATCH_EVENTS:
        FUZZ_ROUND_TRIP(watch_events, payload);
        events(payload);
        break;
    case BOP_WIRE_KIND_WATCH_ACK:
        FUZZ_ROUND_TRIP(watch_ack, payload);
        break;
    case BOP_WIRE_KIND_VIEW_OPEN_RESPONSE:
        FUZZ_ROUND_TRIP(view_open_response, payload);
        break;
    case BOP_WIRE_KIND_VIEW_READ_REQUEST:
        FUZZ_ROUND_TRIP(view_read_request, payload);
        if (bop_view_read_request_decode(payload, &read) == 0) {
            operation(read.operation);
        }
        break;
    case BOP_WIRE_KIND_VIEW_CLOSE_REQUEST:
        FUZZ_ROUND_TRIP(view_close_request, payload);
        break;
    case BOP_WIRE_KIND_VIEW_READ_RESPONSE:
        reply(payload);
        break;
    case BOP_WIRE_KIND_WATCH_CLOSE_RESPONSE:
    case BOP_WIRE_KIND_VIEW_CLOSE_RESPONSE:
        status_only(payload);
        break;
    case BOP_WIRE_KIND_WATCH_SETTLE_REQUEST:
        FUZZ_ROUND_TRIP(watch_settle_request, payload);
        break;
    case BOP_WIRE_KIND_WATCH_SETTLE_RESPONSE:
        FUZZ_ROUND_TRIP(watch_settle_response, payload);
        break;
    default:
        admin_payload_of(kind, payload);
        break;
    }
}

static void payload_of(uint16_t kind, struct bop_slice payload)
{
    struct bop_write_request write;
    struct bop_read_request read;

    BOP_IGNORE(bop_wire_check(kind, payload)); /* Either answer will do. */
    switch (kind) {
    case BOP_WIRE_KIND_HELLO_REQUEST:
        FUZZ_ROUND_TRIP(hello_request, payload);
        break;
    case BOP_WIRE_KIND_HELLO_RESPONSE:
        FUZZ_ROUND_TRIP(hello_response, payload);
        break;
    case BOP_WIRE_KIND_SESSION_OPEN_REQUEST:
        FUZZ_ROUND_TRIP(session_open_request, payload);
        break;
    case BOP_WIRE_KIND_SESSION_OPEN_RESPONSE:
        FUZZ_ROUND_TRIP(session_open_response, payload);
        break;
    case BOP_WIRE_KIND_SESSION_START_REQUEST:
        FUZZ_ROUND_TRIP(session_start_request, payload);
        break;
    case BOP_WIRE_KIND_SESSION_START_RESPONSE:
        FUZZ_ROUND_TRIP(session_start_response, payload);
        break;
    case BOP_WIRE_KIND_SESSION_RESUME_REQUEST:
    case BOP_WIRE_KIND_SESSION_CLOSE_REQUEST:
        FUZZ_ROUND_TRIP(session_request, payload);
        break;
    case BOP_WIRE_KIND_SESSION_ALIVE_REQUEST:
        session_alive(payload);
        break;
    case BOP_WIRE_KIND_SESSION_RESUME_RESPONSE:
    case BOP_WIRE_KIND_SESSION_CLOSE_RESPONSE:
    case BOP_WIRE_KIND_SESSION_ALIVE_RESPONSE:
    case BOP_WIRE_KIND_AUTH_RESPONSE:
        status_only(payload);
        break;
    case BOP_WIRE_KIND_WRITE_REQUEST:
        FUZZ_ROUND_TRIP(write_request, payload);
        if (bop_write_request_decode(payload, &write) == 0) {
            operation(write.operation);
        }
        break;
    case BOP_WIRE_KIND_READ_REQUEST:
        FUZZ_ROUND_TRIP(read_request, payload);
        if (bop_read_request_decode(payload, &read) == 0) {
            operation(read.operation);
        }
        break;
    case BOP_WIRE_KIND_WRITE_RESPONSE:
    case BOP_WIRE_KIND_READ_RESPONSE:
        reply(payload);
        break;
    case BOP_WIRE_KIND_STATUS_RESPONSE:
        FUZZ_ROUND_TRIP(status_response, payload);
        break;
    default:
        watch_payload_of(kind, payload);
        break;
    }
}

/* ---- streams ---- */

static void stream(struct bop_slice bytes, size_t frame_max)
{
    struct bop_wire_frame frame;
    struct bop_error err;
    size_t used, at;

    while (bop_wire_parse(bytes, frame_max, &frame, &used, &err) == 0) {
        require(used >= BOP_WIRE_HEADER && used <= bytes.size);
        require(used == BOP_WIRE_HEADER + frame.payload.size);
        require(bop_wire_kind_name(frame.kind) != NULL);
        fuzz_clear();
        require(bop_wire_begin(&fuzz_scratch, &at) == 0);
        require(bop_buf_append(&fuzz_scratch, frame.payload.data, frame.payload.size) == 0);
        bop_wire_end(&fuzz_scratch, at, (enum bop_wire_kind)frame.kind, frame.flags, frame.request);
        require(bop_slice_equal(bop_buf_slice(&fuzz_scratch), bop_slice(bytes.data, used)));
        payload_of(frame.kind, frame.payload);
        bytes = bop_slice(bytes.data + used, bytes.size - used);
    }
}

/* Make the first frame whole: what follows a header of 16 bytes is its payload. */
static void repaired(struct bop_slice bytes)
{
    struct bop_buf frame;
    size_t at;

    if (bytes.size < BOP_WIRE_HEADER) {
        return;
    }
    bop_buf_init(&frame, NULL, 0);
    require(bop_wire_begin(&frame, &at) == 0);
    require(bop_buf_append(&frame, bytes.data + BOP_WIRE_HEADER, bytes.size - BOP_WIRE_HEADER) ==
            0);
    bop_wire_end(&frame, at, (enum bop_wire_kind)bop_load_u16(bytes.data + 10), bytes.data[9],
                 bop_load_u32(bytes.data + 12));
    stream(bop_buf_slice(&frame), 0);
    bop_buf_deinit(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_slice bytes = bop_slice(data, size);

    stream(bytes, 0);
    stream(bytes, 64);
    repaired(bytes);
    if (size > 2) {
        payload_of(bop_load_u16(data), bop_slice(data + 2, size - 2));
        operation(bop_slice(data + 2, size - 2));
    }
    return 0;
}
