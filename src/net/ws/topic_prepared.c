/*
 * Prepared messages: framed, and compressed if it pays, once for all who get them.
 */
#include "topic.h"

#include <bop/error.h>
#include <bop/mem.h>

#include "conn.h"

/* As a server of ours compresses unless told otherwise. */
#define WINDOW_BITS 15
#define LEVEL       6

static void free_prepared(struct bop_shared *plain)
{
    struct bop_ws_prepared *prepared = BOP_CONTAINER_OF(plain, struct bop_ws_prepared, plain);

    bop_shared_unref(prepared->deflated);
    bop_free(prepared->allocator, prepared, prepared->bytes);
}

/* The compressed frame, or NULL: it got no smaller, or there is no memory. */
static struct bop_shared *deflate(struct bop_allocator *allocator, unsigned opcode,
                                  struct bop_slice message)
{
    struct bop_ws_zip_options options = {.allocator = allocator, .level = LEVEL, .spare_max = 1};
    struct bop_ws_zip_stream stream = bop__ws_fresh_stream(WINDOW_BITS);
    struct bop_shared *frame = NULL;
    struct bop_ws_zip *zip;
    uint8_t header[BOP_WS_HEADER_MAX];
    struct bop_buf bytes;
    size_t size;

    if (bop_ws_zip_create(&options, &zip) != 0) {
        return NULL;
    }
    bop_buf_init(&bytes, allocator, 0);
    if (bop_ws_deflate(zip, &stream, message, true, &bytes) == 0) {
        size = bop_ws_header(header, BOP_WS_FIN | BOP_WS_COMPRESSED | opcode, bytes.size, NULL);
        frame = bop_shared_create(allocator, size + bytes.size);
        if (frame != NULL) {
            memcpy(frame->data, header, size);
            memcpy(frame->data + size, bytes.data, bytes.size);
        }
    }
    bop_buf_deinit(&bytes);
    bop_ws_zip_stream_deinit(zip, &stream);
    bop_ws_zip_destroy(zip);
    return frame;
}

struct bop_ws_prepared *bop_ws_prepare(enum bop_ws_opcode opcode, struct bop_slice message,
                                       bool compress)
{
    struct bop_allocator *allocator = bop_tag("net.topics");
    uint8_t header[BOP_WS_HEADER_MAX];
    size_t header_size = bop_ws_header(header, BOP_WS_FIN | opcode, message.size, NULL);
    size_t bytes = sizeof(struct bop_ws_prepared) + header_size + message.size;
    struct bop_ws_prepared *prepared;

    if (opcode != BOP_WS_TEXT && opcode != BOP_WS_BINARY) {
        return NULL;
    }
    prepared = (struct bop_ws_prepared *)bop_alloc_zeroed(allocator, bytes);
    if (prepared == NULL) {
        return NULL;
    }
    prepared->allocator = allocator;
    prepared->bytes = bytes;
    prepared->header_size = header_size;
    prepared->opcode = (uint8_t)opcode;
    memcpy(prepared->data, header, header_size);
    if (message.size > 0) {
        memcpy(prepared->data + header_size, message.data, message.size);
    }
    bop_shared_init(&prepared->plain, prepared->data, header_size + message.size, free_prepared);
    prepared->deflated = compress ? deflate(allocator, opcode, message) : NULL;
    return prepared;
}

void bop_ws_prepared_unref(struct bop_ws_prepared *prepared)
{
    if (prepared != NULL) {
        bop_shared_unref(&prepared->plain);
    }
}

struct bop_shared *bop__prepared_frame(struct bop_ws_prepared *prepared, const struct bop__ws *ws)
{
    bool reads_it = ws->deflate && !ws->send_takeover && ws->send_bits == WINDOW_BITS;

    return prepared->deflated != NULL && reads_it ? prepared->deflated : &prepared->plain;
}

int bop_ws_send_prepared(struct bop_ws *handle, struct bop_ws_prepared *prepared)
{
    struct bop__ws *ws = bop__ws_of(handle);
    struct bop_shared *frame;
    int rc;

    if (ws == NULL || ws->state != BOP__WS_OPEN) {
        return BOP_ECLOSED;
    }
    if (ws->client) {
        return BOP_EUNSUPPORTED;
    }
    if (ws->in_parts) {
        return BOP_EBUSY;
    }
    if (bop__ws_is_slow(ws)) {
        return BOP_EFULL;
    }
    frame = bop__prepared_frame(prepared, ws);
    rc = bop__socket_write_shared(bop__ws_sock(ws), frame, 0, frame->size);
    if (rc != 0) {
        return rc;
    }
    ws->group->counters->messages_sent++;
    return bop__ws_pressure(ws);
}
