/*
 * Writes on their way.
 *
 *      write       flight free?         io_uring or threads          poll
 *      -----> writes ------> flight -------------------> finished -----> ready, fired
 *                               \                           /
 *                                `--> the lane's thread ---'
 *                                  what io_uring left to do
 *
 * In `finished` a flight is told from a task by its lowest bit. Its flight is
 * free, and the next write on its way, before a done callback is fired.
 *
 * What the kernel did in part (a short write) or did not take at all is finished
 * by the lane's thread with plain calls: seldom, so it need not be fast. What
 * failed is never tried again.
 */
#include <bop/error.h>
#include <bop/mem.h>

#include "lane.h"

#define FLIGHT_BIT UINT64_C(1)

_Static_assert(_Alignof(struct lane_flight) > FLIGHT_BIT, "a pointer has a bit to spare");
_Static_assert(_Alignof(struct bop_task) > FLIGHT_BIT, "a pointer has a bit to spare");

/* ---- The end of a flight ---- */

void bop__lane_flight_finished(struct lane_flight *flight)
{
    int rc = bop_mpmc_push(flight->lane->finished, NULL, (uint64_t)(uintptr_t)flight | FLIGHT_BIT);

    BOP_ASSERT(rc == 0);
}

/* The flight is free; its write is ready to be fired. */
static void land(struct lane_flight *flight)
{
    struct bop_write *write = flight->write;

    write->task.done = bop__write_done;
    bop_list_push_back(&flight->lane->ready, &write->task.link);
    flight->write = NULL;
}

/* What became of a flight that the kernel had. True: there is something left to do. */
static bool judge(struct lane_flight *flight)
{
    struct bop_write *write = flight->write;
    int32_t written = flight->results[LANE_WRITE];
    int32_t synced = flight->results[LANE_SYNC];

    flight->written = 0;
    if (written == LANE_NOT_TAKEN || written == -EAGAIN || written == -EINTR) {
        return true; /* Nothing was written. */
    }
    if (written < 0) {
        write->result = written; /* And the sync, linked to it, was cancelled. */
        return false;
    }
    flight->written = (size_t)written;
    if (flight->written < write->size || synced == LANE_NOT_TAKEN) {
        /* If there was a sync it did not cover the rest; if it failed, that stands. */
        if (synced >= 0 || synced == -ECANCELED || synced == LANE_NOT_TAKEN) {
            return true;
        }
    }
    write->result = synced < 0 ? synced : 0;
    return false;
}

static void rest_run(struct bop_task *task)
{
    struct lane_flight *flight = BOP_CONTAINER_OF(task, struct lane_flight, rest);

    if (!flight->in_uring || judge(flight)) {
        flight->write->result = bop__write_run(flight->write, flight->written);
    }
}

static void rest_done(struct bop_task *task)
{
    struct lane_flight *flight = BOP_CONTAINER_OF(task, struct lane_flight, rest);
    struct bop_lane *lane = flight->lane;
    struct bop_write *write = flight->write;

    flight->write = NULL;
    bop__lane_writes_feed(lane);
    write->done(write); /* It may be gone, or submitted again, from here. */
}

void bop__lane_flight_rest(struct lane_flight *flight)
{
    flight->rest.run = rest_run;
    flight->rest.done = rest_done;
    bop_executor_submit(&flight->lane->executor, &flight->rest);
}

bool bop__lane_writes_take(struct bop_lane *lane, uint64_t item)
{
    struct lane_flight *flight = (struct lane_flight *)(uintptr_t)(item & ~FLIGHT_BIT);

    if (!(item & FLIGHT_BIT)) {
        return false;
    }
    if (flight->in_uring && judge(flight)) {
        bop__lane_flight_rest(flight);
    } else {
        land(flight);
    }
    return true;
}

/* ---- The beginning ---- */

static struct lane_flight *free_flight(struct bop_lane *lane)
{
    for (unsigned i = 0; i < lane->executor.writes; i++) {
        if (!lane->flights[i].write) {
            return &lane->flights[i];
        }
    }
    return NULL;
}

static void begin(struct bop_lane *lane, struct lane_flight *flight, struct bop_write *write)
{
    flight->write = write;
    flight->written = 0;
    flight->number = lane->writes_begun++;
    flight->in_uring = lane->uring && write->fs == bop_fs_real();
    if (flight->in_uring) {
        bop__lane_uring_begin(lane->uring, flight);
        return;
    }
    if (!lane->threads &&
        bop__lane_threads_create(lane, lane->executor.writes, &lane->threads) < 0) {
        /* A lane with io_uring and a write to another file system, and no room for more
         * threads: there is one. */
        bop__lane_flight_rest(flight);
        return;
    }
    bop__lane_threads_begin(lane->threads, flight);
}

void bop__lane_writes_feed(struct bop_lane *lane)
{
    struct lane_flight *flight;

    while (!bop_list_empty(&lane->writes) && (flight = free_flight(lane)) != NULL) {
        struct bop_list *link = bop_list_pop_front(&lane->writes);

        begin(lane, flight, BOP_CONTAINER_OF(link, struct bop_write, link));
    }
}

static void lane_write(struct bop_executor *self, struct bop_write *write)
{
    struct bop_lane *lane = BOP_CONTAINER_OF(self, struct bop_lane, executor);

    lane->writes_submitted++;
    bop_list_push_back(&lane->writes, &write->link);
    bop__lane_writes_feed(lane);
}

bool bop__lane_writes_pending(const struct bop_lane *lane, uint64_t count)
{
    if (lane->writes_begun < count) {
        return true;
    }
    for (unsigned i = 0; lane->flights && i < lane->executor.writes; i++) {
        if (lane->flights[i].write && lane->flights[i].number < count) {
            return true;
        }
    }
    return false;
}

/* ---- Lifetime ---- */

int bop__lane_writes_init(struct bop_lane *lane, const struct bop_lane_options *options)
{
    unsigned count = options->writes;
    int rc = BOP_EUNSUPPORTED;

    lane->flights = bop_alloc_zeroed(lane->allocator, count * sizeof(*lane->flights));
    if (!lane->flights) {
        return BOP_ENOMEM;
    }
    lane->executor.writes = count;
    for (unsigned i = 0; i < count; i++) {
        lane->flights[i].lane = lane;
    }
    if (!options->no_uring) {
        rc = bop__lane_uring_create(lane, count, &lane->uring);
    }
    lane->executor.method = "io_uring";
    if (rc == BOP_EUNSUPPORTED) {
        rc = bop__lane_threads_create(lane, count, &lane->threads);
        lane->executor.method = "threads";
    }
    lane->executor.write = lane_write;
    return rc;
}

void bop__lane_writes_deinit(struct bop_lane *lane)
{
    bop__lane_threads_destroy(lane->threads);
    bop__lane_uring_destroy(lane->uring);
    if (lane->flights) {
        bop_free(lane->allocator, lane->flights, lane->executor.writes * sizeof(*lane->flights));
    }
}
