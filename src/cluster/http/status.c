/*
 * What the node knows of itself and its cluster: /v1/status, /v1/cluster,
 * /debug/state, and /metrics.
 */
#include <inttypes.h>

#include <bop/mem.h>

#include "status.h"

/* Text of Prometheus' exposition format; the version is the format's. */
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

const char *bop__http_state_name(uint8_t state)
{
    static const char *const names[] = {
        [BOP_RAFT_UNAVAILABLE] = "unavailable",
        [BOP_RAFT_FOLLOWER] = "follower",
        [BOP_RAFT_CANDIDATE] = "candidate",
        [BOP_RAFT_LEADER] = "leader",
    };

    return state < BOP_COUNT_OF(names) && names[state] ? names[state] : "unknown";
}

static const char *role_name(uint8_t role)
{
    static const char *const names[] = {
        [BOP_RAFT_VOTER] = "voter",
        [BOP_RAFT_STANDBY] = "standby",
        [BOP_RAFT_SPARE] = "spare",
    };

    return role < BOP_COUNT_OF(names) && names[role] ? names[role] : "unknown";
}

void bop__http_status(struct http_api *api, struct bop_status_response *out)
{
    bop__service_status(api->backend.service, out);
}

/* ---- As JSON ---- */

static void write_server(struct http_json *json, const struct bop_status_peer *peer, bool leads)
{
    bop__json_open(json, NULL, '{');
    bop__json_u64(json, "id", peer->id);
    bop__json_text(json, "address", peer->address);
    bop__json_text(json, "role", bop_slice_cstr(role_name(peer->role)));
    bop__json_bool(json, "connected", peer->connected);
    if (leads) {
        bop__json_u64(json, "match", peer->match);
    }
    if (peer->silent_ms != UINT64_MAX) {
        bop__json_u64(json, "silent_ms", peer->silent_ms);
    }
    bop__json_close(json, '}');
}

/* The servers as this node knows them. */
static void write_cluster(struct http_json *json, const struct bop_status_response *status)
{
    bop__json_text(json, "cluster", status->cluster);
    bop__json_u64(json, "leader", status->leader);
    bop__json_u64(json, "term", status->term);
    bop__json_open(json, "servers", '[');
    for (unsigned n = 0; n < status->peer_count; n++) {
        write_server(json, &status->peers[n], status->leader == status->node);
    }
    bop__json_close(json, ']');
}

static void write_node(struct http_json *json, const struct bop_status_response *status)
{
    static const struct {
        const char *name;
        size_t offset;
    } numbers[] = {
#define NUMBER(field) {#field, offsetof(struct bop_status_response, field)}
        NUMBER(node),           NUMBER(term),
        NUMBER(leader),         NUMBER(commit),
        NUMBER(applied),        NUMBER(first_index),
        NUMBER(last_index),     NUMBER(durable_index),
        NUMBER(snapshot_index), NUMBER(sessions),
        NUMBER(clients),        NUMBER(uptime_ms),
        NUMBER(resident_bytes), NUMBER(committed_bytes),
#undef NUMBER
    };

    bop__json_text(json, "version", status->version);
    bop__json_text(json, "health", status->health);
    bop__json_text(json, "state", bop_slice_cstr(bop__http_state_name(status->state)));
    for (size_t n = 0; n < BOP_COUNT_OF(numbers); n++) {
        bop__json_u64(json, numbers[n].name,
                      bop_load_u64((const uint8_t *)status + numbers[n].offset));
    }
}

static void write_log(struct http_json *json, const struct bop_status_response *status)
{
    bop__json_open(json, "log", '{');
    bop__json_text(json, "method", status->log_method);
    bop__json_u64(json, "writes", status->log_writes);
    bop__json_u64(json, "writes_max", status->log_writes_max);
    bop__json_close(json, '}');
}

