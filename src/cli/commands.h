/*
 * The tables of commands, and what they share.
 */
#ifndef BOP_CLI_COMMANDS_H
#define BOP_CLI_COMMANDS_H

#include "args.h"

#define BIT(flag) FLAG_BIT(flag)

#define COMMANDS_MAX 96

extern const struct cli_command cluster_commands[];
extern const size_t cluster_command_count;
extern const struct cli_command state_commands[];
extern const size_t state_command_count;
extern const struct cli_command backup_commands[];
extern const size_t backup_command_count;
extern const struct cli_command aof_commands[];
extern const size_t aof_command_count;

/** Behind the help of the group `aof`, and of its commands that talk to an object store. */
extern const char aof_group_help[];
extern const char aof_objects_help[];

#endif
