/*
 * Writing without copies: parts, counted buffers, files.
 */
#include <sys/resource.h>

#include <bop/shared.h>

#include "socket_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

/* Turn, and read `size` bytes that must be the pattern. */
static void await_pattern(struct fixture *f, int fd, size_t size)
{
    static uint8_t buffer[1 << 18];
    size_t received = 0;

    while (received < size) {
        ssize_t got = raw_receive(fd, buffer, bop_min_u64(sizeof(buffer), size - received));

        if (got == -EAGAIN) {
            REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
            continue;
        }
        REQUIRE(got > 0);
        REQUIRE(is_pattern(buffer, (size_t)got, received));
        received += (size_t)got;
    }
}

static struct bop_shared *shared_pattern(struct fixture *f, size_t size, size_t from)
{
    struct bop_shared *shared = bop_shared_create(&f->heap.allocator, size);

    REQUIRE(shared != NULL);
    fill_pattern(shared->data, size, from);
    return shared;
}

/* A file of the pattern from byte `from` of it, open for reading. */
static int pattern_file(size_t size, size_t from)
{
    const char *path = test_path(NULL, "file");
    uint8_t *data = malloc(size);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    REQUIRE(fd >= 0 && data != NULL);
    fill_pattern(data, size, from);
    REQUIRE_EQ(write(fd, data, size), size);
    free(data);
    return fd;
}

static void write_pattern(struct end *end, size_t size, size_t from)
{
    uint8_t *data = malloc(size);

    REQUIRE(data != NULL);
    fill_pattern(data, size, from);
    CHECK_EQ(bop_socket_write(end->sock, bop_slice(data, size)), 0);
    free(data);
}

TEST(parts, go_out_as_one_write)
{
    struct bop_slice parts[] = {bytes("head, "), {NULL, 0}, bytes("and body")};
    struct bop_socket_counters counters;
    char buffer[32];
    int fd;

    bop_listener_close(f->listener);
    fixture_listen(
        f, (struct bop_listen_options){.limits = {.counters = true, .write_buffer_max = 20}});
    fd = raw_connect(f, 0);
    CHECK_EQ(bop_socket_write_parts(f->accepted[0].sock, parts, 3), 0);
    CHECK_EQ(bop_socket_write_parts(f->accepted[0].sock, parts, 3), BOP_EFULL);
    CHECK_EQ(bop_socket_queued(f->accepted[0].sock), 14);
    CHECK_EQ(bop_socket_write_parts(f->accepted[0].sock, NULL, 0), 0);
    turn(f->loop);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 14);
    CHECK_MEM_EQ(buffer, "head, and body", 14);
    REQUIRE_EQ(bop_socket_counters(f->accepted[0].sock, &counters), 0);
    CHECK_EQ(counters.writes, 1);
    CHECK_EQ(counters.sends, 1);
    close(fd);
}

TEST(flush, sends_at_once)
{
    char buffer[16];
    int fd = raw_connect(f, 0);

    write_text(&f->accepted[0], "now");
    CHECK_EQ(bop_socket_flush(f->accepted[0].sock), 0);
    CHECK_EQ(raw_await(fd, buffer, sizeof(buffer)), 3);
    CHECK_EQ(bop_socket_flush(f->accepted[0].sock), 0); /* Of nothing. */
    close(fd);
}

TEST(shared, is_queued_by_reference_and_let_go_when_sent)
{
    struct bop_shared *shared = shared_pattern(f, 10000, 0);
    size_t before, after;
    int fd = raw_connect(f, 0);
    struct end *end = &f->accepted[0];

    write_text(end, "");
    before = f->heap.live;
    CHECK_EQ(bop_socket_write_shared(end->sock, shared, 0, 10000), 0);
    CHECK_EQ(atomic_load(&shared->references), 2);
    after = f->heap.live;
    CHECK(after - before < 2000);
    CHECK_EQ(bop_socket_queued(end->sock), 10000);
    await_pattern(f, fd, 10000);
    turn(f->loop);
    CHECK_EQ(atomic_load(&shared->references), 1);
    bop_shared_unref(shared);
    close(fd);
}

TEST(shared, of_few_bytes_is_copied)
{
    struct bop_shared *shared = shared_pattern(f, 511, 0);
    int fd = raw_connect(f, 0);

    CHECK_EQ(bop_socket_write_shared(f->accepted[0].sock, shared, 0, 511), 0);
    CHECK_EQ(atomic_load(&shared->references), 1);
    CHECK_EQ(bop_socket_write_shared(f->accepted[0].sock, shared, 500, 12), BOP_EINVAL);
    CHECK_EQ(bop_socket_write_shared(f->accepted[0].sock, shared, 512, 0), BOP_EINVAL);
    await_pattern(f, fd, 511);
    bop_shared_unref(shared);
    close(fd);
}

