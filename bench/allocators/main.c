/*
 * One workload with one allocator, for bench/alloc.
 *
 *     bench_alloc [--idle-ms MS] [--expect PART] WORKLOAD THREADS
 *
 * Which allocator is up to LD_PRELOAD, or to what the program is linked with;
 * --expect makes it fail unless malloc() comes from a file with PART in its path,
 * for a library that cannot be preloaded is only warned of.
 *
 * It prints "NAME VALUE" lines: ns, wall time by threads a pair of an allocation
 * and a free; peak_mb, the most resident memory above the start's; held_mb, what
 * of it is left after everything was freed and the threads, still alive, were
 * idle for so long. What the program needs itself comes from the system before
 * the start.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "workloads.h"

#ifdef TAGGED
struct bop_allocator *tag;
#endif

struct worker workers[THREADS_MAX];
unsigned worker_count;
pthread_barrier_t meeting;

static const struct workload *workload;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* The kB in the line of a file of /proc that begins with `name`. Allocates nothing. */
static uint64_t proc_kb(const char *path, const char *name)
{
    char text[8192];
    char *line;
    ssize_t size;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        die("cannot read the process's memory");
    size = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[size > 0 ? size : 0] = '\0';
    line = strstr(text, name);
    if (!line)
        die("the system does not tell the process's memory");
    return strtoull(line + strlen(name), NULL, 10);
}

static uint64_t resident_kb(void)
{
    return proc_kb("/proc/self/smaps_rollup", "\nRss:");
}

static void *from_system(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (memory == MAP_FAILED)
        die("no memory");
    return memory;
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;

    pthread_barrier_wait(&meeting); /* The start, */
    workload->run(worker);
    pthread_barrier_wait(&meeting); /* the end, */
    pthread_barrier_wait(&meeting); /* and after the memory was looked at. */
    return NULL;
}

static void prepare(void)
{
    for (unsigned i = 0; i < worker_count; i++) {
        workers[i] = (struct worker){.number = i, .random = UINT64_C(0x9e3779b97f4a7c15) * (i + 1)};
        if (workload->table_blocks > 0)
            workers[i].table = from_system(workload->table_blocks * sizeof(struct block));
    }
    if (pthread_barrier_init(&meeting, NULL, worker_count) != 0)
        die("cannot make a barrier");
}

/* The first worker is the main thread. */
static void start_others(pthread_t *threads)
{
    for (unsigned i = 1; i < worker_count; i++) {
        if (pthread_create(&threads[i], NULL, worker_main, &workers[i]) != 0)
            die("cannot start a thread");
    }
}

static void sleep_ms(unsigned ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

static void measure(unsigned idle_ms)
{
    pthread_t threads[THREADS_MAX];
    uint64_t start_kb, began, ns, pairs = 0;

    prepare();
    start_others(threads);
    if (workload->prepare)
        workload->prepare(workers, worker_count);
    start_kb = resident_kb();

    pthread_barrier_wait(&meeting);
    began = now_ns();
    workload->run(&workers[0]);
    pthread_barrier_wait(&meeting);
    ns = now_ns() - began;

    for (unsigned i = 0; i < worker_count; i++)
        pairs += workers[i].pairs;
    printf("ns %.3f\n", (double)ns * worker_count / (double)pairs);
    printf("peak_mb %.3f\n",
           ((double)proc_kb("/proc/self/status", "\nVmHWM:") - (double)start_kb) / 1000);
    if (idle_ms > 0) {
        sleep_ms(idle_ms);
        printf("held_mb %.3f\n", ((double)resident_kb() - (double)start_kb) / 1000);
    }
    pthread_barrier_wait(&meeting);
    for (unsigned i = 1; i < worker_count; i++)
        pthread_join(threads[i], NULL);
}

static void check_malloc(const char *part)
{
    void *function = dlsym(RTLD_DEFAULT, "malloc");
    Dl_info info;

    if (!function || dladdr(function, &info) == 0 || !strstr(info.dli_fname, part)) {
        fprintf(stderr, "bench_alloc: malloc() is not from %s\n", part);
        exit(1);
    }
}

static void find_workload(const char *name, unsigned threads)
{
    for (size_t i = 0; i < workload_count; i++) {
        if (strcmp(workloads[i].name, name) == 0)
            workload = &workloads[i];
    }
    if (!workload || threads == 0 || threads > THREADS_MAX ||
        threads % workload->threads_multiple != 0)
        die("no such workload, or not with so many threads");
    worker_count = threads;
}

int main(int argc, char **argv)
{
    unsigned idle_ms = 0;
    int at = 1;

    for (; at + 1 < argc && strncmp(argv[at], "--", 2) == 0; at += 2) {
        if (strcmp(argv[at], "--idle-ms") == 0)
            idle_ms = (unsigned)strtoul(argv[at + 1], NULL, 10);
        else if (strcmp(argv[at], "--expect") == 0)
            check_malloc(argv[at + 1]);
        else
            break;
    }
    if (argc - at != 2)
        die("usage: bench_alloc [--idle-ms MS] [--expect PART] WORKLOAD THREADS");
    find_workload(argv[at], (unsigned)strtoul(argv[at + 1], NULL, 10));
#ifdef TAGGED
    tag = bop_tag("bench");
#endif
    measure(idle_ms);
    return 0;
}
