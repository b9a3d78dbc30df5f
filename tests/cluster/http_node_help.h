/*
 * A real node of one whose HTTP API is asked over loopback, on the loop of the test.
 */
#ifndef TEST_HTTP_NODE_HELP_H
#define TEST_HTTP_NODE_HELP_H

#include <stdio.h>

#include <bop/http_client.h>
#include <bop/log.h>
#include <bop/node.h>

#include "http/http.h"

#include "tap.h"

#define TURN_MS 20
#define TURNS   3000 /* A minute, for a machine that is busy. */

/* An answer, as it came. */
struct got {
    bool done;
    int code;
    unsigned status;
    char type[64];
    char etag[32];
    char allow[128];
    char retry[8];
    char challenge[32];
    char ttl[32];
    struct bop_buf body;
};

struct fixture {
    struct bop_loop *loop;
    struct bop_metrics *metrics;
    struct bop_log log;
    struct bop_node *node;
    struct bop_http_client *client;
    const char *data;
    const char *token; /* Sent with each request; NULL: none. */
    uint64_t session;  /* Whose writes are numbered and sent as its; 0: none. */
    uint64_t sequence; /* Of the last one. UINT64_MAX: no headers. */
    char session_token[64];
    struct got got;
    char url[128];
};

static inline void log_nothing(struct bop_log *self, enum bop_log_level level, const char *module,
                               const char *message)
{
}

static inline void on_failed(void *user, int code, const char *message)
{
    test_note("the node failed: %s", message);
    CHECK_EQ(code, 0);
}

static inline void start_node(struct fixture *f, const struct bop_node_token *tokens, size_t count)
{
    struct bop_error err = {0};
    struct bop_node_options options = {
        .loop = f->loop,
        .log = &f->log,
        .metrics = f->metrics,
        .data = f->data,
        .id = 1,
        .election_timeout_ms = 40,
        .heartbeat_ms = 10,
        .http_host = "127.0.0.1",
        .state_bytes_max = 64 * 1024 * 1024,
        .segment_bytes = 1024 * 1024,
        .tokens = tokens,
        .token_count = count,
        .on_failed = on_failed,
        .user = f,
    };

    REQUIRE_EQ(bop_node_start(&options, &f->node, NULL, &err), 0);
    REQUIRE(bop_node_http_port(f->node) != 0);
    snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u", bop_node_http_port(f->node));
}

static inline void turn(struct fixture *f)
{
    REQUIRE_EQ(bop_loop_run_once(f->loop, TURN_MS), 0);
}

static inline void await_leader(struct fixture *f)
{
    struct bop_node_status status = {0};

    for (unsigned n = 0; n < TURNS && (status.state != BOP_RAFT_LEADER || status.applied == 0);
         n++) {
        turn(f);
        bop_node_status(f->node, &status);
    }
    REQUIRE_EQ(status.state, BOP_RAFT_LEADER);
}

static inline void setup(struct fixture *f)
{
    struct bop_http_client_options options = {0};

    f->data = test_path(NULL, "data");
    f->log = (struct bop_log){.level = BOP_LOG_INFO, .write = log_nothing};
    bop_buf_init(&f->got.body, NULL, 0);
    REQUIRE_EQ(bop_loop_create(NULL, &f->loop), 0);
    REQUIRE_EQ(bop_metrics_create(NULL, &f->metrics), 0);
    REQUIRE_EQ(bop_http_client_create(f->loop, &options, &f->client), 0);
}

static inline void teardown(struct fixture *f)
{
    bop_http_client_destroy(f->client);
    bop_node_destroy(f->node);
    bop_loop_destroy(f->loop);
    bop_metrics_destroy(f->metrics);
    bop_buf_deinit(&f->got.body);
}

FIXTURE(setup, teardown)

/* ---- Asking ---- */

static inline void keep(char *out, size_t size, struct bop_slice value)
{
    snprintf(out, size, "%.*s", (int)value.size, value.data ? (const char *)value.data : "");
}

