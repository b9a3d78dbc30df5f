/*
 * A loop that another loop drives: one descriptor that is readable when a turn
 * is due. The backend's own becomes readable with events and posts; a timerfd
 * among them with timers, set anew only when the next one is due at another time
 * than before. A loop that nobody drives has none.
 */
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <bop/error.h>

#include "loop_internal.h"

static void on_outside_timer(struct bop__source *source, uint32_t events)
{
    uint64_t rings;

    /* It only had to begin the turn, which fires what is due. Nothing there: it was set anew. */
    BOP_IGNORE(read(source->fd, &rings, sizeof(rings)) < 0);
}

static void set(struct bop_loop *loop, uint64_t due_us, uint64_t us)
{
    struct itimerspec when = {.it_value = {0, 0}}; /* Not set. */

    if (due_us == loop->outside_due_us) {
        return;
    }
    if (us != UINT64_MAX) {
        when.it_value.tv_sec = (time_t)bop_min_u64(us / 1000000, INT32_MAX);
        when.it_value.tv_nsec = (long)(us % 1000000) * 1000;
        if (us == 0) {
            when.it_value.tv_nsec = 1; /* At once. */
        }
    }
    if (timerfd_settime(loop->outside.fd, 0, &when, NULL) == 0) {
        loop->outside_due_us = due_us;
    }
}

void bop__outside_settle(struct bop_loop *loop)
{
    uint64_t us;

    if (loop->outside.fd < 0) {
        return;
    }
    us = bop__loop_wait_us(loop);
    if (us == 0 || us == UINT64_MAX) {
        if (us == 0) {
            loop->outside_due_us = UINT64_MAX; /* Due anew, each time. */
        }
        set(loop, us, us);
    } else {
        /* Of the timer itself, so that it is the same however late it is asked. */
        set(loop, bop__timers_next_ms(&loop->timers) * 1000, us);
    }
    /* Should it fail, for lack of memory, the next turn tries again. */
    BOP_IGNORE(loop->backend->ops->settle(loop->backend));
}

int bop_loop_fd(struct bop_loop *loop)
{
    int rc;

    if (loop->outside.fd < 0) {
        int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

        if (fd < 0) {
            return -errno;
        }
        loop->outside = (struct bop__source){.fd = fd, .on_events = on_outside_timer};
        loop->outside_due_us = UINT64_MAX;
        rc = bop__loop_watch(loop, &loop->outside, EPOLLIN);
        if (rc != 0) {
            bop__outside_close(loop);
            return rc;
        }
        bop_loop_release(loop); /* It is nothing to stay for. */
    }
    rc = loop->backend->ops->fd(loop->backend);
    if (rc >= 0) {
        bop__outside_settle(loop);
    }
    return rc;
}

int64_t bop_loop_wait_ms(struct bop_loop *loop)
{
    uint64_t us = bop__loop_wait_us(loop);

    bop__outside_settle(loop);
    return us == UINT64_MAX ? -1 : (int64_t)(us / 1000 + (us % 1000 != 0));
}

void bop__outside_close(struct bop_loop *loop)
{
    bop__loop_close_source(loop, &loop->outside);
}
