/*
 * What bench/aof measures of our log.
 *
 *     append DIRECTORY durable|fast|rolling SIZE COUNT WAITERS SECONDS
 *     fill DIRECTORY SIZE BYTES SEGMENT_BYTES     make a log for what follows
 *     scan DIRECTORY                              GB/s of payload, warm, by a reader
 *     random DIRECTORY SIZE COUNT                 reads/s of single records, cold, by a reader
 *     raw DIRECTORY SIZE COUNT                    pread()s/s of as many bytes of the same files,
 * cold open DIRECTORY SEGMENT_BYTES                ms, cold
 *
 * append has one thread, which is how a log is used; a waiter is a commit of COUNT records that
 * is on its way, and is followed by another when it is durable. One waiter waits in
 * bop_aof_commit(). fast: records appended at level OS, from the first append until the last record
 * is written, waits for room included, in one segment and no more than the page cache takes.
 * rolling: the same over many segments, each of which waits until the one before is on disk.
 */
#include <dirent.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <bop/aof.h>

#include "common.h"

#define WAITERS_MAX 64
#define WRITES      8 /* On their way to the disk at once. */
#define FILES_MAX   64
#define LARGE       (1u << 20)
/* Payload of a run that the page cache takes: less than what the kernel has a writer wait for. */
#define CACHED_BYTES (UINT64_C(1) << 30)

struct commit {
    uint64_t began_ns;
    uint64_t last; /* Its last record. */
};

static struct {
    struct bop_lane *lane;
    struct bop_aof *aof;
    int event;
    uint64_t opened_ns; /* How long opening took. */

    /* Commits on their way, oldest first. */
    struct commit commits[WAITERS_MAX];
    unsigned first;
    unsigned waiting;
    struct run run;
    size_t commit_bytes;
} job;

static void notify(void *user)
{
    (void)user;
    if (eventfd_write(job.event, 1) != 0)
        die("eventfd", strerror(errno));
}

static void on_durable(void *user, uint64_t seq)
{
    (void)user;
    while (job.waiting > 0 && job.commits[job.first].last <= seq) {
        run_commit(&job.run, job.commits[job.first].began_ns, job.commit_bytes);
        job.first = (job.first + 1) % WAITERS_MAX;
        job.waiting--;
    }
}

static void on_failed(void *user, int code, const char *message)
{
    (void)user, (void)code;
    die("the log failed", message);
}

static enum bop_aof_level level = BOP_AOF_DISK;
static uint64_t bytes_max; /* Of payload, not durable. */
static bool alone;         /* A lane of the log's own: the program waits in it for each commit. */
static enum bop_aof_layout layout; /* What suits the workload, as a user would choose. */

static void log_open(const char *directory, uint64_t segment_bytes)
{
    struct bop_lane_options lane = {.name = "log", .notify = notify, .writes = WRITES};
    struct bop_aof_options options = {.path = directory,
                                      .segment_bytes = segment_bytes,
                                      .layout = layout,
                                      .level = level,
                                      .pending_bytes_max = level == BOP_AOF_OS ? 8u << 20 : 0,
                                      .writes_max = level == BOP_AOF_OS ? 2 : WRITES,
                                      .on_durable = on_durable,
                                      .on_failed = on_failed};
    struct bop_error err = {0};

    job.event = eventfd(0, EFD_CLOEXEC);
    if (!alone) {
        if (job.event < 0 || bop_lane_create(&lane, &job.lane) < 0)
            die("lane", "cannot be made");
        options.executor = bop_lane_executor(job.lane);
    }
    job.opened_ns = now_ns();
    if (bop_aof_open(&options, &job.aof, NULL, &err) < 0)
        die("open", err.message);
    job.opened_ns = now_ns() - job.opened_ns;
}

/* Sleep until something is done. */
static void turn(void)
{
    eventfd_t value;

    if (eventfd_read(job.event, &value) != 0)
        die("eventfd", strerror(errno));
    bop_lane_poll(job.lane);
}

static void log_close(void)
{
    while (!alone && bop_aof_busy(job.aof))
        turn();
    if (!alone)
        bop_lane_drain(job.lane);
    if (bop_aof_reached(job.aof, level) != bop_aof_last(job.aof))
        die("close", "the log has not all that was appended");
    bop_aof_close(job.aof);
    bop_lane_destroy(job.lane); /* NULL is fine. */
    close(job.event);
}

static struct bop_aof_record *make_records(size_t size, unsigned count)
{
    struct bop_aof_record *records = calloc(count, sizeof(*records));
    void *bytes = make_bytes(size);

