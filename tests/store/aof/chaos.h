/*
 * An executor that does what it may: writes are carried out in parts, in any order among each
 * other and beside tasks, and reported in any order. All choices follow from a seed.
 *
 * With it a file system that tells of a failed sync as a kernel does: once for each open of the
 * file, whoever synced it.
 */
#ifndef BOP_TESTS_STORE_AOF_CHAOS_H
#define BOP_TESTS_STORE_AOF_CHAOS_H

#include <stdio.h>

#include <bop/executor.h>
#include <bop/fs.h>
#include <bop/random.h>

#include "tap.h"

#define CHAOS_WRITES 32
#define CHAOS_FILES  256

/* ---- The file system ---- */

struct chaos_file {
    bool open;
    int fd;
    char path[96];
    unsigned seen; /* Failures of the file that this open was told of, or came after. */
};

struct chaos_fs {
    struct bop_fs fs; /* First. */
    struct bop_fs *under;
    struct chaos_file files[CHAOS_FILES];
    /* Failures of each file, by the name it was opened with. */
    struct {
        char path[96];
        unsigned failures;
    } failed[16];
};

static unsigned *chaos_failures(struct chaos_fs *c, const char *path)
{
    for (size_t i = 0; i < BOP_COUNT_OF(c->failed); i++) {
        if (c->failed[i].path[0] == '\0') {
            snprintf(c->failed[i].path, sizeof(c->failed[i].path), "%s", path);
        }
        if (strcmp(c->failed[i].path, path) == 0) {
            return &c->failed[i].failures;
        }
    }
    memset(c->failed, 0, sizeof(c->failed)); /* Only tells of errors twice. */
    return chaos_failures(c, path);
}

static struct chaos_file *chaos_file(struct chaos_fs *c, int fd)
{
    for (size_t i = 0; i < CHAOS_FILES; i++) {
        if (c->files[i].open && c->files[i].fd == fd) {
            return &c->files[i];
        }
    }
    return NULL;
}

static int chaos_open(struct bop_fs *self, const char *path, int flags)
{
    struct chaos_fs *c = BOP_CONTAINER_OF(self, struct chaos_fs, fs);
    int fd = c->under->open(c->under, path, flags);

    for (size_t i = 0; fd >= 0; i++) {
        REQUIRE(i < CHAOS_FILES);
        if (!c->files[i].open) {
            c->files[i] = (struct chaos_file){.open = true, .fd = fd};
            snprintf(c->files[i].path, sizeof(c->files[i].path), "%s", path);
            c->files[i].seen = *chaos_failures(c, path);
            break;
        }
    }
    return fd;
}

static int chaos_close(struct bop_fs *self, int fd)
{
    struct chaos_fs *c = BOP_CONTAINER_OF(self, struct chaos_fs, fs);
    struct chaos_file *file = chaos_file(c, fd);

    if (file) {
        file->open = false;
    }
    return c->under->close(c->under, fd);
}

static int chaos_sync(struct bop_fs *self, int fd)
{
    struct chaos_fs *c = BOP_CONTAINER_OF(self, struct chaos_fs, fs);
    struct chaos_file *file = chaos_file(c, fd);
    unsigned *failures = file ? chaos_failures(c, file->path) : NULL;
    int rc = c->under->sync(c->under, fd);

    if (failures && rc < 0) {
        ++*failures;
    }
    if (failures && file->seen != *failures) {
        file->seen = *failures;
        rc = rc < 0 ? rc : -EIO;
    }
    return rc;
}

/* Everything else goes to the file system under it, which is the simulated one. */
#define CHAOS_UNDER(self) (BOP_CONTAINER_OF(self, struct chaos_fs, fs)->under)

static ssize_t chaos_pread(struct bop_fs *self, int fd, void *out, size_t size, uint64_t offset)
{
    return CHAOS_UNDER(self)->pread(CHAOS_UNDER(self), fd, out, size, offset);
}

static ssize_t chaos_pwrite(struct bop_fs *self, int fd, const void *bytes, size_t size,
                            uint64_t offset)
{
    return CHAOS_UNDER(self)->pwrite(CHAOS_UNDER(self), fd, bytes, size, offset);
}

static int chaos_truncate(struct bop_fs *self, int fd, uint64_t size)
{
    return CHAOS_UNDER(self)->truncate(CHAOS_UNDER(self), fd, size);
}

static int chaos_allocate(struct bop_fs *self, int fd, uint64_t size)
{
    return CHAOS_UNDER(self)->allocate(CHAOS_UNDER(self), fd, size);
}

static int chaos_size(struct bop_fs *self, int fd, uint64_t *out_size)
{
    return CHAOS_UNDER(self)->size(CHAOS_UNDER(self), fd, out_size);
}

static int chaos_unlink(struct bop_fs *self, const char *path)
{
    return CHAOS_UNDER(self)->unlink(CHAOS_UNDER(self), path);
}

static int chaos_rename(struct bop_fs *self, const char *from, const char *to)
{
    struct chaos_fs *c = BOP_CONTAINER_OF(self, struct chaos_fs, fs);
    int rc = c->under->rename(c->under, from, to);

    /* The file keeps its failures. */
    for (size_t i = 0; rc == 0 && i < CHAOS_FILES; i++) {
        if (c->files[i].open && strcmp(c->files[i].path, from) == 0) {
            snprintf(c->files[i].path, sizeof(c->files[i].path), "%s", to);
            *chaos_failures(c, to) = *chaos_failures(c, from);
        }
    }
    return rc;
}

static int chaos_mkdir(struct bop_fs *self, const char *path)
{
    return CHAOS_UNDER(self)->mkdir(CHAOS_UNDER(self), path);
}

