/*
 * Topics: who gets what in which order, from this loop and from others, and what
 * becomes of those who are slow.
 */
#include <pthread.h>

#include "conn_fixture.h"

FIXTURE(fixture_setup, fixture_teardown)

#define PEERS 4

/* Peers and their connections. */
struct crowd {
    struct peer *peers[PEERS];
    struct bop_ws *ws[PEERS];
};

static void crowd_open(struct fixture *f, struct crowd *crowd, const char *topic)
{
    for (int i = 0; i < PEERS; i++) {
        crowd->peers[i] = peer_open(f);
        crowd->ws[i] = f->ws;
        if (topic != NULL) {
            CHECK_EQ(bop_ws_subscribe(f->ws, topic), 0);
        }
    }
}

static void crowd_close(struct fixture *f, struct crowd *crowd)
{
    for (int i = 0; i < PEERS; i++) {
        peer_free(crowd->peers[i]);
    }
    TURN_UNTIL(f->closes == f->opens);
}

static void crowd_got(struct crowd *crowd, const char *expected)
{
    for (int i = 0; i < PEERS; i++) {
        expect_got(crowd->peers[i], expected);
    }
}

static int publish(struct fixture *f, const char *topic, const char *text)
{
    return bop_topics_publish(f->topics, topic, BOP_WS_TEXT, bytes(text));
}

/* ---- Subscriptions ---- */

TEST(topics, go_to_their_subscribers)
{
    struct crowd crowd;

    with_topics(f);
    serve(f);
    crowd_open(f, &crowd, "all");
    CHECK_EQ(bop_ws_subscribe(crowd.ws[1], "odd"), 0);
    CHECK_EQ(bop_ws_subscribe(crowd.ws[3], "odd"), 0);
    CHECK_EQ(bop_ws_subscribe(crowd.ws[3], "odd"), 0); /* Once is enough. */
    CHECK_EQ(bop_topics_subscribers(f->topics, "all"), 4);
    CHECK_EQ(bop_topics_subscribers(f->topics, "odd"), 2);
    CHECK_EQ(bop_topics_subscribers(f->topics, "none"), 0);
    CHECK_EQ(publish(f, "all", "a"), 0);
    CHECK_EQ(publish(f, "odd", "b"), 0);
    CHECK_EQ(publish(f, "none", "c"), 0);
    CHECK_EQ(publish(f, "all", "d"), 0);
    expect_got(crowd.peers[0], "T(a) T(d)");
    expect_got(crowd.peers[1], "T(a) T(b) T(d)"); /* In order, whatever the topic. */
    expect_got(crowd.peers[2], "T(a) T(d)");
    expect_got(crowd.peers[3], "T(a) T(b) T(d)");
    CHECK_EQ(bop_ws_unsubscribe(crowd.ws[3], "odd"), 0);
    CHECK_EQ(bop_ws_unsubscribe(crowd.ws[3], "odd"), 0);
    CHECK_EQ(publish(f, "odd", "e"), 0);
    expect_got(crowd.peers[1], "T(e)");
    CHECK_EQ(bop_topics_counters(f->topics).topics, 2);
    CHECK_EQ(bop_topics_counters(f->topics).subscriptions, 5);
    CHECK_EQ(bop_topics_counters(f->topics).published, 5);
    CHECK_EQ(bop_topics_counters(f->topics).delivered, 11); /* 4 + 2 + 4 + 1 */
    crowd_close(f, &crowd);
    CHECK_EQ(bop_topics_counters(f->topics).topics, 0);
    CHECK_EQ(bop_topics_counters(f->topics).subscriptions, 0);
    CHECK_EQ(bop_topics_subscribers(f->topics, "all"), 0);
}

static bool note_topic(const char *topic, void *user)
{
    see((struct fixture *)user, topic);
    return strcmp(topic, "b") != 0;
}

static bool drop_topic(const char *topic, void *user)
{
    CHECK_EQ(bop_ws_unsubscribe(((struct fixture *)user)->ws, topic), 0);
    return true;
}

static void see_subscription(struct bop_ws *ws, void *user, const char *topic, bool subscribed)
{
    char text[64];

    snprintf(text, sizeof(text), "%c%s", subscribed ? '+' : '-', topic);
    see((struct fixture *)user, text);
}

