/*
 * bop aof export: records of a log, from whichever tier has them, into a file.
 */
#include <unistd.h>

#include "aof_common.h"
#include "aof_record.h"
#include "output.h"
#include "progress.h"

#define WRITE_BYTES (256u * 1024)

struct job {
    const struct cli_args *args;
    struct output output;
    struct progress progress;
    struct bop_buf text;
    uint64_t records;
    int write_code;
    bool damaged; /* Records are lost. */
    bool stopped; /* ... and none behind is wanted. */
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

static int on_record(void *user, const struct bop_aof_view *view, const struct bop_aof_place *place)
{
    struct job *job = user;
    int rc;

    BOP_IGNORE(place);
    if (job->damaged && !job->args->aof.skip_damage) {
        job->stopped = true;
        return 1;
    }
    rc = aof_record_write(&job->text, view, job->args->aof.raw);
    if (rc == 0) {
        rc = flush(job, WRITE_BYTES);
    }
    job->records++;
    progress_show(&job->progress, job->records, "");
    job->write_code = rc;
    return rc;
}

static void on_problem(void *user, const struct bop_aof_problem *problem)
{
    struct job *job = user;

    job->damaged |= problem->last_seq >= problem->first_seq && !problem->elsewhere;
    if (!job->args->json) {
        progress_clear(&job->progress);
        fprintf(stderr, "%s: %s\n", bop_aof_problem_word(problem->kind), problem->text);
    }
}

static void report(const struct job *job)
{
    char count[COUNT_TEXT_MAX];

    if (job->args->json) {
        fprintf(stderr, "{\"records\":%" PRIu64 ",\"damaged\":%s}\n", job->records,
                job->damaged ? "true" : "false");
    } else if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "exported %s records in %.1f s\n", count_text(job->records, count),
                progress_seconds(&job->progress));
    }
}

/* Everything into the output; says why it fails. */
static int run(struct job *job, struct bop_object_store *objects)
{
    const char *path = job->args->values[0];
    struct bop_aof_check_options options = {.log = {.path = path},
                                            .first_seq = job->args->aof.from,
                                            .last_seq = job->args->aof.to,
                                            .objects = objects,
                                            .on_record = on_record,
                                            .on_problem = on_problem,
                                            .user = job};
    struct bop_aof_report checked = {0};
    struct bop_error err = {0};
    int rc = 0, exit_code;

    if (job->args->aof.raw) {
        rc = bop_buf_append(&job->text, aof_record_magic, sizeof(aof_record_magic));
    }
    if (rc == 0) {
        rc = bop_aof_check(&options, &checked, &err);
    }
    progress_clear(&job->progress);
    if (job->write_code == 0 && (rc == 0 || rc == BOP_ECORRUPT) && !job->stopped) {
        job->write_code = flush(job, 0);
    }
    if (job->write_code < 0) {
        return cli_complain(CLI_AOF_FAILED, "write %s: %s", job->args->values[1],
                            bop_strerror(job->write_code));
    }
    if (job->damaged && !job->args->aof.skip_damage) {
        return cli_complain(CLI_AOF_FAILED,
                            "%s: records are lost: nothing was exported; --skip-damage leaves "
                            "them out",
                            path);
    }
    if (rc < 0 && rc != BOP_ECORRUPT) {
        return aof_complain(&err);
    }
    if (job->records == 0 && job->args->aof.from > 0) {
        return cli_complain(CLI_AOF_NOT_FOUND, "%s has no record from %" PRIu64 " on", path,
                            job->args->aof.from);
    }
    exit_code = output_finish(&job->output);
    if (exit_code == CLI_OK) {
        report(job);
    }
    return exit_code != CLI_OK ? CLI_AOF_FAILED : job->damaged ? CLI_AOF_FAILED : CLI_OK;
}

int cmd_aof_export(const struct cli_args *args)
{
    static struct job job; /* Large, and one a process. */
    struct bop_object_store *objects;
    int exit_code = aof_objects(args, &objects);

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    job = (struct job){.args = args};
    bop_buf_init(&job.text, NULL, 0);
    progress_init(&job.progress, stderr, "exported", 0, false);
    exit_code = output_open(&job.output, args->values[1]) == CLI_OK ? CLI_OK : CLI_AOF_FAILED;
    if (exit_code == CLI_OK) {
        exit_code = run(&job, objects);
    }
    output_close(&job.output);
    bop_buf_deinit(&job.text);
    if (objects) {
        objects->destroy(objects);
    }
    return aof_finish(exit_code);
}
