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
#include <stdlib.h>

#include <bop/backup.h>
#include <bop/watch.h>
#include <bop/wire.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static struct bop_buf scratch;

/* ---- decode, encode, compare ---- */

#define ROUND_TRIP(name, payload)                                                                  \
    do {                                                                                           \
        struct bop_##name message_;                                                                \
        struct bop_writer writer_ = bop_writer(&scratch);                                          \
        bop_buf_clear(&scratch);                                                                   \
        if (bop_##name##_decode(payload, &message_) == 0) {                                        \
            bop_##name##_encode(&writer_, &message_);                                              \
            require(writer_.code == 0 && bop_slice_equal(bop_buf_slice(&scratch), payload));       \
        }                                                                                          \
    } while (0)

static void result(enum bop_op op, uint8_t status, struct bop_slice bytes)
{
    struct bop_writer writer = bop_writer(&scratch);
    struct bop_result res;
    struct bop_scan_entry entry;
    uint32_t count = 0;

    if (bop_result_decode(op, status, bytes, &res) < 0) {
        return;
    }
    if (status == BOP_STATUS_OK || status == BOP_STATUS_CONDITION) {
        bop_buf_clear(&scratch);
        bop_result_encode(&writer, op, &res);
        require(writer.code == 0 && bop_slice_equal(bop_buf_slice(&scratch), bytes));
    }
    for (struct bop_slice rest = res.entries; bop_scan_next(&rest, &entry);) {
        count++;
    }
    require(count == res.count);
}

static void operation(struct bop_slice bytes)
{
    ROUND_TRIP(operation, bytes);
}

static void reply(struct bop_slice payload)
{
    static const enum bop_op ops[] = {
        BOP_OP_MAP_PUT,         BOP_OP_MAP_DELETE,       BOP_OP_MAP_CREATE,
        BOP_OP_COUNTER_ADD,     BOP_OP_COUNTER_CREATE,   BOP_OP_MAP_GET,
        BOP_OP_MAP_SIZE,        BOP_OP_MAP_SCAN,         BOP_OP_COUNTER_GET,
        BOP_OP_SET_ADD,         BOP_OP_SET_CONTAINS,     BOP_OP_SET_SIZE,
        BOP_OP_SET_SCAN,        BOP_OP_SET_CLEAR,        BOP_OP_MAP_RANGE,
        BOP_OP_COUNTER_CAS,     BOP_OP_COUNTER_SET,      BOP_OP_MULTIMAP_PUT,
        BOP_OP_MULTIMAP_REMOVE, BOP_OP_MULTIMAP_GET,     BOP_OP_MULTIMAP_CONTAINS_KEY,
        BOP_OP_MULTIMAP_KEYS,   BOP_OP_MULTIMAP_ENTRIES,
    };
    struct bop_reply message;

    ROUND_TRIP(reply, payload);
    if (bop_reply_decode(payload, &message) < 0) {
        return;
    }
    for (size_t i = 0; i < BOP_COUNT_OF(ops); i++) {
        result(ops[i], message.status, message.result);
    }
    require(bop_status_text(message.status) != NULL);
    BOP_IGNORE(bop_status_code(message.status)); /* Any code will do. */
}

/* The events of a frame, one by one, are its bytes again. */
static void events(struct bop_slice payload)
{
    struct bop_writer writer = bop_writer(&scratch);
    struct bop_watch_events message;
    struct bop_event event;

    if (bop_watch_events_decode(payload, &message) < 0) {
        return;
    }
    bop_buf_clear(&scratch);
    for (struct bop_slice rest = message.events; bop_event_next(&rest, &event) > 0;) {
        bop_event_encode(&writer, &event);
    }
    require(writer.code == 0 && bop_slice_equal(bop_buf_slice(&scratch), message.events));
}

static void session_alive(struct bop_slice payload)
{
    struct bop_writer writer = bop_writer(&scratch);
    uint64_t session;

    if (bop_session_alive_request_decode(payload, &session) < 0) {
        return;
    }
    bop_buf_clear(&scratch);
    bop_session_alive_request_encode(&writer, session);
    require(writer.code == 0 && bop_slice_equal(bop_buf_slice(&scratch), payload));
}

