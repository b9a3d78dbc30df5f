/*
 * A client's presence against a fake cluster: members and registrations are there again
 * after each lost session; and the grace that sessions are opened with.
 */
#include <stdio.h>

#include <bop/presence.h>

#include "client_help.h"
#include "client_internal.h"
#include "fake_cluster.h"

struct fixture {
    struct test_heap heap;
    struct bop_loop *loop;
    struct fake_cluster cluster;
    struct bop_client *client;
    struct bop_presence *presence;
    struct bop_client_options options;
    const char *endpoints[1];
    unsigned there, lost, taken, failed;
    unsigned sessions_lost;
};

static void on_news(void *user, enum bop_presence_news news, struct bop_slice name, int code)
{
    struct fixture *f = (struct fixture *)user;

    f->there += news == BOP_PRESENCE_THERE;
    f->lost += news == BOP_PRESENCE_LOST;
    f->taken += news == BOP_PRESENCE_TAKEN;
    f->failed += news == BOP_PRESENCE_FAILED;
    CHECK_EQ(name.size == 0, news == BOP_PRESENCE_THERE || news == BOP_PRESENCE_LOST);
    CHECK_EQ(code != 0, news == BOP_PRESENCE_TAKEN || news == BOP_PRESENCE_FAILED);
}

static void on_session_lost(void *user)
{
    ((struct fixture *)user)->sessions_lost++;
}

static void start(struct fixture *f)
{
    struct bop_presence_options options = {.retry_ms = 5, .news = on_news, .user = f};
    struct bop_error err = {0};

    REQUIRE_EQ(bop_client_create(&f->options, &f->client, &err), 0);
    options.client = f->client;
    REQUIRE_EQ(bop_presence_create(&options, &f->presence), 0);
}

static void setup(struct fixture *f)
{
    struct bop_loop_options options = {0};

    test_heap_init(&f->heap, NULL);
    REQUIRE_EQ(bop_loop_create(&options, &f->loop), 0);
    fake_cluster_start(&f->cluster, f->loop, 1);
    f->endpoints[0] = f->cluster.nodes[0].address;
    f->options = (struct bop_client_options){
        .allocator = &f->heap.allocator,
        .loop = f->loop,
        .endpoints = f->endpoints,
        .endpoint_count = 1,
        .session_timeout_ms = 3000,
        .silence_timeout_ms = 60000,
        .on_session_lost = on_session_lost,
        .user = f,
    };
}

