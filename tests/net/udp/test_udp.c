/*
 * UDP sockets: what is sent arrives, whole and with what belongs to it, or is
 * reported.
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bop/udp.h>

#include "../net_fixture.h"

/* What the kernel does in this program, reset before each test. */
static size_t kernel_takes; /* Messages in all, until it is set again. */
static int kernel_error;    /* Of the next call, once. */

/* Takes the place of the C library's. */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    int error = kernel_error, sent;

    kernel_error = 0;
    if (error != 0 || kernel_takes == 0) {
        errno = error != 0 ? error : EAGAIN;
        return -1;
    }
    count = (unsigned)bop_min_u64(count, kernel_takes);
    sent = (int)syscall(SYS_sendmmsg, fd, messages, count, flags);
    if (sent > 0 && kernel_takes != SIZE_MAX) {
        kernel_takes -= (size_t)sent;
    }
    return sent;
}

enum { GOT_MAX = 600 };

struct got {
    struct bop_address peer, local;
    uint32_t interface;
    uint8_t ecn;
    bool truncated;
    size_t size;
    uint8_t first; /* Byte. */
    uint32_t sum;  /* Of all bytes. */
};

/** A socket under test: what happened, and what to do then. */
struct end {
    struct bop_udp *udp;
    struct fixture *f;
    unsigned batches, drains, errors, closes;
    int error, reason;
    struct bop_address error_peer;
    size_t count, bytes;
    struct got got[GOT_MAX];
    bool echo, closes_itself, pauses_itself;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_loop *loop;
    struct end a, b, c;
};

static void setup(struct fixture *f)
{
    kernel_takes = SIZE_MAX;
    kernel_error = 0;
    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(
        bop_loop_create(&(struct bop_loop_options){.allocator = &f->heap.allocator}, &f->loop), 0);
}

static void teardown(struct fixture *f)
{
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->a.closes, f->a.udp != NULL);
    CHECK_EQ(f->b.closes, f->b.udp != NULL);
    CHECK_EQ(f->c.closes, f->c.udp != NULL);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void record(struct end *end, const struct bop_udp_datagram *datagram)
{
    struct got *got;

    end->bytes += datagram->bytes.size;
    if (end->count++ >= GOT_MAX) {
        return;
    }
    got = &end->got[end->count - 1];
    *got = (struct got){.peer = datagram->peer,
                        .local = datagram->local,
                        .interface = datagram->interface,
                        .ecn = datagram->ecn,
                        .truncated = datagram->truncated,
                        .size = datagram->bytes.size};
    for (size_t i = 0; i < datagram->bytes.size; i++) {
        got->sum += datagram->bytes.data[i];
    }
    got->first = datagram->bytes.size > 0 ? datagram->bytes.data[0] : 0;
}

static void on_datagrams(struct bop_udp *udp, void *user, const struct bop_udp_datagram *datagrams,
                         size_t count)
{
    struct end *end = user;

    CHECK_PTR_EQ(udp, end->udp);
    CHECK_EQ(end->closes, 0);
    CHECK(count > 0);
    end->batches++;
    for (size_t i = 0; i < count; i++) {
        record(end, &datagrams[i]);
        if (end->echo) {
            struct bop_udp_message message = {.bytes = datagrams[i].bytes,
                                              .to = &datagrams[i].peer,
                                              .from = &datagrams[i].local,
                                              .ecn = datagrams[i].ecn};

            CHECK_EQ(bop_udp_send(udp, &message, 1), 1);
        }
    }
    if (end->closes_itself) {
        bop_udp_close(udp);
    }
    if (end->pauses_itself) {
        bop_udp_pause(udp);
    }
}

static void on_drain(struct bop_udp *udp, void *user)
{
    ((struct end *)user)->drains++;
}

static void on_error(struct bop_udp *udp, void *user, int code, const struct bop_address *peer)
{
    struct end *end = user;

    end->errors++;
    end->error = code;
    end->error_peer = *peer;
}

static void on_close(struct bop_udp *udp, void *user, int reason)
{
    struct end *end = user;

    CHECK_PTR_EQ(udp, end->udp);
    CHECK(!bop_udp_is_open(udp));
    end->closes++;
    end->reason = reason;
}

static const struct bop_udp_events events = {
    .on_datagrams = on_datagrams, .on_drain = on_drain, .on_error = on_error, .on_close = on_close};

static int create(struct fixture *f, struct end *end, struct bop_udp_options options)
{
    end->f = f;
    options.events = &events;
    options.user = end;
    return bop_udp_create(f->loop, &options, &end->udp, NULL);
}

static void create_local(struct fixture *f, struct end *end)
{
    REQUIRE_EQ(create(f, end, (struct bop_udp_options){.host = "127.0.0.1"}), 0);
}

