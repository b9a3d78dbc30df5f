/*
 * Requests to operations and results to answers, without a socket: the routes, what
 * they take and refuse, JSON, base64, problems, and the OpenAPI document beside the
 * table of routes.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "http/http.h"

#include "tap.h"

struct fixture {
    struct bop_router *router;
    struct bop_arena arena;
    struct bop_http_head *head;
    struct http_call call;
    struct http_problem problem;
    struct bop_buf bytes;
    struct http_answer answer;
};

static void setup(struct fixture *f)
{
    REQUIRE_EQ(bop__http_router(NULL, &f->router), 0);
    bop_arena_init(&f->arena, NULL, 0, 0);
    f->head = calloc(1, sizeof(*f->head));
    REQUIRE(f->head != NULL);
    bop_buf_init(&f->bytes, NULL, 0);
    bop_buf_init(&f->answer.text, NULL, 0);
}

static void teardown(struct fixture *f)
{
    bop_router_destroy(f->router);
    bop_arena_deinit(&f->arena);
    bop_buf_deinit(&f->bytes);
    bop_buf_deinit(&f->answer.text);
    free(f->head);
}

FIXTURE(setup, teardown)

/* The request line and headers, each with CRLF, and a body. 0, or -1 with f->problem. */
static int translate(struct fixture *f, const char *head, const char *body)
{
    char text[4096];
    struct bop_router_match match;

    snprintf(text, sizeof(text), "%sHost: h\r\n\r\n", head);
    bop_arena_reset(&f->arena);
    f->call = (struct http_call){.arena = &f->arena};
    f->problem = (struct http_problem){0};
    REQUIRE_EQ(bop_http1_parse_request(bytes(text), NULL, f->head, NULL), 0);
    if (!bop_router_match(f->router, bop_slice(NULL, 0), f->head->method_text, f->head->path,
                          &match)) {
        return bop__http_problem(&f->problem, HTTP_NO_ROUTE, "%s", "");
    }
    if (bop__http_translate(&f->call, f->head, &match, &f->problem) < 0 ||
        bop__http_translate_body(&f->call, bytes(body), &f->problem) < 0) {
        return -1;
    }
    return f->call.route->op ? bop__http_encode(&f->call, &f->bytes, &f->problem) : 0;
}

#define CHECK_OP(head, body, wanted)                                                               \
    do {                                                                                           \
        CHECK_EQ(translate(f, head, body), 0);                                                     \
        CHECK_STR_EQ(f->problem.detail, "");                                                       \
        CHECK_EQ(f->call.operation.op, wanted);                                                    \
    } while (0)

#define CHECK_PROBLEM(head, body, wanted, part)                                                    \
    do {                                                                                           \
        CHECK_EQ(translate(f, head, body), -1);                                                    \
        CHECK_EQ(f->problem.kind, wanted);                                                         \
        CHECK_STR_HAS(f->problem.detail, part);                                                    \
    } while (0)

/* ---- Paths ---- */

TEST(path, gives_name_and_key_decoded)
{
    CHECK_OP("GET /v1/maps/shop%2Fcarts/entries/a/b%2Fc%00+%25 HTTP/1.1\r\n", "", BOP_OP_MAP_GET);
    CHECK_SLICE_EQ(f->call.operation.name, bytes("shop/carts"));
    CHECK_SLICE_EQ(f->call.operation.key, bop_slice("a/b/c\0+%", 8));
}

TEST(path, takes_the_empty_key)
{
    CHECK_OP("PUT /v1/maps/m/entries/ HTTP/1.1\r\n", "v", BOP_OP_MAP_PUT);
    CHECK_SLICE_EQ(f->call.operation.key, bytes(""));
    CHECK_SLICE_EQ(f->call.operation.value, bytes("v"));
    CHECK_OP("GET /v1/maps/m/entries HTTP/1.1\r\n", "", BOP_OP_MAP_RANGE);
}

