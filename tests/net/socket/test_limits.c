/*
 * Back-pressure, rates, timeouts and counters, on a clock that the test moves.
 */
#include "socket_fixture.h"

/* One fixture at a time: its clock. */
static struct net_clock test_clock;

static void setup(struct fixture *f)
{
    struct bop_loop_options options = {.allocator = &f->heap.allocator, .clock = &test_clock.clock};

    test_heap_init(&f->heap, &f->faults);
    net_clock_init(&test_clock, 1000);
    REQUIRE_EQ(bop_loop_create(&options, &f->loop), 0);
    f->full = true;
}

FIXTURE(setup, fixture_teardown)

static void pass_ms(struct fixture *f, uint64_t ms)
{
    test_clock.now_us += ms * 1000;
    turn(f->loop);
    turn(f->loop); /* What timers queued is sent, and what they closed is told. */
}

/* A raw socket and the accepted end, with these limits. */
static int connect_limited(struct fixture *f, struct bop_socket_limits limits, int receive_bytes)
{
    fixture_listen(f, (struct bop_listen_options){.limits = limits});
    return raw_connect(f, receive_bytes);
}

/* All that can be read now. Returns its size. */
static size_t drain_raw(int fd)
{
    static uint8_t buffer[1 << 20];
    size_t total = 0;

    for (;;) {
        ssize_t got = raw_receive(fd, buffer, sizeof(buffer));

        if (got <= 0) {
            return total;
        }
        total += (size_t)got;
    }
}

static struct bop_socket_counters counters_of(struct end *end)
{
    struct bop_socket_counters counters = {0};

    CHECK_EQ(bop_socket_counters(end->sock, &counters), 0);
    return counters;
}

/* Fill the kernel's buffers and the queue up to what it takes. */
static void stuff(struct end *end, size_t size)
{
    static uint8_t data[1 << 16];

    while (bop_socket_queued(end->sock) < size) {
        REQUIRE_EQ(bop_socket_write(end->sock, bop_slice(data, sizeof(data))), 0);
        turn(end->f->loop);
    }
}

/* ---- Watermarks ---- */

static void check_not_inside(struct end *end)
{
    CHECK(!end->in_callback);
}

TEST(pressure, comes_on_and_off_from_the_loop)
{
    static uint8_t data[2000];
    struct bop_socket_limits limits = {.write_high = 1000, .write_low = 500, .counters = true};
    int fd = connect_limited(f, limits, 0);
    struct end *end = &f->accepted[0];

    end->drain = check_not_inside;
    end->in_callback = true;
    CHECK_EQ(bop_socket_write(end->sock, bop_slice(data, 1001)), 0);
    CHECK_EQ(end->rises, 0);
    CHECK_EQ(bop_socket_flush(end->sock), 0);
    CHECK_EQ(end->rises, 0);
    end->in_callback = false;
    turn(f->loop);
    CHECK_EQ(end->rises, 1);
    CHECK_EQ(end->drains, 1);
    CHECK_EQ(counters_of(end).pressure, 1);
    close(fd);
}

TEST(pressure, stays_while_the_peer_does_not_read)
{
    struct bop_socket_limits limits = {.write_high = 1 << 20, .write_low = 1 << 19};
    int fd = connect_limited(f, limits, 4096);
    struct end *end = &f->accepted[0];

    stuff(end, (1 << 20) + 1);
    turn(f->loop);
    CHECK_EQ(end->rises, 1);
    CHECK_EQ(end->drains, 0);
    for (int i = 0; i < 100000 && end->drains == 0; i++) {
        drain_raw(fd);
        turn(f->loop);
    }
    CHECK_EQ(end->drains, 1);
    CHECK(bop_socket_queued(end->sock) <= 1 << 19);
    close(fd);
}

/* ---- What a full queue does ---- */

static void make_echo(struct end *end)
{
    end->echo = true;
}

