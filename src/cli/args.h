/*
 * From argv to struct cli_args.
 */
#ifndef BOP_CLI_ARGS_H
#define BOP_CLI_ARGS_H

#include "cli.h"

enum cli_flag {
    FLAG_SERVER,
    FLAG_CLUSTER,
    FLAG_TIMEOUT,
    FLAG_JSON,
    FLAG_HELP,
    FLAG_VERSION,
    FLAG_IF_ABSENT,
    FLAG_IF_PRESENT,
    FLAG_IF_VERSION,
    FLAG_IF_VALUE,
    FLAG_STALE,
    FLAG_LIMIT,
    FLAG_KEYS,
    FLAG_DPKG,
    FLAG_BOPD,
    FLAG_KEEP,
    FLAG_ENTRIES,
    FLAG_DIR,
    FLAG_NO_COLOR,
    FLAG_COMPACT,
    FLAG_TABLE,
    FLAG_FROM,
    FLAG_TO,
    FLAG_SEGMENT,
    FLAG_RATE,
    FLAG_SIZE,
    FLAG_BATCH,
    FLAG_SEGMENT_BYTES,
    FLAG_TIER,
    FLAG_ENDPOINT,
    FLAG_BUCKET,
    FLAG_REGION,
    FLAG_PREFIX,
    FLAG_CA,
    FLAG_NAME,
    FLAG_RECORDS,
    FLAG_PACKED,
    FLAG_OBJECTS,
    FLAG_RAW,
    FLAG_SKIP_DAMAGE,
    FLAG_RENUMBER,
    FLAG_RESUME,
    FLAG_DRY_RUN,
    FLAG_FORCE,
    FLAG_REPAIR,
    FLAG_EVENTS,
    FLAG_TLS,
    FLAG_CERT,
    FLAG_KEY,
    FLAG_TLS_NAME,
    FLAG_TOKEN_FILE,
    FLAG_SHARED,
    FLAG_PERMITS,
    FLAG_CAPACITY,
    FLAG_LABEL,
    FLAG_VOTER,
    FLAG_PREVIOUS,
    FLAG_SNAPSHOT,
    FLAG_REVISION,
    FLAG_FIRST,
    FLAG_BELOW,
    FLAG_INFO,
    FLAG_TTL,
    FLAG_WITH_TTL,
    FLAG_DATA,
    FLAG_ID,
    FLAG_PEER,
    FLAG_SETTLE,
    FLAG_COUNT,
};

_Static_assert(FLAG_COUNT <= 128, "a set of flags has 128 bits");

#define FLAG_BIT(flag) ((cli_flag_set)1 << (flag))

#define FLAGS_TRUST                                                                                \
    (FLAG_BIT(FLAG_TLS) | FLAG_BIT(FLAG_CA) | FLAG_BIT(FLAG_CERT) | FLAG_BIT(FLAG_KEY) |           \
     FLAG_BIT(FLAG_TLS_NAME) | FLAG_BIT(FLAG_TOKEN_FILE))
#define FLAGS_EVERYWHERE                                                                           \
    (FLAG_BIT(FLAG_SERVER) | FLAG_BIT(FLAG_CLUSTER) | FLAG_BIT(FLAG_TIMEOUT) |                     \
     FLAG_BIT(FLAG_JSON) | FLAG_BIT(FLAG_HELP) | FLAG_BIT(FLAG_VERSION) | FLAGS_TRUST)

/**
 * Read a command line. Flags may stand anywhere before "--"; a word that begins
 * with a dash and a digit is none. environment is what BOP_SERVER says, or NULL.
 *
 * Returns 0, or BOP_EINVAL with a sentence in err.
 */
BOP_MUST_USE int args_parse(int argc, char **argv, const char *environment,
                            struct cli_args *out_args, struct bop_error *err);

/** What wrong usage of this command line exits with: of the group `aof` another code. */
int args_usage_exit(int argc, char **argv);

/** All commands, in the order of help. */
const struct cli_command *args_commands(size_t *out_count);

/** What --help prints for args: of its command, its group, or of bop as a whole. */
void args_print_help(const struct cli_args *args, FILE *out);

/** The command of these names (group may be NULL), or NULL. */
const struct cli_command *args_find(const char *group, const char *name);
bool args_is_group(const char *name);

#endif
