/*
 * A build without liburing: whoever wants a burst has none and sends one by one.
 */
#include "burst.h"

struct bop__burst *bop__burst_create(struct bop_allocator *allocator)
{
    return NULL;
}

void bop__burst_destroy(struct bop__burst *burst)
{
}

bool bop__burst_is_full(const struct bop__burst *burst)
{
    return false;
}

bool bop__burst_is_broken(const struct bop__burst *burst)
{
    return true;
}

void bop__burst_add(struct bop__burst *burst, int fd, struct bop_shared *shared, void *user)
{
}

unsigned bop__burst_send(struct bop__burst *burst, const struct bop__burst_send **out_sends)
{
    return 0;
}