    if (!records)
        die("calloc", "out of memory");
    for (unsigned i = 0; i < count; i++)
        records[i] = (struct bop_aof_record){.tag = i, .body = {.data = bytes, .size = size}};
    return records;
}

/* ---- Append ---- */

/* One commit after the other, as a program does that waits for each. */
static void append_alone(const struct bop_aof_record *records, unsigned count, double seconds)
{
    const struct bop_aof_append append = {.records = records, .count = count};

    run_begin(&job.run, seconds);
    while (!run_over(&job.run)) {
        uint64_t began_ns = now_ns();

        if (bop_aof_commit(job.aof, &append, NULL, -1) < 0)
            die("commit", "failed");
        run_commit(&job.run, began_ns, job.commit_bytes);
    }
}

static void append_durable(const struct bop_aof_record *records, unsigned count, unsigned waiters,
                           double seconds)
{
    run_begin(&job.run, seconds);
    while (!run_over(&job.run)) {
        while (job.waiting < waiters) {
            struct commit *commit = &job.commits[(job.first + job.waiting) % WAITERS_MAX];

            commit->began_ns = now_ns();
            if (bop_aof_append(job.aof, records, count) < 0)
                die("append", "refused");
            commit->last = bop_aof_last(job.aof);
            job.waiting++;
        }
        turn();
    }
    while (job.waiting > 0)
        turn();
}

static void append_fast(const struct bop_aof_record *records, unsigned count, double seconds)
{
    uint64_t began = now_ns();
    uint64_t end = began + (uint64_t)(seconds * 1e9);
    uint64_t appended = 0;

    while (now_ns() < end && appended * records->body.size < bytes_max) {
        int rc = bop_aof_append(job.aof, records, count);

        appended += rc == 0 ? count : 0;
        if (rc == BOP_EFULL)
            turn();
        else if (rc < 0)
            die("append", bop_strerror(rc));
        else
            bop_lane_poll(job.lane);
    }
    while (bop_aof_reached(job.aof, BOP_AOF_OS) != bop_aof_last(job.aof))
        turn();
    printf("records_s %.1f\n", (double)appended / ((double)(now_ns() - began) / 1e9));
}

static void append(char **arguments)
{
    bool durable = strcmp(arguments[1], "durable") == 0;
    bool rolls = strcmp(arguments[1], "rolling") == 0;
    size_t size = strtoul(arguments[2], NULL, 10);
    unsigned count = (unsigned)strtoul(arguments[3], NULL, 10);
    unsigned waiters = (unsigned)strtoul(arguments[4], NULL, 10);
    double seconds = strtod(arguments[5], NULL);
    struct bop_aof_record *records;

    if (size == 0 || count == 0 || waiters == 0 || waiters > WAITERS_MAX)
        die("usage", "a number is out of range");
    records = make_records(size, count);
    job.commit_bytes = size * count;
    level = durable ? BOP_AOF_DISK : BOP_AOF_OS;
    layout = durable && (count == 1 || job.commit_bytes >= LARGE) ? BOP_AOF_ALIGNED
                                                                  : BOP_AOF_PACKED;
    alone = durable && waiters == 1;
    bytes_max = rolls ? BYTES_MAX : CACHED_BYTES;
    log_open(arguments[0], durable || rolls ? 0 : 4 * CACHED_BYTES);
    if (alone)
        append_alone(records, count, seconds);
    else if (durable)
        append_durable(records, count, waiters, seconds);
    else
        append_fast(records, count, seconds);
    log_close();
    if (durable)
        run_print(&job.run, size, count);
}

static void fill(char **arguments)
{
    size_t size = strtoul(arguments[1], NULL, 10);
    uint64_t bytes = strtoull(arguments[2], NULL, 10);
    struct bop_aof_record *records = make_records(size, 1);

    log_open(arguments[0], strtoull(arguments[3], NULL, 10));
    for (uint64_t done = 0; done < bytes;) {
        int rc = bop_aof_append(job.aof, records, 1);

        if (rc == 0)
            done += size;
        else if (rc == BOP_EFULL)
            turn();
        else
            die("append", bop_strerror(rc));
    }
    log_close();
    printf("filled %d\n", 1);
}

/* ---- Read ---- */

/* Call fn with each file of a directory. */
static void each_file(const char *directory, void (*fn)(int fd, uint64_t size))
{
    DIR *dir = opendir(directory);
    struct dirent *entry;

    if (!dir)
        die(directory, strerror(errno));
    while ((entry = readdir(dir)) != NULL) {
        struct stat st;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);

        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
            fn(fd, (uint64_t)st.st_size);
        else if (fd >= 0)
            close(fd);
    }
    closedir(dir);
}

