/*
 * Watches over HTTP of a real node over loopback: waited for and by WebSocket; what is
 * refused, rights, slow readers, and ends in the middle.
 */
#include <jansson.h>
#include <stdlib.h>

#include <bop/client_watch.h>
#include <bop/ws.h>

#include "http_node_help.h"

#define PUTS 40

/* That are open at the node. */
static unsigned long watches(struct fixture *f)
{
    static const char name[] = "\nbop_watches ";
    struct bop_buf text;
    unsigned long count;
    char *at;

    bop_buf_init(&text, NULL, 0);
    REQUIRE_EQ(bop_metrics_write(f->metrics, &text), 0);
    REQUIRE_EQ(bop_buf_append(&text, "", 1), 0);
    at = strstr((char *)text.data, name);
    REQUIRE(at != NULL);
    count = strtoul(at + strlen(name), NULL, 10);
    bop_buf_deinit(&text);
    return count;
}

/* A value that a few of are much. */
static void fill_value(struct bop_buf *out)
{
    bop_buf_init(out, NULL, 0);
    REQUIRE_EQ(bop_buf_reserve(out, 100 * 1024), 0);
    memset(out->data, 'v', 100 * 1024);
    out->size = 100 * 1024;
}

/* ---- Waiting for events ---- */

static uint64_t revision_of(const struct fixture *f)
{
    json_t *page = json_loads(body_of(f), 0, NULL);
    uint64_t revision = (uint64_t)json_integer_value(json_object_get(page, "revision"));

    CHECK(json_is_integer(json_object_get(page, "revision")));
    CHECK(json_is_array(json_object_get(page, "events")));
    json_decref(page);
    return revision;
}

static unsigned watch(struct fixture *f, const char *what, uint64_t revision, unsigned timeout_ms)
{
    char path[512];

    snprintf(path, sizeof(path), "/v1/watch?%s&revision=%" PRIu64 "&timeout_ms=%u", what, revision,
             timeout_ms);
    return ask(f, "GET", path, "");
}

TEST(waited_for, events_come_at_once_if_there_are_any)
{
    uint64_t begin_at, at;

    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/maps/m", ""), 201);
    CHECK_EQ(watch(f, "kind=map&name=m", 0, 0), 200);
    CHECK_STR_HAS(body_of(f), "{\"events\":[],\"revision\":");
    begin_at = revision_of(f);
    CHECK(begin_at > 0);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/a", "1"), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/other/entries/a", "1"), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/a", "2"), 200);
    CHECK_EQ(watch(f, "kind=map&name=m&previous=true", begin_at, 300000), 200);
    CHECK_STR_EQ(f->got.type, "application/json");
    CHECK_STR_HAS(
        body_of(f),
        "{\"events\":[{\"type\":\"map.put\",\"name\":\"m\",\"key\":\"a\",\"value\":\"1\"},"
        "{\"type\":\"map.put\",\"name\":\"m\",\"key\":\"a\",\"value\":\"2\","
        "\"previous\":\"1\"}]");
    at = revision_of(f);
    CHECK(at >= begin_at + 3);
    CHECK_EQ(watch(f, "kind=map&name=m", at, 0), 200);
    CHECK_STR_HAS(body_of(f), "\"events\":[]");
    CHECK(revision_of(f) >= at);
    CHECK_EQ(watch(f, "kind=map&name=m&key=b", begin_at, 0), 200);
    CHECK_STR_HAS(body_of(f), "\"events\":[]");
    CHECK_EQ(watch(f, "kind=map&name=m", begin_at, 0), 200);
    CHECK_STR_HAS(body_of(f), "\"had_previous\":true");
    CHECK_EQ(watch(f, "kind=names&of=map", begin_at, 0), 200);
}

