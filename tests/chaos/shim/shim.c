/*
 * A disk, a clock and an allocator that can be made to misbehave, put under a real process with
 * LD_PRELOAD.
 *
 * BOP_CHAOS_CONTROL names a file that the tests write into while the process runs: struct control
 * below. BOP_CHAOS_DATA is the directory that it is about, but for its state/, of whose content
 * after a loss of power nothing is promised.
 *
 * BOP_CHAOS_RECORDS names a file, best on another disk, in which everything is written down that a
 * loss of power would take back: the bytes that a write replaced, the size before, names made,
 * renamed and removed; and each sync that made such things last. BOP_CHAOS_JOURNAL is a directory
 * on the disk of the data, where what was removed or renamed over gets a second name. After kill -9
 * the tests read all that and undo what they like of what no sync came after, in sectors
 * (tests/chaos/disk.py). So the process reads what it wrote, as from a page cache, and what a real
 * disk may have lost is lost.
 *
 * Memory is refused at random where bopd takes it from mimalloc, but for the small blocks that its
 * fast path takes off a list which is there.
 *
 * Synchronous calls are all that is seen here. io_uring is therefore refused to the process, with
 * the error of a kernel that has none.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT     __attribute__((visibility("default")))
#define CHUNK      (256 * 1024)
#define INODES_MAX 512
#define KEEPS_MAX  512

/* Little-endian, as tests/chaos/disk.py writes it. */
struct control {
    _Atomic uint32_t sync_delay_ms;
    _Atomic uint32_t sync_failures; /* That many syncs from now on fail with EIO. */
    _Atomic int64_t clock_offset_ns;
    _Atomic uint32_t syncs_failed; /* Told by us. */
    _Atomic uint32_t syncs;
    _Atomic uint32_t lies; /* Syncs do nothing and succeed: to prove that the tests notice. */
    _Atomic uint32_t memory_one_in;  /* One in so many requests for memory is refused. 0: none. */
    _Atomic uint32_t memory_refused; /* Told by us. */
    _Atomic uint32_t memory_asked;
};

enum record_type {
    RECORD_WRITE = 1, /* length bytes that were at offset; the file ended where fewer follow. */
    RECORD_SYNC = 2,  /* What was recorded of this inode below extra is on the disk. */
    RECORD_SIZE = 3,  /* The size was extra. */
    RECORD_CREATE = 4,
    RECORD_RENAME = 5, /* path is the old name, a zero byte, the new name; extra: see keep(). */
    RECORD_UNLINK = 6,
};

struct record {
    uint32_t type;
    uint32_t path_size;
    uint64_t sequence;
    uint64_t inode; /* Of the file; of names that of their directory. */
    uint64_t offset;
    uint64_t length;
    uint64_t extra;
    uint64_t data_size;
};
_Static_assert(sizeof(struct record) == 56, "a format that disk.py reads");

/* What is not yet on the disk, by inode: the journal starts anew when there is nothing. */
struct pending {
    uint64_t inode;
    uint64_t last; /* Sequence of the last record. */
};

/* A second name that keeps what was renamed over or removed, until its directory is synced. */
struct kept {
    uint64_t directory;
    uint64_t number;
};

static struct {
    struct control *control;
    char data[PATH_MAX];
    char state[PATH_MAX + 8];
    char journal[PATH_MAX];
    int journal_fd;
    pthread_mutex_t mutex;
    uint64_t sequence;
    unsigned under_way; /* Calls between their record and their end. */
    struct pending pending[INODES_MAX];
    size_t pending_count;
    bool overflow; /* Too many inodes to keep count of: the journal is not started anew. */
    struct kept kept[KEEPS_MAX];
    size_t kept_count;
    char chunk[CHUNK];
} shim = {.journal_fd = -1, .mutex = PTHREAD_MUTEX_INITIALIZER};

static struct control no_control;

/* The function of that name in the next library, found once. */
#define NEXT(type, name)                                                                           \
    static type (*next_)();                                                                        \
    if (next_ == NULL) {                                                                           \
        *(void **)&next_ = dlsym(RTLD_NEXT, name);                                                 \
    }

/* ---- Starting ---- */

static void refuse_io_uring(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0) {
        (void)prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    }
}

static struct control *map_control(const char *path)
{
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *memory = MAP_FAILED;

    if (fd >= 0) {
        memory = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
    }
    return memory != MAP_FAILED ? memory : &no_control;
}