static void watch_payload_of(uint16_t kind, struct bop_slice payload)
{
    struct bop_view_read_request read;

    switch (kind) {
    case BOP_WIRE_KIND_WATCH_OPEN_REQUEST:
        ROUND_TRIP(watch_open_request, payload);
        break;
    case BOP_WIRE_KIND_WATCH_OPEN_RESPONSE:
        ROUND_TRIP(watch_open_response, payload);
        break;
    case BOP_WIRE_KIND_WATCH_CLOSE_REQUEST:
        ROUND_TRIP(watch_close_request, payload);
        break;
    case BOP_WIRE_KIND_WATCH_EVENTS:
        ROUND_TRIP(watch_events, payload);
        events(payload);
        break;
    case BOP_WIRE_KIND_WATCH_ACK:
        ROUND_TRIP(watch_ack, payload);
        break;
    case BOP_WIRE_KIND_VIEW_OPEN_RESPONSE:
        ROUND_TRIP(view_open_response, payload);
        break;
    case BOP_WIRE_KIND_VIEW_READ_REQUEST:
        ROUND_TRIP(view_read_request, payload);
        if (bop_view_read_request_decode(payload, &read) == 0) {
            operation(read.operation);
        }
        break;
    case BOP_WIRE_KIND_VIEW_CLOSE_REQUEST:
        ROUND_TRIP(view_close_request, payload);
        break;
    case BOP_WIRE_KIND_VIEW_READ_RESPONSE:
        reply(payload);
        break;
    case BOP_WIRE_KIND_BACKUP_REQUEST:
        ROUND_TRIP(backup_request, payload);
        break;
    case BOP_WIRE_KIND_BACKUP_RESPONSE:
        ROUND_TRIP(backup_response, payload);
        break;
    case BOP_WIRE_KIND_BACKUP_READ_REQUEST:
        ROUND_TRIP(backup_read_request, payload);
        break;
    case BOP_WIRE_KIND_BACKUP_READ_RESPONSE:
        ROUND_TRIP(backup_read_response, payload);
        break;
    default:
        break;
    }
}

static void payload_of(uint16_t kind, struct bop_slice payload)
{
    struct bop_write_request write;
    struct bop_read_request read;
    uint8_t status;

    BOP_IGNORE(bop_wire_check(kind, payload)); /* Either answer will do. */
    switch (kind) {
    case BOP_WIRE_KIND_HELLO_REQUEST:
        ROUND_TRIP(hello_request, payload);
        break;
    case BOP_WIRE_KIND_HELLO_RESPONSE:
        ROUND_TRIP(hello_response, payload);
        break;
    case BOP_WIRE_KIND_SESSION_OPEN_REQUEST:
        ROUND_TRIP(session_open_request, payload);
        break;
    case BOP_WIRE_KIND_SESSION_OPEN_RESPONSE:
        ROUND_TRIP(session_open_response, payload);
        break;
    case BOP_WIRE_KIND_SESSION_START_REQUEST:
        ROUND_TRIP(session_start_request, payload);
        break;
    case BOP_WIRE_KIND_SESSION_START_RESPONSE:
        ROUND_TRIP(session_start_response, payload);
        break;
    case BOP_WIRE_KIND_SESSION_RESUME_REQUEST:
    case BOP_WIRE_KIND_SESSION_CLOSE_REQUEST:
        ROUND_TRIP(session_request, payload);
        break;
    case BOP_WIRE_KIND_SESSION_ALIVE_REQUEST:
        session_alive(payload);
        break;
    case BOP_WIRE_KIND_SESSION_RESUME_RESPONSE:
    case BOP_WIRE_KIND_SESSION_CLOSE_RESPONSE:
    case BOP_WIRE_KIND_SESSION_ALIVE_RESPONSE:
    case BOP_WIRE_KIND_AUTH_RESPONSE:
        require(bop_session_status_decode(payload, &status) < 0 || payload.size == 1);
        break;
    case BOP_WIRE_KIND_WRITE_REQUEST:
        ROUND_TRIP(write_request, payload);
        if (bop_write_request_decode(payload, &write) == 0) {
            operation(write.operation);
        }
        break;
    case BOP_WIRE_KIND_READ_REQUEST:
        ROUND_TRIP(read_request, payload);
        if (bop_read_request_decode(payload, &read) == 0) {
            operation(read.operation);
        }
        break;
    case BOP_WIRE_KIND_WRITE_RESPONSE:
    case BOP_WIRE_KIND_READ_RESPONSE:
        reply(payload);
        break;
    case BOP_WIRE_KIND_STATUS_RESPONSE:
        ROUND_TRIP(status_response, payload);
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
        bop_buf_clear(&scratch);
        require(bop_wire_begin(&scratch, &at) == 0);
        require(bop_buf_append(&scratch, frame.payload.data, frame.payload.size) == 0);
        bop_wire_end(&scratch, at, (enum bop_wire_kind)frame.kind, frame.flags, frame.request);
        require(bop_slice_equal(bop_buf_slice(&scratch), bop_slice(bytes.data, used)));
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

    if (!scratch.allocator) {
        bop_buf_init(&scratch, NULL, 0);
    }
    stream(bytes, 0);
    stream(bytes, 64);
    repaired(bytes);
    if (size > 2) {
        payload_of(bop_load_u16(data), bop_slice(data + 2, size - 2));
        operation(bop_slice(data + 2, size - 2));
    }
    return 0;
}
