/*
 * The client's watches against a fake cluster: whatever connections and servers do,
 * each event is told once, in order, or it is said that some are missing.
 */
#include <stdio.h>

#include <bop/client_lock.h>
#include <bop/client_watch.h>

#include "client_help.h"
#include "fake_cluster.h"

#define NEWS_MAX  64
#define OPENS_MAX 32

struct told {
    int code;
    uint64_t revision;
    uint8_t flags;
    unsigned count;
    char key[16];
};

/* An open that a node got. */
struct opened {
    struct fake_node *node;
    struct bop_socket *tcp;
    uint32_t id;
    uint8_t flags;
    uint64_t revision;
    char from[16];
    size_t to_size;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_loop *loop;
    struct fake_cluster cluster;
    struct bop_client *client;
    const char *endpoints[FAKE_NODES];
    struct bop_client_watch *watch;
    struct told news[NEWS_MAX];
    unsigned news_count;
    struct opened opens[OPENS_MAX];
    unsigned open_count;
    unsigned close_count;
    unsigned ack_count;
    uint64_t acked;
    unsigned news_at_ack; /* How many had been told when the last one was sent. */
    bool close_in_news;   /* The next news closes f->watch. */
};

static void on_watch(void *user, struct fake_node *node, struct bop_socket *tcp,
                     const struct bop_wire_frame *frame)
{
    struct fixture *f = (struct fixture *)user;
    struct bop_watch_open_request request;
    struct bop_watch_close_request close;
    struct bop_watch_ack ack;
    struct opened *opened = &f->opens[f->open_count];

    if (frame->kind == BOP_WIRE_KIND_WATCH_CLOSE_REQUEST) {
        uint8_t status = BOP_STATUS_OK;

        CHECK_EQ(bop_watch_close_request_decode(frame->payload, &close), 0);
        f->close_count++;
        fake_node_say(tcp, BOP_WIRE_KIND_WATCH_CLOSE_RESPONSE, frame->request,
                      bop_slice(&status, 1));
        return;
    }
    if (frame->kind == BOP_WIRE_KIND_WATCH_ACK) {
        REQUIRE_EQ(bop_watch_ack_decode(frame->payload, &ack), 0);
        CHECK_EQ(ack.flags, 0);
        f->acked = ack.revision;
        f->news_at_ack = f->news_count;
        f->ack_count++;
        return;
    }
    REQUIRE(f->open_count < OPENS_MAX);
    REQUIRE_EQ(bop_watch_open_request_decode(frame->payload, &request), 0);
    *opened = (struct opened){.node = node,
                              .tcp = tcp,
                              .id = frame->request,
                              .flags = request.flags,
                              .revision = request.revision,
                              .to_size = request.to.size};
    snprintf(opened->from, sizeof(opened->from), "%.*s", (int)request.from.size,
             (const char *)request.from.data);
    f->open_count++;
}

static void on_news(void *user, const struct bop_client_news *news)
{
    struct fixture *f = (struct fixture *)user;
    struct told *told = &f->news[f->news_count];
    struct bop_slice rest = news->events;
    struct bop_event event;

    REQUIRE(f->news_count < NEWS_MAX);
    *told = (struct told){.code = news->code, .revision = news->revision, .flags = news->flags};
    while (bop_event_next(&rest, &event) > 0) {
        if (told->count++ == 0) {
            snprintf(told->key, sizeof(told->key), "%.*s", (int)event.key.size,
                     (const char *)event.key.data);
        }
    }
    f->news_count++;
    if (news->code != 0) {
        f->watch = NULL;
    } else if (f->close_in_news) {
        f->close_in_news = false;
        bop_client_watch_close(f->watch);
        f->watch = NULL;
    }
}