#define TURN_UNTIL(condition)                                                                      \
    do {                                                                                           \
        int turns_left_ = 5000;                                                                    \
        while (!(condition)) {                                                                     \
            REQUIRE(turns_left_-- > 0 && #condition);                                              \
            REQUIRE_EQ(bop_loop_run_once(f->loop, 10), 0);                                         \
        }                                                                                          \
    } while (0)

static bool has_ipv6(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

    close(fd);
    return has;
}

static void check_address(const struct bop_address *address, const char *host, uint16_t port)
{
    struct bop_address expected;

    REQUIRE_EQ(bop_address_parse(host, port, &expected), 0);
    CHECK(bop_address_equal(address, &expected));
}

/* ---- Making ---- */

TEST(create, binds_to_a_host_and_port)
{
    struct bop_address local;

    create_local(f, &f->a);
    local = bop_udp_local(f->a.udp);
    CHECK(local.port != 0);
    check_address(&local, "127.0.0.1", local.port);
    CHECK(bop_udp_is_open(f->a.udp));
    CHECK_PTR_EQ(bop_udp_user(f->a.udp), &f->a);
    CHECK_PTR_EQ(bop_udp_loop(f->a.udp), f->loop);
    CHECK(bop_udp_fd(f->a.udp) >= 0);
    CHECK_EQ(bop_udp_peer(f->a.udp).family, AF_UNSPEC);
    /* The very port, while it is taken. */
    CHECK_EQ(create(f, &f->b, (struct bop_udp_options){.host = "127.0.0.1", .port = local.port}),
             -EADDRINUSE);
    CHECK_PTR_EQ(f->b.udp, NULL);
    CHECK_EQ(create(f, &f->b, (struct bop_udp_options){.address = &local}), -EADDRINUSE);
}

TEST(create, without_a_host_binds_to_any_address)
{
    struct bop_address to;

    REQUIRE_EQ(create(f, &f->a, (struct bop_udp_options){.host = NULL}), 0);
    create_local(f, &f->b);
    to = bop_address_ipv4(0x7f000001, bop_udp_local(f->a.udp).port);
    REQUIRE_EQ(bop_udp_send_to(f->b.udp, &to, bytes("four")), 0);
    TURN_UNTIL(f->a.count == 1);
    /* IPv4 addresses are IPv4 addresses, whatever the socket's family. */
    check_address(&f->a.got[0].peer, "127.0.0.1", bop_udp_local(f->b.udp).port);
    check_address(&f->a.got[0].local, "127.0.0.1", to.port);
    f->a.echo = true;
    REQUIRE_EQ(bop_udp_send_to(f->b.udp, &to, bytes("back")), 0);
    TURN_UNTIL(f->b.count == 1);
    check_address(&f->b.got[0].peer, "127.0.0.1", to.port);
    if (has_ipv6()) {
        REQUIRE_EQ(create(f, &f->c, (struct bop_udp_options){.host = "::1"}), 0);
        REQUIRE_EQ(bop_address_parse("::1", to.port, &to), 0);
        REQUIRE_EQ(bop_udp_send_to(f->c.udp, &to, bytes("six")), 0);
        TURN_UNTIL(f->c.count == 1);
        check_address(&f->a.got[2].local, "::1", to.port);
    }
}

TEST(create, refuses_bad_options)
{
    static const char *const hosts[] = {"localhost", "256.1.1.1", "", "::g"};
    struct bop_udp_options none = {.host = "127.0.0.1"};
    struct bop_address address = {.family = AF_UNSPEC};
    struct bop_error err;

    CHECK_EQ(bop_udp_create(f->loop, &none, &f->a.udp, NULL), BOP_EINVAL);
    for (size_t i = 0; i < BOP_COUNT_OF(hosts); i++) {
        struct bop_udp_options options = {.host = hosts[i], .events = &events};

        CHECK_EQ(bop_udp_create(f->loop, &options, &f->a.udp, &err), BOP_EINVAL);
        CHECK_STR_HAS(err.message, "no numeric address");
    }
    CHECK_EQ(create(f, &f->a, (struct bop_udp_options){.address = &address}), BOP_EINVAL);
    CHECK_EQ(create(f, &f->a, (struct bop_udp_options){.host = "192.0.2.1"}), -EADDRNOTAVAIL);
}

/* ---- Sending and receiving ---- */

TEST(udp, carries_datagrams_whole)
{
    struct bop_address to;
    uint8_t data[3000];

    create_local(f, &f->a);
    create_local(f, &f->b);
    to = bop_udp_local(f->b.udp);
    memset(data, 7, sizeof(data));
    REQUIRE_EQ(bop_udp_send_to(f->a.udp, &to, bytes("x")), 0);
    REQUIRE_EQ(bop_udp_send_to(f->a.udp, &to, bop_slice(NULL, 0)), 0);
    REQUIRE_EQ(bop_udp_send_to(f->a.udp, &to, bop_slice(data, sizeof(data))), 0);
    TURN_UNTIL(f->b.count == 3);
    CHECK_EQ(f->b.got[0].size, 1);
    CHECK_EQ(f->b.got[0].first, 'x');
    CHECK_EQ(f->b.got[1].size, 0);
    CHECK_EQ(f->b.got[2].size, 3000);
    CHECK_EQ(f->b.got[2].sum, 21000);
    CHECK_EQ(f->b.batches, 1); /* One call brought all. */
    CHECK(f->b.got[0].interface == if_nametoindex("lo"));
    CHECK_EQ(bop_udp_counters(f->b.udp).datagrams_received, 3);
    CHECK_EQ(bop_udp_counters(f->b.udp).bytes_received, 3001);
    CHECK_EQ(bop_udp_counters(f->a.udp).datagrams_sent, 3);
}

TEST(udp, sends_a_batch_in_one_call)
{
    struct bop_udp_message messages[20] = {{.bytes = {0}}};
    struct bop_address to[2];
    uint8_t data[20];

    create_local(f, &f->a);
    create_local(f, &f->b);
    create_local(f, &f->c);
    to[0] = bop_udp_local(f->b.udp);
    to[1] = bop_udp_local(f->c.udp);
    for (uint8_t i = 0; i < 20; i++) {
        data[i] = i;
        messages[i] = (struct bop_udp_message){.bytes = bop_slice(&data[i], 1), .to = &to[i % 2]};
    }
    CHECK_EQ(bop_udp_send(f->a.udp, messages, 20), 20);
    CHECK_EQ(bop_udp_counters(f->a.udp).sends, 1);
    TURN_UNTIL(f->b.count == 10 && f->c.count == 10);
    for (uint8_t i = 0; i < 10; i++) {
        CHECK_EQ(f->b.got[i].first, 2 * i);
        CHECK_EQ(f->c.got[i].first, 2 * i + 1);
    }
    CHECK_EQ(bop_udp_send(f->a.udp, messages, 0), 0);
}

TEST(udp, echoes_among_several_sockets)
{
    struct bop_address to;

    create_local(f, &f->a);
    create_local(f, &f->b);
    create_local(f, &f->c);
    f->c.echo = true;
    to = bop_udp_local(f->c.udp);
    for (int i = 0; i < 100; i++) {
        REQUIRE_EQ(bop_udp_send_to(f->a.udp, &to, bytes("a")), 0);
        REQUIRE_EQ(bop_udp_send_to(f->b.udp, &to, bytes("bb")), 0);
        TURN_UNTIL(f->a.count == (size_t)i + 1 && f->b.count == (size_t)i + 1);
    }
    CHECK_EQ(f->a.bytes, 100);
    CHECK_EQ(f->b.bytes, 200);
    CHECK_EQ(f->c.count, 200);
}

TEST(udp, reports_what_is_truncated)
{
    uint8_t data[2000] = {0};
    struct bop_address to;

    for (int round = 0; round < 2; round++) {
        struct end *end = round == 0 ? &f->a : &f->b;

        REQUIRE_EQ(create(f, end,
                          (struct bop_udp_options){.host = "127.0.0.1",
                                                   .datagram_bytes_max = 1200,
                                                   .no_offload = round == 1}),
                   0);
        to = bop_udp_local(end->udp);
        REQUIRE_EQ(bop_udp_send_to(end->udp, &to, bop_slice(data, 1200)), 0);
        REQUIRE_EQ(bop_udp_send_to(end->udp, &to, bop_slice(data, 1201)), 0);
        TURN_UNTIL(end->count == 2);
        CHECK(!end->got[0].truncated);
        CHECK(end->got[1].truncated);
        CHECK_EQ(end->got[1].size, 1200);
        CHECK_EQ(bop_udp_counters(end->udp).truncated, 1);
    }
}

TEST(udp, of_more_than_a_datagram_holds_is_an_error)
{
    struct bop_address to;
    uint8_t *data = calloc(1, 70000);

    REQUIRE(data != NULL);
    create_local(f, &f->a);
    to = bop_udp_local(f->a.udp);
    CHECK_EQ(bop_udp_send_to(f->a.udp, &to, bop_slice(data, BOP_UDP_DATAGRAM_BYTES_MAX)), 0);
    CHECK_EQ(bop_udp_send_to(f->a.udp, &to, bop_slice(data, BOP_UDP_DATAGRAM_BYTES_MAX + 1)),
             -EMSGSIZE);
    TURN_UNTIL(f->a.count == 1);
    CHECK_EQ(f->a.got[0].size, BOP_UDP_DATAGRAM_BYTES_MAX);
    free(data);
}

TEST(udp, carries_congestion_marks_and_addresses_of_both_families)
{
    static const char *const hosts[] = {"127.0.0.1", "::1"};

    for (int i = 0; i < (has_ipv6() ? 2 : 1); i++) {
        struct end *end = i == 0 ? &f->a : &f->b;
        struct bop_address to;

        REQUIRE_EQ(create(f, end, (struct bop_udp_options){.host = hosts[i]}), 0);
        to = bop_udp_local(end->udp);
        for (uint8_t ecn = 0; ecn < 4; ecn++) {
            struct bop_udp_message message = {.bytes = bytes("x"), .to = &to, .ecn = ecn};

            CHECK_EQ(bop_udp_send(end->udp, &message, 1), 1);
            TURN_UNTIL(end->count == (size_t)ecn + 1);
            CHECK_EQ(end->got[ecn].ecn, ecn);
            check_address(&end->got[ecn].local, hosts[i], to.port);
        }
    }
}

TEST(udp, sends_from_the_address_asked_for)
{
    struct bop_address from = bop_address_ipv4(0x7f000005, 0), to;
    struct bop_udp_message message = {.bytes = bytes("x"), .to = &to, .from = &from};

    REQUIRE_EQ(create(f, &f->a, (struct bop_udp_options){.host = NULL}), 0);
    create_local(f, &f->b);
    to = bop_udp_local(f->b.udp);
    CHECK_EQ(bop_udp_send(f->a.udp, &message, 1), 1);
    TURN_UNTIL(f->b.count == 1);
    check_address(&f->b.got[0].peer, "127.0.0.5", bop_udp_local(f->a.udp).port);
    from.family = AF_INET6;
    CHECK_EQ(bop_udp_send(f->a.udp, &message, 1), BOP_EINVAL);
}

TEST(udp, to_an_address_it_cannot_reach_is_an_error)
{
    struct bop_address to;

    create_local(f, &f->a);
    REQUIRE_EQ(bop_address_parse("::1", 9, &to), 0);
    CHECK_EQ(bop_udp_send_to(f->a.udp, &to, bytes("x")), -EAFNOSUPPORT);
    CHECK_EQ(bop_udp_send_to(f->a.udp, NULL, bytes("x")), -EDESTADDRREQ);
    to.family = AF_UNSPEC;
    CHECK_EQ(bop_udp_send_to(f->a.udp, &to, bytes("x")), BOP_EINVAL);
    to = bop_address_ipv4(0xffffffff, 9);
    CHECK_EQ(bop_udp_send_to(f->a.udp, &to, bytes("x")), -EACCES); /* Broadcast is off. */
    CHECK_EQ(bop_udp_set_broadcast(f->a.udp, true), 0);
    CHECK(bop_udp_send_to(f->a.udp, &to, bytes("x")) != -EACCES);
}

/* The messages before a bad one are sent; it comes out when it is the first. */
TEST(udp, of_a_batch_sends_up_to_the_first_bad_one)
{
    struct bop_address good, bad;
    struct bop_udp_message messages[3] = {{.bytes = bytes("x"), .to = &good},
                                          {.bytes = bytes("y"), .to = &bad},
                                          {.bytes = bytes("z"), .to = &good}};

    create_local(f, &f->a);
    good = bop_udp_local(f->a.udp);
    bad = bop_address_ipv4(0xffffffff, 9);
    CHECK_EQ(bop_udp_send(f->a.udp, messages, 3), 1);
    CHECK_EQ(bop_udp_send(f->a.udp, messages + 1, 2), -EACCES);
    CHECK_EQ(bop_udp_send(f->a.udp, messages + 2, 1), 1);
    REQUIRE_EQ(bop_address_parse("::1", 9, &bad), 0);
    CHECK_EQ(bop_udp_send(f->a.udp, messages, 3), 1);
    CHECK_EQ(bop_udp_send(f->a.udp, messages + 1, 2), -EAFNOSUPPORT);
    TURN_UNTIL(f->a.count == 3);
}

/* ---- Runs: GSO and GRO ---- */

static void send_run(struct fixture *f, struct end *from, struct end *to_end, size_t size,
                     uint16_t segment_bytes)
{
    uint8_t *data = malloc(size);
    struct bop_address to = bop_udp_local(to_end->udp);
    struct bop_udp_message message = {
        .bytes = bop_slice(data, size), .to = &to, .segment_bytes = segment_bytes};
    size_t count = (size + segment_bytes - 1) / segment_bytes, before = to_end->count;

    REQUIRE(data != NULL);
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(i / segment_bytes);
    }
    REQUIRE_EQ(bop_udp_send(from->udp, &message, 1), 1);
    TURN_UNTIL(to_end->count == before + count);
    for (size_t i = 0; i < count; i++) {
        struct got *got = &to_end->got[before + i];
        size_t expected = i + 1 < count ? segment_bytes : size - i * segment_bytes;

        CHECK_EQ(got->size, expected);
        CHECK_EQ(got->first, i % 256);
        CHECK_EQ(got->sum, expected * (i % 256));
    }
    free(data);
}

