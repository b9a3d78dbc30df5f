/*
 * Inflating messages (RFC 7692, section 7.2.2).
 *
 * zlib inflates what comes in pieces, into memory that grows with what comes out, and never by
 * more than a byte past the limit: a message of a few bytes that would inflate to gigabytes stops
 * there. A message is whole when, after the end its sender left out, zlib stands between two
 * blocks. Blocks marked final are fine anywhere: after one, zlib begins anew and keeps its window.
 *
 * A whole message that takes no context over goes through libdeflate, which is faster but wants a
 * final block, and all output at once. So the payload is copied, and after it comes
 *
 *      00 00 ff ff   01 08 00 f7 ff   eight secret bytes
 *
 * the end that was left out, and a final stored block. If the output ends with the secret, and
 * before it not with any of that (a block that was cut short would have swallowed it), then the
 * payload ended where it should. Whenever this is not so, or libdeflate is not content for any
 * reason, zlib inflates the message again and decides. (libdeflate gives a meaning to the few codes
 * that RFC 1951 leaves out, which zlib refuses: such a message passes here, within the limit.)
 */
#include "deflate_internal.h"

#define INFLATE_BITS_MIN 9  /* Old zlibs said 8 and used 9. */
#define ZLIB_BITS_MAX    15 /* For messages without takeover, so that their states fit all. */
#define CHUNK            16384
#define WHOLE_MAX        65536 /* Payload that goes through libdeflate, bytes. */
#define WHOLE_ROOM_MIN   16384
#define WHOLE_RATIO      16 /* Room for the output, in payloads; what needs more goes to zlib. */
#define FINAL_HEAD       5

static const uint8_t final_head[FINAL_HEAD] = {0x01, WS_MAGIC_SIZE, 0x00, 0xff - WS_MAGIC_SIZE,
                                               0xff};

#define WHOLE_TAIL (sizeof(ws_tail) + FINAL_HEAD + WS_MAGIC_SIZE)

/* ---- libdeflate: whole messages ---- */

static int append_tail(struct bop_ws_zip *zip, struct bop_slice piece)
{
    struct bop_buf *whole = &zip->whole;
    int rc = bop_buf_reserve(whole, piece.size + WHOLE_TAIL);

    if (rc != 0) {
        return rc;
    }
    memcpy(whole->data, piece.data, piece.size);
    memcpy(whole->data + piece.size, ws_tail, sizeof(ws_tail));
    memcpy(whole->data + piece.size + sizeof(ws_tail), final_head, FINAL_HEAD);
    memcpy(whole->data + piece.size + sizeof(ws_tail) + FINAL_HEAD, zip->magic, WS_MAGIC_SIZE);
    return 0;
}

static bool ends_with(const uint8_t *out, size_t size, const uint8_t *end, size_t end_size)
{
    return size >= end_size && memcmp(out + size - end_size, end, end_size) == 0;
}

/* Whether the output of libdeflate ends as it should; see above. */
static bool ends_well(const struct bop_ws_zip *zip, const uint8_t *out, size_t size)
{
    if (!ends_with(out, size, zip->magic, WS_MAGIC_SIZE)) {
        return false;
    }
    size -= WS_MAGIC_SIZE;
    return !ends_with(out, size, ws_tail, sizeof(ws_tail)) &&
           !ends_with(out, size, final_head, FINAL_HEAD);
}

/* Returns 0, or 1: ask zlib. */
static int inflate_whole(struct bop_ws_zip *zip, struct bop_slice piece, uint64_t max,
                         struct bop_buf *out)
{
    size_t room = piece.size * WHOLE_RATIO;
    size_t size, taken;

    room = room < WHOLE_ROOM_MIN ? WHOLE_ROOM_MIN : room;
    room = (size_t)bop_min_u64(room, max) + WS_MAGIC_SIZE;
    if (append_tail(zip, piece) != 0 || bop_buf_reserve(out, room) != 0) {
        return 1;
    }
    if (libdeflate_deflate_decompress_ex(zip->decompressor, zip->whole.data,
                                         piece.size + WHOLE_TAIL, out->data + out->size, room,
                                         &taken, &size) != LIBDEFLATE_SUCCESS ||
        taken != piece.size + WHOLE_TAIL) {
        return 1;
    }
    if (!ends_well(zip, out->data + out->size, size)) {
        return 1;
    }
    out->size += size - WS_MAGIC_SIZE;
    return 0;
}

/* ---- zlib: whatever comes ---- */

/* One call of zlib, for at most `more` bytes. */
static int step(struct bop_ws_zip_state *state, struct bop_slice *input, uint64_t max, size_t more,
                struct bop_ws_utf8 *utf8, struct bop_buf *out)
{
    z_stream *z = &state->z;
    size_t room = more < CHUNK ? more : CHUNK, given;
    size_t size = input->size < UINT32_MAX ? input->size : UINT32_MAX;
    bool too_big;
    int rc;

