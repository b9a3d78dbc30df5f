/*
 * Lanes. Meant to be run under the thread sanitizer too: the jobs write plain
 * memory on one thread that the other reads.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <bop/error.h>
#include <bop/executor.h>

#include "tap.h"

#define JOBS 2000

struct job {
    struct bop_task task;
    struct fixture *f;
    unsigned number;
    unsigned runs;
    unsigned fired;
    unsigned again; /* Times to submit again from done. */
};

struct fixture {
    struct test_heap heap;
    struct bop_faults faults;
    struct bop_lane *lane;
    int event;
    pthread_t owner;
    _Atomic unsigned notifications;

    /* The lane's thread's. */
    unsigned next_run;
    sigset_t signals;
    char name[16];

    /* The owner's. */
    unsigned next_done;
    unsigned done_count;

    /* A gate that job_wait() stands at until it is opened. */
    pthread_mutex_t gate_lock;
    pthread_cond_t gate_open;
    bool open;

    struct job jobs[JOBS];
};

static void notify(void *user)
{
    struct fixture *f = user;

    f->notifications++;
    CHECK(!pthread_equal(pthread_self(), f->owner));
    CHECK_EQ(eventfd_write(f->event, 1), 0);
}

static void setup(struct fixture *f)
{
    struct bop_lane_options options = {.allocator = &f->heap.allocator,
                                       .name = "a-name-too-long-by-far",
                                       .notify = notify,
                                       .user = f};

    test_heap_init(&f->heap, &f->faults);
    f->owner = pthread_self();
    f->event = eventfd(0, EFD_CLOEXEC);
    REQUIRE(f->event >= 0);
    REQUIRE_EQ(pthread_mutex_init(&f->gate_lock, NULL), 0);
    REQUIRE_EQ(pthread_cond_init(&f->gate_open, NULL), 0);
    REQUIRE_EQ(bop_lane_create(&options, &f->lane), 0);
}

static void teardown(struct fixture *f)
{
    bop_lane_destroy(f->lane);
    close(f->event);
    pthread_cond_destroy(&f->gate_open);
    pthread_mutex_destroy(&f->gate_lock);
    CHECK_EQ(f->heap.live, 0);
}

FIXTURE(setup, teardown)

static void open_gate(struct fixture *f)
{
    pthread_mutex_lock(&f->gate_lock);
    f->open = true;
    pthread_cond_broadcast(&f->gate_open);
    pthread_mutex_unlock(&f->gate_lock);
}

static void job_run(struct bop_task *task)
{
    struct job *job = BOP_CONTAINER_OF(task, struct job, task);

    CHECK(!pthread_equal(pthread_self(), job->f->owner));
    CHECK_EQ(job->number, job->f->next_run);
    job->f->next_run++;
    job->runs++;
}

static void wait_gate(struct fixture *f)
{
    pthread_mutex_lock(&f->gate_lock);
    while (!f->open) {
        pthread_cond_wait(&f->gate_open, &f->gate_lock);
    }
    pthread_mutex_unlock(&f->gate_lock);
}

static void job_wait(struct bop_task *task)
{
    wait_gate(BOP_CONTAINER_OF(task, struct job, task)->f);
    job_run(task);
}

static void job_open(struct bop_task *task)
{
    job_run(task);
    open_gate(BOP_CONTAINER_OF(task, struct job, task)->f);
}

static void job_done(struct bop_task *task)
{
    struct job *job = BOP_CONTAINER_OF(task, struct job, task);

    CHECK(pthread_equal(pthread_self(), job->f->owner));
    CHECK_EQ(job->number, job->f->next_done);
    job->f->next_done++;
    job->f->done_count++;
    job->fired++;
    CHECK_EQ(job->fired, job->runs);
}

static void submit_with(struct fixture *f, unsigned number, void (*run)(struct bop_task *task),
                        void (*done)(struct bop_task *task))
{
    struct job *job = &f->jobs[number];

    job->task.run = run;
    job->task.done = done;
    job->f = f;
    job->number = number;
    bop_executor_submit(bop_lane_executor(f->lane), &job->task);
}

static void submit(struct fixture *f, unsigned number)
{
    submit_with(f, number, job_run, job_done);
}

static void check_each_once(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        CHECK_EQ(f->jobs[i].runs, 1);
        CHECK_EQ(f->jobs[i].fired, 1);
    }
}

/* Wait for a notification. */
static void wait_event(struct fixture *f)
{
    eventfd_t value;

    REQUIRE_EQ(eventfd_read(f->event, &value), 0);
}

/* As a loop does it: sleep until notified, then poll. A lost wake-up hangs here. */
TEST(lane, wakes_the_owner_for_each_finished_task)
{
    for (unsigned i = 0; i < JOBS; i++) {
        submit(f, i);
        if (i % 7 == 0) {
            bop_lane_poll(f->lane);
        }
    }
    while (f->done_count < JOBS) {
        wait_event(f);
        bop_lane_poll(f->lane);
    }
    check_each_once(f, JOBS);
}

TEST(lane, wakes_the_owner_for_a_single_task)
{
    for (unsigned i = 0; i < 200; i++) {
        submit(f, i);
        wait_event(f);
        CHECK_EQ(bop_lane_poll(f->lane), 1);
    }
    CHECK_EQ(f->notifications, 200);
    check_each_once(f, 200);
}

