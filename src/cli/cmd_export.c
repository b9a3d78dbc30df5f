/*
 * bop map export: a map to a file, page by page.
 *
 * A file is written under another name beside it and takes its own only when all
 * is there and on disk, so nobody mistakes the half of an export for the whole.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "link.h"
#include "ndjson.h"
#include "progress.h"

#define PAGE_ENTRIES 1000
#define PATH_MAX_OF  4096

struct job {
    struct link link;
    struct bop_operation operation;
    struct bop_buf page;
    struct bop_buf cursor;
    struct bop_buf text;
    struct progress progress;
    const char *path;          /* What was asked for. */
    char partial[PATH_MAX_OF]; /* Where we write meanwhile; empty: there itself. */
    int fd;
    uint64_t entries;
    uint64_t bytes;
};

/* ---- The file ---- */

/* For the signal handler: the file that must not stay behind. */
static const char *unfinished;

static void on_signal(int number)
{
    if (unfinished) {
        unlink(unfinished);
    }
    _exit(128 + number);
}

static int open_partial(struct job *job)
{
    int length = snprintf(job->partial, sizeof(job->partial), "%s.partial-%ld", job->path,
                          (long)getpid());

    if (length < 0 || (size_t)length >= sizeof(job->partial)) {
        job->partial[0] = '\0';
        errno = ENAMETOOLONG;
        return -1;
    }
    job->fd = open(job->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (job->fd < 0) {
        job->partial[0] = '\0';
        return -1;
    }
    unfinished = job->partial;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    return 0;
}

/* A pipe or device is written itself; what is to be a file, beside it. */
static int open_output(struct job *job)
{
    struct stat status;

    if (strcmp(job->path, "-") == 0) {
        job->fd = dup(STDOUT_FILENO);
    } else if (stat(job->path, &status) == 0 && !S_ISREG(status.st_mode)) {
        job->fd = open(job->path, O_WRONLY | O_CLOEXEC);
    } else {
        open_partial(job);
    }
    if (job->fd < 0) {
        return cli_complain(CLI_FAILED, "write %s: %s", job->path, bop_strerror(-errno));
    }
    return CLI_OK;
}

static int finish_output(struct job *job)
{
    int rc = 0;

    if (job->partial[0]) {
        rc = fsync(job->fd) < 0 || rename(job->partial, job->path) < 0 ? -errno : 0;
        if (rc == 0) {
            unfinished = NULL;
            job->partial[0] = '\0';
        }
    }
    if (rc < 0) {
        return cli_complain(CLI_FAILED, "write %s: %s", job->path, bop_strerror(rc));
    }
    return CLI_OK;
}

static void close_output(struct job *job)
{
    if (job->partial[0]) {
        unlink(job->partial);
        unfinished = NULL;
    }
    if (job->fd >= 0) {
        close(job->fd);
    }
}

/* Perhaps to a pipe, so in order and without positions. */
static int write_all(int fd, struct bop_slice bytes)
{
    while (bytes.size > 0) {
        ssize_t size = write(fd, bytes.data, bytes.size);

        if (size < 0 && errno != EINTR) {
            return -errno;
        }
        if (size > 0) {
            bytes = bop_slice(bytes.data + size, bytes.size - (size_t)size);
        }
    }
    return 0;
}

/* ---- Pages ---- */

/* Write the entries of a page and remember where the next one begins. */
static int take_page(struct job *job, struct bop_result *page)
{
    struct bop_scan_entry entry;
    int rc = 0;

    bop_buf_clear(&job->text);
    while (rc == 0 && bop_scan_next(&page->entries, &entry)) {
        rc = ndjson_write(&job->text, entry.key, entry.value);
        job->entries++;
    }
    bop_buf_clear(&job->cursor);
    if (rc == 0) {
        rc = bop_buf_append(&job->cursor, page->cursor.data, page->cursor.size);
    }
    if (rc == 0) {
        rc = write_all(job->fd, bop_buf_slice(&job->text));
    }
    job->bytes += job->text.size;
    return rc < 0 ? cli_complain(CLI_FAILED, "export to %s: %s", job->path, bop_strerror(rc))
                  : CLI_OK;
}

static int run(struct job *job)
{
    int exit_code = CLI_OK;

    do {
        struct bop_result page;
        int rc;

        job->operation.cursor = bop_buf_slice(&job->cursor);
        rc = link_call(&job->link, &job->operation, &job->page, &page);
        if (rc < 0) {
            progress_clear(&job->progress);
            return link_complain(&job->link, rc, "export to %s", job->path);
        }
        exit_code = take_page(job, &page);
        progress_show(&job->progress, job->entries, "");
    } while (exit_code == CLI_OK && job->cursor.size > 0);
    progress_clear(&job->progress);
    return exit_code;
}

static void report(const struct job *job, const struct cli_args *args)
{
    double seconds = progress_seconds(&job->progress);
    bool to_file = strcmp(job->path, "-") != 0;
    char count[COUNT_TEXT_MAX];

    if (args->json && to_file) {
        printf("{\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.3f}\n", job->entries,
               job->bytes, seconds);
    } else if (to_file || job->progress.terminal) {
        fprintf(stderr, "exported %s entries in %.1f s\n", count_text(job->entries, count),
                seconds);
    }
}

int cmd_map_export(const struct cli_args *args)
{
    static struct job job; /* Large, and one a process. */
    struct link_options options = {
        .args = args, .timeout_ms = CLI_TIMEOUT_MS, .pin = args->stale || args->servers_given};
    int exit_code;

    job = (struct job){
        .path = args->values[1],
        .fd = -1,
        .operation = {.op = BOP_OP_MAP_SCAN,
                      .name = bop_slice_cstr(args->values[0]),
                      .limit = PAGE_ENTRIES},
    };
    bop_buf_init(&job.page, NULL, 0);
    bop_buf_init(&job.cursor, NULL, 0);
    bop_buf_init(&job.text, NULL, 0);
    progress_init(&job.progress, stderr, "exported", 0, false);
    exit_code = open_output(&job);
    if (exit_code == CLI_OK) {
        exit_code = link_open(&options, &job.link);
    }
    if (exit_code == CLI_OK) {
        exit_code = run(&job);
    }
    if (exit_code == CLI_OK) {
        exit_code = finish_output(&job);
    }
    if (exit_code == CLI_OK) {
        report(&job, args);
    }
    close_output(&job);
    link_close(&job.link);
    bop_buf_deinit(&job.page);
    bop_buf_deinit(&job.cursor);
    bop_buf_deinit(&job.text);
    return cli_finish_output(exit_code);
}
