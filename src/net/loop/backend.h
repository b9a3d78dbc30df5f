/*
 * What tells the loop of events: one table of functions, and behind it epoll or
 * io_uring. The rest of the library sees sources and epoll's bits only.
 *
 * Events are level-triggered whatever is behind: a source that did not take all
 * there is hears of it again in the next turn. Trouble and hang-up (EPOLLERR,
 * EPOLLHUP) are reported also to a source watched for nothing.
 *
 * A source may be unwatched, closed and freed at any time: no event finds it
 * afterwards, but one that was watched with epoll must stay until the turn ends.
 */
#ifndef BOP_NET_LOOP_BACKEND_H
#define BOP_NET_LOOP_BACKEND_H

#include <bop/loop.h>

struct bop__source;

/* Events one wait reports; the others come with the next turn. */
#define BOP__EVENTS_MAX 512

struct bop__backend {
    const struct bop__backend_ops *ops;
    struct bop_loop *loop;
    const char *name;
    bool receives; /* It reads sources that delegate. To watch one for less costs no call then. */
};

/** All from the loop's thread. Ints are 0 or -errno if not said otherwise. */
struct bop__backend_ops {
    void (*destroy)(struct bop__backend *backend);
    /* Report the events of the source's descriptor to its on_events. */
    int (*watch)(struct bop__backend *backend, struct bop__source *source, uint32_t events);
    /* Other events than source->watched. */
    int (*rewatch)(struct bop__backend *backend, struct bop__source *source, uint32_t events);
    /* The kernel has let go of the descriptor when this returns. */
    void (*unwatch)(struct bop__backend *backend, struct bop__source *source);
    /* Wait for events or the wake descriptor; 0: only look, UINT64_MAX: no limit. Returns how
     * many there are for dispatch, -EINTR among others. */
    int (*wait)(struct bop__backend *backend, uint64_t timeout_us);
    /* Call on_events for what the last wait found. */
    void (*dispatch)(struct bop__backend *backend);
    /* A descriptor that becomes readable when wait would find something, and is not after a wait
     * that found nothing more; once settle has told the kernel what there is to watch. */
    int (*fd)(struct bop__backend *backend);
    int (*settle)(struct bop__backend *backend);
};

/** The one that is asked for by the environment, by the option, or the default; epoll where it
 * cannot be had. Returns 0, -errno or BOP_ENOMEM. */
BOP_MUST_USE int bop__backend_create(struct bop_loop *loop, enum bop_loop_backend wanted,
                                     struct bop__backend **out_backend);

BOP_MUST_USE int bop__epoll_create(struct bop_loop *loop, struct bop__backend **out_backend);
/** Fails with -ENOSYS where the kernel has not all that is needed. */
BOP_MUST_USE int bop__uring_create(struct bop_loop *loop, struct bop__backend **out_backend);

#endif
