/*
 * bop kv dump: a key-value store as lines of JSON (kv_text.h).
 */
#include <bop/kv.h>

#include "cli.h"
#include "kv_text.h"
#include "output.h"
#include "progress.h"

#define WRITE_BYTES (256u * 1024)

struct job {
    const struct cli_args *args;
    struct kv_writer writer;
    struct output output;
    struct progress progress;
};

static int flush(void *user, bool last)
{
    struct job *job = user;
    int rc = 0;

    progress_show(&job->progress, job->writer.entries, "");
    if (last || job->writer.text.size > WRITE_BYTES) {
        rc = output_write(&job->output, bop_buf_slice(&job->writer.text));
        bop_buf_clear(&job->writer.text);
    }
    return rc;
}

/* Dump what kv has; says why it fails. */
static int run(struct job *job, struct bop_kv *kv)
{
    int rc = bop_kv_begin(kv, false, &job->writer.txn);

    if (rc == 0) {
        rc = kv_write(&job->writer);
        bop_kv_abort(job->writer.txn);
    }
    progress_clear(&job->progress);
    if (rc < 0) {
        return cli_complain(CLI_FAILED, "dump %s: %s", job->args->values[0], bop_strerror(rc));
    }
    if (job->args->table && !job->writer.table_seen) {
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
    kv_writer_init(&job.writer);
    job.writer.table = args->table;
    job.writer.flush = flush;
    job.writer.user = &job;
    progress_init(&job.progress, stderr, "dumped", 0, false);
    exit_code = output_open(&job.output, args->values[1]);
    if (exit_code == CLI_OK) {
        exit_code = run(&job, kv);
    }
    output_close(&job.output);
    kv_writer_deinit(&job.writer);
    bop_kv_close(kv);
    return cli_finish_output(exit_code);
}
