/*
 * Writes of a lane to a file system of the tests': they go through threads,
 * whatever the kernel has.
 */
#include "lane_fixture.h"

/* A file system that lets calls in when told to, and fails the n-th. */
#define HELD 200

struct gated {
    struct bop_fs fs; /* First. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned inside;     /* Threads in pwrite. */
    unsigned inside_max; /* The most there were. */
    unsigned entered;
    uint64_t last;    /* The offset of the one that entered last. */
    unsigned tickets; /* How many more may leave. */
    bool holding;     /* The write at HELD may not leave. */
    unsigned writes;  /* Calls. */
    unsigned syncs;
    unsigned fail_write; /* The call, from 1, that fails; 0: none. */
    unsigned fail_sync;
};

static struct gated gate;

static ssize_t gated_pwrite(struct bop_fs *self, int fd, const void *bytes, size_t size,
                            uint64_t offset)
{
    ssize_t count = (ssize_t)size;

    pthread_mutex_lock(&gate.lock);
    gate.inside++;
    gate.inside_max = gate.inside > gate.inside_max ? gate.inside : gate.inside_max;
    gate.entered++;
    gate.last = offset;
    pthread_cond_broadcast(&gate.changed);
    while (gate.tickets == 0 || (gate.holding && offset == HELD)) {
        pthread_cond_wait(&gate.changed, &gate.lock);
    }
    gate.tickets--;
    gate.inside--;
    if (++gate.writes == gate.fail_write) {
        count = -EDQUOT;
    }
    pthread_mutex_unlock(&gate.lock);
    return count;
}

static int gated_sync(struct bop_fs *self, int fd)
{
    int rc = 0;

    pthread_mutex_lock(&gate.lock);
    if (++gate.syncs == gate.fail_sync) {
        rc = -EIO;
    }
    pthread_mutex_unlock(&gate.lock);
    return rc;
}

static void setup(struct fixture *f)
{
    lane_setup(f);
    gate = (struct gated){.fs = {.pwrite = gated_pwrite, .sync = gated_sync}};
    REQUIRE_EQ(pthread_mutex_init(&gate.lock, NULL), 0);
    REQUIRE_EQ(pthread_cond_init(&gate.changed, NULL), 0);
}

static void teardown(struct fixture *f)
{
    lane_teardown(f);
    pthread_cond_destroy(&gate.changed);
    pthread_mutex_destroy(&gate.lock);
}

FIXTURE(setup, teardown)

static void let_out(unsigned count)
{
    pthread_mutex_lock(&gate.lock);
    gate.tickets += count;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

/* Wait until so many have entered; returns the offset of the last. */
static uint64_t wait_entered(unsigned count)
{
    uint64_t last;

    pthread_mutex_lock(&gate.lock);
    while (gate.entered < count) {
        pthread_cond_wait(&gate.changed, &gate.lock);
    }
    last = gate.last;
    pthread_mutex_unlock(&gate.lock);
    return last;
}

static void submit_gated(struct fixture *f, unsigned number)
{
    struct item *item = item_of(f, number, number, 1);

    item->write.fs = &gate.fs;
    item->write.sync = true;
    submit_item(item);
}

/* All that may are inside at once, and no more; also on a lane that has io_uring. */
TEST(lane_threads, overlap)
{
    for (unsigned writes = 2; writes <= 64; writes *= 2) {
        gate.inside_max = 0;
        gate.entered = 0;
        f->fired = 0;
        lane_create(f, writes, writes % 3 == 1);
        for (unsigned i = 0; i < writes + 10; i++) {
            submit_gated(f, i);
        }
        wait_entered(writes); /* None has left: for fewer at once this would hang. */
        let_out(writes + 10);
        run_until(f, writes + 10);
        CHECK_EQ(gate.inside_max, writes);
        check_results(f, writes + 10, 0);
        lane_destroy(f);
    }
}

TEST(lane_threads, leave_the_rest_waiting_in_order)
{
    lane_create(f, 2, true);
    for (unsigned i = 0; i < 30; i++) {
        submit_gated(f, i);
    }
    wait_entered(2);
    for (unsigned i = 2; i < 30; i++) {
        let_out(1);
        run_until(f, i - 1);
        CHECK_EQ(wait_entered(i + 1), i);
    }
    let_out(2);
    bop_lane_drain(f->lane);
    CHECK_EQ(gate.inside_max, 2);
    check_results(f, 30, 0);
}

/* One of sixteen fails, and is not tried again. */
static void check_one_fails(struct fixture *f, int code)
{
    unsigned failed = 0;

    f->fired = 0;
    gate.writes = 0;
    gate.syncs = 0;
    lane_create(f, 4, true);
    let_out(16);
    for (unsigned i = 0; i < 16; i++) {
        submit_gated(f, i);
    }
    run_until(f, 16);
    for (unsigned i = 0; i < 16; i++) {
        CHECK_EQ(f->items[i].fired, 1);
        CHECK(f->items[i].write.result == 0 || f->items[i].write.result == code);
        failed += f->items[i].write.result == code;
    }
    CHECK_EQ(failed, 1);
    CHECK_EQ(gate.writes, 16);
    CHECK_EQ(gate.syncs, gate.fail_write ? 15 : 16);
    lane_destroy(f);
}

TEST(lane_threads, report_the_failure_of_each_call)
{
    for (unsigned k = 1; k <= 16; k++) {
        gate.fail_write = k;
        gate.fail_sync = 0;
        check_one_fails(f, -EDQUOT);
        gate.fail_write = 0;
        gate.fail_sync = k;
        check_one_fails(f, -EIO);
    }
}

/* ---- What drain waits for ---- */

static void done_submitting(struct bop_write *write)
{
    struct item *item = BOP_CONTAINER_OF(write, struct item, write);
    struct fixture *f = item->f;

    item_fired(item);
    if (item->number < 100) {
        submit_gated(f, item->number + 1);
        f->items[item->number + 1].write.done = done_submitting;
    }
    if (item->number == 90) {
        pthread_mutex_lock(&gate.lock);
        gate.holding = false;
        pthread_cond_broadcast(&gate.changed);
        pthread_mutex_unlock(&gate.lock);
    }
}

/* Later writes overtake the first, and are not taken for it. */
TEST(lane_threads, are_drained_one_by_one)
{
    lane_create(f, 2, true);
    gate.holding = true;
    let_out(1000);
    submit_gated(f, HELD);
    submit_gated(f, 0);
    f->items[0].write.done = done_submitting;
    bop_lane_drain(f->lane);
    CHECK_EQ(f->items[HELD].fired, 1);
    CHECK_EQ(f->items[90].fired, 1);
    lane_destroy(f);
    CHECK_EQ(f->items[100].fired, 1);
    CHECK_EQ(f->fired, 102);
}
