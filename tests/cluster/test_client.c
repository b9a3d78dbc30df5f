/*
 * The client against a fake cluster on the same loop: whatever the servers do,
 * each request has one callback, each write one effect.
 */
#include "tap.h"

#include <stdio.h>

#include <bop/client.h>

#include "client_help.h"
#include "client_internal.h"
#include "fake_cluster.h"

#define CALLS_MAX 8192

struct call {
    struct fixture *f;
    unsigned callbacks;
    int code;
    int64_t number;
};

struct fixture {
    struct bop_faults faults;
    struct test_heap heap;
    struct bop_loop *loop;
    struct fake_cluster cluster;
    struct bop_client *client;
    const char *endpoints[FAKE_NODES];
    struct bop_client_options options;
    struct call *calls; /* CALLS_MAX of them. */
    unsigned call_count;
    unsigned done;
    struct bop_result last;
    char last_value[64];
    uint64_t status_node;
};

static void setup(struct fixture *f)
{
    struct bop_loop_options options = {0};

    test_heap_init(&f->heap, &f->faults);
    REQUIRE_EQ(bop_loop_create(&options, &f->loop), 0);
    fake_cluster_start(&f->cluster, f->loop, FAKE_NODES);
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        f->endpoints[i] = f->cluster.nodes[i].address;
    }
    f->options = (struct bop_client_options){
        .allocator = &f->heap.allocator,
        .loop = f->loop,
        .endpoints = f->endpoints,
        .endpoint_count = FAKE_NODES,
        .cluster = "test",
        .session_timeout_ms = 3000,
        .silence_timeout_ms = 60000, /* A machine that stands still is no silent server. */
    };
    f->calls = (struct call *)bop_alloc_array(bop_allocator_default(), CALLS_MAX,
                                              sizeof(*f->calls));
    REQUIRE(f->calls != NULL);
}

