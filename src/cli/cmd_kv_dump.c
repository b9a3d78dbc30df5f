/*
 * bop kv dump: a key-value store as lines of JSON.
 *
 *     {"bop-kv-dump":1}
 *     {"sequence":"ids","number":17}
 *     {"canary":[1,2,3]}
 *     {"table":"users","flags":["dup-sort"]}
 *     {"key":"a","value":"b"}
 *
 * Entries belong to the table above them and stand in its order.
 */
#include <string.h>

#include <bop/kv.h>

#include "cli.h"
#include "kv_flags.h"
#include "ndjson.h"
#include "output.h"
#include "progress.h"

#define WRITE_BYTES (256u * 1024)

struct job {
    const struct cli_args *args;
    struct bop_kv_txn *txn;
    struct output output;
    struct progress progress;
    struct bop_buf text;
    uint64_t entries;
    bool table_seen;
};

static int flush(struct job *job, size_t least)
{
    int rc = 0;

    if (job->text.size > least) {
        rc = output_write(&job->output, bop_buf_slice(&job->text));
        bop_buf_clear(&job->text);
    }
    return rc;
}

/* Write an object as a line and let go of it. */
static int put_line(struct job *job, json_t *object)
{
    int rc = object ? ndjson_write_object(&job->text, object) : BOP_ENOMEM;

    json_decref(object);
    return rc;
}

static int dump_entry(void *context, struct bop_slice key, struct bop_slice value)
{
    struct job *job = context;
    int rc = ndjson_write(&job->text, key, value);

    if (rc < 0) {
        return rc;
    }
    job->entries++;
    progress_show(&job->progress, job->entries, "");
    return flush(job, WRITE_BYTES);
}

static int dump_table(void *context, const char *name, struct bop_kv_table table)
{
    struct job *job = context;
    struct bop_kv_table_stat stat;
    int rc;

    if (job->args->table && strcmp(job->args->table, name) != 0) {
        return 0;
    }
    job->table_seen = true;
    rc = bop_kv_table_stat(job->txn, table, &stat);
    if (rc == 0) {
        rc = put_line(job,
                      json_pack("{s:s,s:o}", "table", name, "flags", kv_flags_to_json(stat.flags)));
    }
    return rc < 0 ? rc
                  : bop_kv_scan(job->txn, table, BOP_KV_FIRST, bop_slice(NULL, 0), BOP_KV_NEXT,
                                dump_entry, job);
}

static int dump_sequence(void *context, const char *name, uint64_t number)
{
    struct job *job = context;
    json_t *object = json_object();
    int rc = object ? ndjson_set_bytes(object, "sequence", bop_slice_cstr(name)) : BOP_ENOMEM;

    if (rc == 0 && json_object_set_new(object, "number", kv_number_text(number)) < 0) {
        rc = BOP_ENOMEM;
    }
    if (rc < 0) {
        json_decref(object);
        return rc;
    }
    return put_line(job, object);
}

static int dump_canary(struct job *job)
{
    struct bop_kv_canary canary;
    int rc = bop_kv_canary_get(job->txn, &canary);

    if (rc < 0 || canary.version == 0) {
        return rc;
    }
    return put_line(job, json_pack("{s:[o,o,o]}", "canary", kv_number_text(canary.x),
                                   kv_number_text(canary.y), kv_number_text(canary.z)));
}

static int dump(struct job *job)
{
    int rc = put_line(job, json_pack("{s:i}", "bop-kv-dump", 1));

    if (rc == 0 && !job->args->table) {
        rc = bop_kv_sequences(job->txn, dump_sequence, job);
    }
    if (rc == 0 && !job->args->table) {
        rc = dump_canary(job);
    }
    if (rc == 0) {
        rc = bop_kv_tables(job->txn, dump_table, job);
    }
    return rc < 0 ? rc : flush(job, 0);
}

/* Dump what kv has; says why it fails. */
static int run(struct job *job, struct bop_kv *kv)
{
    int rc = bop_kv_begin(kv, false, &job->txn);

    if (rc == 0) {
        rc = dump(job);
        bop_kv_abort(job->txn);
    }
    progress_clear(&job->progress);
    if (rc < 0) {
        return cli_complain(CLI_FAILED, "dump %s: %s", job->args->values[0], bop_strerror(rc));
    }
    if (job->args->table && !job->table_seen) {
        return cli_complain(CLI_NOT_FOUND, "%s has no table %s", job->args->values[0],
                            job->args->table);
    }
    return output_finish(&job->output);
}

int cmd_kv_dump(const struct cli_args *args)
{
    static struct job job; /* Large, and one a process. */
    struct bop_kv_options options = {
        .path = args->values[0], .read_only = true, .tables_max = 4096};
    struct bop_error err = {0};
    struct bop_kv *kv;
    int exit_code;

    job = (struct job){.args = args};
    if (bop_kv_open(&options, &kv, &err) < 0) {
        return cli_complain_error(&err);
    }
    bop_buf_init(&job.text, NULL, 0);
    progress_init(&job.progress, stderr, "dumped", 0, false);
    exit_code = output_open(&job.output, args->values[1]);
    if (exit_code == CLI_OK) {
        exit_code = run(&job, kv);
    }
    output_close(&job.output);
    bop_buf_deinit(&job.text);
    bop_kv_close(kv);
    return cli_finish_output(exit_code);
}
