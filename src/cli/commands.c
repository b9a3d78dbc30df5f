/*
 * What commands there are, and what --help says of each.
 */
#include <inttypes.h>
#include <string.h>

#include "commands.h"

#define CONDITIONS                                                                                 \
    (BIT(FLAG_IF_ABSENT) | BIT(FLAG_IF_PRESENT) | BIT(FLAG_IF_VERSION) | BIT(FLAG_IF_VALUE))

static const char conditions_help[] =
    "  --if-absent        only if there is no such key\n"
    "  --if-present       only if there is one\n"
    "  --if-version N     only if it is there in version N\n"
    "  --if-value VALUE   only if it is there with these bytes\n"
    "With a condition that is not met nothing is changed and the exit status is 4.\n";

static const struct cli_command before_aof[] = {
    {
        .group = "map",
        .name = "put",
        .synopsis = "MAP KEY VALUE",
        .summary = "store a value under a key",
        .help = "VALUE - reads the value from standard input, all bytes of it. Prints the version\n"
                "that the entry has now. The map comes into being with its first entry.\n"
                "  --ttl SECONDS   the entry goes after so long, unless it is put again\n",
        .values_min = 3,
        .values_max = 3,
        .flags = CONDITIONS | BIT(FLAG_TTL),
        .run = cmd_map_put,
    },
    {
        .group = "map",
        .name = "get",
        .synopsis = "MAP KEY",
        .summary = "print the value of a key",
        .help =
            "Prints the bytes of the value and nothing else; a line feed behind them only on\n"
            "a terminal. Exit status 3 if there is no such key.\n"
            "  --with-ttl   first a line with the seconds that it has left, or \"-\"\n"
            "  --stale      what the server asked has, which may be behind; needs no majority\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_STALE) | BIT(FLAG_WITH_TTL),
        .run = cmd_map_get,
    },
    {
        .group = "map",
        .name = "del",
        .synopsis = "MAP KEY",
        .summary = "delete a key",
        .help = "Exit status 3 if there was no such key.\n",
        .values_min = 2,
        .values_max = 2,
        .flags = CONDITIONS,
        .run = cmd_map_del,
    },
    {
        .group = "map",
        .name = "scan",
        .synopsis = "MAP",
        .summary = "list entries, for people",
        .help = "One entry a line: key, tab, value, with \\n, \\t, \\\\ and \\xNN for what would\n"
                "break the line; with --json one object a line. For copies there is `bop map "
                "export`.\n"
                "  --limit N       at most N entries\n"
                "  --keys          keys only\n"
                "  --prefix TEXT   keys that begin with TEXT\n"
                "  --from KEY      keys from KEY on\n"
                "  --to KEY        keys below KEY\n"
                "  --stale         what the server asked has, which may be behind\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_LIMIT) | BIT(FLAG_KEYS) | BIT(FLAG_STALE) | BIT(FLAG_PREFIX) |
                 BIT(FLAG_FROM) | BIT(FLAG_TO),
        .run = cmd_map_scan,
    },
    {
        .group = "map",
        .name = "clear",
        .synopsis = "MAP",
        .summary = "remove all entries",
        .help = "However many there are, at once. Prints how many there were.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_map_clear,
    },
    {
        .group = "map",
        .name = "size",
        .synopsis = "MAP",
        .summary = "print the number of entries",
        .help = "0 for a map that does not exist.\n"
                "  --stale   what the server asked has, which may be behind\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_STALE),
        .run = cmd_map_size,
    },
    {
        .group = "map",
        .name = "import",
        .synopsis = "MAP FILE|-",
        .summary = "store all entries of a file",
        .help = "The file has one JSON object a line, as `bop map export` writes it:\n"
                "  {\"key\":\"hello\",\"value\":\"world\"}\n"
                "with \"key64\" or \"value64\" and base64 where the bytes are not UTF-8. Other "
                "members\nare ignored. Entries are written in the order of the file; keys that are "
                "there\nalready are overwritten. It stops at the first mistake and says how far it "
                "came:\nto import again is safe.\n"
                "  --dpkg   the file is a package database as /var/lib/dpkg/status: one entry a\n"
                "           package, its name (as dpkg -l prints it) to its stanza\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_DPKG),
        .run = cmd_map_import,
    },
    {
        .group = "map",
        .name = "export",
        .synopsis = "MAP FILE|-",
        .summary = "write all entries to a file",
        .help = "The form is that of `bop map import`, in the order in which the server keeps the\n"
                "entries. FILE appears, or is replaced, only when all of it is written. With "
                "--server\nthe entries are read at just these servers, which make sure that they "
                "are not behind.\nAll is of one revision: as it was at one moment.\n"
                "  --stale   do not make sure, nor of one revision; works without a majority\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_STALE),
        .run = cmd_map_export,
    },
    {
        .group = "counter",
        .name = "add",
        .synopsis = "NAME [DELTA]",
        .summary = "add to a counter and print its new value",
        .help = "DELTA is a whole number, 1 if none is given, and may be negative. A new counter\n"
                "begins with 0. What would leave 64 bits is refused and changes nothing.\n",
        .values_min = 1,
        .values_max = 2,
        .run = cmd_counter_add,
    },
    {
        .group = "counter",
        .name = "get",
        .synopsis = "NAME",
        .summary = "print the value of a counter",
        .help = "Exit status 3 if there is no such counter.\n"
                "  --stale   what the server asked has, which may be behind\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_STALE),
        .run = cmd_counter_get,
    },
    {
        .group = "counter",
        .name = "cas",
        .synopsis = "NAME EXPECTED VALUE",
        .summary = "set a counter if it has the value expected",
        .help =
            "Prints the value. If it is another than EXPECTED, nothing is changed and the exit\n"
            "status is 4. A counter that does not exist counts as 0.\n",
        .values_min = 3,
        .values_max = 3,
        .run = cmd_counter_cas,
    },
    {
        .group = "counter",
        .name = "set",
        .synopsis = "NAME VALUE",
        .summary = "set a counter, whatever it is",
        .help = "The counter comes into being by it.\n",
        .values_min = 2,
        .values_max = 2,
        .run = cmd_counter_set,
    },
    {
        .group = "counter",
        .name = "delete",
        .synopsis = "NAME",
        .summary = "delete a counter",
        .help = "Exit status 3 if there was no such counter.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_counter_delete,
    },
    {
        .group = "counter",
        .name = "export",
        .synopsis = "FILE|-",
        .summary = "write all counters to a file",
        .help =
            "One a line: {\"counter\":NAME,\"value\":N}. FILE appears, or is replaced, only when\n"
            "all of it is written. All is of one revision: as it was at one moment.\n"
            "  --prefix TEXT   those that begin with TEXT: \"app/\" is the namespace app\n"
            "  --stale         do not make sure that it is not behind, nor of one revision\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_PREFIX) | BIT(FLAG_STALE),
        .run = cmd_counter_export,
    },
    {
        .group = "counter",
        .name = "import",
        .synopsis = "FILE|-",
        .summary = "set all counters that a file names",
        .help = "The file is as `bop counter export` writes it.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_counter_import,
    },
    {
        .name = "watch",
        .synopsis = "KIND [NAME [KEY]]",
        .summary = "tell what changes, as it changes",
        .help =
            "KIND is map, set, multimap, counter, lock, group, registry, session or names; the\n"
            "NAME of a session is its number. One event a line, until interrupted: revision,\n"
            "what happened, key, value. Connections that break and nodes that go are got over:\n"
            "each event comes once, in order. A line with resync says that events are missing,\n"
            "because no node has them any more.\n"
            "  --prefix KEY    keys that begin with KEY\n"
            "  --first KEY     keys from KEY on\n"
            "  --below KEY     keys before KEY\n"
            "  --previous      with the value that was there before\n"
            "  --snapshot      begin with how things stand\n"
            "  --revision N    begin with what came after revision N\n"
            "  --limit N       end after N events\n"
            "  --stale         stay with the servers given, whoever leads\n"
            "  bop watch map users --prefix admin/ --json\n",
        .values_min = 1,
        .values_max = 3,
        .flags = BIT(FLAG_PREFIX) | BIT(FLAG_FIRST) | BIT(FLAG_BELOW) | BIT(FLAG_PREVIOUS) |
                 BIT(FLAG_SNAPSHOT) | BIT(FLAG_REVISION) | BIT(FLAG_LIMIT) | BIT(FLAG_STALE),
        .run = cmd_watch,
    },
    {
        .group = "lock",
        .name = "",
        .synopsis = "NAME [-- COMMAND...]",
        .summary = "hold a lock, while a command runs",
        .help =
            "Waits for the lock, then runs COMMAND and gives the lock back when that ends, with\n"
            "its exit status. COMMAND finds the fencing token of the lock, which rises from "
            "holder\n"
            "to holder, in BOP_LOCK_TOKEN. Without a COMMAND the token is printed and the lock\n"
            "held until standard input ends. If bop is killed COMMAND gets SIGTERM, and the\n"
            "lock goes on to the next one after two seconds. Exit status 4 if the lock\n"
            "was not free in time; 1 if it was lost, in which case COMMAND gets SIGTERM.\n"
            "  --timeout SECONDS   wait at most so long for the lock; else for ever\n"
            "  --shared            with others that share it, but not with those that do not\n"
            "  --capacity N        a semaphore of N permits; all of its users say the same N\n"
            "  --permits N         so many of them; 1 if not given\n"
            "  --label TEXT        for those who list the lock\n"
            "  bop lock nightly --timeout 5 -- ./backup.sh\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_SHARED) | BIT(FLAG_CAPACITY) | BIT(FLAG_PERMITS) | BIT(FLAG_LABEL),
        .rest = true,
        .run = cmd_lock,
    },
    {
        .group = "lock",
        .name = "list",
        .synopsis = "NAME",
        .summary = "who holds a lock, and who waits for it",
        .help =
            "One request a line, in the order of the queue: ticket, fencing token or \"waits\",\n"
            "permits, session, label. Exit status 3 if there is no such lock.\n"
            "  --stale   what the server asked has, which may be behind\n",
        .values_min = 1,
        .values_max = 1,
        .flags = BIT(FLAG_STALE),
        .run = cmd_lock_list,
    },
    {
        .group = "lock",
        .name = "release",
        .synopsis = "NAME TICKET",
        .summary = "take a lock away from whoever holds it",
        .help =
            "TICKET is what `bop lock list` says. The request must be granted and have a label,\n"
            "by which it is adopted and released; its holder is told that it lost the lock,\n"
            "but may be in the middle of something: that is what the fencing token is for.\n"
            "Exit status 3 if there is no such request.\n",
        .values_min = 2,
        .values_max = 2,
        .run = cmd_lock_release,
    },
    {
        .group = "kv",
        .name = "check",
        .synopsis = "DIR",
        .summary = "check the integrity of a key-value store",
        .help =
            "Reads every page of the store in DIR, which nobody may have open for writing, and\n"
            "prints each problem found. Exit status 1 if there is any. A changed byte of a\n"
            "value cannot be noticed: pages have no checksum.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_kv_check,
    },
    {
        .group = "kv",
        .name = "stat",
        .synopsis = "DIR",
        .summary = "print sizes, tables and readers of a key-value store",
        .help = "Also sequences and the canary. Nobody may have the store open for writing.\n",
        .values_min = 1,
        .values_max = 1,
        .run = cmd_kv_stat,
    },
    {
        .group = "kv",
        .name = "dump",
        .synopsis = "DIR FILE|-",
        .summary = "write a key-value store as text",
        .help =
            "One JSON object a line: a heading, sequences and the canary, and each table with\n"
            "its entries in order. What is not UTF-8 is in base64, as \"key64\" and \"value64\".\n"
            "FILE appears, or is replaced, only when all of it is written.\n"
            "  --table NAME   this table only\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_TABLE),
        .run = cmd_kv_dump,
    },
    {
        .group = "kv",
        .name = "load",
        .synopsis = "DIR FILE|-",
        .summary = "make a key-value store from what dump wrote",
        .help = "DIR must hold no store, or one without tables. All of FILE is loaded or nothing,\n"
                "and it is on disk when the command ends.\n",
        .values_min = 2,
        .values_max = 2,
        .run = cmd_kv_load,
    },
    {
        .group = "kv",
        .name = "copy",
        .synopsis = "DIR TO",
        .summary = "copy a key-value store to another directory",
        .help = "TO, made if missing, must hold no store.\n"
                "  --compact   leave free pages out\n",
        .values_min = 2,
        .values_max = 2,
        .flags = BIT(FLAG_COMPACT),
        .run = cmd_kv_copy,
    },
};

