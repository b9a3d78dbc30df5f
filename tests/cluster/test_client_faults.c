/*
 * The client without memory, against a real node on the same loop: whichever allocation of
 * locks, elections, barriers, views, watches, presence and bulk requests fails, a call says
 * so at once or its callback comes once, nothing is leaked, and the client goes on.
 */
#include <stdio.h>

#include <bop/client_election.h>
#include <bop/client_view.h>
#include <bop/client_watch.h>
#include <bop/node.h>
#include <bop/presence.h>
#include <bop/transaction.h>

#include "client_help.h"

struct fixture {
    struct bop_faults faults;
    struct test_heap heap; /* The client's alone. */
    struct bop_loop *loop;
    struct bop_node *node;
    struct bop_client *client;
    char endpoint[64];
    const char *endpoints[1];
    struct bop_client_options options;
    unsigned asked; /* Calls that were taken... */
    unsigned told;  /* ...and callbacks that came. */
    int code;       /* Of the last one. */
    struct bop_client_view view;
    unsigned news;
    bool over; /* The watch. */
};

static void setup(struct fixture *f)
{
    struct bop_loop_options loop = {0};

    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_loop_create(&loop, &f->loop), 0);
    f->node = start_one_node(f->loop, f->endpoint);
    f->endpoints[0] = f->endpoint;
    f->options = (struct bop_client_options){.allocator = &f->heap.allocator,
                                             .loop = f->loop,
                                             .endpoints = f->endpoints,
                                             .endpoint_count = 1,
                                             .session_timeout_ms = 60000,
                                             /* A machine that stands still is no silent server. */
                                             .silence_timeout_ms = 60000,
                                             .connect_timeout_ms = 60000};
}

