/*
 * Where memory is held: stacks of sampled allocations, by tag.
 *
 * Each thread samples one allocation about every `sample_bytes` bytes that it
 * allocates (the gap is drawn from an exponential distribution, so that sizes
 * are estimated without bias, as tcmalloc and jemalloc do). What is sampled and
 * still alive makes up the profile; `pprof` and `go tool pprof` read it.
 *
 * Both the tags and the malloc family (mem.h) are sampled. While off, it costs a
 * load and a branch for each allocation and each free.
 *
 * Threads: any.
 */
#ifndef BOP_HEAP_PROFILE_H
#define BOP_HEAP_PROFILE_H

#include <stdio.h>

#include <bop/base.h>
#include <bop/error.h>

#define BOP_HEAP_PROFILE_SAMPLE_BYTES (512 * 1024) /* A good default. */

/** Start sampling, from an empty profile. Returns 0, BOP_EBUSY if it runs, -EINVAL for 0. */
BOP_API BOP_MUST_USE int bop_heap_profile_start(size_t sample_bytes);

/** Stop sampling; the profile can be written until the next start. */
BOP_API void bop_heap_profile_stop(void);

BOP_API bool bop_heap_profile_running(void);

/**
 * Write the profile in pprof's text format for heaps (heap_v2), with the mappings: live and
 * cumulative counts and bytes a stack. Returns 0 or -errno of the stream, -ENOMEM.
 */
BOP_API BOP_MUST_USE int bop_heap_profile_write(FILE *out);

/**
 * What is still alive, by tag: exact live bytes and counts, and the stacks of the sampled part with
 * symbols where they are known. For the end of a program. Returns 0 or -errno.
 */
BOP_API BOP_MUST_USE int bop_leak_report_write(FILE *out);

/** Write a leak report to standard error when the process exits normally, if anything leaked. */
BOP_API void bop_leak_report_at_exit(void);

#endif
