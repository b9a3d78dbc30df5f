/*
 * The kind `lanes`.
 */
#include "internal.h"

static int lanes_create(const struct bop_mpmc_options *options, struct bop_allocator *allocator,
                        struct bop_mpmc **out_queue)
{
    return BOP_EUNSUPPORTED;
}

const struct bop__mpmc_ops bop__mpmc_lanes_ops = {.create = lanes_create};
