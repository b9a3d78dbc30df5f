/*
 * Parameters of this node that can be looked at, and most of them set, while it runs.
 *
 * What is set lasts until the node stops; what is to last goes into its
 * configuration. All of a request is set or nothing.
 */
#include "replica_internal.h"

#include <stdio.h>

#define VALUE_MAX 24

struct values {
    uint64_t election_timeout_ms;
    uint64_t heartbeat_ms;
    uint64_t inflight_entries;
    uint64_t snapshot_entries;
    uint64_t trailing_entries;
    uint64_t uncommitted_bytes;
    uint64_t send_bytes_s;
    uint64_t segment_bytes;
    uint64_t state_bytes_max;
};

struct param {
    const char *name;
    size_t at; /* In struct values. */
    uint64_t min;
    uint64_t max; /* 0: it cannot be set. */
    const char *about;
};

#define AT(field) #field, offsetof(struct values, field)

static const struct param params[] = {
    {AT(election_timeout_ms), 20, 60000,
     "silence of the leader after which a node stands for election; keep it alike on all nodes"},
    {AT(heartbeat_ms), 5, 20000,
     "how often a leader shows that it lives; below half of the election timeout"},
    {AT(inflight_entries), 1, 1000000, "entries a leader sends a node ahead of its answers"},
    {AT(snapshot_entries), 1, UINT64_C(1) << 40, "entries applied between two snapshots"},
    {AT(trailing_entries), 1, UINT64_C(1) << 40,
     "entries kept in the log below a snapshot, for nodes that lag"},
    {AT(uncommitted_bytes), 65536, UINT64_C(1) << 30,
     "bytes of writes a leader takes ahead of what is committed; then it answers BUSY"},
    {AT(send_bytes_s), 0, UINT64_C(1) << 40,
     "bytes a second that this node sends of snapshots and backups, all together; 0: no bound"},
    {AT(segment_bytes), 0, 0, "size of a file of the log"},
    {AT(state_bytes_max), 0, 0, "upper bound of the state on disk; 0: 64 GiB"},
};

static uint64_t *value_at(struct values *values, const struct param *param)
{
    return (uint64_t *)(void *)((char *)values + param->at);
}

static void collect(const struct replica *replica, struct values *out)
{
    const struct replica_options *options = &replica->options;

    *out = (struct values){
        .election_timeout_ms = options->election_timeout_ms,
        .heartbeat_ms = options->heartbeat_ms,
        .inflight_entries = options->inflight_entries,
        .snapshot_entries = options->snapshot_entries,
        .trailing_entries = options->trailing_entries,
        .uncommitted_bytes = options->uncommitted_bytes,
        .send_bytes_s = options->send_bytes_s,
        .segment_bytes = options->segment_bytes,
        .state_bytes_max = options->state_bytes_max,
    };
}

static int use(struct replica *replica, const struct values *values)
{
    struct bop_raft_options tuning = {
        .election_timeout_ms = (unsigned)values->election_timeout_ms,
        .heartbeat_ms = (unsigned)values->heartbeat_ms,
        .inflight_entries_max = (unsigned)values->inflight_entries,
    };
    struct replica_options *options = &replica->options;
    int rc = bop_raft_tune(replica->raft, &tuning);

    if (rc < 0) {
        return rc;
    }
    options->election_timeout_ms = tuning.election_timeout_ms;
    options->heartbeat_ms = tuning.heartbeat_ms;
    options->inflight_entries = tuning.inflight_entries_max;
    options->snapshot_entries = values->snapshot_entries;
    options->trailing_entries = values->trailing_entries;
    options->uncommitted_bytes = values->uncommitted_bytes;
    options->send_bytes_s = values->send_bytes_s;
    return 0;
}

static const struct param *find(struct bop_slice name)
{
    for (size_t n = 0; n < BOP_COUNT_OF(params); n++) {
        if (bop_slice_equal(name, bop_slice_cstr(params[n].name))) {
            return &params[n];
        }
    }
    return NULL;
}