/* Copies, references and files, small and large, in one stream, to a slow reader. */
TEST(shared, copies_and_files_keep_their_order)
{
    size_t at = 0;
    int fd = raw_connect(f, 16384);
    struct end *end = &f->accepted[0];

    for (int i = 0; i < 60; i++) {
        static const size_t sizes[] = {100, 3000, 70000, 1, 600, 200000, 65536, 40};
        size_t size = sizes[i % BOP_COUNT_OF(sizes)];
        struct bop_shared *shared;

        switch (i % 3) {
        case 0:
            write_pattern(end, size, at);
            break;
        case 1:
            shared = bop_shared_create(&f->heap.allocator, size + 9);
            REQUIRE(shared != NULL);
            fill_pattern(shared->data + 4, size, at);
            CHECK_EQ(bop_socket_write_shared(end->sock, shared, 4, size), 0);
            bop_shared_unref(shared);
            break;
        default:
            CHECK_EQ(bop_socket_write_file(end->sock, pattern_file(size + 20, at + 251 * 4 - 10),
                                           10, size),
                     0);
            break;
        }
        at += size;
    }
    CHECK_EQ(bop_socket_queued(end->sock), at);
    await_pattern(f, fd, at);
    turn(f->loop);
    CHECK_EQ(bop_socket_queued(end->sock), 0);
    close(fd);
}

/* One message to a thousand sockets: no copy of it, and one block of memory each at most. */
TEST(shared, fans_out_without_a_copy)
{
    enum { COUNT = 200, SIZE = 100000 };
    struct bop_shared *shared;
    int *fds = calloc(COUNT, sizeof(*fds));
    size_t before;
    struct rlimit limit;

    REQUIRE(fds != NULL);
    REQUIRE_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    REQUIRE_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    shared = shared_pattern(f, SIZE, 0);
    for (int i = 0; i < COUNT; i++) {
        fds[i] = raw_connect(f, 0);
    }
    before = f->heap.live;
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(bop_socket_write_shared(f->accepted[i].sock, shared, 0, SIZE), 0);
    }
    CHECK_EQ(atomic_load(&shared->references), COUNT + 1);
    CHECK(f->heap.live - before <= COUNT * 1024);
    for (int i = 0; i < COUNT; i++) {
        await_pattern(f, fds[i], SIZE);
        close(fds[i]);
    }
    turn(f->loop);
    CHECK_EQ(atomic_load(&shared->references), 1);
    bop_shared_unref(shared);
    free(fds);
}

TEST(shared, is_let_go_when_the_socket_closes)
{
    struct bop_shared *shared = shared_pattern(f, 5000000, 0);
    int fd = raw_connect(f, 4096);

    CHECK_EQ(bop_socket_write_shared(f->accepted[0].sock, shared, 0, shared->size), 0);
    turn(f->loop);
    end_close(&f->accepted[0]);
    turn(f->loop);
    CHECK_EQ(atomic_load(&shared->references), 1);
    bop_shared_unref(shared);
    close(fd);
}

/* ---- Files ---- */

TEST(file, goes_out_in_part_and_is_closed)
{
    enum { SIZE = 2000000 };
    int file = pattern_file(SIZE, 251 - 77), fd = raw_connect(f, 0);

    CHECK_EQ(bop_socket_write_file(f->accepted[0].sock, file, 77, SIZE - 77), 0);
    CHECK_EQ(bop_socket_queued(f->accepted[0].sock), SIZE - 77);
    await_pattern(f, fd, SIZE - 77);
    turn(f->loop);
    CHECK_EQ(fcntl(file, F_GETFD), -1);
    close(fd);
}

TEST(file, that_is_shorter_than_said_closes_with_an_error)
{
    static const size_t sizes[] = {100, 100000};

    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        int file = pattern_file(sizes[i], 0), fd = raw_connect(f, 0);
        struct end *end = &f->accepted[i];

        CHECK_EQ(bop_socket_write_file(end->sock, file, 0, sizes[i] + 100000), 0);
        TURN_UNTIL(end->closes == 1);
        CHECK_EQ(end->reason, -EIO);
        CHECK_EQ(fcntl(file, F_GETFD), -1);
        close(fd);
    }
}

TEST(file, is_closed_also_when_it_is_refused)
{
    int fd = raw_connect(f, 0), file = dup(fd);

    CHECK_EQ(bop_socket_write_file(f->accepted[0].sock, file, UINT64_MAX, 1), BOP_EINVAL);
    CHECK_EQ(fcntl(file, F_GETFD), -1);
    file = dup(fd);
    CHECK_EQ(bop_socket_write_file(f->accepted[0].sock, file, 0, 0), 0);
    CHECK_EQ(fcntl(file, F_GETFD), -1);
    file = dup(fd);
    end_close(&f->accepted[0]);
    CHECK_EQ(bop_socket_write_file(f->accepted[0].sock, file, 0, 1), BOP_ECLOSED);
    CHECK_EQ(fcntl(file, F_GETFD), -1);
    turn(f->loop);
    file = dup(fd);
    CHECK_EQ(bop_socket_write_file(f->accepted[0].sock, file, 0, 1), BOP_ECLOSED);
    CHECK_EQ(fcntl(file, F_GETFD), -1);
    close(fd);
}

/* No signal, whatever a program does with SIGPIPE. */
TEST(file, to_a_dead_peer_is_an_error_and_no_signal)
{
    int file = pattern_file(30000000, 0), fd = raw_connect(f, 4096);

    bop_socket_pause(f->accepted[0].sock);
    CHECK_EQ(bop_socket_write_file(f->accepted[0].sock, file, 0, 30000000), 0);
    turn(f->loop);
    raw_reset(fd);
    TURN_UNTIL(f->accepted[0].closes == 1);
    CHECK(f->accepted[0].reason == -EPIPE || f->accepted[0].reason == -ECONNRESET);
}