TEST(waited_for, events_end_the_wait)
{
    struct got waiting = {0};

    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/sets/s", ""), 201);
    bop_buf_init(&waiting.body, NULL, 0);
    for (unsigned n = 0; n < 3; n++) {
        begin(f, "GET", "/v1/watch?kind=set&name=s&timeout_ms=300000", bytes(""), NULL, NULL,
              &waiting);
        while (watches(f) == 0) {
            turn(f);
        }
        CHECK(!waiting.done);
        CHECK_EQ(ask(f, "PUT", n == 1 ? "/v1/sets/s/members/%FF" : "/v1/sets/s/members/x", ""),
                 n == 2 ? 200 : 201);
        if (n == 2) { /* Nothing changed. */
            CHECK(!waiting.done);
            CHECK_EQ(ask(f, "DELETE", "/v1/sets/s/members/x", ""), 200);
        }
        await(f, &waiting);
        CHECK_EQ(waiting.status, 200);
        CHECK_STR_HAS((const char *)waiting.body.data,
                      n == 0   ? "[{\"type\":\"set.add\",\"name\":\"s\",\"member\":\"x\"}]"
                      : n == 1 ? "\"member64\":\"/w==\""
                               : "[{\"type\":\"set.remove\"");
    }
    bop_buf_deinit(&waiting.body);
    CHECK_EQ(ask(f, "GET", "/v1/watch?kind=set&name=s&timeout_ms=1", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"events\":[]");
}

TEST(waited_for, who_has_gone_does_not_wait)
{
    struct got waiting = {0};
    struct bop_http_client_options options = {0};

    start_led(f);
    bop_buf_init(&waiting.body, NULL, 0);
    begin(f, "GET", "/v1/watch?kind=set&name=s&timeout_ms=300000", bytes(""), NULL, NULL, &waiting);
    for (unsigned n = 0; n < TURNS && watches(f) == 0; n++) {
        turn(f);
    }
    CHECK_EQ(watches(f), 1);
    bop_http_client_destroy(f->client);
    for (unsigned n = 0; n < TURNS && watches(f) > 0; n++) {
        turn(f);
    }
    CHECK_EQ(watches(f), 0);
    bop_buf_deinit(&waiting.body);
    REQUIRE_EQ(bop_http_client_create(f->loop, &options, &f->client), 0);
}

TEST(waited_for, pages_give_each_event_once)
{
    char path[64];
    uint64_t at;
    unsigned told = 0, pages = 0;
    struct bop_buf value;

    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/maps/m", ""), 201);
    CHECK_EQ(watch(f, "kind=map&name=m", 0, 0), 200);
    at = revision_of(f);
    fill_value(&value);
    for (unsigned n = 0; n < PUTS; n++) {
        snprintf(path, sizeof(path), "/v1/maps/m/entries/%u", n);
        begin(f, "PUT", path, bop_buf_slice(&value), NULL, NULL, &f->got);
        await(f, &f->got);
        CHECK_EQ(f->got.status, 201);
    }
    while (told < PUTS && pages <= PUTS) {
        json_t *page, *events, *event;
        size_t n;

        CHECK_EQ(watch(f, "kind=map&name=m", at, 60000), 200);
        page = json_loads(body_of(f), 0, NULL);
        events = json_object_get(page, "events");
        CHECK(json_array_size(events) > 0);
        json_array_foreach(events, n, event)
        {
            snprintf(path, sizeof(path), "%u", told++);
            CHECK_STR_EQ(json_string_value(json_object_get(event, "key")), path);
        }
        at = (uint64_t)json_integer_value(json_object_get(page, "revision"));
        json_decref(page);
        pages++;
    }
    CHECK_EQ(told, PUTS);
    CHECK(pages >= 3);
    bop_buf_deinit(&value);
}

TEST(waited_for, what_is_not_kept_is_a_problem)
{
    uint64_t before;

    start_led(f);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/a", "1"), 201);
    CHECK_EQ(watch(f, "kind=map&name=m", 0, 0), 200);
    before = revision_of(f);
    bop_node_destroy(f->node); /* The history is kept in memory. */
    f->node = NULL;
    start_led(f);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/a", "2"), 200);
    CHECK_EQ(watch(f, "kind=map&name=m", 1, 0), 410);
    CHECK_STR_HAS(body_of(f), "urn:bop:error:compacted");
    CHECK_STR_HAS(body_of(f), "\"oldest\":");
    CHECK(before > 1);
    CHECK_EQ(ask(f, "GET", "/v1/watch", ""), 400);
    CHECK_EQ(ask(f, "GET", "/v1/watch?kind=map&name=m&from=b&to=a", ""), 400);
    CHECK_EQ(ask(f, "HEAD", "/v1/watch?kind=map&name=m", ""), 200);
    CHECK_EQ(ask(f, "POST", "/v1/watch", ""), 405);
}

/* SHA-256 of "reader". */
static const uint8_t reader_hash[BOP_TOKEN_HASH_SIZE] = {
    0x3d, 0x09, 0x41, 0x96, 0x4a, 0xa3, 0xeb, 0xdc, 0xb0, 0x0c, 0xce, 0xf5, 0x8b, 0x1b, 0xb3, 0x99,
    0xf9, 0xf8, 0x98, 0x46, 0x5e, 0x98, 0x86, 0xd5, 0xae, 0xc7, 0xf3, 0x10, 0x90, 0xa0, 0xfb, 0x30};

TEST(waited_for, tokens_allow_by_namespace)
{
    const struct bop_node_grant reads[] = {{"shop", BOP_RIGHT_READ}};
    const struct bop_node_token tokens[] = {
        {.name = "reader", .sha256 = reader_hash, .grants = reads, .grant_count = 1}};

    start_node(f, tokens, BOP_COUNT_OF(tokens));
    await_leader(f);
    CHECK_EQ(watch(f, "kind=map&name=shop%2Fm", 0, 0), 401);
    f->token = "reader";
    CHECK_EQ(watch(f, "kind=map&name=shop%2Fm", 0, 0), 200);
    CHECK_EQ(watch(f, "kind=map&name=other%2Fm", 0, 0), 403);
    CHECK_EQ(watch(f, "kind=names", 0, 0), 403);
    CHECK_STR_HAS(body_of(f), "urn:bop:error:denied");
    CHECK_EQ(watch(f, "kind=session", 0, 0), 403);
}

TEST(waited_for, events_are_not_told_when_the_right_is_gone)
{
    const struct bop_node_grant reads[] = {{"shop", BOP_RIGHT_READ}};
    const struct bop_node_grant less[] = {{"other", BOP_RIGHT_READ}};
    struct bop_node_token token = {
        .name = "reader", .sha256 = reader_hash, .grants = reads, .grant_count = 1};
    struct got waiting = {0};

    start_node(f, &token, 1);
    await_leader(f);
    f->token = "reader";
    bop_buf_init(&waiting.body, NULL, 0);
    for (unsigned n = 0; n < 2; n++) {
        begin(f, "GET", "/v1/watch?kind=map&name=shop%2Fm&timeout_ms=300000", bytes(""), NULL, NULL,
              &waiting);
        while (watches(f) == 0) {
            turn(f);
        }
        token.grants = less;
        REQUIRE_EQ(bop_node_set_tokens(f->node, &token, n == 0, NULL), 0);
        await(f, &waiting);
        CHECK_EQ(waiting.status, 403);
        CHECK_STR_HAS((const char *)waiting.body.data, "urn:bop:error:denied");
        CHECK_STR_HAS((const char *)waiting.body.data,
                      n == 0 ? "token reader may not read in namespace \\\"shop\\\""
                             : "not known any more");
        CHECK_EQ(watches(f), 0);
        token.grants = reads;
        REQUIRE_EQ(bop_node_set_tokens(f->node, &token, 1, NULL), 0);
    }
    bop_buf_deinit(&waiting.body);
}

TEST(settling, is_complete_when_nobody_watches)
{
    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/settle?kind=registry&name=r&key=a", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"complete\":true}");
    CHECK_EQ(ask(f, "POST", "/v1/settle?kind=counter&name=c&timeout_ms=60000", ""), 200);
    CHECK_EQ(ask(f, "POST", "/v1/settle?kind=names", ""), 200);
    CHECK_EQ(ask(f, "POST", "/v1/settle", ""), 400);
    CHECK_STR_HAS(body_of(f), "say kind and");
    CHECK_EQ(ask(f, "POST", "/v1/settle?kind=registry", ""), 400);
    CHECK_EQ(ask(f, "POST", "/v1/settle?kind=names&name=x", ""), 400);
    CHECK_EQ(ask(f, "POST", "/v1/settle?kind=registry&name=r&timeout_ms=0", ""), 400);
    CHECK_EQ(ask(f, "POST", "/v1/settle?kind=registry&name=r&timeout_ms=60001", ""), 400);
    CHECK_EQ(ask(f, "POST", "/v1/settle?kind=registry&name=r&prefix=p", ""), 400);
    CHECK_EQ(ask(f, "GET", "/v1/settle?kind=registry&name=r", ""), 405);
}

