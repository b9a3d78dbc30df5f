/*
 * bop status: every server that was named and every peer that one of them knows
 * is asked itself, so that the table shows what each node thinks, not what is
 * thought of it.
 */
#include <inttypes.h>

#include <jansson.h>

#include <bop/raft.h>

#include "cli.h"
#include "probe.h"
#include "progress.h"
#include "trust.h"

#define TIMEOUT_MS 2000
#define TURN_MS    10
#define PROBES_MAX (BOP_CLIENT_ENDPOINTS_MAX + BOP_STATUS_PEERS_MAX)

struct survey {
    const struct cli_args *args;
    struct bop_loop *loop;
    uint64_t timeout_ms;
    struct probe probes[PROBES_MAX];
    bool done[PROBES_MAX]; /* Answered, or given up. */
    size_t count;
    const struct probe *rows[PROBES_MAX]; /* One a node, in order. */
    size_t row_count;
};

/* What comes out of all answers. */
struct verdict {
    const struct probe *leader;
    unsigned voters;
    unsigned healthy; /* Of the voters: answer, are well, and follow the leader. */
    bool good;
};

/* ---- Asking ---- */

static int add_probe(struct survey *survey, const char *address, uint64_t node)
{
    struct probe_options options = {
        .loop = survey->loop,
        .address = address,
        .cluster = survey->args->cluster,
        .timeout_ms = survey->timeout_ms,
        .args = survey->args,
    };
    struct bop_error err = {0};
    int rc;

    if (survey->count == PROBES_MAX) {
        return CLI_OK;
    }
    rc = probe_open(&survey->probes[survey->count], &options, &err);
    if (rc < 0) {
        probe_close(&survey->probes[survey->count]);
        return cli_complain(rc == BOP_EINVAL ? CLI_USAGE : CLI_FAILED, "%s", err.message);
    }
    survey->probes[survey->count].node = node;
    probe_ask(&survey->probes[survey->count++]);
    return CLI_OK;
}

/* The probe of this address or this node, or NULL. */
static struct probe *find_probe(struct survey *survey, const char *address, uint64_t node)
{
    for (size_t i = 0; i < survey->count; i++) {
        if (strcmp(survey->probes[i].address, address) == 0 || survey->probes[i].node == node) {
            return &survey->probes[i];
        }
    }
    return NULL;
}

static void add_peers_of(struct survey *survey, const struct probe *probe)
{
    for (unsigned i = 0; i < probe->status.peer_count; i++) {
        const struct bop_status_peer *peer = &probe->status.peers[i];
        char address[BOP_ADDRESS_MAX + 1];
        struct probe *known;

        snprintf(address, sizeof(address), "%.*s", (int)peer->address.size,
                 (const char *)peer->address.data);
        known = find_probe(survey, address, peer->id);
        if (known && known->node == 0) {
            known->node = peer->id;
        } else if (!known && address[0]) {
            BOP_IGNORE(add_probe(survey, address, peer->id)); /* Said; the others go on. */
        }
    }
}

/* Look at what came in. Returns whether anything is still awaited. */
static bool advance(struct survey *survey)
{
    bool waiting = false;

    for (size_t i = 0; i < survey->count; i++) {
        struct probe *probe = &survey->probes[i];

        if (survey->done[i]) {
            continue;
        }
        if (probe->answered) {
            survey->done[i] = true;
            add_peers_of(survey, probe);
            waiting = true; /* For one turn more: peers may have been added behind us. */
        } else if (!probe->asking) {
            survey->done[i] = true;
        } else if (probe_trouble(probe) != 0) {
            probe_give_up(probe, probe_trouble(probe));
            survey->done[i] = true;
        } else {
            waiting = true;
        }
    }
    return waiting;
}

static int ask_all(struct survey *survey)
{
    int exit_code = CLI_OK;
    int rc = bop_loop_create(NULL, &survey->loop);

    if (rc < 0) {
        return cli_complain(CLI_FAILED, "create a loop: %s", bop_strerror(rc));
    }
    for (size_t i = 0; i < survey->args->server_count && exit_code == CLI_OK; i++) {
        if (!find_probe(survey, survey->args->servers[i].text, UINT64_MAX)) {
            exit_code = add_probe(survey, survey->args->servers[i].text, 0);
        }
    }
    while (exit_code == CLI_OK && advance(survey)) {
        rc = bop_loop_run_once(survey->loop, TURN_MS);
        if (rc < 0 && rc != -EINTR) {
            exit_code = cli_complain(CLI_FAILED, "wait for answers: %s", bop_strerror(rc));
        }
    }
    return exit_code;
}

/* ---- Sorting out ---- */

/* One node may have been asked by two addresses: the first one that answered counts. */
static bool is_double(const struct survey *survey, size_t i)
{
    const struct probe *probe = &survey->probes[i];

    for (size_t j = 0; j < survey->count && probe->node != 0; j++) {
        const struct probe *other = &survey->probes[j];

        if (j != i && other->node == probe->node && other->answered &&
            (j < i || !probe->answered)) {
            return true;
        }
    }
    return false;
}

