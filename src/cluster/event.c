/* Events as bytes: include/bop/wire.h. */
#include <bop/wire.h>

#define EVENT_FLAGS                                                                                \
    (BOP_EVENT_HAD_PREVIOUS | BOP_EVENT_EXPIRED | BOP_EVENT_SNAPSHOT | BOP_EVENT_NO_PREVIOUS)

void bop_event_encode(struct bop_writer *writer, const struct bop_event *event)
{
    bop_write_u8(writer, (uint8_t)event->type);
    bop_write_u8(writer, event->flags);
    bop_write_bytes(writer, event->name);
    bop_write_bytes(writer, event->key);
    bop_write_bytes(writer, event->value);
    bop_write_bytes(writer, event->previous);
    bop_write_u64(writer, event->session);
    bop_write_i64(writer, event->number);
    bop_write_u64(writer, event->token);
}

int bop_event_next(struct bop_slice *events, struct bop_event *out_event)
{
    struct bop_reader reader = bop_reader(*events);
    struct bop_event event;

    if (events->size == 0) {
        return 0;
    }
    event.type = (enum bop_event_type)bop_read_u8(&reader);
    event.flags = bop_read_u8(&reader);
    event.name = bop_read_string(&reader);
    event.key = bop_read_bytes(&reader);
    event.value = bop_read_bytes(&reader);
    event.previous = bop_read_bytes(&reader);
    event.session = bop_read_u64(&reader);
    event.number = bop_read_i64(&reader);
    event.token = bop_read_u64(&reader);
    if (reader.failed || event.type == 0 || (event.flags & ~EVENT_FLAGS) != 0) {
        return BOP_EMALFORMED;
    }
    *events = bop_slice(reader.at, bop_reader_left(&reader));
    *out_event = event;
    return 1;
}