static void ignore_news(void *user, const struct bop_client_news *news)
{
}

TEST(settling, does_not_wait_for_ever_for_who_does_not_acknowledge)
{
    struct bop_client_watch_options watch_options = {
        .what = BOP_WATCH_REGISTRY, .name = bytes("r"), .flags = BOP_WATCH_ACKNOWLEDGE};
    struct bop_client_options options = {.endpoint_count = 1};
    char endpoint[64];
    const char *endpoints[] = {endpoint};
    struct bop_client_watch *watch;
    struct bop_client *client;
    struct got waiting = {0};

    start_led(f);
    snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", bop_node_port(f->node));
    options.endpoints = endpoints;
    REQUIRE_EQ(bop_loop_create(NULL, &options.loop), 0);
    REQUIRE_EQ(bop_client_create(&options, &client, NULL), 0);
    REQUIRE_EQ(bop_client_watch_open(client, &watch_options, ignore_news, NULL, &watch), 0);
    while (bop_client_watch_revision(watch) == 0) {
        turn(f);
        REQUIRE_EQ(bop_loop_run_once(options.loop, 1), 0);
    }
    CHECK_EQ(ask(f, "POST", "/v1/settle?kind=registry&name=r&key=a&timeout_ms=30", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"complete\":false}");
    /* One that goes is waited for no more, nor is one that asked and has gone. */
    bop_buf_init(&waiting.body, NULL, 0);
    for (unsigned n = 0; n < 2; n++) {
        begin(f, "POST", "/v1/settle?kind=registry&name=r&key=a&timeout_ms=60000", bytes(""), NULL,
              NULL, &waiting);
        if (n == 0) {
            turn(f);
            bop_client_destroy(client);
            while (!waiting.done) {
                turn(f);
                REQUIRE_EQ(bop_loop_run_once(options.loop, 1), 0);
            }
            CHECK_STR_EQ((const char *)waiting.body.data, "{\"complete\":true}");
        }
    }
    await(f, &waiting);
    bop_buf_deinit(&waiting.body);
    bop_loop_destroy(options.loop);
}

/* ---- By WebSocket ---- */

struct peer {
    struct bop_ws *ws;
    bool open;
    bool closed;
    unsigned code;
    json_t *messages; /* All that came. */
    size_t taken;     /* By next(). */
};

static void on_open(struct bop_ws *ws, void *user)
{
    ((struct peer *)user)->open = true;
}

static void on_message(struct bop_ws *ws, void *user, enum bop_ws_opcode opcode,
                       struct bop_slice message)
{
    struct peer *peer = user;
    json_t *json = json_loadb((const char *)message.data, message.size, 0, NULL);

    CHECK_EQ(opcode, BOP_WS_TEXT);
    REQUIRE(json != NULL);
    json_array_append_new(peer->messages, json);
}

static void on_close(struct bop_ws *ws, void *user, unsigned code, struct bop_slice reason)
{
    struct peer *peer = user;

    peer->closed = true;
    peer->code = code;
}

static const struct bop_ws_options ws_options = {
    .on_open = on_open, .on_message = on_message, .on_close = on_close};

static void begin_connect(struct fixture *f, struct peer *peer, const char *path,
                          const struct bop_http_header *header)
{
    char url[256];
    struct bop_ws_connect_options options = {.url = url,
                                             .headers = header,
                                             .header_count = header != NULL,
                                             .options = &ws_options,
                                             .user = peer};

    *peer = (struct peer){.messages = json_array()};
    snprintf(url, sizeof(url), "ws%s%s", f->url + 4, path);
    REQUIRE_EQ(bop_ws_connect(f->loop, &options, &peer->ws, NULL), 0);
}

static void end_connect(struct fixture *f, struct peer *peer)
{
    for (unsigned n = 0; n < TURNS && !peer->open && !peer->closed; n++) {
        turn(f);
    }
}

static void connect_to(struct fixture *f, struct peer *peer)
{
    begin_connect(f, peer, "/v1/watch", NULL);
    end_connect(f, peer);
    REQUIRE(peer->open);
}

static void send(struct peer *peer, const char *text)
{
    CHECK_EQ(bop_ws_send(peer->ws, BOP_WS_TEXT, bytes(text)), 0);
}

static void await_closed(struct fixture *f, struct peer *peer)
{
    for (unsigned n = 0; n < TURNS && !peer->closed; n++) {
        turn(f);
    }
    REQUIRE(peer->closed);
}

static void disconnect(struct fixture *f, struct peer *peer)
{
    if (!peer->closed) {
        CHECK_EQ(bop_ws_close(peer->ws, BOP_WS_NORMAL, bytes("")), 0);
        await_closed(f, peer);
    }
    json_decref(peer->messages);
}

/* The next message that came, or comes. */
static json_t *next(struct fixture *f, struct peer *peer)
{
    for (unsigned n = 0; n < TURNS && json_array_size(peer->messages) == peer->taken; n++) {
        turn(f);
    }
    REQUIRE(json_array_size(peer->messages) > peer->taken);
    return json_array_get(peer->messages, peer->taken++);
}

/* Its text, without the revision. */
static const char *next_text(struct fixture *f, struct peer *peer)
{
    static char text[4096];
    json_t *message = next(f, peer);
    char *dumped;

    if (!json_object_get(message, "problem")) {
        CHECK(json_is_integer(json_object_get(message, "revision")) ||
              json_object_get(message, "closed") != NULL);
    }
    json_object_del(message, "revision");
    dumped = json_dumps(message, JSON_COMPACT);
    snprintf(text, sizeof(text), "%s", dumped);
    free(dumped);
    return text;
}

static const char *next_problem(struct fixture *f, struct peer *peer)
{
    json_t *problem = json_object_get(next(f, peer), "problem");

    REQUIRE(problem != NULL);
    return json_string_value(json_object_get(problem, "type"));
}

TEST(socket, tells_any_number_of_watches)
{
    struct peer peer;

    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/maps/m", ""), 201);
    CHECK_EQ(ask(f, "POST", "/v1/counters/c", ""), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/a", "1"), 201);
    connect_to(f, &peer);
    send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"snapshot\":true,\"previous\":true},"
                "\"id\":1}");
    send(&peer, "{\"open\":{\"kind\":\"counter\",\"name\":\"c\"},\"id\":2}");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":1,\"opened\":true}");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":2,\"opened\":true}");
    CHECK_STR_HAS(next_text(f, &peer), "\"key\":\"a\",\"value\":\"1\",\"version\":");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":1,\"live\":true}");
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/a", "2"), 200);
    CHECK_EQ(ask(f, "POST", "/v1/counters/c/add", "{\"delta\":5}"), 200);
    CHECK_STR_EQ(
        next_text(f, &peer),
        "{\"id\":1,\"events\":[{\"type\":\"map.put\",\"name\":\"m\",\"key\":\"a\",\"value\":\"2\","
        "\"previous\":\"1\"}]}");
    CHECK_STR_HAS(next_text(f, &peer), "\"value\":5}");
    send(&peer, "{\"ack\":1,\"mark\":true}");
    CHECK_STR_EQ(next_text(f, &peer), "{\"progress\":true}");
    send(&peer, "{\"close\":1}");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":1,\"closed\":true,\"existed\":true}");
    send(&peer, "{\"close\":1}");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":1,\"closed\":true,\"existed\":false}");
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/a", "3"), 200);
    CHECK_EQ(ask(f, "POST", "/v1/counters/c/add", "{\"delta\":5}"), 200);
    CHECK_STR_HAS(next_text(f, &peer), "\"value\":10}");
    disconnect(f, &peer);
    while (watches(f) > 0) {
        turn(f);
    }
}

