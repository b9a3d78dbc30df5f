/*
 * What the library does beyond allocating, as its environment says: purging,
 * summaries, leak reports, profiles.
 *
 * The constructor reads the environment. It starts no thread, so that programs
 * which count theirs (unshare(), setns()) or fork at once find one: purging
 * begins once the process has had PURGE_FROM_BYTES resident, and a profile's
 * thread is there only if a signal was asked for. A program with elevated rights
 * ignores all of it.
 *
 * Reports go to a copy of standard error made at the start, as many programs
 * close theirs before they end. Programs that close everything may have opened
 * something else under the copy's number since: it is checked to be what it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bop/heap_profile.h>
#include <bop/mem.h>

#include "../core/mem/purge.h"
#include "internal.h"

#define PURGE_FROM_BYTES (UINT64_C(32) << 20)
#define REPORT_FD_MIN    100 /* Out of the way of programs that count on low numbers. */

static struct {
    bool stats;
    bool leaks;
    const char *profile; /* Prefix of the files; NULL: none. Of the environment at the start. */
    size_t profile_bytes;
    int profile_signal; /* 0: none. */
    bool purge;
} settings = {.profile_bytes = BOP_HEAP_PROFILE_SAMPLE_BYTES, .purge = true};

static int report_fd = -1;
static struct stat report_file;

/* -- The environment --------------------------------------------------------------------------- */

static void complain(const char *name, const char *value, const char *allowed)
{
    char line[512];
    int length = snprintf(line, sizeof(line), "libbop-malloc: %s=%s is ignored: it can be %s\n",
                          name, value, allowed);

    if (length >= (int)sizeof(line)) {
        line[sizeof(line) - 2] = '\n';
        length = sizeof(line) - 1;
    }
    BOP_IGNORE(write(STDERR_FILENO, line, (size_t)length)); /* Nobody is left to be told. */
}

static void read_flag(const char *name, bool *out_flag)
{
    const char *value = secure_getenv(name);

    if (!value) {
        return;
    }
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0) {
        complain(name, value, "0 or 1");
        return;
    }
    *out_flag = value[0] == '1';
}

/* False if it is not set, or not between min and max. */
static bool read_number(const char *name, uint64_t min, uint64_t max, const char *allowed,
                        uint64_t *out_number)
{
    const char *value = secure_getenv(name);
    uint64_t number;
    char *end;

    if (!value) {
        return false;
    }
    errno = 0;
    number = strtoull(value, &end, 10);
    if (errno != 0 || *end != '\0' || value[0] < '0' || value[0] > '9' || number < min ||
        number > max) {
        complain(name, value, allowed);
        return false;
    }
    *out_number = number;
    return true;
}

static void read_signal(void)
{
    static const char name[] = "BOP_MALLOC_PROFILE_SIGNAL";
    static const char allowed[] = "the number of a signal that can be caught, 12 for SIGUSR2";
    uint64_t number = 0;

    if (!read_number(name, 1, (uint64_t)SIGRTMAX, allowed, &number)) {
        return;
    }
    if (number == SIGKILL || number == SIGSTOP || (number >= 32 && number < (uint64_t)SIGRTMIN)) {
        complain(name, secure_getenv(name), allowed);
        return;
    }
    settings.profile_signal = (int)number;
}

static void read_environment(void)
{
    const char *profile = secure_getenv("BOP_MALLOC_PROFILE");
    uint64_t bytes;

    read_flag("BOP_MALLOC_STATS", &settings.stats);
    read_flag("BOP_MALLOC_LEAKS", &settings.leaks);
    read_flag("BOP_MALLOC_PURGE", &settings.purge);
    if (profile && profile[0] == '\0') {
        complain("BOP_MALLOC_PROFILE", profile, "the beginning of a file's path");
        profile = NULL;
    }
    /* The program may change its environment. */
    settings.profile = profile ? strdup(profile) : NULL;
    if (read_number("BOP_MALLOC_PROFILE_BYTES", 1, (uint64_t)1 << 40,
                    "a number of bytes from 1 to 1099511627776", &bytes)) {
        settings.profile_bytes = bytes;
    }
    read_signal();
}

/* -- Reports ----------------------------------------------------------------------------------- */

static void keep_stderr(void)
{
    report_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, REPORT_FD_MIN);
    if (report_fd >= 0 && fstat(report_fd, &report_file) != 0) {
        close(report_fd);
        report_fd = -1;
    }
}

