#include "command.h"
#include "tap.h"

struct fixture {
    struct test_heap heap;
    struct bop_buf buf;
};

static void setup(struct fixture *f)
{
    test_heap_init(&f->heap, NULL);
    bop_buf_init(&f->buf, &f->heap.allocator, 0);
}

static void teardown(struct fixture *f)
{
    bop_buf_deinit(&f->buf);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static int encode_decode(struct fixture *f, const struct command *in, struct command *out)
{
    struct bop_writer writer = bop_writer(&f->buf);

    bop_buf_clear(&f->buf);
    bop__command_encode(&writer, in);
    REQUIRE_EQ(writer.code, 0);
    return bop__command_decode(bop_buf_slice(&f->buf), out);
}

/* The bytes are a disk format. */
TEST(command, of_a_write_has_these_bytes)
{
    struct command command = {.kind = COMMAND_WRITE,
                              .origin_node = 2,
                              .origin_request = 3,
                              .time_ms = 0x0102030405060708,
                              .session = 9,
                              .sequence = 10,
                              .acked = 4,
                              .operation = bytes("op")};
    static const uint8_t expected[] = {1, 1, 0, 0, 0, 0, 0, 0, /* Version, kind, zeros. */
                                       2, 0, 0, 0, 0, 0, 0, 0, /* Node. */
                                       3, 0, 0, 0, 0, 0, 0, 0, /* Request. */
                                       8, 7, 6, 5, 4, 3, 2, 1, /* Time. */
                                       9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0,   0,
                                       0, 0, 0, 4, 0, 0, 0, 0, 0,  0, 0, 'o', 'p'};
    struct command back;

    REQUIRE_EQ(encode_decode(f, &command, &back), 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->buf), bop_slice(expected, sizeof(expected)));
    CHECK_EQ(back.kind, COMMAND_WRITE);
    CHECK_EQ(back.origin_node, 2);
    CHECK_EQ(back.origin_request, 3);
    CHECK_EQ(back.time_ms, 0x0102030405060708);
    CHECK_EQ(back.session, 9);
    CHECK_EQ(back.sequence, 10);
    CHECK_EQ(back.acked, 4);
    CHECK_SLICE_EQ(back.operation, bytes("op"));
}

TEST(command, of_sessions_come_back_as_they_went)
{
    uint64_t ids[3] = {1, UINT64_MAX, 7};
    struct command open = {
        .kind = COMMAND_SESSION_OPEN, .timeout_ms = 30000, .token = "0123456789"};
    struct command shut = {.kind = COMMAND_SESSION_CLOSE, .session = 12, .token = "abc"};
    struct command expire = {.kind = COMMAND_SESSION_EXPIRE,
                             .expired = bop_slice(ids, sizeof(ids))};
    struct command back;

    REQUIRE_EQ(encode_decode(f, &open, &back), 0);
    CHECK_EQ(f->buf.size, 32 + 4 + 16);
    CHECK_EQ(back.timeout_ms, 30000);
    CHECK_MEM_EQ(back.token, open.token, BOP_TOKEN_SIZE);
    REQUIRE_EQ(encode_decode(f, &shut, &back), 0);
    CHECK_EQ(f->buf.size, 32 + 8 + 16);
    CHECK_EQ(back.session, 12);
    CHECK_MEM_EQ(back.token, shut.token, BOP_TOKEN_SIZE);
    REQUIRE_EQ(encode_decode(f, &expire, &back), 0);
    CHECK_EQ(f->buf.size, 32 + 4 + 24);
    CHECK_SLICE_EQ(back.expired, expire.expired);
}

/* One that has a grace has a kind of its own, so that older servers see that they do not know it.
 */
TEST(command, opens_a_session_with_grace)
{
    struct command open = {.kind = COMMAND_SESSION_OPEN, .timeout_ms = 30000, .grace_ms = 500};
    struct command back;

    REQUIRE_EQ(encode_decode(f, &open, &back), 0);
    CHECK_EQ(f->buf.size, 32 + 4 + 4 + 16);
    CHECK_EQ(f->buf.data[1], COMMAND_SESSION_OPEN_GRACE);
    CHECK_EQ(back.kind, COMMAND_SESSION_OPEN);
    CHECK_EQ(back.timeout_ms, 30000);
    CHECK_EQ(back.grace_ms, 500);
    bop_store_u32(f->buf.data + 36, 0); /* That has an encoding already. */
    CHECK_EQ(bop__command_decode(bop_buf_slice(&f->buf), &back), BOP_EMALFORMED);
}