static void teardown(struct fixture *f)
{
    bop_client_destroy(f->client);
    f->client = NULL;
    if (f->loop) {
        fake_cluster_stop(&f->cluster);
        bop_loop_destroy(f->loop);
    }
    for (unsigned i = 0; i < f->call_count; i++) {
        CHECK_EQ(f->calls[i].callbacks, 1);
    }
    bop_free(bop_allocator_default(), f->calls, CALLS_MAX * sizeof(*f->calls));
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void start(struct fixture *f)
{
    struct bop_error err = {0};

    REQUIRE_EQ(bop_client_create(&f->options, &f->client, &err), 0);
}

static struct bop_client_info info(struct fixture *f)
{
    struct bop_client_info out;

    bop_client_info(f->client, &out);
    return out;
}

static void on_result(void *user, int code, const struct bop_result *result)
{
    struct call *call = (struct call *)user;
    struct fixture *f = call->f;

    CHECK_EQ(call->callbacks, 0);
    call->callbacks++;
    call->code = code;
    call->number = result->number;
    f->last = *result;
    REQUIRE(result->value.size < sizeof(f->last_value));
    memcpy(f->last_value, result->value.size ? (const char *)result->value.data : "",
           result->value.size);
    f->last_value[result->value.size] = '\0';
    f->done++;
}

static struct call *new_call(struct fixture *f)
{
    REQUIRE(f->call_count < CALLS_MAX);
    f->calls[f->call_count].f = f;
    return &f->calls[f->call_count++];
}

/* Turn the loop until the condition holds. */
#define TURN_UNTIL(condition)                                                                      \
    do {                                                                                           \
        TURN_LOOP_UNTIL(f->loop, condition);                                                       \
        bop__client_check(f->client);                                                              \
    } while (0)

static struct call *add(struct fixture *f)
{
    struct call *call = new_call(f);

    REQUIRE_EQ(bop_client_counter_add(f->client, bytes("c"), 1, on_result, call), 0);
    return call;
}

static struct call *get(struct fixture *f)
{
    struct call *call = new_call(f);

    REQUIRE_EQ(
        bop_client_counter_get(f->client, bytes("c"), BOP_READ_LINEARIZABLE, on_result, call), 0);
    return call;
}

static void finish_all(struct fixture *f)
{
    TURN_UNTIL(f->done == f->call_count);
}

/* ---- Plain use ---- */

TEST(client, does_each_operation)
{
    struct call *call;

    start(f);
    call = new_call(f);
    REQUIRE_EQ(
        bop_client_map_put(f->client, bytes("m"), bytes("k"), bytes("v"), NULL, on_result, call),
        0);
    finish_all(f);
    CHECK_EQ(call->code, 0);
    CHECK_EQ(f->last.version, 1);
    CHECK_MEM_EQ(f->cluster.last_put, "v", 1);

    call = new_call(f);
    REQUIRE_EQ(bop_client_map_put(f->client, bytes("m"), bytes("k"), bytes("v"),
                                  &(struct bop_client_if){.condition = BOP_IF_ABSENT}, on_result,
                                  call),
               0);
    finish_all(f);
    CHECK_EQ(call->code, BOP_ECONDITION);
    CHECK_EQ(f->last.version, 77);

    call = new_call(f);
    REQUIRE_EQ(
        bop_client_map_get(f->client, bytes("m"), bytes("k"), BOP_READ_STALE, on_result, call), 0);
    finish_all(f);
    CHECK_EQ(call->code, 0);
    CHECK_STR_EQ(f->last_value, "seen");

    call = new_call(f);
    REQUIRE_EQ(bop_client_map_delete(f->client, bytes("m"), bytes("k"), NULL, on_result, call), 0);
    finish_all(f);
    CHECK_EQ(call->code, 0);

    call = new_call(f);
    REQUIRE_EQ(bop_client_map_size(f->client, bytes("m"), BOP_READ_LINEARIZABLE, on_result, call),
               0);
    finish_all(f);
    CHECK_EQ(f->last.size, 3);

    call = new_call(f);
    REQUIRE_EQ(bop_client_map_scan(f->client, bytes("m"), bytes(""), 10, BOP_READ_LINEARIZABLE,
                                   on_result, call),
               0);
    finish_all(f);
    CHECK_EQ(call->code, 0);

    call = new_call(f);
    REQUIRE_EQ(bop_client_set_add(f->client, bytes("s"), bytes("a"), on_result, call), 0);
    finish_all(f);
    CHECK_EQ(call->code, 0);
    CHECK(f->last.existed);

    call = new_call(f);
    REQUIRE_EQ(bop_client_set_remove(f->client, bytes("s"), bytes("a"), on_result, call), 0);
    finish_all(f);
    CHECK_EQ(call->code, 0);
    CHECK(!f->last.existed);

    call = new_call(f);
    REQUIRE_EQ(
        bop_client_set_contains(f->client, bytes("s"), bytes("a"), BOP_READ_STALE, on_result, call),
        0);
    finish_all(f);
    CHECK_EQ(call->code, 0);

    call = new_call(f);
    REQUIRE_EQ(bop_client_set_size(f->client, bytes("s"), BOP_READ_LINEARIZABLE, on_result, call),
               0);
    finish_all(f);
    CHECK_EQ(f->last.size, 3);

    call = new_call(f);
    REQUIRE_EQ(bop_client_set_scan(f->client, bytes("s"), bytes(""), 10, BOP_READ_LINEARIZABLE,
                                   on_result, call),
               0);
    finish_all(f);
    CHECK_EQ(call->code, 0);

    call = new_call(f);
    REQUIRE_EQ(
        bop_client_multimap_put(f->client, bytes("mm"), bytes("k"), bytes("v"), on_result, call),
        0);
    REQUIRE_EQ(
        bop_client_multimap_remove(f->client, bytes("mm"), bytes("k"), on_result, new_call(f)), 0);
    REQUIRE_EQ(bop_client_multimap_remove_value(f->client, bytes("mm"), bytes("k"), bytes("v"),
                                                on_result, new_call(f)),
               0);
    REQUIRE_EQ(bop_client_multimap_clear(f->client, bytes("mm"), on_result, new_call(f)), 0);
    REQUIRE_EQ(bop_client_map_clear(f->client, bytes("m"), on_result, new_call(f)), 0);
    REQUIRE_EQ(bop_client_set_clear(f->client, bytes("s"), on_result, new_call(f)), 0);
    finish_all(f);
    CHECK_EQ(call->code, 0);

    call = new_call(f);
    REQUIRE_EQ(bop_client_multimap_size(f->client, bytes("mm"), BOP_READ_STALE, on_result, call),
               0);
    finish_all(f);
    CHECK_EQ(f->last.size, 3);
    call = new_call(f);
    REQUIRE_EQ(bop_client_multimap_key_size(f->client, bytes("mm"), bytes("k"), BOP_READ_STALE,
                                            on_result, call),
               0);
    finish_all(f);
    CHECK_EQ(f->last.size, 3);
    call = new_call(f);
    REQUIRE_EQ(bop_client_multimap_contains_key(f->client, bytes("mm"), bytes("k"),
                                                BOP_READ_LINEARIZABLE, on_result, new_call(f)),
               0);
    REQUIRE_EQ(bop_client_multimap_contains_value(f->client, bytes("mm"), bytes("v"),
                                                  BOP_READ_LINEARIZABLE, on_result, new_call(f)),
               0);
    REQUIRE_EQ(bop_client_multimap_contains_entry(f->client, bytes("mm"), bytes("k"), bytes("v"),
                                                  BOP_READ_LINEARIZABLE, on_result, call),
               0);
    CHECK_EQ(bop_client_multimap_scan(f->client, BOP_OP_MAP_SCAN, bytes("mm"), bytes("k"),
                                      bytes(""), 10, BOP_READ_LINEARIZABLE, on_result, call),
             BOP_EINVAL);
    REQUIRE_EQ(bop_client_multimap_scan(f->client, BOP_OP_MULTIMAP_GET, bytes("mm"), bytes("k"),
                                        bytes(""), 10, BOP_READ_LINEARIZABLE, on_result,
                                        new_call(f)),
               0);
    finish_all(f);
    CHECK_EQ(call->code, 0);

    call = new_call(f);
    REQUIRE_EQ(bop_client_counter_cas(f->client, bytes("c"), 0, 5, on_result, new_call(f)), 0);
    REQUIRE_EQ(bop_client_counter_set(f->client, bytes("c"), 5, on_result, new_call(f)), 0);
    REQUIRE_EQ(bop_client_counter_delete(f->client, bytes("c"), on_result, new_call(f)), 0);
    REQUIRE_EQ(bop_client_map_range(f->client, bytes("m"),
                                    &(struct bop_client_range){.prefix = bytes("k")}, bytes(""), 10,
                                    BOP_READ_LINEARIZABLE, on_result, call),
               0);
    finish_all(f);
    CHECK_EQ(call->code, 0);

    CHECK_EQ(add(f)->callbacks, 0); /* Never from inside the call. */
    finish_all(f);
    f->cluster.nodes[0].read_status = BOP_STATUS_NOT_FOUND;
    call = get(f);
    finish_all(f);
    CHECK_EQ(call->code, BOP_ENOTFOUND);
    CHECK_EQ(info(f).session, 1);
    CHECK_EQ(info(f).node, 1);
}

static void on_status(void *user, int code, const struct bop_status_response *status)
{
    struct call *call = (struct call *)user;

    call->callbacks++;
    call->code = code;
    call->f->status_node = status ? status->node : 0;
    call->f->done++;
}

TEST(client, asks_for_status)
{
    struct call *call;

    start(f);
    call = new_call(f);
    REQUIRE_EQ(bop_client_status(f->client, on_status, call), 0);
    finish_all(f);
    CHECK_EQ(call->code, 0);
    CHECK_EQ(f->status_node, 1);
}

TEST(client, opens_no_session_for_reads)
{
    start(f);
    get(f);
    finish_all(f);
    CHECK_EQ(f->cluster.session_count, 0);
    add(f);
    finish_all(f);
    CHECK_EQ(f->cluster.session_count, 1);
}

TEST(client, closes_its_session_at_the_end)
{
    start(f);
    add(f);
    finish_all(f);
    bop_client_destroy(f->client);
    f->client = NULL;
    for (int i = 0; i < 100 && f->cluster.nodes[0].closes == 0; i++) {
        REQUIRE_EQ(bop_loop_run_once(f->loop, 10), 0);
    }
    CHECK_EQ(f->cluster.nodes[0].closes, 1);
}

TEST(client, refuses_what_no_server_would_take)
{
    struct bop_operation unknown = {.op = (enum bop_op)63, .name = bytes("m")};
    static const uint8_t big[BOP_KEY_MAX + 1];

    start(f);
    CHECK_EQ(bop_client_counter_add(f->client, bytes(""), 1, NULL, NULL), BOP_EINVAL);
    CHECK_EQ(bop_client_counter_add(f->client, bytes("\377"), 1, NULL, NULL), BOP_EINVAL);
    CHECK_EQ(bop_client_map_get(f->client, bytes("m"), bop_slice(big, sizeof(big)), BOP_READ_STALE,
                                NULL, NULL),
             BOP_ETOOBIG);
    CHECK_EQ(
        bop_client_map_get(f->client, bytes("m"), bytes("k"), (enum bop_consistency)7, NULL, NULL),
        BOP_EINVAL);
    CHECK_EQ(bop_client_execute(f->client, &unknown, BOP_READ_STALE, NULL, NULL), BOP_EINVAL);
    CHECK_EQ(info(f).outstanding, 0);
}

TEST(client, needs_good_options)
{
    static const struct {
        const char *endpoint;
        int code;
    } cases[] = {
        {"localhost", BOP_EINVAL}, {"localhost:", BOP_EINVAL}, {":4000", BOP_EINVAL},
        {"h:0", BOP_EINVAL},       {"h:65536", BOP_EINVAL},    {"h:40x", BOP_EINVAL},
        {"::1:4000", BOP_EINVAL},  {"[::1:4000", BOP_EINVAL},  {"[]:4000", BOP_EINVAL},
        {"", BOP_EINVAL},          {"h:-1", BOP_EINVAL},       {"[::1]:4000", 0},
        {"10.0.0.1:1", 0},         {"a.example:65535", 0},
    };
    struct bop_error err = {0};

    for (size_t i = 0; i < BOP_COUNT_OF(cases); i++) {
        f->endpoints[0] = cases[i].endpoint;
        f->options.endpoint_count = 1;
        CHECK_EQ(bop_client_create(&f->options, &f->client, &err), cases[i].code);
        bop_client_destroy(f->client);
        f->client = NULL;
    }
    f->options.endpoint_count = 0;
    CHECK_EQ(bop_client_create(&f->options, &f->client, &err), BOP_EINVAL);
    f->options.endpoint_count = 1;
    f->options.outstanding_max = BOP_CLIENT_OUTSTANDING_MAX + 1;
    CHECK_EQ(bop_client_create(&f->options, &f->client, &err), BOP_EINVAL);
    CHECK_STR_HAS(err.message, "16385");
}

TEST(client, survives_each_fault_of_its_creation)
{
    FAULT_SWEEP(&f->faults) {
        int rc = bop_client_create(&f->options, &f->client, NULL);

        CHECK_EQ(rc, f->faults.fired);
        bop_client_destroy(f->client);
        f->client = NULL;
        CHECK_EQ(f->heap.live, 0);
    }
    CHECK_EQ(f->faults.at, 3); /* The client, its endpoints, its slots. */
}

/* ---- Bounds ---- */

TEST(client, refuses_requests_above_its_bound)
{
    f->options.outstanding_max = 3;
    start(f);
    add(f);
    add(f);
    get(f);
    CHECK_EQ(bop_client_counter_add(f->client, bytes("c"), 1, on_result, NULL), BOP_EFULL);
    CHECK_EQ(bop_client_status(f->client, on_status, NULL), BOP_EFULL);
    finish_all(f);
    add(f);
    finish_all(f);
    CHECK_EQ(f->cluster.counter, 3);
}

/* The bound on bytes is at least one frame, 16 MiB: two values of 8 MiB do not fit. */
TEST(client, refuses_bytes_above_its_bound)
{
    uint8_t *value = (uint8_t *)bop_alloc_zeroed(bop_allocator_default(), BOP_VALUE_MAX);
    struct bop_slice slice = bop_slice(value, BOP_VALUE_MAX);

    REQUIRE(value != NULL);
    f->options.outstanding_bytes_max = 1;
    start(f);
    REQUIRE_EQ(
        bop_client_map_put(f->client, bytes("m"), bytes("k"), slice, NULL, on_result, new_call(f)),
        0);
    CHECK_EQ(bop_client_map_put(f->client, bytes("m"), bytes("k"), slice, NULL, on_result, NULL),
             BOP_EFULL);
    finish_all(f);
    REQUIRE_EQ(
        bop_client_map_put(f->client, bytes("m"), bytes("k"), slice, NULL, on_result, new_call(f)),
        0);
    finish_all(f);
    CHECK_EQ(f->calls[1].code, 0);
    bop_free(bop_allocator_default(), value, BOP_VALUE_MAX);
}

/* Far more than a connection takes at once; what does not fit waits its turn. */
TEST(client, sends_large_values_as_the_connection_takes_them)
{
    enum { SIZE = 1024 * 1024, COUNT = 24 };
    uint8_t *value = (uint8_t *)bop_alloc_zeroed(bop_allocator_default(), SIZE);
    bool waited = false;

    REQUIRE(value != NULL);
    start(f);
    add(f);
    finish_all(f);
    for (int i = 0; i < COUNT; i++) {
        REQUIRE_EQ(bop_client_map_put(f->client, bytes("m"), bytes("k"), bop_slice(value, SIZE),
                                      NULL, on_result, new_call(f)),
                   0);
        waited = waited || f->client->writes.queued > 0;
    }
    CHECK(waited);
    finish_all(f);
    for (int i = 0; i <= COUNT; i++) {
        CHECK_EQ(f->calls[i].code, 0);
    }
    CHECK_EQ(f->cluster.executed, COUNT + 1);
    CHECK_EQ(info(f).connects, 1);
    bop_free(bop_allocator_default(), value, SIZE);
}

/* Which one fails is a matter of timing, once connections are made; that all goes well in the
 * end is not. */
TEST(client, survives_each_fault_of_a_request)
{
    FAULT_SWEEP(&f->faults) {
        int rc = bop_client_create(&f->options, &f->client, NULL);
        struct call *call;

        if (rc == 0) {
            call = new_call(f);
            rc = bop_client_counter_add(f->client, bytes("c"), 1, on_result, call);
            if (rc == 0) {
                finish_all(f);
                CHECK_EQ(call->code, 0);
            } else {
                CHECK_EQ(rc, BOP_ENOMEM);
                f->call_count--;
            }
        }
        bop_client_destroy(f->client);
        f->client = NULL;
        for (int i = 0; i < 1000 && f->heap.live > 0; i++) {
            REQUIRE_EQ(bop_loop_run_once(f->loop, 10), 0);
        }
        CHECK_EQ(f->heap.live, 0);
    }
}

TEST(client, allocates_nothing_for_a_request_in_the_long_run)
{
    uint64_t before;

    f->options.outstanding_max = 64;
    start(f);
    for (int i = 0; i < 64; i++) {
        add(f);
    }
    finish_all(f);
    before = f->faults.at;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 32; i++) {
            add(f);
            get(f);
        }
        finish_all(f);
    }
    CHECK_EQ(f->faults.at, before); /* Counts allocations. */
}