/* How things stand, of each kind that has something, in one story with what comes after. */
TEST(socket, begins_with_a_snapshot_of_each_kind)
{
    static const struct {
        const char *open;
        const char *shown; /* In its snapshot... */
        const char *other; /* ...the second thing in it. */
    } kinds[] = {
        {"\"kind\":\"set\",\"name\":\"s\"", "{\"type\":\"set.add\",\"name\":\"s\",\"member\":\"a\"",
         "\"member\":\"b\""},
        {"\"kind\":\"set\",\"name\":\"s\",\"prefix\":\"b\"", "\"member\":\"b\"", ""},
        {"\"kind\":\"multimap\",\"name\":\"mm\"",
         "{\"type\":\"multimap.put\",\"name\":\"mm\",\"key\":\"k\",\"value\":\"v\"",
         "\"value\":\"w\""},
        {"\"kind\":\"counter\",\"name\":\"c\"",
         "{\"type\":\"counter.set\",\"name\":\"c\",\"value\":-7", ""},
        {"\"kind\":\"lock\",\"name\":\"l\"",
         "{\"type\":\"lock.grant\",\"name\":\"l\",\"label\":\"one\"",
         "{\"type\":\"lock.wait\",\"name\":\"l\",\"label\":\"two\""},
        {"\"kind\":\"group\",\"name\":\"g\"",
         "{\"type\":\"member.join\",\"name\":\"g\",\"member\":\"x\",\"info\":\"i\"",
         "\"member\":\"y\""},
        {"\"kind\":\"registry\",\"name\":\"r\"",
         "{\"type\":\"registration.add\",\"name\":\"r\",\"address\":\"a\",\"sequence\":1",
         "\"address\":\"b\""},
        {"\"kind\":\"names\",\"of\":\"set\"", "{\"type\":\"set.create\",\"name\":\"s\"", ""},
    };
    char text[512];
    struct peer peer;
    json_t *json;

    start_led(f);
    CHECK_EQ(ask(f, "PUT", "/v1/sets/s/members/a", ""), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/sets/s/members/b", ""), 201);
    CHECK_EQ(ask(f, "POST", "/v1/multimaps/mm/keys/k", "v"), 201);
    CHECK_EQ(ask(f, "POST", "/v1/multimaps/mm/keys/k", "w"), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/counters/c", "{\"value\":-7}"), 200);
    CHECK_EQ(ask(f, "POST", "/v1/sessions", "{\"timeout_ms\":600000}"), 201);
    json = json_loads(body_of(f), 0, NULL);
    f->session = (uint64_t)json_integer_value(json_object_get(json, "session"));
    json_decref(json);
    CHECK_EQ(ask(f, "POST", "/v1/locks/l/acquire", "{\"label\":\"one\"}"), 200);
    CHECK_EQ(ask(f, "POST", "/v1/locks/l/acquire", "{\"label\":\"two\",\"timeout_ms\":600000}"),
             200);
    CHECK_EQ(ask(f, "PUT", "/v1/groups/g/members/x", "i"), 200);
    CHECK_EQ(ask(f, "PUT", "/v1/groups/g/members/y", ""), 200);
    CHECK_EQ(ask(f, "PUT", "/v1/registries/r/addresses/a?sequence=1", ""), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/registries/r/addresses/b?sequence=2", ""), 201);
    connect_to(f, &peer);
    for (unsigned n = 0; n < BOP_COUNT_OF(kinds); n++) {
        const char *told;

        snprintf(text, sizeof(text), "{\"open\":{%s,\"snapshot\":true},\"id\":%u}", kinds[n].open,
                 n + 1);
        send(&peer, text);
        CHECK_STR_HAS(next_text(f, &peer), "\"opened\":true");
        told = next_text(f, &peer);
        CHECK_STR_HAS(told, kinds[n].shown);
        CHECK_STR_HAS(told, kinds[n].other);
        CHECK_STR_HAS(told, "\"snapshot\":true");
        if (strstr(told, "\"more\":true")) { /* Kinds of names that are left out may follow. */
            CHECK_STR_HAS(next_text(f, &peer), ",\"snapshot\":true}");
        }
        CHECK_STR_HAS(next_text(f, &peer), "\"live\":true");
    }
    CHECK_EQ(ask(f, "PUT", "/v1/groups/g/members/z", ""), 200);
    CHECK_STR_HAS(next_text(f, &peer), "\"id\":6,\"events\":[{\"type\":\"member.join\"");
    f->session = 0;
    CHECK_EQ(ask(f, "DELETE", "/v1/sets/s/members/b", ""), 200);
    for (unsigned id = 1; id <= 2; id++) {
        CHECK_STR_HAS(next_text(f, &peer), "[{\"type\":\"set.remove\",\"name\":\"s\"");
    }
    disconnect(f, &peer);
}

TEST(socket, goes_on_from_a_revision)
{
    char text[256];
    struct peer peer;
    uint64_t at;

    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/maps/m", ""), 201);
    connect_to(f, &peer);
    send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"m\"},\"id\":1}");
    at = (uint64_t)json_integer_value(json_object_get(next(f, &peer), "revision"));
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/a", "1"), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/b", "1"), 201);
    CHECK_STR_HAS(next_text(f, &peer), "\"a\"");
    CHECK_STR_HAS(next_text(f, &peer), "\"b\"");
    snprintf(text, sizeof(text),
             "{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"revision\":%" PRIu64 "},\"id\":2}", at);
    send(&peer, text);
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":2,\"opened\":true}");
    CHECK_STR_HAS(next_text(f, &peer), "\"a\"");
    CHECK_STR_HAS(next_text(f, &peer), "\"b\"");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":2,\"live\":true}");
    send(&peer, text);
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:bad-request");
    disconnect(f, &peer);
    bop_node_destroy(f->node);
    f->node = NULL;
    start_led(f);
    connect_to(f, &peer);
    send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"revision\":1},\"id\":1}");
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:compacted");
    CHECK(json_is_integer(
        json_object_get(json_object_get(json_array_get(peer.messages, 0), "problem"), "oldest")));
    disconnect(f, &peer);
}