static void drop_file(int fd, uint64_t size)
{
    (void)size;
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static struct bop_aof_reader *reader_open(void)
{
    struct bop_aof_reader_options options = {0};
    struct bop_aof_reader *reader;

    if (bop_aof_reader_open(job.aof, &options, &reader) < 0)
        die("reader", "cannot be made");
    return reader;
}

static uint64_t scan_all(void)
{
    struct bop_aof_reader *reader = reader_open();
    struct bop_error err = {0};
    struct bop_aof_view view;
    uint64_t bytes = 0;
    int rc;

    while ((rc = bop_aof_reader_next(reader, &view, &err)) == 0)
        bytes += view.payload.size;
    if (rc != BOP_EEND)
        die("read", err.message);
    if (bop_aof_reader_position(reader) != bop_aof_last(job.aof) + 1)
        die("read", "not all was read");
    bop_aof_reader_close(reader);
    return bytes;
}

static void scan(char **arguments)
{
    uint64_t bytes, began;

    log_open(arguments[0], 0);
    scan_all(); /* To warm up. */
    began = now_ns();
    bytes = scan_all();
    printf("gb_s %.4f\n", (double)bytes / (double)(now_ns() - began));
    log_close();
}

static uint64_t random_below(uint64_t bound)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % bound;
}

static void read_one(struct bop_aof_reader *reader, uint64_t seq, size_t size)
{
    struct bop_error err = {0};
    struct bop_aof_view view;

    if (bop_aof_reader_seek(reader, seq, &err) < 0 ||
        bop_aof_reader_next(reader, &view, &err) < 0 || view.payload.size != size)
        die("read", err.message);
}

static void read_random(char **arguments)
{
    size_t size = strtoul(arguments[1], NULL, 10);
    uint64_t count = strtoull(arguments[2], NULL, 10);
    struct bop_aof_reader *reader;
    uint64_t first, records, began;

    log_open(arguments[0], 0);
    reader = reader_open();
    first = bop_aof_first(job.aof);
    records = bop_aof_last(job.aof) - first + 1;
    /* Both have their files open: a record of each. */
    for (uint64_t seq = first; seq < first + records; seq += records / FILES_MAX + 1)
        read_one(reader, seq, size);
    each_file(arguments[0], drop_file);
    began = now_ns();
    for (uint64_t i = 0; i < count; i++)
        read_one(reader, first + random_below(records), size);
    printf("reads_s %.2f\n", (double)count / ((double)(now_ns() - began) / 1e9));
    bop_aof_reader_close(reader);
    log_close();
}

static struct {
    int fds[FILES_MAX];
    uint64_t sizes[FILES_MAX];
    unsigned count;
    uint64_t size;
} raw;

static void keep_file(int fd, uint64_t size)
{
    if (size < raw.size || raw.count == FILES_MAX) {
        close(fd);
        return;
    }
    raw.fds[raw.count] = fd;
    raw.sizes[raw.count++] = size;
}

static void read_raw(char **arguments)
{
    uint64_t count = strtoull(arguments[2], NULL, 10);
    uint64_t began;
    char *buffer;

    raw.size = strtoull(arguments[1], NULL, 10);
    buffer = malloc(raw.size);
    each_file(arguments[0], drop_file);
    each_file(arguments[0], keep_file);
    if (!buffer || raw.count == 0)
        die("raw", "nothing to read");
    began = now_ns();
    for (uint64_t i = 0; i < count; i++) {
        unsigned file = (unsigned)random_below(raw.count);
        uint64_t offset = random_below(raw.sizes[file] - raw.size + 1);

        if (pread(raw.fds[file], buffer, raw.size, (off_t)offset) != (ssize_t)raw.size)
            die("pread", strerror(errno));
    }
    printf("reads_s %.2f\n", (double)count / ((double)(now_ns() - began) / 1e9));
    free(buffer);
}

static void open_cold(char **arguments)
{
    each_file(arguments[0], drop_file);
    log_open(arguments[0], strtoull(arguments[1], NULL, 10));
    printf("open_ms %.3f\n", (double)job.opened_ns / 1e6);
    log_close();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int arguments;
        void (*run)(char **arguments);
    } commands[] = {{"append", 6, append},      {"fill", 4, fill},    {"scan", 1, scan},
                    {"random", 3, read_random}, {"raw", 3, read_raw}, {"open", 2, open_cold}};

    for (size_t i = 0; i < BOP_COUNT_OF(commands); i++) {
        if (argc == commands[i].arguments + 2 && strcmp(argv[1], commands[i].name) == 0) {
            commands[i].run(argv + 2);
            return 0;
        }
    }
    die("usage", "append, fill, scan, random, raw or open, see the source");
}
