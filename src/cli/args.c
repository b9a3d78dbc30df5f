/*
 * The command line: one table of flags, with how each is read, and the way from
 * words to a command. What commands there are is in commands.c.
 */
#include "args.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "suggest.h"

/* ---- Values of flags ---- */

static int parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *out_number,
                        const char *flag, struct bop_error *err)
{
    uint64_t number = 0;
    bool good = text[0] != '\0';

    for (const char *at = text; *at && good; at++) {
        unsigned digit = (unsigned)(*at - '0');

        good = *at >= '0' && *at <= '9' && number <= (UINT64_MAX - digit) / 10;
        number = good ? number * 10 + digit : number;
    }
    if (!good || number < least || number > most) {
        return bop_error_say(err, BOP_EINVAL,
                             "%s %.40s: not a whole number from %" PRIu64 " to %" PRIu64, flag,
                             text, least, most);
    }
    *out_number = number;
    return 0;
}

/* Seconds with a fraction: the timeout of a script may be below one. */
static int parse_seconds(const char *text, const char *flag, uint64_t *out_ms,
                         struct bop_error *err)
{
    char *end = NULL;
    double seconds = strtod(text, &end);

    if (end == text || *end || !(seconds >= 0.001) || seconds > CLI_TIMEOUT_MAX_S) {
        return bop_error_say(err, BOP_EINVAL, "%s %.40s: not a number of seconds from 0.001 to %d",
                             flag, text, CLI_TIMEOUT_MAX_S);
    }
    *out_ms = (uint64_t)(seconds * 1000 + 0.5);
    return 0;
}

/* True if a host has a port behind it: a colon that is not inside an IPv6 address. */
static bool has_port(const char *text, size_t size)
{
    const char *bracket = memchr(text, ']', size);
    size_t from = bracket ? (size_t)(bracket - text) : 0;

    return memchr(text + from, ':', size - from) != NULL;
}

static int add_server(struct cli_args *args, const char *text, size_t size, struct bop_error *err)
{
    int length;

    if (args->server_count == BOP_CLIENT_ENDPOINTS_MAX) {
        return bop_error_say(err, BOP_EINVAL, "more than %d servers", BOP_CLIENT_ENDPOINTS_MAX);
    }
    if (size == 0) {
        return bop_error_say(err, BOP_EINVAL,
                             "an empty address among the servers; write HOST:PORT[,HOST:PORT...]");
    }
    length = size > BOP_ADDRESS_MAX
                 ? -1
                 : snprintf(args->servers[args->server_count].text, sizeof(args->servers[0].text),
                            "%.*s%s", (int)size, text, has_port(text, size) ? "" : ":" CLI_PORT);
    if (length < 0 || length > BOP_ADDRESS_MAX) {
        return bop_error_say(err, BOP_EINVAL, "the address %.40s... is too long", text);
    }
    args->server_count++;
    return 0;
}

static int add_servers(struct cli_args *args, const char *list, struct bop_error *err)
{
    int rc = 0;

    while (rc == 0) {
        size_t size = strcspn(list, ",");

        rc = add_server(args, list, size, err);
        list += size;
        if (*list++ == '\0') {
            break;
        }
    }
    return rc;
}

/* ---- Flags ---- */

struct flag {
    const char *name;
    const char *value; /* How its value is called; NULL: it has none. */
};