TEST(socket, answers_what_makes_no_sense)
{
    struct peer peer;

    start_led(f);
    connect_to(f, &peer);
    send(&peer, "no JSON");
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:bad-request");
    send(&peer, "{\"open\":{\"kind\":\"map\"},\"id\":7}");
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:bad-request");
    CHECK_EQ(json_integer_value(json_object_get(json_array_get(peer.messages, 1), "id")), 7);
    CHECK_EQ(bop_ws_send(peer.ws, BOP_WS_BINARY, bytes("{}")), 0);
    await_closed(f, &peer);
    CHECK_EQ(peer.code, BOP_WS_UNSUPPORTED);
    disconnect(f, &peer);
    begin_connect(f, &peer, "/v1/watch?kind=map&name=m", NULL);
    end_connect(f, &peer);
    CHECK(peer.closed && !peer.open);
    disconnect(f, &peer);
}

TEST(socket, is_refused_to_pages_of_others)
{
    const struct bop_http_header theirs = {bytes("Origin"), bytes("http://evil.example")};
    struct peer peer;

    start_led(f);
    begin_connect(f, &peer, "/v1/watch", &theirs);
    end_connect(f, &peer);
    CHECK(peer.closed && !peer.open);
    disconnect(f, &peer);
}

TEST(socket, tokens_allow_by_namespace)
{
    const struct bop_node_grant reads[] = {{"shop", BOP_RIGHT_READ}};
    const struct bop_node_token tokens[] = {
        {.name = "reader", .sha256 = reader_hash, .grants = reads, .grant_count = 1}};
    const struct bop_http_header shown = {bytes("Authorization"), bytes("Bearer reader")};
    struct peer peer;

    start_node(f, tokens, BOP_COUNT_OF(tokens));
    await_leader(f);
    begin_connect(f, &peer, "/v1/watch", NULL);
    end_connect(f, &peer);
    CHECK(peer.closed && !peer.open);
    disconnect(f, &peer);
    begin_connect(f, &peer, "/v1/watch", &shown);
    end_connect(f, &peer);
    REQUIRE(peer.open);
    send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"shop/m\"},\"id\":1}");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":1,\"opened\":true}");
    send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"m\"},\"id\":2}");
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:denied");
    send(&peer, "{\"open\":{\"kind\":\"names\"},\"id\":2}");
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:denied");
    disconnect(f, &peer);
}