static const struct cli_command behind_aof[] = {
    {
        .group = "token",
        .name = "new",
        .synopsis = "NAME NAMESPACE:RIGHT...",
        .summary = "make a token, and the entry that servers know it by",
        .help =
            "Prints what belongs in the file that bopd --tokens names, on all nodes; kill -HUP "
            "has\n"
            "them read it. It holds the token's SHA-256 only: the token itself goes to the file\n"
            "that --token-file names, which must not be there yet, else to standard error.\n"
            "A namespace is what a name has before its first '/'; \"\" are the names that have\n"
            "none, \"*\" is all. A right is read, write or admin, each with those before it;\n"
            "admin goes with \"*\" only.\n"
            "  bop token new billing billing:write --token-file billing.token >> tokens.yaml\n",
        .values_min = 2,
        .values_max = CLI_VALUES_MAX,
        .run = cmd_token_new,
    },
    {
        .name = "status",
        .synopsis = "",
        .summary = "who leads, and how each node is",
        .help =
            "Asks the servers given and all peers that they know. Lag is how many log entries a\n"
            "node has yet to apply that the leader has committed. Exit status 0 if a majority\n"
            "answers, is healthy and has a leader, else 1.\n",
        .run = cmd_status,
    },
    {
        .name = "demo",
        .synopsis = "",
        .summary = "three nodes, one killed in mid-stream, nothing lost",
        .help = "Starts three bopd on free ports of this machine with data under a temporary\n"
                "directory, writes this machine's package database and generated entries, kills\n"
                "the leader with SIGKILL in the middle, restarts it, and compares what each of\n"
                "the three nodes has with what was written. Exit status 0 only if nothing was\n"
                "lost, doubled or changed.\n"
                "  --bopd PATH    the daemon to start; else the one beside bop, else of PATH\n"
                "  --entries N    generated entries (100000)\n"
                "  --dir DIR      where data and logs go: an empty or new directory\n"
                "  --keep         leave the cluster running, and say how to talk to it\n"
                "  --no-color     no colors on a terminal (so does NO_COLOR)\n",
        .flags = BIT(FLAG_BOPD) | BIT(FLAG_ENTRIES) | BIT(FLAG_DIR) | BIT(FLAG_KEEP) |
                 BIT(FLAG_NO_COLOR),
        .run = cmd_demo,
    },
    {
        .name = "help",
        .synopsis = "[COMMAND]",
        .summary = "explain bop or a command of it",
        .help = "The same as --help.\n",
        .values_max = 3,
        .run = cmd_help,
    },
};

