/*
 * bop aof import: append what `bop aof export` wrote.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "aof_common.h"
#include "aof_record.h"
#include "aof_writer.h"
#include "progress.h"

#define FLUSH_BYTES (8u << 20)

struct job {
    const struct cli_args *args;
    struct aof_records records;
    struct aof_writer writer;
    struct progress progress;
    struct bop_error err;
    struct bop_aof_record record; /* The first one: it says where a new log begins. */
    uint64_t seq;
    uint64_t pending;
    uint64_t appended;
    uint64_t skipped;
};

static int check_number(struct job *job, bool *out_skip)
{
    uint64_t next = bop_aof_last(job->writer.aof) + 1;

    *out_skip = false;
    if (job->seq == 0 || job->seq == next || job->args->aof.renumber) {
        return 0;
    }
    if (job->seq < next && job->args->aof.resume) {
        *out_skip = true;
        return 0;
    }
    return job->seq < next
               ? bop_error_say(&job->err, BOP_EEXISTS,
                               "record %" PRIu64 " is there already; --resume leaves out those, "
                               "--renumber appends all",
                               job->seq)
               : bop_error_say(&job->err, BOP_ECONDITION,
                               "record %" PRIu64 " follows %" PRIu64 ": some are missing; "
                               "--renumber appends them all the same",
                               job->seq, next - 1);
}

static int take(struct job *job)
{
    bool skip;
    int rc = check_number(job, &skip);

    if (rc < 0 || skip) {
        job->skipped += skip;
        return rc;
    }
    rc = aof_writer_append(&job->writer, &job->record);
    job->pending += job->record.body.size;
    if (rc == 0 && job->pending >= FLUSH_BYTES) {
        job->pending = 0;
        rc = aof_writer_flush(&job->writer);
    }
    job->appended += rc == 0;
    progress_show(&job->progress, job->appended, "");
    return rc;
}

/* The first record was read already. */
static int import(struct job *job, int more)
{
    while (more > 0) {
        int rc = take(job);

        if (rc < 0) {
            return rc;
        }
        more = aof_records_next(&job->records, &job->record, &job->seq, &job->err);
    }
    return more;
}

static int complain(const struct job *job)
{
    const struct bop_error *err = job->err.code ? &job->err : &job->writer.err;
    char count[COUNT_TEXT_MAX];

    return cli_complain(err->code == BOP_EMALFORMED ? CLI_AOF_FAILED : aof_exit_code(err->code),
                        "%s: %s; %s records were appended and are on disk", job->args->values[1],
                        err->message, count_text(job->appended, count));
}

static void report(const struct job *job)
{
    char count[COUNT_TEXT_MAX];

    if (job->args->json) {
        printf("{\"records\":%" PRIu64 ",\"skipped\":%" PRIu64 ",\"first\":%" PRIu64
               ",\"last\":%" PRIu64 "}\n",
               job->appended, job->skipped, bop_aof_first(job->writer.aof),
               bop_aof_last(job->writer.aof));
        return;
    }
    fprintf(stderr, "imported %s records in %.1f s; the log ends with record %" PRIu64 "\n",
            count_text(job->appended, count), progress_seconds(&job->progress),
            bop_aof_last(job->writer.aof));
}

static int run(struct job *job)
{
    int more = aof_records_next(&job->records, &job->record, &job->seq, &job->err);
    struct bop_aof_options options = {.path = job->args->values[0],
                                      .segment_bytes = job->args->aof.segment_bytes,
                                      .first_seq = job->args->aof.renumber ? 0 : job->seq};
    int exit_code, rc, flushed;

    if (more < 0) {
        return cli_complain(CLI_AOF_FAILED, "%s: %s; nothing was imported", job->args->values[1],
                            job->err.message);
    }
    exit_code = aof_writer_open(&job->writer, &options);
    if (exit_code != CLI_OK) {
        aof_writer_close(&job->writer);
        return exit_code;
    }
    rc = import(job, more);
    flushed = aof_writer_flush(&job->writer);
    progress_clear(&job->progress);
    if (rc < 0 || flushed < 0) {
        exit_code = complain(job);
    } else {
        report(job);
    }
    aof_writer_close(&job->writer);
    return exit_code;
}

int cmd_aof_import(const struct cli_args *args)
{
    static struct job job; /* Large, and one a process. */
    const char *path = args->values[1];
    int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    int exit_code;

    if (fd < 0) {
        return cli_complain(CLI_AOF_FAILED, "read %s: %s", path, bop_strerror(-errno));
    }
    job = (struct job){.args = args};
    aof_records_init(&job.records, fd);
    progress_init(&job.progress, stderr, "imported", 0, false);
    exit_code = run(&job);
    aof_records_deinit(&job.records);
    close(fd);
    return aof_finish(exit_code);
}
