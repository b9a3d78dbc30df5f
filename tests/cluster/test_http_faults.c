/*
 * Each allocation of the HTTP API fails once: what was asked is answered or cut, what is
 * answered is true, and nothing is left behind.
 */
#include <stdio.h>
#include <stdlib.h>

#include <bop/http_client.h>
#include <bop/sim.h>
#include <bop/ws.h>

#include "http/http.h"

#include "replica_help.h"

#define TURNS       20000
#define PATIENCE_MS 60000 /* What waits for a file does so by the clock. */

struct fixture {
    struct world w;
    struct service *service;
    struct bop_loop *loop;
    struct bop_hook hook;
    struct bop_http_client *client;
    struct bop_faults faults; /* Of the API's memory alone. */
    struct test_heap heap;
    struct http_api *api;
    char url[64];
};

/* At the end of each turn, as a node does. */
static void on_turn(struct bop_hook *hook)
{
    struct fixture *f = BOP_CONTAINER_OF(hook, struct fixture, hook);

    f->w.now_us += 1000;
    world_turn(&f->w);
    bop__service_turn(f->service);
}

static void on_events(void *user, uint64_t index, struct bop_slice events)
{
    struct fixture *f = BOP_CONTAINER_OF(user, struct fixture, w);

    if (f->service) {
        bop__service_events(f->service, index, events);
    }
}

static void on_release(void *user)
{
    struct fixture *f = BOP_CONTAINER_OF(user, struct fixture, w);

    bop__service_release(f->service);
}

static void setup(struct fixture *f)
{
    struct bop_http_client_options client_options = {.connections_per_host_max = 4};
    struct service_options options = {.clock = &f->w.clock, .cluster = "blue", .version = "9"};

    world_init(&f->w);
    test_heap_init(&f->heap, &f->faults);
    f->w.options.events.on_events = on_events;
    f->w.options.events.on_release = on_release;
    REQUIRE_EQ(world_open(&f->w), 0);
    REQUIRE(world_settle(&f->w));
    options.replica = f->w.replica;
    REQUIRE_EQ(bop__service_create(&options, &f->service), 0);
    REQUIRE_EQ(bop_loop_create(NULL, &f->loop), 0);
    f->hook.fn = on_turn;
    bop_loop_add_hook(f->loop, &f->hook);
    REQUIRE_EQ(bop_http_client_create(f->loop, &client_options, &f->client), 0);
}

static void teardown(struct fixture *f)
{
    bop_http_client_destroy(f->client);
    bop_loop_remove_hook(f->loop, &f->hook);
    world_close(&f->w);
    bop__service_destroy(f->service);
    bop_loop_destroy(f->loop);
    world_deinit(&f->w);
}

FIXTURE(setup, teardown)

static int start(struct fixture *f)
{
    struct http_api_options options = {
        .allocator = &f->heap.allocator, .loop = f->loop, .host = "127.0.0.1"};
    struct http_api_backend backend = {.replica = f->w.replica, .service = f->service};
    struct bop_error err = {0};
    int rc = bop__http_api_create(&options, &f->api, &err);

    if (rc == 0) {
        bop__http_api_serve(f->api, &backend);
        snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u", bop__http_api_port(f->api));
    }
    return rc;
}

static void turn(struct fixture *f)
{
    REQUIRE_EQ(bop_loop_run_once(f->loop, 0), 0);
}

static void stop(struct fixture *f)
{
    bop__http_api_close(f->api);
    for (unsigned n = 0; n < TURNS && !bop__http_api_is_idle(f->api); n++) {
        turn(f);
    }
    REQUIRE(bop__http_api_is_idle(f->api));
    bop__http_api_destroy(f->api);
    f->api = NULL;
}

/* ---- Asking ---- */

struct got {
    bool done;
    int code;
    unsigned status;
    size_t size;
};

static void on_done(struct bop_http_call *call, void *user, const struct bop_http_result *result)
{
    struct got *got = user;

    *got = (struct got){
        .done = true, .code = result->code, .status = result->status, .size = result->body.size};
}

static struct got ask(struct fixture *f, const char *method, const char *path, const char *body)
{
    char url[256];
    struct got got = {0};
    uint64_t until_ms = bop_clock_monotonic_ms(bop_clock_system()) + PATIENCE_MS;
    struct bop_http_request request = {
        .method = method, .url = url, .body = bytes(body), .on_done = on_done, .user = &got};

    snprintf(url, sizeof(url), "%s%s", f->url, path);
    REQUIRE_EQ(bop_http_fetch(f->client, &request, NULL, NULL), 0);
    while (!got.done && bop_clock_monotonic_ms(bop_clock_system()) < until_ms) {
        turn(f);
    }
    REQUIRE(got.done);
    return got;
}

/* The status that there is when nothing fails; else cut, "busy", "retry" or "uncertain". */
static bool is_true(struct fixture *f, struct got got, unsigned status)
{
    if (got.code != 0) {
        return f->faults.fired != 0;
    }
    return got.status == status ||
           (f->faults.fired != 0 && (got.status == 429 || got.status == 503 || got.status == 504));
}

/* What was said of a write is what is there. "busy" is that nothing was changed. */
static void write_and_look(struct fixture *f, unsigned round)
{
    char path[64];
    struct got put, found;

    snprintf(path, sizeof(path), "/v1/maps/m/entries/%u", round);
    put = ask(f, "PUT", path, "value");
    CHECK(is_true(f, put, 201));
    found = ask(f, "GET", path, "");
    if (found.code != 0 || found.status == 429 || found.status == 503) {
        found = ask(f, "GET", path, ""); /* The fault was here, and fires once. */
    }
    CHECK(put.code != 0 || put.status != 201 || found.status == 200);
    CHECK(put.code != 0 || put.status != 429 || found.status == 404);
}