TEST(topics, of_a_connection_can_be_listed)
{
    struct peer *peer;

    with_topics(f);
    f->options.on_subscription = see_subscription;
    serve(f);
    peer = peer_open(f);
    CHECK_EQ(bop_ws_subscribe(f->ws, "a"), 0);
    CHECK_EQ(bop_ws_subscribe(f->ws, "b"), 0);
    CHECK_EQ(bop_ws_subscribe(f->ws, "c"), 0);
    CHECK_EQ(bop_ws_subscribe(f->ws, ""), 0);
    CHECK(bop_ws_is_subscribed(f->ws, "b"));
    CHECK(bop_ws_is_subscribed(f->ws, ""));
    CHECK(!bop_ws_is_subscribed(f->ws, "d"));
    CHECK_STR_EQ(seen(f), "+a +b +c +");
    CHECK_EQ(bop_ws_unsubscribe(f->ws, "a"), 0);
    CHECK_STR_EQ(seen(f), "-a");
    bop_ws_each_topic(f->ws, note_topic, f);
    CHECK_STR_HAS(seen(f), "b");
    bop_ws_each_topic(f->ws, drop_topic, f);
    CHECK_EQ(bop_topics_counters(f->topics).subscriptions, 0);
    seen(f);
    CHECK_EQ(bop_ws_subscribe(f->ws, "left"), 0);
    peer_reset(peer);
    TURN_UNTIL(f->closes == 1);
    CHECK_STR_HAS(seen(f), "+left -left close(1006 ");
    peer_free(peer);
}

/* Hundreds of topics and as many leaving in no order: every list stays right. */
TEST(topics, come_and_go)
{
    struct crowd crowd;
    char name[16], expected[16];
    unsigned random = 1;

    with_topics(f);
    serve(f);
    crowd_open(f, &crowd, NULL);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "topic %d", i);
        for (int k = 0; k < PEERS; k++) {
            CHECK_EQ(bop_ws_subscribe(crowd.ws[k], name), 0);
        }
    }
    CHECK_EQ(bop_topics_counters(f->topics).topics, 300);
    for (int i = 0; i < 3000; i++) {
        random = random * 1103515245 + 12345;
        snprintf(name, sizeof(name), "topic %u", (random >> 16) % 300);
        if ((random >> 8) % 3 == 0) {
            CHECK_EQ(bop_ws_subscribe(crowd.ws[(random >> 4) % PEERS], name), 0);
        } else {
            CHECK_EQ(bop_ws_unsubscribe(crowd.ws[(random >> 4) % PEERS], name), 0);
        }
    }
    for (int i = 0; i < 300; i++) {
        size_t subscribers = 0;

        snprintf(name, sizeof(name), "topic %d", i);
        snprintf(expected, sizeof(expected), "T(topic %d)", i);
        CHECK_EQ(publish(f, name, name), 0);
        for (int k = 0; k < PEERS; k++) {
            bool subscribed = bop_ws_is_subscribed(crowd.ws[k], name);

            subscribers += subscribed;
            expect_got(crowd.peers[k], subscribed ? expected : "");
        }
        CHECK_EQ(bop_topics_subscribers(f->topics, name), subscribers);
    }
    crowd_close(f, &crowd);
}

/* Whoever is first to go: the topics stay until their last route has gone. */
TEST(topics, may_be_destroyed_before_their_connections)
{
    struct peer *peer;

    with_topics(f);
    serve(f);
    peer = peer_open(f);
    CHECK_EQ(bop_ws_subscribe(f->ws, "t"), 0);
    bop_topics_destroy(f->topics);
    f->topics = NULL;
    CHECK_EQ(bop_ws_subscribe(f->ws, "u"), 0);
    CHECK_EQ(bop_ws_unsubscribe(f->ws, "t"), 0);
    CHECK_EQ(bop_ws_publish(f->ws, "u", BOP_WS_TEXT, bytes("to nobody else")), 0);
    peer_free(peer);
    TURN_UNTIL(f->closes == 1);
}

/* ---- A registry ---- */

