/*
 * bop cluster status, members: who the servers are, and what the cluster withstands.
 */
#include "cmd_cluster.h"

#include <inttypes.h>
#include <string.h>

#include <jansson.h>

#include <bop/raft.h>

#define TURN_MS  20
#define AGAIN_MS 100 /* Between two attempts. */

/* ---- Asking ---- */

int cluster_open(struct cluster *cluster, const struct cli_args *args, bool pin)
{
    struct link_options options = {.args = args, .timeout_ms = CLI_TIMEOUT_MS, .pin = pin};
    int exit_code;

    memset(cluster, 0, sizeof(*cluster));
    bop_buf_init(&cluster->request, NULL, 0);
    bop_buf_init(&cluster->response, NULL, 0);
    exit_code = link_open(&options, &cluster->link);
    cluster->deadline_us = cluster->link.opened_us + cluster->link.timeout_ms * 1000;
    return exit_code;
}

void cluster_close(struct cluster *cluster)
{
    link_close(&cluster->link);
    bop_buf_deinit(&cluster->request);
    bop_buf_deinit(&cluster->response);
}

struct call {
    struct bop_buf *response;
    int code;
    bool done;
};

static void on_response(void *user, int code, struct bop_slice response)
{
    struct call *call = (struct call *)user;

    call->done = true;
    call->code = code == 0 ? bop_buf_append(call->response, response.data, response.size) : code;
}

int cluster_ask(struct cluster *cluster, uint16_t kind)
{
    struct link *link = &cluster->link;
    struct call call = {.response = &cluster->response};
    int rc;

    bop_buf_clear(&cluster->response);
    rc = bop_client_admin(link->client, kind, bop_buf_slice(&cluster->request), on_response, &call);
    while (rc == 0 && !call.done) {
        rc = link_turn(link, TURN_MS);
    }
    if (rc < 0 && !call.done) {
        /* The callback must not come when its call is gone; now it comes at once. */
        bop_client_destroy(link->client);
        link->client = NULL;
    }
    return rc < 0 ? rc : call.code;
}

bool cluster_wait(struct cluster *cluster)
{
    struct bop_clock *clock = bop_clock_system();
    uint64_t until_us = bop_clock_monotonic_us(clock) + (uint64_t)AGAIN_MS * 1000;

    if (until_us >= cluster->deadline_us) {
        return false;
    }
    while (bop_clock_monotonic_us(clock) < until_us) {
        if (link_turn(&cluster->link, TURN_MS) < 0) {
            return false;
        }
    }
    return true;
}

int cluster_complain(uint8_t code, struct bop_slice text)
{
    return cli_complain(code == BOP_ADMIN_UNKNOWN_NODE  ? CLI_NOT_FOUND
                        : code == BOP_ADMIN_BAD_REQUEST ? CLI_USAGE
                                                        : CLI_FAILED,
                        "%s: %.*s", bop_admin_code_text(code), (int)text.size,
                        text.size > 0 ? (const char *)text.data : "");
}