/* All in one, made when first asked for. */
static struct cli_command commands[COMMANDS_MAX];
static size_t command_count;

static void add_commands(const struct cli_command *some, size_t count)
{
    BOP_ASSERT(command_count + count <= COMMANDS_MAX);
    memcpy(commands + command_count, some, count * sizeof(*some));
    command_count += count;
}

const struct cli_command *args_commands(size_t *out_count)
{
    if (command_count == 0) {
        add_commands(before_aof, BOP_COUNT_OF(before_aof));
        add_commands(state_commands, state_command_count);
        add_commands(cluster_commands, cluster_command_count);
        add_commands(backup_commands, backup_command_count);
        add_commands(aof_commands, aof_command_count);
        add_commands(behind_aof, BOP_COUNT_OF(behind_aof));
    }
    *out_count = command_count;
    return commands;
}

/* ---- Help ---- */

static void print_line(const struct cli_command *command, FILE *out)
{
    char usage[64];

    snprintf(usage, sizeof(usage), "%s%s%s %s", command->group ? command->group : "",
             command->group && command->name[0] ? " " : "", command->name, command->synopsis);
    fprintf(out, "  %-26s %s\n", usage, command->summary);
}

static void print_commands(const char *group, FILE *out)
{
    size_t count;

    BOP_IGNORE(args_commands(&count));
    for (size_t i = 0; i < count; i++) {
        if (!group || (commands[i].group && strcmp(commands[i].group, group) == 0)) {
            print_line(&commands[i], out);
        }
    }
}

