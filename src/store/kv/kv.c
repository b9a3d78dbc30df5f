/*
 * Opening, closing and removing a store.
 *
 * A store is a directory with LMDB's two files. Both are mapped, so both need
 * their blocks before anybody writes to them: the data file by reserve.c as it
 * grows, the lock file here, once. A lock of our own on the data file refuses a
 * second open, of this process too: LMDB does not survive that (the close of
 * the second one drops the POSIX locks of the first).
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format.h"
#include "kv.h"

#include <bop/mem.h>

#define FILE_MODE      0600
#define DIRECTORY_MODE 0700
#define PATH_MAX_BYTES 4096
/* The lock file: a head, and 64 bytes a reader. LMDB derives its count of slots from the size. */
#define LOCK_HEAD_BYTES   128
#define LOCK_READER_BYTES 64

uint64_t bop__kv_used(struct bop_kv *kv)
{
    MDB_envinfo info;

    BOP_IGNORE(mdb_env_info(kv->env, &info)); /* Fails for a NULL only. */
    return ((uint64_t)info.me_last_pgno + 1) * kv->page_bytes;
}

static int join(char *out_path, const char *directory, const char *name, struct bop_error *err)
{
    int n = snprintf(out_path, PATH_MAX_BYTES, "%s/%s", directory, name);

    if (n < 0 || n >= PATH_MAX_BYTES) {
        return bop_error_set(err, -ENAMETOOLONG, "%s", directory);
    }
    return 0;
}

/* Make the entries of a directory durable. */
static int sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0) {
        return -errno;
    }
    if (fsync(fd) != 0 && errno != EINVAL) { /* EINVAL: this file system has nothing to sync. */
        rc = -errno;
    }
    close(fd);
    return rc;
}

/* Open or make the data file and take our lock on it, with flock()'s operation. */
static int lock_data_file(const char *directory, int flags, int lock, int *out_fd,
                          struct bop_error *err)
{
    char path[PATH_MAX_BYTES];
    int rc = join(path, directory, KV_DATA_FILE, err);
    int fd;

    if (rc < 0) {
        return rc;
    }
    fd = open(path, O_CLOEXEC | flags, FILE_MODE);
    if (fd < 0) {
        return bop_error_set(err, bop__kv_code(errno), "open %s", path);
    }
    if (flock(fd, lock) != 0) {
        rc = errno == EWOULDBLOCK ? BOP_ELOCKED : -errno;
        close(fd);
        return bop_error_set(err, rc, "lock %s", path);
    }
    *out_fd = fd;
    return 0;
}

/* Give the lock file its size and blocks, so that LMDB need not. */
static int reserve_lock_file(const char *directory, unsigned readers_max, struct bop_error *err)
{
    uint64_t size = LOCK_HEAD_BYTES + (uint64_t)readers_max * LOCK_READER_BYTES;
    char path[PATH_MAX_BYTES];
    int rc = join(path, directory, KV_LOCK_FILE, err);
    struct stat stat;
    int fd;

    if (rc < 0) {
        return rc;
    }
    /* Its content means nothing without a process that has it open, and we hold the lock. */
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
    if (fd < 0) {
        return bop_error_set(err, bop__kv_code(errno), "open %s", path);
    }
    /* Never shorter: a tool of LMDB's may have it mapped. */
    if (fstat(fd, &stat) != 0 ||
        ((uint64_t)stat.st_size < size && ftruncate(fd, (off_t)size) != 0)) {
        rc = bop__kv_code(errno);
    }
    if (rc == 0) {
        rc = bop__kv_allocate(fd, 0, size);
    }
    close(fd);
    return rc ? bop_error_set(err, rc, "reserve %" PRIu64 " bytes for %s", size, path) : 0;
}

/* A file above the limit would be SIGXFSZ. */
static int check_file_limit(uint64_t map_bytes, struct bop_error *err)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < map_bytes) {
        return bop_error_say(err, BOP_EINVAL,
                             "the limit for the size of a file (ulimit -f) is %" PRIu64
                             " bytes, and the store's sparse file needs %" PRIu64
                             ": raise the limit, or lower bytes_max",
                             (uint64_t)limit.rlim_cur, map_bytes);
    }
    return 0;
}

