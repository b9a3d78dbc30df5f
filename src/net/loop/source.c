/*
 * Sources: descriptors that take part in the loop.
 */
#include <unistd.h>

#include <bop/error.h>

#include "loop_internal.h"

int bop__loop_watch(struct bop_loop *loop, struct bop__source *source, uint32_t events)
{
    int rc;

    BOP_ASSERT(!source->attached && events <= UINT16_MAX);
    rc = loop->backend->ops->watch(loop->backend, source, events);
    if (rc == 0) {
        source->watched = (uint16_t)events;
        source->attached = true;
        loop->source_count++;
    }
    return rc;
}

int bop__loop_rewatch(struct bop_loop *loop, struct bop__source *source, uint32_t events)
{
    int rc;

    BOP_ASSERT(events <= UINT16_MAX);
    if (!source->attached) {
        return -ENOENT;
    }
    if (events == source->watched) {
        return 0;
    }
    rc = loop->backend->ops->rewatch(loop->backend, source, events);
    if (rc == 0) {
        source->watched = (uint16_t)events;
    }
    return rc;
}

int bop__loop_move_source(struct bop_loop *loop, struct bop__source *from, struct bop__source *to)
{
    int rc;

    BOP_ASSERT(from->attached && !to->attached && to->on_events != NULL);
    to->fd = from->fd;
    to->watched = from->watched;
    rc = loop->backend->ops->rewatch(loop->backend, to, from->watched);
    if (rc != 0) {
        to->fd = -1;
        to->watched = 0;
        return rc;
    }
    to->attached = true;
    from->attached = false;
    from->watched = 0;
    from->fd = -1;
    return 0;
}

void bop__loop_unwatch(struct bop_loop *loop, struct bop__source *source)
{
    if (source->attached) {
        loop->backend->ops->unwatch(loop->backend, source);
        source->attached = false;
        source->watched = 0;
        loop->source_count--;
    }
}

void bop__loop_close_source(struct bop_loop *loop, struct bop__source *source)
{
    if (source->fd < 0) {
        return;
    }
    bop__loop_unwatch(loop, source);
    /* Linux closes it whatever close() returns. */
    BOP_IGNORE(close(source->fd));
    source->fd = -1;
}