TEST(run, arrives_as_the_datagrams_it_was_made_of)
{
    create_local(f, &f->a);
    create_local(f, &f->b);
    send_run(f, &f->a, &f->b, 10 * 1000 + 1, 1000);
    send_run(f, &f->a, &f->b, 1000, 1000);
    send_run(f, &f->a, &f->b, 999, 1000);
    send_run(f, &f->a, &f->b, 150, 1);       /* More than one run may have. */
    send_run(f, &f->a, &f->b, 130000, 1400); /* More bytes than one run may have. */
    test_note("GSO %d, GRO %d: %llu sends of %llu datagrams, %llu receives",
              bop_udp_counters(f->a.udp).has_gso, bop_udp_counters(f->b.udp).has_gro,
              (unsigned long long)bop_udp_counters(f->a.udp).sends,
              (unsigned long long)bop_udp_counters(f->a.udp).datagrams_sent,
              (unsigned long long)bop_udp_counters(f->b.udp).receives);
    CHECK_EQ(bop_udp_counters(f->a.udp).datagrams_sent, 11 + 1 + 1 + 150 + 93);
}

TEST(run, without_the_kernels_help_is_the_same)
{
    REQUIRE_EQ(create(f, &f->a, (struct bop_udp_options){.host = "127.0.0.1", .no_offload = true}),
               0);
    REQUIRE_EQ(create(f, &f->b, (struct bop_udp_options){.host = "127.0.0.1", .no_offload = true}),
               0);
    CHECK(!bop_udp_counters(f->a.udp).has_gso);
    CHECK(!bop_udp_counters(f->a.udp).has_gro);
    send_run(f, &f->a, &f->b, 10 * 1000 + 1, 1000);
    send_run(f, &f->a, &f->b, 150, 1);
}