TEST(socket, watches_end_with_the_right_to_them)
{
    const struct bop_node_grant both[] = {{"shop", BOP_RIGHT_READ}, {"other", BOP_RIGHT_WRITE}};
    struct bop_node_token token = {
        .name = "reader", .sha256 = reader_hash, .grants = both, .grant_count = 2};
    const struct bop_http_header shown = {bytes("Authorization"), bytes("Bearer reader")};
    struct peer peer;

    start_node(f, &token, 1);
    await_leader(f);
    f->token = "reader";
    CHECK_EQ(ask(f, "PUT", "/v1/maps/other%2Fm/entries/a", "1"), 201);
    begin_connect(f, &peer, "/v1/watch", &shown);
    end_connect(f, &peer);
    REQUIRE(peer.open);
    send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"shop/m\"},\"id\":1}");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":1,\"opened\":true}");
    send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"other/m\"},\"id\":2}");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":2,\"opened\":true}");
    token.grants = both + 1;
    token.grant_count = 1;
    REQUIRE_EQ(bop_node_set_tokens(f->node, &token, 1, NULL), 0);
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:denied");
    CHECK_EQ(json_integer_value(json_object_get(json_array_get(peer.messages, 2), "id")), 1);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/other%2Fm/entries/a", "2"), 200);
    CHECK_STR_HAS(next_text(f, &peer), "\"value\":\"2\"");
    REQUIRE_EQ(bop_node_set_tokens(f->node, NULL, 0, NULL), 0);
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:denied");
    send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"other/m\"},\"id\":3}");
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:denied");
    CHECK_EQ(watches(f), 0);
    disconnect(f, &peer);
}

