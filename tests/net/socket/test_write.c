/*
 * Writing: the queue, its bound and watermarks, closing after the flush.
 */
#include "socket_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

/* Read a raw socket dry, checking the pattern. Returns the total so far, negative at the end. */
static bool drain_raw(int fd, size_t *total)
{
    static uint8_t buffer[100000];

    for (;;) {
        ssize_t got = raw_receive(fd, buffer, sizeof(buffer));

        if (got == -EAGAIN) {
            return true;
        }
        REQUIRE(got >= 0);
        if (got == 0) {
            return false;
        }
        REQUIRE(is_pattern(buffer, (size_t)got, *total));
        *total += (size_t)got;
    }
}

TEST(write, goes_out_once_at_the_end_of_the_turn)
{
    char buffer[16];
    int fd = raw_connect(f, 0);

    write_text(&f->accepted[0], "ab");
    write_text(&f->accepted[0], "cd");
    CHECK_EQ(bop_socket_queued(f->accepted[0].sock), 4);
    CHECK_EQ(raw_receive(fd, buffer, sizeof(buffer)), -EAGAIN);
    turn(f->loop);
    CHECK_EQ(bop_socket_queued(f->accepted[0].sock), 0);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 4);
    CHECK_MEM_EQ(buffer, "abcd", 4);
    close(fd);
}

TEST(write, of_nothing_is_fine)
{
    int fd = raw_connect(f, 0);

    CHECK_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(NULL, 0)), 0);
    turn(f->loop);
    close(fd);
}

TEST(write, into_the_queue_itself)
{
    struct bop_buf *out;
    char buffer[16];
    int fd = raw_connect(f, 0);

    write_text(&f->accepted[0], "1");
    out = bop_socket_output(f->accepted[0].sock);
    REQUIRE(out != NULL);
    CHECK_EQ(bop_buf_append(out, "23", 2), 0);
    bop_socket_flush_later(f->accepted[0].sock);
    CHECK_EQ(bop_socket_queued(f->accepted[0].sock), 3);
    turn(f->loop);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 3);
    CHECK_MEM_EQ(buffer, "123", 3);
    close(fd);
}

/* The kernel takes a little at a time; every byte arrives once and in order. */
TEST(write, in_many_parts_to_a_slow_reader)
{
    enum { SIZE = 5000000, CHUNK = 70001 };
    uint8_t *data = malloc(CHUNK);
    size_t queued = 0, received = 0;
    int fd = raw_connect(f, 4096);

    REQUIRE(data != NULL);
    while (received < SIZE) {
        while (queued < SIZE && bop_socket_queued(f->accepted[0].sock) < 500000) {
            size_t size = bop_min_u64(CHUNK, SIZE - queued);

            fill_pattern(data, size, queued);
            REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(data, size)), 0);
            queued += size;
        }
        REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
        REQUIRE(drain_raw(fd, &received));
    }
    CHECK_EQ(received, SIZE);
    turn(f->loop);
    CHECK_EQ(bop_socket_queued(f->accepted[0].sock), 0);
    free(data);
    close(fd);
}

TEST(write, above_the_bound_is_refused_whole)
{
    int fd;

    bop_listener_close(f->listener);
    fixture_listen(f, (struct bop_listen_options){.limits.write_buffer_max = 5});
    fd = raw_connect(f, 0);
    write_text(&f->accepted[0], "abc");
    CHECK_EQ(bop_socket_write(f->accepted[0].sock, bytes("def")), BOP_EFULL);
    CHECK_EQ(bop_socket_queued(f->accepted[0].sock), 3);
    write_text(&f->accepted[0], "de");
    CHECK(bop_socket_output(f->accepted[0].sock) != NULL); /* At the bound, not above. */
    CHECK_EQ(bop_buf_append(bop_socket_output(f->accepted[0].sock), "f", 1), 0);
    CHECK_PTR_EQ(bop_socket_output(f->accepted[0].sock), NULL);
    CHECK_EQ(bop_socket_write(f->accepted[0].sock, bytes("g")), BOP_EFULL);
    bop_socket_flush_later(f->accepted[0].sock);
    turn(f->loop);
    write_text(&f->accepted[0], "ghi"); /* There is room again. */
    close(fd);
}

/* ---- Watermarks ---- */

TEST(drain, comes_once_when_a_high_queue_has_fallen)
{
    struct bop_socket_limits limits = {.write_high = 100, .write_low = 50};
    uint8_t data[101] = {0};
    int fd;

    bop_listener_close(f->listener);
    fixture_listen(f, (struct bop_listen_options){.limits = limits});
    fd = raw_connect(f, 0);
    REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(data, 100)), 0);
    turn(f->loop);
    turn(f->loop);
    CHECK_EQ(f->accepted[0].drains, 0); /* It was not above. */
    REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(data, 101)), 0);
    CHECK_EQ(f->accepted[0].drains, 0);
    turn(f->loop);
    turn(f->loop);
    CHECK_EQ(f->accepted[0].drains, 1);
    /* Also if it grew unseen, through the queue itself. */
    REQUIRE_EQ(bop_buf_append(bop_socket_output(f->accepted[0].sock), data, 101), 0);
    bop_socket_flush_later(f->accepted[0].sock);
    turn(f->loop);
    CHECK_EQ(f->accepted[0].drains, 2);
    close(fd);
}

static size_t produced;

