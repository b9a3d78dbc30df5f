/*
 * bop aof bench: what the log does on this machine's disk, in a directory of its own.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "aof_common.h"
#include "progress.h"

#define RECORD_BYTES  128
#define BATCH_RECORDS 512
#define SCAN_WAIT_MS  60000
#define COMMITS_MAX   1000000

struct bench {
    const struct cli_args *args;
    const char *path;
    struct progress progress;
    struct bop_aof *aof;
    uint64_t records;
    uint64_t size;
    uint64_t batch;
    uint8_t *payload;
    uint64_t *commit_us;
    size_t commits;
    uint64_t write_us;
    uint64_t scan_us;
    struct bop_error err;
    const char *method;
    bool direct;
};

static void on_durable(void *user, uint64_t seq)
{
    BOP_IGNORE(user);
    BOP_IGNORE(seq); /* bop_aof_wait says it. */
}

static void on_failed(void *user, int code, const char *message)
{
    struct bench *bench = user;

    bop_error_say(&bench->err, code, "%s", message);
}

static uint64_t now_us(void)
{
    return bop_clock_monotonic_us(bop_clock_system());
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Append a batch, and wait until it is on disk. */
static int write_batch(struct bench *bench, struct bop_aof_record *records, uint64_t count)
{
    struct bop_aof_append append = {.records = records, .count = count};
    uint64_t begun = now_us();
    int rc;

    for (uint64_t i = 0; i < count; i++) {
        records[i] = (struct bop_aof_record){.tag = i,
                                             .body = bop_slice(bench->payload, bench->size)};
    }
    rc = bop_aof_append_wait(bench->aof, &append, NULL, -1);
    if (rc == 0) {
        rc = bop_aof_wait(bench->aof, BOP_AOF_DISK, bop_aof_last(bench->aof), -1);
    }
    if (rc == 0 && bench->commits < COMMITS_MAX) {
        bench->commit_us[bench->commits++] = now_us() - begun;
    }
    return rc;
}

static int write_all(struct bench *bench)
{
    struct bop_aof_record *records = malloc(bench->batch * sizeof(*records));
    uint64_t begun = now_us();
    uint64_t done = 0;
    int rc = records ? 0 : BOP_ENOMEM;

    while (rc == 0 && done < bench->records) {
        uint64_t count = bop_min_u64(bench->batch, bench->records - done);

        rc = write_batch(bench, records, count);
        done += count;
        progress_show(&bench->progress, done, "");
    }
    bench->write_us = now_us() - begun + 1;
    free(records);
    return rc;
}

static int scan_all(struct bench *bench)
{
    struct bop_aof_reader_options options = {.level = BOP_AOF_DISK};
    struct bop_aof_reader *reader;
    struct bop_aof_view view;
    uint64_t begun, seen = 0;
    int rc = bop_aof_reader_open(bench->aof, &options, &reader);

    if (rc < 0) {
        return bop_error_set(&bench->err, rc, "read the log");
    }
    begun = now_us();
    while ((rc = bop_aof_reader_next(reader, &view, &bench->err)) == 0) {
        seen++;
    }
    bench->scan_us = now_us() - begun + 1;
    bop_aof_reader_close(reader);
    if (rc != BOP_EEND) {
        return rc;
    }
    return seen == bench->records ? 0
                                  : bop_error_say(&bench->err, BOP_ECORRUPT,
                                                  "%" PRIu64 " of %" PRIu64 " records were read",
                                                  seen, bench->records);
}

static int run(struct bench *bench)
{
    struct bop_aof_options options = {.path = bench->path,
                                      .segment_bytes = bench->args->aof.segment_bytes,
                                      .on_durable = on_durable,
                                      .on_failed = on_failed,
                                      .user = bench};
    struct bop_aof_status status;
    int rc = bop_aof_open(&options, &bench->aof, NULL, &bench->err);

    if (rc < 0) {
        return rc;
    }
    rc = write_all(bench);
    if (rc == 0) {
        rc = scan_all(bench);
    }
    bop_aof_status(bench->aof, &status);
    bench->method = status.method;
    bench->direct = status.direct;
    bop_aof_close(bench->aof);
    return rc;
}

static void report(struct bench *bench)
{
    char size[AOF_BYTES_TEXT], rate[COUNT_TEXT_MAX], scan[COUNT_TEXT_MAX], count[COUNT_TEXT_MAX];
    double bytes = (double)bench->records * (double)bench->size;
    double write_rate = (double)bench->records * 1e6 / (double)bench->write_us;
    double scan_rate = (double)bench->records * 1e6 / (double)bench->scan_us;
    size_t last = bench->commits - 1;
    uint64_t p50, p99;

    qsort(bench->commit_us, bench->commits, sizeof(*bench->commit_us), by_value);
    p50 = bench->commit_us[last / 2];
    p99 = bench->commit_us[last * 99 / 100];
    if (bench->args->json) {
        aof_print_json(json_pack(
            "{s:o,s:o,s:o,s:f,s:f,s:o,s:o,s:f,s:f,s:s}", "records", aof_number(bench->records),
            "bytes", aof_number(bench->size), "batch", aof_number(bench->batch), "records_per_s",
            write_rate, "mb_per_s", bytes / (double)bench->write_us, "commit_us_p50",
            aof_number(p50), "commit_us_p99", aof_number(p99), "scan_records_per_s", scan_rate,
            "scan_mb_per_s", bytes / (double)bench->scan_us, "method", bench->method));
        return;
    }
    printf("wrote   %s records of %s, %" PRIu64 " a commit, each durable before the next (%s%s)\n",
           count_text(bench->records, count), aof_bytes(bench->size, size), bench->batch,
           bench->method, bench->direct ? ", direct" : "");
    printf("        %s records/s, %.1f MB/s; a commit %" PRIu64 " us, 99 of 100 below %" PRIu64
           " us\n",
           count_text((uint64_t)write_rate, rate), bytes / (double)bench->write_us, p50, p99);
    printf("read    %s records/s, %.1f MB/s, checksums and links checked\n",
           count_text((uint64_t)scan_rate, scan), bytes / (double)bench->scan_us);
}

/* Remove what the log made, and nothing else. */
static void remove_log(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    char file[4096];

    while (dir && (entry = readdir(dir)) != NULL) {
        size_t size = strlen(entry->d_name);
        bool ours = strcmp(entry->d_name, "lock") == 0 || strcmp(entry->d_name, "next.tmp") == 0 ||
                    (size > 4 && strcmp(entry->d_name + size - 4, ".seg") == 0);

        if (ours &&
            snprintf(file, sizeof(file), "%s/%s", path, entry->d_name) < (int)sizeof(file)) {
            unlink(file);
        }
    }
    if (dir) {
        closedir(dir);
    }
    rmdir(path);
}

int cmd_aof_bench(const struct cli_args *args)
{
    struct bench bench = {.args = args,
                          .path = args->values[0],
                          .records = args->entries,
                          .size = args->aof.size ? args->aof.size : RECORD_BYTES,
                          .batch = args->aof.batch ? args->aof.batch : BATCH_RECORDS};
    int exit_code = CLI_OK;

    if (mkdir(bench.path, 0700) < 0) {
        return cli_complain(errno == EEXIST ? CLI_AOF_USAGE : CLI_AOF_FAILED,
                            "make %s: %s; name a directory that is not there yet", bench.path,
                            bop_strerror(-errno));
    }
    bench.payload = calloc(1, bench.size);
    bench.commit_us = malloc(COMMITS_MAX * sizeof(*bench.commit_us));
    progress_init(&bench.progress, stderr, "wrote", bench.records, false);
    if (!bench.payload || !bench.commit_us) {
        exit_code = cli_complain(CLI_AOF_FAILED, "%s", bop_strerror(BOP_ENOMEM));
    } else {
        int rc = run(&bench);

        progress_clear(&bench.progress);
        if (rc < 0) {
            bench.err.code = bench.err.code ? bench.err.code : rc;
            exit_code = aof_complain(&bench.err);
        } else {
            report(&bench);
        }
    }
    if (!args->keep) {
        remove_log(bench.path);
    }
    free(bench.payload);
    free(bench.commit_us);
    return aof_finish(exit_code);
}