static void setup(struct fixture *f)
{
    struct bop_loop_options options = {0};
    struct bop_client_options client = {
        .allocator = &f->heap.allocator,
        .endpoints = f->endpoints,
        .endpoint_count = FAKE_NODES,
        .silence_timeout_ms = 60000,
        .pin = true, /* What it is told comes from where the test says it. */
    };

    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_loop_create(&options, &f->loop), 0);
    fake_cluster_start(&f->cluster, f->loop, FAKE_NODES);
    f->cluster.on_watch = on_watch;
    f->cluster.watch_user = f;
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        f->endpoints[i] = f->cluster.nodes[i].address;
    }
    client.loop = f->loop;
    REQUIRE_EQ(bop_client_create(&client, &f->client, NULL), 0);
}

static void teardown(struct fixture *f)
{
    bop_client_destroy(f->client);
    fake_cluster_stop(&f->cluster);
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* ---- Turning ---- */

static bool turn_until(struct fixture *f, const unsigned *number, unsigned at_least)
{
    uint64_t begun = bop_loop_now_ms(f->loop);

    while (*number < at_least) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 100), 0);
        if (bop_loop_now_ms(f->loop) - begun > PATIENCE_MS) {
            return false;
        }
    }
    return true;
}

/* The n-th open that came, from 1. */
static struct opened *open_of(struct fixture *f, unsigned n)
{
    REQUIRE(turn_until(f, &f->open_count, n));
    return &f->opens[n - 1];
}

static const struct told *news_of(struct fixture *f, unsigned n)
{
    REQUIRE(turn_until(f, &f->news_count, n));
    return &f->news[n - 1];
}

static void start(struct fixture *f, uint8_t flags, uint64_t revision)
{
    struct bop_client_watch_options options = {
        .what = BOP_WATCH_MAP, .name = bytes("m"), .flags = flags, .revision = revision};

    REQUIRE_EQ(bop_client_watch_open(f->client, &options, on_news, f, &f->watch), 0);
}

/* ---- What nodes say ---- */

