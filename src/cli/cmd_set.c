/*
 * bop set and bop multimap, and the clear of maps: one request each, or one page after
 * another.
 */
#include <inttypes.h>

#include "ndjson.h"
#include "pages.h"

#define DOING_MAX 512

/* "add to primes", for messages. */
static const char *doing(char *text, const char *verb, const struct cli_args *args)
{
    snprintf(text, DOING_MAX, "%s %s", verb, args->values[0]);
    return text;
}

static struct bop_operation operation_of(const struct cli_args *args, enum bop_op op)
{
    struct bop_operation operation = {.op = op, .name = bop_slice_cstr(args->values[0])};

    if (args->value_count > 1) {
        operation.key = bop_slice_cstr(args->values[1]);
    }
    if (args->value_count > 2) {
        operation.value = bop_slice_cstr(args->values[2]);
    }
    return operation;
}

/* ---- Results ---- */

/* Of an add: what was there already is no failure. */
static int print_added(const struct cli_args *args, int code, const struct bop_result *result)
{
    (void)code;
    if (args->json) {
        return pages_print_object(json_pack("{s:b}", "added", result->existed));
    }
    puts(result->existed ? "added" : "was there");
    return CLI_OK;
}

/* Of a remove: what was not there is. */
static int print_removed(const struct cli_args *args, int code, const struct bop_result *result)
{
    (void)code;
    if (args->json) {
        BOP_IGNORE(pages_print_object(json_pack("{s:b}", "existed", result->existed)));
    } else if (result->existed) {
        puts("removed");
    }
    return result->existed
               ? CLI_OK
               : cli_complain(CLI_NOT_FOUND, "%s has no %s", args->values[0], args->values[1]);
}

static int print_contained(const struct cli_args *args, int code, const struct bop_result *result)
{
    (void)code;
    if (args->json) {
        BOP_IGNORE(pages_print_object(json_pack("{s:b}", "contained", result->existed)));
    } else {
        puts(result->existed ? "yes" : "no");
    }
    return result->existed ? CLI_OK : CLI_NOT_FOUND;
}

static int print_size(const struct cli_args *args, int code, const struct bop_result *result)
{
    (void)code;
    if (args->json) {
        return pages_print_object(json_pack("{s:I}", "size", (json_int_t)result->size));
    }
    printf("%" PRIu64 "\n", result->size);
    return CLI_OK;
}

static int print_count_removed(const struct cli_args *args, int code,
                               const struct bop_result *result)
{
    (void)code;
    if (args->json) {
        return pages_print_object(json_pack("{s:I}", "removed", (json_int_t)result->size));
    }
    printf("removed %" PRIu64 "\n", result->size);
    return CLI_OK;
}

static int one(const struct cli_args *args, enum bop_op op, const char *verb, one_fn print)
{
    struct bop_operation operation = operation_of(args, op);
    char text[DOING_MAX];

    return pages_one(args, &operation, doing(text, verb, args), 0, print);
}

/* ---- Entries ---- */

/* One thing a line, which is the entry's key, or its value where that is empty. */
static int print_single(const struct cli_args *args, const struct bop_scan_entry *entry,
                        struct bop_slice bytes, const char *name)
{
    json_t *object;

    (void)entry;
    if (!args->json) {
        pages_print_escaped(bytes);
        putchar('\n');
        return CLI_OK;
    }
    object = json_object();
    if (object && ndjson_set_bytes(object, name, bytes) < 0) {
        json_decref(object);
        object = NULL;
    }
    return pages_print_object(object);
}

static int print_member(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    return print_single(args, entry, entry->key, "member");
}

static int print_key(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    return print_single(args, entry, entry->key, "key");
}

static int print_value(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    return print_single(args, entry, entry->value, "value");
}

static int print_pair(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    json_t *object;

    if (!args->json) {
        pages_print_escaped(entry->key);
        putchar('\t');
        pages_print_escaped(entry->value);
        putchar('\n');
        return CLI_OK;
    }
    object = json_object();
    if (object && (ndjson_set_bytes(object, "key", entry->key) < 0 ||
                   ndjson_set_bytes(object, "value", entry->value) < 0)) {
        json_decref(object);
        object = NULL;
    }
    return pages_print_object(object);
}

static int scan(const struct cli_args *args, enum bop_op op, pages_fn print)
{
    struct bop_operation operation = operation_of(args, op);
    char text[DOING_MAX];

    return pages_print(args, &operation, doing(text, "list", args), print);
}

/* ---- Commands ---- */

int cmd_set_add(const struct cli_args *args)
{
    return one(args, BOP_OP_SET_ADD, "add to", print_added);
}

int cmd_set_remove(const struct cli_args *args)
{
    return one(args, BOP_OP_SET_REMOVE, "remove from", print_removed);
}

int cmd_set_contains(const struct cli_args *args)
{
    return one(args, BOP_OP_SET_CONTAINS, "look into", print_contained);
}

int cmd_set_size(const struct cli_args *args)
{
    return one(args, BOP_OP_SET_SIZE, "size", print_size);
}

int cmd_set_clear(const struct cli_args *args)
{
    return one(args, BOP_OP_SET_CLEAR, "clear", print_count_removed);
}

int cmd_set_scan(const struct cli_args *args)
{
    return scan(args, BOP_OP_SET_SCAN, print_member);
}

int cmd_map_clear(const struct cli_args *args)
{
    return one(args, BOP_OP_MAP_CLEAR, "clear", print_count_removed);
}

int cmd_multimap_put(const struct cli_args *args)
{
    return one(args, BOP_OP_MULTIMAP_PUT, "put into", print_added);
}

int cmd_multimap_remove(const struct cli_args *args)
{
    return args->value_count > 2
               ? one(args, BOP_OP_MULTIMAP_REMOVE_VALUE, "remove from", print_removed)
               : one(args, BOP_OP_MULTIMAP_REMOVE, "remove from", print_count_removed);
}

int cmd_multimap_contains(const struct cli_args *args)
{
    return args->value_count > 2
               ? one(args, BOP_OP_MULTIMAP_CONTAINS_ENTRY, "look into", print_contained)
               : one(args, BOP_OP_MULTIMAP_CONTAINS_KEY, "look into", print_contained);
}

int cmd_multimap_size(const struct cli_args *args)
{
    return one(args, args->value_count > 1 ? BOP_OP_MULTIMAP_KEY_SIZE : BOP_OP_MULTIMAP_SIZE,
               "size", print_size);
}

int cmd_multimap_clear(const struct cli_args *args)
{
    return one(args, BOP_OP_MULTIMAP_CLEAR, "clear", print_count_removed);
}

int cmd_multimap_get(const struct cli_args *args)
{
    return scan(args, BOP_OP_MULTIMAP_GET, print_value);
}

int cmd_multimap_scan(const struct cli_args *args)
{
    return args->keys ? scan(args, BOP_OP_MULTIMAP_KEYS, print_key)
                      : scan(args, BOP_OP_MULTIMAP_ENTRIES, print_pair);
}