/* Who does not read is told all the same, each event once and in order, from the history. */
TEST(socket, a_slow_reader_gets_everything)
{
    char path[64];
    struct bop_buf value;
    struct peer peer;
    unsigned told = 0;
    const unsigned count = 150;

    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/maps/m", ""), 201);
    connect_to(f, &peer);
    send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"m\"},\"id\":1}");
    CHECK_STR_EQ(next_text(f, &peer), "{\"id\":1,\"opened\":true}");
    bop_ws_pause(peer.ws);
    fill_value(&value);
    for (unsigned n = 0; n < count; n++) {
        snprintf(path, sizeof(path), "/v1/maps/m/entries/%u", n % 50);
        begin(f, "PUT", path, bop_buf_slice(&value), NULL, NULL, &f->got);
        await(f, &f->got);
    }
    bop_ws_resume(peer.ws);
    while (told < count) {
        json_t *message = next(f, &peer), *event;
        size_t n;

        CHECK(json_object_get(message, "resync") == NULL);
        json_array_foreach(json_object_get(message, "events"), n, event)
        {
            snprintf(path, sizeof(path), "%u", told++ % 50);
            CHECK_STR_EQ(json_string_value(json_object_get(event, "key")), path);
        }
    }
    bop_buf_deinit(&value);
    disconnect(f, &peer);
}