__attribute__((constructor)) static void start(void)
{
    const char *data = getenv("BOP_CHAOS_DATA");
    const char *journal = getenv("BOP_CHAOS_JOURNAL");
    const char *records = getenv("BOP_CHAOS_RECORDS");

    shim.control = map_control(getenv("BOP_CHAOS_CONTROL"));
    refuse_io_uring();
    if (data == NULL || journal == NULL || records == NULL) {
        return;
    }
    snprintf(shim.data, sizeof(shim.data), "%s/", data);
    snprintf(shim.state, sizeof(shim.state), "%sstate/", shim.data);
    snprintf(shim.journal, sizeof(shim.journal), "%s", journal);
    shim.journal_fd = open(records, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    unsetenv("LD_PRELOAD");
}

static bool is_data(const char *path)
{
    return shim.journal_fd >= 0 && strncmp(path, shim.data, strlen(shim.data)) == 0 &&
           strncmp(path, shim.state, strlen(shim.state)) != 0;
}

/* ---- The journal; the mutex is held ---- */

static void note_pending(uint64_t inode)
{
    for (size_t i = 0; i < shim.pending_count; i++) {
        if (shim.pending[i].inode == inode) {
            shim.pending[i].last = shim.sequence;
            return;
        }
    }
    if (shim.pending_count == INODES_MAX) {
        shim.overflow = true;
    } else {
        shim.pending[shim.pending_count++] = (struct pending){inode, shim.sequence};
    }
}

static void append(struct record record, const char *path, size_t path_size, const void *data)
{
    struct iovec parts[] = {{&record, sizeof(record)},
                            {(void *)(uintptr_t)path, path_size},
                            {(void *)(uintptr_t)data, record.data_size}};

    record.path_size = (uint32_t)path_size;
    record.sequence = ++shim.sequence;
    if (syscall(SYS_writev, shim.journal_fd, parts, 3) < 0) {
        abort(); /* Without a journal the test would say nothing. */
    }
    if (record.type != RECORD_SYNC) {
        note_pending(record.inode);
    }
}

/* Nothing is left that could be undone. */
static void forget(void)
{
    if (ftruncate(shim.journal_fd, 0) != 0) {
        abort();
    }
}

static void remove_kept(uint64_t directory)
{
    char path[PATH_MAX + 32];

    for (size_t i = 0; i < shim.kept_count;) {
        if (shim.kept[i].directory == directory) {
            snprintf(path, sizeof(path), "%s/keep.%llu", shim.journal,
                     (unsigned long long)shim.kept[i].number);
            (void)syscall(SYS_unlink, path);
            shim.kept[i] = shim.kept[--shim.kept_count];
        } else {
            i++;
        }
    }
}

/* All that was recorded of the inode up to `until` is on the disk. */
static void note_synced(uint64_t inode, uint64_t until)
{
    append((struct record){.type = RECORD_SYNC, .inode = inode, .extra = until + 1}, "", 0, "");
    for (size_t i = 0; i < shim.pending_count; i++) {
        if (shim.pending[i].inode == inode && shim.pending[i].last <= until) {
            shim.pending[i] = shim.pending[--shim.pending_count];
            remove_kept(inode);
            break;
        }
    }
    if (shim.pending_count == 0 && shim.under_way == 0 && !shim.overflow) {
        forget();
    }
}

/* ---- Writes ---- */

/* The path and status of a descriptor that is ours to watch. */
static bool watched(int fd, char *out_path, struct stat *out_stat)
{
    char link[64];
    ssize_t size;

    if (shim.journal_fd < 0) {
        return false;
    }
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    size = readlink(link, out_path, PATH_MAX - 1);
    if (size < 0) {
        return false;
    }
    out_path[size] = '\0';
    return is_data(out_path) && fstat(fd, out_stat) == 0 && S_ISREG(out_stat->st_mode);
}

/* Record the bytes at an offset, which will be written over. The mutex is held. */
static void record_bytes(int fd, const char *path, const struct stat *stat, uint64_t offset,
                         uint64_t length)
{
    char link[64];
    int source;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    source = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
    while (length > 0) {
        uint64_t part = length < CHUNK ? length : CHUNK;
        long count = syscall(SYS_pread64, source, shim.chunk, part, offset);

        append((struct record){.type = RECORD_WRITE,
                               .inode = stat->st_ino,
                               .offset = offset,
                               .length = part,
                               .data_size = count > 0 ? (uint64_t)count : 0},
               path, strlen(path), shim.chunk);
        offset += part;
        length -= part;
    }
    close(source);
}

static void record_size(const char *path, const struct stat *stat)
{
    append((struct record){.type = RECORD_SIZE,
                           .inode = stat->st_ino,
                           .extra = (uint64_t)stat->st_size},
           path, strlen(path), "");
}

/* Returns whether end_write() is to be called. */
static bool begin_write(int fd, uint64_t offset, uint64_t length, bool at_position)
{
    char path[PATH_MAX];
    struct stat stat;

    if (!watched(fd, path, &stat)) {
        return false;
    }
    if (at_position) {
        offset = (uint64_t)lseek(fd, 0, SEEK_CUR);
    }
    pthread_mutex_lock(&shim.mutex);
    if (offset + length > (uint64_t)stat.st_size) {
        record_size(path, &stat);
    }
    record_bytes(fd, path, &stat, offset, length);
    shim.under_way++;
    pthread_mutex_unlock(&shim.mutex);
    return true;
}

static void end_write(bool begun)
{
    if (begun) {
        pthread_mutex_lock(&shim.mutex);
        shim.under_way--;
        pthread_mutex_unlock(&shim.mutex);
    }
}

#define WRITE_AT(name, offset_type)                                                                \
    EXPORT ssize_t name(int fd, const void *bytes, size_t size, offset_type offset)                \
    {                                                                                              \
        bool begun = begin_write(fd, (uint64_t)offset, size, false);                               \
        ssize_t count;                                                                             \
                                                                                                   \
        NEXT(ssize_t, #name)                                                                       \
        count = next_(fd, bytes, size, offset);                                                    \
        end_write(begun);                                                                          \
        return count;                                                                              \
    }

#undef pwrite
#undef pwrite64
ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset);
WRITE_AT(pwrite64, off64_t)
/* With 64-bit offsets, pwrite in the sources above would be pwrite64. */
EXPORT ssize_t chaos_pwrite(int fd, const void *bytes, size_t size,
                            off64_t offset) __asm__("pwrite");
ssize_t chaos_pwrite(int fd, const void *bytes, size_t size, off64_t offset)
{
    return pwrite64(fd, bytes, size, offset);
}

EXPORT ssize_t write(int fd, const void *bytes, size_t size)
{
    bool begun = begin_write(fd, 0, size, true);
    ssize_t count;

    NEXT(ssize_t, "write")
    count = next_(fd, bytes, size);
    end_write(begun);
    return count;
}

/* ---- Sizes ---- */

static int change_size(int fd, uint64_t size)
{
    char path[PATH_MAX];
    struct stat stat;

    if (watched(fd, path, &stat)) {
        pthread_mutex_lock(&shim.mutex);
        if (size < (uint64_t)stat.st_size) {
            record_bytes(fd, path, &stat, size, (uint64_t)stat.st_size - size);
        }
        record_size(path, &stat);
        pthread_mutex_unlock(&shim.mutex);
    }
    return 0;
}

int chaos_ftruncate(int fd, off64_t size) __asm__("ftruncate");
EXPORT int chaos_ftruncate(int fd, off64_t size)
{
    change_size(fd, (uint64_t)size);
    return (int)syscall(SYS_ftruncate, fd, size);
}

int chaos_ftruncate64(int fd, off64_t size) __asm__("ftruncate64");
EXPORT int chaos_ftruncate64(int fd, off64_t size)
{
    return chaos_ftruncate(fd, size);
}

int chaos_posix_fallocate(int fd, off64_t offset, off64_t size) __asm__("posix_fallocate");
EXPORT int chaos_posix_fallocate(int fd, off64_t offset, off64_t size)
{
    change_size(fd, UINT64_MAX);
    return syscall(SYS_fallocate, fd, 0, offset, size) < 0 ? errno : 0;
}

int chaos_posix_fallocate64(int fd, off64_t offset, off64_t size) __asm__("posix_fallocate64");
EXPORT int chaos_posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    return chaos_posix_fallocate(fd, offset, size);
}

