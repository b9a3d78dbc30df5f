/*
 * The client against a real node, over a real socket: operations whose effect only a whole server
 * has, such as what goes by itself.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include <bop/client.h>
#include <bop/client_view.h>
#include <bop/client_watch.h>
#include <bop/node.h>

#include "client_help.h"

struct fixture {
    pthread_t thread;
    struct bop_loop *loop;
    struct bop_node *node;
    struct bop_post stop;
    struct bop_client_blocking *client;
    struct bop_buf buf;
    struct bop_result result;
    struct bop_error err;
};

static void stopped(void *user)
{
    bop_loop_stop(((struct fixture *)user)->loop);
}

static void stop(struct bop_post *post)
{
    struct fixture *f = BOP_CONTAINER_OF(post, struct fixture, stop);

    bop_node_stop(f->node, stopped, f);
}

static void *run_loop(void *user)
{
    struct fixture *f = (struct fixture *)user;

    CHECK_EQ(bop_loop_run(f->loop), 0);
    return NULL;
}

static void setup(struct fixture *f)
{
    struct bop_loop_options loop = {0};
    char endpoint[64];
    const char *endpoints[] = {endpoint};
    struct bop_client_options client = {.endpoints = endpoints, .endpoint_count = 1};

    bop_buf_init(&f->buf, NULL, 0);
    REQUIRE_EQ(bop_loop_create(&loop, &f->loop), 0);
    f->node = start_one_node(f->loop, endpoint);
    f->stop.fn = stop;
    REQUIRE_EQ(pthread_create(&f->thread, NULL, run_loop, f), 0);
    REQUIRE_EQ(bop_client_blocking_open(&client, &f->client, &f->err), 0);
}

static void teardown(struct fixture *f)
{
    bop_client_blocking_close(f->client);
    bop_loop_post(f->loop, &f->stop);
    REQUIRE_EQ(pthread_join(f->thread, NULL), 0);
    bop_node_destroy(f->node);
    bop_loop_destroy(f->loop);
    bop_buf_deinit(&f->buf);
}

FIXTURE(setup, teardown)

/* Run an operation; its result is in f->result. */
static int run(struct fixture *f, const struct bop_operation *operation)
{
    return bop_client_blocking_execute(f->client, operation, BOP_READ_LINEARIZABLE, &f->buf,
                                       &f->result, &f->err);
}

static int get_ttl(struct fixture *f, const char *key)
{
    struct bop_operation get = {.op = BOP_OP_MAP_GET_TTL, .name = bytes("m"), .key = bytes(key)};

    return run(f, &get);
}

TEST(node, lets_an_entry_go_by_itself)
{
    struct bop_operation put = {.op = BOP_OP_MAP_PUT_TTL,
                                .name = bytes("m"),
                                .key = bytes("k"),
                                .value = bytes("v"),
                                .ttl_ms = 30000};

    REQUIRE_EQ(run(f, &put), 0);
    REQUIRE_EQ(get_ttl(f, "k"), 0);
    CHECK(f->result.ttl_ms > 0 && f->result.ttl_ms <= 30000);
    CHECK_SLICE_EQ(f->result.value, bytes("v"));
    put.ttl_ms = 20;
    REQUIRE_EQ(run(f, &put), 0);
    while (get_ttl(f, "k") == 0) {
        CHECK(f->result.ttl_ms <= 20);
        sched_yield();
    }
    CHECK_EQ(get_ttl(f, "k"), BOP_ENOTFOUND);
}

