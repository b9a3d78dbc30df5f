/*
 * Reading: what is kept, pausing, bounds.
 */
#include "socket_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

/* ---- Messages over segments ---- */

/* Consumes whole messages only: u32 length, then that many bytes of the pattern. */
static size_t consume_messages(struct end *end, struct bop_slice bytes)
{
    size_t at = 0;

    while (bytes.size - at >= 4) {
        size_t length = bop_load_u32(bytes.data + at);

        if (bytes.size - at - 4 < length) {
            break;
        }
        CHECK(is_pattern(bytes.data + at + 4, length, length));
        REQUIRE_EQ(bop_buf_append(&end->got, &length, sizeof(length)), 0);
        at += 4 + length;
    }
    return at;
}

static void prepare_messages(struct end *end)
{
    end->data = consume_messages;
}

/* Messages of all sizes in one stream, cut at random places: as many and as
 * long as sent. */
static void send_messages(struct fixture *f, unsigned count, size_t length_max, size_t cut_max)
{
    struct bop_buf stream;
    uint64_t random = 0x9e3779b97f4a7c15u;
    size_t *lengths = calloc(count, sizeof(*lengths)), sent = 0;
    int fd;

    REQUIRE(lengths != NULL);
    bop_buf_init(&stream, NULL, 0);
    for (unsigned i = 0; i < count; i++) {
        uint8_t head[4];

        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        lengths[i] = random % (length_max + 1);
        bop_store_u32(head, (uint32_t)lengths[i]);
        REQUIRE_EQ(bop_buf_append(&stream, head, 4), 0);
        REQUIRE_EQ(bop_buf_reserve(&stream, lengths[i]), 0);
        fill_pattern(stream.data + stream.size, lengths[i], lengths[i]);
        stream.size += lengths[i];
    }
    f->prepare = prepare_messages;
    fd = raw_connect(f, 0);
    while (sent < stream.size) {
        size_t size;
        ssize_t went;

        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size = bop_min_u64(1 + random % cut_max, stream.size - sent);
        went = send(fd, stream.data + sent, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        REQUIRE(went > 0 || errno == EAGAIN);
        sent += went > 0 ? (size_t)went : 0;
        turn(f->loop);
        REQUIRE_EQ(f->accepted[0].closes, 0);
    }
    TURN_UNTIL(f->accepted[0].got.size == count * sizeof(*lengths));
    CHECK_MEM_EQ(f->accepted[0].got.data, lengths, count * sizeof(*lengths));
    close(fd);
    bop_buf_deinit(&stream);
    free(lengths);
}

TEST(read, small_messages_in_small_pieces)
{
    send_messages(f, 1000, 40, 7);
}

TEST(read, small_messages_in_large_pieces)
{
    send_messages(f, 50000, 100, 300000);
}

/* Around the size up to which a rest is put in front of the next read. */
TEST(read, middling_messages_in_middling_pieces)
{
    send_messages(f, 1000, 40000, 20000);
}

TEST(read, large_messages)
{
    send_messages(f, 20, 3000000, 700000);
}

/* What is kept is freed with its last byte: idle connections cost no buffer. */
TEST(read, keeps_no_memory_once_all_is_consumed)
{
    int fd;
    size_t idle;

    f->prepare = prepare_messages;
    fd = raw_connect(f, 0);
    idle = f->heap.live;
    raw_send(fd, "\x05\0\0\0\0\x01\x02", 7);
    TURN_UNTIL(f->accepted[0].datas == 1);
    CHECK(f->heap.live > idle);
    raw_send(fd, "\x03\x04", 2);
    f->accepted[0].data = NULL; /* Consumes all, pattern or not. */
    TURN_UNTIL(f->accepted[0].got.size == 9);
    CHECK_SLICE_EQ(bop_buf_slice(&f->accepted[0].got),
                   bop_slice("\x05\0\0\0\0\x01\x02\x03\x04", 9));
    CHECK_EQ(f->heap.live, idle);
    close(fd);
}

TEST(read, gives_the_rest_only_with_what_comes_after)
{
    int fd = raw_connect(f, 0);

    f->accepted[0].consume_max = 2;
    raw_send(fd, "abcde", 5);
    TURN_UNTIL(f->accepted[0].datas == 1);
    turn(f->loop);
    CHECK_EQ(f->accepted[0].datas, 1);
    raw_send(fd, "f", 1);
    TURN_UNTIL(f->accepted[0].datas == 2);
    CHECK_SLICE_EQ(bop_buf_slice(&f->accepted[0].got), bytes("abcd"));
    close(fd);
}

/* ---- The bound ---- */

static void keep_all(struct end *end)
{
    end->consume_none = true;
}

static void overfill(struct fixture *f, size_t bound)
{
    uint8_t chunk[1000] = {0};
    size_t sent = 0;
    int fd;

    bop_listener_close(f->listener);
    fixture_listen(f, (struct bop_listen_options){.limits.read_buffer_max = bound});
    f->prepare = keep_all;
    fd = raw_connect(f, 0);
    while (f->accepted[0].closes == 0) {
        REQUIRE(sent < bound + 2 * BOP_COUNT_OF(chunk) + 4096);
        raw_send(fd, chunk, sizeof(chunk));
        sent += sizeof(chunk);
        REQUIRE_EQ(bop_loop_run_once(f->loop, 100), 0);
    }
    CHECK_EQ(f->accepted[0].reason, BOP_EFULL);
    CHECK(sent > bound);
    close(fd);
}

TEST(read, closes_what_outgrows_a_small_bound)
{
    overfill(f, 4000);
}

TEST(read, closes_what_outgrows_a_large_bound)
{
    overfill(f, 200000);
}

/* Exactly the bound is allowed. */
TEST(read, keeps_as_much_as_the_bound)
{
    int fd;

    bop_listener_close(f->listener);
    fixture_listen(f, (struct bop_listen_options){.limits.read_buffer_max = 8});
    f->prepare = keep_all;
    fd = raw_connect(f, 0);
    raw_send(fd, "12345678", 8);
    TURN_UNTIL(f->accepted[0].datas == 1);
    CHECK_EQ(f->accepted[0].closes, 0);
    raw_send(fd, "9", 1);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, BOP_EFULL);
    close(fd);
}