TEST(topics, are_counted_in_a_registry)
{
    struct bop_metrics *metrics, *other;
    struct crowd crowd;

    REQUIRE_EQ(bop_metrics_create(NULL, &metrics), 0);
    REQUIRE_EQ(bop_metrics_create(NULL, &other), 0);
    with_topics(f);
    CHECK_EQ(bop_topics_metrics(f->topics, metrics, "of=\"test\""), 0);
    CHECK_EQ(bop_topics_metrics(f->topics, other, NULL), BOP_EINVAL);
    serve(f);
    crowd_open(f, &crowd, "all");
    CHECK_EQ(publish(f, "all", "hello"), 0);
    crowd_got(&crowd, "T(hello)");
    pass_ms(f, 2500); /* By itself, with what the connections are looked at for. */
    check_shows(metrics, "bop_topics{of=\"test\"} 1\n");
    check_shows(metrics, "bop_topics_subscriptions{of=\"test\"} 4\n");
    check_shows(metrics, "bop_topics_published_total{of=\"test\"} 1\n");
    check_shows(metrics, "bop_topics_delivered_total{of=\"test\"} 4\n");
    CHECK_EQ(publish(f, "nobody", "there"), 0);
    CHECK_EQ(bop_topics_metrics(f->topics, metrics, NULL), 0); /* Now. */
    check_shows(metrics, "bop_topics_published_total{of=\"test\"} 2\n");
    crowd_close(f, &crowd);
    bop_topics_destroy(f->topics); /* Its route has it still. */
    f->topics = NULL;
    check_shows(metrics, "bop_topics{of=\"test\"} 0\n");
    check_shows(metrics, "bop_topics_published_total{of=\"test\"} 2\n");
    bop_metrics_destroy(metrics);
    bop_metrics_destroy(other);
    pass_ms(f, 2500);
}

/* ---- Publishing ---- */

TEST(publish, goes_out_together)
{
    struct crowd crowd;
    uint64_t before;

    with_topics(f);
    serve(f);
    crowd_open(f, &crowd, "t");
    for (int round = 0; round < 3; round++) {
        before = f->heap.blocks;
        for (int i = 0; i < 16; i++) {
            CHECK_EQ(publish(f, "t", "m"), 0);
        }
        turn(f->loop);
        crowd_got(&crowd, "T(m) T(m) T(m) T(m) T(m) T(m) T(m) T(m) T(m) T(m) T(m) T(m) T(m) T(m) "
                          "T(m) T(m)");
        CHECK(round == 0 || f->heap.blocks == before); /* The buffer is used again. */
    }
    crowd_close(f, &crowd);
}

TEST(publish, may_leave_out_who_publishes)
{
    struct crowd crowd;

    with_topics(f);
    serve(f);
    crowd_open(f, &crowd, "t");
    CHECK_EQ(bop_ws_publish(crowd.ws[0], "t", BOP_WS_TEXT, bytes("from 0")), 0);
    CHECK_EQ(publish(f, "t", "to all"), 0);
    CHECK_EQ(bop_ws_publish(crowd.ws[2], "t", BOP_WS_BINARY, bytes("from 2")), 0);
    expect_got(crowd.peers[0], "T(to all) B(from 2)");
    expect_got(crowd.peers[1], "T(from 0) T(to all) B(from 2)");
    expect_got(crowd.peers[2], "T(from 0) T(to all)");
    expect_got(crowd.peers[3], "T(from 0) T(to all) B(from 2)");
    CHECK_EQ(publish(f, "t", "again"), 0);
    crowd_got(&crowd, "T(again)");
    CHECK_EQ(bop_ws_publish(crowd.ws[0], "t", BOP_WS_PING, bytes("")), BOP_EINVAL);
    crowd_close(f, &crowd);
}

