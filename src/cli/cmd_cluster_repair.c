/*
 * bop cluster repair: the way back after a majority was lost for good.
 */
#include "cmd_cluster.h"

#include <inttypes.h>
#include <string.h>

#include <bop/raft.h>

#define PHRASE "what only the lost nodes had is lost"

static void print_configuration(const struct bop_raft_configuration *conf)
{
    for (unsigned i = 0; i < conf->count; i++) {
        const struct bop_raft_server *server = &conf->servers[i];

        fprintf(stderr, "    node %" PRIu64 " at %.*s, %s\n", server->id,
                (int)strcspn(server->address, ";"), server->address,
                server->role == BOP_RAFT_VOTER ? "voter" : "no vote");
    }
}

static void print_report(const struct bop_repair_report *report)
{
    fprintf(stderr,
            "Node %" PRIu64 " of cluster \"%s\", term %" PRIu64 ", log from entry %" PRIu64
            " to %" PRIu64 ", snapshot at %" PRIu64 ".\nBy its configuration the cluster is:\n",
            report->node, report->cluster, report->term, report->first_index, report->last_index,
            report->snapshot_index);
    print_configuration(&report->before);
    fprintf(stderr,
            "\nRepair makes node %" PRIu64
            " the only server of the cluster, with all that its log holds.\n"
            "  - Writes that were acknowledged by others and never came here are LOST.\n"
            "  - Writes that came here and were never acknowledged become part of the state.\n"
            "  - None of the other nodes may ever start again with its old data directory:\n"
            "    together they could go on as another cluster of the same name.\n"
            "  - If a majority of the nodes above still exists, do NOT do this: start them.\n\n",
            report->node);
}

static bool ask_phrase(void)
{
    char line[128];

    fprintf(stderr, "Type this sentence to go on:\n  " PHRASE "\n> ");
    if (!fgets(line, sizeof(line), stdin)) {
        return false;
    }
    line[strcspn(line, "\r\n")] = '\0';
    return strcmp(line, PHRASE) == 0;
}

static int repair(const struct cli_args *args, struct bop_repair_options *options,
                  struct bop_repair_report *report)
{
    struct bop_error err = {0};

    options->dry_run = true;
    if (bop_repair(options, report, &err) < 0) {
        return cli_complain_error(&err);
    }
    print_report(report);
    if (!args->aof.force) {
        return cli_complain(CLI_FAILED,
                            "nothing was changed: give --force, and the sentence it asks for, to "
                            "do it");
    }
    if (!ask_phrase()) {
        return cli_complain(CLI_FAILED, "nothing was changed: that was not the sentence");
    }
    options->dry_run = false;
    if (bop_repair(options, report, &err) < 0) {
        return cli_complain_error(&err);
    }
    return CLI_OK;
}

int cmd_cluster_repair(const struct cli_args *args)
{
    static struct bop_repair_report report; /* Large, and one a process. */
    struct bop_repair_options options = {.data = args->values[0]};
    int exit_code = repair(args, &options, &report);

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    printf("node %" PRIu64 " is the only server now, by entry %" PRIu64 " in term %" PRIu64
           "\nwhat was changed lies as it was in %s\nstart it as before; then add new nodes with "
           "--join and empty directories\n",
           report.node, report.new_index, report.new_term, report.backup);
    return cli_finish_output(CLI_OK);
}
