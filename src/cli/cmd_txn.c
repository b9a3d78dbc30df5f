/*
 * bop txn: comparisons and operations from standard input, all at one moment.
 */
#include <inttypes.h>
#include <unistd.h>

#include <jansson.h>

#include "link.h"
#include "source.h"
#include "txn_words.h"

#define LINE_MAX_BYTES (16u * 1024 * 1024)

static int read_lines(struct txn_words *words)
{
    struct lines lines;
    struct bop_slice line;
    uint64_t number = 0;
    int exit_code = CLI_OK, rc = 0;

    lines_init(&lines, STDIN_FILENO, LINE_MAX_BYTES);
    lines.patient = true;
    while (exit_code == CLI_OK && (rc = lines_next(&lines, &line)) == 1) {
        const char *wrong = txn_words_add(words, line);

        number++;
        if (wrong) {
            exit_code = cli_complain(CLI_USAGE, "line %" PRIu64 ": %s", number, wrong);
        }
    }
    if (exit_code == CLI_OK && rc < 0) {
        exit_code = cli_complain(CLI_FAILED, "read the lines of the transaction: %s",
                                 bop_strerror(rc));
    }
    lines_deinit(&lines);
    return exit_code;
}

/* ---- Results ---- */

static json_t *bytes_json(struct bop_slice bytes)
{
    json_t *text = bop_slice_is_utf8(bytes) ? json_stringn((const char *)bytes.data, bytes.size)
                                            : NULL;

    return text ? text : json_sprintf("(%zu bytes that are no text)", bytes.size);
}

/* What an operation came to, in one value. */
static json_t *result_json(enum bop_op op, const struct bop_result *result)
{
    if (result->status != BOP_STATUS_OK) {
        return json_null();
    }
    switch (op) {
    case BOP_OP_MAP_GET:
        return bytes_json(result->value);
    case BOP_OP_MAP_PUT:
        return json_integer((json_int_t)result->version);
    case BOP_OP_COUNTER_ADD:
    case BOP_OP_COUNTER_GET:
        return json_integer(result->number);
    case BOP_OP_MAP_SIZE:
    case BOP_OP_MAP_CLEAR:
    case BOP_OP_SET_SIZE:
        return json_integer((json_int_t)result->size);
    default:
        return json_boolean(result->existed);
    }
}

static json_t *results_json(struct bop_slice ops, struct bop_slice entries)
{
    json_t *list = json_array();
    struct bop_slice bytes;
    uint8_t status;

    for (size_t n = 0; n < ops.size && bop_transaction_result_next(&entries, &status, &bytes);
         n++) {
        enum bop_op op = (enum bop_op)ops.data[n];
        struct bop_result result;

        if (bop_result_decode(op, status, bytes, &result) == 0) {
            json_array_append_new(list, result_json(op, &result));
        }
    }
    return list;
}

static void print_plain(bool held, const json_t *results)
{
    const json_t *result;
    size_t n;

    puts(held ? "held" : "not held");
    json_array_foreach(results, n, result)
    {
        if (json_is_string(result)) {
            fwrite(json_string_value(result), 1, json_string_length(result), stdout);
            putchar('\n');
        } else if (json_is_null(result)) {
            puts("-");
        } else {
            json_dumpf(result, stdout, JSON_ENCODE_ANY);
            putchar('\n');
        }
    }
}

static int print_result(const struct cli_args *args, const struct txn_words *words,
                        const struct bop_result *result)
{
    const struct bop_buf *ops = result->existed ? &words->then_ops : &words->else_ops;
    json_t *results = results_json(bop_buf_slice(ops), result->entries);

    if (args->json) {
        json_t *all = json_pack("{s:b, s:O}", "held", result->existed, "results", results);

        json_dumpf(all, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(all);
    } else {
        print_plain(result->existed, results);
    }
    json_decref(results);
    return result->existed ? CLI_OK : CLI_CONDITION;
}

/* ---- The command ---- */

static int run(const struct cli_args *args, const struct txn_words *words,
               const struct bop_operation *operation)
{
    struct link_options options = {.args = args, .timeout_ms = CLI_TIMEOUT_MS};
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
        exit_code = print_result(args, words, &result);
    } else if (rc == BOP_ECONDITION) {
        exit_code = cli_complain(CLI_CONDITION,
                                 "operation %" PRIu64 " could not be done; nothing was changed",
                                 result.version + 1);
    } else {
        exit_code = link_complain(&link, rc, "run the transaction (nothing was changed)");
    }
    link_close(&link);
    bop_buf_deinit(&buf);
    return cli_finish_output(exit_code);
}

int cmd_txn(const struct cli_args *args)
{
    struct txn_words words;
    struct bop_operation operation;
    int exit_code, rc;

    txn_words_init(&words);
    exit_code = read_lines(&words);
    if (exit_code == CLI_OK) {
        rc = bop_transaction_operation(&words.txn, &operation);
        exit_code = rc == 0 ? run(args, &words, &operation)
                    : rc == BOP_ETOOBIG
                        ? cli_complain(CLI_USAGE, "a transaction has at most %d lines of a kind",
                                       BOP_TRANSACTION_MAX)
                        : cli_complain(CLI_FAILED, "%s", bop_strerror(rc));
    }
    txn_words_deinit(&words);
    return exit_code;
}
