/* What the command line is understood as, and what is said about one that is not. */
#include "args.h"
#include "suggest.h"
#include "tap.h"

/* Parse a command line, cut at spaces. */
static int parse(const char *line, struct cli_args *out, struct bop_error *err)
{
    static char name[] = "bop", copy[16384];
    char *argv[128] = {name}, *rest = copy;
    int argc = 1;

    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word; (word = strsep(&rest, " "));) {
        REQUIRE(argc < 128);
        if (*word) {
            argv[argc++] = word;
        }
    }
    *err = (struct bop_error){0};
    return args_parse(argc, argv, NULL, out, err);
}

static void refused(const char *line, const char *message)
{
    struct cli_args args;
    struct bop_error err;

    CHECK_EQ(parse(line, &args, &err), BOP_EINVAL);
    CHECK_STR_EQ(err.message, message);
}

TEST(args, find_the_command_and_its_values)
{
    struct cli_args args;
    struct bop_error err;

    REQUIRE_EQ(parse("map put m k v", &args, &err), 0);
    CHECK(args.command->run == cmd_map_put);
    CHECK_EQ(args.value_count, 3);
    CHECK_STR_EQ(args.values[0], "m");
    CHECK_STR_EQ(args.values[2], "v");
    CHECK_STR_EQ(args.servers[0].text, "127.0.0.1:4700");
    CHECK(!args.servers_given);
    CHECK_EQ(args.timeout_ms, 0);
}

TEST(args, take_flags_anywhere)
{
    struct cli_args args;
    struct bop_error err;

    REQUIRE_EQ(
        parse("--json map --timeout=0.5 get m --server a:1,b,[::1],[::1]:9 k --stale", &args, &err),
        0);
    CHECK(args.json && args.stale && args.servers_given);
    CHECK_EQ(args.timeout_ms, 500);
    CHECK_EQ(args.server_count, 4);
    CHECK_STR_EQ(args.servers[0].text, "a:1");
    CHECK_STR_EQ(args.servers[1].text, "b:4700");
    CHECK_STR_EQ(args.servers[2].text, "[::1]:4700");
    CHECK_STR_EQ(args.servers[3].text, "[::1]:9");
}

TEST(args, take_words_with_dashes_behind_two_dashes)
{
    struct cli_args args;
    struct bop_error err;

    REQUIRE_EQ(parse("map put m -- --json -x", &args, &err), 0);
    CHECK(!args.json);
    CHECK_STR_EQ(args.values[1], "--json");
    CHECK_STR_EQ(args.values[2], "-x");
}

TEST(args, take_negative_numbers_and_a_single_dash_for_words)
{
    struct cli_args args;
    struct bop_error err;

    REQUIRE_EQ(parse("counter add c -5", &args, &err), 0);
    CHECK_STR_EQ(args.values[1], "-5");
    REQUIRE_EQ(parse("map import m -", &args, &err), 0);
    CHECK_STR_EQ(args.values[1], "-");
}

TEST(args, take_one_condition)
{
    struct cli_args args;
    struct bop_error err;

    REQUIRE_EQ(parse("map put m k v --if-version 18446744073709551615", &args, &err), 0);
    CHECK_EQ(args.only_if.condition, BOP_IF_VERSION);
    CHECK_EQ(args.only_if.version, UINT64_MAX);
    REQUIRE_EQ(parse("map del m k --if-value x", &args, &err), 0);
    CHECK_EQ(args.only_if.condition, BOP_IF_VALUE);
    CHECK_SLICE_EQ(args.only_if.expected, bytes("x"));
    refused("map put m k v --if-absent --if-value x",
            "only one of --if-absent, --if-present, --if-version and --if-value can be given");
}

TEST(args, take_servers_from_the_environment)
{
    char name[] = "bop", command[] = "status";
    char *argv[] = {name, command, NULL};
    struct cli_args args;
    struct bop_error err = {0};

    REQUIRE_EQ(args_parse(2, argv, "h:1,i:2", &args, &err), 0);
    CHECK_EQ(args.server_count, 2);
    CHECK_STR_EQ(args.servers[1].text, "i:2");
    CHECK(!args.servers_given);
    REQUIRE_EQ(args_parse(2, argv, "", &args, &err), 0);
    CHECK_STR_EQ(args.servers[0].text, "127.0.0.1:4700");
    CHECK_EQ(args_parse(2, argv, "h,,i", &args, &err), BOP_EINVAL);
    CHECK_STR_HAS(err.message, "BOP_SERVER: an empty address");
}

TEST(args, do_not_look_further_once_help_is_asked_for)
{
    struct cli_args args;
    struct bop_error err;

    REQUIRE_EQ(parse("map put --help", &args, &err), 0);
    CHECK(args.help && args.command->run == cmd_map_put);
    REQUIRE_EQ(parse("map -h", &args, &err), 0);
    CHECK(args.help && !args.command);
    CHECK_STR_EQ(args.group, "map");
    REQUIRE_EQ(parse("--version", &args, &err), 0);
    CHECK(args.version);
}

