/*
 * bop kv load: what `bop kv dump` wrote, in one transaction.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include <bop/kv.h>

#include "cli.h"
#include "kv_text.h"
#include "ndjson.h"
#include "progress.h"
#include "source.h"

/* Of the store, whose file is as big as what is in it; less where there is no room to map so much.
 */
#define BYTES_MAX (UINT64_C(1) << 40)
#define BYTES_MIN (UINT64_C(1) << 28)

struct job {
    const struct cli_args *args;
    struct kv_reader reader;
    struct lines lines;
    struct progress progress;
    uint64_t line;
};

static int load(struct job *job)
{
    struct bop_slice line;
    int rc;

    while ((rc = lines_next(&job->lines, &line)) != 0) {
        if (rc == BOP_EAGAIN) {
            continue;
        }
        job->line++;
        rc = rc < 0 ? rc : kv_read_line(&job->reader, line);
        if (rc < 0) {
            return rc;
        }
        progress_show(&job->progress, job->reader.entries, "");
    }
    return kv_read_end(&job->reader);
}

static int refuse_table(void *context, const char *name, struct bop_kv_table table)
{
    return BOP_EEXISTS;
}

/* Load in one transaction; says why it fails. */
static int run(struct job *job, struct bop_kv *kv)
{
    int rc = bop_kv_begin(kv, true, &job->reader.txn);

    if (rc == 0) {
        rc = bop_kv_tables(job->reader.txn, refuse_table, NULL);
        if (rc == BOP_EEXISTS) {
            bop_kv_abort(job->reader.txn);
            return cli_complain(CLI_FAILED, "%s has tables already; load into an empty directory",
                                job->args->values[0]);
        }
        if (rc == 0) {
            rc = load(job);
        }
        if (rc == 0) {
            rc = bop_kv_commit(job->reader.txn);
        } else {
            bop_kv_abort(job->reader.txn);
        }
    }
    progress_clear(&job->progress);
    if (rc < 0 && job->reader.err.message[0]) {
        return cli_complain(CLI_FAILED, "%s, line %" PRIu64 ": %s; nothing was loaded",
                            job->args->values[1], job->line, job->reader.err.message);
    }
    return rc < 0 ? cli_complain(CLI_FAILED, "load %s, at line %" PRIu64 ": %s; nothing was loaded",
                                 job->args->values[1], job->line, bop_strerror(rc))
                  : CLI_OK;
}

/* The limits of the process may allow less than we would like (ulimit -v and -f). */
static int open_store(struct job *job, struct bop_kv_options *options, struct bop_kv **out_kv)
{
    int rc = bop_kv_open(options, out_kv, &job->reader.err);

    while ((rc == BOP_ENOMEM || rc == BOP_EINVAL) && options->bytes_max > BYTES_MIN) {
        options->bytes_max /= 4;
        rc = bop_kv_open(options, out_kv, &job->reader.err);
    }
    if (rc == 0) {
        job->reader.err = (struct bop_error){0};
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
        return cli_complain_error(&job->reader.err);
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
        printf("{\"entries\":%" PRIu64 "}\n", job->reader.entries);
    } else {
        fprintf(stderr, "loaded %s entries in %.1f s\n", count_text(job->reader.entries, count),
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
    kv_reader_init(&job.reader);
    progress_init(&job.progress, stderr, "loaded", 0, false);
    exit_code = open_and_run(&job);
    if (exit_code == CLI_OK) {
        report(&job);
    }
    kv_reader_deinit(&job.reader);
    lines_deinit(&job.lines);
    close(fd);
    return cli_finish_output(exit_code);
}
