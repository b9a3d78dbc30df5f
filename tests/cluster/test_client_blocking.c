/*
 * The blocking client: calls from several threads, a server on another one.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "tap.h"

#include <bop/client.h>

#include "fake_cluster.h"

#define THREADS  4
#define ADDS     200
#define STEPS_MS 5

struct fixture {
    struct test_heap heap;
    struct bop_loop *loop;
    struct fake_cluster cluster;
    pthread_t server;
    bool serving;
    struct bop_client_blocking *client;
    const char *endpoints[1];
    struct bop_client_options options;
};

static void *serve(void *user)
{
    struct fixture *f = (struct fixture *)user;

    CHECK_EQ(bop_loop_run(f->loop), 0);
    return NULL;
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
        .endpoints = f->endpoints,
        .endpoint_count = 1,
    };
}

static void start(struct fixture *f)
{
    REQUIRE_EQ(pthread_create(&f->server, NULL, serve, f), 0);
    f->serving = true;
    REQUIRE_EQ(bop_client_blocking_open(&f->options, &f->client, NULL), 0);
}

static void stop_server(struct fixture *f)
{
    if (f->serving) {
        bop_loop_stop(f->loop);
        pthread_join(f->server, NULL);
        f->serving = false;
    }
}

static void teardown(struct fixture *f)
{
    bop_client_blocking_close(f->client);
    stop_server(f);
    fake_cluster_stop(&f->cluster);
    bop_loop_destroy(f->loop);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

TEST(client_blocking, does_each_operation)
{
    struct bop_status_response status;
    struct bop_client_info info;
    struct bop_buf buf;
    uint64_t version = 0, size = 0;
    int64_t number = 0;
    bool yes = false;

    bop_buf_init(&buf, NULL, 0);
    start(f);
    CHECK_EQ(bop_client_blocking_map_put(f->client, bytes("m"), bytes("k"), bytes("v"), NULL,
                                         &version, NULL),
             0);
    CHECK_EQ(version, 1);
    CHECK_EQ(bop_client_blocking_map_put(f->client, bytes("m"), bytes("k"), bytes("v"),
                                         &(struct bop_client_if){.condition = BOP_IF_ABSENT},
                                         &version, NULL),
             BOP_ECONDITION);
    CHECK_EQ(version, 77);
    CHECK_EQ(bop_client_blocking_map_get(f->client, bytes("m"), bytes("k"), BOP_READ_STALE, &buf,
                                         &version, NULL),
             0);
    CHECK_SLICE_EQ(bop_buf_slice(&buf), bytes("seen"));
    CHECK_EQ(version, 5);
    CHECK_EQ(
        bop_client_blocking_map_size(f->client, bytes("m"), BOP_READ_LINEARIZABLE, &size, NULL), 0);
    CHECK_EQ(size, 3);
    /* The model says that there was none. */
    CHECK_EQ(bop_client_blocking_map_delete(f->client, bytes("m"), bytes("k"), NULL, NULL),
             BOP_ENOTFOUND);
    CHECK_EQ(bop_client_blocking_counter_add(f->client, bytes("c"), 7, &number, NULL), 0);
    CHECK_EQ(number, 7);
    number = 0;
    CHECK_EQ(bop_client_blocking_counter_get(f->client, bytes("c"), BOP_READ_LINEARIZABLE, &number,
                                             NULL),
             0);
    CHECK_EQ(number, 7);
    CHECK_EQ(bop_client_blocking_counter_cas(f->client, bytes("c"), 7, 9, &number, NULL), 0);
    CHECK_EQ(number, 0); /* As the model answers what it does not know. */
    CHECK_EQ(bop_client_blocking_counter_set(f->client, bytes("c"), 9, NULL), 0);
    CHECK_EQ(bop_client_blocking_counter_delete(f->client, bytes("c"), NULL), BOP_ENOTFOUND);
    CHECK_EQ(bop_client_blocking_set_add(f->client, bytes("s"), bytes("a"), &yes, NULL), 0);
    CHECK(yes);
    CHECK_EQ(bop_client_blocking_set_remove(f->client, bytes("s"), bytes("a"), &yes, NULL), 0);
    CHECK(!yes);
    yes = true;
    CHECK_EQ(bop_client_blocking_set_contains(f->client, bytes("s"), bytes("a"),
                                              BOP_READ_LINEARIZABLE, &yes, NULL),
             0);
    CHECK(!yes);
    size = 0;
    CHECK_EQ(bop_client_blocking_set_size(f->client, bytes("s"), BOP_READ_STALE, &size, NULL), 0);
    CHECK_EQ(size, 3);
    CHECK_EQ(bop_client_blocking_multimap_put(f->client, bytes("mm"), bytes("k"), bytes("v"), &yes,
                                              NULL),
             0);
    CHECK(yes);
    CHECK_EQ(bop_client_blocking_multimap_remove_value(f->client, bytes("mm"), bytes("k"),
                                                       bytes("v"), &yes, NULL),
             0);
    CHECK(!yes);
    CHECK_EQ(bop_client_blocking_multimap_remove(f->client, bytes("mm"), bytes("k"), &size, NULL),
             0);
    CHECK_EQ(size, 0);
    CHECK_EQ(bop_client_blocking_multimap_key_size(f->client, bytes("mm"), bytes("k"),
                                                   BOP_READ_STALE, &size, NULL),
             0);
    CHECK_EQ(size, 3);
    yes = true;
    CHECK_EQ(bop_client_blocking_multimap_contains_entry(
                 f->client, bytes("mm"), bytes("k"), bytes("v"), BOP_READ_LINEARIZABLE, &yes, NULL),
             0);
    CHECK(!yes);
    CHECK_EQ(bop_client_blocking_status(f->client, &buf, &status, NULL), 0);
    CHECK_EQ(status.node, 1);
    CHECK_SLICE_EQ(status.health, bytes("ok"));
    bop_client_blocking_info(f->client, &info);
    CHECK_EQ(info.node, 1);
    CHECK_EQ(info.session, 1);
    bop_buf_deinit(&buf);
}