TEST(args, suggest_what_was_meant)
{
    refused("mpa put", "no command mpa; did you mean `bop map`?");
    refused("stauts", "no command stauts; did you mean `bop status`?");
    refused("put m k v", "no command put; did you mean `bop map put`?");
    refused("map gte m k", "map has no command gte; did you mean `bop map get`?");
    refused("map x", "map has no command x; `bop map --help` lists all");
    refused("frobnicate", "no command frobnicate; `bop help` lists all");
    refused("status --sever x", "no flag --sever; did you mean --server?");
    refused("status --jsno", "no flag --jsno; did you mean --json?");
    refused("status --unheard-of",
            "no flag --unheard-of; `bop help` lists all (a value that begins with a dash goes "
            "behind --)");
}

TEST(args, say_what_is_wrong)
{
    refused("", "no command given; `bop help` lists all");
    refused("map", "map wants a command; `bop map --help` lists all");
    refused("map put m k", "too few arguments; use: bop map put MAP KEY VALUE");
    refused("map get m k v", "too many arguments; use: bop map get MAP KEY");
    refused("map put a b c d e f g", "too many arguments, from e on");
    refused("map put a b c d e f g h", "too many arguments, from e on");
    refused("status --keep", "--keep is no flag of status; see `bop status --help`");
    refused("status --json=1", "--json takes no value");
    refused("status --server", "--server wants a value: --server HOST:PORT[,HOST:PORT...]");
    refused("status --timeout 0", "--timeout 0: not a number of seconds from 0.001 to 86400");
    refused("status --timeout nan", "--timeout nan: not a number of seconds from 0.001 to 86400");
    refused("status --timeout 1s", "--timeout 1s: not a number of seconds from 0.001 to 86400");
    refused("demo --entries 0", "--entries 0: not a whole number from 1 to 5000000");
    refused("map scan m --limit -1", "--limit -1: not a whole number from 1 to "
                                     "18446744073709551615");
    refused("map scan m --limit 18446744073709551616",
            "--limit 18446744073709551616: not a whole number from 1 to 18446744073709551615");
}

TEST(args, bound_the_servers)
{
    char line[8192] = "status --server a";
    struct cli_args args;
    struct bop_error err;

    for (int i = 1; i < 64; i++) {
        strcat(line, ",a");
    }
    CHECK_EQ(parse(line, &args, &err), 0);
    CHECK_EQ(args.server_count, 64);
    strcat(line, ",a");
    refused(line, "more than 64 servers");
    memset(line, 0, sizeof(line));
    strcpy(line, "status --server ");
    memset(line + strlen(line), 'x', 280);
    CHECK_EQ(parse(line, &args, &err), BOP_EINVAL);
    CHECK_STR_HAS(err.message, "is too long");
}

TEST(suggest, counts_edits)
{
    char longest[64];

    CHECK_EQ(suggest_distance("", ""), 0);
    CHECK_EQ(suggest_distance("abc", "abc"), 0);
    CHECK_EQ(suggest_distance("", "abc"), 3);
    CHECK_EQ(suggest_distance("abc", "ab"), 1);
    CHECK_EQ(suggest_distance("abc", "axc"), 1);
    CHECK_EQ(suggest_distance("abc", "acb"), 1); /* A swap is one slip. */
    CHECK_EQ(suggest_distance("kitten", "sitting"), 3);
    memset(longest, 'a', sizeof(longest));
    longest[41] = '\0';
    CHECK_EQ(suggest_distance(longest, "a"), SIZE_MAX);
    longest[40] = '\0';
    CHECK_EQ(suggest_distance(longest, "a"), 39);
}

TEST(suggest, takes_the_nearest_and_nothing_far)
{
    const char *const names[] = {"import", "export", "size"};

    CHECK_STR_EQ(suggest_nearest("imprt", names, 3), "import");
    CHECK_STR_EQ(suggest_nearest("exprot", names, 3), "export");
    CHECK_PTR_EQ(suggest_nearest("zzz", names, 3), NULL);
    CHECK_PTR_EQ(suggest_nearest("x", names, 3), NULL);
}

TEST(args, take_flags_of_trust_with_every_command)
{
    struct cli_args args;
    struct bop_error err;

    REQUIRE_EQ(
        parse("status --ca a --cert=c --key k --tls-name n --token-file t --tls", &args, &err), 0);
    CHECK_STR_EQ(args.trust.ca, "a");
    CHECK_STR_EQ(args.trust.certificate, "c");
    CHECK_STR_EQ(args.trust.key, "k");
    CHECK_STR_EQ(args.trust.server_name, "n");
    CHECK_STR_EQ(args.trust.token_file, "t");
    CHECK(args.trust.tls);
    /* Of the tools of the log it is the object store's. */
    REQUIRE_EQ(parse("aof verify d --endpoint https://h --ca a", &args, &err), 0);
    CHECK_STR_EQ(args.aof.ca, "a");
    refused("map get m k --cret x", "no flag --cret; did you mean --cert?");
    refused("token new app", "too few arguments; use: bop token new NAME NAMESPACE:RIGHT...");
    REQUIRE_EQ(parse("token new app app:write *:read", &args, &err), 0);
    CHECK(args.command->run == cmd_token_new);
}