/* A peer that sends without reading: the queue stays in bounds, and nothing is lost. */
TEST(full, pause_holds_reading_until_the_queue_is_low)
{
    enum { TOTAL = 12000000 };
    static uint8_t chunk[1 << 16];
    struct bop_socket_limits limits = {
        .when_full = BOP_SOCKET_PAUSE, .write_high = 100000, .write_low = 50000};
    size_t sent = 0, received = 0, most = 0;
    int fd;

    f->prepare = make_echo;
    fd = connect_limited(f, limits, 4096);
    for (int i = 0; i < 1000; i++) { /* Until all is full. */
        ssize_t went = send(fd, chunk, bop_min_u64(sizeof(chunk), TOTAL - sent),
                            MSG_NOSIGNAL | MSG_DONTWAIT);

        sent += went > 0 ? (size_t)went : 0;
        turn(f->loop);
        most = bop_max_u64(most, bop_socket_queued(f->accepted[0].sock));
    }
    CHECK(sent < TOTAL);
    CHECK(most > 100000);
    CHECK(most < 100000 + 256 * 1024); /* One read more than the mark. */
    while (received < TOTAL) {
        ssize_t went = sent < TOTAL ? send(fd, chunk, bop_min_u64(sizeof(chunk), TOTAL - sent),
                                           MSG_NOSIGNAL | MSG_DONTWAIT)
                                    : 0;

        sent += went > 0 ? (size_t)went : 0;
        received += drain_raw(fd);
        turn(f->loop);
        REQUIRE_EQ(f->accepted[0].closes, 0);
    }
    CHECK_EQ(received, TOTAL);
    close(fd);
}

static struct bop_socket_limits full_at(enum bop_socket_full when_full, size_t bound)
{
    return (struct bop_socket_limits){
        .when_full = when_full, .write_buffer_max = bound, .counters = true};
}

TEST(full, drop_newest_drops_the_write_itself)
{
    char buffer[16];
    int fd = connect_limited(f, full_at(BOP_SOCKET_DROP_NEWEST, 6), 0);
    struct end *end = &f->accepted[0];

    write_text(end, "abcd");
    write_text(end, "efg");
    write_text(end, "hi");
    CHECK_EQ(bop_socket_queued(end->sock), 6);
    CHECK_EQ(counters_of(end).dropped, 1);
    turn(f->loop);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 6);
    CHECK_MEM_EQ(buffer, "abcdhi", 6);
    close(fd);
}

TEST(full, drop_oldest_drops_whole_writes_from_the_front)
{
    char buffer[16];
    int fd = connect_limited(f, full_at(BOP_SOCKET_DROP_OLDEST, 10), 0);
    struct end *end = &f->accepted[0];

    write_text(end, "aaaa");
    write_text(end, "bbb");
    write_text(end, "ccc");
    write_text(end, "ddddd"); /* Takes the room of the first two. */
    CHECK_EQ(bop_socket_queued(end->sock), 8);
    CHECK_EQ(counters_of(end).dropped, 2);
    CHECK_EQ(bop_socket_write(end->sock, bytes("more than ten")), BOP_EFULL);
    CHECK_EQ(counters_of(end).dropped, 2);
    turn(f->loop);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 8);
    CHECK_MEM_EQ(buffer, "cccddddd", 8);
    close(fd);
}