/* Longer than lo's MTU: no run of these, so they go one by one, in fragments. */
TEST(run, of_datagrams_longer_than_the_mtu_goes_one_by_one)
{
    create_local(f, &f->a);
    create_local(f, &f->b);
    send_run(f, &f->a, &f->b, 100000 + 5, 50000);
}

/* ---- The queue ---- */

static void send_numbered(struct fixture *f, const struct bop_address *to, uint8_t from,
                          uint8_t count)
{
    for (uint8_t i = from; i < from + count; i++) {
        CHECK_EQ(bop_udp_send_to(f->a.udp, to, bop_slice(&i, 1)), 0);
    }
}

TEST(queue, takes_what_the_kernel_does_not_and_keeps_the_order)
{
    struct bop_address to;

    create_local(f, &f->a);
    create_local(f, &f->b);
    to = bop_udp_local(f->b.udp);
    send_numbered(f, &to, 0, 2);
    kernel_takes = 0;
    send_numbered(f, &to, 2, 50);
    CHECK_EQ(bop_udp_queued(f->a.udp), 50);
    turn(f->loop);
    CHECK_EQ(bop_udp_queued(f->a.udp), 50);
    kernel_takes = 5;
    turn(f->loop);
    CHECK_EQ(bop_udp_queued(f->a.udp), 45);
    send_numbered(f, &to, 52, 1); /* Not before those that wait. */
    CHECK_EQ(f->a.drains, 0);
    kernel_takes = SIZE_MAX;
    TURN_UNTIL(f->b.count == 53);
    CHECK_EQ(f->a.drains, 1);
    CHECK_EQ(bop_udp_queued(f->a.udp), 0);
    CHECK_EQ(bop_udp_counters(f->a.udp).queued, 51);
    for (unsigned i = 0; i < 53; i++) {
        CHECK_EQ(f->b.got[i].first, i);
    }
    turn(f->loop);
    CHECK_EQ(f->a.drains, 1);
}