/* ---- Exactly once ---- */

/* With everything going wrong again and again, on all nodes, each of 3,000 adds has one
 * effect and its own result. */
TEST(client, writes_exactly_once_whatever_happens)
{
    enum { ADDS = 3000 };
    static bool seen[ADDS + 1];
    struct bop_random random;
    unsigned asked = 0;

    memset(seen, 0, sizeof(seen));
    bop_random_seed(&random, 42);
    f->options.outstanding_max = 32;
    start(f);
    while (f->done < ADDS) {
        struct fake_node *node = &f->cluster.nodes[bop_random_below(&random, FAKE_NODES)];

        while (asked < ADDS && info(f).outstanding < 32) {
            add(f);
            asked++;
        }
        switch (bop_random_below(&random, 20)) {
        case 0:
            node->drop_before = 1 + (unsigned)bop_random_below(&random, 50);
            break;
        case 1:
            node->drop_after = 1 + (unsigned)bop_random_below(&random, 50);
            break;
        case 2:
            node->drop_within = 1 + (unsigned)bop_random_below(&random, 50);
            break;
        case 3:
            node->garbage = 1 + (unsigned)bop_random_below(&random, 50);
            break;
        case 4:
            node->retry = (unsigned)bop_random_below(&random, 10);
            break;
        case 5:
            node->busy = (unsigned)bop_random_below(&random, 10);
            break;
        case 6:
            f->cluster.leader = bop_random_below(&random, FAKE_NODES + 1);
            break;
        case 7:
            fake_node_drop(node);
            break;
        default:
            break;
        }
        REQUIRE_EQ(bop_loop_run_once(f->loop, 1), 0);
        bop__client_check(f->client);
    }
    CHECK_EQ(f->cluster.session_count, 1);
    CHECK_EQ(f->cluster.counter, ADDS);
    CHECK_EQ(f->cluster.executed, ADDS);
    CHECK_EQ(f->cluster.sessions[1].sequence_max, ADDS);
    for (unsigned i = 0; i < ADDS; i++) {
        REQUIRE_EQ(f->calls[i].code, 0);
        REQUIRE(f->calls[i].number >= 1 && f->calls[i].number <= ADDS);
        CHECK(!seen[f->calls[i].number]);
        seen[f->calls[i].number] = true;
    }
    CHECK(info(f).resent > 0);
    test_note("connects=%" PRIu64 " moves=%" PRIu64 " resent=%" PRIu64 " retries=%" PRIu64,
              info(f).connects, info(f).moves, info(f).resent, info(f).retries);
}

