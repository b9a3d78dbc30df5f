/*
 * Frames: golden ones, every prefix and bit flip of them, and all the ways a
 * header can lie.
 */
#include "tap.h"

#include "wire_vectors.h"

static int parse(struct bop_slice stream, struct bop_wire_frame *out_frame, size_t *out_used)
{
    return bop_wire_parse(stream, 0, out_frame, out_used, NULL);
}

/* A header with the right checksum for itself, of a frame that claims `size` bytes. */
static struct bop_slice header(uint8_t *buffer, uint32_t size, uint8_t version, uint8_t flags,
                               uint16_t kind)
{
    bop_store_u32(buffer + 4, size);
    buffer[8] = version;
    buffer[9] = flags;
    bop_store_u16(buffer + 10, kind);
    bop_store_u32(buffer + 12, 1);
    repair_crc(buffer, BOP_WIRE_HEADER);
    return bop_slice(buffer, BOP_WIRE_HEADER);
}

static int judge(uint32_t size, uint8_t version, uint8_t flags, uint16_t kind)
{
    uint8_t buffer[BOP_WIRE_HEADER];
    struct bop_wire_frame frame;
    size_t used;

    return parse(header(buffer, size, version, flags, kind), &frame, &used);
}

TEST(wire, every_kind_has_a_golden_frame)
{
    bool seen[1024] = {false}; /* The peers' kinds have theirs in test_peer_wire.c. */

    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        seen[vectors[i].kind] = true;
    }
    for (uint16_t kind = 0; kind < BOP_COUNT_OF(seen); kind++) {
        CHECK_EQ(seen[kind], bop_wire_kind_name(kind) != NULL);
    }
}

TEST(wire, reads_golden_frames)
{
    uint8_t buffer[VECTOR_BYTES_MAX];

    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        const struct vector *vector = &vectors[i];
        struct bop_slice whole = vector_bytes(vector, buffer);
        struct bop_wire_frame frame;
        struct bop_error err = {0};
        size_t used;

        CHECK_EQ(crc32_bitwise(whole.data + 4, whole.size - 4), bop_load_u32(whole.data));
        REQUIRE_EQ(bop_wire_parse(whole, 0, &frame, &used, &err), 0);
        CHECK_EQ(used, whole.size);
        CHECK_EQ(frame.kind, vector->kind);
        CHECK_EQ(frame.flags, vector->flags);
        CHECK_EQ(frame.request, vector->request);
        CHECK_PTR_EQ(frame.payload.data, whole.data + BOP_WIRE_HEADER);
        CHECK_EQ(frame.payload.size, whole.size - BOP_WIRE_HEADER);
        CHECK_EQ(bop_wire_check(frame.kind, frame.payload), 0);
        CHECK_STR_EQ(bop_wire_kind_name(frame.kind), vector->name);
    }
}

TEST(wire, makes_golden_frames)
{
    uint8_t buffer[VECTOR_BYTES_MAX];
    struct bop_buf buf;

    bop_buf_init(&buf, NULL, 0);
    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        const struct vector *vector = &vectors[i];
        struct bop_slice whole = vector_bytes(vector, buffer);
        size_t before = buf.size, at;

        REQUIRE_EQ(bop_wire_begin(&buf, &at), 0);
        CHECK_EQ(at, before);
        REQUIRE_EQ(bop_buf_append(&buf, whole.data + BOP_WIRE_HEADER, whole.size - BOP_WIRE_HEADER),
                   0);
        bop_wire_end(&buf, at, (enum bop_wire_kind)vector->kind, vector->flags, vector->request);
        CHECK_SLICE_EQ(bop_slice(buf.data + before, buf.size - before), whole);
    }
    bop_buf_deinit(&buf);
}

/* As a stream: each frame in turn is taken, whatever comes behind it. */
TEST(wire, takes_frames_off_a_stream)
{
    uint8_t buffer[VECTOR_BYTES_MAX];
    struct bop_buf buf;
    struct bop_slice left;

    bop_buf_init(&buf, NULL, 0);
    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        struct bop_slice whole = vector_bytes(&vectors[i], buffer);

        REQUIRE_EQ(bop_buf_append(&buf, whole.data, whole.size), 0);
    }
    left = bop_buf_slice(&buf);
    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        struct bop_wire_frame frame;
        size_t used;

        REQUIRE_EQ(parse(left, &frame, &used), 0);
        CHECK_EQ(frame.request, vectors[i].request);
        left = bop_slice(left.data + used, left.size - used);
    }
    CHECK_EQ(left.size, 0);
    bop_buf_deinit(&buf);
}