TEST(queue, has_a_bound)
{
    static const uint8_t data[1000];
    struct bop_udp_message messages[12];
    struct bop_address to;

    REQUIRE_EQ(create(f, &f->a,
                      (struct bop_udp_options){.host = "127.0.0.1", .queue_bytes_max = 10 * 1064}),
               0);
    to = bop_udp_local(f->a.udp);
    for (size_t i = 0; i < 12; i++) {
        messages[i] = (struct bop_udp_message){.bytes = bop_slice(data, sizeof(data)), .to = &to};
    }
    kernel_takes = 0;
    CHECK_EQ(bop_udp_send(f->a.udp, messages, 12), 10);
    CHECK_EQ(bop_udp_send(f->a.udp, messages, 12), BOP_EFULL);
    CHECK_EQ(bop_udp_queued(f->a.udp), 10 * 1000);
    CHECK_EQ(bop_udp_counters(f->a.udp).refused, 2);
    kernel_takes = SIZE_MAX;
    TURN_UNTIL(f->a.count == 10);
    CHECK_EQ(bop_udp_send(f->a.udp, messages, 1), 1);
    messages[0].bytes.size = 10 * 1064 + 1;
    CHECK_EQ(bop_udp_send(f->a.udp, messages, 1), BOP_ETOOBIG);
    TURN_UNTIL(f->a.count == 11);
}

