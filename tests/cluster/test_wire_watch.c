/*
 * Messages of watches and views: golden payloads decode to these values and encode
 * to the same bytes; everything near them is refused.
 */
#include <bop/watch.h>

#include "wire_golden.h"

#define VIEW UINT64_C(0x1122334455667788)

TEST(wire_watch, open_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_WATCH_OPEN_REQUEST);
    struct bop_watch_open_request message;

    REQUIRE_EQ(bop_watch_open_request_decode(payload, &message), 0);
    CHECK_EQ(message.what, BOP_WATCH_MAP);
    CHECK_SLICE_EQ(message.name, bytes("m"));
    CHECK_SLICE_EQ(message.prefix, bytes("p"));
    CHECK_SLICE_EQ(message.from, bytes("pa"));
    CHECK_SLICE_EQ(message.to, bytes("pz"));
    CHECK_EQ(message.flags, BOP_WATCH_PREVIOUS | BOP_WATCH_PROGRESS);
    CHECK_EQ(message.revision, 100);
    bop_watch_open_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(watch_open_request, payload);
}

/* Whether a request with these fields is taken. */
static bool is_taken(struct fixture *f, const struct bop_watch_open_request *message)
{
    struct bop_watch_open_request decoded;

    bop_buf_clear(&f->buf);
    bop_watch_open_request_encode(&f->writer, message);
    return bop_watch_open_request_decode(bop_buf_slice(&f->buf), &decoded) == 0;
}

TEST(wire_watch, open_requests_make_sense)
{
    static char text[BOP_KEY_MAX + 2];
    struct bop_watch_open_request message = {.what = BOP_WATCH_MAP, .name = bytes("m")};

    memset(text, 'x', sizeof(text));
    CHECK(is_taken(f, &message));
    message.what = 0;
    CHECK(!is_taken(f, &message));
    message.what = BOP_WATCH_WHAT_MAX + 1;
    CHECK(!is_taken(f, &message));
    message.what = BOP_WATCH_SESSION; /* Has no name. */
    CHECK(!is_taken(f, &message));
    message.name = bytes("");
    CHECK(is_taken(f, &message));
    message.what = BOP_WATCH_LOCK; /* Has one. */
    CHECK(!is_taken(f, &message));
    message.name = bop_slice(text, BOP_NAME_MAX + 1);
    CHECK(!is_taken(f, &message));
    message.name = bop_slice(text, BOP_NAME_MAX);
    CHECK(is_taken(f, &message));
    message.flags = 16;
    CHECK(!is_taken(f, &message));
    message.flags = 15;
    message.from = bop_slice(text, BOP_KEY_MAX);
    message.to = bop_slice(text, BOP_KEY_MAX + 1); /* Of the longest key. */
    CHECK(is_taken(f, &message));
    message.to.size++;
    CHECK(!is_taken(f, &message));
    message.to.size = 0;
    message.from.size++;
    CHECK(!is_taken(f, &message));
    message.from.size = 0;
    message.prefix = bop_slice(text, BOP_KEY_MAX + 1);
    CHECK(!is_taken(f, &message));
}

TEST(wire_watch, open_response)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_WATCH_OPEN_RESPONSE);
    struct bop_watch_open_response message;

    REQUIRE_EQ(bop_watch_open_response_decode(payload, &message), 0);
    CHECK_EQ(message.status, BOP_STATUS_OK);
    CHECK_EQ(message.revision, 100);
    bop_watch_open_response_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(watch_open_response, payload);
}

TEST(wire_watch, close_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_WATCH_CLOSE_REQUEST);
    struct bop_watch_close_request message;

    REQUIRE_EQ(bop_watch_close_request_decode(payload, &message), 0);
    CHECK_EQ(message.watch, 7);
    bop_watch_close_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(watch_close_request, payload);
}

