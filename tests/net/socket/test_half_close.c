/*
 * Ends of one direction: the peer's, ours, and reading given up.
 */
#include "socket_fixture.h"

static void setup(struct fixture *f)
{
    fixture_setup(f);
    f->full = true;
}

FIXTURE(setup, fixture_teardown)

static void turns(struct fixture *f)
{
    for (int i = 0; i < 3; i++) {
        turn(f->loop);
    }
}

TEST(half_close, by_the_peer_is_told_once_and_writing_goes_on)
{
    char buffer[16];
    int fd = raw_connect(f, 0);
    struct end *end = &f->accepted[0];

    raw_send(fd, "abc", 3);
    REQUIRE_EQ(shutdown(fd, SHUT_WR), 0);
    TURN_UNTIL(end->ends == 1);
    CHECK_SLICE_EQ(bop_buf_slice(&end->got), bytes("abc"));
    turns(f);
    CHECK_EQ(end->ends, 1);
    CHECK_EQ(end->closes, 0);
    CHECK(bop_socket_is_open(end->sock));
    write_text(end, "still here");
    turn(f->loop);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 10);
    /* And ours ends it: both are done. */
    CHECK_EQ(bop_socket_shutdown(end->sock), 0);
    TURN_UNTIL(end->closes == 1);
    CHECK_EQ(end->reason, 0);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 0);
    close(fd);
}

TEST(half_close, by_us_comes_after_what_is_queued_and_reading_goes_on)
{
    char buffer[16];
    int fd = raw_connect(f, 0);
    struct end *end = &f->accepted[0];

    write_text(end, "last words");
    CHECK_EQ(bop_socket_shutdown(end->sock), 0);
    CHECK_EQ(bop_socket_shutdown(end->sock), 0); /* Once is enough. */
    CHECK_EQ(bop_socket_write(end->sock, bytes("x")), BOP_ECLOSED);
    CHECK_PTR_EQ(bop_socket_output(end->sock), NULL);
    CHECK(!bop_socket_is_open(end->sock));
    turn(f->loop);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 10);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 0);
    raw_send(fd, "answer", 6);
    TURN_UNTIL(end->got.size == 6);
    CHECK_EQ(end->closes, 0);
    close(fd);
    TURN_UNTIL(end->closes == 1);
    CHECK_EQ(end->ends, 1);
    CHECK_EQ(end->reason, 0);
}

TEST(half_close, by_us_of_much_comes_after_all_of_it)
{
    enum { SIZE = 3000000 };
    uint8_t *data = calloc(1, SIZE), buffer[65536];
    size_t received = 0;
    int fd = raw_connect(f, 4096);

    REQUIRE(data != NULL);
    REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(data, SIZE)), 0);
    CHECK_EQ(bop_socket_shutdown(f->accepted[0].sock), 0);
    for (;;) {
        ssize_t got = raw_receive(fd, buffer, sizeof(buffer));

        REQUIRE(got >= 0 || got == -EAGAIN);
        if (got == 0) {
            break;
        }
        received += got > 0 ? (size_t)got : 0;
        REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
    }
    CHECK_EQ(received, SIZE);
    CHECK_EQ(f->accepted[0].closes, 0);
    free(data);
    close(fd);
}

/* Both ends on the loop: each ends its side in turn. */
TEST(half_close, in_both_directions_between_our_own)
{
    struct end client;

    end_init(&client, f);
    end_connect(&client, default_limits);
    TURN_UNTIL(client.opens == 1 && f->accepts == 1);
    write_text(&client, "question");
    CHECK_EQ(bop_socket_shutdown(client.sock), 0);
    TURN_UNTIL(f->accepted[0].ends == 1);
    CHECK_SLICE_EQ(bop_buf_slice(&f->accepted[0].got), bytes("question"));
    write_text(&f->accepted[0], "answer");
    CHECK_EQ(bop_socket_shutdown(f->accepted[0].sock), 0);
    TURN_UNTIL(client.closes == 1 && f->accepted[0].closes == 1);
    CHECK_SLICE_EQ(bop_buf_slice(&client.got), bytes("answer"));
    CHECK_EQ(client.ends, 1);
    CHECK_EQ(client.reason, 0);
    CHECK_EQ(f->accepted[0].reason, 0);
    bop_buf_deinit(&client.got);
}