static void teardown(struct fixture *f)
{
    f->faults.fail_at = 0;
    bop_client_destroy(f->client);
    bop_node_destroy(f->node);
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

#define TURN_UNTIL(condition) TURN_LOOP_UNTIL(f->loop, condition)

/* A call was made. True if it was taken; else for lack of memory, which there was indeed. */
static bool took(struct fixture *f, int rc)
{
    CHECK(rc == 0 || (rc == BOP_ENOMEM && f->faults.fired != 0));
    f->asked += rc == 0;
    return rc == 0;
}

/* All that was asked is answered; with no other failure than the one that was made. */
static void answered(struct fixture *f)
{
    TURN_UNTIL(f->told == f->asked);
    CHECK(f->code == 0 || f->faults.fired != 0);
}

static bool open_client(struct fixture *f)
{
    f->asked = f->told = f->news = 0;
    f->code = 0;
    f->over = false;
    return bop_client_create(&f->options, &f->client, NULL) == 0;
}

/* It goes, and what it had is given back once the loop has turned. */
static void end_client(struct fixture *f)
{
    CHECK(f->client || f->faults.fired != 0);
    bop_client_destroy(f->client);
    f->client = NULL;
    TURN_UNTIL(f->heap.live == 0);
    CHECK_EQ(f->told, f->asked);
}

static void on_result(void *user, int code, const struct bop_result *result)
{
    struct fixture *f = user;

    f->told++;
    f->code = code;
}

static void on_code(void *user, int code)
{
    struct fixture *f = user;

    f->told++;
    f->code = code;
}

/* ---- Locks ---- */

static void on_lock(void *user, struct bop_client_lock *lock, int code)
{
    on_code(user, code);
}

static void on_lost(void *user, struct bop_client_lock *lock)
{
    CHECK(((struct fixture *)user)->faults.fired != 0);
}

TEST(client_faults, of_a_lock_are_told_and_leave_it_free)
{
    struct bop_client_lock_options options = {.name = bytes("l"), .label = bytes("me")};

    FAULT_SWEEP(&f->faults) {
        struct bop_client_lock *lock = NULL;

        if (open_client(f) &&
            took(f, bop_client_lock_acquire(f->client, &options, on_lock, on_lost, f, &lock))) {
            answered(f);
            if (f->code == 0) {
                CHECK(bop_client_lock_token(lock) > 0);
                if (!took(f, bop_client_lock_release(lock, on_code, f))) {
                    CHECK(took(f, bop_client_lock_release(lock, on_code, f)));
                }
                answered(f);
            }
        }
        end_client(f);
    }
}

/* ---- Elections and barriers ---- */

static void on_won(void *user, struct bop_client_election *election, uint64_t token)
{
    CHECK(token > 0);
    on_code(user, 0);
}

static void on_lost_election(void *user, struct bop_client_election *election)
{
    CHECK(((struct fixture *)user)->faults.fired != 0);
}

static void on_failed_election(void *user, struct bop_client_election *election, int code)
{
    CHECK(((struct fixture *)user)->faults.fired != 0);
    on_code(user, code);
}

TEST(client_faults, of_an_election_do_not_keep_it_from_being_won)
{
    struct bop_client_election_options options = {.name = bytes("e"),
                                                  .candidate = bytes("me"),
                                                  .won = on_won,
                                                  .lost = on_lost_election,
                                                  .failed = on_failed_election,
                                                  .user = f};

    FAULT_SWEEP(&f->faults) {
        struct bop_client_election *election;

        if (open_client(f) &&
            took(f, bop_client_election_campaign(f->client, &options, &election))) {
            answered(f);
            bop_client_election_resign(election);
        }
        end_client(f);
    }
}

TEST(client_faults, of_a_barrier_are_told)
{
    FAULT_SWEEP(&f->faults) {
        if (open_client(f) &&
            took(f, bop_client_barrier_wait(f->client, bytes("b"), 1, 30000, on_code, f))) {
            answered(f);
        }
        end_client(f);
    }
}

/* ---- Views ---- */

static void on_view(void *user, int code, const struct bop_client_view *view)
{
    struct fixture *f = user;

    if (code == 0) {
        f->view = *view;
    }
    on_code(user, code);
}

TEST(client_faults, of_a_view_are_told)
{
    struct bop_operation size = {.op = BOP_OP_MAP_SIZE, .name = bytes("m")};

    FAULT_SWEEP(&f->faults) {
        if (open_client(f) && took(f, bop_client_view_open(f->client, on_view, f))) {
            answered(f);
            if (f->code == 0 &&
                took(f, bop_client_view_read(f->client, &f->view, &size, on_result, f))) {
                answered(f);
            }
            if (f->view.id != 0) {
                BOP_IGNORE(bop_client_view_close(f->client, &f->view)); /* It goes anyway. */
            }
        }
        f->view.id = 0;
        end_client(f);
    }
}

/* ---- Watches ---- */

static void on_news(void *user, const struct bop_client_news *news)
{
    struct fixture *f = user;

    CHECK(news->code == 0 || f->faults.fired != 0);
    f->news++;
    f->over = news->code != 0;
}

TEST(client_faults, of_a_watch_are_told_or_got_over)
{
    struct bop_client_watch_options options = {
        .what = BOP_WATCH_MAP, .name = bytes("m"), .flags = BOP_WATCH_SNAPSHOT};

    FAULT_SWEEP(&f->faults) {
        struct bop_client_watch *watch;
        int rc;

        if (open_client(f)) {
            rc = bop_client_watch_open(f->client, &options, on_news, f, &watch);
            CHECK(rc == 0 || (rc == BOP_ENOMEM && f->faults.fired != 0));
            if (rc == 0) {
                TURN_UNTIL(f->news > 0);
                if (!f->over && took(f, bop_client_map_put(f->client, bytes("m"), bytes("k"),
                                                           bytes("v"), NULL, on_result, f))) {
                    unsigned before = f->news;

                    answered(f);
                    TURN_UNTIL(f->news > before || f->code != 0 || f->over);
                }
                bop_client_watch_close(watch);
            }
        }
        end_client(f);
    }
}

TEST(client_faults, of_settling_are_told)
{
    FAULT_SWEEP(&f->faults) {
        if (open_client(f)) {
            took(f, bop_client_registration_add_settled(f->client, bytes("r"), bytes("a"), 1, 1000,
                                                        on_result, f));
            answered(f);
        }
        end_client(f);
    }
}

/* ---- Presence ---- */

static void on_presence(void *user, enum bop_presence_news news, struct bop_slice name, int code)
{
    struct fixture *f = user;

    CHECK(news == BOP_PRESENCE_THERE || f->faults.fired != 0);
    f->news++;
}

TEST(client_faults, of_presence_do_not_keep_it_away)
{
    FAULT_SWEEP(&f->faults) {
        struct bop_presence_options options = {.retry_ms = 5, .news = on_presence, .user = f};
        struct bop_presence *presence;

        if (open_client(f)) {
            options.client = f->client;
            if (bop_presence_create(&options, &presence) == 0) {
                int joined = bop_presence_join(presence, bytes("g"), bytes("me"), bytes("i"));
                int added = bop_presence_add(presence, bytes("r"), bytes("a"), 2);

                CHECK(joined == 0 || (joined == BOP_ENOMEM && f->faults.fired != 0));
                CHECK(added == 0 || (added == BOP_ENOMEM && f->faults.fired != 0));
                TURN_UNTIL(bop_presence_there(presence));
                bop_presence_leave(presence, bytes("g"), bytes("me"));
                bop_presence_remove(presence, bytes("r"), bytes("a"), 2);
                TURN_UNTIL(bop_presence_there(presence));
                bop_presence_destroy(presence);
            } else {
                CHECK(f->faults.fired != 0);
            }
        }
        end_client(f);
    }
}

/* ---- Requests of several operations ---- */

static int transact(struct fixture *f)
{
    struct bop_operation put = {
        .op = BOP_OP_MAP_PUT, .name = bytes("m"), .key = bytes("k"), .value = bytes("v")};
    struct bop_compare none = {
        .kind = BOP_COMPARE_VERSION, .relation = BOP_GREATER, .name = bytes("m"), .number = -1};
    struct bop_transaction txn;
    int rc;

    bop_transaction_init(&txn, &f->heap.allocator);
    bop_transaction_if(&txn, &none);
    bop_transaction_then(&txn, &put);
    bop_transaction_else(&txn, &put);
    rc = bop_client_transaction(f->client, &txn, on_result, f);
    bop_transaction_deinit(&txn);
    return rc;
}

TEST(client_faults, of_a_transaction_are_told)
{
    FAULT_SWEEP(&f->faults) {
        if (open_client(f) && took(f, transact(f))) {
            answered(f);
        }
        end_client(f);
    }
}