static int chaos_sync_dir(struct bop_fs *self, const char *path)
{
    return CHAOS_UNDER(self)->sync_dir(CHAOS_UNDER(self), path);
}

static int chaos_list(struct bop_fs *self, const char *path,
                      int (*fn)(void *user, const char *name), void *user)
{
    return CHAOS_UNDER(self)->list(CHAOS_UNDER(self), path, fn, user);
}

static int chaos_lock(struct bop_fs *self, int fd)
{
    return CHAOS_UNDER(self)->lock(CHAOS_UNDER(self), fd);
}

static int chaos_free_bytes(struct bop_fs *self, const char *path, uint64_t *out_bytes)
{
    return CHAOS_UNDER(self)->free_bytes(CHAOS_UNDER(self), path, out_bytes);
}

static void chaos_fs_init(struct chaos_fs *c, struct bop_fs *under)
{
    memset(c, 0, sizeof(*c));
    c->under = under;
    c->fs = (struct bop_fs){
        .open = chaos_open,
        .close = chaos_close,
        .pread = chaos_pread,
        .pwrite = chaos_pwrite,
        .sync = chaos_sync,
        .truncate = chaos_truncate,
        .allocate = chaos_allocate,
        .size = chaos_size,
        .unlink = chaos_unlink,
        .rename = chaos_rename,
        .mkdir = chaos_mkdir,
        .sync_dir = chaos_sync_dir,
        .list = chaos_list,
        .lock = chaos_lock,
        .free_bytes = chaos_free_bytes,
    };
}

/* ---- The executor ---- */

struct chaos_write {
    struct bop_write *write; /* NULL: unused. */
    size_t written;
    int result;
    bool ended; /* Only to be reported. */
};

struct chaos {
    struct bop_executor executor; /* First. */
    struct bop_random random;
    struct bop_list tasks; /* To be run, in this order. */
    struct bop_list ran;   /* To be reported, in this order. */
    struct chaos_write writes[CHAOS_WRITES];
    unsigned busy; /* Writes. */
};

static void chaos_submit(struct bop_executor *self, struct bop_task *task)
{
    struct chaos *c = BOP_CONTAINER_OF(self, struct chaos, executor);

    bop_list_push_back(&c->tasks, &task->link);
}

static void chaos_submit_write(struct bop_executor *self, struct bop_write *write)
{
    struct chaos *c = BOP_CONTAINER_OF(self, struct chaos, executor);

    for (size_t i = 0; i < CHAOS_WRITES; i++) {
        if (!c->writes[i].write) {
            c->writes[i] = (struct chaos_write){.write = write};
            c->busy++;
            return;
        }
    }
    REQUIRE(!"no more writes than were asked for");
}

/* `writes` at once; 0: they are tasks. */
static void chaos_init(struct chaos *c, uint64_t seed, unsigned writes)
{
    memset(c, 0, sizeof(*c));
    c->executor.submit = chaos_submit;
    c->executor.write = writes > 0 ? chaos_submit_write : NULL;
    c->executor.writes = writes;
    c->executor.method = "chaos";
    bop_random_seed(&c->random, seed);
    bop_list_init(&c->tasks);
    bop_list_init(&c->ran);
}

/* Carry a write on: a part of its bytes, the rest of them, or its sync. */
static void chaos_go_on(struct chaos *c, struct chaos_write *w)
{
    struct bop_write *write = w->write;
    size_t left = write->size - w->written;
    int rc;

    if (left > 0) {
        size_t size = bop_random_below(&c->random, 3) == 0 && left > 4096 ? 4096 : left;

        rc = bop_fs_write_all(write->fs, write->fd, (const uint8_t *)write->bytes + w->written,
                              size, write->offset + w->written);
        w->written += size;
        w->ended = rc < 0 || (w->written == write->size && !write->sync);
    } else {
        rc = write->fs->sync(write->fs, write->fd);
        w->ended = true;
    }
    w->result = rc;
}

static void chaos_report(struct chaos *c, struct chaos_write *w)
{
    struct bop_write *write = w->write;

    write->result = w->result;
    w->write = NULL;
    c->busy--;
    write->done(write);
}

static void chaos_task(struct bop_list *from, struct bop_list *to)
{
    struct bop_list *link = bop_list_pop_front(from);
    struct bop_task *task = BOP_CONTAINER_OF(link, struct bop_task, link);

    if (to) {
        task->run(task);
        bop_list_push_back(to, link);
    } else {
        task->done(task);
    }
}

/* Do one thing. False if there is none. */
static bool chaos_step(struct chaos *c)
{
    bool tasks = !bop_list_empty(&c->tasks);
    bool ran = !bop_list_empty(&c->ran);
    uint64_t choices = (tasks ? 1 : 0) + (ran ? 1 : 0) + c->busy;
    uint64_t choice;

    if (choices == 0) {
        return false;
    }
    choice = bop_random_below(&c->random, choices);
    if (tasks && choice-- == 0) {
        chaos_task(&c->tasks, &c->ran);
        return true;
    }
    if (ran && choice-- == 0) {
        chaos_task(&c->ran, NULL);
        return true;
    }
    for (size_t i = 0; i < CHAOS_WRITES; i++) {
        struct chaos_write *w = &c->writes[i];

        if (w->write && choice-- == 0) {
            if (w->ended) {
                chaos_report(c, w);
            } else {
                chaos_go_on(c, w);
            }
            return true;
        }
    }
    return true;
}

BOP_UNUSED static void chaos_finish(struct chaos *c)
{
    while (chaos_step(c)) {
    }
}

#endif