/* ---- Syncs ---- */

static bool is_to_fail(void)
{
    uint32_t left = atomic_load(&shim.control->sync_failures);

    while (left > 0) {
        if (atomic_compare_exchange_weak(&shim.control->sync_failures, &left, left - 1)) {
            atomic_fetch_add(&shim.control->syncs_failed, 1);
            return true;
        }
    }
    return false;
}

static int sync_it(int fd, long number)
{
    uint32_t delay_ms = atomic_load(&shim.control->sync_delay_ms);
    struct timespec delay = {delay_ms / 1000, (long)(delay_ms % 1000) * 1000000};
    struct stat stat;
    uint64_t until;
    int rc;

    if (delay_ms != 0) {
        nanosleep(&delay, NULL);
    }
    if (is_to_fail()) {
        errno = EIO;
        return -1;
    }
    atomic_fetch_add(&shim.control->syncs, 1);
    if (atomic_load(&shim.control->lies) != 0) {
        return 0;
    }
    pthread_mutex_lock(&shim.mutex);
    until = shim.sequence;
    pthread_mutex_unlock(&shim.mutex);
    rc = (int)syscall(number, fd);
    if (rc == 0 && shim.journal_fd >= 0 && fstat(fd, &stat) == 0) {
        pthread_mutex_lock(&shim.mutex);
        note_synced(stat.st_ino, until);
        pthread_mutex_unlock(&shim.mutex);
    }
    return rc;
}