static const struct flag flags[FLAG_COUNT] = {
    [FLAG_SERVER] = {"--server", "HOST:PORT[,HOST:PORT...]"},
    [FLAG_CLUSTER] = {"--cluster", "NAME"},
    [FLAG_TIMEOUT] = {"--timeout", "SECONDS"},
    [FLAG_JSON] = {"--json", NULL},
    [FLAG_HELP] = {"--help", NULL},
    [FLAG_VERSION] = {"--version", NULL},
    [FLAG_IF_ABSENT] = {"--if-absent", NULL},
    [FLAG_IF_PRESENT] = {"--if-present", NULL},
    [FLAG_IF_VERSION] = {"--if-version", "N"},
    [FLAG_IF_VALUE] = {"--if-value", "VALUE"},
    [FLAG_STALE] = {"--stale", NULL},
    [FLAG_LIMIT] = {"--limit", "N"},
    [FLAG_KEYS] = {"--keys", NULL},
    [FLAG_DPKG] = {"--dpkg", NULL},
    [FLAG_BOPD] = {"--bopd", "PATH"},
    [FLAG_KEEP] = {"--keep", NULL},
    [FLAG_ENTRIES] = {"--entries", "N"},
    [FLAG_DIR] = {"--dir", "DIR"},
    [FLAG_NO_COLOR] = {"--no-color", NULL},
    [FLAG_COMPACT] = {"--compact", NULL},
    [FLAG_TABLE] = {"--table", "NAME"},
    [FLAG_FROM] = {"--from", "RECORD|KEY"},
    [FLAG_TO] = {"--to", "RECORD|KEY"},
    [FLAG_SEGMENT] = {"--segment", "GENERATION"},
    [FLAG_RATE] = {"--rate", "BYTES"},
    [FLAG_SIZE] = {"--size", "BYTES"},
    [FLAG_BATCH] = {"--batch", "RECORDS"},
    [FLAG_SEGMENT_BYTES] = {"--segment-bytes", "BYTES"},
    [FLAG_TIER] = {"--tier", "0|1|2"},
    [FLAG_ENDPOINT] = {"--endpoint", "URL"},
    [FLAG_BUCKET] = {"--bucket", "NAME"},
    [FLAG_REGION] = {"--region", "NAME"},
    [FLAG_PREFIX] = {"--prefix", "KEY"},
    [FLAG_CA] = {"--ca", "FILE"},
    [FLAG_NAME] = {"--name", "NAME"},
    [FLAG_RECORDS] = {"--records", NULL},
    [FLAG_PACKED] = {"--packed", NULL},
    [FLAG_OBJECTS] = {"--objects", NULL},
    [FLAG_RAW] = {"--raw", NULL},
    [FLAG_SKIP_DAMAGE] = {"--skip-damage", NULL},
    [FLAG_RENUMBER] = {"--renumber", NULL},
    [FLAG_RESUME] = {"--resume", NULL},
    [FLAG_DRY_RUN] = {"--dry-run", NULL},
    [FLAG_FORCE] = {"--force", NULL},
    [FLAG_REPAIR] = {"--repair", NULL},
    [FLAG_EVENTS] = {"--events", NULL},
    [FLAG_VOTER] = {"--voter", NULL},
    [FLAG_TLS] = {"--tls", NULL},
    [FLAG_CERT] = {"--cert", "FILE"},
    [FLAG_KEY] = {"--key", "FILE"},
    [FLAG_TLS_NAME] = {"--tls-name", "NAME"},
    [FLAG_TOKEN_FILE] = {"--token-file", "FILE"},
    [FLAG_SHARED] = {"--shared", NULL},
    [FLAG_PERMITS] = {"--permits", "N"},
    [FLAG_CAPACITY] = {"--capacity", "N"},
    [FLAG_LABEL] = {"--label", "TEXT"},
    [FLAG_INFO] = {"--info", "TEXT"},
    [FLAG_TTL] = {"--ttl", "SECONDS"},
    [FLAG_WITH_TTL] = {"--with-ttl", NULL},
    [FLAG_DATA] = {"--data", "DIR"},
    [FLAG_ID] = {"--id", "N"},
    [FLAG_PEER] = {"--peer", "ID=HOST:PORT"},
    [FLAG_SETTLE] = {"--settle", NULL},
    [FLAG_PREVIOUS] = {"--previous", NULL},
    [FLAG_SNAPSHOT] = {"--snapshot", NULL},
    [FLAG_REVISION] = {"--revision", "N"},
    [FLAG_FIRST] = {"--first", "KEY"},
    [FLAG_BELOW] = {"--below", "KEY"},
};

static int set_condition(struct cli_args *args, enum bop_condition condition, struct bop_error *err)
{
    if (args->only_if.condition != BOP_IF_ALWAYS) {
        return bop_error_say(err, BOP_EINVAL,
                             "only one of --if-absent, --if-present, --if-version "
                             "and --if-value can be given");
    }
    args->only_if.condition = condition;
    return 0;
}