TEST(publish, takes_messages_of_any_size)
{
    static const size_t sizes[] = {0, 125, 126, 511, 512, 60000, 65535, 65536, 300000};
    struct crowd crowd;
    char expected[32], *payload = malloc(300000);

    REQUIRE(payload != NULL);
    memset(payload, 'p', 300000);
    with_topics(f);
    serve(f);
    crowd_open(f, &crowd, "t");
    for (size_t i = 0; i < BOP_COUNT_OF(sizes); i++) {
        CHECK_EQ(publish(f, "t", "before"), 0);
        CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_BINARY, bop_slice(payload, sizes[i])),
                 0);
        CHECK_EQ(publish(f, "t", "after"), 0);
        snprintf(expected, sizeof(expected), "T(before) B(#%zu) T(after)", sizes[i]);
        if (sizes[i] == 0) {
            crowd_got(&crowd, "T(before) B() T(after)");
        } else if (sizes[i] > 200) {
            crowd_got(&crowd, expected);
        } else {
            for (int k = 0; k < PEERS; k++) {
                struct peer *peer = crowd.peers[k];

                TURN_UNTIL((peer_read(peer), strstr(peer->got.text, "T(after)") != NULL));
                peer->got.size = 0;
                peer->got.text[0] = '\0';
            }
        }
    }
    free(payload);
    crowd_close(f, &crowd);
}

TEST(publish, of_prepared_messages_and_compressed_ones)
{
    char *text = malloc(5000);
    struct bop_ws_prepared *prepared;
    struct peer *plain, *zipped;
    struct bop_ws *ws[2];

    REQUIRE(text != NULL);
    memset(text, 'z', 5000);
    prepared = bop_ws_prepare(BOP_WS_TEXT, bop_slice(text, 5000), true);
    REQUIRE(prepared != NULL);
    with_topics(f);
    serve(f);
    plain = peer_open(f);
    ws[0] = f->ws;
    zipped = peer_open_with(f, "Sec-WebSocket-Extensions: permessage-deflate\r\n", 0);
    ws[1] = f->ws;
    CHECK_EQ(bop_ws_subscribe(ws[0], "t"), 0);
    CHECK_EQ(bop_ws_subscribe(ws[1], "t"), 0);
    /* The record shows a compressed message by its size. */
    CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_TEXT, bop_slice(text, 5000)), 0);
    expect_got(plain, "T(#5000)");
    TURN_UNTIL((peer_read(zipped), zipped->got.size > 0));
    CHECK_STR_HAS(zipped->got.text, "T(z:");
    zipped->got.size = 0;
    CHECK_EQ(bop_topics_publish_prepared(f->topics, "t", prepared), 0);
    expect_got(plain, "T(#5000)");
    TURN_UNTIL((peer_read(zipped), zipped->got.size > 0));
    CHECK_STR_HAS(zipped->got.text, "T(z:");
    zipped->got.size = 0;
    zipped->got.text[0] = '\0';
    CHECK_EQ(bop_ws_send_prepared(ws[0], prepared), 0);
    CHECK_EQ(bop_ws_send_prepared(ws[1], prepared), 0);
    bop_ws_prepared_unref(prepared);
    expect_got(plain, "T(#5000)");
    TURN_UNTIL((peer_read(zipped), zipped->got.size > 0));
    CHECK_STR_HAS(zipped->got.text, "T(z:");
    CHECK(bop_ws_prepare(BOP_WS_PING, bytes("x"), false) == NULL);
    free(text);
    peer_free(plain);
    peer_free(zipped);
}

/* One window for all of them, that of the options: who agreed to less gets it plain. */
TEST(publish, compresses_within_the_window)
{
    static char text[3000];
    struct peer *narrow, *wide;

    memset(text, 'w', sizeof(text));
    with_topics(f);
    f->options.deflate_window_bits = 12;
    serve(f);
    wide = peer_open_with(f, "Sec-WebSocket-Extensions: permessage-deflate\r\n", 0);
    CHECK_EQ(bop_ws_subscribe(f->ws, "t"), 0);
    narrow = peer_open_with(
        f, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n", 0);
    CHECK_EQ(bop_ws_subscribe(f->ws, "t"), 0);
    CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_TEXT, bop_slice(text, sizeof(text))), 0);
    TURN_UNTIL((peer_read(wide), wide->got.size > 0));
    CHECK_STR_HAS(wide->got.text, "T(z:");
    expect_got(narrow, "T(#3000)");
    CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_TEXT, bop_slice(text, 511)), 0);
    expect_got(narrow, "T(#511)"); /* Below the threshold for all. */
    wide->got.size = 0;
    TURN_UNTIL((peer_read(wide), wide->got.size > 0));
    CHECK_STR_EQ(wide->got.text, "T(#511)");
    peer_free(narrow);
    peer_free(wide);
}