TEST(client, sends_again_after_retry_and_busy)
{
    start(f);
    f->cluster.nodes[0].retry = 2;
    f->cluster.nodes[0].busy = 2;
    add(f);
    add(f);
    get(f);
    finish_all(f);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(f->calls[i].code, 0);
    }
    CHECK_EQ(info(f).retries, 4);
    CHECK_EQ(f->cluster.executed, 2);
    CHECK_EQ(f->cluster.sessions[1].sequence_max, 2);
}

/* Writes that wait behind one that is sent again keep their order. */
TEST(client, keeps_the_order_of_what_waits)
{
    start(f);
    add(f);
    finish_all(f);
    f->cluster.nodes[0].retry = 1;
    add(f);
    TURN_UNTIL(info(f).retries == 1);
    add(f);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].number, 2);
    CHECK_EQ(f->calls[2].number, 3);
    CHECK_EQ(f->calls[3].number, 4);
}

TEST(client, opens_its_session_again_when_told_to_retry)
{
    f->cluster.nodes[0].open_retry = 3;
    start(f);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, 0);
    CHECK_EQ(f->cluster.nodes[0].opens, 4);
    CHECK_EQ(info(f).sessions_opened, 1);
}

TEST(client, has_the_first_result_after_a_lost_answer)
{
    start(f);
    f->cluster.nodes[0].drop_after = 1;
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, 0);
    CHECK_EQ(f->calls[0].number, 1);
    CHECK_EQ(f->cluster.counter, 1);
    CHECK_EQ(info(f).resent, 1);
    CHECK_EQ(f->cluster.nodes[0].resumes + f->cluster.nodes[1].resumes +
                 f->cluster.nodes[2].resumes,
             info(f).connects - 1);
}

