/*
 * bop map export, and that of sets, multimaps and counters: to a file, page by page.
 *
 * All pages are of one view, so the file is of one revision. A view that is lost (a server was, or
 * it took too long) is followed by another one, and the file is begun again.
 */
#include <inttypes.h>

#include "link.h"
#include "ndjson.h"
#include "output.h"
#include "progress.h"

#define PAGE_ENTRIES    1000
#define TRIES_MAX       5     /* Views, one after another. */
#define PIPE_SILENCE_MS 30000 /* A view that is idle for so long is over anyway. */

struct job {
    struct link link;
    struct bop_client_view view; /* id 0: none, with --stale. */
    struct bop_operation operation;
    struct bop_buf page;
    struct bop_buf cursor;
    struct bop_buf text;
    struct progress progress;
    struct output output;
    uint64_t entries;
    uint64_t bytes;
};

/* ---- Pages ---- */

static int write_entry(struct job *job, const struct bop_scan_entry *entry)
{
    switch (job->operation.op) {
    case BOP_OP_SET_SCAN:
        return ndjson_write_member(&job->text, entry->key);
    case BOP_OP_NAMES:
        return entry->value.size == 8
                   ? ndjson_write_counter(&job->text, entry->key,
                                          (int64_t)bop_load_u64(entry->value.data))
                   : BOP_EPROTOCOL;
    default:
        return ndjson_write(&job->text, entry->key, entry->value);
    }
}

/* Write the entries of a page and remember where the next one begins. */
static int take_page(struct job *job, struct bop_result *page)
{
    struct bop_scan_entry entry;
    int rc = 0;

    bop_buf_clear(&job->text);
    while (rc == 0 && bop_scan_next(&page->entries, &entry)) {
        rc = write_entry(job, &entry);
        job->entries++;
    }
    bop_buf_clear(&job->cursor);
    if (rc == 0) {
        rc = bop_buf_append(&job->cursor, page->cursor.data, page->cursor.size);
    }
    if (rc == 0) {
        rc = output_write(&job->output, bop_buf_slice(&job->text));
    }
    job->bytes += job->text.size;
    return rc < 0 ? cli_complain(CLI_FAILED, "export to %s: %s", job->output.path, bop_strerror(rc))
                  : CLI_OK;
}

/* All pages, of the view if there is one. Returns a code of link_view_call(), or 0 and an exit
 * code. */
static int take_pages(struct job *job, int *out_exit_code)
{
    do {
        struct bop_result page;
        int rc;

        job->operation.cursor = bop_buf_slice(&job->cursor);
        rc = link_view_call(&job->link, job->view.id ? &job->view : NULL, &job->operation,
                            &job->page, &page);
        if (rc < 0) {
            return rc;
        }
        *out_exit_code = take_page(job, &page);
        progress_show(&job->progress, job->entries, "");
    } while (*out_exit_code == CLI_OK && job->cursor.size > 0);
    return 0;
}

static int complain_of_loss(const struct job *job, bool again)
{
    if (!again) {
        return cli_complain(CLI_FAILED,
                            "export to %s: the server that showed one revision was lost, or it "
                            "took too long, and a part is written already: export to a file",
                            job->output.path);
    }
    return cli_complain(CLI_FAILED,
                        "export to %s: begun %d times, and each time the server that showed one "
                        "revision was lost, or it took more than 5 minutes: try again, or take "
                        "--stale, which is not of one revision",
                        job->output.path, TRIES_MAX);
}

/* Begin the file again, as if nothing had been written. */
static bool begin_again(struct job *job)
{
    bool again = job->bytes == 0 || output_rewind(&job->output);

    bop_buf_clear(&job->cursor);
    job->entries = 0;
    job->bytes = 0;
    return again;
}

static int run(struct job *job)
{
    int exit_code = CLI_OK;
    int rc = BOP_ENOVIEW;
    bool again = true;

    for (unsigned n = 0; n < TRIES_MAX && rc == BOP_ENOVIEW && again; n++) {
        rc = job->link.args->stale ? 0 : link_view_open(&job->link, &job->view);
        if (rc == 0) {
            rc = take_pages(job, &exit_code);
        }
        again = rc != BOP_ENOVIEW || begin_again(job);
    }
    progress_clear(&job->progress);
    if (rc == BOP_ENOVIEW) {
        return complain_of_loss(job, again);
    }
    return rc < 0 ? link_complain(&job->link, rc, "export to %s", job->output.path) : exit_code;
}

static void report(const struct job *job, const struct cli_args *args)
{
    double seconds = progress_seconds(&job->progress);
    bool to_file = strcmp(job->output.path, "-") != 0;
    char count[COUNT_TEXT_MAX];

    if (args->json && to_file) {
        printf("{\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.3f}\n", job->entries,
               job->bytes, seconds);
    } else if (to_file || job->progress.terminal) {
        fprintf(stderr, "exported %s entries in %.1f s\n", count_text(job->entries, count),
                seconds);
    }
}

static int export(const struct cli_args *args, const struct bop_operation *operation,
                  const char *path)
{
    static struct job job; /* Large, and one a process. */
    struct link_options options = {
        .args = args, .timeout_ms = CLI_TIMEOUT_MS, .pin = true}; /* To move would end the view. */
    int exit_code;

    if (strcmp(path, "-") == 0) {
        /* Who reads the pipe may be slow, and meanwhile nobody listens to the server. */
        options.silence_ms = PIPE_SILENCE_MS;
    }
    job = (struct job){.operation = *operation};
    job.operation.limit = PAGE_ENTRIES;
    bop_buf_init(&job.page, NULL, 0);
    bop_buf_init(&job.cursor, NULL, 0);
    bop_buf_init(&job.text, NULL, 0);
    progress_init(&job.progress, stderr, "exported", 0, false);
    exit_code = output_open(&job.output, path);
    if (exit_code == CLI_OK) {
        exit_code = link_open(&options, &job.link);
    }
    if (exit_code == CLI_OK) {
        exit_code = run(&job);
    }
    if (exit_code == CLI_OK) {
        exit_code = output_finish(&job.output);
    }
    if (exit_code == CLI_OK) {
        report(&job, args);
    }
    output_close(&job.output);
    link_close(&job.link);
    bop_buf_deinit(&job.page);
    bop_buf_deinit(&job.cursor);
    bop_buf_deinit(&job.text);
    return cli_finish_output(exit_code);
}

static int export_one(const struct cli_args *args, enum bop_op op)
{
    struct bop_operation operation = {.op = op, .name = bop_slice_cstr(args->values[0])};

    return export(args, &operation, args->values[1]);
}

int cmd_map_export(const struct cli_args *args)
{
    return export_one(args, BOP_OP_MAP_SCAN);
}

int cmd_set_export(const struct cli_args *args)
{
    return export_one(args, BOP_OP_SET_SCAN);
}

int cmd_multimap_export(const struct cli_args *args)
{
    return export_one(args, BOP_OP_MULTIMAP_ENTRIES);
}

int cmd_counter_export(const struct cli_args *args)
{
    struct bop_operation operation = {.op = BOP_OP_NAMES, .kind = BOP_NAME_COUNTER};

    if (args->aof.prefix) {
        operation.prefix = bop_slice_cstr(args->aof.prefix);
    }
    return export(args, &operation, args->values[0]);
}
