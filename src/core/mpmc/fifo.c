/*
 * The kind `fifo`.
 */
#include "internal.h"

static int fifo_create(const struct bop_mpmc_options *options, struct bop_allocator *allocator,
                       struct bop_mpmc **out_queue)
{
    return BOP_EUNSUPPORTED;
}

const struct bop__mpmc_ops bop__mpmc_fifo_ops = {.create = fifo_create};