static void print_flags_everywhere(FILE *out)
{
    fputs(
        "\nFlags of every command:\n"
        "  --server HOST:PORT[,...]   servers of the cluster; one that answers is enough\n"
        "                             (BOP_SERVER, else 127.0.0.1:" CLI_PORT ")\n"
        "  --cluster NAME             refuse servers of a cluster of any other name\n"
        "  --timeout SECONDS          give a request up after so long (10; import 30)\n"
        "  --json                     results as JSON\n"
        "  --ca FILE                  speak TLS with servers that this CA vouches for (BOP_CA)\n"
        "  --cert FILE, --key FILE    show a certificate of your own (BOP_CERT, BOP_KEY)\n"
        "  --tls, --tls-name NAME     trust the system's CAs; what certificates call the servers\n"
        "  --token-file FILE          show the token in it (BOP_TOKEN_FILE, or BOP_TOKEN itself)\n"
        "  --help, --version\n",
        out);
}

static void print_bop(FILE *out)
{
    fputs("bop - talk to a BOP cluster\n"
          "\n"
          "Usage: bop [FLAGS] COMMAND [ARGUMENTS]\n"
          "\n"
          "Commands:\n",
          out);
    print_commands(NULL, out);
    print_flags_everywhere(out);
    fputs("\n"
          "Flags may stand anywhere; -- ends them. `bop help COMMAND` says more of each.\n"
          "\n"
          "Exit status:\n"
          "  0  done\n"
          "  1  failed: no server answers, no leader in time, a file cannot be read, ...\n"
          "  2  wrong usage\n"
          "  3  not found\n"
          "  4  the condition was not met; nothing was changed\n"
          "Of `bop aof`: 1 wrong usage, 2 not found, 3 refused by the object store, 4 failed or\n"
          "damage was found.\n"
          "\n"
          "To try it:\n"
          "  bopd --dev &\n"
          "  bop map put greetings hello world\n"
          "  bop map get greetings hello\n"
          "  bop status\n",
          out);
}

