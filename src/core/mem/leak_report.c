/*
 * What is still alive, for the end of a program.
 *
 *      alive: 1234567 bytes in 89 allocations
 *             1200000 bytes in         80 allocations  store.aof
 *               34567 bytes in          9 allocations  net.loop
 *      by stack, estimated from one sample in about 524288 bytes:
 *      about 1048600 bytes in 4 allocations, 2 of them sampled, store.aof
 *          segment_open+0x51 (bopd)
 *          ...
 *
 * The tags' figures are exact. A stack's are scaled up from its samples by the
 * chance that a block of their mean size had to be sampled.
 */
#include <bop/heap_profile.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include <bop/mem.h>

#include "sample.h"
#include "symbol.h"
#include "tag.h"

#define REPORT_STACKS_MAX 64 /* The largest; of the others their number is told. */

/* 1 - exp(-x): the chance that a block of x mean gaps is sampled. The C library's is in libm. */
static double chance(double x)
{
    unsigned halvings = 0;
    double p;

    if (x > 64) {
        return 1;
    }
    while (x > 1.0 / 1024) {
        x /= 2;
        halvings++;
    }
    p = x - x * x / 2 + x * x * x / 6;
    for (; halvings > 0; halvings--) {
        p = p * (2 - p); /* 1 - (1 - p)^2 */
    }
    return p;
}

static double scale_of(const struct bop__sample_stack *stack, size_t sample_bytes)
{
    double mean;

    if (stack->live_count == 0) {
        return 0;
    }
    mean = (double)stack->live_bytes / (double)stack->live_count;
    return 1 / chance(mean / (double)sample_bytes);
}

/* The order of the samples' bytes is not that of the estimates, so these are kept in the totals. */
static void estimate(struct bop__sample_snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->count; i++) {
        struct bop__sample_stack *stack = &snapshot->stacks[i];
        double scale = scale_of(stack, snapshot->sample_bytes);

        stack->total_bytes = (uint64_t)((double)stack->live_bytes * scale + 0.5);
        stack->total_count = (uint64_t)((double)stack->live_count * scale + 0.5);
    }
}

static int by_estimate(const void *left, const void *right)
{
    const struct bop__sample_stack *a = left;
    const struct bop__sample_stack *b = right;

    return (a->total_bytes < b->total_bytes) - (a->total_bytes > b->total_bytes);
}

static void write_tags(FILE *out, const struct bop_mem_stats *stats)
{
    fprintf(out, "alive: %" PRIu64 " bytes in %" PRIu64 " allocations\n", stats->total.live_bytes,
            stats->total.live_allocations);
    for (size_t i = 0; i < stats->tag_count; i++) {
        const struct bop_tag_stats *tag = &stats->tags[i];

        if (tag->live_allocations != 0 || tag->live_bytes != 0) {
            fprintf(out, "%14" PRIu64 " bytes in %10" PRIu64 " allocations  %s\n", tag->live_bytes,
                    tag->live_allocations, tag->name);
        }
    }
}

static void write_stack(FILE *out, const struct bop__sample_stack *stack,
                        struct bop__symbols *symbols)
{
    fprintf(out,
            "about %" PRIu64 " bytes in %" PRIu64 " allocations, %" PRIu64 " of them sampled, %s\n",
            stack->total_bytes, stack->total_count, stack->live_count,
            bop__tag_name(stack->tag_index));
    for (uint32_t i = 0; i < stack->depth; i++) {
        fprintf(out, "    ");
        bop__symbol_write(symbols, out, stack->frames[i]);
        fputc('\n', out);
    }
}

static void write_stacks(FILE *out, struct bop__sample_snapshot *snapshot)
{
    struct bop__symbols symbols = {.module_count = 0};
    size_t live = 0;

    if (snapshot->sample_bytes == 0) {
        fprintf(out, "no stacks: nothing was sampled\n");
        return;
    }
    estimate(snapshot);
    qsort(snapshot->stacks, snapshot->count, sizeof(snapshot->stacks[0]), by_estimate);
    while (live < snapshot->count && snapshot->stacks[live].live_count > 0) {
        live++;
    }
    fprintf(out, "by stack, estimated from one sample in about %zu bytes:\n",
            snapshot->sample_bytes);
    for (size_t i = 0; i < live && i < REPORT_STACKS_MAX; i++) {
        write_stack(out, &snapshot->stacks[i], &symbols);
    }
    if (live > REPORT_STACKS_MAX) {
        fprintf(out, "and %zu smaller stacks\n", live - REPORT_STACKS_MAX);
    }
    if (snapshot->dropped_count > 0) {
        fprintf(out, "%" PRIu64 " samples of %" PRIu64 " bytes were dropped: too many at once\n",
                snapshot->dropped_count, snapshot->dropped_bytes);
    }
    bop__symbols_deinit(&symbols);
}

int bop_leak_report_write(FILE *out)
{
    struct bop__sample_snapshot snapshot;
    struct bop_mem_stats stats;
    int rc = bop__sample_snapshot(&snapshot);

    if (rc < 0) {
        return rc;
    }
    bop_mem_stats(&stats);
    errno = 0;
    write_tags(out, &stats);
    write_stacks(out, &snapshot);
    bop__sample_snapshot_deinit(&snapshot);
    if (fflush(out) != 0 || ferror(out)) {
        return errno != 0 ? -errno : -EIO;
    }
    return 0;
}

static void report_at_exit(void)
{
    struct bop_mem_stats stats;

    bop_mem_stats(&stats);
    if (stats.total.live_allocations > 0 || stats.total.live_bytes > 0 ||
        atomic_load_explicit(&bop__sample_live, memory_order_relaxed) > 0) {
        BOP_IGNORE(bop_leak_report_write(stderr)); /* There is nobody left to tell. */
    }
}

static void register_report(void)
{
    BOP_IGNORE(atexit(report_at_exit)); /* Fails for lack of memory only. */
}

void bop_leak_report_at_exit(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, register_report);
}
