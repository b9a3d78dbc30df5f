/*
 * A lane: one thread that runs tasks first in, first out, and a list of finished
 * ones whose done callbacks the owner fires.
 *
 *      submit          thread             thread, then notify      poll
 *      ------> queued -------> running --------------------> done ------> ready, fired
 *
 * `queued` and `done` are under the lock, and a semaphore counts what is queued:
 * waking the thread is one system call, and none while it is busy. `ready` is
 * the owner's alone. The thread notifies when `done` was empty before, and poll
 * takes all of `done` at once: so each finished task is either taken by a poll
 * under way or has a notification after it, and none waits unseen.
 *
 * No callback is called with the lock held. poll keeps what it took in the lane
 * and takes each task off before it fires: a done callback may submit, poll or
 * drain itself, and the order stays.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>

#include <bop/error.h>
#include <bop/executor.h>

#define THREAD_NAME_MAX 16 /* With the NUL; Linux's bound. */

struct bop_lane {
    struct bop_executor executor;
    struct bop_allocator *allocator;
    void (*notify)(void *user);
    void *user;
    char name[THREAD_NAME_MAX];
    pthread_t thread;

    sem_t work; /* Counts what is queued, and stop. */
    pthread_mutex_t lock;
    pthread_cond_t finished; /* Something is done. */

    /* Under the lock. */
    struct bop_list queued;
    struct bop_list done;
    uint64_t submitted;
    bool stop;

    /* The owner's. */
    struct bop_list ready; /* Taken from done, not fired yet. */
    uint64_t fired;        /* Tasks whose done callback was called, or is being called. */
    unsigned firing;       /* Depth of done callbacks under way. */
};

/* Wait for the next task; NULL when the lane stops. */
static struct bop_task *next_task(struct bop_lane *lane)
{
    struct bop_list *link;

    while (sem_wait(&lane->work) < 0) {
        BOP_ASSERT(errno == EINTR); /* By a debugger, say: all signals are blocked. */
    }
    pthread_mutex_lock(&lane->lock);
    link = bop_list_pop_front(&lane->queued);
    BOP_ASSERT(link || lane->stop);
    pthread_mutex_unlock(&lane->lock);
    return link ? BOP_CONTAINER_OF(link, struct bop_task, link) : NULL;
}

static void finish_task(struct bop_lane *lane, struct bop_task *task)
{
    bool first;

    pthread_mutex_lock(&lane->lock);
    first = bop_list_empty(&lane->done);
    bop_list_push_back(&lane->done, &task->link);
    pthread_mutex_unlock(&lane->lock);
    pthread_cond_signal(&lane->finished);
    /* The owner may have fired and freed the task by now; the lane stays, for its
     * destroy joins this thread. */
    if (first) {
        lane->notify(lane->user);
    }
}

static void *lane_main(void *argument)
{
    struct bop_lane *lane = argument;
    struct bop_task *task;

    /* A thread without its name works as well. */
    BOP_IGNORE(pthread_setname_np(pthread_self(), lane->name));
    while ((task = next_task(lane)) != NULL) {
        task->run(task);
        finish_task(lane, task);
    }
    return NULL;
}

/* After the lock is released, or the thread would wake only to wait for it. */
static void wake(struct bop_lane *lane)
{
    int rc = sem_post(&lane->work);

    BOP_ASSERT(rc == 0); /* Fails only when 2^31 - 1 tasks wait. */
}

static void lane_submit(struct bop_executor *self, struct bop_task *task)
{
    struct bop_lane *lane = BOP_CONTAINER_OF(self, struct bop_lane, executor);

    pthread_mutex_lock(&lane->lock);
    BOP_ASSERT(!lane->stop);
    bop_list_push_back(&lane->queued, &task->link);
    lane->submitted++;
    pthread_mutex_unlock(&lane->lock);
    wake(lane);
}

/* Start the thread with all signals blocked, so that the process's handlers run on
 * threads that expect them. Those of a thread's own faults stay: blocked, they
 * would kill without the report of a crash handler. */
