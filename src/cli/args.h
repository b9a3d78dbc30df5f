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
    FLAG_COUNT,
};

#define FLAGS_EVERYWHERE                                                                           \
    (1u << FLAG_SERVER | 1u << FLAG_CLUSTER | 1u << FLAG_TIMEOUT | 1u << FLAG_JSON |               \
     1u << FLAG_HELP | 1u << FLAG_VERSION)

/**
 * Read a command line. Flags may stand anywhere before "--"; a word that begins
 * with a dash and a digit is none. environment is what BOP_SERVER says, or NULL.
 *
 * Returns 0, or BOP_EINVAL with a sentence in err.
 */
BOP_MUST_USE int args_parse(int argc, char **argv, const char *environment,
                            struct cli_args *out_args, struct bop_error *err);

/** All commands, in the order of help. */
const struct cli_command *args_commands(size_t *out_count);

/** What --help prints for args: of its command, its group, or of bop as a whole. */
void args_print_help(const struct cli_args *args, FILE *out);

/** The command of these names (group may be NULL), or NULL. */
const struct cli_command *args_find(const char *group, const char *name);
bool args_is_group(const char *name);

#endif
