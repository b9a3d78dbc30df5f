/* Hot copies, and warming the page cache up. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format.h"

#include <bop/mem.h>

#define FILE_MODE        0600
#define DIRECTORY_MODE   0700
#define PATH_MAX_BYTES   4096
#define COPY_PIECE_BYTES 65536
#define WARMUP_BYTES     (256 << 10)

static int copy_code(struct bop_kv *kv, int fd, bool compact)
{
    return mdb_env_copyfd2(kv->env, fd, compact ? MDB_CP_COMPACT : 0);
}

int bop_kv_copy_fd(struct bop_kv *kv, int fd, bool compact, struct bop_error *err)
{
    int rc = bop__kv_code(copy_code(kv, fd, compact));

    return rc ? bop__kv_error(err, rc, "copy the store") : 0;
}

static int sync_path(int fd, const char *directory)
{
    int directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    if (directory_fd < 0) {
        return -errno;
    }
    if (fsync(fd) != 0 || (fsync(directory_fd) != 0 && errno != EINVAL)) {
        rc = -errno; /* EINVAL: this file system has nothing to sync. */
    }
    close(directory_fd);
    return rc;
}

int bop_kv_copy(struct bop_kv *kv, const char *directory, bool compact, struct bop_error *err)
{
    char path[PATH_MAX_BYTES];
    int n = snprintf(path, sizeof(path), "%s/%s", directory, KV_DATA_FILE);
    int fd, rc;

    if (n < 0 || (size_t)n >= sizeof(path)) {
        return bop_error_set(err, -ENAMETOOLONG, "%s", directory);
    }
    if (mkdir(directory, DIRECTORY_MODE) != 0 && errno != EEXIST) {
        return bop_error_set(err, -errno, "make %s", directory);
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    if (fd < 0) {
        return bop_error_set(err, errno == EEXIST ? BOP_EEXISTS : -errno, "create %s", path);
    }
    rc = bop_kv_copy_fd(kv, fd, compact, err);
    if (rc == 0) {
        rc = sync_path(fd, directory);
        rc = rc ? bop_error_set(err, rc, "sync %s", path) : 0;
    }
    close(fd);
    if (rc < 0) {
        unlink(path); /* Half a copy is of no use; if it stays, the check tells. */
    }
    return rc;
}

struct feeder {
    struct bop_kv *kv;
    int fd;
    bool compact;
    int code; /* LMDB's. */
};

static void *feed(void *context)
{
    struct feeder *feeder = context;
    sigset_t all;

    sigfillset(&all); /* The reader may stop: an error, not SIGPIPE. */
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    feeder->code = copy_code(feeder->kv, feeder->fd, feeder->compact);
    close(feeder->fd);
    return NULL;
}

static int pump(int fd, uint8_t *piece, bop_kv_copy_fn *fn, void *context)
{
    for (;;) {
        ssize_t n = read(fd, piece, COPY_PIECE_BYTES);
        int result;

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : 0;
        }
        result = fn(context, bop_slice(piece, (size_t)n));
        if (result != 0) {
            return result;
        }
    }
}

int bop_kv_copy_stream(struct bop_kv *kv, bool compact, bop_kv_copy_fn *fn, void *context,
                       struct bop_error *err)
{
    struct feeder feeder = {.kv = kv, .compact = compact};
    uint8_t *piece = bop_alloc(kv->allocator, COPY_PIECE_BYTES);
    pthread_t thread;
    int fds[2];
    int rc;

    if (!piece) {
        return bop_error_set(err, BOP_ENOMEM, "copy the store");
    }
    rc = pipe2(fds, O_CLOEXEC) != 0 ? errno : 0;
    if (rc == 0) {
        feeder.fd = fds[1];
        rc = pthread_create(&thread, NULL, feed, &feeder);
        if (rc != 0) {
            close(fds[0]);
            close(fds[1]);
        }
    }
    if (rc != 0) {
        bop_free(kv->allocator, piece, COPY_PIECE_BYTES);
        return bop_error_set(err, -rc, "copy the store");
    }
    rc = pump(fds[0], piece, fn, context);
    close(fds[0]); /* Ends the feeder as well. */
    pthread_join(thread, NULL);
    bop_free(kv->allocator, piece, COPY_PIECE_BYTES);
    if (rc == 0 && feeder.code != 0) {
        return bop__kv_error(err, bop__kv_code(feeder.code), "copy the store");
    }
    return rc;
}

/* ---- Warm-up ---- */

void bop__kv_unlock_memory(struct bop_kv *kv)
{
    if (kv->locked) {
        munmap(kv->locked, kv->locked_bytes);
        kv->locked = NULL;
    }
}

static int read_all(struct bop_kv *kv, uint64_t used, struct bop_clock *clock, uint64_t timeout_ms,
                    struct bop_error *err)
{
    uint64_t start = clock ? bop_clock_monotonic_ms(clock) : 0;
    uint8_t *piece = bop_alloc(kv->allocator, WARMUP_BYTES);
    int rc = piece ? 0 : bop_error_set(err, BOP_ENOMEM, "warm up");

    for (uint64_t at = 0; at < used && rc == 0; at += WARMUP_BYTES) {
        if (pread(kv->data_fd, piece, WARMUP_BYTES, (off_t)at) < 0 && errno != EINTR) {
            rc = bop_error_set(err, -errno, "warm up: read at %" PRIu64, at);
        } else if (clock && timeout_ms > 0 && bop_clock_monotonic_ms(clock) - start >= timeout_ms) {
            rc = bop_error_set(err, BOP_ETIMEOUT, "warm up: %" PRIu64 " of %" PRIu64 " bytes", at,
                               used);
        }
    }
    bop_free(kv->allocator, piece, piece ? WARMUP_BYTES : 0);
    return rc;
}

/* A map of our own: a page locked by it is in memory for LMDB's map as well. */
static int lock_memory(struct bop_kv *kv, uint64_t used, struct bop_error *err)
{
    void *map = mmap(NULL, (size_t)used, PROT_READ, MAP_SHARED, kv->data_fd, 0);

    if (map == MAP_FAILED) {
        return bop_error_set(err, -errno, "warm up: map");
    }
    if (mlock(map, (size_t)used) != 0) {
        int rc = bop_error_set(err, -errno, "warm up: lock %" PRIu64 " bytes", used);

        munmap(map, (size_t)used);
        return rc;
    }
    bop__kv_unlock_memory(kv);
    kv->locked = map;
    kv->locked_bytes = (size_t)used;
    return 0;
}

int bop_kv_warmup(struct bop_kv *kv, enum bop_kv_warmup how, struct bop_clock *clock,
                  uint64_t timeout_ms, struct bop_error *err)
{
    uint64_t used = bop__kv_used(kv);
    int rc;

    switch (how) {
    case BOP_KV_WARMUP_HINT:
        rc = posix_fadvise(kv->data_fd, 0, (off_t)used, POSIX_FADV_WILLNEED);
        return rc ? bop_error_set(err, -rc, "warm up") : 0;
    case BOP_KV_WARMUP_READ:
        return read_all(kv, used, clock, timeout_ms, err);
    case BOP_KV_WARMUP_LOCK:
        rc = read_all(kv, used, clock, timeout_ms, err);
        return rc ? rc : lock_memory(kv, used, err);
    case BOP_KV_WARMUP_RELEASE:
        bop__kv_unlock_memory(kv);
        return 0;
    }
    return bop_error_set(err, BOP_EINVAL, "warm up");
}
