/*
 * What the commands of the group `aof` share: exit codes, JSON, and the object store.
 */
#ifndef BOP_CLI_AOF_COMMON_H
#define BOP_CLI_AOF_COMMON_H

#include <inttypes.h>

#include <jansson.h>

#include <bop/aof_admin.h>

#include "cli.h"

/** The exit code for a library's code. */
int aof_exit_code(int code);

/** One line that says why, and the exit code. */
int aof_complain(const struct bop_error *err);

/** Flush standard output; as cli_finish_output. */
int aof_finish(int exit_code);

/** Print an object as a line of JSON and let go of it. */
void aof_print_json(json_t *object);

/** A number that may not fit into JSON's: as text when it is 2^63 or more. */
json_t *aof_number(uint64_t number);

/** 32 hex digits and the like. Returns out_text, which has room for 2 * size + 1. */
const char *aof_hex(const uint8_t *bytes, size_t size, char *out_text);

#define AOF_BYTES_TEXT 24
/** "64.0 MiB". Returns out_text. */
const char *aof_bytes(uint64_t bytes, char out_text[AOF_BYTES_TEXT]);

/** "local", "packed", "object store", "needs recovery". */
const char *aof_residency(enum bop_tiers_residency residency);

/** A line, or an object, that tells of a problem. user is struct cli_args. */
void aof_print_problem(void *user, const struct bop_aof_problem *problem);

/** The object store that the command line names; *out_store is NULL if it names none. Returns an
 * exit code, having said why if it is not 0. */
int aof_objects(const struct cli_args *args, struct bop_object_store **out_store);

#endif