TEST(client, says_that_there_is_no_room_of_what_was_sent_once)
{
    start(f);
    f->cluster.nodes[0].no_room = 1;
    add(f);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, BOP_ENOROOM);
    CHECK_EQ(f->calls[1].code, 0);
    CHECK_EQ(f->cluster.executed, 1);
}

/* The first time it was done, and the answer was lost; the next times are refused. */
TEST(client, does_not_say_that_there_is_no_room_of_what_may_have_been_done)
{
    start(f);
    f->cluster.nodes[0].drop_after = 1;
    add(f);
    TURN_UNTIL(f->cluster.executed == 1);
    for (unsigned i = 0; i < 3; i++) {
        f->cluster.nodes[i].no_room = 2;
    }
    finish_all(f);
    CHECK_EQ(f->calls[0].code, 0);
    CHECK_EQ(f->calls[0].number, 1);
    CHECK_EQ(f->cluster.executed, 1);
    CHECK(info(f).retries > 0);
}

TEST(client, says_that_it_is_denied_of_what_was_sent_once)
{
    start(f);
    add(f);
    finish_all(f);
    f->cluster.nodes[0].denied = 1;
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].code, BOP_EDENIED);
    CHECK_STR_EQ(info(f).denied.message, "show me something");
    CHECK_EQ(f->cluster.executed, 1);
}

/* It was done, and the answer was lost; then somebody took the right away. */
TEST(client, does_not_say_that_it_is_denied_of_what_may_have_been_done)
{
    start(f);
    f->cluster.nodes[0].drop_after = 1;
    add(f);
    get(f);
    TURN_UNTIL(f->cluster.executed == 1);
    for (unsigned i = 0; i < 3; i++) {
        f->cluster.nodes[i].denied = 1;
    }
    finish_all(f);
    CHECK_EQ(f->calls[0].code, BOP_EUNCERTAIN);
    CHECK_STR_EQ(info(f).denied.message, "show me something");
    CHECK_EQ(f->calls[1].code, 0);
    CHECK_EQ(f->cluster.executed, 1);
}

static void on_admin(void *user, int code, struct bop_slice response)
{
    (void)response;
    on_result(user, code, &(struct bop_result){0});
}

/* An operator's request is sent, the connection breaks, and the next server denies it. */
static int deny_again(struct fixture *f, enum bop_wire_kind kind)
{
    struct call *call = new_call(f);

    TURN_UNTIL(info(f).ready);
    f->cluster.nodes[info(f).node - 1].drop_before = 1;
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        f->cluster.nodes[i].denied = 1;
    }
    REQUIRE_EQ(bop_client_admin(f->client, (uint16_t)kind, bytes("x"), on_admin, call), 0);
    finish_all(f);
    CHECK_STR_EQ(info(f).denied.message, "show me anything");
    return call->code;
}

/* Likewise of an operator's request, but one that changes nothing. */
TEST(client, does_not_say_that_a_change_is_denied_that_may_have_been_made)
{
    start(f);
    CHECK_EQ(deny_again(f, BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST), BOP_EUNCERTAIN);
    CHECK_EQ(deny_again(f, BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST), BOP_EDENIED);
}

/* ---- Sessions ---- */