static void say_opened(const struct opened *opened, uint8_t status, uint64_t revision)
{
    struct bop_watch_open_response response = {.status = status, .revision = revision};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop_watch_open_response_encode(&writer, &response);
    fake_node_say(opened->tcp, BOP_WIRE_KIND_WATCH_OPEN_RESPONSE, opened->id, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

/* Events of one put each, of the keys, which are letters. */
static void say(const struct opened *opened, uint32_t id, uint64_t revision, uint8_t flags,
                const char *keys)
{
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop_write_u64(&writer, revision);
    bop_write_u8(&writer, flags);
    for (; *keys; keys++) {
        struct bop_event event = {
            .type = BOP_EVENT_MAP_PUT, .name = bytes("m"), .key = bop_slice(keys, 1)};

        bop_event_encode(&writer, &event);
    }
    fake_node_say(opened->tcp, BOP_WIRE_KIND_WATCH_EVENTS, id, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

static void check_news(struct fixture *f, unsigned n, uint64_t revision, uint8_t flags,
                       unsigned count, const char *key)
{
    const struct told *told = news_of(f, n);

    CHECK_EQ(told->code, 0);
    CHECK_EQ(told->revision, revision);
    CHECK_EQ(told->flags, flags);
    CHECK_EQ(told->count, count);
    CHECK_STR_EQ(told->key, key);
}

/* ---- Tests ---- */

TEST(client_watch, is_told_what_the_server_tells)
{
    struct bop_slice key = bytes("abc");
    struct bop_client_watch_options options = {
        .what = BOP_WATCH_MAP, .name = bytes("m"), .key = &key, .flags = BOP_WATCH_PREVIOUS};
    struct opened *opened;

    REQUIRE_EQ(bop_client_watch_open(f->client, &options, on_news, f, &f->watch), 0);
    opened = open_of(f, 1);
    CHECK_STR_EQ(opened->from, "abc");
    CHECK_EQ(opened->to_size, 4);
    CHECK_EQ(opened->flags, BOP_WATCH_PREVIOUS);
    CHECK_EQ(opened->revision, 0);
    say_opened(opened, BOP_STATUS_OK, 100);
    say(opened, opened->id, 103, 0, "a");
    say(opened, opened->id, 104, 0, "bc");
    check_news(f, 1, 103, 0, 1, "a");
    check_news(f, 2, 104, 0, 2, "b");
    CHECK_EQ(bop_client_watch_revision(f->watch), 104);
}

TEST(client_watch, acknowledges_marks_if_it_says_so)
{
    struct bop_client_watch_options options = {
        .what = BOP_WATCH_MAP, .name = bytes("m"), .flags = BOP_WATCH_ACKNOWLEDGE};
    struct opened *opened;

    REQUIRE_EQ(bop_client_watch_open(f->client, &options, on_news, f, &f->watch), 0);
    opened = open_of(f, 1);
    CHECK_EQ(opened->flags, BOP_WATCH_ACKNOWLEDGE);
    say_opened(opened, BOP_STATUS_OK, 100);
    say(opened, opened->id, 103, 0, "a");
    say(opened, 0, 105, BOP_WATCH_EVENTS_PROGRESS, "");
    while (f->ack_count == 0) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 100), 0);
    }
    CHECK_EQ(f->acked, 105);
    CHECK_EQ(f->news_at_ack, 1); /* What came before was told before. */
    bop_client_watch_close(f->watch);
    options.flags = 0;
    REQUIRE_EQ(bop_client_watch_open(f->client, &options, on_news, f, &f->watch), 0);
    opened = open_of(f, 2);
    say_opened(opened, BOP_STATUS_OK, 105);
    say(opened, 0, 106, BOP_WATCH_EVENTS_PROGRESS, "");
    say(opened, opened->id, 107, 0, "b");
    check_news(f, 2, 107, 0, 1, "b");
    CHECK_EQ(f->ack_count, 1);
}

TEST(client_watch, goes_on_where_it_was_on_another_connection)
{
    struct opened *opened;

    start(f, 0, 0);
    opened = open_of(f, 1);
    say_opened(opened, BOP_STATUS_OK, 100);
    say(opened, opened->id, 103, 0, "a");
    check_news(f, 1, 103, 0, 1, "a");
    fake_node_drop(opened->node);
    opened = open_of(f, 2);
    CHECK_EQ(opened->revision, 103);
    CHECK(opened->id != f->opens[0].id);
    say_opened(opened, BOP_STATUS_OK, 103);
    say(opened, opened->id, 103, 0, "a"); /* Of a server that is not sure. */
    say(opened, opened->id, 104, 0, "b");
    say(opened, opened->id, 104, BOP_WATCH_EVENTS_LIVE, "");
    check_news(f, 2, 104, 0, 1, "b");
    check_news(f, 3, 104, BOP_WATCH_EVENTS_LIVE, 0, "");
}

TEST(client_watch, that_heard_nothing_goes_on_from_its_beginning)
{
    struct opened *opened;

    start(f, 0, 0);
    opened = open_of(f, 1);
    say_opened(opened, BOP_STATUS_OK, 100);
    say(opened, 0, 150, BOP_WATCH_EVENTS_PROGRESS, "");
    while (bop_client_watch_revision(f->watch) < 150) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 100), 0);
    }
    fake_node_drop(opened->node);
    CHECK_EQ(open_of(f, 2)->revision, 150);
    CHECK_EQ(f->news_count, 0);
}

TEST(client_watch, learns_from_the_others_how_far_it_is)
{
    struct bop_client_watch_options options = {.what = BOP_WATCH_MAP, .name = bytes("n")};
    struct bop_client_watch *other;

    start(f, 0, 0);
    REQUIRE_EQ(bop_client_watch_open(f->client, &options, on_news, f, &other), 0);
    open_of(f, 2);
    say_opened(&f->opens[0], BOP_STATUS_OK, 100);
    say_opened(&f->opens[1], BOP_STATUS_OK, 100);
    say(&f->opens[0], f->opens[0].id, 120, 0, "a");
    check_news(f, 1, 120, 0, 1, "a");
    fake_node_drop(f->opens[0].node);
    open_of(f, 4);
    CHECK_EQ(f->opens[2].revision, 120);
    CHECK_EQ(f->opens[3].revision, 119); /* Of 120 itself it may have something to hear. */
}

