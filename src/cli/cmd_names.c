/*
 * bop names KIND: what names there are.
 */
#include <inttypes.h>

#include "ndjson.h"
#include "pages.h"

static const struct {
    const char *text;
    enum bop_name_kind kind;
} kinds[] = {
    {"map", BOP_NAME_MAP},           {"set", BOP_NAME_SET},   {"multimap", BOP_NAME_MULTIMAP},
    {"counter", BOP_NAME_COUNTER},   {"lock", BOP_NAME_LOCK}, {"group", BOP_NAME_GROUP},
    {"registry", BOP_NAME_REGISTRY},
};

static int print_name(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    json_t *object;
    int64_t size;

    if (entry->value.size != 8) {
        return cli_complain(CLI_FAILED, "the server says what makes no sense");
    }
    size = (int64_t)bop_load_u64(entry->value.data);
    if (!args->json) {
        pages_print_escaped(entry->key);
        printf("\t%" PRId64 "\n", size);
        return CLI_OK;
    }
    object = json_pack("{s:I, s:I}", "size", (json_int_t)size, "created",
                       (json_int_t)entry->version);
    if (object && ndjson_set_bytes(object, "name", entry->key) < 0) {
        json_decref(object);
        object = NULL;
    }
    return pages_print_object(object);
}

int cmd_names(const struct cli_args *args)
{
    struct bop_operation operation = {.op = BOP_OP_NAMES};

    for (size_t i = 0; i < BOP_COUNT_OF(kinds); i++) {
        if (strcmp(args->values[0], kinds[i].text) == 0) {
            operation.kind = kinds[i].kind;
        }
    }
    if (operation.kind == 0) {
        return cli_complain(CLI_USAGE,
                            "names are of: map, set, multimap, counter, lock, group, registry");
    }
    if (args->aof.prefix) {
        operation.prefix = bop_slice_cstr(args->aof.prefix);
    }
    return pages_print(args, &operation, "list names", print_name);
}
