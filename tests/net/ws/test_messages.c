/*
 * Compressed messages from end to end, as a connection puts the pieces together: compressed,
 * fragmented, framed, masked; then cut, unmasked, inflated, checked to be UTF-8.
 */
#include <stdlib.h>

#include <bop/random.h>

#include "tap.h"

#include "../../../src/net/ws/ws_frame.h"

/* One end that sends and one that receives. */
struct fixture {
    struct bop_ws_zip *zip;
    struct bop_ws_zip_stream send;
    struct bop_ws_zip_stream receive;
    struct bop_ws_decoder decoder;
    struct bop_ws_rules rules;
    struct bop_buf wire;
    struct bop_buf message; /* What was received of the last message. */
    uint64_t max;
    unsigned messages;
    unsigned pings;
};

static void setup(struct fixture *f)
{
    REQUIRE_EQ(bop_ws_zip_create(&(struct bop_ws_zip_options){.level = 0}, &f->zip), 0);
    f->rules = (struct bop_ws_rules){.message_bytes_max = 1 << 20, .deflate = true};
    f->max = 1 << 20;
    bop_buf_init(&f->wire, NULL, 0);
    bop_buf_init(&f->message, NULL, 0);
}

static void end_streams(struct fixture *f)
{
    bop_ws_zip_stream_deinit(f->zip, &f->send);
    bop_ws_zip_stream_deinit(f->zip, &f->receive);
    f->decoder = (struct bop_ws_decoder){0};
    f->messages = f->pings = 0;
    bop_buf_clear(&f->wire);
}

static void teardown(struct fixture *f)
{
    end_streams(f);
    bop_ws_zip_destroy(f->zip);
    bop_buf_deinit(&f->wire);
    bop_buf_deinit(&f->message);
}

FIXTURE(setup, teardown)

static void agree(struct fixture *f, unsigned bits, bool takeover)
{
    struct bop_ws_deflate deflate = {.on = true,
                                     .server_bits = (uint8_t)bits,
                                     .client_bits = (uint8_t)bits,
                                     .server_takeover = takeover,
                                     .client_takeover = takeover};
    struct bop_ws_zip_stream other;

    end_streams(f);
    bop_ws_zip_streams(&deflate, !f->rules.client, &f->send, &other);
    bop_ws_zip_streams(&deflate, f->rules.client, &other, &f->receive);
}

/* Put a message on the wire, its payload in `fragments` frames with pings between. */
static void put_message(struct fixture *f, unsigned opcode, struct bop_slice message,
                        size_t fragments)
{
    uint32_t key = 0xa5c33c5a, *mask = f->rules.client ? NULL : &key;
    struct bop_buf packed;
    struct bop_slice payload = message;
    unsigned first = opcode;
    int rc;

    bop_buf_init(&packed, NULL, 0);
    rc = bop_ws_deflate(f->zip, &f->send, message, true, &packed);
    REQUIRE(rc == 0 || rc == 1);
    if (rc == 0) {
        payload = bop_buf_slice(&packed);
        first |= BOP_WS_COMPRESSED;
    }
    for (size_t i = 0; i < fragments; i++) {
        size_t from = payload.size * i / fragments, to = payload.size * (i + 1) / fragments;
        bool last = i + 1 == fragments;

        REQUIRE_EQ(bop_ws_append(&f->wire, (i == 0 ? first : 0) | (last ? BOP_WS_FIN : 0),
                                 to > from ? bop_slice(payload.data + from, to - from)
                                           : bop_slice(NULL, 0),
                                 mask),
                   0);
        if (!last) {
            REQUIRE_EQ(bop_ws_append(&f->wire, BOP_WS_FIN | BOP_WS_PING, bytes("?"), mask), 0);
        }
    }
    bop_buf_deinit(&packed);
}

/* What a connection does with an event. Returns 0 or the code to close with, negative. */
static int on_event(struct fixture *f, const struct bop_ws_event *event)
{
    struct bop_slice piece = bop_slice(event->data, event->size);

    if (event->opcode >= BOP_WS_CLOSE) {
        f->pings++;
        return 0;
    }
    if (event->first) {
        bop_buf_clear(&f->message);
    }
    f->messages += event->last;
    if (!event->compressed) {
        return event->size ? bop_buf_append(&f->message, event->data, event->size) : 0;
    }
    return bop_ws_inflate(f->zip, &f->receive, &piece, event->last, f->max,
                          event->opcode == BOP_WS_TEXT ? &f->decoder.utf8 : NULL, SIZE_MAX,
                          &f->message);
}

/* Receive what is on the wire in pieces that end at `cut` and then every `step` bytes. Returns 0,
 * or how it failed; *out_taken: bytes given until then. */
static int take_wire(struct fixture *f, size_t cut, size_t step, size_t *out_taken)
{
    size_t from = 0, to = cut < f->wire.size ? cut : f->wire.size;

    for (;;) {
        uint8_t *memory = malloc(to - from ? to - from : 1);
        struct bop_slice left = bop_slice(memory, to - from);
        struct bop_ws_event event;
        int rc;

        BOP_ASSERT(memory);
        if (to > from) {
            memcpy(memory, f->wire.data + from, to - from);
        }
        while ((rc = bop_ws_decode(&f->decoder, &f->rules, &left, &event)) == 1) {
            rc = on_event(f, &event);
            if (rc != 0) {
                break;
            }
        }
        from = to - left.size;
        free(memory);
        *out_taken = to;
        if (rc != BOP_ETRUNCATED) {
            return rc;
        }
        if (to == f->wire.size) {
            return from == to ? 0 : BOP_ETRUNCATED;
        }
        to = f->wire.size - to > step ? to + step : f->wire.size;
    }
}

