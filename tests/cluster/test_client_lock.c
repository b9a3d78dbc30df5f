/*
 * Locks, elections and barriers of the client against a real node on the same loop; the
 * blocking forms from a thread of their own.
 */
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include <bop/client_election.h>
#include <bop/node.h>

#include "client_help.h"
#include "client_internal.h"

#define CLIENTS         3
#define SESSION_TIMEOUT 3000

/* A request for a lock, and what was heard of it. */
struct ask {
    struct bop_client_lock *lock;
    unsigned callbacks;
    unsigned losses;
    unsigned releases;
    int code;
    uint64_t token;
};

struct fixture {
    struct test_heap heap;
    struct bop_loop *loop;
    struct bop_node *node;
    char endpoint[64];
    const char *endpoints[1];
    struct bop_client_options options;
    struct bop_client *clients[CLIENTS];
    struct ask asks[4];
};

static void setup(struct fixture *f)
{
    struct bop_loop_options loop = {0};
    struct bop_error err = {0};

    test_heap_init(&f->heap, NULL);
    REQUIRE_EQ(bop_loop_create(&loop, &f->loop), 0);
    f->node = start_one_node(f->loop, f->endpoint);
    f->endpoints[0] = f->endpoint;
    f->options = (struct bop_client_options){.allocator = &f->heap.allocator,
                                             .loop = f->loop,
                                             .endpoints = f->endpoints,
                                             .endpoint_count = 1,
                                             .session_timeout_ms = SESSION_TIMEOUT};
    for (int i = 0; i < CLIENTS; i++) {
        REQUIRE_EQ(bop_client_create(&f->options, &f->clients[i], &err), 0);
    }
}

static void end_client(struct fixture *f, int i)
{
    bop_client_destroy(f->clients[i]);
    f->clients[i] = NULL;
}

static void teardown(struct fixture *f)
{
    for (int i = 0; i < CLIENTS; i++) {
        end_client(f, i);
    }
    bop_node_destroy(f->node);
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

/* Turn the loop until *flag is at least `goal`. */
static void turn_until(struct fixture *f, const unsigned *flag, unsigned goal)
{
    uint64_t end_ms = bop_loop_now_ms(f->loop) + PATIENCE_MS;

    while (*flag < goal) {
        REQUIRE(bop_loop_now_ms(f->loop) < end_ms);
        REQUIRE_EQ(bop_loop_run_once(f->loop, 20), 0);
    }
}

static void on_granted(void *user, struct bop_client_lock *lock, int code)
{
    struct ask *ask = (struct ask *)user;

    ask->callbacks++;
    ask->code = code;
    ask->token = code == 0 ? bop_client_lock_token(lock) : 0;
    if (code != 0) {
        ask->lock = NULL;
    }
}

static void on_lost(void *user, struct bop_client_lock *lock)
{
    struct ask *ask = (struct ask *)user;

    CHECK(!bop_client_lock_is_held(lock));
    ask->losses++;
}

static void on_released(void *user, int code)
{
    CHECK_EQ(code, 0);
    ((struct ask *)user)->releases++;
}

static struct ask *ask(struct fixture *f, int n, int client,
                       const struct bop_client_lock_options *options)
{
    f->asks[n] = (struct ask){0};
    REQUIRE_EQ(bop_client_lock_acquire(f->clients[client], options, on_granted, on_lost,
                                       &f->asks[n], &f->asks[n].lock),
               0);
    return &f->asks[n];
}

/* Ask and wait for the one callback. */
static struct ask *get(struct fixture *f, int n, int client,
                       const struct bop_client_lock_options *options)
{
    struct ask *asked = ask(f, n, client, options);

    turn_until(f, &asked->callbacks, 1);
    return asked;
}

static void release(struct fixture *f, struct ask *asked)
{
    REQUIRE_EQ(bop_client_lock_release(asked->lock, on_released, asked), 0);
    turn_until(f, &asked->releases, 1);
}

/* Wait until a request has its place in the queue. */
static void wait_for_ticket(struct fixture *f, const struct ask *asked)
{
    while (bop_client_lock_ticket(asked->lock) == 0) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 20), 0);
    }
}