static bool read_value(struct bop_slice text, uint64_t *out_value)
{
    uint64_t value = 0;

    if (text.size == 0 || text.size > 18) {
        return false;
    }
    for (size_t n = 0; n < text.size; n++) {
        if (text.data[n] < '0' || text.data[n] > '9') {
            return false;
        }
        value = value * 10 + (text.data[n] - (unsigned)'0');
    }
    *out_value = value;
    return true;
}

/* One of a request into values. Returns a code, with a sentence unless it is OK. */
static uint8_t take(const struct bop_admin_param *in, struct values *values,
                    char text[BOP_ADMIN_TEXT_MAX])
{
    const struct param *param = find(in->name);
    uint64_t value;

    if (!param) {
        snprintf(text, BOP_ADMIN_TEXT_MAX, "there is no parameter %.*s", (int)in->name.size,
                 (const char *)in->name.data);
        return BOP_ADMIN_BAD_REQUEST;
    }
    if (param->max == 0) {
        snprintf(text, BOP_ADMIN_TEXT_MAX,
                 "%s cannot be set while the node runs: set it in its configuration", param->name);
        return BOP_ADMIN_REFUSED;
    }
    if (!read_value(in->value, &value) || value < param->min || value > param->max) {
        snprintf(text, BOP_ADMIN_TEXT_MAX, "%s is a number from %" PRIu64 " to %" PRIu64,
                 param->name, param->min, param->max);
        return BOP_ADMIN_BAD_REQUEST;
    }
    *value_at(values, param) = value;
    return BOP_ADMIN_OK;
}

static uint8_t set_all(struct replica *replica, const struct bop_admin_params *set,
                       char text[BOP_ADMIN_TEXT_MAX])
{
    struct values values;
    uint8_t code = BOP_ADMIN_OK;
    int rc;

    collect(replica, &values);
    for (unsigned n = 0; n < set->count && code == BOP_ADMIN_OK; n++) {
        code = take(&set->params[n], &values, text);
    }
    if (code == BOP_ADMIN_OK && values.heartbeat_ms * 2 > values.election_timeout_ms) {
        snprintf(text, BOP_ADMIN_TEXT_MAX,
                 "heartbeat_ms is at most half of election_timeout_ms, which would be %" PRIu64,
                 values.election_timeout_ms);
        code = BOP_ADMIN_BAD_REQUEST;
    }
    if (code != BOP_ADMIN_OK || set->count == 0) {
        return code;
    }
    rc = use(replica, &values);
    if (rc < 0) {
        snprintf(text, BOP_ADMIN_TEXT_MAX, "the consensus engine refuses: %s", bop_strerror(rc));
        return BOP_ADMIN_REFUSED;
    }
    for (unsigned n = 0; n < set->count; n++) {
        bop_log(replica->options.log, BOP_LOG_INFO, "param", "set %.*s=%.*s",
                (int)set->params[n].name.size, (const char *)set->params[n].name.data,
                (int)set->params[n].value.size, (const char *)set->params[n].value.data);
    }
    return BOP_ADMIN_OK;
}

void bop__replica_params(struct replica *replica, const struct bop_admin_params *set,
                         struct bop_writer *out)
{
    char text[BOP_ADMIN_TEXT_MAX] = "", decimals[BOP_COUNT_OF(params)][VALUE_MAX];
    struct bop_admin_params response = {.node = replica->options.id};
    struct values values;

    response.code = set_all(replica, set, text);
    response.text = bop_slice_cstr(text);
    collect(replica, &values);
    for (size_t n = 0; n < BOP_COUNT_OF(params); n++) {
        snprintf(decimals[n], VALUE_MAX, "%" PRIu64, *value_at(&values, &params[n]));
        response.params[response.count++] = (struct bop_admin_param){
            .name = bop_slice_cstr(params[n].name),
            .value = bop_slice_cstr(decimals[n]),
            .live = params[n].max != 0,
            .about = bop_slice_cstr(params[n].about),
        };
    }
    bop_admin_params_response_encode(out, &response);
}