TEST(client, tells_of_writes_whose_session_was_lost)
{
    start(f);
    add(f);
    finish_all(f);
    f->cluster.nodes[0].mute = true;
    add(f);
    add(f);
    TURN_UNTIL(f->cluster.nodes[0].writes == 3);
    f->cluster.nodes[0].mute = false;
    f->cluster.nodes[0].no_session = 1;
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].code, BOP_ESESSION);
    CHECK_EQ(f->calls[2].code, BOP_ESESSION);
    CHECK_EQ(f->calls[3].code, BOP_ESESSION);
    CHECK_EQ(info(f).sessions_lost, 1);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[4].code, 0);
    CHECK_EQ(info(f).session, 2);
    CHECK_EQ(f->cluster.sessions[2].sequence_max, 1);
}

/* Nothing was under way, so there is nothing to tell. */
TEST(client, replaces_a_session_that_expired_while_cut_off)
{
    start(f);
    add(f);
    finish_all(f);
    f->cluster.sessions[1].open = false;
    fake_node_drop(&f->cluster.nodes[0]);
    TURN_UNTIL(info(f).sessions_lost == 1);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].code, 0);
    CHECK_EQ(info(f).session, 2);
}

TEST(client, keeps_an_idle_session_alive)
{
    f->options.session_timeout_ms = 300;
    f->cluster.session_timeout_ms = 300;
    start(f);
    add(f);
    finish_all(f);
    TURN_UNTIL(f->cluster.nodes[0].alives >= 3);
    CHECK_EQ(info(f).session, 1);
    f->cluster.sessions[1].open = false;
    TURN_UNTIL(info(f).session == 0);
}

/* ---- Time ---- */

TEST(client, gives_up_after_the_timeout_and_drops_late_answers)
{
    f->options.request_timeout_ms = 500;
    start(f);
    f->cluster.nodes[0].mute = true;
    add(f);
    get(f);
    TURN_UNTIL(f->cluster.nodes[0].writes == 1 && f->cluster.nodes[0].reads == 1);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, BOP_ETIMEOUT);
    CHECK_EQ(f->calls[1].code, BOP_ETIMEOUT);
    CHECK_EQ(info(f).timeouts, 2);
    fake_node_answer_last(&f->cluster.nodes[0]);
    f->cluster.nodes[0].mute = false;
    /* The write given up is acknowledged: nobody wants its reply any more. */
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[2].code, 0);
    CHECK_EQ(f->calls[2].number, 2);
    CHECK_EQ(f->cluster.sessions[1].acked, 1);
    CHECK_EQ(info(f).connects, 1);
}

TEST(client, gives_up_what_no_server_is_there_for)
{
    f->options.request_timeout_ms = 100;
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        fake_node_kill(&f->cluster.nodes[i]);
    }
    start(f);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, BOP_ETIMEOUT);
    CHECK_EQ(info(f).trouble.code, -ECONNREFUSED);
    CHECK_STR_HAS(info(f).trouble.message, "connect to 127.0.0.1:");
}

TEST(client, leaves_a_server_that_is_silent)
{
    f->options.silence_timeout_ms = 100;
    start(f);
    add(f);
    finish_all(f);
    f->cluster.nodes[0].silent = true;
    f->cluster.leader = 2;
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].code, 0);
    TURN_UNTIL(info(f).node == 2);
}

TEST(client, leaves_a_server_that_does_not_greet)
{
    f->options.silence_timeout_ms = 100;
    f->cluster.nodes[0].silent = true;
    f->cluster.leader = 3;
    start(f);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, 0);
}

/* ---- Finding the leader ---- */

TEST(client, goes_to_the_leader)
{
    f->cluster.leader = 3;
    start(f);
    TURN_UNTIL(info(f).node == 3);
    CHECK_EQ(info(f).moves, 1);
    add(f);
    finish_all(f);
    CHECK_EQ(f->cluster.nodes[2].writes, 1);
}

TEST(client, follows_the_leader)
{
    start(f);
    add(f);
    finish_all(f);
    CHECK_EQ(info(f).node, 1);
    f->cluster.leader = 2;
    TURN_UNTIL(info(f).node == 2);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].number, 2);
    CHECK_EQ(f->cluster.session_count, 1);
}

TEST(client, takes_what_is_under_way_along_to_the_leader)
{
    start(f);
    add(f);
    finish_all(f);
    f->cluster.nodes[0].mute = true;
    add(f);
    get(f);
    TURN_UNTIL(f->cluster.nodes[0].reads == 1);
    f->cluster.leader = 2;
    finish_all(f);
    CHECK_EQ(f->calls[1].number, 2);
    CHECK_EQ(f->calls[2].number, 2);
    CHECK_EQ(f->cluster.executed, 2);
    CHECK_EQ(info(f).node, 2);
}

TEST(client, stays_where_it_is_pinned)
{
    f->options.pin = true;
    f->options.endpoints = &f->endpoints[1];
    f->options.endpoint_count = 1;
    start(f);
    add(f);
    get(f);
    finish_all(f);
    CHECK_EQ(info(f).node, 2);
    CHECK_EQ(info(f).moves, 0);
    CHECK_EQ(f->cluster.nodes[0].hellos, 0);
}

/* The nodes go on naming a leader that is dead. */
TEST(client, works_through_a_follower_while_the_leader_cannot_be_reached)
{
    f->cluster.leader_port = f->cluster.nodes[0].port;
    fake_node_kill(&f->cluster.nodes[0]);
    start(f);
    for (int i = 0; i < 20; i++) {
        add(f);
    }
    finish_all(f);
    CHECK_EQ(f->cluster.counter, 20);
    f->cluster.leader = 3;
    f->cluster.leader_port = 0;
    TURN_UNTIL(info(f).node == 3);
}

