/*
 * The frame decoder and encoder: every rule of RFC 6455, section 5 and 7, that shows on the wire.
 * Each case in both roles, with each kind of vectors, whole and cut at every byte.
 */
#include "frame_fixture.h"

#include <bop/random.h>

#include "../../../src/net/ws/ws_frame.h"

#include "cases_frame.h"

/* Run what follows with each kind of vectors that the processor has. */
#define FOR_EACH_SIMD(simd)                                                                        \
    for (int simd = WS_SCALAR;                                                                     \
         simd <= (int)bop__ws_simd_best() && (bop__ws_simd_limit((enum ws_simd)simd), true);       \
         simd++)

static void run_case(const struct frame_case *c, bool client)
{
    struct bop_ws_rules rules = {
        .message_bytes_max = c->max ? c->max : UINT64_MAX, .client = client, .deflate = c->deflate};
    struct wire wire = {.key = 7};
    struct bop_slice input;

    wire_put_frames(&wire, c->frames, !client);
    input = bop_slice(wire.data, wire.size);
    check_record(c->name, &rules, input, c->expected);
    if (c->fails_at != 0) {
        size_t expected = c->fails_at + (client ? 0 : c->fails_at_keys);
        size_t at = failing_size(&rules, input);

        if (at != expected) {
            test__failed(__FILE__, __LINE__, "%s, %s: fails after %zu bytes instead of %zu",
                         c->name, client ? "client" : "server", at, expected);
        }
    }
    free(wire.data);
}

TEST(frame, cases)
{
    size_t count = 0;

    FOR_EACH_SIMD(simd)
    {
        for (size_t i = 0; i < BOP_COUNT_OF(frame_cases); i++, count += 2) {
            run_case(&frame_cases[i], false);
            run_case(&frame_cases[i], true);
        }
    }
    test_note("%zu cases", count);
}

/* Each first byte there is, at a message's beginning and inside of one. */
TEST(frame, every_first_byte)
{
    for (unsigned first = 0; first < 256; first++) {
        for (unsigned variant = 0; variant < 8; variant++) {
            bool client = variant & 1, deflate = variant & 2, inside = variant & 4;
            unsigned opcode = first & 15;
            bool control = opcode >= 8 && opcode <= 10;
            bool good = inside ? opcode == 0 || control : opcode == 1 || opcode == 2 || control;
            const char *text = opcode == 8 ? "" : "hey";
            struct frame_case c = {.name = "first byte",
                                   .frames = {{first, text, strlen(text)}, END},
                                   .deflate = deflate};
            bool packed = first & 0x40;
            char expected[64] = "!1002";

            good = good && !(first & 0x30) && (!control || first & 0x80) &&
                   (!packed || (deflate && opcode != 0 && !control));
            if (good && control) {
                snprintf(expected, sizeof(expected), opcode == 8 ? "X(1005)" : "%c(hey)",
                         opcode == 9 ? 'P' : 'O');
            } else if (good && first & 0x80) {
                snprintf(expected, sizeof(expected), "%c(%s%shey)", opcode == 2 ? 'B' : 'T',
                         packed ? "z:" : "", inside ? "a" : "");
            } else if (good) {
                expected[0] = '\0';
            }
            if (inside) {
                c.frames[1] = c.frames[0];
                c.frames[0] = (struct wire_frame){FRAME(0x01, "a")};
                c.frames[2] = (struct wire_frame)END;
            }
            c.expected = expected;
            run_case(&c, client);
        }
    }
}

/* 7.4: each close code there is. */
TEST(frame, every_close_code)
{
    for (unsigned code = 0; code < 65536; code++) {
        bool good = (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 &&
                     code != 1006) ||
                    (code >= 3000 && code < 5000);
        uint8_t frame[4] = {0x88, 2, (uint8_t)(code >> 8), (uint8_t)code};
        struct bop_slice bytes_left = bop_slice(frame, sizeof(frame));
        struct bop_ws_rules rules = {.client = true};
        struct bop_ws_decoder decoder = {0};
        struct bop_ws_event event;
        int rc = bop_ws_decode(&decoder, &rules, &bytes_left, &event);

        if (rc != (good ? 1 : -1002) || event.close_code != (good ? code : 1002) ||
            bop_ws_close_code_is_valid(code) != good) {
            test__failed(__FILE__, __LINE__, "code %u: %d", code, rc);
        }
    }
}