TEST(node, shows_one_revision_in_a_view)
{
    struct bop_operation put = {
        .op = BOP_OP_MAP_PUT, .name = bytes("m"), .key = bytes("k"), .value = bytes("old")};
    struct bop_operation get = {.op = BOP_OP_MAP_GET, .name = bytes("m"), .key = bytes("k")};
    struct bop_client_view view = {0}, newer = {0};

    REQUIRE_EQ(run(f, &put), 0);
    REQUIRE_EQ(bop_client_blocking_view_open(f->client, &view, &f->err), 0);
    put.value = bytes("new");
    REQUIRE_EQ(run(f, &put), 0);
    REQUIRE_EQ(bop_client_blocking_view_open(f->client, &newer, &f->err), 0);
    CHECK(newer.revision > view.revision);
    REQUIRE_EQ(bop_client_blocking_view_read(f->client, &view, &get, &f->buf, &f->result, &f->err),
               0);
    CHECK_SLICE_EQ(f->result.value, bytes("old"));
    REQUIRE_EQ(bop_client_blocking_view_read(f->client, &newer, &get, &f->buf, &f->result, &f->err),
               0);
    CHECK_SLICE_EQ(f->result.value, bytes("new"));
    get.key = bytes("nobody");
    CHECK_EQ(bop_client_blocking_view_read(f->client, &view, &get, &f->buf, &f->result, &f->err),
             BOP_ENOTFOUND);
    CHECK_EQ(bop_client_blocking_view_read(f->client, &view, &put, &f->buf, &f->result, &f->err),
             BOP_EINVAL);
    bop_client_blocking_view_close(f->client, &view);
    bop_client_blocking_view_close(f->client, &view); /* Closed already: nothing to do. */
    CHECK_EQ(bop_client_blocking_view_read(f->client, &view, &get, &f->buf, &f->result, &f->err),
             BOP_ENOVIEW);
    get.key = bytes("k");
    CHECK_EQ(bop_client_blocking_view_read(f->client, &newer, &get, &f->buf, &f->result, &f->err),
             0);
}

TEST(node, settles_for_a_client_that_blocks)
{
    bool added = false;

    REQUIRE_EQ(bop_client_blocking_registration_add_settled(f->client, bytes("r"), bytes("a"), 1,
                                                            30000, &added, &f->err),
               0);
    CHECK(added);
    REQUIRE_EQ(bop_client_blocking_registration_add_settled(f->client, bytes("r"), bytes("a"), 1,
                                                            30000, &added, &f->err),
               0);
    CHECK(!added);
    CHECK_EQ(bop_client_blocking_registration_add_settled(f->client, bytes("r"), bytes("b"), 1, 0,
                                                          NULL, &f->err),
             BOP_EMALFORMED);
    CHECK_EQ(bop_client_blocking_watch_settle(f->client, BOP_WATCH_COUNTER, bytes("c"), bytes(""),
                                              0, &f->err),
             0);
    CHECK_EQ(bop_client_blocking_watch_settle(f->client, BOP_WATCH_COUNTER, bytes(""), bytes(""), 0,
                                              &f->err),
             BOP_EINVAL);
}

/* A client on a loop that the test turns. */
struct turning {
    struct bop_loop *loop;
    struct bop_client *client;
    unsigned news;
    unsigned done;
    unsigned news_when_done;
    int code;
    bool existed;
};

static void make_turning(struct fixture *f, struct turning *turning)
{
    struct bop_loop_options loop = {0};
    char endpoint[64];
    const char *endpoints[] = {endpoint};
    struct bop_client_options options = {.endpoints = endpoints, .endpoint_count = 1};

    *turning = (struct turning){0};
    snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", bop_node_port(f->node));
    REQUIRE_EQ(bop_loop_create(&loop, &turning->loop), 0);
    options.loop = turning->loop;
    REQUIRE_EQ(bop_client_create(&options, &turning->client, &f->err), 0);
}

static void end_turning(struct turning *turning)
{
    bop_client_destroy(turning->client);
    for (int n = 0; n < 3; n++) {
        CHECK_EQ(bop_loop_run_once(turning->loop, 0), 0);
    }
    bop_loop_destroy(turning->loop);
}

static void on_news(void *user, const struct bop_client_news *news)
{
    struct turning *turning = (struct turning *)user;

    turning->news += news->code == 0 && news->events.size > 0;
}

static void on_added(void *user, int code, const struct bop_result *result)
{
    struct turning *turning = (struct turning *)user;

    turning->done++;
    turning->news_when_done = turning->news;
    turning->code = code;
    turning->existed = result->existed;
}

static void on_settled(void *user, int code)
{
    on_added(user, code, &(struct bop_result){0});
}

static void turn_until_done(struct turning *turning, unsigned done)
{
    while (turning->done < done) {
        REQUIRE_EQ(bop_loop_run_once(turning->loop, 100), 0);
    }
}

