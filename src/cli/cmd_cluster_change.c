/*
 * bop cluster add, promote, demote, remove, replace, priority, transfer, plan.
 */
#include "cmd_cluster.h"

#include <inttypes.h>
#include <string.h>

#include <jansson.h>

#include <bop/raft.h>

/*
 * A node that is asked to remove itself may be gone before it can say that it was done. The
 * question is asked again then, of another one, which finds nobody to remove. So it counts
 * whether there was somebody when we began.
 */
static int look_before_remove(struct cluster *cluster, const struct bop_admin_change_request *in,
                              bool *out_known)
{
    struct bop_admin_members members = {0};
    int exit_code;

    *out_known = false;
    if (in->action != BOP_ADMIN_REMOVE || (in->flags & BOP_ADMIN_PLAN) != 0) {
        return CLI_OK;
    }
    exit_code = cluster_members(cluster, &members);
    for (unsigned i = 0; exit_code == CLI_OK && i < members.count; i++) {
        *out_known = *out_known || members.servers[i].id == in->node;
    }
    return exit_code;
}

int cluster_change(struct cluster *cluster, const struct bop_admin_change_request *in,
                   struct bop_admin_change_response *out)
{
    bool said = false, known;
    int exit_code = look_before_remove(cluster, in, &known);

    while (exit_code == CLI_OK) {
        struct bop_writer writer = bop_writer(&cluster->request);
        int rc;

        bop_buf_clear(&cluster->request);
        bop_admin_change_request_encode(&writer, in);
        rc = writer.code ? writer.code : cluster_ask(cluster, BOP_WIRE_KIND_CLUSTER_CHANGE_REQUEST);
        if (rc == 0) {
            rc = bop_admin_change_response_decode(bop_buf_slice(&cluster->response), out);
        }
        if (rc != 0) {
            return link_complain(&cluster->link, rc, "change node %" PRIu64, in->node);
        }
        if (known && out->code == BOP_ADMIN_UNKNOWN_NODE) {
            out->code = BOP_ADMIN_OK;
            out->text = bop_slice_cstr("the node is removed");
        }
        if (out->code == BOP_ADMIN_OK || (in->flags & BOP_ADMIN_PLAN) != 0) {
            return CLI_OK;
        }
        if (!bop_admin_code_is_passing(out->code) || !cluster_wait(cluster)) {
            return cluster_complain(out->code, out->text);
        }
        if (!said && out->code == BOP_ADMIN_LAGS) {
            said = true;
            fprintf(stderr, "bop: waiting: %.*s\n", (int)out->text.size,
                    (const char *)out->text.data);
        }
    }
    return exit_code;
}

static json_t *json_of_strength(const struct bop_admin_strength *strength)
{
    int spare = strength->alive - strength->quorum;

    return json_pack("{s:i, s:i, s:i, s:i}", "voters", (int)strength->voters, "quorum",
                     (int)strength->quorum, "voters_up", (int)strength->alive, "may_fail",
                     spare > 0 ? spare : 0);
}

static int print_change(const struct cli_args *args,
                        const struct bop_admin_change_response *response, bool plan)
{
    json_t *object;
    int rc;

    if (!args->json) {
        printf("%.*s\n", (int)response->text.size, (const char *)response->text.data);
        return CLI_OK;
    }
    object = json_pack("{s:b, s:s, s:s%, s:I, s:o, s:o}", plan ? "possible" : "done",
                       response->code == BOP_ADMIN_OK, "code", bop_admin_code_text(response->code),
                       "text", (const char *)response->text.data, response->text.size, "index",
                       (json_int_t)response->index, "before", json_of_strength(&response->before),
                       "after", json_of_strength(&response->after));
    rc = object ? json_dumpf(object, stdout, JSON_INDENT(2)) : -1;
    json_decref(object);
    putchar('\n');
    return rc < 0 ? cli_complain(CLI_FAILED, "cannot write the output") : CLI_OK;
}

static int bad_node(const char *text)
{
    return cli_complain(CLI_USAGE, "%s: not the number of a node", text);
}

static int change(const struct cli_args *args, const struct bop_admin_change_request *in)
{
    struct cluster cluster;
    struct bop_admin_change_response response = {0};
    int exit_code = cluster_open(&cluster, args, false);

    if (exit_code == CLI_OK) {
        exit_code = cluster_change(&cluster, in, &response);
    }
    if (exit_code == CLI_OK) {
        exit_code = print_change(args, &response, false);
    }
    cluster_close(&cluster);
    return cli_finish_output(exit_code);
}