static const struct bop_client_lock_options plain = {.name = {(const uint8_t *)"l", 1}};

TEST(client_lock, is_granted_to_one_after_the_other)
{
    struct ask *first = get(f, 0, 0, &plain), *second;
    uint64_t token = first->token;

    CHECK_EQ(first->code, 0);
    CHECK(token > 0);
    CHECK(bop_client_lock_is_held(first->lock));
    second = ask(f, 1, 1, &plain);
    wait_for_ticket(f, second);
    CHECK_EQ(second->callbacks, 0);
    CHECK(!bop_client_lock_is_held(second->lock));
    release(f, first);
    turn_until(f, &second->callbacks, 1);
    CHECK_EQ(second->code, 0);
    CHECK(second->token > token);
    CHECK_EQ(first->callbacks, 1);
    release(f, second);
    CHECK_EQ(second->losses, 0);
}

TEST(client_lock, is_not_waited_for_beyond_its_time)
{
    struct bop_client_lock_options brief = plain;

    get(f, 0, 0, &plain);
    brief.timeout_ms = 50;
    CHECK_EQ(get(f, 1, 1, &brief)->code, BOP_ETIMEOUT);
    brief.try_only = true;
    CHECK_EQ(get(f, 1, 1, &brief)->code, BOP_ETIMEOUT);
    release(f, &f->asks[0]);
    CHECK_EQ(get(f, 1, 1, &brief)->code, 0);
}

TEST(client_lock, of_another_capacity_is_refused)
{
    struct bop_client_lock_options shared = plain;

    get(f, 0, 0, &plain);
    bop_client_lock_for_reading(&shared);
    CHECK_EQ(get(f, 1, 1, &shared)->code, BOP_ECONDITION);
    shared.permits = 7;
    shared.capacity = 6;
    CHECK_EQ(
        bop_client_lock_acquire(f->clients[1], &shared, on_granted, NULL, NULL, &f->asks[1].lock),
        BOP_EINVAL);
    shared.name = bytes("");
    CHECK_EQ(
        bop_client_lock_acquire(f->clients[1], &shared, on_granted, NULL, NULL, &f->asks[1].lock),
        BOP_EINVAL);
}

/* In each state: before the cluster knows of it, while it waits, and held. */
TEST(client_lock, release_comes_in_time_whenever_it_comes)
{
    struct ask *first, *second;

    first = ask(f, 0, 0, &plain);
    release(f, first);
    CHECK_EQ(first->callbacks, 1);
    CHECK_EQ(first->code, BOP_ECANCELED);
    first = get(f, 0, 0, &plain);
    second = ask(f, 1, 1, &plain);
    wait_for_ticket(f, second);
    release(f, second);
    CHECK_EQ(second->callbacks, 1);
    CHECK_EQ(second->code, BOP_ECANCELED);
    release(f, first);
    CHECK_EQ(get(f, 2, 2, &plain)->code, 0);
}

TEST(client_lock, ends_with_its_client)
{
    struct ask *second, *third;

    get(f, 0, 0, &plain);
    second = ask(f, 1, 1, &plain);
    wait_for_ticket(f, second);
    third = ask(f, 2, 2, &plain);
    wait_for_ticket(f, third);
    end_client(f, 1);
    CHECK_EQ(second->callbacks, 1);
    CHECK_EQ(second->code, BOP_ECANCELED);
    end_client(f, 0); /* Its last word is that its session ends. */
    turn_until(f, &third->callbacks, 1);
    CHECK_EQ(third->code, 0);
}

