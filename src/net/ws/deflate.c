/*
 * Compressing messages (RFC 7692, section 7.2.1).
 *
 * Each part of a message ends with a sync flush: what was written so far can be inflated, and the
 * output ends with an empty stored block, 00 00 ff ff, which the last part leaves out.
 *
 * A window of 256 bytes is agreed to, but zlib has none: raw deflate begins at 512. Of those it
 * uses no distance above 512 - 262 = 250, as it always keeps a match and its lookahead in hand, so
 * what it makes fits the smaller window (a test inflates it with one).
 *
 * A state of 15 bits clears 64 KiB of its hash table before each message that takes no context
 * over. A short message gains nothing by a window longer than itself: it goes through a state of
 * 12 bits, which takes a seventh less time for 120 bytes and leaves the caches alone.
 */
#include "deflate_internal.h"

#define ZLIB_BITS_MIN 9
#define FLUSH_ROOM    64 /* Above deflateBound(): what a sync flush adds, and never quite full. */

#define SHORT_MESSAGE   3072 /* Less than the short state's window. */
#define SHORT_BITS      12
#define SHORT_MEM_LEVEL 5

static struct bop_ws_zip_state *take(struct bop_ws_zip *zip, const struct bop_ws_zip_stream *send,
                                     bool short_message)
{
    unsigned bits = send->bits < ZLIB_BITS_MIN ? ZLIB_BITS_MIN : send->bits;
    int mem_level = zip->mem_level;

    if (short_message) {
        bits = bits < SHORT_BITS ? bits : SHORT_BITS;
        mem_level = mem_level < SHORT_MEM_LEVEL ? mem_level : SHORT_MEM_LEVEL;
    }
    return bop__ws_zip_take(zip, true, bits, mem_level);
}

/* Deflate a part to its end. */
static int run(struct bop_ws_zip_state *state, struct bop_slice part, struct bop_buf *out)
{
    z_stream *z = &state->z;
    size_t room;
    int rc;

    if (part.size > UINT32_MAX / 2) {
        return BOP_EFULL;
    }
    room = deflateBound(z, part.size) + FLUSH_ROOM;
    rc = bop_buf_reserve(out, room);
    if (rc != 0) {
        return rc;
    }
    z->next_in = part.data;
    z->avail_in = (unsigned)part.size;
    z->next_out = out->data + out->size;
    z->avail_out = (unsigned)room;
    rc = deflate(z, Z_SYNC_FLUSH);
    /* Z_BUF_ERROR: there was nothing to write. */
    BOP_ASSERT((rc == Z_OK || rc == Z_BUF_ERROR) && z->avail_in == 0 && z->avail_out > 0);
    out->size += room - z->avail_out;
    return 0;
}

/* Leave out the end of the message's last block, or make an empty one to leave the end out of. */
static int finish(struct bop_buf *out, size_t size_before)
{
    size_t size = out->size - size_before;

    if (size == 0) {
        return bop_buf_append(out, "", 1);
    }
    BOP_ASSERT(size > sizeof(ws_tail) &&
               memcmp(out->data + out->size - sizeof(ws_tail), ws_tail, sizeof(ws_tail)) == 0);
    out->size -= sizeof(ws_tail);
    return 0;
}

int bop_ws_deflate(struct bop_ws_zip *zip, struct bop_ws_zip_stream *send, struct bop_slice part,
                   bool last, struct bop_buf *out)
{
    bool whole = last && !send->inside;
    size_t size_before = out->size;
    int rc;

    if (whole && part.size == 0) {
        return 1;
    }
    if (!send->state) {
        send->state = take(zip, send, whole && !send->takeover && part.size <= SHORT_MESSAGE);
    }
    rc = send->state ? run(send->state, part, out) : BOP_ENOMEM;
    if (rc == 0 && last) {
        rc = finish(out, size_before);
    }
    send->inside = !last;
    if (rc == 0 && whole && !send->takeover && out->size - size_before >= part.size) {
        rc = 1;
    }
    if (rc != 0) {
        out->size = size_before;
    }
    if (last && !send->takeover) {
        bop__ws_zip_give(zip, send->state);
        send->state = NULL;
    }
    return rc;
}
