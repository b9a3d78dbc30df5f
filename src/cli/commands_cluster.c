/*
 * The commands of the group `cluster`, and what --help says of each.
 */
#include "cmd_cluster.h"
#include "commands.h"

const struct cli_command cluster_commands[] = {
    {
        .group = "cluster",
        .name = "status",
        .synopsis = "",
        .summary = "who the servers are, and how many may fail",
        .help = "As the leader sees it. LAG is how many committed entries are not known to be\n"
                "durable there. A learner gets all data and has no vote; one that is joining is\n"
                "made a voter as soon as it has caught up.\n",
        .run = cmd_cluster_status,
    },
    {
        .group = "cluster",
        .name = "members",
        .synopsis = "",
        .summary = "the table of servers alone",
        .help = "As `bop cluster status`, without its heading.\n",
        .run = cmd_cluster_members,
    },
    {
        .group = "cluster",
        .name = "add",
        .synopsis = "ID HOST:PORT",
        .summary = "add a server without a vote",
        .help = "The node is started with --join, before or after this; with bopd's --learner it\n"
                "is added as one by itself, and without it as a voter, so that this command is\n"
                "for those that are to be known beforehand.\n"
                "  --voter   make it a voter once it has caught up\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_VOTER),
        .run = cmd_cluster_add,
    },
    {
        .group = "cluster",
        .name = "promote",
        .synopsis = "ID",
        .summary = "give a learner a vote",
        .help = "Waits, as long as --timeout says, until the node has caught up.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_cluster_promote,
    },
    {
        .group = "cluster",
        .name = "demote",
        .synopsis = "ID",
        .summary = "take a server's vote",
        .help = "It goes on getting all data. A leader hands over first. Refused if of the voters\n"
                "that are left too few are up.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_cluster_demote,
    },
    {
        .group = "cluster",
        .name = "remove",
        .synopsis = "ID",
        .summary = "take a server out of the cluster, for good",
        .help = "The node is told and ends with status 5; its data directory is of no use any\n"
                "more. A leader hands over first. Refused if of the voters that are left too few\n"
                "are up. The id may be used again by a node with an empty directory and --join.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_cluster_remove,
    },
    {
        .group = "cluster",
        .name = "replace",
        .synopsis = "ID [NEW]",
        .summary = "put a new node in the place of one that is lost",
        .help =
            "With NEW, a node that runs and is a learner or is joining: it is promoted once it\n"
            "has caught up, and ID is removed. Without: ID is removed, and a node with an "
            "empty\ndirectory and --join may come back under the same id.\n",
        .values_min = 1,
        .values_max = 2,
        .run = cmd_cluster_replace,
    },
    {
        .group = "cluster",
        .name = "priority",
        .synopsis = "ID N",
        .summary = "say who should lead",
        .help = "N is 0 to 100, 1 unless set. Whoever leads hands over to a voter of a higher\n"
                "priority that is up to date. A node with 0 leads only while nobody else can.\n",
        .values_min = 2,
        .values_max = 2,
        .run = cmd_cluster_priority,
    },
    {
        .group = "cluster",
        .name = "transfer",
        .synopsis = "[ID]",
        .summary = "hand leadership over",
        .help = "To this node, or to the voter that is furthest. Returns when another one leads.\n",
        .values_max = 1,
        .run = cmd_cluster_transfer,
    },
    {
        .group = "cluster",
        .name = "plan",
        .synopsis = "CHANGE ID [HOST:PORT]",
        .summary = "say what a change would do, and do nothing",
        .help = "CHANGE is add, promote, demote or remove. Prints how many voters there are and\n"
                "how many may fail, before and after, and what stands in the way. Exit status 0\n"
                "if the change is possible now, else 1.\n"
                "  --voter   of add\n",
        .values_min = 2,
        .values_max = 3,
        .flags = BIT(FLAG_VOTER),
        .run = cmd_cluster_plan,
    },
    {
        .group = "cluster",
        .name = "params",
        .synopsis = "[NAME=VALUE ...]",
        .summary = "look at or set parameters of a running node",
        .help = "Of the one server given with --server. What is set lasts until the node stops;\n"
                "what is to last goes into its bopd.conf, under the same name. Up to 4 at once:\n"
                "all are set or none.\n",
        .values_max = CLI_VALUES_MAX,
        .run = cmd_cluster_params,
    },
    {
        .group = "cluster",
        .name = "repair",
        .synopsis = "DIR",
        .summary = "go on with one node after a majority was lost",
        .help = "DIR is the data directory of a surviving node, which must be stopped. Says what\n"
                "would be done and what may be lost, and does nothing. If several nodes survive,\n"
                "take the one with the highest term, and of these the longest log.\n"
                "  --force   do it, once a sentence was typed (on standard input)\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_FORCE),
        .run = cmd_cluster_repair,
    },
};

const size_t cluster_command_count = BOP_COUNT_OF(cluster_commands);
