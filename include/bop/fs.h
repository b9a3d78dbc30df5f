/*
 * The file system as an interface, so that the same code runs on real files, on
 * files whose n-th operation fails, and on a simulated disk that loses or tears
 * what was not synced (bop/sim.h).
 *
 * Every function returns a negative code on failure. Paths are UTF-8 without
 * NUL. Nothing retries a failed write or sync: after one, what lies above the
 * last good sync is unknown, and the caller must stop using that file.
 *
 * Threads: the real file system may be used from any thread; two calls on one
 * descriptor at once are the caller's to order. The others say below.
 */
#ifndef BOP_FS_H
#define BOP_FS_H

#include <fcntl.h>
#include <sys/types.h>

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/error.h>
#include <bop/random.h>
#include <bop/slice.h>

/* What buffers, sizes and offsets of a file opened with O_DIRECT are multiples of. */
#define BOP_FS_ALIGN 4096u

struct bop_fs {
    /* Open with flags of open(2): O_RDONLY or O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_DIRECT (-EINVAL
     * where there is no such thing; the caller then does without). Files
     * are made with mode 0600 and O_CLOEXEC. Returns a descriptor of this file system. */
    int (*open)(struct bop_fs *self, const char *path, int flags);
    int (*close)(struct bop_fs *self, int fd);
    /* Up to size bytes; 0 at the end of the file. May be short. */
    ssize_t (*pread)(struct bop_fs *self, int fd, void *out_bytes, size_t size, uint64_t offset);
    /* Up to size bytes. May be short. */
    ssize_t (*pwrite)(struct bop_fs *self, int fd, const void *bytes, size_t size, uint64_t offset);
    /* fdatasync(2): data and the size needed to read it back. */
    int (*sync)(struct bop_fs *self, int fd);
    /* Begin to bring [from, to) to the disk, so that a later sync finds little left to do: nothing
     * is promised, and failures are the sync's to tell. NULL: no such thing. */
    void (*write_back)(struct bop_fs *self, int fd, uint64_t from, uint64_t to);
    int (*truncate)(struct bop_fs *self, int fd, uint64_t size);
    /* Reserve blocks for [0, size) and make the file at least that long, reading as zeros. */
    int (*allocate)(struct bop_fs *self, int fd, uint64_t size);
    int (*size)(struct bop_fs *self, int fd, uint64_t *out_size);
    int (*unlink)(struct bop_fs *self, const char *path);
    int (*rename)(struct bop_fs *self, const char *from, const char *to);
    /* Make one directory, mode 0700. -EEXIST if there is one. */
    int (*mkdir)(struct bop_fs *self, const char *path);
    /* Make names created, renamed and removed in a directory durable. */
    int (*sync_dir)(struct bop_fs *self, const char *path);
    /* Call fn for each name in a directory but "." and "..", in byte order. A non-zero
     * result of fn ends the walk and is returned. */
    int (*list)(struct bop_fs *self, const char *path, int (*fn)(void *user, const char *name),
                void *user);
    /* Take an exclusive lock on an open file, held until it is closed or the process
     * dies; BOP_ELOCKED if somebody else has it. */
    int (*lock)(struct bop_fs *self, int fd);
    /* Bytes that a user without privileges could still write under path. */
    int (*free_bytes)(struct bop_fs *self, const char *path, uint64_t *out_bytes);
    /* Map [0, size) of a file that is at least that long, for reading; what is written to
     * the file by pwrite is seen. NULL, or BOP_EUNSUPPORTED: there is only pread. */
    int (*map)(struct bop_fs *self, int fd, size_t size, const void **out_bytes);
    void (*unmap)(struct bop_fs *self, const void *bytes, size_t size);
};

/** The real file system. Lives for ever. */
BOP_API struct bop_fs *bop_fs_real(void);

/* ---- Helpers over any file system ---- */

/** Read exactly size bytes, or BOP_ETRUNCATED if the file ends first. */
BOP_API BOP_MUST_USE int bop_fs_read_exact(struct bop_fs *fs, int fd, void *out_bytes, size_t size,
                                           uint64_t offset);

/** Write all bytes, going on after short writes. */
BOP_API BOP_MUST_USE int bop_fs_write_all(struct bop_fs *fs, int fd, const void *bytes, size_t size,
                                          uint64_t offset);

/** Read a whole file of at most size_max bytes (BOP_ETOOBIG above) and append it to out. */
BOP_API BOP_MUST_USE int bop_fs_read_file(struct bop_fs *fs, const char *path, size_t size_max,
                                          struct bop_buf *out);

/**
 * Replace a file so that after a crash either the old or the new content is
 * there, whole: write path.tmp, sync, rename, sync the directory.
 */
BOP_API BOP_MUST_USE int bop_fs_write_file(struct bop_fs *fs, const char *path,
                                           struct bop_slice content, struct bop_error *err);

/** Make a directory and those above it that are missing. 0 if it is there. */
BOP_API BOP_MUST_USE int bop_fs_mkdirs(struct bop_fs *fs, const char *path);

/** True if the path can be opened for reading (a file or a directory). */
BOP_API bool bop_fs_exists(struct bop_fs *fs, const char *path);

/* ---- Faulty: the n-th operation fails ---- */

/**
 * Decides which operation fails. One counter may be shared by a faulty file
 * system and a faulty allocator (tests/lib), so that a sweep covers both.
 */
struct bop_faults {
    uint64_t fail_at; /* The operation, from 1, that fails; 0: none. */
    uint64_t at;      /* Operations so far. */
    int fired;        /* The code given by the operation that failed, 0 while none has. */
    int code;         /* What an I/O operation fails with; 0 means -EIO. */
};

/** Count an operation that would fail with code; returns 0 or the failure. faults may be NULL. */
BOP_API int bop_faults_step(struct bop_faults *faults, int code);

/**
 * Wraps another file system (borrowed). Every operation but close, unlink, list
 * and unmap, and write_back, which it lacks, is a step of `faults` (borrowed); open_files counts
 * descriptors not closed. A failing pwrite first writes half of its bytes. One thread at a time.
 */
struct bop_fs_faulty {
    struct bop_fs fs; /* First: this is the file system to hand out. */
    struct bop_fs *under;
    struct bop_faults *faults;
    int open_files;
};

BOP_API void bop_fs_faulty_init(struct bop_fs_faulty *faulty, struct bop_fs *under,
                                struct bop_faults *faults);

#endif
