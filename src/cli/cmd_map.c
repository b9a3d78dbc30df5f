/*
 * bop map put, get, del, scan, size: one request each, or pages.
 */
#include <inttypes.h>
#include <unistd.h>

#include "ndjson.h"
#include "pages.h"

/* What a command about one map works with. */
struct work {
    struct link link;
    struct bop_operation operation;
    struct bop_buf buf;
    struct bop_result result;
};

static int begin(struct work *work, const struct cli_args *args, enum bop_op op)
{
    struct link_options options = {.args = args, .timeout_ms = CLI_TIMEOUT_MS, .pin = args->stale};

    *work = (struct work){
        .operation = {.op = op, .name = bop_slice_cstr(args->values[0])},
    };
    if (args->value_count > 1) {
        work->operation.key = bop_slice_cstr(args->values[1]);
    }
    bop_buf_init(&work->buf, NULL, 0);
    return link_open(&options, &work->link);
}

static int end(struct work *work, int exit_code)
{
    link_close(&work->link);
    bop_buf_deinit(&work->buf);
    return cli_finish_output(exit_code);
}

static int call(struct work *work)
{
    return link_call(&work->link, &work->operation, &work->buf, &work->result);
}

/* ---- put ---- */

static int read_all(int fd, struct bop_buf *out)
{
    ssize_t size;

    do {
        int rc = bop_buf_reserve(out, 64 * 1024);

        if (rc < 0) {
            return rc;
        }
        do {
            size = read(fd, out->data + out->size, 64 * 1024);
        } while (size < 0 && errno == EINTR);
        if (size < 0) {
            return -errno;
        }
        out->size += (size_t)size;
    } while (size > 0);
    return 0;
}

static void set_condition(struct bop_operation *operation, const struct bop_client_if *only_if)
{
    operation->condition = only_if->condition;
    operation->version = only_if->version;
    operation->expected = only_if->expected;
}

static int complain_of_condition(const struct work *work, const char *what,
                                 const struct cli_args *args)
{
    if (work->result.version == 0) {
        return cli_complain(CLI_CONDITION, "not %s: %s has no key %s", what, args->values[0],
                            args->values[1]);
    }
    return cli_complain(CLI_CONDITION, "not %s: %s in %s is there in version %" PRIu64, what,
                        args->values[1], args->values[0], work->result.version);
}

static int put(struct work *work, const struct cli_args *args)
{
    int rc;

    set_condition(&work->operation, &args->only_if);
    rc = call(work);
    if (rc == BOP_ECONDITION) {
        return complain_of_condition(work, "stored", args);
    }
    if (rc < 0) {
        return link_complain(&work->link, rc, "put %s %s", args->values[0], args->values[1]);
    }
    if (args->json) {
        return pages_print_object(json_pack("{s:b, s:I}", "existed", work->result.existed,
                                            "version", (json_int_t)work->result.version));
    }
    printf("version %" PRIu64 "\n", work->result.version);
    return CLI_OK;
}

int cmd_map_put(const struct cli_args *args)
{
    struct work work;
    struct bop_buf input;
    int rc = 0, exit_code;

    bop_buf_init(&input, NULL, BOP_VALUE_MAX + 128 * 1024);
    if (strcmp(args->values[2], "-") == 0) {
        rc = read_all(STDIN_FILENO, &input);
    } else {
        rc = bop_buf_append(&input, args->values[2], strlen(args->values[2]));
    }
    if (rc < 0) {
        bop_buf_deinit(&input);
        return cli_complain(CLI_FAILED, "read the value: %s",
                            rc == BOP_EFULL ? "more than a value's 8 MiB" : bop_strerror(rc));
    }
    exit_code = begin(&work, args, args->ttl_ms ? BOP_OP_MAP_PUT_TTL : BOP_OP_MAP_PUT);
    if (exit_code == CLI_OK) {
        work.operation.ttl_ms = args->ttl_ms;
        work.operation.value = bop_buf_slice(&input);
        exit_code = put(&work, args);
    }
    bop_buf_deinit(&input);
    return end(&work, exit_code);
}

/* ---- get, del, size ---- */

/* Without an end: null. */
static json_t *ttl_of(const struct bop_result *result)
{
    return result->ttl_ms ? json_integer((json_int_t)result->ttl_ms) : json_null();
}

static void print_ttl(const struct bop_result *result)
{
    if (result->ttl_ms == 0) {
        puts("-");
    } else {
        printf("%" PRIu64 ".%03" PRIu64 "\n", result->ttl_ms / 1000, result->ttl_ms % 1000);
    }
}

