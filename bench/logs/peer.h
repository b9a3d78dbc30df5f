/*
 * What bench/aof has its peers do. A program of this folder is a store used as a log, and this; it
 * defines, before it includes this file,
 *
 *     struct log;
 *     struct log *log_open(const char *directory, bool durable);   in an empty directory
 *     void log_commit(struct log *, const void *record, size_t size, unsigned count);
 *                         so many copies behind all others; durable when it returns, if so opened
 *     uint64_t log_count(struct log *);                            records there are
 *     void log_close(struct log *);
 *
 * all of them static, and LOG_THREADS if several threads may commit at once.
 *
 * Usage:
 *
 *     append DIRECTORY durable|fast SIZE COUNT WAITERS SECONDS
 *
 * WAITERS threads commit COUNT records of SIZE bytes each, and each waits for its own. A log that
 * does not have all of them afterwards ends the program with status 1.
 */
#ifndef BENCH_LOGS_PEER_H
#define BENCH_LOGS_PEER_H

#include <pthread.h>

#include "common.h"

#define WAITERS_MAX 64

static struct {
    struct log *log;
    const void *record;
    size_t size;
    unsigned count;
    pthread_mutex_t lock; /* Of the run. */
    struct run run;
    uint64_t committed;
} job;

static void *committer(void *unused)
{
    bool over = false;

    (void)unused;
    while (!over) {
        uint64_t began = now_ns();

        log_commit(job.log, job.record, job.size, job.count);
        pthread_mutex_lock(&job.lock);
        job.committed += job.count;
        run_commit(&job.run, began, job.size * job.count);
        over = run_over(&job.run);
        pthread_mutex_unlock(&job.lock);
    }
    return NULL;
}

static void append(const char *directory, bool durable, unsigned waiters, double seconds)
{
    pthread_t threads[WAITERS_MAX];

    job.log = log_open(directory, durable);
    job.record = make_bytes(job.size);
    pthread_mutex_init(&job.lock, NULL);
    run_begin(&job.run, seconds);
    for (unsigned i = 1; i < waiters; i++) {
        if (pthread_create(&threads[i], NULL, committer, NULL) != 0)
            die("pthread_create", "failed");
    }
    committer(NULL);
    for (unsigned i = 1; i < waiters; i++)
        pthread_join(threads[i], NULL);
    if (log_count(job.log) != job.committed)
        die("append", "the log has not all that was committed");
    log_close(job.log);
    run_print(&job.run, job.size, job.count);
}

int main(int argc, char **argv)
{
    unsigned waiters;

    if (argc != 8 || strcmp(argv[1], "append") != 0)
        die("usage", "append DIRECTORY durable|fast SIZE COUNT WAITERS SECONDS");
    job.size = strtoul(argv[4], NULL, 10);
    job.count = (unsigned)strtoul(argv[5], NULL, 10);
    waiters = (unsigned)strtoul(argv[6], NULL, 10);
    if (job.size == 0 || job.count == 0 || waiters == 0 || waiters > WAITERS_MAX)
        die("usage", "a number is out of range");
#ifndef LOG_THREADS
    if (waiters > 1)
        die("usage", "one writer at a time");
#endif
    append(argv[2], strcmp(argv[3], "durable") == 0, waiters, strtod(argv[7], NULL));
    return 0;
}

#endif
