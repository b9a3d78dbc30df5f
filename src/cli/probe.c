/*
 * A client pinned to one address, and what it heard last.
 */
#include "probe.h"

#include "trust.h"

#include <stdio.h>

#include <bop/raft.h>

#define PROBE_OUTSTANDING_MAX 4

int probe_open(struct probe *probe, const struct probe_options *options, struct bop_error *err)
{
    const char *endpoint = probe->address;
    struct bop_client_options client_options = {
        .loop = options->loop,
        .endpoints = &endpoint,
        .endpoint_count = 1,
        .cluster = options->cluster,
        .name = "bop status",
        .request_timeout_ms = options->timeout_ms,
        .outstanding_max = PROBE_OUTSTANDING_MAX,
        .pin = true,
    };

    struct trust trust;
    int rc = 0;

    *probe = (struct probe){.code = 0};
    snprintf(probe->address, sizeof(probe->address), "%s", options->address);
    bop_buf_init(&probe->buf, NULL, 0);
    if (options->args) {
        rc = trust_options(options->args, &trust, &client_options, err);
    }
    return rc < 0 ? rc : bop_client_create(&client_options, &probe->client, err);
}

void probe_close(struct probe *probe)
{
    bop_client_destroy(probe->client);
    probe->client = NULL;
    if (probe->buf.data) {
        bop_buf_deinit(&probe->buf);
    }
    *probe = (struct probe){.code = 0};
}

static void note_trouble(struct probe *probe)
{
    struct bop_client_info info;

    if (probe->client) {
        bop_client_info(probe->client, &info);
        probe->trouble = probe->code == BOP_EDENIED ? info.denied : info.trouble;
    }
}

static void on_status(void *user, int code, const struct bop_status_response *status)
{
    struct probe *probe = (struct probe *)user;
    struct bop_writer writer = bop_writer(&probe->buf);

    probe->asking = false;
    probe->code = code;
    if (code < 0) {
        note_trouble(probe);
        return;
    }
    bop_buf_clear(&probe->buf);
    bop_status_response_encode(&writer, status);
    probe->code = writer.code;
    if (writer.code == 0) {
        probe->code = bop_status_response_decode(bop_buf_slice(&probe->buf), &probe->status);
    }
    probe->answered = probe->code == 0;
    if (probe->answered) {
        probe->node = probe->status.node;
        probe->heard_us = bop_clock_monotonic_us(bop_clock_system());
    }
}

void probe_ask(struct probe *probe)
{
    if (!probe->asking) {
        probe->code = bop_client_status(probe->client, on_status, probe);
        probe->asking = probe->code == 0;
    }
}

int probe_trouble(const struct probe *probe)
{
    struct bop_client_info info;

    bop_client_info(probe->client, &info);
    return info.ready ? 0 : info.trouble.code;
}

void probe_give_up(struct probe *probe, int code)
{
    note_trouble(probe);
    bop_client_destroy(probe->client);
    probe->client = NULL;
    probe->code = code;
}

const struct probe *probe_leader(const struct probe *probes, size_t count)
{
    const struct probe *leader = NULL;

    for (size_t i = 0; i < count; i++) {
        if (probes[i].answered && probes[i].status.state == BOP_RAFT_LEADER &&
            (!leader || probes[i].status.term > leader->status.term)) {
            leader = &probes[i];
        }
    }
    return leader;
}

const char *probe_state_text(uint8_t state)
{
    static const char *const texts[] = {
        [BOP_RAFT_UNAVAILABLE] = "unavailable",
        [BOP_RAFT_FOLLOWER] = "follower",
        [BOP_RAFT_CANDIDATE] = "candidate",
        [BOP_RAFT_LEADER] = "leader",
    };

    return state < BOP_COUNT_OF(texts) ? texts[state] : "?";
}
