/*
 * bop map put, get, del, scan, size: one request each, or one page after another.
 */
#include <inttypes.h>
#include <unistd.h>

#include "link.h"
#include "ndjson.h"

#define PAGE_ENTRIES 1000

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

/* Print an object of one line and drop it. NULL stands for no memory. */
static int print_object(json_t *object)
{
    int rc = object ? json_dumpf(object, stdout, JSON_COMPACT) : -1;

    json_decref(object);
    putchar('\n');
    return rc < 0 ? cli_complain(CLI_FAILED, "cannot write the output") : CLI_OK;
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
        return print_object(json_pack("{s:b, s:I}", "existed", work->result.existed, "version",
                                      (json_int_t)work->result.version));
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
    exit_code = begin(&work, args, BOP_OP_MAP_PUT);
    if (exit_code == CLI_OK) {
        work.operation.value = bop_buf_slice(&input);
        exit_code = put(&work, args);
    }
    bop_buf_deinit(&input);
    return end(&work, exit_code);
}

/* ---- get, del, size ---- */

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
        return print_object(object);
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
    int exit_code = begin(&work, args, BOP_OP_MAP_GET);

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
        rc = print_object(json_pack("{s:b}", "existed", work->result.existed));
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
        return print_object(json_pack("{s:I}", "size", (json_int_t)work->result.size));
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

/* Bytes for people: what would break the line, or is not text, as an escape. */
static void print_escaped(struct bop_slice bytes)
{
    bool text = bop_slice_is_utf8(bytes);

    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t byte = bytes.data[i];

        if (byte == '\n') {
            fputs("\\n", stdout);
        } else if (byte == '\t') {
            fputs("\\t", stdout);
        } else if (byte == '\\') {
            fputs("\\\\", stdout);
        } else if (byte < ' ' || byte == 0x7f || (byte >= 0x80 && !text)) {
            printf("\\x%02x", byte);
        } else {
            putchar(byte);
        }
    }
}

static int print_entry(const struct cli_args *args, const struct bop_scan_entry *entry)
{
    json_t *object;

    if (!args->json) {
        print_escaped(entry->key);
        if (!args->keys) {
            putchar('\t');
            print_escaped(entry->value);
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
    return print_object(object);
}

/* The next page after `cursor`, which moves on. *left counts down. */
static int scan_page(struct work *work, const struct cli_args *args, struct bop_buf *cursor,
                     uint64_t *left)
{
    struct bop_scan_entry entry;
    int exit_code = CLI_OK;
    int rc;

    work->operation.cursor = bop_buf_slice(cursor);
    work->operation.limit = (uint32_t)bop_min_u64(*left, PAGE_ENTRIES);
    rc = call(work);
    if (rc < 0) {
        return link_complain(&work->link, rc, "scan %s", args->values[0]);
    }
    while (exit_code == CLI_OK && *left > 0 && bop_scan_next(&work->result.entries, &entry)) {
        exit_code = print_entry(args, &entry);
        --*left;
    }
    bop_buf_clear(cursor);
    if (bop_buf_append(cursor, work->result.cursor.data, work->result.cursor.size) < 0) {
        return cli_complain(CLI_FAILED, "scan %s: out of memory", args->values[0]);
    }
    return ferror(stdout) ? CLI_FAILED : exit_code;
}

int cmd_map_scan(const struct cli_args *args)
{
    struct work work;
    struct bop_buf cursor;
    uint64_t left = args->limit ? args->limit : UINT64_MAX;
    int exit_code = begin(&work, args, BOP_OP_MAP_SCAN);

    bop_buf_init(&cursor, NULL, 0);
    while (exit_code == CLI_OK && left > 0) {
        exit_code = scan_page(&work, args, &cursor, &left);
        if (cursor.size == 0) {
            break;
        }
    }
    bop_buf_deinit(&cursor);
    return end(&work, exit_code);
}