static int change_node(const struct cli_args *args, enum bop_admin_action action)
{
    struct bop_admin_change_request in = {.action = (uint8_t)action,
                                          .priority = BOP_ADMIN_PRIORITY};

    if (!cluster_number(args->values[0], UINT64_MAX, &in.node) || in.node == 0) {
        return bad_node(args->values[0]);
    }
    if (action == BOP_ADMIN_ADD) {
        in.address = bop_slice_cstr(args->values[1]);
        in.flags = args->voter ? BOP_ADMIN_VOTER : 0;
    }
    return change(args, &in);
}

int cmd_cluster_add(const struct cli_args *args)
{
    return change_node(args, BOP_ADMIN_ADD);
}

int cmd_cluster_promote(const struct cli_args *args)
{
    return change_node(args, BOP_ADMIN_PROMOTE);
}

int cmd_cluster_demote(const struct cli_args *args)
{
    return change_node(args, BOP_ADMIN_DEMOTE);
}

int cmd_cluster_remove(const struct cli_args *args)
{
    return change_node(args, BOP_ADMIN_REMOVE);
}

int cmd_cluster_priority(const struct cli_args *args)
{
    struct bop_admin_change_request in = {.action = BOP_ADMIN_PRIORITY_SET};
    uint64_t priority;

    if (!cluster_number(args->values[0], UINT64_MAX, &in.node) || in.node == 0) {
        return bad_node(args->values[0]);
    }
    if (!cluster_number(args->values[1], BOP_ADMIN_PRIORITY_MAX, &priority)) {
        return cli_complain(CLI_USAGE, "%s: a priority is a number from 0 to %d", args->values[1],
                            BOP_ADMIN_PRIORITY_MAX);
    }
    in.priority = (uint32_t)priority;
    return change(args, &in);
}

/* ---- Replace ---- */

/* Promote the new one, which is there as a learner or is joining; then remove the old one. */
static int replace_by(struct cluster *cluster, uint64_t old, uint64_t new,
                      struct bop_admin_change_response *response)
{
    struct bop_admin_change_request promote = {
        .action = BOP_ADMIN_PROMOTE, .node = new, .priority = BOP_ADMIN_PRIORITY};
    struct bop_admin_change_request drop = {
        .action = BOP_ADMIN_REMOVE, .node = old, .priority = BOP_ADMIN_PRIORITY};
    int exit_code = new == 0 ? CLI_OK : cluster_change(cluster, &promote, response);

    return exit_code == CLI_OK ? cluster_change(cluster, &drop, response) : exit_code;
}

int cmd_cluster_replace(const struct cli_args *args)
{
    struct cluster cluster;
    struct bop_admin_change_response response = {0};
    uint64_t old, new = 0;
    int exit_code;

    if (!cluster_number(args->values[0], UINT64_MAX, &old) || old == 0) {
        return bad_node(args->values[0]);
    }
    if (args->value_count > 1 &&
        (!cluster_number(args->values[1], UINT64_MAX, &new) || new == 0 || new == old)) {
        return bad_node(args->values[1]);
    }
    exit_code = cluster_open(&cluster, args, false);
    if (exit_code == CLI_OK) {
        exit_code = replace_by(&cluster, old, new, &response);
    }
    if (exit_code == CLI_OK) {
        exit_code = print_change(args, &response, false);
    }
    if (exit_code == CLI_OK && new == 0 && !args->json) {
        printf("now start the new node %" PRIu64 " with --join and an empty data directory\n", old);
    }
    cluster_close(&cluster);
    return cli_finish_output(exit_code);
}

/* ---- Transfer ---- */

/* An answer that got lost in the change it told of: leadership has gone over. Asked again, whoever
 * leads now would hand it back. */
static bool went_over(struct cluster *cluster, uint64_t from,
                      struct bop_admin_transfer_response *out)
{
    static char text[64];
    struct bop_admin_members members = {0};

    if (cluster_members(cluster, &members) != CLI_OK || members.leader == from) {
        return false;
    }
    snprintf(text, sizeof(text), "node %" PRIu64 " leads", members.leader);
    *out = (struct bop_admin_transfer_response){
        .code = BOP_ADMIN_OK, .leader = members.leader, .text = bop_slice_cstr(text)};
    return true;
}

