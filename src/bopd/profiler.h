/*
 * The heap profile of a running daemon, by signals: SIGUSR1 starts and stops
 * sampling, SIGUSR2 writes <directory>/heap-<n>.pprof.
 */
#ifndef BOPD_PROFILER_H
#define BOPD_PROFILER_H

#include <pthread.h>
#include <stdatomic.h>

#include <bop/base.h>

struct profiler {
    const char *directory; /* Borrowed until stop. */
    pthread_t thread;
    bool running;
    _Atomic bool stopping;
};

/** Keep the two signals from the calling thread and those that it will make. */
void profiler_block_signals(void);

/** Wait for them from now on. Returns 0 or -errno; then they are without effect. */
BOP_MUST_USE int profiler_start(struct profiler *profiler, const char *directory);

/** Accepts one that is not running. */
void profiler_stop(struct profiler *profiler);

#endif
