/*
 * bop map import, and that of sets, multimaps and counters: a file to one of them (or to all
 * counters it names), many requests under
 * way at a time.
 *
 * Entries are asked for in the order of the file, so of two with one key the later
 * one stays. The first failure ends it; what was acknowledged till then is counted.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include "link.h"
#include "progress.h"
#include "source.h"

#define OUTSTANDING_MAX 1024
#define BURST           256 /* Entries read before the loop turns again. */
#define TURN_MS         20
#define INPUT_TURN_MS   2 /* While a pipe has nothing for us. */

struct job {
    struct link link;
    struct source source;
    struct progress progress;
    enum bop_op op;
    const char *map; /* "counters" where lines name what they are of. */
    const char *path;
    unsigned outstanding;
    uint64_t stored;
    int code;             /* The first failure. */
    struct bop_error err; /* What was wrong with the file. */
    bool holding;         /* The source's entry is yet to be sent. */
    bool at_end;
    bool starved; /* The source had nothing at the last look. */
};

static void on_stored(void *user, int code, const struct bop_result *result)
{
    struct job *job = (struct job *)user;

    job->outstanding--;
    if (code == 0) {
        job->stored++;
    } else if (job->code == 0) {
        job->code = code;
    }
}

/* Take the next entry of the file, if there is one by now. */
static bool take(struct job *job)
{
    int rc = source_next(&job->source, &job->err);

    job->starved = rc == BOP_EAGAIN;
    job->at_end = rc == 0;
    if (rc < 0 && rc != BOP_EAGAIN) {
        job->code = rc;
    } else {
        job->err = (struct bop_error){0};
    }
    job->holding = rc == 1;
    return rc == 1;
}

/* Ask for the entry that is held. Returns whether it was taken. */
static bool send_held(struct job *job)
{
    struct bop_operation operation = {.op = job->op,
                                      .name = bop_slice_cstr(job->map),
                                      .key = bop_buf_slice(&job->source.key),
                                      .value = bop_buf_slice(&job->source.value)};
    int rc;

    if (job->op == BOP_OP_COUNTER_SET) {
        operation = (struct bop_operation){
            .op = job->op, .name = bop_buf_slice(&job->source.key), .number = job->source.number};
    }
    rc = bop_client_execute(job->link.client, &operation, BOP_READ_LINEARIZABLE, on_stored, job);

    if (rc == 0) {
        job->outstanding++;
        job->holding = false;
    } else if (rc != BOP_EFULL) {
        job->code = rc;
        if (rc == BOP_EINVAL && job->op == BOP_OP_COUNTER_SET) {
            bop_error_say(&job->err, rc, "line %" PRIu64 ": a name has 1 to %d bytes and is UTF-8",
                          job->source.line, BOP_NAME_MAX);
        }
        if (rc == BOP_ETOOBIG) {
            bop_error_say(&job->err, rc,
                          "line %" PRIu64 ": too big: a key has at most %u bytes, a value %u",
                          job->source.line, BOP_KEY_MAX,
                          job->op == BOP_OP_MAP_PUT ? BOP_VALUE_MAX : BOP_KEY_MAX);
        }
    }
    return rc == 0;
}

static void send_some(struct job *job)
{
    for (unsigned i = 0; i < BURST && job->code == 0; i++) {
        if (job->outstanding == OUTSTANDING_MAX || (!job->holding && (job->at_end || !take(job))) ||
            !send_held(job)) {
            break;
        }
    }
}

static int wait_ms(const struct job *job)
{
    if (job->starved) {
        return INPUT_TURN_MS;
    }
    return job->outstanding == OUTSTANDING_MAX || job->holding || job->at_end ? TURN_MS : 0;
}

static void run(struct job *job)
{
    do {
        int rc;

        job->starved = false;
        send_some(job);
        rc = job->code ? 0 : link_turn(&job->link, wait_ms(job));
        if (rc < 0 && job->code == 0) {
            job->code = rc;
        }
        progress_show(&job->progress, job->stored, "");
    } while (job->code == 0 && (job->outstanding > 0 || !job->at_end));
}

static int complain(const struct job *job)
{
    char count[COUNT_TEXT_MAX];

    count_text(job->stored, count);
    if (job->err.code != 0) {
        return cli_complain(CLI_FAILED, "import %s: %s; stopped after %s entries were stored",
                            job->path, job->err.message, count);
    }
    return link_complain(&job->link, job->code,
                         "import %s to %s, stopped after %s entries were stored", job->path,
                         job->map, count);
}

static int report(const struct job *job, const struct cli_args *args)
{
    double seconds = progress_seconds(&job->progress);
    double rate = seconds > 0 ? (double)job->stored / seconds : 0;
    char count[COUNT_TEXT_MAX], rate_count[COUNT_TEXT_MAX];

    if (args->json) {
        printf("{\"entries\":%" PRIu64 ",\"bytes\":%" PRIu64
               ",\"seconds\":%.3f,\"per_second\":%.0f}\n",
               job->stored, job->source.lines.bytes, seconds, rate);
    } else {
        fprintf(stderr, "imported %s entries in %.1f s, %s/s\n", count_text(job->stored, count),
                seconds, count_text((uint64_t)rate, rate_count));
    }
    return CLI_OK;
}

static int open_input(const char *path)
{
    return strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
}

static int import(const struct cli_args *args, enum bop_op op, const char *name, const char *path)
{
    static struct job job; /* Large, and one a process. */
    struct link_options options = {
        .args = args, .timeout_ms = CLI_IMPORT_TIMEOUT_MS, .outstanding_max = OUTSTANDING_MAX};
    int fd = open_input(path);
    int exit_code;

    if (fd < 0) {
        return cli_complain(CLI_FAILED, "open %s: %s", path, bop_strerror(-errno));
    }
    job = (struct job){.op = op, .map = name, .path = path};
    exit_code = link_open(&options, &job.link);
    if (exit_code == CLI_OK) {
        source_init(&job.source, fd, args->dpkg);
        job.source.members = op == BOP_OP_SET_ADD;
        job.source.counters = op == BOP_OP_COUNTER_SET;
        progress_init(&job.progress, stderr, "imported", 0, false);
        run(&job);
        progress_clear(&job.progress);
        exit_code = job.code < 0 ? complain(&job) : report(&job, args);
        link_close(&job.link);
        source_deinit(&job.source);
    }
    close(fd);
    return cli_finish_output(exit_code);
}

int cmd_map_import(const struct cli_args *args)
{
    return import(args, BOP_OP_MAP_PUT, args->values[0], args->values[1]);
}

int cmd_set_import(const struct cli_args *args)
{
    return import(args, BOP_OP_SET_ADD, args->values[0], args->values[1]);
}

int cmd_multimap_import(const struct cli_args *args)
{
    return import(args, BOP_OP_MULTIMAP_PUT, args->values[0], args->values[1]);
}

int cmd_counter_import(const struct cli_args *args)
{
    return import(args, BOP_OP_COUNTER_SET, "counters", args->values[0]);
}