TEST(client_watch, in_its_past_learns_nothing_from_the_others)
{
    struct bop_client_watch_options options = {
        .what = BOP_WATCH_MAP, .name = bytes("n"), .revision = 50};
    struct bop_client_watch *other;

    start(f, 0, 0);
    REQUIRE_EQ(bop_client_watch_open(f->client, &options, on_news, f, &other), 0);
    open_of(f, 2);
    say_opened(&f->opens[0], BOP_STATUS_OK, 100);
    say_opened(&f->opens[1], BOP_STATUS_OK, 50);
    say(&f->opens[0], f->opens[0].id, 120, 0, "a");
    check_news(f, 1, 120, 0, 1, "a");
    fake_node_drop(f->opens[0].node);
    open_of(f, 4);
    CHECK_EQ(f->opens[3].revision, 50);
}

TEST(client_watch, whose_past_is_gone_says_so_and_goes_on)
{
    struct opened *opened;

    start(f, 0, 7);
    opened = open_of(f, 1);
    CHECK_EQ(opened->revision, 7);
    say_opened(opened, BOP_STATUS_COMPACTED, 90);
    check_news(f, 1, 90, BOP_WATCH_EVENTS_RESYNC, 0, "");
    opened = open_of(f, 2);
    CHECK_EQ(opened->revision, 0);
    say_opened(opened, BOP_STATUS_OK, 100);
    say(opened, opened->id, 101, 0, "a");
    check_news(f, 2, 101, 0, 1, "a");
    say(opened, opened->id, 110, BOP_WATCH_EVENTS_RESYNC, ""); /* It was too slow. */
    check_news(f, 3, 110, BOP_WATCH_EVENTS_RESYNC, 0, "");
    opened = open_of(f, 3);
    CHECK_EQ(opened->revision, 0);
}

TEST(client_watch, with_a_snapshot_gets_another_when_it_lost_events)
{
    struct opened *opened;

    start(f, BOP_WATCH_SNAPSHOT, 0);
    opened = open_of(f, 1);
    CHECK_EQ(opened->flags, BOP_WATCH_SNAPSHOT);
    say_opened(opened, BOP_STATUS_OK, 100);
    say(opened, opened->id, 100, BOP_WATCH_EVENTS_SNAPSHOT | BOP_WATCH_EVENTS_MORE, "ab");
    check_news(f, 1, 100, BOP_WATCH_EVENTS_SNAPSHOT | BOP_WATCH_EVENTS_MORE, 2, "a");
    fake_node_drop(opened->node);
    opened = open_of(f, 2); /* In its midst: from its beginning. */
    CHECK_EQ(opened->flags, BOP_WATCH_SNAPSHOT);
    CHECK_EQ(opened->revision, 0);
    say_opened(opened, BOP_STATUS_OK, 105);
    say(opened, opened->id, 105, BOP_WATCH_EVENTS_SNAPSHOT, "abc");
    check_news(f, 2, 105, BOP_WATCH_EVENTS_RESYNC, 0, "");
    check_news(f, 3, 105, BOP_WATCH_EVENTS_SNAPSHOT, 3, "a");
    fake_node_drop(opened->node);
    opened = open_of(f, 3); /* It is there: what came after it is enough. */
    CHECK_EQ(opened->flags, 0);
    CHECK_EQ(opened->revision, 105);
    say_opened(opened, BOP_STATUS_COMPACTED, 200);
    check_news(f, 4, 200, BOP_WATCH_EVENTS_RESYNC, 0, "");
    opened = open_of(f, 4);
    CHECK_EQ(opened->flags, BOP_WATCH_SNAPSHOT);
    say_opened(opened, BOP_STATUS_OK, 210);
    say(opened, opened->id, 210, BOP_WATCH_EVENTS_RESYNC, "");
    say(opened, opened->id, 220, BOP_WATCH_EVENTS_SNAPSHOT, "z"); /* The server's own doing. */
    check_news(f, 5, 210, BOP_WATCH_EVENTS_RESYNC, 0, "");
    check_news(f, 6, 220, BOP_WATCH_EVENTS_SNAPSHOT, 1, "z");
    CHECK_EQ(f->open_count, 4);
}

