/*
 * io_uring, which carries a lane's writes without a thread for each.
 *
 *      begin (owner)          kernel             reaper (a thread)
 *      ------> request(s) -------------> completions ------> finished
 *
 * A write with sync is a write and an fdatasync linked to it, which begins when
 * the write is done, or is cancelled if that failed or was short. On a file
 * opened with O_DIRECT it is one write that returns when durable, RWF_DSYNC: the
 * kernel need not start the second half, and on a disk that can it writes
 * through its cache and flushes nothing else.
 *
 * Requests: only the owner's thread writes the submission ring, and each begin
 * submits what it added, so that ring is empty between them. Completions: only
 * the reaper reads that ring. It has room for all requests that can be on their
 * way, so it never overflows. Neither sees the other's ring; they meet in
 * flight->pending, which also orders what they wrote to the flight.
 *
 * The kernel completes a request on the thread that submitted it: it wakes the
 * owner for that, whose epoll_wait then ends with EINTR, before the reaper has
 * anything to hand on.
 *
 * The reaper waits in poll(2) for the ring or for `stop`, so that ending it needs
 * nothing of io_uring.
 *
 * After fork() the child has neither the reaper nor, by ring_dontfork, the rings:
 * what it does to its copy of the lane cannot reach the parent's.
 */
#include <liburing.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <bop/error.h>
#include <bop/mem.h>

#include "lane.h"

/* Writes through the page cache from this size on are copied by a worker of the kernel, not by the
 * owner. */
#define ASYNC_BYTES 65536
/* What one write(2) takes at most, MAX_RW_COUNT; of more the lane's thread does the rest. */
#define REQUEST_BYTES_MAX (INT_MAX & ~4095)

struct lane_uring {
    struct bop_lane *lane;
    struct io_uring ring;
    int stop; /* An eventfd; -1: none. */
    pthread_t reaper;
};

/* A request's user data: its flight, and in the lowest bit which of the two it is. */
static uint64_t data_of(struct lane_flight *flight, enum lane_request request)
{
    return (uint64_t)(uintptr_t)flight | (uint64_t)request;
}

_Static_assert(_Alignof(struct lane_flight) >= LANE_REQUESTS, "a pointer has a bit to spare");

/* ---- Completions: the reaper's thread ---- */

static void complete(uint64_t data, int32_t result)
{
    struct lane_flight *flight = (struct lane_flight *)(uintptr_t)(data & ~UINT64_C(1));

    /* What the owner wrote to the flight is seen from here on: the way through the kernel is
     * no order that the language knows of. */
    BOP_ASSERT(atomic_load_explicit(&flight->pending, memory_order_acquire) > 0);
    flight->results[data & 1] = result;
    if (atomic_fetch_sub_explicit(&flight->pending, 1, memory_order_acq_rel) == 1) {
        bop__lane_flight_finished(flight);
    }
}

static void *reaper_main(void *user)
{
    struct lane_uring *uring = user;
    struct pollfd fds[] = {{.fd = uring->ring.ring_fd, .events = POLLIN},
                           {.fd = uring->stop, .events = POLLIN}};

    for (;;) {
        struct io_uring_cqe *cqe;

        while (io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
            uint64_t data = cqe->user_data;
            int32_t result = cqe->res;

            io_uring_cqe_seen(&uring->ring, cqe);
            complete(data, result);
        }
        if (fds[1].revents) {
            return NULL;
        }
        /* It fails for a signal, or for lack of memory that passes. */
        BOP_IGNORE(poll(fds, BOP_COUNT_OF(fds), -1));
    }
}

/* ---- Requests: the owner's thread ---- */

static struct io_uring_sqe *next_request(struct lane_uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

    BOP_ASSERT(sqe); /* There are entries for all flights, and all before were submitted. */
    return sqe;
}

