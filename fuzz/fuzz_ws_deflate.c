/*
 * Fuzzes permessage-deflate: inflating what a peer made up, and round trips.
 *
 * The input: a byte of flags (takeover, parts, window), a byte of limit, a byte that cuts, then
 * the payload, or the message.
 *
 * Properties: however the payload is cut, zlib's result is the same; libdeflate's is too, but that
 * it may inflate what zlib finds corrupt (it gives a meaning to the codes that RFC 1951 leaves
 * out); nothing above the limit comes out; what was compressed inflates to what it was, in messages
 * one after the other on the same states; nothing leaks.
 */
#include <stdlib.h>

#include "net/ws/deflate_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bop_ws_zip *zip;

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* Inflate a message in pieces of `step` bytes, at most `more` bytes of output a call. */
static int inflate_message(struct bop_ws_zip_stream *receive, struct bop_slice payload, size_t step,
                           size_t more, uint64_t max, struct bop_ws_utf8 *utf8, struct bop_buf *out)
{
    size_t from = 0;
    int rc;

    bop_buf_clear(out);
    do {
        size_t size = payload.size - from < step ? payload.size - from : step;
        bool last = from + size == payload.size;
        uint8_t *memory = malloc(size ? size : 1);
        struct bop_slice piece = bop_slice(memory, size);

        require(memory != NULL);
        if (size > 0) {
            memcpy(memory, payload.data + from, size);
        }
        do {
            rc = bop_ws_inflate(zip, receive, &piece, last, max, utf8, more, out);
        } while (rc == 1);
        require(rc != 0 || piece.size == 0);
        require(out->size <= max);
        free(memory);
        from += size;
    } while (rc == 0 && from < payload.size);
    require(rc == 0 || rc == -BOP_WS_INVALID || rc == -BOP_WS_TOO_BIG);
    return rc;
}

/* With takeover: twice, so that the second may refer to the first. (With a smaller window, whether
 * zlib minds a distance beyond it depends on how the payload is cut.) */
static int inflate_by(struct bop_slice payload, bool takeover, size_t step, size_t more,
                      uint64_t max, struct bop_ws_utf8 *utf8, struct bop_buf *out)
{
    struct bop_ws_zip_stream receive = {.bits = 15, .takeover = takeover};
    int rc = inflate_message(&receive, payload, step, more, max, utf8, out);

    if (rc == 0 && takeover) {
        rc = inflate_message(&receive, payload, step, more, max, utf8, out);
    }
    bop_ws_zip_stream_deinit(zip, &receive);
    return rc;
}

/* One by zlib, in pieces and small outputs; all of them must agree. */
static int by_zlib(struct bop_slice payload, bool takeover, uint64_t max, size_t cut, bool text,
                   struct bop_buf *out)
{
    struct bop_ws_utf8 a = {0}, b = {0}, c = {0};
    size_t more = max <= 4096 ? cut + 1 : cut + 1000;
    struct bop_buf other;
    int rc, other_rc;

    bop_buf_init(&other, NULL, 0);
    rc = inflate_by(payload, takeover, payload.size + 1, SIZE_MAX - 1, max, text ? &a : NULL, out);
    other_rc = inflate_by(payload, takeover, cut + 1, SIZE_MAX - 1, max, text ? &b : NULL, &other);
    require(rc == other_rc);
    require(rc != 0 || bop_slice_equal(bop_buf_slice(out), bop_buf_slice(&other)));
    other_rc = inflate_by(payload, takeover, payload.size + 1, more, max, text ? &c : NULL, &other);
    require(rc == other_rc);
    require(rc != 0 || bop_slice_equal(bop_buf_slice(out), bop_buf_slice(&other)));
    bop_buf_deinit(&other);
    return rc;
}

static void made_up(struct bop_slice payload, uint64_t max, size_t cut)
{
    struct bop_ws_utf8 utf8 = {0};
    struct bop_buf slow, fast;
    int slow_rc, fast_rc, text_rc;

    bop_buf_init(&slow, NULL, 0);
    bop_buf_init(&fast, NULL, 0);
    slow_rc = by_zlib(payload, false, max, cut, false, &slow);
    fast_rc = inflate_by(payload, false, payload.size + 1, SIZE_MAX, max, NULL, &fast);
    if (slow_rc == 0) {
        require(fast_rc == 0);
        require(bop_slice_equal(bop_buf_slice(&slow), bop_buf_slice(&fast)));
    }
    require(fast_rc == slow_rc || (fast_rc == 0 && slow_rc == -BOP_WS_INVALID));
    text_rc = inflate_by(payload, false, payload.size + 1, SIZE_MAX, max, &utf8, &slow);
    require(fast_rc != 0 || (text_rc == 0) == bop_slice_is_utf8(bop_buf_slice(&fast)));
    require(fast_rc == 0 || text_rc != 0);
    text_rc = by_zlib(payload, false, max, cut, true, &fast);
    require(slow_rc == 0 || text_rc != 0);
    bop_buf_deinit(&slow);
    bop_buf_deinit(&fast);
}

static void taken_over(struct bop_slice payload, uint64_t max, size_t cut)
{
    struct bop_buf out;

    bop_buf_init(&out, NULL, 0);
    BOP_IGNORE(by_zlib(payload, true, max, cut, false, &out)); /* Only that all ways agree. */
    BOP_IGNORE(by_zlib(payload, true, max, cut, true, &out));
    bop_buf_deinit(&out);
}

/* Messages of one direction: the input three times, the second time in parts. */
static void round_trip(struct bop_slice message, uint8_t bits, bool takeover, size_t cut)
{
    struct bop_ws_zip_stream send = {.bits = bits, .takeover = takeover};
    struct bop_ws_zip_stream receive = send;
    struct bop_buf packed, out;

    bop_buf_init(&packed, NULL, 0);
    bop_buf_init(&out, NULL, 0);
    cut = cut < message.size ? cut : message.size;
    for (int round = 0; round < 3; round++) {
        struct bop_slice piece;
        int rc = 0;

        bop_buf_clear(&packed);
        bop_buf_clear(&out);
        if (round == 1) {
            require(bop_ws_deflate(zip, &send, bop_slice(message.data, cut), false, &packed) == 0);
            rc = bop_ws_deflate(zip, &send, bop_slice(message.data + cut, message.size - cut), true,
                                &packed);
        } else {
            rc = bop_ws_deflate(zip, &send, message, true, &packed);
        }
        if (rc == 1) {
            require(round != 1 && packed.size == 0 && (!takeover || message.size == 0));
            continue;
        }
        require(rc == 0);
        piece = bop_buf_slice(&packed);
        require(bop_ws_inflate(zip, &receive, &piece, true, message.size, NULL, SIZE_MAX, &out) ==
                0);
        require(bop_slice_equal(bop_buf_slice(&out), message));
    }
    bop_ws_zip_stream_deinit(zip, &send);
    bop_ws_zip_stream_deinit(zip, &receive);
    bop_buf_deinit(&packed);
    bop_buf_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_slice input;

    if (size < 3 || size > 8192) {
        return 0;
    }
    if (!zip) {
        require(bop_ws_zip_create(&(struct bop_ws_zip_options){.level = 6}, &zip) == 0);
        zip->whole_min = 0;
    }
    input = bop_slice(data + 3, size - 3);
    taken_over(input, data[1] < 128 ? data[1] : (uint64_t)data[1] << 10, data[2]);
    made_up(input, data[1] < 128 ? data[1] : (uint64_t)data[1] << 10, data[2]);
    round_trip(input, (uint8_t)(8 + data[0] % 8), data[0] & 8, data[2]);
    return 0;
}
