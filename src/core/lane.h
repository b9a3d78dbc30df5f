/*
 * What the files of a lane share.
 *
 *      lane.c           tasks, the owner's side of everything, create and destroy
 *      lane_write.c     writes on their way: who carries them and how they end
 *      lane_uring.c     ... the kernel, through io_uring
 *      lane_threads.c   ... threads, through any file system
 *
 * A write on its way has a flight, one of a fixed number; more writes wait in
 * the order submitted. What carries flights hands them back through `finished`,
 * as the lane's thread does with tasks.
 */
#ifndef BOP_CORE_LANE_H
#define BOP_CORE_LANE_H

#include <pthread.h>
#include <stdatomic.h>

#include <bop/executor.h>
#include <bop/mpmc.h>

#define LANE_NAME_MAX 16 /* With the NUL; Linux's bound. */

/* What both queues hold. Flights and tasks together never fill `finished`. */
#define LANE_QUEUE_MAX  1024
#define LANE_WRITES_MAX 64
#define LANE_TASKS_MAX  (LANE_QUEUE_MAX - LANE_WRITES_MAX)

/* The two requests that a write with sync may be. */
enum lane_request {
    LANE_WRITE,
    LANE_SYNC,
    LANE_REQUESTS,
};

/* The result of a request that the kernel did not take. Nothing else gives it. */
#define LANE_NOT_TAKEN INT32_MIN

struct lane_flight {
    struct bop_task rest; /* On the lane's thread: what io_uring left to do. */
    struct bop_lane *lane;
    struct bop_write *write; /* NULL: free. */
    uint64_t number;         /* Which of the lane's writes this is. */
    size_t written;          /* Of the rest: bytes done before. */
    bool in_uring;           /* The kernel had it: results say what it did. */

    /* io_uring only. Who brings `pending` to 0 owns the flight, and hands it on. */
    int32_t results[LANE_REQUESTS];
    _Atomic unsigned pending; /* Requests that the kernel has. */
};

struct lane_uring;
struct lane_threads;

struct bop_lane {
    struct bop_executor executor;
    struct bop_allocator *allocator;
    void (*notify)(void *user);
    void *user;
    char name[LANE_NAME_MAX];
    bool background;
    pthread_t thread;

    struct bop_mpmc *work;     /* From the owner to the thread: tasks. */
    struct bop_mpmc *finished; /* Back: tasks and flights, see lane_write.c. */

    /* The owner's: tasks. */
    unsigned inside;         /* Tasks in work, running, or in finished. */
    struct bop_list waiting; /* Submitted while LANE_TASKS_MAX were inside. */
    struct bop_list ready;   /* Taken from finished, not fired yet; of writes too. */
    uint64_t submitted;
    uint64_t taken;  /* Tasks that were moved to ready. */
    unsigned firing; /* Depth of done callbacks under way. */

    /* The owner's: writes. */
    struct lane_flight *flights; /* executor.writes of them; NULL: writes are tasks. */
    struct bop_list writes;      /* struct bop_write: submitted while no flight was free. */
    uint64_t writes_submitted;
    uint64_t writes_begun;        /* Given a flight. */
    struct lane_uring *uring;     /* NULL: none. */
    struct lane_threads *threads; /* NULL: not started. */
};

/* ---- lane.c ---- */

/* Start a thread with the lane's name and no signals but those of its own faults. */
int bop__lane_start_thread(struct bop_lane *lane, pthread_t *out_thread, void *(*main)(void *user),
                           void *user);

/* ---- lane_write.c ---- */

/* What carries the writes, for options.writes of 2 and more. On failure deinit is to be called. */
int bop__lane_writes_init(struct bop_lane *lane, const struct bop_lane_options *options);
/* No write is on its way. */
void bop__lane_writes_deinit(struct bop_lane *lane);

/* Hand a flight to the owner. Not on the owner's thread. */
void bop__lane_flight_finished(struct lane_flight *flight);

/* Owner: move an item to ready if it is a flight; false: it is a task. */
bool bop__lane_writes_take(struct bop_lane *lane, uint64_t item);

/* Owner: begin waiting writes as far as there are flights. */
void bop__lane_writes_feed(struct bop_lane *lane);

/* Owner: whether one of the first `count` writes is still waiting or on its way. */
bool bop__lane_writes_pending(const struct bop_lane *lane, uint64_t count);

/* Owner: have the lane's thread do what is missing of a flight. */
void bop__lane_flight_rest(struct lane_flight *flight);

/* ---- lane_threads.c ---- */

int bop__lane_threads_create(struct bop_lane *lane, unsigned count,
                             struct lane_threads **out_threads);
void bop__lane_threads_destroy(struct lane_threads *threads);
void bop__lane_threads_begin(struct lane_threads *threads, struct lane_flight *flight);

/* ---- lane_uring.c ---- */

#ifdef BOP_HAVE_LIBURING

/* BOP_EUNSUPPORTED: the kernel has none, forbids it or lacks what is needed. */
int bop__lane_uring_create(struct bop_lane *lane, unsigned count, struct lane_uring **out_uring);
void bop__lane_uring_destroy(struct lane_uring *uring);
void bop__lane_uring_begin(struct lane_uring *uring, struct lane_flight *flight);

#else

static inline int bop__lane_uring_create(struct bop_lane *lane, unsigned count,
                                         struct lane_uring **out_uring)
{
    return BOP_EUNSUPPORTED;
}

static inline void bop__lane_uring_destroy(struct lane_uring *uring)
{
    BOP_ASSERT(!uring);
}

static inline void bop__lane_uring_begin(struct lane_uring *uring, struct lane_flight *flight)
{
    BOP_ASSERT(!uring);
}

#endif

/* ---- write.c ---- */

/* Write bytes [from, size) of a write, and sync if it asks for that. */
int bop__write_run(struct bop_write *write, size_t from);

/* The done of a task that is a write's. */
void bop__write_done(struct bop_task *task);

#endif
