/*
 * bop counter add, get, cas, set, delete.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "link.h"

static bool parse_whole(const char *text, int64_t *out_number)
{
    char *end = NULL;

    errno = 0;
    *out_number = strtoll(text, &end, 10);
    return end != text && !*end && errno == 0 && text[0] != ' ';
}

static int complain_of_number(const char *text)
{
    return cli_complain(CLI_USAGE, "%s: not a whole number of 64 bits", text);
}

static int print_value(const struct cli_args *args, int64_t value)
{
    printf(args->json ? "{\"value\":%" PRId64 "}\n" : "%" PRId64 "\n", value);
    return CLI_OK;
}

static int print_result(const struct cli_args *args, enum bop_op op,
                        const struct bop_result *result)
{
    if (op == BOP_OP_COUNTER_SET || op == BOP_OP_COUNTER_DELETE) {
        if (args->json) {
            printf("{\"existed\":%s}\n", result->existed ? "true" : "false");
        }
        return op == BOP_OP_COUNTER_DELETE && !result->existed
                   ? cli_complain(CLI_NOT_FOUND, "there is no counter %s", args->values[0])
                   : CLI_OK;
    }
    return print_value(args, result->number);
}

static int run(const struct cli_args *args, const struct bop_operation *operation,
               const char *doing)
{
    struct link_options options = {.args = args, .timeout_ms = CLI_TIMEOUT_MS, .pin = args->stale};
    struct link link;
    struct bop_buf buf;
    struct bop_result result;
    int exit_code = link_open(&options, &link);
    int rc;

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    bop_buf_init(&buf, NULL, 0);
    rc = link_call(&link, operation, &buf, &result);
    if (rc == 0) {
        exit_code = print_result(args, operation->op, &result);
    } else if (rc == BOP_ECONDITION) {
        exit_code = cli_complain(CLI_CONDITION, "not set: %s is %" PRId64, args->values[0],
                                 result.number);
    } else if (rc == BOP_ENOTFOUND) {
        exit_code = cli_complain(CLI_NOT_FOUND, "there is no counter %s", args->values[0]);
    } else if (rc == BOP_EOVERFLOW) {
        exit_code = cli_complain(CLI_FAILED,
                                 "%s %s: the value would leave 64 bits; nothing was "
                                 "changed",
                                 doing, args->values[0]);
    } else {
        exit_code = link_complain(&link, rc, "%s %s", doing, args->values[0]);
    }
    link_close(&link);
    bop_buf_deinit(&buf);
    return cli_finish_output(exit_code);
}

int cmd_counter_add(const struct cli_args *args)
{
    struct bop_operation operation = {
        .op = BOP_OP_COUNTER_ADD, .name = bop_slice_cstr(args->values[0]), .delta = 1};

    if (args->value_count > 1 && !parse_whole(args->values[1], &operation.delta)) {
        return complain_of_number(args->values[1]);
    }
    return run(args, &operation, "add to");
}

int cmd_counter_get(const struct cli_args *args)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_GET,
                                      .name = bop_slice_cstr(args->values[0])};

    return run(args, &operation, "get");
}

int cmd_counter_cas(const struct cli_args *args)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_CAS,
                                      .name = bop_slice_cstr(args->values[0])};

    if (!parse_whole(args->values[1], &operation.expected_number)) {
        return complain_of_number(args->values[1]);
    }
    if (!parse_whole(args->values[2], &operation.number)) {
        return complain_of_number(args->values[2]);
    }
    return run(args, &operation, "set");
}

int cmd_counter_set(const struct cli_args *args)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_SET,
                                      .name = bop_slice_cstr(args->values[0])};

    if (!parse_whole(args->values[1], &operation.number)) {
        return complain_of_number(args->values[1]);
    }
    return run(args, &operation, "set");
}

int cmd_counter_delete(const struct cli_args *args)
{
    struct bop_operation operation = {.op = BOP_OP_COUNTER_DELETE,
                                      .name = bop_slice_cstr(args->values[0])};

    return run(args, &operation, "delete");
}