TEST(publish, waits_for_the_last_part)
{
    struct crowd crowd;

    with_topics(f);
    serve(f);
    crowd_open(f, &crowd, "t");
    CHECK_EQ(bop_ws_send_part(crowd.ws[1], BOP_WS_TEXT, bytes("one "), false), 0);
    CHECK_EQ(publish(f, "t", "news"), 0);
    expect_got(crowd.peers[0], "T(news)");
    CHECK_EQ(bop_ws_send_part(crowd.ws[1], BOP_WS_TEXT, bytes("two"), true), 0);
    CHECK_EQ(bop_ws_send(crowd.ws[1], BOP_WS_TEXT, bytes("three")), 0);
    expect_got(crowd.peers[1], "T(one two) T(news) T(three)");
    crowd_close(f, &crowd);
}

/* Outside of the loop's turns nothing else would wake it. */
TEST(publish, makes_a_turn_happen)
{
    struct crowd crowd;

    with_topics(f);
    serve(f);
    crowd_open(f, &crowd, "t");
    turn(f->loop);
    CHECK_EQ(publish(f, "t", "now"), 0);
    REQUIRE_EQ(bop_loop_run_once(f->loop, 60000), 0);
    crowd_got(&crowd, "T(now)");
    crowd_close(f, &crowd);
}

static void publish_it(struct fixture *f, struct bop_ws *ws, enum bop_ws_opcode opcode,
                       struct bop_slice message)
{
    CHECK_EQ(bop_topics_publish(f->topics, "t", opcode, message), 0);
}

TEST(publish, from_a_handler_reaches_all)
{
    struct crowd crowd;

    with_topics(f);
    f->message = publish_it;
    f->quiet = true;
    serve(f);
    crowd_open(f, &crowd, "t");
    for (int i = 0; i < 20; i++) {
        peer_send_frames(crowd.peers[i % PEERS], {TEXT("chat")});
        crowd_got(&crowd, "T(chat)");
    }
    crowd_close(f, &crowd);
}

/* ---- Slow subscribers ---- */

static char large[100000];

static struct peer *open_slow(struct fixture *f)
{
    struct peer *peer = peer_open_with(f, "", 4096);

    CHECK_STR_EQ(seen(f), "open");
    CHECK_EQ(bop_ws_subscribe(f->ws, "t"), 0);
    return peer;
}

static void flood(struct fixture *f)
{
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_BINARY, bop_slice(large, sizeof(large))),
                 0);
        turn(f->loop);
    }
}

/* One does not read: it misses messages, whole ones; the others miss none. */
TEST(slow, misses_messages_and_holds_nobody_up)
{
    struct bop_topics_counters counters;
    struct peer *slow, *quick;
    size_t before, whole = 0;

    with_topics(f);
    f->options.pressure_max = 300000;
    serve(f);
    slow = open_slow(f);
    quick = peer_open(f);
    CHECK_EQ(bop_ws_subscribe(f->ws, "t"), 0);
    before = f->heap.live;
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_BINARY, bop_slice(large, sizeof(large))),
                 0);
        expect_got(quick, "B(#100000)");
    }
    counters = bop_topics_counters(f->topics);
    CHECK(f->dropped > 100);
    CHECK_EQ(counters.dropped, f->dropped);
    CHECK_EQ(counters.delivered, 400 - f->dropped);
    CHECK(f->heap.live < before + 1000000); /* A few messages, not two hundred. */
    while (whole < 200 - f->dropped) {
        TURN_UNTIL((peer_read(slow), slow->got.size > 0));
        for (const char *at = slow->got.text; (at = strstr(at, "B(#100000)")) != NULL; at++) {
            whole++;
        }
        slow->got.size = 0;
        slow->got.text[0] = '\0';
    }
    CHECK_EQ(whole, 200 - f->dropped);
    peer_free(slow);
    peer_free(quick);
    TURN_UNTIL(f->closes == f->opens);
    CHECK(f->heap.live < before + 200000);
}