static int open_environment(struct bop_kv *kv, const struct bop_kv_options *options,
                            unsigned readers_max, struct bop_error *err)
{
    unsigned flags = MDB_NOTLS | (options->read_ahead ? 0 : MDB_NORDAHEAD) |
                     bop__kv_sync_flags(
                         atomic_load_explicit(&kv->durability, memory_order_relaxed));
    MDB_envinfo info;
    MDB_stat stat;
    int rc;

    if (options->read_only) {
        flags |= MDB_RDONLY | MDB_NOLOCK; /* Our lock keeps writers away. */
    } else if (!options->nested) {
        flags |= MDB_WRITEMAP; /* LMDB has no nested transactions with it. */
    }
    rc = mdb_env_create(&kv->env);
    if (rc == 0) {
        rc = mdb_env_set_mapsize(kv->env, (size_t)kv->map_bytes);
    }
    if (rc == 0) {
        rc = mdb_env_set_maxdbs(kv->env, kv->tables_max);
    }
    if (rc == 0) {
        rc = mdb_env_set_maxreaders(kv->env, readers_max);
    }
    if (rc == 0) {
        rc = mdb_env_open(kv->env, options->path, flags, FILE_MODE);
        if (rc == ENOMEM) {
            return bop_error_say(err, BOP_ENOMEM,
                                 "no memory, or no room to map %" PRIu64
                                 " bytes of address space: raise the limit (ulimit -v), or lower "
                                 "bytes_max",
                                 kv->map_bytes);
        }
    }
    if (rc != 0) {
        return bop__kv_error(err, bop__kv_code(rc), "environment");
    }
    BOP_IGNORE(mdb_env_info(kv->env, &info)); /* Both fail for a NULL only. */
    BOP_IGNORE(mdb_env_stat(kv->env, &stat));
    kv->map_bytes = info.me_mapsize; /* Larger than asked for if so much is in use. */
    kv->page_bytes = stat.ms_psize;
    return 0;
}

/* LMDB trusts the file: see before that it is one, or that all of it is in order. */
static int look_at_file(struct bop_kv *kv, const struct bop_kv_options *options,
                        struct bop_error *err)
{
    struct bop_kv_check_options how = {.allocator = kv->allocator, .problems_max = 1};
    struct bop_kv_check_result result;
    struct format_meta meta;
    int rc = options->check ? bop__kv_check_fd(kv->data_fd, 0, &how, &result, err)
                            : bop__format_metas(kv->data_fd, 0, &meta, err);

    return rc == BOP_ENOTFOUND ? 0 : rc; /* An empty file will be a new store. */
}

/* Everything that needs the directory. kv is in a state that close understands. */
static int open_files(struct bop_kv *kv, const struct bop_kv_options *options,
                      struct bop_error *err)
{
    unsigned readers_max = options->readers_max ? options->readers_max : KV_READERS_DEFAULT;
    struct stat stat;
    int rc;

    if (options->read_only) {
        rc = lock_data_file(options->path, O_RDONLY, LOCK_SH | LOCK_NB, &kv->data_fd, err);
        rc = rc ? rc : look_at_file(kv, options, err);
        rc = rc ? rc : open_environment(kv, options, readers_max, err);
        return rc ? rc : bop__kv_tables_load(kv, err);
    }
    if (mkdir(options->path, DIRECTORY_MODE) != 0 && errno != EEXIST) {
        return bop_error_set(err, bop__kv_code(errno), "make the directory");
    }
    rc = lock_data_file(options->path, O_RDWR | O_CREAT, LOCK_EX | LOCK_NB, &kv->data_fd, err);
    if (rc == 0) {
        rc = check_file_limit(kv->map_bytes, err);
    }
    if (rc == 0) {
        rc = reserve_lock_file(options->path, readers_max, err);
    }
    if (rc < 0) {
        return rc;
    }
    if (fstat(kv->data_fd, &stat) != 0) {
        return bop_error_set(err, -errno, "stat %s", KV_DATA_FILE);
    }
    rc = look_at_file(kv, options, err);
    if (rc < 0) {
        return rc;
    }
    rc = open_environment(kv, options, readers_max, err);
    if (rc < 0) {
        return rc;
    }
    /* What is there can be read on a full disk; a write will ask again. */
    rc = bop__kv_reserve_first(kv);
    if (rc < 0 && (stat.st_size == 0 || rc != BOP_ENOROOM)) {
        return bop_error_set(err, rc, "reserve %" PRIu64 " bytes", kv->step_bytes);
    }
    if (stat.st_size == 0) {
        rc = sync_directory(options->path);
        if (rc < 0) {
            return bop_error_set(err, rc, "sync the directory");
        }
    }
    return bop__kv_tables_load(kv, err);
}