/* A stream on the kept copy, or NULL if it is not there any more. */
static FILE *open_report(void)
{
    struct stat now;
    FILE *out;
    int fd;

    if (report_fd < 0 || fstat(report_fd, &now) != 0 || now.st_dev != report_file.st_dev ||
        now.st_ino != report_file.st_ino) {
        return NULL;
    }
    fd = fcntl(report_fd, F_DUPFD_CLOEXEC, REPORT_FD_MIN);
    out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (fd >= 0 && !out) {
        close(fd);
    }
    return out;
}

void bop__malloc_summary(FILE *out)
{
    struct bop_mem_stats stats;
    char line[256];

    bop_mem_stats(&stats);
    fprintf(out, "libbop-malloc: %s[%d]: resident %" PRIu64 " bytes, committed %" PRIu64 " bytes\n",
            program_invocation_short_name, (int)getpid(), stats.resident_bytes,
            stats.committed_bytes);
    for (size_t i = 0; i < stats.tag_count; i++) {
        bop_mem_stats_line(&stats.tags[i], line, sizeof(line));
        fprintf(out, "libbop-malloc: %s\n", line);
    }
}

static void report_leaks(FILE *out)
{
    fprintf(out, "libbop-malloc: %s[%d]: at exit\n", program_invocation_short_name, (int)getpid());
    BOP_IGNORE(bop_leak_report_write(out)); /* Nobody is left to be told. */
}

/* -- Profiles ---------------------------------------------------------------------------------- */

static pthread_mutex_t profile_lock = PTHREAD_MUTEX_INITIALIZER; /* Of writing one. */
static unsigned profiles_written;
static sem_t profile_wanted;

static void write_profile(void)
{
    char path[PATH_MAX];
    FILE *out;
    int rc = -ENAMETOOLONG;

    pthread_mutex_lock(&profile_lock);
    if (snprintf(path, sizeof(path), "%s.%d.%u.heap", settings.profile, (int)getpid(),
                 profiles_written++) < (int)sizeof(path)) {
        out = fopen(path, "we");
        rc = out ? bop_heap_profile_write(out) : -errno;
        if (out && fclose(out) != 0 && rc == 0) {
            rc = -errno;
        }
    }
    pthread_mutex_unlock(&profile_lock);
    if (rc < 0 && (out = open_report())) {
        fprintf(out, "libbop-malloc: write the profile %s: %s\n", path, strerror(-rc));
        fclose(out);
    }
}

static void want_profile(int number)
{
    int saved = errno;

    sem_post(&profile_wanted);
    errno = saved;
}

static void *profile_thread(void *unused)
{
    for (;;) {
        while (sem_wait(&profile_wanted) != 0) {
        }
        write_profile();
    }
    return unused;
}

static void start_profile_thread(void)
{
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, profile_thread, NULL) == 0) {
        BOP_IGNORE(pthread_setname_np(thread, "bop-profile"));
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void lock_profile(void)
{
    pthread_mutex_lock(&profile_lock);
}

static void unlock_profile(void)
{
    pthread_mutex_unlock(&profile_lock);
}

static void restart_profile(void)
{
    profiles_written = 0;
    pthread_mutex_unlock(&profile_lock);
    start_profile_thread();
}

static void catch_signal(void)
{
    struct sigaction action = {.sa_handler = want_profile, .sa_flags = SA_RESTART};

    sem_init(&profile_wanted, 0, 0);
    sigemptyset(&action.sa_mask);
    if (sigaction(settings.profile_signal, &action, NULL) == 0 &&
        pthread_atfork(lock_profile, unlock_profile, restart_profile) == 0) {
        start_profile_thread();
    }
}

/* -- The beginning and the end ----------------------------------------------------------------- */

__attribute__((constructor(101))) static void begin(void)
{
    bop__heap_own_malloc();
    read_environment();
    if (settings.stats || settings.leaks) {
        bop_mem_count_untagged();
    }
    if (settings.stats || settings.leaks || settings.profile) {
        keep_stderr();
    }
    if (settings.leaks || settings.profile) {
        BOP_IGNORE(bop_heap_profile_start(settings.profile_bytes)); /* Without memory: no stacks. */
    }
    if (settings.profile && settings.profile_signal) {
        catch_signal();
    }
    if (settings.purge) {
        bop__purge_start_from(PURGE_FROM_BYTES);
    }
}

__attribute__((destructor(101))) static void end(void)
{
    FILE *out;

    bop_heap_profile_stop(); /* What the reports take is no concern of theirs. */
    if (settings.profile) {
        write_profile();
    }
    if (!settings.stats && !settings.leaks) {
        return;
    }
    out = open_report();
    if (!out) {
        return;
    }
    if (settings.stats) {
        bop__malloc_summary(out);
    }
    if (settings.leaks) {
        report_leaks(out);
    }
    fclose(out);
}