TEST(http_faults, of_every_operation_are_told)
{
    static const struct {
        const char *method, *path, *body;
        unsigned status;
    } asked[] = {
        {"GET", "/v1/maps/m/entries?prefix=a&limit=10", "", 200},
        {"GET", "/v1/maps/m/export", "", 200},
        {"POST", "/v1/maps/m/import", "{\"key\":\"a\",\"value\":\"b\"}\n", 200},
        {"POST", "/v1/counters/c/add", "{\"delta\":1}", 200},
        {"POST", "/v1/transactions",
         "{\"then\":[{\"op\":\"map.put\",\"name\":\"m\",\"key64\":\"/w==\",\"value\":\"v\"}]}",
         200},
        {"POST", "/v1/sessions", "", 201},
        {"GET", "/v1/status", "", 200},
        {"GET", "/v1/cluster", "", 200},
        {"GET", "/readyz", "", 200},
        {"GET", "/debug/state", "", 200},
        {"GET", "/v1/openapi.json", "", 200},
        {"POST", "/v1/settle?kind=registry&name=r&key=a", "", 200},
        {"GET", "/v1/backup", "", 200},
        {"GET", "/v1/nothing", "", 404},
        {"GET", "/v1/watch?kind=map&name=m&key=k&timeout_ms=0", "", 200},
        {"GET", "/v1/watch?kind=names&of=map&prefix=a&revision=1000000&timeout_ms=1", "", 200},
    };
    unsigned round = 0;

    FAULT_SWEEP(&f->faults) {
        int rc = start(f);

        if (rc < 0) {
            CHECK_EQ(rc, BOP_ENOMEM);
            CHECK(f->faults.fired != 0);
        } else {
            write_and_look(f, round++);
            for (size_t n = 0; n < BOP_COUNT_OF(asked); n++) {
                struct got got = ask(f, asked[n].method, asked[n].path, asked[n].body);

                if (!is_true(f, got, asked[n].status)) {
                    test_note("%s %s: %u, code %d", asked[n].method, asked[n].path, got.status,
                              got.code);
                }
                CHECK(is_true(f, got, asked[n].status));
            }
            stop(f);
        }
        CHECK_EQ(f->heap.live, 0);
    }
    test_note("%u rounds", round);
    CHECK(round > 30);
}

/* ---- Watches ---- */

struct peer {
    bool open;
    bool closed;
    bool watches; /* The first watch is open. */
    unsigned messages;
};

static void on_open(struct bop_ws *ws, void *user)
{
    ((struct peer *)user)->open = true;
}

static void on_message(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice message)
{
    struct peer *peer = user;

    if (peer->messages++ == 0) {
        peer->watches = memmem(message.data, message.size, "opened", strlen("opened")) != NULL;
    }
}

static void on_close(struct bop_ws *ws, void *user, unsigned code, struct bop_slice reason)
{
    ((struct peer *)user)->closed = true;
}

static const struct bop_ws_options ws_options = {
    .on_open = on_open, .on_message = on_message, .on_close = on_close};

/* Until so many messages came, or none will. */
static void await_messages(struct fixture *f, struct peer *peer, unsigned count)
{
    for (unsigned n = 0; n < TURNS && !peer->closed && peer->messages < count; n++) {
        turn(f);
    }
    REQUIRE(peer->closed || peer->messages >= count);
    CHECK(!peer->closed || f->faults.fired != 0);
}

/* Opened, told, refused, closed: each is a message, or the connection is cut. */
TEST(http_faults, of_a_websocket_cut_it_or_are_told)
{
    static const char *const sent[] = {
        "{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"key64\":\"/w==\"},\"id\":1}",
        "{\"open\":{\"kind\":\"names\",\"of\":\"map\",\"prefix\":\"a\"},\"id\":2}",
        "{\"open\":{\"kind\":\"map\"},\"id\":3}",
        "{\"close\":2}",
        "{\"ack\":1,\"mark\":true}",
    };
    unsigned round = 0;

    FAULT_SWEEP(&f->faults) {
        struct peer peer = {0};
        struct bop_ws *ws = NULL;
        char url[96];
        struct bop_ws_connect_options options = {.url = url, .options = &ws_options, .user = &peer};
        int rc = start(f);

        if (rc < 0) {
            CHECK_EQ(rc, BOP_ENOMEM);
            continue;
        }
        snprintf(url, sizeof(url), "ws%s/v1/watch", f->url + 4);
        REQUIRE_EQ(bop_ws_connect(f->loop, &options, &ws, NULL), 0);
        for (unsigned n = 0; n < TURNS && !peer.open && !peer.closed; n++) {
            turn(f);
        }
        CHECK(peer.open || f->faults.fired != 0);
        for (unsigned n = 0; n < BOP_COUNT_OF(sent) && !peer.closed; n++) {
            BOP_IGNORE(bop_ws_send(ws, BOP_WS_TEXT, bytes(sent[n]))); /* It may be closed. */
            await_messages(f, &peer, n + 1);
        }
        BOP_IGNORE(ask(f, "PUT", "/v1/maps/m/entries/%FF", "value"));
        BOP_IGNORE(ask(f, "PUT", "/v1/maps/m/entries/%FF", "value")); /* One of them is done. */
        CHECK(peer.watches || f->faults.fired != 0);
        await_messages(f, &peer, BOP_COUNT_OF(sent) + peer.watches);
        stop(f);
        for (unsigned n = 0; n < TURNS && !peer.closed; n++) {
            turn(f);
        }
        CHECK(peer.closed);
        CHECK_EQ(f->heap.live, 0);
        round++;
    }
    test_note("%u rounds", round);
    CHECK(round > 8);
}