/* Messages numbered and framed: those that come are whole, in order, the last among them. */
TEST(full, drop_oldest_never_cuts_a_message)
{
    enum { SIZE = 1000, COUNT = 40000 };
    static uint8_t message[SIZE], got[SIZE];
    struct bop_socket_limits limits = full_at(BOP_SOCKET_DROP_OLDEST, 200 * SIZE);
    uint32_t last = 0, number;
    size_t have = 0, received = 0;
    int fd = connect_limited(f, limits, 4096);

    for (uint32_t i = 1; i <= COUNT; i++) {
        bop_store_u32(message, i);
        memset(message + 4, (int)(i & 0xff), SIZE - 4);
        REQUIRE_EQ(bop_socket_write(f->accepted[0].sock, bop_slice(message, SIZE)), 0);
        if (i % 50 == 0) {
            turn(f->loop);
        }
        while (i % 500 == 0 || i == COUNT) {
            ssize_t size = raw_receive(fd, got + have, SIZE - have);

            if (size <= 0) {
                if (i < COUNT || bop_socket_queued(f->accepted[0].sock) == 0) {
                    break;
                }
                turn(f->loop);
                continue;
            }
            have += (size_t)size;
            if (have == SIZE) {
                number = bop_load_u32(got);
                REQUIRE(number > last);
                REQUIRE(got[4] == (number & 0xff) && got[SIZE - 1] == (number & 0xff));
                last = number;
                have = 0;
                received++;
            }
        }
    }
    while (last < COUNT) {
        ssize_t size = raw_await(fd, got + have, SIZE - have);

        REQUIRE(size > 0);
        have = (have + (size_t)size) % SIZE;
        if (have == 0) {
            last = bop_load_u32(got);
            received++;
        }
    }
    CHECK_EQ(received + counters_of(&f->accepted[0]).dropped, COUNT);
    close(fd);
}

TEST(full, close_closes)
{
    int fd = connect_limited(f, full_at(BOP_SOCKET_CLOSE, 6), 0);

    write_text(&f->accepted[0], "abcd");
    CHECK_EQ(bop_socket_write(f->accepted[0].sock, bytes("efg")), BOP_EFULL);
    turn(f->loop);
    CHECK_EQ(f->accepted[0].closes, 1);
    CHECK_EQ(f->accepted[0].reason, BOP_EFULL);
    close(fd);
}

/* ---- Timeouts ---- */

TEST(idle, is_told_after_so_long_without_a_byte)
{
    int fd = connect_limited(f, (struct bop_socket_limits){.idle_timeout_ms = 100}, 0);
    struct end *end = &f->accepted[0];

    pass_ms(f, 99);
    CHECK_EQ(end->idles, 0);
    raw_send(fd, "x", 1);
    pass_ms(f, 0);
    CHECK_EQ(end->got.size, 1);
    pass_ms(f, 99);
    CHECK_EQ(end->idles, 0); /* Reading counts, */
    write_text(end, "y");
    pass_ms(f, 0);
    pass_ms(f, 99);
    CHECK_EQ(end->idles, 0); /* and so does writing. */
    pass_ms(f, 1);
    CHECK_EQ(end->idles, 1);
    pass_ms(f, 99);
    CHECK_EQ(end->idles, 1);
    pass_ms(f, 1);
    CHECK_EQ(end->idles, 2); /* Again and again. */
    CHECK_EQ(end->closes, 0);
    close(fd);
}

TEST(idle, that_nobody_hears_of_closes)
{
    int fd;

    f->full = false;
    fd = connect_limited(f, (struct bop_socket_limits){.idle_timeout_ms = 100}, 0);
    pass_ms(f, 100);
    CHECK_EQ(f->accepted[0].closes, 1);
    CHECK_EQ(f->accepted[0].reason, -ETIMEDOUT);
    close(fd);
}

TEST(idle, can_be_changed_and_ended)
{
    int fd = connect_limited(f, (struct bop_socket_limits){.idle_timeout_ms = 100}, 0);
    struct end *end = &f->accepted[0];

    bop_socket_set_idle_timeout(end->sock, 30);
    pass_ms(f, 30);
    CHECK_EQ(end->idles, 1);
    bop_socket_set_idle_timeout(end->sock, 1000);
    pass_ms(f, 999);
    CHECK_EQ(end->idles, 1);
    pass_ms(f, 1);
    CHECK_EQ(end->idles, 2);
    bop_socket_set_idle_timeout(end->sock, 0);
    pass_ms(f, 1000000);
    CHECK_EQ(end->idles, 2);
    close(fd);
}

