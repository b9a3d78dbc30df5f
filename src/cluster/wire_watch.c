/*
 * The messages of watches and views, field by field in the order on the wire.
 * The rules are those of wire_messages.c.
 */
#include <bop/watch.h>

#define OPEN_FLAGS                                                                                 \
    (BOP_WATCH_PREVIOUS | BOP_WATCH_SNAPSHOT | BOP_WATCH_PROGRESS | BOP_WATCH_ACKNOWLEDGE)
#define EVENTS_FLAGS 0x3f

static int finish(const struct bop_reader *reader)
{
    return bop_reader_done(reader) ? 0 : BOP_EMALFORMED;
}

/* ---- Watches ---- */

static bool names_one(uint8_t what)
{
    return what != BOP_WATCH_SESSION && what != BOP_WATCH_NAMES;
}

static bool makes_sense(const struct bop_watch_open_request *message)
{
    return message->what >= BOP_WATCH_MAP && message->what <= BOP_WATCH_WHAT_MAX &&
           (message->name.size > 0) == names_one(message->what) &&
           message->name.size <= BOP_NAME_MAX && message->prefix.size <= BOP_KEY_MAX &&
           message->from.size <= BOP_KEY_MAX && message->to.size <= BOP_KEY_MAX + 1 &&
           (message->flags & ~OPEN_FLAGS) == 0;
}

int bop_watch_open_request_decode(struct bop_slice payload, struct bop_watch_open_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_watch_open_request message = {0};

    message.what = bop_read_u8(&reader);
    message.name = bop_read_string(&reader);
    message.prefix = bop_read_bytes(&reader);
    message.from = bop_read_bytes(&reader);
    message.to = bop_read_bytes(&reader);
    message.flags = bop_read_u8(&reader);
    message.revision = bop_read_u64(&reader);
    if (finish(&reader) < 0 || !makes_sense(&message)) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_watch_open_request_encode(struct bop_writer *writer,
                                   const struct bop_watch_open_request *in)
{
    bop_write_u8(writer, in->what);
    bop_write_bytes(writer, in->name);
    bop_write_bytes(writer, in->prefix);
    bop_write_bytes(writer, in->from);
    bop_write_bytes(writer, in->to);
    bop_write_u8(writer, in->flags);
    bop_write_u64(writer, in->revision);
}

int bop_watch_open_response_decode(struct bop_slice payload, struct bop_watch_open_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_watch_open_response message = {0};

    message.status = bop_read_u8(&reader);
    message.revision = bop_read_u64(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_watch_open_response_encode(struct bop_writer *writer,
                                    const struct bop_watch_open_response *in)
{
    bop_write_u8(writer, in->status);
    bop_write_u64(writer, in->revision);
}

int bop_watch_close_request_decode(struct bop_slice payload, struct bop_watch_close_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_watch_close_request message = {.watch = bop_read_u32(&reader)};

    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_watch_close_request_encode(struct bop_writer *writer,
                                    const struct bop_watch_close_request *in)
{
    bop_write_u32(writer, in->watch);
}

int bop_watch_events_decode(struct bop_slice payload, struct bop_watch_events *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_watch_events message = {0};
    struct bop_slice rest;
    struct bop_event event;
    int rc;

    message.revision = bop_read_u64(&reader);
    message.flags = bop_read_u8(&reader);
    message.events = bop_read_raw(&reader, bop_reader_left(&reader));
    if (finish(&reader) < 0 || (message.flags & ~EVENTS_FLAGS) != 0) {
        return BOP_EMALFORMED;
    }
    rest = message.events;
    do {
        rc = bop_event_next(&rest, &event);
    } while (rc > 0);
    if (rc < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_watch_events_encode(struct bop_writer *writer, const struct bop_watch_events *in)
{
    bop_write_u64(writer, in->revision);
    bop_write_u8(writer, in->flags);
    bop_write_raw(writer, in->events);
}

int bop_watch_ack_decode(struct bop_slice payload, struct bop_watch_ack *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_watch_ack message = {0};

    message.revision = bop_read_u64(&reader);
    message.flags = bop_read_u8(&reader);
    if (finish(&reader) < 0 || (message.flags & ~BOP_WATCH_ACK_MARK) != 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_watch_ack_encode(struct bop_writer *writer, const struct bop_watch_ack *in)
{
    bop_write_u64(writer, in->revision);
    bop_write_u8(writer, in->flags);
}

/* ---- Views ---- */

int bop_view_open_response_decode(struct bop_slice payload, struct bop_view_open_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_view_open_response message = {0};

    message.status = bop_read_u8(&reader);
    message.view = bop_read_u64(&reader);
    message.revision = bop_read_u64(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_view_open_response_encode(struct bop_writer *writer,
                                   const struct bop_view_open_response *in)
{
    bop_write_u8(writer, in->status);
    bop_write_u64(writer, in->view);
    bop_write_u64(writer, in->revision);
}

int bop_view_read_request_decode(struct bop_slice payload, struct bop_view_read_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_view_read_request message = {0};

    message.view = bop_read_u64(&reader);
    message.operation = bop_read_raw(&reader, bop_reader_left(&reader));
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_view_read_request_encode(struct bop_writer *writer, const struct bop_view_read_request *in)
{
    bop_write_u64(writer, in->view);
    bop_write_raw(writer, in->operation);
}

int bop_view_close_request_decode(struct bop_slice payload, struct bop_view_close_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_view_close_request message = {.view = bop_read_u64(&reader)};

    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_view_close_request_encode(struct bop_writer *writer,
                                   const struct bop_view_close_request *in)
{
    bop_write_u64(writer, in->view);
}

/* ---- Settling ---- */

int bop_watch_settle_request_decode(struct bop_slice payload, struct bop_watch_settle_request *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_watch_settle_request message = {0};

    message.what = bop_read_u8(&reader);
    message.name = bop_read_string(&reader);
    message.key = bop_read_bytes(&reader);
    message.timeout_ms = bop_read_u32(&reader);
    if (finish(&reader) < 0 || message.what < BOP_WATCH_MAP || message.what > BOP_WATCH_WHAT_MAX ||
        (message.name.size > 0) != names_one(message.what) || message.name.size > BOP_NAME_MAX ||
        message.key.size > BOP_KEY_MAX) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_watch_settle_request_encode(struct bop_writer *writer,
                                     const struct bop_watch_settle_request *in)
{
    bop_write_u8(writer, in->what);
    bop_write_bytes(writer, in->name);
    bop_write_bytes(writer, in->key);
    bop_write_u32(writer, in->timeout_ms);
}

int bop_watch_settle_response_decode(struct bop_slice payload,
                                     struct bop_watch_settle_response *out)
{
    struct bop_reader reader = bop_reader(payload);
    struct bop_watch_settle_response message = {0};

    message.status = bop_read_u8(&reader);
    message.complete = bop_read_bool(&reader);
    if (finish(&reader) < 0) {
        return BOP_EMALFORMED;
    }
    *out = message;
    return 0;
}

void bop_watch_settle_response_encode(struct bop_writer *writer,
                                      const struct bop_watch_settle_response *in)
{
    bop_write_u8(writer, in->status);
    bop_write_u8(writer, in->complete);
}