/* Ascending by node; those of which nothing is known come last. */
static void make_rows(struct survey *survey)
{
    for (size_t i = 0; i < survey->count; i++) {
        const struct probe *probe = &survey->probes[i];
        size_t at = survey->row_count;

        if (is_double(survey, i)) {
            continue;
        }
        survey->row_count++;
        for (; at > 0 && probe->node - 1 < survey->rows[at - 1]->node - 1; at--) {
            survey->rows[at] = survey->rows[at - 1];
        }
        survey->rows[at] = probe;
    }
}

/* ---- Judging ---- */

static bool is_well(const struct probe *probe, const struct verdict *verdict)
{
    return probe->answered && bop_slice_equal(probe->status.health, bop_slice_cstr("ok")) &&
           verdict->leader && probe->status.leader == verdict->leader->status.node;
}

/* Whose list of servers counts: the leader's, else that of any that answers. */
static const struct probe *witness(const struct survey *survey, const struct verdict *verdict)
{
    const struct probe *found = verdict->leader;

    for (size_t i = 0; i < survey->count && !found; i++) {
        found = survey->probes[i].answered ? &survey->probes[i] : NULL;
    }
    return found;
}

static struct verdict judge(const struct survey *survey)
{
    struct verdict verdict = {.leader = probe_leader(survey->probes, survey->count)};
    const struct probe *from = witness(survey, &verdict);

    for (unsigned i = 0; from && i < from->status.peer_count; i++) {
        if (from->status.peers[i].role != BOP_RAFT_VOTER) {
            continue;
        }
        verdict.voters++;
        for (size_t j = 0; j < survey->row_count; j++) {
            verdict.healthy += survey->rows[j]->node == from->status.peers[i].id &&
                               is_well(survey->rows[j], &verdict);
        }
    }
    verdict.good = verdict.leader && verdict.healthy * 2 > verdict.voters;
    return verdict;
}

static uint64_t lag(const struct probe *probe, const struct verdict *verdict)
{
    uint64_t commit = verdict->leader ? verdict->leader->status.commit : 0;

    return commit > probe->status.applied ? commit - probe->status.applied : 0;
}

/* ---- Telling ---- */

static void print_head(const struct survey *survey, const struct verdict *verdict)
{
    const struct probe *from = witness(survey, verdict);

    if (!from) {
        return;
    }
    printf("cluster %.*s: ", (int)from->status.cluster.size,
           (const char *)from->status.cluster.data);
    if (verdict->leader) {
        printf("node %" PRIu64 " leads in term %" PRIu64, verdict->leader->status.node,
               verdict->leader->status.term);
    } else {
        printf("nobody leads");
    }
    printf("; %u of %u voters are well\n\n", verdict->healthy, verdict->voters);
}

static void print_row(const struct probe *probe, const struct verdict *verdict)
{
    char node[24] = "?", lag_text[24] = "?";

    if (probe->node != 0) {
        snprintf(node, sizeof(node), "%" PRIu64, probe->node);
    }
    if (!probe->answered) {
        printf("%-5s %-22s %-11s %6s %10s %10s %8s  %s\n", node, probe->address, "unreachable", "",
               "", "", "", bop_strerror(probe->code));
        return;
    }
    if (verdict->leader) {
        snprintf(lag_text, sizeof(lag_text), "%" PRIu64, lag(probe, verdict));
    }
    printf("%-5s %-22s %-11s %6" PRIu64 " %10" PRIu64 " %10" PRIu64 " %8s  %.*s\n", node,
           probe->address, probe_state_text(probe->status.state), probe->status.term,
           probe->status.commit, probe->status.applied, lag_text, (int)probe->status.health.size,
           (const char *)probe->status.health.data);
}

static void print_table(const struct survey *survey, const struct verdict *verdict)
{
    print_head(survey, verdict);
    printf("%-5s %-22s %-11s %6s %10s %10s %8s  %s\n", "NODE", "ADDRESS", "STATE", "TERM", "COMMIT",
           "APPLIED", "LAG", "HEALTH");
    for (size_t i = 0; i < survey->row_count; i++) {
        print_row(survey->rows[i], verdict);
    }
}

static json_t *json_of_slice(struct bop_slice text)
{
    return json_stringn(text.size > 0 ? (const char *)text.data : "", text.size);
}