TEST(command, gets_the_leaders_time)
{
    struct command command = {.kind = COMMAND_SESSION_OPEN};
    struct command back;

    REQUIRE_EQ(encode_decode(f, &command, &back), 0);
    bop__command_set_time(f->buf.data, 123456789);
    REQUIRE_EQ(bop__command_decode(bop_buf_slice(&f->buf), &back), 0);
    CHECK_EQ(back.time_ms, 123456789);
}

/* A WRITE may end anywhere behind its numbers: the operation is not looked into. */
TEST(command, is_refused_when_cut_or_longer)
{
    uint64_t ids[2] = {1, 2};
    struct command commands[] = {
        {.kind = COMMAND_SESSION_OPEN, .timeout_ms = 5},
        {.kind = COMMAND_SESSION_OPEN, .timeout_ms = 5, .grace_ms = 2},
        {.kind = COMMAND_SESSION_CLOSE, .session = 12},
        {.kind = COMMAND_SESSION_EXPIRE, .expired = bop_slice(ids, sizeof(ids))},
        {.kind = COMMAND_WRITE, .sequence = 1}};
    struct command back;

    for (size_t i = 0; i < BOP_COUNT_OF(commands); i++) {
        REQUIRE_EQ(encode_decode(f, &commands[i], &back), 0);
        for (size_t size = 0; size < f->buf.size; size++) {
            CHECK_EQ(bop__command_decode(bop_slice(f->buf.data, size), &back), BOP_EMALFORMED);
        }
        REQUIRE_EQ(bop_buf_append(&f->buf, "x", 1), 0);
        CHECK_EQ(bop__command_decode(bop_buf_slice(&f->buf), &back),
                 commands[i].kind == COMMAND_WRITE ? 0 : BOP_EMALFORMED);
    }
}

TEST(command, is_refused_with_fields_that_do_not_exist)
{
    struct command command = {.kind = COMMAND_SESSION_OPEN};
    struct command back;

    REQUIRE_EQ(encode_decode(f, &command, &back), 0);
    f->buf.data[0] = 2;
    CHECK_EQ(bop__command_decode(bop_buf_slice(&f->buf), &back), BOP_EVERSION);
    f->buf.data[0] = 1;
    for (size_t i = 2; i < 8; i++) { /* The zeros. */
        f->buf.data[i] = 1;
        CHECK_EQ(bop__command_decode(bop_buf_slice(&f->buf), &back), BOP_EMALFORMED);
        f->buf.data[i] = 0;
    }
    for (unsigned kind = 0; kind < 256; kind++) {
        f->buf.data[1] = (uint8_t)kind;
        /* The 20 bytes of this body are those of no other kind. */
        CHECK_EQ(bop__command_decode(bop_buf_slice(&f->buf), &back),
                 kind == COMMAND_SESSION_OPEN ? 0 : BOP_EMALFORMED);
    }
}

TEST(command, expires_a_bounded_number)
{
    struct command back;
    uint8_t count[4];

    bop_store_u32(count, COMMAND_EXPIRE_MAX + 1);
    REQUIRE_EQ(bop_buf_append(&f->buf, "\1\4", 2), 0);
    REQUIRE_EQ(bop_buf_reserve(&f->buf, 30 + 4 + 8 * (COMMAND_EXPIRE_MAX + 1)), 0);
    memset(f->buf.data + 2, 0, 30 + 4 + 8 * (COMMAND_EXPIRE_MAX + 1));
    memcpy(f->buf.data + 32, count, 4);
    f->buf.size = 32 + 4 + 8 * (COMMAND_EXPIRE_MAX + 1);
    CHECK_EQ(bop__command_decode(bop_buf_slice(&f->buf), &back), BOP_EMALFORMED);
    f->buf.size -= 8;
    bop_store_u32(f->buf.data + 32, COMMAND_EXPIRE_MAX);
    CHECK_EQ(bop__command_decode(bop_buf_slice(&f->buf), &back), 0);
}