TEST(client_lock, is_adopted_by_its_label)
{
    struct bop_client_lock_options labelled = plain;
    struct ask *first, *second = &f->asks[1];

    labelled.label = bytes("me");
    first = get(f, 0, 0, &labelled);
    REQUIRE_EQ(bop_client_lock_adopt(f->clients[1], bytes("l"), bytes("you"), on_granted, on_lost,
                                     second, &second->lock),
               0);
    turn_until(f, &second->callbacks, 1);
    CHECK_EQ(second->code, BOP_ENOTFOUND);
    REQUIRE_EQ(bop_client_lock_adopt(f->clients[1], bytes("l"), bytes("me"), on_granted, on_lost,
                                     second, &second->lock),
               0);
    turn_until(f, &second->callbacks, 2);
    CHECK_EQ(second->code, 0);
    CHECK_EQ(second->token, first->token);
    turn_until(f, &first->losses, 1);
    release(f, first); /* Which is nothing any more. */
    CHECK(bop_client_lock_is_held(second->lock));
    release(f, second);
    CHECK_EQ(second->losses, 0);
}

static void on_time(struct bop_timer *timer)
{
    (void)timer;
}

/*
 * No word from anybody: half of the session's timeout is as long as it counts as held. Timers
 * of one loop come in their order, however busy the machine is.
 */
TEST(client_lock, is_lost_when_nobody_answers_any_more)
{
    struct ask *held = get(f, 0, 0, &plain);
    struct bop_timer session;

    bop_timer_init(&session, on_time);
    REQUIRE_EQ(bop_timer_start(f->loop, &session, SESSION_TIMEOUT), 0);
    bop_node_destroy(f->node);
    f->node = NULL;
    while (held->losses == 0 && bop_timer_is_running(&session)) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 20), 0);
    }
    CHECK_EQ(held->losses, 1);
    bop_timer_stop(f->loop, &session);
    release(f, held);
    CHECK_EQ(held->callbacks, 1);
}

/* A process that stands still finds an answer of before, when another one may have the lock. */
TEST(client_lock, is_not_had_by_an_answer_that_was_long_on_its_way)
{
    struct timespec life = {.tv_nsec = 600000000};
    struct ask *late;
    struct bop_error err;

    end_client(f, 1);
    f->options.session_timeout_ms = 1000;
    REQUIRE_EQ(bop_client_create(&f->options, &f->clients[1], &err), 0);
    late = get(f, 0, 1, &plain); /* It has a session. */
    release(f, late);
    late = ask(f, 1, 1, &plain);
    for (int turn = 0; turn < 6; turn++) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
        CHECK(late->callbacks == 0 || late->code != 0);
        nanosleep(&life, NULL);
    }
    turn_until(f, &late->callbacks, 1);
    if (late->code == 0) {
        release(f, late); /* It was asked for once more. */
    } else {
        CHECK_EQ(late->code, BOP_ESESSION);
    }
    get(f, 2, 0, &plain); /* It is free in any case. */
}

/* Who waits for so long and no longer hears that it is over, even if nobody answers. */
TEST(client_lock, is_not_waited_for_beyond_its_time_where_nobody_answers)
{
    struct bop_client_lock_options brief = plain;
    struct ask *second;
    struct bop_error err;

    end_client(f, 1);
    f->options.request_timeout_ms = 1000;
    f->options.session_timeout_ms = 60000;
    REQUIRE_EQ(bop_client_create(&f->options, &f->clients[1], &err), 0);
    get(f, 0, 0, &plain);
    brief.timeout_ms = 500;
    second = ask(f, 1, 1, &brief);
    while (second->lock && bop_client_lock_ticket(second->lock) == 0) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 20), 0);
    }
    bop_node_destroy(f->node);
    f->node = NULL;
    turn_until(f, &second->callbacks, 1);
    CHECK_EQ(second->code, BOP_ETIMEOUT);
}

/* ---- Elections ---- */

struct candidate {
    struct bop_client_election *election;
    unsigned wins;
    unsigned losses;
    uint64_t token;
};