TEST(node, adds_a_registration_of_which_all_have_heard)
{
    struct bop_slice address = bytes("a");
    struct bop_client_watch_options options = {.what = BOP_WATCH_REGISTRY,
                                               .name = bytes("r"),
                                               .key = &address,
                                               .flags = BOP_WATCH_ACKNOWLEDGE};
    struct bop_client_watch *watch;
    struct turning turning;

    make_turning(f, &turning);
    REQUIRE_EQ(bop_client_watch_open(turning.client, &options, on_news, &turning, &watch), 0);
    while (bop_client_watch_revision(watch) == 0) {
        REQUIRE_EQ(bop_loop_run_once(turning.loop, 100), 0);
    }
    REQUIRE_EQ(bop_client_registration_add_settled(turning.client, bytes("r"), address, 1, 30000,
                                                   on_added, &turning),
               0);
    turn_until_done(&turning, 1);
    CHECK_EQ(turning.code, 0);
    CHECK(turning.existed);
    CHECK_EQ(turning.news_when_done, 1);
    /* Of nobody who watches it. */
    REQUIRE_EQ(bop_client_watch_settle(turning.client, BOP_WATCH_COUNTER, bytes("c"), bytes(""), 0,
                                       on_settled, &turning),
               0);
    turn_until_done(&turning, 2);
    CHECK_EQ(turning.code, 0);
    CHECK_EQ(bop_client_watch_settle(turning.client, BOP_WATCH_COUNTER, bytes(""), bytes(""), 0,
                                     on_settled, &turning),
             BOP_EINVAL);
    end_turning(&turning);
}

TEST(node, does_not_wait_for_ever_for_who_does_not_listen)
{
    struct bop_client_watch_options options = {
        .what = BOP_WATCH_REGISTRY, .name = bytes("r"), .flags = BOP_WATCH_ACKNOWLEDGE};
    struct bop_client_watch *watch;
    struct turning deaf, turning;

    make_turning(f, &deaf);
    make_turning(f, &turning);
    REQUIRE_EQ(bop_client_watch_open(deaf.client, &options, on_news, &deaf, &watch), 0);
    while (bop_client_watch_revision(watch) == 0) {
        REQUIRE_EQ(bop_loop_run_once(deaf.loop, 100), 0);
    }
    REQUIRE_EQ(bop_client_registration_add_settled(turning.client, bytes("r"), bytes("a"), 1, 50,
                                                   on_added, &turning),
               0);
    turn_until_done(&turning, 1);
    CHECK_EQ(turning.code, BOP_EUNCERTAIN);
    CHECK(turning.existed);
    CHECK_EQ(bop_client_blocking_watch_settle(f->client, BOP_WATCH_REGISTRY, bytes("r"), bytes("a"),
                                              50, &f->err),
             BOP_EUNCERTAIN);
    CHECK_STR_HAS(f->err.message, "not all who watch it");
    /* Under way when all ends. */
    REQUIRE_EQ(bop_client_watch_settle(turning.client, BOP_WATCH_REGISTRY, bytes("r"), bytes("a"),
                                       60000, on_settled, &turning),
               0);
    REQUIRE_EQ(bop_loop_run_once(turning.loop, 0), 0);
    end_turning(&turning);
    CHECK_EQ(turning.code, BOP_ECANCELED);
    end_turning(&deaf);
}

TEST(node, exchanges_and_takes)
{
    struct bop_operation exchange = {
        .op = BOP_OP_MAP_EXCHANGE, .name = bytes("m"), .key = bytes("k"), .value = bytes("one")};
    struct bop_operation take = {.op = BOP_OP_MAP_TAKE, .name = bytes("m"), .key = bytes("k")};

    REQUIRE_EQ(run(f, &exchange), 0);
    CHECK(!f->result.existed);
    exchange.condition = BOP_IF_ABSENT;
    CHECK_EQ(run(f, &exchange), BOP_ECONDITION);
    CHECK_SLICE_EQ(f->result.value, bytes("one"));
    REQUIRE_EQ(run(f, &take), 0);
    CHECK_SLICE_EQ(f->result.value, bytes("one"));
    REQUIRE_EQ(run(f, &take), 0);
    CHECK(!f->result.existed);
}