TEST(queue, of_empty_datagrams_has_a_bound)
{
    struct bop_address to;
    unsigned count = 0;

    REQUIRE_EQ(
        create(f, &f->a, (struct bop_udp_options){.host = "127.0.0.1", .queue_bytes_max = 6400}),
        0);
    to = bop_udp_local(f->a.udp);
    kernel_takes = 0;
    while (bop_udp_send_to(f->a.udp, &to, bop_slice(NULL, 0)) == 0) {
        count++;
    }
    CHECK_EQ(count, 101); /* One, and 100 that 64 bytes each are counted for. */
    kernel_takes = SIZE_MAX;
    TURN_UNTIL(f->a.count == count);
}

/* A run of which the kernel took a part. */
TEST(queue, keeps_the_rest_of_a_run)
{
    static uint8_t data[1000];
    struct bop_udp_message message = {.bytes = bop_slice(data, sizeof(data)), .segment_bytes = 10};
    struct bop_address to;

    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i / 10);
    }
    REQUIRE_EQ(create(f, &f->a, (struct bop_udp_options){.host = "127.0.0.1", .no_offload = true}),
               0);
    create_local(f, &f->b);
    to = bop_udp_local(f->b.udp);
    message.to = &to;
    kernel_takes = 3;
    CHECK_EQ(bop_udp_send(f->a.udp, &message, 1), 1);
    CHECK_EQ(bop_udp_queued(f->a.udp), 970);
    kernel_takes = 3;
    turn(f->loop);
    CHECK_EQ(bop_udp_queued(f->a.udp), 940);
    kernel_takes = SIZE_MAX;
    TURN_UNTIL(f->b.count == 100);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(f->b.got[i].first, i);
        CHECK_EQ(f->b.got[i].size, 10);
    }
}

TEST(queue, drops_and_tells_of_what_cannot_be_sent)
{
    struct bop_address bad = bop_address_ipv4(0xffffffff, 9), good;

    create_local(f, &f->a);
    good = bop_udp_local(f->a.udp);
    kernel_takes = 0;
    CHECK_EQ(bop_udp_send_to(f->a.udp, &bad, bytes("x")), 0);
    CHECK_EQ(bop_udp_send_to(f->a.udp, &good, bytes("y")), 0);
    kernel_takes = SIZE_MAX;
    TURN_UNTIL(f->a.count == 1);
    CHECK_EQ(f->a.errors, 1);
    CHECK_EQ(f->a.error, -EACCES);
    check_address(&f->a.error_peer, "255.255.255.255", 9);
    CHECK_EQ(bop_udp_counters(f->a.udp).dropped, 1);
    CHECK_EQ(f->a.drains, 1);
}

/* The kernel takes no runs: found out when it says so, and never asked again. */
TEST(run, that_the_device_refuses_goes_one_by_one)
{
    create_local(f, &f->a);
    create_local(f, &f->b);
    if (!bop_udp_counters(f->a.udp).has_gso) {
        TEST_SKIP("this kernel has no GSO for UDP");
    }
    kernel_error = EIO;
    send_run(f, &f->a, &f->b, 10 * 1000 + 1, 1000);
    CHECK(!bop_udp_counters(f->a.udp).has_gso);
}

/* ---- Connected ---- */