static void on_won(void *user, struct bop_client_election *election, uint64_t token)
{
    struct candidate *candidate = (struct candidate *)user;

    CHECK(bop_client_election_leads(election));
    CHECK(token > candidate->token);
    candidate->token = token;
    candidate->wins++;
}

static void on_deposed(void *user, struct bop_client_election *election)
{
    CHECK(!bop_client_election_leads(election));
    ((struct candidate *)user)->losses++;
}

static void campaign(struct fixture *f, int client, const char *name, struct candidate *candidate)
{
    struct bop_client_election_options options = {.name = bytes("e"),
                                                  .candidate = bytes(name),
                                                  .won = on_won,
                                                  .lost = on_deposed,
                                                  .user = candidate};

    REQUIRE_EQ(bop_client_election_campaign(f->clients[client], &options, &candidate->election), 0);
}

struct seen {
    unsigned changes;
    char leader[32];
};

static void on_leader(void *user, struct bop_slice candidate, uint64_t token)
{
    struct seen *seen = (struct seen *)user;

    CHECK_EQ(token != 0, candidate.size > 0);
    snprintf(seen->leader, sizeof(seen->leader), "%.*s", (int)candidate.size,
             (const char *)candidate.data);
    seen->changes++;
}

TEST(election, hands_over_when_the_leader_resigns)
{
    struct candidate one = {0}, two = {0};
    struct bop_client_observer *observer;
    struct seen seen = {0};

    campaign(f, 0, "one", &one);
    turn_until(f, &one.wins, 1);
    campaign(f, 1, "two", &two);
    REQUIRE_EQ(bop_client_election_observe(f->clients[2], bytes("e"), on_leader, &seen, &observer),
               0);
    turn_until(f, &seen.changes, 1);
    CHECK_STR_EQ(seen.leader, "one");
    CHECK(!bop_client_election_leads(two.election));
    CHECK_EQ(f->clients[2]->watches.count, 1); /* It is told, and need not ask. */
    bop_client_election_resign(one.election);
    turn_until(f, &two.wins, 1);
    CHECK(two.token > one.token);
    while (strcmp(seen.leader, "two") != 0) {
        unsigned before = seen.changes;

        turn_until(f, &seen.changes, before + 1);
    }
    bop_client_election_unobserve(observer);
    CHECK_EQ(f->clients[2]->watches.count, 0);
    campaign(f, 0, "one", &one);
    bop_client_election_resign(one.election); /* While it stands. */
    bop_client_election_resign(two.election);
    bop_client_election_resign(NULL);
}

/* Taken away, it stands again, behind nobody, and leads again. */
TEST(election, stands_again_after_a_loss)
{
    struct candidate one = {0};
    struct ask *thief = &f->asks[0];

    campaign(f, 0, "one", &one);
    turn_until(f, &one.wins, 1);
    REQUIRE_EQ(bop_client_lock_adopt(f->clients[1], bytes("e"), bytes("one"), on_granted, on_lost,
                                     thief, &thief->lock),
               0);
    turn_until(f, &one.losses, 1);
    release(f, thief);
    turn_until(f, &one.wins, 2);
    bop_client_election_resign(one.election);
}

/* ---- Barriers ---- */

struct party {
    unsigned done;
    int code;
};

static void on_passed(void *user, int code)
{
    struct party *party = (struct party *)user;

    party->done++;
    party->code = code;
}

static void come(struct fixture *f, int client, uint64_t timeout_ms, struct party *party)
{
    REQUIRE_EQ(
        bop_client_barrier_wait(f->clients[client], bytes("b"), 3, timeout_ms, on_passed, party),
        0);
}

TEST(barrier, opens_for_all_when_the_last_one_has_come)
{
    for (unsigned round = 1; round <= 3; round++) {
        struct party parties[3] = {0};

        come(f, 0, 0, &parties[0]);
        come(f, 1, 60000, &parties[1]);
        while (f->clients[0]->watches.count + f->clients[1]->watches.count < 2) {
            REQUIRE_EQ(bop_loop_run_once(f->loop, 5), 0); /* They will be told, and need not ask. */
        }
        CHECK_EQ(parties[0].done + parties[1].done, 0);
        come(f, 2, 0, &parties[2]);
        for (int i = 0; i < 3; i++) {
            turn_until(f, &parties[i].done, 1);
            CHECK_EQ(parties[i].code, 0);
            CHECK_EQ(f->clients[i]->watches.count, 0);
        }
    }
}