TEST(wire_watch, events)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_WATCH_EVENTS);
    struct bop_watch_events message;
    struct bop_event event;
    struct bop_slice rest;

    REQUIRE_EQ(bop_watch_events_decode(payload, &message), 0);
    CHECK_EQ(message.revision, 101);
    CHECK_EQ(message.flags, 0);
    rest = message.events;
    REQUIRE_EQ(bop_event_next(&rest, &event), 1);
    CHECK_EQ(event.type, BOP_EVENT_MAP_PUT);
    CHECK_EQ(event.flags, BOP_EVENT_HAD_PREVIOUS);
    CHECK_SLICE_EQ(event.name, bytes("m"));
    CHECK_SLICE_EQ(event.key, bytes("pb"));
    CHECK_SLICE_EQ(event.value, bytes("new"));
    CHECK_SLICE_EQ(event.previous, bytes("old"));
    REQUIRE_EQ(bop_event_next(&rest, &event), 1);
    CHECK_EQ(event.type, BOP_EVENT_MAP_DELETE);
    CHECK_EQ(event.flags, BOP_EVENT_HAD_PREVIOUS | BOP_EVENT_NO_PREVIOUS);
    CHECK_SLICE_EQ(event.key, bytes("pc"));
    CHECK_EQ(bop_event_next(&rest, &event), 0);
    bop_watch_events_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    CHECK_EQ(bop_watch_events_decode(bop_slice(payload.data, payload.size - 1), &message),
             BOP_EMALFORMED);
    CHECK_EQ(bop_watch_events_decode(bop_slice(payload.data, 8), &message), BOP_EMALFORMED);
    f->bytes[BOP_WIRE_HEADER + 8] = 0x40; /* A flag that means nothing. */
    CHECK_EQ(bop_watch_events_decode(payload, &message), BOP_EMALFORMED);
}

TEST(wire_watch, ack)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_WATCH_ACK);
    struct bop_watch_ack message;

    REQUIRE_EQ(bop_watch_ack_decode(payload, &message), 0);
    CHECK_EQ(message.revision, 101);
    CHECK_EQ(message.flags, BOP_WATCH_ACK_MARK);
    bop_watch_ack_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(watch_ack, payload);
}

TEST(wire_watch, view_open_response)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_VIEW_OPEN_RESPONSE);
    struct bop_view_open_response message;

    REQUIRE_EQ(bop_view_open_response_decode(payload, &message), 0);
    CHECK_EQ(message.status, BOP_STATUS_OK);
    CHECK_EQ(message.view, VIEW);
    CHECK_EQ(message.revision, 100);
    bop_view_open_response_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(view_open_response, payload);
}

TEST(wire_watch, view_read_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_VIEW_READ_REQUEST);
    struct bop_view_read_request message;
    struct bop_operation operation;

    REQUIRE_EQ(bop_view_read_request_decode(payload, &message), 0);
    CHECK_EQ(message.view, VIEW);
    REQUIRE_EQ(bop_operation_decode(message.operation, &operation), 0);
    CHECK_EQ(operation.op, BOP_OP_MAP_GET);
    bop_view_read_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    CHECK_EQ(bop_view_read_request_decode(bop_slice(payload.data, 7), &message), BOP_EMALFORMED);
}

TEST(wire_watch, view_close_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_VIEW_CLOSE_REQUEST);
    struct bop_view_close_request message;

    REQUIRE_EQ(bop_view_close_request_decode(payload, &message), 0);
    CHECK_EQ(message.view, VIEW);
    bop_view_close_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(view_close_request, payload);
}

TEST(wire_watch, settle_request)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_WATCH_SETTLE_REQUEST);
    struct bop_watch_settle_request message;

    REQUIRE_EQ(bop_watch_settle_request_decode(payload, &message), 0);
    CHECK_EQ(message.what, BOP_WATCH_REGISTRY);
    CHECK_SLICE_EQ(message.name, bytes("r"));
    CHECK_SLICE_EQ(message.key, bytes("a"));
    CHECK_EQ(message.timeout_ms, 2000);
    bop_watch_settle_request_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(watch_settle_request, payload);
    bop_buf_clear(&f->buf);
    message.what = BOP_WATCH_SESSION; /* Has no name. */
    bop_watch_settle_request_encode(&f->writer, &message);
    CHECK_EQ(bop_watch_settle_request_decode(bop_buf_slice(&f->buf), &message), BOP_EMALFORMED);
}

TEST(wire_watch, settle_response)
{
    struct bop_slice payload = golden(f, BOP_WIRE_KIND_WATCH_SETTLE_RESPONSE);
    struct bop_watch_settle_response message;

    REQUIRE_EQ(bop_watch_settle_response_decode(payload, &message), 0);
    CHECK_EQ(message.status, BOP_STATUS_OK);
    CHECK(message.complete);
    bop_watch_settle_response_encode(&f->writer, &message);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), payload);
    REFUSES_ALL_BUT(watch_settle_response, payload);
}