static uint64_t default_and_round(uint64_t value, uint64_t standard, uint64_t least)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    value = bop_max_u64(value ? value : standard, least);
    return (value + page - 1) / page * page;
}

static bool options_valid(const struct bop_kv_options *options)
{
    return options->path && options->path[0] && options->bytes_max <= INT64_MAX / 2 &&
           options->grow_step_bytes <= INT64_MAX / 4 && options->tables_max <= KV_TABLES_MAX_MOST &&
           options->readers_max <= KV_READERS_MOST &&
           (unsigned)options->durability <= BOP_KV_SURVIVES_SYSTEM;
}

static void take_options(struct bop_kv *kv, const struct bop_kv_options *options)
{
    kv->nested = options->nested;
    kv->read_only = options->read_only;
    kv->readers_max = options->readers_max ? options->readers_max : KV_READERS_DEFAULT;
    kv->sync_bytes = options->sync_bytes;
    kv->sync_period_ms = options->sync_period_ms;
    kv->long_reader = options->long_reader;
    kv->reader_lag_max = options->long_reader ? options->reader_lag_max : 0;
    atomic_init(&kv->durability,
                options->sync_commits ? BOP_KV_SURVIVES_SYSTEM : (unsigned)options->durability);
}

/* One that notices a thread waiting for itself. */
static void init_write_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;

    pthread_mutexattr_init(&attributes); /* None of these can fail with these arguments. */
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

int bop_kv_open(const struct bop_kv_options *options, struct bop_kv **out_kv, struct bop_error *err)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "store.kv");
    struct bop_kv *kv;
    int rc;

    if (!options_valid(options)) {
        return bop_error_set(err, BOP_EINVAL, "open store: options");
    }
    kv = bop_alloc_zeroed(allocator, sizeof(*kv));
    if (!kv) {
        return bop_error_set(err, BOP_ENOMEM, "open store %s", options->path);
    }
    kv->allocator = allocator;
    kv->data_fd = -1;
    kv->map_bytes = default_and_round(options->bytes_max, KV_BYTES_MAX_DEFAULT, KV_BYTES_MAX_LEAST);
    kv->step_bytes = default_and_round(options->grow_step_bytes, KV_GROW_STEP_DEFAULT,
                                       KV_GROW_STEP_LEAST);
    /* One is our own. */
    kv->tables_max = 1 + (options->tables_max ? options->tables_max : KV_TABLES_MAX_DEFAULT);
    kv->context = options->context;
    take_options(kv, options);
    kv->writer = (struct bop_kv_txn){.kv = kv, .write = true, .level = 1};
    pthread_mutex_init(&kv->mutex, NULL); /* Cannot fail with these attributes. */
    init_write_mutex(&kv->write_mutex);

    kv->names = bop_alloc_array(allocator, kv->tables_max, sizeof(*kv->names));
    kv->account.written = bop_alloc_array(allocator, kv->tables_max + KV_FIRST_TABLE,
                                          sizeof(*kv->account.written));
    kv->kinds = bop_alloc_array(allocator, kv->tables_max + KV_FIRST_TABLE, sizeof(*kv->kinds));
    kv->path = bop_alloc(allocator, strlen(options->path) + 1);
    if (kv->path) {
        strcpy(kv->path, options->path);
    }
    rc = kv->names && kv->account.written && kv->kinds && kv->path
             ? open_files(kv, options, err)
             : bop_error_set(err, BOP_ENOMEM, "tables");
    if (rc < 0) {
        bop_error_wrap(err, "open store %s", options->path);
        bop_kv_close(kv);
        return rc;
    }
    *out_kv = kv;
    return 0;
}

