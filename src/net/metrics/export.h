/*
 * Counters that are kept in a registry of metrics as well.
 *
 * Whoever counts does so in a plain struct of uint64_t, on its own thread, and
 * says now and then how that stands: what was counted since the last time is
 * added. So counting costs nothing more, and those with the same labels add up.
 */
#ifndef BOP_NET_METRICS_EXPORT_H
#define BOP_NET_METRICS_EXPORT_H

#include <stddef.h>

#include <bop/alloc.h>
#include <bop/base.h>
#include <bop/metrics.h>

/* How old what a registry shows may get, by itself. */
#define BOP__EXPORT_INTERVAL_MS 1000u

/** One metric: which counter, under which name. */
struct bop__series {
    const char *name;
    const char *labels; /* Beside the user's, or NULL. */
    const char *help;
    size_t offset; /* Of a uint64_t in the struct of counters. */
    bool gauge;
};

struct bop__export;

/** Register all. labels as in bop/metrics.h, or NULL. The table and the registry are borrowed until
 * bop__export_destroy(). NULL: no memory, or the registry refuses a name. */
struct bop__export *bop__export_create(struct bop_allocator *allocator, struct bop_metrics *metrics,
                                       const char *labels, const struct bop__series *table,
                                       size_t count);
/** Gauges go back by what this had in them. NULL is fine. */
void bop__export_destroy(struct bop__export *exported);

struct bop_metrics *bop__export_registry(const struct bop__export *exported);

/** How the counters stand. One thread at a time. NULL: nothing to do. */
void bop__export_update(struct bop__export *exported, const void *counters);

#endif