/* Bytes, or with a letter behind them KiB, MiB or GiB. */
static int parse_bytes(const char *text, uint64_t least, uint64_t most, uint64_t *out_bytes,
                       const char *flag, struct bop_error *err)
{
    static const char letters[] = "KMG";
    size_t length = strlen(text);
    const char *letter = length > 1 ? strchr(letters, text[length - 1]) : NULL;
    unsigned shift = letter && *letter ? 10 * (unsigned)(letter - letters + 1) : 0;
    char digits[24];
    uint64_t number = 0;

    if (length - (shift > 0) >= sizeof(digits)) {
        length = sizeof(digits) - 1;
    }
    snprintf(digits, sizeof(digits), "%.*s", (int)(length - (shift > 0)), text);
    if (parse_number(digits, 0, most >> shift, &number, flag, NULL) < 0 ||
        number << shift < least) {
        return bop_error_say(err, BOP_EINVAL,
                             "%s %.40s: not a number of bytes from %" PRIu64 " to %" PRIu64
                             " (K, M and G may follow)",
                             flag, text, least, most);
    }
    *out_bytes = number << shift;
    return 0;
}

static int set_tier(struct cli_aof_args *aof, const char *value, struct bop_error *err)
{
    uint64_t tier;
    int rc = parse_number(value, 0, 2, &tier, "--tier", err);

    aof->tier = rc == 0 ? (unsigned)tier + 1 : 0;
    return rc;
}

/* Flags of the group `aof`. BOP_EINVAL without a message: it is none. */
static int set_aof_flag(struct cli_aof_args *aof, enum cli_flag flag, const char *value,
                        struct bop_error *err)
{
    switch ((int)flag) {
    case FLAG_SEGMENT:
        return parse_number(value, 1, UINT64_MAX, &aof->segment, "--segment", err);
    case FLAG_RATE:
        return parse_bytes(value, 4096, UINT64_C(1) << 40, &aof->rate, "--rate", err);
    case FLAG_SIZE:
        return parse_bytes(value, 1, UINT64_C(1) << 26, &aof->size, "--size", err);
    case FLAG_BATCH:
        return parse_number(value, 1, 1000000, &aof->batch, "--batch", err);
    case FLAG_SEGMENT_BYTES:
        return parse_bytes(value, 4096, UINT64_C(1) << 40, &aof->segment_bytes, "--segment-bytes",
                           err);
    case FLAG_TIER:
        return set_tier(aof, value, err);
    default:
        return BOP_EINVAL;
    }
}

/* Flags of the group `aof` that are texts, or have no value. NULL: it is none. */
static const char **aof_text(struct cli_aof_args *aof, enum cli_flag flag)
{
    switch ((int)flag) {
    case FLAG_ENDPOINT:
        return &aof->endpoint;
    case FLAG_BUCKET:
        return &aof->bucket;
    case FLAG_REGION:
        return &aof->region;
    case FLAG_PREFIX:
        return &aof->prefix;
    case FLAG_FROM:
        return &aof->from_text;
    case FLAG_TO:
        return &aof->to_text;
    case FLAG_NAME:
        return &aof->name;
    default:
        return NULL;
    }
}

static bool *aof_switch(struct cli_aof_args *aof, enum cli_flag flag)
{
    switch ((int)flag) {
    case FLAG_RECORDS:
        return &aof->records;
    case FLAG_PACKED:
        return &aof->packed;
    case FLAG_OBJECTS:
        return &aof->objects;
    case FLAG_RAW:
        return &aof->raw;
    case FLAG_SKIP_DAMAGE:
        return &aof->skip_damage;
    case FLAG_RENUMBER:
        return &aof->renumber;
    case FLAG_RESUME:
        return &aof->resume;
    case FLAG_DRY_RUN:
        return &aof->dry_run;
    case FLAG_FORCE:
        return &aof->force;
    case FLAG_REPAIR:
        return &aof->repair;
    case FLAG_EVENTS:
        return &aof->events;
    default:
        return NULL;
    }
}