static inline void on_head(struct bop_http_call *call, void *user, const struct bop_http_head *head)
{
    struct got *got = user;

    keep(got->type, sizeof(got->type), bop_http_known(head, BOP_HTTP_CONTENT_TYPE));
    keep(got->etag, sizeof(got->etag), bop_http_find(head, "ETag"));
    keep(got->allow, sizeof(got->allow), bop_http_find(head, "Allow"));
    keep(got->retry, sizeof(got->retry), bop_http_find(head, "Retry-After"));
    keep(got->ttl, sizeof(got->ttl), bop_http_find(head, "BOP-TTL-Ms"));
    keep(got->challenge, sizeof(got->challenge), bop_http_find(head, "WWW-Authenticate"));
}

static inline void on_done(struct bop_http_call *call, void *user,
                           const struct bop_http_result *result)
{
    struct got *got = user;

    got->done = true;
    got->code = result->code;
    got->status = result->status;
    CHECK_EQ(bop_buf_append(&got->body, result->body.data, result->body.size), 0);
    CHECK_EQ(bop_buf_append(&got->body, "", 1), 0); /* So that it can be compared as a string. */
    got->body.size--;
}

static inline void forget(struct got *got)
{
    struct bop_buf body = got->body;

    bop_buf_clear(&body);
    *got = (struct got){.body = body};
}

static inline void begin(struct fixture *f, const char *method, const char *path,
                         struct bop_slice body, const char *header, const char *value,
                         struct got *out)
{
    char url[16384], token[128], copy[128];
    char session[24], sequence[24];
    struct bop_http_header headers[4] = {0};
    struct bop_http_request request = {.method = method,
                                       .url = url,
                                       .body = body,
                                       .headers = headers,
                                       .on_head = on_head,
                                       .on_done = on_done,
                                       .user = out};

    if (header) {
        snprintf(copy, sizeof(copy), "%s", value); /* It may be of the answer that is forgotten. */
        headers[request.header_count++] = (struct bop_http_header){bytes(header), bytes(copy)};
    }
    if (f->token) {
        snprintf(token, sizeof(token), "Bearer %s", f->token);
        headers[request.header_count++] = (struct bop_http_header){bytes("Authorization"),
                                                                   bytes(token)};
    }
    if (f->session && f->sequence != UINT64_MAX) {
        snprintf(session, sizeof(session), "%" PRIu64, f->session);
        snprintf(sequence, sizeof(sequence), "%" PRIu64, ++f->sequence);
        headers[request.header_count++] = (struct bop_http_header){bytes("BOP-Session"),
                                                                   bytes(session)};
        headers[request.header_count++] = (struct bop_http_header){bytes("BOP-Sequence"),
                                                                   bytes(sequence)};
    }
    snprintf(url, sizeof(url), "%s%s", f->url, path);
    forget(out);
    REQUIRE_EQ(bop_http_fetch(f->client, &request, NULL, NULL), 0);
}

static inline void await(struct fixture *f, const struct got *got)
{
    for (unsigned n = 0; n < TURNS && !got->done; n++) {
        turn(f);
    }
    REQUIRE(got->done);
}

/* Ask and wait. Returns the status; the rest is in f->got. */
static inline unsigned ask_with(struct fixture *f, const char *method, const char *path,
                                const char *body, const char *header, const char *value)
{
    begin(f, method, path, bytes(body), header, value, &f->got);
    await(f, &f->got);
    CHECK_EQ(f->got.code, 0);
    return f->got.status;
}

static inline unsigned ask(struct fixture *f, const char *method, const char *path,
                           const char *body)
{
    return ask_with(f, method, path, body, NULL, NULL);
}

static inline const char *body_of(const struct fixture *f)
{
    return (const char *)f->got.body.data;
}

/* Begin, and wait until the cluster speaks of everything that its nodes know. */
static inline void start_led(struct fixture *f)
{
    unsigned status = 501;

    start_node(f, NULL, 0);
    await_leader(f);
    for (unsigned n = 0; n < TURNS && status == 501; n++) {
        status = ask(f, "POST", "/v1/transactions", "{}");
    }
    REQUIRE_EQ(status, 200);
}

#endif