/* Longer than 32 bits of milliseconds tell apart. */
TEST(idle, of_years_never_comes_early)
{
    struct bop_socket_limits limits = {.idle_timeout_ms = UINT64_MAX / 2};
    int fd = connect_limited(f, limits, 0);

    for (int day = 0; day < 20; day++) {
        pass_ms(f, 24ull * 3600 * 1000);
    }
    CHECK_EQ(f->accepted[0].idles, 0);
    close(fd);
}

TEST(idle, while_connecting_is_for_when_it_is_open)
{
    struct end client;

    fixture_listen(f, (struct bop_listen_options){.port = 0});
    end_init(&client, f);
    end_connect(&client, (struct bop_socket_limits){.idle_timeout_ms = 5});
    bop_socket_set_idle_timeout(client.sock, 50);
    TURN_UNTIL(client.opens == 1);
    pass_ms(f, 49);
    CHECK_EQ(client.idles, 0);
    pass_ms(f, 1);
    CHECK_EQ(client.idles, 1);
    end_finish(&client);
}

TEST(lifetime, is_told_once)
{
    int fd = connect_limited(f, (struct bop_socket_limits){.lifetime_ms = 500}, 0);
    struct end *end = &f->accepted[0];

    for (int i = 0; i < 4; i++) {
        raw_send(fd, "x", 1);
        pass_ms(f, 100);
    }
    pass_ms(f, 99);
    CHECK_EQ(end->lifetimes, 0);
    pass_ms(f, 1);
    CHECK_EQ(end->lifetimes, 1);
    pass_ms(f, 10000);
    CHECK_EQ(end->lifetimes, 1);
    bop_socket_set_lifetime(end->sock, 10);
    pass_ms(f, 10);
    CHECK_EQ(end->lifetimes, 2);
    bop_socket_set_lifetime(end->sock, 10);
    bop_socket_set_lifetime(end->sock, 0);
    pass_ms(f, 10);
    CHECK_EQ(end->lifetimes, 2);
    close(fd);
}

TEST(lifetime, that_nobody_hears_of_closes)
{
    int fd;

    f->full = false;
    fd = connect_limited(f, (struct bop_socket_limits){.lifetime_ms = 500}, 0);
    pass_ms(f, 500);
    CHECK_EQ(f->accepted[0].closes, 1);
    CHECK_EQ(f->accepted[0].reason, -ETIMEDOUT);
    close(fd);
}

TEST(pause_max, closes_on_a_peer_that_never_reads)
{
    struct bop_socket_limits limits = {
        .write_high = 1 << 20, .write_low = 1 << 19, .pause_max_ms = 5000};
    int fd = connect_limited(f, limits, 4096);
    struct end *end = &f->accepted[0];

    stuff(end, (1 << 20) + 1);
    turn(f->loop);
    CHECK_EQ(end->rises, 1);
    pass_ms(f, 4999);
    CHECK_EQ(end->closes, 0);
    pass_ms(f, 1);
    CHECK_EQ(end->closes, 1);
    CHECK_EQ(end->reason, -ETIMEDOUT);
    close(fd);
}

TEST(pause_max, starts_anew_with_each_rise)
{
    struct bop_socket_limits limits = {
        .write_high = 1 << 20, .write_low = 1 << 19, .pause_max_ms = 5000};
    int fd = connect_limited(f, limits, 4096);
    struct end *end = &f->accepted[0];

    stuff(end, (1 << 20) + 1);
    turn(f->loop);
    pass_ms(f, 4999);
    for (int i = 0; i < 100000 && end->drains == 0; i++) {
        drain_raw(fd);
        turn(f->loop);
    }
    CHECK_EQ(end->drains, 1);
    pass_ms(f, 100000);
    CHECK_EQ(end->closes, 0);
    close(fd);
}

/* ---- Rates ---- */