static uint16_t unused_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    REQUIRE_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_EQ(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

TEST(connected, hears_of_a_port_that_nobody_listens_on)
{
    struct bop_address peer = bop_address_ipv4(0x7f000001, unused_port());

    REQUIRE_EQ(create(f, &f->a, (struct bop_udp_options){.host = "127.0.0.1", .peer = &peer}), 0);
    CHECK_EQ(bop_udp_send_to(f->a.udp, NULL, bytes("x")), 0);
    TURN_UNTIL(f->a.errors == 1);
    CHECK_EQ(f->a.error, -ECONNREFUSED);
    CHECK(bop_address_equal(&f->a.error_peer, &peer));
    CHECK(bop_udp_is_open(f->a.udp));
    /* The next send meets the error of the one before: it is sent all the same. */
    CHECK_EQ(bop_udp_send_to(f->a.udp, NULL, bytes("x")), 0);
    CHECK_EQ(bop_udp_send_to(f->a.udp, NULL, bytes("y")), 0);
    CHECK_EQ(f->a.errors, 1); /* Told from the loop only. */
    TURN_UNTIL(f->a.errors >= 2);
    CHECK_EQ(bop_udp_counters(f->a.udp).datagrams_sent, 3);
}

TEST(connected, hears_its_peer_only_until_it_is_disconnected)
{
    struct bop_address a, b;
    uint16_t port;

    REQUIRE_EQ(create(f, &f->a, (struct bop_udp_options){.host = NULL}), 0);
    create_local(f, &f->b);
    create_local(f, &f->c);
    port = bop_udp_local(f->a.udp).port;
    a = bop_address_ipv4(0x7f000001, port);
    b = bop_udp_local(f->b.udp);
    REQUIRE_EQ(bop_udp_connect(f->a.udp, &b), 0);
    CHECK_EQ(bop_udp_local(f->a.udp).port, port);
    b = bop_udp_peer(f->a.udp);
    check_address(&b, "127.0.0.1", bop_udp_local(f->b.udp).port);
    CHECK_EQ(bop_udp_send_to(f->c.udp, &a, bytes("not for it")), 0);
    CHECK_EQ(bop_udp_send_to(f->b.udp, &a, bytes("for it")), 0);
    TURN_UNTIL(f->a.count == 1);
    CHECK_EQ(f->a.got[0].size, 6);
    REQUIRE_EQ(bop_udp_connect(f->a.udp, NULL), 0);
    CHECK_EQ(bop_udp_local(f->a.udp).port, port); /* Not given back. */
    CHECK_EQ(bop_udp_send_to(f->c.udp, &a, bytes("heard")), 0);
    TURN_UNTIL(f->a.count == 2);
    CHECK_EQ(f->a.got[1].size, 5);
}

/* ---- Groups ---- */

static void check_group(struct fixture *f, const char *group_host, const char *source_host)
{
    struct bop_udp_group group = {.interface = if_nametoindex("lo")};
    struct bop_address source, to;
    int rc;

    REQUIRE_EQ(create(f, &f->a, (struct bop_udp_options){.host = NULL, .reuse_address = true}), 0);
    REQUIRE_EQ(create(f, &f->b, (struct bop_udp_options){.host = source_host}), 0);
    REQUIRE_EQ(bop_address_parse(group_host, bop_udp_local(f->a.udp).port, &to), 0);
    group.group = to;
    if (source_host != NULL) {
        REQUIRE_EQ(bop_address_parse(source_host, 0, &source), 0);
        group.source = &source;
    }
    REQUIRE_EQ(bop_udp_join(f->a.udp, &group), 0);
    REQUIRE_EQ(bop_udp_set_multicast(f->b.udp, group.interface, 1, true), 0);
    rc = bop_udp_send_to(f->b.udp, &to, bytes("all"));
    if (rc == -ENETUNREACH) {
        TEST_SKIP("no way to groups on this machine");
    }
    REQUIRE_EQ(rc, 0);
    TURN_UNTIL(f->a.count == 1);
    check_address(&f->a.got[0].local, group_host, to.port);
    CHECK_EQ(f->a.got[0].interface, group.interface);
    CHECK_EQ(bop_udp_leave(f->a.udp, &group), 0);
    CHECK(bop_udp_leave(f->a.udp, &group) < 0);
    CHECK(bop_udp_join(f->a.udp, &(struct bop_udp_group){.group.family = AF_INET}) < 0);
}

TEST(group, of_ipv4_is_joined_and_left)
{
    check_group(f, "239.1.2.3", NULL);
}

TEST(group, of_ipv4_and_one_source)
{
    check_group(f, "232.1.2.3", "127.0.0.1");
}

TEST(group, of_ipv6_is_joined_and_left)
{
    if (!has_ipv6()) {
        TEST_SKIP("no IPv6 on this machine");
    }
    check_group(f, "ff02::1234%lo", NULL);
}

/* ---- Options ---- */

static int option_of(const struct end *end, int level, int option)
{
    int value = -1;
    socklen_t size = sizeof(value);

    REQUIRE_EQ(getsockopt(bop_udp_fd(end->udp), level, option, &value, &size), 0);
    return value;
}

TEST(option, each_is_set)
{
    REQUIRE_EQ(create(f, &f->a,
                      (struct bop_udp_options){.host = "127.0.0.1",
                                               .reuse_port = true,
                                               .broadcast = true,
                                               .dont_fragment = true,
                                               .ttl = 7,
                                               .receive_buffer_bytes = 50000,
                                               .send_buffer_bytes = 60000}),
               0);
    CHECK_EQ(option_of(&f->a, SOL_SOCKET, SO_REUSEPORT), 1);
    CHECK_EQ(option_of(&f->a, SOL_SOCKET, SO_BROADCAST), 1);
    CHECK_EQ(option_of(&f->a, IPPROTO_IP, IP_MTU_DISCOVER), IP_PMTUDISC_DO);
    CHECK_EQ(option_of(&f->a, IPPROTO_IP, IP_TTL), 7);
    CHECK_EQ(option_of(&f->a, SOL_SOCKET, SO_RCVBUF), 100000); /* The kernel doubles. */
    CHECK_EQ(option_of(&f->a, SOL_SOCKET, SO_SNDBUF), 120000);
    CHECK_EQ(bop_udp_set_ttl(f->a.udp, 9), 0);
    CHECK_EQ(option_of(&f->a, IPPROTO_IP, IP_TTL), 9);
    CHECK_EQ(bop_udp_set_dont_fragment(f->a.udp, false), 0);
    CHECK_EQ(option_of(&f->a, IPPROTO_IP, IP_MTU_DISCOVER), IP_PMTUDISC_DONT);
    /* Another one on the same port. */
    REQUIRE_EQ(create(f, &f->b,
                      (struct bop_udp_options){.host = "127.0.0.1",
                                               .port = bop_udp_local(f->a.udp).port,
                                               .reuse_port = true}),
               0);
}

/* ---- The end ---- */

TEST(close, comes_once_and_ends_the_handle)
{
    static const struct bop_udp_group group;
    struct bop_udp *old;

    create_local(f, &f->a);
    old = f->a.udp;
    bop_udp_close(old);
    bop_udp_close(old);
    CHECK_EQ(f->a.closes, 0);
    CHECK_EQ(bop_udp_fd(old), -1);
    turn(f->loop);
    CHECK_EQ(f->a.closes, 1);
    CHECK_EQ(f->a.reason, BOP_ECANCELED);
    create_local(f, &f->b); /* In the memory of the first, most likely. */
    bop_udp_close(old);
    bop_udp_pause(old);
    bop_udp_resume(old);
    CHECK(!bop_udp_is_open(old));
    CHECK_PTR_EQ(bop_udp_user(old), NULL);
    CHECK_PTR_EQ(bop_udp_loop(old), NULL);
    CHECK_EQ(bop_udp_local(old).family, AF_UNSPEC);
    CHECK_EQ(bop_udp_peer(old).family, AF_UNSPEC);
    CHECK_EQ(bop_udp_fd(old), -1);
    CHECK_EQ(bop_udp_queued(old), 0);
    CHECK_EQ(bop_udp_counters(old).sends, 0);
    CHECK_EQ(bop_udp_send_to(old, NULL, bytes("x")), BOP_ECLOSED);
    CHECK_EQ(bop_udp_connect(old, NULL), BOP_ECLOSED);
    CHECK_EQ(bop_udp_join(old, &group), BOP_ECLOSED);
    CHECK_EQ(bop_udp_set_ttl(old, 1), BOP_ECLOSED);
    CHECK_EQ(bop_udp_set_broadcast(old, true), BOP_ECLOSED);
    CHECK_EQ(bop_udp_set_dont_fragment(old, true), BOP_ECLOSED);
    CHECK_EQ(bop_udp_set_multicast(old, 0, 1, true), BOP_ECLOSED);
    CHECK(bop_udp_is_open(f->b.udp));
}

TEST(close, in_the_callback_ends_the_batches)
{
    struct bop_address to;

    create_local(f, &f->a);
    create_local(f, &f->b);
    f->a.closes_itself = true;
    to = bop_udp_local(f->a.udp);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(bop_udp_send_to(f->b.udp, &to, bytes("x")), 0);
    }
    TURN_UNTIL(f->a.closes == 1);
    CHECK_EQ(f->a.batches, 1);
}