TEST(path, refuses_what_is_no_name_or_key)
{
    char path[1200] = "GET /v1/maps/";
    size_t size = strlen(path);

    CHECK_PROBLEM("GET /v1/maps/%ff/entries/k HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "UTF-8");
    CHECK_PROBLEM("GET /v1/maps/%4/entries/k HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "the name");
    CHECK_PROBLEM("GET /v1/maps/m/entries/%zz HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "the key");
    CHECK_PROBLEM("GET /v1/maps//entries/k HTTP/1.1\r\n", "", HTTP_NO_ROUTE, "");
    memset(path + size, 'n', 256);
    memcpy(path + size + 256, " HTTP/1.1\r\n", sizeof(" HTTP/1.1\r\n"));
    CHECK_PROBLEM(path, "", HTTP_TOO_BIG, "255");
}

/* ---- Queries ---- */

TEST(query, gives_a_page_and_a_range)
{
    CHECK_OP("GET /v1/maps/m/entries?prefix=a+b&from=%ff&to=&limit=7&cursor=AP8 HTTP/1.1\r\n", "",
             BOP_OP_MAP_RANGE);
    CHECK_SLICE_EQ(f->call.operation.prefix, bytes("a b"));
    CHECK_SLICE_EQ(f->call.operation.from, bytes("\xff"));
    CHECK_SLICE_EQ(f->call.operation.to, bytes(""));
    CHECK_SLICE_EQ(f->call.operation.cursor, bop_slice("\0\xff", 2));
    CHECK_EQ(f->call.operation.limit, 7);
    CHECK(!f->call.stale);
    CHECK_OP("GET /v1/maps/m?consistency=stale HTTP/1.1\r\n", "", BOP_OP_MAP_SIZE);
    CHECK(f->call.stale);
}

TEST(query, refuses_what_means_nothing)
{
    CHECK_PROBLEM("GET /v1/maps/m/entries?limt=3 HTTP/1.1\r\n", "", HTTP_BAD_REQUEST,
                  "consistency, cursor, limit, prefix, from, to");
    CHECK_PROBLEM("GET /v1/maps/m/entries?limit=3&limit=3 HTTP/1.1\r\n", "", HTTP_BAD_REQUEST,
                  "limit is there twice");
    CHECK_PROBLEM("GET /v1/maps/m/entries?limit=0 HTTP/1.1\r\n", "", HTTP_BAD_REQUEST,
                  "1 to 10000");
    CHECK_PROBLEM("GET /v1/maps/m/entries?limit=10001 HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "limit");
    CHECK_PROBLEM("GET /v1/maps/m/entries?limit HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "limit");
    CHECK_PROBLEM("GET /v1/maps/m/entries?limit=-1 HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "limit");
    CHECK_PROBLEM("GET /v1/maps/m/entries?cursor=A HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "cursor");
    CHECK_PROBLEM("GET /v1/maps/m/entries?cursor=AP9 HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "cursor");
    CHECK_PROBLEM("GET /v1/maps/m/entries?prefix=%f HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "prefix");
    CHECK_PROBLEM("GET /v1/maps/m?consistency=eventual HTTP/1.1\r\n", "", HTTP_BAD_REQUEST,
                  "linearizable or stale");
    CHECK_PROBLEM("PUT /v1/maps/m/entries/k?consistency=stale HTTP/1.1\r\n", "", HTTP_BAD_REQUEST,
                  "no parameter");
    CHECK_PROBLEM("GET /v1/maps/m/entries/k?if_value=x HTTP/1.1\r\n", "", HTTP_BAD_REQUEST,
                  "for writes");
    CHECK_PROBLEM("GET /healthz?x HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "nor any other");
}

TEST(query, chooses_among_operations)
{
    CHECK_OP("GET /v1/multimaps/m HTTP/1.1\r\n", "", BOP_OP_MULTIMAP_SIZE);
    CHECK_OP("GET /v1/multimaps/m?key= HTTP/1.1\r\n", "", BOP_OP_MULTIMAP_KEY_SIZE);
    CHECK_OP("GET /v1/multimaps/m/contains?key=k HTTP/1.1\r\n", "", BOP_OP_MULTIMAP_CONTAINS_KEY);
    CHECK_OP("GET /v1/multimaps/m/contains?value= HTTP/1.1\r\n", "",
             BOP_OP_MULTIMAP_CONTAINS_VALUE);
    CHECK_OP("GET /v1/multimaps/m/contains?value=v&key=k HTTP/1.1\r\n", "",
             BOP_OP_MULTIMAP_CONTAINS_ENTRY);
    CHECK_PROBLEM("GET /v1/multimaps/m/contains HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "key, value");
    CHECK_OP("DELETE /v1/multimaps/m/keys/k HTTP/1.1\r\n", "", BOP_OP_MULTIMAP_REMOVE);
    CHECK_OP("DELETE /v1/multimaps/m/keys/k?value=v HTTP/1.1\r\n", "",
             BOP_OP_MULTIMAP_REMOVE_VALUE);
    CHECK_SLICE_EQ(f->call.operation.value, bytes("v"));
}

/* ---- Conditions ---- */

TEST(condition, is_what_the_headers_say)
{
    CHECK_OP("PUT /v1/maps/m/entries/k HTTP/1.1\r\nIf-Match: \"12\"\r\n", "", BOP_OP_MAP_PUT);
    CHECK_EQ(f->call.operation.condition, BOP_IF_VERSION);
    CHECK_EQ(f->call.operation.version, 12);
    CHECK_OP("PUT /v1/maps/m/entries/k HTTP/1.1\r\nIf-Match: *\r\n", "", BOP_OP_MAP_PUT);
    CHECK_EQ(f->call.operation.condition, BOP_IF_PRESENT);
    CHECK_OP("PUT /v1/maps/m/entries/k HTTP/1.1\r\nIf-None-Match: *\r\n", "", BOP_OP_MAP_PUT);
    CHECK_EQ(f->call.operation.condition, BOP_IF_ABSENT);
    CHECK_OP("PUT /v1/maps/m/entries/k?if_value=x%00 HTTP/1.1\r\n", "", BOP_OP_MAP_PUT);
    CHECK_EQ(f->call.operation.condition, BOP_IF_VALUE);
    CHECK_SLICE_EQ(f->call.operation.expected, bop_slice("x\0", 2));
    CHECK_OP("DELETE /v1/maps/m/entries/k HTTP/1.1\r\nIf-Match: \"18446744073709551615\"\r\n", "",
             BOP_OP_MAP_DELETE);
    CHECK_EQ(f->call.operation.version, UINT64_MAX);
}

TEST(condition, of_a_tag_that_is_no_version_matches_nothing)
{
    static const char *const tags[] = {
        "W/\"12\"", "\"\"", "\"abc\"", "\"-1\"", "\"012\"", "\"1 \"", "\"18446744073709551616\""};

    for (size_t n = 0; n < BOP_COUNT_OF(tags); n++) {
        char head[200];

        snprintf(head, sizeof(head), "PUT /v1/maps/m/entries/k HTTP/1.1\r\nIf-Match: %s\r\n",
                 tags[n]);
        CHECK_OP(head, "", BOP_OP_MAP_PUT);
        CHECK_EQ(f->call.operation.condition, BOP_IF_VERSION);
        CHECK_EQ(f->call.operation.version, 0);
    }
}

TEST(condition, refuses_what_it_cannot_be)
{
    CHECK_PROBLEM("PUT /v1/maps/m/entries/k HTTP/1.1\r\nIf-Match: \"1\", \"2\"\r\n", "",
                  HTTP_BAD_REQUEST, "If-Match");
    CHECK_PROBLEM("PUT /v1/maps/m/entries/k HTTP/1.1\r\nIf-Match: 1\r\n", "", HTTP_BAD_REQUEST,
                  "quotes");
    CHECK_PROBLEM("PUT /v1/maps/m/entries/k HTTP/1.1\r\nIf-None-Match: \"1\"\r\n", "",
                  HTTP_BAD_REQUEST, "only if there is none");
    CHECK_PROBLEM("PUT /v1/maps/m/entries/k HTTP/1.1\r\nIf-None-Match: *\r\nIf-Match: *\r\n", "",
                  HTTP_BAD_REQUEST, "at a time");
    CHECK_PROBLEM("PUT /v1/maps/m/entries/k?if_value=1 HTTP/1.1\r\nIf-Match: *\r\n", "",
                  HTTP_BAD_REQUEST, "at a time");
    CHECK_PROBLEM("PUT /v1/sets/s/members/k HTTP/1.1\r\nIf-None-Match: *\r\n", "", HTTP_BAD_REQUEST,
                  "not taken here");
}

/* ---- Bodies ---- */

TEST(body, of_counters_is_json)
{
    CHECK_OP("PUT /v1/counters/c HTTP/1.1\r\n", "{\"value\": -9223372036854775808}",
             BOP_OP_COUNTER_SET);
    CHECK_EQ(f->call.operation.number, INT64_MIN);
    CHECK_OP("PUT /v1/counters/c HTTP/1.1\r\n", "{\"expected\": 5, \"value\": 6}",
             BOP_OP_COUNTER_CAS);
    CHECK_EQ(f->call.operation.expected_number, 5);
    CHECK_EQ(f->call.operation.number, 6);
    CHECK_OP("POST /v1/counters/c/add HTTP/1.1\r\n", "{\"delta\":-2}", BOP_OP_COUNTER_ADD);
    CHECK_EQ(f->call.operation.delta, -2);
}

TEST(body, of_a_transaction_becomes_its_bytes)
{
    struct bop_slice compares, operations, one;
    struct bop_compare compare;
    struct bop_operation inner;

    CHECK_OP(
        "POST /v1/transactions HTTP/1.1\r\n",
        "{\"compare\":[{\"kind\":\"version\",\"name\":\"m\",\"key64\":\"/wD+\",\"is\":\"less\","
        "\"number\":7}],\"then\":[{\"op\":\"map.put\",\"name\":\"m\",\"key\":\"k\","
        "\"value\":\"v\",\"if\":\"absent\",\"ttl_ms\":5},{\"op\":\"counter.add\","
        "\"name\":\"c\",\"delta\":-1}]}",
        BOP_OP_TRANSACTION);
    compares = f->call.operation.compares;
    REQUIRE(bop_compare_next(&compares, &compare));
    CHECK_EQ(compare.kind, BOP_COMPARE_VERSION);
    CHECK_EQ(compare.relation, BOP_LESS);
    CHECK_SLICE_EQ(compare.key, bop_slice("\xff\0\xfe", 3));
    CHECK_EQ(compare.number, 7);
    operations = f->call.operation.then_items;
    REQUIRE(bop_transaction_next(&operations, &one));
    REQUIRE_EQ(bop_operation_decode(one, &inner), 0);
    CHECK_EQ(inner.op, BOP_OP_MAP_PUT_TTL);
    CHECK_EQ(inner.condition, BOP_IF_ABSENT);
    CHECK_EQ(inner.ttl_ms, 5);
    REQUIRE(bop_transaction_next(&operations, &one));
    REQUIRE_EQ(bop_operation_decode(one, &inner), 0);
    CHECK_EQ(inner.delta, -1);
    CHECK_EQ(f->call.operation.else_count, 0);
}

TEST(body, of_a_transaction_that_means_nothing_is_refused)
{
    static const char *const bodies[] = {
        "[]",
        "{\"when\":[]}",
        "{\"then\":{}}",
        "{\"then\":[7]}",
        "{\"then\":[{}]}",
        "{\"then\":[{\"op\":\"map.put\"}]}",
        "{\"then\":[{\"op\":\"transaction\",\"name\":\"m\"}]}",
        "{\"then\":[{\"op\":\"map.put\",\"name\":\"m\",\"key\":\"k\"}]}",
        "{\"then\":[{\"op\":\"map.put\",\"name\":\"\",\"key\":\"k\",\"value\":\"v\"}]}",
        "{\"then\":[{\"op\":\"map.get\",\"name\":\"m\",\"key\":\"k\",\"key64\":\"\"}]}",
        "{\"then\":[{\"op\":\"map.get\",\"name\":\"m\",\"key64\":\"?\"}]}",
        "{\"then\":[{\"op\":\"map.delete\",\"name\":\"m\",\"key\":\"k\",\"if\":\"maybe\"}]}",
        "{\"then\":[{\"op\":\"map.delete\",\"name\":\"m\",\"key\":\"k\",\"if\":{\"version\":-1}}]}",
        "{\"then\":[{\"op\":\"map.size\",\"name\":\"m\",\"key\":\"k\"}]}",
        "{\"compare\":[{\"kind\":\"age\",\"name\":\"m\"}]}",
        "{\"compare\":[{\"kind\":\"version\",\"name\":\"m\",\"is\":\"more\"}]}",
        "{\"compare\":[{\"kind\":\"version\"}]}",
    };

    for (size_t n = 0; n < BOP_COUNT_OF(bodies); n++) {
        CHECK_EQ(translate(f, "POST /v1/transactions HTTP/1.1\r\n", bodies[n]), -1);
        CHECK_EQ(f->problem.kind, HTTP_BAD_REQUEST);
    }
}

TEST(head, makes_a_write_a_sessions)
{
    CHECK_OP("PUT /v1/sets/s/members/m HTTP/1.1\r\nBOP-Session: 7\r\nBOP-Sequence: 2\r\n"
             "BOP-Acked: 1\r\n",
             "", BOP_OP_SET_ADD);
    CHECK_EQ(f->call.session, 7);
    CHECK_EQ(f->call.sequence, 2);
    CHECK_EQ(f->call.acked, 1);
    CHECK_PROBLEM("PUT /v1/sets/s/members/m HTTP/1.1\r\nBOP-Session: 7\r\n", "", HTTP_BAD_REQUEST,
                  "BOP-Sequence");
    CHECK_PROBLEM("GET /v1/sets/s HTTP/1.1\r\nBOP-Session: 7\r\nBOP-Sequence: 2\r\n", "",
                  HTTP_BAD_REQUEST, "single writes");
    CHECK_PROBLEM("POST /v1/sessions/x/alive HTTP/1.1\r\n", "", HTTP_BAD_REQUEST, "session");
}

TEST(body, that_means_nothing_is_refused)
{
    static const char *const bodies[] = {
        "",
        "7",
        "[]",
        "{",
        "{}",
        "{\"value\":1.5}",
        "{\"value\":\"1\"}",
        "{\"value\":9223372036854775808}",
        "{\"value\":1,\"value\":2}",
        "{\"value\":1,\"expected\":null}",
        "{\"value\":1,\"other\":2}",
        "{\"value\":1} x",
        "{\"value\":\"\xff\"}",
    };

    for (size_t n = 0; n < BOP_COUNT_OF(bodies); n++) {
        CHECK_EQ(translate(f, "PUT /v1/counters/c HTTP/1.1\r\n", bodies[n]), -1);
        CHECK_EQ(f->problem.kind, HTTP_BAD_REQUEST);
    }
    CHECK_PROBLEM("DELETE /v1/counters/c HTTP/1.1\r\n", "x", HTTP_BAD_REQUEST, "no body");
}

/* ---- Answers ---- */

/* The answer to a result of the operation, as text. */
static const char *answered(struct fixture *f, enum bop_op op, struct bop_result result)
{
    f->call.operation.op = op;
    REQUIRE_EQ(bop__http_answer_result(&f->answer, &f->call, &result), 0);
    REQUIRE_EQ(bop_buf_append(&f->answer.text, "", 1), 0);
    return (const char *)f->answer.text.data;
}

TEST(answer, looks_as_its_form_says)
{
    CHECK_STR_EQ(answered(f, BOP_OP_MAP_PUT, (struct bop_result){.version = 7}),
                 "{\"existed\":false,\"version\":7}");
    CHECK_EQ(f->answer.status, 201);
    CHECK_EQ(f->answer.version, 7);
    CHECK_STR_EQ(answered(f, BOP_OP_MAP_PUT, (struct bop_result){.version = 8, .existed = true}),
                 "{\"existed\":true,\"version\":8}");
    CHECK_EQ(f->answer.status, 200);
    CHECK_STR_EQ(answered(f, BOP_OP_SET_ADD, (struct bop_result){.existed = true}),
                 "{\"added\":true}");
    CHECK_EQ(f->answer.status, 201);
    CHECK_STR_EQ(answered(f, BOP_OP_MAP_CLEAR, (struct bop_result){.size = UINT64_MAX}),
                 "{\"removed\":18446744073709551615}");
    CHECK_STR_EQ(answered(f, BOP_OP_COUNTER_GET, (struct bop_result){.number = INT64_MIN}),
                 "{\"value\":-9223372036854775808}");
}

TEST(answer, gives_pages_of_any_bytes)
{
    const struct bop_scan_entry entries[] = {
        {.key = bytes("k\"\\\n\x01\x7f"), .version = 3, .value = bytes("v\xc3\xa4")},
        {.key = bytes("\xff\xfe"), .version = 4, .value = bytes("")},
    };
    struct bop_writer writer = bop_writer(&f->bytes);

    bop_scan_entry_encode(&writer, &entries[0]);
    bop_scan_entry_encode(&writer, &entries[1]);
    CHECK_STR_EQ(answered(f, BOP_OP_MAP_RANGE,
                          (struct bop_result){.revision = 9,
                                              .count = 2,
                                              .entries = bop_buf_slice(&f->bytes),
                                              .cursor = bytes("\xff\xff\xfe\xff")}),
                 "{\"revision\":9,\"entries\":["
                 "{\"key\":\"k\\\"\\\\\\n\\u0001\\u007f\",\"version\":3,\"value\":\"v\xc3\xa4\"},"
                 "{\"key64\":\"//4=\",\"version\":4,\"value\":\"\"}],\"cursor\":\"___-_w\"}");
    CHECK_STR_EQ(answered(f, BOP_OP_SET_SCAN, (struct bop_result){.revision = 9}),
                 "{\"revision\":9,\"members\":[]}");
}

TEST(answer, of_a_read_minds_its_conditions)
{
    struct bop_result result = {.version = 7, .value = bytes("v")};

    f->call.if_none_match = true;
    f->call.if_none_version = 7;
    CHECK_STR_EQ(answered(f, BOP_OP_MAP_GET, result), "");
    CHECK_EQ(f->answer.status, 304);
    f->call.if_none_version = 6;
    BOP_IGNORE(answered(f, BOP_OP_MAP_GET, result));
    CHECK_EQ(f->answer.status, 200);
    CHECK_SLICE_EQ(f->answer.content, bytes("v"));
    f->call.operation.condition = BOP_IF_VERSION;
    f->call.operation.version = 6;
    CHECK_STR_HAS(answered(f, BOP_OP_MAP_GET, result), "\"version\":7}");
    CHECK_EQ(f->answer.status, 412);
}

/* ---- Problems ---- */

TEST(problem, has_one_for_each_status)
{
    uint8_t status = BOP_STATUS_OK;

    while (strcmp(bop_status_text(++status), "unknown status") != 0) {
        enum http_problem_kind kind = bop__http_problem_of_status(status);

        CHECK(kind != HTTP_FAILED);
        for (uint8_t other = 1; other < status; other++) {
            CHECK(bop__http_problem_of_status(other) != kind);
        }
    }
    CHECK(status > BOP_STATUS_NO_VIEW);
    CHECK_EQ(bop__http_problem_of_status(255), HTTP_FAILED);
}

TEST(problem, is_whole_json_whatever_it_quotes)
{
    for (unsigned kind = HTTP_NO_PROBLEM + 1; kind < HTTP_PROBLEM_COUNT; kind++) {
        json_t *json;

        bop__http_problem(&f->problem, (enum http_problem_kind)kind, "\xff\"\n\\ %s", "quoted");
        REQUIRE_EQ(bop__http_answer_problem(&f->answer, &f->problem), 0);
        json = json_loadb((const char *)f->answer.content.data, f->answer.content.size, 0, NULL);
        CHECK_EQ(json_integer_value(json_object_get(json, "status")),
                 bop__http_problem_code((enum http_problem_kind)kind));
        CHECK_STR_HAS(json_string_value(json_object_get(json, "type")),
                      bop__http_problem_name((enum http_problem_kind)kind));
        CHECK(json_string_length(json_object_get(json, "title")) > 0);
        CHECK(json_string_length(json_object_get(json, "way_out")) > 0);
        CHECK_STR_EQ(json_string_value(json_object_get(json, "detail")), "?\"\n\\ quoted");
        json_decref(json);
    }
}

/* docs/errors.md has a row for each. */
TEST(problem, is_documented)
{
    const char *path = getenv("BOP_SOURCE_ROOT");
    char name[4096], row[128];
    char *text = NULL;
    size_t size = 0;
    FILE *file;

    if (!path) {
        TEST_SKIP("BOP_SOURCE_ROOT is not set");
    }
    snprintf(name, sizeof(name), "%s/docs/errors.md", path);
    file = fopen(name, "r");
    REQUIRE(file != NULL);
    REQUIRE(getdelim(&text, &size, '\0', file) > 0);
    fclose(file);
    for (unsigned kind = HTTP_NO_PROBLEM + 1; kind < HTTP_PROBLEM_COUNT; kind++) {
        snprintf(row, sizeof(row), "| `%s` | %u |",
                 bop__http_problem_name((enum http_problem_kind)kind),
                 bop__http_problem_code((enum http_problem_kind)kind));
        CHECK_STR_HAS(text, row);
    }
    free(text);
}

/* ---- base64 ---- */

TEST(base64, comes_back_as_it_went)
{
    uint8_t data[64];
    struct bop_buf back;

    bop_buf_init(&back, NULL, 0);
    for (size_t n = 0; n < sizeof(data); n++) {
        data[n] = (uint8_t)(n * 37 + 251);
    }
    for (size_t size = 0; size <= sizeof(data); size++) {
        for (int url = 0; url < 2; url++) {
            bop_buf_clear(&f->bytes);
            bop_buf_clear(&back);
            CHECK_EQ(bop__base64_encode(&f->bytes, bop_slice(data, size), url), 0);
            CHECK_EQ(bop__base64_decode(&back, bop_buf_slice(&f->bytes), url), 0);
            CHECK_SLICE_EQ(bop_buf_slice(&back), bop_slice(data, size));
        }
    }
    bop_buf_deinit(&back);
}

TEST(base64, has_one_text_for_each_value)
{
    static const char *const plain[] = {"A",    "AA",    "AAA",   "AB==",     "AAB=", "AA=A",
                                        "====", "AA\n=", " AAA=", "AAAA====", "AA-_", "AAA=AAAA"};
    static const char *const url[] = {"A", "AB", "AAB", "AA==", "AA+/", "AA\n", "AAAAA"};

    for (size_t n = 0; n < BOP_COUNT_OF(plain); n++) {
        CHECK_EQ(bop__base64_decode(&f->bytes, bytes(plain[n]), false), BOP_EMALFORMED);
    }
    for (size_t n = 0; n < BOP_COUNT_OF(url); n++) {
        CHECK_EQ(bop__base64_decode(&f->bytes, bytes(url[n]), true), BOP_EMALFORMED);
    }
    CHECK_EQ(f->bytes.size, 0);
}

/* ---- Watches ---- */

/* What the hub would be asked. */
static int watch(struct fixture *f, const char *query, struct bop_watch_open_request *out)
{
    char head[4096];

    snprintf(head, sizeof(head), "GET /v1/watch?%s HTTP/1.1\r\n", query);
    return translate(f, head, "") < 0
               ? -1
               : bop__http_watch_request(&f->call, &f->call.watch, out, &f->problem);
}

static int message(struct fixture *f, const char *text, struct http_watch_message *out,
                   struct bop_watch_open_request *out_open)
{
    bop_arena_reset(&f->arena);
    f->call = (struct http_call){.arena = &f->arena};
    if (bop__http_take_watch_message(&f->call, bytes(text), out, &f->problem) < 0) {
        return -1;
    }
    return out->kind == WATCH_MESSAGE_OPEN
               ? bop__http_watch_request(&f->call, &out->watch, out_open, &f->problem)
               : 0;
}

TEST(watch, is_of_what_the_query_says)
{
    struct bop_watch_open_request open;

    CHECK_EQ(watch(f, "kind=map&name=a%2Fm&key=k&revision=7&previous=true&timeout_ms=9", &open), 0);
    CHECK_EQ(open.what, BOP_WATCH_MAP);
    CHECK_SLICE_EQ(open.name, bytes("a/m"));
    CHECK_SLICE_EQ(open.from, bytes("k"));
    CHECK_SLICE_EQ(open.to, bop_slice("k", 2));
    CHECK_EQ(open.revision, 7);
    CHECK_EQ(open.flags, BOP_WATCH_PREVIOUS);
    CHECK_EQ(f->call.watch.timeout_ms, 9);
    CHECK_EQ(watch(f, "kind=set&name=s&prefix=p&from=q&to=%ff", &open), 0);
    CHECK_SLICE_EQ(open.prefix, bytes("p"));
    CHECK_SLICE_EQ(open.from, bytes("q"));
    CHECK_SLICE_EQ(open.to, bytes("\xff"));
    CHECK_EQ(f->call.watch.timeout_ms, HTTP_WATCH_MS);
    CHECK_EQ(watch(f, "kind=map&name=m&key=", &open), 0);
    CHECK_SLICE_EQ(open.from, bytes(""));
    CHECK_SLICE_EQ(open.to, bop_slice("", 1));
    CHECK_EQ(watch(f, "kind=session&session=258", &open), 0);
    CHECK_SLICE_EQ(open.from, bop_slice("\0\0\0\0\0\0\1\2", 8));
    CHECK_SLICE_EQ(open.to, bop_slice("\0\0\0\0\0\0\1\2", 9));
    CHECK_EQ(watch(f, "kind=names&of=set", &open), 0);
    CHECK_SLICE_EQ(open.prefix, bytes("\2"));
    CHECK_EQ(watch(f, "kind=names&of=map&prefix=a%2F&from=b&to=c", &open), 0);
    CHECK_SLICE_EQ(open.prefix, bytes("\1a/"));
    CHECK_SLICE_EQ(open.from, bytes("\1b"));
    CHECK_SLICE_EQ(open.to, bytes("\1c"));
    CHECK_EQ(watch(f, "kind=names&of=map&key=m", &open), 0);
    CHECK_SLICE_EQ(open.from, bytes("\1m"));
    CHECK_SLICE_EQ(open.to, bop_slice("\1m", 3));
}

TEST(watch, refuses_what_makes_no_sense)
{
    static const char *const queries[][2] = {
        {"", "kind is"},
        {"kind=thing&name=m", "no such kind"},
        {"kind=map", "name must be there"},
        {"kind=names&name=m", "has no name"},
        {"kind=map&name=m&key=a&prefix=b", "give key, or"},
        {"kind=counter&name=c&key=a", "no keys"},
        {"kind=session&prefix=a", "no keys"},
        {"kind=map&name=m&session=7", "session is for"},
        {"kind=map&name=m&of=map", "of is for"},
        {"kind=names&of=names", "of is for"},
        {"kind=names&of=no", "of is a kind"},
        {"kind=names&key=m", "give of"},
        {"kind=map&name=m&previous=yes", "true or false"},
        {"kind=map&name=m&timeout_ms=300001", "timeout_ms"},
        {"kind=map&name=m&revision=-1", "revision"},
        {"kind=map&name=m&snapshot=true", "there is no parameter"},
        {"kind=map&name=%ff", "UTF-8"},
    };
    struct bop_watch_open_request open;

    for (size_t n = 0; n < BOP_COUNT_OF(queries); n++) {
        CHECK_EQ(watch(f, queries[n][0], &open), -1);
        CHECK_EQ(f->problem.kind, HTTP_BAD_REQUEST);
        CHECK_STR_HAS(f->problem.detail, queries[n][1]);
    }
}

TEST(watch, messages_say_the_same)
{
    struct bop_watch_open_request open;
    struct http_watch_message got;

    CHECK_EQ(
        message(f,
                "{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"key64\":\"/w==\",\"previous\":true,"
                "\"progress\":true,\"snapshot\":false,\"revision\":7},\"id\":4294967295}",
                &got, &open),
        0);
    CHECK_EQ(got.id, UINT32_MAX);
    CHECK_SLICE_EQ(open.from, bytes("\xff"));
    CHECK_EQ(open.flags, BOP_WATCH_PREVIOUS | BOP_WATCH_PROGRESS);
    CHECK_EQ(open.revision, 7);
    CHECK_EQ(message(f,
                     "{\"id\":1,\"open\":{\"kind\":\"names\",\"of\":\"lock\",\"snapshot\":true}}",
                     &got, &open),
             0);
    CHECK_EQ(open.flags, BOP_WATCH_SNAPSHOT);
    CHECK_SLICE_EQ(open.prefix, bytes("\5"));
    CHECK_EQ(message(f, "{\"close\":3}", &got, &open), 0);
    CHECK_EQ(got.kind, WATCH_MESSAGE_CLOSE);
    CHECK_EQ(got.id, 3);
    CHECK_EQ(message(f, "{\"ack\":9,\"mark\":true}", &got, &open), 0);
    CHECK_EQ(got.kind, WATCH_MESSAGE_ACK);
    CHECK_EQ(got.ack.revision, 9);
    CHECK_EQ(got.ack.flags, BOP_WATCH_ACK_MARK);
}

TEST(watch, refuses_messages_that_make_no_sense)
{
    static const char *const messages[][2] = {
        {"", "no JSON"},
        {"[]", "no JSON"},
        {"{}", "ack"},
        {"{\"open\":{\"kind\":\"map\",\"name\":\"m\"}}", "id"},
        {"{\"open\":{\"kind\":\"map\",\"name\":\"m\"},\"id\":0}", "at least 1"},
        {"{\"open\":7,\"id\":1}", "an object"},
        {"{\"open\":{\"name\":\"m\"},\"id\":1}", "kind"},
        {"{\"open\":{\"kind\":\"map\",\"name\":7},\"id\":1}", "name"},
        {"{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"x\":1},\"id\":1}", "mean nothing"},
        {"{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"key\":\"\",\"key64\":\"\"},\"id\":1}",
         "key"},
        {"{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"previous\":1},\"id\":1}", "true or false"},
        {"{\"open\":{\"kind\":\"map\",\"name\":\"m\",\"snapshot\":true,\"revision\":1},\"id\":1}",
         "snapshot"},
        {"{\"open\":{\"kind\":\"session\",\"snapshot\":true},\"id\":1}", "snapshot"},
        {"{\"close\":4294967296}", "out of range"},
        {"{\"close\":1,\"id\":1}", "mean nothing"},
    };
    struct bop_watch_open_request open;
    struct http_watch_message got;

    for (size_t n = 0; n < BOP_COUNT_OF(messages); n++) {
        CHECK_EQ(message(f, messages[n][0], &got, &open), -1);
        CHECK_EQ(f->problem.kind, HTTP_BAD_REQUEST);
        CHECK_STR_HAS(f->problem.detail, messages[n][1]);
    }
}

static void add_event(struct bop_buf *events, struct bop_event event)
{
    struct bop_writer writer = bop_writer(events);

    bop_event_encode(&writer, &event);
    CHECK_EQ(writer.code, 0);
}

static void check_event(struct fixture *f, struct bop_event event, const char *wanted)
{
    struct http_json json = bop__http_json(&f->bytes);
    struct bop_buf events;

    bop_buf_init(&events, NULL, 0);
    bop_buf_clear(&f->bytes);
    add_event(&events, event);
    bop__json_events(&json, bop_buf_slice(&events));
    CHECK_EQ(json.code, 0);
    CHECK_SLICE_EQ(bop_buf_slice(&f->bytes), bytes(wanted));
    bop_buf_deinit(&events);
}

TEST(watch, tells_events_as_json)
{
    check_event(f,
                (struct bop_event){.type = BOP_EVENT_MAP_PUT,
                                   .flags = BOP_EVENT_HAD_PREVIOUS,
                                   .name = bytes("m"),
                                   .key = bytes("k"),
                                   .value = bytes("\xff"),
                                   .previous = bytes("p")},
                "{\"type\":\"map.put\",\"name\":\"m\",\"key\":\"k\",\"value64\":\"/w==\","
                "\"previous\":\"p\"}");
    check_event(f,
                (struct bop_event){.type = BOP_EVENT_MAP_DELETE,
                                   .flags = BOP_EVENT_HAD_PREVIOUS | BOP_EVENT_NO_PREVIOUS |
                                            BOP_EVENT_EXPIRED,
                                   .name = bytes("m"),
                                   .key = bytes("")},
                "{\"type\":\"map.delete\",\"name\":\"m\",\"key\":\"\",\"had_previous\":true,"
                "\"expired\":true}");
    check_event(f,
                (struct bop_event){.type = BOP_EVENT_SET_ADD,
                                   .flags = BOP_EVENT_SNAPSHOT,
                                   .name = bytes("s"),
                                   .key = bytes("k"),
                                   .number = 9},
                "{\"type\":\"set.add\",\"name\":\"s\",\"member\":\"k\",\"version\":9}");
    check_event(
        f,
        (struct bop_event){.type = BOP_EVENT_COUNTER_SET, .name = bytes("c"), .number = INT64_MIN},
        "{\"type\":\"counter.set\",\"name\":\"c\",\"value\":-9223372036854775808}");
    check_event(
        f,
        (struct bop_event){.type = BOP_EVENT_LOCK_GRANT,
                           .name = bytes("l"),
                           .value = bytes("me"),
                           .session = 3,
                           .number = 4,
                           .token = 5},
        "{\"type\":\"lock.grant\",\"name\":\"l\",\"label\":\"me\",\"ticket\":4,\"session\":3,"
        "\"token\":5}");
    check_event(
        f,
        (struct bop_event){.type = BOP_EVENT_SESSION_END, .flags = BOP_EVENT_EXPIRED, .session = 3},
        "{\"type\":\"session.end\",\"session\":3,\"expired\":true}");
}

/* ---- The table and the document ---- */

TEST(routes, of_operations_have_a_form)
{
    size_t count;
    const struct http_route *routes = bop__http_routes(&count);

    for (size_t n = 0; n < count; n++) {
        CHECK((routes[n].op != 0) || (routes[n].serve != NULL));
        CHECK(routes[n].op == 0 || bop__http_form(routes[n].op) != NULL);
        if (routes[n].op != 0) {
            CHECK_EQ(routes[n].right,
                     bop_op_is_write(routes[n].op) ? HTTP_RIGHT_WRITE : HTTP_RIGHT_READ);
        }
        CHECK(strncmp(routes[n].path, "/debug", 6) != 0 || routes[n].right == HTTP_RIGHT_ADMIN);
    }
}

static json_t *document(void)
{
    json_error_t trouble;
    json_t *json = json_loadb((const char *)bop__openapi_json, bop__openapi_json_size,
                              JSON_REJECT_DUPLICATES, &trouble);

    REQUIRE(json != NULL);
    return json;
}

TEST(openapi, has_each_route)
{
    json_t *json = document();
    size_t count;
    const struct http_route *routes = bop__http_routes(&count);

    for (size_t n = 0; n < count; n++) {
        json_t *path = json_object_get(json_object_get(json, "paths"), routes[n].path);
        char method[16] = "";

        for (size_t at = 0; routes[n].method[at] && at + 1 < sizeof(method); at++) {
            method[at] = (char)(routes[n].method[at] | 0x20);
        }
        if (!json_object_get(path, method)) {
            test_note("%s %s is not in docs/openapi.json", method, routes[n].path);
        }
        CHECK(json_object_get(path, method) != NULL);
    }
    json_decref(json);
}

TEST(openapi, has_nothing_that_is_not_served)
{
    json_t *json = document();
    const char *path, *method;
    json_t *methods, *operation;
    size_t count;
    const struct http_route *routes = bop__http_routes(&count);

    json_object_foreach(json_object_get(json, "paths"), path, methods)
    {
        json_object_foreach(methods, method, operation)
        {
            bool found = false;

            for (size_t n = 0; n < count && !found; n++) {
                found = strcmp(path, routes[n].path) == 0 &&
                        strcasecmp(method, routes[n].method) == 0;
            }
            if (!found) {
                test_note("%s %s is not served", method, path);
            }
            CHECK(found);
        }
    }
    json_decref(json);
}

/* Parameters of the document are those that the route takes, and the other way round. */
TEST(openapi, names_each_parameter)
{
    static const struct {
        unsigned takes;
        const char *reference;
    } parameters[] = {
        {TAKES_PAGE, "cursor"},
        {TAKES_PAGE, "limit"},
        {TAKES_RANGE | TAKES_PREFIX | TAKES_WATCH, "prefix"},
        {TAKES_RETURN, "return"},
        {TAKES_SEQUENCE, "sequence"},
        {TAKES_RANGE | TAKES_WATCH, "from"},
        {TAKES_RANGE | TAKES_WATCH, "to"},
        {TAKES_KEY_QUERY | TAKES_WATCH | TAKES_SETTLE, "keyQuery"},
        {TAKES_VALUE_QUERY, "valueQuery"},
        {TAKES_CONDITION, "ifMatch"},
        {TAKES_SAMPLE, "sampleBytes"},
        {TAKES_WATCH | TAKES_SETTLE, "watchKind"},
        {TAKES_WATCH, "watchOf"},
        {TAKES_WATCH | TAKES_SETTLE, "watchName"},
        {TAKES_SETTLE, "settleTimeoutMs"},
        {TAKES_WATCH, "watchSession"},
        {TAKES_WATCH, "revision"},
        {TAKES_WATCH, "previous"},
        {TAKES_WATCH, "timeoutMs"},
    };
    json_t *json = document();
    size_t count;
    const struct http_route *routes = bop__http_routes(&count);

    for (size_t n = 0; n < count; n++) {
        char method[16] = "";
        json_t *list;

        for (size_t at = 0; routes[n].method[at] && at + 1 < sizeof(method); at++) {
            method[at] = (char)(routes[n].method[at] | 0x20);
        }
        list = json_object_get(
            json_object_get(json_object_get(json_object_get(json, "paths"), routes[n].path),
                            method),
            "parameters");
        for (size_t p = 0; p < BOP_COUNT_OF(parameters); p++) {
            char wanted[64];
            bool found = false;

            snprintf(wanted, sizeof(wanted), "#/components/parameters/%s", parameters[p].reference);
            for (size_t i = 0; i < json_array_size(list); i++) {
                found |= strcmp(json_string_value(json_object_get(json_array_get(list, i), "$ref")),
                                wanted) == 0;
            }
            if (found != ((routes[n].takes & parameters[p].takes) != 0)) {
                test_note("%s %s: %s", method, routes[n].path, parameters[p].reference);
            }
            CHECK_EQ(found, (routes[n].takes & parameters[p].takes) != 0);
        }
    }
    json_decref(json);
}
