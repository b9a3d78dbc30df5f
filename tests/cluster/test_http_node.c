/*
 * The HTTP API of a real node over loopback: what is served, what is refused, streams
 * with back-pressure, tokens, and an end in the middle of everything.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bop/backup.h>

#include "http_node_help.h"

/* ---- Kinds of state ---- */

TEST(http, maps)
{
    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/maps/a%2Fm", ""), 201);
    CHECK_EQ(ask(f, "POST", "/v1/maps/a%2Fm", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"created\":false}");
    CHECK_EQ(ask(f, "GET", "/v1/maps/a%2Fm/entries/k", ""), 404);
    CHECK_STR_EQ(f->got.type, "application/problem+json");
    CHECK_EQ(ask_with(f, "PUT", "/v1/maps/a%2Fm/entries/k", "one", "If-None-Match", "*"), 201);
    CHECK_EQ(ask_with(f, "PUT", "/v1/maps/a%2Fm/entries/k", "two", "If-None-Match", "*"), 412);
    CHECK_STR_HAS(body_of(f), "\"version\":");
    CHECK_EQ(ask(f, "GET", "/v1/maps/a%2Fm/entries/k", ""), 200);
    CHECK_STR_EQ(body_of(f), "one");
    CHECK_STR_EQ(f->got.type, "application/octet-stream");
    CHECK_EQ(ask_with(f, "PUT", "/v1/maps/a%2Fm/entries/k", "two", "If-Match", f->got.etag), 200);
    CHECK_EQ(ask_with(f, "GET", "/v1/maps/a%2Fm/entries/k", "", "If-None-Match", f->got.etag), 304);
    CHECK_EQ(ask_with(f, "DELETE", "/v1/maps/a%2Fm/entries/k", "", "If-Match", "\"1\""), 412);
    CHECK_EQ(ask(f, "DELETE", "/v1/maps/a%2Fm/entries/k?if_value=two", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"existed\":true}");
    CHECK_EQ(ask(f, "PUT", "/v1/maps/a%2Fm/entries/%FF/x", ""), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/a%2Fm/entries/", "of the empty key"), 201);
    CHECK_EQ(ask(f, "GET", "/v1/maps/a%2Fm?consistency=stale", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"size\":2}");
    CHECK_EQ(ask(f, "GET", "/v1/maps/a%2Fm/entries?from=a", ""), 200);
    CHECK_STR_HAS(body_of(f), "{\"key64\":\"/y94\"");
    CHECK_EQ(ask(f, "DELETE", "/v1/maps/a%2Fm/entries", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"removed\":2}");
}

TEST(http, sets)
{
    start_led(f);
    CHECK_EQ(ask(f, "PUT", "/v1/sets/s/members/a", ""), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/sets/s/members/a", ""), 200);
    CHECK_EQ(ask(f, "PUT", "/v1/sets/s/members/b", ""), 201);
    CHECK_EQ(ask(f, "GET", "/v1/sets/s/members/a", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"contained\":true}");
    CHECK_EQ(ask(f, "GET", "/v1/sets/s/members", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"members\":[{\"member\":\"a\"},{\"member\":\"b\"}]}");
    CHECK_EQ(ask(f, "DELETE", "/v1/sets/s/members/a", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"existed\":true}");
    CHECK_EQ(ask(f, "GET", "/v1/sets/s", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"size\":1}");
}

TEST(http, multimaps)
{
    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/multimaps/m/keys/k", "v"), 201);
    CHECK_EQ(ask(f, "POST", "/v1/multimaps/m/keys/k", "w"), 201);
    CHECK_EQ(ask(f, "POST", "/v1/multimaps/m/keys/k", "w"), 200);
    CHECK_EQ(ask(f, "POST", "/v1/multimaps/m/keys/l", "v"), 201);
    CHECK_EQ(ask(f, "GET", "/v1/multimaps/m/keys/k", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"values\":[{\"value\":\"v\"},{\"value\":\"w\"}]}");
    CHECK_EQ(ask(f, "GET", "/v1/multimaps/m/keys", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"keys\":[{\"key\":\"k\"},{\"key\":\"l\"}]}");
    CHECK_EQ(ask(f, "GET", "/v1/multimaps/m/entries?limit=1", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"entries\":[{\"key\":\"k\",\"value\":\"v\"}],\"cursor\":");
    CHECK_EQ(ask(f, "GET", "/v1/multimaps/m/contains?key=l&value=w", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"contained\":false}");
    CHECK_EQ(ask(f, "GET", "/v1/multimaps/m/contains?value=w", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"contained\":true}");
    CHECK_EQ(ask(f, "GET", "/v1/multimaps/m?key=k", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"size\":2}");
    CHECK_EQ(ask(f, "DELETE", "/v1/multimaps/m/keys/k?value=v", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"existed\":true}");
    CHECK_EQ(ask(f, "DELETE", "/v1/multimaps/m/keys/k", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"removed\":1}");
}

TEST(http, counters)
{
    start_led(f);
    CHECK_EQ(ask(f, "GET", "/v1/counters/c", ""), 404);
    CHECK_EQ(ask(f, "POST", "/v1/counters/c/add", "{\"delta\":-5}"), 200);
    CHECK_STR_EQ(body_of(f), "{\"value\":-5}");
    CHECK_EQ(ask(f, "PUT", "/v1/counters/c", "{\"value\":1,\"expected\":2}"), 412);
    CHECK_STR_HAS(body_of(f), "\"value\":-5}");
    CHECK_EQ(ask(f, "PUT", "/v1/counters/c", "{\"value\":9223372036854775807,\"expected\":-5}"),
             200);
    CHECK_EQ(ask(f, "POST", "/v1/counters/c/add", "{\"delta\":1}"), 422);
    CHECK_EQ(ask(f, "GET", "/v1/counters/c", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"value\":9223372036854775807}");
    CHECK_EQ(ask(f, "DELETE", "/v1/counters/c", ""), 200);
}

TEST(http, maps_with_a_time_to_live)
{
    start_led(f);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/k?ttl_ms=3600000", "v"), 201);
    CHECK_EQ(ask(f, "GET", "/v1/maps/m/entries/k?ttl=true", ""), 200);
    CHECK_STR_EQ(body_of(f), "v");
    CHECK(atoi(f->got.ttl) > 3000000);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/k?return=previous", "w"), 200);
    CHECK_STR_HAS(body_of(f), "\"previous\":\"v\"}");
    CHECK_EQ(ask(f, "DELETE", "/v1/maps/m/entries/k?return=previous", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"previous\":\"w\"}");
    CHECK_EQ(ask(f, "DELETE", "/v1/maps/m/entries/k?return=previous", ""), 200);
    CHECK_STR_HAS(body_of(f), "{\"existed\":false");
    CHECK_EQ(ask(f, "POST", "/v1/maps/m/entries",
                 "{\"entries\":[{\"key\":\"a\",\"value\":\"1\"},{\"key64\":\"/w==\","
                 "\"value64\":\"\"}]}"),
             200);
    CHECK_STR_EQ(body_of(f), "{\"added\":2}");
    CHECK_EQ(ask(f, "POST", "/v1/maps/m/entries", "{\"entries\":[{\"key\":\"a\"}]}"), 400);
}

TEST(http, names_of_what_there_is)
{
    start_led(f);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/shop%2Fa/entries/k", "v"), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/shop%2Fb/entries/k", "v"), 201);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/z/entries/k", "v"), 201);
    CHECK_EQ(ask(f, "POST", "/v1/counters/c/add", "{\"delta\":-7}"), 200);
    CHECK_EQ(ask(f, "GET", "/v1/maps?prefix=shop%2F", ""), 200);
    CHECK_STR_HAS(body_of(f), "{\"name\":\"shop/a\",\"made\":");
    CHECK_STR_HAS(body_of(f), "\"size\":1}]}");
    CHECK(strstr(body_of(f), "\"z\"") == NULL);
    CHECK_EQ(ask(f, "GET", "/v1/counters", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"size\":-7}]}");
    CHECK_EQ(ask(f, "GET", "/v1/sets", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"names\":[]}");
}

/* Opens a session; its headers go with each request until f->session is 0. */
static void open_session(struct fixture *f)
{
    json_t *json;

    CHECK_EQ(ask(f, "POST", "/v1/sessions", "{\"timeout_ms\":60000}"), 201);
    json = json_loadb(body_of(f), f->got.body.size, 0, NULL);
    f->session = (uint64_t)json_integer_value(json_object_get(json, "session"));
    snprintf(f->session_token, sizeof(f->session_token), "%s",
             json_string_value(json_object_get(json, "token")));
    f->sequence = 0;
    CHECK(f->session != 0);
    CHECK_EQ(json_integer_value(json_object_get(json, "timeout_ms")), 60000);
    json_decref(json);
}

TEST(http, sessions_have_the_terms_that_were_asked_for)
{
    static const char *const bad[] = {"{\"timeout_ms\":0}", "{\"grace_ms\":-1}",
                                      "{\"grace_ms\":\"1\"}", "{\"grace\":1}", "[]"};

    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/sessions", ""), 201);
    CHECK_STR_HAS(body_of(f), "\"timeout_ms\":10000,\"grace_ms\":0}");
    CHECK_EQ(ask(f, "POST", "/v1/sessions", "{\"grace_ms\":20000}"),
             201); /* Its timeout at most. */
    CHECK_STR_HAS(body_of(f), "\"timeout_ms\":10000,\"grace_ms\":10000}");
    for (unsigned n = 0; n < BOP_COUNT_OF(bad); n++) {
        CHECK_EQ(ask(f, "POST", "/v1/sessions", bad[n]), 400);
        CHECK_STR_HAS(body_of(f), "grace_ms");
    }
}

TEST(http, locks_members_and_registrations_of_a_session)
{
    char path[64];

    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/locks/l/acquire", ""), 410); /* Without a session. */
    open_session(f);
    CHECK_EQ(ask(f, "POST", "/v1/locks/l/acquire", "{\"label\":\"me\"}"), 200);
    CHECK_STR_HAS(body_of(f), "\"position\":0}");
    CHECK_EQ(ask(f, "PUT", "/v1/groups/g/members/m", "info"), 200);
    CHECK_EQ(ask(f, "PUT", "/v1/registries/r/addresses/a%2Fb?sequence=3", ""), 201);
    f->sequence--; /* Sent again, it is answered as it was. */
    CHECK_EQ(ask(f, "PUT", "/v1/registries/r/addresses/a%2Fb?sequence=3", ""), 201);
    CHECK_STR_EQ(body_of(f), "{\"added\":true}");
    snprintf(path, sizeof(path), "/v1/sessions/%" PRIu64 "/alive", f->session);
    f->sequence = UINT64_MAX; /* No headers. */
    CHECK_EQ(ask(f, "POST", path, ""), 200);
    CHECK_EQ(ask(f, "GET", "/v1/locks/l", ""), 200);
    CHECK_STR_HAS(body_of(f), "{\"capacity\":1,\"permits\":1,\"revision\":");
    CHECK_STR_HAS(body_of(f), "\"requests\":[{\"label\":\"me\",\"ticket\":");
    CHECK_EQ(ask(f, "GET", "/v1/groups/g/members", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"info\":\"info\"}]}");
    CHECK_EQ(ask(f, "GET", "/v1/groups/g/members/m", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"info\":\"info\"}");
    CHECK_EQ(ask(f, "GET", "/v1/registries/r/addresses", ""), 200);
    CHECK_STR_HAS(body_of(f), "{\"address\":\"a/b\",\"session\":");
    CHECK_STR_HAS(body_of(f), "\"sequence\":3}]}");
    snprintf(path, sizeof(path), "/v1/sessions/%" PRIu64, f->session);
    CHECK_EQ(ask(f, "DELETE", path, ""), 400);
    CHECK_EQ(ask_with(f, "DELETE", path, "", "BOP-Token", f->session_token), 200);
    CHECK_EQ(ask(f, "GET", "/v1/groups/g/members", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"members\":[]}");
    snprintf(path, sizeof(path), "/v1/sessions/%" PRIu64 "/alive", f->session);
    CHECK_EQ(ask(f, "POST", path, ""), 410);
}

TEST(http, transactions_are_all_or_nothing)
{
    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/transactions",
                 "{\"compare\":[{\"kind\":\"version\",\"name\":\"m\",\"key\":\"k\",\"number\":0}],"
                 "\"then\":[{\"op\":\"map.put\",\"name\":\"m\",\"key\":\"k\",\"value\":\"v\"},"
                 "{\"op\":\"counter.add\",\"name\":\"c\",\"delta\":5}],"
                 "\"else\":[{\"op\":\"map.get\",\"name\":\"m\",\"key\":\"k\"}]}"),
             200);
    CHECK_STR_HAS(body_of(f), "{\"held\":true,\"results\":[{\"status\":\"ok\",\"existed\":false,");
    CHECK_STR_HAS(body_of(f), "{\"status\":\"ok\",\"value\":5}]}");
    CHECK_EQ(ask(f, "POST", "/v1/transactions",
                 "{\"compare\":[{\"kind\":\"value\",\"name\":\"m\",\"key\":\"k\",\"value\":\"x\"}],"
                 "\"else\":[{\"op\":\"map.get\",\"name\":\"m\",\"key\":\"k\"},"
                 "{\"op\":\"map.get\",\"name\":\"m\",\"key\":\"none\"}]}"),
             200);
    CHECK_STR_HAS(body_of(f), "{\"held\":false,\"results\":[{\"status\":\"ok\",\"version\":");
    CHECK_STR_HAS(body_of(f), "\"value\":\"v\"},{\"status\":\"not-found\"}]}");
    CHECK_EQ(ask(f, "POST", "/v1/transactions",
                 "{\"then\":[{\"op\":\"counter.add\",\"name\":\"c\",\"delta\":1},"
                 "{\"op\":\"map.put\",\"name\":\"m\",\"key\":\"k\",\"value\":\"w\","
                 "\"if\":\"absent\"}]}"),
             412);
    CHECK_STR_HAS(body_of(f), "operation 1");
    CHECK_EQ(ask(f, "GET", "/v1/counters/c", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"value\":5}");
}

/* Every page goes on where the one before ended, and the cursor fits in a query as it is. */
TEST(http, pages_give_each_entry_once)
{
    char path[8192] = "/v1/maps/m/entries?limit=7";
    size_t seen = 0, pages = 0;

    start_led(f);
    for (unsigned n = 0; n < 50; n++) {
        char key[64];

        snprintf(key, sizeof(key), "/v1/maps/m/entries/%%FF%%FE%u", n);
        CHECK_EQ(ask(f, "PUT", key, "v"), 201);
    }
    for (bool more = true; more; pages++) {
        json_t *page;
        const char *cursor;

        CHECK_EQ(ask(f, "GET", path, ""), 200);
        page = json_loadb(body_of(f), f->got.body.size, 0, NULL);
        REQUIRE(page != NULL);
        seen += json_array_size(json_object_get(page, "entries"));
        cursor = json_string_value(json_object_get(page, "cursor"));
        more = cursor != NULL;
        snprintf(path, sizeof(path), "/v1/maps/m/entries?limit=7&cursor=%s", more ? cursor : "");
        json_decref(page);
    }
    CHECK_EQ(seen, 50);
    CHECK_EQ(pages, 8);
}

/* ---- What is refused ---- */

TEST(http, refuses_as_problems)
{
    start_led(f);
    CHECK_EQ(ask(f, "GET", "/v2/maps", ""), 404);
    CHECK_STR_HAS(body_of(f), "urn:bop:error:no-route");
    CHECK_EQ(ask(f, "PATCH", "/v1/maps/m/entries/k", ""), 405);
    CHECK_STR_EQ(f->got.allow, "GET, HEAD, PUT, DELETE, OPTIONS");
    CHECK_EQ(ask(f, "OPTIONS", "/v1/maps/m/entries/k", ""), 204);
    CHECK_STR_EQ(f->got.allow, "GET, HEAD, PUT, DELETE, OPTIONS");
    CHECK_EQ(ask(f, "GET", "/v1/maps/m?x=1", ""), 400);
    CHECK_EQ(ask(f, "POST", "/v1/counters/c/add", "{\"delta\":"), 400);
    CHECK_EQ(ask_with(f, "POST", "/v1/maps/m", "", "Origin", "http://evil.example"), 403);
    CHECK_STR_HAS(body_of(f), "cross-origin");
    CHECK_EQ(ask_with(f, "POST", "/v1/maps/m", "", "Origin", "null"), 403);
    CHECK_EQ(ask_with(f, "POST", "/v1/maps/m", "", "Origin", f->url), 201);
    CHECK_EQ(ask(f, "HEAD", "/v1/maps/m/export", ""), 200);
}

TEST(http, bounds_bodies_announced_or_not)
{
    struct bop_buf big;

    start_led(f);
    bop_buf_init(&big, NULL, 0);
    REQUIRE_EQ(bop_buf_reserve(&big, BOP_VALUE_MAX + 1), 0);
    memset(big.data, 'x', BOP_VALUE_MAX + 1);
    begin(f, "PUT", "/v1/maps/m/entries/k", bop_slice(big.data, BOP_VALUE_MAX + 1), NULL, NULL,
          &f->got);
    await(f, &f->got);
    CHECK_EQ(f->got.status, 413);
    begin(f, "PUT", "/v1/counters/c", bop_slice(big.data, HTTP_JSON_MAX + 1), NULL, NULL, &f->got);
    await(f, &f->got);
    CHECK_EQ(f->got.status, 413);
    begin(f, "PUT", "/v1/maps/m/entries/k", bop_slice(big.data, BOP_VALUE_MAX), NULL, NULL,
          &f->got);
    await(f, &f->got);
    CHECK_EQ(f->got.status, 201);
    bop_buf_deinit(&big);
    CHECK_EQ(ask(f, "GET", "/v1/maps/m/entries/k", ""), 200);
    CHECK_EQ(f->got.body.size, BOP_VALUE_MAX);
}

TEST(http, without_a_leader_says_so)
{
    start_node(f, NULL, 0);
    /* The election has not ended when the first turn takes the requests, as the node has just
     * begun; one that ended all the same would answer 200. */
    begin(f, "GET", "/readyz", bytes(""), NULL, NULL, &f->got);
    await(f, &f->got);
    CHECK(f->got.status == 503 || f->got.status == 200);
    if (f->got.status == 503) {
        CHECK_STR_HAS(body_of(f), "not-ready");
        CHECK_STR_EQ(f->got.retry, "1");
    }
    await_leader(f);
    CHECK_EQ(ask(f, "GET", "/readyz", ""), 200);
    CHECK_EQ(ask(f, "GET", "/healthz", ""), 200);
}

/* ---- Streams ---- */

static void fill_lines(struct bop_buf *lines, unsigned count)
{
    char line[256];

    for (unsigned n = 0; n < count; n++) {
        int size = n % 3
                       ? snprintf(line, sizeof(line), "{\"key\":\"k%06u\",\"value\":\"v%u\"}\n", n,
                                  n)
                       : snprintf(line, sizeof(line),
                                  "{\"value64\":\"/wD+\",\"key\":\"k%06u\",\"more\":[]}\r\n\n", n);

        REQUIRE_EQ(bop_buf_append(lines, line, (size_t)size), 0);
    }
}

TEST(http, imports_and_exports_as_lines)
{
    struct bop_buf lines;
    const unsigned count = 20000;
    unsigned feeds = 0;

    start_led(f);
    bop_buf_init(&lines, NULL, 0);
    fill_lines(&lines, count);
    begin(f, "POST", "/v1/maps/m/import", bop_buf_slice(&lines), NULL, NULL, &f->got);
    await(f, &f->got);
    CHECK_EQ(f->got.status, 200);
    CHECK_STR_EQ(body_of(f), "{\"stored\":20000}");
    CHECK_EQ(ask(f, "GET", "/v1/maps/m/export", ""), 200);
    CHECK_STR_EQ(f->got.type, "application/x-ndjson");
    for (size_t at = 0; at < f->got.body.size; at++) {
        feeds += body_of(f)[at] == '\n';
    }
    CHECK_EQ(feeds, count);
    CHECK_STR_HAS(body_of(f), "{\"key\":\"k000003\",\"value64\":\"/wD+\"}\n"
                              "{\"key\":\"k000004\",\"value\":\"v4\"}\n");
    CHECK_EQ(ask(f, "GET", "/v1/maps/m/export?prefix=k0000&consistency=stale", ""), 200);
    CHECK_EQ(f->got.body.size > 2000 && f->got.body.size < 5000, true);
    CHECK_EQ(ask(f, "GET", "/v1/maps/nothing/export", ""), 200);
    CHECK_STR_EQ(body_of(f), "");
    bop_buf_deinit(&lines);
}

TEST(http, an_import_ends_at_the_first_bad_line)
{
    start_led(f);
    CHECK_EQ(ask(f, "POST", "/v1/maps/m/import",
                 "{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"b\"}\n{\"key\":\"c\","
                 "\"value\":\"3\"}\n"),
             400);
    CHECK_STR_HAS(body_of(f), "line 3");
    CHECK_STR_HAS(body_of(f), "\"stored\":1}");
    CHECK_EQ(ask(f, "GET", "/v1/maps/m", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"size\":1}");
    CHECK_EQ(ask(f, "POST", "/v1/maps/m/import", "{\"key\":\"z\",\"value\":\"1\"}"), 200);
    CHECK_STR_EQ(body_of(f), "{\"stored\":1}");
    CHECK_EQ(ask(f, "POST", "/v1/maps/m/import", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"stored\":0}");
}

/* ---- Backups ---- */

/* What was fetched is whole, and of the state at that revision. */
static void check_backup(struct fixture *f)
{
    struct bop_backup_info info = {0};
    const char *path = test_path(NULL, "b.snap");

    REQUIRE_EQ(bop_fs_write_file(bop_fs_real(), path, bop_buf_slice(&f->got.body), NULL), 0);
    REQUIRE_EQ(bop_backup_check(path, &info, NULL), 0);
    CHECK(info.entries > 300);
}

TEST(http, a_backup_is_a_file_that_can_be_restored)
{
    struct bop_buf lines;
    struct got gone = {0};

    start_led(f);
    bop_buf_init(&lines, NULL, 0);
    bop_buf_init(&gone.body, NULL, 0);
    fill_lines(&lines, 20000); /* More than a piece. */
    begin(f, "POST", "/v1/maps/m/import", bop_buf_slice(&lines), NULL, NULL, &f->got);
    await(f, &f->got);
    CHECK_EQ(f->got.status, 200);
    CHECK_EQ(ask(f, "GET", "/v1/backup", ""), 200);
    CHECK_STR_EQ(f->got.type, "application/octet-stream");
    check_backup(f);
    CHECK_EQ(ask(f, "GET", "/v1/backup?consistency=stale", ""), 200);
    check_backup(f);
    CHECK_EQ(ask(f, "HEAD", "/v1/backup", ""), 200);
    CHECK_EQ(ask(f, "GET", "/v1/backup?x=1", ""), 400);
    CHECK_EQ(ask(f, "POST", "/v1/backup", ""), 405);
    /* More one after another than there may be at a time: each is dropped when it is sent, or
     * when who asked has gone. */
    for (unsigned n = 0; n < 6; n++) {
        begin(f, "GET", "/v1/backup", bytes(""), NULL, NULL, &gone);
        turn(f);
        bop_http_client_destroy(f->client);
        REQUIRE_EQ(
            bop_http_client_create(f->loop, &(struct bop_http_client_options){0}, &f->client), 0);
        for (unsigned turns = 0; turns < TURNS; turns++) {
            if (ask(f, "GET", "/v1/backup", "") == 200) {
                break; /* One that was begun before may still be cut: then 429. */
            }
            CHECK_EQ(f->got.status, 429);
        }
        check_backup(f);
    }
    bop_buf_deinit(&gone.body);
    bop_buf_deinit(&lines);
}

/* ---- Node ---- */

TEST(http, status_and_cluster_and_state)
{
    static const char *const paths[] = {"/v1/status", "/v1/cluster", "/debug/state",
                                        "/v1/openapi.json"};

    start_led(f);
    for (size_t n = 0; n < BOP_COUNT_OF(paths); n++) {
        json_t *json;

        CHECK_EQ(ask(f, "GET", paths[n], ""), 200);
        json = json_loadb(body_of(f), f->got.body.size, JSON_REJECT_DUPLICATES, NULL);
        CHECK(json_is_object(json));
        json_decref(json);
    }
    CHECK_EQ(ask(f, "GET", "/v1/cluster", ""), 200);
    CHECK_STR_HAS(body_of(f), "\"leader\":1");
    CHECK_STR_HAS(body_of(f), "\"role\":\"voter\"");
    CHECK_EQ(ask(f, "GET", "/metrics", ""), 200);
    CHECK_STR_HAS(f->got.type, "version=0.0.4");
    CHECK_STR_HAS(body_of(f), "bop_http_requests_total");
    CHECK_STR_HAS(body_of(f), "bop_memory_live_bytes{tag=\"cluster.http\"}");
}

TEST(http, debug_changes_what_is_logged)
{
    start_led(f);
    CHECK_EQ(ask(f, "GET", "/debug/log", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"level\":\"info\"}");
    CHECK_EQ(ask(f, "PUT", "/debug/log", "{\"level\":\"debug\"}"), 200);
    CHECK_EQ(f->log.level, BOP_LOG_DEBUG);
    CHECK_EQ(ask(f, "PUT", "/debug/log", "{\"level\":\"all\"}"), 400);
    CHECK_EQ(ask(f, "PUT", "/debug/log", "{\"level\":\"info\",\"x\":1}"), 400);
    CHECK_EQ(ask(f, "PUT", "/debug/log", ""), 400);
    CHECK_EQ(f->log.level, BOP_LOG_DEBUG);
}

TEST(http, debug_profiles_the_heap)
{
    start_led(f);
    CHECK_EQ(ask(f, "POST", "/debug/heap/start?sample_bytes=1024", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"running\":true}");
    CHECK_EQ(ask(f, "PUT", "/v1/maps/m/entries/k", "v"), 201);
    CHECK_EQ(ask(f, "GET", "/debug/heap/profile", ""), 200);
    CHECK_STR_HAS(body_of(f), "heap profile:");
    CHECK_EQ(ask(f, "POST", "/debug/heap/stop", ""), 200);
    CHECK_STR_EQ(body_of(f), "{\"running\":false}");
    CHECK_EQ(ask(f, "POST", "/debug/heap/start?sample_bytes=0", ""), 400);
}

/* ---- Tokens ---- */

/* SHA-256 of "reader" and of "admin". */
static const uint8_t reader_hash[BOP_TOKEN_HASH_SIZE] = {
    0x3d, 0x09, 0x41, 0x96, 0x4a, 0xa3, 0xeb, 0xdc, 0xb0, 0x0c, 0xce, 0xf5, 0x8b, 0x1b, 0xb3, 0x99,
    0xf9, 0xf8, 0x98, 0x46, 0x5e, 0x98, 0x86, 0xd5, 0xae, 0xc7, 0xf3, 0x10, 0x90, 0xa0, 0xfb, 0x30};
static const uint8_t admin_hash[BOP_TOKEN_HASH_SIZE] = {
    0x8c, 0x69, 0x76, 0xe5, 0xb5, 0x41, 0x04, 0x15, 0xbd, 0xe9, 0x08, 0xbd, 0x4d, 0xee, 0x15, 0xdf,
    0xb1, 0x67, 0xa9, 0xc8, 0x73, 0xfc, 0x4b, 0xb8, 0xa8, 0x1f, 0x6f, 0x2a, 0xb4, 0x48, 0xa9, 0x18};

TEST(http, tokens_allow_by_namespace)
{
    const struct bop_node_grant reads[] = {{"shop", BOP_RIGHT_READ}, {"own", BOP_RIGHT_WRITE}};
    const struct bop_node_grant all[] = {{"*", BOP_RIGHT_ADMIN}};
    const struct bop_node_token tokens[] = {
        {.name = "reader", .sha256 = reader_hash, .grants = reads, .grant_count = 2},
        {.name = "admin", .sha256 = admin_hash, .grants = all, .grant_count = 1},
    };

    start_node(f, tokens, BOP_COUNT_OF(tokens));
    await_leader(f);
    CHECK_EQ(ask(f, "GET", "/healthz", ""), 200);
    CHECK_EQ(ask(f, "GET", "/v1/openapi.json", ""), 200);
    CHECK_EQ(ask(f, "GET", "/v1/maps/shop%2Fm", ""), 401);
    CHECK_STR_EQ(f->got.challenge, "Bearer");
    CHECK_EQ(ask(f, "GET", "/metrics", ""), 401);
    f->token = "nobody's";
    CHECK_EQ(ask(f, "GET", "/v1/maps/shop%2Fm", ""), 401);
    f->token = "reader";
    CHECK_EQ(ask(f, "GET", "/v1/maps/shop%2Fm", ""), 200);
    CHECK_EQ(ask(f, "GET", "/metrics", ""), 200);
    CHECK_EQ(ask(f, "GET", "/v1/maps/other%2Fm", ""), 403);
    CHECK_EQ(ask(f, "GET", "/v1/maps/m", ""), 403);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/shop%2Fm/entries/k", "v"), 403);
    CHECK_STR_HAS(body_of(f), "urn:bop:error:denied");
    CHECK_EQ(ask(f, "PUT", "/v1/maps/own%2Fm/entries/k", "v"), 201);
    CHECK_EQ(ask(f, "GET", "/debug/state", ""), 403);
    CHECK_EQ(ask(f, "GET", "/v1/backup", ""), 403);
    f->token = "admin";
    CHECK_EQ(ask(f, "GET", "/v1/backup", ""), 200);
    CHECK_EQ(ask(f, "GET", "/debug/state", ""), 200);
    CHECK_EQ(ask(f, "PUT", "/v1/maps/shop%2Fm/entries/k", "v"), 201);
}

/* ---- Ends ---- */

/* The node goes while reads, writes, an import, an export and a profile are under way: each is
 * answered or cut, and nothing leaks. */
TEST(http, a_node_may_go_in_the_middle)
{
    static const char *const asked[][2] = {
        {"PUT", "/v1/maps/m/entries/k"},
        {"GET", "/v1/maps/m/entries/k"},
        {"GET", "/v1/maps/m/export"},
        {"POST", "/v1/maps/m/import"},
        {"GET", "/debug/heap/profile"},
        {"GET", "/readyz"},
        {"GET", "/v1/maps/m/entries/k2"},
        {"GET", "/v1/backup"},
        {"GET", "/v1/backup?consistency=stale"},
    };
    struct got got[BOP_COUNT_OF(asked)] = {0};
    struct bop_buf lines;

    start_led(f);
    bop_buf_init(&lines, NULL, 0);
    fill_lines(&lines, 3000);
    for (unsigned turns = 0; turns < 6; turns++) {
        for (size_t n = 0; n < BOP_COUNT_OF(asked); n++) {
            bool streams = strstr(asked[n][1], "import") != NULL;

            bop_buf_init(&got[n].body, NULL, 0);
            begin(f, asked[n][0], asked[n][1], streams ? bop_buf_slice(&lines) : bytes(""), NULL,
                  NULL, &got[n]);
        }
        for (unsigned n = 0; n < turns; n++) {
            turn(f);
        }
        bop_node_destroy(f->node);
        f->node = NULL;
        for (size_t n = 0; n < BOP_COUNT_OF(asked); n++) {
            await(f, &got[n]);
            bop_buf_deinit(&got[n].body);
        }
        start_led(f);
    }
    bop_buf_deinit(&lines);
}

/* Clients that go while their request is under way. */
TEST(http, clients_may_go_in_the_middle)
{
    start_led(f);
    for (unsigned turns = 0; turns < 4; turns++) {
        struct bop_http_client *client;
        struct bop_http_client *kept = f->client;
        struct bop_http_client_options options = {.connections_per_host_max = 16};
        struct got got[8] = {0};

        REQUIRE_EQ(bop_http_client_create(f->loop, &options, &client), 0);
        f->client = client;
        for (size_t n = 0; n < BOP_COUNT_OF(got); n++) {
            bop_buf_init(&got[n].body, NULL, 0);
            begin(f, n % 2 ? "GET" : "PUT", "/v1/maps/m/entries/k", bytes(""), NULL, NULL, &got[n]);
        }
        for (unsigned n = 0; n < turns; n++) {
            turn(f);
        }
        bop_http_client_destroy(client);
        for (size_t n = 0; n < BOP_COUNT_OF(got); n++) {
            CHECK(got[n].done);
            bop_buf_deinit(&got[n].body);
        }
        f->client = kept;
    }
    CHECK_EQ(ask(f, "GET", "/healthz", ""), 200);
}