/* ---- Pausing ---- */

static size_t pause_after_one(struct end *end, struct bop_slice bytes)
{
    REQUIRE_EQ(bop_buf_append(&end->got, bytes.data, 1), 0);
    bop_socket_pause(end->sock);
    return 1;
}

TEST(pause, keeps_bytes_and_resume_gives_them_from_the_loop)
{
    struct end *end;
    int fd = raw_connect(f, 0);

    end = &f->accepted[0];
    end->data = pause_after_one;
    raw_send(fd, "abc", 3);
    TURN_UNTIL(end->datas == 1);
    raw_send(fd, "def", 3);
    for (int i = 0; i < 3; i++) {
        turn(f->loop);
    }
    CHECK_EQ(end->datas, 1);
    for (unsigned i = 2; i <= 6; i++) {
        bop_socket_resume(end->sock);
        CHECK_EQ(end->datas, i - 1); /* Not from inside. */
        TURN_UNTIL(end->datas == i);
    }
    CHECK_SLICE_EQ(bop_buf_slice(&end->got), bytes("abcdef"));
    close(fd);
}

static size_t resume_inside(struct end *end, struct bop_slice bytes)
{
    REQUIRE_EQ(bop_buf_append(&end->got, bytes.data, 1), 0);
    bop_socket_pause(end->sock);
    bop_socket_resume(end->sock);
    return 1;
}

/* A way to ask for the rest without waiting for more: one message a call. */
TEST(pause, and_resume_in_on_data_gives_the_rest_again)
{
    int fd = raw_connect(f, 0);

    f->accepted[0].data = resume_inside;
    raw_send(fd, "abcdef", 6);
    TURN_UNTIL(f->accepted[0].got.size == 6);
    CHECK_SLICE_EQ(bop_buf_slice(&f->accepted[0].got), bytes("abcdef"));
    CHECK_EQ(f->accepted[0].datas, 6);
    close(fd);
}

/* Takes a little, and is resumed when the loop has turned. */
static size_t pause_after_some(struct end *end, struct bop_slice bytes)
{
    size_t taken = bytes.size < 20000 ? bytes.size : 20000;

    REQUIRE_EQ(bop_buf_append(&end->got, bytes.data, 1), 0); /* How often is all that matters. */
    end->f->taken += taken;
    bop_socket_pause(end->sock);
    return taken;
}

/* A reader that pauses again and again is not given more than it has taken. */
TEST(pause, bounds_what_is_buffered_between_pauses)
{
    static uint8_t chunk[100000];
    size_t before, sent = 0;
    int fd = raw_connect(f, 0);

    f->accepted[0].data = pause_after_some;
    before = f->heap.live;
    while (f->accepted[0].closes == 0 && f->taken < 20 * 1000 * 1000) {
        ssize_t went = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL | MSG_DONTWAIT);

        sent += went > 0 ? (size_t)went : 0;
        turn(f->loop);
        REQUIRE(f->heap.live - before < 2 * 1024 * 1024);
        bop_socket_resume(f->accepted[0].sock);
    }
    CHECK_EQ(f->accepted[0].closes, 0);
    CHECK(sent >= f->taken);
    close(fd);
}