TEST(client_watch, a_large_entry_that_a_connection_broke_is_told_once)
{
    struct opened *opened;

    start(f, 0, 0);
    opened = open_of(f, 1);
    say_opened(opened, BOP_STATUS_OK, 100);
    say(opened, opened->id, 101, BOP_WATCH_EVENTS_MORE, "ab");
    say(opened, opened->id, 101, BOP_WATCH_EVENTS_MORE, "c");
    check_news(f, 2, 101, BOP_WATCH_EVENTS_MORE, 1, "c");
    for (unsigned n = 2; n <= 3; n++) {
        fake_node_drop(opened->node);
        opened = open_of(f, n);
        CHECK_EQ(opened->revision, 100);
        say_opened(opened, BOP_STATUS_OK, 100);
        say(opened, opened->id, 101, BOP_WATCH_EVENTS_MORE, "ab"); /* Once more... */
    }
    say(opened, opened->id, 101, 0, "cde"); /* ...and the rest, cut elsewhere. */
    check_news(f, 3, 101, 0, 2, "d");
    say(opened, opened->id, 102, 0, "f");
    check_news(f, 4, 102, 0, 1, "f");
}

TEST(client_watch, asks_again_after_a_while_when_the_server_is_busy)
{
    start(f, 0, 0);
    say_opened(open_of(f, 1), BOP_STATUS_BUSY, 0);
    say_opened(open_of(f, 2), BOP_STATUS_RETRY, 0);
    say_opened(open_of(f, 3), BOP_STATUS_OK, 5);
    say(&f->opens[2], f->opens[2].id, 6, 0, "a");
    check_news(f, 1, 6, 0, 1, "a");
}

TEST(client_watch, ends_when_it_is_refused)
{
    start(f, 0, 0);
    say_opened(open_of(f, 1), BOP_STATUS_DENIED, 0);
    CHECK_EQ(news_of(f, 1)->code, bop_status_code(BOP_STATUS_DENIED));
    CHECK(f->watch == NULL);
}

static void on_granted(void *user, struct bop_client_lock *lock, int code)
{
    CHECK_EQ(code, 0);
    CHECK_EQ(bop_client_lock_token(lock), 9);
    ++*(unsigned *)user;
}

static void say_granted(const struct opened *opened, uint64_t revision, uint64_t ticket)
{
    struct bop_event event = {
        .type = BOP_EVENT_LOCK_GRANT, .name = bytes("l"), .number = (int64_t)ticket, .token = 9};
    struct bop_buf buf;
    struct bop_writer writer = bop_writer(&buf);

    bop_buf_init(&buf, NULL, 0);
    bop_write_u64(&writer, revision);
    bop_write_u8(&writer, 0);
    bop_event_encode(&writer, &event);
    fake_node_say(opened->tcp, BOP_WIRE_KIND_WATCH_EVENTS, opened->id, bop_buf_slice(&buf));
    bop_buf_deinit(&buf);
}

