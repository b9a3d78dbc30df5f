/*
 * Work that must not run on the owner's thread, handed in as an interface: a
 * lane is a thread of its own, an inline executor runs when told to, and a
 * simulator runs it at a virtual time.
 *
 * A task is run exactly once, in the order submitted to its executor; then its
 * done callback fires exactly once on the owner's thread, in the same order,
 * and never from inside submit.
 */
#ifndef BOP_EXECUTOR_H
#define BOP_EXECUTOR_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/fs.h>
#include <bop/list.h>

/** Intrusive: lies in the caller's struct, which must live until done was called. */
struct bop_task {
    struct bop_list link;                /* The executor's while submitted. */
    void (*run)(struct bop_task *task);  /* On the executor's thread; may block. */
    void (*done)(struct bop_task *task); /* On the owner's thread; may submit again. */
};

/**
 * Bytes to be written to a file, and made durable if asked. Intrusive, as a task is.
 *
 * Several may be on their way at once, in any order on the disk; each is done when its own
 * bytes are written and, with sync, when an fdatasync that began after that returned
 * (or the write was one that returns when durable). done fires once on the owner's thread,
 * in any order among writes and tasks, and never from inside the call that submits.
 * Writes on their way do not overlap. The bytes stay until done.
 */
struct bop_write {
    struct bop_task task; /* The executor's while submitted. */
    struct bop_list link; /* Likewise. */
    struct bop_fs *fs;
    int fd;
    bool sync;
    /* The file was opened with O_DIRECT: bytes, size and offset are multiples of BOP_FS_ALIGN. */
    bool direct;
    const void *bytes;
    size_t size;
    uint64_t offset;
    int result; /* 0 or the code of the first failure. Then nothing is known of the bytes. */
    void (*done)(struct bop_write *write);
};

struct bop_executor {
    /* Never fails, never blocks for long. Owner's thread. */
    void (*submit)(struct bop_executor *self, struct bop_task *task);
    /* Likewise, for a write. NULL: writes run as tasks. */
    void (*write)(struct bop_executor *self, struct bop_write *write);
    /* How many writes make progress at once; more wait. 0 and 1 both mean one. */
    unsigned writes;
    /* How writes are done, for status: "io_uring", "threads", "task", "simulated". NULL: "task". */
    const char *method;
};

static inline void bop_executor_submit(struct bop_executor *executor, struct bop_task *task)
{
    executor->submit(executor, task);
}

/** Submit a write, as a task if the executor knows no better. Everything but result is set. */
BOP_API void bop_executor_write(struct bop_executor *executor, struct bop_write *write);

/** A thread that runs tasks one after another. */
struct bop_lane;

struct bop_lane_options {
    struct bop_allocator *allocator; /* Borrowed. Default: the process's. */
    const char *name;                /* The thread's, at most 15 bytes. */
    /* Called on a thread of the lane's when something finished waits for bop_lane_poll() and
     * nothing did before. It typically wakes the owner's loop. Required. */
    void (*notify)(void *user);
    void *user;
    /* Writes on their way at once, beside the tasks, to 64 (BOP_EINVAL above). 0 or 1: writes
     * are tasks. With more, on the real file system, they go through io_uring if the kernel has
     * and allows it, else through so many threads. On another file system always through
     * threads, which a lane with io_uring starts for the first such write. With io_uring a
     * write that completes may end a blocking call of the owner's, say epoll_wait, with EINTR. */
    unsigned writes;
    /* Leave io_uring alone, as if the kernel had none. */
    bool no_uring;
    /* Run tasks only with what processor and disk others leave: nobody waits for them. */
    bool background;
};

BOP_API BOP_MUST_USE int bop_lane_create(const struct bop_lane_options *options,
                                         struct bop_lane **out_lane);

/** Run what is still queued, fire all done callbacks, join the threads. Owner's thread; NULL is
 * fine. */
BOP_API void bop_lane_destroy(struct bop_lane *lane);

BOP_API struct bop_executor *bop_lane_executor(struct bop_lane *lane);

/** Fire the done callbacks of finished tasks and writes. Returns their number. Owner's thread. */
BOP_API size_t bop_lane_poll(struct bop_lane *lane);

/** Wait until every task and write submitted so far has run and its done callback was fired.
 * Owner's thread. */
BOP_API void bop_lane_drain(struct bop_lane *lane);

/** An executor without a thread: tasks wait until bop_inline_poll(). For tools and tests. */
struct bop_inline_executor {
    struct bop_executor executor; /* First. */
    struct bop_list queue;
};

BOP_API void bop_inline_init(struct bop_inline_executor *executor);

/** Run all queued tasks with their done callbacks, also those submitted meanwhile. Returns the
 * number. */
BOP_API size_t bop_inline_poll(struct bop_inline_executor *executor);

#endif
