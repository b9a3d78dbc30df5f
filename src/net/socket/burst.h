/*
 * Many sends by few system calls: what goes to many sockets at once, such as a
 * message to all subscribers of a topic.
 *
 * The sends are handed to the kernel through a ring of their own and are done
 * when bop__burst_send() returns: none waits, whatever the socket is like. So
 * this needs nothing of the loop, and works beside either of its backends.
 */
#ifndef BOP_NET_BURST_H
#define BOP_NET_BURST_H

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/shared.h>

/** Sends of one call: the more, the less often others get the processor, and its caches, between
 * two. They take about a millisecond. */
enum { BOP__BURST_MAX = 256 };

struct bop__burst;

/** One send and what became of it: the bytes that went or -errno, where -EAGAIN is also what was
 * not tried. */
struct bop__burst_send {
    void *user;                /* Whose it is, */
    struct bop_shared *shared; /* and what: both borrowed until they were looked at. */
    int result;
};

/** NULL: no memory, no descriptor, or no io_uring in this build, kernel or container. */
struct bop__burst *bop__burst_create(struct bop_allocator *allocator);
void bop__burst_destroy(struct bop__burst *burst);
/** Note a send. Whoever fills the last place sends. */
void bop__burst_add(struct bop__burst *burst, int fd, struct bop_shared *shared, void *user);
bool bop__burst_is_full(const struct bop__burst *burst);
/** Send what was noted. Returns the number of sends, which *out_sends has until the next add; 0
 * where nothing was noted. */
unsigned bop__burst_send(struct bop__burst *burst, const struct bop__burst_send **out_sends);
/** Whether the kernel refused to take some: then none can be trusted to it any more. */
bool bop__burst_is_broken(const struct bop__burst *burst);

#endif