/* Of the session, which a node that lags does not know yet. No read tells of the grant. */
TEST(client_watch, of_locks_is_opened_again_where_it_was_denied)
{
    struct bop_client_lock_options options = {.name = bytes("l")};
    struct bop_client_lock *lock;
    struct opened *opened;
    unsigned grants = 0;

    for (unsigned i = 0; i < FAKE_NODES; i++) {
        f->cluster.nodes[i].read_status = BOP_STATUS_RETRY;
    }
    REQUIRE_EQ(bop_client_lock_acquire(f->client, &options, on_granted, NULL, &grants, &lock), 0);
    opened = open_of(f, 1);
    CHECK_EQ(opened->node->resumes, 0);
    say_opened(opened, BOP_STATUS_DENIED, 0);
    opened = open_of(f, 2);
    CHECK_EQ(opened->node->resumes, 1); /* What makes it known as ours there. */
    say_opened(opened, BOP_STATUS_DENIED, 0);
    opened = open_of(f, 3);
    CHECK_EQ(opened->node->resumes, 2);
    say_opened(opened, BOP_STATUS_OK, 5);
    say_granted(opened, 6, bop_client_lock_ticket(lock));
    REQUIRE(turn_until(f, &grants, 1));
    CHECK_EQ(f->open_count, 3);
}

TEST(client_watch, ends_with_its_client)
{
    start(f, 0, 0);
    say_opened(open_of(f, 1), BOP_STATUS_OK, 5);
    bop_client_destroy(f->client);
    f->client = NULL;
    CHECK_EQ(f->news_count, 1);
    CHECK_EQ(f->news[0].code, BOP_ECANCELED);
}

TEST(client_watch, is_told_nothing_once_closed)
{
    struct opened *opened;

    start(f, 0, 0);
    opened = open_of(f, 1);
    say_opened(opened, BOP_STATUS_OK, 5);
    say(opened, opened->id, 6, 0, "a");
    say(opened, opened->id, 7, 0, "b");
    f->close_in_news = true; /* From within its own news. */
    REQUIRE(turn_until(f, &f->close_count, 1));
    CHECK_EQ(f->news_count, 1);
    start(f, 0, 0);
    opened = open_of(f, 2);
    bop_client_watch_close(f->watch);
    say_opened(opened, BOP_STATUS_OK, 9);
    say(opened, opened->id, 10, 0, "c");
    REQUIRE(turn_until(f, &f->close_count, 2));
    start(f, 0, 0);
    open_of(f, 3);
    CHECK_EQ(f->news_count, 1);
}

TEST(client_watch, refuses_what_no_server_would_take)
{
    struct bop_client_watch_options options = {.what = BOP_WATCH_MAP};
    struct bop_client_watch *watch;

    CHECK_EQ(bop_client_watch_open(f->client, &options, on_news, f, &watch), BOP_EINVAL);
    options.name = bytes("m");
    options.flags = BOP_WATCH_SNAPSHOT;
    options.revision = 9;
    CHECK_EQ(bop_client_watch_open(f->client, &options, on_news, f, &watch), BOP_EINVAL);
    options.what = (enum bop_watch_what)99;
    options.flags = 0;
    CHECK_EQ(bop_client_watch_open(f->client, &options, on_news, f, &watch), BOP_EINVAL);
}

TEST(client_watch, without_memory_is_none)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_client_watch_options options = {.what = BOP_WATCH_MAP, .name = bytes("m")};
        struct bop_client_watch *watch = NULL;
        int rc = bop_client_watch_open(f->client, &options, on_news, f, &watch);

        CHECK_EQ(rc, f->faults.fired ? BOP_ENOMEM : 0);
        if (rc == 0) {
            bop_client_watch_close(watch);
        }
    }
}

TEST(client_watch, all_are_opened_again_on_each_connection)
{
    struct bop_client_watch *watches[20];
    struct bop_client_watch_options options = {.what = BOP_WATCH_MAP, .name = bytes("m")};

    for (unsigned n = 0; n < 20; n++) {
        REQUIRE_EQ(bop_client_watch_open(f->client, &options, on_news, f, &watches[n]), 0);
    }
    for (unsigned n = 0; n < 10; n++) {
        bop_client_watch_close(watches[2 * n]);
    }
    open_of(f, 10);
    f->open_count = 0;
    fake_node_drop(f->opens[0].node);
    open_of(f, 10);
    for (unsigned n = 0; n < 10; n++) {
        for (unsigned m = 0; m < n; m++) {
            CHECK(f->opens[n].id != f->opens[m].id);
        }
    }
}
