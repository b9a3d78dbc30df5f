/*
 * bop aof verify, scrub, repair: whether a log is good, and making it so.
 */
#include <string.h>

#include "aof_common.h"
#include "progress.h"

#define SCRUB_RATE (8u << 20)

struct job {
    const struct cli_args *args;
    struct progress progress;
};

static void on_problem(void *user, const struct bop_aof_problem *problem)
{
    struct job *job = user;

    progress_clear(&job->progress);
    aof_print_problem((void *)job->args, problem);
}

static void on_progress(void *user, uint64_t bytes, uint64_t total)
{
    struct job *job = user;

    job->progress.total = total >> 20;
    progress_show(&job->progress, bytes >> 20, "MiB");
}

/* ---- verify, scrub ---- */

static void print_report(const struct cli_args *args, const struct bop_aof_report *report)
{
    char bytes[AOF_BYTES_TEXT], count[COUNT_TEXT_MAX];

    if (args->json) {
        json_t *object = json_pack(
            "{s:o,s:o,s:i,s:i,s:i,s:o,s:o,s:i,s:o,s:o,s:b}", "records", aof_number(report->records),
            "bytes", aof_number(report->bytes), "segments", (int)report->segments, "packed",
            (int)report->packed, "objects", (int)report->objects, "first",
            aof_number(report->first), "last", aof_number(report->last), "problems",
            (int)report->problems, "lost", aof_number(report->lost), "torn_bytes",
            aof_number(report->torn_bytes), "in_use", report->in_use);

        if (object && report->lost > 0) {
            json_object_set_new(object, "lost_first", aof_number(report->lost_first));
            json_object_set_new(object, "lost_last", aof_number(report->lost_last));
        }
        aof_print_json(object);
        return;
    }
    printf("%s: %s good records, %s in %u segments", args->values[0],
           count_text(report->records, count), aof_bytes(report->bytes, bytes), report->segments);
    if (report->packed > 0 || report->objects > 0) {
        printf(", %u packed files, %u objects", report->packed, report->objects);
    }
    printf("; %u problems\n", report->problems);
    if (report->torn_bytes > 0) {
        printf("a torn tail of %" PRIu64 " bytes, from record %" PRIu64
               " on: never acknowledged, and cut when the log is opened\n",
               report->torn_bytes, report->torn_from_seq);
    }
    if (report->in_use) {
        printf("the log is in use: its last bytes were on their way and were left out\n");
    }
    if (report->lost > 0) {
        printf("%" PRIu64 " records between %" PRIu64 " and %" PRIu64
               " are lost; `bop aof repair` makes the log usable\n",
               report->lost, report->lost_first, report->lost_last);
    }
}

static int check(const struct cli_args *args, uint64_t rate)
{
    struct job job = {.args = args};
    struct bop_aof_check_options options = {.log = {.path = args->values[0]},
                                            .first_seq = args->aof.from,
                                            .last_seq = args->aof.to,
                                            .generation = args->aof.segment,
                                            .packed = true,
                                            .bytes_per_s = rate,
                                            .on_problem = on_problem,
                                            .on_progress = on_progress,
                                            .user = &job};
    struct bop_aof_report report = {0};
    struct bop_error err = {0};
    int exit_code = CLI_OK;
    int rc;

    if (args->aof.objects) {
        exit_code = aof_objects(args, &options.objects);
        if (exit_code == CLI_OK && !options.objects) {
            exit_code = cli_complain(CLI_AOF_USAGE, "--objects: give --endpoint and --bucket");
        }
    }
    if (exit_code != CLI_OK) {
        return exit_code;
    }
    progress_init(&job.progress, stderr, "verified", 0, false);
    rc = bop_aof_check(&options, &report, &err);
    progress_clear(&job.progress);
    if (options.objects) {
        options.objects->destroy(options.objects);
    }
    if (rc < 0 && !(rc == BOP_ECORRUPT && report.problems > 0)) {
        return aof_complain(&err);
    }
    print_report(args, &report);
    return aof_finish(rc < 0 ? CLI_AOF_FAILED : CLI_OK);
}

int cmd_aof_verify(const struct cli_args *args)
{
    return check(args, args->aof.rate);
}

int cmd_aof_scrub(const struct cli_args *args)
{
    return check(args, args->aof.rate > 0 ? args->aof.rate : SCRUB_RATE);
}

/* ---- repair ---- */

static void on_repair(void *user, const struct bop_aof_repair *repair)
{
    struct job *job = user;

    if (job->args->json) {
        aof_print_json(json_pack("{s:s,s:s,s:s*}", "repair", repair->text, "file", repair->file,
                                 "broken", repair->broken));
        return;
    }
    printf("%s%s: %s%s%s\n", job->args->aof.dry_run ? "would: " : "", repair->file, repair->text,
           repair->broken ? "; it was kept as " : "", repair->broken ? repair->broken : "");
}

static void print_repaired(const struct cli_args *args, const struct bop_aof_repair_report *report)
{
    uint64_t lost = report->lost_last + 1 - report->lost_first;

    if (args->json) {
        json_t *object = json_pack(
            "{s:i,s:i,s:o,s:o,s:o,s:o,s:b}", "problems", (int)report->found.problems, "repairs",
            (int)report->repairs, "last", aof_number(report->last), "lost", aof_number(lost),
            "lost_good", aof_number(report->lost_good), "torn_bytes",
            aof_number(report->found.torn_bytes), "dry_run", args->aof.dry_run);

        if (object && lost > 0) {
            json_object_set_new(object, "lost_first", aof_number(report->lost_first));
            json_object_set_new(object, "lost_last", aof_number(report->lost_last));
        }
        aof_print_json(object);
        return;
    }
    if (report->repairs == 0) {
        printf("%s: nothing to repair\n", args->values[0]);
        return;
    }
    if (lost == 0) {
        printf("%s: %u repairs, no record is lost; the log ends with record %" PRIu64 "\n",
               args->values[0], report->repairs, report->last);
        return;
    }
    printf("%s: records %" PRIu64 " to %" PRIu64 " %s (%" PRIu64
           " of them are good behind the damage, and in the .broken copies); the log ends "
           "with record %" PRIu64 "\n",
           args->values[0], report->lost_first, report->lost_last,
           args->aof.dry_run ? "would be lost" : "are lost", report->lost_good, report->last);
}

int cmd_aof_repair(const struct cli_args *args)
{
    struct job job = {.args = args};
    struct bop_aof_repair_options options = {.log = {.path = args->values[0]},
                                             .dry_run = args->aof.dry_run,
                                             .on_repair = on_repair,
                                             .on_problem = on_problem,
                                             .user = &job};
    struct bop_aof_repair_report report = {0};
    struct bop_error err = {0};
    int exit_code = aof_objects(args, &options.objects);
    int rc;

    if (exit_code != CLI_OK) {
        return exit_code;
    }
    progress_init(&job.progress, stderr, "checked", 0, false);
    rc = bop_aof_repair(&options, &report, &err);
    if (options.objects) {
        options.objects->destroy(options.objects);
    }
    if (rc < 0) {
        return aof_complain(&err);
    }
    print_repaired(args, &report);
    return aof_finish(CLI_OK);
}
