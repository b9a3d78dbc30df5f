/*
 * Whole pages straight from the system, for blocks that come and go.
 */
#ifndef BOP_MPMC_PAGES_H
#define BOP_MPMC_PAGES_H

#include <bop/alloc.h>

/* Lives for ever; any thread. Freed memory is the system's again at once. */
struct bop_allocator *bop__mpmc_pages(void);

#endif