/* A paused reader stops its sender through the kernel, not by taking it all in. */
TEST(pause, bounds_what_is_buffered)
{
    static uint8_t chunk[100000];
    size_t before, sent = 0;
    int fd = raw_connect(f, 0);

    bop_socket_pause(f->accepted[0].sock);
    before = f->heap.live;
    for (;;) {
        ssize_t went = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL | MSG_DONTWAIT);

        turn(f->loop);
        if (went < 0) {
            REQUIRE_EQ(errno, EAGAIN);
            break;
        }
        sent += (size_t)went;
    }
    CHECK_EQ(f->accepted[0].datas, 0);
    CHECK_EQ(f->heap.live, before);
    bop_socket_resume(f->accepted[0].sock);
    TURN_UNTIL(f->accepted[0].got.size == sent);
    close(fd);
}

/* The end of the stream waits until what came before it was given. */
TEST(pause, holds_back_the_end_too)
{
    int fd = raw_connect(f, 0);

    bop_socket_pause(f->accepted[0].sock);
    raw_send(fd, "abc", 3);
    close(fd);
    for (int i = 0; i < 3; i++) {
        turn(f->loop);
    }
    CHECK_EQ(f->accepted[0].closes, 0);
    bop_socket_resume(f->accepted[0].sock);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->accepted[0].got), bytes("abc"));
}

/* ---- Reads that take all there is room for ---- */

/* The kernel is asked for changes only: what one read leaves must not be waited for. */
TEST(read, more_than_fits_one_read_and_the_end_behind_it)
{
    enum { SIZE = 1000000 };
    uint8_t *data = malloc(SIZE);
    size_t sent = 0;
    int fd = raw_connect(f, 0);

    REQUIRE(data != NULL);
    fill_pattern(data, SIZE, 0);
    while (sent < SIZE) {
        ssize_t went = send(fd, data + sent, SIZE - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (went > 0) {
            sent += (size_t)went; /* As much as the kernel takes, before any of it is read. */
        } else {
            turn(f->loop);
        }
    }
    REQUIRE_EQ(shutdown(fd, SHUT_WR), 0);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, 0);
    CHECK_EQ(f->accepted[0].got.size, SIZE);
    CHECK(is_pattern(f->accepted[0].got.data, SIZE, 0));
    free(data);
    close(fd);
}

static size_t take_and_pause(struct end *end, struct bop_slice bytes)
{
    REQUIRE_EQ(bop_buf_append(&end->got, bytes.data, bytes.size), 0);
    bop_socket_pause(end->sock);
    return bytes.size;
}

TEST(pause, in_the_middle_of_much_goes_on_where_it_was)
{
    enum { SIZE = 600000 };
    uint8_t *data = malloc(SIZE);
    size_t sent = 0;
    int fd = raw_connect(f, 0);
    struct end *end = &f->accepted[0];

    REQUIRE(data != NULL);
    fill_pattern(data, SIZE, 0);
    end->data = take_and_pause;
    for (int i = 0; i < 100000 && end->closes == 0; i++) {
        ssize_t went = sent < SIZE ? send(fd, data + sent, SIZE - sent, MSG_NOSIGNAL | MSG_DONTWAIT)
                                   : 0;

        sent += went > 0 ? (size_t)went : 0;
        if (sent == SIZE && went > 0) {
            REQUIRE_EQ(shutdown(fd, SHUT_WR), 0);
        }
        for (int k = 0; k < 3; k++) {
            turn(f->loop);
        }
        bop_socket_resume(end->sock);
    }
    CHECK_EQ(end->closes, 1);
    CHECK_EQ(end->got.size, SIZE);
    CHECK(is_pattern(end->got.data, SIZE, 0));
    free(data);
    close(fd);
}

/* A big sender does not keep the others waiting: each turn reads once from each. */
TEST(read, of_much_leaves_room_for_others)
{
    static uint8_t chunk[1 << 20];
    int big = raw_connect(f, 0), small = raw_connect(f, 0);

    for (int i = 0; i < 20; i++) {
        BOP_IGNORE(send(big, chunk, sizeof(chunk), MSG_NOSIGNAL | MSG_DONTWAIT)); /* What fits. */
        raw_send(small, "x", 1);
        turn(f->loop);
        turn(f->loop);
        CHECK_EQ(f->accepted[1].got.size, (size_t)i + 1);
    }
    close(big);
    close(small);
}
