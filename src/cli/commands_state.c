/*
 * The commands of the groups `set`, `multimap`, `member` and `registration`, and `names`.
 */
#include "commands.h"

#define STALE "  --stale   what the server asked has, which may be behind\n"

const struct cli_command state_commands[] = {
    {
        .group = "set",
        .name = "add",
        .synopsis = "SET MEMBER",
        .summary = "add a member to a set",
        .help = "Says whether it was added or was there. The set comes into being by it.\n",
        .values_min = 2,
        .values_max = 2,
        .run = cmd_set_add,
    },
    {
        .group = "set",
        .name = "remove",
        .synopsis = "SET MEMBER",
        .summary = "remove a member of a set",
        .help = "Exit status 3 if there was no such member.\n",
        .values_min = 2,
        .values_max = 2,
        .run = cmd_set_remove,
    },
    {
        .group = "set",
        .name = "contains",
        .synopsis = "SET MEMBER",
        .summary = "is this a member?",
        .help = "Exit status 0 and \"yes\", or 3 and \"no\".\n" STALE,
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_STALE),
        .run = cmd_set_contains,
    },
    {
        .group = "set",
        .name = "size",
        .synopsis = "SET",
        .summary = "print the number of members",
        .help = "0 for a set that does not exist.\n" STALE,
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_STALE),
        .run = cmd_set_size,
    },
    {
        .group = "set",
        .name = "scan",
        .synopsis = "SET",
        .summary = "list members, for people",
        .help =
            "One a line, with \\n, \\t, \\\\ and \\xNN for what would break it; with --json one\n"
            "object a line.\n"
            "  --limit N   at most N members\n"
            "  --stale     what the server asked has, which may be behind\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_LIMIT) | BIT(FLAG_STALE),
        .run = cmd_set_scan,
    },
    {
        .group = "set",
        .name = "clear",
        .synopsis = "SET",
        .summary = "remove all members",
        .help = "However many there are, at once. Prints how many there were.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_set_clear,
    },
    {
        .group = "set",
        .name = "import",
        .synopsis = "SET FILE|-",
        .summary = "add all members of a file",
        .help =
            "The file has one JSON object a line, as `bop set export` writes it:\n"
            "  {\"member\":\"hello\"}\n"
            "with \"member64\" and base64 where the bytes are not UTF-8. It stops at the first\n"
            "mistake and says how far it came: to import again is safe.\n",
        .values_min = 2,
        .values_max = 2,
        .run = cmd_set_import,
    },
    {
        .group = "set",
        .name = "export",
        .synopsis = "SET FILE|-",
        .summary = "write all members to a file",
        .help =
            "The form is that of `bop set import`. FILE appears, or is replaced, only when all\n"
            "of it is written. All is of one revision: as it was at one moment.\n"
            "  --stale   do not make sure that it is not behind, nor of one revision; works\n"
            "            without a majority\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_STALE),
        .run = cmd_set_export,
    },
    {
        .group = "multimap",
        .name = "put",
        .synopsis = "MULTIMAP KEY VALUE",
        .summary = "add a value to those of a key",
        .help = "Says whether the pair was added or was there.\n",
        .values_min = 3,
        .values_max = 3,
        .run = cmd_multimap_put,
    },
    {
        .group = "multimap",
        .name = "get",
        .synopsis = "MULTIMAP KEY",
        .summary = "list the values of a key",
        .help = "One a line, in their order; none if there is no such key.\n"
                "  --limit N   at most N values\n"
                "  --stale     what the server asked has, which may be behind\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_LIMIT) | BIT(FLAG_STALE),
        .run = cmd_multimap_get,
    },
    {
        .group = "multimap",
        .name = "remove",
        .synopsis = "MULTIMAP KEY [VALUE]",
        .summary = "remove a value of a key, or all of them",
        .help = "Without VALUE it prints how many there were. With one, exit status 3 if it was "
                "not\nthere.\n",
        .values_min = 2,
        .values_max = 3,
        .run = cmd_multimap_remove,
    },
    {
        .group = "multimap",
        .name = "contains",
        .synopsis = "MULTIMAP KEY [VALUE]",
        .summary = "is there such a key, or pair?",
        .help = "Exit status 0 and \"yes\", or 3 and \"no\".\n" STALE,
        .values_min = 2,
        .values_max = 3,
        .flags = BIT(FLAG_STALE),
        .run = cmd_multimap_contains,
    },
    {
        .group = "multimap",
        .name = "size",
        .synopsis = "MULTIMAP [KEY]",
        .summary = "print the number of pairs, or of a key's values",
        .help = "The values of a key are counted one by one.\n" STALE,
        .values_min = 1,
        .values_max = 2,
        .flags = BIT(FLAG_STALE),
        .run = cmd_multimap_size,
    },
    {
        .group = "multimap",
        .name = "scan",
        .synopsis = "MULTIMAP",
        .summary = "list pairs, for people",
        .help = "One a line: key, tab, value; with --json one object a line.\n"
                "  --limit N   at most N pairs\n"
                "  --keys      keys only, each once\n"
                "  --stale     what the server asked has, which may be behind\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_LIMIT) | BIT(FLAG_KEYS) | BIT(FLAG_STALE),
        .run = cmd_multimap_scan,
    },
    {
        .group = "multimap",
        .name = "clear",
        .synopsis = "MULTIMAP",
        .summary = "remove all pairs",
        .help = "However many there are, at once. Prints how many there were.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_multimap_clear,
    },
    {
        .group = "multimap",
        .name = "import",
        .synopsis = "MULTIMAP FILE|-",
        .summary = "put all pairs of a file",
        .help = "The file is as that of `bop map import`, but a key may come with many values.\n",
        .values_min = 2,
        .values_max = 2,
        .run = cmd_multimap_import,
    },
    {
        .group = "multimap",
        .name = "export",
        .synopsis = "MULTIMAP FILE|-",
        .summary = "write all pairs to a file",
        .help =
            "The form is that of `bop multimap import`. FILE appears, or is replaced, only when\n"
            "all of it is written.\n"
            "  --stale   do not make sure that it is not behind; works without a majority\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_STALE),
        .run = cmd_multimap_export,
    },
    {
        .group = "member",
        .name = "list",
        .synopsis = "GROUP",
        .summary = "list the members of a group, oldest first",
        .help = "One a line: number, name, information. Numbers rise with the order of joining,\n"
                "which is the same on every server.\n"
                "  --limit N   at most N members\n"
                "  --stale     what the server asked has, which may be behind\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_LIMIT) | BIT(FLAG_STALE),
        .run = cmd_member_list,
    },
    {
        .group = "member",
        .name = "join",
        .synopsis = "GROUP [-- COMMAND...]",
        .summary = "be a member while a command runs",
        .help =
            "Joins, runs COMMAND and leaves when that ends, with its exit status. Without a\n"
            "COMMAND it says \"joined\" and stays until standard input ends or a signal comes.\n"
            "A bop that dies is a member for two more seconds; one that was cut off for so\n"
            "long that it was taken for dead joins again, at the end of the list. It waits\n"
            "while another session has a member of its name.\n"
            "  --name NAME   who it is (host and process)\n"
            "  --info TEXT   what the others are to know, as where it listens\n"
            "  bop member join web --name web-1 --info 10.0.0.5:8080 -- ./serve\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_NAME) | BIT(FLAG_INFO),
        .rest = true,
        .run = cmd_member_join,
    },
    {
        .group = "registration",
        .name = "list",
        .synopsis = "REGISTRY",
        .summary = "who listens at which address",
        .help = "One registration a line: address, session, number.\n"
                "  --limit N   at most N of them\n"
                "  --stale     what the server asked has, which may be behind\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_LIMIT) | BIT(FLAG_STALE),
        .run = cmd_registration_list,
    },
    {
        .group = "registration",
        .name = "get",
        .synopsis = "REGISTRY ADDRESS",
        .summary = "who listens at an address",
        .help = "One registration a line: session, number.\n"
                "  --limit N   at most N of them\n"
                "  --stale     what the server asked has, which may be behind\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_LIMIT) | BIT(FLAG_STALE),
        .run = cmd_registration_get,
    },
    {
        .group = "registration",
        .name = "add",
        .synopsis = "REGISTRY ADDRESS [-- COMMAND...]",
        .summary = "be registered at an address while a command runs",
        .help =
            "As `bop member join`: registers, runs COMMAND and takes it back when that ends, with\n"
            "its exit status; without a COMMAND it says \"registered\" and stays until standard\n"
            "input ends or a signal comes.\n"
            "  --settle   begin only when all programs that watch the address, and said that\n"
            "             they answer, have heard of it; one that does not in time is waited\n"
            "             for no more, and that is said\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_SETTLE),
        .rest = true,
        .run = cmd_registration_add,
    },
    {
        .name = "names",
        .synopsis = "KIND",
        .summary = "list the names there are",
        .help = "KIND is map, set, multimap, counter, lock, group or registry. One name a line,\n"
                "tab, and how many entries it has, or the value of a counter.\n"
                "  --prefix TEXT   those that begin with TEXT: \"app/\" is the namespace app\n"
                "  --limit N       at most N of them\n"
                "  --stale         what the server asked has, which may be behind\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_PREFIX) | BIT(FLAG_LIMIT) | BIT(FLAG_STALE),
        .run = cmd_names,
    },
    {
        .name = "txn",
        .synopsis = "",
        .summary = "several operations at one moment, all or none",
        .help =
            "Reads lines from standard input. If all comparisons hold, the operations behind\n"
            "\"then\" are done, else those behind \"else\": at one moment, and none if one fails.\n"
            "  if map MAP KEY version REL N        0: there is no such key\n"
            "  if map MAP KEY value REL VALUE\n"
            "  if counter NAME REL N               0: there is none\n"
            "  if set SET MEMBER present|absent\n"
            "  if multimap MULTIMAP KEY VALUE present|absent\n"
            "  if member GROUP NAME present|absent\n"
            "  if lock NAME token TOKEN            it is held with this token\n"
            "  then map put MAP KEY VALUE          del, get KEY; size, clear\n"
            "  then counter add NAME DELTA         set N; get; delete\n"
            "  then set add SET MEMBER             remove, contains; size\n"
            "  then multimap put MULTIMAP KEY VALUE    remove, contains\n"
            "REL is =, !=, < or >. Words with spaces stand in \"quotes\", with \\n, \\t, \\\\, "
            "\\\" and\n"
            "\\xNN. Lines that begin with # are skipped. Prints \"held\" or \"not held\", then a "
            "line an\n"
            "operation that was done. Exit status 4 if not all held, or an operation failed.\n",
        .values_min = 0,
        .values_max = 0,
        .run = cmd_txn,
    },
};

const size_t state_command_count = BOP_COUNT_OF(state_commands);