/* Write until above the high watermark, as a well-behaved source does. */
static void produce(struct end *end)
{
    static uint8_t data[10007];

    while (produced < 20000000 && bop_socket_queued(end->sock) <= 100000) {
        fill_pattern(data, sizeof(data), produced);
        REQUIRE_EQ(bop_socket_write(end->sock, bop_slice(data, sizeof(data))), 0);
        produced += sizeof(data);
    }
}

/* A source that listens to on_pressure moves any amount through little memory. */
TEST(drain, lets_a_source_keep_pace_with_a_slow_reader)
{
    struct bop_socket_limits limits = {.write_high = 100000, .write_low = 20000};
    size_t received = 0, heap_max = 0, idle;
    int fd;

    bop_listener_close(f->listener);
    fixture_listen(f, (struct bop_listen_options){.limits = limits});
    fd = raw_connect(f, 8192);
    idle = f->heap.live;
    f->accepted[0].drain = produce;
    produced = 0;
    produce(&f->accepted[0]);
    while (received < produced || produced < 20000000) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
        REQUIRE(drain_raw(fd, &received));
        heap_max = bop_max_u64(heap_max, f->heap.live);
    }
    CHECK(f->accepted[0].drains > 10);
    /* The queue doubles: up to twice what is above the high watermark, the sent
     * part included. */
    CHECK(heap_max < idle + 600000);
    turn(f->loop);
    /* No more than the queue's buffer is left, as a spare. */
    CHECK(f->heap.live <= idle + 262144);
    close(fd);
}

/* ---- Close after flush ---- */

TEST(leave, sends_all_that_is_queued_first)
{
    enum { SIZE = 3000000 };
    uint8_t *data = malloc(SIZE);
    size_t received = 0;
    int fd = raw_connect(f, 4096);

    REQUIRE(data != NULL);
    fill_pattern(data, SIZE, 0);
    REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(data, SIZE)), 0);
    bop_socket_close_after_flush(f->accepted[0].sock, 60000);
    bop_socket_close_after_flush(f->accepted[0].sock, 1); /* The first one counts. */
    CHECK_EQ(bop_socket_write(f->accepted[0].sock, bytes("x")), BOP_ECLOSED);
    CHECK_PTR_EQ(bop_socket_output(f->accepted[0].sock), NULL);
    while (drain_raw(fd, &received)) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
    }
    CHECK_EQ(received, SIZE);
    CHECK_EQ(f->accepted[0].closes, 0); /* Until the peer has seen the end. */
    close(fd);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, BOP_ECANCELED);
    free(data);
}

/* A peer that goes on sending is no reason to reset it and lose the answer. */
TEST(leave, is_no_reset_for_a_peer_that_still_sends)
{
    char buffer[16];
    int fd = raw_connect(f, 0);

    raw_send(fd, "some", 4);
    write_text(&f->accepted[0], "bad request");
    bop_socket_close_after_flush(f->accepted[0].sock, 60000);
    turn(f->loop);
    raw_send(fd, "more", 4);
    turn(f->loop);
    raw_send(fd, "and more", 8);
    turn(f->loop);
    CHECK_EQ(f->accepted[0].datas, 0);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 11);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 0);
    close(fd);
    TURN_UNTIL(f->accepted[0].closes == 1);
}

TEST(leave, gives_up_on_a_peer_that_does_not_read)
{
    enum { SIZE = 30000000 };
    uint8_t *data = calloc(1, SIZE);
    int fd = raw_connect(f, 4096);

    REQUIRE(data != NULL);
    REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(data, SIZE)), 0);
    bop_socket_close_after_flush(f->accepted[0].sock, 20);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, BOP_ECANCELED);
    free(data);
    close(fd);
}

/* The peer has ended its side, but reads on. */
TEST(leave, sends_on_to_a_peer_that_has_ended_its_side)
{
    enum { SIZE = 3000000 };
    uint8_t *data = malloc(SIZE);
    size_t received = 0;
    int fd = raw_connect(f, 4096);

    REQUIRE(data != NULL);
    fill_pattern(data, SIZE, 0);
    REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(data, SIZE)), 0);
    bop_socket_close_after_flush(f->accepted[0].sock, 60000);
    shutdown(fd, SHUT_WR);
    while (drain_raw(fd, &received)) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
    }
    CHECK_EQ(received, SIZE);
    TURN_UNTIL(f->accepted[0].closes == 1);
    free(data);
    close(fd);
}

TEST(leave, sees_a_reset)
{
    enum { SIZE = 30000000 };
    uint8_t *data = calloc(1, SIZE);
    int fd = raw_connect(f, 4096);

    REQUIRE(data != NULL);
    REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(data, SIZE)), 0);
    bop_socket_close_after_flush(f->accepted[0].sock, 60000);
    shutdown(fd, SHUT_WR);
    turn(f->loop);
    turn(f->loop);
    raw_reset(fd);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK(f->accepted[0].reason < 0);
    free(data);
}

TEST(leave, while_connecting_sends_once_open)
{
    struct end client;

    end_init(&client, f);
    end_connect(&client, default_limits);
    write_text(&client, "hello");
    bop_socket_close_after_flush(client.sock, 60000);
    TURN_UNTIL(client.closes == 1);
    CHECK_EQ(client.reason, BOP_ECANCELED);
    CHECK_EQ(client.opens, 0); /* Nothing but on_close follows. */
    CHECK_SLICE_EQ(bop_buf_slice(&f->accepted[0].got), bytes("hello"));
}