TEST(wire, waits_for_the_rest_of_every_prefix)
{
    uint8_t buffer[VECTOR_BYTES_MAX];

    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        struct bop_slice whole = vector_bytes(&vectors[i], buffer);
        struct bop_wire_frame frame;
        size_t used;

        for (size_t size = 0; size < whole.size; size++) {
            REQUIRE_EQ(parse(bop_slice(whole.data, size), &frame, &used), BOP_EAGAIN);
        }
    }
}

/* A flip in the size can only ask for more; any other is found. */
TEST(wire, never_accepts_a_flipped_bit)
{
    uint8_t buffer[VECTOR_BYTES_MAX];

    for (size_t i = 0; i < BOP_COUNT_OF(vectors); i++) {
        struct bop_slice whole = vector_bytes(&vectors[i], buffer);

        for (size_t bit = 0; bit < whole.size * 8; bit++) {
            struct bop_wire_frame frame;
            size_t used;
            int rc;

            buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
            rc = parse(whole, &frame, &used);
            REQUIRE(rc < 0);
            REQUIRE(rc != BOP_EAGAIN || (bit >= 32 && bit < 64));
            buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

/* The prototype computed size - 8 and allocated before it looked. */
TEST(wire, refuses_sizes_below_a_header)
{
    for (uint32_t size = 0; size < BOP_WIRE_HEADER; size++) {
        CHECK_EQ(judge(size, 1, BOP_WIRE_PING, BOP_WIRE_KIND_PING), BOP_EMALFORMED);
    }
    CHECK_EQ(judge(BOP_WIRE_HEADER, 1, BOP_WIRE_PING, BOP_WIRE_KIND_PING), 0);
}

TEST(wire, refuses_enormous_sizes_from_the_header_alone)
{
    CHECK_EQ(judge(UINT32_MAX, 1, 1, BOP_WIRE_KIND_MAP_PUT_REQUEST), BOP_ETOOBIG);
    CHECK_EQ(judge(BOP_WIRE_FRAME_MAX + 1, 1, 1, BOP_WIRE_KIND_MAP_PUT_REQUEST), BOP_ETOOBIG);
    CHECK_EQ(judge(BOP_WIRE_FRAME_MAX, 1, 1, BOP_WIRE_KIND_MAP_PUT_REQUEST), BOP_EAGAIN);
}

TEST(wire, keeps_to_the_maximum_it_is_given)
{
    uint8_t buffer[BOP_WIRE_HEADER];
    struct bop_slice stream = header(buffer, 101, 1, 1, BOP_WIRE_KIND_MAP_PUT_REQUEST);
    struct bop_wire_frame frame;
    size_t used;

    CHECK_EQ(bop_wire_parse(stream, 100, &frame, &used, NULL), BOP_ETOOBIG);
    CHECK_EQ(bop_wire_parse(stream, 101, &frame, &used, NULL), BOP_EAGAIN);
}

TEST(wire, refuses_other_versions)
{
    CHECK_EQ(judge(100, 0, 1, BOP_WIRE_KIND_MAP_PUT_REQUEST), BOP_EVERSION);
    CHECK_EQ(judge(100, 2, 1, BOP_WIRE_KIND_MAP_PUT_REQUEST), BOP_EVERSION);
    /* Before interpretation: the size of another version may mean something else. */
    CHECK_EQ(judge(UINT32_MAX, 2, 1, BOP_WIRE_KIND_MAP_PUT_REQUEST), BOP_EVERSION);
}

TEST(wire, knows_these_kinds_and_no_others)
{
    unsigned known = 0;

    for (uint32_t kind = 0; kind <= UINT16_MAX; kind++) {
        bool expected = (kind >= 1 && kind <= 74) || (kind >= 128 && kind <= 147) ||
                        (kind >= 150 && kind <= 156 && kind != 154) ||
                        (kind >= 160 && kind <= 167) || (kind >= 170 && kind <= 181) ||
                        (kind >= 1024 && kind <= 1035) || kind == 1040 || kind == 1041 ||
                        (kind >= 1044 && kind <= 1046);

        REQUIRE_EQ(bop_wire_kind_name((uint16_t)kind) != NULL, expected);
        if (!expected) {
            REQUIRE_EQ(judge(100, 1, 1, (uint16_t)kind), BOP_EMALFORMED);
            REQUIRE_EQ(bop_wire_check((uint16_t)kind, bytes("")), BOP_EMALFORMED);
        }
        known += expected;
    }
    CHECK_EQ(known, 74 + 20 + 6 + 8 + 12 + 12 + 5);
}

static bool ends_with(const char *text, const char *end)
{
    return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

static bool flags_should_fit(uint16_t kind, unsigned flags)
{
    const char *name = bop_wire_kind_name(kind);

    if (kind >= 1024) {
        return flags == 0 || flags == 1;
    }
    if (kind == BOP_WIRE_KIND_PING) {
        return flags == 1 || flags == 4 || flags == 5;
    }
    if (kind == BOP_WIRE_KIND_PONG) {
        return flags == 2 || flags == 8 || flags == 10;
    }
    if (ends_with(name, "_REQUEST") || kind == BOP_WIRE_KIND_STATE_SYNC ||
        kind == BOP_WIRE_KIND_WATCH_ACK) {
        return flags == 1 || (flags == 5 && kind < 128);
    }
    return flags == 2 || (flags == 10 && kind < 128);
}

TEST(wire, checks_flags_against_the_kind)
{
    for (uint16_t kind = 0; kind < 1100; kind++) {
        if (!bop_wire_kind_name(kind)) {
            continue;
        }
        for (unsigned flags = 0; flags < 256; flags++) {
            int rc = judge(100, 1, (uint8_t)flags, kind);

            REQUIRE_EQ(rc, flags_should_fit(kind, flags) ? BOP_EAGAIN : BOP_EMALFORMED);
        }
    }
}

TEST(wire, says_why_a_frame_is_refused)
{
    uint8_t buffer[BOP_WIRE_HEADER];
    struct bop_wire_frame frame;
    struct bop_error err = {0};
    size_t used;

    CHECK_EQ(bop_wire_parse(header(buffer, 5, 1, 1, 71), 0, &frame, &used, &err), BOP_EMALFORMED);
    CHECK_STR_HAS(err.message, "5 bytes");
    CHECK_EQ(bop_wire_parse(header(buffer, 1u << 31, 1, 1, 9), 0, &frame, &used, &err),
             BOP_ETOOBIG);
    CHECK_STR_HAS(err.message, "2147483648 bytes, at most 16777216");
    CHECK_EQ(bop_wire_parse(header(buffer, 16, 9, 1, 9), 0, &frame, &used, &err), BOP_EVERSION);
    CHECK_STR_HAS(err.message, "version 9");
    CHECK_EQ(bop_wire_parse(header(buffer, 16, 1, 1, 500), 0, &frame, &used, &err), BOP_EMALFORMED);
    CHECK_STR_HAS(err.message, "kind 500");
    CHECK_EQ(bop_wire_parse(header(buffer, 16, 1, 2, 9), 0, &frame, &used, &err), BOP_EMALFORMED);
    CHECK_STR_HAS(err.message, "MAP_PUT_REQUEST frame with flags 0x02");
    header(buffer, 16, 1, 4, 71);
    bop_store_u32(buffer, 0xdeadbeef);
    CHECK_EQ(bop_wire_parse(bop_slice(buffer, 16), 0, &frame, &used, &err), BOP_ECORRUPT);
    CHECK_STR_HAS(err.message, "checksum deadbeef");
}

TEST(wire, takes_back_a_frame_that_was_begun)
{
    struct bop_buf buf;
    size_t at;

    bop_buf_init(&buf, NULL, 0);
    REQUIRE_EQ(bop_buf_append(&buf, "abc", 3), 0);
    REQUIRE_EQ(bop_wire_begin(&buf, &at), 0);
    bop_wire_cancel(&buf, at);
    CHECK_SLICE_EQ(bop_buf_slice(&buf), bytes("abc"));
    bop_buf_deinit(&buf);
}

TEST(wire, begins_no_frame_in_a_full_buffer)
{
    struct bop_buf buf;
    size_t at;

    bop_buf_init(&buf, NULL, BOP_WIRE_HEADER - 1);
    CHECK_EQ(bop_wire_begin(&buf, &at), BOP_EFULL);
    CHECK_EQ(buf.size, 0);
    bop_buf_deinit(&buf);
}