/* A payload piece by piece: what is left is said, and the decoder is idle between messages. */
TEST(frame, tells_where_it_stands)
{
    uint8_t frame[] = {0x82, 5, 'a', 'b', 'c', 'd', 'e'};
    struct bop_ws_rules rules = {.message_bytes_max = 5, .client = true};
    struct bop_ws_decoder decoder = {0};
    struct bop_slice left = bop_slice(frame, 2);
    struct bop_ws_event event;

    CHECK(bop_ws_decoder_is_idle(&decoder));
    CHECK_EQ(bop_ws_decode(&decoder, &rules, &left, &event), 1);
    CHECK(event.first && !event.last && event.size == 0 && event.frame_left == 5);
    CHECK_EQ(bop_ws_decode(&decoder, &rules, &left, &event), BOP_ETRUNCATED);
    CHECK(!bop_ws_decoder_is_idle(&decoder));
    left = bop_slice(frame + 2, 2);
    CHECK_EQ(bop_ws_decode(&decoder, &rules, &left, &event), 1);
    CHECK(!event.first && !event.last && event.size == 2 && event.frame_left == 3);
    CHECK_PTR_EQ(event.data, frame + 2); /* In place. */
    left = bop_slice(frame + 4, 3);
    CHECK_EQ(bop_ws_decode(&decoder, &rules, &left, &event), 1);
    CHECK(!event.first && event.last && event.size == 3 && event.frame_left == 0);
    CHECK(bop_ws_decoder_is_idle(&decoder));
    CHECK_EQ(left.size, 0);
}

/* ---- Writing ---- */

static void check_round_trip(struct bop_buf *buf, size_t size, const uint32_t *key)
{
    struct bop_ws_rules rules = {.message_bytes_max = UINT64_MAX, .client = !key};
    struct bop_ws_decoder decoder = {0};
    struct bop_slice left, payload;
    struct bop_ws_event event;
    uint8_t *data = malloc(size + 1);

    BOP_ASSERT(data);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i * 7);
    }
    payload = bop_slice(data, size);
    bop_buf_clear(buf);
    REQUIRE_EQ(bop_ws_append(buf, BOP_WS_FIN | BOP_WS_BINARY, payload, key), 0);
    CHECK_EQ(buf->size, size + 2 + (size > 65535 ? 8 : size > 125 ? 2 : 0) + (key ? 4 : 0));
    left = bop_buf_slice(buf);
    CHECK_EQ(bop_ws_decode(&decoder, &rules, &left, &event), 1);
    CHECK(event.first && event.last && event.opcode == BOP_WS_BINARY && left.size == 0);
    CHECK_SLICE_EQ(bop_slice(event.data, event.size), payload);
    free(data);
}

TEST(frame, what_is_written_can_be_read)
{
    static const size_t sizes[] = {0,  1,   2,   3,   4,   5,    7,     8,     31,    32,
                                   63, 124, 125, 126, 127, 1000, 65534, 65535, 65536, 100000};
    uint32_t key = 0x80ff017f;
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 0);
    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        check_round_trip(&buf, sizes[i], NULL);
        check_round_trip(&buf, sizes[i], &key);
    }
    bop_buf_deinit(&buf);
}

/* RFC 6455, 5.7. */
TEST(frame, writes_the_examples_of_the_document)
{
    uint8_t header[BOP_WS_HEADER_MAX];
    uint32_t key = bop_load_u32("\x37\xfa\x21\x3d");
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 0);
    REQUIRE_EQ(bop_ws_append(&buf, BOP_WS_FIN | BOP_WS_TEXT, bytes("Hello"), &key), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&buf), bytes("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"));
    bop_buf_clear(&buf);
    REQUIRE_EQ(bop_ws_append(&buf, BOP_WS_FIN | BOP_WS_TEXT, bytes("Hello"), NULL), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&buf), bytes("\x81\x05Hello"));
    CHECK_EQ(bop_ws_header(header, BOP_WS_FIN | BOP_WS_BINARY, 256, NULL), 4);
    CHECK_MEM_EQ(header, "\x82\x7e\x01\x00", 4);
    CHECK_EQ(bop_ws_header(header, BOP_WS_FIN | BOP_WS_BINARY, 65536, NULL), 10);
    CHECK_MEM_EQ(header, "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10);
    CHECK_EQ(bop_ws_header(header, BOP_WS_FIN | BOP_WS_BINARY, 65536, &key), 14);
    CHECK_MEM_EQ(header, "\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x37\xfa\x21\x3d", 14);
    bop_buf_deinit(&buf);
}

TEST(frame, an_append_without_room_changes_nothing)
{
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 6);
    CHECK_EQ(bop_ws_append(&buf, BOP_WS_FIN | BOP_WS_TEXT, bytes("Hello"), NULL), BOP_EFULL);
    CHECK_EQ(buf.size, 0);
    CHECK_EQ(bop_ws_append(&buf, BOP_WS_FIN | BOP_WS_TEXT, bytes("Hell"), NULL), 0);
    CHECK_EQ(buf.size, 6);
    bop_buf_deinit(&buf);
}