TEST(node, puts_many_at_once)
{
    struct bop_buf items;
    struct bop_writer writer = bop_writer(&items);
    struct bop_operation all = {.op = BOP_OP_MAP_PUT_ALL, .name = bytes("m"), .count = 3};
    struct bop_operation size = {.op = BOP_OP_MAP_SIZE, .name = bytes("m")};
    struct bop_item item = {.value = bytes("v")};

    bop_buf_init(&items, NULL, 0);
    for (uint32_t n = 0; n < all.count; n++) {
        item.key = bop_slice(&"abc"[n], 1);
        bop_item_encode(&writer, all.op, &item);
    }
    all.items = bop_buf_slice(&items);
    REQUIRE_EQ(run(f, &all), 0);
    CHECK_EQ(f->result.size, 3);
    REQUIRE_EQ(run(f, &size), 0);
    CHECK_EQ(f->result.size, 3);
    bop_buf_deinit(&items);
}

/* Move money from one account to another, if there is enough. */
static int move(struct fixture *f, int64_t amount)
{
    struct bop_transaction txn;
    struct bop_operation operation;
    int rc;

    bop_transaction_init(&txn, NULL);
    bop_transaction_if(&txn, &(struct bop_compare){.kind = BOP_COMPARE_COUNTER,
                                                   .relation = BOP_GREATER,
                                                   .name = bytes("from"),
                                                   .number = amount - 1});
    bop_transaction_then(
        &txn,
        &(struct bop_operation){.op = BOP_OP_COUNTER_ADD, .name = bytes("from"), .delta = -amount});
    bop_transaction_then(&txn, &(struct bop_operation){
                                   .op = BOP_OP_COUNTER_ADD, .name = bytes("to"), .delta = amount});
    bop_transaction_else(&txn,
                         &(struct bop_operation){.op = BOP_OP_COUNTER_GET, .name = bytes("from")});
    REQUIRE_EQ(bop_transaction_operation(&txn, &operation), 0);
    rc = run(f, &operation);
    bop_transaction_deinit(&txn);
    return rc;
}

TEST(node, runs_transactions)
{
    struct bop_operation set = {.op = BOP_OP_COUNTER_SET, .name = bytes("from"), .number = 100};
    struct bop_slice entries, bytes;
    struct bop_result inner;
    uint8_t status;

    REQUIRE_EQ(run(f, &set), 0);
    REQUIRE_EQ(move(f, 70), 0);
    CHECK(f->result.existed);
    CHECK_EQ(f->result.count, 2);
    REQUIRE_EQ(move(f, 70), 0);
    CHECK(!f->result.existed);
    entries = f->result.entries;
    REQUIRE(bop_transaction_result_next(&entries, &status, &bytes));
    REQUIRE_EQ(bop_result_decode(BOP_OP_COUNTER_GET, status, bytes, &inner), 0);
    CHECK_EQ(inner.number, 30);
    CHECK(!bop_transaction_result_next(&entries, &status, &bytes));
}

TEST(node, tells_which_operation_of_a_transaction_failed)
{
    struct bop_transaction txn;
    struct bop_operation operation;

    bop_transaction_init(&txn, NULL);
    bop_transaction_then(&txn,
                         &(struct bop_operation){.op = BOP_OP_COUNTER_CREATE, .name = bytes("c")});
    bop_transaction_then(&txn, &(struct bop_operation){.op = BOP_OP_MAP_DELETE,
                                                       .name = bytes("m"),
                                                       .key = bytes("none"),
                                                       .condition = BOP_IF_PRESENT});
    REQUIRE_EQ(bop_transaction_operation(&txn, &operation), 0);
    CHECK_EQ(run(f, &operation), BOP_ECONDITION);
    CHECK_EQ(f->result.version, 1);
    bop_transaction_deinit(&txn);
    operation = (struct bop_operation){.op = BOP_OP_COUNTER_GET, .name = bytes("c")};
    CHECK_EQ(run(f, &operation), BOP_ENOTFOUND);
}

TEST(transaction, of_what_cannot_be_is_refused_when_it_is_used)
{
    struct bop_transaction txn;
    struct bop_operation operation;

    bop_transaction_init(&txn, NULL);
    bop_transaction_then(&txn, &(struct bop_operation){.op = BOP_OP_TRANSACTION});
    CHECK_EQ(bop_transaction_operation(&txn, &operation), BOP_EINVAL);
    bop_transaction_deinit(&txn);
    bop_transaction_init(&txn, NULL);
    for (unsigned n = 0; n <= BOP_TRANSACTION_MAX; n++) {
        bop_transaction_if(&txn, &(struct bop_compare){.name = bytes("c")});
    }
    CHECK_EQ(bop_transaction_operation(&txn, &operation), BOP_ETOOBIG);
    bop_transaction_deinit(&txn);
}