EXPORT int fdatasync(int fd)
{
    return sync_it(fd, SYS_fdatasync);
}

EXPORT int fsync(int fd)
{
    return sync_it(fd, SYS_fsync);
}

/* ---- Names ---- */

/* The inode of the directory that a path is in. */
static uint64_t directory_of(const char *path)
{
    char directory[PATH_MAX];
    struct stat stat;
    char *slash;

    snprintf(directory, sizeof(directory), "%s", path);
    slash = strrchr(directory, '/');
    if (slash == NULL) {
        return 0;
    }
    *slash = '\0';
    return lstat(directory, &stat) == 0 ? stat.st_ino : 0;
}

/* Give what is there a second name. Returns its number, or 0. */
static uint64_t keep(const char *path, uint64_t directory)
{
    char second[PATH_MAX + 32];
    uint64_t number = shim.sequence + 1;

    snprintf(second, sizeof(second), "%s/keep.%llu", shim.journal, (unsigned long long)number);
    if (shim.kept_count == KEEPS_MAX || syscall(SYS_link, path, second) != 0) {
        return 0;
    }
    shim.kept[shim.kept_count++] = (struct kept){directory, number};
    return number;
}

EXPORT int rename(const char *from, const char *to)
{
    char paths[2 * PATH_MAX];
    size_t first = strlen(from) + 1;
    int rc;

    if (!is_data(from)) {
        return (int)syscall(SYS_rename, from, to);
    }
    pthread_mutex_lock(&shim.mutex);
    snprintf(paths, sizeof(paths), "%s", from);
    snprintf(paths + first, sizeof(paths) - first, "%s", to);
    append((struct record){.type = RECORD_RENAME,
                           .inode = directory_of(to),
                           .extra = keep(to, directory_of(to))},
           paths, first + strlen(to), "");
    rc = (int)syscall(SYS_rename, from, to);
    pthread_mutex_unlock(&shim.mutex);
    return rc;
}

EXPORT int unlink(const char *path)
{
    int rc;

    if (!is_data(path)) {
        return (int)syscall(SYS_unlink, path);
    }
    pthread_mutex_lock(&shim.mutex);
    if (access(path, F_OK) == 0) {
        append((struct record){.type = RECORD_UNLINK,
                               .inode = directory_of(path),
                               .extra = keep(path, directory_of(path))},
               path, strlen(path), "");
    }
    rc = (int)syscall(SYS_unlink, path);
    pthread_mutex_unlock(&shim.mutex);
    return rc;
}

static int open_it(const char *path, int flags, mode_t mode)
{
    bool is_new = (flags & O_CREAT) != 0 && is_data(path) && access(path, F_OK) != 0;
    char cut[PATH_MAX];
    struct stat stat;
    int fd;

    if ((flags & O_TRUNC) != 0 && is_data(path) && !is_new) {
        /* What it held is to be undone as well, so it is cut by a call that records that. */
        fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags & ~O_TRUNC, mode);
        if (fd >= 0 && watched(fd, cut, &stat)) {
            (void)chaos_ftruncate(fd, 0);
        }
        return fd;
    }
    if (is_new) {
        pthread_mutex_lock(&shim.mutex);
    }
    fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (is_new) {
        if (fd >= 0 && fstat(fd, &stat) == 0) {
            append((struct record){.type = RECORD_CREATE,
                                   .inode = directory_of(path),
                                   .extra = stat.st_ino},
                   path, strlen(path), "");
        }
        pthread_mutex_unlock(&shim.mutex);
    }
    return fd;
}