/* Returns how many requests were added. */
static unsigned add_requests(struct lane_uring *uring, struct lane_flight *flight)
{
    const struct bop_write *write = flight->write;
    unsigned size = (unsigned)bop_min_u64(write->size, REQUEST_BYTES_MAX);
    struct io_uring_sqe *sqe = next_request(uring);

    io_uring_prep_write(sqe, write->fd, write->bytes, size, write->offset);
    if (!write->direct && size >= ASYNC_BYTES) {
        sqe->flags |= IOSQE_ASYNC;
    }
    io_uring_sqe_set_data64(sqe, data_of(flight, LANE_WRITE));
    if (!write->sync) {
        return 1;
    }
    if (write->direct) {
        sqe->rw_flags = RWF_DSYNC;
        return 1;
    }
    sqe->flags |= IOSQE_IO_LINK;
    sqe = next_request(uring);
    io_uring_prep_fsync(sqe, write->fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data64(sqe, data_of(flight, LANE_SYNC));
    return 2;
}

/* Take back requests that the kernel did not take: it looks at them in a call only. */
static void take_back(struct lane_uring *uring)
{
    struct io_uring_sq *sq = &uring->ring.sq;

    sq->sqe_head = *sq->khead;
    sq->sqe_tail = *sq->khead;
    *sq->ktail = *sq->khead;
}

void bop__lane_uring_begin(struct lane_uring *uring, struct lane_flight *flight)
{
    const struct bop_write *write = flight->write;
    unsigned added, missing;
    int submitted;

    flight->results[LANE_WRITE] = LANE_NOT_TAKEN;
    flight->results[LANE_SYNC] = write->sync && !write->direct ? LANE_NOT_TAKEN : 0;
    if (write->offset > INT64_MAX) {
        bop__lane_flight_rest(flight); /* -1 would mean the file's position. */
        return;
    }
    added = add_requests(uring, flight);
    atomic_store_explicit(&flight->pending, added, memory_order_release);
    do {
        submitted = io_uring_submit(&uring->ring);
    } while (submitted == -EINTR);
    missing = added - (unsigned)(submitted < 0 ? 0 : submitted);
    if (missing == 0) {
        return;
    }
    /* Out of memory, or io_uring_enter was forbidden since. A sync without its write before
     * it would be worth nothing. */
    take_back(uring);
    if (atomic_fetch_sub_explicit(&flight->pending, missing, memory_order_acq_rel) == missing) {
        bop__lane_flight_rest(flight);
    }
}

/* ---- Lifetime ---- */

/* Send a request that does nothing once round: io_uring_enter may be forbidden by itself. */
static bool is_going(struct io_uring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct io_uring_cqe *cqe;

    io_uring_prep_nop(sqe);
    if (io_uring_submit(ring) != 1 || io_uring_wait_cqe(ring, &cqe) < 0) {
        return false;
    }
    io_uring_cqe_seen(ring, cqe);
    return true;
}

/* Whether the kernel has what is needed: io_uring_setup alone says little. */
static bool is_able(struct lane_uring *uring)
{
    static const int needed[] = {IORING_OP_WRITE, IORING_OP_FSYNC};
    union {
        struct io_uring_probe probe;
        char bytes[sizeof(struct io_uring_probe) +
                   IORING_OP_LAST * sizeof(struct io_uring_probe_op)];
    } space = {0};

    if (!(uring->ring.features & IORING_FEAT_NODROP) ||
        io_uring_register_probe(&uring->ring, &space.probe, IORING_OP_LAST) < 0) {
        return false;
    }
    for (size_t i = 0; i < BOP_COUNT_OF(needed); i++) {
        if (!io_uring_opcode_supported(&space.probe, needed[i])) {
            return false;
        }
    }
    return is_going(&uring->ring);
}

static int start(struct lane_uring *uring, unsigned count)
{
    int rc = io_uring_queue_init(count * LANE_REQUESTS, &uring->ring, 0);

    if (rc < 0) {
        /* Missing or forbidden; also out of locked memory, as older kernels count it. */
        return rc == -EMFILE || rc == -ENFILE ? rc : BOP_EUNSUPPORTED;
    }
    if (!is_able(uring)) {
        rc = BOP_EUNSUPPORTED;
        goto fail;
    }
    BOP_IGNORE(io_uring_ring_dontfork(&uring->ring)); /* A kernel without it has no harm done. */
    uring->stop = eventfd(0, EFD_CLOEXEC);
    if (uring->stop < 0) {
        rc = -errno;
        goto fail;
    }
    rc = bop__lane_start_thread(uring->lane, &uring->reaper, reaper_main, uring);
    if (rc == 0) {
        return 0;
    }
    close(uring->stop);

fail:
    io_uring_queue_exit(&uring->ring);
    return rc;
}

int bop__lane_uring_create(struct bop_lane *lane, unsigned count, struct lane_uring **out_uring)
{
    struct lane_uring *uring = bop_alloc_zeroed(lane->allocator, sizeof(*uring));
    int rc;

    if (!uring) {
        return BOP_ENOMEM;
    }
    uring->lane = lane;
    rc = start(uring, count);
    if (rc < 0) {
        bop_free(lane->allocator, uring, sizeof(*uring));
        return rc;
    }
    *out_uring = uring;
    return 0;
}

void bop__lane_uring_destroy(struct lane_uring *uring)
{
    int rc;

    if (!uring) {
        return;
    }
    rc = eventfd_write(uring->stop, 1);
    BOP_ASSERT(rc == 0);
    pthread_join(uring->reaper, NULL);
    io_uring_queue_exit(&uring->ring);
    close(uring->stop);
    bop_free(uring->lane->allocator, uring, sizeof(*uring));
}