TEST(close, drops_what_is_queued)
{
    struct bop_address to;

    create_local(f, &f->a);
    to = bop_udp_local(f->a.udp);
    kernel_takes = 0;
    send_numbered(f, &to, 0, 10);
    bop_udp_close(f->a.udp);
    CHECK_EQ(bop_udp_queued(f->a.udp), 0);
    turn(f->loop);
    CHECK_EQ(f->a.drains, 0);
}

TEST(close, by_the_end_of_the_loop)
{
    create_local(f, &f->a);
    create_local(f, &f->b);
    bop_udp_close(f->b.udp);
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    CHECK_EQ(f->a.closes, 1);
    CHECK_EQ(f->a.reason, BOP_ECANCELED);
    CHECK_EQ(f->b.closes, 1);
}

TEST(pause, leaves_datagrams_with_the_kernel)
{
    struct bop_address to;

    create_local(f, &f->a);
    f->a.pauses_itself = true;
    to = bop_udp_local(f->a.udp);
    CHECK_EQ(bop_udp_send_to(f->a.udp, &to, bytes("x")), 0);
    TURN_UNTIL(f->a.count == 1);
    CHECK_EQ(bop_udp_send_to(f->a.udp, &to, bytes("y")), 0);
    turn(f->loop);
    turn(f->loop);
    CHECK_EQ(f->a.count, 1);
    bop_udp_resume(f->a.udp);
    TURN_UNTIL(f->a.count == 2);
}

/* ---- Faults ---- */

TEST(udp, survives_each_fault)
{
    bop_loop_destroy(f->loop);
    f->loop = NULL;
    FAULT_SWEEP(&f->faults) {
        struct bop_loop_options options = {.allocator = &f->heap.allocator};
        struct bop_address to;
        int rc = bop_loop_create(&options, &f->loop);

        f->a = (struct end){.f = f};
        if (rc == 0) {
            rc = create(f, &f->a, (struct bop_udp_options){.host = "127.0.0.1"});
        }
        if (rc == 0) {
            to = bop_udp_local(f->a.udp);
            kernel_takes = 0;
            rc = bop_udp_send_to(f->a.udp, &to, bytes("x"));
            kernel_takes = SIZE_MAX;
        }
        CHECK_EQ(rc, f->faults.fired);
        if (rc == 0) {
            TURN_UNTIL(f->a.count == 1);
        }
        bop_loop_destroy(f->loop);
        f->loop = NULL;
        CHECK_EQ(f->a.closes, f->a.udp != NULL);
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK(f->faults.at >= 7);
}