TEST(lane, fires_nothing_but_in_poll)
{
    submit(f, 0);
    wait_event(f);
    CHECK_EQ(f->done_count, 0);
    CHECK_EQ(bop_lane_poll(f->lane), 1);
    CHECK_EQ(f->done_count, 1);
    CHECK_EQ(bop_lane_poll(f->lane), 0);
}

TEST(lane, notifies_once_until_polled)
{
    submit(f, 0);
    wait_event(f);
    for (unsigned i = 1; i < 49; i++) {
        submit(f, i);
    }
    submit_with(f, 49, job_open, job_done);
    wait_gate(f);
    CHECK_EQ(f->notifications, 1); /* What was to say of the others was said before the last ran. */
    bop_lane_drain(f->lane);
    check_each_once(f, 50);
}

TEST(lane, drains)
{
    bop_lane_drain(f->lane); /* Nothing there. */
    for (unsigned i = 0; i < JOBS; i++) {
        submit(f, i);
    }
    bop_lane_drain(f->lane);
    CHECK_EQ(f->done_count, JOBS);
    CHECK_EQ(bop_lane_poll(f->lane), 0);
    check_each_once(f, JOBS);
}

TEST(lane, destroys_with_tasks_queued)
{
    submit_with(f, 0, job_wait, job_done);
    for (unsigned i = 1; i < JOBS; i++) {
        submit(f, i);
    }
    open_gate(f);
    bop_lane_destroy(f->lane);
    f->lane = NULL;
    CHECK_EQ(f->done_count, JOBS);
    check_each_once(f, JOBS);
}

/* ---- From within done ---- */

static void again_run(struct bop_task *task)
{
    BOP_CONTAINER_OF(task, struct job, task)->runs++;
}

static void again_done(struct bop_task *task)
{
    struct job *job = BOP_CONTAINER_OF(task, struct job, task);

    job->fired++;
    if (job->again > 0) {
        job->again--;
        bop_executor_submit(bop_lane_executor(job->f->lane), task);
    }
}

TEST(lane, takes_a_task_again_from_its_done)
{
    f->jobs[0].again = 500;
    submit_with(f, 0, again_run, again_done);
    while (f->jobs[0].fired < 501) {
        wait_event(f);
        bop_lane_poll(f->lane);
    }
    CHECK_EQ(f->jobs[0].runs, 501);
}

TEST(lane, destroys_with_tasks_that_come_again)
{
    f->jobs[0].again = 100;
    f->jobs[1].again = 50;
    submit_with(f, 0, again_run, again_done);
    submit_with(f, 1, again_run, again_done);
    bop_lane_destroy(f->lane);
    f->lane = NULL;
    CHECK_EQ(f->jobs[0].fired, 101);
    CHECK_EQ(f->jobs[1].fired, 51);
}

static void done_draining(struct bop_task *task)
{
    struct fixture *f = BOP_CONTAINER_OF(task, struct job, task)->f;

    job_done(task);
    bop_lane_drain(f->lane);
    CHECK_EQ(f->done_count, 100);
}

/* A drain in the midst of a poll fires what that poll had taken, in order. */
TEST(lane, drains_from_done)
{
    submit_with(f, 0, job_run, done_draining);
    for (unsigned i = 1; i < 100; i++) {
        submit(f, i);
    }
    bop_lane_drain(f->lane);
    check_each_once(f, 100);
}

static void done_polling(struct bop_task *task)
{
    struct fixture *f = BOP_CONTAINER_OF(task, struct job, task)->f;

    job_done(task);
    bop_lane_poll(f->lane);
}

TEST(lane, polls_from_done)
{
    for (unsigned i = 0; i < 100; i++) {
        submit_with(f, i, job_run, done_polling);
    }
    bop_lane_drain(f->lane);
    check_each_once(f, 100);
}

/* ---- The thread ---- */

static void look_around(struct bop_task *task)
{
    struct fixture *f = BOP_CONTAINER_OF(task, struct job, task)->f;

    CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &f->signals), 0);
    CHECK_EQ(pthread_getname_np(pthread_self(), f->name, sizeof(f->name)), 0);
    job_run(task);
}

TEST(lane, has_a_name_and_blocks_signals)
{
    sigset_t own;

    submit_with(f, 0, look_around, job_done);
    bop_lane_drain(f->lane);
    CHECK_STR_EQ(f->name, "a-name-too-long"); /* 15 bytes. */
    CHECK(sigismember(&f->signals, SIGTERM));
    CHECK(sigismember(&f->signals, SIGINT));
    CHECK(sigismember(&f->signals, SIGUSR1));
    CHECK(sigismember(&f->signals, SIGPIPE));
    CHECK(!sigismember(&f->signals, SIGSEGV));
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &own), 0);
    CHECK(!sigismember(&own, SIGUSR1)); /* Ours is as it was. */
}

TEST(lane, refuses_what_it_cannot_work_with)
{
    struct bop_lane_options options = {.allocator = &f->heap.allocator};
    struct bop_lane *lane = NULL;

    CHECK_EQ(bop_lane_create(&options, &lane), BOP_EINVAL);
    options.notify = notify;
    FAULT_SWEEP(&f->faults) {
        int rc = bop_lane_create(&options, &lane);

        CHECK_EQ(rc, f->faults.fired);
        if (rc == 0) {
            bop_lane_destroy(lane);
            lane = NULL;
        }
        CHECK_PTR_EQ(lane, NULL);
    }
    CHECK_EQ(f->faults.at, 3); /* The lane itself and its two queues. */
    bop_lane_destroy(NULL);
}