TEST(half_close, before_it_is_open_comes_once_it_is)
{
    struct end client;

    end_init(&client, f);
    end_connect(&client, default_limits);
    write_text(&client, "hello");
    CHECK_EQ(bop_socket_shutdown(client.sock), 0);
    TURN_UNTIL(f->accepts == 1 && f->accepted[0].ends == 1);
    CHECK_EQ(client.opens, 1);
    CHECK_SLICE_EQ(bop_buf_slice(&f->accepted[0].got), bytes("hello"));
    end_finish(&client);
}

static void shut_down(struct end *end)
{
    CHECK_EQ(bop_socket_shutdown(end->sock), 0);
}

TEST(half_close, in_on_end)
{
    int fd = raw_connect(f, 0);

    f->accepted[0].finish = shut_down;
    REQUIRE_EQ(shutdown(fd, SHUT_WR), 0);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, 0);
    close(fd);
}

TEST(half_close, and_close_in_on_end)
{
    int fd = raw_connect(f, 0);

    f->accepted[0].finish = end_close;
    REQUIRE_EQ(shutdown(fd, SHUT_WR), 0);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, BOP_ECANCELED);
    close(fd);
}

/* Without on_end, what is queued still goes to a peer that has ended its side. */
TEST(half_close, that_nobody_hears_of_lets_the_queue_out)
{
    enum { SIZE = 3000000 };
    uint8_t *data = malloc(SIZE), *buffer = malloc(SIZE);
    size_t received = 0;
    int fd;

    REQUIRE(data != NULL && buffer != NULL);
    fill_pattern(data, SIZE, 0);
    f->full = false;
    fd = raw_connect(f, 4096);
    REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(data, SIZE)), 0);
    REQUIRE_EQ(shutdown(fd, SHUT_WR), 0);
    for (;;) {
        ssize_t got = raw_receive(fd, buffer, SIZE);

        REQUIRE(got >= 0 || got == -EAGAIN);
        if (got == 0) {
            break;
        }
        REQUIRE(got < 0 || is_pattern(buffer, (size_t)got, received));
        received += got > 0 ? (size_t)got : 0;
        REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
    }
    CHECK_EQ(received, SIZE);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK_EQ(f->accepted[0].reason, 0);
    free(data);
    free(buffer);
    close(fd);
}

TEST(half_close, waits_for_a_paused_reader)
{
    int fd = raw_connect(f, 0);
    struct end *end = &f->accepted[0];

    end->consume_max = 1;
    raw_send(fd, "abc", 3);
    TURN_UNTIL(end->datas == 1); /* "bc" is kept. */
    bop_socket_pause(end->sock);
    close(fd);
    turns(f);
    CHECK_EQ(end->ends, 0);
    bop_socket_resume(end->sock);
    TURN_UNTIL(end->ends == 1);
    /* What was kept came first. */
    CHECK_SLICE_EQ(bop_buf_slice(&end->got), bytes("ab"));
    CHECK_EQ(end->closes, 0);
}

/* ---- Reading given up ---- */

TEST(shutdown_read, drops_what_comes_and_writing_goes_on)
{
    static uint8_t chunk[100000];
    char buffer[16];
    int fd = raw_connect(f, 0);
    struct end *end = &f->accepted[0];

    CHECK_EQ(bop_socket_shutdown_read(end->sock), 0);
    for (int i = 0; i < 100; i++) { /* More than any buffer of the kernel's. */
        BOP_IGNORE(send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL | MSG_DONTWAIT)); /* Or waits. */
        turn(f->loop);
    }
    CHECK_EQ(end->datas, 0);
    write_text(end, "hello");
    turn(f->loop);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 5);
    close(fd);
    TURN_UNTIL(end->ends == 1 || end->closes == 1);
}

static size_t give_up_reading(struct end *end, struct bop_slice bytes)
{
    CHECK_EQ(bop_socket_shutdown_read(end->sock), 0);
    return 1;
}

TEST(shutdown_read, in_on_data_drops_the_rest)
{
    size_t before;
    int fd = raw_connect(f, 0);

    f->accepted[0].data = give_up_reading;
    before = f->heap.live;
    raw_send(fd, "abc", 3);
    TURN_UNTIL(f->accepted[0].datas == 1);
    raw_send(fd, "def", 3);
    turns(f);
    CHECK_EQ(f->accepted[0].datas, 1);
    CHECK_EQ(f->heap.live, before);
    close(fd);
}
