/*
 * Which backend a loop gets.
 *
 * The default is epoll: io_uring saves system calls where many small messages
 * go to and fro, but is forbidden in many containers, and gains nothing where
 * messages are large. Who wants it says so, and gets epoll where it is not to be had.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bop/error.h>

#include "loop_internal.h"

#define BACKEND_DEFAULT BOP_LOOP_BACKEND_EPOLL

static bool is_forced(const char *name)
{
    /* Not for programs that run with more rights than their user. */
    const char *forced = secure_getenv("BOP_LOOP_BACKEND");

    return forced != NULL && strcmp(forced, name) == 0;
}

static enum bop_loop_backend choose(enum bop_loop_backend wanted)
{
    if (is_forced("epoll")) {
        return BOP_LOOP_BACKEND_EPOLL;
    }
    if (is_forced("io_uring")) {
        return BOP_LOOP_BACKEND_IO_URING;
    }
    return wanted == BOP_LOOP_BACKEND_DEFAULT ? BACKEND_DEFAULT : wanted;
}

int bop__backend_create(struct bop_loop *loop, enum bop_loop_backend wanted,
                        struct bop__backend **out_backend)
{
    loop->only_epoll = wanted == BOP_LOOP_BACKEND_EPOLL || is_forced("epoll");
#ifdef BOP_HAVE_LIBURING
    if (choose(wanted) == BOP_LOOP_BACKEND_IO_URING) {
        int rc = bop__uring_create(loop, out_backend);

        /* Lack of memory or descriptors is not for want of io_uring. */
        if (rc == 0 || rc == BOP_ENOMEM || rc == -EMFILE || rc == -ENFILE) {
            return rc;
        }
    }
#else
    (void)choose(wanted);
#endif
    return bop__epoll_create(loop, out_backend);
}