    if (max - state->total < room) { /* One byte more than may be, to see that it comes. */
        room = (size_t)(max - state->total) + 1;
    }
    rc = bop_buf_reserve(out, room);
    if (rc != 0) {
        return rc;
    }
    z->next_in = input->data;
    z->avail_in = (unsigned)size;
    z->next_out = out->data + out->size;
    z->avail_out = (unsigned)room;
    rc = inflate(z, Z_SYNC_FLUSH);
    given = room - z->avail_out;
    size -= z->avail_in;
    if (size > 0) {
        *input = bop_slice(input->data + size, input->size - size);
        state->ended = false;
    }
    too_big = given > max - state->total;
    given -= too_big;
    if (utf8 && !bop_ws_utf8_feed(utf8, bop_slice(out->data + out->size, given))) {
        return -BOP_WS_INVALID;
    }
    if (too_big) {
        return -BOP_WS_TOO_BIG;
    }
    state->total += given;
    out->size += given;
    switch (rc) {
    case Z_OK:
    case Z_BUF_ERROR: /* Nothing to be done: no input, no output pending. */
        return 0;
    case Z_STREAM_END: /* A block marked final: what follows begins at the next byte. */
        state->ended = true;
        return inflateResetKeep(z) == Z_OK ? 0 : -BOP_WS_INTERNAL;
    case Z_MEM_ERROR:
        return BOP_ENOMEM;
    default:
        return -BOP_WS_INVALID;
    }
}

/* The part of the message's end, which its sender left out, that zlib has not seen. A sender whose
 * last block is marked final, with nothing after it, left nothing out. */
static struct bop_slice rest_of_tail(const struct bop_ws_zip_state *state)
{
    bool none = state->ended && state->tail == 0;

    return bop_slice(ws_tail + state->tail, none ? 0 : sizeof(ws_tail) - state->tail);
}

/* The end gives no output, unless it is taken for a part of a block that was cut short. */
static int inflate_tail(struct bop_ws_zip_state *state, struct bop_slice tail, uint64_t max,
                        struct bop_buf *out)
{
    size_t size = out->size;
    int rc = step(state, &tail, max, CHUNK, NULL, out);

    state->tail = (uint8_t)(sizeof(ws_tail) - tail.size);
    if (rc == -BOP_WS_TOO_BIG || out->size != size) {
        out->size = size;
        return -BOP_WS_INVALID;
    }
    return rc;
}

/* All input is inflated: whether the message may end here. zlib's data_type says by 128 that it
 * stands between two blocks. */
static bool is_whole(const struct bop_ws_zip_state *state)
{
    return state->tail == 0 ? state->ended
                            : state->tail == sizeof(ws_tail) && (state->z.data_type & 128) != 0;
}

/* Returns 0 when all input is inflated, else as bop_ws_inflate(). */
static int inflate_piece(struct bop_ws_zip_state *state, struct bop_slice *piece, bool last,
                         uint64_t max, struct bop_ws_utf8 *utf8, size_t more, struct bop_buf *out)
{
    size_t start = out->size;
    int rc = 0;

    while (rc == 0) {
        /* zlib has given all it could if it left room for more. */
        bool all = piece->size == 0 && state->z.avail_out > 0;
        struct bop_slice tail = rest_of_tail(state);

        if (all && (!last || tail.size == 0)) {
            break;
        }
        if (all) {
            rc = inflate_tail(state, tail, max, out);
        } else if (out->size - start >= more) {
            rc = 1;
        } else {
            rc = step(state, piece, max, more - (out->size - start), utf8, out);
        }
    }
    return rc;
}

static int finish(const struct bop_ws_zip_state *state, const struct bop_ws_utf8 *utf8)
{
    return is_whole(state) && (!utf8 || bop_ws_utf8_may_end(utf8)) ? 0 : -BOP_WS_INVALID;
}

/* As bop_ws_inflate(), by zlib. */
static int inflate_stream(struct bop_ws_zip *zip, struct bop_ws_zip_stream *receive,
                          struct bop_slice *piece, bool last, uint64_t max,
                          struct bop_ws_utf8 *utf8, size_t more, struct bop_buf *out)
{
    struct bop_ws_zip_state *state = receive->state;
    unsigned bits = receive->bits < INFLATE_BITS_MIN ? INFLATE_BITS_MIN : receive->bits;
    int rc;

    if (!state) {
        state = bop__ws_zip_take(zip, false, receive->takeover ? bits : ZLIB_BITS_MAX, 0);
        if (!state) {
            return BOP_ENOMEM;
        }
        receive->state = state;
    }
    receive->inside = true;
    rc = inflate_piece(state, piece, last, max, utf8, more, out);
    if (rc != 0 || !last) {
        return rc;
    }
    rc = finish(state, utf8);
    receive->inside = false;
    if (receive->takeover) {
        state->total = 0;
        state->tail = 0;
        state->ended = false;
    } else {
        bop__ws_zip_give(zip, state);
        receive->state = NULL;
    }
    return rc;
}

int bop_ws_inflate(struct bop_ws_zip *zip, struct bop_ws_zip_stream *receive,
                   struct bop_slice *in_out_piece, bool last, uint64_t message_bytes_max,
                   struct bop_ws_utf8 *utf8, size_t out_more, struct bop_buf *out)
{
    if (last && !receive->inside && !receive->takeover && in_out_piece->size > 0 &&
        in_out_piece->size >= zip->whole_min && in_out_piece->size <= WHOLE_MAX &&
        out_more == SIZE_MAX) {
        size_t size_before = out->size;

        if (inflate_whole(zip, *in_out_piece, message_bytes_max, out) == 0) {
            struct bop_slice text = bop_slice(out->data + size_before, out->size - size_before);

            *in_out_piece = bop_slice(in_out_piece->data + in_out_piece->size, 0);
            return !utf8 || (bop_ws_utf8_feed(utf8, text) && bop_ws_utf8_may_end(utf8))
                       ? 0
                       : -BOP_WS_INVALID;
        }
    }
    return inflate_stream(zip, receive, in_out_piece, last, message_bytes_max, utf8, out_more, out);
}