/* So many bytes in each second: all arrive, none early. */
TEST(rate, of_writing_makes_it_wait_and_loses_nothing)
{
    struct bop_socket_limits limits = {.write_rate = {.bytes_per_s = 10000, .burst_bytes = 5000},
                                       .counters = true};
    static uint8_t data[50000], buffer[50000];
    size_t received = 0;
    uint64_t passed_ms = 0;
    int fd = connect_limited(f, limits, 0);
    struct end *end = &f->accepted[0];

    fill_pattern(data, sizeof(data), 0);
    CHECK_EQ(bop_socket_write(end->sock, bop_slice(data, sizeof(data))), 0);
    turn(f->loop);
    while (received < sizeof(data)) {
        ssize_t got = raw_receive(fd, buffer, sizeof(buffer));

        if (got > 0) {
            REQUIRE(is_pattern(buffer, (size_t)got, received));
            received += (size_t)got;
            REQUIRE(received <= 5000 + passed_ms * 10);
        }
        REQUIRE(passed_ms < 10000);
        pass_ms(f, 10);
        passed_ms += 10;
    }
    CHECK(passed_ms >= 4500 && passed_ms < 5200);
    CHECK(end->limits > 0);
    CHECK_EQ(counters_of(end).limited, end->limits);
    CHECK_EQ(end->closes, 0);
    close(fd);
}

TEST(rate, of_reading_makes_the_peer_wait)
{
    struct bop_socket_limits limits = {.read_rate = {.bytes_per_s = 10000, .burst_bytes = 5000}};
    static uint8_t data[30000];
    uint64_t passed_ms = 0;
    int fd = connect_limited(f, limits, 0);
    struct end *end = &f->accepted[0];

    fill_pattern(data, sizeof(data), 0);
    raw_send(fd, data, sizeof(data));
    while (end->got.size < sizeof(data)) {
        REQUIRE(end->got.size <= 5000 + passed_ms * 10);
        REQUIRE(passed_ms < 10000);
        pass_ms(f, 10);
        passed_ms += 10;
    }
    CHECK(is_pattern(end->got.data, sizeof(data), 0));
    CHECK(passed_ms >= 2500 && passed_ms < 3200);
    CHECK(end->limits > 0);
    close(fd);
    TURN_UNTIL(end->ends == 1);
}

TEST(rate, of_operations_counts_writes)
{
    struct bop_socket_limits limits = {
        .write_rate = {.algorithm = BOP_RATE_FIXED_WINDOW, .operations_per_s = 3},
        .counters = true};
    int fd = connect_limited(f, limits, 0);
    struct end *end = &f->accepted[0];

    for (int i = 0; i < 5; i++) {
        write_text(end, "x");
        turn(f->loop);
    }
    CHECK_EQ(counters_of(end).sends, 3);
    CHECK_EQ(bop_socket_queued(end->sock), 2);
    pass_ms(f, 1000);
    CHECK_EQ(counters_of(end).sends, 4); /* Both in one. */
    CHECK_EQ(bop_socket_queued(end->sock), 0);
    close(fd);
}

/* ---- Counters ---- */

TEST(counters, count)
{
    struct bop_socket_counters counters;
    int fd = connect_limited(f, (struct bop_socket_limits){.counters = true}, 0);
    struct end *end = &f->accepted[0];

    raw_send(fd, "abc", 3);
    TURN_UNTIL(end->datas == 1);
    write_text(end, "de");
    write_text(end, "fgh");
    turn(f->loop);
    bop_socket_pause(end->sock);
    bop_socket_resume(end->sock);
    counters = counters_of(end);
    CHECK_EQ(counters.bytes_received, 3);
    CHECK_EQ(counters.reads, 1);
    CHECK_EQ(counters.writes, 2);
    CHECK_EQ(counters.sends, 1);
    CHECK_EQ(counters.bytes_sent, 5);
    CHECK_EQ(counters.pauses, 1);
    close(fd);
}

TEST(counters, are_kept_only_if_asked_for)
{
    struct bop_socket_counters counters;
    int fd = connect_limited(f, (struct bop_socket_limits){.counters = false}, 0);

    CHECK_EQ(bop_socket_counters(f->accepted[0].sock, &counters), BOP_EUNSUPPORTED);
    close(fd);
}