TEST(slow, is_closed_if_it_shall)
{
    struct peer *slow;

    with_topics(f);
    f->options.pressure_max = 300000;
    f->options.slow = BOP_WS_SLOW_CLOSE;
    f->options.close_timeout_ms = 1000;
    serve(f);
    slow = open_slow(f);
    flood(f);
    CHECK_EQ(bop_topics_counters(f->topics).closed, 1);
    pass_ms(f, 1500);
    TURN_UNTIL(f->closes == 1);
    CHECK_EQ(bop_topics_subscribers(f->topics, "t"), 0);
    peer_free(slow);
}

static void unsubscribe_dropped(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                                struct bop_slice message)
{
    struct fixture *f = (struct fixture *)user;

    f->dropped++;
    CHECK_EQ(bop_ws_unsubscribe(ws, "t"), 0);
    CHECK_EQ(bop_ws_subscribe(ws, "other"), 0);
    CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_TEXT, bytes("it could not")), 0);
}

/* The list of subscribers changes, and more is published, while it is walked. */
TEST(slow, may_unsubscribe_and_publish_when_told)
{
    struct peer *slow[3], *quick;

    with_topics(f);
    f->options.pressure_max = 300000;
    f->options.on_dropped = unsubscribe_dropped;
    serve(f);
    for (int i = 0; i < 3; i++) {
        slow[i] = open_slow(f);
    }
    quick = peer_open(f);
    CHECK_EQ(bop_ws_subscribe(f->ws, "t"), 0);
    while (f->dropped < 3) {
        CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_BINARY, bop_slice(large, sizeof(large))),
                 0);
        turn(f->loop);
        peer_read(quick);
        quick->got.size = 0;
        quick->got.text[0] = '\0';
    }
    TURN_UNTIL(bop_topics_subscribers(f->topics, "t") == 1);
    CHECK_EQ(bop_topics_subscribers(f->topics, "other"), 3);
    CHECK_EQ(publish(f, "t", "end"), 0);
    TURN_UNTIL((peer_read(quick), strstr(quick->got.text, "T(end)") != NULL));
    CHECK_EQ(f->dropped, 3);
    for (int i = 0; i < 3; i++) {
        peer_free(slow[i]);
    }
    peer_free(quick);
}

/* ---- Many subscribers: where io_uring may be used, they are sent to in bursts ---- */

enum { MANY = 140, SLOW_EVERY = 14, BURSTS = 300 }; /* Those are more than one takes. */

static struct bop_ws *many[BURSTS];
static bool gone[BURSTS];

static bool is_slow_one(int i)
{
    return i % SLOW_EVERY == 5;
}

/* Whoever misses a message first has the next one closed, which may be on its way to be sent to. */
static void close_next(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice message)
{
    struct fixture *f = (struct fixture *)user;

    f->dropped++;
    for (int i = 0; i < MANY; i++) {
        int victims[] = {i - 1, i + 1};

        for (int k = 0; many[i] == ws && k < 2; k++) {
            if (!gone[victims[k]]) {
                gone[victims[k]] = true;
                bop_ws_terminate(many[victims[k]]);
            }
        }
    }
}

static void open_many(struct fixture *f, struct peer **peers, int count)
{
    memset(gone, 0, sizeof(gone));
    with_topics(f);
    f->options.pressure_max = 300000;
    f->options.on_dropped = close_next;
    serve(f);
    for (int i = 0; i < count; i++) {
        peers[i] = peer_open_with(f, "", is_slow_one(i) ? 4096 : 0);
        expect_seen(f, "open");
        many[i] = f->ws;
        CHECK_EQ(bop_ws_subscribe(f->ws, "t"), 0);
    }
}

