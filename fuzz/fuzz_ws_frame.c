/*
 * Fuzzes the decoder of WebSocket frames, masking, and UTF-8.
 *
 * The input: a byte of flags (role, deflate), a byte of limit, a byte that cuts, then what the
 * peer sends.
 *
 * Properties: whole, cut anywhere and in single bytes, by vectors or without, the same events come
 * out, and the same failure; what was decoded, encoded again and decoded, is the same; text that
 * is given out is UTF-8 as core has it.
 */
#include <stdlib.h>

#include "net/ws/ws_frame.h"

#define OUT_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* All that was decoded, written down: comparable, and to be encoded again. */
struct log {
    uint8_t bytes[OUT_MAX];
    size_t size;
    int result;
    bool closed;
};

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

static void put(struct log *log, const void *data, size_t size)
{
    require(log->size + size <= OUT_MAX);
    if (size > 0) {
        memcpy(log->bytes + log->size, data, size);
    }
    log->size += size;
}

static void on_event(struct log *log, const struct bop_ws_event *event)
{
    uint8_t head[6] = {0xf0, event->opcode, event->first, event->compressed};

    if (event->opcode >= BOP_WS_CLOSE) {
        head[4] = (uint8_t)(event->close_code >> 8);
        head[5] = (uint8_t)event->close_code;
        put(log, head, sizeof(head));
        require(event->size <= BOP_WS_CONTROL_MAX);
        log->closed = event->opcode == BOP_WS_CLOSE;
    } else if (event->first) {
        put(log, head, sizeof(head));
    }
    put(log, event->data, event->size);
    if (event->last || event->opcode >= BOP_WS_CLOSE) {
        put(log, "\xf1\xf2\xf3", 3);
    }
}

/* Feed pieces of `first`, then of `step` bytes, from memory of exact size. */
static void decode(const struct bop_ws_rules *rules, struct bop_slice input, size_t first,
                   size_t step, struct log *log)
{
    struct bop_ws_decoder decoder = {0};
    size_t from = 0, to = first < input.size ? first : input.size;

    log->size = 0;
    log->closed = false;
    for (;;) {
        uint8_t *memory = malloc(to - from ? to - from : 1);
        struct bop_slice bytes = bop_slice(memory, to - from);
        struct bop_ws_event event;

        require(memory != NULL);
        if (to > from) {
            memcpy(memory, input.data + from, to - from);
        }
        while (!log->closed &&
               (log->result = bop_ws_decode(&decoder, rules, &bytes, &event)) == 1) {
            on_event(log, &event);
        }
        from = to - bytes.size;
        free(memory);
        if (log->closed || log->result != BOP_ETRUNCATED || to == input.size) {
            break;
        }
        to = input.size - to > step ? to + step : input.size;
    }
    if (log->closed) {
        log->result = 0;
    }
}

/* What is decoded of a message before it fails depends on the cuts: only whole ones count then. */
static void require_same(const struct log *a, const struct log *b)
{
    require(a->result == b->result && a->closed == b->closed);
    if (a->result == BOP_ETRUNCATED || a->closed) {
        require(a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0);
    }
}

static void cuts(const struct bop_ws_rules *rules, struct bop_slice input, size_t cut)
{
    static struct log whole, other;

    bop__ws_simd_limit(WS_SCALAR);
    decode(rules, input, input.size, input.size, &whole);
    for (int simd = WS_SCALAR; simd <= (int)bop__ws_simd_best(); simd++) {
        bop__ws_simd_limit((enum ws_simd)simd);
        decode(rules, input, input.size, input.size, &other);
        require_same(&whole, &other);
        require(whole.size == other.size);
        decode(rules, input, cut, input.size, &other);
        require_same(&whole, &other);
        decode(rules, input, 1, 1, &other);
        require_same(&whole, &other);
    }
}

static void round_trip(struct bop_slice input, unsigned first, const uint32_t *key)
{
    struct bop_ws_rules rules = {.message_bytes_max = UINT64_MAX, .client = !key, .deflate = true};
    struct bop_ws_decoder decoder = {0};
    struct bop_ws_event event;
    struct bop_slice left;
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 0);
    require(bop_ws_append(&buf, first, input, key) == 0);
    left = bop_buf_slice(&buf);
    require(bop_ws_decode(&decoder, &rules, &left, &event) == 1);
    require(left.size == 0 && event.last && event.opcode == (first & 15));
    require(event.compressed == ((first & BOP_WS_COMPRESSED) != 0));
    require(bop_slice_equal(bop_slice(event.data, event.size), input));
    bop_buf_deinit(&buf);
}

static void text(struct bop_slice input, size_t cut)
{
    bool good = bop_slice_is_utf8(input);

    cut = cut < input.size ? cut : input.size;
    for (int simd = WS_SCALAR; simd <= (int)bop__ws_simd_best(); simd++) {
        struct bop_ws_utf8 utf8 = {0};

        bop__ws_simd_limit((enum ws_simd)simd);
        require((bop_ws_utf8_feed(&utf8, bop_slice(input.data, cut)) &&
                 bop_ws_utf8_feed(&utf8, bop_slice(input.data + cut, input.size - cut)) &&
                 bop_ws_utf8_may_end(&utf8)) == good);
        require(bop__ws_utf8_whole(input.data, input.size) == good);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bop_ws_rules rules = {.message_bytes_max = UINT64_MAX};
    struct bop_slice input;
    uint32_t key;

    if (size < 3 || size > 8192) {
        return 0;
    }
    rules.client = data[0] & 1;
    rules.deflate = data[0] & 2;
    if (data[1]) {
        rules.message_bytes_max = data[1];
    }
    input = bop_slice(data + 3, size - 3);
    cuts(&rules, input, data[2]);
    text(input, data[2]);
    key = bop_load_u32("\x80\x01\xfe\x7f") * data[2];
    round_trip(input, BOP_WS_FIN | BOP_WS_BINARY, &key);
    round_trip(input, BOP_WS_FIN | BOP_WS_COMPRESSED | BOP_WS_TEXT, NULL);
    return 0;
}
