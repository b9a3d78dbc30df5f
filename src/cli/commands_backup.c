/*
 * The commands about backups, and what --help says of each.
 */
#include "commands.h"

const struct cli_command backup_commands[] = {
    {
        .group = "backup",
        .name = "",
        .synopsis = "FILE",
        .summary = "all that the cluster holds, of one moment, into a file",
        .help =
            "Taken of a node that does not lead, if there is one, while writes go on: with all\n"
            "that was acknowledged before, and nothing of a transaction without the rest. FILE\n"
            "appears, or is replaced, once all of it is there and was checked; until then it is\n"
            "FILE.partial. Whoever does this needs the right admin on all namespaces.\n"
            "  --rate BYTES   a second at most (K, M and G may follow)\n"
            "  --resume       go on with FILE.partial, if the node still has the rest: it keeps "
            "it\n"
            "                 for 10 minutes; else take a new one\n"
            "  --stale        what the server given has, whoever leads: after a majority was lost\n"
            "  bop backup /var/backups/bop-$(date +%F).snap --rate 20M\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_RATE) | BIT(FLAG_RESUME) | BIT(FLAG_STALE),
        .run = cmd_backup,
    },
    {
        .group = "backup",
        .name = "check",
        .synopsis = "FILE",
        .summary = "check every byte of a backup",
        .help =
            "Prints which entry it is of, its term, its size, and the cluster's servers. Exit\n"
            "status 1 and the place if it is damaged, cut short, or of a version that this bop\n"
            "does not know.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_backup_check,
    },
    {
        .name = "restore",
        .synopsis = "FILE",
        .summary = "make a backup into the first node of a new cluster",
        .help =
            "Makes the data directory of a node, which bopd starts with. No server is asked. The\n"
            "old cluster must be gone for good, or the new one have another name.\n"
            "  --data DIR           the directory to make: missing, or empty\n"
            "  --id N               the number of its node\n"
            "  --cluster NAME       the name of the new cluster (bop)\n"
            "  --peer ID=HOST:PORT  where that node will listen; of several, the voters of the\n"
            "                       cluster: restore the same file with the same list on each\n"
            "  bop restore bop.snap --data /var/lib/bop --id 1 --peer 1=10.0.0.1:4700\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_DATA) | BIT(FLAG_ID) | BIT(FLAG_PEER),
        .run = cmd_restore,
    },
};

const size_t backup_command_count = BOP_COUNT_OF(backup_commands);