TEST(many, miss_nothing_while_some_are_slow_and_others_closed)
{
    struct peer *peers[MANY];
    size_t rounds = 0;

    open_many(f, peers, MANY);
    while (f->dropped < MANY / SLOW_EVERY && rounds++ < 1000) {
        CHECK_EQ(bop_topics_publish(f->topics, "t", BOP_WS_BINARY, bop_slice(large, sizeof(large))),
                 0);
        CHECK_EQ(publish(f, "t", rounds % 2 ? "odd" : "even"), 0);
        turn(f->loop);
        for (int i = 0; i < MANY; i++) {
            if (!is_slow_one(i) && !gone[i]) {
                expect_got(peers[i], rounds % 2 ? "B(#100000) T(odd)" : "B(#100000) T(even)");
            }
        }
    }
    CHECK(f->dropped >= MANY / SLOW_EVERY);
    TURN_UNTIL(f->closes == 2 * MANY / SLOW_EVERY);
    CHECK_EQ(bop_topics_subscribers(f->topics, "t"), MANY - f->closes);
    CHECK_EQ(bop_topics_counters(f->topics).dropped, f->dropped);
    for (int i = 0; i < MANY; i++) {
        peer_free(peers[i]);
    }
    TURN_UNTIL(f->closes == f->opens);
}

/* Some leave without a word: sends fail, and are known to have. */
TEST(many, may_be_gone_when_they_are_sent_to)
{
    struct peer *peers[BURSTS];

    open_many(f, peers, BURSTS);
    for (int i = 0; i < BURSTS; i += 3) {
        peer_reset(peers[i]);
    }
    CHECK_EQ(publish(f, "t", "hello"), 0);
    turn(f->loop);
    for (int i = 0; i < BURSTS; i++) {
        if (i % 3 != 0) {
            expect_got(peers[i], "T(hello)");
        }
    }
    TURN_UNTIL(f->closes == (BURSTS + 2) / 3);
    CHECK_EQ(bop_topics_subscribers(f->topics, "t"), BURSTS - f->closes);
    for (int i = 0; i < BURSTS; i++) {
        peer_free(peers[i]);
    }
    TURN_UNTIL(f->closes == f->opens);
}

/* ---- Threads ---- */

enum { PUBLISHERS = 4, MESSAGES = 500, LOOPS = 2, SUBSCRIBERS = 3 };

/** A loop on a thread of its own, whose connections count what they hear. */
struct side {
    struct bop_loop *loop;
    struct bop_http_server *server;
    struct bop_topics *topics;
    struct bop_ws_options options;
    uint16_t port;
    pthread_t thread;
};

/** A publisher, or a blocking client that checks what it gets. */
struct worker {
    struct side *sides;
    unsigned number;
    pthread_t thread;
    bool right; /* What came was all there is, in each publisher's order. */
};

static void subscribe_all(struct bop_ws *ws, void *user)
{
    CHECK_EQ(bop_ws_subscribe(ws, "all"), 0);
}

static void ignore_message(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                           struct bop_slice message)
{
}

static void *run_side(void *arg)
{
    CHECK_EQ(bop_loop_run(((struct side *)arg)->loop), 0);
    return NULL;
}

static int publish_somehow(struct bop_topics *topics, struct bop_slice message, bool prepare)
{
    struct bop_ws_prepared *prepared;
    int rc;

    if (!prepare) {
        return bop_topics_publish(topics, "all", BOP_WS_BINARY, message);
    }
    prepared = bop_ws_prepare(BOP_WS_BINARY, message, true);
    rc = prepared != NULL ? bop_topics_publish_prepared(topics, "all", prepared) : BOP_ENOMEM;
    bop_ws_prepared_unref(prepared);
    return rc;
}

static void *run_publisher(void *arg)
{
    struct worker *worker = (struct worker *)arg;
    uint8_t message[2];

    worker->right = true;
    for (unsigned i = 0; i < MESSAGES; i++) {
        /* Number and count, of which each publisher's must come in order. */
        message[0] = (uint8_t)worker->number;
        message[1] = (uint8_t)i;
        if (publish_somehow(worker->sides->topics, bop_slice(message, 2), i % 4 == 0) != 0) {
            worker->right = false;
        }
    }
    return NULL;
}

static bool receive_exactly(int fd, uint8_t *data, size_t size)
{
    return recv(fd, data, size, MSG_WAITALL) == (ssize_t)size;
}

