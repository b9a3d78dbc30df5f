/*
 * Bursts through io_uring. What is noted is a request in the ring; one call has the
 * kernel try all of them, in their order, and finds all the answers there.
 *
 * A request that the kernel did not take stays in the ring, and would be taken with a
 * later call, when its descriptor may be somebody else's. So a burst of which not all
 * was answered is broken: nothing goes through it any more.
 */
#include "burst.h"

#include <errno.h>
#include <liburing.h>
#include <sys/socket.h>

struct bop__burst {
    struct bop_allocator *allocator;
    struct io_uring ring;
    bool broken;
    unsigned count;
    struct bop__burst_send sends[BOP__BURST_MAX];
};

struct bop__burst *bop__burst_create(struct bop_allocator *allocator)
{
    struct bop__burst *burst = (struct bop__burst *)bop_alloc_zeroed(allocator, sizeof(*burst));

    if (burst == NULL) {
        return NULL;
    }
    burst->allocator = allocator;
    /* No flags: it is nobody's thread's, and each send is done within the call. */
    if (io_uring_queue_init(BOP__BURST_MAX, &burst->ring, 0) != 0) {
        bop_free(allocator, burst, sizeof(*burst));
        return NULL;
    }
    return burst;
}

void bop__burst_destroy(struct bop__burst *burst)
{
    if (burst != NULL) {
        io_uring_queue_exit(&burst->ring);
        bop_free(burst->allocator, burst, sizeof(*burst));
    }
}

bool bop__burst_is_full(const struct bop__burst *burst)
{
    return burst->count == BOP__BURST_MAX;
}

bool bop__burst_is_broken(const struct bop__burst *burst)
{
    return burst->broken;
}

void bop__burst_add(struct bop__burst *burst, int fd, struct bop_shared *shared, void *user)
{
    struct io_uring_sqe *sqe = burst->broken ? NULL : io_uring_get_sqe(&burst->ring);

    BOP_ASSERT(burst->count < BOP__BURST_MAX);
    if (sqe != NULL) { /* There is room for all, unless it broke. */
        /* MSG_DONTWAIT: the kernel answers -EAGAIN rather than to wait for room by itself. */
        io_uring_prep_send(sqe, fd, shared->data, shared->size, MSG_DONTWAIT | MSG_NOSIGNAL);
        io_uring_sqe_set_data64(sqe, burst->count);
    }
    burst->sends[burst->count++] = (struct bop__burst_send){
        .user = user, .shared = shared, .result = -EAGAIN};
}

static void take_answers(struct bop__burst *burst)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;

    io_uring_for_each_cqe(&burst->ring, head, cqe)
    {
        burst->sends[io_uring_cqe_get_data64(cqe)].result = cqe->res;
        count++;
    }
    io_uring_cq_advance(&burst->ring, count);
    burst->broken = burst->broken || count != burst->count;
}

unsigned bop__burst_send(struct bop__burst *burst, const struct bop__burst_send **out_sends)
{
    unsigned count = burst->count;
    int taken;

    if (count == 0) {
        return 0;
    }
    if (!burst->broken) {
        taken = io_uring_submit(&burst->ring);
        burst->broken = taken < 0 || (unsigned)taken != count;
        take_answers(burst);
    }
    burst->count = 0;
    *out_sends = burst->sends;
    return count;
}