static void write_memory(struct http_json *json, const struct bop_status_response *status)
{
    bop__json_open(json, "memory", '{');
    for (unsigned n = 0; n < status->tag_count; n++) {
        const struct bop_status_tag *tag = &status->tags[n];
        char name[BOP_TAG_NAME_MAX + 1] = "";

        memcpy(name, tag->name.data, bop_min_u64(tag->name.size, sizeof(name) - 1));
        bop__json_open(json, name, '{');
        bop__json_u64(json, "live_bytes", tag->live_bytes);
        bop__json_u64(json, "peak_bytes", tag->peak_bytes);
        bop__json_u64(json, "live_allocations", tag->live_allocations);
        bop__json_u64(json, "allocations", tag->allocations);
        bop__json_u64(json, "limit_bytes", tag->limit_bytes);
        bop__json_close(json, '}');
    }
    bop__json_close(json, '}');
}

static void write_http(struct http_json *json, const struct http_api *api)
{
    struct bop_http_counters counters = bop_http_counters(api->server);

    bop__json_open(json, "http", '{');
    bop__json_u64(json, "connections", counters.connections_now);
    bop__json_u64(json, "requests", counters.requests);
    bop__json_u64(json, "requests_now", api->requests);
    bop__json_u64(json, "body_bytes_now", api->body_bytes);
    bop__json_u64(json, "malformed", counters.malformed);
    bop__json_u64(json, "timeouts", counters.timeouts);
    bop__json_u64(json, "aborted", counters.aborted);
    bop__json_close(json, '}');
}

void bop__http_serve_status(struct http_request *request)
{
    struct http_json json = bop__http_json(&request->answer.text);
    struct bop_status_response status;

    bop__http_status(request->api, &status);
    bop__json_open(&json, NULL, '{');
    write_node(&json, &status);
    write_log(&json, &status);
    bop__json_close(&json, '}');
    bop__http_send_text(request, "application/json", json.code);
}

void bop__http_serve_cluster(struct http_request *request)
{
    struct http_json json = bop__http_json(&request->answer.text);
    struct bop_status_response status;

    bop__http_status(request->api, &status);
    bop__json_open(&json, NULL, '{');
    write_cluster(&json, &status);
    bop__json_close(&json, '}');
    bop__http_send_text(request, "application/json", json.code);
}

void bop__http_serve_state(struct http_request *request)
{
    struct http_json json = bop__http_json(&request->answer.text);
    struct bop_status_response status;
    char digest[17];

    bop__http_status(request->api, &status);
    bop__json_open(&json, NULL, '{');
    write_node(&json, &status);
    /* In hexadecimal: many a reader of JSON has no whole numbers as large as that. */
    snprintf(digest, sizeof(digest), "%016" PRIx64, status.applied_digest);
    bop__json_text(&json, "applied_digest", bop_slice_cstr(digest));
    write_log(&json, &status);
    bop__json_open(&json, "raft", '{');
    write_cluster(&json, &status);
    bop__json_close(&json, '}');
    write_http(&json, request->api);
    bop__json_text(&json, "loop",
                   bop_slice_cstr(bop_loop_backend_name(request->api->options.loop)));
    write_memory(&json, &status);
    bop__json_close(&json, '}');
    bop__http_send_text(request, "application/json", json.code);
}

/* ---- Metrics ---- */

/* The memory's own writer wants a stream. */
static int append_memory(struct bop_buf *out)
{
    static _Thread_local struct bop_mem_stats stats; /* Large; the loop's thread alone comes by. */
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    int rc;

    if (!stream) {
        return BOP_ENOMEM;
    }
    bop_mem_stats(&stats);
    rc = bop_mem_stats_prometheus(&stats, stream);
    if (fclose(stream) != 0 && rc == 0) {
        rc = BOP_ENOMEM;
    }
    if (rc == 0) {
        rc = bop_buf_append(out, text, size);
    }
    free(text);
    return rc;
}

void bop__http_serve_metrics(struct http_request *request)
{
    struct bop_buf *text = &request->answer.text;
    struct bop_metrics *metrics = request->api->options.metrics;
    int rc = 0;

    if (metrics) {
        /* Once more, so that this very second's counts are in it. */
        rc = bop_http_metrics(request->api->server, metrics, NULL);
    }
    if (rc == 0 && metrics) {
        rc = bop_metrics_write(metrics, text);
    }
    if (rc == 0) {
        rc = append_memory(text);
    }
    bop__http_send_text(request, METRICS_TYPE, rc);
}