static int get(struct work *work, const struct cli_args *args)
{
    struct bop_slice value;
    json_t *object;
    int rc = call(work);

    if (rc == BOP_ENOTFOUND) {
        return cli_complain(CLI_NOT_FOUND, "%s has no key %s", args->values[0], args->values[1]);
    }
    if (rc < 0) {
        return link_complain(&work->link, rc, "get %s %s", args->values[0], args->values[1]);
    }
    value = work->result.value;
    if (args->json) {
        object = json_pack("{s:I}", "version", (json_int_t)work->result.version);
        if (!object || ndjson_set_bytes(object, "key", work->operation.key) < 0 ||
            ndjson_set_bytes(object, "value", value) < 0) {
            json_decref(object);
            object = NULL;
        }
        if (object && args->with_ttl) {
            BOP_IGNORE(json_object_set_new(object, "ttl_ms", ttl_of(&work->result)));
        }
        return pages_print_object(object);
    }
    if (args->with_ttl) {
        print_ttl(&work->result);
    }
    if (value.size > 0) {
        fwrite(value.data, 1, value.size, stdout);
    }
    if (isatty(STDOUT_FILENO) && (value.size == 0 || value.data[value.size - 1] != '\n')) {
        putchar('\n');
    }
    return CLI_OK;
}

int cmd_map_get(const struct cli_args *args)
{
    struct work work;
    int exit_code = begin(&work, args, args->with_ttl ? BOP_OP_MAP_GET_TTL : BOP_OP_MAP_GET);

    return end(&work, exit_code == CLI_OK ? get(&work, args) : exit_code);
}

static int del(struct work *work, const struct cli_args *args)
{
    int rc;

    set_condition(&work->operation, &args->only_if);
    rc = call(work);
    if (rc == BOP_ECONDITION) {
        return complain_of_condition(work, "deleted", args);
    }
    if (rc < 0) {
        return link_complain(&work->link, rc, "delete %s %s", args->values[0], args->values[1]);
    }
    if (args->json) {
        rc = pages_print_object(json_pack("{s:b}", "existed", work->result.existed));
    } else if (work->result.existed) {
        printf("deleted\n");
    }
    if (!work->result.existed) {
        return cli_complain(CLI_NOT_FOUND, "%s has no key %s", args->values[0], args->values[1]);
    }
    return rc;
}

int cmd_map_del(const struct cli_args *args)
{
    struct work work;
    int exit_code = begin(&work, args, BOP_OP_MAP_DELETE);

    return end(&work, exit_code == CLI_OK ? del(&work, args) : exit_code);
}

static int size(struct work *work, const struct cli_args *args)
{
    int rc = call(work);

    if (rc < 0) {
        return link_complain(&work->link, rc, "size %s", args->values[0]);
    }
    if (args->json) {
        return pages_print_object(json_pack("{s:I}", "size", (json_int_t)work->result.size));
    }
    printf("%" PRIu64 "\n", work->result.size);
    return CLI_OK;
}

int cmd_map_size(const struct cli_args *args)
{
    struct work work;
    int exit_code = begin(&work, args, BOP_OP_MAP_SIZE);

    return end(&work, exit_code == CLI_OK ? size(&work, args) : exit_code);
}

/* ---- scan ---- */

static int print_entry(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    json_t *object;

    if (!args->json) {
        pages_print_escaped(entry->key);
        if (!args->keys) {
            putchar('\t');
            pages_print_escaped(entry->value);
        }
        putchar('\n');
        return CLI_OK;
    }
    object = json_pack("{s:I}", "version", (json_int_t)entry->version);
    if (!object || ndjson_set_bytes(object, "key", entry->key) < 0 ||
        (!args->keys && ndjson_set_bytes(object, "value", entry->value) < 0)) {
        json_decref(object);
        object = NULL;
    }
    return pages_print_object(object);
}

int cmd_map_scan(const struct cli_args *args)
{
    bool all = !args->aof.prefix && !args->aof.from_text && !args->aof.to_text;
    struct bop_operation operation = {.op = all ? BOP_OP_MAP_SCAN : BOP_OP_MAP_RANGE,
                                      .name = bop_slice_cstr(args->values[0])};
    char doing[BOP_NAME_MAX + 8];

    if (args->aof.prefix) {
        operation.prefix = bop_slice_cstr(args->aof.prefix);
    }
    if (args->aof.from_text) {
        operation.from = bop_slice_cstr(args->aof.from_text);
    }
    if (args->aof.to_text) {
        operation.to = bop_slice_cstr(args->aof.to_text);
    }
    snprintf(doing, sizeof(doing), "scan %s", args->values[0]);
    return pages_print(args, &operation, doing, print_entry);
}
