/*
 * epoll, level-triggered. The wake descriptor is watched edge-triggered and has no
 * source: it is never read, see post.c.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <bop/error.h>

#include "loop_internal.h"

struct epoll_backend {
    struct bop__backend base;
    int fd;
    bool lacks_pwait2; /* The kernel refused epoll_pwait2: wait in whole milliseconds. */
    int count;
    struct epoll_event events[BOP__EVENTS_MAX];
};

static struct epoll_backend *self_of(struct bop__backend *backend)
{
    return BOP_CONTAINER_OF(backend, struct epoll_backend, base);
}

static int control(struct bop__backend *backend, int operation, struct bop__source *source,
                   uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};

    return epoll_ctl(self_of(backend)->fd, operation, source->fd, &event) == 0 ? 0 : -errno;
}

static int watch(struct bop__backend *backend, struct bop__source *source, uint32_t events)
{
    return control(backend, EPOLL_CTL_ADD, source, events);
}

static int rewatch(struct bop__backend *backend, struct bop__source *source, uint32_t events)
{
    return control(backend, EPOLL_CTL_MOD, source, events);
}

static void unwatch(struct bop__backend *backend, struct bop__source *source)
{
    /* Closing unwatches only the last duplicate, and a forked child may hold one. */
    BOP_IGNORE(control(backend, EPOLL_CTL_DEL, source, 0)); /* Nothing else can be done. */
}

static int wait_us(struct epoll_backend *self, uint64_t us)
{
    if (us != 0 && us != UINT64_MAX && !self->lacks_pwait2) {
        struct timespec timeout = {.tv_sec = (time_t)bop_min_u64(us / 1000000, INT32_MAX),
                                   .tv_nsec = (long)(us % 1000000) * 1000};
        int count = epoll_pwait2(self->fd, self->events, BOP__EVENTS_MAX, &timeout, NULL);

        /* Before Linux 5.11 there is none, and some containers refuse with EPERM
         * what they do not know. */
        if (count >= 0 || (errno != ENOSYS && errno != EPERM)) {
            return count >= 0 ? count : -errno;
        }
        self->lacks_pwait2 = true;
    }
    {
        /* Rounded up: a wait that ends early would only be repeated. */
        uint64_t ms = us / 1000 + (us % 1000 != 0);
        int timeout_ms = us == UINT64_MAX ? -1 : (int)bop_min_u64(ms, INT32_MAX);
        int count = epoll_wait(self->fd, self->events, BOP__EVENTS_MAX, timeout_ms);

        return count >= 0 ? count : -errno;
    }
}

static int wait(struct bop__backend *backend, uint64_t timeout_us)
{
    struct epoll_backend *self = self_of(backend);
    int count = wait_us(self, timeout_us);

    self->count = count > 0 ? count : 0;
    return count;
}

static void dispatch(struct bop__backend *backend)
{
    struct epoll_backend *self = self_of(backend);

    for (int i = 0; i < self->count; i++) {
        struct bop__source *source = (struct bop__source *)self->events[i].data.ptr;

        /* The wake descriptor has no source; one unwatched meanwhile is not asked again. */
        if (source != NULL && source->attached) {
            source->on_events(source, self->events[i].events);
        }
    }
    self->count = 0;
}

static int get_fd(struct bop__backend *backend)
{
    return self_of(backend)->fd;
}

static int settle(struct bop__backend *backend)
{
    return 0; /* The kernel knows already. */
}

static void destroy(struct bop__backend *backend)
{
    struct epoll_backend *self = self_of(backend);

    if (self->fd >= 0) {
        BOP_IGNORE(close(self->fd)); /* Nothing is buffered in it. */
    }
    bop_free(backend->loop->allocator, self, sizeof(*self));
}

static const struct bop__backend_ops epoll_ops = {
    .destroy = destroy,
    .watch = watch,
    .rewatch = rewatch,
    .unwatch = unwatch,
    .wait = wait,
    .dispatch = dispatch,
    .fd = get_fd,
    .settle = settle,
};

int bop__epoll_create(struct bop_loop *loop, struct bop__backend **out_backend)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    struct epoll_backend *self = bop_alloc(loop->allocator, sizeof(*self));
    int rc;

    if (self == NULL) {
        return BOP_ENOMEM;
    }
    self->base = (struct bop__backend){.ops = &epoll_ops, .loop = loop, .name = "epoll"};
    self->lacks_pwait2 = false;
    self->count = 0;
    self->fd = epoll_create1(EPOLL_CLOEXEC);
    if (self->fd < 0 || epoll_ctl(self->fd, EPOLL_CTL_ADD, loop->wake_fd, &event) != 0) {
        rc = -errno;
        destroy(&self->base);
        return rc;
    }
    *out_backend = &self->base;
    return 0;
}
