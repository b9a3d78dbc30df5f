/*
 * bop restore: the data directory of a new cluster's node, from a backup.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <bop/backup.h>

#include "cmd_cluster.h"

#define DEFAULT_CLUSTER "bop" /* As bopd's. */

/* ID=HOST:PORT. */
static int add_server(struct bop_raft_configuration *servers, const char *text)
{
    struct bop_raft_server *server = &servers->servers[servers->count];
    const char *equals = strchr(text, '=');
    const char *colon = equals ? strrchr(equals, ':') : NULL;
    char number[24];
    uint64_t port;

    if (!equals || !colon || colon == equals + 1 ||
        (size_t)snprintf(number, sizeof(number), "%.*s", (int)(equals - text), text) >=
            sizeof(number) ||
        !cluster_number(number, UINT64_MAX, &server->id) || server->id == 0 ||
        !cluster_number(colon + 1, UINT16_MAX, &port) || port == 0 ||
        strlen(equals + 1) > BOP_ADDRESS_MAX) {
        return cli_complain(CLI_USAGE, "--peer %s: not ID=HOST:PORT", text);
    }
    for (unsigned n = 0; n < servers->count; n++) {
        if (servers->servers[n].id == server->id ||
            strcmp(servers->servers[n].address, equals + 1) == 0) {
            return cli_complain(CLI_USAGE, "--peer %s: another one has this number or address",
                                text);
        }
    }
    server->role = BOP_RAFT_VOTER;
    snprintf(server->address, sizeof(server->address), "%s", equals + 1);
    servers->count++;
    return CLI_OK;
}

static int compare_servers(const void *a, const void *b)
{
    const struct bop_raft_server *left = a, *right = b;

    return left->id < right->id ? -1 : left->id > right->id;
}

static int make_servers(const struct cli_args *args, struct bop_raft_configuration *out)
{
    char self[32];
    bool known = false;

    for (size_t n = 0; n < args->peer_count; n++) {
        int exit_code = add_server(out, args->peers[n]);

        if (exit_code != CLI_OK) {
            return exit_code;
        }
        known = known || out->servers[out->count - 1].id == args->id;
    }
    if (!known && args->peer_count > 0) {
        return cli_complain(CLI_USAGE,
                            "node %" PRIu64 " is not among the peers: add --peer %" PRIu64
                            "=HOST:PORT, where the others will reach it",
                            args->id, args->id);
    }
    if (!known) {
        snprintf(self, sizeof(self), "%" PRIu64 "=127.0.0.1:" CLI_PORT, args->id);
        return add_server(out, self);
    }
    /* Every node begins with the same entry, whatever the order of the flags. */
    qsort(out->servers, out->count, sizeof(out->servers[0]), compare_servers);
    return CLI_OK;
}

static void tell(const struct bop_restore_options *options, const struct bop_backup_info *info)
{
    printf("%s: node %" PRIu64 " of the new cluster \"%s\", %" PRIu64
           " records as of entry %" PRIu64 " of term %" PRIu64 "\n",
           options->data, options->node, options->cluster, info->entries, info->index, info->term);
    if (options->servers->count > 1) {
        printf("restore the same file with the same --peer list on the other nodes, each with its "
               "own --id, then start them all; a majority must be up\n");
    } else {
        printf("start it with: bopd --id %" PRIu64 " --cluster %s --data %s --listen %s\n"
               "then the others, with empty directories and --join\n",
               options->node, options->cluster, options->data,
               options->servers->servers[0].address);
    }
}

int cmd_restore(const struct cli_args *args)
{
    static struct bop_raft_configuration servers; /* Large, and one a process. */
    static struct bop_backup_info info;
    struct bop_error err = {0};
    struct bop_restore_options options = {
        .file = args->values[0],
        .data = args->data,
        .cluster = args->cluster ? args->cluster : DEFAULT_CLUSTER,
        .node = args->id,
        .servers = &servers,
    };
    int exit_code;

    if (!args->data || args->id == 0) {
        return cli_complain(CLI_USAGE, "say which directory to make with --data DIR, and the "
                                       "number of its node with --id N");
    }
    exit_code = make_servers(args, &servers);
    if (exit_code != CLI_OK) {
        return exit_code;
    }
    if (bop_restore(&options, &info, &err) < 0) {
        return cli_complain_error(&err);
    }
    tell(&options, &info);
    return cli_finish_output(CLI_OK);
}