/* What answers there does not think that it leads. */
TEST(client, does_not_move_to_a_node_that_does_not_lead)
{
    f->cluster.leader = 2;
    f->cluster.leader_port = f->cluster.nodes[2].port;
    start(f);
    add(f);
    finish_all(f);
    TURN_UNTIL(f->cluster.nodes[2].hellos > 0);
    TURN_UNTIL(f->cluster.nodes[2].connection_count == 0);
    CHECK_EQ(info(f).node, 1);
    CHECK_EQ(info(f).moves, 0);
}

TEST(client, outlives_the_leader)
{
    start(f);
    for (int i = 0; i < 100; i++) {
        add(f);
    }
    TURN_UNTIL(f->done >= 10);
    fake_node_kill(&f->cluster.nodes[0]);
    f->cluster.leader = 0;
    f->cluster.nodes[1].retry = 150;
    f->cluster.nodes[2].retry = 150;
    for (int i = 0; i < 100; i++) {
        add(f);
    }
    TURN_UNTIL(info(f).retries >= 150);
    f->cluster.leader = 3;
    finish_all(f);
    CHECK_EQ(f->cluster.counter, 200);
    for (unsigned i = 0; i < 200; i++) {
        CHECK_EQ(f->calls[i].code, 0);
    }
    TURN_UNTIL(info(f).node == 3);
}

TEST(client, tells_of_a_wrong_cluster)
{
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        f->cluster.nodes[i].refuse = true;
    }
    start(f);
    add(f);
    get(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, BOP_EMISMATCH);
    CHECK_EQ(f->calls[1].code, BOP_EMISMATCH);
    f->cluster.nodes[1].refuse = false;
    TURN_UNTIL(info(f).ready);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[2].code, 0);
}

/* ---- Servers that were not given ---- */

/* Of any cluster. */
static void start_with_one(struct fixture *f)
{
    f->options.endpoint_count = 1;
    f->options.cluster = NULL;
    start(f);
}

/* Whoever was given one server knows the others from it, and goes on when it dies. */
TEST(client_servers, that_were_told_of_are_enough)
{
    start_with_one(f);
    CHECK_EQ(info(f).servers, 1);
    add(f);
    finish_all(f);
    CHECK_EQ(info(f).servers, 3);
    f->cluster.leader = 3;
    fake_node_kill(&f->cluster.nodes[0]);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].code, 0);
    CHECK_EQ(f->calls[1].number, 2);
    CHECK_EQ(info(f).sessions_opened, 1);
    fake_node_kill(&f->cluster.nodes[info(f).node - 1]);
    f->cluster.leader = 0;
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[2].number, 3);
}

/* Somebody else may have got the address. */
TEST(client_servers, of_another_cluster_are_none)
{
    start_with_one(f);
    add(f);
    finish_all(f);
    f->cluster.nodes[1].name = f->cluster.nodes[2].name = "other";
    fake_node_kill(&f->cluster.nodes[0]);
    add(f);
    TURN_UNTIL(f->cluster.nodes[1].hellos >= 2 && f->cluster.nodes[2].hellos >= 2);
    CHECK_EQ(f->cluster.executed, 1);
    f->cluster.nodes[2].name = "test";
    finish_all(f);
    CHECK_EQ(f->calls[1].code, 0);
    CHECK_EQ(info(f).node, 3);
}

TEST(client_servers, are_not_asked_for_by_who_stays_where_it_is)
{
    f->options.endpoint_count = 1;
    f->options.pin = true;
    start(f);
    add(f);
    get(f);
    finish_all(f);
    CHECK_EQ(info(f).servers, 1);
}

/* In each round the given ones, then one of the others in turn. */
TEST(client_servers, come_after_those_that_were_given)
{
    unsigned told[FAKE_NODES] = {0};

    f->options.endpoint_count = 2;
    f->cluster.leader = 3;
    start(f);
    TURN_UNTIL(info(f).ready && info(f).servers == 3);
    CHECK_EQ(bop__client_round(f->client), 3);
    for (f->client->attempts = 0; f->client->attempts < 3; f->client->attempts++) {
        bool is_told;
        const struct client_endpoint *endpoint = bop__client_next_endpoint(f->client, &is_told);

        CHECK_EQ(is_told, f->client->attempts == 2);
        for (unsigned i = 0; i < FAKE_NODES; i++) {
            told[i] += endpoint->port == f->cluster.nodes[i].port;
        }
    }
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        CHECK_EQ(told[i], 1);
    }
}

/* No memory, no others; but the given one is as good as ever. */
TEST(client_servers, survive_each_fault)
{
    FAULT_SWEEP(&f->faults) {
        f->options.endpoint_count = 1;
        if (bop_client_create(&f->options, &f->client, NULL) == 0) {
            TURN_UNTIL(info(f).ready && f->client->servers.ask_ms > 0 && !f->client->servers.asked);
            CHECK(info(f).servers == 1 || info(f).servers == 3);
        }
        bop_client_destroy(f->client);
        f->client = NULL;
        for (int i = 0; i < 1000 && f->heap.live > 0; i++) {
            REQUIRE_EQ(bop_loop_run_once(f->loop, 10), 0);
        }
        CHECK_EQ(f->heap.live, 0);
    }
}

/* ---- Tokens ---- */

TEST(client_token, is_shown_on_every_connection)
{
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        f->cluster.nodes[i].token = "t";
    }
    f->options.token = "t";
    start(f);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, 0);
    fake_node_kill(&f->cluster.nodes[info(f).node - 1]);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].code, 0);
    CHECK(f->cluster.nodes[0].auths + f->cluster.nodes[1].auths + f->cluster.nodes[2].auths >= 2);
    CHECK_EQ(info(f).denied.code, 0);
}