static int start_thread(struct bop_lane *lane)
{
    static const int own_faults[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    sigset_t all, before;
    int code;

    sigfillset(&all);
    for (size_t i = 0; i < BOP_COUNT_OF(own_faults); i++) {
        sigdelset(&all, own_faults[i]);
    }
    code = pthread_sigmask(SIG_BLOCK, &all, &before);
    if (code != 0) {
        return -code;
    }
    code = pthread_create(&lane->thread, NULL, lane_main, lane);
    BOP_IGNORE(pthread_sigmask(SIG_SETMASK, &before, NULL)); /* Fails on a bad `how` only. */
    return -code;
}

int bop_lane_create(const struct bop_lane_options *options, struct bop_lane **out_lane)
{
    struct bop_allocator *allocator = bop_allocator_or_default(options->allocator);
    struct bop_lane *lane;
    int rc;

    if (!options->notify) {
        return BOP_EINVAL;
    }
    lane = bop_alloc_zeroed(allocator, sizeof(*lane));
    if (!lane) {
        return BOP_ENOMEM;
    }
    lane->executor.submit = lane_submit;
    lane->allocator = allocator;
    lane->notify = options->notify;
    lane->user = options->user;
    snprintf(lane->name, sizeof(lane->name), "%s", options->name ? options->name : "bop-lane");
    bop_list_init(&lane->queued);
    bop_list_init(&lane->done);
    bop_list_init(&lane->ready);

    rc = sem_init(&lane->work, 0, 0) < 0 ? -errno : 0;
    if (rc < 0) {
        goto fail;
    }
    rc = -pthread_mutex_init(&lane->lock, NULL);
    if (rc < 0) {
        goto fail_work;
    }
    rc = -pthread_cond_init(&lane->finished, NULL);
    if (rc < 0) {
        goto fail_lock;
    }
    rc = start_thread(lane);
    if (rc < 0) {
        goto fail_finished;
    }
    *out_lane = lane;
    return 0;

fail_finished:
    pthread_cond_destroy(&lane->finished);
fail_lock:
    pthread_mutex_destroy(&lane->lock);
fail_work:
    sem_destroy(&lane->work);
fail:
    bop_free(allocator, lane, sizeof(*lane));
    return rc;
}

/* Add all finished tasks to ready. */
static void take_done_locked(struct bop_lane *lane)
{
    struct bop_list *link;

    while ((link = bop_list_pop_front(&lane->done)) != NULL) {
        bop_list_push_back(&lane->ready, link);
    }
}

/* Fire the done callbacks of what is ready. */
static size_t fire_ready(struct bop_lane *lane)
{
    size_t count = 0;
    struct bop_list *link;

    while ((link = bop_list_pop_front(&lane->ready)) != NULL) {
        struct bop_task *task = BOP_CONTAINER_OF(link, struct bop_task, link);

        lane->fired++;
        lane->firing++;
        task->done(task); /* The task may be gone, or queued again, from here. */
        lane->firing--;
        count++;
    }
    return count;
}

size_t bop_lane_poll(struct bop_lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    take_done_locked(lane);
    pthread_mutex_unlock(&lane->lock);
    return fire_ready(lane);
}

void bop_lane_drain(struct bop_lane *lane)
{
    uint64_t target;

    pthread_mutex_lock(&lane->lock);
    target = lane->submitted;
    /* What was taken from done is fired whole: there is no notification left for it. */
    while (lane->fired < target) {
        take_done_locked(lane);
        if (bop_list_empty(&lane->ready)) {
            pthread_cond_wait(&lane->finished, &lane->lock);
            continue;
        }
        pthread_mutex_unlock(&lane->lock);
        fire_ready(lane);
        pthread_mutex_lock(&lane->lock);
    }
    pthread_mutex_unlock(&lane->lock);
}

/* Done callbacks may submit again, so draining once may not be enough. */
static bool is_idle(struct bop_lane *lane)
{
    bool idle;

    pthread_mutex_lock(&lane->lock);
    idle = lane->fired == lane->submitted;
    pthread_mutex_unlock(&lane->lock);
    return idle;
}

void bop_lane_destroy(struct bop_lane *lane)
{
    if (!lane) {
        return;
    }
    BOP_ASSERT(lane->firing == 0); /* Not from a done callback: poll goes on after it. */
    while (!is_idle(lane)) {
        bop_lane_drain(lane);
    }
    pthread_mutex_lock(&lane->lock);
    lane->stop = true;
    pthread_mutex_unlock(&lane->lock);
    wake(lane);
    pthread_join(lane->thread, NULL);

    BOP_ASSERT(bop_list_empty(&lane->queued) && bop_list_empty(&lane->done));
    pthread_cond_destroy(&lane->finished);
    pthread_mutex_destroy(&lane->lock);
    sem_destroy(&lane->work);
    bop_free(lane->allocator, lane, sizeof(*lane));
}

struct bop_executor *bop_lane_executor(struct bop_lane *lane)
{
    return &lane->executor;
}