/* The node goes while watches are open and waited for. */
TEST(socket, a_node_may_go_in_the_middle)
{
    for (unsigned turns = 0; turns < 4; turns++) {
        struct got waiting = {0};
        struct peer peer;

        start_led(f);
        bop_buf_init(&waiting.body, NULL, 0);
        begin_connect(f, &peer, "/v1/watch", NULL);
        if (turns % 2) {
            end_connect(f, &peer);
            send(&peer, "{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"snapshot\":true},\"id\":1}");
        }
        begin(f, "GET", "/v1/watch?kind=map&name=m", bytes(""), NULL, NULL, &waiting);
        for (unsigned n = 0; n < turns; n++) {
            turn(f);
        }
        bop_node_destroy(f->node);
        f->node = NULL;
        await(f, &waiting);
        await_closed(f, &peer);
        disconnect(f, &peer);
        bop_buf_deinit(&waiting.body);
    }
    start_led(f);
}

/* ---- Standing for a session ---- */

struct owned {
    uint64_t session;
    char token[64];
};

/* A session with a grace, and an address registered by it. */
static void open_owned(struct fixture *f, unsigned grace_ms, struct owned *out)
{
    char text[64];
    json_t *json;

    snprintf(text, sizeof(text), "{\"timeout_ms\":600000,\"grace_ms\":%u}", grace_ms);
    CHECK_EQ(ask(f, "POST", "/v1/sessions", text), 201);
    json = json_loads(body_of(f), 0, NULL);
    CHECK_EQ(json_integer_value(json_object_get(json, "timeout_ms")), 600000);
    CHECK_EQ(json_integer_value(json_object_get(json, "grace_ms")), grace_ms);
    out->session = (uint64_t)json_integer_value(json_object_get(json, "session"));
    snprintf(out->token, sizeof(out->token), "%s",
             json_string_value(json_object_get(json, "token")));
    json_decref(json);
    f->session = out->session;
    f->sequence = 0;
    CHECK_EQ(ask(f, "PUT", "/v1/registries/r/addresses/a?sequence=1", ""), 201);
    f->session = 0;
}

static bool is_registered(struct fixture *f)
{
    CHECK_EQ(ask(f, "GET", "/v1/registries/r/addresses", ""), 200);
    return strstr(body_of(f), "\"address\":\"a\"") != NULL;
}

static void show(struct peer *peer, uint64_t session, const char *token)
{
    char text[256];

    snprintf(text, sizeof(text), "{\"session\":%" PRIu64 ",\"token\":\"%s\",\"id\":7}", session,
             token);
    send(peer, text);
}

static void stand_for(struct fixture *f, struct peer *peer, const struct owned *owned)
{
    json_t *answer;

    show(peer, owned->session, owned->token);
    answer = next(f, peer);
    CHECK_EQ(json_integer_value(json_object_get(answer, "id")), 7);
    CHECK_EQ((uint64_t)json_integer_value(json_object_get(answer, "session")), owned->session);
    CHECK(json_is_true(json_object_get(answer, "alive")));
}

/* The last one on which its token was shown counts, and no other. */
TEST(socket, that_breaks_leaves_its_session_the_grace)
{
    struct peer before, last;
    struct owned owned;

    start_led(f);
    open_owned(f, 1, &owned);
    connect_to(f, &before);
    connect_to(f, &last);
    stand_for(f, &before, &owned);
    stand_for(f, &before, &owned);
    stand_for(f, &last, &owned);
    disconnect(f, &before);
    for (unsigned n = 0; n < 20; n++) {
        CHECK(is_registered(f));
    }
    bop_ws_terminate(last.ws);
    for (unsigned n = 0; n < TURNS && is_registered(f); n++) {
        turn(f);
    }
    CHECK(!is_registered(f));
    await_closed(f, &last);
    disconnect(f, &last);
}

TEST(socket, stands_for_a_session_by_its_token_alone)
{
    struct owned owned;
    struct peer peer;

    start_led(f);
    open_owned(f, 600000, &owned);
    connect_to(f, &peer);
    show(&peer, owned.session, "AAAAAAAAAAAAAAAAAAAAAA");
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:refused");
    show(&peer, owned.session + 1000000, owned.token);
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:no-session");
    show(&peer, owned.session, "none");
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:bad-request");
    send(&peer, "{\"session\":1,\"id\":1}");
    CHECK_STR_EQ(next_problem(f, &peer), "urn:bop:error:bad-request");
    stand_for(f, &peer, &owned);
    show(&peer, owned.session, owned.token); /* And it goes before that is known. */
    bop_ws_terminate(peer.ws);
    await_closed(f, &peer);
    disconnect(f, &peer);
    CHECK(is_registered(f));
}