TEST(client_token, may_be_known_to_some_servers_only)
{
    f->cluster.nodes[0].token = "other";
    f->cluster.nodes[1].token = "other";
    f->cluster.nodes[2].token = "t";
    f->cluster.leader = 3;
    f->options.token = "t";
    start(f);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, 0);
    CHECK_EQ(info(f).node, 3);
}

TEST(client_token, that_nobody_knows_ends_requests)
{
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        f->cluster.nodes[i].token = "other";
    }
    f->options.token = "t";
    start(f);
    add(f);
    get(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, BOP_EDENIED);
    CHECK_EQ(f->calls[1].code, BOP_EDENIED);
    CHECK_STR_EQ(info(f).denied.message, "the server does not know the token");
    /* Until one of them has read its file again. */
    f->cluster.nodes[1].token = "t";
    TURN_UNTIL(info(f).ready);
    CHECK_EQ(info(f).node, 2);
}

TEST(client_token, that_is_not_shown_is_asked_for)
{
    for (unsigned i = 0; i < FAKE_NODES; i++) {
        f->cluster.nodes[i].token = "t";
    }
    start(f);
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, BOP_EDENIED);
    CHECK_STR_EQ(info(f).denied.message, "the server wants a token");
    get(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].code, BOP_EDENIED);
    CHECK_STR_EQ(info(f).denied.message, "show me something");
    REQUIRE_EQ(bop_client_status(f->client, on_status, new_call(f)), 0);
    finish_all(f);
    CHECK_EQ(f->calls[2].code, BOP_EDENIED);
    CHECK_STR_EQ(info(f).denied.message, "show me anything");
}

TEST(client_token, has_a_length)
{
    char endless[BOP_AUTH_TOKEN_MAX + 2];
    struct bop_error err = {0};

    memset(endless, 'x', sizeof(endless) - 1);
    endless[sizeof(endless) - 1] = '\0';
    f->options.token = endless;
    CHECK_EQ(bop_client_create(&f->options, &f->client, &err), BOP_EINVAL);
    CHECK_STR_EQ(err.message, "a token of 513 bytes: 1 to 512 wanted");
    f->options.token = "";
    CHECK_EQ(bop_client_create(&f->options, &f->client, &err), BOP_EINVAL);
}

TEST(client_tls, names_the_file_it_cannot_read)
{
    struct bop_client_tls tls = {.ca = "/nonexistent/ca.crt", .server_name = "localhost"};
    struct bop_error err = {0};
    int rc;

    f->options.tls = &tls;
    f->options.token = "t";
    rc = bop_client_create(&f->options, &f->client, &err);
    CHECK(rc < 0);
    CHECK_STR_HAS(err.message, "/nonexistent/ca.crt");
}

/* ---- Nonsense ---- */

TEST(client, leaves_a_server_that_talks_nonsense)
{
    start(f);
    f->cluster.nodes[0].garbage = 1;
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, 0);
    CHECK(info(f).connects >= 2);
}

TEST(client, ends_a_request_whose_result_makes_no_sense)
{
    start(f);
    f->cluster.nodes[0].cut_results = true;
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, BOP_EPROTOCOL);
    f->cluster.nodes[0].cut_results = false;
    add(f);
    finish_all(f);
    CHECK_EQ(f->calls[1].code, 0);
}

TEST(client, ends_a_request_whose_status_it_does_not_know)
{
    start(f);
    f->cluster.nodes[0].read_status = 99;
    get(f);
    finish_all(f);
    CHECK_EQ(f->calls[0].code, BOP_EPROTOCOL);
    CHECK_EQ(info(f).connects, 1);
}

/* ---- The end ---- */

TEST(client, cancels_what_is_under_way)
{
    f->cluster.nodes[0].mute = true;
    start(f);
    add(f);
    get(f);
    TURN_UNTIL(f->cluster.nodes[0].reads == 1);
    add(f);
    bop_client_destroy(f->client);
    f->client = NULL;
    CHECK_EQ(f->done, 3);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(f->calls[i].code, BOP_ECANCELED);
    }
}

static void ask_again(void *user, int code, const struct bop_result *result)
{
    struct fixture *f = (struct fixture *)user;

    f->status_node = (uint64_t)bop_client_counter_add(f->client, bytes("c"), 1, NULL, NULL);
    f->done++;
}

TEST(client, accepts_nothing_while_it_ends)
{
    start(f);
    REQUIRE_EQ(bop_client_counter_add(f->client, bytes("c"), 1, ask_again, f), 0);
    bop_client_destroy(f->client);
    f->client = NULL;
    CHECK_EQ(f->done, 1);
    CHECK_EQ((int)f->status_node, BOP_ECLOSED);
}

/* A chain of requests, each asked for in the callback of the one before. */
static void go_on(void *user, int code, const struct bop_result *result)
{
    struct fixture *f = (struct fixture *)user;

    CHECK_EQ(code, 0);
    f->done++;
    if (f->done < 100) {
        CHECK_EQ(bop_client_counter_add(f->client, bytes("c"), 1, go_on, f), 0);
    }
}

TEST(client, may_be_asked_in_callbacks)
{
    start(f);
    REQUIRE_EQ(bop_client_counter_add(f->client, bytes("c"), 1, go_on, f), 0);
    TURN_UNTIL(f->done == 100);
    CHECK_EQ(f->cluster.counter, 100);
}