static void print_command(const struct cli_command *command, FILE *out)
{
    const char *group = command->group ? command->group : "";
    const char *space = command->group && command->name[0] ? " " : "";

    fprintf(out, "bop %s%s%s - %s\n\nUsage: bop [FLAGS] %s%s%s%s%s\n\n", group, space,
            command->name, command->summary, group, space, command->name,
            command->synopsis[0] ? " " : "", command->synopsis);
    fputs(command->help, out);
    if (command->flags & BIT(FLAG_IF_ABSENT)) {
        fputs(conditions_help, out);
    }
    if (command->flags & BIT(FLAG_ENDPOINT)) {
        fputs(aof_objects_help, out);
    }
    print_flags_everywhere(out);
}

void args_print_help(const struct cli_args *args, FILE *out)
{
    if (args->command && args->command->run != cmd_help) {
        print_command(args->command, out);
    } else if (args->group) {
        fprintf(out, "Usage: bop [FLAGS] %s COMMAND [ARGUMENTS]\n\nCommands:\n", args->group);
        print_commands(args->group, out);
        if (strcmp(args->group, "aof") == 0) {
            fputs(aof_group_help, out);
        }
        print_flags_everywhere(out);
    } else {
        print_bop(out);
    }
}

int cmd_help(const struct cli_args *args)
{
    struct cli_args about = {0};

    if (args->value_count > 0) {
        const char *first = args->values[0];
        char second[64] = "";

        for (size_t i = 1; i < args->value_count; i++) {
            size_t used = strlen(second);

            snprintf(second + used, sizeof(second) - used, "%s%s", i > 1 ? " " : "",
                     args->values[i]);
        }
        about.group = args_is_group(first) ? first : NULL;
        about.command = about.group ? (second[0] ? args_find(first, second) : NULL)
                                    : args_find(NULL, first);
        if (!about.command && (second[0] || !about.group)) {
            return cli_complain(CLI_USAGE, "no command %s%s%s; `bop help` lists all", first,
                                second[0] ? " " : "", second);
        }
    }
    args_print_help(&about, stdout);
    return cli_finish_output(CLI_OK);
}