void bop_kv_close(struct bop_kv *kv)
{
    if (!kv) {
        return;
    }
    BOP_ASSERT(atomic_load(&kv->readers) == 0 && !kv->writer.txn);
    bop__kv_idle_deinit(kv);
    bop__kv_unlock_memory(kv);
    if (kv->env) {
        mdb_env_close(kv->env);
    }
    if (kv->data_fd >= 0) {
        close(kv->data_fd);
    }
    bop__kv_tables_deinit(kv);
    bop_free(kv->allocator, kv->account.written,
             (kv->tables_max + KV_FIRST_TABLE) * sizeof(*kv->account.written));
    bop_free(kv->allocator, kv->path, kv->path ? strlen(kv->path) + 1 : 0);
    bop_free(kv->allocator, kv->kinds, (kv->tables_max + KV_FIRST_TABLE) * sizeof(*kv->kinds));
    bop_free(kv->allocator, kv->names, kv->tables_max * sizeof(*kv->names));
    pthread_mutex_destroy(&kv->write_mutex);
    pthread_mutex_destroy(&kv->mutex);
    bop_free(kv->allocator, kv, sizeof(*kv));
}

static int remove_file(const char *directory, const char *name, struct bop_error *err)
{
    char path[PATH_MAX_BYTES];
    int rc = join(path, directory, name, err);

    if (rc == 0 && unlink(path) != 0 && errno != ENOENT && errno != ENOTDIR) {
        rc = bop_error_set(err, -errno, "remove %s", path);
    }
    return rc;
}

int bop_kv_remove(const char *path, struct bop_error *err)
{
    return bop_kv_remove_with(path, BOP_KV_REMOVE_UNUSED, err);
}

int bop_kv_remove_with(const char *path, enum bop_kv_remove how, struct bop_error *err)
{
    int lock = how == BOP_KV_REMOVE_UNUSED ? LOCK_EX | LOCK_NB
               : how == BOP_KV_REMOVE_WAIT ? LOCK_EX
                                           : LOCK_UN;
    int fd = -1;
    int rc = lock_data_file(path, O_RDWR, lock, &fd, err);

    if (rc < 0 && rc != -ENOENT && rc != -ENOTDIR) {
        return rc;
    }
    /* The lock file first: without the data file, nobody would look for it. */
    rc = remove_file(path, KV_LOCK_FILE, err);
    if (rc == 0) {
        rc = remove_file(path, KV_DATA_FILE, err);
    }
    if (fd >= 0) {
        close(fd);
        if (rc == 0) {
            rc = sync_directory(path);
            rc = rc ? bop_error_set(err, rc, "sync %s", path) : 0;
        }
    }
    if (rc == 0 && err) {
        *err = (struct bop_error){0}; /* A missing file was no failure. */
    }
    return rc;
}

void *bop_kv_context(const struct bop_kv *kv)
{
    return kv->context;
}

void bop_kv_stats(struct bop_kv *kv, struct bop_kv_stats *out_stats)
{
    MDB_envinfo info;

    BOP_IGNORE(mdb_env_info(kv->env, &info)); /* Fails for a NULL only. */
    *out_stats = (struct bop_kv_stats){
        .map_bytes = kv->map_bytes,
        .reserved_bytes = atomic_load_explicit(&kv->reserved_bytes, memory_order_relaxed),
        .used_bytes = bop__kv_used(kv),
        .readers = atomic_load_explicit(&kv->readers, memory_order_relaxed),
        .last_txn = info.me_last_txnid,
    };
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
/*
 * LMDB orders readers and the writer by its page of roots, which the thread sanitizer cannot see:
 * it would take every value read for a race with the put that wrote it.
 */
BOP_API const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:liblmdb.so\n";
}
#endif
#endif
