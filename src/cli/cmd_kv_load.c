/*
 * bop kv load: what `bop kv dump` wrote, in one transaction.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bop/kv.h>

#include "cli.h"
#include "kv_flags.h"
#include "ndjson.h"
#include "progress.h"
#include "source.h"

/* Of the store, whose file is as big as what is in it; less where there is no room to map so much.
 */
#define BYTES_MAX (UINT64_C(1) << 40)
#define BYTES_MIN (UINT64_C(1) << 28)

struct job {
    const struct cli_args *args;
    struct bop_kv_txn *txn;
    struct bop_kv_table table;
    bool in_table;
    bool headed;
    unsigned put_flags;
    struct lines lines;
    struct progress progress;
    struct bop_buf key;
    struct bop_buf value;
    uint64_t line;
    uint64_t entries;
    struct bop_error err;
};

static int bad(struct job *job, const char *what)
{
    return bop_error_say(&job->err, BOP_EMALFORMED, "%s", what);
}

/* A decimal number in a string. */
static bool number_of(const json_t *value, uint64_t *out_number)
{
    const char *text = json_string_value(value);
    char *end = NULL;

    if (!text || text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *out_number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static int load_sequence(struct job *job, const json_t *object)
{
    uint64_t number, before;
    int rc = ndjson_get_bytes(object, "sequence", &job->key, &job->err);

    if (rc < 0 || !number_of(json_object_get(object, "number"), &number)) {
        return rc < 0 ? rc : bad(job, "\"number\" is no number in a string");
    }
    rc = bop_buf_append(&job->key, "", 1);
    if (rc < 0 || memchr(job->key.data, 0, job->key.size - 1)) {
        return rc < 0 ? rc : bad(job, "\"sequence\" is no name");
    }
    return bop_kv_sequence(job->txn, (const char *)job->key.data, number, &before);
}

static int load_canary(struct job *job, const json_t *numbers)
{
    struct bop_kv_canary canary;

    if (json_array_size(numbers) != 3 || !number_of(json_array_get(numbers, 0), &canary.x) ||
        !number_of(json_array_get(numbers, 1), &canary.y) ||
        !number_of(json_array_get(numbers, 2), &canary.z)) {
        return bad(job, "\"canary\" is no array of three numbers in strings");
    }
    return bop_kv_canary_set(job->txn, &canary);
}

static int load_table(struct job *job, const json_t *object)
{
    const char *name = json_string_value(json_object_get(object, "table"));
    unsigned flags;

    if (!name || !kv_flags_from_json(json_object_get(object, "flags"), &flags)) {
        return bad(job, name ? "\"flags\" has a word that is no kind of table"
                             : "\"table\" is no string");
    }
    job->put_flags = flags & BOP_KV_DUP_SORT ? BOP_KV_APPEND_DUP : BOP_KV_APPEND;
    job->in_table = true;
    return bop_kv_table_open_with(job->txn, name, flags | BOP_KV_CREATE, &job->table);
}

static int load_entry(struct job *job, const json_t *object)
{
    int rc;

    if (!job->in_table) {
        return bad(job, "an entry before any table");
    }
    rc = ndjson_get_bytes(object, "key", &job->key, &job->err);
    if (rc == 0) {
        rc = ndjson_get_bytes(object, "value", &job->value, &job->err);
    }
    if (rc < 0) {
        return rc;
    }
    rc = bop_kv_put_with(job->txn, job->table, bop_buf_slice(&job->key), bop_buf_slice(&job->value),
                         job->put_flags, NULL);
    if (rc == BOP_EINVAL || rc == BOP_EEXISTS) { /* Not in order, as after an edit by hand. */
        rc = bop_kv_put(job->txn, job->table, bop_buf_slice(&job->key), bop_buf_slice(&job->value));
    }
    job->entries++;
    progress_show(&job->progress, job->entries, "");
    return rc;
}

static int load_object(struct job *job, const json_t *object)
{
    if (!job->headed) {
        job->headed = json_integer_value(json_object_get(object, "bop-kv-dump")) == 1;
        return job->headed ? 0 : bad(job, "not written by `bop kv dump` in version 1");
    }
    if (json_object_get(object, "table")) {
        return load_table(job, object);
    }
    if (json_object_get(object, "canary")) {
        return load_canary(job, json_object_get(object, "canary"));
    }
    if (json_object_get(object, "sequence") || json_object_get(object, "sequence64")) {
        return load_sequence(job, object);
    }
    return load_entry(job, object);
}

static int load_line(struct job *job, struct bop_slice line)
{
    json_error_t trouble;
    json_t *object = json_loadb((const char *)line.data, line.size,
                                JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &trouble);
    int rc;

    if (!json_is_object(object)) {
        rc = bad(job, object ? "no JSON object" : trouble.text);
    } else {
        rc = load_object(job, object);
    }
    json_decref(object);
    return rc;
}

static int load(struct job *job)
{
    struct bop_slice line;
    int rc;

    while ((rc = lines_next(&job->lines, &line)) != 0) {
        if (rc == BOP_EAGAIN) {
            continue;
        }
        job->line++;
        rc = rc < 0 ? rc : load_line(job, line);
        if (rc < 0) {
            break;
        }
    }
    return rc == 0 && !job->headed ? bad(job, "the file is empty") : rc;
}

static int refuse_table(void *context, const char *name, struct bop_kv_table table)
{
    return BOP_EEXISTS;
}

/* Load in one transaction; says why it fails. */
static int run(struct job *job, struct bop_kv *kv)
{
    int rc = bop_kv_begin(kv, true, &job->txn);

    if (rc == 0) {
        rc = bop_kv_tables(job->txn, refuse_table, NULL);
        if (rc == BOP_EEXISTS) {
            bop_kv_abort(job->txn);
            return cli_complain(CLI_FAILED, "%s has tables already; load into an empty directory",
                                job->args->values[0]);
        }
        if (rc == 0) {
            rc = load(job);
        }
        if (rc == 0) {
            rc = bop_kv_commit(job->txn);
        } else {
            bop_kv_abort(job->txn);
        }
    }
    progress_clear(&job->progress);
    if (rc < 0 && job->err.message[0]) {
        return cli_complain(CLI_FAILED, "%s, line %" PRIu64 ": %s; nothing was loaded",
                            job->args->values[1], job->line, job->err.message);
    }
    return rc < 0 ? cli_complain(CLI_FAILED, "load %s, at line %" PRIu64 ": %s; nothing was loaded",
                                 job->args->values[1], job->line, bop_strerror(rc))
                  : CLI_OK;
}

/* The limits of the process may allow less than we would like (ulimit -v and -f). */
static int open_store(struct job *job, struct bop_kv_options *options, struct bop_kv **out_kv)
{
    int rc = bop_kv_open(options, out_kv, &job->err);

    while ((rc == BOP_ENOMEM || rc == BOP_EINVAL) && options->bytes_max > BYTES_MIN) {
        options->bytes_max /= 4;
        rc = bop_kv_open(options, out_kv, &job->err);
    }
    if (rc == 0) {
        job->err = (struct bop_error){0};
    }
    return rc;
}

static int open_and_run(struct job *job)
{
    struct bop_kv_options options = {.path = job->args->values[0],
                                     .bytes_max = BYTES_MAX,
                                     .tables_max = 4096,
                                     .durability = BOP_KV_SURVIVES_SYSTEM};
    struct bop_kv *kv;
    char path[4096];
    bool made;
    int exit_code;

    snprintf(path, sizeof(path), "%s/data.mdb", options.path);
    made = access(path, F_OK) < 0;
    if (open_store(job, &options, &kv) < 0) {
        return cli_complain_error(&job->err);
    }
    exit_code = run(job, kv);
    bop_kv_close(kv);
    if (exit_code != CLI_OK && made) {
        BOP_IGNORE(bop_kv_remove(options.path, NULL)); /* It holds nothing. */
    }
    return exit_code;
}

static void report(const struct job *job)
{
    char count[COUNT_TEXT_MAX];

    if (job->args->json) {
        printf("{\"entries\":%" PRIu64 "}\n", job->entries);
    } else {
        fprintf(stderr, "loaded %s entries in %.1f s\n", count_text(job->entries, count),
                progress_seconds(&job->progress));
    }
}

int cmd_kv_load(const struct cli_args *args)
{
    static struct job job; /* Large, and one a process. */
    const char *path = args->values[1];
    int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    int exit_code;

    if (fd < 0) {
        return cli_complain(CLI_FAILED, "read %s: %s", path, bop_strerror(-errno));
    }
    job = (struct job){.args = args};
    lines_init(&job.lines, fd, NDJSON_LINE_MAX);
    job.lines.patient = true;
    bop_buf_init(&job.key, NULL, 0);
    bop_buf_init(&job.value, NULL, 0);
    progress_init(&job.progress, stderr, "loaded", 0, false);
    exit_code = open_and_run(&job);
    if (exit_code == CLI_OK) {
        report(&job);
    }
    bop_buf_deinit(&job.key);
    bop_buf_deinit(&job.value);
    lines_deinit(&job.lines);
    close(fd);
    return cli_finish_output(exit_code);
}
