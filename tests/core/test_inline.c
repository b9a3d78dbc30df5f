/*
 * The executor without a thread.
 */
#include <bop/executor.h>

#include "tap.h"

#define EVENTS_MAX 32

struct fixture {
    struct bop_inline_executor inline_executor;
    char events[EVENTS_MAX]; /* 'r' and 'd' with the task's letter after it. */
    size_t count;
};

struct job {
    struct bop_task task;
    struct fixture *f;
    char letter;
    struct job *next; /* Submitted when done. */
};

static void setup(struct fixture *f)
{
    /* What lies there before does not matter. */
    memset(&f->inline_executor, 0xa5, sizeof(f->inline_executor));
    bop_inline_init(&f->inline_executor);
    CHECK(f->inline_executor.executor.write == NULL && f->inline_executor.executor.writes == 0);
}

FIXTURE(setup, NULL)

static void note(struct job *job, char what)
{
    REQUIRE(job->f->count + 3 <= EVENTS_MAX);
    job->f->events[job->f->count++] = what;
    job->f->events[job->f->count++] = job->letter;
}

static void run(struct bop_task *task)
{
    note(BOP_CONTAINER_OF(task, struct job, task), 'r');
}

static void done(struct bop_task *task)
{
    struct job *job = BOP_CONTAINER_OF(task, struct job, task);

    note(job, 'd');
    if (job->next) {
        bop_executor_submit(&job->f->inline_executor.executor, &job->next->task);
    }
}

static struct job make_job(struct fixture *f, char letter, struct job *next)
{
    return (struct job){.task = {.run = run, .done = done}, .f = f, .letter = letter, .next = next};
}

TEST(inline, runs_nothing_until_polled)
{
    struct job a = make_job(f, 'a', NULL);

    bop_executor_submit(&f->inline_executor.executor, &a.task);
    CHECK_STR_EQ(f->events, "");
    CHECK_EQ(bop_inline_poll(&f->inline_executor), 1);
    CHECK_STR_EQ(f->events, "rada");
    CHECK_EQ(bop_inline_poll(&f->inline_executor), 0);
}

TEST(inline, runs_in_order_and_what_comes_meanwhile)
{
    struct job c = make_job(f, 'c', NULL);
    struct job a = make_job(f, 'a', &c);
    struct job b = make_job(f, 'b', NULL);

    bop_executor_submit(&f->inline_executor.executor, &a.task);
    bop_executor_submit(&f->inline_executor.executor, &b.task);
    CHECK_EQ(bop_inline_poll(&f->inline_executor), 3);
    CHECK_STR_EQ(f->events, "radarbdbrcdc");
}

TEST(inline, takes_a_task_again)
{
    struct job a = make_job(f, 'a', NULL);

    for (int i = 0; i < 3; i++) {
        bop_executor_submit(&f->inline_executor.executor, &a.task);
        CHECK_EQ(bop_inline_poll(&f->inline_executor), 1);
    }
    CHECK_STR_EQ(f->events, "radaradarada");
}