static int transfer(struct cluster *cluster, uint64_t node, struct bop_admin_transfer_response *out)
{
    struct bop_admin_transfer_request in = {.node = node};
    struct bop_admin_members before = {0};
    int exit_code = cluster_members(cluster, &before);

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    for (;;) {
        struct bop_writer writer = bop_writer(&cluster->request);
        int rc;

        bop_buf_clear(&cluster->request);
        bop_admin_transfer_request_encode(&writer, &in);
        rc = writer.code ? writer.code
                         : cluster_ask(cluster, BOP_WIRE_KIND_CLUSTER_TRANSFER_REQUEST);
        if (rc == 0) {
            rc = bop_admin_transfer_response_decode(bop_buf_slice(&cluster->response), out);
        }
        if (rc != 0) {
            return link_complain(&cluster->link, rc, "hand over leadership");
        }
        if (out->code == BOP_ADMIN_OK) {
            return CLI_OK;
        }
        if (!bop_admin_code_is_passing(out->code) || !cluster_wait(cluster)) {
            return cluster_complain(out->code, out->text);
        }
        if (node == 0 && went_over(cluster, before.leader, out)) {
            return CLI_OK;
        }
    }
}

int cmd_cluster_transfer(const struct cli_args *args)
{
    struct cluster cluster;
    struct bop_admin_transfer_response response = {0};
    uint64_t node = 0;
    int exit_code;

    if (args->value_count > 0 &&
        (!cluster_number(args->values[0], UINT64_MAX, &node) || node == 0)) {
        return bad_node(args->values[0]);
    }
    exit_code = cluster_open(&cluster, args, false);
    if (exit_code == CLI_OK) {
        exit_code = transfer(&cluster, node, &response);
    }
    if (exit_code == CLI_OK && args->json) {
        printf("{\"leader\":%" PRIu64 "}\n", response.leader);
    } else if (exit_code == CLI_OK) {
        printf("%.*s\n", (int)response.text.size, (const char *)response.text.data);
    }
    cluster_close(&cluster);
    return cli_finish_output(exit_code);
}

/* ---- Plan ---- */

static void print_strength(const char *when, const struct bop_admin_strength *strength)
{
    int spare = strength->alive - strength->quorum;

    printf("  %-7s %2u voters, %2u must be up, %2u are: %d more may fail\n", when, strength->voters,
           strength->quorum, strength->alive, spare > 0 ? spare : 0);
}

static int print_plan(const struct cli_args *args, const struct bop_admin_change_response *response)
{
    if (args->json) {
        return print_change(args, response, true);
    }
    printf("%s: %.*s\n", response->code == BOP_ADMIN_OK ? "possible" : "not now",
           (int)response->text.size, (const char *)response->text.data);
    print_strength("before", &response->before);
    print_strength("after", &response->after);
    if (response->after.voters % 2 == 0 && response->after.voters != response->before.voters) {
        printf("an even number of voters withstands no more failures than one voter less\n");
    }
    return CLI_OK;
}

static enum bop_admin_action action_of(const char *word)
{
    static const char *const words[] = {
        [BOP_ADMIN_ADD] = "add",
        [BOP_ADMIN_PROMOTE] = "promote",
        [BOP_ADMIN_DEMOTE] = "demote",
        [BOP_ADMIN_REMOVE] = "remove",
    };

    for (size_t i = 1; i < BOP_COUNT_OF(words); i++) {
        if (strcmp(word, words[i]) == 0) {
            return (enum bop_admin_action)i;
        }
    }
    return 0;
}

int cmd_cluster_plan(const struct cli_args *args)
{
    struct bop_admin_change_request in = {.flags = BOP_ADMIN_PLAN, .priority = BOP_ADMIN_PRIORITY};
    struct bop_admin_change_response response = {0};
    struct cluster cluster;
    int exit_code;

    in.action = (uint8_t)action_of(args->values[0]);
    if (in.action == 0) {
        return cli_complain(CLI_USAGE, "%s: a plan is of add, promote, demote or remove",
                            args->values[0]);
    }
    if (!cluster_number(args->values[1], UINT64_MAX, &in.node) || in.node == 0) {
        return bad_node(args->values[1]);
    }
    if ((in.action == BOP_ADMIN_ADD) != (args->value_count == 3)) {
        return cli_complain(CLI_USAGE, "a plan of add, and of nothing else, has HOST:PORT");
    }
    if (in.action == BOP_ADMIN_ADD) {
        in.address = bop_slice_cstr(args->values[2]);
        in.flags |= args->voter ? BOP_ADMIN_VOTER : 0;
    }
    exit_code = cluster_open(&cluster, args, false);
    if (exit_code == CLI_OK) {
        exit_code = cluster_change(&cluster, &in, &response);
    }
    if (exit_code == CLI_OK) {
        exit_code = print_plan(args, &response);
    }
    if (exit_code == CLI_OK && response.code != BOP_ADMIN_OK) {
        exit_code = response.code == BOP_ADMIN_UNKNOWN_NODE ? CLI_NOT_FOUND : CLI_FAILED;
    }
    cluster_close(&cluster);
    return cli_finish_output(exit_code);
}