static int set_flag_of_aof(struct cli_aof_args *aof, enum cli_flag flag, const char *value,
                           struct bop_error *err)
{
    const char **text = aof_text(aof, flag);
    bool *on = aof_switch(aof, flag);

    if (text) {
        *text = value;
        return 0;
    }
    if (on) {
        *on = true;
        return 0;
    }
    return set_aof_flag(aof, flag, value, err);
}

/* Flags about TLS and tokens. False: it is none. */
static bool set_flag_of_trust(struct cli_args *args, enum cli_flag flag, const char *value)
{
    struct cli_trust *trust = &args->trust;

    switch ((int)flag) {
    case FLAG_TLS:
        trust->tls = true;
        return true;
    case FLAG_CA:
        trust->ca = value;
        args->aof.ca = value; /* Of an object store, for the group `aof`. */
        return true;
    case FLAG_CERT:
        trust->certificate = value;
        return true;
    case FLAG_KEY:
        trust->key = value;
        return true;
    case FLAG_TLS_NAME:
        trust->server_name = value;
        return true;
    case FLAG_TOKEN_FILE:
        trust->token_file = value;
        return true;
    default:
        return false;
    }
}

static int add_peer(struct cli_args *args, const char *value, struct bop_error *err)
{
    if (args->peer_count == CLI_PEERS_MAX) {
        return bop_error_say(err, BOP_EINVAL, "more than %d times --peer", CLI_PEERS_MAX);
    }
    args->peers[args->peer_count++] = value;
    return 0;
}

static int set_flag(struct cli_args *args, enum cli_flag flag, const char *value,
                    struct bop_error *err)
{
    switch (flag) {
    case FLAG_SERVER:
        args->servers_given = true;
        return add_servers(args, value, err);
    case FLAG_CLUSTER:
        args->cluster = value;
        return 0;
    case FLAG_TIMEOUT:
        return parse_seconds(value, "--timeout", &args->timeout_ms, err);
    case FLAG_JSON:
        args->json = true;
        return 0;
    case FLAG_HELP:
        args->help = true;
        return 0;
    case FLAG_VERSION:
        args->version = true;
        return 0;
    case FLAG_IF_ABSENT:
        return set_condition(args, BOP_IF_ABSENT, err);
    case FLAG_IF_PRESENT:
        return set_condition(args, BOP_IF_PRESENT, err);
    case FLAG_IF_VERSION:
        if (parse_number(value, 1, UINT64_MAX, &args->only_if.version, "--if-version", err) < 0) {
            return BOP_EINVAL;
        }
        return set_condition(args, BOP_IF_VERSION, err);
    case FLAG_IF_VALUE:
        args->only_if.expected = bop_slice_cstr(value);
        return set_condition(args, BOP_IF_VALUE, err);
    case FLAG_STALE:
        args->stale = true;
        return 0;
    case FLAG_LIMIT:
        return parse_number(value, 1, UINT64_MAX, &args->limit, "--limit", err);
    case FLAG_KEYS:
        args->keys = true;
        return 0;
    case FLAG_VOTER:
        args->voter = true;
        return 0;
    case FLAG_DPKG:
        args->dpkg = true;
        return 0;
    case FLAG_BOPD:
        args->bopd = value;
        return 0;
    case FLAG_KEEP:
        args->keep = true;
        return 0;
    case FLAG_ENTRIES:
        return parse_number(value, 1, CLI_DEMO_ENTRIES_MAX, &args->entries, "--entries", err);
    case FLAG_DIR:
        args->dir = value;
        return 0;
    case FLAG_NO_COLOR:
        args->no_color = true;
        return 0;
    case FLAG_COMPACT:
        args->compact = true;
        return 0;
    case FLAG_TABLE:
        args->table = value;
        return 0;
    case FLAG_SHARED:
        args->shared = true;
        return 0;
    case FLAG_PERMITS:
        return parse_number(value, 1, UINT32_MAX, &args->permits, "--permits", err);
    case FLAG_CAPACITY:
        return parse_number(value, 1, UINT32_MAX, &args->capacity, "--capacity", err);
    case FLAG_LABEL:
        args->label = value;
        return 0;
    case FLAG_INFO:
        args->info = value;
        return 0;
    case FLAG_DATA:
        args->data = value;
        return 0;
    case FLAG_ID:
        return parse_number(value, 1, UINT64_MAX, &args->id, "--id", err);
    case FLAG_PEER:
        return add_peer(args, value, err);
    case FLAG_TTL:
        return parse_seconds(value, "--ttl", &args->ttl_ms, err);
    case FLAG_WITH_TTL:
        args->with_ttl = true;
        return 0;
    case FLAG_SETTLE:
        args->settle = true;
        return 0;
    case FLAG_PREVIOUS:
        args->previous = true;
        return 0;
    case FLAG_SNAPSHOT:
        args->snapshot = true;
        return 0;
    case FLAG_REVISION:
        return parse_number(value, 1, UINT64_MAX, &args->revision, "--revision", err);
    case FLAG_FIRST:
        args->first = value;
        return 0;
    case FLAG_BELOW:
        args->below = value;
        return 0;
    default:
        return set_flag_of_trust(args, flag, value) ? 0
                                                    : set_flag_of_aof(&args->aof, flag, value, err);
    }
}