TEST(client_blocking, says_what_is_wrong)
{
    struct bop_error err = {0};

    f->options.request_timeout_ms = 100;
    fake_node_kill(&f->cluster.nodes[0]);
    start(f);
    CHECK_EQ(bop_client_blocking_counter_add(f->client, bytes("c"), 1, NULL, &err), BOP_ETIMEOUT);
    CHECK_STR_HAS(err.message, "no answer (connect to 127.0.0.1:");
    CHECK_EQ(bop_client_blocking_counter_add(f->client, bytes(""), 1, NULL, &err), BOP_EINVAL);
    CHECK_EQ(err.code, BOP_EINVAL);
}

static void *add_many(void *user)
{
    struct bop_client_blocking *client = (struct bop_client_blocking *)user;

    for (int i = 0; i < ADDS; i++) {
        CHECK_EQ(bop_client_blocking_counter_add(client, bytes("c"), 1, NULL, NULL), 0);
    }
    return NULL;
}

TEST(client_blocking, may_be_called_by_many_threads)
{
    pthread_t threads[THREADS];
    int64_t number = 0;

    start(f);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE_EQ(pthread_create(&threads[i], NULL, add_many, f->client), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_EQ(bop_client_blocking_counter_get(f->client, bytes("c"), BOP_READ_LINEARIZABLE, &number,
                                             NULL),
             0);
    CHECK_EQ(number, THREADS * ADDS);
}

TEST(client_blocking, closes_its_session)
{
    start(f);
    CHECK_EQ(bop_client_blocking_counter_add(f->client, bytes("c"), 1, NULL, NULL), 0);
    bop_client_blocking_close(f->client);
    f->client = NULL;
    /* What was sent is there; let the server read it before it stops. */
    stop_server(f);
    for (int i = 0; i < 200 && f->cluster.nodes[0].closes == 0; i++) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, STEPS_MS), 0);
    }
    CHECK_EQ(f->cluster.nodes[0].closes, 1);
}
