/*
 * The kinds of tables in words, and numbers as text, for dump, load and stat.
 */
#ifndef BOP_CLI_KV_FLAGS_H
#define BOP_CLI_KV_FLAGS_H

#include <jansson.h>

#include <bop/kv.h>

/** ["dup-sort", ...] of enum bop_kv_table_flags; NULL without memory. */
json_t *kv_flags_to_json(unsigned flags);
/** A number as text: JSON's integers end at 2^63, for many readers at 2^53. NULL: no memory. */
json_t *kv_number_text(uint64_t number);
/** False if it is no array of such words. array may be NULL: no flags. */
bool kv_flags_from_json(const json_t *array, unsigned *out_flags);

#endif