static int unknown_flag(const char *word, size_t size, struct bop_error *err)
{
    const char *names[FLAG_COUNT];
    const char *nearest;
    char name[64];

    for (size_t i = 0; i < FLAG_COUNT; i++) {
        names[i] = flags[i].name;
    }
    snprintf(name, sizeof(name), "%.*s", (int)size, word);
    nearest = suggest_nearest(name, names, FLAG_COUNT);
    if (nearest) {
        return bop_error_say(err, BOP_EINVAL, "no flag %s; did you mean %s?", name, nearest);
    }
    return bop_error_say(err, BOP_EINVAL,
                         "no flag %s; `bop help` lists all (a value that begins with a dash goes "
                         "behind --)",
                         name);
}

/* Which flag a word is; BOP_EINVAL for one that is none. */
static int find_flag(const char *word, size_t size, struct bop_error *err)
{
    if (size == 2 && memcmp(word, "-h", 2) == 0) {
        return FLAG_HELP;
    }
    for (int i = 0; i < FLAG_COUNT; i++) {
        if (strlen(flags[i].name) == size && memcmp(flags[i].name, word, size) == 0) {
            return i;
        }
    }
    return unknown_flag(word, size, err);
}

/* ---- Words ---- */

struct parse {
    struct cli_args *args;
    /* Group and name first, which are up to three, and one too many: more are not looked at. */
    const char *words[CLI_VALUES_MAX + 4];
    size_t word_count;
    size_t words_before; /* Of these, in front of "--". */
    cli_flag_set seen;
};

/* One flag at argv[*at], which moves on to its value if that is the next word. */
static int take_flag(struct parse *parse, int argc, char **argv, int *at, struct bop_error *err)
{
    const char *word = argv[*at];
    size_t size = strcspn(word, "=");
    const char *value = word[size] ? word + size + 1 : NULL;
    int flag = find_flag(word, size, err);

    if (flag < 0) {
        return flag;
    }
    if (flags[flag].value && !value) {
        if (*at + 1 == argc) {
            return bop_error_say(err, BOP_EINVAL, "%s wants a value: %s %s", flags[flag].name,
                                 flags[flag].name, flags[flag].value);
        }
        value = argv[++*at];
    } else if (!flags[flag].value && value) {
        return bop_error_say(err, BOP_EINVAL, "%s takes no value", flags[flag].name);
    }
    parse->seen |= FLAG_BIT(flag);
    return set_flag(parse->args, (enum cli_flag)flag, value, err);
}

static bool looks_like_flag(const char *word)
{
    return word[0] == '-' && word[1] != '\0' && !(word[1] >= '0' && word[1] <= '9');
}

