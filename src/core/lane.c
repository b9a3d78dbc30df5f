/*
 * A lane: one thread that runs tasks first in, first out, and a queue of
 * finished ones whose done callbacks the owner fires.
 *
 *      submit            thread            thread, then notify      poll
 *      ------> work -------> running -----------------> finished ------> ready, fired
 *
 * `work` and `finished` are bounded queues (bop_mpmc), made with the lane: no
 * more than LANE_TASKS_MAX tasks are inside both and running, so that neither push
 * is ever refused; what is submitted beyond that waits in the owner's list.
 *
 * The owner arms `finished` whenever it has emptied it, and the thread's next
 * push notifies: so each finished task is either taken by a poll under way or
 * has a notification after it, and none waits unseen.
 *
 * poll keeps what it took in the lane and takes each task off before it fires:
 * a done callback may submit, poll or drain itself, and the order stays.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bop/error.h>
#include <bop/mem.h>

#include "lane.h"

static uint64_t item_of(struct bop_task *task)
{
    return (uint64_t)(uintptr_t)task;
}

static struct bop_task *task_of(uint64_t item)
{
    return (struct bop_task *)(uintptr_t)item;
}

#define IO_LOWEST (2 << 13 | 7) /* The lowest of the usual class: ioprio_set(2). */

/* Linux gives each thread priorities of its own. What cannot be had is done without. */
static void stand_back(void)
{
    BOP_IGNORE(setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19));
    BOP_IGNORE(syscall(SYS_ioprio_set, 1, 0, IO_LOWEST));
}

static void *lane_main(void *argument)
{
    struct bop_lane *lane = argument;
    uint64_t item;
    int rc;

    if (lane->background) {
        stand_back();
    }

    while (bop_mpmc_pop_wait(lane->work, NULL, &item, BOP_MPMC_FOREVER) > 0) {
        task_of(item)->run(task_of(item));
        /* The owner may have fired and freed the task once this returns; the lane stays,
         * for its destroy joins this thread. */
        rc = bop_mpmc_push(lane->finished, NULL, item);
        BOP_ASSERT(rc == 0);
    }
    return NULL;
}

/* Hand waiting tasks to the thread as far as there is room. */
static void feed(struct bop_lane *lane)
{
    struct bop_list *link;

    while (lane->inside < LANE_TASKS_MAX && (link = bop_list_pop_front(&lane->waiting)) != NULL) {
        int rc = bop_mpmc_push(lane->work, NULL,
                               item_of(BOP_CONTAINER_OF(link, struct bop_task, link)));

        BOP_ASSERT(rc == 0);
        lane->inside++;
    }
}

static void lane_submit(struct bop_executor *self, struct bop_task *task)
{
    struct bop_lane *lane = BOP_CONTAINER_OF(self, struct bop_lane, executor);

    bop_list_push_back(&lane->waiting, &task->link);
    lane->submitted++;
    feed(lane);
}

/* All signals are blocked, so that the process's handlers run on threads that expect them.
 * Those of a thread's own faults stay: blocked, they would kill without the report of a
 * crash handler. */
int bop__lane_start_thread(struct bop_lane *lane, pthread_t *out_thread, void *(*main)(void *user),
                           void *user)
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
    code = pthread_create(out_thread, NULL, main, user);
    BOP_IGNORE(pthread_sigmask(SIG_SETMASK, &before, NULL)); /* Fails on a bad `how` only. */
    if (code == 0) {
        /* A thread without its name works as well. */
        BOP_IGNORE(pthread_setname_np(*out_thread, lane->name));
    }
    return -code;
}

static int create_queue(struct bop_lane *lane, bool notifies, struct bop_mpmc **out_queue)
{
    struct bop_mpmc_options options = {.allocator = lane->allocator,
                                       .kind = BOP_MPMC_BOUNDED,
                                       .capacity = LANE_QUEUE_MAX,
                                       .notify = notifies ? lane->notify : NULL,
                                       .user = lane->user};

    return bop_mpmc_create(&options, out_queue, NULL);
}