int chaos_open(const char *path, int flags, mode_t mode) __asm__("open");
EXPORT int chaos_open(const char *path, int flags, mode_t mode)
{
    return open_it(path, flags, mode);
}

int chaos_open64(const char *path, int flags, mode_t mode) __asm__("open64");
EXPORT int chaos_open64(const char *path, int flags, mode_t mode)
{
    return open_it(path, flags, mode);
}

/* ---- The wall clock ---- */

static bool is_wall(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

static void shift(struct timespec *time, int64_t offset_ns)
{
    int64_t ns = time->tv_nsec + offset_ns % 1000000000;

    time->tv_sec += offset_ns / 1000000000 + (ns < 0 ? -1 : ns / 1000000000);
    time->tv_nsec = (ns % 1000000000 + 1000000000) % 1000000000;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *out_time)
{
    int rc;

    NEXT(int, "clock_gettime")
    rc = next_(clock, out_time);
    if (rc == 0 && is_wall(clock) && shim.control != NULL) {
        shift(out_time, atomic_load(&shim.control->clock_offset_ns));
    }
    return rc;
}

EXPORT int gettimeofday(struct timeval *restrict out_time, void *restrict zone)
{
    struct timespec now;

    if (clock_gettime(CLOCK_REALTIME, &now) != 0) {
        return -1;
    }
    *out_time = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

EXPORT time_t time(time_t *out_time)
{
    struct timespec now;

    if (clock_gettime(CLOCK_REALTIME, &now) != 0) {
        return (time_t)-1;
    }
    if (out_time != NULL) {
        *out_time = now.tv_sec;
    }
    return now.tv_sec;
}

/* ---- Memory ---- */

static bool is_refused(void)
{
    static __thread uint64_t state;
    uint32_t one_in = shim.control ? atomic_load(&shim.control->memory_one_in) : 0;

    if (shim.control != NULL) {
        atomic_fetch_add(&shim.control->memory_asked, 1);
    }
    if (one_in == 0) {
        return false;
    }
    state = (state != 0 ? state : (uint64_t)(uintptr_t)&state) * 6364136223846793005u +
            1442695040888963407u;
    if ((state >> 33) % one_in != 0) {
        return false;
    }
    atomic_fetch_add(&shim.control->memory_refused, 1);
    errno = ENOMEM;
    return true;
}

void *mi_malloc(size_t size);
void *mi_zalloc(size_t size);
void *mi_realloc(void *block, size_t size);
void *mi_malloc_aligned_at(size_t size, size_t alignment, size_t offset);
void *mi_zalloc_aligned_at(size_t size, size_t alignment, size_t offset);
void *mi_realloc_aligned_at(void *block, size_t size, size_t alignment, size_t offset);

EXPORT void *mi_malloc(size_t size)
{
    NEXT(void *, "mi_malloc")
    return is_refused() ? NULL : next_(size);
}

EXPORT void *mi_zalloc(size_t size)
{
    NEXT(void *, "mi_zalloc")
    return is_refused() ? NULL : next_(size);
}

EXPORT void *mi_realloc(void *block, size_t size)
{
    NEXT(void *, "mi_realloc")
    return is_refused() ? NULL : next_(block, size);
}

EXPORT void *mi_malloc_aligned_at(size_t size, size_t alignment, size_t offset)
{
    NEXT(void *, "mi_malloc_aligned_at")
    return is_refused() ? NULL : next_(size, alignment, offset);
}

EXPORT void *mi_zalloc_aligned_at(size_t size, size_t alignment, size_t offset)
{
    NEXT(void *, "mi_zalloc_aligned_at")
    return is_refused() ? NULL : next_(size, alignment, offset);
}

EXPORT void *mi_realloc_aligned_at(void *block, size_t size, size_t alignment, size_t offset)
{
    NEXT(void *, "mi_realloc_aligned_at")
    return is_refused() ? NULL : next_(block, size, alignment, offset);
}