static void *run_subscriber(void *arg)
{
    struct worker *worker = (struct worker *)arg;
    int fd = connect_to(worker->sides[worker->number % LOOPS].port, 0);
    const char *request = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: "
                          "Upgrade\r\nSec-WebSocket-Key: " PEER_KEY
                          "\r\nSec-WebSocket-Version: 13\r\n\r\n";
    unsigned next[PUBLISHERS] = {0};
    uint8_t byte, frame[4];
    uint32_t last = 0;

    worker->right = send(fd, request, strlen(request), MSG_NOSIGNAL) > 0;
    while (worker->right && last != 0x0d0a0d0a) { /* The head's end. */
        worker->right = receive_exactly(fd, &byte, 1);
        last = last << 8 | byte;
    }
    for (unsigned i = 0; i < PUBLISHERS * MESSAGES && worker->right; i++) {
        worker->right = receive_exactly(fd, frame, 4) && frame[0] == 0x82 && frame[1] == 2 &&
                        frame[2] < PUBLISHERS && frame[3] == (uint8_t)next[frame[2]]++;
    }
    close(fd);
    return NULL;
}

static void side_start(struct side *side, struct bop_topics *topics)
{
    struct bop_listener *listener;

    *side = (struct side){
        .topics = topics,
        .options = {.on_open = subscribe_all, .on_message = ignore_message, .topics = topics}};
    REQUIRE_EQ(bop_loop_create(NULL, &side->loop), 0);
    REQUIRE_EQ(bop_http_server_create(side->loop, NULL, &side->server), 0);
    REQUIRE_EQ(bop_ws_route(side->server, "/", &side->options, NULL), 0);
    REQUIRE_EQ(bop_http_listen(side->server, &(struct bop_http_listen_options){.host = "127.0.0.1"},
                               &listener, NULL),
               0);
    side->port = bop_listener_port(listener);
    REQUIRE_EQ(pthread_create(&side->thread, NULL, run_side, side), 0);
}

TEST(threads, publish_to_all_loops_at_once)
{
    struct bop_topics *topics = bop_topics_create(NULL);
    struct side sides[LOOPS];
    struct worker publishers[PUBLISHERS], subscribers[LOOPS * SUBSCRIBERS];

    REQUIRE(topics != NULL);
    for (int i = 0; i < LOOPS; i++) {
        side_start(&sides[i], topics);
    }
    for (unsigned i = 0; i < BOP_COUNT_OF(subscribers); i++) {
        subscribers[i] = (struct worker){.sides = sides, .number = i};
        REQUIRE_EQ(pthread_create(&subscribers[i].thread, NULL, run_subscriber, &subscribers[i]),
                   0);
    }
    for (int i = 0;
         i < PATIENCE_TURNS && bop_topics_subscribers(topics, "all") < LOOPS * SUBSCRIBERS; i++) {
        usleep(1000);
    }
    REQUIRE_EQ(bop_topics_subscribers(topics, "all"), LOOPS * SUBSCRIBERS);
    for (unsigned i = 0; i < PUBLISHERS; i++) {
        publishers[i] = (struct worker){.sides = sides, .number = i};
        REQUIRE_EQ(pthread_create(&publishers[i].thread, NULL, run_publisher, &publishers[i]), 0);
    }
    for (unsigned i = 0; i < PUBLISHERS; i++) {
        pthread_join(publishers[i].thread, NULL);
        CHECK(publishers[i].right);
    }
    for (unsigned i = 0; i < BOP_COUNT_OF(subscribers); i++) {
        pthread_join(subscribers[i].thread, NULL);
        CHECK(subscribers[i].right);
    }
    CHECK_EQ(bop_topics_counters(topics).published, PUBLISHERS * MESSAGES);
    for (int i = 0; i < LOOPS; i++) {
        bop_loop_stop(sides[i].loop);
        pthread_join(sides[i].thread, NULL);
        bop_http_server_destroy(sides[i].server);
        bop_loop_destroy(sides[i].loop);
    }
    /* Both loops are gone: what is published is for nobody. */
    CHECK_EQ(bop_topics_publish(topics, "all", BOP_WS_TEXT, bytes("hello?")), 0);
    CHECK_EQ(bop_topics_counters(topics).delivered,
             (uint64_t)PUBLISHERS * MESSAGES * LOOPS * SUBSCRIBERS);
    bop_topics_destroy(topics);
}