TEST(barrier, one_that_gave_up_did_not_come)
{
    struct party early = {0}, parties[3] = {0};

    come(f, 0, 30, &early);
    turn_until(f, &early.done, 1);
    CHECK_EQ(early.code, BOP_ETIMEOUT);
    come(f, 0, 0, &parties[0]);
    come(f, 1, 0, &parties[1]);
    for (int i = 0; i < 20; i++) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 5), 0);
    }
    CHECK_EQ(parties[0].done + parties[1].done, 0);
    come(f, 2, 0, &parties[2]);
    for (int i = 0; i < 3; i++) {
        turn_until(f, &parties[i].done, 1);
        CHECK_EQ(parties[i].code, 0);
    }
    come(f, 2, 0, &early); /* Ends with its client. */
    end_client(f, 2);
    CHECK_EQ(early.code, BOP_ECANCELED);
    CHECK_EQ(bop_client_barrier_wait(f->clients[0], bytes("b"), 0, 0, on_passed, &early),
             BOP_EINVAL);
}

/* ---- Blocking ---- */

struct blocker {
    struct fixture *f;
    struct bop_client_options options;
    unsigned done;
    struct bop_post post;
};

static void on_thread_done(struct bop_post *post)
{
    BOP_CONTAINER_OF(post, struct blocker, post)->done = 1;
}

static void *block(void *user)
{
    struct blocker *blocker = (struct blocker *)user;
    struct bop_client_lock_options labelled = plain, brief = plain;
    struct bop_client_blocking_lock *lock = NULL, *other = NULL;
    struct bop_client_blocking *client = NULL;
    struct bop_error err = {0};
    uint64_t token;

    labelled.label = bytes("me");
    brief.timeout_ms = 20;
    REQUIRE_EQ(bop_client_blocking_open(&blocker->options, &client, &err), 0);
    REQUIRE_EQ(bop_client_blocking_lock_acquire(client, &labelled, &lock, &err), 0);
    token = bop_client_blocking_lock_token(lock);
    CHECK(token > 0);
    CHECK_EQ(bop_client_blocking_lock_ticket(lock), token);
    CHECK(bop_client_blocking_lock_is_held(lock));
    CHECK_EQ(bop_client_blocking_lock_acquire(client, &brief, &other, &err), BOP_ETIMEOUT);
    CHECK_STR_HAS(err.message, "acquire \"l\"");
    CHECK_EQ(bop_client_blocking_lock_adopt(client, bytes("l"), bytes("you"), &other, &err),
             BOP_ENOTFOUND);
    CHECK_EQ(bop_client_blocking_lock_release(lock, &err), 0);
    CHECK_EQ(bop_client_blocking_lock_release(NULL, &err), 0);
    REQUIRE_EQ(bop_client_blocking_lock_acquire(client, &brief, &lock, &err), 0);
    CHECK(bop_client_blocking_lock_token(lock) > token);
    CHECK_EQ(bop_client_blocking_lock_release(lock, &err), 0);
    bop_client_blocking_close(client);
    bop_loop_post(blocker->f->loop, &blocker->post);
    return NULL;
}

TEST(client_lock, blocks_who_wants_to_be_blocked)
{
    struct blocker blocker = {.f = f, .options = f->options, .post = {.fn = on_thread_done}};
    pthread_t thread;

    blocker.options.allocator = NULL;
    REQUIRE_EQ(pthread_create(&thread, NULL, block, &blocker), 0);
    turn_until(f, &blocker.done, 1);
    REQUIRE_EQ(pthread_join(thread, NULL), 0);
}