bool cluster_number(const char *text, uint64_t max, uint64_t *out_number)
{
    uint64_t number = 0;

    for (const char *at = text; *at; at++) {
        unsigned digit = (unsigned)(*at - '0');

        if (digit > 9 || number > (max - bop_min_u64(digit, max)) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    *out_number = number;
    return text[0] != '\0' && number <= max;
}

int cluster_members(struct cluster *cluster, struct bop_admin_members *out)
{
    int rc;

    for (;;) {
        bop_buf_clear(&cluster->request);
        rc = cluster_ask(cluster, BOP_WIRE_KIND_CLUSTER_MEMBERS_REQUEST);
        if (rc == 0) {
            rc = bop_admin_members_decode(bop_buf_slice(&cluster->response), out);
        }
        if (rc != 0) {
            return link_complain(&cluster->link, rc, "ask for the members");
        }
        if (out->code == BOP_ADMIN_OK) {
            return CLI_OK;
        }
        if (!bop_admin_code_is_passing(out->code) || !cluster_wait(cluster)) {
            return cluster_complain(out->code, out->text);
        }
    }
}

/* ---- Telling ---- */

struct summary {
    unsigned voters;
    unsigned alive;
    unsigned quorum;
};

/* A server that is connected has been heard of within this many milliseconds. */
#define ALIVE_MS 1000

static bool is_alive(const struct bop_admin_members *members, const struct bop_admin_server *server)
{
    return server->id == members->leader || (server->connected && server->silent_ms < ALIVE_MS);
}

static struct summary sum_up(const struct bop_admin_members *members)
{
    struct summary summary = {0};

    for (unsigned i = 0; i < members->count; i++) {
        if (members->servers[i].role == BOP_RAFT_VOTER) {
            summary.voters++;
            summary.alive += is_alive(members, &members->servers[i]);
        }
    }
    summary.quorum = summary.voters / 2 + 1;
    return summary;
}

static const char *role_text(const struct bop_admin_server *server)
{
    return server->role == BOP_RAFT_VOTER   ? "voter"
           : server->role == BOP_RAFT_SPARE ? "spare"
           : server->learner                ? "learner"
                                            : "joining";
}

static uint64_t lag_of(const struct bop_admin_members *members,
                       const struct bop_admin_server *server)
{
    return members->commit - bop_min_u64(members->commit, server->match);
}

static void print_head(const struct bop_admin_members *members)
{
    struct summary summary = sum_up(members);

    printf("node %" PRIu64 " leads in term %" PRIu64 "; %u voters, %u must be up, %u are: ",
           members->leader, members->term, summary.voters, summary.quorum, summary.alive);
    if (summary.alive > summary.quorum) {
        printf("%u more may fail\n", summary.alive - summary.quorum);
    } else {
        printf("none may fail\n");
    }
    printf("configuration of entry %" PRIu64 "%s\n\n", members->configuration_index,
           members->changing ? ", and a change is under way" : "");
}

static void print_server(const struct bop_admin_members *members,
                         const struct bop_admin_server *server)
{
    char silent[32] = "-";

    if (server->id != members->leader) {
        if (server->silent_ms == UINT64_MAX) {
            snprintf(silent, sizeof(silent), "never heard");
        } else {
            snprintf(silent, sizeof(silent), "%" PRIu64 " ms", server->silent_ms);
        }
    }
    printf("%-5" PRIu64 " %-22.*s %-8s %-7s %8" PRIu32 " %10" PRIu64 " %8" PRIu64 "  %s\n",
           server->id, (int)server->address.size, (const char *)server->address.data,
           role_text(server),
           server->id == members->leader ? "leads"
           : is_alive(members, server)   ? "up"
                                         : "down",
           server->priority, server->match, lag_of(members, server), silent);
}

static void print_table(const struct bop_admin_members *members)
{
    printf("%-5s %-22s %-8s %-7s %8s %10s %8s  %s\n", "NODE", "ADDRESS", "ROLE", "STATE",
           "PRIORITY", "MATCH", "LAG", "SILENT");
    for (unsigned i = 0; i < members->count; i++) {
        print_server(members, &members->servers[i]);
    }
}

static json_t *json_of_server(const struct bop_admin_members *members,
                              const struct bop_admin_server *server)
{
    char incarnation[20];

    snprintf(incarnation, sizeof(incarnation), "%016" PRIx64, server->incarnation);
    return json_pack(
        "{s:I, s:s%, s:s, s:b, s:b, s:I, s:I, s:I, s:o, s:o, s:I}", "node", (json_int_t)server->id,
        "address", (const char *)server->address.data, server->address.size, "role",
        role_text(server), "leader", server->id == members->leader, "up", is_alive(members, server),
        "priority", (json_int_t)server->priority, "match", (json_int_t)server->match, "lag",
        (json_int_t)lag_of(members, server), "silent_ms",
        server->silent_ms == UINT64_MAX ? json_null() : json_integer((json_int_t)server->silent_ms),
        "incarnation", server->incarnation ? json_string(incarnation) : json_null(), "level",
        (json_int_t)server->level);
}

static int print_json(const struct bop_admin_members *members)
{
    struct summary summary = sum_up(members);
    json_t *servers = json_array();
    json_t *object;
    int rc;

    for (unsigned i = 0; i < members->count; i++) {
        json_array_append_new(servers, json_of_server(members, &members->servers[i]));
    }
    object = json_pack("{s:I, s:I, s:I, s:I, s:b, s:i, s:i, s:i, s:i, s:o}", "leader",
                       (json_int_t)members->leader, "term", (json_int_t)members->term, "commit",
                       (json_int_t)members->commit, "configuration_index",
                       (json_int_t)members->configuration_index, "changing", members->changing,
                       "voters", (int)summary.voters, "quorum", (int)summary.quorum, "voters_up",
                       (int)summary.alive, "may_fail",
                       summary.alive > summary.quorum ? (int)(summary.alive - summary.quorum) : 0,
                       "members", servers);
    rc = object ? json_dumpf(object, stdout, JSON_INDENT(2)) : -1;
    json_decref(object);
    putchar('\n');
    return rc < 0 ? cli_complain(CLI_FAILED, "cannot write the output") : CLI_OK;
}

static int show(const struct cli_args *args, bool head)
{
    struct cluster cluster;
    struct bop_admin_members members = {0};
    int exit_code = cluster_open(&cluster, args, false);

    if (exit_code == CLI_OK) {
        exit_code = cluster_members(&cluster, &members);
    }
    if (exit_code == CLI_OK && args->json) {
        exit_code = print_json(&members);
    } else if (exit_code == CLI_OK) {
        if (head) {
            print_head(&members);
        }
        print_table(&members);
    }
    cluster_close(&cluster);
    return cli_finish_output(exit_code);
}

int cmd_cluster_status(const struct cli_args *args)
{
    return show(args, true);
}

int cmd_cluster_members(const struct cli_args *args)
{
    return show(args, false);
}