TEST(frame, close_payloads)
{
    uint8_t payload[BOP_WS_CONTROL_MAX];
    char reason[128];

    CHECK_EQ(bop_ws_close_payload(payload, BOP_WS_NO_STATUS, bytes("")), 0);
    CHECK_EQ(bop_ws_close_payload(payload, BOP_WS_NO_STATUS, bytes("why")), BOP_EINVAL);
    CHECK_EQ(bop_ws_close_payload(payload, BOP_WS_NORMAL, bytes("")), 2);
    CHECK_MEM_EQ(payload, "\x03\xe8", 2);
    CHECK_EQ(bop_ws_close_payload(payload, 4999, bytes("bye")), 5);
    CHECK_MEM_EQ(payload,
                 "\x13\x87"
                 "bye",
                 5);
    CHECK_EQ(bop_ws_close_payload(payload, BOP_WS_ABNORMAL, bytes("")), BOP_EINVAL);
    CHECK_EQ(bop_ws_close_payload(payload, 1015, bytes("")), BOP_EINVAL);
    CHECK_EQ(bop_ws_close_payload(payload, 5000, bytes("")), BOP_EINVAL);
    CHECK_EQ(bop_ws_close_payload(payload, 1000, bytes("\xff")), BOP_EINVAL);
    memset(reason, 'x', sizeof(reason));
    CHECK_EQ(bop_ws_close_payload(payload, 1000, bop_slice(reason, 123)), 125);
    CHECK_EQ(bop_ws_close_payload(payload, 1000, bop_slice(reason, 128)), 125);
    memcpy(reason + 120, "\xf0\x9f\x98\x80", 4); /* A character from 120 to 123. */
    CHECK_EQ(bop_ws_close_payload(payload, 1000, bop_slice(reason, 128)), 122);
    memcpy(reason + 119, "\xf0\x9f\x98\x80", 4); /* One that just fits. */
    reason[123] = 'x';
    CHECK_EQ(bop_ws_close_payload(payload, 1000, bop_slice(reason, 128)), 125);
}

/* ---- Masking ---- */

TEST(mask, every_size_phase_and_alignment)
{
    uint8_t from[320], to[320], expected[320];
    struct bop_random random;
    uint8_t key_bytes[4] = {0x80, 0x01, 0xff, 0x5a};

    bop_random_seed(&random, 3);
    FOR_EACH_SIMD(simd)
    {
        for (size_t size = 0; size <= 260; size++) {
            for (size_t offset = 0; offset < 34; offset += size % 7 + 1) {
                uint32_t key = bop_load_u32(key_bytes);
                size_t cut = size ? bop_random_below(&random, size + 1) : 0;
                bool not_ascii, expect_not_ascii = false;

                for (size_t i = 0; i < size; i++) {
                    from[offset + i] = (uint8_t)(bop_random_next(&random) & 0x7f);
                    expected[i] = from[offset + i] ^ key_bytes[i & 3];
                    expect_not_ascii |= expected[i] >= 0x80;
                }
                memset(to, 0xee, sizeof(to));
                key = bop_ws_mask(to + 3, from + offset, cut, key);
                key = bop_ws_mask(to + 3 + cut, from + offset + cut, size - cut, key);
                CHECK_MEM_EQ(to + 3, expected, size);
                CHECK(to[2] == 0xee && to[3 + size] == 0xee);
                CHECK_EQ(key & 0xff, key_bytes[size & 3]);
                bop__ws_unmask_text(from + offset, size, bop_load_u32(key_bytes), &not_ascii);
                CHECK_MEM_EQ(from + offset, expected, size);
                CHECK_EQ(not_ascii, expect_not_ascii);
            }
        }
    }
}

TEST(mask, sees_each_byte_that_is_not_ascii)
{
    uint8_t data[200];

    FOR_EACH_SIMD(simd)
    {
        for (size_t at = 0; at < sizeof(data); at++) {
            bool not_ascii = false;

            memset(data, 'a', sizeof(data));
            data[at] = 0x80;
            bop__ws_unmask_text(data, sizeof(data), 0, &not_ascii);
            CHECK(not_ascii);
            bop__ws_unmask_text(data, at, 0, &not_ascii);
            CHECK(!not_ascii);
        }
    }
}

TEST(mask, keys_differ)
{
    struct bop_ws_keys keys = {0};
    uint32_t seen[200];

    for (size_t i = 0; i < BOP_COUNT_OF(seen); i++) {
        size_t same = 0;

        REQUIRE_EQ(bop_ws_keys_next(&keys, &seen[i]), 0);
        for (size_t k = 0; k < i; k++) {
            same += seen[k] == seen[i];
        }
        CHECK(same < 3); /* Of 32 bits: three equal ones are no chance. */
    }
}
