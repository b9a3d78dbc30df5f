/*
 * A thread of its own waits for the signals, which all others block: writing a
 * profile takes milliseconds that no loop is to lose, and allocates, which no
 * handler may.
 */
#include "profiler.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <bop/heap_profile.h>
#include <bop/log.h>

#define FILES_MAX 1000 /* Profiles in a directory. */

static void toggle(void)
{
    if (bop_heap_profile_running()) {
        bop_heap_profile_stop();
        bop_log(bop_log_stderr(), BOP_LOG_INFO, "bopd", "heap profile stopped");
    } else if (bop_heap_profile_start(BOP_HEAP_PROFILE_SAMPLE_BYTES) == 0) {
        bop_log(bop_log_stderr(), BOP_LOG_INFO, "bopd", "heap profile started sample_bytes=%d",
                BOP_HEAP_PROFILE_SAMPLE_BYTES);
    } else {
        bop_log(bop_log_stderr(), BOP_LOG_WARN, "bopd", "no memory for a heap profile");
    }
}

/* Open the first of the names that is free. Returns a file descriptor or -errno. */
static int create_file(const char *directory, char path[PATH_MAX])
{
    for (unsigned n = 1; n <= FILES_MAX; n++) {
        int fd;

        if (snprintf(path, PATH_MAX, "%s/heap-%u.pprof", directory, n) >= PATH_MAX) {
            return -ENAMETOOLONG;
        }
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0) {
            return fd;
        }
        if (errno != EEXIST) {
            return -errno;
        }
    }
    return -EEXIST;
}

static int write_file(int fd)
{
    FILE *out = fdopen(fd, "w");
    int rc;

    if (!out) {
        rc = -errno;
        close(fd);
        return rc;
    }
    rc = bop_heap_profile_write(out);
    if (fclose(out) != 0 && rc == 0) {
        rc = -errno;
    }
    return rc;
}

static void write_profile(const char *directory)
{
    char path[PATH_MAX];
    int fd = create_file(directory, path);
    int rc = fd;

    if (fd >= 0) {
        rc = write_file(fd);
        if (rc < 0) {
            unlink(path);
        }
    }
    if (rc < 0) {
        bop_log(bop_log_stderr(), BOP_LOG_WARN, "bopd", "write heap profile %s: %s", path,
                bop_strerror(rc));
    } else {
        bop_log(bop_log_stderr(), BOP_LOG_INFO, "bopd", "heap profile written path=%s", path);
    }
}

static void signals_of(sigset_t *out_set)
{
    sigemptyset(out_set);
    sigaddset(out_set, SIGUSR1);
    sigaddset(out_set, SIGUSR2);
}

static void *profiler_main(void *argument)
{
    struct profiler *profiler = argument;
    sigset_t set;
    int number;

    signals_of(&set);
    while (sigwait(&set, &number) == 0 && !atomic_load(&profiler->stopping)) {
        if (number == SIGUSR1) {
            toggle();
        } else {
            write_profile(profiler->directory);
        }
    }
    return NULL;
}

void profiler_block_signals(void)
{
    sigset_t set;

    signals_of(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int profiler_start(struct profiler *profiler, const char *directory)
{
    int rc;

    profiler->directory = directory;
    atomic_init(&profiler->stopping, false);
    rc = -pthread_create(&profiler->thread, NULL, profiler_main, profiler);
    profiler->running = rc == 0;
    return rc;
}

void profiler_stop(struct profiler *profiler)
{
    if (!profiler->running) {
        return;
    }
    atomic_store(&profiler->stopping, true);
    pthread_kill(profiler->thread, SIGUSR1);
    pthread_join(profiler->thread, NULL);
    profiler->running = false;
    bop_heap_profile_stop();
}