static void fill(uint8_t *data, size_t size, unsigned seed)
{
    static const char *const words[] = {"{\"price\":", "1234", ",\"name\":\"", "caf\xc3\xa9",
                                        "\"},"};
    size_t at = 0;

    while (at + 16 < size) {
        const char *word = words[seed++ * 7 % 5];

        memcpy(data + at, word, strlen(word));
        at += strlen(word);
    }
    memset(data + at, 'e', size - at);
}

TEST(messages, of_all_sizes_windows_and_fragments_in_both_roles)
{
    static const size_t sizes[] = {0,   1,    16,   64,   125,   126,   255,
                                   256, 1024, 4096, 8192, 65535, 131072};
    uint8_t *data = malloc(131072);
    size_t taken, count = 0;

    for (unsigned variant = 0; variant < 8 * 2 * 2; variant++) {
        unsigned bits = 8 + variant % 8;
        bool takeover = variant & 8;

        f->rules.client = variant & 16;
        agree(f, bits, takeover);
        for (size_t i = 0; i < 3 * BOP_COUNT_OF(sizes); i++, count++) {
            size_t size = sizes[i / 3], fragments = i % 3 == 2 ? 7 : i % 3 + 1;

            fill(data, size, (unsigned)i);
            bop_buf_clear(&f->wire);
            put_message(f, i % 2 ? BOP_WS_TEXT : BOP_WS_BINARY, bop_slice(data, size), fragments);
            CHECK_EQ(take_wire(f, 3, i % 2 ? 1000 : f->wire.size, &taken), 0);
            CHECK_SLICE_EQ(bop_buf_slice(&f->message), bop_slice(data, size));
            CHECK_EQ(f->messages, i + 1);
            CHECK(bop_ws_decoder_is_idle(&f->decoder));
            CHECK(takeover || (!f->send.state && !f->receive.state));
        }
    }
    test_note("%zu messages", count);
    free(data);
}

TEST(messages, cut_at_every_byte)
{
    uint8_t data[300];
    size_t taken;

    fill(data, sizeof(data), 1);
    for (unsigned variant = 0; variant < 4; variant++) {
        struct bop_buf wire;

        f->rules.client = variant & 1;
        agree(f, 15, variant & 2);
        put_message(f, BOP_WS_TEXT, bop_slice(data, sizeof(data)), 1);
        put_message(f, BOP_WS_TEXT, bop_slice(data, sizeof(data)), 4);
        put_message(f, BOP_WS_TEXT, bytes(""), 1);
        put_message(f, BOP_WS_BINARY, bop_slice(data, sizeof(data)), 2);
        wire = f->wire;
        for (size_t cut = 0; cut < wire.size; cut++) {
            f->wire = wire;
            bop_ws_zip_stream_deinit(f->zip, &f->receive);
            f->messages = f->pings = 0;
            if (take_wire(f, cut, cut % 2 ? wire.size : 1, &taken) != 0 || f->messages != 4 ||
                f->pings != 4 ||
                !bop_slice_equal(bop_buf_slice(&f->message), bop_slice(data, sizeof(data)))) {
                test__failed(__FILE__, __LINE__, "variant %u, cut at %zu", variant, cut);
            }
        }
    }
}

/* Text that is no UTF-8: 1007, from the piece on that shows it, however compressed it was. */
TEST(messages, bad_text_fails_while_it_comes)
{
    uint8_t data[2000];
    size_t taken;

    for (unsigned variant = 0; variant < 4; variant++) {
        f->rules.client = variant & 1;
        agree(f, 15, variant & 2);
        fill(data, sizeof(data), 3);
        memset(data + 100, 0xff, 5);
        put_message(f, BOP_WS_TEXT, bop_slice(data, sizeof(data)), 3);
        put_message(f, BOP_WS_TEXT, bytes("more"), 1);
        CHECK_EQ(take_wire(f, 1, 1, &taken), -1007);
        CHECK(taken < f->wire.size * 4 / 5); /* Not only at the end. */
        agree(f, 15, variant & 2);
        put_message(f, BOP_WS_BINARY, bop_slice(data, sizeof(data)), 3);
        CHECK_EQ(take_wire(f, 1, 1, &taken), 0);
        agree(f, 15, variant & 2);
        memset(data, 'a', sizeof(data));
        data[sizeof(data) - 1] = 0xc3; /* Ends within a character. */
        put_message(f, BOP_WS_TEXT, bop_slice(data, sizeof(data)), 1 + variant % 2);
        CHECK_EQ(take_wire(f, 1, f->wire.size, &taken), -1007);
    }
}

/* A bomb: 1009 before the message is there. */
TEST(messages, too_big_ones_fail_while_they_come)
{
    uint8_t *zeros = calloc(1, 1 << 20);
    size_t taken;

    f->max = 100000;
    for (unsigned variant = 0; variant < 4; variant++) {
        f->rules.client = variant & 1;
        agree(f, 15, variant & 2);
        put_message(f, BOP_WS_BINARY, bop_slice(zeros, 1 << 20), 4);
        CHECK_EQ(take_wire(f, 1, 1, &taken), -1009);
        CHECK(taken < f->wire.size / 4);
        CHECK(f->message.size <= 100000);
        agree(f, 15, variant & 2);
        put_message(f, BOP_WS_BINARY, bop_slice(zeros, 100000), 4);
        CHECK_EQ(take_wire(f, 1, 1, &taken), 0);
        CHECK_EQ(f->message.size, 100000);
        agree(f, 15, variant & 2);
        put_message(f, BOP_WS_BINARY, bop_slice(zeros, 100001), 1);
        CHECK_EQ(take_wire(f, 1, f->wire.size, &taken), -1009);
    }
    free(zeros);
}