static json_t *json_of_memory(const struct bop_status_response *status)
{
    json_t *tags = json_object();

    for (unsigned i = 0; i < status->tag_count; i++) {
        const struct bop_status_tag *tag = &status->tags[i];

        json_object_setn_new(
            tags, (const char *)tag->name.data, tag->name.size,
            json_pack("{s:I, s:I, s:I, s:I, s:I}", "live_bytes", (json_int_t)tag->live_bytes,
                      "peak_bytes", (json_int_t)tag->peak_bytes, "live_allocations",
                      (json_int_t)tag->live_allocations, "allocations",
                      (json_int_t)tag->allocations, "limit_bytes", (json_int_t)tag->limit_bytes));
    }
    return json_pack("{s:I, s:I, s:o}", "resident_bytes", (json_int_t)status->resident_bytes,
                     "committed_bytes", (json_int_t)status->committed_bytes, "tags", tags);
}

static json_t *json_of_probe(const struct probe *probe, const struct verdict *verdict)
{
    const struct bop_status_response *status = &probe->status;
    json_t *object = json_pack("{s:I, s:s, s:b}", "node", (json_int_t)probe->node, "address",
                               probe->address, "reachable", probe->answered);
    json_t *more;

    if (!object || !probe->answered) {
        if (object) {
            json_object_set_new(object, "trouble", json_string(bop_strerror(probe->code)));
        }
        return object;
    }
    more = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, "
        "s:o, s:{s:o, s:I, s:I}}",
        "state", probe_state_text(status->state), "term", (json_int_t)status->term, "leader",
        (json_int_t)status->leader, "commit", (json_int_t)status->commit, "applied",
        (json_int_t)status->applied, "lag",
        verdict->leader ? json_integer((json_int_t)lag(probe, verdict)) : json_null(),
        "first_index", (json_int_t)status->first_index, "last_index",
        (json_int_t)status->last_index, "durable_index", (json_int_t)status->durable_index,
        "snapshot_index", (json_int_t)status->snapshot_index, "sessions",
        (json_int_t)status->sessions, "clients", (json_int_t)status->clients, "uptime_ms",
        (json_int_t)status->uptime_ms, "health", json_of_slice(status->health), "version",
        json_of_slice(status->version), "memory", json_of_memory(status), "log", "method",
        json_of_slice(status->log_method), "writes", (json_int_t)status->log_writes, "writes_max",
        (json_int_t)status->log_writes_max);
    if (more) {
        json_object_update(object, more);
    }
    json_decref(more);
    return object;
}

static int print_json(const struct survey *survey, const struct verdict *verdict)
{
    const struct probe *from = witness(survey, verdict);
    json_t *nodes = json_array();
    json_t *object;
    int rc;

    for (size_t i = 0; i < survey->row_count; i++) {
        json_array_append_new(nodes, json_of_probe(survey->rows[i], verdict));
    }
    object = json_pack(
        "{s:o, s:b, s:o, s:o, s:i, s:i, s:o}", "cluster",
        from ? json_of_slice(from->status.cluster) : json_null(), "healthy", verdict->good,
        "leader",
        verdict->leader ? json_integer((json_int_t)verdict->leader->status.node) : json_null(),
        "term", from ? json_integer((json_int_t)from->status.term) : json_null(), "voters",
        (int)verdict->voters, "voters_healthy", (int)verdict->healthy, "nodes", nodes);
    rc = object ? json_dumpf(object, stdout, JSON_INDENT(2)) : -1;
    json_decref(object);
    putchar('\n');
    return rc < 0 ? cli_complain(CLI_FAILED, "cannot write the output") : CLI_OK;
}

static int tell(struct survey *survey)
{
    struct verdict verdict;
    int exit_code = CLI_OK;

    make_rows(survey);
    verdict = judge(survey);
    if (survey->args->json) {
        exit_code = print_json(survey, &verdict);
    } else {
        print_table(survey, &verdict);
    }
    if (exit_code != CLI_OK || verdict.good) {
        return exit_code;
    }
    if (!witness(survey, &verdict) && trust_is_about(&survey->probes[0].trouble)) {
        return trust_complain(&survey->probes[0].trouble);
    }
    if (!witness(survey, &verdict)) {
        return cli_complain(CLI_FAILED,
                            "no server at %s%s answers: start one with `bopd --dev`, "
                            "or name one with --server",
                            survey->args->servers[0].text,
                            survey->args->server_count > 1 ? " or the others" : "");
    }
    return cli_complain(CLI_FAILED, verdict.leader
                                        ? "not most of the voters are well: see HEALTH"
                                        : "nobody leads: are most nodes of the cluster up?");
}

int cmd_status(const struct cli_args *args)
{
    static struct survey survey; /* Large, and one a process. */
    int exit_code;

    survey.args = args;
    survey.timeout_ms = args->timeout_ms ? args->timeout_ms : TIMEOUT_MS;
    exit_code = ask_all(&survey);
    if (exit_code == CLI_OK) {
        exit_code = tell(&survey);
    }
    for (size_t i = 0; i < survey.count; i++) {
        probe_close(&survey.probes[i]);
    }
    if (survey.loop) {
        bop_loop_destroy(survey.loop);
    }
    return cli_finish_output(exit_code);
}