static int take_words(struct parse *parse, int argc, char **argv, struct bop_error *err)
{
    bool only_words = false;
    int rc = 0;

    for (int at = 1; at < argc && rc == 0; at++) {
        if (!only_words && strcmp(argv[at], "--") == 0) {
            only_words = true;
            parse->words_before = parse->word_count;
            parse->args->rest = argv + at + 1;
        } else if (!only_words && looks_like_flag(argv[at])) {
            rc = take_flag(parse, argc, argv, &at, err);
        } else if (parse->word_count < BOP_COUNT_OF(parse->words)) {
            parse->words[parse->word_count++] = argv[at];
        }
    }
    return rc;
}

/* ---- Commands ---- */

const struct cli_command *args_find(const char *group, const char *name)
{
    size_t count;
    const struct cli_command *commands = args_commands(&count);

    for (size_t i = 0; i < count; i++) {
        bool same_group = group ? commands[i].group && strcmp(group, commands[i].group) == 0
                                : !commands[i].group;

        if (same_group && strcmp(name, commands[i].name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

bool args_is_group(const char *name)
{
    size_t count;
    const struct cli_command *commands = args_commands(&count);

    for (size_t i = 0; i < count; i++) {
        if (commands[i].group && strcmp(commands[i].group, name) == 0) {
            return true;
        }
    }
    return false;
}

/* No such command at the top: perhaps mistyped, or said without its group. */
static int unknown_command(const char *word, struct bop_error *err)
{
    const char *names[COMMANDS_MAX], *nearest;
    size_t count, used = 0;
    const struct cli_command *commands = args_commands(&count);

    for (size_t i = 0; i < count; i++) {
        if (commands[i].group && strcmp(commands[i].name, word) == 0) {
            return bop_error_say(err, BOP_EINVAL, "no command %.40s; did you mean `bop %s %s`?",
                                 word, commands[i].group, word);
        }
        names[used++] = commands[i].group ? commands[i].group : commands[i].name;
    }
    nearest = suggest_nearest(word, names, used);
    if (nearest) {
        return bop_error_say(err, BOP_EINVAL, "no command %.40s; did you mean `bop %s`?", word,
                             nearest);
    }
    return bop_error_say(err, BOP_EINVAL, "no command %.40s; `bop help` lists all", word);
}

static int unknown_of_group(const char *group, const char *word, struct bop_error *err)
{
    const char *names[COMMANDS_MAX], *nearest;
    size_t count, used = 0;
    const struct cli_command *commands = args_commands(&count);

    for (size_t i = 0; i < count; i++) {
        if (commands[i].group && strcmp(commands[i].group, group) == 0) {
            names[used++] = commands[i].name;
        }
    }
    nearest = suggest_nearest(word, names, used);
    if (nearest) {
        return bop_error_say(err, BOP_EINVAL, "%s has no command %.40s; did you mean `bop %s %s`?",
                             group, word, group, nearest);
    }
    return bop_error_say(err, BOP_EINVAL, "%s has no command %.40s; `bop %s --help` lists all",
                         group, word, group);
}

/* A command whose name has two words. */
static const struct cli_command *find_two_words(const char *group, const char *first,
                                                const char *second)
{
    char name[64];
    int length = snprintf(name, sizeof(name), "%s %s", first, second);

    return length > 0 && (size_t)length < sizeof(name) ? args_find(group, name) : NULL;
}

/* Find the command that the first words name. */
static int resolve(struct parse *parse, size_t *out_used, struct bop_error *err)
{
    struct cli_args *args = parse->args;
    const char *word = parse->words[0];

    *out_used = 0;
    if (parse->word_count == 0) {
        return 0;
    }
    *out_used = 1;
    if (!args_is_group(word)) {
        args->command = args_find(NULL, word);
        return args->command ? 0 : unknown_command(word, err);
    }
    args->group = word;
    if (parse->word_count == 1) {
        return 0;
    }
    if (parse->word_count > 2) {
        *out_used = 3;
        args->command = find_two_words(word, parse->words[1], parse->words[2]);
        if (args->command) {
            return 0;
        }
    }
    *out_used = 2;
    args->command = args_find(word, parse->words[1]);
    if (!args->command) {
        /* A group may have a command without a name. */
        args->command = args_find(word, "");
        *out_used = args->command ? 1 : 2;
    }
    return args->command ? 0 : unknown_of_group(word, parse->words[1], err);
}

static void full_name(const struct cli_command *command, char *out_name, size_t size)
{
    snprintf(out_name, size, "%s%s%s", command->group ? command->group : "",
             command->group && command->name[0] ? " " : "", command->name);
}

/* A place in a log is a number; in a map it is a key, and any text is one. */
static int check_bounds(struct cli_args *args, struct bop_error *err)
{
    struct cli_aof_args *aof = &args->aof;
    int rc = 0;

    if (!args->command->group || strcmp(args->command->group, "aof") != 0) {
        return 0;
    }
    if (aof->from_text) {
        rc = parse_number(aof->from_text, 1, INT64_MAX, &aof->from, "--from", err);
    }
    if (rc == 0 && aof->to_text) {
        rc = parse_number(aof->to_text, 1, INT64_MAX, &aof->to, "--to", err);
    }
    return rc;
}

/* Right number of arguments, and only flags that mean something here. */
static int check_command(const struct parse *parse, struct bop_error *err)
{
    const struct cli_args *args = parse->args;
    const struct cli_command *command = args->command;
    cli_flag_set strange = parse->seen & ~(command->flags | FLAGS_EVERYWHERE);
    char name[32];

    full_name(command, name, sizeof(name));
    if (args->rest && command->rest && !args->rest[0]) {
        return bop_error_say(err, BOP_EINVAL, "no command behind --; use: bop %s %s", name,
                             command->synopsis);
    }
    for (int i = 0; i < FLAG_COUNT; i++) {
        if (strange >> i & 1) {
            return bop_error_say(err, BOP_EINVAL, "%s is no flag of %s; see `bop %s --help`",
                                 flags[i].name, name, name);
        }
    }
    if (args->value_count < command->values_min || args->value_count > command->values_max) {
        return bop_error_say(err, BOP_EINVAL, "too %s arguments; use: bop %s %s",
                             args->value_count < command->values_min ? "few" : "many", name,
                             command->synopsis);
    }
    return check_bounds(parse->args, err);
}

static int finish(struct parse *parse, struct bop_error *err)
{
    struct cli_args *args = parse->args;
    size_t used;
    int rc = resolve(parse, &used, err);

    if (rc < 0 || args->help || args->version) {
        return rc;
    }
    if (args->rest && args->command && args->command->rest) {
        parse->word_count = bop_max_u64(parse->words_before, used);
    }
    if (parse->word_count - used > CLI_VALUES_MAX) {
        return bop_error_say(err, BOP_EINVAL, "too many arguments, from %.40s on",
                             parse->words[used + CLI_VALUES_MAX]);
    }
    for (size_t i = used; i < parse->word_count; i++) {
        args->values[args->value_count++] = parse->words[i];
    }
    if (args->command) {
        return check_command(parse, err);
    }
    if (args->group) {
        return bop_error_say(err, BOP_EINVAL, "%s wants a command; `bop %s --help` lists all",
                             args->group, args->group);
    }
    return bop_error_say(err, BOP_EINVAL, "no command given; `bop help` lists all");
}

int args_usage_exit(int argc, char **argv)
{
    int at = 1;

    while (at < argc && argv[at][0] == '-') {
        at++;
    }
    return at < argc && strcmp(argv[at], "aof") == 0 ? CLI_AOF_USAGE : CLI_USAGE;
}

int args_parse(int argc, char **argv, const char *environment, struct cli_args *out_args,
               struct bop_error *err)
{
    struct parse parse = {.args = out_args};
    int rc;

    *out_args = (struct cli_args){.entries = CLI_DEMO_ENTRIES};
    rc = take_words(&parse, argc, argv, err);
    if (rc == 0 && out_args->server_count == 0 && !out_args->help && !out_args->version) {
        rc = add_servers(out_args,
                         environment && environment[0] ? environment : "127.0.0.1:" CLI_PORT, err);
        if (rc < 0) {
            bop_error_wrap(err, "BOP_SERVER");
        }
    }
    return rc < 0 ? rc : finish(&parse, err);
}