static void teardown(struct fixture *f)
{
    bop_presence_destroy(f->presence);
    bop_client_destroy(f->client);
    fake_cluster_stop(&f->cluster);
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* Turn the loop until the condition holds. */
#define TURN_UNTIL(condition)                                                                      \
    do {                                                                                           \
        TURN_LOOP_UNTIL(f->loop, condition);                                                       \
        bop__client_check(f->client);                                                              \
    } while (0)

static void lose_session(struct fixture *f)
{
    f->cluster.sessions[f->cluster.session_count].open = false;
    fake_node_drop(&f->cluster.nodes[0]);
}

static void join(struct fixture *f, const char *member, const char *member_info)
{
    CHECK_EQ(bop_presence_join(f->presence, bytes("g"), bytes(member), bytes(member_info)), 0);
}

static void add(struct fixture *f, const char *registry, uint64_t sequence)
{
    CHECK_EQ(bop_presence_add(f->presence, bytes(registry), bytes("address"), sequence), 0);
}

TEST(presence, is_there_again_after_each_lost_session)
{
    start(f);
    CHECK(bop_presence_there(f->presence));
    join(f, "a", "1");
    add(f, "r", 1);
    CHECK(!bop_presence_there(f->presence));
    TURN_UNTIL(f->there == 1);
    CHECK_EQ(f->cluster.members, 1);
    CHECK_EQ(f->cluster.registrations, 1);
    for (unsigned i = 1; i <= 3; i++) {
        lose_session(f);
        TURN_UNTIL(f->there == i + 1);
        CHECK_EQ(f->lost, i);
        CHECK_EQ(f->sessions_lost, i);
        CHECK_EQ(f->cluster.members, i + 1);
        CHECK_EQ(f->cluster.registrations, i + 1);
    }
}

TEST(presence, registers_in_bulk)
{
    start(f);
    for (uint64_t i = 0; i < 2500; i++) {
        add(f, i % 2500 < 500 ? "r" : "s", i);
    }
    TURN_UNTIL(f->there == 1);
    CHECK_EQ(f->cluster.registrations, 2500);
    f->cluster.bulks = 0;
    lose_session(f);
    TURN_UNTIL(f->there == 2);
    CHECK_EQ(f->cluster.registrations, 5000);
    CHECK_EQ(f->cluster.bulks, 3); /* 500 of r; 1000 and 1000 of s. */
}

TEST(presence, tries_names_that_are_taken_until_they_are_not)
{
    f->cluster.taken = 2;
    start(f);
    join(f, "a", "");
    TURN_UNTIL(f->there == 1);
    CHECK_EQ(f->taken, 2);
    CHECK_EQ(f->cluster.members, 1);
}

TEST(presence, takes_back_what_is_not_wanted)
{
    start(f);
    join(f, "a", "");
    join(f, "b", "");
    add(f, "r", 1);
    /* Asked for just now, or not even that. */
    bop_presence_leave(f->presence, bytes("g"), bytes("a"));
    bop_presence_remove(f->presence, bytes("r"), bytes("address"), 1);
    bop_presence_remove(f->presence, bytes("r"), bytes("address"), 2);
    TURN_UNTIL(bop_presence_there(f->presence));
    CHECK_EQ(f->cluster.members, 1);
    CHECK_EQ(f->cluster.removed, 1);
    bop_presence_leave(f->presence, bytes("g"), bytes("b"));
    bop_presence_leave(f->presence, bytes("g"), bytes("b"));
    TURN_UNTIL(bop_presence_there(f->presence));
    CHECK_EQ(f->cluster.members, 0);
    lose_session(f);
    TURN_UNTIL(f->lost == 1);
    CHECK(bop_presence_there(f->presence));
}

/* It is denied once it was sent, so nobody knows; then it is allowed again. */
TEST(presence, asks_again_for_what_may_have_been_done)
{
    start(f);
    f->cluster.nodes[0].drop_after = 1;
    join(f, "m", "i");
    TURN_UNTIL(f->cluster.members == 1);
    f->cluster.nodes[0].denied = 1;
    TURN_UNTIL(f->there == 1);
    CHECK_EQ(f->failed, 0);
    CHECK(bop_presence_there(f->presence));
}

TEST(presence, fails_where_it_is_denied)
{
    start(f);
    f->cluster.nodes[0].denied = 1;
    join(f, "m", "i");
    TURN_UNTIL(f->failed == 1);
    CHECK_EQ(f->cluster.members, 0);
}

TEST(presence, sets_what_changes)
{
    start(f);
    join(f, "a", "1");
    join(f, "a", "2"); /* While it is asked for. */
    TURN_UNTIL(f->there == 1);
    CHECK_EQ(f->cluster.members, 2); /* Two joins. */
    join(f, "a", "2");
    CHECK(bop_presence_there(f->presence));
    join(f, "a", "3");
    TURN_UNTIL(f->there == 2);
    CHECK_EQ(f->cluster.members, 3);
}

TEST(presence, refuses_what_no_server_would_take)
{
    start(f);
    CHECK_EQ(bop_presence_join(f->presence, bytes(""), bytes("a"), bytes("")), BOP_EINVAL);
    CHECK_EQ(bop_presence_add(f->presence, bytes("\xff"), bytes("a"), 1), BOP_EINVAL);
    CHECK(bop_presence_there(f->presence));
}

/* Its questions are under way, and answered after it is gone. */
TEST(presence, may_go_while_it_asks)
{
    start(f);
    join(f, "a", "");
    bop_presence_destroy(f->presence);
    f->presence = NULL;
    TURN_UNTIL(f->cluster.members == 1);
    CHECK_EQ(f->there, 0);
}

TEST(grace, is_asked_for)
{
    f->options.session_grace_ms = 1500;
    start(f);
    join(f, "a", "");
    TURN_UNTIL(f->there == 1);
    CHECK_EQ(f->cluster.grace_ms, 1500);
}

TEST(grace, is_done_without_where_nobody_knows_of_it)
{
    f->options.session_grace_ms = 1500;
    f->cluster.old = true;
    start(f);
    join(f, "a", "");
    TURN_UNTIL(f->there == 1);
    CHECK_EQ(f->cluster.nodes[0].opens, 2);
    CHECK_EQ(f->cluster.grace_ms, 0);
}