int bop_lane_create(const struct bop_lane_options *options, struct bop_lane **out_lane)
{
    struct bop_allocator *allocator = bop_allocator_or_tag(options->allocator, "core.lane");
    struct bop_lane *lane;
    bool armed;
    int rc;

    if (!options->notify || options->writes > LANE_WRITES_MAX) {
        return BOP_EINVAL;
    }
    lane = bop_alloc_zeroed(allocator, sizeof(*lane));
    if (!lane) {
        return BOP_ENOMEM;
    }
    lane->executor.submit = lane_submit;
    lane->executor.writes = 1;
    lane->executor.method = "task";
    lane->allocator = allocator;
    lane->notify = options->notify;
    lane->background = options->background;
    lane->user = options->user;
    snprintf(lane->name, sizeof(lane->name), "%s", options->name ? options->name : "bop-lane");
    bop_list_init(&lane->waiting);
    bop_list_init(&lane->ready);
    bop_list_init(&lane->writes);

    rc = create_queue(lane, false, &lane->work);
    if (rc < 0) {
        goto fail;
    }
    rc = create_queue(lane, true, &lane->finished);
    if (rc < 0) {
        goto fail;
    }
    armed = bop_mpmc_arm(lane->finished);
    BOP_ASSERT(armed); /* It is empty. */
    if (options->writes > 1) {
        rc = bop__lane_writes_init(lane, options);
        if (rc < 0) {
            goto fail;
        }
    }
    rc = bop__lane_start_thread(lane, &lane->thread, lane_main, lane);
    if (rc < 0) {
        goto fail;
    }
    *out_lane = lane;
    return 0;

fail:
    bop__lane_writes_deinit(lane);
    bop_mpmc_destroy(lane->finished);
    bop_mpmc_destroy(lane->work);
    bop_free(allocator, lane, sizeof(*lane));
    return rc;
}

static void take(struct bop_lane *lane, uint64_t item)
{
    if (bop__lane_writes_take(lane, item)) {
        return;
    }
    bop_list_push_back(&lane->ready, &task_of(item)->link);
    lane->inside--;
    lane->taken++;
}

/* Hand out what waited for room. */
static void feed_all(struct bop_lane *lane)
{
    feed(lane);
    bop__lane_writes_feed(lane);
}

/* Add all that is finished to ready, and leave the queue armed. */
static void take_finished(struct bop_lane *lane)
{
    uint64_t item;

    do {
        while (bop_mpmc_pop(lane->finished, NULL, &item) > 0) {
            take(lane, item);
        }
    } while (!bop_mpmc_arm(lane->finished));
    feed_all(lane);
}

/* Fire the done callbacks of what is ready. */
static size_t fire_ready(struct bop_lane *lane)
{
    size_t count = 0;
    struct bop_list *link;

    while ((link = bop_list_pop_front(&lane->ready)) != NULL) {
        struct bop_task *task = BOP_CONTAINER_OF(link, struct bop_task, link);

        lane->firing++;
        task->done(task); /* The task may be gone, or queued again, from here. */
        lane->firing--;
        count++;
    }
    return count;
}

size_t bop_lane_poll(struct bop_lane *lane)
{
    take_finished(lane);
    return fire_ready(lane);
}

/* Whether one of the first tasks or writes submitted is not yet in ready. */
static bool is_pending(const struct bop_lane *lane, uint64_t tasks, uint64_t writes)
{
    return lane->taken < tasks || bop__lane_writes_pending(lane, writes);
}

void bop_lane_drain(struct bop_lane *lane)
{
    uint64_t tasks = lane->submitted;
    uint64_t writes = lane->writes_submitted;
    uint64_t item;

    take_finished(lane);
    /* What was taken is fired whole: there is no notification left for it. */
    fire_ready(lane);
    while (is_pending(lane, tasks, writes)) {
        int rc = bop_mpmc_pop_wait(lane->finished, NULL, &item, BOP_MPMC_FOREVER);

        BOP_ASSERT(rc > 0);
        take(lane, item);
        take_finished(lane);
        fire_ready(lane);
    }
}

void bop_lane_destroy(struct bop_lane *lane)
{
    if (!lane) {
        return;
    }
    BOP_ASSERT(lane->firing == 0); /* Not from a done callback: poll goes on after it. */
    /* Done callbacks may submit again, so draining once may not be enough. */
    do {
        bop_lane_drain(lane);
    } while (is_pending(lane, lane->submitted, lane->writes_submitted));
    bop_mpmc_close(lane->work);
    pthread_join(lane->thread, NULL);

    BOP_ASSERT(lane->inside == 0 && bop_list_empty(&lane->waiting));
    BOP_ASSERT(bop_list_empty(&lane->ready) && bop_list_empty(&lane->writes));
    bop__lane_writes_deinit(lane);
    bop_mpmc_destroy(lane->finished);
    bop_mpmc_destroy(lane->work);
    bop_free(lane->allocator, lane, sizeof(*lane));
}

struct bop_executor *bop_lane_executor(struct bop_lane *lane)
{
    return &lane->executor;
}
